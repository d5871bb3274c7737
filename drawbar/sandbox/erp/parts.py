"""What hangs on a record of Business Central: entities that are made of another's row, and rows that name their parent.

A picture, a document as PDF and the lines of a dimension set are no rows of their own. They are made of the record they
belong to (the owner), are reached through it alone, and writing one of them writes the owner.
"""

from __future__ import annotations

import base64
from typing import Any

from drawbar.sandbox.erp.model import EMPTY_GUID, EntitySet, not_allowed, refusal
from drawbar.sandbox.erp.records import ErpRecords, SetRules
from drawbar.sandbox.store import Stored, Values


class PartRules(SetRules):
    """Entities of a set that are made of an owner. What is written comes back as the owner's row."""

    def of(self, records: ErpRecords, company: str, owner: EntitySet, stored: Stored) -> list[Stored]:  # noqa: ARG002
        """Those of one owner; their version is the owner's."""
        return []

    def with_new(self, records: ErpRecords, company: str, row: Values, body: Values) -> Values:  # noqa: ARG002
        """The owner's row with one more."""
        raise not_allowed("POST")

    def with_changed(self, records: ErpRecords, company: str, row: Values, part: Values, body: Values) -> Values:  # noqa: ARG002
        raise not_allowed("PATCH")

    def without(self, records: ErpRecords, company: str, row: Values, part: Values) -> Values:  # noqa: ARG002
        raise not_allowed("DELETE")

    def with_content(self, row: Values, content: bytes) -> Values:  # noqa: ARG002
        raise not_allowed("PATCH")

    def content(self, records: ErpRecords, company: str, owner: EntitySet, row: Values) -> bytes:  # noqa: ARG002
        """What the stream of the part of an owner has."""
        return b""

    def below(self, records: ErpRecords, company: str, column: str, parent_id: str) -> list[Stored]:  # noqa: ARG002
        """Of the owner with an id, whatever set it is of."""
        for owner in records.sets.values():
            if any(records.rules_of(name) is self for name, _ in owner.collections.values()):
                stored = records.find(company, owner, parent_id)
                if stored is not None:
                    return self.of(records, company, owner, stored)
        return []


def part_rules(records: ErpRecords, part_set: EntitySet) -> PartRules:
    rules = records.rules_of(part_set.name)
    if not isinstance(rules, PartRules):
        raise TypeError(f"{part_set.name} is no set of parts")
    return rules


def address(owner: EntitySet, row: Values, name: str) -> str:
    """Where a part of an entity is, below the company."""
    return f"{owner.name}({row['id']})/{name}"


def parent_of(records: ErpRecords, company: str, collection: str, row: Values) -> EntitySet | None:
    """The set of the record that a row of a collection names by `parentId`; with a `parentType` it is one of these."""
    for owner in records.sets.values():
        if collection not in owner.collections or (row["parentType"] not in ("_x0020_", owner.kind)):
            continue
        if row["parentId"] in records.rows(company, owner.name):
            return owner
    return None


def carry_files(records: ErpRecords, company: str, source_id: str, target: EntitySet, target_id: str, app: str) -> None:
    """The attachments of a document are those of the document made of it, too."""
    for set_name, column in target.collections.values():
        if column != "parentId" or "attachmentContent" not in records.sets[set_name].columns:
            continue
        table = records.store.table(f"{company}/{set_name}")
        for child_id in table.having(column, source_id):
            row = {**table.rows[child_id].values, "id": records.store.new_id()}
            row |= {"parentId": target_id, "parentType": target.kind, "lastModifiedDateTime": records.now}
            records.store.put(f"{company}/{set_name}", row["id"], row, note=app)


class AttachmentRules(SetRules):
    """Files at a record. `strict`: the record must be there; else the file is kept without one."""

    def __init__(self, set_name: str, *, strict: bool) -> None:
        self._set = set_name
        self._strict = strict

    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:
        row.setdefault("attachmentContent", "")
        row["byteSize"] = len(base64.b64decode(row["attachmentContent"]))
        if not _is_file_name(row["fileName"]):
            row["fileName"] = "filename.txt"
        if before is not None:
            return
        owner = parent_of(records, company, self._set, row) if row["parentId"] != EMPTY_GUID else None
        if owner is not None:
            row["parentType"] = owner.kind
        elif self._strict:
            text = f"The document with ID {row['parentId']} cannot be found."
            raise refusal(text)
        else:
            row["parentId"], row["parentType"] = EMPTY_GUID, "_x0020_"


def _is_file_name(name: str) -> bool:
    return bool(name.strip()) and not any(mark in name for mark in '\\/:*?"<>|')


def encoded(content: bytes) -> str:
    """How the content of a stream is kept in a row."""
    return base64.b64encode(content).decode()


def decoded(row: Values, name: str) -> bytes:
    kept: Any = row.get(name, "")
    return base64.b64decode(kept)
