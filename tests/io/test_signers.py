from __future__ import annotations

import copy
import pickle
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handfast.base.refusal import BadInput
from handfast.io import signers
from handfast.io.off_loop import LONG_BYTES
from handfast.io.ports import Signer
from handfast.io.signers import KeyKind, KeySigner, new_authority_key
from handfast.trust.algorithms import verify

KEY = ec.generate_private_key(ec.SECP256R1())


async def test_a_signature_verifies_with_the_public_key():
    """ECDSA over SHA-256, DER, by the key that the signer names."""
    signer: Signer = KeySigner(KEY)
    verify(await signer.sign(b"message"), b"message", signer.public_key_der)


def test_the_public_key_is_the_keys():
    """SubjectPublicKeyInfo, DER."""
    public = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert KeySigner(KEY).public_key_der == public


@pytest.mark.parametrize("kind", KeyKind)
async def test_each_kind_of_key_signs_by_its_own_algorithm(kind: KeyKind):
    """What comes out verifies with the algorithm that follows from the public key."""
    signer = KeySigner(new_authority_key(kind))
    verify(await signer.sign(b"message"), b"message", signer.public_key_der)


@pytest.mark.parametrize("kind", KeyKind)
@pytest.mark.parametrize("size", [100, LONG_BYTES + 1])
async def test_a_long_message_is_hashed_in_a_thread(kind: KeyKind, size: int, monkeypatch: pytest.MonkeyPatch):
    """A revocation list may have tens of megabytes. RSA takes long with any message."""
    threads, inner = list[int](), signers._signed
    monkeypatch.setattr(signers, "_signed", lambda *given: (threads.append(threading.get_ident()), inner(*given))[1])
    signer, message = KeySigner(new_authority_key(kind)), b"x" * size
    verify(await signer.sign(message), message, signer.public_key_der)
    assert (threads != [threading.get_ident()]) is (size > LONG_BYTES or kind.value.startswith("rsa"))


@pytest.mark.parametrize("curve", [ec.SECP521R1(), ec.SECP256K1()], ids=lambda curve: curve.name)
def test_a_key_of_another_curve_is_refused(curve: ec.EllipticCurve):
    """There is no algorithm for it in the table."""
    with pytest.raises(BadInput, match=curve.name):
        KeySigner(ec.generate_private_key(curve))


def test_a_signer_never_shows_its_key():
    """What is printed names the key by its public half; there is no dict to print."""
    signer = KeySigner(KEY)
    number = KEY.private_numbers().private_value
    shown = f"{signer!r} {signer}"
    assert f"{number:x}" not in shown
    assert str(number) not in shown
    assert "public key sha256" in shown
    assert not hasattr(signer, "__dict__")


@pytest.mark.parametrize("leave", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_signer_cannot_be_pickled_or_copied(leave: object):
    """A key stays in one place."""
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        leave(KeySigner(KEY))  # type: ignore[operator]
