from datetime import timedelta

import pytest

from handfast.base.events import CertificateImported
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.io.ledger import Found, InventoryQuery, Selector, SqlLedger, WatchedRecord
from handfast.trust import der
from tests.io.ledger.builders import DAY, HOUR, NOW, ids, intent, issued, revoked


def theirs(fingerprint: str, **changed: object) -> WatchedRecord:
    fields = {
        "fingerprint": fingerprint,
        "serial": "01",
        "issuer": "CN=Partner CA",
        "subject": "CN=partner",
        "name": "partner.example",
        "dns": ("partner.example",),
        "not_before": NOW,
        "not_after": NOW + 30 * DAY,
        "owner": "team-partners",
        "source": "imported",
        "requester": "operator/ann",
        "recorded_at": NOW,
        "der": b"der",
    }
    return WatchedRecord(**{**fields, **changed})


async def watch(ledger: SqlLedger, *records: WatchedRecord) -> list[str]:
    return await ledger.watch(records, [_imported(n, record) for n, record in enumerate(records)])


def _imported(number: int, record: WatchedRecord) -> CertificateImported:
    return CertificateImported(
        id=f"imported-{record.fingerprint[:8]}-{number}", at=NOW, fingerprint=record.fingerprint, serial=record.serial,
        subject=record.subject, owner=record.owner, requester=record.requester,
    )  # fmt: skip


async def issue(ledger: SqlLedger, serial: str, **changed: object) -> str:
    await ledger.record_intent(intent(serial, **changed))
    await ledger.record_issued(serial, f"der {serial}".encode(), issued(serial))
    return serial


async def found(ledger: SqlLedger, **query: object) -> list[str]:
    """Give the serials, or for imported ones the fingerprints, that a query finds."""
    page = await ledger.inventory(InventoryQuery(**query), NOW)
    return [name_of(one) for one in page.found]


def name_of(one: Found) -> str:
    return one.record.fingerprint if isinstance(one.record, WatchedRecord) else one.record.serial


@pytest.fixture
async def full(ledger: SqlLedger) -> SqlLedger:
    """Give a ledger with certificates of every kind."""
    await issue(ledger, "0a01", recorded_at=NOW)
    await issue(ledger, "0a02", name="team/a", issuer="k2", recorded_at=NOW + HOUR)
    await issue(ledger, "0b03", name="team/b", not_after=NOW - HOUR, recorded_at=NOW + 3 * HOUR)
    await ledger.record_intent(intent("0b04", recorded_at=NOW + 4 * HOUR))
    await ledger.revoke(["0a01"], NOW, "superseded", [revoked("0a01")])
    await watch(ledger, theirs("bb" * 32, not_after=NOW, owner=""), theirs("aa" * 32, recorded_at=NOW + 2 * HOUR))
    await ledger.own("team/a", "team-a")
    return ledger


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["0b04", "0b03", "aa", "0a02", "0a01", "bb"]),
        ({"name": "payments"}, ["0b04", "0a01"]),
        ({"name": "team/*"}, ["0b03", "0a02"]),
        ({"name": "*"}, ["0b04", "0b03", "aa", "0a02", "0a01", "bb"]),
        ({"name": "partner.example"}, ["aa", "bb"]),
        ({"issuer": "k2"}, ["0a02"]),
        ({"issuer": "CN=Partner CA"}, ["aa", "bb"]),
        ({"state": "issued"}, ["0a02"]),
        ({"state": "expired"}, ["0b03", "bb"]),
        ({"state": "revoked"}, ["0a01"]),
        ({"state": "intended"}, ["0b04"]),
        ({"state": "watched"}, ["aa"]),
        ({"owner": "team-a"}, ["0a02"]),
        ({"owner": "team-partners"}, ["aa"]),
        ({"serial": "0a"}, ["0a02", "0a01"]),
        ({"serial": "0"}, ["0b04", "0b03", "aa", "0a02", "0a01", "bb"]),
        ({"fingerprint": "aa" * 32}, ["aa"]),
        ({"expiring_before": NOW + HOUR}, ["0b03", "bb"]),
        ({"name": "team/*", "state": "issued", "owner": "team-a"}, ["0a02"]),
        ({"name": "' or 1=1 --"}, []),
        ({"name": "team_%"}, []),
    ],
)
async def test_one_search_finds_all_kinds(full: SqlLedger, query: dict[str, object], expected: list[str]):
    """Every condition holds for what was issued and what was imported; newest first."""
    wanted = [one * 32 if len(one) == 2 else one for one in expected]
    assert sorted(await found(full, **query)) == sorted(wanted)
    if not query:
        assert (await found(full))[:4] == wanted[:4]


