"""Certificate signing requests (PKCS#10, RFC 2986).

Decides whether a request's key may have a certificate, and whether whoever made the request has that key. Refuses to read what
else it says: names and life come with `handfast.trust.plan.LeafRequest`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.trust.profile import LEAF, UNREADABLE, KeyFacts, Profile, key_facts
from handfast.trust.tbs import key_info

MAX_CSR_BYTES = 16 * 1024
_NOT_A_CSR = "this is not a certificate signing request"


@dataclass(frozen=True, slots=True)
class CsrFacts:
    """The key of a CSR whose proof of possession was checked: its SubjectPublicKeyInfo (DER), kind and identifier.

    ``key_id`` is the SHA-1 of the key's bits, which names the key and protects nothing (RFC 5280 section 4.2.1.2, method 1).
    """

    spki: bytes
    key: KeyFacts
    key_id: bytes


@dataclass(frozen=True, slots=True)
class OpenedCsr:
    """A CSR that was read, and whose key may have a certificate. Nothing follows from it before `proved` was asked."""

    _facts: CsrFacts
    _csr: x509.CertificateSigningRequest
    _key: CertificatePublicKeyTypes

    def proved(self) -> CsrFacts | Refusal:
        """Check that whoever made the request has the private key (RFC 2986 section 3), or give ISSUANCE_BAD_PROOF."""
        return self._facts if _proves_possession(self._csr, self._key) else Refusal(Reason.ISSUANCE_BAD_PROOF)


def read_csr(data: bytes, profile: Profile = LEAF) -> CsrFacts | Refusal:
    """Read a PKCS#10 request (PEM or DER), and check that whoever made it has the private key.

    Returns:
        The facts, or a refusal: those of `open_csr` and `OpenedCsr.proved`.

    Raises:
        BadInput: it is over 16 KiB, or not a CSR.
    """
    opened = open_csr(data, profile)
    return opened if isinstance(opened, Refusal) else opened.proved()


def open_csr(data: bytes, profile: Profile = LEAF) -> OpenedCsr | Refusal:
    """Read a PKCS#10 request (PEM or DER), without checking its signature.

    Only the key counts: names and extensions in the request are not read, the names asked for come with `LeafRequest`. Its kind
    is looked at here, as checking a signature with a key that a stranger chose can be slow.

    Returns:
        The request, or ISSUANCE_KEY_NOT_ALLOWED.

    Raises:
        BadInput: it is over 16 KiB, or not a CSR.
    """
    if len(data) > MAX_CSR_BYTES:
        raise BadInput(f"the request is larger than {MAX_CSR_BYTES} bytes")
    try:
        csr = _load_csr(data)
        key = csr.public_key()
        kind = key_facts(key)
        if not profile.allows(kind):
            return Refusal(Reason.ISSUANCE_KEY_NOT_ALLOWED, {"key": str(kind)})
        return OpenedCsr(_csr_facts(key, kind), csr, key)
    except UnsupportedAlgorithm:
        return Refusal(Reason.ISSUANCE_KEY_NOT_ALLOWED, {"key": "of a kind unknown here"})
    except UNREADABLE as error:
        raise BadInput(_NOT_A_CSR, hint="make one with 'openssl req -new', and send it as PEM or DER") from error


def _load_csr(data: bytes) -> x509.CertificateSigningRequest:
    return x509.load_pem_x509_csr(data) if b"-----BEGIN" in data else x509.load_der_x509_csr(data)


def _proves_possession(csr: x509.CertificateSigningRequest, key: CertificatePublicKeyTypes) -> bool:
    try:
        return _signed(csr, key) if isinstance(key, ec.EllipticCurvePublicKey) else csr.is_signature_valid
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        # The signature's algorithm is unknown, or not one of this kind of key: it proves nothing.
        return False


def _signed(csr: x509.CertificateSigningRequest, key: ec.EllipticCurvePublicKey) -> bool:
    """Do what ``is_signature_valid`` does with a key that is read already; reading it again costs a sixth of the check."""
    algorithm = csr.signature_algorithm_parameters
    if not isinstance(algorithm, ec.ECDSA):
        return False
    key.verify(csr.signature, csr.tbs_certrequest_bytes, algorithm)
    return True


def _csr_facts(key: CertificatePublicKeyTypes, kind: KeyFacts) -> CsrFacts:
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return CsrFacts(spki=spki, key=kind, key_id=key_info(spki).key_id)
