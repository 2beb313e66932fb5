"""``handfast ca rotate``, ``status`` and ``forget-agent``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from handfast.app.cli.given import DEFAULT_DATA, NO_IDENTITY, Data, Identity, Remote, user_name
from handfast.app.cli.reaching import ask
from handfast.app.client import Api
from handfast.app.server.messages import ENCODER
from handfast.app.server.rotation_messages import (
    AuthoritiesAnswer,
    GenerationRow,
    HolderRow,
    RotationForce,
    RotationRequest,
    WaitingRow,
)
from handfast.base.refusal import BadInput, Unavailable
from handfast.doctor.report import escaped
from handfast.io.clock import SystemClock
from handfast.io.status import ExitCode

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_ROTATION = "/v1/authorities/rotation"
_LOOK_EVERY_S = 2.0


def rotate(
    root: Annotated[bool, typer.Option("--root", help="Replace the root, and the issuing CA with it.")] = False,
    compromised: Annotated[
        bool, typer.Option("--compromised", help="The issuing CA's key may be in other hands: revoke it at the end.")
    ] = False,
    back: Annotated[bool, typer.Option("--back", help="Undo the rotation that is under way.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Take the step that is held up, and cut off those who hold it up.")
    ] = False,
    strands: Annotated[int, typer.Option(help="With --force: how many that are, instead of being asked.", min=0)] = 0,
    offline: Annotated[
        bool, typer.Option("--offline", help="Begin without a server; it goes on at its next start.")
    ] = False,
    database: Annotated[
        str,
        typer.Option(help="With --offline: the PostgreSQL database that holds the ledger. Also: $HANDFAST_DATABASE."),
    ] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Wait until it is finished, and show each change.")] = False,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Replace the issuing CA while everything runs, or the root with --root.

    The server does it step by step, and waits at each for those who would be cut off. Nothing has to be waited for here.

    [bold]Examples[/bold]

      handfast ca rotate
      handfast ca rotate --root --watch
      handfast ca rotate --back
      handfast ca rotate --force --strands 1
      handfast ca rotate --root --offline
      handfast ca rotate --root --offline --database @/etc/handfast/database
    """
    if back + force + (root or compromised or offline) > 1:
        raise BadInput("--back, --force and beginning a rotation exclude each other", hint="name one")
    if database and not offline:
        raise BadInput("a server that runs has its database", key="--database", hint="leave it out")

    if offline:
        number = _begin_offline(data, database, root=root, compromised=compromised)
        typer.echo(f"generation {number} is prepared; start the server, and it goes on")
        return

    async def work(api: Api) -> AuthoritiesAnswer:
        if back:
            answer = await api.call("DELETE", _ROTATION, AuthoritiesAnswer)
        elif force:
            answer = await _force(api, strands)
        else:
            request = RotationRequest(root=root, compromised=compromised)
            answer = await api.call("POST", _ROTATION, AuthoritiesAnswer, request)
        return await _watch(api, answer) if watch else answer

    _print(ask(work, data, server, identity), as_json=as_json)


