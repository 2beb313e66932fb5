import asyncio
import ssl
import threading
from typing import Any

import httpx2
import pytest

from handfast.base.refusal import BadInput
from handfast.sdk.contexts import RotatingSSLContext, server_context
from tests.sdk.fronts import ask, good, on_both_loops, serving, told
from tests.sdk.shaking import refusal, serve, shake
from tests.support.pki import Issued


@pytest.fixture
def first(pki) -> Issued:
    """Give the identity that a client begins with."""
    return pki.leaf("first")


def seen_by(server: ssl.SSLContext, client: ssl.SSLContext) -> bytes | None:
    return shake(server, client)[0].getpeercert(binary_form=True)


def test_rotation_changes_who_we_are_and_whom_we_trust(pki, stranger, first):
    """Each handshake uses what was given last, all of it."""
    rotating = RotatingSSLContext(good(pki, first))
    assert seen_by(serve(pki), rotating) == first.cert_der
    second = stranger.leaf("second")
    rotating.rotate(good(stranger, second))
    assert seen_by(serve(stranger), rotating) == second.cert_der
    leaf = pki.leaf("server")
    server = server_context(leaf.chain_pem, leaf.key_pem, stranger.roots_pem)  # would take us, and is not taken
    assert refusal(server, rotating) == ("CERTIFICATE_VERIFY_FAILED", 20)


def test_rotation_keeps_what_was_offered_by_alpn(pki, first):
    """What a library set once holds for contexts that come later."""
    rotating = RotatingSSLContext(good(pki, first))
    server = serve(pki)
    assert shake(server, rotating)[1].selected_alpn_protocol() is None
    rotating.set_alpn_protocols(["http/1.1"])
    for _ in range(2):
        assert shake(server, rotating)[1].selected_alpn_protocol() == "http/1.1"
        rotating.rotate(good(pki, first))


def test_nobody_loosens_a_rotating_context(pki, stranger, first, tmp_path):
    """More roots, no verification, older versions: all of it is dropped, and a certificate of its own refused."""
    (tmp_path / "stranger.pem").write_bytes(stranger.roots_pem)
    inner = good(pki, first)
    rotating = RotatingSSLContext(inner)
    before = (inner.verify_mode, inner.verify_flags, inner.options, inner.minimum_version, inner.maximum_version)
    rotating.load_verify_locations(tmp_path / "stranger.pem")
    rotating.load_verify_locations(cadata=stranger.roots_pem.decode())
    rotating.load_default_certs()
    rotating.set_default_verify_paths()
    rotating.check_hostname = False
    rotating.verify_mode = ssl.CERT_NONE
    rotating.verify_flags = ssl.VerifyFlags(0)
    rotating.options = ssl.Options(0)
    rotating.minimum_version = rotating.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(BadInput, match="no certificate of its own"):
        rotating.load_cert_chain(*stranger.leaf().write(tmp_path, "other"))
    after = (inner.verify_mode, inner.verify_flags, inner.options, inner.minimum_version, inner.maximum_version)
    assert after == before
    assert rotating.verify_mode is ssl.CERT_REQUIRED
    assert rotating.check_hostname
    assert rotating.cert_store_stats()["x509_ca"] == len(rotating.get_ca_certs()) == 1
    assert rotating.get_ciphers() == inner.get_ciphers()
    assert refusal(serve(stranger), rotating) == ("CERTIFICATE_VERIFY_FAILED", 20)
    assert refusal(serve(pki), rotating, "other.example") == ("CERTIFICATE_VERIFY_FAILED", 62)


def test_the_shell_trusts_nobody(pki, first):
    """What went past our methods, as C code might, would find no roots and no certificate."""
    rotating = RotatingSSLContext(good(pki, first))
    assert ssl.SSLContext.cert_store_stats(rotating)["x509"] == 0
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        shake(serve(pki), _Past(rotating))


class _Past:
    """Calls the base class's method on a rotating context."""

    def __init__(self, rotating: RotatingSSLContext) -> None:
        self.rotating = rotating

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return ssl.SSLContext.wrap_bio(self.rotating, *args, **kwargs)


def test_bad_pair_leaves_the_old_identity(pki, first):
    """The new context is not even built, so nothing was changed."""
    rotating = RotatingSSLContext(good(pki, first))
    with pytest.raises(BadInput):
        rotating.rotate(good(pki, Issued(first.cert, pki.leaf().key)))
    assert seen_by(serve(pki), rotating) == first.cert_der


@on_both_loops
async def test_threads_never_meet_half_a_context(pki, first):
    """Three threads connect while the identity changes all the time: each handshake shows one of the two, whole."""
    leaves = [first, pki.leaf("second")]
    ready = [good(pki, leaf) for leaf in leaves * 2]
    rotating = RotatingSSLContext(ready[0])
    over = threading.Event()

    def rotate() -> int:
        count = 0
        while not over.wait(0.0005):
            count += 1
            rotating.rotate(ready[count % len(ready)])
            rotating.set_alpn_protocols(["http/1.1"] if count % 3 else ["http/1.1", "h2"])
        return count

    def connect(address: tuple[str, int]) -> list[str]:
        return [told(ask(address, rotating))["extensions"]["handfast.peer_der"] for _ in range(20)]

    async with serving(pki) as run:
        rotations = asyncio.create_task(asyncio.to_thread(rotate))
        seen = await asyncio.gather(*(asyncio.to_thread(connect, run.address) for _ in range(3)))
        over.set()
        assert await rotations > 10
        assert run.failures == []
    assert {one for some in seen for one in some} == {leaf.cert_der.hex() for leaf in leaves}


@on_both_loops
async def test_http_clients_rotate(pki, first):
    """The HTTP client, blocking and not, shows the new certificate on new connections and keeps the old on open ones."""
    second = pki.leaf("second")
    async with serving(pki) as run:
        url = f"https://localhost:{run.address[1]}/"

        def name(answer: httpx2.Response) -> str:
            return answer.raise_for_status().json()["extensions"]["handfast.peer_der"]

        def blocking() -> list[str]:
            rotating = RotatingSSLContext(good(pki, first))
            with (
                httpx2.Client(verify=rotating, trust_env=False) as old,
                httpx2.Client(verify=rotating, trust_env=False) as new,
            ):
                seen = [name(old.get(url))]
                rotating.rotate(good(pki, second))
                return [*seen, name(old.get(url)), name(new.get(url))]

        expected = [leaf.cert_der.hex() for leaf in (first, first, second)]
        assert await asyncio.to_thread(blocking) == expected
        rotating = RotatingSSLContext(good(pki, first))
        async with (
            httpx2.AsyncClient(verify=rotating, trust_env=False) as old,
            httpx2.AsyncClient(verify=rotating, trust_env=False) as new,
        ):
            seen = [name(await old.get(url))]
            rotating.rotate(good(pki, second))
            assert [*seen, name(await old.get(url)), name(await new.get(url))] == expected
