"""``handfast ca rotate`` and its kin against a real server."""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from handfast.app.server.messages import CertificateAnswer, RenewRequest
from handfast.io.credentials import new_key
from handfast.io.files import read
from handfast.trust.rotation import SETTLE
from tests.app.cli.terminal import handfast, steady
from tests.app.sites import Site, site


async def settle(here: Site) -> None:
    """Let the time pass that every step needs, and the server's own certificate be renewed."""
    for _ in range(12):
        await turn(here)


async def turn(here: Site) -> None:
    """Let the time pass that one step needs."""
    here.clock.set(here.clock.now() + 2 * SETTLE)
    await here.clock.advance(0)
    await here.server._renew()
    await here.server.platform.rotation.go_on()
    await here.clock.advance(0)


async def test_what_ends_with_its_issuer_says_so(here: Site):
    """Beside the true end, for one and for many; `ca status` counts them, the server's own too. A life that fits has no such line."""
    (here.server.config.directory / "authority" / "root-key.pem").unlink()
    end = here.server.platform.authority.issuer_facts.window.not_after
    here.clock.set(end - timedelta(days=3))
    await here.server._renew()
    for words in ("cert issue ledger --ttl 30d", "cert batch names.txt --ttl 30d"):
        await asyncio.to_thread(Path("names.txt").write_text, "payments\n")
        shown = await handfast(*words.split())
        assert shown.code == 0, shown.err
        told = shown.out.splitlines()
        assert f" until {end:%Y-%m-%d %H:%M} UTC, serial " in told[0]
        assert told[1] == "  sooner than was asked for: its issuing CA ends then, see 'handfast ca status'"
    assert "sooner" not in (await handfast("cert", "issue", "web", "--ttl", "1h")).out
    status = (await handfast("ca", "status")).out
    assert "      cut short: 3 end with this CA, sooner than was asked for" in status.splitlines()
    (row,) = json.loads((await handfast("ca", "status", "--json")).out)["generations"]
    assert row["cut_short"] == 3


async def test_a_session_reads_as_it_did(here: Site, golden: Callable[[str, str], None]):
    """A rotation that a lost agent holds up, forced, undone, begun again; with every exit code."""
    told = []

    async def say(words: str) -> None:
        shown = await handfast(*words.split())
        told.append(f"$ handfast {words}\n{shown.out}{shown.err}exit {shown.code}\n")

    await say("ca status")
    await say("ca rotate --back")
    await say("ca rotate --force --strands 1")
    await here.join("lost")
    await say("ca rotate")
    await settle(here)
    await say("ca status")
    await say("ca rotate --root")
    await say("ca rotate --force --strands 2")
    await say("ca rotate --force --strands 1")
    await say("ca rotate --back")
    await say("ca forget-agent lost")
    await say("ca forget-agent lost")
    await settle(here)
    await say("ca rotate --root --compromised")
    await say("ca rotate --root --back")
    await say("events --kind rotation.stepped")
    golden("session.txt", steady("\n".join(told)))


async def test_who_renewed_and_was_not_seen_since_is_told(here: Site):
    """Whoever reads it knows that this one has a certificate already, and need not be looked for."""
    old = await here.issue("payments")
    asked = RenewRequest(csr=new_key().csr_pem)
    await here.holder(old).call("POST", "/v1/certificates/renew", CertificateAnswer, asked)
    await handfast("ca", "rotate")
    await settle(here)
    shown = (await handfast("ca", "status")).out
    (line,) = (line for line in shown.splitlines() if line.startswith("    payments: "))
    assert line.startswith("    payments: 2, until ")
    assert line.endswith("; 1 renewed, and the new one not seen in use yet")


async def test_watching_ends_with_the_rotation(here: Site, monkeypatch: pytest.MonkeyPatch):
    """Each change is shown once; what there is in the end goes to the standard output, as JSON where that is wanted."""
    monkeypatch.setattr("handfast.app.cli.rotation._LOOK_EVERY_S", 0.01)
    watching = asyncio.create_task(handfast("ca", "rotate", "--watch", "--json"))
    while len(here.server.platform.rotation.rows) == 1:
        await asyncio.sleep(0.01)
    for _ in range(40):
        await asyncio.sleep(0.1)  # ten looks at each stage
        await turn(here)
        if watching.done():
            break
    shown = await asyncio.wait_for(watching, 10)
    plain = json.loads(shown.out)
    assert [row["stage"] for row in plain["generations"]] == ["retired", "issuing"]
    changes = shown.err.strip().split("\n\n")
    assert all(before != after for before, after in pairwise(changes))
    assert "issuing CA 2: published since" in changes[0]
    assert "issuing CA 1: retiring since" in changes[-1]


async def test_force_names_who_is_cut_off_and_wants_their_number(here: Site, monkeypatch: pytest.MonkeyPatch):
    """Whoever types another number is refused."""
    await here.join("lost")
    await handfast("ca", "rotate")
    await settle(here)
    for said, code in ((7, 1), (1, 0)):
        monkeypatch.setattr("typer.prompt", lambda *_, _said=said, **__: _said)
        shown = await handfast("ca", "rotate", "--force")
        assert shown.code == code
        assert "agent lost" in shown.err


async def test_a_running_server_is_not_gone_around(here: Site):
    """Two at one ledger would be one too many."""
    assert here.operator
    shown = await handfast("ca", "rotate", "--root", "--offline")
    assert shown.code == 2
    assert "leave --offline out" in shown.err


async def test_what_is_begun_without_a_server_goes_on_at_its_start(here: Site, tmp_path: Path):
    """The new root is made then."""
    clock, data = here.clock, tmp_path / ".handfast"
    await here.stack.aclose()
    shown = await handfast("ca", "rotate", "--root", "--offline")
    assert (shown.code, shown.out) == (0, "generation 2 is prepared; start the server, and it goes on\n")
    assert (await handfast("ca", "rotate", "--root", "--offline")).code == 1
    async with site(data, clock) as again:
        assert read(data / "authority" / "generations" / "0002" / "root.pem").decode() in again.bundle


@pytest.mark.parametrize("words", ["--back --force", "--back --root", "--force --compromised", "--offline --back"])
async def test_what_excludes_each_other_is_said(here: Site, words: str):
    """Before anything happens."""
    shown = await handfast("ca", "rotate", *words.split())
    assert shown.code == 2
    assert len(here.server.platform.rotation.rows) == 1


async def test_a_strange_name_is_no_path(here: Site):
    """A name goes into the request's path."""
    assert here.operator
    assert (await handfast("ca", "forget-agent", "../certificates")).code == 2


async def test_without_a_ledger_nothing_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The directory is named."""
    monkeypatch.chdir(tmp_path)
    shown = await handfast("ca", "rotate", "--offline", "--data", "nowhere")
    assert shown.code == 2
    assert "ledger.sqlite" in shown.err
