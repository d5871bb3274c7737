"""What both adapters share."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal

import pytest

from drawbar.entities import amount, entities_of, entity_of, parse_time
from schemas.records import System
from schemas.topics import CAPTURED


class TestEntityOf:
    def test_knows_all_that_is_captured(self):
        """Every captured entity has a set and an id."""
        assert all(entity_of(System(system), entity).entity_set for system, entity in CAPTURED)

    @pytest.mark.parametrize("system", list(System))
    def test_has_one_entity_per_set(self, system):
        """Two names for one set would be two histories of one record."""
        sets = [entity.entity_set for entity in entities_of(system)]

        assert len(sets) == len(set(sets))


class TestParseTime:
    @pytest.mark.parametrize(
        ("text", "microsecond"),
        [
            ("2026-03-02T09:15:27Z", 0),
            ("2026-03-02T09:15:27.5Z", 500_000),
            ("2026-03-02T09:15:27.537Z", 537_000),
            ("2026-03-02T09:15:27.5371234Z", 537_123),
            ("2026-03-02T09:15:27+00:00", 0),
        ],
    )
    def test_takes_any_number_of_fraction_digits(self, text, microsecond):
        """Both services drop trailing zeros."""
        assert datetime(2026, 3, 2, 9, 15, 27, microsecond, tzinfo=timezone.utc) == parse_time(text)

    @pytest.mark.parametrize("text", ["", "today", "2026-03-02", "2026-03-02T09:15:27"])
    def test_refuses_what_is_no_time(self, text):
        """A time without a zone is no time."""
        with pytest.raises(ValueError, match="not a time"):
            parse_time(text)


class TestAmount:
    def test_has_neither_trailing_zeros_nor_exponent(self):
        """Equal amounts have one text, so one fingerprint."""
        assert [str(amount(value)) for value in (Decimal("25000.00"), "1000.80", 0.0)] == ["25000", "1000.8", "0"]

    def test_refuses_what_is_no_number(self):
        """A text in the place of an amount is a broken answer."""
        with pytest.raises(ValueError, match="not a number"):
            amount("Jane")
