"""OData as both services speak it: paths, query options, filters and ordering. Pure.

A filter becomes a tree, and the tree a function of a row. What differs between the services (names, types,
how a time is written, which operators exist) comes in as a `Schema`.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote_plus

Row = Mapping[str, Any]
Getter = Callable[[Row], Any]
Predicate = Callable[[Row], bool]

GUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\Z")


class ApiError(Exception):
    """An answer that is no success: status, code, and the text without what a service adds to every one."""

    def __init__(self, status: int, code: str, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}


class QueryError(Exception):
    """The text of a query cannot be understood, or names what is not there."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of a path: a name, and what stood in parentheses after it (None: nothing)."""

    name: str
    key: str | None


_SEGMENT = re.compile(r"([^/()']+)(?:\(((?:'(?:[^']|'')*'|[^)'])*)\))?(?:/|\Z)")


def parse_path(path: str) -> list[Segment]:
    """`customers(…)/currency` as segments. Slashes inside a quoted key do not part it."""
    segments: list[Segment] = []
    position = 0
    path = path.strip("/")
    while position < len(path):
        match = _SEGMENT.match(path, position)
        if match is None:
            raise QueryError(f"The request URI is not valid: '{path}'")
        segments.append(Segment(match.group(1), match.group(2)))
        position = match.end()
    return segments


def whole_number(text: str) -> int | None:
    """None for what is no Int32 of plain digits: not `-1`, `1e3`, `²`, nor digits without end."""
    return int(text) if re.fullmatch(r"0*[0-9]{1,10}", text) and int(text.lstrip("0") or "0") < 2**31 else None


def parse_options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in query.split("&"):
        if part:
            name, _, value = part.partition("=")
            options[unquote_plus(name)] = unquote_plus(value)
    return options


def unquote_key(key: str) -> str:
    key = key.strip()
    if len(key) >= 2 and key[0] == key[-1] == "'":
        return key[1:-1].replace("''", "'")
    return key


# ---------------------------------------------------------------- filters


@dataclass(frozen=True, slots=True)
class Literal:
    kind: str  # string, number, guid, time, date, bool, null
    value: Any


@dataclass(frozen=True, slots=True)
class Name:
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Binary:
    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Not:
    operand: Node


@dataclass(frozen=True, slots=True)
class OneOf:
    subject: Node
    values: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class QueryFunction:
    """`Microsoft.Dynamics.CRM.In(PropertyName='a',PropertyValues=['x','y'])` and its kind."""

    name: str
    arguments: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Lambda:
    """`contacts/any(c:c/lastname eq 'x')`: whether some row of a collection, or every one, meets a condition."""

    path: tuple[str, ...]
    every: bool
    variable: str
    condition: Node | None  # None: whether there is any row


Node = Literal | Name | Call | Binary | Not | OneOf | QueryFunction | Lambda

_TOKEN = re.compile(
    r"\s*(?:"
    r"(?P<string>'(?:[^']|'')*')"
    r'|(?P<quoted>"(?:[^"\\]|\\.)*")'
    r"|(?P<guid>[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})(?![\w-])"
    r"|(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d))"
    r"|(?P<date>\d{4}-\d\d-\d\d)(?![\w-])"
    r"|(?P<number>[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w])"
    r"|(?P<word>[@$A-Za-z_][\w.]*(?:/[A-Za-z_][\w.]*)*)"
    r"|(?P<mark>[(),\[\]=:])"
    r")"
)
_COMPARE = {"eq", "ne", "gt", "ge", "lt", "le"}
MAX_DEPTH = 100  # of parentheses, `not` and functions in each other, and of `$expand` in `$expand`


