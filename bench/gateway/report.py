"""From samples to a table and a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import median, quantiles

from bench.gateway.measure import Sample, Samples
from bench.gateway.servers import BY_NAME, HANDFAST, PLAIN, WITH_SESSION

FULL, RESUMED, RESUMED_12, KEPT_ALIVE = "full handshake", "resumed, TLS 1.3", "resumed, TLS 1.2", "kept alive"
NEW_LIMIT, KEPT_LIMIT = 1.1, 1.5


@dataclass(frozen=True, slots=True)
class Verdict:
    """One limit, and whether it is kept."""

    text: str
    kept: bool

    def __str__(self) -> str:
        """Give the line that is printed."""
        return f"{'PASS' if self.kept else 'FAIL'}  {self.text}"


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Give the ratio of two servers in each round."""
    return [one / other for one, other in zip(above, below, strict=True)]


def _us(taken: Sequence[Sample]) -> list[float]:
    return [one.us for one in taken]


def table(samples: Samples) -> Iterator[str]:
    """Give the lines of the table (Markdown). Times are µs of the server's processor time an operation."""
    yield "| one request over | server | median µs | min µs | x plain Envoy | spread | x by name | resumed | beside it µs |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for kind, by_server in samples.items():
        for name, taken in by_server.items():
            times, to_plain = _us(taken), ratios(_us(taken), _us(by_server[PLAIN]))
            to_named = median(ratios(times, _us(by_server[BY_NAME])))
            beside = f"{median(one.beside_us for one in taken):.0f}" if name in {HANDFAST, WITH_SESSION} else ""
            resumed = "" if kind in {FULL, KEPT_ALIVE} else f"{sum(one.resumed for one in taken) / len(taken):.0%}"
            yield (
                f"| {kind} | {name} | {median(times):.0f} | {min(times):.0f} | {median(to_plain):.2f} "
                f"| {min(to_plain):.2f}-{max(to_plain):.2f} | {to_named:.2f} | {resumed} | {beside} |"
            )


def verdicts(samples: Samples, paired: Sequence[tuple[float, float]]) -> Iterator[Verdict]:
    """Hold the samples against the limits: the medians of the ratios in each round, and for the first one in the pairs.

    A new connection is compared with an Envoy that chooses its certificate by name, as that is the same TLS.
    """
    full, kept = samples[FULL], samples[KEPT_ALIVE]
    yield _limit("a new connection, beside plain Envoy by name", *zip(*paired, strict=True), NEW_LIMIT)
    yield _limit("a request kept alive, beside plain Envoy", _us(kept[HANDFAST]), _us(kept[PLAIN]), KEPT_LIMIT)
    if "nginx" in full:
        whole = [one.whole_us for one in full[HANDFAST]]
        yield _limit("a new connection with its record, beside nginx without", whole, _us(full["nginx"]), 1.0)


def _limit(what: str, above: Sequence[float], below: Sequence[float], limit: float) -> Verdict:
    found = sorted(ratios(above, below))
    low, middle, high = quantiles(found, n=4)
    spread = f"{len(found)} times, half of them {low:.2f}-{high:.2f}"
    return Verdict(f"{what}: {middle:.3f} ± {_error(found):.3f} x ({spread}), limit {limit:.2f} x", middle <= limit)


def _error(ordered: Sequence[float]) -> float:
    """Give the standard error of a median, by how far apart those are that might as well stand in the middle."""
    middle, away = len(ordered) / 2, sqrt(len(ordered)) / 2
    return (ordered[min(int(middle + away), len(ordered) - 1)] - ordered[int(middle - away)]) / 2
