"""A root that is elsewhere, in the hands of plain openssl."""

from __future__ import annotations

import shutil
import stat
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refused
from handfast.base.spiffe import TrustDomain
from handfast.io.authorities import create_authority, open_authority
from handfast.io.authority_sources import Place
from handfast.io.ca_certificates import DEFAULT, Wanted
from handfast.io.ca_responder import CaResponder
from handfast.io.clock import SystemClock
from handfast.io.generations import Generations
from handfast.io.next_authority import waits
from handfast.io.signed_chains import RESPONDER_REQUEST, ask, install, read_signed
from handfast.io.signers import KeyKind
from handfast.io.token_uri import parse_token_uri
from handfast.trust import rotation
from handfast.trust.constraints import permitted
from handfast.trust.facts import facts, pem
from handfast.trust.ocsp import parse_request
from handfast.trust.rotation import Stage
from tests.io.authority_parts import (
    DOMAIN,
    PASSPHRASE,
    key_of,
    now,
    opened,
    openssl_needed,
    openssl_verifies,
    requested,
    signed,
)
from tests.support import tokens
from tests.support.offline_root import OfflineRoot, offline_root, openssl

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
async def test_a_root_that_will_not_do_is_refused_whatever_it_signed(place: Place, tmp_path: Path):
    """Everything below it hangs on its key."""
    weak = offline_root(tmp_path / "weak", key="RSA:1024")
    with pytest.raises(Refused) as caught:
        install(place, await signed(place, weak), now(), weak.fingerprint)
    assert caught.value.refusal.reason is Reason.AUTHORITY_UNFIT
    assert not place.authority.exists()


@openssl_needed
async def test_what_lies_where_the_first_authority_goes_is_not_touched(place: Place, root: OfflineRoot):
    """It may be what somebody saved of another one."""
    back = await signed(place, root)
    place.authority.mkdir(mode=0o700)
    (place.authority / "root-key.pem").write_text("a key")
    with pytest.raises(BadInput, match="an authority here already"):
        install(place, back, now(), root.fingerprint)
    assert [path.name for path in place.authority.iterdir()] == ["root-key.pem"]


@openssl_needed
async def test_an_issuing_ca_of_another_trust_domain_is_refused(place: Place, root: OfflineRoot):
    """Its identities would be another installation's."""
    back = await signed(place, root)
    other = Place(data=place.data, trust_domain=TrustDomain("example.com"))
    with pytest.raises(Refused) as caught:
        install(other, back, now(), root.fingerprint)
    assert "uri" in caught.value.refusal.evidence


@openssl_needed
async def test_a_list_that_does_not_count_for_as_long_as_the_issuing_ca_is_refused(place: Place, root: OfflineRoot):
    """Nobody here can renew it, and with one that is stale, or not valid yet, every client is refused."""
    chain = root.sign(await requested(place), days=300).read_bytes()
    for listed in (root.crl(days=30), root.crl(days=400, began=now() + timedelta(days=1))):
        with pytest.raises(BadInput, match="does not count from now until"):
            install(place, read_signed(chain, listed.read_bytes()), now(), root.fingerprint)


@openssl_needed
async def test_a_list_that_does_not_speak_of_all_is_refused(place: Place, root: OfflineRoot):
    """One of leaves alone (RFC 5280 section 5.2.5) would say of no CA that it is revoked."""
    chain, certificate = root.sign(await requested(place)), x509.load_pem_x509_certificate(root.pem.read_bytes())
    some = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)
    builder = x509.CertificateRevocationListBuilder(certificate.subject, now(), now() + timedelta(days=400))
    listed = builder.add_extension(some, critical=True).sign(key_of(root), hashes.SHA256()).public_bytes(Encoding.PEM)
    with pytest.raises(BadInput, match="not one of all certificates"):
        install(place, read_signed(chain.read_bytes(), listed), now(), root.fingerprint)


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
