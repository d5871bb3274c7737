"""Business Central's entity sets as data, and its values: what may be written and how it is shown. Pure.

Source of the property lists: the standard API v2.0 pages, in the files `business_central*.json`. The pages that a
partner publishes for what these lack are in `custom_api.json`, and in docs/custom-api.md for that partner.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

from drawbar.sandbox.erp.date_formula import is_formula
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
    plain_text_test,
)

STANDARD = "v2.0"  # the routes of the APIs, behind `/api/`
CUSTOM = "drawbar/integration/v1.0"
RUNTIME = "microsoft/runtime/beta"
AUTOMATION = "microsoft/automation/v2.0"
_DESCRIBED = (
    (STANDARD, "business_central.json"),
    (STANDARD, "business_central_setup.json"),  # what master data and documents refer to
    (STANDARD, "business_central_parts.json"),  # what hangs on a record of another set
    (STANDARD, "business_central_ledgers.json"),  # credit memos, journals, and the entries that posting leaves
    (CUSTOM, "custom_api.json"),
    (RUNTIME, "runtime_api.json"),
    (AUTOMATION, "automation_api.json"),
)
EMPTY_GUID = "00000000-0000-0000-0000-000000000000"
HIGHEST = 10**15  # a decimal is below it
EMPTY_DATE = "0001-01-01"
EMPTY_TIME = "0001-01-01T00:00:00.000Z"


class ErpError(ApiError):
    """`code` is Business Central's `category_name`; the correlation id is added to the text."""


def invalid(text: str) -> ErpError:
    """A value that a field does not take."""
    return ErpError(400, "Application_FieldValidationException", text)


def refusal(text: str) -> ErpError:
    """What the application does not do, in the words that a user would read."""
    return ErpError(400, "Application_DialogException", text)


def no_value(caption: str, where: str) -> ErpError:
    """`where`: the table's name and the key of the row, as the product writes them."""
    return invalid(f"{caption} must have a value in {where}. It cannot be zero or empty.")


def no_property(name: str, entity_set: EntitySet) -> ErpError:
    """A member of a body that the set does not have."""
    return ErpError(
        400,
        "BadRequest",
        f"The property '{name}' does not exist on type 'Microsoft.NAV.{entity_set.entity}'."
        " Make sure to only use property names that are defined by the type.",
    )


def read_only(name: str) -> ErpError:
    return ErpError(400, "BadRequest_InvalidOperation", f"Control '{name}' is read-only.")


def no_resource(segment: str) -> ErpError:
    """An address that leads nowhere."""
    return ErpError(404, "BadRequest_ResourceNotFound", f"Resource not found for the segment '{segment}'.")


def no_method(method: str, where: str) -> ErpError:
    """`where`: `on a set`, `here`."""
    return ErpError(405, "BadRequest_MethodNotAllowed", f"'{method}' is not allowed {where}.")


def not_allowed(verb: str) -> ErpError:
    """A verb that a set does not take at all."""
    return ErpError(405, "BadRequest_MethodNotAllowed", f"Entity does not support {verb}.")


