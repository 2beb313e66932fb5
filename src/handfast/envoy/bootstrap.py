"""The little that Envoy is started with: who it is, where its agent is. All else it learns over xDS."""

from __future__ import annotations

from handfast.envoy import types

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
DISCOVERY = "discovery"
"""The cluster of the agent's own socket. No upstream has this name: theirs are URLs."""


def _connections(most: int) -> dict[str, object]:
    """Bound the connections of clients: beyond them new ones are closed, and those that are open go on."""
    config = (
        "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    )
    return {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {"@type": config, "max_active_downstream_connections": most},
    }


def _discovery(ads_socket: str) -> dict[str, object]:
    endpoint = {"endpoint": {"address": {"pipe": {"path": ads_socket}}}}
    return {
        "name": DISCOVERY,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": types.HTTP_OPTIONS,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {"cluster_name": DISCOVERY, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def bootstrap(*, node: str, ads_socket: str) -> dict[str, object]:
    """Give Envoy's bootstrap (protobuf's JSON form). ``ads_socket`` is the path of the agent's Unix socket.

    Who runs Envoy adds where its administration listens.
    """
    # Envoy's own client. That of the gRPC library has threads that wake up for nothing 20 times a second, and takes 4 MiB a message.
    grpc = {"envoy_grpc": {"cluster_name": DISCOVERY}}
    return {
        "node": {"id": node, "cluster": "handfast"},
        "dynamic_resources": {
            "ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": [grpc]},
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        "static_resources": {"clusters": [_discovery(ads_socket)]},
        "layered_runtime": RUNTIME,
        "stats_config": UNCOUNTED,
        "overload_manager": {"resource_monitors": [_connections(MOST_CONNECTIONS)]},
    }
