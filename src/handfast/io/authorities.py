"""A root and an issuing authority on disk: made once, opened at each start.

Decides what the two certificates say, which files there are, and when a directory is refused. Refuses to know leaves.

The root's key signs the issuing authority and one empty revocation list, and is forgotten: nothing here reads it again, so its
file may be taken away and kept offline. The list counts as long as the root does, because TLS with revocation lists
wants one of every issuer in a chain, the root included.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from handfast.base.refusal import BadInput, Unavailable
from handfast.base.spiffe import TrustDomain
from handfast.base.windows import Window, whole_second
from handfast.io import files, sealed
from handfast.io.ports import Clock, Signer
from handfast.io.sealed import Passphrase
from handfast.io.signers import KeySigner
from handfast.trust import revocation
from handfast.trust.facts import IssuerFacts, issuer_facts, load, pem, pem_certificates
from handfast.trust.leaf import assemble
from handfast.trust.lint import verify
from handfast.trust.plan import SERIAL_BYTES, serial_from
from handfast.trust.profile import BACKDATE, UNREADABLE
from handfast.trust.revocation import Revoked, crl_plan

ROOT_LIFE = timedelta(days=3652)
ISSUING_LIFE = timedelta(days=365)

ROOT, ROOT_KEY, ROOT_CRL = "root.pem", "root-key.pem", "root.crl.pem"
ISSUING, ISSUING_KEY = "issuing.pem", "issuing-key.pem"

_FIRST_CRL = 1
_SHA256 = hashes.SHA256()
_RESTORE = "restore the directory from its backup, whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """One trust domain's root and issuing authority.

    ``sealed`` tells whether the issuing key is sealed at rest. ``root_crl_pem`` is the root's own list.
    """

    trust_domain: TrustDomain
    root_der: bytes
    root_crl_pem: str
    issuing_der: bytes
    issuer_facts: IssuerFacts
    signer: Signer
    sealed: bool

    @property
    def bundle_pem(self) -> str:
        """The roots of the trust domain: what a peer trusts."""
        return pem(self.root_der)

    @property
    def chain_pem(self) -> str:
        """What a peer sends after its leaf."""
        return pem(self.issuing_der)

    async def crl(self, revoked: Iterable[Revoked], number: int, now: datetime) -> str:
        """Make the issuing authority's revocation list (PEM; Envoy takes no DER), due again in 7 days.

        Written from a template and signed through `Signer`, as leaves are: the builder of `cryptography` wants the private key
        itself, and a token or a network service has none to give. What comes back is checked before it is given out.

        Raises:
            BadInput: ``number`` is not one of a CRL.
            Unavailable: the key cannot be used now, or gave a signature that is not its own.
        """
        listed = revocation.tbs(crl_plan(revoked, self.issuer_facts, number=number, now=now))
        signature = await self.signer.sign(listed)
        try:
            verify(signature, listed, self.issuer_facts.public_key_der)
        except InvalidSignature as error:
            raise Unavailable("the signer gave a signature that is not the issuing authority's") from error
        return pem(assemble(listed, signature), "X509 CRL")


def create_authority(
    directory: Path, trust_domain: TrustDomain, clock: Clock, passphrase: Passphrase | None
) -> Authority:
    """Make a root and an issuing authority in ``directory``, which must not exist or be empty, and open them.

    The directory appears whole, by one rename, or not at all. What a crash left half made is cleared by the next call.

    Raises:
        BadInput: there is something already, or the place cannot be written.
        Unavailable: another process makes an authority beside it now, or the disk is full or fails.
    """
    now = clock.now()
    with _alone(directory.parent):
        if directory.is_dir() and any(directory.iterdir()):
            raise BadInput("there is something in this directory already", file=str(directory), hint="choose another")
        with _staged(directory) as stage:
            _make(stage, trust_domain, now, passphrase)
    return open_authority(directory, trust_domain, passphrase)


def open_authority(directory: Path, trust_domain: TrustDomain, passphrase: Passphrase | None) -> Authority:
    """Open what `create_authority` made. The root's key is not read, and need not be there; its mode is checked if it is.

    An authority that has expired opens: what it issues is refused by the plan, with its reason.

    Raises:
        BadInput: a file is missing, damaged, open to others, or does not belong to the others; names the file.
    """
    root, issuing = _certificate(directory / ROOT), _certificate(directory / ISSUING)
    _check_issued(root, by=root, path=directory / ROOT)
    _check_issued(issuing, by=root, path=directory / ISSUING)
    facts = _issuer(directory / ISSUING, issuing)
    for path, seen in ((directory / ROOT, _issuer(directory / ROOT, root)), (directory / ISSUING, facts)):
        if seen.trust_domain != trust_domain:
            raise BadInput(f"this authority is of {seen.trust_domain}, not of {trust_domain}", file=str(path))
    files.check_secret(directory / ROOT_KEY)
    key_file = directory / ISSUING_KEY
    text = files.read_secret(key_file)
    signer = _signer(key_file, sealed.unseal(text, passphrase, file=str(key_file)))
    if signer.public_key_der != facts.public_key_der:
        raise BadInput(f"this key is not the one in {ISSUING}", file=str(key_file), hint=_RESTORE)
    return Authority(
        trust_domain=trust_domain,
        root_der=_der(root),
        root_crl_pem=_root_crl(directory / ROOT_CRL, root),
        issuing_der=_der(issuing),
        issuer_facts=facts,
        signer=signer,
        sealed=sealed.is_sealed(text),
    )


@contextlib.contextmanager
def _alone(parent: Path) -> Iterator[None]:
    """Hold the parent directory against other processes that make an authority in it."""
    with files.explained("opened", parent):
        parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable(f"{parent}: another process makes an authority here now", hint="try again") from error
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _staged(directory: Path) -> Iterator[Path]:
    """Give a directory beside ``directory`` to fill, and put it in its place once it is."""
    stage = directory.with_name(f".{directory.name}.new")
    with files.explained("made", directory):
        if stage.exists():
            shutil.rmtree(stage)
        try:
            yield files.private_directory(stage)
            files.sync_directory(stage)
            stage.rename(directory)
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise
        files.sync_directory(directory.parent)


@dataclass(frozen=True, slots=True)
class _CaPlan:
    """What one of the two CA certificates will say."""

    kind: str
    trust_domain: TrustDomain
    window: Window
    path_length: int

    @property
    def name(self) -> x509.Name:
        """The kind and the trust domain, in the 64 characters of a common name."""
        text = f"{self.kind} {self.trust_domain}"
        if len(text) > 64:
            # Two long trust domains must not become the same name by being cut.
            text = f"{text[:50]}~{sha256(text.encode()).hexdigest()[:13]}"
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _make(stage: Path, trust_domain: TrustDomain, now: datetime, passphrase: Passphrase | None) -> None:
    begin = whole_second(now) - BACKDATE
    root = _CaPlan("Handfast root", trust_domain, Window(begin, begin + ROOT_LIFE), 1)
    issuing = _CaPlan("Handfast issuing CA", trust_domain, Window(begin, begin + ISSUING_LIFE), 0)
    root_key, issuing_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_der = _certify(root, root_key.public_key(), root.name, root_key)
    issuing_der = _certify(issuing, issuing_key.public_key(), root.name, root_key)
    sealed.write_key(stage / ROOT_KEY, root_key, passphrase)
    sealed.write_key(stage / ISSUING_KEY, issuing_key, passphrase)
    files.write(stage / ROOT, pem(root_der).encode())
    files.write(stage / ISSUING, pem(issuing_der).encode())
    files.write(stage / ROOT_CRL, _empty_crl(issuer_facts(root_der), root_key, now).encode())


def _certify(
    ca: _CaPlan, key: ec.EllipticCurvePublicKey, issuer: x509.Name, signing: ec.EllipticCurvePrivateKey
) -> bytes:
    """Sign a CA certificate (RFC 5280 section 4.2.1; X509-SVID section 4: a signing certificate's id has no path)."""
    ski = x509.SubjectKeyIdentifier.from_public_key(key)
    aki = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key())
    identity = x509.UniformResourceIdentifier(f"spiffe://{ca.trust_domain}")
    certificate = (
        x509.CertificateBuilder(subject_name=ca.name, issuer_name=issuer, public_key=key)
        .serial_number(serial_from(secrets.token_bytes(SERIAL_BYTES)))
        .not_valid_before(ca.window.not_before)
        .not_valid_after(ca.window.not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=ca.path_length), critical=True)
        .add_extension(_ca_usage(), critical=True)
        .add_extension(x509.SubjectAlternativeName([identity]), critical=False)
        .add_extension(ski, critical=False)
        .add_extension(aki, critical=False)
        .sign(signing, _SHA256)
    )
    return _der(certificate)


