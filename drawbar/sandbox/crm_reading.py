"""How Dataverse's rows are found and shown: columns, lookups, annotations. Reads rows, writes none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from drawbar.sandbox.crm_model import LOOKUPS, Attribute, CrmError, CrmSchema, Entity, etag, label
from drawbar.sandbox.crm_records import CrmRecords
from drawbar.sandbox.odata import (
    Order,
    Predicate,
    QueryError,
    compile_filter,
    parse_expand,
    parse_filter,
    parse_order,
    sort_rows,
    split_list,
    whole_number,
)
from drawbar.sandbox.store import Stored, Values

Included = Callable[[str], bool]
_FORMATTED = "OData.Community.Display.V1.FormattedValue"
_LOGICAL = "Microsoft.Dynamics.CRM.lookuplogicalname"
_NAVIGATION = "Microsoft.Dynamics.CRM.associatednavigationproperty"
_OPTIONS = frozenset(
    ("$filter", "$select", "$orderby", "$top", "$count", "$expand", "$skiptoken", "$deltatoken", "annotations")
)


@dataclass(frozen=True, slots=True)
class Within:
    """The rows of a table that point to one row, and how they are addressed."""

    lookup: str
    row_id: str
    address: str


class CrmReader:
    def __init__(self, records: CrmRecords) -> None:
        self._records = records
        self._predicates: dict[tuple[str, str], Predicate] = {}
        self.schemas = {
            entity.logical: CrmSchema(entity, self._follow, records.store.clock.now)
            for entity in records.entities.values()
        }

    def shown(self, entity: Entity, row_id: str, stored: Stored) -> Values:
        """The whole row as it goes out, without annotations, kept with the row until it is written again."""
        if stored.wire is None:
            values = stored.values
            shown: Values = {"@odata.etag": etag(stored.version), entity.id: row_id}
            for attribute in entity.attributes.values():
                if not attribute.secret and not attribute.name.endswith("@type"):
                    shown[attribute.wire_name] = values.get(attribute.name)
            if "versionnumber" in entity.attributes:
                shown["versionnumber"] = stored.version
            stored.wire = shown
        return stored.wire

    def _follow(self, entity: Entity, row: Mapping[str, Any], navigation: str) -> Mapping[str, Any] | None:
        found = self.behind(entity, row, navigation)
        return None if found is None else self.shown(*found)

    def behind(self, entity: Entity, row: Mapping[str, Any], navigation: str) -> tuple[Entity, str, Stored] | None:
        attribute, targets = entity.navigations[navigation]
        row_id = row.get(attribute.wire_name)
        for target in targets:
            other = self._records.entities.get(target)
            stored = self._records.store.table(target).rows.get(row_id) if other and row_id else None
            if other and row_id and stored:
                return other, row_id, stored
        return None

    def _predicate(self, entity: Entity, text: str) -> Predicate:
        key = (entity.logical, text)
        known = self._predicates.get(key)
        if known is None:
            known = compile_filter(parse_filter(text), self.schemas[entity.logical])
            if len(self._predicates) > 1000:
                self._predicates.clear()
            self._predicates[key] = known
        return known

    def matching(self, entity: Entity, options: Mapping[str, str], within: Within | None = None) -> list[Values]:
        for option in options:
            if option not in _OPTIONS and not option.startswith("@") and option != "tag":
                raise CrmError(400, "0x80060888", f"The query parameter {option} is not supported.")
        table = self._records.store.table(entity.logical)
        ids = table.rows if within is None else table.having(within.lookup, within.row_id)
        rows = [self.shown(entity, row_id, table.rows[row_id]) for row_id in ids]
        text = options.get("$filter")
        if text is None:
            return rows
        for name, value in options.items():
            if name.startswith("@"):
                text = text.replace(name, value)
        predicate = self._predicate(entity, text)
        return [row for row in rows if predicate(row)]

    def shape(self, entity: Entity, options: Mapping[str, str], included: Included) -> Callable[[Values], Values]:
        """From a whole row to what the request asked of it: columns, expanded lookups, annotations."""
        schema = self.schemas[entity.logical]
        names = split_list(options.get("$select", ""))
        for name in names:
            if name != "*" and name not in entity.navigations and name not in entity.collections:
                schema.property((name,))
        expands = [
            (name, self._expanded(entity, name, inner, included))
            for name, inner in (parse_expand(options["$expand"]) if "$expand" in options else [])
        ]
        annotate = included(_FORMATTED) or included(_LOGICAL) or included(_NAVIGATION)
        columns = None
        if names and "*" not in names:
            lookups = {entity.navigations[name][0].wire_name for name in names if name in entity.navigations}
            columns = {"@odata.etag", entity.id, *names, *lookups}
        if columns is None and not expands and not annotate:
            return itself

        def shaped(row: Values) -> Values:
            chosen = {name: value for name, value in row.items() if columns is None or name in columns}
            if annotate:
                chosen = self._annotated(entity, row, chosen, included)
            for name, expand in expands:
                chosen[name] = expand(row)
            return chosen

        return shaped

    def _expanded(
        self, entity: Entity, name: str, options: Mapping[str, str], included: Included
    ) -> Callable[[Values], Any]:
        """From a row to what a navigation of it leads to: one row, None, or a list."""
        if name in entity.navigations:

            def one(row: Values) -> Values | None:
                found = self.behind(entity, row, name)
                return None if found is None else self.shape(found[0], options, included)(self.shown(*found))

            return one
        if name not in entity.collections:
            raise QueryError(
                f"Could not find a property named '{name}' on type 'Microsoft.Dynamics.CRM.{entity.logical}'."
            )
        table, lookup = entity.collections[name]
        children = self._records.entities[table]
        shape = self.shape(children, options, included)
        rows = self.matching(children, options)
        sort_rows(rows, self.orders(children, options), row_of=itself)
        top = top_of(options) if "$top" in options else None
        by_parent: dict[str, list[Values]] = {}
        for row in rows:
            by_parent.setdefault(row[children.attributes[lookup].wire_name], []).append(row)
        return lambda row: [shape(child) for child in by_parent.get(row[entity.id], [])[:top]]

    def orders(self, entity: Entity, options: Mapping[str, str]) -> list[Order]:
        """As asked, then by id, so that a page has a definite end."""
        schema = self.schemas[entity.logical]
        orders = parse_order(options["$orderby"], schema) if "$orderby" in options else []
        return [*orders, Order(schema.property((entity.id,))[0], False)]

    def annotated(self, entity: Entity, row: Values, included: Included) -> Values:
        """A row that was found in another way than by this reader's, with the annotations that were asked for."""
        return self._annotated(entity, row, row, included)

    def _annotated(self, entity: Entity, row: Values, chosen: Values, included: Included) -> Values:
        symbol = self._symbol(row.get("_transactioncurrencyid_value"))
        annotated: Values = {}
        for name, value in chosen.items():
            attribute = entity.by_wire_name.get(name)
            if attribute is not None and value is not None:
                if attribute.type in LOOKUPS:
                    self._annotate_lookup(entity, attribute, value, annotated, included)
                elif included(_FORMATTED):
                    text = label(attribute, value, symbol)
                    if text is not None:
                        annotated[f"{name}@{_FORMATTED}"] = text
            annotated[name] = value
        return annotated

    def _annotate_lookup(
        self,
        entity: Entity,
        attribute: Attribute,
        row_id: str,
        annotated: Values,
        included: Included,
    ) -> None:
        for target in attribute.targets:
            stored = self._records.store.table(target).rows.get(row_id) if target in self._records.entities else None
            if stored is None:
                continue
            name = attribute.wire_name
            if included(_FORMATTED):
                annotated[f"{name}@{_FORMATTED}"] = stored.values.get(self._records.entities[target].name, "")
            if included(_NAVIGATION) and attribute.write:
                annotated[f"{name}@{_NAVIGATION}"] = entity.navigation_of(attribute, target)
            if included(_LOGICAL):
                annotated[f"{name}@{_LOGICAL}"] = target
            return

    def _symbol(self, currency_id: str | None) -> str:
        stored = self._records.store.table("transactioncurrency").rows.get(currency_id or "")
        return str(stored.values.get("currencysymbol", "")) if stored else ""


def top_of(options: Mapping[str, str]) -> int:
    number = whole_number(options["$top"])
    if number is None:
        raise CrmError(400, "0x80060888", "The value of $top is not a whole number.")
    return number


def wanted_annotations(preferences: Mapping[str, str]) -> Included:
    """Tells whether an annotation was asked for."""
    wanted = [part.strip() for part in preferences.get("odata.include-annotations", "").split(",")]
    names = [part for part in wanted if part]

    def included(name: str) -> bool:
        return any(part in ("*", name) or (part.endswith(".*") and name.startswith(part[:-1])) for part in names)

    return included


def itself(row: Values) -> Values:
    return row
