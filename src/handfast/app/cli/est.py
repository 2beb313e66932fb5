"""``handfast est``: tokens with which devices enrol."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from handfast.app.cli.given import DEFAULT_DATA, NO_IDENTITY, Data, Identity, Remote
from handfast.app.cli.lifetimes import lifetime
from handfast.app.cli.reaching import ask
from handfast.app.cli.tables import moment
from handfast.app.client import Api
from handfast.app.server.messages import (
    ENCODER,
    EnrolmentTokenAnswer,
    EnrolmentTokenRequest,
    EnrolmentWithdrawalAnswer,
    EnrolmentWithdrawalRequest,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def token(
    name: Annotated[str, typer.Argument(help="The workload that the device becomes; the world file has it.")],
    uses: Annotated[int, typer.Option(help="How many devices may use it.", min=1, max=10_000)] = 1,
    ttl: Annotated[str, typer.Option(help="How long it can be used: 15m, 24h, 7d; 30d at most.")] = "1h",
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Make an enrolment token: a device sends it once, with the workload's name, and gets its first certificate.

    The token goes to standard output alone, so that it can be piped.

    [bold]Examples[/bold]

      handfast est token sensor
      handfast est token sensor --uses 50 --ttl 7d
    """
    life = lifetime("a token", ttl, timedelta(seconds=10), timedelta(days=30))
    request = EnrolmentTokenRequest(name=name, uses=uses, ttl_seconds=life)

    async def work(api: Api) -> EnrolmentTokenAnswer:
        return await api.call("POST", "/v1/est/tokens", EnrolmentTokenAnswer, request)

    answer = ask(work, data, server, identity)
    typer.echo(ENCODER.encode(answer) if as_json else answer.token)
    if not as_json:
        typer.echo(
            f"for {answer.name}, {answer.uses} x, until {moment(answer.expires_at)}; id {answer.id}",
            err=True,
        )


def withdraw(
    name: Annotated[str, typer.Argument(help="The workload whose tokens are taken back.")],
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Take back all tokens of a workload. Certificates that were issued stay; 'handfast cert revoke' ends those.

    [bold]Examples[/bold]

      handfast est withdraw sensor
    """

    async def work(api: Api) -> EnrolmentWithdrawalAnswer:
        request = EnrolmentWithdrawalRequest(name=name)
        return await api.call("POST", "/v1/est/withdrawals", EnrolmentWithdrawalAnswer, request)

    answer = ask(work, data, server, identity)
    typer.echo(ENCODER.encode(answer) if as_json else f"{answer.withdrawn} withdrawn")
