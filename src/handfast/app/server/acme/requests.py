"""Reads signed requests (RFC 8555 section 6): who asks, that they asked us and this URL, and that they ask now.

Decides in which order things are checked: what costs nothing first, what keeps something last. A nonce is kept as used only when
the request is known to come from an account, or from somebody who may have one: strangers fill no store.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request

from handfast.app.server.acme.answers import Told, Urls, told
from handfast.app.server.platform import Platform
from handfast.base.refusal import BadInput
from handfast.trust.acme import jws, nonces
from handfast.trust.acme.accounts import Account
from handfast.trust.acme.jws import Jws, strict_json
from handfast.trust.acme.keys import AccountKey, read_key
from handfast.trust.acme.problems import AcmeError, Problem

CONTENT_TYPE = "application/jose+json"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was signed by ``key``. Its nonce is spent, unless it came without an account."""

    urls: Urls
    url: str
    key: AccountKey
    jws: Jws
    account: Account | None = None

    @property
    def is_get(self) -> bool:
        """Tell whether it is a POST-as-GET (RFC 8555 section 6.3)."""
        return self.jws.payload == b""

    def payload(self) -> Mapping[str, Any]:
        """Give what is asked for.

        Raises:
            BadInput: it is no JSON object.
        """
        plain = strict_json(self.jws.payload)
        if not isinstance(plain, dict):
            raise BadInput("the payload is a JSON object", key="payload")
        return plain


class Desk:
    """Where requests come in. ``names`` are the host names that this server is called by."""

    def __init__(self, platform: Platform, names: Collection[str]) -> None:
        """Keep who we are. The nonces' key is read when it is first needed."""
        self._platform, self._names = platform, frozenset(name.lower() for name in names)
        self._nonce_key = b""

    async def nonce(self) -> str:
        """Make a nonce."""
        random = secrets.token_bytes(nonces.RANDOM_BYTES)
        return nonces.make_nonce(await self._key(), self._platform.clock.now(), random)

    def urls(self, request: Request) -> Urls:
        """Give our URLs, by the name that the client calls us.

        It has to be one of ours: a signed URL says whom a request is meant for, and a hostile server that hands on what its
        own clients sign must not be able to say that it is meant for us.
        """
        host = request.headers.get("host", "")
        name, _, port = host.lower().partition(":")
        if name not in self._names or not (port.isascii() and (port.isdigit() or not port)) or len(port) > 5:
            raise told(AcmeError.MALFORMED, "this server does not go by that name; see the host in the directory", 421)
        if request.path_params.get("domain") != str(self._platform.trust_domain):
            raise told(AcmeError.MALFORMED, "this server has no such trust domain", 404)
        return Urls(f"https://{host}/acme/{self._platform.trust_domain}")

    async def of_account(self, request: Request) -> tuple[Asked, Account]:
        """Read a request that an account signed; spend its nonce.

        Raises:
            BadInput: its form is wrong. Told: it does not count.
        """
        urls, url, read = await self._read(request)
        if not read.kid:
            raise told(AcmeError.MALFORMED, "this request is signed with an account's URL as its kid")
        asked, account = await self._with_kid(urls, url, read)
        await self.spend(asked)
        return asked, account

    async def of_key(self, request: Request) -> Asked:
        """Read a request that carries its key. Its nonce is for the caller to spend, by `spend`."""
        urls, url, read = await self._read(request)
        if read.kid:
            raise told(AcmeError.MALFORMED, "this request is signed with a jwk, not with a kid")
        return _signed(Asked(urls, url, ours(read_key(read.jwk)), read))

    async def of_either(self, request: Request) -> Asked:
        """Read a request that an account signed, or that carries its key; its nonce is for the caller to spend."""
        urls, url, read = await self._read(request)
        if read.kid:
            return (await self._with_kid(urls, url, read))[0]
        return _signed(Asked(urls, url, ours(read_key(read.jwk)), read))

    async def spend(self, asked: Asked) -> None:
        """Use the request's nonce up.

        Raises:
            Told: it was used before, here or on another server, or has ended.
        """
        nonce, now = asked.jws.nonce, self._platform.clock.now()
        ends = ours(nonces.check_nonce(await self._key(), nonce, now))
        if not await self._platform.ledger.use_acme_nonce(nonce, ends):
            raise Told(nonces.bad_nonce())

    async def _read(self, request: Request) -> tuple[Urls, str, Jws]:
        urls = self.urls(request)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != CONTENT_TYPE:
            raise told(AcmeError.MALFORMED, f"a request's content type is {CONTENT_TYPE}", 415)
        read = jws.parse(await _body(request))
        ours(jws.check_algorithm(read))
        url = _url(urls, request)
        if read.url != url:
            raise told(AcmeError.UNAUTHORIZED, "the request was signed for another URL", 401)
        ours(nonces.check_nonce(await self._key(), read.nonce, self._platform.clock.now()))
        return urls, url, read

    async def _with_kid(self, urls: Urls, url: str, read: Jws) -> tuple[Asked, Account]:
        prefix = f"{urls.base}/account/"
        account_id = read.kid.removeprefix(prefix)
        account = await self._platform.ledger.acme_account(account_id) if read.kid == prefix + account_id else None
        if account is None:
            raise told(AcmeError.ACCOUNT_DOES_NOT_EXIST, "there is no account with this kid")
        asked = _signed(Asked(urls, url, account.key, read, account))
        if account.deactivated:
            raise told(AcmeError.UNAUTHORIZED, "the account is deactivated", 401)
        return asked, account

    async def _key(self) -> bytes:
        if not self._nonce_key:
            self._nonce_key = await self._platform.ledger.acme_secret("nonces", nonces.KEY_BYTES)
        return self._nonce_key


def ours(outcome: T | Problem) -> T:
    """Give the outcome, or raise the problem that it is.

    Raises:
        Told: it is a problem.
    """
    if isinstance(outcome, Problem):
        raise Told(outcome)
    return outcome


def _signed(asked: Asked) -> Asked:
    ours(jws.verify(asked.jws, asked.key))
    return asked


def _url(urls: Urls, request: Request) -> str:
    """Give the URL that was asked for, as it stands on the wire."""
    scheme_and_host = urls.base.partition("/acme/")[0]
    query = request.scope.get("query_string", b"").decode("latin-1")
    path = request.scope.get("raw_path", request.scope["path"].encode()).decode("latin-1")
    return f"{scheme_and_host}{path}{'?' if query else ''}{query}"


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > jws.MAX_REQUEST:
            raise told(AcmeError.MALFORMED, f"a request is {jws.MAX_REQUEST} bytes long at most", 413)
    return body
