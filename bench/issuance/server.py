"""The server under measurement: one control plane in one process, without an agent or Envoy beside it.

``python -m bench.issuance.server DIRECTORY`` listens on free ports of loopback and prints the API's. ``HANDFAST_DATABASE`` counts. With ``PROFILE`` in the
environment it writes what cProfile saw to that file when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import cProfile
import os
import signal
import sys
from pathlib import Path

import uvloop
from bench.support import LOOPBACK

from handfast.app.collecting import begin_to_serve
from handfast.app.logs import log_to
from handfast.app.server.build import ServerConfig, build_server
from handfast.base.spiffe import TrustDomain
from handfast.io.clock import SystemClock
from handfast.io.databases import chosen_address
from handfast.io.files import private_directory

TRUST_DOMAIN = "example.org"


async def _serve(directory: Path) -> None:
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    config = ServerConfig(
        directory=private_directory(directory),
        trust_domain=TrustDomain(TRUST_DOMAIN),
        api=(LOOPBACK, 0),
        admin=(LOOPBACK, 0),
        database=chosen_address(""),
    )
    server = await build_server(config, SystemClock())
    try:
        await server.start()
        begin_to_serve()
        print(f"listening on {server.api_address[1]}", flush=True)
        await over.wait()
    finally:
        await server.stop()


def main() -> None:
    """Serve until a signal comes."""
    directory = Path(sys.argv[1])
    private_directory(directory)
    log_to(str(directory / "handfast.log"))
    profile = cProfile.Profile() if "PROFILE" in os.environ else contextlib.nullcontext()
    with profile, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(directory))
    if isinstance(profile, cProfile.Profile):
        profile.dump_stats(os.environ["PROFILE"])


if __name__ == "__main__":
    main()
