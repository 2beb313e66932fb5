"""Nothing of one authority counts for another, whatever it writes into its certificates; and names are given alike everywhere."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import SubjectKeyIdentifier

from handfast.base.reasons import Reason
from handfast.base.spiffe import SpiffeId
from handfast.io.envoy_admin import EnvoyAdmin
from handfast.trust import der
from handfast.trust.facts import hex_serial
from handfast.trust.foreign import read_ca
from handfast.trust.foreign_crl import RevocationList
from tests.envoy_real.forging import (
    CN,
    FOR_CLIENTS,
    GOOD_URI,
    NOT_CA,
    URI,
    UTF8,
    Draft,
    Forged,
    forge,
    names,
    subject,
)
from tests.envoy_real.guard import Tls
from tests.envoy_real.lone import Answer, Connection
from tests.envoy_real.partners import (
    ELSEWHERE,
    ORG,
    Stage,
    a_draft,
    some_rules,
    stage,
)
from tests.support.partners import authority, partner, roots_pem
from tests.support.pki import Issued, Pki

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore:Attribute's length")]

DRAFTS = 250
OWN, ACME, BETA = Pki("Own"), partner("Acme"), partner("Beta")
ACME_RULES = [{"match": {"organization": "Acme", "common_name": "*"}, "identity": "acme/{common_name}"}]
BETA_RULES = [{"match": {"common_name": "*"}, "identity": "beta/{common_name}"}]
BOTH = {
    "acme": {"roots_pem": roots_pem(ACME), "identities": ACME_RULES},
    "beta": {"roots_pem": roots_pem(BETA), "identities": BETA_RULES},
}


def named(common_name: bytes, *more: bytes) -> Draft:
    return Draft((NOT_CA, FOR_CLIENTS, *more), subject=subject((ORG, UTF8, b"Acme"), (CN, UTF8, common_name)))


def below(issuing: Issued, *above: Issued) -> Pki:
    """Give the authority that signs with this CA, and sends these along."""
    return Pki("x", issuing=Issued(issuing.cert, issuing.key, tuple(one.cert for one in above)), root=ACME.root)


def answer_of(gate: Stage, shown: Forged, path: str = "/") -> Answer:
    with gate.connect(gate.context(shown)) as connection:
        return connection.ask(path)


def outcome(gate: Stage, shown: Forged) -> object:
    """Give the identity that the service is told, the code of a refusal, or where TLS refused."""
    answer = gate.meet(shown)
    if isinstance(answer, Tls):
        return answer
    return answer.told("x-client-identity")[0] if answer.status == 200 else answer.code


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("partners"), OWN, BOTH) as running:
        yield running


def test_each_gets_its_own_name(gate: Stage):
    """Ours is who its SPIFFE id says; a partner's client is who the rule says."""
    assert outcome(gate, forge(OWN, Draft())) == GOOD_URI.decode()
    assert outcome(gate, forge(ACME, named(b"bob"))) == "spiffe://example.org/acme/bob"
    assert outcome(gate, forge(BETA, named(b"bob"))) == "spiffe://example.org/beta/bob"


def test_rules_tell_partners_apart(gate: Stage):
    """A route for the names of one is closed to the clients of another, and to ours."""
    assert answer_of(gate, forge(ACME, named(b"bob")), "/acme").status == 200
    for shown in (forge(BETA, named(b"bob")), forge(OWN, Draft())):
        assert answer_of(gate, shown, "/acme").code == Reason.POLICY_NO_MATCH


@pytest.mark.parametrize(
    "uri", [GOOD_URI, b"spiffe://example.org/handfast/server", b"SPIFFE://example.org/team/a", b"spiffe://example.org"]
)
def test_a_partner_cannot_name_itself_one_of_ours(gate: Stage, uri: bytes):
    """A SPIFFE id of our trust domain in its certificate is refused, in any spelling."""
    assert outcome(gate, forge(ACME, named(b"bob", names((URI, uri))))) == Reason.IDENTITY_SAN_NOT_ALLOWED


