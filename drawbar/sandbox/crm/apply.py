"""`$apply`: rows of Dataverse filtered, grouped and added up. Pure.

`filter(…)` any number of times, then one `groupby((…),aggregate(…))` or `aggregate(…)`. What OData has besides is
refused, as are groups by date and time and counts of distinct values.
Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/aggregate-data
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from drawbar.sandbox.crm.expand import table_behind
from drawbar.sandbox.crm.model import Attribute, CrmError, Entity
from drawbar.sandbox.odata import Getter, QueryError, Schema, split_list
from drawbar.sandbox.store import Values

AGGREGATED = 50_000  # rows that an aggregate query may look at
_STEP = re.compile(r"(filter|groupby|aggregate)\((.*)\)\Z", re.DOTALL)
_GROUPS = re.compile(r"\(([^()]*)\)\s*(?:,\s*aggregate\((.*)\))?\s*\Z", re.DOTALL)
_AGGREGATE = re.compile(r"(?:(\$count)|([\w/]+)\s+with\s+(\w+))\s+as\s+([A-Za-z_]\w*)\Z")
_METHODS = frozenset(("sum", "average", "min", "max"))
_BESIDE = frozenset(("$apply", "$orderby", "$top", "$count", "annotations", "tag"))


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a row, or of the row that a lookup leads to."""

    shown_as: str
    attribute: Attribute | None  # None: a count
    getter: Getter
    method: str = ""


@dataclass(frozen=True, slots=True)
class Applied:
    """A query that was read. `filters` are still text, since they are read as any filter is."""

    filters: tuple[str, ...]
    groups: tuple[Column, ...]
    aggregates: tuple[Column, ...]
    tables: tuple[Entity, ...]  # that lookups lead to


def read_apply(entity: Entity, options: Mapping[str, str], schema: Schema, entities: Mapping[str, Entity]) -> Applied:
    """Raises CrmError or QueryError for what is not known."""
    for option in options:
        if option not in _BESIDE and not option.startswith("@"):
            raise CrmError(400, "0x80060888", f"The query parameter {option} is not supported together with $apply.")
    filters: list[str] = []
    groups: list[Column] = []
    aggregates: list[Column] = []
    tables: list[Entity] = []

    def column(path: str, shown_as: str, method: str) -> Column:
        names = tuple(path.split("/"))
        table = entity
        for name in names[:-1]:
            behind = table_behind(table, name, entities)
            if name in table.many or behind is None:
                raise QueryError(f"'{path}' does not lead to a column.")
            table = behind
            tables.append(table)
        attribute = table.by_wire_name.get(names[-1])
        if attribute is None:
            raise QueryError(
                f"Could not find a property named '{names[-1]}' on type 'Microsoft.Dynamics.CRM.{table.logical}'."
            )
        if method and attribute.type == "Money" and f"{attribute.name}_base" in table.attributes:
            names = (*names[:-1], f"{names[-1]}_base")  # amounts of several currencies have no other sum
        getter, _ = schema.property(names)
        own = names[-1] if len(names) == 1 else f"{table.logical}_{names[-1]}"
        return Column(shown_as or own, attribute, getter, method)

    def read_aggregates(text: str) -> Iterator[Column]:
        for part in split_list(text):
            match = _AGGREGATE.match(part)
            if match is None:
                raise QueryError(f"The aggregate expression '{part}' is not supported.")
            count, path, method, alias = match.groups()
            if count:
                yield Column(alias, None, lambda row: row, "count")
                continue
            if method not in _METHODS:
                raise QueryError(f"The aggregation method '{method}' is not supported.")
            found = column(path, alias, method)
            _check_method(found, path)
            yield found

    steps = split_list(options["$apply"], "/")
    for index, step in enumerate(steps):
        match = _STEP.match(step)
        if match is None:
            raise QueryError(f"The transformation '{step}' of $apply is not supported.")
        kind, inside = match.groups()
        if kind == "filter":
            filters.append(inside)
        elif kind == "aggregate":
            aggregates += read_aggregates(inside)
        else:
            parts = _GROUPS.match(inside.strip())
            if parts is None or not split_list(parts.group(1)):
                raise QueryError(f"The grouping '{inside}' of $apply is not supported.")
            groups += [column(path, "", "") for path in split_list(parts.group(1))]
            aggregates += read_aggregates(parts.group(2)) if parts.group(2) else []
        if kind != "filter" and index + 1 < len(steps):
            raise QueryError(f"Nothing can follow '{kind}' in $apply.")
    if not groups and not aggregates:
        raise QueryError("$apply neither groups nor aggregates.")
    for group in groups:
        if group.attribute is not None and group.attribute.type == "DateTime":
            raise QueryError(f"Grouping by '{group.shown_as}' is not supported: it is of type date and time.")
    shown = [one.shown_as for one in (*groups, *aggregates)]
    if len(shown) != len(set(shown)):
        raise QueryError("A name occurs more than once in $apply.")
    return Applied(tuple(filters), tuple(groups), tuple(aggregates), tuple(tables))


