"""Which authority vouched for a leaf that TLS verified, and who its bearer is by that.

Decides by the issuer's name: a gateway verifies against CAs of ours and of others at once, and accepts none that a client sends
along, so whoever issued a leaf is one of those it was given. No two authorities at a host have a name or a key in common, so
the name tells them apart. Refuses to know how TLS verified. `envoy/access.lua` says the same, in this order.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from handfast.access.authority import ForeignAuthority, give_name
from handfast.access.identify import identify, standing, unfit
from handfast.access.policy import Host
from handfast.access.world import World
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.base.spiffe import SpiffeId
from handfast.base.windows import to_unix
from handfast.trust.facts import CertificateFacts
from handfast.trust.foreign import ForeignCa, attributes, issuer_name
from handfast.trust.foreign_crl import RevocationList
from handfast.trust.standing import Word

NEVER = -1
"""Until when a revocation list counts that is not needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """All CAs of one name that may issue leaves at a host; ``authority`` is empty for ours.

    ``subject`` is their Name as it stands in their certificates. ``keys`` says of each of their key identifiers (hex) when it stops to
    count, in Unix seconds, and ``ends`` when the first of them does: so long counts a leaf that names no key. ``serials`` are revoked.
    ``until`` is when the lists of all of them count, in Unix seconds: `NEVER` where none is needed, 0 where one is lacking.
    ``revoked``: the CA is revoked itself. ``asked``: a responder is asked for each of its leaves, and whom nobody knows is
    accepted or refused, as ``when_unknown`` says; empty where none is asked. ``instead`` is until when the lists of all of them
    speak for whom the responder does not know, in Unix seconds.
    """

    subject: bytes
    authority: str
    keys: Mapping[str, int]
    ends: int
    serials: frozenset[str] = frozenset()
    until: int = NEVER
    revoked: bool = False
    asked: str = ""
    instead: int = 0


def issuers_at(
    world: World, host: Host, ours: Sequence[ForeignCa], our_lists: Iterable[RevocationList] = ()
) -> tuple[Issuer, ...]:
    """Give everyone who may have issued a leaf that a host's TLS verified, by name.

    Raises:
        BadInput: the CAs of two authorities have a name in common.
    """
    lists = {one.ca: one for one in our_lists}
    found = _issuers("", ours, lists, needed=False) if world.trust_domain in host.clients.trust else []
    for name in host.clients.partners:
        authority = world.authorities[name]
        held = {one.ca: one for one in world.lists.get(name, ())}
        found += _partners(authority, held)
    if len({one.subject for one in found}) < len(found):
        raise BadInput(
            "two authorities at one host have CAs of the same name", hint="let them count at different hosts"
        )
    return tuple(found)


def _partners(authority: ForeignAuthority, lists: Mapping[str, RevocationList]) -> list[Issuer]:
    refuse = authority.revocation is not None and authority.revocation.refuse
    if not authority.responder:
        return _issuers(authority.name, authority.cas, lists, needed=refuse)
    found = _issuers(authority.name, authority.cas, lists if authority.has_lists else {}, needed=True)
    # No list bars anybody by being away or old: the responder is asked first, and the list where that knows nothing.
    return [replace(one, until=NEVER, instead=one.until, asked="refuse" if refuse else "accept") for one in found]


def _issuers(
    authority: str, cas: Sequence[ForeignCa], lists: Mapping[str, RevocationList], *, needed: bool
) -> list[Issuer]:
    revoked, ends, found = _revoked(cas, lists), _ends(cas), list[Issuer]()
    for subject in sorted({ca.subject for ca in cas}):
        named = [ca for ca in cas if ca.subject == subject]
        held = [lists[ca.fingerprint] for ca in named if ca.fingerprint in lists]
        until = min(one.until for one in held) if len(held) == len(named) else 0
        # A CA that was renewed with its key counts as long as the longer certificate; with another key each counts for itself.
        by_key = {ca.key: max(ends[one.fingerprint] for one in named if one.key == ca.key) for ca in named}
        keys = {ca.key_id: min(by_key[one.key] for one in named if one.key_id == ca.key_id) for ca in named}
        found.append(
            Issuer(
                subject=subject,
                authority=authority,
                keys=dict(sorted(keys.items())) if all(keys) else {},
                ends=min(by_key.values()),
                serials=frozenset(serial for one in held for serial in one.serials),
                until=until if needed else NEVER,
                revoked=any(ca.fingerprint in revoked for ca in named),
            )
        )
    return found


def _revoked(cas: Sequence[ForeignCa], lists: Mapping[str, RevocationList]) -> set[str]:
    """Give the CAs that a CA above them has revoked, and those below them."""
    gone: set[str] = set()
    for _ in cas:  # a chain is no longer than that
        for ca in cas:
            above = [one for one in cas if one.subject == ca.issuer and one is not ca]
            listed = any(one.fingerprint in lists and ca.serial in lists[one.fingerprint].serials for one in above)
            if listed or (above and all(one.fingerprint in gone for one in above)):
                gone.add(ca.fingerprint)
    return gone


