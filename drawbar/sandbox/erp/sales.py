"""Business Central's items and sales documents: what follows from a customer, an item, a quantity, a price.

Quotes, orders and invoices are one kind of thing in different sets; what becomes of them is in `erp/posting.py`.
Taxes come from the switch `tax_rates` (percent by tax code); a line of a customer who is liable to tax has the code
`TAXABLE`. Prices are the item's, in the order's currency at the rate of the order's day.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from drawbar.sandbox.erp.amounts import money, plain, rounded
from drawbar.sandbox.erp.date_formula import moved
from drawbar.sandbox.erp.dimensions import SHORTCUTS, assign_shortcut, defaults, take_dimensions
from drawbar.sandbox.erp.ledger import adjust_stock, has_entries
from drawbar.sandbox.erp.model import EMPTY_DATE, EMPTY_GUID, ErpError, invalid, refusal
from drawbar.sandbox.erp.records import ErpRecords, SetRules
from drawbar.sandbox.erp.units import follow_base_unit, settle_base_unit
from drawbar.sandbox.store import Values

TAXABLE = "TAXABLE"
_STEP = 10_000  # between the numbers of two lines
DRAFT = "Draft"
_POSTED = ("salesInvoices", "salesCreditMemos")  # sets of drafts and of what was posted


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A set of documents. `day`: the property that rates and terms go by; `word`: what messages call one."""

    set: str
    lines: str
    day: str
    word: str


DOCUMENTS: Mapping[str, Document] = {
    kind.set: kind
    for kind in (
        Document(set="salesQuotes", lines="salesQuoteLines", day="documentDate", word="Quote"),
        Document(set="salesOrders", lines="salesOrderLines", day="orderDate", word="Order"),
        Document(set="salesInvoices", lines="salesInvoiceLines", day="invoiceDate", word="Invoice"),
        Document(set="salesCreditMemos", lines="salesCreditMemoLines", day="creditMemoDate", word="Credit Memo"),
    )
}
_OF_LINES = {kind.lines: kind for kind in DOCUMENTS.values()}
_OBJECTS = {"Account": "accounts", "Item": "items", "Resource": "resources"}  # what a line can be of, and its set
_ADDRESS = {
    "AddressLine1": "addressLine1",
    "AddressLine2": "addressLine2",
    "City": "city",
    "State": "state",
    "Country": "country",
    "PostCode": "postalCode",
}


class ItemRules(SetRules):
    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:
        settle_base_unit(records, company, "items", row, before)
        if before is None and row["inventory"]:
            raise refusal("Inventory cannot be changed during on insert.")
        is_other_unit = before is not None and before["baseUnitOfMeasureId"] != row["baseUnitOfMeasureId"]
        if before is not None and is_other_unit and has_entries(records, company, before):
            raise refusal(
                f"You cannot change Base Unit of Measure because there are one or more item ledger entries for item"
                f" {row['number']}."
            )
        moved = money(row["inventory"]) - money(before["inventory"]) if before is not None else Decimal(0)
        if moved:
            adjust_stock(records, company, row, moved)

    def after(self, records: ErpRecords, company: str, before: Values | None, after: Values | None, app: str) -> None:
        """An item that is in a document stays; its variants and units go with it."""
        follow_base_unit(records, company, "items", before, after, app)
        if before is None or after is not None:
            return
        for kind in DOCUMENTS.values():
            if records.store.table(f"{company}/{kind.lines}").having("itemId", before["id"]):
                raise refusal(
                    f"You cannot delete Item {before['number']} because there is at least one outstanding Sales"
                    f" {kind.word} that includes this item."
                )
        if has_entries(records, company, before):
            raise refusal(
                f"You cannot delete Item {before['number']} because it has ledger entries in a fiscal year that has not"
                " been closed yet."
            )
        for row_id in records.store.table(f"{company}/itemVariants").having("itemId", before["id"]):
            records.remove(company, "itemVariants", row_id, app=app)


class ItemVariantRules(SetRules):
    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:  # noqa: ARG002
        if row["itemId"] == EMPTY_GUID:
            raise refusal('An "itemId" or an "itemNumber" must be provided.')


