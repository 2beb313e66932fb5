import threading

import pytest

from handfast.base.refusal import BadInput
from handfast.io import off_loop


@pytest.mark.parametrize("long", [False, True])
async def test_long_work_is_done_in_a_thread(long: bool):
    """Short work at once, as a thread costs more."""
    where = await off_loop.run(threading.get_ident, long=long)
    assert (where != threading.get_ident()) is long


@pytest.mark.parametrize("long", [False, True])
async def test_what_is_wrong_is_told(long: bool):
    """Wherever it was found."""

    def work(word: str) -> None:
        raise BadInput(word)

    with pytest.raises(BadInput, match="no"):
        await off_loop.run(work, "no", long=long)
