from __future__ import annotations

import functools
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.io import files, sealed
from handfast.io.sealed import Passphrase, PassphraseCredential, PassphraseFile, PassphraseVariable, read_passphrase
from handfast.trust.facts import pem_certificates

SECRET = "correct horse battery staple"
PASSPHRASE = Passphrase(SECRET.encode())
OTHER = Passphrase(b"another passphrase, as long")
KEY = ec.generate_private_key(ec.SECP256R1())


@functools.cache
def kept(passphrase: Passphrase | None) -> bytes:
    return sealed.seal(KEY, passphrase)


def same(key: ec.EllipticCurvePrivateKey) -> bool:
    return key.private_numbers() == KEY.private_numbers()


@pytest.mark.parametrize("passphrase", [PASSPHRASE, None], ids=["sealed", "open"])
def test_a_key_reads_back(tmp_path: Path, passphrase: Passphrase | None):
    """Sealed or not, it is the same key, in a file of its owner's alone."""
    path = tmp_path / "key.pem"
    sealed.write_key(path, KEY, passphrase)
    assert same(sealed.read_key(path, passphrase))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sealed.is_sealed(path.read_bytes()) is (passphrase is not None)


def test_an_open_key_says_so_in_its_first_line():
    """Whoever looks at the file knows what it is."""
    assert sealed.seal(KEY, None).startswith(b"This key is not sealed")


def test_a_sealed_key_holds_nothing_of_the_key():
    """Neither the number nor the open form is in it."""
    text = sealed.seal(KEY, PASSPHRASE)
    raw = pem_certificates(text.decode().replace("ENCRYPTED PRIVATE KEY", "CERTIFICATE"))[0]
    assert KEY.private_numbers().private_value.to_bytes(32, "big") not in raw
    assert b"BEGIN PRIVATE KEY" not in text


def test_a_key_that_openssl_sealed_is_read():
    """However it was sealed: PBKDF2 with 2,048 rounds is what most tools write, and some put lines of their own before it."""
    text = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE.secret))
    for whole in (text, b"Bag Attributes: <No Attributes>\n" + text):
        assert same(sealed.unseal(whole, PASSPHRASE))


