"""What other tests take for granted of their certificates, judged by OpenSSL."""

import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from tests.support.pki import SERVER, Issued, Pki


def verify(leaf: Issued, pki: Pki, directory: Path, *more: str) -> str:
    """Ask OpenSSL about a client's certificate."""
    (directory / "root.pem").write_bytes(pki.roots_pem)
    (directory / "above.pem").write_bytes(leaf.chain_pem)
    (directory / "leaf.pem").write_bytes(leaf.cert_pem)
    command = ["openssl", "verify", "-purpose", "sslclient", "-CAfile", "root.pem", "-untrusted", "above.pem", *more]
    done = subprocess.run([*command, "leaf.pem"], cwd=directory, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_plain_leaf_holds(tmp_path: Path):
    """A leaf that nothing was asked of is good, strictly."""
    pki = Pki()
    assert "leaf.pem: OK" in verify(pki.leaf(), pki, tmp_path, "-x509_strict")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda pki: pki.expired(), "certificate has expired"),
        (lambda pki: pki.not_yet_valid(), "not yet valid"),
        (lambda pki: pki.leaf(eku=(SERVER,)), "unsuitable certificate purpose"),
        (lambda pki: pki.leaf(self_signed=True), "self-signed certificate"),
        (lambda _: Pki("Other").leaf(), "unable to get"),
        (lambda pki: pki.leaf(key="rsa-1024"), "EE certificate key too weak"),
        (lambda pki: pki.leaf(sha1=True), "CA signature digest algorithm too weak"),
    ],
)
def test_bad_leaf_is_bad_for_its_own_reason(make, words: str, tmp_path: Path):
    """Each hostile leaf is refused, and for what it was made for."""
    pki = Pki()
    assert words in verify(make(pki), pki, tmp_path, "-auth_level", "2", "-partial_chain")


def test_what_a_loose_verifier_lets_pass(tmp_path: Path):
    """No EKU, an authority as leaf and several URIs chain well: refusing them is our own work."""
    pki = Pki()
    several = pki.leaf(san_uris=("spiffe://example.org/a", "spiffe://example.org/b"))
    for leaf in (pki.leaf(eku=None), pki.leaf(ca=True), several):
        assert "leaf.pem: OK" in verify(leaf, pki, tmp_path)
    names = several.cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://example.org/a",
        "spiffe://example.org/b",
    ]


def test_stands_on_an_existing_authority(tmp_path: Path):
    """A leaf made with somebody else's key and certificate chains to their root."""
    theirs = Pki("Theirs")
    ours = Pki.on(theirs.issuing.cert_pem, theirs.issuing.key_pem, root_pem=theirs.roots_pem)
    assert "leaf.pem: OK" in verify(ours.leaf("intruder"), theirs, tmp_path)


def test_written_key_is_private(tmp_path: Path):
    """A key's file is for its owner alone."""
    files = Pki().leaf().write(tmp_path, "client")
    assert files.key.stat().st_mode & 0o777 == 0o600
    assert files.chain.read_bytes().count(b"BEGIN CERTIFICATE") == 2
