"""Several trust domains in one server: each is a control plane of its own, with its authority, ledger, world, socket and API.

Nothing is shared but the process, so nothing of one can be accepted for another: there is no list in which both stand, and a
client of one does not get past the TLS of the other. The first trust domain lies in the data directory itself, the others in
``domains/NAME`` within it, where every command finds them by ``--data``.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from handfast.app.server.build import Server, ServerConfig, build_server
from handfast.app.server.status import NO_STATUS
from handfast.base.refusal import BadInput
from handfast.base.spiffe import TrustDomain
from handfast.io.files import private_directory, read, write_secret
from handfast.io.ports import Clock

DIRECTORY, SETTINGS = "domains", "domain.json"
MOST_DOMAINS = 64


class _Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is written down of a trust domain: where its API and its metrics listen."""

    api: tuple[str, int]
    admin: tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """One more trust domain of a server. ``api`` and ``admin`` are address and port."""

    trust_domain: TrustDomain
    directory: Path
    api: tuple[str, int]
    admin: tuple[str, int]


def domains(data: Path) -> list[Domain]:
    """Give the trust domains beside the first one, by name.

    Raises:
        BadInput: the settings of one cannot be read.
    """
    found = sorted((data / DIRECTORY).glob(f"*/{SETTINGS}"))
    return [_domain(file) for file in found[:MOST_DOMAINS]]


def add_domain(data: Path, trust_domain: TrustDomain, api: tuple[str, int], admin: tuple[str, int]) -> Domain:
    """Write down one more trust domain. A server makes its authority at the next start.

    Raises:
        BadInput: the name cannot be a directory's, it is there already, there are 64, or an address is another one's.
    """
    if not trust_domain.name.strip("."):
        raise BadInput(f"{trust_domain.name!r} cannot be the name of a directory", hint="choose another trust domain")
    known = domains(data)
    directory = data / DIRECTORY / trust_domain.name
    if directory.exists():
        raise BadInput(f"{trust_domain} is a trust domain of this server already", file=str(directory))
    if len(known) >= MOST_DOMAINS:
        raise BadInput(f"a server has at most {MOST_DOMAINS} more trust domains", hint="start another server")
    for key, address in (("--api", api), ("--admin", admin)):
        if clash := [one for one in known if address[1] and address in {one.api, one.admin}]:
            raise BadInput(f"{address[0]}:{address[1]} is an address of {clash[0].trust_domain}", key=key)
    private_directory(data)
    private_directory(data / DIRECTORY)
    private_directory(directory)
    write_secret(directory / SETTINGS, msgspec.json.encode(_Settings(api, admin)))
    return _domain(directory / SETTINGS)


async def start_domains(first: ServerConfig, clock: Clock, stack: contextlib.AsyncExitStack) -> list[Server]:
    """Start the servers of all trust domains beside the ``first``; ``stack`` stops them.

    They are started as the first is, but for what belongs to one alone: its directory, its addresses, its database.

    Raises:
        HandfastError: one cannot be started, or has the name of the first.
    """
    started = []
    for one in domains(first.directory):
        if one.trust_domain == first.trust_domain:
            raise BadInput(
                f"{one.trust_domain} is this server's first trust domain", file=str(one.directory), hint="move it away"
            )
        server = await build_server(_config(one, first), clock)
        stack.push_async_callback(server.stop)
        await server.start()
        started.append(server)
    return started


def _config(one: Domain, first: ServerConfig) -> ServerConfig:
    return replace(
        first,
        directory=one.directory,
        trust_domain=one.trust_domain,
        api=one.api,
        admin=one.admin,
        database=None,
        status=NO_STATUS,
    )


def _domain(file: Path) -> Domain:
    try:
        settings = msgspec.json.decode(read(file), type=_Settings)
        trust_domain = TrustDomain(file.parent.name)
    except msgspec.MsgspecError as error:
        raise BadInput(
            f"the settings cannot be read: {error}", file=str(file), hint="remove it, and add it anew"
        ) from error
    except BadInput as error:
        raise error.at(file=str(file)) from error
    return Domain(trust_domain=trust_domain, directory=file.parent, api=settings.api, admin=settings.admin)
