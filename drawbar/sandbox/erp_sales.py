"""Business Central's items and sales orders: what follows from a customer, an item, a quantity, a price.

Taxes come from the switch `tax_rates` (percent by tax code); a line of a customer who is liable to tax has the code
`TAXABLE`. Prices are the item's, in the order's currency at the rate of the order's day.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from drawbar.sandbox.erp_model import EMPTY_GUID, HIGHEST, ErpError, overflow
from drawbar.sandbox.erp_records import ErpRecords, SetRules
from drawbar.sandbox.store import Values

TAXABLE = "TAXABLE"
_STEP = 10_000  # between the numbers of two lines
_ADDRESS = {
    "AddressLine1": "addressLine1",
    "AddressLine2": "addressLine2",
    "City": "city",
    "State": "state",
    "Country": "country",
    "PostCode": "postalCode",
}


class ItemRules(SetRules):
    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:  # noqa: ARG002
        if before is None and row["inventory"]:
            raise _dialog("Inventory cannot be changed during on insert.")
        if before is not None and before["inventory"] and before["baseUnitOfMeasureId"] != row["baseUnitOfMeasureId"]:
            raise _dialog(
                f"You cannot change Base Unit of Measure because there are one or more item ledger entries for item"
                f" {row['number']}."
            )

    def after(self, records: ErpRecords, company: str, before: Values | None, after: Values | None, app: str) -> None:
        """An item that is ordered stays; its variants go with it."""
        if before is None or after is not None:
            return
        if records.store.table(f"{company}/salesOrderLines").having("itemId", before["id"]):
            raise _dialog(
                f"You cannot delete Item {before['number']} because there is at least one outstanding Sales Order that"
                " includes this item."
            )
        for row_id in records.store.table(f"{company}/itemVariants").having("itemId", before["id"]):
            records.remove(company, "itemVariants", row_id, app=app)


class ItemVariantRules(SetRules):
    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:  # noqa: ARG002
        if row["itemId"] == EMPTY_GUID:
            raise _dialog('An "itemId" or an "itemNumber" must be provided.')


class SalesOrderRules(SetRules):
    def assign(self, records: ErpRecords, company: str, row: Values, name: str, value: Any) -> None:
        row[name] = value
        if name in ("customerId", "customerNumber") and row["customerId"] != EMPTY_GUID:
            _take_customer(row, records.rows(company, "customers")[row["customerId"]].values)
        elif name in ("billToCustomerId", "billToCustomerNumber") and row["billToCustomerId"] != EMPTY_GUID:
            _address(row, "billTo", records.rows(company, "customers")[row["billToCustomerId"]].values)

    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:
        if row["customerId"] == EMPTY_GUID:
            raise _dialog('A "customerNumber" or a "customerId" must be provided.')
        if before is None:
            customer = records.rows(company, "customers")[row["customerId"]].values
            if customer["blocked"] == "All":
                raise _dialog(
                    f"You cannot create this type of document when Customer {customer['number']} is blocked with type"
                    " All"
                )
            today = records.now[:10]
            for name in ("orderDate", "postingDate"):
                row[name] = row[name] if row[name] > "0001-01-01" else today

    def after(self, records: ErpRecords, company: str, before: Values | None, after: Values | None, app: str) -> None:
        """Lines go with their order; a discount for the whole of it is spread over them."""
        if before is None:
            return
        if after is None:
            for line_id, _ in _lines(records, company, before["id"]):
                records.store.remove(f"{company}/salesOrderLines", line_id, note=app)
        elif any(before[name] != after[name] for name in ("discountAmount", "pricesIncludeTax")):
            total_order(records, company, after["id"], app)


class SalesOrderLineRules(SetRules):
    def assign(self, records: ErpRecords, company: str, row: Values, name: str, value: Any) -> None:
        row[name] = value
        if row["itemId"] != EMPTY_GUID and row["accountId"] != EMPTY_GUID:
            raise _dialog('Both "itemId" and "accountId" are specified. Specify only one of them.')
        match name:
            case "itemId" if value != EMPTY_GUID:
                _take_item(records, company, row, records.rows(company, "items")[value].values)
            case "accountId" if value != EMPTY_GUID:
                raise _no_object("Account", value)
            case "lineType" | "lineObjectNumber" if row["lineObjectNumber"] and row["lineType"] != "Comment":
                self._take_object(records, company, row)
            case "quantity":
                row["shipQuantity"] = row["invoiceQuantity"] = value
            case "discountPercent" | "discountAmount":
                row["discountBy"] = name

    @staticmethod
    def _take_object(records: ErpRecords, company: str, row: Values) -> None:
        if row["lineType"] != "Item":
            raise _no_object(row["lineType"], row["lineObjectNumber"])
        item_id = records.store.table(f"{company}/items").index("number").get(row["lineObjectNumber"])
        if item_id is None:
            raise _dialog("Item does not exist.")
        if row["itemId"] != item_id:
            _take_item(records, company, row, records.rows(company, "items")[item_id].values)

    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:
        order = records.rows(company, "salesOrders").get(row["documentId"])
        if order is None:
            raise _dialog("You must specify an Id or a Document Id to get the lines.")
        if before is None:
            taken = [line["sequence"] for _, line in _lines(records, company, row["documentId"])]
            if row["sequence"] in taken:
                raise ErpError(
                    400,
                    "Internal_EntityWithSameKeyExists",
                    f"The Sales Line already exists. Identification fields and values: Line No.='{row['sequence']}'",
                )
            row["sequence"] = row["sequence"] or max(taken, default=0) + _STEP
            if not row["taxCode"] and row["itemId"] != EMPTY_GUID:
                customer = records.rows(company, "customers").get(order.values["customerId"])
                row["taxCode"] = TAXABLE if customer and customer.values["taxLiable"] else ""
        row["taxPercent"] = _plain(Decimal(str(records.switches.tax_rates.get(row["taxCode"], 0))))
        _calculate(row, prices_include_tax=order.values["pricesIncludeTax"])

    def after(self, records: ErpRecords, company: str, before: Values | None, after: Values | None, app: str) -> None:
        """The order's totals are of its lines, and it has changed whenever one of them has."""
        order_id = (after or before or {})["documentId"]
        if order_id in records.rows(company, "salesOrders"):
            total_order(records, company, order_id, app)


