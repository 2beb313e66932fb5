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
from handfast.trust.facts import facts, hex_serial
from handfast.trust.foreign import read_ca
from handfast.trust.foreign_crl import RevocationList
from tests.envoy_real.forging import CN, FOR_CLIENTS, NOT_CA, UTF8, Draft, Forged, forge, subject
from tests.support.partners import authority, partner, roots_pem
from tests.support.pki import Pki

OWN, ACME = Pki("Own"), partner("Acme")
OURS = (read_ca(OWN.issuing.cert_der),)
NOW = datetime.now(UTC)
LATER, BEFORE = int(NOW.timestamp()) + 3600, int(NOW.timestamp()) - 1
CA = read_ca(ACME.issuing.cert_der)
ALICE = Draft((NOT_CA, FOR_CLIENTS), subject=subject((CN, UTF8, b"alice")))


def world(*, trust: tuple[str, ...] = ("example.org", "acme"), revocation: dict[str, str] | None = None) -> World:
    route = {"path": "/", "upstream": "http://a", "allow": ["acme/*", "team/a"]}
    acme = {
        "roots_pem": roots_pem(ACME),
        "hosts": ["a.test"],
        "identities": [{"match": {"common_name": "*"}, "identity": "acme/{common_name}"}],
    }
    hosts = {
        "a.test": {"listen": 8443, "clients": {"trust": list(trust)}, "routes": [route]},
        "b.test": {"listen": 8443, "routes": [route]},
    }
    authorities = {"acme": acme | ({"revocation": revocation} if revocation else {})}
    return parse_world(json.dumps({"trust_domain": "example.org", "authorities": authorities, "hosts": hosts}))


def who(of: World, shown: Forged, now: datetime = NOW, revoked: tuple[str, ...] = ()) -> str:
    issuers = issuers_at(of, of.hosts["a.test"], OURS)
    found = recognise(shown.der, facts(shown.der), issuers, of, revoked=revoked, now=now)
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


def test_a_leaf_that_ended_before_its_list_has_ended():
    """The word is about what came first."""
    assert who(listed(), forge(ACME, ALICE), now=NOW + timedelta(days=3)) == Reason.REVOCATION_CRL_EXPIRED
    late = listed(until=LATER + 10 * 86400)
    assert who(late, forge(ACME, ALICE), now=NOW + timedelta(days=3)) == Reason.CERT_EXPIRED


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