def _ends(cas: Sequence[ForeignCa]) -> dict[str, int]:
    """Give when each CA stops to count, in Unix seconds: at its own end, or with the last of those that may have issued it.

    TLS stops at the CA that it was given, and looks at none above it.
    """
    ends = {ca.fingerprint: to_unix(ca.window.not_after) for ca in cas}
    for _ in cas:  # a chain is no longer than that
        for ca in cas:
            above = [ends[one.fingerprint] for one in cas if one.subject == ca.issuer]
            ends[ca.fingerprint] = min(ends[ca.fingerprint], max(above, default=ends[ca.fingerprint]))
    return ends


def recognise(
    leaf: bytes,
    seen: CertificateFacts,
    issuers: Iterable[Issuer],
    world: World,
    *,
    revoked: Container[str],
    now: datetime,
    said: Word = Word.UNKNOWN,
) -> SpiffeId | Refusal:
    """Say who bears a leaf (DER, with its facts) that TLS verified at a host with these issuers.

    ``said`` is what its issuer's responder says of it, where one is asked. Who would be refused anyhow is not asked for.

    Raises:
        BadInput: the leaf cannot be read.
    """
    issuer = _issuer(leaf, seen, issuers)
    against = standing(seen, revoked=revoked, now=now)
    if against is None or against.reason is not Reason.REVOKED:
        against = _ended(seen, issuer, now) or against
    if against is None and issuer is None:
        against = Refusal(Reason.CHAIN_UNKNOWN_AUTHORITY, {"issuer": seen.issuer[:200]})
    if against:
        return against
    assert issuer
    visitor = _named(leaf, seen, issuer, world)
    return visitor if isinstance(visitor, Refusal) else _disowned(seen, issuer, said, now) or visitor


def _issuer(leaf: bytes, seen: CertificateFacts, issuers: Iterable[Issuer]) -> Issuer | None:
    name = issuer_name(leaf)
    issuer = next((one for one in issuers if one.subject == name), None)
    return None if issuer and seen.aki and issuer.keys and seen.aki not in issuer.keys else issuer


def _ended(seen: CertificateFacts, issuer: Issuer | None, now: datetime) -> Refusal | None:
    """Refuse after the end of the issuer or its list, whatever TLS saw when the connection began. What ended first is what is told."""
    if issuer is None:
        return None
    ca = issuer.keys.get(seen.aki, issuer.ends)
    leaf, listed = to_unix(seen.window.not_after), issuer.until if issuer.until > 0 else ca
    first = min(leaf, listed, ca)
    if to_unix(now) < first or first == leaf:
        return None
    if first == issuer.until:
        return Refusal(Reason.REVOCATION_CRL_EXPIRED, {"authority": issuer.authority})
    return Refusal(Reason.CHAIN_ISSUER_EXPIRED, {"issuer": seen.issuer[:200]})


def _named(leaf: bytes, seen: CertificateFacts, issuer: Issuer, world: World) -> SpiffeId | Refusal:
    if against := unfit(seen) or _counted_out(seen, issuer):
        return against
    if issuer.authority:
        return give_name(world.authorities[issuer.authority].identities, attributes(leaf), world.trust_domain)
    return not_lent(identify(seen, trust={world.trust_domain}), world.authorities.values())


def _counted_out(seen: CertificateFacts, issuer: Issuer) -> Refusal | None:
    if seen.serial in issuer.serials:
        return Refusal(Reason.REVOKED, {"serial": seen.serial})
    if issuer.revoked:
        return Refusal(Reason.REVOKED_ISSUER, {"issuer": seen.issuer[:200]})
    return Refusal(Reason.REVOCATION_NO_CRL, {"issuer": seen.issuer[:200]}) if issuer.until == 0 else None


def _disowned(seen: CertificateFacts, issuer: Issuer, said: Word, now: datetime) -> Refusal | None:
    if not issuer.asked or said is Word.GOOD:
        return None
    if said is Word.REVOKED:
        return Refusal(Reason.REVOKED, {"serial": seen.serial})
    if to_unix(now) < issuer.instead:
        return None  # who stands in the list was refused before
    unknown = Refusal(Reason.REVOCATION_STATUS_UNKNOWN, {"authority": issuer.authority, "serial": seen.serial})
    return unknown if issuer.asked == "refuse" else None


def not_lent(visitor: SpiffeId | Refusal, authorities: Iterable[ForeignAuthority]) -> SpiffeId | Refusal:
    """Refuse an identity in a certificate of ours that only another authority may give: it was granted before that one came."""
    if isinstance(visitor, Refusal):
        return visitor
    lent = (pattern for one in authorities for pattern in one.patterns(visitor.trust_domain))
    if any(pattern.matches(visitor) for pattern in lent):
        return Refusal(Reason.IDENTITY_SAN_NOT_ALLOWED, {"identity": str(visitor)})
    return visitor
