import asyncio
from dataclasses import replace

import pytest

from handfast.base.events import AcmeAccountCreated, AcmeAccountDeactivated, AcmeBindingCreated, AcmeOrderFinalized
from handfast.base.refusal import Unavailable
from handfast.io.database import Database
from handfast.io.ledger import SqlLedger
from handfast.trust.acme.accounts import Account, Binding
from handfast.trust.acme.challenges import ChallengeKind
from handfast.trust.acme.orders import (
    ORDER_LIFE,
    Order,
    begin,
    begin_finalizing,
    conclude,
    finalized,
    find,
    give_up,
    new_order,
)
from handfast.trust.acme.problems import AcmeError, Problem
from tests.io.ledger.builders import DAY, HOUR, NOW
from tests.support.acme import make_key

BINDING = Binding(id="b", name="payments", domains=("a.internal",), accounts=1, expires=NOW + HOUR)
KEYS = [make_key().account_key for _ in range(4)]
NO = Problem(AcmeError.CONNECTION, "nobody is there", "a.internal")


def account(number: int = 0, **more: object) -> Account:
    plain = Account(
        id=f"a{number}", key=KEYS[number], name="payments", domains=("a.internal",), binding="b", created=NOW
    )
    return replace(plain, **more)


def order(number: int = 0, **more: object) -> Order:
    names = iter(range(100))
    bare = Order(id=f"o{number}", account="a0", profile="workload", replaces="", created=NOW, authorizations=())
    return new_order(replace(bare, **more), ["a.internal", "*.b.internal"], lambda: f"t{next(names)}")


def created(one: Account) -> AcmeAccountCreated:
    return AcmeAccountCreated(id=f"e-{one.id}", at=NOW, account=one.id, binding="b", name=one.name, peer="")


async def bind(ledger: SqlLedger, binding: Binding = BINDING) -> None:
    event = AcmeBindingCreated(
        id=f"e-{binding.id}", at=NOW, binding=binding.id, name="payments", domains=(), accounts=1,
        not_after=binding.expires, requester="uid:0",
    )  # fmt: skip
    await ledger.add_acme_binding(binding, b"secret", event)


async def test_a_nonce_works_once(ledger: SqlLedger):
    """Of many at the same time one gets through."""
    outcomes = await asyncio.gather(*(ledger.use_acme_nonce("n", NOW) for _ in range(8)))
    assert outcomes.count(True) == 1
    assert await ledger.use_acme_nonce("m", NOW) is True


async def test_a_secret_is_one_for_all(ledger: SqlLedger, db: Database):
    """Whoever asks first makes it; another server over the same database gets the same."""
    other = await SqlLedger.open(db)
    first, second = await asyncio.gather(ledger.acme_secret("nonces", 32), other.acme_secret("nonces", 32))
    assert first == second
    assert len(first) == 32
    assert await ledger.acme_secret("salt", 16) != first[:16]


async def test_a_binding_comes_back(ledger: SqlLedger):
    """With its key as it was kept; an unknown one is none."""
    await bind(ledger)
    assert await ledger.acme_binding("b") == (BINDING, b"secret")
    assert await ledger.acme_binding("c") is None
    assert await ledger.acme_bindings() == [BINDING]


async def test_a_binding_lets_in_as_many_as_it_says(ledger: SqlLedger):
    """However many come at once; then its key is gone."""
    await bind(ledger, replace(BINDING, accounts=2))
    outcomes = await asyncio.gather(*(ledger.add_acme_account(account(n), created(account(n))) for n in range(4)))
    assert outcomes.count(True) == 2
    assert await ledger.acme_binding("b") == (replace(BINDING, accounts=0), b"")
    assert len(await ledger.acme_accounts()) == 2


