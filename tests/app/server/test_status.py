from __future__ import annotations

import asyncio
import base64
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st

from handfast.app.server.status import StatusConfig
from handfast.app.server.status_pages import Pages, Sources
from handfast.base.refusal import BadInput, Unavailable
from handfast.base.windows import whole_second
from handfast.io.credentials import Credential
from handfast.io.ledger.status import StatusTable
from handfast.io.lists import CHANGES_EVERY
from handfast.trust.addresses import shard_of
from handfast.trust.facts import facts, hex_serial
from handfast.trust.ocsp import MAX_REQUEST_BYTES
from tests.app.server.status_sites import StatusSite, leaf_of, status_site
from tests.app.server.test_rotation import rotate, settled
from tests.app.sites import Site, raw
from tests.support.clock import FakeClock

UNAUTHORIZED = ocsp.OCSPResponseStatus.UNAUTHORIZED
MALFORMED = ocsp.OCSPResponseStatus.MALFORMED_REQUEST


async def until_listed(here: StatusSite, path: str, count: int) -> x509.CertificateRevocationList:
    async with asyncio.timeout(5):
        while len(listed := await here.crl(path)) != count:
            await asyncio.sleep(0.01)
    return listed


async def test_certificates_name_what_is_served(tmp_path: Path):
    """Each address in a leaf leads to what it promises."""
    async with status_site(tmp_path) as here:
        leaf = leaf_of(await here.issue("payments"))
        (point,) = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        assert point.full_name
        assert len(await here.crl(point.full_name[0].value.removeprefix("http://status.example.org"))) == 0
        found = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
        asked, issuer = (one.access_location.value.removeprefix("http://status.example.org") for one in found)
        assert asked == "/ocsp"
        got = await here.http.get(issuer)
        assert got.headers["content-type"] == "application/pkix-cert"
        assert x509.load_der_x509_certificate(got.content) == here.issuing
        assert (await here.post(here.question(leaf))).certificate_status is ocsp.OCSPCertStatus.GOOD


async def test_without_status_certificates_name_nothing_and_nothing_listens(here: Site, tmp_path: Path):
    """The platform is as it was."""
    leaf = leaf_of(await here.issue("payments"))
    assert len(list(leaf.extensions)) == 6
    assert here.server.status.address[1] == 0
    assert not (tmp_path / "status").exists()


async def test_a_revocation_is_on_the_lists_and_in_ocsp_at_once(tmp_path: Path):
    """In the complete one and among its changes."""
    async with status_site(tmp_path) as here:
        held = await here.issue("payments")
        await here.post(here.question(leaf_of(held)))
        await here.revoke(held.leaf.serial, "superseded")
        answer = await here.post(here.question(leaf_of(held)))
        assert (answer.certificate_status, answer.revocation_reason) == (
            ocsp.OCSPCertStatus.REVOKED,
            x509.ReasonFlags.superseded,
        )
        for path in (f"/crl/{here.key_id}/0.crl", f"/crl/{here.key_id}/0-delta.crl"):
            listed = await until_listed(here, path, 1)
            assert listed.get_revoked_certificate_by_serial_number(leaf_of(held).serial_number)


async def test_the_roots_list_and_certificate_are_served(tmp_path: Path):
    """A chain is checked up to the root, with a list of each CA."""
    async with status_site(tmp_path) as here:
        authority = here.server.platform.authority
        root = facts(authority.root_der).ski
        listed = await here.crl(f"/crl/{root}/0.crl")
        assert listed == x509.load_pem_x509_crl(authority.root_crl_pem.encode())
        assert (await here.http.get(f"/ca/{root}.cer")).content == authority.root_der


