"""What a gateway staples, while time passes and the server comes and goes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from handfast.app.server.messages import RevocationRequest, StatusAnswer
from handfast.base.reasons import Reason
from handfast.base.refusal import Unavailable
from handfast.io.responder import Responder
from handfast.trust.facts import facts, pem_certificates
from handfast.trust.staple import Staple, judge_staple, must_staple
from tests.app.sites import AGENT, DOMAIN, WORLD, Site, site
from tests.stories.telling import Host, eventually, host, pass_time, quiet
from tests.support.clock import FakeClock

API = f"api.{DOMAIN}"
STRICT = WORLD.replace("    listen:", "    must_staple: true\n    listen:")
MINUTE = timedelta(minutes=1)


def stapled(on: Host) -> Staple | None:
    """Give what Envoy staples, which is good, or None."""
    ((chain, response),) = on.envoy.stapled
    if not response:
        return None
    leaf, issuer = pem_certificates(chain)[:2]
    judged = judge_staple(response, leaf, issuer, on.clock.now())
    assert isinstance(judged, Staple), judged
    return judged


def demands(on: Host) -> bool:
    ((chain, _),) = on.envoy.stapled
    return must_staple(pem_certificates(chain)[0])


def serials(on: Host) -> list[str]:
    return [facts(pem_certificates(chain)[0]).serial for chain, _ in on.envoy.stapled]


def reasons(on: Host) -> set[Reason]:
    return {finding.reason for finding in on.agent._findings.standing}


@pytest.mark.parametrize("world", [WORLD, STRICT], ids=["lenient", "must staple"])
async def test_for_a_day_what_is_stapled_counts(world: str, tmp_path: Path):
    """Whichever certificate is in service, its staple is there and counts for a quarter of an hour or longer; nobody complains."""
    async with site(tmp_path, FakeClock()) as here:
        await here.apply(world)
        async with host(tmp_path / "agent", here) as on:
            await on.current(here)
            seen = set()
            for _ in range(24 * 6):
                await pass_time(here.clock, 10 * MINUTE, step=5 * MINUTE)
                staple = stapled(on)
                assert staple
                assert staple.window.not_after - here.clock.now() > 10 * MINUTE
                seen.add(staple.serial)
            assert len(seen) == 2
            assert on.envoy.unfit == []
            assert reasons(on) <= {Reason.SNAPSHOT_STALE}


async def test_the_status_says_when_each_staple_ends(tmp_path: Path):
    """Beside its host, by agent, as Envoy has it; and no more once the agent is forgotten."""
    async with site(tmp_path, FakeClock()) as here:
        await here.apply()
        async with host(tmp_path / "agent", here) as on:
            await on.current(here)
            for _ in range(2):
                await pass_time(here.clock, 8 * timedelta(hours=1), step=5 * MINUTE)
                await pass_time(here.clock, timedelta(seconds=10), step=timedelta(seconds=5))  # a report goes out
                staple = stapled(on)
                assert staple
                end = f"{staple.window.not_after:%Y-%m-%dT%H:%M:%SZ}"
                assert await told(here) == [{"agent": AGENT, "next_update": end}]
        await here.operator.send("DELETE", f"/v1/agents/{AGENT}")
        assert await told(here) == []


async def told(here: Site) -> list[dict[str, str]]:
    """Give what the status says of the host's staples."""
    (row,) = (await here.operator.call("GET", "/v1/status", StatusAnswer)).hosts
    staples: list[dict[str, str]] = row["staples"]
    return staples


async def test_with_the_server_away_the_staple_goes_before_it_ends(tmp_path: Path):
    """The host is served without one then. With the server back there is one again, and the finding is over."""
    data = tmp_path / "data"
    async with site(data, FakeClock()) as here:
        port, clock = here.server.api_address[1], here.clock
        await here.apply()
        async with host(tmp_path / "agent", here) as on:
            await on.current(here)
            await here.stack.aclose()
            await pass_time(clock, 55 * MINUTE, server=False, step=5 * MINUTE)
            assert stapled(on)
            await pass_time(clock, 5 * MINUTE, server=False, step=MINUTE)
            await eventually(lambda: [response for _, response in on.envoy.stapled] == [b""])
            assert serials(on)
            assert Reason.STAPLE_FAILED in reasons(on)
            async with site(data, clock, port=port):
                await pass_time(clock, 3 * MINUTE, step=MINUTE / 6)
                await eventually(lambda: stapled(on) is not None)
                assert Reason.STAPLE_FAILED not in reasons(on)


@pytest.mark.parametrize("world", [WORLD, STRICT], ids=["lenient", "must staple"])
async def test_an_agent_that_starts_with_the_server_away_staples_what_it_kept(world: str, tmp_path: Path):
    """It lies on disk beside the certificate."""
    async with site(tmp_path / "data", FakeClock()) as here:
        await here.apply(world)
        async with host(tmp_path / "agent", here) as on:
            await on.current(here)
            await quiet(here.clock)
            before = stapled(on)
        await here.stack.aclose()
        async with host(tmp_path / "agent", here) as on:
            await eventually(lambda: bool(on.envoy.stapled))
            assert before
            assert stapled(on) == before


async def test_a_host_begins_to_demand_and_ceases_to(tmp_path: Path):
    """With the next world each time, without a moment in which Envoy is told of a certificate that it would not take."""
    async with site(tmp_path, FakeClock()) as here:
        await here.apply()
        async with host(tmp_path / "agent", here) as on:
            for world, demanded in ((WORLD, False), (STRICT, True), (WORLD, False)):
                await here.apply(world)
                await on.current(here)
                await eventually(lambda wanted=demanded: demands(on) is wanted)  # type: ignore[misc]
                assert stapled(on)
            assert on.envoy.unfit == []


async def test_a_certificate_that_demands_is_in_service_with_its_first_staple_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """While the server can make none, the certificate from before serves on; a host that is new is not served yet."""
    other = STRICT + f"  new.{DOMAIN}:\n    must_staple: true\n" + WORLD[WORLD.index("    listen:") :]

    async def broken(_: object) -> None:
        raise Unavailable("the key cannot be used now")

    async with site(tmp_path, FakeClock()) as here:
        await here.apply()
        async with host(tmp_path / "agent", here) as on:
            await on.current(here)
            before = serials(on)
            with monkeypatch.context() as patched:
                patched.setattr(Responder, "ensure", broken)
                await here.apply(other)
                await on.current(here)
                assert serials(on) == before
                assert not demands(on)
                assert Reason.RENEWAL_FAILED in reasons(on)
            await pass_time(here.clock, MINUTE, step=MINUTE / 6)
            await eventually(lambda: len(on.envoy.stapled) == 2)
            assert not set(serials(on)) & set(before)
            assert all(response for _, response in on.envoy.stapled)
            assert on.envoy.unfit == []


@pytest.mark.parametrize("world", [WORLD, STRICT], ids=["lenient", "must staple"])
async def test_a_revoked_host_gets_another_certificate_at_once(world: str, tmp_path: Path):
    """Without a clock's tick, and with a staple of its own."""
    async with site(tmp_path, FakeClock()) as here:
        await here.apply(world)
        async with host(tmp_path / "agent", here) as on:
            await on.current(here)
            (before,) = serials(on)
            await here.operator.send("POST", "/v1/revocations", RevocationRequest(serial=before))
            await eventually(lambda: serials(on) != [before])
            staple = stapled(on)
            assert staple
            assert [staple.serial] == serials(on) != [before]
            assert on.envoy.unfit == []
