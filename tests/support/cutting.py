"""A wire that breaks at a chosen word: a Unix socket in front of PostgreSQL's."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from handfast.io.postgres_session import Address
from tests.support.postgres import PORT


class Cutting:
    """Passes everything on, until a client says the word; then all its connections end, and the answer is lost.

    ``deliver`` decides whether the word itself still arrives.
    """

    def __init__(self, server: Path, *, deliver: bool) -> None:
        """Stand before the socket in ``server``."""
        self._server, self._deliver = server, deliver
        self._word = b""
        self._tasks: set[asyncio.Task[None]] = set()
        self._directory = tempfile.TemporaryDirectory(prefix="handfast-cut-")

    async def __aenter__(self) -> Self:
        """Listen."""
        path = f"{self._directory.name}/.s.PGSQL.{PORT}"
        self._listener = await asyncio.start_unix_server(self._serve, path)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        self._directory.cleanup()

    def address(self, database: str) -> Address:
        """Give the address of a database behind the wire."""
        return Address(f"postgresql://handfast@/{database}?host={self._directory.name}&port={PORT}", "postgresql://cut")

    def cut_at(self, word: bytes) -> None:
        """Break the next time that a client says this."""
        self._word = word

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        behind = await asyncio.open_unix_connection(f"{self._server}/.s.PGSQL.{PORT}")
        answers = asyncio.create_task(self._pass(behind[0], writer))
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if self._word and self._word in data:
                    self._word = b""
                    await self._break(data, behind, answers)
                    break
                behind[1].write(data)
        answers.cancel()
        behind[1].close()
        writer.close()

    async def _break(
        self, data: bytes, behind: tuple[asyncio.StreamReader, asyncio.StreamWriter], answers: asyncio.Task[None]
    ) -> None:
        answers.cancel()
        await asyncio.gather(answers, return_exceptions=True)
        if self._deliver:
            behind[1].write(data)
            await behind[0].read(1)  # PostgreSQL has answered, so it has committed

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
            writer.close()
