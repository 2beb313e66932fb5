from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.base.windows import to_unix
from handfast.trust import der
from handfast.trust.facts import fingerprint
from handfast.trust.foreign import judge, read_ca
from handfast.trust.foreign_ocsp import (
    MAX_ANSWER_BYTES,
    MOST_CERTIFICATES,
    SOONEST_S,
    WITHOUT_END_S,
    Question,
    issuer_of,
    judge_ocsp,
    request,
)
from handfast.trust.standing import LATEST_S, Standing, Word
from tests.support.ocsp import GOOD, REVOKED, UNKNOWN, Saying, answer, delegate, failure, nonce_of
from tests.support.partners import authority
from tests.support.pki import Issued, Pki

ROOT = authority("Acme Root")
ISSUING = authority("Acme Issuing", ROOT)
ACME = Pki("Acme", issuing=ISSUING, root=ROOT.cert)
LEAF, OTHER = ACME.leaf("alice"), ACME.leaf("bob")
CAS = judge([ROOT.cert_der, ISSUING.cert_der])
NONCE = bytes(range(32))
ASKED = Question(LEAF.cert.serial_number, read_ca(ISSUING.cert_der), NONCE)
NOW = datetime.now(UTC)
RESPONDER = delegate(ISSUING)


def outcome(said: Saying, leaf: Issued = LEAF, by: Issued = ISSUING) -> Standing | Refusal:
    return judge_ocsp(answer(leaf.cert, by, said), ASKED, datetime.now(UTC))


def refused(raw: bytes) -> str:
    judged = judge_ocsp(raw, ASKED, NOW)
    assert isinstance(judged, Refusal)
    assert judged.reason is Reason.REVOCATION_OCSP_UNUSABLE
    return judged.evidence["answer"]


@pytest.mark.parametrize(("said", "word"), [(GOOD, Word.GOOD), (REVOKED, Word.REVOKED), (UNKNOWN, Word.UNKNOWN)])
def test_an_answer_is_read(said: ocsp.OCSPCertStatus, word: Word):
    """By whom the certificate was issued, or by whom that certified; with our nonce, or without one."""
    for saying in (
        Saying(word=said),
        Saying(word=said, nonce=NONCE),
        Saying(word=said, algorithm=hashes.SHA256()),
        Saying(word=said, signer=RESPONDER, sent=(RESPONDER,)),
    ):
        read = outcome(saying)
        assert isinstance(read, Standing)
        assert read.word is word
        assert read.since < to_unix(datetime.now(UTC)) < read.renew <= read.until


def test_it_is_asked_anew_after_half_of_its_time():
    """But within a minute, and not at once. One without an end counts for minutes, where it was made for us."""
    short, long = outcome(Saying(until=timedelta(seconds=30))), outcome(Saying(until=timedelta(days=9)))
    scarce, open_ended = outcome(Saying(until=timedelta(seconds=4))), outcome(Saying(until=None, nonce=NONCE))
    now = to_unix(datetime.now(UTC))
    assert isinstance(short, Standing)
    assert isinstance(long, Standing)
    assert isinstance(scarce, Standing)
    assert isinstance(open_ended, Standing)
    assert 10 < short.renew - now < 20
    for seconds, due in ((LATEST_S, long.renew), (SOONEST_S, scarce.renew), (WITHOUT_END_S, open_ended.until)):
        assert seconds - 2 <= due - now <= seconds


