"""FetchXML: Dataverse's own query language, as far as clients use it. Reads rows, writes none.

Columns, nested filters, links to other tables (inner and outer), order, paging with a cookie, `distinct`, and
aggregates by group. What the language has besides (hierarchies, fiscal periods, `exists` and `any` links, grouping by
date) is refused by name, so that nobody takes a part of an answer for the whole.
"""

from __future__ import annotations

import operator as operators
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from html import escape
from typing import Any
from urllib.parse import quote

from drawbar.sandbox.crm.model import CrmError, Entity
from drawbar.sandbox.crm.patterns import like, literal
from drawbar.sandbox.crm.periods import COUNTED, DATED, PERIODS, Span
from drawbar.sandbox.odata import QueryError, whole_number
from drawbar.sandbox.store import Values

PAGE = 5000
MAX_DEPTH = 50  # of the elements of a query
AGGREGATED = 50_000  # rows that an aggregate query may look at
# What a query's parts are called.
_OF_FETCH = {"version", "mapping", "output-format", "distinct", "count", "page", "paging-cookie", "top", "aggregate",
             "returntotalrecordcount", "no-lock", "latematerialize", "useraworderby"}  # fmt: skip
_OF_LINK = {"name", "from", "to", "alias", "link-type", "visible", "intersect"}

Row = Mapping[str, Any]  # alias ("" for the table itself) -> row of that table, or None
Test = Callable[[Row], bool]
Tables = Mapping[str, Entity]
Shown = Callable[[Entity], Sequence[Values]]


def _wrong(code: str, message: str) -> CrmError:
    return CrmError(400, code, message)


