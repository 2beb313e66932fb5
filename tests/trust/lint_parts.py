"""Plans as they should be, their bytes with something changed, and what the linter finds in them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.trust import der, leaf
from handfast.trust.lint import LintedPlan, lint
from handfast.trust.plan import LeafPlan
from tests.trust.material import issuer_key, planned, request

CDP, AIA = "2.5.29.31", "1.3.6.1.5.5.7.1.1"
SAN, EKU, SKI, AKI, USAGE, CONSTRAINTS = (f"2.5.29.{last}" for last in ("17", "37", "14", "35", "15", "19"))
DNS = ("a.internal", "b.internal")


def good() -> LeafPlan:
    return planned(request(dns=DNS))


def findings(tbs: bytes, plan: LeafPlan) -> set[str]:
    found = lint(tbs, plan)
    assert isinstance(found, Refusal)
    assert found.reason is Reason.ISSUANCE_LINT
    return set(found.evidence)


def linted(plan: LeafPlan) -> LintedPlan:
    found = lint(leaf.tbs(plan), plan)
    assert isinstance(found, LintedPlan), found
    return found


@cache  # signatures differ in length from call to call, which would confuse hypothesis
def signed(tbs: bytes, key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    return leaf.assemble(tbs, (key or issuer_key()).sign(tbs, ec.ECDSA(hashes.SHA256())))


def with_field(tbs: bytes, at: int, value: bytes) -> bytes:
    fields = list(der.children(tbs))
    fields[at] = value
    return der.sequence(*fields)


def with_extensions(tbs: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """Change the extensions of a TBSCertificate, by object identifier."""
    order = (CONSTRAINTS, USAGE, EKU, SAN, SKI, AKI, CDP, AIA)
    (inner,) = der.children(der.children(tbs)[7])
    extensions = dict(zip(order, der.children(inner), strict=False))
    change(extensions)
    return with_field(tbs, 7, der.tlv(0xA3, der.sequence(*extensions.values())))
