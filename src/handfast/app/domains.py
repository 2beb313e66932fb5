"""Several trust domains in one server: each is a control plane of its own, with its authority, ledger, world, socket and API.

Nothing is shared but the process, and where that is PostgreSQL the database, in which each has a schema: so nothing of one can be accepted
for another, there is no list in which both stand, and a client of one does not get past the TLS of the other. The first trust domain lies in the data directory itself, the others in
``domains/NAME`` within it, where every command finds them by ``--data``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from handfast.base.refusal import BadInput
from handfast.base.spiffe import TrustDomain
from handfast.io.files import private_directory, read, write_secret
from handfast.trust.addresses import StatusSite

DIRECTORY, SETTINGS = "domains", "domain.json"
MOST_DOMAINS = 64


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What is written down of a trust domain: where its API, its metrics and its status listen, each an address and a port.

    With port 0 no status is served. ``status_url`` is what its certificates say of it, ``crl_shards`` how many revocation lists
    an issuer has, as with the first trust domain.
    """

    api: tuple[str, int]
    admin: tuple[str, int]
    status: tuple[str, int] = ("127.0.0.1", 0)
    status_url: str = ""
    crl_shards: int = 1

    @property
    def listening(self) -> Iterator[tuple[str, tuple[str, int]]]:
        """The option and the address of all that listens on a port of its own choice."""
        yield from (one for one in self._all() if one[1][1])

    def _all(self) -> Iterator[tuple[str, tuple[str, int]]]:
        yield "--api", self.api
        yield "--admin", self.admin
        yield "--status", self.status


@dataclass(frozen=True, slots=True)
class Domain:
    """One more trust domain of a server."""

    trust_domain: TrustDomain
    directory: Path
    settings: Settings


def domains(data: Path) -> list[Domain]:
    """Give the trust domains beside the first one, by name.

    Raises:
        BadInput: the settings of one cannot be read.
    """
    found = sorted((data / DIRECTORY).glob(f"*/{SETTINGS}"))
    return [_domain(file) for file in found[:MOST_DOMAINS]]


def add_domain(data: Path, trust_domain: TrustDomain, settings: Settings) -> Domain:
    """Write down one more trust domain. A server makes its authority at the next start.

    Raises:
        BadInput: the name cannot be a directory's, it is there already, there are 64, or the settings cannot be used.
    """
    if not trust_domain.name.strip("."):
        raise BadInput(f"{trust_domain.name!r} cannot be the name of a directory", hint="choose another trust domain")
    directory = data / DIRECTORY / trust_domain.name
    if directory.exists():
        raise BadInput(f"{trust_domain} is a trust domain of this server already", file=str(directory))
    known = domains(data)
    if len(known) >= MOST_DOMAINS:
        raise BadInput(f"a server has at most {MOST_DOMAINS} more trust domains", hint="start another server")
    _check(settings, known)
    private_directory(data)
    private_directory(data / DIRECTORY)
    private_directory(directory)
    return _written(directory, settings)


def change_domain(data: Path, trust_domain: TrustDomain, **changed: object) -> Domain:
    """Write down other settings of a trust domain that was added; they count when the server starts the next time.

    Raises:
        BadInput: it was never added, or the settings cannot be used.
    """
    known = {one.trust_domain: one for one in domains(data)}
    if not (found := known.pop(trust_domain, None)):
        raise BadInput(f"{trust_domain} was not added to this server", hint="see 'handfast domain list'")
    settings = msgspec.structs.replace(found.settings, **changed)
    _check(settings, known.values())
    return _written(found.directory, settings)


def _check(settings: Settings, others: Iterable[Domain]) -> None:
    taken = {address: one for one in others for _, address in one.settings.listening}
    for key, address in settings.listening:
        if clash := taken.get(address):
            raise BadInput(f"{address[0]}:{address[1]} is an address of {clash.trust_domain}", key=key)
    if settings.status_url:
        try:
            StatusSite(settings.status_url.rstrip("/"), settings.crl_shards)
        except BadInput as error:
            raise error.at(key="--status-url") from error


def _written(directory: Path, settings: Settings) -> Domain:
    write_secret(directory / SETTINGS, msgspec.json.encode(settings))
    return _domain(directory / SETTINGS)


def _domain(file: Path) -> Domain:
    try:
        settings = msgspec.json.decode(read(file), type=Settings)
        trust_domain = TrustDomain(file.parent.name)
    except msgspec.MsgspecError as error:
        raise BadInput(
            f"the settings cannot be read: {error}", file=str(file), hint="remove it, and add it anew"
        ) from error
    except BadInput as error:
        raise error.at(file=str(file)) from error
    return Domain(trust_domain, file.parent, settings)
