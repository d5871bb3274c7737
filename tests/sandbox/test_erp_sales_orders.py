"""Business Central's sales orders and their lines, fact by fact."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.sandbox.client import Client, Control, Info, error_code, eventually
from tests.sandbox.conftest import Receiver

EMPTY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(scope="module")
def customer(erp: Client) -> dict:
    body = {
        "displayName": "Corliss & Pike",
        "addressLine1": "4 Mill Lane",
        "phoneNumber": "+1 555",
        "salespersonCode": "JR",
        "paymentTermsId": erp.rows("paymentTerms?$filter=code eq 'NET 30'")[0]["id"],
    }
    return erp.post("customers", body).json()


@pytest.fixture(scope="module")
def item(erp: Client) -> dict:
    body = {"displayName": "Hinge", "displayName2": "brass", "baseUnitOfMeasureCode": "PCS", "unitPrice": 250}
    return erp.post("items", body).json()


@pytest.fixture
def order(erp: Client, customer) -> dict:
    return erp.post("salesOrders", {"customerNumber": customer["number"]}).json()


@pytest.fixture
def line(erp: Client, order, item) -> Callable[..., dict]:
    def made(**given) -> dict:
        reply = erp.post(f"{address(order)}/salesOrderLines", {"itemId": item["id"], "quantity": 4, **given})
        assert 201 == reply.status_code, reply.text
        return reply.json()

    return made


def address(order) -> str:
    return f"salesOrders({order['id']})"


def totals(erp: Client, order) -> tuple:
    row = erp.get(address(order)).json()
    return tuple(row[f"total{name}"] for name in ("AmountExcludingTax", "TaxAmount", "AmountIncludingTax"))


class TestOrder:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_salesorder"""

    def test_has_every_property_of_its_page(self, order):
        assert 51 == len([name for name in order if not name.startswith("@")])
        assert None not in order.values()

    def test_takes_from_the_customer_what_nobody_says(self, customer, order):
        assert ("Corliss & Pike", "Corliss & Pike", "4 Mill Lane", "4 Mill Lane", "JR", "+1 555") == tuple(
            order[name]
            for name in (
                "customerName",
                "shipToName",
                "sellToAddressLine1",
                "billToAddressLine1",
                "salesperson",
                "phoneNumber",
            )
        )
        assert (customer["id"], customer["id"], customer["paymentTermsId"], "Draft", "USD") == tuple(
            order[name] for name in ("customerId", "billToCustomerId", "paymentTermsId", "status", "currencyCode")
        )
        assert order["orderDate"] == order["postingDate"] == order["lastModifiedDateTime"][:10]

    def test_keeps_what_is_said_after_the_customer(self, erp: Client, customer):
        body = {"customerId": customer["id"], "shipToName": "Dock 4", "externalDocumentNumber": "PO-1"}
        order = erp.post("salesOrders", body).json()

        assert ("Dock 4", "PO-1") == (order["shipToName"], order["externalDocumentNumber"])

    def test_validates_in_the_order_of_the_body(self, erp: Client, customer):
        body = {"shipToName": "Dock 4", "customerId": customer["id"]}

        assert "Corliss & Pike" == erp.post("salesOrders", body).json()["shipToName"]

    def test_has_a_number_of_the_series_and_of_nobody_else(self, erp: Client, customer, order):
        body = {"customerId": customer["id"], "number": "MINE"}

        assert order["number"].startswith("S-ORD")
        assert (400, "BadRequest_InvalidOperation") == error_code(erp.post("salesOrders", body))

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            ({}, 'A "customerNumber" or a "customerId" must be provided.'),
            ({"customerNumber": "NOBODY"}, "The sell-to customer cannot be found."),
            ({"customerId": "11111111-1111-4111-8111-111111111111"}, "The sell-to customer cannot be found."),
        ],
    )
    def test_needs_a_customer(self, erp: Client, body, text):
        reply = erp.post("salesOrders", body)

        assert (400, "Application_DialogException") == error_code(reply)
        assert reply.json()["error"]["message"].startswith(text)

    def test_is_refused_for_a_customer_who_is_blocked(self, erp: Client):
        blocked = erp.post("customers", {"displayName": "Blocked", "blocked": "All"}).json()

        reply = erp.post("salesOrders", {"customerId": blocked["id"]})

        assert (400, "Application_DialogException") == error_code(reply)

    def test_holds_its_customer(self, erp: Client):
        customer = erp.post("customers", {"displayName": "Held"}).json()
        order = erp.post("salesOrders", {"customerId": customer["id"]}).json()

        assert (400, "Application_DialogException") == error_code(erp.delete(f"customers({customer['id']})", tag="*"))
        erp.delete(address(order), tag="*")
        assert 204 == erp.delete(f"customers({customer['id']})", tag="*").status_code

    def test_follows_a_renumbered_customer(self, erp: Client):
        customer = erp.post("customers", {"displayName": "Renumbered"}).json()
        order = erp.post("salesOrders", {"customerId": customer["id"]}).json()
        erp.patch(f"customers({customer['id']})", {"number": f"R{customer['number']}"}, tag="*")

        assert f"R{customer['number']}" == erp.get(address(order)).json()["customerNumber"]

    def test_is_made_with_its_lines(self, erp: Client, customer, item):
        body = {
            "customerNumber": customer["number"],
            "salesOrderLines": [
                {"lineType": "Item", "lineObjectNumber": item["number"], "quantity": 4, "unitPrice": 100},
                {"lineType": "Comment", "description": "Deliver before noon"},
            ],
        }
        made = erp.post("salesOrders?$expand=salesOrderLines", body)

        assert (201, 400) == (made.status_code, made.json()["totalAmountExcludingTax"])
        assert [(10000, "Hinge"), (20000, "Deliver before noon")] == [
            (line["sequence"], line["description"]) for line in made.json()["salesOrderLines"]
        ]

    def test_is_not_made_when_one_of_its_lines_is_wrong(self, erp: Client, customer):
        count = erp.get("salesOrders/$count").text
        body = {"customerId": customer["id"], "salesOrderLines": [{"itemId": customer["id"], "quantity": 1}]}

        assert (400, "Application_DialogException") == error_code(erp.post("salesOrders", body))
        assert count == erp.get("salesOrders/$count").text

    def test_takes_its_lines_with_it(self, erp: Client, order, line):
        made = line()
        erp.delete(address(order), tag="*")

        assert (404, "BadRequest_ResourceNotFound") == error_code(erp.get(f"salesOrderLines({made['id']})"))


