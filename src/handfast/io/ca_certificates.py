"""CA certificates: signed with a key that is at hand, with what the next one after them has to be like.

Decides how a planned CA certificate becomes bytes. Refuses to know files; what it says is planned in `handfast.trust.ca`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from handfast.base.windows import Window
from handfast.io.key_places import LocalSigner
from handfast.io.signers import KeyKind
from handfast.io.token_uri import TokenUri
from handfast.trust import ca_bytes
from handfast.trust.addresses import StatusSite
from handfast.trust.ca_bytes import Plan, Signatory
from handfast.trust.constraints import NameConstraints
from handfast.trust.facts import facts, issuer_facts
from handfast.trust.leaf import assemble
from handfast.trust.plan import SERIAL_BYTES, serial_from


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an issuing CA is made with: a key of this kind in a file, or this one in a token; what it may name; where its status is."""

    key: KeyKind | TokenUri = KeyKind.P256
    constraints: NameConstraints | None = None
    site: StatusSite | None = None


DEFAULT = Wanted()


def certify(plan: Plan, window: Window, public_key_der: bytes, by: Signatory, signer: LocalSigner) -> bytes:
    """Sign a planned certificate with the key of a CA (DER).

    Raises:
        Unavailable: its token does not answer.
    """
    tbs = ca_bytes.tbs(plan, by, public_key_der, window, serial_from(secrets.token_bytes(SERIAL_BYTES)))
    return assemble(tbs, signer.sign_now(tbs))


def kind_of(ca_der: bytes) -> KeyKind:
    """Give the kind of key that a CA like this one is made with: for RSA the next size that is made here."""
    seen = facts(ca_der)
    match seen.key_kind, seen.curve:
        case "ec", "secp384r1":
            return KeyKind.P384
        case "ed25519", _:
            return KeyKind.ED25519
        case "rsa", _:
            return next(
                (one for one in (KeyKind.RSA2048, KeyKind.RSA3072) if seen.key_bits <= int(one.value[3:])),
                KeyKind.RSA4096,
            )
        case _:
            return KeyKind.P256


def like(issuing_der: bytes) -> Wanted:
    """Give what the issuing CA after this one is made with, where its key lies in a file: the same limits above all."""
    constraints = issuer_facts(issuing_der).constraints
    return Wanted(key=kind_of(issuing_der), constraints=constraints[0] if constraints else None)
