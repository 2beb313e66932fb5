import asyncio
import hashlib
from dataclasses import replace

import pytest

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal, Refused
from handfast.io.ledger import CertificateQuery, Counts, SqlLedger
from handfast.io.records import CertificateState
from tests.io.ledger.builders import DAY, HOUR, NOW, ids, intent, issue, issued, refused, revoked
from tests.support.ledger import revoked_live


async def state(ledger: SqlLedger, serial: str) -> CertificateState:
    record = await ledger.by_serial(serial)
    assert record is not None
    return record.state


async def test_an_intent_is_kept_as_it_was(ledger: SqlLedger):
    """What was about to be signed can be read back, to the microsecond."""
    record = intent("0a", dns=("a.internal", "b.internal"))
    assert await ledger.record_intent(record) is None
    assert await ledger.by_serial("0a") == record


async def test_an_intent_is_no_more_than_that(ledger: SqlLedger):
    """A record that calls itself issued is kept as an intent: only `record_issued` makes it more."""
    await ledger.record_intent(replace(intent("0a"), state=CertificateState.ISSUED, der=b"x", fingerprint="ff"))
    assert await ledger.by_serial("0a") == intent("0a")


async def test_a_serial_that_is_taken_is_refused(ledger: SqlLedger):
    """Of two intents with one serial the first stays; at once or one after the other."""
    outcomes = await asyncio.gather(*(ledger.record_intent(intent("0a", name=name)) for name in ("one", "two")))
    again = await ledger.record_intent(intent("0a", name="three"))
    assert outcomes[0] is None
    for outcome in (outcomes[1], again):
        assert isinstance(outcome, Refusal)
        assert outcome.reason is Reason.ISSUANCE_LINT
        assert outcome.evidence["serial"] == "0a"
    assert await ledger.by_serial("0a") == intent("0a", name="one")


async def test_an_issued_certificate_has_its_der_and_its_event(ledger: SqlLedger):
    """State, certificate, fingerprint and event are written together."""
    await ledger.record_intent(intent("0a"))
    await ledger.record_issued("0a", b"der", issued("0a"))
    fingerprint = hashlib.sha256(b"der").hexdigest()
    wanted = replace(intent("0a"), state=CertificateState.ISSUED, der=b"der", fingerprint=fingerprint)
    assert await ledger.by_serial("0a") == await ledger.by_fingerprint(fingerprint) == wanted
    assert await ids(ledger) == ["issued-0a"]


async def test_nothing_is_issued_without_an_intent(ledger: SqlLedger):
    """A certificate that was not recorded before it was signed is refused, and leaves no event."""
    with pytest.raises(Refused) as caught:
        await ledger.record_issued("0a", b"der", issued("0a"))
    assert caught.value.refusal == Refusal(Reason.ISSUANCE_MISMATCH, {"serial": "0a", "state": "unknown"})
    assert await ids(ledger) == []


async def test_issuing_again_changes_nothing(ledger: SqlLedger):
    """The same certificate twice is one certificate and one event; another one for the serial is refused."""
    await issue(ledger, "0a")
    await ledger.record_issued("0a", b"der 0a", issued("0a"))
    with pytest.raises(Refused):
        await ledger.record_issued("0a", b"other", issued("0a", id="other"))
    assert (await ledger.by_serial("0a")).der == b"der 0a"  # type: ignore[union-attr]
    assert await ids(ledger) == ["issued-0a"]


async def test_an_event_id_that_is_taken_issues_nothing(ledger: SqlLedger):
    """A certificate without its event does not exist."""
    await issue(ledger, "0a")
    await ledger.record_intent(intent("0b"))
    with pytest.raises(Refused):
        await ledger.record_issued("0b", b"der", issued("0b", id="issued-0a"))
    assert await state(ledger, "0b") is CertificateState.INTENDED


