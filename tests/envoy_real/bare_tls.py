"""A TLS 1.2 client (RFC 5246, RFC 5289) that shows any octets as its certificate: OpenSSL would not send them.

One cipher, one group, no look at the server. It speaks for hostile clients, and is no use to others.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import socket

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CHANGE, ALERT, HANDSHAKE, DATA = 20, 21, 22, 23
HELLO, CERTIFICATE, KEY_EXCHANGE, HELLO_DONE, VERIFY, CLIENT_KEY, FINISHED = 1, 11, 12, 14, 15, 16, 20
_VERSION, _AES_128_GCM, _X25519, _P256, _ECDSA_P256 = b"\x03\x03", b"\xc0\x2b", b"\x00\x1d", b"\x00\x17", b"\x04\x03"


class Refused(ConnectionError):
    """The server sent an alert, or closed the connection."""


def _vector(width: int, content: bytes) -> bytes:
    return len(content).to_bytes(width, "big") + content


def _message(kind: int, content: bytes) -> bytes:
    return bytes([kind]) + _vector(3, content)


def _expand(secret: bytes, label: bytes, seed: bytes, size: int) -> bytes:
    """Give so many octets of the pseudo-random function (RFC 5246 section 5)."""
    out, step = b"", label + seed
    while len(out) < size:
        step = hmac.digest(secret, step, "sha256")
        out += hmac.digest(secret, step + label + seed, "sha256")
    return out[:size]


class _Direction:
    """One direction's key, and how many records it has covered."""

    def __init__(self, key: bytes, salt: bytes) -> None:
        self.cipher, self.salt, self.count = AESGCM(key), salt, 0

    def _associated(self, kind: int, size: int) -> bytes:
        number = self.count.to_bytes(8, "big")
        self.count += 1
        return number + bytes([kind]) + _VERSION + size.to_bytes(2, "big")

    def seal(self, kind: int, content: bytes) -> bytes:
        """Encrypt one record's content."""
        nonce = self.count.to_bytes(8, "big")
        return nonce + self.cipher.encrypt(self.salt + nonce, content, self._associated(kind, len(content)))

    def open(self, kind: int, content: bytes) -> bytes:
        """Decrypt one record's content."""
        associated = self._associated(kind, len(content) - 24)
        return self.cipher.decrypt(self.salt + content[:8], content[8:], associated)


class BareTls:
    """One connection."""

    def __init__(self, plain: socket.socket, name: str, chain: list[bytes], key: ec.EllipticCurvePrivateKey) -> None:
        """Finish a handshake with this chain.

        Raises:
            Refused: the server does not want it.
        """
        self.plain, self.held, self.said = plain, b"", b""
        self.sealed: _Direction | None = None
        self.opened: _Direction | None = None
        random, own = os.urandom(32), x25519.X25519PrivateKey.generate()
        self._say(_message(HELLO, _hello(random, name)))
        theirs, peer = self._their_hello()
        self._say(_message(CERTIFICATE, _vector(3, b"".join(_vector(3, one) for one in chain))))
        self._say(_message(CLIENT_KEY, _vector(1, own.public_key().public_bytes_raw())))
        proof = key.sign(self.said, ec.ECDSA(hashes.SHA256()))
        self._say(_message(VERIFY, _ECDSA_P256 + _vector(2, proof)))
        shared = own.exchange(x25519.X25519PublicKey.from_public_bytes(peer))
        secret = _expand(shared, b"master secret", random + theirs, 48)
        keys = _expand(secret, b"key expansion", theirs + random, 40)
        self._send(CHANGE, b"\x01")
        self.sealed = _Direction(keys[:16], keys[32:36])
        said = hashlib.sha256(self.said).digest()
        self._say(_message(FINISHED, _expand(secret, b"client finished", said, 12)))
        assert self._record()[0] == CHANGE
        self.opened = _Direction(keys[16:32], keys[36:40])
        assert self._record()[1][0] == FINISHED

    def ask(self, request: bytes) -> bytes:
        """Send one HTTP/1.1 request, and read an answer that tells its length.

        Raises:
            Refused: the answer does not come whole.
        """
        self._send(DATA, request)
        heard = b""
        while not _whole(heard):
            kind, content = self._record()
            heard += content if kind == DATA else b""
        return heard

    def _their_hello(self) -> tuple[bytes, bytes]:
        """Give the server's random and its half of the key exchange."""
        random = peer = b""
        while True:
            kind, content = self._hear()
            if kind == 2:
                random = content[2:34]
            elif kind == KEY_EXCHANGE:
                assert content[:4] == b"\x03" + _X25519 + b"\x20"
                peer = content[4:36]
            elif kind == HELLO_DONE:
                return random, peer

    def _say(self, message: bytes) -> None:
        self.said += message
        # A record holds 16 kB (RFC 5246 section 6.2.1).
        for at in range(0, len(message), 16384):
            self._send(HANDSHAKE, message[at : at + 16384])

    def _hear(self) -> tuple[int, bytes]:
        while len(self.held) < 4 or len(self.held) < 4 + int.from_bytes(self.held[1:4], "big"):
            self.held += self._record()[1]
        end = 4 + int.from_bytes(self.held[1:4], "big")
        message, self.held = self.held[:end], self.held[end:]
        self.said += message
        return message[0], message[4:]

    def _send(self, kind: int, content: bytes) -> None:
        covered = self.sealed.seal(kind, content) if self.sealed else content
        try:
            self.plain.sendall(bytes([kind]) + _VERSION + _vector(2, covered))
        except OSError as error:
            raise Refused from error

    def _record(self) -> tuple[int, bytes]:
        head = self._read(5)
        content = self._read(int.from_bytes(head[3:], "big"))
        if self.opened:
            content = self.opened.open(head[0], content)
        if head[0] == ALERT:
            raise Refused(f"alert {content.hex()}")
        return head[0], content

    def _read(self, size: int) -> bytes:
        octets = b""
        while len(octets) < size:
            try:
                more = self.plain.recv(size - len(octets))
            except OSError as error:
                raise Refused from error
            if not more:
                raise Refused("closed")
            octets += more
        return octets


def _whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: ([0-9]+)", head)
    return bool(end and length) and len(body) >= int(length[1])


def _hello(random: bytes, name: str) -> bytes:
    extensions = {
        0: _vector(2, b"\x00" + _vector(2, name.encode())),
        10: _vector(2, _X25519 + _P256),  # the second for the server's certificate
        11: _vector(1, b"\x00"),
        13: _vector(2, _ECDSA_P256),
    }
    body = b"".join(number.to_bytes(2, "big") + _vector(2, content) for number, content in extensions.items())
    return _VERSION + random + _vector(1, b"") + _vector(2, _AES_128_GCM) + _vector(1, b"\x00") + _vector(2, body)
