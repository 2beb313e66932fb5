import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from handfast.access.slice import Slice, make_slice
from handfast.access.world_file import parse_world
from handfast.app.agent.findings import Findings
from handfast.app.agent.gateway import PROMPT_S, GatewayKeeper
from handfast.app.agent.paths import AgentPaths
from handfast.app.agent.stapling import HostSource
from handfast.app.server.messages import HostCertificateAnswer
from handfast.base.reasons import Reason
from handfast.base.refusal import Unavailable
from handfast.envoy.bootstrap import bootstrap
from handfast.envoy.types import LISTENER
from handfast.io.ads import AdsServer
from handfast.io.files import private_directory
from handfast.io.xds_state import Rejected
from tests.app.issuers import Issuer
from tests.app.sites import WORLD
from tests.stories.envoy import TakingEnvoy
from tests.support.clock import START, FakeClock

OTHER = "  web.example.org:\n    listen: 127.0.0.1:8444\n    routes: [{path: /, upstream: 'http://127.0.0.1:1', allow: anyone}]\n"


@dataclass
class Gateway:
    """A gateway's keeper, between a real discovery service and an issuer that may fail, or not answer until it is ``open``."""

    keeper: GatewayKeeper
    issuer: Issuer
    findings: Findings
    envoy: TakingEnvoy
    failing: set[str]
    ads: AdsServer
    open: asyncio.Event

    def slice(self, world: str = WORLD, revision: int = 1, denied: tuple[str, ...] = ()) -> Slice:
        """Make a slice of a world. The fingerprints of revoked certificates are ``denied``."""
        authority = self.issuer.authority
        bundle = authority.bundle_pem
        issuers = (bundle, authority.chain_pem)
        return make_slice(revision=revision, world=parse_world(world), roots=(bundle,), issuers=issuers, denied=denied)

    async def taken(self, slice_: Slice) -> None:
        """Take a slice, and wait until Envoy has it."""
        await self.keeper.take(slice_)
        acknowledged = self.keeper.state.acknowledged
        async with asyncio.timeout(5):
            while acknowledged.value != slice_.digest:
                await acknowledged.wait_for_change(acknowledged.value)

    @property
    def reasons(self) -> list[Reason]:
        """What is wrong now, beside that nothing is to be stapled here."""
        return [finding.reason for finding in self.findings.standing if finding.reason is not Reason.STAPLE_FAILED]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """Give a keeper that serves an Envoy."""
    clock, paths = FakeClock(), AgentPaths(tmp_path)
    for directory in (paths.envoy, paths.run, tmp_path / "hosts"):
        private_directory(directory)
    issuer, findings, ads, failing = Issuer(tmp_path, clock), Findings("edge", clock), AdsServer(), set[str]()

    answers = asyncio.Event()
    answers.set()

    async def certificate(host: str, csr: str) -> HostCertificateAnswer:
        await answers.wait()
        if host in failing:
            raise Unavailable("away")
        return await issuer.ask(csr)

    async def staple(_: str) -> bytes:
        raise Unavailable("there is none")

    source = HostSource(certificate, staple)
    keeper = GatewayKeeper(
        paths=paths, ads=ads, clock=clock, source=source, by="spiffe://example.org/g", jwks="{}", findings=findings
    )
    ads.on_rejected(keeper.rejected)
    await ads.start(paths.socket("ads"))
    envoy = TakingEnvoy(None, bootstrap(node="edge", ads_socket=str(paths.socket("ads"))), paths.run)
    await envoy.start()
    yield Gateway(keeper, issuer, findings, envoy, failing, ads, answers)
    await envoy.stop()
    await ads.stop()


async def test_a_slice_is_served_and_then_acknowledged(gateway: Gateway):
    """What Envoy has taken whole is what counts as acknowledged."""
    slice_ = gateway.slice()
    await gateway.taken(slice_)
    assert [name for kind, name in gateway.envoy.held if kind == LISTENER]
    assert len(gateway.envoy.served) == 1
    assert gateway.reasons == []


async def test_a_host_without_a_certificate_does_not_keep_the_others_from_being_served(gateway: Gateway):
    """The one host is a finding, the rest goes on; it is served as soon as its certificate is there."""
    gateway.failing.add("web.example.org")
    await gateway.taken(gateway.slice(WORLD + OTHER))
    assert gateway.reasons == [Reason.RENEWAL_FAILED]
    assert len(gateway.envoy.served) == 1
    gateway.failing.clear()
    await gateway.taken(gateway.slice(WORLD + OTHER, revision=2))
    assert len(gateway.envoy.served) == 2


async def test_a_certificate_outlives_a_restart_and_a_host_that_comes_back(gateway: Gateway):
    """A host that was taken out for a moment needs no new one."""
    await gateway.taken(gateway.slice())
    await gateway.taken(gateway.slice("trust_domain: example.org\n", revision=2))
    await gateway.taken(gateway.slice(revision=3))
    assert len(gateway.issuer.asked) == 1


