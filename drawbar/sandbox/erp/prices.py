"""Business Central's price lists: what a header fixes for its lines, and what holds while a list is active."""

from __future__ import annotations

from typing import Any

from drawbar.sandbox.erp.model import EMPTY_DATE, EMPTY_GUID, ErpError, invalid, no_value, refusal
from drawbar.sandbox.erp.records import ErpRecords, SetRules
from drawbar.sandbox.erp.units import has_unit
from drawbar.sandbox.store import Values

_STEP = 10_000  # between the numbers of two lines
_OF_HEADER = (  # what a line has of its header, always
    "priceType",
    "sourceType",
    "sourceNumber",
    "currencyCode",
    "startingDate",
    "endingDate",
)
_AS_DRAFT = {  # fields that can be changed in a draft only, and their captions
    "description": "Description",
    "startingDate": "Starting Date",
    "endingDate": "Ending Date",
    "allowLineDiscount": "Allow Line Disc.",
    "allowInvoiceDiscount": "Allow Invoice Disc.",
}
_WITHOUT_LINES = {  # fields that can be changed only while there are no lines
    "sourceType": "Assign-to Type",
    "sourceNumber": "Assign-to No.",
    "currencyCode": "Currency Code",
    "priceIncludesTax": "Price Includes VAT",
}
_SOURCES = {"Customer": ("customers", "number"), "Customer_x0020_Price_x0020_Group": ("customerPriceGroups", "code")}
_ASSETS = {"Item": "items", "Resource": "resources"}


class PriceListRules(SetRules):
    def assign(self, records: ErpRecords, company: str, row: Values, name: str, value: Any) -> None:
        changes = value != row[name]
        if changes and name == "code" and row["code"]:
            raise refusal("You cannot rename a Price List.")
        is_kept = row["id"] in records.rows(company, "priceLists")
        if changes and is_kept and name in _AS_DRAFT and row["status"] != "Draft":
            raise _must_be_draft(f"Price List: Code={row['code']}", row)
        if changes and is_kept and name in _WITHOUT_LINES and _lines_of(records, company, row["id"]):
            raise refusal(f"You cannot change {_WITHOUT_LINES[name]} because one or more lines exist.")
        row[name] = value
        if changes and name == "sourceType":
            row["sourceNumber"] = ""
        if name == "sourceNumber" and value:
            _must_find_source(records, company, row)

    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:  # noqa: ARG002
        if row["sourceType"] in _SOURCES and not row["sourceNumber"]:
            raise no_value("Assign-to No.", f"Price List: Code={row['code']}")
        if row["amountType"] == "Any" and row["sourceType"] == "Customer_x0020_Price_x0020_Group":
            row["amountType"] = "Price"
        if EMPTY_DATE < row["endingDate"] < row["startingDate"]:
            row["endingDate"] = row["startingDate"]

    def after(self, records: ErpRecords, company: str, before: Values | None, after: Values | None, app: str) -> None:
        """Lines follow their header, and go with it."""
        if before is None:
            return
        if after is None and before["status"] == "Active":
            raise refusal(f"You cannot delete the active price list {before['code']}.")
        body = {"status": after["status"]} if after and after["status"] != before["status"] else {}
        for line in _lines_of(records, company, before["id"]):
            if after is None:
                records.remove(company, "priceListLines", line["id"], app=app)
            else:  # settled anew, from the header
                records.change(company, "priceListLines", line["id"], body, app=app, by_api=False)


