from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from handfast.access.decide import Request, decide
from handfast.access.slice import document_of, make_slice, parse_slice
from handfast.access.vouching import NEVER, issuers_at, not_lent, recognise
from handfast.access.world import World
from handfast.access.world_file import parse_world
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.base.windows import to_unix
from handfast.trust import der
from handfast.trust.facts import facts, hex_serial
from handfast.trust.foreign import read_ca
from handfast.trust.foreign_crl import RevocationList
from handfast.trust.standing import Word
from tests.envoy_real.forging import CN, FOR_CLIENTS, NOT_CA, UTF8, Draft, Forged, forge, subject
from tests.support.partners import authority, partner, roots_pem
from tests.support.pki import Pki

OWN, ACME = Pki("Own"), partner("Acme")
OURS = (read_ca(OWN.issuing.cert_der),)
NOW = datetime.now(UTC)
LATER, BEFORE = int(NOW.timestamp()) + 3600, int(NOW.timestamp()) - 1
CA = read_ca(ACME.issuing.cert_der)
ALICE = Draft((NOT_CA, FOR_CLIENTS), subject=subject((CN, UTF8, b"alice")))


def world(
    *, trust: tuple[str, ...] = ("example.org", "acme"), revocation: dict[str, str] | None = None, roots: str = ""
) -> World:
    route = {"path": "/", "upstream": "http://a", "allow": ["acme/*", "team/a"]}
    acme = {
        "roots_pem": roots or roots_pem(ACME),
        "hosts": ["a.test"],
        "identities": [{"match": {"common_name": "*"}, "identity": "acme/{common_name}"}],
    }
    hosts = {
        "a.test": {"listen": 8443, "clients": {"trust": list(trust)}, "routes": [route]},
        "b.test": {"listen": 8443, "routes": [route]},
    }
    authorities = {"acme": acme | ({"revocation": revocation} if revocation else {})}
    return parse_world(json.dumps({"trust_domain": "example.org", "authorities": authorities, "hosts": hosts}))


def who(of: World, shown: Forged, now: datetime = NOW, revoked: tuple[str, ...] = (), said: Word = Word.UNKNOWN) -> str:
    issuers = issuers_at(of, of.hosts["a.test"], OURS)
    found = recognise(shown.der, facts(shown.der), issuers, of, revoked=revoked, now=now, said=said)
    return found.reason if isinstance(found, Refusal) else found.name


def listed(*serials: str, until: int = LATER) -> World:
    lists = {"acme": (RevocationList(CA.fingerprint, 0, until, serials),)}
    return replace(world(revocation={"crl": "http://a/b"}), lists=lists)


def test_who_vouched_decides_who_it_is():
    """Ours by the SPIFFE id, theirs by the rule."""
    assert who(world(), forge(OWN, Draft())) == "team/a"
    assert who(world(), forge(ACME, ALICE)) == "acme/alice"


def test_a_stranger_is_nobody():
    """Neither is a partner whom the host does not trust, nor we where it trusts partners alone."""
    assert who(world(), forge(partner("Other"), ALICE)) == Reason.CHAIN_UNKNOWN_AUTHORITY
    assert who(world(trust=("example.org",)), forge(ACME, ALICE)) == Reason.CHAIN_UNKNOWN_AUTHORITY
    assert who(world(trust=("acme",)), forge(OWN, Draft())) == Reason.CHAIN_UNKNOWN_AUTHORITY
    assert who(world(trust=("acme",)), forge(ACME, ALICE)) == "acme/alice"


def test_a_key_of_nobody_is_nobodys():
    """The issuer's name alone is not enough where the leaf says which key it means."""
    leaf = Pki("x", issuing=authority("Own Issuing"), root=OWN.root).leaf("payments")
    assert who(world(), Forged(leaf.cert_der, "", b"")) == Reason.CHAIN_UNKNOWN_AUTHORITY


