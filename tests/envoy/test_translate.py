from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handfast.access.policy import CertificateMode, Host, Listen, Route
from handfast.access.slice import make_slice
from handfast.access.world import World
from handfast.access.world_file import document, parse_world
from handfast.envoy import types
from handfast.envoy.program import AGENT_CLUSTER
from handfast.envoy.translate import (
    CLIENTS_SECRET,
    IDENTITY_HEADERS,
    UPSTREAM_SECRET,
    identity_headers,
    translate,
)
from tests.access import strategies as some
from tests.envoy.material import (
    CLIENT_ROOTS,
    UPSTREAM_ROOTS,
    WORLDS,
    gateway_of,
    golden_text,
    key_of,
    slice_of,
)

NAMES = sorted(path.stem.removeprefix("translate-") for path in WORLDS.glob("translate-*.yaml"))
FEW = settings(max_examples=25)  # a world is large, and has much to go wrong with
Json = dict[str, Any]


def world_of(name: str) -> World:
    return parse_world((WORLDS / f"translate-{name}.yaml").read_text())


def translated(world: World, **more: Any) -> dict[str, dict[str, Json]]:
    """Translate a world whose hosts all have certificates, and see that it is JSON."""
    return json.loads(json.dumps(translate(slice_of(world, **more), gateway_of(world.hosts))))


