from __future__ import annotations

import asyncio
import gc
import os
import stat
import sys
import time
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from handfast.base.refusal import BadInput, Refusal, Unavailable
from handfast.base.spiffe import TrustDomain
from handfast.base.windows import to_unix, whole_second
from handfast.io import sealed
from handfast.io.authorities import Authority, create_authority, open_authority
from handfast.io.sealed import Passphrase
from handfast.io.signers import KeySigner
from handfast.trust.algorithms import verify
from handfast.trust.facts import facts, hex_serial, pem, pem_certificates
from handfast.trust.plan import plan, serial_from
from handfast.trust.revocation import RevocationReason, Revoked, crl_plan, tbs
from tests.io.authority_parts import DOMAIN, PASSPHRASE, leaf_of
from tests.support.clock import START, FakeClock
from tests.trust.material import request

NEEDED = {"root.pem", "root.crl.pem", "issuing.pem", "issuing-key.pem"}
FILES = {*NEEDED, "root-key.pem", "ocsp.pem", "ocsp-key.pem"}


# --- what it is


def test_the_root_is_as_it_should_be(authority: Authority):
    """Ten years, one authority below it, the trust domain as its one URI, for signing certificates and lists alone."""
    root = x509.load_der_x509_certificate(authority.root_der)
    found = facts(authority.root_der)
    assert found.subject == found.issuer == "CN=Handfast root example.org"
    assert found.uri_sans == ("spiffe://example.org",)
    assert found.window.not_before == whole_second(START) - timedelta(seconds=60)
    assert found.window.length == timedelta(days=3652)
    assert (found.ski, found.curve) == (found.aki, "secp256r1")
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value) == (True, x509.BasicConstraints(ca=True, path_length=1))


def test_the_issuing_authority_is_as_it_should_be(authority: Authority):
    """One year, no authority below it, signed by the root."""
    issuing = x509.load_der_x509_certificate(authority.issuing_der)
    found = facts(authority.issuing_der)
    assert found.subject == "CN=Handfast issuing CA example.org"
    assert found.uri_sans == ("spiffe://example.org",)
    assert found.window.length == timedelta(days=365)
    assert found.aki == facts(authority.root_der).ski
    issuing.verify_directly_issued_by(x509.load_der_x509_certificate(authority.root_der))
    constraints = issuing.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value) == (True, x509.BasicConstraints(ca=True, path_length=0))


def test_both_may_sign_certificates_and_lists_and_nothing_else(authority: Authority):
    """Key usage is critical and names those two."""
    for certificate in map(x509.load_der_x509_certificate, (authority.root_der, authority.issuing_der)):
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        wanted = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        assert (usage.critical, usage.value) == (True, wanted)


def test_the_two_have_keys_and_serials_of_their_own(authority: Authority):
    """Nothing is shared between root and issuing authority, or between two roots."""
    root, issuing = facts(authority.root_der), facts(authority.issuing_der)
    assert root.serial != issuing.serial
    assert root.ski != issuing.ski
    assert len(root.serial) == len(issuing.serial) == 40


def test_a_long_trust_domain_fits_and_stays_distinct(tmp_path: Path):
    """A common name has 64 characters; two long domains with the same beginning do not become one name."""
    names = set()
    for last in "ab":
        domain = TrustDomain("very." * 40 + last)
        made = create_authority(tmp_path / last, domain, FakeClock(), None)
        assert made.trust_domain == domain
        name = x509.load_der_x509_certificate(made.root_der).subject.rfc4514_string()
        assert len(name.removeprefix("CN=")) == 64
        names.add(name)
    assert len(names) == 2


