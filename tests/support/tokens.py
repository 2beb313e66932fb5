"""A token made of files, by SoftHSM, with keys in it: for tests that are marked to need it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

MODULES = (
    Path("/usr/lib/softhsm/libsofthsm2.so"),
    Path("/usr/local/lib/softhsm/libsofthsm2.so"),
    Path("/opt/homebrew/lib/softhsm/libsofthsm2.so"),
)
NEEDED = pytest.mark.debian("softhsm2-util", "pkcs11-tool")
"""The Debian packages softhsm2 and opensc."""

LABEL, PIN = "ca", "48151623"
TYPES = {"p256": "EC:secp256r1", "p384": "EC:secp384r1", "rsa2048": "rsa:2048", "ed25519": "EC:edwards25519"}


def softhsm() -> Path:
    """Give the library's file."""
    return next(path for path in MODULES if path.exists())


@dataclass(frozen=True)
class Token:
    """A token with one user PIN. Its place is told by the environment, which children inherit."""

    directory: Path

    @property
    def pin_file(self) -> Path:
        """Where the PIN lies."""
        return self.directory / "pin"

    def make(self, kind: str, label: str, number: int = 1) -> None:
        """Make a key pair."""
        words = ["--keypairgen", "--key-type", TYPES[kind], "--label", label, "--id", f"{number:02x}"]
        self.tool(*words)

    def tool(self, *words: str) -> None:
        """Run pkcs11-tool, logged in."""
        command = ["pkcs11-tool", "--module", str(softhsm()), "--token-label", LABEL, "--login", "--pin", PIN, *words]
        subprocess.run(command, check=True, capture_output=True, timeout=30)

    def uri(self, label: str, *, pin_file: Path | None = None, module: Path | None = None, **more: str) -> str:
        """Write the URI of a key."""
        path = ";".join([f"token={LABEL}", f"object={label}", *(f"{name}={value}" for name, value in more.items())])
        return f"pkcs11:{path}?module-path={module or softhsm()}&pin-source=file:{pin_file or self.pin_file}"


def new_token(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Token:
    """Make an empty token, and point this process and its children to it."""
    (directory / "tokens").mkdir(parents=True)
    settings = directory / "softhsm2.conf"
    settings.write_text(
        f"directories.tokendir = {directory / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    monkeypatch.setenv("SOFTHSM2_CONF", str(settings))
    command = ["softhsm2-util", "--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", "so-" + PIN]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    token = Token(directory)
    os.close(os.open(token.pin_file, os.O_CREAT | os.O_WRONLY, 0o600))
    token.pin_file.write_text(f"{PIN}\n")
    return token
