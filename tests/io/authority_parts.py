"""Authorities that are made and looked at, for the tests of where they come from."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from handfast.base.spiffe import TrustDomain
from handfast.io import sealed
from handfast.io.authorities import Authority, open_authority
from handfast.io.authority_sources import Place
from handfast.io.ca_certificates import DEFAULT, Wanted
from handfast.io.key_places import close
from handfast.io.sealed import Passphrase
from handfast.io.signed_chains import Signed, ask, read_signed
from handfast.io.signers import AuthorityKey
from handfast.trust import leaf
from handfast.trust.facts import pem
from handfast.trust.plan import LeafPlan, plan, serial_from
from tests.support.clock import START
from tests.support.offline_root import OfflineRoot, openssl
from tests.trust.material import request

DOMAIN = TrustDomain("example.org")
PASSPHRASE = Passphrase(b"correct horse battery staple")
openssl_needed = pytest.mark.debian("openssl")


def now() -> datetime:
    """Give the machine's time, which openssl goes by."""
    return datetime.now(UTC)


def opened(place: Place) -> Authority:
    authority = open_authority(place.authority, place.trust_domain, place.passphrase)
    close(authority.signer)
    return authority


def key_of(root: OfflineRoot) -> AuthorityKey:
    return sealed.unseal(root.key.read_bytes(), None)


async def requested(place: Place, wanted: Wanted = DEFAULT) -> Path:
    csr = place.data.parent / "issuing.csr"
    csr.write_text(await ask(place, wanted))
    return csr


async def signed(place: Place, root: OfflineRoot, *, days: int = 300, crl_days: int = 310) -> Signed:
    chain = root.sign(await requested(place), days=days)
    return read_signed(chain.read_bytes(), root.crl(days=crl_days).read_bytes())


async def leaf_under(place: Place, *dns: str) -> tuple[bytes, Authority]:
    authority = open_authority(place.authority, place.trust_domain, place.passphrase)
    made = await leaf_of(authority, *dns, now=now())
    close(authority.signer)
    return made, authority


async def leaf_of(authority: Authority, *dns: str, now: datetime = START) -> bytes:
    """Sign a leaf as the server does."""
    planned = plan(request(dns=dns), authority.issuer_facts, workload=None, now=now, serial=serial_from(bytes(20)))
    assert isinstance(planned, LeafPlan), planned
    return leaf.assemble(leaf.tbs(planned), await authority.signer.sign(leaf.tbs(planned)))


async def openssl_verifies(place: Place, tmp_path: Path, *dns: str) -> None:
    """Check a leaf against the root, with the lists of both authorities."""
    made, authority = await leaf_under(place, *dns)
    files = {
        "leaf.pem": pem(made),
        "chain.pem": authority.chain_pem,
        "bundle.pem": authority.bundle_pem,
        "crls.pem": authority.root_crl_pem + "".join(authority.between_crls) + await _crl(place),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    words = [
        "-CAfile",
        tmp_path / "bundle.pem",
        "-untrusted",
        tmp_path / "chain.pem",
        "-CRLfile",
        tmp_path / "crls.pem",
    ]
    openssl("verify", "-x509_strict", "-crl_check_all", "-purpose", "sslclient", *words, tmp_path / "leaf.pem")


async def _crl(place: Place) -> str:
    authority = open_authority(place.authority, place.trust_domain, place.passphrase)
    text = await authority.crl((), 1, now())
    close(authority.signer)
    return text
