import asyncio
import itertools
import json
import os
import socket
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from handfast.base.refusal import BadInput
from handfast.sdk.contexts import RotatingSSLContext, server_context
from handfast.sdk.sockets import UnixListener
from tests.sdk.fronts import GET, Served, cut, good, on_both_loops, running, server, serving, talking, visit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a path for a socket that is short enough whatever the test's name."""
    here = Path(os.path.relpath(tmp_path / "front.sock"))
    return min((here, tmp_path / "front.sock"), key=lambda one: len(str(one)))


# Listeners.


@on_both_loops
async def test_one_front_serves_on_several_listeners(pki, path):
    """TLS, plain and Unix give one application, each with what is known of its client, and end together."""
    async with serving(pki) as run:
        plain = await run.front.listen_plain("127.0.0.1", 0)
        await run.front.listen_unix(path)
        trusting = server(pki)
        more = await run.front.listen_tls("127.0.0.1", 0, lambda: trusting)
        seen = []
        for address, context in ((run.address, run.context), (more, run.context), (plain, None), (path, None)):
            async with talking(address, context) as talk:
                seen.append(json.loads((await talk.get()).body))
        await run.front.stop(1)
        for address in (run.address, more, plain):
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*address)
    assert [one["scheme"] for one in seen] == ["https", "https", "http", "http"]
    extensions = [sorted(one["extensions"]) for one in seen]
    assert extensions == [["handfast.peer_der", "tls"], ["handfast.peer_der", "tls"], [], ["handfast.peer"]]
    assert not path.exists()


@on_both_loops
async def test_two_connections_do_not_share_what_is_known(pki):
    """Each client is described by its own certificate, however they alternate."""
    leaves = [pki.leaf(name) for name in ("one", "two")]
    async with (
        serving(pki) as run,
        talking(run.address, good(pki, leaves[0])) as one,
        talking(run.address, good(pki, leaves[1])) as two,
    ):
        for _ in range(3):
            seen = [json.loads((await talk.get()).body)["extensions"]["handfast.peer_der"] for talk in (one, two)]
            assert seen == [leaf.cert_der.hex() for leaf in leaves]


@on_both_loops
async def test_taken_port_is_told_with_its_remedy(pki):
    """The error names the address and what to do; the front that has the port goes on."""
    async with serving(pki) as run, running() as other:
        host, port = run.address
        for listen in (other.front.listen_plain(host, port), other.front.listen_tls(host, port, lambda: server(pki))):
            with pytest.raises(BadInput, match=f"{host}:{port}") as error:
                await listen
            assert "choose another port" in error.value.hint
        async with run.talking() as talk:
            assert (await talk.get()).status == 200


@on_both_loops
async def test_context_that_cannot_report_is_refused():
    """A context of the standard library would keep the alert from the client: nothing listens."""
    async with running() as run:
        with pytest.raises(BadInput, match="cannot report"):
            await run.front.listen_tls("127.0.0.1", 0, lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        assert not run.front._listeners


@on_both_loops
async def test_unix_socket_is_closed_to_others_and_tells_who_connects(path):
    """The file has mode 0600, and the kernel's word on the other process is in the scope."""
    async with running() as run:
        await run.front.listen_unix(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        command = ["curl", "-sS", "--unix-socket", str(path), "http://localhost/"]
        asking = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        out, _ = await asking.communicate()
    assert json.loads(out)["extensions"] == {
        "handfast.peer": {"uid": os.getuid(), "gid": os.getgid(), "pid": asking.pid}
    }


@on_both_loops
async def test_unix_client_without_credentials_is_not_served(path, monkeypatch):
    """A kernel that does not say who connects gets nobody in, and the next one is asked again."""
    faults = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))
    async with running() as run:
        await run.front.listen_unix(path)
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "getsockopt", lambda *_: b"")
            async with talking(path) as talk:
                talk.send(GET)
                assert await cut(talk) == b""
        assert not run.app.entered.is_set()
        async with talking(path) as talk:
            assert (await talk.get()).status == 200
    assert [type(fault).__name__ for fault in faults] == ["Unavailable"]


@on_both_loops
async def test_front_takes_over_a_stale_unix_socket_and_no_live_one(path):
    """What nobody answers on is replaced; a live socket stays with its front."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with running() as run, running() as other:
        await run.front.listen_unix(path)
        with pytest.raises(BadInput, match="taken"):
            await other.front.listen_unix(path)
        await other.front.stop(0)
        async with talking(path) as talk:
            assert (await talk.get()).status == 200


@on_both_loops
async def test_unix_socket_goes_before_its_listener(path, monkeypatch):
    """While the file is taken away the socket is still open: its inode cannot be another front's."""
    remove, still_open = UnixListener.remove, []

    def look(listener: UnixListener) -> None:
        still_open.append(listener.sock.fileno() >= 0)
        remove(listener)

    monkeypatch.setattr(UnixListener, "remove", look)
    async with running() as run:
        await run.front.listen_unix(path)
        await run.front.stop(0)
    assert still_open == [True]


# Contexts that are swapped.


