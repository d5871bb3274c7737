"""One entity of Business Central as it is answered: itself, what a navigation of it leads to, a single property."""

from __future__ import annotations

from drawbar.sandbox.erp.addresses import row_of
from drawbar.sandbox.erp.call import Call
from drawbar.sandbox.erp.model import EntitySet, etag, no_resource
from drawbar.sandbox.erp.reading import ErpReader
from drawbar.sandbox.erp.records import ErpRecords
from drawbar.sandbox.odata_reply import nothing, ok
from drawbar.sandbox.store import Stored
from drawbar.sandbox.wire import Reply


class Entities:
    def __init__(self, records: ErpRecords, reader: ErpReader) -> None:
        self._records = records
        self._reader = reader

    def read(self, call: Call, entity_set: EntitySet, row_id: str) -> Reply:
        call.caller.demand(entity_set, "read")
        return self.shown(call, entity_set, row_of(self._records, call.company, entity_set, row_id), 200)

    def shown(self, call: Call, entity_set: EntitySet, stored: Stored, status: int) -> Reply:
        """An entity that the caller may read, as the request asks for it."""
        shape = self._reader.shape(call.company, entity_set, call.options, call.caller.demand_read)
        entity = shape(stored)
        name = stored.values.get("address", entity_set.name) if entity_set.part else entity_set.name
        address = f"companies({call.company})/{name}"
        reply = ok({"@odata.context": f"{call.api.url}/$metadata#{address}/$entity", **entity}, status)
        switches = self._records.switches
        if switches["erp_etag_header"]:
            reply.headers["ETag"] = etag(stored.version, switches["erp_etag_form"])
        if status == 201 and switches["erp_location_header"]:
            reply.headers["Location"] = f"{call.api.url}/{address}({stored.values['id']})"
        return reply

    def property(self, call: Call, entity_set: EntitySet, row_id: str, name: str) -> Reply:
        """Of one name: a navigation, or a column."""
        call.caller.demand(entity_set, "read")
        stored = row_of(self._records, call.company, entity_set, row_id)
        if name in entity_set.navigations:
            set_name, column = entity_set.navigations[name]
            other = self._records.sets[set_name]
            call.caller.demand(other, "read")
            found = self._records.find(call.company, other, stored.values.get(column, ""))
            return nothing() if found is None else self.shown(call, other, found, 200)
        if name not in entity_set.columns:
            raise no_resource(name)
        context = f"{call.api.url}/$metadata#companies({call.company})/{entity_set.name}({row_id})/{name}"
        value = self._reader.shown(call.company, entity_set, stored)[name]
        return ok({"@odata.context": context, "value": value})
