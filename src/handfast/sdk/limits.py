"""How much a stranger may take: the front's bounds in count, size and time.

Decides numbers, and nothing else. What a request's body may weigh is the application's to say: only it knows what it reads.
"""

from __future__ import annotations

from dataclasses import dataclass

OFFERED_BYTES = 64 * 1024
OFFERED_CERTIFICATES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one `Front` allows. Counts are per listener; times are in seconds, sizes in bytes."""

    connections: int = 20_000
    """Open connections. At the bound nothing more is accepted; the kernel queues."""
    handshakes: int = 512
    """Connections between accept and the end of their handshake."""
    handshake_s: float = 10
    """A handshake that takes longer has failed."""
    linger_s: float = 1
    """How long we listen after an alert, so that the reset which ends a closed socket cannot overtake it."""
    head_bytes: int = 32 * 1024
    """Request line, header fields and trailers together."""
    head_fields: int = 100
    """Header fields and trailers of a request."""
    head_s: float = 10
    """From a request's first byte (or from the connection's beginning) to the end of its head."""
    body_s: float = 60
    """From the end of the head to the end of the body, however slowly the application reads."""
    stalled_s: float = 30
    """How long a client may hold up an answer that is being written, or a connection that is being closed.

    An answer given in one piece is out of our hands at once; a client that leaves it unread is idle, and `keep_alive_s` comes first.
    """
    keep_alive_s: int = 75
    """How long a connection may idle between requests. More than a blocking query's 50 seconds."""
    pipelined: int = 4
    """Requests that may wait behind the one that is being answered (RFC 9112 section 9.3.2)."""
