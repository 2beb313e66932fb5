"""The option with which a server is told where ACME challenges are looked for."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Annotated

import typer

from handfast.base.refusal import BadInput
from handfast.io.acme_challenges import LookSettings
from handfast.trust.acme.reach import network

AcmeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--acme",
        envvar="HANDFAST_ACME",
        help="Where ACME challenges are looked for: http-port=PORT, tls-port=PORT, resolver=ADDRESS:PORT, or network=NETWORK "
        "(instead of private addresses and loopback). May come again.",
    ),
]


def look_settings(options: list[str] | None) -> LookSettings:
    """Read ``--acme``.

    Raises:
        BadInput: one is unknown, or cannot be read.
    """
    settings, networks = LookSettings(), []
    for option in options or []:
        name, _, value = option.partition("=")
        match name:
            case "http-port":
                settings = replace(settings, http_port=_port(value, option))
            case "tls-port":
                settings = replace(settings, tls_port=_port(value, option))
            case "resolver":
                settings = replace(settings, resolver=_resolver(value, option))
            case "network":
                networks.append(network(value))
            case _:
                raise BadInput(f"{option[:80]!r} is none of http-port, tls-port, resolver, network", key="--acme")
    return replace(settings, networks=tuple(networks)) if networks else settings


def _resolver(text: str, option: str) -> tuple[str, int]:
    """Read ``ADDRESS`` or ``ADDRESS:PORT``; an IPv6 address with a port stands in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, "53"
    try:
        return str(ip_address(host.strip("[]"))), _port(port, option)
    except ValueError:
        raise BadInput(
            f"{option[:80]!r} names no address",
            key="--acme",
            hint="such as resolver=10.0.0.53 or resolver=[fd00::53]:53",
        ) from None


def _port(text: str, option: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or not 1 <= int(text) <= 65535:
        raise BadInput(f"{option[:80]!r} names no port", key="--acme", hint="such as http-port=8080")
    return int(text)
