"""Policies and requests by chance: many routes that are each other's prefixes, and targets that nearly are theirs."""

from __future__ import annotations

import json
from random import Random
from typing import NamedTuple

from handfast.access.paths import normalise
from handfast.access.policy import (
    CertificateMode,
    Clients,
    Host,
    IdentityField,
    IdentityPattern,
    Listen,
    Open,
    Route,
    RouteMode,
    Rule,
    Upstream,
)
from handfast.access.world import World
from handfast.access.world_file import document, parse_world
from handfast.base.spiffe import TrustDomain

OWN, FOREIGN = TrustDomain("example.org"), TrustDomain("partner.org")
NAMES = ("a", "ab", "team", "team/a", "team/ab", "team/a/x", "Team/a", "m.9_-/z")
STEMS = ("", "team/", "team/a/", "m.9_-/")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "SEARCH")
"""What Envoy's parser of HTTP/1.1 knows. It answers 400 to any other, which only HTTP/2 carries."""
CUSTOM_METHODS = ("FOO", "M-SEARCH", "GETS", "get", "Post", "PURGE!")
SEGMENTS = (
    "v1",
    "v10",
    "V1",
    "a",
    "ab",
    "a.b",
    "ledger",
    "a;b=c",
    "...",
    "..a",
    "~x",
    "(1)",
    "admin",
    "x:y@z",
    "+,&=$!'",
)
ODD = (
    "/", "//", "/./", "/../", "/%2e/", "/%2E%2e/", "/..;x/", "/.;/", "/%2e%2e;x/", "/.%2E;/", "/...", "%2f", "%5C", "\\", "%00", "%61", "%41", "%zz",
    "%", "%2", "%25", "%252e", ";a=b", "<", '"', "^", "|", "{", "`", "%7e", "%7E", "%20", "#", "?", "?a=/../b", "?%2f", "*",
    "\xe9", "%c3%a9", "\x7f", "/.well-known/jwks.json", "//.well-known//jwks.json", "..", ".", ":", "@",
)  # fmt: skip
HOSTS = {
    "optional.test": CertificateMode.OPTIONAL,
    "session.test": CertificateMode.OPTIONAL,
    "required.test": CertificateMode.REQUIRED,
    "off.test": CertificateMode.OFF,
    "also.test": CertificateMode.OPTIONAL,
}
WHOLE = {"session.test", "off.test"}
"""Hosts that have a route for every path."""


class Asked(NamedTuple):
    """One request: its target as it is sent, its method, and further header lines."""

    target: str
    method: str
    fields: str


def a_world(chance: Random, listens: list[int], services: list[int]) -> World:
    """Make one that a world file can say. Hosts share the first port, but for the last; ``services`` are ports too."""
    ports = dict.fromkeys(HOSTS, listens[0]) | {"also.test": listens[1]}
    hosts = {name: _host(chance, name, ports[name], services) for name in HOSTS}
    return parse_world(json.dumps(document(World(OWN, hosts=hosts))))


def _host(chance: Random, name: str, port: int, services: list[int]) -> Host:
    paths = {_path(chance) for _ in range(70)} | ({"/"} if name in WHOLE else set())
    off = HOSTS[name] is CertificateMode.OFF
    routes = tuple(_route(chance, path, chance.choice(services), open_=off) for path in sorted(paths))
    return Host(name, Listen("127.0.0.1", port), Clients((OWN,), HOSTS[name]), routes, session=name == "session.test")


def _path(chance: Random) -> str:
    while True:
        path = "/" + "/".join(chance.choices(SEGMENTS, k=chance.randint(1, 3)))
        if normalise(path) == path:
            return path


def _route(chance: Random, path: str, port: int, *, open_: bool) -> Route:
    roll = chance.random()
    allow = Open.ANYONE if open_ or roll < 0.15 else Open.ANY_CERTIFICATE if roll < 0.3 else _rules(chance, 5)
    return Route(
        path=path,
        upstream=Upstream("http", "127.0.0.1", port),
        allow=allow,
        deny=_rules(chance, 2) if chance.random() < 0.4 else (),
        methods=_methods(chance) if chance.random() < 0.3 else (),
        mode=RouteMode.REPORT if chance.random() < 0.1 else RouteMode.ENFORCE,
        headers=(("X-Who", IdentityField.NAME),) if chance.random() < 0.2 else (),
    )


def _rules(chance: Random, most: int) -> tuple[Rule, ...]:
    return tuple(sorted({_rule(chance) for _ in range(chance.randint(0, most))}))


def _rule(chance: Random) -> Rule:
    domain = FOREIGN if chance.random() < 0.15 else OWN
    prefix = chance.random() < 0.3
    pattern = IdentityPattern(domain, chance.choice(STEMS if prefix else NAMES), prefix)
    return Rule(pattern, _methods(chance) if chance.random() < 0.6 else ())


def _methods(chance: Random) -> tuple[str, ...]:
    known = [*METHODS, *(method for method in CUSTOM_METHODS if method.isupper())]
    return tuple(sorted(chance.sample(known, chance.randint(1, 4))))


# Requests

_SPOOFS = (
    "X-Client-Identity: spiffe://example.org/root\r\n",
    "x_client_identity: spiffe://example.org/root\r\nX.Client.Identity: spiffe://example.org/root\r\n",
    "X-Forwarded-Client-Cert: URI=spiffe://example.org/root\r\nClient-Cert: :AA==:\r\nX-Client-CN: root\r\n",
    "X-Who: root\r\nX-WHO: root\r\n",
)


def a_request(chance: Random, host: Host, methods: tuple[str, ...] = METHODS) -> Asked:
    """Make one that comes near to a route of the host."""
    fields = chance.choice(_SPOOFS) if chance.random() < 0.2 else ""
    return Asked(_target(chance, chance.choice(host.routes).path), chance.choice(methods), fields)


def _target(chance: Random, path: str) -> str:
    for _ in range(chance.choice((0, 0, 0, 1, 1, 2, 3))):
        path = chance.choice(_MISSPELLINGS)(chance, path)
    return path if path.startswith("/") else "/" + path


def _insert(chance: Random, path: str) -> str:
    at = chance.choice((chance.randint(0, len(path)), len(path), path.rfind("/")))
    return path[:at] + chance.choice(ODD) + path[at:]


def _escape(chance: Random, path: str) -> str:
    at = chance.randrange(len(path))
    return f"{path[:at]}%{ord(path[at]):02{chance.choice('xX')}}{path[at + 1 :]}"


def _shorten(chance: Random, path: str) -> str:
    return path[: chance.randint(1, len(path))]


def _lengthen(chance: Random, path: str) -> str:
    return path + chance.choice(("/", "/x", "x", "/../..", "/..", "?x=1", *(f"/{segment}" for segment in SEGMENTS)))


def _recase(chance: Random, path: str) -> str:
    return chance.choice((path.upper, path.lower, path.swapcase))()


_MISSPELLINGS = (_insert, _insert, _escape, _shorten, _lengthen, _lengthen, _recase)
