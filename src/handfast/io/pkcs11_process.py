"""The process in which a token's library runs: ``python -m handfast.io.pkcs11_process``, started by `handfast.io.pkcs11` alone.

Decides nothing: it opens one session, and signs what comes. A library that crashes or hangs takes this process along and
nothing else; an alarm ends it even where the library never returns and nobody is left to ask it to go.

It speaks in frames over its standard input and output: four octets of length, most significant first, then as many. First
comes the URI; it answers with ``K`` and the public key, or with a fault. Then each frame is a message or digest, answered with
``S`` and the signature, or with a fault: ``B`` for what trying again will not mend, ``U`` for what may pass, and the text.
One session and one thread: SoftHSM 2.6 aborts with more.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import pkcs11
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.mechanisms import KeyType, Mechanism

from handfast.base.refusal import BadInput, HandfastError
from handfast.io import files
from handfast.io.token_uri import TokenUri, parse_token_uri
from handfast.trust.profile import UNREADABLE

MAX_FRAME_BYTES = 32 * 1024 * 1024
STEP_S = 15
"""After how many seconds within the library this process is killed. Its parent loses patience earlier."""

KEY, SIGNATURE, BAD, PASSING = b"K", b"S", b"B", b"U"

_SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
"""DigestInfo of SHA-256 up to the digest (RFC 8017 section 9.2, note 1)."""

_CURVES: dict[bytes, ec.EllipticCurve] = {
    bytes.fromhex("06082a8648ce3d030107"): ec.SECP256R1(),
    bytes.fromhex("06052b81040022"): ec.SECP384R1(),
}
"""The named curves of CKA_EC_PARAMS (RFC 5480 section 2.1.1.1)."""

Sign = Callable[[bytes], bytes]
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


def read_frame(source: BinaryIO) -> bytes | None:
    """Read one frame; None at the end. A frame beyond the limit, or cut short, is the end too."""
    head = _exactly(source, 4)
    size = int.from_bytes(head, "big")
    if len(head) < 4 or size > MAX_FRAME_BYTES:
        return None
    data = _exactly(source, size)
    return data if len(data) == size else None


def frame(data: bytes) -> bytes:
    """Write one frame."""
    return len(data).to_bytes(4, "big") + data


def _exactly(source: BinaryIO, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := source.read(size - len(data))):
        data += more
    return data


def open_key(uri: TokenUri) -> tuple[bytes, Sign]:
    """Log in, and find the key; give its SubjectPublicKeyInfo (DER), and what signs with it.

    Raises:
        BadInput: there is no such module, token or key, or more than one, or the PIN is wrong.
    """
    token = _one(_tokens(uri), "token", uri)
    pin = files.read_secret(uri.pin_file).decode().rstrip("\r\n")
    session = token.open(user_pin=pin)
    private = _one(session.get_objects(_template(ObjectClass.PRIVATE_KEY, uri)), "private key", uri)
    match private[Attribute.KEY_TYPE]:
        case KeyType.RSA:
            return _der(_rsa_key(private)), lambda digest: _rsa(private, digest)
        case KeyType.EC:
            return _der(_ec_key(_public(session, uri))), lambda digest: _ecdsa(private, digest)
        case KeyType.EC_EDWARDS:
            return _der(_ed25519_key(_public(session, uri))), lambda message: _eddsa(private, message)
    raise _no_such_kind()


def _der(key: PublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _rsa_key(private: Any) -> rsa.RSAPublicKey:  # noqa: ANN401 - the library's own types change with its releases
    modulus, exponent = private[Attribute.MODULUS], private[Attribute.PUBLIC_EXPONENT]
    return rsa.RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")).public_key()


def _ec_key(public: Any) -> ec.EllipticCurvePublicKey:  # noqa: ANN401 - as above
    curve = _CURVES.get(bytes(public[Attribute.EC_PARAMS]))
    if curve is None:
        raise _no_such_kind()
    return ec.EllipticCurvePublicKey.from_encoded_point(curve, _point(public))


def _ed25519_key(public: Any) -> ed25519.Ed25519PublicKey:  # noqa: ANN401 - as above
    point = _point(public)
    if len(point) != _ED25519_OCTETS:
        raise _no_such_kind()
    return ed25519.Ed25519PublicKey.from_public_bytes(point)


_ED25519_OCTETS = 32


def _point(public: Any) -> bytes:  # noqa: ANN401 - as above
    """Take CKA_EC_POINT out of its OCTET STRING; some tokens leave that away."""
    point = bytes(public[Attribute.EC_POINT])
    return point[2:] if point[:1] == b"\x04" and point[1] == len(point) - 2 else point


def _no_such_kind() -> BadInput:
    return BadInput(
        "the key in the token is of a kind that no authority signs with",
        key="object",
        hint="use ECDSA P-256 or P-384, RSA with 2048 bits or more, or Ed25519",
    )


def _tokens(uri: TokenUri) -> list[Any]:
    try:
        slots = pkcs11.lib(str(uri.module)).get_slots(token_present=True)
    except (pkcs11.PKCS11Error, RuntimeError) as error:
        raise BadInput(
            "the token's library cannot be loaded", file=str(uri.module), hint="is it the right one?"
        ) from error
    return [token for slot in slots if (token := slot.get_token()) and _means(uri, slot, token)]


def _means(uri: TokenUri, slot: Any, token: Any) -> bool:  # noqa: ANN401 - as above
    serial = token.serial.decode("utf-8", "replace").rstrip("\0 ")
    said = (
        (uri.token, token.label),
        (uri.serial, serial),
        (uri.manufacturer, token.manufacturer_id),
        (uri.model, token.model),
    )
    return (uri.slot is None or uri.slot == slot.slot_id) and all(
        not want or want == seen.rstrip("\0 ") for want, seen in said
    )


def _template(kind: ObjectClass, uri: TokenUri) -> dict[Attribute, Any]:
    template: dict[Attribute, Any] = {Attribute.CLASS: kind}
    if uri.object:
        template[Attribute.LABEL] = uri.object
    if uri.id:
        template[Attribute.ID] = uri.id
    return template


def _public(session: Any, uri: TokenUri) -> Any:  # noqa: ANN401 - as above
    return _one(session.get_objects(_template(ObjectClass.PUBLIC_KEY, uri)), "public key", uri)


def _one(found: Any, what: str, uri: TokenUri) -> Any:  # noqa: ANN401 - as above
    all_found = [*found]
    if len(all_found) == 1:
        return all_found[0]
    raise BadInput(
        f"there is no such {what}"
        if not all_found
        else f"there are {len(all_found)} such {what}s, and one must be meant",
        key=uri.shown,
        hint="list what there is with 'pkcs11-tool --list-objects'; an elliptic curve key needs its public key beside it",
    )


def _ecdsa(private: Any, digest: bytes) -> bytes:  # noqa: ANN401 - as above
    both = private.sign(digest, mechanism=Mechanism.ECDSA)
    half = len(both) // 2
    return encode_dss_signature(int.from_bytes(both[:half], "big"), int.from_bytes(both[half:], "big"))


def _rsa(private: Any, digest: bytes) -> bytes:  # noqa: ANN401 - as above
    signature: bytes = private.sign(_SHA256_INFO + digest, mechanism=Mechanism.RSA_PKCS)
    return signature


def _eddsa(private: Any, message: bytes) -> bytes:  # noqa: ANN401 - as above
    signature: bytes = private.sign(message, mechanism=Mechanism.EDDSA)
    return signature


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Open the key that the first frame names, and sign what the next ones hold, until there are no more."""
    first = read_frame(source)
    if first is None:
        return
    sign: Sign | None = None

    def begin() -> bytes:
        nonlocal sign
        public, sign = open_key(parse_token_uri(first.decode("utf-8", "replace")))
        return KEY + public

    _answer(sink, begin)
    while sign and (message := read_frame(source)) is not None:
        _answer(sink, lambda: SIGNATURE + sign(message))


def _answer(sink: BinaryIO, work: Callable[[], bytes]) -> None:
    signal.alarm(STEP_S)
    sink.write(frame(_outcome(work)))
    sink.flush()
    signal.alarm(0)


def _outcome(work: Callable[[], bytes]) -> bytes:
    try:
        return work()
    except (pkcs11.PinIncorrect, pkcs11.PinLenRange, pkcs11.PinInvalid):
        return BAD + b"the token refuses this PIN"
    except pkcs11.PinLocked:
        return BAD + b"the token has locked its PIN after too many wrong ones"
    except pkcs11.PKCS11Error as error:
        # The name of the library's error, without its text: that may hold what was passed to it.
        return PASSING + type(error).__name__.encode()
    except HandfastError as error:
        return BAD + str(error).encode()
    except UNREADABLE:
        return BAD + b"what the token holds there is no key that can be read, or its PIN is no text"


def main() -> None:
    """Serve over what were standard input and output. What the library prints goes nowhere."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    source, sink = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    serve(source, sink)


if __name__ == "__main__":
    main()
    sys.exit(0)
