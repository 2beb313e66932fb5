"""The three exceptions, and the value of an expected "no".

An expected "no" is a value, `Refusal`. Where ignoring it would be unsafe, `require` turns it into `Refused`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from handfast.base.reasons import Reason

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A "no" with its reason, and what was seen: short texts by name, never key material."""

    reason: Reason
    evidence: Mapping[str, str] = field(default_factory=dict)


class HandfastError(Exception):
    """What all exceptions of Handfast have in common: a sentence, and a hint that says what to do."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Keep the sentence and the hint apart, so that each face can print them its own way."""
        super().__init__(message)
        self.message = message
        self.hint = hint


class Refused(HandfastError):
    """The platform said no, on purpose."""

    def __init__(self, refusal: Refusal) -> None:
        """Take summary and hint from the reason's own entry."""
        super().__init__(refusal.reason.summary, hint=refusal.reason.hint)
        self.refusal = refusal

    def __str__(self) -> str:
        """Give the reason's summary and the evidence."""
        seen = ", ".join(f"{name} {value}" for name, value in self.refusal.evidence.items())
        return f"{self.message} ({seen})" if seen else self.message


class BadInput(HandfastError):
    """What was given cannot be read. Names file, line and key where there are any."""

    def __init__(self, message: str, *, hint: str = "", file: str = "", line: int = 0, key: str = "") -> None:
        """Place the sentence: ``file:line: key: message``."""
        super().__init__(message, hint=hint)
        self.file, self.line, self.key = file, line, key

    def at(self, *, file: str = "", line: int = 0, key: str = "") -> BadInput:
        """Give the same error with a place, where it has none yet."""
        return BadInput(
            self.message, hint=self.hint, file=self.file or file, line=self.line or line, key=self.key or key
        )

    def __str__(self) -> str:
        """Give the sentence with its place in front."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.key, self.message) if part)


class Unavailable(HandfastError):
    """Something that is needed does not answer. Trying again later may help."""


def require(outcome: T | Refusal) -> T:
    """Give the outcome, or raise.

    Raises:
        Refused: it is a refusal.
    """
    if isinstance(outcome, Refusal):
        raise Refused(outcome)
    return outcome
