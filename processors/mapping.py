"""How one entity becomes another: the model of a mapping file, and the rules that carry a value across.

Pure. `FieldMapping` is one line of a file; `carry` turns its source value into what the target should hold, and
`equal` says whether the target holds it already, compared as the built-in integration compares (R197-R207: codes
without regard to case, texts cut to the shorter length, blank is blank on both sides).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from processors.transforms import TRANSFORMS, transformed
from processors.view import ReferenceView
from schemas.errors import OptionNotCoupled, OwnerNotCoupled, RecordError, ReferenceNotCoupled, ValueNotMappable
from schemas.records import System, Value, Values

Direction = Literal["to_crm", "to_erp"]
DIRECTIONS: tuple[Direction, ...] = ("to_crm", "to_erp")  # R127: the direction to the CRM comes first


def source_of(direction: str) -> System:
    return System.ERP if direction == "to_crm" else System.CRM


def target_of(direction: str) -> System:
    return source_of(direction).other


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FieldMapping(_Model):
    """One line of a mapping file."""

    erp: str | None = Field(None, description="field of the ERP entity")
    crm: str | None = Field(None, description="column of the CRM entity, by its logical name")
    direction: Literal["both", "to_crm", "to_erp"] = Field("both", description="which way the value goes")
    type: Literal["text", "code", "decimal", "integer", "boolean", "id"] = Field(
        "text", description="how values are compared; a code is compared in upper case without blanks at its ends"
    )
    erp_length: int | None = Field(None, ge=1, description="longest text the ERP field takes; longer is cut (R203)")
    crm_length: int | None = Field(None, ge=1, description="longest text the CRM column takes; longer is cut (R203)")
    transform: str | None = Field(None, description="named transform, see docs/mappings.md")
    required: bool = Field(default=False, description="a blank value stops the record")
    conflict: Literal["erp", "crm", "latest", "dead_letter"] | None = Field(
        None, description="who wins when both sides changed this field; default: the mapping's"
    )
    owner: str | None = Field(
        None, description="mapping that couples the salesperson code in `erp` with the owner in `crm` (R38, R39, R41)"
    )
    reference: str | None = Field(None, description="mapping whose couplings translate the value (R219-R223)")
    reference_by: Literal["key", "id"] = Field("key", description="what the ERP field holds: business key or id")
    options: dict[str, int] | None = Field(
        None, description="ERP code -> value of the CRM choice, with `reference` to the ERP table of codes (R230, R231)"
    )
    currency: bool = Field(default=False, description="own currency only: blank or local code <-> its CRM row (R226)")
    company: bool = Field(default=False, description="stamp with the CRM row of this company (R54)")
    team: bool = Field(default=False, description="a new CRM record belongs to the company's team (R37, R43)")
    clear_when_uncoupled: bool = Field(
        default=False, description="a reference that is not coupled writes a blank instead of waiting (R224)"
    )
    enabled: bool = Field(default=True, description="false: the line is switched off")

    @field_validator("options")
    @classmethod
    def _codes(cls, options: dict[str, int] | None) -> dict[str, int] | None:
        """Codes are compared in upper case."""
        return None if options is None else {code.strip().upper(): option for code, option in options.items()}

    @field_validator("transform")
    @classmethod
    def _known_transform(cls, name: str | None) -> str | None:
        if name is not None and name not in TRANSFORMS:
            raise ValueError(f"no transform is called {name!r}; there are: {', '.join(sorted(TRANSFORMS))}")
        return name

    @model_validator(mode="after")
    def _whole(self) -> FieldMapping:
        if self.crm is None or (self.erp is None and not self.is_made):
            raise ValueError("a field line needs both erp and crm (a company stamp or team: crm alone)")
        if sum((self.owner is not None, self.reference is not None, self.currency, self.company, self.team)) > 1:
            raise ValueError("owner, reference, currency, company and team exclude each other")
        if self.options is not None and self.reference is None:
            raise ValueError("options need `reference`: the mapping of the ERP table that holds the codes")
        if (self.owner is not None or self.is_made) and self.direction != "to_crm":
            raise ValueError("owner, company and team lines go to_crm (R44, R54)")
        if self.options is not None and len(set(self.options.values())) != len(self.options):
            raise ValueError("two codes share one option value: the way back would be a guess")
        return self

    @property
    def is_made(self) -> bool:
        """Its value comes from the set-up, not from a field of the ERP record."""
        return self.company or self.team

    def name_in(self, system: System) -> str:
        """Field name on one side. A value that is made has no ERP field: it goes by the CRM column."""
        return (self.erp or f"={self.crm}") if system is System.ERP else str(self.crm)

    def goes(self, direction: str) -> bool:
        return self.enabled and self.direction in ("both", direction)

    def length_in(self, system: System) -> int | None:
        return self.erp_length if system is System.ERP else self.crm_length


class Condition(_Model):
    """One condition of a filter; a record passes when all hold."""

    field: str
    equals: str | int | bool | None = Field(None, description="value that passes; null: blank passes")
    company: bool = Field(default=False, description="this company's CRM row, or blank, passes (R56)")


class Filters(_Model):
    erp: tuple[Condition, ...] = ()
    crm: tuple[Condition, ...] = ()


class Key(_Model):
    erp: str | None = None
    crm: str | None = None


class MatchField(_Model):
    erp: str
    crm: str


class Defaults(_Model):
    """What a new record is given besides its mapped values (R239, R240)."""

    erp: dict[str, bool | int | Decimal | str | None] = Field(default_factory=dict)
    crm: dict[str, bool | int | Decimal | str | None] = Field(default_factory=dict)


class AlsoCapture(_Model):
    erp: tuple[str, ...] = ()
    crm: tuple[str, ...] = ()


class Example(_Model):
    """A pair of records that the mapping carries into each other; runs as a test in each direction it allows."""

    name: str
    erp: dict[str, Any]
    crm: dict[str, Any]
    direction: Literal["both", "to_crm", "to_erp"] = "both"


class EntityMapping(_Model):
    """One mapping file."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    erp: str | None = Field(None, description="ERP entity")
    crm: str | None = Field(None, description="CRM entity")
    role: Literal["pair", "reference", "company", "local-currency"] = Field(
        "pair", description="pair: records flow; the others are only looked up"
    )
    direction: Literal["both", "to_crm", "to_erp"] = "both"
    authority: System = Field(System.ERP, description="whose value stands at the first agreement, and in a tie")
    key: Key = Field(default_factory=Key, description="business key of each side")
    create: Literal["both", "to_crm", "to_erp", "none"] = Field("both", description="which way new records are made")
    match: tuple[tuple[MatchField, ...], ...] = Field((), description="criteria in groups, by priority (R104)")
    conflict: Literal["erp", "crm", "latest", "dead_letter", "record"] = "latest"
    deletes: Literal["dead_letter", "restore", "uncouple", "propagate"] = "dead_letter"
    filter: Filters = Field(default_factory=Filters)
    defaults: Defaults = Field(default_factory=Defaults)
    fields: tuple[FieldMapping, ...] = ()
    also_capture: AlsoCapture = Field(default_factory=AlsoCapture, description="further fields to capture")
    examples: tuple[Example, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> EntityMapping:
        if self.erp is None and self.crm is None:
            raise ValueError("a mapping needs an ERP entity, a CRM entity or both")
        if self.role == "pair" and (self.erp is None or self.crm is None):
            raise ValueError("a mapping of role pair needs both entities")
        if self.role == "pair" and not any(line.enabled for line in self.fields):
            raise ValueError("no field line is enabled: nothing would ever flow (R71)")
        for direction in DIRECTIONS:
            names = [line.name_in(target_of(direction)) for line in self.fields if line.goes(direction)]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"two lines write the same column: {', '.join(twice)}")
        return self

    def entity_in(self, system: System) -> str | None:
        return self.erp if system is System.ERP else self.crm

    def key_in(self, system: System) -> str | None:
        return self.key.erp if system is System.ERP else self.key.crm

    def flows(self, direction: str) -> bool:
        return self.role == "pair" and self.direction in ("both", direction)

    def creates(self, direction: str) -> bool:
        return self.flows(direction) and self.create in ("both", direction)

    def lines(self, direction: str) -> Iterable[FieldMapping]:
        """The enabled lines that go one way (R71, FLD-006: mapping and line must both allow it)."""
        return (line for line in self.fields if line.goes(direction)) if self.flows(direction) else ()

    def conditions(self, system: System) -> tuple[Condition, ...]:
        return self.filter.erp if system is System.ERP else self.filter.crm

    def captured_fields(self, system: System) -> tuple[str, ...]:
        """Every field that this mapping needs from one side, sorted."""
        needed = {line.name_in(system) for line in self.fields if line.enabled}
        needed |= {condition.field for condition in self.conditions(system)}
        needed |= {(pair.erp if system is System.ERP else pair.crm) for group in self.match for pair in group}
        needed |= {key for key in (self.key_in(system),) if key}
        needed |= set(self.also_capture.erp if system is System.ERP else self.also_capture.crm)
        return tuple(sorted(name for name in needed if not name.startswith("=")))

    def targets(self, system: System) -> tuple[str, ...]:
        """Mapped fields of one side: what a write may touch and what its reply is compared by."""
        return tuple(
            line.name_in(system) for line in self.fields if line.enabled and not line.name_in(system).startswith("=")
        )


