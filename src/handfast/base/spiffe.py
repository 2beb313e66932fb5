"""SPIFFE identifiers, as the SPIFFE-ID document defines them (sections 2.1 to 2.3).

Decides what a trust domain and a SPIFFE id are. Refuses to know where an id came from: reading one out of a certificate
is the business of `handfast.access.identify`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from handfast.base.refusal import BadInput

MAX_ID_BYTES = 2048
MAX_TRUST_DOMAIN_BYTES = 255
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+", re.ASCII)
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_SCHEME = "spiffe://"


@dataclass(frozen=True, slots=True, order=True)
class TrustDomain:
    """A trust domain's name, such as ``example.org``: lower case letters, digits, dots, dashes, underscores.

    Raises:
        BadInput: the name is empty, longer than 255 bytes, or has another character.
    """

    name: str

    def __post_init__(self) -> None:
        """Refuse what SPIFFE-ID section 2.1 refuses."""
        if len(self.name) > MAX_TRUST_DOMAIN_BYTES or not _TRUST_DOMAIN.fullmatch(self.name):
            raise BadInput(
                f"{self.name[:80]!r} is not a trust domain",
                hint="use lower case letters, digits, dots, dashes and underscores, 255 at most",
            )

    def __str__(self) -> str:
        """Give the bare name."""
        return self.name

    def id(self, path: str) -> SpiffeId:
        """Give the id of ``path`` (``payments`` or ``team/payments``) in this trust domain."""
        return SpiffeId(self, f"/{path}")


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """One identity: a trust domain and a path that begins with ``/``.

    Raises:
        BadInput: the path has an empty, ``.`` or ``..`` segment, another character, or the whole is over 2048 bytes.
    """

    trust_domain: TrustDomain
    path: str

    def __post_init__(self) -> None:
        """Refuse what SPIFFE-ID section 2.2 refuses."""
        head, *segments = self.path.split("/")
        if head or not segments or not all(_SEGMENT.fullmatch(s) and s not in {".", ".."} for s in segments):
            raise BadInput(
                f"{self.path[:80]!r} is not a SPIFFE path",
                hint="segments hold letters, digits, dots, dashes and underscores, and none is empty, '.' or '..'",
            )
        if len(str(self)) > MAX_ID_BYTES:
            raise BadInput(f"the SPIFFE id is longer than {MAX_ID_BYTES} bytes", hint="shorten the path")

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Read ``spiffe://trust-domain/path``.

        Raises:
            BadInput: it is not a SPIFFE id with a path.
        """
        if not text.startswith(_SCHEME):
            raise BadInput(f"{text[:80]!r} is not a SPIFFE id", hint="it begins with 'spiffe://'")
        domain, slash, path = text.removeprefix(_SCHEME).partition("/")
        return cls(TrustDomain(domain), slash + path)

    @property
    def name(self) -> str:
        """The path without its first slash: what a user calls the workload."""
        return self.path[1:]

    def __str__(self) -> str:
        """Give the URI form."""
        return f"{_SCHEME}{self.trust_domain.name}{self.path}"
