import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.reasons import Reason
from handfast.envoy.failures import (
    ALERTS,
    CHAIN_ERRORS,
    ERRORS,
    LISTENER_PATIENCE_MS,
    LONGEST_TEXT,
    FailureReport,
    printable,
    read_words,
    recognise,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "in"
MEASURED: list[dict[str, Any]] = json.loads((VECTORS / "envoy-failures.json").read_text())["rows"]
VERIFY = "TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_"


def report_of(row: dict[str, Any]) -> FailureReport:
    return FailureReport(
        failure=row["failure"],
        flags=frozenset(flag for flag in row["flags"].split(",") if flag != "-"),
        details=row["details"],
        filter_chain=row["filter_chain"],
        tls_version=row["tls_version"],
        server_name=row["server_name"],
    )


def chain_error(words: str, depth: int = 0) -> FailureReport:
    at = f"X509_verify_cert:_certificate_verification_error_at_depth_{depth}:_"
    return FailureReport(failure=f"{VERIFY}{at}{words.replace(' ', '_')}:TLS_error_end")


def library_error(name: str) -> FailureReport:
    return FailureReport(failure=f"TLS_error:|268435648:SSL_routines:OPENSSL_internal:{name.upper()}:TLS_error_end")


def test_every_measured_handshake_has_its_reason(golden: Callable[[str, str], None]):
    """Each of the 95 measured cases keeps its reason, and each reason says who has to act and how."""
    lines = []
    for row in MEASURED:
        reason = None if row["finished"] else recognise(report_of(row))
        assert reason is None or reason.hint
        lines.append(f"{row['case']} | {f'{reason} | {reason.side}' if reason else 'ok'}\n")
    assert len(lines) == 95
    golden("measured.txt", "".join(lines))


def test_no_measured_failure_is_unrecognised():
    """The tables know every failure that was ever measured."""
    failed = [row for row in MEASURED if not row["finished"]]
    assert [row["case"] for row in failed if recognise(report_of(row)) is Reason.HANDSHAKE_UNRECOGNISED] == []


@pytest.mark.parametrize("row", [row for row in MEASURED if row["failure"]], ids=lambda row: row["case"])
def test_file_and_stream_spell_the_same(row: dict[str, Any]):
    """Underscores (file log) and spaces (gRPC log) between words give the same reason."""
    report = report_of(row)
    assert recognise(replace(report, failure=row["failure"].replace("_", " "))) is recognise(report)


@pytest.mark.parametrize(("words", "reasons"), CHAIN_ERRORS.items())
def test_depth_tells_the_leaf_from_its_issuers(words: str, reasons: tuple[Reason, Reason]):
    """Depth 0 is the leaf; every depth above it is an issuer."""
    leaf, issuer = reasons
    assert [recognise(chain_error(words, depth)) for depth in (0, 1, 2, 11)] == [leaf, issuer, issuer, issuer]


@pytest.mark.parametrize(("name", "reason"), ERRORS.items())
def test_each_library_error_has_its_reason(name: str, reason: Reason):
    """The library's errors are found by their names."""
    assert recognise(library_error(name)) is reason


def test_envoy_s_own_words_have_no_number():
    """A gateway that has no certificate yet says so in words of its own."""
    report = FailureReport(failure="TLS_error:_Secret_is_not_supplied_by_SDS")
    assert recognise(report) is Reason.SNAPSHOT_BAD


@pytest.mark.parametrize(
    ("alert", "reason"),
    [
        *((alert, reason) for alert, reason in ALERTS.items()),
        ("handshake failure", Reason.CLIENT_ALERT),
        ("user cancelled", Reason.CLIENT_ALERT),
    ],
)
def test_alerts_of_the_client(alert: str, reason: Reason):
    """An alert on our certificate is told from all others, and the alert's name can be read back."""
    report = library_error(f"tlsv1 alert {alert}")
    assert recognise(report) is reason
    assert read_words(report.failure).alert == alert


@pytest.mark.parametrize(
    "report",
    [
        FailureReport(failure="something else went wrong"),
        chain_error("a word that Envoy learned yesterday"),
        chain_error("certificate has expired, or so"),
        library_error("brand new error"),
        FailureReport(failure=f"{VERIFY}some_new_check"),
        FailureReport(details="a new way to end"),
        FailureReport(flags=frozenset({"XX"})),
    ],
)
def test_unknown_words_are_never_silent(report: FailureReport):
    """What no table knows is unrecognised, and nothing else."""
    assert recognise(report) is Reason.HANDSHAKE_UNRECOGNISED


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (FailureReport(), Reason.HANDSHAKE_CLOSED),
        (FailureReport(tls_version="TLSv1.3"), Reason.HANDSHAKE_CLOSED),
        (FailureReport(duration_ms=LISTENER_PATIENCE_MS - 5), Reason.HANDSHAKE_TIMEOUT),
        (FailureReport(duration_ms=LISTENER_PATIENCE_MS - 5, tls_version="TLSv1.3"), Reason.HANDSHAKE_CLOSED),
        (FailureReport(duration_ms=LISTENER_PATIENCE_MS // 2), Reason.HANDSHAKE_CLOSED),
        (FailureReport(details="transport socket timeout was reached"), Reason.HANDSHAKE_TIMEOUT),
        (FailureReport(flags=frozenset({"NR"})), Reason.TLS_UNKNOWN_NAME),
    ],
)
def test_connections_without_a_word(report: FailureReport, reason: Reason):
    """Where Envoy gives no failure, flags, details and time decide."""
    assert recognise(report) is reason


@given(names=st.lists(st.text() | st.sampled_from([*CHAIN_ERRORS, *ERRORS, VERIFY, "]:TLS error end"]), max_size=4))
def test_names_in_a_certificate_do_not_decide(names: list[str]):
    """A client cannot choose its reason by the names that it puts into its certificate."""
    words = f"SAN_matcher,_certificate_SANs_are_[{','.join(names)}]"
    assert recognise(FailureReport(failure=f"{VERIFY}{words}:TLS_error_end")) is Reason.IDENTITY_SAN_NOT_ALLOWED


@given(failure=st.text(), details=st.text(), flags=st.frozensets(st.text()), duration=st.integers())
def test_any_report_has_a_reason(failure: str, details: str, flags: frozenset[str], duration: int):
    """Whatever the words are, there is a reason."""
    report = FailureReport(failure=failure, details=details, flags=flags, duration_ms=duration)
    assert isinstance(recognise(report), Reason)


@given(st.text(max_size=3 * LONGEST_TEXT))
def test_printable_is_bounded_and_harmless(text: str):
    """What is kept of a stranger's text is short and moves no cursor; what was harmless stays as it was."""
    kept = printable(text)
    assert kept.isprintable()
    assert len(kept) == min(len(text), LONGEST_TEXT)
    assert kept == text or len(text) > LONGEST_TEXT or not text.isprintable()


def test_a_cut_text_equals_no_whole_one():
    """A text that is too long does not become the shorter one that it begins with."""
    assert printable("a" * (LONGEST_TEXT + 1)) != "a" * LONGEST_TEXT
    assert printable("a" * LONGEST_TEXT) == "a" * LONGEST_TEXT