def with_compat(mapping: EntityMapping, *, compat: str, ownership: str) -> EntityMapping:
    """The mapping under the settings `compat` and `ownership`.

    `compat: microsoft` gives the built-in integration's defaults (R67, R174, R186): only coupled records, no matches,
    a record that both sides changed fails as a whole. Under `ownership: team` new CRM records belong to the company's
    team, and owners are left alone after that (R37, R43).
    """
    changed: dict[str, Any] = {}
    if compat == "microsoft" and mapping.role == "pair":
        changed |= {"create": "none", "match": (), "conflict": "record", "deletes": "dead_letter"}
    if ownership == "team":
        changed["fields"] = tuple(
            FieldMapping(crm=line.crm, team=True, type="id", direction="to_crm", enabled=line.enabled)
            if line.owner is not None
            else line
            for line in mapping.fields
        )
    return mapping.model_copy(update=changed) if changed else mapping


# --- carrying a value ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Known:
    """The target should hold this."""

    value: Value
    soft: tuple[str, ...] = ()  # went on without these references; decided again when they appear


@dataclass(frozen=True, slots=True)
class Leave:
    """The target's value stays as it is."""

    reason: str
    soft: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Missing:
    """The value refers to something that is not coupled."""

    error: type[RecordError]
    missing: str


