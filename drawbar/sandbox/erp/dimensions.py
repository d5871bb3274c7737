"""Business Central's dimensions: what records have by default, and the dimension sets of documents and their lines.

A document takes the default dimensions of its customer, a line those of its document and its item. The set is a field
of the row (`dimensions`: id of a dimension to id of its value); documents show two of it as shortcut codes.
"""

from __future__ import annotations

from drawbar.sandbox.erp.model import EMPTY_GUID, EntitySet, ErpError, no_property, read_only, refusal, to_stored
from drawbar.sandbox.erp.parts import PartRules, address, parent_of
from drawbar.sandbox.erp.records import ErpRecords, SetRules
from drawbar.sandbox.store import Stored, Values

DIMENSIONS = "dimensions"  # of the owner's row
SHORTCUTS = ("shortcutDimension1Code", "shortcutDimension2Code")


class DefaultDimensionRules(SetRules):
    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:
        if row["parentId"] == EMPTY_GUID:
            raise refusal("You must get to the parent first to get to the default dimensions.")
        if before is None:
            owner = parent_of(records, company, "defaultDimensions", row)
            if owner is None:
                raise refusal(f"The parent with ID {row['parentId']} does not exist.")
            row["parentType"] = owner.kind
            _refuse_second(records, company, row)
        if row["dimensionId"] == EMPTY_GUID:
            raise refusal('The "dimensionId" does not match to a Dimension.')
        value = records.rows(company, "dimensionValues").get(row["dimensionValueId"])
        if value is not None and value.values["dimensionId"] != row["dimensionId"]:
            raise refusal('The "dimensionValueId" does not match to a Dimension Value.')


class DimensionSetLineRules(PartRules):
    def of(self, records: ErpRecords, company: str, owner: EntitySet, stored: Stored) -> list[Stored]:
        return [
            Stored(_line(records, company, owner, stored.values, dimension, value), stored.version)
            for dimension, value in stored.values.get(DIMENSIONS, {}).items()
        ]

    def with_new(self, records: ErpRecords, company: str, row: Values, body: Values) -> Values:
        given = _checked(records.sets["dimensionSetLines"], body)
        if not given.get("id") and not given.get("code"):
            raise refusal('The "id" or "code" field must be filled in.')
        if not given.get("valueId") and not given.get("valueCode"):
            raise refusal('The "valueId" or "valueCode" field must be filled in.')
        dimension = _dimension(records, company, given)
        if dimension in row.get(DIMENSIONS, {}):
            raise refusal(
                "The dimension set line already exists. Check existing dimension set lines and the default dimension"
                " set lines on the parent."
            )
        return with_dimensions(records, company, row, {dimension: _value(records, company, dimension, given)})

    def with_changed(self, records: ErpRecords, company: str, row: Values, part: Values, body: Values) -> Values:
        given = _checked(records.sets["dimensionSetLines"], body)
        if given.get("id", part["id"]) != part["id"] or given.get("code", part["code"]) != part["code"]:
            raise refusal('The "id" and "code" fields cannot be modified.')
        if not given.get("valueId") and not given.get("valueCode"):
            return row
        value = _value(records, company, part["id"], given)
        return with_dimensions(records, company, row, {part["id"]: value})

    def without(self, records: ErpRecords, company: str, row: Values, part: Values) -> Values:
        after = {**row, DIMENSIONS: {each: value for each, value in row[DIMENSIONS].items() if each != part["id"]}}
        follow_dimensions(records, company, after)
        return after


def defaults(records: ErpRecords, company: str, parent_id: str) -> dict[str, str]:
    """The dimensions that a record has by default, those without a value left out."""
    table = records.store.table(f"{company}/defaultDimensions")
    rows = (table.rows[row_id].values for row_id in table.having("parentId", parent_id))
    return {row["dimensionId"]: row["dimensionValueId"] for row in rows if row["dimensionValueId"] != EMPTY_GUID}


def take_dimensions(records: ErpRecords, company: str, row: Values, taken: dict[str, str]) -> None:
    """Put dimensions into a new row, or one that is of another customer or item now."""
    if taken or DIMENSIONS in row:
        row.update(with_dimensions(records, company, row, taken))


def assign_shortcut(records: ErpRecords, company: str, row: Values, name: str, code: str) -> None:
    """A shortcut code of a document is the value of one of the company's two global dimensions."""
    dimension = _global_dimension(records, company, SHORTCUTS.index(name))
    if not code:
        row[DIMENSIONS] = {each: value for each, value in row.get(DIMENSIONS, {}).items() if each != dimension}
        follow_dimensions(records, company, row)
        return
    value = _value_of_code(records, company, dimension, code)
    if value is None:
        raise ErpError(
            400,
            "Internal_InvalidTableRelation",
            f"The field Shortcut Dimension {SHORTCUTS.index(name) + 1} Code of table Sales Header contains a value"
            f" ({code}) that cannot be found in the related table (Dimension Value).",
        )
    row.update(with_dimensions(records, company, row, {dimension: value}))


