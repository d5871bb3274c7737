"""Dataverse's opportunities, quotes, orders, invoices and their lines, fact by fact; each test names the page it models.

Error codes, where a page is shortened: learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.sandbox.catalogue import Shop, a_price, a_price_list, a_product, a_unit_group, key, lines_of, made
from tests.sandbox.client import Client, error_code, eventually
from tests.sandbox.conftest import Receiver

DOCUMENTS = ("quotes", "salesorders", "invoices")
WITH_LINES = (*DOCUMENTS, "opportunities")
TABLES = {"quotes": "quote", "salesorders": "salesorder", "invoices": "invoice", "opportunities": "opportunity"}
TOTALS = ("totallineitemamount", "totaldiscountamount", "totalamountlessfreight", "totaltax", "totalamount")


@pytest.fixture
def shop(crm: Client) -> Shop:
    return Shop(crm)


@pytest.fixture
def order(shop: Shop) -> str:
    return shop.document("salesorders")


def euro(crm: Client) -> dict[str, str]:
    row = crm.rows("transactioncurrencies?$filter=isocurrencycode eq 'EUR'")[0]
    return {"transactioncurrencyid@odata.bind": f"/transactioncurrencies({row['transactioncurrencyid']})"}


def columns(crm: Client, path: str, *names: str) -> tuple:
    row = crm.get(path).json()
    return tuple(row[name] for name in names)


class TestDocument:
    @pytest.mark.parametrize(
        ("set_name", "name", "prefix"),
        [
            ("quotes", "quotenumber", "QUO-"),
            ("salesorders", "ordernumber", "ORD-"),
            ("invoices", "invoicenumber", "INV-"),
        ],
    )
    def test_has_a_number_of_a_series(self, crm: Client, shop: Shop, set_name, name, prefix):
        """learn.microsoft.com/dynamics365/sales/developer/entities/quote: QuoteNumber, and so for the others"""
        first, second = (columns(crm, shop.document(set_name), name)[0] for _ in range(2))
        numbers = [int(number.split("-")[1]) for number in (first, second)]

        assert first.startswith(prefix)
        assert [5, 6] == [len(part) for part in first.split("-")[1:]]
        assert 1 == numbers[1] - numbers[0]

    def test_keeps_the_number_it_is_given(self, crm: Client, shop: Shop):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorder: OrderNumber, not for update"""
        number = uuid.uuid4().hex
        order = shop.document("salesorders", ordernumber=number)
        crm.patch(order, {"ordernumber": "other", "description": "D"})

        assert (number, "D") == columns(crm, order, "ordernumber", "description")

    def test_its_number_is_its_own(self, crm: Client, shop: Shop, order):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorder: OrderNumber"""
        body = {"name": "N", "ordernumber": columns(crm, order, "ordernumber")[0]}

        assert (412, "0x80040237") == error_code(crm.post("salesorders", body))

    @pytest.mark.parametrize("kind", ["account", "contact"])
    @pytest.mark.parametrize("set_name", [*DOCUMENTS, "opportunities"])
    def test_shows_its_customer_by_its_kind(self, crm: Client, set_name, kind):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorder: CustomerId, AccountId, ContactId"""
        body = {"name": "N"} if kind == "account" else {"lastname": "N"}
        customer = made(crm, f"{kind}s", body)
        document = made(crm, set_name, {"name": "N", f"customerid_{kind}@odata.bind": f"/{customer}"})
        row = crm.get(document).json()

        assert {"account": None, "contact": None, kind: key(customer)} == {
            name: row[f"_{name}id_value"] for name in ("account", "contact")
        }
        assert key(customer) == row["_customerid_value"]

    @pytest.mark.parametrize(
        ("set_name", "collection"),
        [
            ("quotes", "quote_customer_accounts"),
            ("salesorders", "order_customer_accounts"),
            ("invoices", "invoice_customer_accounts"),
            ("opportunities", "opportunity_customer_accounts"),
        ],
    )
    def test_is_listed_with_its_customer(self, crm: Client, shop: Shop, set_name, collection):
        """learn.microsoft.com/dynamics365/sales/developer/entities/account: one-to-many relationships"""
        document = shop.document(set_name)

        rows = crm.rows(f"{shop.account}/{collection}")
        assert [key(document)] == [row[f"{TABLES[set_name]}id"] for row in rows]

    @pytest.mark.parametrize("set_name", [*DOCUMENTS, "opportunities"])
    def test_is_in_the_currency_of_its_price_list(self, crm: Client, shop: Shop, set_name):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: the currency … does not match … the price list"""
        body = {"name": "N", "pricelevelid@odata.bind": f"/{shop.price_list}", **euro(crm)}

        assert (400, "0x80048cee") == error_code(crm.post(set_name, body))

    def test_composes_its_addresses(self, crm: Client, shop: Shop):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorder: BillTo_Composite, ShipTo_Composite"""
        order = shop.document("salesorders", billto_line1="1 High St", billto_city="Ware", shipto_country="UK")

        assert ("1 High St\r\nWare", "UK") == columns(crm, order, "billto_composite", "shipto_composite")

    @pytest.mark.parametrize(
        ("set_name", "status"), [("quotes", 4), ("salesorders", 100001), ("invoices", 100001), ("opportunities", 3)]
    )
    def test_is_made_open(self, crm: Client, set_name, status):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: InvalidStateCodeStatusCode"""
        assert (400, "0x80048408") == error_code(crm.post(set_name, {"name": "N", "statuscode": status}))

    def test_of_an_opportunity_takes_the_account_for_its_customer(self, crm: Client, shop: Shop):
        """learn.microsoft.com/dynamics365/sales/developer/entities/opportunity: ParentAccountId, CustomerId"""
        body = {"name": "N", "parentaccountid@odata.bind": f"/{shop.account}"}

        assert (key(shop.account),) == columns(crm, made(crm, "opportunities", body), "_customerid_value")

    def test_dates_are_dates_or_times(self, crm: Client, shop: Shop):
        """learn.microsoft.com/dynamics365/sales/developer/entities/opportunity, learn.microsoft.com/dynamics365/sales/developer/entities/salesorder: DateTimeBehavior"""
        opportunity = shop.document("opportunities", estimatedclosedate="2026-03-02")
        order = shop.document("salesorders", requestdeliveryby="2026-03-02")

        assert ("2026-03-02",) == columns(crm, opportunity, "estimatedclosedate")
        assert ("2026-03-02T00:00:00Z",) == columns(crm, order, "requestdeliveryby")


class TestLine:
    @pytest.mark.parametrize("set_name", WITH_LINES)
    def test_costs_what_the_price_list_says(self, crm: Client, shop: Shop, set_name):
        """learn.microsoft.com/dynamics365/sales/price-calculation-opportunity-quote-order-invoice-records"""
        line = shop.line(shop.document(set_name), quantity=2.5, manualdiscountamount=3, tax=1.5)

        assert (10, 25, 23.5, 23.5, 0) == columns(
            crm, line, "priceperunit", "baseamount", "extendedamount", "extendedamount_base", "pricingerrorcode"
        )

    def test_costs_a_part_of_the_list_price(self, crm: Client, shop: Shop, order):
        """learn.microsoft.com/dynamics365/sales/price-calculation-opportunity-quote-order-invoice-records: formulas"""
        product = a_product(crm, shop.units, price=200)
        a_price(crm, shop.price_list, product, shop.unit, pricingmethodcode=2, percentage=90)
        line = shop.line(order, **{"productid@odata.bind": f"/{product}"})

        assert (180, 360) == columns(crm, line, "priceperunit", "baseamount")

    def test_costs_what_a_price_that_is_overridden_says(self, crm: Client, shop: Shop, order):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorderdetail: IsPriceOverridden"""
        overridden = shop.line(order, ispriceoverridden=True, priceperunit=7)
        not_overridden = shop.line(order, priceperunit=7)

        assert (7, 14) == columns(crm, overridden, "priceperunit", "baseamount")
        assert (10, 20) == columns(crm, not_overridden, "priceperunit", "baseamount")

    def test_is_written_in(self, crm: Client, shop: Shop, order):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorderdetail: IsProductOverridden"""
        line = shop.write_in(order, priceperunit=4)

        assert (8, "Freight forwarding", None) == columns(crm, line, "baseamount", "productname", "_productid_value")

    @pytest.mark.parametrize(
        ("more", "code"),
        [
            ({"productdescription": "D"}, "0x80043afb"),
            ({"productid@odata.bind": None, "productdescription": "D"}, "0x80043afa"),
            ({"productid@odata.bind": None}, "0x80043b11"),
            ({"uomid@odata.bind": None}, "0x80043b0d"),
            ({"quantity": 1.005}, "0x80043b07"),
            ({"isproductoverridden": True}, "0x80040200"),
        ],
    )
    def test_is_of_the_catalogue_or_written_in(self, crm: Client, shop: Shop, order, more, code):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: CannotSpecifyBoth…, Missing…, ProductInvalid…"""
        assert (400, code) == error_code(crm.post("salesorderdetails", shop.line_body(order, **more)))

    def test_is_of_an_active_product(self, crm: Client, shop: Shop, order):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: CannotAddProduct"""
        draft = a_product(crm, shop.units, active=False)
        body = shop.line_body(order, **{"productid@odata.bind": f"/{draft}"})

        assert (400, "0x8004f908") == error_code(crm.post("salesorderdetails", body))

    def test_is_counted_in_a_unit_of_the_product(self, crm: Client, shop: Shop, order):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: ProductInvalidUnit"""
        body = shop.line_body(order, **{"uomid@odata.bind": f"/{a_unit_group(crm)[1]}"})

        assert (400, "0x80043b14") == error_code(crm.post("salesorderdetails", body))

    @pytest.mark.parametrize("set_name", WITH_LINES)
    def test_belongs_to_a_document_and_stays_with_it(self, crm: Client, shop: Shop, set_name):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorderdetail: SalesOrderId is SystemRequired"""
        document, other = shop.document(set_name), shop.document(set_name)
        line = shop.line(document)
        parent = f"{TABLES[set_name]}id@odata.bind"
        orphan = {name: value for name, value in shop.line_body(document).items() if name != parent}

        assert (400, "0x80040200") == error_code(crm.post(lines_of(document), orphan))
        assert (400, "0x80040203") == error_code(crm.patch(line, {parent: f"/{other}"}))

    def test_bears_the_name_of_its_product(self, crm: Client, shop: Shop, order):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorderdetail: ProductName"""
        name = crm.get(shop.product).json()["name"]

        assert (name, name) == columns(crm, shop.line(order), "productname", "salesorderdetailname")

    def test_is_in_the_currency_and_the_hands_of_its_document(self, crm: Client, shop: Shop):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorderdetail: OwnerId, TransactionCurrencyId"""
        team = crm.rows("teams")[0]["teamid"]
        order = shop.document("salesorders", **{"ownerid@odata.bind": f"/teams({team})"})
        line = shop.line(order)
        shared = ("_ownerid_value", "_owningteam_value", "_transactioncurrencyid_value", "exchangerate")

        assert team == columns(crm, line, *shared)[0]
        assert columns(crm, order, *shared) == columns(crm, line, *shared)

    @pytest.mark.parametrize(
        ("header", "line", "error"),
        [
            ({"pricelevelid@odata.bind": None}, {}, 2),
            ({}, {"quantity": None}, 4),
            ({}, {"ispriceoverridden": True}, 5),
            ({}, {"ispriceoverridden": True, "priceperunit": 9e14, "quantity": 1e11}, 35),
        ],
    )
    def test_that_has_no_price_says_why(self, crm: Client, shop: Shop, header, line, error):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorderdetail: choices of PricingErrorCode"""
        order = shop.document("salesorders", **header)
        made_line = shop.line(order, **line)

        assert (error, 0) == columns(crm, made_line, "pricingerrorcode", "baseamount")
        assert (1,) == columns(crm, order, "pricingerrorcode")

    def test_of_a_product_that_is_not_on_the_list_has_no_price(self, crm: Client, shop: Shop):
        """learn.microsoft.com/dynamics365/sales/price-calculation-opportunity-quote-order-invoice-records: mandatory"""
        order = shop.document("salesorders", **{"pricelevelid@odata.bind": f"/{a_price_list(crm)}"})

        assert (11, 0) == columns(crm, shop.line(order), "pricingerrorcode", "priceperunit")

    def test_of_a_list_that_was_given_up_has_no_price(self, crm: Client, shop: Shop, order):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorderdetail: choices of PricingErrorCode"""
        crm.patch(shop.price_list, {"statecode": 1})

        assert (3, 0) == columns(crm, shop.line(order), "pricingerrorcode", "priceperunit")

    def test_skips_the_calculation_where_it_says_so(self, crm: Client, shop: Shop, order):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorderdetail: SkipPriceCalculation"""
        line = shop.line(order, skippricecalculation=3, priceperunit=4)
        before = columns(crm, line, "priceperunit", "baseamount")
        crm.patch(line, {"baseamount": 100, "extendedamount": 119})

        assert (4, 8) == before
        assert (4, 100, 119) == columns(crm, line, "priceperunit", "baseamount", "extendedamount")
        assert (100,) == columns(crm, order, "totallineitemamount")


