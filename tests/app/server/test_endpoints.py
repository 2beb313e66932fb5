"""What all endpoints have in common: bodies that are bounded and checked, problem documents, the OpenAPI document."""

import asyncio
import json
import time
from contextlib import suppress
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.requests import Request

from handfast.app.server.build import endpoints
from handfast.app.server.callers import Role
from handfast.app.server.endpoints import MAX_BODY, Endpoint, bounded_body, openapi, problem, reader
from handfast.app.server.messages import AgentReport, CertificateRequest, JoinRequest, Message, RevocationRequest
from handfast.app.server.platform import Platform
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, HandfastError, Refusal, Refused, Unavailable
from handfast.sdk.contexts import anonymous_context
from tests.app.sites import Site, raw
from tests.app.sites import problem as read_problem

ALL = endpoints(cast("Platform", None))
WITH_BODY = [e for e in ALL if e.body is not None and e.body is not str]
DOCUMENT = openapi(ALL)


def name_of(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


async def caller(site: Site, endpoint: Endpoint) -> Any:
    if Role.OPERATOR in endpoint.roles:
        return site.operator
    return await site.being(Role.AGENT)


@pytest.mark.parametrize("endpoint", WITH_BODY, ids=name_of)
async def test_a_body_that_is_not_as_described_is_bad_input(endpoint: Endpoint, here: Site):
    """No JSON, another shape, an unknown field: refused with the place, before anything happens."""
    api, before = await caller(here, endpoint), here.server.platform.ledger.event_head.value
    bodies = [
        b"",
        b"{",
        b"\xff",
        b"null",
        b"[]",
        b'"x"',
        b'{"unknown": 1}',
        b'{"csr": 1}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"csr": "\xff"}',
        b'{"\xff": 1}',
        b'{"findings": [{"a": ' + b"[" * 100_000,
    ]
    for body in bodies:
        if body == b"null" and endpoint.method == "GET":
            continue
        response = await raw(api, endpoint.method, endpoint.path, body)
        assert read_problem(response) == (400, "bad-input"), body[:20]
    assert "unknown" in (await raw(api, endpoint.method, endpoint.path, b'{"unknown": 1}')).json()["detail"]
    assert here.server.platform.ledger.event_head.value == before


async def test_a_body_is_bounded_for_everybody(here: Site):
    """A stranger's body is read up to the bound and no further."""
    response = await raw(here.anonymous(), "POST", "/v1/agents/join", b" " * (MAX_BODY + 1))
    assert read_problem(response) == (400, "bad-input")


async def test_a_body_in_crumbs_costs_no_more_than_its_size():
    """What came before is not copied at each piece: who sends little at a time would make the server work much."""
    left = MAX_BODY // 32

    async def receive() -> dict[str, Any]:
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": bytes(32), "more_body": left > 0}

    begun = time.process_time()
    body = await bounded_body(Request({"type": "http", "headers": []}, receive))
    assert len(body) == MAX_BODY
    assert time.process_time() - begun < 3


async def test_a_stranger_sends_no_body_where_nobody_may(here: Site):
    """Who may not call is refused before the body has come."""
    context = anonymous_context(here.bundle.encode())
    reader, writer = await asyncio.open_connection(*here.server.api_address, ssl=context, server_hostname="localhost")
    writer.write(b"PUT /v1/world HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n")
    async with asyncio.timeout(5):
        assert b" 401 " in await reader.readline()
    writer.transport.abort()


async def test_unknown_paths_and_methods_are_no_endpoints(here: Site):
    """Nothing is served beside the endpoints, and that too is said in a problem document."""
    assert read_problem(await raw(here.operator, "GET", "/v1/nothing")) == (404, "not-found")
    assert read_problem(await raw(here.operator, "DELETE", "/v1/world")) == (405, "bad-input")
    assert read_problem(await raw(here.operator, "GET", "/metrics")) == (404, "not-found")


async def test_who_leaves_amid_a_body_is_nobodys_fault(here: Site, caplog: pytest.LogCaptureFixture):
    """Any client may hang up: no error is told of it, and nothing happens."""
    context, before = anonymous_context(here.bundle.encode()), here.server.platform.ledger.event_head.value
    _, writer = await asyncio.open_connection(*here.server.api_address, ssl=context, server_hostname="localhost")
    writer.write(b"POST /v1/agents/join HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
    while not (tasks := list(here.server._front._state.tasks)):
        await asyncio.sleep(0.005)
    writer.transport.abort()
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert not caplog.records
    assert here.server.platform.ledger.event_head.value == before


async def test_head_is_answered_as_get_without_a_body(here: Site):
    """What the table of endpoints does not hold is found all the same."""
    response = await raw(here.operator, "HEAD", "/v1/status")
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BadInput("bad", key="k", hint="do"), 400, "bad-input"),
        (Unavailable("away", hint="wait"), 503, "unavailable"),
        *((Refused(Refusal(reason)), None, reason.value) for reason in Reason),
    ],
    ids=lambda value: getattr(getattr(value, "refusal", None), "reason", None),
)
def test_every_error_is_a_problem_document(error: HandfastError, status: int | None, code: str):
    """Code, title, detail and hint are the error's own; the status says who has to act."""
    response = problem(error)
    document = msgspec.json.decode(cast("bytes", response.body))
    assert response.media_type == "application/problem+json"
    assert document["code"] == code
    assert document["status"] == response.status_code == (status or response.status_code)
    assert 400 <= response.status_code < 600
    assert (document["title"], document["detail"], document["hint"]) == (error.message, str(error), error.hint)


def test_the_document_is_valid():
    """OpenAPI 3.1, by the specification's own schema."""
    OpenAPIV31SpecValidator(cast("Any", DOCUMENT)).validate()


def test_the_document_describes_what_is_served_and_nothing_else():
    """Each operation once, with who may call it, and every name of an operation is its own."""
    described = {(method.upper(), path) for path, operations in DOCUMENT["paths"].items() for method in operations}
    assert described == {(e.method, e.path) for e in ALL}
    operations = [one for operations in DOCUMENT["paths"].values() for one in operations.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    assert all(one["summary"] and one["description"].startswith("For: ") for one in operations)


async def test_the_document_that_is_served_is_this_one(here: Site):
    """Anybody may read it."""
    assert (await raw(here.anonymous(), "GET", "/v1/openapi.json")).json() == DOCUMENT


async def test_the_routes_are_the_endpoints(here: Site):
    """What the server routes is what is described, plus the document itself and what standards describe."""
    front_app = here.server._front._config.app
    app = cast("Any", front_app).__closure__[0].cell_contents
    routed = {(method, route.path) for route in app.routes for method in route.methods - {"HEAD"}}
    standards = {(method, path) for method, path in routed if path.startswith(("/acme/", "/.well-known/est/"))}
    assert standards
    assert routed - standards == {(e.method, e.path) for e in ALL} | {("GET", "/v1/openapi.json")}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("body", [CertificateRequest, JoinRequest, RevocationRequest, AgentReport, str])
@given(data=st.data())
def test_a_body_is_read_or_refused(body: type[Message | str], data: st.DataObject):
    """Whatever comes is read, or is bad input; nothing else escapes."""
    names = list(getattr(body, "__struct_fields__", ("x",)))
    plain = data.draw(st.dictionaries(st.sampled_from(names) | st.text(max_size=5), JSON, max_size=4))
    raw_body = data.draw(st.binary(max_size=64) | st.just(json.dumps(plain).encode()))
    with suppress(BadInput):
        reader(body)(raw_body)
