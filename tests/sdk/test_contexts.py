import base64
import ssl
import stat
import tempfile
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.sdk import contexts
from handfast.sdk.contexts import anonymous_context, client_context, server_context
from tests.sdk.fronts import good
from tests.sdk.shaking import refusal, serve, shake
from tests.support.pki import SERVER, Issued, Pki


def builders(pki: Pki) -> dict[str, Callable[[Issued], ssl.SSLContext]]:
    return {
        "server": lambda leaf: server_context(leaf.chain_pem, leaf.key_pem, pki.roots_pem),
        "client": lambda leaf: client_context(leaf.chain_pem, leaf.key_pem, pki.roots_pem),
    }


# What is decided.


def test_good_client_gets_in(pki):
    """Both sides verify each other, under TLS 1.3, and the chain below the root is sent along."""
    leaf = pki.leaf()
    here, there = shake(serve(pki), good(pki, leaf))
    assert here.version() == there.version() == "TLSv1.3"
    assert here.getpeercert(binary_form=True) == leaf.cert_der


def test_only_tls_13_is_spoken(pki):
    """A client that knows nothing newer than TLS 1.2 is refused, and so is such a server."""
    old = good(pki, pki.leaf())
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert refusal(serve(pki), old)[0] == "UNSUPPORTED_PROTOCOL"
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    for context in (good(pki, pki.leaf()), anonymous_context(pki.roots_pem)):
        assert refusal(server, context)[0] == "UNSUPPORTED_PROTOCOL"


def test_client_without_a_certificate_is_refused_unless_told(pki):
    """The certificate is required; where it is optional, one that does not hold is still refused."""
    nobody = anonymous_context(pki.roots_pem)
    assert refusal(serve(pki), nobody)[0] == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    here, _ = shake(serve(pki, certificate="optional"), nobody)
    assert here.getpeercert(binary_form=True) is None
    assert refusal(serve(pki, certificate="optional"), good(pki, Pki("Other").leaf())) == (
        "CERTIFICATE_VERIFY_FAILED",
        20,
    )


@pytest.mark.parametrize(
    ("kind", "code"), [("stranger", 20), ("expired", 10), ("early", 9), ("purpose", 26), ("alone", 18)]
)
def test_bad_client_is_refused(kind, code, pki, stranger):
    """Each kind of bad certificate has its code."""
    leaf = {
        "stranger": stranger.leaf,
        "expired": pki.expired,
        "early": pki.not_yet_valid,
        "purpose": lambda: pki.leaf(eku=(SERVER,)),
        "alone": lambda: pki.leaf(self_signed=True),
    }[kind]()
    assert refusal(serve(pki), good(pki, leaf)) == ("CERTIFICATE_VERIFY_FAILED", code)


@pytest.mark.parametrize("anonymous", [False, True])
def test_bad_server_is_refused(anonymous, pki, stranger):
    """A client checks the chain against its own roots and nothing else, and the name."""
    client = anonymous_context(pki.roots_pem) if anonymous else good(pki, pki.leaf())
    assert refusal(serve(stranger), client) == ("CERTIFICATE_VERIFY_FAILED", 20)
    assert refusal(serve(pki), client, "other.example") == ("CERTIFICATE_VERIFY_FAILED", 62)
    assert client.cert_store_stats()["x509_ca"] == 1


def test_alpn_is_http_1_1(pki):
    """A client that speaks more gets HTTP/1.1."""
    client = good(pki, pki.leaf())
    client.set_alpn_protocols(["h2", "http/1.1"])
    here, there = shake(serve(pki), client)
    assert here.selected_alpn_protocol() == there.selected_alpn_protocol() == "http/1.1"


def test_no_ticket_is_given(pki):
    """There is nothing that a client could resume with."""
    server = serve(pki)
    assert server.num_tickets == 0
    assert server.options & ssl.OP_NO_TICKET
    _, there = shake(server, good(pki, pki.leaf()))
    assert not there.session.has_ticket


# Revocation.


def test_revoked_client_is_refused(pki):
    """With a list its clients are asked about; without one nobody is."""
    revoked, fine = pki.leaf(), pki.leaf()
    server = serve(pki, crl_pem=pki.crl(revoked))
    assert refusal(server, good(pki, revoked)) == ("CERTIFICATE_VERIFY_FAILED", 23)
    shake(server, good(pki, fine))
    shake(serve(pki), good(pki, revoked))