def _too_deep() -> QueryError:
    return QueryError("Recursion depth exceeded allowed limit.")


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.depth = 0
        self.tokens: list[tuple[str, str]] = []
        position = 0
        end = len(text.rstrip())
        while position < end:
            match = _TOKEN.match(text, position)
            if match is None or match.lastgroup is None:
                raise QueryError(f"Syntax error at position {position} in '{text}'.")
            self.tokens.append((match.lastgroup, match.group(match.lastgroup)))
            position = match.end()
        self.at = 0

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self) -> tuple[str, str]:
        token = self.peek()
        self.at += 1
        return token

    def expect(self, mark: str) -> None:
        if self.take()[1] != mark:
            raise QueryError(f"Syntax error: '{mark}' expected in '{self.text}'.")

    def whole(self) -> Node:
        node = self.either()
        if self.peek()[0] != "end":
            raise QueryError(f"Syntax error at '{self.peek()[1]}' in '{self.text}'.")
        return node

    def either(self) -> Node:
        nodes = [self.both()]
        while self.peek() == ("word", "or"):
            self.take()
            nodes.append(self.both())
        return _chain("or", nodes)

    def both(self) -> Node:
        nodes = [self.unary()]
        while self.peek() == ("word", "and"):
            self.take()
            nodes.append(self.unary())
        return _chain("and", nodes)

    def unary(self) -> Node:
        if self.peek() == ("word", "not"):
            self.take()
            with self.deeper():
                return Not(self.unary())
        return self.comparison()

    @contextmanager
    def deeper(self) -> Iterator[None]:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _too_deep()
        yield
        self.depth -= 1

    def comparison(self) -> Node:
        left = self.operand()
        kind, word = self.peek()
        if kind == "word" and word in _COMPARE:
            self.take()
            return Binary(word, left, self.operand())
        if kind == "word" and word == "in":
            self.take()
            self.expect("(")
            values: list[Literal] = []
            while True:
                value = self.operand()
                if not isinstance(value, Literal):
                    raise QueryError(f"Syntax error: a value expected in '{self.text}'.")
                values.append(value)
                mark = self.take()[1]
                if mark == ")":
                    return OneOf(left, tuple(values))
                if mark != ",":
                    raise QueryError(f"Syntax error: ')' or ',' expected in '{self.text}'.")
        return left

    def operand(self) -> Node:
        kind, text = self.take()
        match kind:
            case "string":
                return Literal("string", text[1:-1].replace("''", "'"))
            case "guid":
                return Literal("guid", text.lower())
            case "time" | "date":
                return Literal(kind, text)
            case "number":
                return Literal("number", _number(text))
            case "word":
                return self.word(text)
            case "mark" if text == "(":
                with self.deeper():
                    node = self.either()
                self.expect(")")
                return node
            case _:
                raise QueryError(f"Syntax error at '{text}' in '{self.text}'.")

    def word(self, text: str) -> Node:
        if text in ("true", "false"):
            return Literal("bool", text == "true")
        if text == "null":
            return Literal("null", None)
        if self.peek() != ("mark", "("):
            return Name(tuple(text.split("/")))
        self.take()
        if text.startswith("Microsoft.Dynamics.CRM."):
            return self.query_function(text)
        path = tuple(text.split("/"))
        if len(path) > 1 and path[-1] in ("any", "all"):
            return self.lambda_of(path[:-1], every=path[-1] == "all")
        arguments: list[Node] = []
        with self.deeper():
            if self.peek() != ("mark", ")"):
                arguments.append(self.either())
                while self.peek() == ("mark", ","):
                    self.take()
                    arguments.append(self.either())
        self.expect(")")
        return Call(text, tuple(arguments))

    def lambda_of(self, path: tuple[str, ...], *, every: bool) -> Node:
        if self.peek() == ("mark", ")") and not every:
            self.take()
            return Lambda(path, every, "", None)
        kind, variable = self.take()
        if kind != "word" or "/" in variable:
            raise QueryError(f"Syntax error: the name of a range variable expected in '{self.text}'.")
        self.expect(":")
        condition = self.either()
        self.expect(")")
        return Lambda(path, every, variable, condition)

    def query_function(self, name: str) -> Node:
        arguments: list[tuple[str, Any]] = []
        while self.peek() != ("mark", ")"):
            _, argument = self.take()
            self.expect("=")
            if self.peek() == ("mark", "["):
                self.take()
                values: list[Any] = []
                while self.peek() != ("mark", "]"):
                    values.append(self.listed())
                    if self.peek() == ("mark", ","):
                        self.take()
                self.expect("]")
                arguments.append((argument, tuple(values)))
            else:
                value = self.operand()
                arguments.append((argument, value.value if isinstance(value, Literal) else None))
            if self.peek() == ("mark", ","):
                self.take()
            elif self.peek()[0] == "end":
                break
        self.expect(")")
        return QueryFunction(name.rpartition(".")[2], tuple(arguments))

    def listed(self) -> Any:
        """A value of a list, which is JSON as well, so that text may stand in double quotes."""
        if self.peek()[0] == "quoted":
            return json.loads(self.take()[1])
        value = self.operand()
        return value.value if isinstance(value, Literal) else None


