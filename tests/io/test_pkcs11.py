from __future__ import annotations

import asyncio
import copy
import os
import pickle
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from handfast.base.refusal import BadInput, Unavailable
from handfast.io import pkcs11
from handfast.io.pkcs11 import Pkcs11Signer, open_token
from handfast.io.ports import Signer
from handfast.io.signers import public_der, sign_with
from handfast.io.token_uri import parse_token_uri
from handfast.trust.algorithms import verify
from tests.support import tokens
from tests.support.tokens import PIN, Token

KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Token:
    """Give a token with one key, ``issuing`` on P-256."""
    made = tokens.new_token(tmp_path / "token", monkeypatch)
    made.make("p256", "issuing")
    return made


@contextmanager
def opened(uri: str) -> Iterator[Pkcs11Signer]:
    signer = open_token(parse_token_uri(uri))
    try:
        yield signer
    finally:
        signer.close()


def alive(pid: int | None) -> bool:
    return pid is not None and Path(f"/proc/{pid}").exists()


# --- with a real token


@tokens.NEEDED
@pytest.mark.parametrize("kind", ["p256", "p384", "rsa2048", "ed25519"])
async def test_each_kind_of_key_in_a_token_signs(token: Token, kind: str):
    """Its signatures are those that certificates carry, whatever form the token has for them."""
    token.make(kind, "mine", 7)
    with opened(token.uri("mine")) as signer:
        port: Signer = signer
        for message in (b"", b"message", bytes(200_000)):
            verify(await port.sign(message), message, port.public_key_der)


@tokens.NEEDED
async def test_many_signatures_at_once_are_made_one_after_the_other(token: Token):
    """The library has one session and one thread; every caller gets the signature of its own message."""
    with opened(token.uri("issuing")) as signer:
        messages = [f"message {number}".encode() for number in range(64)]
        signatures = await asyncio.gather(*map(signer.sign, messages))
        for message, signature in zip(messages, signatures, strict=True):
            verify(signature, message, signer.public_key_der)


@tokens.NEEDED
async def test_a_library_that_dies_is_started_again(token: Token):
    """The process that it took along was not ours; the next signature finds a new one."""
    with opened(token.uri("issuing")) as signer:
        first = signer.process_id
        assert first
        os.kill(first, signal.SIGSEGV)
        while alive(first) and Path(f"/proc/{first}/stat").read_text().split()[2] != "Z":
            await asyncio.sleep(0.01)
        verify(await signer.sign(b"m"), b"m", signer.public_key_der)
        assert signer.process_id not in {None, first}


@tokens.NEEDED
async def test_a_library_that_hangs_is_ended_in_time(token: Token, monkeypatch: pytest.MonkeyPatch):
    """Whoever asked is told that the key is away, the server goes on, and the next one is served."""
    monkeypatch.setattr(pkcs11, "PATIENCE_S", 0.5)
    signer = Pkcs11Signer(parse_token_uri(token.uri("issuing")))
    try:
        signer.open()
        stopped = signer.process_id
        assert stopped
        signer._patience_s = 0.5
        os.kill(stopped, signal.SIGSTOP)
        begin = time.monotonic()
        with pytest.raises(Unavailable, match="did not answer in time"):
            await signer.sign(b"m")
        assert time.monotonic() - begin < 5
        assert not alive(stopped)
        signer._patience_s = 10
        verify(await signer.sign(b"m"), b"m", signer.public_key_der)
    finally:
        signer.close()


