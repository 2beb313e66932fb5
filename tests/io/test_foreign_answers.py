from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from handfast.access.authority import ForeignAuthority, Revocation
from handfast.base.refusal import BadInput
from handfast.io import foreign_answers
from handfast.io.foreign_answers import MOST_OCTETS, Answer, ForeignAnswers
from handfast.trust.facts import fingerprint
from handfast.trust.foreign import read_ca
from handfast.trust.foreign_ocsp import WITHOUT_END_S, Question, judge_ocsp
from handfast.trust.standing import Standing, Word
from tests.support.ocsp import GOOD, REVOKED, UNKNOWN, Saying, answer
from tests.support.partners import authority, partner
from tests.support.pki import Issued

ACME, BETA = partner("Acme"), partner("Beta")
LEAF = ACME.leaf("alice")
CA = read_ca(ACME.issuing.cert_der)
NONCE = bytes(range(32))
OWNER = ForeignAuthority("acme", (CA,), ("a.test",), (), Revocation(ocsp="http://a"))
WORDS = {Word.GOOD: GOOD, Word.REVOKED: REVOKED, Word.UNKNOWN: UNKNOWN}
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Shelf:
    """The answers in a directory. Each look is that of a process that begins anew."""

    directory: Path

    def keep(self, leaf: Issued, word: Word = Word.GOOD, *, end: bool = True, by: Issued = ACME.issuing) -> Answer:
        """Keep a fresh answer, as somebody who has just begun would."""
        now = datetime.now(UTC)
        said = Saying(word=WORDS[word], nonce=NONCE, until=HOUR if end else None)
        asked = Question(leaf.cert.serial_number, read_ca(by.cert_der), NONCE)
        raw = answer(leaf.cert, by, said)
        judged = judge_ocsp(raw, asked, now)
        assert isinstance(judged, Standing)
        made = Answer(asked, now, raw, judged)
        ForeignAnswers(self.directory).keep(OWNER, fingerprint(leaf.cert_der), made)
        return made

    def recall(self, leaf: Issued = LEAF, owner: ForeignAuthority = OWNER, *, after: timedelta = timedelta()) -> Word | None:  # fmt: skip
        now, serial = datetime.now(UTC) + after, leaf.cert.serial_number
        found = ForeignAnswers(self.directory).recall(owner, fingerprint(leaf.cert_der), CA, serial, now)
        return found.word if found else None

    @property
    def files(self) -> list[Path]:
        return [one for one in self.directory.rglob("*") if one.is_file()]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "partners" / "answers")


@pytest.mark.parametrize("word", list(Word))
def test_an_answer_outlives_the_process(shelf: Shelf, word: Word):
    """It says then what it said; of anybody else it says nothing, and nobody but us can read it."""
    kept = shelf.keep(LEAF, word)
    now = datetime.now(UTC)
    found = ForeignAnswers(shelf.directory).recall(OWNER, fingerprint(LEAF.cert_der), CA, LEAF.cert.serial_number, now)
    assert found == kept.standing
    assert shelf.recall(ACME.leaf("bob")) is None
    (file,) = shelf.files
    assert [one.stat().st_mode & 0o077 for one in (file, file.parent, shelf.directory)] == [0] * 3


def test_what_is_over_is_removed_and_a_revocation_never_is(shelf: Shelf):
    """Neither time nor a restart makes anybody good again."""
    shelf.keep(LEAF)
    assert shelf.recall(after=2 * HOUR) is None
    assert shelf.files == []
    shelf.keep(LEAF, Word.REVOKED)
    assert shelf.recall(after=20 * HOUR) is Word.REVOKED


def test_an_answer_without_an_end_is_no_younger_after_a_restart(shelf: Shelf):
    """Its time began when it was given, not when it is read."""
    shelf.keep(LEAF, end=False)
    assert shelf.recall(after=timedelta(seconds=WITHOUT_END_S - 5)) is Word.GOOD
    assert shelf.recall(after=timedelta(seconds=WITHOUT_END_S + 1)) is None


def test_an_answer_of_the_future_says_nothing_good(shelf: Shelf):
    """Where the clock went back nobody knows what was meant; who was revoked stays so."""
    shelf.keep(LEAF)
    assert shelf.recall(after=-HOUR) is None
    assert shelf.recall() is Word.GOOD
    shelf.keep(LEAF, Word.REVOKED)
    assert shelf.recall(after=-HOUR) is Word.REVOKED


@pytest.mark.parametrize("octets", [b"", b"x", b"\0" * 30000, b"1 00\n", b"99999999999 " + b"0" * 64 + b"\n\x30\x00"])
def test_what_is_damaged_is_removed(shelf: Shelf, octets: bytes):
    """And asked for again."""
    shelf.keep(LEAF)
    (file,) = shelf.files
    file.write_bytes(octets)
    assert shelf.recall() is None
    assert shelf.files == []


