"""The world file's JSON Schema (2020-12), for editors.

Decides what an editor says while one types. Refuses to be the judge: `parse_world` is, and knows more (what contradicts what).
"""

from __future__ import annotations

from collections.abc import Collection

from handfast.access import authority_file, host_file, issuance_file, values, world_file
from handfast.access.policy import CertificateMode, IdentityField, Open, RouteMode
from handfast.trust.foreign import FIELDS

Schema = dict[str, object]

_LISTEN = r"(([0-9.]+|\[[0-9A-Fa-f:.]+\]):)?[1-9][0-9]{0,4}"
_URL = r"https?://[^/?#@\s]+"
_SEGMENTS = r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*"
_IDENTITY = rf"(spiffe://[a-z0-9._-]+/)?({_SEGMENTS}|({_SEGMENTS}/)?\*)"


def schema() -> Schema:
    """Give the whole schema as plain values."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Handfast world file",
        **_object(
            "Everything a user of Handfast writes: who exists, what is served, and to whom.",
            {
                "trust_domain": _text(
                    "The trust domain of all identities here.", r"[a-z0-9._-]+", "example.org", most=255
                ),
                "issuance": _issuance(),
                "authorities": _named(
                    "Authorities that are not ours, by name.",
                    authority_file.NAME_PATTERN,
                    _authority(),
                    authority_file.MAX_AUTHORITIES,
                ),
                "workloads": _named(
                    "Who may get a certificate, by name.", _SEGMENTS, _workload(), world_file.MAX_WORKLOADS
                ),
                "hosts": _named(
                    "What gateways serve, by server name.", values.DNS_PATTERN, _host(), world_file.MAX_HOSTS
                ),
            },
            ["trust_domain"],
        ),
        "$defs": {
            "rule": _rule(),
            "rules": _list("Rules; their order does not count.", {"$ref": "#/$defs/rule"}, host_file.MAX_RULES),
        },
    }


def _issuance() -> Schema:
    most = issuance_file.MAX_PATTERNS
    identities = _list(
        "Names, or what they begin with; all unless given.", _text("", rf"{_SEGMENTS}|({_SEGMENTS}/)?\*"), most
    )
    dns = _list("DNS names, or what they end with (*.internal); all unless given.", _dns_pattern(), most)
    keys = _list(
        "Types of keys; all unless given.", {"enum": list(issuance_file.KEY_TYPES)}, len(issuance_file.KEY_TYPES)
    )
    longest = _text("The longest life of a certificate.", values.DURATION_PATTERN, "24h", "7d")
    parts: Schema = {"identities": identities, "dns": dns, "keys": keys, "longest": longest}
    return _or_nothing(_object("What the authority signs at most, whoever asks.", parts, []))


def _dns_pattern() -> Schema:
    return _text("", rf"(\*\.)?{values.DNS_PATTERN}", "ledger.internal", "*.internal", most=values.MAX_DNS_BYTES)


def _authority() -> Schema:
    host = _text("", values.DNS_PATTERN)
    return {
        **_object(
            "Roots of somebody else, and what their certificates are called here.",
            {
                "roots": _text(
                    "A PEM file beside this one: roots and issuing CAs, the whole chain.", r".+", "acme.pem"
                ),
                "roots_pem": _text("The text of such a file.", r"[\s\S]*-----BEGIN CERTIFICATE-----[\s\S]*"),
                "hosts": {
                    **_list("The hosts at which it counts; each names it in clients.trust too.", host, 1000),
                    "minItems": 1,
                },
                "revocation": _revocation(),
                "identities": {
                    "description": "Which certificates get which names; the first that matches counts.",
                    "type": "array",
                    "items": _name_rule(),
                    "minItems": 1,
                    "maxItems": authority_file.MAX_NAME_RULES,
                },
            },
            ["hosts", "identities"],
        ),
        "oneOf": [{"required": ["roots"]}, {"required": ["roots_pem"]}],
    }


def _revocation() -> Schema:
    crl = _text("A list's URL, or a file beside this one.", r"\S+", "http://crl.partner.example/ca.crl", "partner.crl")
    unknown = {
        "description": "What becomes of a certificate of which it is not known whether it is revoked.",
        "enum": list(authority_file.WHEN_UNKNOWN),
        "default": authority_file.WHEN_UNKNOWN[0],
    }
    text = _text("The text of such a file.", r"[\s\S]*-----BEGIN X509 CRL-----[\s\S]*")
    ocsp = _text("Where an OCSP responder is asked.", authority_file.URL_PATTERN, "http://ocsp.partner.example")
    parts = {"crl": crl, "crl_pem": text, "ocsp": ocsp, "when_unknown": unknown}
    return {
        **_object("How it is learned what the authority revoked.", parts, []),
        "anyOf": [{"required": ["crl"]}, {"required": ["crl_pem"]}, {"required": ["ocsp"]}],
        "not": {"required": sorted(authority_file.LIST_KEYS)},
    }


def _name_rule() -> Schema:
    value = _text("", r".+", "Acme", "*", "*.acme.example", "team/*", most=authority_file.MAX_TEXT_BYTES)
    match = {
        "description": "What the certificate says: a whole value, or one with '*' for a part.",
        "type": "object",
        "propertyNames": {"enum": list(FIELDS)},
        "additionalProperties": value,
        "minProperties": 1,
        "examples": [{"organization": "Acme", "common_name": "*"}],
    }
    identity = _text("The name that it gets.", authority_file.IDENTITY_PATTERN, "acme/{common_name}")
    return _object("Certificates, and their name.", {"match": match, "identity": identity}, ["match", "identity"])


def _workload() -> Schema:
    names = _list("The DNS names that its certificates carry.", _dns("payments.internal"), world_file.MAX_DNS_NAMES)
    ttl = _text(
        "How long its certificates live: a number and s, m, h or d. 24h unless given.",
        values.DURATION_PATTERN,
        "15m",
        "1h",
        "7d",
    )
    owner = _text(
        "Who looks after its certificates: a team, an address.",
        r"\S([^\x00-\x1f\x7f]*\S)?",
        "team-payments",
        most=values.LONGEST_OWNER,
    )
    parts: Schema = {
        "dns": names,
        "ttl": ttl,
        "owner": owner,
        "must_staple": _must_staple("Whether its certificates tell"),
    }
    return _or_nothing(_object("A workload.", parts, []))


def _must_staple(whose: str) -> Schema:
    description = f"{whose} clients to insist on a stapled OCSP response (RFC 7633)."
    return {"description": description, "type": "boolean", "default": False}


def _host() -> Schema:
    return _object(
        "One server name that gateways serve.",
        {
            "listen": {
                "description": "Where to listen: a port (of every IPv4 address), or address and port.",
                "oneOf": [
                    {"type": "integer", "minimum": 1, "maximum": 65535},
                    {"type": "string", "pattern": _whole(_LISTEN)},
                ],
                "examples": [8443, "127.0.0.1:8443", "[::1]:8443"],
            },
            "clients": _clients(),
            "routes": {**_list("What is served below which path.", _route(), host_file.MAX_ROUTES), "minItems": 1},
            "session": {
                "description": "Whether a client with a certificate gets a Handfast_Authorization cookie.",
                "type": "boolean",
                "default": False,
            },
            "must_staple": _must_staple("Whether its certificate tells"),
        },
        ["listen", "routes"],
    )


def _clients() -> Schema:
    trust = _list(
        "Whose certificates count here: the world's own trust domain (unless given), and authorities.",
        _text("", r"[a-z0-9._-]+"),
        1000,
    )
    certificate = {
        "description": "off: ask for none. optional: ask, and answer 403 where a route wants one. required: no handshake without one.",
        "enum": [*(mode.value for mode in CertificateMode), False],
        "default": CertificateMode.REQUIRED.value,
    }
    return _or_nothing(
        _object(
            "Whose certificates count, and whether one is asked for.", {"trust": trust, "certificate": certificate}, []
        )
    )


def _route() -> Schema:
    return _object(
        "A path and all below it: the service behind, and who may come. The longest path that matches counts.",
        {
            "path": _text(
                "Absolute and normal; '/' is all.", values.PATH_PATTERN, "/", "/v1/ledger", most=values.MAX_PATH_BYTES
            ),
            "upstream": _text("The service behind it.", _URL, "http://127.0.0.1:9000", "https://ledger.internal:9443"),
            "allow": {
                "description": "Who may come: anyone, any-certificate, or rules. What no rule allows is denied.",
                "oneOf": [{"enum": [word.value for word in Open]}, {"$ref": "#/$defs/rules"}],
                "examples": ["anyone", ["payments", {"identity": "team/*", "methods": ["GET"]}]],
            },
            "deny": {"description": "Who may not come, whatever is allowed.", "$ref": "#/$defs/rules"},
            "methods": _methods("What anybody may do here; everything unless given."),
            "mode": {
                "description": "enforce: decisions bind. report: what would be refused is recorded and let pass.",
                "enum": [mode.value for mode in RouteMode],
                "default": RouteMode.ENFORCE.value,
            },
            "headers": {
                "description": "Request headers for the service, with what of the client's certificate they carry.",
                "type": ["object", "null"],
                "propertyNames": {"pattern": _whole(values.HEADER_PATTERN), "maxLength": values.MAX_TOKEN_BYTES},
                "additionalProperties": {"enum": [carries.value for carries in IdentityField]},
                "maxProperties": host_file.MAX_HEADERS,
                "examples": [{"X-Client-CN": "common-name"}],
            },
        },
        ["path", "upstream", "allow"],
    )


def _rule() -> Schema:
    identity = _text(
        "A name of this trust domain, all below one (team/*), all (*), or a SPIFFE id.",
        _IDENTITY,
        "payments",
        "team/*",
        "spiffe://example.org/payments",
    )
    long = _object(
        "An identity and its methods.", {"identity": identity, "methods": _methods("All unless given.")}, ["identity"]
    )
    return {"description": "An identity, or an identity and the methods that it may use.", "oneOf": [identity, long]}


def _methods(description: str) -> Schema:
    method = _text("", values.METHOD_PATTERN, "GET", "POST", most=values.MAX_TOKEN_BYTES)
    return {**_list(description, method, host_file.MAX_METHODS), "minItems": 1}


def _dns(*examples: str) -> Schema:
    return _text("", values.DNS_PATTERN, *examples, most=values.MAX_DNS_BYTES)


def _whole(pattern: str) -> str:
    return f"^(?:{pattern})$"


def _text(description: str, pattern: str, *examples: str, most: int = 0) -> Schema:
    plain: Schema = {"type": "string", "pattern": _whole(pattern)}
    plain |= {"description": description} if description else {}
    plain |= {"maxLength": most} if most else {}
    return plain | ({"examples": list(examples)} if examples else {})


def _list(description: str, of: Schema, most: int) -> Schema:
    return {"description": description, "type": "array", "items": of, "uniqueItems": True, "maxItems": most}


def _named(description: str, name: str, of: Schema, most: int) -> Schema:
    return {
        "description": description,
        "type": ["object", "null"],
        "propertyNames": {"pattern": _whole(name)},
        "additionalProperties": of,
        "maxProperties": most,
    }


def _or_nothing(plain: Schema) -> Schema:
    """Let an empty value stand for an empty mapping, as the parser does."""
    return {**plain, "type": [plain["type"], "null"]}


def _object(description: str, properties: Schema, required: Collection[str]) -> Schema:
    return {
        "description": description,
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
