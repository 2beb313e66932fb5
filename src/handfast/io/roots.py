"""What a root signs: itself, issuing CAs, who answers OCSP for it, and its revocation lists.

Decides which files there are of it, and how long each counts. Refuses to know leaves, and in which directory what is made ends up.

A root's key is open for as long as it takes to sign, and no longer. It signs whoever answers OCSP in its place at the same time, so
it is not needed for answers. Its list counts as long as the root does, because TLS with revocation lists wants one of
every issuer in a chain, the root included.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from handfast.base.refusal import BadInput
from handfast.base.spiffe import TrustDomain
from handfast.base.windows import Window, whole_second
from handfast.io import files, key_places
from handfast.io.authority_files import (
    ISSUING,
    RESPONDER,
    ROOT,
    ROOT_CRL,
    open_key,
    read_certificate,
)
from handfast.io.ca_certificates import DEFAULT, Wanted, certify, like
from handfast.io.key_places import LocalSigner
from handfast.io.sealed import Passphrase
from handfast.io.signers import KeyKind
from handfast.io.token_uri import TokenUri
from handfast.trust import ca_bytes, revocation
from handfast.trust.ca import ROOT_KIND, CaPlan, issuing_plan, within
from handfast.trust.ca_bytes import Plan, Signatory
from handfast.trust.delegation import ResponderPlan
from handfast.trust.facts import facts, issuer_facts, pem
from handfast.trust.leaf import assemble
from handfast.trust.profile import BACKDATE
from handfast.trust.revocation import Revoked, crl_plan

ROOT_LIFE = timedelta(days=3652)
ISSUING_LIFE = timedelta(days=365)

_FIRST_CRL = 1


@dataclass(frozen=True, slots=True)
class OpenRoot:
    """A root with its key at hand: for as long as it takes to sign an issuing authority. Close it."""

    der: bytes
    trust_domain: TrustDomain
    signer: LocalSigner = field(repr=False)

    def crl(self, now: datetime, revoked: Iterable[Revoked] = (), number: int = _FIRST_CRL) -> str:
        """Sign a list of revoked issuing authorities, which counts for as long as the root does (PEM).

        Raises:
            Unavailable: its token does not answer.
        """
        root = issuer_facts(self.der, self.trust_domain)
        listed = revocation.tbs(crl_plan(revoked, root, number=number, now=now, until=root.window.not_after))
        return pem(assemble(listed, self.signer.sign_now(listed)), "X509 CRL")

    def certify(self, plan: Plan, window: Window, public_key_der: bytes) -> bytes:
        """Sign a certificate (DER).

        Raises:
            Unavailable: its token does not answer.
        """
        root = issuer_facts(self.der, self.trust_domain)
        by = Signatory(name=root.subject_der, public_key_der=root.public_key_der, key_id=root.key_id)
        return certify(plan, window, public_key_der, by, self.signer)

    def close(self) -> None:
        """Let go of its token, where the key lies in one."""
        key_places.close(self.signer)


def make_root(
    stage: Path,
    trust_domain: TrustDomain,
    now: datetime,
    passphrase: Passphrase | None,
    key: KeyKind | TokenUri = KeyKind.P256,
) -> OpenRoot:
    """Make a root with its key, or one for a key in a token, and its empty revocation list, as files in ``stage``.

    Raises:
        BadInput: the token or its key cannot be used.
        Unavailable: the token or the disk does not answer.
    """
    begin, signer = whole_second(now) - BACKDATE, key_places.put(stage, key, passphrase, key_places.ROOT)
    plan, public = CaPlan(kind=ROOT_KIND, trust_domain=trust_domain, path_length=1), signer.public_key_der
    itself = Signatory(name=plan.name.public_bytes(), public_key_der=public, key_id=ca_bytes.key_id(public))
    root = OpenRoot(certify(plan, Window(begin, begin + ROOT_LIFE), public, itself, signer), trust_domain, signer)
    put_root(stage, root, now)
    return root


def put_root(stage: Path, root: OpenRoot, now: datetime) -> None:
    """Write a root and its empty revocation list, but not its key."""
    files.write(stage / ROOT, pem(root.der).encode())
    files.write(stage / ROOT_CRL, root.crl(now).encode())


def make_issuing(
    stage: Path, root: OpenRoot, now: datetime, passphrase: Passphrase | None, wanted: Wanted = DEFAULT
) -> None:
    """Make an issuing authority under ``root``, and who answers OCSP for it, as files in ``stage``. Neither outlives the root.

    Raises:
        BadInput: its token or key cannot be used, or the root does not permit the names that are wanted.
        Unavailable: a token or the disk does not answer.
    """
    begin, root_window = whole_second(now) - BACKDATE, facts(root.der).window
    window = Window(max(begin, root_window.not_before), min(begin + ISSUING_LIFE, root_window.not_after))
    plan = issuing_plan(root.trust_domain, within(wanted.constraints, root.der), wanted.site)
    signer = key_places.put(stage, wanted.key, passphrase)
    key_places.close(signer)
    _write(stage / ISSUING, root.certify(plan, window, signer.public_key_der))
    answering = key_places.put(stage, KeyKind.P256, passphrase, key_places.RESPONDER)
    _write(stage / RESPONDER, root.certify(ResponderPlan(root.trust_domain), window, answering.public_key_der))


def successor_of(directory: Path) -> Wanted:
    """Tell what the issuing authority after the one in ``directory`` is to be like.

    Raises:
        BadInput: its key lies in a token, where none is made from here: a file in its place would be weaker.
    """
    _refuse_token(directory, key_places.ISSUING, "issuing", "handfast ca next --key pkcs11:…")
    return like(read_certificate(directory / ISSUING))


def refuse_token_root(directory: Path) -> None:
    """Refuse to make the root after the one in ``directory`` here, where that one's key lies in a token.

    Raises:
        BadInput: it does.
    """
    _refuse_token(directory, key_places.ROOT, "root's", "handfast ca next --new-root --root-key pkcs11:…")


def _refuse_token(directory: Path, name: str, whose: str, verb: str) -> None:
    if key_places.in_token(directory, name):
        raise BadInput(
            f"the {whose} key lies in a token, and the next one has to be made there",
            file=str(key_places.file_of(directory, name)),
            hint=f"make a key in the token, and name it with '{verb}'",
        )


def open_root(directory: Path, trust_domain: TrustDomain, passphrase: Passphrase | None) -> OpenRoot:
    """Open the root in ``directory`` with its key, which may have been taken offline since.

    Raises:
        BadInput: the key is not there, cannot be read, or is not that of the certificate, or its token cannot be used.
        Unavailable: its token does not answer.
    """
    path, der = key_places.file_of(directory, key_places.ROOT), read_certificate(directory / ROOT)
    if not path.exists():
        raise BadInput(
            "the root's key is not here",
            file=str(path),
            hint="put it back for as long as the root has to sign; it is not read at any other time",
        )
    signer, _ = open_key(directory, passphrase, issuer_facts(der, trust_domain).public_key_der, key_places.ROOT)
    return OpenRoot(der, trust_domain, signer)


def _write(path: Path, der: bytes) -> None:
    files.write(path, pem(der).encode())