def _chain(operator: str, nodes: list[Node]) -> Node:
    """`a or b or c …` as a tree whose depth is the logarithm of their number: a filter of many ids is a long one."""
    if len(nodes) == 1:
        return nodes[0]
    half = len(nodes) // 2
    return Binary(operator, _chain(operator, nodes[:half]), _chain(operator, nodes[half:]))


def _number(text: str) -> int | float:
    try:
        return float(text) if any(mark in text for mark in ".eE") else int(text)
    except ValueError as error:  # Python reads no whole number of more than 4,300 digits
        raise QueryError(f"The number '{text[:20]}…' is too long.") from error


def parse_filter(text: str) -> Node:
    try:
        return _Parser(text).whole()
    except RecursionError as error:
        raise QueryError("The filter expression is nested too deeply.") from error


def conditions_in(node: Node) -> int:
    """How many conditions a filter has; a chain of them may be longer than any nesting."""
    count, left = 0, [node]
    while left:
        one = left.pop()
        match one:
            case Binary("and" | "or", first, second):
                left += (first, second)
            case Not(inner):
                left.append(inner)
            case Lambda(_, _, _, inner) if inner is not None:
                left.append(inner)
            case _:
                count += 1
    return count


def names_in(node: Node) -> set[str]:
    match node:
        case Name(path):
            return {"/".join(path)}
        case Call(_, arguments):
            return set().union(*(names_in(argument) for argument in arguments)) if arguments else set()
        case Binary(_, left, right):
            return names_in(left) | names_in(right)
        case Not(operand):
            return names_in(operand)
        case OneOf(subject, _):
            return names_in(subject)
        case QueryFunction(_, arguments):
            return {str(value) for name, value in arguments if name == "PropertyName"}
        case Lambda(path):
            return {"/".join(path)}
        case _:
            return set()


# ---------------------------------------------------------------- from tree to function


class Schema(Protocol):
    """What a service knows of one table's properties."""

    def property(self, path: tuple[str, ...]) -> tuple[Getter, str]:
        """How to read it from a row, and its kind: string, number, guid, time, date, bool, enum, any."""

    def literal(self, kind: str, literal: Literal) -> Any:
        """The literal as a value of that kind is compared; raises QueryError when it cannot be one."""

    def query_function(self, function: QueryFunction) -> Predicate: ...

    def text_test(self, name: str, part: str) -> Callable[[str], bool]:
        """What `contains`, `startswith` or `endswith` asks of a text; both are folded."""

    def collection(self, path: tuple[str, ...]) -> tuple[Callable[[Row], Iterable[Row]], Schema]:
        """The rows that a collection-valued navigation leads to from a row, and what is known of them."""


@dataclass(frozen=True, slots=True)
class _Bound:
    """The schema of a collection's rows as a lambda expression names it: by its range variable."""

    inner: Schema
    variable: str

    def _own(self, path: tuple[str, ...]) -> tuple[str, ...]:
        if path[0] != self.variable or len(path) < 2:
            raise QueryError(f"Could not find a property named '{path[0]}' in the lambda expression.")
        return path[1:]

    def property(self, path: tuple[str, ...]) -> tuple[Getter, str]:
        return self.inner.property(self._own(path))

    def literal(self, kind: str, literal: Literal) -> Any:
        return self.inner.literal(kind, literal)

    def query_function(self, function: QueryFunction) -> Predicate:
        raise QueryError(f"The query function '{function.name}' is not supported in a lambda expression.")

    def text_test(self, name: str, part: str) -> Callable[[str], bool]:
        return self.inner.text_test(name, part)

    def collection(self, path: tuple[str, ...]) -> tuple[Callable[[Row], Iterable[Row]], Schema]:
        return self.inner.collection(self._own(path))


def _folded(getter: Getter) -> Getter:
    def read(row: Row) -> Any:
        value = getter(row)
        return value.casefold() if isinstance(value, str) else value

    return read


_TEXT_CALLS: dict[str, Callable[[str, str], bool]] = {
    "contains": lambda text, part: part in text,
    "startswith": lambda text, part: text.startswith(part),
    "endswith": lambda text, part: text.endswith(part),
}