def _unsupported(what: str) -> CrmError:
    return _wrong("0x80041100", f"The sandbox does not know {what} in FetchXML.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """A column that is asked for, or one that is ordered by. `alias` blank: the table itself."""

    table: str
    name: str  # as it stands in the row
    shown_as: str
    aggregate: str = ""
    groups: bool = False
    distinct: bool = False
    descending: bool = False


@dataclass(slots=True, kw_only=True)
class Fetch:
    """One query, read and held against the tables."""

    entity: Entity
    top: int | None = None
    count: int | None = None
    page: int = 1
    distinct: bool = False
    aggregate: bool = False
    total: bool = False
    all_columns: bool = False
    columns: list[_Column] = field(default_factory=list)
    orders: list[_Column] = field(default_factory=list)
    joins: list[_Join] = field(default_factory=list)
    tests: list[Test] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Join:
    entity: Entity
    alias: str
    parent: str  # alias
    mine: str
    theirs: str
    outer: bool
    tests: Sequence[Test]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """One page. `rows` as they go out but for annotations; of one table's own columns the whole row stands beside."""

    rows: list[Values]
    cookie: str
    more: bool
    total: int


def read_fetch(text: str, tables: Tables, *, now: datetime, user_id: str, entity: Entity) -> Fetch:
    """Raises CrmError for what is no FetchXML, names what is not there, or is not known here."""
    try:
        root = ET.fromstring(text)  # noqa: S314 - a sandbox, of its own users
    except ET.ParseError as fault:
        raise _wrong("0x80040201", f"Invalid XML: {fault}") from fault
    _refuse_depth(root)
    parts = [part for part in root if part.tag == "entity"]
    if root.tag != "fetch" or len(parts) != 1:
        raise _wrong("0x80041100", "A query is one fetch with one entity.")
    for name in root.attrib:
        if name not in _OF_FETCH:
            raise _unsupported(f"the attribute {name} of fetch")
    main = parts[0]
    if main.get("name") != entity.logical:
        raise _wrong(
            "0x80041102",
            f"The entity {main.get('name')!r} of the query is not that of the address, '{entity.logical}'.",
        )
    fetch = Fetch(
        entity=entity,
        top=_number(root, "top"),
        count=_number(root, "count"),
        page=_number(root, "page") or 1,
        distinct=_flag(root, "distinct"),
        aggregate=_flag(root, "aggregate"),
        total=_flag(root, "returntotalrecordcount"),
    )
    if fetch.top is not None and (fetch.count is not None or root.get("page")):
        raise _wrong("0x80041100", "The top attribute can't be specified with paging attribute page or count.")
    _Reader(fetch, tables, now, user_id).read(main, entity, "")
    return fetch


def _refuse_depth(root: ET.Element) -> None:
    level = [root]
    for _ in range(MAX_DEPTH):
        level = [child for part in level for child in part]
    if level:
        raise _wrong("0x80041100", f"The elements of the query stand more than {MAX_DEPTH} deep in each other.")


def _number(part: ET.Element, name: str) -> int | None:
    text = part.get(name)
    if text is None or text == "":
        return None
    number = whole_number(text)
    if not number:
        raise _wrong("0x80041100", f"The value of {name} is no positive whole number.")
    return number


def _flag(part: ET.Element, name: str) -> bool:
    return part.get(name, "false").lower() in ("true", "1")


@dataclass(frozen=True, slots=True)
class _Reader:
    fetch: Fetch
    tables: Tables
    now: datetime
    user_id: str

    def read(self, part: ET.Element, entity: Entity, alias: str) -> list[Test]:
        """Take the parts of an entity or a link in; the tests that are about its own rows."""
        tests: list[Test] = []
        for child in part:
            if child.tag == "attribute":
                self._attribute(child, entity, alias)
            elif child.tag == "all-attributes":
                if alias:
                    self.fetch.columns += [
                        _Column(table=alias, name=column.wire_name, shown_as=f"{alias}.{column.name}")
                        for column in entity.attributes.values()
                        if not column.secret
                    ]
                else:
                    self.fetch.all_columns = True
            elif child.tag == "order":
                self._order(child, entity, alias)
            elif child.tag == "filter":
                tests.append(self._filter(child, entity, alias))
            elif child.tag == "link-entity":
                self._link(child, entity, alias)
            else:
                raise _unsupported(f"the element {child.tag}")
        if not alias:
            self.fetch.tests = tests
        return tests

    def _attribute(self, part: ET.Element, entity: Entity, alias: str) -> None:
        name = self._column(entity, part.get("name", ""))
        given = part.get("alias")
        aggregate, groups = part.get("aggregate", ""), _flag(part, "groupby")
        if (aggregate or groups) and not self.fetch.aggregate:
            raise _wrong("0x80041100", "Aggregates and groups need aggregate='true' in fetch.")
        if self.fetch.aggregate and (not given or not (aggregate or groups)):
            raise _wrong(
                "0x80041100", "In an aggregate query each attribute has an alias, and an aggregate or groupby."
            )
        if part.get("dategrouping"):
            raise _unsupported("dategrouping")
        if aggregate not in ("", "count", "countcolumn", "sum", "avg", "min", "max"):
            raise _wrong("0x80041100", f"There is no aggregate {aggregate!r}.")
        column = entity.by_wire_name.get(name)
        if aggregate in ("sum", "avg") and (column is None or column.kind != "number"):
            raise _wrong("0x80041100", f"The aggregate {aggregate} is for columns of numbers.")
        self.fetch.columns.append(
            _Column(
                table=alias,
                name=name,
                shown_as=given or (f"{alias}.{part.get('name')}" if alias else name),
                aggregate=aggregate,
                groups=groups,
                distinct=_flag(part, "distinct"),
            )
        )

    def _order(self, part: ET.Element, entity: Entity, alias: str) -> None:
        given, name = part.get("alias"), part.get("attribute")
        if not given and not name:
            raise _wrong("0x80041100", "An order names an attribute, or the alias of an aggregate.")
        self.fetch.orders.append(
            _Column(
                table="" if given else alias,
                name=given or self._column(entity, name or ""),
                shown_as=given or "",
                descending=_flag(part, "descending"),
            )
        )

    def _link(self, part: ET.Element, entity: Entity, alias: str) -> None:
        kind = part.get("link-type", "inner")
        if kind not in ("inner", "outer"):
            raise _unsupported(f"the link-type {kind}")
        if unknown := sorted(set(part.attrib) - _OF_LINK):
            raise _unsupported(f"the attribute {unknown[0]} of link-entity")
        other = self.tables.get(part.get("name", ""))
        if other is None:
            raise _wrong(
                "0x80041102",
                f"The entity with a name = '{part.get('name')}' with namemapping = 'Logical' was not found in the "
                "MetadataCache.",
            )
        name = part.get("alias") or f"{other.logical}{len(self.fetch.joins) + 1}"
        if any(join.alias == name for join in self.fetch.joins):
            raise _wrong("0x80041100", f"The alias {name} is used twice.")
        place = len(self.fetch.joins)
        theirs, mine = self._column(other, part.get("from", "")), self._column(entity, part.get("to", ""))
        made = _Join(entity=other, alias=name, parent=alias, mine=mine, theirs=theirs, outer=kind == "outer", tests=[])
        self.fetch.joins.append(made)
        tests = self.read(part, other, name)
        self.fetch.joins[place] = _Join(
            entity=other, alias=name, parent=alias, mine=mine, theirs=theirs, outer=kind == "outer", tests=tests
        )

    def _column(self, entity: Entity, name: str) -> str:
        if name == entity.id:
            return name
        column = entity.attributes.get(name)
        if column is None or column.secret:
            raise _wrong(
                "0x80041103",
                f"'{entity.logical}' entity doesn't contain attribute with Name = '{name}' and NameMapping = "
                "'Logical'.",
            )
        return column.wire_name

    # --- conditions ---------------------------------------------------------------------------------------------------

    def _filter(self, part: ET.Element, entity: Entity, alias: str) -> Test:
        kind = part.get("type", "and")
        if kind not in ("and", "or"):
            raise _wrong("0x80041100", f"A filter is of type and or or, not {kind!r}.")
        tests = [
            self._filter(child, entity, alias) if child.tag == "filter" else self._condition(child, entity, alias)
            for child in part
        ]
        if kind == "and":
            return lambda row: all(test(row) for test in tests)
        return lambda row: any(test(row) for test in tests)

    def _condition(self, part: ET.Element, entity: Entity, alias: str) -> Test:
        if part.tag != "condition":
            raise _unsupported(f"the element {part.tag} in a filter")
        if part.get("valueof"):
            raise _unsupported("valueof")
        where = part.get("entityname", alias)
        if where != alias:
            found = next((join for join in self.fetch.joins if join.alias == where), None)
            if found is None:
                raise _wrong("0x80041100", f"No link has the alias {where}.")
            entity, alias = found.entity, where
        name = self._column(entity, part.get("attribute", ""))
        column = entity.by_wire_name.get(name)
        kind = column.kind if column is not None else "guid"
        values = [value.text or "" for value in part if value.tag == "value"]
        if part.get("value") is not None:
            values = [part.get("value", "")]
        test = self._operator(part.get("operator", ""), values, kind)
        return lambda row: test(row[alias].get(name) if row.get(alias) is not None else None)

    def _operator(self, operator: str, values: list[str], kind: str) -> Callable[[Any], bool]:
        if operator in _WITHOUT_VALUE:
            return _WITHOUT_VALUE[operator]
        if operator in ("eq-userid", "ne-userid"):
            return lambda held: (held == self.user_id) == (operator == "eq-userid")
        if operator in _SPANS:
            if kind not in ("time", "date"):
                raise _wrong("0x80041100", f"The condition operator {operator!r} is about columns of days and times.")
            try:
                begin, end = _SPANS[operator](self.now, values[0] if values else "")
            except (OverflowError, ValueError) as fault:
                raise _wrong("0x80041100", "The days of a condition are beyond the calendar.") from fault
            return lambda held: held is not None and begin <= _time(str(held)) < end
        if not values:
            raise _wrong("0x80041100", f"The condition operator {operator!r} needs a value, or is not known.")
        wanted = [_of_kind(value, kind) for value in values]
        if operator in ("in", "not-in"):
            return lambda held: held is not None and (_held(held, kind) in wanted) == (operator == "in")
        if operator in ("between", "not-between"):
            low, high = (*wanted, wanted[-1])[:2]
            return lambda held: held is not None and (low <= _held(held, kind) <= high) == (operator == "between")
        if operator in _COMPARED:
            compare = _COMPARED[operator]
            return lambda held: held is not None and compare(_held(held, kind), wanted[0])
        if operator in _PATTERNS:
            try:
                fits = like(_PATTERNS[operator](values[0]))
            except QueryError as fault:
                raise _wrong("0x80041100", str(fault)) from fault
            wants = not operator.startswith("not-")
            return lambda held: held is not None and fits(str(held)) == wants
        raise _unsupported(f"the operator {operator}")


def _kebab(name: str) -> str:
    """`LastXDays` as FetchXML has it: `last-x-days`."""
    parts = re.findall(r"[A-Z][a-z]*|7", name)
    joined = "-".join("seven" if part == "7" else part.lower() for part in parts)
    return joined.replace("older-than", "olderthan")


# Operators about days, by UTC, with their value.
_SPANS: Mapping[str, Callable[[datetime, str], Span]] = {
    **{_kebab(name): lambda now, _, span=span: span(now) for name, span in PERIODS.items()},  # type: ignore[misc]
    **{_kebab(name): lambda now, text, span=span: span(now, _count(text)) for name, span in COUNTED.items()},  # type: ignore[misc]
    **{_kebab(name): lambda _, text, span=span: span(_time(text)) for name, span in DATED.items()},  # type: ignore[misc]
}
_WITHOUT_VALUE: Mapping[str, Callable[[Any], bool]] = {
    "null": lambda held: held is None,
    "not-null": lambda held: held is not None,
}
_COMPARED: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": operators.eq,
    "ne": operators.ne,
    "neq": operators.ne,
    "gt": operators.gt,
    "ge": operators.ge,
    "lt": operators.lt,
    "le": operators.le,
}


