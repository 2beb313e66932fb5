"""What a gateway serves, and to whom: hosts, routes, rules.

Decides what a rule can say. The law of this file: a rule's order never changes a decision. Routes are chosen by the longest
path, a deny wins over every allow, and what no rule allows is denied.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from handfast.base.spiffe import SpiffeId, TrustDomain

JWKS_PATH = "/.well-known/jwks.json"
"""Where a host with sessions shows their public keys, to anyone that its handshake lets in."""


class CertificateMode(StrEnum):
    """Whether a host asks a client for a certificate, and whether a handshake without one fails."""

    OFF = "off"
    OPTIONAL = "optional"
    REQUIRED = "required"


class RouteMode(StrEnum):
    """Whether a route's decision binds (``enforce``) or is recorded only (``report``)."""

    ENFORCE = "enforce"
    REPORT = "report"


class Open(StrEnum):
    """The two rules that name no identity."""

    ANYONE = "anyone"
    ANY_CERTIFICATE = "any-certificate"


class IdentityField(StrEnum):
    """What of a client's certificate a route's own header may carry."""

    IDENTITY = "identity"
    NAME = "name"
    COMMON_NAME = "common-name"
    SUBJECT = "subject"
    ISSUER = "issuer"
    SERIAL = "serial"
    FINGERPRINT = "fingerprint"
    DNS = "dns"
    NOT_AFTER = "not-after"


@dataclass(frozen=True, slots=True, order=True)
class IdentityPattern:
    """One identity, or all below a prefix of a trust domain.

    ``prefix`` False: ``name`` is the whole name. ``prefix`` True: every name that begins with ``name``, which is empty or
    ends with ``/``.
    """

    trust_domain: TrustDomain
    name: str
    prefix: bool = False

    def matches(self, identity: SpiffeId) -> bool:
        """Tell whether ``identity`` is meant."""
        if identity.trust_domain != self.trust_domain:
            return False
        return identity.name.startswith(self.name) if self.prefix else identity.name == self.name

    def __str__(self) -> str:
        """Give the text as in a world file, with its trust domain."""
        return f"spiffe://{self.trust_domain}/{self.name}{'*' if self.prefix else ''}"


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """An identity, and the methods that it may use or not; no methods named means all."""

    identity: IdentityPattern
    methods: tuple[str, ...] = ()

    def covers_method(self, method: str) -> bool:
        """Tell whether the rule speaks of ``method``."""
        return not self.methods or method in self.methods


@dataclass(frozen=True, slots=True)
class Upstream:
    """The service behind a route: ``http`` or ``https``, host and port."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """Give the URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Route:
    """One path prefix of a host, what is behind it, and who may come.

    ``path`` matches itself and all below it, in whole segments: ``/v1`` matches ``/v1`` and ``/v1/a``, not ``/v10``.
    ``methods`` (none named means all) bounds what anybody may do here. ``headers`` are further request headers with what
    they carry.
    """

    path: str
    upstream: Upstream
    allow: Open | tuple[Rule, ...]
    deny: tuple[Rule, ...] = ()
    methods: tuple[str, ...] = ()
    mode: RouteMode = RouteMode.ENFORCE
    headers: tuple[tuple[str, IdentityField], ...] = ()

    def covers_method(self, method: str) -> bool:
        """Tell whether anybody may use ``method`` here."""
        return not self.methods or method in self.methods

    def matches(self, path: str) -> bool:
        """Tell whether ``path`` (normalised, no query) is this route's or below it."""
        return self.path in {"/", path} or path.startswith(f"{self.path}/")


@dataclass(frozen=True, slots=True, order=True)
class Listen:
    """An address and a port that a gateway listens on."""

    address: str
    port: int

    def __str__(self) -> str:
        """Give ``address:port``."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Clients:
    """Whose certificates count at a host, and whether one is asked for.

    ``trust`` are trust domains, ``partners`` the authorities that are not ours. ``lent`` are, of all authorities of the world, the
    names that their rules may give: who bears one of those was named by that authority, and counts where that one does.
    """

    trust: tuple[TrustDomain, ...]
    certificate: CertificateMode
    partners: tuple[str, ...] = ()
    lent: tuple[tuple[str, IdentityPattern], ...] = ()

    def admits(self, identity: SpiffeId) -> bool:
        """Tell whether whoever vouches for ``identity`` counts here."""
        for authority, pattern in self.lent:
            if pattern.matches(identity):
                return authority in self.partners
        return identity.trust_domain in self.trust


@dataclass(frozen=True, slots=True)
class Host:
    """One server name that gateways serve. ``session`` asks for the ``Handfast_Authorization`` cookie.

    ``must_staple``: its certificate tells clients to insist on a stapled OCSP response (RFC 7633).
    """

    name: str
    listen: Listen
    clients: Clients
    routes: tuple[Route, ...]
    session: bool = False
    must_staple: bool = False

    def route_for(self, path: str) -> Route | None:
        """Give the route with the longest path that matches."""
        return max((r for r in self.routes if r.matches(path)), key=lambda r: len(r.path), default=None)
