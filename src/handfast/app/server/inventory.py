"""Endpoints for the inventory: one search over what was issued here and what others issued and we watch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.x509.oid import NameOID
from starlette.requests import Request

from handfast.access.values import duration
from handfast.app.server.callers import OPERATORS, Caller
from handfast.app.server.certificates import bounded_number
from handfast.app.server.endpoints import Endpoint
from handfast.app.server.inventory_messages import (
    ImportAnswer,
    ImportRequest,
    InventoryList,
    InventoryRow,
    OwnerRequest,
)
from handfast.app.server.messages import Nothing
from handfast.app.server.platform import Platform
from handfast.base.events import CertificateImported
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal, Refused
from handfast.io.ids import new_event_id
from handfast.io.ledger import Found, InventoryQuery, WatchedRecord
from handfast.io.records import CertificateRecord, CertificateState
from handfast.trust.facts import facts, load, pem, pem_certificates

PAGE = 500
IMPORTED = "imported"
_LONGEST = 512
_HEX = re.compile(r"[0-9a-f]*")
_TEXTS = ("name", "issuer", "state", "owner", "fingerprint", "serial")


@dataclass(frozen=True, slots=True)
class Inventory:
    """The endpoints of the inventory."""

    platform: Platform

    def endpoints(self) -> Sequence[Endpoint]:
        """Give the operations."""
        return (
            Endpoint(
                method="GET", path="/v1/inventory", handler=self.search, roles=OPERATORS, answer=InventoryList,
                query=(*_TEXTS, "expires", "after", "limit"),
            ),
            Endpoint(
                method="GET", path="/v1/inventory/{fingerprint}", handler=self.find, roles=OPERATORS, answer=InventoryRow
            ),
            Endpoint(
                method="POST", path="/v1/inventory", handler=self.import_certificates, roles=OPERATORS,
                body=ImportRequest, answer=ImportAnswer, status=201,
            ),
            Endpoint(
                method="PUT", path="/v1/owners", handler=self.own, roles=OPERATORS, body=OwnerRequest, answer=Nothing
            ),
        )  # fmt: skip

    async def search(self, _: Caller, request: Request, __: None) -> InventoryList:
        """Search the inventory, newest first; ``expires`` is within how long, such as 30d."""
        query, now = request.query_params, self.platform.clock.now()
        limit = max(bounded_number(query.get("limit"), "limit", PAGE, PAGE), 1)
        texts = {name: _text(name, query.get(name, "")) for name in _TEXTS}
        asked = InventoryQuery(
            **texts, expiring_before=_until(query.get("expires", ""), now), after=query.get("after", ""), limit=limit,
            declared=self._declared(),
        )  # fmt: skip
        page = await self.platform.ledger.inventory(asked, now)
        return InventoryList(certificates=[inventory_row(found, now) for found in page.found], next=page.next)

    async def find(self, _: Caller, request: Request, __: None) -> InventoryRow:
        """Show one certificate of the inventory by the SHA-256 of its DER."""
        wanted, now = request.path_params["fingerprint"][:64].lower(), self.platform.clock.now()
        found = await self.platform.ledger.in_inventory(wanted, now, self._declared())
        if found is None:
            raise Refused(Refusal(Reason.NOT_FOUND, {"fingerprint": wanted}))
        return inventory_row(found, now, certificate=True)

    async def import_certificates(self, caller: Caller, _: Request, body: ImportRequest) -> ImportAnswer:
        """Watch certificates of others. Nothing is trusted by that, and nothing about them is verified."""
        now = self.platform.clock.now()
        records = [watched(der, body.owner, str(caller), now) for der in pem_certificates(body.certificates)]
        events = [_imported(record) for record in records]
        new = set(await self.platform.ledger.watch(records, events))
        rows = [inventory_row(Found(record, record.owner), now) for record in records if record.fingerprint in new]
        return ImportAnswer(imported=rows, known=len(records) - len(rows))

    async def own(self, _: Caller, __: Request, body: OwnerRequest) -> Nothing:
        """Say who looks after the certificates of a name of which the world file says nothing."""
        self.platform.trust_domain.id(body.name)
        if declared := self._declared().get(body.name):
            raise BadInput(
                f"the world file says that {declared} looks after {body.name!r}",
                key="owner",
                hint="change it there: workloads, 'owner'",
            )
        await self.platform.ledger.own(body.name, body.owner)
        return Nothing()

    def _declared(self) -> dict[str, str]:
        """Give the owners that the world names, by the workload's name."""
        workloads = self.platform.slices.world.workloads
        return {name: workload.owner for name, workload in workloads.items() if workload.owner}