def test_ours_with_a_lent_name_is_refused():
    """It was granted before the authority came."""
    leaf = OWN.leaf("x", san_uris=["spiffe://example.org/acme/alice"])
    assert who(world(), Forged(leaf.cert_der, "", b"")) == Reason.IDENTITY_SAN_NOT_ALLOWED
    assert not_lent(Refusal(Reason.REVOKED), ()) == Refusal(Reason.REVOKED)


def test_what_is_listed_is_revoked():
    """By its serial and its issuer; another of the same serial is not."""
    alice = forge(ACME, ALICE)
    serial = facts(alice.der).serial
    assert who(listed(serial), alice) == Reason.REVOKED
    assert who(listed("00"), alice) == "acme/alice"
    assert who(listed(facts((own := forge(OWN, Draft())).der).serial), own) == "team/a"
    assert who(world(), alice, revoked=(facts(alice.der).fingerprint,)) == Reason.REVOKED


def test_what_is_not_known_is_refused_unless_told_otherwise():
    """No list, or one that has ended."""
    alice = forge(ACME, ALICE)
    assert who(world(revocation={"crl": "http://a/b"}), alice) == Reason.REVOCATION_NO_CRL
    assert who(listed(until=BEFORE), alice) == Reason.REVOCATION_CRL_EXPIRED
    assert who(world(revocation={"crl": "http://a/b", "when_unknown": "accept"}), alice) == "acme/alice"


@pytest.mark.parametrize(
    ("mode", "said", "expected"),
    [
        ("refuse", Word.GOOD, "acme/alice"),
        ("refuse", Word.REVOKED, Reason.REVOKED),
        ("refuse", Word.UNKNOWN, Reason.REVOCATION_STATUS_UNKNOWN),
        ("accept", Word.GOOD, "acme/alice"),
        ("accept", Word.REVOKED, Reason.REVOKED),
        ("accept", Word.UNKNOWN, "acme/alice"),
    ],
)
def test_a_responders_word_counts_for_its_own(mode: str, said: Word, expected: str):
    """Nobody needs a list then. Of ours it says nothing, nor does it make anybody good whom something else is against."""
    of = world(revocation={"ocsp": "http://a", "when_unknown": mode})
    assert who(of, forge(ACME, ALICE), said=said) == expected
    assert who(of, forge(OWN, Draft()), said=said) == "team/a"
    nameless = Draft((NOT_CA, FOR_CLIENTS), subject=subject((CN, UTF8, b"a/b")))
    assert who(of, forge(ACME, nameless), said=said) == Reason.IDENTITY_NAME_UNUSABLE
    assert who(world(), forge(ACME, ALICE), said=said) == "acme/alice"


BOTH = {"ocsp": "http://a", "crl": "http://a/b"}


def both(*serials: str, until: int = LATER, mode: str = "refuse") -> World:
    lists = {"acme": (RevocationList(CA.fingerprint, 0, until, serials),)}
    return replace(world(revocation=BOTH | {"when_unknown": mode}), lists=lists)


@pytest.mark.parametrize("mode", ["refuse", "accept"])
def test_of_two_either_may_say_revoked(mode: str):
    """The list whatever the responder says, and however old it is; the responder whatever the list says."""
    alice = forge(ACME, ALICE)
    serial = facts(alice.der).serial
    for until in (LATER, BEFORE):
        for said in Word:
            assert who(both(serial, until=until, mode=mode), alice, said=said) == Reason.REVOKED
        assert who(both(until=until, mode=mode), alice, said=Word.REVOKED) == Reason.REVOKED


def test_the_list_speaks_for_whom_the_responder_does_not_know():
    """While it counts; when neither knows it is as the world says, and a list that is away or old bars nobody who is good."""
    alice, lacking = forge(ACME, ALICE), replace(both(), lists={})
    assert who(both(), alice) == "acme/alice"
    for of in (both(until=BEFORE), lacking):
        assert who(of, alice, said=Word.GOOD) == "acme/alice"
        assert who(of, alice) == Reason.REVOCATION_STATUS_UNKNOWN
    assert who(both(until=BEFORE, mode="accept"), alice) == "acme/alice"
    ends = datetime.fromtimestamp(LATER, UTC)
    assert who(both(), alice, now=ends - timedelta(seconds=1)) == "acme/alice"
    assert who(both(), alice, now=ends) == Reason.REVOCATION_STATUS_UNKNOWN


