"""A key in a token: an HSM, a smart card, SoftHSM.

Decides how long the token's library may take, and when it is started anew. Refuses to let it into this process: vendors'
libraries crash, hang and print. It runs in a process of its own (`pkcs11_process`), which sees neither our passphrase nor
any other key.

A wrong PIN is never tried again: tokens lock themselves after a few. Everything else may pass, and is tried again at the next
signature, after a pause where the library did not even start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import stat
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from typing import NoReturn, ParamSpec, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import Hash

from handfast.base.refusal import BadInput, HandfastError, Unavailable
from handfast.io import files
from handfast.io.token_uri import TokenUri
from handfast.trust.algorithms import algorithm_of, verify

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE_S = 10.0
"""How long a signature may wait for its turn, and how long it may take then."""

PAUSE_S = 1.0
"""How long nothing is tried after the process did not come up."""

_MAX_ANSWER = 64 * 1024
_KEY, _SIGNATURE, _BAD = b"K", b"S", b"B"
_COMMAND = (sys.executable, "-P", "-m", "handfast.io.pkcs11_process")
_OTHERS_WRITE = 0o022


class Pkcs11Signer:
    """The `Signer` over a key in a token. Open it with `open_token`, and close it.

    All that touches the token happens in one thread, one call after the other.
    """

    def __init__(self, uri: TokenUri, patience_s: float = PATIENCE_S) -> None:
        """Keep what is needed to reach the key; nothing is started."""
        self._uri, self._patience_s = uri, patience_s
        self._held: list[subprocess.Popen[bytes]] = []  # at most one
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pkcs11")
        self._public_key_der = b""
        self._not_before, self._refused = 0.0, ""
        weakref.finalize(self, _end, self._thread, self._held)

    @property
    def public_key_der(self) -> bytes:
        """The key's SubjectPublicKeyInfo, DER."""
        return self._public_key_der

    @property
    def process_id(self) -> int | None:
        """The process that holds the token's library now; None where there is none."""
        return self._held[0].pid if self._held else None

    def open(self) -> None:
        """Start the process, log in, and read the public key. Blocks.

        Raises:
            BadInput: there is no such module, token or key, its PIN is wrong or open to others, or no authority has such a key.
            Unavailable: the token does not answer.
        """
        self._soon(self._open).result()

    async def sign(self, message: bytes) -> bytes:
        """Sign ``message`` by the key's own algorithm; what comes back is verified.

        Raises:
            Unavailable: the token does not answer in time, refuses, or gave a signature that is not its own.
        """
        try:
            return await asyncio.wrap_future(self._signing(message))
        except BadInput as error:
            # Nobody who asks for a certificate can mend it: to them the key is away.
            raise Unavailable(f"the token cannot be used: {error}", hint=error.hint) from error

    def sign_now(self, message: bytes) -> bytes:
        """Sign as `sign` does, and wait for it: for a root, which signs seldom and not in an event loop.

        Raises:
            BadInput: the token, its key or its PIN is not what it was.
            Unavailable: as `sign`.
        """
        return self._signing(message).result()

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(RuntimeError):
            self._thread.submit(self._kill).result()
        self._thread.shutdown()

    def __repr__(self) -> str:
        """Name the key by its public half."""
        return f"Pkcs11Signer(public key sha256 {sha256(self._public_key_der).hexdigest()[:16]})"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied: a session stays in one place."""
        raise TypeError("a signer cannot be pickled or copied")

    # In the one thread

    def _signing(self, message: bytes) -> Future[bytes]:
        return self._soon(self._signed, message, time.monotonic() + self._patience_s)

    def _soon(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> Future[T]:
        try:
            return self._thread.submit(work, *arguments, **named)
        except RuntimeError as error:
            raise Unavailable("the token's signer is closed") from error

    def _open(self) -> None:
        if self._held and self._held[0].poll() is None:
            return
        if self._refused:
            raise BadInput(self._refused, file=str(self._uri.pin_file), hint="correct it, and start the server anew")
        if time.monotonic() < self._not_before:
            raise Unavailable("the token did not answer a moment ago", hint="is it connected?")
        self._not_before = time.monotonic() + PAUSE_S
        _check(self._uri)
        self._kill()
        self._held.append(_start())
        try:
            self._keep(self._asked(self._uri.text.encode(), _KEY))
        except HandfastError:
            self._kill()
            raise
        self._not_before = 0.0

    def _keep(self, public_key_der: bytes) -> None:
        algorithm_of(public_key_der)
        if self._public_key_der and public_key_der != self._public_key_der:
            raise BadInput("there is another key in the token now", key=self._uri.shown)
        self._public_key_der = public_key_der

    def _signed(self, message: bytes, turn_until: float) -> bytes:
        if time.monotonic() > turn_until:
            raise Unavailable("the token has more to sign than it can", hint="try again in a while")
        self._open()
        algorithm = algorithm_of(self._public_key_der)
        asked = message
        if algorithm.hash:
            digest = Hash(algorithm.hash)
            digest.update(message)
            asked = digest.finalize()
        signature = self._asked(asked, _SIGNATURE)
        try:
            verify(signature, message, self._public_key_der)
        except InvalidSignature as error:
            raise Unavailable("the token gave a signature that is not its key's") from error
        return signature

    def _asked(self, data: bytes, wanted: bytes) -> bytes:
        """Ask the process; end it where it does not answer in time or at all."""
        try:
            answer = self._exchange(data, time.monotonic() + self._patience_s)
        except (OSError, EOFError) as error:
            self._kill()
            late = isinstance(error, TimeoutError)
            what = "did not answer in time" if late else "ended while it was asked"
            raise Unavailable(f"the token's library {what}", hint="it is started anew at the next signature") from error
        kind, rest = answer[:1], answer[1:]
        if kind == wanted:
            return rest
        text = rest.decode("utf-8", "replace")
        if kind == _BAD:
            self._refused = text if "PIN" in text else ""  # of the others no number does harm
            raise BadInput(text, hint="compare the URI with what 'pkcs11-tool --list-objects' shows")
        self._kill()  # a session that has failed once is not used again
        raise Unavailable(f"the token refused: {text}", hint="is it connected, and is it logged in?")

    def _exchange(self, data: bytes, until: float) -> bytes:
        (process,) = self._held
        assert process.stdin
        assert process.stdout
        sink, source = process.stdin.fileno(), process.stdout.fileno()
        _write(sink, len(data).to_bytes(4, "big") + data, until)
        size = int.from_bytes(_read(source, 4, until), "big")
        if not 0 < size <= _MAX_ANSWER:
            raise EOFError
        return _read(source, size, until)

    def _kill(self) -> None:
        while self._held:
            _kill(self._held.pop())


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()


def _end(thread: ThreadPoolExecutor, held: list[subprocess.Popen[bytes]]) -> None:
    """Let go of a signer that nobody closed, at the latest when this program ends."""
    thread.shutdown(wait=False)
    while held:
        _kill(held.pop())


def open_token(uri: TokenUri) -> Pkcs11Signer:
    """Open a key in a token.

    Raises:
        BadInput: as `Pkcs11Signer.open`.
        Unavailable: the token does not answer.
    """
    signer = Pkcs11Signer(uri)
    try:
        signer.open()
    except HandfastError:
        signer.close()
        raise
    return signer


def _check(uri: TokenUri) -> None:
    """Refuse a PIN that others can read, and a library that others can replace: it runs with the token's session."""
    files.read_secret(uri.pin_file)
    with files.explained("read", uri.module):
        seen = uri.module.stat()
    if not stat.S_ISREG(seen.st_mode) or seen.st_mode & _OTHERS_WRITE or seen.st_uid not in {0, os.geteuid()}:
        raise BadInput(
            "the token's library is no plain file that only its owner can write, root or this user",
            file=str(uri.module),
            hint="chmod go-w, and chown root",
        )


def _start() -> subprocess.Popen[bytes]:
    # Third-party code runs there: what of ours is in the environment stays out of it.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HANDFAST_", "CREDENTIALS_"))
    }
    try:
        process = subprocess.Popen(  # noqa: S603 - our own module
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            bufsize=0,
            start_new_session=True,  # a Ctrl-C for the server lets it sign to its end
        )
    except OSError as error:
        raise Unavailable(f"the signer's process cannot be started: {error.strerror or error}") from error
    assert process.stdin
    os.set_blocking(process.stdin.fileno(), False)
    return process


def _write(sink: int, data: bytes, until: float) -> None:
    rest = memoryview(data)
    while rest:
        _wait(sink, until, writing=True)
        rest = rest[os.write(sink, rest) :]


def _read(source: int, size: int, until: float) -> bytes:
    data = b""
    while len(data) < size:
        _wait(source, until, writing=False)
        more = os.read(source, size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _wait(handle: int, until: float, *, writing: bool) -> None:
    waiting = select.poll()
    waiting.register(handle, select.POLLOUT if writing else select.POLLIN)
    left = until - time.monotonic()
    if left <= 0 or not waiting.poll(left * 1000):
        raise TimeoutError