class TestTotals:
    @pytest.mark.parametrize("set_name", WITH_LINES)
    def test_follow_from_the_lines(self, crm: Client, shop: Shop, set_name):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorder: TotalAmount and what it is made of"""
        document = shop.document(set_name, discountpercentage=10, discountamount=1, freightamount=5)
        shop.line(document, quantity=5, manualdiscountamount=10, tax=4)
        shop.write_in(document, quantity=1, priceperunit=20, tax=2)

        assert (60, 7, 53, 6, 64) == columns(crm, document, *TOTALS)
        assert (10, 64) == columns(crm, document, "totallineitemdiscountamount", "totalamount_base")

    def test_follow_a_line_that_changes_and_one_that_goes(self, crm: Client, shop: Shop, order):
        """learn.microsoft.com/dynamics365/sales/price-calculation-opportunity-quote-order-invoice-records"""
        first, second = shop.line(order), shop.line(order)
        crm.patch(first, {"quantity": 3})
        changed = columns(crm, order, "totalamount")
        crm.delete(second)

        assert (50,) == changed
        assert (30,) == columns(crm, order, "totalamount")

    def test_are_a_new_version_of_the_document(self, crm: Client, shop: Shop, order):
        """learn.microsoft.com/dynamics365/sales/price-calculation-opportunity-quote-order-invoice-records: when"""
        before = crm.get(order).json()["versionnumber"]
        line = shop.line(order)
        made_line = crm.get(order).json()["versionnumber"]
        crm.patch(line, {"quantity": 2})

        assert before < made_line < crm.get(order).json()["versionnumber"]

    def test_follow_discount_and_freight_of_the_document(self, crm: Client, shop: Shop, order):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorder: DiscountAmount, FreightAmount"""
        shop.line(order)
        crm.patch(order, {"discountamount": 3, "freightamount": 4})

        assert (21,) == columns(crm, order, "totalamount")

    def test_are_not_taken_from_a_body(self, crm: Client, shop: Shop, order):
        """learn.microsoft.com/dynamics365/sales/price-calculation-opportunity-quote-order-invoice-records"""
        shop.line(order)
        crm.patch(order, {"totalamount": 999, "totaltax": 99})

        assert (20, 0) == columns(crm, order, "totalamount", "totaltax")

    def test_are_in_the_base_currency_too(self, crm: Client, shop: Shop):
        """learn.microsoft.com/power-apps/developer/data-platform/transaction-currency-currency-entity: exchange rate"""
        currency = euro(crm)
        price_list = a_price_list(crm, **currency)
        a_price(crm, price_list, shop.product, shop.unit, amount=10)
        order = shop.document("salesorders", **currency, **{"pricelevelid@odata.bind": f"/{price_list}"})
        line = shop.line(order)
        rate = crm.get(order).json()["exchangerate"]

        assert rate != 1
        assert (20, round(20 / rate, 2)) == columns(crm, order, "totalamount", "totalamount_base")
        assert (round(20 / rate, 2),) == columns(crm, line, "baseamount_base")

    def test_follow_another_price_list_with_their_lines(self, crm: Client, shop: Shop, order):
        """learn.microsoft.com/dynamics365/sales/price-calculation-opportunity-quote-order-invoice-records: when"""
        line = shop.line(order)
        other = a_price_list(crm)
        a_price(crm, other, shop.product, shop.unit, amount=12)
        crm.patch(order, {"pricelevelid@odata.bind": f"/{other}"})

        assert (12,) == columns(crm, line, "priceperunit")
        assert (24,) == columns(crm, order, "totalamount")

    def test_of_an_opportunity_are_its_revenue_where_it_is_calculated(self, crm: Client, shop: Shop):
        """learn.microsoft.com/dynamics365/sales/developer/entities/opportunity: IsRevenueSystemCalculated"""
        given = shop.document("opportunities", estimatedvalue=500, freightamount=5)
        calculated = shop.document("opportunities", estimatedvalue=500, freightamount=5, isrevenuesystemcalculated=True)

        assert (500, 5) == columns(crm, given, "estimatedvalue", "totalamount")
        assert (5, 5) == columns(crm, calculated, "estimatedvalue", "totalamount")


