"""``handfast ca``: where the authority comes from, and what it is. Works on the data directory, without a server."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from handfast.app.cli.given import DEFAULT_DATA, Data
from handfast.app.cli.passphrases import PASSPHRASE_VARIABLE, passphrase_from
from handfast.app.cli.reaching import ask
from handfast.app.cli.tables import moment
from handfast.app.client import Api
from handfast.app.demo import TRUST_DOMAIN
from handfast.app.server.messages import ENCODER
from handfast.base.refusal import BadInput, HandfastError
from handfast.base.spiffe import TrustDomain
from handfast.doctor.report import escaped
from handfast.io import authority_sources, next_authority, renewed_lists, sealed, signed_chains
from handfast.io.authority_files import AUTHORITY, split_lists
from handfast.io.authority_graph import CaNode, graph, roots_here
from handfast.io.authority_sources import Place
from handfast.io.ca_certificates import Wanted
from handfast.io.clock import SystemClock
from handfast.io.files import private_directory, read, read_secret, write
from handfast.io.signers import AuthorityKey, KeyKind
from handfast.io.token_uri import TokenUri, is_token_uri, parse_token_uri
from handfast.trust.addresses import StatusSite
from handfast.trust.constraints import permitted
from handfast.trust.profile import KeyFacts

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_LOOKS_WITHIN_S = 5.0
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
RootKey = Annotated[
    str, typer.Option("--root-key", help="Use this key in a token as the root's (pkcs11:…), and make none.")
]
StatusUrl = Annotated[
    str,
    typer.Option(
        "--status-url",
        help="Where CRLs and OCSP are reached, as 'handfast up' is told: the issuing CA's certificate names it.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def init(
    trust_domain: Domain = TRUST_DOMAIN,
    root_key_type: Annotated[KeyKind, typer.Option(help="The kind of the root's key.")] = KeyKind.P256,
    key_type: KeyType = KeyKind.P256,
    key: IssuingKey = "",
    root_key: RootKey = "",
    permit_dns: PermitDns = None,
    status_url: StatusUrl = "",
    passphrase_file: PassphraseFile = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Make a root and an issuing CA before the first start. Without this, 'handfast up' makes them with P-256 keys.

    [bold]Examples[/bold]

      handfast ca init --trust-domain example.org --root-key-type p384
      handfast ca init --trust-domain example.org --permit-dns internal --passphrase-file /etc/handfast/passphrase
    """
    place = _place(data, trust_domain, passphrase_file)
    wanted = _wanted(place, key, key_type, permit_dns, status_url)
    authority_sources.generate(place, wanted, _token(root_key) if root_key else root_key_type, _now())
    _show(place)


