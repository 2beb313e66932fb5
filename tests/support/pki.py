"""Certificates for tests: good ones, and every kind of bad one.

A `Pki` makes a root and an issuing authority of its own, or stands on an existing one (`Pki.on`), so that a hostile leaf chains
to a real installation. `leaf` makes end-entity certificates that are right unless told otherwise.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
KeyKind = Literal["ec", "rsa", "rsa-1024"]
Eku = x509.ObjectIdentifier

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
BOTH = (CLIENT, SERVER)

_DAY = timedelta(days=1)
_SHA1_EC = bytes.fromhex("300906072a8648ce3d0401")  # ecdsa-with-SHA1, RFC 3279 section 2.2.3
_SHA1_RSA = bytes.fromhex("300d06092a864886f70d0101050500")  # sha1WithRSAEncryption, RFC 3279 section 2.2.1


class Files(NamedTuple):
    """Where a certificate's chain and key were written."""

    chain: Path
    key: Path


@dataclass(frozen=True)
class Issued:
    """A certificate and its key. ``above`` are the authorities that belong to its chain, without the root."""

    cert: x509.Certificate
    key: Key
    above: tuple[x509.Certificate, ...] = ()

    @property
    def cert_pem(self) -> bytes:
        """The certificate alone."""
        return self.cert.public_bytes(Encoding.PEM)

    @property
    def cert_der(self) -> bytes:
        """The certificate alone."""
        return self.cert.public_bytes(Encoding.DER)

    @property
    def chain_pem(self) -> bytes:
        """The certificate and the authorities between it and the root."""
        return self.cert_pem + b"".join(one.public_bytes(Encoding.PEM) for one in self.above)

    @property
    def key_pem(self) -> bytes:
        """The key, PKCS#8, without a passphrase."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def write(self, directory: Path, name: str) -> Files:
        """Write ``name.pem``, the chain, and ``name.key``, mode 0600."""
        files = Files(directory / f"{name}.pem", directory / f"{name}.key")
        files.chain.write_bytes(self.chain_pem)
        files.key.touch(0o600)
        files.key.write_bytes(self.key_pem)
        return files


class Pki:
    """A root and the authority under it that issues."""

    def __init__(
        self,
        name: str = "Test",
        *,
        issuing: Issued | None = None,
        root: x509.Certificate | None = None,
        between: bool = False,
    ) -> None:
        """Make both, or take those that are given (see `on`); with ``between`` there is a CA between the two."""
        self.name = name
        if issuing is None:
            top = _authority(f"{name} Root", None)
            middle = _authority(f"{name} Between", top) if between else top
            made = _authority(f"{name} Issuing", middle)
            issuing, root = Issued(made.cert, made.key, (middle.cert,) if between else ()), top.cert
        self.issuing, self.root = issuing, root

    @classmethod
    def on(cls, cert_pem: bytes, key_pem: bytes, *, above_pem: bytes = b"", root_pem: bytes = b"") -> Pki:
        """Stand on an existing authority: its certificate, its key, the authorities between it and its root, the root."""
        key = load_pem_private_key(key_pem, None)
        assert isinstance(key, Key)
        above = tuple(x509.load_pem_x509_certificates(above_pem)) if above_pem else ()
        issuing = Issued(x509.load_pem_x509_certificate(cert_pem), key, above)
        return cls("existing", issuing=issuing, root=x509.load_pem_x509_certificate(root_pem) if root_pem else None)

    @property
    def roots_pem(self) -> bytes:
        """The root, as a trust store has it."""
        assert self.root is not None
        return self.root.public_bytes(Encoding.PEM)

    def leaf(
        self,
        name: str = "client",
        *,
        eku: Iterable[Eku] | None = BOTH,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        key: KeyKind | Key = "ec",
        ca: bool = False,
        dns: Sequence[str] = ("localhost",),
        ips: Sequence[str] = ("127.0.0.1",),
        san_uris: Sequence[str] | None = None,
        self_signed: bool = False,
        sha1: bool = False,
        must_staple: bool = False,
    ) -> Issued:
        """Make an end-entity certificate, valid from an hour ago for a day.

        ``eku`` None leaves the extension out; ``ca`` makes an authority of it; ``sha1`` signs with SHA-1; ``self_signed`` leaves the
        issuer out of it. ``san_uris`` is ``spiffe://example.org/name`` unless given.
        """
        own = _key(key)
        start = not_before or datetime.now(UTC) - timedelta(hours=1)
        builder = (
            _begin(name, own, start, not_after or max(start, datetime.now(UTC)) + _DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(_usage(ca=ca), critical=True)
        )
        if eku is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(eku)), critical=False)
        if must_staple:
            builder = builder.add_extension(x509.TLSFeature([x509.TLSFeatureType.status_request]), critical=False)
        uris = (f"spiffe://example.org/{name}",) if san_uris is None else san_uris
        if names := _names(dns, ips, uris):
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if self_signed:
            return Issued(_sign(builder.issuer_name(_name(name)), own, sha1=sha1), own)
        above = () if self._is_root() else (self.issuing.cert, *self.issuing.above)
        return Issued(_sign(_under(builder, self.issuing), self.issuing.key, sha1=sha1), own, above)

    def expired(self, name: str = "expired") -> Issued:
        """Make a leaf that ended a day ago."""
        now = datetime.now(UTC)
        return self.leaf(name, not_before=now - 3 * _DAY, not_after=now - _DAY)

    def not_yet_valid(self, name: str = "early") -> Issued:
        """Make a leaf that begins tomorrow."""
        now = datetime.now(UTC)
        return self.leaf(name, not_before=now + _DAY, not_after=now + 2 * _DAY)

    def crl(self, *revoked: Issued, next_update: datetime | None = None) -> bytes:
        """Sign the issuing authority's revocation list, PEM. It counts from two days ago until tomorrow, unless told."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.issuing.cert.subject)
            .last_update(now - 2 * _DAY)
            .next_update(next_update or now + _DAY)
        )
        for one in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(one.cert.serial_number).revocation_date(now - _DAY)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.issuing.key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def _is_root(self) -> bool:
        return self.issuing.cert.subject == self.issuing.cert.issuer


