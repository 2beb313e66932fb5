"""Revocation lists of CAs above ours, renewed by plain openssl and taken alone."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from handfast.base.refusal import BadInput
from handfast.io.authorities import create_authority
from handfast.io.authority_sources import Place, import_root
from handfast.io.ca_certificates import DEFAULT
from handfast.io.clock import SystemClock
from handfast.io.generation_files import differs
from handfast.io.generations import REVOKING_CRL, Generations
from handfast.io.next_authority import SIGNED
from handfast.io.renewed_lists import MOST_LISTS, renew
from handfast.io.signed_chains import install, read_signed
from handfast.trust.facts import facts, pem, pem_certificates
from tests.io.authority_parts import DOMAIN, key_of, now, openssl_needed, requested, signed
from tests.support.offline_root import OfflineRoot, offline_root, openssl
from tests.support.partners import authority, crl

pytestmark = openssl_needed


def lists_of(generations: Generations) -> dict[str, x509.CertificateRevocationList]:
    read = [x509.load_pem_x509_crl(text.encode()) for text in generations.root_crls()]
    return {one.issuer.rfc4514_string(): one for one in read}


def running(place: Place) -> Generations:
    """Give what a server has open."""
    generations = Generations(place.authority, DOMAIN, None)
    generations.settle(generations.first(now()))
    return generations


def contents(place: Place) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in place.authority.rglob("*") if path.is_file()}


def forgetful(root: OfflineRoot) -> bytes:
    """Sign a list that revokes nobody, whatever was revoked before."""
    register = root.directory / "index.txt"
    known = register.read_text()
    register.write_text("")
    empty = root.crl(days=1000).read_bytes()
    register.write_text(known)
    return empty


async def with_policy(place: Place, root: OfflineRoot, directory: Path) -> OfflineRoot:
    """Install an issuing CA below a CA that the root signed."""
    policy = root.below(directory, days=3000)
    chain = policy.sign(await requested(place)).read_bytes() + root.pem.read_bytes()
    install(place, read_signed(chain, root.crl().read_bytes() + policy.crl().read_bytes()), now(), root.fingerprint)
    return policy


async def test_a_newer_list_of_the_root_is_taken_alone(place: Place, root: OfflineRoot, tmp_path: Path):
    """A server that runs reads it with its next look; the same one again changes nothing."""
    install(place, await signed(place, root), now(), root.fingerprint)
    generations, before = running(place), contents(place)
    assert len(next(iter(lists_of(generations).values()))) == 0
    other = root.below(tmp_path / "other")
    listed = root.crl(days=340, revoked=other.pem).read_bytes()
    assert renew(place.authority, listed, now()) == ("CN=Example Offline Root",)
    (crl,) = lists_of(generations).values()
    assert [one.serial_number for one in crl] == [x509.load_pem_x509_certificate(other.pem.read_bytes()).serial_number]
    after = contents(place)
    assert {path.name for path in after if after[path] != before[path]} == {"root.crl.pem"}
    for again in (listed, listed * MOST_LISTS):
        renew(place.authority, again, now())
    assert contents(place) == after
    running(place)


async def test_each_ca_between_has_its_own(place: Place, root: OfflineRoot, tmp_path: Path):
    """One list alone, or several at once; the others stay as they are, and other servers see that there is a newer one."""
    policy = await with_policy(place, root, tmp_path / "policy")
    generations, before = running(place), lists_of(running(place))
    held = {path.name: text for path, text in contents(place).items()}
    later = now() + timedelta(seconds=3)
    openssl("ca", "-config", policy.directory / "ca.cnf", "-gencrl", "-crl_lastupdate", f"{later:%Y%m%d%H%M%SZ}",
            "-crl_nextupdate", f"{later + timedelta(days=900):%Y%m%d%H%M%SZ}", "-out", tmp_path / "newer.crl")  # fmt: skip
    assert renew(place.authority, (tmp_path / "newer.crl").read_bytes(), later) == ("CN=Example Policy",)
    after = lists_of(generations)
    assert after["CN=Example Offline Root"] == before["CN=Example Offline Root"]
    assert after["CN=Example Policy"].next_update_utc > before["CN=Example Policy"].next_update_utc  # type: ignore[operator]
    assert differs({path.name: text for path, text in contents(place).items()}, held)
    both = root.crl(days=700).read_bytes() + (tmp_path / "newer.crl").read_bytes()
    assert len(renew(place.authority, both, later)) == 2
    running(place)


async def test_a_list_that_will_not_do_takes_the_place_of_none(place: Place, root: OfflineRoot, tmp_path: Path):
    """An older one, a stranger's, an impostor's, one that ends too early; and a good one beside it is not taken either."""
    install(place, await signed(place, root), now(), root.fingerprint)
    before = contents(place)
    impostor = offline_root(tmp_path / "impostor").crl().read_bytes()
    cases = {
        "older than": root.crl(began=now() - timedelta(days=1)).read_bytes(),
        "of no CA above": impostor,
        "does not count from now": root.crl(days=30).read_bytes(),
        "0 revocation lists": b"words",
        "cannot be read": b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
        "17 revocation lists": root.crl().read_bytes() * 17,
    }
    good = root.crl(days=340).read_bytes()
    for text, listed in cases.items():
        for given in (listed, good + listed) if "lists" not in text else (listed,):
            with pytest.raises(BadInput, match=text):
                renew(place.authority, given, now())
    assert contents(place) == before


async def test_who_issues_here_is_not_revoked_by_a_file(place: Place, root: OfflineRoot, tmp_path: Path):
    """Everybody would be cut off: neither the issuing CA, nor the one between, nor the one that waits."""
    policy = await with_policy(place, root, tmp_path / "policy")
    chain = policy.sign(await requested(place)).read_bytes() + root.pem.read_bytes()
    both = root.crl().read_bytes() + policy.crl().read_bytes()
    assert install(place, read_signed(chain, both), now())
    before = contents(place)
    waiting = place.authority / SIGNED / "issuing.pem"
    for keeper, gone in ((policy, place.authority / "issuing.pem"), (root, policy.pem), (policy, waiting)):
        with pytest.raises(BadInput, match="which is here"):
            renew(place.authority, keeper.crl(revoked=gone).read_bytes(), now())
    assert contents(place) == before


async def test_what_waits_gets_the_list_too(place: Place, root: OfflineRoot, tmp_path: Path):
    """A rotation must not bring the older one back; and the list has to outlast what waits."""
    policy = await with_policy(place, root, tmp_path / "policy")
    chain = policy.sign(await requested(place), days=600).read_bytes() + root.pem.read_bytes()
    both = root.crl(days=610).read_bytes() + policy.crl(days=610).read_bytes()
    assert install(place, read_signed(chain, both), now())
    with pytest.raises(BadInput, match="does not count from now"):
        renew(place.authority, policy.crl(days=400).read_bytes(), now())
    renew(place.authority, policy.crl(days=800).read_bytes() + root.crl(days=800).read_bytes(), now())
    for name in ("root.crl.pem", "between.crl.pem"):
        texts = {(directory / name).read_bytes() for directory in (place.authority, place.authority / SIGNED)}
        assert len(texts) == 1
        due = x509.load_pem_x509_crl(texts.pop()).next_update_utc
        assert due is not None
        assert due > now() + timedelta(days=790)


async def test_of_several_lists_here_the_newest_is_the_one_to_be_followed(
    place: Place, root: OfflineRoot, tmp_path: Path
):
    """What waits may have come with a newer one: one from between the two takes the place of neither."""
    policy = root.below(tmp_path / "policy")
    for days in (3, 1):
        chain = policy.sign(await requested(place)).read_bytes() + root.pem.read_bytes()
        lists = root.crl().read_bytes() + policy.crl(days=400, began=now() - timedelta(days=days)).read_bytes()
        install(place, read_signed(chain, lists), now(), root.fingerprint)
    before = contents(place)
    with pytest.raises(BadInput, match="older than"):
        renew(place.authority, policy.crl(days=400, began=now() - timedelta(days=2)).read_bytes(), now())
    assert contents(place) == before


async def test_a_list_speaks_of_what_its_own_ca_issued(place: Place, root: OfflineRoot, tmp_path: Path):
    """A serial number in the root's that the issuing CA has too, which another one signed, is somebody else's."""
    await with_policy(place, root, tmp_path / "policy")
    listed = root.crl(days=700, revoked=place.authority / "issuing.pem").read_bytes()
    assert renew(place.authority, listed, now()) == ("CN=Example Offline Root",)


async def test_a_list_need_not_outlast_a_ca_whose_key_is_gone(place: Place, root: OfflineRoot):
    """Only what issues here would cut everybody off; until that ends it has to count."""
    install(place, await signed(place, root, days=900, crl_days=910), now(), root.fingerprint)
    install(place, await signed(place, root, crl_days=910), now())
    later = place.authority / "generations" / "0002"
    later.parent.mkdir(mode=0o700)
    (place.authority / SIGNED).rename(later)
    listed = root.crl(days=500).read_bytes()
    with pytest.raises(BadInput, match="does not count from now"):
        renew(place.authority, listed, now())
    (place.authority / "issuing-key.pem").unlink()
    assert renew(place.authority, listed, now())


async def test_an_issuing_ca_that_is_over_may_be_revoked_and_stays_so(place: Place, root: OfflineRoot):
    """Its key is gone. A later list that lacks it is refused until it has ended, and the next chain is installed all the same."""
    install(place, await signed(place, root), now(), root.fingerprint)
    install(place, await signed(place, root), now())
    later = place.authority / "generations" / "0002"
    later.parent.mkdir(mode=0o700)
    (place.authority / SIGNED).rename(later)
    gone = place.authority / "issuing.pem"
    (place.authority / "issuing-key.pem").unlink()
    renew(place.authority, root.crl(days=340, revoked=gone).read_bytes(), now())
    assert renew(place.authority, root.crl(days=341).read_bytes(), now())
    with pytest.raises(BadInput, match="does not revoke") as caught:
        renew(place.authority, forgetful(root), now())
    over = facts(pem_certificates(gone.read_text())[0])
    assert over.serial in str(caught.value.hint)
    (later / "root-key.pem").unlink(missing_ok=True)
    back = read_signed(root.sign(await requested(place)).read_bytes(), root.crl(days=340).read_bytes())
    assert install(place, back, now())
    empty = forgetful(root)
    with pytest.raises(BadInput, match="does not revoke"):
        renew(place.authority, empty, over.window.not_after - timedelta(seconds=1))
    assert renew(place.authority, empty, over.window.not_after)


async def test_a_root_whose_key_is_here_signs_for_itself(place: Place, root: OfflineRoot):
    """Two who sign lists of one CA would undo each other's; one whose key was taken away goes by the list that revoked last."""
    import_root(place, DEFAULT, root.pem.read_bytes(), key_of(root), now(), keep_key=True)
    with pytest.raises(BadInput, match="is here: its lists are signed here"):
        renew(place.authority, root.crl(days=5000).read_bytes(), now())
    (place.authority / "root-key.pem").unlink()
    later = place.authority / "generations" / "0002"
    later.mkdir(parents=True, mode=0o700)
    shutil.copy(place.authority / "issuing.pem", later / "issuing.pem")
    retired = place.authority / "issuing-key.pem"
    shutil.move(retired, later / "issuing-key.pem")
    (later / REVOKING_CRL).write_bytes((place.authority / "root.crl.pem").read_bytes())
    renew(place.authority, root.crl(days=5000).read_bytes(), now())
    for path in (later / REVOKING_CRL, place.authority / "root.crl.pem"):
        due = x509.load_pem_x509_crl(path.read_bytes()).next_update_utc
        assert due is not None
        assert due > now() + timedelta(days=4990)


def test_other_servers_see_which_of_several_lists_is_newer():
    """In one file, wherever the renewed one stands; an older one is no news."""
    lower, upper = authority("Lower"), authority("Upper")
    kept = [pem(crl(one), "X509 CRL") for one in (lower, upper)]
    newer = [pem(crl(one, since=timedelta(minutes=-1)), "X509 CRL") for one in (lower, upper)]
    held = {"between.crl.pem": "".join(kept).encode()}
    for lists in ((newer[0], kept[1]), (kept[0], newer[1])):
        changed = {"between.crl.pem": "".join(lists).encode()}
        assert differs(changed, held)
        assert not differs(held, changed)


def test_without_an_authority_there_is_no_place_for_a_list(place: Place, root: OfflineRoot):
    """Nor where the root was made here."""
    with pytest.raises(BadInput, match="no authority here"):
        renew(place.authority, root.crl().read_bytes(), now())
    create_authority(place.authority, DOMAIN, SystemClock(), None)
    with pytest.raises(BadInput, match="of no CA above"):
        renew(place.authority, root.crl().read_bytes(), now())
