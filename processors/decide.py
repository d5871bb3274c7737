"""Decide what the two sides of a pair mean for each other.

Pure: no clock, no network, no log. All that a decision needs comes in as arguments; all that it means goes out as the
return value. A decision is taken on the latest state of both sides, never on one event: so it does not matter how often
it is taken, and whatever was parked, waiting or replayed is decided by the same lines.

The rules in the order of reading: `decide` (which kind of pair is it), `_decide_pair` (two coupled records),
`_decide_single` (one record without counterpart), `_decide_deleted` (a record that lost its counterpart).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Union

from msgspec import Struct, field
from msgspec.structs import replace

from processors.coupling import Fingerprints, agree, form, side_of
from processors.lines import Line, lines_of
from processors.mapping import DIRECTIONS, Direction, EntityMapping, FieldMapping, source_of, target_of
from processors.transfer import Bad, Carried, Known, Leave, Missing, carry, equal, map_fields, passes
from processors.view import ReferenceView
from schemas.coupling import RECORD, Hold, Matched, Pair, PairState, Side
from schemas.errors import (
    AmbiguousMatch,
    CounterpartDeleted,
    RecordError,
    ReferenceNotCoupled,
    RequiredFieldBlank,
    UpdateConflict,
    by_code,
)
from schemas.records import CommandKind, MatchTest, RecordRef, System, Value

# Two clocks that are read in whole seconds cannot tell apart what is closer than this.
TIE = timedelta(seconds=1)


class Context(Struct, frozen=True, kw_only=True, gc=False):
    """What is true of this decision besides the row: who asks, and how."""

    prints: Fingerprints
    company_id: str = ""
    retry: bool = False  # decide anew what is held
    use: str = ""  # a person's choice: erp, crm, restore, uncouple, propagate


class Issue(Struct, frozen=True, kw_only=True, gc=False):
    """Write to the target."""

    direction: str
    kind: CommandKind
    values: Mapping[str, Value] = field(default_factory=dict)
    tests: tuple[MatchTest, ...] = ()


class Skip(Struct, frozen=True, kw_only=True, gc=False):
    """Nothing is to be written, for this reason."""

    direction: str
    reason: str
    fields: tuple[str, ...] = ()


class Park(Struct, frozen=True, kw_only=True, gc=False):
    """A command is under way; decided again when it is answered."""

    direction: str = ""


class Wait(Struct, frozen=True, kw_only=True, gc=False):
    """Something it refers to is not coupled; decided again when it is."""

    direction: str
    error: type[RecordError]
    missing: tuple[str, ...]
    fields: tuple[str, ...] = ()


class Reject(Struct, frozen=True, kw_only=True, gc=False):
    """The record cannot go on until somebody acts."""

    direction: str
    error: type[RecordError]
    fields: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    detail: str = ""


class Claim(Struct, frozen=True, kw_only=True, gc=False):
    """One counterpart was found that may be free: ask its home."""

    direction: str
    candidate: str


class Settle(Struct, frozen=True, kw_only=True, gc=False):
    """The pair comes apart: `uncouple` it, or `restore` the record that is gone."""

    direction: str
    how: str


class Choice(Struct, frozen=True, kw_only=True, gc=False):
    """Both sides had a value for these fields, and one was chosen: for the journal."""

    direction: str
    reason: str
    fields: tuple[str, ...]


Decision = Union[Issue, Skip, Park, Wait, Reject, Claim, Settle]


class Decided(Struct, frozen=True, kw_only=True, gc=False):
    """The pair with what it now agrees on, and one decision per direction, in the order they are to be acted on."""

    pair: Pair
    decisions: tuple[Decision, ...]
    soft_missing: tuple[str, ...] = ()
    choices: tuple[Choice, ...] = ()


def decide(pair: Pair, mapping: EntityMapping, view: ReferenceView, context: Context) -> Decided:
    """What is to be done about the pair as it stands. Deciding twice is deciding once."""
    found = _decide(pair, mapping, view, context)
    if isinstance(found.decisions[0], Park):
        return found
    # What a line went on without is remembered until somebody looks at all of it again.
    soft = found.soft_missing if context.retry else (*pair.soft_missing, *found.soft_missing)
    return replace(found, pair=replace(found.pair, soft_missing=tuple(dict.fromkeys(soft))))


def _decide(pair: Pair, mapping: EntityMapping, view: ReferenceView, context: Context) -> Decided:
    if pair.in_flight is not None or pair.state is PairState.CLAIMING:
        return Decided(pair=pair, decisions=(Park(),))
    if pair.rebasing and pair.state is PairState.COUPLED:
        return _read_for_base(pair, context)
    if mapping.role != "pair":
        return _nothing(pair, "only-looked-up")
    if pair.state is PairState.UNCOUPLED:
        return _nothing(pair, "uncoupled-by-hand")
    if lines_of(mapping).needs_company and view.company_crm_id is None:
        missing = f"crm:bcbi_company:{context.company_id}"
        if context.retry:
            toward = "to_crm" if pair.erp is not None else "to_erp"
            waits = Wait(direction=toward, error=ReferenceNotCoupled, missing=(missing, "company"))
            return Decided(pair=pair, decisions=(waits,), soft_missing=("company",))
        return Decided(pair=pair, decisions=(Skip(direction="", reason="company-unknown"),), soft_missing=("company",))
    if pair.state is PairState.SINGLE:
        return _decide_single(pair, mapping, view, context)
    if pair.erp is None or pair.crm is None or pair.erp.deleted or pair.crm.deleted:
        return _decide_deleted(pair, mapping, context)
    if pair.key_id and pair.key_id != context.prints.key_id:
        # What was agreed cannot be read any more: what both hold now is the new agreement; nothing is written.
        return _nothing(take_as_base(pair, mapping, view, context.prints), "rebased-under-new-key")
    return _decide_pair(pair, mapping, view, context)


def _nothing(pair: Pair, reason: str) -> Decided:
    return Decided(pair=pair, decisions=(Skip(direction="", reason=reason),))


def take_as_base(pair: Pair, mapping: EntityMapping, view: ReferenceView, prints: Fingerprints) -> Pair:
    """What both sides hold now is what they agree on from here; where they differ is remembered for a person."""
    based = agree(pair, (line.field for line in lines_of(mapping).every), prints, company=view.company_crm_id)
    return replace(based, differs=differing(based, mapping, view, prints))


def differing(pair: Pair, mapping: EntityMapping, view: ReferenceView, prints: Fingerprints) -> tuple[str, ...]:
    """CRM names of the lines at rest in which the sides differ. What cannot be compared (a reference that is not
    coupled) counts as different: a new base would hide it otherwise.
    """
    gone = any(side is None or side.deleted for side in (pair.erp, pair.crm))
    if gone:
        return (RECORD,)
    return tuple(
        item.line.crm
        for item in _compared(pair, mapping, view, prints, at_rest=True)
        if not item.is_moved
        and item.line.ways
        and not any(_holds_already(item, pair, way, view, prints) for way in item.line.ways)
    )


def _holds_already(item: _Compared, pair: Pair, way: Direction, view: ReferenceView, prints: Fingerprints) -> bool:
    """Whether the target holds what the source would send, as far as the line sends anything."""
    source, held = item.value(source_of(way)), item.value(target_of(way))
    carried = carry(item.line.field, source, way, view, creating=False, held=held)
    if isinstance(carried, Leave):
        return True
    if not isinstance(carried, Known):
        return False
    target = side_of(pair, target_of(way))
    known_form = target.forms.get(item.line.name_in(target_of(way))) if target is not None else None
    return equal(item.line.field, carried.value, held) or known_form == form(prints, carried.value, held)


def _read_for_base(pair: Pair, context: Context) -> Decided:
    """A system was restored, or may have been: its record is read before anything else is decided."""
    direction: Direction = "to_crm" if pair.rebasing[0] == System.CRM.value else "to_erp"
    hold = pair.holds.get(direction)
    source = side_of(pair, source_of(direction))
    if hold is not None and source is not None and still_held(hold, source, retry=context.retry):
        return Decided(pair=pair, decisions=(Skip(direction=direction, reason="held", fields=hold.fields),))
    return Decided(pair=pair, decisions=(Issue(direction=direction, kind=CommandKind.READ),))


# --- two coupled records ------------------------------------------------------------------------------------------


class _Way(Struct, gc=False):
    """What one direction comes to, while the lines are read."""

    values: dict[str, Value] = field(default_factory=dict)
    missing: list[tuple[type[RecordError], str, str]] = field(default_factory=list)  # error, what, field
    bad: list[tuple[type[RecordError], str]] = field(default_factory=list)
    blank: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


class _Compared(Struct, gc=False):
    """One line with both values."""

    line: Line
    erp: Value
    crm: Value
    erp_changed: bool
    crm_changed: bool
    first: bool  # the sides never agreed on this line as it is now

    @property
    def is_moved(self) -> bool:
        return self.erp_changed or self.crm_changed

    def value(self, system: System) -> Value:
        return self.erp if system is System.ERP else self.crm

    def changed(self, system: System) -> bool:
        return self.erp_changed if system is System.ERP else self.crm_changed


def _decide_pair(pair: Pair, mapping: EntityMapping, view: ReferenceView, context: Context) -> Decided:
    # whether a record conflicts as a whole depends on all of its lines
    lines = _compared(pair, mapping, view, context.prints, at_rest=mapping.conflict == "record")
    news = {way: way in pair.news for way in DIRECTIONS}
    for item in lines:
        if item.is_moved and not item.line.is_made:
            for way in item.line.ways:
                news[way] = news[way] or item.changed(source_of(way))
    ways: dict[str, _Way] = {direction: _Way() for direction in DIRECTIONS}
    settled: list[FieldMapping] = []
    unsettled: set[str] = set()  # CRM names of lines on which both sides are still to agree
    conflicts: list[str] = []
    chosen: dict[tuple[str, str], list[str]] = {}
    soft: list[str] = []
    whole = _whole_record_conflict(lines, pair, mapping, view)
    for item in lines:
        verdict = _winner(item, pair, mapping, view, context, news, whole=whole)
        if verdict is None:
            _note_what_stands(ways, item)
            continue
        if verdict.way == "agree":
            settled.append(item.line.field)
            soft += _relied_on(item, view)
            continue
        name = item.line.crm
        unsettled.add(name)
        if verdict.way == "conflict":
            conflicts.append(name)
            continue
        if verdict.reason:
            chosen.setdefault((verdict.way, verdict.reason), []).append(name)
        direction = _as_direction(verdict.way)
        system, line = target_of(direction), item.line.field
        target, target_name = side_of(pair, system), item.line.name_in(system)
        assert target is not None
        held = target.state.get(target_name)
        carried = carry(line, item.value(system.other), direction, view, creating=False, held=held)
        if _note(ways[direction], line, target_name, carried, target, soft, context.prints):
            settled.append(line)
            unsettled.discard(name)
    pair = _put_first(pair, ways["to_crm"], mapping, view, soft)
    if not (conflicts and whole):
        pair = agree(pair, settled, context.prints, company=view.company_crm_id)
    choices = tuple(
        Choice(direction=way, reason=reason, fields=tuple(names)) for (way, reason), names in chosen.items()
    )
    decisions: list[Decision] = []
    if conflicts:
        touched = {item.line.crm for item in lines if item.erp_changed and item.crm_changed}
        conflicts = [name for name in conflicts if name in touched] or conflicts
        decisions.append(Reject(direction="conflict", error=UpdateConflict, fields=tuple(conflicts)))
    if not (conflicts and whole):  # R175: under `conflict: record` the record fails as a whole
        decisions.extend(
            _sum_up(direction, ways[direction], pair, mapping, view, context)
            for direction in DIRECTIONS
            if mapping.flows(direction)
        )
    at_rest = {
        decision.direction for decision in decisions if isinstance(decision, Skip) and decision.reason == "unchanged"
    }
    pair = replace(pair, news=tuple(way for way in DIRECTIONS if news[way] and way not in at_rest))
    if pair.again:
        pair = replace(pair, again=tuple(name for name in pair.again if name in unsettled))
    if pair.differs:  # what was changed or made equal since needs nobody's choice any more
        still = differing(pair, mapping, view, context.prints)
        pair = replace(pair, differs=tuple(name for name in pair.differs if name in still))
    return Decided(pair=pair, decisions=tuple(decisions), soft_missing=tuple(soft), choices=choices)


def _put_first(pair: Pair, way: _Way, mapping: EntityMapping, view: ReferenceView, soft: list[str]) -> Pair:
    """R311: the record that was made for this one first is put into the line with `first`, while that is blank."""
    line = lines_of(mapping).first
    if not pair.first or pair.crm is None or (line is not None and line.crm not in pair.crm.state):
        return pair
    if line is None or pair.crm.state[line.crm] is not None:
        return replace(pair, first="")
    other = str(line.field.first)
    if view.coupled_to(other, System.CRM, pair.first) is None:
        soft.append(f"crm:{view.entity(other, System.CRM)}:{pair.first}")  # the view lags, or it is gone
    else:
        way.values[line.crm] = pair.first
    return pair


def _compared(
    pair: Pair, mapping: EntityMapping, view: ReferenceView, prints: Fingerprints, *, at_rest: bool = False
) -> list[_Compared]:
    """The lines of which a side changed, and those that rest on other records; with `at_rest` all others as well. A
    line counts when its values are known on both sides: absent is not blank.
    """
    erp, crm = pair.erp, pair.crm
    assert erp is not None
    assert crm is not None
    erp_state, crm_state, erp_base, crm_base, of = erp.state, crm.state, erp.base, crm.base, prints.of
    found = []
    for line in lines_of(mapping).compared:
        if line.crm not in crm_state or (line.erp not in erp_state and not line.is_made):
            continue
        erp_value: Value = view.company_crm_id if line.field.company else erp_state.get(line.erp)
        crm_value = crm_state[line.crm]
        erp_was, crm_was = erp_base.get(line.erp), crm_base.get(line.crm)
        erp_changed, crm_changed = erp_was != of(erp_value), crm_was != of(crm_value)
        # A line that came later may share a field with another, on which there is an agreement: it has none yet.
        first = erp_was is None or crm_was is None
        if line.crm in pair.again and not (erp_changed or crm_changed):
            first = True
        if first or erp_changed or crm_changed or line.refers or at_rest:
            found.append(_Compared(line, erp_value, crm_value, first or erp_changed, first or crm_changed, first))
    return found


class _Verdict(Struct, frozen=True, gc=False):
    """Which way one line goes (a direction, `agree` or `conflict`), and why, where there was a choice."""

    way: str
    reason: str = ""


def _winner(
    item: _Compared,
    pair: Pair,
    mapping: EntityMapping,
    view: ReferenceView,
    context: Context,
    news: Mapping[Direction, bool],
    *,
    whole: bool,
) -> _Verdict | None:
    """What is to become of the line; None: nothing."""
    ways = item.line.ways
    looks_again = context.retry and bool(pair.soft_missing) and item.line.refers
    if len(ways) == 1:
        # On a one-way line the target's own edits stand until the source's field changes again. What is looked up or
        # made is carried with every change of the record (R39, R54).
        always = (item.line.refers and news[ways[0]]) or looks_again
        if not (always or item.changed(source_of(ways[0]))):
            return None
        return _Verdict("agree") if item.first and _gives_way(item, pair, source_of(ways[0])) else _Verdict(ways[0])
    if not ways:
        return None
    if not item.is_moved:
        # What one side had to leave out, because the other record was not there, goes on from the side that has it.
        way = "to_erp" if item.erp is None and not item.line.field.currency else "to_crm"
        return _Verdict(way) if looks_again else None
    if item.first or whole or (item.erp_changed and item.crm_changed):
        if _same_both_ways(item, view):
            return _Verdict("agree")
        if item.first and not whole:
            return _first_winner(item, pair, mapping)
        return _conflict_winner(item, pair, mapping, context, whole=whole)
    return _Verdict("to_crm" if item.erp_changed else "to_erp")


def _relied_on(item: _Compared, view: ReferenceView) -> tuple[str, ...]:
    """What the line relies on that is as it should be: a value that another record bears, or a rate of another."""
    if not (item.line.field.refers_by_field or item.line.field.rate):
        return ()
    carried = carry(item.line.field, item.erp, "to_crm", view, creating=False, held=item.crm)
    return () if isinstance(carried, Bad) else carried.soft


def _note_what_stands(ways: Mapping[str, _Way], item: _Compared) -> None:
    """The target's own edit on a one-way line, for the journal."""
    if len(item.line.ways) == 1 and not item.line.refers and item.changed(target_of(item.line.ways[0])):
        only = item.line.ways[0]
        ways[only].left.append(f"{item.line.name_in(target_of(only))}:edit-of-the-target-stands")


