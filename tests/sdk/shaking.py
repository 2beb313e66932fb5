"""Handshakes in memory."""

import contextlib
import ssl
from typing import Any

import pytest

from handfast.sdk.contexts import server_context
from tests.support.pki import Pki


def shake(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost"
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Run a handshake in memory, server and client, until both are done. Raises what either of them says."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = server.wrap_bio(up, down, server_side=True)
    there = client.wrap_bio(down, up, server_hostname=name)
    for _ in range(4):
        for side in (there, here):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    with contextlib.suppress(ssl.SSLWantReadError):
        there.read()  # under TLS 1.3 the client hears of its refusal now
    return here, there


def serve(pki: Pki, **more: Any) -> ssl.SSLContext:
    leaf = pki.leaf("server")
    return server_context(leaf.chain_pem, leaf.key_pem, pki.roots_pem, **more)


def refusal(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost") -> tuple[str, int]:
    with pytest.raises(ssl.SSLError) as error:
        shake(server, client, name)
    return error.value.reason, getattr(error.value, "verify_code", 0)
