"""What differs between two sets of mappings, and what a change from one to the other would do to the records.

Pure: mappings and rows go in. What would follow is told by `decide` and by the plan, on the latest state that the rows
hold; a field that is not captured yet is in no row, so nothing is known of what it will bring.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from msgspec.structs import replace

from processors.coupling import Fingerprints, form, side_of
from processors.decide import Context, Issue, Settle, decide
from processors.mapping import DIRECTIONS, EntityMapping, FieldMapping, source_of, target_of
from processors.planning import Fate, make_plan
from processors.transfer import Known, carry, equal
from processors.view import ReferenceView
from schemas.coupling import Pair, PairState, Row
from schemas.records import CommandKind, System

Kind = Literal["added", "removed", "changed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """Another value of one key, as the file would say it; None: the key is not said."""

    key: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LineChange:
    kind: Kind
    erp: str
    crm: str
    keys: tuple[KeyChange, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingChange:
    kind: Kind
    name: str
    keys: tuple[KeyChange, ...] = ()
    lines: tuple[LineChange, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFields:
    """Fields of one entity that only the new mappings need: it is captured anew for them."""

    system: System
    entity: str
    fields: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class Effect:
    """What becomes of the records of one mapping. Records are counted, not values."""

    mapping: str
    writes: Counter[str] = field(default_factory=Counter)  # direction -> pairs that are written as soon as decided anew
    fields: dict[str, Counter[str]] = field(default_factory=dict)  # direction -> field -> pairs
    differ: Counter[str] = field(
        default_factory=Counter
    )  # field -> pairs left as they stand, though the source comes to another value
    unknown: Counter[str] = field(default_factory=Counter)  # CRM field -> pairs whose rows do not hold its line yet
    made: Counter[str] = field(default_factory=Counter)  # direction -> records that are made
    matched: int = 0  # pairs that are coupled
    deleted: Counter[str] = field(default_factory=Counter)  # direction -> records deleted after their lost counterpart
    dropped: int = 0  # pairs of a mapping that is gone
    settled: Counter[str] = field(default_factory=Counter)  # restore or uncouple -> pairs that lost a record

    @property
    def is_none(self) -> bool:
        found = (
            self.writes,
            self.differ,
            self.unknown,
            self.made,
            self.matched,
            self.deleted,
            self.settled,
            self.dropped,
        )
        return not any(found)


def changes_of(before: Mapping[str, EntityMapping], after: Mapping[str, EntityMapping]) -> tuple[MappingChange, ...]:
    """What differs, mapping by mapping, by name."""
    found: list[MappingChange] = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            known = old or new
            assert known is not None
            kind: Kind = "added" if old is None else "removed"
            lines = tuple(_line(kind, line) for line in known.fields if line.enabled)
            found.append(MappingChange(kind=kind, name=name, lines=lines))
        elif old != new:
            keys, lines = _keys(old, new, leave_out={"fields"}), _line_changes(old, new)
            if keys or lines:
                found.append(MappingChange(kind="changed", name=name, keys=keys, lines=lines))
    return tuple(found)


def unseen_lines(changes: Iterable[MappingChange]) -> dict[str, tuple[str, ...]]:
    """Mapping -> the CRM fields of lines that were added or changed. All mappings whose records are to be looked at
    again are in it: one without such a line has another filter, say, or other keys of a match.
    """
    return {
        change.name: tuple(line.crm for line in change.lines if line.kind != "removed")
        for change in changes
        if change.kind == "changed"
    }


def new_fields(before: Iterable[EntityMapping], after: Iterable[EntityMapping]) -> tuple[NewFields, ...]:
    """What capture does not read now."""
    captured, wanted = _captured(before), _captured(after)
    return tuple(
        NewFields(system=system, entity=entity, fields=tuple(sorted(added)))
        for (system, entity), names in sorted(wanted.items())
        if (added := names - captured.get((system, entity), set()))
    )


def effects_of(
    rows: Iterable[Row],
    before: Mapping[str, EntityMapping],
    after: Mapping[str, EntityMapping],
    *,
    prints: Fingerprints,
    company_id: str,
) -> tuple[Effect, ...]:
    """What the change does to the records that are known, mapping by mapping; those without an effect are left out."""
    known = tuple(rows)
    context = Context(prints=prints, company_id=company_id)
    views = {
        "before": ReferenceView(before.values(), company_id=company_id),
        "after": ReferenceView(after.values(), company_id=company_id),
    }
    for row in known:
        for view in views.values():
            view.apply(row)
    effects = {name: Effect(mapping=name) for name, mapping in after.items() if mapping.role == "pair"}
    for row in known:
        pair, mapping = row.pair, after.get(row.mapping)
        if pair is None or mapping is None or mapping.name not in effects or pair.state is not PairState.COUPLED:
            continue
        pair = replace(pair, in_flight=None)
        old = before.get(row.mapping)
        if not _is_whole(pair):
            then = _of_an_orphan(pair, mapping, views["after"], context)
            if old is None or then != _of_an_orphan(pair, old, views["before"], context):
                effects[mapping.name].deleted.update(then.deleted)
                effects[mapping.name].settled.update(then.settled)
            continue
        due = _issues(pair, old, views["before"], context) if old is not None else {}
        effect = effects[mapping.name]
        for direction, issue in _issues(pair, mapping, views["after"], context).items():
            names = [name for name, value in issue.values.items() if _is_new(name, value, due.get(direction))]
            if names:
                effect.writes[direction] += 1
                effect.fields.setdefault(direction, Counter()).update(names)
        rest = _differing(pair, mapping, views["after"], prints)
        rest -= _differing(pair, old, views["before"], prints) if old is not None else set()
        for direction, name in sorted(rest):
            if name not in effect.fields.get(direction, ()):
                effect.differ[name] += 1
        effect.unknown.update(set(_unknown(pair, mapping)) - set(_unknown(pair, old) if old is not None else ()))
    for name in sorted({*before} - {*after}):
        pairs = [row.pair for row in known if row.mapping == name and row.pair is not None]
        coupled = sum(pair.state is PairState.COUPLED for pair in pairs)
        effects[name] = Effect(mapping=name, dropped=coupled if before[name].role == "pair" else 0)
    _count_singles(known, before, after, effects, prints=prints, company_id=company_id)
    return tuple(effect for effect in effects.values() if not effect.is_none)


def _is_whole(pair: Pair) -> bool:
    """Both records are there."""
    return all(side is not None and not side.deleted for side in (pair.erp, pair.crm))


def _of_an_orphan(pair: Pair, mapping: EntityMapping, view: ReferenceView, context: Context) -> Effect:
    """What the policy for deletes makes of a pair that lost a record; a dead letter is nothing here."""
    effect = Effect(mapping=mapping.name)
    match decide(pair, mapping, view, context).decisions[0]:
        case Issue(direction=direction, kind=CommandKind.DELETE):
            effect.deleted[direction] += 1
        case Settle(how="restore" | "uncouple" as how):
            effect.settled[how] += 1
    return effect


def _issues(pair: Pair, mapping: EntityMapping, view: ReferenceView, context: Context) -> dict[str, Issue]:
    decided = decide(pair, mapping, view, context)
    return {item.direction: item for item in decided.decisions if isinstance(item, Issue)}


def _is_new(name: str, value: Any, due: Issue | None) -> bool:
    """Whether this is not written anyway, with the mappings that run."""
    return due is None or name not in due.values or due.values[name] != value


def _differing(pair: Pair, mapping: EntityMapping, view: ReferenceView, prints: Fingerprints) -> set[tuple[str, str]]:
    """Direction and field of the target, where it does not hold what the source comes to, whoever changed what."""
    found: set[tuple[str, str]] = set()
    for direction in DIRECTIONS:
        source, target = side_of(pair, source_of(direction)), side_of(pair, target_of(direction))
        assert source is not None
        assert target is not None
        for line in mapping.lines(direction):
            here, there = line.name_in(source_of(direction)), line.name_in(target_of(direction))
            if line.once or there not in target.state or (here not in source.state and not line.is_made):
                continue
            held = target.state[there]
            carried = carry(line, source.state.get(here), direction, view, creating=False, held=held)
            if not isinstance(carried, Known) or equal(line, carried.value, held):
                continue
            if target.forms.get(there) != form(prints, carried.value, held):
                found.add((direction, there))
    return found


def _unknown(pair: Pair, mapping: EntityMapping) -> Iterable[str]:
    """CRM names of the lines that a row cannot tell of: a field of theirs was not captured for it."""
    assert pair.erp is not None
    assert pair.crm is not None
    for line in mapping.fields:
        if not line.enabled or line.once or not any(line.goes(way) and mapping.flows(way) for way in DIRECTIONS):
            continue
        is_there = line.is_made or line.name_in(System.ERP) in pair.erp.state
        if not is_there or line.name_in(System.CRM) not in pair.crm.state:
            yield line.name_in(System.CRM)


def _count_singles(
    rows: tuple[Row, ...],
    before: Mapping[str, EntityMapping],
    after: Mapping[str, EntityMapping],
    effects: Mapping[str, Effect],
    *,
    prints: Fingerprints,
    company_id: str,
) -> None:
    """Records that would be made or coupled now, and would not be with the mappings that run."""
    old_rows = [row for row in rows if row.mapping in before]
    planned = make_plan(old_rows, before, prints=prints, company_id=company_id).records
    due = {(one.mapping, one.fate, one.erp_id, one.crm_id) for one in planned}
    new_rows = [row for row in rows if row.mapping in after]
    for one in make_plan(new_rows, after, prints=prints, company_id=company_id).records:
        if (one.mapping, one.fate, one.erp_id, one.crm_id) in due:
            continue
        if one.fate is Fate.CREATE:
            effects[one.mapping].made[one.direction] += 1
        elif one.fate is Fate.MATCH:
            effects[one.mapping].matched += 1


# --- keys and lines -----------------------------------------------------------------------------------------------


def _captured(mappings: Iterable[EntityMapping]) -> dict[tuple[System, str], set[str]]:
    found: dict[tuple[System, str], set[str]] = {}
    for mapping in mappings:
        for system in System:
            entity = mapping.entity_in(system)
            if entity is not None:
                found.setdefault((system, entity), set()).update(mapping.captured_fields(system))
    return found


def _keys(old: Any, new: Any, *, leave_out: set[str]) -> tuple[KeyChange, ...]:
    """The keys that differ, each as plain data."""
    one, other = old.model_dump(mode="json"), new.model_dump(mode="json")
    return tuple(
        KeyChange(key=key, before=one[key], after=other[key])
        for key in one
        if key not in leave_out and one[key] != other[key]
    )


def _line_changes(old: EntityMapping, new: EntityMapping) -> tuple[LineChange, ...]:
    """Lines are one and the same while they join the same two fields, or else write the same CRM column. A line that
    is switched off is none.
    """
    before = [line for line in old.fields if line.enabled]
    after = [line for line in new.fields if line.enabled]
    changes: list[LineChange] = []
    for is_same in (_joins_the_same, _has_the_same_column):
        for line in list(after):
            partner = next((other for other in before if is_same(other, line)), None)
            if partner is None:
                continue
            before.remove(partner)
            after.remove(line)
            keys = _keys(partner, line, leave_out=set())
            if keys:
                changes.append(LineChange(kind="changed", erp=line.erp or "", crm=str(line.crm), keys=keys))
    changes += [_line("removed", line) for line in before]
    changes += [_line("added", line) for line in after]
    return tuple(changes)


def _joins_the_same(one: FieldMapping, other: FieldMapping) -> bool:
    return (one.erp, one.crm, one.direction) == (other.erp, other.crm, other.direction)


def _has_the_same_column(one: FieldMapping, other: FieldMapping) -> bool:
    return one.crm == other.crm


def _line(kind: Kind, line: FieldMapping) -> LineChange:
    return LineChange(kind=kind, erp=line.erp or "", crm=str(line.crm))
