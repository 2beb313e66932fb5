"""An ACME client that does as it is told, right or wrong: it makes keys and signs requests, and knows no rules."""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from handfast.trust.acme.keys import AccountKey, read_key, to_base64url

Private = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
RSA_2048 = rsa.generate_private_key(65537, 2048)


def make_key(algorithm: str = "ES256") -> Signing:
    """Make a key that signs with this algorithm. RSA keys are slow to make, so all are one."""
    match algorithm:
        case "ES256":
            return Signing(ec.generate_private_key(ec.SECP256R1()), algorithm)
        case "ES384":
            return Signing(ec.generate_private_key(ec.SECP384R1()), algorithm)
        case "EdDSA":
            return Signing(ed25519.Ed25519PrivateKey.generate(), algorithm)
        case _:
            return Signing(RSA_2048, "RS256")


@dataclass(frozen=True)
class Signing:
    """A private key and the algorithm it signs with."""

    private: Private
    algorithm: str

    @property
    def jwk(self) -> dict[str, str]:
        """The public key."""
        match self.private:
            case ec.EllipticCurvePrivateKey():
                numbers, size = self.private.public_key().public_numbers(), (self.private.key_size + 7) // 8
                x, y = numbers.x.to_bytes(size), numbers.y.to_bytes(size)
                return {"kty": "EC", "crv": f"P-{self.private.key_size}", "x": to_base64url(x), "y": to_base64url(y)}
            case rsa.RSAPrivateKey():
                public = self.private.public_key().public_numbers()
                return {"kty": "RSA", "n": _number(public.n), "e": _number(public.e)}
            case ed25519.Ed25519PrivateKey():
                raw = self.private.public_key().public_bytes_raw()
                return {"kty": "OKP", "crv": "Ed25519", "x": to_base64url(raw)}

    @property
    def account_key(self) -> AccountKey:
        """The public key as the server keeps it."""
        key = read_key(self.jwk)
        assert isinstance(key, AccountKey)
        return key

    @property
    def thumbprint(self) -> str:
        """What names it."""
        return self.account_key.thumbprint

    def sign(self, data: bytes) -> bytes:
        """Sign, in JOSE's form."""
        match self.private:
            case ec.EllipticCurvePrivateKey():
                size = (self.private.key_size + 7) // 8
                digest = hashes.SHA256() if size == 32 else hashes.SHA384()
                r, s = decode_dss_signature(self.private.sign(data, ec.ECDSA(digest)))
                return r.to_bytes(size) + s.to_bytes(size)
            case rsa.RSAPrivateKey():
                return self.private.sign(data, padding.PKCS1v15(), hashes.SHA256())
            case ed25519.Ed25519PrivateKey():
                return self.private.sign(data)

    def jws(self, payload: object, header: dict[str, Any]) -> dict[str, str]:
        """Make a flattened JWS. ``payload`` None is that of a POST-as-GET; ``header`` may override the algorithm."""
        protected = _json({"alg": self.algorithm, **header})
        body = "" if payload is None else _json(payload)
        signature = to_base64url(self.sign(f"{protected}.{body}".encode()))
        return {"protected": protected, "payload": body, "signature": signature}

    def bind(self, kid: str, secret: bytes, url: str, **other: Any) -> dict[str, str]:
        """Make an external account binding of this key; ``other`` goes into its header."""
        protected, payload = _json({"alg": "HS256", "kid": kid, "url": url, **other}), _json(self.jwk)
        mac = hmac.digest(secret, f"{protected}.{payload}".encode(), "sha256")
        return {"protected": protected, "payload": payload, "signature": to_base64url(mac)}


@dataclass
class Csr:
    """A request for a certificate."""

    names: list[str]
    common_name: str = ""
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    more: list[x509.GeneralName] = field(default_factory=list)

    @property
    def der(self) -> bytes:
        """The request."""
        subject = [x509.NameAttribute(x509.NameOID.COMMON_NAME, self.common_name)] if self.common_name else []
        builder = x509.CertificateSigningRequestBuilder(x509.Name(subject))
        if names := [*map(x509.DNSName, self.names), *self.more]:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        digest = None if isinstance(self.key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        return builder.sign(self.key, digest).public_bytes(Encoding.DER)


def alpn_certificate(name: str, authorization: str, *, critical: bool = True) -> tuple[bytes, Any]:
    """Make the certificate of tls-alpn-01 (DER) and its key."""
    from datetime import UTC, datetime, timedelta  # noqa: PLC0415 - only here is the clock looked at

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    proof = x509.UnrecognizedExtension(
        x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31"), b"\x04\x20" + sha256(authorization.encode()).digest()
    )
    certificate = (
        x509.CertificateBuilder(x509.Name([]), x509.Name([]), key.public_key(), 1, now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .add_extension(proof, critical=critical)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.DER), key


def _json(value: object) -> str:
    return to_base64url(json.dumps(value).encode())


def _number(value: int) -> str:
    return to_base64url(value.to_bytes((value.bit_length() + 7) // 8))
