"""From Envoy's report of a failed handshake to the one reason.

Decides what Envoy's words mean: the tables below, of which tests/vectors hold the measured ones. Refuses to know the
certificate: causes that Envoy reports alike are told apart by `handfast.doctor.verdict`.

The law of this file: words that nobody here knows give ``handshake.unrecognised``. And no word that a client chose decides:
its server name and its certificate's names stand behind ours, and are never looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from handfast.base.reasons import Reason

LISTENER_PATIENCE_MS = 10_000
"""How long the listeners wait for a ClientHello. Envoy then closes without a word: the duration alone tells."""

LONGEST_TEXT = 1024
"""The most that a record keeps of a text that a stranger chose, in characters."""

_MOST_WORDS = 4096
_CLOCK_GRAIN_MS = 100
_ERROR = re.compile(r"openssl internal:([^:|]+)")
_VERIFY = "certificate verify failed:verify cert failed: "
_CHAIN = re.compile(
    r"x509 verify cert: certificate verification error at depth (\d+): "
    r"(?:certificate revocation check against provided crls failed: )?([^:]+)"
)
_ALERT = re.compile(r"(?:sslv3|tlsv1)(?: alert)? (.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureReport:
    """What Envoy says of one handshake that did not finish. Absent is empty.

    ``failure`` is the transport failure reason, with ``_`` (file log) or spaces (gRPC log) between words. ``details`` are the
    connection termination details, ``flags`` the response flags. ``chain_length`` counts the certificates that the client sent.
    """

    failure: str = ""
    flags: frozenset[str] = frozenset()
    details: str = ""
    filter_chain: str = ""
    tls_version: str = ""
    server_name: str = ""
    duration_ms: int = 0
    chain_length: int = 0


@dataclass(frozen=True, slots=True)
class Words:
    """A transport failure reason, taken apart.

    ``error`` is BoringSSL's name of the first error. ``verify`` is what the certificate check found, ``depth`` where: 0 is the
    leaf; -1 stands for a check that has no depth.
    """

    error: str = ""
    verify: str = ""
    depth: int = -1

    @property
    def alert(self) -> str:
        """The alert that the client sent, such as ``unknown ca``; empty when it sent none."""
        match = _ALERT.fullmatch(self.error)
        return match[1] if match else ""


def read_words(failure: str) -> Words:
    """Take a transport failure reason apart. Both spellings give the same."""
    text = failure[:_MOST_WORDS].replace("_", " ").lower()
    head, verified, tail = text.partition(_VERIFY)
    if verified:
        return _read_check(tail)
    error = _ERROR.search(head)
    return Words(error=error[1].strip() if error else _bare(head))


def _read_check(tail: str) -> Words:
    if chain := _CHAIN.match(tail):
        return Words(error=_FAILED, verify=chain[2].strip(), depth=int(chain[1][:3]))
    known = next((check for check in CHECKS if tail.startswith(check)), "")
    return Words(error=_FAILED, verify=known)


def _bare(text: str) -> str:
    """Give the words of an error that is Envoy's own, and has no number."""
    return text.removeprefix("tls error:").removesuffix(":tls error end").strip()


_FAILED = "certificate verify failed"

# What X509_verify_cert_error_string says, at the leaf and above it.
CHAIN_ERRORS: Mapping[str, tuple[Reason, Reason]] = {
    "certificate has expired": (Reason.CERT_EXPIRED, Reason.CHAIN_ISSUER_EXPIRED),
    "certificate is not yet valid": (Reason.CERT_NOT_YET_VALID, Reason.CHAIN_ISSUER_NOT_YET_VALID),
    "unsupported certificate purpose": (Reason.CERT_WRONG_EKU, Reason.CHAIN_ISSUER_WRONG_EKU),
    "certificate revoked": (Reason.REVOKED, Reason.REVOKED_ISSUER),
    "self signed certificate": (Reason.CERT_SELF_SIGNED, Reason.CHAIN_UNKNOWN_AUTHORITY),
    "key usage does not include digital signature": (Reason.CERT_KEY_USAGE, Reason.CHAIN_ISSUER_NOT_A_CA),
    "unable to decrypt certificate's signature": (Reason.CERT_UNREADABLE, Reason.CERT_UNREADABLE),
} | {
    words: (reason, reason)
    for reason, phrases in {
        Reason.CHAIN_UNKNOWN_AUTHORITY: (
            "unable to get local issuer certificate",
            "unable to get issuer certificate",
            "unable to verify the first certificate",
            "self signed certificate in certificate chain",
            "certificate not trusted",
            "subject issuer mismatch",
        ),
        Reason.CHAIN_SAME_NAME_OTHER_KEY: (
            "certificate signature failure",
            "authority and subject key identifier mismatch",
            "authority and issuer serial number mismatch",
        ),
        Reason.CHAIN_ISSUER_NOT_A_CA: (
            "invalid ca certificate",
            "key usage does not include certificate signing",
        ),
        Reason.CERT_IS_CA: ("invalid non-ca certificate (has ca markings)",),
        Reason.CHAIN_PATH_LENGTH: ("path length constraint exceeded", "certificate chain too long"),
        Reason.CHAIN_NAME_CONSTRAINT: (
            "permitted subtree violation",
            "excluded subtree violation",
            "name constraints minimum and maximum not supported",
            "unsupported name constraint type",
            "unsupported or invalid name constraint syntax",
            "issuer has name constraints but leaf has no sans",
        ),
        Reason.CERT_CRITICAL_EXTENSION: ("unhandled critical extension",),
        Reason.CERT_UNREADABLE: (
            "format error in certificate's notbefore field",
            "format error in certificate's notafter field",
            "invalid or inconsistent certificate extension",
            "unsupported or invalid name syntax",
            "unable to decode issuer public key",
        ),
        Reason.REVOCATION_NO_CRL: ("unable to get certificate crl",),
        Reason.REVOCATION_CRL_EXPIRED: ("crl has expired",),
        Reason.REVOCATION_CRL_NOT_YET_VALID: ("crl is not yet valid",),
        Reason.REVOCATION_CRL_UNUSABLE: (
            "crl signature failure",
            "unable to decrypt crl's signature",
            "unable to get crl issuer certificate",
            "format error in crl's lastupdate field",
            "format error in crl's nextupdate field",
            "key usage does not include crl signing",
            "unhandled critical crl extension",
            "different crl scope",
            "crl path validation error",
        ),
    }.items()
    for words in phrases
}

