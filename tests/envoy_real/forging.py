"""Certificates that nobody would issue, signed by an authority that is trusted: DER put together by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from handfast.trust import der
from handfast.trust.facts import pem
from tests.support.pki import Issued, Pki

Key = (
    ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | dsa.DSAPrivateKey
)

CLIENT, SERVER, ANY, EMAIL = "1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1", "2.5.29.37.0", "1.3.6.1.5.5.7.3.4"
URI, DNS, RFC822, IP, DIRECTORY, OTHER, REGISTERED = 0x86, 0x82, 0x81, 0x87, 0xA4, 0xA0, 0x88
UTF8, PRINTABLE, T61, IA5, BMP, UNIVERSAL = 0x0C, 0x13, 0x14, 0x16, 0x1E, 0x1C
CN, OU = "2.5.4.3", "2.5.4.11"

GOOD_URI = b"spiffe://example.org/team/a"
SIGNATURES = {
    "sha1": ("1.2.840.10045.4.1", hashes.SHA1()),
    "sha224": ("1.2.840.10045.4.3.1", hashes.SHA224()),
    "sha256": ("1.2.840.10045.4.3.2", hashes.SHA256()),
    "sha384": ("1.2.840.10045.4.3.3", hashes.SHA384()),
    "sha512": ("1.2.840.10045.4.3.4", hashes.SHA512()),
    "sha3-256": ("2.16.840.1.101.3.4.3.10", hashes.SHA3_256()),
}
_KEYS = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "p224": lambda: ec.generate_private_key(ec.SECP224R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "brainpool": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
    "rsa1024": lambda: rsa.generate_private_key(65537, 1024),
    "rsa2040": lambda: rsa.generate_private_key(65537, 2040),
    "rsa2047": lambda: rsa.generate_private_key(65537, 2047),
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa2055": lambda: rsa.generate_private_key(65537, 2055),
    "rsa-e3": lambda: rsa.generate_private_key(3, 2048),
}
KEYS = tuple(_KEYS)
_serials = count(0x1000)


@cache
def key(kind: str) -> Key:
    """Make a key, once for each kind."""
    return _KEYS[kind]()


def names(*pairs: tuple[int, bytes]) -> bytes:
    """Write a SubjectAltName: each name's tag and content."""
    return der.extension("2.5.29.17", der.sequence(*(der.tlv(tag, content) for tag, content in pairs)))


def uses(*dotted: str) -> bytes:
    """Write an ExtendedKeyUsage."""
    return der.extension("2.5.29.37", der.sequence(*(der.oid(one) for one in dotted)))


def constraints(content: bytes, *, critical: bool = True) -> bytes:
    """Write BasicConstraints with this content."""
    return der.extension("2.5.29.19", der.sequence(content), critical=critical)


def subject(*parts: tuple[str, int, bytes]) -> bytes:
    """Write a Name of one attribute each: its type, its string's tag, its octets."""
    sets = (der.tlv(0x31, der.sequence(der.oid(kind), der.tlv(tag, text))) for kind, tag, text in parts)
    return der.sequence(*sets)


NOT_CA = constraints(b"")
FOR_CLIENTS = uses(CLIENT)
GOOD_NAMES = names((URI, GOOD_URI))
PLAIN_SUBJECT = subject((CN, UTF8, b"a"))


@dataclass(frozen=True)
class Draft:
    """What a certificate is made of. ``extensions`` None leaves the whole field out, which is version 1; ``serial`` 0 takes the next."""

    extensions: Sequence[bytes] | None = (NOT_CA, FOR_CLIENTS, GOOD_NAMES)
    subject: bytes = PLAIN_SUBJECT
    key: str = "p256"
    hash: str = "sha256"
    serial: int = 0
    ends: datetime = field(default_factory=lambda: datetime.now(UTC) + timedelta(days=1))


@dataclass(frozen=True)
class Forged:
    """A certificate that the authority signed, and what a client needs to show it."""

    der: bytes
    chain_pem: str
    key_pem: bytes


def forge(pki: Pki, draft: Draft) -> Forged:
    """Sign a draft, whatever stands in it."""
    oid, algorithm = SIGNATURES[draft.hash]
    identifier = der.sequence(der.oid(oid))
    tbs = _tbs(pki.issuing, draft, identifier)
    assert isinstance(pki.issuing.key, ec.EllipticCurvePrivateKey)
    signature = pki.issuing.key.sign(tbs, ec.ECDSA(algorithm))
    leaf = der.sequence(tbs, identifier, der.bit_string(signature))
    own = key(draft.key).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Forged(leaf, pem(leaf) + pki.issuing.cert_pem.decode(), own)


def _tbs(issuer: Issued, draft: Draft, algorithm: bytes) -> bytes:
    public = key(draft.key).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    begins = datetime.now(UTC) - timedelta(hours=1)
    versioned = draft.extensions is not None
    return der.sequence(
        der.tlv(0xA0, der.integer(2)) if versioned else b"",
        der.integer(draft.serial or next(_serials)),
        algorithm,
        issuer.cert.subject.public_bytes(),
        der.sequence(der.time(begins), der.time(draft.ends)),
        draft.subject,
        public,
        der.tlv(0xA3, der.sequence(*draft.extensions)) if draft.extensions is not None else b"",
    )


def names_in(certificate: bytes) -> list[tuple[int, bytes]]:
    """Read tag and content of a certificate's names, and mind nothing else.

    Raises:
        BadInput: it is not DER.
    """
    fields = der.children(der.children(certificate)[0])
    extensions = [one for field in fields if field[0] == 0xA3 for one in der.children(der.children(field)[0])]
    parts = [der.children(extension) for extension in extensions]
    lists = [content(one[-1]) for one in parts if one[0] == der.oid("2.5.29.17")]
    return [(name[0], content(name)) for found in lists for name in der.children(found)]


def content(value: bytes) -> bytes:
    """Give what is within one DER value."""
    return value[2 + (value[1] & 0x7F if value[1] & 0x80 else 0) :]
