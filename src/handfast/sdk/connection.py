"""HTTP/1.1 on one connection: uvicorn's protocol, with the bounds that it leaves to a proxy in front.

Decides when a client has had enough: a head too large or too slow, a body too slow, an answer that nobody reads, requests piled up
behind one another. Refuses to know who the client is (its description is handed in), and what a request may weigh (the
application reads it, and stops). There are no WebSockets and no upgrades.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from handfast.sdk.exchange import Exchange
from handfast.sdk.limits import Limits
from handfast.sdk.unserved import Unserved, bad_request, check_host, too_large

Describe = Callable[[asyncio.BaseTransport], dict[str, Any]]

_TIMERS_GRAIN_S = 0.001


class _Deadline:
    """A moment by which something must have happened, or `missed` is called.

    Many are set, and nearly all are met: so the loop's timer is left standing when the moment is moved on or taken back, and what
    counts is looked up when it rings.
    """

    __slots__ = ("_at", "_loop", "_missed", "_rings", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, missed: Callable[[], None]) -> None:
        self._loop, self._missed = loop, missed
        self._at: float | None = None
        self._rings = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return self._at is not None

    def set(self, seconds: float) -> None:
        self._at = self._loop.time() + seconds
        if self._timer is None or self._rings > self._at:
            self.stop()
            self._rings = self._at
            self._timer = self._loop.call_later(seconds, self._ring)

    def clear(self) -> None:
        self._at = None

    def stop(self) -> None:
        """Let go of the timer too, and with it of the connection."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer, at, self._at = None, self._at, None
        if at is None:
            return
        if (left := at - self._loop.time()) > _TIMERS_GRAIN_S:
            self.set(left)
        else:
            self._missed()


