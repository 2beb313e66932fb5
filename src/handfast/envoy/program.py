"""The access check as Envoy gets it: the policy as Lua tables, in front of the program that reads them.

Decides how a policy is written down for Lua. What the tables mean is decided in `access.lua`, the text that follows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from handfast.access.policy import Host, Open, Route, RouteMode, Rule
from handfast.access.slice import Slice
from handfast.base.reasons import EXPLANATIONS, Reason
from handfast.envoy.partners import partner_tables

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
MISDIRECTED = "!misdirected"
JWKS = "!jwks"
AGENT_CLUSTER = "!agent"
_SOME = 1000

_PLAIN = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-./:*,;()'"
_ESCAPES = {octet: f"\\{octet:03d}" for octet in range(256) if octet not in _PLAIN}


def literal(value: object) -> str:
    """Write strings, numbers, booleans, lists and mappings as a Lua literal. Strings cannot break out of it."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return _quoted(value)
        case bytes():
            return _quoted_octets(value)
        case Mapping():
            return "{" + ",".join(f"[{_quoted(str(k))}]={literal(v)}" for k, v in value.items()) + "}"
        case Iterable():
            return "{" + ",".join(literal(item) for item in value) + "}"
        case _:
            raise TypeError(f"no Lua literal for {type(value).__name__}")


def _quoted(text: str) -> str:
    """Quote a string, every byte but letters, digits and harmless marks as a decimal escape."""
    return _quoted_octets(text.encode())


def _quoted_octets(octets: bytes) -> str:
    return f'"{octets.decode("latin-1").translate(_ESCAPES)}"'


def route_name(host: Host, route: Route) -> str:
    """Name a route so that Envoy, the program and the records mean the same one."""
    return f"{host.name}{route.path}"


def _methods(methods: tuple[str, ...]) -> object:
    return dict.fromkeys(methods, True) if methods else True


def _rules(rules: Iterable[Rule]) -> dict[str, object]:
    exact: dict[str, list[object]] = {}
    prefix: list[list[object]] = []
    for rule in rules:
        text, methods = str(rule.identity), _methods(rule.methods)
        if rule.identity.prefix:
            prefix.append([text.removesuffix("*"), methods])
        else:
            exact.setdefault(text, []).append(methods)
    return {"exact": exact, "prefix": prefix}


def _trust(host: Host) -> dict[str, object]:
    """Give who counts: trust domains by name, and other authorities by theirs behind a mark that no domain has."""
    return dict.fromkeys((*(d.name for d in host.clients.trust), *(f"!{name}" for name in host.clients.partners)), True)


def _route(host: Host, route: Route) -> dict[str, object]:
    table: dict[str, object] = {
        "host": host.name,
        "path": route.path,
        "trust": _trust(host),
        "mode": "report" if route.mode is RouteMode.REPORT else "enforce",
        "session": host.session,
        "deny": _rules(route.deny),
        "headers": [[name.lower(), field.value] for name, field in route.headers],
    }
    if route.methods:
        table["methods"] = _methods(route.methods)
    if isinstance(route.allow, Open):
        table["open"] = route.allow.value
    else:
        table["allow"] = _rules(route.allow)
    return table


def _platform_routes(host: Host) -> dict[str, object]:
    """Give the routes that a user does not write: for no route at all, for the wrong host, for the session keys."""
    base = {
        "host": host.name,
        "trust": _trust(host),
        "mode": "enforce",
        "session": False,
        "deny": _rules(()),
        "headers": (),
    }
    return {
        f"{host.name}{MISDIRECTED}": {**base, "path": "", "status": 421, "code": Reason.REQUEST_MISDIRECTED.value},
        f"{host.name}!": {**base, "path": "", "status": 404, "code": Reason.REQUEST_NO_ROUTE.value},
        f"{host.name}{JWKS}": {**base, "path": "/.well-known/jwks.json", "open": Open.ANYONE.value},
    }


def program(slice_: Slice, host: Host, source: str, *, by: str, retired: Host | None = None) -> str:
    """Give one host's whole Lua program: it knows nothing of other hosts.

    ``source`` is the text of ``access.lua``; ``by`` the gateway's own SPIFFE id. ``retired`` is the host as it was in the slice
    before: where its routes are gone, their policy stays for this one push, as requests that Envoy had matched need it.
    """
    hosts = (retired, host) if retired else (host,)
    named = {m for r in host.routes for m in r.methods}
    named |= {m for r in host.routes for rule in _all_rules(r) for m in rule.methods}
    words: dict[str, object] = {
        "BY": by,
        "REVISION": str(slice_.revision),
        "AGENT": AGENT_CLUSTER,
        "METHODS": dict.fromkeys((*METHODS, *sorted(named - set(METHODS))), True),
        "TITLES": {reason.value: explanation.summary for reason, explanation in EXPLANATIONS.items()},
    }
    denied = f"local DENIED = {{{','.join(_denied(slice_.denied))}}}"
    lines = [*_locals(words), denied, *_locals({"ROUTES": {}, **partner_tables(slice_, host)})]
    return "\n".join([*lines, *(_host_routes(host) for host in hosts), source])


def _locals(tables: Mapping[str, object]) -> Iterator[str]:
    return (f"local {name} = {literal(table)}" for name, table in tables.items())


def _denied(fingerprints: tuple[str, ...]) -> Iterator[str]:
    """Write the keys of the denied, some at a time: there may be a million."""
    for at in range(0, len(fingerprints), _SOME):
        yield ",".join(f"[{_quoted(one)}]=true" for one in fingerprints[at : at + _SOME])


def _host_routes(host: Host) -> str:
    """Write a host's routes, in a function of its own and each in one more: Lua bounds what one function may hold.

    LuaJIT takes 65536 constants a function, and every rule of a large policy is one or two of them.
    """
    routes = {route_name(host, route): _route(host, route) for route in host.routes} | _platform_routes(host)
    filled = (f"ROUTES[{_quoted(name)}]=(function() return {literal(table)} end)()" for name, table in routes.items())
    return f"do local function fill() {' '.join(filled)} end fill() end"


def _all_rules(route: Route) -> tuple[Rule, ...]:
    return route.deny if isinstance(route.allow, Open) else (*route.allow, *route.deny)
