"""Who may call what: decided here, once for each endpoint."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from handfast.app.server.build import endpoints
from handfast.app.server.callers import Role, caller_of
from handfast.app.server.endpoints import Endpoint
from handfast.app.server.messages import RevocationRequest
from handfast.app.server.platform import Platform
from handfast.base.reasons import Reason
from handfast.base.refusal import Refused
from handfast.base.spiffe import TrustDomain
from handfast.io.credentials import new_key
from tests.app.sites import AGENT, DOMAIN, Site, problem, raw
from tests.support.pki import SERVER, Pki

ALL = set(Role)
MAY: dict[tuple[str, str], set[Role]] = {
    ("PUT", "/v1/world"): {Role.OPERATOR},
    ("POST", "/v1/world/diff"): {Role.OPERATOR},
    ("GET", "/v1/world"): {Role.OPERATOR},
    ("GET", "/v1/world/revisions"): {Role.OPERATOR},
    ("GET", "/v1/status"): {Role.OPERATOR},
    ("GET", "/v1/authority"): ALL,
    ("POST", "/v1/certificates"): {Role.OPERATOR},
    ("POST", "/v1/certificates/batches"): {Role.OPERATOR},
    ("POST", "/v1/certificates/renew"): {Role.OPERATOR, Role.AGENT, Role.WORKLOAD},
    ("GET", "/v1/certificates"): {Role.OPERATOR},
    ("GET", "/v1/certificates/{serial}"): {Role.OPERATOR},
    ("POST", "/v1/revocations"): {Role.OPERATOR},
    ("POST", "/v1/revocations/selected"): {Role.OPERATOR},
    ("POST", "/v1/revocations/batches"): {Role.OPERATOR},
    ("GET", "/v1/inventory"): {Role.OPERATOR},
    ("GET", "/v1/inventory/{fingerprint}"): {Role.OPERATOR},
    ("POST", "/v1/inventory"): {Role.OPERATOR},
    ("PUT", "/v1/owners"): {Role.OPERATOR},
    ("GET", "/v1/audit/chain"): {Role.OPERATOR},
    ("POST", "/v1/audit/checkpoints"): {Role.OPERATOR},
    ("POST", "/v1/agents/tokens"): {Role.OPERATOR},
    ("POST", "/v1/agents/join"): ALL,
    ("GET", "/v1/agents/self/world"): {Role.AGENT},
    ("POST", "/v1/agents/self/certificates"): {Role.AGENT},
    ("GET", "/v1/agents/self/staples/{serial}"): {Role.AGENT},
    ("POST", "/v1/agents/self/report"): {Role.AGENT},
    ("POST", "/v1/agents/self/standings"): {Role.AGENT},
    ("DELETE", "/v1/agents/{name}"): {Role.OPERATOR},
    ("GET", "/v1/authorities"): {Role.OPERATOR},
    ("POST", "/v1/authorities/rotation"): {Role.OPERATOR},
    ("DELETE", "/v1/authorities/rotation"): {Role.OPERATOR},
    ("POST", "/v1/authorities/rotation/force"): {Role.OPERATOR},
    ("GET", "/v1/acme"): {Role.OPERATOR},
    ("POST", "/v1/acme/keys"): {Role.OPERATOR},
    ("POST", "/v1/acme/deactivations"): {Role.OPERATOR},
    ("POST", "/v1/est/tokens"): {Role.OPERATOR},
    ("POST", "/v1/est/withdrawals"): {Role.OPERATOR},
    ("GET", "/v1/events"): {Role.OPERATOR},
    ("GET", "/v1/explanations/{id}"): {Role.OPERATOR},
}
SERVED = {(e.method, e.path): e for e in endpoints(cast("Platform", None))}
TRUST = TrustDomain(DOMAIN)
NOW = datetime.now(UTC)


def test_every_endpoint_is_decided_on():
    """A new endpoint without a decision here fails, and so does a decision without an endpoint."""
    assert set(SERVED) == set(MAY)


@pytest.mark.parametrize("endpoint", SERVED.values(), ids=lambda e: f"{e.method} {e.path}")
async def test_an_endpoint_lets_in_whom_it_should_and_nobody_else(endpoint: Endpoint, here: Site):
    """Each role is let in or refused, over TLS, before the body is looked at."""
    path = (
        endpoint.path.format(serial="0" * 40, fingerprint="0" * 64, id="none", name="nobody")
        if "{" in endpoint.path
        else endpoint.path
    )
    for role in Role:
        response = await raw(await here.being(role), endpoint.method, path, b"\xff")
        refused = response.status_code >= 400 and problem(response)[1] in {"caller.unknown", "caller.not-allowed"}
        assert refused == (role not in MAY[endpoint.method, endpoint.path]), role
        if refused:
            assert response.status_code == (401 if role is Role.NOBODY else 403)


def _body(path: str) -> bytes:
    """Give what an agent may send there."""
    csr = new_key().csr_pem
    bodies: dict[str, Any] = {
        "/v1/certificates/renew": {"csr": csr},
        "/v1/agents/self/certificates": {"host": f"api.{DOMAIN}", "csr": csr},
        "/v1/agents/self/report": {},
        "/v1/agents/self/standings": {"authority": "acme", "certificate": Pki().leaf().cert_pem.decode()},
    }
    return msgspec.json.encode(bodies[path]) if path in bodies else b""


async def test_a_forgotten_agent_gets_nothing(here: Site):
    """Its certificate counts for a while, and would otherwise for ever: it renews itself, and vouches for hosts."""
    await here.apply()
    held = await here.join()
    theirs = [
        (method, path) for (method, path), roles in MAY.items() if Role.AGENT in roles and Role.NOBODY not in roles
    ]
    assert len(theirs) >= 6

    async def say(method: str, path: str) -> tuple[int, str]:
        response = await raw(here.holder(held), method, path.format(serial="0" * 40), _body(path))
        return response.status_code, response.text

    refusal = '"code":"agent.forgotten"'
    for method, path in theirs:
        assert refusal not in (await say(method, path))[1], path
    await here.operator.send("DELETE", f"/v1/agents/{AGENT}")
    for method, path in theirs:
        status, text = await say(method, path)
        assert (status, refusal in text) == (403, True), (path, text)
    assert await here.join()  # with a token for its name


async def test_an_operator_of_this_machine_needs_no_certificate(here: Site):
    """The same user over the local socket is an operator."""
    assert (await raw(here.operator, "GET", "/v1/status")).status_code == 200


def asked(**extensions: Any) -> dict[str, Any]:
    return {"extensions": {f"handfast.{name}": value for name, value in extensions.items()}}


@pytest.mark.parametrize(
    ("uid", "role"),
    [(os.geteuid(), Role.OPERATOR), (0, Role.OPERATOR), (os.geteuid() + 1, Role.NOBODY), (65534, Role.NOBODY)],
)
def test_another_user_of_this_machine_is_nobody(uid: int, role: Role):
    """The local socket lets in our own user and root alone, whatever its mode came to be."""
    assert caller_of(asked(peer={"uid": uid, "gid": 0, "pid": 1}), TRUST, (), NOW).role is role


@pytest.mark.parametrize(
    "scope", [{}, {"extensions": None}, {"extensions": {}}, asked(peer_der=None), asked(peer_der=b"")]
)
def test_without_proof_one_is_nobody(scope: dict[str, Any]):
    """What the scope does not prove, no header or path can."""
    assert caller_of(scope, TRUST, (), NOW).role is Role.NOBODY


@pytest.mark.parametrize(
    ("name", "role", "called"),
    [
        ("handfast/operator/ann", Role.OPERATOR, "ann"),
        ("handfast/agent/edge", Role.AGENT, "edge"),
        ("payments", Role.WORKLOAD, "payments"),
        ("team/handfast/operator/ann", Role.WORKLOAD, "team/handfast/operator/ann"),
        ("handfast/gateway/edge", Role.WORKLOAD, "handfast/gateway/edge"),
        ("handfast/operators/ann", Role.WORKLOAD, "handfast/operators/ann"),
    ],
)
def test_the_role_is_in_the_identity(name: str, role: Role, called: str):
    """Only what stands below the platform's own prefix has a role of its own."""
    leaf = Pki().leaf(san_uris=[f"spiffe://{DOMAIN}/{name}"])
    caller = caller_of(asked(peer_der=leaf.cert_der), TRUST, (), NOW)
    assert (caller.role, caller.name, str(caller)) == (role, called, f"spiffe://{DOMAIN}/{name}")


