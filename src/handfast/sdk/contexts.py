"""TLS contexts from PEM in memory, and a client's context whose identity can be replaced while it is in use.

Decides protocol versions, resumption and verification, so that nobody else has to. Refuses to know where the PEM comes
from and when to replace it. A context is built whole and swapped whole: changing one in use lets handshakes go out without a
certificate, cannot take an authority away, and breaks it for good on a key that does not fit.
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from handfast.base.refusal import BadInput
from handfast.sdk.handshake import ServerContext

LONGEST_PEM = 1024 * 1024
LONGEST_CRLS = 64 * 1024 * 1024

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_FD_PATHS = Path("/proc/self/fd")


def server_context(
    chain_pem: bytes,
    key_pem: bytes,
    client_roots_pem: bytes,
    *,
    crl_pem: bytes | None = None,
    certificate: Literal["required", "optional"] = "required",
) -> ServerContext:
    """Build a server's context: TLS 1.3, no resumption, clients verified against their roots and nothing else.

    ``chain_pem`` has the leaf first. With ``crl_pem`` each client's issuer needs a current list in it, or its clients are
    refused; only the leaf's issuer is asked. ``optional`` lets clients in that send no certificate; one that is sent must hold.
    HTTP/1.1 is what ALPN offers (RFC 7301).

    Raises:
        BadInput: something cannot be read, the key does not fit the certificate, or there are no roots.
    """
    context = ServerContext()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0  # a revoked client would resume with a ticket, unverified
    context.verify_mode = ssl.CERT_REQUIRED if certificate == "required" else ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    _identify(context, chain_pem, key_pem)
    _trust(context, client_roots_pem, crl_pem)
    return context


def client_context(
    chain_pem: bytes, key_pem: bytes, server_roots_pem: bytes, *, crl_pem: bytes | None = None
) -> ssl.SSLContext:
    """Build a client's context: TLS 1.3, the server's name checked, its chain verified against these roots alone.

    ``chain_pem`` has the leaf first. Wrap it in a `RotatingSSLContext` for anything that lives longer than its certificate.

    Raises:
        BadInput: something cannot be read, the key does not fit the certificate, or there are no roots.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _identify(context, chain_pem, key_pem)
    _trust(context, server_roots_pem, crl_pem)
    return context


def anonymous_context(server_roots_pem: bytes) -> ssl.SSLContext:
    """Build the context of a client that has no certificate yet: as `client_context`, without one of its own.

    Raises:
        BadInput: there are no roots, or they cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _trust(context, server_roots_pem, None)
    return context


def _identify(context: ssl.SSLContext, chain_pem: bytes, key_pem: bytes) -> None:
    """Load certificate and key. A key under a passphrase is refused: OpenSSL would ask for it on the terminal."""
    _bound(chain_pem, LONGEST_PEM, "certificate chain")
    _bound(key_pem, LONGEST_PEM, "key")
    try:
        with _as_file(chain_pem) as chain, _as_file(key_pem) as key:
            context.load_cert_chain(chain, key, password=b"")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise BadInput(
                "the key does not belong to the certificate",
                hint="give the key that the certificate was issued for; the chain begins with the leaf",
            ) from None
        raise BadInput(
            f"certificate chain or key cannot be used ({error.reason or 'unreadable'})",
            hint="both are PEM; the chain begins with the leaf; the key has no passphrase",
        ) from None


def _trust(context: ssl.SSLContext, roots_pem: bytes, crl_pem: bytes | None) -> None:
    with _or_bad_input("the roots are no certificates", hint="give one or more certificates in PEM"):
        context.load_verify_locations(cadata=_roots(roots_pem))
    if crl_pem is None:
        return
    hint = "give one or more blocks of `X509 CRL` in PEM, and nothing else"
    with _or_bad_input("the revocation lists are none", hint=hint), _as_file(_crls(crl_pem)) as crls:
        context.load_verify_locations(cafile=crls)
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


@contextlib.contextmanager
def _or_bad_input(message: str, *, hint: str) -> Iterator[None]:
    """Give one answer to what cannot be read. OpenSSL is stricter than the library that reads before it."""
    try:
        yield
    except (ValueError, x509.InvalidVersion, ssl.SSLError):
        raise BadInput(message, hint=hint) from None


def _roots(pem: bytes) -> bytes:
    """Read the roots, and give them as DER, one after the other."""
    _bound(pem, LONGEST_PEM, "roots")
    return b"".join(root.public_bytes(Encoding.DER) for root in x509.load_pem_x509_certificates(pem))


def _crls(pem: bytes) -> bytes:
    """Keep revocation lists only: OpenSSL reads them with a function that would take a certificate beside them for a root."""
    _bound(pem, LONGEST_CRLS, "revocation lists")
    blocks = list(_BLOCK.finditer(pem))
    _require_crls(blocks)
    return b"\n".join(block.group() for block in blocks) + b"\n"


def _require_crls(blocks: Iterable[re.Match[bytes]]) -> None:
    if not blocks:
        raise ValueError
    for block in blocks:
        if block.group(1) != b"X509 CRL":
            raise ValueError
        x509.load_pem_x509_crl(block.group())


def _bound(pem: bytes, most: int, what: str) -> None:
    if len(pem) > most:
        raise BadInput(f"{what}: {len(pem)} bytes are more than the {most} that are read")


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Lend content a path, since OpenSSL's loaders want one: memory on Linux, elsewhere a file that only we can open."""
    if hasattr(os, "memfd_create") and _FD_PATHS.is_dir():
        with os.fdopen(os.memfd_create("handfast"), "wb") as memory:
            os.fchmod(memory.fileno(), 0o600)
            memory.write(content)
            memory.flush()
            yield str(_FD_PATHS / str(memory.fileno()))
    else:
        with tempfile.TemporaryDirectory(prefix="handfast-") as private:
            path = Path(private) / "pem"
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
            yield str(path)