_PATTERNS: Mapping[str, Callable[[str], str]] = {
    "like": lambda text: text,
    "not-like": lambda text: text,
    "begins-with": lambda text: literal(text) + "%",
    "not-begin-with": lambda text: literal(text) + "%",
    "ends-with": lambda text: "%" + literal(text),
    "not-end-with": lambda text: "%" + literal(text),
}


def _count(text: str) -> int:
    number = whole_number(text)
    if number is None:
        raise _wrong("0x80041100", f"'{text}' is no whole number.")
    return number


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return found.astimezone(timezone.utc) if found.tzinfo else found.replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError) as fault:
        raise _wrong("0x80041100", f"'{text}' is no time.") from fault


def _of_kind(text: str, kind: str) -> Any:
    """A value of a condition, to be compared with what a column of this kind holds."""
    if kind == "guid":
        return text.strip("{}").lower()
    if kind in ("time", "date"):
        return _time(text)
    if kind == "bool":
        return text.lower() in ("true", "1")
    if kind == "number":
        try:
            return float(text)
        except ValueError as fault:
            raise _wrong("0x80041100", f"'{text}' is no number.") from fault
    return text.casefold()


def _held(value: Any, kind: str) -> Any:
    return _time(str(value)) if kind in ("time", "date") else _folded(value)