def watched(der: bytes, owner: str, requester: str, now: datetime) -> WatchedRecord:
    """Read somebody else's certificate for the inventory.

    Raises:
        BadInput: it cannot be read.
    """
    seen = facts(der)
    return WatchedRecord(
        fingerprint=seen.fingerprint,
        serial=seen.serial,
        issuer=seen.issuer[:_LONGEST],
        subject=seen.subject[:_LONGEST],
        name=_name(der, (*seen.uri_sans, *seen.dns_sans)) or seen.subject[:_LONGEST],
        dns=tuple(name[:_LONGEST] for name in seen.dns_sans[:100]),
        not_before=seen.window.not_before,
        not_after=seen.window.not_after,
        owner=owner,
        source=IMPORTED,
        requester=requester,
        recorded_at=now,
        der=der,
    )


def inventory_row(found: Found, now: datetime, *, certificate: bool = False) -> InventoryRow:
    """Give a row of the inventory; its state counts the clock in."""
    record = found.record
    row = InventoryRow(
        source="issued" if isinstance(record, CertificateRecord) else record.source,
        fingerprint=record.fingerprint,
        serial=record.serial,
        name=record.name,
        dns=list(record.dns),
        identity=record.identity if isinstance(record, CertificateRecord) else "",
        state=_state(record, now),
        not_before=record.not_before,
        not_after=record.not_after,
        issuer=record.issuer,
        subject=record.identity if isinstance(record, CertificateRecord) else record.subject,
        owner=found.owner,
        requester=record.requester,
        recorded_at=record.recorded_at,
        certificate=pem(record.der) if certificate and record.der else "",
    )
    if isinstance(record, CertificateRecord):
        row.revoked_at, row.revocation_reason = record.revoked_at, record.revocation_reason
    return row


def _state(record: CertificateRecord | WatchedRecord, now: datetime) -> str:
    expired = now >= record.not_after
    if isinstance(record, WatchedRecord):
        return "expired" if expired else "watched"
    return "expired" if expired and record.state is CertificateState.ISSUED else record.state.value


def _name(der: bytes, names: Sequence[str]) -> str:
    if names:
        return names[0][:_LONGEST]
    found = load(der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return _first_text(found)[:_LONGEST]


def _first_text(found: Sequence[x509.NameAttribute[str | bytes]]) -> str:
    value = found[0].value if found else ""
    return value if isinstance(value, str) else ""


def _imported(record: WatchedRecord) -> CertificateImported:
    return CertificateImported(
        id=new_event_id(),
        at=record.recorded_at,
        fingerprint=record.fingerprint,
        serial=record.serial,
        subject=record.subject,
        owner=record.owner,
        requester=record.requester,
    )


def _text(key: str, text: str) -> str:
    """Read a text to search for. Hex may have colons and capitals, as tools print it.

    Raises:
        BadInput: it is too long, or not hex where it has to be.
    """
    if len(text) > _LONGEST:
        raise BadInput(f"longer than {_LONGEST} characters", key=key)
    if key not in {"fingerprint", "serial"}:
        return text
    plain = text.replace(":", "").lower()
    if not _HEX.fullmatch(plain):
        raise BadInput(f"{text[:80]!r} is not hex", key=key)
    return plain


def _until(text: str, now: datetime) -> datetime | None:
    if not text:
        return None
    try:
        return now + (timedelta() if text == "0" else duration(text))
    except BadInput as error:
        raise error.at(key="expires") from error
    except OverflowError as error:
        raise BadInput("this is too far away", key="expires") from error
