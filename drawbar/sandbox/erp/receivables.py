"""What Business Central's customers owe and have bought, worked out from their posted invoices; what vendors are owed.

Periods are of 30 days before today, by due date. Source: the product's report of aged accounts receivable.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from decimal import Decimal

from drawbar.sandbox.erp.amounts import money, plain
from drawbar.sandbox.erp.model import EMPTY_GUID, EntitySet
from drawbar.sandbox.erp.records import ErpRecords, SetRules
from drawbar.sandbox.store import Stored, Values

_PERIOD = 30  # days
_AMOUNTS = ("balanceDue", "currentAmount", "period1Amount", "period2Amount", "period3Amount")


def open_invoices(records: ErpRecords, company: str, customer_id: str) -> list[Values]:
    """Those that the customer is billed and has not paid, the first due first."""
    table = records.store.table(f"{company}/salesInvoices")
    rows = (table.rows[row_id].values for row_id in table.having("billToCustomerId", customer_id))
    return sorted((row for row in rows if row["status"] == "Open"), key=lambda row: (row["dueDate"], row["number"]))


class AgedReceivableRules(SetRules):
    def implied(self, records: ErpRecords, company: str) -> Iterable[Stored]:
        """A row for each customer, and their sum."""
        sums = dict.fromkeys(_AMOUNTS, Decimal(0))
        for stored in records.rows(company, "customers").values():
            row = _aged(records, company, stored.values)
            for name in _AMOUNTS:
                sums[name] += money(row[name])
            yield Stored(row, stored.version)
        total = {**_frame(records), "customerId": EMPTY_GUID, "customerNumber": "", "name": "Total", "currencyCode": ""}
        yield Stored({**total, **{name: plain(value) for name, value in sums.items()}}, 0)

    def implied_by(self, records: ErpRecords, company: str, entity_set: EntitySet, row_id: str) -> Stored | None:
        customer = records.rows(company, "customers").get(row_id)
        if customer is None:
            return super().implied_by(records, company, entity_set, row_id)
        return Stored(_aged(records, company, customer.values), customer.version)


class AgedPayableRules(SetRules):
    """No purchases are kept, so that what is owed to a vendor is current."""

    def implied(self, records: ErpRecords, company: str) -> Iterable[Stored]:
        whole = Decimal(0)
        for stored in records.rows(company, "vendors").values():
            vendor = stored.values
            whole += money(vendor["balance"])
            currency = vendor["currencyCode"] or records.local_currency(company)
            named = {"vendorId": vendor["id"], "vendorNumber": vendor["number"], "name": vendor["displayName"]}
            yield Stored({**_current(records, vendor["balance"]), **named, "currencyCode": currency}, stored.version)
        named = {"vendorId": EMPTY_GUID, "vendorNumber": "", "name": "Total", "currencyCode": ""}
        yield Stored({**_current(records, plain(whole)), **named}, 0)


def _current(records: ErpRecords, balance: float) -> Values:
    return {**_frame(records), **dict.fromkeys(_AMOUNTS, 0), "balanceDue": balance, "currentAmount": balance}


class CustomerSalesRules(SetRules):
    def implied(self, records: ErpRecords, company: str) -> Iterable[Stored]:
        for stored in records.rows(company, "customers").values():
            customer = stored.values
            row = {"customerId": customer["id"], "customerNumber": customer["number"], "name": customer["displayName"]}
            yield Stored({**row, "totalSalesAmount": customer.get("totalSalesExcludingTax", 0)}, stored.version)


def _aged(records: ErpRecords, company: str, customer: Values) -> Values:
    today = dt.date.fromisoformat(records.now[:10])
    amounts = dict.fromkeys(_AMOUNTS, Decimal(0))
    for invoice in open_invoices(records, company, customer["id"]):
        days = (today - dt.date.fromisoformat(invoice["dueDate"])).days
        period = "currentAmount" if days <= 0 else f"period{min(3, (days - 1) // _PERIOD + 1)}Amount"
        amounts[period] += money(invoice["remainingAmount"])
    balance = money(customer["balanceDue"])
    amounts["currentAmount"] += balance - sum(amounts.values(), Decimal(0))  # what no invoice is the cause of
    amounts["balanceDue"] = balance
    return {
        **_frame(records),
        "customerId": customer["id"],
        "customerNumber": customer["number"],
        "name": customer["displayName"],
        "currencyCode": customer["currencyCode"] or records.local_currency(company),
        **{name: plain(value) for name, value in amounts.items()},
    }


def _frame(records: ErpRecords) -> Values:
    """Today, and what the periods before it are called."""
    today = dt.date.fromisoformat(records.now[:10])
    first, second = (f"{today - dt.timedelta(days=_PERIOD * count):%m/%d/%y}" for count in (1, 2))
    return {
        "period1Label": f"{first}-{today:%m/%d/%y}",
        "period2Label": f"{second}-{first}",
        "period3Label": f"-{second}",
        "agedAsOfDate": today.isoformat(),
        "periodLengthFilter": f"{_PERIOD}D",
    }