class TestState:
    @pytest.mark.parametrize(
        ("set_name", "path", "status"),
        [
            ("quotes", (1,), 2),
            ("quotes", (1, 0), 1),
            ("salesorders", (1,), 3),
            ("salesorders", (1, 4), 100003),
            ("salesorders", (4, 0), 1),
            ("invoices", (2,), 100001),
            ("invoices", (3,), 100003),
            ("invoices", (2, 0), 1),
        ],
    )
    def test_moves_by_patch(self, crm: Client, shop: Shop, set_name, path, status):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorder: SetState is PATCH of the state"""
        document = shop.document(set_name)
        for state in path:
            assert 204 == crm.patch(document, {"statecode": state}).status_code

        assert (path[-1], status) == columns(crm, document, "statecode", "statuscode")

    @pytest.mark.parametrize(
        ("set_name", "body"),
        [
            ("quotes", {"statecode": 2}),
            ("quotes", {"statecode": 3}),
            ("salesorders", {"statecode": 2}),
            ("salesorders", {"statuscode": 100001}),
            ("salesorders", {"statecode": 1, "statuscode": 1}),
            ("invoices", {"statecode": 1}),
            ("opportunities", {"statecode": 1}),
            ("opportunities", {"statuscode": 5}),
        ],
    )
    def test_moves_no_other_way(self, crm: Client, shop: Shop, set_name, body):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: InvalidStateCodeStatusCode"""
        assert (400, "0x80048408") == error_code(crm.patch(shop.document(set_name), body))

    def test_may_have_another_status(self, crm: Client, shop: Shop, order):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorder: choices of StatusCode"""
        crm.patch(order, {"statuscode": 2})

        assert (0, 2) == columns(crm, order, "statecode", "statuscode")

    @pytest.mark.parametrize(("set_name", "state"), [("quotes", 1), ("salesorders", 4), ("invoices", 2)])
    def test_closes_a_document_and_its_lines(self, crm: Client, shop: Shop, set_name, state):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: ParentReadOnly"""
        document = shop.document(set_name)
        line = shop.line(document)
        crm.patch(document, {"statecode": state})
        replies = [
            crm.patch(document, {"description": "D"}),
            crm.patch(line, {"quantity": 3}),
            crm.post(lines_of(document), shop.line_body(document)),
            crm.delete(line),
        ]

        assert [(400, "0x80043b09")] * 4 == [error_code(reply) for reply in replies]
        assert 204 == crm.patch(document, {"statecode": 0}).status_code
        assert 204 == crm.patch(line, {"quantity": 3}).status_code

    def test_lines_of_a_submitted_order_are_closed(self, crm: Client, shop: Shop, order):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorderdetail: SalesOrderStateCode"""
        line = shop.line(order)
        crm.patch(order, {"statecode": 1})

        assert (400, "0x80043b09") == error_code(crm.patch(line, {"quantity": 3}))
        assert 204 == crm.patch(order, {"description": "D"}).status_code

    @pytest.mark.parametrize(
        ("set_name", "name", "state"),
        [
            ("quotes", "quotestatecode", 1),
            ("salesorders", "salesorderstatecode", 1),
            ("invoices", "invoicestatecode", 2),
        ],
    )
    def test_is_shown_by_the_lines_which_do_not_change(self, crm: Client, shop: Shop, set_name, name, state):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorderdetail: SalesOrderStateCode, read-only"""
        document = shop.document(set_name)
        line = shop.line(document)
        before = columns(crm, line, name, "versionnumber")
        crm.patch(document, {"statecode": state})

        assert (0, before[1]) == before
        assert (state, before[1]) == columns(crm, line, name, "versionnumber")

    def test_lets_a_closed_document_change_hands(self, crm: Client, shop: Shop, order):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorder: message Assign"""
        team = crm.rows("teams")[0]["teamid"]
        crm.patch(order, {"statecode": 4})

        assert 204 == crm.patch(order, {"ownerid@odata.bind": f"/teams({team})"}).status_code


class TestOpportunityProduct:
    def test_makes_the_estimated_value_of_an_opportunity_that_the_system_works_out(self, crm: Client, shop: Shop):
        """learn.microsoft.com/dynamics365/sales/developer/entities/opportunity: IsRevenueSystemCalculated"""
        worked_out = shop.document("opportunities", isrevenuesystemcalculated=True)
        given = shop.document("opportunities", isrevenuesystemcalculated=False, estimatedvalue=7)
        for document in (worked_out, given):
            shop.line(document, quantity=4, tax=1)

        assert [(41, 41), (41, 7)] == [
            columns(crm, document, "totalamount", "estimatedvalue") for document in (worked_out, given)
        ]

    def test_shows_the_state_of_its_opportunity_and_is_read_only_once_that_is_closed(self, crm: Client, shop: Shop):
        """learn.microsoft.com/dynamics365/sales/developer/entities/opportunityproduct: OpportunityStateCode"""
        opportunity = shop.document("opportunities")
        line = shop.line(opportunity)
        activity = {"subject": "Won", "opportunityid@odata.bind": f"/{opportunity}"}
        crm.post("WinOpportunity", {"OpportunityClose": activity, "Status": 3})

        assert (1,) == columns(crm, line, "opportunitystatecode")
        assert (400, "0x80043b09") == error_code(crm.patch(line, {"quantity": 5}))

    @pytest.mark.parametrize(
        ("action", "set_name"),
        [
            ("GenerateQuoteFromOpportunity", "quotes"),
            ("GenerateSalesOrderFromOpportunity", "salesorders"),
            ("GenerateInvoiceFromOpportunity", "invoices"),
        ],
    )
    def test_is_a_line_of_what_is_generated(self, crm: Client, shop: Shop, action, set_name):
        """learn.microsoft.com/dynamics365/sales/create-edit-quote-sales: products of the opportunity are copied"""
        opportunity = shop.document("opportunities")
        shop.line(opportunity, quantity=3, manualdiscountamount=2)
        shop.write_in(opportunity, quantity=1, priceperunit=7)
        made_id = crm.post(action, {"OpportunityId": key(opportunity)}).json()[f"{TABLES[set_name]}id"]
        lines = crm.rows(f"{lines_of(set_name)}?$filter=_{TABLES[set_name]}id_value eq {made_id}&$orderby=quantity")

        assert [(1, 7, "Freight forwarding"), (3, 28, None)] == [
            (line["quantity"], line["extendedamount"], line["productdescription"]) for line in lines
        ]
        assert (35,) == columns(crm, f"{set_name}({made_id})", "totalamount")


class TestDelete:
    @pytest.mark.parametrize("set_name", WITH_LINES)
    def test_takes_the_lines_of_a_document(self, crm: Client, shop: Shop, set_name):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorder: order_details, Delete: Cascade"""
        document = shop.document(set_name)
        line = shop.line(document)
        crm.delete(document)

        assert 404 == crm.get(line).status_code

    @pytest.mark.parametrize("set_name", ["salesorders", "invoices"])
    def test_of_a_customer_is_refused_by_orders_and_invoices(self, crm: Client, shop: Shop, set_name):
        """learn.microsoft.com/dynamics365/customerengagement/on-premises/developer/entity-relationship-behavior"""
        document = shop.document(set_name)

        assert (405, "0x80040227") == error_code(crm.delete(shop.account))
        crm.delete(document)
        assert 204 == crm.delete(shop.account).status_code

    @pytest.mark.parametrize("set_name", ["quotes", "opportunities"])
    def test_of_a_customer_takes_quotes_and_opportunities(self, crm: Client, shop: Shop, set_name):
        """learn.microsoft.com/dynamics365/sales/developer/entities/quote: quote_customer_accounts, Delete: Cascade"""
        document = shop.document(set_name)
        crm.delete(shop.account)

        assert 404 == crm.get(document).status_code

    def test_of_an_opportunity_is_refused_by_orders_and_takes_quotes(self, crm: Client, shop: Shop):
        """learn.microsoft.com/dynamics365/sales/developer/entities/opportunity: opportunity_sales_orders, …_quotes"""
        opportunity = shop.document("opportunities")
        bind = {"opportunityid@odata.bind": f"/{opportunity}"}
        order, quote = shop.document("salesorders", **bind), shop.document("quotes", **bind)

        assert (405, "0x80040227") == error_code(crm.delete(opportunity))
        crm.delete(order)
        crm.delete(opportunity)
        assert 404 == crm.get(quote).status_code

    def test_of_what_lines_are_made_of_is_refused(self, crm: Client, shop: Shop, order):
        """learn.microsoft.com/dynamics365/sales/developer/entities/product: product_order_details, Delete: Restrict"""
        shop.line(order)

        for path in (shop.product, shop.price_list):
            assert (405, "0x80040227") == error_code(crm.delete(path))

    def test_of_a_price_list_leaves_opportunities(self, crm: Client, shop: Shop):
        """learn.microsoft.com/dynamics365/sales/developer/entities/pricelevel: price_level_opportunties, RemoveLink"""
        opportunity = shop.document("opportunities")
        crm.delete(shop.price_list)

        assert (None,) == columns(crm, opportunity, "_pricelevelid_value")