def one_way_back(pair: Pair, mapping: EntityMapping, direction: str) -> tuple[FieldMapping, ...]:
    """Plain lines that go only against `direction`, and in which the record that the other was made from holds
    something: what the new record holds there was said by nobody, and overwrites nothing. A blank it fills: the number
    that the ERP gives is wanted in the CRM.
    """
    source = side_of(pair, source_of(direction))
    state = source.state if source is not None else {}
    return tuple(
        line.field
        for line in lines_of(mapping).every
        if not line.field.goes(direction)
        and not line.refers
        and state.get(line.name_in(source_of(direction))) is not None
    )


def _whole_record_conflict(lines: list[_Compared], pair: Pair, mapping: EntityMapping, view: ReferenceView) -> bool:
    """R173, under `conflict: record`: both sides changed, whatever the fields, and a two-way line differs."""
    if mapping.conflict != "record" or pair.first_use:
        return False
    agreed = [item for item in lines if not item.first]
    if agreed:  # a line that came later was changed by nobody
        lines = agreed
    both = any(item.erp_changed for item in lines) and any(item.crm_changed for item in lines)
    return both and any(
        len(item.line.ways) == len(DIRECTIONS) and item.is_moved and not _same_both_ways(item, view) for item in lines
    )


def _same_both_ways(item: _Compared, view: ReferenceView) -> bool:
    """Whether one side already holds what the other would send."""
    to_crm = carry(item.line.field, item.erp, "to_crm", view, creating=False, held=item.crm)
    if isinstance(to_crm, Known) and equal(item.line.field, to_crm.value, item.crm):
        return True
    to_erp = carry(item.line.field, item.crm, "to_erp", view, creating=False, held=item.erp)
    return isinstance(to_erp, Known) and equal(item.line.field, to_erp.value, item.erp)


