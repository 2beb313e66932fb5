"""What Envoy is told at a host where authorities of others count beside ours: whom TLS verifies against, and who vouched.

Decides the trust anchors and the tables for `access.lua`. Refuses to judge certificates: chains were judged when the world was read.

The law of this file: TLS accepts a leaf only straight from one of the CAs given to it, and no two authorities have a CA that could
be taken for the other's. So the issuer's name in a verified leaf says who vouched, and nobody else can have written it there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from handfast.access.authority import NameRule
from handfast.access.authority_file import own_confusion
from handfast.access.policy import Host
from handfast.access.slice import Slice
from handfast.access.vouching import Issuer, issuers_at
from handfast.base.refusal import BadInput
from handfast.envoy.types import Resource
from handfast.trust.facts import pem, pem_certificates
from handfast.trust.foreign import ForeignCa, chained, content, read_ca
from handfast.trust.foreign_crl import RevocationList, crl_ders, listed


def clients_context(slice_: Slice, host: Host) -> Resource:
    """Give the validation context of a host with partners: every CA that may issue is an anchor, and nothing may lie between.

    Without the bound a partner could certify a CA with the name and key identifier of ours, and let it issue. Revocation is the
    access check's: Envoy wants a list of every CA in a context, or none.

    Raises:
        BadInput: a CA of a partner could be taken for one of ours.
    """
    anchors = [ca for name in host.clients.partners for ca in slice_.world.authorities[name].cas]
    ours = our_cas(slice_)
    for name in host.clients.partners:
        if confusion := own_confusion(slice_.world.authorities[name], ours):
            raise BadInput(confusion, hint="an authority of a partner cannot have a name or key of ours")
    if slice_.world.trust_domain in host.clients.trust:
        anchors = [*ours, *anchors]
    trusted = "".join(dict.fromkeys(pem(ca.der) for ca in anchors))
    return {"trusted_ca": {"inline_string": trusted}, "max_verify_depth": 0}


def our_cas(slice_: Slice) -> tuple[ForeignCa, ...]:
    """Give our own CAs: the roots that count, and those of the known CAs that they issued."""
    return _our_cas(slice_.roots, slice_.issuers)


@lru_cache(maxsize=4)
def _our_cas(roots: tuple[str, ...], issuers: tuple[str, ...]) -> tuple[ForeignCa, ...]:
    tops = [read_ca(der) for text in roots for der in pem_certificates(text)]
    known = [read_ca(der) for text in issuers for der in pem_certificates(text)]
    return tuple(chained(known, list(dict.fromkeys(tops))))


def our_lists(slice_: Slice) -> tuple[RevocationList, ...]:
    """Give what our own lists say: a certificate whose issuance was interrupted is known by its serial alone."""
    ours = our_cas(slice_)
    return tuple(one for text in slice_.crls for der in crl_ders(text.encode()) for one in listed(der, ours))


def partner_tables(slice_: Slice, host: Host) -> dict[str, object]:
    """Give the tables that a host's program has beside those of its policy. Without partners there are no issuers in them."""
    world = slice_.world
    lent = [
        [str(pattern).removesuffix("*"), pattern.prefix]
        for _, authority in sorted(world.authorities.items())
        for pattern in authority.patterns(world.trust_domain)
    ]
    tables: dict[str, object] = {"OWN": world.trust_domain.name, "LENT": lent, "ISSUERS": False, "RULES": {}}
    if not host.clients.partners:
        return tables
    issuers = issuers_at(world, host, our_cas(slice_), our_lists(slice_))
    rules = {name: [_rule(rule) for rule in world.authorities[name].identities] for name in host.clients.partners}
    return tables | {"ISSUERS": _issuers(issuers), "RULES": rules}


def asks_agent(slice_: Slice, host: Host) -> bool:
    """Tell whether the access check asks the agent how certificates stand: where a partner of the host has a responder."""
    return any(slice_.world.authorities[name].responder for name in host.clients.partners)


def _issuers(issuers: Sequence[Issuer]) -> list[Mapping[str, object]]:
    return [
        {
            "subject": content(one.subject),
            "authority": one.authority,
            "keys": one.keys,
            "ends": one.ends,
            # One text for all: Lua bounds how many constants a program has.
            "serials": f",{','.join(sorted(one.serials))},",
            "until_": one.until,
            "revoked": one.revoked,
            "asked": one.asked,
            "instead": one.instead,
        }
        for one in issuers
    ]


def _rule(rule: NameRule) -> Mapping[str, object]:
    return {
        "match": [[one.field, one.kind.value, one.wanted] for one in rule.match],
        "identity": [[segment.text, segment.field] for segment in rule.identity],
    }
