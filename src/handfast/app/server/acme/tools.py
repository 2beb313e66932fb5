"""What the ACME endpoints work with, beside the platform's other parts."""

from __future__ import annotations

from dataclasses import dataclass

from handfast.io.acme_challenges import Lookout, LookSettings
from handfast.io.acme_keys import MacKeys
from handfast.io.ledger import SqlLedger
from handfast.io.ports import Clock
from handfast.io.sealed import Passphrase


@dataclass(frozen=True, slots=True)
class AcmeTools:
    """The keys of bindings, and what looks at challenges."""

    mac_keys: MacKeys
    lookout: Lookout


def acme_tools(settings: LookSettings, passphrase: Passphrase | None, ledger: SqlLedger, clock: Clock) -> AcmeTools:
    """Make them; nothing is read or derived yet."""
    return AcmeTools(MacKeys(ledger, passphrase), Lookout(settings, clock))