def _gives_way(item: _Compared, pair: Pair, source: System) -> bool:
    """At the first agreement a blank gives way to a value, on a one-way line as well: it erases nothing."""
    return (
        not pair.first_use
        and not item.line.refers
        and item.value(source) is None
        and item.value(source.other) is not None
    )


def _first_winner(item: _Compared, pair: Pair, mapping: EntityMapping) -> _Verdict:
    """At the first agreement a blank gives way to a value; two values: the authority's stands."""
    if pair.first_use:
        way = "to_crm" if pair.first_use == "erp" else "to_erp"
        return _Verdict(way, f"first agreement: {pair.first_use} was chosen")
    if item.erp is None and not item.line.field.currency:  # no currency is the company's own, not an unknown one
        return _Verdict("to_erp")
    if item.crm is None:
        return _Verdict("to_crm")
    way = "to_crm" if mapping.authority is System.ERP else "to_erp"
    return _Verdict(way, f"first agreement: {mapping.authority.value} is the authority")


def _conflict_winner(item: _Compared, pair: Pair, mapping: EntityMapping, context: Context, *, whole: bool) -> _Verdict:
    if context.use in ("erp", "crm"):
        way = "to_crm" if context.use == "erp" else "to_erp"
        return _Verdict(way, f"both sides changed: {context.use} was chosen by a person")
    policy: str = item.line.field.conflict or mapping.conflict
    if whole or policy in ("dead_letter", "record"):
        return _Verdict("conflict")
    reason = f"policy {policy}"
    if policy == "latest":
        later = _later(item, pair)
        policy = later or mapping.authority.value
        reason = f"{policy} changed it later" if later else f"at the same time, {policy} is the authority"
    return _Verdict("to_crm" if policy == "erp" else "to_erp", f"both sides changed: {reason}")


