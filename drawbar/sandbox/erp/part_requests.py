"""Requests for what hangs on an entity of Business Central: entities that are made of its row, and streams of bytes.

What each kind of part is made of is in `parts` and the modules whose rules derive from it.
"""

from __future__ import annotations

from drawbar.sandbox.erp.addresses import row_id_of, row_of
from drawbar.sandbox.erp.call import Call
from drawbar.sandbox.erp.entities import Entities
from drawbar.sandbox.erp.model import Column, EntitySet, ErpError, no_resource, not_allowed
from drawbar.sandbox.erp.parts import PartRules, decoded, encoded, part_rules
from drawbar.sandbox.erp.records import ErpRecords
from drawbar.sandbox.erp.writing import must_match
from drawbar.sandbox.odata import Segment
from drawbar.sandbox.odata_reply import nothing, octets
from drawbar.sandbox.store import Stored, Values
from drawbar.sandbox.wire import Reply, Request


class PartRequests:
    def __init__(self, records: ErpRecords, entities: Entities) -> None:
        self._records = records
        self._entities = entities

    def answer(self, call: Call, owner: EntitySet, row_id: str, part_set: EntitySet, rest: list[Segment]) -> Reply:
        """Of the parts of one entity: read from it, written into it. `rest`: the segments behind that of the owner."""
        method, key = call.request.method, rest[0].key
        call.caller.demand(owner, "read" if method == "GET" else "write")
        if method not in part_set.verbs:
            raise not_allowed(method)
        rules = part_rules(self._records, part_set)
        stored = row_of(self._records, call.company, owner, row_id)
        if method == "POST":
            if key is not None or len(rest) > 1:
                raise not_allowed(method)
            return self._add(call, owner, stored, part_set, rules)
        part = self._named(call, owner, stored, part_set, rules, key)
        if method != "GET":
            optional = method == "DELETE" and self._records.switches["erp_delete_without_if_match"]
            must_match(call.request, part, part_set.source, optional=optional)
        match len(rest), method:
            case 1, "GET":
                return self._entities.shown(call, part_set, part, 200)
            case 1, "DELETE":
                self._keep(call, owner, rules.without(self._records, call.company, stored.values, part.values))
                return nothing()
            case 1, _:
                row = rules.with_changed(self._records, call.company, stored.values, part.values, call.body())
                parts = rules.of(self._records, call.company, owner, self._keep(call, owner, row))
                changed = next(each for each in parts if each.values["id"] == part.values["id"])
                return self._entities.shown(call, part_set, changed, 200)
        column = part_set.columns.get(rest[1].name)
        if len(rest) > 2 or column is None or column.type != "Stream":
            raise no_resource(rest[1].name)
        if method == "GET":
            return octets(rules.content(self._records, call.company, owner, stored.values))
        _must_be_binary(call.request)
        self._keep(call, owner, rules.with_content(stored.values, call.request.body))
        return nothing()

    def stream(self, call: Call, entity_set: EntitySet, row_id: str, column: Column) -> Reply:
        """A property that is bytes."""
        method = call.request.method
        if method not in ("GET", "PATCH") or (method == "PATCH" and column.access == "read"):
            raise not_allowed(method)
        call.caller.demand(entity_set, "read" if method == "GET" else "write")
        stored = row_of(self._records, call.company, entity_set, row_id)
        if method == "GET":
            return octets(decoded(stored.values, column.name))
        must_match(call.request, stored, entity_set.source, optional=False)
        _must_be_binary(call.request)
        content = encoded(call.request.body)
        self._records.fill(call.company, entity_set.name, row_id, column.name, content, app=call.caller.app)
        return nothing()

    def _add(self, call: Call, owner: EntitySet, stored: Stored, part_set: EntitySet, rules: PartRules) -> Reply:
        known = {part.values["id"] for part in rules.of(self._records, call.company, owner, stored)}
        row = rules.with_new(self._records, call.company, stored.values, call.body())
        parts = rules.of(self._records, call.company, owner, self._keep(call, owner, row))
        made = next(part for part in parts if part.values["id"] not in known)
        return self._entities.shown(call, part_set, made, 201)

    def _named(
        self, call: Call, owner: EntitySet, stored: Stored, part_set: EntitySet, rules: PartRules, key: str | None
    ) -> Stored:
        """The part of a key, or the only one. Raises ErpError when there is none."""
        wanted = None if key is None else row_id_of(key, self._records.switches)
        parts = rules.of(self._records, call.company, owner, stored)
        part = next((each for each in parts if wanted in (None, each.values["id"])), None)
        if part is None or (wanted is None and part_set.part == "many"):
            raise ErpError(404, "BadRequest_ResourceNotFound", f"The {part_set.source} does not exist.")
        return part

    def _keep(self, call: Call, owner: EntitySet, row: Values) -> Stored:
        return self._records.keep(call.company, owner.name, row, app=call.caller.app)


def _must_be_binary(request: Request) -> None:
    given = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    if given == "application/json":
        raise ErpError(400, "BadRequest", "A stream is written with the content type 'application/octet-stream'.")
