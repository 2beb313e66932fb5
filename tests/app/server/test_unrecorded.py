"""Certificates of ours that the ledger has lost, and that somebody may still hold."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509 import ocsp

from handfast.app.server.discovery import Discovery
from handfast.app.server.inventory_messages import (
    BatchAnswer,
    BatchRequest,
    ImportAnswer,
    ImportRequest,
    Selected,
    SelectorRequest,
)
from handfast.app.server.messages import EventList
from handfast.base.events import CertificateDiscovered, OfferedCertificate
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refused
from handfast.io.credentials import Credential
from handfast.io.database import step
from handfast.trust.addresses import crl_path
from handfast.trust.facts import facts, fingerprint, pem
from tests.app.server.status_sites import StatusSite, leaf_of, status_site
from tests.app.sites import AGENT
from tests.support.pki import Pki


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[StatusSite]:
    """Give a control plane that publishes revocation lists and answers OCSP."""
    async with status_site(tmp_path) as running:
        yield running


async def lose(site: StatusSite, serial: str) -> None:
    """Take a certificate's record from the ledger, as a backup from before it would."""
    await site.server.platform.ledger._db.write(step("delete from certificates where serial = $1", serial))


async def lost(site: StatusSite, name: str = "payments") -> Credential:
    """Issue a certificate, and lose its record."""
    held = await site.issue(name)
    await lose(site, held.leaf.serial)
    return held


async def see(site: StatusSite, held: Credential, **told: Any) -> None:
    """Have a gateway tell that its holder was let in, or what else it says of the certificate."""
    leaf = held.leaf
    offered = replace(OfferedCertificate(
        subject=leaf.subject, issuer=leaf.issuer, serial=leaf.serial, fingerprint=leaf.fingerprint, uri_sans=leaf.uri_sans,
        dns_sans=leaf.dns_sans, not_before=leaf.window.not_before, not_after=leaf.window.not_after, chain_length=2,
    ), **told)  # fmt: skip
    follower, now = Discovery(site.server.platform), site.clock.now()
    await site.server.platform.ledger.append(
        [
            CertificateDiscovered(
                id=offered.fingerprint[:12], at=now, gateway=AGENT, host="h", peer="192.0.2.1:1", certificate=offered
            )
        ]
    )
    await follower.catch_up()


def in_file(held: Credential) -> dict[str, str]:
    """Select as the command line does by a file."""
    return {"fingerprint": held.leaf.fingerprint, "certificate": held.chain_pem}


async def select(site: StatusSite, **selector: str) -> Selected:
    return await site.operator.call("POST", "/v1/revocations/selected", Selected, SelectorRequest(**selector))


async def revoke(site: StatusSite, **selector: str) -> BatchAnswer:
    request = BatchRequest(reason="keyCompromise", **selector)
    return await site.operator.call("POST", "/v1/revocations/batches", BatchAnswer, request)


async def refused_everywhere(site: StatusSite, held: Credential) -> None:
    """See that gateways, lists and OCSP say that it is revoked."""
    serial = int(held.leaf.serial, 16)
    assert held.leaf.fingerprint in site.server.platform.slices.denied
    async with asyncio.timeout(30):
        while not (await site.crl(crl_path(site.key_id, 0))).get_revoked_certificate_by_serial_number(serial):
            await asyncio.sleep(0.01)
    answer = await site.post(site.question(leaf_of(held)))
    assert (answer.certificate_status, answer.revocation_reason) == (
        ocsp.OCSPCertStatus.REVOKED,
        x509.ReasonFlags.key_compromise,
    )


@pytest.mark.parametrize("seen", [False, True])
async def test_a_lost_certificate_is_revoked_by_its_file(there: StatusSite, seen: bool):
    """Whether a gateway saw it or not: it is told first, and then everybody who can be asked says so."""
    held = await lost(there)
    if seen:
        await see(there, held)
    told = await select(there, **in_file(held))
    assert (told.count, [row.serial for row in told.certificates]) == (1, [held.leaf.serial])
    assert there.server.platform.slices.denied == frozenset()
    answer = await revoke(there, **in_file(held))
    assert ([row.serial for row in answer.revoked], answer.left) == ([held.leaf.serial], 0)
    await refused_everywhere(there, held)
    with pytest.raises(Refused) as caught:
        await select(there, **in_file(held))
    assert caught.value.refusal.reason is Reason.ALREADY_REVOKED
    events = (await there.operator.call("GET", "/v1/events", EventList, kind="certificate.revoked")).events
    assert [(event["serial"], event["identity"]) for event in events] == [(held.leaf.serial, held.leaf.uri_sans[0])]


@pytest.mark.parametrize("by", ["serial", "fingerprint"])
async def test_what_a_gateway_saw_is_revoked_by_its_number(there: StatusSite, by: str):
    """No file is needed: the report names it, and its issuer is the only one of that name."""
    held = await lost(there)
    await see(there, held)
    selector = {by: getattr(held.leaf, by)}
    assert (await select(there, **selector)).count == 1
    assert len((await revoke(there, **selector)).revoked) == 1
    await refused_everywhere(there, held)


