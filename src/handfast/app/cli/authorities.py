"""``handfast ca``: where the authority comes from, and what it is. Works on the data directory, without a server."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from handfast.app.cli import rotation
from handfast.app.cli.reaching import DEFAULT_DATA, Data
from handfast.app.cli.running import PASSPHRASE_VARIABLE, passphrase_from
from handfast.app.demo import TRUST_DOMAIN
from handfast.app.server.messages import ENCODER
from handfast.base.refusal import BadInput
from handfast.base.spiffe import TrustDomain
from handfast.doctor.report import escaped
from handfast.io import authority_sources, sealed
from handfast.io.authority_graph import CaNode, graph
from handfast.io.authority_sources import Place
from handfast.io.ca_certificates import Wanted
from handfast.io.clock import SystemClock
from handfast.io.files import private_directory, read, read_secret, write
from handfast.io.signers import KeyKind
from handfast.io.token_uri import TokenUri, is_token_uri, parse_token_uri
from handfast.trust.constraints import permitted
from handfast.trust.profile import KeyFacts

app = typer.Typer(help="Make, import, request and show the authority.", no_args_is_help=True, rich_markup_mode="rich")

rotation.register(app)

Domain = Annotated[str, typer.Option("--trust-domain", help="The trust domain that the authority is for.")]
KeyType = Annotated[KeyKind, typer.Option("--key-type", help="The kind of the issuing CA's key.")]
IssuingKey = Annotated[
    str,
    typer.Option(
        "--key",
        "--issuing-key",
        help="Use this key in a token as the issuing CA's (pkcs11:…, RFC 7512), and make none.",
    ),
]
PermitDns = Annotated[
    list[str] | None,
    typer.Option(
        "--permit-dns",
        help="Let the issuing CA name nothing but this domain and below, and localhost; may be repeated.",
    ),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(help=f"Seal the keys with the passphrase in this file. Also: ${PASSPHRASE_VARIABLE}."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def init(
    trust_domain: Domain = TRUST_DOMAIN,
    root_key_type: Annotated[KeyKind, typer.Option(help="The kind of the root's key.")] = KeyKind.P256,
    key_type: KeyType = KeyKind.P256,
    key: IssuingKey = "",
    permit_dns: PermitDns = None,
    passphrase_file: PassphraseFile = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Make a root and an issuing CA before the first start. Without this, 'handfast up' makes them with P-256 keys.

    [bold]Examples[/bold]

      handfast ca init --trust-domain example.org --root-key-type p384
      handfast ca init --trust-domain example.org --permit-dns internal --passphrase-file /etc/handfast/passphrase
    """
    place = _place(data, trust_domain, passphrase_file)
    authority_sources.generate(place, _wanted(place, key, key_type, permit_dns), root_key_type, _now())
    _show(place)


