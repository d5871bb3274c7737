"""What the address of a row of Dataverse leads on to: a column, the row behind a lookup, the rows below or beside it.

Sources: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/retrieve-entity-using-web-api,
https://learn.microsoft.com/power-apps/developer/data-platform/webapi/associate-disassociate-entities-using-web-api
"""

from __future__ import annotations

from drawbar.sandbox.crm.associations import join, part, to_join
from drawbar.sandbox.crm.call import Call
from drawbar.sandbox.crm.keys import missing
from drawbar.sandbox.crm.lists import Lists
from drawbar.sandbox.crm.model import CrmError, Entity, no_method, no_resource, payload_error
from drawbar.sandbox.crm.reading import Within
from drawbar.sandbox.crm.records import CrmRecords, Located, no_row
from drawbar.sandbox.crm.rows import Rows
from drawbar.sandbox.crm.writing import Writer
from drawbar.sandbox.odata import Segment
from drawbar.sandbox.odata_reply import nothing, ok, plain
from drawbar.sandbox.wire import Reply


class Parts:
    def __init__(self, records: CrmRecords, base_url: str, rows: Rows, lists: Lists, writer: Writer) -> None:
        self._records = records
        self._base_url = base_url
        self._rows = rows
        self._lists = lists
        self._writer = writer

    def answer(self, call: Call, entity: Entity, row_id: str, rest: list[Segment]) -> Reply:
        """`rest`: the segments behind that of the row."""
        name = rest[0].name
        self._records.find(entity, row_id)  # whatever is asked of it, the row must be there
        if name in entity.navigations:
            return self._behind(call, entity, row_id, rest)
        if name in entity.associations:
            return self._beside(call, entity, row_id, rest)
        if name in entity.collections:
            return self._below(call, entity, row_id, rest)
        return self._column(call, entity, row_id, rest)

    def _column(self, call: Call, entity: Entity, row_id: str, rest: list[Segment]) -> Reply:
        name, method = rest[0].name, call.request.method
        attribute = entity.by_wire_name.get(name)
        if attribute is None or attribute.secret:
            raise no_resource(name)
        if method in ("PUT", "DELETE") and len(rest) == 1:
            value = None if method == "DELETE" else _member(call, entity, "value")
            return self._writer.write_part(call, entity, row_id, {name: value})
        if method != "GET":
            raise no_method(method, "here")
        is_raw = [segment.name for segment in rest[1:]] == ["$value"]
        if len(rest) > 1 and not is_raw:
            raise no_method(method, "on this part of a record")
        call.allow(entity, "read", row_id)
        value = call.reader.shown(entity, row_id, self._records.find(entity, row_id))[name]
        if value is None:
            return nothing()
        if is_raw:
            return plain(str(value).lower() if isinstance(value, bool) else str(value))
        context = f"{self._base_url}/$metadata#{entity.set}({row_id})/{name}"
        return ok({"@odata.context": context, "value": value})

    def _behind(self, call: Call, entity: Entity, row_id: str, rest: list[Segment]) -> Reply:
        """What a lookup leads to: the row, its address, a part of it. Its address can be put there, or taken away."""
        name, method = rest[0].name, call.request.method
        is_reference = [segment.name for segment in rest[1:]] == ["$ref"]
        if is_reference and method in ("PUT", "DELETE"):
            reference = None if method == "DELETE" else _member(call, entity, "@odata.id")
            return self._writer.write_part(call, entity, row_id, {f"{name}@odata.bind": reference})
        if method != "GET" and (is_reference or len(rest) == 1):
            raise no_method(method, "on a lookup")
        call.allow(entity, "read", row_id)
        shown = call.reader.shown(entity, row_id, self._records.find(entity, row_id))
        found = call.reader.behind(entity, shown, name)
        if found is None:
            if method != "GET":
                raise CrmError(404, "0x80040217", f"The lookup '{name}' leads to no row.")
            return nothing()
        other, other_id, stored = found
        if is_reference:
            address = f"{self._base_url}/{other.set}({other_id})"
            return ok({"@odata.context": f"{self._base_url}/$metadata#$ref", "@odata.id": address})
        if len(rest) > 1:
            return self.answer(call, other, other_id, rest[1:])
        call.allow(other, "read")
        return self._rows.shown(call, other, other_id, stored, 200)

    def _below(self, call: Call, entity: Entity, row_id: str, rest: list[Segment]) -> Reply:
        """The rows that point to this one: listed, counted, made, associated, disassociated."""
        if call.request.method == "GET":
            call.allow(entity, "read", row_id)
        table, lookup = entity.collections[rest[0].name]
        children = self._records.entities[table]
        bind = f"{children.navigation_of(children.attributes[lookup], entity.logical)}@odata.bind"
        here = f"/{entity.set}({row_id})"
        within = Within(lookup, row_id, f"{entity.set}({row_id})/{rest[0].name}")
        listed = self._listed(call, children, within, rest)
        if listed is not None:
            return listed
        match call.request.method, _next(rest), rest[0].key:
            case "GET", "", key if key is not None:
                child = self._records.locate(children, key)
                if child.row_id is None or child.row_id not in call.reader.ids(children, within):
                    raise missing(children) if child.key else no_row(children, child.row_id or "")
                if len(rest) > 1:
                    raise no_resource(rest[1].name)
                return self._rows.read(call, children, child.row_id)
            case "POST", "", None:
                return self._writer.create(call, children, {**call.body(children), bind: here})
            case "POST", "$ref", None:
                child = self._records.located(children, call.body(children).get("@odata.id"))
                return self._writer.update(call, children, child.row_id, {bind: here})
            case "DELETE", "$ref", key:
                child = self._named(call, children, key)
                if child.row_id is not None and child.row_id not in call.reader.ids(children, within):
                    raise no_row(children, child.row_id)
                return self._writer.update(call, children, child.row_id, {bind: None})
        raise no_method(call.request.method, "here")

    def _beside(self, call: Call, entity: Entity, row_id: str, rest: list[Segment]) -> Reply:
        """The rows that belong together with this one: listed, counted, joined, parted."""
        if call.request.method == "GET":
            call.allow(entity, "read", row_id)
        association = entity.associations[rest[0].name]
        other = self._records.entities[association.other]
        within = Within("", row_id, f"{entity.set}({row_id})/{rest[0].name}", association)
        listed = self._listed(call, other, within, rest)
        if listed is not None:
            return listed
        match call.request.method, _next(rest), rest[0].key:
            case "POST", "$ref", None:
                located = self._records.located(other, call.body(other).get("@odata.id"))
                other_id = to_join(self._records, call.caller, association, row_id, located)
                join(self._records, association, row_id, other_id)
                return nothing()
            case "DELETE", "$ref", key:
                located = self._named(call, other, key)
                other_id = to_join(self._records, call.caller, association, row_id, located)
                part(self._records, association, row_id, other_id)
                return nothing()
        raise no_method(call.request.method, "here")

    def _listed(self, call: Call, entity: Entity, within: Within, rest: list[Segment]) -> Reply | None:
        """Rows, their number or their addresses; None where something else is asked."""
        match call.request.method, _next(rest), rest[0].key:
            case "GET", "", None:
                return self._lists.rows(call, entity, within)
            case "GET", "$count", None:
                return self._lists.count(call, entity, within)
            case "GET", "$ref", None:
                return self._lists.references(call, entity, within)
        return None

    def _named(self, call: Call, entity: Entity, key: str | None) -> Located:
        """The row to be taken away, which the address names, or the option `$id`."""
        return self._records.locate(entity, key) if key else self._records.located(entity, call.options.get("$id"))


def _member(call: Call, entity: Entity, name: str) -> object:
    """The member of the body that says what is to be put there. Raises CrmError when it is not there."""
    body = call.body(entity)
    if name not in body:
        raise payload_error(entity, f"The body has no '{name}'.")
    return body[name]


def _next(rest: list[Segment]) -> str:
    return rest[1].name if len(rest) > 1 else ""
