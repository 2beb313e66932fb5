"""The slice: all that one agent needs to know of the world, and nothing more.

It is what the server sends to an agent, what the agent keeps on disk, and what the translator turns into Envoy's resources.
"""

from __future__ import annotations

from dataclasses import dataclass

from handfast.access.world import World


@dataclass(frozen=True, slots=True)
class Slice:
    """One version of what an agent knows. ``digest`` names the content of all other fields.

    ``roots`` are what client certificates are verified against; ``issuers`` are CA certificates known here, used to explain
    a chain and never to trust one; ``crls`` cover every CA in ``issuers``, and are empty while nothing is revoked. All are
    PEM texts. ``denied`` are SHA-256 fingerprints (lower case hex) of revoked certificates that have not expired.
    """

    digest: str
    revision: int
    world: World
    roots: tuple[str, ...]
    issuers: tuple[str, ...]
    crls: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
