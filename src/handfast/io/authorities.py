"""A root and an issuing authority on disk: made once, opened at each start.

Decides what the two certificates say, which files there are, and when a directory is refused. Refuses to know leaves, and how
one authority follows another (`handfast.io.generations`).

The root's key signs the issuing authority and one empty revocation list, and is forgotten: nothing here reads it again, so its
file may be taken away and kept offline. The list counts as long as the root does, because TLS with revocation lists
wants one of every issuer in a chain, the root included.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from handfast.base.refusal import BadInput, Unavailable
from handfast.base.spiffe import TrustDomain
from handfast.base.windows import Window, whole_second
from handfast.io import files, key_places, sealed
from handfast.io.ca_certificates import DEFAULT, Wanted, certify, certify_root, like
from handfast.io.ports import Clock, Signer
from handfast.io.sealed import Passphrase
from handfast.io.signers import AuthorityKey, KeyKind, new_authority_key, sign_with
from handfast.trust import revocation
from handfast.trust.algorithms import PublicKey, verify
from handfast.trust.ca import ROOT_KIND, CaPlan, issuing_plan, within
from handfast.trust.facts import IssuerFacts, facts, issuer_facts, load, pem, pem_certificates
from handfast.trust.leaf import assemble
from handfast.trust.profile import BACKDATE, UNREADABLE
from handfast.trust.revocation import Revoked, crl_plan

ROOT_LIFE = timedelta(days=3652)
ISSUING_LIFE = timedelta(days=365)

ROOT, ROOT_KEY, ROOT_CRL = "root.pem", "root-key.pem", "root.crl.pem"
REQUESTED = "authority-requested"
ISSUING, ISSUING_KEY = "issuing.pem", "issuing-key.pem"

_FIRST_CRL = 1
_RESTORE = "restore the directory from its backup, whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """One trust domain's root and issuing authority.

    ``sealed`` tells whether the issuing key is sealed at rest. ``root_crl_pem`` is the root's own list. ``roots`` are all that
    are delivered while one follows another (DER); without any, its own root alone is.
    """

    trust_domain: TrustDomain
    root_der: bytes
    root_crl_pem: str
    issuing_der: bytes
    issuer_facts: IssuerFacts
    signer: Signer
    sealed: bool
    roots: tuple[bytes, ...] = ()

    @property
    def current(self) -> Authority:
        """Itself: an authority that nobody rotates is the one that issues."""
        return self

    @property
    def bundle_pem(self) -> str:
        """The roots of the trust domain: what a peer trusts."""
        return "".join(map(pem, self.roots or (self.root_der,)))

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
    with alone(directory.parent):
        if directory.is_dir() and any(directory.iterdir()):
            raise BadInput("there is something in this directory already", file=str(directory), hint="choose another")
        if (directory.parent / REQUESTED).exists():
            # Whoever asked a root elsewhere for an issuing CA must not be given one of another root meanwhile.
            raise BadInput(
                "an issuing CA was requested from a root elsewhere, and is not installed yet",
                file=str(directory.parent / REQUESTED),
                hint="finish with 'handfast ca install', or remove this directory",
            )
        with staged(directory) as stage:
            make_issuing(stage, make_root(stage, trust_domain, now, passphrase), now, passphrase)
    return open_authority(directory, trust_domain, passphrase)


def open_authority(
    directory: Path, trust_domain: TrustDomain, passphrase: Passphrase | None, *, root_directory: Path | None = None
) -> Authority:
    """Open what `create_authority` made. The root's key is not read, and need not be there; its mode is checked if it is.

    The root lies in ``root_directory`` where it is one that came with an earlier issuing authority. An authority that has
    expired opens: what it issues is refused by the plan, with its reason.

    Raises:
        BadInput: a file is missing, damaged, open to others, or does not belong to the others; names the file.
    """
    above = root_directory or directory
    root, issuing = _certificate(above / ROOT), _certificate(directory / ISSUING)
    _check_issued(root, by=root, path=above / ROOT)
    _check_issued(issuing, by=root, path=directory / ISSUING)
    found, root_found = _issuer(directory / ISSUING, issuing), _issuer(above / ROOT, root, trust_domain)
    for path, seen in ((above / ROOT, root_found), (directory / ISSUING, found)):
        if seen.trust_domain != trust_domain:
            raise BadInput(f"this authority is of {seen.trust_domain}, not of {trust_domain}", file=str(path))
    files.check_secret(above / ROOT_KEY)
    signer, safe = key_places.open_signer(directory, passphrase)
    if signer.public_key_der != found.public_key_der:
        key_places.close(signer)
        key_file = str(key_places.file_of(directory))
        raise BadInput(f"this key is not the one in {ISSUING}", file=key_file, hint=_RESTORE)
    return Authority(
        trust_domain=trust_domain,
        root_der=_der(root),
        root_crl_pem=root_crl(above / ROOT_CRL, _der(root)),
        issuing_der=_der(issuing),
        issuer_facts=replace(found, constraints=(*root_found.constraints, *found.constraints)),
        signer=signer,
        sealed=safe,
    )


@contextlib.contextmanager
def alone(parent: Path) -> Iterator[None]:
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
def staged(directory: Path) -> Iterator[Path]:
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
class OpenRoot:
    """A root with its key at hand: for as long as it takes to sign an issuing authority, and no longer."""

    der: bytes
    trust_domain: TrustDomain
    key: AuthorityKey = field(repr=False)

    def crl(self, now: datetime, revoked: Iterable[Revoked] = (), number: int = _FIRST_CRL) -> str:
        """Sign a list of revoked issuing authorities, which counts for as long as the root does (PEM)."""
        root = issuer_facts(self.der, self.trust_domain)
        listed = revocation.tbs(crl_plan(revoked, root, number=number, now=now, until=root.window.not_after))
        return pem(assemble(listed, sign_with(self.key, listed)), "X509 CRL")


def make_root(
    stage: Path,
    trust_domain: TrustDomain,
    now: datetime,
    passphrase: Passphrase | None,
    kind: KeyKind = KeyKind.P256,
) -> OpenRoot:
    """Make a root with its key and its empty revocation list, as files in ``stage``."""
    begin, key = whole_second(now) - BACKDATE, new_authority_key(kind)
    plan = CaPlan(kind=ROOT_KIND, trust_domain=trust_domain, path_length=1)
    root = OpenRoot(certify_root(plan, Window(begin, begin + ROOT_LIFE), key), trust_domain, key)
    sealed.write_key(stage / ROOT_KEY, key, passphrase)
    put_root(stage, root, now)
    return root


def put_root(stage: Path, root: OpenRoot, now: datetime) -> None:
    """Write a root and its empty revocation list, but not its key."""
    files.write(stage / ROOT, pem(root.der).encode())
    files.write(stage / ROOT_CRL, root.crl(now).encode())


def make_issuing(
    stage: Path, root: OpenRoot, now: datetime, passphrase: Passphrase | None, wanted: Wanted = DEFAULT
) -> None:
    """Make an issuing authority under ``root``, as files in ``stage``. It does not outlive its root.

    Raises:
        BadInput: its token or key cannot be used, or the root does not permit the names that are wanted.
        Unavailable: the token or the disk does not answer.
    """
    begin, root_window = whole_second(now) - BACKDATE, facts(root.der).window
    window = Window(max(begin, root_window.not_before), min(begin + ISSUING_LIFE, root_window.not_after))
    plan = issuing_plan(root.trust_domain, within(wanted.constraints, root.der))
    signer = key_places.put(stage, wanted.key, passphrase)
    key_places.close(signer)
    der = certify(plan, window, signer.public_key_der, root.der, root.key)
    files.write(stage / ISSUING, pem(der).encode())


def successor_of(directory: Path) -> Wanted:
    """Tell what the issuing authority after the one in ``directory`` is to be like.

    Raises:
        BadInput: its key lies in a token, where none is made from here: a file in its place would be weaker.
    """
    if (directory / key_places.TOKEN_FILE).exists():
        raise BadInput(
            "the issuing key lies in a token, and the next one has to be made there",
            file=str(directory / key_places.TOKEN_FILE),
            hint="make a key in the token, and name it with 'handfast ca next --key pkcs11:…'",
        )
    return like(_der(_certificate(directory / ISSUING)))


def open_root(directory: Path, trust_domain: TrustDomain, passphrase: Passphrase | None) -> OpenRoot:
    """Open the root in ``directory`` with its key, which may have been taken offline since.

    Raises:
        BadInput: the key is not there, cannot be read, or is not that of the certificate.
    """
    path, root = directory / ROOT_KEY, _certificate(directory / ROOT)
    if not path.exists():
        raise BadInput(
            "the root's key is not here",
            file=str(path),
            hint="put it back for as long as the root has to sign; it is not read at any other time",
        )
    key = sealed.read_key(path, passphrase)
    if key.public_key() != root.public_key():
        raise BadInput(f"this key is not the one in {ROOT}", file=str(path), hint=_RESTORE)
    return OpenRoot(_der(root), trust_domain, key)


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


def _issuer(path: Path, certificate: x509.Certificate, nameless: TrustDomain | None = None) -> IssuerFacts:
    try:
        return issuer_facts(_der(certificate), nameless)
    except BadInput as error:
        raise error.at(file=str(path)) from error


def _check_issued(certificate: x509.Certificate, *, by: x509.Certificate, path: Path) -> None:
    try:
        certificate.verify_directly_issued_by(by)
    except (InvalidSignature, *UNREADABLE) as error:
        raise BadInput(f"this certificate is not signed by {ROOT}", file=str(path), hint=_RESTORE) from error


def root_crl(path: Path, root_der: bytes) -> str:
    """Read one of the root's revocation lists (PEM).

    Raises:
        BadInput: it is not there, cannot be read, or is another's; names the file.
    """
    text, root = files.read(path), load(root_der)
    try:
        listed, key = x509.load_pem_x509_crl(text), root.public_key()
        valid = isinstance(key, PublicKey) and listed.is_signature_valid(key)
    except UNREADABLE as error:
        raise BadInput("the revocation list cannot be read", file=str(path), hint=_RESTORE) from error
    if not valid or listed.issuer != root.subject:
        raise BadInput(f"this revocation list is not signed by {ROOT}", file=str(path), hint=_RESTORE)
    return pem(listed.public_bytes(Encoding.DER), "X509 CRL")


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
