"""Worlds, hosts and visitors for hypothesis: few names, so that rules and requests meet often."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import strategies as st

from handfast.access.decide import Request, Visitor
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
from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.base.spiffe import SpiffeId, TrustDomain
from handfast.trust.entries import Workload

OWN = TrustDomain("example.org")
OTHER = TrustDomain("partner.org")
NAMES = ("payments", "ledger", "team/a", "team/b", "team/a/x", "anyone", "handfast/operator/eve")
METHODS = ("DELETE", "GET", "M-SEARCH", "POST")
PATHS = ("/", "/v1", "/v1/ledger", "/v1/ledger/a", "/v10", "/health", "/a;b=c")
LISTENS = (Listen("0.0.0.0", 8443), Listen("0.0.0.0", 8444), Listen("127.0.0.1", 9443), Listen("::1", 8443))

method_sets = st.frozensets(st.sampled_from(METHODS), max_size=3).map(lambda methods: tuple(sorted(methods)))
domains = st.sampled_from((OWN, OWN, OWN, OTHER))
patterns = st.one_of(
    st.builds(IdentityPattern, domains, st.sampled_from(NAMES)),
    st.builds(IdentityPattern, domains, st.sampled_from(("", "team/", "team/a/")), prefix=st.just(value=True)),
)
rules = st.builds(Rule, patterns, method_sets)
rule_sets = st.frozensets(rules, max_size=4).map(lambda found: tuple(sorted(found)))
upstreams = st.builds(
    Upstream,
    st.sampled_from(("http", "https")),
    st.sampled_from(("127.0.0.1", "::1", "ledger.internal", "my_service")),
    st.integers(1, 65535),
)
headers = st.dictionaries(st.sampled_from(("X-Who", "X-Serial")), st.sampled_from(IdentityField)).map(
    lambda found: tuple(sorted(found.items()))
)


def routes(path: str) -> st.SearchStrategy[Route]:
    """Routes at one path."""
    return st.builds(
        Route,
        path=st.just(path),
        upstream=upstreams,
        allow=st.one_of(st.sampled_from(Open), rule_sets),
        deny=rule_sets,
        methods=method_sets,
        mode=st.sampled_from(RouteMode),
        headers=headers,
    )


@st.composite
def hosts(draw: st.DrawFn, name: str = "api.example.org") -> Host:
    """Hosts as a world file can say them: sorted, and without contradictions."""
    paths = sorted(draw(st.frozensets(st.sampled_from(PATHS), min_size=1, max_size=4)))
    certificate = draw(st.sampled_from(CertificateMode))
    off = certificate is CertificateMode.OFF
    found = [draw(routes(path)) for path in paths]
    return Host(
        name=name,
        listen=draw(st.sampled_from(LISTENS)),
        clients=Clients((OWN,), certificate),
        routes=tuple(replace(route, allow=Open.ANYONE) if off else route for route in found),
        session=not off and draw(st.booleans()),
        must_staple=draw(st.booleans()),
    )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Worlds that a file can say."""
    host_names = draw(st.frozensets(st.sampled_from(("api.example.org", "localhost", "x--1.example.org")), max_size=2))
    names = draw(st.frozensets(st.sampled_from(NAMES[:5]), max_size=4))
    seconds = st.integers(5, 397 * 86400)
    return World(
        OWN,
        workloads={
            name: Workload(
                OWN.id(name),
                draw(st.lists(st.sampled_from(("a.internal", "b.internal")), unique=True).map(tuple)),
                timedelta(seconds=draw(seconds)),
                draw(st.sampled_from(("", "team-a", "Zoë: #1", "null"))),
                draw(st.booleans()),
            )
            for name in names
        },
        hosts={name: draw(hosts(name)) for name in host_names},
    )


identities = st.builds(SpiffeId, domains, st.sampled_from(NAMES).map(lambda name: f"/{name}"))
refusals = st.sampled_from((Reason.CERT_EXPIRED, Reason.REVOKED, Reason.IDENTITY_FOREIGN_DOMAIN)).map(Refusal)
visitors: st.SearchStrategy[Visitor] = st.one_of(identities, identities, refusals, st.none())
requests = st.builds(
    Request,
    st.sampled_from((*METHODS, "get")),
    st.sampled_from((*PATHS, "/v1/", "//", "/.well-known/jwks.json", "/else")),
)
