"""Real server processes over one real PostgreSQL."""

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handfast.app.client import Api
from handfast.app.server.messages import CertificateAnswer, CertificateRequest, StatusAnswer, WorldAnswer
from handfast.app.server.rotation_messages import AuthoritiesAnswer, RotationRequest
from handfast.base.refusal import HandfastError
from handfast.io.credentials import new_key
from handfast.io.ledger import SqlLedger
from handfast.io.postgres import PostgresDatabase
from tests.app.sites import DOMAIN, WORLD
from tests.e2e.echo import LOOPBACK
from tests.e2e.platform import HANDFAST, START_S, STOP_S
from tests.support.ports import free_port
from tests.support.postgres import PORT, PostgresServer
from tests.support.postgres_fixtures import postgres

__all__ = ["postgres"]
SECRET = "s3cret-word"
ROTATION = "/v1/authorities/rotation"
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "postgresql.md"


@dataclass
class ServerProcess:
    """``handfast server`` in a data directory of its own."""

    data: Path
    database: str
    process: subprocess.Popen[str] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *more: str) -> None:
        """Start it, and wait until it says that it is up."""
        self.launch(*more)
        assert self.process is not None
        assert self.process.stdout is not None
        until = time.monotonic() + START_S
        for line in self.process.stdout:
            assert time.monotonic() < until
            if "/metrics" in line:
                return
        raise AssertionError(self.words())

    def launch(self, *more: str) -> None:
        """Start it."""
        self.data.mkdir(exist_ok=True, mode=0o700)
        own = ["--database", self.database] if self.database else []
        with (self.data / "err").open("ab") as words:
            self.process = subprocess.Popen(
                [HANDFAST, "server", *own, *more, "--api", f"{LOOPBACK}:0", "--admin", f"{LOOPBACK}:0"],
                stdout=subprocess.PIPE,
                stderr=words,
                text=True,
                env={
                    **os.environ,
                    **self.environment,
                    "HANDFAST_DATA": str(self.data),
                    "NO_COLOR": "1",
                    "COLUMNS": "200",
                },
            )

    def words(self) -> str:
        """Give what it said of errors."""
        return (self.data / "err").read_text()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it with a signal; give its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(STOP_S)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def api(self) -> Api:
        """Give a client for its socket."""
        return Api.local(self.data / "server.sock")


@contextmanager
def servers(folder: Path, database: str, count: int, passphrase: str = "") -> Iterator[list[ServerProcess]]:
    """Run servers with one authority over one database. Where a passphrase seals it, nothing is copied."""
    environment = {"HANDFAST_PASSPHRASE": passphrase} if passphrase else {}
    running = [ServerProcess(folder / f"server-{n}", database, environment=environment) for n in range(count)]
    try:
        for number, one in enumerate(running):
            if number and not passphrase:
                one.data.mkdir(mode=0o700)
                shutil.copytree(running[0].data / "authority", one.data / "authority")
            one.start("--trust-domain", DOMAIN, "--settle", "2")
        yield running
    finally:
        for one in running:
            if one.process:
                one.end()


@pytest.fixture
async def database(postgres: PostgresServer, tmp_path: Path) -> str:
    """Give an empty database, as the name of a file with its address."""
    file = tmp_path / "database"
    file.write_text(postgres.url(await postgres.create_database()) + "\n")
    file.chmod(0o600)
    return f"@{file}"


@pytest.fixture
async def ledger(postgres: PostgresServer, database: str) -> AsyncIterator[SqlLedger]:
    """Look into the database."""
    name = Path(database[1:]).read_text().partition("@/")[2].partition("?")[0]
    db = await PostgresDatabase.open(postgres.address(name))
    yield await SqlLedger.open(db)
    await db.close()


async def issue(api: Api, name: str = "payments") -> str:
    """Have a certificate issued, and give its serial."""
    asked = CertificateRequest(name=name, csr=new_key().csr_pem)
    return (await api.call("POST", "/v1/certificates", CertificateAnswer, asked)).serial


async def test_two_servers_are_one(database: str, ledger: SqlLedger, tmp_path: Path):
    """A world applied at one is the other's, what either issues is in one inventory, and serials differ."""
    with servers(tmp_path, database, 2) as running:
        async with AsyncExitStack() as stack:
            one, other = [await stack.enter_async_context(server.api()) for server in running]
            await one.call("PUT", "/v1/world", WorldAnswer, WORLD)
            async with asyncio.timeout(5):
                while (await other.call("GET", "/v1/status", StatusAnswer)).revision != 1:
                    await asyncio.sleep(0.01)
            serials = await asyncio.gather(*(issue(api) for api in (one, other) for _ in range(20)))
            assert len(set(serials)) == 40
            assert {record.serial for record in await ledger.live_by_name("payments", datetime.now(UTC))} == set(
                serials
            )


async def test_kill_9_of_one_server_loses_nothing_that_it_said(database: str, ledger: SqlLedger, tmp_path: Path):
    """Every certificate that a client got is in the ledger as issued, and the other server goes on."""
    with servers(tmp_path, database, 2) as running:
        async with AsyncExitStack() as stack:
            killed, other = [await stack.enter_async_context(server.api()) for server in running]
            await killed.call("PUT", "/v1/world", WorldAnswer, WORLD)
            got: list[str] = []

            async def work() -> None:
                while True:
                    got.append(await issue(killed))

            workers = [asyncio.create_task(work()) for _ in range(8)]
            async with asyncio.timeout(30):
                while len(got) < 100:
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(running[0].end, signal.SIGKILL)
            ends = await asyncio.gather(*workers, return_exceptions=True)
            assert all(isinstance(end, HandfastError) for end in ends)
            states = {serial: (await ledger.by_serial(serial)) for serial in got}
            assert {record.state.value if record else "lost" for record in states.values()} == {"issued"}
            assert await issue(other)