@pytest.mark.debian("openssl")
@pytest.mark.parametrize("passphrase", [PASSPHRASE, None], ids=["sealed", "open"])
def test_openssl_reads_a_key(tmp_path: Path, passphrase: Passphrase | None):
    """An operator can use the key without us."""
    path = tmp_path / "key.pem"
    sealed.write_key(path, KEY, passphrase)
    given_ = ["-passin", f"pass:{SECRET}"] if passphrase else []
    done = subprocess.run(["openssl", "pkey", "-in", path, "-noout", *given_], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_wrong_passphrase_is_bad_input_with_a_hint():
    """The error names the file and asks the right question, and shows no secret."""
    with pytest.raises(BadInput) as caught:
        sealed.unseal(sealed.seal(KEY, PASSPHRASE), OTHER, file="key.pem")
    assert (caught.value.file, "passphrase" in caught.value.hint) == ("key.pem", True)
    assert OTHER.secret.decode() not in f"{caught.value} {caught.value.hint}"


def test_a_sealed_key_wants_its_passphrase():
    """None is not the empty one."""
    with pytest.raises(BadInput, match="no passphrase was given"):
        sealed.unseal(sealed.seal(KEY, PASSPHRASE), None)


def test_a_passphrase_for_an_open_key_is_refused():
    """Whoever gives one believes that the key is sealed."""
    with pytest.raises(BadInput, match="not sealed") as caught:
        sealed.unseal(sealed.seal(KEY, None), PASSPHRASE)
    assert "openssl pkcs8 -topk8" in caught.value.hint


def test_a_key_that_others_can_read_is_refused(tmp_path: Path):
    """A copy with a careless mode is found at the next start."""
    path = tmp_path / "key.pem"
    sealed.write_key(path, KEY, None)
    path.chmod(0o640)
    with pytest.raises(BadInput, match="others can read"):
        sealed.read_key(path, None)


def test_a_key_of_another_kind_is_refused():
    """What no authority signs with is not even loaded."""
    text = x25519.X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(BadInput, match="no key of an authority"):
        sealed.unseal(text, None)


@given(st.binary(max_size=200), st.booleans(), st.integers(0, 300))
def test_a_damaged_key_is_bad_input(garbage: bytes, with_passphrase: bool, at: int):
    """Whatever the bytes are, it is the key or `BadInput`, and the error holds none of them."""
    passphrase = PASSPHRASE if with_passphrase else None
    text = kept(passphrase)
    damaged = text[:at] + garbage + text[at + len(garbage) :]
    told = ""
    try:
        assert isinstance(sealed.unseal(damaged, passphrase), ec.EllipticCurvePrivateKey)
    except BadInput as error:
        told = f"{error} {error.hint}"
    assert "MI" not in told


# --- passphrases


def test_a_passphrase_is_never_shown():
    """Neither repr nor str has it."""
    assert SECRET not in f"{PASSPHRASE!r} {PASSPHRASE}"


@pytest.mark.parametrize("size", [0, 15, 1024])
def test_a_passphrase_that_can_be_guessed_is_refused_with_the_remedy(size: int):
    """No derivation protects a short one; OpenSSL takes 1023 bytes."""
    with pytest.raises(BadInput) as caught:
        Passphrase(b"a" * size)
    assert "openssl rand" in caught.value.hint


def test_16_bytes_are_enough():
    """Both bounds are within."""
    assert Passphrase(b"a" * 16) != Passphrase(b"a" * 1023)


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_passphrase_comes_from_each_source(tmp_path: Path, ending: str):
    """A private file, the environment and systemd's credential give the same, with a line break at the end or not."""
    text = (SECRET + ending).encode()
    files.write_secret(tmp_path / "passphrase", text)
    (tmp_path / "handfast-passphrase").write_bytes(text)
    (tmp_path / "handfast-passphrase").chmod(0o440)  # as systemd shows an ACL's mask
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "HANDFAST_PASSPHRASE": SECRET + ending}
    for source in (
        PassphraseFile(tmp_path / "passphrase"),
        PassphraseVariable("HANDFAST_PASSPHRASE"),
        PassphraseCredential(),
    ):
        assert read_passphrase(source, environ) == PASSPHRASE


def test_spaces_and_further_line_breaks_belong_to_the_passphrase(tmp_path: Path):
    """Only one line break at the end is the editor's."""
    files.write_secret(tmp_path / "passphrase", b" " + PASSPHRASE.secret + b" \n\n")
    found = read_passphrase(PassphraseFile(tmp_path / "passphrase"))
    assert found.secret == b" " + PASSPHRASE.secret + b" \n"


def test_a_passphrase_file_that_others_can_read_is_refused(tmp_path: Path):
    """A secret in the open is none."""
    (tmp_path / "passphrase").write_bytes(PASSPHRASE.secret)
    (tmp_path / "passphrase").chmod(0o644)
    with pytest.raises(BadInput, match="others can read"):
        read_passphrase(PassphraseFile(tmp_path / "passphrase"))


def test_a_source_that_has_none_is_bad_input(tmp_path: Path):
    """The error names the variable, the unit's setting or the file, and no secret."""
    with pytest.raises(BadInput) as variable:
        read_passphrase(PassphraseVariable("HANDFAST_PASSPHRASE"), {})
    assert "HANDFAST_PASSPHRASE" in str(variable.value)
    with pytest.raises(BadInput) as unit:
        read_passphrase(PassphraseCredential(), {})
    assert "LoadCredentialEncrypted=handfast-passphrase" in unit.value.hint
    with pytest.raises(BadInput, match="No such file"):
        read_passphrase(PassphraseCredential(), {"CREDENTIALS_DIRECTORY": str(tmp_path)})


def test_a_short_passphrase_names_its_source():
    """Who set it knows where to look, and does not see it."""
    with pytest.raises(BadInput) as caught:
        read_passphrase(PassphraseVariable("HANDFAST_PASSPHRASE"), {"HANDFAST_PASSPHRASE": "hunter2"})
    assert "HANDFAST_PASSPHRASE" in str(caught.value)
    assert "hunter2" not in str(caught.value)
