"""Carry the record types into bytes and back: Avro for the topics, JSON text for the rows of decide's table.

Pure after import; the `.avsc` files are read once. Avro values are in single-object encoding: C3 01, the CRC-64
fingerprint of the schema, the body (Avro specification 1.11, "Single object encoding"). Where a registry keeps the
schemas, a process installs a `Framing` and writes the registry's: 00, the id of the schema, the body. The first byte
tells them apart, so both may stand on one topic. A reader that meets another first byte, an unknown fingerprint or an
unknown id raises `Undecodable`, and the message becomes a dead letter with its bytes.
"""

from __future__ import annotations

import io
import json
import types
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from enum import Enum
from functools import cache
from importlib import resources
from typing import Any, Protocol, TypeVar, Union, cast, get_args, get_origin

import fastavro
import fastavro.schema
import fastavro.write
import msgspec
import orjson

from schemas.coupling import Row
from schemas.errors import RegistryUnavailable, Undecodable
from schemas.records import (
    ChangeEvent,
    Command,
    DeadLetter,
    JournalLine,
    Outcome,
    Record,
    Values,
    Watermark,
    Work,
)

T = TypeVar("T")

MARKER = b"\xc3\x01"
# Every type with an `.avsc` file of its own: file name -> class.
FILES: dict[str, type] = {
    "change_event": ChangeEvent,
    "command": Command,
    "outcome": Outcome,
    "work": Work,
    "coupling": Row,
    "dead_letter": DeadLetter,
    "journal_line": JournalLine,
    "watermark": Watermark,
}


REGISTRY_MARKER = 0  # the first byte of Confluent's framing


class Framing(Protocol):
    """How a registry's schemas stand before and behind a message."""

    def frame(self, record: object) -> tuple[bytes, Any, dict[str, Any]]:
        """What stands before the body of `record`, and the schema and the datum of the body."""
        ...

    def unframe(self, cls: type, schema_id: int, body: io.BytesIO) -> Mapping[str, Any]:
        """The datum of a `cls` that was written with this schema.

        Raises Undecodable for a schema that there is not, RegistryUnavailable when nobody can tell.
        """
        ...


_installed: list[Framing] = []


def install(framing: Framing | None) -> None:
    """Write with a registry's schemas from now on, and read what was; None: single-object encoding alone."""
    _installed[:] = [framing] if framing is not None else []


def encode(record: object) -> bytes:
    """`record` in the framing of this process. Raises KeyError for a class that has no schema."""
    if _installed:
        before, parsed, datum = _installed[0].frame(record)
        framed = io.BytesIO()
        framed.write(before)
        fastavro.schemaless_writer(framed, parsed, datum)
        return framed.getvalue()
    schema, header = _writer(cast("Any", type(record)))
    out = io.BytesIO()
    out.write(header)
    fastavro.schemaless_writer(out, schema, to_datum(record))
    return out.getvalue()


def decode(cls: type[T], data: bytes | None) -> T:
    """The record in `data`, in either framing.

    Raises Undecodable when the bytes are not one of `cls`, RegistryUnavailable when they may be and nobody can tell.
    """
    schema, header = _writer(cast("Any", cls))
    by_registry = bool(_installed) and bool(data) and cast("bytes", data)[0] == REGISTRY_MARKER
    if not data or (data[:10] != header and not by_registry):
        raise Undecodable(f"not a {cls.__name__} in single-object encoding")
    try:
        if by_registry:
            body = io.BytesIO(data[5:])
            datum: Any = _installed[0].unframe(cls, int.from_bytes(data[1:5], "big"), body)
        else:
            body = io.BytesIO(data[10:])
            datum = fastavro.schemaless_reader(body, schema, None)
        record = from_datum(cls, datum)
    except (Undecodable, RegistryUnavailable):
        raise
    except Exception as fault:
        # fastavro raises whatever its reading runs into; to us all of it means the same.
        raise Undecodable(f"broken {cls.__name__}: {type(fault).__name__}") from fault
    if body.read(1):
        raise Undecodable(f"bytes after the end of a {cls.__name__}")
    return record


