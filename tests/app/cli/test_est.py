"""``handfast est`` against a real server."""

import json

import pytest

from handfast.base.reasons import Reason
from tests.app.cli.terminal import handfast
from tests.app.sites import Site


@pytest.fixture
async def here(here: Site) -> Site:
    """Give a running control plane with a world."""
    await here.apply()
    return here


async def test_a_token_is_printed_alone(here: Site):
    """Standard output has the token and nothing else; what it is good for goes to standard error."""
    shown = await handfast("est", "token", "payments", "--uses", "3", "--ttl", "2h")
    assert (shown.code, shown.out.count("\n")) == (0, 1)
    assert shown.err.startswith("for payments, 3 x, until ")
    token, now = shown.out.strip(), here.clock.now()
    assert await here.server.platform.ledger.enrolment_name(token, now) == "payments"
    assert token not in shown.err


@pytest.mark.usefixtures("here")
async def test_a_token_as_json():
    """A program gets its fields."""
    plain = json.loads((await handfast("est", "token", "payments", "--json")).out)
    assert set(plain) == {"id", "token", "name", "uses", "expires_at"}
    assert (plain["name"], plain["uses"]) == ("payments", 1)


@pytest.mark.usefixtures("here")
async def test_tokens_are_withdrawn():
    """All of a name, once."""
    for _ in range(2):
        await handfast("est", "token", "payments")
    assert (await handfast("est", "withdraw", "payments")).out == "2 withdrawn\n"
    assert json.loads((await handfast("est", "withdraw", "payments", "--json")).out) == {"withdrawn": 0}


@pytest.mark.usefixtures("here")
async def test_what_cannot_be_is_said():
    """A name without an entry is refused (1); a life out of bounds is a wrong option (2)."""
    unknown = await handfast("est", "token", "nobody")
    assert unknown.code == 1
    assert Reason.ENTRY_NO_MATCH.summary in unknown.err
    for ttl in ("6s", "31d", "soon"):
        shown = await handfast("est", "token", "payments", "--ttl", ttl)
        assert (shown.code, "--ttl" in shown.err) == (2, True)