class TestTable:
    @pytest.mark.parametrize(
        ("set_name", "collection"),
        [
            ("quotes", "quote_details"),
            ("salesorders", "order_details"),
            ("invoices", "invoice_details"),
            ("opportunities", "product_opportunities"),
        ],
    )
    def test_shows_lines_with_their_document(self, crm: Client, shop: Shop, set_name, collection):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorder: order_details"""
        document = shop.document(set_name)
        line = shop.line(document)
        row = crm.get(f"{document}?$select=name&$expand={collection}($select=quantity)").json()

        assert [2] == [shown["quantity"] for shown in row[collection]]
        assert [key(line)] == [shown[f"{lines_of(document)[:-1]}id"] for shown in crm.rows(f"{document}/{collection}")]

    @pytest.mark.parametrize("set_name", [*DOCUMENTS, "opportunities"])
    def test_takes_bulk_messages(self, crm: Client, set_name):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorder: messages, with CreateMultiple"""
        target = {"@odata.type": f"Microsoft.Dynamics.CRM.{TABLES[set_name]}", "name": "Bulk"}
        reply = crm.post(f"{set_name}/Microsoft.Dynamics.CRM.CreateMultiple", {"Targets": [target] * 2})

        assert 2 == len(set(reply.json()["Ids"]))

    def test_tracks_changes(self, crm: Client, shop: Shop, order):
        """learn.microsoft.com/power-apps/developer/data-platform/use-change-tracking-synchronize-data-external-systems"""
        link = crm.get("salesorders?$select=totalamount", prefer="odata.track-changes").json()["@odata.deltaLink"]
        shop.line(order)

        assert [(key(order), 20)] == [
            (row["salesorderid"], row["totalamount"]) for row in crm.get(link).json()["value"]
        ]

    def test_is_queried_with_its_lines(self, crm: Client, shop: Shop, order):
        """learn.microsoft.com/power-apps/developer/data-platform/fetchxml/join-tables"""
        shop.line(order, quantity=3)
        fetch = f"""<fetch><entity name='salesorder'><attribute name='totalamount'/>
            <filter><condition attribute='salesorderid' operator='eq' value='{key(order)}'/></filter>
            <link-entity name='salesorderdetail' from='salesorderid' to='salesorderid' alias='line'>
            <attribute name='quantity'/></link-entity></entity></fetch>"""
        rows = crm.rows("salesorders", params={"fetchXml": fetch})

        assert [(30, 3)] == [(row["totalamount"], row["line.quantity"]) for row in rows]

    @pytest.mark.parametrize(
        ("table", "column", "described"),
        [
            ("salesorder", "customerid", {"AttributeType": "Customer", "Targets": ["account", "contact"]}),
            ("salesorder", "ordernumber", {"MaxLength": 100, "IsValidForUpdate": False}),
            ("salesorder", "name", {"MaxLength": 300}),
            ("salesorder", "discountpercentage", {"AttributeType": "Decimal", "MinValue": 0, "MaxValue": 100}),
            ("salesorder", "totalamount", {"AttributeType": "Money", "IsValidForCreate": False}),
            ("salesorderdetail", "quantity", {"MinValue": -100_000_000_000, "MaxValue": 100_000_000_000}),
            ("quotedetail", "isproductoverridden", {"AttributeType": "Boolean", "IsValidForUpdate": False}),
            ("quote", "revisionnumber", {"AttributeType": "Integer", "IsValidForCreate": False}),
            ("invoice", "duedate", {"DateTimeBehavior": {"Value": "DateOnly"}}),
            ("invoicedetail", "salesorderdetailid", {"Targets": ["salesorderdetail"]}),
            ("opportunity", "closeprobability", {"MinValue": 0, "MaxValue": 100}),
        ],
    )
    def test_describes_its_columns(self, crm: Client, table, column, described):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorder, and so for the others"""
        row = crm.get(f"EntityDefinitions(LogicalName='{table}')/Attributes(LogicalName='{column}')").json()

        assert described == {name: row[name] for name in described}

    @pytest.mark.parametrize(
        ("table", "states"),
        [
            ("quote", {1: 0, 2: 1, 3: 1, 4: 2, 5: 3, 6: 3, 7: 3}),
            ("salesorder", {1: 0, 2: 0, 3: 1, 4: 2, 100001: 3, 100002: 3, 100003: 4}),
            ("invoice", {1: 0, 2: 0, 4: 0, 5: 0, 6: 0, 3: 1, 7: 1, 100001: 2, 100002: 2, 100003: 3}),
            ("opportunity", {1: 0, 2: 0, 3: 1, 4: 2, 5: 2}),
        ],
    )
    def test_describes_its_states(self, crm: Client, table, states):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorder: StatusCode, and so for the others"""
        path = f"EntityDefinitions(LogicalName='{table}')/Attributes(LogicalName='statuscode')"
        row = crm.get(f"{path}/Microsoft.Dynamics.CRM.StatusAttributeMetadata?$expand=OptionSet").json()

        assert states == {option["Value"]: option["State"] for option in row["OptionSet"]["Options"]}

    def test_has_the_columns_of_the_connector(self, crm: Client, shop: Shop):
        """learn.microsoft.com/dynamics365/business-central/admin-synchronizing-business-central-and-sales"""
        company = crm.rows("bcbi_companies")[0]["bcbi_companyid"]
        order = shop.document(
            "salesorders",
            bcbi_businesscentralordernumber="S-1",
            **{"bcbi_CompanyId@odata.bind": f"/bcbi_companies({company})"},
        )

        assert ("S-1", company) == columns(crm, order, "bcbi_businesscentralordernumber", "_bcbi_companyid_value")


