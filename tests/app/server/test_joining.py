"""Agents join, and strangers try to."""

import asyncio
import base64
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from handfast.access.slice import parse_slice
from handfast.app.server.messages import (
    CertificateAnswer,
    EventList,
    JoinRequest,
    RenewRequest,
    RevocationRequest,
)
from handfast.base.reasons import Reason
from handfast.base.refusal import Refused
from handfast.io.credentials import Credential, new_key
from handfast.io.issuance import Issuance
from handfast.io.ledger import CertificateQuery, SqlLedger
from handfast.io.records import CertificateState
from handfast.trust.joining import Grant
from tests.app.sites import AGENT, DOMAIN, Site, problem, raw, site

IDENTITY = f"handfast/agent/{AGENT}"


async def recorded(here: Site, kind: str) -> list[dict[str, Any]]:
    return (await here.operator.call("GET", "/v1/events", EventList, kind=kind)).events


async def come(here: Site, token: str, name: str = AGENT, csr: str = "") -> tuple[int, str]:
    """Try to join, and give status and code."""
    body = json.dumps({"token": token, "name": name, "csr": csr or new_key().csr_pem})
    response = await raw(here.anonymous(), "POST", "/v1/agents/join", body)
    return (201, "") if response.status_code == 201 else problem(response)


async def works(here: Site, held: Credential) -> bool:
    """Tell whether an agent's certificate still opens anything."""
    return (await raw(here.holder(held), "GET", "/v1/agents/self/world")).status_code == 200


async def states(here: Site) -> list[tuple[str, str]]:
    """Give state and requester of the agent's certificates, newest first."""
    rows = await here.server.platform.ledger.list_certificates(CertificateQuery(name=IDENTITY))
    return [(row.state.value, row.requester) for row in rows.records]


async def test_a_token_lets_one_agent_join_once(here: Site):
    """The second to come with a token is refused, whatever its name."""
    token = await here.token()
    request = JoinRequest(token=token, name=AGENT, csr=new_key().csr_pem)
    answer = await here.anonymous().call("POST", "/v1/agents/join", CertificateAnswer, request)
    assert answer.identity == f"spiffe://{DOMAIN}/handfast/agent/{AGENT}"
    for name in (AGENT, "other"):
        again = JoinRequest(token=token, name=name, csr=new_key().csr_pem)
        with pytest.raises(Refused) as caught:
            await here.anonymous().call("POST", "/v1/agents/join", CertificateAnswer, again)
        assert caught.value.refusal.reason is Reason.TOKEN_NOT_VALID
    assert [event["agent"] for event in await recorded(here, "agent.joined")] == [AGENT]


async def test_nobody_joins_under_the_name_of_the_server(here: Site):
    """Its reports would be told as the server's. The token is good for another name afterwards."""
    token = await here.token()
    for name, wanted in (("server", (403, "agent.reserved-name")), (AGENT, None)):
        body = json.dumps({"token": token, "name": name, "csr": new_key().csr_pem})
        answer = await raw(here.anonymous(), "POST", "/v1/agents/join", body)
        assert answer.status_code == 201 if wanted is None else problem(answer) == wanted
    assert [event["agent"] for event in await recorded(here, "agent.joined")] == [AGENT]


async def test_of_many_who_come_at_once_with_one_token_one_joins(here: Site):
    """A race for a token has one winner."""
    token = await here.token()

    async def join(number: int) -> int:
        body = json.dumps({"token": token, "name": f"a{number}", "csr": new_key().csr_pem})
        return (await raw(here.anonymous(), "POST", "/v1/agents/join", body)).status_code

    assert sorted(await asyncio.gather(*map(join, range(8)))) == [201] + [401] * 7


async def test_a_token_expires(here: Site):
    """After its time it is as good as any other text."""
    token = await here.token(ttl=60)
    here.clock.set(here.clock.now() + timedelta(seconds=60))
    body = json.dumps({"token": token, "name": AGENT, "csr": new_key().csr_pem})
    assert problem(await raw(here.anonymous(), "POST", "/v1/agents/join", body)) == (401, "token.not-valid")
    assert not await recorded(here, "agent.joined")


@pytest.mark.parametrize("name", ["", "-a", "A", "a.b", "a/b", "../operator/eve", "a" * 64, "a\n"])
async def test_an_agents_name_is_one_label(name: str, here: Site):
    """A name cannot climb out of the agents' prefix, and the token is not spent on it."""
    token = await here.token()
    body = json.dumps({"token": token, "name": name, "csr": new_key().csr_pem})
    assert problem(await raw(here.anonymous(), "POST", "/v1/agents/join", body)) == (400, "bad-input")
    good = JoinRequest(token=token, name=AGENT, csr=new_key().csr_pem)
    await here.anonymous().call("POST", "/v1/agents/join", CertificateAnswer, good)