def _folded(held: Any) -> Any:
    """Texts are compared without regard to case, as the service's collation does."""
    return held.casefold() if isinstance(held, str) else held


# --- running it -------------------------------------------------------------------------------------------------------


def run_fetch(fetch: Fetch, shown: Shown) -> Fetched:
    """`shown`: all rows of a table as they go out. Raises CrmError for an aggregate over too many rows."""
    rows = [row for row in _joined(fetch, shown) if all(test(row) for test in fetch.tests)]
    if fetch.aggregate:
        if len(rows) > AGGREGATED:
            raise _wrong("0x8004E023", "The maximum record limit is exceeded. Reduce the number of records.")
        made = _aggregated(fetch, rows)
    else:
        _sort(rows, fetch)
        made = [_shown(fetch, row) for row in rows]
        if fetch.distinct:
            made = list({repr(sorted(row.items(), key=lambda item: item[0])): row for row in made}.values())
    total = len(made)
    if fetch.top is not None:
        made = made[: min(fetch.top, PAGE)]
        return Fetched(rows=made, cookie="", more=False, total=total)
    size = min(fetch.count or PAGE, PAGE)
    begin = (fetch.page - 1) * size
    page = made[begin : begin + size]
    return Fetched(rows=page, cookie=_cookie(fetch, page), more=begin + size < total, total=total)


