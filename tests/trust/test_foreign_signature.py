from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from handfast.base.refusal import BadInput, Refusal
from handfast.trust import der
from handfast.trust.facts import pem_certificates
from handfast.trust.foreign import ForeignCa, judge
from handfast.trust.foreign_crl import judge_crl
from handfast.trust.foreign_ocsp import Question, judge_ocsp
from handfast.trust.foreign_signature import SALT_OCTETS, bounded, signed_answer
from handfast.trust.standing import Standing, Word

PSS = ("rsa_padding_mode:pss",)
ODD_MASK = (*PSS, "rsa_mgf1_md:sha1")
SERIAL = 0x1234
CONFIGURATION = """
[ca]
default_ca = here
[here]
database = index.txt
crlnumber = crlnumber
certificate = root.pem
private_key = root.key
default_md = sha256
"""


@dataclass(frozen=True)
class Partner:
    """A root with RSA that OpenSSL made and signs with, in a directory; one client of it is revoked."""

    directory: Path

    def run(self, *command: str) -> None:
        subprocess.run(["openssl", *command], cwd=self.directory, check=True, capture_output=True, timeout=30)

    @property
    def ca(self) -> ForeignCa:
        (ca,) = judge(pem_certificates((self.directory / "root.pem").read_text()))
        return ca

    def list(self, digest: str, *options: str) -> bytes:
        """Sign a revocation list, DER."""
        given = [part for option in options for part in ("-sigopt", option)]
        self.run("ca", "-config", "ca.cnf", "-gencrl", "-crldays", "3", "-out", "root.crl", "-md", digest, *given)
        listed = x509.load_pem_x509_crl((self.directory / "root.crl").read_bytes())
        return listed.public_bytes(Encoding.DER)

    def certify(self, *options: str, digest: str = "sha384", kind: str = "RSA-PSS") -> None:
        """Certify a responder with a key of its own."""
        bits = ("-pkeyopt", "rsa_keygen_bits:2048")
        self.run("genpkey", "-algorithm", kind, *bits, "-out", "responder.key")
        self.run("req", "-new", "-key", "responder.key", "-out", "responder.csr", "-subj", "/CN=Responder")
        given = [part for option in options for part in ("-sigopt", option)]
        self.run("x509", "-req", "-in", "responder.csr", "-CA", "root.pem", "-CAkey", "root.key", "-days", "9",
                 "-extfile", "responder.ext", f"-{digest}", "-out", "responder.pem", *given)  # fmt: skip

    def answer(self, digest: str, *options: str, by: str = "root") -> bytes:
        """Answer about the revoked client, DER."""
        given = [part for option in options for part in ("-rsigopt", option)]
        self.run("ocsp", "-issuer", "root.pem", "-serial", f"0x{SERIAL:x}", "-no_nonce", "-reqout", "asked.der")
        self.run("ocsp", "-index", "index.txt", "-CA", "root.pem", "-rsigner", f"{by}.pem", "-rkey", f"{by}.key",
                 "-reqin", "asked.der", "-respout", "answer.der", "-rmd", digest, "-nmin", "60", *given)  # fmt: skip
        return (self.directory / "answer.der").read_bytes()


@pytest.fixture(scope="module")
def acme(tmp_path_factory: pytest.TempPathFactory) -> Partner:
    made = Partner(tmp_path_factory.mktemp("pss"))
    written = {
        "ca.cnf": CONFIGURATION,
        "crlnumber": "01\n",
        "index.txt": f"R\t401231000000Z\t260101000000Z\t{SERIAL:X}\tunknown\t/CN=bob\n",
        "responder.ext": "extendedKeyUsage=OCSPSigning\nkeyUsage=digitalSignature\n",
    }
    for name, text in written.items():
        (made.directory / name).write_text(text)
    made.run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-keyout", "root.key", "-out", "root.pem",
             "-subj", "/CN=Acme Root", "-sha256", "-sigopt", PSS[0], "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
    return made


def said(acme: Partner, raw: bytes) -> Standing | str:
    judged = judge_ocsp(raw, Question(SERIAL, acme.ca, b""), datetime.now(UTC))
    return judged.evidence["answer"] if isinstance(judged, Refusal) else judged


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_a_list_with_rsa_pss_is_read(acme: Partner, digest: str):
    """With a salt as long as the hash, or as long as fits."""
    for salt in ("digest", "max"):
        read = judge_crl(acme.list(digest, *PSS, f"rsa_pss_saltlen:{salt}"), [acme.ca], datetime.now(UTC))
        assert not isinstance(read, Refusal), read
        assert [one.serials for one in read] == [("1234",)]


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_an_answer_with_rsa_pss_is_read(acme: Partner, digest: str):
    """By the CA itself."""
    for salt in ("digest", "max"):
        standing = said(acme, acme.answer(digest, *PSS, f"rsa_pss_saltlen:{salt}"))
        assert isinstance(standing, Standing), standing
        assert standing.word is Word.REVOKED