STRANGER = authority("Acme Issuing")
FILLING = tuple(delegate(ISSUING) for _ in range(MOST_CERTIFICATES))
CRITICAL = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\5\0")
UNUSABLE: dict[str, tuple[str, bytes]] = {
    "a stranger with the issuer's name": ("issuer signed", answer(LEAF.cert, ISSUING, Saying(signer=STRANGER))),
    "a stranger who sends himself": (
        "issuer signed",
        answer(LEAF.cert, ISSUING, Saying(signer=(one := delegate(STRANGER)), sent=(one,))),
    ),
    "the root of the chain": (
        "issuer signed",
        answer(LEAF.cert, ISSUING, Saying(signer=ROOT, sent=(ROOT,))),
    ),
    "a client of the CA": (
        "issuer signed",
        answer(LEAF.cert, ISSUING, Saying(signer=(two := delegate(ISSUING, purpose=False)), sent=(two,))),
    ),
    "a delegate that has ended": (
        "issuer signed",
        answer(LEAF.cert, ISSUING, Saying(signer=(three := delegate(ISSUING, ends=timedelta(hours=-1))), sent=(three,))),
    ),
    "a delegate that does not show itself": ("issuer signed", answer(LEAF.cert, ISSUING, Saying(signer=RESPONDER))),
    "a delegate behind too many": (
        "issuer signed",
        answer(LEAF.cert, ISSUING, Saying(signer=RESPONDER, sent=(*FILLING, RESPONDER))),
    ),
    "another serial": ("another certificate", answer(OTHER.cert, ISSUING, Saying())),
    "another hash": ("another certificate", answer(LEAF.cert, ISSUING, Saying(algorithm=hashes.SHA384()))),
    "another nonce": ("nonce", answer(LEAF.cert, ISSUING, Saying(nonce=b"x" * 32))),
    "what has ended": ("it ended", answer(LEAF.cert, ISSUING, Saying(since=timedelta(-2), until=timedelta(-1)))),
    "what has not begun": ("it counts from", answer(LEAF.cert, ISSUING, Saying(since=timedelta(hours=1), until=timedelta(1)))),
    "no end and no nonce": ("neither says", answer(LEAF.cert, ISSUING, Saying(until=None))),
    "something critical": ("critical", answer(LEAF.cert, ISSUING, Saying(extensions=((CRITICAL, True),)))),
    "no answer": ("cannot be read", b"\x30\x03\x02\x01\x01"),
    "nothing": ("cannot be read", b""),
    "too much": ("larger", b"\x30" * (MAX_ANSWER_BYTES + 1)),
    "more behind it": ("cannot be read", answer(LEAF.cert, ISSUING, Saying()) + b"\0"),
    "not asked of whom it knows": ("unauthorized", failure(ocsp.OCSPResponseStatus.UNAUTHORIZED)),
}  # fmt: skip


@pytest.mark.parametrize("what", UNUSABLE)
def test_an_answer_that_proves_nothing_is_refused(what: str):
    """Somebody else says it, or of somebody else, or of another time."""
    words, raw = UNUSABLE[what]
    assert words in refused(raw)


def test_no_hash_of_the_issuer_is_none_of_ours():
    """An answer that names its issuer by nothing, in an algorithm that is not known here, is about nobody."""
    raw = _naming(der.oid("2.16.840.1.101.3.4.2.3"), b"", b"")
    assert ocsp.load_der_ocsp_response(raw).issuer_key_hash == b""
    assert "another certificate" in refused(raw)


def _naming(algorithm: bytes, name: bytes, key: bytes) -> bytes:
    """Sign an answer with a CertID as it is given."""
    sound = ocsp.load_der_ocsp_response(answer(LEAF.cert, ISSUING, Saying()))
    responder, produced, responses, *_ = der.children(sound.tbs_response_bytes)
    (single,) = der.children(responses)
    (_, _, _, serial), *rest = der.children(der.children(single)[0]), *der.children(single)[1:]
    issuer = (der.sequence(algorithm), der.octet_string(name), der.octet_string(key))
    tbs = der.sequence(responder, produced, der.sequence(der.sequence(der.sequence(*issuer, serial), *rest)))
    signature = der.bit_string(_ec(ISSUING).sign(tbs, ec.ECDSA(hashes.SHA256())))
    basic = der.sequence(tbs, der.sequence(der.oid("1.2.840.10045.4.3.2")), signature)
    body = der.sequence(der.oid("1.3.6.1.5.5.7.48.1.1"), der.octet_string(basic))
    return der.sequence(b"\x0a\x01\x00", der.tlv(0xA0, body))


def test_an_issuer_of_the_same_name_is_another():
    """An answer by a CA of a partner about its own certificate does not count for one of another's, whatever the serial is."""
    namesake = Pki("Acme", issuing=STRANGER)
    leaf = namesake.leaf("alice")
    same = Question(leaf.cert.serial_number, ASKED.ca, NONCE)
    judged = judge_ocsp(answer(leaf.cert, STRANGER, Saying()), same, datetime.now(UTC))
    assert isinstance(judged, Refusal)
    assert "another certificate" in judged.evidence["answer"]


