"""A certificate that has ended or is denied is refused on what is open, on what is resumed and on what is new."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from handfast.base.reasons import Reason
from tests.envoy_real.forging import Draft, Forged, forge
from tests.envoy_real.guard import Guard, guard
from tests.envoy_real.lone import GONE, Answer
from tests.support.pki import Pki

pytestmark = pytest.mark.e2e

VERSIONS = pytest.mark.parametrize("tls12", [False, True], ids=["TLS 1.3", "TLS 1.2"])


@dataclass(frozen=True)
class Pair:
    """A gateway whose program denies one certificate of two, and has no revocation list."""

    gate: Guard
    denied: Forged
    good: Forged


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pki = Pki()
    denied, good = forge(pki, Draft()), forge(pki, Draft())
    with guard(tmp_path_factory.mktemp("standing"), denied, pki=pki) as gate:
        yield Pair(gate, denied, good)


def new_and_resumed(gate: Guard, context: ssl.SSLContext) -> list[Answer]:
    """Ask on a new session twice, and once on a connection that resumes it."""
    with gate.connect(context) as connection:
        answers = [connection.ask("/"), connection.ask("/")]
        session = connection.tls.session
    with gate.connect(context, session) as again:
        answers.append(again.ask("/"))
        assert again.tls.session_reused
    return answers


@VERSIONS
def test_a_denied_certificate_is_refused_everywhere(pair: Pair, tls12: bool):
    """The program alone refuses it, also where TLS does not look at it again."""
    answers = new_and_resumed(pair.gate, pair.gate.context(pair.denied, tls12=tls12))
    assert [(answer.status, answer.code) for answer in answers] == [(403, Reason.REVOKED)] * 3


@VERSIONS
def test_a_resumed_session_is_the_same_visitor(pair: Pair, tls12: bool):
    """The service is told the same of a visitor whether the handshake was whole or short."""
    answers = new_and_resumed(pair.gate, pair.gate.context(pair.good, tls12=tls12))
    assert [answer.status for answer in answers] == [200] * 3
    for name in ("x-client-identity", "client-cert", "x-forwarded-client-cert", "x-handed-not-after"):
        told = [answer.told(name) for answer in answers]
        assert len(told[0]) == 1
        assert told == [told[0]] * 3


@VERSIONS
def test_a_session_does_not_carry_over_to_another_certificate(pair: Pair, tls12: bool):
    """A client that resumes is the visitor of its session, whatever it could show now."""
    first, second = (pair.gate.context(one, tls12=tls12) for one in (pair.denied, pair.good))
    with pair.gate.connect(second) as connection:
        assert connection.ask("/").status == 200
    with pair.gate.connect(first) as connection:
        assert connection.ask("/").code == Reason.REVOKED


def test_a_certificate_ends_while_it_is_connected(pair: Pair):
    """What is open and what is resumed is refused from the second on in which it ends; a new handshake fails."""
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    short = forge(pair.gate.pki, Draft(ends=ends))
    context = pair.gate.context(short)
    with pair.gate.connect(context) as connection:
        before = connection.ask("/")
        session = connection.tls.session
        while datetime.now(UTC) < ends + timedelta(seconds=0.05):
            time.sleep(0.05)
        after = connection.ask("/")
    assert (before.status, before.told("x-handed-not-after")) == (200, [ends.strftime("%Y-%m-%dT%H:%M:%SZ")])
    assert (after.status, after.code) == (403, Reason.CERT_EXPIRED)
    with pair.gate.connect(context, session) as again:
        resumed = again.ask("/")
        assert again.tls.session_reused
    assert (resumed.status, resumed.code) == (403, Reason.CERT_EXPIRED)
    with pytest.raises(GONE), pair.gate.connect(pair.gate.context(short)) as anew:
        anew.ask("/")
