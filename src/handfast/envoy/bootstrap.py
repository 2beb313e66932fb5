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


# What the record of each connection says anyway, or nobody asks for: each would cost every handshake a look-up by name.
UNCOUNTED: dict[str, object] = {
    "stats_matcher": {
        "exclusion_list": {
            "patterns": [
                {
                    "safe_regex": {
                        "regex": r"(listener|cluster|http)\..*(\.ssl\.(ciphers|curves|sigalgs|versions)\..*|cx_length_ms)"
                        r"|listener\..*\.connections_accepted_per_socket_event|tls_inspector\.bytes_processed"
                    }
                }
            ]
        }
    }
}

MOST_CONNECTIONS = 50_000
LARGEST_MESSAGE = 64 << 20


def _connections(most: int) -> dict[str, object]:
    """Bound the connections of clients: beyond them new ones are closed, and those that are open go on."""
    config = (
        "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    )
    return {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {"@type": config, "max_active_downstream_connections": most},
    }


def bootstrap(*, node: str, ads_socket: str) -> dict[str, object]:
    """Give Envoy's bootstrap (protobuf's JSON form). ``ads_socket`` is the path of the agent's Unix socket.

    Who runs Envoy adds where its administration listens.
    """
    # Left to itself gRPC takes 4 MiB a message, and a larger revocation list would break the stream again and again.
    largest = {"args": {"grpc.max_receive_message_length": {"int_value": LARGEST_MESSAGE}}}
    grpc = {"google_grpc": {"target_uri": f"unix:{ads_socket}", "stat_prefix": "ads", "channel_args": largest}}
    return {
        "node": {"id": node, "cluster": "handfast"},
        "dynamic_resources": {
            "ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": [grpc]},
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        "layered_runtime": RUNTIME,
        "stats_config": UNCOUNTED,
        "overload_manager": {"resource_monitors": [_connections(MOST_CONNECTIONS)]},
    }