def test_a_responder_may_ask_for_patience():
    """That is no fault of its answer."""
    for status in (ocsp.OCSPResponseStatus.TRY_LATER, ocsp.OCSPResponseStatus.INTERNAL_ERROR):
        judged = judge_ocsp(failure(status), ASKED, NOW)
        assert isinstance(judged, Refusal)
        assert judged.reason is Reason.REVOCATION_OCSP_UNAVAILABLE


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()])
def test_delegates_have_the_keys_that_cas_have(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
    """RSA and Ed25519 beside the curves; not a weak one."""
    for weak in (False, True):
        if weak and isinstance(key, ed25519.Ed25519PrivateKey):
            continue
        own = rsa.generate_private_key(65537, 1024) if weak else key
        made = _certified(own)
        hashed = None if isinstance(own, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        saying = Saying(signer=Issued(made, own), sent=(Issued(made, own),), digest=hashed)  # type: ignore[arg-type]
        assert isinstance(outcome(saying), Refusal if weak else Standing)


def _certified(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> x509.Certificate:
    return (
        x509.CertificateBuilder(issuer_name=ISSUING.cert.subject, subject_name=RESPONDER.cert.subject)
        .public_key(key.public_key())
        .serial_number(5)
        .not_valid_before(NOW - timedelta(1))
        .not_valid_after(NOW + timedelta(1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), critical=False)
        .sign(_ec(ISSUING), hashes.SHA256())
    )


def _ec(of: Issued) -> ec.EllipticCurvePrivateKey:
    assert isinstance(of.key, ec.EllipticCurvePrivateKey)
    return of.key


def test_a_request_says_which_certificate(tmp_path: Path):
    """With our nonce; OpenSSL makes the same name of the issuer."""
    raw = request(ASKED)
    read = ocsp.load_der_ocsp_request(raw)
    assert read.serial_number == LEAF.cert.serial_number
    assert nonce_of(raw) == NONCE
    (tmp_path / "ca.pem").write_bytes(ISSUING.cert_pem)
    (tmp_path / "leaf.pem").write_bytes(LEAF.cert_pem)
    command = ["openssl", "ocsp", "-issuer", "ca.pem", "-cert", "leaf.pem", "-no_nonce", "-reqout", "asked.der"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=20)
    theirs = ocsp.load_der_ocsp_request((tmp_path / "asked.der").read_bytes())
    assert (read.issuer_name_hash, read.issuer_key_hash) == (theirs.issuer_name_hash, theirs.issuer_key_hash)


def test_only_a_leaf_of_the_authority_that_counts_has_an_issuer():
    """By its signature and not by what it says; and no questions are asked for one that has ended."""
    found = issuer_of(LEAF.cert_der, CAS, NOW)
    assert found
    assert found.fingerprint == fingerprint(ISSUING.cert_der)
    namesake = Pki("Acme", issuing=authority("Acme Issuing"), root=ACME.root)
    assert issuer_of(namesake.leaf("alice").cert_der, CAS, NOW) is None
    assert issuer_of(Pki("Other").leaf("alice").cert_der, CAS, NOW) is None
    assert issuer_of(ACME.expired().cert_der, CAS, NOW) is None
    with pytest.raises(BadInput):
        issuer_of(b"\x30\x00", CAS, NOW)


SOUND = answer(LEAF.cert, ISSUING, Saying(signer=RESPONDER, sent=(RESPONDER,), nonce=NONCE))
READ = judge_ocsp(SOUND, ASKED, NOW)


@given(st.integers(0, len(SOUND) - 1), st.integers(0, 255))
def test_a_damaged_answer_says_nothing_else(at: int, octet: int):
    """Whatever octet is another, it is a refusal or the same standing: what is not signed decides nothing."""
    outcome = judge_ocsp(SOUND[:at] + bytes([octet]) + SOUND[at + 1 :], ASKED, NOW)
    assert outcome == READ or isinstance(outcome, Refusal)


@given(st.binary(max_size=300))
def test_noise_is_refused(raw: bytes):
    """And raises nothing."""
    assert isinstance(judge_ocsp(raw, ASKED, NOW), Refusal)
