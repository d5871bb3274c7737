"""What is wrong with mapping files when they are held against the fields that the live systems have.

Pure: files and facts go in, findings with file, line and suggestion come out. `idle` needs no facts: it finds keys that
have no effect.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from drawbar.entities import Entity, entity_of
from drawbar.metadata import FieldFacts, Form, fact_of, names_of
from schemas.errors import DrawbarError, MappingIdle, MappingMismatch
from schemas.records import System

if TYPE_CHECKING:
    from drawbar.metadata import Facts
    from processors.mapping import Condition, EntityMapping, FieldMapping
    from processors.mapping_files import MappingFile

Live = Mapping[tuple[System, str], "Facts | None"]  # None: the system has no such entity

_FORMS: Mapping[str, frozenset[Form]] = {
    "text": frozenset((Form.TEXT, Form.TIME, Form.CHOICE)),
    "code": frozenset((Form.TEXT,)),
    "decimal": frozenset((Form.AMOUNT, Form.INTEGER)),
    "integer": frozenset((Form.INTEGER, Form.CHOICE)),
    "boolean": frozenset((Form.BOOLEAN,)),
    "id": frozenset((Form.ID,)),
}
_OPTIONS_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`stops`: records would be refused or misread; otherwise it is worth a look."""

    error: DrawbarError
    stops: bool = True


def unknown_entities(files: Iterable[MappingFile]) -> Iterator[Finding]:
    """Entities that Drawbar has no adapter for."""
    from drawbar.entities import entities_of

    for file in files:
        for system in System:
            name = file.mapping.entity_in(system)
            if name is not None and _entity(system, name) is None:
                known = [entity.name for entity in entities_of(system)]
                yield _wrong(file, (system.value,), f"nothing is known of {system}:{name}", _nearest(name, known))


def mismatches(files: Mapping[str, MappingFile], live: Live) -> Iterator[Finding]:
    """What the systems in `live` do not have or would not take, file by file, from the top down."""
    for file in files.values():
        yield from _Check(file, {name: other.mapping for name, other in files.items()}, live).run()


