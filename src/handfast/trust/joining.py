"""Who may join under an agent's name.

Decides by the name that a join token was made for, and by whether the name was given before. A name stands for what its gateway has:
certificates for its hosts, and the word of its reports. So it goes to another key only where an operator named it. Refuses to know
what became of the agent that had it: alive, expired, revoked and forgotten are one answer, as each can be undone or is a guess.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Grant:
    """A join token that was used: its public id, and the name that it was made for; empty where it is for any new one."""

    id: str
    agent: str


@dataclass(frozen=True, slots=True)
class Held:
    """A certificate that an agent's name has: its serial, and who asked for it."""

    serial: str
    requester: str


def refuse_token(name: str, grant: Grant) -> Refusal | None:
    """Refuse a name that is not the one which the token was made for: TOKEN_NOT_VALID."""
    return Refusal(Reason.TOKEN_NOT_VALID) if grant.agent not in {"", name} else None


def refuse_name(name: str, grant: Grant, *, given: bool) -> Refusal | None:
    """Refuse a name that was given before, where the token was not made for it: AGENT_NAME_TAKEN."""
    return Refusal(Reason.AGENT_NAME_TAKEN, {"agent": name}) if given and grant.agent != name else None


def followed(live: Iterable[Held], serial: str) -> list[str] | None:
    """Give the serials that end now, of the ``live`` certificates of a name, newest first: ``serial`` was just given for a token.

    All others end but those that were given for a token later. So of several who join at once under one name the last one stays,
    whoever looks first. None where ``serial`` itself is not among them: another one was the last.
    """
    ours = list(live)
    place = next((place for place, one in enumerate(ours) if one.serial == serial), None)
    if place is None:
        return None
    joined = ours[place].requester
    return [one.serial for at, one in enumerate(ours) if at > place or (at < place and one.requester != joined)]
