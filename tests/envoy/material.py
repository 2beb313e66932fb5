"""Slices and a gateway for the translator's tests. Words in brackets stand for keys and certificates, so that golden files last."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from handfast.access.slice import Slice, make_slice
from handfast.access.world import World
from handfast.envoy import types
from handfast.envoy.translate import Gateway, KeyPair, Resources

WORLDS = Path(__file__).parents[1] / "vectors" / "in" / "worlds"
GOLDEN = Path(__file__).parents[1] / "vectors" / "out" / "envoy" / "translate"
PROGRAM = "-- (the program)"
CLIENT_ROOTS = "-----BEGIN CERTIFICATE----- (client roots)"
UPSTREAM_ROOTS = "(upstream roots)"
LOG, SOCKET = "/var/log/handfast/access.jsonl", "/run/handfast/session.sock"


def slice_of(world: World, **more: Any) -> Slice:
    """Give the slice of a world, with roots unless told otherwise."""
    return make_slice(**{"revision": 3, "world": world, "roots": (CLIENT_ROOTS,), "issuers": (), **more})


def chain_of(host: str) -> str:
    return f"(chain of {host})"


def key_of(host: str) -> str:
    return f"(key of {host})"


def gateway_of(hosts: Iterable[str]) -> Gateway:
    """Give a gateway that has certificates for these hosts."""
    return Gateway(
        program=PROGRAM,
        by="spiffe://example.org/handfast/agent/gw-1",
        certificates={host: KeyPair(chain_of(host), key_of(host)) for host in hosts},
        jwks='{"keys":[]}',
        upstream_roots=UPSTREAM_ROOTS,
        agent_socket=SOCKET,
        access_log=LOG,
    )


def golden_text(resources: Resources) -> str:
    """Write resources for people to read: the program in lines, and without the titles of the reasons, which are elsewhere."""
    plain = json.loads(json.dumps(resources))
    for extension in plain[types.EXTENSION].values():
        source = extension["typed_config"]["default_source_code"]
        lines = source["inline_string"].split("\n")
        source["inline_string"] = ["local TITLES = {}" if line.startswith("local TITLES ") else line for line in lines]
    return json.dumps(plain, indent=1, sort_keys=True) + "\n"


def read_golden(text: str, stands_for: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Read what `golden_text` wrote, with the words in brackets (and paths) exchanged for the real thing."""

    def real(value: Any) -> Any:
        match value:
            case str():
                return stands_for.get(value, value)
            case [str(first), *_] if first.startswith("local "):
                return "\n".join(stands_for.get(line, line) for line in value)
            case list():
                return [real(one) for one in value]
            case dict():
                return {key: real(one) for key, one in value.items()}
        return value

    resources: dict[str, dict[str, Any]] = real(json.loads(text))
    return resources
