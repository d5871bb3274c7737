"""What becomes of Business Central's sales documents: a quote an order, an order a shipment and an invoice, and so on.

Bound actions of the API. Each works on rows within a transaction that has started, and gives back where the document
that it made is, if it made one. Posting moves stock and what customers owe; ledgers are not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

from drawbar.sandbox.erp_parts import carry_files
from drawbar.sandbox.erp_records import ErpRecords
from drawbar.sandbox.erp_sales import (
    DOCUMENTS,
    DRAFT,
    Document,
    calculate,
    dialog,
    due_date,
    lines_of,
    money,
    plain,
    total,
)
from drawbar.sandbox.store import Values

Made = tuple[str, str]  # set and id
Action = Callable[[ErpRecords, str, str, str], "Made | None"]  # records, company, id of the document, application

OPEN, PAID, CANCELED = "Open", "Paid", "Canceled"  # of an invoice, once it is posted
_QUOTES, _ORDERS, _INVOICES = (DOCUMENTS[name] for name in ("salesQuotes", "salesOrders", "salesInvoices"))
_SHIPMENTS = Document(set="salesShipments", lines="salesShipmentLines", day="postingDate", word="Shipment")
_HIDDEN = ("discountBy", "dimensions", "dimension1Id", "dimension2Id")  # what no page shows of a row
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
    return _turn_into(records, company, quote_id, _INVOICES, app)


def send_quote(records: ErpRecords, company: str, quote_id: str, app: str) -> None:
    quote = _values(records, company, _QUOTES, quote_id)
    _must_have_address(quote)
    _put(records, company, _QUOTES, {**quote, "status": "Sent", "sentDate": records.now}, app)


def ship_and_invoice(records: ErpRecords, company: str, order_id: str, app: str) -> Made:
    """Ships and invoices what the lines say. An order of which nothing is left is gone."""
    order = _values(records, company, _ORDERS, order_id)
    lines = lines_of(records, company, _ORDERS, order_id)
    shipped = [(line, money(line["shipQuantity"])) for _, line in lines if line["shipQuantity"]]
    invoiced = [(line, money(line["invoiceQuantity"])) for _, line in lines if line["invoiceQuantity"]]
    if not shipped and not invoiced:
        raise dialog("There is nothing to post because the document does not contain a quantity or amount.")
    for line, quantity in invoiced:
        if money(line["invoicedQuantity"]) + quantity > money(line["shippedQuantity"]) + money(line["shipQuantity"]):
            raise dialog(f"You cannot invoice more than what is shipped: line {line['sequence']}.")
    made: Made = (_ORDERS.set, order_id)
    if shipped:
        made = _ship(records, company, order, shipped, app)
    if invoiced:
        made = _invoice(records, company, order, invoiced, app)
    _settle_order(records, company, order, lines, app)
    return made


def post(records: ErpRecords, company: str, invoice_id: str, app: str) -> None:
    """The draft gets the number of a posted invoice, and keeps its id."""
    draft = _values(records, company, _INVOICES, invoice_id)
    if draft["status"] != DRAFT:
        raise dialog(f"The invoice {draft['number']} is posted already.")
    lines = lines_of(records, company, _INVOICES, invoice_id)
    if not any(line["quantity"] for _, line in lines):
        raise dialog("There is nothing to post because the document does not contain a quantity or amount.")
    _post(records, company, draft, [line for _, line in lines], app, ships=True)


def post_and_send(records: ErpRecords, company: str, invoice_id: str, app: str) -> None:
    _must_have_address(_values(records, company, _INVOICES, invoice_id))
    post(records, company, invoice_id, app)


def send_invoice(records: ErpRecords, company: str, invoice_id: str, app: str) -> None:
    """A mail: nothing of it is in the rows. A draft is sent as it is."""
    del app
    _must_have_address(_values(records, company, _INVOICES, invoice_id))


def cancel(records: ErpRecords, company: str, invoice_id: str, app: str) -> None:
    """Takes a posted invoice back that nobody paid: stock and debt are as before."""
    invoice = _values(records, company, _INVOICES, invoice_id)
    if invoice["status"] != OPEN:
        raise dialog(f"You cannot cancel the invoice {invoice['number']}: it is not posted, paid or canceled already.")
    lines = [line for _, line in lines_of(records, company, _INVOICES, invoice_id)]
    _move_stock(records, company, [(line, -money(line["quantity"])) for line in lines], app)
    _owe(records, company, invoice, -money(invoice["remainingAmount"]), app)
    _put(records, company, _INVOICES, {**invoice, "status": CANCELED, "remainingAmount": 0}, app)


def cancel_and_send(records: ErpRecords, company: str, invoice_id: str, app: str) -> None:
    _must_have_address(_values(records, company, _INVOICES, invoice_id))
    cancel(records, company, invoice_id, app)


ACTIONS: Mapping[tuple[str, str], Action] = {
    ("salesQuotes", "makeOrder"): make_order,
    ("salesQuotes", "makeInvoice"): make_invoice,
    ("salesQuotes", "send"): send_quote,
    ("salesOrders", "shipAndInvoice"): ship_and_invoice,
    ("salesInvoices", "post"): post,
    ("salesInvoices", "postAndSend"): post_and_send,
    ("salesInvoices", "send"): send_invoice,
    ("salesInvoices", "cancel"): cancel,
    ("salesInvoices", "cancelAndSend"): cancel_and_send,
}


# --- steps --------------------------------------------------------------------------------------------------------


def _turn_into(records: ErpRecords, company: str, quote_id: str, kind: Document, app: str) -> Made:
    quote = _values(records, company, _QUOTES, quote_id)
    customer = records.rows(company, "customers").get(quote["customerId"])
    if customer is not None and customer.values["blocked"] == "All":
        raise dialog(f"You cannot create this type of document when Customer {quote['customerNumber']} is blocked.")
    made = _copy_of(records, company, quote, kind)
    made[kind.day] = records.now[:10]
    if "dueDate" in made:
        made["dueDate"] = due_date(records, company, made, made[kind.day])
    _put(records, company, kind, made, app)
    for _, line in lines_of(records, company, _QUOTES, quote_id):
        copied = {**_like(records, kind.lines, line), "id": records.store.new_id(), "documentId": made["id"]}
        if "shipQuantity" in copied:
            copied["shipQuantity"] = copied["invoiceQuantity"] = line["quantity"]
        _put_line(records, company, kind, copied, app)
    total(records, company, kind, made["id"], app)
    carry_files(records, company, quote_id, records.sets[kind.set], made["id"], app)
    records.remove(company, _QUOTES.set, quote_id, app=app)
    return kind.set, made["id"]


def _ship(records: ErpRecords, company: str, order: Values, shipped: list[tuple[Values, Decimal]], app: str) -> Made:
    made = _copy_of(records, company, order, _SHIPMENTS)
    for name, set_name in (("paymentTerms", "paymentTerms"), ("shipmentMethod", "shipmentMethods")):
        found = records.rows(company, set_name).get(order[f"{name}Id"])
        made[f"{name}Code"] = found.values["code"] if found is not None else ""
    made["orderNumber"], made["invoiceDate"] = order["number"], order["orderDate"]
    made["dueDate"] = due_date(records, company, order, order["orderDate"])
    _put(records, company, _SHIPMENTS, made, app)
    for line, quantity in shipped:
        copied = _like(records, _SHIPMENTS.lines, line)
        kind = _KINDS_OF_LINES.get(line["lineType"], line["lineType"])
        copied |= {"id": records.store.new_id(), "documentId": made["id"], "documentNo": made["number"]}
        _put_line(records, company, _SHIPMENTS, {**copied, "lineType": kind, "quantity": plain(quantity)}, app)
    _move_stock(records, company, shipped, app)
    return _SHIPMENTS.set, made["id"]


def _invoice(
    records: ErpRecords, company: str, order: Values, invoiced: list[tuple[Values, Decimal]], app: str
) -> Made:
    made = _copy_of(records, company, order, _INVOICES)
    made |= {
        "orderId": order["id"],
        "orderNumber": order["number"],
        "invoiceDate": order["postingDate"],
    }
    made["dueDate"] = due_date(records, company, made, made["invoiceDate"])
    _put(records, company, _INVOICES, made, app)
    for line, quantity in invoiced:
        copied = {**_like(records, _INVOICES.lines, line), "id": records.store.new_id(), "documentId": made["id"]}
        copied["quantity"] = plain(quantity)
        calculate(copied, prices_include_tax=order["pricesIncludeTax"])
        _put_line(records, company, _INVOICES, copied, app)
    total(records, company, _INVOICES, made["id"], app)
    carry_files(records, company, order["id"], records.sets[_INVOICES.set], made["id"], app)
    draft = _values(records, company, _INVOICES, made["id"])
    lines = [line for _, line in lines_of(records, company, _INVOICES, made["id"])]
    _post(records, company, draft, lines, app, ships=False)
    return _INVOICES.set, made["id"]


def _post(records: ErpRecords, company: str, draft: Values, lines: list[Values], app: str, *, ships: bool) -> None:
    if ships:
        _move_stock(records, company, [(line, money(line["quantity"])) for line in lines], app)
    owed = money(draft["totalAmountIncludingTax"])
    number = records.next_number(company, records.sets[_INVOICES.set], series="postedInvoice")
    posted = {"number": number, "status": OPEN if owed else PAID, "remainingAmount": plain(owed)}
    _put(records, company, _INVOICES, {**draft, **posted}, app)
    _owe(records, company, draft, owed, app)


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
        _put_line(records, company, _ORDERS, {**row, "lastModifiedDateTime": records.now}, app)
    if not is_open:
        records.remove(company, _ORDERS.set, order["id"], app=app)
        return
    rest = [line for _, line in lines_of(records, company, _ORDERS, order["id"])]
    is_shipped = all(line["shippedQuantity"] == line["quantity"] for line in rest)
    _put(records, company, _ORDERS, {**order, "fullyShipped": is_shipped}, app)


def _move_stock(records: ErpRecords, company: str, out: list[tuple[Values, Decimal]], app: str) -> None:
    """Goods leave; a calculated field moves, which is no change of the item."""
    for line, quantity in out:
        item = records.rows(company, "items").get(line.get("itemId", ""))
        if item is not None and item.values["type"] == "Inventory":
            left = plain(money(item.values["inventory"]) - quantity)
            row = {**item.values, "inventory": left}
            records.store.put(f"{company}/items", row["id"], row, note=app, silent=True)


def _owe(records: ErpRecords, company: str, invoice: Values, amount: Decimal, app: str) -> None:
    """What the customer owes, in the local currency; a calculated field moves."""
    customer = records.rows(company, "customers").get(invoice["billToCustomerId"])
    if customer is None:
        return
    excluding = money(invoice["totalAmountExcludingTax"]) * (1 if amount > 0 else -1 if amount < 0 else 0)
    row = {
        **customer.values,
        "balanceDue": plain(money(customer.values["balanceDue"]) + amount),
        "totalSalesExcludingTax": plain(money(customer.values.get("totalSalesExcludingTax", 0)) + excluding),
    }
    records.store.put(f"{company}/customers", row["id"], row, note=app, silent=True)


# --- rows ---------------------------------------------------------------------------------------------------------


def _values(records: ErpRecords, company: str, kind: Document, row_id: str) -> Values:
    return records.rows(company, kind.set)[row_id].values


def _like(records: ErpRecords, set_name: str, source: Values) -> Values:
    """A row of a set that has of another row what both have."""
    row = records.blank_row(set_name)
    shared = {name: value for name, value in source.items() if name in row or name in _HIDDEN}
    return {**row, **shared, "lastModifiedDateTime": records.now}


def _copy_of(records: ErpRecords, company: str, source: Values, kind: Document) -> Values:
    """A new document with a number of its own."""
    row = _like(records, kind.set, source)
    row |= {"id": records.store.new_id(), "number": records.next_number(company, records.sets[kind.set])}
    if "status" in row:
        row["status"] = DRAFT
    return row


def _put(records: ErpRecords, company: str, kind: Document, row: Values, app: str) -> None:
    row = {**row, "lastModifiedDateTime": records.now}
    records.store.put(f"{company}/{kind.set}", row["id"], row, note=app)


def _put_line(records: ErpRecords, company: str, kind: Document, row: Values, app: str) -> None:
    records.store.put(f"{company}/{kind.lines}", row["id"], row, note=app)


def _must_have_address(document: Values) -> None:
    if not document["email"]:
        raise dialog(f"The document {document['number']} has no email address to send it to.")