@dataclass(frozen=True, slots=True)
class _Check:
    """One file."""

    file: MappingFile
    mappings: Mapping[str, EntityMapping]
    live: Live

    def run(self) -> Iterator[Finding]:
        mapping = self.file.mapping
        for system in System:
            name = mapping.entity_in(system)
            if name is not None and (system, name) in self.live and self.live[system, name] is None:
                text = f"the {system.value.upper()} has no entity {name}"
                yield _wrong(self.file, (system.value,), text, "bring it there, or take the mapping out")
        yield from self._of_the_mapping()
        for number, line in enumerate(mapping.fields):
            if line.enabled:
                yield from self._line(number, line)

    def fact(self, system: System, name: str) -> FieldFacts | None:
        entity, facts = self._entity(system)
        return fact_of(entity, facts, name) if entity is not None and facts is not None else None

    def _entity(self, system: System) -> tuple[Entity | None, Facts | None]:
        name = str(self.file.mapping.entity_in(system))
        return _entity(system, name), self.live.get((system, name))

    # --- what is said once ------------------------------------------------------------------------------------------

    def _of_the_mapping(self) -> Iterator[Finding]:
        mapping = self.file.mapping
        for system in System:
            side = system.value
            key = mapping.key_in(system)
            if key is not None:
                yield from self._there(system, key, "key", side)
            for at, group in enumerate(mapping.match):
                for place, pair in enumerate(group):
                    name = pair.erp if system is System.ERP else pair.crm
                    yield from self._there(system, name, "match", at, place, side)
            for at, condition in enumerate(mapping.conditions(system)):
                yield from self._condition(system, condition, "filter", side, at)
            defaults = mapping.defaults.erp if system is System.ERP else mapping.defaults.crm
            for name, value in defaults.items():
                yield from self._default(system, name, value)
            also = mapping.also_capture.erp if system is System.ERP else mapping.also_capture.crm
            for at, name in enumerate(also):
                yield from self._there(system, name, "also_capture", side, at)

    def _there(self, system: System, name: str, *where: int | str) -> Iterator[Finding]:
        entity, facts = self._entity(system)
        if entity is None or facts is None:
            return
        found = fact_of(entity, facts, name)
        if found is None:
            text = f"{system}:{entity.name} has no field {name!r}"
            yield _wrong(self.file, where, text, _nearest(name, names_of(entity, facts)))
        elif not found.readable:
            yield _wrong(self.file, where, f"{system}:{entity.name} does not let {name} be read", "take it out")

    def _condition(self, system: System, condition: Condition, *where: int | str) -> Iterator[Finding]:
        yield from self._there(system, condition.field, *where, "field")
        fact = self.fact(system, condition.field)
        if fact is None:
            return
        if condition.equals is not None:
            yield from self._is_option(fact, condition.equals, *where, "equals")
        if condition.entity is not None and condition.entity not in fact.targets:
            text = f"{condition.field} cannot point to {condition.entity!r}"
            yield _wrong(self.file, (*where, "entity"), text, _nearest(condition.entity, fact.targets))
        if condition.company:
            yield from self._points_to(fact, self._company(), *where, "company")

    def _default(self, system: System, name: str, value: Any) -> Iterator[Finding]:
        where = ("defaults", system.value, name)
        yield from self._there(system, name, *where)
        fact = self.fact(system, name)
        if fact is None:
            return
        if not fact.creatable:
            text = f"{system} does not take {name} when a record is made"
            yield _wrong(self.file, where, text, "take the default out")
        if value is not None:
            yield from self._is_option(fact, value, *where)

    # --- one line ---------------------------------------------------------------------------------------------------

    def _line(self, number: int, line: FieldMapping) -> Iterator[Finding]:
        mapping = self.file.mapping
        for system in System:
            if not (system is System.ERP and line.is_made):
                yield from self._there(system, line.name_in(system), "fields", number, system.value)
                yield from self._kind(number, line, system)
        for direction in ("to_crm", "to_erp"):
            if mapping.flows(direction) and line.goes(direction):
                yield from self._written(number, line, direction)

    def _written(self, number: int, line: FieldMapping, direction: str) -> Iterator[Finding]:
        """Whether the target takes what this line writes."""
        target = System.CRM if direction == "to_crm" else System.ERP
        name, where = line.name_in(target), ("fields", number, target.value)
        fact = self.fact(target, name)
        if fact is None:
            return
        other = "to_erp" if direction == "to_crm" else "to_crm"
        if self.file.mapping.creates(direction) and not fact.creatable:
            text = f"{target} does not take {name} when a record is made"
            yield _wrong(self.file, where, text, f"write direction: {other}, or take the line out")
        elif not line.once and not fact.updatable:
            once = "write once: true, or " if direction == "to_crm" and fact.creatable else ""
            text = f"{target} does not let {name} be changed"
            yield _wrong(self.file, where, text, f"{once}write direction: {other}")
        yield from self._length(number, line, target, fact)

    def _length(self, number: int, line: FieldMapping, target: System, fact: FieldFacts) -> Iterator[Finding]:
        key, declared = f"{target}_length", line.length_in(target)
        if fact.length is None or _is_looked_up(line):
            return
        where = ("fields", number, key if declared else target.value)
        if declared is not None and declared > fact.length:
            text = f"{key} is {declared}; {fact.name} takes {fact.length}: longer values would be refused"
            yield _wrong(self.file, where, text, f"write {key}: {fact.length}")
            return
        source = self.fact(target.other, line.name_in(target.other))
        longest = source.length if source is not None and source.form is Form.TEXT else None
        if declared is None and longest is not None and longest > fact.length:
            text = f"{line.name_in(target.other)} may hold {longest} characters, {fact.name} takes {fact.length}"
            yield _wrong(self.file, where, text, f"write {key}: {fact.length}, and longer values are cut", stops=False)

    def _kind(self, number: int, line: FieldMapping, system: System) -> Iterator[Finding]:
        """Whether a field is of the kind that the line takes it for."""
        fact = self.fact(system, line.name_in(system))
        if fact is None:
            return
        if system is System.CRM and _is_looked_up(line) and not line.rate:
            yield from self._looked_up(number, line, fact)
            return
        if line.rate:
            wanted, said = _FORMS["decimal"], "rate"
        elif _is_looked_up(line):
            wanted = frozenset((Form.ID, Form.TEXT))
            said = "a code or an id"
        else:
            wanted, said = _FORMS[line.type], f"type {line.type}"
        is_choice = fact.form is Form.CHOICE and system is System.CRM and line.type == "text"
        if fact.form in wanted and not is_choice and fact.form is not Form.OTHER:
            return
        fitting = [kind for kind, forms in _FORMS.items() if fact.form in forms]
        todo = f"write type: {fitting[0]}" if fitting and not _is_looked_up(line) else "map another field"
        if fact.form in (Form.LOOKUP, Form.CHOICE):
            todo = "say what it refers to: reference, owner or currency" + ("; options" if is_choice else "")
        key = "type" if "type" in line.model_fields_set and not _is_looked_up(line) else system.value
        text = f"{system}:{fact.name} is a {fact.form.value}, the line takes it for {said}"
        yield _wrong(self.file, ("fields", number, key), text, todo)

    def _looked_up(self, number: int, line: FieldMapping, fact: FieldFacts) -> Iterator[Finding]:
        where = ("fields", number)
        if line.options is not None:
            if fact.form is not Form.CHOICE:
                text = f"crm:{fact.name} is a {fact.form.value}, not a choice"
                yield _wrong(self.file, (*where, "options"), text, "map a choice, or take options out")
            for code, option in line.options.items():
                yield from self._is_option(fact, option, *where, "options", code)
            return
        if line.owner is not None or line.team:
            table, key = ("team" if line.team else "systemuser"), ("team" if line.team else "owner")
        elif line.company:
            table, key = self._company(), "company"
        elif line.currency:
            table, key = "transactioncurrency", "currency"
        else:
            key = "reference" if line.first is None else "first"
            other = self.mappings.get(str(line.first or line.reference))
            table = other.crm or "" if other is not None else ""
        yield from self._points_to(fact, table, *where, key)
        is_wide = len(fact.targets) > 1
        if key == "reference" and is_wide and not line.names_entity:
            text = f"crm:{fact.name} may point to {', '.join(fact.targets)}"
            yield _wrong(self.file, (*where, "crm"), text, "write names_entity: true")
        if line.names_entity and fact.form is Form.LOOKUP and not is_wide:
            text = f"names_entity: crm:{fact.name} points to {', '.join(fact.targets)} only"
            yield _wrong(self.file, (*where, "names_entity"), text, "take names_entity out")
        entity, _ = self._entity(System.CRM)
        if fact.form is Form.LOOKUP and entity is not None and fact.name not in entity.lookups:
            text = f"how to write the lookup {fact.name} is not known to this version"
            yield _wrong(self.file, (*where, "crm"), text, _nearest(fact.name, list(entity.lookups)))

    def _points_to(self, fact: FieldFacts, table: str, *where: int | str) -> Iterator[Finding]:
        if fact.form is not Form.LOOKUP:
            text = f"crm:{fact.name} is a {fact.form.value}, not a lookup"
            yield _wrong(self.file, where, text, f"map a lookup to {table}" if table else "map a lookup")
        elif table and table not in fact.targets:
            text = f"crm:{fact.name} points to {', '.join(fact.targets)}, not to {table}"
            yield _wrong(self.file, where, text, f"map a lookup to {table}, or name another mapping")

    def _is_option(self, fact: FieldFacts, value: Any, *where: int | str) -> Iterator[Finding]:
        if fact.options is None or value in fact.options:
            return
        known = [str(option) for option in sorted(fact.options, key=_by_number) if option != ""]
        shown = ", ".join(known[:_OPTIONS_SHOWN]) + (" and others" if len(known) > _OPTIONS_SHOWN else "")
        todo = _nearest(value, known) if isinstance(value, str) else f"there are: {shown}"
        yield _wrong(self.file, where, f"{fact.name} has no option {value!r}", todo)

    def _company(self) -> str:
        return next((str(other.crm) for other in self.mappings.values() if other.role == "company"), "")


