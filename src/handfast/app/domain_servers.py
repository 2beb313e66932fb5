"""The servers of the trust domains beside the first one: each is started as the first is, but for what belongs to one alone."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from handfast.app.domains import Domain, domains
from handfast.app.server.build import Server, ServerConfig, build_server
from handfast.app.server.status import StatusConfig
from handfast.base.refusal import BadInput
from handfast.io.ports import Clock


async def start_domains(first: ServerConfig, clock: Clock, stack: contextlib.AsyncExitStack) -> list[Server]:
    """Start the servers of all trust domains beside the ``first``; ``stack`` stops them.

    Raises:
        HandfastError: one cannot be started, or has the name of the first.
    """
    started = []
    for one in domains(first.directory):
        if one.trust_domain == first.trust_domain:
            raise BadInput(
                f"{one.trust_domain} is this server's first trust domain", file=str(one.directory), hint="move it away"
            )
        server = await build_server(_config(one, first), clock)
        stack.push_async_callback(server.stop)
        await server.start()
        started.append(server)
    return started


def _config(one: Domain, first: ServerConfig) -> ServerConfig:
    return replace(
        first,
        directory=one.directory,
        trust_domain=one.trust_domain,
        api=one.settings.api,
        admin=one.settings.admin,
        database=None,
        status=StatusConfig(listen=one.settings.status, url=one.settings.status_url, shards=one.settings.crl_shards),
    )
