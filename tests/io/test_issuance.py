from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.events import CertificateIssued, CertificateRefused
from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.base.spiffe import TrustDomain
from handfast.io.authorities import Authority, create_authority
from handfast.io.issuance import Issuance, IssuedCertificate
from handfast.io.records import CertificateState
from handfast.trust.entries import LONGEST_TTL, Workload
from handfast.trust.facts import facts, pem_certificates
from handfast.trust.plan import serial_from
from tests.support.clock import START, FakeClock
from tests.support.ledger import Crash, FakeLedger, FaultyLedger, FaultySigner, Seams
from tests.trust.material import DOMAIN, PAYMENTS, request

SEAMS = ["before intent", "after intent", "before signature", "after signature", "before issued", "after issued"]


@cache
def authority() -> Authority:
    with TemporaryDirectory() as directory:
        return create_authority(Path(directory) / "ca", DOMAIN, FakeClock(), None)


class Bench:
    """An issuance with faults at its seams."""

    def __init__(self, crash_at: int = -1, **spoil: Callable[[bytes], bytes]) -> None:
        """Crash at that seam, and spoil what the signer does."""
        self.seams = Seams(crash_at)
        self.ledger = FaultyLedger(self.seams)
        self.signer = FaultySigner(authority().signer, self.seams, **spoil)
        self.issuance = Issuance(replace(authority(), signer=self.signer), self.ledger, FakeClock())

    async def issue(self, ttl: timedelta | None = None) -> IssuedCertificate | Refusal:
        """Ask for a certificate of payments."""
        return await self.issuance.issue(request(ttl=ttl), workload=None, requester="operator/eve")

    def check(self, delivered: IssuedCertificate | None) -> None:
        """Hold what happened against the two promises."""
        recorded = {record.tbs for record in self.ledger.records.values()}
        assert set(self.signer.signed) <= recorded
        if delivered:
            record = self.ledger.records[delivered.serial]
            assert (record.state, record.der) == (CertificateState.ISSUED, delivered.der)


async def test_a_certificate_is_recorded_signed_compared_recorded_and_delivered():
    """The steps come in the order that the promise needs, each once."""
    bench = Bench()
    issued = await bench.issue()
    assert isinstance(issued, IssuedCertificate)
    bench.check(issued)
    assert bench.seams.passed == SEAMS


async def test_what_is_delivered_fits_together():
    """Certificate, chain, bundle, record and event are of one certificate."""
    bench = Bench()
    issued = await bench.issue()
    assert isinstance(issued, IssuedCertificate)
    seen = facts(issued.der)
    assert pem_certificates(issued.chain_pem) == (issued.der, authority().issuing_der)
    assert pem_certificates(issued.bundle_pem) == (authority().root_der,)
    ((serial, record),) = bench.ledger.records.items()
    assert (issued.serial, serial) == (seen.serial, seen.serial)
    assert (record.state, record.der, record.fingerprint) == (CertificateState.ISSUED, issued.der, seen.fingerprint)
    assert (record.name, record.identity) == ("payments", str(PAYMENTS))
    assert record.issuer == seen.aki
    assert record.tbs == x509.load_der_x509_certificate(issued.der).tbs_certificate_bytes
    assert bench.ledger.events == [issued.event]
    assert issued.event == CertificateIssued(
        id=issued.event.id,
        at=START,
        serial=seen.serial,
        fingerprint=seen.fingerprint,
        identity=seen.uri_sans[0],
        dns=seen.dns_sans,
        not_before=seen.window.not_before,
        not_after=seen.window.not_after,
        requester="operator/eve",
    )


async def test_a_workloads_entry_counts():
    """Names and life are the entry's."""
    entry = Workload(PAYMENTS, dns=("payments.internal",), ttl=timedelta(hours=1))
    ledger = FakeLedger()
    issued = await Issuance(authority(), ledger, FakeClock()).issue(request(), workload=entry, requester="agent/a")
    assert isinstance(issued, IssuedCertificate)
    record = ledger.records[issued.serial]
    assert record.dns == facts(issued.der).dns_sans == ("payments.internal",)
    assert record.not_after - START < timedelta(hours=1)


async def test_a_refused_request_touches_nothing():
    """No intent, no signature, no event: the plan says no before."""
    bench = Bench()
    refusal = await bench.issue(LONGEST_TTL + timedelta(days=1))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.ISSUANCE_TOO_LONG
    assert (bench.seams.passed, bench.ledger.records) == ([], {})


async def test_a_serial_that_is_taken_is_refused_unsigned():
    """Chance that repeats itself signs nothing twice."""
    ledger, signer = FakeLedger(), FaultySigner(authority().signer, Seams())
    issuance = Issuance(replace(authority(), signer=signer), ledger, FakeClock(), random=bytes)
    first = await issuance.issue(request(), workload=None, requester="a")
    second = await issuance.issue(request(), workload=None, requester="b")
    assert isinstance(first, IssuedCertificate)
    assert int(first.serial, 16) == serial_from(bytes(20))
    assert isinstance(second, Refusal)
    assert len(signer.signed) == 1


