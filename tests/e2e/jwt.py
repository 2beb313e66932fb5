"""Reads session tokens as an application would: JWT (RFC 7519) with ES256, verified against a JWK set (RFC 7517)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature


def claims_of(token: str, jwks: Mapping[str, Any]) -> dict[str, Any]:
    """Verify a token with the key that it names; give its claims. Raises InvalidSignature."""
    signed, _, signature = token.rpartition(".")
    header, claims = (json.loads(unpad(part)) for part in signed.split("."))
    assert header["alg"] == "ES256"
    (key,) = [key for key in jwks["keys"] if key["kid"] == header["kid"]]
    raw = unpad(signature)
    r, s = (int.from_bytes(half, "big") for half in (raw[:32], raw[32:]))
    assert len(raw) == 64
    _public_key(key).verify(encode_dss_signature(r, s), signed.encode(), ec.ECDSA(hashes.SHA256()))
    return dict(claims)


def _public_key(key: Mapping[str, str]) -> ec.EllipticCurvePublicKey:
    assert (key["kty"], key["crv"], key["use"]) == ("EC", "P-256", "sig")
    assert "d" not in key
    x, y = (int.from_bytes(unpad(key[name]), "big") for name in ("x", "y"))
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


def forge(token: str, **changes: Any) -> str:
    """Give a token with other claims and the old signature."""
    header, claims, signature = token.split(".")
    forged = json.dumps({**json.loads(unpad(claims)), **changes}).encode()
    return f"{header}.{pad(forged)}.{signature}"


def sign_again(token: str, key: ec.EllipticCurvePrivateKey, **changes: Any) -> str:
    """Give a token with other claims, rightly signed."""
    signed = forge(token, **changes).rpartition(".")[0]
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{pad(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def unsigned(token: str) -> str:
    """Give a token that says that it needs no signature (RFC 7519 section 6)."""
    header, claims = pad(json.dumps({"alg": "none"}).encode()), token.split(".")[1]
    return f"{header}.{claims}."


def unpad(text: str) -> bytes:
    """Read base64url without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def pad(data: bytes) -> str:
    """Write base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