async def test_what_was_revoked_while_it_was_signed_is_refused(ledger: SqlLedger):
    """A revocation between intent and issue wins: the certificate is not delivered."""
    await ledger.record_intent(intent("0a"))
    assert await ledger.revoke(["0a"], NOW, "keyCompromise", [revoked("0a")]) == ["0a"]
    with pytest.raises(Refused):
        await ledger.record_issued("0a", b"der", issued("0a"))
    assert await state(ledger, "0a") is CertificateState.REVOKED


async def test_a_failed_intent_stays_failed(ledger: SqlLedger):
    """It is kept with its reason, once, and nothing is issued from it any more."""
    await ledger.record_intent(intent("0a"))
    await ledger.record_failed("0a", refused("0a"))
    await ledger.record_failed("0a", refused("0a"))
    assert await state(ledger, "0a") is CertificateState.FAILED
    assert await ids(ledger) == ["refused-0a"]
    with pytest.raises(Refused):
        await ledger.record_issued("0a", b"der", issued("0a"))


async def test_the_failure_of_a_revoked_intent_is_told(ledger: SqlLedger):
    """It stays revoked, and why it failed is kept all the same."""
    await ledger.record_intent(intent("0a"))
    await ledger.revoke(["0a"], NOW, "keyCompromise", [revoked("0a")])
    await ledger.record_failed("0a", refused("0a"))
    assert await state(ledger, "0a") is CertificateState.REVOKED
    assert await ids(ledger) == ["revoked-0a", "refused-0a"]


async def test_what_was_issued_or_never_intended_cannot_fail(ledger: SqlLedger):
    """A failure of something else is refused, and leaves no event."""
    await issue(ledger, "0a")
    for serial in ("0a", "0b"):
        with pytest.raises(Refused):
            await ledger.record_failed(serial, refused(serial))
    assert await ids(ledger) == ["issued-0a"]


async def test_a_revocation_is_kept_with_its_event(ledger: SqlLedger):
    """Time and reason are on the record, and what agents must know has changed."""
    await issue(ledger, "0a")
    before = ledger.changes.value
    assert await ledger.revoke(["0a"], NOW + HOUR, "superseded", [revoked("0a")]) == ["0a"]
    record = await ledger.by_serial("0a")
    assert record is not None
    assert (record.state, record.revoked_at, record.revocation_reason) == (
        CertificateState.REVOKED,
        NOW + HOUR,
        "superseded",
    )
    assert await ids(ledger) == ["issued-0a", "revoked-0a"]
    assert ledger.changes.value > before


async def test_revoking_again_changes_nothing(ledger: SqlLedger):
    """Only those that this call revoked are given back; unknown and revoked ones are passed over with their events."""
    for serial in ("0a", "0b"):
        await issue(ledger, serial)
    await ledger.revoke(["0a"], NOW, "keyCompromise", [revoked("0a")])
    generation = ledger.changes.value
    late = [revoked(serial, id=f"late-{serial}") for serial in ("0a", "0b", "0c")]
    assert await ledger.revoke(["0a", "0b", "0b", "0c"], NOW + HOUR, "superseded", late) == ["0b"]
    assert await ledger.revoke(["0a", "0b"], NOW + DAY, "unspecified", late) == []
    record = await ledger.by_serial("0a")
    assert record is not None
    assert record.revocation_reason == "keyCompromise"
    assert await ids(ledger) == ["issued-0a", "issued-0b", "revoked-0a", "late-0b"]
    assert ledger.changes.value == generation + 1
    assert await ledger.revoke([], NOW, "unspecified", []) == []


async def test_revoking_at_the_same_time_revokes_once(ledger: SqlLedger):
    """Of calls that overlap, each certificate is given to one, and has one event."""
    serials = [f"{number:02x}" for number in range(12)]
    for serial in serials:
        await issue(ledger, serial)
    calls = [
        ledger.revoke(part, NOW, "superseded", [revoked(serial, id=f"{start}-{serial}") for serial in part])
        for start in range(8)
        if (part := serials[start : start + 5])
    ]
    changed = [serial for answer in await asyncio.gather(*calls) for serial in answer]
    assert sorted(changed) == serials
    assert len([name for name in await ids(ledger) if not name.startswith("issued")]) == len(serials)


