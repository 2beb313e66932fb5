from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.base.spiffe import TrustDomain
from handfast.trust.ca import CaPlan, issuing_plan, judge_issuing, judge_root, within
from handfast.trust.constraints import permitted, read
from handfast.trust.facts import load
from tests.trust.material import DOMAIN, NOW, PrivateKey, private_key

ROOT, ISSUING = private_key("p384"), private_key("p256")
Change = Callable[["Shape"], None]


class Shape:
    """A CA certificate in the making, which tests bend."""

    def __init__(self, name: str, path_length: int | None, uri: str = "") -> None:
        self.name, self.issuer = name, "Root"
        self.key, self.signing = (ROOT if name == "Root" else ISSUING), ROOT
        self.begin, self.end = NOW - timedelta(days=1), NOW + timedelta(days=300 if uri else 3000)
        self.hash: hashes.SHA256 | hashes.SHA224 | None = hashes.SHA256()
        self.extensions: dict[type[x509.ExtensionType], tuple[x509.ExtensionType, bool]] = {}
        plan = CaPlan(kind="x", trust_domain=TrustDomain("example.org"), path_length=0)
        for one, critical in plan.extensions():
            self.put(one, critical=critical)
        self.put(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        if not uri:
            del self.extensions[x509.SubjectAlternativeName]

    def put(self, value: x509.ExtensionType, *, critical: bool = False) -> None:
        self.extensions[type(value)] = (value, critical)

    def der(self) -> bytes:
        builder = (
            x509.CertificateBuilder(_name(self.issuer), _name(self.name), self.key.public_key(), 77)
            .not_valid_before(self.begin)
            .not_valid_after(self.end)
        )
        if x509.SubjectKeyIdentifier not in self.extensions:
            self.put(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()))
        for value, critical in self.extensions.values():
            if value is not NOTHING:
                builder = builder.add_extension(value, critical=critical)
        return builder.sign(self.signing, self.hash).public_bytes(Encoding.DER)


NOTHING = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"")


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def root(change: Change = lambda _: None) -> bytes:
    shape = Shape("Root", 1)
    change(shape)
    return shape.der()


def issuing(change: Change = lambda _: None) -> bytes:
    shape = Shape("Issuing", 0, "spiffe://example.org")
    change(shape)
    return shape.der()


def public(key: PrivateKey = ISSUING) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def without(kind: type[x509.ExtensionType]) -> Change:
    return lambda shape: shape.extensions.update({kind: (NOTHING, False)})


def putting(value: x509.ExtensionType, *, critical: bool = False) -> Change:
    return lambda shape: shape.put(value, critical=critical)


def setting(**more: object) -> Change:
    return lambda shape: shape.__dict__.update(more)


def usage(*, sign: bool, crl: bool) -> x509.KeyUsage:
    return x509.KeyUsage(False, False, False, False, False, sign, crl, False, False)


def uris(*names: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name) for name in names])


