"""Challenges: what has to be found where, for a name to count as proved (RFC 8555 section 8, RFC 8737).

Decides which kinds a name may be proved by, and whether what was found is it. Refuses to know how it was reached.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from enum import StrEnum
from hashlib import sha256

from cryptography import x509

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.trust import der
from handfast.trust.acme.keys import to_base64url
from handfast.trust.facts import load
from handfast.trust.profile import UNREADABLE

TOKEN_BYTES = 24
HTTP_PATH = "/.well-known/acme-challenge/"
ALPN = "acme-tls/1"
DNS_LABEL = "_acme-challenge."
ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")


class ChallengeKind(StrEnum):
    """How control over a name is shown."""

    HTTP = "http-01"
    TLS_ALPN = "tls-alpn-01"
    DNS = "dns-01"


def kinds_for(name: str) -> tuple[ChallengeKind, ...]:
    """Give the kinds that prove ``name``: a wildcard is proved by DNS alone (RFC 8555 section 7.1.3)."""
    return (ChallengeKind.DNS,) if name.startswith("*.") else tuple(ChallengeKind)


def key_authorization(token: str, thumbprint: str) -> str:
    """Bind a token to the account's key (RFC 8555 section 8.1)."""
    return f"{token}.{thumbprint}"


def dns_value(authorization: str) -> str:
    """Give what the TXT record says (RFC 8555 section 8.4)."""
    return to_base64url(sha256(authorization.encode()).digest())


def check_http(body: bytes, authorization: str) -> Refusal | None:
    """Check the file that was found; white space after it does not count (RFC 8555 section 8.3)."""
    if hmac.compare_digest(body.rstrip(b" \t\r\n"), authorization.encode()):
        return None
    return _wrong(f"the file is of {len(body)} bytes and holds something else")


def check_dns(texts: Iterable[bytes], authorization: str) -> Refusal | None:
    """Check the TXT records that were found: one of them is enough."""
    wanted, found = dns_value(authorization).encode(), list(texts)
    if any(hmac.compare_digest(text, wanted) for text in found):
        return None
    return _wrong(f"none of {len(found)} TXT records is it")


def check_tls_alpn(certificate: bytes, name: str, authorization: str) -> Refusal | None:
    """Check the certificate (DER) that was shown: the name as its only one, and the digest (RFC 8737 section 3)."""
    try:
        extensions = load(certificate).extensions
        names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        proof = extensions.get_extension_for_oid(ACME_IDENTIFIER)
    except (BadInput, x509.ExtensionNotFound, *UNREADABLE):
        return _wrong("the certificate has not the extensions of RFC 8737")
    if len(names) != 1 or not isinstance(names[0], x509.DNSName) or names[0].value.lower() != name:
        return _wrong("the certificate is not for this name alone")
    wanted = der.tlv(0x04, sha256(authorization.encode()).digest())
    value = proof.value.value if isinstance(proof.value, x509.UnrecognizedExtension) else b""
    return None if proof.critical and hmac.compare_digest(value, wanted) else _wrong("the digest is another one")


def _wrong(because: str) -> Refusal:
    return Refusal(Reason.ACME_WRONG_ANSWER, {"because": because})