async def test_pages_have_each_certificate_once(full: SqlLedger):
    """Whatever the page's size, both tables are read to their ends, though a clock went back meanwhile."""
    await issue(full, "0c", recorded_at=NOW - DAY)
    await watch(full, theirs("cc" * 32, recorded_at=NOW - 2 * DAY), theirs("dd" * 32, recorded_at=NOW + DAY))
    whole = await found(full)
    for limit in range(1, 8):
        seen, after = [], ""
        while True:
            page = await full.inventory(InventoryQuery(after=after, limit=limit), NOW)
            seen += [name_of(one) for one in page.found]
            assert len(page.found) <= limit
            if not page.next:
                break
            after = page.next
        assert seen == whole


@pytest.mark.parametrize("after", ["x", "1", "1-", "-1-1", "1-1-1", "9" * 40 + "-1", "\uff11-1"])
async def test_a_cursor_that_is_none_is_refused(ledger: SqlLedger, after: str):
    """Nothing but what a page gave."""
    with pytest.raises(BadInput):
        await ledger.inventory(InventoryQuery(after=after), NOW)


async def test_a_state_that_is_none_is_refused(ledger: SqlLedger):
    """The hint names those that are."""
    with pytest.raises(BadInput, match="state"):
        await ledger.inventory(InventoryQuery(state="lost"), NOW)


async def test_importing_twice_changes_the_owner_alone(ledger: SqlLedger):
    """One row and one event a certificate; the other import tells who looks after it now, unless it says nothing."""
    assert await watch(ledger, theirs("aa" * 32), theirs("bb" * 32)) == ["aa" * 32, "bb" * 32]
    assert await watch(ledger, theirs("aa" * 32, owner="other", subject="CN=x")) == []
    assert await watch(ledger, theirs("bb" * 32, owner="")) == []
    assert await found(ledger, owner="other") == ["aa" * 32]
    assert await found(ledger, owner="team-partners") == ["bb" * 32]
    assert len(await ids(ledger)) == 2


async def test_what_was_issued_here_is_not_imported(ledger: SqlLedger):
    """It stands there already, and an import must not hide what became of it."""
    await issue(ledger, "0a")
    mine = await ledger.by_serial("0a")
    assert mine
    with pytest.raises(BadInput):
        await watch(ledger, theirs(mine.fingerprint))


async def test_an_imported_certificate_is_nothing_to_issuance(ledger: SqlLedger):
    """What a caller shows is looked up among our own alone, and counts count our own alone."""
    await watch(ledger, theirs("aa" * 32))
    assert await ledger.by_fingerprint("aa" * 32) is None
    assert await ledger.by_serial("01") is None
    assert sum((await ledger.counts(NOW)).by_state.values()) == 0
    kept = await ledger.in_inventory("aa" * 32, NOW, {})
    assert kept
    assert kept.record == theirs("aa" * 32)


async def test_an_owner_can_be_taken_back(ledger: SqlLedger):
    """The last word counts; an empty one is nobody."""
    await issue(ledger, "0a")
    for owner in ("a", "b"):
        await ledger.own("payments", owner)
    assert [await found(ledger, owner=owner) for owner in "ab"] == [[], ["0a"]]
    await ledger.own("payments", "")
    assert await found(ledger, owner="b") == []
    assert (await ledger.in_inventory((await ledger.by_serial("0a")).fingerprint, NOW, {})).owner == ""


@pytest.mark.parametrize(
    ("declared", "owner", "expected"),
    [
        ({"payments": "team-p"}, "team-p", ["0b04", "0a01"]),
        ({"payments": "team-p"}, "team-a", ["0a02"]),
        ({"payments": "team-a", "team/b": "x"}, "team-a", ["0b04", "0a02", "0a01"]),
        ({"team/a": "other"}, "team-a", []),
        ({"team/a": "other"}, "other", ["0a02"]),
        ({"partner.example": "other"}, "team-partners", ["aa" * 32]),
        ({f"w{number}": "team-a" if number % 2 else "x" for number in range(10_000)}, "team-a", ["0a02"]),
    ],
    ids=lambda value: "many" if len(value) > 100 else None,
)
async def test_the_world_says_who_owns_first(
    full: SqlLedger, declared: dict[str, str], owner: str, expected: list[str]
):
    """What it declares is found and shown, whatever was kept; where it says nothing, what was kept counts. Imports are apart."""
    page = await full.inventory(InventoryQuery(declared=declared, owner=owner), NOW)
    assert [name_of(one) for one in page.found] == expected
    assert {one.owner for one in page.found} <= {owner}