@pytest.mark.parametrize("ttl", [0, 9, 7 * 86400 + 1])
async def test_a_tokens_life_is_bounded(ttl: int, here: Site):
    """A token lives from ten seconds to a week."""
    assert problem(await raw(here.operator, "POST", "/v1/agents/tokens", json.dumps({"ttl_seconds": ttl}))) == (
        400,
        "bad-input",
    )


# Names


def _with_another_signature(csr: str, other: str) -> str:
    """Give a CSR with the last octets, which are the signature's, of another one."""
    ours, theirs = (base64.b64decode("".join(text.splitlines()[1:-1])) for text in (csr, other))
    mixed = ours[:-8] + theirs[-8:]
    return (
        f"-----BEGIN CERTIFICATE REQUEST-----\n{base64.b64encode(mixed).decode()}\n-----END CERTIFICATE REQUEST-----\n"
    )


async def test_a_token_for_any_name_opens_none_that_was_given(here: Site):
    """Whoever holds one does not get what an agent has; the record says who tried, the agent goes on, and the token is spent."""
    await here.apply()
    held, token = await here.join(), await here.token()
    assert await come(here, token) == (403, "agent.name-taken")
    assert await works(here, held)
    ((row),) = await states(here)
    assert row == ("issued", f"join:{AGENT}")
    (invited,) = [event for event in await recorded(here, "agent.invited") if not event.get("agent")]
    (refused,) = await recorded(here, "agent.refused")
    assert (refused["agent"], refused["grant"], refused["reason"]) == (AGENT, invited["grant"], "agent.name-taken")
    assert "handfast agent token --name" in refused["hint"]
    assert await come(here, token, "other") == (401, "token.not-valid")
    assert len(await recorded(here, "agent.refused")) == 1


@pytest.mark.parametrize("ending", ["revoked", "expired", "forgotten"])
async def test_a_name_is_not_free_again_when_its_agent_is_gone(ending: str, here: Site):
    """However that came; a token for the name lets it in again."""
    await here.apply()
    await here.join()
    match ending:
        case "revoked":
            await here.operator.send("POST", "/v1/revocations", RevocationRequest(name=IDENTITY))
        case "expired":
            here.clock.set(here.clock.now() + timedelta(days=3))
        case _:
            await here.operator.send("DELETE", f"/v1/agents/{AGENT}")
    assert await come(here, await here.token()) == (403, "agent.name-taken")
    assert await come(here, await here.token(AGENT)) == (201, "")


async def test_a_token_for_a_name_opens_no_other(here: Site):
    """A stranger who finds it cannot come as anybody else, and learns no more than with a wrong one; it is spent by that."""
    token = await here.token("web-1")
    assert await come(here, token, "web-2") == (401, "token.not-valid")
    assert await come(here, token, "web-1") == (401, "token.not-valid")
    (refused,) = await recorded(here, "agent.refused")
    assert (refused["agent"], refused["reason"]) == ("web-2", "token.not-valid")
    assert not await recorded(here, "agent.joined")
    assert await come(here, await here.token(), "web-2") == (201, "")


async def test_nobody_is_invited_under_the_name_of_the_server(here: Site):
    """Such a token could never be used."""
    response = await raw(here.operator, "POST", "/v1/agents/tokens", json.dumps({"name": "server"}))
    assert problem(response) == (403, "agent.reserved-name")


async def test_a_machine_made_anew_takes_the_place_of_the_old_one(here: Site):
    """With a token for its name. What the name had is revoked before the answer, and the record says by whom and that it was there before."""
    await here.apply()
    old = await here.join()
    new = await here.join()
    assert not await works(here, old)
    assert await works(here, new)
    assert problem(await raw(here.holder(old), "POST", "/v1/certificates/renew", "{}")) == (403, "revocation.revoked")
    (revoked,) = await recorded(here, "certificate.revoked")
    assert (revoked["serial"], revoked["crl_reason"], revoked["requester"]) == (
        old.leaf.serial, "superseded", f"join:{AGENT}",
    )  # fmt: skip
    slice_ = parse_slice((await here.holder(new).send("GET", "/v1/agents/self/world")).content)
    assert slice_.denied == (old.leaf.fingerprint,)
    joined, granted = await recorded(here, "agent.joined"), await recorded(here, "agent.invited")
    assert [(one.get("again", False), one["grant"]) for one in joined] == [
        (False, granted[0]["grant"]),
        (True, granted[1]["grant"]),
    ]
    agent = await here.server.platform.ledger.agent(AGENT)
    assert agent
    assert agent.serial == new.leaf.serial


async def test_a_certificate_that_the_old_holder_renewed_ends_as_well(here: Site):
    """A thief who renews for as long as he can is out with all that he got."""
    await here.apply()
    old = await here.join()
    thief = []
    for _ in range(3):
        key = new_key()
        answer = await here.holder(old).call(
            "POST", "/v1/certificates/renew", CertificateAnswer, RenewRequest(csr=key.csr_pem)
        )
        thief.append(Credential(key.key_pem, answer.chain, answer.bundle))
    new = await here.join()
    assert [await works(here, one) for one in (old, *thief, new)] == [False] * 4 + [True]


