"""What a revocation list says: which serials, why, since when, until when it counts.

Decides the content and the bytes of a CRL (RFC 5280 section 5). Refuses to know where revocations are kept, and who
publishes the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache

from handfast.base.refusal import BadInput
from handfast.base.windows import Window, from_unix, to_unix, whole_second
from handfast.trust import addresses, der
from handfast.trust.facts import IssuerFacts
from handfast.trust.leaf import authority_key_id
from handfast.trust.profile import BACKDATE

CRL_LIFE = timedelta(days=7)
_VERSION_2 = der.integer(1)


class RevocationReason(StrEnum):
    """The reasons of RFC 5280 section 5.3.1 that can be given here.

    ``certificateHold`` and ``removeFromCRL`` are not among them: nothing that was revoked comes back.
    """

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    CA_COMPROMISE = "cACompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"
    AA_COMPROMISE = "aACompromise"

    @property
    def code(self) -> int:
        """The number of the CRLReason."""
        return _CODES[self]


_CODES = {
    RevocationReason.UNSPECIFIED: 0,
    RevocationReason.KEY_COMPROMISE: 1,
    RevocationReason.CA_COMPROMISE: 2,
    RevocationReason.AFFILIATION_CHANGED: 3,
    RevocationReason.SUPERSEDED: 4,
    RevocationReason.CESSATION_OF_OPERATION: 5,
    RevocationReason.PRIVILEGE_WITHDRAWN: 9,
    RevocationReason.AA_COMPROMISE: 10,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """One revoked certificate. ``serial`` and ``fingerprint`` are lower case hex; ``not_after`` is the certificate's own end."""

    serial: str
    fingerprint: str
    at: datetime
    reason: RevocationReason
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CrlPlan:
    """Everything that a CRL will say. ``entries`` have each serial once, in the order of the serials."""

    issuer: IssuerFacts
    number: int
    window: Window
    entries: tuple[Revoked, ...]


def live(revoked: Iterable[Revoked], now: datetime) -> tuple[Revoked, ...]:
    """Drop those whose certificate has expired, as it is refused for that alone."""
    return tuple(one for one in revoked if now < one.not_after)


def crl_plan(
    revoked: Iterable[Revoked],
    issuer: IssuerFacts,
    *,
    number: int,
    now: datetime,
    until: datetime | None = None,
) -> CrlPlan:
    """Plan a CRL of the revocations that are live.

    ``number`` grows with every list of this issuer. ``until`` is when the next one is due: in 7 days where it is not given. A
    serial that stands there twice keeps its first revocation.

    Raises:
        BadInput: the number is negative or needs more than 20 octets (RFC 5280 section 5.2.3).
    """
    _check_number(number)
    first: dict[str, Revoked] = {}
    for one in live(revoked, now):
        if one.at < first.setdefault(one.serial, one).at:
            first[one.serial] = one
    window = _window(now, until or now + CRL_LIFE)
    entries = tuple(sorted(first.values(), key=lambda one: int(one.serial, 16)))
    return CrlPlan(issuer=issuer, number=number, window=window, entries=entries)


def _check_number(number: int) -> None:
    if number < 0 or number.bit_length() > 159:
        raise BadInput("a CRL's number is positive and fits into 20 octets")


def _window(now: datetime, until: datetime) -> Window:
    # Backdated as leaves are: a host whose clock is behind would refuse every certificate for a list that is not valid yet.
    return Window(whole_second(now) - BACKDATE, whole_second(until))


def tbs(plan: CrlPlan) -> bytes:
    """Write the TBSCertList of a plan (RFC 5280 section 5.1)."""
    entries = b"".join(entry(one.serial, to_unix(one.at), one.reason) for one in plan.entries)
    before, after = around(CrlOutline(issuer=plan.issuer, number=plan.number, window=plan.window), len(entries))
    return before + entries + after


# Lists too long for objects: the entries are octets that somebody else keeps, and these give what stands around them.


