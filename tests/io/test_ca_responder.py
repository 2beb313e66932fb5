"""OCSP for issuing CAs, asked and verified by openssl, which knows the root alone."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from handfast.base.refusal import BadInput, Unavailable
from handfast.io.authorities import create_authority
from handfast.io.ca_responder import CaResponder
from handfast.io.generations import Generations
from handfast.io.sealed import Passphrase, is_sealed
from handfast.trust import rotation
from handfast.trust.facts import facts, pem_certificates
from handfast.trust.ocsp import RESPONSE_LIFE, parse_request
from handfast.trust.rotation import Generations as Rows
from handfast.trust.rotation import Step, Verb
from tests.support.clock import FakeClock
from tests.support.offline_root import openssl
from tests.trust.material import DOMAIN

pytestmark = pytest.mark.debian("openssl")
PASSPHRASE = Passphrase(b"correct horse battery staple")


@dataclass
class Here:
    """One authority, its generations as a ledger would know them, and who answers."""

    directory: Path
    clock: FakeClock
    generations: Generations
    responder: CaResponder
    known: Rows
    moved: int = 0

    @property
    def root(self) -> Path:
        return self.directory / "root.pem"

    def place(self, number: int) -> Path:
        return self.directory if number == 1 else self.directory / "generations" / f"{number:04}"

    def go(self, *steps: Step, root: bool = False, compromised: bool = False) -> None:
        """Begin a rotation, and take these steps of it."""
        rows = rotation.begin(self.known, self.clock.now(), root=root, compromised=compromised)
        assert isinstance(rows, tuple)
        self.know(self.generations.make(rows[-1], rows, self.clock.now()))
        for step in steps:
            self.know(rotation.taken(self.known, step, self.clock.now()))

    def know(self, rows: Rows) -> None:
        self.known, self.moved = rows, self.moved + 1
        self.generations.settle(rows)
        self.responder.refresh()

    def question(self, certificate: Path, *more: str, issuer: Path | None = None) -> bytes:
        file = self.directory.parent / "question"
        openssl("ocsp", *more, "-issuer", issuer or self.root, "-cert", certificate, "-reqout", file)
        return file.read_bytes()

    async def ask(self, certificate: Path, *more: str) -> str:
        """Have openssl ask and verify; give what it says."""
        asked = parse_request(self.question(certificate, *more))
        assert self.responder.answers_for(asked)
        file = self.directory.parent / "answer"
        file.write_bytes((await self.responder.answer(asked)).body)
        said = ["-sha256"] if "-sha256" in more else []
        words = [*said, "-no_nonce", "-respin", file, "-CAfile", self.root, "-issuer", self.root, "-cert", certificate]
        done = subprocess.run(["openssl", "ocsp", *words], check=False, capture_output=True, text=True, timeout=30)
        assert "Response verify OK" in done.stderr, done
        return done.stdout


def here_at(directory: Path, passphrase: Passphrase | None = None) -> Here:
    clock = FakeClock(datetime.now(UTC))
    generations = Generations(directory, DOMAIN, passphrase)
    rows = generations.first(clock.now())

    async def known() -> Rows:
        return here.known

    responder = CaResponder(generations, known, clock, lambda: here.moved, passphrase)
    here = Here(directory, clock, generations, responder, rows)
    here.know(rows)
    return here


@pytest.fixture
def here(tmp_path: Path) -> Here:
    create_authority(tmp_path / "authority", DOMAIN, FakeClock(datetime.now(UTC)), PASSPHRASE)
    return here_at(tmp_path / "authority", PASSPHRASE)


PUBLISH, SWITCH, RETIRE = Step(Verb.PUBLISH, 2), Step(Verb.SWITCH, 2), Step(Verb.RETIRE, 1)


@pytest.mark.parametrize("more", [(), ("-no_nonce",), ("-sha256",)], ids=["nonce", "no nonce", "sha256"])
async def test_openssl_asks_about_the_issuing_ca_and_is_told_good(here: Here, more: tuple[str, ...]):
    """By the root alone it verifies who answers; no root's key is needed for that."""
    (here.directory / "root-key.pem").unlink()
    assert ": good" in await here.ask(here.directory / "issuing.pem", *more)


async def test_what_the_root_never_signed_is_unknown(here: Here, tmp_path: Path):
    """Also where its issuer has the name and another key: that is a question for another root."""
    create_authority(tmp_path / "other", DOMAIN, FakeClock(datetime.now(UTC)), None)
    stranger = tmp_path / "other" / "issuing.pem"
    assert ": unknown" in await here.ask(stranger)
    asked = parse_request(here.question(stranger, issuer=tmp_path / "other" / "root.pem"))
    assert not here.responder.answers_for(asked)


async def test_a_compromised_authority_is_revoked_when_it_is_over(here: Here):
    """Good as long as it counts; then revoked, with its reason, and so is the key that answered for it; by the next one's key."""
    old = here.directory / "issuing.pem"
    here.go(PUBLISH, SWITCH, compromised=True)
    assert ": good" in await here.ask(old)
    here.know(rotation.taken(here.known, RETIRE, here.clock.now()))
    for one in (old, here.directory / "ocsp.pem"):
        said = await here.ask(one)
        assert ": revoked" in said
        assert "Reason: cACompromise" in said
    assert ": good" in await here.ask(here.place(2) / "issuing.pem")
    assert not (here.directory / "ocsp-key.pem").exists()