def test_the_directory_holds_these_files_and_no_open_secret(tmp_path: Path, authority: Authority):
    """Keys are their owner's alone, and sealed where there is a passphrase."""
    directory = tmp_path / "ca"
    assert {path.name for path in directory.iterdir()} == FILES
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for path in directory.glob("*-key.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert sealed.is_sealed(path.read_bytes())
    assert authority.sealed
    assert [path.name for path in tmp_path.iterdir()] == ["ca"]


def test_without_a_passphrase_the_keys_are_open_and_say_so(tmp_path: Path):
    """A newcomer may do that; status tells."""
    made = create_authority(tmp_path / "ca", DOMAIN, FakeClock(), None)
    assert not made.sealed
    assert (tmp_path / "ca" / "root-key.pem").read_bytes().startswith(b"This key is not sealed")


def test_the_keys_that_were_made_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nothing holds the root's key once it has signed; the issuing key that signs was read back from its file."""
    keys, generate = [], ec.generate_private_key
    monkeypatch.setattr(ec, "generate_private_key", lambda curve: keys.append(generate(curve)) or keys[-1])
    made = create_authority(tmp_path / "ca", DOMAIN, FakeClock(), None)
    gc.collect()
    nobodys = [object(), object(), object()]
    assert [sys.getrefcount(key) for key in keys] == [sys.getrefcount(one) for one in nobodys]
    assert made.signer


def test_nothing_of_a_key_is_shown(authority: Authority):
    """The whole authority can be printed."""
    assert isinstance(authority.signer, KeySigner)
    number = authority.signer._key.private_numbers().private_value
    assert f"{number:x}" not in repr(authority)
    assert str(number) not in repr(authority)


# --- opening


async def test_the_second_start_finds_the_same(tmp_path: Path, authority: Authority):
    """Certificates, list and key are those of the first; the bundle is the root, the chain the issuing authority."""
    again = open_authority(tmp_path / "ca", DOMAIN, PASSPHRASE)
    assert (again.root_der, again.issuing_der) == (authority.root_der, authority.issuing_der)
    assert (again.root_crl_pem, again.issuer_facts) == (authority.root_crl_pem, authority.issuer_facts)
    assert again.signer.public_key_der == authority.signer.public_key_der
    verify(await again.signer.sign(b"m"), b"m", authority.issuer_facts.public_key_der)
    assert pem_certificates(again.bundle_pem) == (again.root_der,)
    assert pem_certificates(again.chain_pem) == (again.issuing_der,)


def test_the_roots_key_can_be_taken_away(tmp_path: Path, authority: Authority):
    """An authority opens without it."""
    (tmp_path / "ca" / "root-key.pem").unlink()
    assert open_authority(tmp_path / "ca", DOMAIN, PASSPHRASE).root_der == authority.root_der


@pytest.mark.usefixtures("authority")
@pytest.mark.parametrize("name", ["root-key.pem", "issuing-key.pem", "ocsp-key.pem"])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, name: str):
    """Also the root's, which is not even read, and that of who answers OCSP for it, which is read elsewhere."""
    (tmp_path / "ca" / name).chmod(0o644)
    with pytest.raises(BadInput, match="others can read") as caught:
        open_authority(tmp_path / "ca", DOMAIN, PASSPHRASE)
    assert caught.value.file.endswith(name)


@pytest.mark.usefixtures("authority")
@pytest.mark.parametrize("name", sorted(NEEDED))
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "garbage", "foreign"])
def test_a_file_that_is_damaged_or_not_ours_is_named(tmp_path: Path, name: str, damage: str):
    """Each file that counts, in each way that it can be wrong."""
    path = tmp_path / "ca" / name
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "foreign":
        create_authority(tmp_path / "other", DOMAIN, FakeClock(), PASSPHRASE)
        path.write_bytes((tmp_path / "other" / name).read_bytes())
    else:
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "garbage": os.urandom(500)}[damage])
    with pytest.raises(BadInput) as caught:
        open_authority(tmp_path / "ca", DOMAIN, PASSPHRASE)
    # A foreign root is found where the first file does not fit to it.
    named = "issuing.pem" if (name, damage) == ("root.pem", "foreign") else name
    assert caught.value.file == str(tmp_path / "ca" / named)


@pytest.mark.usefixtures("authority")
def test_a_second_certificate_in_a_file_is_refused(tmp_path: Path):
    """What is appended to a root would be trusted by nobody and looked at by somebody."""
    path = tmp_path / "ca" / "root.pem"
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(BadInput, match="more than one"):
        open_authority(tmp_path / "ca", DOMAIN, PASSPHRASE)


@pytest.mark.usefixtures("authority")
def test_a_leaf_in_the_place_of_the_issuing_authority_is_refused(tmp_path: Path, authority: Authority):
    """It was signed by our own key, and is no authority."""
    (tmp_path / "ca" / "issuing.pem").write_text(pem(asyncio.run(leaf_of(authority))))
    with pytest.raises(BadInput) as caught:
        open_authority(tmp_path / "ca", DOMAIN, PASSPHRASE)
    assert caught.value.file.endswith("issuing.pem")


