"""Requests that are refused before an application hears of them: which Host counts, and how the refusal looks on the wire.

Decides the one answer to what is no request to us, a problem document (RFC 9457) in the form of the API's own. Refuses to know
connections: when it is too late for an answer is decided in `handfast.sdk.connection`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from http import HTTPStatus

_BEFORE_HOST = frozenset({"0.9", "1.0"})
_HOST = re.compile(rb"(?:\[[0-9A-Za-z:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(?::[0-9]*)?")


class Unserved(Exception):
    """A request that is not served: the status, what is wrong with it, and what to do."""

    def __init__(self, status: HTTPStatus, why: str, hint: str = "") -> None:
        """Keep what the client is told."""
        super().__init__(why)
        self.status, self.why, self.hint = status, why, hint

    def answer(self) -> bytes:
        """Write the response that ends the connection."""
        said = json.dumps(
            {
                "type": "urn:handfast:bad-input",
                "title": self.status.phrase,
                "status": self.status.value,
                "code": "bad-input",
                "detail": self.why,
                "hint": self.hint,
            }
        ).encode()
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            "content-type: application/problem+json",
            f"content-length: {len(said)}",
            "connection: close",
        )
        return "\r\n".join((*head, "", "")).encode() + said


def bad_request(why: str, hint: str = "") -> Unserved:
    """Give the refusal of what cannot be read."""
    return Unserved(HTTPStatus.BAD_REQUEST, why, hint)


def too_large() -> Unserved:
    """Give the refusal of a head that weighs more than is allowed (RFC 6585 section 5)."""
    return Unserved(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the head, or the trailers, are larger than is allowed")


def check_host(fields: Iterable[tuple[bytes, bytes]], version: str) -> None:
    """Check that a request says once for which host it is, in words that a host can have (RFC 9112 section 3.2).

    ``fields`` have their names in lower case. HTTP/1.0 need not say it.

    Raises:
        Unserved: it does not, or more than once, or what it says is no host.
    """
    said = [value for name, value in fields if name == b"host"]
    if len(said) > 1:
        raise bad_request("the request names its host more than once", "send one Host field")
    if not said and version not in _BEFORE_HOST:
        raise bad_request(
            "the request has no Host field", "every request needs one since HTTP 1.1 (RFC 9112 section 3.2)"
        )
    if said and not _HOST.fullmatch(said[0].strip(b" \t")):
        raise bad_request(
            "what the Host field names is no host", "send a name or an address, and a port where it needs one"
        )