def plain_text_test(name: str, part: str) -> Callable[[str], bool]:
    """The text as it stands."""
    test = _TEXT_CALLS[name]
    return lambda text: test(text, part)


def compile_filter(node: Node, schema: Schema) -> Predicate:
    match node:
        case Binary("and", left, right):
            first, second = compile_filter(left, schema), compile_filter(right, schema)
            return lambda row: first(row) and second(row)
        case Binary("or", left, right):
            first, second = compile_filter(left, schema), compile_filter(right, schema)
            return lambda row: first(row) or second(row)
        case Not(operand):
            inner = compile_filter(operand, schema)
            return lambda row: not inner(row)
        case Binary(operator, left, right):
            return _comparison(operator, left, right, schema)
        case OneOf(subject, values):
            getter, kind = _value(subject, schema)
            wanted = {schema.literal(kind, value) for value in values}
            if kind in ("string", "enum"):
                getter, wanted = (
                    _folded(getter),
                    {value.casefold() if isinstance(value, str) else value for value in wanted},
                )
            return lambda row: getter(row) in wanted
        case Call(name, (subject, part)) if name in _TEXT_CALLS:
            getter, kind = _value(subject, schema)
            if kind != "string" or not isinstance(part, Literal) or part.kind != "string":
                raise QueryError(f"The arguments of the function '{name}' are not text.")
            getter, test = _folded(getter), schema.text_test(name, part.value.casefold())
            return lambda row: test(getter(row) or "")
        case Call(name, _):
            raise QueryError(f"An unknown function with name '{name}' was found.")
        case QueryFunction():
            return schema.query_function(node)
        case Lambda(path, every, variable, condition):
            rows_of, inner_schema = schema.collection(path)
            if condition is None:
                return lambda row: any(True for _ in rows_of(row))
            holds = compile_filter(condition, _Bound(inner_schema, variable))
            if every:
                return lambda row: all(holds(other) for other in rows_of(row))
            return lambda row: any(holds(other) for other in rows_of(row))
        case Name(path):
            getter, kind = schema.property(path)
            if kind != "bool":
                raise QueryError("The filter expression is not a condition.")
            return lambda row: bool(getter(row))
        case _:
            raise QueryError("The filter expression is not a condition.")


def _value(node: Node, schema: Schema) -> tuple[Getter, str]:
    match node:
        case Name(path):
            return schema.property(path)
        case Call("tolower" | "toupper", (inner,)):
            return _value(inner, schema)  # text is compared without regard to case anyway
        case Call("trim", (inner,)):
            getter = _text(inner, schema, "trim")
            return lambda row: (getter(row) or "").strip(), "string"
        case Call("length", (inner,)):
            getter = _text(inner, schema, "length")
            return lambda row: len(getter(row) or ""), "number"
        case Call("substring", (inner, Literal("number", start), *rest)):
            getter = _text(inner, schema, "substring")
            end = None
            if rest:
                length = rest[0].value if isinstance(rest[0], Literal) else None
                end = start + length if _is_place(start) and _is_place(length) else -1
            if not _is_place(start) or end == -1 or len(rest) > 1:
                raise QueryError("The arguments of the function 'substring' are a text, where it begins, and how many.")
            return lambda row: (getter(row) or "")[start:end], "string"
        case Call(name, _):
            raise QueryError(f"An unknown function with name '{name}' was found.")
        case _:
            raise QueryError("A property was expected in the filter expression.")


def _text(node: Node, schema: Schema, function: str) -> Getter:
    getter, kind = _value(node, schema)
    if kind != "string":
        raise QueryError(f"The arguments of the function '{function}' are not text.")
    return getter


