"""Where an agent keeps what it has: one directory, for its owner alone."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

LONGEST_SOCKET = 100


@dataclass(frozen=True, slots=True)
class AgentPaths:
    """The files below an agent's directory."""

    root: Path

    @property
    def identity(self) -> Path:
        """The agent's own credential."""
        return self.root / "identity.pem"

    @property
    def slice(self) -> Path:
        """The last slice that Envoy took."""
        return self.root / "slice.json"

    @property
    def session_key(self) -> Path:
        """The key that signs session tokens."""
        return self.root / "session-key.pem"

    @property
    def standings(self) -> Path:
        """What is known of partners' certificates."""
        return self.root / "standings"

    @property
    def envoy(self) -> Path:
        """Envoy's own directory."""
        return self.root / "envoy"

    @property
    def access_log(self) -> Path:
        """What Envoy writes of connections and refusals."""
        return self.envoy / "access.log"

    @property
    def partner_hosts(self) -> Path:
        """At which hosts names in certificates may be others'."""
        return self.access_log.with_suffix(".partner-hosts")

    @property
    def run(self) -> Path:
        """Where the Unix sockets are. A socket's path is short (sun_path), so a deep directory gets a short one beside it."""
        if len(str(self.root.resolve() / "run" / "session.sock")) <= LONGEST_SOCKET:
            return self.root.resolve() / "run"
        name = hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"handfast-{os.getuid()}-{name}"

    def socket(self, name: str) -> Path:
        """Give one of the Unix sockets: ads, admin, session."""
        return self.run / f"{name}.sock"

    def host(self, name: str) -> Path:
        """Give the credential of a host."""
        return self.root / "hosts" / f"{name}.pem"

    def staple(self, name: str) -> Path:
        """Give the OCSP response that is stapled to a host's certificate."""
        return self.root / "hosts" / f"{name}.ocsp"
