"""What a leaf certificate will say, before anything is signed.

Decides whether a request may become a certificate: its names and its life. Refuses to know who asks and how they proved it
(the key is the business of `csr`), where the serial came from, and how bytes are laid out (`leaf`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.base.spiffe import SpiffeId
from handfast.base.windows import Window, whole_second
from handfast.trust.addresses import StatusAddresses, StatusSite
from handfast.trust.constraints import breaches
from handfast.trust.csr import CsrFacts
from handfast.trust.entries import DEFAULT_TTL, LONGEST_TTL, RESERVED, SHORTEST_TTL, Workload
from handfast.trust.facts import IssuerFacts
from handfast.trust.profile import BACKDATE, LEAF, Profile

MAX_DNS_NAMES = 100
SERIAL_BYTES = 20
LEAST_LEFT = timedelta(minutes=5)
"""What an issuer must have left to cut a leaf short at its own end. Of less its holder would have nothing: it would renew without end."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafRequest:
    """What is asked for. No ``dns`` means the entry's names, no ``ttl`` the entry's life.

    ``csr`` comes from `read_csr` with the same ``profile``. ``reserved`` is for the platform's own certificates; it and
    ``profile`` never follow from what a caller sent. ``named_by_dns``: the common name is a DNS name, where there is one.

    Raises:
        BadInput: ``ttl`` is shorter than `SHORTEST_TTL`.
    """

    identity: SpiffeId
    csr: CsrFacts
    dns: tuple[str, ...] = ()
    ttl: timedelta | None = None
    reserved: bool = False
    profile: Profile = LEAF
    named_by_dns: bool = False

    def __post_init__(self) -> None:
        """Refuse a life that ends before it can be used."""
        if self.ttl is not None and self.ttl < SHORTEST_TTL:
            raise BadInput(f"a certificate lives {SHORTEST_TTL.seconds} seconds or longer", key="ttl")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafPlan:
    """Everything that a leaf certificate will say. Without ``status`` it names no place to ask whether it is revoked.

    ``cut_short``: it ends with its issuer, sooner than was asked for.
    """

    identity: SpiffeId
    dns: tuple[str, ...]
    window: Window
    serial: int
    subject: CsrFacts
    issuer: IssuerFacts
    profile: Profile = LEAF
    status: StatusAddresses | None = None
    named_by_dns: bool = False
    cut_short: bool = False

    @property
    def common_name(self) -> str:
        """The last segment of the identity's path, cut to the 64 characters that X.520 gives a common name.

        For people alone: nothing here ever decides by it. ACME clients take it for one of the DNS names that they renew, so theirs
        is the first of those that fits.
        """
        if self.named_by_dns and (fitting := [name for name in self.dns if len(name) <= 64]):
            return fitting[0]
        return self.identity.name.rpartition("/")[2][:64]


def plan(
    request: LeafRequest,
    issuer: IssuerFacts,
    *,
    workload: Workload | None,
    now: datetime,
    serial: int,
    status: StatusSite | None = None,
) -> LeafPlan | Refusal:
    """Plan a leaf certificate.

    ``workload`` is the identity's entry; without one, names and life are bounded by the profile alone, so the caller decides
    who may ask then. ``serial`` comes from `serial_from`. ``status`` is where the issuer's revocations are published, if they are.
    A leaf that would outlive its issuer ends with it, where the issuer has `LEAST_LEFT` or more.

    Returns:
        The plan, or a refusal: ENTRY_RESERVED, ENTRY_NO_MATCH, ISSUANCE_NAME_NOT_ALLOWED, ISSUANCE_TOO_LONG,
        ISSUANCE_ISSUER_ENDS, ISSUANCE_NO_STATUS (the entry demands staples), ISSUANCE_NAME_CONSTRAINT, CERT_NOT_YET_VALID (of the
        issuer: this host's clock went back).
    """
    refusal = _refuse_identity(request, issuer, workload)
    if refusal:
        return refusal
    names = _names(request, workload)
    if isinstance(names, Refusal):
        return names
    life = _life(request, workload)
    if isinstance(life, Refusal):
        return life
    window = _window(life, issuer, now)
    if isinstance(window, Refusal):
        return window
    profile = _profile(request.profile, workload, status)
    if isinstance(profile, Refusal):
        return profile
    planned = LeafPlan(
        identity=request.identity,
        dns=names,
        window=window,
        serial=serial,
        subject=request.csr,
        issuer=issuer,
        profile=profile,
        status=status.of(issuer.key_id, serial) if status and not request.profile.answers_status else None,
        named_by_dns=request.named_by_dns,
        cut_short=window.not_after < whole_second(now + life),
    )
    return _refuse_constrained(planned) or planned


def serial_from(random_bytes: bytes) -> int:
    """Make a serial of 20 random octets: 159 bits, the highest always set, so that all are positive and of one length.

    158 bits are left to chance; 64 are asked for (CA/Browser Forum BR section 7.1), 20 octets are the most (RFC 5280 section
    4.1.2.2).

    Raises:
        BadInput: there are not 20.
    """
    if len(random_bytes) != SERIAL_BYTES:
        raise BadInput(f"a serial is made of {SERIAL_BYTES} random octets")
    return int.from_bytes(random_bytes, "big") & ~(1 << 159) | 1 << 158


