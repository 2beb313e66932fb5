from __future__ import annotations

import json
from typing import Any

import pytest

from handfast.access.slice import Slice, make_slice
from handfast.access.world_file import parse_world
from handfast.base.refusal import BadInput
from handfast.envoy import types
from handfast.envoy.partners import clients_context, our_cas, our_lists
from handfast.envoy.program import AGENT_CLUSTER
from handfast.envoy.translate import Resources, translate
from handfast.trust.facts import pem_certificates
from handfast.trust.foreign import read_ca
from tests.envoy.material import gateway_of
from tests.support.partners import authority, partner, roots_pem
from tests.support.pki import Pki

OWN, ACME = Pki("Own"), partner("Acme")
HOSTS = ("a.test", "b.test", "c.test")


def slice_of(
    trust: tuple[str, ...] = ("example.org", "acme"),
    acme: Pki = ACME,
    *,
    session: bool = True,
    revocation: dict[str, str] | None = None,
    **more: Any,
) -> Slice:
    route = {"path": "/", "upstream": "http://a", "allow": "any-certificate"}
    host = {"listen": 8443, "routes": [route], "session": session}
    rule = {"match": {"common_name": "*"}, "identity": "acme/{common_name}"}
    plain: dict[str, Any] = {
        "trust_domain": "example.org",
        "authorities": {"acme": {"roots_pem": roots_pem(acme), "hosts": ["a.test"], "identities": [rule]}},
        "hosts": {
            "a.test": host | {"clients": {"trust": list(trust)}},
            "b.test": host,
            "c.test": host | {"listen": 8444},
        },
    }
    if revocation:
        plain["authorities"]["acme"]["revocation"] = revocation
    if trust == ("example.org",):
        del plain["authorities"]
    parts = {"roots": (OWN.roots_pem.decode(),), "issuers": (OWN.issuing.cert_pem.decode(),)} | more
    return make_slice(revision=1, world=parse_world(json.dumps(plain)), **parts)


def resources(slice_: Slice) -> Resources:
    return translate(slice_, gateway_of(HOSTS))


def test_every_ca_is_an_anchor_and_nothing_lies_between():
    """Ours, theirs, the issuing ones too; and the bound that keeps others out."""
    context = clients_context(slice_of(), slice_of().world.hosts["a.test"])
    pems = [OWN.roots_pem, OWN.issuing.cert_pem, ACME.roots_pem, ACME.issuing.cert_pem]
    assert context["max_verify_depth"] == 0
    trusted = context["trusted_ca"]
    assert isinstance(trusted, dict)
    assert sorted(trusted["inline_string"].split("-----BEGIN")) == sorted(
        "".join(p.decode() for p in pems).split("-----BEGIN")
    )
    assert "crl" not in context


def test_a_host_may_trust_partners_alone():
    """Then no certificate of ours gets through its handshake."""
    slice_ = slice_of(("acme",))
    assert OWN.roots_pem.decode() not in str(clients_context(slice_, slice_.world.hosts["a.test"]))


def test_a_ca_of_ours_is_one_that_a_root_of_ours_issued():
    """What else is known serves to explain, and never to trust."""
    stranger = authority("Stranger").cert_pem.decode()
    slice_ = slice_of(issuers=(OWN.issuing.cert_pem.decode(), stranger))
    assert our_cas(slice_) == (read_ca(*pem_certificates(OWN.roots_pem.decode())), read_ca(OWN.issuing.cert_der))


def test_what_our_lists_say_is_known():
    """By serial, for a host where Envoy itself gets no list."""
    leaf = OWN.leaf("x")
    (read,) = our_lists(slice_of(crls=(OWN.crl(leaf).decode(),)))
    assert read.serials == (read_ca(leaf.cert_der).serial,)


@pytest.mark.parametrize("name", ["Own Issuing", "own  root"])
def test_a_partner_with_a_name_of_ours_reaches_no_gateway(name: str):
    """The slice is refused as a whole, and the last good one stays."""
    made = authority(name)
    with pytest.raises(BadInput, match="of an authority of ours"):
        resources(slice_of(acme=Pki("x", issuing=made, root=made.cert)))


def test_other_hosts_are_not_touched():
    """Where an authority comes to one host, TLS and requests of all others are configured as before; their policy learns its names."""
    before, after = resources(slice_of(("example.org",))), resources(slice_of())
    chains = [
        {chain["name"]: chain for listener in one[types.LISTENER].values() for chain in listener["filter_chains"]}  # type: ignore[attr-defined]
        for one in (before, after)
    ]
    assert chains[0]["a.test"] != chains[1]["a.test"]
    for name in ("b.test", "c.test"):
        assert chains[0][name] == chains[1][name]
        assert before[types.ROUTE][name] == after[types.ROUTE][name]
    assert before[types.LISTENER]["0.0.0.0:8444"] == after[types.LISTENER]["0.0.0.0:8444"]
    assert before[types.SECRET]["clients"] == after[types.SECRET]["clients"]
    shared = [dict(one[types.LISTENER]["0.0.0.0:8443"], filter_chains=()) for one in (before, after)]
    assert shared[0] == shared[1]


def test_without_partners_a_program_asks_for_no_issuer():
    """At other hosts the access check reads what it always read."""
    programs = {name: json.dumps(one) for name, one in resources(slice_of())[types.EXTENSION].items()}
    assert "local ISSUERS = false" in programs["access/b.test"]
    assert "local ISSUERS = {" in programs["access/a.test"]


def test_the_agent_is_asked_where_a_partner_has_a_responder():
    """Such a host's program asks it, and only then is there a way to it; no other host's does."""
    with_one = resources(slice_of(session=False, revocation={"ocsp": "http://127.0.0.1:1/", "when_unknown": "accept"}))
    without = resources(slice_of(session=False, revocation={"crl": "http://127.0.0.1:1/x"}))
    assert AGENT_CLUSTER in with_one[types.CLUSTER]
    assert AGENT_CLUSTER not in without[types.CLUSTER]
    programs = {name: str(one) for name, one in with_one[types.EXTENSION].items()}
    assert '["asked"]="accept"' in programs["access/a.test"]
    assert not any('["asked"]=' in programs[f"access/{name}"] for name in ("b.test", "c.test"))
    assert '["asked"]="accept"' not in str(without[types.EXTENSION])
