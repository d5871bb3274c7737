"""Schemas in a registry with Confluent's API: planned, registered, and the framing of the messages written with them.

Only `drawbar schemas apply` and `drawbar mappings apply` register. A stage asks once, at its start, under which ids its
schemas stand, and of the changes topics for their latest version, whose columns it fills; a message costs no request.
"""

from __future__ import annotations

import io
import json
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, cast

import fastavro
import fastavro.schema
import structlog
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError
from typing_extensions import Self

from drawbar.entities import Kind, entity_of
from drawbar.metadata import FieldFacts, Form
from drawbar.settings import RegistrySettings, secret_of
from schemas.codec import avro_schema, parse, to_datum
from schemas.errors import RegistryUnavailable, SchemaIncompatible, SchemaNotRegistered, Undecodable
from schemas.records import ChangeEvent, Command, DeadLetter, JournalLine, System, Watermark, Work
from schemas.topics import DEAD_LETTERS_INDEX, JOURNAL, PAIRS_WORK, WATERMARKS, changes_topic, commands_topic
from schemas.typed_changes import Columns, ColumnType, columns_of, from_typed, to_typed, typed_schema

T = TypeVar("T")
Fields = Mapping[tuple[System, str], Sequence[str]]  # captured fields by entity
Facts = Mapping[tuple[System, str], Mapping[str, FieldFacts]]

TELL_EVERY_S = 5.0
WAIT_S = 1.0
_NOT_THERE = (40401, 40402, 40403)  # no such subject, version, schema
_INCOMPATIBLE = 409

# Where each type stands, besides the changes.
TOPICS_OF: Mapping[type, Sequence[str]] = {
    Work: (PAIRS_WORK,),
    Command: tuple(commands_topic(system.value) for system in System),
    JournalLine: (JOURNAL,),
    DeadLetter: (DEAD_LETTERS_INDEX,),
    Watermark: (WATERMARKS,),
}

log = structlog.get_logger(__name__)


def subject_of(topic: str) -> str:
    """Confluent's TopicNameStrategy, for values."""
    return f"{topic}-value"


# --- what is to be registered -----------------------------------------------------------------------------------------


def schemas_of(fields: Fields, facts: Facts) -> dict[str, dict[str, Any]]:
    """Subject -> schema of everything that is written while these fields are captured.

    `facts`: what the systems say of them; where they say nothing, our own table stands.
    """
    found = {subject_of(topic): avro_schema(cls) for cls, topics in TOPICS_OF.items() for topic in topics}
    for (system, entity), names in fields.items():
        columns = {name: _column_type(system, entity, name, facts) for name in names}
        schema = typed_schema(avro_schema(ChangeEvent), system, entity, columns)
        found[subject_of(changes_topic(system.value, entity))] = schema
    return found


