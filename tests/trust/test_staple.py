from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.base.windows import Window, whole_second
from handfast.trust import leaf
from handfast.trust.profile import MUST_STAPLE
from handfast.trust.staple import HASTE, LONGEST_RETRY, SHORTEST_RETRY, Staple, judge_staple, must_staple
from tests.support.ocsp import REVOKED, UNKNOWN, Saying, answer, delegate, failure
from tests.support.partners import authority
from tests.support.pki import Pki
from tests.trust.material import issuer_key, planned, request

ROOT = authority("Root")
ISSUING, STRANGER = authority("Issuing", ROOT), authority("Issuing", ROOT)
PKI = Pki("Test", issuing=ISSUING, root=ROOT.cert)
HOST, OTHER = PKI.leaf("api.example.org"), PKI.leaf("web.example.org")
RESPONDER = delegate(ISSUING)
NOW = datetime.now(UTC)
MINUTE = timedelta(minutes=1)
GOOD = answer(HOST.cert, ISSUING, Saying(signer=RESPONDER, sent=(RESPONDER,)))


def judged(response: bytes, now: datetime = NOW, issuer: bytes = ISSUING.cert_der) -> Staple | Refusal:
    return judge_staple(response, HOST.cert_der, issuer, now)


def test_a_good_answer_is_a_staple():
    """By whom the issuer certified for it; it keeps its octets, its certificate and its window."""
    staple = judged(GOOD)
    assert isinstance(staple, Staple)
    assert (staple.der, int(staple.serial, 16)) == (GOOD, HOST.cert.serial_number)
    said = ocsp.load_der_ocsp_response(GOOD)
    assert staple.window == Window(said.this_update_utc, said.next_update_utc or NOW)


@pytest.mark.parametrize(
    ("response", "reason", "why"),
    [
        (answer(HOST.cert, ISSUING, Saying(word=REVOKED)), Reason.REVOKED, ""),
        (answer(HOST.cert, ISSUING, Saying(word=UNKNOWN)), Reason.STAPLE_UNUSABLE, "does not know"),
        (answer(OTHER.cert, ISSUING, Saying()), Reason.STAPLE_UNUSABLE, "another certificate"),
        (answer(HOST.cert, STRANGER, Saying()), Reason.STAPLE_UNUSABLE, "another certificate"),
        (answer(HOST.cert, ISSUING, Saying(signer=STRANGER)), Reason.STAPLE_UNUSABLE, "issuer signed it"),
        (answer(HOST.cert, ISSUING, Saying(signer=OTHER, sent=(OTHER,))), Reason.STAPLE_UNUSABLE, "issuer signed it"),
        (answer(HOST.cert, ISSUING, Saying(until=-MINUTE / 2)), Reason.STAPLE_UNUSABLE, "ended"),
        (answer(HOST.cert, ISSUING, Saying(until=HASTE / 2)), Reason.STAPLE_UNUSABLE, "it ends at"),
        (answer(HOST.cert, ISSUING, Saying(until=None)), Reason.STAPLE_UNUSABLE, "when it ends"),
        (answer(HOST.cert, ISSUING, Saying(since=5 * MINUTE)), Reason.STAPLE_UNUSABLE, "counts from"),
        (failure(ocsp.OCSPResponseStatus.TRY_LATER), Reason.STAPLE_UNUSABLE, "try later"),
        (b"", Reason.STAPLE_UNUSABLE, "cannot be read"),
        (b"\x30" + b"\0" * 100_000, Reason.STAPLE_UNUSABLE, "larger"),
    ],
    ids=["revoked", "unknown", "of another certificate", "of another issuer", "signed by a stranger", "signed by a sibling",
         "ended", "about to end", "without an end", "of the future", "no answer", "nothing", "too much"],
)  # fmt: skip
def test_whatever_is_less_than_good_is_no_staple(response: bytes, reason: Reason, why: str):
    """Envoy looks at the serial and the end alone, so that all else has to be found here."""
    refusal = judged(response)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is reason
    assert why in str(refusal.evidence)


def test_a_certificate_of_another_issuer_has_no_staple():
    """Nobody but who issued it can say anything of it, and of one that has ended there is nothing to say."""
    assert isinstance(judged(GOOD), Staple)
    for refusal in (judged(GOOD, issuer=STRANGER.cert_der), judged(GOOD, NOW + timedelta(days=4000))):
        assert isinstance(refusal, Refusal)
        assert "another authority" in refusal.evidence["response"]


@given(st.binary(max_size=200))
def test_arbitrary_octets_are_no_staple(response: bytes):
    """Whatever the server or the disk gives."""
    assert isinstance(judged(response), Refusal)


@given(st.data())
def test_changed_octets_say_nothing_else(data: st.DataObject):
    """What was changed on its way is refused, or still speaks of that certificate, as then no signed octet was."""
    whole = bytearray(GOOD)
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    read = judged(bytes(whole))
    assert isinstance(read, Refusal) or int(read.serial, 16) == HOST.cert.serial_number


def test_a_staple_counts_until_shortly_before_its_end():
    """Whoever gets it has time to look at it."""
    begin = whole_second(NOW)
    staple = Staple(b"", "aa", Window(begin, begin + 60 * MINUTE))
    counts = {
        at: staple.counts(begin + at) for at in (-MINUTE, 0 * MINUTE, 60 * MINUTE - 2 * HASTE, 60 * MINUTE - HASTE)
    }
    assert list(counts.values()) == [False, True, True, False]


@given(st.floats(-1, 1))
def test_the_next_one_is_asked_for_well_before(jitter: float):
    """Two thirds into its life, so that there is time to try again: 18 minutes of an hour at the least."""
    begin = whole_second(NOW)
    staple = Staple(b"", "aa", Window(begin - MINUTE, begin + 60 * MINUTE))
    assert begin + 36 * MINUTE < staple.renew_at(jitter) < begin + 43 * MINUTE


def test_it_is_asked_for_again_sooner_as_the_end_comes_nearer():
    """A tenth of what is left, within bounds; after the end too."""
    end = whole_second(NOW)
    staple = Staple(b"", "aa", Window(end - 60 * MINUTE, end))
    waits = [staple.retry_at(end - left) - (end - left) for left in (30 * MINUTE, 5 * MINUTE, 0 * MINUTE, -5 * MINUTE)]
    assert waits == [LONGEST_RETRY, MINUTE / 2, SHORTEST_RETRY, SHORTEST_RETRY]


@pytest.mark.parametrize("demands", [True, False])
def test_a_certificate_that_demands_a_staple_is_known(demands: bool):
    """By its TLS feature extension, as the template writes it."""
    asked = request(profile=MUST_STAPLE, reserved=True) if demands else request()
    tbs = leaf.tbs(planned(asked))
    der = leaf.assemble(tbs, issuer_key().sign(tbs, ec.ECDSA(hashes.SHA256())))
    assert must_staple(der) is demands


def test_what_is_no_certificate_demands_nothing():
    """It cannot be read."""
    with pytest.raises(BadInput):
        must_staple(b"no")
