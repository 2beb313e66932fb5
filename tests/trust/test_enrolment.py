import contextlib
import ipaddress
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import AttributeOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.trust import der
from handfast.trust.enrolment import CSR_ATTRIBUTES, certs_only, names_asked
from handfast.trust.entries import Workload
from tests.trust.material import DOMAIN, ca_der, private_key

SENSOR = Workload(DOMAIN.id("plant/sensor"), ("sensor.internal", "sensor.example.org"))
ID = str(SENSOR.identity)


def request(*names: x509.GeneralName, common_names: tuple[str, ...] = (), password: bytes = b"") -> bytes:
    """Make a CSR that asks for these names."""
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common_names]
    builder = x509.CertificateSigningRequestBuilder(x509.Name(attributes))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if password:
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, password)
    return builder.sign(private_key(), hashes.SHA256()).public_bytes(Encoding.DER)


@cache  # signatures differ in length from call to call, which would confuse hypothesis
def whole() -> bytes:
    return request(x509.DNSName("sensor.internal"), common_names=("sensor",))


def asked(csr: bytes) -> tuple[str, ...]:
    found = names_asked(csr, SENSOR)
    assert not isinstance(found, Refusal), found
    return found


@pytest.mark.parametrize("name", ["plant/sensor", "sensor", "sensor.internal", "sensor.example.org"])
def test_a_common_name_may_be_any_of_the_entrys(name: str):
    """Devices write there what they go by: the workload's name, its last part, or a DNS name."""
    assert asked(request(common_names=(name,))) == ()


def test_a_request_may_ask_for_a_part():
    """Names that are asked for come back in their order, each once; the SPIFFE id may stand among them."""
    wanted = [x509.DNSName("sensor.example.org"), x509.UniformResourceIdentifier(ID), x509.DNSName("sensor.internal")]
    assert asked(request(*wanted, wanted[0])) == ("sensor.example.org", "sensor.internal")
    assert asked(request(wanted[1])) == asked(request()) == ()


@pytest.mark.parametrize(
    "name",
    [
        x509.DNSName("ledger.internal"),
        x509.DNSName("*.internal"),
        x509.DNSName("SENSOR.internal"),
        x509.UniformResourceIdentifier("spiffe://example.org/ledger"),
        x509.UniformResourceIdentifier(ID + "/"),
        x509.UniformResourceIdentifier("spiffe://elsewhere.org/plant/sensor"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.RFC822Name("sensor@internal"),
        x509.DirectoryName(x509.Name([])),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
        x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x06sensor"),
    ],
)
def test_any_other_name_is_refused(name: x509.GeneralName):
    """One name that the entry does not have is enough, whatever stands beside it; nothing is dropped silently."""
    refusal = names_asked(request(x509.DNSName("sensor.internal"), name), SENSOR)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.ISSUANCE_NAME_NOT_ALLOWED


@pytest.mark.parametrize("names", [("ledger",), ("plant",), ("Sensor",), ("sensor", "ledger"), ("x\n" * 30,)])
def test_another_common_name_is_refused(names: tuple[str, ...]):
    """Each common name counts, and a stranger's text comes into the record escaped and cut."""
    refusal = names_asked(request(common_names=names), SENSOR)
    assert isinstance(refusal, Refusal)
    assert all(text.isprintable() and len(text) < 250 for text in refusal.evidence.values())


def test_a_challenge_password_is_refused():
    """RFC 7030 wants tls-unique checked where it is sent; TLS 1.3 has none, so nothing may look as if it had been."""
    with pytest.raises(BadInput, match="challenge password"):
        names_asked(request(password=b"tls-unique"), SENSOR)


def test_a_request_that_is_too_long_is_not_read():
    """The bound is that of every CSR."""
    with pytest.raises(BadInput, match="larger"):
        names_asked(bytes(16 * 1024 + 1), SENSOR)


@given(st.data())
def test_damaged_requests_are_bad_input(data: st.DataObject):
    """A CSR with an octet changed, cut or doubled gives names, a refusal or BadInput, and nothing else."""
    csr = whole()
    at = data.draw(st.integers(0, len(csr) - 1))
    damaged = data.draw(
        st.sampled_from([csr[:at], csr[:at] + csr[at + 1 :], csr[:at] + csr[at:] * 2])
        | st.integers(0, 255).map(lambda octet: csr[:at] + bytes((octet,)) + csr[at + 1 :])
    )
    with contextlib.suppress(BadInput):
        assert isinstance(names_asked(damaged, SENSOR), tuple | Refusal)


def test_certificates_without_a_signature_can_be_read_again():
    """Another reader finds each certificate once, and no signer."""
    one, other = ca_der(), ca_der(uris=("spiffe://other.org",))
    written = certs_only((one, other, one))
    found = [found.public_bytes(Encoding.DER) for found in pkcs7.load_der_pkcs7_certificates(written)]
    assert sorted(found) == sorted([one, other])
    kind, content = der.children(written)
    assert kind == der.oid("1.2.840.113549.1.7.2")
    (signed,) = der.children(content)
    version, digests, _, _, signers = der.children(signed)
    assert (version, digests, signers) == (der.integer(1), b"\x31\x00", b"\x31\x00")


def test_only_certificates_are_written():
    """What is no certificate is not passed on."""
    with pytest.raises(BadInput):
        certs_only((b"\x30\x00",))


def test_the_attributes_are_those_of_the_rfc():
    """RFC 7030 section 4.5.2: an attribute that names the curve, and the OID of a signature algorithm."""
    curve, signature = der.children(CSR_ATTRIBUTES)
    assert der.children(curve)[0] == der.oid("1.2.840.10045.2.1")
    assert der.children(der.children(curve)[1]) == (der.oid("1.2.840.10045.3.1.7"),)
    assert signature == der.oid("1.2.840.10045.4.3.2")