async def test_too_many_revocations_at_once_are_refused(ledger: SqlLedger):
    """One call is bounded."""
    with pytest.raises(BadInput):
        await ledger.revoke([f"{number:x}" for number in range(1001)], NOW, "unspecified", [])


async def test_what_was_signed_without_a_record_enters_as_revoked(ledger: SqlLedger):
    """With its event, once; one that has a record is left as it is."""
    record = intent("0a", der=b"signed", fingerprint="ab" * 32)
    assert await ledger.revoke_unrecorded(record, "keyCompromise", revoked("0a"))
    found = await ledger.by_serial("0a")
    assert found == replace(record, state=CertificateState.REVOKED, revoked_at=NOW, revocation_reason="keyCompromise")
    assert [one.serial for one in await revoked_live(ledger, NOW)] == ["0a"]
    assert not await ledger.revoke_unrecorded(record, "superseded", revoked("0a", id="again"))
    assert await ledger.by_serial("0a") == found
    assert [event.id for _, event in await ledger.page()] == ["revoked-0a"]


async def test_many_revoked_certificates_come_in_parts(ledger: SqlLedger):
    """Each once and in order, also where names and ends are the same, while others are revoked; and between two parts others have their turn."""
    serials = [f"{number:04x}" for number in range(1200)]
    for serial in serials:
        await ledger.record_intent(intent(serial, name=f"w{int(serial, 16) % 3}", not_after=NOW + HOUR))
    for at in range(0, 1200, 400):
        await ledger.revoke(serials[at : at + 400], NOW, "superseded", [])
    parts, turns = [], 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    async for part in ledger.revoked_live(NOW):
        parts.append(part)
        if len(parts) <= 3:
            await ledger.record_intent(intent(f"ff{len(parts)}", not_after=NOW + DAY))
            await ledger.revoke([f"ff{len(parts)}"], NOW, "superseded", [])
    task.cancel()
    assert max(map(len, parts)) <= 500
    assert turns >= len(parts)
    found = [serial for part in parts for _, serial, *_ in part]
    assert found[:1200] == sorted(serials, key=lambda one: (int(one, 16) % 3, one))
    assert len(found) == len(set(found))


async def test_revoked_certificates_leave_the_list_when_they_expire(ledger: SqlLedger):
    """What CRLs and gateways hold is what was revoked and would still be valid; intents of unknown fate are in it."""
    await issue(ledger, "0a", not_after=NOW + HOUR)
    await issue(ledger, "0b", not_after=NOW + DAY)
    await issue(ledger, "0c")
    await ledger.record_intent(intent("0d", not_after=NOW + 2 * DAY))
    await ledger.revoke(["0a", "0b", "0d"], NOW, "keyCompromise", [])
    assert [one.serial for one in await revoked_live(ledger, NOW)] == ["0a", "0b", "0d"]
    live = await revoked_live(ledger, NOW + HOUR)
    assert [(one.serial, one.reason, one.at) for one in live] == [
        ("0b", "keyCompromise", int(NOW.timestamp())),
        ("0d", "keyCompromise", int(NOW.timestamp())),
    ]
    assert [one.fingerprint for one in live] == [hashlib.sha256(b"der 0b").hexdigest(), ""]


async def test_intents_have_no_fingerprint_to_be_found_by(ledger: SqlLedger):
    """Many intents may be open at once, and the empty fingerprint finds none of them."""
    for serial in ("0a", "0b"):
        await ledger.record_intent(intent(serial))
    assert await ledger.by_fingerprint("") is None
    assert await ledger.by_serial("0c") is None