async def test_a_report_that_ends_with_its_ca_may_be_of_ours(there: StatusSite):
    """A leaf may live for as long as its CA does, and not longer."""
    held, ca = await lost(there), facts(there.server.platform.authority.issuing_der)
    await see(there, held, not_after=ca.window.not_after)
    assert (await select(there, serial=held.leaf.serial)).count == 1


async def test_a_number_that_two_have_names_neither(there: StatusSite):
    """CAs number for themselves: nobody revokes another certificate than the one that was meant."""
    held = await lost(there)
    await see(there, held)
    await see(there, held, issuer="CN=Partner", fingerprint="a" * 64)
    for ask in (select, revoke):
        with pytest.raises(BadInput, match="several certificates"):
            await ask(there, serial=held.leaf.serial)
    assert (await revoke(there, fingerprint=held.leaf.fingerprint)).revoked


async def test_a_report_of_another_certificate_with_a_number_of_ours_revokes_nothing(there: StatusSite):
    """The ledger knows whose that number is: a gateway that lies, or errs, takes it from nobody."""
    held = await there.issue("payments")
    await see(there, held, fingerprint="b" * 64)
    for ask in (select, revoke):
        with pytest.raises(BadInput, match="another certificate of this serial"):
            await ask(there, fingerprint="b" * 64)
    for spared in ("b" * 64, held.leaf.fingerprint):
        assert spared not in there.server.platform.slices.denied


async def test_what_was_imported_is_revoked_by_its_number(there: StatusSite):
    """The inventory has its octets, which say who signed it."""
    held = await lost(there)
    await there.operator.call("POST", "/v1/inventory", ImportAnswer, ImportRequest(certificates=held.chain_pem))
    assert len((await revoke(there, serial=held.leaf.serial)).revoked) == 1
    await refused_everywhere(there, held)


async def test_nobody_gets_a_certificate_for_a_lost_key_that_was_stolen(there: StatusSite):
    """As after any other revocation for that reason."""
    held = await lost(there)
    await revoke(there, **in_file(held))
    rows = await there.server.platform.ledger._db.fetch("select serial from refused_keys")
    assert [serial for (serial,) in rows] == [held.leaf.serial]


async def test_a_certificate_of_somebody_else_is_not_ours_to_revoke(there: StatusSite):
    """Neither one of another CA, nor one that names ours and has no signature of it."""
    stranger, forged = Pki("Other").leaf("eve").cert_der, bytearray((await lost(there)).leaf_der)
    forged[-1] ^= 1
    for der in (stranger, bytes(forged)):
        for ask in (select, revoke):
            with pytest.raises(Refused, match="none of the issuing CAs"):
                await ask(there, fingerprint=fingerprint(der), certificate=pem(der))
    assert there.server.platform.slices.denied == frozenset()


async def test_a_report_of_somebody_elses_certificate_revokes_nothing(there: StatusSite):
    """A gateway's word alone makes no certificate ours: its issuer has another name, or it would outlive the CA."""
    held = await there.issue("payments")
    for number, change in enumerate(
        ({"issuer": "CN=Partner"}, {"not_after": there.clock.now() + timedelta(days=36500)})
    ):
        plain = {"issuer": held.leaf.issuer, "not_after": held.leaf.window.not_after} | change
        offered = OfferedCertificate(
            subject="CN=x", serial=f"0{number}", fingerprint=f"{number}a" * 32, uri_sans=("spiffe://x.test/a",), dns_sans=(),
            not_before=held.leaf.window.not_before, chain_length=1, **plain,
        )  # fmt: skip
        follower = Discovery(there.server.platform)
        event = CertificateDiscovered(
            id=f"seen-{number}", at=there.clock.now(), gateway=AGENT, host="h", peer="192.0.2.1:1", certificate=offered
        )
        await there.server.platform.ledger.append([event])
        await follower.catch_up()
        with pytest.raises(Refused, match="no issuing CA that counts"):
            await revoke(there, serial=offered.serial)


async def test_a_file_and_a_fingerprint_of_two_certificates_are_refused(there: StatusSite):
    """Nobody revokes another certificate than the one that was shown."""
    one, other = await lost(there, "a"), await lost(there, "b")
    with pytest.raises(BadInput, match="not the certificate of that fingerprint"):
        await revoke(there, fingerprint=one.leaf.fingerprint, certificate=other.chain_pem)


async def test_an_ended_certificate_needs_no_revocation(there: StatusSite):
    """As with those that the ledger knows: there is nothing to revoke."""
    held = await lost(there)
    there.clock.set(held.leaf.window.not_after)
    with pytest.raises(Refused) as caught:
        await select(there, **in_file(held))
    assert caught.value.refusal.reason is Reason.NOT_FOUND
