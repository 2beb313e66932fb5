"""A root that is elsewhere, in the hands of plain openssl."""

from __future__ import annotations

import shutil
import stat
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refused
from handfast.base.spiffe import TrustDomain
from handfast.io.authorities import create_authority, open_authority
from handfast.io.authority_graph import graph
from handfast.io.authority_sources import Place, generate
from handfast.io.ca_certificates import DEFAULT, Wanted
from handfast.io.ca_responder import CaResponder
from handfast.io.clock import SystemClock
from handfast.io.generations import Generations
from handfast.io.next_authority import waits
from handfast.io.signed_chains import RESPONDER_REQUEST, Signed, ask, install, read_signed
from handfast.io.signers import KeyKind
from handfast.io.token_uri import parse_token_uri
from handfast.trust import rotation
from handfast.trust.constraints import permitted
from handfast.trust.facts import facts, pem, pem_certificates
from handfast.trust.ocsp import parse_request
from handfast.trust.rotation import Stage, Step, Verb
from tests.io.authority_parts import (
    DOMAIN,
    PASSPHRASE,
    now,
    opened,
    openssl_needed,
    openssl_verifies,
    requested,
    signed,
)
from tests.support import tokens
from tests.support.offline_root import OfflineRoot, offline_root, openssl


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(data=tmp_path / "data", trust_domain=DOMAIN)


@pytest.fixture
def root(tmp_path: Path) -> OfflineRoot:
    return offline_root(tmp_path / "root")


# --- an offline root


@openssl_needed
@pytest.mark.parametrize("kind", [KeyKind.P256, KeyKind.RSA2048, KeyKind.ED25519])
async def test_an_offline_root_signs_the_issuing_ca(place: Place, root: OfflineRoot, tmp_path: Path, kind: KeyKind):
    """Request, openssl, installation, and a leaf that openssl verifies; the root's key was never here."""
    csr = await requested(place, Wanted(key=kind, constraints=permitted(DOMAIN, ["internal"])))
    openssl("req", "-verify", "-noout", "-in", csr)
    back = read_signed(root.sign(csr).read_bytes(), root.crl().read_bytes())
    assert install(place, back, now(), root.fingerprint) is False
    assert not place.requested.exists()
    await openssl_verifies(place, tmp_path, "payments.internal")
    assert opened(place).issuer_facts.constraints == (permitted(DOMAIN, ["internal"]),)


