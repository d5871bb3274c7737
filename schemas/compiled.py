"""Converters and copies of the record types, as functions made once per class, as `dataclasses` makes its `__init__`.

Pure after import. Every message goes through them several times and a row has some hundred fields: a function that
names each field takes a half to a quarter of the time of one that loops over them.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime, timezone
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

from schemas.records import Value

if TYPE_CHECKING:
    from dataclasses import replace as replace  # noqa: PLC0414 - a type checker knows the fields by this name
else:

    def replace(record: Any, /, **changes: Any) -> Any:
        """As `dataclasses.replace`, for frozen records with slots. Raises KeyError for a field that there is not."""
        return _copier(type(record))(record, changes)


Convert = Callable[[Any], Any]


@cache
def encoder(cls: Any) -> Convert:
    """A function from a record of `cls` to its datum: plain dicts, lists and scalars, as Avro libraries take them."""
    scope: dict[str, Any] = {"Decimal": Decimal}
    hints = get_type_hints(cls)
    parts = [f"{member.name!r}: {_out(hints[member.name], f'r.{member.name}', scope)}" for member in fields(cls)]
    return _function(["def run(r):", f" return {{{', '.join(parts)}}}"], scope)


@cache
def decoder(cls: Any) -> Convert:
    """The way back. A field that the datum does not name gets its default.

    The function raises whatever it runs into when the datum is not one of `cls`.
    """
    scope: dict[str, Any] = {"Decimal": Decimal, "cls": cls, "make": object.__new__, "time": _time}
    hints = get_type_hints(cls)
    made = {member.name: _in(hints[member.name], f"d[{member.name!r}]", scope) for member in fields(cls)}
    scope |= {f"put_{name}": put for name, put in _setters(cls).items()}
    whole = [f"  put_{name}(new, {text})" for name, text in made.items()]
    partly = [f" if {name!r} in d: found[{name!r}] = {text}" for name, text in made.items()]
    is_whole = " and ".join(f"{name!r} in d" for name in made)
    at_once = [f" if {is_whole}:", "  new = make(cls)", *whole, "  return new"]
    return _function(["def run(d):", *at_once, " found = {}", *partly, " return cls(**found)"], scope)


@cache
def _copier(cls: Any) -> Callable[[Any, Mapping[str, Any]], Any]:
    setters = _setters(cls)
    scope: dict[str, Any] = {"cls": cls, "make": object.__new__, "setters": setters}
    scope |= {f"put_{name}": put for name, put in setters.items()}
    copies = [f" put_{name}(new, r.{name})" for name in setters]
    changed = " for name in changes: setters[name](new, changes[name])"
    return _function(["def run(r, changes):", " new = make(cls)", *copies, changed, " return new"], scope)


def _setters(cls: Any) -> dict[str, Callable[[Any, Any], None]]:
    """Of its slots: what the `__init__` of a frozen record does by a look-up for each field."""
    return {member.name: getattr(cls, member.name).__set__ for member in fields(cls)}


def _function(lines: list[str], scope: dict[str, Any]) -> Callable[..., Any]:
    exec("\n".join(lines), scope)  # noqa: S102 - the text is made of the names in our own classes, as dataclasses does
    made: Callable[..., Any] = scope["run"]
    return made


def _out(hint: Any, value: str, scope: dict[str, Any]) -> str:
    """Python text that makes the datum of `value`, itself Python text."""
    if hint == Value:
        return f'({value} if type({value}) is not Decimal else {{"amount": str({value})}})'
    if hint in (str, int, bool, datetime):
        return value
    origin, inner = get_origin(hint), _inner(hint)
    if origin in (Union, types.UnionType):
        converted = _out(inner, value, scope)
        return value if converted == value else f"(None if {value} is None else {converted})"
    if origin is tuple:
        item = _out(inner, "i", scope)
        return f"list({value})" if item == "i" else f"[{item} for i in {value}]"
    if origin in (Mapping, dict):
        item = _out(inner, "i", scope)
        return f"dict({value})" if item == "i" else f"{{k: {item} for k, i in {value}.items()}}"
    if hasattr(hint, "__dataclass_fields__"):
        scope[f"of_{hint.__name__}"] = encoder(hint)
        return f"of_{hint.__name__}({value})"
    return f"{value}._value_"


def _in(hint: Any, value: str, scope: dict[str, Any]) -> str:
    """Python text that makes the value of a field of the datum `value`, itself Python text."""
    if hint == Value:
        return f'({value} if type({value}) is not dict else Decimal({value}["amount"]))'
    if hint in (str, int, bool):
        return value
    if hint is datetime:
        return f"time({value})"
    origin, inner = get_origin(hint), _inner(hint)
    if origin in (Union, types.UnionType):
        converted = _in(inner, value, scope)
        return value if converted == value else f"(None if {value} is None else {converted})"
    if origin is tuple:
        item = _in(inner, "i", scope)
        return f"tuple({value})" if item == "i" else f"tuple([{item} for i in {value}])"
    if origin in (Mapping, dict):
        item = _in(inner, "i", scope)
        return f"dict({value})" if item == "i" else f"{{k: {item} for k, i in {value}.items()}}"
    name = hint.__name__
    if hasattr(hint, "__dataclass_fields__"):
        scope[f"to_{name}"] = decoder(hint)
        return f"to_{name}({value})"
    scope[f"member_{name}"] = {member.value: member for member in hint}
    return f"member_{name}[{value}]"


def _inner(hint: Any) -> Any:
    """What an optional, a sequence or a mapping holds; None for other types."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (inner,) = (arg for arg in args if arg is not type(None)) if hint != Value else (None,)
        return inner
    return args[-1] if origin in (Mapping, dict) else args[0] if args else None


def _time(value: Any) -> datetime:
    """Fastavro gives a time, JSON its text."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(value).astimezone(timezone.utc)
