from datetime import timedelta

from handfast.app.agent.findings import AGAIN, LIFE, LONGEST, MOST, Findings
from handfast.base.reasons import Reason
from tests.support.clock import FakeClock


def test_the_same_finding_is_raised_again_after_a_minute_at_the_earliest():
    """A fault that comes back each second is one line a minute."""
    clock = FakeClock()
    findings = Findings("edge", clock)
    for _ in range(3):
        findings.find(Reason.ENVOY_DIED, {"how": "x"})
    findings.find(Reason.ENVOY_DIED, {"how": "y"})
    assert len(findings.untold) == 2
    clock.set(clock.now() + AGAIN)
    findings.find(Reason.ENVOY_DIED, {"how": "x"})
    assert len(findings.untold) == 3
    assert len(findings.standing) == 2


def test_a_finding_stands_for_ten_minutes_and_a_rejection_until_it_is_resolved():
    """What Envoy rejected is wrong until Envoy has taken something better."""
    clock = FakeClock()
    findings = Findings("edge", clock)
    findings.find(Reason.ENVOY_DIED, {})
    findings.find(Reason.ENVOY_REJECTED, {})
    clock.set(clock.now() + LIFE)
    assert [finding.reason for finding in findings.standing] == [Reason.ENVOY_REJECTED]
    findings.resolve(Reason.ENVOY_REJECTED, Reason.SNAPSHOT_BAD)
    assert findings.standing == []


def test_what_was_told_is_not_told_again():
    """Only those that the server has heard of are taken off; what came meanwhile stays."""
    findings = Findings("edge", FakeClock())
    findings.find(Reason.ENVOY_DIED, {})
    told = list(findings.untold)
    findings.find(Reason.SNAPSHOT_STALE, {})
    findings.told(told)
    assert [finding.reason for finding in findings.untold] == [Reason.SNAPSHOT_STALE]


def test_findings_are_bounded_in_number_and_length():
    """A fault with ever new words fills no memory."""
    clock = FakeClock()
    findings = Findings("edge", clock)
    for number in range(MOST + 20):
        clock.set(clock.now() + timedelta(milliseconds=1))
        findings.find(Reason.ENVOY_REJECTED, {"envoy": f"{number} " + "x" * 100_000})
    assert len(findings.untold) == len(findings.standing) == MOST
    assert {len(finding.evidence["envoy"]) for finding in findings.standing} == {LONGEST}
    assert findings.standing[-1].evidence["envoy"].startswith(f"{MOST + 19} ")


def test_a_clock_that_was_set_back_silences_nothing():
    """A fault is told then as if it were new, and one that is over does not stand for a day."""
    clock = FakeClock()
    findings = Findings("edge", clock)
    findings.find(Reason.ENVOY_DIED, {"how": "x"})
    findings.find(Reason.SNAPSHOT_STALE, {})
    clock.set(clock.now() - timedelta(days=1))
    findings.find(Reason.ENVOY_DIED, {"how": "x"})
    assert [finding.reason for finding in findings.standing] == [Reason.ENVOY_DIED]
    assert len(findings.untold) == 3
