"""Business Central's sales documents as PDF, and what a customer owes as a statement."""

from __future__ import annotations

from drawbar.sandbox import pdf
from drawbar.sandbox.erp.amounts import money
from drawbar.sandbox.erp.model import EntitySet, unescape
from drawbar.sandbox.erp.parts import PartRules, address
from drawbar.sandbox.erp.receivables import open_invoices
from drawbar.sandbox.erp.records import ErpRecords
from drawbar.sandbox.store import Stored, Values

_AMOUNTS = (
    ("Subtotal", "totalAmountExcludingTax"),
    ("Tax", "totalTaxAmount"),
    ("Total", "totalAmountIncludingTax"),
    ("Remaining amount", "remainingAmount"),
)
_DATES = (
    ("Date", ("orderDate", "documentDate", "invoiceDate", "creditMemoDate")),
    ("Due date", ("dueDate",)),
    ("Your reference", ("customerPurchaseOrderReference", "externalDocumentNumber")),
)


class PdfDocumentRules(PartRules):
    def of(self, records: ErpRecords, company: str, owner: EntitySet, stored: Stored) -> list[Stored]:  # noqa: ARG002
        values: Values = {
            "id": stored.values["id"],
            "parentId": stored.values["id"],
            "parentType": owner.kind,
            "address": address(owner, stored.values, "pdfDocument"),
        }
        return [Stored(values, stored.version)]

    def content(self, records: ErpRecords, company: str, owner: EntitySet, row: Values) -> bytes:
        if "customerName" in row and "customerId" in row and "number" not in row:
            return _statement(records, company, row)
        name = f"{unescape(owner.kind)} {row['number']}"
        return pdf.written(_document(records, company, owner, row, name), title=name)


def _document(records: ErpRecords, company: str, owner: EntitySet, row: Values, name: str) -> list[str]:
    currency = row["currencyCode"] or records.local_currency(company)
    lines = [*_letterhead(records, company), name, ""]
    lines += [f"{row['customerNumber']}  {row['customerName']}", *_address(row, "sellTo"), ""]
    for label, names in _DATES:
        value = next((row[name] for name in names if row.get(name)), "")
        lines += [f"{label}: {value}"] if value else []
    set_name, parent = owner.collections[f"{owner.entity}Lines"]
    table = records.store.table(f"{company}/{set_name}")
    kept = sorted((table.rows[each].values for each in table.having(parent, row["id"])), key=lambda r: r["sequence"])
    lines += ["", f"{'No.':<14}{'Description':<42}{'Quantity':>12}{'Unit price':>14}{'Amount':>14}"]
    for line in kept:
        number, text = line["lineObjectNumber"][:13], line["description"][:41]
        amount = f"{money(line['netAmount']):.2f}" if "netAmount" in line else ""
        price = f"{money(line['unitPrice']):.2f}"
        lines.append(f"{number:<14}{text:<42}{line['quantity']:>12}{price:>14}{amount:>14}")
    lines.append("")
    for label, column in _AMOUNTS:
        if column in row:
            lines.append(f"{label} {currency}:".rjust(82) + f"{money(row[column]):.2f}".rjust(14))
    return lines


def _statement(records: ErpRecords, company: str, row: Values) -> bytes:
    name = f"Customer Statement {row['customerName']}"
    lines = [*_letterhead(records, company), name, f"As of {records.now[:10]}", ""]
    lines.append(f"{'Invoice':<20}{'Date':<14}{'Due date':<14}{'Remaining amount':>20}")
    for invoice in open_invoices(records, company, row["customerId"]):
        remaining = f"{money(invoice['remainingAmount']):.2f}"
        lines.append(f"{invoice['number']:<20}{invoice['invoiceDate']:<14}{invoice['dueDate']:<14}{remaining:>20}")
    customer = records.rows(company, "customers")[row["customerId"]].values
    lines += ["", f"Balance {records.local_currency(company)}: {money(customer['balanceDue']):.2f}"]
    return pdf.written(lines, title=name)


def _letterhead(records: ErpRecords, company: str) -> list[str]:
    information = next(iter(records.rows(company, "companyInformation").values())).values
    return [information["displayName"], *_address(information, ""), ""]


def _address(row: Values, role: str) -> list[str]:
    names = ("AddressLine1", "AddressLine2", "PostCode", "City", "Country")
    if not role:
        names = ("addressLine1", "addressLine2", "postalCode", "city", "country")
    first, second, code, city, country = (row.get(f"{role}{name}", "") for name in names)
    return [part for part in (first, second, f"{code} {city}".strip(), country) if part]
