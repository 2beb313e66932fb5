from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.access.paths import MAX_TARGET_BYTES, normalise
from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal

# Measured on Envoy 1.40 with normalize_path, merge_slashes and REJECT_REQUEST. None: it answers 400.
MEASURED = {
    "/": "/", "/a?b": "/a", "/?": "/", "/a#b": None, "/a?b#c": None, "/a%23b": "/a%23b",
    "/%61": "/a", "/%41%2d%2D%5f%2e%7E~": "/A--_.~~", "/a/%2e%2e/b": "/b", "/a/%2E./b": "/b", "/a/.%2e": "/",
    "/a/..": "/", "/a/.": "/a/", "/a/%2e": "/a/", "/..": "/", "/../x": "/x", "/a/b/../../../c": "/c",
    "/a/...": "/a/...", "/a/..b": "/a/..b", "/a%2e%2e/b": "/a../b", "/.a": "/.a",
    "/%2f": None, "/a%2Fb": None, "/%5C": None, "/a%5cb": None, "/a/%2e%2e%2fb": None, "/a?x=%2f": "/a",
    "/a\\b": "/a/b", "/a\\..\\b": "/b", "/a/..\\b": "/b", "/a\\\\b": "/a/b",
    "//a": "/a", "/a//b": "/a/b", "/a//../b": "/a/b", "/a///": "/a/", "//": "//", "///": "//", "/a/..//": "//", "/\\/": "//",
    "//..": "/", "/a/./b//./c/../": "/a/b/",
    "/a%": "/a%", "/a%zz": "/a%zz", "/a%0": "/a%0", "/a%00b": None, "/a%0ab": "/a%0ab", "/a%20b": "/a%20b", "/a%7fb": "/a%7fb",
    "/a%25": "/a%25", "/a%252f": "/a%252f", "/%2%65": "/%252e", "/%%32%65": "/%252e", "/%%2e": "/%.", "/a%252e%252e/b": "/a%252e%252e/b",
    "/%%32%66": "/%252f", "/x%/..;./%65%65%322%41+": "/ee22A+",
    "/a;b=c": "/a;b=c", "/a/..;/b": "/b", "/a/..;x=..;y/b": "/b", "/a/.;/b": "/a/b", "/a/..;": "/", "/a/..;\\b": "/",
    "/a%c3%a9": "/a%c3%a9", "/a%C3%A9": "/a%C3%A9", "/aé": None, "/a\tb": None, "/a\x7f": None, "/a b": None, "/a\n": None,
    "/a\"<b>{c}|^`'[]": "/a%22%3Cb%3E%7Bc%7D%7C%5E%60'[]", "/:@!$&'()*+,;=": "/:@!$&'()*+,;=", "/%3d%40%3A": "/%3d%40%3A",
    "": None, "a": None, "*": None, "?x": None,
}  # fmt: skip
targets = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(["/", ".", "..", "%2e", "%2", "%", "2", "e", ";", "\\", "a", "%65", "%32", "?", "<"]),
        max_size=20,
    ).map(lambda parts: "/" + "".join(parts)),
)


@pytest.mark.parametrize(("target", "expected"), MEASURED.items())
def test_what_envoy_does(target: str, expected: str | None):
    """Each measured target has the path that Envoy gave it, and a refusal where Envoy answered 400."""
    path = normalise(target)
    assert (None if isinstance(path, Refusal) else path) == expected
    assert not isinstance(path, Refusal) or path.reason is Reason.REQUEST_REJECTED


@given(targets)
def test_a_path_is_safe_to_match(target: str):
    """Any text is refused, or a printable path from the root that has no dot segment, query or escaped slash left."""
    path = normalise(target)
    if isinstance(path, Refusal):
        return
    assert re.fullmatch(r"/[!-~]*", path)
    assert not {".", ".."} & set(path.split("/"))
    assert not re.search(r"[?#\\]|%2f|%5c|%00|[^/]//", path, re.IGNORECASE)


@given(targets, st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#")))
def test_a_query_changes_nothing(target: str, query: str):
    """What follows the question mark has no say in the path."""
    path = normalise(target)
    if not isinstance(path, Refusal):
        assert normalise(f"{target}?{query}") == path


def test_a_long_target_is_refused():
    """The bound is on the whole target, and what is just within it still has an answer."""
    assert normalise("/" + "a" * (MAX_TARGET_BYTES - 1)) == "/" + "a" * (MAX_TARGET_BYTES - 1)
    assert isinstance(normalise("/?" + "a" * (MAX_TARGET_BYTES - 1)), Refusal)
    assert normalise("/" + "../" * (MAX_TARGET_BYTES // 3 - 1)) == "/"


@pytest.mark.parametrize("target", ["/a/%2e%2e;/b", "/a/%2E%2e;x=1/b", "/a/%2e;/b", "/.%2e;"])
def test_a_dot_segment_with_parameters_is_refused(target: str):
    """What some services read as '..' and Envoy does not is no path at all."""
    assert isinstance(normalise(target), Refusal)