def _later(item: _Compared, pair: Pair) -> str | None:
    """The side that touched the field later; None for a tie."""
    erp, crm = pair.erp, pair.crm
    assert erp is not None
    assert crm is not None
    erp_at: datetime = erp.touched.get(item.line.erp, erp.modified_at)
    crm_at: datetime = crm.touched.get(item.line.crm, crm.modified_at)
    if abs(erp_at - crm_at) < TIE:
        return None
    return "erp" if erp_at > crm_at else "crm"


def _as_direction(text: str) -> Direction:
    return "to_crm" if text == "to_crm" else "to_erp"


def _note(
    way: _Way,
    line: FieldMapping,
    name: str,
    carried: Carried,
    target: Side | None,
    soft: list[str],
    prints: Fingerprints,
) -> bool:
    """Put one carried value where it belongs. True when the line needs no write: both sides agree as they are."""
    if isinstance(carried, Bad):
        way.bad.append((carried.error, name))
        return False
    soft.extend(carried.soft)
    if isinstance(carried, Missing):
        way.missing.append((carried.error, carried.missing, name))
        return False
    if isinstance(carried, Leave):
        way.left.append(f"{name}:{carried.reason}")
        return True
    if target is not None:
        held = target.state.get(name)
        if equal(line, carried.value, held) or target.forms.get(name) == form(prints, carried.value, held):
            return True
    if line.required and carried.value in (None, ""):
        way.blank.append(name)
        return False
    way.values[name] = carried.value
    return False


