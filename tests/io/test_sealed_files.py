import pytest

from handfast.base.refusal import BadInput
from handfast.io.sealed import Passphrase
from handfast.io.sealed_files import MAX_FILES_BYTES, MAX_SEALED_BYTES, FilesKey, derive

FILES = {"issuing.pem": b"certificate", "issuing-key.pem": b"\x00\xff" * 50}
PASSPHRASE = Passphrase(b"correct horse battery staple")


@pytest.fixture(scope="module")
def key() -> FilesKey:
    """Derive a key once."""
    return derive(PASSPHRASE, "ledger")


def test_what_was_sealed_opens(key: FilesKey):
    """Also by a key that was derived anew; and the text holds nothing that can be read."""
    text = key.seal(FILES, "purpose")
    assert derive(PASSPHRASE, "ledger").open(text, "purpose") == FILES
    assert b"certificate" not in text
    assert b"issuing" not in text
    assert key.seal(FILES, "purpose") != text


def test_another_passphrase_ledger_or_purpose_opens_nothing(key: FilesKey):
    """Who guesses, and who moves a text to where it does not belong, gets the same refusal."""
    text = key.seal(FILES, "generation 2")
    for other in (derive(Passphrase(b"correct horse battery stable"), "ledger"), derive(PASSPHRASE, "another")):
        with pytest.raises(BadInput, match="another passphrase"):
            other.open(text, "generation 2")
    with pytest.raises(BadInput, match="another passphrase"):
        key.open(text, "generation 3")


def test_a_text_that_was_changed_anywhere_does_not_open(key: FilesKey):
    """Each octet counts, and so does the end."""
    text = key.seal({"a": b"b"}, "p")
    for place in range(len(text)):
        with pytest.raises(BadInput):
            key.open(text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :], "p")
    for part in (text[:-1], text + b"\0", b"", text[:30], text.partition(b"\n")[2]):
        with pytest.raises(BadInput):
            key.open(part, "p")


def test_a_text_without_end_is_not_read(key: FilesKey):
    """Whoever writes the database does not choose our memory."""
    text = key.seal({"a": b"b"}, "p")
    with pytest.raises(BadInput, match="no sealed files"):
        key.open(text + b"\0" * MAX_SEALED_BYTES, "p")
    beside = 8  # what MessagePack writes beside the content
    with pytest.raises(BadInput, match="larger"):
        key.seal({"a": b"\0" * (MAX_FILES_BYTES - beside + 1)}, "p")
    assert key.open(key.seal({"a": b"\0" * (MAX_FILES_BYTES - beside)}, "p"), "p")


def test_a_key_shows_itself_nowhere(key: FilesKey):
    """Not in a log, not in a traceback."""
    assert key.secret.hex() not in repr(key)
    assert repr(key.secret) not in repr(key)