@dataclass(frozen=True, slots=True, kw_only=True)
class CrlOutline:
    """What a list says beside its entries.

    ``places`` are its own addresses, where it is one of several lists of its issuer: it counts for certificates that name one of
    them, and for no others. ``freshest`` is where the changes to it are. ``base`` makes it those changes: to the complete list of
    that number, or of a later one.
    """

    issuer: IssuerFacts
    number: int
    window: Window
    places: tuple[str, ...] = ()
    freshest: str = ""
    base: int | None = None


Entry = tuple[str, int, str]
"""One revoked certificate: serial (hex), when, as seconds since 1970, and the text of its `RevocationReason`."""


def long_tbs(entries: Iterable[Entry], issuer: IssuerFacts, *, number: int, now: datetime) -> bytes:
    """Write the TBSCertList of a list that is due again in 7 days. ``entries`` have each serial once, and stand there in their order.

    Raises:
        BadInput: as `crl_plan`.
    """
    _check_number(number)
    written = b"".join(entry(*one) for one in entries)
    before, after = around(CrlOutline(issuer=issuer, number=number, window=_window(now, now + CRL_LIFE)), len(written))
    return before + written + after


def entry(serial: str, at: int, reason: str) -> bytes:
    """Write one revoked certificate; "unspecified" is said by saying nothing (RFC 5280 section 5.3.1).

    ``serial`` is hex, ``at`` seconds since 1970, ``reason`` the text of a `RevocationReason`.
    """
    # A list may have a million of these, so nothing is made here that lives on.
    octets = bytes.fromhex(serial).lstrip(b"\0") or b"\0"
    number = octets if octets[0] < 0x80 else b"\0" + octets
    said = bytes((0x02, len(number))) + number + _time(at) + _SAID[reason]
    return bytes((0x30, len(said))) + said


def around(outline: CrlOutline, size: int) -> tuple[bytes, bytes]:
    """Give what stands before and after ``size`` octets of entries in a TBSCertList (RFC 5280 section 5.1)."""
    issuer, window = outline.issuer, outline.window
    fields = (
        _VERSION_2,
        issuer.algorithm.identifier,
        issuer.subject_der,
        der.time(window.not_before),
        der.time(window.not_after),
        _header(0x30, size) if size else b"",  # absent, never empty (5.1.2.6)
    )
    before, after = b"".join(fields), der.tlv(0xA0, der.sequence(*_extensions(outline)))
    return _header(0x30, len(before) + size + len(after)) + before, after


def signed(size: int, issuer: IssuerFacts, signature: bytes) -> tuple[bytes, bytes]:
    """Give what stands before and after a TBSCertList of ``size`` octets in the signed list."""
    after = issuer.algorithm.identifier + der.bit_string(signature)
    return _header(0x30, size + len(after)), after


def _extensions(outline: CrlOutline) -> Iterator[bytes]:
    yield authority_key_id(outline.issuer.key_id)
    yield der.extension("2.5.29.20", der.integer(outline.number))
    if outline.base is not None:
        yield der.extension("2.5.29.27", der.integer(outline.base), critical=True)
    if outline.places:
        place = der.sequence(der.tlv(0xA0, addresses.full_name(*outline.places)))
        yield der.extension("2.5.29.28", place, critical=True)
    if outline.freshest:
        yield der.extension("2.5.29.46", addresses.distribution_points(outline.freshest))


def _header(tag: int, size: int) -> bytes:
    """Write tag and length of a value that somebody else keeps (X.690 section 10.1)."""
    if size < 0x80:
        return bytes((tag, size))
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets


@lru_cache(maxsize=4096)
def _time(at: int) -> bytes:
    return der.time(from_unix(at))


def _said(code: int) -> bytes:
    return der.sequence(der.extension("2.5.29.21", der.integer(code, tag=0x0A))) if code else b""


_SAID: dict[str, bytes] = {reason.value: _said(reason.code) for reason in RevocationReason}
