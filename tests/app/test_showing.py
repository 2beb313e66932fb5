"""Credentials that are kept for people: renewed early with the old one, used once, and shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from handfast.app.server.messages import CertificateAnswer, CertificateList, CertificateRequest, RevocationRequest
from handfast.app.showing import Shown
from handfast.base.refusal import Unavailable
from handfast.io.credentials import Credential
from handfast.trust.rotation import PACE, SETTLE
from tests.app.sites import Site, site
from tests.support.clock import FakeClock


class Shelf:
    """Where a credential is shown."""

    def __init__(self, here: Site, directory: Path) -> None:
        self.here, self.seen = here, list[Credential]()
        self.firsts, self.fault = 0, ""
        self.one = Shown(directory / "credential.pem", here.server, here.clock, self.first, self.seen.append)

    async def first(self, csr: str) -> CertificateAnswer:
        """Issue one as for whoever sits at the machine."""
        self.firsts += 1
        if self.fault:
            raise Unavailable(self.fault)
        asked = CertificateRequest(name="ann", csr=csr, operator=True, ttl_seconds=7 * 86400)
        return await self.here.operator.call("POST", "/v1/certificates", CertificateAnswer, asked)

    async def waited_for(self, credential: Credential) -> int:
        """Give how many of the operator's leaves of a credential's issuer are waited for."""
        rotation = self.here.server.platform.rotation
        await rotation.outlook()
        leaves = await rotation._rotations.leaves_of(credential.leaf.aki, self.here.clock.now(), {})
        return sum(one.count for one in leaves.holders if one.name == "handfast/operator/ann")


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    """Give a control plane whose time is two minutes ago, so that it may pass: TLS goes by the machine's."""
    async with site(tmp_path, FakeClock(datetime.now(UTC) - timedelta(minutes=2))) as running:
        yield running


@pytest.fixture
def shelf(here: Site, tmp_path: Path) -> Shelf:
    """Give one in an empty directory."""
    return Shelf(here, tmp_path)


async def superseded(shelf: Shelf) -> None:
    """Rotate until another authority issues, and let the time of early renewal pass."""
    rotation, clock = shelf.here.server.platform.rotation, shelf.here.clock
    await rotation.begin(root=False, compromised=False, requester="uid:0")
    clock.set(clock.now() + SETTLE)
    await rotation.go_on()
    shelf.one._kept.told(shelf.here.server.platform.authorities.counting)
    clock.set(clock.now() + SETTLE + PACE.spread)


async def test_it_is_renewed_with_the_old_one_and_nobody_waits_for_that(shelf: Shelf):
    """A second look changes nothing, and so does another start."""
    await shelf.one.freshen()
    await shelf.one.freshen()
    assert (shelf.firsts, len(shelf.seen)) == (1, 1)
    await superseded(shelf)
    assert await shelf.waited_for(shelf.seen[0]) == 1
    await shelf.one.freshen()
    assert (shelf.firsts, len(shelf.seen)) == (1, 2)
    assert shelf.seen[1].leaf.aki != shelf.seen[0].leaf.aki
    assert await shelf.waited_for(shelf.seen[0]) == 0


async def test_a_start_after_a_kill_uses_what_was_renewed_before(shelf: Shelf, tmp_path: Path):
    """The kill came between the renewal and the first use."""
    await shelf.one.freshen()
    await superseded(shelf)
    await shelf.one._kept.ensure()
    assert await shelf.waited_for(shelf.seen[0]) == 1
    again = Shelf(shelf.here, tmp_path)
    await again.one.freshen()
    assert again.firsts == 0
    assert await shelf.waited_for(shelf.seen[0]) == 0


async def test_where_the_old_one_is_refused_there_is_a_new_beginning(shelf: Shelf):
    """A revoked one gets nothing by itself."""
    await shelf.one.freshen()
    await shelf.here.operator.send("POST", "/v1/revocations", RevocationRequest(serial=shelf.seen[0].leaf.serial))
    await superseded(shelf)
    await shelf.one.freshen()
    assert (shelf.firsts, len(shelf.seen)) == (2, 2)


