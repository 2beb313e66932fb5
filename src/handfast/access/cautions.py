"""What is allowed in a world and most likely not meant.

Decides what to point at. Refuses to forbid any of it: a world with warnings is served like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from handfast.access.authority import ForeignAuthority
from handfast.access.patterns import pattern_text
from handfast.access.policy import CertificateMode, Host, IdentityPattern, Open, Route, RouteMode, Rule
from handfast.access.world import World
from handfast.base.windows import from_unix, to_unix
from handfast.trust.entries import RESERVED
from handfast.trust.foreign import ended
from handfast.trust.foreign_crl import RevocationList, crl_ders, listed, newer


def warnings(world: World) -> list[str]:
    """Give one sentence a doubt, each beginning with the host and route, or the workload, that it is about."""
    of_hosts = [
        f"{name}{route.path}: {doubt}"
        for name, host in sorted(world.hosts.items())
        for route in host.routes
        for doubt in _route_doubts(world, host, route)
    ]
    return [*of_hosts, *_shared_names(world), *_authority_doubts(world)]


def unstapled(world: World) -> list[str]:
    """Give one sentence a workload whose certificates demand a staple, for a server whose certificates name nowhere to get one."""
    names = (name for name, workload in sorted(world.workloads.items()) if workload.must_staple)
    return [
        f"{name}: gets no certificate, as 'must_staple' needs a server with --status and --status-url" for name in names
    ]


def _route_doubts(world: World, host: Host, route: Route) -> Iterator[str]:
    if route.mode is RouteMode.REPORT:
        yield "is in report mode: what it would refuse is let pass"
    if route.allow is Open.ANYONE:
        yield _open_doubt(host)
    elif route.allow is Open.ANY_CERTIFICATE:
        yield f"lets in every identity of the trust domain{_partners_too(host)}"
    elif not route.allow:
        yield "allows nobody"
    if route.deny and host.clients.certificate is CertificateMode.OFF:
        yield "its denies never apply, as the host asks for no certificate"
    yield from _rule_doubts(world, host, route)


def _open_doubt(host: Host) -> str:
    if host.clients.certificate is CertificateMode.REQUIRED:
        return "allows anyone, yet the host requires a certificate: nobody comes without one"
    return "lets in anyone, without a certificate"


def _rule_doubts(world: World, host: Host, route: Route) -> Iterator[str]:
    allows = () if isinstance(route.allow, Open) else route.allow
    denied, allowed = _by_identity(route.deny), _by_identity(allows)
    for rule in allows:
        name = pattern_text(rule.identity, own=world.trust_domain)
        if denying := _covering(rule, denied):
            yield f"allow {name} has no effect: deny {pattern_text(denying.identity, own=world.trust_domain)} covers it"
        elif wider := _covering(rule, allowed):
            yield f"allow {name} adds nothing: allow {pattern_text(wider.identity, own=world.trust_domain)} covers it"
        if route.methods and rule.methods and not set(rule.methods) & set(route.methods):
            yield f"allow {name} has no effect: the route has none of its methods"
    if IdentityPattern(world.trust_domain, "", prefix=True) in allowed and host.clients.partners:
        yield f"allow *{_partners_too(host)}"
    for pattern in sorted({*denied, *allowed}):
        if doubt := _identity_doubt(world, host, pattern):
            yield f"{pattern_text(pattern, own=world.trust_domain)}: {doubt}"


def _partners_too(host: Host) -> str:
    names = ", ".join(host.clients.partners)
    return f", and every certificate that {names} gives a name to" if names else ""


def _by_identity(rules: Iterable[Rule]) -> Mapping[IdentityPattern, list[Rule]]:
    grouped: dict[IdentityPattern, list[Rule]] = {}
    for rule in rules:
        grouped.setdefault(rule.identity, []).append(rule)
    return grouped


def _covering(rule: Rule, grouped: Mapping[IdentityPattern, list[Rule]]) -> Rule | None:
    """Give another rule that says all that ``rule`` says."""
    near = (other for pattern in _as_wide(rule.identity) for other in grouped.get(pattern, ()))
    return next((other for other in near if other != rule and covers(other, rule)), None)


def _as_wide(pattern: IdentityPattern) -> Iterator[IdentityPattern]:
    """Give the pattern, and those that mean all below each part of its name."""
    yield pattern
    yield IdentityPattern(pattern.trust_domain, "", prefix=True)
    for at, char in enumerate(pattern.name, start=1):
        if char == "/":
            yield IdentityPattern(pattern.trust_domain, pattern.name[:at], prefix=True)


def covers(wide: Rule, narrow: Rule) -> bool:
    """Tell whether ``wide`` speaks of every identity and method that ``narrow`` speaks of."""
    if wide.identity.trust_domain != narrow.identity.trust_domain:
        return False
    if not wide.identity.prefix and wide.identity != narrow.identity:
        return False
    if not narrow.identity.name.startswith(wide.identity.name):
        return False
    return not wide.methods or (bool(narrow.methods) and set(narrow.methods) <= set(wide.methods))


def _identity_doubt(world: World, host: Host, pattern: IdentityPattern) -> str:
    lenders = {name for name, lent in host.clients.lent if _meet(pattern, lent)}
    if lenders & set(host.clients.partners):
        return ""
    if lenders and not _is_granted(world, pattern):
        return f"only {', '.join(sorted(lenders))} gives such names, which the host does not trust"
    if pattern.trust_domain not in host.clients.trust:
        return "the host does not trust this trust domain"
    if f"{pattern.name}/".startswith(RESERVED) or _is_granted(world, pattern):
        return ""
    return "no workload has this identity"


def _meet(one: IdentityPattern, other: IdentityPattern) -> bool:
    """Tell whether there is an identity that both mean."""
    if one.trust_domain != other.trust_domain:
        return False
    a, b = one.name, other.name
    return a == b or (one.prefix and b.startswith(a)) or (other.prefix and a.startswith(b))


def _is_granted(world: World, pattern: IdentityPattern) -> bool:
    if not pattern.prefix:
        return pattern.name in world.workloads
    return any(pattern.matches(workload.identity) for workload in world.workloads.values())


def _authority_doubts(world: World) -> Iterator[str]:
    for name, authority in sorted(world.authorities.items()):
        unnamed = [host for host in authority.hosts if name not in world.hosts[host].clients.partners]
        if unnamed:
            yield f"{name}: does not count at {', '.join(unnamed[:4])}, whose clients.trust does not name it"
        if authority.revocation is None:
            yield f"{name}: what it revokes is not learned, as it has no 'revocation'"
        elif not authority.revocation.refuse:
            yield f"{name}: lets in certificates of which it is not known whether they are revoked"


def endings(world: World, now: datetime) -> list[str]:
    """Give one sentence an authority of others that has a CA or a list in it which does not count at ``now``, beginning with its name."""
    authorities = sorted(world.authorities.items())
    whys = ((name, ended(authority.cas, now)) for name, authority in authorities)
    cas = [f"{name}: {why}, so it does not count" for name, why in whys if why]
    lists = [(name, ended_list(authority, now)) for name, authority in authorities]
    return [*cas, *(f"{name}: {why}, so its clients are not known to be good by it" for name, why in lists if why)]


def ended_list(authority: ForeignAuthority, now: datetime) -> str:
    """Say when the newest list of one of its CAs ended that stands in the world itself, or nothing."""
    raw = authority.revocation.pem.encode() if authority.revocation else b""
    newest: dict[str, RevocationList] = {}
    for one in (one for der in (crl_ders(raw) if raw else ()) for one in listed(der, authority.cas)):
        newest[one.ca] = newer(one, newest.get(one.ca, one))
    over = min((one.until for one in newest.values()), default=to_unix(now) + 1)
    return f"its revocation list ended on {from_unix(over):%Y-%m-%d}" if over <= to_unix(now) else ""


def _shared_names(world: World) -> list[str]:
    holders: dict[str, list[str]] = {}
    for name, workload in sorted(world.workloads.items()):
        for dns in workload.dns:
            holders.setdefault(dns, []).append(name)
    return [
        f"{names[0]}: shares the DNS name {dns} with {', '.join(names[1:4])}: each can stand in for the other"
        for dns, names in sorted(holders.items())
        if len(names) > 1
    ]
