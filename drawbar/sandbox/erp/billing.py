"""Business Central's invoices and credit memos: how a draft is posted, taken back, credited and paid.

Posting moves stock and what a customer owes, and writes both ledgers. Amounts are as the document has them: those of a
foreign currency are not converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from drawbar.sandbox.erp.amounts import money, plain
from drawbar.sandbox.erp.dimensions import DIMENSIONS
from drawbar.sandbox.erp.ledger import (
    COST_OF_GOODS,
    INVENTORY,
    RECEIVABLES,
    SALES,
    SALES_OF_SERVICES,
    SALES_TAX,
    Posting,
    post_amounts,
    post_stock,
)
from drawbar.sandbox.erp.model import EMPTY_GUID, refusal
from drawbar.sandbox.erp.records import ErpRecords
from drawbar.sandbox.erp.sales import DOCUMENTS, DRAFT, Document, lines_of, total
from drawbar.sandbox.store import Values

OPEN, PAID, CANCELED, CORRECTIVE = "Open", "Paid", "Canceled", "Corrective"
INVOICES, CREDIT_MEMOS = DOCUMENTS["salesInvoices"], DOCUMENTS["salesCreditMemos"]
_HIDDEN = ("discountBy", DIMENSIONS, "dimension1Id", "dimension2Id")  # what no page shows of a row


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """How a kind of document posts: its series and names in the ledgers, and which way amounts go."""

    series: str
    type: str
    stock_type: str
    sign: int


_SIDES: Mapping[str, _Side] = {
    INVOICES.set: _Side(series="postedInvoice", type="Invoice", stock_type="Sales Invoice", sign=1),
    CREDIT_MEMOS.set: _Side(series="postedCreditMemo", type="Credit Memo", stock_type="Sales Credit Memo", sign=-1),
}


def post_document(
    records: ErpRecords,
    company: str,
    kind: Document,
    draft: Values,
    app: str,
    *,
    moves_stock: bool = True,
    status: str | None = None,
) -> Values:
    """The draft gets the number of a posted document, and keeps its id. `status` where it is not open or paid."""
    side, lines = _SIDES[kind.set], [line for _, line in lines_of(records, company, kind, draft["id"])]
    number = records.next_number(company, records.sets[kind.set], series=side.series)
    owed = money(draft["totalAmountIncludingTax"])
    posted = {**draft, "number": number, "status": status or (OPEN if owed else PAID)}
    if "remainingAmount" in posted:
        posted["remainingAmount"] = plain(owed) if status is None else 0
    put(records, company, kind, posted, app)
    text = f"{side.type} {number}"
    about = {"day": posted["postingDate"], "text": text, "customer": posted["customerNumber"]}
    about["dimensions"] = posted.get(DIMENSIONS, {})
    if moves_stock:
        for line in lines:
            item = item_of(records, company, line)
            if item is not None and line["quantity"]:
                quantity, amount = -side.sign * money(line["quantity"]), side.sign * money(line["netAmount"])
                posting = Posting(type=side.stock_type, number=number, **about)
                post_stock(records, company, posting, item, quantity, app, sales=amount)
    posting = Posting(type=side.type, number=number, **about)
    post_amounts(records, company, posting, _amounts(records, company, posted, lines, side.sign), app)
    excluding = side.sign * money(posted["totalAmountExcludingTax"])
    owe(records, company, posted["billToCustomerId"], side.sign * owed, app, sales=excluding)
    return posted


def _amounts(
    records: ErpRecords, company: str, document: Values, lines: list[Values], sign: int
) -> list[tuple[str, Decimal]]:
    amounts = [(RECEIVABLES, sign * money(document["totalAmountIncludingTax"]))]
    for line in lines:
        item = records.rows(company, "items").get(line["itemId"])
        account = line["lineObjectNumber"] if line["lineType"] == "Account" else SALES
        if line["lineType"] == "Resource" or (item is not None and item.values["type"] == "Service"):
            account = SALES_OF_SERVICES
        amounts += [(account, -sign * money(line["netAmount"])), (SALES_TAX, -sign * money(line["netTaxAmount"]))]
        if item is not None and item.values["type"] == "Inventory":
            cost = sign * money(line["quantity"]) * money(item.values["unitCost"])
            amounts += [(COST_OF_GOODS, cost), (INVENTORY, -cost)]
    return amounts


def owe(records: ErpRecords, company: str, customer_id: str, amount: Decimal, app: str, *, sales: Decimal) -> None:
    """What a customer owes and has bought; calculated fields move."""
    customer = records.rows(company, "customers").get(customer_id)
    if customer is None:
        return
    row = {
        **customer.values,
        "balanceDue": plain(money(customer.values["balanceDue"]) + amount),
        "totalSalesExcludingTax": plain(money(customer.values.get("totalSalesExcludingTax", 0)) + sales),
    }
    records.store.put(f"{company}/customers", row["id"], row, note=app, silent=True)


def apply_to_invoice(records: ErpRecords, company: str, invoice_id: str, amount: Decimal, app: str) -> Decimal:
    """Pay an open invoice as far as the amount goes; what is left of it. To be paid is a change of the record."""
    invoice = records.rows(company, INVOICES.set).get(invoice_id)
    if invoice is None or invoice.values["status"] != OPEN:
        return amount
    remaining = money(invoice.values["remainingAmount"])
    taken = min(amount, remaining)
    row = {**invoice.values, "remainingAmount": plain(remaining - taken)}
    if taken == remaining:
        put(records, company, INVOICES, {**row, "status": PAID}, app)
    else:
        records.store.put(f"{company}/{INVOICES.set}", invoice_id, row, note=app, silent=True)
    return amount - taken


def post_credit_memo(records: ErpRecords, company: str, memo_id: str, app: str) -> None:
    """Applied to the invoice that it names; what that does not take stays open."""
    draft = _draft(records, company, CREDIT_MEMOS, memo_id, "credit memo")
    if not any(line["quantity"] for _, line in lines_of(records, company, CREDIT_MEMOS, memo_id)):
        raise refusal("Please add at least one line item to the credit memo.")
    posted = post_document(records, company, CREDIT_MEMOS, draft, app)
    amount = money(posted["totalAmountIncludingTax"])
    if posted["invoiceId"] != EMPTY_GUID and not apply_to_invoice(records, company, posted["invoiceId"], amount, app):
        put(records, company, CREDIT_MEMOS, {**posted, "status": PAID}, app)


def make_corrective_credit_memo(records: ErpRecords, company: str, invoice_id: str, app: str) -> tuple[str, str]:
    """The draft of a credit memo like the invoice, to be applied to it."""
    invoice = _posted(records, company, INVOICES, invoice_id, "invoice")
    if invoice["remainingAmount"] != invoice["totalAmountIncludingTax"]:
        if invoice["status"] == OPEN:
            raise refusal(
                "The invoice is partially paid or credited. The corrective credit memo may not be fully closed by the"
                " invoice."
            )
        raise refusal("The invoice is closed. The corrective credit memo will not be applied to the invoice.")
    return CREDIT_MEMOS.set, _reverse(records, company, INVOICES, CREDIT_MEMOS, invoice, app)["id"]


def cancel_invoice(records: ErpRecords, company: str, invoice_id: str, app: str) -> None:
    """A posted invoice that nobody paid is taken back by a credit memo: stock and debt are as before."""
    invoice = _posted(records, company, INVOICES, invoice_id, "invoice")
    if invoice["status"] == CANCELED:
        raise refusal("The invoice cannot be canceled because it has already been canceled.")
    if invoice["status"] != OPEN or invoice["remainingAmount"] != invoice["totalAmountIncludingTax"]:
        raise refusal(
            "You cannot cancel this posted sales invoice because it is fully or partially paid.\\\\"
            "To reverse a paid sales invoice, you must manually create a sales credit memo."
        )
    memo = _reverse(records, company, INVOICES, CREDIT_MEMOS, invoice, app)
    post_document(records, company, CREDIT_MEMOS, memo, app, status=CORRECTIVE)
    put(records, company, INVOICES, {**invoice, "status": CANCELED, "remainingAmount": 0}, app)


def cancel_credit_memo(records: ErpRecords, company: str, memo_id: str, app: str) -> None:
    """One that took an invoice back is itself taken back, by an invoice."""
    memo = _posted(records, company, CREDIT_MEMOS, memo_id, "credit memo")
    if memo["status"] == CANCELED:
        raise refusal("The credit memo cannot be cancelled because it has already been canceled.")
    if memo["status"] != CORRECTIVE:
        raise refusal("You cannot cancel this posted sales credit memo because it is not a corrective one.")
    invoice = _reverse(records, company, CREDIT_MEMOS, INVOICES, memo, app)
    post_document(records, company, INVOICES, invoice, app, status=CORRECTIVE)
    put(records, company, CREDIT_MEMOS, {**memo, "status": CANCELED}, app)


def _reverse(records: ErpRecords, company: str, kind: Document, into: Document, source: Values, app: str) -> Values:
    """A draft of the other kind with the lines of a document."""
    made = copy_of(records, company, source, into)
    made |= {into.day: records.now[:10], "postingDate": records.now[:10], "dueDate": records.now[:10]}
    if into is CREDIT_MEMOS:
        made |= {"invoiceId": source["id"], "invoiceNumber": source["number"]}
    put(records, company, into, made, app)
    for _, line in lines_of(records, company, kind, source["id"]):
        copied = {**like(records, into.lines, line), "id": records.store.new_id(), "documentId": made["id"]}
        put_line(records, company, into, copied, app)
    total(records, company, into, made["id"], app)
    return records.rows(company, into.set)[made["id"]].values


def _draft(records: ErpRecords, company: str, kind: Document, row_id: str, word: str) -> Values:
    row = records.rows(company, kind.set)[row_id].values
    if row["status"] != DRAFT:
        raise refusal(f"The action can be applied to a draft {word} only.")
    return row


def _posted(records: ErpRecords, company: str, kind: Document, row_id: str, word: str) -> Values:
    row = records.rows(company, kind.set)[row_id].values
    if row["status"] in (DRAFT, "In_x0020_Review"):
        raise refusal(f"The action can be applied to a posted {word} only.")
    return row


def post_invoice(records: ErpRecords, company: str, invoice_id: str, app: str) -> None:
    draft = _draft(records, company, INVOICES, invoice_id, "invoice")
    if not any(line["quantity"] for _, line in lines_of(records, company, INVOICES, invoice_id)):
        raise refusal("There is nothing to post because the document does not contain a quantity or amount.")
    post_document(records, company, INVOICES, draft, app)


def must_be_posted(records: ErpRecords, company: str, memo_id: str) -> None:
    _posted(records, company, CREDIT_MEMOS, memo_id, "credit memo")


# --- rows ---------------------------------------------------------------------------------------------------------


def item_of(records: ErpRecords, company: str, line: Values) -> Values | None:
    """The item of a line, where it is one that is kept in stock."""
    item = records.rows(company, "items").get(line.get("itemId", ""))
    return item.values if item is not None and item.values["type"] == "Inventory" else None


def like(records: ErpRecords, set_name: str, source: Values) -> Values:
    """A row of a set that has of another row what both have."""
    row = records.blank_row(set_name)
    shared = {name: value for name, value in source.items() if name in row or name in _HIDDEN}
    return {**row, **shared, "lastModifiedDateTime": records.now}


def copy_of(records: ErpRecords, company: str, source: Values, kind: Document) -> Values:
    """A new document with a number of its own."""
    row = like(records, kind.set, source)
    row |= {"id": records.store.new_id(), "number": records.next_number(company, records.sets[kind.set])}
    if "status" in row:
        row["status"] = DRAFT
    return row


def put(records: ErpRecords, company: str, kind: Document, row: Values, app: str) -> None:
    row = {**row, "lastModifiedDateTime": records.now}
    records.store.put(f"{company}/{kind.set}", row["id"], row, note=app)


def put_line(records: ErpRecords, company: str, kind: Document, row: Values, app: str) -> None:
    records.store.put(f"{company}/{kind.lines}", row["id"], row, note=app)
