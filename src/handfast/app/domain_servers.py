"""The servers of the trust domains beside the first one: each is started as the first is, but for what belongs to one alone.

Decides where the ledger of each lies: where the first one's is in PostgreSQL, in a schema of the same database, so that several servers share
it. One that began in a file stays there, apart from other servers', until a backup is restored with ``--database``. Refuses an empty ledger
in the place of one that is elsewhere: it would have forgotten what is revoked.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

import structlog

from handfast.app.domains import Domain, domains
from handfast.app.server.build import Server, ServerConfig, build_server
from handfast.app.server.status import StatusConfig
from handfast.base.refusal import BadInput
from handfast.io.authority_files import AUTHORITY
from handfast.io.databases import LEDGER
from handfast.io.ledger.sharing import LEDGER_ID
from handfast.io.ports import Clock
from handfast.io.postgres_session import Address
from handfast.io.schemas import address_of
from handfast.io.transfer import has_ledger

_ELSEWHERE = "is it in a PostgreSQL database? Name that with --database"
_TWO = "move the one away that does not count: where the server was started without --database once, the file"
_log = structlog.get_logger("handfast")


async def start_domains(first: ServerConfig, clock: Clock, stack: contextlib.AsyncExitStack) -> list[Server]:
    """Start the servers of all trust domains beside the ``first``; ``stack`` stops them.

    Raises:
        HandfastError: one cannot be started, or `check_domains` says so.
    """
    await check_domains(first)
    started = []
    for one in domains(first.directory):
        server = await build_server(_config(one, first), clock)
        stack.push_async_callback(server.stop)
        await server.start()
        started.append(server)
    return started


async def check_domains(first: ServerConfig) -> None:
    """Check that each trust domain beside the ``first`` finds its ledger where it left it, before anything is started.

    Raises:
        BadInput: one has a ledger in its directory and another in the database, or none and an authority that had one; or it
            has the name of the first.
        Unavailable: the database does not answer.
    """
    for one in domains(first.directory):
        where, is_here = str(one.directory), (one.directory / LEDGER).exists()
        if one.trust_domain == first.trust_domain:
            raise BadInput(f"{one.trust_domain} is this server's first trust domain", file=where, hint="move it away")
        if first.database is None and not is_here and (one.directory / AUTHORITY / LEDGER_ID).exists():
            raise BadInput(f"{one.trust_domain} has an authority here, and no ledger", file=where, hint=_ELSEWHERE)
        if first.database and is_here and await has_ledger(address_of(first.database, one.trust_domain)):
            raise BadInput(f"{one.trust_domain} has a ledger here, and one in the database", file=where, hint=_TWO)


def _config(one: Domain, first: ServerConfig) -> ServerConfig:
    return replace(
        first,
        directory=one.directory,
        trust_domain=one.trust_domain,
        api=one.settings.api,
        admin=one.settings.admin,
        database=_database(one, first.database),
        status=StatusConfig(listen=one.settings.status, url=one.settings.status_url, shards=one.settings.crl_shards),
    )


def _database(one: Domain, first: Address | None) -> Address | None:
    if first is None:
        return None
    if (file := one.directory / LEDGER).exists():
        _log.warning("domain.apart", trust_domain=str(one.trust_domain), file=str(file))
        return None
    return address_of(first, one.trust_domain)