def status(
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Show roots, issuing CAs and their leaves, the next date of each, and who holds up a rotation.

    Exit code 1 means that a rotation cannot go on by itself.

    [bold]Examples[/bold]

      handfast ca status
    """

    async def work(api: Api) -> AuthoritiesAnswer:
        return await api.call("GET", "/v1/authorities", AuthoritiesAnswer)

    answer = ask(work, data, server, identity)
    _print(answer, as_json=as_json)
    if answer.fault:
        raise typer.Exit(ExitCode.REFUSED)


def forget_agent(
    name: Annotated[str, typer.Argument(help="The agent's name, as 'handfast ca status' shows it.")],
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Forget an agent that will not come back, so that it holds up nothing and gets nothing. It can join again with a token for its name.

    [bold]Examples[/bold]

      handfast ca forget-agent old-host
    """
    if "/" in name or not name:
        raise BadInput(f"{name[:80]!r} is not an agent's name", hint="see 'handfast status'")

    async def work(api: Api) -> AuthoritiesAnswer:
        return await api.call("DELETE", f"/v1/agents/{name}", AuthoritiesAnswer)

    _print(ask(work, data, server, identity), as_json=False)


def _begin_offline(data: Path, database: str, *, root: bool, compromised: bool) -> int:
    if (data / "server.sock").exists() and _answers(data):
        raise BadInput("a server runs with this data directory", hint="leave --offline out")
    from handfast.app.domain_ledgers import address_for  # noqa: PLC0415 - the other commands need no database
    from handfast.app.rotating import begin  # noqa: PLC0415 - as above
    from handfast.io.databases import chosen_address  # noqa: PLC0415 - as above

    first = chosen_address(database)
    beginning = begin(
        data,
        SystemClock(),
        f"offline: {user_name()}",
        root=root,
        compromised=compromised,
        address=address_for(data, first) if first else None,
    )
    return asyncio.run(beginning)


def _answers(data: Path) -> bool:
    async def work(api: Api) -> bool:
        try:
            await api.call("GET", "/v1/authorities", AuthoritiesAnswer)
        except Unavailable:
            return False
        return True

    return ask(work, data)


async def _force(api: Api, strands: int) -> AuthoritiesAnswer:
    """Say who will be cut off, and have the number confirmed: by whoever sits there, or by the option."""
    seen = await api.call("GET", "/v1/authorities", AuthoritiesAnswer)
    held = next((one for one in seen.waiting if one.strands), None)
    if held and not strands:
        for line in _waiting(held):
            typer.echo(line, err=True)
        strands = typer.prompt("How many agents and certificates will be cut off", type=int, err=True)
    request = RotationForce(strands=max(strands, 1))
    return await api.call("POST", f"{_ROTATION}/force", AuthoritiesAnswer, request)


async def _watch(api: Api, answer: AuthoritiesAnswer) -> AuthoritiesAnswer:
    shown = ""
    while (text := "\n".join(_lines(answer))) and _under_way(answer):
        if text != shown:
            typer.echo(f"{text}\n", err=True)
            shown = text
        await asyncio.sleep(_LOOK_EVERY_S)
        answer = await api.call("GET", "/v1/authorities", AuthoritiesAnswer)
    return answer


def _under_way(answer: AuthoritiesAnswer) -> bool:
    return any(row.stage not in {"issuing", "retired"} for row in answer.generations)


def _print(answer: AuthoritiesAnswer, *, as_json: bool) -> None:
    typer.echo(ENCODER.encode(answer) if as_json else "\n".join(_lines(answer)))


def _lines(answer: AuthoritiesAnswer) -> Iterator[str]:
    """Draw the tree below the trust domain's name; then what waits."""
    yield escaped(answer.trust_domain)
    yield from tree(answer)
    for one in answer.waiting:
        yield from _waiting(one)
    if answer.fault:
        yield f"stuck: {escaped(answer.fault)}"


def tree(answer: AuthoritiesAnswer) -> Iterator[str]:
    """Draw roots, issuing CAs and leaves, with the next date of each."""
    for root in dict.fromkeys(row.root for row in answer.generations):
        below = [row for row in answer.generations if row.root == root]
        delivered = any(row.stage in {"published", "issuing", "retiring"} for row in below)
        where = "in every bundle" if delivered else "in no bundle"
        yield f"  root {root}: ends {_moment(below[0].root_ends)}, {where}"
        for row in below:
            yield from _issuer(row)


def _issuer(row: GenerationRow) -> Iterator[str]:
    marks = ", compromised" if row.compromised else ""
    yield f"    issuing CA {row.number}: {row.stage} since {_moment(row.since)}{marks}, ends {_moment(row.ends)}"
    if row.renew_at:
        yield f"      the next one begins by itself: {_moment(row.renew_at)}"
    if row.stage == "issuing" and row.ends and row.root_ends and row.ends >= row.root_ends:
        yield "      it ends with its root: 'handfast ca rotate --root' replaces both"
    if row.leaves:
        yield f"      leaves: {row.leaves}, the last ends {_moment(row.last_leaf_ends)}"
    if row.cut_short:
        yield f"      cut short: {row.cut_short} end with this CA, sooner than was asked for"
    if row.copies:
        yield f"      copies: {row.copies} were renewed, and the old one is in use again"


def _waiting(one: WaitingRow) -> Iterator[str]:
    yield f"{one.step} of {one.generation} waits" + (f" until {_moment(one.not_before)}" if one.not_before else "")
    for agent in one.agents:
        yield f"  agent {escaped(agent.agent)}: has not taken it, last seen {_moment(agent.last_seen)}"
    if one.leaves:
        yield f"  certificates: {one.leaves}, until {_moment(one.leaves_until)}"
        for holder in one.holders:
            yield _holder(holder)
        if (others := one.leaves - sum(holder.leaves for holder in one.holders)) > 0:
            yield f"    … and {others} more"


def _holder(one: HolderRow) -> str:
    renewed = f"; {one.renewed} renewed, and the new one not seen in use yet" if one.renewed else ""
    copies = f"; {one.copies} renewed, and in use again: a copy" if one.copies else ""
    return f"    {escaped(one.name)}: {one.leaves}, until {_moment(one.until)}{renewed}{copies}"


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else "not made yet"