@pytest.mark.parametrize("seam", range(len(SEAMS)), ids=SEAMS)
async def test_a_crash_at_any_seam_leaves_nothing_signed_unrecorded_and_nothing_delivered_unissued(seam: int):
    """Signed is within recorded, delivered within issued; a restart finds what was under way."""
    bench = Bench(crash_at=seam)
    with pytest.raises(Crash, match=SEAMS[seam]):
        await bench.issue()
    bench.check(None)
    interrupted = bench.ledger.interrupted(START)
    signed_and_lost = [tbs for tbs in bench.signer.signed if not bench.ledger.in_state(CertificateState.ISSUED)]
    assert [record.tbs for record in interrupted if record.tbs in signed_and_lost] == signed_and_lost
    assert len(interrupted) == (1 if SEAMS[seam] in SEAMS[1:5] else 0)
    assert len(bench.signer.signed) == (1 if seam >= SEAMS.index("after signature") else 0)


@given(st.lists(st.integers(-1, len(SEAMS) - 1), max_size=8))
def test_many_issuances_with_crashes_keep_the_promises(crashes: list[int]):
    """Whatever was interrupted before, and wherever, the next one is whole."""

    async def run() -> None:
        bench, delivered = Bench(), []
        for crash_at in crashes:
            bench.seams.passed.clear()
            bench.seams.crash_at = crash_at
            try:
                delivered.append(await bench.issue())
            except Crash:
                assert crash_at >= 0
            else:
                assert crash_at == -1
        for one in delivered:
            assert isinstance(one, IssuedCertificate)
            bench.check(one)
        bench.check(None)

    asyncio.run(run())


def other_tbs(tbs: bytes) -> bytes:
    return tbs.replace(b"payments", b"payment5")


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        ({"spoil_message": other_tbs}, "signature"),
        ({"spoil_signature": lambda signature: signature[:-1] + bytes([signature[-1] ^ 1])}, "signature"),
        ({"spoil_signature": lambda _: b""}, "signature"),
        ({"spoil_signature": lambda _: b"garbage" * 1000}, "signature"),
    ],
    ids=["another message", "flipped", "empty", "garbage"],
)
async def test_a_certificate_that_differs_from_its_plan_is_recorded_and_not_delivered(
    spoil: dict[str, Callable[[bytes], bytes]], what: str
):
    """A broken or hostile signer is found out; serial and fingerprint of what it made are kept."""
    bench = Bench(**spoil)
    refusal = await bench.issue()
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.ISSUANCE_MISMATCH
    assert what in refusal.evidence["certificate"]
    (record,) = bench.ledger.in_state(CertificateState.FAILED)
    (event,) = bench.ledger.events
    assert isinstance(event, CertificateRefused)
    assert (event.reason, event.requester, event.name) == (Reason.ISSUANCE_MISMATCH, "operator/eve", "payments")
    assert event.evidence["serial"] == record.serial
    assert len(event.evidence["fingerprint"]) == 64
    bench.check(None)


@pytest.mark.parametrize("seam", [4, 5], ids=["before failed", "after failed"])
async def test_a_crash_while_a_failure_is_recorded_delivers_nothing(seam: int):
    """The intent stays, or the failure does; the certificate is not given out."""
    bench = Bench(crash_at=seam, spoil_message=other_tbs)
    with pytest.raises(Crash, match="failed"):
        await bench.issue()
    assert bench.ledger.in_state(CertificateState.ISSUED) == []
    assert len(bench.ledger.records) == 1


async def test_many_at_once_are_all_recorded():
    """Issuances that wait for each other's turn do not mix."""
    bench = Bench()
    issued = await asyncio.gather(*(bench.issue() for _ in range(20)))
    serials = {one.serial for one in issued if isinstance(one, IssuedCertificate)}
    assert serials == set(bench.ledger.records)
    assert len(serials) == len({event.id for event in bench.ledger.events}) == 20


async def test_a_cancelled_request_delivers_nothing_and_leaves_its_intent():
    """A client that goes away is a crash of its own request."""
    bench = Bench()
    waiting = asyncio.Event()

    async def never(_: bytes) -> bytes:
        waiting.set()
        await asyncio.Event().wait()
        return b""

    bench.signer.sign = never  # type: ignore[method-assign]
    task = asyncio.create_task(bench.issue())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(bench.ledger.interrupted(START)) == 1


async def test_another_trust_domain_is_refused():
    """The authority's own domain bounds every request."""
    foreign = request(TrustDomain("example.com").id("payments"))
    outcome = await Issuance(authority(), FakeLedger(), FakeClock()).issue(foreign, workload=None, requester="a")
    assert isinstance(outcome, Refusal)
