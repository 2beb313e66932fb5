"""Connections to PostgreSQL: how they are opened, what is set on them, and what their errors mean.

Decides the time limits, that nothing is acknowledged before it is on disk, and which of PostgreSQL's errors are a `Conflict`,
an `Unavailable` or a `BadInput`. Refuses to know what is stored. No message of ours repeats an address: it may hold a password.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import asyncpg

from handfast.base.refusal import BadInput, HandfastError, Unavailable
from handfast.io.database import Conflict

CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 10.0
ANSWER_SECONDS = STATEMENT_SECONDS + 2.0  # the server's own limit comes first, and leaves the connection whole
_SETTINGS = {
    "application_name": "handfast",
    "statement_timeout": f"{STATEMENT_SECONDS:.0f}s",
    # Who stalls inside a transaction holds up every writer, so it does not stay there for long.
    "idle_in_transaction_session_timeout": f"{STATEMENT_SECONDS:.0f}s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "default_transaction_isolation": "read committed",
}
_DURABLE = "select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') in ('off', 'local')"
_SEEN = "select current_setting('search_path')"
_REFUSED = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
_UNUSABLE = (asyncpg.InsufficientPrivilegeError, asyncpg.DuplicateTableError)
_GONE = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # a failover made it a standby
    asyncpg.InternalClientError,
    OSError,
)
_ENVIRONMENT = (
    OSError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.TransactionRollbackError,
    asyncpg.PostgresSystemError,
    asyncpg.InternalServerError,
)

# asyncpg's classes are generic for type checkers alone.
Session = Any
"""An `asyncpg.Connection`."""
Pool = Any
"""An `asyncpg.Pool`."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a ledger is. ``url`` may hold a password and is never shown; ``ssl`` overrides its ``sslmode``.

    ``schema`` is the one that its sessions see (`handfast.io.schemas`); without it they see what the database shows them.
    """

    url: str = field(repr=False)
    shown: str
    ssl: str | None = None
    schema: str = ""

    def __str__(self) -> str:
        """Give the address without its password."""
        return self.shown

    def arguments(self, **settings: str) -> dict[str, Any]:
        """Give what `asyncpg.connect` takes, with more of the server's settings."""
        seen = {"search_path": quoted(self.schema)} if self.schema else {}
        return {
            "dsn": self.url,
            "ssl": self.ssl,
            "timeout": CONNECT_SECONDS,
            "command_timeout": ANSWER_SECONDS,
            "target_session_attrs": "primary",
            "server_settings": {**_SETTINGS, **settings, **seen},
        }


async def connect(address: Address) -> Session:
    """Open a connection that may write.

    Raises:
        BadInput: the address cannot be used, or the server does not let us in.
        Unavailable: nothing answers.
    """
    try:
        session = await asyncpg.connect(**address.arguments())
    except Exception as error:  # noqa: BLE001 - each becomes one of ours
        raise not_connected(error, address) from None  # the cause could repeat what it was given
    try:
        await session.execute(_DURABLE)
        await check_schema(session, address)
    except Exception as error:  # noqa: BLE001 - each becomes one of ours, or is one
        session.terminate()
        raise translated(error) from (None if isinstance(error, HandfastError) else error)
    return session


async def check_schema(session: Session, address: Address) -> None:
    """Check that a session sees its own schema alone, whatever lies between here and the database.

    Raises:
        BadInput: it does not, and would read another trust domain's ledger.
    """
    if address.schema and await session.fetchval(_SEEN) != quoted(address.schema):
        raise BadInput(
            f"{address}: something on the way drops the setting search_path",
            key="database",
            hint="connect to PostgreSQL itself, or have the pooler pass it on",
        )


def quoted(name: str) -> str:
    """Give a name as it stands in a statement."""
    return '"' + name.replace('"', '""') + '"'


def not_connected(error: Exception, address: Address) -> HandfastError:
    """Say why there is no connection, without a word of what was given but the address as it is shown."""
    if isinstance(error, _REFUSED):
        return BadInput(f"{address}: {error}", key="database", hint="check its user, password and database")
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return Unavailable(f"{address}: the database is a standby, which takes no writes", hint="name the primary")
    # A refused connection is an OSError too, and an address that cannot be read a ValueError.
    if isinstance(error, FileNotFoundError | ConnectionError | TimeoutError) or not isinstance(
        error, OSError | ValueError
    ):
        return Unavailable(f"{address}: the database does not answer", hint="is it running, and is this its address?")
    if isinstance(error, ValueError):
        return BadInput(
            "the address cannot be used, or a file that it names",
            key="database",
            hint="postgresql://user@host/database?sslmode=verify-full&sslrootcert=FILE; escape what is no letter or digit",
        )
    return Unavailable(f"{address}: {type(error).__name__} while connecting", hint="is this its address?")


def gone(error: BaseException) -> bool:
    """Tell whether the connection has ended, as against a statement on it."""
    if isinstance(error, asyncpg.InterfaceError):
        return "clos" in str(error)  # "is closed", "is closing"; the others are wrong calls, faults of ours
    return isinstance(error, _GONE) and not isinstance(error, TimeoutError)


def translated(error: Exception) -> Exception:
    """Give the error that callers know for one of PostgreSQL's; others stay as they are: they are faults of ours."""
    if isinstance(error, asyncpg.UniqueViolationError):
        return Conflict(str(error))
    if isinstance(error, asyncpg.DataError):
        return BadInput("a number is out of range, or a text is not Unicode")
    if isinstance(error, _UNUSABLE):
        return BadInput(
            f"the database cannot be used: {error}", key="database", hint="give Handfast a database that it owns, alone"
        )
    if gone(error) or isinstance(error, _ENVIRONMENT):
        said = str(error) or "it took too long"
        return Unavailable(
            f"the database does not answer: {said}", hint="is it running, and is there room on its disk?"
        )
    return error
