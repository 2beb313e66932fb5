"""The API's client, as the command line and the agent use it: over mutual TLS, or over the server's local socket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from ssl import PROTOCOL_TLS_CLIENT, SSLContext
from typing import Any, Self, TypeVar

import httpx2
import msgspec

from handfast.app.server.messages import ENCODER, Message
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, HandfastError, Refusal, Refused, Unavailable

T = TypeVar("T", bound=Message)
TIMEOUT_S = 15.0
_REASONS = {reason.value: reason for reason in Reason}


class ApiError(Refused):
    """A refusal that the server made, in the server's own words."""

    def __init__(self, reason: Reason, detail: str, hint: str) -> None:
        """Keep the server's words beside our reason."""
        super().__init__(Refusal(reason))
        self.detail, self.hint = detail, hint or self.hint

    def __str__(self) -> str:
        """Give the server's words."""
        return self.detail or self.message


class Api:
    """One server. Close it when done; it keeps its connections."""

    def __init__(self, connect: Callable[[], httpx2.AsyncClient], place: str) -> None:
        """Use what ``connect`` makes; ``place`` names the server in errors."""
        self._connect, self._place = connect, place
        self._client, self._retired = connect(), list[httpx2.AsyncClient]()

    @classmethod
    def local(cls, socket: Path) -> Api:
        """Reach the server on this machine over its Unix socket."""

        def connect() -> httpx2.AsyncClient:
            # There is no TLS on it; by default all CAs of this machine would be read, which takes longer than most calls.
            transport = httpx2.AsyncHTTPTransport(uds=str(socket), verify=SSLContext(PROTOCOL_TLS_CLIENT))
            return httpx2.AsyncClient(transport=transport, base_url="http://handfast", timeout=TIMEOUT_S)

        return cls(connect, str(socket))

    @classmethod
    def remote(cls, url: str, context: SSLContext) -> Api:
        """Reach a server over mutual TLS."""
        return cls(lambda: httpx2.AsyncClient(base_url=url, verify=context, timeout=TIMEOUT_S, trust_env=False), url)

    async def reconnect(self) -> None:
        """Use new connections from now on, as the identity is another one. What is under way ends on the old ones."""
        retired, self._retired = self._retired, [self._client]
        self._client = self._connect()
        for client in retired:
            await client.aclose()

    async def close(self) -> None:
        """Close all connections."""
        for client in (*self._retired, self._client):
            await client.aclose()

    async def __aenter__(self) -> Self:
        """Give itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.close()

    async def call(self, method: str, path: str, answer: type[T], body: Message | str | None = None, **query: str) -> T:
        """Call an endpoint and read its answer.

        Raises:
            Refused: the server said no. BadInput: it could not read what was sent. Unavailable: it cannot be reached.
        """
        response = await self.send(method, path, body, query=query)
        try:
            return msgspec.json.decode(response.content, type=answer)
        except msgspec.MsgspecError as error:
            raise Unavailable(f"{self._place} answers in a way that is not understood: {error}") from error

    async def send(
        self,
        method: str,
        path: str,
        body: Message | str | None = None,
        *,
        query: Mapping[str, str | list[str]] | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> httpx2.Response:
        """Send a request and give the response, which is no error."""
        content = body.encode() if isinstance(body, str) else ENCODER.encode(body) if body is not None else None
        try:
            response = await self._client.request(
                method, path, content=content, params=query or {}, headers=headers or {}, timeout=timeout_s
            )
        except (httpx2.HTTPError, OSError) as error:
            raise Unavailable(
                f"the server at {self._place} cannot be reached: {error or type(error).__name__}",
                hint="is 'handfast up' running, and with this data directory?",
            ) from error
        if response.status_code >= 400:
            raise _error(response)
        return response


def _error(response: httpx2.Response) -> HandfastError:
    try:
        plain: dict[str, Any] = msgspec.json.decode(response.content)
        code, title = str(plain["code"]), str(plain["title"])
    except (msgspec.MsgspecError, KeyError, TypeError):
        return Unavailable(f"the server answers {response.status_code}")
    detail, hint = str(plain.get("detail") or title), str(plain.get("hint") or "")
    if reason := _REASONS.get(code):
        return ApiError(reason, detail, hint)
    return Unavailable(detail, hint=hint) if response.status_code >= 500 else BadInput(detail, hint=hint)
