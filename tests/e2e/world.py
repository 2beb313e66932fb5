"""The world that the wire tests ask about, and the names in it."""

from __future__ import annotations

from tests.e2e.echo import LOOPBACK

DOMAIN = "example.org"
OPEN, STRICT, PLAIN = "open.example.org", "strict.example.org", "plain.example.org"
"""Three hosts on one port: a certificate is optional, required, not asked for."""

COUNTED = "counted.example.org"
"""A host for the test that counts, so that nobody else's requests are among those counted."""

ROUTE_HEADERS = {
    "X-Peer-Identity": "identity",
    "X-Peer-Name": "name",
    "X-Peer-Common-Name": "common-name",
    "X-Peer-Subject": "subject",
    "X-Peer-Issuer": "issuer",
    "X-Peer-Serial": "serial",
    "X-Peer-Fingerprint": "fingerprint",
    "X-Peer-DNS": "dns",
    "X-Peer-Not-After": "not-after",
}
"""One header for each of the fields that a route may name."""


def wire_world(gateway: int, service: str, nothing: int) -> str:
    """Give the world file. ``gateway`` is the gateway's port, ``service`` a URL, ``nothing`` a port where nobody listens."""
    headers = ", ".join(f"{name}: {carries}" for name, carries in ROUTE_HEADERS.items())
    return f"""\
trust_domain: {DOMAIN}

workloads:
  payments: {{dns: [payments.internal]}}
  reports: {{}}
  staff/alice: {{}}

hosts:
  {OPEN}:
    listen: {LOOPBACK}:{gateway}
    clients: {{certificate: optional}}
    session: true
    routes:
      - {{path: /health, upstream: "{service}", allow: anyone}}
      - path: /
        upstream: {service}
        allow:
          - payments
          - {{identity: reports, methods: [GET, HEAD]}}
          - staff/*
        deny: [staff/mallory]
        headers: {{{headers}}}
      - {{path: /trial, upstream: "{service}", allow: [reports], mode: report}}
      - {{path: /down, upstream: "http://{LOOPBACK}:{nothing}", allow: anyone}}
  {STRICT}:
    listen: {LOOPBACK}:{gateway}
    clients: {{certificate: required}}
    routes:
      - {{path: /, upstream: "{service}", allow: any-certificate}}
  {COUNTED}:
    listen: {LOOPBACK}:{gateway}
    clients: {{certificate: optional}}
    routes:
      - {{path: /, upstream: "{service}", allow: [payments]}}
  {PLAIN}:
    listen: {LOOPBACK}:{gateway}
    clients: {{certificate: "off"}}
    routes:
      - {{path: /, upstream: "{service}", allow: anyone}}
"""
