"""The little that Envoy is started with: who it is, where its agent is. All else it learns over xDS."""

from __future__ import annotations

RUNTIME: dict[str, object] = {
    "layers": [
        {
            "name": "static",
            "static_layer": {
                # The expression that strips identity headers grows with the names that routes give.
                "re2.max_program_size.error_level": 20000,
                "re2.max_program_size.warn_level": 20000,
            },
        }
    ]
}


def bootstrap(*, node: str, ads_socket: str, admin_socket: str) -> dict[str, object]:
    """Give Envoy's bootstrap (protobuf's JSON form). The sockets are paths of Unix sockets."""
    grpc = {"google_grpc": {"target_uri": f"unix:{ads_socket}", "stat_prefix": "ads"}}
    return {
        "node": {"id": node, "cluster": "handfast"},
        "admin": {"address": {"pipe": {"path": admin_socket, "mode": 0o600}}},
        "dynamic_resources": {
            "ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": [grpc]},
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        "layered_runtime": RUNTIME,
    }