async def test_live_certificates_of_a_name(ledger: SqlLedger):
    """What there is to revoke of a name: issued or about to be, not expired, failed, revoked, or another's."""
    await issue(ledger, "0a")
    await issue(ledger, "0b", not_after=NOW + HOUR)
    await issue(ledger, "0c", name="payments/other")
    await issue(ledger, "0d")
    await ledger.revoke(["0d"], NOW, "superseded", [])
    await ledger.record_intent(intent("0e"))
    await ledger.record_intent(intent("0f"))
    await ledger.record_failed("0f", refused("0f"))
    assert [one.serial for one in await ledger.live_by_name("payments", NOW + HOUR)] == ["0e", "0a"]


async def test_the_inventory_is_listed_page_by_page(ledger: SqlLedger):
    """Pages are newest first, without gap or repetition, also when something is added meanwhile."""
    for number in range(7):
        await issue(ledger, f"{number:02x}")
    seen, query = [], CertificateQuery(limit=3)
    while True:
        page = await ledger.list_certificates(query)
        seen += [record.serial for record in page.records]
        await issue(ledger, f"f{len(seen)}")
        if page.next is None:
            break
        query = replace(query, after=page.next)
    assert seen == ["06", "05", "04", "03", "02", "01", "00"]


async def test_the_inventory_is_filtered(ledger: SqlLedger):
    """Each filter narrows, and all of them together, too."""
    await issue(ledger, "0a")
    await issue(ledger, "0b", not_after=NOW + HOUR)
    await issue(ledger, "0c", name="ledger", not_after=NOW + HOUR)
    await ledger.record_intent(intent("0d", not_after=NOW + HOUR))

    async def found(**filters: object) -> list[str]:
        page = await ledger.list_certificates(CertificateQuery(**filters))  # type: ignore[arg-type]
        return [record.serial for record in page.records]

    assert await found() == ["0d", "0c", "0b", "0a"]
    assert await found(name="payments") == ["0d", "0b", "0a"]
    assert await found(state=CertificateState.INTENDED) == ["0d"]
    assert await found(expiring_before=NOW + DAY) == ["0d", "0c", "0b"]
    assert await found(expiring_after=NOW + DAY) == ["0a"]
    assert await found(name="payments", state=CertificateState.ISSUED, expiring_before=NOW + DAY) == ["0b"]
    assert await found(name="' or 1 = 1 --") == []


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_a_page_is_bounded(ledger: SqlLedger, limit: int):
    """Nobody lists everything at once."""
    with pytest.raises(BadInput):
        await ledger.list_certificates(CertificateQuery(limit=limit))


async def test_interrupted_intents_are_found(ledger: SqlLedger):
    """An old intent without an end is what a crash left behind; young ones may be at work."""
    await ledger.record_intent(intent("0b", recorded_at=NOW - HOUR))
    await ledger.record_intent(intent("0a", recorded_at=NOW - DAY))
    await ledger.record_intent(intent("0c"))
    await issue(ledger, "0d", recorded_at=NOW - DAY)
    assert [record.serial for record in await ledger.interrupted(NOW)] == ["0a", "0b"]
    assert [record.serial for record in await ledger.interrupted(NOW, limit=1)] == ["0a"]


async def test_counts_are_of_the_unexpired(ledger: SqlLedger):
    """A state counts what lives; the soonest expiry is that of a name which has nothing later."""
    nothing = dict.fromkeys(("intended", "issued", "failed", "revoked"), 0)
    assert await ledger.counts(NOW) == Counts(by_state=nothing)
    await issue(ledger, "0a", not_after=NOW + HOUR)
    await issue(ledger, "0b", not_after=NOW + 3 * HOUR)
    await issue(ledger, "0c", name="ledger", not_after=NOW + 2 * HOUR)
    await issue(ledger, "0d", name="gone", not_after=NOW)
    await issue(ledger, "0e", name="ended", not_after=NOW + HOUR)
    await ledger.revoke(["0e"], NOW, "superseded", [])
    assert await ledger.counts(NOW) == Counts(
        by_state={**nothing, "issued": 3, "revoked": 1}, soonest_name="ledger", soonest_expiry=NOW + 2 * HOUR
    )
