"""A server that dies between any two steps of a rotation goes on."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from handfast.app.server.rotation_messages import AuthoritiesAnswer
from handfast.io.generations import Generations
from handfast.io.ledger.rotation import Rotations
from handfast.trust.facts import pem_certificates
from handfast.trust.rotation import SETTLE
from tests.app.server.rotations import LONG_AFTER, renew, rotate, seen, settled, stages
from tests.app.sites import site
from tests.support.clock import FakeClock
from tests.support.ledger import Crash

pytestmark = pytest.mark.usefixtures("timeless_tls")


@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("seam", range(20))
async def test_a_server_that_dies_anywhere_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seam: int, root: bool
):
    """Before and after each file, state and slice: the next start ends the rotation, and all that was issued stays good."""
    clock = FakeClock()
    passed = 0

    def dying(inner: Callable[..., object]) -> Callable[..., object]:
        def at() -> None:
            nonlocal passed
            passed += 1
            if passed - 1 == seam:
                raise Crash

        def plain(*args: object, **more: object) -> object:
            at()
            done = inner(*args, **more)
            at()
            return done

        async def waiting(*args: object, **more: object) -> object:
            at()
            done = await inner(*args, **more)  # type: ignore[misc]
            at()
            return done

        return waiting if inner.__name__ == "save" else plain

    async with site(tmp_path, clock) as here:
        held = await here.issue("ledger", ttl_seconds=7 * 86400)
        rotation = here.server.platform.rotation
        with monkeypatch.context() as patched:
            for owner, name in ((Generations, "make"), (Generations, "settle"), (Rotations, "save")):
                patched.setattr(owner, name, dying(getattr(owner, name)))
            with suppress(Crash):
                await rotation.begin(root=root, compromised=False, requester="uid:0")
                for _ in range(4):
                    clock.set(clock.now() + 2 * SETTLE)
                    await rotation.go_on()
    crashed = passed > seam
    async with site(tmp_path, clock) as here:
        if not rotation_began(await seen(here)):
            assert crashed
            await rotate(here, root=root)
        await renew(here.holder(held))
        here.clock.set(here.clock.now() + LONG_AFTER)
        for _ in range(3):
            answer = await settled(here)
        assert stages(answer) == ["retired", "issuing"]
        assert len(pem_certificates(here.bundle)) == 1
        keys = {path.name for path in (tmp_path / "authority").glob("*-key.pem")}
        assert keys == (set() if root else {"root-key.pem"})


_DYING = """
import asyncio, os, signal, sys
from pathlib import Path
from handfast.app.server.build import ServerConfig, build_server
from handfast.base.spiffe import TrustDomain
from handfast.io.clock import SystemClock
from handfast.io.ledger.rotation import Rotations

async def main():
    here = ("127.0.0.1", 0)
    config = ServerConfig(directory=Path(sys.argv[1]), trust_domain=TrustDomain("example.org"), api=here, admin=here)
    server, save, saved = await build_server(config, SystemClock()), Rotations.save, []

    async def dying(*args):
        done = await save(*args)
        saved.append(done)
        if len(saved) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    Rotations.save = dying
    await server.platform.rotation.begin(root=True, compromised=False, requester="uid:0")

asyncio.run(main())
"""


@pytest.mark.parametrize(("step", "stage"), [(1, "prepared"), (2, "prepared"), (3, "published")])
async def test_a_server_that_is_killed_goes_on(tmp_path: Path, step: int, stage: str):
    """A real process and a real kill, right after each step is in the ledger."""
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", _DYING, str(tmp_path), str(step))
    assert await asyncio.wait_for(killed.wait(), 60) == -signal.SIGKILL
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as ledger:
        assert ledger.execute("select stage from generations where number = 2").fetchone() == (stage,)
    async with site(tmp_path) as here:
        here.clock.set(here.clock.now() + LONG_AFTER)
        assert stages(await settled(here)) == ["retired", "issuing"]
        assert (await here.issue("payments")).bundle_pem == here.bundle


def rotation_began(answer: AuthoritiesAnswer) -> bool:
    return len(answer.generations) > 1
