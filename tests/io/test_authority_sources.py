from __future__ import annotations

import shutil
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal, Refused
from handfast.base.spiffe import TrustDomain
from handfast.io import sealed
from handfast.io.authorities import Authority, create_authority, open_authority
from handfast.io.authority_graph import graph
from handfast.io.authority_sources import (
    Place,
    Signed,
    ask,
    generate,
    import_root,
    install,
    prepare,
    read_signed,
    waits,
)
from handfast.io.ca_certificates import DEFAULT, Wanted
from handfast.io.clock import SystemClock
from handfast.io.generations import Generations
from handfast.io.key_places import close
from handfast.io.sealed import Passphrase
from handfast.io.signers import AuthorityKey, KeyKind, new_authority_key
from handfast.io.token_uri import parse_token_uri
from handfast.trust import leaf, rotation
from handfast.trust.constraints import permitted
from handfast.trust.facts import facts, pem
from handfast.trust.plan import LeafPlan, plan, serial_from
from handfast.trust.rotation import Stage
from tests.support import tokens
from tests.support.offline_root import OfflineRoot, offline_root, openssl
from tests.trust.material import request

DOMAIN = TrustDomain("example.org")
PASSPHRASE = Passphrase(b"correct horse battery staple")
openssl_needed = pytest.mark.debian("openssl")


def now() -> datetime:
    """Give the machine's time, which openssl goes by."""
    return datetime.now(UTC)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(data=tmp_path / "data", trust_domain=DOMAIN)


@pytest.fixture
def root(tmp_path: Path) -> OfflineRoot:
    return offline_root(tmp_path / "root")


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
    planned = plan(request(dns=dns), authority.issuer_facts, workload=None, now=now(), serial=serial_from(bytes(20)))
    assert isinstance(planned, LeafPlan), planned
    made = leaf.assemble(leaf.tbs(planned), await authority.signer.sign(leaf.tbs(planned)))
    close(authority.signer)
    return made, authority