async def test_a_key_has_one_account(ledger: SqlLedger):
    """A second with the same key is not kept, and costs the binding nothing; nor is one after the binding's end."""
    await bind(ledger, replace(BINDING, accounts=3))
    assert await ledger.add_acme_account(account(), created(account()))
    twin = account(1, key=KEYS[0])
    assert not await ledger.add_acme_account(twin, created(twin))
    late = account(2, created=BINDING.expires)
    assert not await ledger.add_acme_account(late, created(late))
    found = await ledger.acme_binding("b")
    assert found
    assert found[0].accounts == 2


async def test_an_account_comes_back(ledger: SqlLedger):
    """By its id and by its key, with its contacts; its event is there."""
    await bind(ledger)
    kept = account(contact=("mailto:a@b",))
    await ledger.add_acme_account(kept, created(kept))
    assert await ledger.acme_account("a0") == await ledger.acme_account_of(KEYS[0]) == kept
    assert await ledger.acme_account("a1") is await ledger.acme_account_of(KEYS[1]) is None
    await ledger.set_acme_contact("a0", ["mailto:c@d"])
    assert await ledger.acme_accounts() == [replace(kept, contact=("mailto:c@d",))]
    assert [event.kind for _, event in await ledger.page()] == ["acme.binding.created", "acme.account.created"]


async def test_an_account_is_closed_once(ledger: SqlLedger):
    """For good."""
    await bind(ledger)
    await ledger.add_acme_account(account(), created(account()))
    event = AcmeAccountDeactivated(id="d", at=NOW, account="a0", name="payments", requester="uid:0")
    assert await ledger.deactivate_acme_account(event) is True
    assert await ledger.deactivate_acme_account(replace(event, id="d2")) is False
    assert await ledger.acme_account("a0") == account(deactivated=True)


async def test_a_key_changes(ledger: SqlLedger):
    """To one that nobody has, and from the one that was looked at."""
    await bind(ledger, replace(BINDING, accounts=2))
    for number in (0, 1):
        await ledger.add_acme_account(account(number), created(account(number)))
    assert not await ledger.change_acme_key(account(), KEYS[1])
    assert await ledger.change_acme_key(account(), KEYS[2])
    assert not await ledger.change_acme_key(account(), KEYS[3])
    assert await ledger.acme_account_of(KEYS[2]) == account(key=KEYS[2])


async def test_an_order_comes_back_whole(ledger: SqlLedger):
    """With trials, failures and all."""
    tried = begin(order(), 0, ChallengeKind.HTTP, NOW)
    failed = conclude(tried, 0, find(tried, 0, ChallengeKind.HTTP), NO, NOW)
    await ledger.add_acme_order(failed)
    assert await ledger.acme_order("o0") == failed
    assert await ledger.acme_order("o1") is None


async def test_an_order_changes_from_what_was_seen(ledger: SqlLedger):
    """Changes at the same time follow each other, none is lost, and one that changes nothing writes nothing."""
    await ledger.add_acme_order(order())
    changes = [lambda o, p=place: begin(o, p, ChallengeKind.DNS, NOW) for place in (0, 1, 0, 1)]
    outcomes = await asyncio.gather(*(ledger.change_acme_order("o0", change) for change in changes))
    assert sorted(outcome[1] for outcome in outcomes if isinstance(outcome, tuple)) == [False, False, True, True]
    kept = await ledger.acme_order("o0")
    assert kept
    assert [find(kept, place, ChallengeKind.DNS).began for place in (0, 1)] == [NOW, NOW]


async def test_a_change_may_be_refused(ledger: SqlLedger):
    """Its problem comes back; an unknown order is none; and somebody who never gets through is told so."""
    await ledger.add_acme_order(order())
    assert isinstance(await ledger.change_acme_order("o0", lambda o: begin_finalizing(o, NOW)), Problem)
    assert await ledger.change_acme_order("o1", lambda o: o) is None
    again = iter(range(100))

    def never(o: Order) -> Order:
        return replace(o, serial=str(next(again)))

    real = ledger._db.one
    with pytest.MonkeyPatch.context() as faults:

        async def stale(sql: str, *args: object):
            row = await real(sql, *args)
            return (row[0], row[1] + 1) if row and "version" in sql else row

        faults.setattr(ledger._db, "one", stale)
        with pytest.raises(Unavailable):
            await ledger.change_acme_order("o0", never)
    assert await ledger.acme_order("o0") == order()


