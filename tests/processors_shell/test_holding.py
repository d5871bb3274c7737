"""Whether a recovery that ended is that of the partitions this process has."""

from __future__ import annotations

from processors.worker import Holding


class TestHolding:
    def test_is_over_as_soon_as_the_partitions_are_given_back(self):
        holding = Holding()
        holding.revoked()
        holding.assigned()
        first = holding.current()
        assert first is not None

        holding.revoked()

        assert holding.current() is None

    def test_of_the_next_assignment_is_another_one(self):
        """A recovery of the first that ends only now must not pass for that of the second."""
        holding = Holding()
        holding.assigned()
        first = holding.current()

        holding.revoked()
        holding.assigned()

        assert holding.current() not in (None, first)

    def test_is_none_before_the_first_assignment(self):
        assert Holding().current() is None
