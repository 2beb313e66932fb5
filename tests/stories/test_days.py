"""Days in the life of a platform: a server, an agent, and time that passes."""

from datetime import timedelta
from itertools import pairwise
from pathlib import Path

from cryptography import x509

from handfast.app.server.messages import CertificateList, CertificateRow, EventList, RevocationRequest, StatusAnswer
from handfast.base.reasons import Reason
from handfast.trust.facts import CertificateFacts
from tests.app.sites import AGENT, DOMAIN, WORLD, Site, site
from tests.stories.telling import HOUR, Host, eventually, host, pass_time, quiet
from tests.support.clock import FakeClock

HOST = f"api.{DOMAIN}"
NAMES = {f"handfast/agent/{AGENT}": 24, f"handfast/gateway/{AGENT}": 24, "handfast/server": 7 * 24}


async def issued(here: Site, name: str) -> list[CertificateRow]:
    """Give all certificates of a name, oldest first."""
    page = await here.operator.call("GET", "/v1/certificates", CertificateList, name=name)
    return page.certificates[::-1]


async def status(here: Site) -> StatusAnswer:
    return await here.operator.call("GET", "/v1/status", StatusAnswer)


def holds(on: Host) -> CertificateFacts:
    credential = on.agent._identity.current.value
    assert credential
    return credential.leaf


async def test_for_a_week_everything_is_renewed_in_time(tmp_path: Path):
    """No certificate expires, each is replaced at two thirds of its life give or take a twentieth, and nobody complains."""
    async with site(tmp_path, FakeClock()) as here:
        await here.apply()
        async with host(tmp_path / "agent", here) as on:
            await on.current(here)
            for _ in range(8 * 8):
                await pass_time(here.clock, 3 * HOUR)
                (served,) = on.envoy.served
                assert served.dns_sans == (HOST,)
                for window in (served.window, holds(on).window):
                    assert window.contains(here.clock.now())
            for name, hours in NAMES.items():
                rows = await issued(here, name)
                assert len(rows) >= 2
                for before, after in pairwise(rows):
                    age = (after.not_before - before.not_before).total_seconds() / (hours * 3600)
                    assert 0.6 < age < 0.75, (name, age)
            assert len(on.tokens) == 1
            (agent,) = (await status(here)).agents
            assert (agent.findings, agent.last_seen) == ([], here.clock.now())
            await on.current(here)
            # A blocking query lasts real seconds; here two renewals fall into one, and the second one ends it.
            raised = (await here.operator.call("GET", "/v1/events", EventList, kind="finding.raised")).events
            assert {event["reason"] for event in raised} <= {Reason.SNAPSHOT_STALE}


async def test_while_the_server_is_away_what_runs_goes_on(tmp_path: Path):
    """Past the time of renewal nothing expires; once the server is back, renewals resume and the finding is over."""
    data = tmp_path / "data"
    async with site(data, FakeClock()) as here:
        port, clock = here.server.api_address[1], here.clock
        await here.apply()
        async with host(tmp_path / "agent", here) as on:
            await on.current(here)
            await pass_time(clock, HOUR)
            before = holds(on).serial
            await here.stack.aclose()
            await eventually(lambda: bool(on.agent._findings.standing))
            await pass_time(clock, 19 * HOUR, server=False, step=HOUR)
            assert holds(on).serial == before
            assert holds(on).window.contains(clock.now())
            assert on.envoy.served[0].window.contains(clock.now())
            assert Reason.SNAPSHOT_STALE in {finding.reason for finding in on.agent._findings.standing}
            async with site(data, clock, port=port) as again:
                assert again.bundle == here.bundle
                await pass_time(clock, HOUR / 2, step=timedelta(minutes=1))
                assert holds(on).serial != before
                assert on.envoy.served[0].window.not_before > clock.now() - HOUR
                assert Reason.SNAPSHOT_STALE not in {finding.reason for finding in on.agent._findings.standing}
                (agent,) = (await status(again)).agents
                assert agent.last_seen > clock.now() - timedelta(minutes=2)


async def test_an_agent_starts_with_the_server_away(tmp_path: Path):
    """What it has on disk is enough to serve: certificate, keys, the slice that Envoy took last."""
    async with site(tmp_path / "data", FakeClock()) as here:
        await here.apply()
        async with host(tmp_path / "agent", here) as on:
            await on.current(here)
            await quiet(here.clock)
            served = [one.serial for one in on.envoy.served]
        await here.stack.aclose()
        async with host(tmp_path / "agent", here) as on:
            await eventually(lambda: [one.serial for one in on.envoy.served] == served)
            await eventually(lambda: on.agent.acknowledged != "")
            assert on.tokens == []


async def test_a_host_that_slept_too_long_joins_anew(tmp_path: Path):
    """After days of sleep the agent's certificate has expired; it asks for a token, and goes on under its name."""
    async with site(tmp_path / "data", FakeClock()) as here:
        await here.apply()
        async with host(tmp_path / "agent", here) as on:
            await on.current(here)
            await quiet(here.clock)
            here.clock.set(here.clock.now() + timedelta(days=3))
            await pass_time(here.clock, timedelta(minutes=5), step=timedelta(seconds=30))
            assert holds(on).window.contains(here.clock.now())
            assert on.envoy.served[0].window.contains(here.clock.now())
            assert len(on.tokens) == 2
        here.clock.set(here.clock.now() + timedelta(days=3))
        async with host(tmp_path / "agent", here) as on:
            assert holds(on).window.contains(here.clock.now())
            assert len(on.tokens) == 1
        assert [agent.name for agent in (await status(here)).agents] == [AGENT]


