"""Authorities that follow one another, on a real disk."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from handfast.base.refusal import BadInput, Unavailable
from handfast.base.spiffe import TrustDomain
from handfast.io import files
from handfast.io.authorities import create_authority
from handfast.io.generations import Generations
from handfast.io.roots import ISSUING_LIFE, ROOT_LIFE
from handfast.io.sealed import Passphrase, is_sealed
from handfast.trust import rotation
from handfast.trust.facts import facts, pem_certificates
from handfast.trust.rotation import Generations as Rows
from handfast.trust.rotation import Stage, Step, Verb
from tests.support.clock import START, FakeClock

DOMAIN = TrustDomain("example.org")
PASSPHRASE = Passphrase(b"correct horse battery staple")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Give an authority of the first layout."""
    create_authority(tmp_path / "authority", DOMAIN, FakeClock(), PASSPHRASE)
    return tmp_path / "authority"


def opened(directory: Path) -> Generations:
    one = Generations(directory, DOMAIN, PASSPHRASE)
    one.settle(one.first(START))
    return one


def prepared(one: Generations, *, root: bool = False, compromised: bool = False) -> Rows:
    rows = rotation.begin(one.rows, START, root=root, compromised=compromised)
    assert isinstance(rows, tuple)
    return rows


def gone(one: Generations, *verbs: Verb, root: bool = False, compromised: bool = False) -> Rows:
    """Go these steps of a rotation from 1 to 2."""
    rows = prepared(one, root=root, compromised=compromised)
    rows = one.make(rows[-1], rows, START)
    for verb in verbs:
        rows = rotation.taken(rows, Step(verb, 1 if verb is Verb.RETIRE else 2), START)
        one.settle(rows)
    return rows


