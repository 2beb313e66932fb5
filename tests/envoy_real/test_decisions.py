"""The policy that Envoy runs and `decide` are one: a few thousand requests to both, compared."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from handfast.access.decide import Decision, Request, Visitor, as_seen, decide
from handfast.access.identify import identify
from handfast.access.paths import normalise
from handfast.access.policy import JWKS_PATH, CertificateMode, Host
from handfast.access.world import World
from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.base.spiffe import SpiffeId
from handfast.trust.facts import facts
from tests.envoy_real.h2_client import ask_h2
from tests.envoy_real.lone import (
    GONE,
    Answer,
    Connection,
    Lone,
    client_context,
    echoes,
    resources_of,
    running,
    slice_of,
)
from tests.envoy_real.policies import CUSTOM_METHODS, NAMES, OWN, Asked, a_request, a_world
from tests.support.pki import Issued, Pki
from tests.support.ports import free_port
from tests.support.static_envoy import static_bootstrap

pytestmark = pytest.mark.e2e

SERVICES = 16
REQUESTS_EACH = 75
MET = (
    (200, ""), (400, "request.rejected"), (403, "policy.no-match"), (403, "policy.denied"), (403, "client.no-certificate"),
    (403, "identity.foreign-trust-domain"), (403, "cert.ca-used-as-leaf"), (404, "request.no-route"),
)  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """A gateway, its world, who may come, and the seed that made them."""

    seed: int
    world: World
    ports: list[int]
    clients: dict[str, Issued | None]
    envoy: Lone
    directory: Path

    def connect(self, host: Host, who: str) -> Connection:
        """Open a connection of its own for a client."""
        return Connection(client_context(self.clients[who], self.directory), host.listen.port, host.name)

    def visitor(self, who: str, host: Host) -> Visitor:
        """Read a client as the control plane would. Where no certificate is asked for, none is shown."""
        client = None if host.clients.certificate is CertificateMode.OFF else self.clients[who]
        return identify(facts(client.cert_der), trust={OWN}) if client else None


def _clients(pki: Pki) -> dict[str, Issued | None]:
    own = {name: pki.leaf("x", san_uris=[f"spiffe://example.org/{name}"]) for name in NAMES}
    foreign = pki.leaf("x", san_uris=["spiffe://partner.org/a"])
    return {"nobody": None, "foreign": foreign, "server": pki.leaf("x", ca=True), **own}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory, pki = tmp_path_factory.mktemp("stage"), Pki()
    seed = random.getrandbits(32)
    with echoes(SERVICES) as ports:
        world = a_world(Random(seed), [free_port(), free_port()], ports)
        config = static_bootstrap(resources_of(slice_of(world, pki), pki, directory))
        with running(config, directory) as envoy:
            yield Stage(seed, world, ports, _clients(pki), envoy, directory)
            assert envoy.faults() == []


def differences(stage: Stage, host: Host, who: str, asked: Asked, answer: Answer) -> list[str]:
    """Tell where Envoy's answer is not what the control plane says it is."""
    path = normalise(asked.target)
    if isinstance(path, Refusal):
        return _unless(answer, asked, 400, path.reason)
    decision = decide(host, stage.visitor(who, host), Request(asked.method, path))
    if decision.passes and path == JWKS_PATH and host.session and decision.route is None:
        return [] if answer.status == 200 and (asked.method == "HEAD" or "keys" in answer.seen) else ["no keys"]
    if not decision.passes:
        return _unless(answer, asked, decision.status, decision.reason)
    return _unless(answer, asked, 200, None) or _misled(stage, host, who, asked, answer, decision)


def _unless(answer: Answer, asked: Asked, status: int, reason: Reason | None) -> list[str]:
    code = "" if asked.method == "HEAD" else reason or ""
    return [] if (answer.status, answer.code) == (status, code) else [f"is not {status} {code}"]