def with_dimensions(records: ErpRecords, company: str, row: Values, more: dict[str, str]) -> Values:
    after = {**row, DIMENSIONS: {**row.get(DIMENSIONS, {}), **more}}
    follow_dimensions(records, company, after)
    return after


def follow_dimensions(records: ErpRecords, company: str, row: Values) -> None:
    """The shortcut codes of a row are of its dimension set."""
    values = records.rows(company, "dimensionValues")
    for index, name in enumerate(SHORTCUTS):
        if name in row:
            found = values.get(row.get(DIMENSIONS, {}).get(_global_dimension(records, company, index), ""))
            row[name] = found.values["code"] if found is not None else ""
            row[f"dimension{index + 1}Id"] = found.values["id"] if found is not None else EMPTY_GUID


def _global_dimension(records: ErpRecords, company: str, index: int) -> str:
    codes = records.store.fact(f"global_dimensions/{company}", [])
    code = codes[index] if index < len(codes) else ""
    return records.store.table(f"{company}/dimensions").index("code").get(code, "")


def _line(records: ErpRecords, company: str, owner: EntitySet, row: Values, dimension_id: str, value_id: str) -> Values:
    dimension = records.rows(company, "dimensions")[dimension_id].values
    value = records.rows(company, "dimensionValues")[value_id].values
    return {
        "id": dimension_id,
        "code": dimension["code"],
        "consolidationCode": dimension["consolidationCode"],
        "parentId": row["id"],
        "parentType": owner.kind,
        "displayName": dimension["displayName"],
        "valueId": value_id,
        "valueCode": value["code"],
        "valueConsolidationCode": value["consolidationCode"],
        "valueDisplayName": value["displayName"],
        "address": address(owner, row, "dimensionSetLines"),
    }


def _checked(lines: EntitySet, body: Values) -> Values:
    """The fields of a body as they are kept. Raises ErpError for what a line does not have or nobody may write."""
    given: Values = {}
    for name, value in body.items():
        if "@odata." in name:
            continue
        column = lines.columns.get(name)
        if column is None:
            raise no_property(name, lines)
        if column.access == "read":
            raise read_only(name)
        given[name] = to_stored(column, value)
    return {name: value for name, value in given.items() if value not in ("", EMPTY_GUID)}


def _dimension(records: ErpRecords, company: str, given: Values) -> str:
    by_code = records.store.table(f"{company}/dimensions").index("code")
    if "id" in given and given["id"] not in records.rows(company, "dimensions"):
        raise refusal('The "id" does not match to a Dimension.')
    if "code" in given and given["code"] not in by_code:
        raise refusal('The "code" does not match to a Dimension.')
    found = given.get("id") or by_code[given["code"]]
    if "code" in given and by_code[given["code"]] != found:
        raise refusal("The dimension field values do not match to a specific Dimension.")
    return str(found)


def _value(records: ErpRecords, company: str, dimension: str, given: Values) -> str:
    by_id = records.rows(company, "dimensionValues").get(given.get("valueId", ""))
    if "valueId" in given and (by_id is None or by_id.values["dimensionId"] != dimension):
        raise refusal('The "valueId" does not match to a Dimension Value.')
    if "valueCode" not in given:
        return str(given["valueId"])
    found = _value_of_code(records, company, dimension, given["valueCode"])
    if found is None:
        raise refusal('The "valueCode" does not match to a Dimension Value.')
    if given.get("valueId", found) != found:
        raise refusal(
            'The values of the "dimensionCode" field and the "dimensionId" field do not refer to the same Dimension'
            " Value."
        )
    return found


def _value_of_code(records: ErpRecords, company: str, dimension: str, code: str) -> str | None:
    table = records.store.table(f"{company}/dimensionValues")
    mine = table.having("dimensionId", dimension)
    return next((row_id for row_id in mine if table.rows[row_id].values["code"] == code), None)


def _refuse_second(records: ErpRecords, company: str, row: Values) -> None:
    table = records.store.table(f"{company}/defaultDimensions")
    mine = (table.rows[row_id].values for row_id in table.having("parentId", row["parentId"]))
    if any(each["dimensionId"] == row["dimensionId"] for each in mine):
        raise ErpError(
            400,
            "Internal_EntityWithSameKeyExists",
            "The Default Dimension already exists. Identification fields and values:"
            f" Dimension Code='{row['dimensionCode']}'",
        )
