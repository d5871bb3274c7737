"""Business Central's quotes, invoices and shipments, and what becomes of one document after the other, fact by fact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.sandbox.client import Client, Info, error_code, eventually
from tests.sandbox.conftest import Receiver

EMPTY = "00000000-0000-0000-0000-000000000000"
Make = Callable[..., dict]


@pytest.fixture(scope="module")
def terms(erp: Client) -> dict:
    return erp.rows("paymentTerms?$filter=code eq 'NET 30'")[0]


@pytest.fixture
def customer(erp: Client, terms) -> dict:
    body = {"displayName": "Corliss & Pike", "addressLine1": "4 Mill Lane", "email": "buy@corliss.example"}
    return erp.post("customers", {**body, "paymentTermsId": terms["id"]}).json()


@pytest.fixture
def item(erp: Client) -> dict:
    made = erp.post("items", {"displayName": "Hinge", "baseUnitOfMeasureCode": "PCS", "unitPrice": 250}).json()
    return erp.patch(f"items({made['id']})", {"inventory": 100}, tag="*").json()


@pytest.fixture
def document(erp: Client, customer, item) -> Make:
    """A document of a set, with one line of four hinges unless something else is said."""

    def made(set_name: str, *, lines: list[dict] | None = None, **given: Any) -> dict:
        children = [{"itemId": item["id"], "quantity": 4}] if lines is None else lines
        body = {"customerId": customer["id"], **given, f"{set_name[:-1]}Lines": children}
        reply = erp.post(set_name, body)
        assert 201 == reply.status_code, reply.text
        return reply.json()

    return made


def act(erp: Client, set_name: str, row: dict, action: str) -> Any:
    return erp.post(f"{set_name}({row['id']})/Microsoft.NAV.{action}", None)


def read(erp: Client, set_name: str, row: dict | str) -> dict:
    row_id = row if isinstance(row, str) else row["id"]
    return erp.get(f"{set_name}({row_id})").json()


def made_by(reply: Any) -> tuple[str, str]:
    """Set and id of the document that the reply points to."""
    assert 204 == reply.status_code, reply.text
    last = reply.headers["Location"].rpartition("/")[2]
    return last.partition("(")[0], last.partition("(")[2][:-1]


def lines(erp: Client, set_name: str, row_id: str) -> list[dict]:
    return erp.rows(f"{set_name}({row_id})/{set_name[:-1]}Lines")


class TestQuote:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_salesquote"""

    def test_has_every_property_of_its_page(self, document: Make):
        quote = document("salesQuotes")

        assert 50 == len([name for name in quote if not name.startswith("@")])
        assert ("Draft", True) == (quote["status"], quote["number"].startswith("S-QUO"))

    def test_takes_customer_dates_and_terms(self, document: Make, customer):
        quote = document("salesQuotes", documentDate="2026-03-02")

        assert ("Corliss & Pike", "4 Mill Lane", "buy@corliss.example") == tuple(
            quote[name] for name in ("customerName", "billToAddressLine1", "email")
        )
        assert ("2026-03-02", "2026-04-01") == (quote["documentDate"], quote["dueDate"])

    def test_may_be_billed_to_another_address(self, erp: Client, document: Make):
        """Unlike an order's, its bill-to fields can be written."""
        quote = document("salesQuotes", billToCity="Leeds")

        assert "Leeds" == quote["billToCity"]

    def test_adds_up_its_lines(self, erp: Client, document: Make):
        quote = document("salesQuotes")

        assert (1000, 0, 1000) == totals(read(erp, "salesQuotes", quote))
        (line,) = lines(erp, "salesQuotes", quote["id"])
        assert 26 == len([name for name in line if not name.startswith("@")])
        assert (250, 4, 1000, "Item") == tuple(
            line[name] for name in ("unitPrice", "quantity", "netAmount", "lineType")
        )

    def test_lines_are_read_with_their_quote_only(self, erp: Client, document: Make):
        quote = document("salesQuotes")

        assert 400 == erp.get("salesQuoteLines").status_code
        assert 1 == len(erp.rows(f"salesQuoteLines?$filter=documentId eq {quote['id']}"))

    def test_that_is_sent_says_so(self, erp: Client, document: Make):
        quote = document("salesQuotes")

        assert 204 == act(erp, "salesQuotes", quote, "send").status_code
        sent = read(erp, "salesQuotes", quote)
        assert ("Sent", True) == (sent["status"], sent["sentDate"] > "2000")
        assert sent["@odata.etag"] != quote["@odata.etag"]

    def test_without_address_is_not_sent(self, erp: Client, document: Make):
        quote = document("salesQuotes", email="")

        assert (400, "Application_DialogException") == error_code(act(erp, "salesQuotes", quote, "send"))

    def test_becomes_an_order_and_is_gone(self, erp: Client, document: Make):
        quote = document("salesQuotes", externalDocumentNumber="RFQ-7", shipToName="Dock 4", discountAmount=100)
        set_name, order_id = made_by(act(erp, "salesQuotes", quote, "makeOrder"))
        order = read(erp, set_name, order_id)

        assert ("salesOrders", 404) == (set_name, erp.get(f"salesQuotes({quote['id']})").status_code)
        assert ("RFQ-7", "Dock 4", "Draft", quote["customerId"]) == tuple(
            order[name] for name in ("externalDocumentNumber", "shipToName", "status", "customerId")
        )
        assert order["number"].startswith("S-ORD")
        assert (900, 0, 900) == totals(order)
        (line,) = lines(erp, "salesOrders", order_id)
        assert (4, 4, 4, 0) == tuple(
            line[name] for name in ("quantity", "shipQuantity", "invoiceQuantity", "shippedQuantity")
        )

    def test_becomes_the_draft_of_an_invoice_and_is_gone(self, erp: Client, document: Make):
        quote = document("salesQuotes")
        set_name, invoice_id = made_by(act(erp, "salesQuotes", quote, "makeInvoice"))

        assert ("salesInvoices", 404) == (set_name, erp.get(f"salesQuotes({quote['id']})").status_code)
        assert ("Draft", 1000) == tuple(
            read(erp, set_name, invoice_id)[name] for name in ("status", "totalAmountIncludingTax")
        )

    def test_of_a_blocked_customer_becomes_nothing(self, erp: Client, document: Make, customer):
        quote = document("salesQuotes")
        erp.patch(f"customers({customer['id']})", {"blocked": "All"}, tag="*")

        assert (400, "Application_DialogException") == error_code(act(erp, "salesQuotes", quote, "makeOrder"))
        assert 200 == erp.get(f"salesQuotes({quote['id']})").status_code


