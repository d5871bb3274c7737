"""The row of Dataverse's organization and what its settings do, fact by fact; each test names the page it models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.sandbox.catalogue import Shop, a_product, key
from tests.sandbox.client import Client, Control, error_code
from tests.sandbox.test_crm_sales import TOTALS, columns


@pytest.fixture
def shop(crm: Client) -> Shop:
    return Shop(crm)


@pytest.fixture
def organization(crm: Client) -> str:
    return f"organizations({crm.get('WhoAmI').json()['OrganizationId']})"


@pytest.fixture
def set_up(crm: Client, organization: str) -> Iterator[Callable[..., None]]:
    """Changes settings, for the time of a test."""
    before = crm.get(organization).json()
    changed: set[str] = set()

    def change(**settings: Any) -> None:
        changed.update(settings)
        assert 204 == crm.patch(organization, settings).status_code

    yield change
    crm.patch(organization, {name: before[name] for name in changed})


class TestOrganization:
    def test_is_one_and_says_how_it_is_set_up(self, crm: Client, organization):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/entities/organization"""
        (row,) = crm.rows("organizations?$expand=basecurrencyid($select=isocurrencycode)")

        assert key(organization) == row["organizationid"]
        assert ("USD", "$", 2) == (
            row["basecurrencyid"]["isocurrencycode"],
            row["basecurrencysymbol"],
            row["basecurrencyprecision"],
        )
        assert (0, True, 7) == tuple(
            row[name]
            for name in ("discountcalculationmethod", "oobpricecalculationenabled", "expirechangetrackingindays")
        )

    def test_is_neither_made_nor_deleted(self, crm: Client, organization):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/entities/organization: messages"""
        other = "organizations(00000000-0000-4000-8000-000000000001)"

        assert (400, "0x80040800") == error_code(crm.post("organizations", {"name": "Other"}))
        assert (400, "0x80040800") == error_code(crm.patch(other, {"name": "Other"}))
        assert (400, "0x80040800") == error_code(crm.delete(organization))

    @pytest.mark.parametrize(
        "wrong", [{"discountcalculationmethod": 2}, {"expirechangetrackingindays": 366}, {"unknownsetting": 1}]
    )
    def test_has_limits(self, crm: Client, organization, wrong):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/entities/organization: ranges"""
        assert 400 == crm.patch(organization, wrong).status_code


class TestSettings:
    def test_make_a_discount_one_of_each_unit(self, crm: Client, shop: Shop, set_up):
        """learn.microsoft.com/dynamics365/sales/developer/product-discounting-methods: the example"""
        of_line = shop.line(shop.document("opportunities"), quantity=200, manualdiscountamount=10)
        set_up(discountcalculationmethod=1)
        opportunity = shop.document("opportunities")
        of_unit = shop.line(opportunity, quantity=200, manualdiscountamount=1)

        assert (1990,) == columns(crm, of_line, "extendedamount")
        assert (1800,) == columns(crm, of_unit, "extendedamount")
        assert (1800, 200) == columns(crm, opportunity, "totalamount", "totallineitemdiscountamount")

    def test_leave_prices_to_somebody_else(self, crm: Client, shop: Shop, set_up):
        """learn.microsoft.com/power-platform/admin/system-settings-dialog-box-sales-tab: Use system pricing calculation"""
        set_up(oobpricecalculationenabled=False)
        order = shop.document("salesorders")
        line = shop.line(order, priceperunit=3)
        crm.patch(line, {"baseamount": 5, "extendedamount": 6})
        crm.patch(order, {"totalamount": 7})

        assert (3, 5, 6) == columns(crm, line, "priceperunit", "baseamount", "extendedamount")
        assert (None, None, None, None, 7) == columns(crm, order, *TOTALS)

    @pytest.mark.parametrize(("mandatory", "code"), [(True, 11), (False, 0)])
    def test_make_price_lists_optional(self, crm: Client, shop: Shop, set_up, mandatory, code):
        """Mandatory versus optional.

        learn.microsoft.com/dynamics365/sales/price-calculation-opportunity-quote-order-invoice-records
        """
        set_up(ispricelistmandatory=mandatory)
        unlisted = a_product(crm, shop.units)
        line = shop.line(shop.document("quotes"), **{"productid@odata.bind": f"/{unlisted}"})

        assert (0, code) == columns(crm, line, "priceperunit", "pricingerrorcode")

    def test_make_products_active(self, crm: Client, shop: Shop, set_up):
        """learn.microsoft.com/power-platform/admin/system-settings-dialog-box-sales-tab: Create products in active state"""
        draft = a_product(crm, shop.units, active=False)
        set_up(createproductswithoutparentinactivestate=True)
        family = a_product(crm, shop.units, active=False, productstructure=2)
        active = a_product(crm, shop.units, active=False)

        assert [2, 2, 0] == [columns(crm, product, "statecode")[0] for product in (draft, family, active)]

    def test_begin_the_numbers_of_documents(self, crm: Client, shop: Shop, set_up):
        """learn.microsoft.com/dynamics365/sales/customize-autonumbering: prefixes"""
        set_up(orderprefix="SO", quoteprefix="QT")
        numbers = [
            columns(crm, shop.document(set_name), name)[0].partition("-")[0]
            for set_name, name in (
                ("salesorders", "ordernumber"),
                ("quotes", "quotenumber"),
                ("invoices", "invoicenumber"),
            )
        ]

        assert ["SO", "QT", "INV"] == numbers

    def test_say_how_long_a_delta_link_lives(self, crm: Client, control: Control, info, set_up):
        """expirechangetrackingindays

        learn.microsoft.com/power-apps/developer/data-platform/use-change-tracking-synchronize-data-external-systems
        """
        link = crm.get("accounts?$select=name", prefer="odata.track-changes").json()["@odata.deltaLink"]
        control("POST", "clock", {"advance_s": 3 * 86_400})
        later = Client(info, "crm")
        alive = later.get(link).status_code
        later.patch(f"organizations({later.get('WhoAmI').json()['OrganizationId']})", {"expirechangetrackingindays": 2})
        expired = later.get(link)
        later.close()
        control("POST", "clock", {"reset": True})
        set_up(expirechangetrackingindays=7)

        assert 200 == alive
        assert (400, "0x80044352") == error_code(expired)