@tokens.NEEDED
def test_the_pin_is_nowhere_but_in_its_file(token: Token, monkeypatch: pytest.MonkeyPatch):
    """Not among the arguments of the process, nor in its environment, nor is our own passphrase."""
    monkeypatch.setenv("HANDFAST_PASSPHRASE", "correct horse battery staple")
    with opened(token.uri("issuing")) as signer:
        place = Path(f"/proc/{signer.process_id}")
        seen = (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
        assert PIN.encode() not in seen
        assert b"correct horse" not in seen
        assert str(token.pin_file).encode() not in seen
        assert PIN not in repr(signer)


@tokens.NEEDED
def test_a_wrong_pin_is_tried_once(token: Token):
    """Tokens lock themselves after a few: nothing is tried again until somebody starts the server anew."""
    wrong = token.directory / "wrong"
    wrong.touch(0o600)
    wrong.write_text("0000")
    signer = Pkcs11Signer(parse_token_uri(token.uri("issuing", pin_file=wrong)))
    try:
        for _ in range(5):
            with pytest.raises(BadInput, match="PIN"):
                signer.open()
        assert signer.process_id is None
        wrong.write_text(PIN)
        with pytest.raises(BadInput, match="PIN") as caught:
            signer.open()
        assert "start the server anew" in caught.value.hint
    finally:
        signer.close()


@tokens.NEEDED
@pytest.mark.parametrize(
    ("label", "more", "text"),
    [("nobody", {}, "there is no such private key"), ("issuing", {"serial": "0"}, "there is no such token")],
)
def test_what_is_not_there_is_said(token: Token, label: str, more: dict[str, str], text: str):
    """With the URI, so that it can be compared with what there is."""
    with pytest.raises(BadInput, match=text), opened(token.uri(label, **more)):
        pass


@tokens.NEEDED
def test_two_keys_of_one_name_are_refused(token: Token):
    """Which one signs must not depend on the token's mood; an id tells them apart."""
    token.make("p256", "issuing", 2)
    with pytest.raises(BadInput, match="2 such private keys"), opened(token.uri("issuing")):
        pass
    with opened(token.uri("issuing", id="%02")):
        pass


@tokens.NEEDED
async def test_another_key_under_the_same_name_is_never_used(token: Token):
    """Somebody replaced it while the library was away: certificates of it would verify with nothing."""
    with opened(token.uri("issuing")) as signer:
        token.tool("--delete-object", "--type", "privkey", "--label", "issuing")
        token.tool("--delete-object", "--type", "pubkey", "--label", "issuing")
        token.make("p256", "issuing")
        assert signer.process_id
        os.kill(signer.process_id, signal.SIGKILL)
        await asyncio.sleep(0.1)
        with pytest.raises(Unavailable, match="another key"):
            await signer.sign(b"m")


@tokens.NEEDED
def test_a_pin_that_others_can_read_is_refused(token: Token):
    """Before any process is started."""
    token.pin_file.chmod(0o644)
    with pytest.raises(BadInput, match="others can read"), opened(token.uri("issuing")):
        pass


@tokens.NEEDED
def test_a_library_that_others_can_replace_is_refused(token: Token, tmp_path: Path):
    """Whoever writes that file has the key's session."""
    module = tmp_path / "module.so"
    shutil.copy(tokens.softhsm(), module)
    module.chmod(0o666)
    with pytest.raises(BadInput, match="only its owner can write"), opened(token.uri("issuing", module=module)):
        pass
    module.chmod(0o644)
    with opened(token.uri("issuing", module=module)):
        pass


@tokens.NEEDED
def test_what_is_no_library_is_refused(token: Token, tmp_path: Path):
    """A file that cannot be loaded, and one that is not there."""
    module = tmp_path / "module.so"
    module.write_text("nothing")
    for path, text in ((module, "cannot be loaded"), (tmp_path / "none.so", "cannot be read")):
        with pytest.raises(BadInput, match=text), opened(token.uri("issuing", module=path)):
            pass


@tokens.NEEDED
async def test_a_closed_signer_signs_nothing_and_leaves_no_process(token: Token):
    """Closing twice is closing."""
    signer = open_token(parse_token_uri(token.uri("issuing")))
    pid = signer.process_id
    signer.close()
    signer.close()
    assert not alive(pid)
    with pytest.raises(Unavailable, match="closed"):
        await signer.sign(b"m")


@tokens.NEEDED
def test_a_forgotten_signer_leaves_no_process(token: Token):
    """Whoever drops it without closing it."""
    signer = open_token(parse_token_uri(token.uri("issuing")))
    pid = signer.process_id
    assert alive(pid)
    del signer
    until = time.monotonic() + 5
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not alive(pid)


# --- with a process that misbehaves in its place

PUBLIC = public_der(KEY)
SPEAK = "import os, sys, time\nsay = lambda data: os.write(1, len(data).to_bytes(4, 'big') + data)\n"
_OPENS = f"say(b'K' + bytes.fromhex('{PUBLIC.hex()}'))\nos.read(0, 65536)\n"


def misbehaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> Pkcs11Signer:
    monkeypatch.setattr(pkcs11, "_COMMAND", (sys.executable, "-c", SPEAK + code))
    for name in ("pin", "module"):
        (tmp_path / name).touch(0o600)
    text = f"pkcs11:token=ca;object=x?module-path={tmp_path / 'module'}&pin-source={tmp_path / 'pin'}"
    return Pkcs11Signer(parse_token_uri(text), 2.0)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("os._exit(1)", "ended while it was asked"),
        ("os.abort()", "ended while it was asked"),
        ("time.sleep(60)", "did not answer in time"),
        ("os.write(1, bytes(3)); time.sleep(60)", "did not answer in time"),
        ("os.write(1, b'\\xff' * 4096)", "ended while it was asked"),
        ("os.write(1, bytes(4))", "ended while it was asked"),
        ("say(b'UDeviceRemoved')", "DeviceRemoved"),
        ("say(b'Sxx')", "the token refused"),
    ],
)
def test_a_process_that_does_not_come_up_is_unavailable_and_then_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, text: str
):
    """It is ended, and not started in a loop."""
    signer = misbehaving(tmp_path, monkeypatch, code)
    try:
        with pytest.raises(Unavailable, match=text):
            signer.open()
        assert signer.process_id is None
        signer._not_before = time.monotonic() + 60
        with pytest.raises(Unavailable, match="a moment ago"):
            signer.open()
    finally:
        signer.close()


