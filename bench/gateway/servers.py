"""The servers that are compared, each with one worker on one core: Handfast, Envoy alone, nginx, HAProxy, Caddy.

All have the same server certificate, ask for and verify the client's, speak TLS 1.2 and 1.3, and pass each request on to the same
service over connections that stay open. None but Handfast keeps an access log, as ours is on by default.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.support import LOOPBACK, Platform, family, free_port, listens, process, said_by, wait_for

from handfast.envoy import types
from handfast.io.credentials import load
from handfast.io.envoy_process import find_envoy

HOST, SESSION_HOST, CLIENT = "bench.example.org", "session.example.org", "bench-client"
HANDFAST, WITH_SESSION = "Handfast", "Handfast, session"
PLAIN, BY_NAME = "plain Envoy", "plain Envoy, by name"


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs. ``serving`` are the processes that connections pass through, ``beside`` those that work for them."""

    name: str
    host: str
    port: int
    serving: tuple[int, ...]
    beside: tuple[int, ...] = ()
    session: bool = False


@dataclass(frozen=True, slots=True)
class Site:
    """What a peer needs: the service's port, a directory, certificate files, and the core to run on."""

    upstream: int
    directory: Path
    chain: Path
    key: Path
    roots: Path
    core: int


# Handfast


def world(gateway: int, upstream: int) -> str:
    """Give the world file: two hosts on one port, each with one rule; one keeps sessions."""

    def host(name: str, more: str = "") -> str:
        route = f'{{path: /, upstream: "http://{LOOPBACK}:{upstream}", allow: [{CLIENT}]}}'
        return f"  {name}:\n    listen: {LOOPBACK}:{gateway}\n    clients: {{certificate: required}}\n{more}    routes: [{route}]\n"

    return f"trust_domain: example.org\nhosts:\n{host(HOST)}{host(SESSION_HOST, '    session: true' + chr(10))}"


def handfast(up: Platform, port: int) -> list[Server]:
    """Give the gateway twice: without sessions and with."""
    return [
        Server(HANDFAST, HOST, port, (up.envoy,), (up.python,)),
        Server(WITH_SESSION, SESSION_HOST, port, (up.envoy,), (up.python,), session=True),
    ]


def site(up: Platform, directory: Path, upstream: int, core: int) -> Site:
    """Lay out the gateway's own certificate for the others."""
    held = load(up.data / "agent" / "hosts" / f"{HOST}.pem")
    assert held is not None
    files = {"server.pem": held.chain_pem, "server.key": held.key_pem, "both.pem": held.chain_pem + held.key_pem}
    for name, text in files.items():
        (directory / name).touch(0o600)
        (directory / name).write_text(text)
    return Site(upstream, directory, directory / "server.pem", directory / "server.key", up.roots, core)


# Peers