def entity_changed(source: str) -> ErpError:
    """`source`: the table's name in the product."""
    return ErpError(
        409,
        "Request_EntityChanged",
        f"Another user has already changed the record. The changes to the {source} record cannot be saved.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    name: str
    type: str  # Guid, String, Decimal, Int32, Int64, Boolean, Date, DateTimeOffset, DateFormula, Enum, Stream
    max: int | None = None
    access: str = "write"  # write, create (then stays), read (not through the API), server (nobody), key
    code: bool = False  # upper-cased and trimmed
    options: tuple[str, ...] = ()
    relation: tuple[str, str] | None = None  # entity set and column that must hold the value
    missing: str | None = None  # what is said when it does not, where that is no common text
    fixed: str | None = None  # what is said when it would change, where it stays once it has a value
    caption: str = ""
    calculated: bool = False
    initial: Any = None  # what a new row has where the body says nothing; None: empty

    @property
    def empty(self) -> Any:
        match self.type:
            case "String" | "DateFormula":
                return ""
            case "Guid":
                return EMPTY_GUID
            case "Boolean":
                return False
            case "Enum":
                return self.options[0]
            case "Date":
                return EMPTY_DATE
            case "DateTimeOffset":
                return EMPTY_TIME
            case _:
                return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EntitySet:
    name: str
    route: str  # the API that serves it
    entity: str
    source: str  # the table's name in the product, used in its messages
    key: str  # the business key's property
    key_caption: str
    id: str  # the property that identifies an entity in an address
    order: tuple[str, ...]  # of a list nobody asked to be ordered
    verbs: frozenset[str]
    columns: Mapping[str, Column]
    series: str | None = None
    required: tuple[str, ...] = ()
    view_of: str | None = None
    patterns: bool = False  # a text that ends with `*` equals all that begin with what is before it
    kept: bool = True  # False: its entities follow from rows of other sets, and from nothing else
    temporary: bool = False  # the page's table is a buffer, so that webhooks do not tell of it
    part: str = ""  # `one` or `many`: how many entities of this set an entity of another has; alone there are none
    rights: tuple[str, ...]  # sets whose tables are read and written with this one
    reads: tuple[str, ...] = ()  # sets whose tables are read besides
    parents: tuple[str, ...] = ()  # a list is refused unless its filter names one of these properties
    unfiltered: str = ""  # what is said then
    key_within: str | None = None  # the key is unique only among rows of one value of this property
    pairs: tuple[tuple[str, str, str, str], ...] = ()  # id and code of the same row of a set, and what is said if not
    navigations: Mapping[str, tuple[str, str]]  # name -> set and the property that holds its id
    collections: Mapping[str, tuple[str, str]]  # name -> set and the property of it that holds our id
    parts: Mapping[str, str] = field(default_factory=dict)  # name -> set that makes one entity of each of ours
    kind: str = ""  # what the `parentType` of what hangs on an entity calls it

    def blank(self) -> dict[str, Any]:
        return {
            column.name: column.empty if column.initial is None else column.initial
            for column in self.columns.values()
            if column.type != "Stream"
        }


# Sets of the standard API that the documentation lists as those webhooks tell of, as far as they are served.
_LISTED = frozenset(
    (
        "accounts",
        "companyInformation",
        "countriesRegions",
        "currencies",
        "customerPaymentJournals",
        "customers",
        "dimensions",
        "employees",
        "generalLedgerEntries",
        "itemCategories",
        "items",
        "journals",
        "paymentMethods",
        "paymentTerms",
        "salesCreditMemos",
        "salesInvoices",
        "salesOrders",
        "salesQuotes",
        "shipmentMethods",
        "unitsOfMeasure",
    )
)


def is_subscribable(entity_set: EntitySet, which: str) -> bool:
    """Whether webhooks tell of a set: a page over a table that is not temporary. `which`: see `erp_webhook_sets`."""
    lasts = entity_set.kept and not entity_set.temporary and not entity_set.part
    fits = lasts and entity_set.view_of is None and not entity_set.parents
    return fits and (which == "by_rule" or entity_set.route != STANDARD or entity_set.name in _LISTED)


@lru_cache(maxsize=1)
def entity_sets() -> Mapping[str, EntitySet]:
    described = {
        name: (route, given)
        for route, file in _DESCRIBED
        for name, given in json.loads(files(__package__).joinpath(file).read_text("utf-8")).items()
    }
    sets: dict[str, EntitySet] = {}
    for name, (route, given) in described.items():
        columns = {
            column["name"]: Column(
                **{
                    **column,
                    "options": tuple(column.get("options", ())),
                    "relation": tuple(column["relation"]) if "relation" in column else None,
                    "caption": column.get("caption", column["name"]),
                }
            )
            for column in given["columns"]
        }
        sets[name] = EntitySet(
            name=name,
            route=route,
            entity=given["entity"],
            source=given["source"],
            key=given["key"],
            key_caption=given["key_caption"],
            id=given.get("id", "id"),
            order=tuple(given.get("order", (given["key"],))),
            verbs=frozenset(given["verbs"]),
            columns=columns,
            series=given.get("series"),
            required=tuple(given.get("required", ())),
            view_of=given.get("view_of"),
            patterns=given.get("patterns", False),
            kept=given.get("kept", True),
            temporary=given.get("temporary", False),
            part=given.get("part", ""),
            rights=tuple(given.get("rights", (given.get("view_of") or name,))),
            reads=tuple(given.get("reads", ())),
            parents=tuple(given.get("parents", ())),
            unfiltered=given.get("unfiltered", ""),
            key_within=given.get("key_within"),
            pairs=tuple(
                (id_name, code, other, "".join(text)) for id_name, code, other, *text in given.get("pairs", ())
            ),
            navigations={n: (s, c) for n, (s, c) in given.get("navigations", {}).items()},
            collections={n: (s, c) for n, (s, c) in given.get("collections", {}).items()},
            parts=given.get("parts", {}),
            kind=escape(given.get("kind", "")),
        )
    return sets


# ---------------------------------------------------------------- values

_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")
_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z")


def unescape(member: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 16)), member)


