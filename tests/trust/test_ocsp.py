from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.base.windows import whole_second
from handfast.trust import der
from handfast.trust.facts import hex_serial
from handfast.trust.ocsp import (
    MAX_CERTIFICATES,
    MAX_REQUEST_BYTES,
    CertificateStatus,
    Good,
    OcspError,
    OcspRequest,
    RevokedAt,
    Unknown,
    assemble_response,
    failure,
    issuer_ids,
    parse_request,
    plan_response,
    tbs_response,
)
from handfast.trust.ocsp import question as ours
from handfast.trust.revocation import RevocationReason
from tests.support.mutations import mutants
from tests.trust.material import NOW, ca_der, issuer, issuer_key

NONCE = "1.3.6.1.5.5.7.48.1.2"
LATER = NOW + timedelta(days=7)


@cache
def ca() -> x509.Certificate:
    return x509.load_der_x509_certificate(ca_der())


def responder() -> bytes:
    return ca().public_bytes(Encoding.DER)


def question(serial: int = 0xABC, nonce: bytes = b"", algorithm: hashes.HashAlgorithm | None = None) -> bytes:
    """Make a request with the builder of `cryptography`."""
    key = hashes.Hash(algorithm or hashes.SHA256())
    key.update(bits())
    name = hashes.Hash(algorithm or hashes.SHA256())
    name.update(ca().subject.public_bytes())
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        name.finalize(), key.finalize(), serial, algorithm or hashes.SHA256()
    )
    if nonce:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(Encoding.DER)


def bits() -> bytes:
    """Give the key's octets, without tag, length and the count of unused bits."""
    return der.children(issuer().public_key_der)[1][3:]


def several(*questions: bytes, extensions: bytes = b"", version: bytes = b"", name: bytes = b"") -> bytes:
    """Put the requests of several questions into one."""
    listed = [one for data in questions for one in der.children(der.children(der.children(data)[0])[-1])]
    return der.sequence(der.sequence(version, name, der.sequence(*listed), extensions))


def extensions(*found: bytes) -> bytes:
    return der.tlv(0xA2, der.sequence(*found))


def answer(asked: OcspRequest, *statuses: CertificateStatus, now: datetime = NOW) -> ocsp.OCSPResponse:
    """Plan, write, sign with the issuer's own key, and read back with `cryptography`."""
    tbs = tbs_response(plan_response(asked, statuses, responder=issuer().key_id, now=now, until=LATER))
    signature = issuer_key().sign(tbs, ec.ECDSA(hashes.SHA256()))
    return ocsp.load_der_ocsp_response(assemble_response(tbs, issuer().algorithm.identifier, signature, responder()))


# Requests


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256()])
def test_an_issuer_is_known_by_both_hashes(algorithm: hashes.HashAlgorithm):
    """Whichever a client takes, it is the same issuer, and the serial is as records have it."""
    (asked,) = parse_request(question(0xABCDEF, algorithm=algorithm)).certificates
    assert asked.issuer in issuer_ids(issuer())
    assert asked.serial == "abcdef"


@given(st.integers(1, 2**159 - 1))
def test_our_own_question_is_the_one_that_the_library_writes(serial: int):
    """By SHA-1 and without a nonce: the certificate's id is the same, octet by octet."""
    asked = ours(issuer(), hex_serial(serial))
    assert asked == parse_request(question(serial, algorithm=hashes.SHA1()))


def test_an_issuer_of_another_hash_is_nobody_we_know():
    """SHA-512 can be read, and names none of ours."""
    (asked,) = parse_request(question(algorithm=hashes.SHA512())).certificates
    assert asked.issuer not in issuer_ids(issuer())


@given(st.integers(0, 2**159 - 1), st.binary(min_size=1, max_size=32))
def test_what_the_library_writes_is_read(serial: int, nonce: bytes):
    """Serial and nonce come out as they went in."""
    asked = parse_request(question(serial or 1, nonce))
    assert int(asked.certificates[0].serial, 16) == (serial or 1)
    assert asked.nonce == nonce


def test_ten_certificates_can_be_asked_for_and_not_eleven():
    """More work for one signature than that is refused, and so is none."""
    questions = [question(serial) for serial in range(1, MAX_CERTIFICATES + 2)]
    assert [one.serial for one in parse_request(several(*questions[:-1])).certificates] == [
        f"{serial:02x}" for serial in range(1, MAX_CERTIFICATES + 1)
    ]
    for wrong in (several(*questions), several()):
        with pytest.raises(BadInput, match="1 to 10"):
            parse_request(wrong)


def test_a_request_that_is_too_large_is_not_even_looked_at():
    """One byte over 4 KiB."""
    assert parse_request(several(question(), name=der.tlv(0xA1, der.octet_string(bytes(3900)))))
    with pytest.raises(BadInput, match="larger"):
        parse_request(bytes(MAX_REQUEST_BYTES + 1))