async def test_a_signature_that_is_not_the_keys_is_never_given_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A faulty token, or somebody between: neither certificate nor list gets it."""
    forged = sign_with(KEY, b"another message")
    signer = misbehaving(tmp_path, monkeypatch, f"{_OPENS}say(b'S' + bytes.fromhex('{forged.hex()}'))\ntime.sleep(60)")
    try:
        signer.open()
        with pytest.raises(Unavailable, match="not its key's"):
            await signer.sign(b"message")
    finally:
        signer.close()


async def test_who_waits_too_long_for_a_turn_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A slow token serves those that it can; the others do not end its process."""
    signer = misbehaving(tmp_path, monkeypatch, f"{_OPENS}time.sleep(60)")
    try:
        signer.open()
        signer._patience_s = 0.3
        outcomes = await asyncio.gather(*(signer.sign(b"m") for _ in range(3)), return_exceptions=True)
        assert all(isinstance(one, Unavailable) for one in outcomes)
        assert sum("more to sign" in str(one) for one in outcomes) == 2
    finally:
        signer.close()


async def test_what_cannot_be_mended_is_unavailable_to_who_asks_for_a_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A PIN that was changed meanwhile is no fault of theirs."""
    signer = misbehaving(tmp_path, monkeypatch, "say(b'Bthe token refuses this PIN')")
    try:
        with pytest.raises(Unavailable, match="refuses this PIN"):
            await signer.sign(b"m")
    finally:
        signer.close()


@pytest.mark.parametrize("leave", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_signer_cannot_be_pickled_or_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leave: object):
    """A session stays in one place."""
    signer = misbehaving(tmp_path, monkeypatch, "")
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        leave(signer)  # type: ignore[operator]
    signer.close()
