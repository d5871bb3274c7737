"""Business Central's credit memos, payments and ledgers: what is taken back, what is paid, and what posting leaves."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest

from tests.sandbox.client import Client, Info, error_code, eventually
from tests.sandbox.conftest import Receiver

EMPTY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def customer(erp: Client) -> dict:
    body = {"displayName": "Quill & Marsh", "email": "pay@quill.example", "taxLiable": True}
    return erp.post("customers", body).json()


@pytest.fixture
def item(erp: Client) -> dict:
    body = {"displayName": "Hasp", "baseUnitOfMeasureCode": "PCS", "unitPrice": 100, "unitCost": 60}
    made = erp.post("items", body).json()
    return erp.patch(f"items({made['id']})", {"inventory": 50}, tag="*").json()


def act(erp: Client, set_name: str, row_id: str, action: str) -> Any:
    return erp.post(f"{set_name}({row_id})/Microsoft.NAV.{action}", None)


def read(erp: Client, set_name: str, row_id: str) -> dict:
    return erp.get(f"{set_name}({row_id})").json()


@pytest.fixture
def invoice(erp: Client, customer, item) -> dict:
    """Posted: two hasps, 200 and 10 of tax."""
    lines = [{"itemId": item["id"], "quantity": 2}]
    made = erp.post("salesInvoices", {"customerId": customer["id"], "salesInvoiceLines": lines}).json()
    assert 204 == act(erp, "salesInvoices", made["id"], "post").status_code
    return read(erp, "salesInvoices", made["id"])


@pytest.fixture
def journal(erp: Client) -> dict:
    checking = erp.rows("accounts?$filter=number eq '10100'")[0]
    body = {"code": uuid.uuid4().hex[:10], "displayName": "Receipts", "balancingAccountId": checking["id"]}
    reply = erp.post("customerPaymentJournals", body)
    assert 201 == reply.status_code, reply.text
    return reply.json()


def entries(erp: Client, number: str) -> dict[str, float]:
    """What was posted under a document's number: amount by account, debits above zero."""
    rows = erp.rows(f"generalLedgerEntries?$filter=documentNumber eq '{number}'")
    return {row["accountNumber"]: row["debitAmount"] - row["creditAmount"] for row in rows}


class TestCreditMemo:
    """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_salescreditmemo"""

    @pytest.fixture
    def memo(self, erp: Client, customer, item) -> dict:
        lines = [{"itemId": item["id"], "quantity": 1}]
        body = {"customerId": customer["id"], "salesCreditMemoLines": lines}
        return erp.post("salesCreditMemos", body).json()

    def test_has_every_property_of_its_page(self, erp: Client, memo):
        (line,) = erp.rows(f"salesCreditMemos({memo['id']})/salesCreditMemoLines")

        assert 44 == len([name for name in memo if not name.startswith("@")])
        assert 28 == len([name for name in line if not name.startswith("@")])
        assert ("Draft", True, EMPTY) == (memo["status"], memo["number"].startswith("S-CR"), memo["invoiceId"])

    def test_that_is_posted_brings_goods_back_and_lowers_the_debt(self, erp: Client, customer, item, memo):
        assert 204 == act(erp, "salesCreditMemos", memo["id"], "post").status_code
        posted = read(erp, "salesCreditMemos", memo["id"])

        assert ("Open", True) == (posted["status"], posted["number"].startswith("PS-CR"))
        assert 51 == read(erp, "items", item["id"])["inventory"]
        assert -105 == read(erp, "customers", customer["id"])["balanceDue"]
        assert 400 == erp.patch(f"salesCreditMemos({memo['id']})", {"email": "x@y.example"}, tag="*").status_code
        assert "draft credit memo only" in act(erp, "salesCreditMemos", memo["id"], "post").json()["error"]["message"]

    def test_is_applied_to_the_invoice_it_names(self, erp: Client, customer, item, invoice):
        lines = [{"itemId": item["id"], "quantity": 1}]
        body = {"customerId": customer["id"], "invoiceId": invoice["id"], "salesCreditMemoLines": lines}
        memo = erp.post("salesCreditMemos", body).json()
        act(erp, "salesCreditMemos", memo["id"], "post")
        after = read(erp, "salesInvoices", invoice["id"])

        assert invoice["number"] == memo["invoiceNumber"]
        assert ("Open", 105, invoice["lastModifiedDateTime"]) == tuple(
            after[name] for name in ("status", "remainingAmount", "lastModifiedDateTime")
        )
        assert "Paid" == read(erp, "salesCreditMemos", memo["id"])["status"]

    def test_without_lines_is_not_posted(self, erp: Client, customer):
        """Text of the public source of the page (APIV2 - Sales Credit Memos)."""
        memo = erp.post("salesCreditMemos", {"customerId": customer["id"]}).json()
        reply = act(erp, "salesCreditMemos", memo["id"], "post")

        assert "Please add at least one line item to the credit memo." in reply.json()["error"]["message"]

    def test_knows_its_return_reason(self, erp: Client, customer, memo):
        reason = erp.rows("customerReturnReasons?$filter=code eq 'DEFECT'")[0]
        address = f"salesCreditMemos({memo['id']})"
        erp.patch(address, {"customerReturnReasonId": reason["id"]}, tag="*")
        unknown = erp.patch(address, {"customerReturnReasonId": str(uuid.uuid4())}, tag="*")

        assert "DEFECT" == erp.get(f"{address}/customerReturnReason").json()["code"]
        assert (400, "Application_DialogException") == error_code(unknown)

    def test_is_sent_once_it_is_posted(self, erp: Client, memo):
        assert 400 == act(erp, "salesCreditMemos", memo["id"], "send").status_code
        assert 204 == act(erp, "salesCreditMemos", memo["id"], "postAndSend").status_code
        assert 204 == act(erp, "salesCreditMemos", memo["id"], "send").status_code

    def test_that_corrects_nothing_is_not_canceled(self, erp: Client, memo):
        act(erp, "salesCreditMemos", memo["id"], "post")

        assert (400, "Application_DialogException") == error_code(act(erp, "salesCreditMemos", memo["id"], "cancel"))

    def test_has_a_pdf(self, erp: Client, memo):
        content = erp.get(f"salesCreditMemos({memo['id']})/pdfDocument/pdfDocumentContent").content

        assert memo["number"].encode() in content


