"""What a single value of the world file may be: names, durations, addresses, URLs, paths, methods, headers.

Decides on one text at a time, and says what to write instead. Refuses to know where it stands, and what stands beside it.
"""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeVar

from handfast.access.paths import normalise
from handfast.access.policy import Listen, Upstream
from handfast.base.refusal import BadInput
from handfast.trust.entries import LONGEST_TTL, SHORTEST_TTL

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - a gateway serves other hosts; who must not be reached writes an address
MAX_DNS_BYTES = 253
MAX_PATH_BYTES = 1024
MAX_TOKEN_BYTES = 64
LONGEST_OWNER = 256

DNS_PATTERN = r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
PATH_PATTERN = r"/[A-Za-z0-9._~!$&'()+,;=:@/-]*"
METHOD_PATTERN = r"[A-Z0-9!#$%&'*+.^_`|~-]+"
HEADER_PATTERN = r"[A-Za-z][A-Za-z0-9-]*"
DURATION_PATTERN = r"[0-9]{1,9}[smhd]"

_UNITS = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1), "s": timedelta(seconds=1)}
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_SERVICE_NAME = re.compile(
    r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*"
)
_URL = re.compile(r"(https?)://([^/?#@\s]+)")
_PORTS = {"http": 80, "https": 443}

# Hop-by-hop fields (RFC 9110 section 7.6.1), those that frame or route a message, credentials, and what the gateway sets.
_RESERVED_HEADERS = frozenset({
    "authorization", "client-cert", "client-cert-chain", "connection", "cookie", "date", "expect", "forwarded", "host",
    "keep-alive", "set-cookie", "te", "trailer", "upgrade", "via", "x-request-id",
})  # fmt: skip
_RESERVED_PREFIXES = ("content-", "proxy-", "transfer-", "x-envoy-", "x-forwarded-")

Word = TypeVar("Word", bound=StrEnum)


def dns_name(text: str) -> str:
    """Read a DNS name in lower case, as clients send it (RFC 1123 section 2.1, RFC 6066 section 3).

    Raises:
        BadInput: it is none, or looks like an IP address.
    """
    if len(text) > MAX_DNS_BYTES or not re.fullmatch(DNS_PATTERN, text):
        raise BadInput(
            f"{text[:80]!r} is not a DNS name", hint="use lower case letters, digits, dashes and dots; no wildcard"
        )
    if text.rpartition(".")[2].isdigit():
        raise BadInput(f"{text!r} looks like an address, not a DNS name", hint="certificates here carry names")
    return text


def duration(text: str) -> timedelta:
    """Read ``30s``, ``15m``, ``1h`` or ``7d``, within the limits of `handfast.trust.entries`.

    Raises:
        BadInput: it is none, too short or too long.
    """
    if not re.fullmatch(DURATION_PATTERN, text):
        raise BadInput(f"{text[:80]!r} is not a duration", hint="write a number and a unit: 30s, 15m, 1h, 7d")
    length = _UNITS[text[-1]] * int(text[:-1])
    if not SHORTEST_TTL <= length <= LONGEST_TTL:
        least, most = duration_text(SHORTEST_TTL), duration_text(LONGEST_TTL)
        raise BadInput(f"{text} is out of bounds", hint=f"a certificate lives from {least} to {most}")
    return length


def owner(text: str) -> str:
    """Read who looks after something: a team, an address. It is 1 to 256 characters that can be printed, as it stands in tables.

    Raises:
        BadInput: it is something else.
    """
    if not 1 <= len(text) <= LONGEST_OWNER or not text.isprintable() or text != text.strip():
        raise BadInput(
            f"{text[:80]!r} is not an owner", hint=f"write a team or an address, of {LONGEST_OWNER} characters at most"
        )
    return text


def duration_text(length: timedelta) -> str:
    """Write a duration in the largest unit that has no rest."""
    unit = next(unit for unit, one in _UNITS.items() if not length % one)
    return f"{length // _UNITS[unit]}{unit}"


def listen(text: str) -> Listen:
    """Read ``8443``, ``127.0.0.1:8443`` or ``[::1]:8443``. A bare port is that port of every IPv4 address (``0.0.0.0``).

    Raises:
        BadInput: it is none of them.
    """
    address, _, port = text.rpartition(":")
    if not address:
        return Listen(ANY_ADDRESS, _port(text))
    return Listen(str(_address(address)), _port(port))


