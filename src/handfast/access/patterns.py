"""Identities as rules name them: ``payments``, ``team/*``, ``*``, ``spiffe://partner.org/x``, ``spiffe://partner.org/*``.

Decides what such a text means, and how to write it again. Refuses to know of workloads: a pattern may name what no entry grants.
"""

from __future__ import annotations

from handfast.access.policy import IdentityPattern, Open
from handfast.base.refusal import BadInput
from handfast.base.spiffe import TrustDomain

OPEN_WORDS = frozenset(Open)
"""Words that mean more than an identity, so that no bare name may look like one of them."""

_SCHEME = "spiffe://"


def parse_pattern(text: str, *, own: TrustDomain) -> IdentityPattern:
    """Read an identity as a rule names it; a bare name is one of the trust domain ``own``.

    Raises:
        BadInput: it is no identity, or has a ``*`` elsewhere than as its whole last segment.
    """
    if text in OPEN_WORDS:
        raise BadInput(f"{text!r} is not an identity", hint=f"to let them all in write 'allow: {text}', without a list")
    if not text.startswith(_SCHEME):
        return _pattern(own, text)
    domain, slash, name = text.removeprefix(_SCHEME).partition("/")
    if not slash:
        raise BadInput(f"{text[:80]!r} names a trust domain and no identity", hint=f"write {text[:80]}/* for all in it")
    return _pattern(TrustDomain(domain), name)


def pattern_text(pattern: IdentityPattern, *, own: TrustDomain) -> str:
    """Write a pattern as a user would: the bare name in the trust domain ``own``, else the whole id."""
    bare = f"{pattern.name}{'*' if pattern.prefix else ''}"
    return bare if pattern.trust_domain == own and bare not in OPEN_WORDS else str(pattern)


def _pattern(domain: TrustDomain, name: str) -> IdentityPattern:
    stem = name.removesuffix("*")
    prefix = stem != name
    if "*" in stem or (prefix and stem and not stem.endswith("/")):
        raise BadInput(
            f"{name[:80]!r} has a '*' that is not the whole last segment", hint="write 'team/*', or '*' for all"
        )
    if stem or not prefix:
        domain.id(stem.removesuffix("/") if prefix else stem)
    return IdentityPattern(domain, stem, prefix)