# What a revocation hits


async def hit(ledger: SqlLedger, limit: int = 100, last: str = "", **selector: object) -> list[str]:
    chosen = Selector(**selector)
    records = await ledger.selected(chosen, NOW, limit, last)
    assert await ledger.count_selected(chosen, NOW) >= len(records)
    return [record.serial for record in records]


@pytest.fixture
async def targets(ledger: SqlLedger) -> SqlLedger:
    """Give live certificates of several, and some that are past being revoked."""
    await issue(ledger, "01", name="team/a", requester="agent-1")
    await issue(ledger, "02", name="team/b", issuer="k2")
    await issue(ledger, "03", name="teamwork")
    await issue(ledger, "04", name="handfast/server")
    await issue(ledger, "05", name="handfast/agent/x", requester="join:x")
    await issue(ledger, "06", name="team/a", not_after=NOW)
    await issue(ledger, "07", name="team/a")
    await ledger.revoke(["07"], NOW, "superseded", [])
    await ledger.record_intent(intent("08", name="team/c"))
    return ledger


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({"name": "team/a"}, ["01"]),
        ({"name": "team/", "prefix": True}, ["08", "02", "01"]),
        ({"name": "", "prefix": True}, ["08", "03", "02", "01"]),
        ({"name": "handfast/", "prefix": True}, ["05", "04"]),
        ({"name": "handfast/server"}, ["04"]),
        ({"issuer": "k2"}, ["02"]),
        ({"requesters": ("agent-1", "join:x")}, ["05", "01"]),
        ({"serial": "03"}, ["03"]),
        ({"serial": "06"}, []),
        ({"serial": "07"}, []),
        ({"name": "team/a", "issuer": "k2"}, []),
    ],
)
async def test_a_selector_means_live_certificates(targets: SqlLedger, selector: dict[str, object], expected: list[str]):
    """Not the expired, not the revoked; an intent counts, as it may have been signed; the platform's own only by name."""
    assert await hit(targets, **selector) == expected


async def test_batches_come_to_an_end_and_the_callers_own_comes_last(targets: SqlLedger):
    """Each batch leaves what it did not hit; who would be cut off by the first is hit by the last."""
    own = (await targets.by_serial("02")).fingerprint
    order = []
    while batch := await hit(targets, limit=2, last=own, name="", prefix=True):
        assert await targets.revoke(batch, NOW, "superseded", []) == sorted(batch)
        order += batch
    assert order == ["08", "03", "01", "02"]


async def test_a_selector_of_nothing_means_nothing(ledger: SqlLedger):
    """It must never mean everything."""
    for read in (ledger.selected(Selector(), NOW, 1), ledger.count_selected(Selector(), NOW)):
        with pytest.raises(BadInput):
            await read


# Keys


def tbs(key: bytes) -> bytes:
    return der.sequence(der.tlv(0xA0, der.integer(2)), *(der.integer(n) for n in range(5)), der.sequence(key))


async def test_a_compromised_key_gets_no_certificate_again(ledger: SqlLedger):
    """Under no name and no serial; other keys go on, and so does one that was revoked for another reason."""
    one, other = tbs(b"\x02\x01\x01"), tbs(b"\x02\x01\x02")
    await issue(ledger, "0a", tbs=one)
    await issue(ledger, "0b", tbs=other)
    await ledger.revoke(["0b"], NOW, "superseded", [])
    assert await ledger.record_intent(intent("0c", tbs=one)) is None
    await ledger.revoke(["0a", "0c"], NOW, "keyCompromise", [])
    for name in ("payments", "someone-else"):
        refusal = await ledger.record_intent(intent("0d", name=name, tbs=one))
        assert isinstance(refusal, Refusal)
        assert refusal.reason is Reason.ISSUANCE_KEY_COMPROMISED
    assert await ledger.by_serial("0d") is None
    assert await ledger.record_intent(intent("0d", tbs=other, recorded_at=NOW + timedelta(days=1))) is None


async def test_an_unreadable_key_refuses_no_other(ledger: SqlLedger):
    """A record without a key in it leaves nothing behind that another would meet."""
    await issue(ledger, "0a", tbs=b"?")
    await ledger.revoke(["0a"], NOW, "keyCompromise", [])
    assert await ledger.record_intent(intent("0b", tbs=b"!")) is None