def _sum_up(
    direction: str, way: _Way, pair: Pair, mapping: EntityMapping, view: ReferenceView, context: Context
) -> Decision:
    if not (way.values or way.missing or way.bad or way.blank):
        return Skip(direction=direction, reason="unchanged", fields=tuple(way.left))
    stopped = _stopped(direction, way, pair, mapping, view, context)
    if stopped is not None:
        return stopped
    return Issue(direction=direction, kind=CommandKind.UPDATE, values=way.values)


def _stopped(
    direction: str, way: _Way, pair: Pair, mapping: EntityMapping, view: ReferenceView, context: Context
) -> Decision | None:
    """Why this direction cannot be written now, if so: filter, an earlier refusal, or its own values."""
    source = side_of(pair, source_of(direction))
    assert source is not None
    if not passes(source.state, mapping.conditions(source_of(direction)), view):
        return Skip(direction=direction, reason="outside-filter")
    hold = pair.holds.get(direction)
    if hold is not None and still_held(hold, source, retry=context.retry):
        return Skip(direction=direction, reason="held", fields=hold.fields)
    if way.bad:
        return Reject(direction=direction, error=way.bad[0][0], fields=tuple(name for _, name in way.bad))
    if way.blank:
        return Reject(direction=direction, error=RequiredFieldBlank, fields=tuple(way.blank))
    if way.missing:
        return Wait(
            direction=direction,
            error=way.missing[0][0],
            missing=tuple(dict.fromkeys(missing for _, missing, _ in way.missing)),
            fields=tuple(name for _, _, name in way.missing),
        )
    return None


