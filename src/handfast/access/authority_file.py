"""One authority of the world file that is not ours: from its keys to a `ForeignAuthority`, and back to plain values.

Decides what may be said of one. Refuses to read files: `handfast apply` puts their text in before (`inlining`), so that a
server never opens a path that somebody sent it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial

from handfast.access.authority import Condition, ForeignAuthority, Kind, NameRule, Revocation, Segment
from handfast.access.patterns import OPEN_WORDS
from handfast.access.yaml_lines import Node, Table, any_table, distinct, items, placed, table, value
from handfast.base.refusal import BadInput
from handfast.base.spiffe import TrustDomain
from handfast.trust.entries import RESERVED, Workload
from handfast.trust.facts import pem, pem_certificates
from handfast.trust.foreign import FIELDS, OID_FIELDS, ForeignCa, confusable, judge
from handfast.trust.foreign_crl import crl_ders

MAX_AUTHORITIES = 64
MAX_NAME_RULES = 100
MAX_SEGMENTS = 8
MAX_URL_BYTES = 1024
MAX_TEXT_BYTES = 1024

AUTHORITY_KEYS = ("roots", "roots_pem", "hosts", "revocation", "identities")
REVOCATION_KEYS = ("crl", "crl_pem", "ocsp", "when_unknown")
LIST_KEYS = {"crl", "crl_pem"}
RULE_KEYS = ("match", "identity")
NAME_PATTERN = r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?"
URL_PATTERN = r"https?://[^/?#@\s]+(/[^#\s]*)?"
IDENTITY_PATTERN = r"[A-Za-z0-9._-]+(/([A-Za-z0-9._-]+|\{[a-z_]+\}))*"
OID_PATTERN = r"[0-2](\.(0|[1-9][0-9]{0,9})){1,20}"
WHEN_UNKNOWN = ("refuse", "accept")
NAMEABLE = tuple(field for field in FIELDS if field not in OID_FIELDS)
"""What may become part of a name."""

_ONLY_APPLY = "write its text under {}, or let 'handfast apply' do so: it reads the file beside the world file"


def parse_authority(name: str, node: Node, *, own: TrustDomain, hosts: Mapping[str, Node]) -> ForeignAuthority:
    """Read one entry of ``authorities``; ``hosts`` are those of the same world.

    Raises:
        BadInput: a key is missing, unknown or wrong, or the chain is not whole.
    """
    found = table(node, AUTHORITY_KEYS)
    placed(found.place, partial(_authority_name, name, own))
    if "roots" in found.nodes:
        raise found.nodes["roots"].place.error("this names a file", hint=_ONLY_APPLY.format("'roots_pem'"))
    roots = found.need("roots_pem", hint="root and issuing CAs, the whole chain; or 'roots' with the name of a file")
    hosts_node = found.need("hosts", hint="the hosts at which it may count")
    named = distinct(items(hosts_node, most=1000), lambda one: value(one, partial(_host, hosts)))
    rules_node = found.need("identities", hint="which certificates get which names")
    rules = items(rules_node, most=MAX_NAME_RULES)
    if not named or not rules:
        raise (rules_node if named else hosts_node).place.error("it must not be empty")
    return ForeignAuthority(
        name=name,
        cas=value(roots, lambda text: judge(pem_certificates(text))),
        hosts=tuple(sorted(named)),
        identities=tuple(_rule(rule) for rule in rules),
        revocation=_revocation(found.nodes["revocation"]) if "revocation" in found.nodes else None,
    )


def authority_document(authority: ForeignAuthority) -> dict[str, object]:
    """Give an authority as plain values that `parse_authority` reads to an equal one."""
    rules = [
        {"match": {one.field: str(one) for one in rule.match}, "identity": rule.identity_text}
        for rule in authority.identities
    ]
    plain: dict[str, object] = {
        "roots_pem": "".join(pem(ca.der) for ca in authority.cas),
        "hosts": list(authority.hosts),
        "identities": rules,
    }
    revocation = authority.revocation
    if revocation is None:
        return plain
    sources = {"crl": revocation.url, "crl_pem": revocation.pem, "ocsp": revocation.ocsp}
    source = {key: text for key, text in sources.items() if text}
    return plain | {"revocation": source | ({} if revocation.refuse else {"when_unknown": "accept"})}


def refuse_collisions(
    authorities: Mapping[str, ForeignAuthority],
    nodes: Mapping[str, Node],
    workloads: Iterable[Workload],
    own: TrustDomain,
) -> None:
    """Refuse names that two could have: an authority and a workload, or two authorities.

    Raises:
        BadInput: there are such names, or two authorities of one host could be taken for each other. Names the authority.
    """
    held = [workload.identity for workload in workloads]
    for name, authority in authorities.items():
        for pattern in authority.patterns(own):
            if taken := next((identity for identity in held if pattern.matches(identity)), None):
                raise nodes[name].place.error(
                    f"its rules give a name that the workload {taken.name!r} has",
                    hint="let them begin with a word of their own, such as the partner's name",
                )
        for other in authorities.values():
            if other.name != name:
                placed(nodes[name].place, partial(_refuse_alike, authority, other, own))


def _refuse_alike(authority: ForeignAuthority, other: ForeignAuthority, own: TrustDomain) -> None:
    if overlap(authority, other, own):
        raise BadInput(
            f"its rules give names that {other.name!r} may give too", hint="let each have a first word of its own"
        )
    alike = next((ca for ca in authority.cas if confusable(ca, other.cas)), None)
    if alike and set(authority.hosts) & set(other.hosts):
        raise BadInput(
            f"{alike.name} has name or key of a CA of {other.name!r}, and both name a host",
            hint="make one authority of the two, or give them different hosts",
        )


def own_confusion(authority: ForeignAuthority, ours: Iterable[ForeignCa]) -> str:
    """Say which of its CAs could be taken for one of ours, or nothing: no host can tell their leaves apart."""
    held = tuple(ours)
    alike = next((ca for ca in authority.cas if confusable(ca, held)), None)
    return f"{alike.name} of {authority.name} has name, key or key identifier of an authority of ours" if alike else ""


def overlap(one: ForeignAuthority, other: ForeignAuthority, own: TrustDomain) -> bool:
    """Tell whether there is a name that both may give."""
    for a in one.patterns(own):
        for b in other.patterns(own):
            if a.name == b.name or (a.prefix and b.name.startswith(a.name)) or (b.prefix and a.name.startswith(b.name)):
                return True
    return False


def _authority_name(name: str, own: TrustDomain) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        raise BadInput(f"{name[:80]!r} cannot be an authority's name", hint="use lower case letters, digits and dashes")
    if name == own.name:
        raise BadInput(f"{name!r} is the trust domain itself", hint="choose another name")


def _host(hosts: Mapping[str, Node], text: str) -> str:
    if text not in hosts:
        raise BadInput(f"there is no host {text[:80]!r}", hint="name hosts of this world")
    return text


# Revocation


def _revocation(node: Node) -> Revocation:
    found = table(node, REVOCATION_KEYS)
    if not found.nodes.keys() - {"when_unknown"} or found.nodes.keys() >= LIST_KEYS:
        raise found.place.error(
            "it needs either 'crl' or 'crl_pem', or 'ocsp', or one of the first two beside 'ocsp'",
            hint="such as crl: http://crl.partner.example/ca.crl",
        )
    unknown = value(found.nodes["when_unknown"], _when_unknown) if "when_unknown" in found.nodes else WHEN_UNKNOWN[0]
    return Revocation(
        url=value(found.nodes["crl"], _list_url) if "crl" in found.nodes else "",
        pem=value(found.nodes["crl_pem"], _lists) if "crl_pem" in found.nodes else "",
        ocsp=value(found.nodes["ocsp"], _url) if "ocsp" in found.nodes else "",
        refuse=unknown == WHEN_UNKNOWN[0],
    )


def _when_unknown(text: str) -> str:
    if text not in WHEN_UNKNOWN:
        raise BadInput(f"{text[:80]!r} is not one of {', '.join(WHEN_UNKNOWN)}")
    return text


def _list_url(text: str) -> str:
    if "://" not in text:
        raise BadInput("this names a file", hint=_ONLY_APPLY.format("'crl_pem'"))
    return _url(text)


def _url(text: str) -> str:
    if len(text) > MAX_URL_BYTES or not text.isascii() or not re.fullmatch(URL_PATTERN, text):
        raise BadInput(f"{text[:80]!r} is not a URL that can be asked", hint="it begins with http:// or https://")
    return text


def _lists(text: str) -> str:
    return "".join(pem(one, "X509 CRL") for one in crl_ders(text.encode()))


# Rules


def _rule(node: Node) -> NameRule:
    found = table(node, RULE_KEYS)
    match_node = found.need("match", hint="what the certificate says, such as organization: Acme")
    return NameRule(
        _match(any_table(match_node)), value(found.need("identity", hint="such as acme/{common_name}"), _name)
    )


def _match(found: Table) -> tuple[Condition, ...]:
    if not found.nodes:
        raise found.place.error("it must not be empty", hint='to mean every certificate write common_name: "*"')
    known = table(found, FIELDS)
    return tuple(value(node, partial(_condition, field)) for field, node in sorted(known.nodes.items()))


def _condition(field: str, text: str) -> Condition:
    if not text or len(text.encode(errors="replace")) > MAX_TEXT_BYTES or not text.isprintable():
        raise BadInput("a value has 1 to 1024 bytes, all of them printable")
    if text == "*":
        return Condition(field, Kind.ANY, "")
    if field in OID_FIELDS and not re.fullmatch(OID_PATTERN, text):
        raise BadInput(
            f"{text[:80]!r} is not an object identifier", hint="write it with dots, such as 1.3.6.1.5.5.7.3.2"
        )
    condition = _starred(field, text.lower() if field == "dns" else text)
    if "*" in condition.text:
        raise BadInput(
            f"{text[:80]!r} has a '*' that is not the whole of a part",
            hint="write '*' for any value, 'team/*' for all below, '*.acme.example' or '*@acme.example' for one name before",
        )
    return condition


def _starred(field: str, text: str) -> Condition:
    if text.startswith(("*.", "*@")):
        return Condition(field, Kind.SUFFIX, text[1:])
    return Condition(field, Kind.PREFIX, text[:-1]) if text.endswith("/*") else Condition(field, Kind.EXACT, text)


def _name(text: str) -> tuple[Segment, ...]:
    segments = text.split("/")
    if not re.fullmatch(IDENTITY_PATTERN, text) or len(segments) > MAX_SEGMENTS or {".", ".."} & set(segments):
        raise BadInput(
            f"{text[:80]!r} is not a name for a certificate",
            hint="write a word, then words or fields in braces, with '/' between them: acme/{common_name}",
        )
    if f"{text}/".startswith(RESERVED) or text in OPEN_WORDS:
        raise BadInput(f"{text[:80]!r} means something else here", hint="choose another first word")
    read = tuple(Segment(field=one[1:-1]) if one.startswith("{") else Segment(one) for one in segments)
    unknown = next((one.field for one in read if one.field and one.field not in NAMEABLE), "")
    if unknown:
        raise BadInput(f"{unknown!r} cannot be part of a name", hint=f"known here: {', '.join(NAMEABLE)}")
    return read
