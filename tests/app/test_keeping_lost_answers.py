"""What is asked with after the answer was lost."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509 import load_pem_x509_csr

from handfast.app.keeping import Kept
from handfast.app.server.messages import HostCertificateAnswer
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal, Refused, Unavailable
from handfast.io.files import write_secret
from tests.app.issuers import Issuer, kept
from tests.support.clock import START, FakeClock


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    """Give an issuer whose certificates live a day."""
    return Issuer(tmp_path, FakeClock())


class Killed(BaseException):
    """The process ends here."""


async def killed_before_it_is_kept(issuer: Issuer) -> bytes:
    """Ask, and die with the answer; give what is on disk of the key."""

    async def ask(csr: str) -> HostCertificateAnswer:
        await issuer.ask(csr)
        raise Killed

    with pytest.raises(Killed):
        await Kept(issuer.directory / "kept.pem", issuer.clock, ask).ensure(anew=True)
    return (issuer.directory / "kept.next-key").read_bytes()


def keys(issuer: Issuer) -> list[bytes]:
    """Give the keys that were asked with."""
    return [
        load_pem_x509_csr(csr.encode()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for csr in issuer.asked
    ]


@pytest.mark.parametrize("first", [True, False], ids=["the first one", "a renewal"])
async def test_who_was_killed_with_the_answer_asks_again_with_the_same_key(issuer: Issuer, first: bool):
    """It was on disk before anybody was asked, for its owner alone. Once there is a certificate of it, it is gone from there."""
    if not first:
        await kept(issuer).ensure()
    await killed_before_it_is_kept(issuer)
    await killed_before_it_is_kept(issuer)
    assert (issuer.directory / "kept.next-key").stat().st_mode & 0o777 == 0o600
    credential = await kept(issuer).ensure(anew=True)
    assert len(set(keys(issuer)[-3:])) == 1
    assert kept(issuer).current.value == credential
    assert not (issuer.directory / "kept.next-key").exists()
    await kept(issuer).ensure(anew=True)
    assert keys(issuer)[-1] not in keys(issuer)[:-1]


async def test_who_gets_no_answer_asks_again_with_the_same_key(issuer: Issuer):
    """It may have been issued all the same. After that each renewal has its own."""
    one = kept(issuer)
    issuer.fault = Unavailable("away")
    for _ in range(2):
        with pytest.raises(Unavailable):
            await one.ensure()
    issuer.fault = None
    await one.ensure()
    assert len(set(keys(issuer))) == 1
    await one.ensure(anew=True)
    assert len(set(keys(issuer))) == 2


async def test_a_key_is_not_used_again_after_a_kill_between_its_certificate_and_its_end(issuer: Issuer):
    """The certificate was kept, the file of the key was not removed yet; nor where that has ended meanwhile."""
    left = await killed_before_it_is_kept(issuer)
    await kept(issuer).ensure(anew=True)
    write_secret(issuer.directory / "kept.next-key", left)
    issuer.clock.set(START + timedelta(days=2))
    await kept(issuer).ensure()
    assert keys(issuer)[0] == keys(issuer)[1] != keys(issuer)[2]


@pytest.mark.parametrize("kind", ["empty", "nonsense", "cut", "open to others", "another curve", "sealed", "pipe"])
async def test_a_key_that_is_not_as_it_was_left_is_thrown_away(issuer: Issuer, kind: str):
    """Whoever put it there: a new one is made, and nobody is held up."""
    left = await killed_before_it_is_kept(issuer)
    path = issuer.directory / "kept.next-key"
    path.unlink()
    contents = {"empty": b"", "nonsense": b"nonsense", "cut": left[: len(left) // 2], "open to others": left}
    others = {
        "another curve": ec.generate_private_key(ec.SECP384R1()),
        "sealed": ec.generate_private_key(ec.SECP256R1()),
    }
    if kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind in others:
        seal = BestAvailableEncryption(b"secret") if kind == "sealed" else NoEncryption()
        write_secret(path, others[kind].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, seal))
    else:
        write_secret(path, contents[kind])
        path.chmod(0o604 if kind == "open to others" else 0o600)
    await kept(issuer).ensure()
    assert keys(issuer)[1] != keys(issuer)[0]


async def test_a_key_that_counts_as_compromised_is_not_asked_with_for_ever(issuer: Issuer):
    """Somebody revoked the certificate that was lost, as one that nobody knew."""
    await killed_before_it_is_kept(issuer)
    issuer.fault = Refused(Refusal(Reason.ISSUANCE_KEY_COMPROMISED))
    one = kept(issuer)
    with pytest.raises(Refused):
        await one.ensure()
    issuer.fault = None
    await one.ensure()
    first, second, third = keys(issuer)
    assert first == second != third


async def test_where_no_key_can_be_kept_nobody_is_asked(issuer: Issuer):
    """Nothing is issued that would be lost for certain."""
    (issuer.directory / "kept.next-key").mkdir()
    with pytest.raises(BadInput, match=r"kept\.next-key"):
        await kept(issuer).ensure()
    assert issuer.asked == []