class TestNews:
    @pytest.fixture
    def step(self, crm: Client, receiver: Receiver) -> Iterator[None]:
        endpoint = made(
            crm,
            "serviceendpoints",
            {"name": "hub", "contract": 8, "url": receiver.url, "authtype": 4, "authvalue": "c"},
        )
        message = crm.rows("sdkmessages?$filter=name eq 'Update'")[0]["sdkmessageid"]
        body = {
            "name": "hub: Update of totals",
            "mode": 1,
            "stage": 40,
            "filteringattributes": "totalamount",
            "sdkmessageid@odata.bind": f"/sdkmessages({message})",
            "eventhandler_serviceendpoint@odata.bind": f"/{endpoint}",
        }
        step = made(crm, "sdkmessageprocessingsteps", body)
        yield
        crm.delete(step)

    def test_of_a_line_are_news_of_its_document(self, crm: Client, shop: Shop, order, step, receiver: Receiver):
        """learn.microsoft.com/dynamics365/sales/price-calculation-opportunity-quote-order-invoice-records: when"""
        shop.line(order)

        assert eventually(lambda: len(receiver.got) > 0)
        headers, context = receiver.got[0]
        attributes = {pair["key"]: pair["value"] for pair in context["InputParameters"][0]["value"]["Attributes"]}
        assert ("salesorder", "Update", key(order)) == (
            headers["x-ms-dynamics-entity-name"],
            context["MessageName"],
            context["PrimaryEntityId"],
        )
        assert 20 == attributes["totalamount"]["Value"]
