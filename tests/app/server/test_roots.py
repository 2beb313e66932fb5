"""A running control plane whose root is elsewhere, in a token, or not directly above what issues."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from handfast.access.slice import parse_slice
from handfast.app.server.callers import Role
from handfast.app.server.messages import RevocationRequest
from handfast.app.server.rotation_messages import AuthoritiesAnswer, RotationForce, RotationRequest
from handfast.base.refusal import BadInput
from handfast.base.spiffe import TrustDomain
from handfast.io.authority_sources import Place, generate, prepare
from handfast.io.ca_certificates import DEFAULT, Wanted
from handfast.io.signed_chains import ask, install, read_signed
from handfast.io.signers import KeyKind
from handfast.io.token_uri import parse_token_uri
from handfast.trust.facts import facts, pem_certificates
from handfast.trust.rotation import SETTLE
from tests.app.server import rotations
from tests.app.server.rotations import ROTATION, stages
from tests.app.server.status_sites import status_site
from tests.app.sites import DOMAIN, Site, site
from tests.support import tokens
from tests.support.clock import FakeClock
from tests.support.offline_root import OfflineRoot, offline_root, openssl

pytestmark = [pytest.mark.debian("openssl"), pytest.mark.usefixtures("timeless_tls")]


def ahead() -> FakeClock:
    """Give a clock that is a little ahead of the machine's, by which openssl signs."""
    return FakeClock(datetime.now(UTC) + timedelta(minutes=10))


def place_in(directory: Path) -> Place:
    return Place(data=directory, trust_domain=TrustDomain(DOMAIN))


async def installed(place: Place, root: OfflineRoot, now: datetime) -> None:
    """Request, have it signed elsewhere, install."""
    csr = root.directory / "issuing.csr"
    csr.write_text(await ask(place, DEFAULT))
    install(place, read_signed(root.sign(csr).read_bytes(), root.crl().read_bytes()), now, root.fingerprint)


async def rotate(here: Site, *, root: bool) -> list[str]:
    return stages(await rotations.rotate(here, root=root))


async def settled(here: Site) -> list[str]:
    return stages(await rotations.settled(here))


async def verified(here: Site, directory: Path) -> None:
    """Have openssl verify a new leaf by the bundle that came with it, and the API take it."""
    issued = await here.issue("payments")
    (directory / "leaf.pem").write_text(issued.chain_pem)
    (directory / "bundle.pem").write_text(issued.bundle_pem)
    leaf = directory / "leaf.pem"
    at = str(int(here.clock.now().timestamp()))
    openssl("verify", "-x509_strict", "-attime", at, "-CAfile", directory / "bundle.pem", "-untrusted", leaf, leaf)
    assert (await here.holder(issued).send("GET", "/v1/authority")).status_code == 200


async def test_a_new_offline_root_follows_the_one_that_runs(tmp_path: Path):
    """Signed elsewhere while the server runs; a restart in between; forced past who holds it up; no key of it is ever here."""
    data, clock, root = tmp_path / "data", ahead(), offline_root(tmp_path / "safe")
    async with site(data, clock) as here:
        old = here.server.platform.authority
        await here.issue("payments")
        await installed(place_in(data), root, clock.now())
        with pytest.raises(BadInput, match="of another root"):
            await rotate(here, root=False)
        assert await rotate(here, root=True) == ["issuing", "published"]
        assert len(pem_certificates(here.bundle)) == 2
        assert here.server.platform.authority.issuing_der == old.issuing_der
    async with site(data, clock) as here:
        assert (await settled(here))[1] == "published"
        seen = await here.operator.call("GET", "/v1/authorities", AuthoritiesAnswer)
        (held,) = seen.waiting
        strands = RotationForce(strands=held.strands)
        assert stages(await here.operator.call("POST", f"{ROTATION}/force", AuthoritiesAnswer, strands))[1] == "issuing"
        new = here.server.platform.authority
        assert new.root_der == pem_certificates(root.pem.read_text())[0]
        await verified(here, tmp_path)
        assert [path.parent.name for path in data.rglob("root-key*")] == ["authority"]


async def test_there_is_a_way_back_from_a_new_offline_root(tmp_path: Path):
    """Before the switch and after it: the old root needs no key for that."""
    data, clock, root = tmp_path / "data", ahead(), offline_root(tmp_path / "safe")
    async with site(data, clock) as here:
        old = here.server.platform.authority
        (data / "authority" / "root-key.pem").unlink()
        await installed(place_in(data), root, clock.now())
        await rotate(here, root=True)
        answer = await here.operator.call("DELETE", ROTATION, AuthoritiesAnswer)
        assert stages(answer) == ["issuing", "retiring"]
        assert (await settled(here)) == ["issuing", "retired"]
        assert here.server.platform.authority.bundle_pem == old.bundle_pem
        await installed(place_in(data), offline_root(tmp_path / "another", name="Another Root"), clock.now())
        await rotate(here, root=True)
        here.clock.set(here.clock.now() + 2 * SETTLE)
        await here.issue("payments")  # it comes with both roots, and depends on the old one
        assert await settled(here) == ["retiring", "retired", "issuing"]
        await verified(here, tmp_path)
        answer = await here.operator.call("DELETE", ROTATION, AuthoritiesAnswer)
        assert stages(answer)[0] == "issuing"
        assert here.server.platform.authority.issuing_der == old.issuing_der
        await verified(here, tmp_path)


