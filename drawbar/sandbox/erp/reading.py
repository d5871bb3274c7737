"""How Business Central's rows are found, ordered and shown: the query options of a request, answered.

Who may read what is asked of `allow`, which raises where a navigation leads to a set the caller may not read.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from drawbar.sandbox.erp.model import EntitySet, ErpError, ErpSchema, etag, refusal, shown_time, unescape
from drawbar.sandbox.erp.parts import part_rules
from drawbar.sandbox.erp.records import ErpRecords
from drawbar.sandbox.odata import (
    Binary,
    Call,
    Literal,
    Node,
    Not,
    OneOf,
    Order,
    Predicate,
    QueryError,
    compile_filter,
    names_in,
    parse_expand,
    parse_filter,
    parse_order,
    sort_rows,
    split_list,
    whole_number,
)
from drawbar.sandbox.store import Stored, Values
from drawbar.sandbox.wire import from_json, to_json

_VERSIONS = ("2.0", "2.1")  # of the schema; the standard API runs at the first
Allow = Callable[[EntitySet], None]
_OPTIONS = frozenset(
    ("$filter", "$select", "$orderby", "$top", "$skip", "$count", "$expand", "$skiptoken", "$schemaversion")
)


@dataclass(frozen=True, slots=True)
class Within:
    """The part of a set that belongs to one entity, and how it is addressed."""

    column: str
    parent_id: str
    address: str


class ErpReader:
    def __init__(self, records: ErpRecords, base_url: str) -> None:
        self._records = records
        self._base_url = base_url
        self._predicates: dict[tuple[str, str, str, str], Predicate] = {}

    def schema(self, company: str, entity_set: EntitySet) -> ErpSchema:
        return ErpSchema(entity_set, self._records.local_currency(company))

    def predicate(self, company: str, entity_set: EntitySet, options: Mapping[str, str]) -> Predicate:
        """What `$filter` asks for, in the words that its schema version has."""
        text, version = options["$filter"], options.get("$schemaversion", _VERSIONS[0])
        key = (company, entity_set.name, text, version)
        known = self._predicates.get(key)
        if known is None:
            node = parse_filter(text)
            if version == _VERSIONS[0]:
                _refuse_new_words(node)
            _refuse_wide_or(node)
            _refuse_unfit(node, entity_set)
            node = _with_patterns(node) if entity_set.patterns else node
            known = compile_filter(node, self.schema(company, entity_set))
            if len(self._predicates) > 1000:
                self._predicates.clear()
            self._predicates[key] = known
        return known

    def selected(
        self, company: str, entity_set: EntitySet, options: Mapping[str, str], within: Within | None
    ) -> list[Stored]:
        must_be_known(options, _OPTIONS)
        text = options.get("$filter")
        version = options.get("$schemaversion", _VERSIONS[0])
        if version not in _VERSIONS:
            raise ErpError(400, "BadRequest", f"The schema version '{version}' is not supported.")
        if entity_set.parents and within is None:
            named = names_in(parse_filter(text)) if text else set()
            if not named & set(entity_set.parents):
                raise refusal(entity_set.unfiltered)
        if within is None:
            rows = self._records.candidates(company, entity_set)
        else:
            rows = self._records.below(company, entity_set, within.column, within.parent_id)
        if text is None:
            return rows
        predicate = self.predicate(company, entity_set, options)
        return [stored for stored in rows if predicate(stored.values)]

    def orders(self, entity_set: EntitySet, schema: ErpSchema, options: Mapping[str, str]) -> list[Order]:
        """As asked, then by the key, so that a page has a definite end."""
        orders = parse_order(options["$orderby"], schema) if "$orderby" in options else []
        return orders + [Order(schema.property((name,))[0], False) for name in (*entity_set.order, entity_set.id)]

    def shown(self, company: str, entity_set: EntitySet, stored: Stored) -> Values:
        """The whole entity as it goes out, kept with the row until it is written again."""
        if stored.wire is None:
            shown: Values = {"@odata.etag": etag(stored.version, self._records.switches["erp_etag_form"])}
            values = stored.values
            for name, column in entity_set.columns.items():
                if column.type == "Stream":
                    address = values.get("address") or f"{entity_set.name}({values['id']})"
                    link = f"{self._base_url}/companies({company})/{address}/{name}"
                    shown[f"{name}@odata.mediaEditLink"] = link
                    shown[f"{name}@odata.mediaReadLink"] = link
                elif column.type == "DateTimeOffset":
                    shown[name] = shown_time(values[name])
                elif name == "currencyCode" and "currencyId" in entity_set.columns:
                    shown[name] = values[name] or self._records.local_currency(company)
                else:
                    shown[name] = values[name]
            stored.wire = shown
        return stored.wire

    def shape(
        self, company: str, entity_set: EntitySet, options: Mapping[str, str], allow: Allow
    ) -> Callable[[Stored], Values]:
        whole = partial(self.shown, company, entity_set)
        names = split_list(options.get("$select", ""))
        schema = self.schema(company, entity_set)
        of_all = {name: options[name] for name in ("$schemaversion",) if name in options}
        expands = [
            (name, self._expanded(company, entity_set, name, {**of_all, **inner}, allow))
            for name, inner in (parse_expand(options["$expand"]) if "$expand" in options else [])
        ]
        for name in names:
            is_led_to = name in entity_set.navigations or name in entity_set.collections or name in entity_set.parts
            if not is_led_to and name != "*":
                schema.property((name,))
        if not expands and (not names or "*" in names):
            return whole
        kept = {"@odata.etag", *names} if names and "*" not in names else None

        def shaped(stored: Stored) -> Values:
            shown = whole(stored)
            chosen = dict(shown) if kept is None else {name: value for name, value in shown.items() if name in kept}
            for name, expand in expands:
                chosen[name] = expand(stored)
            return chosen

        return shaped

    def _expanded(
        self, company: str, entity_set: EntitySet, name: str, options: Mapping[str, str], allow: Allow
    ) -> Callable[[Stored], Any]:
        """From an entity to what a navigation of it leads to: one entity, None, or a list."""
        if self._records.switches["erp_expand_options"] == "select_and_expand":
            _refuse_options(options)
        if name in entity_set.navigations:
            set_name, column = entity_set.navigations[name]
            other = self._records.sets[set_name]
            allow(other)
            shape = self.shape(company, other, options, allow)

            def one(stored: Stored) -> Values | None:
                found = self._records.find(company, other, stored.values.get(column, ""))
                return None if found is None else shape(found)

            return one
        if name in entity_set.parts:
            part_set = self._records.sets[entity_set.parts[name]]
            rules, shape = part_rules(self._records, part_set), self.shape(company, part_set, options, allow)
            return lambda stored: shape(rules.of(self._records, company, entity_set, stored)[0])
        if name not in entity_set.collections:
            raise QueryError(f"Could not find a property named '{name}' on type 'Microsoft.NAV.{entity_set.entity}'.")
        set_name, column = entity_set.collections[name]
        children = self._records.sets[set_name]
        allow(children)
        shape = self.shape(company, children, options, allow)
        if children.part:
            return self._expanded_parts(company, entity_set, children, options, shape)
        rows = self._records.candidates(company, children)
        if "$filter" in options:
            predicate = self.predicate(company, children, options)
            rows = [stored for stored in rows if predicate(stored.values)]
        sort_rows(rows, self.orders(children, self.schema(company, children), options), row_of=values_of)
        by_parent: dict[str, list[Stored]] = {}
        for row in rows:
            by_parent.setdefault(row.values[column], []).append(row)
        top = whole(options["$top"], "$top") if "$top" in options else None

        def many(stored: Stored) -> list[Values]:
            return [shape(row) for row in by_parent.get(stored.values[entity_set.id], [])[:top]]

        return many

    def _expanded_parts(
        self,
        company: str,
        owner: EntitySet,
        children: EntitySet,
        options: Mapping[str, str],
        shape: Callable[[Stored], Values],
    ) -> Callable[[Stored], list[Values]]:
        rules = part_rules(self._records, children)
        orders = self.orders(children, self.schema(company, children), options)
        keep = self.predicate(company, children, options) if "$filter" in options else None
        top = whole(options["$top"], "$top") if "$top" in options else None

        def many(stored: Stored) -> list[Values]:
            rows = rules.of(self._records, company, owner, stored)
            rows = [row for row in rows if keep is None or keep(row.values)]
            sort_rows(rows, orders, row_of=values_of)
            return [shape(row) for row in rows[:top]]

        return many


def must_be_known(options: Mapping[str, str], known: Collection[str]) -> None:
    """Raises ErpError for an option of OData that is not answered here."""
    for option in options:
        if option.startswith("$") and option not in known:
            raise ErpError(400, "BadRequest", f"The query parameter '{option}' is not supported.")


def _refuse_options(options: Mapping[str, str]) -> None:
    for name in options:
        if name not in ("$select", "$expand"):
            raise ErpError(400, "BadRequest", f"The query option '{name}' is not supported inside '$expand'.")


def values_of(stored: Stored) -> Values:
    return stored.values


def whole(text: str, name: str) -> int:
    number = whole_number(text)
    if number is None:
        raise ErpError(400, "BadRequest", f"The value of '{name}' is not a whole number.")
    return number


def write_token(last: list[Any], left: int | None) -> str:
    return base64.urlsafe_b64encode(to_json([last, left])).decode().rstrip("=")


def read_token(token: str) -> tuple[list[Any], int | None]:
    try:
        last, left = from_json(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (TypeError, ValueError) as error:
        raise ErpError(400, "BadRequest", "The skip token is not valid.") from error
    if not isinstance(last, list) or not (left is None or (type(left) is int and left > 0)):
        raise ErpError(400, "BadRequest", "The skip token is not valid.")
    return last, left


def _refuse_wide_or(node: Node) -> None:
    match node:
        case Binary("or", left, right):
            if len(names_in(left) | names_in(right)) > 1:
                raise ErpError(
                    400,
                    "BadRequest",
                    "The OR operator is not supported on distinct fields in a filter expression.",
                )
            _refuse_wide_or(left)
            _refuse_wide_or(right)
        case Binary("and", left, right):
            _refuse_wide_or(left)
            _refuse_wide_or(right)
        case Not(operand):
            _refuse_wide_or(operand)
        case _:
            pass


def _refuse_new_words(node: Node) -> None:
    """`in`, and functions inside functions, are of schema version 2.1."""
    match node:
        case OneOf():
            raise QueryError("The operator 'in' is not supported in this schema version.")
        case Call(name, arguments):
            if any(isinstance(argument, Call) for argument in arguments):
                raise QueryError(f"A function inside the function '{name}' is not supported in this schema version.")
        case Binary(_, left, right):
            _refuse_new_words(left)
            _refuse_new_words(right)
        case Not(operand):
            _refuse_new_words(operand)
        case _:
            pass


def _with_patterns(node: Node) -> Node:
    match node:
        case Binary("and" | "or" as operator, left, right):
            return Binary(operator, _with_patterns(left), _with_patterns(right))
        case Not(operand):
            return Not(_with_patterns(operand))
        case Binary("eq", left, Literal("string", text)) if text.endswith("*"):
            return Call("startswith", (left, Literal("string", text[:-1])))
        case _:
            return node


def _refuse_unfit(node: Node, entity_set: EntitySet) -> None:
    """A value that its field cannot have is an error of the filter, not merely no match."""
    match node:
        case Binary("and" | "or", left, right):
            _refuse_unfit(left, entity_set)
            _refuse_unfit(right, entity_set)
        case Not(operand):
            _refuse_unfit(operand, entity_set)
        case Binary(_, left, right):
            _must_fit(left, (right,), entity_set)
            _must_fit(right, (left,), entity_set)
        case OneOf(subject, values):
            _must_fit(subject, values, entity_set)
        case _:
            pass


def _must_fit(subject: Node, values: Sequence[Node], entity_set: EntitySet) -> None:
    columns = [column for name in names_in(subject) if (column := entity_set.columns.get(name))]
    texts = [value.value for value in values if isinstance(value, Literal) and value.kind == "string"]
    for column in columns:
        options = [unescape(option) for option in column.options] if column.type == "Enum" else []
        known = {option.casefold() for option in options}
        for text in texts:
            fault = ""
            if column.max and len(text) > column.max:
                fault = f"The filter value is longer than the {column.max} characters of '{column.name}'."
            elif options and text.strip() and unescape(text).casefold() not in known:  # a blank is no option's name
                fault = f"'{text}' is not an option. The existing options are: {','.join(options)}"
            if fault:
                raise ErpError(400, "Application_FilterErrorException", fault)
