"""Dataverse's sales documents and their lines: numbers, prices, totals, and which of it may be written.

Opportunities, quotes, orders and invoices are one kind of thing in different tables. What they cost is worked out by
`pricing`, which state follows which by `states`; what the actions do is in `actions`.
Sources: https://learn.microsoft.com/dynamics365/sales/developer/quote-order-invoice-entities and the tables' own pages.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from drawbar.sandbox.crm.catalog import ACTIVE, check_unit, missing_unit, price_items, refused, row_of
from drawbar.sandbox.crm.discounts import volume_discount
from drawbar.sandbox.crm.model import Entity, key_taken
from drawbar.sandbox.crm.organization import PER_UNIT, setting
from drawbar.sandbox.crm.pricing import (
    ENDS_IN,
    ZERO,
    LineAmounts,
    LineShare,
    Method,
    Price,
    PriceItem,
    PricingError,
    Rounding,
    cents,
    decimal,
    line_amounts,
    no_price,
    totals,
    unit_price,
)
from drawbar.sandbox.crm.records import CrmRecords, TableRules
from drawbar.sandbox.crm.rules import mirror_customer
from drawbar.sandbox.crm.states import LIFECYCLES, check_line, check_write
from drawbar.sandbox.store import Stored, Values

CANCELED = 2  # state of an activity
FIRST_NUMBER = 1000
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SKIPS_ON_CREATE, _SKIPS_ON_UPDATE = (1, 3), (2, 3)  # of a line's `skippricecalculation`
TOTALS = (
    "totallineitemamount",
    "totallineitemdiscountamount",
    "totaltax",
    "totaldiscountamount",
    "totalamountlessfreight",
    "totalamount",
    "pricingerrorcode",
)
_OWNER = ("ownerid", "ownerid@type", "owninguser", "owningteam", "owningbusinessunit")
_NAME_LENGTH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A table of documents. `mirrored`: what a line shows of its document, by the name it has there.

    `prefix`: the organization's setting that says how numbers begin.
    """

    table: str
    lines: str = ""
    number: str = ""
    prefix: str = ""
    mirrored: Mapping[str, str]

    @property
    def id(self) -> str:
        return f"{self.table}id"


DOCUMENTS: Mapping[str, Document] = {
    kind.table: kind
    for kind in (
        Document(table="opportunity", lines="opportunityproduct", mirrored={"opportunitystatecode": "statecode"}),
        Document(
            table="quote",
            lines="quotedetail",
            number="quotenumber",
            prefix="quoteprefix",
            mirrored={"quotestatecode": "statecode"},
        ),
        Document(
            table="salesorder",
            lines="salesorderdetail",
            number="ordernumber",
            prefix="orderprefix",
            mirrored={"salesorderstatecode": "statecode", "salesorderispricelocked": "ispricelocked"},
        ),
        Document(
            table="invoice",
            lines="invoicedetail",
            number="invoicenumber",
            prefix="invoiceprefix",
            mirrored={"invoicestatecode": "statecode", "invoiceispricelocked": "ispricelocked"},
        ),
    )
}


def lines_of(records: CrmRecords, kind: Document, document_id: str) -> list[tuple[str, Stored]]:
    if not kind.lines:
        return []
    table = records.store.table(kind.lines)
    return [(line_id, table.rows[line_id]) for line_id in table.having(kind.id, document_id)]


