import asyncio
import socket
import ssl
import struct
import subprocess

import pytest

from handfast.sdk.handshake import CLOSED, RESET, TIMEOUT, Attempt, _chain
from tests.sdk.fronts import GET, ask, client, on_both_loops, read_all, running, server, serving, told
from tests.support.pki import SERVER, Pki

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
TIMES = 30

# kind of client: OpenSSL's reason here, the alert at the client under TLS 1.2 and 1.3, X509_V_ERR_*
CASES = {
    "none": (
        "PEER_DID_NOT_RETURN_A_CERTIFICATE",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        0,
    ),
    "stranger": ("CERTIFICATE_VERIFY_FAILED", "TLSV1_ALERT_UNKNOWN_CA", "TLSV1_ALERT_UNKNOWN_CA", 20),
    "expired": ("CERTIFICATE_VERIFY_FAILED", "SSLV3_ALERT_CERTIFICATE_EXPIRED", "SSLV3_ALERT_CERTIFICATE_EXPIRED", 10),
    "purpose": (
        "CERTIFICATE_VERIFY_FAILED",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        26,
    ),
}


def bad_leaf(kind: str, pki: Pki, stranger: Pki):
    match kind:
        case "none":
            return None
        case "stranger":
            return stranger.leaf()
        case "expired":
            return pki.expired()
        case _:
            return pki.leaf(eku=(SERVER,))


def alert(address: tuple[str, int], context: ssl.SSLContext, request: bytes = GET) -> str:
    """Give the alert that a refused client sees, or what it sees instead."""
    try:
        return repr(ask(address, context, request))
    except ssl.SSLError as error:
        return error.reason or repr(error)
    except OSError as error:
        return repr(error)


@pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])
@pytest.mark.parametrize("kind", CASES)
@on_both_loops
async def test_alert_is_delivered_and_failure_reported(kind, version, pki, stranger, tmp_path):
    """30 of 30 refused clients read the alert that fits, and each is reported with the certificate that it offered."""
    reason, alert_12, alert_13, code = CASES[kind]
    leaf = bad_leaf(kind, pki, stranger)
    context = client(pki, leaf, tmp_path, version)
    async with running() as run:
        trusting = server(pki, lowest=V12)
        address = await run.front.listen_tls("127.0.0.1", 0, lambda: trusting)
        seen = [await asyncio.to_thread(alert, address, context) for _ in range(TIMES)]
        assert seen == [alert_13 if version is V13 else alert_12] * TIMES
        failures = await run.reported(TIMES)
    assert len(failures) == TIMES
    for failure in failures:
        assert (failure.reason_text, failure.verify_code) == (reason, code)
        assert failure.offered == ((leaf.cert_der, *(der(leaf.above))) if leaf else ())
        assert failure.tls_version == version.name.replace("_", ".")
        assert failure.server_name == "localhost"
        assert failure.local == f"127.0.0.1:{address[1]}"
        assert failure.peer.startswith("127.0.0.1:")
        assert bool(failure.verify_message) == bool(code)
        assert 0 < failure.elapsed_s < 5


def der(certs) -> tuple[bytes, ...]:
    return tuple(ssl.PEM_cert_to_DER_cert(cert.public_bytes(_pem()).decode()) for cert in certs)


def _pem():
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

    return Encoding.PEM


@on_both_loops
async def test_alert_survives_a_client_that_writes_first(pki, stranger, tmp_path):
    """A client that has sent much before it reads still finds the alert: no reset overtakes it."""
    context = client(pki, stranger.leaf(), tmp_path)
    async with running() as run:
        trusting = server(pki)
        address = await run.front.listen_tls("127.0.0.1", 0, lambda: trusting)
        seen = {await asyncio.to_thread(alert, address, context, GET + bytes(20_000)) for _ in range(10)}
    assert seen == {"TLSV1_ALERT_UNKNOWN_CA"}


@pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])
@on_both_loops
async def test_chain_over_several_records_is_read_whole(version, pki, stranger, tmp_path):
    """A chain that does not fit into one record of 16 KiB is put together."""
    leaf = stranger.leaf(san_uris=[f"spiffe://example.org/{number:0200}" for number in range(100)])
    assert len(leaf.cert_der) > 16384
    async with running() as run:
        trusting = server(pki, lowest=V12)
        address = await run.front.listen_tls("127.0.0.1", 0, lambda: trusting)
        await asyncio.to_thread(alert, address, client(pki, leaf, tmp_path, version))
        (failure,) = await run.reported()
    assert failure.offered == (leaf.cert_der, *der(leaf.above))


