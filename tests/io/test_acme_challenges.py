import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.io import acme_challenges
from handfast.io.acme_challenges import MAX_BODY, PAUSES_S, Lookout, LookSettings
from handfast.trust.acme.challenges import ChallengeKind, dns_value
from handfast.trust.facts import pem
from tests.support.acme import alpn_certificate
from tests.support.clock import FakeClock
from tests.support.names import Names

NAME, TOKEN, THUMBPRINT = "a.internal", "token", "thumbprint"
GOOD = f"{TOKEN}.{THUMBPRINT}"
HTTP, TLS, DNS = ChallengeKind.HTTP, ChallengeKind.TLS_ALPN, ChallengeKind.DNS


@pytest.fixture
def names() -> Iterator[Names]:
    """Give a resolver that says that the name is here."""
    serving = Names({(NAME, "A"): ["127.0.0.1"]})
    yield serving
    serving.close()


def lookout(names: Names | None, clock: FakeClock | None = None, **settings: object) -> Lookout:
    resolver = names.address if names else None
    return Lookout(LookSettings(resolver=resolver, **settings), clock or FakeClock())


@asynccontextmanager
async def answering(*answers: bytes, hold: bool = False) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Serve these answers, one a connection, the last again and again; give the port, and what was asked."""
    asked: list[bytes] = []
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        answer = left.pop(0) if len(left) > 1 else left[0]
        head, mark, body = answer.partition(b"\r\n\r\n")
        writer.write(head + mark)
        await writer.drain()
        await asyncio.sleep(0.01)  # certbot sends the body by itself
        writer.write(body)
        await writer.drain()
        if hold:
            await asyncio.sleep(30)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], asked


def ok(body: str | bytes = GOOD) -> bytes:
    return b"HTTP/1.1 200 OK\r\n\r\n" + (body.encode() if isinstance(body, str) else body)


def reason(outcome: Refusal | None) -> Reason | None:
    return outcome.reason if outcome else None


async def test_a_file_proves_a_name(names: Names):
    """It is asked for under the name, with its port, at the path that RFC 8555 says."""
    async with answering(ok()) as (port, asked):
        assert await lookout(names, http_port=port).look(HTTP, NAME, TOKEN, THUMBPRINT) is None
    assert asked[0].startswith(b"GET /.well-known/acme-challenge/token HTTP/1.1\r\n")
    assert f"host: {NAME}:{port}\r\n".encode() in asked[0].lower()


@pytest.mark.parametrize(
    "answer",
    [
        ok("token.other"),
        ok(""),
        ok(b"x" * (MAX_BODY * 40)),
        b"HTTP/1.1 404 Not Found\r\n\r\n" + GOOD.encode(),
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nLocation: https://a.internal/.well-known/acme-challenge/token\r\n\r\n",
    ],
    ids=["other", "empty", "large", "404", "elsewhere", "https"],
)
async def test_another_answer_proves_nothing(answer: bytes, names: Names):
    """A redirect is an answer as well: it is not followed, wherever it leads."""
    async with answering(answer) as (port, asked):
        outcome = await lookout(names, http_port=port).look(HTTP, NAME, TOKEN, THUMBPRINT)
    assert reason(outcome) is Reason.ACME_WRONG_ANSWER
    assert len(asked) == 1


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-x\r\n\r\n", b"\0" * 100 + b"\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000]
)
async def test_what_is_not_http_is_unreachable(answer: bytes, names: Names):
    """Whatever it sends."""
    async with answering(answer) as (port, _):
        outcome = await lookout(names, http_port=port).look(HTTP, NAME, TOKEN, THUMBPRINT)
    assert reason(outcome) is Reason.ACME_UNREACHABLE


async def test_a_look_ends(names: Names, monkeypatch):
    """A server that never ends its answer is not waited for."""
    monkeypatch.setattr(acme_challenges, "LOOK_S", 0.3)
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n" + GOOD.encode(), hold=True) as (port, _):
        outcome = await lookout(names, http_port=port).look(HTTP, NAME, TOKEN, THUMBPRINT)
    assert reason(outcome) is Reason.ACME_UNREACHABLE


@pytest.mark.parametrize("kind", [HTTP, TLS])
async def test_addresses_are_looked_at(kind: ChallengeKind, names: Names):
    """A name that leads to a forbidden address is not connected to, wherever the operator allows to go."""
    everywhere = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    for address, networks in (("169.254.169.254", everywhere), ("127.0.0.1", (ip_network("10.0.0.0/8"),))):
        names.records[NAME, "A"] = [address]
        outcome = await lookout(names, networks=networks, http_port=1, tls_port=1).prove(kind, NAME, TOKEN, THUMBPRINT)
        assert outcome
        assert (outcome.reason, outcome.evidence["addresses"]) == (Reason.ACME_ADDRESS_NOT_ALLOWED, address)


async def test_a_name_is_resolved_once(names: Names):
    """What was looked at is connected to: an answer that changes meanwhile changes nothing."""
    answers = iter([["127.0.0.1"]])
    names.records.clear()
    names.more = lambda: {(NAME, "A"): next(answers, ["169.254.169.254"]) if names.asked[-1][1] == "A" else []}
    async with answering(ok()) as (port, _):
        assert await lookout(names, http_port=port).look(HTTP, NAME, TOKEN, THUMBPRINT) is None
    assert [kind for name, kind in names.asked if name == NAME].count("A") == 1


async def test_another_address_may_do(names: Names):
    """Each that is allowed is looked at, until one proves the name."""
    names.records[NAME, "A"] = ["127.0.0.2", "127.0.0.1"]
    async with answering(ok()) as (port, _):
        assert await lookout(names, http_port=port).look(HTTP, NAME, TOKEN, THUMBPRINT) is None


async def test_the_system_knows_names(names: Names):
    """Without a resolver of our own the system's is asked, and its hosts file."""
    async with answering(ok()) as (port, _):
        assert await lookout(None, http_port=port).look(HTTP, "localhost", TOKEN, THUMBPRINT) is None
    outcome = await lookout(None).look(HTTP, "a.invalid", TOKEN, THUMBPRINT)
    assert reason(outcome) is Reason.ACME_NAME_NOT_FOUND


