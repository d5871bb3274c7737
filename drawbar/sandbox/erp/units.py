"""Business Central's resources, the units in which items and resources are counted, and the groups of such units.

An item or a resource with a base unit has that unit, one of which is one of it, and a group of its units. Until
somebody writes them these rows follow from the item or the resource: they bear its time and are kept nowhere.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from drawbar.sandbox.erp.model import EMPTY_GUID, ErpError, invalid, refusal
from drawbar.sandbox.erp.records import ErpRecords, SetRules
from drawbar.sandbox.store import Stored, Values


@dataclass(frozen=True, slots=True, kw_only=True)
class _Owner:
    """What is counted in units: its set, the set of its units, and what its properties are called there and here."""

    set: str
    units: str
    word: str
    id: str
    number: str


_ITEM = _Owner(set="items", units="itemUnitsOfMeasure", word="Item", id="itemId", number="itemNumber")
_RESOURCE = _Owner(
    set="resources", units="resourceUnitsOfMeasure", word="Resource", id="resourceId", number="resourceNumber"
)
OWNERS: Mapping[str, _Owner] = {owner.units: owner for owner in (_ITEM, _RESOURCE)}
_OF_SETS = {owner.set: owner for owner in OWNERS.values()}


class UnitOfOwnerRules(SetRules):
    """Units of items, or of resources."""

    def __init__(self, set_name: str) -> None:
        self._owner = OWNERS[set_name]

    def implied(self, records: ErpRecords, company: str) -> Iterator[Stored]:
        """The base units that nobody has written."""
        table = records.store.table(f"{company}/{self._owner.units}")
        for stored in records.rows(company, self._owner.set).values():
            code = stored.values["baseUnitOfMeasureCode"]
            if code and not (table.rows and _has_unit(records, company, self._owner, stored.values, code)):
                yield _base_unit(records, self._owner, stored, code)

    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:
        owner = records.rows(company, self._owner.set).get(row[self._owner.id])
        if owner is None:
            raise invalid(f"{self._owner.word} No. must have a value in {self._owner.word} Unit of Measure.")
        is_base = owner.values["baseUnitOfMeasureCode"] == row["code"]
        if before is None and is_base:
            raise _same_key(self._owner, row)
        if row.get("relatedToBaseUnitOfMeasure") is False:
            row["quantityPerUnitOfMeasure"] = 1
        if row["quantityPerUnitOfMeasure"] <= 0:
            raise invalid(f"Qty. per Unit of Measure must be greater than 0 in {_named(self._owner, row)}.")
        if is_base and row["quantityPerUnitOfMeasure"] != 1:
            raise invalid(
                f"Qty. per Unit of Measure must be equal to '1' in {_named(self._owner, row)}."
                f" Current value is '{row['quantityPerUnitOfMeasure']}'."
            )
        row["unitGroupId"] = _group_id(row[self._owner.id])

    def after(self, records: ErpRecords, company: str, before: Values | None, after: Values | None, app: str) -> None:  # noqa: ARG002
        """The base unit stays as long as it is one."""
        if before is None or after is not None:
            return
        owner = records.rows(company, self._owner.set).get(before[self._owner.id])
        if owner is not None and owner.values["baseUnitOfMeasureCode"] == before["code"]:
            raise refusal(
                f"You cannot modify {self._owner.word.lower()} unit of measure {before['code']} for"
                f" {self._owner.word.lower()} {before[self._owner.number]} because it is the"
                f" {self._owner.word.lower()}'s base unit of measure."
            )


class ResourceRules(SetRules):
    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:
        settle_base_unit(records, company, "resources", row, before)

    def after(self, records: ErpRecords, company: str, before: Values | None, after: Values | None, app: str) -> None:
        follow_base_unit(records, company, "resources", before, after, app)


class UnitGroupRules(SetRules):
    def implied(self, records: ErpRecords, company: str) -> Iterator[Stored]:
        """One for each item and each resource."""
        for owner in OWNERS.values():
            for stored in records.rows(company, owner.set).values():
                source = stored.values
                row = {
                    "id": _group_id(source["id"]),
                    "sourceType": owner.word,
                    "sourceId": source["id"],
                    "sourceNumber": source["number"],
                    "code": f"{owner.word.upper()} {source['number']} UOM GR",
                    "sourceName": source["displayName"],
                    "systemRowVersion": stored.version,
                    "lastModifiedDateTime": source["lastModifiedDateTime"],
                }
                yield Stored(row, stored.version)


def settle_base_unit(records: ErpRecords, company: str, set_name: str, row: Values, before: Values | None) -> None:
    """Raises ErpError where a unit is to be the base unit that stands for more or less than one."""
    owner, code = _OF_SETS[set_name], row["baseUnitOfMeasureCode"]
    if before is None or not code or before["baseUnitOfMeasureCode"] == code:
        return
    unit = next((unit for unit in _units(records, company, owner, row["id"]) if unit["code"] == code), None)
    if unit is not None and unit["quantityPerUnitOfMeasure"] != 1:
        raise refusal(
            f"The quantity per base unit of measure must be 1. {code} is set up with"
            f" {unit['quantityPerUnitOfMeasure']} per unit of measure."
        )


def follow_base_unit(
    records: ErpRecords, company: str, set_name: str, before: Values | None, after: Values | None, app: str
) -> None:
    """A unit that is the base unit no more stays a unit; the units go with what they count."""
    if before is None:
        return
    owner, code = _OF_SETS[set_name], before["baseUnitOfMeasureCode"]
    if after is None:
        for unit in _units(records, company, owner, before["id"]):
            records.remove(company, owner.units, unit["id"], app=app)
    elif code not in ("", after["baseUnitOfMeasureCode"]) and not _has_unit(records, company, owner, after, code):
        body = {"id": _unit_id(before["id"], code), owner.id: after["id"], "code": code}
        records.insert(company, owner.units, body, app=app)


def has_unit(records: ErpRecords, company: str, set_name: str, row: Values, code: str) -> bool:
    """Whether an item or a resource can be counted in a unit."""
    return code == row["baseUnitOfMeasureCode"] or _has_unit(records, company, _OF_SETS[set_name], row, code)


def _units(records: ErpRecords, company: str, owner: _Owner, owner_id: str) -> list[Values]:
    table = records.store.table(f"{company}/{owner.units}")
    return [table.rows[row_id].values for row_id in table.having(owner.id, owner_id)]


def _has_unit(records: ErpRecords, company: str, owner: _Owner, row: Values, code: str) -> bool:
    return any(unit["code"] == code for unit in _units(records, company, owner, row["id"]))


def _base_unit(records: ErpRecords, owner: _Owner, stored: Stored, code: str) -> Stored:
    source = stored.values
    row = {
        **records.blank_row(owner.units),
        "id": _unit_id(source["id"], code),
        owner.id: source["id"],
        owner.number: source["number"],
        "code": code,
        "unitGroupId": _group_id(source["id"]),
        "systemRowVersion": stored.version,
        "lastModifiedDateTime": source["lastModifiedDateTime"],
    }
    return Stored(row, stored.version)


def _unit_id(owner_id: str, code: str) -> str:
    return str(uuid.uuid5(uuid.UUID(owner_id), f"unit {code}"))


def _group_id(owner_id: str) -> str:
    return EMPTY_GUID if owner_id == EMPTY_GUID else str(uuid.uuid5(uuid.UUID(owner_id), "unit group"))


def _named(owner: _Owner, row: Values) -> str:
    return f"{owner.word} Unit of Measure: {owner.word} No.={row[owner.number]}, Code={row['code']}"


def _same_key(owner: _Owner, row: Values) -> ErpError:
    return ErpError(
        400,
        "Internal_EntityWithSameKeyExists",
        f"The {owner.word} Unit of Measure already exists. Identification fields and values:"
        f" {owner.word} No.='{row[owner.number]}',Code='{row['code']}'",
    )
