from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from handfast.access import world_file
from handfast.access.policy import (
    CertificateMode,
    Clients,
    IdentityField,
    IdentityPattern,
    Listen,
    Open,
    RouteMode,
    Rule,
    Upstream,
)
from handfast.access.world import World
from handfast.access.world_file import digest, document, parse_world
from handfast.base.refusal import BadInput
from handfast.trust.entries import DEFAULT_TTL, Workload
from tests.access import strategies as some
from tests.access.strategies import OWN

WORLDS = Path(__file__).parent.parent / "vectors" / "in" / "worlds"
DESIGN = (WORLDS / "good-design.yaml").read_text()
HOST = "trust_domain: example.org\nhosts:\n  a.example.org: {listen: 8443, routes: [{path: /, upstream: 'http://a', allow: anyone}]}\n"


def attempt(text: str) -> World | BadInput:
    """Give the world, or the error."""
    try:
        return parse_world(text)
    except BadInput as error:
        return error


def expected(text: str) -> list[str]:
    """Give what a bad world's first two lines say of it."""
    return [line.partition(": ")[2] for line in text.splitlines()[:2]]


@pytest.mark.parametrize("path", sorted(WORLDS.glob("bad-*.yaml")), ids=lambda path: path.stem)
def test_a_bad_world_is_refused(path: Path):
    """Each bad world is refused with its line, key, message and remedy."""
    text = path.read_text()
    with pytest.raises(BadInput) as caught:
        parse_world(text, file="world.yaml")
    assert [str(caught.value), caught.value.hint] == [f"world.yaml:{expected(text)[0]}", expected(text)[1]]


@pytest.mark.parametrize("path", sorted(WORLDS.glob("good-*.yaml")), ids=lambda path: path.stem)
def test_a_good_world_survives_its_canonical_form(path: Path):
    """Each good world is read, and its canonical form is an equal world with the same digest."""
    world = parse_world(path.read_text())
    assert parse_world(json.dumps(document(world))) == world
    assert parse_world(yaml.safe_dump(document(world))) == world
    assert digest(json.dumps(document(world))) == digest(path.read_text())


def test_the_design_example_means_what_it_says():
    """The example of the design is read key by key, with the defaults that the reference promises."""
    world = parse_world(DESIGN)
    assert world.trust_domain == OWN
    assert world.workloads["payments"] == Workload(OWN.id("payments"), ("payments.internal",), timedelta(hours=1))
    assert world.workloads["ledger"].ttl == DEFAULT_TTL
    host = world.hosts["api.example.org"]
    assert (host.name, host.listen, host.session) == ("api.example.org", Listen("0.0.0.0", 8443), False)
    assert host.clients == Clients((OWN,), CertificateMode.OPTIONAL)
    root, health, ledger = host.routes
    assert (root.path, root.allow, root.mode) == ("/", Open.ANY_CERTIFICATE, RouteMode.REPORT)
    assert (health.path, health.allow, health.mode) == ("/health", Open.ANYONE, RouteMode.ENFORCE)
    assert ledger.upstream == Upstream("https", "ledger.internal", 9443)
    assert set(ledger.allow) == {
        Rule(IdentityPattern(OWN, "payments"), ("GET", "POST")),
        Rule(IdentityPattern(OWN, "acme/", prefix=True), ("GET",)),
    }


def test_everything_is_read():
    """The keys that the design's example does not have are read too."""
    world = parse_world((WORLDS / "good-everything.yaml").read_text())
    assert world.workloads["team/reports"] == Workload(OWN.id("team/reports"))
    assert world.workloads["8443"].dns == ("a.internal", "b.internal")
    assert world.workloads["8443"].owner == "the team (ops@example.org)"
    assert world.workloads["8443"].must_staple
    public, private = world.hosts["public.example.org"], world.hosts["private.example.org"]
    assert public.clients.certificate is CertificateMode.OFF
    assert (public.listen, public.routes[0].methods) == (Listen("127.0.0.1", 8443), ("GET", "HEAD"))
    assert (private.session, private.clients) == (True, Clients((OWN,), CertificateMode.REQUIRED))
    closed, v1 = private.routes
    assert closed.allow == ()
    assert v1.deny == (Rule(IdentityPattern(OWN, "team/reports"), ("DELETE",)),)
    assert Rule(IdentityPattern(OWN, "8443")) in v1.allow
    assert v1.headers == (("X-Client-CN", IdentityField.COMMON_NAME), ("X-Serial", IdentityField.SERIAL))


@given(some.worlds())
def test_every_world_survives_its_canonical_form(world: World):
    """Whatever a world says, it is read back from JSON and from YAML; two hosts that cannot both listen are refused."""
    read = attempt(json.dumps(document(world)))
    if isinstance(read, BadInput):
        assert "another host listens" in str(read)
    else:
        assert read == world
        assert parse_world(yaml.safe_dump(document(world))) == world


@given(some.worlds(), some.worlds())
def test_worlds_differ_as_their_canonical_forms_do(one: World, other: World):
    """Nothing that a world says is lost in its canonical form."""
    assert (document(one) == document(other)) == (one == other)


