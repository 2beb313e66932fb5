"""Reads the key out of what was signed, or is about to be.

Decides where a TBSCertificate has its SubjectPublicKeyInfo (RFC 5280 section 4.1). Refuses to judge the key.
"""

from __future__ import annotations

from hashlib import sha256

from handfast.base.refusal import BadInput
from handfast.trust import der

_VERSION = 0xA0
_BEFORE_KEY = 5  # serial, algorithm, issuer, validity, subject


def key_digest(tbs: bytes) -> str:
    """Give the SHA-256 (lower case hex) of the SubjectPublicKeyInfo in a TBSCertificate; empty where it has none."""
    try:
        fields = der.children(tbs)
    except BadInput:
        return ""
    at = _BEFORE_KEY + (1 if fields and fields[0][0] == _VERSION else 0)
    return sha256(fields[at]).hexdigest() if at < len(fields) else ""
