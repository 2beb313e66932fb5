from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from handfast.app.client import Api
from handfast.app.server.callers import Role
from handfast.app.server.messages import (
    CertificateAnswer,
    CertificateList,
    CertificateRequest,
    CertificateRow,
    RenewRequest,
    RevocationAnswer,
    RevocationRequest,
)
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refused
from handfast.io.credentials import Credential, new_key
from handfast.trust.facts import facts, pem_certificates
from handfast.trust.revocation import RevocationReason
from tests.app.sites import DOMAIN, Site


async def renew(api: Api, csr: str = "") -> CertificateAnswer:
    request = RenewRequest(csr=csr or new_key().csr_pem)
    return await api.call("POST", "/v1/certificates/renew", CertificateAnswer, request)


async def revoke(site: Site, **target: str) -> RevocationAnswer:
    return await site.operator.call("POST", "/v1/revocations", RevocationAnswer, RevocationRequest(**target))


async def inventory(site: Site, **query: str) -> list[CertificateRow]:
    """List what is about workloads; the server's own certificate is always there."""
    page = await site.operator.call("GET", "/v1/certificates", CertificateList, **query)
    return [row for row in page.certificates if row.name != "handfast/server"]


async def test_a_certificate_says_what_was_asked_for(here: Site):
    """The leaf has the identity, the names and the life of the request, and the answer agrees with it."""
    key = new_key("someone else")
    asked = CertificateRequest(name="team/ledger", csr=key.csr_pem, dns=["ledger.internal"], ttl_seconds=900)
    answer = await here.operator.call("POST", "/v1/certificates", CertificateAnswer, asked)
    leaf, issuing = map(facts, pem_certificates(answer.chain))
    assert answer.identity == f"spiffe://{DOMAIN}/team/ledger"
    assert leaf.uri_sans == (answer.identity,)
    assert leaf.dns_sans == tuple(answer.dns) == ("ledger.internal",)
    assert (leaf.serial, leaf.window.not_after) == (answer.serial, answer.not_after)
    assert leaf.window.not_after == here.clock.now().replace(microsecond=0) + timedelta(seconds=900)
    assert issuing.is_ca
    assert answer.bundle == here.bundle


async def test_an_entry_bounds_what_an_operator_gets(here: Site):
    """The world's entry gives names and life, and nobody gets more than it grants."""
    await here.apply()
    held = await here.issue("payments")
    assert held.leaf.dns_sans == ("payments.internal",)
    assert held.window.not_after <= here.clock.now() + timedelta(hours=1)
    for more, reason in (
        ({"dns": ["ledger.internal"]}, Reason.ISSUANCE_NAME_NOT_ALLOWED),
        ({"ttl_seconds": 3601}, Reason.ISSUANCE_TOO_LONG),
    ):
        with pytest.raises(Refused) as caught:
            await here.issue("payments", **more)
        assert caught.value.refusal.reason is reason


@pytest.mark.parametrize(
    "name", ["handfast/server", "handfast/agent/edge", "handfast/operator/eve", "handfast/gateway/edge"]
)
async def test_the_platforms_own_names_are_not_to_be_had(name: str, here: Site):
    """A request for a reserved name is refused and recorded, also from an operator."""
    with pytest.raises(Refused) as caught:
        await here.issue(name)
    assert caught.value.refusal.reason is Reason.ENTRY_RESERVED
    assert (await here.operator.send("GET", "/v1/events", query={"kind": "certificate.refused"})).json()["events"][0][
        "name"
    ] == name


@pytest.mark.parametrize("name", ["", "/", "../x", "a//b", "a b", "pay\nments", "é", "x" * 513, "a/../b", "*"])
async def test_a_name_that_is_none_is_bad_input(name: str, here: Site):
    """What is no SPIFFE path never becomes a certificate, with an operator's prefix or without."""
    for operator in (False, True):
        with pytest.raises(BadInput):
            await here.issue(name, operator=operator)
    assert not await inventory(here)


