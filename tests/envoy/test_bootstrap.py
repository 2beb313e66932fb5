from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from handfast.envoy.bootstrap import MOST_CONNECTIONS, RUNTIME, bootstrap

words = st.text(st.characters(categories=["L", "N"]), min_size=1)


@given(words, words)
def test_envoy_learns_all_from_its_agent(node: str, name: str):
    """Who it is and which socket to ask is all that is written down: no listener, cluster, key or policy of its own."""
    given_: Any = json.loads(json.dumps(bootstrap(node=node, ads_socket=f"/run/{name}.sock")))
    assert given_["node"] == {"id": node, "cluster": "handfast"}
    assert given_.keys() == {"node", "dynamic_resources", "layered_runtime", "overload_manager"}
    (service,) = given_["dynamic_resources"]["ads_config"]["grpc_services"]
    assert service["google_grpc"]["target_uri"] == f"unix:/run/{name}.sock"
    for kind in ("lds_config", "cds_config"):
        assert given_["dynamic_resources"][kind] == {"ads": {}, "resource_api_version": "V3"}


def test_connections_are_bounded():
    """Envoy has a bound on clients' connections, and none that its administration could lift."""
    given_: Any = bootstrap(node="gw", ads_socket="/run/ads.sock")
    (monitor,) = given_["overload_manager"]["resource_monitors"]
    assert monitor["typed_config"]["max_active_downstream_connections"] == MOST_CONNECTIONS
    assert [layer["name"] for layer in RUNTIME["layers"]] == ["static"]  # type: ignore[attr-defined]
    assert "admin" not in given_
