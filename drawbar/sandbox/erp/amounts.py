"""Amounts of Business Central: reckoned as decimals, kept as numbers of JSON. Pure."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from drawbar.sandbox.erp.model import HIGHEST, overflow


def money(value: Any) -> Decimal:
    return Decimal(str(value))


def rounded(value: Decimal) -> Decimal:
    if abs(value) >= HIGHEST:
        raise overflow(value)
    return value.quantize(Decimal("0.01"), ROUND_HALF_UP)


def plain(value: Decimal) -> float | int:
    """A number as JSON has it, without trailing zeros."""
    return int(value) if value == value.to_integral_value() else float(value)
