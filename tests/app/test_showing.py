"""Credentials that are kept for people: renewed early with the old one, used once, and shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from handfast.app.server.messages import CertificateAnswer, CertificateRequest, RevocationRequest
from handfast.app.showing import Shown
from handfast.base.refusal import Unavailable
from handfast.io.credentials import Credential
from handfast.trust.renewal import SPREAD
from handfast.trust.rotation import SETTLE
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
    clock.set(clock.now() + SETTLE + SPREAD)


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


async def test_what_cannot_be_renewed_stays(shelf: Shelf):
    """And is shown on."""
    await shelf.one.freshen()
    await superseded(shelf)
    shelf.fault = "away"
    await shelf.here.server._front.stop(0)
    await shelf.one.freshen()
    assert len(shelf.seen) == 1
    assert shelf.one._kept.fault == "away"
