"""Envoy's resources in protobuf's JSON form, as messages: a publication becomes a snapshot.

Decides how a document becomes bytes, the same ones in every process, and that what listeners and clusters refer to is there. Refuses to
know what the resources mean, who is sent them, and when.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from hashlib import sha256
from importlib import import_module
from typing import Any

import msgspec
from google.protobuf import any_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError, Message

from handfast.base.refusal import BadInput
from handfast.envoy.types import EXTENSION, ROUTE, SECRET
from handfast.io import off_loop
from handfast.io.xds_state import ORDER, Key, Resource, Snapshot

MAX_RESOURCE = 64 << 20

MESSAGES = (
    "envoy.config.cluster.v3.cluster_pb2",
    "envoy.config.core.v3.extension_pb2",
    "envoy.config.endpoint.v3.endpoint_pb2",
    "envoy.config.listener.v3.listener_pb2",
    "envoy.config.route.v3.route_pb2",
    "envoy.extensions.access_loggers.file.v3.file_pb2",
    "envoy.extensions.access_loggers.filters.cel.v3.cel_pb2",
    "envoy.extensions.access_loggers.stats.v3.stats_pb2",
    "envoy.extensions.filters.http.lua.v3.lua_pb2",
    "envoy.extensions.filters.http.router.v3.router_pb2",
    "envoy.extensions.filters.listener.tls_inspector.v3.tls_inspector_pb2",
    "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2",
    "envoy.extensions.http.early_header_mutation.header_mutation.v3.header_mutation_pb2",
    "envoy.extensions.request_id.uuid.v3.uuid_pb2",
    "envoy.extensions.transport_sockets.tls.v3.secret_pb2",
    "envoy.extensions.transport_sockets.tls.v3.tls_pb2",
    "envoy.extensions.upstreams.http.v3.http_protocol_options_pb2",
)
"""The modules whose messages may stand in an ``Any``. Importing one makes its messages known to protobuf."""

Json = Mapping[str, Any]
Publication = Mapping[str, Mapping[str, Json]]


def encode(type_url: str, name: str, document: Json) -> any_pb2.Any:
    """Turn a resource in protobuf's JSON form into an ``Any`` of ``type_url``.

    The same document gives the same bytes in every process. Protobuf writes the maps of an inner ``Any`` in an order of its
    own; left so, a restart alone would look like a change of the listener, and Envoy would drain it.

    Raises:
        BadInput: the type is not served, protobuf refuses the document, or it is over 64 MiB. Names the resource.
    """
    place = _place((type_url, name))
    if type_url not in ORDER:
        raise BadInput("resources of this type are not served", key=place)
    for module in MESSAGES:
        import_module(module)
    body, long = any_pb2.Any(), dict[str, str]()
    try:
        json_format.ParseDict({"@type": type_url, **_without_long(document, partial(_token, long))}, body)
        _make_canonical(body, long)
    except (json_format.Error, DecodeError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise BadInput(f"protobuf refuses it: {str(error)[:500]}", key=place) from error
    if body.ByteSize() > MAX_RESOURCE:
        raise BadInput(f"it is over {MAX_RESOURCE >> 20} MiB", key=place)
    return body


def _without_long(document: Json, name: Callable[[str], str]) -> dict[str, Any]:
    """Give a document with a name in the place of each long text: protobuf looks at each letter of one, and lets nobody interrupt it."""
    return {key: _short(key, value, name) for key, value in document.items()}


def _short(key: str, value: object, name: Callable[[str], str]) -> object:
    match value:
        case str() if key == "inline_string" and len(value) > off_loop.LONG_BYTES:
            return name(value)
        case Mapping():
            return _without_long(value, name)
        case list() | tuple():
            return [_short("", item, name) for item in value]
        case _:
            return value


def _token(long: dict[str, str], text: str) -> str:
    """Name a long text by chance, so that no text of somebody else's is taken for the name."""
    name = secrets.token_hex(16)
    long[name] = text
    return name


def _content(text: str) -> str:
    return f"long {sha256(text.encode()).hexdigest()}"


def _make_canonical(message: Message, long: Mapping[str, str]) -> None:
    """Write what is within an ``Any`` in one order, and put the ``long`` texts in the places of their names."""
    if isinstance(message, any_pb2.Any):
        descriptor = descriptor_pool.Default().FindMessageTypeByName(message.type_url.rpartition("/")[2])
        inner = message_factory.GetMessageClass(descriptor)()
        inner.ParseFromString(message.value)
        _make_canonical(inner, long)
        message.value = inner.SerializeToString(deterministic=True)
        return
    for field_, value in message.ListFields():
        if field_.message_type:
            parts = (value,) if isinstance(value, Message) else value.values() if isinstance(value, Mapping) else value
            for part in parts:
                if isinstance(part, Message):
                    _make_canonical(part, long)
        elif isinstance(value, str) and value in long:
            setattr(message, field_.name, long[value])


def references(document: object) -> Iterator[Key]:
    """Give the named resources that a listener or cluster (snake case JSON) expects from aggregated discovery."""
    if isinstance(document, Mapping):
        if _from_ads(document.get("sds_config")):
            yield SECRET, document.get("name", "")
        if isinstance(found := document.get("config_discovery"), Mapping) and _from_ads(found.get("config_source")):
            yield EXTENSION, document.get("name", "")
        if "route_config_name" in document and _from_ads(document.get("config_source")):
            yield ROUTE, document["route_config_name"]
        for value in document.values():
            yield from references(value)
    elif isinstance(document, list | tuple):
        for value in document:
            yield from references(value)


def _from_ads(source: object) -> bool:
    return isinstance(source, Mapping) and "ads" in source


class Encoder:
    """Documents to a `Snapshot`. What has not changed since the last snapshot is not encoded again."""

    def __init__(self) -> None:
        """Begin with nothing encoded."""
        self._known: dict[Key, tuple[bytes, Resource, frozenset[Key]]] = {}

    def snapshot(self, publication: Publication) -> Snapshot:
        """Encode all of ``publication`` (type URL, then name, then the resource as JSON), or nothing.

        Raises:
            BadInput: a resource cannot be encoded, has another name than its key, or refers to one that is not there.
        """
        known = {
            (url, name): self._encoded((url, name), d) for url, of in publication.items() for name, d in of.items()
        }
        for (url, name), (_, _, needed) in known.items():
            for key in sorted(needed - known.keys()):
                raise BadInput(f"it refers to {_place(key)}, which is not there", key=_place((url, name)))
        self._known = known
        resources = {url: {name: known[url, name][1] for name in of} for url, of in publication.items()}
        return Snapshot(resources, frozenset().union(*(needed for _, _, needed in known.values())))

    def _encoded(self, key: Key, document: Json) -> tuple[bytes, Resource, frozenset[Key]]:
        try:
            short = _without_long(document, _content)
            digest = sha256(msgspec.json.encode(short, order="deterministic")).digest()
        except (TypeError, ValueError, RecursionError) as error:
            raise BadInput(f"it is not JSON: {str(error)[:500]}", key=_place(key)) from error
        known = self._known.get(key)
        if known and known[0] == digest:
            return known
        if document.get("name") != key[1]:
            raise BadInput("its name is not the one it is published under", key=_place(key))
        return digest, Resource.of(key[1], encode(*key, document)), frozenset(references(document))


def _place(key: Key) -> str:
    return f"{key[0].rpartition('.')[2]} {key[1]}"
