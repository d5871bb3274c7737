"""What a Dataverse tells of itself: its sets, its metadata, who asks, and how many rows there are."""

from __future__ import annotations

from drawbar.sandbox.crm.access import CUSTOMIZE
from drawbar.sandbox.crm.call import Call
from drawbar.sandbox.crm.conditions import NAMESPACE
from drawbar.sandbox.crm.csdl import csdl
from drawbar.sandbox.crm.functions import counted_tables, record_counts
from drawbar.sandbox.crm.metadata import EntityDefinitions, key_name
from drawbar.sandbox.crm.model import no_method
from drawbar.sandbox.crm.records import CrmRecords
from drawbar.sandbox.odata import Segment
from drawbar.sandbox.odata_reply import nothing, ok, plain, xml
from drawbar.sandbox.wire import Reply


class About:
    def __init__(self, records: CrmRecords, base_url: str) -> None:
        self._records = records
        self._base_url = base_url
        self._definitions = EntityDefinitions(records.entities, base_url, records.keys.of, records.switches)

    def answer(self, call: Call, segments: list[Segment]) -> Reply | None:
        """None where an address is about something else."""
        first = segments[0] if segments else Segment("", None)
        if first.name in ("", "$metadata", "WhoAmI") and call.request.method != "GET":
            raise no_method(call.request.method, "here")
        match first.name:
            case "":
                return self._service_document()
            case "$metadata":
                return xml(csdl(self._records.entities, self._records.switches))
            case "WhoAmI":
                return self._who_am_i(call)
            case "RetrieveTotalRecordCount":
                return self._record_counts(call, first)
            case "EntityDefinitions":
                return self._definition(call, segments)
        return None

    def _service_document(self) -> Reply:
        sets = [entity.set for entity in self._records.entities.values()]
        return ok(
            {
                "@odata.context": f"{self._base_url}/$metadata",
                "value": [{"name": name, "kind": "EntitySet", "url": name} for name in sets],
            }
        )

    def _who_am_i(self, call: Call) -> Reply:
        return ok(
            {
                "@odata.context": f"{self._base_url}/$metadata#{NAMESPACE}WhoAmIResponse",
                "BusinessUnitId": call.user.get("businessunitid"),
                "UserId": call.user["systemuserid"],
                "OrganizationId": self._records.store.fact("organization_id"),
            }
        )

    def _record_counts(self, call: Call, segment: Segment) -> Reply:
        tables = counted_tables(segment.key, call.options, self._records.entities)
        for entity in tables:
            call.allow(entity, "read")
        counts = record_counts(tables, lambda entity: len(self._records.store.table(entity.logical).rows))
        context = f"{self._base_url}/$metadata#{NAMESPACE}RetrieveTotalRecordCountResponse"
        return ok({"@odata.context": context, **counts})

    def _definition(self, call: Call, segments: list[Segment]) -> Reply:
        """Metadata, of which alternate keys may be written."""
        method, key = call.request.method, segments[0].key
        if method == "GET" and segments[-1].name == "$value":
            return plain(str(self._definitions.answer(segments[:-1], call.options).get("value", "")))
        if method == "GET":
            return ok(self._definitions.answer(segments, call.options))
        if key is not None and len(segments) == 2 and segments[1].name == "Keys":
            entity = self._definitions.named(key)
            call.caller.demand_named(CUSTOMIZE)
            if method == "POST" and segments[1].key is None:
                body = call.body(entity)
                schema, columns = body.get("SchemaName"), body.get("KeyAttributes")
                made = self._records.keys.add(
                    entity,
                    schema if isinstance(schema, str) else "",
                    columns if isinstance(columns, list) else [],
                )
                where = f"{self._base_url}/EntityDefinitions(LogicalName='{entity.logical}')/Keys({made.metadata_id})"
                return Reply(204, b"", {"OData-Version": "4.0", "OData-EntityId": where})
            if method == "DELETE" and segments[1].key is not None:
                self._records.keys.drop(entity, key_name(segments[1].key))
                return nothing()
        raise no_method(method, "on metadata")
