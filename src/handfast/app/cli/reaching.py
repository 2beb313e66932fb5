"""How a command reaches the server: over the local socket in the data directory, or over mutual TLS with ``--server``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from handfast.app.cli.given import NO_IDENTITY
from handfast.app.client import Api
from handfast.base.refusal import BadInput
from handfast.io.files import read, read_secret

T = TypeVar("T")


def reach(data: Path, server: str = "", identity: Path = NO_IDENTITY) -> Api:
    """Give a client for the server that is meant.

    Raises:
        BadInput: there is neither a local socket nor an address.
    """
    if server:
        return _remote(server, data / "operator" if identity == NO_IDENTITY else identity)
    socket = data / "server.sock"
    if not socket.exists():
        raise BadInput(
            f"no server runs with the data directory {data}",
            hint="start one with 'handfast up', or name its data directory with --data, or a server elsewhere with --server",
        )
    return Api.local(socket)


def _remote(url: str, identity: Path) -> Api:
    if not url.startswith("https://"):
        raise BadInput("a server's address begins with https://", key="--server")
    from handfast.sdk.contexts import client_context  # noqa: PLC0415 - over the local socket no TLS is needed

    chain, roots = read(identity / "cert.pem"), read(identity / "ca.pem")
    return Api.remote(url, client_context(chain, read_secret(identity / "key.pem"), roots))


def ask(work: Callable[[Api], Awaitable[T]], data: Path, server: str = "", identity: Path = NO_IDENTITY) -> T:
    """Run ``work`` with a client, and close it."""

    async def run() -> T:
        async with reach(data, server, identity) as api:
            return await work(api)

    return asyncio.run(run())