def upstream(text: str) -> Upstream:
    """Read ``http://host:port`` or ``https://host:port``; without a port it is 80 or 443.

    Raises:
        BadInput: it is no such URL, or has more to it: a path, a user.
    """
    found = _URL.fullmatch(text)
    if not found:
        raise BadInput(
            f"{text[:80]!r} is not an upstream",
            hint="write http://host:port or https://host:port, without user, path and query",
        )
    scheme, rest = found.groups()
    host, colon, port = rest.rpartition(":") if not rest.endswith("]") else (rest, "", "")
    if not colon:
        host = rest
    return Upstream(scheme, _upstream_host(host), _port(port) if colon else _PORTS[scheme])


def path(text: str) -> str:
    """Read a route's path, written as Envoy will see it.

    Raises:
        BadInput: it is not absolute, not normal, or ends with a slash.
    """
    if len(text) > MAX_PATH_BYTES or not re.fullmatch(PATH_PATTERN, text):
        raise BadInput(
            f"{text[:80]!r} is not a path",
            hint="it begins with '/', has no query, escapes or wildcards, and means itself and all below it",
        )
    if normalise(text) != text or (text != "/" and text.endswith("/")):
        raise BadInput(
            f"{text[:80]!r} is not a normal path", hint="leave out '.', '..', empty segments and a last slash"
        )
    return text


def method(text: str) -> str:
    """Read a method: an upper case token (RFC 9110 sections 9.1 and 5.6.2).

    Raises:
        BadInput: it is none.
    """
    if len(text) > MAX_TOKEN_BYTES or not re.fullmatch(METHOD_PATTERN, text):
        raise BadInput(f"{text[:80]!r} is not a method", hint="write it in upper case, such as GET or POST")
    return text


def header_name(text: str) -> str:
    """Read the name of a header that carries an identity to a service.

    Raises:
        BadInput: it is no name, has an underscore, or is one that the gateway or HTTP itself has a use for.
    """
    if len(text) > MAX_TOKEN_BYTES or not re.fullmatch(HEADER_PATTERN, text):
        raise BadInput(
            f"{text[:80]!r} cannot be a header's name", hint="use letters, digits and dashes, as in X-Client-Name"
        )
    if text.lower() in _RESERVED_HEADERS or text.lower().startswith(_RESERVED_PREFIXES):
        raise BadInput(
            f"the header {text!r} cannot be set by a route", hint="choose a name of your own, such as X-Client-Name"
        )
    return text


def truth(text: str) -> bool:
    """Read ``true`` or ``false``.

    Raises:
        BadInput: it is neither.
    """
    if text not in {"true", "false"}:
        raise BadInput(f"{text[:80]!r} is neither true nor false")
    return text == "true"


def word(kind: type[Word], text: str) -> Word:
    """Read one of a few words.

    Raises:
        BadInput: it is none of them.
    """
    if text not in set(kind):
        raise BadInput(f"{text[:80]!r} is not one of {', '.join(kind)}")
    return kind(text)


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise BadInput(f"{text[:80]!r} is not a port", hint="a port is a number from 1 to 65535")
    return int(text)


def _address(text: str) -> IPv4Address | IPv6Address:
    bare = text.removeprefix("[").removesuffix("]")
    try:
        address = ip_address(bare)
    except ValueError:
        address = None
    bracketed = text == f"[{bare}]"
    if address is None or "%" in bare or bracketed != (address.version == 6) or getattr(address, "ipv4_mapped", None):
        raise BadInput(f"{text[:80]!r} is not an address", hint="write 127.0.0.1:8443, [::1]:8443, or the port alone")
    return address


def _upstream_host(text: str) -> str:
    if text.startswith("[") or text.rpartition(".")[2].isdigit():
        return str(_address(text))
    if len(text) > MAX_DNS_BYTES or not _SERVICE_NAME.fullmatch(text):
        raise BadInput(
            f"{text[:80]!r} is not a host name", hint="write a DNS name, an IPv4 address, or an IPv6 address in [ ]"
        )
    return text.lower()
