"""What both sides of a stream say to each other, in short."""

from collections.abc import Iterable

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from google.protobuf.any_pb2 import Any

from handfast.io.xds_state import Resource, Snapshot, Step, XdsStream


def snapshot(*resources: tuple[str, str, str], needed: tuple[tuple[str, str], ...] = ()) -> Snapshot:
    """Build a snapshot of (type URL, name, content)."""
    by_type: dict[str, dict[str, Resource]] = {}
    for url, name, content in resources:
        by_type.setdefault(url, {})[name] = Resource.of(name, Any(type_url=url, value=content.encode()))
    return Snapshot(by_type, frozenset(needed))


def ask(
    url: str, *names: str, initial: dict[str, str] | None = None, drop: Iterable[str] = ()
) -> DeltaDiscoveryRequest:
    return DeltaDiscoveryRequest(
        type_url=url,
        resource_names_subscribe=names,
        resource_names_unsubscribe=drop,
        initial_resource_versions=initial or {},
    )


def answer(response: DeltaDiscoveryResponse, error: str = "") -> DeltaDiscoveryRequest:
    request = DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
    if error:
        request.error_detail.message = error
    return request


def sent(step: Step) -> list[tuple[str, list[str], list[str]]]:
    """Give what a step sends: type, contents, names removed."""
    return [
        (r.type_url, [x.resource.value.decode() for x in r.resources], list(r.removed_resources))
        for r in step.responses
    ]


def take(stream: XdsStream, step: Step) -> Step:
    """Acknowledge all that a step sends, and give the last step."""
    for response in step.responses:
        step = stream.receive(answer(response))
    return step
