"""From a slice of the world to Envoy's resources, each in protobuf's JSON form.

Decides what Envoy is told. Refuses to know how it gets there (xDS) and where keys come from (they are arguments). Each host is
one filter chain with a route table of its own, so that neither a session nor a request of one host reaches another's rules.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from handfast.access.policy import CertificateMode, Host, Listen, Route, Upstream
from handfast.access.slice import Slice
from handfast.envoy import types
from handfast.envoy.loggers import connection_logs, request_logs
from handfast.envoy.partners import asks_agent, clients_context
from handfast.envoy.program import AGENT_CLUSTER, JWKS, MISDIRECTED, program, route_name
from handfast.envoy.replies import LOCAL_REPLIES

Resource = types.Resource
Resources = dict[str, dict[str, Resource]]

CLIENTS_SECRET = "clients"  # noqa: S105 - a resource's name
UPSTREAM_SECRET = "upstreams"  # noqa: S105 - a resource's name
IDENTITY_HEADERS = ("client-cert", "client-cert-chain", "x-forwarded-client-cert", "x-client-identity", "x-client-cn")
_ADS: Resource = {"ads": {}, "resource_api_version": "V3"}


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate with its chain, and its private key, as PEM texts; ``staple`` an OCSP response for it (DER), or nothing.

    A certificate that demands a staple must have one: Envoy refuses all of it else. Envoy staples what has not ended, and by such a
    certificate refuses clients that ask for a staple that has; what a response says and who signed it, it does not look at.
    """

    chain_pem: str
    key_pem: str = field(repr=False)
    staple: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """What the translator needs to know of the gateway itself.

    ``program`` is the text of ``access.lua``, ``by`` the gateway's SPIFFE id, ``certificates`` the server certificates by host,
    ``jwks`` the public session keys (JSON), ``upstream_roots`` PEM of what https upstreams are verified against.
    ``agent_socket`` and ``access_log`` are paths.
    """

    program: str
    by: str
    certificates: Mapping[str, KeyPair]
    jwks: str
    upstream_roots: str
    agent_socket: str
    access_log: str


def translate(slice_: Slice, gateway: Gateway, *, retired: Iterable[Host] = ()) -> Resources:
    """Give all resources by type and name. Hosts that have no certificate yet are left out, and so are not served."""
    hosts = [host for name, host in sorted(slice_.world.hosts.items()) if name in gateway.certificates]
    upstreams = sorted({route.upstream for host in hosts for route in host.routes}, key=str)
    clusters = [_cluster(upstream) for upstream in upstreams]
    secrets = [_host_secret(host, gateway.certificates[host.name]) for host in hosts]
    asking = [host for host in hosts if host.clients.certificate is not CertificateMode.OFF]
    if not all(host.clients.partners for host in asking):
        secrets.append(_clients_secret(slice_))
    secrets += [_partners_secret(slice_, host) for host in asking if host.clients.partners]
    if any(upstream.scheme == "https" for upstream in upstreams):
        secrets.append(_roots_secret(UPSTREAM_SECRET, gateway.upstream_roots))
    if any(host.session or asks_agent(slice_, host) for host in hosts):
        clusters.append(_agent_cluster(gateway.agent_socket))
    before = {host.name: host for host in retired}
    checks = [_access_check(slice_, host, gateway, before.get(host.name)) for host in hosts]
    return {
        types.CLUSTER: _by_name(clusters),
        types.SECRET: _by_name(secrets),
        types.EXTENSION: _by_name(checks),
        types.LISTENER: _by_name(_listeners(hosts, gateway)),
        types.ROUTE: _by_name([_route_table(host, gateway) for host in hosts]),
    }


def _by_name(resources: Iterable[Resource]) -> dict[str, Resource]:
    return {str(resource["name"]): resource for resource in resources}


# Clusters


def _cluster(upstream: Upstream) -> Resource:
    try:
        ip_address(upstream.host)
        kind = "STATIC"
    except ValueError:
        kind = "STRICT_DNS"
    address: Resource = {"socket_address": {"address": upstream.host, "port_value": upstream.port}}
    cluster: Resource = {
        "name": str(upstream),
        "type": kind,
        "connect_timeout": "5s",
        "load_assignment": _endpoint(str(upstream), address),
    }
    if upstream.scheme == "https":
        cluster["transport_socket"] = _tls_socket(types.UPSTREAM_TLS, _upstream_tls(upstream))
    return cluster


def _endpoint(name: str, address: Resource) -> Resource:
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}


