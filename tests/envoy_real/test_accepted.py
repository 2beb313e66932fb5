"""What the translator writes, Envoy reads: golden files, the largest worlds, and strings that mean harm."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest

from handfast.access.world_file import parse_world
from handfast.base.reasons import Reason
from handfast.envoy.bootstrap import bootstrap
from handfast.envoy.program import literal
from tests.envoy.material import (
    CLIENT_ROOTS,
    GOLDEN,
    LOG,
    PROGRAM,
    SOCKET,
    UPSTREAM_ROOTS,
    chain_of,
    key_of,
    read_golden,
)
from tests.envoy_real import lone
from tests.envoy_real.lone import checked, client_context, resources_of, running, slice_of
from tests.support.pki import SERVER, Pki
from tests.support.ports import free_port
from tests.support.static_envoy import static_bootstrap

pytestmark = pytest.mark.e2e

NASTY = (
    "", '"', "'", "\\", "\\\\", "\n", "\r\n", "\0", "]]", "]==]", "--[[", "--", '"..os.exit().."', '"]=1,["', "\\34", "\\x22",
    "\u2028", "é☃𝄞", "\x7f", "\x80", "\x1a", "%s", "${x}", "a" * 70_000, "".join(map(chr, range(256))), "1\\0002", "9" * 30,
)  # fmt: skip
_HEX = """
local function hex(text) return (string.gsub(text, ".", function(c) return string.format("%02x", string.byte(c)) end)) end
function envoy_on_request(handle)
  local told = {}
  for i, text in ipairs(LIST) do told[i] = hex(text) .. ":" .. hex(MAP[text][1]) .. ":" .. tostring(MAP[text][2]) end
  handle:respond({[":status"] = "200"}, '{"told":"' .. table.concat(told, ",") .. '"}')
