"""The value schema of one changes topic when a registry keeps the schemas: a column per captured field.

Pure. The envelope is that of a change event; `after` is a record whose columns standard tools can read. Whatever has
no column, or is not of its column's type, is kept beside the columns, and so is the difference between a field that is
blank and one that is unknown: decoding gives back the very event.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

from schemas.records import ChangeEvent, System, Value

ColumnType = Literal["text", "amount", "integer", "boolean"]
Columns = Mapping[str, ColumnType]

OTHERS = "drawbar_others"  # fields without a column, and values that are not of their column's type
UNKNOWN = "drawbar_unknown"  # columns of which nothing is known
_AVRO = {"text": "string", "amount": "string", "integer": "long", "boolean": "boolean"}
_IS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*").fullmatch
_LONG = range(-(2**63), 2**63)


def typed_schema(envelope: Mapping[str, Any], system: System, entity: str, columns: Columns) -> dict[str, Any]:
    """The schema of an entity's changes. `envelope`: the schema of a change event."""
    values = next(field["type"] for field in envelope["fields"] if field["name"] == "after")[1]["values"]
    after = {
        "type": "record",
        "name": "Record",
        "namespace": f"drawbar.{system.value}.{entity}",
        "doc": f"One {entity} of the {system.value.upper()}: a column for each field that is captured.",
        "fields": [
            *(_column(name, kind) for name, kind in sorted(columns.items()) if _IS_NAME(name)),
            {"name": OTHERS, "type": {"type": "map", "values": values}, "default": {}},
            {"name": UNKNOWN, "type": {"type": "array", "items": "string"}, "default": []},
        ],
    }
    fields = [{**field, "type": ["null", after]} if field["name"] == "after" else field for field in envelope["fields"]]
    return {**envelope, "namespace": f"drawbar.{system.value}.{entity}", "fields": fields}


def _column(name: str, kind: ColumnType) -> dict[str, Any]:
    doc = {"doc": "An exact decimal number, as text.", "amount": True} if kind == "amount" else {}
    return {"name": name, "type": ["null", _AVRO[kind]], "default": None, **doc}


def columns_of(schema: Mapping[str, Any]) -> Columns:
    """The columns that a registered schema has. Raises KeyError, StopIteration or TypeError when it is no typed one."""
    after = next(field["type"] for field in schema["fields"] if field["name"] == "after")[1]
    found: dict[str, ColumnType] = {}
    names: Mapping[str, ColumnType] = {"string": "text", "long": "integer", "boolean": "boolean"}
    for field in after["fields"]:
        if field["name"] not in (OTHERS, UNKNOWN):
            found[field["name"]] = "amount" if field.get("amount") else names[field["type"][1]]
    return found


def to_typed(datum: dict[str, Any], event: ChangeEvent, columns: Columns) -> dict[str, Any]:
    """The datum of a change event, its fields in columns. `datum`: as the untyped schema has it; it is changed."""
    if event.after is None:
        return datum
    row: dict[str, Any] = {}
    unknown, rest = [], dict(event.after)
    for name, kind in columns.items():
        if name not in rest:
            unknown.append(name)
        elif _fits(rest[name], kind):
            value = rest.pop(name)
            row[name] = str(value) if kind == "amount" and value is not None else value
    row[UNKNOWN] = unknown
    row[OTHERS] = rest
    datum["after"] = row
    return datum


def _fits(value: Value, kind: ColumnType) -> bool:
    if value is None:
        return True
    if isinstance(value, bool):
        return kind == "boolean"
    if isinstance(value, int):
        return kind == "integer" and value in _LONG
    return kind == ("amount" if isinstance(value, Decimal) else "text")


def from_typed(datum: dict[str, Any], columns: Columns) -> dict[str, Any]:
    """The datum as the untyped schema has it, by the columns of the schema that it was written with."""
    row = datum["after"]
    if row is None:
        return datum
    others = row[OTHERS]
    after: dict[str, Any] = {}
    for name, kind in columns.items():
        if name in others or name in row[UNKNOWN]:
            continue
        value = row[name]
        after[name] = {"amount": value} if kind == "amount" and value is not None else value
    datum["after"] = {**after, **others}
    return datum