@dataclass(frozen=True, slots=True)
class Bad:
    """The value cannot be carried."""

    error: type[RecordError]


Carried = Known | Leave | Missing | Bad


def carry(
    line: FieldMapping,
    value: Value,
    direction: Direction,
    view: ReferenceView,
    *,
    creating: bool,
    held: Value = None,
) -> Carried:
    """What the target should hold for the source value of one line, where it holds `held` now.

    `creating`: the target record does not exist yet; a blank owner then becomes the company's team (R38).
    """
    if line.company:
        return Known(view.company_crm_id) if view.company_crm_id else Leave("company-unknown", ("company",))
    if line.team:
        return _team(view, creating=creating, otherwise="team-owned")
    if line.owner is not None:
        return _carry_owner(line.owner, value, view, creating=creating)
    if line.currency:
        return _carry_currency(value, held, direction, view)
    if line.options is not None:
        return _carry_option(line, value, direction, view)
    if line.reference is not None:
        return _carry_reference(line, value, direction, view)
    return _carry_plain(line, value, direction)


def _carry_plain(line: FieldMapping, value: Value, direction: Direction) -> Carried:
    try:
        value = typed(value, line.type)
    except ValueError:
        return Bad(ValueNotMappable)
    value = transformed(value, line.transform, to_crm=direction == "to_crm")
    length = line.length_in(target_of(direction))
    if isinstance(value, str):
        if line.type == "code" and direction == "to_erp":
            value = value.strip().upper() or None
        if length is not None and value is not None and len(str(value)) > length:
            value = str(value)[:length].rstrip() or None
    return Known(value)


