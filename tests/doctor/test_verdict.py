from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.doctor.verdict import span, stamp, verdict
from handfast.envoy.failures import LONGEST_TEXT, FailureReport
from handfast.trust.facts import pem
from tests.support.pki import CLIENT, SERVER, Issued, Pki

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PKI, NAMESAKE, STRANGER = Pki(), Pki(), Pki("Stranger")
VERIFY = "TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_"


def ders(pki: Pki) -> list[bytes]:
    assert pki.root is not None
    return [pki.root.public_bytes(Encoding.DER), pki.issuing.cert_der]


KNOWN = ders(PKI)


def report(words: str, *, depth: int = 0, sent: int = 1) -> FailureReport:
    at = f"X509_verify_cert:_certificate_verification_error_at_depth_{depth}:_"
    failure = f"{VERIFY}{at}{words.replace(' ', '_')}:TLS_error_end"
    return FailureReport(failure=failure, tls_version="TLSv1.3", chain_length=sent)


NO_ISSUER = report("unable to get local issuer certificate")
EXPIRED = report("certificate has expired")
NAMES = FailureReport(failure=f"{VERIFY}SAN_matcher,_certificate_SANs_are_[x]:TLS_error_end")


def ask(
    words: FailureReport, leaf: Issued | None = None, known: Sequence[bytes] = KNOWN, now: datetime = NOW
) -> Refusal:
    return verdict(words, leaf.cert_pem.decode() if leaf else "", known, now)


def test_a_missing_intermediate_is_named():
    """A leaf of our own issuing CA, sent alone, lacks that CA, and the verdict says which one."""
    found = ask(NO_ISSUER, PKI.leaf())
    assert found == Refusal(Reason.CHAIN_MISSING_INTERMEDIATE, {"missing": "CN=Test Issuing"})


def test_an_unknown_authority_is_named():
    """A leaf of an authority that nobody here knows names that authority."""
    found = ask(NO_ISSUER, STRANGER.leaf())
    assert found == Refusal(Reason.CHAIN_UNKNOWN_AUTHORITY, {"issuer": "CN=Stranger Issuing"})


def test_a_sent_root_that_nobody_knows_is_an_unknown_authority():
    """A client that sends its own root along is told the same."""
    found = ask(report("self signed certificate in certificate chain", depth=2, sent=3), STRANGER.leaf())
    assert found.reason is Reason.CHAIN_UNKNOWN_AUTHORITY


@pytest.mark.parametrize("words", ["unable to get local issuer certificate", "certificate signature failure"])
def test_an_authority_of_the_same_name_is_another_one(words: str):
    """A leaf of another installation with the same names is told from one of an unknown authority."""
    found = ask(report(words), NAMESAKE.leaf())
    assert (found.reason, found.evidence["issuer"]) == (Reason.CHAIN_SAME_NAME_OTHER_KEY, "CN=Test Issuing")


def test_a_self_signed_leaf_is_self_signed():
    """A self-signed leaf is one, in whatever words Envoy says it."""
    leaf = PKI.leaf("lone", self_signed=True)
    assert ask(NO_ISSUER, leaf) == Refusal(Reason.CERT_SELF_SIGNED, {"subject": "CN=lone"})
    assert ask(report("self signed certificate"), leaf).reason is Reason.CERT_SELF_SIGNED


def test_an_expired_leaf_says_since_when():
    """The evidence has the end, and how long ago that was."""
    leaf = PKI.leaf(not_before=NOW - 3 * DAY, not_after=NOW - DAY - 3 * HOUR)
    evidence = {"not_after": stamp(NOW - DAY - 3 * HOUR), "expired": "1 day 3 hours ago"}
    assert ask(EXPIRED, leaf) == Refusal(Reason.CERT_EXPIRED, evidence)


def test_a_leaf_that_expired_for_envoy_alone_points_at_the_clock():
    """Where Envoy's host and ours disagree on the time, the evidence says what time it is here."""
    leaf = PKI.leaf(not_before=NOW - DAY, not_after=NOW + HOUR)
    assert ask(EXPIRED, leaf).evidence == {"not_after": stamp(NOW + HOUR), "clock": f"here it is {stamp(NOW)}"}


