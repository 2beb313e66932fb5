"""The client's certificate, as a row of the access log shows it.

Decides what is kept of its texts, which a stranger may have chosen. Refuses to know whether it was verified: the caller does,
and asks `verified` only then. What is verified comes again with each connection of its holder, so its reading is remembered.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from operator import attrgetter

from handfast.base.events import OfferedCertificate
from handfast.base.refusal import BadInput
from handfast.base.spiffe import SpiffeId
from handfast.envoy.failures import printable
from handfast.trust.facts import CertificateFacts, facts, pem_certificates

PEER = {
    "subject": "%DOWNSTREAM_PEER_SUBJECT%",
    "issuer": "%DOWNSTREAM_PEER_ISSUER%",
    "serial": "%DOWNSTREAM_PEER_SERIAL%",
    "fingerprint": "%DOWNSTREAM_PEER_FINGERPRINT_256%",
    "uri_sans": "%DOWNSTREAM_PEER_URI_SAN%",
    "dns_sans": "%DOWNSTREAM_PEER_DNS_SAN%",
    "not_before": "%DOWNSTREAM_PEER_CERT_V_START%",
    "not_after": "%DOWNSTREAM_PEER_CERT_V_END%",
    "chain_serials": "%DOWNSTREAM_PEER_CHAIN_SERIALS%",
}
"""The words of a row, and Envoy's formats for them."""

MOST_NAMES = 32
_REMEMBERED = 512  # few: an authority that is trusted may still make large certificates
_row_words = attrgetter(*PEER)

Words = tuple[str | None, ...]
"""The texts of a row, in the order of `PEER`."""


def text(value: str | None) -> str:
    """Give a text as it may be kept. Envoy writes what is absent as null or ``-``."""
    return "" if value is None or value == "-" else printable(value)


def word(value: str | int | None) -> str | None:
    """Give a word, and None for a number: Envoy writes one where it leaves out what it says of a failed handshake alone."""
    return value if isinstance(value, str) else None


def _words(row: object) -> Words:
    return tuple(map(word, _row_words(row)))


def briefly(fingerprint: str | None, uri_sans: str | None) -> OfferedCertificate | None:
    """Give the certificate of a good connection: no more of it than these two is written for each."""
    return _remembered((None, None, None, fingerprint, uri_sans, None, None, None, None))


def verified(row: object) -> OfferedCertificate | None:
    """Give the certificate of a client whose handshake succeeded; None where it showed none. ``row`` has the words of `PEER`."""
    return _remembered(_words(row))


def offered(row: object, pem: str) -> OfferedCertificate | None:
    """Give the certificate of a client whose handshake failed, from its PEM where that can be read.

    We read it more exactly than Envoy shows it: names that hold a comma stay whole.
    """
    words = _words(row)
    if not pem:
        return _shown(words)
    try:
        leaf = facts(pem_certificates(pem)[0])
    except BadInput:
        return _shown(words)
    return _read_here(leaf, chain_length(words[-1]))


def _shown(words: Words) -> OfferedCertificate | None:
    subject, issuer, serial, fingerprint, uri_sans, dns_sans, not_before, not_after, chain_serials = words
    if not text(fingerprint):
        return None
    return OfferedCertificate(
        subject=text(subject),
        issuer=text(issuer),
        serial=text(serial).lower(),
        fingerprint=text(fingerprint).lower(),
        uri_sans=_names(uri_sans),
        dns_sans=_names(dns_sans),
        not_before=_moment(not_before),
        not_after=_moment(not_after),
        chain_length=chain_length(chain_serials),
    )


_remembered = lru_cache(maxsize=_REMEMBERED)(_shown)


def _names(joined: str | None) -> tuple[str, ...]:
    names = (joined or "").split(",", MOST_NAMES)[:MOST_NAMES]
    return tuple(kept for name in names if (kept := text(name)))


def _moment(written: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(written or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def chain_length(joined: str | None) -> int:
    """Count the certificates of a chain by their serials."""
    serials = text(joined)
    return serials.count(",") + 1 if serials else 0


def _read_here(leaf: CertificateFacts, length: int) -> OfferedCertificate:
    return OfferedCertificate(
        subject=text(leaf.subject),
        issuer=text(leaf.issuer),
        serial=leaf.serial,
        fingerprint=leaf.fingerprint,
        uri_sans=tuple(text(name) for name in leaf.uri_sans[:MOST_NAMES]),
        dns_sans=tuple(text(name) for name in leaf.dns_sans[:MOST_NAMES]),
        not_before=leaf.window.not_before,
        not_after=leaf.window.not_after,
        chain_length=length,
    )


@lru_cache(maxsize=_REMEMBERED)
def identity(joined: str | None) -> str:
    """Give the one SPIFFE id in a text, whole; ask it of verified certificates alone.

    Several, or one with a comma in it, are none: Envoy joins them with commas.
    """
    try:
        return str(SpiffeId.parse(joined or ""))
    except BadInput:
        return ""
