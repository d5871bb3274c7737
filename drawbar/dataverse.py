"""The Dataverse Web API: addresses, values out and in, filters.

Pure. The rules are those of the vendor's API reference: a lookup is read from `_name_value` and written by
`navigation@odata.bind`; the ETag holds the row's `versionnumber`, which grows with each write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from drawbar.entities import ZERO_GUID, Entity, Kind, Lookup, MatchQuery, amount, entity_of, identity_of, number_or_text
from schemas.records import BETWEEN_PARTS, MatchTest, Observed, System, Value, Values, as_one

MODIFIED = "modifiedon"
ORDER = "versionnumber"
STANDARD_HEADERS: Mapping[str, str] = {
    "Accept": "application/json",
    "OData-Version": "4.0",
    "OData-MaxVersion": "4.0",
    "If-None-Match": "null",  # defeats caching of expanded collections
}

MOST_WORDS = 5  # a longer name is looked for as it is divided: the ways to divide it would make too long a filter

_ETAG = re.compile(r'W/"(\d+)"')
_GUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataverse:
    """The CRM's adapter."""

    @property
    def system(self) -> System:
        return System.CRM

    def entity(self, name: str) -> Entity:
        return entity_of(System.CRM, name)

    def collection_path(self, entity: Entity) -> str:
        return entity.entity_set

    def key_path(self, entity: Entity, record_id: str) -> str:
        return f"{entity.entity_set}({record_id})"

    def select(self, entity: Entity, fields: Sequence[str]) -> str:
        columns = [column for name in fields for column in _columns(entity, name)]
        return ",".join(dict.fromkeys((entity.id_field, *columns, MODIFIED, ORDER)))

    def expand(self, entity: Entity, fields: Sequence[str]) -> str:  # noqa: ARG002 - everything is in the row here
        return ""

    def to_observed(self, entity: Entity, row: Mapping[str, Any], fields: Sequence[str]) -> Observed:
        record_id, version, modified_at = identity_of(entity, row, modified=MODIFIED)
        return Observed(
            id=record_id,
            version=version,
            order=_order(entity, row, version),
            modified_at=modified_at,
            state={
                name: _to_value(entity, name, row)
                for name in fields
                if any(column in row for column in _columns(entity, name))
            },
        )

    def to_body(self, entity: Entity, values: Values) -> dict[str, Any]:
        body: dict[str, Any] = {}
        for name, value in values.items():
            lookup = entity.lookups.get(name)
            if lookup is not None:
                navigation, binding = _binding(name, lookup, value)
                body[f"{navigation}@odata.bind"] = binding
            elif name in entity.composites:
                body |= dict(_parts(entity, name, value))
            else:
                body[name] = value
        return body

    def match_queries(
        self, entity: Entity, tests: Sequence[MatchTest], *, within: Values, within_blank_or: Values
    ) -> tuple[MatchQuery, ...]:
        """One request for all tests; the rows that come back say which test they meet."""
        if not tests:
            return ()
        groups = [
            " and ".join(_equals(entity, name, value) for name, value in test.equals.items()) or "true"
            for test in tests
        ]
        parts = [groups[0] if len(groups) == 1 else "(" + " or ".join(f"({group})" for group in groups) + ")"]
        parts += [_equals(entity, name, value) for name, value in within.items()]
        parts += [
            f"({_equals(entity, name, value)} or {_equals(entity, name, None)})"
            for name, value in within_blank_or.items()
        ]
        return (MatchQuery(tests=tuple(range(len(tests))), filter=" and ".join(parts)),)


def _columns(entity: Entity, name: str) -> tuple[str, ...]:
    """The columns of the wire that hold a field."""
    lookup = entity.lookups.get(name)
    if lookup is None:
        return entity.composites.get(name, (name,))
    if lookup.is_polymorphic:
        # Which entity is meant is read from the columns that hold it: the annotation that says it for
        # `_ownerid_value` must be asked for by a header, which a delta link does not keep.
        return tuple(lookup.columns[target] for target in lookup.targets)
    return (f"_{name}_value",)