BOTH = [
    (without(x509.KeyUsage), "key_usage"),
    (putting(usage(sign=False, crl=True), critical=True), "key_usage"),
    (putting(usage(sign=True, crl=False), critical=True), "key_usage"),
    (without(x509.SubjectKeyIdentifier), "subject_key_id"),
    (putting(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])), "extended_key_usage"),
    (putting(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.5"), b"\x05\x00"), critical=True), "critical_extension"),
    (setting(hash=hashes.SHA224()), "signature_hash"),
    (setting(begin=NOW + timedelta(seconds=1)), "window"),
    (setting(end=NOW), "window"),
    (putting(uris("spiffe://example.com")), "uri"),
    (putting(uris("spiffe://example.org/path")), "uri"),
    (putting(uris("spiffe://example.org", "spiffe://example.org")), "uri"),
    (putting(x509.NameConstraints([x509.DirectoryName(_name("x"))], None), critical=True), "name_constraints"),
    (putting(x509.NameConstraints([x509.UniformResourceIdentifier("example.com")], None), critical=True), "name_constraints"),
]  # fmt: skip


def evidence(refusal: Refusal | None) -> set[str]:
    assert refusal is not None
    assert refusal.reason is Reason.AUTHORITY_UNFIT
    return set(refusal.evidence)


@pytest.mark.parametrize("change", [lambda _: None, putting(uris("spiffe://example.org")), putting(x509.BasicConstraints(ca=True, path_length=None), critical=True)])  # fmt: skip
def test_a_good_root_will_do(change: Change):
    """With the trust domain's URI or none, with a path length or none."""
    assert judge_root(root(change), DOMAIN, NOW) is None


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        *BOTH,
        (putting(x509.BasicConstraints(ca=False, path_length=None), critical=True), "basic_constraints"),
        (without(x509.BasicConstraints), "basic_constraints"),
        (putting(x509.BasicConstraints(ca=True, path_length=0), critical=True), "path_length"),
        (setting(signing=ISSUING), "signature"),
        (setting(issuer="Another"), "signature"),
        (setting(key=private_key("rsa1024"), signing=private_key("rsa1024")), "key"),
        (setting(key=private_key("p521"), signing=private_key("p521")), "key"),
    ],
)
def test_each_fault_of_a_root_is_found(change: Change, finding: str):
    """By its own name, and alone."""
    assert evidence(judge_root(root(change), DOMAIN, NOW)) == {finding}


def test_a_good_issuing_ca_will_do():
    """Signed by the root, for the key that was asked for."""
    assert judge_issuing(issuing(), root(), public(), DOMAIN, NOW) is None


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        *BOTH,
        (putting(x509.BasicConstraints(ca=False, path_length=None), critical=True), "basic_constraints"),
        (putting(x509.BasicConstraints(ca=True, path_length=None), critical=True), "path_length"),
        (putting(x509.BasicConstraints(ca=True, path_length=1), critical=True), "path_length"),
        (without(x509.SubjectAlternativeName), "uri"),
        (setting(signing=ISSUING), "signature"),
        (setting(issuer="Another"), "signature"),
        (setting(key=private_key("ed25519")), "key"),
        (setting(end=NOW + timedelta(days=3001)), "window"),
        (putting(x509.AuthorityKeyIdentifier(b"another", None, None)), "authority_key_id"),
    ],
)
def test_each_fault_of_an_issuing_ca_is_found(change: Change, finding: str):
    """By its own name."""
    assert finding in evidence(judge_issuing(issuing(change), root(), public(), DOMAIN, NOW))


def test_a_root_in_the_place_of_the_issuing_ca_is_refused():
    """Whoever mixes up the two files."""
    assert {"key", "path_length", "uri"} <= evidence(judge_issuing(root(), root(), public(), DOMAIN, NOW))


def test_the_roots_constraints_bind_the_issuing_ca():
    """One that names more than its root may would issue what nobody accepts."""
    limit = x509.NameConstraints([x509.DNSName("internal")], None)
    above = root(putting(limit, critical=True))
    assert evidence(judge_issuing(issuing(), above, public(), DOMAIN, NOW)) == {"name_constraints"}
    assert judge_issuing(issuing(putting(limit, critical=True)), above, public(), DOMAIN, NOW) is None
    assert within(None, above) == read(load(above).extensions)
    assert within(permitted(DOMAIN, ["a.internal"]), above) == permitted(DOMAIN, ["a.internal"])
    with pytest.raises(BadInput, match="do not permit org"):
        within(permitted(DOMAIN, ["org"]), above)


def test_long_trust_domains_stay_distinct_in_64_characters():
    """Two that begin alike do not become one name."""
    names = {issuing_plan(TrustDomain("very." * 40 + last), None).name for last in "ab"}
    assert len(names) == 2
    assert {len(name.rfc4514_string().removeprefix("CN=")) for name in names} == {64}
