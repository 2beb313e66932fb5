import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.io.database import Step, step
from handfast.io.postgres_batches import Tables, batches, by_step, joinable, numbered

TABLES = Tables(["certificates", "events", "trunk", "leaf", "twig"], [("leaf", "trunk"), ("twig", "leaf")])
ISSUED, EVENT = "update certificates set state = $2 where serial = $1", "insert into events (id) values ($1)"
SQL = (ISSUED, EVENT, "delete from certificates", "insert into trunk values ($1)", "delete from leaf", "vacuum")


def planned(*steps: Step) -> list[tuple[str, list[int]]]:
    return [(batch.sql, [place for place, _ in batch.steps]) for batch in batches(steps, TABLES.of)]


def test_what_is_alike_goes_together():
    """Certificates and their events, however many, are two round trips."""
    steps = [step(sql) for _ in range(3) for sql in (ISSUED, EVENT)]
    assert planned(*steps) == [(ISSUED, [0, 2, 4]), (EVENT, [1, 3, 5])]


def test_nothing_passes_what_concerns_the_same_table():
    """A step stays behind another statement on its table, also where an earlier batch would take it."""
    delete = "delete from certificates"
    assert planned(step(ISSUED), step(delete), step(ISSUED)) == [(ISSUED, [0]), (delete, [1]), (ISSUED, [2])]
    both = "delete from events where id in (select serial from certificates)"
    assert [places for _, places in planned(step(ISSUED), step(both), step(ISSUED))] == [[0], [1], [2]]


def test_tables_that_refer_to_each_other_are_one():
    """A foreign key joins tables, and so does a chain of them."""
    assert TABLES.of("delete from twig") == TABLES.of("DELETE FROM trunk") != TABLES.of(EVENT)


def test_what_names_no_known_table_concerns_all():
    """A statement that cannot be placed passes nothing, and nothing passes it."""
    assert planned(step(EVENT), step("delete from elsewhere"), step(EVENT)) == [
        (EVENT, [0]),
        ("delete from elsewhere", [1]),
        (EVENT, [2]),
    ]


@given(st.lists(st.sampled_from(SQL), max_size=20))
def test_every_step_is_done_once_and_never_before_one_that_it_may_depend_on(sqls: list[str]):
    """The order within each table is the order in which the steps were asked for."""
    order = [place for batch in batches(map(step, sqls), TABLES.of) for place, _ in batch.steps]
    assert sorted(order) == list(range(len(sqls)))
    for before, one in enumerate(order):
        for other in order[before + 1 :]:
            if other < one:
                assert not TABLES.of(sqls[one]) & TABLES.of(sqls[other])


@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        ("delete from a where b = $1", "delete from a where b = $1 returning $2::bigint"),
        ("insert into a values ($2, $1) returning seq", "insert into a values ($2, $1) returning seq, $3::bigint"),
        ("UPDATE a SET returned = 1", "UPDATE a SET returned = 1 returning $1::bigint"),
        ("select b from a where c = $1", "select read.*, $2::bigint from (select b from a where c = $1) read"),
    ],
)
def test_rows_say_which_step_they_are_of(sql: str, wanted: str):
    """The number is the last argument and the last column."""
    assert joinable(sql)
    assert numbered(sql) == wanted


def test_rows_go_back_to_their_steps():
    """A step that touched nothing gets an empty list."""
    assert by_step([("a", 1), ("b", 1), ("c", 3)], [1, 2, 3]) == {1: [("a",), ("b",)], 2: [], 3: [("c",)]}
