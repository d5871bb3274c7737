"""Business Central's ledgers: the entries that posting leaves behind. Nobody writes them, and none is taken back.

Ids follow from the company and the number of the entry. A company without a chart of accounts keeps no general ledger.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from decimal import Decimal

from drawbar.sandbox.erp.amounts import money, plain
from drawbar.sandbox.erp.model import escape
from drawbar.sandbox.erp.records import ErpRecords
from drawbar.sandbox.store import Stored, Values

# Numbers of accounts, as the set-up of a company has them.
RECEIVABLES, INVENTORY, SALES_TAX = "10400", "10700", "22300"
SALES, SALES_OF_SERVICES, COST_OF_GOODS = "40100", "40200", "50100"


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """What posts: entries bear its type (as the ledger calls it), number and day, and what they are for."""

    type: str
    number: str
    day: str
    text: str
    customer: str = ""  # its number
    dimensions: dict[str, str] = field(default_factory=dict)


def post_amounts(
    records: ErpRecords, company: str, posting: Posting, amounts: list[tuple[str, Decimal]], app: str
) -> None:
    """Entries of the general ledger, by number of account: a positive amount is a debit. Together they are nothing."""
    accounts = records.store.table(f"{company}/accounts").index("number")
    if not accounts:
        return
    summed: dict[str, Decimal] = {}
    for number, amount in amounts:
        summed[number] = summed.get(number, Decimal(0)) + amount
    for number, amount in summed.items():
        if not amount:
            continue
        account = records.rows(company, "accounts")[accounts[number]].values
        _add(
            records,
            company,
            "generalLedgerEntries",
            {
                "postingDate": posting.day,
                "documentNumber": posting.number,
                "documentType": escape(posting.type),
                "accountId": account["id"],
                "accountNumber": number,
                "description": posting.text[:100],
                "debitAmount": plain(max(amount, Decimal(0))),
                "creditAmount": plain(max(-amount, Decimal(0))),
                **({"dimensions": posting.dimensions} if posting.dimensions else {}),
            },
            app,
        )
        moved = {**account, "netChange": plain(money(account["netChange"]) + amount)}
        records.store.put(f"{company}/accounts", account["id"], moved, note=app, silent=True)


def post_stock(
    records: ErpRecords,
    company: str,
    posting: Posting,
    item: Values,
    quantity: Decimal,
    app: str,
    *,
    entry_type: str = "Sale",
    order_line: str = "",
    sales: Decimal | None = None,
) -> None:
    """An entry of the item ledger, and what is on hand. `sales`: what was invoiced for it; None: nothing yet."""
    _add(
        records,
        company,
        "itemLedgerEntries",
        {
            "itemNumber": item["number"],
            "postingDate": posting.day,
            "entryType": escape(entry_type),
            "sourceNumber": posting.customer,
            "sourceType": "Customer" if posting.customer else "_x0020_",
            "documentNumber": posting.number,
            "documentType": escape(posting.type),
            "description": posting.text[:100],
            "quantity": plain(quantity),
            "salesAmountActual": plain(sales or Decimal(0)),
            "costAmountActual": plain(quantity * money(item["unitCost"])) if sales is not None else 0,
            "orderLine": order_line,
            "uninvoiced": plain(-quantity) if sales is None else 0,
        },
        app,
    )
    row = {**item, "inventory": plain(money(item["inventory"]) + quantity)}
    records.store.put(f"{company}/items", row["id"], row, note=app, silent=True)


def adjust_stock(records: ErpRecords, company: str, item: Values, moved: Decimal) -> None:
    """An entry for what somebody counted; the item shows it already."""
    values = {
        "itemNumber": item["number"],
        "postingDate": records.now[:10],
        "entryType": escape("Positive Adjmt." if moved > 0 else "Negative Adjmt."),
        "sourceType": "_x0020_",
        "documentType": "_x0020_",
        "documentNumber": "T" + records.now[:10].replace("-", ""),
        "description": item["displayName"],
        "quantity": plain(moved),
        "costAmountActual": plain(moved * money(item["unitCost"])),
    }
    _add(records, company, "itemLedgerEntries", values, "")


def has_entries(records: ErpRecords, company: str, item: Values) -> bool:
    """Whether an item was ever moved."""
    moved = records.store.table(f"{company}/itemLedgerEntries").having("itemNumber", item["number"])
    return bool(moved or item["inventory"])


def invoice_stock(
    records: ErpRecords, company: str, order_line: str, quantity: Decimal, sales: Decimal, app: str
) -> None:
    """What was shipped of an order's line is invoiced: the first shipped first, the amount in proportion."""
    table = records.store.table(f"{company}/itemLedgerEntries")
    numbers = records.store.table(f"{company}/items").index("number")
    left = quantity
    for row_id in table.having("orderLine", order_line):
        entry = table.rows[row_id].values
        taken = min(left, money(entry["uninvoiced"]))
        if taken <= 0:
            continue
        item = records.rows(company, "items")[numbers[entry["itemNumber"]]]
        amount = (sales * taken / quantity).quantize(Decimal("0.01"))
        row = {
            **entry,
            "uninvoiced": plain(money(entry["uninvoiced"]) - taken),
            "salesAmountActual": plain(money(entry["salesAmountActual"]) + amount),
            "costAmountActual": plain(money(entry["costAmountActual"]) - taken * money(item.values["unitCost"])),
        }
        records.store.put(f"{company}/itemLedgerEntries", row_id, row, note=app, silent=True)
        left -= taken


def _add(records: ErpRecords, company: str, set_name: str, values: Values, app: str) -> Stored:
    number = len(records.rows(company, set_name)) + 1
    row_id = str(uuid.uuid5(uuid.UUID(company), f"{set_name} {number}"))
    row = {**records.blank_row(set_name), **values, "id": row_id, "entryNumber": number}
    return records.store.put(f"{company}/{set_name}", row_id, {**row, "lastModifiedDateTime": records.now}, note=app)
