"""How long a request waits before it is handled, by rule: a fixed time, or one drawn from a distribution. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from drawbar.sandbox.selection import RuleError, Selection

MOST_MS = 600_000.0
_QUANTILE_99 = 2.3263478740408408  # of the normal distribution
_SHAPES: tuple[frozenset[str], ...] = (frozenset(("from", "to")), frozenset(("median", "p99")))


@dataclass(slots=True, kw_only=True)
class LatencyRule(Selection):
    """`ms`: a number of milliseconds, `{"from", "to"}` (evenly between them), or `{"median", "p99"}` (log-normal, as
    the answers of most services are).
    """

    ms: float | dict[str, float]

    def __post_init__(self) -> None:
        Selection.__post_init__(self)
        numbers = list(self.ms.values()) if isinstance(self.ms, dict) else [self.ms]
        if any(isinstance(one, bool) or not isinstance(one, int | float) or not 0 <= one <= MOST_MS for one in numbers):
            raise RuleError(f"ms: numbers between 0 and {MOST_MS:.0f}")
        if isinstance(self.ms, dict):
            if frozenset(self.ms) not in _SHAPES:
                raise RuleError("ms is a number, an object of from and to, or one of median and p99")
            low, high = self.ms.get("from", self.ms.get("median", 0)), self.ms.get("to", self.ms.get("p99", 0))
            if low > high or ("median" in self.ms and low == 0):
                raise RuleError("ms: from is at most to, a median above 0 and at most its p99")

    def draw_ms(self, chance: random.Random) -> float:
        if not isinstance(self.ms, dict):
            return float(self.ms)
        if "from" in self.ms:
            return chance.uniform(self.ms["from"], self.ms["to"])
        median = self.ms["median"]
        spread = math.log(self.ms["p99"] / median) / _QUANTILE_99
        return min(median * math.exp(chance.gauss(0, spread)), MOST_MS)


class Latencies:
    """The rules in force, the latest first: the first that fits decides. The same seed and requests wait alike."""

    def __init__(self, *, random_seed: int) -> None:
        self.rules: list[LatencyRule] = []
        self._chance = random.Random(random_seed)  # noqa: S311 - no secret

    def add(self, given: list[Mapping[str, Any]]) -> None:
        """A rule takes the place of one for the same requests; one for all requests of all that were before.

        Raises RuleError, and adds none, when one of the rules is wrong.
        """
        known = {field.name for field in fields(LatencyRule)}
        for rule in given:
            if "ms" not in rule or set(rule) - known:
                raise RuleError(f"a rule has ms and may have {', '.join(sorted(known - {'ms'}))}")
        for new in [LatencyRule(**rule) for rule in given]:
            self.rules = [new, *(rule for rule in self.rules if not _replaces(new, rule))]

    def clear(self) -> None:
        self.rules = []

    def seconds(self, system: str, method: str, target: str, app: str | None) -> float:
        for rule in self.rules:
            if rule.fits(system, method, target, app):
                return rule.draw_ms(self._chance) / 1000
        return 0.0


def _replaces(new: LatencyRule, old: LatencyRule) -> bool:
    named = {name: value for name, value in asdict(new).items() if name != "ms"}
    return not any(named.values()) or named == {name: value for name, value in asdict(old).items() if name != "ms"}
