"""The world file: from text to a `World` that cannot be wrong, and from a `World` to its canonical form.

Decides what a user may write, and names file, line, key and remedy where that fails. Refuses to know where the text came
from: a file, the API and an agent's slice are read alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from ipaddress import ip_address

from handfast.access import values
from handfast.access.authority_file import MAX_AUTHORITIES, authority_document, parse_authority, refuse_collisions
from handfast.access.cautions import warnings
from handfast.access.host_file import host_document, parse_host
from handfast.access.issuance_file import issuance_document, parse_issuance
from handfast.access.patterns import OPEN_WORDS
from handfast.access.policy import Host, Listen
from handfast.access.world import World
from handfast.access.yaml_lines import MAX_BYTES, Node, any_table, distinct, items, parse_yaml, placed, table, value
from handfast.base.refusal import BadInput
from handfast.base.spiffe import SpiffeId, TrustDomain
from handfast.trust.entries import DEFAULT_TTL, RESERVED, Workload
from handfast.trust.profile import LEAF

__all__ = ["digest", "document", "parse_world", "warnings"]

MAX_HOSTS = 1000
MAX_WORKLOADS = 10_000
MAX_DNS_NAMES = 64

WORLD_KEYS = ("trust_domain", "issuance", "authorities", "workloads", "hosts")
WORKLOAD_KEYS = ("dns", "ttl", "owner", "must_staple")
LATER: Mapping[str, str] = {
    "services": "remove it; for now a gateway in front of the service does its part: see 'hosts'",
}
LATER_OF_WORKLOADS: Mapping[str, str] = {
    "selectors": "remove it; for now an operator issues the certificates (handfast cert issue)",
}


def parse_world(text: str, *, file: str = "") -> World:
    """Read a world file (YAML or JSON, at most 1 MiB).

    Defaults: a workload's ``ttl`` is 24 hours; a host trusts the own trust domain and requires a certificate; a route enforces.
    A bare port in ``listen`` is that port of every IPv4 address (``0.0.0.0``). ``allow`` has no default.

    Raises:
        BadInput: it is not a world; names file, line and key, and says what to write instead.
    """
    root = table(parse_yaml(text, file=file), WORLD_KEYS, later=LATER)
    own = value(root.need("trust_domain", hint="such as example.org"), TrustDomain)
    workloads = _entries(root.nodes.get("workloads"), MAX_WORKLOADS)
    hosts = _entries(root.nodes.get("hosts"), MAX_HOSTS)
    named = _entries(root.nodes.get("authorities"), MAX_AUTHORITIES)
    authorities = {name: parse_authority(name, node, own=own, hosts=hosts) for name, node in named.items()}
    world = World(
        trust_domain=own,
        issuance=parse_issuance(root.nodes["issuance"], own) if "issuance" in root.nodes else LEAF,
        workloads={name: _workload(name, node, own) for name, node in workloads.items()},
        hosts={name: parse_host(name, node, own=own, authorities=authorities.values()) for name, node in hosts.items()},
        authorities=authorities,
    )
    refuse_collisions(authorities, named, world.workloads.values(), own)
    _refuse_clashes(world.hosts.values(), hosts)
    _refuse_large(world, file)
    return world


def document(world: World) -> dict[str, object]:
    """Give the canonical plain form: what a world file of this world holds, with what is empty or a default left out.

    Written down as JSON or YAML and parsed again it is an equal world.
    """
    plain: dict[str, object] = {"trust_domain": world.trust_domain.name}
    if issuance := issuance_document(world.issuance):
        plain["issuance"] = issuance
    if world.authorities:
        plain["authorities"] = {name: authority_document(one) for name, one in sorted(world.authorities.items())}
    if world.workloads:
        plain["workloads"] = {name: _workload_document(one) for name, one in sorted(world.workloads.items())}
    if world.hosts:
        plain["hosts"] = {name: host_document(one, own=world.trust_domain) for name, one in sorted(world.hosts.items())}
    return plain


def digest(text: str) -> str:
    """Name a world by its content: SHA-256 (hex) of the canonical form.

    Comments, quotes, the order of keys and rules, and defaults written out do not change it. What decides does.

    Raises:
        BadInput: it is not a world.
    """
    canonical = json.dumps(document(parse_world(text)), sort_keys=True, separators=(",", ":"))
    return sha256(canonical.encode()).hexdigest()


def _entries(node: Node | None, most: int) -> Mapping[str, Node]:
    if node is None:
        return {}
    found = any_table(node)
    if len(found.nodes) > most:
        raise found.place.error(f"there are {len(found.nodes)} entries; {most} are the most")
    return found.nodes


def _refuse_large(world: World, file: str) -> None:
    """Refuse what could be read once and not again: agents get the canonical form, and the same bound holds there."""
    if len(json.dumps(document(world))) > MAX_BYTES:
        raise BadInput(
            "with its defaults written out it is larger than 1 MiB", file=file, hint="split it, or merge rules"
        )


# Workloads


def _workload(name: str, node: Node, own: TrustDomain) -> Workload:
    found = table(node, WORKLOAD_KEYS, later=LATER_OF_WORKLOADS)
    identity = placed(found.place, lambda: _name(name, own))
    dns_nodes = items(found.nodes["dns"], most=MAX_DNS_NAMES) if "dns" in found.nodes else ()
    dns = distinct(dns_nodes, lambda one: value(one, values.dns_name))
    ttl = value(found.nodes["ttl"], values.duration) if "ttl" in found.nodes else DEFAULT_TTL
    owner = value(found.nodes["owner"], values.owner) if "owner" in found.nodes else ""
    must_staple = value(found.nodes["must_staple"], values.truth) if "must_staple" in found.nodes else False
    return Workload(identity, dns, ttl, owner, must_staple)


def _name(name: str, own: TrustDomain) -> SpiffeId:
    if f"{name}/".startswith(RESERVED):
        raise BadInput(f"names below {RESERVED!r} are the platform's own", hint="choose another name")
    if name in OPEN_WORDS:
        raise BadInput(f"{name!r} means something else in a rule", hint="choose another name")
    return own.id(name)


def _workload_document(workload: Workload) -> dict[str, object]:
    plain: dict[str, object] = {"dns": list(workload.dns)} if workload.dns else {}
    if workload.ttl != DEFAULT_TTL:
        plain["ttl"] = values.duration_text(workload.ttl)
    if workload.owner:
        plain["owner"] = workload.owner
    return plain | {"must_staple": True} if workload.must_staple else plain


# Hosts together


def _refuse_clashes(hosts: Iterable[Host], nodes: Mapping[str, Node]) -> None:
    """Refuse a port of one address beside the same port of all addresses: only one of the two could listen."""
    by_port: dict[tuple[int, int], Listen] = {}
    for host in sorted(hosts, key=lambda host: (not _is_any(host.listen), host.name)):
        place = (ip_address(host.listen.address).version, host.listen.port)
        held = by_port.setdefault(place, host.listen)
        if held != host.listen and _is_any(held):
            at = any_table(nodes[host.name]).nodes["listen"].place
            raise at.error(
                f"another host listens on {held}, which is this port too", hint="give both the same 'listen'"
            )


def _is_any(listen: Listen) -> bool:
    return ip_address(listen.address).is_unspecified
