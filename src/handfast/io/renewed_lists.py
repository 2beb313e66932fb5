"""A newer revocation list of a CA above ours whose key is elsewhere, taken alone: nothing else is signed anew for it.

Decides whether it takes the place of the one that is here. It has to be of that CA, and no older; to count until every issuing CA
below it ends, as nobody here can renew it; to revoke none that issues here; and to revoke whom the list here revokes. Refuses to know
who counts by the ledger: an issuing CA whose key is here counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from handfast.base.refusal import BadInput
from handfast.io import authority_files, files, key_places
from handfast.io.authority_graph import places_of
from handfast.io.generations import REVOKING_CRL
from handfast.io.next_authority import SIGNED
from handfast.io.signed_chains import NOT_NOW, check_due, read_list, refuse_older
from handfast.trust.delegation import issued
from handfast.trust.facts import facts, load, pem

MOST_LISTS = 16
Crl = x509.CertificateRevocationList


@dataclass(frozen=True, slots=True)
class _Held:
    """One list that is here: whose (DER), and at which place of which file."""

    ca: bytes
    file: Path
    at: int
    crl: Crl


@dataclass(frozen=True, slots=True)
class _Chain:
    """An issuing CA here and all above it, from below (DER); ``lives``: its key is here."""

    ders: tuple[bytes, ...]
    lives: bool


def renew(authority: Path, text: bytes, now: datetime) -> tuple[str, ...]:
    """Take the lists in a PEM text in place of those in the directory ``authority``, and in what waits there for a rotation.

    A server that runs takes them up by itself, the next time that it looks at its authorities.

    Returns:
        The names of the CAs whose lists they are.

    Raises:
        BadInput: there is no list in it, or one of them will not do. Then none is taken.
        Unavailable: another process makes an authority here now, or the disk does not answer.
    """
    given = authority_files.split_lists(text)
    if not 1 <= len(given) <= MOST_LISTS:
        raise BadInput(f"there are {len(given)} revocation lists in it", hint=f"1 to {MOST_LISTS} are wanted, in PEM")
    with authority_files.alone(authority.parent):
        places = _places(authority)
        held = [one for place in places for one in _held(place, places)]
        chains = [one for place in places for one in _chains(place, places)]
        new = [(one, _judged(one, held, chains, now)) for one in map(read_list, given)]
        for file in dict.fromkeys(one.file for _, found in new for one in found):
            lists = {one.at: _newest(one, new) for one in held if one.file == file}
            texts = (pem(one.public_bytes(Encoding.DER), "X509 CRL") for _, one in sorted(lists.items()))
            files.write(file, "".join(texts).encode())
    return tuple(dict.fromkeys(facts(found[0].ca).subject for _, found in new))


def _newest(held: _Held, new: Iterable[tuple[Crl, list[_Held]]]) -> Crl:
    came = (one for one, found in new if any(seen is held for seen in found))
    return max(came, key=lambda one: one.last_update_utc, default=held.crl)


# What is here


def _places(authority: Path) -> list[Path]:
    if not (authority / authority_files.ISSUING).exists():
        raise BadInput(
            "there is no authority here", file=str(authority), hint="'handfast ca install' wants a chain first"
        )
    waiting = authority / SIGNED
    return [*places_of(authority), *([waiting] if waiting.exists() else [])]


def _roots(places: Iterable[Path]) -> list[tuple[Path, bytes]]:
    found = (place for place in places if (place / authority_files.ROOT).exists())
    return [(place, authority_files.read_certificate(place / authority_files.ROOT)) for place in found]


def _held(place: Path, places: Sequence[Path]) -> Iterator[_Held]:
    for above, der in _roots(places):
        for file in (place / REVOKING_CRL, *([place / authority_files.ROOT_CRL] if above == place else [])):
            if file.exists() and authority_files.is_list_of(crl := read_list(files.read(file)), der):
                yield _Held(der, file, 0, crl)
    between = authority_files.read_between(place)
    file = place / authority_files.BETWEEN_CRLS
    for at, (der, text) in enumerate(zip(between, authority_files.read_lists(file, between), strict=True)):
        yield _Held(der, file, at, read_list(text.encode()))


def _chains(place: Path, places: Sequence[Path]) -> Iterator[_Chain]:
    if not (place / authority_files.ISSUING).exists():
        return
    ders = (authority_files.read_certificate(place / authority_files.ISSUING), *authority_files.read_between(place))
    lives = key_places.place_of(place).kind != "missing"
    for root in dict.fromkeys(der for _, der in _roots(places)):
        if issued(ders[-1], root):
            yield _Chain((*ders, root), lives)


# What comes


def _judged(new: Crl, held: Iterable[_Held], chains: Iterable[_Chain], now: datetime) -> list[_Held]:
    """Give the lists whose place a new one takes.

    Raises:
        BadInput: it will not do.
    """
    found = [one for one in held if authority_files.is_list_of(new, one.ca)]
    if not found:
        raise BadInput(
            "this revocation list is of no CA above those that issue here", hint="is it the root's that is here?"
        )
    _refuse_own(found)
    refuse_older(new, max(one.crl.last_update_utc for one in found))
    cas = {one.ca for one in found}
    below = [(chain, lower) for chain in chains for lower, upper in pairwise(chain.ders) if upper in cas]
    for chain, lower in below:
        if chain.lives and _revokes(new, lower):
            raise BadInput(f"this revocation list revokes {facts(lower).subject}, which is here", hint=NOT_NOW)
        if not _revokes(new, lower) and any(_revokes(one.crl, lower) for one in found) and now < _end(lower):
            raise BadInput(
                f"this revocation list does not revoke {facts(lower).subject}, and the one that is here does",
                hint=f"let its keeper revoke the serial number {facts(lower).serial} as well",
            )
    check_due(new, max([now, *(_end(chain.ders[0]) for chain, _ in below if chain.lives)]), now)
    return found


def _refuse_own(found: Iterable[_Held]) -> None:
    for one in found:
        if key_places.file_of(one.file.parent, key_places.ROOT).exists():
            raise BadInput(
                f"the key of {facts(one.ca).subject} is here: its lists are signed here",
                file=str(one.file.parent),
                hint="'handfast ca rotate' revokes an issuing CA",
            )


def _revokes(listed: Crl, der: bytes) -> bool:
    return listed.get_revoked_certificate_by_serial_number(load(der).serial_number) is not None


def _end(der: bytes) -> datetime:
    return load(der).not_valid_after_utc
