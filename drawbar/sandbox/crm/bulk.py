"""Dataverse's messages about many rows of a table: CreateMultiple, UpdateMultiple, UpsertMultiple. All or none.

Source: https://learn.microsoft.com/power-apps/developer/data-platform/bulk-operations
"""

from __future__ import annotations

from drawbar.sandbox.crm.call import Call
from drawbar.sandbox.crm.conditions import NAMESPACE
from drawbar.sandbox.crm.keys import missing
from drawbar.sandbox.crm.model import (
    CrmError,
    Entity,
    key_taken,
    no_resource,
    not_supported,
    payload_error,
    to_stored,
)
from drawbar.sandbox.crm.operations import BULK
from drawbar.sandbox.crm.records import CrmRecords, Located, no_row
from drawbar.sandbox.odata_reply import nothing, ok
from drawbar.sandbox.store import Values
from drawbar.sandbox.wire import Reply


def write_many(call: Call, records: CrmRecords, base_url: str, entity: Entity, message: str) -> Reply:
    if message == "DeleteMultiple":
        raise CrmError(501, "0x80040800", "DeleteMultiple has not yet been implemented.")
    if message not in BULK:
        raise no_resource(NAMESPACE + message)
    if not entity.bulk:
        raise not_supported(entity, message)
    targets = call.body(entity).get("Targets")
    if not isinstance(targets, list) or not targets:
        raise payload_error(entity, "The parameter 'Targets' is a list of records.")
    written: list[str] = []
    for target in targets:
        kind = str(target.get("@odata.type", "")).removeprefix("#") if isinstance(target, dict) else ""
        if kind != NAMESPACE + entity.logical:
            raise payload_error(entity, f"A target does not say '@odata.type': '{NAMESPACE}{entity.logical}'.")
        row_id = _write_one(call, records, entity, message, {n: v for n, v in target.items() if n != "@odata.type"})
        in_order = message == "UpdateMultiple" and records.switches["crm_repeated_targets"] == "in_order"
        if row_id in written and not in_order:
            raise key_taken(records.switches["crm_taken_answer"])
        written.append(row_id)
    if message != "CreateMultiple":
        return nothing()
    return ok({"@odata.context": f"{base_url}/$metadata#{NAMESPACE}CreateMultipleResponse", "Ids": written})


def _write_one(call: Call, records: CrmRecords, entity: Entity, message: str, body: Values) -> str:
    if message == "CreateMultiple":
        call.allow(entity, "create")
        return records.insert(entity, body, user=call.user)[0]
    address = body.pop("@odata.id", None)
    if address is not None:
        located = records.located(entity, address)
    elif body.get(entity.id):
        located = Located(to_stored(entity, entity.attributes[entity.id], body.pop(entity.id)), {})
    else:
        raise payload_error(entity, f"A target names neither '{entity.id}' nor '@odata.id'.")
    if located.row_id is not None and located.row_id in records.store.table(entity.logical).rows:
        call.allow(entity, "write", located.row_id)
        records.update(entity, located.row_id, body, user=call.user)
        return located.row_id
    if message == "UpdateMultiple":
        raise missing(entity) if located.key else no_row(entity, located.row_id or "")
    call.allow(entity, "create")
    if set(located.key) & set(body):
        raise CrmError(400, "0x80040203", "The columns of the key stand in '@odata.id' and in the target.")
    body = records.with_key(entity, body, located.key)
    return records.insert(entity, body, user=call.user, row_id=located.row_id)[0]
