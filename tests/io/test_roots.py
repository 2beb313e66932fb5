"""What a root signs, beside what the tests of authorities and generations look at."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from handfast.base.refusal import BadInput
from handfast.base.spiffe import TrustDomain
from handfast.io import key_places, roots
from handfast.io.authority_files import read_certificate
from handfast.io.ca_certificates import DEFAULT, Wanted
from handfast.io.roots import ROOT_LIFE
from handfast.io.sealed import Passphrase, is_sealed
from handfast.trust.addresses import StatusSite
from handfast.trust.delegation import judge_responder
from handfast.trust.facts import facts, load
from tests.support.clock import START

DOMAIN = TrustDomain("example.org")
SITE = StatusSite("http://status.example.org")
PASSPHRASE = Passphrase(b"correct horse battery staple")


def made(directory: Path, wanted: Wanted = DEFAULT, later: timedelta = timedelta()) -> Path:
    with closing(roots.make_root(directory, DOMAIN, START, PASSPHRASE)) as root:
        roots.make_issuing(directory, root, START + later, PASSPHRASE, wanted)
    return directory


def test_who_answers_for_a_root_is_fit_as_one_from_elsewhere_has_to_be(tmp_path: Path):
    """By the same judgement; its key is sealed as the others are."""
    made(tmp_path)
    root, issuing, responder = (read_certificate(tmp_path / f"{name}.pem") for name in ("root", "issuing", "ocsp"))
    public = key_places.open_signer(tmp_path, PASSPHRASE, key_places.RESPONDER)[0].public_key_der
    assert judge_responder(responder, issuing, root, public, START) is None
    assert is_sealed((tmp_path / "ocsp-key.pem").read_bytes())


def test_neither_the_issuing_ca_nor_who_answers_outlives_the_root(tmp_path: Path):
    """Half a year before its end they get half a year."""
    made(tmp_path, later=ROOT_LIFE - timedelta(days=180))
    ends = {facts(read_certificate(tmp_path / f"{name}.pem")).window.not_after for name in ("root", "issuing", "ocsp")}
    assert len(ends) == 1


def test_the_issuing_ca_names_its_status_by_its_own_key(tmp_path: Path):
    """Where the operator says where that is, and else nowhere; a root and who answers for it name none."""
    made(tmp_path, Wanted(site=SITE))
    issuing = read_certificate(tmp_path / "issuing.pem")
    points = load(issuing).extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    (name,) = points[0].full_name or ()
    assert name.value == f"{SITE.url}/crl/above/{facts(issuing).ski}.crl"
    (tmp_path / "plain").mkdir()
    for path in (tmp_path / "root.pem", tmp_path / "ocsp.pem", made(tmp_path / "plain") / "issuing.pem"):
        kinds = {type(one.value) for one in load(read_certificate(path)).extensions}
        assert not kinds & {x509.CRLDistributionPoints, x509.AuthorityInformationAccess}


def test_a_root_with_another_key_is_not_opened(tmp_path: Path):
    """Its certificate is not its own then; the file is named."""
    (tmp_path / "other").mkdir()
    made(tmp_path)
    made(tmp_path / "other")
    (tmp_path / "root-key.pem").write_bytes((tmp_path / "other" / "root-key.pem").read_bytes())
    with pytest.raises(BadInput, match="not the one in") as caught:
        roots.open_root(tmp_path, DOMAIN, PASSPHRASE)
    assert caught.value.file.endswith("root-key.pem")
