import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.trust.acme.jws import (
    MAX_REQUEST,
    Jws,
    check_algorithm,
    parse,
    read,
    strict_json,
    verify,
    verify_binding,
    verify_key_change,
)
from handfast.trust.acme.keys import AccountKey, from_base64url, read_key, to_base64url
from handfast.trust.acme.problems import AcmeError, Problem
from tests.support.acme import Signing, make_key

URL = "https://ca.internal/acme/example.org/new-order"
ALGORITHMS = ("ES256", "ES384", "RS256", "EdDSA")
KEYS = {algorithm: make_key(algorithm) for algorithm in ALGORITHMS}
KEY = KEYS["ES256"]


def signed(key: Signing = KEY, payload: object = None, **header: object) -> bytes:
    right = {"url": URL, "nonce": "n", "kid": "https://ca.internal/account/a", **header}
    return json.dumps(key.jws(payload, {name: value for name, value in right.items() if value is not None})).encode()


def kind_of(outcome: object) -> AcmeError | None:
    return outcome.error if isinstance(outcome, Problem) else None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signature_counts_for_its_key_alone(algorithm: str):
    """Each algorithm verifies with its own key, and with no other of any kind."""
    request = parse(signed(KEYS[algorithm], {"a": 1}))
    assert verify(request, KEYS[algorithm].account_key) is None
    assert strict_json(request.payload) == {"a": 1}
    for other in ALGORITHMS:
        expected = AcmeError.UNAUTHORIZED if other == algorithm else AcmeError.BAD_SIGNATURE_ALGORITHM
        stranger = KEYS[other].account_key if other != algorithm else make_key(other).account_key
        if stranger != KEYS[algorithm].account_key:
            assert kind_of(verify(request, stranger)) is expected


@pytest.mark.parametrize("name", ["none", "None", "HS256", "HS512", "PS256", "ES512", "RS1", "es256", ""])
def test_other_algorithms_are_unknown(name: str):
    """`none`, MACs and the like are refused before a key is looked at."""
    raw = signed(alg=name)
    if not name:
        with pytest.raises(BadInput):
            parse(raw)
        return
    assert kind_of(check_algorithm(parse(raw))) is AcmeError.BAD_SIGNATURE_ALGORITHM
    assert kind_of(verify(parse(raw), KEY.account_key)) is AcmeError.BAD_SIGNATURE_ALGORITHM


@given(st.sampled_from(ALGORITHMS), st.data())
def test_a_changed_bit_is_seen(algorithm: str, data: st.DataObject):
    """Whichever bit of what was signed, or of the signature, is another one: it is refused."""
    plain = json.loads(signed(KEYS[algorithm], {"identifiers": []}))
    part = data.draw(st.sampled_from(["payload", "signature"]))
    octets = bytearray(from_base64url(plain[part]))
    place = data.draw(st.integers(0, len(octets) * 8 - 1))
    octets[place // 8] ^= 1 << place % 8
    plain[part] = to_base64url(bytes(octets))
    assert verify(read(plain), KEYS[algorithm].account_key) is not None


@pytest.mark.parametrize("size", [0, 1, 63, 65, 96])
def test_an_ecdsa_signature_has_its_length(size: int):
    """Other lengths, and zeros, are no signature."""
    plain = {**json.loads(signed()), "signature": to_base64url(bytes(size))}
    assert kind_of(verify(read(plain), KEY.account_key)) is AcmeError.UNAUTHORIZED
    zeros = {**plain, "signature": to_base64url(bytes(64))}
    assert kind_of(verify(read(zeros), KEY.account_key)) is AcmeError.UNAUTHORIZED


@pytest.mark.parametrize(
    "header",
    [
        {"kid": None},
        {"jwk": KEY.jwk},
        {"url": None},
        {"url": ""},
        {"url": 7},
        {"nonce": 7},
        {"nonce": "n" * 2049},
        {"kid": ["a"]},
        {"crit": []},
        {"b64": False},
        {"alg": 7},
    ],
)
def test_a_header_is_whole(header: dict[str, object]):
    """Exactly one of kid and jwk, texts where texts belong, and nothing critical."""
    with pytest.raises(BadInput):
        parse(signed(**header))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'{"protected":"","payload":""}',
        b'{"protected":"e30","payload":"","signature":"","signatures":[]}',
        b'{"protected":"e30","payload":"","signature":"","header":{"alg":"none"}}',
        b'{"protected":"e30","payload":"","signature":"","protected":"e30"}',
        b'{"protected":7,"payload":"","signature":""}',
        b'{"protected":"bnVsbA","payload":"","signature":""}',
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"1" * 10_000,
        b"x" * (MAX_REQUEST + 1),
    ],
)
def test_what_is_no_request(raw: bytes):
    """Other serializations, members beside the header, members twice, depth and size are refused."""
    with pytest.raises(BadInput):
        parse(raw)