def _carry_owner(mapping: str, code: Value, view: ReferenceView, *, creating: bool) -> Carried:
    """R38, R39, R41: blank or unknown code: the company's team for a new record, else unchanged; known but not
    coupled: the record waits.
    """
    key = str(code).strip().upper() if code else ""
    erp_id = view.erp_id_by_key(mapping, key) if key else None
    if erp_id is None:
        soft = (f"{mapping}:{key}",) if key else ()
        return _team(view, creating=creating, otherwise="owner-unknown" if key else "owner-blank", soft=soft)
    user = view.coupled_to(mapping, System.ERP, erp_id)
    if user is None:
        return Missing(OwnerNotCoupled, f"erp:{view.entity(mapping, System.ERP)}:{erp_id}")
    return Known(f"{view.entity(mapping, System.CRM)}:{user}")


def _team(view: ReferenceView, *, creating: bool, otherwise: str, soft: tuple[str, ...] = ()) -> Carried:
    """The company's team owns a new record that nobody else owns; the owner of an old one stays."""
    return Known(f"team:{view.default_team}", soft) if creating and view.default_team else Leave(otherwise, soft)


def _carry_currency(value: Value, held: Value, direction: Direction, view: ReferenceView) -> Carried:
    """R226, R227 for the company's own currency; any other is left as it is, on either side."""
    local = view.local_currency
    if not local:
        return Leave("local-currency-unknown", ("local-currency",))
    row = view.currency_id(local)
    if row is None:
        return Leave("local-currency-not-in-crm", (f"currency:{local}",))
    code = value if direction == "to_crm" else held
    if str(code or local).strip().upper() != local:
        return Leave("foreign-currency")
    if direction == "to_crm":
        return Known(row)
    # In the ERP a blank is the own currency, and the API may show it as the code: either is left as it stands.
    return Known(held) if value in (None, row) else Leave("foreign-currency")


def _carry_option(line: FieldMapping, value: Value, direction: Direction, view: ReferenceView) -> Carried:
    mapping, options = str(line.reference), line.options or {}
    if value is None:
        return Known(None)
    if direction == "to_crm":
        code = view.key_by_id(mapping, System.ERP, str(value)) if line.reference_by == "id" else str(value).upper()
        if code is None:
            return Missing(ReferenceNotCoupled, f"erp:{view.entity(mapping, System.ERP)}:{value}")
        if code not in options:
            return Missing(OptionNotCoupled, f"option:{mapping}:{code}")
        return Known(options[code])
    codes = [code for code, option in options.items() if option == value]
    if not codes:
        return Missing(OptionNotCoupled, f"option:{mapping}:{value}")
    if line.reference_by == "key":
        return Known(codes[0])
    erp_id = view.erp_id_by_key(mapping, codes[0])
    if erp_id is None:
        return Missing(ReferenceNotCoupled, f"{mapping}:{codes[0]}")
    return Known(erp_id)


