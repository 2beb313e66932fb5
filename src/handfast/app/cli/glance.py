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
from handfast.app.cli.tables import moment
from handfast.app.client import Api
from handfast.app.server.messages import ENCODER, PartnerRow, StatusAnswer
from handfast.app.server.rotation_messages import AuthoritiesAnswer
from handfast.base.reasons import Reason
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
    behind = any(agent.findings or not agent.current for agent in seen.agents)
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
        current = "serves the newest" if agent.current else "is behind"
        yield f"agent         {agent.name} {current}, seen {agent.last_seen:%H:%M:%S} UTC"
        yield from (f"  finding     {_finding(finding)}" for finding in agent.findings)


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
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Print the world file that counts, as it was written.

    [bold]Examples[/bold]

      handfast export > handfast.yaml
      handfast export --revision 3
    """

    async def work(api: Api) -> str:
        query = {"revision": str(revision)} if revision is not None else {}
        return (await api.send("GET", "/v1/world", query=query)).text

    typer.echo(ask(work, data, server, identity), nl=False)
