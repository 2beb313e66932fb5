"""The formats that we ask of Envoy, asked of Envoy itself."""

import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from handfast.base.events import ConnectionEnded, Event, HandshakeRefused, RequestDenied, RequestReported
from handfast.base.reasons import Reason
from handfast.doctor.verdict import verdict
from handfast.envoy.access_log import CONNECTION_FORMAT, REQUEST_FORMAT, read_row
from tests.support.pki import SERVER, Issued, Pki
from tests.support.ports import free_port

pytestmark = pytest.mark.e2e

ENVOY = Path(sys.executable).with_name("envoy")
EXT = "type.googleapis.com/envoy.extensions."
T = TypeVar("T")
E = TypeVar("E", bound=Event)
PAYMENTS = "spiffe://example.org/payments"
PROGRAM = """
function envoy_on_request(handle)
  local path, metadata = handle:headers():get(":path"), handle:streamInfo():dynamicMetadata()
  if not string.find(path, "^/judged") then return end
  metadata:set("handfast", "code", "policy.no-match")
  metadata:set("handfast", "mode", string.find(path, "report") and "report" or "enforce")
  metadata:set("handfast", "host", "a.test")
  metadata:set("handfast", "route", "/judged")
  metadata:set("handfast", "revision", "r1")
  metadata:set("handfast", "identity", "spiffe://example.org/payments")
  if not string.find(path, "report") then handle:respond({[":status"] = "403"}, "") end
end
"""


def _log(path: Path, row_format: dict[str, str]) -> dict[str, Any]:
    file = {
        "@type": EXT + "access_loggers.file.v3.FileAccessLog",
        "path": str(path),
        "log_format": {"json_format": row_format},
    }
    return {"name": "file", "typed_config": file}


def _routes() -> dict[str, Any]:
    down = {"match": {"prefix": "/down"}, "route": {"cluster": "down"}}
    fine = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    return {"virtual_hosts": [{"name": "a", "domains": ["a.test"], "routes": [down, fine]}]}


def _manager(log: Path) -> dict[str, Any]:
    lua = {"@type": EXT + "filters.http.lua.v3.Lua", "default_source_code": {"inline_string": PROGRAM}}
    return {
        "@type": EXT + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "test",
        "use_remote_address": True,
        "normalize_path": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "access_log": [_log(log, REQUEST_FORMAT)],
        "http_filters": [
            {"name": "lua", "typed_config": lua},
            {"name": "router", "typed_config": {"@type": EXT + "filters.http.router.v3.Router"}},
        ],
        "route_config": _routes(),
    }


def _tls(pki: Pki, server: Issued) -> dict[str, Any]:
    pair = {
        "certificate_chain": {"inline_string": server.chain_pem.decode()},
        "private_key": {"inline_string": server.key_pem.decode()},
    }
    common = {
        "tls_certificates": [pair],
        "validation_context": {"trusted_ca": {"inline_string": pki.roots_pem.decode()}},
    }
    context = EXT + "transport_sockets.tls.v3.DownstreamTlsContext"
    return {"@type": context, "require_client_certificate": True, "common_tls_context": common}


def _config(log: Path, port: int, dead_port: int, pki: Pki, server: Issued) -> dict[str, Any]:
    def address(number: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(dead_port)}}]}]
    chain = {
        "name": "a.test",
        "filter_chain_match": {"server_names": ["a.test"]},
        "transport_socket_connect_timeout": "0.5s",
        "transport_socket": {"name": "tls", "typed_config": _tls(pki, server)},
        "filters": [{"name": "http", "typed_config": _manager(log)}],
    }
    inspector = {"@type": EXT + "filters.listener.tls_inspector.v3.TlsInspector"}
    listener = {
        "name": "l",
        "address": address(port),
        "listener_filters": [{"name": "tls_inspector", "typed_config": inspector}],
        "filter_chains": [chain],
        "access_log": [_log(log, CONNECTION_FORMAT)],
    }
    cluster = {
        "name": "down",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "down", "endpoints": endpoints},
    }
    return {"static_resources": {"clusters": [cluster], "listeners": [listener]}}