class PriceListLineRules(SetRules):
    def assign(self, records: ErpRecords, company: str, row: Values, name: str, value: Any) -> None:
        changes = value != row[name]
        if changes and name != "status" and row["status"] != "Draft":
            raise _must_be_draft(
                f"Price List Line: Price List Code={row['priceListCode']},Line No.={row['lineNumber']}", row
            )
        row[name] = value
        if changes and name == "assetType":
            row["assetNumber"], row["assetId"], row["unitOfMeasureCode"] = "", EMPTY_GUID, ""
        if changes and name in ("assetNumber", "assetType") and row["assetNumber"]:
            asset = _asset(records, company, row)
            row["assetId"] = asset["id"] if asset else EMPTY_GUID
            row["unitOfMeasureCode"] = asset["baseUnitOfMeasureCode"] if asset else ""

    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:
        header = records.rows(company, "priceLists").get(row["priceListId"])
        if header is None:
            raise _must_have_value("Price List Code", row)
        for name in _OF_HEADER:
            row[name] = header.values[name]
        if before is None and not row["lineNumber"]:
            taken = [line["lineNumber"] for line in _lines_of(records, company, row["priceListId"])]
            row["lineNumber"] = max(taken, default=0) + _STEP
        elif before is None:
            _line_number_is_free(records, company, row)
        if row["assetType"] in _ASSETS:
            if not row["assetNumber"]:
                raise _must_have_value("Product No. (custom)", row)
            asset, code = _asset(records, company, row) or {}, row["unitOfMeasureCode"]
            if code and not has_unit(records, company, _ASSETS[row["assetType"]], asset, code):
                raise ErpError(
                    400,
                    "Internal_InvalidTableRelation",
                    f"The field Unit of Measure Code of table Price List Line contains a value ({code}) that cannot be"
                    f" found in the related table ({row['assetType']} Unit of Measure).",
                )
        for name, caption in (("unitPrice", "Unit Price"), ("minimumQuantity", "Minimum Quantity")):
            if row[name] < 0:
                raise invalid(f"The value of {caption} must not be below 0.")
        if row["amountType"] == "Price":
            row["lineDiscountPercent"] = 0
        elif row["amountType"] == "Discount":
            row["unitPrice"] = 0

    def after(self, records: ErpRecords, company: str, before: Values | None, after: Values | None, app: str) -> None:  # noqa: ARG002
        """A line of an active list stays."""
        if before is not None and after is None and before["status"] == "Active":
            raise refusal(
                f"You cannot delete the active price list line {before['priceListCode']} {before['lineNumber']}."
            )


def _lines_of(records: ErpRecords, company: str, header_id: str) -> list[Values]:
    table = records.store.table(f"{company}/priceListLines")
    return [table.rows[row_id].values for row_id in table.having("priceListId", header_id)]


def _line_number_is_free(records: ErpRecords, company: str, row: Values) -> None:
    if any(line["lineNumber"] == row["lineNumber"] for line in _lines_of(records, company, row["priceListId"])):
        raise ErpError(
            400,
            "Internal_EntityWithSameKeyExists",
            "The Price List Line already exists. Identification fields and values:"
            f" Price List Code='{row['priceListCode']}',Line No.='{row['lineNumber']}'",
        )


def _must_find_source(records: ErpRecords, company: str, row: Values) -> None:
    """Raises ErpError for a customer, or a price group, that there is not; other sources are not modelled."""
    if row["sourceType"] not in _SOURCES:
        raise refusal(f"Assign-to No. must be blank for {row['sourceType']}.")
    set_name, key = _SOURCES[row["sourceType"]]
    if row["sourceNumber"] not in records.store.table(f"{company}/{set_name}").index(key):
        raise _not_there(records.sets[set_name].source, row["sourceNumber"])


def _asset(records: ErpRecords, company: str, row: Values) -> Values | None:
    """The item or the resource of a line; None where it is of another kind. Raises ErpError where there is none."""
    set_name = _ASSETS.get(row["assetType"])
    if set_name is None:
        return None
    row_id = records.store.table(f"{company}/{set_name}").index("number").get(row["assetNumber"])
    if row_id is None:
        raise _not_there(row["assetType"], row["assetNumber"])
    return records.rows(company, set_name)[row_id].values


def _must_be_draft(what: str, row: Values) -> ErpError:
    return invalid(f"Status must be equal to 'Draft' in {what}. Current value is '{row['status']}'.")


def _must_have_value(caption: str, row: Values) -> ErpError:
    return no_value(caption, f"Price List Line: Price List Code={row['priceListCode']}, Line No.={row['lineNumber']}")


def _not_there(source: str, number: str) -> ErpError:
    return ErpError(
        400,
        "Internal_RecordNotFound",
        f"The {source} does not exist. Identification fields and values: No.='{number}'",
    )