class DocumentRules(SetRules):
    def __init__(self, set_name: str) -> None:
        self._kind = DOCUMENTS[set_name]

    def assign(self, records: ErpRecords, company: str, row: Values, name: str, value: Any) -> None:
        row[name] = value
        if name in SHORTCUTS:
            assign_shortcut(records, company, row, name, value)
        elif name in ("customerId", "customerNumber") and row["customerId"] != EMPTY_GUID:
            _take_customer(row, records.rows(company, "customers")[row["customerId"]].values)
            take_dimensions(records, company, row, defaults(records, company, row["customerId"]))
        elif name in ("billToCustomerId", "billToCustomerNumber") and row["billToCustomerId"] != EMPTY_GUID:
            _address(row, "billTo", records.rows(company, "customers")[row["billToCustomerId"]].values)

    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:
        if row["customerId"] == EMPTY_GUID:
            raise refusal('A "customerNumber" or a "customerId" must be provided.')
        if before is None:
            customer = records.rows(company, "customers")[row["customerId"]].values
            if customer["blocked"] == "All":
                raise refusal(
                    f"You cannot create this type of document when Customer {customer['number']} is blocked with type"
                    " All"
                )
            row["status"] = DRAFT
            today = records.now[:10]
            for name in (self._kind.day, "postingDate"):
                row[name] = row[name] if row[name] > EMPTY_DATE else today
        elif not _is_due_date_alone(row, before) or records.switches["erp_posted_due_date"] == "refused":
            refuse_posted(self._kind, before)
        if "dueDate" in row and (before is None or before["paymentTermsId"] != row["paymentTermsId"]):
            is_said = before is None and row["dueDate"] > EMPTY_DATE
            row["dueDate"] = row["dueDate"] if is_said else due_date(records, company, row, row[self._kind.day])

    def after(self, records: ErpRecords, company: str, before: Values | None, after: Values | None, app: str) -> None:
        """Lines go with their document; a discount for the whole of it is spread over them. What was posted stays."""
        if before is None:
            return
        if after is None:
            refuse_posted(self._kind, before)
            for line_id, _ in lines_of(records, company, self._kind, before["id"]):
                records.store.remove(f"{company}/{self._kind.lines}", line_id, note=app)
        elif any(before.get(name) != after.get(name) for name in ("discountAmount", "pricesIncludeTax")):
            total(records, company, self._kind, after["id"], app)


class DocumentLineRules(SetRules):
    def __init__(self, set_name: str) -> None:
        self._kind = _OF_LINES[set_name]

    def assign(self, records: ErpRecords, company: str, row: Values, name: str, value: Any) -> None:
        row[name] = value
        if row["itemId"] != EMPTY_GUID and row["accountId"] != EMPTY_GUID:
            raise refusal('Both "itemId" and "accountId" are specified. Specify only one of them.')
        match name:
            case "itemId" if value != EMPTY_GUID:
                self._take_item(records, company, row, records.rows(company, "items")[value].values)
            case "accountId" if value != EMPTY_GUID:
                account = records.rows(company, "accounts").get(value)
                if account is None:
                    raise refusal("Account does not exist.")
                _take_account(row, account.values)
            case "lineType" | "lineObjectNumber" if row["lineObjectNumber"] and row["lineType"] != "Comment":
                self._take_object(records, company, row)
            case "quantity" if "shipQuantity" in row:
                row["shipQuantity"] = row["invoiceQuantity"] = value
            case "discountPercent" | "discountAmount":
                row["discountBy"] = name

    def _take_object(self, records: ErpRecords, company: str, row: Values) -> None:
        """What the number of a line is of: the line has the description, the unit and the price of that."""
        set_name = _OBJECTS.get(row["lineType"])
        if set_name is None:
            raise _no_object(row["lineType"], row["lineObjectNumber"])
        found = records.store.table(f"{company}/{set_name}").index("number").get(row["lineObjectNumber"])
        if found is None and row["lineType"] == "Resource":
            raise _no_object(row["lineType"], row["lineObjectNumber"])
        if found is None:
            raise refusal(f"{row['lineType']} does not exist.")
        taken = records.rows(company, set_name)[found].values
        match row["lineType"]:
            case "Account" if row["accountId"] != found:
                _take_account(row, taken)
            case "Resource":
                self._take_resource(records, company, row, taken)
            case "Item" if row["itemId"] != found:
                self._take_item(records, company, row, taken)

    def _take_item(self, records: ErpRecords, company: str, row: Values, item: Values) -> None:
        row["itemId"], row["lineType"], row["lineObjectNumber"] = item["id"], "Item", item["number"]
        row["description"], row["description2"] = item["displayName"], item["displayName2"]
        row["unitOfMeasureId"], row["unitOfMeasureCode"] = item["baseUnitOfMeasureId"], item["baseUnitOfMeasureCode"]
        row["unitPrice"] = self._price(records, company, row, item)

    def _take_resource(self, records: ErpRecords, company: str, row: Values, resource: Values) -> None:
        row["description"], row["description2"] = resource["displayName"], resource["displayName2"]
        unit = records.store.table(f"{company}/unitsOfMeasure").index("code").get(resource["baseUnitOfMeasureCode"])
        row["unitOfMeasureId"], row["unitOfMeasureCode"] = unit or EMPTY_GUID, resource["baseUnitOfMeasureCode"]
        row["unitPrice"] = self._price(records, company, row, resource)

    def _price(self, records: ErpRecords, company: str, row: Values, sold: Values) -> float | int:
        """In the currency of the line's document."""
        document = records.rows(company, self._kind.set).get(row["documentId"])
        factor = _factor(records, company, document.values, self._kind.day) if document else Decimal(1)
        return plain(rounded(money(sold["unitPrice"]) * factor))

    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:
        document = records.rows(company, self._kind.set).get(row["documentId"])
        if document is None:
            raise refusal("You must specify an Id or a Document Id to get the lines.")
        refuse_posted(self._kind, document.values)
        if before is None:
            taken = [line["sequence"] for _, line in lines_of(records, company, self._kind, row["documentId"])]
            if row["sequence"] in taken:
                raise ErpError(
                    400,
                    "Internal_EntityWithSameKeyExists",
                    f"The Sales Line already exists. Identification fields and values: Line No.='{row['sequence']}'",
                )
            row["sequence"] = row["sequence"] or max(taken, default=0) + _STEP
            own = defaults(records, company, row["itemId"])
            take_dimensions(records, company, row, {**document.values.get("dimensions", {}), **own})
            if not row["taxCode"] and row["lineObjectNumber"]:
                customer = records.rows(company, "customers").get(document.values["customerId"])
                row["taxCode"] = TAXABLE if customer and customer.values["taxLiable"] else ""
        row["taxPercent"] = plain(Decimal(str(records.switches["tax_rates"].get(row["taxCode"], 0))))
        calculate(row, prices_include_tax=document.values.get("pricesIncludeTax", False))

    def after(self, records: ErpRecords, company: str, before: Values | None, after: Values | None, app: str) -> None:
        """The document's totals are of its lines, and it has changed whenever one of them has."""
        document_id = (after or before or {})["documentId"]
        document = records.rows(company, self._kind.set).get(document_id)
        if document is None:
            return
        if after is None:  # one that stays was looked at before it was kept
            refuse_posted(self._kind, document.values)
        total(records, company, self._kind, document_id, app)