def test_a_list_of_another_ca_speaks_for_nobody():
    """Nor does a list that is still known where the world has a responder alone."""
    root = next(ca for ca in world().authorities["acme"].cas if ca.subject == ca.issuer)
    other = replace(both(), lists={"acme": (RevocationList(root.fingerprint, 0, LATER, ()),)})
    assert who(other, forge(ACME, ALICE)) == Reason.REVOCATION_STATUS_UNKNOWN
    alone = replace(world(revocation={"ocsp": "http://a"}), lists=both().lists)
    assert who(alone, forge(ACME, ALICE)) == Reason.REVOCATION_STATUS_UNKNOWN


def test_a_leaf_that_ended_before_its_list_has_ended():
    """The word is about what came first."""
    assert who(listed(), forge(ACME, ALICE), now=NOW + timedelta(days=3)) == Reason.REVOCATION_CRL_EXPIRED
    late = listed(until=LATER + 10 * 86400)
    assert who(late, forge(ACME, ALICE), now=NOW + timedelta(days=3)) == Reason.CERT_EXPIRED


LONG = replace(ALICE, ends=NOW + timedelta(days=5))


def short_lived(root: int, issuing: int, name: str = "Acme Issuing") -> Pki:
    """Give an authority whose root and issuing CA end in so many days."""
    top = authority("Acme Root", ends=timedelta(days=root))
    return Pki("Acme", issuing=authority(name, top, ends=timedelta(days=issuing)), root=top.cert)


@pytest.mark.parametrize(("root", "issuing"), [(1, 9), (9, 1), (1, 1)])
def test_an_ended_ca_vouches_for_nobody(root: int, issuing: int):
    """Nor does one below it. TLS has looked at the one that it was given, and when the connection began."""
    pki = short_lived(root, issuing)
    shown, of = forge(pki, LONG), world(roots=roots_pem(pki))
    ends = min(ca.window.not_after for ca in of.authorities["acme"].cas)
    assert who(of, shown, now=ends - timedelta(seconds=1)) == "acme/alice"
    assert who(of, shown, now=ends) == Reason.CHAIN_ISSUER_EXPIRED
    assert who(of, shown, now=NOW + timedelta(days=6)) == Reason.CHAIN_ISSUER_EXPIRED
    assert who(of, forge(OWN, Draft(ends=LONG.ends)), now=ends) == "team/a"


def test_what_ended_first_is_told():
    """Leaf, list, or CA, though all have."""
    pki, late = short_lived(9, 3), NOW + timedelta(days=6)
    for days, expected in ((2, Reason.REVOCATION_CRL_EXPIRED), (4, Reason.CHAIN_ISSUER_EXPIRED)):
        listing = RevocationList(read_ca(pki.issuing.cert_der).fingerprint, 0, int(NOW.timestamp()) + days * 86400, ())
        of = replace(world(revocation={"crl": "http://a/b"}, roots=roots_pem(pki)), lists={"acme": (listing,)})
        assert who(of, forge(pki, LONG), now=late) == expected
        assert who(of, forge(pki, ALICE), now=late) == Reason.CERT_EXPIRED


def test_a_ca_with_a_successor_of_its_name_counts_by_its_key():
    """The leaves of the old key end with it, those of the new one go on; who names no key counts for neither any more."""
    old, new = short_lived(9, 1), short_lived(9, 9)
    of = world(roots=roots_pem(old) + roots_pem(new))
    key_id = der.extension(
        "2.5.29.35", der.sequence(der.tlv(0x80, bytes.fromhex(read_ca(new.issuing.cert_der).key_id)))
    )
    late = old.issuing.cert.not_valid_after_utc
    naming = replace(LONG, extensions=(NOT_CA, FOR_CLIENTS, key_id))
    assert who(of, forge(old, LONG)) == who(of, forge(new, LONG)) == "acme/alice"
    assert who(of, forge(new, naming), now=late) == "acme/alice"
    assert who(of, forge(new, LONG), now=late) == Reason.CHAIN_ISSUER_EXPIRED


