"""The service behind all gateways: it answers every request with the same few octets. Run as a program, given a port."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\n" + b"hello, world\n".rjust(
    100, b"."
)
_END = b"\r\n\r\n"


class _Static(asyncio.Protocol):
    """One connection. Requests have no content here, so each ends with its head."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._rest = cast("asyncio.Transport", transport), b""

    def data_received(self, data: bytes) -> None:
        whole = self._rest + data
        self._rest = whole.rpartition(_END)[2]
        self._transport.write(ANSWER * whole.count(_END))


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Static, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
