"""The ``issuance`` part of the world file: what this trust domain's authority signs at most, whoever asks.

Decides what a user may write there, and how it is written again. Refuses to know what is done with it: that is `handfast.trust.plan`.
"""

from __future__ import annotations

from dataclasses import replace

from handfast.access import values
from handfast.access.yaml_lines import Node, distinct, items, table, value
from handfast.base.refusal import BadInput
from handfast.base.spiffe import TrustDomain
from handfast.trust.profile import LEAF, Profile

ISSUANCE_KEYS = ("identities", "dns", "keys", "longest")
MAX_PATTERNS = 256
KEY_TYPES = ("ec-p256", "ec-p384", "ed25519", "rsa-2048", "rsa-3072", "rsa-4096")

_CURVES = {"ec-p256": "secp256r1", "ec-p384": "secp384r1"}
_NO_RSA = (0, 0)


def parse_issuance(node: Node, own: TrustDomain) -> Profile:
    """Read it. What is left out is as wide as the platform allows.

    Raises:
        BadInput: it is not that; names line and key.
    """
    found = table(node, ISSUANCE_KEYS)

    def listed(key: str) -> tuple[Node, ...]:
        return items(found.nodes[key], most=MAX_PATTERNS) if key in found.nodes else ()

    identities = distinct(listed("identities"), lambda one: value(one, lambda text: _identity(text, own)))
    names = distinct(listed("dns"), lambda one: value(one, _dns))
    keys = distinct(listed("keys"), lambda one: value(one, _key_type))
    longest = value(found.nodes["longest"], values.duration) if "longest" in found.nodes else LEAF.longest
    profile = replace(LEAF, identities=identities, dns=names, longest=longest)
    return _of_keys(profile, keys) if keys else profile


def issuance_document(profile: Profile) -> dict[str, object]:
    """Give the plain form, with what is a default left out."""
    plain: dict[str, object] = {}
    if profile.identities:
        plain["identities"] = list(profile.identities)
    if profile.dns:
        plain["dns"] = list(profile.dns)
    if (profile.curves, profile.rsa_bits, profile.ed25519) != (LEAF.curves, LEAF.rsa_bits, LEAF.ed25519):
        plain["keys"] = _key_types(profile)
    if profile.longest != LEAF.longest:
        plain["longest"] = values.duration_text(profile.longest)
    return plain


def _identity(text: str, own: TrustDomain) -> str:
    stem = text.removesuffix("*")
    if "*" in stem or (stem != text and stem and not stem.endswith("/")):
        raise BadInput(
            f"{text[:80]!r} has a '*' that is not the whole last segment", hint="write 'team/*', or '*' for all"
        )
    if stem:
        own.id(stem.removesuffix("/") if stem != text else stem)
    return text


def _dns(text: str) -> str:
    values.dns_name(text.removeprefix("*."))
    return text


def _key_type(text: str) -> str:
    if text not in KEY_TYPES:
        raise BadInput(f"{text[:80]!r} is no type of key", hint=f"one of {', '.join(KEY_TYPES)}")
    return text


def _of_keys(profile: Profile, keys: tuple[str, ...]) -> Profile:
    """Give the profile that allows these. An RSA size allows larger ones, too: who takes 2048 bits has no quarrel with 3072."""
    bits = [int(one.removeprefix("rsa-")) for one in keys if one.startswith("rsa-")]
    return replace(
        profile,
        curves=frozenset(_CURVES[one] for one in keys if one in _CURVES),
        rsa_bits=(min(bits), LEAF.rsa_bits[1]) if bits else _NO_RSA,
        ed25519="ed25519" in keys,
    )


def _key_types(profile: Profile) -> list[str]:
    curves = [name for name, curve in _CURVES.items() if curve in profile.curves]
    rsa = [f"rsa-{profile.rsa_bits[0]}"] if profile.rsa_bits != _NO_RSA else []
    return [*curves, *(["ed25519"] if profile.ed25519 else []), *rsa]