class TestCorrection:
    """Cancel, makeCorrectiveCreditMemo.

    learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_salesinvoice
    """

    def test_credit_memo_is_a_draft_like_the_invoice(self, erp: Client, customer, invoice):
        reply = act(erp, "salesInvoices", invoice["id"], "makeCorrectiveCreditMemo")
        set_name, _, rest = reply.headers["Location"].rpartition("/")[2].partition("(")
        memo = read(erp, set_name, rest[:-1])

        assert (204, "salesCreditMemos") == (reply.status_code, set_name)
        assert ("Draft", 210, invoice["id"], invoice["number"]) == tuple(
            memo[name] for name in ("status", "totalAmountIncludingTax", "invoiceId", "invoiceNumber")
        )
        act(erp, "salesCreditMemos", memo["id"], "post")
        assert ("Paid", 0) == tuple(
            read(erp, "salesInvoices", invoice["id"])[name] for name in ("status", "remainingAmount")
        )
        assert 0 == read(erp, "customers", customer["id"])["balanceDue"]

    def test_cancelling_leaves_a_corrective_credit_memo(self, erp: Client, customer, item, invoice):
        assert 204 == act(erp, "salesInvoices", invoice["id"], "cancel").status_code
        (memo,) = erp.rows(f"salesCreditMemos?$filter=invoiceId eq {invoice['id']}")

        assert ("Canceled", 0) == tuple(
            read(erp, "salesInvoices", invoice["id"])[name] for name in ("status", "remainingAmount")
        )
        assert ("Corrective", 210) == (memo["status"], memo["totalAmountIncludingTax"])
        assert (50, 0) == (
            read(erp, "items", item["id"])["inventory"],
            read(erp, "customers", customer["id"])["balanceDue"],
        )
        again = act(erp, "salesInvoices", invoice["id"], "cancel").json()["error"]["message"]
        assert "The invoice cannot be canceled because it has already been canceled." in again

    def test_of_a_correction_is_an_invoice_again(self, erp: Client, customer, item, invoice):
        act(erp, "salesInvoices", invoice["id"], "cancelAndSend")
        (memo,) = erp.rows(f"salesCreditMemos?$filter=invoiceId eq {invoice['id']}")

        assert 204 == act(erp, "salesCreditMemos", memo["id"], "cancel").status_code
        assert "Canceled" == read(erp, "salesCreditMemos", memo["id"])["status"]
        assert (48, 210) == (
            read(erp, "items", item["id"])["inventory"],
            read(erp, "customers", customer["id"])["balanceDue"],
        )

    @pytest.mark.parametrize("action", ["cancel", "makeCorrectiveCreditMemo"])
    def test_of_a_draft_is_refused(self, erp: Client, customer, item, action: str):
        lines = [{"itemId": item["id"], "quantity": 2}]
        draft = erp.post("salesInvoices", {"customerId": customer["id"], "salesInvoiceLines": lines}).json()
        reply = act(erp, "salesInvoices", draft["id"], action)

        assert "The action can be applied to a posted invoice only." in reply.json()["error"]["message"]


