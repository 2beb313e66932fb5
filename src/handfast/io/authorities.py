"""A root and an issuing authority on disk: made once, opened at each start.

Decides when a directory is refused. Refuses to know leaves, what a root signs (`handfast.io.roots`), and how one authority
follows another (`handfast.io.generations`).

The root's key signs the issuing authority, who answers OCSP for it, and one empty revocation list, and is forgotten: nothing here
reads it again, so its file may be taken away and kept offline.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from cryptography.exceptions import InvalidSignature

from handfast.base.refusal import BadInput, Unavailable
from handfast.base.spiffe import TrustDomain
from handfast.io import files, key_places, off_loop
from handfast.io.authority_files import (
    BETWEEN,
    BETWEEN_CRLS,
    ISSUING,
    REQUESTED,
    RESTORE,
    ROOT,
    ROOT_CRL,
    alone,
    open_key,
    read_between,
    read_certificate,
    read_lists,
    root_crl,
    staged,
)
from handfast.io.ca_certificates import DEFAULT, Wanted
from handfast.io.ports import Clock, Signer
from handfast.io.roots import make_issuing, make_root
from handfast.io.sealed import Passphrase
from handfast.trust import revocation
from handfast.trust.algorithms import verify
from handfast.trust.facts import IssuerFacts, issuer_facts, load, pem
from handfast.trust.leaf import assemble
from handfast.trust.profile import UNREADABLE
from handfast.trust.revocation import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """One trust domain's root and issuing authority.

    ``sealed`` tells whether the issuing key is sealed at rest. ``root_crl_pem`` is the root's own list. ``roots`` are all that
    are delivered while one follows another (DER); without any, its own root alone is. ``between`` are CAs that stand between the
    two, from the issuing CA upwards (DER), and ``between_crls`` their lists (PEM).
    """

    trust_domain: TrustDomain
    root_der: bytes
    root_crl_pem: str
    issuing_der: bytes
    issuer_facts: IssuerFacts
    signer: Signer
    sealed: bool
    roots: tuple[bytes, ...] = ()
    between: tuple[bytes, ...] = ()
    between_crls: tuple[str, ...] = ()

    @property
    def above(self) -> bytes:
        """The CA that signed the issuing one (DER): the root, or the first between."""
        return (*self.between, self.root_der)[0]

    @property
    def current(self) -> Authority:
        """Itself: an authority that nobody rotates is the one that issues."""
        return self

    @property
    def bundle_pem(self) -> str:
        """The roots of the trust domain: what a peer trusts."""
        return "".join(map(_pem, self.roots or (self.root_der,)))

    @property
    def chain_pem(self) -> str:
        """What a peer sends after its leaf."""
        return "".join(map(_pem, (self.issuing_der, *self.between)))

    async def crl(self, revoked: Collection[Entry], number: int, now: datetime) -> str:
        """Make the issuing authority's revocation list (PEM; Envoy takes no DER), due again in 7 days; ``revoked`` are not expired.

        Written from a template and signed through `Signer`, as leaves are: the builder of `cryptography` wants the private key
        itself, and a token or a network service has none to give. What comes back is checked before it is given out.

        Raises:
            BadInput: ``number`` is not one of a CRL.
            Unavailable: the key cannot be used now, or gave a signature that is not its own.
        """
        many = len(revoked) > off_loop.MANY
        listed = await off_loop.run(self._unsigned_crl, revoked, number, now, long=many)
        signature = await self.signer.sign(listed)
        return await off_loop.run(self._signed_crl, listed, signature, long=many)

    def _unsigned_crl(self, revoked: Collection[Entry], number: int, now: datetime) -> bytes:
        return revocation.long_tbs(revoked, self.issuer_facts, number=number, now=now)

    def _signed_crl(self, listed: bytes, signature: bytes) -> str:
        try:
            verify(signature, listed, self.issuer_facts.public_key_der)
        except InvalidSignature as error:
            raise Unavailable("the signer gave a signature that is not the issuing authority's") from error
        return pem(assemble(listed, signature), "X509 CRL")


_pem = lru_cache(maxsize=64)(pem)
"""Goes with each leaf, and is of few certificates."""


def create_authority(
    directory: Path,
    trust_domain: TrustDomain,
    clock: Clock,
    passphrase: Passphrase | None,
    wanted: Wanted = DEFAULT,
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
            make_issuing(stage, make_root(stage, trust_domain, now, passphrase), now, passphrase, wanted)
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
    root, issuing = read_certificate(above / ROOT), read_certificate(directory / ISSUING)
    between = read_between(directory)
    _check_chain((root,), above / ROOT)
    _check_chain((issuing, *between, root), directory / ISSUING)
    found, root_found = _issuer(directory / ISSUING, issuing), _issuer(above / ROOT, root, trust_domain)
    middle = [_issuer(directory / BETWEEN, der, trust_domain) for der in between]
    for path, seen in ((above / ROOT, root_found), (directory / ISSUING, found)):
        if seen.trust_domain != trust_domain:
            raise BadInput(
                f"this authority is of {seen.trust_domain}, not of {trust_domain}",
                file=str(path),
                hint="a trust domain has a data directory of its own: name another with --data",
            )
    files.check_secret(key_places.file_of(above, key_places.ROOT))
    files.check_secret(key_places.file_of(directory, key_places.RESPONDER))
    root_list, lists = root_crl(above / ROOT_CRL, root), read_lists(directory / BETWEEN_CRLS, between)
    signer, safe = open_key(directory, passphrase, found.public_key_der)
    return Authority(
        trust_domain=trust_domain,
        root_der=root,
        root_crl_pem=root_list,
        issuing_der=issuing,
        issuer_facts=replace(found, constraints=sum((one.constraints for one in (root_found, *middle, found)), ())),
        signer=signer,
        sealed=safe,
        between=between,
        between_crls=lists,
    )


def _issuer(path: Path, der: bytes, nameless: TrustDomain | None = None) -> IssuerFacts:
    try:
        return issuer_facts(der, nameless)
    except BadInput as error:
        raise error.at(file=str(path)) from error


def _check_chain(chain: Sequence[bytes], path: Path) -> None:
    """Check that each was signed by the next, and the last by itself."""
    for lower, upper in pairwise((*chain, chain[-1])):
        try:
            load(lower).verify_directly_issued_by(load(upper))
        except (InvalidSignature, *UNREADABLE) as error:
            by = ROOT if upper == chain[-1] else BETWEEN
            raise BadInput(f"this certificate is not signed by {by}", file=str(path), hint=RESTORE) from error