async def test_a_rotation_goes_on_by_the_other_server_where_one_is_killed(
    database: str, ledger: SqlLedger, tmp_path: Path
):
    """What one rotated the other issues from, without a restart and without a refusal; and it ends what one began."""
    with servers(tmp_path, database, 2, passphrase=secrets.token_urlsafe(24)) as running:
        async with AsyncExitStack() as stack:
            one, other = [await stack.enter_async_context(server.api()) for server in running]
            await one.call("PUT", "/v1/world", WorldAnswer, WORLD)
            got: list[str] = []

            async def work() -> None:
                while True:
                    got.append(await issue(other))
                    await asyncio.sleep(0.02)

            workers = [asyncio.create_task(work()) for _ in range(2)]
            try:
                issuers = [await _issuer(ledger, await issue(other))]
                await one.call("POST", ROTATION, AuthoritiesAnswer, RotationRequest())
                issuers.append(await _until_another(ledger, other, issuers))
                assert await _issuer(ledger, await issue(one)) == issuers[-1]
                await one.call("POST", ROTATION, AuthoritiesAnswer, RotationRequest())
                await asyncio.to_thread(running[0].end, signal.SIGKILL)
                issuers.append(await _until_another(ledger, other, issuers))
                assert not any(worker.done() for worker in workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
            assert len(set(got)) == len(got) > 100
            states = {record.state.value if record else "lost" for record in [await ledger.by_serial(s) for s in got]}
            assert states == {"issued"}
            await asyncio.to_thread(running[0].start)
            again = await stack.enter_async_context(running[0].api())
            assert await _issuer(ledger, await issue(again)) == issuers[-1]
    assert not list((tmp_path / "server-1").rglob("root-key.pem"))


async def _issuer(ledger: SqlLedger, serial: str) -> str:
    record = await ledger.by_serial(serial)
    assert record
    return record.issuer


async def _until_another(ledger: SqlLedger, api: Api, known: list[str]) -> str:
    """Issue until it is by a CA that was not known."""
    async with asyncio.timeout(40):
        while (found := await _issuer(ledger, await issue(api))) in known:
            await asyncio.sleep(0.2)
    return found


async def test_a_server_without_the_authority_makes_no_second_one(database: str, tmp_path: Path):
    """It is told what to copy, and leaves nothing behind that looks like an authority."""
    with servers(tmp_path, database, 1):
        stray = ServerProcess(tmp_path / "stray", database)
        stray.launch("--trust-domain", DOMAIN)
        assert stray.process is not None
        assert stray.process.wait(START_S) == 2
        assert stray.process.stdout is not None
        stray.process.stdout.close()
        assert "has an authority already" in stray.words()
        assert "copy the directory 'authority'" in stray.words()
        assert not (stray.data / "authority").exists()


async def test_the_password_is_seen_nowhere(postgres: PostgresServer, tmp_path: Path):
    """With a password in the environment: not in the command line, the log, the output, nor in what a child would get."""
    name = await postgres.create_database()
    await postgres.execute(f"drop role if exists guarded; create role guarded login password '{SECRET}'")
    await postgres.execute(f"alter database {name} owner to guarded")
    url = f"postgresql://guarded:{SECRET}@/{name}?host={postgres.directory}&port={PORT}"
    server = ServerProcess(tmp_path / "server", "", environment={"HANDFAST_DATABASE": url})
    server.start("--trust-domain", DOMAIN, "--verbose")
    try:
        assert server.process is not None
        assert SECRET not in Path(f"/proc/{server.process.pid}/cmdline").read_text()
        async with server.api() as api:
            assert (await api.call("GET", "/v1/status", StatusAnswer)).trust_domain == DOMAIN
        assert not (server.data / "ledger.sqlite").exists()
        await postgres.execute(f"alter database {name} allow_connections false")
        await postgres.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'")
        async with server.api() as api:
            with pytest.raises(HandfastError) as caught:
                await issue(api)
        assert SECRET not in f"{caught.value} {caught.value.hint}"
    finally:
        server.end()
    kept = b"".join(file.read_bytes() for file in server.data.rglob("*") if file.is_file())
    assert b"certificate.issued" in (server.data / "handfast.log").read_bytes()
    assert SECRET.encode() not in kept


def test_the_page_works_as_it_stands(postgres: PostgresServer, tmp_path: Path):
    """Every command of the page runs, one after the other, but for its ports."""
    script = "".join(re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    for port in set(re.findall(r"127\.0\.0\.1:(\d+)", script)):
        script = script.replace(f":{port}", f":{free_port()}")
    programs = f"{postgres.binaries}:{HANDFAST.parent}:{os.environ['PATH']}"
    where = {"PGHOST": str(postgres.directory), "PGPORT": str(PORT), "PGUSER": "handfast"}
    with (tmp_path / "said").open("wb+") as said:
        shell = subprocess.Popen(
            ["bash", "-eu", "-c", f"trap 'kill $(jobs -p); wait' EXIT\n{script}"],
            cwd=tmp_path,
            env={**os.environ, **where, "PATH": programs},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            code = shell.wait(90)
        finally:
            with contextlib.suppress(ProcessLookupError):  # whatever it started, when it failed half-way
                os.killpg(shell.pid, signal.SIGTERM)
        said.seek(0)
        text = said.read().decode()
    assert code == 0, text
    assert text.count("alice") >= 2
