import socket

import pytest
from pytest_socket import SocketBlockedError


@pytest.mark.filterwarnings("ignore:A test tried to use socket")
def test_pure_tests_open_no_socket():
    """A test of pure code that tries to open a socket fails."""
    with pytest.raises(SocketBlockedError):
        socket.socket()