def escape(member: str) -> str:
    """A member of an enumeration as it is written; one that is written so already stays."""
    return "".join(mark if mark.isalnum() or mark == "_" else f"_x{ord(mark):04X}_" for mark in unescape(member))


def to_stored(column: Column, value: Any) -> Any:
    """A value of a request's body as it is kept. Raises ErpError when it cannot be one."""
    if value is None:
        return column.empty
    match column.type:
        case "String" | "DateFormula":
            if not isinstance(value, str):
                raise _not_convertible(column)
            text = value.strip().upper() if column.code or column.type == "DateFormula" else value
            if column.max is not None and len(text) > column.max:
                raise ErpError(
                    400,
                    "Application_StringExceededLength",
                    f"The length of the string is {len(text)}, but it must be less than or equal to {column.max}"
                    f" characters. Value: {text}",
                )
            if column.type == "DateFormula" and not is_formula(text):
                fault = f"The value '{value}' can't be evaluated into type DateFormula."
                raise ErpError(400, "Application_EvaluateException", fault)
            return text
        case "Guid":
            if not isinstance(value, str):
                raise _not_convertible(column)
            if not GUID.match(value):
                raise ErpError(400, "Application_InvalidGUID", f"The value of '{column.name}' is not a valid GUID.")
            return value.lower()
        case "Boolean":
            if not isinstance(value, bool):
                raise _not_convertible(column)
            return value
        case "Decimal":
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise _not_convertible(column)
            if abs(value) >= HIGHEST:
                raise overflow(value)
            return int(value) if isinstance(value, float) and value.is_integer() else value
        case "Int32" | "Int64":
            if isinstance(value, bool) or not isinstance(value, int) or not -(2**31) <= value < 2**31:
                raise _not_convertible(column)
            return value
        case "Enum":
            if not isinstance(value, str):
                raise _not_convertible(column)
            for option in column.options:
                if unescape(option).casefold() == unescape(value).casefold():
                    return option
            existing = ",".join(unescape(option) for option in column.options)
            raise ErpError(400, "Unknown", f"'{value}' is not an option. The existing options are: {existing}")
        case "Date":
            if not isinstance(value, str) or not _DATE.match(value):
                raise _not_convertible(column)
            try:
                return dt.date.fromisoformat(value).isoformat()
            except ValueError as error:
                raise _not_convertible(column) from error
        case _:
            raise _not_convertible(column)


def overflow(value: object) -> ErpError:
    return ErpError(400, "Application_EvaluateException", f"The value '{value}' can't be evaluated into type Decimal.")


def _not_convertible(column: Column) -> ErpError:
    return ErpError(
        400,
        "BadRequest",
        f"Cannot convert the value of '{column.name}' to the expected type 'Edm.{column.type}'.",
    )


def time_text(milliseconds: int) -> str:
    """Fixed width, so that it sorts as text; `shown_time` is what goes out."""
    moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03d}Z"


def milliseconds(text: str) -> int:
    """What `time_text` was made of."""
    moment = dt.datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=dt.timezone.utc)
    return int(moment.timestamp()) * 1000 + int(text[20:23])


def shown_time(text: str) -> str:
    return text[:-1].rstrip("0").rstrip(".") + "Z" if text[-5] == "." else text


