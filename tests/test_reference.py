from pathlib import Path

import pytest

from handfast.app.reference import pages

DIRECTORY = Path(__file__).parents[1] / "docs" / "reference"


@pytest.mark.parametrize("name", sorted(pages()))
def test_the_reference_says_what_the_code_says(name: str):
    """Each page is what `python -m handfast.app.reference` writes now."""
    assert (DIRECTORY / name).read_text() == pages()[name], "run: python -m handfast.app.reference"