async def test_a_list_is_kept_by_caches_until_the_next_one(tmp_path: Path):
    """With both validators; HEAD gives the same without the body."""
    async with status_site(tmp_path) as here:
        path = f"/crl/{here.key_id}/0.crl"
        got, head = await here.http.get(path), await here.http.head(path)
        listed = x509.load_der_x509_crl(got.content)
        left = (listed.next_update_utc - here.clock.now()).total_seconds()  # type: ignore[operator]
        assert got.headers["cache-control"] == f"max-age={int(left)}, public, no-transform, must-revalidate"
        assert parsedate_to_datetime(got.headers["expires"]) == listed.next_update_utc
        assert parsedate_to_datetime(got.headers["last-modified"]) == whole_second(here.clock.now())
        assert len(got.headers.get_list("date")) == 1
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(got.content)))
        for name, value, status in (
            ("if-none-match", got.headers["etag"], 304),
            ("if-none-match", f'"x", W/{got.headers["etag"]}', 304),
            ("if-none-match", "*", 304),
            ("if-none-match", '"x"', 200),
            ("if-modified-since", got.headers["last-modified"], 304),
            ("if-modified-since", "Thu, 01 Jan 1970 00:00:00 GMT", 200),
            ("if-modified-since", "nonsense", 200),
        ):
            again = await here.http.get(path, headers={name: value})
            assert (again.status_code, bool(again.content)) == (status, status == 200), (name, value)
            assert again.headers["etag"] == got.headers["etag"]


async def test_ocsp_by_get_is_kept_by_caches(tmp_path: Path):
    """RFC 5019 section 6.2: until the answer's end; and a client that has it gets nothing again."""
    async with status_site(tmp_path) as here:
        question = here.question(leaf_of(await here.issue("payments")))
        got = await here.get(question)
        answer = ocsp.load_der_ocsp_response(got.content)
        assert answer.certificate_status is ocsp.OCSPCertStatus.GOOD
        assert parsedate_to_datetime(got.headers["expires"]) == answer.next_update_utc
        assert parsedate_to_datetime(got.headers["last-modified"]) == answer.produced_at_utc
        left = int(got.headers["cache-control"].split(",")[0].removeprefix("max-age="))
        assert 3598 <= left <= 3600
        assert (await here.get(question, **{"if-none-match": got.headers["etag"]})).status_code == 304
        assert (await here.get(question)).content == got.content


async def test_an_answer_with_a_nonce_is_kept_by_nobody(tmp_path: Path):
    """Nor is one that was asked for by POST, or that says nothing."""
    async with status_site(tmp_path) as here:
        leaf = leaf_of(await here.issue("payments"))
        got = [await here.get(here.question(leaf, b"nonce")), await here.http.get("/ocsp/AAAA")]
        got.append(await here.http.post("/ocsp", content=here.question(leaf)))
        assert [one.headers["cache-control"] for one in got] == ["no-store"] * 3
        answer = ocsp.load_der_ocsp_response(got[0].content)
        assert answer.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == b"nonce"


async def test_base64_with_every_sign_is_read_from_a_path(tmp_path: Path):
    """Slashes and pluses, escaped or not: a slash in the path is one in the request."""
    async with status_site(tmp_path) as here:
        leaf = leaf_of(await here.issue("payments"))
        for nonce in (b"\xff" * 32, b"\xfb\xef\xbe" * 8):
            text = base64.b64encode(here.question(leaf, nonce)).decode()
            plain = await here.http.get(f"/ocsp/{text}")
            for got in (plain, await here.get(here.question(leaf, nonce))):
                assert ocsp.load_der_ocsp_response(got.content).response_status is ocsp.OCSPResponseStatus.SUCCESSFUL


async def away(*_: object) -> None:
    """Be a ledger that does not answer."""
    raise Unavailable("the database does not answer")


