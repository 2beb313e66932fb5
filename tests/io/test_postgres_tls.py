"""TLS to PostgreSQL. The wheel's server has none, so this needs Debian's."""

import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from handfast.base.refusal import HandfastError
from handfast.io.databases import read_address
from handfast.io.postgres import PostgresDatabase
from tests.support.pki import Pki
from tests.support.postgres import PostgresServer, debian_binaries, postgres_server

pytestmark = pytest.mark.debian("pg_ctlcluster")


@dataclass
class Guarded:
    """A server that takes TCP connections with TLS alone, and what its clients need."""

    port: int
    root: Path
    other_root: Path

    def url(self, host: str, query: str) -> str:
        """Give its address by one of its names."""
        return f"postgresql://handfast@{host}:{self.port}/postgres?{query}"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Give a server whose certificate is for ``localhost``."""
    programs = debian_binaries()
    assert programs is not None
    folder, pki = tmp_path_factory.mktemp("tls"), Pki()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    def configure(server: PostgresServer) -> None:
        files = pki.leaf(dns=["localhost"], ips=()).write(server.directory, "tls")
        for file in files:
            if server.user is not None:
                shutil.chown(file, server.user)
            file.chmod(0o600)
        (server.directory / "data" / "pg_hba.conf").write_text(
            "local all all trust\nhostssl all all 127.0.0.1/32 trust\n"
        )
        tls = ("ssl=on", f"ssl_cert_file={files.chain}", f"ssl_key_file={files.key}")
        server.settings = (*tls, "listen_addresses=127.0.0.1", f"port={port}")

    (folder / "root.pem").write_bytes(pki.roots_pem)
    (folder / "other.pem").write_bytes(Pki().roots_pem)
    with postgres_server(programs, configure):
        yield Guarded(port, folder / "root.pem", folder / "other.pem")


async def test_the_connection_is_encrypted(guarded: Guarded):
    """All of our connections are, the readers' too."""
    address = read_address(guarded.url("localhost", f"sslmode=verify-full&sslrootcert={guarded.root}"), {})
    db = await PostgresDatabase.open(address, [])
    assert await db.fetch(
        "select distinct ssl from pg_stat_ssl join pg_stat_activity using (pid) where usename is not null"
    ) == [(True,)]
    await db.close()


@pytest.mark.parametrize(
    ("host", "root", "sslmode"),
    [
        ("localhost", "other_root", "verify-full"),
        ("127.0.0.1", "root", "verify-full"),
        ("localhost", "root", "disable"),
    ],
)
async def test_who_is_somebody_else_gets_nothing(guarded: Guarded, host: str, root: str, sslmode: str):
    """A wrong root and a wrong name end the connection, and so does an open one where the server wants TLS."""
    query = f"sslmode={sslmode}&sslrootcert={getattr(guarded, root)}"
    with pytest.raises(HandfastError):
        await PostgresDatabase.open(read_address(guarded.url(host, query), {}), [])
