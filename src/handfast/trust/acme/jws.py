"""What an ACME client signs: flattened JSON Web Signatures (RFC 7515), as RFC 8555 section 6.2 narrows them.

Decides whether bytes are a request, and whether a key has signed it. Refuses to know which key belongs to a `kid`, whether a
nonce is fresh, and what the payload asks for.

One way to read each thing: JSON with a name twice is refused, base64url has one spelling, `none` and MACs are unknown
algorithms, and an algorithm goes with one kind of key alone, so that no key is ever used as another's.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from handfast.base.refusal import BadInput
from handfast.trust.acme.keys import AccountKey, AccountPublicKey, from_base64url, read_key
from handfast.trust.acme.problems import AcmeError, Problem

MAX_REQUEST = 64 * 1024
MAX_TEXT = 2048
ALGORITHMS = ("ES256", "ES384", "RS256", "EdDSA")
BINDING_ALGORITHM = "HS256"
_ENVELOPE = {"protected", "payload", "signature"}
_OCTETS = {"ES256": 32, "ES384": 48}


@dataclass(frozen=True, slots=True, kw_only=True)
class Jws:
    """A request whose form is right; nothing in it is proved yet. Exactly one of ``kid`` and ``jwk`` is there."""

    algorithm: str
    url: str
    nonce: str
    kid: str
    jwk: object
    payload: bytes
    signed: bytes
    signature: bytes


def strict_json(raw: bytes | str) -> Any:  # noqa: ANN401 - JSON has no type of its own
    """Read JSON in which no object has a name twice: two readers must not see two things.

    Raises:
        BadInput: it is something else.
    """
    try:
        text = raw.decode() if isinstance(raw, bytes) else raw
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadInput("this is not JSON, or not strictly") from error


def parse(raw: bytes) -> Jws:
    """Read a request's body.

    Raises:
        BadInput: it is larger than 64 KiB, or no flattened JWS with the header that RFC 8555 section 6.2 asks for.
    """
    if len(raw) > MAX_REQUEST:
        raise BadInput(f"the request is larger than {MAX_REQUEST} bytes")
    return read(strict_json(raw))


def read(plain: object) -> Jws:
    """Read a JWS from JSON that was read already: the inner one of a key change, or a binding.

    Raises:
        BadInput: as `parse`.
    """
    if not isinstance(plain, dict) or set(plain) != _ENVELOPE:
        raise BadInput("a request is a JSON object of protected, payload and signature, and nothing else")
    protected, payload = plain["protected"], plain["payload"]
    header = strict_json(from_base64url(protected))
    if not isinstance(header, dict):
        raise BadInput("the protected header is no JSON object", key="protected")
    if "crit" in header or "b64" in header:
        raise BadInput("no critical header is understood here", key="protected")
    if ("kid" in header) == ("jwk" in header):
        raise BadInput("the header names exactly one of kid and jwk", key="protected")
    return Jws(
        algorithm=_text(header, "alg"),
        url=_text(header, "url"),
        nonce=_text(header, "nonce") if "nonce" in header else "",
        kid=_text(header, "kid") if "kid" in header else "",
        jwk=header.get("jwk"),
        payload=from_base64url(payload),
        signed=f"{protected}.{payload}".encode(),
        signature=from_base64url(plain["signature"]),
    )


def check_algorithm(jws: Jws) -> Problem | None:
    """Refuse what cannot have been signed by an account's key: `none`, MACs, and what nobody here knows."""
    if jws.algorithm in ALGORITHMS:
        return None
    return Problem(AcmeError.BAD_SIGNATURE_ALGORITHM, f"the algorithms are {', '.join(ALGORITHMS)}")


def verify(jws: Jws, key: AccountKey) -> Problem | None:
    """Check that ``key`` signed it, with the one algorithm that goes with the key."""
    if refusal := check_algorithm(jws):
        return refusal
    public = key.public
    if jws.algorithm != _algorithm_of(public):
        return Problem(AcmeError.BAD_SIGNATURE_ALGORITHM, f"this key signs with {_algorithm_of(public)}")
    try:
        _check(public, jws)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return Problem(AcmeError.UNAUTHORIZED, "the signature is not this key's")
    return None


def verify_binding(binding: Jws, secret: bytes, *, account: AccountKey, url: str) -> Problem | None:
    """Check an external account binding: a MAC by ``secret`` over the account's own key (RFC 8555 section 7.3.4)."""
    if binding.algorithm != BINDING_ALGORITHM:
        return Problem(AcmeError.BAD_SIGNATURE_ALGORITHM, f"a binding is made with {BINDING_ALGORITHM}")
    expected = hmac.digest(secret, binding.signed, "sha256")
    if not hmac.compare_digest(expected, binding.signature):
        return Problem(AcmeError.UNAUTHORIZED, "the external account binding does not count")
    if binding.nonce or binding.url != url or read_key(strict_json(binding.payload)) != account:
        return Problem(AcmeError.MALFORMED, "the external account binding is of another request or key")
    return None


def verify_key_change(inner: Jws, *, account_url: str, old: AccountKey, url: str) -> AccountKey | Problem:
    """Check the inner JWS of a key change, and give the new key (RFC 8555 section 7.3.5).

    Raises:
        BadInput: its payload is not the one of a key change.
    """
    new = read_key(inner.jwk)
    if isinstance(new, Problem):
        return new
    if inner.nonce or inner.url != url:
        return Problem(AcmeError.MALFORMED, "the inner request has a nonce, or another URL than the outer one")
    if refusal := verify(inner, new):
        return refusal
    payload = strict_json(inner.payload)
    if not isinstance(payload, dict) or payload.get("account") != account_url or read_key(payload.get("oldKey")) != old:
        return Problem(AcmeError.MALFORMED, "the inner request is about another account or another old key")
    return new


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read_ = dict(pairs)
    if len(read_) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return read_


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _text(header: Mapping[str, Any], name: str) -> str:
    value = header.get(name)
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT:
        raise BadInput(f"{name} is missing, or no text of 1 to {MAX_TEXT} characters", key="protected")
    return value


def _algorithm_of(key: AccountPublicKey) -> str:
    match key:
        case ec.EllipticCurvePublicKey():
            return "ES256" if key.curve.name == "secp256r1" else "ES384"
        case rsa.RSAPublicKey():
            return "RS256"
        case ed25519.Ed25519PublicKey():
            return "EdDSA"


def _check(key: AccountPublicKey, jws: Jws) -> None:
    match key:
        case ec.EllipticCurvePublicKey():
            size = _OCTETS[jws.algorithm]
            if len(jws.signature) != 2 * size:  # RFC 7518 section 3.4
                raise InvalidSignature
            r, s = int.from_bytes(jws.signature[:size]), int.from_bytes(jws.signature[size:])
            digest = hashes.SHA256() if size == 32 else hashes.SHA384()
            key.verify(encode_dss_signature(r, s), jws.signed, ec.ECDSA(digest))
        case rsa.RSAPublicKey():
            key.verify(jws.signature, jws.signed, padding.PKCS1v15(), hashes.SHA256())
        case ed25519.Ed25519PublicKey():
            key.verify(jws.signature, jws.signed)
