import io
import json
from pathlib import Path

import pytest

from handfast.base.reasons import Reason
from handfast.base.refusal import Unavailable
from handfast.io.authorities import Authority
from handfast.io.database import step
from tests.app.cli.terminal import handfast
from tests.app.sites import Site
from tests.support.ledger import revoked_live
from tests.support.pki import Pki


async def revoked(here: Site) -> set[str]:
    return {one.serial for one in await revoked_live(here.server.platform.ledger, here.clock.now())}


async def test_one_certificate_needs_no_question_in_a_script(here: Site):
    """What was hit is said, and nothing else."""
    held = await here.issue("payments")
    shown = await handfast("cert", "revoke", "payments", "--reason", "superseded")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out == f"revoked spiffe://example.org/payments, serial {held.leaf.serial}, superseded\n"
    assert await revoked(here) == {held.leaf.serial}


async def test_more_than_one_needs_a_yes(here: Site):
    """A script that means several says so; else it gets the list and nothing happens."""
    held = {(await here.issue(f"team/{n}")).leaf.serial for n in range(25)}
    shown = await handfast("cert", "revoke", "team/*")
    assert (shown.code, shown.out) == (2, "")
    assert "this would revoke 25 certificates" in shown.err
    assert "… and 5 more" in shown.err
    assert "--yes" in shown.err
    assert await revoked(here) == set()
    shown = await handfast("cert", "revoke", "team/*", "--yes")
    assert shown.code == 0
    assert shown.out.endswith("25 certificates are revoked\n")
    assert await revoked(here) == held


async def test_a_key_that_is_away_is_no_reason_to_stop(here: Site, monkeypatch: pytest.MonkeyPatch):
    """What was revoked counts; that lists do not have it yet is said."""

    async def away(*_: object) -> str:
        raise Unavailable("the token is away")

    monkeypatch.setattr(Authority, "crl", away)
    held = {(await here.issue(f"team/{n}")).leaf.serial for n in range(3)}
    shown = await handfast("cert", "revoke", "team/*", "--yes")
    assert shown.code == 0
    assert shown.out.endswith("3 certificates are revoked\n")
    assert shown.err.endswith("revocation lists do not have it yet, and the server goes on trying: the token is away\n")
    assert await revoked(here) == held


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("\n", 1), ("y\n", 0)])
async def test_a_person_is_asked(here: Site, monkeypatch: pytest.MonkeyPatch, answer: str, code: int):
    """On a terminal, also for one; anything but yes changes nothing."""
    held = await here.issue("payments")
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    shown = await handfast("cert", "revoke", "payments")
    assert shown.code == code
    assert shown.err.startswith("to be revoked: 1 certificate\n")
    assert held.leaf.serial in shown.err
    assert await revoked(here) == (set() if code else {held.leaf.serial})


async def test_a_certificate_is_named_in_every_way(here: Site):
    """Its file, its fingerprint, its serial with colons."""
    for number, name in enumerate(("file", "print", "serial")):
        held = await here.issue(f"w{number}")
        Path("cert.pem").write_text(held.chain_pem)
        serial = held.leaf.serial
        colons = ":".join(serial[at : at + 2].upper() for at in range(0, len(serial), 2))
        what = {"file": "cert.pem", "print": held.leaf.fingerprint, "serial": colons}[name]
        assert (await handfast("cert", "revoke", what)).code == 0
        assert serial in await revoked(here)


async def test_an_agent_and_an_issuer_are_options(here: Site):
    """What an agent got goes as one; so does what an authority issued."""
    await here.join()
    assert (await handfast("cert", "revoke", "--agent", "edge")).code == 0
    await here.issue("a")
    key = here.server.platform.authority.issuer_facts.key_id.hex(":").upper()
    shown = await handfast("cert", "revoke", "--issuer", key, "--yes", "--json")
    assert {row["name"] for row in json.loads(shown.out)} == {"a", "handfast/server"}


@pytest.mark.parametrize(
    "words", [[], ["a", "--agent", "b"], ["--agent", "a", "--issuer", "00"], ["a", "--reason", "certificateHold"]]
)
async def test_what_makes_no_sense_is_two(here: Site, words: list[str]):
    """Exactly one thing to revoke, and a reason that there is."""
    await here.issue("a")
    assert (await handfast("cert", "revoke", *words)).code == 2
    assert await revoked(here) == set()


async def test_a_foreign_certificate_is_not_found(here: Site):
    """A file of another authority's hits nothing, though its serial were one of ours."""
    assert here
    Path("x.pem").write_bytes(Pki().leaf().cert_pem)
    shown = await handfast("cert", "revoke", "x.pem")
    assert shown.code == 1
    assert Reason.NOT_FOUND.summary in shown.err


async def test_a_file_is_enough_where_the_ledger_has_lost_its_certificate(here: Site):
    """As after an old backup was restored: once it is revoked, a second time is refused as always."""
    held = await here.issue("payments")
    await here.server.platform.ledger._db.write(step("delete from certificates where serial = $1", held.leaf.serial))
    Path("cert.pem").write_text(held.chain_pem)
    assert (await handfast("cert", "revoke", held.leaf.serial)).code == 1
    shown = await handfast("cert", "revoke", "cert.pem", "--reason", "superseded")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out == f"revoked spiffe://example.org/payments, serial {held.leaf.serial}, superseded\n"
    assert await revoked(here) == {held.leaf.serial}
    assert Reason.ALREADY_REVOKED.summary in (await handfast("cert", "revoke", "cert.pem")).err
