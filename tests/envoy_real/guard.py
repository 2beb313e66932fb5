"""A gateway that asks for a certificate and hides nothing of it from the service: for what it makes of odd certificates."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from handfast.access.identify import identify, standing
from handfast.access.policy import IdentityField
from handfast.access.world_file import parse_world
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.base.spiffe import SpiffeId, TrustDomain
from handfast.trust.facts import facts
from tests.envoy_real.bare_tls import BareTls, Refused
from tests.envoy_real.forging import DNS, RFC822, URI, Draft, Forged, forge, key, names_in
from tests.envoy_real.lone import (
    GONE,
    LOOPBACK,
    Answer,
    Connection,
    Lone,
    client_context,
    echoes,
    read_answer,
    resources_of,
    running,
    slice_of,
)
from tests.support.pki import Pki
from tests.support.ports import free_port
from tests.support.static_envoy import static_bootstrap

HOST = "id.test"
HEADERS = {f"X-Handed-{one.value.title()}": one.value for one in IdentityField}


class Tls(StrEnum):
    """Who refused a certificate before it came to a request: the client's own library, or the gateway's."""

    AT_THE_CLIENT = "refused by the client's TLS"
    AT_THE_GATEWAY = "refused by the gateway's TLS"


@dataclass(frozen=True)
class Guard:
    """The gateway, its port and the authority that it trusts."""

    envoy: Lone
    pki: Pki
    port: int
    directory: Path

    def context(self, shown: Forged, *, tls12: bool = False) -> ssl.SSLContext:
        """Make a client that shows a certificate.

        Raises:
            SSLError: the client's own library will not have it.
        """
        chain, key = self.directory / "forged.pem", self.directory / "forged.key"
        chain.write_text(shown.chain_pem)
        key.write_bytes(shown.key_pem)
        context = client_context(None, self.directory, tls12=tls12)
        context.load_cert_chain(chain, key)
        return context

    def connect(self, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Connection:
        """Open a connection."""
        return Connection(context, self.port, HOST, session)

    def meet(self, shown: Forged) -> Answer | Tls:
        """Ask with a certificate, or tell where TLS refused it."""
        try:
            context = self.context(shown)
        except ssl.SSLError:
            return Tls.AT_THE_CLIENT
        try:
            with self.connect(context) as connection:
                return connection.ask("/")
        except GONE:
            return Tls.AT_THE_GATEWAY

    def face(self, shown: Forged) -> Answer | Tls:
        """Ask with a certificate (P-256) that no client's library has a say in."""
        own = key("p256")
        assert isinstance(own, ec.EllipticCurvePrivateKey)
        with socket.create_connection((LOOPBACK, self.port), 10) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                bare = BareTls(plain, HOST, [shown.der, self.pki.issuing.cert_der], own)
            except Refused:
                return Tls.AT_THE_GATEWAY
            return read_answer(bare.ask(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()))

    def forge(self, draft: Draft) -> Forged:
        """Have the trusted authority sign a draft."""
        return forge(self.pki, draft)


@contextmanager
def guard(directory: Path, *denied: Forged, pki: Pki | None = None) -> Iterator[Guard]:
    """Run one; in the end it has neither crashed nor complained. ``denied`` certificates are revoked."""
    authority, port = pki or Pki(), free_port()
    with echoes(1) as (service,):
        route = {"path": "/", "upstream": f"http://127.0.0.1:{service}", "allow": "any-certificate", "headers": HEADERS}
        host = {"listen": f"127.0.0.1:{port}", "clients": {"certificate": "optional"}, "routes": [route]}
        world = parse_world(json.dumps({"trust_domain": "example.org", "hosts": {HOST: host}}))
        slice_ = slice_of(world, authority, *(facts(one.der).fingerprint for one in denied))
        config = static_bootstrap(resources_of(slice_, authority, directory))
        with running(config, directory) as envoy:
            yield Guard(envoy, authority, port, directory)
            assert envoy.faults() == []


def judged(certificate: bytes) -> SpiffeId | Reason:
    """Say what the control plane makes of a certificate whose chain is verified.

    Its library reads a name that is UTF-8, though such names are ASCII (RFC 5280 section 4.2.1.6). The gateway does not.
    """
    try:
        seen = facts(certificate)
    except BadInput:
        return Reason.CERT_UNREADABLE
    if not all(text.isascii() for tag, text in names_in(certificate) if tag in {RFC822, DNS, URI}):
        return Reason.CERT_UNREADABLE
    outcome = standing(seen, revoked=(), now=datetime.now(UTC)) or identify(seen, trust={TrustDomain("example.org")})
    return outcome.reason if isinstance(outcome, Refusal) else outcome
