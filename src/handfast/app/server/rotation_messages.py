"""The bodies of the operations on authorities."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from handfast.app.server.messages import Message


class RotationRequest(Message):
    """Begin a rotation: of the issuing CA, or of the root with it. ``compromised``: the issuing key may be in other hands."""

    root: bool = False
    compromised: bool = False


class RotationForce(Message):
    """Take the step that is held up. ``strands`` is how many agents and leaves that cuts off, as the caller knows it."""

    strands: Annotated[int, Meta(ge=1)]


class GenerationRow(Message):
    """One issuing CA with its root. ``leaves`` are live ones; ``renew_at`` is when the next one begins by itself, if it ever does.

    Of the leaves, ``cut_short`` end when the issuing CA does, and ``copies`` were renewed and are in use again.
    """

    number: int
    root: int
    stage: str
    since: datetime
    issuer: str
    ends: datetime | None
    root_ends: datetime | None
    compromised: bool
    leaves: int
    last_leaf_ends: datetime | None
    renew_at: datetime | None = None
    cut_short: int = 0
    copies: int = 0


class HeldBy(Message):
    """An agent that has not taken the newest slice, and when it was last heard of."""

    agent: str
    last_seen: datetime


class HolderRow(Message):
    """Who holds live leaves: how many, and the end of the last.

    Of ``renewed`` the holder got a successor that it was not seen to use, of ``copies`` it did, and the old one is in use again.
    """

    name: str
    leaves: int
    until: datetime
    renewed: int
    copies: int = 0


class WaitingRow(Message):
    """A step that waits. ``strands`` is how many would be cut off by it now; ``holders`` are some who hold the leaves."""

    step: str
    generation: int
    strands: int
    agents: list[HeldBy]
    leaves: int
    names: list[str]
    leaves_until: datetime | None
    not_before: datetime | None
    holders: list[HolderRow]


class AuthoritiesAnswer(Message):
    """All authorities of the trust domain, and what a rotation waits for. ``bundle`` are the roots that are delivered, PEM."""

    trust_domain: str
    bundle: str
    generations: list[GenerationRow]
    waiting: list[WaitingRow]
    fault: str = ""
