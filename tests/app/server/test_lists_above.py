"""A newer revocation list of a root elsewhere reaches a server that runs, and what it serves, without a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from structlog.testing import capture_logs

from handfast.access.slice import parse_slice
from handfast.app.server.messages import RevocationRequest
from handfast.base.spiffe import TrustDomain
from handfast.io.authority_sources import Place
from handfast.io.ca_certificates import DEFAULT
from handfast.io.renewed_lists import renew
from handfast.io.signed_chains import ask, install, read_signed
from handfast.trust.facts import facts
from handfast.trust.rotation import PACE
from tests.app.server.status_sites import StatusSite, status_site
from tests.app.sites import DOMAIN
from tests.stories.telling import eventually
from tests.support.clock import FakeClock
from tests.support.offline_root import OfflineRoot, offline_root

pytestmark = pytest.mark.debian("openssl")


@dataclass
class Kept:
    """A server whose root is kept elsewhere, the directory of its authority, and the root's keeper."""

    site: StatusSite
    authority: Path
    root: OfflineRoot
    other: OfflineRoot

    def take(self, **more: object) -> None:
        """Take a newer list, as a process of its own would: the server is not told."""
        listed = self.root.crl(days=340, **more).read_bytes()  # type: ignore[arg-type]
        renew(self.authority, listed, datetime.now(UTC))

    def sent(self) -> list[int]:
        """Give how many the root's list in the slice names, for each such list."""
        prepared = self.site.server.platform.slices.current.value
        assert prepared
        lists = [x509.load_pem_x509_crl(text.encode()) for text in parse_slice(prepared.body).crls]
        return [len(one) for one in lists if one.issuer.rfc4514_string() == "CN=Example Offline Root"]

    async def served(self) -> list[int]:
        """Give how many the root's list names, by each address that it has."""
        one = self.site.server.platform.authority
        paths = (f"/crl/{facts(one.root_der).ski}/0.crl", f"/crl/above/{facts(one.issuing_der).ski}.crl")
        return [len(await self.site.crl(path)) for path in paths]


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    """Give one that has something revoked, so that lists are in its slice."""
    root, place = offline_root(tmp_path / "safe"), Place(data=tmp_path / "data", trust_domain=TrustDomain(DOMAIN))
    csr = tmp_path / "issuing.csr"
    csr.write_text(await ask(place, DEFAULT))
    signed = read_signed(root.sign(csr).read_bytes(), root.crl().read_bytes())
    now = datetime.now(UTC)
    install(place, signed, now, root.fingerprint)
    async with status_site(tmp_path / "data", FakeClock(now)) as site:
        await site.issue("payments")
        await site.operator.send("POST", "/v1/revocations", RevocationRequest(name="payments"))
        yield Kept(site, place.authority, root, root.below(tmp_path / "other"))


async def test_it_is_used_within_seconds(kept: Kept):
    """In the slice and at each address, with the next look of the server; nobody calls it."""
    await eventually(lambda: kept.sent() == [0])
    assert await kept.served() == [0, 0]
    seen = kept.site.server.platform.rotation.lists.seen.value
    kept.take(revoked=kept.other.pem)
    await kept.site.clock.advance(PACE.every_s + 1)
    await eventually(lambda: kept.sent() == [1])
    await eventually(lambda: kept.site.server.platform.rotation.lists.seen.value != seen)
    while await kept.served() != [1, 1]:
        await kept.site.clock.advance(0)


async def test_it_is_used_by_the_time_that_a_question_is_answered(kept: Kept):
    """Whoever asks for the authorities has the server look: so 'ca install' does, and no time has to pass."""
    kept.take(revoked=kept.other.pem)
    await kept.site.operator.send("GET", "/v1/authorities")
    assert kept.sent() == [1]


async def test_what_did_not_change_makes_nothing_anew(kept: Kept, monkeypatch: pytest.MonkeyPatch):
    """A look costs a few names on the disk: neither a slice nor a list is made for it."""
    await kept.site.operator.send("GET", "/v1/authorities")
    made: list[str] = []
    refresh = type(kept.site.server.platform.slices).refresh

    async def counted(self: object) -> None:
        made.append("slice")
        await refresh(self)  # type: ignore[arg-type]

    monkeypatch.setattr(type(kept.site.server.platform.slices), "refresh", counted)
    for _ in range(3):
        await kept.site.operator.send("GET", "/v1/authorities")
    assert made == []
    kept.take()
    await kept.site.operator.send("GET", "/v1/authorities")
    assert made == ["slice"]


async def test_a_spoilt_file_stops_nothing(kept: Kept):
    """Somebody's list in the root's place: the last good slice stays, it is told once, and a good one is taken after it."""
    before = kept.site.server.platform.slices.current.value
    good = (kept.authority / "root.crl.pem").read_bytes()
    with capture_logs() as logs:
        for text in (b"words", kept.other.crl().read_bytes()):
            (kept.authority / "root.crl.pem").write_bytes(text)
            for _ in range(2):
                await kept.site.operator.send("GET", "/v1/authorities")
            assert kept.site.server.platform.slices.current.value == before
        assert [one["event"] for one in logs if one["event"].startswith("lists.")] == ["lists.refused"] * 2
    (kept.authority / "root.crl.pem").write_bytes(good)
    kept.take(revoked=kept.other.pem)
    await kept.site.operator.send("GET", "/v1/authorities")
    assert kept.sent() == [1]
    assert (await kept.site.issue("ledger")).leaf.uri_sans
