"""What Envoy counts of requests, and that no client can make it count without end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from handfast.access.world_file import parse_world
from handfast.envoy.loggers import OTHER_METHOD
from handfast.io.envoy_admin import EnvoyAdmin
from tests.envoy_real.h2_client import ask_h2
from tests.envoy_real.lone import client_context, echoes, resources_of, running, slice_of
from tests.support.pki import Pki
from tests.support.ports import free_port
from tests.support.static_envoy import static_bootstrap

pytestmark = pytest.mark.e2e

HOST = "count.test"


def test_methods_that_a_client_makes_up_are_counted_as_one(tmp_path: Path):
    """Envoy keeps each counter for ever, so a client must not be able to name a new one with each request."""
    pki, port, admin = Pki(), free_port(), tmp_path / "admin.sock"
    with echoes(1) as (service,):
        route = {"path": "/", "upstream": f"http://127.0.0.1:{service}", "allow": "anyone"}
        host = {"listen": f"127.0.0.1:{port}", "clients": {"certificate": "off"}, "routes": [route]}
        world = parse_world(json.dumps({"trust_domain": "example.org", "hosts": {HOST: host}}))
        config = static_bootstrap(resources_of(slice_of(world, pki), pki, tmp_path), str(admin))
        with running(config, tmp_path):
            methods = ["GET", "GET", "get", *(f"MADEUP{number}" for number in range(20))]
            context = client_context(None, tmp_path)
            answers = ask_h2(context, port, [("/", method) for method in methods], name=HOST)
            counts = asyncio.run(EnvoyAdmin(admin).stats(r"^handfast\.requests"))
    assert {answer.status for answer in answers} == {200}
    assert {name.split(".method.")[1].split(".")[0]: count for name, count in counts.items()} == {
        "GET": 2,
        OTHER_METHOD: 21,
    }
