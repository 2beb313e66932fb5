import asyncio
import contextlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from handfast.app.keeping import Kept
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal, Refused, Unavailable
from handfast.io.credentials import Credential, save
from handfast.trust.facts import fingerprint, pem_certificates
from handfast.trust.renewal import Counting
from handfast.trust.rotation import PACE, SETTLE, Pace
from tests.app.issuers import Issuer, kept
from tests.support.clock import START, FakeClock

DAY = timedelta(days=1)
AWAY = Unavailable("away")
NO = Refused(Refusal(Reason.REVOKED))


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    """Give an issuer whose certificates live a day."""
    return Issuer(tmp_path, FakeClock())


async def test_the_first_one_is_got_and_kept_on_disk(issuer: Issuer):
    """Another start finds the same one, and asks nobody."""
    credential = await kept(issuer).ensure()
    again = kept(issuer)
    assert again.current.value == credential
    assert await again.ensure() == credential
    assert len(issuer.asked) == 1
    assert (issuer.directory / "kept.pem").stat().st_mode & 0o777 == 0o600


async def test_it_is_replaced_at_two_thirds_of_its_life(issuer: Issuer):
    """Not before 2/3 less a twentieth, and at 2/3 plus a twentieth at the latest; the key is a new one."""
    one = kept(issuer)
    first = await one.ensure()
    begin, life = first.window.not_before, first.window.length
    issuer.clock.set(begin + life * (2 / 3 - 1 / 20) - timedelta(seconds=1))
    assert await one.ensure() == first
    issuer.clock.set(begin + life * (2 / 3 + 1 / 20))
    second = await one.ensure()
    assert second.window.not_before > first.window.not_before
    assert second.key_pem != first.key_pem
    assert len(set(issuer.asked)) == 2
    assert kept(issuer).current.value == second


async def test_renewals_are_spread(issuer: Issuer):
    """Many that were issued in one moment do not come back in one moment."""
    several = [kept(issuer, f"{number}.pem") for number in range(8)]
    for one in several:
        await one.ensure()
    looks = [one.next_look() for one in several]
    assert len(set(looks)) == len(looks)
    assert max(looks) - min(looks) < DAY.total_seconds() / 10 + 60
    assert min(looks) > DAY.total_seconds() * 0.6


@pytest.mark.parametrize("fault", [AWAY, NO])
async def test_a_failed_renewal_keeps_the_old_one(issuer: Issuer, fault: Unavailable | Refused):
    """What still counts is used on, is tried again soon, and replaced once that can be."""
    one = kept(issuer)
    first = await one.ensure()
    issuer.clock.set(START + DAY * 0.8)
    issuer.fault = fault
    assert await one.ensure() == first
    assert one.next_look() <= 60
    assert one.fault == str(fault)
    issuer.fault = None
    assert await one.ensure() != first
    assert one.fault == ""


async def test_it_is_tried_sooner_as_the_end_comes_nearer(issuer: Issuer):
    """A tenth of what is left, a minute at most and half a second at least."""
    one = kept(issuer)
    first = await one.ensure()
    issuer.fault = AWAY
    for left, look in ((3600.0, 60.0), (100.0, 10.0), (1.0, 0.5), (-5.0, 0.5)):
        issuer.clock.set(first.window.not_after - timedelta(seconds=left))
        with contextlib.suppress(Unavailable):
            await one.ensure()
        assert one.next_look() == pytest.approx(look)


async def test_a_time_of_renewal_that_passed_unseen_is_made_good_at_once(issuer: Issuer):
    """It may come while its holder is woken by something else; that is no renewal that failed."""
    one = kept(issuer)
    await one.ensure()
    issuer.clock.set(START + DAY * 0.8)
    assert one.next_look() == 0.0
    await one.wait()


async def test_one_of_the_future_is_replaced_once(issuer: Issuer):
    """Where the clock was set back it does not count yet, and its time of renewal would be a day away."""
    one, ahead = kept(issuer), START + DAY
    issuer.clock.set(ahead)
    first = await one.ensure()
    issuer.clock.set(START)
    assert one.next_look() == 0.0
    second = await one.ensure()
    assert second != first
    assert second.window.contains(START)
    assert await one.ensure() == second
    assert len(issuer.asked) == 2


async def test_an_issuer_with_another_clock_is_asked_once(issuer: Issuer):
    """What does not count yet is no reason by itself: each next one would be of the future as well."""
    theirs, one = issuer.clock, kept(issuer)
    one._clock = FakeClock(START - DAY)
    first = await one.ensure()
    assert not first.window.contains(one._clock.now())
    assert await one.ensure() == first
    assert len(issuer.asked) == 1
    assert theirs.now() == START


@pytest.mark.parametrize("step", [DAY * 0.8, -DAY])
async def test_who_waits_for_the_time_of_renewal_looks_at_the_clock_meanwhile(issuer: Issuer, step: timedelta):
    """It may be set, and it goes on while a host is suspended; the wait itself does not."""
    one = kept(issuer)
    await one.ensure()
    waiting = asyncio.create_task(one.wait())
    await issuer.clock.advance(90)
    assert not waiting.done()
    issuer.clock.shift(step)
    await issuer.clock.advance(60)
    await asyncio.wait_for(waiting, 5)
    assert issuer.clock.sleepers == 0