def _is_due_date_alone(row: Values, before: Values) -> bool:
    return all(value == before[name] for name, value in row.items() if name != "dueDate")


def _take_account(row: Values, account: Values) -> None:
    """Raises ErpError for an account that nothing is posted to directly."""
    where = f"G/L Account: No.={account['number']}"
    if account["accountType"] != "Posting":
        raise invalid(
            f"Account Type must be equal to 'Posting' in {where}. Current value is '{account['accountType']}'."
        )
    if not account["directPosting"]:
        raise invalid(f"Direct Posting must be equal to 'Yes' in {where}. Current value is 'No'.")
    row["accountId"], row["lineType"], row["lineObjectNumber"] = account["id"], "Account", account["number"]
    row["description"] = account["displayName"]


def refuse_posted(kind: Document, document: Values) -> None:
    """Raises ErpError for an invoice or a credit memo that is posted: only drafts can be changed or deleted."""
    if kind.set in _POSTED and document["status"] not in (DRAFT, "In_x0020_Review"):
        word = kind.word.lower()
        raise refusal(f"The {word} {document['number']} is posted: only drafts can be changed or deleted.")


def refuse_with_documents(records: ErpRecords, company: str, customer: Values) -> None:
    """Raises ErpError for a customer who has a document."""
    for kind in DOCUMENTS.values():
        if records.store.table(f"{company}/{kind.set}").having("customerId", customer["id"]):
            raise refusal(
                f"You cannot delete Customer {customer['number']} because there is at least one outstanding Sales"
                f" {kind.word} for this customer."
            )


def due_date(records: ErpRecords, company: str, document: Values, day: str) -> str:
    """By the formula of the payment terms: `1M`, `30D`, `CM+10D`; without terms the day itself."""
    terms = records.rows(company, "paymentTerms").get(document["paymentTermsId"])
    formula = str(terms.values["dueDateCalculation"]) if terms is not None else ""
    try:
        return moved(dt.date.fromisoformat(day), formula).isoformat()
    except (OverflowError, ValueError) as error:
        raise ErpError(400, "Application_DialogException", f"'{formula}' leads beyond the calendar.") from error


