"""Documents that Envoy is told, and patience."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from handfast.envoy.types import HTTP_MANAGER, ROUTER
from handfast.io import ads

Json = dict[str, Any]
FROM_ADS: Json = {"ads": {}, "resource_api_version": "V3"}
DELTA = f"{ads._SERVICE}DeltaAggregatedResources"
LIMIT = 5.0


def listener(port: int, *, name: str = "l", manager: Json | None = None, **fields: Any) -> Json:
    typed = {
        "@type": HTTP_MANAGER,
        "stat_prefix": "h",
        "rds": {"config_source": FROM_ADS, "route_config_name": "r"},
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
        **(manager or {}),
    }
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": typed}]}],
        **fields,
    }


def route(body: str) -> Json:
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": body}}}
    return {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [answer]}]}


async def eventually(look: Callable[[], Awaitable[bool]]) -> bool:
    """Look again and again for at most 5 seconds."""
    async with asyncio.timeout(LIMIT):
        while not await look():
            await asyncio.sleep(0.02)
    return True
