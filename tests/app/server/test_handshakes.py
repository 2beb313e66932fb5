from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from handfast.app.server.handshakes import refused
from handfast.base.reasons import Reason
from handfast.io.encoding import MAX_EVENT_BYTES, encode_event
from handfast.sdk.handshake import FailedHandshake
from tests.support.pki import Pki

NOW = datetime(2026, 3, 4, tzinfo=UTC)


def failed(*offered: bytes, **more: object) -> FailedHandshake:
    plain = {
        "peer": "192.0.2.1:40000", "local": "127.0.0.1:7443", "server_name": "localhost", "tls_version": "TLSv1.3", "reason_text": "CERTIFICATE_VERIFY_FAILED",
        "verify_code": 10, "verify_message": "certificate has expired", "offered": offered, "elapsed_s": 0.01,
    }  # fmt: skip
    return FailedHandshake(**(plain | more))  # type: ignore[arg-type]


def test_a_failed_handshake_is_told_as_a_gateway_tells_it():
    """Reason, certificate and OpenSSL's words are in the event."""
    leaf = Pki().leaf("payments")
    event = refused(failed(leaf.cert_der), (), NOW)
    assert (event.gateway, event.listener, event.reason) == ("server", "127.0.0.1:7443", Reason.CERT_EXPIRED)
    assert event.raw == "CERTIFICATE_VERIFY_FAILED certificate has expired"
    assert event.certificate
    assert (event.certificate.subject, event.certificate.chain_length) == ("CN=payments", 1)
    assert event.certificate.uri_sans == ("spiffe://example.org/payments",)


def test_what_cannot_be_read_is_counted_all_the_same():
    """A chain of garbage is a chain of that many."""
    event = refused(failed(b"garbage", b"more"), (), NOW)
    assert event.certificate
    assert (event.certificate.subject, event.certificate.chain_length) == ("", 2)
    assert refused(failed(), (), NOW).certificate is None


def test_a_strangers_certificate_cannot_outgrow_an_event():
    """However many and long its names are, the event fits the ledger."""
    dns = [f"{'x' * 60}.{'y' * 60}.{'z' * 60}.w{number}" for number in range(2000)]
    uris = [f"spiffe://example.org/{'u' * 1800}/{number}" for number in range(100)]
    event = refused(
        failed(
            Pki().leaf("n" * 64, dns=dns, san_uris=uris).cert_der,
            server_name="s" * 100_000,
            verify_message="m" * 100_000,
        ),
        (),
        NOW,
    )
    assert len(encode_event(event)) <= MAX_EVENT_BYTES


@given(
    st.text(max_size=30),
    st.integers(-5, 200),
    st.lists(st.binary(max_size=50), max_size=3).map(tuple),
    st.text(max_size=20),
)
def test_whatever_came_is_an_event(text: str, code: int, offered: tuple[bytes, ...], name: str):
    """No handshake ends the server's front."""
    event = refused(failed(*offered, reason_text=text, verify_code=code, server_name=name), offered, NOW)
    assert event.reason in Reason