async def test_what_cannot_be_published_leaves_the_old_in_place(gateway: Gateway, monkeypatch: pytest.MonkeyPatch):
    """A fault on the way to Envoy is a finding, and what is served stays served."""
    good = gateway.slice()
    await gateway.taken(good)
    before = dict(gateway.envoy.held)

    def broken(*_: object, **__: object) -> None:
        raise ValueError("odd")

    with monkeypatch.context() as patched:
        patched.setattr("handfast.app.agent.gateway.translate", broken)
        await gateway.keeper.take(gateway.slice(WORLD + OTHER, revision=2))
    assert gateway.reasons == [Reason.SNAPSHOT_BAD]
    assert gateway.envoy.held == before
    assert gateway.keeper.state.acknowledged.value == good.digest
    await gateway.taken(gateway.slice(WORLD + OTHER, revision=3))
    assert gateway.reasons == []


async def test_a_revoked_certificate_is_replaced_at_once(gateway: Gateway):
    """It would serve its clients well until two thirds of its life, as few ask whether it is revoked."""
    await gateway.taken(gateway.slice())
    (before,) = gateway.envoy.served
    await gateway.taken(gateway.slice(revision=2, denied=(before.fingerprint,)))
    (after,) = gateway.envoy.served
    assert after.serial != before.serial
    assert len(gateway.issuer.asked) == 2


async def test_a_revoked_certificate_goes_on_where_there_is_no_other(gateway: Gateway):
    """Without a staple: whoever insists on one is refused, and who does not ask decides by lists. It is a finding."""
    await gateway.taken(gateway.slice())
    (before,) = gateway.envoy.served
    gateway.failing.add("api.example.org")
    await gateway.taken(gateway.slice(revision=2, denied=(before.fingerprint,)))
    assert [one.serial for one in gateway.envoy.served] == [before.serial]
    assert gateway.reasons == [Reason.RENEWAL_FAILED]


@pytest.mark.parametrize("more", ["", OTHER])
async def test_an_issuer_that_does_not_answer_holds_no_revocation_up(gateway: Gateway, more: str):
    """What a slice denies is denied at once; the slice counts as taken when its hosts have what they need."""
    await gateway.taken(gateway.slice())
    before, first = dict(gateway.envoy.held), gateway.keeper.state.acknowledged.value
    gateway.issuer.clock.set(START + timedelta(hours=20))  # a renewal is due
    gateway.open.clear()
    slice_ = gateway.slice(WORLD + more, revision=2, denied=("ab" * 32,))
    taking = asyncio.create_task(gateway.taken(slice_))
    async with asyncio.timeout(5):
        while gateway.envoy.held == before:
            await asyncio.sleep(0.01)
    assert gateway.keeper.state.acknowledged.value == first
    gateway.open.set()
    await taking
    assert len(gateway.envoy.served) == (2 if more else 1)


async def test_envoys_words_are_the_finding(gateway: Gateway):
    """Type, names and message of what was rejected."""
    gateway.keeper.rejected(Rejected(LISTENER, ("l1", "l2"), "bad port"))
    (finding,) = gateway.findings.standing
    assert finding.reason is Reason.ENVOY_REJECTED
    assert finding.evidence == {"type": "Listener", "resources": "l1, l2", "envoy": "bad port"}


async def test_a_renewal_brings_no_slice_of_before_back(gateway: Gateway):
    """It comes while a newer one waits for another certificate, and is published with that one."""
    await gateway.taken(gateway.slice(WORLD + OTHER))
    gateway.issuer.clock.set(START + timedelta(hours=20))
    gateway.open.clear()
    newer = gateway.slice(WORLD + OTHER, revision=2, denied=("ab" * 32,))
    taking = asyncio.create_task(gateway.taken(newer))
    await asyncio.sleep(2 * PROMPT_S)
    assert gateway.keeper.state.slice == newer
    keeping = asyncio.create_task(gateway.keeper.keep_certificates())
    gateway.open.set()
    await taking
    await gateway.issuer.clock.advance(60)
    keeping.cancel()
    assert gateway.keeper.state.acknowledged.value == newer.digest


async def test_a_renewal_loses_no_host_that_is_on_its_way(gateway: Gateway):
    """It looks at the hosts that are served, while the certificate of one that comes is still being asked for."""
    await gateway.taken(gateway.slice())
    gateway.open.clear()
    taking = asyncio.create_task(gateway.taken(gateway.slice(WORLD + OTHER, revision=2)))
    await asyncio.sleep(0)
    keeping = asyncio.create_task(gateway.keeper.keep_certificates())
    await gateway.issuer.clock.advance(60)
    gateway.open.set()
    await taking
    keeping.cancel()
    assert len(gateway.envoy.served) == 2
    assert gateway.reasons == []
