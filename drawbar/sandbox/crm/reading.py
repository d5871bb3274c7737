"""How Dataverse's rows are found and shown: columns, lookups, annotations. Reads rows, writes none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drawbar.sandbox.crm.apply import Applied, formatted, read_apply, run_apply
from drawbar.sandbox.crm.associations import partners
from drawbar.sandbox.crm.expand import Expand, as_query, is_nested, read_expands, tables_of
from drawbar.sandbox.crm.model import LOOKUPS, Association, Attribute, CrmError, CrmSchema, Entity, etag, label
from drawbar.sandbox.crm.paging import PAGE, write_cookie
from drawbar.sandbox.crm.records import CrmRecords
from drawbar.sandbox.odata import (
    Order,
    Predicate,
    QueryError,
    compile_filter,
    conditions_in,
    parse_filter,
    parse_order,
    sort_rows,
    sort_values,
    split_list,
    whole_number,
)
from drawbar.sandbox.store import Stored, Values

_ALIAS = re.compile(r"('(?:[^']|'')*')|(@\w+)")
CONDITIONS = 500  # that one query has at most
Included = Callable[[str], bool]
Sees = Callable[[Entity], Callable[[str, Values], bool]]  # which rows of a table may be read; raises when none may
_FORMATTED = "OData.Community.Display.V1.FormattedValue"
_LOGICAL = "Microsoft.Dynamics.CRM.lookuplogicalname"
_NAVIGATION = "Microsoft.Dynamics.CRM.associatednavigationproperty"
_OPTIONS = frozenset(
    ("$filter", "$select", "$orderby", "$top", "$count", "$expand", "$skiptoken", "$deltatoken", "annotations")
)


def check_options(options: Iterable[str]) -> None:
    """Raises CrmError for an option that no query has."""
    for option in options:
        if option not in _OPTIONS and not option.startswith("@") and option != "tag":
            raise CrmError(400, "0x80060888", f"The query parameter {option} is not supported.")


@dataclass(frozen=True, slots=True)
class Within:
    """The rows of a table that point to one row, or are joined with it, and how they are addressed."""

    lookup: str
    row_id: str
    address: str
    association: Association | None = None


class CrmReader:
    """`sees` is for one who may not read everything; what he may not read is not there for him."""

    def __init__(self, records: CrmRecords, base_url: str, sees: Sees | None = None) -> None:
        self._records = records
        self._base_url = base_url
        self._sees = sees
        self._predicates: dict[tuple[str, str], Predicate] = {}
        self.schemas = {
            entity.logical: CrmSchema(entity, self._follow, self._below, records.store.clock.now)
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
            if self._records.switches["crm_date_columns"] == "Edm.DateTimeOffset":
                shown |= {name: f"{shown[name]}T00:00:00Z" for name in entity.dates if shown[name] is not None}
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
                seen = self._sees is None or self._sees(other)(row_id, stored.values)
                return (other, row_id, stored) if seen else None
        return None

    def _below(self, entity: Entity, row: Mapping[str, Any], name: str) -> Iterator[Values]:
        """The rows of a collection of one row."""
        children = self._records.entities[entity.many[name]]
        rows = self._records.store.table(children.logical).rows
        association = entity.associations.get(name)
        lookup = "" if association else entity.collections[name][1]
        for row_id in self._readable(children, self.ids(children, Within(lookup, row[entity.id], "", association))):
            yield self.shown(children, row_id, rows[row_id])

    def _readable(self, entity: Entity, ids: Iterable[str]) -> Iterable[str]:
        if self._sees is None:
            return ids
        seen, rows = self._sees(entity), self._records.store.table(entity.logical).rows
        return [row_id for row_id in ids if seen(row_id, rows[row_id].values)]

    def _predicate(self, entity: Entity, text: str) -> Predicate:
        key = (entity.logical, text)
        known = self._predicates.get(key)
        if known is None:
            node = parse_filter(text)
            if conditions_in(node) > CONDITIONS:
                raise CrmError(400, "0x8004430C", "Number of conditions in query exceeded maximum limit.")
            known = compile_filter(node, self.schemas[entity.logical])
            if len(self._predicates) > 1000:
                self._predicates.clear()
            self._predicates[key] = known
        return known

    def ids(self, entity: Entity, within: Within) -> list[str]:
        if within.association is not None:
            return partners(self._records, within.association, within.row_id)
        return self._records.store.table(entity.logical).having(within.lookup, within.row_id)

    def matching(self, entity: Entity, options: Mapping[str, str], within: Within | None = None) -> list[Values]:
        check_options(options)
        table = self._records.store.table(entity.logical)
        ids = self._readable(entity, table.rows if within is None else self.ids(entity, within))
        rows = [self.shown(entity, row_id, table.rows[row_id]) for row_id in ids]
        text = options.get("$filter")
        if text is None:
            return rows
        predicate = self._predicate(entity, with_aliases(text, options))
        return [row for row in rows if predicate(row)]

    def shape(
        self, entity: Entity, options: Mapping[str, str], included: Included, *, page: int | None = None
    ) -> Callable[[Values], Values]:
        """From a whole row to what the request asked of it: columns, expanded rows, annotations.

        `page`: how many rows of a collection are shown at once, where an expanded row is expanded itself.
        """
        expands = self.expands(entity, options)
        size = min(page or PAGE, PAGE) if is_nested(expands) else None
        return self._shape(entity, options, expands, included, size)

    def expands(self, entity: Entity, options: Mapping[str, str]) -> tuple[Expand, ...]:
        if "$expand" not in options:
            return ()
        return read_expands(entity, with_aliases(options["$expand"], options), self._records.entities)

    def _shape(
        self,
        entity: Entity,
        options: Mapping[str, str],
        expanded: Sequence[Expand],
        included: Included,
        size: int | None,
    ) -> Callable[[Values], Values]:
        schema = self.schemas[entity.logical]
        names = split_list(options.get("$select", ""))
        for name in names:
            known = name in entity.navigations or name in entity.many
            if name != "*" and not known:
                schema.property((name,))
        expands = [self._expanded(entity, expand, included, size) for expand in expanded]
        annotate = included(_FORMATTED) or included(_LOGICAL) or included(_NAVIGATION)
        columns = None
        if names and "*" not in names:
            lookups = {entity.navigations[name][0].wire_name for name in names if name in entity.navigations}
            references = {entity.navigations[one.name][0].wire_name for one in expanded if one.reference}
            columns = {"@odata.etag", entity.id, *names, *lookups, *references}
        if columns is None and not expands and not annotate:
            return itself

        def shaped(row: Values) -> Values:
            chosen = {name: value for name, value in row.items() if columns is None or name in columns}
            if annotate:
                chosen = self._annotated(entity, row, chosen, included)
            for expand in expands:
                chosen |= expand(row)
            return chosen

        return shaped

    def _expanded(
        self, entity: Entity, expand: Expand, included: Included, size: int | None
    ) -> Callable[[Values], Values]:
        """From a row to the members that an expanded navigation adds to it."""
        name, options = expand.name, expand.options
        if name in entity.navigations:
            return self._expanded_lookup(entity, expand, included, size)
        children = self._records.entities[entity.many[name]]
        shape = self._shape(children, options, expand.inner, included, size)
        orders = self.orders(children, options)
        predicate = self._predicate(children, options["$filter"]) if "$filter" in options else None
        top = top_of(options) if "$top" in options else PAGE
        query = as_query(expand)

        def several(row: Values) -> Values:
            rows = [child for child in self._below(entity, row, name) if predicate is None or predicate(child)]
            sort_rows(rows, orders, row_of=itself)
            shown = rows[:top] if size is None else rows[:size]
            found: Values = {name: [shape(child) for child in shown]}
            address = f"{self._base_url}/{entity.set}({row[entity.id]})/{name}"
            if size is None:
                found[f"{name}@odata.nextLink"] = f"{address}?{query}" if query else address
            elif len(rows) > size:
                bookmark = [sort_values(shown[-1], orders), self._records.store.version]
                cookie = write_cookie(children, shown, 2, bookmark, tracking=False)
                found[f"{name}@odata.nextLink"] = f"{address}?{query}{'&' if query else ''}$skiptoken={cookie}"
            return found

        return several

    def _expanded_lookup(
        self, entity: Entity, expand: Expand, included: Included, size: int | None
    ) -> Callable[[Values], Values]:
        name, options = expand.name, expand.options
        shapes: dict[str, Callable[[Values], Values]] = {}
        attribute, targets = entity.navigations[name]
        if attribute.type == "Owner":
            options = _of_principal(options)
        for target in targets:
            other = self._records.entities.get(target)
            if other is not None and not expand.reference:
                shapes[target] = self._shape(other, options, expand.inner, included, size)

        def one(row: Values) -> Values:
            found = self.behind(entity, row, name)
            if found is None:
                return {name: None}
            other, row_id, _ = found
            if expand.reference:
                return {name: {"@odata.id": f"{self._base_url}/{other.set}({row_id})"}}
            shown = self.shown(*found)
            if "$filter" in options and not self._predicate(other, options["$filter"])(shown):
                return {name: None}
            return {name: shapes[other.logical](shown)}

        return one

    def apply(self, entity: Entity, options: Mapping[str, str]) -> Applied:
        options = {**options, "$apply": with_aliases(options["$apply"], options)}
        return read_apply(entity, options, self.schemas[entity.logical], self._records.entities)

    def applied(
        self, entity: Entity, applied: Applied, options: Mapping[str, str], included: Included, within: Within | None
    ) -> list[Values]:
        """What an aggregation gives, with the annotations that were asked for."""
        predicates = [self._predicate(entity, text) for text in applied.filters]
        rows = [row for row in self.matching(entity, {}, within) if all(predicate(row) for predicate in predicates)]
        made = run_apply(applied, rows, options)
        if not included(_FORMATTED):
            return made
        symbol = self._symbol(self._records.store.fact("base_currency"))

        def text(attribute: Attribute, value: Any) -> str | None:
            if attribute.type in LOOKUPS:
                found: Values = {}
                self._annotate_lookup(entity, attribute, value, found, lambda name: name == _FORMATTED)
                return found.get(f"{attribute.wire_name}@{_FORMATTED}")
            return label(attribute, value, symbol)

        for row in made:
            for name, shown in list(formatted(applied, row, text)):
                row[f"{name}@{_FORMATTED}"] = shown
        return made

    def tables_of(self, entity: Entity, options: Mapping[str, str]) -> list[Entity]:
        """The tables besides its own that a query shows something of."""
        return list(tables_of(entity, self.expands(entity, options), self._records.entities))

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
        return any(part == name or (part.endswith("*") and name.startswith(part[:-1])) for part in names)

    return included


def _of_principal(options: Mapping[str, str]) -> Mapping[str, str]:
    """An owner is a user or a team, of which only what both have can be named."""
    unknown = [name for name in split_list(options.get("$select", "")) if name not in ("ownerid", "*")]
    if unknown:
        raise QueryError(f"Could not find a property named '{unknown[0]}' on type 'Microsoft.Dynamics.CRM.principal'.")
    return {name: value for name, value in options.items() if name != "$select"}


def with_aliases(text: str, options: Mapping[str, str]) -> str:
    """An expression with the values of its parameter aliases (`@p1`), which stand in the query beside it."""
    if "@" not in text:
        return text
    return _ALIAS.sub(lambda match: options.get(match.group(2) or "", match.group(0)), text)


def itself(row: Values) -> Values:
    return row
