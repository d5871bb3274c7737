"""How Dataverse's rows are found and shown: columns, lookups, annotations. Reads rows, writes none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from drawbar.sandbox.crm_model import LOOKUPS, Attribute, CrmError, CrmSchema, Entity, etag, label
from drawbar.sandbox.crm_records import CrmRecords
from drawbar.sandbox.odata import Predicate, QueryError, compile_filter, parse_expand, parse_filter, split_list
from drawbar.sandbox.store import Stored, Values

Included = Callable[[str], bool]
_FORMATTED = "OData.Community.Display.V1.FormattedValue"
_LOGICAL = "Microsoft.Dynamics.CRM.lookuplogicalname"
_NAVIGATION = "Microsoft.Dynamics.CRM.associatednavigationproperty"
_OPTIONS = frozenset(
    ("$filter", "$select", "$orderby", "$top", "$count", "$expand", "$skiptoken", "$deltatoken", "annotations")
)


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

    def matching(self, entity: Entity, options: Mapping[str, str]) -> list[Values]:
        for option in options:
            if option not in _OPTIONS and not option.startswith("@") and option != "tag":
                raise CrmError(400, "0x80060888", f"The query parameter {option} is not supported.")
        rows = [
            self.shown(entity, row_id, stored)
            for row_id, stored in self._records.store.table(entity.logical).rows.items()
        ]
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
            if name != "*" and name not in entity.navigations:
                schema.property((name,))
        expands = parse_expand(options["$expand"]) if "$expand" in options else []
        for name, _ in expands:
            if name not in entity.navigations:
                raise QueryError(
                    f"Could not find a property named '{name}' on type 'Microsoft.Dynamics.CRM.{entity.logical}'."
                )
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
            for name, inner in expands:
                found = self.behind(entity, row, name)
                chosen[name] = None if found is None else self.shape(found[0], inner, included)(self.shown(*found))
            return chosen

        return shaped

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


def wanted_annotations(preferences: Mapping[str, str]) -> Included:
    """Tells whether an annotation was asked for."""
    wanted = [part.strip() for part in preferences.get("odata.include-annotations", "").split(",")]
    names = [part for part in wanted if part]

    def included(name: str) -> bool:
        return any(part in ("*", name) or (part.endswith(".*") and name.startswith(part[:-1])) for part in names)

    return included


def itself(row: Values) -> Values:
    return row