def refuse_with_orders(records: ErpRecords, company: str, customer: Values) -> None:
    if records.store.table(f"{company}/salesOrders").having("customerId", customer["id"]):
        raise _dialog(
            f"You cannot delete Customer {customer['number']} because there is at least one outstanding Sales Order for"
            " this customer."
        )


def total_order(records: ErpRecords, company: str, order_id: str, app: str) -> None:
    """Spread the discount over the lines and add them up; the order gets another version in any case."""
    order = records.rows(company, "salesOrders")[order_id].values
    lines = _lines(records, company, order_id)
    shares = _shares(_money(order["discountAmount"]), [_money(line["amountExcludingTax"]) for _, line in lines])
    sums = {"netAmount": Decimal(0), "netTaxAmount": Decimal(0), "netAmountIncludingTax": Decimal(0)}
    for (line_id, line), share in zip(lines, shares, strict=True):
        row = {**line, "invoiceDiscountAllocation": _plain(share)}
        _calculate(row, prices_include_tax=order["pricesIncludeTax"])
        if row != line:
            row["lastModifiedDateTime"] = records.now
            records.store.put(f"{company}/salesOrderLines", line_id, row, note=app)
        for name in sums:
            sums[name] += _money(row[name])
    total = {
        **order,
        "totalAmountExcludingTax": _plain(sums["netAmount"]),
        "totalTaxAmount": _plain(sums["netTaxAmount"]),
        "totalAmountIncludingTax": _plain(sums["netAmountIncludingTax"]),
        "lastModifiedDateTime": records.now,
    }
    records.store.put(f"{company}/salesOrders", order_id, total, note=app)


def _lines(records: ErpRecords, company: str, order_id: str) -> list[tuple[str, Values]]:
    table = records.store.table(f"{company}/salesOrderLines")
    mine = [(row_id, table.rows[row_id].values) for row_id in table.having("documentId", order_id)]
    return sorted(mine, key=lambda entry: entry[1]["sequence"])


def _shares(discount: Decimal, amounts: list[Decimal]) -> list[Decimal]:
    """Parts of a discount in proportion to the amounts; the last one takes what rounding leaves."""
    whole = sum(amounts, Decimal(0))
    if not whole:
        return [Decimal(0) for _ in amounts]
    shares = [_rounded(discount * amount / whole) for amount in amounts]
    shares[-1] += discount - sum(shares, Decimal(0))
    return shares


