from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.io.credentials import Credential, load, new_key, p12, save
from handfast.trust.csr import CsrFacts, read_csr
from handfast.trust.facts import pem_certificates
from tests.support.pki import Pki


def credential(name: str = "payments") -> Credential:
    pki = Pki()
    leaf = pki.leaf(name)
    return Credential(leaf.key_pem.decode(), leaf.chain_pem.decode(), pki.roots_pem.decode())


def test_a_new_key_is_its_own_and_proves_itself():
    """P-256, another one each time, with a CSR that the server can read."""
    one, other = new_key("payments"), new_key()
    assert one.key_pem != other.key_pem
    for key in (one, other):
        facts = read_csr(key.csr_pem.encode())
        assert isinstance(facts, CsrFacts)
        private = load_pem_private_key(key.key_pem.encode(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        assert private.public_key() == x509.load_pem_x509_csr(key.csr_pem.encode()).public_key()


def test_a_long_name_is_cut_to_what_a_common_name_holds():
    """X.520 gives 64 characters; the name is a courtesy."""
    subject = x509.load_pem_x509_csr(new_key("x" * 200).csr_pem.encode()).subject
    assert subject.rfc4514_string() == f"CN={'x' * 64}"


def test_a_key_is_not_shown():
    """Neither a traceback nor a log line that prints the object has the key."""
    assert "PRIVATE" not in repr(new_key()) + repr(credential())


def test_what_was_saved_is_loaded(tmp_path: Path):
    """Whole, for its owner alone, in place of what was there."""
    path = tmp_path / "c.pem"
    for held in (credential("a"), credential("b")):
        save(path, held)
        assert load(path) == held
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["c.pem"]


def test_where_there_is_none_there_is_none(tmp_path: Path):
    """A first start is no error."""
    assert load(tmp_path / "none.pem") is None


def test_it_tells_what_its_leaf_says():
    """Identity and window are the leaf's, not the issuer's."""
    held = credential()
    assert held.leaf.uri_sans == ("spiffe://example.org/payments",)
    assert held.leaf_der == pem_certificates(held.chain_pem)[0]
    assert held.window == held.leaf.window


@given(
    st.binary(max_size=200)
    | st.permutations(["# key\n", "# chain\n", "# roots\n", "x\n"]).map(lambda parts: "".join(parts).encode())
)
def test_whatever_lies_there_is_refused_by_its_name(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    """Garbage is refused with a word on which file it is."""
    path = tmp_path_factory.getbasetemp() / "hostile.pem"
    path.touch(0o600)
    path.write_bytes(data)
    with pytest.raises(BadInput) as caught:
        load(path)
    assert caught.value.file == str(path)


@pytest.mark.parametrize("spoil", ["truncated", "swapped", "no certificate", "other key"])
def test_halves_that_do_not_match_are_refused(tmp_path: Path, spoil: str):
    """What somebody edited is refused when it is loaded, not in the midst of a handshake."""
    path, held, other = tmp_path / "c.pem", credential(), credential()
    bad = {
        "truncated": Credential(held.key_pem, held.chain_pem[:200], held.bundle_pem),
        "swapped": Credential(held.chain_pem, held.key_pem, held.bundle_pem),
        "no certificate": Credential(held.key_pem, "", held.bundle_pem),
        "other key": Credential(other.key_pem, held.chain_pem, held.bundle_pem),
    }[spoil]
    save(path, bad)
    with pytest.raises(BadInput, match=r"c\.pem"):
        load(path)


def test_a_browser_can_import_it():
    """PKCS#12 holds key, leaf and intermediate, under the password and the name."""
    held = credential()
    read = pkcs12.load_pkcs12(p12(held, "alice", "secret"), b"secret")
    assert read.cert
    assert read.cert.friendly_name == b"alice"
    assert len(read.additional_certs) == 1
    assert read.key
    with pytest.raises(ValueError, match="password"):
        pkcs12.load_pkcs12(p12(held, "alice", "secret"), b"wrong")