class TestInvoice:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_salesinvoice"""

    def test_has_every_property_of_its_page(self, document: Make):
        invoice = document("salesInvoices")

        assert 56 == len([name for name in invoice if not name.startswith("@")])
        assert ("Draft", 0, EMPTY, "") == tuple(
            invoice[name] for name in ("status", "remainingAmount", "orderId", "orderNumber")
        )

    def test_keeps_its_id_and_gets_another_number_when_it_is_posted(self, erp: Client, document: Make):
        draft = document("salesInvoices")

        assert 204 == act(erp, "salesInvoices", draft, "post").status_code
        posted = read(erp, "salesInvoices", draft)
        assert ("Open", 1000, draft["customerId"]) == tuple(
            posted[name] for name in ("status", "remainingAmount", "customerId")
        )
        assert (True, True) == (draft["number"].startswith("S-INV"), posted["number"].startswith("PS-INV"))
        assert draft["lastModifiedDateTime"] != posted["lastModifiedDateTime"]

    def test_that_is_posted_moves_stock_and_debt_without_touching_their_records(
        self, erp: Client, document: Make, customer, item
    ):
        act(erp, "salesInvoices", document("salesInvoices"), "post")
        sold, owing = read(erp, "items", item), read(erp, "customers", customer)

        assert (96, item["lastModifiedDateTime"]) == (sold["inventory"], sold["lastModifiedDateTime"])
        assert (1000, customer["lastModifiedDateTime"]) == (owing["balanceDue"], owing["lastModifiedDateTime"])
        detail = erp.get(f"customers({customer['id']})/customerFinancialDetail").json()
        assert (1000, 1000) == (detail["balance"], detail["totalSalesExcludingTax"])

    @pytest.mark.parametrize("how", ["patch", "delete", "line", "new line"])
    def test_that_is_posted_is_changed_no_more(self, erp: Client, document: Make, item, how: str):
        invoice = document("salesInvoices")
        (line,) = lines(erp, "salesInvoices", invoice["id"])
        act(erp, "salesInvoices", invoice, "post")
        address = f"salesInvoices({invoice['id']})"
        match how:
            case "patch":
                reply = erp.patch(address, {"shipToName": "Dock 4"}, tag="*")
            case "delete":
                reply = erp.delete(address)
            case "line":
                reply = erp.patch(f"salesInvoiceLines({line['id']})", {"quantity": 5}, tag="*")
            case _:
                reply = erp.post(f"{address}/salesInvoiceLines", {"itemId": item["id"], "quantity": 1})

        assert (400, "Application_DialogException") == error_code(reply)
        assert (1000, 1) == (
            read(erp, "salesInvoices", invoice)["totalAmountIncludingTax"],
            len(lines(erp, "salesInvoices", invoice["id"])),
        )

    def test_is_posted_once(self, erp: Client, document: Make):
        invoice = document("salesInvoices")
        act(erp, "salesInvoices", invoice, "post")

        assert (400, "Application_DialogException") == error_code(act(erp, "salesInvoices", invoice, "post"))

    def test_of_nothing_is_not_posted(self, erp: Client, document: Make):
        empty = document("salesInvoices", lines=[{"lineType": "Comment", "description": "To follow"}])

        reply = act(erp, "salesInvoices", empty, "post")
        assert (400, "Application_DialogException") == error_code(reply)
        assert reply.json()["error"]["message"].startswith("There is nothing to post")

    def test_of_goods_that_cost_nothing_is_paid_at_once(self, erp: Client, document: Make, item):
        free = document("salesInvoices", lines=[{"itemId": item["id"], "quantity": 1, "unitPrice": 0}])
        act(erp, "salesInvoices", free, "post")

        assert "Paid" == read(erp, "salesInvoices", free)["status"]

    def test_that_is_canceled_undoes_what_it_did(self, erp: Client, document: Make, customer, item):
        invoice = document("salesInvoices")
        act(erp, "salesInvoices", invoice, "post")

        assert 204 == act(erp, "salesInvoices", invoice, "cancel").status_code
        canceled = read(erp, "salesInvoices", invoice)
        assert ("Canceled", 0) == (canceled["status"], canceled["remainingAmount"])
        assert (100, 0) == (read(erp, "items", item)["inventory"], read(erp, "customers", customer)["balanceDue"])
        assert (400, "Application_DialogException") == error_code(act(erp, "salesInvoices", invoice, "cancel"))

    def test_that_is_a_draft_is_not_canceled(self, erp: Client, document: Make):
        reply = act(erp, "salesInvoices", document("salesInvoices"), "cancel")

        assert (400, "Application_DialogException") == error_code(reply)

    @pytest.mark.parametrize(("action", "status"), [("postAndSend", "Open"), ("send", "Draft")])
    def test_is_sent_where_there_is_an_address(self, erp: Client, document: Make, action: str, status: str):
        there, nowhere = document("salesInvoices"), document("salesInvoices", email="")

        assert 204 == act(erp, "salesInvoices", there, action).status_code
        assert status == read(erp, "salesInvoices", there)["status"]
        assert (400, "Application_DialogException") == error_code(act(erp, "salesInvoices", nowhere, action))
        assert "Draft" == read(erp, "salesInvoices", nowhere)["status"]

    @pytest.mark.parametrize(
        ("formula", "due"),
        [
            ("30D", "2026-04-01"),
            ("1M", "2026-04-02"),
            ("CM", "2026-03-31"),
            ("CM+10D", "2026-04-10"),
            ("2W", "2026-03-16"),
            ("1Y", "2027-03-02"),
            ("CQ+1M+20D", "2026-05-20"),
            ("CW+1W", "2026-03-15"),
            ("-CM", "2026-03-01"),
            ("D15", "2026-03-15"),
            ("D2", "2026-04-02"),
            ("wd2", "2026-03-03"),
            ("WD1", "2026-03-09"),
            ("-WD1", "2026-02-23"),
            ("-WD3", "2026-02-25"),
            ("", "2026-03-02"),
        ],
    )
    def test_is_due_by_its_terms(self, erp: Client, document: Make, formula: str, due: str):
        """learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/methods-auto/dateformula/dateformula-data-type"""
        code = f"T{abs(hash(formula)) % 10**8}"
        terms = erp.post("paymentTerms", {"code": code, "displayName": code, "dueDateCalculation": formula}).json()
        invoice = document("salesInvoices", invoiceDate="2026-03-02", paymentTermsId=terms["id"])

        assert due == invoice["dueDate"]

    @pytest.mark.parametrize("formula", ["banana", "30", "D", "1M(8D)", "WD8", "D0", "1D+1D+1D+1D", "30D ago"])
    def test_has_terms_with_a_formula_that_is_one(self, erp: Client, formula: str):
        """learn.microsoft.com/previous-versions/dynamicsnav-2016/dd301368(v=nav.90): the syntax"""
        reply = erp.post("paymentTerms", {"code": "NO-TERMS", "dueDateCalculation": formula})

        assert (400, "Application_EvaluateException") == error_code(reply)
        assert [] == erp.rows("paymentTerms?$filter=code eq 'NO-TERMS'")

    def test_keeps_a_due_date_that_is_said(self, document: Make):
        assert "2026-12-24" == document("salesInvoices", dueDate="2026-12-24")["dueDate"]

    def test_of_the_last_of_a_month_is_due_on_the_last_of_a_shorter_one(self, erp: Client, document: Make):
        terms = erp.post("paymentTerms", {"code": "1MONTH", "dueDateCalculation": "1M"}).json()
        invoice = document("salesInvoices", invoiceDate="2026-01-31", paymentTermsId=terms["id"])

        assert "2026-02-28" == invoice["dueDate"]


class TestShipAndInvoice:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_salesorder"""

    def test_of_the_whole_order_leaves_a_shipment_and_an_invoice(self, erp: Client, document: Make, customer, item):
        order = document("salesOrders", externalDocumentNumber="PO-9")
        set_name, invoice_id = made_by(act(erp, "salesOrders", order, "shipAndInvoice"))
        invoice = read(erp, set_name, invoice_id)

        assert 404 == erp.get(f"salesOrders({order['id']})").status_code
        assert ("salesInvoices", "Open", order["id"], order["number"], "PO-9", 1000) == (
            set_name,
            *(
                invoice[name]
                for name in ("status", "orderId", "orderNumber", "externalDocumentNumber", "remainingAmount")
            ),
        )
        (shipment,) = erp.rows(f"salesShipments?$filter=orderNumber eq '{order['number']}'")
        assert (42, "NET 30", True) == (
            len([name for name in shipment if not name.startswith("@")]),
            shipment["paymentTermsCode"],
            shipment["number"].startswith("S-SHPT"),
        )
        (line,) = lines(erp, "salesShipments", shipment["id"])
        assert (4, shipment["number"], item["number"]) == tuple(
            line[name] for name in ("quantity", "documentNo", "lineObjectNumber")
        )
        assert (96, 1000) == (read(erp, "items", item)["inventory"], read(erp, "customers", customer)["balanceDue"])

    def test_of_a_part_leaves_the_rest_in_the_order(self, erp: Client, document: Make, item):
        order = document("salesOrders")
        (line,) = lines(erp, "salesOrders", order["id"])
        erp.patch(f"salesOrderLines({line['id']})", {"shipQuantity": 3, "invoiceQuantity": 1}, tag="*")
        _, invoice_id = made_by(act(erp, "salesOrders", order, "shipAndInvoice"))

        (left,) = lines(erp, "salesOrders", order["id"])
        assert (4, 3, 1, 1, 3) == tuple(
            left[name]
            for name in ("quantity", "shippedQuantity", "invoicedQuantity", "shipQuantity", "invoiceQuantity")
        )
        assert 250 == read(erp, "salesInvoices", invoice_id)["totalAmountIncludingTax"]
        assert (97, False) == (read(erp, "items", item)["inventory"], read(erp, "salesOrders", order)["fullyShipped"])
        made_by(act(erp, "salesOrders", order, "shipAndInvoice"))
        assert 404 == erp.get(f"salesOrders({order['id']})").status_code
        assert 2 == len(erp.rows(f"salesShipments?$filter=orderNumber eq '{order['number']}'"))
        assert 2 == len(erp.rows(f"salesInvoices?$filter=orderNumber eq '{order['number']}'"))

    def test_says_that_a_shipped_order_is(self, erp: Client, document: Make):
        order = document("salesOrders")
        (line,) = lines(erp, "salesOrders", order["id"])
        erp.patch(f"salesOrderLines({line['id']})", {"invoiceQuantity": 0}, tag="*")
        set_name, _ = made_by(act(erp, "salesOrders", order, "shipAndInvoice"))

        assert ("salesShipments", True) == (set_name, read(erp, "salesOrders", order)["fullyShipped"])

    def test_invoices_nothing_that_is_not_shipped(self, erp: Client, document: Make):
        order = document("salesOrders")
        (line,) = lines(erp, "salesOrders", order["id"])
        erp.patch(f"salesOrderLines({line['id']})", {"shipQuantity": 0}, tag="*")

        reply = act(erp, "salesOrders", order, "shipAndInvoice")
        assert (400, "Application_DialogException") == error_code(reply)
        assert 0 == lines(erp, "salesOrders", order["id"])[0]["shippedQuantity"]

    def test_of_nothing_is_refused(self, erp: Client, document: Make):
        reply = act(erp, "salesOrders", document("salesOrders", lines=[]), "shipAndInvoice")

        assert (400, "Application_DialogException") == error_code(reply)

    def test_spreads_the_discount_of_the_order(self, erp: Client, document: Make):
        order = document("salesOrders", discountAmount=200)
        _, invoice_id = made_by(act(erp, "salesOrders", order, "shipAndInvoice"))

        assert (800, 0, 800) == totals(read(erp, "salesInvoices", invoice_id))


