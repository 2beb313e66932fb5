"""A revocation list that another server signed, read back and judged.

Decides whether it is the issuer's: by its signature, its issuer's name and its number. Refuses to know when it counts.
"""

from __future__ import annotations

import base64

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handfast.base.refusal import BadInput
from handfast.trust import der
from handfast.trust.algorithms import algorithm_of, identifier_in, verify
from handfast.trust.facts import load
from handfast.trust.profile import UNREADABLE

_PEM = b"-----BEGIN"


def read_list(text: bytes, issuing_der: bytes, number: int) -> x509.CertificateRevocationList | None:
    """Read a list (PEM or DER) with this number, which the key of the CA ``issuing_der`` has signed; None where it is not that."""
    issuing = load(issuing_der)
    try:
        octets = _der(text)
        listed = x509.load_der_x509_crl(octets)
        _check(octets, listed.signature, issuing)
        found = listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (*UNREADABLE, BadInput, InvalidSignature, x509.ExtensionNotFound):
        return None
    return listed if listed.issuer == issuing.subject and found == number else None


def _der(text: bytes) -> bytes:
    if not text.startswith(_PEM):
        return text
    return base64.b64decode(text.partition(b"-----\n")[2].partition(b"-----END")[0])


def _check(octets: bytes, signature: bytes, issuing: x509.Certificate) -> None:
    """Check a list's signature over its octets as they are: the library would write them anew, and hold up everybody meanwhile.

    Raises:
        InvalidSignature: it is not the CA's, or not by the algorithm that its key has.
        BadInput: it is no list.
    """
    key = issuing.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    listed, outer, _ = der.children(octets)
    if not outer == identifier_in(listed) == algorithm_of(key).identifier:
        raise InvalidSignature
    verify(signature, listed, key)
