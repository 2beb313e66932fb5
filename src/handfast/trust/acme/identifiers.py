"""Which names an order may be about.

Decides that identifiers are DNS names that a certificate here can carry, and that the account's workload is granted them.
Refuses to know where the grant stands: the caller brings it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from handfast.trust.acme.problems import AcmeError, Problem
from handfast.trust.plan import MAX_DNS_NAMES, is_dns_name


def read_identifiers(identifiers: object) -> tuple[str, ...] | Problem:
    """Read the ``identifiers`` of a new order: 1 to 100 DNS names, given back in lower case, each once, in order."""
    if not isinstance(identifiers, Sequence) or isinstance(identifiers, str) or not identifiers:
        return Problem(AcmeError.MALFORMED, "an order has a list of identifiers")
    if len(identifiers) > MAX_DNS_NAMES:
        return Problem(AcmeError.MALFORMED, f"an order has {MAX_DNS_NAMES} identifiers at most")
    names = [_read(one) for one in identifiers]
    if refused := next((one for one in names if isinstance(one, Problem)), None):
        return refused
    return tuple(dict.fromkeys(str(name) for name in names))


def check_granted(names: Sequence[str], granted: Collection[str]) -> Problem | None:
    """Refuse an order for a name that the account's workload is not granted."""
    for name in names:
        if name not in granted:
            return Problem(AcmeError.REJECTED_IDENTIFIER, "this account's workload is not granted this name", name)
    return None


def _read(identifier: object) -> str | Problem:
    if not isinstance(identifier, Mapping) or not isinstance(identifier.get("value"), str):
        return Problem(AcmeError.MALFORMED, "an identifier is an object of type and value")
    if identifier.get("type") != "dns":
        return Problem(AcmeError.UNSUPPORTED_IDENTIFIER, "the only type of identifier is dns")
    name: str = identifier["value"].lower()
    return name if is_dns_name(name) else Problem(AcmeError.REJECTED_IDENTIFIER, f"{name[:80]!a} is no DNS name")
