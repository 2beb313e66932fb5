"""CA certificates with a root's key in this process: signed, with what the next one after them has to be like.

Decides how a planned CA certificate becomes bytes. Refuses to know files; what it says is planned in `handfast.trust.ca`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from handfast.base.windows import Window
from handfast.io.signers import AuthorityKey, KeyKind, public_der
from handfast.io.token_uri import TokenUri
from handfast.trust.algorithms import PublicKey, algorithm_of
from handfast.trust.ca import CaPlan
from handfast.trust.constraints import NameConstraints
from handfast.trust.facts import facts, issuer_facts
from handfast.trust.plan import SERIAL_BYTES, serial_from


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an issuing CA is made with: a key of this kind in a file, or this one in a token; and what it may name."""

    key: KeyKind | TokenUri = KeyKind.P256
    constraints: NameConstraints | None = None


DEFAULT = Wanted()


def certify_root(plan: CaPlan, window: Window, key: AuthorityKey) -> bytes:
    """Sign a root with its own key (DER)."""
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return _signed(plan, window, public_der(key), (plan.name, own.digest), key)


def certify(plan: CaPlan, window: Window, public_key_der: bytes, root_der: bytes, root_key: AuthorityKey) -> bytes:
    """Sign a CA certificate for a key with the root's (DER)."""
    root = x509.load_der_x509_certificate(root_der)
    above = (root.subject, bytes.fromhex(facts(root_der).ski))
    return _signed(plan, window, public_key_der, above, root_key)


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


def _signed(
    plan: CaPlan, window: Window, public_key_der: bytes, above: tuple[x509.Name, bytes], key: AuthorityKey
) -> bytes:
    """Sign with ``key``, which is that of the CA whose name and key identifier are ``above``."""
    issuer, key_id = above
    public = load_der_public_key(public_key_der)
    assert isinstance(public, PublicKey)
    builder = (
        x509.CertificateBuilder(subject_name=plan.name, issuer_name=issuer, public_key=public)
        .serial_number(serial_from(secrets.token_bytes(SERIAL_BYTES)))
        .not_valid_before(window.not_before)
        .not_valid_after(window.not_after)
    )
    for one, critical in plan.extensions():
        builder = builder.add_extension(one, critical=critical)
    certificate = (
        builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(key_id, None, None), critical=False)
        .sign(key, algorithm_of(public_der(key)).hash)
    )
    return certificate.public_bytes(Encoding.DER)