def parse_time(text: str) -> str:
    """A literal of a filter in the stored form; finer than a millisecond is cut."""
    try:
        moment = dt.datetime.fromisoformat(_seven_to_six(text.replace("Z", "+00:00"))).astimezone(dt.timezone.utc)
    except (ValueError, OverflowError) as error:
        raise QueryError(f"'{text}' is not a date-time.") from error
    return f"{moment.year:04d}-{moment:%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _seven_to_six(text: str) -> str:
    """Python 3.10 reads three or six digits of a second, nothing else."""
    match = re.match(r"(.*T\d\d:\d\d(?::\d\d)?)(?:\.(\d+))?([+-]\d\d:\d\d)\Z", text)
    if match is None:
        return text
    fraction = f".{(match.group(2) + '000000')[:6]}" if match.group(2) else ""
    return f"{match.group(1)}{fraction}{match.group(3)}"


def etag(version: int, form: str = "newer") -> str:
    """The tag of a version, in the form of newer or of older builds."""
    if form == "newer":
        inside = f"'20;{version:020d}1;00;'"
    else:
        digest = hashlib.sha256(str(version).encode()).digest()
        inside = f"'44;{base64.b64encode(digest).decode()}1;00;'"
    return f'W/"{base64.b64encode(inside.encode()).decode()}"'


def is_etag(tag: str) -> bool:
    """Whether it could be a tag of this service, of any version."""
    match = re.match(r'W/"([A-Za-z0-9+/=]+)"\Z', tag)
    if match is None:
        return False
    try:
        inside = base64.b64decode(match.group(1), validate=True).decode()
    except ValueError:
        return False
    return re.match(r"'(20;\d{20}|44;[A-Za-z0-9+/]{43}=)1;00;'\Z", inside) is not None


def is_etag_of(tag: str, version: int) -> bool:
    """In either form: whoever got a tag before an update may still send it."""
    return tag in (etag(version, "newer"), etag(version, "older"))


# ---------------------------------------------------------------- filters

_KINDS = {
    "String": "string",
    "DateFormula": "string",
    "Guid": "guid",
    "Boolean": "bool",
    "Enum": "enum",
    "Date": "date",
    "DateTimeOffset": "time",
}


class ErpSchema:
    """Properties of one entity set as filters see them."""

    def __init__(self, entity_set: EntitySet, local_currency: str) -> None:
        self._set = entity_set
        self._local_currency = local_currency

    def property(self, path: tuple[str, ...]) -> tuple[Getter, str]:
        column = self._set.columns.get(path[0]) if len(path) == 1 else None
        if column is None or column.type == "Stream":
            raise QueryError(
                f"Could not find a property named '{'/'.join(path)}' on type 'Microsoft.NAV.{self._set.entity}'."
            )
        name = column.name
        kind = _KINDS.get(column.type, "number")
        if name == "currencyCode" and "currencyId" in self._set.columns:
            local = self._local_currency
            return lambda row: row[name] or local, kind
        return lambda row: row[name], kind

    def literal(self, kind: str, literal: Literal) -> Any:
        match kind, literal.kind:
            case ("string", "string") | ("number", "number") | ("bool", "bool"):
                return literal.value
            case ("guid", "guid"):
                return literal.value
            case ("enum", "string"):
                return escape(literal.value)
            case ("time", "time"):
                return parse_time(literal.value)
            case ("time", "date"):
                return parse_time(f"{literal.value}T00:00:00Z")
            case ("date", "date"):
                return literal.value
            case _:
                raise QueryError(
                    "A binary operator with incompatible types was detected."
                    f" Found operand types '{kind}' and '{literal.kind}'."
                )

    def query_function(self, function: QueryFunction) -> Predicate:
        raise QueryError(f"An unknown function with name '{function.name}' was found.")

    def text_test(self, name: str, part: str) -> Callable[[str], bool]:
        return plain_text_test(name, part)

    def collection(self, path: tuple[str, ...]) -> tuple[Callable[[Row], Iterable[Row]], Schema]:
        raise QueryError(f"The collection '{'/'.join(path)}' cannot be filtered by.")