def test_missing_and_old_lists_refuse_everybody(pki):
    """No list of the issuer's, or one that has ended, lets nobody in. A fresh one beside it helps."""
    client = good(pki, pki.leaf())
    ended = pki.crl(next_update=datetime.now(UTC) - timedelta(hours=1))
    assert refusal(serve(pki, crl_pem=Pki("Other").crl()), client) == ("CERTIFICATE_VERIFY_FAILED", 3)
    assert refusal(serve(pki, crl_pem=ended), client) == ("CERTIFICATE_VERIFY_FAILED", 12)
    shake(serve(pki, crl_pem=ended + pki.crl()), client)


def test_revoked_server_is_refused(pki):
    """A client with a list asks about its server."""
    revoked, leaf = pki.leaf("server"), pki.leaf()
    server = server_context(revoked.chain_pem, revoked.key_pem, pki.roots_pem)
    client = client_context(leaf.chain_pem, leaf.key_pem, pki.roots_pem, crl_pem=pki.crl(revoked))
    assert refusal(server, client) == ("CERTIFICATE_VERIFY_FAILED", 23)
    shake(serve(pki), client)


def test_certificate_among_the_lists_becomes_no_root(pki, stranger):
    """OpenSSL would trust it; here it is refused."""
    for pem in (pki.crl() + stranger.roots_pem, stranger.roots_pem, b"", b"no list", pki.crl().replace(b"M", b"N", 1)):
        with pytest.raises(BadInput, match="revocation lists are none"):
            serve(pki, crl_pem=pem)


# What cannot be used.


@pytest.mark.parametrize("kind", ["server", "client"])
def test_key_of_another_certificate_is_refused(kind, pki):
    """The message says what is wrong, and nothing of the key."""
    leaf, other = pki.leaf(), pki.leaf()
    with pytest.raises(BadInput, match="does not belong") as error:
        builders(pki)[kind](Issued(leaf.cert, other.key, leaf.above))
    assert_no_key(error.value, other.key_pem)


def assert_no_key(error: BadInput, key_pem: bytes) -> None:
    told = "".join(traceback.format_exception(error)) + error.hint + repr(error.args) + repr(error.__context__)
    lines = [line for line in key_pem.decode().splitlines() if len(line) > 40]
    assert lines
    assert [line for line in lines if line in told] == []


@pytest.mark.parametrize("kind", ["server", "client"])
@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_key_under_a_passphrase_is_refused(form, kind, pki):
    """Nobody is asked for it on the terminal, and no passphrase is guessed."""
    leaf = pki.leaf()
    pem = leaf.key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret"))
    roots = pki.roots_pem
    with pytest.raises(BadInput, match="cannot be used") as error:
        server_context(leaf.chain_pem, pem, roots) if kind == "server" else client_context(leaf.chain_pem, pem, roots)
    assert "no passphrase" in error.value.hint
    assert_no_key(error.value, pem)


def test_torn_key_is_refused_without_a_word_of_it(pki):
    """Half a key is no key."""
    leaf = pki.leaf()
    torn = leaf.key_pem[: len(leaf.key_pem) // 2]
    for chain, key in (
        (leaf.chain_pem, torn),
        (leaf.key_pem, leaf.chain_pem),
        (b"", leaf.key_pem),
        (leaf.chain_pem, b""),
    ):
        with pytest.raises(BadInput, match="cannot be used") as error:
            client_context(chain, key, pki.roots_pem)
        assert_no_key(error.value, leaf.key_pem)


@pytest.mark.parametrize(
    "build",
    [
        lambda leaf, roots: server_context(leaf.chain_pem, leaf.key_pem, roots),
        lambda leaf, roots: client_context(leaf.chain_pem, leaf.key_pem, roots),
        lambda _, roots: anonymous_context(roots),
    ],
    ids=["server", "client", "anonymous"],
)
def test_no_roots_are_refused(build, pki):
    """Nobody trusts nobody by accident, and nothing that is no certificate stands for one."""
    leaf = pki.leaf()
    for roots in (b"", b"nothing", leaf.key_pem, pki.crl(), pki.roots_pem.replace(b"M", b"N", 1)):
        with pytest.raises(BadInput, match="roots are no certificates"):
            build(leaf, roots)


def test_sizes_are_bounded(pki):
    """What is larger than anything sensible is not read."""
    leaf, large = pki.leaf(), b"x" * (contexts.LONGEST_PEM + 1)
    for chain, key, roots in (
        (large, leaf.key_pem, pki.roots_pem),
        (leaf.chain_pem, large, pki.roots_pem),
        (leaf.chain_pem, leaf.key_pem, large),
    ):
        with pytest.raises(BadInput, match="are more than the 1048576"):
            client_context(chain, key, roots)


def blocks(kind: str) -> Callable[[bytes], bytes]:
    return lambda der: (
        f"-----BEGIN {kind}-----\n".encode() + base64.encodebytes(der) + f"-----END {kind}-----\n".encode()
    )


def der(pem: bytes) -> bytes:
    return base64.b64decode(b"".join(pem.splitlines()[1:-1]))


MATERIAL = Pki("Mutated")
LEAF = MATERIAL.leaf()
CRL = MATERIAL.crl(LEAF)
changes = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=3)


