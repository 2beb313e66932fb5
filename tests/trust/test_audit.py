import base64
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.trust import audit
from handfast.trust.audit import (
    GENESIS,
    Damage,
    Entry,
    Fault,
    Link,
    Purpose,
    Statement,
    Walk,
    check_statement,
    compared,
)
from tests.support.pki import Pki

NOW = datetime.now(UTC).replace(microsecond=0)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ENTRIES = st.builds(Entry, st.integers(1, 9), TEXT, TEXT, st.integers(-(2**63), 2**63 - 1), TEXT)


def entries(count: int = 6) -> list[Entry]:
    """Give events with gaps in their numbers, as a rolled back transaction leaves them."""
    return [Entry(3 * n, f"e{n}", "agent.joined", n, f'{{"id":"e{n}"}}') for n in range(1, count + 1)]


def chain(events: list[Entry]) -> list[Link]:
    links, head = [], GENESIS
    for number, entry in enumerate(events, 1):
        links.append(audit.link(head, number, entry))
        head = links[-1].hash
    return links


def faults(links: list[Link], events: list[Entry]) -> list[Fault]:
    return list(Walk().page(links, events))


def test_a_chain_that_nobody_touched_holds():
    """No fault, and the walk ends at the last link."""
    walk = Walk()
    links = chain(entries())
    assert list(walk.page(links[:4], entries()[:4])) == list(walk.page(links[4:], entries()[4:])) == []
    assert (walk.number, walk.hash) == (6, links[-1].hash)


@pytest.mark.parametrize("field", ["id", "kind", "at", "body"])
def test_a_changed_column_is_found_at_its_place(field: str):
    """Each column counts, also those that only repeat what the body says; the links behind it are not blamed."""
    events = entries()
    value = getattr(events[2], field)
    events[2] = replace(events[2], **{field: value + 1 if isinstance(value, int) else f"{value}x"})
    expected = Damage.MOVED if field == "id" else Damage.CHANGED
    assert faults(chain(entries()), events) == [Fault(expected, 3, 9)]


def test_a_removed_event_is_found():
    """Its link stays and binds nothing."""
    events = entries()
    del events[2]
    assert faults(chain(entries()), events) == [Fault(Damage.REMOVED, 3, 9)]


def test_a_removed_event_with_its_link_is_found():
    """A number is missing."""
    events, links = entries(), chain(entries())
    del events[2], links[2]
    assert faults(links, events) == [Fault(Damage.UNLINKED, 3, 0)]


def test_swapped_events_are_found():
    """Two events that changed places are both at the wrong one."""
    events = entries()
    events[1], events[2] = replace(events[2], seq=events[1].seq), replace(events[1], seq=events[2].seq)
    assert faults(chain(entries()), events) == [Fault(Damage.MOVED, 2, 6), Fault(Damage.MOVED, 3, 9)]


def test_an_event_put_between_sealed_ones_is_found():
    """It has no link."""
    events = [*entries(), Entry(7, "new", "agent.joined", 0, "{}")]
    assert faults(chain(entries()), events) == [Fault(Damage.ADDED, 6, 7)]


def test_who_mends_the_links_behind_a_change_is_found_where_he_stopped():
    """The chain holds up to the last link that he made anew."""
    events, kept = entries(), chain(entries())
    events[2] = replace(events[2], body="{}")
    assert faults([*chain(events)[:5], kept[5]], events) == [Fault(Damage.CHANGED, 6, 18)]


def test_a_chain_made_anew_holds_and_does_not_fit_a_checkpoint():
    """What a hash alone cannot find, a statement that was kept elsewhere does."""
    events = entries()
    said = statement(number=6, hash=chain(events)[-1].hash)
    events[2] = replace(events[2], body="{}")
    links = chain(events)
    assert faults(links, events) == []
    assert compared(said, 6, links[-1].hash) == Fault(Damage.REWRITTEN, 6, 18)


def test_a_chain_without_its_end_is_found_by_a_checkpoint_alone():
    """The rest holds, and is too short."""
    links = chain(entries())
    said = statement(number=6, hash=links[-1].hash)
    assert faults(links[:4], entries()[:4]) == []
    assert compared(said, 4, None) == Fault(Damage.TRUNCATED, 4, 0)
    assert compared(said, 6, links[-1].hash) is None
    assert compared(said, 9, None) is None  # the place was pruned


@given(st.lists(ENTRIES, min_size=2, max_size=2, unique=True), st.integers(1, 9))
def test_no_two_events_have_one_link(two: list[Entry], number: int):
    """Lengths stand before texts: what moves from one column to the next changes the bytes."""
    one, other = (audit.link(GENESIS, number, entry).hash for entry in two)
    assert one != other


