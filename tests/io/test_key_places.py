from __future__ import annotations

from pathlib import Path

import pytest

from handfast.base.refusal import BadInput
from handfast.io import key_places
from handfast.io.key_places import KeyPlace
from handfast.io.sealed import Passphrase
from handfast.io.signers import KeyKind

PASSPHRASE = Passphrase(b"correct horse battery staple")
KEY_FILE, TOKEN_FILE = "issuing-key.pem", "issuing-key.uri"
URI = "pkcs11:token=ca;object=x?module-path=/m.so&pin-source=file:/secret/pin"


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE], ids=["open", "sealed"])
def test_a_key_that_was_put_is_opened_again(tmp_path: Path, passphrase: Passphrase | None):
    """The same key, and whether it is sealed."""
    put = key_places.put(tmp_path, KeyKind.P384, passphrase)
    again, safe = key_places.open_signer(tmp_path, passphrase)
    assert (again.public_key_der, safe) == (put.public_key_der, passphrase is not None)
    assert key_places.place_of(tmp_path) == KeyPlace("sealed" if passphrase else "open", KEY_FILE)
    assert key_places.file_of(tmp_path).name == KEY_FILE


def test_a_key_that_is_not_there_is_said(tmp_path: Path):
    """Shown as missing, and refused by its file."""
    assert key_places.place_of(tmp_path) == KeyPlace("missing", KEY_FILE)
    with pytest.raises(BadInput) as caught:
        key_places.open_signer(tmp_path, None)
    assert caught.value.file.endswith(KEY_FILE)


def test_a_key_that_others_can_read_is_shown_as_such(tmp_path: Path):
    """Looking at it does not fail; opening it does."""
    key_places.put(tmp_path, KeyKind.P256, None)
    (tmp_path / KEY_FILE).chmod(0o644)
    assert key_places.place_of(tmp_path).kind == "unreadable"
    with pytest.raises(BadInput, match="others can read"):
        key_places.open_signer(tmp_path, None)


def test_a_token_is_shown_without_the_place_of_its_pin(tmp_path: Path):
    """What is printed is seen by others."""
    (tmp_path / TOKEN_FILE).touch(0o600)
    (tmp_path / TOKEN_FILE).write_text(URI)
    assert key_places.place_of(tmp_path) == KeyPlace("token", "pkcs11:token=ca;object=x?module-path=/m.so")
    assert key_places.file_of(tmp_path).name == TOKEN_FILE


def test_a_damaged_uri_is_refused_by_its_file(tmp_path: Path):
    """Never passed over for a key file."""
    (tmp_path / TOKEN_FILE).touch(0o600)
    (tmp_path / TOKEN_FILE).write_text("pkcs11:x=y")
    with pytest.raises(BadInput) as caught:
        key_places.open_signer(tmp_path, None)
    assert caught.value.file.endswith(TOKEN_FILE)


def test_of_a_key_file_and_a_token_neither_counts(tmp_path: Path):
    """Whoever can put a file there must not choose which of the two signs."""
    key_places.put(tmp_path, KeyKind.P256, None)
    (tmp_path / TOKEN_FILE).touch(0o600)
    (tmp_path / TOKEN_FILE).write_text(URI)
    with pytest.raises(BadInput, match="one must count"):
        key_places.open_signer(tmp_path, None)