def test_an_answer_by_a_delegate_with_rsa_pss_is_read(acme: Partner):
    """Its certificate is signed with it as well, and its key can do nothing else."""
    acme.certify(*PSS)
    standing = said(acme, acme.answer("sha256", by="responder"))
    assert isinstance(standing, Standing), standing
    assert standing.word is Word.REVOKED


@pytest.mark.parametrize(
    ("digest", "options"),
    [
        ("sha256", ODD_MASK),
        ("sha1", PSS),
        ("sha224", PSS),
        ("sha512", (*PSS, "rsa_mgf1_md:sha256")),
        ("sha256", (*PSS, "rsa_pss_saltlen:0")),
    ],
)
def test_other_parameters_are_weak(acme: Partner, digest: str, options: tuple[str, ...]):
    """A weak hash, another one for the mask, or next to no salt: in a list and in an answer."""
    judged = judge_crl(acme.list(digest, *options), [acme.ca], datetime.now(UTC))
    assert isinstance(judged, Refusal)
    assert judged.evidence["list"] == "its signature is weak"
    assert said(acme, acme.answer(digest, *options)) == "its signature is weak"


def test_a_delegate_with_a_weak_certificate_answers_for_nobody(acme: Partner):
    """However well it signs itself."""
    acme.certify(*ODD_MASK, digest="sha256")
    answer = said(acme, acme.answer("sha256", by="responder"))
    assert isinstance(answer, str)
    assert "issuer signed it" in answer


def test_a_signature_of_the_other_kind_is_none(acme: Partner):
    """What an answer calls its signature is not taken for another one: neither PSS for PKCS #1 1.5, nor the reverse."""
    plain, salted = acme.answer("sha256"), acme.answer("sha256", *PSS)
    assert isinstance(said(acme, plain), Standing)
    named = [der.children(_basic(raw))[1] for raw in (plain, salted)]
    for raw, other in ((plain, named[1]), (salted, named[0])):
        answer = said(acme, _labelled(raw, other))
        assert isinstance(answer, str)
        assert "issuer signed it" in answer


def test_other_keys_have_no_salt(acme: Partner):
    """A curve's key does not verify what is called RSASSA-PSS, nor does one that hashes by itself."""
    raw = acme.answer("sha256", *PSS)
    signed = signed_answer(raw, ocsp.load_der_ocsp_response(raw))
    assert signed
    assert (signed.digest.name if signed.digest else "", signed.salt in SALT_OCTETS) == ("sha256", True)
    others = (ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate())
    for key in (*others, rsa.generate_private_key(65537, 2048)):
        assert not signed.by(key.public_key())


def test_a_damaged_answer_is_no_other_one(acme: Partner):
    """Whatever octet is another, it is a refusal or says the same."""
    raw = acme.answer("sha256", *PSS)
    sound, chance = said(acme, raw), Random(7)
    assert isinstance(sound, Standing)
    for at in (*range(60), *(chance.randrange(len(raw)) for _ in range(150)), *_within(raw, _identifier(raw))):
        seen = said(acme, raw[:at] + bytes([raw[at] ^ (1 << chance.randrange(8))]) + raw[at + 1 :])
        assert isinstance(seen, str) or (seen.word, seen.since, seen.until) == (sound.word, sound.since, sound.until)


@pytest.mark.parametrize(
    "parameters",
    [
        b"",
        der.tlv(0x05, b""),
        der.sequence(),
        der.sequence(der.tlv(0xA2, der.integer(32))),
        der.sequence(der.tlv(0xA0, b"")),
        der.sequence(der.tlv(0x04, b"x")),
    ],
)
def test_parameters_that_are_left_out_or_odd_do_not_count(parameters: bytes):
    """What is left out means SHA-1 (RFC 4055 section 3.1)."""
    identifier = der.sequence(der.oid("1.2.840.113549.1.1.10"), parameters)
    try:
        assert not bounded(der.sequence(der.sequence(), identifier, der.bit_string(b"x")))
    except BadInput:
        assert parameters[:1] == b"\x05" or b"\x04\x01x" in parameters


def _basic(raw: bytes) -> bytes:
    (typed,) = der.children(der.children(raw)[1])
    return der.content(der.children(typed)[1])


def _identifier(raw: bytes) -> bytes:
    return der.children(_basic(raw))[1]


def _within(raw: bytes, part: bytes) -> range:
    at = raw.rindex(part)
    return range(at, at + len(part))


def _labelled(raw: bytes, identifier: bytes) -> bytes:
    """Give an answer another name for its signature's algorithm."""
    tbs, _, *rest = der.children(_basic(raw))
    body = der.sequence(der.oid("1.3.6.1.5.5.7.48.1.1"), der.octet_string(der.sequence(tbs, identifier, *rest)))
    return der.sequence(der.children(raw)[0], der.tlv(0xA0, body))