async def test_a_revocation_reaches_envoy_at_once_and_leaves_with_the_certificate(tmp_path: Path):
    """Deny list and revocation lists come without a clock's tick, and go once the certificate has expired by itself."""
    async with site(tmp_path / "data", FakeClock()) as here:
        await here.apply()
        async with host(tmp_path / "agent", here) as on:
            await on.current(here)
            held = await here.issue("payments")
            await here.operator.send(
                "POST", "/v1/revocations", RevocationRequest(name="payments", reason="keyCompromise")
            )
            await eventually(lambda: on.envoy.knows(held.leaf.fingerprint))
            await eventually(lambda: bool(on.envoy.crls))
            assert _listed(on) == {held.leaf.serial}
            await on.current(here)
            await pass_time(here.clock, 3 * HOUR)
            await eventually(lambda: not on.envoy.knows(held.leaf.fingerprint))
            assert here.server.platform.slices.denied == frozenset()
            assert on.envoy.crls == []


def _listed(on: Host) -> set[str]:
    lists = [one for text in on.envoy.crls for one in _split(text)]
    assert len({one.issuer for one in lists}) == 2
    return {f"{entry.serial_number:040x}" for one in lists for entry in one}


def _split(text: str) -> list[x509.CertificateRevocationList]:
    end = "-----END X509 CRL-----"
    parts = text.replace("\\n", "\n").split(end)[:-1]
    return [x509.load_pem_x509_crl((part[part.index("-----BEGIN") :] + end).encode()) for part in parts]


async def test_revocation_lists_are_never_old(tmp_path: Path):
    """While something is revoked the lists are made anew by the hour, with a higher number each time."""
    async with site(tmp_path / "data", FakeClock()) as here:
        await here.apply()
        async with host(tmp_path / "agent", here) as on:
            held = await here.issue("ledger", ttl_seconds=9 * 86400)
            await here.operator.send("POST", "/v1/revocations", RevocationRequest(serial=held.leaf.serial))
            for _ in range(8 * 4):
                await pass_time(here.clock, 6 * HOUR, step=HOUR)
                await on.current(here)
                for one in (crl for text in on.envoy.crls for crl in _split(text)):
                    assert one.next_update_utc
                    assert one.next_update_utc - here.clock.now() > timedelta(days=6)


async def test_a_change_of_the_world_reaches_envoy_without_a_tick(tmp_path: Path):
    """A host that comes is served with a certificate of its own, and one that goes is gone."""
    more = (
        WORLD
        + f"  web.{DOMAIN}:\n    listen: 127.0.0.1:8443\n    routes: [{{path: /, upstream: 'http://127.0.0.1:1', allow: anyone}}]\n"
    )
    async with site(tmp_path / "data", FakeClock()) as here:
        await here.apply()
        async with host(tmp_path / "agent", here) as on:
            await on.current(here)
            await here.apply(more)
            await on.current(here)
            assert {name for one in on.envoy.served for name in one.dns_sans} == {HOST, f"web.{DOMAIN}"}
            await here.apply()
            await on.current(here)
            await eventually(lambda: {name for one in on.envoy.served for name in one.dns_sans} == {HOST})


async def test_a_revoked_agent_gets_no_further_and_says_so(tmp_path: Path):
    """Its host goes on with what it has; nothing new reaches it, and it does not join again by itself."""
    async with site(tmp_path / "data", FakeClock()) as here:
        await here.apply()
        async with host(tmp_path / "agent", here) as on:
            await on.current(here)
            known = on.agent.acknowledged
            await here.operator.send("POST", "/v1/revocations", RevocationRequest(name=f"handfast/agent/{AGENT}"))
            await here.apply(WORLD.replace("methods: [GET]", "methods: [PUT]"))
            await pass_time(here.clock, 20 * HOUR, step=HOUR)
            assert on.agent.acknowledged == known
            assert len(on.tokens) == 1
            assert {finding.reason for finding in on.agent._findings.standing} >= {
                Reason.SNAPSHOT_BAD,
                Reason.AGENT_REVOKED,
            }


async def test_a_forgotten_agent_says_so_and_joins_anew_once_its_certificate_has_ended(tmp_path: Path):
    """Until then nothing new reaches it; it comes back as a new one would, with a token for its name."""
    async with site(tmp_path / "data", FakeClock()) as here:
        await here.apply()
        async with host(tmp_path / "agent", here) as on:
            await on.current(here)
            held = holds(on)
            await here.operator.send("DELETE", f"/v1/agents/{AGENT}")
            await here.apply(WORLD.replace("methods: [GET]", "methods: [PUT]"))
            await pass_time(here.clock, 20 * HOUR, step=HOUR)
            assert (holds(on), len(on.tokens)) == (held, 1)
            assert Reason.AGENT_FORGOTTEN in {finding.reason for finding in on.agent._findings.standing}
            here.clock.set(held.window.not_after)
            await pass_time(here.clock, timedelta(minutes=5), step=timedelta(seconds=30))
            assert holds(on).window.contains(here.clock.now())
            assert len(on.tokens) == 2
            await on.current(here)
        assert [agent.name for agent in (await status(here)).agents] == [AGENT]
