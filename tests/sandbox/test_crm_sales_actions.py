"""What Dataverse's sales actions make of opportunities, quotes, orders and invoices; each test names the page it models.

Error codes, where a page is shortened: learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes
"""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.sandbox.catalogue import Shop, key, lines_of
from tests.sandbox.client import Client, Control, Info, error_code
from tests.sandbox.test_crm_sales import columns, euro

ACTIVITIES = {"opportunities": "OpportunityClose", "quotes": "QuoteClose", "salesorders": "OrderClose"}
IDS = {"opportunities": "opportunityid", "quotes": "quoteid", "salesorders": "salesorderid"}
CLOSINGS = [
    ("WinOpportunity", "opportunities", (), 3, 1),
    ("LoseOpportunity", "opportunities", (), 4, 2),
    ("LoseOpportunity", "opportunities", (), 5, 2),
    ("WinQuote", "quotes", (1,), 4, 2),
    ("CloseQuote", "quotes", (1,), 5, 3),
    ("CloseQuote", "quotes", (1,), 6, 3),
    ("FulfillSalesOrder", "salesorders", (), 100001, 3),
    ("FulfillSalesOrder", "salesorders", (1,), 100002, 3),
    ("CancelSalesOrder", "salesorders", (), 4, 2),
]


@pytest.fixture
def shop(crm: Client) -> Shop:
    return Shop(crm)


@pytest.fixture
def quote(shop: Shop) -> str:
    """An active quote of two lines."""
    made = shop.document("quotes", description="As agreed", freightamount=5, billto_city="Ware")
    shop.line(made, quantity=3, manualdiscountamount=2, tax=4)
    shop.write_in(made, quantity=1, priceperunit=7)
    shop.crm.patch(made, {"statecode": 1})
    return made


@pytest.fixture
def order(shop: Shop) -> str:
    made = shop.document("salesorders")
    shop.line(made)
    return made


def close(crm: Client, action: str, document: str, status: int = -1, **more: Any):
    set_name = document.partition("(")[0]
    activity = {"subject": "Done", f"{IDS[set_name]}@odata.bind": f"/{document}", **more}
    return crm.post(action, {ACTIVITIES[set_name]: activity, "Status": status})


def convert(crm: Client, action: str, parameter: str, document: str, **more: Any):
    return crm.post(action, {parameter: key(document), "ColumnSet": {"AllColumns": True}, **more})


def lines(crm: Client, document: str) -> list[dict]:
    parent = f"_{document.partition('(')[0][:-1]}id_value"
    return crm.rows(f"{lines_of(document)}?$filter={parent} eq {key(document)}&$orderby=quantity desc")