@tokens.NEEDED
async def test_root_and_issuing_ca_in_a_token_are_rotated_while_the_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """First the issuing CA, then the root: by keys that are made in the token, and are never in a file."""
    data, clock, token = tmp_path / "data", ahead(), tokens.new_token(tmp_path / "t", monkeypatch)
    labels = ("root", "one", "two", "root2", "three")
    for number, label in enumerate(labels, 1):
        token.make("p256", label, number)
    uri = {label: parse_token_uri(token.uri(label)) for label in labels}
    place = place_in(data)
    generate(place, Wanted(key=uri["one"]), uri["root"], clock.now())
    async with site(data, clock) as here:
        await verified(here, tmp_path)
        with pytest.raises(BadInput, match="root's key lies in a token"):
            await rotate(here, root=True)
        prepare(place, Wanted(key=uri["two"]), clock.now())
        assert await rotate(here, root=False) == ["issuing", "published"]
        assert (await settled(here))[1] == "issuing"
        await verified(here, tmp_path)
        prepare(place, Wanted(key=uri["three"]), clock.now(), uri["root2"])
        assert (await rotate(here, root=True))[-1] == "published"
        assert len(pem_certificates(here.bundle)) == 2
        assert not [*data.rglob("root-key.pem"), *data.rglob("issuing-key.pem")]


async def test_a_ca_between_is_in_chains_slices_and_lists_and_not_in_the_bundle(tmp_path: Path):
    """Leaves come with both; each CA has a list as soon as anything is revoked."""
    data, clock, root = tmp_path / "data", ahead(), offline_root(tmp_path / "safe")
    policy, place = root.below(tmp_path / "policy"), place_in(data)
    csr = tmp_path / "issuing.csr"
    csr.write_text(await ask(place, Wanted(key=KeyKind.P256)))
    lists = root.crl().read_bytes() + policy.crl().read_bytes()
    signed = read_signed(policy.sign(csr).read_bytes() + root.pem.read_bytes(), lists)
    install(place, signed, clock.now(), root.fingerprint)
    async with site(data, clock) as here:
        await verified(here, tmp_path)
        issued = await here.issue("ledger")
        assert pem_certificates(issued.chain_pem)[1:] == (signed.issuing_der, *signed.between)
        assert pem_certificates(issued.bundle_pem) == (signed.root_der,)
        agent = await here.being(Role.AGENT)
        await here.operator.send("POST", "/v1/revocations", RevocationRequest(name="ledger"))
        slice_ = parse_slice((await agent.send("GET", "/v1/agents/self/world")).content)
        assert list(map(pem_certificates, slice_.roots)) == [(signed.root_der,)]
        assert pem_certificates(slice_.issuers[0]) == (signed.issuing_der, *signed.between)
        issuers = {x509.load_pem_x509_crl(text.encode()).issuer for text in slice_.crls}
        assert issuers == {x509.load_der_x509_certificate(der).subject for der in signed.chain}


async def test_each_of_two_roots_of_one_name_has_its_own_list_and_answers(tmp_path: Path):
    """A root and the next one have the same name: what is served of them is told apart by their keys."""
    async with status_site(tmp_path, ahead()) as here:
        asked = RotationRequest(root=True)
        await here.operator.call("POST", ROTATION, AuthoritiesAnswer, asked)
        await here.server.status._refresh()
        for one in here.server.platform.authorities.delivered:
            root, issuing = map(x509.load_der_x509_certificate, (one.root_der, one.issuing_der))
            key = root.public_key()
            assert isinstance(key, ec.EllipticCurvePublicKey)
            for path in (f"/crl/{facts(one.root_der).ski}/0.crl", f"/crl/above/{facts(one.issuing_der).ski}.crl"):
                assert (await here.crl(path)).is_signature_valid(key)
            above = await here.http.get(f"/ca/above/{facts(one.issuing_der).ski}.cer")
            assert above.content == one.root_der
            question = ocsp.OCSPRequestBuilder().add_certificate(issuing, root, hashes.SHA256()).build()
            answer = await here.post(question.public_bytes(Encoding.DER))
            assert answer.certificate_status is ocsp.OCSPCertStatus.GOOD
            answer.certificates[0].verify_directly_issued_by(root)