def _misled(stage: Stage, host: Host, who: str, asked: Asked, answer: Answer, decision: Decision) -> list[str]:
    """Tell what is wrong with a request as the service saw it: its place, its target, who it is said to come from."""
    if asked.method == "HEAD":
        return []
    assert decision.route
    seen = as_seen(host, stage.visitor(who, host))
    identity = [str(seen)] if isinstance(seen, SpiffeId) else []
    query = asked.target.partition("?")
    expected = {
        "service": stage.ports.index(decision.route.upstream.port),
        "target": f"{normalise(asked.target)}{query[1]}{query[2]}",
        "method": asked.method,
    }
    wrong = [f"{key} is not {value}" for key, value in expected.items() if answer.seen[key] != value]
    if answer.told("x-client-identity") != identity:
        wrong.append(f"identity is not {identity}")
    if any("root" in value for _, value in answer.seen["headers"]):
        wrong.append("a forged header came through")
    return wrong


def _compare(stage: Stage, host: Host, who: str, chance: Random, counts: Counter[str]) -> Iterator[str]:
    connection = stage.connect(host, who)
    for _ in range(REQUESTS_EACH):
        asked = a_request(chance, host)
        answer = connection.ask(asked.target, asked.method, fields=asked.fields)
        counts[f"{answer.status} {answer.code}"] += 1
        for difference in differences(stage, host, who, asked, answer):
            yield f"{host.name} {who} {asked.method} {asked.target!r}: {answer.status} {answer.code} {difference}"
        if answer.status == 400:
            connection.close()
            connection = stage.connect(host, who)
    connection.close()


def test_every_request_is_decided_alike(stage: Stage):
    """Status, code, service, target and identity of each answer are those of `decide` on the normalised path."""
    chance, counts, found = Random(stage.seed + 1), Counter[str](), list[str]()
    for host in stage.world.hosts.values():
        for who in stage.clients:
            if who != "nobody" or host.clients.certificate is not CertificateMode.REQUIRED:
                found += _compare(stage, host, who, chance, counts)
    assert found == [], f"seed {stage.seed}"
    assert all(counts[f"{status} {code}"] > 10 for status, code in MET), f"seed {stage.seed}: {counts}"


def test_methods_of_their_own(stage: Stage):
    """HTTP/2 carries any method, in any case; each is decided as it is written."""
    chance, found = Random(stage.seed + 2), list[str]()
    for host in stage.world.hosts.values():
        for who in ("a", "team/a"):
            made = (a_request(chance, host, CUSTOM_METHODS)._replace(fields="") for _ in range(40))
            asked = [one for one in made if one.target.isascii() and one.target.isprintable()]
            context = client_context(stage.clients[who], stage.directory)
            requests = [(one.target, one.method) for one in asked]
            answers = ask_h2(context, host.listen.port, requests, name=host.name)
            for one, answer in zip(asked, answers, strict=True):
                for difference in differences(stage, host, who, one, answer):
                    found.append(
                        f"{host.name} {who} {one.method} {one.target!r}: {answer.status} {answer.code} {difference}"
                    )
    assert found == [], f"seed {stage.seed}"


@pytest.mark.parametrize("method", CUSTOM_METHODS)
def test_a_method_that_http_1_does_not_know(stage: Stage, method: str):
    """Over HTTP/1.1 it is malformed, whatever the policy says."""
    with stage.connect(stage.world.hosts["optional.test"], "a") as connection:
        answer = connection.ask("/", method)
    assert (answer.status, answer.code) == (400, Reason.REQUEST_REJECTED)


@pytest.mark.parametrize(
    ("method", "target"), [("CONNECT", "evil.test:443"), ("CONNECT", "optional.test:443"), ("OPTIONS", "*")]
)
@pytest.mark.parametrize("host", ["optional.test", "off.test"])
def test_no_tunnel_and_no_asterisk(stage: Stage, host: str, method: str, target: str):
    """What names no path reaches no service."""
    with stage.connect(stage.world.hosts[host], "a") as connection:
        answer = connection.ask(target, method, host=target if method == "CONNECT" else "")
    assert answer.status in {400, 404, 421}
    assert answer.code


