"""What a line and a sales document of Dataverse cost, formula by formula.

Unless a test names another page: learn.microsoft.com/dynamics365/sales/price-calculation-opportunity-quote-order-invoice-records
"""

from __future__ import annotations

from decimal import Decimal

import pytest

from drawbar.sandbox.crm.pricing import (
    LineAmounts,
    LineShare,
    Method,
    Price,
    PriceItem,
    PricingError,
    Rounding,
    line_amounts,
    totals,
    unit_price,
)

COSTS = {"list_price": Decimal(200), "current_cost": Decimal(80), "standard_cost": Decimal(100)}


class TestUnitPrice:
    """Source: https://learn.microsoft.com/dynamics365/sales/price-calculation-opportunity-quote-order-invoice-records"""

    @pytest.mark.parametrize(
        ("method", "expected"),
        [
            (Method.PERCENT_OF_LIST, "40.00"),
            (Method.MARKUP_CURRENT_COST, "96.00"),
            (Method.MARGIN_CURRENT_COST, "100.00"),
            (Method.MARKUP_STANDARD_COST, "120.00"),
            (Method.MARGIN_STANDARD_COST, "125.00"),
        ],
    )
    def test_follows_from_a_percentage(self, method, expected):
        """Table of formulas: of 20 percent, taken of the list price or put on a cost as markup or margin."""
        assert Price(Decimal(expected)) == unit_price(PriceItem(method=method, percentage=Decimal(20), **COSTS))

    def test_is_the_amount_that_the_list_gives(self):
        """Row `Amount`: whatever the product costs."""
        assert Price(Decimal("12.35")) == unit_price(PriceItem(amount=Decimal("12.345"), **COSTS))

    @pytest.mark.parametrize(
        ("method", "error"),
        [
            (Method.AMOUNT, PricingError.MISSING_PRICE_LEVEL_AMOUNT),
            (Method.PERCENT_OF_LIST, PricingError.MISSING_PRICE),
            (Method.MARGIN_CURRENT_COST, PricingError.MISSING_CURRENT_COST),
            (Method.MARKUP_STANDARD_COST, PricingError.MISSING_STANDARD_COST),
        ],
    )
    def test_is_nothing_where_what_it_is_made_of_is_missing(self, method, error):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorderdetail, choices of PricingErrorCode."""
        assert Price(Decimal(0), error) == unit_price(PriceItem(method=method, percentage=Decimal(20)))

    def test_is_nothing_without_the_percentage(self):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorderdetail, choices of PricingErrorCode."""
        item = PriceItem(method=Method.PERCENT_OF_LIST, **COSTS)

        assert Price(Decimal(0), PricingError.MISSING_PRICE_LEVEL_PERCENTAGE) == unit_price(item)

    def test_a_margin_of_the_whole_price_is_none(self):
        """The formula divides by 100% - percentage."""
        item = PriceItem(method=Method.MARGIN_CURRENT_COST, percentage=Decimal(100), **COSTS)

        assert Price(Decimal(0), PricingError.INVALID_PRICE_LEVEL_PERCENTAGE) == unit_price(item)


class TestRounding:
    @pytest.mark.parametrize(
        ("rounding", "ends_in", "amount", "expected"),
        [
            (Rounding.NONE, True, "0.99", "46.40"),
            (Rounding.UP, True, "0.99", "46.99"),
            (Rounding.DOWN, True, "0.99", "45.99"),
            (Rounding.NEAREST, True, "0.99", "45.99"),
            (Rounding.UP, True, "0.05", "46.45"),
            (Rounding.UP, True, "5", "55.00"),
            (Rounding.UP, False, "0.25", "46.50"),
            (Rounding.DOWN, False, "5", "45.00"),
            (Rounding.NEAREST, False, "5", "45.00"),
        ],
    )
    def test_brings_a_price_to_an_end_or_a_multiple(self, rounding, ends_in, amount, expected):
        """learn.microsoft.com/dynamics365/sales/create-price-lists-price-list-items-define-pricing-products, step 6c."""
        item = PriceItem(
            method=Method.PERCENT_OF_LIST,
            percentage=Decimal("23.2"),
            rounding=rounding,
            ends_in=ends_in,
            rounding_amount=Decimal(amount),
            **COSTS,
        )

        assert Price(Decimal(expected)) == unit_price(item)


class TestLine:
    def test_is_price_by_quantity_less_discount_with_tax(self):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorderdetail: BaseAmount, ExtendedAmount."""
        amounts = line_amounts(Decimal("3.33"), Decimal("2.5"), discount=Decimal(1), tax=Decimal("0.5"))

        assert LineAmounts(Decimal("8.33"), Decimal("7.83")) == amounts

    def test_has_no_amount_that_no_column_holds(self):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorderdetail: BaseAmount, MaxValue"""
        highest = Decimal(922_337_203_685_477)

        assert line_amounts(highest, Decimal(1), discount=Decimal(0), tax=Decimal(0)) is not None
        assert line_amounts(highest, Decimal(1), discount=Decimal(0), tax=Decimal(1)) is None


class TestTotals:
    LINES = (LineShare(Decimal(100), Decimal(10), Decimal(19)), LineShare(Decimal(50), Decimal(0), Decimal("9.5")))

    def test_of_lines_are_without_their_discounts_and_taxes(self):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorder: TotalLineItemDiscountAmount."""
        found = totals(self.LINES, discount=Decimal(0), percentage=Decimal(0), freight=Decimal(0))

        assert (Decimal(140), Decimal(10), Decimal("28.5")) == (found.line_items, found.line_discounts, found.tax)

    def test_lose_amount_and_percentage_of_the_document(self):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorder: TotalDiscountAmount."""
        found = totals(self.LINES, discount=Decimal(5), percentage=Decimal(10), freight=Decimal(0))

        assert (Decimal(19), Decimal(121)) == (found.discount, found.less_freight)

    def test_end_with_freight_and_tax(self):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorder: TotalAmount."""
        found = totals(self.LINES, discount=Decimal(5), percentage=Decimal(10), freight=Decimal(7))

        assert Decimal("156.5") == found.total

    def test_of_no_lines_are_nothing(self):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorder: TotalAmount."""
        assert Decimal(0) == totals((), discount=Decimal(0), percentage=Decimal(0), freight=Decimal(0)).total