@on_both_loops
async def test_openssl_client_reads_the_alert(pki, stranger, tmp_path):
    """OpenSSL's own client names the alert."""
    files = stranger.leaf().write(tmp_path, "wrong")
    async with running() as run:
        trusting = server(pki)
        host, port = await run.front.listen_tls("127.0.0.1", 0, lambda: trusting)
        command = [
            "openssl",
            "s_client",
            "-ign_eof",
            "-connect",
            f"{host}:{port}",
        ]  # else it leaves when its input ends
        command += ["-cert", str(files.chain), "-key", str(files.key)]
        done = await asyncio.to_thread(subprocess.run, command, input=GET, capture_output=True, timeout=10, check=False)
    assert b"tlsv1 alert unknown ca" in done.stderr


@on_both_loops
async def test_curl_reads_the_alert_and_gets_in_with_a_good_certificate(pki, tmp_path):
    """Curl without a certificate is told that one is required; with one it is served."""
    (tmp_path / "root.pem").write_bytes(pki.roots_pem)
    files = pki.leaf().write(tmp_path, "good")
    async with running() as run:
        trusting = server(pki)
        host, port = await run.front.listen_tls("127.0.0.1", 0, lambda: trusting)
        command = ["curl", "-sS", "--noproxy", "*", "--cacert", str(tmp_path / "root.pem"), f"https://{host}:{port}/"]
        bad = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=10, check=False)
        more = ["--cert", str(files.chain), "--key", str(files.key)]
        good = await asyncio.to_thread(subprocess.run, command + more, capture_output=True, timeout=10, check=False)
    assert b"certificate required" in bad.stderr
    assert b'"scheme": "https"' in good.stdout


@on_both_loops
async def test_scope_has_the_chain_as_sent(pki, tmp_path):
    """The application sees the chain, leaf first, version and suite as numbers, and the leaf's DER under our own key."""
    leaf = pki.leaf()
    async with running() as run:
        trusting = server(pki)
        address = await run.front.listen_tls("127.0.0.1", 0, lambda: trusting)
        seen = told(await asyncio.to_thread(ask, address, client(pki, leaf, tmp_path)))
    chain = [ssl.DER_cert_to_PEM_cert(one) for one in (leaf.cert_der, *der(leaf.above))]
    assert seen["scheme"] == "https"
    assert seen["extensions"] == {
        "tls": {"client_cert_chain": chain, "tls_version": 0x0304, "cipher_suite": 0x1302},
        "handfast.peer_der": leaf.cert_der.hex(),
    }


@on_both_loops
async def test_optional_certificate_may_be_missing_and_must_hold(pki, stranger, tmp_path):
    """Without a certificate the chain is empty; with a bad one there is no connection."""
    async with running() as run:
        trusting = server(pki, certificate="optional")
        address = await run.front.listen_tls("127.0.0.1", 0, lambda: trusting)
        seen = told(await asyncio.to_thread(ask, address, client(pki, None, tmp_path)))
        assert seen["extensions"]["tls"]["client_cert_chain"] == []
        assert seen["extensions"]["handfast.peer_der"] is None
        assert (
            await asyncio.to_thread(alert, address, client(pki, stranger.leaf(), tmp_path)) == "TLSV1_ALERT_UNKNOWN_CA"
        )


@on_both_loops
async def test_client_that_rejects_us_is_reported(pki, stranger, tmp_path):
    """A client that does not trust the server sends an alert, and we say so."""
    async with running() as run:
        trusting = server(pki)
        address = await run.front.listen_tls("127.0.0.1", 0, lambda: trusting)
        assert await asyncio.to_thread(alert, address, client(stranger, None, tmp_path)) == "CERTIFICATE_VERIFY_FAILED"
        (failure,) = await run.reported()
    assert failure.reason_text == "TLSV1_ALERT_UNKNOWN_CA"
    assert (failure.verify_code, failure.offered) == (0, ())


@pytest.mark.parametrize(
    ("sent", "reasons"),
    [
        (GET, {"HTTP_REQUEST"}),
        (b"\xff" * (1 << 20), {"WRONG_VERSION_NUMBER", "UNSUPPORTED_PROTOCOL", "UNKNOWN_PROTOCOL", "BAD_RECORD_TYPE"}),
    ],
    ids=["http", "garbage"],
)
@on_both_loops
async def test_what_is_no_tls_is_cut(sent, reasons, pki):
    """Plain HTTP and a mebibyte of garbage end at once, and are reported."""
    async with running() as run:
        trusting = server(pki)
        address = await run.front.listen_tls("127.0.0.1", 0, lambda: trusting)
        await asyncio.to_thread(push, address, sent)
        (failure,) = await run.reported()
    assert failure.reason_text in reasons
    assert (failure.server_name, failure.tls_version, failure.offered) == ("", "", ())
    assert failure.elapsed_s < 2