@contextmanager
def plain_envoy(site: Site, name: str = PLAIN) -> Iterator[Server]:
    """Run Envoy with the same TLS, a route, and nothing else; `BY_NAME` also reads the server name and asks for ours."""
    port = free_port()
    listener = _plain_listener(site, port)
    if name == BY_NAME:
        listener["listener_filters"] = [{"name": "tls_inspector", "typed_config": {"@type": types.TLS_INSPECTOR}}]
        listener["filter_chains"][0]["filter_chain_match"] = {"server_names": [HOST]}
    config = site.directory / f"envoy-{port}.json"
    config.write_text(json.dumps({"static_resources": {"clusters": [_plain_cluster(site)], "listeners": [listener]}}))
    flags = ["-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]
    with _running(name, [find_envoy(), *flags], site, port) as server:
        yield server


@contextmanager
def nginx(site: Site) -> Iterator[Server]:
    """Run nginx."""
    port, config = free_port(), site.directory / "nginx.conf"
    config.write_text(f"""\
daemon off; worker_processes 1; pid {site.directory}/nginx.pid; error_log {site.directory}/nginx.error warn; user root;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000; client_body_temp_path {site.directory}/nginx-body;
  proxy_temp_path {site.directory}/nginx-proxy; fastcgi_temp_path {site.directory}/nginx-fastcgi;
  uwsgi_temp_path {site.directory}/nginx-uwsgi; scgi_temp_path {site.directory}/nginx-scgi;
  upstream service {{ server {LOOPBACK}:{site.upstream}; keepalive 16; keepalive_requests 1000000; }}
  server {{
    listen {LOOPBACK}:{port} ssl; server_name {HOST};
    ssl_certificate {site.chain}; ssl_certificate_key {site.key}; ssl_protocols TLSv1.2 TLSv1.3;
    ssl_client_certificate {site.roots}; ssl_verify_client on; ssl_verify_depth 2; ssl_session_cache shared:tls:1m;
    location / {{ proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
""")
    with _running("nginx", ["nginx", "-c", config, "-e", site.directory / "nginx.error"], site, port) as server:
        yield server


@contextmanager
def haproxy(site: Site) -> Iterator[Server]:
    """Run HAProxy."""
    port, config = free_port(), site.directory / "haproxy.cfg"
    config.write_text(f"""\
global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend bench
  bind {LOOPBACK}:{port} ssl crt {site.directory}/both.pem ca-file {site.roots} verify required ssl-min-ver TLSv1.2 alpn http/1.1
  default_backend service
backend service
  http-reuse always
  server service {LOOPBACK}:{site.upstream}
""")
    with _running("HAProxy", ["haproxy", "-db", "-f", config], site, port) as server:
        yield server


@contextmanager
def caddy(site: Site) -> Iterator[Server]:
    """Run Caddy; Go is held to one processor."""
    port, config = free_port(), site.directory / "Caddyfile"
    config.write_text(f"""\
{{
  admin off
  auto_https off
  servers {{
    protocols h1 h2
  }}
}}
https://{HOST}:{port} {{
  bind {LOOPBACK}
  tls {site.chain} {site.key} {{
    protocols tls1.2 tls1.3
    client_auth {{
      mode require_and_verify
      trusted_ca_cert_file {site.roots}
    }}
  }}
  reverse_proxy {LOOPBACK}:{site.upstream}
}}
""")
    command = ["caddy", "run", "--config", str(config), "--adapter", "caddyfile"]
    home = str(site.directory / "caddy")
    with _running("Caddy", command, site, port, GOMAXPROCS="1", XDG_DATA_HOME=home, XDG_CONFIG_HOME=home) as server:
        yield server


PEERS: dict[str, Callable[[Site], AbstractContextManager[Server]]] = {
    "nginx": nginx,
    "haproxy": haproxy,
    "caddy": caddy,
}
"""By the program that each needs."""


def missing() -> list[str]:
    """Give the programs that are not installed."""
    return [program for program in PEERS if shutil.which(program) is None]


@contextmanager
def _running(name: str, command: Sequence[str | Path], site: Site, port: int, **environment: str) -> Iterator[Server]:
    words = site.directory / f"{port}.out"
    with process(command, words, core=site.core, **environment) as pid:
        wait_for(f"{name} on its port", lambda: said_by(pid, words) is not None and listens(port))
        yield Server(name, HOST, port, tuple(family(pid)))


def _plain_cluster(site: Site) -> dict[str, Any]:
    address = {"socket_address": {"address": LOOPBACK, "port_value": site.upstream}}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address}}]}
    return {
        "name": "service",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "service", "endpoints": [endpoint]},
    }


def _plain_listener(site: Site, port: int) -> dict[str, Any]:
    common = {
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_2",
            "tls_maximum_protocol_version": "TLSv1_3",
            "signature_algorithms": list(types.SIGNATURE_ALGORITHMS),
        },
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificates": [
            {"certificate_chain": {"filename": str(site.chain)}, "private_key": {"filename": str(site.key)}}
        ],
        "validation_context": {"trusted_ca": {"filename": str(site.roots)}},
    }
    tls = {"@type": types.DOWNSTREAM_TLS, "require_client_certificate": True, "common_tls_context": common}
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "service", "timeout": "0s"}}]
    manager = {
        "@type": types.HTTP_MANAGER,
        "stat_prefix": "plain",
        "route_config": {"virtual_hosts": [{"name": "service", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": types.ROUTER}}],
    }
    chain = {
        "transport_socket": {"name": "tls", "typed_config": tls},
        "filters": [{"name": "http", "typed_config": manager}],
    }
    return {
        "name": "plain",
        "address": {"socket_address": {"address": LOOPBACK, "port_value": port}},
        "filter_chains": [chain],
    }