def leaves(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Give every leaf of a JSON value, and the keys that lead there."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from leaves(one, (*path, key))
    elif isinstance(value, list):
        for one in value:
            yield from leaves(one, path)
    else:
        yield path, value


def found(value: object, key: str) -> Iterator[Any]:
    """Give what stands under a key, wherever that is."""
    if isinstance(value, dict):
        yield from (one for name, one in value.items() if name == key)
        for one in value.values():
            yield from found(one, key)
    elif isinstance(value, list):
        for one in value:
            yield from found(one, key)


def chains(resources: dict[str, dict[str, Json]]) -> dict[str, Json]:
    return {chain["name"]: chain for one in resources[types.LISTENER].values() for chain in one["filter_chains"]}


def manager(chain: Json) -> Json:
    (network_filter,) = chain["filters"]
    return network_filter["typed_config"]


def tls(chain: Json) -> Json:
    return chain["transport_socket"]["typed_config"]


# Golden files


@pytest.mark.parametrize("name", NAMES)
def test_a_world_becomes_these_resources(name: str, golden: Callable[[str, str], None]):
    """Each world has its resources, as they were when somebody last read them."""
    world = world_of(name)
    golden(f"{name}.json", golden_text(translate(slice_of(world), gateway_of(world.hosts))))


def test_a_staple_goes_with_its_certificate():
    """Its octets are in the secret that holds the certificate; a host without one has no word of it."""
    world = world_of("many-hosts")
    stapled, *others = sorted(world.hosts)
    gateway = gateway_of(world.hosts)
    pair = replace(gateway.certificates[stapled], staple=b"\x30\x00\xff")
    gateway = replace(gateway, certificates={**gateway.certificates, stapled: pair})
    secrets = translate(slice_of(world), gateway)[types.SECRET]
    assert secrets[f"host/{stapled}"]["tls_certificate"]["ocsp_staple"] == {"inline_bytes": "MAD/"}
    assert others
    assert not any("ocsp_staple" in secrets[f"host/{name}"]["tls_certificate"] for name in others)


def test_revoked_certificates_are_told_to_both(golden: Callable[[str, str], None]):
    """CRLs go to TLS and fingerprints to the program; hosts of the slice before stay in the program, and there alone."""
    world, before = world_of("minimal"), world_of("certificates")
    revoked = slice_of(world, crls=("(a CRL)", "(another CRL)"), denied=("ff" * 32, "00" * 32))
    resources = translate(revoked, gateway_of(world.hosts), retired=before.hosts.values())
    golden("revoked-and-retired.json", golden_text(resources))


# What holds for every world


@FEW
@given(some.worlds())
def test_every_world_is_translated(world: World):
    """What a world file can say, Envoy can be told, and each host is served."""
    again = parse_world(json.dumps(document(world)))
    assert chains(translated(again)).keys() == world.hosts.keys()


@FEW
@given(some.worlds())
def test_every_reference_exists(world: World):
    """Secrets, routes, clusters and the access check that resources name are among the resources, and nothing else is."""
    resources = translated(world)
    secrets = {one["name"] for one in found(resources, "tls_certificate_sds_secret_configs") for one in one}
    secrets |= {one["name"] for one in found(resources, "validation_context_sds_secret_config")}
    assert secrets == resources[types.SECRET].keys()
    assert {one["route_config_name"] for one in found(resources, "rds")} == resources[types.ROUTE].keys()
    clusters = set(found(resources[types.ROUTE], "cluster"))
    agents = {AGENT_CLUSTER} if any(host.session for host in world.hosts.values()) else set()
    assert clusters | agents == resources[types.CLUSTER].keys()
    filters = {one["name"] for one in found(resources, "http_filters") for one in one if "config_discovery" in one}
    assert filters == resources[types.EXTENSION].keys() == {f"access/{name}" for name in world.hosts}
    assert all(name == one["name"] for of_type in resources.values() for name, one in of_type.items())


@FEW
@given(some.worlds())
def test_hosts_share_nothing_that_decides(world: World):
    """Each host has a chain for its own name alone, with a certificate and a route table that no other has."""
    resources = translated(world)
    for name, chain in chains(resources).items():
        assert chain["filter_chain_match"] == {"server_names": [name]}
        assert manager(chain)["rds"]["route_config_name"] == name
        assert [one["name"] for one in tls(chain)["common_tls_context"]["tls_certificate_sds_secret_configs"]] == [
            f"host/{name}"
        ]
        own, others = resources[types.ROUTE][name]["virtual_hosts"]
        assert (own["domains"], others["domains"]) == ([name], ["*"])
        assert [route["direct_response"]["status"] for route in others["routes"]] == [421]
    listens = {str(host.listen) for host in world.hosts.values()}
    assert resources[types.LISTENER].keys() == listens


@FEW
@given(some.worlds())
def test_a_private_key_is_in_its_secret_alone(world: World):
    """Nothing else in the resources holds a key, and each host has its own."""
    resources = translated(world)
    places = {(path, leaf) for path, leaf in leaves(resources) if isinstance(leaf, str) and "(key of" in leaf}
    wanted = {
        ((types.SECRET, f"host/{host}", "tls_certificate", "private_key", "inline_string"), key_of(host))
        for host in world.hosts
    }
    assert places == wanted
    assert "(key of" not in repr(gateway_of(world.hosts))


@FEW
@given(some.worlds())
def test_no_certificate_is_taken_unverified(world: World):
    """Who asks for client certificates verifies them against the roots; an https upstream is verified by name and chain."""
    resources = translated(world)
    for name, chain in chains(resources).items():
        mode, context = world.hosts[name].clients.certificate, tls(chain)
        validation = context["common_tls_context"].get("validation_context_sds_secret_config", {}).get("name")
        assert validation == (None if mode is CertificateMode.OFF else CLIENTS_SECRET)
        assert context["require_client_certificate"] is (mode is CertificateMode.REQUIRED)
    if CLIENTS_SECRET in resources[types.SECRET]:
        assert resources[types.SECRET][CLIENTS_SECRET]["validation_context"] == {
            "trusted_ca": {"inline_string": CLIENT_ROOTS}
        }
    for name, cluster in resources[types.CLUSTER].items():
        assert name.startswith("https://") == ("transport_socket" in cluster)
        for context in found(cluster, "combined_validation_context"):
            (san,) = context["default_validation_context"]["match_typed_subject_alt_names"]
            (host,) = found(cluster, "socket_address")
            assert san["matcher"] == {"exact": host["address"]}
            assert context["validation_context_sds_secret_config"]["name"] == UPSTREAM_SECRET
    assert all(one.get("trust_chain_verification") is None for one in found(resources, "validation_context"))


@FEW
@given(some.worlds(), st.randoms(use_true_random=False))
def test_order_means_nothing(world: World, chance: Random):
    """The same world gives the same resources, and so do its hosts, routes and rules in any order."""

    def mixed(route: Route) -> Route:
        allow = tuple(chance.sample(route.allow, len(route.allow))) if isinstance(route.allow, tuple) else route.allow
        return replace(route, allow=allow, deny=tuple(chance.sample(route.deny, len(route.deny))))

    def mixed_host(host: Host) -> Host:
        return replace(host, routes=tuple(mixed(route) for route in chance.sample(host.routes, len(host.routes))))

    names = chance.sample(sorted(world.hosts), len(world.hosts))
    other = replace(world, hosts={name: mixed_host(world.hosts[name]) for name in names})
    one, two = (
        translated(parse_world(json.dumps(document(world)))),
        translated(parse_world(json.dumps(document(other)))),
    )
    assert one == two
    assert golden_text(one) == golden_text(two)
    assert translated(world)[types.ROUTE] == translated(other)[types.ROUTE]


@FEW
@given(some.worlds())
def test_a_longer_path_comes_first(world: World):
    """Envoy takes the first route that matches: none stands before one that lies below it, and the last takes all."""
    for table in translated(world)[types.ROUTE].values():
        matches = [route["match"] for route in table["virtual_hosts"][0]["routes"]]
        paths = [match.get("path_separated_prefix") or match.get("path") or match["prefix"] for match in matches]
        for at, path in enumerate(paths):
            assert not any(later.startswith(path.rstrip("/") + "/") for later in paths[at + 1 :] if later != path)
        assert matches[-1] == {"prefix": "/"}
        assert table["virtual_hosts"][0]["routes"][-1]["direct_response"] == {"status": 404}


@FEW
@given(some.worlds())
def test_identity_headers_are_stripped_on_every_host(world: World):
    """What carries an identity anywhere is taken from clients everywhere, whatever stands in place of a dash."""
    wanted = {name.lower() for host in world.hosts.values() for route in host.routes for name, _ in route.headers}
    assert set(identity_headers(world.hosts.values())) == wanted | set(IDENTITY_HEADERS)
    for chain in chains(translated(world)).values():
        (pattern,) = found(manager(chain)["early_header_mutation_extensions"], "regex")
        for name in wanted | set(IDENTITY_HEADERS):
            assert {name, name.replace("-", "_"), name.replace("-", "")} <= set(some_spellings(pattern))


def some_spellings(pattern: str) -> Iterator[str]:
    """Spell out what the stripping expression takes, for three of the marks."""
    for name in pattern.split("|"):
        yield from (name.replace("[^a-z0-9]?", mark) for mark in ("-", "_", ""))


# Refused, or left out


@pytest.mark.parametrize("roots", [(), ("",), ("not a certificate",)])
@pytest.mark.parametrize("name", ["minimal", "certificates", "session"])
def test_clients_without_roots_are_not_served(name: str, roots: tuple[str, ...]):
    """A slice without roots raises where a host asks for certificates: Envoy would take any."""
    world = world_of(name)
    with pytest.raises(ValueError, match="roots"):
        translate(slice_of(world, roots=roots), gateway_of(world.hosts))


def test_no_roots_are_needed_where_nobody_is_asked():
    """Hosts without client certificates are served without roots, and have no secret for them."""
    world = world_of("all-off")
    resources = translate(make_slice(revision=1, world=world, roots=(), issuers=()), gateway_of(world.hosts))
    assert resources[types.SECRET].keys() == {"host/off.example.org"}


def test_a_host_without_a_certificate_is_left_out():
    """It has no chain, no routes and no upstreams; a listener that has no host left is gone, and the others stay."""
    world = world_of("many-hosts")
    resources = translate(slice_of(world), gateway_of(["a.example.org", "c.example.org"]))
    assert [chain["name"] for one in resources[types.LISTENER].values() for chain in one["filter_chains"]] == [
        "a.example.org",
        "c.example.org",
    ]  # type: ignore[index]
    assert resources[types.LISTENER].keys() == {"127.0.0.1:18443"}
    assert resources[types.ROUTE].keys() == {"a.example.org", "c.example.org"}
    assert resources[types.CLUSTER].keys() == {"http://127.0.0.1:9000"}
    nobody = translate(slice_of(world), gateway_of([]))
    assert not any(nobody.values())


def test_two_addresses_of_one_port_are_two_listeners():
    """What a host listens on is told to Envoy as it stands."""
    world = world_of("many-hosts")
    hosts = {
        name: replace(host, listen=Listen("::1", 18443)) if name < "b" else host for name, host in world.hosts.items()
    }
    listeners = translated(replace(world, hosts=hosts))[types.LISTENER]
    addresses = {name: one["address"]["socket_address"] for name, one in listeners.items()}
    assert addresses["[::1]:18443"] == {"address": "::1", "port_value": 18443}
    assert addresses["127.0.0.1:18443"] == {"address": "127.0.0.1", "port_value": 18443}


def test_upstream_roots_are_sent_where_https_is_spoken():
    """The roots of upstreams are a secret of their own, and are not those of clients."""
    secrets = translated(world_of("upstreams"))[types.SECRET]
    assert secrets[UPSTREAM_SECRET]["validation_context"] == {"trusted_ca": {"inline_string": UPSTREAM_ROOTS}}
    assert UPSTREAM_SECRET not in translated(world_of("minimal"))[types.SECRET]