def is_dns_name(name: str) -> bool:
    """Tell whether ``name`` may stand in a certificate: lower case letters, digits and hyphens, as RFC 1035 limits them.

    At most 253 characters in labels of 63; a label with hyphens in third and fourth place is an A-label (RFC 5890 section
    2.3.1). ``*`` may be the first label, before two others or more (OpenSSL matches no other wildcard). A last label of digits
    alone is refused: it would read as an address (RFC 1123 section 2.1). What remains has no ``,;="`` and no control character,
    which Envoy would not escape in its headers.
    """
    return len(name) <= 253 and _has_good_labels(name)


@lru_cache(maxsize=4096)  # the same names are asked for with every renewal
def _has_good_labels(name: str) -> bool:
    wildcard = name.startswith("*.")
    labels = name.removeprefix("*.").split(".")
    return (
        all(_LABEL.fullmatch(label) and (label[2:4] != "--" or label.startswith("xn--")) for label in labels)
        and not labels[-1].isdigit()
        and (len(labels) >= 2 or not wildcard)
    )


def _refuse_identity(request: LeafRequest, issuer: IssuerFacts, workload: Workload | None) -> Refusal | None:
    identity = request.identity
    if identity.trust_domain != issuer.trust_domain:
        return Refusal(
            Reason.ISSUANCE_NAME_NOT_ALLOWED,
            {"identity": str(identity), "trust_domain": str(issuer.trust_domain)},
        )
    if identity.name.startswith(RESERVED) and not request.reserved:
        return Refusal(Reason.ENTRY_RESERVED, {"identity": str(identity)})
    if not request.reserved and not request.profile.permits_identity(identity.name):
        return Refusal(
            Reason.ISSUANCE_NAME_NOT_ALLOWED,
            {"identity": str(identity), "permitted": ", ".join(request.profile.identities)},
        )
    if workload and workload.identity != identity:
        return Refusal(Reason.ENTRY_NO_MATCH, {"identity": str(identity), "entry": str(workload.identity)})
    return None


def _refuse_constrained(planned: LeafPlan) -> Refusal | None:
    """Refuse what every verifier would refuse for the issuer's name constraints (RFC 5280 section 4.2.1.10)."""
    domain = planned.identity.trust_domain.name
    for constraints in planned.issuer.constraints:
        outside = dict(breaches(constraints, domain, planned.dns, planned.common_name))
        if outside:
            return Refusal(Reason.ISSUANCE_NAME_CONSTRAINT, {**outside, "permitted": str(constraints)})
    return None


def _names(request: LeafRequest, workload: Workload | None) -> tuple[str, ...] | Refusal:
    granted = workload.dns if workload else request.dns
    names = request.dns or granted
    if len(names) > MAX_DNS_NAMES:
        return Refusal(Reason.ISSUANCE_NAME_NOT_ALLOWED, {"names": str(len(names)), "most": str(MAX_DNS_NAMES)})
    for name in names:
        if not is_dns_name(name):
            return Refusal(Reason.ISSUANCE_NAME_NOT_ALLOWED, {"dns": ascii(name[:80]), "because": "not a DNS name"})
        if name not in granted:
            return Refusal(Reason.ISSUANCE_NAME_NOT_ALLOWED, {"dns": name, "because": "not among the entry's names"})
        if not request.reserved and not request.profile.permits_dns(name):
            permitted = ", ".join(request.profile.dns)
            return Refusal(Reason.ISSUANCE_NAME_NOT_ALLOWED, {"dns": name, "permitted": permitted})
    return tuple(dict.fromkeys(names))


def _profile(asked: Profile, workload: Workload | None, status: StatusSite | None) -> Profile | Refusal:
    """Give the profile that the entry makes of the one asked for. Who is to staple must be able to learn from the certificate where to ask."""
    if workload is None or not workload.must_staple:
        return asked
    return (
        replace(asked, must_staple=True)
        if status
        else Refusal(Reason.ISSUANCE_NO_STATUS, {"entry": str(workload.identity)})
    )


def _life(request: LeafRequest, workload: Workload | None) -> timedelta | Refusal:
    most = LONGEST_TTL if request.reserved else request.profile.longest
    longest = min(workload.ttl, most) if workload else most
    ttl = request.ttl or min(workload.ttl if workload else DEFAULT_TTL, longest)
    if ttl > longest:
        return Refusal(Reason.ISSUANCE_TOO_LONG, {"asked": str(ttl), "longest": str(longest)})
    return ttl


def _window(life: timedelta, issuer: IssuerFacts, now: datetime) -> Window | Refusal:
    if now < issuer.window.not_before:
        return Refusal(Reason.CERT_NOT_YET_VALID, {"issuer_begins": issuer.window.not_before.isoformat()})
    begin, end, issuer_ends = whole_second(now), whole_second(now + life), issuer.window.not_after
    if end > issuer_ends and issuer_ends - begin < LEAST_LEFT:
        return Refusal(Reason.ISSUANCE_ISSUER_ENDS, {"asked": end.isoformat(), "issuer_ends": issuer_ends.isoformat()})
    return Window(max(begin - BACKDATE, issuer.window.not_before), min(end, issuer_ends))
