"""Certificates that must not get in, each by name: what it is, and how it ought to be refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.x509.oid import ExtendedKeyUsageOID

from handfast.base.reasons import Reason
from handfast.base.spiffe import TrustDomain
from handfast.io.authorities import create_authority
from handfast.io.clock import SystemClock
from tests.e2e.platform import Client, Platform, pki_of
from tests.e2e.world import DOMAIN
from tests.support.pki import SERVER, Files, Issued, Pki

ANY_USAGE = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
NAME = "payments"
"""What all of them call themselves: an identity that is allowed, were the certificate good."""


@dataclass(frozen=True)
class Case:
    """How to make a certificate, and the reason for which it is refused.

    ``alert`` is what a client of TLS 1.3 sees, in OpenSSL's words; it is empty where the handshake succeeds.
    """

    reason: Reason
    make: Callable[[Platform, Pki, Path], Issued | Client]
    alert: str = ""

    def files(self, platform: Platform, pki: Pki, directory: Path) -> Files:
        """Make it, and write it down."""
        made = self.make(platform, pki, directory)
        return made.files if isinstance(made, Client) else made.write(directory, "hostile")


def _leaf(**options: object) -> Callable[[Platform, Pki, Path], Issued]:
    return lambda _platform, pki, _directory: pki.leaf(NAME, **options)  # type: ignore[arg-type]


def _san(*uris: str) -> Callable[[Platform, Pki, Path], Issued]:
    return _leaf(san_uris=uris)


def _without_intermediate(_: Platform, pki: Pki, __: Path) -> Issued:
    whole = pki.leaf(NAME)
    return Issued(whole.cert, whole.key)


def _of_an_older_installation(_: Platform, __: Pki, directory: Path) -> Issued:
    """Make a leaf of an installation of the same name, whose keys are others."""
    create_authority(directory / "older", TrustDomain(DOMAIN), SystemClock(), None)
    return pki_of(directory / "older").leaf(NAME)


def _revoked(platform: Platform, _: Pki, __: Path) -> Client:
    client = platform.issue(NAME)
    platform.revoke(client)
    return client


def _issuer_is_a_leaf(_: Platform, pki: Pki, __: Path) -> Issued:
    """Sign with the key of a good leaf, as anybody who has one can."""
    leaf = pki.leaf("staff/alice")
    made = Pki("leaf", issuing=leaf).leaf(NAME)
    return Issued(made.cert, made.key, (leaf.cert, *leaf.above))


def _expired_this_minute(_: Platform, pki: Pki, __: Path) -> Issued:
    now = datetime.now(UTC)
    return pki.leaf(NAME, not_before=now - timedelta(hours=1), not_after=now - timedelta(seconds=1))


AT_TLS: dict[str, Case] = {
    "wrong-authority": Case(
        Reason.CHAIN_UNKNOWN_AUTHORITY, lambda *_: Pki("Elsewhere").leaf(NAME), "TLSV1_ALERT_UNKNOWN_CA"
    ),
    "missing-intermediate": Case(Reason.CHAIN_MISSING_INTERMEDIATE, _without_intermediate, "TLSV1_ALERT_UNKNOWN_CA"),
    "same-name-other-key": Case(Reason.CHAIN_SAME_NAME_OTHER_KEY, _of_an_older_installation, "TLSV1_ALERT_UNKNOWN_CA"),
    "self-signed": Case(Reason.CERT_SELF_SIGNED, _leaf(self_signed=True), "TLSV1_ALERT_UNKNOWN_CA"),
    "expired": Case(Reason.CERT_EXPIRED, lambda _, pki, __: pki.expired(NAME), "SSLV3_ALERT_CERTIFICATE_EXPIRED"),
    "expired-this-minute": Case(Reason.CERT_EXPIRED, _expired_this_minute, "SSLV3_ALERT_CERTIFICATE_EXPIRED"),
    "not-yet-valid": Case(
        Reason.CERT_NOT_YET_VALID, lambda _, pki, __: pki.not_yet_valid(NAME), "SSLV3_ALERT_CERTIFICATE_EXPIRED"
    ),
    "revoked": Case(Reason.REVOKED, _revoked, "SSLV3_ALERT_CERTIFICATE_REVOKED"),
    "server-auth-alone": Case(Reason.CERT_WRONG_EKU, _leaf(eku=[SERVER]), "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"),
    "any-usage-alone": Case(Reason.CERT_WRONG_EKU, _leaf(eku=[ANY_USAGE]), "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"),
    "issued-by-a-leaf": Case(Reason.CHAIN_UNKNOWN_AUTHORITY, _issuer_is_a_leaf, "TLSV1_ALERT_UNKNOWN_CA"),
}
"""Refused in the handshake: no request of theirs is ever read."""

AT_HTTP: dict[str, Case] = {
    "no-eku": Case(Reason.CERT_NO_EKU, _leaf(eku=None)),
    "ca-as-leaf": Case(Reason.CERT_IS_CA, _leaf(ca=True)),
    "rsa-1024": Case(Reason.CERT_WEAK_KEY, _leaf(key="rsa-1024")),
    "sha-1": Case(Reason.CERT_WEAK_SIGNATURE, _leaf(sha1=True)),
    "no-uri-san": Case(Reason.IDENTITY_NO_URI_SAN, _san()),
    "several-uri-sans": Case(
        Reason.IDENTITY_SEVERAL_URI_SANS, _san(f"spiffe://{DOMAIN}/{NAME}", f"spiffe://{DOMAIN}/reports")
    ),
    "not-a-spiffe-id": Case(Reason.IDENTITY_NOT_SPIFFE, _san(f"https://{DOMAIN}/{NAME}")),
    "foreign-trust-domain": Case(Reason.IDENTITY_FOREIGN_DOMAIN, _san(f"spiffe://other.example/{NAME}")),
}
"""Good for TLS, and refused before a request of theirs reaches a service."""