async def test_an_expired_one_does_not_count(issuer: Issuer):
    """Where none is to be had, none is given; a later start does not take the expired one up."""
    one = kept(issuer)
    await one.ensure()
    issuer.clock.set(START + DAY)
    issuer.fault = AWAY
    with pytest.raises(Unavailable):
        await one.ensure()
    later = kept(issuer)
    assert later.current.value is None
    assert later.next_look() == 1.0
    issuer.fault = None
    assert (await later.ensure()).window.contains(issuer.clock.now())


async def test_without_a_first_one_the_fault_is_told(issuer: Issuer):
    """The server's word comes through."""
    issuer.fault = NO
    with pytest.raises(Refused):
        await kept(issuer).ensure()
    assert not (issuer.directory / "kept.pem").exists()


async def test_many_who_ask_at_once_cause_one_request(issuer: Issuer):
    """One certificate for all of them."""
    one = kept(issuer)
    assert len({credential.chain_pem for credential in await asyncio.gather(*(one.ensure() for _ in range(10)))}) == 1
    assert len(issuer.asked) == 1


async def test_who_watches_is_told(issuer: Issuer):
    """Each new one is published."""
    one = kept(issuer)
    waiting = asyncio.create_task(one.current.wait_for_change(None))
    await asyncio.sleep(0)
    credential = await one.ensure()
    assert await waiting == credential


@pytest.mark.parametrize("text", ["", "nonsense", "# key\n# chain\n", "# chain\n# key\n# roots\n"])
def test_a_damaged_file_is_said(issuer: Issuer, text: str):
    """It is not taken for a first start: somebody did something."""
    path = issuer.directory / "kept.pem"
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(BadInput, match=r"kept\.pem"):
        kept(issuer)


def test_a_file_that_others_can_read_is_said(issuer: Issuer):
    """A key that others may have seen is not used on."""
    path = issuer.directory / "kept.pem"
    save(path, Credential("k\n", "c\n", "r\n"))
    path.chmod(0o644)
    with pytest.raises(BadInput, match="others"):
        kept(issuer)


def what_counts(credential: Credential, *, issuer: str = "", more: tuple[str, ...] = ()) -> Counting:
    roots = {fingerprint(der) for der in pem_certificates(credential.bundle_pem)}
    return Counting(issuer or credential.leaf.aki, frozenset({*roots, *more}))


@pytest.mark.parametrize("changed", [{"issuer": "00"}, {"more": ("00",)}], ids=["another issuer", "another root"])
async def test_what_is_superseded_is_renewed_early(issuer: Issuer, changed: dict[str, Any]):
    """Not at once, as not every server may know yet; within a minute or so; and again, as what came is not what counts."""
    one = kept(issuer)
    first = await one.ensure()
    one.told(what_counts(first, **changed))
    assert await one.ensure() == first
    issuer.clock.set(issuer.clock.now() + SETTLE + PACE.spread)
    second = await one.ensure()
    assert second != first
    assert await one.ensure() == second
    issuer.clock.set(issuer.clock.now() + SETTLE + PACE.spread)
    assert await one.ensure() != second


async def test_one_that_cannot_go_on_is_renewed_now(issuer: Issuer):
    """Whatever its time; where that fails, it stays for as long as it counts, and the fault is told."""
    one = kept(issuer)
    first = await one.ensure()
    issuer.fault = AWAY
    assert await one.ensure(anew=True) == first
    assert one.fault
    issuer.fault = None
    second = await one.ensure(anew=True)
    assert second != first
    assert await one.ensure() == second


async def test_what_still_counts_stays(issuer: Issuer):
    """Being told the same changes nothing, and a superseded one that counts again is not renewed for it."""
    one = kept(issuer)
    first = await one.ensure()
    one.told(what_counts(first))
    one.told(what_counts(first, issuer="00"))
    one.told(what_counts(first))
    issuer.clock.set(issuer.clock.now() + DAY / 4)
    assert await one.ensure() == first


async def test_who_waits_for_the_time_of_renewal_is_woken_by_news(issuer: Issuer):
    """Otherwise a holder of a long certificate would sleep through a rotation."""
    one = kept(issuer)
    first = await one.ensure()
    waiting = asyncio.create_task(one.wait())
    await issuer.clock.advance(60)
    assert not waiting.done()
    one.told(what_counts(first, issuer="00"))
    await asyncio.wait_for(waiting, 5)
    assert one.next_look() <= (SETTLE + PACE.spread).total_seconds()
    assert issuer.clock.sleepers == 0


async def test_what_is_superseded_wakes_its_holder_when_it_is_due(issuer: Issuer):
    """Not a minute later, however quick the pace is."""
    pace = Pace(timedelta(seconds=1))
    one = Kept(issuer.directory / "quick.pem", issuer.clock, issuer.ask, pace)
    first = await one.ensure()
    one.told(what_counts(first, issuer="00"))
    look = one.next_look()
    assert 1 <= look <= 7
    issuer.clock.set(issuer.clock.now() + timedelta(seconds=look))
    assert await one.ensure() != first


async def test_an_early_renewal_that_fails_is_tried_again(issuer: Issuer):
    """The old one stays meanwhile."""
    one = kept(issuer)
    first = await one.ensure()
    one.told(what_counts(first, issuer="00"))
    issuer.clock.set(issuer.clock.now() + SETTLE + PACE.spread)
    issuer.fault = AWAY
    assert await one.ensure() == first
    assert one.fault
    assert one.next_look() <= 60
    issuer.fault = None
    assert await one.ensure() != first