def test_who_asks_and_a_signature_do_not_matter():
    """Everybody may ask; what would say more is passed over."""
    (inner,) = der.children(several(question(), name=der.tlv(0xA1, der.tlv(0xA4, der.sequence()))))
    signed = der.sequence(inner, der.tlv(0xA0, der.sequence()))
    assert parse_request(signed).certificates == parse_request(question()).certificates


def nonce_extension(value: bytes, *, critical: bool = False) -> bytes:
    return der.extension(NONCE, der.octet_string(value), critical=critical)


@pytest.mark.parametrize(("size", "given_back"), [(1, 1), (32, 32), (33, 0), (128, 0)])
def test_a_nonce_is_given_back_up_to_32_octets(size: int, given_back: int):
    """RFC 9654 section 2.1: a longer one may be passed over."""
    asked = parse_request(several(question(), extensions=extensions(nonce_extension(bytes(size)))))
    assert len(asked.nonce) == given_back


def test_a_critical_nonce_is_known():
    """Critical or not, it is given back."""
    asked = parse_request(several(question(), extensions=extensions(nonce_extension(b"n", critical=True))))
    assert asked.nonce == b"n"


OTHER, NULL = der.extension("1.2.3", b"\x05\x00"), b"\x05\x00"


def asking(algorithm: bytes | None = None, serial: bytes = b"\x02\x01\x7b") -> bytes:
    """Ask for one certificate, whose id is as it should be unless told otherwise."""
    hashed = der.sequence(der.oid("1.3.14.3.2.26"), NULL) if algorithm is None else algorithm
    asked = der.sequence(hashed, der.octet_string(bytes(20)), der.octet_string(bytes(20)), serial)
    return der.sequence(der.sequence(der.sequence(der.sequence(asked))))


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"\x30\x00",
        several(question()) + b"\0",
        several(question(), version=der.tlv(0xA0, der.integer(1))),
        several(question(), extensions=extensions(nonce_extension(b""))),
        several(question(), extensions=extensions(nonce_extension(bytes(129)))),
        several(question(), extensions=extensions(nonce_extension(b"a"), nonce_extension(b"b"))),
        several(question(), extensions=extensions(der.extension(NONCE, b"raw"))),
        several(question(), extensions=extensions(der.extension(NONCE, der.octet_string(b"a") * 2))),
        several(question(), extensions=extensions(der.extension("1.2.3", b"\x05\x00", critical=True))),
        several(question(), extensions=extensions(OTHER, OTHER)),
        several(question(), extensions=der.tlv(0xA2, der.sequence(OTHER) * 2)),
        several(question(), extensions=extensions(der.sequence(der.oid("1.2.3"), b"\x01\x01\x00", der.octet_string(b"")))),
        several(question()).replace(der.integer(0xABC), b"\x02\x02\x8a\xbc"),
        asking(serial=b"\x02\x02\x00\x7b"),
        asking(serial=der.integer(1 << 168)),
        asking(serial=b"\x02\x00"),
        asking(serial=der.octet_string(b"\x7b")),
        asking(der.sequence()),
        asking(der.sequence(der.octet_string(b"\x2b"))),
        asking(der.sequence(der.oid("1.3.14.3.2.26"), der.octet_string(b""))),
        asking(der.sequence(der.oid("1.3.14.3.2.26"), NULL, NULL)),
        asking(der.tlv(0x31, der.oid("1.3.14.3.2.26"))),
        several(question(), extensions=extensions(der.sequence(der.oid(NONCE), b"\x01\x01\x00", der.octet_string(der.octet_string(b"n"))))),
        several(question(), version=der.tlv(0xA0, der.integer(0)) * 2),
        several(question(), version=der.tlv(0xA1, b""), name=der.tlv(0xA0, der.integer(0))),
        several(question(), extensions=der.tlv(0xA3, b"")),
    ],
    ids=["nothing", "empty", "more after it", "version 2", "nonce of none", "nonce of 129", "two nonces", "raw nonce", "two in a nonce",
         "critical", "twice", "two sequences", "false written", "negative serial", "long serial", "serial of 22", "serial of none",
         "no number", "no hash", "not an oid", "odd parameters", "two parameters", "a set", "false nonce", "two versions", "out of order", "unknown"],
)  # fmt: skip
def test_what_is_no_request_is_bad_input(wrong: bytes):
    """Garbage, another version, odd DER, what is critical and unknown, serials that no certificate has."""
    with pytest.raises(BadInput):
        parse_request(wrong)


def test_a_hash_may_do_without_parameters_and_a_serial_has_up_to_20_octets():
    """RFC 5754 section 2, and RFC 5280 section 4.1.2.2: what stands beside what is refused."""
    for algorithm in (None, der.sequence(der.oid("1.3.14.3.2.26"))):
        assert parse_request(asking(algorithm)).certificates[0].serial == "7b"
    assert parse_request(asking(serial=der.integer((1 << 160) - 1))).certificates[0].serial == "ff" * 20