def test_a_ca_that_was_renewed_with_its_key_counts_on():
    """Both certificates are one CA then, in whatever order they come."""
    top = authority("Acme Root")
    old = authority("Acme Issuing", top, ends=timedelta(days=1))
    new = authority("Acme Issuing", top, ends=timedelta(days=9), key=old.key)
    of = world(roots="".join(one.cert_pem.decode() for one in (top, old, new)))
    shown = forge(Pki("Acme", issuing=old, root=top.cert), LONG)
    assert who(of, shown, now=NOW + timedelta(days=2)) == "acme/alice"
    assert who(of, shown, now=NOW + timedelta(days=10)) == Reason.CERT_EXPIRED
    for pair in ((old, new), (new, old)):
        cas = tuple(read_ca(one.cert_der) for one in pair)
        found = [one.ends for one in issuers_at(of, of.hosts["b.test"], cas)]
        assert found == [to_unix(new.cert.not_valid_after_utc)]


def test_a_revoked_ca_vouches_for_nobody():
    """What its root's list names, and whatever it issued."""
    root = next(ca for ca in world().authorities["acme"].cas if ca.subject == ca.issuer)
    lists = (
        RevocationList(CA.fingerprint, 0, LATER, ()),
        RevocationList(root.fingerprint, 0, LATER, (hex_serial(ACME.issuing.cert.serial_number),)),
    )
    of = replace(world(revocation={"crl": "http://a/b"}), lists={"acme": lists})
    assert who(of, forge(ACME, ALICE)) == Reason.REVOKED_ISSUER


def test_no_two_issuers_of_a_host_have_one_name():
    """If one of ours had, there would be no telling."""
    impostor = (read_ca(ACME.issuing.cert_der),)
    with pytest.raises(BadInput):
        issuers_at(world(), world().hosts["a.test"], impostor)
    assert {one.until for one in issuers_at(world(), world().hosts["a.test"], OURS)} == {NEVER}


def test_a_host_admits_whom_it_trusts():
    """A lent name counts where its authority does, a name of ours where we do; what-if decides by that."""
    of = world()
    own = of.trust_domain
    asks = Request("GET", "/")
    assert decide(of.hosts["a.test"], own.id("acme/alice"), asks).allowed
    assert decide(of.hosts["b.test"], own.id("acme/alice"), asks).reason is Reason.IDENTITY_FOREIGN_DOMAIN
    assert decide(of.hosts["b.test"], own.id("team/a"), asks).allowed
    alone = world(trust=("acme",)).hosts["a.test"]
    assert decide(alone, own.id("acme/alice"), asks).allowed
    assert decide(alone, own.id("team/a"), asks).reason is Reason.IDENTITY_FOREIGN_DOMAIN


def test_lists_travel_with_the_slice():
    """And a slice whose lists alone are new is another slice."""
    of = listed("0a", "0b")
    slice_ = make_slice(revision=1, world=of, roots=("r",), issuers=())
    assert parse_slice(json.dumps(document_of(slice_)).encode()) == slice_
    without = make_slice(revision=1, world=replace(of, lists={}), roots=("r",), issuers=())
    assert without.digest != slice_.digest
    assert parse_slice(json.dumps(document_of(slice_)).encode(), before=without) == slice_


@pytest.mark.parametrize(
    "lists", [{"acme": 1}, [], {"acme": [{"ca": "x"}]}, {"acme": [{"ca": 1, "since": 0, "until": 0, "serials": []}]}]
)
def test_bad_lists_are_no_slice(lists: object):
    """They are refused as a whole."""
    plain = document_of(make_slice(revision=1, world=world(), roots=("r",), issuers=()))
    with pytest.raises(BadInput):
        parse_slice(json.dumps(plain | {"lists": lists}).encode())
