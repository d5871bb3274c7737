"""One row of Dataverse as it is answered: with its columns, what is expanded, and its version."""

from __future__ import annotations

from drawbar.sandbox.crm.call import Call
from drawbar.sandbox.crm.expand import in_context
from drawbar.sandbox.crm.model import Entity, etag
from drawbar.sandbox.crm.reading import check_options
from drawbar.sandbox.crm.records import CrmRecords
from drawbar.sandbox.odata_reply import ok
from drawbar.sandbox.store import Stored
from drawbar.sandbox.wire import Reply


def context_of(call: Call, entity: Entity, base_url: str) -> str:
    """The `@odata.context` of rows of a table, which names the columns that were chosen."""
    chosen = in_context(call.options, call.reader.expands(entity, call.options))
    return f"{base_url}/$metadata#{entity.set}{chosen}"


class Rows:
    def __init__(self, records: CrmRecords, base_url: str) -> None:
        self._records = records
        self._base_url = base_url

    def read(self, call: Call, entity: Entity, row_id: str) -> Reply:
        call.allow(entity, "read", row_id)
        check_options(call.options)
        stored = self._records.find(entity, row_id)
        tag = call.request.headers.get("if-none-match")
        always = "odata.include-annotations" in call.preferences or "$expand" in call.options
        if tag == etag(stored.version) and not always:
            return Reply(304, b"", {"ETag": etag(stored.version)})
        return self.shown(call, entity, row_id, stored, 200)

    def shown(self, call: Call, entity: Entity, row_id: str, stored: Stored, status: int) -> Reply:
        """A row that the caller may read, as the request asks for it."""
        call.allow_expanded(entity)
        shape = call.reader.shape(entity, call.options, call.included)
        row = shape(call.reader.shown(entity, row_id, stored))
        reply = ok({"@odata.context": f"{context_of(call, entity, self._base_url)}/$entity", **row}, status)
        if self._records.switches["crm_etag_header"]:
            reply.headers["ETag"] = etag(stored.version)
        return reply
