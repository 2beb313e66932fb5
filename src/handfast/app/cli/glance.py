"""``handfast status`` and ``handfast export``: what there is now."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated, Any

import typer

from handfast.app.cli.given import DEFAULT_DATA, NO_IDENTITY, Data, Identity, Remote
from handfast.app.cli.reaching import ask
from handfast.app.cli.rotation import tree
from handfast.app.cli.tables import moment, table
from handfast.app.client import Api
from handfast.app.server.messages import ENCODER, AgentRow, PartnerRow, RevisionList, RevisionRow, StatusAnswer
from handfast.app.server.rotation_messages import AuthoritiesAnswer
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput
from handfast.doctor.report import escaped
from handfast.io.status import ExitCode

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def status(
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Show the platform at a glance. Exit code 1 means that there are findings.

    [bold]Examples[/bold]

      handfast status
    """

    async def work(api: Api) -> tuple[StatusAnswer, AuthoritiesAnswer]:
        seen = await api.call("GET", "/v1/status", StatusAnswer)
        return seen, await api.call("GET", "/v1/authorities", AuthoritiesAnswer)

    seen, authorities = ask(work, data, server, identity)
    if as_json:
        typer.echo(ENCODER.encode(seen))
    else:
        for line in _lines(seen, authorities):
            for piece in _fitting(line):
                typer.echo(piece)
    behind = any(agent.findings or agent.fault or not agent.current for agent in seen.agents)
    faulty = behind or authorities.fault or any(one.fault for one in seen.partners)
    raise typer.Exit(ExitCode.REFUSED if faulty else ExitCode.OK)


def _lines(seen: StatusAnswer, authorities: AuthoritiesAnswer) -> Iterator[str]:
    """Draw the graph from the authorities down to those that serve with them."""
    yield f"trust domain  {seen.trust_domain}"
    yield f"revision      {seen.revision}"
    yield from tree(authorities)
    for partner in seen.partners:
        yield from _partner(partner)
    if authorities.fault or authorities.waiting:
        yield "rotation      " + ("stuck" if authorities.fault else "under way") + ": see 'handfast ca status'"
    counts = ", ".join(f"{count} {state}" for state, count in seen.certificates.items() if count) or "none"
    yield f"certificates  {counts}"
    if seen.next_expiry:
        yield f"              the first to end: {escaped(seen.next_name)}, {moment(seen.next_expiry)}"
    for host in seen.hosts:
        yield f"host          {host['name']} on {host['listen']}, certificate {host['certificate']}, routes {host['routes']}"
        yield from _staples(host)
    for agent in seen.agents:
        yield from _agent(agent)


def _agent(one: AgentRow) -> Iterator[str]:
    current = "cannot come" if one.fault else "serves the newest" if one.current else "is behind"
    yield f"agent         {one.name} {current}, seen {one.last_seen:%H:%M:%S} UTC"
    if one.fault:
        reason = Reason(one.fault)
        yield f"              {reason.value}: {reason.summary}; {reason.hint}"
        yield f"              if it is gone for good: 'handfast ca forget-agent {one.name}'"
    yield from (f"  finding     {_finding(finding)}" for finding in one.findings)


def _staples(host: dict[str, Any]) -> Iterator[str]:
    for one in host.get("staples", ()):
        yield f"              staple at {escaped(one['agent'])}: next update {moment(datetime.fromisoformat(one['next_update']))}"


def _partner(one: PartnerRow) -> Iterator[str]:
    yield f"  partner {one.name}: ends {moment(one.ends)}, at {', '.join(one.hosts)}"
    if one.lists_until:
        yield f"      its next revocation list is due: {moment(one.lists_until)}"
    if one.fault:
        reason = Reason(one.fault)
        yield f"      {reason.value}: {reason.summary}; {reason.hint}"


def _fitting(line: str) -> Iterable[str]:
    """Break a line between words where a person would have it broken anywhere; a program gets it whole."""
    if not sys.stdout.isatty():
        return [line]
    width = max(shutil.get_terminal_size().columns, 40)
    return textwrap.wrap(line, width, subsequent_indent=" " * 14, break_long_words=False, break_on_hyphens=False)


def _finding(finding: dict[str, object]) -> str:
    reason = Reason(str(finding["reason"]))
    evidence = finding.get("evidence")
    seen = ", ".join(f"{k} {v}" for k, v in evidence.items()) if isinstance(evidence, dict) else ""
    return f"{reason.value}: {reason.summary} ({seen}); {reason.hint}"


def export(
    revision: Annotated[int | None, typer.Option(help="An older revision, by its number.")] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="List the revisions in place of one: when, and by whom.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For --list: print JSON.")] = False,
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Print the world file that counts, as it was written.

    [bold]Examples[/bold]

      handfast export > handfast.yaml
      handfast export --list
      handfast export --revision 3
    """
    if listed and revision is not None:
        raise BadInput("it cannot be had with --list", key="--revision", hint="leave one of them out")
    if as_json and not listed:
        raise BadInput("a world file is YAML", key="--json", hint="use it with --list")

    async def text(api: Api) -> str:
        query = {"revision": str(revision)} if revision is not None else {}
        return (await api.send("GET", "/v1/world", query=query)).text

    async def applied(api: Api) -> list[RevisionRow]:
        rows: list[RevisionRow] = []
        query: dict[str, str] = {}
        while True:
            page = await api.call("GET", "/v1/world/revisions", RevisionList, **query)
            rows += page.revisions
            if not page.next:
                return rows
            query = {"before": str(page.next)}

    if not listed:
        typer.echo(ask(text, data, server, identity), nl=False)
        return
    rows = ask(applied, data, server, identity)
    if as_json:
        typer.echo(ENCODER.encode(rows).decode())
    else:
        cells = ((str(one.number), moment(one.applied_at), one.requester, one.digest[:16]) for one in rows)
        typer.echo("\n".join(table(("revision", "applied", "by", "sha256"), cells)))