def _take_customer(row: Values, customer: Values) -> None:
    """What an order has of its customer until somebody says otherwise."""
    row["customerName"] = customer["displayName"]
    row["billToCustomerId"], row["billToCustomerNumber"] = customer["id"], customer["number"]
    for role in ("sellTo", "billTo", "shipTo"):
        _address(row, role, customer)
    for name in ("phoneNumber", "email", "currencyId", "currencyCode", "paymentTermsId", "shipmentMethodId"):
        row[name] = customer[name]
    row["salesperson"] = customer["salespersonCode"]
    row["partialShipping"] = True


def _address(row: Values, role: str, customer: Values) -> None:
    if f"{role}Name" in row:
        row[f"{role}Name"] = customer["displayName"]
    for name, source in _ADDRESS.items():
        row[role + name] = customer[source]


def _take_item(records: ErpRecords, company: str, row: Values, item: Values) -> None:
    row["itemId"], row["lineType"], row["lineObjectNumber"] = item["id"], "Item", item["number"]
    row["description"], row["description2"] = item["displayName"], item["displayName2"]
    row["unitOfMeasureId"], row["unitOfMeasureCode"] = item["baseUnitOfMeasureId"], item["baseUnitOfMeasureCode"]
    order = records.rows(company, "salesOrders").get(row["documentId"])
    factor = _factor(records, company, order.values) if order else Decimal(1)
    row["unitPrice"] = _plain(_rounded(_money(item["unitPrice"]) * factor))


def _factor(records: ErpRecords, company: str, order: Values) -> Decimal:
    """Units of the order's currency for one of the local currency, on the order's day."""
    if not order["currencyCode"]:
        return Decimal(1)
    code, day = order["currencyCode"], order["orderDate"]
    rows = (stored.values for stored in records.rows(company, "currencyExchangeRates").values())
    rates = [row for row in rows if row["currencyCode"] == code and row["startingDate"] <= day]
    rates = [row for row in rates if row["relationalExchangeRateAmount"]]
    if not rates:
        raise _dialog(f"There is no Currency Exchange Rate for currency {code} on {day}.")
    rate = max(rates, key=lambda row: str(row["startingDate"]))
    return _money(rate["exchangeRateAmount"]) / _money(rate["relationalExchangeRateAmount"])


def _calculate(row: Values, *, prices_include_tax: bool) -> None:
    gross = _rounded(_money(row["quantity"]) * _money(row["unitPrice"]))
    if row.get("discountBy") == "discountAmount":
        discount = _rounded(_money(row["discountAmount"]))
        row["discountPercent"] = _plain((discount * 100 / gross).quantize(Decimal("0.00001"))) if gross else 0
    else:
        discount = _rounded(gross * _money(row["discountPercent"]) / 100)
        row["discountAmount"] = _plain(discount)
    tax = _money(row["taxPercent"]) / 100
    amount = gross - discount
    excluding = _rounded(amount / (1 + tax)) if prices_include_tax else amount
    net = excluding - _money(row["invoiceDiscountAllocation"])
    for base, taxed, including, value in (
        ("amountExcludingTax", "totalTaxAmount", "amountIncludingTax", excluding),
        ("netAmount", "netTaxAmount", "netAmountIncludingTax", net),
    ):
        taxes = _rounded(value * tax)
        row[base], row[taxed], row[including] = _plain(value), _plain(taxes), _plain(value + taxes)


def _money(value: Any) -> Decimal:
    return Decimal(str(value))


def _rounded(value: Decimal) -> Decimal:
    if abs(value) >= HIGHEST:
        raise overflow(value)
    return value.quantize(Decimal("0.01"), ROUND_HALF_UP)


def _plain(value: Decimal) -> float | int:
    """A number as JSON has it, without trailing zeros."""
    return int(value) if value == value.to_integral_value() else float(value)


def _dialog(text: str) -> ErpError:
    return ErpError(400, "Application_DialogException", text)


def _no_object(kind: str, number: str) -> ErpError:
    return ErpError(
        400,
        "Internal_RecordNotFound",
        f"The {kind} does not exist. Identification fields and values: No.='{number}'",
    )
