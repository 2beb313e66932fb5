"""The options of ``handfast up`` and ``handfast server`` for revocation lists and OCSP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from handfast.base.refusal import BadInput

if TYPE_CHECKING:
    from handfast.app.server.status import StatusConfig

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


def status_config(listen: tuple[str, int], url: str, shards: int) -> StatusConfig:
    """Put the options together.

    Raises:
        BadInput: the address cannot stand in a certificate.
    """
    from handfast.app.server.status import StatusConfig  # noqa: PLC0415 - the other commands need no server

    config = StatusConfig(listen=listen, url=url, shards=shards)
    try:
        _ = config.site
    except BadInput as error:
        raise error.at(key="--status-url") from error
    return config
