"""When to replace a certificate (RFC 9773): its name in a URL, and the window in which the client should come.

Decides both. Refuses to know how certificates are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from handfast.base.refusal import BadInput
from handfast.base.windows import Window
from handfast.trust.acme.keys import from_base64url, to_base64url
from handfast.trust.facts import hex_serial

MAX_ID = 128
BEGIN, END = 0.6, 0.75
SOONEST, LATEST = timedelta(minutes=1), timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class CertificateId:
    """A certificate as RFC 9773 section 4.1 names it: its authority key identifier and serial, both lower case hex."""

    issuer: str
    serial: str

    @classmethod
    def parse(cls, text: str) -> CertificateId:
        """Read ``base64url(AKI keyIdentifier).base64url(serial)``, the serial as DER's INTEGER has it.

        Raises:
            BadInput: it is something else.
        """
        issuer, dot, serial = text.partition(".")
        if len(text) > MAX_ID or not dot:
            raise BadInput("a certificate's id is two base64url texts with a dot between")
        octets = from_base64url(serial)
        if not octets or octets[0] >= 0x80 or (len(octets) > 1 and octets[0] == 0 and octets[1] < 0x80):
            raise BadInput("the serial is not the content of a positive INTEGER")
        return cls(from_base64url(issuer).hex(), hex_serial(int.from_bytes(octets)))

    def __str__(self) -> str:
        """Give the form that stands in a URL."""
        number = int(self.serial, 16)
        return (
            f"{to_base64url(bytes.fromhex(self.issuer))}.{to_base64url(number.to_bytes(number.bit_length() // 8 + 1))}"
        )


def suggested_window(validity: Window, now: datetime, *, revoked: bool) -> Window:
    """Give the window in which to renew: from 60 to 75 percent of its life; a revoked one should be replaced at once."""
    if revoked:
        return Window(now - SOONEST, now)
    begin = validity.not_before + validity.length * BEGIN
    return Window(begin, validity.not_before + validity.length * END)


def look_again(validity: Window) -> int:
    """Give after how many seconds to ask again: 24 times in a life, from once a minute to every six hours."""
    return int(min(max(validity.length / 24, SOONEST), LATEST).total_seconds())