def to_json(record: object) -> bytes:
    """`record` as JSON text in UTF-8, of the same shape as its Avro datum; times are ISO 8601. A field that has its
    default is left out, and decimal numbers are JSON numbers where that says of each that it is one.
    """
    for values in _all_values_in(record):
        for value in values.values():
            if type(value) is Decimal and not _shows_in_json(value):
                return orjson.dumps(to_datum(record), default=_amount_datum)
    return _JSON.encode(record)


def from_json(cls: type[T], text: str | bytes) -> T:
    """Raises Undecodable when the text is not JSON of the shape of `cls`."""
    try:
        record: T = _json_decoder(cast("Any", cls)).decode(text)
        return _with_amounts(record)
    except Exception as fault:
        raise Undecodable(f"broken {cls.__name__}: {type(fault).__name__}") from fault


def to_datum(record: object) -> dict[str, Any]:
    """Plain dicts, lists and scalars, times and decimal numbers, without the fields that have their default."""
    datum: dict[str, Any] = msgspec.to_builtins(record, builtin_types=(datetime, Decimal))
    return datum


def from_datum(cls: type[T], datum: Mapping[str, Any]) -> T:
    """The way back; a decimal number may be one, or the record that the schema has for it.

    Raises whatever it runs into when the datum is not one of `cls`.
    """
    record: T = msgspec.convert(datum, cls)
    return _with_amounts(record)


_JSON = msgspec.json.Encoder(decimal_format="number")


