"""Several servers over one real PostgreSQL, in one process: what one of them does is so at all."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest

from handfast.app.client import Api
from handfast.app.server.build import Server, ServerConfig, build_server
from handfast.app.server.messages import (
    CertificateAnswer,
    CertificateRequest,
    EventList,
    JoinRequest,
    RevocationAnswer,
    RevocationRequest,
    TokenAnswer,
    TokenRequest,
)
from handfast.app.server.rotation_messages import AuthoritiesAnswer, RotationRequest
from handfast.app.server.status import StatusConfig
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refused, Unavailable
from handfast.base.spiffe import TrustDomain
from handfast.io.credentials import new_key
from handfast.io.records import CertificateState
from handfast.io.sealed import Passphrase
from handfast.trust.facts import facts, pem_certificates
from handfast.trust.rotation import PACE, SETTLE
from tests.app.sites import DOMAIN
from tests.stories.telling import eventually
from tests.support.clock import FakeClock
from tests.support.ports import free_port
from tests.support.postgres_fixtures import own_server, postgres, postgres_store
from tests.support.stores import PostgresStore

__all__ = ["own_server", "postgres", "postgres_store"]
PASSPHRASE = Passphrase(b"correct horse battery staple")


@dataclass
class Fleet:
    """Servers over one database, on one clock. Each has a directory of its own, and nothing is copied."""

    config: ServerConfig
    stack: AsyncExitStack
    clock: FakeClock = field(default_factory=lambda: FakeClock(datetime.now(UTC)))

    async def server(self, name: str, **more: object) -> Server:
        """Start one."""
        directory = self.config.directory / name
        directory.mkdir(mode=0o700, exist_ok=True)
        server = await build_server(replace(self.config, directory=directory, **more), self.clock)  # type: ignore[arg-type]
        self.stack.push_async_callback(server.stop, 0.1)
        await server.start()
        return server

    async def settle(self, *servers: Server) -> None:
        """Let the time pass that a step needs, and everybody renew."""
        for _ in range(6):
            self.clock.set(self.clock.now() + 2 * SETTLE)
            for server in servers:
                await server.platform.rotation.go_on()
                await server._renew()


@pytest.fixture
async def fleet(postgres_store: PostgresStore, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Give a database without any server yet."""
    here = ("127.0.0.1", 0)
    config = ServerConfig(
        directory=tmp_path,
        trust_domain=TrustDomain(DOMAIN),
        api=here,
        admin=here,
        passphrase=PASSPHRASE,
        database=postgres_store.server.address(postgres_store.name),
    )
    async with AsyncExitStack() as stack:
        yield Fleet(config, stack)


async def issue(server: Server) -> CertificateAnswer:
    async with Api.local(server.socket) as api:
        asked = CertificateRequest(name="payments", csr=new_key().csr_pem)
        return await api.call("POST", "/v1/certificates", CertificateAnswer, asked)


async def rotate(server: Server, *, root: bool = False) -> None:
    async with Api.local(server.socket) as api:
        await api.call("POST", "/v1/authorities/rotation", AuthoritiesAnswer, RotationRequest(root=root))


async def revoke(server: Server, serial: str) -> None:
    async with Api.local(server.socket) as api:
        await api.call("POST", "/v1/revocations", RevocationAnswer, RevocationRequest(serial=serial))


async def findings(server: Server) -> list[dict[str, object]]:
    async with Api.local(server.socket) as api:
        return (await api.call("GET", "/v1/events", EventList, kind="finding.raised")).events


def issuer(answer: CertificateAnswer) -> str:
    return facts(pem_certificates(answer.chain)[0]).aki


def digest(server: Server) -> str:
    current = server.platform.slices.current.value
    return current.digest if current else ""


@pytest.mark.parametrize("root", [False, True])
async def test_a_rotation_at_one_is_issued_from_by_the_other_at_once(fleet: Fleet, root: bool):
    """No file is copied and nothing restarted; nobody is told of a fault, and one that starts afterwards has it all."""
    one, other = await fleet.server("one"), await fleet.server("other")
    before = one.platform.authority.issuer_facts.key_id.hex()
    assert before == other.platform.authority.issuer_facts.key_id.hex()
    await rotate(one, root=root)
    await eventually(lambda: other.platform.rotation.rows == one.platform.rotation.rows)
    assert other.platform.authorities.known_cas == one.platform.authorities.known_cas
    await eventually(lambda: digest(one) == digest(other))
    await fleet.settle(other, one)
    assert issuer(await issue(one)) == issuer(await issue(other)) != before
    late = await fleet.server("late")
    assert issuer(await issue(late)) == issuer(await issue(one))
    assert await findings(one) == []
    roots = [path.parent for path in fleet.config.directory.rglob("root-key.pem")]
    assert {path.relative_to(fleet.config.directory).parts[0] for path in roots} <= {"one"}


