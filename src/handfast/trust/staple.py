"""An OCSP response to staple: whether it is one for a certificate of ours, and when the next one is due.

Decides on the certificate, its issuer, the signer, the window and the word (RFC 6960 section 3.2): a response that says less than
``good`` is never stapled. Refuses to know where it came from, and who serves it. `handfast.trust.foreign_ocsp` reads the answers of
anybody; here the issuer is the one that stands in the certificate's own chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from cryptography import x509

from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.base.windows import Window, from_unix
from handfast.trust.facts import facts, load
from handfast.trust.foreign import read_ca
from handfast.trust.foreign_ocsp import Question, issuer_of, judge_ocsp
from handfast.trust.standing import Standing, Word

LONGEST_RETRY = timedelta(minutes=1)
SHORTEST_RETRY = timedelta(seconds=5)
HASTE = timedelta(seconds=30)
"""A response is dropped this long before its end: who gets it may need a moment, and clocks differ."""


@dataclass(frozen=True, slots=True)
class Staple:
    """A response (DER) that says ``good`` of the certificate ``serial`` (lower case hex)."""

    der: bytes
    serial: str
    window: Window

    def counts(self, now: datetime) -> bool:
        """Tell whether clients may get it."""
        return self.window.not_before <= now < self.window.not_after - HASTE

    def renew_at(self, jitter: float) -> datetime:
        """Give the time to ask for the next one: two thirds of its life, moved by ``jitter`` (-1 to 1) twentieths of it."""
        return self.window.renew_at(jitter)

    def retry_at(self, now: datetime) -> datetime:
        """Give the time to ask again after it failed: sooner as the end comes nearer."""
        left = (self.window.not_after - now) / 10
        return now + min(max(left, SHORTEST_RETRY), LONGEST_RETRY)


def judge_staple(response: bytes, leaf: bytes, issuer: bytes, now: datetime) -> Staple | Refusal:
    """Read an OCSPResponse (DER) for ``leaf``, a certificate that ``issuer`` issued (both DER).

    Returns:
        The staple, or REVOKED, or STAPLE_UNUSABLE with what is wrong.

    Raises:
        BadInput: a certificate cannot be read.
    """
    ca, serial = read_ca(issuer), facts(leaf).serial
    if issuer_of(leaf, [ca], now) is None:
        return _unusable("the certificate has ended, or another authority issued it")
    said = judge_ocsp(response, Question(int(serial, 16), ca, b""), now)
    if isinstance(said, Refusal):
        return _unusable("; ".join(said.evidence.values()))
    match said.word:
        case Word.GOOD:
            return _staple(response, serial, said, now)
        case Word.REVOKED:
            return Refusal(Reason.REVOKED, {"serial": serial})
        case Word.UNKNOWN:
            return _unusable("its issuer does not know the certificate")
    assert_never(said.word)


def _staple(response: bytes, serial: str, said: Standing, now: datetime) -> Staple | Refusal:
    staple = Staple(response, serial, Window(from_unix(said.since), from_unix(said.until)))
    return staple if staple.counts(now) else _unusable(f"it ends at {staple.window.not_after.isoformat()}")


def must_staple(leaf: bytes) -> bool:
    """Tell whether a certificate (DER) asks its clients to insist on a staple (RFC 7633 section 4.2.3).

    Raises:
        BadInput: it cannot be read.
    """
    found = (one.value for one in load(leaf).extensions if isinstance(one.value, x509.TLSFeature))
    return any(x509.TLSFeatureType.status_request in features for features in found)


def _unusable(why: str) -> Refusal:
    return Refusal(Reason.STAPLE_UNUSABLE, {"response": why})
