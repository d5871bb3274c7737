"""What follows from the lines of a mapping file, worked out once and not for each decision.

Pure. A decision looks at every line, mostly to find that nothing is to be done about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from processors.mapping import DIRECTIONS, Direction, EntityMapping, FieldMapping
from schemas.records import System, Value

KEPT = 64  # mappings whose lines are remembered: more than any installation has


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One enabled line, and what is asked of it most."""

    field: FieldMapping
    erp: str  # as `FieldMapping.name_in` has it
    crm: str
    ways: tuple[Direction, ...]  # in which values go: mapping and line both allow it
    refers: bool  # its value is looked up or made, and carried with every change of the record (R39, R54)
    is_made: bool  # as `FieldMapping.is_made`

    def name_in(self, system: System) -> str:
        return self.erp if system is System.ERP else self.crm


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """All enabled lines of one mapping, and the parts of them that decisions go through."""

    mapping: EntityMapping
    every: tuple[Line, ...]
    compared: tuple[Line, ...]  # on which two records can differ
    first: Line | None  # the line with `first`, if it goes to the CRM
    toward: Mapping[str, tuple[Line, ...]]  # direction -> lines that go so
    names: Mapping[str, Mapping[str, str]]  # direction -> source field -> target field
    fields: Mapping[System, tuple[str, ...]]  # what a write may touch, and what its reply is compared by
    needs_company: bool  # a line stamps the company's CRM row
    within: Mapping[System, Mapping[str, Value]]  # what every record of a side must hold: its exact conditions
    stamps: Mapping[System, tuple[str, ...]]  # fields in which a side bears the company


_known: dict[int, Lines] = {}


def lines_of(mapping: EntityMapping) -> Lines:
    """The lines of this very mapping."""
    known = _known.get(id(mapping))
    if known is None:
        if len(_known) >= KEPT:
            _known.clear()
        known = _known[id(mapping)] = _worked_out(mapping)  # it holds the mapping, so no other gets the same id
    return known


def _worked_out(mapping: EntityMapping) -> Lines:
    every = tuple(
        Line(
            field=line,
            erp=line.name_in(System.ERP),
            crm=line.name_in(System.CRM),
            ways=tuple(way for way in DIRECTIONS if mapping.flows(way) and line.goes(way)),
            refers=line.owner is not None or line.reference is not None or line.currency or line.rate or line.is_made,
            is_made=line.is_made,
        )
        for line in mapping.fields
        if line.enabled
    )
    toward: dict[str, tuple[Line, ...]] = {way: tuple(line for line in every if way in line.ways) for way in DIRECTIONS}
    return Lines(
        mapping=mapping,
        every=every,
        compared=tuple(line for line in every if not line.field.once and line.field.first is None),
        first=next((line for line in toward["to_crm"] if line.field.first is not None), None),
        toward=toward,
        names={
            "to_crm": {line.erp: line.crm for line in toward["to_crm"]},
            "to_erp": {line.crm: line.erp for line in toward["to_erp"]},
        },
        fields={system: mapping.targets(system) for system in System},
        needs_company=any(line.field.company for line in every),
        within={
            system: {
                condition.field: condition.equals for condition in mapping.conditions(system) if condition.is_exact
            }
            for system in System
        },
        stamps={
            system: tuple(condition.field for condition in mapping.conditions(system) if condition.company)
            for system in System
        },
    )