async def test_a_server_without_the_roots_key_leaves_it_to_the_others(fleet: Fleet):
    """It may look first when the time has come, and sees a step first that another one began: neither is a fault."""
    one, other = await fleet.server("one"), await fleet.server("other")
    fleet.clock.set(fleet.clock.now() + timedelta(days=245))
    for _ in range(2):
        await other.platform.rotation.go_on()
        fleet.clock.set(fleet.clock.now() + SETTLE)
    assert [row.stage for row in other.platform.rotation.rows] == ["issuing"]
    await one.platform.rotation.go_on()
    await other.platform.rotation.go_on()
    assert other.platform.rotation.rows == one.platform.rotation.rows
    assert len(one.platform.rotation.rows) == 2
    assert await findings(one) == []


async def test_without_a_passphrase_too_the_maker_is_whoever_began(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    """Nothing travels between these servers but the ledger's word, and two that made a generation each would have two of it."""
    fleet.config = replace(fleet.config, passphrase=None)
    one = await fleet.server("one")
    copy = fleet.config.directory / "other" / "authority"
    shutil.copytree(fleet.config.directory / "one" / "authority", copy)
    (copy / "root-key.pem").unlink()
    other = await fleet.server("other")
    monkeypatch.setattr(type(one.platform.authorities), "make", _dies)
    with pytest.raises(Exception, match="it dies"):
        await one.platform.rotation.begin(root=False, compromised=False, requester="test")
    monkeypatch.undo()
    await other.platform.rotation.go_on()
    assert [row.stage for row in other.platform.rotation.rows] == ["issuing", "prepared"]
    assert (other.platform.rotation.fault, other.platform.rotation._failing) == ("", None)
    await one.platform.rotation.go_on()
    assert [row.stage for row in one.platform.rotation.rows] == ["issuing", "published"]
    assert await findings(one) == []


async def test_whoever_began_a_rotation_makes_it(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    """The others wait: the root's key may be at one alone. Where that one is gone, they say in time what is missing."""
    one, other = await fleet.server("one"), await fleet.server("other")
    monkeypatch.setattr(type(one.platform.authorities), "make", _dies)
    with pytest.raises(Exception, match="it dies"):
        await one.platform.rotation.begin(root=False, compromised=False, requester="test")
    monkeypatch.undo()
    await other.platform.rotation.go_on()
    assert other.platform.rotation.fault == ""
    assert [row.stage for row in other.platform.rotation.rows] == ["issuing", "prepared"]
    fleet.clock.set(fleet.clock.now() + SETTLE)
    await other.platform.rotation.go_on()
    assert other.platform.rotation.fault == ""
    fleet.clock.set(fleet.clock.now() + PACE.spread)
    await other.platform.rotation.go_on()
    assert "root-key.pem" in other.platform.rotation.fault
    await one.platform.rotation.go_on()
    await other.platform.rotation.go_on()
    assert other.platform.rotation.fault == ""
    assert [row.stage for row in other.platform.rotation.rows] == ["issuing", "published"]


def _dies(*_: object) -> None:
    raise RuntimeError("it dies")


async def test_a_server_without_the_passphrase_does_not_join(fleet: Fleet):
    """It is told what it may do, and has made nothing."""
    await fleet.server("one")
    with pytest.raises(BadInput, match="has an authority already") as caught:
        await fleet.server("other", passphrase=None)
    assert "passphrase" in caught.value.hint
    assert "copy the directory" in caught.value.hint
    assert not (fleet.config.directory / "other" / "authority").exists()


async def test_slices_and_lists_are_the_same_octets_at_each(fleet: Fleet):
    """So an agent that moves between servers sees no other revision; what is revoked at either reaches both in well under a second."""
    ports = [free_port(), free_port()]
    status = [StatusConfig(listen=("127.0.0.1", port), url="http://status.example.org") for port in ports]
    one, other = [await fleet.server(name, status=at) for name, at in zip(("one", "other"), status, strict=True)]
    serials = [(await issue(server)).serial for server in (one, other, one)]
    key_id = one.platform.authority.issuer_facts.key_id.hex()
    for at, told, serial in ((one, other, serials[0]), (other, one, serials[1]), (one, other, serials[2])):
        before, began = digest(told), time.monotonic()
        await revoke(at, serial)
        await told.platform.slices.current.wait_for_change(
            told.platform.slices.current.value, 0 if digest(told) != before else 2
        )
        took = time.monotonic() - began
        assert took < 1
        await eventually(lambda: digest(one) == digest(other) != before)  # noqa: B023 - awaited here
        await _same(fleet, (one, other), f"/crl/{key_id}/0.crl")
        await _same(fleet, (one, other), f"/crl/{key_id}/0-delta.crl")
    third = await fleet.server("third")
    assert digest(third) == digest(one)


async def _same(fleet: Fleet, servers: tuple[Server, ...], path: str) -> None:
    """Wait until all serve the same list, as they do at the latest when they look again."""
    async with httpx2.AsyncClient() as client, asyncio.timeout(10):
        while True:
            urls = ["http://{}:{}".format(*server.status.address) + path for server in servers]
            got = [await client.get(url) for url in urls]
            if len({(one.content, one.headers["etag"], one.headers["last-modified"]) for one in got}) == 1:
                return
            await fleet.clock.advance(1)
            await asyncio.sleep(0.01)


async def test_a_server_that_lacks_a_generation_issues_nothing(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    """Where keys do not travel it is as ever: it says what to copy, and goes on once the files are there."""
    one, other = await fleet.server("one"), await fleet.server("other")
    for holder in (other.platform.rotation, other.platform.rotation.lists):
        monkeypatch.setattr(holder, "_sharing", None)
    await rotate(one)
    with pytest.raises(BadInput):
        await other.platform.rotation.go_on()
    with pytest.raises(Unavailable, match="authority") as caught:
        await issue(other)
    assert "whose keys are sealed" in caught.value.hint


async def join(server: Server, token: str) -> CertificateAnswer | Refused:
    async with Api.local(server.socket) as api:
        request = JoinRequest(token=token, name="edge", csr=new_key().csr_pem)
        try:
            return await api.call("POST", "/v1/agents/join", CertificateAnswer, request)
        except Refused as refused:
            return refused


async def tokens(server: Server, count: int, name: str | None = None) -> list[str]:
    async with Api.local(server.socket) as api:
        asked = TokenRequest(name=name)
        return [(await api.call("POST", "/v1/agents/tokens", TokenAnswer, asked)).token for _ in range(count)]


async def test_a_name_has_one_holder_at_whichever_server_it_was_given(fleet: Fleet):
    """Agents that come to both at once with tokens for any new name: one is let in. With tokens for its name: the last one stays."""
    one, two = await fleet.server("one"), await fleet.server("two")
    open_ones = await tokens(one, 6)
    outcomes = await asyncio.gather(*(join((one, two)[n % 2], token) for n, token in enumerate(open_ones)))
    refused = [outcome.refusal.reason for outcome in outcomes if isinstance(outcome, Refused)]
    assert refused == [Reason.AGENT_NAME_TAKEN] * 5
    named = await tokens(two, 6, "edge")
    await asyncio.gather(*(join((one, two)[n % 2], token) for n, token in enumerate(named)))
    for server in (one, two):
        live = await server.platform.ledger.live_by_name("handfast/agent/edge", fleet.clock.now())
        assert [(row.state, row.requester) for row in live] == [(CertificateState.ISSUED, "join:edge")]


async def test_a_token_that_is_spent_at_both_at_once_lets_one_in(fleet: Fleet):
    """Also where it was made for the name."""
    one, two = await fleet.server("one"), await fleet.server("two")
    for token in (*await tokens(one, 1), *await tokens(two, 1, "edge")):
        outcomes = await asyncio.gather(*(join((one, two)[n % 2], token) for n in range(6)))
        refused = [outcome.refusal.reason for outcome in outcomes if isinstance(outcome, Refused)]
        assert refused == [Reason.TOKEN_NOT_VALID] * 5