def test_ours_cannot_bear_a_lent_name(gate: Stage):
    """A certificate of ours with a name that only a partner gives counts for nothing, at hosts with partners and without."""
    shown = forge(OWN, Draft((NOT_CA, FOR_CLIENTS, names((URI, b"spiffe://example.org/acme/bob")))))
    assert outcome(gate, shown) == Reason.IDENTITY_SAN_NOT_ALLOWED
    with Connection(gate.context(shown), gate.port, ELSEWHERE) as connection:
        assert connection.ask("/").code == Reason.IDENTITY_SAN_NOT_ALLOWED


def test_a_partner_counts_only_where_it_is_trusted(gate: Stage):
    """At another host of the same port its client does not get past TLS."""
    with (
        pytest.raises((OSError, AssertionError)),
        Connection(gate.context(forge(ACME, named(b"bob"))), gate.port, ELSEWHERE) as one,
    ):
        one.ask("/")


@pytest.mark.parametrize("name", [b"..", b".", b"a/b", b"a/../payments", b"", b"a b", "ü".encode(), b"%2e%2e", b"a\0"])
def test_nobody_writes_himself_a_path(gate: Stage, name: bytes):
    """What is no segment of a SPIFFE id gives no identity, nor does another rule."""
    assert outcome(gate, forge(ACME, named(name))) in {Reason.IDENTITY_NAME_UNUSABLE, Reason.IDENTITY_NO_MAPPING}


def test_two_common_names_are_none(gate: Stage):
    """Which of them would count is for nobody to guess."""
    two = subject((ORG, UTF8, b"Acme"), (CN, UTF8, b"bob"), (CN, UTF8, b"root"))
    assert outcome(gate, forge(ACME, Draft((NOT_CA, FOR_CLIENTS), subject=two))) == Reason.IDENTITY_NAME_UNUSABLE


def test_without_a_rule_there_is_no_identity(gate: Stage):
    """A certificate that no rule speaks of is refused, though anybody with a certificate may come."""
    shown = forge(ACME, Draft((NOT_CA, FOR_CLIENTS), subject=subject((CN, UTF8, b"bob"))))
    assert outcome(gate, shown) == Reason.IDENTITY_NO_MAPPING


def impostor(of: Issued) -> Pki:
    """Give a CA below a partner's issuing CA that has name and key identifier of another."""
    key_id = of.cert.extensions.get_extension_for_class(SubjectKeyIdentifier).value.digest
    made = authority(of.cert.subject.rfc4514_string().removeprefix("CN="), ACME.issuing, key_id=key_id)
    return below(made, ACME.issuing)


@pytest.mark.parametrize("other", [OWN, BETA], ids=["ours", "another partner's"])
def test_an_impostor_below_a_partner_is_refused(gate: Stage, other: Pki):
    """A CA that the partner certified, with name and key identifier of another's, issues for nobody."""
    pki = impostor(other.issuing)
    for draft in (Draft(), named(b"bob")):
        shown = forge(pki, draft)
        sent = Forged(shown.der, shown.chain_pem + ACME.issuing.cert_pem.decode(), shown.key_pem)
        assert outcome(gate, sent) is Tls.AT_THE_GATEWAY


def test_without_the_bound_the_access_check_still_refuses(gate: Stage, tmp_path: Path):
    """TLS alone would take an impostor with our name and a key of its own; that key's identifier is nobody's here."""
    leaf = below(authority("Own Issuing", ACME.issuing), ACME.issuing).leaf("payments")
    shown = Forged(leaf.cert_der, leaf.chain_pem.decode(), leaf.key_pem)
    assert outcome(gate, shown) is Tls.AT_THE_GATEWAY
    with stage(tmp_path, OWN, {"acme": BOTH["acme"]}, bounded=False) as open_gate:
        assert outcome(open_gate, shown) == Reason.CHAIN_UNKNOWN_AUTHORITY


def test_a_further_ca_of_a_partner_is_refused(gate: Stage):
    """A CA that stands in no world file issues for nobody, whatever its name is."""
    shown = forge(below(authority("Acme More", ACME.issuing)), named(b"bob"))
    sent = Forged(shown.der, shown.chain_pem + ACME.issuing.cert_pem.decode(), shown.key_pem)
    assert outcome(gate, sent) is Tls.AT_THE_GATEWAY