def _check_method(column: Column, path: str) -> None:
    kind = column.attribute.kind if column.attribute else ""
    if column.method in ("sum", "average") and kind != "number":
        raise QueryError(f"'{column.method}' of '{path}' is not supported: it is no number.")
    if kind in ("guid", "bool"):
        raise QueryError(f"'{column.method}' of '{path}' is not supported.")


def run_apply(applied: Applied, rows: Sequence[Values], options: Mapping[str, str]) -> list[Values]:
    """One row for each group, in the order that is asked for or that of their values. Raises CrmError for too many."""
    if len(rows) > AGGREGATED:
        raise CrmError(400, "0x8004E023", "The maximum record limit is exceeded. Reduce the number of records.")
    by_group: dict[tuple[Any, ...], list[Values]] = {} if applied.groups else {(): []}
    shown: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for row in rows:
        values = tuple(group.getter(row) for group in applied.groups)
        key = tuple(_folded(value) for value in values)
        shown.setdefault(key, values)
        by_group.setdefault(key, []).append(row)
    made: list[Values] = []
    for key in sorted(by_group, key=lambda values: [_rank(value) for value in values]):
        named = zip(applied.groups, shown.get(key, ()), strict=True) if applied.groups else ()
        found: Values = {group.shown_as: value for group, value in named if value is not None}
        for column in applied.aggregates:
            found[column.shown_as] = _aggregate(column, by_group[key])
        made.append(found)
    for name, descending in reversed(list(_orders(applied, options))):
        made.sort(key=lambda row, name=name: _rank(_folded(row.get(name))), reverse=descending)  # type: ignore[misc]
    top = options.get("$top", "")
    if top and not top.isdigit():
        raise CrmError(400, "0x80060888", "The value of $top is not a whole number.")
    return made[: int(top)] if top else made


def _orders(applied: Applied, options: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    groups = {group.shown_as for group in applied.groups}
    for part in split_list(options.get("$orderby", "")):
        name, _, direction = part.partition(" ")
        if name not in groups or direction not in ("", "asc", "desc"):
            raise QueryError("The query node SingleValueOpenPropertyAccess is not supported")
        yield name, direction == "desc"


def _aggregate(column: Column, rows: Iterable[Values]) -> Any:
    if column.attribute is None:
        return sum(1 for _ in rows)
    held = [value for row in rows if (value := column.getter(row)) is not None]
    if not held:
        return None
    match column.method:
        case "min":
            return min(held, key=_folded)
        case "max":
            return max(held, key=_folded)
    total = sum((Decimal(str(value)) for value in held), Decimal(0))
    if column.method == "average":
        total /= len(held)
    return int(total) if column.method == "sum" and all(isinstance(value, int) for value in held) else float(total)


def _folded(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value


def _rank(value: Any) -> tuple[bool, Any]:
    return (value is not None, value)


Label = Callable[[Attribute, Any], str | None]


def formatted(applied: Applied, row: Values, label: Label) -> Iterator[tuple[str, str]]:
    """The values of a row that have a formatted one beside them."""
    for column in (*applied.groups, *applied.aggregates):
        value = row.get(column.shown_as)
        if value is None:
            continue
        text = f"{value:,}" if column.attribute is None else label(column.attribute, value)
        if text is not None:
            yield column.shown_as, text