async def test_a_request_must_prove_its_key(here: Site):
    """A CSR with another's signature, of a kind of key that is not allowed, or none at all, gets nothing."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    der = bytearray(csr.public_bytes(Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM).decode()
    odd = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    odd_pem = odd.sign(ec.generate_private_key(ec.SECP256K1()), hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    for pem, reason in ((forged, Reason.ISSUANCE_BAD_PROOF), (odd_pem, Reason.ISSUANCE_KEY_NOT_ALLOWED)):
        with pytest.raises(Refused) as caught:
            await here.operator.call(
                "POST", "/v1/certificates", CertificateAnswer, CertificateRequest(name="a", csr=pem)
            )
        assert caught.value.refusal.reason is reason
    with pytest.raises(BadInput):
        await here.operator.call("POST", "/v1/certificates", CertificateAnswer, CertificateRequest(name="a", csr="x"))
    assert not await inventory(here)


async def test_a_holder_gets_the_next_certificate_with_the_same_names(here: Site):
    """Renewal keeps identity, names and life, and takes a new key."""
    held = await here.issue("ledger", dns=["ledger.internal"], ttl_seconds=1800)
    here.clock.set(here.clock.now() + timedelta(seconds=1200))
    key = new_key()
    answer = await renew(here.holder(held), key.csr_pem)
    leaf = facts(pem_certificates(answer.chain)[0])
    assert (leaf.uri_sans, leaf.dns_sans) == (held.leaf.uri_sans, held.leaf.dns_sans)
    assert leaf.window.length == held.window.length
    assert leaf.fingerprint != held.leaf.fingerprint
    assert Credential(key.key_pem, answer.chain, answer.bundle).window.not_after > held.window.not_after


@pytest.mark.parametrize("role", [Role.AGENT, Role.OPERATOR])
async def test_the_platforms_own_holders_renew_too(role: Role, here: Site):
    """An agent and an operator renew what they hold; nobody else could give them their reserved names."""
    held = await (here.join() if role is Role.AGENT else here.issue("ann", operator=True))
    answer = await renew(here.holder(held))
    assert answer.identity == held.leaf.uri_sans[0]


async def test_an_agents_newest_certificate_is_the_one_on_record(here: Site):
    """The list of agents follows a renewal."""
    answer = await renew(here.holder(await here.join()))
    agent = await here.server.platform.ledger.agent("edge")
    assert agent is not None
    assert agent.serial == answer.serial


async def test_a_gateways_certificate_is_not_renewed_past_the_world(here: Site):
    """A host's certificate comes by way of the world alone: who holds one cannot prolong it."""
    await here.apply()
    agent, key = here.holder(await here.join()), new_key()
    answer = await agent.send(
        "POST", "/v1/agents/self/certificates", f'{{"host": "api.{DOMAIN}", "csr": {_quoted(key.csr_pem)}}}'
    )
    gateway = Credential(key.key_pem, answer.json()["chain"], here.bundle)
    with pytest.raises(Refused) as caught:
        await renew(here.holder(gateway))
    assert caught.value.refusal.reason is Reason.ENTRY_RESERVED


def _quoted(text: str) -> str:
    return '"' + text.replace("\n", "\\n") + '"'


async def test_a_shorter_entry_shortens_the_next_certificate(here: Site):
    """A holder whose entry was shortened since is renewed within it, rather than cut off."""
    held = await here.issue("payments", ttl_seconds=7200)
    await here.apply()
    answer = await renew(here.holder(held))
    assert answer.not_after - answer.not_before == timedelta(hours=1, minutes=1)


async def test_only_a_live_certificate_is_renewed(here: Site):
    """A revoked one is refused over the connection that is open already; so is one that the ledger does not know."""
    held = await here.issue("ledger")
    api = here.holder(held)
    await renew(api)
    await revoke(here, serial=held.leaf.serial, reason="keyCompromise")
    with pytest.raises(Refused) as caught:
        await renew(api)
    assert caught.value.refusal.reason is Reason.REVOKED


async def test_a_revocation_between_admission_and_renewal_counts(here: Site):
    """The ledger has the last word, also where the deny list is behind."""
    held = await here.issue("ledger")
    await revoke(here, serial=held.leaf.serial)
    here.server.platform.slices.denied = frozenset()
    with pytest.raises(Refused) as caught:
        await renew(here.holder(held))
    assert caught.value.refusal.reason is Reason.REVOKED


async def test_the_inventory_counts_the_clock_in(here: Site):
    """State, name and page select; an expired certificate is no longer issued."""
    for name, ttl in (("a", 60), ("b", 3600), ("b", 3600)):
        await here.issue(name, ttl_seconds=ttl)
    await revoke(here, serial=(await inventory(here, name="b"))[0].serial)
    here.clock.set(here.clock.now() + timedelta(seconds=120))
    states = {
        state: len(await inventory(here, state=state))
        for state in ("issued", "expired", "revoked", "failed", "intended")
    }
    assert states == {"issued": 1, "expired": 1, "revoked": 1, "failed": 0, "intended": 0}
    assert [row.state for row in await inventory(here)] == ["revoked", "issued", "expired"]
    assert [row.name for row in await inventory(here, name="a")] == ["a"]