class TestClosing:
    @pytest.mark.parametrize(("action", "set_name", "path", "status", "state"), CLOSINGS)
    def test_leads_to_the_state_of_its_status(self, crm: Client, shop: Shop, action, set_name, path, status, state):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorder, learn.microsoft.com/dynamics365/sales/developer/entities/quote, learn.microsoft.com/dynamics365/sales/developer/entities/opportunity: StatusCode"""
        document = shop.document(set_name)
        for step in path:
            crm.patch(document, {"statecode": step})
        reply = close(crm, action, document, status)

        assert (204, b"") == (reply.status_code, reply.content)
        assert (state, status) == columns(crm, document, "statecode", "statuscode")

    @pytest.mark.parametrize(
        ("action", "set_name", "path", "status"),
        [
            ("WinOpportunity", "opportunities", (), 3),
            ("WinQuote", "quotes", (1,), 4),
            ("FulfillSalesOrder", "salesorders", (), 100001),
        ],
    )
    def test_finds_the_status_itself_where_it_is_left_to_it(
        self, crm: Client, shop: Shop, action, set_name, path, status
    ):
        """learn.microsoft.com/dynamics365/sales/developer/sample-process-quotes-sales-orders-invoices: -1"""
        document = shop.document(set_name)
        for step in path:
            crm.patch(document, {"statecode": step})
        close(crm, action, document)

        assert (status,) == columns(crm, document, "statuscode")

    @pytest.mark.parametrize(
        ("action", "set_name", "status"),
        [("WinOpportunity", "opportunities", 4), ("FulfillSalesOrder", "salesorders", 4), ("WinQuote", "quotes", "4")],
    )
    def test_has_a_status_of_its_state(self, crm: Client, shop: Shop, action, set_name, status):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: InvalidStateCodeStatusCode"""
        assert (400, "0x80048408") == error_code(close(crm, action, shop.document(set_name), status))

    @pytest.mark.parametrize("action", ["WinQuote", "CloseQuote"])
    def test_of_a_quote_starts_from_an_active_one(self, crm: Client, shop: Shop, action):
        """learn.microsoft.com/dynamics365/sales/close-quote: only in the Active state"""
        assert (400, "0x80048408") == error_code(close(crm, action, shop.document("quotes")))

    @pytest.mark.parametrize(
        ("first", "second", "set_name"),
        [
            ("WinOpportunity", "LoseOpportunity", "opportunities"),
            ("CancelSalesOrder", "FulfillSalesOrder", "salesorders"),
            ("FulfillSalesOrder", "FulfillSalesOrder", "salesorders"),
        ],
    )
    def test_happens_once(self, crm: Client, shop: Shop, first, second, set_name):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: InvalidStateCodeStatusCode"""
        document = shop.document(set_name)
        close(crm, first, document)

        assert (400, "0x80048408") == error_code(close(crm, second, document))

    def test_says_when(self, crm: Client, shop: Shop, quote):
        """learn.microsoft.com/dynamics365/sales/developer/entities/quote, learn.microsoft.com/dynamics365/sales/developer/entities/salesorder, learn.microsoft.com/dynamics365/sales/developer/entities/opportunity: the dates"""
        when = "2026-03-02T09:15:27Z"
        order, opportunity = shop.document("salesorders"), shop.document("opportunities")
        close(crm, "WinQuote", quote, actualend=when)
        close(crm, "FulfillSalesOrder", order, actualend=when)
        close(crm, "WinOpportunity", opportunity, actualend=when)

        assert (when,) == columns(crm, quote, "closedon")
        assert (when,) == columns(crm, order, "datefulfilled")
        assert (when[:10],) == columns(crm, opportunity, "actualclosedate")

    @pytest.mark.parametrize(
        ("action", "set_name", "collection"),
        [
            ("WinOpportunity", "opportunities", "Opportunity_OpportunityClose"),
            ("WinQuote", "quotes", "Quote_QuoteClose"),
            ("CancelSalesOrder", "salesorders", "SalesOrder_OrderClose"),
        ],
    )
    def test_is_kept_as_an_activity(self, crm: Client, shop: Shop, quote, action, set_name, collection):
        """learn.microsoft.com/dynamics365/sales/developer/entities/orderclose
        learn.microsoft.com/dynamics365/sales/developer/entities/quoteclose
        learn.microsoft.com/dynamics365/sales/developer/entities/opportunityclose
        """
        document = quote if set_name == "quotes" else shop.document(set_name)
        close(crm, action, document, description="By phone", actualend="2026-03-02T09:15:27Z")
        kept = crm.rows(f"{document}/{collection}")

        assert [("Done", "By phone", "2026-03-02T09:15:27Z", 1, 2)] == [
            tuple(row[name] for name in ("subject", "description", "actualend", "statecode", "statuscode"))
            for row in kept
        ]
        table = ACTIVITIES[set_name].lower()
        assert table == kept[0]["activitytypecode"]
        assert kept[0].items() <= crm.get(f"{table}s({kept[0]['activityid']})").json().items()

    def test_tells_of_its_document(self, crm: Client, shop: Shop, quote, order):
        """learn.microsoft.com/dynamics365/sales/developer/entities/orderclose: OrderNumber
        learn.microsoft.com/dynamics365/sales/developer/entities/opportunityclose
        """
        opportunity = shop.document("opportunities", estimatedvalue=100)
        for action, document in (("WinQuote", quote), ("FulfillSalesOrder", order), ("WinOpportunity", opportunity)):
            close(crm, action, document)
        of_quote = crm.rows(f"{quote}/Quote_QuoteClose")[0]
        of_order = crm.rows(f"{order}/SalesOrder_OrderClose")[0]
        of_opportunity = crm.rows(f"{opportunity}/Opportunity_OpportunityClose")[0]

        assert columns(crm, quote, "quotenumber", "revisionnumber") == (of_quote["quotenumber"], of_quote["revision"])
        assert columns(crm, order, "ordernumber") == (of_order["ordernumber"],)
        assert (100, 1, 3) == tuple(
            of_opportunity[name] for name in ("actualrevenue", "opportunitystatecode", "opportunitystatuscode")
        )
        assert columns(crm, opportunity, "_transactioncurrencyid_value", "exchangerate") == tuple(
            of_opportunity[name] for name in ("_transactioncurrencyid_value", "exchangerate")
        )

    def test_of_an_opportunity_that_is_open_again_is_canceled(self, crm: Client, shop: Shop):
        """learn.microsoft.com/dynamics365/sales/developer/entities/opportunityclose: StateCode"""
        opportunity = shop.document("opportunities")
        close(crm, "LoseOpportunity", opportunity)
        crm.patch(opportunity, {"statecode": 0})

        assert [2] == [row["statecode"] for row in crm.rows(f"{opportunity}/Opportunity_OpportunityClose")]

    def test_of_an_opportunity_comes_to_an_amount(self, crm: Client, shop: Shop):
        """learn.microsoft.com/dynamics365/sales/developer/entities/opportunityclose: ActualRevenue"""
        opportunity = shop.document("opportunities")

        assert 400 == close(crm, "WinOpportunity", opportunity, actualrevenue="much").status_code
        assert (0,) == columns(crm, opportunity, "statecode")

    @pytest.mark.parametrize("wrong", [{"nothing": 1}, {"subject": "s" * 201}, {"actualend": "soon"}])
    def test_that_cannot_be_kept_changes_nothing(self, crm: Client, order, wrong):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: payload errors"""
        assert 400 == close(crm, "CancelSalesOrder", order, **wrong).status_code
        assert (0,) == columns(crm, order, "statecode")

    def test_goes_with_its_document(self, crm: Client, order):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorder: SalesOrder_OrderClose, delete: cascade"""
        close(crm, "CancelSalesOrder", order)
        activity = crm.rows(f"{order}/SalesOrder_OrderClose")[0]["activityid"]
        crm.delete(order)

        assert 404 == crm.get(f"ordercloses({activity})").status_code

    def test_of_a_quote_that_becomes_an_order_says_what_the_action_was_told(self, crm: Client, quote):
        """QuoteCloseSubject, QuoteCloseDescription of ConvertQuoteToSalesOrder.

        learn.microsoft.com/previous-versions/dynamicscrm-2016/developers-guide/mt607842(v=crm.8)
        """
        more = {"QuoteCloseSubject": "Won", "QuoteCloseDescription": "D", "QuoteCloseDate": "2026-03-02T00:00:00Z"}
        convert(crm, "ConvertQuoteToSalesOrder", "QuoteId", quote, **more)

        assert [("Won", "D", "2026-03-02T00:00:00Z")] == [
            tuple(row[name] for name in ("subject", "description", "actualend"))
            for row in crm.rows(f"{quote}/Quote_QuoteClose")
        ]

    def test_of_an_opportunity_says_what_it_came_to(self, crm: Client, shop: Shop):
        """learn.microsoft.com/dynamics365/sales/close-opportunity-won-lost-sales: actual revenue"""
        said, expected, lost = (shop.document("opportunities", estimatedvalue=100) for _ in range(3))
        close(crm, "WinOpportunity", said, actualrevenue=90)
        close(crm, "WinOpportunity", expected)
        close(crm, "LoseOpportunity", lost)

        assert [(90,), (100,), (0,)] == [columns(crm, path, "actualvalue") for path in (said, expected, lost)]

    def test_of_an_opportunity_is_undone_by_reopening_it(self, crm: Client, shop: Shop):
        """learn.microsoft.com/dynamics365/sales/close-opportunity-won-lost-sales: Reopen Opportunity"""
        opportunity = shop.document("opportunities")
        close(crm, "LoseOpportunity", opportunity)

        assert (400, "0x80043b09") == error_code(crm.patch(opportunity, {"name": "N"}))
        assert 204 == crm.patch(opportunity, {"statecode": 0}).status_code

    @pytest.mark.parametrize(
        "body",
        [
            {"Status": 4},
            {"CloseOrder": {}, "Status": 4},
            {"OrderClose": {"subject": "S"}, "Status": 4},
            {"OrderClose": {"salesorderid@odata.bind": "/accounts(00000000-0000-0000-0000-000000000001)"}},
            {"OrderClose": ["S"], "Status": 4},
            ["OrderClose"],
        ],
    )
    def test_says_what_it_closes(self, crm: Client, body):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/use-web-api-actions: parameters"""
        assert (400, "0x80048d19") == error_code(crm.post("CancelSalesOrder", body))

    def test_says_the_status(self, crm: Client, order):
        """learn.microsoft.com/previous-versions/dynamicscrm-2016/developers-guide/mt607685(v=crm.8): not nullable"""
        body = {"OrderClose": {"salesorderid@odata.bind": f"/{order}"}}

        assert (400, "0x80048d19") == error_code(crm.post("CancelSalesOrder", body))

    def test_of_what_is_not_there_is_refused(self, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: ObjectDoesNotExist"""
        assert (404, "0x80040217") == error_code(close(crm, "CancelSalesOrder", f"salesorders({uuid.uuid4()})"))


class TestQuoteToOrder:
    def test_answers_with_an_order_of_the_same_content(self, crm: Client, quote):
        """learn.microsoft.com/previous-versions/dynamicscrm-2016/developers-guide/mt607842(v=crm.8)"""
        reply = convert(crm, "ConvertQuoteToSalesOrder", "QuoteId", quote)
        made, source = reply.json(), crm.get(quote).json()
        same = ("name", "description", "billto_city", "_customerid_value", "_pricelevelid_value", "freightamount")

        assert 200 == reply.status_code
        assert made["@odata.context"].endswith("$metadata#salesorders/$entity")
        assert [source[name] for name in (*same, "totalamount")] == [made[name] for name in (*same, "totalamount")]
        assert (0, 1, key(quote), 776160001) == tuple(
            made[name] for name in ("statecode", "statuscode", "_quoteid_value", "ordercreationmethod")
        )
        assert made["ordernumber"].startswith("ORD-")

    def test_takes_the_lines_along(self, crm: Client, quote):
        """learn.microsoft.com/dynamics365/sales/developer/quote-order-invoice-entities"""
        made = convert(crm, "ConvertQuoteToSalesOrder", "QuoteId", quote).json()
        order = f"salesorders({made['salesorderid']})"
        shown = ("quantity", "priceperunit", "extendedamount", "productname", "_productid_value", "_uomid_value")

        assert [[line[name] for name in shown] for line in lines(crm, quote)] == [
            [line[name] for name in shown] for line in lines(crm, order)
        ]
        assert [line["quotedetailid"] for line in lines(crm, quote)] == [
            line["_quotedetailid_value"] for line in lines(crm, order)
        ]

    def test_wins_an_active_quote(self, crm: Client, quote):
        """learn.microsoft.com/dynamics365/sales/close-quote: automatically closed as won"""
        convert(crm, "ConvertQuoteToSalesOrder", "QuoteId", quote, QuoteCloseDate="2026-03-02T00:00:00Z")

        assert (2, 4, "2026-03-02T00:00:00Z") == columns(crm, quote, "statecode", "statuscode", "closedon")

    def test_takes_a_quote_that_is_won(self, crm: Client, quote):
        """learn.microsoft.com/dynamics365/sales/developer/sample-process-quotes-sales-orders-invoices"""
        close(crm, "WinQuote", quote)

        assert 200 == convert(crm, "ConvertQuoteToSalesOrder", "QuoteId", quote).status_code

    @pytest.mark.parametrize("state", [0, 3])
    def test_takes_no_other(self, crm: Client, shop: Shop, quote, state):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: InvalidStateCodeStatusCode"""
        if state == 0:
            crm.patch(quote, {"statecode": 0})
        else:
            close(crm, "CloseQuote", quote)

        assert (400, "0x80048408") == error_code(convert(crm, "ConvertQuoteToSalesOrder", "QuoteId", quote))

    def test_keeps_the_prices_that_were_quoted(self, crm: Client, shop: Shop, quote):
        """learn.microsoft.com/dynamics365/sales/developer/sample-process-quotes-sales-orders-invoices: unlock first"""
        crm.patch(shop.price, {"amount": 50})
        made = convert(crm, "ConvertQuoteToSalesOrder", "QuoteId", quote).json()

        assert (True, crm.get(quote).json()["totalamount"]) == (made["ispricelocked"], made["totalamount"])

    def test_shows_the_columns_that_are_wanted(self, crm: Client, quote):
        """learn.microsoft.com/previous-versions/dynamicscrm-2016/developers-guide/mt607842(v=crm.8): ColumnSet"""
        body = {"QuoteId": key(quote), "ColumnSet": {"Columns": ["name", "quoteid"]}}
        row = crm.post("ConvertQuoteToSalesOrder", body).json()

        assert {"name", "_quoteid_value", "salesorderid"} == {name for name in row if "@" not in name}


class TestRevision:
    def test_closes_the_quote_and_is_a_draft_with_its_number(self, crm: Client, quote):
        """learn.microsoft.com/dynamics365/sales/close-quote: create a revised quote"""
        made = convert(crm, "ReviseQuote", "QuoteId", quote).json()
        source = crm.get(quote).json()

        assert (3, 7) == (source["statecode"], source["statuscode"])
        assert (0, 1, source["quotenumber"], 1) == tuple(
            made[name] for name in ("statecode", "statuscode", "quotenumber", "revisionnumber")
        )
        assert source["totalamount"] == made["totalamount"]
        assert 2 == len(lines(crm, f"quotes({made['quoteid']})"))

    def test_there_is_one_at_a_time(self, crm: Client, quote):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: QuoteReviseExistingActiveQuote"""
        convert(crm, "ReviseQuote", "QuoteId", quote)

        assert (400, "0x80048d00") == error_code(convert(crm, "ReviseQuote", "QuoteId", quote))

    def test_may_be_of_a_quote_that_was_lost(self, crm: Client, quote):
        """learn.microsoft.com/dynamics365/sales/close-quote"""
        close(crm, "CloseQuote", quote, 5)

        assert 1 == convert(crm, "ReviseQuote", "QuoteId", quote).json()["revisionnumber"]
        assert (3, 5) == columns(crm, quote, "statecode", "statuscode")

    def test_is_not_of_a_draft(self, crm: Client, shop: Shop):
        """learn.microsoft.com/dynamics365/sales/close-quote: only in the Active state"""
        reply = convert(crm, "ReviseQuote", "QuoteId", shop.document("quotes"))

        assert (400, "0x80048408") == error_code(reply)


class TestOrderToInvoice:
    def test_answers_with_an_invoice_of_the_same_content(self, crm: Client, order):
        """learn.microsoft.com/previous-versions/dynamicscrm-2016/developers-guide/mt607736(v=crm.8)"""
        made = convert(crm, "ConvertSalesOrderToInvoice", "SalesOrderId", order).json()
        source = crm.get(order).json()

        assert (key(order), 0, source["name"], source["totalamount"]) == tuple(
            made[name] for name in ("_salesorderid_value", "statecode", "name", "totalamount")
        )
        assert made["invoicenumber"].startswith("INV-")

    def test_takes_the_lines_along(self, crm: Client, order):
        """learn.microsoft.com/dynamics365/sales/developer/quote-order-invoice-entities"""
        made = convert(crm, "ConvertSalesOrderToInvoice", "SalesOrderId", order).json()
        invoice = f"invoices({made['invoiceid']})"

        assert [(line["salesorderdetailid"], 20) for line in lines(crm, order)] == [
            (line["_salesorderdetailid_value"], line["baseamount"]) for line in lines(crm, invoice)
        ]
        assert [made["invoiceid"]] == [row["invoiceid"] for row in crm.rows(f"{order}/order_invoices")]


class TestFromOpportunity:
    @pytest.mark.parametrize(
        ("action", "set_name", "prefix"),
        [
            ("GenerateQuoteFromOpportunity", "quotes", "QUO-"),
            ("GenerateSalesOrderFromOpportunity", "salesorders", "ORD-"),
            ("GenerateInvoiceFromOpportunity", "invoices", "INV-"),
        ],
    )
    def test_comes_a_document_with_its_data(self, crm: Client, shop: Shop, action, set_name, prefix):
        """learn.microsoft.com/dynamics365/sales/developer/convert-opportunity-quote-sales-order-invoice"""
        opportunity = shop.document("opportunities", description="D", freightamount=7, discountamount=2)
        made = convert(crm, action, "OpportunityId", opportunity).json()
        source = crm.get(opportunity).json()
        same = ("name", "description", "_customerid_value", "_pricelevelid_value", "freightamount", "totalamount")

        assert made["@odata.context"].endswith(f"#{set_name}/$entity")
        assert [source[name] for name in same] == [made[name] for name in same]
        assert key(opportunity) == made["_opportunityid_value"]
        assert any(str(value).startswith(prefix) for value in made.values())

    def test_of_a_foreign_currency_comes_one_in_it(self, crm: Client, shop: Shop):
        """learn.microsoft.com/dynamics365/sales/developer/convert-opportunity-quote-sales-order-invoice"""
        opportunity = shop.document("opportunities", **{"pricelevelid@odata.bind": None}, **euro(crm))
        made = convert(crm, "GenerateQuoteFromOpportunity", "OpportunityId", opportunity).json()

        assert crm.get(opportunity).json()["_transactioncurrencyid_value"] == made["_transactioncurrencyid_value"]
        assert made["exchangerate"] != 1


class TestConversion:
    @pytest.mark.parametrize(
        ("body", "refusal"),
        [
            ({}, (400, "0x80048d19")),
            ({"QuoteId": "no id"}, (400, "0x80048d19")),
            ({"QuoteId": "00000000-0000-0000-0000-000000000001"}, (404, "0x80040217")),
        ],
    )
    def test_says_what_it_converts(self, crm: Client, body, refusal):
        """learn.microsoft.com/previous-versions/dynamicscrm-2016/developers-guide/mt607842(v=crm.8): QuoteId"""
        assert refusal == error_code(crm.post("ConvertQuoteToSalesOrder", body))

    @pytest.mark.parametrize("wanted", ["name", {"Columns": "name"}, {"Columns": ["nothing"]}, {"Columns": [[1]]}])
    def test_wants_columns_that_there_are(self, crm: Client, quote, wanted):
        """learn.microsoft.com/previous-versions/dynamicscrm-2016/developers-guide/mt607842(v=crm.8): ColumnSet"""
        body = {"QuoteId": key(quote), "ColumnSet": wanted}

        assert (400, "0x80048d19") == error_code(crm.post("ConvertQuoteToSalesOrder", body))
        assert (1,) == columns(crm, quote, "statecode")

    def test_needs_the_right_to_make_what_it_makes(self, crm: Client, control: Control, info: Info, quote):
        """learn.microsoft.com/dotnet/api/microsoft.crm.sdk.messages.convertquotetosalesorderrequest: privileges"""
        grant = {"system": "crm", "app": info["crm"]["client_id"], "entity": "salesorder", "operation": "create"}
        control("POST", "grants", {**grant, "allowed": False})
        refused = convert(crm, "ConvertQuoteToSalesOrder", "QuoteId", quote)
        control("POST", "grants", {**grant, "allowed": True})

        assert (403, "0x80040220") == error_code(refused)
        assert (1,) == columns(crm, quote, "statecode")

    def test_is_posted(self, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/use-web-api-actions"""
        assert 405 == crm.get("WinQuote").status_code


class TestPriceLock:
    @pytest.fixture(params=["salesorders", "invoices"])
    def document(self, shop: Shop, request) -> str:
        made = shop.document(request.param)
        shop.line(made)
        return made

    @staticmethod
    def lock(crm: Client, document: str, word: str = "Lock"):
        table, parameter = {"salesorders": ("SalesOrder", "SalesOrderId"), "invoices": ("Invoice", "InvoiceId")}[
            document.partition("(")[0]
        ]
        return crm.post(f"{word}{table}Pricing", {parameter: key(document)})

    def test_keeps_prices_as_they_are(self, crm: Client, shop: Shop, document):
        """learn.microsoft.com/dotnet/api/microsoft.crm.sdk.messages.locksalesorderpricingrequest"""
        reply = self.lock(crm, document)
        crm.patch(shop.price, {"amount": 50})
        crm.patch(document, {"description": "D"})

        assert 204 == reply.status_code
        assert (True, 20) == columns(crm, document, "ispricelocked", "totalamount")

    def test_without_it_prices_follow_the_list_with_the_next_change(self, crm: Client, shop: Shop, document):
        """learn.microsoft.com/dynamics365/sales/lock-unlock-price-order-invoice: Use Current Pricing"""
        crm.patch(shop.price, {"amount": 50})
        crm.patch(document, {"description": "D"})

        assert (100,) == columns(crm, document, "totalamount")

    def test_once_lifted_prices_are_those_of_the_list(self, crm: Client, shop: Shop, document):
        """learn.microsoft.com/previous-versions/dynamicscrm-2016/developers-guide/mt608026(v=crm.8)"""
        self.lock(crm, document)
        crm.patch(shop.price, {"amount": 50})
        self.lock(crm, document, "Unlock")

        assert (False, 100) == columns(crm, document, "ispricelocked", "totalamount")

    def test_lets_quantities_change(self, crm: Client, shop: Shop, document):
        """learn.microsoft.com/dynamics365/sales/price-calculation-opportunity-quote-order-invoice-records"""
        self.lock(crm, document)
        crm.patch(shop.price, {"amount": 50})
        line = lines(crm, document)[0]
        name = f"{lines_of(document)[:-1]}id"
        crm.patch(f"{lines_of(document)}({line[name]})", {"quantity": 3})

        assert (30,) == columns(crm, document, "totalamount")

    @pytest.mark.parametrize(("word", "code"), [("Lock", "0x80043b1d"), ("Unlock", "0x80043b1e")])
    def test_is_set_and_lifted_once(self, crm: Client, document, word, code):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: EntityIsLocked, EntityIsUnlocked"""
        if word == "Lock":
            self.lock(crm, document)

        assert (400, code) == error_code(self.lock(crm, document, word))

    def test_is_shown_by_the_lines(self, crm: Client, document):
        """learn.microsoft.com/dynamics365/sales/developer/entities/salesorderdetail: SalesOrderIsPriceLocked"""
        self.lock(crm, document)
        name = f"{document.partition('(')[0][:-1]}ispricelocked"

        assert [True] == [line[name] for line in lines(crm, document)]

    def test_may_be_bound_to_the_row(self, crm: Client, order):
        """learn.microsoft.com/previous-versions/dynamicscrm-2016/developers-guide/mt607804(v=crm.8)"""
        reply = crm.post(f"{order}/Microsoft.Dynamics.CRM.LockSalesOrderPricing", {})

        assert 204 == reply.status_code
        assert (True,) == columns(crm, order, "ispricelocked")

    def test_bound_to_a_row_of_another_table_is_unknown(self, crm: Client, shop: Shop):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/use-web-api-actions: bound actions"""
        assert 404 == crm.post(f"{shop.account}/Microsoft.Dynamics.CRM.LockSalesOrderPricing", {}).status_code


class TestCalculatePrice:
    def test_brings_a_document_up_to_its_price_list(self, crm: Client, shop: Shop, order):
        """learn.microsoft.com/dynamics365/sales/developer/use-custom-pricing-products"""
        crm.patch(shop.price, {"amount": 50})
        target = {"@odata.type": "Microsoft.Dynamics.CRM.salesorder", "salesorderid": key(order)}
        reply = crm.post("CalculatePrice", {"Target": target})

        assert 204 == reply.status_code
        assert (100,) == columns(crm, order, "totalamount")

    @pytest.mark.parametrize("target", [None, {}, {"@odata.type": "Microsoft.Dynamics.CRM.account"}])
    def test_is_of_a_sales_document(self, crm: Client, target):
        """learn.microsoft.com/dynamics365/sales/developer/use-custom-pricing-products"""
        assert (400, "0x80048d19") == error_code(crm.post("CalculatePrice", {"Target": target}))


class TestAtOnce:
    def test_is_taken_back_whole_when_a_part_of_it_fails(self, crm: Client, quote):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/execute-batch-operations-using-web-api"""
        body = {"QuoteId": key(quote), "ColumnSet": {"AllColumns": True}, "QuoteCloseDate": "no time"}
        before = crm.get("salesorders/$count").text
        reply = crm.post("ConvertQuoteToSalesOrder", body)

        assert 400 == reply.status_code
        assert before == crm.get("salesorders/$count").text
        assert (1,) == columns(crm, quote, "statecode")
