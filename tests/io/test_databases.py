import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.io.databases import chosen_address, open_database, read_address
from handfast.io.postgres import PostgresDatabase
from handfast.io.sqlite import SqliteDatabase
from tests.support.postgres import PORT, PostgresServer

SECRET = "s3cret-word"


def private(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


async def test_without_an_address_it_is_sqlite(tmp_path: Path):
    """The file is made where it is missing."""
    assert chosen_address("", {}) is None
    db = await open_database(tmp_path / "ledger.sqlite", None)
    assert isinstance(db, SqliteDatabase)
    await db.close()
    assert (tmp_path / "ledger.sqlite").exists()


async def test_a_password_may_come_from_a_file(postgres: PostgresServer, tmp_path: Path):
    """The address in a file of mode 0600, and the password in a passfile, both get in where a password is asked for."""
    name = await postgres.create_database()
    await postgres.execute(f"drop role if exists guarded; create role guarded login password '{SECRET}'")
    await postgres.execute(f"alter database {name} owner to guarded")
    where = f"/{name}?host={postgres.directory}&port={PORT}"
    file = private(tmp_path / "database", f"postgresql://guarded:{SECRET}@{where}\n")
    passfile = private(tmp_path / "passfile", f"*:*:*:guarded:{SECRET}\n")
    for argument in (f"@{file}", f"postgresql://guarded@{where}&passfile={passfile}"):
        address = chosen_address(argument, {})
        assert address is not None
        assert SECRET not in f"{address} {address!r}"
        db = await open_database(tmp_path / "unused", address)
        assert isinstance(db, PostgresDatabase)
        assert await db.fetch("select current_user::text") == [("guarded",)]
        await db.close()


def test_the_command_line_comes_before_the_environment():
    """The nearer one counts."""
    environ = {"HANDFAST_DATABASE": f"postgresql://u:{SECRET}@localhost/far"}
    assert str(chosen_address("", environ)) == "postgresql://u@localhost/far"
    assert str(chosen_address("postgresql://u@localhost/near", environ)) == "postgresql://u@localhost/near"


@pytest.mark.parametrize(
    "argument",
    [
        f"postgresql://u:{SECRET}@localhost/d",
        f"postgresql://localhost/d?user=u&password={SECRET}",
        f"postgresql://localhost/d?sslpassword={SECRET}",
    ],
)
def test_a_password_on_the_command_line_is_refused(argument: str):
    """Every process of the machine could read it; the error does not repeat it, and says where it may stand."""
    with pytest.raises(BadInput, match="command line") as caught:
        chosen_address(argument, {})
    assert SECRET not in f"{caught.value} {caught.value.hint}"
    assert "PGPASSFILE" in caught.value.hint


def test_a_file_that_others_can_read_is_refused(tmp_path: Path):
    """A password in it is none any more."""
    file = private(tmp_path / "database", f"postgresql://u:{SECRET}@localhost/d", 0o644)
    with pytest.raises(BadInput) as caught:
        read_address(f"@{file}")
    assert SECRET not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ledger.sqlite",
        f"mysql://u:{SECRET}@h/d",
        f"postgresql://u:{SECRET}#1@h/d",
        f"postgresql://u:{SECRET}@1@h/d",
        f"postgresql://u:{SECRET}@[h/d",
        f"postgresql://u@h/d?{SECRET}",
        f"postgresql://u@h/d\n{SECRET}",
        f"host=h password={SECRET}",
    ],
)
def test_what_is_no_address_is_refused_and_not_repeated(text: str):
    """A slip in an address may be in the middle of its password."""
    with pytest.raises(BadInput) as caught:
        read_address(text, {})
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in f"{error!s} {error!r} {getattr(error, 'hint', '')}"
        error = error.__cause__


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_is_refused(text: str):
    """The reader of addresses has no third answer."""
    if text.startswith("@"):
        return
    for whole in (text, f"postgresql://{text}", f"postgresql://u:{SECRET}@{text}"):
        try:
            shown = str(read_address(whole, {}))
        except BadInput:
            continue
        assert SECRET not in shown


@pytest.mark.parametrize(
    ("text", "environ", "ssl"),
    [
        ("postgresql:///d", {}, None),
        ("postgresql://localhost:5432/d", {}, None),
        ("postgresql://[::1]/d", {}, None),
        ("postgresql://%2Frun%2Fpostgresql/d", {}, None),
        ("postgresql:///d?host=/run/postgresql", {}, None),
        ("postgresql://db.example.org/d", {}, "verify-full"),
        ("postgresql://localhost,db.example.org/d", {}, "verify-full"),
        ("postgresql:///d?host=db.example.org", {}, "verify-full"),
        ("postgresql:///d?service=far", {}, "verify-full"),
        ("postgresql:///d", {"PGHOST": "db.example.org"}, "verify-full"),
        ("postgresql://db.example.org/d?sslmode=disable", {}, None),
        ("postgresql://db.example.org/d", {"PGSSLMODE": "verify-ca"}, None),
        ("postgresql://localhost.example.org/d", {}, "verify-full"),
        ("postgresql://127.0.0.1.example.org/d", {}, "verify-full"),
    ],
)
def test_another_host_is_reached_by_tls_that_checks_it(text: str, environ: dict[str, str], ssl: str | None):
    """The driver's own default would send everything in the open where the server, or somebody before it, has no TLS."""
    assert read_address(text, environ).ssl == ssl


async def test_tls_without_a_root_is_refused_before_anything_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where it is not known whom to trust, there is no connection."""
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    with pytest.raises(BadInput, match="cannot be used"):
        await open_database(tmp_path / "unused", read_address("postgresql://u@db.invalid/d", {}))