def _is_looked_up(line: FieldMapping) -> bool:
    """Whether the value is that of another record, or of the set-up."""
    return line.owner is not None or line.reference is not None or line.currency or line.rate or line.is_made


# --- keys without effect ------------------------------------------------------------------------------------------


def idle(file: MappingFile) -> Iterator[Finding]:
    """Keys that change nothing as the file stands, each with what it would take."""
    mapping = file.mapping
    if mapping.role != "pair":
        for key in sorted(_OF_PAIRS & mapping.model_fields_set):
            yield _idle(file, (key,), f"{key}: a mapping of role {mapping.role} is only looked up")
        return
    for direction, system in (("to_crm", System.CRM), ("to_erp", System.ERP)):
        defaults = mapping.defaults.crm if system is System.CRM else mapping.defaults.erp
        if defaults and not mapping.creates(direction):
            yield _idle(file, ("defaults", system.value), f"defaults.{system}: no record is made {direction}")
        if not mapping.flows(direction) and mapping.conditions(system.other):
            text = f"filter.{system.other}: nothing flows {direction}"
            yield _idle(file, ("filter", system.other.value), text)
    ways = [way for way in ("to_crm", "to_erp") if mapping.flows(way)]
    if "create" in mapping.model_fields_set and mapping.create not in ("both", "none", *ways):
        yield _idle(file, ("create",), f"create: {mapping.create}: nothing flows that way")
    for number, line in enumerate(mapping.fields):
        if line.enabled:
            yield from _idle_line(file, number, line, ways)
    for number, example in enumerate(mapping.examples):
        lines = [
            line
            for way in ways
            for line in mapping.lines(way)
            if example.direction in ("both", way) and line.erp in example.erp and line.crm in example.crm
        ]
        if not lines:
            yield _idle(
                file, ("examples", number), f"example {example.name!r}: no line goes its way, so it shows nothing"
            )


