"""What ``handfast up`` and ``handfast server`` say once all is up: each trust domain, and where what it offers is found.

Decides by which address others are sent here: the first name of its own that the server was given, else ``localhost``. Refuses to know whether
that resolves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from handfast.app.domains import DIRECTORY
from handfast.app.server.acme.service import directory_path
from handfast.app.server.build import Server
from handfast.app.server.est import BASE
from handfast.io.authority_files import AUTHORITY
from handfast.io.databases import LEDGER
from handfast.sdk.sockets import place_of

_HERE = "localhost"


def trust_domains(servers: Sequence[Server], data: Path) -> Iterator[str]:
    """Give the lines about all trust domains, the first one's first. ``data`` is the data directory as the user wrote it."""
    first, *others = servers
    yield from _trust_domain(first, data, f", operator's certificate in {data / 'operator'}")
    for other in others:
        directory = data / DIRECTORY / str(other.platform.trust_domain)
        yield from _trust_domain(other, directory, f", for commands here --data {directory}")


def _trust_domain(server: Server, data: Path, operators: str) -> Iterator[str]:
    domain, base = server.platform.trust_domain, _base(server)
    sealed = server.platform.authority.sealed
    keys = "sealed" if sealed else "not sealed: --passphrase-file seals those of a new data directory"
    yield f"  trust domain  {domain}"
    yield f"  authority     {data / AUTHORITY}, keys {keys}"
    yield f"  database      {server.config.database or data / LEDGER}"
    yield f"  API           {server.url}{operators}"
    yield f"  ACME          {base}{directory_path(domain)}"
    yield f"  EST           {base}{BASE}"
    yield from _status(server)
    yield f"  metrics       http://{place_of(server.config.admin[0], server.admin_address[1])}/metrics"


def _base(server: Server) -> str:
    names = [name for name in server.config.names if name != _HERE]
    return f"https://{names[0] if names else _HERE}:{server.api_address[1]}"


def _status(server: Server) -> Iterator[str]:
    host, port = server.status.address
    url = server.config.status.url
    if port:
        named = f"certificates name {url}" if url else "no certificate names it"
        yield f"  status        http://{place_of(host, port)} (CRLs, OCSP); {named}"