def test_a_leaf_that_is_not_valid_yet_says_from_when():
    """The evidence has the beginning, and how far away it is; or, where it has begun here, our time."""
    leaf = PKI.leaf(not_before=NOW + 90 * timedelta(seconds=1), not_after=NOW + DAY)
    words, begin = report("certificate is not yet valid"), stamp(NOW + timedelta(seconds=90))
    assert ask(words, leaf).evidence == {"not_before": begin, "begins": "in 1 minute 30 seconds"}
    assert ask(words, leaf, now=NOW + HOUR).evidence["clock"] == f"here it is {stamp(NOW + HOUR)}"


def test_an_expired_intermediate_is_not_an_expired_leaf():
    """An end above the leaf is the issuer's, with its dates where the issuer is known here."""
    old = PKI.leaf("Old Issuing", ca=True, not_before=NOW - 9 * DAY, not_after=NOW - 2 * HOUR)
    leaf = Pki(issuing=old, root=PKI.root).leaf(not_before=NOW - DAY, not_after=NOW + DAY)
    words = report("certificate has expired", depth=1, sent=2)
    assert ask(words, leaf) == Refusal(Reason.CHAIN_ISSUER_EXPIRED, {"issuer": "CN=Old Issuing"})
    dates = {"not_after": stamp(NOW - 2 * HOUR), "expired": "2 hours ago"}
    assert ask(words, leaf, [*KNOWN, b"no certificate", old.cert_der]).evidence == {"issuer": "CN=Old Issuing", **dates}


def test_a_fault_far_up_the_chain_has_its_depth():
    """Where the certificate at fault is not the leaf's issuer, the evidence says how far up it is."""
    assert ask(report("invalid ca certificate", depth=1), PKI.leaf()).evidence == {"issuer": "CN=Test Issuing"}
    assert ask(report("invalid ca certificate", depth=2), PKI.leaf()).evidence == {"depth": "2"}


def test_a_missing_revocation_list_is_that_of_the_issuer_of_what_was_checked():
    """At the leaf the list of its issuer is missing, above it that of the issuer's issuer."""
    words = "certificate revocation check against provided CRLs failed: unable to get certificate CRL"
    assert ask(report(words), PKI.leaf()).evidence == {"issuer": "CN=Test Issuing"}
    assert ask(report(words, depth=1), PKI.leaf()).evidence == {"issuer": "the one above CN=Test Issuing"}


def test_wrong_usages_are_listed():
    """A certificate for servers says what it is for."""
    found = ask(report("unsupported certificate purpose"), PKI.leaf(eku=[SERVER, x509.ObjectIdentifier("1.2.3")]))
    assert found == Refusal(Reason.CERT_WRONG_EKU, {"usages": "serverAuth, 1.2.3"})


@pytest.mark.parametrize(
    ("uris", "reason"),
    [
        ((), Reason.IDENTITY_NO_URI_SAN),
        (("spiffe://a/x", "spiffe://a/y"), Reason.IDENTITY_SEVERAL_URI_SANS),
        (("https://a/x",), Reason.IDENTITY_NOT_SPIFFE),
        (("spiffe://a/x",), Reason.IDENTITY_SAN_NOT_ALLOWED),
    ],
)
def test_names_that_are_not_allowed_are_told_apart(uris: tuple[str, ...], reason: Reason):
    """Envoy's one word for names is refined by what the certificate carries, and the names are listed."""
    found = ask(NAMES, PKI.leaf(eku=[CLIENT], san_uris=uris, dns=["d.test"]))
    assert found == Refusal(reason, {"names": ", ".join([*uris, "d.test"])})


def test_the_first_error_does_not_hide_the_others():
    """Envoy stops at the first error; what else would have stopped the client is told under ``also``."""
    leaf = STRANGER.leaf(eku=[SERVER], not_before=NOW - 3 * DAY, not_after=NOW - 2 * HOUR)
    found = ask(NO_ISSUER, leaf)
    assert found.reason is Reason.CHAIN_UNKNOWN_AUTHORITY
    assert found.evidence["also"] == "it expired 2 hours ago; it is for serverAuth, not for clientAuth"


