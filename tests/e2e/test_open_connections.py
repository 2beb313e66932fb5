import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from handfast.base.reasons import Reason
from tests.e2e.clients import BOTH_VERSIONS, GONE, Connection, Refused, context_for, s_client, shake_hands
from tests.e2e.feed import Feed
from tests.e2e.platform import Client, Platform
from tests.e2e.world import OPEN, STRICT
from tests.support.pki import Files

QUARTER_S = 0.25
"""How soon an open connection is refused after the command has ended, or the certificate has."""


class Bystander:
    """Another client that sends all the while: over one connection that stays, and over a new one each time."""

    def __init__(self, platform: Platform, client: Client) -> None:
        """Begin."""
        self.statuses: list[int] = []
        self.failures: list[Exception] = []
        self._platform, self._files, self._over = platform, client.files, threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(work,)) for work in (self._stay, self._come_anew)]
        for thread in self._threads:
            thread.start()

    def _send(self, work: Callable[[], None]) -> None:
        try:
            work()
        except GONE as error:
            self.failures.append(error)

    def _stay(self) -> None:
        with Connection(self._platform, OPEN, self._files) as connection:
            while not self._over.wait(0.005):
                self.statuses.append(connection.request().status)

    def _come_anew(self) -> None:
        while not self._over.wait(0.02):
            with Connection(self._platform, STRICT, self._files) as connection:
                self.statuses.append(connection.request().status)

    def check_noticed_nothing(self) -> None:
        """End, and check that every request was answered well."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        assert self.failures == []
        assert set(self.statuses) == {200}
        assert len(self.statuses) > 20


@pytest.fixture
def bystander(platform: Platform, payments: Client) -> Iterator[Bystander]:
    """Give another client, who must notice nothing."""
    other = Bystander(platform, payments)
    yield other
    other.check_noticed_nothing()


def first_refusal(connections: list[Connection], within: float) -> float:
    """Send until each connection is refused; give the time when the last one was."""
    until = time.monotonic() + within
    for connection in connections:
        while (response := connection.request()).status == 200:
            assert time.monotonic() < until, "it is still let in"
        assert response.status == 403
    return time.time()


@pytest.mark.parametrize("by", ["serial", "name"])
def test_revocation_reaches_open_connections(platform: Platform, feed: Feed, bystander: Bystander, by):
    """A quarter of a second after 'handfast cert revoke' ends, connections that were open before it are refused."""
    name = f"staff/leaver-by-{by}"
    client = platform.issue(name)
    connections = [Connection(platform, host, client.files, tls) for host in (OPEN, STRICT) for tls in BOTH_VERSIONS]
    assert [connection.request().status for connection in connections] == [200] * 4
    platform.run("cert", "revoke", client.serial if by == "serial" else name, "--reason", "keyCompromise")
    ended = time.time()
    assert first_refusal(connections, 5.0) - ended < QUARTER_S
    for connection in connections:
        problem = connection.request().plain
        assert problem["code"] == Reason.REVOKED
        assert feed.find(kind="request.denied", id=problem["request_id"])["peer"] == connection.peer.address
        connection.close()


def test_an_open_connection_ends_with_its_certificate(
    platform: Platform, feed: Feed, bystander: Bystander, tmp_path: Path
):
    """A connection is served until its certificate ends, and refused within a quarter of a second after that."""
    platform.run("cert", "issue", "staff/brief", "--ttl", "5s", "--out", tmp_path)
    client = Client(Files(tmp_path / "cert.pem", tmp_path / "key.pem"))
    end = client.leaf.not_valid_after_utc.timestamp()
    connections = [Connection(platform, host, client.files, tls) for host in (OPEN, STRICT) for tls in BOTH_VERSIONS]
    while time.time() < end - 0.1:
        assert {connection.request().status for connection in connections} == {200} or time.time() >= end
        time.sleep(0.05)
    refused = first_refusal(connections, end - time.time() + 5.0)
    assert end <= refused < end + QUARTER_S
    for connection in connections:
        problem = connection.request().plain
        assert problem["code"] == Reason.CERT_EXPIRED
        assert feed.find(kind="request.denied", id=problem["request_id"])["reason"] == Reason.CERT_EXPIRED
        connection.close()
    outcome = shake_hands(platform, STRICT, client.files)
    assert isinstance(outcome, Refused)
    assert feed.find(by=outcome.peer)["reason"] == Reason.CERT_EXPIRED


# Sessions that are taken up again


def _request(host: str) -> str:
    return f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("host", [OPEN, STRICT])
def test_openssl_cannot_resume_after_revocation(platform: Platform, tmp_path: Path, host, version):
    """A session that OpenSSL keeps works until its certificate is revoked, and opens nothing after."""
    client, session = platform.issue("staff/resumer"), tmp_path / "session.pem"
    own = (version, "-cert", client.files.chain, "-cert_chain", client.files.chain, "-key", client.files.key)
    assert "HTTP/1.1 200" in s_client(platform, host, *own, "-sess_out", session, say=_request(host))
    again = s_client(platform, host, *own, "-sess_in", session, say=_request(host))
    assert "Reused" in again
    assert "HTTP/1.1 200" in again
    platform.revoke(client)
    said = s_client(platform, host, *own, "-sess_in", session, say=_request(host))
    assert "alert certificate revoked" in said
    assert "HTTP/1.1" not in said


@pytest.mark.parametrize("tls", BOTH_VERSIONS)
@pytest.mark.parametrize("host", [OPEN, STRICT])
def test_python_cannot_resume_after_revocation(platform: Platform, feed: Feed, host, tls):
    """The same holds for sessions that Python's ssl keeps; what is refused is recorded as revoked."""
    client = platform.issue("staff/resumer")
    context = context_for(platform, client.files, tls)
    with Connection(platform, host, context=context) as first:
        assert first.request().status == 200
        session = first.socket.session
    with Connection(platform, host, context=context, session=session) as second:
        assert second.socket.session_reused
        assert second.request().status == 200
        session = second.socket.session
    platform.revoke(client)
    outcome = shake_hands(platform, host, context=context, session=session)
    assert isinstance(outcome, Refused)
    assert feed.find(kind="handshake.refused", by=outcome.peer)["reason"] == Reason.REVOKED


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_session_alone_is_no_certificate(platform: Platform, tmp_path: Path, version):
    """Once its certificate is revoked, a stolen session without key or certificate counts as nobody."""
    client, session = platform.issue("staff/robbed"), tmp_path / "session.pem"
    own = (version, "-cert", client.files.chain, "-cert_chain", client.files.chain, "-key", client.files.key)
    assert "HTTP/1.1 200" in s_client(platform, OPEN, *own, "-sess_out", session, say=_request(OPEN))
    platform.revoke(client)
    said = s_client(platform, OPEN, version, "-sess_in", session, say=_request(OPEN))
    assert "HTTP/1.1 403" in said
    assert Reason.CLIENT_NO_CERTIFICATE in said


@pytest.mark.parametrize("tls", BOTH_VERSIONS)
def test_a_session_of_one_host_is_not_taken_up_at_another(platform: Platform, payments: Client, tls):
    """A session that began without a certificate at an optional host does not open a strict one."""
    context = context_for(platform, None, tls)
    with Connection(platform, OPEN, context=context) as first:
        assert first.request("/health").status == 200
        session = first.socket.session
    with pytest.raises(GONE), Connection(platform, STRICT, context=context, session=session) as second:
        second.request()
