"""Authorities of others beside ours, a gateway that trusts them, and certificates of theirs by chance."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from handfast.access.authority_file import NAMEABLE
from handfast.access.slice import Slice, make_slice
from handfast.access.vouching import issuers_at, recognise
from handfast.access.world import World
from handfast.access.world_file import parse_world
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.base.spiffe import SpiffeId
from handfast.envoy import types
from handfast.envoy.partners import our_cas
from handfast.envoy.translate import Resources
from handfast.trust import der
from handfast.trust.facts import facts
from handfast.trust.foreign_crl import RevocationList
from handfast.trust.standing import Word
from tests.envoy_real.forging import (
    BMP,
    CLIENT,
    CN,
    DNS,
    IA5,
    NOT_CA,
    OU,
    PRINTABLE,
    RFC822,
    SERVER,
    T61,
    URI,
    UTF8,
    Draft,
    Forged,
    names,
    subject,
    uses,
)
from tests.envoy_real.guard import HEADERS, HOST, Guard
from tests.envoy_real.lone import echoes, resources_of, running
from tests.support.pki import Pki
from tests.support.ports import free_port
from tests.support.static_envoy import static_bootstrap

ORG, COUNTRY, SERIAL = "2.5.4.10", "2.5.4.6", "2.5.4.5"
ELSEWHERE = "other.test"
POLICY = "1.3.6.1.4.1.99999.7"


@dataclass(frozen=True)
class Stage(Guard):
    """A gateway, and the slice that it was made from."""

    slice: Slice

    def judged(self, shown: Forged, said: Word = Word.UNKNOWN) -> SpiffeId | Reason:
        """Say what the control plane makes of a certificate that TLS verified at the host."""
        return judged(self.slice, shown, said=said)


def judged(slice_: Slice, shown: Forged, host: str = HOST, *, said: Word = Word.UNKNOWN) -> SpiffeId | Reason:
    issuers, seen = issuers_at(slice_.world, slice_.world.hosts[host], our_cas(slice_)), partial(facts, shown.der)
    try:
        outcome = recognise(shown.der, seen(), issuers, slice_.world, revoked=(), now=datetime.now(UTC), said=said)
    except BadInput:
        return Reason.CERT_UNREADABLE
    return outcome.reason if isinstance(outcome, Refusal) else outcome


def world_of(authorities: Mapping[str, Mapping[str, Any]], host: Mapping[str, Any]) -> World:
    """Give a world with a host that trusts us and these authorities. A second one at the same address trusts us alone."""
    plain = {
        "trust_domain": "example.org",
        "authorities": {name: {"hosts": [HOST], **one} for name, one in authorities.items()},
        "hosts": {
            HOST: {**host, "clients": {"trust": ["example.org", *authorities], "certificate": "optional"}},
            ELSEWHERE: {**host, "clients": {"certificate": "optional"}},
        },
    }
    return parse_world(json.dumps(plain))


@contextmanager
def stage(
    directory: Path,
    own: Pki,
    authorities: Mapping[str, Mapping[str, Any]],
    *,
    lists: Mapping[str, tuple[RevocationList, ...]] | None = None,
    crls: tuple[str, ...] = (),
    bounded: bool = True,
    admin: str = "",
) -> Iterator[Stage]:
    """Run one; in the end it has neither crashed nor complained. ``bounded`` False takes the bound on chains away."""
    port = free_port()
    with echoes(1) as (service,):
        route = {"path": "/", "upstream": f"http://127.0.0.1:{service}", "allow": "any-certificate", "headers": HEADERS}
        narrow = {**route, "path": "/acme", "allow": ["acme/*"]}
        world = world_of(authorities, {"listen": f"127.0.0.1:{port}", "routes": [route, narrow], "session": True})
        slice_ = make_slice(
            revision=7,
            world=replace(world, lists=lists or {}),
            roots=(own.roots_pem.decode(),),
            issuers=(own.issuing.cert_pem.decode(),),
            crls=crls,
        )
        resources = resources_of(slice_, own, directory)
        if not bounded:
            _unbound(resources)
        with running(static_bootstrap(resources, *([admin] if admin else [])), directory) as envoy:
            yield Stage(envoy, own, port, directory, slice_)
            assert envoy.faults() == []


def _unbound(resources: Resources) -> None:
    context = resources[types.SECRET][f"clients/{HOST}"]["validation_context"]
    assert isinstance(context, dict)
    del context["max_verify_depth"]


# By chance

_TEXTS = (
    b"a", b"a", b"a", b"b.c", b"b.c", b"Acme", b"Acme", b"Acme Ltd", b"..", b".", b"", b"a/b", b"a/../payments", b"a\0b", b"x" * 300, b"*", b"payments",
    "Jürgen".encode(), b"team/a", b"a_b-c.d", b"ACME", b"a b",
)  # fmt: skip
_KINDS = (CN, CN, CN, ORG, ORG, OU, OU, COUNTRY, SERIAL, "0.9.2342.19200300.100.1.1", "2.5.4.8", "2.5.4.7", "2.5.4.12")
_NAMES = (
    (DNS, b"a.acme.test"), (DNS, b"A.Acme.Test"), (DNS, b"a.b.acme.test"), (DNS, b"acme.test"), (RFC822, b"a@acme.test"),
    (RFC822, b"a@b@acme.test"), (URI, b"spiffe://partner.org/team/a"), (URI, b"spiffe://example.org/payments"),
    (URI, b"SPIFFE://example.org/payments"), (URI, b"https://acme.test/a"), (URI, b"spiffe://partner.org"), (DNS, b"a"),
    (URI, b"urn:acme:a"), (DNS, b"\xe9.test"),
)  # fmt: skip
_VALUES = ("Acme", "a", "*", "Acme Ltd", "team/*", "payments", "Jürgen", "*.acme.test", "*@acme.test", "a.acme.test")
_FIELDS = ("common_name", "organization", "organizational_unit", "dns", "email", "uri", "serial_number", "country")


def a_draft(chance: Random) -> Draft:
    """Give a leaf as a partner might write it, with an odd thing or two."""
    strings = (UTF8, UTF8, UTF8, PRINTABLE, IA5, BMP, T61)
    parts = []
    for _ in range(chance.choice((1, 1, 2, 3, 4))):
        tag, text = chance.choice(strings), chance.choice(_TEXTS)
        if not text.isascii() or (tag in {PRINTABLE, T61} and not re.fullmatch(rb"[A-Za-z0-9 ./-]*", text)):
            tag = UTF8  # the control plane's library minds a text that its type does not allow
        parts.append((chance.choice(_KINDS), tag, text.decode().encode("utf-16-be") if tag == BMP else text))
    extensions = [NOT_CA, uses(*chance.choice(((CLIENT,), (CLIENT,), (CLIENT, SERVER), (CLIENT, "1.2.3.4"))))]
    if chance.random() < 0.6:
        extensions.append(names(*chance.sample(_NAMES, chance.randint(1, 3))))
    if chance.random() < 0.2:
        policies = (der.sequence(der.oid(one)) for one in chance.choice(((POLICY,), ("1.2.3", POLICY))))
        extensions.append(der.extension("2.5.29.32", der.sequence(*policies)))
    return Draft(tuple(extensions), subject=subject(*parts))


def some_rules(chance: Random, word: str) -> Sequence[Mapping[str, Any]]:
    """Give a few rules, narrow and wide, in an order by chance."""
    rules = []
    for _ in range(chance.randint(3, 8)):
        match = {chance.choice(_FIELDS): chance.choice(_VALUES) for _ in range(chance.choice((1, 1, 1, 2)))}
        if chance.random() < 0.1:
            match["policy" if chance.random() < 0.5 else "eku"] = chance.choice((POLICY, "1.2.3.4", "*"))
        field = chance.choice((*NAMEABLE, "common_name", "common_name", *_FIELDS))
        rules.append(
            {"match": match, "identity": chance.choice((f"{word}/{{{field}}}", f"{word}/x/{{{field}}}/y", f"{word}/z"))}
        )
    return rules
