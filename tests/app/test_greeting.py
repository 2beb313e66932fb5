"""What a start tells: each trust domain, and addresses at which there is what they promise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from handfast.app.domains import Settings, add_domain
from handfast.app.greeting import trust_domains
from handfast.app.server.status import StatusConfig
from handfast.app.up import UpConfig, servers_alone
from handfast.base.spiffe import TrustDomain
from handfast.sdk.contexts import anonymous_context
from tests.app.sites import DOMAIN
from tests.support.clock import FakeClock
from tests.support.ports import free_port

ANY = ("127.0.0.1", 0)
DEV = "dev.example.org"


@pytest.fixture
def config(tmp_path: Path) -> UpConfig:
    """Give a start with two trust domains, of which the second one publishes no status address in its certificates."""
    status = StatusConfig(listen=("127.0.0.1", free_port()), url="http://status.example.org")
    data = tmp_path / "data"
    add_domain(data, TrustDomain(DEV), Settings(api=ANY, admin=ANY, status=("127.0.0.1", free_port())))
    return UpConfig(data=data, api=ANY, admin=ANY, trust_domain=DOMAIN, status=status)


def clock() -> FakeClock:
    return FakeClock(datetime.now(UTC))


def told(lines: Iterator[str]) -> list[dict[str, str]]:
    """Give what is said of each trust domain, by what it is about."""
    found: list[dict[str, str]] = []
    for line in lines:
        name, text = line[2:16].strip(), line[16:]
        if name == "trust domain":
            found.append({})
        found[-1][name] = text
    return found


async def test_each_trust_domain_is_told_with_what_answers_there(config: UpConfig):
    """ACME directory, EST, status, metrics and API of each are where they are said to be, and are its own."""
    async with servers_alone(config, clock()) as servers, AsyncExitStack() as stack:
        both = told(trust_domains(servers, config.data))
        assert [one["trust domain"] for one in both] == [DOMAIN, DEV]
        for server, one in zip(servers, both, strict=True):
            bundle = server.platform.authority.bundle_pem.encode()
            client = await stack.enter_async_context(httpx2.AsyncClient(verify=anonymous_context(bundle)))
            directory = (await client.get(one["ACME"])).json()
            assert directory["newOrder"].startswith(one["ACME"].removesuffix("directory"))
            assert (await client.get(one["EST"] + "/cacerts")).headers["content-type"].startswith("application/pkcs7")
            key_id = server.platform.authority.issuer_facts.key_id.hex()
            status = one["status"].partition(" ")[0]
            assert (await client.get(f"{status}/crl/{key_id}/0.crl")).status_code == 200
            assert (await client.get(one["metrics"])).status_code == 200
            assert (await client.get(one["API"].partition(",")[0] + "/v1/status")).status_code == 401
        assert both[0]["status"].endswith("certificates name http://status.example.org")
        assert both[1]["status"].endswith("no certificate names it")
        directory = config.data / "domains" / DEV
        assert both[1]["API"].endswith(f"--data {directory}")
        assert both[1]["authority"].startswith(str(directory / "authority"))
        assert (directory / "ledger.sqlite").exists()
        assert both[1]["database"] == str(directory / "ledger.sqlite")


async def test_others_are_sent_to_the_name_that_the_server_was_given(config: UpConfig):
    """ACME and EST clients are elsewhere, where ``localhost`` is themselves; without a status listener none is told."""
    named = replace(config, names=("localhost", "ca.example.org", "other.example.org"), status=StatusConfig())
    async with servers_alone(named, clock()) as servers:
        first, _ = told(trust_domains(servers, named.data))
        port = servers[0].api_address[1]
    assert first["ACME"] == f"https://ca.example.org:{port}/acme/{DOMAIN}/directory"
    assert first["EST"] == f"https://ca.example.org:{port}/.well-known/est"
    assert "status" not in first


async def test_an_address_with_colons_is_written_as_urls_want_it(config: UpConfig):
    """In brackets."""
    async with servers_alone(replace(config, admin=("::1", 0)), clock()) as servers:
        first, _ = told(trust_domains(servers, config.data))
    assert first["metrics"] == f"http://[::1]:{servers[0].admin_address[1]}/metrics"
