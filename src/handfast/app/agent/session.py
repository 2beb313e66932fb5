"""The session token: a JWT that tells the application who came, and opens nothing by itself.

Minted for a client certificate and a host: ES256, ``aud`` the host, ``sub`` the identity, ``exp`` no later than the
certificate's end, ``cnf`` ``x5t#S256`` the certificate's thumbprint (RFC 8705 section 3.1). The gateway asks over a Unix
socket, once for each certificate, host and hour, and all its workers get the same token.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response

from handfast.access.identify import identify, standing
from handfast.app.agent.questions import asked_at
from handfast.base.refusal import BadInput, Refusal
from handfast.base.spiffe import TrustDomain
from handfast.base.windows import to_unix
from handfast.io.files import read_secret, write_secret
from handfast.io.ports import Clock
from handfast.trust.facts import CertificateFacts, facts

LIFE = timedelta(hours=1)
MOST_TOKENS = 10_000
MOST_BODY = 64 * 1024


@dataclass(frozen=True, slots=True)
class Minted:
    """A token, when to replace it and when it ends (Unix seconds)."""

    token: str
    renew: int
    ends: int


class Sessions:
    """Mints tokens with a key that is made once and stays in its file."""

    def __init__(self, key_file: Path, issuer: str, trust_domain: TrustDomain, clock: Clock) -> None:
        """Open the key, or make it."""
        self._key = _open_key(key_file)
        self._issuer, self._trust_domain, self._clock = issuer, trust_domain, clock
        self._tokens: OrderedDict[tuple[str, str], Minted] = OrderedDict()
        self._jwk = _jwk(self._key.public_key())

    @property
    def jwks(self) -> str:
        """The public key as a JWK set (RFC 7517)."""
        return json.dumps({"keys": [self._jwk]}, separators=(",", ":"))

    def token_for(self, leaf_der: bytes, host: str) -> Minted | Refusal:
        """Give the token for a certificate and host: the one that was minted, while it has a third of its life left."""
        seen = facts(leaf_der)
        identity = standing(seen, revoked=(), now=self._clock.now()) or identify(seen, trust={self._trust_domain})
        if isinstance(identity, Refusal):
            return identity
        key, now = (seen.fingerprint, host), to_unix(self._clock.now())
        held = self._tokens.get(key)
        if held and now < held.renew:
            return held
        minted = self._mint(seen, str(identity), host, leaf_der, now)
        self._tokens[key] = minted
        while len(self._tokens) > MOST_TOKENS:
            self._tokens.popitem(last=False)
        return minted

    def _mint(self, seen: CertificateFacts, identity: str, host: str, leaf_der: bytes, now: int) -> Minted:
        ends = min(now + int(LIFE.total_seconds()), to_unix(seen.window.not_after))
        claims = {
            "iss": self._issuer,
            "aud": host,
            "sub": identity,
            "iat": now,
            "exp": ends,
            "cnf": {"x5t#S256": _b64(hashlib.sha256(leaf_der).digest())},
        }
        header = {"alg": "ES256", "typ": "JWT", "kid": self._jwk["kid"]}
        signed = ".".join(_b64(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        token = f"{signed}.{_b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
        return Minted(token, now + (ends - now) * 2 // 3, ends)

    def app(self) -> Starlette:
        """Give the application that Envoy asks, on a socket that is open to our own user alone."""

        async def mint(host: str, leaf: bytes) -> Response:
            minted = self.token_for(leaf, host)
            if isinstance(minted, Refusal):
                return PlainTextResponse(minted.reason.value, 403)
            return PlainTextResponse(f"{minted.renew} {minted.ends} {minted.token}")

        return asked_at("/session", MOST_BODY, mint)


def _open_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_secret(path, pem)
    try:
        key_or_other = serialization.load_pem_private_key(read_secret(path), None)
    except ValueError as error:
        raise BadInput("this is not a key", file=str(path), hint="remove it, and a new one is made") from error
    if not isinstance(key_or_other, ec.EllipticCurvePrivateKey) or not isinstance(key_or_other.curve, ec.SECP256R1):
        raise BadInput("this is not a P-256 key", file=str(path), hint="remove it, and a new one is made")
    return key_or_other


def _jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    numbers = key.public_numbers()
    x, y = (_b64(n.to_bytes(32, "big")) for n in (numbers.x, numbers.y))
    required = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
    thumbprint = hashlib.sha256(json.dumps(required, separators=(",", ":")).encode()).digest()
    return {**required, "alg": "ES256", "use": "sig", "kid": _b64(thumbprint)}


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
