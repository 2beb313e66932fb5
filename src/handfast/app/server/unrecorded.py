"""Certificates of our own authorities that the ledger never recorded, found so that they can be revoked all the same.

There are some after a backup was restored, where a CA had issued elsewhere before it was imported, and where a key was stolen.
Decides by the certificate itself, where its file is given or was imported: one of the issuing CAs that count has to have signed it.
Of one that a gateway saw there is no more than a report, which was made of a verified chain: there the name of its issuer has to be
that of one CA alone. Refuses to know who may revoke.
"""

from __future__ import annotations

from datetime import datetime

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509 import Certificate

from handfast.app.server.inventory_messages import SelectorRequest
from handfast.app.server.platform import Platform
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal, Refused
from handfast.base.spiffe import SpiffeId
from handfast.io.authorities import Authority
from handfast.io.ledger import InventoryQuery, WatchedRecord
from handfast.io.ledger.inventory import WATCHED
from handfast.io.records import CertificateRecord, CertificateState
from handfast.trust.facts import CertificateFacts, facts, fingerprint, load, pem_certificates

REQUESTER = "unrecorded"
_ALIKE = 100


async def unrecorded(platform: Platform, asked: SelectorRequest) -> CertificateRecord | None:
    """Give the record that a selected certificate would have, where an issuing CA of ours signed it; None where nothing is known of it.

    Raises:
        Refused: NOT_FOUND, as it is somebody else's.
        BadInput: the file is not the one of this fingerprint, or the ledger has another certificate of its serial.
    """
    if not (asked.serial or asked.fingerprint):
        return None
    now = platform.clock.now()
    if asked.certificate:
        leaf = pem_certificates(asked.certificate)[0]
        if fingerprint(leaf) != asked.fingerprint:
            raise BadInput("this is not the certificate of that fingerprint", key="certificate")
        found = _signed(platform, leaf, now)
    else:
        watched = await _watched(platform, asked, now)
        if watched is None:
            return None
        found = _signed(platform, watched.der, now) if watched.der else _reported(platform, watched, now)
    if await platform.ledger.by_serial(found.serial):
        raise BadInput(
            "the ledger has another certificate of this serial", key="serial", hint=f"revoke that: {found.serial}"
        )
    return found


async def _watched(platform: Platform, asked: SelectorRequest, now: datetime) -> WatchedRecord | None:
    query = InventoryQuery(serial=asked.serial, fingerprint=asked.fingerprint, state=WATCHED, limit=_ALIKE)
    page = await platform.ledger.inventory(query, now)
    records = [one.record for one in page.found if isinstance(one.record, WatchedRecord)]
    alike = [one for one in records if not asked.serial or one.serial == asked.serial]
    if len(alike) > 1:
        raise BadInput("several certificates of others have this serial", key="serial", hint="name its fingerprint")
    return alike[0] if alike else None


def _signed(platform: Platform, der: bytes, now: datetime) -> CertificateRecord:
    seen, certificate = facts(der), load(der)
    by = platform.authorities.by_issuer(seen.aki)
    if by is None or not _is_by(certificate, by):
        raise _not_ours(seen.serial, "none of the issuing CAs that count here signed it")
    return CertificateRecord(
        serial=seen.serial,
        issuer=seen.aki,
        identity=_identity(seen),
        name=_name(_identity(seen)),
        dns=seen.dns_sans,
        not_before=seen.window.not_before,
        not_after=seen.window.not_after,
        requester=REQUESTER,
        state=CertificateState.ISSUED,
        tbs=certificate.tbs_certificate_bytes,
        der=der,
        fingerprint=seen.fingerprint,
        recorded_at=now,
    )


def _reported(platform: Platform, watched: WatchedRecord, now: datetime) -> CertificateRecord:
    named = [one for one in platform.authorities.delivered if _may_be(one, watched)]
    if len(named) != 1:
        why = (
            "several issuing CAs have its issuer's name"
            if named
            else "no issuing CA that counts here has its issuer's name"
        )
        raise _not_ours(watched.serial, f"{why}; its file says more")
    return CertificateRecord(
        serial=watched.serial,
        issuer=named[0].issuer_facts.key_id.hex(),
        identity=watched.name,
        name=_name(watched.name),
        dns=watched.dns,
        not_before=watched.not_before,
        not_after=watched.not_after,
        requester=REQUESTER,
        state=CertificateState.ISSUED,
        fingerprint=watched.fingerprint,
        recorded_at=now,
    )


def _is_by(certificate: Certificate, issuer: Authority) -> bool:
    try:
        certificate.verify_directly_issued_by(load(issuer.issuing_der))
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _may_be(issuer: Authority, watched: WatchedRecord) -> bool:
    """Tell whether a CA can have issued what was seen: a leaf of ours never outlives its CA."""
    above = facts(issuer.issuing_der)
    return above.subject == watched.issuer and watched.not_after <= above.window.not_after


def _not_ours(serial: str, why: str) -> Refused:
    return Refused(Refusal(Reason.NOT_FOUND, {"serial": serial, "because": why}))


def _identity(seen: CertificateFacts) -> str:
    return next(iter((*seen.uri_sans, *seen.dns_sans)), seen.subject)


def _name(identity: str) -> str:
    try:
        return SpiffeId.parse(identity).name
    except BadInput:
        return identity
