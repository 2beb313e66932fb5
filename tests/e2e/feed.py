"""The platform's events as they come, and whose they are."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.e2e.platform import HANDFAST, STOP_S, Event, Platform


@dataclass(frozen=True)
class Peer:
    """One connection, as records name it: its address and port here, and when it began."""

    address: str
    began: datetime

    @classmethod
    def of(cls, sock: socket.socket) -> Peer:
        """Give the peer that a socket is, just after it connected."""
        host, port = sock.getsockname()
        # Whoever asks may have had to wait for a processor since it connected; nobody else has had its port for a second.
        return cls(f"{host}:{port}", datetime.now(UTC) - timedelta(milliseconds=500))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


class Feed:
    """``handfast events --follow --json``: every event as it comes."""

    def __init__(self, platform: Platform) -> None:
        """Follow from the beginning."""
        self.events: list[Event] = []
        self._come = threading.Condition()
        command: list[str | Path] = [
            HANDFAST,
            "events",
            "--follow",
            "--json",
            "-n",
            "500",
            "--data",
            str(platform.data),
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._come:
                self.events.append(json.loads(line))
                self._come.notify_all()

    def find(self, limit: float = 10.0, by: Peer | None = None, **fields: Any) -> Event:
        """Wait for the event with these fields, of the peer ``by``."""

        def match() -> Event | None:
            return next((one for one in self.of(by) if all(one.get(k) == v for k, v in fields.items())), None)

        with self._come:
            found = self._come.wait_for(match, limit)
        assert found, f"no event of {by} with {fields} within {limit} s, but {self.events[-3:]}"
        return found

    def of(self, peer: Peer | None) -> list[Event]:
        """Give the events of one peer, or all. A port comes to be another connection's in time: what was before is another's."""
        if peer is None:
            return self.events
        return [one for one in self.events if one.get("peer") == peer.address and _time(one["at"]) >= peer.began]

    def close(self) -> None:
        """Stop following."""
        self._process.terminate()
        self._process.wait(STOP_S)
