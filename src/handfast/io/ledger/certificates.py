"""The inventory: every certificate that was to be signed, and what became of it.

Decides the states: ``intended`` becomes ``issued`` or ``failed``, anything becomes ``revoked``, and nothing comes back. A
certificate that was not recorded before it was signed is refused here, and so is one that was revoked in between. One that was
signed without a record all the same enters as revoked, and in no other state. Refuses to know how certificates are made.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from handfast.base.events import CertificateRevoked, Event
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal, Refused, Unavailable
from handfast.io.database import Conflict, Row, Step, Value, placeholders, step
from handfast.io.ledger.events import MAX_BATCH, Events, bounded, from_micros, to_micros
from handfast.io.records import CertificateRecord, CertificateState
from handfast.trust.revocation import RevocationReason
from handfast.trust.tbs import key_digest

_TRIES = 16
_INTENDED = CertificateState.INTENDED.value
COLUMNS = (
    "serial, issuer, identity, name, dns, not_before, not_after, requester, state, tbs, der, fingerprint, "
    "recorded_at, revoked_at, revocation_reason"
)
_SELECT = f"select {COLUMNS} from certificates"  # noqa: S608 - names of ours
_INTEND = f"insert into certificates ({COLUMNS}) values ({placeholders(15)})"  # noqa: S608 - names of ours
_STATE = "update certificates set state = $2"
_ISSUE = f"{_STATE}, der = $3, fingerprint = $4 where serial = $1 and state = $5"
_FAIL = f"{_STATE} where serial = $1 and state = $3"
_REVOKED_LIVE = """select not_after, name, seq, issuer, serial, fingerprint, revoked_at, revocation_reason from certificates
    where state = $1 and (not_after, name, seq) > ($2, $3, $4) order by not_after, name, seq limit 500"""
_SECOND = 1_000_000
_REFUSED = "select 1 from refused_keys where sha256 = $1 and sha256 <> ''"

RevokedCertificate = tuple[str, str, str, int, str]
"""What CRLs and gateways need to know of a revoked certificate: issuer, serial, fingerprint (empty where it was never issued),
when, as seconds since 1970, and the reason. A plain tuple: the garbage collector looks after a million objects of a class at length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateQuery:
    """Which certificates to list. ``after`` is the page before's `CertificatePage.next`; 0 begins with the newest."""

    name: str | None = None
    state: CertificateState | None = None
    expiring_before: datetime | None = None
    expiring_after: datetime | None = None
    after: int = 0
    limit: int = 100


