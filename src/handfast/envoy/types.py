"""The names of Envoy's types, and of what we choose among them."""

from __future__ import annotations

Resource = dict[str, object]
"""A resource of Envoy's, or a part of one, in protobuf's JSON form."""

_T = "type.googleapis.com/"
_EXT = _T + "envoy.extensions."

CLUSTER = _T + "envoy.config.cluster.v3.Cluster"
LISTENER = _T + "envoy.config.listener.v3.Listener"
ROUTE = _T + "envoy.config.route.v3.RouteConfiguration"
SECRET = _EXT + "transport_sockets.tls.v3.Secret"
EXTENSION = _T + "envoy.config.core.v3.TypedExtensionConfig"

DOWNSTREAM_TLS = _EXT + "transport_sockets.tls.v3.DownstreamTlsContext"
UPSTREAM_TLS = _EXT + "transport_sockets.tls.v3.UpstreamTlsContext"
HTTP_MANAGER = _EXT + "filters.network.http_connection_manager.v3.HttpConnectionManager"
HTTP_OPTIONS = _EXT + "upstreams.http.v3.HttpProtocolOptions"
ROUTER = _EXT + "filters.http.router.v3.Router"
LUA = _EXT + "filters.http.lua.v3.Lua"
TLS_INSPECTOR = _EXT + "filters.listener.tls_inspector.v3.TlsInspector"
EARLY_HEADER_MUTATION = _EXT + "http.early_header_mutation.header_mutation.v3.HeaderMutation"
FILE_LOG = _EXT + "access_loggers.file.v3.FileAccessLog"
STATS_LOG = _EXT + "access_loggers.stats.v3.Config"
CEL_FILTER = _EXT + "access_loggers.filters.cel.v3.ExpressionFilter"

# What clients may prove themselves with. Left to itself Envoy asks for fewer, and an Ed25519 or P-521 client then looks
# as if it had no certificate.
SIGNATURE_ALGORITHMS = (
    "ecdsa_secp256r1_sha256",
    "rsa_pss_rsae_sha256",
    "ecdsa_secp384r1_sha384",
    "rsa_pss_rsae_sha384",
    "ed25519",
    "ecdsa_secp521r1_sha512",
    "rsa_pss_rsae_sha512",
    "rsa_pkcs1_sha256",
)