class Visitors:
    """Clients of both kinds: some keep their connection, others come anew each time."""

    def __init__(self, run: Served) -> None:
        """Count the server's certificates that they meet."""
        self.run, self.met, self.statuses = run, set(), []

    async def stay(self, times: int) -> None:
        async with self.run.talking() as talk:
            for _ in range(times):
                self.statuses.append((await talk.get()).status)
                await asyncio.sleep(0.001)

    async def come(self, times: int) -> None:
        for _ in range(times):
            async with self.run.talking() as talk:
                self.met.add(talk.writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
                self.statuses.append((await talk.get()).status)


@on_both_loops
async def test_swapping_contexts_drops_nothing(pki):
    """Twenty swaps under load: each request is answered, and newcomers meet the certificate of the day."""
    contexts = [server(pki) for _ in range(21)]
    current = [contexts[0]]
    async with serving(pki) as run:
        run.address = await run.front.listen_tls("127.0.0.1", 0, lambda: current[0])
        visitors = Visitors(run)
        load = asyncio.gather(*(visitors.stay(100) for _ in range(3)), *(visitors.come(30) for _ in range(3)))
        for context in contexts[1:]:
            seen = len(visitors.statuses)
            while len(visitors.statuses) < seen + 10 and not load.done():
                await asyncio.sleep(0.001)
            current[0] = context
        await load
        assert visitors.statuses == [200] * 390
        assert len(visitors.met) > 3
        assert run.failures == []


@on_both_loops
async def test_a_swap_takes_an_authority_away(pki, stranger):
    """New connections are judged by the new context alone, open ones keep what they began with."""
    leaf = pki.leaf("server")
    contexts = {one: server_context(leaf.chain_pem, leaf.key_pem, one.roots_pem) for one in (pki, stranger)}
    client = good(pki, stranger.leaf())
    current = stranger
    async with running() as run:
        address = await run.front.listen_tls("127.0.0.1", 0, lambda: contexts[current])
        async with talking(address, client) as old:
            assert (await old.get()).status == 200
            current = pki
            async with talking(address, client) as new:
                new.send(GET)
                assert await cut(new) == b""
            assert (await old.get()).status == 200
        (failure,) = await run.reported()
    assert (failure.reason_text, failure.verify_code) == ("CERTIFICATE_VERIFY_FAILED", 20)


@on_both_loops
async def test_a_faulty_source_of_contexts_costs_one_connection(pki):
    """If no context can be had the connection is closed and the fault told; the next one is served."""
    faults = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))
    context = server(pki)
    source = iter([context, LookupError("none today"), context])

    def get():
        if isinstance(one := next(source), Exception):
            raise one
        return one

    async with serving(pki, handshakes=1, connections=1) as run:
        run.address = await run.front.listen_tls("127.0.0.1", 0, get)
        with pytest.raises(OSError, match=r"^$|(?i:reset|eof)"):
            await visit(run)
        async with run.talking() as talk:
            assert (await talk.get()).status == 200
    assert [type(fault) for fault in faults] == [LookupError]


@on_both_loops
async def test_client_may_rotate_while_it_talks(pki):
    """A rotating context works for the event loop's own TLS: what was open stays, what is new is somebody else."""
    first, second = pki.leaf("first"), pki.leaf("second")
    context = RotatingSSLContext(good(pki, first))
    async with serving(pki) as run:
        run.context = context

        async def name(talk) -> str:
            der = bytes.fromhex(json.loads((await talk.get()).body)["extensions"]["handfast.peer_der"])
            return x509.load_der_x509_certificate(der).subject.rfc4514_string()

        async with run.talking() as old:
            assert await name(old) == "CN=first"
            context.rotate(good(pki, second))
            async with run.talking() as new:
                assert [await name(old), await name(new)] == ["CN=first", "CN=second"]


# Bounds.


@on_both_loops
async def test_connections_are_bounded(pki):
    """At the bound a newcomer waits in the kernel, and is served when there is room."""
    async with serving(pki, connections=2) as run, run.talking() as one:
        async with run.talking() as two:
            assert [(await talk.get()).status for talk in (one, two)] == [200, 200]
            waiting = asyncio.create_task(visit(run))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            assert len(run.front._connections()) == 2
        assert await waiting == 200


@on_both_loops
async def test_failed_handshakes_give_their_places_back(pki):
    """More strangers than there are places leave room for a good client."""
    async with serving(pki, handshakes=1, connections=2, linger_s=0.05) as run:
        for _ in range(5):
            async with talking(run.address) as talk:
                talk.send(b"nonsense\r\n\r\n")
                await cut(talk)
        async with run.talking() as talk:
            assert (await talk.get()).status == 200
        assert len(run.failures) == 5


@on_both_loops
async def test_listener_survives_an_error_of_accept(pki, monkeypatch):
    """Out of descriptors is no reason to stop for ever."""
    loop = asyncio.get_running_loop()
    accept, errors = loop.sock_accept, iter([OSError(24, "Too many open files")] * 2)

    async def faulty(listener: socket.socket):
        for error in itertools.islice(errors, 1):
            raise error
        return await accept(listener)

    monkeypatch.setattr(loop, "sock_accept", faulty)
    async with serving(pki, handshakes=1, connections=1) as run, run.talking() as talk:
        assert (await talk.get()).status == 200
    assert list(errors) == []
