"""Ports of loopback for servers that have to be told theirs."""

import secrets
import socket


def free_port() -> int:
    """Give a port that nobody has, outside of those that the kernel hands out to clients meanwhile."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