def test_a_digest_names_the_content():
    """Comments, quotes, order and defaults written out do not change a digest; a rule does."""
    again = """
    hosts:
      "api.example.org":
        routes:
          - {path: /, upstream: "http://127.0.0.1:9000", allow: any-certificate, mode: report, deny: []}
          - allow: [{methods: [GET], identity: "spiffe://example.org/acme/*"}, {identity: payments, methods: [POST, GET]}]
            path: /v1/ledger
            upstream: https://ledger.internal:9443
          - {path: /health, upstream: "http://127.0.0.1:9000", allow: anyone, mode: enforce}
        clients: {certificate: optional}
        listen: 0.0.0.0:8443
        session: false
    workloads: {ledger: {dns: [ledger.internal], ttl: 24h}, payments: {dns: [payments.internal], ttl: 60m}}
    trust_domain: example.org
    """
    assert digest(again) == digest(DESIGN)
    assert digest(again.replace("POST, ", "")) != digest(DESIGN)
    assert len(digest(DESIGN)) == 64


@pytest.mark.parametrize("word", ["off", "OFF", "false", "'off'"])
def test_off_is_off_in_every_yaml(word: str):
    """A certificate mode that a YAML 1.1 writer took for a boolean is still off; nothing else looser than that is."""
    text = HOST.replace("listen: 8443", f"listen: 8443, clients: {{certificate: {word}}}")
    if word == "OFF":
        with pytest.raises(BadInput, match="not one of off, optional, required"):
            parse_world(text)
    else:
        assert parse_world(text).hosts["a.example.org"].clients.certificate is CertificateMode.OFF


@pytest.mark.parametrize(
    ("listens", "clash"),
    [
        (("8443", "8443"), False),
        (("8443", "8444"), False),
        (("'127.0.0.1:8443'", "'127.0.0.2:8443'"), False),
        (("8443", "'[::]:8443'"), False),
        (("8443", "'127.0.0.1:8443'"), True),
        (("'127.0.0.1:8443'", "8443"), True),
        (("'[::1]:8443'", "'[::]:8443'"), True),
    ],
)
def test_two_hosts_can_listen_or_not(listens: tuple[str, str], clash: bool):
    """One port of all addresses and the same port of one address cannot be had together."""
    host = "{listen: %s, routes: [{path: /, upstream: 'http://a', allow: anyone}]}"
    text = f"trust_domain: example.org\nhosts: {{a.org: {host % listens[0]}, b.org: {host % listens[1]}}}"
    if clash:
        with pytest.raises(BadInput, match="another host listens"):
            parse_world(text)
    else:
        assert len(parse_world(text).hosts) == 2


def test_counts_are_bounded():
    """Hosts, workloads, routes, rules, methods and names are bounded in number."""
    route = "{path: /, upstream: 'http://a', allow: %s}"
    host = "{listen: 1, routes: [%s]}"

    def world(workloads: str = "{}", hosts: str = "{}") -> str:
        return f"trust_domain: example.org\nworkloads: {workloads}\nhosts: {hosts}"

    def many(of: str, count: int) -> str:
        return ", ".join(of.replace("N", str(at)) for at in range(count))

    large = [
        world(workloads="{" + many("wN: {}", 10_001) + "}"),
        world(hosts="{" + many("hN: {}", 1001) + "}"),
        world(hosts="{a: " + host % many("{path: /N, upstream: 'http://a', allow: anyone}", 201) + "}"),
        world(hosts="{a: " + host % (route % f"[{many('wN', 1001)}]") + "}"),
        world(hosts="{a: " + host % (route % "[{identity: a, methods: [%s]}]" % many("MN", 33)) + "}"),
        world(workloads="{a: {dns: [" + many("dN", 65) + "]}}"),
    ]
    for text in large:
        with pytest.raises(BadInput, match="are the most"):
            parse_world(text)
    assert len(parse_world(world(workloads="{" + many("wN: {}", 300) + "}")).workloads) == 300


def test_the_bounds_themselves_are_within(monkeypatch: pytest.MonkeyPatch):
    """As many as the message says are the most."""
    monkeypatch.setattr(world_file, "MAX_WORKLOADS", 2)
    assert len(parse_world("{trust_domain: example.org, workloads: {a: {}, b: {}}}").workloads) == 2
    with pytest.raises(BadInput, match="there are 3 entries; 2 are the most"):
        parse_world("{trust_domain: example.org, workloads: {a: {}, b: {}, c: {}}}")


def test_what_agents_could_not_read_is_refused(monkeypatch: pytest.MonkeyPatch):
    """A world whose canonical form is over the bound is refused, as it would be when it is read again."""
    monkeypatch.setattr(world_file, "MAX_BYTES", len(json.dumps(document(parse_world(HOST)))))
    parse_world(HOST)
    with pytest.raises(BadInput, match="defaults written out"):
        parse_world(HOST.replace("8443", "18443"))


@given(st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.sampled_from(["payments", "/", "8443", "anyone", "http://a", "1h", "*", "off"])),
    lambda below: st.one_of(
        st.lists(below, max_size=3),
        st.dictionaries(
            st.sampled_from(["trust_domain", "workloads", "hosts", "dns", "ttl", "listen", "clients", "routes", "path", "upstream",
                             "allow", "deny", "methods", "headers", "identity", "trust", "certificate", "a.org", "session", "must_staple", "mode"]),
            below, max_size=6),
    ),
    max_leaves=20,
))  # fmt: skip
def test_any_document_is_read_or_refused(tree: object):
    """Whatever the values are, there is a world or a BadInput that names its line."""
    world = attempt(json.dumps({"trust_domain": "example.org", **tree} if isinstance(tree, dict) else tree))
    assert isinstance(world, World) or world.line == 1


def test_the_trust_domain_alone_is_a_world():
    """The smallest world has nobody in it, and serves nothing."""
    assert parse_world("trust_domain: example.org") == World(OWN)
    assert replace(parse_world(HOST), hosts={}) == World(OWN)