@cache
def _json_decoder(cls: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(cls, float_hook=Decimal)


# --- decimal numbers ----------------------------------------------------------------------------------------------

AMOUNT = "amount"  # the one field of the record that stands for a decimal number, and its logical type
Gather = Callable[[Any, list[dict[str, Any]]], None]


def _shows_in_json(number: Decimal) -> bool:
    """Whether a JSON number is read as the decimal that it was: 7 would be an integer, and infinity is no number."""
    text = str(number)
    return "." in text or "E" in text


def _amount_datum(value: Any, *_: object) -> Any:
    return {AMOUNT: str(value)} if isinstance(value, Decimal) else value


def _with_amounts(record: T) -> T:
    """`record` itself, just read, with the decimal numbers in its maps of values."""
    for values in _all_values_in(record):
        for name, value in values.items():
            if type(value) is dict:
                values[name] = Decimal(value[AMOUNT])
    return record


def _all_values_in(record: object) -> list[dict[str, Any]]:
    """Every map of values in a record, however deep."""
    found: list[dict[str, Any]] = []
    gather = _gatherer(cast("Any", type(record)))
    if gather is not None:
        gather(record, found)
    return found


@cache
def _gatherer(hint: Any) -> Gather | None:
    """What finds the maps of values in a value of this type; None when there can be none."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint == Values:
        return lambda values, found: found.append(values)
    if origin in (Union, types.UnionType):
        return _gatherer(next(kind for kind in inner if kind is not type(None)))
    if origin in (tuple, Mapping):
        return _gatherer_of_each(_gatherer(inner[1] if origin is Mapping else inner[0]), of_map=origin is Mapping)
    if isinstance(hint, type) and issubclass(hint, Record):
        return _gatherer_of_members(hint)
    return None


def _gatherer_of_each(gather: Gather | None, *, of_map: bool) -> Gather | None:
    if gather is None:
        return None

    def run(items: Any, found: list[dict[str, Any]]) -> None:
        for item in items.values() if of_map else items:
            gather(item, found)

    return run


def _gatherer_of_members(cls: type[Record]) -> Gather | None:
    hints = [(member.name, _gatherer(member.type)) for member in msgspec.structs.fields(cls)]
    members = [(name, gather) for name, gather in hints if gather is not None]

    def run(record: Any, found: list[dict[str, Any]]) -> None:
        for name, gather in members:
            value = getattr(record, name)
            if value:
                gather(value, found)

    return run if members else None


# fastavro asks by the type and its logical type, which stands in no file and no fingerprint: it is our own matter.
fastavro.write.LOGICAL_WRITERS[f"record-{AMOUNT}"] = _amount_datum


def parse(schema: Mapping[str, Any]) -> Any:
    """A schema as `encode` and `decode` need it. Raises what fastavro raises for one that is none."""
    return fastavro.parse_schema(_marked(schema), named_schemas={})


def _marked(node: Any) -> Any:
    if isinstance(node, list):
        return [_marked(item) for item in node]
    if not isinstance(node, dict):
        return node
    marked = {name: _marked(item) for name, item in node.items()}
    return {**marked, "logicalType": AMOUNT} if node.get("name") == _AMOUNT["name"] else marked


def avro_schema(cls: type) -> dict[str, Any]:
    """The Avro schema of a record type, as its `.avsc` file must say it."""
    schema: dict[str, Any] = _schema_of(cls, set())
    return schema


def schema_text(name: str) -> str:
    """The text of the `.avsc` file called `name`."""
    return resources.files("schemas").joinpath(f"{name}.avsc").read_text(encoding="utf-8")


# --- schemas ------------------------------------------------------------------------------------------------------

_AMOUNT = {
    "type": "record",
    "name": "Amount",
    "namespace": "drawbar",
    "doc": "A decimal number as text, exact.",
    "fields": [{"name": "amount", "type": "string"}],
}


def _schema_of(hint: Any, seen: set[str]) -> Any:
    if hint is Any:
        return ["null", "boolean", "long", "string", _named("Amount", _AMOUNT, seen)]
    scalars = {str: "string", int: "long", bool: "boolean"}
    if hint in scalars:
        return scalars[hint]
    if hint is datetime:
        return {"type": "long", "logicalType": "timestamp-micros"}
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        (inner,) = (arg for arg in get_args(hint) if arg is not type(None))
        return ["null", _schema_of(inner, seen)]
    if origin is tuple:
        return {"type": "array", "items": _schema_of(get_args(hint)[0], seen)}
    if origin in (Mapping, dict):
        return {"type": "map", "values": _schema_of(get_args(hint)[1], seen)}
    if issubclass(hint, Enum):
        members = [member.value for member in hint]
        return _named(
            hint.__name__,
            {"type": "enum", "name": hint.__name__, "namespace": "drawbar", "symbols": members},
            seen,
        )
    return _record_schema(hint, seen)


def _record_schema(cls: type, seen: set[str]) -> Any:
    if cls.__name__ in seen:
        return f"drawbar.{cls.__name__}"
    seen.add(cls.__name__)
    members = []
    for member in msgspec.structs.fields(cls):
        entry: dict[str, Any] = {"name": member.name, "type": _schema_of(member.type, seen)}
        if not member.required:
            entry["default"] = _default_of(member)
        members.append(entry)
    doc = (cls.__doc__ or "").split("\n\n", maxsplit=1)[0].replace("\n    ", " ").strip()
    return {"type": "record", "name": cls.__name__, "namespace": "drawbar", "doc": doc, "fields": members}


def _default_of(member: msgspec.structs.FieldInfo) -> Any:
    value = member.default_factory() if member.default is msgspec.NODEFAULT else member.default
    if isinstance(value, Record):
        return {other.name: _default_of(other) for other in msgspec.structs.fields(value)}
    return list(value) if isinstance(value, tuple) else msgspec.to_builtins(value)


def _named(name: str, schema: dict[str, Any], seen: set[str]) -> Any:
    if name in seen:
        return f"drawbar.{name}"
    seen.add(name)
    return schema


@cache
def _writer(cls: Any) -> tuple[Any, bytes]:
    (name,) = (name for name, known in FILES.items() if known is cls)
    raw = json.loads(schema_text(name))
    canonical = fastavro.schema.to_parsing_canonical_form(raw)
    fingerprint = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
    return parse(raw), MARKER + bytes.fromhex(fingerprint)


def write_schema_files() -> None:
    """Write every `.avsc` file anew from its class; run by hand after a change of the contract."""
    folder = resources.files("schemas")
    for name, cls in FILES.items():
        text = json.dumps(avro_schema(cls), indent=2) + "\n"
        with open(str(folder.joinpath(f"{name}.avsc")), "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(text)


if __name__ == "__main__":
    write_schema_files()
