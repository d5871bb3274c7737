"""Business Central's journals: lines that are written, then posted together, and are gone.

A line of a payment journal is what a customer paid, a negative amount; it may be applied to an invoice. Journals of
payments are posted like others, by `journals(id)/Microsoft.NAV.post`.
"""

from __future__ import annotations

from decimal import Decimal

from drawbar.sandbox.erp.amounts import money
from drawbar.sandbox.erp.billing import apply_to_invoice, owe
from drawbar.sandbox.erp.dimensions import DIMENSIONS
from drawbar.sandbox.erp.ledger import RECEIVABLES, Posting, post_amounts
from drawbar.sandbox.erp.model import EMPTY_DATE, EMPTY_GUID, EntitySet, invalid, refusal
from drawbar.sandbox.erp.records import ErpRecords, SetRules
from drawbar.sandbox.erp.sales import DRAFT
from drawbar.sandbox.store import Stored, Values

_GENERAL, _RECEIPTS = "GENERAL", "CASHRCPT"  # templates of journals
_GL_ACCOUNT = "G_x002F_L_x0020_Account"
_STEP = 10_000  # between the numbers of two lines


class JournalRules(SetRules):
    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:  # noqa: ARG002
        _must_be_general(row)

    def after(self, records: ErpRecords, company: str, before: Values | None, after: Values | None, app: str) -> None:
        """One of payments, which is found here by its id, is not deleted here either."""
        if before is not None and after is None:
            _must_be_general(before)
        _remove_lines(records, company, "journalLines", before, after, app)

    def implied_by(self, records: ErpRecords, company: str, entity_set: EntitySet, row_id: str) -> Stored | None:
        """Journals of payments are found by their id, too; lists are of general ones."""
        stored = records.rows(company, "customerPaymentJournals").get(row_id)
        if stored is None:
            return None
        return Stored({**entity_set.blank(), **stored.values, "templateDisplayName": _RECEIPTS}, stored.version)


def _must_be_general(journal: Values) -> None:
    if journal["templateDisplayName"] != _GENERAL:
        raise refusal(f"The journal template {journal['templateDisplayName']} is not one of general journals.")


class PaymentJournalRules(SetRules):
    def after(self, records: ErpRecords, company: str, before: Values | None, after: Values | None, app: str) -> None:
        _remove_lines(records, company, "customerPayments", before, after, app)


class JournalLineRules(SetRules):
    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:
        for name in ("accountType", "balanceAccountType"):
            if row[name] != _GL_ACCOUNT:
                raise refusal(f'The "{name}" of a journal line can be a general ledger account only.')
        _settle_line(records, company, "journalLines", "journals", row, before)


class CustomerPaymentRules(SetRules):
    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:
        if row["appliesToInvoiceId"] != EMPTY_GUID:
            invoice = records.rows(company, "salesInvoices")[row["appliesToInvoiceId"]].values
            if invoice["status"] in (DRAFT, "In_x0020_Review"):
                raise refusal(
                    'The "appliesToInvoiceId" should be the ID of an Open, Paid, Corrective, or Canceled Invoice.'
                )
            if row["customerId"] == EMPTY_GUID:
                row["customerId"], row["customerNumber"] = invoice["billToCustomerId"], invoice["billToCustomerNumber"]
        _settle_line(records, company, "customerPayments", "customerPaymentJournals", row, before)


def _settle_line(
    records: ErpRecords, company: str, set_name: str, journals: str, row: Values, before: Values | None
) -> None:
    journal = records.rows(company, journals).get(row["journalId"])
    if journal is None:
        raise refusal("You must specify a journal batch ID or a journal ID to get a journal line.")
    row["journalDisplayName"] = journal.values["code"]
    if before is not None:
        return
    table = records.store.table(f"{company}/{set_name}")
    mine = [table.rows[row_id].values for row_id in table.having("journalId", row["journalId"])]
    row["lineNumber"] = row["lineNumber"] or max((line["lineNumber"] for line in mine), default=0) + _STEP
    if row["postingDate"] == EMPTY_DATE:
        row["postingDate"] = records.now[:10]
    if not row["documentNumber"]:
        row["documentNumber"] = records.next_number(company, records.sets[set_name], series="journalDocument")


