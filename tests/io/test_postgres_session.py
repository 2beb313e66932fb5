import asyncpg
import pytest

from handfast.base.refusal import BadInput, Unavailable
from handfast.io import postgres_session
from handfast.io.database import Conflict
from handfast.io.postgres_session import Address, connect, gone, not_connected, translated
from tests.support.postgres import PostgresServer

ADDRESS = Address("postgresql://u:s3cret-word@h/d", "postgresql://u@h/d")


def test_an_address_is_shown_without_its_password():
    """Neither text nor repr has what is secret."""
    assert "s3cret-word" not in f"{ADDRESS} {ADDRESS!r}"
    assert str(ADDRESS) == "postgresql://u@h/d"


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InvalidPasswordError("password authentication failed"),
        asyncpg.ClientConfigurationError("invalid DSN: s3cret-word"),
        ValueError("s3cret-word"),
        OSError("s3cret-word"),
        asyncpg.TooManyConnectionsError("sorry"),
        ConnectionRefusedError("s3cret-word"),
        TimeoutError(),
        asyncpg.TargetServerAttributeNotMatched("s3cret-word"),
        RuntimeError("s3cret-word"),
    ],
)
def test_a_failure_to_connect_never_repeats_what_it_was_given(error: Exception):
    """Whatever the driver says of an address, it may have read a password in the wrong place."""
    said = not_connected(error, ADDRESS)
    assert isinstance(said, BadInput | Unavailable)
    assert said.hint
    assert "s3cret-word" not in f"{said} {said.hint}"


@pytest.mark.parametrize(
    ("error", "wanted", "ended"),
    [
        (asyncpg.UniqueViolationError("taken"), Conflict, False),
        (asyncpg.NumericValueOutOfRangeError("x"), BadInput, False),
        (asyncpg.CharacterNotInRepertoireError("x"), BadInput, False),
        (asyncpg.QueryCanceledError("statement timeout"), Unavailable, False),
        (asyncpg.DeadlockDetectedError("x"), Unavailable, False),
        (asyncpg.DiskFullError("x"), Unavailable, False),
        (asyncpg.ReadOnlySQLTransactionError("x"), Unavailable, True),
        (asyncpg.AdminShutdownError("x"), Unavailable, True),
        (asyncpg.ConnectionDoesNotExistError("x"), Unavailable, True),
        (asyncpg.InterfaceError("connection is closed"), Unavailable, True),
        (asyncpg.InterfaceError("the server expects 1 argument"), asyncpg.InterfaceError, False),
        (ConnectionResetError(), Unavailable, True),
        (TimeoutError(), Unavailable, False),
        (asyncpg.NotNullViolationError("x"), asyncpg.NotNullViolationError, False),
        (asyncpg.UndefinedTableError("x"), asyncpg.UndefinedTableError, False),
    ],
)
def test_errors_are_told_apart(error: Exception, wanted: type[Exception], ended: bool):
    """What the environment did is `Unavailable`, what the caller did is its fault, and what we did wrong stays as it is."""
    assert isinstance(translated(error), wanted)
    assert gone(error) is ended


async def test_every_session_has_its_limits(postgres: PostgresServer):
    """Time limits are set by the session itself, whatever the server's configuration says."""
    session = await connect(postgres.address("postgres"))
    for name in ("statement_timeout", "idle_in_transaction_session_timeout", "default_transaction_isolation"):
        assert await session.fetchval(f"show {name}") == postgres_session._SETTINGS[name]
    await session.close()