class DocumentRules(TableRules):
    def __init__(self, kind: Document) -> None:
        self._kind = kind

    def admit(self, records: CrmRecords, row: Values, before: Values | None, written: set[str]) -> None:
        check_write(records.entities[self._kind.table], row, before, written)
        if before is None or {"pricelevelid", "transactioncurrencyid"} & written:
            self._check_currency(records, row)

    @staticmethod
    def _check_currency(records: CrmRecords, row: Values) -> None:
        """Raises CrmError when a document is in another currency than its price list."""
        price_list = row_of(records, "pricelevel", row.get("pricelevelid"))
        currency = row.get("transactioncurrencyid") or records.store.fact("base_currency")
        if price_list is not None and price_list.get("transactioncurrencyid") != currency:
            raise refused("0x80048cee", "The currency of the record does not match the currency of the price list.")

    def settle(self, records: CrmRecords, row_id: str, row: Values, before: Values | None, *, user: Values) -> None:
        if self._kind.table == "opportunity":
            _take_customer(row)
        mirror_customer(row, "customerid", "contactid")
        row["transactioncurrencyid"] = row.get("transactioncurrencyid") or records.store.fact("base_currency")
        if self._kind.number:
            self._settle_number(records, row_id, row)
        if row["statecode"] not in LIFECYCLES[self._kind.table].written:
            return  # what is closed keeps what it came to
        if not setting(records, "oobpricecalculationenabled"):
            return  # somebody else works prices out
        if before is not None and row["statecode"] == before["statecode"] == 0:
            self._reprice(records, row_id, row, user=user)
        _add_up(records, row, [line.values for _, line in lines_of(records, self._kind, row_id)])

    def _settle_number(self, records: CrmRecords, row_id: str, row: Values) -> None:
        name = self._kind.number
        if row.get(name) is None:
            row[name] = _next_number(records, self._kind, row_id)
        table = records.store.table(self._kind.table)
        same = [table.rows[other].values for other in table.having(name, row[name]) if other != row_id]
        is_taken = any(other.get("revisionnumber") == row.get("revisionnumber") for other in same)
        if is_taken and records.switches["crm_document_numbers"] == "unique":
            raise key_taken(records.switches["crm_taken_answer"])

    def _reprice(self, records: CrmRecords, row_id: str, row: Values, *, user: Values) -> None:
        """Lines follow the price list and the currency of their document, as these are from now on."""
        for line_id, stored in lines_of(records, self._kind, row_id):
            line = dict(stored.values)
            line["transactioncurrencyid"] = row["transactioncurrencyid"]
            if line.get("skippricecalculation", 0) == 0:
                _price(records, line, row, keeps=bool(row.get("ispricelocked")), counts=False)
            changed = {name for name, value in line.items() if value != stored.values.get(name)}
            if changed:
                entity = records.entities[self._kind.lines]
                records.settle_money(entity, line, changed, stored.values)
                records.rewrite(entity, line_id, line, changed, user=user)

    def after(
        self,
        records: CrmRecords,
        row_id: str,
        before: Values | None,
        after: Values | None,
        *,
        user: Values,
    ) -> None:
        if before is None or after is None:
            return
        show_in_lines(records, self._kind, row_id, before, after)
        if self._kind.table == "opportunity" and before["statecode"] != after["statecode"] == 0:
            _cancel_closings(records, row_id, user=user)


def _cancel_closings(records: CrmRecords, opportunity_id: str, *, user: Values) -> None:
    """An opportunity that is open again was not closed after all."""
    entity, table = records.entities["opportunityclose"], records.store.table("opportunityclose")
    for row_id in table.having("opportunityid", opportunity_id):
        if table.rows[row_id].values["statecode"] != CANCELED:
            records.alter(entity, row_id, {"statecode": CANCELED, "statuscode": 3}, user=user)


def show_in_lines(records: CrmRecords, kind: Document, document_id: str, before: Values, after: Values) -> None:
    """Lines show state, lock and owner of their document; they are not changed by it, so nobody is told."""
    shown = [*kind.mirrored.values(), *_OWNER]
    if all(before.get(name) == after.get(name) for name in shown):
        return
    for line_id, line in lines_of(records, kind, document_id):
        values = dict(line.values)
        _mirror(kind, values, after)
        kept = {name: value for name, value in values.items() if value is not None}
        records.store.put(kind.lines, line_id, kept, silent=True)


def add_up_anew(records: CrmRecords, entity: Entity, document_id: str, *, user: Values) -> None:
    """Work out the totals of a document, which has another version from then on."""
    document = records.find(entity, document_id).values
    records.alter(entity, document_id, {name: document.get(name) for name in TOTALS}, user=user)


def _mirror(kind: Document, line: Values, document: Values) -> None:
    for name, source in kind.mirrored.items():
        line[name] = document.get(source)
    for name in _OWNER:
        line[name] = document.get(name)


def _take_customer(row: Values) -> None:
    """Who is named as account or contact of an opportunity is its customer, unless another one is."""
    for name in ("parentaccountid", "parentcontactid"):
        if row.get("customerid") is None and row.get(name) is not None:
            row["customerid"], row["customerid@type"] = row[name], name[len("parent") : -len("id")]


def _next_number(records: CrmRecords, kind: Document, row_id: str) -> str:
    """The next of the series with six letters behind it, which follow from the row."""
    fact = f"number/{kind.table}"
    number = records.store.fact(fact, FIRST_NUMBER)
    records.store.set_fact(fact, number + 1)
    rest, letters = uuid.UUID(row_id).int, ""
    for _ in range(6):
        rest, letter = divmod(rest, len(_LETTERS))
        letters += _LETTERS[letter]
    return f"{setting(records, kind.prefix)}-{number:05d}-{letters}"