def _agent_cluster(path: str) -> Resource:
    return {
        "name": AGENT_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": _endpoint(AGENT_CLUSTER, {"pipe": {"path": path}}),
    }


def _upstream_tls(upstream: Upstream) -> Resource:
    """Verify name and chain: without a validation context Envoy would verify nothing."""
    try:
        ip_address(upstream.host)
        san, server_name = {"san_type": "IP_ADDRESS", "matcher": {"exact": upstream.host}}, {}
    except ValueError:
        san = {"san_type": "DNS", "matcher": {"exact": upstream.host}}
        server_name = {"sni": upstream.host}
    return {
        **server_name,
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": [san]},
                "validation_context_sds_secret_config": _sds(UPSTREAM_SECRET),
            },
        },
    }


# Secrets


def _sds(name: str) -> Resource:
    return {"name": name, "sds_config": _ADS}


def _secret_name(host: Host) -> str:
    return f"host/{host.name}"


def _host_secret(host: Host, pair: KeyPair) -> Resource:
    certificate: Resource = {
        "certificate_chain": {"inline_string": pair.chain_pem},
        "private_key": {"inline_string": pair.key_pem},
    }
    if pair.staple:
        certificate["ocsp_staple"] = {"inline_bytes": b64encode(pair.staple).decode()}
    return {"name": _secret_name(host), "tls_certificate": certificate}


def _roots_secret(name: str, pem: str) -> Resource:
    return {"name": name, "validation_context": {"trusted_ca": {"inline_string": pem}}}


def _clients_name(host: Host) -> str:
    return f"{CLIENTS_SECRET}/{host.name}" if host.clients.partners else CLIENTS_SECRET


def _clients_secret(slice_: Slice) -> Resource:
    """Trust the roots alone: a client has to send its intermediates. Without roots Envoy would accept anybody."""
    if not any("BEGIN CERTIFICATE" in root for root in slice_.roots):
        raise ValueError("a slice without roots must not reach Envoy")
    context: Resource = {"trusted_ca": {"inline_string": "".join(slice_.roots)}}
    if slice_.crls:
        context["crl"] = {"inline_string": "".join(slice_.crls)}
    return {"name": CLIENTS_SECRET, "validation_context": context}


def _partners_secret(slice_: Slice, host: Host) -> Resource:
    return {"name": _clients_name(host), "validation_context": clients_context(slice_, host)}


# Listeners


def _listeners(hosts: Iterable[Host], gateway: Gateway) -> list[Resource]:
    by_listen: dict[Listen, list[Host]] = {}
    for host in hosts:
        by_listen.setdefault(host.listen, []).append(host)
    headers = identity_headers(host for hosts_here in by_listen.values() for host in hosts_here)
    return [_listener(listen, here, gateway, headers) for listen, here in sorted(by_listen.items())]


def _listener(listen: Listen, hosts: list[Host], gateway: Gateway, headers: list[str]) -> Resource:
    return {
        "name": str(listen),
        "address": {"socket_address": {"address": listen.address, "port_value": listen.port}},
        "per_connection_buffer_limit_bytes": 65536,
        "listener_filters": [
            {"name": "tls_inspector", "typed_config": {"@type": types.TLS_INSPECTOR}},
        ],
        "listener_filters_timeout": "10s",
        "filter_chains": [_filter_chain(host, gateway, headers) for host in hosts],
        "access_log": connection_logs(gateway.access_log),
    }


def _filter_chain(host: Host, gateway: Gateway, headers: list[str]) -> Resource:
    return {
        "name": host.name,
        "filter_chain_match": {"server_names": [host.name]},
        "transport_socket_connect_timeout": "10s",
        "transport_socket": _tls_socket(types.DOWNSTREAM_TLS, _downstream_tls(host)),
        "filters": [{"name": "http", "typed_config": _http_manager(host, gateway, headers)}],
    }


def _tls_socket(type_url: str, config: Resource) -> Resource:
    return {"name": "tls", "typed_config": {"@type": type_url, **config}}


def _downstream_tls(host: Host) -> Resource:
    """TLS for one host. Sessions may be resumed: the access check looks at expiry and revocation on each request.

    A changed CRL or root changes Envoy's session id context, so that a session from before it is not resumed.
    """
    common: Resource = {
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_2",
            "tls_maximum_protocol_version": "TLSv1_3",
            "signature_algorithms": list(types.SIGNATURE_ALGORITHMS),
        },
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificate_sds_secret_configs": [_sds(_secret_name(host))],
    }
    mode = host.clients.certificate
    if mode is not CertificateMode.OFF:
        common["validation_context_sds_secret_config"] = _sds(_clients_name(host))
    return {"require_client_certificate": mode is CertificateMode.REQUIRED, "common_tls_context": common}