@tokens.NEEDED
@openssl_needed
async def test_the_requested_key_may_lie_in_a_token(
    place: Place, root: OfflineRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Then neither key is ever on this disk."""
    token = tokens.new_token(tmp_path / "token", monkeypatch)
    token.make("p384", "issuing")
    csr = await requested(place, Wanted(key=parse_token_uri(token.uri("issuing"))))
    install(place, read_signed(root.sign(csr).read_bytes(), root.crl().read_bytes()), now(), root.fingerprint)
    assert not list(place.data.rglob("*key.pem"))
    await openssl_verifies(place, tmp_path, "payments.internal")


@openssl_needed
async def test_a_new_root_is_confirmed_by_its_fingerprint(place: Place, root: OfflineRoot):
    """Without it, or with another: refused, with the fingerprint to compare, and nothing is there."""
    back = await signed(place, root)
    for said in ("", "00" * 32, root.fingerprint[:-3]):
        with pytest.raises(Refused) as caught:
            install(place, back, now(), said)
        assert caught.value.refusal.reason is Reason.AUTHORITY_UNCONFIRMED
        assert caught.value.refusal.evidence["sha256"] == root.fingerprint.replace(":", "").lower()
    assert not place.authority.exists()
    install(place, back, now(), root.fingerprint.lower())
    assert place.authority.exists()


@openssl_needed
async def test_a_chain_for_another_key_is_refused(place: Place, root: OfflineRoot):
    """An old answer to an old request, or somebody's own issuing CA."""
    old = await signed(place, root)
    shutil.rmtree(place.requested)
    await requested(place)
    with pytest.raises(Refused) as caught:
        install(place, old, now(), root.fingerprint)
    assert "key" in caught.value.refusal.evidence


@openssl_needed
async def test_another_root_of_the_same_name_is_refused(place: Place, root: OfflineRoot, tmp_path: Path):
    """The issuing CA has to be signed by the very root that comes with it."""
    back = await signed(place, root)
    impostor = offline_root(tmp_path / "impostor")
    mixed = read_signed(pem(back.issuing_der).encode() + impostor.pem.read_bytes(), impostor.crl().read_bytes())
    with pytest.raises(Refused) as caught:
        install(place, mixed, now(), impostor.fingerprint)
    assert "signature" in caught.value.refusal.evidence


@openssl_needed
async def test_an_issuing_ca_of_another_trust_domain_is_refused(place: Place, root: OfflineRoot):
    """Its identities would be another installation's."""
    back = await signed(place, root)
    other = Place(data=place.data, trust_domain=TrustDomain("example.com"))
    with pytest.raises(Refused) as caught:
        install(other, back, now(), root.fingerprint)
    assert "uri" in caught.value.refusal.evidence


@openssl_needed
async def test_a_list_that_ends_before_the_issuing_ca_is_refused(place: Place, root: OfflineRoot):
    """Nobody here can renew it, and with a stale one every client is refused."""
    with pytest.raises(BadInput, match="does not count from now until"):
        install(place, await signed(place, root, days=300, crl_days=30), now(), root.fingerprint)


@openssl_needed
async def test_a_list_of_somebody_else_or_one_that_revokes_the_issuing_ca_is_refused(
    place: Place, root: OfflineRoot, tmp_path: Path
):
    """Both would cut everybody off at the first revocation."""
    chain = root.sign(await requested(place)).read_bytes()
    impostor = offline_root(tmp_path / "impostor")
    for crl, text in (
        (impostor.crl(), "not the root's"),
        (root.crl(revoked=root.directory / "issuing.pem"), "revokes the issuing CA"),
    ):
        with pytest.raises(BadInput, match=text):
            install(place, read_signed(chain, crl.read_bytes()), now(), root.fingerprint)
    with pytest.raises(BadInput, match="cannot be read"):
        install(
            place,
            read_signed(chain, b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"),
            now(),
            root.fingerprint,
        )


@openssl_needed
async def test_what_is_not_a_chain_is_refused(place: Place, root: OfflineRoot, tmp_path: Path):
    """A root alone, one root too many, an issuing CA without its root; and a missing list is asked for."""
    chain = root.sign(await requested(place)).read_bytes()
    other = offline_root(tmp_path / "other", name="Other").pem.read_bytes()
    for text in (root.pem.read_bytes(), chain + other, (root.directory / "issuing.pem").read_bytes() + other):
        with pytest.raises(BadInput, match="one issuing CA and its root"):
            read_signed(text, root.crl().read_bytes())
    with pytest.raises(BadInput, match="list is missing"):
        read_signed(chain)
    assert read_signed(chain + root.crl().read_bytes()).root_fingerprint


async def test_no_authority_is_made_while_one_is_requested(place: Place):
    """A server that is started too early would come up under a root that nobody wanted."""
    await ask(place, DEFAULT)
    with pytest.raises(BadInput, match="requested from a root elsewhere"):
        create_authority(place.authority, DOMAIN, SystemClock(), None)
    assert not place.authority.exists()


async def test_a_second_request_does_not_destroy_the_first_ones_key(place: Place):
    """Somebody may be on the way to the safe with it."""
    await ask(place, DEFAULT)
    before = (place.requested / "issuing-key.pem").read_bytes()
    with pytest.raises(BadInput, match="requested already"):
        await ask(place, DEFAULT)
    assert (place.requested / "issuing-key.pem").read_bytes() == before


@openssl_needed
async def test_nothing_is_installed_that_was_not_requested(place: Place, root: OfflineRoot):
    """The first step is a request, whose key stays here."""
    back = await signed(place, root)
    shutil.rmtree(place.requested)
    with pytest.raises(BadInput, match="no issuing CA was requested"):
        install(place, back, now(), root.fingerprint)


@openssl_needed
async def test_the_requested_key_is_sealed_and_private(place: Place, root: OfflineRoot):
    """From the first moment, and with the passphrase of the authority."""
    held = Place(data=place.data, trust_domain=DOMAIN, passphrase=PASSPHRASE)
    back = await signed(held, root)
    key = place.requested / "issuing-key.pem"
    assert stat.S_IMODE(place.requested.stat().st_mode) == 0o700
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with pytest.raises(TypeError, match="encrypted"):
        load_pem_private_key(key.read_bytes(), None)
    install(held, back, now(), root.fingerprint)
    assert opened(held).sealed


# --- the next issuing CA of an offline root


@openssl_needed
async def test_the_next_issuing_ca_waits_for_a_rotation(place: Place, root: OfflineRoot):
    """The root is known by then; the rotation uses what was signed, and it does not wait any longer."""
    install(place, await signed(place, root), now(), root.fingerprint)
    first = opened(place)
    back = await signed(place, root, days=350, crl_days=360)
    assert install(place, back, now()) is True
    assert waits(place.authority)
    assert opened(place).issuing_der == first.issuing_der
    due = x509.load_pem_x509_crl((place.authority / "root.crl.pem").read_bytes()).next_update_utc
    assert due is not None
    assert due > facts(back.issuing_der).window.not_after

    generations = Generations(place.authority, DOMAIN, None)
    rows = generations.first(now())
    generations.settle(rows)
    generations.check_root(1)
    coming = rotation.Generation(number=2, root=1, before=1, stage=Stage.PREPARED, since=now())
    made = generations.make(coming, (*rows, coming), now())
    assert rotation.by_number(made, 2).issuer == facts(back.issuing_der).ski
    assert not waits(place.authority)
    again = generations.make(coming, (*rows, coming), now())
    assert again == made
    later = open_authority(place.authority / "generations" / "0002", DOMAIN, None, root_directory=place.authority)
    assert later.issuing_der == back.issuing_der


@openssl_needed
async def test_a_compromised_authority_is_not_followed_without_the_roots_key(place: Place, root: OfflineRoot):
    """Somebody has to revoke it at the end: a root that is elsewhere cannot, and that is said before anything is made."""
    install(place, await signed(place, root), now(), root.fingerprint)
    install(place, await signed(place, root), now())
    generations = Generations(place.authority, DOMAIN, None)
    (first,) = generations.first(now())
    coming = rotation.Generation(number=2, root=1, before=1, stage=Stage.PREPARED, since=now())
    with pytest.raises(BadInput, match="root's key is not here"):
        generations.make(coming, (replace(first, compromised=True), coming), now())
    assert waits(place.authority)
    assert not list(place.authority.rglob("0002"))


@openssl_needed
async def test_the_next_list_of_the_root_leaves_the_issuing_ca_alone(place: Place, root: OfflineRoot):
    """It is put in place at once: a list that revokes who issues now would cut everybody off."""
    install(place, await signed(place, root), now(), root.fingerprint)
    first = place.authority / "issuing.pem"
    chain = root.sign(await requested(place))
    before = (place.authority / "root.crl.pem").read_bytes()
    with pytest.raises(BadInput, match="which is here"):
        install(place, read_signed(chain.read_bytes(), root.crl(revoked=first).read_bytes()), now())
    assert (place.authority / "root.crl.pem").read_bytes() == before
    assert not waits(place.authority)


@openssl_needed
async def test_an_older_list_of_the_root_takes_the_place_of_none(place: Place, root: OfflineRoot):
    """What the newer one revokes would be good again, unnoticed."""
    stale = root.crl(began=now() - timedelta(days=1)).read_bytes()
    install(place, await signed(place, root), now(), root.fingerprint)
    before = (place.authority / "root.crl.pem").read_bytes()
    chain = root.sign(await requested(place)).read_bytes()
    with pytest.raises(BadInput, match="older than"):
        install(place, read_signed(chain, stale), now())
    assert (place.authority / "root.crl.pem").read_bytes() == before
    assert not waits(place.authority)
    install(place, read_signed(chain, before), now())
    assert waits(place.authority)


# --- who answers OCSP for it


async def with_responder(place: Place, root: OfflineRoot) -> Path:
    """Have both requests signed; give the chain with all in it."""
    chain = root.sign(await requested(place))
    root.sign(place.requested / RESPONDER_REQUEST, name="ocsp")
    chain.write_text(
        (root.directory / "ocsp.pem").read_text() + (root.directory / "issuing.pem").read_text() + root.pem.read_text()
    )
    return chain


async def rows_of(generations: Generations) -> tuple[rotation.Generation, ...]:
    return generations.rows


@openssl_needed
async def test_the_keeper_may_let_a_key_here_answer_ocsp(place: Place, root: OfflineRoot, tmp_path: Path):
    """A second request, signed by the same openssl: it verifies what that key says of the issuing CA by the root alone."""
    csr = await requested(place)
    openssl("req", "-verify", "-noout", "-in", place.requested / RESPONDER_REQUEST)
    shutil.rmtree(place.requested)
    csr.unlink()
    chain = await with_responder(place, root)
    install(place, read_signed(chain.read_bytes(), root.crl().read_bytes()), now(), root.fingerprint)
    assert not list(place.data.rglob("root-key*"))
    generations = Generations(place.authority, DOMAIN, None)
    generations.settle(generations.first(now()))
    responder = CaResponder(generations, lambda: rows_of(generations), SystemClock(), lambda: 1)
    responder.refresh()
    asked, answer, by = tmp_path / "asked", tmp_path / "answer", ["-issuer", root.pem]
    openssl("ocsp", *by, "-cert", place.authority / "issuing.pem", "-reqout", asked)
    question = parse_request(asked.read_bytes())
    assert responder.answers_for(question)
    answer.write_bytes((await responder.answer(question)).body)
    by += ["-no_nonce", "-respin", answer, "-CAfile", root.pem]
    assert ": good" in openssl("ocsp", *by, "-cert", place.authority / "issuing.pem")


@openssl_needed
async def test_without_one_nobody_answers_and_all_else_is_as_before(place: Place, root: OfflineRoot, tmp_path: Path):
    """The keeper signed one request; the key for the other is gone."""
    install(place, await signed(place, root), now(), root.fingerprint)
    assert not list(place.data.rglob("ocsp*"))
    generations = Generations(place.authority, DOMAIN, None)
    generations.settle(generations.first(now()))
    responder = CaResponder(generations, lambda: rows_of(generations), SystemClock(), lambda: 1)
    responder.refresh()
    asked = tmp_path / "asked"
    openssl("ocsp", "-issuer", root.pem, "-cert", place.authority / "issuing.pem", "-reqout", asked)
    assert not responder.answers_for(parse_request(asked.read_bytes()))
    await openssl_verifies(place, tmp_path, "payments.internal")


@openssl_needed
async def test_a_key_that_was_not_asked_for_may_not_answer(place: Place, root: OfflineRoot):
    """Else an old answer to an old request, or the keeper's own responder, would stand for a key that is not here."""
    await with_responder(place, root)
    old = (root.directory / "ocsp.pem").read_bytes()
    shutil.rmtree(place.requested)
    chain = root.sign(await requested(place)).read_bytes()
    with pytest.raises(Refused) as caught:
        install(place, read_signed(chain + old, root.crl().read_bytes()), now(), root.fingerprint)
    assert set(caught.value.refusal.evidence) == {"responder_key"}
    assert not place.authority.exists()


# --- a new root


def begun(generations: Generations) -> tuple[rotation.Generation, ...]:
    """Begin the rotation of the root."""
    rows = rotation.begin(generations.rows, now(), root=True)
    assert isinstance(rows, tuple)
    generations.check_root(2)
    return rows


@openssl_needed
async def test_a_new_root_that_is_elsewhere_waits_for_a_rotation(place: Place, root: OfflineRoot):
    """It is confirmed by its fingerprint; nothing of what issues is touched; a rotation of the root takes both, and can do so twice."""
    generate(place, DEFAULT, KeyKind.P256, now())
    before = {path.name: path.read_bytes() for path in place.authority.iterdir()}
    back = await signed(place, root)
    with pytest.raises(Refused) as caught:
        install(place, back, now())
    assert caught.value.refusal.reason is Reason.AUTHORITY_UNCONFIRMED
    assert install(place, back, now(), root.fingerprint) is True
    assert {path.name: path.read_bytes() for path in place.authority.iterdir() if path.is_file()} == before

    generations = Generations(place.authority, DOMAIN, None)
    generations.settle(generations.first(now()))
    rows = begun(generations)
    made = generations.make(rows[-1], rows, now())
    assert not waits(place.authority)
    assert generations.make(rows[-1], rows, now()) == made
    generations.settle(rotation.taken(made, Step(Verb.PUBLISH, 2), now()))
    assert generations.roots == (opened(place).root_der, back.root_der)
    assert generations.delivered[1].issuing_der == back.issuing_der
    assert len(generations.root_crls()) == 2
    assert not (place.authority / "generations" / "0002" / "root-key.pem").exists()
    generations.settle(rotation.taken(generations.rows, Step(Verb.BACK, 2), now()))
    assert generations.current.root_der == opened(place).root_der


@openssl_needed
async def test_a_rotation_of_the_issuing_ca_does_not_take_a_new_root(place: Place, root: OfflineRoot):
    """Nobody would trust it yet: it is said before anything is begun, with what to do."""
    generate(place, DEFAULT, KeyKind.P256, now())
    install(place, await signed(place, root), now(), root.fingerprint)
    generations = Generations(place.authority, DOMAIN, None)
    generations.settle(generations.first(now()))
    with pytest.raises(BadInput, match="of another root") as caught:
        generations.check_root(1)
    assert "rotate --root" in caught.value.hint
    assert waits(place.authority)


@openssl_needed
async def test_one_waits_at_a_time(place: Place, root: OfflineRoot):
    """A second one would take the first one's place, and its key."""
    generate(place, DEFAULT, KeyKind.P256, now())
    install(place, await signed(place, root), now(), root.fingerprint)
    again = await signed(place, root)
    with pytest.raises(BadInput, match="waits for a rotation already"):
        install(place, again, now(), root.fingerprint)
    assert place.requested.exists()


@openssl_needed
async def test_an_authority_of_another_trust_domain_is_not_followed(place: Place, root: OfflineRoot):
    """Whoever mixes up two data directories is told at once, not by a server that does not start."""
    generate(place, DEFAULT, KeyKind.P256, now())
    other = Place(data=place.data, trust_domain=TrustDomain("example.com"))
    with pytest.raises(BadInput, match=r"is of example\.org"):
        install(other, await signed(other, root), now(), root.fingerprint)


# --- CAs between


async def below(place: Place, policy: OfflineRoot, root: OfflineRoot, *, crl: bool = True) -> Signed:
    """Have the issuing CA signed by a CA that the root signed."""
    chain = policy.sign(await requested(place)).read_bytes() + root.pem.read_bytes()
    return read_signed(chain, root.crl().read_bytes() + (policy.crl().read_bytes() if crl else b""))


@openssl_needed
async def test_a_chain_with_a_ca_between_is_installed_and_verified(place: Place, root: OfflineRoot, tmp_path: Path):
    """Peers send both; the bundle is the root alone; each CA has its list."""
    back = await below(place, root.below(tmp_path / "policy"), root)
    assert install(place, back, now(), root.fingerprint) is False
    made = opened(place)
    assert pem_certificates(made.chain_pem) == (back.issuing_der, *back.between)
    assert pem_certificates(made.bundle_pem) == (back.root_der,)
    await openssl_verifies(place, tmp_path, "payments.internal")
    assert [node.kind for node in graph(place.authority)] == ["root", "between", "issuing"]
    generations = Generations(place.authority, DOMAIN, None)
    generations.settle(generations.first(now()))
    assert generations.known_cas == (back.root_der, *back.between, back.issuing_der)
    issuers = [x509.load_pem_x509_crl(text.encode()).issuer.rfc4514_string() for text in generations.root_crls()]
    assert issuers == [facts(der).subject for der in (back.root_der, *back.between)]


@openssl_needed
async def test_two_between_are_put_in_their_order(place: Place, root: OfflineRoot, tmp_path: Path):
    """Whatever the order in the file."""
    upper = root.below(tmp_path / "upper", length=2)
    lower = upper.below(tmp_path / "lower", name="Example Lower")
    lower.sign(await requested(place))
    held = (upper.pem, root.pem, lower.directory / "issuing.pem", lower.pem)
    lists = b"".join(one.crl().read_bytes() for one in (upper, root, lower))
    back = read_signed(b"".join(one.read_bytes() for one in held), lists)
    assert [facts(der).subject for der in back.between] == ["CN=Example Lower", "CN=Example Policy"]
    install(place, back, now(), root.fingerprint)
    await openssl_verifies(place, tmp_path, "payments.internal")


@openssl_needed
async def test_without_the_list_of_a_ca_between_nothing_is_installed(place: Place, root: OfflineRoot, tmp_path: Path):
    """TLS with lists wants one of each: every client would be refused at the first revocation. It is said whose is missing."""
    back = await below(place, root.below(tmp_path / "policy"), root, crl=False)
    with pytest.raises(BadInput, match=r"CN=Example Policy is missing"):
        install(place, back, now(), root.fingerprint)
    assert not place.authority.exists()


@openssl_needed
@pytest.mark.parametrize(
    ("bend", "finding"),
    [
        ({"length": 0}, "between_1_path_length"),
        ({"more": "nameConstraints = critical,permitted;DNS:other.example"}, "name_constraints"),
        ({"more": "nameConstraints = critical,permitted;URI:example.com"}, "between_1_name_constraints"),
        ({"more": "extendedKeyUsage = serverAuth"}, "between_1_extended_key_usage"),
        ({"more": "subjectAltName = URI:spiffe://example.com"}, "between_1_uri"),
        ({"days": 200}, "window"),
    ],
    ids=str,
)
async def test_each_fault_of_a_ca_between_is_found(
    place: Place, root: OfflineRoot, tmp_path: Path, bend: dict[str, Any], finding: str
):
    """By its own name; nothing is installed."""
    back = await below(place, root.below(tmp_path / "policy", **bend), root)
    with pytest.raises(Refused) as caught:
        install(place, back, now(), root.fingerprint)
    assert finding in caught.value.refusal.evidence
    assert not place.authority.exists()


@openssl_needed
async def test_the_limits_of_a_ca_between_bind_what_is_issued(place: Place, root: OfflineRoot, tmp_path: Path):
    """As strictly as its own: what openssl would refuse is not signed."""
    limits = "nameConstraints = critical,permitted;DNS:internal,permitted;URI:example.org"
    policy = root.below(tmp_path / "policy", more=limits)
    csr = await requested(place, Wanted(constraints=permitted(DOMAIN, ["internal"])))
    chain = policy.sign(csr).read_bytes() + root.pem.read_bytes()
    back = read_signed(chain, root.crl().read_bytes() + policy.crl().read_bytes())
    install(place, back, now(), root.fingerprint)
    assert len(opened(place).issuer_facts.constraints) == 2
    await openssl_verifies(place, tmp_path, "payments.internal")


@openssl_needed
async def test_a_ca_between_without_the_one_above_it_is_no_chain(place: Place, root: OfflineRoot, tmp_path: Path):
    """All certificates up to the root are wanted."""
    policy = root.below(tmp_path / "policy")
    policy.sign(await requested(place))
    text = (policy.directory / "issuing.pem").read_bytes() + root.pem.read_bytes()
    with pytest.raises(BadInput, match="no chain"):
        read_signed(text, root.crl().read_bytes())


@openssl_needed
async def test_a_spoilt_chain_does_not_open(place: Place, root: OfflineRoot, tmp_path: Path):
    """A CA between that signed nothing here, or a list of another: the file is named at the start."""
    install(place, await below(place, root.below(tmp_path / "policy"), root), now(), root.fingerprint)
    good = (place.authority / "between.pem").read_text()
    (place.authority / "between.pem").write_text(root.below(tmp_path / "other").pem.read_text())
    with pytest.raises(BadInput, match="not signed by"):
        opened(place)
    (place.authority / "between.pem").write_text(good)
    (place.authority / "between.crl.pem").write_text((place.authority / "root.crl.pem").read_text())
    with pytest.raises(BadInput, match="not signed by") as caught:
        opened(place)
    assert caught.value.file.endswith("between.crl.pem")
