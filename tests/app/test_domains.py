"""Several trust domains in one server: nothing of one counts in another."""

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handfast.app.client import Api
from handfast.app.domain_servers import start_domains
from handfast.app.domains import Settings, add_domain, change_domain, domains
from handfast.app.server.build import Server, ServerConfig
from handfast.app.server.messages import (
    CertificateAnswer,
    CertificateList,
    CertificateRequest,
    StatusAnswer,
    TokenAnswer,
    TokenRequest,
)
from handfast.base.refusal import BadInput, HandfastError
from handfast.base.spiffe import TrustDomain
from handfast.io.credentials import new_key
from handfast.sdk.contexts import client_context
from tests.support.clock import FakeClock

FIRST, PROD, DEV = TrustDomain("first.example"), TrustDomain("prod.example"), TrustDomain("dev.example")
ANY = ("127.0.0.1", 0)
SOMEWHERE = Settings(api=ANY, admin=ANY)


def first(data: Path) -> ServerConfig:
    """Give the first server's settings; it need not run."""
    return ServerConfig(directory=data, trust_domain=FIRST, api=ANY, admin=ANY)


@dataclass(frozen=True)
class Certified:
    """An operator's certificate of one trust domain, with its key and roots."""

    chain: bytes
    key: bytes
    roots: bytes

    def context(self, roots: bytes) -> ssl.SSLContext:
        return client_context(self.chain, self.key, roots)


async def certified(server: Server, name: str = "alice") -> Certified:
    """Have the operator of a trust domain issue an operator's certificate."""
    key = new_key(name)
    async with Api.local(server.socket) as api:
        asked = CertificateRequest(name=name, csr=key.csr_pem, operator=True)
        answer = await api.call("POST", "/v1/certificates", CertificateAnswer, asked)
    return Certified(answer.chain.encode(), key.key_pem.encode(), answer.bundle.encode())


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[dict[TrustDomain, Server]]:
    for one in (PROD, DEV):
        add_domain(tmp_path, one, SOMEWHERE)
    async with AsyncExitStack() as stack:
        servers = await start_domains(first(tmp_path), FakeClock(datetime.now(UTC)), stack)
        yield {server.platform.trust_domain: server for server in servers}


async def test_each_has_an_authority_and_a_name_of_its_own(two: dict[TrustDomain, Server]):
    """The same workload name in two trust domains is two identities, from two roots, in two inventories."""
    alices = {name: await certified(server) for name, server in two.items()}
    assert alices[PROD].roots != alices[DEV].roots
    for name, server in two.items():
        async with Api.local(server.socket) as api:
            assert (await api.call("GET", "/v1/status", StatusAnswer)).trust_domain == str(name)
            rows = (await api.call("GET", "/v1/certificates", CertificateList)).certificates
            assert {row.identity.partition("/handfast")[0] for row in rows} == {f"spiffe://{name}"}


async def test_a_certificate_of_one_does_not_open_the_api_of_another(two: dict[TrustDomain, Server]):
    """An operator of one trust domain does not get past the TLS of the other, whichever roots it trusts itself."""
    alices = {name: await certified(server) for name, server in two.items()}
    async with Api.remote(two[DEV].url, alices[DEV].context(alices[DEV].roots)) as own:
        assert (await own.call("GET", "/v1/status", StatusAnswer)).trust_domain == str(DEV)
    async with Api.remote(two[DEV].url, alices[PROD].context(alices[DEV].roots)) as foreign:
        with pytest.raises(HandfastError):
            await foreign.call("GET", "/v1/status", StatusAnswer)


async def test_a_join_token_of_one_is_none_of_another(two: dict[TrustDomain, Server]):
    """What lets an agent into one trust domain is a stranger's word in the other."""
    async with Api.local(two[PROD].socket) as api:
        token = (await api.call("POST", "/v1/agents/tokens", TokenAnswer, TokenRequest(ttl_seconds=60))).token
    now = datetime.now(UTC)
    assert not await two[DEV].platform.ledger.use_join_token(token, now)
    assert await two[PROD].platform.ledger.use_join_token(token, now)


async def test_they_are_found_again(tmp_path: Path):
    """A second start opens the same authorities."""
    add_domain(tmp_path, PROD, SOMEWHERE)
    roots = []
    for _ in range(2):
        async with AsyncExitStack() as stack:
            (server,) = await start_domains(first(tmp_path), FakeClock(datetime.now(UTC)), stack)
            roots.append(server.platform.authority.bundle_pem)
    assert roots[0] == roots[1]
    assert [one.trust_domain for one in domains(tmp_path)] == [PROD]


