import pytest

from tests.support.pki import Pki


@pytest.fixture(scope="session")
def pki() -> Pki:
    """Give the authority that the servers of these tests trust."""
    return Pki()


@pytest.fixture(scope="session")
def stranger() -> Pki:
    """Give an authority that nobody trusts."""
    return Pki("Stranger")
