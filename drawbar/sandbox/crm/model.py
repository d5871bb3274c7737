"""Dataverse's tables as data, and its values: what may be written and how it is shown. Pure.

Source of the attribute lists: the published table references, in `dataverse.json` (business) and
`dataverse_system.json` (roles, privileges, jobs, rules).
"""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, cast
from typing import Literal as OneOf

from drawbar.sandbox.crm.conditions import condition, text_test
from drawbar.sandbox.odata import (
    GUID,
    ApiError,
    Getter,
    Literal,
    Predicate,
    QueryError,
    QueryFunction,
    Row,
    Schema,
)

Right = OneOf["create", "read", "write", "delete", "append", "appendto", "assign", "share"]
LOOKUPS = frozenset(("Lookup", "Customer", "Owner"))
NUMBERS = frozenset(("Integer", "BigInt", "Decimal", "Double", "Money"))
CHOICES = frozenset(("Picklist", "State", "Status"))


class CrmError(ApiError):
    """`code` is Dataverse's platform code, in hexadecimal."""


def not_supported(entity: Entity, message: str) -> CrmError:
    return CrmError(
        400,
        "0x80040800",
        f"The '{message}' method does not support entities of type '{entity.logical}'."
        " MessageProcessorCache returned MessageProcessor.Empty.",
    )


def no_resource(segment: str) -> CrmError:
    """An address that leads nowhere."""
    return CrmError(404, "0x80060888", f"Resource not found for the segment '{segment}'.")


def no_method(method: str, where: str) -> CrmError:
    """`where`: `on a set`, `here`."""
    return CrmError(405, "0x80060888", f"The HTTP method '{method}' is not allowed {where}.")


