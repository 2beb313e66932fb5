"""Which authority vouched for a leaf that TLS verified, and who its bearer is by that.

Decides by the issuer's name: a gateway verifies against CAs of ours and of others at once, and accepts none that a client sends
along, so whoever issued a leaf is one of those it was given. No two authorities at a host have a name or a key in common, so
the name tells them apart. Refuses to know how TLS verified. `envoy/access.lua` says the same, in this order.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
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

NEVER = -1
"""Until when a revocation list counts that is not needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """All CAs of one name that may issue leaves at a host; ``authority`` is empty for ours.

    ``subject`` is their Name as it stands in their certificates, ``keys`` their key identifiers (hex). ``serials`` are revoked.
    ``until`` is when the lists of all of them count, in Unix seconds: `NEVER` where none is needed, 0 where one is lacking.
    ``revoked``: the CA is revoked itself.
    """

    subject: bytes
    authority: str
    keys: tuple[str, ...]
    serials: frozenset[str] = frozenset()
    until: int = NEVER
    revoked: bool = False


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
        found += _issuers(
            name, authority.cas, held, needed=authority.revocation is not None and authority.revocation.refuse
        )
    if len({one.subject for one in found}) < len(found):
        raise BadInput(
            "two authorities at one host have CAs of the same name", hint="let them count at different hosts"
        )
    return tuple(found)


def _issuers(
    authority: str, cas: Sequence[ForeignCa], lists: Mapping[str, RevocationList], *, needed: bool
) -> list[Issuer]:
    revoked, found = _revoked(cas, lists), list[Issuer]()
    for subject in sorted({ca.subject for ca in cas}):
        named = [ca for ca in cas if ca.subject == subject]
        held = [lists[ca.fingerprint] for ca in named if ca.fingerprint in lists]
        until = min(one.until for one in held) if len(held) == len(named) else 0
        found.append(
            Issuer(
                subject=subject,
                authority=authority,
                keys=tuple(sorted({ca.key_id for ca in named})) if all(ca.key_id for ca in named) else (),
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


def recognise(
    leaf: bytes,
    seen: CertificateFacts,
    issuers: Iterable[Issuer],
    world: World,
    *,
    revoked: Container[str],
    now: datetime,
) -> SpiffeId | Refusal:
    """Say who bears a leaf (DER, with its facts) that TLS verified at a host with these issuers.

    Raises:
        BadInput: the leaf cannot be read.
    """
    issuer = _issuer(leaf, seen, issuers)
    against = standing(seen, revoked=revoked, now=now)
    if against is None or against.reason is not Reason.REVOKED:
        against = _list_ended(seen, issuer, now) or against
    if against is None and issuer is None:
        against = Refusal(Reason.CHAIN_UNKNOWN_AUTHORITY, {"issuer": seen.issuer[:200]})
    return against or _named(leaf, seen, issuer, world)


def _issuer(leaf: bytes, seen: CertificateFacts, issuers: Iterable[Issuer]) -> Issuer | None:
    name = issuer_name(leaf)
    issuer = next((one for one in issuers if one.subject == name), None)
    return None if issuer and seen.aki and issuer.keys and seen.aki not in issuer.keys else issuer


def _list_ended(seen: CertificateFacts, issuer: Issuer | None, now: datetime) -> Refusal | None:
    """Refuse after the end of the list. Where the leaf itself ends before that, its own end is what is told."""
    if issuer is None or not 0 < issuer.until < to_unix(seen.window.not_after) or to_unix(now) < issuer.until:
        return None
    return Refusal(Reason.REVOCATION_CRL_EXPIRED, {"authority": issuer.authority})


def _named(leaf: bytes, seen: CertificateFacts, issuer: Issuer | None, world: World) -> SpiffeId | Refusal:
    assert issuer
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


def not_lent(visitor: SpiffeId | Refusal, authorities: Iterable[ForeignAuthority]) -> SpiffeId | Refusal:
    """Refuse an identity in a certificate of ours that only another authority may give: it was granted before that one came."""
    if isinstance(visitor, Refusal):
        return visitor
    lent = (pattern for one in authorities for pattern in one.patterns(visitor.trust_domain))
    if any(pattern.matches(visitor) for pattern in lent):
        return Refusal(Reason.IDENTITY_SAN_NOT_ALLOWED, {"identity": str(visitor)})
    return visitor
