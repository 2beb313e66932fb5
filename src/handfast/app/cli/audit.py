"""``handfast audit``: check the chain of recorded events, and sign where it ends.

The rows are read and every hash is computed here: the server's word is not taken for it.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from handfast.app.cli.given import DEFAULT_DATA, NO_IDENTITY, Data, Identity, Remote
from handfast.app.cli.reaching import ask
from handfast.app.cli.tables import moment
from handfast.app.client import Api
from handfast.app.server.inventory_messages import ChainAnswer, ChainStatement
from handfast.app.server.messages import ENCODER, AuthorityAnswer
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal, Refused, Unavailable
from handfast.io.audit import Trust, Verdict, verify
from handfast.io.encoding import decode, encode, from_plain
from handfast.io.files import read, write
from handfast.io.ledger.chain import Chain, ChainPage
from handfast.io.sqlite_file import SqliteFile
from handfast.trust.audit import Entry, Link, Statement
from handfast.trust.facts import issuer_facts, pem_certificates


class _Served:
    """The rows of a chain, as a server gives them."""

    def __init__(self, api: Api) -> None:
        self._api, self.unsealed = api, 0

    async def chain_anchor(self) -> Statement | None:
        answer = await self._page(0, 0, 1)
        return from_plain(Statement, decode(ENCODER.encode(answer.anchor))) if answer.anchor else None

    async def chain_page(self, after: int, after_seq: int, limit: int) -> ChainPage:
        answer = await self._page(after, after_seq, limit)
        if any(one.number <= after for one in answer.links):  # else we would walk in a circle
            raise Unavailable("the server gives links of the audit chain twice")
        links = [Link(one.number, one.seq, one.id, one.hash) for one in answer.links]
        return ChainPage(links, [Entry(one.seq, one.id, one.kind, one.at, one.body) for one in answer.entries])

    async def _page(self, after: int, after_seq: int, limit: int) -> ChainAnswer:
        query = {"after": str(after), "after_seq": str(after_seq), "limit": str(limit)}
        answer = await self._api.call("GET", "/v1/audit/chain", ChainAnswer, **query)
        self.unsealed = answer.unsealed
        return answer


def verify_chain(
    checkpoint: Annotated[
        Path | None, typer.Option(help="A checkpoint that was kept elsewhere: then a missing end is found, too.")
    ] = None,
    roots: Annotated[
        Path | None, typer.Option(help="The roots (PEM) whose authorities may sign. Default: the server's own bundle.")
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(help="A ledger's SQLite file, such as one from a backup; no server is asked.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Check the audit chain from its first link to its last. Exit code 1 where it does not hold, with the places.

    Without --checkpoint, a missing end and a chain that was made anew as a whole cannot be seen.

    [bold]Examples[/bold]

      handfast audit verify
      handfast audit verify --checkpoint checkpoint.json
      handfast audit verify --ledger backup/ledger.sqlite --roots ca.pem --checkpoint checkpoint.json
    """
    kept = _statement(checkpoint) if checkpoint else None
    if ledger:
        if roots is None:
            raise BadInput("a file cannot say whose statements count", key="--roots", hint="name the roots (PEM)")
        verdict, unsealed = asyncio.run(_of_file(ledger, _roots(roots), kept))
    else:
        trusted = _roots(roots) if roots else None

        async def work(api: Api) -> tuple[Verdict, int]:
            known = await api.call("GET", "/v1/authority", AuthorityAnswer)
            rows = _Served(api)
            ders = trusted or pem_certificates(known.bundle)
            return await verify(rows, Trust(trust_domain=known.trust_domain, roots=ders), kept), rows.unsealed

        verdict, unsealed = ask(work, data, server, identity)
    _tell(verdict, unsealed, kept, as_json=as_json)


async def _of_file(file: Path, roots: tuple[bytes, ...], kept: Statement | None) -> tuple[Verdict, int]:
    database = SqliteFile(file)
    try:
        chain, domain = Chain(database), str(issuer_facts(roots[0]).trust_domain)
        return await verify(chain, Trust(trust_domain=domain, roots=roots), kept), await chain.unsealed()
    finally:
        await database.close()


def _tell(verdict: Verdict, unsealed: int, kept: Statement | None, *, as_json: bool) -> None:
    if as_json:
        typer.echo(encode({**asdict(verdict), "unsealed": unsealed, "checkpoint": kept.number if kept else None}))
    else:
        for fault in verdict.faults:
            typer.echo(str(fault))
    if verdict.faults:
        first = verdict.faults[0]
        seen = {"faults": str(len(verdict.faults)), "first": f"link {first.number}", "what": first.damage.value}
        raise Refused(Refusal(Reason.AUDIT_BROKEN, seen))
    if not as_json:
        typer.echo(_holds(verdict, unsealed, kept))


def _holds(verdict: Verdict, unsealed: int, kept: Statement | None) -> str:
    lines = [f"the audit chain holds: {verdict.checked} events, links {verdict.first} to {verdict.last}"]
    lines += [f"  hash {verdict.hash}"]
    if verdict.first > 1:
        lines += [f"  what was before link {verdict.first} was pruned, as a signed anchor says"]
    if kept and kept.number < verdict.first - 1:
        lines += [f"  the checkpoint's link {kept.number} was pruned since: keep a newer one"]
    elif kept:
        lines += [f"  it has the checkpoint's link {kept.number}, of {moment(kept.at)}"]
    if unsealed:
        lines += [f"  {unsealed} newer events are not linked yet"]
    return "\n".join(lines)


def make_checkpoint(
    out: Annotated[Path | None, typer.Option(help="Where to write it. Default: standard output.")] = None,
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Sign where the audit chain ends now. Keep it where the server's operators cannot write: it is what proves the rest.

    [bold]Examples[/bold]

      handfast audit checkpoint --out checkpoint.json
      handfast audit checkpoint | ssh vault 'cat > checkpoints/today.json'
    """

    async def work(api: Api) -> ChainStatement:
        return await api.call("POST", "/v1/audit/checkpoints", ChainStatement)

    said = ask(work, data, server, identity)
    text = ENCODER.encode(said) + b"\n"
    if out is None:
        typer.echo(text, nl=False)
        return
    write(out, text)
    typer.echo(f"link {said.number}, signed, in {out}")


def _statement(path: Path) -> Statement:
    try:
        return from_plain(Statement, decode(read(path)))
    except BadInput as error:
        raise error.at(file=str(path)) from error


def _roots(path: Path) -> tuple[bytes, ...]:
    try:
        return pem_certificates(read(path).decode(errors="replace"))
    except BadInput as error:
        raise error.at(file=str(path)) from error
