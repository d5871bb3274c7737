"""The query functions of `Microsoft.Dynamics.CRM` that a filter may call, as conditions of a row. Pure.

Hierarchies (`Under`, `Above` …), fiscal periods, teams and columns of several choices are refused by name.
Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/queryfunctions
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from drawbar.sandbox.crm.patterns import like
from drawbar.sandbox.crm.periods import COUNTED, DATED, PERIODS, Span
from drawbar.sandbox.odata import Getter, Predicate, QueryError, QueryFunction, plain_text_test

NAMESPACE = "Microsoft.Dynamics.CRM."
_CALLER = re.compile(re.escape(NAMESPACE) + r"(Not)?(?:Equal)(UserId|BusinessId)\(\s*PropertyName\s*=\s*'(\w+)'\s*\)")
_CALLER_COLUMNS = {"UserId": "systemuserid", "BusinessId": "businessunitid"}


def with_caller(options: dict[str, str], user: Mapping[str, Any]) -> dict[str, str]:
    """The options of a query in which the functions that are about the caller name him."""
    if not any(NAMESPACE in value for value in options.values()):
        return options

    def named(match: re.Match[str]) -> str:
        negated, what, column = match.groups()
        return f"({column} {'ne' if negated else 'eq'} {user.get(_CALLER_COLUMNS[what]) or 'null'})"

    return {name: _CALLER.sub(named, value) for name, value in options.items()}


def text_test(name: str, part: str) -> Callable[[str], bool]:
    """`contains`, `startswith`, `endswith`, in whose text wildcards stand for others."""
    if not any(mark in part for mark in "%_["):
        return plain_text_test(name, part)
    before = "" if name == "startswith" else "%"
    behind = "" if name == "endswith" else "%"
    return like(before + part + behind)


def condition(function: QueryFunction, getter: Getter, kind: str, now: Callable[[], datetime]) -> Predicate:
    """Raises QueryError for a function that is not known, or values that do not fit the column."""
    arguments = dict(function.arguments)
    name = function.name
    if name in ("In", "NotIn"):
        wanted = {_of_kind(value, kind) for value in _several(function, arguments)}
        inside = name == "In"
        return lambda row: (_folded(getter(row)) in wanted) == inside
    if name in ("Between", "NotBetween"):
        values = _several(function, arguments)
        if len(values) != 2:
            raise QueryError(f"The query function '{name}' takes two values.")
        low, high = (_of_kind(value, kind) for value in values)
        inside = name == "Between"

        def between(row: Mapping[str, Any]) -> bool:
            value = _folded(getter(row))
            return value is not None and (low <= value <= high) == inside

        return between
    if name in PERIODS or name in COUNTED or name in DATED:
        if kind not in ("time", "date"):
            raise QueryError(f"The query function '{name}' is about columns of type date and time.")
        return _within(getter, _span(function, arguments, now))
    raise QueryError(f"The query function '{name}' is not supported.")


def _span(function: QueryFunction, arguments: Mapping[str, Any], now: Callable[[], datetime]) -> Callable[[], Span]:
    name, value = function.name, arguments.get("PropertyValue")
    if name in PERIODS:
        return lambda: PERIODS[name](now())
    if name in DATED:
        span = DATED[name](_time(value))
        return lambda: span
    text = str(value)
    if not text.isdigit() or int(text) == 0:
        raise QueryError(f"The query function '{name}' takes a positive whole number.")
    try:
        COUNTED[name](now(), int(text))
    except (OverflowError, ValueError) as error:
        raise QueryError(f"The query function '{name}' leads out of the calendar.") from error
    return lambda: COUNTED[name](now(), int(text))


def _within(getter: Getter, span: Callable[[], Span]) -> Predicate:
    def inside(row: Mapping[str, Any]) -> bool:
        value = getter(row)
        if value is None:
            return False
        begin, end = span()
        return begin <= _time(value) < end

    return inside


def _several(function: QueryFunction, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
    values = arguments.get("PropertyValues")
    if not isinstance(values, tuple):
        raise QueryError(f"The query function '{function.name}' takes 'PropertyValues', a list.")
    return values


def _of_kind(value: Any, kind: str) -> Any:
    """A value of a list, where numbers and times may be text, as it compares with what the column holds."""
    if kind == "number" and isinstance(value, str):
        try:
            return float(value)
        except ValueError as error:
            raise QueryError(f"'{value}' is no number.") from error
    if kind == "bool" and isinstance(value, str):
        return value.lower() in ("true", "1")
    if kind == "time":
        return _time(value).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _folded(value)


def _time(value: Any) -> datetime:
    try:
        found = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError as error:
        raise QueryError(f"'{value}' is not a date-time.") from error
    return found.astimezone(timezone.utc) if found.tzinfo else found.replace(tzinfo=timezone.utc)


def _folded(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value
