"""A newer revocation list of a root elsewhere, given to one of several servers: the others have it at once."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from handfast.access.slice import parse_slice
from handfast.app.client import Api
from handfast.app.server.build import Server, ServerConfig
from handfast.base.spiffe import TrustDomain
from handfast.io.authority_sources import Place
from handfast.io.ca_certificates import DEFAULT
from handfast.io.renewed_lists import renew
from handfast.io.sealed import Passphrase
from handfast.io.signed_chains import ask, install, read_signed
from tests.app.sites import DOMAIN
from tests.stories.telling import eventually
from tests.stories.test_several_servers import PASSPHRASE, Fleet, issue, revoke
from tests.support.offline_root import OfflineRoot, offline_root
from tests.support.postgres_fixtures import own_server, postgres, postgres_store
from tests.support.stores import PostgresStore

__all__ = ["own_server", "postgres", "postgres_store"]
pytestmark = pytest.mark.debian("openssl")


@pytest.fixture
async def fleet(postgres_store: PostgresStore, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Give a database without any server yet."""
    config = ServerConfig(
        directory=tmp_path,
        trust_domain=TrustDomain(DOMAIN),
        api=("127.0.0.1", 0),
        admin=("127.0.0.1", 0),
        passphrase=PASSPHRASE,
        database=postgres_store.server.address(postgres_store.name),
    )
    async with AsyncExitStack() as stack:
        yield Fleet(config, stack)


async def prepared(directory: Path, passphrase: Passphrase, root: OfflineRoot) -> Place:
    """Have a root elsewhere sign the authority of a server that is not there yet."""
    place = Place(data=directory, trust_domain=TrustDomain(DOMAIN), passphrase=passphrase)
    csr = root.directory / "issuing.csr"
    csr.write_text(await ask(place, DEFAULT))
    listed = root.crl(began=datetime.now(UTC) - timedelta(hours=1))
    signed = read_signed(root.sign(csr).read_bytes(), listed.read_bytes())
    install(place, signed, datetime.now(UTC), root.fingerprint)
    return place


def revoked_by_the_root(server: Server) -> list[int]:
    current = server.platform.slices.current.value
    assert current
    lists = [x509.load_pem_x509_crl(text.encode()) for text in parse_slice(current.body).crls]
    return [len(one) for one in lists if one.issuer.rfc4514_string() == "CN=Example Offline Root"]


async def test_a_list_that_one_is_given_is_used_by_all_at_once(fleet: Fleet, tmp_path: Path):
    """By those that run, in their slices and on their disks, and by one that starts later. An older one goes nowhere."""
    root = offline_root(tmp_path / "safe")
    place = await prepared(tmp_path / "one", PASSPHRASE, root)
    fleet.clock.set(datetime.now(UTC))  # by which openssl has signed
    one, other = await fleet.server("one"), await fleet.server("other")
    await revoke(one, (await issue(one)).serial)
    await eventually(lambda: revoked_by_the_root(other) == revoked_by_the_root(one) == [0])
    older = (place.authority / "root.crl.pem").read_bytes()
    renew(
        place.authority, root.crl(days=340, revoked=root.below(tmp_path / "gone").pem).read_bytes(), datetime.now(UTC)
    )
    began = time.monotonic()
    async with Api.local(one.socket) as api:
        await api.send("GET", "/v1/authorities")
    assert revoked_by_the_root(one) == [1]
    await eventually(lambda: revoked_by_the_root(other) == [1])
    assert time.monotonic() - began < 2
    held = tmp_path / "other" / "authority" / "root.crl.pem"
    newer = (place.authority / "root.crl.pem").read_bytes()
    assert held.read_bytes() == newer != older
    held.write_bytes(older)  # from a backup, say
    async with Api.local(other.socket) as api:
        await api.send("GET", "/v1/authorities")
    await one.platform.rotation.go_on()
    assert (place.authority / "root.crl.pem").read_bytes() == newer
    third = await fleet.server("third")
    assert revoked_by_the_root(third) == [1]
