from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.envoy.bootstrap import MOST_CONNECTIONS, RUNTIME, bootstrap

words = st.text(st.characters(categories=["L", "N"]), min_size=1)


@given(words, words)
def test_envoy_learns_all_from_its_agent(node: str, name: str):
    """Who it is and which socket to ask is all that is written down: no listener, key or policy of its own, nor a way to elsewhere."""
    given_: Any = json.loads(json.dumps(bootstrap(node=node, ads_socket=f"/run/{name}.sock")))
    assert given_["node"] == {"id": node, "cluster": "handfast"}
    more = {"layered_runtime", "overload_manager", "stats_config"}
    assert given_.keys() == {"node", "dynamic_resources", "static_resources", *more}
    assert given_["static_resources"].keys() == {"clusters"}
    (cluster,) = given_["static_resources"]["clusters"]
    (endpoints,) = cluster["load_assignment"]["endpoints"]
    assert endpoints["lb_endpoints"] == [{"endpoint": {"address": {"pipe": {"path": f"/run/{name}.sock"}}}}]
    (service,) = given_["dynamic_resources"]["ads_config"]["grpc_services"]
    assert service == {"envoy_grpc": {"cluster_name": cluster["name"]}}
    for kind in ("lds_config", "cds_config"):
        assert given_["dynamic_resources"][kind] == {"ads": {}, "resource_api_version": "V3"}


@pytest.mark.parametrize(
    ("stat", "kept"),
    [
        ("listener.127.0.0.1_8443.ssl.ciphers.TLS_AES_128_GCM_SHA256", False),
        ("listener.127.0.0.1_8443.ssl.versions.TLSv1.3", False),
        ("listener.127.0.0.1_8443.downstream_cx_length_ms", False),
        ("http.gateway.downstream_cx_length_ms", False),
        ("listener.127.0.0.1_8443.connections_accepted_per_socket_event", False),
        ("tls_inspector.bytes_processed", False),
        ("tls_inspector.sni_found", True),
        ("http.gateway.downstream_rq_time", True),
        ("listener.127.0.0.1_8443.ssl.handshake", True),
        ("listener.127.0.0.1_8443.downstream_cx_total", True),
        ("listener_manager.listener_create_success", True),
        ("handfast.requests.identity.spiffe_//x/y.ssl.versions.z", True),
        ("cluster.ssl_ciphers.upstream_cx_total", True),
    ],
)
def test_what_the_record_says_is_not_counted_too(stat: str, *, kept: bool):
    """Counters by cipher and curve and some histograms are left out, and none that the agent or an operator reads."""
    given_: Any = bootstrap(node="gw", ads_socket="/run/ads.sock")
    (pattern,) = given_["stats_config"]["stats_matcher"]["exclusion_list"]["patterns"]
    assert (re.fullmatch(pattern["safe_regex"]["regex"], stat) is None) == kept


def test_connections_are_bounded():
    """Envoy has a bound on clients' connections, and none that its administration could lift."""
    given_: Any = bootstrap(node="gw", ads_socket="/run/ads.sock")
    (monitor,) = given_["overload_manager"]["resource_monitors"]
    assert monitor["typed_config"]["max_active_downstream_connections"] == MOST_CONNECTIONS
    assert [layer["name"] for layer in RUNTIME["layers"]] == ["static"]  # type: ignore[attr-defined]
    assert "admin" not in given_
