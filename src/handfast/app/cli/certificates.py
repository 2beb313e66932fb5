"""``handfast cert``: issue and show; what concerns many at once is beside it."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from handfast.app.cli.given import DEFAULT_DATA, NO_IDENTITY, Data, Identity, Remote
from handfast.app.cli.lifetimes import seconds
from handfast.app.cli.reaching import ask
from handfast.app.cli.tables import moment
from handfast.app.client import Api
from handfast.app.server.inventory_messages import InventoryRow
from handfast.app.server.messages import (
    ENCODER,
    CertificateAnswer,
    CertificateRequest,
    CertificateRow,
)
from handfast.base.refusal import BadInput
from handfast.doctor.report import escaped
from handfast.io.credentials import Credential, new_key, p12
from handfast.io.files import read, write_secret
from handfast.trust.facts import CertificateFacts, facts, pem_certificates
from handfast.trust.profile import KeyFacts
from handfast.trust.staple import must_staple

_SERIAL, _FINGERPRINT = 40, 64  # hex digits, at most
CUT_SHORT = "  sooner than was asked for: its issuing CA ends then, see 'handfast ca status'"
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def issue(
    name: Annotated[str, typer.Argument(help="The identity's name, such as payments or team/payments.")],
    dns: Annotated[
        list[str] | None, typer.Option("--dns", help="A DNS name for the certificate; may be repeated.")
    ] = None,
    ttl: Annotated[
        str, typer.Option(help="How long it lives: 15m, 24h, 7d. Default: the workload's own, or 24h.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Where to put the files. Default: a directory of that name here.")
    ] = None,
    make_p12: Annotated[bool, typer.Option("--p12", help="Also write client.p12, which browsers import.")] = False,
    operator: Annotated[
        bool, typer.Option("--operator", help="Make it an operator's: it may do all that you may.")
    ] = False,
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Issue a certificate. The key is made here and stays here; the server gets a signing request.

    Writes cert.pem (with its chain), key.pem and ca.pem.

    [bold]Examples[/bold]

      handfast cert issue payments
      handfast cert issue ledger --dns ledger.internal --ttl 7d --out /etc/ledger/tls
      handfast cert issue alice --p12
      handfast cert issue bob --operator --out bob-operator
    """
    key = new_key(name)
    life = seconds(ttl) if ttl else None
    request = CertificateRequest(name=name, csr=key.csr_pem, dns=dns or [], ttl_seconds=life, operator=operator)

    async def work(api: Api) -> CertificateAnswer:
        return await api.call("POST", "/v1/certificates", CertificateAnswer, request)

    answer = ask(work, data, server, identity)
    directory = out or Path(name.replace("/", "-"))
    files = write_credential(directory, Credential(key.key_pem, answer.chain, answer.bundle))
    typer.echo(f"issued {answer.identity} until {moment(answer.not_after)}, serial {answer.serial}")
    if answer.cut_short:
        typer.echo(CUT_SHORT)
    for path in files:
        typer.echo(f"  {path}")
    if make_p12:
        _write_p12(directory / "client.p12", Credential(key.key_pem, answer.chain, answer.bundle), name)


def write_credential(directory: Path, credential: Credential) -> list[Path]:
    """Write the three files that TLS programs read."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / "cert.pem", directory / "key.pem", directory / "ca.pem"]
    write_secret(paths[1], credential.key_pem.encode())
    write_secret(paths[0], credential.chain_pem.encode())
    write_secret(paths[2], credential.bundle_pem.encode())
    return paths


def _write_p12(path: Path, credential: Credential, name: str) -> None:
    password = secrets.token_urlsafe(12)
    write_secret(path, p12(credential, name, password))
    typer.echo(f"  {path}, password {password} (it is not kept)")


def show(
    what: Annotated[str, typer.Argument(help="A file with certificates (PEM), a serial, or a fingerprint.")],
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Show a certificate: from a file, without any server, or from the inventory by its serial or SHA-256.

    [bold]Examples[/bold]

      handfast cert show payments/cert.pem
      handfast cert show 3f0c9e1a77…
      handfast cert show 9f86d081…
    """
    if Path(what).is_file():
        found = _read(what)
        typer.echo(ENCODER.encode([_plain(one) for one in found]) if as_json else "\n\n".join(map(_describe, found)))
        return

    number = _number(what)

    async def work(api: Api) -> CertificateRow | InventoryRow:
        if len(number) == _FINGERPRINT:
            return await api.call("GET", f"/v1/inventory/{number}", InventoryRow)
        return await api.call("GET", f"/v1/certificates/{number}", CertificateRow)

    row = ask(work, data, server, identity)
    typer.echo(ENCODER.encode(row) if as_json else _describe_row(row))