def _carry_reference(line: FieldMapping, value: Value, direction: Direction, view: ReferenceView) -> Carried:
    mapping = str(line.reference)
    if value is None:
        return Known(None)
    if direction == "to_crm":
        erp_id = str(value) if line.reference_by == "id" else view.erp_id_by_key(mapping, str(value))
        crm_id = view.coupled_to(mapping, System.ERP, erp_id) if erp_id else None
        if crm_id is not None:
            return Known(crm_id)
        missing = f"erp:{view.entity(mapping, System.ERP)}:{erp_id}" if erp_id else f"{mapping}:{value}"
    else:
        erp_id = view.coupled_to(mapping, System.CRM, str(value))
        found = erp_id if line.reference_by == "id" or not erp_id else view.key_by_id(mapping, System.ERP, erp_id)
        if found is not None:
            return Known(found)
        missing = f"crm:{view.entity(mapping, System.CRM)}:{value}"
    return Known(None, (missing,)) if line.clear_when_uncoupled else Missing(ReferenceNotCoupled, missing)


# --- comparing ----------------------------------------------------------------------------------------------------


def typed(value: Value, kind: str) -> Value:
    """`value` as its type holds it. Raises ValueError when it cannot be one."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if kind == "decimal":
        try:
            number = Decimal(str(value))
        except InvalidOperation as fault:
            raise ValueError("not a number") from fault
        if not _is_amount(number):
            raise ValueError("not an amount")
        return number
    if kind == "integer":
        return int(str(value))
    if kind == "boolean":
        if isinstance(value, bool):
            return value
        raise ValueError("neither true nor false")
    return value if isinstance(value, str) else str(value) if kind in ("text", "code") else value


def equal(line: FieldMapping | None, left: Value, right: Value) -> bool:
    """Whether two values of the same side count as equal (R199-R202). `line` None: compared as they stand."""
    if line is not None and line.type == "decimal":
        return _amount(left) == _amount(right)
    if line is not None:
        lengths = [length for length in (line.erp_length, line.crm_length) if length is not None]
        left, right = _cut(left, lengths), _cut(right, lengths)
    left, right = _plain(left), _plain(right)
    folded = line is not None and (line.type in ("code", "id") or line.owner is not None)
    if folded and isinstance(left, str) and isinstance(right, str):
        return left.upper() == right.upper()
    return left == right


def _cut(value: Value, lengths: list[int]) -> Value:
    return value[: min(lengths)] if lengths and isinstance(value, str) else value


def _amount(value: Value) -> Decimal | None:
    """Zero and blank are one for amounts: the ERP has no blank number."""
    try:
        number = Decimal(str(value)) if value is not None and not isinstance(value, bool) else Decimal(0)
    except InvalidOperation:
        return None
    if not _is_amount(number):
        return None
    return number.normalize() if number else Decimal(0)


def _is_amount(number: Decimal) -> bool:
    """Whether it is a number that a system could hold: both keep fewer than 30 digits on either side of the point."""
    return number.is_finite() and abs(number.adjusted()) < 30


def _plain(value: Value) -> Value:
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, Decimal):
        if not _is_amount(value):
            return str(value)
        return int(value) if value == value.to_integral_value() else value
    return value


def passes(state: Values, conditions: Iterable[Condition], view: ReferenceView) -> bool:
    """Whether a record is inside a filter. A condition on a field that was not captured does not hold."""
    for condition in conditions:
        if condition.field not in state:
            return False
        value = _plain(state[condition.field])
        if condition.company:
            if value is not None and value != view.company_crm_id:
                return False
        elif value != condition.equals:
            return False
    return True


def map_fields(
    state: Values, mapping: EntityMapping, direction: Direction, view: ReferenceView, *, creating: bool = True
) -> Mapping[str, Carried]:
    """Target field -> what it should hold, for every line that goes this way and whose source field is known."""
    source, target = source_of(direction), target_of(direction)
    return {
        line.name_in(target): carry(line, state.get(line.name_in(source)), direction, view, creating=creating)
        for line in mapping.lines(direction)
        if line.is_made or line.name_in(source) in state
    }