def _ca_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _empty_crl(root: IssuerFacts, key: ec.EllipticCurvePrivateKey, now: datetime) -> str:
    listed = revocation.tbs(crl_plan((), root, number=_FIRST_CRL, now=now, until=root.window.not_after))
    return pem(assemble(listed, key.sign(listed, ec.ECDSA(_SHA256))), "X509 CRL")


def _certificate(path: Path) -> x509.Certificate:
    text = files.read(path).decode("ascii", "replace")
    try:
        first, *others = pem_certificates(text)
        certificate = load(first)
    except BadInput as error:
        raise error.at(file=str(path)) from error
    if others:
        raise BadInput("there is more than one certificate in this file", file=str(path), hint=_RESTORE)
    return certificate


def _issuer(path: Path, certificate: x509.Certificate) -> IssuerFacts:
    try:
        return issuer_facts(_der(certificate))
    except BadInput as error:
        raise error.at(file=str(path)) from error


def _check_issued(certificate: x509.Certificate, *, by: x509.Certificate, path: Path) -> None:
    try:
        certificate.verify_directly_issued_by(by)
    except (InvalidSignature, *UNREADABLE) as error:
        raise BadInput(f"this certificate is not signed by {ROOT}", file=str(path), hint=_RESTORE) from error


def _signer(path: Path, key: ec.EllipticCurvePrivateKey) -> KeySigner:
    try:
        return KeySigner(key)
    except BadInput as error:
        raise error.at(file=str(path)) from error


def _root_crl(path: Path, root: x509.Certificate) -> str:
    text = files.read(path)
    try:
        listed, key = x509.load_pem_x509_crl(text), root.public_key()
        valid = isinstance(key, ec.EllipticCurvePublicKey) and listed.is_signature_valid(key)
    except UNREADABLE as error:
        raise BadInput("the revocation list cannot be read", file=str(path), hint=_RESTORE) from error
    if not valid or listed.issuer != root.subject:
        raise BadInput(f"this revocation list is not signed by {ROOT}", file=str(path), hint=_RESTORE)
    return pem(listed.public_bytes(Encoding.DER), "X509 CRL")


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