class _Read(NamedTuple):
    """A certificate of a file, and whether it demands a staple."""

    facts: CertificateFacts
    must_staple: bool


def _read(file: str) -> list[_Read]:
    try:
        return [
            _Read(facts(der), must_staple(der)) for der in pem_certificates(read(Path(file)).decode(errors="replace"))
        ]
    except BadInput as error:
        raise error.at(file=file) from error


def _number(text: str) -> str:
    """Read a serial, which has at most 20 octets, or a fingerprint, which has 32."""
    number = text.replace(":", "").lower()
    fits = 0 < len(number) <= _SERIAL or len(number) == _FINGERPRINT
    if not fits or set(number) - set("0123456789abcdef"):
        raise BadInput(
            f"{text[:80]!r} is neither a file nor a serial nor a fingerprint",
            hint="both are hex; see 'handfast cert list'",
        )
    return number


def _describe(found: _Read) -> str:
    seen = found.facts
    rows = {
        "subject": seen.subject,
        "identity": ", ".join(seen.uri_sans),
        "dns": ", ".join(seen.dns_sans),
        "issuer": seen.issuer,
        "serial": seen.serial,
        "sha256": seen.fingerprint,
        "valid": f"{moment(seen.window.not_before)} to {moment(seen.window.not_after)}",
        "key": str(KeyFacts(seen.key_kind, seen.key_bits, seen.curve)),
        "use": "a CA" if seen.is_ca else "a leaf",
        "demands": _demand(staples=found.must_staple),
    }
    return _rows(rows)


def _plain(found: _Read) -> dict[str, object]:
    seen = found.facts
    return {
        "subject": seen.subject,
        "issuer": seen.issuer,
        "serial": seen.serial,
        "fingerprint": seen.fingerprint,
        "uri_sans": seen.uri_sans,
        "dns_sans": seen.dns_sans,
        "not_before": seen.window.not_before,
        "not_after": seen.window.not_after,
        "is_ca": seen.is_ca,
        "ekus": seen.ekus,
        "key": str(KeyFacts(seen.key_kind, seen.key_bits, seen.curve)),
        "must_staple": found.must_staple,
    }


def _describe_row(row: CertificateRow | InventoryRow) -> str:
    imported = isinstance(row, InventoryRow) and row.source != "issued"
    rows = {
        "subject" if imported else "identity": row.subject if isinstance(row, InventoryRow) else row.identity,
        "state": f"{row.state} {row.revocation_reason}".strip(),
        "dns": ", ".join(row.dns),
        "issuer": row.issuer,
        "serial": row.serial,
        "sha256": row.fingerprint,
        "valid": f"{moment(row.not_before)} to {moment(row.not_after)}",
        "added by" if imported else "asked by": row.requester,
        "owner": row.owner if isinstance(row, InventoryRow) else "",
        "demands": _demand(staples=any(must_staple(der) for der in _ders(row))),
    }
    return f"{_rows(rows)}\n\n{row.certificate}".rstrip()


def _ders(row: CertificateRow | InventoryRow) -> tuple[bytes, ...]:
    return pem_certificates(row.certificate) if row.certificate else ()


def _demand(*, staples: bool) -> str:
    return "a stapled OCSP response (must-staple)" if staples else ""


def _rows(rows: dict[str, str]) -> str:
    return "\n".join(f"{name + ':':<10}{escaped(value)}" for name, value in rows.items() if value)