def _followed(name: str) -> Any:  # noqa: ANN401 - stands in for attributes of several types
    """Read from the context that counts; drop writes, which would loosen what its owner decided."""
    return property(lambda self: getattr(self._current, name), lambda _self, _value: None)


class RotatingSSLContext(ssl.SSLContext):
    """A client's context for any library: each new connection uses the context that was given last.

    Hand it to httpx, aiohttp, asyncpg, urllib3 or requests, and call `rotate` when there is a new certificate. The swap is one
    assignment, so that no handshake sees half of it, in any thread. Open connections keep what they began with; a pool that
    must let go of an old identity has to close them.

    Its verification is fixed: writes of `verify_mode` and its like are dropped, and so are further roots, because requests
    puts the public authorities into each context that it is given.
    """

    _current: ssl.SSLContext

    def __new__(cls, context: ssl.SSLContext) -> Self:  # noqa: ARG004 - for `__init__`
        """Make the shell. It trusts nobody, so that whatever went past `wrap_socket` and `wrap_bio` would fail."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, context: ssl.SSLContext) -> None:
        """Begin with ``context``, which belongs to this object from now on."""
        self._alpn: list[str] = []
        self._changing = threading.Lock()
        self._current = context

    def rotate(self, context: ssl.SSLContext) -> None:
        """Use ``context`` for connections from now on.

        Build it first: `client_context` raises on a bad pair, and the old context stays.
        """
        with self._changing:
            if self._alpn:
                context.set_alpn_protocols(self._alpn)
            self._current = context

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Offer these protocols, now and after each rotation. HTTP clients set them before each connection."""
        wanted = list(alpn_protocols)
        with self._changing:
            if wanted != self._alpn:
                self._current.set_alpn_protocols(wanted)
                self._alpn = wanted

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:  # noqa: ANN401
        """Do as the current context does."""
        return self._current.wrap_socket(*args, **kwargs)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:  # noqa: ANN401
        """Do as the current context does."""
        return self._current.wrap_bio(*args, **kwargs)

    def get_ca_certs(self, binary_form: bool = False) -> Any:  # noqa: ANN401
        """Give the current context's roots."""
        return self._current.get_ca_certs(binary_form=binary_form)

    def cert_store_stats(self) -> dict[str, int]:
        """Count what the current context trusts."""
        return self._current.cert_store_stats()

    def get_ciphers(self) -> Any:  # noqa: ANN401
        """List the current context's cipher suites."""
        return self._current.get_ciphers()

    def load_verify_locations(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Do nothing. Trust comes with `rotate` alone."""

    def load_default_certs(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Do nothing. Trust comes with `rotate` alone."""

    def set_default_verify_paths(self) -> None:
        """Do nothing. Trust comes with `rotate` alone."""

    def load_cert_chain(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        """Refuse: the identity comes with `rotate`.

        Raises:
            BadInput: always.
        """
        raise BadInput("a rotating context takes no certificate of its own", hint="call rotate() with a new context")

    verify_mode = _followed("verify_mode")
    check_hostname = _followed("check_hostname")
    verify_flags = _followed("verify_flags")
    options = _followed("options")
    minimum_version = _followed("minimum_version")
    maximum_version = _followed("maximum_version")
