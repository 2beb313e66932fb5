"""All authorities of one trust domain that follow one another: their files, and which of them counts for what.

Decides where a generation's files are, what is made for a new one, and what is destroyed of an old one. Refuses to decide in which
state a generation is: the ledger says, and `handfast.trust.rotation` decides.

The first generation is the directory that `create_authority` makes. Each later one has a directory below it, which appears by one
rename: an issuing authority, a root where that is a new one too, and a list of the root above that revokes the authority
before. That list is signed while the root's key is open anyway, and used only if it must be; so a root's key may lie in a safe
from one rotation to the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from handfast.base.refusal import BadInput, Unavailable
from handfast.base.spiffe import TrustDomain
from handfast.base.windows import Window
from handfast.io import authorities, authority_sources, files, key_places
from handfast.io.authorities import Authority, OpenRoot, open_authority, open_root
from handfast.io.ca_certificates import kind_of
from handfast.io.sealed import Passphrase
from handfast.trust import rotation
from handfast.trust.facts import facts, pem_certificates
from handfast.trust.renewal import Counting, counting
from handfast.trust.revocation import RevocationReason, Revoked
from handfast.trust.rotation import DELIVERED, Generation, Stage, by_number

LATER = "generations"
REVOKING_CRL = "revoking.crl.pem"
FIRST = 1


class Generations:
    """The authorities in ``directory``, in the states that were told to `settle` last."""

    def __init__(self, directory: Path, trust_domain: TrustDomain, passphrase: Passphrase | None) -> None:
        """Open nothing yet."""
        self._directory, self.trust_domain, self._passphrase = directory, trust_domain, passphrase
        self._opened: dict[int, Authority] = {}
        self.rows: rotation.Generations = ()
        self._behind = ""

    def first(self, since: datetime) -> rotation.Generations:
        """Give what the ledger has to know of a directory in which nothing was rotated yet.

        Raises:
            BadInput: it cannot be opened; or a later generation issued here already, so the ledger is not the one of these files.
        """
        if (self._directory / LATER).exists():
            raise BadInput(
                "these authorities were rotated, and this ledger knows nothing of it",
                file=str(self._directory / LATER),
                hint="restore ledger and authorities from the same backup",
            )
        return (_first(self._open(FIRST, FIRST), since),)

    # What counts

    @property
    def current(self) -> Authority:
        """The authority that issues, with all roots that are delivered.

        Raises:
            Unavailable: the ledger knows of states that the files here do not allow. Nothing may be issued then.
        """
        if self._behind:
            raise Unavailable(
                self._behind, hint="copy the directory 'authority' from the server that made the newest one"
            )
        one = self._opened[rotation.issuing(self.rows).number]
        return replace(one, roots=self.roots)

    @property
    def delivered(self) -> tuple[Authority, ...]:
        """All that count, the issuing one first."""
        now = rotation.issuing(self.rows).number
        return (self._opened[now], *(self._opened[row.number] for row in self._counting() if row.number != now))

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The roots that count (DER), each once, oldest first."""
        return tuple(dict.fromkeys(self._opened[row.number].root_der for row in self._counting()))

    @property
    def known_cas(self) -> tuple[bytes, ...]:
        """Roots and issuing authorities that count (DER)."""
        return (*self.roots, *(one.issuing_der for one in self.delivered))

    @property
    def counting(self) -> Counting:
        """What a holder's credential has to be of."""
        return counting(self.current.issuing_der, self.roots)

    def by_issuer(self, issuer: str) -> Authority | None:
        """Give the authority with this key identifier (hex), if it counts: a certificate's own chain, whoever issues by now."""
        return next((self._opened[row.number] for row in self._counting() if row.issuer == issuer), None)

    def accepts(self, issuer: str) -> bool:
        """Tell whether leaves of the CA with this key identifier (hex) count."""
        return any(row.issuer == issuer for row in self._counting())

    def revoked(self, now: datetime) -> bool:
        """Tell whether a root that counts has revoked an issuing authority that has not expired."""
        delivered = {row.root for row in self._counting()}
        return any(row.root in delivered and not row.ended(now) for row in self.rows if _is_revoked(row))

    def root_crls(self) -> tuple[str, ...]:
        """Give one list of each root that counts: its empty one, or the last that revokes an authority below it (PEM)."""
        return tuple(self._root_crl(number) for number in dict.fromkeys(row.root for row in self._counting()))

    def _root_crl(self, root: int) -> str:
        der = next(self._opened[row.number].root_der for row in self._counting() if row.root == root)
        after = [row for row in self.rows if (gone := self._before(row)) and gone.root == root and _is_revoked(gone)]
        # A root elsewhere puts what it revokes into its own list.
        revoking = [place for row in after if (place := self._place(row.number) / REVOKING_CRL).exists()]
        return authorities.root_crl(revoking[-1] if revoking else self._place(root) / authorities.ROOT_CRL, der)

    def _counting(self) -> Iterator[Generation]:
        return (row for row in self.rows if row.stage in DELIVERED)

    def _before(self, row: Generation) -> Generation | None:
        return by_number(self.rows, row.before) if row.before else None

    # What the ledger says

    def settle(self, rows: rotation.Generations) -> None:
        """Take the states as they are now: open what counts, let go of what does not, destroy the keys of what is over.

        Raises:
            BadInput: a file that is needed cannot be used. Nothing is issued any more until a later call succeeds: others go by
                the ledger's states already.
        """
        try:
            opened = {row.number: self._as_known(row) for row in rows if row.stage in DELIVERED}
        except BadInput as error:
            self._behind = str(error)
            raise
        over = [one for number, one in self._opened.items() if number not in opened]
        self._opened, self.rows, self._behind = opened, rows, ""
        for one in over:
            key_places.close(one.signer)
        for row in rows:
            if row.stage is Stage.RETIRED:
                self._destroy(row)

    def _as_known(self, row: Generation) -> Authority:
        opened = self._open(row.number, row.root)
        if opened.issuer_facts.key_id.hex() != row.issuer:
            place = self._place(row.number) / authorities.ISSUING
            raise BadInput("this is not the authority that the ledger knows", file=str(place))
        return opened

    def _open(self, number: int, root: int) -> Authority:
        if number in self._opened:
            return self._opened[number]
        place = self._place(number)
        return open_authority(place, self.trust_domain, self._passphrase, root_directory=self._place(root))

    def _destroy(self, gone: Generation) -> None:
        """Remove the issuing key, and the root's where that root is over, too. Certificates and lists stay."""
        keys = [self._place(gone.number) / authorities.ISSUING_KEY]
        if all(row.stage is Stage.RETIRED for row in self.rows if row.root == gone.root):
            keys.append(self._place(gone.root) / authorities.ROOT_KEY)
        for key in keys:
            if key.exists():
                with files.explained("removed", key):
                    key.unlink()
                    files.sync_directory(key.parent)

    def _place(self, number: int) -> Path:
        return self._directory if number == FIRST else self._directory / LATER / f"{number:04}"

    # What is made

    def check_root(self, above: int) -> None:
        """Check that the root of generation ``above`` can sign now.

        Raises:
            BadInput: its key is not there, or cannot be opened.
        """
        if authority_sources.waits(self._directory):
            return  # a root elsewhere has signed already
        open_root(self._place(above), self.trust_domain, self._passphrase)

    def make(self, one: Generation, rows: rotation.Generations, now: datetime) -> rotation.Generations:
        """Make keys and certificates of a generation, and give ``rows`` with what is known of it now.

        What is there already stays: doing it again changes nothing, also after a crash.

        Raises:
            BadInput: the root's key is not there, or the place cannot be written.
            Unavailable: another process makes authorities here now, or the disk is full or fails.
        """
        place = self._place(one.number)
        if not place.exists():
            files.private_directory(place.parent)
            with authorities.alone(place.parent), authorities.staged(place) as stage:
                self._fill(stage, one, rows, now)
        authority_sources.taken(self._directory, place)
        issuer, root = _facts(place / authorities.ISSUING), _facts(self._place(one.root) / authorities.ROOT)
        return rotation.made(rows, one.number, issuer=issuer[0], window=issuer[1], root_window=root[1])

    def _fill(self, stage: Path, one: Generation, rows: rotation.Generations, now: datetime) -> None:
        if one.root != one.number and authority_sources.waits(self._directory):
            self._take(stage, one, rows, now)
            return
        before = by_number(rows, one.before)
        wanted = authorities.successor_of(self._place(one.before))
        if one.root == one.number:
            kind = kind_of(_der(self._place(before.root) / authorities.ROOT))
            root = authorities.make_root(stage, self.trust_domain, now, self._passphrase, kind)
        else:
            root = self._root(one.root)
            files.write(stage / REVOKING_CRL, self._revoking(root, one, rows, now).encode())
        authorities.make_issuing(stage, root, now, self._passphrase, wanted)

    def _take(self, stage: Path, one: Generation, rows: rotation.Generations, now: datetime) -> None:
        """Use the issuing CA that was made or signed by hand. Without the root's key nothing can revoke the one before."""
        above = self._place(one.root)
        authority_sources.take(self._directory, stage, _der(above / authorities.ROOT))
        if by_number(rows, one.before).compromised or (above / authorities.ROOT_KEY).exists():
            files.write(stage / REVOKING_CRL, self._revoking(self._root(one.root), one, rows, now).encode())

    def _revoking(self, root: OpenRoot, new: Generation, rows: rotation.Generations, now: datetime) -> str:
        """Sign a list that revokes the authority before ``new``, and those that are compromised already."""
        gone = [row for row in rows if row.root == new.root and (row.number == new.before or row.compromised)]
        listed = [self._entry(row, now) for row in gone if row.issuer]
        return root.crl(now, listed, number=new.number)

    def _entry(self, gone: Generation, now: datetime) -> Revoked:
        seen = facts(_der(self._place(gone.number) / authorities.ISSUING))
        return Revoked(
            serial=seen.serial,
            fingerprint=seen.fingerprint,
            at=now,
            reason=RevocationReason.CA_COMPROMISE,
            not_after=seen.window.not_after,
        )

    def _root(self, number: int) -> OpenRoot:
        return open_root(self._place(number), self.trust_domain, self._passphrase)


def _is_revoked(row: Generation) -> bool:
    return row.compromised and row.stage is Stage.RETIRED


def _first(authority: Authority, since: datetime) -> Generation:
    return Generation(
        number=FIRST,
        root=FIRST,
        before=0,
        stage=Stage.ISSUING,
        since=since,
        issuer=authority.issuer_facts.key_id.hex(),
        window=authority.issuer_facts.window,
        root_window=facts(authority.root_der).window,
    )


def _facts(path: Path) -> tuple[str, Window]:
    seen = facts(_der(path))
    return seen.ski, seen.window


def _der(path: Path) -> bytes:
    try:
        return pem_certificates(files.read(path).decode("ascii", "replace"))[0]
    except BadInput as error:
        raise error.at(file=str(path)) from error
