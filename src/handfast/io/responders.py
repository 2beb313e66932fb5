"""The OCSP responders of all issuers that count, each made when it is first needed.

Decides which issuer has one. Refuses to know what it answers (`handfast.io.responder`), and who asks: strangers over plain HTTP,
or agents for what their gateways staple.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from handfast.io.authorities import Authority
from handfast.io.files import private_directory
from handfast.io.generations import Generations
from handfast.io.issuance import Issuance
from handfast.io.ledger import SqlLedger
from handfast.io.ledger.status import StatusTable
from handfast.io.ports import Clock
from handfast.io.responder import Responder
from handfast.io.sealed import Passphrase
from handfast.trust.facts import CertificateFacts


@dataclass(slots=True)
class Responders:
    """One responder an issuer. Their keys lie in ``directory``, sealed with ``passphrase`` if there is one.

    ``adopted`` is told of each certificate that one begins to answer with.
    """

    authorities: Generations
    ledger: SqlLedger
    table: StatusTable
    clock: Clock
    directory: Path
    passphrase: Passphrase | None
    adopted: Callable[[CertificateFacts], Awaitable[None]]
    _made: dict[str, Responder] = field(default_factory=dict)

    def of(self, authority: Authority) -> Responder:
        """Give an issuer's responder.

        Raises:
            BadInput: the directory for its key cannot be used.
        """
        key_id = authority.issuer_facts.key_id.hex()
        if key_id not in self._made:
            private_directory(self.directory)
            self._made[key_id] = self._make(authority, key_id)
        return self._made[key_id]

    def by_issuer(self, key_id: str) -> Responder | None:
        """Give the responder of the issuer with this key identifier (hex); None where it does not count here any more."""
        authority = self.authorities.by_issuer(key_id)
        if authority is None:
            self._made.pop(key_id, None)
            return None
        return self.of(authority)

    def current(self) -> Responder:
        """Give the responder of the authority that issues now."""
        return self.of(self.authorities.current)

    def _make(self, authority: Authority, key_id: str) -> Responder:
        return Responder(
            authority,
            Issuance(authority, self.ledger, self.clock),
            self.table,
            self.clock,
            self.directory / f"ocsp-{key_id}.pem",
            lambda: self.ledger.changes.value,
            self.passphrase,
            self.adopted,
        )