def test_a_certificate_that_tls_took_may_still_be_refused():
    """Revoked, expired, early, foreign, without identity, or a server's: each is refused with its own reason."""
    pki = Pki()
    good = pki.leaf()
    revoked = {good.cert.fingerprint(good.cert.signature_hash_algorithm).hex()}  # type: ignore[arg-type]
    bad = {
        Reason.REVOKED: (good, revoked),
        Reason.CERT_EXPIRED: (pki.expired(), ()),
        Reason.CERT_NOT_YET_VALID: (pki.not_yet_valid(), ()),
        Reason.IDENTITY_FOREIGN_DOMAIN: (pki.leaf(san_uris=["spiffe://example.com/payments"]), ()),
        Reason.IDENTITY_NO_URI_SAN: (pki.leaf(san_uris=[]), ()),
        Reason.CERT_WRONG_EKU: (pki.leaf(eku=[SERVER]), ()),
    }
    for reason, (leaf, denied) in bad.items():
        with pytest.raises(Refused) as caught:
            caller_of(asked(peer_der=leaf.cert.public_bytes(Encoding.DER)), TRUST, denied, NOW)
        assert caught.value.refusal.reason is reason


async def test_a_revoked_certificate_is_refused_on_a_connection_that_is_open(here: Site):
    """TLS looked at the certificate once; the server looks at each request, on the connection that was good before."""
    held = await here.issue("ann", operator=True)
    api = here.holder(held)
    before = await raw(api, "GET", "/v1/status")
    await here.operator.send("POST", "/v1/revocations", RevocationRequest(serial=held.leaf.serial))
    after = await raw(api, "GET", "/v1/status")
    assert before.extensions["network_stream"] is after.extensions["network_stream"]
    assert problem(after) == (403, "revocation.revoked")


