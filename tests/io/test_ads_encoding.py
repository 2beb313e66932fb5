from collections.abc import Callable
from hashlib import sha256

import pytest
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.envoy.types import EXTENSION, FILE_LOG, HTTP_MANAGER, LISTENER, ROUTE, SECRET
from handfast.io import off_loop
from handfast.io.ads import AdsServer
from handfast.io.ads_encoding import Encoder, encode, references
from tests.io.ads_parts import FROM_ADS, Json, listener, route


def test_the_same_document_gives_the_same_bytes_whatever_the_order_of_its_maps():
    """A restart must not look like a change: maps inside an Any are written in one order."""
    keys = [f"k{i}" for i in range(30)]

    def log(names: list[str]) -> Json:
        form = {"json_format": {n: {"deep": n} for n in names}}
        return {"name": "f", "typed_config": {"@type": FILE_LOG, "path": "/dev/null", "log_format": form}}

    one, other = (encode(LISTENER, "l", listener(1, access_log=[log(names)])) for names in (keys, keys[::-1]))
    assert one.value == other.value


def test_what_is_encoded_says_what_the_document_says():
    """Writing inner messages anew must not lose anything."""
    body = encode(LISTENER, "l", listener(8443))
    read = listener_pb2.Listener.FromString(body.value)
    assert body.type_url == LISTENER
    assert read.address.socket_address.port_value == 8443
    assert read.filter_chains[0].filters[0].typed_config.type_url == HTTP_MANAGER
    assert b"direct_response" not in body.value


@pytest.mark.parametrize(
    "document",
    [
        {"name": "l", "unknown": 1},
        {"name": "l", "address": "here"},
        {"name": "l", "access_log": [{"typed_config": {"@type": "type.googleapis.com/no.such.Type"}}]},
        {"name": "l", "access_log": [{"typed_config": {"path": "/x"}}]},
        {"name": "l", "per_connection_buffer_limit_bytes": -1},
    ],
)
def test_what_protobuf_refuses_is_bad_input_that_names_the_resource(document: Json):
    """A broken document must be refused by name, not by a traceback of protobuf's."""
    with pytest.raises(BadInput, match="Listener l: "):
        Encoder().snapshot({LISTENER: {"l": document}})


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "address", "ads", "sds_config", "config_discovery", "@type"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["address", "filter_chains", "access_log", "metadata", "@type"]), _json, max_size=3)
)
def test_any_document_is_encoded_or_refused(fields: Json):
    """Whatever is published, the encoder must give a snapshot or BadInput."""
    try:
        Encoder().snapshot({LISTENER: {"l": {"name": "l", **fields}}})
    except BadInput:
        return


def test_a_type_that_is_not_served_is_refused():
    """Only the five types that streams are asked for may be published."""
    with pytest.raises(BadInput, match="not served"):
        Encoder().snapshot({"type.googleapis.com/google.protobuf.Duration": {"d": {"name": "d"}}})


def test_a_resource_has_the_name_it_is_published_under():
    """Envoy would wait for ever for a resource that comes under another name."""
    with pytest.raises(BadInput, match="not the one it is published under"):
        Encoder().snapshot({ROUTE: {"other": route("x")}})


def test_a_listener_that_refers_to_nothing_is_refused():
    """A missing secret would hold the whole listener back without a word."""
    with pytest.raises(BadInput, match="refers to RouteConfiguration r, which is not there"):
        Encoder().snapshot({LISTENER: {"l": listener(1)}})


def test_references_are_found_wherever_they_stand():
    """Secrets, routes and filters that come from aggregated discovery must be found, those from elsewhere not."""
    document = {
        "a": [{"name": "s", "sds_config": FROM_ADS}, {"name": "file", "sds_config": {"path": "/x"}}],
        "b": {"name": "f", "config_discovery": {"config_source": FROM_ADS}},
        "c": {"rds": {"route_config_name": "r", "config_source": FROM_ADS}},
    }
    assert set(references(document)) == {(SECRET, "s"), (EXTENSION, "f"), (ROUTE, "r")}


def test_what_has_not_changed_is_not_encoded_again():
    """The cache must give the very same resource for an equal document, and another for a changed one."""
    encoder = Encoder()
    first, same, changed = (encoder.snapshot({ROUTE: {"r": route(body)}}) for body in ("a", "a", "b"))
    assert first.of(ROUTE)["r"] is same.of(ROUTE)["r"]
    assert first.digest == same.digest != changed.digest


def test_a_bad_publication_leaves_the_one_before():
    """What was published last must stay when the next cannot be encoded."""
    server = AdsServer()
    digest = server.put(server.prepare({ROUTE: {"r": route("a")}}))
    with pytest.raises(BadInput):
        server.put(server.prepare({ROUTE: {"r": {"name": "r", "nonsense": 1}}}))
    assert server.digest == digest


LUA = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"


def secret(text: str) -> Json:
    return {"name": "s", "validation_context": {"trusted_ca": {"inline_string": "t"}, "crl": {"inline_string": text}}}


def program(text: str) -> Json:
    return {"name": "p", "typed_config": {"@type": LUA, "default_source_code": {"inline_string": text}}}


@pytest.mark.parametrize(("url", "document"), [(SECRET, secret), (EXTENSION, program)])
def test_a_long_text_is_encoded_as_a_short_one_is(
    url: str, document: Callable[[str], Json], monkeypatch: pytest.MonkeyPatch
):
    """The same bytes, wherever it stands; and another text of the same length is another resource."""
    text = "é \U0001f600 \n" * 20
    short = encode(url, document("")["name"], document(text))
    monkeypatch.setattr(off_loop, "LONG_BYTES", 10)
    assert encode(url, document("")["name"], document(text)) == short
    encoder, name = Encoder(), document("")["name"]
    first, same, other = (
        encoder.snapshot({url: {name: document(one)}}) for one in (text, text, text.replace(" ", "_"))
    )
    assert first.of(url)[name] is same.of(url)[name]
    assert first.digest != other.digest


def test_a_text_that_looks_like_the_name_of_a_long_one_is_itself(monkeypatch: pytest.MonkeyPatch):
    """Neither by its digest nor by a guess can somebody have another one's text put in its place."""
    monkeypatch.setattr(off_loop, "LONG_BYTES", 50)
    long = "x" * 51
    mine = f"long {sha256(long.encode()).hexdigest()}"[:50]
    document = {
        "name": "s",
        "validation_context": {"trusted_ca": {"inline_string": mine}, "crl": {"inline_string": long}},
    }
    context = secret_pb2.Secret.FromString(encode(SECRET, "s", document).value).validation_context
    assert (context.trusted_ca.inline_string, context.crl.inline_string) == (mine, long)


def test_half_of_a_pair_is_refused_in_a_long_text_too(monkeypatch: pytest.MonkeyPatch):
    """Protobuf's texts are Unicode."""
    monkeypatch.setattr(off_loop, "LONG_BYTES", 10)
    with pytest.raises(BadInput):
        Encoder().snapshot({SECRET: {"s": secret("x" * 20 + "\ud83d")}})
