"""What becomes of Business Central's sales documents: a quote an order, an order a shipment and an invoice, and so on.

Bound actions of the API. Each works on rows within a transaction that has started, and gives back where the document
that it made is, if it made one. How invoices and credit memos are posted is in `erp/billing.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

from drawbar.sandbox.erp.amounts import money, plain
from drawbar.sandbox.erp.billing import (
    CREDIT_MEMOS,
    INVOICES,
    cancel_credit_memo,
    cancel_invoice,
    copy_of,
    item_of,
    like,
    make_corrective_credit_memo,
    must_be_posted,
    post_credit_memo,
    post_document,
    post_invoice,
    put,
    put_line,
)
from drawbar.sandbox.erp.dimensions import DIMENSIONS
from drawbar.sandbox.erp.ledger import Posting, invoice_stock, post_stock
from drawbar.sandbox.erp.model import refusal
from drawbar.sandbox.erp.parts import carry_files
from drawbar.sandbox.erp.payments import post_journal
from drawbar.sandbox.erp.records import ErpRecords
from drawbar.sandbox.erp.sales import DOCUMENTS, Document, calculate, due_date, lines_of, total
from drawbar.sandbox.store import Values

Made = tuple[str, str]  # set and id
Action = Callable[[ErpRecords, str, str, str], "Made | None"]  # records, company, id of the document, application

_QUOTES, _ORDERS = (DOCUMENTS[name] for name in ("salesQuotes", "salesOrders"))
_SHIPMENTS = Document(set="salesShipments", lines="salesShipmentLines", day="postingDate", word="Shipment")
_KINDS_OF_LINES = {  # a shipment's words for them
    "Account": "G_x002F_L_x0020_Account",
    "Charge": "Charge_x0020__x0028_Item_x0029_",
    "Comment": "_x0020_",
}


def make_order(records: ErpRecords, company: str, quote_id: str, app: str) -> Made:
    """The quote becomes an order, and is gone."""
    return _turn_into(records, company, quote_id, _ORDERS, app)


def make_invoice(records: ErpRecords, company: str, quote_id: str, app: str) -> Made:
    """The quote becomes the draft of an invoice, and is gone."""
    return _turn_into(records, company, quote_id, INVOICES, app)


def send_quote(records: ErpRecords, company: str, quote_id: str, app: str) -> None:
    quote = _values(records, company, _QUOTES, quote_id)
    _must_have_address(quote)
    put(records, company, _QUOTES, {**quote, "status": "Sent", "sentDate": records.now}, app)


def ship_and_invoice(records: ErpRecords, company: str, order_id: str, app: str) -> Made:
    """Ships and invoices what the lines say. An order of which nothing is left is gone."""
    order = _values(records, company, _ORDERS, order_id)
    lines = lines_of(records, company, _ORDERS, order_id)
    shipped = [(line, money(line["shipQuantity"])) for _, line in lines if line["shipQuantity"]]
    invoiced = [(line, money(line["invoiceQuantity"])) for _, line in lines if line["invoiceQuantity"]]
    if not shipped and not invoiced:
        raise refusal("There is nothing to post because the document does not contain a quantity or amount.")
    for line, quantity in invoiced:
        if money(line["invoicedQuantity"]) + quantity > money(line["shippedQuantity"]) + money(line["shipQuantity"]):
            raise refusal(f"You cannot invoice more than what is shipped: line {line['sequence']}.")
    made: Made = (_ORDERS.set, order_id)
    if shipped:
        made = _ship(records, company, order, shipped, app)
    if invoiced:
        made = _invoice(records, company, order, invoiced, app)
    _settle_order(records, company, order, lines, app)
    return made


def _and_send(kind: Document, action: Action) -> Action:
    """The action, of a document that has an address to be sent to. A mail leaves nothing behind."""

    def act(records: ErpRecords, company: str, row_id: str, app: str) -> Made | None:
        _must_have_address(_values(records, company, kind, row_id))
        return action(records, company, row_id, app)

    return act


def _nothing(records: ErpRecords, company: str, row_id: str, app: str) -> None:
    """What sending does to the rows."""
    del records, company, row_id, app


def _only_posted(records: ErpRecords, company: str, row_id: str, app: str) -> None:
    del app
    must_be_posted(records, company, row_id)


ACTIONS: Mapping[tuple[str, str], Action] = {
    ("salesQuotes", "makeOrder"): make_order,
    ("salesQuotes", "makeInvoice"): make_invoice,
    ("salesQuotes", "send"): send_quote,
    ("salesOrders", "shipAndInvoice"): ship_and_invoice,
    ("salesInvoices", "post"): post_invoice,
    ("salesInvoices", "postAndSend"): _and_send(INVOICES, post_invoice),
    ("salesInvoices", "send"): _and_send(INVOICES, _nothing),
    ("salesInvoices", "cancel"): cancel_invoice,
    ("salesInvoices", "cancelAndSend"): _and_send(INVOICES, cancel_invoice),
    ("salesInvoices", "makeCorrectiveCreditMemo"): make_corrective_credit_memo,
    ("salesCreditMemos", "post"): post_credit_memo,
    ("salesCreditMemos", "postAndSend"): _and_send(CREDIT_MEMOS, post_credit_memo),
    ("salesCreditMemos", "send"): _and_send(CREDIT_MEMOS, _only_posted),
    ("salesCreditMemos", "cancel"): cancel_credit_memo,
    ("salesCreditMemos", "cancelAndSend"): _and_send(CREDIT_MEMOS, cancel_credit_memo),
    ("journals", "post"): post_journal,
}


def action_of(set_name: str, name: str, *, any_case: bool) -> Action | None:
    """The action of a set by its name, in whatever letter case."""
    if not any_case:
        return ACTIONS.get((set_name, name))
    found = (action for (of, each), action in ACTIONS.items() if of == set_name and each.lower() == name.lower())
    return next(found, None)


# --- steps --------------------------------------------------------------------------------------------------------


def _turn_into(records: ErpRecords, company: str, quote_id: str, kind: Document, app: str) -> Made:
    quote = _values(records, company, _QUOTES, quote_id)
    customer = records.rows(company, "customers").get(quote["customerId"])
    if customer is not None and customer.values["blocked"] == "All":
        raise refusal(f"You cannot create this type of document when Customer {quote['customerNumber']} is blocked.")
    made = copy_of(records, company, quote, kind)
    made[kind.day] = records.now[:10]
    if "dueDate" in made:
        made["dueDate"] = due_date(records, company, made, made[kind.day])
    put(records, company, kind, made, app)
    for _, line in lines_of(records, company, _QUOTES, quote_id):
        copied = {**like(records, kind.lines, line), "id": records.store.new_id(), "documentId": made["id"]}
        if "shipQuantity" in copied:
            copied["shipQuantity"] = copied["invoiceQuantity"] = line["quantity"]
        put_line(records, company, kind, copied, app)
    total(records, company, kind, made["id"], app)
    carry_files(records, company, quote_id, records.sets[kind.set], made["id"], app)
    records.remove(company, _QUOTES.set, quote_id, app=app)
    return kind.set, made["id"]


def _ship(records: ErpRecords, company: str, order: Values, shipped: list[tuple[Values, Decimal]], app: str) -> Made:
    made = copy_of(records, company, order, _SHIPMENTS)
    for name, set_name in (("paymentTerms", "paymentTerms"), ("shipmentMethod", "shipmentMethods")):
        found = records.rows(company, set_name).get(order[f"{name}Id"])
        made[f"{name}Code"] = found.values["code"] if found is not None else ""
    made["orderNumber"], made["invoiceDate"] = order["number"], order["orderDate"]
    made["dueDate"] = due_date(records, company, order, order["orderDate"])
    put(records, company, _SHIPMENTS, made, app)
    posting = Posting(
        type="Sales Shipment",
        number=made["number"],
        day=made["postingDate"],
        text=f"Order {order['number']}",
        customer=order["customerNumber"],
        dimensions=order.get(DIMENSIONS, {}),
    )
    for line, quantity in shipped:
        copied = like(records, _SHIPMENTS.lines, line)
        kind = _KINDS_OF_LINES.get(line["lineType"], line["lineType"])
        copied |= {"id": records.store.new_id(), "documentId": made["id"], "documentNo": made["number"]}
        put_line(records, company, _SHIPMENTS, {**copied, "lineType": kind, "quantity": plain(quantity)}, app)
        item = item_of(records, company, line)
        if item is not None:
            post_stock(records, company, posting, item, -quantity, app, order_line=line["id"])
    return _SHIPMENTS.set, made["id"]


def _invoice(
    records: ErpRecords, company: str, order: Values, invoiced: list[tuple[Values, Decimal]], app: str
) -> Made:
    made = copy_of(records, company, order, INVOICES)
    made |= {
        "orderId": order["id"],
        "orderNumber": order["number"],
        "invoiceDate": order["postingDate"],
    }
    made["dueDate"] = due_date(records, company, made, made["invoiceDate"])
    put(records, company, INVOICES, made, app)
    copies: list[tuple[str, str, Decimal]] = []  # line of the order, of the invoice, and how much of it
    for line, quantity in invoiced:
        copied = {**like(records, INVOICES.lines, line), "id": records.store.new_id(), "documentId": made["id"]}
        copied["quantity"] = plain(quantity)
        calculate(copied, prices_include_tax=order["pricesIncludeTax"])
        put_line(records, company, INVOICES, copied, app)
        copies.append((line["id"], copied["id"], quantity))
    total(records, company, INVOICES, made["id"], app)
    carry_files(records, company, order["id"], records.sets[INVOICES.set], made["id"], app)
    for order_line, line_id, quantity in copies:
        amount = money(records.rows(company, INVOICES.lines)[line_id].values["netAmount"])
        invoice_stock(records, company, order_line, quantity, amount, app)
    post_document(records, company, INVOICES, _values(records, company, INVOICES, made["id"]), app, moves_stock=False)
    return INVOICES.set, made["id"]


def _settle_order(records: ErpRecords, company: str, order: Values, lines: list[tuple[str, Values]], app: str) -> None:
    """What was posted is noted in the lines; the rest is due next time. Nothing left: the order is gone."""
    is_open = False
    for _, line in lines:
        shipped = money(line["shippedQuantity"]) + money(line["shipQuantity"])
        invoiced = money(line["invoicedQuantity"]) + money(line["invoiceQuantity"])
        left_to_ship, left_to_invoice = money(line["quantity"]) - shipped, money(line["quantity"]) - invoiced
        is_open = is_open or bool(left_to_invoice)
        row = {**line, "shippedQuantity": plain(shipped), "invoicedQuantity": plain(invoiced)}
        row |= {"shipQuantity": plain(left_to_ship), "invoiceQuantity": plain(left_to_invoice)}
        put_line(records, company, _ORDERS, {**row, "lastModifiedDateTime": records.now}, app)
    if not is_open:
        records.remove(company, _ORDERS.set, order["id"], app=app)
        return
    rest = [line for _, line in lines_of(records, company, _ORDERS, order["id"])]
    is_shipped = all(line["shippedQuantity"] == line["quantity"] for line in rest)
    put(records, company, _ORDERS, {**order, "fullyShipped": is_shipped}, app)


def _values(records: ErpRecords, company: str, kind: Document, row_id: str) -> Values:
    return records.rows(company, kind.set)[row_id].values


def _must_have_address(document: Values) -> None:
    if not document["email"]:
        raise refusal(
            "The send-to email is empty. Specify email either for the customer or for the document in email preview."
        )
