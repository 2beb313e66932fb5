"""Why no issuer was found for a client's certificate, when TLS says no more than that.

Decides by names and signatures, against every CA certificate known here. Refuses to build or validate chains: TLS did,
and said no. This only tells a person what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput
from handfast.trust.facts import load
from handfast.trust.profile import UNREADABLE

MAX_DEPTH = 8
"""How many CAs are followed upwards, whatever they say of each other."""


def explain_chain(leaf_der: bytes, *, sent_others: int, known: Sequence[bytes]) -> Reason:
    """Tell why a leaf had no issuer that counts.

    ``sent_others`` is how many certificates the client sent beside its own; ``known`` the DER of every CA certificate known
    here, roots and issuing ones. What cannot be read among them is passed over. Never raises, whatever the leaf is.

    Returns:
        CERT_UNREADABLE; CERT_SELF_SIGNED; CHAIN_MISSING_INTERMEDIATE: an issuing CA known here signed it, and the client sent
        fewer certificates than there are CAs between the leaf and the root; CHAIN_SAME_NAME_OTHER_KEY: CAs of the issuer's name are known, and none of them signed it;
        CHAIN_UNKNOWN_AUTHORITY otherwise, also where a root signed it: that root does not count at this host then.
    """
    try:
        leaf = load(leaf_der)
        return _explain(leaf, sent_others, known)
    except (*UNREADABLE, BadInput):
        return Reason.CERT_UNREADABLE


def _explain(leaf: x509.Certificate, sent_others: int, known: Sequence[bytes]) -> Reason:
    if _signed(leaf, leaf):
        return Reason.CERT_SELF_SIGNED
    namesakes = list(_named(known, leaf.issuer))
    signers = [ca for ca in namesakes if _signed(ca, leaf)]
    if namesakes and not signers:
        return Reason.CHAIN_SAME_NAME_OTHER_KEY
    if any(sent_others < _below_root(ca, known) for ca in signers):
        return Reason.CHAIN_MISSING_INTERMEDIATE
    return Reason.CHAIN_UNKNOWN_AUTHORITY


def _below_root(ca: x509.Certificate, known: Sequence[bytes]) -> int:
    """Count the CAs from this one up to the root, without the root: what has to be sent beside a leaf of it."""
    count = 0
    while ca.issuer != ca.subject and count < MAX_DEPTH:
        count += 1
        above = next((one for one in _named(known, ca.issuer) if _signed(one, ca)), None)
        if above is None:
            break
        ca = above
    return count


def _named(known: Iterable[bytes], name: x509.Name) -> Iterator[x509.Certificate]:
    for one in known:
        try:
            ca = load(one)
            if ca.subject == name:
                yield ca
        except (*UNREADABLE, BadInput):
            continue


def _signed(issuer: x509.Certificate, leaf: x509.Certificate) -> bool:
    """Tell whether ``issuer`` has the name and the key that signed ``leaf``."""
    try:
        leaf.verify_directly_issued_by(issuer)
    except (InvalidSignature, *UNREADABLE):
        return False
    return True