def test_chains_may_be_sent_whole_or_not(gate: Stage):
    """As every issuer is known, a client that sends its leaf alone is let in, and one that sends its root too."""
    for pki, draft in ((OWN, Draft()), (ACME, named(b"bob"))):
        shown = forge(pki, draft)
        leaf = Forged(shown.der, shown.chain_pem[: shown.chain_pem.index("-----END CERT") + 26], shown.key_pem)
        whole = Forged(shown.der, shown.chain_pem + pki.roots_pem.decode(), shown.key_pem)
        assert outcome(gate, leaf) == outcome(gate, whole) == outcome(gate, shown)


@pytest.mark.parametrize("tls12", [False, True])
def test_a_resumed_session_is_the_same_client(gate: Stage, tls12: bool):
    """Who vouched is read in the leaf, which a resumed session has too."""
    context = gate.context(forge(ACME, named(b"bob")), tls12=tls12)
    with gate.connect(context) as first:
        first.ask("/")
        session = first.tls.session
    with gate.connect(context, session) as second:
        assert second.tls.session_reused
        assert second.ask("/").told("x-client-identity") == ["spiffe://example.org/acme/bob"]


def test_a_partner_gets_no_session_cookie(gate: Stage):
    """Its clients have none, and one that they bring does not reach the service."""
    with gate.connect(gate.context(forge(ACME, named(b"bob")))) as connection:
        answer = connection.ask("/", fields="Cookie: Handfast_Authorization=x; a=b\r\n")
    assert (answer.status, answer.told("cookie")) == (200, ["a=b"])


def test_a_star_stands_for_something(tmp_path: Path):
    """For all below a path, and for one label of a name; and what a rule makes of it has to be an identity."""
    rules = [
        {"match": {"common_name": "team/*"}, "identity": "acme/team"},
        {"match": {"common_name": "*.host"}, "identity": "acme/host"},
        {"match": {"common_name": "*"}, "identity": "acme/x/{common_name}"},
    ]
    expected = {
        b"team/a": "spiffe://example.org/acme/team",
        b"a.host": "spiffe://example.org/acme/host",
        b"team/": Reason.IDENTITY_NAME_UNUSABLE,
        b".host": "spiffe://example.org/acme/x/.host",
        b"a.b.host": "spiffe://example.org/acme/x/a.b.host",
        b"a" * 2020: f"spiffe://example.org/acme/x/{'a' * 2020}",
        b"a" * 2021: Reason.IDENTITY_NAME_UNUSABLE,
    }
    with stage(tmp_path, OWN, {"acme": {"roots_pem": roots_pem(ACME), "identities": rules}}) as gate:
        shown = {name: forge(ACME, named(name)) for name in expected}
        assert {name: str(gate.judged(one)) for name, one in shown.items()} == {
            name: str(one) for name, one in expected.items()
        }
        assert {name: outcome(gate, one) for name, one in shown.items()} == expected


def test_names_are_given_alike(tmp_path: Path):
    """The access check gives each leaf the name, or the refusal, that the control plane gives it."""
    seed = random.getrandbits(32)
    chance, met = Random(seed), Counter[str]()
    both = {
        "acme": {"roots_pem": roots_pem(ACME), "identities": some_rules(chance, "acme")},
        "beta": {"roots_pem": roots_pem(BETA), "identities": [*some_rules(chance, "beta"), *BETA_RULES]},
    }
    with stage(tmp_path, OWN, both) as gate:
        while sum(met.values()) < DRAFTS or (met["named"] < 20 and sum(met.values()) < 10 * DRAFTS):
            shown = forge(chance.choice((ACME, BETA, BETA)), a_draft(chance))
            expected, found = gate.judged(shown), outcome(gate, shown)
            if found is not Tls.AT_THE_CLIENT:
                assert found == str(expected), f"seed {seed}: {both} {shown.der.hex()}"
            met["named" if isinstance(expected, SpiffeId) else expected] += 1
    assert {"named", Reason.IDENTITY_NO_MAPPING, Reason.IDENTITY_NAME_UNUSABLE} <= set(met), f"seed {seed}: {met}"
    assert met["named"] >= 20, f"seed {seed}: {met}"


# Revocation


def listed(pki: Pki, until: datetime, *serials: str) -> RevocationList:
    ca = read_ca(pki.issuing.cert_der)
    return RevocationList(ca.fingerprint, 0, int(until.timestamp()), serials)