async def test_failures_are_said_in_the_clients_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever is sent, an OCSP client gets what it can read."""
    async with status_site(tmp_path) as here, status_site(tmp_path / "b", FakeClock(here.clock.now())) as other:
        leaf = leaf_of(await here.issue("payments"))
        assert (await here.post(b"")).response_status is MALFORMED
        assert (await here.post(here.question(leaf) + b"\0")).response_status is MALFORMED
        assert (await here.post(bytes(MAX_REQUEST_BYTES + 1))).response_status is MALFORMED
        assert (await here.post(other.question(leaf))).response_status is UNAUTHORIZED
        for path in ("/ocsp/!!!!", "/ocsp/", f"/ocsp/{'A' * 6000}", "/ocsp/%FF"):
            got = await here.http.get(path)
            assert ocsp.load_der_ocsp_response(got.content).response_status is MALFORMED, path
        monkeypatch.setattr(StatusTable, "standing", away)
        answer = await here.post(here.question(leaf))
        assert answer.response_status is ocsp.OCSPResponseStatus.TRY_LATER


async def test_a_serial_that_was_never_issued_is_unknown(tmp_path: Path):
    """Neither good nor revoked: extended revocation is not claimed."""
    async with status_site(tmp_path) as here:
        leaf = leaf_of(await here.issue("payments"))
        question = here.question(leaf).replace(bytes.fromhex(hex_serial(leaf.serial_number)), b"\x41" * 20)
        assert (await here.post(question)).certificate_status is ocsp.OCSPCertStatus.UNKNOWN


@pytest.mark.parametrize(
    "path", ["/", "/crl/", "/crl/00/0.crl", "/ca/00.cer", "/crl/../ocsp.pem", "/status", "/metrics"]
)
async def test_nothing_else_is_served(tmp_path: Path, path: str):
    """No path leads to a file that is not a list."""
    async with status_site(tmp_path) as here:
        assert (await here.http.get(path)).status_code == 404
        assert (await here.http.get(f"/crl/{here.key_id}/1.crl")).status_code == 404
        assert (await here.http.post(f"/crl/{here.key_id}/0.crl")).status_code == 405


async def test_lists_in_shards(tmp_path: Path):
    """A certificate's list is the one that it names; its number and address stand in it."""
    async with status_site(tmp_path, shards=3) as here:
        held = await here.issue("payments")
        shard = shard_of(held.leaf.serial, 3)
        (point,) = leaf_of(held).extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        path = f"/crl/{here.key_id}/{shard}.crl"
        assert point.full_name
        assert point.full_name[0].value == f"http://status.example.org{path}"
        await here.revoke(held.leaf.serial)
        listed = await until_listed(here, path, 1)
        place = listed.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
        assert place.full_name == point.full_name
        for other in {0, 1, 2} - {shard}:
            assert len(await here.crl(f"/crl/{here.key_id}/{other}.crl")) == 0


async def test_the_number_of_lists_stays_over_a_restart(tmp_path: Path):
    """Another one is refused before anything is issued; addresses may change, and the old ones still count."""
    async with status_site(tmp_path, shards=3) as first:
        clock = FakeClock(first.clock.now() + timedelta(seconds=1))
    with pytest.raises(BadInput, match="3 revocation lists"):
        async with status_site(tmp_path, clock, shards=2):
            pass
    async with status_site(tmp_path, clock, shards=3, url="http://other.example.org") as second:
        listed = await second.crl(f"/crl/{second.key_id}/1.crl")
        place = listed.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
        hosts = [name.value.split("/")[2] for name in place.full_name or ()]
        assert hosts == ["other.example.org", "status.example.org"]


async def test_changes_are_made_anew_as_time_goes_by(tmp_path: Path):
    """Nobody asked, and nothing was revoked."""
    async with status_site(tmp_path) as here:
        path = f"/crl/{here.key_id}/0-delta.crl"
        first = (await here.http.get(path)).headers["etag"]
        async with asyncio.timeout(5):
            while (await here.http.get(path)).headers["etag"] == first:
                await here.clock.advance(CHANGES_EVERY.total_seconds())
                await asyncio.sleep(0.01)


