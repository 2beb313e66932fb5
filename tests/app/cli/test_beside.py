from __future__ import annotations

from pathlib import Path

import pytest

from handfast.access.world_file import parse_world
from handfast.app.cli.beside import with_files
from handfast.app.cli.worlds import read_world
from handfast.base.refusal import BadInput
from tests.support.partners import crl, partner, roots_pem

ACME = partner("Acme")
WORLD = """\
trust_domain: example.org
authorities:
  acme:
    roots: keys/acme.pem   # the whole chain
    hosts: [a.test]
    revocation: {crl: acme.crl}
    identities: [{match: {common_name: "*"}, identity: "acme/{common_name}"}]
hosts:
  a.test: {listen: 8443, clients: {trust: [acme]}, routes: [{path: /, upstream: "http://a", allow: ["acme/*"]}]}
"""


@pytest.fixture
def world(tmp_path: Path) -> Path:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "acme.pem").write_text(roots_pem(ACME))
    (tmp_path / "acme.crl").write_bytes(crl(ACME.issuing, (5,)))
    path = tmp_path / "handfast.yaml"
    path.write_text(WORLD)
    return path


def test_files_beside_become_part_of_it(world: Path):
    """PEM and DER, from the world file's directory; the document stands alone, and keeps its comments."""
    text = read_world(world)
    acme = parse_world(text).authorities["acme"]
    assert len(acme.cas) == 2
    assert acme.revocation
    assert "BEGIN X509 CRL" in acme.revocation.pem
    assert "# the whole chain" in text


def test_nothing_but_certificates_leaves(world: Path):
    """A key that lies in the same file stays where it is."""
    (world.parent / "keys" / "acme.pem").write_text(ACME.issuing.key_pem.decode() + roots_pem(ACME) + "notes")
    text = with_files(WORLD, world)
    assert "PRIVATE" not in text
    assert "notes" not in text


@pytest.mark.parametrize(
    ("name", "octets"),
    [("keys/acme.pem", b"words"), ("keys/acme.pem", None), ("acme.crl", b"words"), ("acme.crl", b"x" * 600_000)],
)
def test_a_bad_file_is_named(world: Path, name: str, octets: bytes | None):
    """With the world file's own line."""
    path = world.parent / name
    path.unlink() if octets is None else path.write_bytes(octets)
    with pytest.raises(BadInput) as caught:
        read_world(world)
    assert (caught.value.file, caught.value.line) == (str(world), 4 if "pem" in name else 6)
    assert name in caught.value.message
