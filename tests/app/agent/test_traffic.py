from hypothesis import given
from hypothesis import strategies as st

from handfast.app.agent.traffic import Kind, grown, read_counts
from handfast.app.server.messages import TrafficRow

LINE = 'envoy_handfast_requests{route="api.example.org/v1/ledger",identity="spiffe://example.org/payments",method="GET",code="-"} 7'
KIND = ("api.example.org", "/v1/ledger", "spiffe://example.org/payments", "GET", "")


def test_a_counter_of_envoys_is_read():
    """Host and route are one label, and a dash stands for nothing."""
    assert read_counts(LINE) == {KIND: 7}
    assert read_counts(LINE.removeprefix("envoy_")) == {KIND: 7}


def test_other_lines_are_passed_over():
    """Types, other metrics, fractions and damage are no counts."""
    text = f"# TYPE envoy_handfast_requests counter\n{LINE}\nenvoy_other{{}} 1\n{LINE[:-1]}1.5\n{LINE[:40]}\n\n"
    assert read_counts(text) == {KIND: 7}


def test_the_same_kind_twice_is_added_up():
    """Envoy may tell of one kind in several scopes."""
    assert read_counts(f"{LINE}\n{LINE}") == {KIND: 14}


SAFE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=20)


def escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


@given(route=SAFE, identity=SAFE, method=SAFE, count=st.integers(0, 2**63))
def test_labels_come_back_as_they_were(route: str, identity: str, method: str, count: int):
    """Quotes, backslashes and braces in what a stranger chose do not spill into other labels."""
    labels = {"route": f"host/{route}", "identity": identity, "method": method, "code": "x"}
    line = (
        "envoy_handfast_requests{"
        + ",".join(f'{name}="{escaped(text)}"' for name, text in labels.items())
        + f"}} {count}"
    )
    plain = ["" if text == "-" else text for text in (identity, method)]
    assert read_counts(line) == {("host", f"/{route}", plain[0], plain[1], "x"): count}


@given(st.text(max_size=300))
def test_whatever_comes_is_read(text: str):
    """Nothing in Envoy's answer ends the reporter."""
    read_counts(text)


def test_what_was_added_is_told():
    """Growth alone, and nothing of what stood still."""
    before, now = {KIND: 7}, {KIND: 9, ("h", "/", "", "GET", ""): 1}
    rows, told = grown(before, now)
    assert {(row.host, row.count) for row in rows} == {("api.example.org", 2), ("h", 1)}
    assert told == now
    assert grown(now, now) == ([], now)


def test_an_envoy_that_was_started_again_counts_from_the_beginning():
    """A count that shrank is all new."""
    rows, _ = grown({KIND: 700}, {KIND: 3})
    assert [row.count for row in rows] == [3]


def test_requests_without_host_or_route_are_not_traffic():
    """What matched nothing tells what-if nothing."""
    assert grown({}, {("", "", "", "GET", "x"): 1, ("h", "", "", "GET", "x"): 1, ("", "/", "", "GET", "x"): 1})[0] == []


KINDS = st.tuples(
    st.just("h"),
    st.sampled_from(["/a", "/b", "/c"]),
    st.sampled_from(["", "i"]),
    st.just("GET"),
    st.sampled_from(["", "x"]),
)
COUNTS = st.dictionaries(KINDS, st.integers(0, 50))


@given(st.lists(COUNTS, max_size=5), st.integers(1, 3))
def test_in_portions_nothing_is_lost_and_nothing_told_twice(looks: list[dict[Kind, int]], most: int):
    """However few rows fit a report, what is told in the end is what Envoy counted since it began."""
    before: dict[Kind, int] = {}
    told: dict[Kind, int] = {}
    now: dict[Kind, int] = {}
    for look in looks:
        now = {kind: now.get(kind, 0) + look.get(kind, 0) for kind in {*now, *look}}
        before = _tell(before, now, most, told)
    while grown(before, now)[0]:
        before = _tell(before, now, most, told)
    assert told == {kind: count for kind, count in now.items() if count}


def _tell(before: dict[Kind, int], now: dict[Kind, int], most: int, told: dict[Kind, int]) -> dict[Kind, int]:
    rows, counted = grown(before, now, most)
    assert len(rows) <= most
    for row in rows:
        told[_kind(row)] = told.get(_kind(row), 0) + row.count
    return counted


def _kind(row: TrafficRow) -> Kind:
    return (row.host, row.route, row.identity, row.method, row.code)


def test_a_restart_in_the_midst_of_portions_loses_nothing_of_the_new_count():
    """What was not told before the restart is gone with the old Envoy; the new one's count is told whole."""
    other = ("h", "/", "", "GET", "")
    _, counted = grown({KIND: 5, other: 9}, {KIND: 2, other: 4}, 1)
    rows, _ = grown(counted, {KIND: 2, other: 4})
    assert [(row.host, row.count) for row in rows] == [("h", 4)]