def _is_place(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _comparison(operator: str, left: Node, right: Node, schema: Schema) -> Predicate:
    if isinstance(left, Literal) and not isinstance(right, Literal):
        turned = {"gt": "lt", "lt": "gt", "ge": "le", "le": "ge"}.get(operator, operator)
        return _comparison(turned, right, left, schema)
    getter, kind = _value(left, schema)
    if kind == "any" and operator not in ("eq", "ne"):
        raise QueryError(f"The operator '{operator}' is not supported here.")
    if isinstance(right, Literal):
        wanted = None if right.kind == "null" else schema.literal(kind, right)
        if kind in ("string", "enum") and wanted is not None:
            getter, wanted = _folded(getter), wanted.casefold()
        return _against(operator, getter, wanted)
    other, other_kind = _value(right, schema)
    if other_kind != kind:
        raise QueryError(
            f"A binary operator with incompatible types was detected. Found operand types '{kind}' and '{other_kind}'."
        )
    if kind == "string":
        getter, other = _folded(getter), _folded(other)
    return lambda row: _against(operator, getter, other(row))(row)


def _against(operator: str, getter: Getter, wanted: Any) -> Predicate:
    if operator == "eq":
        return lambda row: getter(row) == wanted
    if operator == "ne":
        return lambda row: getter(row) != wanted
    if wanted is None:
        return lambda _: False

    def above(row: Row) -> bool:
        value = getter(row)
        return value is not None and value > wanted

    def below(row: Row) -> bool:
        value = getter(row)
        return value is not None and value < wanted

    match operator:
        case "gt":
            return above
        case "lt":
            return below
        case "ge":
            return lambda row: above(row) or getter(row) == wanted
        case _:
            return lambda row: below(row) or getter(row) == wanted


# ---------------------------------------------------------------- order and pages


@dataclass(frozen=True, slots=True)
class Order:
    getter: Getter
    descending: bool


def parse_order(text: str, schema: Schema) -> list[Order]:
    orders: list[Order] = []
    for part in text.split(","):
        words = part.split()
        if not words or len(words) > 2 or (len(words) == 2 and words[1] not in ("asc", "desc")):
            raise QueryError(f"Syntax error in the order-by expression '{text}'.")
        getter, kind = schema.property(tuple(words[0].split("/")))
        if kind in ("string", "enum"):
            getter = _folded(getter)
        orders.append(Order(getter, len(words) == 2 and words[1] == "desc"))
    return orders


def sort_values(row: Row, orders: Sequence[Order]) -> list[Any]:
    return [order.getter(row) for order in orders]


def _key(value: Any) -> tuple[bool, Any]:
    return (value is not None, value)


def sort_rows(rows: list[Any], orders: Sequence[Order], *, row_of: Callable[[Any], Row]) -> None:
    """In place; the last order counts least. Nothing comes before something."""
    for order in reversed(orders):
        getter = order.getter
        rows.sort(key=lambda entry, getter=getter: _key(getter(row_of(entry))), reverse=order.descending)  # type: ignore[misc]


def comes_after(values: Sequence[Any], last: Sequence[Any], orders: Sequence[Order]) -> bool:
    """Whether a row with these sort values stands behind the row where the page before ended."""
    for value, bound, order in zip(values, last, orders, strict=True):
        if value != bound:
            return (_key(value) > _key(bound)) != order.descending
    return False


def first_after(
    rows: Sequence[Any], last: Sequence[Any], orders: Sequence[Order], *, row_of: Callable[[Any], Row]
) -> int:
    """Where in sorted rows the page begins that follows the row with the sort values `last`.

    Raises QueryError where these are not values of that order: they come from a token, which a client may change.
    """
    try:
        return bisect_left(rows, True, key=lambda entry: comes_after(sort_values(row_of(entry), orders), last, orders))
    except (TypeError, ValueError) as error:
        raise QueryError("The skip token is not valid.") from error


def split_list(text: str, separator: str = ",") -> list[str]:
    """Parts between separators that stand in no brackets or quotes: `a,b($select=c,d)` is two."""
    parts, depth, quoted, start = [], 0, False, 0
    for index, mark in enumerate(text):
        if mark == "'":
            quoted = not quoted
        elif quoted:
            continue
        elif mark in "([":
            depth += 1
            if depth > MAX_DEPTH:
                raise _too_deep()
        elif mark in ")]":
            depth -= 1
        elif mark == separator and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    parts.append(text[start:].strip())
    return [part for part in parts if part]


def parse_expand(text: str) -> list[tuple[str, dict[str, str]]]:
    """Names with the options in their parentheses, which may hold an `$expand` with options of its own."""
    expanded: list[tuple[str, dict[str, str]]] = []
    for part in split_list(text):
        name, bracket, rest = part.partition("(")
        options: dict[str, str] = {}
        if bracket:
            for option in split_list(rest.rstrip().removesuffix(")"), ";"):
                key, _, value = option.partition("=")
                options[key.strip()] = value.strip()
        expanded.append((name.strip(), options))
    return expanded
