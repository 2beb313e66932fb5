"""Who calls the API, from what its connection proved: a client certificate, or the uid on the local socket."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

from handfast.access.identify import identify, standing
from handfast.base.refusal import Refusal, Refused
from handfast.base.spiffe import SpiffeId, TrustDomain
from handfast.trust.facts import CertificateFacts, facts

OPERATOR_PREFIX = "handfast/operator/"
AGENT_PREFIX = "handfast/agent/"


class Role(StrEnum):
    """What a caller may be. A workload is any other identity of the trust domain."""

    OPERATOR = "operator"
    AGENT = "agent"
    WORKLOAD = "workload"
    NOBODY = "nobody"


EVERYONE = frozenset(Role)
OPERATORS = frozenset({Role.OPERATOR})
AGENTS = frozenset({Role.AGENT})
HOLDERS = frozenset({Role.OPERATOR, Role.AGENT, Role.WORKLOAD})


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller: its role, its name, and its certificate where it has one."""

    role: Role
    name: str
    identity: SpiffeId | None = None
    certificate: CertificateFacts | None = None

    def __str__(self) -> str:
        """Give what the records say of it."""
        return str(self.identity) if self.identity else self.name


_NOBODY = Caller(Role.NOBODY, "nobody")


def caller_of(scope: Mapping[str, Any], trust_domain: TrustDomain, revoked: Container[str], now: datetime) -> Caller:
    """Tell who calls. ``revoked`` are SHA-256 fingerprints: TLS looked at the certificate once, and we look each time.

    Raises:
        Refused: the certificate is good for TLS, and not for us.
    """
    extensions = scope.get("extensions") or {}
    if peer := extensions.get("handfast.peer"):
        return _local(peer["uid"])
    der = extensions.get("handfast.peer_der")
    return _certified(der, trust_domain, revoked, now) if der else _NOBODY


def _local(uid: int) -> Caller:
    """Count whoever may read our files as an operator: the same user, or root."""
    return Caller(Role.OPERATOR, f"uid:{uid}") if uid in {os.geteuid(), 0} else _NOBODY


def _certified(der: bytes, trust_domain: TrustDomain, revoked: Container[str], now: datetime) -> Caller:
    seen, claimed = _read(der, trust_domain)
    if against := standing(seen, revoked=revoked, now=now):
        raise Refused(against)
    if isinstance(claimed, Refusal):
        raise Refused(claimed)
    return claimed


@lru_cache(maxsize=4096)
def _read(der: bytes, trust_domain: TrustDomain) -> tuple[CertificateFacts, Caller | Refusal]:
    """Read who a certificate is of. That never changes, so it is read once; whether it counts is asked on each request.

    TLS has bounded its size.
    """
    seen = facts(der)
    identity = identify(seen, trust={trust_domain})
    if isinstance(identity, Refusal):
        return seen, identity
    for prefix, role in ((OPERATOR_PREFIX, Role.OPERATOR), (AGENT_PREFIX, Role.AGENT)):
        if identity.name.startswith(prefix):
            return seen, Caller(role, identity.name.removeprefix(prefix), identity, seen)
    return seen, Caller(Role.WORKLOAD, identity.name, identity, seen)
