from __future__ import annotations

import json
from typing import Any

import pytest

from handfast.access.authority import Condition, Kind, Revocation, Segment
from handfast.access.world import World
from handfast.access.world_file import digest, document, parse_world, warnings
from handfast.base.refusal import BadInput
from handfast.trust.facts import pem
from tests.support.partners import authority, crl, partner, roots_pem

ACME, BETA = partner("Acme"), partner("Beta")
RULE = {"match": {"common_name": "*"}, "identity": "acme/{common_name}"}
HOST: dict[str, Any] = {"listen": 8443, "routes": [{"path": "/", "upstream": "http://a", "allow": ["acme/*"]}]}


def entry(**more: Any) -> dict[str, Any]:
    return {"roots_pem": roots_pem(ACME), "hosts": ["a.test"], "identities": [RULE]} | more


def text(acme: dict[str, Any] | None = None, **more: Any) -> str:
    host = HOST | {"clients": {"trust": ["example.org", "acme"]}}
    plain = {
        "trust_domain": "example.org",
        "authorities": {"acme": acme or entry()},
        "hosts": {"a.test": host, "b.test": HOST},
    }
    return json.dumps(plain | more)


def world(acme: dict[str, Any] | None = None, **more: Any) -> World:
    return parse_world(text(acme, **more))


def test_an_authority_is_read():
    """Its chain, its hosts, its rules in their order; the host knows it by name."""
    read = world(entry(revocation={"crl": "https://crl.acme.test/ca.crl"}))
    acme = read.authorities["acme"]
    assert len(acme.cas) == 2
    assert acme.identities[0].match == (Condition("common_name", Kind.ANY, ""),)
    assert acme.identities[0].identity == (Segment("acme"), Segment(field="common_name"))
    assert acme.revocation == Revocation("https://crl.acme.test/ca.crl")
    assert acme.responder == ""
    assert world(entry(revocation={"ocsp": "http://a"})).authorities["acme"].responder == "http://a"
    assert read.hosts["a.test"].clients.partners == ("acme",)
    assert read.hosts["b.test"].clients.partners == ()


@pytest.mark.parametrize(
    "revocation", [None, {"crl": "http://a/b"}, {"crl": "http://a/b", "when_unknown": "accept"}, {"ocsp": "http://a"}, {"ocsp": "https://a:8/b", "when_unknown": "accept"}, {"crl_pem": pem(crl(ACME.issuing), "X509 CRL")}, {"ocsp": "http://a", "crl": "http://a/b"}, {"ocsp": "http://a", "crl_pem": pem(crl(ACME.issuing), "X509 CRL"), "when_unknown": "accept"}]
)  # fmt: skip
def test_the_canonical_form_is_the_same_world(revocation: dict[str, str] | None):
    """Written down and read again nothing has changed, and its name is the same."""
    rules = [{"match": {"dns": "*.Acme.test", "eku": "1.2.3", "uri": "a/*"}, "identity": "acme/x/{dns}/y"}, RULE]
    before = entry(identities=rules, **({"revocation": revocation} if revocation else {}))
    again = json.dumps(document(world(before)))
    assert parse_world(again) == world(before)
    assert digest(again) == digest(text(before))


def test_the_order_of_certificates_means_nothing_and_that_of_rules_does():
    """The first rule that matches decides, so another order is another world."""
    other = {"match": {"common_name": "x"}, "identity": "acme/y"}
    turned = ACME.issuing.cert_pem.decode() + ACME.roots_pem.decode()
    assert digest(text(entry(roots_pem=turned))) == digest(text())
    assert digest(text(entry(identities=[RULE, other]))) != digest(text(entry(identities=[other, RULE])))


def rule(**more: Any) -> dict[str, Any]:
    return entry(identities=[RULE | more])


