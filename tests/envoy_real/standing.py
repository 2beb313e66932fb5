"""An agent that says how certificates stand, as it is told to: what Envoy asks over a Unix socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from urllib.parse import unquote

from handfast.trust.facts import fingerprint, pem_certificates
from handfast.trust.standing import Word
from tests.envoy_real.forging import Forged


@dataclass
class Agent:
    """What it says of each certificate (by fingerprint): the body of an answer, or how it fails. It keeps what it was asked.

    It mints a session for anybody, which is for the gateway not to ask for.
    """

    says: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    minted: list[str] = field(default_factory=list)
    status: int = 200
    stall: float = 0.0

    def say(self, shown: Forged, word: Word, *, ends: float = 60, renew: float = 60) -> None:
        """Let a certificate stand so, from now on. Times are seconds from now."""
        now = time.time()
        self.says[fingerprint(shown.der)] = f"{word} {int(now + ends)} {int(now + renew)}"


@contextmanager
def agent(directory: Path) -> Iterator[Agent]:
    """Run one where the gateway of a directory looks for it."""
    made = Agent()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            (leaf,) = pem_certificates(unquote(body))
            if self.path == "/standing":
                made.asked.append((self.headers["host"], fingerprint(leaf)))
                time.sleep(made.stall)
                answer = made.says.get(fingerprint(leaf), "nothing known").encode()
            else:
                made.minted.append(fingerprint(leaf))
                answer = f"{int(time.time()) + 60} {int(time.time()) + 90} minted".encode()
            self.send_response(made.status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingMixIn, UnixStreamServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: object) -> None:
            pass  # the gateway did not wait

    server = Server(str(directory / "nobody.sock"), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