@pytest.mark.parametrize("text", ['{"a":1,"a":1}', '{"b":{"a":1,"a":2}}', "NaN", '{"a":Infinity}', "{'a':1}", ""])
def test_json_is_strict(text: str):
    """A name twice, at any depth, is refused, and so is what is not in RFC 8259."""
    with pytest.raises(BadInput):
        strict_json(text)


def test_a_header_says_each_thing_once():
    """A name twice in the protected header is refused, as two readers could read two things."""
    header = f'{{"alg":"ES256","url":"{URL}","nonce":"n","kid":"a","kid":"b"}}'
    with pytest.raises(BadInput):
        read({"protected": to_base64url(header.encode()), "payload": "", "signature": "AA"})


@given(st.binary(max_size=300))
def test_octets_are_read_or_refused(raw: bytes):
    """Whatever comes is a request or `BadInput`."""
    _any(raw)


@given(st.data())
def test_a_spoilt_request_is_read_or_refused(data: st.DataObject):
    """A good request with some octets changed gives a verdict, and never a good one unless nothing that counts changed."""
    good = signed(KEY, {"a": 1})
    raw = bytearray(good)
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=4)):
        raw[place] = data.draw(st.integers(0, 255))
    found = _any(bytes(raw))
    if isinstance(found, Jws) and verify(found, KEY.account_key) is None:
        assert found == parse(good)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries({"protected": JSON, "payload": JSON, "signature": JSON}), JSON)
def test_any_json_is_read_or_refused(envelope: dict[str, object], header: object):
    """Also where the envelope is right and what it holds is anything."""
    for protected in (envelope["protected"], to_base64url(json.dumps(header).encode())):
        _any(json.dumps({**envelope, "protected": protected}).encode())


def _any(raw: bytes) -> Jws | None:
    try:
        return parse(raw)
    except BadInput:
        return None


BINDING_URL = "https://ca.internal/acme/example.org/new-account"
SECRET = b"s" * 32


def bound(**more: object) -> Jws:
    return read(KEY.bind("k", SECRET, BINDING_URL, **more))


def test_a_binding_is_by_its_secret():
    """With the right MAC, URL and key it counts; a MAC by another secret, even an empty one, does not."""
    account = KEY.account_key
    assert verify_binding(bound(), SECRET, account=account, url=BINDING_URL) is None
    for secret in (b"", b"x" * 32, SECRET + b"s"):
        assert kind_of(verify_binding(bound(), secret, account=account, url=BINDING_URL)) is AcmeError.UNAUTHORIZED


def test_a_binding_is_of_this_request():
    """Another URL, another key, a nonce, and an algorithm of signatures are refused."""
    account, other = KEY.account_key, make_key().account_key
    outcomes = [
        verify_binding(bound(), SECRET, account=account, url=URL),
        verify_binding(bound(), SECRET, account=other, url=BINDING_URL),
        verify_binding(bound(nonce="n"), SECRET, account=account, url=BINDING_URL),
        verify_binding(bound(alg="ES256"), SECRET, account=account, url=BINDING_URL),
    ]
    assert [kind_of(one) for one in outcomes] == [
        AcmeError.MALFORMED, AcmeError.MALFORMED, AcmeError.MALFORMED, AcmeError.BAD_SIGNATURE_ALGORITHM,
    ]  # fmt: skip


def test_a_key_change_gives_the_new_key():
    """Signed by the new key over the account and the old one."""
    new, account = make_key("EdDSA"), "https://ca.internal/account/a"
    payload, header = {"account": account, "oldKey": KEY.jwk}, {"jwk": new.jwk, "url": URL}
    inner = read(new.jws(payload, header))
    assert verify_key_change(inner, account_url=account, old=KEY.account_key, url=URL) == new.account_key
    forged = read(make_key("EdDSA").jws(payload, header))
    assert (
        kind_of(verify_key_change(forged, account_url=account, old=KEY.account_key, url=URL)) is AcmeError.UNAUTHORIZED
    )


def test_a_known_thumbprint():
    """The example of RFC 7638 section 3.1."""
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs"
        "tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajr"
        "n1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    key = read_key({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"})
    assert isinstance(key, AccountKey)
    assert key.thumbprint == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
