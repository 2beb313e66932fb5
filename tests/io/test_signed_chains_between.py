"""CAs between a root and the issuing CA."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from handfast.base.refusal import BadInput, Refused
from handfast.io.authority_graph import graph
from handfast.io.authority_sources import Place
from handfast.io.ca_certificates import Wanted
from handfast.io.generations import Generations
from handfast.io.signed_chains import MAX_BETWEEN, Signed, install, read_signed
from handfast.trust.constraints import permitted
from handfast.trust.facts import facts, pem_certificates
from tests.io.authority_parts import (
    DOMAIN,
    now,
    opened,
    openssl_needed,
    openssl_verifies,
    requested,
)
from tests.support.offline_root import OfflineRoot


async def below(place: Place, policy: OfflineRoot, root: OfflineRoot, *, crl: bool = True) -> Signed:
    """Have the issuing CA signed by a CA that the root signed."""
    chain = policy.sign(await requested(place)).read_bytes() + root.pem.read_bytes()
    return read_signed(chain, root.crl().read_bytes() + (policy.crl().read_bytes() if crl else b""))


@openssl_needed
async def test_a_chain_with_a_ca_between_is_installed_and_verified(place: Place, root: OfflineRoot, tmp_path: Path):
    """Peers send both; the bundle is the root alone; each CA has its list."""
    back = await below(place, root.below(tmp_path / "policy"), root)
    assert install(place, back, now(), root.fingerprint) is False
    made = opened(place)
    assert pem_certificates(made.chain_pem) == (back.issuing_der, *back.between)
    assert pem_certificates(made.bundle_pem) == (back.root_der,)
    await openssl_verifies(place, tmp_path, "payments.internal")
    assert [node.kind for node in graph(place.authority)] == ["root", "between", "issuing"]
    generations = Generations(place.authority, DOMAIN, None)
    generations.settle(generations.first(now()))
    assert generations.known_cas == (back.root_der, *back.between, back.issuing_der)
    issuers = [x509.load_pem_x509_crl(text.encode()).issuer.rfc4514_string() for text in generations.root_crls()]
    assert issuers == [facts(der).subject for der in (back.root_der, *back.between)]


@openssl_needed
async def test_two_between_are_put_in_their_order(place: Place, root: OfflineRoot, tmp_path: Path):
    """Whatever the order in the file."""
    upper = root.below(tmp_path / "upper", length=2)
    lower = upper.below(tmp_path / "lower", name="Example Lower")
    lower.sign(await requested(place))
    held = (upper.pem, root.pem, lower.directory / "issuing.pem", lower.pem)
    lists = b"".join(one.crl().read_bytes() for one in (upper, root, lower))
    back = read_signed(b"".join(one.read_bytes() for one in held), lists)
    assert [facts(der).subject for der in back.between] == ["CN=Example Lower", "CN=Example Policy"]
    install(place, back, now(), root.fingerprint)
    await openssl_verifies(place, tmp_path, "payments.internal")


@openssl_needed
async def test_without_the_list_of_a_ca_between_nothing_is_installed(place: Place, root: OfflineRoot, tmp_path: Path):
    """TLS with lists wants one of each: every client would be refused at the first revocation. It is said whose is missing."""
    back = await below(place, root.below(tmp_path / "policy"), root, crl=False)
    with pytest.raises(BadInput, match=r"CN=Example Policy is missing"):
        install(place, back, now(), root.fingerprint)
    assert not place.authority.exists()


@openssl_needed
@pytest.mark.parametrize(
    ("bend", "finding"),
    [
        ({"length": 0}, "between_1_path_length"),
        ({"more": "nameConstraints = critical,permitted;DNS:other.example"}, "name_constraints"),
        ({"more": "nameConstraints = critical,permitted;URI:example.com"}, "between_1_name_constraints"),
        ({"more": "extendedKeyUsage = serverAuth"}, "between_1_extended_key_usage"),
        ({"more": "subjectAltName = URI:spiffe://example.com"}, "between_1_uri"),
        ({"days": 200}, "window"),
    ],
    ids=str,
)
async def test_each_fault_of_a_ca_between_is_found(
    place: Place, root: OfflineRoot, tmp_path: Path, bend: dict[str, Any], finding: str
):
    """By its own name; nothing is installed."""
    back = await below(place, root.below(tmp_path / "policy", **bend), root)
    with pytest.raises(Refused) as caught:
        install(place, back, now(), root.fingerprint)
    assert finding in caught.value.refusal.evidence
    assert not place.authority.exists()


@openssl_needed
async def test_the_limits_of_a_ca_between_bind_what_is_issued(place: Place, root: OfflineRoot, tmp_path: Path):
    """As strictly as its own: what openssl would refuse is not signed."""
    limits = "nameConstraints = critical,permitted;DNS:internal,permitted;URI:example.org"
    policy = root.below(tmp_path / "policy", more=limits)
    csr = await requested(place, Wanted(constraints=permitted(DOMAIN, ["internal"])))
    chain = policy.sign(csr).read_bytes() + root.pem.read_bytes()
    back = read_signed(chain, root.crl().read_bytes() + policy.crl().read_bytes())
    install(place, back, now(), root.fingerprint)
    assert len(opened(place).issuer_facts.constraints) == 2
    await openssl_verifies(place, tmp_path, "payments.internal")


@openssl_needed
async def test_a_ca_between_without_the_one_above_it_is_no_chain(place: Place, root: OfflineRoot, tmp_path: Path):
    """All certificates up to the root are wanted."""
    policy = root.below(tmp_path / "policy")
    policy.sign(await requested(place))
    text = (policy.directory / "issuing.pem").read_bytes() + root.pem.read_bytes()
    with pytest.raises(BadInput, match="no chain"):
        read_signed(text, root.crl().read_bytes())


def named(*pairs: tuple[str, str]) -> bytes:
    """Give CAs of these subjects and issuers, and something that looks like a list: who signed what is judged later."""
    key, begins = ec.generate_private_key(ec.SECP256R1()), now()
    made = [
        x509.CertificateBuilder(name(issuer), name(subject), key.public_key(), number, begins, begins + timedelta(days=1))
        .sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
        for number, (subject, issuer) in enumerate(pairs, 1)
    ]  # fmt: skip
    return b"".join(made) + b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def test_four_stand_between_at_the_most():
    """As many as peers would have to be sent with each handshake."""
    names = [*"abcdef", "root"]
    whole = [*pairwise(names), ("root", "root")]
    assert len(read_signed(named(*whole[1:])).between) == MAX_BETWEEN
    with pytest.raises(BadInput, match="no chain"):
        read_signed(named(*whole))


@pytest.mark.parametrize(
    "pairs",
    [
        [("issuing", "a"), ("a", "b"), ("b", "a")],
        [("issuing", "a"), ("a", "b"), ("b", "c"), ("c", "a"), ("root", "root")],
        [("issuing", "root"), ("root", "root"), ("a", "b"), ("b", "a")],
    ],
    ids=["a ring", "a ring beside a root", "a ring beside a chain"],
)
def test_cas_that_signed_each_other_are_no_chain(pairs: list[tuple[str, str]]):
    """Nobody walks upwards for ever, and nothing in the file is passed over."""
    with pytest.raises(BadInput, match="no chain"):
        read_signed(named(*pairs))


@openssl_needed
async def test_a_spoilt_chain_does_not_open(place: Place, root: OfflineRoot, tmp_path: Path):
    """A CA between that signed nothing here, or a list of another: the file is named at the start."""
    install(place, await below(place, root.below(tmp_path / "policy"), root), now(), root.fingerprint)
    good = (place.authority / "between.pem").read_text()
    (place.authority / "between.pem").write_text(root.below(tmp_path / "other").pem.read_text())
    with pytest.raises(BadInput, match="not signed by"):
        opened(place)
    (place.authority / "between.pem").write_text(good)
    (place.authority / "between.crl.pem").write_text((place.authority / "root.crl.pem").read_text())
    with pytest.raises(BadInput, match="not signed by") as caught:
        opened(place)
    assert caught.value.file.endswith("between.crl.pem")