class TestShipments:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_salesShipment"""

    def test_cannot_be_written(self, erp: Client, document: Make):
        order = document("salesOrders")
        act(erp, "salesOrders", order, "shipAndInvoice")
        (shipment,) = erp.rows(f"salesShipments?$filter=orderNumber eq '{order['number']}'")

        assert 405 == erp.post("salesShipments", {}).status_code
        assert 405 == erp.patch(f"salesShipments({shipment['id']})", {"shipToName": "x"}, tag="*").status_code
        assert 405 == erp.delete(f"salesShipments({shipment['id']})").status_code
        assert 400 == erp.get("salesShipmentLines").status_code


class TestActions:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_salesquote
    https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_salesinvoice
    """

    def test_are_posted_to_an_entity_that_has_them(self, erp: Client, document: Make):
        order = document("salesOrders")

        assert 404 == act(erp, "salesOrders", order, "makeOrder").status_code
        assert 404 == act(erp, "salesOrders", {"id": EMPTY}, "shipAndInvoice").status_code
        assert 405 == erp.get(f"salesOrders({order['id']})/Microsoft.NAV.shipAndInvoice").status_code

    def test_are_in_the_metadata(self, erp: Client):
        document = erp.get(f"{erp.root}/$metadata").text

        for action in ("makeOrder", "makeInvoice", "shipAndInvoice", "post", "cancel"):
            assert f'<Action Name="{action}" IsBound="true">' in document
        assert 'Type="Microsoft.NAV.salesQuote"/></Action>' in document

    def test_take_part_in_a_batch(self, erp: Client, info: Info, document: Make):
        quote = document("salesQuotes")
        url = f"companies({info['erp']['company_id']})/salesQuotes({quote['id']})/Microsoft.NAV.makeOrder"
        reply = erp.post(f"{erp.root}/$batch", {"requests": [{"method": "POST", "id": "1", "url": url}]})

        assert [204] == [part["status"] for part in reply.json()["responses"]]
        assert 404 == erp.get(f"salesQuotes({quote['id']})").status_code

    def test_tell_those_who_subscribed(self, erp: Client, info: Info, document: Make, receiver: Receiver):
        """A quote that became an order is deleted, and the order is new."""
        quote = document("salesQuotes")
        made = []
        for set_name in ("salesQuotes", "salesOrders"):
            resource = f"api/v2.0/companies({info['erp']['company_id']})/{set_name}"
            body = {"notificationUrl": f"{receiver.url}/{set_name}", "resource": resource, "clientState": "s"}
            made.append(erp.post(f"{erp.root}/subscriptions", body).json()["subscriptionId"])
        _, order_id = made_by(act(erp, "salesQuotes", quote, "makeOrder"))

        def told() -> set[tuple[str, str]]:
            entries = [entry for _, body in list(receiver.got) for entry in body["value"]]
            return {(entry["changeType"], entry["resource"].rpartition("/")[2]) for entry in entries}

        wanted = {("deleted", f"salesQuotes({quote['id']})"), ("created", f"salesOrders({order_id})")}
        assert eventually(lambda: wanted <= told()), told()
        for subscription in made:
            erp.delete(f"{erp.root}/subscriptions('{subscription}')")


class TestCustomer:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_customer"""

    @pytest.mark.parametrize("set_name", ["salesQuotes", "salesInvoices"])
    def test_with_a_document_stays(self, erp: Client, document: Make, customer, set_name: str):
        document(set_name)

        assert (400, "Application_DialogException") == error_code(erp.delete(f"customers({customer['id']})"))


def totals(row: dict) -> tuple:
    return tuple(row[f"total{name}"] for name in ("AmountExcludingTax", "TaxAmount", "AmountIncludingTax"))