def _column_type(system: System, entity: str, name: str, facts: Facts) -> ColumnType:
    ours: Mapping[Kind, ColumnType] = {Kind.AMOUNT: "amount", Kind.INTEGER: "integer", Kind.BOOLEAN: "boolean"}
    theirs: Mapping[Form, ColumnType] = {Form.AMOUNT: "amount", Form.INTEGER: "integer", Form.BOOLEAN: "boolean"}
    known = entity_of(system, entity).kind(name)
    if known in ours:
        return ours[known]
    fact = facts.get((system, entity), {}).get(name)
    if fact is None:
        return "text"
    if fact.form is Form.CHOICE:
        return "integer" if system is System.CRM else "text"
    return theirs.get(fact.form, "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectPlan:
    subject: str
    what: Literal["new", "changed", "as it is", "refused"]
    version: int = 0  # the latest one in the registry; 0: none
    reason: str = ""


class Registry:
    """One registry. Raises RegistryUnavailable from every method when it does not answer as it should."""

    def __init__(self, settings: RegistrySettings) -> None:
        """Raises SettingsError when the file of the password cannot be read."""
        options: dict[str, Any] = {"url": settings.url}
        if settings.user:
            password = secret_of(settings.password, settings.password_file, "registry.password")
            options["basic.auth.user.info"] = f"{settings.user}:{password}"
        if settings.ca_file is not None:
            options["ssl.ca.location"] = str(settings.ca_file)
        self._client = SchemaRegistryClient(options)

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def plan(self, schemas: Mapping[str, Mapping[str, Any]]) -> list[SubjectPlan]:
        """What registering these would do, by subject; nothing is changed."""
        return [self._plan(subject, schema) for subject, schema in sorted(schemas.items())]

    def _plan(self, subject: str, schema: Mapping[str, Any]) -> SubjectPlan:
        wanted = _as_schema(schema)
        latest = self._if_there(lambda: self._client.get_latest_version(subject))
        if latest is None:
            return SubjectPlan(subject=subject, what="new")
        version = int(latest.version or 0)
        if self._if_there(lambda: self._client.lookup_schema(subject, wanted)) is not None and _same(latest, schema):
            return SubjectPlan(subject=subject, what="as it is", version=version)
        if self._asked(lambda: self._client.test_compatibility(subject, wanted)):
            return SubjectPlan(subject=subject, what="changed", version=version)
        return SubjectPlan(subject=subject, what="refused", version=version, reason="not compatible with the latest")

    def apply(self, schemas: Mapping[str, Mapping[str, Any]]) -> list[SubjectPlan]:
        """Register what is new or changed; nothing at all when the registry would refuse a part of it.

        Raises SchemaIncompatible naming the subjects.
        """
        found = self.plan(schemas)
        refused = [one.subject for one in found if one.what == "refused"]
        if refused:
            raise SchemaIncompatible(f"not compatible with what is registered: {', '.join(refused)}")
        for one in found:
            if one.what in ("new", "changed"):
                self._register(one.subject, _as_schema(schemas[one.subject]))
        self._client.clear_latest_caches()  # type: ignore[no-untyped-call]
        return found

    def _register(self, subject: str, schema: Schema) -> None:
        try:
            self._asked(lambda: self._client.register_schema(subject, schema))
        except SchemaRegistryError as fault:
            if fault.http_status_code == _INCOMPATIBLE:  # somebody else registered in between
                raise SchemaIncompatible(f"{subject} was refused") from fault
            raise _unavailable(fault) from fault

    def id_of(self, subject: str, schema: Mapping[str, Any]) -> int:
        """Raises SchemaNotRegistered."""
        found = self._if_there(lambda: self._client.lookup_schema(subject, _as_schema(schema)))
        if found is None:
            raise SchemaNotRegistered(f"what is written to {subject} is not registered", where=subject)
        return int(found.schema_id or 0)

    def latest(self, subject: str) -> tuple[int, dict[str, Any]]:
        """Id and schema. Raises SchemaNotRegistered."""
        found = self._if_there(lambda: self._client.get_latest_version(subject))
        if found is None:
            raise SchemaNotRegistered(f"nothing is registered for {subject}", where=subject)
        return int(found.schema_id or 0), json.loads(str(found.schema.schema_str))

    def by_id(self, schema_id: int) -> dict[str, Any] | None:
        """None: there is no such schema."""
        found = self._if_there(lambda: self._client.get_schema(schema_id))
        return None if found is None else json.loads(str(found.schema_str))

    def await_there(self) -> None:
        """Return once the registry answers; says now and then that it waits."""
        begun = time.monotonic()
        tell_at = begun
        while (reason := self._amiss()) is not None:
            now = time.monotonic()
            if now >= tell_at:
                tell_at = now + TELL_EVERY_S
                log.warning("registry.waiting", waited_s=round(now - begun), reason=reason)
            time.sleep(WAIT_S)

    def _amiss(self) -> str | None:
        try:
            self._asked(self._client.get_subjects)
        except RegistryUnavailable as away:
            return away.message
        return None

    def _if_there(self, ask: Callable[[], T]) -> T | None:
        try:
            return self._asked(ask)
        except SchemaRegistryError as fault:
            if fault.error_code in _NOT_THERE or fault.http_status_code == 404:
                return None
            raise _unavailable(fault) from fault

    @staticmethod
    def _asked(ask: Callable[[], T]) -> T:
        """What it answers. SchemaRegistryError is raised for a refusal that may mean something."""
        try:
            return ask()
        except SchemaRegistryError as fault:
            if fault.http_status_code in (404, _INCOMPATIBLE):
                raise
            raise _unavailable(fault) from fault
        except Exception as fault:
            # the client raises whatever its HTTP library does; to us all of it means the same
            raise RegistryUnavailable(f"the schema registry does not answer: {type(fault).__name__}") from fault


def _unavailable(fault: SchemaRegistryError) -> RegistryUnavailable:
    return RegistryUnavailable(f"the schema registry answers {fault.http_status_code} ({fault.error_code})")


def _as_schema(schema: Mapping[str, Any]) -> Schema:
    return Schema(json.dumps(schema), "AVRO")


def _same(registered: Any, schema: Mapping[str, Any]) -> bool:
    found = json.loads(str(registered.schema.schema_str))
    return bool(
        fastavro.schema.to_parsing_canonical_form(found) == fastavro.schema.to_parsing_canonical_form(dict(schema))
    )


# --- framing ----------------------------------------------------------------------------------------------------------


class Lookups(Protocol):
    """What framing asks a registry, once for each type, entity and id."""

    def id_of(self, subject: str, schema: Mapping[str, Any]) -> int: ...

    def latest(self, subject: str) -> tuple[int, dict[str, Any]]: ...

    def by_id(self, schema_id: int) -> dict[str, Any] | None: ...


class RegistryFraming:
    """Confluent's wire format: 00, four bytes of schema id, the body. Errors of the look-ups come through."""

    def __init__(self, registry: Lookups) -> None:
        self._registry = registry
        self._plain: dict[type, tuple[bytes, Any]] = {}
        self._typed: dict[tuple[System, str], tuple[bytes, Any, Columns]] = {}
        self._read: dict[int, tuple[str, Any, Columns | None] | None] = {}
        self._ours: dict[type, Any] = {}

    def prepare(self, fields: Fields) -> None:
        """Look up all that a stage may write, so that what is missing stops its start.

        Raises SchemaNotRegistered, RegistryUnavailable.
        """
        for cls in TOPICS_OF:
            self._plain_of(cls)
        for system, entity in fields:
            self._typed_of(system, entity)

    def frame(self, record: object) -> tuple[bytes, Any, dict[str, Any]]:
        """Raises KeyError for a type that stands on no topic."""
        if isinstance(record, ChangeEvent):
            before, parsed, columns = self._typed_of(record.ref.system, record.ref.entity)
            return before, parsed, to_typed(to_datum(record), record, columns)
        before, parsed = self._plain_of(type(record))
        return before, parsed, to_datum(record)

    def _plain_of(self, cls: type) -> tuple[bytes, Any]:
        if cls not in self._plain:
            schema = avro_schema(cls)
            schema_id = self._registry.id_of(subject_of(TOPICS_OF[cls][0]), schema)
            self._plain[cls] = _head(schema_id), parse(schema)
        return self._plain[cls]

    def _typed_of(self, system: System, entity: str) -> tuple[bytes, Any, Columns]:
        key = system, entity
        if key not in self._typed:
            schema_id, schema = self._registry.latest(subject_of(changes_topic(system.value, entity)))
            self._typed[key] = _head(schema_id), parse(schema), columns_of(schema)
        return self._typed[key]

    def unframe(self, cls: type, schema_id: int, body: io.BytesIO) -> Mapping[str, Any]:
        if schema_id not in self._read:
            self._read[schema_id] = self._known(self._registry.by_id(schema_id))
        found = self._read[schema_id]
        if found is None or found[0] != cls.__name__:
            raise Undecodable(f"not a {cls.__name__}: schema {schema_id}")
        _, written, columns = found
        if columns is not None:
            typed: Any = fastavro.schemaless_reader(body, written, None)
            return from_typed(typed, columns)
        if cls not in self._ours:
            self._ours[cls] = parse(avro_schema(cls))
        return cast("Mapping[str, Any]", fastavro.schemaless_reader(body, written, self._ours[cls]))

    @staticmethod
    def _known(schema: Mapping[str, Any] | None) -> tuple[str, Any, Columns | None] | None:
        if schema is None:
            return None
        try:
            is_typed = schema["name"] == ChangeEvent.__name__ and schema["namespace"] != "drawbar"
            return schema["name"], parse(schema), columns_of(schema) if is_typed else None
        except (KeyError, TypeError, StopIteration, ValueError):
            return None


def _head(schema_id: int) -> bytes:
    return struct.pack(">bI", 0, schema_id)
