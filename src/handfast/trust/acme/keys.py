"""Account keys: public JSON Web Keys (RFC 7517, RFC 8037), read strictly, and what names them.

Decides which keys may hold an account, and that one key has one spelling, so that its thumbprint (RFC 7638) names it alone.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handfast.base.refusal import BadInput
from handfast.trust.acme.problems import AcmeError, Problem
from handfast.trust.facts import load
from handfast.trust.profile import LEAF, UNREADABLE, key_facts

AccountPublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_CURVES: dict[str, tuple[ec.EllipticCurve, int]] = {"P-256": (ec.SECP256R1(), 32), "P-384": (ec.SECP384R1(), 48)}
_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
MAX_RSA_OCTETS = 512


def to_base64url(data: bytes) -> str:
    """Write base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: object) -> bytes:
    """Read base64url without padding, in its one spelling.

    Raises:
        BadInput: it is no text, or something else.
    """
    if not isinstance(text, str) or not _BASE64URL.fullmatch(text):
        raise BadInput("this is not base64url without padding")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise BadInput("this is not base64url without padding") from error
    if to_base64url(data) != text:
        raise BadInput("this base64url has bits to spare")
    return data


@dataclass(frozen=True, slots=True)
class AccountKey:
    """A public key that was checked. ``canonical`` is the JSON of its required members, as RFC 7638 section 3 orders them."""

    canonical: str

    @property
    def thumbprint(self) -> str:
        """SHA-256 of the canonical JSON, base64url (RFC 7638): what names the key."""
        return to_base64url(sha256(self.canonical.encode()).digest())

    @property
    def public(self) -> AccountPublicKey:
        """The key itself."""
        return _public(json.loads(self.canonical))

    @property
    def spki(self) -> bytes:
        """Its SubjectPublicKeyInfo, DER."""
        return self.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def read_key(jwk: object) -> AccountKey | Problem:
    """Read a JWK: EC P-256 or P-384, RSA of 2048 to 4096 bits, Ed25519. Any other is `badPublicKey`."""
    if not isinstance(jwk, Mapping) or not isinstance(jwk.get("kty"), str) or jwk["kty"] not in _MEMBERS:
        return _bad("the key is none of EC, RSA and OKP")
    if _PRIVATE & jwk.keys():
        return _bad("this is a private key; make a new one, as it is known to others now")
    wanted = {name: jwk.get(name) for name in _MEMBERS[jwk["kty"]]}
    try:
        public = _public(wanted)
    except (BadInput, *UNREADABLE):
        return _bad("the key cannot be read")
    if not LEAF.allows(kind := key_facts(public)):
        return _bad(f"an account's key is P-256, P-384, Ed25519, or RSA with 2048 to 4096 bits, not {kind}")
    return AccountKey(json.dumps(wanted, sort_keys=True, separators=(",", ":")))


def certificate_spki(der: bytes) -> bytes:
    """Give the SubjectPublicKeyInfo (DER) of a certificate (DER).

    Raises:
        BadInput: it cannot be read.
    """
    try:
        return load(der).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except UNREADABLE as error:
        raise BadInput("the certificate's key cannot be read") from error


def _bad(detail: str) -> Problem:
    return Problem(AcmeError.BAD_PUBLIC_KEY, detail)


def _public(jwk: Mapping[str, Any]) -> AccountPublicKey:
    match jwk["kty"]:
        case "EC":
            return _elliptic(jwk)
        case "RSA":
            e, n = _number(jwk["e"], 32), _number(jwk["n"], MAX_RSA_OCTETS)
            return rsa.RSAPublicNumbers(e, n).public_key()
        case _:
            if jwk["crv"] != "Ed25519":
                raise BadInput("the only OKP curve is Ed25519")
            return ed25519.Ed25519PublicKey.from_public_bytes(from_base64url(jwk["x"]))


def _elliptic(jwk: Mapping[str, Any]) -> ec.EllipticCurvePublicKey:
    if not isinstance(jwk["crv"], str) or jwk["crv"] not in _CURVES:
        raise BadInput("the curves are P-256 and P-384")
    curve, octets = _CURVES[jwk["crv"]]
    x, y = from_base64url(jwk["x"]), from_base64url(jwk["y"])
    if len(x) != octets or len(y) != octets:  # RFC 7518 section 6.2.1.2
        raise BadInput("a coordinate has another length than its curve's")
    return ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve).public_key()


def _number(text: object, most: int) -> int:
    """Read a Base64urlUInt: as few octets as hold it (RFC 7518 section 2)."""
    octets = from_base64url(text)
    if not octets or octets[0] == 0 or len(octets) > most:
        raise BadInput("a number is empty, too long, or begins with zero")
    return int.from_bytes(octets)
