"""An Envoy of tests: it takes every resource that the agent serves, acknowledges it, and does nothing with it."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from envoy.service.discovery.v3 import discovery_pb2 as discovery
from google.protobuf import json_format
from grpclib.client import Channel, Stream
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError, StreamTerminatedError

from handfast.app.agent.in_force import STARTED, WARMING
from handfast.envoy.types import CLUSTER, LISTENER, SECRET
from handfast.io.ads_encoding import references
from handfast.io.envoy_process import Exit
from handfast.trust.facts import CertificateFacts, facts, pem_certificates
from handfast.trust.staple import must_staple

_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
Json = dict[str, Any]


class TakingEnvoy:
    """Stands in for `EnvoyProcess`: a client of the agent's discovery service, over its real socket."""

    def __init__(
        self,
        _: Path | None,
        bootstrap: Mapping[str, Any],
        directory: Path,
        *,
        concurrency: int | None = None,
        on_exit: Callable[[Exit], None] | None = None,
    ) -> None:
        """Keep where discovery is, and where to answer."""
        self._admin = directory / "admin.sock"
        self._answering: asyncio.Server | None = None
        (discovery,) = bootstrap["static_resources"]["clusters"]
        (endpoint,) = discovery["load_assignment"]["endpoints"][0]["lb_endpoints"]
        self._socket = endpoint["endpoint"]["address"]["pipe"]["path"]
        self.concurrency, self.on_exit = concurrency, on_exit
        self.held: dict[tuple[str, str], Json] = {}
        self._asked: set[tuple[str, str]] = set()
        self._task: asyncio.Task[None] | None = None
        self.unfit: list[str] = []
        """Secrets that a real one would not have taken: a certificate that demands a staple, without one."""

    async def start(self) -> None:
        """Connect, and answer as an Envoy that is ready."""
        self._answering = await asyncio.start_unix_server(_answer, self._admin)
        self._task = asyncio.create_task(self._run())

    async def stop(self, drain: float = 0.0) -> None:
        """Go."""
        assert drain >= 0
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._answering:
            self._answering.close()
            self._admin.unlink()

    @property
    def served(self) -> list[CertificateFacts]:
        """The leaves that this Envoy would show to clients."""
        return [facts(pem_certificates(chain)[0]) for chain, _ in self.stapled]

    @property
    def stapled(self) -> list[tuple[str, bytes]]:
        """The chains that it would show, each with what it would staple."""
        found = (document.get("tls_certificate") for (kind, _), document in self.held.items() if kind == SECRET)
        return [_stapled(one) for one in found if one]

    @property
    def crls(self) -> list[str]:
        """The revocation lists that it would ask."""
        return [text for document in self.held.values() for text in _values(document, "crl")]

    def knows(self, text: str) -> bool:
        """Tell whether any resource speaks of ``text``."""
        return any(text in str(document) for document in self.held.values())

    async def _run(self) -> None:
        channel = Channel(path=self._socket)
        kinds = (discovery.DeltaDiscoveryRequest, discovery.DeltaDiscoveryResponse)
        try:
            async with channel.request(_METHOD, Cardinality.STREAM_STREAM, *kinds) as stream:
                for kind in (CLUSTER, LISTENER):
                    await stream.send_message(discovery.DeltaDiscoveryRequest(type_url=kind))
                while response := await stream.recv_message():
                    await self._take(stream, response)
        except (GRPCError, StreamTerminatedError, OSError):
            return
        finally:
            channel.close()

    async def _take(self, stream: Stream[Any, Any], response: Any) -> None:
        kind = response.type_url
        for resource in response.resources:
            self.held[kind, resource.name] = json_format.MessageToDict(
                resource.resource, preserving_proto_field_name=True
            )
        self.unfit += [
            chain for chain, staple in self.stapled if must_staple(pem_certificates(chain)[0]) and not staple
        ]
        for name in response.removed_resources:
            self.held.pop((kind, name), None)
        await stream.send_message(discovery.DeltaDiscoveryRequest(type_url=kind, response_nonce=response.nonce))
        wanted = {key for document in self.held.values() for key in references(document)}
        for url, name in wanted - self._asked:
            await stream.send_message(discovery.DeltaDiscoveryRequest(type_url=url, resource_names_subscribe=[name]))
        for url, name in self._asked - wanted:
            self.held.pop((url, name), None)
            await stream.send_message(discovery.DeltaDiscoveryRequest(type_url=url, resource_names_unsubscribe=[name]))
        self._asked = wanted


def _stapled(certificate: Json) -> tuple[str, bytes]:
    staple = certificate.get("ocsp_staple", {}).get("inline_bytes", "")
    return certificate["certificate_chain"]["inline_string"], b64decode(staple)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer on the administration socket: nothing is warming, and everything has started."""
    request = await reader.readuntil(b"\r\n\r\n")
    counts = b"" if b"prometheus" in request else f"{WARMING}: 0\n{STARTED}: 1\n".encode()
    writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + counts)
    writer.close()


def _values(document: object, key: str) -> Iterator[str]:
    if isinstance(document, dict):
        if key in document:
            yield str(document[key])
        for value in document.values():
            yield from _values(value, key)
    elif isinstance(document, list):
        for value in document:
            yield from _values(value, key)
