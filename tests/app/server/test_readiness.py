import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx2

from handfast.app.server.build import Server, ServerConfig, build_server
from handfast.app.server.readiness import LASTS, Readiness
from handfast.base.spiffe import TrustDomain
from handfast.io.database import Database, Row, Value
from tests.app.sites import DOMAIN, Site
from tests.support.clock import FakeClock
from tests.support.postgres import PostgresServer
from tests.support.postgres_fixtures import own_server, postgres

__all__ = ["own_server", "postgres"]


async def asked(server: Server, path: str = "/ready") -> tuple[int, str]:
    async with httpx2.AsyncClient() as client:
        answer = await client.get("http://{}:{}{}".format(*server.admin_address, path))
    return answer.status_code, answer.text


def later(here: Site, by: timedelta = LASTS) -> None:
    here.clock.set(here.clock.now() + by)


async def test_a_server_that_can_work_is_ready(here: Site):
    """As it is from the moment on at which it listens."""
    assert await asked(here.server) == (200, "ready\n")
    assert await asked(here.server, "/live") == (200, "live\n")


async def test_a_server_that_lacks_an_authority_is_not(here: Site):
    """It says what is missing; it lives, as a restart would change nothing."""
    here.server.platform.authorities._behind = "generation 2 is not here"
    later(here)
    assert await asked(here.server) == (503, "not ready: generation 2 is not here\n")
    assert await asked(here.server, "/live") == (200, "live\n")
    here.server.platform.authorities._behind = ""
    later(here)
    assert (await asked(here.server))[0] == 200


async def test_a_server_whose_authority_has_ended_is_not(here: Site):
    """Nothing that it could issue would count."""
    later(here, timedelta(days=400))
    status, text = await asked(here.server)
    assert (status, text.partition(" from ")[0]) == (503, "not ready: the issuing authority counts")


class Stuck(Database):
    """A database that accepts a question and never answers."""

    def __init__(self) -> None:
        """Be asked nothing yet."""
        self.questions = 0

    async def fetch(self, sql: str, *args: Value) -> list[Row]:  # noqa: ARG002 - what every store takes
        """Wait for ever."""
        self.questions += 1
        await asyncio.Event().wait()
        return []

    write = hear = close = None  # type: ignore[assignment]


async def test_a_database_that_says_nothing_is_waited_for_in_bounds(here: Site):
    """However many ask at once, it is asked once, and all have their answer in time."""
    database = Stuck()
    readiness = Readiness(database, here.server.platform.authorities, here.clock, 0.05)
    async with asyncio.timeout(5):
        said = await asyncio.gather(*(readiness.why_not() for _ in range(50)))
    assert set(said) == {"the database did not answer within 0 s"}
    assert database.questions == 1
    later(here, LASTS)
    await readiness.why_not()
    assert database.questions == 2


async def test_a_clock_that_was_set_back_does_not_keep_an_old_answer(here: Site):
    """It is looked again."""
    database = Stuck()
    readiness = Readiness(database, here.server.platform.authorities, here.clock, 0.01)
    for _ in range(2):
        later(here, -timedelta(hours=1))
        await readiness.why_not()
    assert database.questions == 2


@asynccontextmanager
async def over(server: PostgresServer, directory: Path) -> AsyncIterator[Server]:
    here = ("127.0.0.1", 0)
    config = ServerConfig(
        directory=directory,
        trust_domain=TrustDomain(DOMAIN),
        api=here,
        admin=here,
        database=server.address(await server.create_database()),
    )
    running = await build_server(config, FakeClock())
    try:
        running.admin_address = await running._admin_front.listen_plain(*here)
        yield running
    finally:
        await running.stop(0.1)


async def test_without_its_database_a_server_lives_and_is_not_ready(own_server: PostgresServer, tmp_path: Path):
    """With a real one that is stopped; and once it is back, it is ready again."""
    async with over(own_server, tmp_path) as running:
        assert (await asked(running))[0] == 200
        await asyncio.to_thread(own_server.stop)
        clock = running.platform.clock
        assert isinstance(clock, FakeClock)
        clock.set(clock.now() + LASTS)
        status, text = await asked(running)
        assert (status, text.startswith("not ready: ")) == (503, True)
        assert await asked(running, "/live") == (200, "live\n")
        await asyncio.to_thread(own_server.start)
        clock.set(clock.now() + LASTS)
        assert (await asked(running))[0] == 200