def names(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def certificate(der: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(der)


def test_the_first_layout_is_the_first_generation(directory: Path):
    """Nothing is written, and what it gives is what there was."""
    before = names(directory)
    one = opened(directory)
    (row,) = one.rows
    assert (row.number, row.root, row.before, row.stage) == (1, 1, 0, Stage.ISSUING)
    assert one.current.issuer_facts.key_id.hex() == row.issuer
    assert pem_certificates(one.current.bundle_pem) == (one.current.root_der,)
    assert one.delivered[0].issuing_der == one.current.issuing_der
    assert names(directory) == before


def test_a_new_issuing_authority_is_under_the_root_that_there_is(directory: Path):
    """Its own key, sealed; as long as ever; and a list of the root that revokes the one before, for when it is needed."""
    one = opened(directory)
    rows = gone(one, Verb.PUBLISH)
    new, old = one.delivered[1], one.current
    certificate(new.issuing_der).verify_directly_issued_by(certificate(old.root_der))
    assert new.issuer_facts.key_id != old.issuer_facts.key_id
    assert rows[1].window
    assert rows[1].window.length == ISSUING_LIFE
    assert one.roots == (old.root_der,)
    place = directory / "generations" / "0002"
    assert names(place) == {"issuing.pem", "issuing-key.pem", "ocsp.pem", "ocsp-key.pem", "revoking.crl.pem"}
    assert is_sealed((place / "issuing-key.pem").read_bytes())
    assert (place / "issuing-key.pem").stat().st_mode & 0o777 == 0o600
    assert place.stat().st_mode & 0o777 == 0o700


def test_a_new_root_is_delivered_beside_the_old_one_and_issues_after_the_switch(directory: Path):
    """Chain and bundle are of one moment: at each of them the bundle verifies the chain."""
    one = opened(directory)
    old = one.current
    gone(one, Verb.PUBLISH, root=True)
    assert len(pem_certificates(one.current.bundle_pem)) == 2
    assert one.current.issuing_der == old.issuing_der
    one.settle(rotation.taken(one.rows, Step(Verb.SWITCH, 2), START))
    new = one.current
    assert new.issuing_der != old.issuing_der
    assert set(pem_certificates(new.bundle_pem)) == {old.root_der, new.root_der}
    certificate(new.issuing_der).verify_directly_issued_by(certificate(new.root_der))
    assert one.known_cas[:2] == (old.root_der, new.root_der)
    assert len(one.known_cas) == len(one.root_crls()) + len(one.delivered) == 4
    one.settle(rotation.taken(one.rows, Step(Verb.RETIRE, 1), START))
    assert one.roots == (new.root_der,)


def test_each_root_has_one_list_that_verifies(directory: Path):
    """Envoy wants a list for every authority in a chain, and one of a wrong key breaks them all."""
    one = opened(directory)
    gone(one, Verb.PUBLISH, root=True)
    for text, root in zip(one.root_crls(), one.roots, strict=True):
        listed = x509.load_pem_x509_crl(text.encode())
        key = certificate(root).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert listed.is_signature_valid(key)
        assert len(listed) == 0


def test_what_is_retired_keeps_no_key(directory: Path):
    """The issuing key goes with the stage; the root's goes with its last authority. Certificates stay, and so does all else."""
    one = opened(directory)
    gone(one, Verb.PUBLISH, Verb.SWITCH, root=True)
    before = names(directory)
    one.settle(rotation.taken(one.rows, Step(Verb.RETIRE, 1), START))
    assert before - names(directory) == {"issuing-key.pem", "ocsp-key.pem", "root-key.pem"}
    again = Generations(directory, DOMAIN, PASSPHRASE)
    again.settle(one.rows)
    assert again.current.issuing_der == one.current.issuing_der


def test_a_root_that_is_needed_keeps_its_key(directory: Path):
    """The next issuing authority is under it, too."""
    one = opened(directory)
    before = names(directory)
    gone(one, Verb.PUBLISH, Verb.SWITCH, Verb.RETIRE)
    assert before - names(directory) == {"issuing-key.pem", "ocsp-key.pem"}
    one.check_root(1)


def test_a_compromised_authority_ends_on_its_roots_list(directory: Path):
    """Also with the root's key back in the safe: the list was signed when the next authority was."""
    one = opened(directory)
    old, answering = facts(one.current.issuing_der), facts(pem_certificates((directory / "ocsp.pem").read_text())[0])
    rows = gone(one, Verb.PUBLISH, Verb.SWITCH, compromised=True)
    (directory / "root-key.pem").unlink()
    assert not one.revoked(START)
    assert len(x509.load_pem_x509_crl(one.root_crls()[0].encode())) == 0
    one.settle(rotation.taken(rows, Step(Verb.RETIRE, 1), START))
    assert one.revoked(START)
    assert not one.revoked(old.window.not_after)
    (text,) = one.root_crls()
    listed = x509.load_pem_x509_crl(text.encode())
    assert {f"{entry.serial_number:040x}" for entry in listed} == {old.serial, answering.serial}
    assert listed.next_update_utc == certificate(one.current.root_der).not_valid_after_utc
    assert not one.accepts(old.ski)
    assert one.accepts(one.current.issuer_facts.key_id.hex())


def test_without_the_roots_key_no_issuing_authority_begins(directory: Path):
    """The file is named, and what to do; a new root needs no old key."""
    one = opened(directory)
    (directory / "root-key.pem").unlink()
    with pytest.raises(BadInput) as caught:
        one.check_root(1)
    assert caught.value.file.endswith("root-key.pem")
    with pytest.raises(BadInput):
        gone(one)
    assert not (directory / "generations" / "0002").exists()
    gone(one, Verb.PUBLISH, root=True)


def test_an_issuing_authority_does_not_outlive_its_root(directory: Path):
    """Nine and a half years later it gets half a year."""
    one, late = opened(directory), START + ROOT_LIFE - timedelta(days=180)
    rows = prepared(one)
    rows = one.make(rows[-1], rows, late)
    assert rows[1].window
    assert rows[1].root_window
    assert rows[1].window.not_after == rows[1].root_window.not_after


def test_making_one_again_changes_nothing(directory: Path):
    """What a crash between files and ledger left is what counts then."""
    one = opened(directory)
    rows = gone(one)
    place = directory / "generations" / "0002"
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    again = opened_beside(directory, rows[:1])
    assert again.make(rows[1], rows, START + timedelta(days=1)) == rows
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


def opened_beside(directory: Path, rows: Rows) -> Generations:
    one = Generations(directory, DOMAIN, PASSPHRASE)
    one.settle(rows)
    return one


@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("step", range(5))
def test_making_one_that_ends_half_way_leaves_nothing_that_counts(
    directory: Path, monkeypatch: pytest.MonkeyPatch, step: int, root: bool
):
    """After each file, and with a process that cleared nothing up: the next call makes a whole one."""
    one, write, written = opened(directory), files.write, list[Path]()
    rows = prepared(one, root=root)

    def failing(path: Path, data: bytes, mode: int = 0o644) -> None:
        if len(written) == min(step, 4 if root else 2):
            raise KeyboardInterrupt
        write(path, data, mode)
        written.append(path)

    monkeypatch.setattr(files, "write", failing)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(KeyboardInterrupt):
        one.make(rows[-1], rows, START)
    monkeypatch.undo()
    assert not (directory / "generations" / "0002").exists()
    rows = one.make(rows[-1], rows, START)
    one.settle(rotation.taken(rows, Step(Verb.PUBLISH, 2), START))
    assert [path.name for path in (directory / "generations").iterdir()] == ["0002"]


def test_a_process_killed_while_making_one_leaves_the_old_one_whole(directory: Path):
    """A real kill, just before the rename."""
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests.io.test_generations import opened, gone\n"
        "one = opened(Path(sys.argv[1]))\n"
        "Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "gone(one)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(directory)], check=False, cwd=Path(__file__).parents[2],
                          env={**os.environ, "PYTHONPATH": "."})  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    one = Generations(directory, DOMAIN, PASSPHRASE)
    one.settle(opened_rows(directory))
    gone(one, Verb.PUBLISH)
    assert [path.name for path in (directory / "generations").iterdir()] == ["0002"]