def _order(entity: Entity, row: Mapping[str, Any], version: str) -> int:
    if isinstance(row.get(ORDER), int):
        return int(row[ORDER])
    found = _ETAG.fullmatch(version)
    if found is None:
        raise ValueError(f"a row of {entity.entity_set} without {ORDER}, and with an ETag that holds none")
    return int(found[1])


def _to_value(entity: Entity, name: str, row: Mapping[str, Any]) -> Value:
    lookup = entity.lookups.get(name)
    if lookup is not None and lookup.is_polymorphic:
        for target in lookup.targets:
            referred = row.get(lookup.columns[target])
            if referred and referred != ZERO_GUID:
                return f"{target}:{str(referred).lower()}"
        return None
    if name in entity.composites:
        parts = [str(row.get(column) or "") for column in entity.composites[name]]
        return BETWEEN_PARTS.join(parts) if any(parts) else None
    (column,) = _columns(entity, name)
    raw = row.get(column)
    if raw is None or raw == "":
        return None
    kind = entity.kind(name)
    if lookup is not None or kind is Kind.GUID:
        text = str(raw).lower()
        return None if text == ZERO_GUID else text
    return amount(raw) if kind is Kind.AMOUNT else number_or_text(raw)


def _binding(name: str, lookup: Lookup, value: Value) -> tuple[str, str | None]:
    """The navigation of a lookup, and what is bound to it."""
    target, _, record_id = str(value or "").rpartition(":")
    if not target and (value is None or not lookup.is_polymorphic):
        target = next(iter(lookup.targets))
    navigation = lookup.navigation.format(target=target)
    if value is None:
        return navigation, None
    if target not in lookup.targets or not _GUID.fullmatch(record_id):
        raise ValueError(f"{name} takes {' or '.join(f'{entity}:<id>' for entity in lookup.targets)}")
    return navigation, f"/{lookup.targets[target]}({record_id})"


def _parts(entity: Entity, name: str, value: Value) -> Iterator[tuple[str, str | None]]:
    """The columns of a composite, each with its part. Raises ValueError when there are more parts than columns."""
    columns = entity.composites[name]
    parts = str(value or "").split(BETWEEN_PARTS)
    if len(parts) > len(columns):
        raise ValueError(f"{name} takes {len(columns)} parts")
    for column, part in zip(columns, [*parts, *[""] * len(columns)], strict=False):
        yield column, part or None


def _equals(entity: Entity, name: str, value: Value) -> str:
    lookup = entity.lookups.get(name)
    if name in entity.composites:
        return _divided_anyhow(entity, name, value)
    if lookup is None:
        return f"{name} eq {_literal(entity.kind(name), value)}"
    record_id = None if value is None else str(value).rpartition(":")[2]
    return f"_{name}_value eq {_literal(Kind.GUID, record_id)}"


def _divided_anyhow(entity: Entity, name: str, value: Value) -> str:
    """The columns hold the words of the value, in this order: people divide one name in more than one way."""
    columns, words = entity.composites[name], as_one(str(value or "")).split()
    as_given = tuple(part or "" for _, part in _parts(entity, name, value))
    ways = [as_given] if len(words) > MOST_WORDS else _ways_to_divide(words, len(columns))
    filters = [
        " and ".join(
            f"{column} eq {_literal(Kind.TEXT, part or None)}" for column, part in zip(columns, way, strict=True)
        )
        for way in dict.fromkeys(ways)
    ]
    return f"({' or '.join(f'({one})' for one in filters)})" if len(filters) > 1 else filters[0]


def _ways_to_divide(words: Sequence[str], parts: int) -> Iterator[tuple[str, ...]]:
    """Every way to lay words out in so many parts, some of which may be blank."""
    if parts == 1:
        yield (" ".join(words),)
        return
    for end in range(len(words) + 1):
        for rest in _ways_to_divide(words[end:], parts - 1):
            yield (" ".join(words[:end]), *rest)


def _literal(kind: Kind, value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, int):
        return str(value)
    if kind in (Kind.DATE, Kind.TIME) or (kind is Kind.GUID and _GUID.fullmatch(value)):
        return value
    return "'" + value.replace("'", "''") + "'"
