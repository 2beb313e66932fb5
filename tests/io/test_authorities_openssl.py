from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handfast.base.windows import to_unix
from handfast.io.authorities import Authority, create_authority
from handfast.trust.facts import facts, pem
from handfast.trust.revocation import RevocationReason
from tests.io.authority_parts import DOMAIN, leaf_of
from tests.support.clock import FakeClock


def openssl(*arguments: str | Path) -> str:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    return f"{done.returncode} {done.stdout} {done.stderr}"


@pytest.fixture
async def lab(tmp_path: Path) -> tuple[Path, Authority, bytes]:
    """Give a directory with an authority of now, a leaf and a list of nothing."""
    now = datetime.now(UTC)
    authority = create_authority(tmp_path / "ca", DOMAIN, FakeClock(now), None)
    der = await leaf_of(authority, "payments.internal", now=now)
    (tmp_path / "leaf.pem").write_text(pem(der))
    (tmp_path / "issuing.crl.pem").write_text(await authority.crl((), 1, now))
    return tmp_path, authority, der


@pytest.mark.debian("openssl")
@pytest.mark.parametrize("purpose", ["sslclient", "sslserver"])
def test_openssl_verifies_a_chain(lab: tuple[Path, Authority, bytes], purpose: str):
    """Strictly, with both lists, for a client and for a server."""
    directory, _, _ = lab
    ca = directory / "ca"
    chain = ("-CAfile", ca / "root.pem", "-untrusted", ca / "issuing.pem")
    lists = ("-crl_check_all", "-CRLfile", ca / "root.crl.pem", "-CRLfile", directory / "issuing.crl.pem")
    strict = ("-x509_strict", "-purpose", purpose, "-verify_hostname", "payments.internal")
    assert openssl("verify", *chain, directory / "leaf.pem").startswith("0 ")
    assert openssl("verify", *chain, *lists, *strict, directory / "leaf.pem").startswith("0 ")


@pytest.mark.debian("openssl")
async def test_openssl_refuses_a_certificate_that_the_list_names(lab: tuple[Path, Authority, bytes]):
    """A revocation in our list is one for everybody."""
    directory, authority, der = lab
    seen, now = facts(der), datetime.now(UTC)
    one = (seen.serial, to_unix(now), RevocationReason.KEY_COMPROMISE.value)
    (directory / "issuing.crl.pem").write_text(await authority.crl([one], 2, now))
    ca = directory / "ca"
    lists = ("-crl_check_all", "-CRLfile", ca / "root.crl.pem", "-CRLfile", directory / "issuing.crl.pem")
    told = openssl(
        "verify", "-CAfile", ca / "root.pem", "-untrusted", ca / "issuing.pem", *lists, directory / "leaf.pem"
    )
    assert "certificate revoked" in told


@pytest.mark.debian("openssl")
def test_openssl_prints_what_a_leaf_says(lab: tuple[Path, Authority, bytes]):
    """Names and usages as another implementation reads them."""
    told = openssl("x509", "-in", lab[0] / "leaf.pem", "-noout", "-text")
    for line in (
        "Version: 3",
        "Issuer: CN = Handfast issuing CA example.org",
        "Subject: CN = payments",
        "CA:FALSE",
        "Digital Signature",
        "TLS Web Client Authentication, TLS Web Server Authentication",
        "URI:spiffe://example.org/payments, DNS:payments.internal",
        "ecdsa-with-SHA256",
    ):
        assert line in told
    assert told.count("critical") == 2