@given(ENTRIES)
def test_a_link_depends_on_its_place(entry: Entry):
    """The same event at another number, or behind another link, has another hash."""
    first = audit.link(GENESIS, 1, entry)
    assert first.hash not in {audit.link(GENESIS, 2, entry).hash, audit.link("1" * 64, 1, entry).hash}


@pytest.mark.parametrize("entry", [Entry(1, "\ud800", "", 0, ""), Entry(2**63, "", "", 0, "")])
def test_what_cannot_be_bound_is_bad_input(entry: Entry):
    """Text that is no Unicode and numbers that do not fit are named."""
    with pytest.raises(BadInput, match=f"event {entry.seq}"):
        audit.link(GENESIS, 1, entry)


def test_a_hash_in_the_rows_that_is_none_is_a_fault():
    """Whoever writes nonsense into a link makes no verifier fall over."""
    links = chain(entries())
    links[2] = replace(links[2], hash="é")
    assert faults(links, entries()) == [Fault(Damage.CHANGED, 3, 9), Fault(Damage.CHANGED, 4, 12)]


# Statements


PKI = Pki("example.org")
ROOTS = [load_pem_x509_certificate(PKI.roots_pem).public_bytes(Encoding.DER)]


def statement(pki: Pki = PKI, **changed: object) -> Statement:
    """Give a checkpoint that the issuing authority of ``pki`` signed."""
    issuing = pki.issuing
    fields = {
        "purpose": Purpose.CHECKPOINT,
        "trust_domain": "example.org",
        "number": 6,
        "seq": 18,
        "hash": "a" * 64,
        "at": NOW,
        "certificate": issuing.cert.public_bytes(Encoding.PEM).decode(),
    }
    said = Statement(**{**fields, **changed})
    assert isinstance(issuing.key, ec.EllipticCurvePrivateKey)
    signature = issuing.key.sign(audit.statement_bytes(said), ec.ECDSA(hashes.SHA256()))
    return replace(said, signature=base64.b64encode(signature).decode())


def test_a_statement_is_checked_up_to_a_root():
    """One of an authority below the root counts."""
    check_statement(statement(), Purpose.CHECKPOINT, "example.org", ROOTS)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda said: replace(said, number=5),
        lambda said: replace(said, seq=5),
        lambda said: replace(said, hash="b" * 64),
        lambda said: replace(said, at=NOW - timedelta(seconds=1)),
        lambda said: replace(said, purpose=Purpose.ANCHOR),
        lambda said: replace(said, trust_domain="example.net"),
        lambda said: replace(said, signature=""),
        lambda said: replace(said, signature="é"),
        lambda said: replace(said, certificate=""),
        lambda said: replace(said, hash="a\nb"),
        lambda _: statement(Pki("example.org")),
        lambda _: statement(at=NOW + timedelta(days=36500)),
    ],
)
def test_a_statement_that_was_touched_is_refused(spoil: Callable[[Statement], Statement]):
    """Every field is signed, and the signer is one of ours at that time."""
    with pytest.raises(BadInput):
        check_statement(spoil(statement()), Purpose.CHECKPOINT, "example.org", ROOTS)


def test_a_checkpoint_does_not_pass_for_an_anchor():
    """Else a checkpoint that somebody exported would excuse that all before it was removed."""
    with pytest.raises(BadInput):
        check_statement(replace(statement(), purpose=Purpose.ANCHOR), Purpose.ANCHOR, "example.org", ROOTS)


def test_a_workload_cannot_sign_a_statement():
    """A leaf below the same root is no authority."""
    leaf = PKI.leaf("eve")
    pems = [one.public_bytes(Encoding.PEM).decode() for one in (leaf.cert, PKI.issuing.cert)]
    said = replace(statement(), certificate="".join(pems))
    assert isinstance(leaf.key, ec.EllipticCurvePrivateKey)
    signature = leaf.key.sign(audit.statement_bytes(said), ec.ECDSA(hashes.SHA256()))
    with pytest.raises(BadInput, match="signed by an authority"):
        check_statement(
            replace(said, signature=base64.b64encode(signature).decode()), Purpose.CHECKPOINT, "example.org", ROOTS
        )


def test_what_is_signed_is_no_der():
    """An authority's key signs certificates, too: a statement must never be readable as one."""
    assert audit.statement_bytes(statement())[:16] == b"handfast audit c"
