import json
from ipaddress import ip_network

import pytest

from handfast.app.cli.challenges import look_settings
from handfast.base.refusal import BadInput
from handfast.io.acme_challenges import LookSettings
from handfast.trust.acme.keys import from_base64url
from tests.app.cli.terminal import handfast
from tests.app.sites import Site


@pytest.fixture
async def here(here: Site) -> Site:
    """Give a running control plane with a world."""
    await here.apply()
    return here


@pytest.mark.usefixtures("here")
async def test_a_key_is_shown_once():
    """When it is made, with where to use it; the list has its id, and never its secret."""
    shown = await handfast("acme", "key", "payments", "--json")
    made = json.loads(shown.out)
    assert len(from_base64url(made["hmac_key"])) == 32
    assert made["directory"] == "/acme/example.org/directory"
    text = await handfast(
        "acme", "key", "wiki", "--domains", "wiki.internal, www.wiki.internal", "--accounts", "3", "--ttl", "1h"
    )
    assert text.out.startswith("for wiki, 3 x, until ")
    assert "https://SERVER/acme/example.org/directory" in text.out
    listed = await handfast("acme", "list")
    assert f"{made['key_id']}  payments  1 x" in listed.out
    assert made["hmac_key"] not in listed.out + (await handfast("acme", "list", "--json")).out


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("key", "wiki"), 2, "no DNS name"),
        (("key", "payments", "--domains", "x.internal"), 2, "the world's entry"),
        (("key", "payments", "--ttl", "59s"), 2, "--ttl"),
        (("key", "payments", "--ttl", "31d"), 2, "--ttl"),
        (("key", "handfast/server"), 1, "belong to the platform"),
        (("deactivate", "nobody"), 1, "no such thing"),
    ],
)
async def test_what_cannot_be_done_is_told(words: tuple[str, ...], code: int, said: str):
    """With the exit code of its kind."""
    shown = await handfast("acme", *words)
    assert (shown.code, shown.out) == (code, "")
    assert said in shown.err


def test_where_challenges_are():
    """Each setting alone; a network takes the place of all others."""
    assert look_settings(None) == LookSettings()
    assert look_settings(["http-port=8080", "tls-port=8443"]) == LookSettings(http_port=8080, tls_port=8443)
    assert look_settings(["resolver=10.0.0.1"]).resolver == ("10.0.0.1", 53)
    assert look_settings(["resolver=10.0.0.1:5353"]).resolver == ("10.0.0.1", 5353)
    assert look_settings(["resolver=[fd00::1]:53"]).resolver == ("fd00::1", 53)
    networks = look_settings(["network=10.0.0.0/8", "network=fd00::/8"]).networks
    assert networks == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    "option",
    ["", "x", "http-port", "http-port=0", "http-port=65536", "tls-port=-1", "resolver=a:b", "resolver=", "network=x", "network=10.0.0.1/8", "resolver=dns.internal"],
)  # fmt: skip
def test_a_wrong_setting_is_refused(option: str):
    """When the program starts, not when the first challenge comes."""
    with pytest.raises(BadInput):
        look_settings([option])
