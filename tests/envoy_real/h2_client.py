"""HTTP/2 for the methods that Envoy's HTTP/1.1 does not know."""

from __future__ import annotations

import json
import socket
import ssl

import h2.config
import h2.connection
import h2.events

from tests.envoy_real.lone import LOOPBACK, Answer


def ask_h2(
    context: ssl.SSLContext, port: int, requests: list[tuple[str, str]], *, name: str, authority: str = ""
) -> list[Answer]:
    """Send requests (target and method) one after another on one connection; a reset stream or connection has status 0."""
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((LOOPBACK, port), 10) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        quiet = h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        state = h2.connection.H2Connection(quiet)
        state.initiate_connection()
        return [_ask(state, tls, target, method, authority or name) for target, method in requests]


def _ask(state: h2.connection.H2Connection, tls: ssl.SSLSocket, target: str, method: str, authority: str) -> Answer:
    stream = state.get_next_available_stream_id()
    head = [(":method", method), (":scheme", "https"), (":authority", authority), (":path", target)]
    state.send_headers(stream, head, end_stream=True)
    headers, body = list[tuple[str, str]](), b""
    while True:
        tls.sendall(state.data_to_send())
        data = tls.recv(65536)
        if not data:
            raise ConnectionError("the connection was closed")
        for event in state.receive_data(data):
            match event:
                case h2.events.ResponseReceived():
                    headers = [(str(name, "latin-1"), str(value, "latin-1")) for name, value in event.headers or ()]
                case h2.events.DataReceived():
                    body += event.data or b""
                    state.acknowledge_received_data(event.flow_controlled_length or 0, stream)
                case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                    return Answer(0, {}, [])
                case h2.events.StreamEnded():
                    seen = json.loads(body) if body.startswith(b"{") else {}
                    return Answer(int(dict(headers)[":status"]), seen, headers)
