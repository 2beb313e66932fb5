from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handfast.access.policy import Open, Route
from handfast.access.world import World
from handfast.access.world_file import parse_world
from handfast.base.reasons import EXPLANATIONS
from handfast.envoy.program import AGENT_CLUSTER, JWKS, METHODS, MISDIRECTED, literal, program, route_name
from tests.access import strategies as some
from tests.envoy.material import PROGRAM, WORLDS, slice_of

TOKEN = re.compile(r'\s*(?:"((?:[^"\\\n\r\0]|\\[0-9]{3})*)"|(-?[0-9]+)|(true|false)|([{}\[\]=,]))')
ROUTE = re.compile(r'ROUTES\[("[^"]*")\]=\(function\(\) return (.*?) end\)\(\)(?= |$)')
NASTY = (
    '"',
    "'",
    "\\",
    "\n",
    "\r",
    "\0",
    "]]",
    "]==]",
    "--[[",
    '"]=os.exit()--',
    "\\",
    "\\34",
    "\u2028",
    "é☃𝄞",
    "\x7f",
    "${x}",
    "%s",
)
texts = st.one_of(st.text(), st.lists(st.sampled_from(NASTY)).map("".join))
values = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**53), 2**53), texts),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4), st.dictionaries(texts, inner, min_size=1, max_size=4)
    ),
    max_leaves=12,
)


def read(text: str) -> Any:
    """Read a Lua literal of the few kinds that are written here, and nothing after it."""
    value, at = _read(text, 0)
    assert at == len(text)
    return value


def _token(text: str, at: int) -> tuple[Any, str, int]:
    """Give a value or a mark, and where the next token begins."""
    found = TOKEN.match(text, at)
    assert found, text[at : at + 40]
    quoted, number, truth, mark = found.groups()
    if quoted is not None:
        octets = re.sub(r"\\([0-9]{3})", lambda escape: chr(int(escape[1])), quoted)
        return octets.encode("latin-1").decode(), "", found.end()
    return (int(number) if number else truth == "true"), mark or "", found.end()


def _read(text: str, at: int) -> tuple[Any, int]:
    value, mark, at = _token(text, at)
    if mark != "{":
        assert not mark
        return value, at
    listed, keyed = list[Any](), dict[Any, Any]()
    while (following := _token(text, at))[1] != "}":
        if following[1] == "[":
            key, at = _read(text, following[2])
            assert text[at : at + 2] == "]="
            keyed[key], at = _read(text, at + 2)
        else:
            one, at = _read(text, at)
            listed.append(one)
        at += text[at] == ","
    assert not (listed and keyed)
    return (keyed or listed), following[2]


def tables(text: str) -> dict[str, Any]:
    """Read the tables in front of the program."""
    lines = [line for line in text.split("\n") if line.startswith("local ")]
    named = {name: read(value) for name, value in (line.removeprefix("local ").split(" = ", 1) for line in lines)}
    routes = {read(name): read(table) for line in text.split("\n") for name, table in ROUTE.findall(line)}
    return named | {"ROUTES": routes}


def compiled(world: World, **more: Any) -> dict[str, Any]:
    programs = [
        tables(program(slice_of(world, **more), host, PROGRAM, by="spiffe://example.org/gw"))
        for host in world.hosts.values()
    ]
    return {
        **(programs[0] if programs else {}),
        "ROUTES": {name: route for one in programs for name, route in one["ROUTES"].items()},
    }


# Literals


@given(values)
def test_a_literal_says_what_it_was_made_of(value: object):
    """Read as Lua reads it, each literal is the value that was written."""
    assert read(literal(value)) == value


@given(texts)
def test_no_string_gets_out_of_its_quotes(text: str):
    """What a string is written as is one line of harmless ASCII between two quotes, with three digits after each backslash."""
    assert re.fullmatch(r'"(?:[A-Za-z0-9 _./:*,;()\'-]|\\[0-9]{3})*"', literal(text))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ((), "{}"),
        ({}, "{}"),
        (True, "true"),
        (7, "7"),
        ('a"\n', '"a\\034\\010"'),
        ({"a]]": [1, "é"]}, '{["a\\093\\093"]={1,"\\195\\169"}}'),
    ],
)
def test_how_literals_look(value: object, written: str):
    """They are as short as a reader can still read them."""
    assert literal(value) == written


@pytest.mark.parametrize("value", [None, 1.5, object()])
def test_what_lua_has_no_literal_for(value: object):
    """Other kinds are an error of ours, not a guess."""
    with pytest.raises(TypeError, match="no Lua literal"):
        literal([value])


