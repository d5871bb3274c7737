"""Counts of durations by size, as a process keeps them and says them in its heartbeat."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

# Upper bounds in seconds: from what a person does not notice to what somebody has asked about by then.
BOUNDS_S = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


@dataclass(slots=True)
class Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))  # the last: above every bound
    sum_s: float = 0.0

    def add(self, value_s: float) -> None:
        """A value that equals a bound is counted below it, as Prometheus has it (`le`)."""
        self.counts[bisect_left(BOUNDS_S, value_s)] += 1
        self.sum_s += value_s

    def to_json(self) -> dict[str, object]:
        return {"counts": list(self.counts), "sum_s": round(self.sum_s, 3)}
