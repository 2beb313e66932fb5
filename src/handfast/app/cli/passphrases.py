"""Where a command finds the passphrase that seals the authority's keys."""

from __future__ import annotations

import os
from pathlib import Path

from handfast.io.sealed import Passphrase, PassphraseCredential, PassphraseFile, PassphraseVariable, read_passphrase

PASSPHRASE_VARIABLE = "HANDFAST_PASSPHRASE"  # noqa: S105 - a name


def passphrase_from(file: Path | None) -> Passphrase | None:
    """Give the passphrase from the first source that is there."""
    if file:
        return read_passphrase(PassphraseFile(file))
    if PASSPHRASE_VARIABLE in os.environ:
        return read_passphrase(PassphraseVariable(PASSPHRASE_VARIABLE))
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if directory and (Path(directory) / "handfast-passphrase").exists():
        return read_passphrase(PassphraseCredential())
    return None