class LineRules(TableRules):
    def __init__(self, kind: Document) -> None:
        self._kind = kind

    def _document(self, records: CrmRecords, line: Values) -> Values | None:
        return row_of(records, self._kind.table, line.get(self._kind.id))

    def admit(self, records: CrmRecords, row: Values, before: Values | None, written: set[str]) -> None:
        document = self._document(records, row)
        if document is None:
            raise refused("0x80040200", f"The required field '{self._kind.id}' of '{self._kind.lines}' is missing.")
        if before is not None and before[self._kind.id] != row[self._kind.id]:
            raise refused("0x80040203", f"'{self._kind.id}' of a {self._kind.lines} cannot be changed.")
        check_line(document)
        if row.get("productdescription") is not None:
            for name in ("productid", "uomid"):
                if row.get(name) is not None:
                    code = {"productid": "0x80043afb", "uomid": "0x80043afa"}[name]
                    raise refused(code, f"You cannot set both '{name}' and 'productdescription' for the same record.")
        if row.get("isproductoverridden"):
            if row.get("productdescription") is None:
                raise refused(
                    "0x80040200", f"The required field 'productdescription' of '{self._kind.lines}' is missing."
                )
        elif before is None or {"productid", "uomid", "quantity"} & written:
            self._check_product(records, row, before)

    @staticmethod
    def _check_product(records: CrmRecords, row: Values, before: Values | None) -> None:
        product = row_of(records, "product", row.get("productid"))
        if product is None:
            raise refused("0x80043b11", "The product id is missing.")
        if row.get("uomid") is None:
            raise missing_unit()
        is_new = before is None or before.get("productid") != row["productid"]
        if is_new and product["statecode"] != ACTIVE:
            raise refused("0x8004f908", "You can only add Active products.")
        check_unit(records, product, row["uomid"])
        places = product.get("quantitydecimal")
        exponent = decimal(row.get("quantity")).normalize().as_tuple().exponent
        if places is not None and isinstance(exponent, int) and -exponent > places:
            raise refused("0x80043b07", "The number of decimal places on the quantity is invalid.")

    def admit_delete(self, records: CrmRecords, row: Values) -> None:
        document = self._document(records, row)
        if document is not None:
            check_line(document)

    def settle(
        self,
        records: CrmRecords,
        row_id: str,  # noqa: ARG002
        row: Values,
        before: Values | None,
        *,
        user: Values,  # noqa: ARG002
    ) -> None:
        document = self._document(records, row)
        if document is None:
            return  # it goes with its document
        _mirror(self._kind, row, document)
        row["transactioncurrencyid"] = document["transactioncurrencyid"]
        product = row_of(records, "product", row.get("productid"))
        if before is None or before.get("productid") != row.get("productid"):
            row["productname"] = product.get("name") if product else row.get("productdescription")
        if row.get(f"{self._kind.lines}name") is None:
            row[f"{self._kind.lines}name"] = (row.get("productname") or "")[:_NAME_LENGTH] or None
        if not setting(records, "oobpricecalculationenabled"):
            return
        skips = _SKIPS_ON_CREATE if before is None else _SKIPS_ON_UPDATE
        if row.get("skippricecalculation", 0) in skips:
            _fill_amounts(records, row)
            return
        if before is None:
            is_same = bool(row.get("iscopied"))
        else:
            is_same = all(before.get(name) == row.get(name) for name in ("productid", "uomid"))
        counts = before is None or any(before.get(name) != row.get(name) for name in ("productid", "uomid", "quantity"))
        _price(records, row, document, keeps=is_same and bool(document.get("ispricelocked")), counts=counts)

    def after(
        self,
        records: CrmRecords,
        row_id: str,  # noqa: ARG002
        before: Values | None,
        after: Values | None,
        *,
        user: Values,
    ) -> None:
        """A document has another version whenever one of its lines has."""
        document = self._document(records, after or before or {})
        if document is not None:
            entity = records.entities[self._kind.table]
            add_up_anew(records, entity, document[entity.id], user=user)


# ---------------------------------------------------------------- from rows to prices and back


def _price(records: CrmRecords, line: Values, document: Values, *, keeps: bool, counts: bool) -> None:
    """Price and amounts of a line. `keeps`: the price it has stands, whatever the price list says by now.

    `counts`: it is about another quantity, so that its volume discount is looked up, even where the price is kept.
    """
    item = None
    if line.get("isproductoverridden") or line.get("ispriceoverridden"):
        own = line.get("priceperunit")
        price = Price(decimal(own)) if own is not None else no_price(PricingError.MISSING_UNIT_PRICE)
    else:
        item, price = _list_price(records, line, document)
        if keeps and line.get("priceperunit") is not None:
            price = Price(decimal(line["priceperunit"]), PricingError(line.get("pricingerrorcode", 0)))
    if line.get("quantity") is None and price.error is PricingError.NONE:
        price = Price(price.per_unit, PricingError.MISSING_QUANTITY)
    if price.error is not PricingError.MISSING_UNIT_PRICE:
        line["priceperunit"] = float(price.per_unit)
    line["pricingerrorcode"] = int(price.error)
    if counts:
        list_id = item.get("discounttypeid") if item else None
        found = volume_discount(records, list_id, decimal(line.get("quantity")), price.per_unit)
        line["volumediscountamount"] = float(found) if found else None
    line["baseamount"] = line["extendedamount"] = None
    _fill_amounts(records, line)


