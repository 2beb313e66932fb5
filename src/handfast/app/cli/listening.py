"""The options that say where servers listen, and what certificates say of it."""

from __future__ import annotations

from typing import Annotated

import typer

from handfast.base.refusal import BadInput

NOWHERE = "127.0.0.1:0"

StatusOption = Annotated[
    str,
    typer.Option(
        "--status",
        help="Where revocation lists and OCSP are served, in plain HTTP, such as 127.0.0.1:7481. Port 0: nowhere.",
    ),
]
StatusUrlOption = Annotated[
    str,
    typer.Option(
        "--status-url",
        help="How others reach that, such as http://status.example.org: it goes into every certificate.",
    ),
]
ShardsOption = Annotated[
    int,
    typer.Option(
        "--crl-shards", help="How many revocation lists share an issuer's certificates. Chosen once.", min=1, max=1024
    ),
]


def address(text: str, option: str) -> tuple[str, int]:
    """Read ``address:port``; ``option`` is what the error names."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise BadInput(f"{text!r} is not address:port", key=option, hint="such as 127.0.0.1:7443")
    return host.strip("[]"), int(port)
