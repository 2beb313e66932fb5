"""The bodies by which an agent asks how a certificate of another authority stands.

Decides their form and bounds. Refuses to know who answers.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from handfast.app.server.messages import Message
from handfast.trust.standing import Word


class StandingRequest(Message):
    """Ask for a certificate (PEM, the leaf alone) of an authority of the world file, by that authority's name there."""

    authority: Annotated[str, Meta(max_length=64)]
    certificate: Annotated[str, Meta(max_length=128 * 1024)]


class StandingAnswer(Message):
    """What is known of it. Times are Unix seconds: since when and until when the word counts, when to ask again."""

    word: Word
    since: int
    until: int
    renew: int
