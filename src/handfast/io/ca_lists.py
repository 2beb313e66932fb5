"""A revocation list that another server signed, read back and judged.

Decides whether it is the issuer's: by its signature, its issuer's name and its number. Refuses to know when it counts.
"""

from __future__ import annotations

from cryptography import x509

from handfast.trust.algorithms import PublicKey
from handfast.trust.facts import load
from handfast.trust.profile import UNREADABLE

_PEM = b"-----BEGIN"


def read_list(text: bytes, issuing_der: bytes, number: int) -> x509.CertificateRevocationList | None:
    """Read a list (PEM or DER) with this number, which the key of the CA ``issuing_der`` has signed; None where it is not that."""
    issuing = load(issuing_der)
    key = issuing.public_key()
    try:
        listed = x509.load_pem_x509_crl(text) if text.startswith(_PEM) else x509.load_der_x509_crl(text)
        ours = isinstance(key, PublicKey) and listed.is_signature_valid(key) and listed.issuer == issuing.subject
        found = listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (*UNREADABLE, x509.ExtensionNotFound):
        return None
    return listed if ours and found == number else None