def _until(what: Callable[[], T | None], seconds: float = 10) -> T:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return found


class Lone:
    """One Envoy with a static configuration that speaks our formats, and clients for it."""

    def __init__(self, directory: Path) -> None:
        """Make certificates and write the configuration."""
        self.directory, self.log = directory, directory / "rows.jsonl"
        self.port, self.seen = free_port(), 0
        self.pki = Pki()
        self.leaf = self.pki.leaf("payments", dns=["payments.internal"])
        self.config = directory / "envoy.json"
        server = self.pki.leaf("a.test", dns=["a.test"], eku=[SERVER])
        self.config.write_text(json.dumps(_config(self.log, self.port, free_port(), self.pki, server)))

    def run(self) -> Iterator["Lone"]:
        """Start it, and end it after the caller."""
        flags = ["--use-dynamic-base-id", "--concurrency", "1", "-l", "off", "--file-flush-interval-msec", "10"]
        process = subprocess.Popen([ENVOY, "-c", self.config, *flags], stderr=subprocess.DEVNULL)
        try:
            _until(self._answers)
            # The probe is a connection too: its own row goes before all others.
            self.events(1)
            yield self
        finally:
            process.terminate()
            process.wait(10)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def ask(self, path: str = "/", client: Issued | None = None, *, name: str = "a.test") -> None:
        """Send one request with a client's chain, and read the answer to its end, whatever becomes of it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if client:
            context.load_cert_chain(*client.write(self.directory, "client"))
        head = f"GET {path} HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n"
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), 5) as plain,
            context.wrap_socket(plain, server_hostname=name) as tls,
        ):
            tls.sendall(head.encode())
            while tls.recv(4096):
                pass

    def send(self, octets: bytes) -> None:
        """Send octets without TLS."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as plain:
            plain.sendall(octets)
            plain.settimeout(5)
            with suppress(OSError):
                plain.recv(4096)

    def events(self, count: int) -> list[Event | None]:
        """Wait for exactly so many rows, and read them."""
        rows = _until(lambda: lines if len(lines := self._lines()[self.seen :]) >= count else None)
        assert len(rows) == count
        self.seen += count
        assert self.pki.root is not None
        known = [self.pki.root.public_bytes(Encoding.DER), self.pki.issuing.cert_der]
        explain = partial(verdict, known_cas=known, now=datetime.now(UTC))
        return [read_row(row, gateway="gw", explain=explain, event_id="e1") for row in rows]

    def _lines(self) -> list[bytes]:
        return self.log.read_bytes().splitlines() if self.log.exists() else []

    def event(self, kind: type[E], count: int) -> E:
        """Wait for so many rows, and give the one event of a kind."""
        (found,) = [event for event in self.events(count) if type(event) is kind]
        return found


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lone]:
    yield from Lone(tmp_path_factory.mktemp("envoy")).run()


