"""One host of the world file: from its keys to a `Host` that cannot be wrong, and back to plain values.

Decides what may be said of a host, its routes and their rules. Refuses to know of other hosts and of workloads. Lists whose
order means nothing are kept sorted, so that two hosts that decide alike are equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from handfast.access import values
from handfast.access.authority import ForeignAuthority
from handfast.access.patterns import OPEN_WORDS, parse_pattern, pattern_text
from handfast.access.policy import (
    JWKS_PATH,
    CertificateMode,
    Clients,
    Host,
    IdentityField,
    Open,
    Route,
    RouteMode,
    Rule,
    Upstream,
)
from handfast.access.yaml_lines import Node, Table, Text, any_table, distinct, items, placed, table, value
from handfast.base.refusal import BadInput
from handfast.base.spiffe import TrustDomain

MAX_ROUTES = 200
MAX_RULES = 1000
MAX_METHODS = 32
MAX_HEADERS = 32

HOST_KEYS = ("listen", "clients", "routes", "session", "must_staple")
CLIENTS_KEYS = ("trust", "certificate")
ROUTE_KEYS = ("path", "upstream", "allow", "deny", "methods", "mode", "headers")
RULE_KEYS = ("identity", "methods")


def parse_host(name: str, node: Node, *, own: TrustDomain, authorities: Iterable[ForeignAuthority] = ()) -> Host:
    """Read one entry of ``hosts``; ``own`` is the world's trust domain, ``authorities`` those that it names beside it.

    Raises:
        BadInput: a key is missing, unknown or wrong, or two keys contradict each other.
    """
    found = table(node, HOST_KEYS)
    placed(found.place, lambda: values.dns_name(name))
    listen = value(found.need("listen", hint="the port to serve on, such as 8443"), values.listen)
    clients = _clients(found.nodes.get("clients"), name, own, tuple(authorities))
    session, must_staple = _truth(found, "session"), _truth(found, "must_staple")
    if session and clients.certificate is CertificateMode.OFF:
        raise found.nodes["session"].place.error(
            "a session is bound to a certificate, and this host asks for none",
            hint="set clients.certificate to optional",
        )
    routes_node = found.need("routes", hint="a host serves nothing without one")
    route_nodes = items(routes_node, most=MAX_ROUTES)
    if not route_nodes:
        raise routes_node.place.error("a host needs at least one route")
    distinct([_path_node(route) for route in route_nodes], lambda path: value(path, values.path))
    routes = [_route(route, own, clients.certificate, session=session) for route in route_nodes]
    return Host(name, listen, clients, tuple(sorted(routes, key=lambda route: route.path)), session, must_staple)


def host_document(host: Host, *, own: TrustDomain) -> dict[str, object]:
    """Give a host as plain values that `parse_host` reads to an equal one. What is empty is left out."""
    plain: dict[str, object] = {
        "listen": str(host.listen),
        "clients": {
            "trust": [*(domain.name for domain in host.clients.trust), *host.clients.partners],
            "certificate": host.clients.certificate.value,
        },
        "routes": [_route_document(route, own) for route in host.routes],
    }
    more = {"session": host.session, "must_staple": host.must_staple}
    return plain | {key: True for key, wanted in more.items() if wanted}


def _truth(found: Table, key: str) -> bool:
    return value(found.nodes[key], values.truth) if key in found.nodes else False


# Clients


def _clients(node: Node | None, host: str, own: TrustDomain, authorities: tuple[ForeignAuthority, ...]) -> Clients:
    found = table(node, CLIENTS_KEYS).nodes if node else {}
    mode = value(found["certificate"], _certificate) if "certificate" in found else CertificateMode.REQUIRED
    by_name = {one.name: one for one in authorities}
    trust = _trust(found["trust"], host, own, by_name) if "trust" in found else (own.name,)
    return Clients(
        trust=tuple(TrustDomain(name) for name in trust if name not in by_name),
        certificate=mode,
        partners=tuple(sorted(name for name in trust if name in by_name)),
        lent=tuple((one.name, pattern) for _, one in sorted(by_name.items()) for pattern in one.patterns(own)),
    )


def _certificate(text: str) -> CertificateMode:
    """Read the mode. What wrote the file may have taken a bare ``off`` for a boolean, as YAML 1.1 does."""
    return CertificateMode.OFF if text == "false" else values.word(CertificateMode, text)


def _trust(node: Node, host: str, own: TrustDomain, authorities: Mapping[str, ForeignAuthority]) -> tuple[str, ...]:
    trust = distinct(items(node, most=1000), lambda one: value(one, partial(_trusted, host, own, authorities)))
    if not trust:
        raise node.place.error(
            "a host trusts at least one trust domain", hint="to ask for no certificate: 'certificate: off'"
        )
    return trust


def _trusted(host: str, own: TrustDomain, authorities: Mapping[str, ForeignAuthority], text: str) -> str:
    """Read who counts. Both sides have to say so: the host names the authority, and the authority the host."""
    if text == own.name:
        return text
    if text not in authorities:
        raise BadInput(
            f"{text[:80]!r} is neither this trust domain nor one of 'authorities'",
            hint=f"known here: {', '.join((own.name, *authorities))}",
        )
    if host not in authorities[text].hosts:
        raise BadInput(f"the authority {text!r} does not count at this host", hint="add the host to its 'hosts'")
    return text


# Routes


def _path_node(node: Node) -> Node:
    return table(node, ROUTE_KEYS).need("path", hint="such as '/' for all, or '/v1'")


def _route(node: Node, own: TrustDomain, certificate: CertificateMode, *, session: bool) -> Route:
    found = table(node, ROUTE_KEYS)
    path = value(found.need("path"), values.path)
    if session and path == JWKS_PATH:
        raise found.nodes["path"].place.error(
            "the gateway shows the session keys here", hint="remove 'session', or this route"
        )
    return Route(
        path=path,
        upstream=_upstream(found.need("upstream", hint="the service behind it, such as http://127.0.0.1:9000")),
        allow=_allow(found, own, certificate),
        deny=_rules(found.nodes["deny"], own) if "deny" in found.nodes else (),
        methods=_methods(found.nodes.get("methods")),
        mode=value(found.nodes["mode"], partial(values.word, RouteMode))
        if "mode" in found.nodes
        else RouteMode.ENFORCE,
        headers=_headers(found.nodes.get("headers")),
    )


def _upstream(node: Node) -> Upstream:
    if isinstance(node, Table):
        place = next((node.places[key] for key in ("as", "expect") if key in node.places), node.place)
        raise place.error(
            "mutual TLS to an upstream is not yet supported", hint="write the URL alone: upstream: https://HOST:PORT"
        )
    return value(node, values.upstream)


def _allow(route: Table, own: TrustDomain, certificate: CertificateMode) -> Open | tuple[Rule, ...]:
    node = route.need("allow", hint="say who may come: anyone, any-certificate, or a list of identities")
    allow = value(node, _open) if isinstance(node, Text) else _rules(node, own)
    if certificate is CertificateMode.OFF and allow is not Open.ANYONE:
        raise node.place.error(
            "this wants a certificate, and the host asks for none",
            hint="set clients.certificate to optional or required",
        )
    return allow


def _open(text: str) -> Open:
    if text not in OPEN_WORDS:
        raise BadInput(
            f"{text[:80]!r} is not one of {', '.join(Open)}", hint=f"to name an identity write a list: [{text[:80]}]"
        )
    return Open(text)


def _rules(node: Node, own: TrustDomain) -> tuple[Rule, ...]:
    return tuple(sorted(distinct(items(node, most=MAX_RULES), lambda rule: _rule(rule, own))))


def _rule(node: Node, own: TrustDomain) -> Rule:
    read = partial(parse_pattern, own=own)
    if isinstance(node, Text):
        return Rule(value(node, read))
    found = table(node, RULE_KEYS)
    return Rule(value(found.need("identity"), read), _methods(found.nodes.get("methods")))


def _methods(node: Node | None) -> tuple[str, ...]:
    if node is None:
        return ()
    methods = distinct(items(node, most=MAX_METHODS), lambda method: value(method, values.method))
    if not methods:
        raise node.place.error("no method is named", hint="leave 'methods' out to mean all")
    return tuple(sorted(methods))


def _headers(node: Node | None) -> tuple[tuple[str, IdentityField], ...]:
    if node is None:
        return ()
    found = any_table(node)
    if len(found.nodes) > MAX_HEADERS:
        raise found.place.error(f"{MAX_HEADERS} headers are the most")
    seen: set[str] = set()
    for name, place in found.places.items():
        placed(place, partial(values.header_name, name))
        if name.lower() in seen:
            raise place.error("the header is named twice", hint="upper and lower case do not count")
        seen.add(name.lower())
    read = partial(values.word, IdentityField)
    return tuple(sorted((name, value(carries, read)) for name, carries in found.nodes.items()))


def _route_document(route: Route, own: TrustDomain) -> dict[str, object]:
    plain: dict[str, object] = {
        "path": route.path,
        "upstream": str(route.upstream),
        "allow": route.allow.value if isinstance(route.allow, Open) else _rules_document(route.allow, own),
    }
    more: Mapping[str, object] = {
        "deny": _rules_document(route.deny, own),
        "methods": list(route.methods),
        "mode": "" if route.mode is RouteMode.ENFORCE else route.mode.value,
        "headers": {name: carries.value for name, carries in route.headers},
    }
    return plain | {key: one for key, one in more.items() if one}


def _rules_document(rules: tuple[Rule, ...], own: TrustDomain) -> list[object]:
    return [_rule_document(rule, own) for rule in rules]


def _rule_document(rule: Rule, own: TrustDomain) -> object:
    identity = pattern_text(rule.identity, own=own)
    return {"identity": identity, "methods": list(rule.methods)} if rule.methods else identity