def _joined(fetch: Fetch, shown: Shown) -> Iterator[Row]:
    rows: Iterator[Row] = ({"": row} for row in shown(fetch.entity))
    for join in fetch.joins:
        rows = _with(rows, join, shown)
    return rows


def _with(rows: Iterator[Row], join: _Join, shown: Shown) -> Iterator[Row]:
    by_key: dict[Any, list[Values]] = {}
    for other in shown(join.entity):
        if other.get(join.theirs) is not None and all(test({join.alias: other}) for test in join.tests):
            by_key.setdefault(_folded(other[join.theirs]), []).append(other)
    for row in rows:
        parent = row.get(join.parent)
        found = by_key.get(_folded(parent.get(join.mine)), []) if parent is not None else []
        for other in found:
            yield {**row, join.alias: other}
        if not found and join.outer:
            yield {**row, join.alias: None}


def _sort(rows: list[Row], fetch: Fetch) -> None:
    """As asked, then by id; blanks first, as the service's database has it."""
    rows.sort(key=lambda row: str(row[""][fetch.entity.id]))
    for order in reversed(fetch.orders):
        rows.sort(
            key=lambda row, order=order: _rank((row.get(order.table) or {}).get(order.name)),  # type: ignore[misc]
            reverse=order.descending,
        )


def _rank(value: Any) -> tuple[int, Any]:
    return (0, 0) if value is None else (1, _folded(value))


def _shown(fetch: Fetch, row: Row) -> Values:
    main: Values = row[""]
    if fetch.all_columns:
        made = dict(main)
    else:
        names = [column for column in fetch.columns if not column.table]
        made = {"@odata.etag": main.get("@odata.etag"), fetch.entity.id: main[fetch.entity.id]}
        made |= {column.shown_as: main.get(column.name) for column in names}
    for column in fetch.columns:
        other = row.get(column.table) if column.table else None
        if other is not None and other.get(column.name) is not None:
            made[column.shown_as] = other[column.name]
    return made


def _aggregated(fetch: Fetch, rows: list[Row]) -> list[Values]:
    groups = [column for column in fetch.columns if column.groups]
    by_group: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        by_group.setdefault(tuple(_value(row, column) for column in groups), []).append(row)
    if not groups and not by_group:
        by_group[()] = []
    made: list[Values] = []
    for key, members in by_group.items():
        found: Values = {column.shown_as: value for column, value in zip(groups, key, strict=True) if value is not None}
        for column in fetch.columns:
            if column.aggregate:
                found[column.shown_as] = _aggregate(column, members)
        made.append(found)
    for order in reversed(fetch.orders):
        made.sort(key=lambda row, order=order: _rank(row.get(order.shown_as)), reverse=order.descending)  # type: ignore[misc]
    return made


def _value(row: Row, column: _Column) -> Any:
    held = row.get(column.table)
    return None if held is None else held.get(column.name)


def _aggregate(column: _Column, rows: list[Row]) -> Any:
    if column.aggregate == "count":
        return len(rows)
    held = [value for row in rows if (value := _value(row, column)) is not None]
    if column.distinct:
        held = list(dict.fromkeys(held))
    if column.aggregate == "countcolumn":
        return len(held)
    if not held:
        return None
    if column.aggregate in ("min", "max"):
        return (min if column.aggregate == "min" else max)(held)
    total = sum(held)
    return total if column.aggregate == "sum" else total / len(held)


def _cookie(fetch: Fetch, page: Sequence[Values]) -> str:
    """In its published shape; the page number in the next query says where to go on."""
    if not page or fetch.aggregate:
        return ""
    name = fetch.entity.id
    inner = (
        f'<cookie page="{fetch.page}"><{name} last="{{{str(page[-1].get(name, "")).upper()}}}" '
        f'first="{{{str(page[0].get(name, "")).upper()}}}" /></cookie>'
    )
    encoded = escape(quote(quote(inner, safe=""), safe=""))
    return f'<cookie pagenumber="{fetch.page + 1}" pagingcookie="{encoded}" istracking="False" />'