def push(address: tuple[str, int], data: bytes) -> None:
    """Send all of it, unless we are cut, and see the other side close."""
    with socket.create_connection(address, timeout=10) as raw:
        try:
            raw.sendall(data)
            while raw.recv(65536):
                pass
        except ConnectionError:
            pass


@on_both_loops
async def test_silent_client_times_out(pki):
    """A client that connects and says nothing is cut, closed and reported."""
    async with running(handshake_s=0.2) as run:
        trusting = server(pki)
        address = await run.front.listen_tls("127.0.0.1", 0, lambda: trusting)
        await asyncio.to_thread(push, address, b"")
        (failure,) = await run.reported()
    assert failure.reason_text == TIMEOUT
    assert 0.15 < failure.elapsed_s < 2


@on_both_loops
async def test_client_that_leaves_is_reported(pki):
    """Closing and resetting in the middle of a handshake are told apart."""
    async with running() as run:
        trusting = server(pki)
        address = await run.front.listen_tls("127.0.0.1", 0, lambda: trusting)
        socket.create_connection(address).close()
        await run.reported(1)
        with socket.create_connection(address) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            while not run.front._arriving:
                await asyncio.sleep(0.005)  # a reset before accept() is no handshake
            await asyncio.sleep(0.05)
        failures = await run.reported(2)
    assert [failure.reason_text for failure in failures] == [CLOSED, RESET]


@on_both_loops
async def test_handshakes_are_bounded(pki, tmp_path):
    """With all places taken by silent clients a good one waits until one of them is gone, and then gets in."""
    async with running(handshakes=2) as run:
        trusting = server(pki)
        address = await run.front.listen_tls("127.0.0.1", 0, lambda: trusting)
        silent = [socket.create_connection(address) for _ in range(2)]
        while len(run.front._arriving) < 2:
            await asyncio.sleep(0.005)
        waiting = asyncio.create_task(asyncio.to_thread(ask, address, client(pki, pki.leaf(), tmp_path)))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        silent.pop().close()
        assert told(await waiting)["scheme"] == "https"
        silent.pop().close()


@on_both_loops
async def test_a_flood_of_handshakes_waits_its_turn(pki):
    """Forty clients at once on two places all get in, and none is reported."""
    async with serving(pki, handshakes=2) as run:

        async def once() -> int:
            async with run.talking() as talk:
                return (await talk.get()).status

        assert await asyncio.gather(*(once() for _ in range(40))) == [200] * 40
        assert run.failures == []


@on_both_loops
async def test_faulty_callback_does_not_keep_the_alert_back(pki, tmp_path):
    """The client gets its alert though the callback raises, and the fault goes to the loop's handler."""
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: faults.append((context["message"], type(context["exception"])))
    )
    async with running() as run:
        run.front._on_failed_handshake = lambda failure: failure.nonsense
        trusting = server(pki)
        address = await run.front.listen_tls("127.0.0.1", 0, lambda: trusting)
        assert (
            await asyncio.to_thread(alert, address, client(pki, None, tmp_path)) == "TLSV13_ALERT_CERTIFICATE_REQUIRED"
        )
        assert told(await asyncio.to_thread(ask, address, client(pki, pki.leaf(), tmp_path)))["scheme"] == "https"
    assert faults == [("a callback for failed handshakes failed", AttributeError)]


def test_a_chain_that_is_not_the_verified_one_is_left_out():
    """What the application is told begins with the leaf that was verified, or is that leaf alone."""
    with socket.socket() as sock:
        assert _chain(b"leaf", Attempt(sock, offered=(b"leaf", b"issuer"))) == (b"leaf", b"issuer")
        assert _chain(b"leaf", Attempt(sock, offered=(b"other", b"leaf"))) == (b"leaf",)
        assert _chain(b"leaf", Attempt(sock)) == _chain(b"leaf", None) == (b"leaf",)
        assert _chain(None, Attempt(sock, offered=(b"leaf",))) == ()


@on_both_loops
async def test_no_session_is_resumed(pki, tmp_path):
    """A client that offers the session of its last connection proves its certificate again."""
    context = client(pki, pki.leaf(), tmp_path)

    def visit(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool | None]:
        with (
            socket.create_connection(run.address, timeout=10) as raw,
            context.wrap_socket(raw, server_hostname="localhost", session=session) as tls,
        ):
            tls.sendall(GET)
            assert told(read_all(tls))["extensions"]["tls"]["client_cert_chain"]
            return tls.session, tls.session_reused

    async with serving(pki) as run:
        session, _ = await asyncio.to_thread(visit, None)
        _, reused = await asyncio.to_thread(visit, session)
    assert not reused