@pytest.mark.parametrize("named", ["off.test", "OFF.TEST:443", "nobody.test", "optional.test.", "127.0.0.1"])
def test_another_host_is_misdirected(stage: Stage, named: str):
    """A connection made for one host reaches no other: by Host, by an absolute target, or by HTTP/2's authority."""
    host = stage.world.hosts["optional.test"]
    context = client_context(stage.clients["a"], stage.directory)
    answers = ask_h2(context, host.listen.port, [("/", "GET")], name=host.name, authority=named)
    for target in ("/", f"http://{named}/", f"https://{named}/"):
        with stage.connect(host, "a") as connection:
            answers.append(connection.ask(target, host=named if target == "/" else ""))
    assert {(answer.status, answer.code) for answer in answers} == {(421, Reason.REQUEST_MISDIRECTED)}


@pytest.mark.parametrize("dots", ["%2e%2e;", ".%2E;x=1", "%2e;"])
def test_dots_that_come_to_light_with_parameters_are_refused(stage: Stage, dots: str):
    """Some services follow them, and would serve another path than the one that was judged. Behind a '?' they are nobody's path."""
    host = stage.world.hosts["off.test"]
    path = host.routes[-1].path.rstrip("/")
    with stage.connect(host, "nobody") as connection:
        refused = connection.ask(f"{path}/x/{dots}/y")
    assert (refused.status, refused.code) == (400, Reason.REQUEST_REJECTED)
    asked = Asked(f"{path}/x?/{dots}/y", "GET", "")
    with stage.connect(host, "nobody") as connection:
        assert differences(stage, host, "nobody", asked, connection.ask(asked.target)) == []


def test_octets_beyond_ascii(stage: Stage):
    """HTTP/2 takes them in a target as if they had been escaped; HTTP/1.1 takes none, and neither takes a control."""
    host = stage.world.hosts["off.test"]
    context = client_context(None, stage.directory)
    path = host.routes[-1].path + "/"
    (answer,) = ask_h2(context, host.listen.port, [(f"{path}\xe9", "GET")], name=host.name)
    assert differences(stage, host, "nobody", Asked(f"{path}%C3%A9", "GET", ""), answer) == []
    with pytest.raises(ConnectionError):
        ask_h2(context, host.listen.port, [(f"{path}\x7f", "GET")], name=host.name)
    for odd in ("\xe9", "\x7f", "\x01"):
        with stage.connect(host, "nobody") as connection:
            assert connection.ask(path + odd).code == Reason.REQUEST_REJECTED


@pytest.mark.parametrize("named", ["OPTIONAL.test", "optional.test:8443", "optional.TEST:1"])
def test_the_same_host_in_other_letters(stage: Stage, named: str):
    """Neither case nor port make another host of it."""
    host = stage.world.hosts["optional.test"]
    asked = Asked(host.routes[-1].path, "GET", "")
    with stage.connect(host, "a") as connection:
        answer = connection.ask(asked.target, host=named)
        absolute = connection.ask(f"http://{named}{asked.target}")
    assert differences(stage, host, "a", asked, answer) == []
    assert differences(stage, host, "a", asked, absolute) == []


@pytest.mark.parametrize(("who", "code"), [("foreign", Reason.IDENTITY_FOREIGN_DOMAIN), ("server", Reason.CERT_IS_CA)])
def test_a_bad_certificate_is_told_before_all_else(stage: Stage, who: str, code: Reason):
    """It is refused where there is no route, and on the wrong host too."""
    host = stage.world.hosts["optional.test"]
    with stage.connect(host, who) as connection:
        answers = [connection.ask("/no/such/route"), connection.ask("/", host="nobody.test")]
    assert [(answer.status, answer.code) for answer in answers] == [(403, code), (403, code)]


@pytest.mark.parametrize("tls12", [False, True])
def test_a_certificate_is_required_by_the_handshake(stage: Stage, tls12: bool):
    """Where a host requires one, nobody gets as far as a request."""
    host = stage.world.hosts["required.test"]
    with (
        pytest.raises(GONE),
        Connection(client_context(None, stage.directory, tls12=tls12), host.listen.port, host.name) as bare,
    ):
        bare.ask("/")


def test_no_host_is_reached_by_another_name(stage: Stage):
    """Without a server name that is served, no handshake is finished."""
    host = stage.world.hosts["off.test"]
    for name in ("nobody.test", "xoff.test", "off.test.evil.test", "also.test"):
        with pytest.raises(GONE):
            Connection(client_context(None, stage.directory), host.listen.port, name)
