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
from collections.abc import Mapping
from dataclasses import MISSING, fields
from datetime import datetime
from enum import Enum
from functools import cache
from importlib import resources
from typing import Any, Protocol, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import fastavro
import fastavro.schema
import orjson

from schemas.compiled import decoder, encoder
from schemas.coupling import Row
from schemas.errors import RegistryUnavailable, Undecodable
from schemas.records import (
    ChangeEvent,
    Command,
    DeadLetter,
    JournalLine,
    Outcome,
    Value,
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
    """`record` as JSON text in UTF-8, of the same shape as its Avro datum; times are ISO 8601, in UTC."""
    return orjson.dumps(to_datum(record))


def from_json(cls: type[T], text: str | bytes) -> T:
    """Raises Undecodable when the text is not JSON of the shape of `cls`."""
    try:
        return from_datum(cls, orjson.loads(text))
    except Exception as fault:
        raise Undecodable(f"broken {cls.__name__}: {type(fault).__name__}") from fault


def to_datum(record: object) -> dict[str, Any]:
    """Plain dicts, lists and scalars, as the Avro libraries take them."""
    datum: dict[str, Any] = encoder(cast("Any", type(record)))(record)
    return datum


def from_datum(cls: type[T], datum: Mapping[str, Any]) -> T:
    record: T = decoder(cast("Any", cls))(datum)
    return record


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
    if hint == Value:
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
    hints = get_type_hints(cls)
    members = []
    for member in fields(cls):
        entry: dict[str, Any] = {"name": member.name, "type": _schema_of(hints[member.name], seen)}
        if member.default is None:
            entry["default"] = None
        elif member.default is not MISSING and not isinstance(member.default, Enum):
            entry["default"] = list(member.default) if isinstance(member.default, tuple) else member.default
        elif member.default is not MISSING:
            entry["default"] = member.default.value
        elif member.default_factory is not MISSING:
            entry["default"] = (
                {} if get_origin(hints[member.name]) in (Mapping, dict) else to_datum(member.default_factory())
            )
        members.append(entry)
    doc = (cls.__doc__ or "").split("\n\n", maxsplit=1)[0].replace("\n    ", " ").strip()
    if doc.startswith(f"{cls.__name__}("):
        doc = ""  # what dataclass makes up where nobody wrote one
    return {"type": "record", "name": cls.__name__, "namespace": "drawbar", "doc": doc, "fields": members}


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
    return fastavro.parse_schema(raw), MARKER + bytes.fromhex(fingerprint)


def write_schema_files() -> None:
    """Write every `.avsc` file anew from its class; run by hand after a change of the contract."""
    folder = resources.files("schemas")
    for name, cls in FILES.items():
        text = json.dumps(avro_schema(cls), indent=2) + "\n"
        with open(str(folder.joinpath(f"{name}.avsc")), "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(text)


if __name__ == "__main__":
    write_schema_files()
