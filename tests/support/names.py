"""A DNS server on loopback that knows what a test tells it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

Records = dict[tuple[str, str], list[str]]


@dataclass
class Names:
    """Answers over UDP. ``records`` are texts by name and type: ``("payments.internal", "A"): ["127.0.0.1"]``.

    ``more`` gives those that come and go.
    """

    records: Records = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    more: Callable[[], Records] = dict

    def __post_init__(self) -> None:
        """Listen, and answer in a thread."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._socket.getsockname()
        return host, port

    def close(self) -> None:
        """Stop."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, and says all the same that nobody is connected
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                raw, peer = self._socket.recvfrom(4096)
                if not raw:
                    return
                self._socket.sendto(self._answer(raw), peer)
            except OSError:
                return

    def _answer(self, raw: bytes) -> bytes:
        query = dns.message.from_wire(raw)
        (question,) = query.question
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        known = {**self.records, **self.more()}
        if texts := known.get((name, kind)):
            answer.answer.append(dns.rrset.from_text(question.name, 1, "IN", kind, *texts))
        elif not any(one == name for one, _ in known):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer.to_wire()
