"""``handfast agent`` against a real server."""

import json

import pytest

from handfast.trust.joining import Grant
from tests.app.cli.terminal import handfast
from tests.app.sites import Site


@pytest.mark.parametrize(
    ("words", "name", "said"), [((), "", "any new name"), (("--name", "edge-7"), "edge-7", "edge-7")]
)
async def test_a_token_is_printed_alone(words: tuple[str, ...], name: str, said: str, here: Site):
    """Standard output has the token and nothing else; whom it lets in goes to standard error, with its id."""
    shown = await handfast("agent", "token", "--ttl", "15m", *words)
    assert (shown.code, shown.out.count("\n")) == (0, 1)
    token = shown.out.strip()
    grant = await here.server.platform.ledger.use_join_token(token, here.clock.now())
    assert grant == Grant(shown.err.split()[-1], name)
    assert shown.err.startswith(f"for {said}, until ")
    assert token not in shown.err


@pytest.mark.usefixtures("here")
async def test_a_token_as_json():
    """A program gets its fields."""
    plain = json.loads((await handfast("agent", "token", "--name", "edge-7", "--json")).out)
    assert set(plain) == {"id", "token", "name", "expires_at"}
    assert plain["name"] == "edge-7"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("words", "code"), [(("--ttl", "8d"), 2), (("--ttl", "5s"), 2), (("--name", "a/b"), 2), (("--name", "server"), 1)]
)
async def test_what_cannot_be_is_said(words: tuple[str, ...], code: int):
    """A life out of bounds and what is no name are wrong options; a name of the platform's own is refused."""
    shown = await handfast("agent", "token", *words)
    assert (shown.code, shown.out) == (code, "")
    assert shown.err.startswith("handfast: error: ")