async def test_answers_and_lists_are_counted(tmp_path: Path):
    """By what was said."""
    async with status_site(tmp_path) as here:
        leaf = leaf_of(await here.issue("payments"))
        await here.post(here.question(leaf))
        await here.post(b"")
        host, port = here.server.admin_address
        async with httpx2.AsyncClient() as client:
            text = (await client.get(f"http://{host}:{port}/metrics")).text
        assert 'handfast_ocsp_answers_total{status="good"} 1.0' in text
        assert 'handfast_ocsp_answers_total{status="malformed-request"} 1.0' in text
        assert "handfast_revocation_lists 2.0" in text


async def test_an_address_that_cannot_be_named_does_not_start(tmp_path: Path):
    """Before an authority's first certificate could carry it."""
    with pytest.raises(BadInput, match="http://host"):
        async with status_site(tmp_path, url="https://status.example.org"):
            pass
    assert StatusConfig().site is None


async def test_the_responder_has_no_rights(tmp_path: Path):
    """What strangers make sign all day is no client of the platform: its certificate is refused in the handshake."""
    async with status_site(tmp_path) as here:
        text = (tmp_path / "status" / f"ocsp-{here.key_id}.pem").read_text()
        key, begin, certificate = text.partition("-----BEGIN CERTIFICATE-----")
        held = Credential(
            key.partition("\n")[2], begin + certificate + here.server.platform.authority.chain_pem, here.bundle
        )
        with pytest.raises(Exception, match=r"(?i)certificate|closed|disconnect|reset|EOF|alert"):
            await raw(here.holder(held), "GET", "/v1/status")


async def test_no_rotation_waits_for_the_responder(tmp_path: Path):
    """Nobody else depends on its certificate."""
    async with status_site(tmp_path) as here:
        text = (tmp_path / "status" / f"ocsp-{here.key_id}.pem").read_bytes()
        responder = x509.load_pem_x509_certificate(text[text.index(b"-----BEGIN CERT") :])
        replaced = await here.server._database.fetch("select serial from replaced")
        assert (hex_serial(responder.serial_number),) in replaced


async def test_while_one_issuer_follows_another_both_are_answered_for(tmp_path: Path):
    """Each by its own list and by a responder that it delegated to itself."""
    async with status_site(tmp_path, shards=2) as here:
        before, old, old_issuing = leaf_of(await here.issue("payments")), here.key_id, here.issuing
        await rotate(here)
        await settled(here)
        assert here.key_id != old
        after = leaf_of(await here.issue("payments"))
        async with asyncio.timeout(5):
            while len(here.server.status._issuers) < 2:
                await here.clock.advance(0)
                await asyncio.sleep(0.01)
        for leaf, issuing in ((before, old_issuing), (after, here.issuing)):
            builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuing, hashes.SHA256())
            answer = await here.post(builder.build().public_bytes(Encoding.DER))
            assert answer.certificate_status is ocsp.OCSPCertStatus.GOOD
            answer.certificates[0].verify_directly_issued_by(issuing)
            (point,) = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
            assert point.full_name
            listed = await here.crl(point.full_name[0].value.removeprefix("http://status.example.org"))
            assert listed.is_signature_valid(issuing.public_key())  # type: ignore[arg-type]
        both = ocsp.OCSPRequestBuilder().add_certificate(before, here.issuing, hashes.SHA256())
        assert (
            await here.post(both.build().public_bytes(Encoding.DER))
        ).certificate_status is ocsp.OCSPCertStatus.UNKNOWN


@given(st.binary(max_size=300))
def test_whatever_is_asked_is_answered(data: bytes):
    """Octets of any kind get an OCSP response, also where nobody answers."""
    counted: list[str] = []
    sources = Sources(lambda _: None, lambda _: None, lambda _: None, counted.append, FakeClock())
    body, answer = asyncio.run(Pages(sources)._answer(data))
    assert ocsp.load_der_ocsp_response(body).response_status in {MALFORMED, UNAUTHORIZED}
    assert answer is None
    assert len(counted) == 1
