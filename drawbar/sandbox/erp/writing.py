"""Entities of Business Central made, changed and taken away by a request, under its `If-Match`."""

from __future__ import annotations

from drawbar.sandbox.erp.addresses import row_of
from drawbar.sandbox.erp.call import Call
from drawbar.sandbox.erp.entities import Entities
from drawbar.sandbox.erp.model import EntitySet, ErpError, entity_changed, is_etag, is_etag_of
from drawbar.sandbox.erp.records import ErpRecords
from drawbar.sandbox.odata_reply import nothing
from drawbar.sandbox.store import Stored, Values
from drawbar.sandbox.wire import Reply, Request


class Writer:
    def __init__(self, records: ErpRecords, entities: Entities) -> None:
        self._records = records
        self._entities = entities
        self._switches = records.switches

    def create(self, call: Call, entity_set: EntitySet, given: Values | None = None) -> Reply:
        """`given`: what the address says of the new entity."""
        call.caller.demand(entity_set, "create")
        body = {**(given or {}), **call.body(), **(given or {})}
        self._demand_nested(call, entity_set, body)
        stored = self._records.insert(call.company, entity_set.name, body, app=call.caller.app)
        if "return-no-content" in call.request.preferences() and self._switches["erp_return_no_content"]:
            made = self._entities.shown(call, entity_set, stored, 201).headers
            headers = {"OData-Version": "4.0", "Preference-Applied": "return-no-content"}
            return Reply(204, b"", headers | {name: made[name] for name in ("Location",) if name in made})
        nested = [name for name in entity_set.collections if name in body]
        if nested and self._switches["erp_deep_insert_echoes"]:
            call.options.setdefault("$expand", ",".join(nested))
        return self._entities.shown(call, entity_set, stored, 201)

    def _demand_nested(self, call: Call, entity_set: EntitySet, body: Values) -> None:
        """Who makes entities in the body of another needs the right to make them; parts are their owner's."""
        for name in entity_set.collections.keys() & body.keys():
            children = self._records.sets[entity_set.collections[name][0]]
            if children.part:
                continue
            call.caller.demand(children, "create")
            for child in body[name] if isinstance(body[name], list) else ():
                if isinstance(child, dict):
                    self._demand_nested(call, children, child)

    def update(self, call: Call, entity_set: EntitySet, row_id: str) -> Reply:
        call.caller.demand(entity_set, "write")
        stored = row_of(self._records, call.company, entity_set, row_id)
        must_match(call.request, stored, entity_set.source, optional=False)
        stored = self._records.change(call.company, entity_set.name, row_id, call.body(), app=call.caller.app)
        return self._entities.shown(call, entity_set, stored, 200)

    def delete(self, call: Call, entity_set: EntitySet, row_id: str) -> Reply:
        call.caller.demand(entity_set, "delete")
        stored = row_of(self._records, call.company, entity_set, row_id)
        must_match(call.request, stored, entity_set.source, optional=self._switches["erp_delete_without_if_match"])
        self._records.remove(call.company, entity_set.name, row_id, app=call.caller.app)
        return nothing()


def must_match(request: Request, stored: Stored, source: str, *, optional: bool) -> None:
    """Raises ErpError for a tag that is another version's, is none, or is missing though it is not `optional`.

    `source`: the table's name in the product.
    """
    tag = request.headers.get("if-match", "").strip()
    if not tag and not optional:
        raise ErpError(400, "BadRequest_InvalidToken", "The If-Match header is required for this request.")
    if tag in ("", "*"):
        return
    if not is_etag(tag):
        raise ErpError(400, "BadRequest_InvalidToken", "The If-Match header is not a valid entity tag.")
    if not is_etag_of(tag, stored.version):
        raise entity_changed(source)
