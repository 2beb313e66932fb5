"""Authorities of others: CAs that bound nothing, as a partner's may be, and their revocation lists."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.support.pki import Issued, Key, Pki


def authority(
    name: str,
    above: Issued | None = None,
    *,
    key_id: bytes = b"",
    signs: bool = True,
    ca: bool = True,
    eku: x509.ObjectIdentifier | None = None,
    ends: timedelta = timedelta(days=30),
    key: Key | None = None,
) -> Issued:
    """Make a CA that bounds nothing. ``key_id`` is what it claims as its key identifier; ``signs`` is keyCertSign and cRLSign."""
    key, now = key or ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = [True, False, False, False, False, signs, signs, False, False]
    made = (
        x509.CertificateBuilder()
        .subject_name(named)
        .issuer_name(above.cert.subject if above else named)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=20))
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(*usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(key_id) if key_id else identifier, critical=False)
    )
    if eku:
        made = made.add_extension(x509.ExtendedKeyUsage([eku]), critical=False)
    return Issued(made.sign(above.key if above else key, hashes.SHA256()), key)


def partner(name: str) -> Pki:
    """Make a root and an issuing CA that could certify further ones."""
    root = authority(f"{name} Root")
    return Pki(name, issuing=authority(f"{name} Issuing", root), root=root.cert)


def roots_pem(pki: Pki) -> str:
    """Give the whole chain."""
    return pki.roots_pem.decode() + pki.issuing.cert_pem.decode()


def crl(
    by: Issued,
    serials: Iterable[int] = (),
    *,
    since: timedelta = timedelta(hours=-1),
    until: timedelta = timedelta(days=1),
    extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
    signer: Issued | None = None,
) -> bytes:
    """Sign a CA's list, DER. ``since`` and ``until`` count from now; ``signer`` is who signs in its name."""
    now = datetime.now(UTC)
    made = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(by.cert.subject)
        .last_update(now + since)
        .next_update(now + until)
    )
    for extension, critical in extensions:
        made = made.add_extension(extension, critical=critical)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - timedelta(days=1))
        made = made.add_revoked_certificate(entry.build())
    return made.sign((signer or by).key, hashes.SHA256()).public_bytes(Encoding.DER)
