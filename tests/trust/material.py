"""Keys, an issuer and strategies that the tests of trust share. Keys are made once: RSA ones take time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import strategies as st

from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.base.spiffe import SpiffeId, TrustDomain
from handfast.trust.addresses import StatusSite
from handfast.trust.csr import CsrFacts, read_csr
from handfast.trust.facts import IssuerFacts, issuer_facts
from handfast.trust.plan import LeafPlan, LeafRequest, plan, serial_from
from handfast.trust.profile import LEAF, Profile

NOW = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)
DOMAIN = TrustDomain("example.org")
PAYMENTS = DOMAIN.id("payments")

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def private_key(kind: str = "p256") -> PrivateKey:
    return _private_key(kind)


@cache
def _private_key(kind: str) -> PrivateKey:
    match kind:
        case "p256":
            return ec.generate_private_key(ec.SECP256R1())
        case "p384":
            return ec.generate_private_key(ec.SECP384R1())
        case "p521":
            return ec.generate_private_key(ec.SECP521R1())
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return rsa.generate_private_key(65537, int(kind.removeprefix("rsa")))


@cache  # signatures differ in length from call to call, which would confuse hypothesis
def csr_der(key: PrivateKey, *, name: str = "whatever") -> bytes:
    """Make a CSR whose names nobody should read."""
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return x509.CertificateSigningRequestBuilder(subject).sign(key, algorithm).public_bytes(Encoding.DER)


def csr_facts(kind: str = "p256") -> CsrFacts:
    return _csr_facts(kind)


@cache
def _csr_facts(kind: str) -> CsrFacts:
    read = read_csr(csr_der(private_key(kind)))
    assert not isinstance(read, Refusal)
    return read


@cache
def issuer_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def ca_der(
    *,
    key: PrivateKey | None = None,
    uris: tuple[str, ...] = ("spiffe://example.org",),
    ca: bool = True,
    ski: bool = True,
    begin: datetime = datetime(2020, 1, 1, tzinfo=UTC),
    end: datetime = datetime(2100, 1, 1, tzinfo=UTC),
) -> bytes:
    """Make a CA certificate, right unless told otherwise."""
    own = key or issuer_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Issuing CA")])
    builder = (
        x509.CertificateBuilder(name, name, own.public_key(), serial_number=7)
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if ski:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
    algorithm = None if isinstance(own, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(own, algorithm).public_bytes(Encoding.DER)


@cache
def issuer() -> IssuerFacts:
    return issuer_facts(ca_der())


def request(
    identity: SpiffeId = PAYMENTS,
    *,
    dns: tuple[str, ...] = (),
    ttl: timedelta | None = None,
    reserved: bool = False,
    key: str = "p256",
    profile: Profile = LEAF,
) -> LeafRequest:
    return LeafRequest(identity=identity, csr=csr_facts(key), dns=dns, ttl=ttl, reserved=reserved, profile=profile)


def planned(
    asked: LeafRequest | None = None,
    *,
    now: datetime = NOW,
    random: bytes = bytes(range(20)),
    status: StatusSite | None = None,
) -> LeafPlan:
    outcome = plan(asked or request(), issuer(), workload=None, now=now, serial=serial_from(random), status=status)
    assert not isinstance(outcome, Refusal), outcome
    return outcome


def reason(found: object) -> Reason:
    assert isinstance(found, Refusal), found
    return found.reason


segments = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,80}", fullmatch=True)
identities = st.lists(segments, min_size=1, max_size=3).map(lambda parts: DOMAIN.id("/".join(parts)))
labels = st.from_regex(r"[a-z]([a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
dns_names = st.tuples(st.sampled_from(["", "*."]), st.lists(labels, min_size=2, max_size=4)).map(
    lambda parts: parts[0] + ".".join(parts[1])
)


@st.composite
def plans(draw: st.DrawFn) -> LeafPlan:
    asked = request(
        draw(identities),
        dns=tuple(draw(st.lists(dns_names, max_size=30, unique=True))),
        ttl=timedelta(seconds=draw(st.integers(5, 397 * 86400))),
        reserved=True,
        key=draw(st.sampled_from(["p256", "p384", "rsa2048", "ed25519"])),
    )
    now = draw(st.datetimes(datetime(2026, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - bounds
    status = draw(st.none() | st.builds(StatusSite, st.just("http://status.example.org"), st.integers(1, 9)))
    return planned(asked, now=now, random=draw(st.binary(min_size=20, max_size=20)), status=status)