end
"""


def _accepted(golden: Path, pki: Pki, directory: Path) -> str:
    """Have Envoy read a golden file, with real certificates in place of the words that stand for them."""
    text = golden.read_text()
    hosts = {name: pki.leaf(name, dns=[name], eku=[SERVER]) for name in _hosts_in(text)}
    roots = pki.roots_pem.decode()
    stands_for = {CLIENT_ROOTS: roots, UPSTREAM_ROOTS: roots, PROGRAM: lone.PROGRAM, LOG: str(directory / "rows.jsonl")}
    stands_for |= {SOCKET: str(directory / "session.sock"), "(a CRL)(another CRL)": pki.crl().decode()}
    stands_for |= {chain_of(name): one.chain_pem.decode() for name, one in hosts.items()}
    stands_for |= {key_of(name): one.key_pem.decode() for name, one in hosts.items()}
    return checked(static_bootstrap(read_golden(text, stands_for)), directory, golden.stem)


def _hosts_in(text: str) -> list[str]:
    tables = json.loads(text)["type.googleapis.com/envoy.config.route.v3.RouteConfiguration"]
    return list(tables)


def test_envoy_takes_every_golden_file(tmp_path: Path):
    """Each golden file is a configuration that Envoy starts with."""
    pki, goldens = Pki(), sorted(GOLDEN.glob("*.json"))
    assert len(goldens) >= 9
    with ThreadPoolExecutor(2) as pool:
        words = list(pool.map(lambda golden: _accepted(golden, pki, tmp_path), goldens))
    assert dict(zip((golden.name for golden in goldens), words, strict=True)) == {golden.name: "" for golden in goldens}


def test_envoy_takes_the_bootstrap(tmp_path: Path):
    """What Envoy is started with is what it understands."""
    assert checked(bootstrap(node="gw-1", ads_socket=str(tmp_path / "ads.sock")), tmp_path, "bootstrap") == ""


def test_envoy_says_what_it_does_not_take(tmp_path: Path):
    """The checks above can fail: a name that Envoy does not know is told."""
    assert "no_such_field" in checked({"no_such_field": 1}, tmp_path, "bad")


def test_the_largest_policies_compile(tmp_path: Path):
    """A world as large as a file may be is not too large for Lua, whether it has many rules or many routes."""
    pki = Pki()
    for name, (hosts, routes, rules) in {"rules": (1, 36, 1000), "routes": (4, 200, 30)}.items():
        world = {f"h{host}.test": {"listen": 8443, "routes": _routes(host, routes, rules)} for host in range(hosts)}
        parsed = parse_world(json.dumps({"trust_domain": "e.org", "hosts": world}))
        assert checked(static_bootstrap(resources_of(slice_of(parsed, pki), pki, tmp_path)), tmp_path, name) == ""


def _routes(host: int, routes: int, rules: int) -> list[dict[str, object]]:
    return [
        {
            "path": f"/{route}",
            "upstream": "http://127.0.0.1:9",
            "allow": [f"{host}-{route}-{rule}" for rule in range(rules)],
        }
        for route in range(routes)
    ]


def test_strings_are_to_lua_what_they_are_to_us(tmp_path: Path):
    """Whatever stands in a string, Lua reads back the same octets, as a value and as a key."""
    pki, port = Pki(), free_port()
    route = {"path": "/", "upstream": "http://127.0.0.1:9", "allow": "anyone"}
    hosts = {"lua.test": {"listen": f"127.0.0.1:{port}", "clients": {"certificate": "off"}, "routes": [route]}}
    world = parse_world(json.dumps({"trust_domain": "e.org", "hosts": hosts}))
    resources = resources_of(slice_of(world, pki), pki, tmp_path)
    tables = f"local LIST = {literal(NASTY)}\nlocal MAP = {literal({one: [one + '!', one == ''] for one in NASTY})}"
    for extension in resources["type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"].values():
        extension["typed_config"]["default_source_code"]["inline_string"] = tables + _HEX  # type: ignore[index]
    with running(static_bootstrap(resources), tmp_path) as envoy:
        with lone.Connection(client_context(None, tmp_path), port, "lua.test") as connection:
            told = connection.ask("/").seen["told"].split(",")
        assert envoy.faults() == []
    assert told == [f"{one.encode().hex()}:{(one + '!').encode().hex()}:{str(one == '').lower()}" for one in NASTY]


def test_what_a_client_reads_when_the_service_is_down(tmp_path: Path):
    """It is a problem with a code and the request's id, and no word on what failed or where."""
    pki, port, dead = Pki(), free_port(), free_port()
    plain = {"path": "/", "upstream": f"http://127.0.0.1:{dead}", "allow": "anyone"}
    secure = {"path": "/tls", "upstream": f"https://127.0.0.1:{dead}", "allow": "anyone"}
    hosts = {"down.test": {"listen": f"127.0.0.1:{port}", "clients": {"certificate": "off"}, "routes": [plain, secure]}}
    world = parse_world(json.dumps({"trust_domain": "e.org", "hosts": hosts}))
    config = static_bootstrap(resources_of(slice_of(world, pki), pki, tmp_path))
    with running(config, tmp_path), lone.Connection(client_context(None, tmp_path), port, "down.test") as connection:
        answers = [connection.ask("/"), connection.ask("/tls"), connection.ask("/%2f")]
    expected = [(503, Reason.UPSTREAM_UNAVAILABLE), (503, Reason.UPSTREAM_UNAVAILABLE), (400, Reason.REQUEST_REJECTED)]
    for answer, (status, reason) in zip(answers, expected, strict=True):
        headers = {name.lower(): value for name, value in answer.headers}
        assert (answer.status, headers["content-type"]) == (status, "application/problem+json")
        request_id = answer.seen.pop("request_id")
        problem = {"type": f"urn:handfast:{reason}", "title": reason.summary, "status": status, "code": reason}
        assert answer.seen == problem
        assert headers.get("x-request-id") == request_id
        # What is malformed is answered before the request gets an id.
        assert request_id is None if status == 400 else UUID(request_id)
        assert str(dead) not in json.dumps(headers)
