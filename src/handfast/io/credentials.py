"""Keys that are made here, and the certificates that belong to them.

A credential is one file: key, leaf, intermediates and the roots to trust, so that no crash can leave halves that do not match.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from handfast.base.refusal import BadInput
from handfast.base.windows import Window
from handfast.io.files import read_secret, write_secret
from handfast.trust.facts import CertificateFacts, facts, pem_certificates
from handfast.trust.profile import UNREADABLE

_SECTIONS = ("# key\n", "# chain\n", "# roots\n")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A fresh P-256 key with the CSR that asks for its certificate. Both PEM."""

    key_pem: str = field(repr=False)
    csr_pem: str


@dataclass(frozen=True, slots=True)
class Credential:
    """A key with its certificates, all PEM: ``chain_pem`` leaf first, ``bundle_pem`` the roots to trust."""

    key_pem: str = field(repr=False)
    chain_pem: str
    bundle_pem: str

    @property
    def leaf(self) -> CertificateFacts:
        """What the leaf says."""
        return facts(self.leaf_der)

    @property
    def leaf_der(self) -> bytes:
        """The leaf."""
        return pem_certificates(self.chain_pem)[0]

    @property
    def window(self) -> Window:
        """How long it counts."""
        return self.leaf.window


def new_key(common_name: str = "") -> NewKey:
    """Make a key, and a CSR that proves its possession. Names in it are a courtesy: the server decides them."""
    return _asking(ec.generate_private_key(ec.SECP256R1()), common_name)


def next_key(path: Path, spent: str = "") -> NewKey:
    """Give the key that ``path`` keeps for the next certificate; a new one is made and kept where there is none.

    Nor is one taken that is damaged, of another kind, open to others, or ``spent`` (PEM): that has its certificate.

    Raises:
        BadInput: the file cannot be written. Unavailable: the disk is full or fails.
    """
    kept = _kept(path)
    if kept is None or kept.key_pem == spent:
        kept = new_key()
        write_secret(path, kept.key_pem.encode())
    return kept


def _kept(path: Path) -> NewKey | None:
    try:
        key = serialization.load_pem_private_key(read_secret(path), None)
    except (BadInput, *UNREADABLE):
        return None
    return _asking(key) if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp256r1" else None


def _asking(key: ec.EllipticCurvePrivateKey, common_name: str = "") -> NewKey:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])] if common_name else []
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes)).sign(key, hashes.SHA256())
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return NewKey(key_pem.decode(), csr.public_bytes(serialization.Encoding.PEM).decode())


def save(path: Path, credential: Credential) -> None:
    """Write a credential, whole or not at all, for its owner alone."""
    parts = (credential.key_pem, credential.chain_pem, credential.bundle_pem)
    write_secret(path, "".join(head + body for head, body in zip(_SECTIONS, parts, strict=True)).encode())


def load(path: Path) -> Credential | None:
    """Read a credential; None where there is none.

    Raises:
        BadInput: the file is not one, its parts do not belong together, or others may read it.
    """
    if not path.exists():
        return None
    text = read_secret(path).decode(errors="replace")
    head, key, rest = text.partition(_SECTIONS[0])
    key_pem, chain, rest = rest.partition(_SECTIONS[1])
    chain_pem, roots, bundle_pem = rest.partition(_SECTIONS[2])
    credential = Credential(key_pem, chain_pem, bundle_pem)
    if head or not (key and chain and roots and _belongs_together(credential)):
        raise BadInput("this is not a credential", file=str(path), hint="remove it, and a new one is made")
    return credential


def _belongs_together(credential: Credential) -> bool:
    """Tell whether the key is the leaf's, and there are roots."""
    try:
        key = serialization.load_pem_private_key(credential.key_pem.encode(), None)
        leaf = x509.load_der_x509_certificate(credential.leaf_der)
        return key.public_key() == leaf.public_key() and bool(pem_certificates(credential.bundle_pem))
    except (BadInput, *UNREADABLE):
        return False


def p12(credential: Credential, name: str, password: str) -> bytes:
    """Give the credential as PKCS#12, which browsers import."""
    key = serialization.load_pem_private_key(credential.key_pem.encode(), None)
    leaf, *others = (x509.load_der_x509_certificate(der) for der in pem_certificates(credential.chain_pem))
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadInput("only ECDSA keys are written as PKCS#12")
    encryption = serialization.BestAvailableEncryption(password.encode())
    return pkcs12.serialize_key_and_certificates(name.encode(), key, leaf, others, encryption)
