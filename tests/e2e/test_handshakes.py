import json
from pathlib import Path

import pytest
from cryptography import x509

from handfast.base.reasons import Reason
from tests.e2e.clients import BOTH_VERSIONS, TLS_1_2, TLS_1_3, Refused, s_client, shake_hands
from tests.e2e.echo import Echo
from tests.e2e.feed import Feed
from tests.e2e.hostile import AT_TLS
from tests.e2e.platform import Client, Platform, serial_of
from tests.e2e.world import OPEN, PLAIN, STRICT
from tests.support.pki import Pki

each_case = pytest.mark.parametrize("case", AT_TLS.values(), ids=AT_TLS)
each_host = pytest.mark.parametrize("host", [OPEN, STRICT])


@each_case
@each_host
def test_a_bad_certificate_never_gets_an_answer(
    platform: Platform, echo: Echo, feed: Feed, hostile: Pki, tmp_path: Path, case, host
):
    """A bad certificate is refused in the handshake and recorded with its reason, in both versions of TLS, read first or not."""
    files, before = case.files(platform, hostile, tmp_path), echo.requests
    for tls in BOTH_VERSIONS:
        for patient in (True, False):
            outcome = shake_hands(platform, host, files, tls, patient=patient)
            assert isinstance(outcome, Refused)
            event = feed.find(kind="handshake.refused", by=outcome.peer)
            assert event["reason"] == case.reason
            assert event["server_name"] == host
            assert event["tls_version"] == {TLS_1_2: "TLSv1.2", TLS_1_3: "TLSv1.3"}[tls]
    assert echo.requests == before


@each_case
@pytest.mark.parametrize("tls", BOTH_VERSIONS)
def test_a_client_that_listens_hears_the_alert(platform: Platform, hostile: Pki, tmp_path: Path, case, tls):
    """The alert says what RFC 8446 section 6.2 has a name for, to a client that waits for it."""
    outcome = shake_hands(platform, OPEN, case.files(platform, hostile, tmp_path), tls)
    assert isinstance(outcome, Refused)
    assert outcome.alert == case.alert


@each_case
def test_the_record_says_all_and_explain_prints_it(platform: Platform, feed: Feed, hostile: Pki, tmp_path: Path, case):
    """The record has reason, side, hint, names, serial and dates of the certificate that was sent, and 'explain' prints them."""
    files = case.files(platform, hostile, tmp_path)
    outcome = shake_hands(platform, STRICT, files)
    assert isinstance(outcome, Refused)
    event = feed.find(kind="handshake.refused", by=outcome.peer)
    leaf, *others = x509.load_pem_x509_certificates(files.chain.read_bytes())
    assert (event["reason"], event["side"], event["hint"]) == (case.reason, case.reason.side, case.reason.hint)
    assert event["listener"] == f"127.0.0.1:{platform.gateway}"
    certificate = event["certificate"]
    assert certificate["subject"] == "CN=payments"
    assert certificate["issuer"] == leaf.issuer.rfc4514_string()
    assert certificate["serial"] == serial_of(leaf)
    assert certificate["uri_sans"] == ["spiffe://example.org/payments"]
    assert certificate["not_before"][:19] == f"{leaf.not_valid_before_utc:%Y-%m-%dT%H:%M:%S}"
    assert certificate["not_after"][:19] == f"{leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%S}"
    assert certificate["chain_length"] == 1 + len(others)
    told = platform.explain(event["id"])
    assert f"{case.reason}: {case.reason.summary}" in told
    shown = (
        case.reason.side.value, case.reason.hint, STRICT, outcome.peer.address, "CN=payments", "spiffe://example.org/payments",
        serial_of(leaf), leaf.issuer.rfc4514_string(), f"{leaf.not_valid_after_utc:%Y-%m-%d %H:%M:%S}",
    )  # fmt: skip
    assert [text for text in shown if text not in told] == []


def test_the_command_shows_refused_handshakes(platform: Platform, feed: Feed, hostile: Pki, tmp_path: Path):
    """'handfast events --json --kind handshake.refused' lists the refusal, and nothing of another kind."""
    outcome = shake_hands(platform, STRICT, hostile.expired().write(tmp_path, "expired"))
    assert isinstance(outcome, Refused)
    id_ = feed.find(by=outcome.peer)["id"]
    done = platform.run("events", "--json", "--kind", "handshake.refused", "-n", "100")
    listed = [json.loads(line) for line in done.stdout.splitlines()]
    assert {event["kind"] for event in listed} == {"handshake.refused"}
    assert [event["reason"] for event in listed if event["id"] == id_] == ["cert.expired"]


@pytest.mark.parametrize(
    ("version", "alert"), [("-tls1_3", "alert certificate required"), ("-tls1_2", "alert handshake failure")]
)
def test_openssl_is_told_that_a_certificate_is_required(platform: Platform, version, alert):
    """Without a certificate, 'required' fails the handshake with the alert that each version of TLS has for it."""
    said = s_client(platform, STRICT, version)
    assert alert in said
    assert "HTTP/" not in said


@pytest.mark.parametrize("tls", BOTH_VERSIONS)
def test_no_certificate_is_recorded_as_such(platform: Platform, feed: Feed, tls):
    """A client without a certificate where one is required is told apart from all with a bad one."""
    outcome = shake_hands(platform, STRICT, None, tls)
    assert isinstance(outcome, Refused)
    event = feed.find(kind="handshake.refused", by=outcome.peer)
    assert event["reason"] == Reason.CLIENT_NO_CERTIFICATE
    assert event["certificate"] is None


def test_openssl_is_let_in_with_a_good_certificate(platform: Platform, payments: Client):
    """The client that fails above succeeds with a certificate, so that what it lacked there is the certificate."""
    files = payments.files
    options = ("-cert", files.chain, "-cert_chain", files.chain, "-key", files.key)
    said = s_client(platform, STRICT, *options, say=f"GET / HTTP/1.1\r\nHost: {STRICT}\r\n\r\n")
    assert "HTTP/1.1 200" in said
    assert "Verify return code: 0 (ok)" in said


@pytest.mark.parametrize("name", ["unknown.example.org", "example.org", "open.example.org.evil.test"])
def test_a_name_that_is_not_served_is_refused(platform: Platform, feed: Feed, payments: Client, name):
    """No certificate opens a connection for a server name that the world does not have."""
    outcome = shake_hands(platform, name, payments.files)
    assert isinstance(outcome, Refused)
    event = feed.find(kind="handshake.refused", by=outcome.peer)
    assert (event["reason"], event["server_name"]) == (Reason.TLS_UNKNOWN_NAME, name)


@pytest.mark.parametrize("case", ["expired", "wrong-authority"])
def test_a_host_that_asks_for_no_certificate_does_not_look_at_one(
    platform: Platform, hostile: Pki, tmp_path: Path, case
):
    """With 'certificate: off' a bad certificate is not sent, and does no harm."""
    outcome = shake_hands(platform, PLAIN, AT_TLS[case].files(platform, hostile, tmp_path), patient=False)
    assert not isinstance(outcome, Refused)
    assert outcome.status == 200