def _authority(name: str, parent: Issued | None) -> Issued:
    key = _key("ec")
    now = datetime.now(UTC)
    builder = (
        _begin(name, key, now - 10 * _DAY, now + 3650 * _DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0 if parent else 1), critical=True)
        .add_extension(_usage(ca=True), critical=True)
    )
    if parent is None:
        return Issued(_sign(builder.issuer_name(_name(name)), key), key)
    return Issued(_sign(_under(builder, parent), parent.key), key)


def _begin(name: str, key: Key, start: datetime, end: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _under(builder: x509.CertificateBuilder, issuer: Issued) -> x509.CertificateBuilder:
    identifier = issuer.cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return builder.issuer_name(issuer.cert.subject).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _names(dns: Sequence[str], ips: Sequence[str], uris: Sequence[str]) -> list[x509.GeneralName]:
    return [
        *(x509.UniformResourceIdentifier(uri) for uri in uris),
        *(x509.DNSName(name) for name in dns),
        *(x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips),
    ]


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _key(kind: KeyKind | Key) -> Key:
    if kind == "ec":
        return ec.generate_private_key(ec.SECP256R1())
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    if kind == "rsa-1024":
        return rsa.generate_private_key(65537, 1024)
    assert isinstance(kind, Key)
    return kind


def _sign(builder: x509.CertificateBuilder, key: Key, *, sha1: bool = False) -> x509.Certificate:
    cert = builder.sign(key, hashes.SHA256())
    return _with_sha1(cert, key) if sha1 else cert


def _with_sha1(cert: x509.Certificate, key: Key) -> x509.Certificate:
    """Sign again with SHA-1, which the library's builder refuses: another AlgorithmIdentifier, inside and outside."""
    algorithm = _SHA1_RSA if isinstance(key, rsa.RSAPrivateKey) else _SHA1_EC
    version, serial, _, *rest = _elements(_elements(cert.tbs_certificate_bytes)[0][1])
    tbs = _sequence(version[0], serial[0], algorithm, *(whole for whole, _ in rest))
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(tbs, padding.PKCS1v15(), hashes.SHA1())
    else:
        signature = key.sign(tbs, ec.ECDSA(hashes.SHA1()))
    return x509.load_der_x509_certificate(_sequence(tbs, algorithm, _tlv(0x03, b"\0" + signature)))


def _elements(data: bytes) -> list[tuple[bytes, bytes]]:
    """Cut DER into its elements: each whole, and its content."""
    found, at = [], 0
    while at < len(data):
        begin, length = at + 2, data[at + 1]
        if length & 0x80:
            begin += length & 0x7F
            length = int.from_bytes(data[at + 2 : begin], "big")
        found.append((data[at : begin + length], data[begin : begin + length]))
        at = begin + length
    return found


def _sequence(*parts: bytes) -> bytes:
    return _tlv(0x30, b"".join(parts))


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    width = (size.bit_length() + 7) // 8
    return bytes([tag, 0x80 | width]) + size.to_bytes(width, "big") + content
