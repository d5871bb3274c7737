"""Dataverse's lists of volume discounts and the prices they make, fact by fact; each test names the page it models."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox.catalogue import Shop, a_name, key, made
from tests.sandbox.client import Client, error_code
from tests.sandbox.test_crm_sales import WITH_LINES, columns

PRICES = ("priceperunit", "volumediscountamount", "baseamount", "extendedamount")


@pytest.fixture
def shop(crm: Client) -> Shop:
    return Shop(crm, amount=10)


def currency(crm: Client, code: str) -> dict[str, str]:
    row = crm.rows(f"transactioncurrencies?$filter=isocurrencycode eq '{code}'")[0]
    return {"transactioncurrencyid@odata.bind": f"/transactioncurrencies({row['transactioncurrencyid']})"}


def a_list(crm: Client, *, amounts: bool = False, code: str = "USD") -> str:
    more = currency(crm, code) if amounts else {}
    return made(crm, "discounttypes", {"name": a_name("Discounts"), "isamounttype": amounts, **more})


def body(discounts: str, low: float | None, high: float | None, **more: Any) -> dict[str, Any]:
    return {"discounttypeid@odata.bind": f"/{discounts}", "lowquantity": low, "highquantity": high, **more}


def on_price(crm: Client, shop: Shop, discounts: str) -> None:
    assert 204 == crm.patch(shop.price, {"discounttypeid@odata.bind": f"/{discounts}"}).status_code


class TestDiscount:
    def test_is_of_the_type_and_currency_of_its_list(self, crm: Client):
        """learn.microsoft.com/dynamics365/sales/developer/entities/discount: IsAmountType, TransactionCurrencyId"""
        amounts, percentages = a_list(crm, amounts=True, code="EUR"), a_list(crm)
        of_amount = crm.get(made(crm, "discounts", body(amounts, 1, 2, amount=3))).json()
        of_percentage = crm.get(made(crm, "discounts", body(percentages, 1, 2, percentage=3))).json()

        assert (True, False) == (of_amount["isamounttype"], of_percentage["isamounttype"])
        assert of_amount["_transactioncurrencyid_value"] in currency(crm, "EUR")["transactioncurrencyid@odata.bind"]
        assert round(3 / of_amount["exchangerate"], 2) == of_amount["amount_base"]

    @pytest.mark.parametrize(
        ("low", "high", "more", "code"),
        [
            (1, 2, {"amount": 3}, "0x80043b20"),
            (1, 2, {"amount": 3, "percentage": 3}, "0x80043b1f"),
            (1, 2, {}, "0x80040200"),
            (None, 2, {"percentage": 3}, "0x80040200"),
            (0, 2, {"percentage": 3}, "0x80043b00"),
            (3, 2, {"percentage": 3}, "0x80043b01"),
            (20, 25, {"percentage": 3}, "0x80043b02"),
            (15, 16, {"percentage": 3}, "0x80043b02"),
        ],
    )
    def test_of_percentages_is_a_range_of_its_own(self, crm: Client, low, high, more, code):
        """Discount…, LowQuantity…, DiscountRangeOverlap

        learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes
        """
        discounts = a_list(crm)
        made(crm, "discounts", body(discounts, 10, 20, percentage=5))

        assert (400, code) == error_code(crm.post("discounts", body(discounts, low, high, **more)))

    def test_of_amounts_has_no_percentage(self, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: DiscountPercent"""
        reply = crm.post("discounts", body(a_list(crm, amounts=True), 1, 2, percentage=3))

        assert (400, "0x80043b21") == error_code(reply)

    def test_can_be_moved_within_its_own_range(self, crm: Client):
        """learn.microsoft.com/dynamics365/sales/set-up-discount-list"""
        discounts = a_list(crm)
        first = made(crm, "discounts", body(discounts, 1, 9, percentage=5))
        made(crm, "discounts", body(discounts, 10, 20, percentage=10))

        assert 204 == crm.patch(first, {"highquantity": 9.5}).status_code
        assert (400, "0x80043b02") == error_code(crm.patch(first, {"highquantity": 10}))


