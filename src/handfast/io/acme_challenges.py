"""Looks whether an ACME challenge is met: over HTTP, over TLS, in DNS (RFC 8555 section 8, RFC 8737).

Decides where to look and how much to read: the name is resolved once, only addresses that are allowed are connected to, no
redirect is followed, and every look is bounded in size and time. What is found is judged by `handfast.trust.acme.challenges`.

What is expected comes late now and then (a web server that reloads, a DNS secondary), so a challenge is looked at a few times.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import dns.asyncresolver
import dns.exception
import dns.resolver
import httpx2

from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.io.ports import Clock
from handfast.trust.acme.challenges import (
    ALPN,
    DNS_LABEL,
    HTTP_PATH,
    ChallengeKind,
    check_dns,
    check_http,
    check_tls_alpn,
    key_authorization,
)
from handfast.trust.acme.reach import PRIVATE, Network, reachable

LOOK_S = 10.0
PAUSES_S = (1.0, 3.0, 9.0)
MAX_BODY = 4096
MAX_ADDRESSES = 4
MAX_TEXTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class LookSettings:
    """Where challenges are looked for. ``resolver`` is a DNS server's address and port; None means the system's."""

    http_port: int = 80
    tls_port: int = 443
    resolver: tuple[str, int] | None = None
    networks: tuple[Network, ...] = PRIVATE


DEFAULT_LOOKS = LookSettings()
Look = Callable[[str, str, str], Awaitable[Refusal | None]]


class Lookout:
    """Looks at challenges."""

    def __init__(self, settings: LookSettings, clock: Clock) -> None:
        """Keep where to look."""
        self._settings, self._clock = settings, clock
        self._looks: dict[ChallengeKind, Look] = {
            ChallengeKind.HTTP: self._http,
            ChallengeKind.TLS_ALPN: self._tls,
            ChallengeKind.DNS: self._dns,
        }

    async def prove(self, kind: ChallengeKind, name: str, token: str, thumbprint: str) -> Refusal | None:
        """Look until the challenge is met, four times at most; give why it is not, the last time.

        Returns:
            None, or ACME_NAME_NOT_FOUND, ACME_ADDRESS_NOT_ALLOWED, ACME_UNREACHABLE, ACME_TLS, ACME_WRONG_ANSWER.
        """
        for pause in (*PAUSES_S, None):
            refusal = await self.look(kind, name, token, thumbprint)
            if refusal is None or refusal.reason is Reason.ACME_ADDRESS_NOT_ALLOWED or pause is None:
                break
            await self._clock.sleep(pause)
        return refusal

    async def look(self, kind: ChallengeKind, name: str, token: str, thumbprint: str) -> Refusal | None:
        """Look once, for 10 seconds at most."""
        try:
            async with asyncio.timeout(LOOK_S):
                return await self._looks[kind](name.removeprefix("*."), token, key_authorization(token, thumbprint))
        except TimeoutError:
            return Refusal(Reason.ACME_UNREACHABLE, {"because": f"no answer within {LOOK_S:.0f} s"})

    async def _http(self, name: str, token: str, authorization: str) -> Refusal | None:
        async def fetch(address: str) -> Refusal | None:
            port = self._settings.http_port
            host = name if port == 80 else f"{name}:{port}"
            try:
                status, body = await _get(f"http://{_literal(address)}:{port}{HTTP_PATH}{token}", host)
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
                return _unreachable(address, port, error)
            if status != 200:
                return Refusal(Reason.ACME_WRONG_ANSWER, {"address": address, "status": str(status)})
            return check_http(body, authorization)

        return await self._at(name, fetch)

    async def _tls(self, name: str, _: str, authorization: str) -> Refusal | None:
        async def shake(address: str) -> Refusal | None:
            port = self._settings.tls_port
            try:
                protocol, certificate = await _shown(address, port, name)
            except ssl.SSLError as error:
                return Refusal(Reason.ACME_TLS, {"address": address, "because": error.reason or type(error).__name__})
            except OSError as error:
                return _unreachable(address, port, error)
            if protocol != ALPN or certificate is None:
                return Refusal(Reason.ACME_TLS, {"address": address, "because": f"it does not speak {ALPN}"})
            return check_tls_alpn(certificate, name, authorization)

        return await self._at(name, shake)

    async def _dns(self, name: str, _: str, authorization: str) -> Refusal | None:
        asked = f"{DNS_LABEL}{name}"
        try:
            answer = await self._resolver().resolve(f"{asked}.", "TXT", search=False)
        except dns.exception.DNSException as error:
            return _not_found(asked, error)
        texts = [b"".join(record.strings) for record in list(answer)[:MAX_TEXTS]]
        return check_dns(texts, authorization)

    async def _at(self, name: str, look: Callable[[str], Awaitable[Refusal | None]]) -> Refusal | None:
        """Look at each address of the name that is allowed, until one proves it."""
        found = await self._addresses(name)
        if isinstance(found, Refusal):
            return found
        refusal: Refusal | None = Refusal(Reason.ACME_ADDRESS_NOT_ALLOWED, {"name": name, "addresses": " ".join(found)})
        for address in reachable(found, self._settings.networks):
            if (refusal := await look(address)) is None:
                return None
        return refusal

    async def _addresses(self, name: str) -> list[str] | Refusal:
        """Give a name's first addresses. Without a resolver of our own the system is asked, which knows ``/etc/hosts``."""
        try:
            if self._settings.resolver:
                answers = await self._resolver().resolve_name(f"{name}.", search=False)
                return list(answers.addresses())[:MAX_ADDRESSES]
            found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (dns.exception.DNSException, OSError, UnicodeError) as error:
            return _not_found(name, error)
        return list(dict.fromkeys(str(address[4][0]) for address in found))[:MAX_ADDRESSES]

    def _resolver(self) -> dns.asyncresolver.Resolver:
        resolver = dns.asyncresolver.Resolver(configure=self._settings.resolver is None)
        if self._settings.resolver:
            address, resolver.port = self._settings.resolver
            resolver.nameservers = [address]
        resolver.lifetime = LOOK_S
        return resolver


async def _get(url: str, host: str) -> tuple[int, bytes]:
    """Give status and body, which is read to its end: some servers send it a moment after the head."""
    headers = {"host": host, "accept-encoding": "identity", "user-agent": "handfast"}
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used, and cheaper than the one that would be made
    client = httpx2.AsyncClient(trust_env=False, follow_redirects=False, verify=plain, timeout=LOOK_S)
    async with client, client.stream("GET", url, headers=headers) as response:
        body = b""
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_BODY:
                break
        return response.status_code, body


async def _shown(address: str, port: int, name: str) -> tuple[str | None, bytes | None]:
    """Give the protocol that was agreed on, and the certificate that was shown, which proves nothing by who signed it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([ALPN])
    _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=name)
    try:
        tls = writer.get_extra_info("ssl_object")
        return tls.selected_alpn_protocol(), tls.getpeercert(binary_form=True)
    finally:
        writer.transport.abort()


def _literal(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _unreachable(address: str, port: int, error: Exception) -> Refusal:
    return Refusal(Reason.ACME_UNREACHABLE, {"address": address, "port": str(port), "because": _words(error)})


def _not_found(name: str, error: Exception) -> Refusal:
    return Refusal(Reason.ACME_NAME_NOT_FOUND, {"name": name, "because": _words(error)})


def _words(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:160]
