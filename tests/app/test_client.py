import json
import ssl
from pathlib import Path

import httpx2
import pytest

from handfast.app.client import Api, ApiError, _error
from handfast.app.server.endpoints import problem
from handfast.app.server.messages import AuthorityAnswer, Nothing, StatusAnswer
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, HandfastError, Refusal, Refused, Unavailable
from tests.app.sites import Site, site


def received(error: HandfastError) -> HandfastError:
    """Send an error as the server does, and read it as the client does."""
    sent = problem(error)
    return _error(httpx2.Response(sent.status_code, content=bytes(sent.body)))


@pytest.mark.parametrize("reason", Reason)
def test_a_refusal_comes_through_with_its_reason(reason: Reason):
    """The client raises what the server raised, in the server's words."""
    sent = Refused(Refusal(reason, {"serial": "12"}))
    got = received(sent)
    assert isinstance(got, ApiError)
    assert got.refusal.reason is reason
    assert (str(got), got.hint) == (str(sent), sent.hint)


@pytest.mark.parametrize("error", [BadInput("odd", key="name", hint="mend it"), Unavailable("away", hint="wait")])
def test_the_other_exceptions_come_through(error: HandfastError):
    """Kind, sentence and hint."""
    got = received(error)
    assert type(got) is type(error)
    assert (str(got), got.hint) == (str(error), error.hint)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"code": "x"}', b"\xff", b"null"])
@pytest.mark.parametrize("status", [400, 404, 500, 502])
def test_what_is_no_problem_document_means_that_this_is_not_our_server(status: int, body: bytes):
    """A proxy's error page is no refusal."""
    assert isinstance(_error(httpx2.Response(status, content=body)), Unavailable)


def test_a_reason_of_a_newer_server_is_still_an_error():
    """An unknown code falls back on the status."""
    document = {"code": "novel.reason", "title": "t", "detail": "d", "hint": "h"}
    for status, kind in ((403, BadInput), (503, Unavailable)):
        error = _error(httpx2.Response(status, content=json.dumps(document).encode()))
        assert isinstance(error, kind)
        assert (str(error), error.hint) == ("d", "h")


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path):
    """Neither socket nor port: the place is named, and the hint says what to do."""
    context = ssl.create_default_context()
    for api, place in (
        (Api.local(tmp_path / "none.sock"), "none.sock"),
        (Api.remote("https://127.0.0.1:1", context), "127.0.0.1:1"),
    ):
        async with api:
            with pytest.raises(Unavailable, match=place) as caught:
                await api.send("GET", "/v1/status")
        assert caught.value.hint


async def test_an_answer_of_another_shape_is_unavailable(here: Site):
    """A newer or broken server does not crash the command line."""
    with pytest.raises(Unavailable, match="not understood"):
        await here.operator.call("GET", "/v1/authority", StatusAnswer)
    with pytest.raises(Unavailable, match="not understood"):
        await here.operator.call("GET", "/v1/authority", Nothing)


async def test_a_stranger_server_is_not_talked_to(here: Site, tmp_path: Path):
    """A server whose certificate is not of the roots gets no request."""
    async with site(tmp_path / "other") as other:
        from handfast.sdk.contexts import anonymous_context  # noqa: PLC0415

        async with Api.remote(here.server.url, anonymous_context(other.bundle.encode())) as api:
            with pytest.raises(Unavailable):
                await api.call("GET", "/v1/authority", AuthorityAnswer)


async def test_the_environments_proxy_is_not_used(here: Site, monkeypatch: pytest.MonkeyPatch):
    """Mutual TLS goes straight to the server."""
    for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert (await here.anonymous().call("GET", "/v1/authority", AuthorityAnswer)).bundle == here.bundle


async def test_a_reconnect_keeps_what_is_under_way_and_closes_what_was(here: Site):
    """The client before the last one is closed; the last one may still answer."""
    api = here.anonymous()
    first = api._client
    await api.reconnect()
    second = api._client
    assert not first.is_closed
    await api.reconnect()
    assert first.is_closed
    assert not second.is_closed
    await api.close()
    assert second.is_closed