class TestList:
    @pytest.mark.parametrize(("amounts", "code"), [(True, "0x80048cf7"), (False, "0x80048cf1")])
    def test_has_a_currency_when_it_is_of_amounts(self, crm: Client, amounts, code):
        """CurrencyRequiredForDiscountTypeAmount, Percentage…

        learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes
        """
        more = {} if amounts else currency(crm, "USD")
        reply = crm.post("discounttypes", {"name": a_name("Discounts"), "isamounttype": amounts, **more})

        assert (400, code) == error_code(reply)

    def test_goes_with_its_discounts_unless_a_price_is_made_by_it(self, crm: Client, shop: Shop):
        """learn.microsoft.com/dynamics365/sales/developer/entities/discounttype: Delete: Cascade, Restrict"""
        discounts = a_list(crm)
        discount = made(crm, "discounts", body(discounts, 1, 2, percentage=3))
        on_price(crm, shop, discounts)
        refused = crm.delete(discounts)
        crm.patch(shop.price, {"discounttypeid@odata.bind": None})
        crm.delete(discounts)

        assert (405, "0x80040227") == error_code(refused)
        assert [404, 404] == [crm.get(path).status_code for path in (discounts, discount)]

    def test_is_listed_with_its_discounts(self, crm: Client):
        """learn.microsoft.com/dynamics365/sales/developer/entities/discounttype: discount_type_discounts"""
        discounts = made(
            crm,
            "discounttypes",
            {
                "name": a_name("Deep"),
                "discount_type_discounts": [
                    {"lowquantity": 1, "highquantity": 9, "percentage": 5},
                    {"lowquantity": 10, "highquantity": 99, "percentage": 10},
                ],
            },
        )
        rows = crm.rows(f"{discounts}/discount_type_discounts?$orderby=lowquantity")

        assert [5, 10] == [row["percentage"] for row in rows]

    def test_of_amounts_is_in_the_currency_of_the_price_list(self, crm: Client, shop: Shop):
        """DiscountTypeAndPriceLevelCurrencyNotEqual

        learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes
        """
        bind = {"discounttypeid@odata.bind": f"/{a_list(crm, amounts=True, code='EUR')}"}

        assert (400, "0x80048cf8") == error_code(crm.patch(shop.price, bind))


class TestPrice:
    @pytest.mark.parametrize("set_name", WITH_LINES)
    @pytest.mark.parametrize(
        ("quantity", "prices"), [(4, (10, None, 40, 38)), (5, (10, 1.5, 42.5, 40.5)), (9, (10, 1.5, 76.5, 74.5))]
    )
    def test_of_a_unit_is_less_when_many_are_bought(self, crm: Client, shop: Shop, set_name, quantity, prices):
        """Price calculations for volume discount.

        learn.microsoft.com/dynamics365/sales/price-calculation-opportunity-quote-order-invoice-records
        """
        discounts = a_list(crm, amounts=True)
        made(crm, "discounts", body(discounts, 5, 9, amount=1.5))
        on_price(crm, shop, discounts)
        document = shop.document(set_name)
        line = shop.line(document, quantity=quantity, manualdiscountamount=2)

        assert prices == columns(crm, line, *PRICES)
        assert (prices[-1],) == columns(crm, document, "totalamount")

    def test_is_less_by_a_percentage_and_follows_the_quantity(self, crm: Client, shop: Shop):
        """learn.microsoft.com/dynamics365/sales/set-up-discount-list: Type"""
        discounts = a_list(crm)
        made(crm, "discounts", body(discounts, 2, 9, percentage=10))
        made(crm, "discounts", body(discounts, 10, 99, percentage=25))
        on_price(crm, shop, discounts)
        line = shop.line(shop.document("salesorders"), quantity=2)
        few = columns(crm, line, *PRICES)
        crm.patch(line, {"quantity": 10})
        many = columns(crm, line, *PRICES)
        crm.patch(line, {"quantity": 1})

        assert [(10, 1, 18, 18), (10, 2.5, 75, 75)] == [few, many]
        assert (10, None, 10, 10) == columns(crm, line, *PRICES)

    def test_is_worked_out_by_an_inactive_list_and_where_prices_are_locked(self, crm: Client, shop: Shop):
        """Even when the parent is locked; inactive lists.

        learn.microsoft.com/dynamics365/sales/price-calculation-opportunity-quote-order-invoice-records
        """
        discounts = a_list(crm)
        made(crm, "discounts", body(discounts, 5, 9, percentage=10))
        on_price(crm, shop, discounts)
        crm.patch(discounts, {"statecode": 1})
        order = shop.document("salesorders")
        line = shop.line(order, quantity=1)
        crm.post("LockSalesOrderPricing", {"SalesOrderId": key(order)})
        crm.patch(shop.price, {"amount": 99})
        crm.patch(line, {"quantity": 5})

        assert (10, 1, 45, 45) == columns(crm, line, *PRICES)

    def test_that_is_overridden_has_no_discount_of_volume(self, crm: Client, shop: Shop):
        """Of price list items.

        learn.microsoft.com/dynamics365/sales/price-calculation-opportunity-quote-order-invoice-records
        """
        discounts = a_list(crm)
        made(crm, "discounts", body(discounts, 1, 9, percentage=10))
        on_price(crm, shop, discounts)
        line = shop.line(shop.document("quotes"), quantity=5, ispriceoverridden=True, priceperunit=8)

        assert (8, None, 40, 40) == columns(crm, line, *PRICES)
