from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from handfast.base.refusal import BadInput, HandfastError, Unavailable
from handfast.base.windows import whole_second
from handfast.io.answers import ANEW, Answer
from handfast.io.records import CertificateState
from handfast.io.responder import RESPONDER_TTL
from handfast.io.sealed import Passphrase, is_sealed
from handfast.trust.ocsp import RESPONSE_LIFE, OcspRequest, parse_request
from tests.io.status_parts import Parts, parts
from tests.support.ledger import FaultySigner, Seams


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Parts]:
    async with parts(tmp_path) as made:
        yield made


def asking(here: Parts, serial: str, nonce: bytes = b"", algorithm: hashes.HashAlgorithm | None = None) -> OcspRequest:
    issuing = x509.load_der_x509_certificate(here.authority.issuing_der)
    hashed = algorithm or hashes.SHA1()

    def digest(data: bytes) -> bytes:
        whole = hashes.Hash(hashed)
        whole.update(data)
        return whole.finalize()

    key = issuing.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    bits = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        digest(issuing.subject.public_bytes()), digest(bits), int(serial, 16), hashed
    )
    if nonce:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return parse_request(builder.build().public_bytes(Encoding.DER))


def read(answer: Answer) -> ocsp.OCSPResponse:
    return ocsp.load_der_ocsp_response(answer.body)


async def test_an_answer_is_signed_by_a_delegate_of_the_issuer(here: Parts):
    """Its certificate is short-lived, for that purpose alone, exempt from being asked for, and issued as all others are."""
    responder, issued = here.responder(), await here.issue()
    response = read(await responder.answer(asking(here, issued.serial)))
    (delegate,) = response.certificates
    delegate.verify_directly_issued_by(x509.load_der_x509_certificate(here.authority.issuing_der))
    key = delegate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))
    usage = delegate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.OCSP_SIGNING]
    assert delegate.extensions.get_extension_for_class(x509.OCSPNoCheck)
    assert delegate.not_valid_after_utc == whole_second(here.clock.now() + RESPONDER_TTL)
    record = await here.ledger.by_serial(f"{delegate.serial_number:040x}")
    assert record is not None
    assert (record.name, record.state) == ("handfast/ocsp", CertificateState.ISSUED)


async def test_what_is_said_is_what_the_ledger_says(here: Parts):
    """Good, revoked and unknown; a certificate that was never finished, or of another issuer, is unknown."""
    responder, issued, gone, half, other = here.responder(), *[await here.issue() for _ in range(4)]
    await here.revoke(gone.serial, "keyCompromise")
    for serial, column, value in ((half.serial, "state", "intended"), (other.serial, "issuer", "another")):
        here.database._writer.execute(f"update certificates set {column} = ? where serial = ?", (value, serial))
    said = {serial: read(await responder.answer(asking(here, serial))) for serial in
            (issued.serial, gone.serial, half.serial, other.serial, "40" * 20)}  # fmt: skip
    assert [one.certificate_status.name for one in said.values()] == [
        "GOOD",
        "REVOKED",
        "UNKNOWN",
        "UNKNOWN",
        "UNKNOWN",
    ]
    assert said[gone.serial].revocation_time_utc == whole_second(here.clock.now())
    assert said[gone.serial].revocation_reason is x509.ReasonFlags.key_compromise


async def test_another_issuers_certificates_are_not_answered_for(here: Parts, tmp_path: Path):
    """By both hashes."""
    responder = here.responder()
    async with parts(tmp_path / "other") as elsewhere:
        for algorithm in (hashes.SHA1(), hashes.SHA256()):
            assert responder.answers_for(asking(here, "40" * 20, algorithm=algorithm))
            assert not responder.answers_for(asking(elsewhere, "40" * 20, algorithm=algorithm))


async def test_an_answer_is_given_again_until_it_is_half_as_old_as_it_may_be(here: Parts):
    """A client always gets one that counts for half an hour."""
    responder, issued = here.responder(), await here.issue()
    first = await responder.answer(asking(here, issued.serial))
    here.clock.set(here.clock.now() + ANEW - timedelta(seconds=1))
    assert await responder.answer(asking(here, issued.serial)) is first
    here.clock.set(here.clock.now() + timedelta(seconds=1))
    second = await responder.answer(asking(here, issued.serial))
    assert second.body != first.body
    assert second.window.not_after == whole_second(here.clock.now()) + RESPONSE_LIFE


async def test_a_nonce_makes_an_answer_of_its_own(here: Parts):
    """It is not kept, and none that was kept is given for it."""
    responder, issued = here.responder(), await here.issue()
    kept = await responder.answer(asking(here, issued.serial))
    fresh = await responder.answer(asking(here, issued.serial, b"nonce"))
    assert read(fresh).extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == b"nonce"
    assert (kept.kept, fresh.kept) == (True, False)
    assert await responder.answer(asking(here, issued.serial)) is kept


async def test_a_revocation_is_said_at_once(here: Parts):
    """No answer from before it is given again."""
    responder, issued = here.responder(), await here.issue()
    assert read(await responder.answer(asking(here, issued.serial))).certificate_status is ocsp.OCSPCertStatus.GOOD
    await here.revoke(issued.serial)
    assert read(await responder.answer(asking(here, issued.serial))).certificate_status is ocsp.OCSPCertStatus.REVOKED


