"""``handfast cert revoke``: says what it will hit, asks, and says what it hit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from handfast.app.cli.given import DEFAULT_DATA, NO_IDENTITY, Data, Identity, Remote
from handfast.app.cli.reaching import ask
from handfast.app.cli.tables import table
from handfast.app.client import Api
from handfast.app.server.inventory_messages import BatchAnswer, BatchRequest, Selected, SelectorRequest
from handfast.app.server.messages import ENCODER, CertificateRow
from handfast.base.refusal import BadInput
from handfast.io.files import read

_HEX = frozenset("0123456789abcdef:")
_FINGERPRINT = 64
_SHORTEST_SERIAL = 31  # ours have 40 digits, and no name has so many that are all hex
_SHOWN = 20


def revoke(
    what: Annotated[
        str,
        typer.Argument(help="A name, a pattern such as 'team/*', a serial, a fingerprint, or a certificate's file."),
    ] = "",
    agent: Annotated[str, typer.Option(help="Instead: all that this agent asked for, and its own.")] = "",
    issuer: Annotated[str, typer.Option(help="Instead: all of the authority with this key identifier (hex).")] = "",
    reason: Annotated[
        str, typer.Option(help="Why, in RFC 5280's words, such as keyCompromise or superseded.")
    ] = "unspecified",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; scripts need it for more than one.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Revoke. From then on it is refused everywhere, on connections that are open now, too.

    A name means all its live certificates. A pattern leaves out the platform's own, unless it names them: 'handfast/agent/*'. After
    keyCompromise no certificate is issued for that key again. There is no certificateHold: nothing that was revoked comes back.
    Where it is interrupted, run it again: it goes on with what is left.

    [bold]Examples[/bold]

      handfast cert revoke payments --reason keyCompromise
      handfast cert revoke 3f0c9e1a77…
      handfast cert revoke payments/cert.pem --reason superseded
      handfast cert revoke 'team/*' --reason cessationOfOperation --yes
      handfast cert revoke --agent edge-7 --reason keyCompromise
    """
    selector = _selector(what, agent, issuer)

    async def select(api: Api) -> Selected:
        return await api.call("POST", "/v1/revocations/selected", Selected, SelectorRequest(**selector, reason=reason))

    _confirm(ask(select, data, server, identity), yes=yes)
    done: list[CertificateRow] = []
    late = ""

    async def work(api: Api) -> None:
        nonlocal late
        request, left = msgspec.convert({"reason": reason, **selector}, BatchRequest), True
        while left:
            answer = await api.call("POST", "/v1/revocations/batches", BatchAnswer, request)
            done.extend(answer.revoked)
            _tell(answer.revoked, as_json=as_json)
            late = answer.late
            left = answer.left > 0 and bool(answer.revoked)

    try:
        ask(work, data, server, identity)
    finally:
        if as_json:
            typer.echo(ENCODER.encode(done))
    if not as_json and len(done) > 1:
        typer.echo(f"{len(done)} certificates are revoked")
    if late:
        typer.echo(f"revocation lists do not have it yet, and the server goes on trying: {late}", err=True)


def _selector(what: str, agent: str, issuer: str) -> dict[str, str]:
    if sum(map(bool, (what, agent, issuer))) != 1:
        raise BadInput("name one of: what to revoke, --agent, --issuer", hint="see 'handfast cert revoke --help'")
    if not what:
        return {"agent": agent} if agent else {"issuer": issuer.replace(":", "").lower()}
    if Path(what).is_file():
        return _of_file(Path(what))
    plain = what.lower()
    if len(what) < _SHORTEST_SERIAL or set(plain) - _HEX:
        return {"identity": what}
    plain = plain.replace(":", "")
    return {"fingerprint" if len(plain) == _FINGERPRINT else "serial": plain}


def _of_file(path: Path) -> dict[str, str]:
    """Name a certificate with all that it says: the server may have no record of it."""
    from handfast.trust.facts import fingerprint, pem, pem_certificates  # noqa: PLC0415 - a name has no certificate to read

    try:
        leaf = pem_certificates(read(path).decode(errors="replace"))[0]
    except BadInput as error:
        raise error.at(file=str(path)) from error
    return {"fingerprint": fingerprint(leaf), "certificate": pem(leaf)}


def _confirm(selected: Selected, *, yes: bool) -> None:
    """Show what will be hit, and ask a person. A script has said yes, or means one certificate."""
    asking = sys.stdin.isatty() and not yes
    if selected.count == 1 and not asking:
        return
    shown = selected.certificates[:_SHOWN]
    head = ("serial", "name", "until", "dns")
    cells = [(r.serial, r.name, f"{r.not_after:%Y-%m-%d %H:%M}", ", ".join(r.dns)) for r in shown]
    count = f"{selected.count} certificate{'s' if selected.count > 1 else ''}"
    typer.echo(f"to be revoked: {count}", err=True)
    for line in table(head, cells):
        typer.echo(f"  {line}", err=True)
    if selected.count > len(shown):
        typer.echo(f"  … and {selected.count - len(shown)} more", err=True)
    if asking:
        typer.confirm(f"revoke {count} for good?", abort=True, err=True)
    elif not yes:
        raise BadInput(f"this would revoke {count}, and nobody can be asked here", hint="say --yes if that is meant")


def _tell(revoked: list[CertificateRow], *, as_json: bool) -> None:
    if as_json:
        return
    for row in revoked:
        typer.echo(f"revoked {row.identity}, serial {row.serial}, {row.revocation_reason}")
