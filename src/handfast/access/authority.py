"""Authorities that are not ours, as the world names them: whose certificates get which names.

Decides what a rule of such an authority matches, and the name that it gives. Refuses to judge chains: that is
`handfast.trust.foreign`. The first rule that matches decides. What a certificate says becomes part of a name only as a whole
segment that SPIFFE allows, so nobody can write himself a path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from handfast.access.policy import IdentityPattern
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.base.spiffe import MAX_ID_BYTES, SpiffeId, TrustDomain
from handfast.trust import der
from handfast.trust.foreign import OID_FIELDS, Attributes, ForeignCa

SPIFFE_SEGMENT = re.compile(rb"[A-Za-z0-9._-]+")
_SPIFFE = "spiffe:"


class Kind(StrEnum):
    """What of a value has to be as written: all of it, nothing, its beginning, its end."""

    EXACT = "exact"
    ANY = "any"
    PREFIX = "prefix"
    SUFFIX = "suffix"


@dataclass(frozen=True, slots=True)
class Condition:
    """What one field must hold. ``text`` has no ``*``: a prefix ends with ``/``, a suffix begins with ``.`` or ``@``."""

    field: str
    kind: Kind
    text: str

    @property
    def wanted(self) -> bytes:
        """The octets to compare with: of an object identifier those of its DER."""
        return der.oid(self.text)[2:] if self.field in OID_FIELDS and self.text else self.text.encode()

    def holds(self, values: Sequence[bytes]) -> bool:
        """Tell whether one of the values is as wanted. A ``*`` never stands for nothing, and before a mark not for that mark."""
        wanted = self.wanted
        match self.kind:
            case Kind.EXACT:
                return wanted in values
            case Kind.ANY:
                return any(values)
            case Kind.PREFIX:
                return any(value.startswith(wanted) and len(value) > len(wanted) for value in values)
            case Kind.SUFFIX:
                heads = (value[: -len(wanted)] for value in values if value.endswith(wanted))
                return any(head and wanted[:1] not in head for head in heads)

    def __str__(self) -> str:
        """Give the pattern as it is written."""
        return {Kind.EXACT: self.text, Kind.PREFIX: f"{self.text}*"}.get(self.kind, f"*{self.text}")


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a name: a text, or the value of a field."""

    text: str = ""
    field: str = ""

    def __str__(self) -> str:
        """Give the segment as it is written."""
        return self.text or f"{{{self.field}}}"


@dataclass(frozen=True, slots=True)
class NameRule:
    """Which certificates get which name. All conditions must hold; the first segment is a text."""

    match: tuple[Condition, ...]
    identity: tuple[Segment, ...]

    def holds(self, said: Attributes) -> bool:
        """Tell whether a certificate is meant."""
        return all(one.holds(said[one.field]) for one in self.match)

    def name(self, said: Attributes) -> str | None:
        """Give the name, or None where a value is absent, is there twice, or is no segment."""
        segments = []
        for segment in self.identity:
            values = said[segment.field] if segment.field else (segment.text.encode(),)
            if len(values) != 1 or not SPIFFE_SEGMENT.fullmatch(values[0]) or values[0] in {b".", b".."}:
                return None
            segments.append(values[0].decode())
        return "/".join(segments)

    def pattern(self, own: TrustDomain) -> IdentityPattern:
        """Give what names it can give: one, or all below its texts."""
        fixed = self.fixed
        whole = len(fixed) == len(self.identity)
        return IdentityPattern(own, "/".join(fixed) if whole else "".join(f"{one}/" for one in fixed), prefix=not whole)

    @property
    def fixed(self) -> tuple[str, ...]:
        """The texts that every one of its names begins with."""
        first = next((at for at, one in enumerate(self.identity) if one.field), len(self.identity))
        return tuple(one.text for one in self.identity[:first])

    @property
    def identity_text(self) -> str:
        """The name as it is written."""
        return "/".join(map(str, self.identity))


@dataclass(frozen=True, slots=True)
class Revocation:
    """How it is learned what an authority revoked: a list from a ``url`` or lists in the world itself (``pem``), and by OCSP.

    One of the three is not empty, of the first two one at most; ``ocsp`` is the responder's URL. ``refuse`` is whether a certificate
    is refused where none of them knows it.
    """

    url: str = ""
    pem: str = ""
    ocsp: str = ""
    refuse: bool = True


@dataclass(frozen=True, slots=True)
class ForeignAuthority:
    """One entry of ``authorities``. ``hosts`` are the only ones at which it may count."""

    name: str
    cas: tuple[ForeignCa, ...]
    hosts: tuple[str, ...]
    identities: tuple[NameRule, ...]
    revocation: Revocation | None = None

    @property
    def has_lists(self) -> bool:
        """Whether it is learned from lists what it revoked, be it beside a responder."""
        return self.revocation is not None and bool(self.revocation.url or self.revocation.pem)

    @property
    def responder(self) -> str:
        """The URL of the OCSP responder that is asked for each of its certificates, empty where none is."""
        return self.revocation.ocsp if self.revocation else ""

    def patterns(self, own: TrustDomain) -> tuple[IdentityPattern, ...]:
        """Give all the names that it can give."""
        return tuple(sorted({rule.pattern(own) for rule in self.identities}))


def give_name(rules: Sequence[NameRule], said: Attributes, own: TrustDomain) -> SpiffeId | Refusal:
    """Give a certificate of such an authority its identity in our trust domain.

    A SPIFFE id in it must be well-formed and of another trust domain: services that read certificates themselves would take
    it for ours otherwise.
    """
    for uri in said["uri"]:
        text = uri.decode()
        if text.lower().startswith(_SPIFFE) and not _elsewhere(text, own):
            return Refusal(Reason.IDENTITY_SAN_NOT_ALLOWED, {"uri_san": text[:200]})
    rule = next((rule for rule in rules if rule.holds(said)), None)
    if rule is None:
        return Refusal(Reason.IDENTITY_NO_MAPPING, _shown(said))
    name = rule.name(said)
    if name is None or len(str(own)) + len(name) + len("spiffe:///") > MAX_ID_BYTES:
        return Refusal(Reason.IDENTITY_NAME_UNUSABLE, {"identity": rule.identity_text, **_shown(said)})
    return own.id(name)


def _elsewhere(uri: str, own: TrustDomain) -> bool:
    try:
        return SpiffeId.parse(uri).trust_domain != own
    except BadInput:
        return False


def _shown(said: Attributes) -> dict[str, str]:
    fields = ("common_name", "organization", "organizational_unit", "dns", "email", "uri")
    texts = {field: ", ".join(value.decode(errors="replace") for value in said[field])[:200] for field in fields}
    return {field: text for field, text in texts.items() if text}
