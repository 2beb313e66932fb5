"""Whatever a stranger sends: a result, a refusal, or BadInput, and nothing kept of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache, partial

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.trust import der
from handfast.trust.chain import explain_chain
from handfast.trust.csr import read_csr
from handfast.trust.enrolment import names_asked
from handfast.trust.entries import Workload
from handfast.trust.facts import facts, issuer_facts, pem, pem_certificates
from handfast.trust.foreign import attributes, content, judge, read_ca
from handfast.trust.foreign_crl import crl_ders, judge_crl, listed
from handfast.trust.foreign_ocsp import NONCE_OCTETS, Question, judge_ocsp
from tests.support.mutations import grown, many, mutants
from tests.support.ocsp import REVOKED, Saying, answer, delegate
from tests.support.pki import Pki
from tests.trust.material import DOMAIN, ca_der

COUNT = 1500
KEPT_BYTES = 64 * 1024
"""What may be held after many inputs: far less than one hundredth of them."""

NONCE = bytes(NONCE_OCTETS)
ENTRY = Workload(DOMAIN.id("payments"), ("localhost",))
Parse = Callable[[bytes], object]


@cache
def pki() -> Pki:
    return Pki("Fuzz")


def _made(csr: x509.CertificateSigningRequestBuilder, key: ec.EllipticCurvePrivateKey) -> bytes:
    return csr.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


@cache
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def certificates() -> tuple[bytes, ...]:
    """Give real ones: small and large, of an authority, with every kind of name."""
    made = pki()
    leaves = [
        made.leaf("payments"),
        made.leaf("rsa", key="rsa", dns=("a.test", "*.b.test"), ips=("127.0.0.1", "::1")),
        made.leaf("bare", eku=None, dns=(), ips=(), san_uris=()),
    ]
    assert made.root is not None
    authorities = [one.public_bytes(Encoding.DER) for one in (made.issuing.cert, made.root)]
    return (*(leaf.cert_der for leaf in leaves), *authorities)


@cache
def csrs() -> tuple[bytes, ...]:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "payments")])
    names = [x509.DNSName("localhost"), x509.UniformResourceIdentifier(str(ENTRY.identity))]
    builder = x509.CertificateSigningRequestBuilder(subject)
    full = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).add_attribute(
        AttributeOID.UNSTRUCTURED_NAME, b"x"
    )
    return _made(builder, key()), _made(full, key())


@cache
def lists() -> tuple[bytes, ...]:
    made = pki()
    full = made.crl(*(made.leaf(f"gone-{number}") for number in range(3)))
    return tuple(x509.load_pem_x509_crl(one).public_bytes(Encoding.DER) for one in (made.crl(), full))


def signed_again(damaged: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    """Sign what was damaged, as its author could: a hostile client its CSR, a hostile CA its list."""
    with contextlib.suppress(BadInput, ValueError):
        said, algorithm, _ = der.children(damaged)
        return der.sequence(said, algorithm, der.bit_string(sign(said)))
    return damaged


def _sign_with(private: object, said: bytes) -> bytes:
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return private.sign(said, ec.ECDSA(hashes.SHA256()))


def _text(parse: Callable[[str], object]) -> Parse:
    return lambda data: parse(data.decode("utf-8", "replace"))


def _list_of_ours(judge_: Callable[..., object]) -> Parse:
    cas = judge([one.public_bytes(Encoding.DER) for one in (pki().issuing.cert, pki().root) if one])
    return lambda data: judge_(signed_again(data, partial(_sign_with, pki().issuing.key)), cas)


def _signed_request(data: bytes) -> object:
    return read_csr(signed_again(data, partial(_sign_with, key())))


@cache
def status_answers() -> tuple[bytes, ...]:
    """Give answers about one certificate: by its issuer, and by a delegate with a nonce, of somebody who is revoked."""
    made, helper = pki(), delegate(pki().issuing)
    leaf = asked_for()
    said = Saying(word=REVOKED, signer=helper, sent=(helper,), nonce=NONCE)
    return answer(leaf, made.issuing, Saying()), answer(leaf, made.issuing, said)


@cache
def asked_for() -> x509.Certificate:
    return pki().leaf("asked").cert


def _judged_answer(data: bytes) -> object:
    asked = Question(asked_for().serial_number, read_ca(pki().issuing.cert_der), NONCE)
    return judge_ocsp(data, asked, datetime.now(UTC) + timedelta(seconds=1))


def _answer_signed_again(data: bytes) -> object:
    """Judge what the authority itself signed, however odd it is."""
    with contextlib.suppress(BadInput, ValueError, IndexError):
        status, wrapped = der.children(data)
        kind, octets = der.children(der.children(wrapped)[0])
        said, algorithm, *_ = der.children(content(octets))
        basic = der.sequence(said, algorithm, der.bit_string(_sign_with(pki().issuing.key, said)))
        data = der.sequence(status, der.tlv(0xA0, der.sequence(kind, der.octet_string(basic))))
    return _judged_answer(data)


def _in_pem(ders: tuple[bytes, ...], label: str = "CERTIFICATE") -> tuple[bytes, ...]:
    one, *others = (pem(der_, label) for der_ in ders)
    return one.encode(), "".join((one, "between\n", *others)).encode()


@cache
def targets() -> dict[str, tuple[Parse, tuple[bytes, ...]]]:
    """Give each parser with what it reads when all is well."""
    now = datetime.now(UTC) + timedelta(seconds=1)
    return {
        "facts": (facts, certificates()),
        "issuer_facts": (issuer_facts, (ca_der(),)),
        "read_ca": (read_ca, certificates()),
        "attributes": (attributes, certificates()),
        "judge": (lambda data: judge([data]), certificates()[-1:]),
        "explain_chain": (lambda data: explain_chain(data, sent_others=0, known=certificates()[-2:]), certificates()),
        "pem_certificates": (_text(pem_certificates), _in_pem(certificates())),
        "der.children": (der.children, (*certificates(), *csrs(), *lists())),
        "read_csr": (read_csr, (*csrs(), *_in_pem(csrs(), "CERTIFICATE REQUEST"))),
        "read_csr, signed again": (_signed_request, csrs()),
        "names_asked": (lambda data: names_asked(data, ENTRY), csrs()),
        "crl_ders": (crl_ders, (*lists(), *_in_pem(lists(), "X509 CRL"))),
        "judge_crl": (_list_of_ours(lambda raw, cas: judge_crl(raw, cas, now)), lists()),
        "listed": (_list_of_ours(listed), lists()),
        "judge_ocsp": (_judged_answer, status_answers()),
        "judge_ocsp, signed again": (_answer_signed_again, status_answers()),
    }


NAMES = ("facts", "issuer_facts", "read_ca", "attributes", "judge", "explain_chain", "pem_certificates", "der.children",
         "read_csr", "read_csr, signed again", "names_asked", "crl_ders", "judge_crl", "listed", "judge_ocsp", "judge_ocsp, signed again")  # fmt: skip


def tried(parse: Parse, data: bytes) -> object:
    """Parse, and take BadInput for an answer."""
    try:
        return parse(data)
    except BadInput as error:
        return error


def test_all_targets_are_named():
    """The list that the tests run over is the whole one."""
    assert tuple(targets()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_what_is_whole_is_read(name: str):
    """Each parser takes what it is given undamaged, so that the damage is what is tested."""
    parse, seeds = targets()[name]
    for seed in seeds:
        assert parse(seed) is not None


@pytest.mark.parametrize("name", NAMES)
@given(st.data())
@settings(max_examples=150)
def test_what_is_damaged_is_read_or_refused(name: str, data: st.DataObject):
    """No other exception than BadInput comes out, whatever goes in."""
    parse, seeds = targets()[name]
    tried(parse, data.draw(mutants(seeds)))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_kept(name: str):
    """After many different inputs, a second time over them leaves no more behind than the first."""
    parse, seeds = targets()[name]

    def inputs() -> Iterator[bytes]:
        return many(seeds, COUNT // 5 if "csr" in name or "list" in name or "judge" in name else COUNT)

    assert grown(partial(tried, parse), inputs) < KEPT_BYTES
