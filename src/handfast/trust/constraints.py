"""The names that an authority may put into certificates (RFC 5280 section 4.2.1.10).

Decides what its name constraints say, and whether a leaf's names keep them. Refuses to check foreign chains: TLS does that.

Only what our leaves carry is read: DNS names and the host of a SPIFFE id. Constraints on directory names would bind the
subject, which we write freely, so an authority that has them is refused; those on addresses and mail bind nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cryptography import x509

from handfast.base.refusal import BadInput
from handfast.base.spiffe import TrustDomain

_OFFERED = "permit DNS names such as 'internal' or 'example.org', without a dot in front and without '*'"


@dataclass(frozen=True, slots=True, kw_only=True)
class NameConstraints:
    """What one authority's certificate says, in lower case. No permitted names of a kind: any is, that is not excluded.

    ``dns`` are subtrees: ``internal`` stands for itself and every name below. ``hosts`` are those of a URI, exact, or with a dot
    in front every host below.
    """

    dns: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    excluded_dns: tuple[str, ...] = ()
    excluded_hosts: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Give a short text for people."""
        rows = (("dns", self.dns), ("uri host", self.hosts), ("not dns", self.excluded_dns), ("not uri host", self.excluded_hosts))  # fmt: skip
        return "; ".join(f"{name} {', '.join(values)}" for name, values in rows if values)


def permitted(trust_domain: TrustDomain, dns: Iterable[str]) -> NameConstraints:
    """Bind an authority to its trust domain and to these DNS names and what is below them.

    Raises:
        BadInput: a name is not one that a constraint can carry.
    """
    names = tuple(dict.fromkeys(dns))
    for name in names:
        if not name or set(name) - _DNS or name.startswith("."):
            raise BadInput(f"{name[:80]!r} cannot be permitted", key="permit-dns", hint=_OFFERED)
    return NameConstraints(dns=names, hosts=(trust_domain.name,))


_DNS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._")


def written(constraints: NameConstraints) -> x509.NameConstraints:
    """Give the extension's value."""
    return x509.NameConstraints(
        permitted_subtrees=_subtrees(constraints.dns, constraints.hosts),
        excluded_subtrees=_subtrees(constraints.excluded_dns, constraints.excluded_hosts),
    )


def read(extensions: x509.Extensions) -> NameConstraints | None:
    """Read a CA certificate's constraints; None where it has none.

    Raises:
        BadInput: they bind directory names, or a kind of name that is not known here.
    """
    found = next((one.value for one in extensions if isinstance(one.value, x509.NameConstraints)), None)
    if found is None:
        return None
    _refuse_kinds((*(found.permitted_subtrees or ()), *(found.excluded_subtrees or ())))
    return NameConstraints(
        dns=_names(found.permitted_subtrees, x509.DNSName),
        hosts=_names(found.permitted_subtrees, x509.UniformResourceIdentifier),
        excluded_dns=_names(found.excluded_subtrees, x509.DNSName),
        excluded_hosts=_names(found.excluded_subtrees, x509.UniformResourceIdentifier),
    )


def breaches(
    constraints: NameConstraints, host: str, dns: Iterable[str], common_name: str = ""
) -> Iterator[tuple[str, str]]:
    """Give each of a leaf's names that the constraints do not let pass: what kind it is, and the name.

    ``host`` is the trust domain of its SPIFFE id. ``common_name`` counts where there are no DNS names and it has a dot: OpenSSL
    takes it for one then.
    """
    if not _host_passes(host, constraints):
        yield "uri host", host
    names = tuple(dns) or ((common_name.lower(),) if "." in common_name.strip(".") else ())
    for name in names:
        if not _dns_passes(name, constraints):
            yield "dns", name


def exceeds(inner: NameConstraints | None, outer: NameConstraints) -> str:
    """Tell what an authority may name by ``inner`` that the one above it may not by ``outer``; empty where there is nothing."""
    mine = inner or NameConstraints()
    if outer.dns and not mine.dns:
        return "any DNS name"
    beyond = [*_beyond(mine, outer)]
    return ", ".join(beyond)


def _beyond(inner: NameConstraints, outer: NameConstraints) -> Iterator[str]:
    yield from (name for name in inner.dns if outer.dns and not any(_below(name, one) for one in outer.dns))
    # ".a.b" stands for all hosts below "a.b", and is permitted where any of them would be but for its name alone.
    yield from (name for name in inner.hosts if not _host_passes(f"x{name}" if name.startswith(".") else name, outer))
    for excluded in outer.excluded_dns:
        if not any(_below(excluded, one) for one in inner.excluded_dns) and _meets(excluded, inner.dns):
            yield excluded


def _meets(excluded: str, permitted_dns: tuple[str, ...]) -> bool:
    """Tell whether something that is excluded above could be named below."""
    return not permitted_dns or any(_below(excluded, one) or _below(one, excluded) for one in permitted_dns)


def _dns_passes(name: str, constraints: NameConstraints) -> bool:
    plain = name.removeprefix("*.")
    # "*.a.b" stands for names below "a.b": it is excluded with any of them, and permitted only with all of them.
    excluded = any(_below(name, one) or (name != plain and _below(one, plain)) for one in constraints.excluded_dns)
    return not excluded and (not constraints.dns or any(_below(name, one) for one in constraints.dns))


def _below(name: str, subtree: str) -> bool:
    top = subtree.removeprefix(".")
    return not top or (name == top and subtree == top) or name.endswith(f".{top}")


def _host_passes(host: str, constraints: NameConstraints) -> bool:
    if any(_host_matches(host, one) for one in constraints.excluded_hosts):
        return False
    return not constraints.hosts or any(_host_matches(host, one) for one in constraints.hosts)


def _host_matches(host: str, constraint: str) -> bool:
    return host.endswith(constraint) and host != constraint if constraint.startswith(".") else host == constraint


def _subtrees(dns: tuple[str, ...], hosts: tuple[str, ...]) -> list[x509.GeneralName] | None:
    names = [*map(x509.DNSName, dns), *map(x509.UniformResourceIdentifier, hosts)]
    return [*names] or None


def _names(
    subtrees: Iterable[x509.GeneralName] | None, kind: type[x509.DNSName | x509.UniformResourceIdentifier]
) -> tuple[str, ...]:
    return tuple(one.value.lower() for one in subtrees or () if isinstance(one, kind))


def _refuse_kinds(subtrees: Iterable[x509.GeneralName]) -> None:
    known = (x509.DNSName, x509.UniformResourceIdentifier, x509.IPAddress, x509.RFC822Name)
    other = next((type(one).__name__ for one in subtrees if not isinstance(one, known)), "")
    if other:
        raise BadInput(f"the authority's name constraints bind names of the kind {other}, which cannot be kept here")