def _fill_amounts(records: CrmRecords, line: Values) -> None:
    """The amounts that nobody gave."""
    amounts = line_amounts(
        decimal(line.get("priceperunit")),
        decimal(line.get("quantity")),
        discount=_line_discount(records, line),
        tax=decimal(line.get("tax")),
        volume=decimal(line.get("volumediscountamount")),
    )
    if amounts is None:
        line["pricingerrorcode"], amounts = int(PricingError.OUT_OF_RANGE), LineAmounts(ZERO, ZERO)
    for name, amount in (("baseamount", amounts.base), ("extendedamount", amounts.extended)):
        if line.get(name) is None:
            line[name] = float(amount)


def _line_discount(records: CrmRecords, line: Values) -> Decimal:
    """The discount that somebody gave, which is that of a line or of each unit of it."""
    discount = decimal(line.get("manualdiscountamount"))
    if setting(records, "discountcalculationmethod") == PER_UNIT:
        return cents(discount * decimal(line.get("quantity")))
    return discount


def _list_price(records: CrmRecords, line: Values, document: Values) -> tuple[Values | None, Price]:
    """What stands on the price list of a document for a line, and the price that it makes."""
    list_id = document.get("pricelevelid")
    price_list = row_of(records, "pricelevel", list_id)
    if list_id is None or price_list is None:
        return None, _without_list(records, PricingError.MISSING_PRICE_LEVEL)
    if price_list["statecode"] != 0:
        return None, no_price(PricingError.INACTIVE_PRICE_LEVEL)
    if price_list.get("transactioncurrencyid") != document["transactioncurrencyid"]:
        return None, no_price(PricingError.INVALID_PRICE_LEVEL_CURRENCY)
    items = price_items(records, list_id, line.get("productid"), line.get("uomid"))
    if not items:
        return None, _without_list(records, PricingError.PRODUCT_NOT_IN_PRICE_LEVEL)
    item = records.store.table("productpricelevel").rows[items[0]].values
    product = row_of(records, "product", line.get("productid")) or {}
    return item, unit_price(_price_item(item, product))


def _without_list(records: CrmRecords, error: PricingError) -> Price:
    """Where price lists are optional, what is on none costs nothing, and that is no error."""
    return no_price(error if setting(records, "ispricelistmandatory") else PricingError.NONE)


def _price_item(item: Values, product: Values) -> PriceItem:
    def amount(row: Values, name: str) -> Decimal | None:
        return None if row.get(name) is None else decimal(row[name])

    return PriceItem(
        method=Method(item.get("pricingmethodcode") or Method.AMOUNT),
        amount=amount(item, "amount"),
        percentage=amount(item, "percentage"),
        rounding=Rounding(item.get("roundingpolicycode") or Rounding.NONE),
        ends_in=item.get("roundingoptioncode") == ENDS_IN,
        rounding_amount=amount(item, "roundingoptionamount"),
        list_price=amount(product, "price"),
        current_cost=amount(product, "currentcost"),
        standard_cost=amount(product, "standardcost"),
    )


def _add_up(records: CrmRecords, document: Values, lines: list[Values]) -> None:
    shares = [
        LineShare(decimal(line.get("baseamount")), _line_discount(records, line), decimal(line.get("tax")))
        for line in lines
    ]
    found = totals(
        shares,
        discount=decimal(document.get("discountamount")),
        percentage=decimal(document.get("discountpercentage")),
        freight=decimal(document.get("freightamount")),
    )
    document["totallineitemamount"] = float(found.line_items)
    document["totallineitemdiscountamount"] = float(found.line_discounts)
    document["totaltax"] = float(found.tax)
    document["totaldiscountamount"] = float(found.discount)
    document["totalamountlessfreight"] = float(found.less_freight)
    document["totalamount"] = float(found.total)
    wrong = any(line.get("pricingerrorcode", 0) for line in lines)
    document["pricingerrorcode"] = int(PricingError.DETAIL_ERROR if wrong else PricingError.NONE)
    if document.get("isrevenuesystemcalculated"):
        document["estimatedvalue"] = document["totalamount"]


SALES_RULES: Mapping[str, TableRules] = {
    **{kind.table: DocumentRules(kind) for kind in DOCUMENTS.values()},
    **{kind.lines: LineRules(kind) for kind in DOCUMENTS.values() if kind.lines},
}
