from __future__ import annotations

from pathlib import Path

from handfast.io.responder import Responder
from handfast.io.responders import Responders
from handfast.io.sealed import Passphrase, is_sealed
from handfast.trust.facts import CertificateFacts
from handfast.trust.ocsp import question
from tests.io.status_parts import Parts, parts


class OneIssuer:
    """The authorities of an installation that has one, until it goes."""

    def __init__(self, here: Parts) -> None:
        self.current, self.gone = here.authority, False

    def by_issuer(self, key_id: str) -> object:
        known = key_id == self.current.issuer_facts.key_id.hex()
        return self.current if known and not self.gone else None


def responders(here: Parts, adopted: list[str], passphrase: Passphrase | None = None) -> Responders:
    async def note(seen: CertificateFacts) -> None:
        adopted.append(seen.serial)

    authorities: object = OneIssuer(here)
    return Responders(
        authorities, here.ledger, here.table, here.clock, here.directory / "status", passphrase, note  # type: ignore[arg-type]
    )  # fmt: skip


async def test_an_issuer_has_one_responder(tmp_path: Path):
    """Whoever asks for it, and however; its key is made when it is first needed, and lies in a directory of its own."""
    async with parts(tmp_path) as here:
        adopted: list[str] = []
        made = responders(here, adopted)
        assert not (tmp_path / "status").exists()
        key_id = here.authority.issuer_facts.key_id.hex()
        found = made.by_issuer(key_id)
        assert isinstance(found, Responder)
        assert made.of(here.authority) is made.current() is found
        issued = await here.issue()
        answer = await found.answer(question(here.authority.issuer_facts, issued.serial))
        assert answer.said == ("good",)
        file = tmp_path / "status" / f"ocsp-{key_id}.pem"
        assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        assert len(adopted) == 1


async def test_an_issuer_that_does_not_count_has_none(tmp_path: Path):
    """Neither one that was never ours, nor one that is over."""
    async with parts(tmp_path) as here:
        made = responders(here, [])
        assert made.by_issuer("00" * 20) is None
        key_id = here.authority.issuer_facts.key_id.hex()
        assert made.by_issuer(key_id)
        made.authorities.gone = True  # type: ignore[attr-defined]
        assert made.by_issuer(key_id) is None


async def test_its_key_is_sealed_where_the_authoritys_are(tmp_path: Path):
    """With the same passphrase."""
    async with parts(tmp_path) as here:
        made = responders(here, [], Passphrase(b"correct horse battery staple"))
        await made.current().ensure()
        (file,) = (tmp_path / "status").iterdir()
        assert is_sealed(file.read_bytes())