def key_taken(answer: str) -> CrmError:
    """`answer`: status and code, as the switches `crm_taken_answer` and `crm_create_only_code` have it."""
    status, code = answer.split()
    return CrmError(int(status), code, "A record with matching key values already exists.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    name: str
    type: str
    min: int | None = None
    max: int | None = None  # length of text, or highest number
    targets: tuple[str, ...] = ()
    required: str = ""  # S system, A business, R recommended; only S is enforced
    write: str = "CU"
    options: Mapping[int, str]
    states: Mapping[int, int]  # of a status: which state it belongs to
    default: Any = None
    navigation: str = ""
    schema: str = ""
    date_only: bool = False
    secret: bool = False  # written, never read back

    @property
    def per_target(self) -> bool:
        """Written by a navigation of its own for each table it may point to; an owner has one for both."""
        return self.type == "Customer" or (self.type == "Lookup" and len(self.targets) > 1)

    @property
    def wire_name(self) -> str:
        return f"_{self.name}_value" if self.type in LOOKUPS else self.name

    @property
    def kind(self) -> str:
        """As filters see it."""
        if self.type in LOOKUPS or self.type == "Uniqueidentifier":
            return "guid"
        if self.type in NUMBERS or self.type in CHOICES:
            return "number"
        if self.type == "Boolean":
            return "bool"
        if self.type == "DateTime":
            return "date" if self.date_only else "time"
        return "string"


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """Rows of two tables that belong together many to many, seen from one of them."""

    name: str
    intersect: str  # the table that holds the pairs
    mine: str  # its column that names a row of this table
    theirs: str
    other: str  # the table on the other side
    right: tuple[str, Right] | None  # the right to which table joining and parting take; None: they are not offered


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    logical: str
    set: str
    id: str
    name: str
    ownership: str  # user, organization, businessunit, none
    type_code: int
    attributes: Mapping[str, Attribute]
    bulk: bool  # takes CreateMultiple and its kind
    privilege: str  # as `prvRead…` names it
    by_wire_name: Mapping[str, Attribute]
    navigations: Mapping[str, tuple[Attribute, tuple[str, ...]]]  # name -> attribute, tables it may point to
    collections: Mapping[str, tuple[str, str]]  # name -> table and the lookup of it that points here
    associations: Mapping[str, Association]
    many: Mapping[str, str]  # tables whose rows are shown below one of this, by the names of both kinds of navigations
    read_only: bool  # its rows are the platform's alone
    dates: tuple[str, ...]  # columns without a time of day

    def navigation_of(self, attribute: Attribute, target: str) -> str:
        """The name by which a lookup that points to `target` is written."""
        if attribute.per_target:
            return f"{attribute.name}_{target}"
        return attribute.navigation or attribute.name


@lru_cache(maxsize=1)
def entities() -> Mapping[str, Entity]:
    described: dict[str, Any] = {}
    for name in ("dataverse.json", "dataverse_system.json"):
        described |= json.loads(files(__package__).joinpath(name).read_text("utf-8"))
    associations = _associations(described)
    found: dict[str, Entity] = {}
    for logical, given in described.items():
        attributes = {column["name"]: _attribute(column) for column in given["columns"]}
        navigations: dict[str, tuple[Attribute, tuple[str, ...]]] = {}
        for attribute in attributes.values():
            if attribute.per_target:
                for target in attribute.targets:
                    navigations[f"{attribute.name}_{target}"] = (attribute, (target,))
            elif attribute.type in LOOKUPS:
                navigations[attribute.navigation or attribute.name] = (attribute, attribute.targets)
        collections = {name: (table, lookup) for name, (table, lookup) in given.get("collections", {}).items()}
        joined = associations.get(logical, {})
        found[logical] = Entity(
            logical=logical,
            set=given["set"],
            id=given["id"],
            name=given["name"],
            ownership=given["ownership"],
            type_code=given["type_code"],
            bulk=given.get("bulk", False),
            privilege=given.get("privilege", logical.capitalize()),
            attributes=attributes,
            by_wire_name={attribute.wire_name: attribute for attribute in attributes.values()},
            navigations=navigations,
            dates=tuple(attribute.name for attribute in attributes.values() if attribute.date_only),
            collections=collections,
            associations=joined,
            many={
                **{name: table for name, (table, _) in collections.items()},
                **{name: association.other for name, association in joined.items()},
            },
            read_only=given.get("read_only", False),
        )
    return found


def _associations(described: Mapping[str, Any]) -> dict[str, dict[str, Association]]:
    """By table and name; an intersect names its two ends once."""
    found: dict[str, dict[str, Association]] = {}
    for logical, given in described.items():
        joins = given.get("intersect")
        if joins is None:
            continue
        one, other = joins["ends"]
        for (table, mine), (there, theirs) in ((one, other), (other, one)):
            found.setdefault(table, {})[joins["name"]] = Association(
                name=joins["name"],
                intersect=logical,
                mine=mine,
                theirs=theirs,
                other=there,
                right=cast("tuple[str, Right] | None", tuple(joins["right"]) if joins["right"] else None),
            )
    return found


# What a number of a type can be, whatever else its column says: MinSupportedValue and MaxSupportedValue, in
# https://learn.microsoft.com/dotnet/api/microsoft.xrm.sdk.metadata.integerattributemetadata and its sisters.
_SUPPORTED = {
    "Integer": (-(2**31), 2**31 - 1),
    "BigInt": (-(2**63), 2**63 - 1),
    "Decimal": (-100_000_000_000, 100_000_000_000),
    "Double": (-100_000_000_000, 100_000_000_000),
    "Money": (-922_337_203_685_477, 922_337_203_685_477),
}


def _attribute(column: dict[str, Any]) -> Attribute:
    lowest, highest = _SUPPORTED.get(column["type"], (None, None))
    options = column.get("options", {})
    labels = {int(value): label[0] if isinstance(label, list) else label for value, label in options.items()}
    states = {int(value): label[1] for value, label in options.items() if isinstance(label, list)}
    schema = column.get("schema") or column["name"][:1].upper() + column["name"][1:]
    return Attribute(
        **{
            "min": lowest,
            "max": highest,
            **column,
            "targets": tuple(column.get("targets", ())),
            "options": labels,
            "states": states,
            "schema": schema,
        }
    )


# ---------------------------------------------------------------- values

_ISO = re.compile(r"(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d)(?::(\d\d))?(?:\.\d+)?(Z|[+-]\d\d:\d\d)?)?\Z")


def to_stored(entity: Entity, attribute: Attribute, value: Any) -> Any:
    """A value of a request's body as it is kept, None for nothing. Raises CrmError when it cannot be one."""
    if value is None or value == "":
        return None
    kind = attribute.type
    if kind in ("String", "Memo"):
        if not isinstance(value, str):
            raise payload_error(entity, f"Cannot convert the value of '{attribute.name}' to 'Edm.String'.")
        if attribute.max is not None and len(value) > attribute.max:
            raise CrmError(
                400,
                "0x80044331",
                f"A validation error occurred. The length of the '{attribute.name}' attribute of the"
                f" '{entity.logical}' entity exceeded the maximum allowed length of '{attribute.max}'.",
            )
        return value
    if kind == "Boolean":
        if not isinstance(value, bool):
            raise payload_error(entity, f"Cannot convert the value of '{attribute.name}' to 'Edm.Boolean'.")
        return value
    if kind == "Uniqueidentifier":
        if not isinstance(value, str) or not GUID.match(value):
            raise payload_error(entity, f"Cannot convert the value of '{attribute.name}' to 'Edm.Guid'.")
        return value.lower()
    if kind == "DateTime":
        return _time(entity, attribute, value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _is_finite(value):
        raise payload_error(entity, f"Cannot convert the value of '{attribute.name}' to a number.")
    if kind in ("Integer", "BigInt") or kind in CHOICES:
        if isinstance(value, float):
            raise payload_error(entity, f"Cannot convert the value of '{attribute.name}' to 'Edm.Int32'.")
        if kind in CHOICES and value not in attribute.options:
            accepted = ",".join(str(option) for option in attribute.options)
            raise CrmError(
                400,
                "0x8004431a",
                f"A validation error occurred. The value {value} of '{attribute.name}' on record of type"
                f" '{entity.logical}' is outside the valid range. Accepted Values: {accepted}",
            )
    if kind not in CHOICES and (
        (attribute.min is not None and value < attribute.min) or (attribute.max is not None and value > attribute.max)
    ):
        raise CrmError(
            400,
            "0x8004432f" if kind in ("Integer", "BigInt") else "0x80044330",
            f"A validation error occurred. The value of '{attribute.name}' on record of type '{entity.logical}'"
            " is outside the valid range.",
        )
    return round(value, 2) if kind == "Money" else value


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every floating one
        return False


def _time(entity: Entity, attribute: Attribute, value: Any) -> str:
    match = _ISO.match(value) if isinstance(value, str) else None
    if match is None:
        raise CrmError(400, "0x80040239", f"The date-time format of '{attribute.name}' of {entity.logical} is invalid.")
    try:
        return whole_seconds(value)[:10] if attribute.date_only else whole_seconds(value)
    except QueryError as error:
        raise CrmError(400, "0x80040239", f"The date-time of '{attribute.name}' is out of range.") from error


def whole_seconds(text: str) -> str:
    """A time as the Web API shows it: UTC, no fractions."""
    match = _ISO.match(text)
    if match is None:
        raise QueryError(f"'{text}' is not a date-time.")
    day, clock, seconds, zone = match.groups()
    offset = "+00:00" if zone in (None, "Z") else zone
    try:
        moment = dt.datetime.fromisoformat(f"{day}T{clock or '00:00'}:{seconds or '00'}{offset}")
        moment = moment.astimezone(dt.timezone.utc)
    except (ValueError, OverflowError) as error:
        raise QueryError(f"'{text}' is not a date-time.") from error
    return f"{moment.year:04d}-{moment:%m-%dT%H:%M:%SZ}"


def payload_error(entity: Entity, text: str) -> CrmError:
    return CrmError(
        400,
        "0x80048d19",
        f"Error identified in Payload provided by the user for Entity :'{entity.set}', For more information on this"
        f" error please follow this help link https://go.microsoft.com/fwlink/?linkid=2195293  ---->  {text}",
    )


def label(attribute: Attribute, value: Any, symbol: str) -> str | None:
    """The value as a person reads it; None where the value itself is all there is."""
    if attribute.type in CHOICES:
        return attribute.options.get(value)
    if attribute.type == "Boolean":
        return "Yes" if value else "No"
    if attribute.type == "Money":
        return f"{symbol}{value:,.2f}"
    if attribute.type in ("Integer", "BigInt"):
        return f"{value:,}"
    if attribute.type == "DateTime" and not attribute.date_only:
        moment = dt.datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.timezone.utc)
        hour = moment.hour % 12 or 12
        half = "AM" if moment.hour < 12 else "PM"
        return f"{moment.month}/{moment.day}/{moment.year} {hour}:{moment.minute:02d} {half}"
    return None


def etag(version: int) -> str:
    return f'W/"{version}"'


# ---------------------------------------------------------------- filters


class CrmSchema:
    """Properties of one table as filters see them, on rows as they go out.

    `follow(row, navigation)` gives the row a single-valued navigation leads to, `below` those of a collection, `now`
    the time of the service.
    """

    def __init__(
        self,
        entity: Entity,
        follow: Callable[[Entity, Row, str], Row | None],
        below: Callable[[Entity, Row, str], Iterable[Row]],
        now: Callable[[], dt.datetime],
    ) -> None:
        self._entity = entity
        self._now = now
        self._follow = follow
        self._below = below

    def property(self, path: tuple[str, ...]) -> tuple[Getter, str]:
        if len(path) == 1:
            attribute = self._entity.by_wire_name.get(path[0])
            if attribute is None or attribute.secret:
                raise QueryError(
                    f"Could not find a property named '{path[0]}' on type"
                    f" 'Microsoft.Dynamics.CRM.{self._entity.logical}'."
                )
            name = path[0]
            if attribute.date_only:
                return lambda row: row[name] and row[name][:10], attribute.kind
            return lambda row: row[name], attribute.kind
        navigation = path[0]
        if navigation not in self._entity.navigations:
            raise QueryError(
                f"Could not find a property named '{navigation}' on type"
                f" 'Microsoft.Dynamics.CRM.{self._entity.logical}'."
            )
        _, targets = self._entity.navigations[navigation]
        known = [entities()[target] for target in targets if target in entities()]
        if not known:
            raise QueryError(f"The table behind '{navigation}' is not served.")
        inner, kind = CrmSchema(known[0], self._follow, self._below, self._now).property(path[1:])
        entity, follow = self._entity, self._follow

        def read(row: Mapping[str, Any]) -> Any:
            other = follow(entity, row, navigation)
            return None if other is None else inner(other)

        return read, kind

    def literal(self, kind: str, literal: Literal) -> Any:
        match kind, literal.kind:
            case ("string", "string") | ("number", "number") | ("bool", "bool") | ("guid", "guid"):
                return literal.value
            case ("guid", "string") if GUID.match(literal.value):
                return literal.value.lower()
            case ("time", "time" | "date"):
                return whole_seconds(literal.value)
            case ("date", "date" | "time"):
                return str(literal.value)[:10]
            case _:
                raise QueryError(
                    "A binary operator with incompatible types was detected."
                    f" Found operand types '{kind}' and '{literal.kind}'."
                )

    def query_function(self, function: QueryFunction) -> Predicate:
        column = str(dict(function.arguments).get("PropertyName", ""))
        return condition(function, *self.property((column,)), self._now)

    def text_test(self, name: str, part: str) -> Callable[[str], bool]:
        return text_test(name, part)

    def collection(self, path: tuple[str, ...]) -> tuple[Callable[[Row], Iterable[Row]], Schema]:
        """Of a row's own collections; those of a row that a lookup leads to cannot be filtered by."""
        name = path[0]
        if len(path) > 1 or name not in self._entity.many:
            raise QueryError(
                f"Could not find a collection named '{'/'.join(path)}' on type"
                f" 'Microsoft.Dynamics.CRM.{self._entity.logical}'."
            )
        table = self._entity.many[name]
        entity, below = self._entity, self._below
        return lambda row: below(entity, row, name), CrmSchema(entities()[table], self._follow, below, self._now)