def root_listed(pki: Pki, until: datetime, *serials: str) -> RevocationList:
    assert pki.root
    return RevocationList(read_ca(pki.root.public_bytes(Encoding.DER)).fingerprint, 0, int(until.timestamp()), serials)


def with_lists(*, accept: bool = False) -> dict[str, dict[str, object]]:
    revocation = {"crl": "http://127.0.0.1:1/x.crl"} | ({"when_unknown": "accept"} if accept else {})
    return {"acme": {**BOTH["acme"], "revocation": revocation}}


TOMORROW = datetime.now(UTC) + timedelta(days=1)


def serial_of(shown: Forged) -> str:
    return read_ca(shown.der).serial


def test_what_a_partner_revoked_is_refused(tmp_path: Path):
    """A serial on its list is refused, also one whose DER begins with a zero; not its neighbour, a part of one, or the same of ours."""
    bad, high = forge(ACME, named(b"bob")), forge(ACME, replace(named(b"bob"), serial=0x8A8B8C))
    good = [
        forge(ACME, named(b"eve")),
        *(forge(ACME, replace(named(b"eve"), serial=part)) for part in (0x8A8B, 0x8B8C)),
    ]
    own = forge(OWN, Draft())
    lists = {"acme": (listed(ACME, TOMORROW, serial_of(bad), serial_of(high), serial_of(own)),)}
    with stage(tmp_path, OWN, with_lists(), lists=lists) as gate:
        assert [outcome(gate, one) for one in (bad, high)] == [Reason.REVOKED] * 2
        assert {outcome(gate, one) for one in good} == {"spiffe://example.org/acme/eve"}
        assert outcome(gate, own) == GOOD_URI.decode()


def test_what_is_not_known_is_refused(tmp_path: Path):
    """Without a list nobody of the partner's comes in; ours do."""
    with stage(tmp_path, OWN, with_lists()) as gate:
        assert outcome(gate, forge(ACME, named(b"bob"))) == Reason.REVOCATION_NO_CRL
        assert outcome(gate, forge(OWN, Draft())) == GOOD_URI.decode()


def test_what_is_not_known_may_be_accepted(tmp_path: Path):
    """Where the world says so; a list that is there still counts."""
    bad = forge(ACME, named(b"bob"))
    lists = {"acme": (listed(ACME, datetime.now(UTC) - timedelta(days=1), serial_of(bad)),)}
    with stage(tmp_path, OWN, with_lists(accept=True), lists=lists) as gate:
        assert outcome(gate, forge(ACME, named(b"eve"))) == "spiffe://example.org/acme/eve"
        assert outcome(gate, bad) == Reason.REVOKED


def test_a_list_that_ends_ends_what_it_lets_in(tmp_path: Path):
    """On an open connection too, with nobody there to say so."""
    ends = datetime.now(UTC) + timedelta(seconds=4)
    with stage(tmp_path, OWN, with_lists(), lists={"acme": (listed(ACME, ends),)}) as gate:
        with gate.connect(gate.context(forge(ACME, named(b"bob")))) as connection:
            assert connection.ask("/").status == 200
            time.sleep(max(0.0, (ends - datetime.now(UTC)).total_seconds()) + 0.1)
            assert connection.ask("/").code == Reason.REVOCATION_CRL_EXPIRED
        assert outcome(gate, forge(ACME, named(b"eve"))) == Reason.REVOCATION_CRL_EXPIRED


@pytest.mark.parametrize("which", ["root", "issuing"])
def test_a_ca_that_ends_ends_what_it_lets_in(tmp_path: Path, which: str):
    """On an open connection too, on a resumed one and on a new one: TLS alone minds none of a root that ended."""
    soon, later = timedelta(seconds=6), timedelta(days=3)
    root = authority("Short Root", ends=soon if which == "root" else later)
    issuing = authority("Short Issuing", root, ends=soon if which == "issuing" else later)
    pki = Pki("Short", issuing=issuing, root=root.cert)
    ends = (root if which == "root" else issuing).cert.not_valid_after_utc
    shown = forge(pki, named(b"bob"))
    partners = {"acme": {"roots_pem": roots_pem(pki), "identities": ACME_RULES}}
    with stage(tmp_path, OWN, partners) as gate:
        context = gate.context(shown)
        with gate.connect(context) as connection:
            assert connection.ask("/").status == 200
            session = connection.tls.session
            time.sleep(max(0.0, (ends - datetime.now(UTC)).total_seconds()) + 0.1)
            assert connection.ask("/").code == Reason.CHAIN_ISSUER_EXPIRED
        with gate.connect(context, session) as connection:
            assert connection.tls.session_reused
            assert connection.ask("/").code == Reason.CHAIN_ISSUER_EXPIRED
        assert outcome(gate, forge(pki, named(b"eve"))) in {Tls.AT_THE_GATEWAY, Reason.CHAIN_ISSUER_EXPIRED}
        assert gate.judged(shown) is Reason.CHAIN_ISSUER_EXPIRED
    again = tmp_path / "again"
    again.mkdir()
    with stage(again, OWN, partners) as gate:
        assert outcome(gate, shown) in {Tls.AT_THE_GATEWAY, Reason.CHAIN_ISSUER_EXPIRED}
        assert outcome(gate, forge(OWN, Draft())) == GOOD_URI.decode()