def changed(pem: bytes, kind: str, where: list[tuple[int, int]]) -> bytes:
    data = bytearray(der(pem))
    for at, value in where:
        data[at % len(data)] = value
    return blocks(kind)(bytes(data))


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(where=changes)
def test_what_is_changed_is_read_or_refused(where):
    """Roots, lists, chains and keys with bytes changed give a context or `BadInput`, nothing else."""
    root, crl = changed(MATERIAL.roots_pem, "CERTIFICATE", where), changed(CRL, "X509 CRL", where)
    chain, key = changed(LEAF.cert_pem, "CERTIFICATE", where), changed(LEAF.key_pem, "PRIVATE KEY", where)
    for build in (
        lambda: anonymous_context(root),
        lambda: anonymous_context(MATERIAL.roots_pem + root),
        lambda: client_context(LEAF.chain_pem, LEAF.key_pem, MATERIAL.roots_pem, crl_pem=crl),
        lambda: client_context(chain, LEAF.key_pem, MATERIAL.roots_pem),
        lambda: client_context(LEAF.chain_pem, key, MATERIAL.roots_pem),
    ):
        try:
            build()
        except BadInput as error:
            assert error.hint  # noqa: PT017 - most of what is changed is refused, and some of it is not


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_root_that_only_one_library_reads_is_refused():
    """A version that does not exist, and an encoding that OpenSSL refuses, are bad input like any other."""
    root = der(MATERIAL.roots_pem)
    version = root.index(bytes.fromhex("a003020102"))
    for at, value in ((version + 4, 118), (root.index(b"\x55\x1d\x13") - 1, 2)):
        wrong = blocks("CERTIFICATE")(root[:at] + bytes([value]) + root[at + 1 :])
        for roots in (wrong, MATERIAL.roots_pem + wrong):
            with pytest.raises(BadInput, match="roots are no certificates"):
                anonymous_context(roots)


# Keys on their way to OpenSSL.


@pytest.mark.parametrize("memory", [True, False], ids=["memory", "files"])
def test_keys_leave_nothing_behind(memory, pki, tmp_path, monkeypatch):
    """While OpenSSL reads, only we can; afterwards there is neither file nor descriptor, whether it went well or not."""
    if not memory:
        monkeypatch.setattr(contexts, "_FD_PATHS", tmp_path / "missing")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    load, modes = ssl.SSLContext.load_cert_chain, []

    def look(context: ssl.SSLContext, *files: str, **more: Any) -> None:
        modes.extend(stat.S_IMODE(Path(file).stat().st_mode) for file in files)
        assert bool(list(tmp_path.iterdir())) != memory
        load(context, *files, **more)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", look)
    leaf = pki.leaf()
    before = len(list(Path("/dev/fd").iterdir()))
    shake(serve(pki, crl_pem=pki.crl()), client_context(leaf.chain_pem, leaf.key_pem, pki.roots_pem))
    with pytest.raises(BadInput):
        client_context(leaf.chain_pem, pki.leaf().key_pem, pki.roots_pem)
    assert modes == [0o600] * 6
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/dev/fd").iterdir())) == before
