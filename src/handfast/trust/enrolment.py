"""What a device may ask for when it enrols, and what it is told to put into its request.

Decides whether the names in a CSR are those of an entry: nothing is dropped silently, and nothing is taken from the CSR that
the entry does not grant. Refuses to know how the device proved who it is, and whether its key is good (`csr.read_csr`).
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import AttributeOID, NameOID

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.trust import der
from handfast.trust.csr import MAX_CSR_BYTES
from handfast.trust.entries import Workload
from handfast.trust.facts import load
from handfast.trust.profile import UNREADABLE

CSR_ATTRIBUTES = der.sequence(
    der.sequence(der.oid("1.2.840.10045.2.1"), der.tlv(0x31, der.oid("1.2.840.10045.3.1.7"))),
    der.oid("1.2.840.10045.4.3.2"),
)
"""CsrAttrs (RFC 7030 section 4.5.2): a key on P-256, and a signature with ECDSA and SHA-256. Names come from the entry."""


def certs_only(certificates: tuple[bytes, ...]) -> bytes:
    """Write certificates (DER) as a SignedData without signers (RFC 5652 section 5.1), DER. Each stands in it once.

    Raises:
        BadInput: one of them is no certificate.
    """
    return pkcs7.serialize_certificates([load(one) for one in dict.fromkeys(certificates)], Encoding.DER)


def names_asked(csr: bytes, entry: Workload) -> tuple[str, ...] | Refusal:
    """Give the DNS names that a PKCS#10 request (DER) asks for, in its order; none means the entry's.

    Whatever it says of common name and subject alternative names must be the entry's: its DNS names, its SPIFFE id, and as
    common name also the workload's name or the last part of it. The rest of the subject, and other extensions, have no
    say in a certificate, and so no harm. The signature is not looked at.

    Returns:
        The names, or ISSUANCE_NAME_NOT_ALLOWED.

    Raises:
        BadInput: it cannot be read, or has a challenge password. RFC 7030 section 3.5 puts TLS's ``tls-unique`` there, which
            TLS 1.3 does not have (RFC 8446 appendix C.5); what cannot be checked must not look as if it had been.
    """
    if len(csr) > MAX_CSR_BYTES:
        raise BadInput(f"the request is larger than {MAX_CSR_BYTES} bytes")
    try:
        return _names(x509.load_der_x509_csr(csr), entry)
    except UNREADABLE as error:
        raise BadInput("this is not a certificate signing request", hint="send PKCS#10 as base64 of DER") from error


def _names(csr: x509.CertificateSigningRequest, entry: Workload) -> tuple[str, ...] | Refusal:
    if any(attribute.oid == AttributeOID.CHALLENGE_PASSWORD for attribute in csr.attributes):
        raise BadInput(
            "the request has a challenge password", hint="leave it out: TLS 1.3 has no tls-unique to put there"
        )
    for attribute in csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        if attribute.value not in _common_names(entry):
            return _refuse("common_name", str(attribute.value))
    asked: list[str] = []
    for name in _alternative_names(csr):
        match name:
            case x509.DNSName() if name.value in entry.dns:
                asked.append(name.value)
            case x509.UniformResourceIdentifier() if name.value == str(entry.identity):
                pass
            case _:
                return _refuse("alternative_name", str(name.value))
    return tuple(dict.fromkeys(asked))


def _common_names(entry: Workload) -> set[str]:
    name = entry.identity.name
    return {name, name.rpartition("/")[2][:64], *entry.dns}


def _alternative_names(csr: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    found = [one.value for one in csr.extensions if isinstance(one.value, x509.SubjectAlternativeName)]
    return [name for names in found for name in names]


def _refuse(key: str, value: str) -> Refusal:
    return Refusal(Reason.ISSUANCE_NAME_NOT_ALLOWED, {key: ascii(value[:80]), "because": "not among the entry's names"})