async def test_an_authority_that_is_over_and_was_not_compromised_stays_good(here: Here):
    """Nobody revoked it: it is replaced."""
    here.go(PUBLISH, SWITCH, RETIRE)
    assert ": good" in await here.ask(here.directory / "issuing.pem")


async def test_what_the_ledger_says_counts_at_once(here: Here):
    """Another server may have retired an authority a moment ago, and this one has not settled yet."""
    here.go(PUBLISH, SWITCH, compromised=True)
    here.known = rotation.taken(here.known, RETIRE, here.clock.now())
    assert ": revoked" in await here.ask(here.directory / "issuing.pem")


async def test_each_root_has_its_own(here: Here):
    """While a new root follows an old one, both are answered for, each by who that root let answer."""
    here.go(PUBLISH, root=True)
    assert ": good" in await here.ask(here.directory / "issuing.pem")
    new = Here(here.directory, here.clock, here.generations, here.responder, here.known, here.moved)
    asked = parse_request(here.question(here.place(2) / "issuing.pem", issuer=here.place(2) / "root.pem"))
    assert new.responder.answers_for(asked)
    answer = ocsp.load_der_ocsp_response((await here.responder.answer(asked)).body)
    assert answer.certificate_status is ocsp.OCSPCertStatus.GOOD
    by = x509.load_pem_x509_certificate((here.place(2) / "root.pem").read_bytes())
    answer.certificates[0].verify_directly_issued_by(by)


async def test_a_directory_from_before_has_nobody_who_answers(here: Here):
    """It goes on as it was; the first authority that follows brings one, for the older one as well."""
    for name in ("ocsp.pem", "ocsp-key.pem"):
        (here.directory / name).unlink()
    older = here_at(here.directory, PASSPHRASE)
    asked = parse_request(older.question(here.directory / "issuing.pem"))
    assert not older.responder.answers_for(asked)
    with pytest.raises(Unavailable, match="nobody answers"):
        await older.responder.answer(asked)
    older.go(PUBLISH)
    assert ": good" in await older.ask(here.directory / "issuing.pem")


async def test_nobody_answers_beyond_the_end_of_a_delegation(here: Here):
    """An answer ends with it, too."""
    asked = parse_request(here.question(here.directory / "issuing.pem", "-no_nonce"))
    end = facts(pem_certificates((here.directory / "ocsp.pem").read_text())[0]).window.not_after
    here.clock.set(end - RESPONSE_LIFE / 4)
    assert (await here.responder.answer(asked)).window.not_after == end
    here.clock.set(end)
    here.responder.refresh()
    assert not here.responder.answers_for(asked)


async def test_an_answer_is_given_again_until_something_changes(here: Here):
    """The same octets for half an hour; none is kept for a nonce, nor past a step of a rotation."""
    asked = parse_request(here.question(here.directory / "issuing.pem", "-no_nonce"))
    nonced = parse_request(here.question(here.directory / "issuing.pem"))
    first = await here.responder.answer(asked)
    assert await here.responder.answer(asked) is first
    assert await here.responder.answer(nonced) is not await here.responder.answer(nonced)
    here.go(PUBLISH)
    assert await here.responder.answer(asked) is not first
    second = await here.responder.answer(asked)
    here.clock.set(here.clock.now() + timedelta(minutes=31))
    assert await here.responder.answer(asked) is not second


async def test_a_ledger_that_does_not_answer_is_unavailable(here: Here):
    """Nothing is said of what nobody could look up."""

    async def away() -> Rows:
        raise Unavailable("the ledger is away")

    here.responder.rows = away
    with pytest.raises(Unavailable):
        await here.responder.answer(parse_request(here.question(here.directory / "issuing.pem")))


def test_its_key_is_sealed_and_private_as_the_issuing_key_is(here: Here):
    """Whoever has it could say that a stolen authority is good."""
    key = here.directory / "ocsp-key.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    assert is_sealed(key.read_bytes())
    certificate = facts(pem_certificates((here.directory / "ocsp.pem").read_text())[0])
    issuing = facts(pem_certificates((here.directory / "issuing.pem").read_text())[0])
    assert certificate.window.not_after <= issuing.window.not_after
    assert certificate.ekus == ("1.3.6.1.5.5.7.3.9",)


@pytest.mark.parametrize("other", ["issuing", "stranger"])
def test_a_certificate_that_lets_nobody_answer_is_named(here: Here, tmp_path: Path, other: str):
    """Put there by somebody, or by mistake: nothing is signed with it."""
    create_authority(tmp_path / "other", DOMAIN, FakeClock(datetime.now(UTC)), PASSPHRASE)
    source = here.directory / "issuing.pem" if other == "issuing" else tmp_path / "other" / "ocsp.pem"
    (here.directory / "ocsp.pem").write_bytes(source.read_bytes())
    with pytest.raises(BadInput, match="may answer OCSP") as caught:
        here_at(here.directory, PASSPHRASE)
    assert caught.value.file.endswith("ocsp.pem")


async def test_what_an_offline_roots_list_revokes_is_revoked(here: Here):
    """Its keeper revoked something else: the list is all that is known of that here."""
    with_list = here.generations._root(1)
    gone = rotation.by_number(here.known, 1)
    text = with_list.crl(here.clock.now(), list(here.generations._entries(gone, here.clock.now())), 7)
    (here.directory / "root.crl.pem").write_text(text)
    here.responder.refresh()
    listed = x509.load_pem_x509_crl(text.encode())
    assert len(listed) == 2
    assert listed.public_bytes(Encoding.DER)
    assert ": revoked" in await here.ask(here.directory / "issuing.pem")