async def test_an_unknown_name_is_told(names: Names):
    """For each kind."""
    for kind in ChallengeKind:
        outcome = await lookout(names).look(kind, "nowhere.internal", TOKEN, THUMBPRINT)
        assert reason(outcome) is Reason.ACME_NAME_NOT_FOUND


async def test_a_closed_port_is_told(names: Names):
    """With address and port."""
    async with answering(ok()) as (port, _):
        pass
    for kind in (HTTP, TLS):
        outcome = await lookout(names, http_port=port, tls_port=port).look(kind, NAME, TOKEN, THUMBPRINT)
        assert outcome
        assert (outcome.reason, outcome.evidence["port"]) == (Reason.ACME_UNREACHABLE, str(port))


async def test_records_prove_a_name(names: Names):
    """One among several; a wildcard's record is its domain's."""
    names.records["_acme-challenge.a.internal", "TXT"] = ['"other"', f'"{dns_value(GOOD)}"']
    for name in (NAME, f"*.{NAME}"):
        assert await lookout(names).look(DNS, name, TOKEN, THUMBPRINT) is None
    names.records["_acme-challenge.a.internal", "TXT"] = ['"other"']
    assert reason(await lookout(names).look(DNS, NAME, TOKEN, THUMBPRINT)) is Reason.ACME_WRONG_ANSWER


@asynccontextmanager
async def shaking(
    directory: Path, name: str = NAME, said: str = GOOD, protocol: str = "acme-tls/1"
) -> AsyncIterator[int]:
    """Serve TLS with the certificate of tls-alpn-01."""
    der, key = alpn_certificate(name, said)
    file = directory / "both.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    file.write_text(private + pem(der))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.set_alpn_protocols([protocol])

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_handshake_proves_a_name(names: Names, tmp_path: Path):
    """With the protocol, the name and the digest that RFC 8737 asks for."""
    async with shaking(tmp_path) as port:
        assert await lookout(names, tls_port=port).look(TLS, NAME, TOKEN, THUMBPRINT) is None


async def test_another_handshake_proves_nothing(names: Names, tmp_path: Path):
    """Another digest or name, another protocol, and no TLS at all."""
    for wrong in ({"said": "other"}, {"name": "b.internal"}):
        async with shaking(tmp_path, **wrong) as port:
            outcome = await lookout(names, tls_port=port).look(TLS, NAME, TOKEN, THUMBPRINT)
        assert reason(outcome) is Reason.ACME_WRONG_ANSWER
    async with shaking(tmp_path, protocol="h2") as port:
        assert reason(await lookout(names, tls_port=port).look(TLS, NAME, TOKEN, THUMBPRINT)) is Reason.ACME_TLS


async def test_a_challenge_is_looked_at_a_few_times(names: Names):
    """Until it is met; with pauses between."""
    clock = FakeClock()
    late = b"HTTP/1.1 404 Not Found\r\n\r\n"
    async with answering(late, late, ok()) as (port, asked):
        proving = asyncio.create_task(lookout(names, clock, http_port=port).prove(HTTP, NAME, TOKEN, THUMBPRINT))
        for seen, pause in enumerate(PAUSES_S[:2], 1):
            await _until(lambda: clock.sleepers == 1)
            assert len(asked) == seen
            await clock.advance(pause)
        assert await proving is None
    assert len(asked) == 3


async def test_in_the_end_the_last_reason_counts(names: Names):
    """After four looks."""
    clock = FakeClock()
    async with answering(b"HTTP/1.1 404 Not Found\r\n\r\n") as (port, asked):
        proving = asyncio.create_task(lookout(names, clock, http_port=port).prove(HTTP, NAME, TOKEN, THUMBPRINT))
        for pause in PAUSES_S:
            await _until(lambda: clock.sleepers == 1)
            await clock.advance(pause)
        outcome = await proving
    assert outcome
    assert outcome.evidence["status"] == "404"
    assert len(asked) == 4


async def _until(there) -> None:
    async with asyncio.timeout(10):
        while not there():
            await asyncio.sleep(0.005)