def still_held(hold: Hold, source: Side, *, retry: bool) -> bool:
    """A refusal by the target stands until the source changes or somebody asks again. Our own reasons (a missing
    reference, a blank field, a lost counterpart) are looked at anew each time.
    """
    ours = issubclass(by_code(hold.code), RecordError)
    return not ours and not retry and source.order <= hold.order


# --- one record without counterpart -------------------------------------------------------------------------------


def _decide_single(pair: Pair, mapping: EntityMapping, view: ReferenceView, context: Context) -> Decided:
    system = System.ERP if pair.erp is not None else System.CRM
    source = side_of(pair, system)
    if source is None or source.deleted:
        return _nothing(pair, "deleted-before-coupling")
    direction: Direction = "to_crm" if system is System.ERP else "to_erp"
    looks = mapping.matching == "automatic" or pair.to_be_made
    tests = match_tests(source, mapping, direction, view) if looks else ()
    test = test_print(tests, context.prints)
    creates = mapping.creates(direction) or pair.restoring or (pair.to_be_made and mapping.flows(direction))
    alone = Decided(pair=pair, decisions=(Skip(direction=direction, reason="not-coupled"),))
    if not creates and not tests:
        return alone
    if not passes(source.state, mapping.conditions(system), view):
        why = _changes_with(source, mapping, view) if system is System.ERP else ()
        return Decided(pair=pair, decisions=(Skip(direction=direction, reason="outside-filter", fields=why),))
    hold = pair.holds.get(direction)
    if hold is not None and still_held(hold, source, retry=context.retry):
        return Decided(pair=pair, decisions=(Skip(direction=direction, reason="held", fields=hold.fields),))
    if tests and not pair.restoring:
        # Looking and making are two commands: one that does both, carried out twice, might find first and make then.
        if pair.matched is None or pair.matched.test != test:
            return Decided(pair=pair, decisions=(Issue(direction=direction, kind=CommandKind.MATCH, tests=tests),))
        found = _from_match(pair.matched, mapping, direction, view)
        if found is not None:
            return Decided(pair=pair, decisions=(found,))
    if not creates:
        return alone
    return _create(pair, source, mapping, direction, view, context)