def test_envoy_takes_the_formats(tmp_path: Path):
    """Envoy knows every operator in the formats."""
    checked = subprocess.run(
        [ENVOY, "--mode", "validate", "-l", "off", "-c", Lone(tmp_path).config],
        check=False,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stderr


def test_a_good_connection_has_all_its_fields(lone: Lone):
    """A finished handshake gives one connection event with identity, fingerprint and traffic, and no request event."""
    lone.ask("/", lone.leaf)
    request, ended = sorted(lone.events(2), key=lambda event: event is not None)
    assert request is None
    assert isinstance(ended, ConnectionEnded)
    assert (ended.identity, ended.host, ended.server_name, ended.tls_version) == (
        PAYMENTS,
        "a.test",
        "a.test",
        "TLSv1.3",
    )
    assert ended.listener == f"127.0.0.1:{lone.port}"
    assert ended.bytes_received > 0
    assert ended.bytes_sent > 0
    assert ended.certificate is not None
    assert ended.certificate.uri_sans == (PAYMENTS,)
    assert ended.certificate.fingerprint == lone.leaf.cert.fingerprint(SHA256()).hex()


def test_a_missing_intermediate_is_told_from_an_unknown_authority(lone: Lone):
    """The row holds the leaf that was sent, so that the verdict can name the CA that is missing."""
    lone.ask("/", replace(lone.leaf, above=()))
    refused = lone.event(HandshakeRefused, 1)
    assert refused.reason is Reason.CHAIN_MISSING_INTERMEDIATE
    assert refused.evidence["missing"] == "CN=Test Issuing"
    assert refused.certificate.uri_sans == (PAYMENTS,)


def test_an_expired_certificate_says_since_when(lone: Lone):
    """The verdict on an expired leaf has its end and how long ago that was."""
    lone.ask("/", lone.pki.expired())
    refused = lone.event(HandshakeRefused, 1)
    assert refused.reason is Reason.CERT_EXPIRED
    assert refused.evidence["expired"].startswith("1 day")


def test_no_certificate(lone: Lone):
    """A client without a certificate is told from one with a bad one."""
    lone.ask()
    refused = lone.event(HandshakeRefused, 1)
    assert (refused.reason, refused.certificate) == (Reason.CLIENT_NO_CERTIFICATE, None)


def test_an_unknown_name(lone: Lone):
    """The name that a client asked for in vain is in the event."""
    lone.ask("/", lone.leaf, name="nobody.test")
    refused = lone.event(HandshakeRefused, 1)
    assert (refused.reason, refused.server_name) == (Reason.TLS_UNKNOWN_NAME, "nobody.test")


@pytest.mark.parametrize(
    ("octets", "reason"),
    [(b"GET / HTTP/1.1\r\n\r\n", Reason.TLS_PLAINTEXT), (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Reason.TLS_NOT_TLS)],
)
def test_no_tls_at_all(lone: Lone, octets: bytes, reason: Reason):
    """Plain HTTP, and what is no TLS, are recognised."""
    lone.send(octets)
    assert lone.event(HandshakeRefused, 1).reason is reason


def test_a_handshake_that_is_never_finished_is_not_a_connection(lone: Lone):
    """Envoy reports a stalled handshake with a TLS version and no failure: it is refused all the same."""
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="a.test").do_handshake()
    with socket.create_connection(("127.0.0.1", lone.port), 5) as plain:
        plain.sendall(outgoing.read())
        refused = lone.event(HandshakeRefused, 1)
    assert (refused.reason, refused.tls_version) == (Reason.HANDSHAKE_TIMEOUT, "TLSv1.3")


def test_a_denied_request_has_the_program_s_own_words(lone: Lone):
    """Code, host, route, revision and identity are those that the access check left; the query string is gone."""
    lone.ask("/judged?secret=1", lone.leaf)
    denied = lone.event(RequestDenied, 2)
    assert (denied.reason, denied.status, denied.identity) == (Reason.POLICY_NO_MATCH, 403, PAYMENTS)
    assert (denied.host, denied.route, denied.revision) == ("a.test", "/judged", "r1")
    assert (denied.method, denied.path) == ("GET", "/judged")
    assert len(denied.id) == 36
    assert denied.certificate.uri_sans == (PAYMENTS,)


def test_a_reported_request_is_one_that_was_let_pass(lone: Lone):
    """In report mode the status is the service's own."""
    lone.ask("/judged/report", lone.leaf)
    reported = lone.event(RequestReported, 2)
    assert (reported.reason, reported.status) == (Reason.POLICY_NO_MATCH, 200)


@pytest.mark.parametrize(
    ("path", "reason", "status"),
    [
        ("/down?x=1", Reason.UPSTREAM_UNAVAILABLE, 503),
        ("/a%2Fb", Reason.REQUEST_REJECTED, 400),
        ("/a\x01", Reason.REQUEST_REJECTED, 400),
    ],
)
def test_what_envoy_refuses_by_itself(lone: Lone, path: str, reason: Reason, status: int):
    """A service that is down and a request that is malformed have reasons too, without a word of the access check."""
    lone.ask(path, lone.leaf)
    denied = lone.event(RequestDenied, 2)
    assert (denied.reason, denied.status, denied.host) == (reason, status, "a.test")
    assert "?" not in denied.path
