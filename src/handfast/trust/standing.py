"""How a certificate stands with its own authority: a word, since when, and for how long it counts.

Decides which of two words is gone by, and when to ask again. Refuses to know who said it, and what becomes of a certificate of
which nothing is known: that is the operator's to say (``when_unknown``). The law of this file: a word that somebody plays back
takes the place of none that came later, and "revoked" gives way to a later "good" alone, neither to time nor to silence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

AGAIN_S = 5
"""After a question without an answer that can be used, so long nobody asks for the same certificate."""
LATEST_S = 60
"""Somebody asks anew after so long, whatever an answer says. A clock that was set back must not stretch it."""


class Word(StrEnum):
    """What an authority says of a certificate of its own, or that it is not known."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one certificate. All times are Unix seconds.

    ``since`` is when the word was true, ``until`` when it ends, ``renew`` when to ask again.
    """

    word: Word
    since: int
    until: int
    renew: int

    def counts(self, now: int) -> bool:
        """Tell whether the word may still be gone by. That of a revocation has no end."""
        return self.word is Word.REVOKED or now < self.until

    def settled(self, now: int) -> bool:
        """Tell whether nobody needs to ask yet: not knowing is settled for a while too."""
        return now < self.renew <= now + LATEST_S and (self.word is Word.UNKNOWN or self.counts(now))


def later(held: Standing | None, said: Standing | None, now: int) -> Standing:
    """Give what counts after a question. ``said`` is None where no answer came that can be used."""
    if held is None or not held.counts(now):
        return said or Standing(Word.UNKNOWN, 0, now, now + AGAIN_S)
    if said is None:
        return replace(held, renew=now + AGAIN_S)
    return said if _prevails(said, held) else replace(held, renew=said.renew)


def _prevails(said: Standing, held: Standing) -> bool:
    if held.word is Word.REVOKED and said.word is not Word.REVOKED:
        return said.word is Word.GOOD and said.since > held.since
    return said.since >= held.since