class TestPayment:
    """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_customerpayment
    learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_customerpaymentjournal
    learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_journal
    """

    def pay(self, erp: Client, journal: dict, **given: Any) -> Any:
        return erp.post(f"customerPaymentJournals({journal['id']})/customerPayments", given)

    def test_has_every_property_of_its_page_and_takes_what_nobody_says(self, erp: Client, journal, invoice):
        payment = self.pay(erp, journal, appliesToInvoiceId=invoice["id"], amount=-50).json()

        assert 15 == len([name for name in payment if not name.startswith("@")])
        assert (journal["code"], 10000, invoice["customerNumber"], invoice["number"]) == tuple(
            payment[name] for name in ("journalDisplayName", "lineNumber", "customerNumber", "appliesToInvoiceNumber")
        )
        assert payment["documentNumber"].startswith("G0400")
        assert 20000 == self.pay(erp, journal, customerId=invoice["customerId"], amount=-1).json()["lineNumber"]

    def test_of_a_part_lowers_what_remains_and_touches_no_record(self, erp: Client, customer, journal, invoice):
        self.pay(erp, journal, appliesToInvoiceNumber=invoice["number"], amount=-50)

        assert 204 == act(erp, "journals", journal["id"], "post").status_code
        after, owing = read(erp, "salesInvoices", invoice["id"]), read(erp, "customers", customer["id"])
        assert ("Open", 160, invoice["lastModifiedDateTime"]) == tuple(
            after[name] for name in ("status", "remainingAmount", "lastModifiedDateTime")
        )
        assert (160, customer["lastModifiedDateTime"]) == (owing["balanceDue"], owing["lastModifiedDateTime"])
        assert [] == erp.rows(f"customerPaymentJournals({journal['id']})/customerPayments")

    def test_of_the_whole_makes_the_invoice_paid_and_tells_of_it(
        self, info: Info, erp: Client, customer, journal, invoice, receiver: Receiver
    ):
        resource = f"/api/v2.0/companies({info['erp']['company_id']})/salesInvoices"
        body = {"notificationUrl": receiver.url, "resource": resource}
        subscription = erp.post(f"{erp.root}/subscriptions", body).json()
        self.pay(erp, journal, appliesToInvoiceId=invoice["id"], customerId=customer["id"], amount=-210)
        act(erp, "journals", journal["id"], "post")
        paid = read(erp, "salesInvoices", invoice["id"])

        assert ("Paid", 0) == (paid["status"], paid["remainingAmount"])
        assert paid["lastModifiedDateTime"] != invoice["lastModifiedDateTime"]
        assert eventually(lambda: any(invoice["id"] in str(got) for _, got in receiver.got))
        erp.delete(f"{erp.root}/subscriptions('{subscription['subscriptionId']}')")

    def test_without_an_invoice_is_on_account(self, erp: Client, customer, journal, invoice):
        self.pay(erp, journal, customerId=customer["id"], amount=-300)
        act(erp, "journals", journal["id"], "post")

        assert -90 == read(erp, "customers", customer["id"])["balanceDue"]
        assert 210 == read(erp, "salesInvoices", invoice["id"])["remainingAmount"]

    @pytest.mark.parametrize(
        ("given", "text"),
        [({"amount": 50}, "Amount must be negative"), ({"amount": 0}, "Amount must be negative")],
    )
    def test_is_a_negative_amount(self, erp: Client, customer, journal, given: dict, text: str):
        self.pay(erp, journal, customerId=customer["id"], **given)
        reply = act(erp, "journals", journal["id"], "post")

        assert (400, True) == (reply.status_code, text in reply.json()["error"]["message"])
        assert 1 == len(erp.rows(f"customerPaymentJournals({journal['id']})/customerPayments"))

    def test_needs_a_customer_an_account_and_something_to_post(self, erp: Client, customer, journal):
        nothing = act(erp, "journals", journal["id"], "post")
        bare = erp.post("customerPaymentJournals", {"code": uuid.uuid4().hex[:10]}).json()
        self.pay(erp, bare, customerId=customer["id"], amount=-5)
        self.pay(erp, journal, amount=-5)

        assert "There is nothing to post." in nothing.json()["error"]["message"]
        assert "out of balance by -5" in act(erp, "journals", bare["id"], "post").json()["error"]["message"]
        assert "Account No. must have a value" in act(erp, "journals", journal["id"], "post").json()["error"]["message"]

    def test_names_an_invoice_that_is_posted(self, erp: Client, customer, item, journal):
        draft = erp.post("salesInvoices", {"customerId": customer["id"]}).json()
        reply = self.pay(erp, journal, appliesToInvoiceId=draft["id"], amount=-5)

        assert 'The "appliesToInvoiceId" should be the ID of an Open, Paid' in reply.json()["error"]["message"]

    def test_is_read_with_its_journal_and_goes_with_it(self, erp: Client, customer, journal):
        made = self.pay(erp, journal, customerId=customer["id"], amount=-5).json()

        assert "You must specify a journal batch ID" in erp.get("customerPayments").json()["error"]["message"]
        assert 1 == len(erp.rows(f"customerPayments?$filter=journalId eq {journal['id']}"))
        erp.delete(f"customerPaymentJournals({journal['id']})")
        assert 404 == erp.get(f"customerPayments({made['id']})").status_code

    def test_journal_is_one_of_journals_by_its_id(self, erp: Client, journal):
        """The public source of the page (APIV2 - Journals): lists are of general journals."""
        found = read(erp, "journals", journal["id"])

        assert ("CASHRCPT", "10100") == (found["templateDisplayName"], found["balancingAccountNumber"])
        assert {"GENERAL"} == {row["templateDisplayName"] for row in erp.rows("journals")}

    def test_journal_is_not_deleted_as_a_general_one(self, erp: Client, journal):
        """The public source of the page (APIV2 - Journals)."""
        reply = erp.delete(f"journals({journal['id']})")

        assert (400, "Application_DialogException") == error_code(reply)
        assert 200 == erp.get(f"customerPaymentJournals({journal['id']})").status_code