async def openssl_verifies(place: Place, tmp_path: Path, *dns: str) -> None:
    """Check a leaf against the root, with the lists of both authorities."""
    made, authority = await leaf_under(place, *dns)
    files = {
        "leaf.pem": pem(made),
        "chain.pem": authority.chain_pem,
        "bundle.pem": authority.bundle_pem,
        "crls.pem": authority.root_crl_pem + await _crl(place),
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


# --- made here, with chosen keys


@openssl_needed
@pytest.mark.parametrize("kind", KeyKind)
async def test_openssl_verifies_under_each_kind_of_key(place: Place, tmp_path: Path, kind: KeyKind):
    """Root, issuing CA and both revocation lists, strictly."""
    generate(place, Wanted(key=kind), kind, now())
    await openssl_verifies(place, tmp_path, "payments.internal")


def test_root_and_issuing_ca_may_have_keys_of_different_kinds(place: Place):
    """A strong root over a fast issuing CA."""
    generate(place, Wanted(key=KeyKind.P256), KeyKind.RSA3072, now())
    made = opened(place)
    assert (facts(made.root_der).key_bits, facts(made.issuing_der).curve) == (3072, "secp256r1")


@openssl_needed
async def test_constraints_are_written_and_hold(place: Place, tmp_path: Path):
    """OpenSSL lets pass what is within them, and plan refuses the rest."""
    generate(place, Wanted(constraints=permitted(DOMAIN, ["internal"])), KeyKind.P256, now())
    await openssl_verifies(place, tmp_path, "payments.internal")
    outside = plan(
        request(dns=("a.org",)), opened(place).issuer_facts, workload=None, now=now(), serial=serial_from(bytes(20))
    )
    assert isinstance(outside, Refusal)
    assert outside.reason is Reason.ISSUANCE_NAME_CONSTRAINT


@openssl_needed
async def test_a_leaf_outside_of_the_constraints_is_refused_by_openssl(place: Place, tmp_path: Path):
    """What we refuse to issue, others refuse to take: the issuing key in a thief's hand is bound as well."""
    generate(place, Wanted(constraints=permitted(DOMAIN, ["internal"])), KeyKind.P256, now())
    authority = opened(place)
    thief = replace(authority.issuer_facts, constraints=())
    planned = plan(request(dns=("a.org",)), thief, workload=None, now=now(), serial=serial_from(bytes(20)))
    assert isinstance(planned, LeafPlan)
    der = leaf.assemble(leaf.tbs(planned), await authority.signer.sign(leaf.tbs(planned)))
    for name, text in (("l", pem(der)), ("c", authority.chain_pem), ("b", authority.bundle_pem)):
        (tmp_path / name).write_text(text)
    with pytest.raises(AssertionError, match="permitted subtree violation"):
        openssl("verify", "-CAfile", tmp_path / "b", "-untrusted", tmp_path / "c", tmp_path / "l")


@tokens.NEEDED
@openssl_needed
@pytest.mark.parametrize("kind", ["p256", "rsa2048"])
async def test_an_issuing_key_in_a_token(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    """No key file is written, and what it signs verifies."""
    token = tokens.new_token(tmp_path / "token", monkeypatch)
    token.make(kind, "issuing")
    generate(place, Wanted(key=parse_token_uri(token.uri("issuing"))), KeyKind.P256, now())
    assert sorted(path.name for path in place.authority.glob("issuing-key*")) == ["issuing-key.uri"]
    assert stat.S_IMODE((place.authority / "issuing-key.uri").stat().st_mode) == 0o600
    await openssl_verifies(place, tmp_path, "payments.internal")
    shown = graph(place.authority)[1]
    assert (shown.key_place, "pin" in shown.key_text) == ("token", False)


@tokens.NEEDED
def test_another_key_in_the_token_does_not_open_the_authority(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A URI that leads to another key is found at the start, by its file."""
    token = tokens.new_token(tmp_path / "token", monkeypatch)
    token.make("p256", "issuing")
    token.make("p256", "other", 2)
    generate(place, Wanted(key=parse_token_uri(token.uri("issuing"))), KeyKind.P256, now())
    (place.authority / "issuing-key.uri").write_text(token.uri("other"))
    with pytest.raises(BadInput, match="not the one") as caught:
        open_authority(place.authority, DOMAIN, None)
    assert caught.value.file.endswith("issuing-key.uri")


def test_a_key_file_beside_a_token_is_refused(place: Place):
    """One of them must count, and nobody guesses which."""
    generate(place, DEFAULT, KeyKind.P256, now())
    (place.authority / "issuing-key.uri").write_text("pkcs11:")
    (place.authority / "issuing-key.uri").chmod(0o600)
    with pytest.raises(BadInput, match="one must count"):
        open_authority(place.authority, DOMAIN, None)


# --- an imported root


@openssl_needed
@pytest.mark.parametrize("key", ["ec:prime256v1", "ec:secp384r1", "rsa:2048"])
async def test_a_root_of_openssl_is_imported(place: Place, tmp_path: Path, key: str):
    """It has no URI and no path length; its key is not kept."""
    root = offline_root(tmp_path / "root", key=key)
    import_root(place, DEFAULT, root.pem.read_bytes(), key_of(root), now())
    assert {path.name for path in place.authority.iterdir()} == {
        "root.pem",
        "root.crl.pem",
        "issuing.pem",
        "issuing-key.pem",
    }
    await openssl_verifies(place, tmp_path, "payments.internal")


@openssl_needed
def test_an_imported_root_may_stay_with_its_key(place: Place, root: OfflineRoot):
    """Where that is asked for: sealed as the others are."""
    held = Place(data=place.data, trust_domain=DOMAIN, passphrase=PASSPHRASE)
    import_root(held, DEFAULT, root.pem.read_bytes(), key_of(root), now(), keep_key=True)
    text = (place.authority / "root-key.pem").read_bytes()
    assert sealed.is_sealed(text)
    assert opened(held).sealed


@openssl_needed
def test_a_key_that_is_not_the_roots_imports_nothing(place: Place, root: OfflineRoot):
    """And leaves nothing behind."""
    with pytest.raises(BadInput, match="not the root's"):
        import_root(place, DEFAULT, root.pem.read_bytes(), new_authority_key(KeyKind.P256), now())
    assert not place.authority.exists()


@openssl_needed
def test_an_unfit_root_imports_nothing(place: Place, root: OfflineRoot):
    """An expired one, here; each other fault is a test of the judgement."""
    with pytest.raises(Refused) as caught:
        import_root(place, DEFAULT, root.pem.read_bytes(), key_of(root), now() + timedelta(days=5000))
    assert caught.value.refusal.reason is Reason.AUTHORITY_UNFIT
    assert "window" in caught.value.refusal.evidence
    assert not place.authority.exists()


@openssl_needed
async def test_nothing_replaces_an_authority_that_is_there(place: Place, root: OfflineRoot):
    """Neither made nor imported nor installed."""
    generate(place, DEFAULT, KeyKind.P256, now())
    before = {path.name: path.read_bytes() for path in place.authority.iterdir()}
    with pytest.raises(BadInput, match="already"):
        generate(place, DEFAULT, KeyKind.P256, now())
    with pytest.raises(BadInput, match="already"):
        import_root(place, DEFAULT, root.pem.read_bytes(), key_of(root), now())
    foreign = await signed(place, root)
    with pytest.raises(BadInput, match="already"):
        install(place, foreign, now(), root.fingerprint)
    assert {path.name: path.read_bytes() for path in place.authority.iterdir()} == before


def test_a_long_lived_issuing_ca_ends_with_its_root(place: Place, tmp_path: Path):
    """A chain whose root has ended is refused, whatever the rest says."""
    short = offline_root(tmp_path / "root", days=30)
    import_root(place, DEFAULT, short.pem.read_bytes(), key_of(short), now())
    made = opened(place)
    assert facts(made.issuing_der).window.not_after == facts(made.root_der).window.not_after


# --- an offline root


@openssl_needed
@pytest.mark.parametrize("kind", [KeyKind.P256, KeyKind.RSA2048, KeyKind.ED25519])
async def test_an_offline_root_signs_the_issuing_ca(place: Place, root: OfflineRoot, tmp_path: Path, kind: KeyKind):
    """Request, openssl, installation, and a leaf that openssl verifies; the root's key was never here."""
    csr = await requested(place, Wanted(key=kind, constraints=permitted(DOMAIN, ["internal"])))
    openssl("req", "-verify", "-noout", "-in", csr)
    back = read_signed(root.sign(csr).read_bytes(), root.crl().read_bytes())
    assert install(place, back, now(), root.fingerprint) is False
    assert not place.requested.exists()
    await openssl_verifies(place, tmp_path, "payments.internal")
    assert opened(place).issuer_facts.constraints == (permitted(DOMAIN, ["internal"]),)


@tokens.NEEDED
@openssl_needed
async def test_the_requested_key_may_lie_in_a_token(
    place: Place, root: OfflineRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Then neither key is ever on this disk."""
    token = tokens.new_token(tmp_path / "token", monkeypatch)
    token.make("p384", "issuing")
    csr = await requested(place, Wanted(key=parse_token_uri(token.uri("issuing"))))
    install(place, read_signed(root.sign(csr).read_bytes(), root.crl().read_bytes()), now(), root.fingerprint)
    assert not list(place.data.rglob("*key.pem"))
    await openssl_verifies(place, tmp_path, "payments.internal")


@openssl_needed
async def test_a_new_root_is_confirmed_by_its_fingerprint(place: Place, root: OfflineRoot):
    """Without it, or with another: refused, with the fingerprint to compare, and nothing is there."""
    back = await signed(place, root)
    for said in ("", "00" * 32, root.fingerprint[:-3]):
        with pytest.raises(Refused) as caught:
            install(place, back, now(), said)
        assert caught.value.refusal.reason is Reason.AUTHORITY_UNCONFIRMED
        assert caught.value.refusal.evidence["sha256"] == root.fingerprint.replace(":", "").lower()
    assert not place.authority.exists()
    install(place, back, now(), root.fingerprint.lower())
    assert place.authority.exists()


@openssl_needed
async def test_a_chain_for_another_key_is_refused(place: Place, root: OfflineRoot):
    """An old answer to an old request, or somebody's own issuing CA."""
    old = await signed(place, root)
    shutil.rmtree(place.requested)
    await requested(place)
    with pytest.raises(Refused) as caught:
        install(place, old, now(), root.fingerprint)
    assert "key" in caught.value.refusal.evidence


@openssl_needed
async def test_another_root_of_the_same_name_is_refused(place: Place, root: OfflineRoot, tmp_path: Path):
    """The issuing CA has to be signed by the very root that comes with it."""
    back = await signed(place, root)
    impostor = offline_root(tmp_path / "impostor")
    mixed = read_signed(pem(back.issuing_der).encode() + impostor.pem.read_bytes(), impostor.crl().read_bytes())
    with pytest.raises(Refused) as caught:
        install(place, mixed, now(), impostor.fingerprint)
    assert "signature" in caught.value.refusal.evidence


@openssl_needed
async def test_an_issuing_ca_of_another_trust_domain_is_refused(place: Place, root: OfflineRoot):
    """Its identities would be another installation's."""
    back = await signed(place, root)
    other = Place(data=place.data, trust_domain=TrustDomain("example.com"))
    with pytest.raises(Refused) as caught:
        install(other, back, now(), root.fingerprint)
    assert "uri" in caught.value.refusal.evidence


@openssl_needed
async def test_a_list_that_ends_before_the_issuing_ca_is_refused(place: Place, root: OfflineRoot):
    """Nobody here can renew it, and with a stale one every client is refused."""
    with pytest.raises(BadInput, match="does not count from now until"):
        install(place, await signed(place, root, days=300, crl_days=30), now(), root.fingerprint)


@openssl_needed
async def test_a_list_of_somebody_else_or_one_that_revokes_the_issuing_ca_is_refused(
    place: Place, root: OfflineRoot, tmp_path: Path
):
    """Both would cut everybody off at the first revocation."""
    chain = root.sign(await requested(place)).read_bytes()
    impostor = offline_root(tmp_path / "impostor")
    for crl, text in (
        (impostor.crl(), "not the root's"),
        (root.crl(revoked=root.directory / "issuing.pem"), "revokes the issuing CA"),
    ):
        with pytest.raises(BadInput, match=text):
            install(place, read_signed(chain, crl.read_bytes()), now(), root.fingerprint)
    with pytest.raises(BadInput, match="cannot be read"):
        install(
            place,
            read_signed(chain, b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"),
            now(),
            root.fingerprint,
        )


@openssl_needed
async def test_what_is_not_a_chain_of_two_is_refused(place: Place, root: OfflineRoot):
    """One certificate, three, two roots; and a missing list is asked for."""
    chain = root.sign(await requested(place)).read_bytes()
    for text in (root.pem.read_bytes(), chain + chain, root.pem.read_bytes() * 2):
        with pytest.raises(BadInput, match="one issuing CA and its root"):
            read_signed(text, root.crl().read_bytes())
    with pytest.raises(BadInput, match="list is missing"):
        read_signed(chain)
    assert read_signed(chain + root.crl().read_bytes()).root_fingerprint


async def test_no_authority_is_made_while_one_is_requested(place: Place):
    """A server that is started too early would come up under a root that nobody wanted."""
    await ask(place, DEFAULT)
    with pytest.raises(BadInput, match="requested from a root elsewhere"):
        create_authority(place.authority, DOMAIN, SystemClock(), None)
    assert not place.authority.exists()


async def test_a_second_request_does_not_destroy_the_first_ones_key(place: Place):
    """Somebody may be on the way to the safe with it."""
    await ask(place, DEFAULT)
    before = (place.requested / "issuing-key.pem").read_bytes()
    with pytest.raises(BadInput, match="requested already"):
        await ask(place, DEFAULT)
    assert (place.requested / "issuing-key.pem").read_bytes() == before


@openssl_needed
async def test_nothing_is_installed_that_was_not_requested(place: Place, root: OfflineRoot):
    """The first step is a request, whose key stays here."""
    back = await signed(place, root)
    shutil.rmtree(place.requested)
    with pytest.raises(BadInput, match="no issuing CA was requested"):
        install(place, back, now(), root.fingerprint)


@openssl_needed
async def test_the_requested_key_is_sealed_and_private(place: Place, root: OfflineRoot):
    """From the first moment, and with the passphrase of the authority."""
    held = Place(data=place.data, trust_domain=DOMAIN, passphrase=PASSPHRASE)
    back = await signed(held, root)
    key = place.requested / "issuing-key.pem"
    assert stat.S_IMODE(place.requested.stat().st_mode) == 0o700
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with pytest.raises(TypeError, match="encrypted"):
        load_pem_private_key(key.read_bytes(), None)
    install(held, back, now(), root.fingerprint)
    assert opened(held).sealed


# --- the next issuing CA of an offline root


@openssl_needed
async def test_the_next_issuing_ca_waits_for_a_rotation(place: Place, root: OfflineRoot):
    """The root is known by then; the rotation uses what was signed, and it does not wait any longer."""
    install(place, await signed(place, root), now(), root.fingerprint)
    first = opened(place)
    back = await signed(place, root, days=350, crl_days=360)
    assert install(place, back, now()) is True
    assert waits(place.authority)
    assert opened(place).issuing_der == first.issuing_der
    due = x509.load_pem_x509_crl((place.authority / "root.crl.pem").read_bytes()).next_update_utc
    assert due is not None
    assert due > facts(back.issuing_der).window.not_after

    generations = Generations(place.authority, DOMAIN, None)
    rows = generations.first(now())
    generations.settle(rows)
    generations.check_root(1)
    coming = rotation.Generation(number=2, root=1, before=1, stage=Stage.PREPARED, since=now())
    made = generations.make(coming, (*rows, coming), now())
    assert rotation.by_number(made, 2).issuer == facts(back.issuing_der).ski
    assert not waits(place.authority)
    again = generations.make(coming, (*rows, coming), now())
    assert again == made
    later = open_authority(place.authority / "generations" / "0002", DOMAIN, None, root_directory=place.authority)
    assert later.issuing_der == back.issuing_der


@openssl_needed
async def test_a_compromised_authority_is_not_followed_without_the_roots_key(place: Place, root: OfflineRoot):
    """Somebody has to revoke it at the end: a root that is elsewhere cannot, and that is said before anything is made."""
    install(place, await signed(place, root), now(), root.fingerprint)
    install(place, await signed(place, root), now())
    generations = Generations(place.authority, DOMAIN, None)
    (first,) = generations.first(now())
    coming = rotation.Generation(number=2, root=1, before=1, stage=Stage.PREPARED, since=now())
    with pytest.raises(BadInput, match="root's key is not here"):
        generations.make(coming, (replace(first, compromised=True), coming), now())
    assert waits(place.authority)
    assert not list(place.authority.rglob("0002"))


@openssl_needed
async def test_the_next_list_of_the_root_leaves_the_issuing_ca_alone(place: Place, root: OfflineRoot):
    """It is put in place at once: a list that revokes who issues now would cut everybody off."""
    install(place, await signed(place, root), now(), root.fingerprint)
    first = place.authority / "issuing.pem"
    chain = root.sign(await requested(place))
    before = (place.authority / "root.crl.pem").read_bytes()
    with pytest.raises(BadInput, match="which is here"):
        install(place, read_signed(chain.read_bytes(), root.crl(revoked=first).read_bytes()), now())
    assert (place.authority / "root.crl.pem").read_bytes() == before
    assert not waits(place.authority)


@openssl_needed
def test_a_rotation_without_the_roots_key_says_so(place: Place, root: OfflineRoot):
    """Before anything is begun."""
    import_root(place, DEFAULT, root.pem.read_bytes(), key_of(root), now())
    with pytest.raises(BadInput, match="root's key is not here"):
        Generations(place.authority, DOMAIN, None).check_root(1)


@pytest.mark.parametrize("kind", [KeyKind.P384, KeyKind.RSA2048, KeyKind.ED25519])
def test_a_rotation_keeps_the_kinds_of_keys_and_the_limits(place: Place, kind: KeyKind):
    """The next issuing CA is bound as the one before, and its key is no weaker."""
    limits = permitted(DOMAIN, ["internal"])
    generate(place, Wanted(key=kind, constraints=limits), kind, now())
    generations = Generations(place.authority, DOMAIN, None)
    rows = generations.first(now())
    generations.settle(rows)
    for number, root in ((2, 1), (3, 3)):
        coming = rotation.Generation(number=number, root=root, before=1, stage=Stage.PREPARED, since=now())
        generations.make(coming, (*rows, coming), now())
    nodes = graph(place.authority)
    assert len({(node.key_kind, node.curve, node.key_bits) for node in nodes}) == 1
    assert {node.constraints for node in nodes if node.kind == "issuing"} == {str(limits)}


@tokens.NEEDED
def test_a_rotation_puts_no_file_in_the_place_of_a_token(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A key in a file would be weaker than the one that it follows: it is refused, and nothing is made."""
    token = tokens.new_token(tmp_path / "token", monkeypatch)
    token.make("p256", "issuing")
    generate(place, Wanted(key=parse_token_uri(token.uri("issuing"))), KeyKind.P256, now())
    generations = Generations(place.authority, DOMAIN, None)
    rows = generations.first(now())
    coming = rotation.Generation(number=2, root=1, before=1, stage=Stage.PREPARED, since=now())
    with pytest.raises(BadInput, match="lies in a token"):
        generations.make(coming, (*rows, coming), now())
    assert not list(place.authority.rglob("0002"))
    token.make("p384", "next", 2)
    prepare(place, Wanted(key=parse_token_uri(token.uri("next"))), now())
    generations.make(coming, (*rows, coming), now())
    assert [node.key_place for node in graph(place.authority)] == ["open", "token", "token"]
    close(generations._open(1, 1).signer)


def test_the_next_issuing_ca_can_be_chosen_once(place: Place):
    """Another kind of key and other limits than a rotation would take by itself."""
    generate(place, DEFAULT, KeyKind.P256, now())
    limits = permitted(DOMAIN, ["internal"])
    prepare(place, Wanted(key=KeyKind.P384, constraints=limits), now())
    with pytest.raises(BadInput, match="waits for a rotation already"):
        prepare(place, DEFAULT, now())
    generations = Generations(place.authority, DOMAIN, None)
    rows = generations.first(now())
    coming = rotation.Generation(number=2, root=1, before=1, stage=Stage.PREPARED, since=now())
    generations.make(coming, (*rows, coming), now())
    assert (place.authority / "generations" / "0002" / "revoking.crl.pem").exists()
    new = graph(place.authority)[2]
    assert (new.curve, new.constraints) == ("secp384r1", str(limits))


def test_an_issuing_ca_that_waits_is_of_the_root_that_rotates(place: Place):
    """One that another root signed is never put below this one."""
    generate(place, DEFAULT, KeyKind.P256, now())
    prepare(place, DEFAULT, now())
    generate(Place(data=place.data / "other", trust_domain=DOMAIN), DEFAULT, KeyKind.P256, now())
    shutil.copy(place.data / "other" / "authority" / "root.pem", place.authority / "signed" / "root.pem")
    generations = Generations(place.authority, DOMAIN, None)
    rows = generations.first(now())
    coming = rotation.Generation(number=2, root=1, before=1, stage=Stage.PREPARED, since=now())
    with pytest.raises(BadInput, match="of another root"):
        generations.make(coming, (*rows, coming), now())
