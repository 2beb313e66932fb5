"""The files of an authority: their names, how a directory of them appears whole, and how they are read back.

Decides when a directory is held against others, and that it appears by one rename or not at all. Refuses to know what is made
(`handfast.io.roots`), and what is opened (`handfast.io.authorities`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from handfast.base.refusal import BadInput, Unavailable
from handfast.io import files, key_places
from handfast.io.key_places import LocalSigner
from handfast.io.sealed import Passphrase
from handfast.trust.algorithms import PublicKey
from handfast.trust.facts import load, pem, pem_certificates
from handfast.trust.profile import UNREADABLE

ROOT, ROOT_KEY, ROOT_CRL = "root.pem", f"{key_places.ROOT}.pem", "root.crl.pem"
ISSUING, ISSUING_KEY = "issuing.pem", f"{key_places.ISSUING}.pem"
BETWEEN, BETWEEN_CRLS = "between.pem", "between.crl.pem"
RESPONDER, RESPONDER_KEY = "ocsp.pem", f"{key_places.RESPONDER}.pem"
AUTHORITY, REQUESTED = "authority", "authority-requested"
"""The authority's place in a data directory, and that of a request that waits for its answer."""
_CERTIFICATE_OF = {key_places.ROOT: ROOT, key_places.ISSUING: ISSUING}

RESTORE = "restore the directory from its backup, whole"
_CRL = re.compile(rb"-----BEGIN X509 CRL-----[A-Za-z0-9+/=\s]*-----END X509 CRL-----")


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


def open_key(
    directory: Path, passphrase: Passphrase | None, public_key_der: bytes, name: str = key_places.ISSUING
) -> tuple[LocalSigner, bool]:
    """Open the key of a CA, which has to be its certificate's; tell beside it whether it is safe at rest: sealed, or in a token.

    Raises:
        BadInput: there is none, it is another one, or it cannot be used.
        Unavailable: its token does not answer.
    """
    signer, safe = key_places.open_signer(directory, passphrase, name)
    if signer.public_key_der != public_key_der:
        key_places.close(signer)
        path, certificate = key_places.file_of(directory, name), _CERTIFICATE_OF[name]
        raise BadInput(f"this key is not the one in {certificate}", file=str(path), hint=RESTORE)
    return signer, safe


def read_certificate(path: Path) -> bytes:
    """Read the one certificate of a file (DER).

    Raises:
        BadInput: it is not there, cannot be read, or is not alone; names the file.
    """
    first, *others = read_certificates(path)
    if others:
        raise BadInput("there is more than one certificate in this file", file=str(path), hint=RESTORE)
    return first


def read_certificates(path: Path) -> tuple[bytes, ...]:
    """Read the certificates of a file (DER), in their order.

    Raises:
        BadInput: it is not there, or one cannot be read; names the file.
    """
    try:
        found = pem_certificates(files.read(path).decode("ascii", "replace"))
        for der in found:
            load(der)
    except BadInput as error:
        raise error.at(file=str(path)) from error
    return found


def read_between(directory: Path) -> tuple[bytes, ...]:
    """Read the CAs between an issuing CA and its root (DER), from the one that signed it upwards; mostly there are none."""
    path = directory / BETWEEN
    return read_certificates(path) if path.exists() else ()


def root_crl(path: Path, root_der: bytes) -> str:
    """Read one of the root's revocation lists (PEM).

    Raises:
        BadInput: it is not there, cannot be read, or is another's; names the file.
    """
    return _list(path, files.read(path), root_der, ROOT)


def read_lists(path: Path, issuers: Sequence[bytes]) -> tuple[str, ...]:
    """Read the revocation lists of these CAs (PEM), which stand in the same order in one file.

    Raises:
        BadInput: it is not there, or a list cannot be read, or is another's; names the file.
    """
    if not issuers:
        return ()
    texts = _CRL.findall(files.read(path))
    if len(texts) != len(issuers):
        raise BadInput(f"there is not one list for each CA of {BETWEEN}", file=str(path), hint=RESTORE)
    return tuple(_list(path, text, der, BETWEEN) for text, der in zip(texts, issuers, strict=True))


def is_list_of(listed: x509.CertificateRevocationList, issuer_der: bytes) -> bool:
    """Tell whether a CA signed a list under its own name. The name alone says nothing: a root and the next one have the same.

    Raises:
        BadInput: the certificate cannot be read.
    """
    issuer = load(issuer_der)
    try:
        key = issuer.public_key()
        return listed.issuer == issuer.subject and isinstance(key, PublicKey) and listed.is_signature_valid(key)
    except UNREADABLE:
        return False


def split_lists(text: bytes) -> list[bytes]:
    """Give each revocation list that stands in a PEM text."""
    return _CRL.findall(text)


def _list(path: Path, text: bytes, issuer_der: bytes, issuer_file: str) -> str:
    try:
        listed = x509.load_pem_x509_crl(text)
    except UNREADABLE as error:
        raise BadInput("the revocation list cannot be read", file=str(path), hint=RESTORE) from error
    if not is_list_of(listed, issuer_der):
        raise BadInput(f"this revocation list is not signed by {issuer_file}", file=str(path), hint=RESTORE)
    return pem(listed.public_bytes(Encoding.DER), "X509 CRL")