@pytest.mark.parametrize(
    ("role", "path"), [(Role.OPERATOR, "/v1/events?after=1000&wait=50"), (Role.AGENT, "/v1/agents/self/world?wait=50")]
)
async def test_who_is_revoked_while_it_waits_gets_no_answer(role: Role, path: str, here: Site):
    """A blocking query that began with a good certificate ends with a refusal."""
    held = await (here.join() if role is Role.AGENT else here.issue("ann", operator=True))
    current = here.server.platform.slices.current.value
    known = {"if-none-match": f'"{current.digest}"'} if current else {}
    waiting = asyncio.create_task(raw(here.holder(held), "GET", path, **known))
    platform = here.server.platform
    while not platform.slices.current._waiters and len(platform.ledger.event_head._waiters) < 2:
        await asyncio.sleep(0.01)
    await here.operator.send("POST", "/v1/revocations", RevocationRequest(serial=held.leaf.serial))
    async with asyncio.timeout(5):
        assert problem(await waiting) == (403, "revocation.revoked")


async def test_an_expired_certificate_is_refused_on_a_connection_that_is_open(here: Site):
    """A connection does not outlive its certificate."""
    api = here.holder(await here.issue("ann", operator=True, ttl_seconds=60))
    assert (await raw(api, "GET", "/v1/status")).status_code == 200
    here.clock.set(here.clock.now() + timedelta(seconds=61))
    assert problem(await raw(api, "GET", "/v1/status")) == (403, "cert.expired")


async def test_who_calls_is_recorded(here: Site):
    """The inventory names the operator that asked, by certificate or by uid."""
    api = await here.being(Role.OPERATOR)
    await raw(api, "PUT", "/v1/world", f"trust_domain: {DOMAIN}\n")
    events = msgspec.json.decode((await here.operator.send("GET", "/v1/events")).content)["events"]
    by_kind = {event["kind"]: event["requester"] for event in events if "requester" in event}
    assert by_kind["certificate.issued"] == f"uid:{os.geteuid()}"
    assert by_kind["world.applied"] == f"spiffe://{DOMAIN}/handfast/operator/ann"