def test_a_critical_extension_of_one_certificate_is_refused():
    """RFC 6960 section 4.4: whoever says critical wants it understood."""
    (one,) = der.children(der.children(der.children(question())[0])[-1])
    (asked,) = der.children(one)
    for critical in (True, False):
        more = der.tlv(0xA0, der.sequence(der.extension("1.2.3", b"", critical=critical)))
        whole = der.sequence(der.sequence(der.sequence(der.sequence(asked, more))))
        if critical:
            with pytest.raises(BadInput, match="critical"):
                parse_request(whole)
        else:
            assert parse_request(whole).certificates[0].der == asked


@given(st.binary(max_size=200))
def test_arbitrary_octets_are_read_or_bad_input(data: bytes):
    """Nothing else is ever raised."""
    _read(data)


@given(mutants([several(question(), question(7), extensions=extensions(nonce_extension(b"nonce"), OTHER))]))
def test_changed_requests_are_read_or_bad_input(changed: bytes):
    """Whatever is flipped, inserted or cut; and what can be read can be answered."""
    asked = _read(changed)
    if asked:
        statuses = [Good()] * len(asked.certificates)
        plan = plan_response(asked, statuses, responder=issuer().key_id, now=NOW, until=LATER)
        der.children(tbs_response(plan))


def _read(data: bytes) -> OcspRequest | None:
    try:
        asked = parse_request(data)
    except BadInput:
        return None
    assert 1 <= len(asked.certificates) <= MAX_CERTIFICATES
    return asked


# Responses


def test_good_is_said():
    """By the key's hash, with the certificate's id as it was asked, for an hour."""
    asked = parse_request(question())
    read = answer(asked, Good())
    assert read.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL
    assert (read.certificate_status, read.serial_number) == (ocsp.OCSPCertStatus.GOOD, 0xABC)
    assert (read.responder_key_hash, read.responder_name) == (issuer().key_id, None)
    assert read.produced_at_utc == whole_second(NOW)
    assert read.this_update_utc == whole_second(NOW) - timedelta(seconds=60)
    assert read.next_update_utc == whole_second(NOW) + timedelta(hours=1)
    assert [one.public_bytes(Encoding.DER) for one in read.certificates] == [responder()]
    issuer_key().public_key().verify(read.signature, read.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))
    assert der.children(question())[0].find(asked.certificates[0].der) > 0


@pytest.mark.parametrize("reason", RevocationReason)
def test_revoked_is_said_with_time_and_reason(reason: RevocationReason):
    """The reason is left out where it is none, as in a list."""
    read = answer(parse_request(question()), RevokedAt(NOW, reason))
    assert read.certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert read.revocation_time_utc == whole_second(NOW)
    said = read.revocation_reason
    assert (said.value if said else "unspecified") == reason.value


def test_unknown_is_said():
    """It is neither good nor revoked."""
    assert answer(parse_request(question()), Unknown()).certificate_status is ocsp.OCSPCertStatus.UNKNOWN


@given(
    st.lists(st.sampled_from([Good(), Unknown(), RevokedAt(NOW, RevocationReason.SUPERSEDED)]), min_size=1, max_size=10)
)
def test_each_certificate_gets_its_own_status(statuses: list[CertificateStatus]):
    """In the order in which they were asked for."""
    asked = parse_request(several(*(question(serial) for serial in range(1, len(statuses) + 1))))
    read = list(answer(asked, *statuses).responses)
    wanted = {Good: "GOOD", Unknown: "UNKNOWN", RevokedAt: "REVOKED"}
    assert [(one.serial_number, one.certificate_status.name) for one in read] == [
        (serial, wanted[type(status)]) for serial, status in enumerate(statuses, 1)
    ]


@given(st.binary(min_size=1, max_size=32))
def test_a_nonce_comes_back(nonce: bytes):
    """The same octets."""
    read = answer(parse_request(question(nonce=nonce)), Good())
    assert read.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == nonce


def test_without_a_nonce_there_is_none():
    """And no other extension."""
    assert len(answer(parse_request(question()), Good()).extensions) == 0


def test_an_answer_ends_before_who_signed_it_does():
    """Nothing is said for longer than the responder's certificate counts; at its end, nothing at all."""
    asked = parse_request(question())

    def window(until: datetime) -> datetime:
        return plan_response(asked, [Good()], responder=b"", now=NOW, until=until).window.not_after

    assert window(NOW + timedelta(minutes=5)) == whole_second(NOW) + timedelta(minutes=5)
    with pytest.raises(BadInput):
        window(NOW - timedelta(minutes=2))


def test_a_status_is_lacking_for_nobody():
    """As many statuses as certificates."""
    with pytest.raises(ValueError, match="shorter"):
        plan_response(parse_request(question()), [], responder=b"", now=NOW, until=LATER)


@pytest.mark.parametrize("error", OcspError)
def test_a_failure_says_nothing_but_itself(error: OcspError):
    """RFC 6960 section 4.2.1."""
    read = ocsp.load_der_ocsp_response(failure(error))
    assert read.response_status.name == error.name