async def test_an_orders_event_comes_with_its_change(ledger: SqlLedger):
    """Both are there, or neither."""
    begun = replace(order(), finalizing=NOW)
    await ledger.add_acme_order(begun)
    event = AcmeOrderFinalized(
        id="f", at=NOW, account="a0", order="o0", name="payments", dns=("a.internal",), serial="0a"
    )
    outcome = await ledger.change_acme_order("o0", lambda o: finalized(o, "0a"), lambda _: [event])
    assert isinstance(outcome, tuple)
    assert outcome[0].serial == "0a"
    assert [found for _, found in await ledger.page()] == [event]


async def test_open_orders_are_counted(ledger: SqlLedger):
    """Those that may still change: not failed ones, not those with a certificate, not expired ones."""
    failed = give_up(order(1), 0, NOW)
    done = replace(order(2), finalizing=NOW)
    for one in (order(0), order(1), done, order(3, account="a1")):
        await ledger.add_acme_order(one)
    await ledger.change_acme_order("o1", lambda _: failed)
    await ledger.change_acme_order("o2", lambda o: finalized(o, "0a"))
    assert await ledger.count_acme_orders("a0", NOW) == (1, 3)
    assert await ledger.count_acme_orders("a0", NOW + ORDER_LIFE) == await ledger.count_acme_orders("a9", NOW) == (0, 0)
    listed = await ledger.acme_orders("a0", NOW)
    assert [one.id for _, one in listed] == ["o0", "o2"]
    assert [one.id for _, one in await ledger.acme_orders("a0", NOW, after=listed[0][0])] == ["o2"]
    assert [one.id for _, one in await ledger.acme_orders("a0", NOW + ORDER_LIFE)] == ["o2"]


async def test_a_certificate_is_replaced_by_what_lives(ledger: SqlLedger):
    """An order that failed or expired replaces nothing."""
    await ledger.add_acme_order(order(0, replaces="x.y"))
    assert await ledger.acme_replaced("x.y", NOW)
    assert not await ledger.acme_replaced("x.y", NOW + ORDER_LIFE)
    assert not await ledger.acme_replaced("", NOW)
    await ledger.change_acme_order("o0", lambda o: give_up(o, 0, NOW))
    assert not await ledger.acme_replaced("x.y", NOW)


async def test_what_is_over_is_forgotten(ledger: SqlLedger, db: Database):
    """Nonces and MAC keys at once, orders that came to nothing in a day; bindings and other orders later; accounts never."""
    await bind(ledger)
    await ledger.add_acme_order(order())
    await ledger.add_acme_order(order(1, finalizing=NOW))
    await ledger.change_acme_order("o1", lambda o: finalized(o, "0a"))
    await ledger.use_acme_nonce("n", NOW + HOUR)
    await ledger.prune_acme(NOW, NOW - DAY)
    assert await ledger.acme_binding("b") == (BINDING, b"secret")
    assert not await ledger.use_acme_nonce("n", NOW + HOUR)
    later = NOW + HOUR
    await ledger.prune_acme(later, later - DAY)
    assert await ledger.acme_binding("b") == (BINDING, b"")
    assert await db.fetch("select * from acme_nonces") == []
    assert await ledger.acme_order("o0")
    await ledger.prune_acme(NOW + ORDER_LIFE, NOW)
    assert await ledger.acme_order("o0")
    await ledger.prune_acme(NOW + ORDER_LIFE * 2, NOW)
    assert await ledger.acme_order("o0") is None
    assert await ledger.acme_order("o1")
    await ledger.prune_acme(NOW + DAY * 9, NOW + DAY * 8)
    assert await ledger.acme_binding("b") is await ledger.acme_order("o1") is None