def import_root(
    root: Annotated[Path, typer.Option("--root", help="The root's certificate (PEM).")],
    key: Annotated[
        str,
        typer.Option(
            "--key",
            help="The root's private key: a file (PKCS#8, PEM), or a key in a token (pkcs11:…). Kept only with --keep-key.",
        ),
    ],
    trust_domain: Domain,
    key_passphrase_file: Annotated[
        Path | None, typer.Option(help="A file with the passphrase of the root's key, where it is sealed.")
    ] = None,
    keep_key: Annotated[
        bool,
        typer.Option(
            "--keep-key",
            help="Keep the root's key in the data directory, or where it lies, so that rotations can use it.",
        ),
    ] = False,
    key_type: KeyType = KeyKind.P256,
    issuing_key: Annotated[
        str,
        typer.Option("--issuing-key", help="Use this key in a token as the issuing CA's (pkcs11:…), and make none."),
    ] = "",
    permit_dns: PermitDns = None,
    status_url: StatusUrl = "",
    passphrase_file: PassphraseFile = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Put an issuing CA under a root that you have, before the first start.

    [bold]Examples[/bold]

      handfast ca import --root root.pem --key root-key.pem --trust-domain example.org
    """
    place = _place(data, trust_domain, passphrase_file)
    root_key = parse_token_uri(key) if is_token_uri(key) else _key_file(Path(key), key_passphrase_file)
    wanted = _wanted(place, issuing_key, key_type, permit_dns, status_url)
    authority_sources.import_root(place, wanted, read(root), root_key, _now(), keep_key=keep_key)
    _show(place)


def csr(
    trust_domain: Domain,
    key_type: KeyType = KeyKind.P256,
    key: IssuingKey = "",
    permit_dns: PermitDns = None,
    status_url: StatusUrl = "",
    out: Annotated[Path | None, typer.Option(help="Where to write the request. Default: the terminal.")] = None,
    ocsp_out: Annotated[
        Path | None,
        typer.Option(
            help="Where to write a second request: for who answers OCSP about the issuing CA, instead of its root."
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Ask for an issuing CA that a root elsewhere signs. The key is made here, or lies in a token, and stays there.

    [bold]Examples[/bold]

      handfast ca csr --trust-domain example.org --out issuing.csr
      handfast ca csr --trust-domain example.org --out issuing.csr --ocsp-out ocsp.csr --status-url http://status.example.org
    """
    place = _place(data, trust_domain, passphrase_file)
    text = asyncio.run(signed_chains.ask(place, _wanted(place, key, key_type, permit_dns, status_url)))
    if ocsp_out:
        write(ocsp_out, read(place.requested / signed_chains.RESPONDER_REQUEST))
    if out:
        write(out, text.encode())
        typer.echo(f"wrote {out}; the key is in {place.requested}", err=True)
    else:
        typer.echo(text, nl=False)


def install(
    file: Annotated[
        Path,
        typer.Argument(
            help="The signed issuing CA, all CAs above it, their revocation lists, and who answers OCSP, if that was asked for (PEM); "
            "or such lists alone, where newer ones are to take the place of those here."
        ),
    ],
    root_crl: Annotated[
        list[Path] | None,
        typer.Option(
            help="The revocation list of the root, or of a CA between, where FILE has it not; may be repeated."
        ),
    ] = None,
    root_fingerprint: Annotated[
        str, typer.Option(help="The root's SHA-256, as its keeper told you: confirms a root that is new here.")
    ] = "",
    passphrase_file: PassphraseFile = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Take back what 'handfast ca csr' asked for, signed by a root elsewhere; or a newer revocation list of a CA above ours, alone.

    [bold]Examples[/bold]

      handfast ca install chain.pem --root-crl root.crl --root-fingerprint 5e:0b:…
      handfast ca install root.crl
    """
    text, lists = read(file), b"".join(map(read, root_crl or ()))
    if _CERTIFICATE not in text and split_lists(text):
        for name in renewed_lists.renew(data / AUTHORITY, text + lists, _now()):
            typer.echo(f"took the revocation list of {escaped(name)}")
        typer.echo(_used_by_now(data))
        return
    signed = signed_chains.read_signed(text, lists)
    place = _place(data, signed.trust_domain.name, passphrase_file)
    if signed_chains.install(place, signed, _now(), root_fingerprint):
        _tell_waits(place)
    _show(place)


def _used_by_now(data: Path) -> str:
    """Have a server that runs over ``data`` look at its authorities now, and tell whether one does."""

    async def work(api: Api) -> None:
        await api.send("GET", "/v1/authorities", timeout_s=_LOOKS_WITHIN_S)

    try:
        ask(work, data)
    except HandfastError:  # none runs, or it is not ours to ask
        return "a server that runs here goes by it within seconds, one that starts at once"
    return "the server goes by it from now on"


def prepare(
    trust_domain: Domain,
    key_type: KeyType = KeyKind.P256,
    key: IssuingKey = "",
    new_root: Annotated[
        bool, typer.Option("--new-root", help="Make a new root, too, and the issuing CA under it.")
    ] = False,
    root_key: RootKey = "",
    root_key_type: Annotated[
        KeyKind, typer.Option(help="The kind of the new root's key, with --new-root.")
    ] = KeyKind.P256,
    permit_dns: PermitDns = None,
    status_url: StatusUrl = "",
    passphrase_file: PassphraseFile = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Make the next issuing CA with a key and limits of your choice, where the root's key is here. 'ca rotate' then uses it.

    Without this, a rotation keeps the kind of key and the limits. A key in a token always needs it.

    [bold]Examples[/bold]

      handfast ca next --trust-domain example.org --key-type p384
      handfast ca next --trust-domain example.org --new-root --root-key-type p384
    """
    if root_key and not new_root:
        raise BadInput("--root-key is the key of a new root", key="--root-key", hint="add --new-root")
    place = _place(data, trust_domain, passphrase_file)
    root = (_token(root_key) if root_key else root_key_type) if new_root else None
    authority_sources.prepare(place, _wanted(place, key, key_type, permit_dns, status_url), _now(), root)
    _tell_waits(place)


def show(as_json: Json = False, data: Data = DEFAULT_DATA) -> None:
    """Show root and issuing CAs on this disk: keys and where they lie, validity, what they may name, fingerprints.

    [bold]Examples[/bold]

      handfast ca show
    """
    nodes = graph(data / AUTHORITY)
    typer.echo(ENCODER.encode(nodes).decode() if as_json else "\n".join(_tree(nodes)))


def _show(place: Place) -> None:
    for line in _tree(graph(place.authority)):
        typer.echo(line)


def _tree(nodes: list[CaNode]) -> list[str]:
    return [line for node in nodes for line in _describe(node, "" if node.kind == "root" else "  ")]


def _describe(node: CaNode, indent: str) -> list[str]:
    rows = {
        "sha256": ":".join(node.fingerprint[at : at + 2] for at in range(0, 64, 2)),
        "key": str(KeyFacts(node.key_kind, node.key_bits, node.curve)),
        "lies in": f"{node.key_text} ({node.key_place})",
        "valid": f"{moment(node.not_before)} to {moment(node.not_after)}",
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


def _tell_waits(place: Place) -> None:
    new = next_authority.waiting_root(place.authority) not in roots_here(place.authority)
    what, verb = ("root and issuing CA", "ca rotate --root") if new else ("the issuing CA", "ca rotate")
    typer.echo(f"it waits to be used: replace {what} with 'handfast {verb}'", err=True)


def _key_file(path: Path, passphrase_file: Path | None) -> AuthorityKey:
    secret = sealed.read_passphrase(sealed.PassphraseFile(passphrase_file)) if passphrase_file else None
    return sealed.unseal(read_secret(path), secret, file=str(path))


def _wanted(place: Place, key: str, kind: KeyKind, permit_dns: list[str] | None, status_url: str) -> Wanted:
    # The server's own certificate names it: without that nothing would start. To anybody else it names their own host.
    constraints = permitted(place.trust_domain, [*permit_dns, "localhost"]) if permit_dns else None
    site = StatusSite(status_url.rstrip("/")) if status_url else None
    return Wanted(key=_token(key) if key else kind, constraints=constraints, site=site)


def _token(text: str) -> TokenUri:
    if not is_token_uri(text):
        raise BadInput(
            "this is not a key in a token", key="--key", hint="a key in a file is made here: leave the option out"
        )
    return parse_token_uri(text)


def _now() -> datetime:
    return SystemClock().now()