_OF_PAIRS = frozenset(
    ("fields", "create", "match", "matching", "conflict", "deletes", "filter", "defaults", "examples")
)


def _idle_line(file: MappingFile, number: int, line: FieldMapping, ways: list[str]) -> Iterator[Finding]:
    where, said = ("fields", number), line.model_fields_set
    goes = [way for way in ways if line.goes(way)]
    if not goes:
        yield _idle(file, (*where, "direction"), f"the line goes {line.direction}, the mapping does not")
        return
    looked_up = _is_looked_up(line)
    if looked_up and line.transform is not None:
        yield _idle(file, (*where, "transform"), "transform: the value is looked up, not carried")
    for key in ("erp_length", "crm_length"):
        if key in said and (looked_up or line.type not in ("text", "code")):
            yield _idle(file, (*where, key), f"{key}: only text is cut")
    if line.conflict is not None and len(goes) == 1:
        yield _idle(file, (*where, "conflict"), "conflict: a line that goes one way has none")
    if line.clear_when_uncoupled and (line.reference is None or line.options is not None):
        yield _idle(file, (*where, "clear_when_uncoupled"), "clear_when_uncoupled: only a reference can be uncoupled")
    if "reference_by" in said and line.reference is None:
        yield _idle(file, (*where, "reference_by"), "reference_by: the line has no reference")
    if line.required and line.is_made:
        yield _idle(file, (*where, "required"), "required: the value is made, it has no source to be blank")


def _idle(file: MappingFile, where: tuple[int | str, ...], text: str) -> Finding:
    return Finding(error=MappingIdle(text, where=file.where(*where)), stops=False)


# --- shared -------------------------------------------------------------------------------------------------------


def _wrong(file: MappingFile, where: tuple[int | str, ...], text: str, todo: str, *, stops: bool = True) -> Finding:
    return Finding(error=MappingMismatch(text, where=file.where(*where), next_step=todo), stops=stops)


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    by_fold = {candidate.casefold(): candidate for candidate in names}
    close = difflib.get_close_matches(name.casefold(), by_fold, n=1)
    if close:
        return f"did you mean {by_fold[close[0]]!r}?"
    return (
        f"there are: {', '.join(names)}" if 0 < len(names) <= _OPTIONS_SHOWN else "names are those of the system's API"
    )


def _by_number(option: int | str) -> tuple[int, str]:
    return (option, "") if isinstance(option, int) else (0, option)


def _entity(system: System, name: str) -> Entity | None:
    try:
        return entity_of(system, name)
    except KeyError:
        return None
