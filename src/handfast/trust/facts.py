"""What a certificate says of itself, read once from its bytes.

Decides what can be read, and that all else is `BadInput`. Refuses to judge: whether a certificate is good enough is
asked of `lint`, of `chain` and of `handfast.access.identify`.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handfast.base.refusal import BadInput
from handfast.base.spiffe import TrustDomain
from handfast.base.windows import Window
from handfast.trust.algorithms import SignatureAlgorithm, algorithm_of
from handfast.trust.constraints import NameConstraints
from handfast.trust.constraints import read as constraints_of
from handfast.trust.profile import OTHER_KEY, UNREADABLE, KeyFacts, key_facts

MAX_CERTIFICATE_BYTES = 64 * 1024
MAX_PEM_BYTES = 256 * 1024
MAX_PEM_CERTIFICATES = 64

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_WHOLE_LINES = 48 * 1024
_BLOCK = re.compile(rf"{_BEGIN}([A-Za-z0-9+/=\s]*){_END}")
_SPIFFE = "spiffe://"
_T = TypeVar("_T", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """One certificate, unverified.

    Names are RFC 4514 text; ``serial``, ``fingerprint`` (SHA-256 of the DER), ``ski`` and ``aki`` are lower case hex, the last
    two empty where there is none. ``ekus`` are dotted object identifiers, None where the extension is absent.
    ``key_kind``, ``key_bits`` and ``curve`` are those of `KeyFacts`. ``signature_hash`` is a name such as ``sha256``: empty where
    the algorithm has none of its own (Ed25519), ``unknown`` where nobody here knows the algorithm.
    ``self_issued``: issuer and subject are the same name, which proves nothing.
    """

    subject: str
    issuer: str
    serial: str
    fingerprint: str
    uri_sans: tuple[str, ...]
    dns_sans: tuple[str, ...]
    window: Window
    is_ca: bool
    ekus: tuple[str, ...] | None
    key_kind: str
    key_bits: int
    curve: str
    signature_hash: str
    ski: str
    aki: str
    self_issued: bool


@dataclass(frozen=True, slots=True)
class IssuerFacts:
    """What a plan needs of the authority that will sign it: a CA of one trust domain, with a key that signs here.

    ``subject_der`` is its Name as it stands in its certificate, ``key_id`` its subject key identifier, ``public_key_der`` its
    SubjectPublicKeyInfo. ``constraints`` are the name constraints that hold for what it issues: its own and those above it.
    """

    trust_domain: TrustDomain
    subject_der: bytes
    key_id: bytes
    public_key_der: bytes
    window: Window
    constraints: tuple[NameConstraints, ...] = ()

    @property
    def algorithm(self) -> SignatureAlgorithm:
        """What its key signs with."""
        return algorithm_of(self.public_key_der)


def load(der: bytes) -> x509.Certificate:
    """Parse one certificate, and nothing after it.

    Its extensions are parsed when they are asked for, so reading those can still fail.

    Raises:
        BadInput: it is larger than 64 KiB, or not a certificate.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise BadInput(f"the certificate is larger than {MAX_CERTIFICATE_BYTES} bytes")
    try:
        return x509.load_der_x509_certificate(der)
    except UNREADABLE as error:
        raise _unreadable(error) from error


def facts(der: bytes) -> CertificateFacts:
    """Read a certificate (DER).

    Raises:
        BadInput: it cannot be read, whatever the bytes are.
    """
    certificate = load(der)
    try:
        return _facts(certificate, der)
    except UNREADABLE as error:
        raise _unreadable(error) from error


def issuer_facts(der: bytes, nameless: TrustDomain | None = None) -> IssuerFacts:
    """Read what a plan needs of an issuing CA's certificate (DER).

    ``nameless`` is whose a CA without any URI SAN is taken for: a root that was not made here may have none.

    Raises:
        BadInput: it cannot be read, is no CA, has no subject key identifier, a key that no authority signs with here, name
            constraints that cannot be kept, or not exactly one URI SAN that names a trust domain (X509-SVID section 3.1).
    """
    seen, certificate = facts(der), load(der)
    if not seen.is_ca or not seen.ski:
        raise BadInput("an issuer is a CA certificate with a subject key identifier")
    public_key_der = _spki(certificate)
    algorithm_of(public_key_der)
    constraints = constraints_of(certificate.extensions)
    return IssuerFacts(
        trust_domain=nameless if nameless and not seen.uri_sans else _trust_domain(seen.uri_sans),
        subject_der=certificate.subject.public_bytes(),
        key_id=bytes.fromhex(seen.ski),
        public_key_der=public_key_der,
        window=seen.window,
        constraints=(constraints,) if constraints else (),
    )


