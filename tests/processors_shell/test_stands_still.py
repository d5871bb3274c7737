"""A recovery that was forgotten ends its process, which begins anew."""

from __future__ import annotations

from processors.worker import StandsStill


class TestStandsStill:
    def test_is_told_after_the_time_without_progress(self):
        still = StandsStill(20)

        assert [False, False, True] == [still.sees(7, now) for now in (100.0, 119.0, 120.0)]

    def test_begins_anew_with_every_step(self):
        still = StandsStill(20)
        still.sees(7, 100.0)

        assert [False, False, True] == [still.sees(8, now) for now in (119.0, 138.0, 139.0)]