class HttpConnection(HttpToolsProtocol):
    """One connection's requests, passed on to the application of ``config``.

    ``describe`` is asked once, when the connection is made, for what goes into each ``scope["extensions"]``. ``closed`` is
    done when the connection is over.
    """

    def __init__(self, config: Config, state: ServerState, limits: Limits, describe: Describe) -> None:
        """Wait for the transport."""
        super().__init__(config, state, {}, asyncio.get_running_loop())
        self.access_log = False
        self.closed: asyncio.Future[None] = self.loop.create_future()
        self._limits, self._describe = limits, describe
        self._extensions: dict[str, Any] = {}
        self._reading = _Deadline(self.loop, self._read_too_slow)
        self._writing = _Deadline(self.loop, self.abort)
        self._idle = _Deadline(self.loop, self._idle_too_long)
        self._unanswered: deque[Exchange] = deque()
        self._in_head, self._begun = True, False
        self._silent = 0  # bytes since the parser last told us anything: what it may be holding back
        self._weight = self._fields = 0

    @property
    def answering(self) -> bool:
        """Whether a request has been read whose answer is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    # What the event loop calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Learn who it is, and expect a request."""
        super().connection_made(transport)
        self._extensions = self._describe(transport)
        self._reading.set(self._limits.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application, and whoever waits for `closed`."""
        for deadline in (self._reading, self._writing, self._idle):
            deadline.clear()
            deadline.stop()
        super().connection_lost(exc)
        for cycle in self._unanswered:  # uvicorn tells the request that was read last, not the one being answered
            cycle.disconnected = True
            cycle.message_event.set()
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Parse, in place of uvicorn's own: it logs a line for each piece of garbage that a stranger sends."""
        if self.transport.is_closing():
            return
        self._idle.clear()
        self._silent += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # there is nothing to upgrade to; the request is answered as it stands (RFC 9110 section 7.8)
        except httptools.HttpParserError as error:
            self._refuse(_why(error))
            return
        if self._silent > self._limits.head_bytes:
            self._refuse(too_large())
        elif self._begun or self._silent:
            if not self._reading:
                self._reading.set(self._limits.head_s)
        elif self.cycle and not self.answering:
            self._idle.set(self._limits.keep_alive_s)  # the end of a body that was answered before

    def pause_writing(self) -> None:
        """Give the client some time to read."""
        super().pause_writing()
        self._writing.set(self._limits.stalled_s)

    def resume_writing(self) -> None:
        """See that it reads."""
        super().resume_writing()
        self._writing.clear()
        self._bound_closing()  # what is left of the last answer has to be read as well

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Begin a request, unless too many wait already."""
        if len(self.pipeline) >= self._limits.pipelined:
            raise bad_request("more requests wait for their answers than is allowed")
        super().on_message_begin()
        self.scope["extensions"] = dict(self._extensions)
        self._begun, self._silent, self._weight, self._fields = True, 0, 0, 0

    def on_url(self, url: bytes) -> None:
        """Weigh a piece of the request's target."""
        self._weigh(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head. A trailer is dropped: it would join a head that was judged already (RFC 9110 section 6.5.1)."""
        self._fields += 1
        self._weigh(len(name) + len(value))
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the application, once what came before is answered."""
        self._in_head, self._silent = False, 0
        self._reading.set(self._limits.body_s)
        self._complete_scope()
        busy, self.cycle = self.answering, self._exchange()
        self._unanswered.append(self.cycle)
        if busy:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))
        else:
            self._start_asgi_task(self.cycle, self.app)

    def _complete_scope(self) -> None:
        target = httptools.parse_url(self.url)
        if target.path is None:
            raise bad_request("the target is no path", "this is no proxy (RFC 9112 section 3.2)")
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self.scope["http_version"] = self.parser.get_http_version()
        check_host(self.headers, self.scope["http_version"])
        self.scope["path"] = unquote(target.path.decode("ascii"))
        self.scope["raw_path"] = target.path
        self.scope["query_string"] = target.query or b""

    def _exchange(self) -> Exchange:
        kept = self.parser.should_keep_alive() and self.scope["http_version"] != "1.0"
        return Exchange(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=_date(int(time.time())),
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=kept and not self.parser.should_upgrade(),  # what follows an upgrade is in the other protocol
            on_response=self.on_response_complete,
        )

    def on_body(self, body: bytes) -> None:
        """Pass on a piece of the body."""
        self._silent = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Expect nothing more until the next request begins."""
        self._in_head, self._begun, self._silent = True, False, 0
        self._reading.clear()
        super().on_message_complete()

    # What uvicorn calls.

    def on_response_complete(self) -> None:
        """Go on with what waits, or see the end delivered."""
        self._unanswered.popleft()
        if self.transport.is_closing():
            self._bound_closing()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle.set(self._limits.keep_alive_s)

    def shutdown(self) -> None:
        """Close once the current answer is complete."""
        super().shutdown()
        self._bound_closing()

    # What we decide.

    def _weigh(self, size: int) -> None:
        self._silent = 0
        self._weight += size
        if self._weight > self._limits.head_bytes or self._fields > self._limits.head_fields:
            raise too_large()

    def _refuse(self, refusal: Unserved) -> None:
        """Answer without the application, and close. Nothing may be put into the middle of an answer: then just close."""
        if self.answering:
            self.abort()
            return
        self.transport.write(refusal.answer())
        self.transport.close()
        self._bound_closing()

    def _idle_too_long(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
            self._bound_closing()

    def _read_too_slow(self) -> None:
        if self._in_head and self.answering:
            self._reading.set(self._limits.head_s)  # the answer first
        else:
            self.abort()

    def _bound_closing(self) -> None:
        """Bound the time in which a closing connection is flushed: some clients never read."""
        if self.transport.is_closing() and not self.closed.done():
            self._writing.set(self._limits.stalled_s)

    def abort(self) -> None:
        """Cut the connection. The first releases of CPython 3.11 fail on a transport that is closed: nothing is left to cut."""
        with contextlib.suppress(AttributeError):
            self.transport.abort()


def _why(error: httptools.HttpParserError) -> Unserved:
    """Give our own refusal where the parser passes one on, and else that of what it cannot read."""
    ours = error.__context__
    return (
        ours
        if isinstance(ours, Unserved)
        else bad_request("this is no request that can be read", "HTTP 1.1 is spoken here")
    )


@functools.lru_cache(maxsize=1)
def _date(second: int) -> list[tuple[bytes, bytes]]:
    """Write the Date field (RFC 9110 section 6.6.1). Clients measure their clock by it."""
    return [(b"date", formatdate(second, usegmt=True).encode())]