def test_half_a_character_is_refused():
    """A string that is no text raises, and so is never compiled."""
    with pytest.raises(UnicodeEncodeError):
        literal("\ud800")


# Programs


@settings(max_examples=25)
@given(some.worlds())
def test_every_route_is_in_the_program(world: World):
    """Each route has a table under the name that Envoy calls it by, and each host those for what is no route."""
    named = {route_name(host, route) for host in world.hosts.values() for route in host.routes}
    platform = {f"{host}{mark}" for host in world.hosts for mark in ("!", MISDIRECTED, JWKS)}
    routes = compiled(world)["ROUTES"]
    assert routes.keys() == named | platform
    for host in world.hosts.values():
        for route in host.routes:
            table = routes[route_name(host, route)]
            assert (table["host"], table["path"], table["mode"]) == (host.name, route.path, route.mode.value)
            assert table["trust"] == {domain.name: True for domain in host.clients.trust}
            assert table.get("open") == (route.allow.value if isinstance(route.allow, Open) else None)
            assert ("allow" in table) is not ("open" in table)


def test_rules_are_looked_up_by_identity():
    """Whole identities are keys; what ends with a star is a prefix; no methods are all of them."""
    world = parse_world((WORLDS / "translate-rules.yaml").read_text())
    table = compiled(world)["ROUTES"]["api.example.org/v1"]
    assert table["allow"] == {
        "exact": {
            "spiffe://example.org/payments": [True],
            "spiffe://example.org/ledger": [{"GET": True, "M-SEARCH": True}],
        },
        "prefix": [["spiffe://example.org/", True], ["spiffe://example.org/team/", True]],
    }
    assert table["deny"] == {
        "exact": {"spiffe://example.org/team/reports": [{"DELETE": True, "POST": True}]},
        "prefix": [["spiffe://partner.org/", True]],
    }
    assert table["methods"] == {"GET": True, "M-SEARCH": True, "POST": True}
    assert table["headers"] == [["x-client-name", "name"], ["x-serial", "serial"], ["x-until", "not-after"]]
    assert compiled(world)["ROUTES"]["api.example.org/closed"]["allow"] == {"exact": [], "prefix": []}


def test_what_else_the_program_knows():
    """Deny list, revision, titles, and the methods that decisions are kept for: those of HTTP and those that are named."""
    world = parse_world((WORLDS / "translate-rules.yaml").read_text())
    known = compiled(world, denied=("ab" * 32,))
    assert known["DENIED"] == {"ab" * 32: True}
    assert (known["REVISION"], known["BY"], known["AGENT"]) == ("3", "spiffe://example.org/gw", AGENT_CLUSTER)
    assert known["TITLES"] == {reason.value: one.summary for reason, one in EXPLANATIONS.items()}
    assert known["METHODS"].keys() == {*METHODS, "M-SEARCH"}


def test_the_program_comes_last_and_whole():
    """The text that reads the tables follows them unchanged."""
    source = 'local a = "x"\nreturn a\n'
    world = parse_world((WORLDS / "translate-minimal.yaml").read_text())
    (host,) = world.hosts.values()
    assert program(slice_of(world), host, source, by="x").endswith("\n" + source)


def test_a_program_knows_no_other_host():
    """What a worker compiles for one host does not grow with the others, and cannot decide for them."""
    world = parse_world((WORLDS / "translate-many-hosts.yaml").read_text())
    for name, host in world.hosts.items():
        routes = tables(program(slice_of(world), host, PROGRAM, by="x"))["ROUTES"]
        assert {route["host"] for route in routes.values()} == {name}


def test_a_retired_host_stays_and_never_wins():
    """Routes of the slice before are kept where they are gone, and replaced where they are not."""
    now = parse_world((WORLDS / "translate-minimal.yaml").read_text())
    (host,) = now.hosts.values()
    gone = Route("/gone", host.routes[0].upstream, Open.ANYONE)
    before = replace(host, routes=(replace(host.routes[0], allow=Open.ANYONE), gone))
    text = program(slice_of(now), host, PROGRAM, by="x", retired=before)
    routes = tables(text)["ROUTES"]
    assert routes["api.example.org/"]["allow"]["exact"] == {"spiffe://example.org/payments": [True]}
    assert "open" not in routes["api.example.org/"]
    assert routes["api.example.org/gone"]["open"] == "anyone"