def post_journal(records: ErpRecords, company: str, journal_id: str, app: str) -> None:
    """Every line, or none of them."""
    payments = records.rows(company, "customerPaymentJournals").get(journal_id)
    set_name = "journalLines" if payments is None else "customerPayments"
    table = records.store.table(f"{company}/{set_name}")
    lines = sorted(
        (table.rows[row_id].values for row_id in table.having("journalId", journal_id)),
        key=lambda line: int(line["lineNumber"]),
    )
    if not lines:
        raise refusal("There is nothing to post.")
    if payments is not None:
        _post_payments(records, company, payments.values, lines, app)
    else:
        _post_lines(records, company, records.rows(company, "journals")[journal_id].values, lines, app)
    for line in lines:
        records.store.remove(f"{company}/{set_name}", line["id"], note=app)


def _post_payments(records: ErpRecords, company: str, journal: Values, lines: list[Values], app: str) -> None:
    if not journal["balancingAccountNumber"]:
        whole = sum((money(line["amount"]) for line in lines), Decimal(0))
        raise refusal(f"The lines in journal {journal['code']} are out of balance by {whole}.")
    for line in lines:
        amount = money(line["amount"])
        where = f"Gen. Journal Line: Journal Batch Name={journal['code']}, Line No.={line['lineNumber']}"
        if line["customerId"] == EMPTY_GUID:
            raise invalid(f"Account No. must have a value in {where}. It cannot be zero or empty.")
        if amount >= 0:
            raise invalid(f"Amount must be negative in {where}.")
        posting = Posting(
            type="Payment",
            number=line["documentNumber"],
            day=line["postingDate"],
            text=line["description"] or f"Payment {line['documentNumber']}",
            dimensions=line.get(DIMENSIONS, {}),
        )
        accounts = [(RECEIVABLES, amount), (journal["balancingAccountNumber"], -amount)]
        post_amounts(records, company, posting, accounts, app)
        owe(records, company, line["customerId"], amount, app, sales=Decimal(0))
        if line["appliesToInvoiceId"] != EMPTY_GUID:
            apply_to_invoice(records, company, line["appliesToInvoiceId"], -amount, app)


def _post_lines(records: ErpRecords, company: str, journal: Values, lines: list[Values], app: str) -> None:
    """A line without a balancing account is balanced by others of its document."""
    amounts: dict[tuple[str, str], list[tuple[str, Decimal]]] = {}  # by day and document
    for line in lines:
        amount, balancing = money(line["amount"]), line["balancingAccountNumber"] or journal["balancingAccountNumber"]
        if not line["accountNumber"]:
            where = f"Gen. Journal Line: Journal Batch Name={journal['code']}, Line No.={line['lineNumber']}"
            raise invalid(f"Account No. must have a value in {where}. It cannot be zero or empty.")
        mine = amounts.setdefault((line["postingDate"], line["documentNumber"]), [])
        mine.append((line["accountNumber"], amount))
        if balancing:
            mine.append((balancing, -amount))
    for (day, number), entries in amounts.items():
        whole = sum((amount for _, amount in entries), Decimal(0))
        if whole:
            raise refusal(f"The lines in journal {journal['code']} are out of balance by {whole}.")
        text = next((line["description"] for line in lines if line["documentNumber"] == number), "")
        post_amounts(records, company, Posting(type=" ", number=number, day=day, text=text), entries, app)


def _remove_lines(
    records: ErpRecords, company: str, set_name: str, before: Values | None, after: Values | None, app: str
) -> None:
    """Lines go with their journal."""
    if before is None or after is not None:
        return
    for row_id in records.store.table(f"{company}/{set_name}").having("journalId", before["id"]):
        records.store.remove(f"{company}/{set_name}", row_id, note=app)