def test_also_does_not_repeat_the_reason():
    """What is the reason already is not told twice."""
    leaf = PKI.leaf(ca=True, eku=[SERVER], not_before=NOW - 3 * DAY, not_after=NOW - HOUR)
    assert ask(EXPIRED, leaf).evidence["also"] == "it is for serverAuth, not for clientAuth; it is a CA certificate"
    assert (
        ask(report("unsupported certificate purpose"), leaf).evidence["also"]
        == "it expired 1 hour ago; it is a CA certificate"
    )


def test_the_name_asked_for_is_evidence():
    """A client that asked for an unknown name, or for none, reads that."""
    unknown = FailureReport(flags=frozenset({"NR"}), server_name="nope.test")
    assert ask(unknown) == Refusal(Reason.TLS_UNKNOWN_NAME, {"asked_for": "nope.test"})
    assert ask(replace(unknown, server_name="")).evidence == {"asked_for": "no name"}


def test_the_alert_is_evidence():
    """The client's own word for what it disliked is passed on."""
    alert = FailureReport(
        failure="TLS_error:|268436504:SSL_routines:OPENSSL_internal:TLSV1_ALERT_UNKNOWN_CA:TLS_error_end"
    )
    assert ask(alert) == ask(alert, PKI.leaf()) == Refusal(Reason.CLIENT_REJECTED_US, {"alert": "unknown ca"})


@pytest.mark.parametrize(
    "offered", ["garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "x" * 300_000]
)
def test_a_certificate_that_cannot_be_read_leaves_envoy_s_reason(offered: str):
    """What cannot be read here adds nothing, and hides nothing."""
    assert verdict(EXPIRED, offered, KNOWN, NOW) == Refusal(Reason.CERT_EXPIRED)


def test_a_revoked_certificate_is_named_by_its_serial():
    """The serial in the evidence is the one that the inventory has."""
    leaf = PKI.leaf()
    found = ask(report("certificate revocation check against provided CRLs failed: certificate revoked"), leaf)
    assert found.reason is Reason.REVOKED
    assert int(found.evidence["serial"], 16) == leaf.cert.serial_number


_WORDS = st.sampled_from(
    ["certificate has expired", "unable to get local issuer certificate", "path length constraint exceeded"]
)
_LEAF = PKI.leaf(san_uris=[f"spiffe://example.org/{'a' * 900}{n}" for n in range(3)])


@given(words=_WORDS | st.text(), depth=st.integers(0, 12), sent=st.integers(0, 12), hours=st.integers(-(10**5), 10**5))
def test_any_verdict_is_bounded_and_has_a_reason(words: str, depth: int, sent: int, hours: int):
    """Whatever is reported of a certificate, at whatever time, there is a verdict of short texts."""
    for asked in (report(words, depth=depth, sent=sent), NAMES):
        found = ask(asked, _LEAF, now=NOW + hours * HOUR)
        assert isinstance(found.reason, Reason)
        assert all(text and len(text) <= LONGEST_TEXT and text.isprintable() for text in found.evidence.values())


@given(st.binary(max_size=64), st.integers(0, 10**4))
def test_a_damaged_certificate_never_breaks_the_verdict(noise: bytes, at: int):
    """Bytes changed in the client's certificate give a verdict all the same."""
    der = bytearray(_LEAF.cert_der)
    start = at % len(der)
    der[start : start + len(noise)] = noise
    for asked in (NO_ISSUER, EXPIRED, NAMES):
        assert isinstance(verdict(asked, pem(bytes(der)), KNOWN, NOW).reason, Reason)


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (timedelta(), "0 seconds"),
        (timedelta(milliseconds=900), "0 seconds"),
        (timedelta(seconds=-5), "0 seconds"),
        (timedelta(seconds=1), "1 second"),
        (timedelta(minutes=61, seconds=5), "1 hour 1 minute"),
        (timedelta(days=2, seconds=5), "2 days 5 seconds"),
        (timedelta(days=400), "400 days"),
    ],
)
def test_a_span_has_its_two_largest_units(length: timedelta, words: str):
    """Lengths of time are written as people say them."""
    assert span(length) == words
