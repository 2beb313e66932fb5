"""``handfast cert batch``: a certificate for each name in a file, a hundred a request."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from handfast.app.cli.certificates import CUT_SHORT, write_credential
from handfast.app.cli.given import DEFAULT_DATA, NO_IDENTITY, Data, Identity, Remote
from handfast.app.cli.lifetimes import seconds
from handfast.app.cli.reaching import ask
from handfast.app.cli.tables import moment
from handfast.app.client import Api
from handfast.app.server.batch_messages import (
    MOST_IN_BATCH,
    BatchedCertificate,
    CertificateBatch,
    CertificateBatchAnswer,
)
from handfast.app.server.messages import ENCODER, CertificateRequest, Problem
from handfast.base.refusal import BadInput, Unavailable
from handfast.doctor.report import escaped
from handfast.io.credentials import Credential, NewKey, new_key
from handfast.io.files import read
from handfast.io.status import ExitCode

MOST_NAMES = 100_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """A line of the file: an identity's name, and DNS names where it has more than its entry gives."""

    name: str
    dns: tuple[str, ...]

    @property
    def directory(self) -> str:
        """Where its files go, below the directory for all."""
        return self.name.replace("/", "-")


def batch(
    file: Annotated[
        Path, typer.Argument(help="A name a line, and behind it DNS names if there are any. - is standard input.")
    ],
    ttl: Annotated[
        str, typer.Option(help="How long they live: 15m, 24h, 7d. Default: each workload's own, or 24h.")
    ] = "",
    out: Annotated[Path, typer.Option(help="Where to put the files: a directory for each name.")] = Path(),
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Issue a certificate for each name in a file. The keys are made here and stay here.

    Writes cert.pem, key.pem and ca.pem for each, as 'handfast cert issue' does. What is refused is told, and the others are issued
    all the same: exit code 1 means that some were refused.

    [bold]Examples[/bold]

      handfast cert batch names.txt --out fleet
      grep ^web names.txt | handfast cert batch - --ttl 24h
    """
    wanted = _wanted(sys.stdin.read() if str(file) == "-" else read(file).decode(errors="replace"), str(file))
    life = seconds(ttl) if ttl else None
    refused = 0

    async def work(api: Api) -> None:
        nonlocal refused
        for start in range(0, len(wanted), MOST_IN_BATCH):
            refused += await _issue(api, wanted[start : start + MOST_IN_BATCH], life, out)

    ask(work, data, server, identity)
    typer.echo(f"{len(wanted) - refused} issued" + (f", {refused} refused" if refused else ""))
    raise typer.Exit(ExitCode.REFUSED if refused else ExitCode.OK)


def _wanted(text: str, file: str) -> list[Wanted]:
    """Read the file; what two lines would write to one place is refused before anything is issued."""
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1)]
    wanted = {number: Wanted(words[0], tuple(words[1:])) for number, words in lines if words and words[0][0] != "#"}
    if not 0 < len(wanted) <= MOST_NAMES:
        raise BadInput(f"the file has {len(wanted)} names, and 1 to {MOST_NAMES} are taken", file=file)
    places: dict[str, int] = {}
    for number, one in wanted.items():
        if (first := places.setdefault(one.directory, number)) != number:
            raise BadInput(f"its files would replace those of line {first}", file=file, line=number)
    return list(wanted.values())


async def _issue(api: Api, wanted: Sequence[Wanted], life: int | None, out: Path) -> int:
    """Have one batch issued, write what came, and give how many were refused."""
    keys = [new_key(one.name) for one in wanted]
    requests = [
        CertificateRequest(name=one.name, csr=key.csr_pem, dns=list(one.dns), ttl_seconds=life)
        for one, key in zip(wanted, keys, strict=True)
    ]
    body = CertificateBatch(requests=[msgspec.Raw(ENCODER.encode(request)) for request in requests])
    answer = await api.call("POST", "/v1/certificates/batches", CertificateBatchAnswer, body)
    if len(answer.results) != len(wanted):
        raise Unavailable(f"the server answers {len(answer.results)} of {len(wanted)} requests")
    return sum(not done for done in _written(wanted, keys, answer, out))


def _written(
    wanted: Sequence[Wanted], keys: Sequence[NewKey], answer: CertificateBatchAnswer, out: Path
) -> Iterator[bool]:
    for one, key, result in zip(wanted, keys, answer.results, strict=True):
        match result.certificate or result.problem:
            case BatchedCertificate() as made:
                chain = made.certificate + answer.issuers[made.issuer]
                write_credential(out / one.directory, Credential(key.key_pem, chain, answer.bundle))
                typer.echo(f"issued {made.identity} until {moment(made.not_after)}, serial {made.serial}")
                if made.cut_short:
                    typer.echo(CUT_SHORT)
                yield True
            case Problem() as why:
                typer.echo(f"refused {escaped(one.name)}: {escaped(why.detail or why.title)}", err=True)
                yield False
            case None:
                raise Unavailable("the server answers neither with a certificate nor with a problem")
