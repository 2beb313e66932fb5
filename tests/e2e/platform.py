"""A whole platform in a fresh directory: the program as a user starts it, and the commands as a user types them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from handfast.app.client import Api
from handfast.app.server.messages import (
    CertificateAnswer,
    CertificateRequest,
    RevocationAnswer,
    RevocationRequest,
    WorldAnswer,
)
from handfast.app.server.rotation_messages import AuthoritiesAnswer
from handfast.io.credentials import new_key
from tests.e2e.echo import LOOPBACK
from tests.support.pki import Files, Pki

HANDFAST = Path(sys.executable).with_name("handfast")
START_S, STOP_S, COMMAND_S = 40.0, 20.0, 40.0
Event = dict[str, Any]


def wait_for(what: str, look: Callable[[], Any], limit: float = 10.0) -> Any:
    """Look again and again until there is something to see; give it."""
    until = time.monotonic() + limit
    while not (found := look()):
        assert time.monotonic() < until, f"there is no {what} after {limit} s"
        time.sleep(0.02)
    return found


@dataclass(frozen=True)
class Client:
    """A client's certificate and key, in files."""

    files: Files

    @cached_property
    def chain(self) -> list[x509.Certificate]:
        """The certificates, the client's own first."""
        return x509.load_pem_x509_certificates(self.files.chain.read_bytes())

    @property
    def leaf(self) -> x509.Certificate:
        """The client's own certificate."""
        return self.chain[0]

    @property
    def der(self) -> bytes:
        """The client's own certificate."""
        return self.leaf.public_bytes(Encoding.DER)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, as records have it."""
        return sha256(self.der).hexdigest()

    @property
    def serial(self) -> str:
        """The serial number, as records have it."""
        return serial_of(self.leaf)


def serial_of(certificate: x509.Certificate) -> str:
    """Give a serial number in whole octets, lower case hex."""
    number = certificate.serial_number
    return number.to_bytes((number.bit_length() + 7) // 8, "big").hex()


class Platform:
    """``handfast up --config``, in one data directory. Start it, ask it, stop it; start it again."""

    def __init__(self, directory: Path, world: str, gateway: int, *options: str) -> None:
        """Write the world file; nothing runs yet. ``options`` are more of ``handfast up``."""
        self.directory, self.gateway, self.options = directory, gateway, options
        self.data = directory / "data"
        self.world_file = directory / "handfast.yaml"
        self.world_file.write_text(world)
        self.greeting: list[str] = []
        self._process: subprocess.Popen[str] | None = None

    # The program

    @property
    def pid(self) -> int:
        """The program's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def api_port(self) -> int:
        """Where the API listens, as the greeting says."""
        return int(self._greeted(r"https://localhost:(\d+),"))

    @property
    def metrics_url(self) -> str:
        """Where the metrics are, as the greeting says."""
        return self._greeted(r"(http://\S+/metrics)")

    @property
    def ca(self) -> Path:
        """The root certificate."""
        return self.data / "authority" / "root.pem"

    def _greeted(self, pattern: str) -> str:
        found = re.search(pattern, "\n".join(self.greeting))
        assert found, self.greeting
        return found[1]

    def start(self, *, configured: bool = True) -> None:
        """Start the program, and wait until it says that it is up."""
        self.launch(configured=configured)
        wait_for("greeting", self._is_up, START_S)

    def launch(self, *, configured: bool = True) -> None:
        """Start the program, with the world file or without, in a process group of its own as a shell does."""
        own = ["--config", str(self.world_file)] if configured else []
        places = ["--api", f"{LOOPBACK}:0", "--admin", f"{LOOPBACK}:0", "--gateway-port", str(self.gateway)]
        with (self.directory / "up.err").open("ab") as words:
            self._process = subprocess.Popen(
                [HANDFAST, "up", *own, *places, "--data", self.data, "--workers", "2", *self.options],
                stdout=subprocess.PIPE,
                stderr=words,
                text=True,
                start_new_session=True,
            )
        self.greeting = []
        threading.Thread(target=self._listen, args=(self._process, self.greeting), daemon=True).start()

    @staticmethod
    def _listen(process: subprocess.Popen[str], greeting: list[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            greeting.append(line.rstrip())  # noqa: PERF401 - each line is to be seen as it comes

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.directory / "up.err").read_text()
        return any("/metrics" in line for line in self.greeting)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """End the program with a signal; give its exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait until the program has ended; give its exit code."""
        process, self._process = self._process, None
        assert process is not None
        try:
            return process.wait(STOP_S)
        finally:
            process.kill()
            process.wait()

    def close(self) -> None:
        """End the program if it still runs."""
        if self._process:
            self.stop()

    @property
    def running(self) -> bool:
        """Tell whether the program runs."""
        return self._process is not None and self._process.poll() is None

    # Commands

    def run(
        self, *words: str | Path, expect: int = 0, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of ``handfast`` with this platform's data directory; its exit code is the expected one."""
        own = {"HANDFAST_DATA": str(self.data), "NO_COLOR": "1", "COLUMNS": "200"}
        done = subprocess.run(
            [HANDFAST, *words],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.directory,
            env={**os.environ, **own, **(environment or {})},
            timeout=COMMAND_S,
        )
        assert done.returncode == expect, f"handfast {words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def explain(self, id_: str) -> str:
        """Give the explanation of a request or an event."""
        return self.run("explain", id_).stdout

    # The same over the local socket, where a test needs many

    def issue(self, name: str, **more: Any) -> Client:
        """Issue a certificate; give the files."""
        key = new_key(name)
        request = CertificateRequest(name=name, csr=key.csr_pem, **more)
        answer = self._ask(lambda api: api.call("POST", "/v1/certificates", CertificateAnswer, request))
        stem = self.directory / f"client-{answer.serial}"
        files = Files(stem.with_suffix(".pem"), stem.with_suffix(".key"))
        files.chain.write_text(answer.chain)
        files.key.touch(0o600)
        files.key.write_text(key.key_pem)
        return Client(files)

    def revoke(self, client: Client) -> None:
        """Revoke a client's certificate, and wait until the gateway knows."""
        request = RevocationRequest(serial=client.serial)
        self._ask(lambda api: api.call("POST", "/v1/revocations", RevocationAnswer, request))
        self.settled()

    def apply(self, world: str) -> WorldAnswer:
        """Apply a world, and wait until the gateway serves it."""
        answer: WorldAnswer = self._ask(lambda api: api.call("PUT", "/v1/world", WorldAnswer, world))
        self.settled()
        return answer

    def events(self, *kinds: str) -> list[Event]:
        """Give the last 500 events of these kinds, oldest first."""
        query: dict[str, str | list[str]] = {"last": "500", "kind": list(kinds)}
        answer = self._ask(lambda api: api.send("GET", "/v1/events", query=query))
        return list(json.loads(answer.content)["events"])

    def explanation(self, id_: str) -> str:
        """Give what 'handfast explain' prints."""
        return str(json.loads(self._ask(lambda api: api.send("GET", f"/v1/explanations/{id_}")).content)["text"])

    def inventory(self) -> list[dict[str, Any]]:
        """Give all certificates, newest first."""
        listed: list[dict[str, Any]] = json.loads(self._ask(lambda api: api.send("GET", "/v1/certificates")).content)[
            "certificates"
        ]
        return listed

    def world(self) -> str:
        """Give the world file that counts."""
        return str(self._ask(lambda api: api.send("GET", "/v1/world")).text)

    def authorities(self) -> AuthoritiesAnswer:
        """Give all authorities, and what a rotation waits for."""
        answer: AuthoritiesAnswer = self._ask(lambda api: api.call("GET", "/v1/authorities", AuthoritiesAnswer))
        return answer

    def go_back(self) -> None:
        """Undo the rotation that is under way, as 'handfast ca rotate --back' does."""
        self._ask(lambda api: api.call("DELETE", "/v1/authorities/rotation", AuthoritiesAnswer))

    def settled(self) -> None:
        """Wait until the gateway serves what the server knows."""
        wait_for("gateway that serves the newest", lambda: all(agent["current"] for agent in self.status()["agents"]))

    def status(self) -> dict[str, Any]:
        """Give the platform's status."""
        status: dict[str, Any] = json.loads(self._ask(lambda api: api.send("GET", "/v1/status")).content)
        return status

    def _ask(self, work: Callable[[Api], Any]) -> Any:
        async def asked() -> Any:
            async with Api.local(self.data / "server.sock") as api:
                return await work(api)

        return asyncio.run(asked())

    def hostile_pki(self) -> Pki:
        """Give an authority that can sign anything under this installation's own issuing key."""
        return pki_of(self.data / "authority")


def pki_of(authority: Path) -> Pki:
    """Stand on an installation's authority, given its directory."""
    cert, key, root = ((authority / name).read_bytes() for name in ("issuing.pem", "issuing-key.pem", "root.pem"))
    return Pki.on(cert, key, root_pem=root)
