from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.io.token_uri import TokenUri, is_token_uri, parse_token_uri

QUERY = "?module-path=/lib/m.so&pin-source=file:/etc/pin"
WHOLE = f"pkcs11:token=ca;object=issuing{QUERY}"


def test_a_uri_names_token_key_library_and_pin():
    """Each attribute is taken, percent escapes are read."""
    text = (
        "pkcs11:token=my%20ca;manufacturer=SoftHSM%20project;serial=0af1;model=v2;slot-id=7;object=a%3Bb;id=%01%FF;type=private"
        "?module-path=/usr/lib/x.so&pin-source=file:///etc/pin"
    )
    assert parse_token_uri(text) == TokenUri(
        token="my ca",
        serial="0af1",
        manufacturer="SoftHSM project",
        model="v2",
        slot=7,
        object="a;b",
        id=b"\x01\xff",
        module=Path("/usr/lib/x.so"),
        pin_file=Path("/etc/pin"),
        text=text,
    )


@pytest.mark.parametrize("source", ["file:/etc/pin", "file:///etc/pin", "/etc/pin"])
def test_the_pin_lies_in_a_file(source: str):
    """In each way that tools write it (RFC 7512 section 2.4)."""
    text = f"pkcs11:token=ca;object=x?pin-source={source}&module-path=/lib/m.so"
    assert parse_token_uri(text).pin_file == Path("/etc/pin")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("pkcs11:", "module-path"),
        ("http://x", "pkcs11"),
        ("pkcs11:token=ca;object=x", "module-path"),
        ("pkcs11:token=ca;object=x?module-path=m.so&pin-source=/p", "module-path"),
        ("pkcs11:token=ca;object=x?module-path=/m.so", "pin-source"),
        ("pkcs11:token=ca;object=x?module-path=/m.so&pin-source=|cat%20/p", "pin-source"),
        ("pkcs11:token=ca;object=x?module-path=/m.so&pin-source=pin", "pin-source"),
        (f"pkcs11:token=ca{QUERY}", "object"),
        (f"pkcs11:object=x{QUERY}", "token"),
        (f"pkcs11:token=ca;object=x;type=public{QUERY}", "type"),
        (f"pkcs11:token=ca;token=cb;object=x{QUERY}", "token"),
        (f"pkcs11:token=ca;object=x;library-version=3{QUERY}", "library-version"),
        (f"pkcs11:token=ca;object=x;x-vendor=1{QUERY}", "x-vendor"),
        (f"pkcs11:token=ca;object=x;slot-id=-1{QUERY}", "slot-id"),
        (f"pkcs11:token=ca;object=%zz{QUERY}", "object"),
        (f"pkcs11:token=ca;object=%ff{QUERY}", "object"),
        (f"pkcs11:token=ca;object=%00{QUERY}", "object"),
        (f"{WHOLE}&max-sessions=1", "max-sessions"),
        (f"{WHOLE}#x\n", "pkcs11"),
        (WHOLE + "x" * 5000, "pkcs11"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(text: str, key: str):
    """An attribute that was passed over could lead to another key."""
    with pytest.raises(BadInput) as caught:
        parse_token_uri(text)
    assert caught.value.key == key


def test_a_pin_in_the_uri_is_refused_and_not_repeated():
    """It has been in somebody's list of processes by then: the error says where it belongs."""
    with pytest.raises(BadInput, match="no place in a URI") as caught:
        parse_token_uri(WHOLE + "&pin-value=48151623")
    assert "48151623" not in f"{caught.value} {caught.value.hint}"


def test_the_uri_for_people_does_not_say_where_the_pin_lies():
    """Nor does its repr."""
    uri = parse_token_uri(WHOLE)
    assert uri.shown == "pkcs11:token=ca;object=issuing?module-path=/lib/m.so"


@given(st.text(max_size=200))
def test_any_text_is_a_uri_or_bad_input(text: str):
    """Nothing else comes out of it, with the scheme in front or without."""
    for one in (text, f"pkcs11:{text}", f"pkcs11:token=a;object=b?{text}"):
        try:
            assert parse_token_uri(one).text == one
        except BadInput:
            continue
        assert is_token_uri(one)