def test_a_revoked_ca_takes_its_leaves_along(tmp_path: Path):
    """The root's list names the issuing CA."""
    lists = {"acme": (listed(ACME, TOMORROW), root_listed(ACME, TOMORROW, hex_serial(ACME.issuing.cert.serial_number)))}
    with stage(tmp_path, OWN, with_lists(), lists=lists) as gate:
        assert outcome(gate, forge(ACME, named(b"bob"))) == Reason.REVOKED_ISSUER


def test_our_own_lists_count_where_envoy_gets_none(tmp_path: Path):
    """A serial of ours that is revoked, and whose certificate nobody has seen, is refused beside partners too."""
    leaf = OWN.leaf("payments")
    shown = Forged(leaf.cert_der, leaf.chain_pem.decode(), leaf.key_pem)
    with stage(tmp_path, OWN, {"acme": BOTH["acme"]}, crls=(OWN.crl(leaf).decode(),)) as gate:
        assert outcome(gate, shown) == Reason.REVOKED
        assert outcome(gate, forge(OWN, Draft())) == GOOD_URI.decode()


def test_an_authority_key_that_is_not_the_issuers_is_refused(gate: Stage):
    """A leaf that names its issuer and another key is of nobody."""
    other = der.extension("2.5.29.35", der.sequence(der.tlv(0x80, b"\1" * 20)))
    assert outcome(gate, forge(ACME, named(b"bob", other))) in {Tls.AT_THE_GATEWAY, Reason.CHAIN_UNKNOWN_AUTHORITY}


def test_counted_under_the_name_that_was_given(tmp_path: Path):
    """Envoy's counters show the rule's name, and never what the certificate says of itself; ours are counted as everywhere."""
    claims = names((URI, b"spiffe://partner.org/root"))
    shown = [forge(ACME, named(b"bob", claims)), forge(ACME, Draft((NOT_CA, FOR_CLIENTS, claims))), forge(OWN, Draft())]
    admin = tmp_path / "admin.sock"
    with stage(tmp_path, OWN, {"acme": BOTH["acme"]}, admin=str(admin)) as gate:
        for one in shown:
            outcome(gate, one)
        counts = asyncio.run(EnvoyAdmin(admin).stats(r"^handfast\.requests"))
    counted = {name.split(".identity.")[1].split(".method.")[0]: count for name, count in counts.items()}
    assert counted == {"spiffe://example.org/acme/bob": 1, "spiffe://example.org/!acme": 1, GOOD_URI.decode(): 1}


def test_names_that_a_partner_makes_up_are_counted_as_one(tmp_path: Path):
    """Envoy keeps each counter for ever, and how many names there are is for the partner to choose."""
    admin = tmp_path / "admin.sock"
    with stage(tmp_path, OWN, {"acme": BOTH["acme"]}, admin=str(admin)) as gate:
        for number in range(1003):
            answer = gate.face(forge(ACME, named(b"n%d" % number)))
            assert isinstance(answer, Answer)
            assert answer.status == 200
        again = outcome(gate, forge(ACME, named(b"n1")))
        counts = asyncio.run(EnvoyAdmin(admin).stats(r"^handfast\.requests"))
    assert again == "spiffe://example.org/acme/n1"
    assert len(counts) == 1001
    assert sorted(counts.values()) == [*[1] * 999, 2, 3]
