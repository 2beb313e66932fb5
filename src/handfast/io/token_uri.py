"""Where a key lies in a token, as a PKCS #11 URI says it (RFC 7512).

Decides which URIs are understood. What is not understood is refused, never passed over: an attribute that was ignored could
lead to another key. A PIN in the URI itself is refused, as arguments and configuration are read by many; it stands in a file.

Refuses to know whether there is such a token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote_to_bytes

from handfast.base.refusal import BadInput

SCHEME = "pkcs11:"
MAX_URI_BYTES = 4096

_SHAPE = "such as 'pkcs11:token=ca;object=issuing?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/handfast/pin'"
_PATH = {"token", "manufacturer", "serial", "model", "slot-id", "object", "id", "type"}
_QUERY = {"module-path", "pin-source"}
_WRONG_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUri:
    """One key in one token. Empty texts and None mean that the URI does not say.

    ``token`` and ``object`` are labels; ``id`` is the object's CKA_ID. At least one of the two names the key, and ``token``,
    ``serial`` or ``slot`` the token. ``module`` is the vendor's library, ``pin_file`` holds the PIN. ``text`` is the URI as it was given.
    """

    token: str
    serial: str
    manufacturer: str
    model: str
    slot: int | None
    object: str
    id: bytes
    module: Path
    pin_file: Path
    text: str = field(repr=False)

    @property
    def shown(self) -> str:
        """The URI for people: without the place of its PIN."""
        path, _, query = self.text.partition("?")
        kept = [part for part in query.split("&") if not part.startswith("pin-source=")]
        return f"{path}?{'&'.join(kept)}"


def is_token_uri(text: str) -> bool:
    """Tell whether this means a token at all."""
    return text.lower().startswith(SCHEME)


def parse_token_uri(text: str) -> TokenUri:
    """Read a URI.

    Raises:
        BadInput: it is not one, says something that is not understood here, holds a PIN, or leaves open which key is meant.
    """
    if not is_token_uri(text) or len(text) > MAX_URI_BYTES or not text.isprintable():
        raise BadInput("this is not a PKCS #11 URI", key="pkcs11", hint=_SHAPE)
    path, _, query = text[len(SCHEME) :].partition("?")
    if "pin-value=" in query:
        raise BadInput(
            "a PIN has no place in a URI, which others can read",
            key="pin-value",
            hint="put it into a file of mode 0600, and name that with pin-source=file:/…",
        )
    named, queried = _attributes(path, ";", _PATH), _attributes(query, "&", _QUERY)
    return _checked(named, queried, text)


def _checked(named: Mapping[str, bytes], queried: Mapping[str, bytes], text: str) -> TokenUri:
    uri = TokenUri(
        token=_text(named, "token"),
        serial=_text(named, "serial"),
        manufacturer=_text(named, "manufacturer"),
        model=_text(named, "model"),
        slot=_slot(named),
        object=_text(named, "object"),
        id=named.get("id", b""),
        module=_absolute(queried, "module-path"),
        pin_file=_absolute(queried, "pin-source"),
        text=text,
    )
    if _text(named, "type") not in {"", "private"}:
        raise BadInput("an authority signs with a private key", key="type", hint="leave it out, or write type=private")
    if not uri.object and not uri.id:
        raise BadInput("the URI names no key in the token", key="object", hint=_SHAPE)
    if not uri.token and not uri.serial and uri.slot is None:
        raise BadInput("the URI names no token", key="token", hint=_SHAPE)
    return uri


def _attributes(part: str, separator: str, known: set[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for one in filter(None, part.split(separator)):
        name, equals, value = one.partition("=")
        if name not in known or not equals:
            raise BadInput("this part of the URI is not understood here", key=name[:40], hint=_SHAPE)
        if name in found or _WRONG_ESCAPE.search(value):
            raise BadInput("it stands there twice, or its % escapes are wrong", key=name)
        found[name] = unquote_to_bytes(value)
    return found


def _text(attributes: Mapping[str, bytes], name: str) -> str:
    try:
        text = attributes.get(name, b"").decode()
    except UnicodeDecodeError as error:
        raise BadInput("this is not UTF-8", key=name) from error
    if "\0" in text:
        raise BadInput("there is a NUL in it", key=name)
    return text


def _slot(named: Mapping[str, bytes]) -> int | None:
    text = _text(named, "slot-id")
    if text and (not text.isascii() or not text.isdigit() or len(text) > 10):
        raise BadInput("a slot is a number", key="slot-id")
    return int(text) if text else None


def _absolute(queried: Mapping[str, bytes], name: str) -> Path:
    text = _text(queried, name)
    if text.startswith("|"):
        raise BadInput("programs are not run for a PIN", key=name, hint="put it into a file, and write file:/…")
    if name == "pin-source":
        text = text.removeprefix("file://").removeprefix("file:")
    if not text.startswith("/"):
        raise BadInput("the URI names no absolute path here", key=name, hint=_SHAPE)
    return Path(text)
