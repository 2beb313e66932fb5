"""Renewals over the network whose answer was lost, and those who would profit from it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_csr

from handfast.app.server.callers import Caller, Role
from handfast.app.server.certificates import issue
from handfast.app.server.messages import AuthorityAnswer, CertificateAnswer, RenewRequest
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refused
from handfast.io.credentials import Credential, NewKey, new_key, next_key
from handfast.trust.facts import pem
from handfast.trust.profile import LEAF
from tests.app.sites import Site, site
from tests.support.clock import FakeClock


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    """Give a control plane with a world, whose time is a minute ago: TLS goes by the machine's."""
    async with site(tmp_path, FakeClock(datetime.now(UTC) - timedelta(minutes=1))) as running:
        await running.apply()
        yield running


async def renewed(here: Site, held: Credential, key: NewKey) -> Credential:
    """Renew at the API."""
    asked = RenewRequest(csr=key.csr_pem)
    answer = await here.holder(held).call("POST", "/v1/certificates/renew", CertificateAnswer, asked)
    return Credential(key.key_pem, answer.chain, answer.bundle)


async def use(here: Site, held: Credential) -> None:
    """Call the API with a certificate, and let that be written down."""
    await here.holder(held).call("GET", "/v1/authority", AuthorityAnswer)


async def waited_for(here: Site, name: str = "payments") -> int:
    """Give how many leaves of a name are waited for."""
    rotation = here.server.platform.rotation
    await rotation.outlook()
    leaves = await rotation.leaves_of(rotation.rows[0])
    return sum(one.count for one in leaves.holders if one.name == name)


async def test_who_asks_again_with_the_same_key_holds_up_nobody(here: Site):
    """A client of any make: the answer was lost, it sent the same request again, and uses what came."""
    held, key = await here.issue("payments"), new_key()
    await renewed(here, held, key)
    second = await renewed(here, held, key)
    assert await waited_for(here) == 3
    await use(here, second)
    assert await waited_for(here) == 1


async def test_a_copy_cuts_nobody_off(here: Site):
    """Whoever stole the old one makes a key of his own, or sends the holder's request again: that certificate he cannot use."""
    held, key, stolen = await here.issue("payments"), new_key(), new_key()
    await renewed(here, held, key)
    replayed = await renewed(here, held, key)
    own = await renewed(here, held, stolen)
    await use(here, own)
    with pytest.raises(BadInput, match="does not belong"):
        await use(here, Credential(stolen.key_pem, replayed.chain_pem, replayed.bundle_pem))
    assert await waited_for(here) == 3  # the holder's, the replayed one, and the thief's own


async def test_a_request_without_the_key_gets_nothing(here: Site):
    """Who knows somebody's public key alone cannot sign for it."""
    held, key = await here.issue("payments"), new_key()
    await renewed(here, held, key)
    signed = load_pem_x509_csr(key.csr_pem.encode()).public_bytes(Encoding.DER)
    forged = pem(signed[:-1] + bytes([signed[-1] ^ 1]), "CERTIFICATE REQUEST")
    with pytest.raises(Refused) as refused:
        await renewed(here, held, NewKey("", forged))
    assert refused.value.refusal.reason is Reason.ISSUANCE_BAD_PROOF
    assert await waited_for(here) == 2


async def test_copies_that_keep_their_key_do_not_cut_one_another_off(here: Site):
    """Both renew with the key of the old one, which each of them has."""
    key = new_key()
    held = await renewed(here, await here.issue("payments"), key)
    one = await renewed(here, held, key)
    other = await renewed(here, held, key)
    before = await waited_for(here)
    await use(here, one)
    assert await waited_for(here) == before - 1  # the old one alone
    await use(here, other)
    assert await waited_for(here) == before - 1


async def test_nobody_waits_for_what_the_server_itself_lost(here: Site):
    """It was issued, and the server was killed before it had noted or kept it."""
    server = here.server
    lost = next_key(server.config.directory / "server.next-key", server._kept._spent)
    identity = server.platform.trust_domain.id("handfast/server")
    await issue(server.platform, Caller(Role.NOBODY, "server"), identity, lost.csr_pem, own=LEAF)
    assert await waited_for(here, "handfast/server") == 2
    held = await server._kept.ensure(anew=True)
    assert held.key_pem == lost.key_pem
    assert await waited_for(here, "handfast/server") == 3
    await server._renew()
    assert await waited_for(here, "handfast/server") == 1
