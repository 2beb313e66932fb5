"""All authorities of one trust domain that follow one another: their files, and which of them counts for what.

Decides where a generation's files are, what is made for a new one, and what is destroyed of an old one. Refuses to decide in which
state a generation is: the ledger says, and `handfast.trust.rotation` decides.

The first generation is the directory that `create_authority` makes. Each later one has a directory below it, which appears by one
rename: an issuing authority, who answers OCSP for it, a root where that is a new one too, and a list of the root above that
revokes the authority before. That list is signed while the root's key is open anyway, and used only if it must be; so a root's key may lie in a safe
from one rotation to the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from handfast.base.refusal import BadInput, Unavailable
from handfast.base.spiffe import TrustDomain
from handfast.base.windows import Window
from handfast.io import authority_files, files, key_places, next_authority, roots
from handfast.io.authorities import Authority, open_authority
from handfast.io.authority_graph import LATER, roots_here
from handfast.io.ca_certificates import kind_of
from handfast.io.roots import OpenRoot, open_root
from handfast.io.sealed import Passphrase
from handfast.trust import rotation
from handfast.trust.addresses import StatusSite
from handfast.trust.delegation import issued
from handfast.trust.facts import facts, pem_certificates
from handfast.trust.renewal import Counting, counting
from handfast.trust.revocation import RevocationReason, Revoked
from handfast.trust.rotation import DELIVERED, Generation, Stage, by_number

REVOKING_CRL = "revoking.crl.pem"
FIRST = 1
ListMark = tuple[int, int, int] | None
"""What tells one content of a list's file from the next: they are replaced, never written to. None where there is no file."""


