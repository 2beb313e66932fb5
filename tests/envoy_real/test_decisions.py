"""The policy that Envoy runs and `decide` are one: a few thousand requests to both, compared."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
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
    free_port,
    resources_of,
    running,
    slice_of,
    static_bootstrap,
)
from tests.envoy_real.policies import CUSTOM_METHODS, NAMES, OWN, Asked, a_request, a_world
from tests.support.pki import Issued, Pki

pytestmark = pytest.mark.e2e

SERVICES = 16
REQUESTS_EACH = 75
T={}
EVIL = {"x-client-identity": "identity", "x-client-cn": "", "client-cert": "", "x-forwarded-client-cert": ""}


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
        import time; t=time.monotonic()
        answer = connection.ask(asked.target, asked.method, fields=asked.fields)
        T.setdefault((answer.status,asked.method),[]).append(time.monotonic()-t)
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
    print(*[(k, len(v), sum(v)/len(v), max(v)) for k,v in T.items()],sep="\n")
    assert len(found) < 0, "\n".join([f"seed {stage.seed}: {counts}", *found[:20]])
    assert found == []