@pytest.mark.usefixtures("authority")
@pytest.mark.parametrize("passphrase", [None, Passphrase(b"a wrong passphrase, as long")], ids=["none", "wrong"])
def test_the_wrong_passphrase_is_told_with_the_file(tmp_path: Path, passphrase: Passphrase | None):
    """The issuing key is what it is for."""
    with pytest.raises(BadInput) as caught:
        open_authority(tmp_path / "ca", DOMAIN, passphrase)
    assert caught.value.file.endswith("issuing-key.pem")


@pytest.mark.usefixtures("authority")
def test_the_authority_of_another_trust_domain_is_refused(tmp_path: Path):
    """A directory that was mixed up does not become this installation's authority."""
    with pytest.raises(BadInput, match=r"of example\.org, not of example\.com"):
        open_authority(tmp_path / "ca", TrustDomain("example.com"), PASSPHRASE)


# --- revocation lists


async def test_a_list_is_signed_by_the_issuing_authority(authority: Authority):
    """PEM, with its number, for seven days, with each revocation."""
    one = (hex_serial(77), to_unix(START), RevocationReason.SUPERSEDED.value)
    text = await authority.crl([one], 12, START)
    listed = x509.load_pem_x509_crl(text.encode())
    issuing = x509.load_der_x509_certificate(authority.issuing_der)
    key = issuing.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert listed.is_signature_valid(key)
    assert listed.issuer == issuing.subject
    assert listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 12
    assert [entry.serial_number for entry in listed] == [77]
    assert listed.next_update_utc == whole_second(START) + timedelta(days=7)


async def test_a_list_with_another_keys_signature_is_not_given_out(authority: Authority):
    """A signer that uses another key is found out here, not by every gateway."""
    wrong = Authority(
        trust_domain=DOMAIN,
        root_der=authority.root_der,
        root_crl_pem=authority.root_crl_pem,
        issuing_der=authority.issuing_der,
        issuer_facts=authority.issuer_facts,
        signer=KeySigner(ec.generate_private_key(ec.SECP256R1())),
        sealed=False,
    )
    with pytest.raises(Unavailable, match="not the issuing authority's"):
        await wrong.crl((), 1, START)


def test_the_roots_list_is_empty_and_counts_as_long_as_the_root(authority: Authority):
    """So that every certificate of a chain has a list, for as long as there is a chain."""
    listed = x509.load_pem_x509_crl(authority.root_crl_pem.encode())
    root = x509.load_der_x509_certificate(authority.root_der)
    assert len(listed) == 0
    assert listed.next_update_utc == root.not_valid_after_utc
    assert listed.issuer == root.subject


async def test_a_leaf_and_its_issuer_are_refused_by_time_alone(authority: Authority):
    """An authority that has expired opens, and issues nothing."""
    late = authority.issuer_facts.window.not_after
    outcome = plan(request(), authority.issuer_facts, workload=None, now=late, serial=serial_from(bytes(20)))
    assert isinstance(outcome, Refusal)


async def test_the_loop_goes_on_while_a_long_list_is_made(tmp_path: Path):
    """Never does it wait for as much as half of the work, and the list is the one that would have been made at once."""
    authority = create_authority(tmp_path / "ca", DOMAIN, FakeClock(), None)
    revoked = [
        Revoked(
            serial=f"{number * 7919:040x}",
            fingerprint="",
            at=START - timedelta(seconds=number % 5000),
            reason=RevocationReason.SUPERSEDED,
            not_after=START + timedelta(days=1),
        )
        for number in range(100_000)
    ]
    entries = [(one.serial, to_unix(one.at), one.reason.value) for one in revoked]
    making, turns = asyncio.create_task(authority.crl(entries, 5, START)), [time.monotonic()]
    while not making.done():
        await asyncio.sleep(0.001)
        turns.append(time.monotonic())
    listed = x509.load_pem_x509_crl((await making).encode())
    assert max(after - before for before, after in pairwise(turns)) < (turns[-1] - turns[0]) / 2
    assert listed.tbs_certlist_bytes == tbs(crl_plan(revoked, authority.issuer_facts, number=5, now=START))
