"""Reads the key out of what was signed, or is about to be.

Decides where a TBSCertificate has its SubjectPublicKeyInfo (RFC 5280 section 4.1), and how a key is named. Refuses to judge the key.
"""

from __future__ import annotations

from hashlib import sha1, sha256
from typing import NamedTuple

from handfast.base.refusal import BadInput
from handfast.trust import der

_VERSION = 0xA0
_BIT_STRING = 0x03
_BEFORE_KEY = 5  # serial, algorithm, issuer, validity, subject


def key_digest(tbs: bytes) -> str:
    """Give the SHA-256 (lower case hex) of the SubjectPublicKeyInfo in a TBSCertificate; empty where it has none."""
    try:
        fields = der.children(tbs)
    except BadInput:
        return ""
    at = _BEFORE_KEY + (1 if fields and fields[0][0] == _VERSION else 0)
    return sha256(fields[at]).hexdigest() if at < len(fields) else ""


class KeyInfo(NamedTuple):
    """What a SubjectPublicKeyInfo says: its AlgorithmIdentifier (DER), and the key's identifier.

    ``key_id`` is the SHA-1 of the key's bits, which names the key and protects nothing (RFC 5280 section 4.2.1.2, method 1).
    """

    algorithm: bytes
    key_id: bytes


def key_info(spki: bytes) -> KeyInfo:
    """Read a SubjectPublicKeyInfo (DER).

    Raises:
        BadInput: it is none.
    """
    match der.children(spki):
        case (algorithm, bits) if bits[0] == _BIT_STRING:
            return KeyInfo(algorithm, sha1(der.content(bits)[1:], usedforsecurity=False).digest())
    raise BadInput("this is no SubjectPublicKeyInfo")
