"""What an operator does in a rotation, and the time that it takes."""

from __future__ import annotations

from datetime import timedelta

from handfast.app.client import Api
from handfast.app.server.messages import (
    CertificateAnswer,
    RenewRequest,
)
from handfast.app.server.rotation_messages import AuthoritiesAnswer, RotationRequest
from handfast.io.credentials import new_key
from handfast.trust.rotation import SETTLE
from tests.app.sites import Site

ROTATION = "/v1/authorities/rotation"
LONG_AFTER = timedelta(days=8)


async def rotate(here: Site, *, root: bool = False, compromised: bool = False) -> AuthoritiesAnswer:
    asked = RotationRequest(root=root, compromised=compromised)
    return await here.operator.call("POST", ROTATION, AuthoritiesAnswer, asked)


async def seen(here: Site) -> AuthoritiesAnswer:
    return await here.operator.call("GET", "/v1/authorities", AuthoritiesAnswer)


def stages(answer: AuthoritiesAnswer) -> list[str]:
    return [row.stage for row in answer.generations]


async def settled(here: Site) -> AuthoritiesAnswer:
    """Let the time pass that a step needs to reach every server, and the server's own certificate be renewed."""
    for _ in range(8):
        here.clock.set(here.clock.now() + 2 * SETTLE)
        await here.clock.advance(0)
        await here.server._renew()
        await here.server.platform.rotation.go_on()
        await here.clock.advance(0)
    return await seen(here)


async def renew(api: Api) -> None:
    """Renew, as whoever holds a certificate does."""
    await api.call("POST", "/v1/certificates/renew", CertificateAnswer, RenewRequest(csr=new_key().csr_pem))
