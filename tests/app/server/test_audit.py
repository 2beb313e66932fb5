import asyncio
from pathlib import Path

from handfast.app.server.audit import REST_S
from handfast.app.server.inventory_messages import ChainAnswer, ChainStatement
from handfast.io import audit
from handfast.io.audit import Trust
from handfast.io.encoding import decode, encode, from_plain
from handfast.trust.audit import Purpose, Statement, check_statement
from tests.app.sites import DOMAIN, Site, site


def trust(here: Site) -> Trust:
    return Trust(trust_domain=DOMAIN, roots=[here.server.platform.authority.root_der])


async def test_events_are_sealed_as_they_come(here: Site):
    """After a rest, with what has gathered meanwhile."""
    ledger = here.server.platform.ledger
    for name in ("a", "b"):
        await here.issue(name)
        async with asyncio.timeout(5):
            while await ledger.unsealed():
                await here.clock.advance(REST_S)
                await asyncio.sleep(0.01)
    verdict = await audit.verify(ledger, trust(here))
    assert verdict.faults == ()
    assert verdict.last == len(await ledger.page(limit=1000)) >= 3


async def test_the_chain_is_shown_as_it_is(here: Site):
    """Page by page, sealed up to now, with what was hashed."""
    for n in range(5):
        await here.issue(f"w{n}")
    first = await here.operator.call("GET", "/v1/audit/chain", ChainAnswer, limit="3")
    rest = await here.operator.call(
        "GET", "/v1/audit/chain", ChainAnswer, after="3", after_seq=str(first.links[-1].seq)
    )
    assert [one.number for one in (*first.links, *rest.links)] == list(range(1, 7))
    assert [one.seq for one in (*first.entries, *rest.entries)] == [one.seq for one in (*first.links, *rest.links)]
    assert (first.anchor, first.unsealed) == (None, 0)


async def test_a_checkpoint_is_signed_by_the_authority(here: Site):
    """It covers all that happened before it was asked for, and is checked with the roots alone."""
    await here.issue("a")
    answer = await here.operator.call("POST", "/v1/audit/checkpoints", ChainStatement)
    said = from_plain(Statement, decode(encode({name: getattr(answer, name) for name in answer.__struct_fields__})))
    check_statement(said, Purpose.CHECKPOINT, DOMAIN, trust(here).roots)
    ledger = here.server.platform.ledger
    assert said.seq == ledger.event_head.value
    assert (await audit.verify(ledger, trust(here), said)).faults == ()


async def test_what_a_server_left_is_sealed_when_it_stops_and_goes_on_when_it_starts(tmp_path: Path):
    """No event is left open over a restart, and the chain is one."""
    for turn in (1, 2):
        async with site(tmp_path) as here:
            await here.issue(f"w{turn}")
            here.clock.set(here.clock.now())
    async with site(tmp_path) as here:
        ledger = here.server.platform.ledger
        verdict = await audit.verify(ledger, trust(here))
        assert verdict.faults == ()
        assert verdict.last == len(await ledger.page(limit=1000)) - await ledger.unsealed()
        assert verdict.last >= 3
