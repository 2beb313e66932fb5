"""What a leaf certificate may look like: which keys, how long, for what.

Decides the limits that hold for every leaf, whoever asks. Refuses to know who asks: that is `plan`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x448, x25519
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from handfast.trust.entries import LONGEST_TTL

BACKDATE = timedelta(seconds=60)
"""How far before ``now`` a validity begins: hosts whose clocks are a little behind must not refuse what is new."""

CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"
OCSP_SIGNING = "1.3.6.1.5.5.7.3.9"
SERVER_AUTH = "1.3.6.1.5.5.7.3.1"

UNREADABLE = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises on bytes that it cannot make sense of."""


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What kind of public key it is.

    ``kind`` is ``ec``, ``rsa``, ``ed25519``, ``ed448``, ``x25519``, ``x448``, ``dsa`` or ``other``; ``bits`` its size (0 where it
    is not known); ``curve`` a name such as ``secp256r1``, for ``ec`` alone; ``exponent`` for ``rsa`` alone.
    """

    kind: str
    bits: int
    curve: str = ""
    exponent: int = 0

    def __str__(self) -> str:
        """Give a short text for people: ``ec secp256r1``, ``rsa 2048``."""
        return f"{self.kind} {self.curve or self.bits}"


OTHER_KEY = KeyFacts("other", 0)


@dataclass(frozen=True, slots=True)
class Profile:
    """The limits of one kind of leaf.

    ``ekus`` are dotted object identifiers, in the order in which they are written. ``identities`` are names, or what they begin
    with (``team/*``); ``dns`` names, or what they end with (``*.internal``). ``must_staple``: whoever serves with it has to staple
    an OCSP response (RFC 7633).
    """

    name: str
    curves: frozenset[str]
    rsa_bits: tuple[int, int]
    ed25519: bool
    longest: timedelta
    ekus: tuple[str, ...]
    identities: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    must_staple: bool = False

    def permits_identity(self, name: str) -> bool:
        """Tell whether an identity's name is among ``identities``; all are where there are none."""
        return not self.identities or any(_covers(one, name) for one in self.identities)

    def permits_dns(self, name: str) -> bool:
        """Tell whether a DNS name is among ``dns``, or below one that begins with ``*.``; all are where there are none."""
        return not self.dns or any(_lies_in(name, one) for one in self.dns)

    @property
    def answers_status(self) -> bool:
        """Whether it answers for others' status: then nobody asks for its own (RFC 6960 section 4.2.2.2.1)."""
        return OCSP_SIGNING in self.ekus

    def allows(self, key: KeyFacts) -> bool:
        """Tell whether a certificate for this key may be made.

        An RSA exponent is odd and at least 65537 (NIST FIPS 186-5, appendix A.1.1): small ones have broken before.
        """
        if key.kind == "rsa":
            low, high = self.rsa_bits
            return low <= key.bits <= high and key.exponent % 2 == 1 and 2**16 < key.exponent < 2**256
        return key.curve in self.curves if key.kind == "ec" else key.kind == "ed25519" and self.ed25519


def _covers(pattern: str, name: str) -> bool:
    return name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1]))


def _lies_in(name: str, pattern: str) -> bool:
    return name == pattern or (pattern.startswith("*.") and name.endswith(pattern[1:]))


LEAF = Profile(
    name="leaf",
    curves=frozenset({"secp256r1", "secp384r1"}),
    rsa_bits=(2048, 4096),
    ed25519=True,
    longest=LONGEST_TTL,
    ekus=(CLIENT_AUTH, SERVER_AUTH),
)

MUST_STAPLE = replace(LEAF, name="must-staple", must_staple=True)

RESPONDER = Profile(
    name="ocsp",
    curves=frozenset({"secp256r1"}),
    rsa_bits=(0, 0),
    ed25519=False,
    longest=timedelta(days=7),
    ekus=(OCSP_SIGNING,),
)
"""What answers OCSP for an issuer. It lives short, as nobody can learn that it was revoked."""


def key_facts(key: CertificatePublicKeyTypes) -> KeyFacts:
    """Tell what kind of key it is."""
    match key:
        case ec.EllipticCurvePublicKey():
            return KeyFacts("ec", key.curve.key_size, curve=key.curve.name)
        case rsa.RSAPublicKey():
            return KeyFacts("rsa", key.key_size, exponent=key.public_numbers().e)
        case ed25519.Ed25519PublicKey():
            return KeyFacts("ed25519", 256)
        case ed448.Ed448PublicKey():
            return KeyFacts("ed448", 456)
        case x25519.X25519PublicKey():
            return KeyFacts("x25519", 256)
        case x448.X448PublicKey():
            return KeyFacts("x448", 448)
        case dsa.DSAPublicKey():
            return KeyFacts("dsa", key.key_size)
        case _:
            return OTHER_KEY