class TestLine:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_salesorderline"""

    def test_has_every_property_of_its_page(self, line):
        assert 32 == len([name for name in line() if not name.startswith("@")])

    def test_takes_from_the_item_what_nobody_says(self, item, line):
        made = line()

        assert ("Item", item["number"], "Hinge", "brass", "PCS", 250) == tuple(
            made[name]
            for name in (
                "lineType",
                "lineObjectNumber",
                "description",
                "description2",
                "unitOfMeasureCode",
                "unitPrice",
            )
        )
        assert (4, 4) == (made["shipQuantity"], made["invoiceQuantity"])

    def test_is_refused_without_a_document(self, erp: Client, order, line):
        made = line()

        assert (400, "Application_DialogException") == error_code(erp.get("salesOrderLines"))
        assert (400, "Application_DialogException") == error_code(erp.post("salesOrderLines", {"quantity": 1}))
        assert [made["id"]] == [r["id"] for r in erp.rows(f"salesOrderLines?$filter=documentId eq {order['id']}")]
        assert [made["id"]] == [r["id"] for r in erp.rows(f"salesOrderLines?$filter=id eq {made['id']}")]

    def test_is_addressed_below_its_order(self, erp: Client, order, line, customer):
        made = line()
        other = erp.post("salesOrders", {"customerId": customer["id"]}).json()
        path = f"salesOrderLines({made['id']})"

        assert 200 == erp.get(f"{address(order)}/{path}").status_code
        assert 404 == erp.get(f"{address(other)}/{path}").status_code
        assert 3 == erp.patch(f"{address(order)}/{path}", {"quantity": 3}, tag="*").json()["quantity"]
        assert 204 == erp.delete(f"{address(order)}/{path}", tag="*").status_code

    @pytest.mark.parametrize(
        ("given", "code"),
        [
            ({"lineType": "Item", "lineObjectNumber": "NONE"}, "Application_DialogException"),
            ({"lineType": "Resource", "lineObjectNumber": "R1"}, "Internal_RecordNotFound"),
            ({"accountId": "11111111-1111-4111-8111-111111111111"}, "Application_DialogException"),
            ({"itemVariantId": "11111111-1111-4111-8111-111111111111"}, "Application_DialogException"),
            ({"amountExcludingTax": 5}, "BadRequest_InvalidOperation"),
        ],
    )
    def test_refuses_what_does_not_fit(self, erp: Client, order, given, code):
        reply = erp.post(f"{address(order)}/salesOrderLines", given)

        assert (400, code) == error_code(reply)

    def test_is_of_an_item_or_of_an_account(self, erp: Client, order, item):
        body = {"itemId": item["id"], "accountId": "11111111-1111-4111-8111-111111111111"}
        reply = erp.post(f"{address(order)}/salesOrderLines", body)

        assert 'Both "itemId" and "accountId" are specified.' in reply.json()["error"]["message"]

    @pytest.mark.parametrize(("name", "value"), [("documentId", EMPTY), ("sequence", 5)])
    def test_keeps_its_place(self, erp: Client, line, name, value):
        made = line()

        reply = erp.patch(f"salesOrderLines({made['id']})", {name: value}, tag="*")

        assert (400, "Application_DialogException") == error_code(reply)

    def test_holds_its_item(self, erp: Client, item, line):
        line()

        assert (400, "Application_DialogException") == error_code(erp.delete(f"items({item['id']})", tag="*"))

    def test_sends_no_notifications_but_its_order_does(self, info: Info, erp: Client, receiver: Receiver, line):
        base = f"api/v2.0/companies({info['erp']['company_id']})"
        lines = {"notificationUrl": receiver.url, "resource": f"{base}/salesOrderLines"}
        orders = {**lines, "resource": f"{base}/salesOrders"}
        assert (400, "BadRequest") == error_code(erp.post(f"{erp.root}/subscriptions", lines))
        key = erp.post(f"{erp.root}/subscriptions", orders).json()["subscriptionId"]

        made = line()

        assert eventually(lambda: len(receiver.got) > 0)
        erp.delete(f"{erp.root}/subscriptions('{key}')")
        assert [("updated", f"{base}/salesOrders({made['documentId']})")] == [
            (entry["changeType"], entry["resource"]) for entry in receiver.got[0][1]["value"]
        ]


class TestAmounts:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_salesorderline"""

    def test_follow_from_quantity_price_and_discount(self, erp: Client, order, line):
        by_percent = line(unitPrice=9.99, discountPercent=10)
        by_amount = line(unitPrice=10, discountAmount=5)

        assert (4, 35.96) == (by_percent["discountAmount"], by_percent["amountExcludingTax"])
        assert (12.5, 35) == (by_amount["discountPercent"], by_amount["amountExcludingTax"])
        assert (70.96, 0, 70.96) == totals(erp, order)

    def test_are_added_up_whenever_a_line_moves(self, erp: Client, order, line):
        made = line()
        first = totals(erp, order)
        erp.patch(f"salesOrderLines({made['id']})", {"quantity": 1}, tag="*")
        second = totals(erp, order)
        erp.delete(f"salesOrderLines({made['id']})", tag="*")

        assert [(1000, 0, 1000), (250, 0, 250), (0, 0, 0)] == [first, second, totals(erp, order)]

    def test_move_the_order_with_them(self, erp: Client, order, line):
        made = line()
        before = erp.get(address(order)).json()
        erp.patch(f"salesOrderLines({made['id']})", {"description": "Other"}, tag="*")
        after = erp.get(address(order)).json()

        assert before["@odata.etag"] != after["@odata.etag"]
        assert before["lastModifiedDateTime"] != after["lastModifiedDateTime"]
        assert (409, "Request_EntityChanged") == error_code(
            erp.patch(address(order), {"shipToName": "N"}, tag=before["@odata.etag"])
        )

    def test_bear_the_tax_of_their_code(self, erp: Client, control: Control, item):
        control("POST", "switches", {"tax_rates": {"TAXABLE": 19}})
        liable = erp.post("customers", {"displayName": "Liable", "taxLiable": True}).json()
        body = {"customerId": liable["id"], "salesOrderLines": [{"itemId": item["id"], "quantity": 4}]}
        order = erp.post("salesOrders", body).json()
        included = erp.patch(address(order), {"pricesIncludeTax": True}, tag="*").json()
        control("POST", "switches", {"tax_rates": {"TAXABLE": 5}})

        assert (1000, 190, 1190) == tuple(
            order[f"total{name}"] for name in ("AmountExcludingTax", "TaxAmount", "AmountIncludingTax")
        )
        assert (840.34, 159.66, 1000) == tuple(
            included[f"total{name}"] for name in ("AmountExcludingTax", "TaxAmount", "AmountIncludingTax")
        )

    def test_share_the_discount_of_the_order(self, erp: Client, order, line):
        for _ in range(3):
            line(quantity=1, unitPrice=10)
        changed = erp.patch(address(order), {"discountAmount": 10}, tag="*").json()
        lines = erp.rows(f"{address(order)}/salesOrderLines")

        assert 20 == changed["totalAmountExcludingTax"]
        assert [3.33, 3.33, 3.34] == [row["invoiceDiscountAllocation"] for row in lines]
        assert [6.67, 6.67, 6.66] == [row["netAmount"] for row in lines]

    def test_are_in_the_currency_of_the_order(self, erp: Client, customer, item):
        body = {"customerId": customer["id"], "currencyCode": "GBP", "orderDate": "2026-03-02"}
        body["salesOrderLines"] = [{"itemId": item["id"], "quantity": 1}]
        order = erp.post("salesOrders", body).json()

        assert ("GBP", round(250 / 1.3475, 2)) == (order["currencyCode"], order["totalAmountExcludingTax"])
