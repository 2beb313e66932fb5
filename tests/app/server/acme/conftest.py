from collections.abc import AsyncIterator

import pytest

from handfast.io import acme_challenges
from handfast.io.acme_challenges import LookSettings
from tests.app.server.acme.client import Acme, Responder, responder
from tests.app.sites import Site

ACME_WORLD = """\
trust_domain: example.org
workloads:
  payments: {dns: [localhost, payments.internal, other.internal], ttl: 48h}
  brief: {dns: [localhost], ttl: 10m}
"""


@pytest.fixture
async def web(here: Site, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Responder]:
    """Give what serves challenges; the server looks for them there, and once each."""
    monkeypatch.setattr(acme_challenges, "PAUSES_S", ())
    async with responder() as serving:
        here.server.platform.acme.lookout._settings = LookSettings(http_port=serving.port)
        yield serving


@pytest.fixture
async def stranger(here: Site, web: Responder) -> Acme:
    """Give a client without an account, where the world has workloads that may have names."""
    await here.apply(ACME_WORLD)
    return Acme(here, here.anonymous())


@pytest.fixture
async def client(stranger: Acme) -> Acme:
    """Give a client with an account for ``payments``."""
    answer = await stranger.register()
    assert answer.status_code == 201, answer.text
    return stranger