async def test_pages_of_the_inventory_make_up_the_whole(here: Site):
    """Following ``next`` gives each certificate once, newest first."""
    for number in range(5):
        await here.issue(f"w{number}")
    names: list[str] = []
    after = 0
    while True:
        page = await here.operator.call("GET", "/v1/certificates", CertificateList, limit="2", after=str(after))
        names += [row.name for row in page.certificates]
        after = page.next
        if not after:
            break
    assert names == ["w4", "w3", "w2", "w1", "w0", "handfast/server"]


@pytest.mark.parametrize(
    "query",
    [{"state": "good"}, {"limit": "501"}, {"limit": "-1"}, {"after": "x"}, {"after": "²"}, {"after": str(2**63)}],
)
async def test_a_query_that_makes_no_sense_is_bad_input(query: dict[str, str], here: Site):
    """A number out of bounds or an unknown state is refused, never guessed at."""
    with pytest.raises(BadInput):
        await inventory(here, **query)


async def test_one_certificate_is_shown_with_its_pem(here: Site):
    """A serial finds its certificate in either case; an unknown one is not found."""
    held = await here.issue("ledger")
    row = await here.operator.call("GET", f"/v1/certificates/{held.leaf.serial.upper()}", CertificateRow)
    assert pem_certificates(row.certificate) == (held.leaf_der,)
    assert row.fingerprint == held.leaf.fingerprint
    with pytest.raises(Refused) as caught:
        await here.operator.call("GET", f"/v1/certificates/{'0' * 40}", CertificateRow)
    assert caught.value.refusal.reason is Reason.NOT_FOUND


async def test_revoking_a_name_revokes_all_of_its_live_certificates(here: Site):
    """Each is named in the answer and told as an event; those of others and expired ones are left alone."""
    await here.issue("a", ttl_seconds=60)
    here.clock.set(here.clock.now() + timedelta(seconds=90))
    live = {(await here.issue("a")).leaf.serial for _ in range(2)}
    await here.issue("b")
    answer = await revoke(here, name="a", reason="cessationOfOperation")
    assert {row.serial for row in answer.revoked} == live
    assert {(row.state, row.revocation_reason) for row in answer.revoked} == {("revoked", "cessationOfOperation")}
    assert {row.revoked_at for row in answer.revoked} == {here.clock.now()}
    assert here.server.platform.slices.denied == {row.fingerprint for row in answer.revoked}


@pytest.mark.parametrize("reason", RevocationReason)
async def test_every_reason_of_the_standard_can_be_given(reason: RevocationReason, here: Site):
    """The reason goes into the record as it was given, and into the list that gateways get."""
    held = await here.issue("a")
    answer = await revoke(here, serial=held.leaf.serial, reason=reason.value)
    assert answer.revoked[0].revocation_reason == reason.value
    assert here.server.platform.slices.denied == {held.leaf.fingerprint}


async def test_what_cannot_be_revoked_is_said(here: Site):
    """Twice, an unknown serial, an unknown name: each is refused with its reason, and nothing is changed."""
    held = await here.issue("a")
    await revoke(here, serial=held.leaf.serial)
    for target, reason in (
        ({"serial": held.leaf.serial}, Reason.ALREADY_REVOKED),
        ({"serial": "0" * 40}, Reason.NOT_FOUND),
        ({"name": "nobody"}, Reason.NOT_FOUND),
        ({"name": "a"}, Reason.NOT_FOUND),
    ):
        with pytest.raises(Refused) as caught:
            await revoke(here, **target)
        assert caught.value.refusal.reason is reason


@pytest.mark.parametrize(
    "target",
    [
        {},
        {"serial": "0" * 40, "name": "a"},
        {"serial": "xyz"},
        {"serial": "0" * 41},
        {"name": "a", "reason": "certificateHold"},
    ],
)
async def test_a_revocation_that_makes_no_sense_is_bad_input(target: dict[str, str], here: Site):
    """Exactly one target, a serial in hex, a reason that can be given."""
    with pytest.raises(BadInput):
        await revoke(here, **target)