BAD = {
    "roots: this names a file": entry() | {"roots": "x"},
    "'roots_pem' is missing": {key: one for key, one in entry().items() if key != "roots_pem"},
    "nobody in it issued CN=Acme Issuing": entry(roots_pem=ACME.issuing.cert_pem.decode()),
    "there is no whole PEM certificate": entry(roots_pem="words"),
    "there is no host 'c.test'": entry(hosts=["c.test"]),
    "must not be empty": entry(hosts=[]),
    "identities: it must not be empty": entry(identities=[]),
    "match: it must not be empty": rule(match={}),
    "'common_nam' is not a known key": rule(match={"common_nam": "x"}),
    "not the whole of a part": rule(match={"common_name": "a*"}),
    "has a '*'": rule(match={"common_name": "*a*"}),
    "is not an object identifier": rule(match={"eku": "clientAuth"}),
    "1 to 1024 bytes": rule(match={"common_name": ""}),
    "is not a name for a certificate": rule(identity="{common_name}"),
    "'acme/../x' is not a name": rule(identity="acme/../x"),
    "'acme/x-{dns}' is not a name": rule(identity="acme/x-{dns}"),
    "'eku' cannot be part": rule(identity="acme/{eku}"),
    "'password' cannot be part": rule(identity="acme/{password}"),
    "'handfast/{dns}' means something else": rule(identity="handfast/{dns}"),
    "'handfast' means something else": rule(identity="handfast"),
    "'anyone' means something else": rule(identity="anyone"),
    "or 'ocsp'": entry(
        revocation={"ocsp": "http://a", "crl": "http://a/b", "crl_pem": pem(crl(ACME.issuing), "X509 CRL")}
    ),
    "one of the first two": entry(revocation={"crl": "http://a/b", "crl_pem": pem(crl(ACME.issuing), "X509 CRL")}),
    "revocation.ocsp: 'ocsp.pem' is not a URL": entry(revocation={"ocsp": "ocsp.pem"}),
    "'http://u:p@a' is not a URL": entry(revocation={"ocsp": "http://u:p@a"}),
    "'ldap://a' is not a URL": entry(revocation={"ocsp": "ldap://a"}),
    "either 'crl' or 'crl_pem'": entry(revocation={"when_unknown": "refuse"}),
    "'perhaps' is not one of refuse, accept": entry(revocation={"crl": "http://a", "when_unknown": "perhaps"}),
    "revocation.crl: this names a file": entry(revocation={"crl": "/etc/passwd"}),
    "is not a URL": entry(revocation={"crl": "file:///etc/passwd"}),
    "'http://u@a/' is not a URL": entry(revocation={"crl": "http://u@a/"}),
    "there is no revocation list": entry(revocation={"crl_pem": "words"}),
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_authority_is_refused(message: str):
    """With its key, and what is wrong."""
    with pytest.raises(BadInput) as caught:
        world(BAD[message])
    assert message in str(caught.value)
    assert "authorities.acme" in str(caught.value)


@pytest.mark.parametrize("name", ["Acme", "a.b", "", "-a", "a" * 65, "example.org"])
def test_a_name_that_is_none_is_refused(name: str):
    """An authority's name is a word, and not the trust domain."""
    with pytest.raises(BadInput):
        parse_world(
            json.dumps({"trust_domain": "example.org", "authorities": {name: entry()}, "hosts": {"a.test": HOST}})
        )


def test_both_sides_have_to_say_so():
    """A host cannot trust an authority that does not name it; one that it does not trust is pointed at."""
    with pytest.raises(BadInput, match="does not count at this host"):
        world(entry(hosts=["b.test"]))
    assert "acme: does not count at b.test, whose clients.trust does not name it" in warnings(
        world(entry(hosts=["a.test", "b.test"]))
    )


@pytest.mark.parametrize(
    ("workload", "identity"), [("acme/bob", "acme/{dns}"), ("acme", "acme"), ("a/b/c", "a/{dns}/c")]
)
def test_a_workloads_name_is_never_given(workload: str, identity: str):
    """Nobody else may bear a name of ours."""
    with pytest.raises(BadInput, match="the workload"):
        world(rule(identity=identity), workloads={workload: {}})


def test_a_workload_beside_is_no_collision():
    """``acme`` itself is not below ``acme/``."""
    assert world(workloads={"acme": {}, "acmes/bob": {}}).authorities


def two(beta: dict[str, Any]) -> str:
    plain = json.loads(text())
    plain["authorities"]["beta"] = {
        "roots_pem": roots_pem(BETA),
        "hosts": ["a.test"],
        "identities": [RULE | {"identity": "beta/{dns}"}],
    } | beta
    return json.dumps(plain)


@pytest.mark.parametrize("identity", ["acme/{dns}", "acme/x", "acme/x/{dns}"])
def test_two_authorities_share_no_name(identity: str):
    """Else what one is allowed the other could take."""
    parse_world(two({}))
    with pytest.raises(BadInput, match="may give too"):
        parse_world(two({"identities": [RULE | {"identity": identity}]}))


def test_two_authorities_of_a_host_share_no_ca():
    """Neither a certificate, nor a name, nor a key identifier: by those they are told apart."""
    confusing = authority("acme  issuing").cert_pem.decode()
    for roots in (roots_pem(ACME), confusing):
        with pytest.raises(BadInput, match="has name or key of a CA of"):
            parse_world(two({"roots_pem": roots}))
        assert parse_world(two({"roots_pem": roots, "hosts": ["b.test"]}))


def test_what_is_wide_is_pointed_at():
    """A rule for all identities means the partner's too, and lists that nobody fetches say nothing."""
    host = HOST | {"clients": {"trust": ["example.org", "acme"]}}
    open_host = host | {
        "routes": [
            {"path": "/", "upstream": "http://a", "allow": "any-certificate"},
            {"path": "/b", "upstream": "http://a", "allow": ["*"]},
        ]
    }
    told = "\n".join(warnings(world(hosts={"a.test": open_host})))
    assert (
        "a.test/: lets in every identity of the trust domain, and every certificate that acme gives a name to" in told
    )
    assert "a.test/b: allow *, and every certificate that acme gives a name to" in told
    assert "acme: what it revokes is not learned" in told
