"""What a mapping file may say: the models, and what follows from a file alone.

Pure. `EntityMapping` is one file, `FieldMapping` one line of it. What a line makes of a value is in
`processors/transfer.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from processors.transforms import TRANSFORMS
from schemas.records import System

Direction = Literal["to_crm", "to_erp"]
DIRECTIONS: tuple[Direction, ...] = ("to_crm", "to_erp")  # R127: the direction to the CRM comes first


def source_of(direction: str) -> System:
    return System.ERP if direction == "to_crm" else System.CRM


def target_of(direction: str) -> System:
    return System.CRM if direction == "to_crm" else System.ERP


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
    reference_by: str = Field(
        "key", description="what the ERP field holds of the other record: `key`, `id`, or one of its captured fields"
    )
    names_entity: bool = Field(
        default=False, description="the CRM column may point to several tables; here it points to that of `reference`"
    )
    options: dict[str, int] | None = Field(
        None, description="ERP code -> value of the CRM choice, with `reference` to the ERP table of codes (R230, R231)"
    )
    currency: bool = Field(default=False, description="currency code, blank for the own <-> its CRM row (R226, R227)")
    rate: bool = Field(
        default=False, description="units for one of the own currency -> units for one of the CRM's base (R322)"
    )
    once: bool = Field(default=False, description="written when the record is made, never after")
    company: bool = Field(default=False, description="stamp with the CRM row of this company (R54)")
    team: bool = Field(default=False, description="a new CRM record belongs to the company's team (R37, R43)")
    first: str | None = Field(
        None,
        description="mapping whose record, made in the CRM for this one, is put here while it is blank (R311)",
    )
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
            raise ValueError("a field line needs both erp and crm (a company stamp, team or first: crm alone)")
        looked_up = (self.owner is not None, self.reference is not None, self.first is not None)
        if sum((*looked_up, self.currency, self.rate, self.company, self.team)) > 1:
            raise ValueError("owner, reference, first, currency, rate, company and team exclude each other")
        if self.names_entity and self.reference is None:
            raise ValueError("names_entity needs `reference`: the mapping whose CRM table is named")
        if self.options is not None and self.refers_by_field:
            raise ValueError("with options, reference_by is key or id")
        if (self.rate or self.once) and self.direction != "to_crm":
            raise ValueError("rate and once lines go to_crm")
        if self.options is not None and self.reference is None:
            raise ValueError("options need `reference`: the mapping of the ERP table that holds the codes")
        if (self.owner is not None or self.is_made) and self.direction != "to_crm":
            raise ValueError("owner, company, team and first lines go to_crm (R44, R54)")
        if self.options is not None and len(set(self.options.values())) != len(self.options):
            raise ValueError("two codes share one option value: the way back would be a guess")
        return self

    @property
    def is_made(self) -> bool:
        """Its value comes from the set-up or from another record, not from a field of the ERP record."""
        return self.company or self.team or self.first is not None

    @property
    def refers_by_field(self) -> bool:
        """Whether the ERP field holds what another field of the record that is meant holds."""
        return self.reference is not None and self.reference_by not in ("key", "id")

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
    blank: Literal[False] | None = Field(None, description="false: any value passes, a blank does not")
    entity: str | None = Field(None, description="a reference to a record of this CRM entity passes")

    @model_validator(mode="after")
    def _one(self) -> Condition:
        if sum((self.equals is not None, self.company, self.blank is not None, self.entity is not None)) > 1:
            raise ValueError("equals, company, blank and entity exclude each other")
        return self

    @property
    def is_exact(self) -> bool:
        """Whether just one value passes, which a look-up in the other system can ask for."""
        return not self.company and self.blank is None and self.entity is None


class Filters(_Model):
    erp: tuple[Condition, ...] = ()
    crm: tuple[Condition, ...] = ()


class Key(_Model):
    erp: str | None = None
    crm: str | None = None


class MatchField(_Model):
    erp: str
    crm: str
    case_sensitive: bool = Field(default=False, description="letter case counts (R106)")


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
    matching: Literal["automatic", "by_order"] = Field(
        "automatic", description="whether a record without counterpart is matched when it is seen, or by order only"
    )
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
        if sum(line.first is not None for line in self.fields if line.enabled) > 1:
            raise ValueError("one line of a mapping may say `first`")
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

    def scope(self, system: System) -> tuple[Condition, ...]:
        """The conditions that a look-up asks for; a record that fails another may be found and then put right."""
        return tuple(item for item in self.conditions(system) if item.is_exact or item.company)

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

    `compat: microsoft` gives the built-in integration's defaults (R67, R100, R174, R186): only coupled records, matches
    by order only, a record that both sides changed fails as a whole. Under `ownership: team` new CRM records belong to
    the company's team, and owners are left alone after that (R37, R43).
    """
    changed: dict[str, Any] = {}
    if compat == "microsoft" and mapping.role == "pair":
        changed |= {"create": "none", "matching": "by_order", "conflict": "record", "deletes": "dead_letter"}
    if ownership == "team":
        changed["fields"] = tuple(
            FieldMapping(crm=line.crm, team=True, type="id", direction="to_crm", enabled=line.enabled)
            if line.owner is not None
            else line
            for line in mapping.fields
        )
    return mapping.model_copy(update=changed) if changed else mapping