def test_every_octet_of_a_kept_answer_counts(shelf: Shelf):
    """Whoever changes a file makes nobody good: neither one who was revoked, nor by another's answer."""
    shelf.keep(LEAF, Word.REVOKED)
    (file,) = shelf.files
    sound = file.read_bytes()
    for at in range(0, len(sound), 7):
        file.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        file.chmod(0o600)
        assert shelf.recall() in {None, Word.REVOKED}
    other = ACME.leaf("bob")
    shelf.keep(other)
    (bobs,) = (one for one in shelf.files if one.name == fingerprint(other.cert_der))
    bobs.rename(file)
    assert shelf.recall() is None


def test_an_answer_that_others_could_have_written_does_not_count(shelf: Shelf):
    """A file that is open to them is no answer of ours."""
    shelf.keep(LEAF)
    (file,) = shelf.files
    file.chmod(0o666)
    assert shelf.recall() is None


def test_an_answer_belongs_to_chain_and_responder(shelf: Shelf):
    """Another of either knows nothing, and takes what was kept away."""
    shelf.keep(LEAF)
    others = (
        replace(OWNER, revocation=Revocation(ocsp="http://b")),
        replace(OWNER, cas=(CA, read_ca(authority("Acme Root").cert_der))),
        replace(OWNER, name="beta"),
    )
    assert [shelf.recall(owner=one) for one in others] == [None] * 3
    assert shelf.recall(owner=replace(OWNER, hosts=())) is Word.GOOD
    answers = ForeignAnswers(shelf.directory)
    answers.follow({"acme": OWNER})
    assert shelf.recall() is Word.GOOD
    (shelf.directory / "not ours").mkdir()
    answers.follow({"acme": others[0]})
    assert shelf.files == []
    assert (shelf.directory / "not ours").is_dir()


def test_an_answer_that_says_the_same_is_not_written_again(shelf: Shelf):
    """Until half of the kept one's time is over; another word is, at once."""
    made, answers, name = shelf.keep(LEAF), ForeignAnswers(shelf.directory), fingerprint(LEAF.cert_der)
    answers.keep(OWNER, name, made)
    (file,) = shelf.files
    os.utime(file, (1, 1))
    answers.keep(OWNER, name, made)
    assert file.stat().st_mtime == 1
    longer = replace(made.standing, until=made.standing.until + 3600 * 3)
    answers.keep(OWNER, name, replace(made, standing=longer))
    assert file.stat().st_mtime > 1
    os.utime(file, (1, 1))
    answers.keep(OWNER, name, replace(made, standing=replace(longer, word=Word.UNKNOWN)))
    assert file.stat().st_mtime > 1


def test_answers_are_bounded(shelf: Shelf, monkeypatch: pytest.MonkeyPatch):
    """The oldest goes first, also by one who begins anew; one that is too large is not kept, nor what was there before it."""
    monkeypatch.setattr(foreign_answers, "MOST_KEPT", 3)
    leaves = [ACME.leaf(f"c{one}") for one in range(5)]
    for at, leaf in enumerate(leaves):
        shelf.keep(leaf)
        next(one for one in shelf.files if one.name == fingerprint(leaf.cert_der)).touch()
        os.utime(next(one for one in shelf.files if one.name == fingerprint(leaf.cert_der)), (at, at))
    assert [shelf.recall(one) for one in leaves] == [None, None, Word.GOOD, Word.GOOD, Word.GOOD]
    made = shelf.keep(leaves[4])
    large = replace(made, raw=made.raw + b"x" * MOST_OCTETS)
    ForeignAnswers(shelf.directory).keep(OWNER, fingerprint(leaves[4].cert_der), large)
    assert shelf.recall(leaves[4]) is None


def test_what_cannot_be_written_leaves_nothing_older(shelf: Shelf):
    """A revocation that finds no room must not leave a good word behind."""
    made = shelf.keep(LEAF)
    (file,) = shelf.files
    file.with_suffix(".new").mkdir()
    revoked = replace(made, standing=replace(made.standing, word=Word.REVOKED))
    with pytest.raises(BadInput):
        ForeignAnswers(shelf.directory).keep(OWNER, file.name, revoked)
    assert shelf.recall() is None


@pytest.mark.parametrize("fault", ["no room", "too large"])
def test_a_revocation_stays_until_something_takes_its_place(shelf: Shelf, fault: str):
    """A later one that says the same and cannot be kept takes nothing away: a restart must not bring anybody back."""
    made = shelf.keep(LEAF, Word.REVOKED)
    (file,) = shelf.files
    if fault == "no room":
        file.with_suffix(".new").mkdir()
        with pytest.raises(BadInput):
            ForeignAnswers(shelf.directory).keep(OWNER, file.name, made)
    else:
        ForeignAnswers(shelf.directory).keep(OWNER, file.name, replace(made, raw=made.raw + b"x" * MOST_OCTETS))
    assert shelf.recall() is Word.REVOKED