async def test_an_answer_from_before_a_revocation_is_not_kept(here: Parts):
    """Where the certificate is revoked while the answer is signed."""
    responder, issued = here.responder(), await here.issue()
    await responder.ensure()
    assert responder._held
    signer = responder._held.signer

    class Slow:
        public_key_der = signer.public_key_der

        async def sign(self, message: bytes) -> bytes:
            if not (await here.table.standing([issued.serial]))[issued.serial].revoked_at:
                await here.revoke(issued.serial)
            return await signer.sign(message)

    responder._held = replace(responder._held, signer=Slow())
    assert read(await responder.answer(asking(here, issued.serial))).certificate_status is ocsp.OCSPCertStatus.GOOD
    assert read(await responder.answer(asking(here, issued.serial))).certificate_status is ocsp.OCSPCertStatus.REVOKED


async def test_serials_that_nobody_issued_push_nothing_out(here: Parts):
    """A stranger can make up as many as they like; what is kept has a bound."""
    responder = here.responder(most=3)
    issued = [await here.issue() for _ in range(5)]
    first = await responder.answer(asking(here, issued[0].serial))
    for made_up in range(20):
        await responder.answer(asking(here, f"{made_up + 1:040x}"))
    assert await responder.answer(asking(here, issued[0].serial)) is first
    for one in issued[1:]:
        await responder.answer(asking(here, one.serial))
    assert len(responder._answers._kept) == 3
    assert await responder.answer(asking(here, issued[0].serial)) is not first


async def test_the_key_outlives_a_restart(here: Parts):
    """The same certificate signs on; its file is for its owner alone."""
    responder, issued = here.responder(), await here.issue()
    first = read(await responder.answer(asking(here, issued.serial)))
    again = read(await here.responder().answer(asking(here, issued.serial)))
    assert first.certificates == again.certificates
    assert responder.file.stat().st_mode & 0o777 == 0o600


async def test_the_key_is_sealed_where_the_server_has_a_passphrase(here: Parts):
    """And is not read with another one."""
    secret = Passphrase(b"correct horse battery staple")
    await here.responder(secret).ensure()
    assert is_sealed((here.directory / "ocsp.pem").read_bytes())
    await here.responder(secret).ensure()
    for wrong in (None, Passphrase(b"incorrect horse battery")):
        with pytest.raises(BadInput, match=r"ocsp\.pem"):
            await here.responder(wrong).ensure()


async def test_the_key_is_replaced_in_time(here: Parts):
    """At two thirds of its certificate's life, by another key."""
    responder, issued = here.responder(), await here.issue(ttl=timedelta(days=30))
    first = read(await responder.answer(asking(here, issued.serial)))
    assert responder.next_look() < here.clock.now() + RESPONDER_TTL * 0.7
    here.clock.set(responder.next_look())
    await responder.ensure()
    second = read(await responder.answer(asking(here, issued.serial)))
    assert first.responder_key_hash != second.responder_key_hash
    assert second.certificates[0].not_valid_after_utc == whole_second(here.clock.now() + RESPONDER_TTL)


async def test_a_renewal_that_fails_leaves_the_old_key_until_its_end(here: Parts):
    """And an answer never outlives the certificate that signed it."""
    responder, issued = here.responder(), await here.issue(ttl=timedelta(days=30))
    await responder.ensure()
    broken = FaultySigner(here.authority.signer, Seams(), spoil_signature=lambda _: b"broken")
    responder.issuance._authority = replace(here.authority, signer=broken)
    end = here.clock.now() + RESPONDER_TTL
    here.clock.set(end - timedelta(minutes=10))
    assert (await responder.answer(asking(here, issued.serial))).window.not_after == whole_second(end)
    here.clock.set(end)
    with pytest.raises(HandfastError):
        await responder.answer(asking(here, issued.serial))


async def test_a_revoked_responder_is_replaced_at_once(here: Parts):
    """Clients do not ask for its status, so it must not sign any more."""
    responder, issued = here.responder(), await here.issue()
    first = read(await responder.answer(asking(here, issued.serial))).certificates[0]
    await here.revoke(f"{first.serial_number:040x}")
    second = read(await responder.answer(asking(here, issued.serial))).certificates[0]
    assert first.serial_number != second.serial_number


async def test_many_who_ask_at_once_make_one_key(here: Parts):
    """The first certificate is asked for once."""
    responder, issued = here.responder(), await here.issue()
    answers = await asyncio.gather(*(responder.answer(asking(here, issued.serial, bytes([n + 1]))) for n in range(9)))
    assert len({read(one).responder_key_hash for one in answers}) == 1


@pytest.mark.parametrize("spoil", [lambda _: b"", lambda text: text[:-200], lambda text: text.replace(b"M", b"N", 3)])
async def test_a_file_that_is_not_ours_is_said(here: Parts, spoil: Callable[[bytes], bytes]):
    """It is named, and nothing is signed with what was in it."""
    await here.responder().ensure()
    file = here.directory / "ocsp.pem"
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(BadInput, match=r"ocsp\.pem"):
        await here.responder().ensure()


async def test_a_ledger_that_does_not_answer_is_unavailable(here: Parts):
    """Nothing is said of what nobody could look up."""
    responder, issued = here.responder(), await here.issue()
    await responder.ensure()
    await here.database.close()
    with pytest.raises(Unavailable):
        await responder.answer(asking(here, issued.serial))