def total(records: ErpRecords, company: str, kind: Document, document_id: str, app: str) -> None:
    """Spread the discount over the lines and add them up; the document gets another version in any case."""
    document = records.rows(company, kind.set)[document_id].values
    lines = lines_of(records, company, kind, document_id)
    shares = _shares(money(document["discountAmount"]), [money(line["amountExcludingTax"]) for _, line in lines])
    sums = {"netAmount": Decimal(0), "netTaxAmount": Decimal(0), "netAmountIncludingTax": Decimal(0)}
    for (line_id, line), share in zip(lines, shares, strict=True):
        row = {**line, "invoiceDiscountAllocation": plain(share)}
        calculate(row, prices_include_tax=document.get("pricesIncludeTax", False))
        if row != line:
            row["lastModifiedDateTime"] = records.now
            records.store.put(f"{company}/{kind.lines}", line_id, row, note=app)
        for name in sums:
            sums[name] += money(row[name])
    summed = {
        **document,
        "totalAmountExcludingTax": plain(sums["netAmount"]),
        "totalTaxAmount": plain(sums["netTaxAmount"]),
        "totalAmountIncludingTax": plain(sums["netAmountIncludingTax"]),
        "lastModifiedDateTime": records.now,
    }
    records.store.put(f"{company}/{kind.set}", document_id, summed, note=app)


def lines_of(records: ErpRecords, company: str, kind: Document, document_id: str) -> list[tuple[str, Values]]:
    """Id and values of the lines of a document, in their order."""
    table = records.store.table(f"{company}/{kind.lines}")
    mine = [(row_id, table.rows[row_id].values) for row_id in table.having("documentId", document_id)]
    return sorted(mine, key=lambda entry: entry[1]["sequence"])


def _shares(discount: Decimal, amounts: list[Decimal]) -> list[Decimal]:
    """Parts of a discount in proportion to the amounts; the last one takes what rounding leaves."""
    whole = sum(amounts, Decimal(0))
    if not whole:
        return [Decimal(0) for _ in amounts]
    shares = [rounded(discount * amount / whole) for amount in amounts]
    shares[-1] += discount - sum(shares, Decimal(0))
    return shares


def _take_customer(row: Values, customer: Values) -> None:
    """What a document has of its customer until somebody says otherwise."""
    row["customerName"] = customer["displayName"]
    row["billToCustomerId"], row["billToCustomerNumber"] = customer["id"], customer["number"]
    for role in ("sellTo", "billTo", "shipTo"):
        _address(row, role, customer)
    for name in ("phoneNumber", "email", "currencyId", "currencyCode", "paymentTermsId", "shipmentMethodId"):
        row[name] = customer[name]
    row["salesperson"] = customer["salespersonCode"]
    if "partialShipping" in row:
        row["partialShipping"] = True


def _address(row: Values, role: str, customer: Values) -> None:
    if f"{role}Name" in row:
        row[f"{role}Name"] = customer["displayName"]
    for name, source in _ADDRESS.items():
        row[role + name] = customer[source]


def _factor(records: ErpRecords, company: str, document: Values, dated: str) -> Decimal:
    """Units of the document's currency for one of the local currency, on the document's day."""
    if not document["currencyCode"]:
        return Decimal(1)
    code, day = document["currencyCode"], document[dated]
    rows = (stored.values for stored in records.rows(company, "currencyExchangeRates").values())
    rates = [row for row in rows if row["currencyCode"] == code and row["startingDate"] <= day]
    rates = [row for row in rates if row["relationalExchangeRateAmount"]]
    if not rates:
        raise refusal(f"There is no Currency Exchange Rate for currency {code} on {day}.")
    rate = max(rates, key=lambda row: str(row["startingDate"]))
    return money(rate["exchangeRateAmount"]) / money(rate["relationalExchangeRateAmount"])


def calculate(row: Values, *, prices_include_tax: bool) -> None:
    gross = rounded(money(row["quantity"]) * money(row["unitPrice"]))
    if row.get("discountBy") == "discountAmount":
        discount = rounded(money(row["discountAmount"]))
        row["discountPercent"] = plain((discount * 100 / gross).quantize(Decimal("0.00001"))) if gross else 0
    else:
        discount = rounded(gross * money(row["discountPercent"]) / 100)
        row["discountAmount"] = plain(discount)
    tax = money(row["taxPercent"]) / 100
    amount = gross - discount
    excluding = rounded(amount / (1 + tax)) if prices_include_tax else amount
    net = excluding - money(row.get("invoiceDiscountAllocation", 0))
    for base, taxed, including, value in (
        ("amountExcludingTax", "totalTaxAmount", "amountIncludingTax", excluding),
        ("netAmount", "netTaxAmount", "netAmountIncludingTax", net),
    ):
        taxes = rounded(value * tax)
        row[base], row[taxed], row[including] = plain(value), plain(taxes), plain(value + taxes)


def _no_object(kind: str, number: str) -> ErpError:
    return ErpError(
        400,
        "Internal_RecordNotFound",
        f"The {kind} does not exist. Identification fields and values: No.='{number}'",
    )
