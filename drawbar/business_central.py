"""Business Central's API v2.0: addresses, values out and in, filters.

Pure. The rules are those of the vendor's API reference: no value is ever null there, blank is a value of each type,
enum members are escaped, and `or` joins tests of one and the same field only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from drawbar.entities import (
    ZERO_GUID,
    Entity,
    Expanded,
    FirstOf,
    Joined,
    Kind,
    MatchQuery,
    amount,
    entity_of,
    identity_of,
    number_or_text,
    parse_time,
)
from schemas.records import MatchTest, Observed, System, Value, Values

MODIFIED = "lastModifiedDateTime"
STANDARD_HEADERS: Mapping[str, str] = {
    "Accept": "application/json",
    "Accept-Language": "en-US",  # texts and captions in one language, whatever the application's profile says
}

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_BLANK_MEMBER = "_x0020_"
_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")
_NOT_A_NAME = re.compile(r"[^0-9A-Za-z_]")
_GUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_BLANKS: Mapping[Kind, Any] = {
    Kind.TEXT: "",
    Kind.CODE: "",
    Kind.GUID: ZERO_GUID,
    Kind.ENUM: _BLANK_MEMBER,
    Kind.AMOUNT: 0,
    Kind.INTEGER: 0,
    Kind.BOOLEAN: False,
    Kind.DATE: "0001-01-01",
    Kind.TIME: "0001-01-01T00:00:00Z",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BusinessCentral:
    """The ERP's adapter, for one company."""

    company_id: str

    @property
    def system(self) -> System:
        return System.ERP

    def entity(self, name: str) -> Entity:
        return entity_of(System.ERP, name)

    def collection_path(self, entity: Entity) -> str:
        return f"companies({self.company_id})/{entity.entity_set}"

    def webhook_catalogue_path(self) -> str:
        """Of the sets that can be subscribed: another API of the environment, beside that of the service root."""
        return f"../microsoft/runtime/beta/companies({self.company_id})/webhookSupportedResources"

    def key_path(self, entity: Entity, record_id: str) -> str:
        return f"{self.collection_path(entity)}({record_id})"

    def select(self, entity: Entity, fields: Sequence[str]) -> str:
        columns = [column for name in fields for column in _columns(entity, name)]
        return ",".join(dict.fromkeys((entity.id_field, *columns, MODIFIED)))

    def expand(self, entity: Entity, fields: Sequence[str]) -> str:
        derived = (entity.derived.get(name) for name in fields)
        return ",".join(dict.fromkeys(item.navigation for item in derived if isinstance(item, Expanded)))

    def to_observed(self, entity: Entity, row: Mapping[str, Any], fields: Sequence[str]) -> Observed:
        record_id, version, modified_at = identity_of(entity, row, modified=MODIFIED)
        return Observed(
            id=record_id,
            version=version,
            order=(modified_at - _EPOCH) // _MILLISECOND,
            modified_at=modified_at,
            state={name: value for name in fields for value in _values(entity, name, row)},
        )

    def to_body(self, entity: Entity, values: Values) -> dict[str, Any]:
        return {name: from_value(entity.kind(name), value) for name, value in values.items()}

    def match_queries(
        self, entity: Entity, tests: Sequence[MatchTest], *, within: Values, within_blank_or: Values
    ) -> tuple[MatchQuery, ...]:
        """One request per test: `or` between different fields is refused."""
        scope = [_equals(entity, name, value) for name, value in within.items()]
        scope += [
            f"({_equals(entity, name, value)} or {_equals(entity, name, None)})"
            for name, value in within_blank_or.items()
        ]
        return tuple(
            MatchQuery(
                tests=(place,),
                filter=" and ".join([*(_equals(entity, name, value) for name, value in test.equals.items()), *scope]),
            )
            for place, test in enumerate(tests)
        )


def _columns(entity: Entity, name: str) -> tuple[str, ...]:
    """The columns of the row itself that are read for a field."""
    derived = entity.derived.get(name)
    if derived is None:
        return (name,)
    if isinstance(derived, FirstOf):
        return derived.fields
    return (derived.key,) if isinstance(derived, Joined) else ()


def _values(entity: Entity, name: str, row: Mapping[str, Any]) -> Iterator[Value]:
    """The value of a field, if the row says it."""
    derived = entity.derived.get(name)
    if isinstance(derived, FirstOf):
        found = [to_value(entity.kind(field), row[field]) for field in derived.fields if field in row]
        if len(found) == len(derived.fields):
            yield next((value for value in found if value is not None), None)
    elif isinstance(derived, Expanded):
        field, wanted = derived.where
        if isinstance(row.get(derived.navigation), list):
            related = (item for item in row[derived.navigation] if item.get(field) == wanted)
            yield next((to_value(entity.kind(name), item.get(derived.take)) for item in related), None)
    elif name in row:
        yield to_value(entity.kind(name), row[name])


_MILLISECOND = parse_time("1970-01-01T00:00:00.001Z") - _EPOCH


def to_value(kind: Kind, raw: Any) -> Value:
    """A value of the API in neutral form; blank is None. Raises ValueError for what no field of this kind holds."""
    if raw is None or raw == "":
        return None
    if kind is Kind.ENUM:
        return unescape(str(raw)).strip() or None
    if kind is Kind.GUID:
        text = str(raw).lower()
        return None if text == ZERO_GUID else text
    if kind is Kind.AMOUNT:
        return amount(raw)
    if kind in (Kind.DATE, Kind.TIME):
        return None if str(raw).startswith("0001-01-01") else str(raw)
    return number_or_text(raw)


def from_value(kind: Kind, value: Value) -> Any:
    """A neutral value as the API takes it; None becomes the blank of its kind."""
    if value is None:
        return _BLANKS[kind]
    return escape(str(value)) if kind is Kind.ENUM else value


def escape(member: str) -> str:
    """An enum member as the API names it: `In Review` is `In_x0020_Review`."""
    return _NOT_A_NAME.sub(lambda found: f"_x{ord(found[0]):04X}_", member)


def unescape(member: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), member)


def _equals(entity: Entity, name: str, value: Value) -> str:
    kind = entity.kind(name)
    if value is None:
        blank = " " if kind is Kind.ENUM else _BLANKS[kind]
        return f"{name} eq {_literal(kind, blank)}"
    if kind is Kind.CODE:
        return f"{name} eq {_literal(kind, str(value).upper())}"
    if kind is Kind.TEXT and isinstance(value, str) and value.lower() != value.upper():
        return f"tolower({name}) eq {_literal(kind, value.lower())}"  # text, unlike codes, is compared with its case
    return f"{name} eq {_literal(kind, value)}"


def _literal(kind: Kind, value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, int):
        return str(value)
    text = str(value)
    if kind in (Kind.DATE, Kind.TIME) or (kind is Kind.GUID and _GUID.fullmatch(text)):
        return text
    return "'" + text.replace("'", "''") + "'"
