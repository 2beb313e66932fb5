from pathlib import Path

import pytest

from handfast.app.agent.build import AgentConfig, build_agent
from handfast.app.agent.partner_hosts import PartnerHosts
from handfast.app.agent.paths import AgentPaths
from handfast.base.refusal import BadInput
from handfast.base.spiffe import TrustDomain
from tests.app.issuers import Issuer
from tests.support.clock import FakeClock


def test_hosts_are_known_after_a_restart(tmp_path: Path):
    """Also those that trust nobody else any more: rows of that time may still be unread."""
    hosts = PartnerHosts(tmp_path / "hosts")
    assert hosts.names == frozenset()
    hosts.add(["api.example.org"])
    hosts.add(["web.example.org"])
    assert PartnerHosts(tmp_path / "hosts").names == {"api.example.org", "web.example.org"}
    assert (tmp_path / "hosts").stat().st_mode & 0o777 == 0o600


def test_nothing_is_written_for_nothing_new(tmp_path: Path):
    """Slices come often."""
    hosts = PartnerHosts(tmp_path / "hosts")
    hosts.add([])
    assert not (tmp_path / "hosts").exists()
    hosts.add(["api.example.org"])
    before = (tmp_path / "hosts").stat().st_ino
    hosts.add(["api.example.org"])
    assert (tmp_path / "hosts").stat().st_ino == before


def test_an_agent_that_starts_again_reads_rows_of_before_rightly(tmp_path: Path):
    """Before it has any slice."""
    issuer = Issuer(tmp_path, FakeClock())

    async def token() -> str:
        raise AssertionError("nobody asks for one yet")

    config = AgentConfig(
        name="edge",
        directory=tmp_path / "agent",
        server_url="https://localhost:1",
        bundle_pem=issuer.authority.bundle_pem,
        trust_domain=TrustDomain("example.org"),
        token=token,
    )
    assert build_agent(config, issuer.clock)._known.partners_at == frozenset()
    PartnerHosts(AgentPaths(config.directory).partner_hosts).add(["api.example.org"])
    assert build_agent(config, issuer.clock)._known.partners_at == {"api.example.org"}


@pytest.mark.parametrize("content", [b"", b"[1]", b"{}", b'["a"', b"\xff"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes):
    """Names at hosts of partners must not be taken for ours by accident."""
    (tmp_path / "hosts").write_bytes(content)
    with pytest.raises(BadInput) as caught:
        PartnerHosts(tmp_path / "hosts")
    assert "remove it" in caught.value.hint
