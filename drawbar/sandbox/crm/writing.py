"""Rows of Dataverse made, changed and taken away one at a time, with the conditions that a request sets.

Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/perform-conditional-operations-using-web-api
"""

from __future__ import annotations

from drawbar.sandbox.crm.call import Call
from drawbar.sandbox.crm.deep import insert_graph
from drawbar.sandbox.crm.keys import missing
from drawbar.sandbox.crm.model import CrmError, Entity, etag, key_taken
from drawbar.sandbox.crm.records import CrmRecords, Located, no_row
from drawbar.sandbox.crm.reply import prefer
from drawbar.sandbox.crm.rows import Rows
from drawbar.sandbox.odata_reply import nothing
from drawbar.sandbox.store import Stored, Values
from drawbar.sandbox.wire import Reply


class Writer:
    def __init__(self, records: CrmRecords, base_url: str, rows: Rows) -> None:
        self._records = records
        self._base_url = base_url
        self._rows = rows

    def create(self, call: Call, entity: Entity, body: Values, row_id: str | None = None) -> Reply:
        made_id, stored = insert_graph(self._records, entity, body, user=call.user, allow=call.allow, row_id=row_id)
        return self._written(call, entity, made_id, stored, created=True)

    def patch(self, call: Call, entity: Entity, located: Located) -> Reply:
        """Change a row, or make one under the id or the key that the address has."""
        stored = self._records.store.table(entity.logical).rows.get(located.row_id or "")
        match_tag = call.request.headers.get("if-match", "").strip()
        none_tag = call.request.headers.get("if-none-match", "").strip()
        body = call.body(entity)
        if stored is None:
            if match_tag:
                raise missing(entity) if located.key else no_row(entity, located.row_id or "")
            return self.create(call, entity, self._records.with_key(entity, body, located.key), located.row_id)
        row_id = str(located.row_id)
        self._records.with_key(entity, body, located.key)
        if none_tag == "*":
            raise key_taken(f"412 {self._records.switches['crm_create_only_code']}")
        call.allow(entity, "write", row_id)
        _must_match(match_tag, stored)
        stored = self._records.update(entity, row_id, body, user=call.user)
        return self._written(call, entity, row_id, stored, created=False)

    def update(self, call: Call, entity: Entity, row_id: str | None, body: Values) -> Reply:
        """Change some columns of a row, by way of an address that is not its own; None: there is no such row."""
        call.allow(entity, "write", row_id)
        if row_id is None:
            raise missing(entity)
        self._records.update(entity, row_id, body, user=call.user)
        return nothing()

    def write_part(self, call: Call, entity: Entity, row_id: str, body: Values) -> Reply:
        """Change one column of a row, whose address goes on to it."""
        call.allow(entity, "write", row_id)
        _must_match(call.request.headers.get("if-match", "").strip(), self._records.find(entity, row_id))
        self._records.update(entity, row_id, body, user=call.user)
        return nothing()

    def delete(self, call: Call, entity: Entity, row_id: str) -> Reply:
        call.allow(entity, "delete", row_id)
        stored = self._records.find(entity, row_id)
        _must_match(call.request.headers.get("if-match", "").strip(), stored)
        self._records.remove(entity, row_id, user=call.user)
        return nothing()

    def _written(self, call: Call, entity: Entity, row_id: str, stored: Stored, *, created: bool) -> Reply:
        address = f"{self._base_url}/{entity.set}({row_id})"
        if call.preferences.get("return") == "representation":
            call.allow(entity, "read", row_id)
            reply = self._rows.shown(call, entity, row_id, stored, 201 if created else 200)
            prefer(reply, "return=representation")
        else:
            reply = nothing()
        reply.headers["OData-EntityId"] = address
        if created and call.request.method == "POST":
            reply.headers["Location"] = address
        return reply


def _must_match(tag: str, stored: Stored) -> None:
    if tag and tag != "*" and tag != etag(stored.version):
        raise CrmError(
            412, "0x80060882", "The version of the existing record doesn't match the RowVersion property provided."
        )
