"""What is revoked, in small parts."""

from hypothesis import given
from hypothesis import strategies as st

from handfast.app.server.revoked import Fingerprints, Revoked

names = st.sets(
    st.text("0123456789abcdef", min_size=64, max_size=64) | st.sampled_from(["00" * 32, "ff" * 32]), max_size=40
)


@given(names, names)
def test_a_set_in_parts_is_a_set(some: set[str], others: set[str]):
    """It has what was added and nothing else."""
    kept = Fingerprints()
    for one in some:
        kept.add(one)
    assert set(kept) == some
    assert (kept == some, kept == frozenset(others)) == (True, some == others)
    assert len(kept) == len(some)
    assert {one for one in others | some if one in kept} == some
    assert "" not in kept
    assert 7 not in kept


async def test_what_is_let_go_is_gone():
    """Sets and lists are empty afterwards."""
    found = Revoked()
    found.take([("aa", f"{number:x}", f"{number:064x}", number, "superseded") for number in range(1, 5000)])
    found.take([("bb", "0a", "", 7, "unspecified")])
    assert [len(found.by(issuer)) for issuer in ("aa", "bb", "cc")] == [4999, 1, 0]
    assert list(found.by("bb")) == [("0a", 7, "unspecified")]
    assert ("1", 1, "superseded") in found.by("aa")
    assert len(found.denied) == 4999  # one that was never issued has no fingerprint
    await found.forget_lists()
    await found.denied.forget()
    assert len(found.denied) == len(found.by("aa")) == 0
    assert f"{1:064x}" not in found.denied