async def test_what_cannot_be_renewed_now_stays(shelf: Shelf):
    """It is shown on, and tried again: nobody asks for a first one, of which nobody would know what it replaces."""
    await shelf.one.freshen()
    await superseded(shelf)
    await shelf.here.server._front.stop(0)
    await shelf.one.freshen()
    assert (shelf.firsts, len(shelf.seen)) == (1, 1)
    assert "cannot be reached" in shelf.one._kept.fault


async def test_where_the_authority_of_the_old_one_is_gone_there_is_a_new_beginning(shelf: Shelf):
    """The server would not take it, and with a new root could not even say so."""
    await shelf.one.freshen()
    rotation, clock = shelf.here.server.platform.rotation, shelf.here.clock
    await rotation.begin(root=True, compromised=False, requester="uid:0")
    clock.set(clock.now() + SETTLE)
    for _ in range(2):  # the switch, and the end of the old root
        clock.set(clock.now() + SETTLE)
        await rotation.go_on()
        if strands := sum(one.strands for one in (await rotation.outlook()).waiting):
            await rotation.force(strands, "uid:0")
    assert not shelf.here.server.platform.authorities.accepts(shelf.seen[0].leaf.aki)
    await shelf.one._kept.ensure(anew=True)
    await shelf.one.freshen()
    assert (shelf.firsts, len(shelf.seen)) == (2, 2)


class Killed(BaseException):
    """The process ends here."""


async def killed_with_the_answer(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it be asked for, and end before it is kept."""
    ask = shelf.one._kept._ask

    async def dying(csr: str) -> CertificateAnswer:
        await ask(csr)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shelf.one._kept, "_ask", dying)
        with pytest.raises(Killed):
            await shelf.one._kept.ensure(anew=True)


async def unreplaced(shelf: Shelf) -> tuple[int, int]:
    """Give how many of the operator's leaves there are, and how many of them are waited for, whatever their issuer."""
    listed = await shelf.here.operator.call("GET", "/v1/certificates", CertificateList)
    held = [row for row in listed.certificates if row.name == "handfast/operator/ann"]
    rotation, now = shelf.here.server.platform.rotation, shelf.here.clock.now()
    await rotation.outlook()  # what was seen is written down
    issuers = {row.issuer for row in held}
    holders = [one for issuer in issuers for one in (await rotation._rotations.leaves_of(issuer, now, {})).holders]
    return len(held), sum(one.count for one in holders if one.name == "handfast/operator/ann")


async def test_nobody_waits_for_a_renewal_whose_answer_was_lost(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Killed with the answer in hand, twice: the old one and the lost ones are replaced as soon as the next one is used."""
    await shelf.one.freshen()
    await superseded(shelf)
    await killed_with_the_answer(shelf, monkeypatch)
    again = Shelf(shelf.here, tmp_path)
    await killed_with_the_answer(again, monkeypatch)
    assert await unreplaced(again) == (3, 3)
    last = Shelf(shelf.here, tmp_path)
    await last.one._kept.ensure(anew=True)
    assert await unreplaced(last) == (4, 4)
    await last.one.freshen()
    assert await unreplaced(last) == (4, 1)
    assert last.firsts == 0


async def test_nobody_waits_for_what_was_issued_as_the_server_was_killed(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Before it had noted what it is a successor of."""
    await shelf.one.freshen()
    await superseded(shelf)

    async def dying(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(shelf.here.server.platform.rotation, "renewed", dying)
        await shelf.one.freshen()
    assert shelf.one._kept.fault
    assert await unreplaced(shelf) == (2, 2)
    again = Shelf(shelf.here, tmp_path)
    await again.one._kept.ensure(anew=True)
    await again.one.freshen()
    assert await unreplaced(again) == (3, 1)


async def test_nobody_waits_for_a_first_one_whose_answer_was_lost(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """There was none before it."""
    await killed_with_the_answer(shelf, monkeypatch)
    again = Shelf(shelf.here, tmp_path)
    await again.one.freshen()
    assert await unreplaced(again) == (2, 1)
    other = await shelf.here.issue("ann", operator=True)
    assert await unreplaced(again) == (3, 2)
    assert other.leaf.serial != again.seen[0].leaf.serial
