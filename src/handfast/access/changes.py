"""What differs between two worlds, as a user wrote them.

Decides what to call added, removed and changed. Refuses to know what follows from it: who gains and loses is for `effect`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from handfast.access.policy import CertificateMode, RouteMode
from handfast.access.values import duration_text
from handfast.access.world import World
from handfast.access.world_file import document
from handfast.trust.entries import DEFAULT_TTL
from handfast.trust.facts import fingerprint, pem_certificates

_Plain = Mapping[str, object]
_UNWRITTEN: Mapping[str, str] = {
    "methods": "any",
    "mode": RouteMode.ENFORCE.value,
    "session": "false",
    "must_staple": "false",
    "ttl": duration_text(DEFAULT_TTL),
    "certificate": CertificateMode.REQUIRED.value,
}
_LISTS = frozenset({"allow", "deny", "dns", "trust", "roots", "hosts"})


class Kind(StrEnum):
    """What became of a thing."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs: ``what`` is such as ``route api.example.org/v1``; ``details`` say how, for a change alone."""

    kind: Kind
    what: str
    details: tuple[str, ...] = ()


def changes(old: World | None, new: World) -> tuple[Change, ...]:
    """Give what differs: trust domain, authorities, workloads, hosts and routes by name. None is the world before the first."""
    before, after = (_things(document(old)) if old else {}), _things(document(new))
    return tuple(
        found for what in _in_order(before, after) if (found := _change(what, before.get(what), after.get(what)))
    )


def _things(plain: _Plain) -> dict[str, _Plain]:
    """Give each authority, workload, host and route under its name, and nothing of it twice."""
    things: dict[str, _Plain] = {"trust domain": {"name": plain["trust_domain"]}}
    named = _mapping(plain.get("authorities", {}))
    things |= {f"authority {name}": _authority(_mapping(one)) for name, one in named.items()}
    things |= {f"workload {name}": _mapping(one) for name, one in _mapping(plain.get("workloads", {})).items()}
    for name, host in _mapping(plain.get("hosts", {})).items():
        own = dict(_mapping(host))
        routes = own.pop("routes")
        things[f"host {name}"] = own
        assert isinstance(routes, list)
        things |= {f"route {name}{route['path']}": route for route in routes}
    return things


def _authority(plain: _Plain) -> _Plain:
    """Give an authority with its certificates as fingerprints, and with its rules as one text: their order counts."""
    roots, rules, revocation = plain["roots_pem"], plain["identities"], dict(_mapping(plain.get("revocation", {})))
    assert isinstance(roots, str)
    assert isinstance(rules, list)
    if "crl_pem" in revocation:
        revocation["crl_pem"] = fingerprint(str(revocation["crl_pem"]).encode())[:16]
    texts = (
        f"{{{', '.join(f'{field}: {text}' for field, text in rule['match'].items())}}} is {rule['identity']}"
        for rule in rules
    )
    return {
        "roots": [fingerprint(der)[:16] for der in pem_certificates(roots)],
        "hosts": plain["hosts"],
        "identities": "; ".join(texts),
        "revocation": revocation,
    }


def _in_order(before: Mapping[str, _Plain], after: Mapping[str, _Plain]) -> list[str]:
    """Take the order of the new world, with what is gone behind its kind."""
    kinds = ("trust", "authority", "workload", "host", "route")
    names = {name: (kinds.index(name.partition(" ")[0]), name) for name in (*after, *before)}
    return sorted(names, key=lambda name: names[name])


def _change(what: str, before: _Plain | None, after: _Plain | None) -> Change | None:
    if before is None:
        return Change(Kind.ADDED, what)
    if after is None:
        return Change(Kind.REMOVED, what)
    return Change(Kind.CHANGED, what, tuple(_details(before, after))) if before != after else None


def _details(before: _Plain, after: _Plain) -> Iterator[str]:
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old or new, Mapping):
            yield from (f"{key}.{detail}" for detail in _details(_mapping(old or {}), _mapping(new or {})))
        elif key in _LISTS and not isinstance(old, str) and not isinstance(new, str):
            yield from _list_details(key, old, new)
        else:
            yield f"{key} {_text(key, old)} -> {_text(key, new)}"


def _list_details(key: str, before: object, after: object) -> Iterator[str]:
    old = [_item(one) for one in before] if isinstance(before, list) else []
    new = [_item(one) for one in after] if isinstance(after, list) else []
    yield from (f"{key} + {one}" for one in new if one not in old)
    yield from (f"{key} - {one}" for one in old if one not in new)
    if sorted(old) == sorted(new):
        yield f"{key} in another order"


def _text(key: str, plain: object) -> str:
    match plain:
        case None:
            return _UNWRITTEN.get(key, "nothing")
        case bool():
            return "true" if plain else "false"
        case list():
            return ", ".join(_item(one) for one in plain) or "nobody"
        case _:
            return str(plain)


def _item(plain: object) -> str:
    """Write a rule, or a name."""
    if not isinstance(plain, Mapping):
        return str(plain)
    return f"{plain['identity']} {', '.join(plain['methods'])}"


def _mapping(plain: object) -> _Plain:
    assert isinstance(plain, Mapping)
    return plain
