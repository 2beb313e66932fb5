"""The server's own failed handshakes, in the same vocabulary as the gateway's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from handfast.base.events import HandshakeRefused, OfferedCertificate
from handfast.base.refusal import BadInput
from handfast.doctor.openssl import recognise_openssl
from handfast.io.ids import new_event_id
from handfast.sdk.handshake import FailedHandshake
from handfast.trust.facts import facts

GATEWAY = "server"
_MOST = 1024


def refused(failed: FailedHandshake, known_cas: Sequence[bytes], now: datetime) -> HandshakeRefused:
    """Make the event of a handshake that failed at the server's front."""
    return HandshakeRefused(
        id=new_event_id(),
        at=now,
        gateway=GATEWAY,
        listener=failed.local,
        peer=failed.peer,
        server_name=failed.server_name[:_MOST],
        tls_version=failed.tls_version,
        reason=recognise_openssl(failed.reason_text, failed.verify_code, failed.offered, known_cas),
        certificate=_offered(failed.offered),
        raw=f"{failed.reason_text} {failed.verify_message}".strip()[:_MOST],
    )


def _offered(chain: Sequence[bytes]) -> OfferedCertificate | None:
    if not chain:
        return None
    try:
        leaf = facts(chain[0])
    except BadInput:
        return OfferedCertificate(chain_length=len(chain))
    return OfferedCertificate(
        subject=leaf.subject[:_MOST],
        issuer=leaf.issuer[:_MOST],
        serial=leaf.serial,
        fingerprint=leaf.fingerprint,
        uri_sans=tuple(name[:_MOST] for name in leaf.uri_sans[:32]),
        dns_sans=tuple(name[:_MOST] for name in leaf.dns_sans[:32]),
        not_before=leaf.window.not_before,
        not_after=leaf.window.not_after,
        chain_length=len(chain),
    )
