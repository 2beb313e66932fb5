from __future__ import annotations

import shutil
import stat
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal, Refused
from handfast.io import sealed
from handfast.io.authorities import open_authority
from handfast.io.authority_graph import graph, roots_here
from handfast.io.authority_sources import Place, generate, import_root, prepare
from handfast.io.ca_certificates import DEFAULT, Wanted
from handfast.io.generations import Generations
from handfast.io.key_places import close
from handfast.io.next_authority import waits
from handfast.io.signers import KeyKind, new_authority_key
from handfast.io.token_uri import parse_token_uri
from handfast.trust import leaf, rotation
from handfast.trust.constraints import permitted
from handfast.trust.facts import facts, pem
from handfast.trust.plan import LeafPlan, plan, serial_from
from handfast.trust.rotation import Stage
from tests.io.authority_parts import (
    DOMAIN,
    PASSPHRASE,
    key_of,
    now,
    opened,
    openssl_needed,
    openssl_verifies,
)
from tests.support import tokens
from tests.support.offline_root import OfflineRoot, offline_root, openssl
from tests.trust.material import request

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
        "ocsp.pem",
        "ocsp-key.pem",
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
def test_nothing_replaces_an_authority_that_is_there(place: Place, root: OfflineRoot):
    """Neither made nor imported."""
    generate(place, DEFAULT, KeyKind.P256, now())
    before = {path.name: path.read_bytes() for path in place.authority.iterdir()}
    with pytest.raises(BadInput, match="already"):
        generate(place, DEFAULT, KeyKind.P256, now())
    with pytest.raises(BadInput, match="already"):
        import_root(place, DEFAULT, root.pem.read_bytes(), key_of(root), now())
    assert {path.name: path.read_bytes() for path in place.authority.iterdir()} == before


def test_a_long_lived_issuing_ca_ends_with_its_root(place: Place, tmp_path: Path):
    """A chain whose root has ended is refused, whatever the rest says."""
    short = offline_root(tmp_path / "root", days=30)
    import_root(place, DEFAULT, short.pem.read_bytes(), key_of(short), now())
    made = opened(place)
    assert facts(made.issuing_der).window.not_after == facts(made.root_der).window.not_after


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


# --- a root's key in a token


@tokens.NEEDED
@openssl_needed
@pytest.mark.parametrize("kind", ["p256", "rsa2048"])
async def test_both_keys_in_a_token(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    """Made with them, and rotated with them: no key of a CA is ever in a file, and openssl verifies what each signed."""
    token = tokens.new_token(tmp_path / "token", monkeypatch)
    for number, label in enumerate(("root", "issuing", "next", "root2", "issuing2"), 1):
        token.make(kind, label, number)
    uri = {label: parse_token_uri(token.uri(label)) for label in ("root", "issuing", "next", "root2", "issuing2")}
    generate(place, Wanted(key=uri["issuing"]), uri["root"], now())
    await openssl_verifies(place, tmp_path, "payments.internal")
    assert {node.kind: node.key_place for node in graph(place.authority)} == {"root": "token", "issuing": "token"}
    generations = Generations(place.authority, DOMAIN, None)
    rows = generations.first(now())
    generations.settle(rows)
    generations.check_root(1)

    prepare(place, Wanted(key=uri["next"]), now())
    second = rotation.Generation(number=2, root=1, before=1, stage=Stage.PREPARED, since=now())
    rows = generations.make(second, (*rows, second), now())
    assert (place.authority / "generations" / "0002" / "revoking.crl.pem").exists()

    third = rotation.Generation(number=3, root=3, before=1, stage=Stage.PREPARED, since=now())
    with pytest.raises(BadInput, match="the root's key lies in a token"):
        generations.check_root(3)
    with pytest.raises(BadInput, match="the root's key lies in a token"):
        generations.make(third, (*rows, third), now())
    with pytest.raises(BadInput, match="in use here already"):
        prepare(place, Wanted(key=uri["issuing2"]), now(), uri["root"])
    prepare(place, Wanted(key=uri["issuing2"]), now(), uri["root2"])
    generations.check_root(3)
    generations.make(third, (*rows, third), now())
    assert not waits(place.authority)
    made = place.authority / "generations" / "0003"
    openssl("verify", "-CAfile", made / "root.pem", made / "issuing.pem")
    assert not list(place.data.rglob("root-key.pem")) + list(place.data.rglob("issuing-key.pem"))
    for one in generations._opened.values():
        close(one.signer)


@tokens.NEEDED
@openssl_needed
async def test_an_imported_root_whose_key_lies_in_a_token(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Where it lies is noted only if that is asked for; then a rotation can use it."""
    token = tokens.new_token(tmp_path / "token", monkeypatch)
    for number, label in enumerate(("root", "issuing", "other"), 1):
        token.make("p384" if label == "root" else "p256", label, number)
    elsewhere = Place(data=tmp_path / "elsewhere", trust_domain=DOMAIN)
    generate(elsewhere, Wanted(), parse_token_uri(token.uri("root")), now())
    certificate, uri = (elsewhere.authority / "root.pem").read_bytes(), parse_token_uri(token.uri("root"))
    with pytest.raises(BadInput, match="not the root's"):
        import_root(place, DEFAULT, certificate, parse_token_uri(token.uri("other")), now())
    import_root(place, DEFAULT, certificate, uri, now())
    await openssl_verifies(place, tmp_path, "payments.internal")
    with pytest.raises(BadInput, match="root's key is not here"):
        Generations(place.authority, DOMAIN, None).check_root(1)
    kept = Place(data=tmp_path / "kept", trust_domain=DOMAIN)
    import_root(kept, DEFAULT, certificate, uri, now(), keep_key=True)
    Generations(kept.authority, DOMAIN, None).check_root(1)
    assert stat.S_IMODE((kept.authority / "root-key.uri").stat().st_mode) == 0o600


@tokens.NEEDED
def test_a_root_whose_token_is_away_or_has_another_key_signs_nothing(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A rotation is refused before it begins; what issues goes on, as the root is not needed for it."""
    token = tokens.new_token(tmp_path / "token", monkeypatch)
    token.make("p256", "root")
    token.make("p256", "other", 2)
    generate(place, DEFAULT, parse_token_uri(token.uri("root")), now())
    generations = Generations(place.authority, DOMAIN, None)
    generations.settle(generations.first(now()))
    (place.authority / "root-key.uri").write_text(token.uri("other"))
    with pytest.raises(BadInput, match="not the one in"):
        generations.check_root(1)
    (place.authority / "root-key.uri").write_text(token.uri("gone"))
    with pytest.raises(BadInput, match="private key"):
        generations.check_root(1)
    assert generations.current.issuing_der
    (place.authority / "root-key.uri").chmod(0o644)
    with pytest.raises(BadInput, match="others can read"):
        open_authority(place.authority, DOMAIN, None)


# --- a new root by hand


def test_a_new_root_can_be_chosen_for_a_rotation(place: Place):
    """With another kind of key; a rotation of the root takes it instead of making one."""
    generate(place, DEFAULT, KeyKind.P256, now())
    prepare(place, DEFAULT, now(), KeyKind.P384)
    assert roots_here(place.authority) == {opened(place).root_der}
    generations = Generations(place.authority, DOMAIN, None)
    rows = generations.first(now())
    generations.settle(rows)
    coming = rotation.Generation(number=2, root=2, before=1, stage=Stage.PREPARED, since=now())
    generations.make(coming, (*rows, coming), now())
    new = graph(place.authority)[2]
    assert (new.kind, new.curve, new.key_place) == ("root", "secp384r1", "open")
    assert not waits(place.authority)