# What Envoy checks itself, after the chain. Matched by their beginning: what follows are the certificate's own names.
CHECKS: Mapping[str, Reason] = {
    "san matcher": Reason.IDENTITY_SAN_NOT_ALLOWED,
    "cert hash and spki": Reason.CHAIN_PIN_MISMATCH,
}

# BoringSSL's names of errors that need no certificate.
ERRORS: Mapping[str, Reason] = {
    "peer did not return a certificate": Reason.CLIENT_NO_CERTIFICATE,
    "bad signature": Reason.CLIENT_KEY_MISMATCH,
    "key usage bit incorrect": Reason.CERT_KEY_USAGE,
    "ecc cert not for signing": Reason.CERT_KEY_USAGE,
    "cannot parse leaf cert": Reason.CERT_UNREADABLE,
    "unsupported algorithm": Reason.CERT_UNSUPPORTED_KEY,
    "unknown certificate type": Reason.CERT_UNSUPPORTED_KEY,
    "peer error unsupported certificate type": Reason.CERT_UNSUPPORTED_KEY,
    "unsupported protocol": Reason.TLS_VERSION,
    "unknown protocol": Reason.TLS_VERSION,
    "inappropriate fallback": Reason.TLS_VERSION,
    "no shared cipher": Reason.TLS_NO_SHARED_CIPHER,
    "no common signature algorithms": Reason.TLS_NO_SHARED_CIPHER,
    "wrong signature type": Reason.TLS_NO_SHARED_CIPHER,
    "no shared group": Reason.TLS_NO_SHARED_GROUP,
    "wrong curve": Reason.TLS_NO_SHARED_GROUP,
    "http request": Reason.TLS_PLAINTEXT,
    "https proxy request": Reason.TLS_PLAINTEXT,
    "wrong version number": Reason.TLS_NOT_TLS,
    "clienthello parse failed": Reason.TLS_NOT_TLS,
    # OpenSSL sends its TLS 1.3 alert unencrypted, where BoringSSL expects a record of ciphertext.
    "bad packet length": Reason.CLIENT_ALERT_UNREADABLE,
    "connection reset by peer": Reason.HANDSHAKE_RESET,
    "broken pipe": Reason.HANDSHAKE_RESET,
    "connection timed out": Reason.HANDSHAKE_TIMEOUT,
    "secret is not supplied by sds": Reason.SNAPSHOT_BAD,
    # Of all that rejects a connection before the certificate is sent, a gateway of ours has this alone.
    "connection rejected": Reason.STAPLE_ENDED,
}

# Alerts (RFC 8446 section 6.2) by which a client says what it thinks of our certificate.
ALERTS: Mapping[str, Reason] = dict.fromkeys(
    (
        "unknown ca",
        "bad certificate",
        "certificate unknown",
        "certificate expired",
        "certificate revoked",
        "unsupported certificate",
        "access denied",
        "unrecognized name",
        "bad certificate status response",
    ),
    Reason.CLIENT_REJECTED_US,
) | {"protocol version": Reason.TLS_VERSION}

# Termination details of connections whose TLS reports nothing.
DETAILS: Mapping[str, Reason] = {
    "transport socket timeout was reached": Reason.HANDSHAKE_TIMEOUT,
}


def printable(text: str) -> str:
    """Cut a stranger's text to 1,024 characters, with a replacement for each that would move a cursor or hide itself.

    A cut text ends with an ellipsis, so that it equals no text that somebody else may have.
    """
    cut = text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}\u2026"
    return cut if cut.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in cut)


def recognise(report: FailureReport) -> Reason:
    """Give the reason that Envoy's words have by themselves. Words that are in no table are ``HANDSHAKE_UNRECOGNISED``."""
    if not report.failure:
        return _recognise_silence(report)
    words = read_words(report.failure)
    if words.depth >= 0:
        leaf, above = CHAIN_ERRORS.get(words.verify, (Reason.HANDSHAKE_UNRECOGNISED,) * 2)
        return above if words.depth else leaf
    if words.verify:
        return CHECKS[words.verify]
    if words.alert:
        return ALERTS.get(words.alert, Reason.CLIENT_ALERT)
    return ERRORS.get(words.error, Reason.HANDSHAKE_UNRECOGNISED)


def _recognise_silence(report: FailureReport) -> Reason:
    if "NR" in report.flags:
        return Reason.TLS_UNKNOWN_NAME
    if report.details:
        return DETAILS.get(report.details.replace("_", " ").lower(), Reason.HANDSHAKE_UNRECOGNISED)
    if report.flags:
        return Reason.HANDSHAKE_UNRECOGNISED
    # Only a connection that never said anything is closed for the listener's own timeout.
    waited = report.duration_ms >= LISTENER_PATIENCE_MS - _CLOCK_GRAIN_MS
    return Reason.HANDSHAKE_TIMEOUT if waited and not report.tls_version else Reason.HANDSHAKE_CLOSED
