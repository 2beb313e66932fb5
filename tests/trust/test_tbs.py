from hashlib import sha256

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handfast.base.refusal import BadInput
from handfast.trust import der
from handfast.trust.tbs import key_digest, key_info
from tests.support.pki import Pki
from tests.trust.material import private_key


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_the_key_is_where_the_certificate_has_it(kind: str):
    """The digest is that of the certificate's own SubjectPublicKeyInfo, as `cryptography` reads it."""
    certificate = Pki().leaf(key=kind).cert
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert key_digest(certificate.tbs_certificate_bytes) == sha256(spki).hexdigest()


@pytest.mark.parametrize("tbs", [b"", b"x", der.sequence(), der.sequence(der.integer(1)), b"\x30\x84"])
def test_what_has_no_key_has_no_digest(tbs: bytes):
    """Nothing that is not a TBSCertificate names a key by chance."""
    assert key_digest(tbs) == ""


def test_a_certificate_of_version_1_has_its_key_one_place_earlier():
    """Without the version field (RFC 5280 section 4.1.2.1) the key is the sixth."""
    fields = [der.integer(n) for n in range(5)]
    key = der.sequence(der.integer(7))
    assert key_digest(der.sequence(*fields, key)) == sha256(key).hexdigest()


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "ed25519", "rsa2048"])
def test_a_keys_identifier_is_the_librarys(kind: str):
    """SHA-1 of the bits alone, however long the value before them says that they are."""
    key = private_key(kind).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert key_info(spki).key_id == x509.SubjectKeyIdentifier.from_public_key(key).digest


@pytest.mark.parametrize(
    "spki",
    [b"", b"x", der.sequence(), der.sequence(der.sequence()), der.sequence(der.sequence(), der.octet_string(b"x"))],
)
def test_what_is_no_key_has_no_identifier(spki: bytes):
    """Algorithm and bits, and nothing else, are a SubjectPublicKeyInfo."""
    with pytest.raises(BadInput):
        key_info(spki)
