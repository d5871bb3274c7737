"""Dataverse's rows that belong together many to many: who is with whom, joined and parted.

A pair is a row of an intersect table, which is read like any other table and written by nobody but this.
Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/associate-disassociate-entities-using-web-api
"""

from __future__ import annotations

import uuid
from typing import Any

from drawbar.sandbox.crm.access import Caller
from drawbar.sandbox.crm.keys import missing
from drawbar.sandbox.crm.model import Association, CrmError, key_taken, not_supported
from drawbar.sandbox.crm.records import CrmRecords, Located
from drawbar.sandbox.store import Values

_IDS = uuid.UUID("c2a1d2be-3c8e-4a5b-9f61-0b1d7f0e4a77")  # a pair has one id, however often it is joined


def partners(records: CrmRecords, association: Association, row_id: str) -> list[str]:
    """Ids of the rows on the other side."""
    pairs = records.store.table(association.intersect)
    return [pairs.rows[pair].values[association.theirs] for pair in pairs.having(association.mine, row_id)]


def pair_id(association: Association, row_id: str, other_id: str) -> str:
    ends = {association.mine: row_id, association.theirs: other_id}
    return str(uuid.uuid5(_IDS, "/".join((association.intersect, *(ends[name] for name in sorted(ends))))))


def to_join(records: CrmRecords, caller: Caller, association: Association, row_id: str, located: Located) -> str:
    """The id of the row to be joined with this one, or parted from it. Raises CrmError when it may not be."""
    other = records.entities[association.other]
    if association.right is None:
        raise not_supported(records.entities[association.intersect], "Associate")
    if located.row_id is None:
        raise missing(other)
    records.find(other, located.row_id)
    table, right = association.right
    decisive_id = located.row_id if table == other.logical else row_id
    decisive = records.entities[table]
    caller.demand(decisive, right, decisive_id, records.find(decisive, decisive_id).values)
    return located.row_id


def join(records: CrmRecords, association: Association, row_id: str, other_id: str, **more: Any) -> None:
    """Raises CrmError when the two are together already."""
    entity = records.entities[association.intersect]
    new_id = pair_id(association, row_id, other_id)
    if new_id in records.store.table(entity.logical).rows:
        raise key_taken(records.switches["crm_taken_answer"])
    pair: Values = {entity.id: new_id, association.mine: row_id, association.theirs: other_id, **more}
    records.store.put(entity.logical, new_id, pair)


def part(records: CrmRecords, association: Association, row_id: str, other_id: str) -> None:
    """Raises CrmError when the two are not together."""
    old_id = pair_id(association, row_id, other_id)
    if old_id not in records.store.table(association.intersect).rows:
        raise CrmError(404, "0x80040217", f"{association.intersect} With Ids = {row_id}, {other_id} Does Not Exist")
    records.store.remove(association.intersect, old_id)


def part_from_all(records: CrmRecords, association: Association, row_id: str) -> None:
    for other_id in partners(records, association, row_id):
        part(records, association, row_id, other_id)