class TestJournalLine:
    """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_journalline"""

    @pytest.fixture
    def general(self, erp: Client) -> dict:
        return erp.post("journals", {"code": uuid.uuid4().hex[:10]}).json()

    def line(self, erp: Client, general: dict, number: str, amount: float, **more: Any) -> Any:
        body = {"accountNumber": number, "amount": amount, "documentNumber": general["code"], **more}
        return erp.post(f"journals({general['id']})/journalLines", body)

    def test_lines_of_a_document_balance_each_other(self, erp: Client, general):
        self.line(erp, general, "61100", 12.5)
        alone = act(erp, "journals", general["id"], "post")
        self.line(erp, general, "10100", -12.5)

        assert "out of balance by 12.5" in alone.json()["error"]["message"]
        assert 204 == act(erp, "journals", general["id"], "post").status_code
        assert {"61100": 12.5, "10100": -12.5} == entries(erp, general["code"].upper())

    def test_a_line_may_have_a_balancing_account(self, erp: Client, general):
        before = erp.rows("accounts?$filter=number eq '61100'")[0]["netChange"]
        made = self.line(erp, general, "61100", 7, balancingAccountNumber="10200").json()
        act(erp, "journals", general["id"], "post")

        assert ("61100", 18) == (made["accountNumber"], len([name for name in made if not name.startswith("@")]))
        assert {"61100": 7, "10200": -7} == entries(erp, general["code"].upper())
        assert before + 7 == erp.rows("accounts?$filter=number eq '61100'")[0]["netChange"]

    def test_is_of_a_general_ledger_account(self, erp: Client, general):
        unknown = self.line(erp, general, "99999", 1)

        assert 'The "accountNumber" does not match to an Account.' in unknown.json()["error"]["message"]
        assert 400 == self.line(erp, general, "61100", 1, accountType="Vendor").status_code