def opened_rows(directory: Path) -> Rows:
    """Give what the ledger would know: it was told of the first generation before anything was made."""
    one = Generations(directory, DOMAIN, PASSPHRASE)
    (directory / "generations").rename(directory / "aside")
    rows = one.first(START)
    (directory / "aside").rename(directory / "generations")
    return rows


def test_files_that_the_ledger_does_not_know_are_refused(directory: Path):
    """A ledger from before a rotation would go on with keys that are retired, and bundles that lack a root."""
    one = opened(directory)
    gone(one, Verb.PUBLISH, Verb.SWITCH)
    with pytest.raises(BadInput, match="knows nothing of it"):
        Generations(directory, DOMAIN, PASSPHRASE).first(START)


def test_a_server_that_lacks_the_newest_files_issues_nothing(directory: Path, tmp_path: Path):
    """Several servers share a ledger; one whose directory is behind would give out bundles without the new root."""
    shutil.copytree(directory, tmp_path / "other")
    one, other = opened(directory), opened(tmp_path / "other")
    rows = gone(one, Verb.PUBLISH, root=True)
    with pytest.raises(BadInput) as caught:
        other.settle(rows)
    assert "0002" in caught.value.file
    with pytest.raises(Unavailable, match="0002"):
        _ = other.current
    shutil.copytree(directory / "generations", tmp_path / "other" / "generations")
    other.settle(rows)
    assert other.current.bundle_pem == one.current.bundle_pem


def test_another_authority_in_a_generations_place_is_refused(directory: Path):
    """Whoever can put files there does not become the issuer: the ledger knows the key."""
    one = opened(directory)
    rows = gone(one)
    swapped = (rows[0], replace(rows[1], issuer="00" * 20))
    with pytest.raises(BadInput, match="not the authority that the ledger knows"):
        opened_beside(directory, rows[:1]).settle(rotation.taken(swapped, Step(Verb.PUBLISH, 2), START))