@app.command("import")
def import_root(
    root: Annotated[Path, typer.Option("--root", help="The root's certificate (PEM).")],
    key: Annotated[
        Path, typer.Option("--key", help="The root's private key (PKCS#8, PEM). Kept only with --keep-key.")
    ],
    trust_domain: Domain,
    key_passphrase_file: Annotated[
        Path | None, typer.Option(help="A file with the passphrase of the root's key, where it is sealed.")
    ] = None,
    keep_key: Annotated[
        bool,
        typer.Option("--keep-key", help="Keep the root's key in the data directory, so that rotations can use it."),
    ] = False,
    key_type: KeyType = KeyKind.P256,
    issuing_key: Annotated[
        str,
        typer.Option("--issuing-key", help="Use this key in a token as the issuing CA's (pkcs11:…), and make none."),
    ] = "",
    permit_dns: PermitDns = None,
    passphrase_file: PassphraseFile = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Put an issuing CA under a root that you have, before the first start.

    [bold]Examples[/bold]

      handfast ca import --root root.pem --key root-key.pem --trust-domain example.org
    """
    place = _place(data, trust_domain, passphrase_file)
    secret = sealed.read_passphrase(sealed.PassphraseFile(key_passphrase_file)) if key_passphrase_file else None
    root_key = sealed.unseal(read_secret(key), secret, file=str(key))
    wanted = _wanted(place, issuing_key, key_type, permit_dns)
    authority_sources.import_root(place, wanted, read(root), root_key, _now(), keep_key=keep_key)
    _show(place)


@app.command()
def csr(
    trust_domain: Domain,
    key_type: KeyType = KeyKind.P256,
    key: IssuingKey = "",
    permit_dns: PermitDns = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the request. Default: the terminal.")] = None,
    passphrase_file: PassphraseFile = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Ask for an issuing CA that a root elsewhere signs. The key is made here, or lies in a token, and stays there.

    [bold]Examples[/bold]

      handfast ca csr --trust-domain example.org --out issuing.csr
    """
    place = _place(data, trust_domain, passphrase_file)
    text = asyncio.run(authority_sources.ask(place, _wanted(place, key, key_type, permit_dns)))
    if out:
        write(out, text.encode())
        typer.echo(f"wrote {out}; the key is in {place.requested}", err=True)
    else:
        typer.echo(text, nl=False)


@app.command()
def install(
    file: Annotated[
        Path, typer.Argument(help="The signed issuing CA, its root, and the root's revocation list (PEM).")
    ],
    root_crl: Annotated[Path | None, typer.Option(help="The root's revocation list, where FILE has none.")] = None,
    root_fingerprint: Annotated[
        str, typer.Option(help="The root's SHA-256, as its keeper told you: confirms a root that is new here.")
    ] = "",
    passphrase_file: PassphraseFile = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Take back what 'handfast ca csr' asked for, signed by a root elsewhere.

    [bold]Examples[/bold]

      handfast ca install chain.pem --root-crl root.crl --root-fingerprint 5e:0b:…
    """
    signed = authority_sources.read_signed(read(file), read(root_crl) if root_crl else b"")
    place = _place(data, signed.trust_domain.name, passphrase_file)
    if authority_sources.install(place, signed, _now(), root_fingerprint):
        typer.echo("it waits to be used: replace the issuing CA with 'handfast ca rotate'", err=True)
    _show(place)


@app.command("next")
def prepare(
    trust_domain: Domain,
    key_type: KeyType = KeyKind.P256,
    key: IssuingKey = "",
    permit_dns: PermitDns = None,
    passphrase_file: PassphraseFile = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Make the next issuing CA with a key and limits of your choice, where the root's key is here. 'ca rotate' then uses it.

    Without this, a rotation keeps the kind of key and the limits. A key in a token always needs it.

    [bold]Examples[/bold]

      handfast ca next --trust-domain example.org --key-type p384
    """
    place = _place(data, trust_domain, passphrase_file)
    authority_sources.prepare(place, _wanted(place, key, key_type, permit_dns), _now())
    typer.echo("it waits to be used: replace the issuing CA with 'handfast ca rotate'", err=True)


@app.command()
def show(as_json: Json = False, data: Data = DEFAULT_DATA) -> None:
    """Show root and issuing CAs on this disk: keys and where they lie, validity, what they may name, fingerprints.

    [bold]Examples[/bold]

      handfast ca show
    """
    nodes = graph(data / "authority")
    typer.echo(ENCODER.encode(nodes).decode() if as_json else "\n".join(_tree(nodes)))


def _show(place: Place) -> None:
    for line in _tree(graph(place.authority)):
        typer.echo(line)


def _tree(nodes: list[CaNode]) -> list[str]:
    return [line for node in nodes for line in _describe(node, "  " if node.kind == "issuing" else "")]


def _describe(node: CaNode, indent: str) -> list[str]:
    rows = {
        "sha256": ":".join(node.fingerprint[at : at + 2] for at in range(0, 64, 2)),
        "key": str(KeyFacts(node.key_kind, node.key_bits, node.curve)),
        "lies in": f"{node.key_text} ({node.key_place})",
        "valid": f"{_moment(node.not_before)} to {_moment(node.not_after)}",
        "may name": node.constraints,
    }
    return [
        f"{indent}{node.kind} {escaped(node.subject)}",
        *(f"{indent}  {name + ':':<10}{escaped(value)}" for name, value in rows.items() if value),
    ]


def _place(data: Path, trust_domain: str, passphrase_file: Path | None) -> Place:
    return Place(
        data=private_directory(data),
        trust_domain=TrustDomain(trust_domain),
        passphrase=passphrase_from(passphrase_file),
    )


def _wanted(place: Place, key: str, kind: KeyKind, permit_dns: list[str] | None) -> Wanted:
    # The server's own certificate names it: without that nothing would start. To anybody else it names their own host.
    constraints = permitted(place.trust_domain, [*permit_dns, "localhost"]) if permit_dns else None
    return Wanted(key=_token(key) if key else kind, constraints=constraints)


def _token(text: str) -> TokenUri:
    if not is_token_uri(text):
        raise BadInput(
            "this is not a key in a token", key="--key", hint="a key in a file is made here: leave the option out"
        )
    return parse_token_uri(text)


def _now() -> datetime:
    return SystemClock().now()


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
