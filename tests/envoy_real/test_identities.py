"""What the access check reads in a certificate is what the control plane reads, also where the certificate is hostile."""

from __future__ import annotations

import base64
import random
import re
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from random import Random

import pytest

from handfast.base.reasons import Reason
from handfast.base.spiffe import SpiffeId
from tests.envoy_real.forging import URI, Forged, names_in
from tests.envoy_real.guard import HEADERS, Guard, Tls, guard, judged
from tests.envoy_real.lone import Answer
from tests.envoy_real.mutants import a_mixture, a_mutant
from tests.envoy_real.odd import BY_TLS, CASES, HOSTILE, KEPT, MINDED, UNUSUAL

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore:Attribute's length")]

MIXTURES, MUTANTS = 200, 500


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    with guard(tmp_path_factory.mktemp("guard")) as running:
        yield running


# What the service is told


def elements(header: str) -> list[list[tuple[str, str]]]:
    """Read X-Forwarded-Client-Cert as its grammar says: elements of pairs, values quoted where they need it."""
    pair = re.compile(r'([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^",;\\]*))([;,]|$)')
    found, at = [list[tuple[str, str]]()], 0
    while at < len(header):
        match = pair.match(header, at)
        assert match, header[at : at + 100]
        found[-1].append((match[1], match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])))
        at = match.end()
        if match[4] == ",":
            found.append([])
    return found


def check_told(answer: Answer, shown: Forged, identity: str) -> None:
    """See that the service was told of exactly this certificate, once, in headers that hold nothing else."""
    names = ("Client-Cert", "X-Forwarded-Client-Cert", "X-Client-CN", "X-Client-Identity", *HEADERS)
    told = {name: answer.told(name.lower()) for name in names}
    assert {name: len(values) for name, values in told.items()} == dict.fromkeys(names, 1)
    assert all(re.fullmatch(r"[ -~]*", values[0]) for values in told.values())
    assert told["X-Client-Identity"] == told["X-Handed-Identity"] == [identity]
    assert base64.b64decode(told["Client-Cert"][0][1:-1], validate=True) == shown.der
    (element,) = elements(told["X-Forwarded-Client-Cert"][0])
    fields = dict(element)
    assert Counter(key for key, _ in element if key != "DNS") == Counter(["By", "Hash", "Subject", "URI"])
    assert (fields["URI"], fields["Hash"]) == (identity, sha256(shown.der).hexdigest())
    assert told["X-Handed-Fingerprint"] == [fields["Hash"]]
    assert all(re.fullmatch(r"[A-Za-z0-9.*-]+", value) for key, value in element if key == "DNS")


def check_alike(answer: Answer, shown: Forged) -> SpiffeId | Reason:
    """See that an answer is what the control plane says of the certificate; give what that is."""
    expected = judged(shown.der)
    if isinstance(expected, SpiffeId):
        assert answer.status == 200, answer
        check_told(answer, shown, str(expected))
    else:
        assert (answer.status, answer.code) == (403, expected)
    return expected


def uri_of(shown: Forged) -> str:
    """Give the one URI in a certificate."""
    (uri,) = (text for tag, text in names_in(shown.der) if tag == URI)
    return uri.decode()


# Certificates with a name


@pytest.mark.parametrize("name", sorted(CASES.keys() - KEPT - BY_TLS))
def test_a_certificate_is_read_alike(gate: Guard, name: str):
    """The code is the one that `identify` has, and an identity is told to the service safely."""
    shown = gate.forge(CASES[name])
    answer = gate.meet(shown)
    assert isinstance(answer, Answer)
    check_alike(answer, shown)


@pytest.mark.parametrize("name", sorted(KEPT))
def test_a_certificate_that_the_client_keeps(gate: Guard, name: str):
    """A client whose key can make no signature that is asked for shows no certificate, and so has no identity."""
    shown = gate.forge(CASES[name])
    answer = gate.meet(shown)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.code) == (403, Reason.CLIENT_NO_CERTIFICATE)
    assert judged(shown.der) is Reason.CERT_UNSUPPORTED_KEY


@pytest.mark.parametrize("name", sorted(BY_TLS))
def test_a_certificate_that_tls_refuses(gate: Guard, name: str):
    """No request gets through with it, and there is no answer."""
    assert gate.meet(gate.forge(CASES[name])) is Tls.AT_THE_GATEWAY


@pytest.mark.parametrize("name", sorted(MINDED))
def test_what_only_the_library_minds(gate: Guard, name: str):
    """Where the control plane cannot read what has no say in the identity, the access check goes on with the right one."""
    shown = gate.forge(MINDED[name])
    answer = gate.meet(shown)
    assert isinstance(answer, Answer)
    assert judged(shown.der) is Reason.CERT_UNREADABLE
    assert answer.status == 200
    check_told(answer, shown, uri_of(shown))


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_what_no_library_would_send_is_refused(gate: Guard, name: str):
    """A client that puts its octets together by hand gets no further with a certificate that is broken."""
    assert gate.face(gate.forge(HOSTILE[name])) is Tls.AT_THE_GATEWAY


@pytest.mark.parametrize("name", sorted(UNUSUAL))
def test_what_no_library_would_send_is_read_alike(gate: Guard, name: str):
    """Nor does it gain anything with one that is merely unusual."""
    shown = gate.forge(UNUSUAL[name])
    answer = gate.face(shown)
    assert isinstance(answer, Answer)
    check_alike(answer, shown)


# Certificates by chance


def test_mixtures_are_read_alike(gate: Guard):
    """Of several faults in one certificate both name the same."""
    seed = random.getrandbits(32)
    chance, met = Random(seed), Counter[str]()
    for _ in range(MIXTURES):
        shown = gate.forge(a_mixture(chance))
        answer = gate.meet(shown)
        try:
            outcome = check_alike(answer, shown) if isinstance(answer, Answer) else answer
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {shown.der.hex()}") from error
        met[outcome if isinstance(outcome, str) else "let in"] += 1
    assert met[Tls.AT_THE_GATEWAY] < MIXTURES / 2, f"seed {seed}: {met}"
    assert len(met) >= 5, f"seed {seed}: {met}"


def test_mutants_never_gain_an_identity(gate: Guard):
    """Whatever stands in the extensions, the answer is the identity that is in them or a refusal, and never a fault."""
    seed = random.getrandbits(32)
    chance, met = Random(seed), Counter[str]()
    for _ in range(MUTANTS):
        shown = gate.forge(a_mutant(chance))
        answer = gate.face(shown)
        try:
            met[_outcome(answer, shown) if isinstance(answer, Answer) else answer] += 1
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {shown.der.hex()}") from error
    assert met[Tls.AT_THE_GATEWAY] < MUTANTS * 0.8, f"seed {seed}: {met}"
    assert met["let in"] > 20, f"seed {seed}: {met}"
    assert len(met) >= 5, f"seed {seed}: {met}"


def _outcome(answer: Answer, shown: Forged) -> str:
    if judged(shown.der) is not Reason.CERT_UNREADABLE:
        return "let in" if isinstance(outcome := check_alike(answer, shown), SpiffeId) else outcome
    if answer.status == 200:
        check_told(answer, shown, uri_of(shown))
        return "let in, though the library minds"
    assert (answer.status, answer.code in set(Reason) - {Reason.GATEWAY_FAULT}) == (403, True), answer
    return f"unreadable, {answer.code} here"