def _spki(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except UNREADABLE as error:
        raise BadInput("the issuer's key is of a kind that is not known here") from error


def fingerprint(der: bytes) -> str:
    """Give the SHA-256 of a certificate, in lower case hex."""
    return sha256(der).hexdigest()


def hex_serial(serial: int) -> str:
    """Give a serial as it is written everywhere here: lower case hex, two digits an octet, no sign octet."""
    return serial.to_bytes(max(1, (serial.bit_length() + 7) // 8), "big").hex()


def pem(der: bytes, label: str = "CERTIFICATE") -> str:
    """Write PEM with lines of 64 (RFC 7468 section 2). ``label`` is ``CERTIFICATE`` or ``X509 CRL``."""
    # A revocation list may be long, and nothing interrupts the encoding of what is written at once.
    lines = "".join(_lines(der[at : at + _WHOLE_LINES]) for at in range(0, len(der), _WHOLE_LINES))
    return f"-----BEGIN {label}-----\n{lines}-----END {label}-----\n"


def _lines(octets: bytes) -> str:
    body = base64.b64encode(octets).decode()
    return "\n".join([*(body[at : at + 64] for at in range(0, len(body), 64)), ""])


def pem_certificates(text: str) -> tuple[bytes, ...]:
    """Give the DER of each CERTIFICATE block, in the order of the text. What stands between blocks does not count.

    The DER itself is not looked at.

    Raises:
        BadInput: the text is over 256 KiB, holds no certificate or more than 64, or a block is damaged.
    """
    if len(text) > MAX_PEM_BYTES:
        raise BadInput(f"the PEM text is larger than {MAX_PEM_BYTES} bytes")
    blocks = _BLOCK.findall(text)
    if not blocks or len(blocks) != text.count(_BEGIN) or len(blocks) != text.count(_END):
        raise BadInput(
            "there is no whole PEM certificate in it", hint=f"a certificate stands between {_BEGIN} and {_END}"
        )
    if len(blocks) > MAX_PEM_CERTIFICATES:
        raise BadInput(f"there are more than {MAX_PEM_CERTIFICATES} certificates in it")
    try:
        return tuple(base64.b64decode("".join(block.split()), validate=True) for block in blocks)
    except binascii.Error as error:
        raise BadInput("a PEM certificate is damaged", hint="copy the file anew") from error


def _unreadable(error: Exception) -> BadInput:
    return BadInput(f"the certificate cannot be read: {str(error)[:200]}", hint="is it DER, and whole?")


def _facts(certificate: x509.Certificate, der: bytes) -> CertificateFacts:
    extensions = certificate.extensions
    key, names = _key(certificate), _find(extensions, x509.SubjectAlternativeName)
    constraints, ekus = _find(extensions, x509.BasicConstraints), _find(extensions, x509.ExtendedKeyUsage)
    ski, aki = _find(extensions, x509.SubjectKeyIdentifier), _find(extensions, x509.AuthorityKeyIdentifier)
    return CertificateFacts(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        serial=hex_serial(certificate.serial_number),
        fingerprint=fingerprint(der),
        uri_sans=tuple(names.get_values_for_type(x509.UniformResourceIdentifier)) if names else (),
        dns_sans=tuple(names.get_values_for_type(x509.DNSName)) if names else (),
        window=Window(certificate.not_valid_before_utc, certificate.not_valid_after_utc),
        is_ca=constraints is not None and constraints.ca,
        ekus=tuple(usage.dotted_string for usage in ekus) if ekus is not None else None,
        key_kind=key.kind,
        key_bits=key.bits,
        curve=key.curve,
        signature_hash=_signature_hash(certificate),
        ski=ski.digest.hex() if ski else "",
        aki=(aki.key_identifier or b"").hex() if aki else "",
        self_issued=certificate.issuer.public_bytes() == certificate.subject.public_bytes(),
    )


def _find(extensions: x509.Extensions, kind: type[_T]) -> _T | None:
    return next((found.value for found in extensions if isinstance(found.value, kind)), None)


def _key(certificate: x509.Certificate) -> KeyFacts:
    try:
        return key_facts(certificate.public_key())
    except UnsupportedAlgorithm:
        return OTHER_KEY


def _signature_hash(certificate: x509.Certificate) -> str:
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return "unknown"
    return algorithm.name if algorithm else ""


def _trust_domain(uri_sans: tuple[str, ...]) -> TrustDomain:
    match uri_sans:
        case (uri,) if uri.startswith(_SPIFFE):
            return TrustDomain(uri.removeprefix(_SPIFFE))
        case _:
            raise BadInput("an issuer carries its trust domain as its one URI SAN, such as spiffe://example.org")