def _changes_with(source: Side, mapping: EntityMapping, view: ReferenceView) -> tuple[str, ...]:
    """R308: the record that others name by a value is one with the record that bears the value, and the ERP rewrites it
    with that one: a customer's company contact. For the journal, so that nobody takes it for an edit.
    """
    key = mapping.key_in(System.ERP)
    number = source.state.get(key) if key is not None else None
    for line in mapping.lines("to_crm"):
        if isinstance(number, str) and line.refers_by_field and source.state.get(line.name_in(System.ERP)) == number:
            bearer = view.erp_id_by(str(line.reference), line.reference_by, number)
            if bearer is not None:
                return (f"changes-with:erp:{view.entity(str(line.reference), System.ERP)}:{bearer}",)
    return ()


def match_tests(
    source: Side, mapping: EntityMapping, direction: Direction, view: ReferenceView
) -> tuple[MatchTest, ...]:
    """The criteria to look for in the other system, in order of priority. A group with a blank value does not take
    part (R106).
    """
    target = target_of(direction)
    by_name = {line.name_in(System.ERP): line for line in mapping.fields if line.erp is not None}
    tests = []
    for group in mapping.match:
        equals: dict[str, Value] = {}
        exact = tuple(pair.crm if target is System.CRM else pair.erp for pair in group if pair.case_sensitive)
        for pair in group:
            here, there = (pair.erp, pair.crm) if target is System.CRM else (pair.crm, pair.erp)
            line = by_name.get(pair.erp) or FieldMapping(erp=pair.erp, crm=pair.crm)
            value = source.state.get(here)
            carried = carry(line, value, direction, view, creating=False)
            equals[there] = carried.value if isinstance(carried, Known) else None
        if equals and all(value is not None for value in equals.values()):
            tests.append(MatchTest(equals=equals, exact=exact))
    return tuple(tests)


