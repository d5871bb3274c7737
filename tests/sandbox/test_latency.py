"""How long requests wait: the rules, and what is drawn from a distribution."""

from __future__ import annotations

import statistics
from typing import Any

import pytest

from drawbar.sandbox.latency import Latencies
from drawbar.sandbox.selection import RuleError


def drawn(ms: Any, *, count: int = 2_000, random_seed: int = 1) -> list[float]:
    """Milliseconds that `count` requests waited."""
    latencies = Latencies(random_seed=random_seed)
    latencies.add([{"ms": ms}])
    return [latencies.seconds("erp", "GET", "/customers", "an app") * 1000 for _ in range(count)]


class TestDistribution:
    def test_a_number_is_what_every_request_waits(self):
        assert set(drawn(40, count=10)) == {40}

    def test_from_and_to_bound_it(self):
        waits = drawn({"from": 20, "to": 60})

        assert 20 <= min(waits) < 22
        assert 58 < max(waits) <= 60
        assert 38 < statistics.mean(waits) < 42

    def test_median_and_p99_are_those_of_a_log_normal(self):
        """Half of all wait less than the median, one in a hundred more than the p99, and nobody less than nothing."""
        waits = sorted(drawn({"median": 100, "p99": 500}, count=20_000))

        assert waits[0] > 0
        assert 95 < waits[10_000] < 105
        assert 450 < waits[19_800] < 550

    def test_the_same_seed_waits_alike(self):
        assert drawn({"from": 0, "to": 100}, random_seed=7) == drawn({"from": 0, "to": 100}, random_seed=7)
        assert drawn({"from": 0, "to": 100}, random_seed=7) != drawn({"from": 0, "to": 100}, random_seed=8)


class TestRules:
    def test_the_latest_that_fits_decides(self):
        latencies = Latencies(random_seed=1)
        latencies.add([{"system": "erp", "ms": 10}, {"system": "erp", "method": "PATCH", "ms": 50}])

        assert latencies.seconds("erp", "GET", "/customers", None) == 0.010
        assert latencies.seconds("erp", "PATCH", "/customers(1)", None) == 0.050
        assert latencies.seconds("crm", "PATCH", "/accounts(1)", None) == 0

    def test_one_for_the_same_requests_takes_the_place_of_the_other(self):
        latencies = Latencies(random_seed=1)
        for ms in (10, 20, 30):
            latencies.add([{"system": "crm", "ms": ms}])

        assert [rule.ms for rule in latencies.rules] == [30]

    def test_one_for_all_requests_takes_the_place_of_all(self):
        latencies = Latencies(random_seed=1)
        latencies.add([{"system": "crm", "ms": 10}, {"path": "accounts", "ms": 10}])
        latencies.add([{"ms": 0}])

        assert latencies.seconds("crm", "GET", "/accounts", None) == 0

    @pytest.mark.parametrize(
        "rule",
        [
            {},
            {"ms": -1},
            {"ms": "10"},
            {"ms": True},
            {"ms": None},
            {"ms": float("nan")},
            {"ms": {"from": 10}},
            {"ms": {"from": 10, "to": 5}},
            {"ms": {"median": 0, "p99": 5}},
            {"ms": {"median": 10, "p99": "x"}},
            {"ms": 10, "system": "scm"},
            {"ms": 10, "path": "("},
            {"ms": 10, "path": 4},
            {"ms": 10, "entity": "account"},
        ],
        ids=str,
    )
    def test_what_cannot_be_followed_is_refused_whole(self, rule: dict[str, Any]):
        latencies = Latencies(random_seed=1)

        with pytest.raises(RuleError):
            latencies.add([{"ms": 10}, rule])
        assert latencies.rules == []