class TestGeneralLedger:
    """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_generalledgerentry"""

    def test_of_an_invoice_is_balanced(self, erp: Client, invoice):
        rows = erp.rows(f"generalLedgerEntries?$filter=documentNumber eq '{invoice['number']}'")

        assert {"10400": 210, "40100": -200, "22300": -10, "50100": 120, "10700": -120} == entries(
            erp, invoice["number"]
        )
        assert {("Invoice", invoice["postingDate"])} == {(row["documentType"], row["postingDate"]) for row in rows}
        assert 11 == len([name for name in rows[0] if not name.startswith("@")])

    def test_of_a_line_of_an_account_is_in_that_account(self, erp: Client, customer):
        lines = [{"lineType": "Account", "lineObjectNumber": "40250", "quantity": 1, "unitPrice": 30}]
        body = {"customerId": customer["id"], "salesInvoiceLines": lines}
        invoice = erp.post("salesInvoices", body).json()
        act(erp, "salesInvoices", invoice["id"], "post")

        assert {"10400": 31.5, "40250": -30, "22300": -1.5} == entries(
            erp, read(erp, "salesInvoices", invoice["id"])["number"]
        )

    def test_has_the_dimensions_of_what_was_posted(self, erp: Client, customer, item):
        lines = [{"itemId": item["id"], "quantity": 1}]
        body = {"customerId": customer["id"], "shortcutDimension1Code": "SALES", "salesInvoiceLines": lines}
        invoice = erp.post("salesInvoices", body).json()
        act(erp, "salesInvoices", invoice["id"], "post")
        number = read(erp, "salesInvoices", invoice["id"])["number"]
        query = f"generalLedgerEntries?$filter=documentNumber eq '{number}'&$expand=dimensionSetLines,account"
        rows = erp.rows(query)

        assert {("SALES",)} == {tuple(line["valueCode"] for line in row["dimensionSetLines"]) for row in rows}
        assert all(row["account"]["number"] == row["accountNumber"] for row in rows)

    def test_is_read_only(self, erp: Client, invoice):
        row = erp.rows("generalLedgerEntries?$top=1")[0]

        assert 405 == erp.post("generalLedgerEntries", {}).status_code
        assert 405 == erp.patch(f"generalLedgerEntries({row['id']})", {}, tag="*").status_code


class TestItemLedger:
    """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_itemledgerentry"""

    def test_tells_of_every_move_of_an_item(self, erp: Client, item, invoice):
        rows = erp.rows(f"itemLedgerEntries?$filter=itemNumber eq '{item['number']}'&$orderby=entryNumber")

        assert [
            ("Positive_x0020_Adjmt_x002E_", "_x0020_", 50, 0, 3000),
            ("Sale", "Sales_x0020_Invoice", -2, 200, -120),
        ] == [
            tuple(
                row[name] for name in ("entryType", "documentType", "quantity", "salesAmountActual", "costAmountActual")
            )
            for row in rows
        ]
        assert ("Customer", invoice["customerNumber"], invoice["number"]) == tuple(
            rows[1][name] for name in ("sourceType", "sourceNumber", "documentNumber")
        )
        assert 48 == sum(row["quantity"] for row in rows) == read(erp, "items", item["id"])["inventory"]

    def test_keeps_an_item_and_its_unit(self, erp: Client, item):
        erp.patch(f"items({item['id']})", {"inventory": 0}, tag="*")
        unit = erp.patch(f"items({item['id']})", {"baseUnitOfMeasureCode": "BOX"}, tag="*")

        assert "one or more item ledger entries" in unit.json()["error"]["message"]
        assert "it has ledger entries" in erp.delete(f"items({item['id']})").json()["error"]["message"]

    def test_of_an_order_is_shipped_first_and_invoiced_later(self, erp: Client, customer, item):
        lines = [{"itemId": item["id"], "quantity": 4, "invoiceQuantity": 1}]
        order = erp.post("salesOrders", {"customerId": customer["id"], "salesOrderLines": lines}).json()
        act(erp, "salesOrders", order["id"], "shipAndInvoice")
        query = f"itemLedgerEntries?$filter=itemNumber eq '{item['number']}' and entryType eq 'Sale'"
        (first,) = erp.rows(query)
        act(erp, "salesOrders", order["id"], "shipAndInvoice")
        (then,) = erp.rows(query)

        assert ("Sales_x0020_Shipment", -4, 100, -60) == tuple(
            first[name] for name in ("documentType", "quantity", "salesAmountActual", "costAmountActual")
        )
        assert (400, -240, first["lastModifiedDateTime"]) == tuple(
            then[name] for name in ("salesAmountActual", "costAmountActual", "lastModifiedDateTime")
        )


class TestOverdue:
    def test_is_what_is_open_after_its_day(self, erp: Client, customer, item):
        """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_customerfinancialdetail"""
        today = dt.datetime.now(dt.timezone.utc).date()
        for days in (-3, 3):
            due = (today + dt.timedelta(days=days)).isoformat()
            lines = [{"itemId": item["id"], "quantity": 1}]
            body = {"customerId": customer["id"], "dueDate": due, "salesInvoiceLines": lines}
            invoice = erp.post("salesInvoices", body).json()
            act(erp, "salesInvoices", invoice["id"], "post")
        detail = erp.get(f"customers({customer['id']})/customerFinancialDetail").json()

        assert (210, 105, 200) == tuple(detail[name] for name in ("balance", "overdueAmount", "totalSalesExcludingTax"))
