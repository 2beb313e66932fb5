from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from handfast.trust import addresses, der, leaf
from handfast.trust.addresses import StatusAddresses, StatusSite
from handfast.trust.lint import LintedPlan, lint
from handfast.trust.plan import LeafPlan
from handfast.trust.profile import MUST_STAPLE, RESPONDER
from tests.trust.lint_parts import AIA, CDP, DNS, findings, good, with_extensions, with_field
from tests.trust.material import planned, request

NOT_CHECKED = "1.3.6.1.5.5.7.48.1.5"


def named() -> LeafPlan:
    return planned(request(dns=DNS), status=StatusSite("http://status.example.org", 3))


def points(url: str, *more: bytes) -> bytes:
    return der.extension(CDP, der.sequence(der.sequence(der.tlv(0xA0, addresses.full_name(url))), *more))


@pytest.mark.parametrize("oid", [CDP, AIA])
def test_an_extension_about_status_that_is_missing_is_found(oid: str):
    """Where status is published, each certificate says so."""
    plan = named()
    tbs = with_extensions(leaf.tbs(plan), lambda extensions: extensions.pop(oid) and None)
    assert findings(tbs, plan) == {"extensions"}


@pytest.mark.parametrize("oid", [CDP, AIA, NOT_CHECKED])
def test_an_extension_about_status_that_nobody_planned_is_found(oid: str):
    """A leaf that tells its checkers not to ask, or to ask elsewhere, is none of ours."""
    plan, value = (
        good(),
        {
            CDP: points("http://elsewhere"),
            AIA: der.extension(AIA, addresses.authority_information("http://a", "http://b")),
            NOT_CHECKED: der.extension(NOT_CHECKED, b"\x05\x00"),
        },
    )
    tbs = with_extensions(leaf.tbs(plan), lambda extensions: extensions.update({oid: value[oid]}))
    assert findings(tbs, plan) == {"extensions"}


@pytest.mark.parametrize(
    ("oid", "change", "finding"),
    [
        (CDP, lambda status: points(status.crl + "x"), "revocation_list"),
        (CDP, lambda status: points(status.crl, der.sequence(der.tlv(0xA0, addresses.full_name("http://b")))), "revocation_list"),
        (CDP, lambda _: der.extension(CDP, der.sequence()), "revocation_list"),
        (AIA, lambda s: der.extension(AIA, addresses.authority_information(s.issuer, s.ocsp)), "authority_information"),
        (AIA, lambda s: der.extension(AIA, addresses.authority_information(s.ocsp, "http://b")), "authority_information"),
        (AIA, lambda s: der.extension(AIA, addresses.authority_information(s.ocsp, s.issuer), critical=True), "extensions"),
    ],
)  # fmt: skip
def test_another_place_for_status_than_the_planned_one_is_found(
    oid: str, change: Callable[[StatusAddresses], bytes], finding: str
):
    """Whoever asks elsewhere would not learn of a revocation."""
    plan = named()
    assert plan.status
    value = change(plan.status)
    tbs = with_extensions(leaf.tbs(plan), lambda extensions: extensions.update({oid: value}))
    assert findings(tbs, plan) & {finding, "bytes"}


def test_a_responder_that_is_not_marked_is_found():
    """Its profile wants the mark that nobody asks for its own status."""
    plan = planned(request(reserved=True, ttl=timedelta(days=7), profile=RESPONDER))
    assert isinstance(lint(leaf.tbs(plan), plan), LintedPlan)
    extensions = der.children(der.children(der.children(leaf.tbs(plan))[7])[0])
    tbs = with_field(leaf.tbs(plan), 7, der.tlv(0xA3, der.sequence(*extensions[:-1])))
    assert findings(tbs, plan) == {"extensions"}


FEATURES = "1.3.6.1.5.5.7.1.24"


def features(*numbers: int, critical: bool = False) -> bytes:
    return der.extension(FEATURES, der.sequence(*map(der.integer, numbers)), critical=critical)


@pytest.mark.parametrize(
    ("value", "finding"),
    [
        (None, "extensions"),
        (features(5, critical=True), "extensions"),
        (features(17), "features"),
        (features(5, 17), "features"),
        (features(), "bytes"),
    ],
)
def test_one_that_does_not_demand_its_staple_as_planned_is_found(value: bytes | None, finding: str):
    """Its clients would go on without one, or insist on what no gateway here offers."""
    plan = planned(request(reserved=True, profile=MUST_STAPLE))
    assert isinstance(lint(leaf.tbs(plan), plan), LintedPlan)
    extensions = der.children(der.children(der.children(leaf.tbs(plan))[7])[0])
    changed = der.tlv(0xA3, der.sequence(*extensions[:-1], value or b""))
    assert finding in findings(with_field(leaf.tbs(plan), 7, changed), plan)


def test_a_staple_that_nobody_planned_to_demand_is_found():
    """Where nothing is stapled, clients that insist would all go."""
    plan = good()
    tbs = with_extensions(leaf.tbs(plan), lambda extensions: extensions.update({FEATURES: features(5)}))
    assert findings(tbs, plan) == {"extensions"}
