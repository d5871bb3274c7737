"""Dataverse's alternate keys: columns that identify a row as its id does.

Definitions are facts of the store, so they survive a restart. A key whose index is built is `Active`, or `Failed` when
rows break it already; until then, and when it failed, it identifies nothing.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, replace
from typing import Any

from drawbar.sandbox.crm.model import LOOKUPS, Attribute, CrmError, Entity, to_stored
from drawbar.sandbox.odata import GUID, unquote_key
from drawbar.sandbox.store import Store, Values
from drawbar.sandbox.switches import Switches

MAX_COLUMNS = 16  # of one key
BUILD_MS = 2000  # by the clock of the service
_ALLOWED = frozenset(("Decimal", "Integer", "String", "DateTime", "Picklist", *LOOKUPS))
_RESERVED = re.compile(r"[/<>*%&:\\?+]")  # characters that the documentation says do not work in an address
_PART = re.compile(r"\s*(\w+)\s*=\s*('(?:[^']|'')*'|[^,']*)\s*(?:,|\Z)")
_NAMESPACE = uuid.UUID("2f4c1a5e-7d0b-4c39-9a41-5b8f6f0f3d27")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    schema: str
    columns: tuple[str, ...]  # logical names, sorted
    active: bool
    ready_ms: int = 0  # when its index will be built; 0: it is

    @property
    def status(self) -> str:
        return "Pending" if self.ready_ms else "Active" if self.active else "Failed"

    @property
    def metadata_id(self) -> str:
        return str(uuid.uuid5(_NAMESPACE, self.schema))


class AlternateKeys:
    def __init__(self, store: Store, switches: Switches) -> None:
        self._switches = switches
        self._store = store

    def of(self, entity: Entity) -> list[Key]:
        kept = self._store.fact(f"keys/{entity.logical}", [])
        keys = [
            Key(schema=schema, columns=tuple(columns), active=active, ready_ms=ready[0] if ready else 0)
            for schema, columns, active, *ready in kept
        ]
        now_ms = self._store.clock.now_ms()
        if not any(0 < key.ready_ms <= now_ms for key in keys):
            return keys
        keys = [self._built(entity, key) if 0 < key.ready_ms <= now_ms else key for key in keys]
        self._keep(entity, keys)
        return keys

    def _built(self, entity: Entity, key: Key) -> Key:
        seen = [_folded(stored.values, key.columns) for stored in self._store.table(entity.logical).rows.values()]
        whole = [values for values in seen if values is not None]
        return replace(key, active=len(whole) == len(set(whole)), ready_ms=0)

    def add(self, entity: Entity, schema: str, columns: list[str]) -> Key:
        keys = self.of(entity)
        unknown = [name for name in columns if not isinstance(name, str) or name not in entity.attributes]
        if not schema or not columns or unknown or len(columns) > MAX_COLUMNS or len(columns) != len({*columns}):
            raise CrmError(400, "0x80040203", f"A key has a SchemaName and up to {MAX_COLUMNS} columns that exist.")
        if any(entity.attributes[name].type not in _ALLOWED for name in columns):
            raise CrmError(400, "0x80040203", "A column of this type cannot be part of a key.")
        most = self._switches["crm_keys_per_table"]
        if len(keys) >= most or any(schema.lower() == key.schema.lower() for key in keys):
            raise CrmError(400, "0x80040203", f"A table has up to {most} keys, each with a name of its own.")
        is_later = self._switches["crm_key_index"] == "in_background"
        ready_ms = self._store.clock.now_ms() + BUILD_MS if is_later else 0
        key = Key(schema=schema, columns=tuple(sorted(columns)), active=False, ready_ms=ready_ms)
        key = key if is_later else self._built(entity, key)
        self._keep(entity, [*keys, key])
        return key

    def drop(self, entity: Entity, name: str) -> None:
        keys = self.of(entity)
        left = [key for key in keys if name.lower() not in (key.metadata_id, key.schema.lower())]
        if len(left) == len(keys):
            raise CrmError(404, "0x80060888", f"There is no key '{name}' of '{entity.logical}'.")
        self._keep(entity, left)

    def _keep(self, entity: Entity, keys: list[Key]) -> None:
        self._store.set_fact(f"keys/{entity.logical}", [[k.schema, k.columns, k.active, k.ready_ms] for k in keys])

    def named(self, entity: Entity, text: str) -> Values:
        """The columns and values that stand in an address in place of an id. Raises CrmError where they are no key."""
        given: Values = {}
        position = 0
        while position < len(text):
            match = _PART.match(text, position)
            if match is None:
                raise CrmError(400, "0x80060888", f"Error in query syntax: the key '{text}' is not valid.")
            name, value = match.groups()
            attribute = entity.by_wire_name.get(name)
            if attribute is None:
                raise _not_defined(entity)
            given[attribute.name] = _literal(entity, attribute, value)
            if _RESERVED.search(value) and self._switches["crm_key_characters"] == "refused":
                raise CrmError(400, "0x80060888", f"Error in query syntax: the key '{text}' has a reserved character.")
            position = match.end()
        wanted = tuple(sorted(given))
        if not any(key.columns == wanted and key.active for key in self.of(entity)):
            raise _not_defined(entity)
        return given

    def find(self, entity: Entity, given: Values) -> str | None:
        columns = tuple(sorted(given))
        folded = _folded(given, columns)
        return self._store.table(entity.logical).index(columns, _folded).get(folded)

    def check(self, entity: Entity, row_id: str, row: Values) -> None:
        """Raises CrmError when another row has the same key. A row with an empty column is in no key."""
        for key in self.of(entity):
            folded = _folded(row, key.columns)
            if not key.active or folded is None:
                continue
            holder = self._store.table(entity.logical).index(key.columns, _folded).get(folded)
            if holder is not None and holder != row_id:
                raise CrmError(
                    412,
                    "0x80060892",
                    f"Entity Key {key.schema} violated. A record with the same value for {', '.join(key.columns)}"
                    " already exists. A duplicate record cannot be created. Select one or more unique values and try"
                    " again.",
                )


def missing(entity: Entity) -> CrmError:
    return CrmError(
        404, "0x80060891", f"A record with the specified key values does not exist in {entity.logical} entity"
    )


def _not_defined(entity: Entity) -> CrmError:
    return CrmError(
        400, "0x80060890", f"The specified key attributes are not a defined key for the {entity.logical} entity"
    )


def _literal(entity: Entity, attribute: Attribute, text: str) -> Any:
    text = text.strip()
    if attribute.type in LOOKUPS:
        if not GUID.match(text):
            raise CrmError(400, "0x80060888", f"The value of '{attribute.wire_name}' in the key is no id.")
        return text.lower()
    if attribute.type in ("String", "DateTime"):
        return to_stored(entity, attribute, unquote_key(text))
    try:
        return to_stored(entity, attribute, float(text) if "." in text else int(text))
    except ValueError as error:
        raise CrmError(400, "0x80060888", f"The value of '{attribute.name}' in the key is no number.") from error


def _folded(values: Values, columns: tuple[str, ...]) -> tuple[Any, ...] | None:
    """Text compares without regard to letter case; None where a column is empty."""
    found = tuple(values.get(name) for name in columns)
    if any(value is None for value in found):
        return None
    return tuple(value.casefold() if isinstance(value, str) else value for value in found)
