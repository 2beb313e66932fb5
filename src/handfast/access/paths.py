"""Which path a request asks for, once all the ways to write it are taken away.

Decides what the gateway's Envoy decides with `normalize_path`, `merge_slashes` and escaped slashes refused: measured against
Envoy 1.40, oddities included. Refuses to know of routes, of hosts, and of the query, which it drops.

The law of this file: where Envoy answers 400 this is a `Refusal`, and where it goes on, this is the path that it goes on with.
"""

from __future__ import annotations

import re

from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal

MAX_TARGET_BYTES = 16 * 1024
"""Longer targets are refused here. Envoy's own bound is on all headers together."""

_ORIGIN_FORM = re.compile(r"/[!-~]*", re.ASCII)
_ESCAPED_SLASH = re.compile(r"%(?:2f|5c)", re.IGNORECASE | re.ASCII)
_DOTS_WITH_PARAMETERS = re.compile(r"(/\.\.?);[^/]*", re.ASCII)
_DOT = r"(?:\.|%2[eE])"
_PIECE = re.compile(
    rf"(?P<up>{_DOT}{_DOT}(?:[/\\]|$))"
    rf"|(?P<here>{_DOT}(?:[/\\]|$))"
    rf"|(?P<dot>{_DOT})"
    r"|%(?P<hex>[0-9A-Fa-f]{2})"
    r"|(?P<char>.)",
    re.ASCII,
)
_DOTS_WITH_REST = re.compile(r"/\.\.?;")
_HEX = re.compile(r"[0-9A-Fa-f]", re.ASCII)
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ALWAYS_ESCAPED = frozenset('"<>^`{|}')


def normalise(raw_target: str) -> str | Refusal:
    r"""Give the path that routes are matched against, without query.

    Args:
        raw_target: a request target in origin form, as it came (RFC 9112 section 3.2.1).

    Escapes of unreserved characters are undone and dot segments followed (RFC 3986 sections 6.2.2.2 and 5.2.4), `\` counts as
    `/`, runs of `/` become one, a dot segment's parameters (`/..;x/`) are dropped, and what a path may not hold is escaped.
    A dot segment whose parameters came to light only by that (`/%2e%2e;x/`) is refused, as some services would follow it.
    What else is escaped stays as it is: `/%c3%a9` and `/%C3%A9` are two paths. Octets beyond ASCII, which HTTP/2 alone can carry
    bare, are for Envoy what their escapes in upper case are: write them so.
    """
    if len(raw_target) > MAX_TARGET_BYTES:
        return _refusal(f"the target is longer than {MAX_TARGET_BYTES} bytes")
    if not _ORIGIN_FORM.fullmatch(raw_target):
        return _refusal("the target does not begin with '/', or holds a space, a control or a non-ASCII character")
    if "#" in raw_target:
        return _refusal("the target has a fragment")
    path = raw_target.partition("?")[0]
    if _ESCAPED_SLASH.search(path):
        return _refusal("the path has an escaped slash or backslash")
    path = _DOTS_WITH_PARAMETERS.sub(r"\1", path)
    if "%00" in path:
        return _refusal("the path has an escaped NUL")
    canonical = _merge_slashes(_canonical(path))
    if _DOTS_WITH_REST.search(canonical):
        return _refusal("the path has a dot segment with parameters, which services read as a dot segment")
    return canonical


def _refusal(seen: str) -> Refusal:
    return Refusal(Reason.REQUEST_REJECTED, {"target": seen})


def _merge_slashes(path: str) -> str:
    """Merge runs of slashes. A path of slashes alone becomes two of them: Envoy does so, and only a route `/` matches it."""
    if "//" not in path:
        return path
    return "/" + "/".join(filter(None, path.split("/"))) + ("/" if path.endswith("/") else "")


def _canonical(path: str) -> str:
    out: list[str] = []
    stray = -1  # where in `out` the last percent sign stands that begins no escape
    at = 0
    while at < len(path):
        piece = _PIECE.match(path, at)
        assert piece
        at = piece.end()
        match piece.lastgroup:
            case "up" | "here" if out and out[-1] == "/":
                if piece.lastgroup == "up":
                    _back_up(out)
            case "up" | "here" | "dot":
                out.append(".")
                at = piece.start() + (1 if path[piece.start()] == "." else 3)
            case "hex":
                decoded = chr(int(piece["hex"], 16))
                out.extend(decoded if decoded in _UNRESERVED else piece[0])
                if decoded in _UNRESERVED and 0 <= stray >= len(out) - 3:
                    _escape_stray(out, stray, path[at : at + 1])
            case _:
                if piece[0] == "%":
                    stray = len(out)
                out.extend(_plain(piece[0]))
    return "".join(out)


def _plain(char: str) -> str:
    if char == "\\":
        return "/"
    return f"%{ord(char):02X}" if char in _ALWAYS_ESCAPED else char


def _back_up(out: list[str]) -> None:
    """Drop the last segment, and keep the slash before it. There is nothing above the root."""
    if len(out) > 1:
        out.pop()
        while out[-1] != "/":
            out.pop()


def _escape_stray(out: list[str], stray: int, upcoming: str) -> None:
    """Escape a stray percent sign that what was just unescaped behind it would turn into an escape: `%2%65` is `%252e`."""
    sign, *digits = [*out[stray:], upcoming][:3]
    if sign == "%" and len(digits) == 2 and all(_HEX.fullmatch(digit) for digit in digits):
        out[stray + 1 : stray + 1] = ["2", "5"]