def test_print(tests: tuple[MatchTest, ...], prints: Fingerprints) -> str:
    """Fingerprint of what is looked for: a look-up answers for just these values."""
    return prints.of_values(
        (f"{number}.{name}", f"exactly {value}" if name in test.exact else str(value).upper())
        for number, test in enumerate(tests)
        for name, value in sorted(test.equals.items())
    )


def free_candidates(matched: Matched, mapping: EntityMapping, direction: str, view: ReferenceView) -> tuple[str, ...]:
    system = target_of(direction)
    if len(matched.candidates) == 1:
        return tuple(found for found in matched.candidates if found not in matched.ruled_out)
    return tuple(
        found
        for found in matched.candidates
        if found not in matched.ruled_out and view.coupled_to(mapping.name, system, found) is None
    )


def _from_match(matched: Matched, mapping: EntityMapping, direction: Direction, view: ReferenceView) -> Decision | None:
    """R107: exactly one hit that is free: claim it. Several: a person decides, unless all belong to others."""
    free = free_candidates(matched, mapping, direction, view)
    if matched.ambiguous or (free and len(matched.candidates) > 1):
        entity = mapping.entity_in(target_of(direction))
        named = free or matched.candidates
        refs = tuple(f"{target_of(direction).value}:{entity}:{found}" for found in named)
        return Reject(direction=direction, error=AmbiguousMatch, missing=refs)
    return Claim(direction=direction, candidate=free[0]) if free else None


def _create(
    pair: Pair,
    source: Side,
    mapping: EntityMapping,
    direction: Direction,
    view: ReferenceView,
    context: Context,
) -> Decided:
    target = target_of(direction)
    way, soft = _Way(), list[str]()
    carried = map_fields(source.state, mapping, direction, view, creating=True)
    for line in mapping.lines(direction):
        if line.name_in(target) in carried:
            _note(way, line, line.name_in(target), carried[line.name_in(target)], None, soft, context.prints)
    stopped = _stopped(direction, way, pair, mapping, view, context)
    if stopped is not None:
        return Decided(pair=pair, decisions=(stopped,), soft_missing=tuple(soft))
    defaults = mapping.defaults.crm if target is System.CRM else mapping.defaults.erp
    # Blanks are not sent: the target's own defaults and templates fill what nobody said (R239, R240).
    values = {**defaults, **{name: value for name, value in way.values.items() if value is not None}}
    issue = Issue(direction=direction, kind=CommandKind.CREATE, values=values)
    return Decided(pair=pair, decisions=(issue,), soft_missing=tuple(soft))


# --- a record that lost its counterpart ---------------------------------------------------------------------------


def _decide_deleted(pair: Pair, mapping: EntityMapping, context: Context) -> Decided:
    gone = System.ERP if pair.erp is None or pair.erp.deleted else System.CRM
    toward: Direction = "to_erp" if gone is System.ERP else "to_crm"
    lost = side_of(pair, gone)
    survivor = side_of(pair, gone.other)
    if survivor is None or survivor.deleted:
        return Decided(pair=pair, decisions=(Settle(direction=toward, how="dissolve"),))
    how = context.use if context.use in ("restore", "uncouple", "propagate") else mapping.deletes
    if RECORD in pair.differs and not context.use:
        how = "dead_letter"  # nobody deleted it: a backup did not have it
    if how in ("restore", "uncouple"):
        return Decided(pair=pair, decisions=(Settle(direction=toward, how=how),))
    away = "to_crm" if gone is System.ERP else "to_erp"
    if how == "propagate":
        hold = pair.holds.get(away)
        if hold is not None and lost is not None and still_held(hold, lost, retry=context.retry):
            return Decided(pair=pair, decisions=(Skip(direction=away, reason="held"),))
        return Decided(pair=pair, decisions=(Issue(direction=away, kind=CommandKind.DELETE),))
    ref = RecordRef(gone, str(mapping.entity_in(gone)), lost.id if lost else "")
    reject = Reject(direction=toward, error=CounterpartDeleted, detail=f"{ref} was deleted")
    return Decided(pair=pair, decisions=(reject,))