@dataclass(frozen=True, slots=True)
class CertificatePage:
    """Certificates, newest first. ``next`` asks for the next page; None where there is none."""

    records: list[CertificateRecord]
    next: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many unexpired certificates are in each state, and which name is the first to be left without one, and when."""

    by_state: dict[str, int]
    soonest_name: str = ""
    soonest_expiry: datetime | None = None


class Certificates(Events):
    """The certificates."""

    async def record_intent(self, record: CertificateRecord) -> Refusal | None:
        """Keep what is about to be signed, before it is, as ``intended``.

        Refused are a serial that is taken, and a key that was revoked as compromised: here, in the unit that every issuance
        begins with, so that no way to a certificate leads around it.
        """
        key = key_digest(record.tbs)
        try:
            await self._db.write(step(_REFUSED, key, expect=0), step(_INTEND, *_intent(record)))
        except Conflict:
            if await self._db.fetch(_REFUSED, key):
                return Refusal(Reason.ISSUANCE_KEY_COMPROMISED, {"key_sha256": key})
            seen = {"serial": record.serial, "finding": "the serial number is taken (RFC 5280 section 4.1.2.2)"}
            return Refusal(Reason.ISSUANCE_LINT, seen)
        return None

    async def record_issued(self, serial: str, der: bytes, event: Event) -> None:
        """Keep the signed certificate beside its intent, with its event. Doing it again changes nothing.

        Raises:
            Refused: there is no such intent, or it was revoked or given up meanwhile. Do not deliver the certificate.
        """
        update = step(
            _ISSUE,
            serial,
            CertificateState.ISSUED.value,
            der,
            hashlib.sha256(der).hexdigest(),
            CertificateState.INTENDED.value,
            expect=1,
        )
        try:
            await self._commit(update, events=[event])
        except Conflict as conflict:
            found = await self.by_serial(serial)
            if found is None or found.state is not CertificateState.ISSUED or found.der != der:
                raise Refused(Refusal(Reason.ISSUANCE_MISMATCH, _seen(serial, found))) from conflict

    async def record_failed(self, serial: str, event: Event) -> None:
        """Keep that an intent came to nothing, and why. Doing it again changes nothing.

        Raises:
            Refused: there is no such intent, or a certificate was issued from it.
        """
        update = step(
            _FAIL,
            serial,
            CertificateState.FAILED.value,
            CertificateState.INTENDED.value,
            expect=1,
        )
        try:
            await self._commit(update, events=[event])
        except Conflict as conflict:
            found = await self.by_serial(serial)
            if found is None or found.state not in {CertificateState.FAILED, CertificateState.REVOKED}:
                raise Refused(Refusal(Reason.NOT_FOUND, _seen(serial, found))) from conflict
            await self.append([event])

    async def revoke(
        self, serials: Sequence[str], at: datetime, reason: str, events: Sequence[CertificateRevoked]
    ) -> list[str]:
        """Revoke certificates, 1000 at most, and give the serials of those that this call revoked.

        All are revoked, or none. Unknown and revoked ones are passed over, and so are their events. Whatever state it is
        in, a serial can be revoked: an interrupted intent may have been signed. ``reason`` is one of RFC 5280 section
        5.3.1; after ``keyCompromise`` no certificate is issued for these keys again.

        Raises:
            BadInput: they are too many.
            Unavailable: others changed the same certificates again and again.
        """
        if len(serials) > MAX_BATCH:
            raise BadInput(f"more than {MAX_BATCH} certificates at once", key="serials")
        for _ in range(_TRIES):
            live = await self._not_revoked(sorted(set(serials)))
            if not live:
                return []
            told = [event for event in events if event.serial in live]
            steps = [_revocation(serial, at, reason) for serial in live]
            if reason == RevocationReason.KEY_COMPROMISE.value:
                steps += [_refusal(serial, tbs, at) for serial, tbs in live.items()]
            try:
                await self._commit(*steps, events=told, changes=True)
            except Conflict:
                continue
            return list(live)
        raise Unavailable("others change the same certificates", hint="try again")

    async def revoke_unrecorded(self, record: CertificateRecord, reason: str, event: CertificateRevoked) -> bool:
        """Keep a certificate that was signed without a record, as revoked at the event's time; tell whether that was new.

        It is ours from then on: lists, OCSP and gateways have it, and it is no longer watched. ``reason`` as in `revoke`.
        """
        kept = step(_INTEND, *_intent(record))
        signed = step(_ISSUE, record.serial, CertificateState.ISSUED.value, record.der, record.fingerprint, _INTENDED)
        steps = [kept, signed, _revocation(record.serial, event.at, reason)]
        if reason == RevocationReason.KEY_COMPROMISE.value and record.tbs:
            steps.append(_refusal(record.serial, record.tbs, event.at))
        steps.append(step("delete from watched where fingerprint = $1", record.fingerprint))
        try:
            await self._commit(*steps, events=[event], changes=True)
        except Conflict:
            return False
        return True

    async def by_serial(self, serial: str) -> CertificateRecord | None:
        """Find a certificate by its serial, lower case hex."""
        row = await self._db.one(f"{_SELECT} where serial = $1", serial)
        return record_of(row) if row else None

    async def by_fingerprint(self, fingerprint: str) -> CertificateRecord | None:
        """Find a certificate by the SHA-256 of its DER, lower case hex."""
        row = await self._db.one(f"{_SELECT} where fingerprint = $1 and fingerprint <> ''", fingerprint)
        return record_of(row) if row else None

    async def live_by_name(self, name: str, now: datetime) -> list[CertificateRecord]:
        """Give a name's unexpired certificates, issued or about to be, newest first, 1000 at most: what to revoke."""
        sql = f"{_SELECT} where name = $1 and not_after > $2 and state in ($3, $4) order by seq desc limit {MAX_BATCH}"
        states = (CertificateState.ISSUED.value, CertificateState.INTENDED.value)
        return [record_of(row) for row in await self._db.fetch(sql, name, to_micros(now), *states)]

    async def list_certificates(self, query: CertificateQuery) -> CertificatePage:
        """List certificates, newest first.

        Raises:
            BadInput: the limit is not from 1 to 1000.
        """
        where, args = _where(query)
        sql = f"select seq, {COLUMNS} from certificates where {where} order by seq desc limit $1"  # noqa: S608 - placeholders
        rows = await self._db.fetch(sql, bounded(query.limit), *args)
        more = len(rows) == query.limit
        return CertificatePage([record_of(row[1:]) for row in rows], rows[-1][0] if more else None)

    async def revoked_live(self, now: datetime) -> AsyncIterator[list[RevokedCertificate]]:
        """Give all revoked certificates that have not expired, by expiry, in parts: what CRLs and gateways hold.

        What was revoked before the first part was asked for is in one of them; of what is revoked meanwhile some may be.
        """
        last: tuple[Value, ...] = (to_micros(now) + 1, "", 0)
        while rows := await self._db.fetch(_REVOKED_LIVE, CertificateState.REVOKED.value, *last):
            last = rows[-1][:3]
            yield [
                (issuer, serial, fingerprint, at // _SECOND, why) for *_, issuer, serial, fingerprint, at, why in rows
            ]
            await asyncio.sleep(0)  # a database in this process answers at once, and a million are a thousand parts

    async def interrupted(self, before: datetime, limit: int = 100) -> list[CertificateRecord]:
        """Give intents from before ``before`` that came to no end, oldest first: something died while it signed.

        Raises:
            BadInput: the limit is not from 1 to 1000.
        """
        sql = f"{_SELECT} where state = $1 and recorded_at < $2 order by recorded_at, serial limit $3"
        args = (CertificateState.INTENDED.value, to_micros(before), bounded(limit))
        return [record_of(row) for row in await self._db.fetch(sql, *args)]

    async def counts(self, now: datetime) -> Counts:
        """Count the unexpired certificates by state, and find the name that is first left without one."""
        by_state = {}
        for state in CertificateState:
            sql = "select count(*) from certificates where state = $1 and not_after > $2"
            ((by_state[state.value],),) = await self._db.fetch(sql, state.value, to_micros(now))
        sql = """select name, max(not_after) as ends from certificates where state = $1 and not_after > $2
            group by name order by ends, name limit 1"""
        row = await self._db.one(sql, CertificateState.ISSUED.value, to_micros(now))
        if row is None:
            return Counts(by_state=by_state)
        return Counts(by_state=by_state, soonest_name=row[0], soonest_expiry=from_micros(row[1]))

    async def _not_revoked(self, serials: list[str]) -> dict[str, bytes]:
        """Give the serials that are not revoked, each with what was to be signed."""
        if not serials:
            return {}
        numbers = placeholders(len(serials), 2)
        sql = f"select serial, tbs from certificates where state <> $1 and serial in ({numbers}) order by seq"  # noqa: S608 - placeholders
        rows: list[Any] = await self._db.fetch(sql, CertificateState.REVOKED.value, *serials)
        return dict(rows)


def _seen(serial: str, found: CertificateRecord | None) -> dict[str, str]:
    return {"serial": serial, "state": found.state.value if found else "unknown"}


def _where(query: CertificateQuery) -> tuple[str, list[Value]]:
    asked: list[tuple[str, Value]] = []
    if query.after:
        asked.append(("seq <", query.after))
    if query.name is not None:
        asked.append(("name =", query.name))
    if query.state is not None:
        asked.append(("state =", query.state.value))
    if query.expiring_before is not None:
        asked.append(("not_after <", to_micros(query.expiring_before)))
    if query.expiring_after is not None:
        asked.append(("not_after >=", to_micros(query.expiring_after)))
    conditions = [f"{condition} ${number}" for number, (condition, _) in enumerate(asked, 2)]
    return " and ".join(["1 = 1", *conditions]), [value for _, value in asked]


def _revocation(serial: str, at: datetime, reason: str) -> Step:
    return step(
        f"{_STATE}, revoked_at = $3, revocation_reason = $4 where serial = $1 and state <> $2",
        serial,
        CertificateState.REVOKED.value,
        to_micros(at),
        reason,
        expect=1,
    )


def _refusal(serial: str, tbs: bytes, at: datetime) -> Step:
    sql = "insert into refused_keys (sha256, serial, refused_at) values ($1, $2, $3) on conflict (sha256) do nothing"
    return step(sql, key_digest(tbs), serial, to_micros(at))


def _intent(record: CertificateRecord) -> tuple[Value, ...]:
    return (
        record.serial,
        record.issuer,
        record.identity,
        record.name,
        json.dumps(record.dns),
        to_micros(record.not_before),
        to_micros(record.not_after),
        record.requester,
        CertificateState.INTENDED.value,
        record.tbs,
        b"",
        "",
        to_micros(record.recorded_at),
        None,
        "",
    )


def record_of(row: Row) -> CertificateRecord:
    """Read a row of `COLUMNS`."""
    serial, issuer, identity, name, dns, not_before, not_after, requester, state, *rest = row
    tbs, der, fingerprint, recorded_at, revoked_at, reason = rest
    return CertificateRecord(
        serial=serial,
        issuer=issuer,
        identity=identity,
        name=name,
        dns=tuple(json.loads(dns)),
        not_before=from_micros(not_before),
        not_after=from_micros(not_after),
        requester=requester,
        state=CertificateState(state),
        tbs=tbs,
        der=der,
        fingerprint=fingerprint,
        recorded_at=from_micros(recorded_at),
        revoked_at=None if revoked_at is None else from_micros(revoked_at),
        revocation_reason=reason,
    )
