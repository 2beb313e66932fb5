"""What kinds of certificate an order may ask for (draft-aaron-acme-profiles): for now they differ in their life alone.

Decides names and lives. What a certificate is good for is the same for all: TLS client and server.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from handfast.trust.acme.problems import AcmeError, Problem
from handfast.trust.entries import DEFAULT_TTL, Workload


@dataclass(frozen=True, slots=True)
class OrderProfile:
    """One profile: what the directory says of it, and the longest life, where it bounds it itself."""

    description: str
    longest: timedelta | None = None


DEFAULT_PROFILE = "workload"
PROFILES = {
    DEFAULT_PROFILE: OrderProfile("as long as the workload's entry says; 24 hours without an entry"),
    "server": OrderProfile("24 hours, or less where the workload's entry says so", timedelta(hours=24)),
    "short": OrderProfile("one hour, or less where the workload's entry says so", timedelta(hours=1)),
}


def check_profile(name: str) -> Problem | None:
    """Refuse a profile that the directory does not list."""
    if name in PROFILES:
        return None
    return Problem(AcmeError.INVALID_PROFILE, f"the profiles are {', '.join(PROFILES)}")


def life(profile: str, workload: Workload | None, most: timedelta) -> timedelta:
    """Give how long the certificate lives: never longer than the workload's entry grants, nor than ``most``."""
    granted = min(workload.ttl if workload else DEFAULT_TTL, most)
    longest = PROFILES[profile].longest
    return min(granted, longest) if longest else granted
