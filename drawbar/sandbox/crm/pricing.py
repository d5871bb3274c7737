"""What a line and a sales document of Dataverse cost. Pure.

Amounts are `Decimal`, rounded to cents, half up. What cannot be priced costs nothing and says why by a pricing error
code; it is no error of the request.
Source: https://learn.microsoft.com/dynamics365/sales/price-calculation-opportunity-quote-order-invoice-records
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal
from enum import IntEnum
from typing import Any

ZERO = Decimal(0)
_HIGHEST = Decimal(922_337_203_685_477)  # that a column of money holds
_CENT = Decimal("0.01")
_HUNDRED = Decimal(100)


class PricingError(IntEnum):
    """Why there is no price, as the column `pricingerrorcode` has it."""

    NONE = 0
    DETAIL_ERROR = 1
    MISSING_PRICE_LEVEL = 2
    INACTIVE_PRICE_LEVEL = 3
    MISSING_QUANTITY = 4
    MISSING_UNIT_PRICE = 5
    PRODUCT_NOT_IN_PRICE_LEVEL = 11
    MISSING_PRICE_LEVEL_AMOUNT = 12
    MISSING_PRICE_LEVEL_PERCENTAGE = 13
    MISSING_PRICE = 14
    MISSING_CURRENT_COST = 15
    MISSING_STANDARD_COST = 16
    INVALID_PRICE_LEVEL_PERCENTAGE = 18
    INVALID_PRICE_LEVEL_CURRENCY = 34
    OUT_OF_RANGE = 35


class Method(IntEnum):
    """How a line of a price list makes a price, as the column `pricingmethodcode` has it."""

    AMOUNT = 1
    PERCENT_OF_LIST = 2
    MARKUP_CURRENT_COST = 3
    MARGIN_CURRENT_COST = 4
    MARKUP_STANDARD_COST = 5
    MARGIN_STANDARD_COST = 6


class Rounding(IntEnum):
    """Where a price is rounded to, as the column `roundingpolicycode` has it."""

    NONE = 1
    UP = 2
    DOWN = 3
    NEAREST = 4


ENDS_IN = 1  # of `roundingoptioncode`; the other one is a multiple of the amount


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceItem:
    """A product in a unit on a price list, and what of the product a percentage is taken of."""

    method: Method = Method.AMOUNT
    amount: Decimal | None = None
    percentage: Decimal | None = None
    rounding: Rounding = Rounding.NONE
    ends_in: bool = False
    rounding_amount: Decimal | None = None
    list_price: Decimal | None = None
    current_cost: Decimal | None = None
    standard_cost: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Price:
    per_unit: Decimal
    error: PricingError = PricingError.NONE


def no_price(error: PricingError) -> Price:
    return Price(ZERO, error)


def unit_price(item: PriceItem) -> Price:
    """What one unit costs on a price list."""
    match item.method:
        case Method.AMOUNT:
            found = item.amount
            missing = PricingError.MISSING_PRICE_LEVEL_AMOUNT
        case Method.PERCENT_OF_LIST:
            found, missing = item.list_price, PricingError.MISSING_PRICE
        case Method.MARKUP_CURRENT_COST | Method.MARGIN_CURRENT_COST:
            found, missing = item.current_cost, PricingError.MISSING_CURRENT_COST
        case Method.MARKUP_STANDARD_COST | Method.MARGIN_STANDARD_COST:
            found, missing = item.standard_cost, PricingError.MISSING_STANDARD_COST
    if found is None:
        return no_price(missing)
    if item.method is Method.AMOUNT:
        return Price(cents(found))
    if item.percentage is None:
        return no_price(PricingError.MISSING_PRICE_LEVEL_PERCENTAGE)
    part = item.percentage / _HUNDRED
    match item.method:
        case Method.PERCENT_OF_LIST:
            price = found * part
        case Method.MARKUP_CURRENT_COST | Method.MARKUP_STANDARD_COST:
            price = found + found * part
        case _:
            if part >= 1:
                return no_price(PricingError.INVALID_PRICE_LEVEL_PERCENTAGE)
            price = found + found * part / (1 - part)
    return Price(cents(_rounded(price, item)))


def _rounded(price: Decimal, item: PriceItem) -> Decimal:
    """`price` at the next one, in the direction of the policy, that ends in an amount or is a multiple of it."""
    amount = item.rounding_amount
    if item.rounding is Rounding.NONE or not amount or amount < 0:
        return price
    step, rest = (_above(amount), amount) if item.ends_in else (amount, ZERO)
    steps = (price - rest) / step
    match item.rounding:
        case Rounding.UP:
            whole = steps.to_integral_value(ROUND_CEILING)
        case Rounding.DOWN:
            whole = steps.to_integral_value(ROUND_FLOOR)
        case Rounding.NEAREST:
            whole = steps.to_integral_value(ROUND_HALF_UP)
    return whole * step + rest


def _above(amount: Decimal) -> Decimal:
    """The lowest power of ten that is more than `amount`: prices that end in 0.99 are one apart."""
    return Decimal(1).scaleb(amount.adjusted() + 1)


@dataclass(frozen=True, slots=True)
class LineAmounts:
    base: Decimal
    extended: Decimal


def line_amounts(
    per_unit: Decimal, quantity: Decimal, *, discount: Decimal, tax: Decimal, volume: Decimal = ZERO
) -> LineAmounts | None:
    """The amount of a line, and the amount less its discount with its tax; None when no column holds them.

    `volume`: what is taken off each unit because so many are bought.
    """
    base = cents((per_unit - volume) * quantity)
    found = LineAmounts(base, base - discount + tax)
    return found if max(abs(found.base), abs(found.extended)) <= _HIGHEST else None


@dataclass(frozen=True, slots=True)
class LineShare:
    """What a line adds to the totals of its document."""

    base: Decimal
    discount: Decimal
    tax: Decimal


@dataclass(frozen=True, slots=True)
class Totals:
    line_items: Decimal
    line_discounts: Decimal
    tax: Decimal
    discount: Decimal
    less_freight: Decimal
    total: Decimal


def totals(lines: Iterable[LineShare], *, discount: Decimal, percentage: Decimal, freight: Decimal) -> Totals:
    """Lines less their discounts, less the discount of the document (amount and percentage), with freight and tax."""
    items = line_discounts = tax = ZERO
    for line in lines:
        items += line.base - line.discount
        line_discounts += line.discount
        tax += line.tax
    off = cents(discount + items * percentage / _HUNDRED)
    return Totals(items, line_discounts, tax, off, items - off, items - off + freight + tax)


def cents(amount: Decimal) -> Decimal:
    return amount.quantize(_CENT, ROUND_HALF_UP)


def decimal(value: Any) -> Decimal:
    """A number of a row; nothing counts as zero."""
    return ZERO if value is None else Decimal(str(value))