async def test_who_renews_while_it_is_revoked_gets_nothing(here: Site, monkeypatch: pytest.MonkeyPatch):
    """A renewal that began before the revocation and ends after it is not answered."""
    await here.apply()
    old, inner = await here.join(), Issuance.issue

    async def slow(issuance: Issuance, *args: Any, **more: Any) -> Any:
        if more["requester"].startswith("spiffe://"):
            await here.operator.send("POST", "/v1/revocations", RevocationRequest(serial=old.leaf.serial))
        return await inner(issuance, *args, **more)

    monkeypatch.setattr(Issuance, "issue", slow)
    body = json.dumps({"csr": new_key().csr_pem})
    assert problem(await raw(here.holder(old), "POST", "/v1/certificates/renew", body)) == (403, "revocation.revoked")


async def test_who_renews_while_another_takes_the_place_is_out(here: Site, monkeypatch: pytest.MonkeyPatch):
    """Between the look at what the name has and its revocation the old holder gets one more, which is seen by the next look."""
    await here.apply()
    old, inner, thief = await here.join(), SqlLedger.revoke, list[Credential]()

    async def late(ledger: SqlLedger, *args: Any) -> list[str]:
        if not thief:
            key = new_key()
            answer = await here.holder(old).call(
                "POST", "/v1/certificates/renew", CertificateAnswer, RenewRequest(csr=key.csr_pem)
            )
            thief.append(Credential(key.key_pem, answer.chain, answer.bundle))
        return await inner(ledger, *args)

    monkeypatch.setattr(SqlLedger, "revoke", late)
    new = await here.join()
    assert [await works(here, one) for one in (old, *thief, new)] == [False, False, True]


async def test_of_many_with_a_token_for_one_name_one_has_it_in_the_end(here: Site):
    """All at once: whoever was last holds the only certificate that counts."""
    await here.apply()
    tokens = [await here.token(AGENT) for _ in range(6)]
    keys = [new_key() for _ in tokens]

    async def join(number: int) -> Credential | None:
        request = JoinRequest(token=tokens[number], name=AGENT, csr=keys[number].csr_pem)
        try:
            answer = await here.anonymous().call("POST", "/v1/agents/join", CertificateAnswer, request)
        except Refused:
            return None
        return Credential(keys[number].key_pem, answer.chain, answer.bundle)

    held = [one for one in await asyncio.gather(*map(join, range(6))) if one]
    live = await here.server.platform.ledger.live_by_name(IDENTITY, here.clock.now())
    assert [row.state for row in live] == [CertificateState.ISSUED]
    assert [one.leaf.serial for one in held if await works(here, one)] == [live[0].serial]


async def test_of_many_with_tokens_for_any_name_one_gets_a_new_one(here: Site):
    """Nobody takes the place of who was a moment before."""
    await here.apply()
    tokens = [await here.token() for _ in range(6)]
    outcomes = await asyncio.gather(*(come(here, token) for token in tokens))
    assert sorted(outcomes) == [(201, "")] + [(403, "agent.name-taken")] * 5
    assert not await recorded(here, "certificate.revoked")


async def test_a_name_that_came_to_nothing_is_free(here: Site):
    """A request that is refused costs its token, and gives the name to nobody; a name that was given stays so."""
    await here.apply()
    unreadable, unsigned = "x", _with_another_signature(new_key().csr_pem, new_key().csr_pem)
    for csr, answer in ((unreadable, (400, "bad-input")), (unsigned, (403, "issuance.bad-proof-of-possession"))):
        for token in (await here.token(), await here.token(AGENT)):
            assert await come(here, token, csr=csr) == answer
    assert await come(here, await here.token()) == (201, "")
    assert await come(here, await here.token(AGENT), csr=unsigned) == (403, "issuance.bad-proof-of-possession")
    assert await come(here, await here.token()) == (403, "agent.name-taken")
    assert not await recorded(here, "certificate.revoked")


async def test_what_was_given_is_known_after_a_start(tmp_path: Path):
    """Names stand in the ledger."""
    async with site(tmp_path) as here:
        await here.join()
    async with site(tmp_path) as here:
        assert await come(here, await here.token()) == (403, "agent.name-taken")


async def test_what_a_joining_leaves_undone_opens_nothing(here: Site):
    """A server that died after the token was spent, before it issued: the name is kept back, and a token for it goes on."""
    ledger, grant = here.server.platform.ledger, Grant("4bac", "")
    await ledger.take_agent_name(AGENT, grant)
    assert await come(here, await here.token()) == (403, "agent.name-taken")
    assert await come(here, await here.token(AGENT)) == (201, "")