class Generations:
    """The authorities in ``directory``, in the states that were told to `settle` last."""

    def __init__(
        self,
        directory: Path,
        trust_domain: TrustDomain,
        passphrase: Passphrase | None,
        site: StatusSite | None = None,
    ) -> None:
        """Open nothing yet. ``site`` is what the certificates of new issuing authorities name."""
        self._directory, self.trust_domain, self._passphrase, self._site = directory, trust_domain, passphrase, site
        self._opened: dict[int, Authority] = {}
        self.rows: rotation.Generations = ()
        self._behind = ""
        self._current: Authority | None = None

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
                self._behind,
                hint="copy the directory 'authority' from the server that made the newest one: by the database travel only "
                "generations whose keys are sealed, to servers that have the passphrase",
            )
        if self._current is None:
            self._current = replace(self._opened[rotation.issuing(self.rows).number], roots=self.roots)
        return self._current

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
        """Roots, issuing authorities and what is between them, as far as they count (DER)."""
        delivered = self.delivered
        between = dict.fromkeys(der for one in delivered for der in one.between)
        return (*self.roots, *between, *(one.issuing_der for one in delivered))

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
        """Give one list of each CA above those that issue (PEM): of each root that counts, and of each that is between.

        A root's is its empty one, or the last that revokes an authority below it.
        """
        roots_ = (self._root_crl(number) for number in dict.fromkeys(row.root for row in self._counting()))
        between: dict[bytes, str] = {}
        for row in self._counting():
            one, place = self._opened[row.number], self._place(row.number) / authority_files.BETWEEN_CRLS
            lists = authority_files.read_lists(place, one.between)  # anew: 'ca install' takes a newer one alone
            between.update(zip(one.between, lists, strict=True))  # the newest list of each
        return (*roots_, *between.values())

    def list_marks(self) -> tuple[ListMark, ...]:
        """Give what differs as soon as one of the files that `root_crls` reads is replaced, without reading them."""
        names = (authority_files.ROOT_CRL, authority_files.BETWEEN_CRLS, REVOKING_CRL)
        return tuple(_mark(self._place(row.number) / name) for row in self.rows for name in names)

    def issued_by(self, above: bytes) -> tuple[str, ...]:
        """Give the key identifiers (hex) of all issuing authorities here that a CA (DER) signed, those that are over too."""
        rows = (row for row in self.rows if (self._place(row.number) / authority_files.ISSUING).exists())
        return tuple(
            row.issuer for row in rows if issued(_der(self._place(row.number) / authority_files.ISSUING), above)
        )

    def directory_of(self, number: int) -> Path:
        """Give where the files of a generation are."""
        return self._place(number)

    def _root_crl(self, root: int) -> str:
        der = next(self._opened[row.number].root_der for row in self._counting() if row.root == root)
        after = [row for row in self.rows if (gone := self._before(row)) and gone.root == root and _is_revoked(gone)]
        # A root elsewhere puts what it revokes into its own list.
        revoking = [place for row in after if (place := self._place(row.number) / REVOKING_CRL).exists()]
        return authority_files.root_crl(revoking[-1] if revoking else self._place(root) / authority_files.ROOT_CRL, der)

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
        self._opened, self.rows, self._behind, self._current = opened, rows, "", None
        for one in over:
            key_places.close(one.signer)
        for row in rows:
            if row.stage is Stage.RETIRED:
                self._destroy(row)

    def _as_known(self, row: Generation) -> Authority:
        opened = self._open(row.number, row.root)
        if opened.issuer_facts.key_id.hex() != row.issuer:
            place = self._place(row.number) / authority_files.ISSUING
            raise BadInput("this is not the authority that the ledger knows", file=str(place))
        return opened

    def _open(self, number: int, root: int) -> Authority:
        if number in self._opened:
            return self._opened[number]
        place = self._place(number)
        return open_authority(place, self.trust_domain, self._passphrase, root_directory=self._place(root))

    def _destroy(self, gone: Generation) -> None:
        """Remove the issuing key and the responder's, and the root's where that root is over, too. Certificates and lists stay."""
        place = self._place(gone.number)
        keys = [place / authority_files.ISSUING_KEY, place / authority_files.RESPONDER_KEY]
        if all(row.stage is Stage.RETIRED for row in self.rows if row.root == gone.root):
            keys.append(self._place(gone.root) / authority_files.ROOT_KEY)
        for key in keys:
            if key.exists():
                with files.explained("removed", key):
                    key.unlink()
                    files.sync_directory(key.parent)

    def _place(self, number: int) -> Path:
        return place_of(self._directory, number)

    # What is made

    def check_root(self, above: int) -> None:
        """Check that the root of generation ``above`` can sign now; one that is still to be made, that it can be made here.

        Raises:
            BadInput: its key is not there, cannot be opened, or has to be made in a token; or what waits is of another root.
            Unavailable: its token does not answer.
        """
        if above > FIRST and all(row.number != above for row in self.rows):
            self._check_new_root(rotation.issuing(self.rows).root)
            return
        if next_authority.waits(self._directory):
            next_authority.require_root(self._directory, _der(self._place(above) / authority_files.ROOT))
            return  # it has signed already
        self._root(above).close()

    def in_token(self, root: int) -> bool:
        """Tell whether the key of a generation's root lies in a token, where it is made already."""
        return key_places.in_token(self._place(root), key_places.ROOT)

    def _check_new_root(self, before: int) -> None:
        if not self._new_root_waits():
            roots.refuse_token_root(self._place(before))

    def _new_root_waits(self) -> bool:
        """Tell whether an issuing CA waits below a root that never counted here."""
        return next_authority.waiting_root(self._directory) not in {None, *roots_here(self._directory)}

    def make(self, one: Generation, rows: rotation.Generations, now: datetime) -> rotation.Generations:
        """Make keys and certificates of a generation, and give ``rows`` with what is known of it now.

        What is there already stays: doing it again changes nothing, also after a crash.

        Raises:
            BadInput: the root's key is not there, or the place cannot be written.
            Unavailable: another process makes authorities here now, a token does not answer, or the disk is full or fails.
        """
        place = self._place(one.number)
        if not place.exists():
            files.private_directory(place.parent)
            with authority_files.alone(place.parent), authority_files.staged(place) as stage:
                self._fill(stage, one, rows, now)
        next_authority.taken(self._directory, place)
        issuer, root = _facts(place / authority_files.ISSUING), _facts(self._place(one.root) / authority_files.ROOT)
        return rotation.made(rows, one.number, issuer=issuer[0], window=issuer[1], root_window=root[1])

    def _fill(self, stage: Path, one: Generation, rows: rotation.Generations, now: datetime) -> None:
        if one.root == one.number:
            self._fill_root(stage, one, rows, now)
        elif next_authority.waits(self._directory):
            self._take(stage, one, rows, now)
        else:
            wanted = replace(roots.successor_of(self._place(one.before)), site=self._site)
            with closing(self._root(one.root)) as root:
                files.write(stage / REVOKING_CRL, self._revoking(root, one, rows, now).encode())
                roots.make_issuing(stage, root, now, self._passphrase, wanted)

    def _fill_root(self, stage: Path, one: Generation, rows: rotation.Generations, now: datetime) -> None:
        """Use the root that waits with its issuing CA, or make both."""
        if self._new_root_waits():
            next_authority.take(self._directory, stage)
            return
        above = self._place(by_number(rows, one.before).root)
        roots.refuse_token_root(above)
        wanted = replace(roots.successor_of(self._place(one.before)), site=self._site)
        kind = kind_of(_der(above / authority_files.ROOT))
        with closing(roots.make_root(stage, self.trust_domain, now, self._passphrase, kind)) as root:
            roots.make_issuing(stage, root, now, self._passphrase, wanted)

    def _take(self, stage: Path, one: Generation, rows: rotation.Generations, now: datetime) -> None:
        """Use the issuing CA that was made or signed by hand. Without the root's key nothing can revoke the one before."""
        above = self._place(one.root)
        next_authority.take(self._directory, stage, _der(above / authority_files.ROOT))
        if by_number(rows, one.before).compromised or key_places.file_of(above, key_places.ROOT).exists():
            with closing(self._root(one.root)) as root:
                files.write(stage / REVOKING_CRL, self._revoking(root, one, rows, now).encode())

    def _revoking(self, root: OpenRoot, new: Generation, rows: rotation.Generations, now: datetime) -> str:
        """Sign a list that revokes the authority before ``new``, and those that are compromised already."""
        gone = [row for row in rows if row.root == new.root and (row.number == new.before or row.compromised)]
        listed = [one for row in gone if row.issuer for one in self._entries(row, now)]
        return root.crl(now, listed, number=new.number)

    def _entries(self, gone: Generation, now: datetime) -> Iterator[Revoked]:
        """Give an authority, and who answers for it: that key lies beside its own."""
        for name in (authority_files.ISSUING, authority_files.RESPONDER):
            path = self._place(gone.number) / name
            if path.exists():
                seen = facts(_der(path))
                yield Revoked(
                    serial=seen.serial,
                    fingerprint=seen.fingerprint,
                    at=now,
                    reason=RevocationReason.CA_COMPROMISE,
                    not_after=seen.window.not_after,
                )

    def _root(self, number: int) -> OpenRoot:
        return open_root(self._place(number), self.trust_domain, self._passphrase)


def place_of(directory: Path, number: int) -> Path:
    """Give the directory of a generation, of the authorities in ``directory``."""
    return directory if number == FIRST else directory / LATER / f"{number:04}"


def _mark(path: Path) -> ListMark:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_ino, seen.st_mtime_ns, seen.st_size


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