def test_a_trust_domain_is_added_once(tmp_path: Path):
    """Adding it again would be a mistake, and changes nothing."""
    add_domain(tmp_path, PROD, SOMEWHERE)
    with pytest.raises(BadInput, match="already"):
        add_domain(tmp_path, PROD, Settings(api=("127.0.0.1", 7543), admin=ANY))
    assert [one.settings.api for one in domains(tmp_path)] == [ANY]


@pytest.mark.parametrize("name", [".", "..", "..."])
def test_no_name_leads_out_of_the_directory(tmp_path: Path, name: str):
    """Dots are a trust domain's right, and no directory of ours."""
    with pytest.raises(BadInput, match="directory"):
        add_domain(tmp_path, TrustDomain(name), SOMEWHERE)
    assert domains(tmp_path) == []


def test_two_do_not_share_an_address(tmp_path: Path):
    """The second is told at once, and not by a server that does not start."""
    add_domain(tmp_path, PROD, Settings(api=("127.0.0.1", 7543), admin=ANY))
    with pytest.raises(BadInput, match=r"prod\.example") as told:
        add_domain(tmp_path, DEV, Settings(api=("127.0.0.1", 7543), admin=ANY))
    assert told.value.key == "--api"


async def test_the_first_is_not_added_again(tmp_path: Path):
    """A directory under the first one's name would be a second authority for one trust domain."""
    add_domain(tmp_path, FIRST, SOMEWHERE)
    async with AsyncExitStack() as stack:
        with pytest.raises(BadInput, match="first"):
            await start_domains(first(tmp_path), FakeClock(datetime.now(UTC)), stack)


def test_damaged_settings_name_the_file(tmp_path: Path):
    """What somebody edited by hand is named, with the remedy."""
    added = add_domain(tmp_path, PROD, SOMEWHERE)
    (added.directory / "domain.json").write_text('{"api": 7}')
    with pytest.raises(BadInput) as told:
        domains(tmp_path)
    assert told.value.file == str(added.directory / "domain.json")


def test_settings_are_changed_where_they_lie(tmp_path: Path):
    """One by one; the others stay, and an address is nobody else's."""
    add_domain(tmp_path, PROD, Settings(api=("127.0.0.1", 7543), admin=ANY))
    add_domain(tmp_path, DEV, SOMEWHERE)
    change_domain(tmp_path, PROD, status=("127.0.0.1", 7581), status_url="http://status.prod.example")
    changed = change_domain(tmp_path, PROD, api=("127.0.0.1", 7544))
    (_, prod) = domains(tmp_path)
    assert prod == changed
    assert (prod.settings.api, prod.settings.status, prod.settings.status_url) == (
        ("127.0.0.1", 7544),
        ("127.0.0.1", 7581),
        "http://status.prod.example",
    )
    with pytest.raises(BadInput, match=r"prod\.example") as told:
        change_domain(tmp_path, DEV, status=("127.0.0.1", 7544))
    assert told.value.key == "--status"
    with pytest.raises(BadInput, match="not added"):
        change_domain(tmp_path, FIRST, admin=ANY)


def test_a_status_address_must_fit_a_certificate(tmp_path: Path):
    """It is refused at once, and not when a certificate is to carry it."""
    wrong = "https://status.prod.example"
    with pytest.raises(BadInput, match="http://") as told:
        add_domain(tmp_path, PROD, Settings(api=ANY, admin=ANY, status_url=wrong))
    assert told.value.key == "--status-url"
    add_domain(tmp_path, PROD, SOMEWHERE)
    with pytest.raises(BadInput, match="http://"):
        change_domain(tmp_path, PROD, status_url=wrong)
    assert [one.settings for one in domains(tmp_path)] == [SOMEWHERE]


def test_the_settings_of_an_older_version_are_settings(tmp_path: Path):
    """They say nothing of status, and so nothing is served."""
    added = add_domain(tmp_path, PROD, SOMEWHERE)
    assert (added.directory / "domain.json").read_text() == '{"api":["127.0.0.1",0],"admin":["127.0.0.1",0]}'
    assert domains(tmp_path) == [added]
