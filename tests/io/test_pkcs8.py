from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from handfast.io import pkcs8
from handfast.trust import der
from handfast.trust.facts import pem_certificates

SECRET = b"correct horse battery staple"
KEYS = {
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "rsa": rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}


def key_info(name: str) -> bytes:
    return KEYS[name].private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def parts(text: str) -> tuple[bytes, bytes, bytes]:
    """Give the derivation, the cipher, and what is encrypted."""
    (raw,) = pem_certificates(text.replace("ENCRYPTED PRIVATE KEY", "CERTIFICATE"))
    algorithm, encrypted = der.children(raw)
    pbes2, parameters = der.children(algorithm)
    assert pbes2 == der.oid("1.2.840.113549.1.5.13")
    return *der.children(parameters), encrypted


@pytest.mark.parametrize("name", KEYS)
def test_the_library_reads_it(name: str):
    """With the passphrase it is the same key, and without it none, whatever the padding."""
    text = pkcs8.encrypt(key_info(name), SECRET).encode()
    again = load_pem_private_key(text, SECRET)
    assert again.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) == key_info(name)
    with pytest.raises(ValueError, match=r"."):
        load_pem_private_key(text, SECRET + b"r")


@pytest.mark.debian("openssl")
@pytest.mark.parametrize("name", KEYS)
def test_openssl_reads_it(name: str, tmp_path: Path):
    """Its bound on memory is kept."""
    path = tmp_path / "key.pem"
    path.write_text(pkcs8.encrypt(key_info(name), SECRET))
    command = ["openssl", "pkey", "-in", path, "-passin", f"pass:{SECRET.decode()}", "-outform", "DER"]
    assert subprocess.run(command, check=True, capture_output=True).stdout


def test_guessing_is_slow():
    """Scrypt with 16 MiB five times over, a cost that OWASP names; AES with 256 bits."""
    derivation, scheme, _ = parts(pkcs8.encrypt(key_info("p256"), SECRET))
    scrypt, settings = der.children(derivation)
    _, *costs = der.children(settings)
    assert scrypt == der.oid("1.3.6.1.4.1.11591.4.11")
    assert costs == [der.integer(number) for number in (2**14, 8, 5, 32)]
    assert der.children(scheme)[0] == der.oid("2.16.840.1.101.3.4.1.42")


def test_no_two_are_alike():
    """Salt and initialisation vector are new each time, so equal keys do not show."""
    first, second = (parts(pkcs8.encrypt(key_info("p256"), SECRET)) for _ in range(2))
    assert not set(first) & set(second)