def _http_manager(host: Host, gateway: Gateway, headers: list[str]) -> Resource:
    return {
        "@type": types.HTTP_MANAGER,
        "stat_prefix": "gateway",
        "rds": {"route_config_name": host.name, "config_source": _ADS},
        "http_filters": [
            {
                "name": _check_name(host),
                "config_discovery": {"config_source": _ADS, "type_urls": [types.LUA]},
            },
            _router(),
        ],
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "always_set_request_id_in_response": True,
        "server_header_transformation": "PASS_THROUGH",
        "forward_client_cert_details": "SANITIZE",
        "common_http_protocol_options": {"headers_with_underscores_action": "DROP_HEADER", "idle_timeout": "300s"},
        "request_headers_timeout": "10s",
        "early_header_mutation_extensions": [_strip(headers)],
        "local_reply_config": LOCAL_REPLIES,
        "access_log": request_logs(gateway.access_log, partners=bool(host.clients.partners)),
    }


def _router() -> Resource:
    """Pass requests on. Counters by response class and service cost each request some µs; those of the listener say it as well."""
    return {
        "name": "router",
        "typed_config": {"@type": types.ROUTER, "suppress_envoy_headers": True, "dynamic_stats": False},
    }


def identity_headers(hosts: Iterable[Host]) -> list[str]:
    """Give the names of all headers that carry an identity to a service: no client may set one of them."""
    named = {name.lower() for host in hosts for route in host.routes for name, _ in route.headers}
    return sorted({*IDENTITY_HEADERS, *named})


def _strip(headers: list[str]) -> Resource:
    """Remove them in every spelling: any mark or none where the name has a dash, as some servers fold those into one."""
    spellings = "|".join(re.escape(name).replace(r"\-", "[^a-z0-9]?") for name in headers)
    mutation = {"remove_on_match": {"key_matcher": {"safe_regex": {"regex": spellings}}}}
    return {
        "name": "strip",
        "typed_config": {"@type": types.EARLY_HEADER_MUTATION, "mutations": [mutation]},
    }


# The access check and the routes


def _check_name(host: Host) -> str:
    return f"access/{host.name}"


def _access_check(slice_: Slice, host: Host, gateway: Gateway, retired: Host | None) -> Resource:
    """Give a host's program. Envoy compiles it once a worker, so it holds the rules of no other host.

    The request goes the way that was checked: left to itself, Envoy looks for a route once more as soon as the program sets a header.
    """
    source = program(slice_, host, gateway.program, by=gateway.by, retired=retired)
    return {
        "name": _check_name(host),
        "typed_config": {
            "@type": types.LUA,
            "default_source_code": {"inline_string": source},
            "clear_route_cache": False,
        },
    }


def _route_table(host: Host, gateway: Gateway) -> Resource:
    routes = [_route(host, route) for route in sorted(host.routes, key=lambda r: (-len(r.path), r.path))]
    if host.session:
        routes.insert(0, _fixed(host, JWKS, {"path": "/.well-known/jwks.json"}, 200, gateway.jwks))
    routes.append(_fixed(host, "!", {"prefix": "/"}, 404))
    table: Resource = {
        "name": host.name,
        "ignore_port_in_host_matching": True,
        "virtual_hosts": [
            {"name": host.name, "domains": [host.name], "routes": routes},
            {"name": MISDIRECTED, "domains": ["*"], "routes": [_fixed(host, MISDIRECTED, {"prefix": "/"}, 421)]},
        ],
    }
    if host.session:
        table["response_headers_to_add"] = [
            {
                "header": {"key": "set-cookie", "value": "%DYNAMIC_METADATA(handfast:set_cookie)%"},
                "append_action": "APPEND_IF_EXISTS_OR_ADD",
            }
        ]
    return table


def _route(host: Host, route: Route) -> Resource:
    match = {"prefix": "/"} if route.path == "/" else {"path_separated_prefix": route.path}
    return {
        "name": route_name(host, route),
        "match": match,
        "route": {"cluster": str(route.upstream), "timeout": "0s"},
    }


def _fixed(host: Host, name: str, match: Resource, status: int, body: str = "") -> Resource:
    answer: Resource = {"status": status}
    route: Resource = {"name": f"{host.name}{name}", "match": match, "direct_response": answer}
    if body:
        answer["body"] = {"inline_string": body}
        route["response_headers_to_add"] = [
            {
                "header": {"key": "content-type", "value": "application/json"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ]
    return route
