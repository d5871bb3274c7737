"""What a first load will do with the records of both systems, as the rows hold them.

Pure. The plan is made by the functions that decide: each record on its own is given the candidates that a look-up would
find among the rows, and `decide` says what becomes of it; what it claims is verified from the other side, as homes do.
Mappings are planned in dependency order, and what one couples or makes counts for the next. So the outcome of a run is
its plan, as far as nobody edits meanwhile and the target refuses nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from msgspec.structs import replace

from processors.coupling import Fingerprints, forget_agreement, side_of, with_side
from processors.decide import (
    Claim,
    Context,
    Decided,
    Issue,
    Reject,
    Settle,
    Skip,
    Wait,
    decide,
    match_tests,
    test_print,
)
from processors.decide import free_candidates as free_of
from processors.mapping import Direction, EntityMapping, FieldMapping, target_of
from processors.transfer import passes
from processors.view import ReferenceView
from schemas.coupling import Matched, Pair, PairState, Row, Side
from schemas.errors import AmbiguousMatch
from schemas.records import CommandKind, MatchTest, RecordRef, System, Values


class Fate(str, Enum):
    """What will become of a record or pair."""

    COUPLED = "coupled"  # it is, already; `writes` says whether its sides differ
    ORPHAN = "orphan"  # coupled, and one of the two is gone
    MATCH = "match"  # will be coupled with its counterpart
    AMBIGUOUS = "ambiguous"  # several could be its counterpart: a person has to say
    CREATE = "create"  # its counterpart will be made
    WAITING = "waiting"  # for something it refers to
    REFUSED = "refused"  # its own values cannot be carried
    HELD = "held"  # the target refused it before, and it has not changed since
    OUTSIDE = "outside"  # of the mapping's filter
    UNCOUPLED = "uncoupled"  # by hand
    ALONE = "alone"  # without match, and nothing is made

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Clash:
    """Fields in which both sides hold a value of their own. `winner` blank: a person has to say."""

    winner: str  # erp, crm
    reason: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One record on its own, or one pair."""

    mapping: str
    fate: Fate
    home: str  # id of the row that decides it
    erp_id: str = ""
    crm_id: str = ""
    direction: str = ""  # of a create
    why: str = ""  # the criterion, the cause, what is gone
    candidates: tuple[str, ...] = ()  # AMBIGUOUS: refs
    writes: tuple[str, ...] = ()  # directions in which the pair will be written once it is coupled
    clashes: tuple[Clash, ...] = ()
    looks: int = 0  # look-ups in the target before it is made
    waits: str = ""  # MATCH: the cause of the dead letter that the pair will have once it is coupled


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`order`: the mappings, each after those it refers to."""

    order: tuple[str, ...]
    records: tuple[Planned, ...]

    def of(self, mapping: str, *fates: Fate) -> tuple[Planned, ...]:
        return tuple(one for one in self.records if one.mapping == mapping and (not fates or one.fate in fates))


def make_plan(
    rows: Iterable[Row],
    mappings: Mapping[str, EntityMapping],
    *,
    prints: Fingerprints,
    company_id: str = "",
    only: str | None = None,
    create: str = "",
    use: str = "",
    uncoupled_too: bool = False,
) -> Plan:
    """The plan for all mappings that flow, or for `only` one of them.

    `create`: directions in which counterparts are made whatever the mappings say of it: `to_crm`, `to_erp`, `both` or
    blank. `use`: whose values stand at the first agreement, `erp`, `crm` or blank for the mapping's way.
    `uncoupled_too`: what was uncoupled by hand may be matched again.
    """
    view = ReferenceView(mappings.values(), company_id=company_id)
    by_mapping: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        view.apply(row)
        by_mapping[row.mapping].append(row)
    context = Context(prints=prints, company_id=company_id)
    order = tuple(name for name in in_dependency_order(mappings) if only in (None, name))
    records: list[Planned] = []
    for name in order:
        mapping = mappings[name].model_copy(update={"matching": "automatic"})
        planning = _Planning(mapping, view, context, create, by_mapping[name], use=use, uncoupled_too=uncoupled_too)
        records += planning.run()
    return Plan(order=order, records=tuple(records))


def in_dependency_order(mappings: Mapping[str, EntityMapping]) -> tuple[str, ...]:
    """The mappings whose records flow, each after those that its lines wait for. Those that wait for each other come in
    the order of their names; a line that goes on with a blank waits for nobody (R224).
    """
    currencies = next((name for name, mapping in mappings.items() if mapping.crm == "transactioncurrency"), "")
    needs = {
        name: {
            str(line.owner or line.reference or currencies) for line in mapping.fields if line.enabled and _waits(line)
        }
        for name, mapping in mappings.items()
        if mapping.role == "pair"
    }
    done: list[str] = []
    left = sorted(needs)
    while left:
        free = [name for name in left if not (needs[name] & set(left)) - {name}]
        chosen = free or left[:1]
        done += chosen
        left = [name for name in left if name not in chosen]
    return tuple(done)


def _waits(line: FieldMapping) -> bool:
    waits_for_reference = line.reference is not None and not line.clear_when_uncoupled
    return line.currency or line.owner is not None or waits_for_reference


_Key = tuple[System, str]


@dataclass(slots=True)
class _Lookup:
    """What a look-up in one system would find: live records inside the filter, coupled or not."""

    states: dict[str, Values] = field(default_factory=dict)
    _indexes: dict[tuple[tuple[str, ...], tuple[str, ...]], dict[tuple[object, ...], list[str]]] = field(
        default_factory=dict
    )

    def find(self, tests: Iterable[MatchTest]) -> tuple[MatchTest | None, tuple[str, ...]]:
        """The hits of the first test that has any."""
        for test in tests:
            kind = (tuple(sorted(test.equals)), test.exact)
            if kind not in self._indexes:
                index: dict[tuple[object, ...], list[str]] = defaultdict(list)
                for record_id, state in self.states.items():
                    index[test.key_of(state)].append(record_id)
                self._indexes[kind] = index
            hits = self._indexes[kind].get(test.key_of(test.equals))
            if hits:
                return test, tuple(hits)
        return None, ()


@dataclass(slots=True)
class _Planning:
    """One mapping."""

    mapping: EntityMapping
    view: ReferenceView
    context: Context
    create: str
    rows: Iterable[Row]
    use: str = ""
    uncoupled_too: bool = False
    singles: dict[_Key, Pair] = field(default_factory=dict)
    lookups: dict[System, _Lookup] = field(default_factory=lambda: {System.ERP: _Lookup(), System.CRM: _Lookup()})
    ruled_out: dict[_Key, tuple[str, ...]] = field(default_factory=lambda: defaultdict(tuple))
    found: dict[_Key, _Found] = field(default_factory=dict)
    planned: list[Planned] = field(default_factory=list)

    def run(self) -> list[Planned]:
        for row in self.rows:
            self._take(row)
        self._until_nothing_moves(self._match)
        self._until_nothing_moves(self._make)
        for key in list(self.singles):
            self.planned.append(self._rest(key))
        return self.planned

    # --- what there is --------------------------------------------------------------------------------------------

    def _take(self, row: Row) -> None:
        pair = row.pair
        if row.home is not None and row.home.evicted is not None:
            self._take_uncoupled(System.CRM, row.home.evicted, row)
        if pair is None:
            return
        at_rest = replace(pair, in_flight=None)
        for system in System:
            side = side_of(pair, system)
            if side is None or side.deleted:
                continue
            if passes(side.state, self.mapping.scope(system), self.view):
                self.lookups[system].states[side.id] = side.state
            if pair.state is PairState.UNCOUPLED:
                self._take_uncoupled(system, side, row)
            elif pair.state is PairState.SINGLE:
                alone = replace(at_rest, crm=None) if system is System.ERP else replace(at_rest, erp=None)
                self.singles[system, side.id] = alone
        if pair.state is PairState.COUPLED:
            self._coupled(row, at_rest)
        elif pair.state is PairState.CLAIMING and pair.erp is not None:
            self._claiming(row, at_rest, pair.erp)

    def _take_uncoupled(self, system: System, side: Side, row: Row) -> None:
        if side.deleted:
            return
        if passes(side.state, self.mapping.scope(system), self.view):
            self.lookups[system].states[side.id] = side.state
        if self.uncoupled_too:
            self.singles[system, side.id] = with_side(Pair(), system, side)
        else:
            erp_id, crm_id = _ids(system, side.id)
            self._add(Fate.UNCOUPLED, row.id, erp_id=erp_id, crm_id=crm_id)

    def _coupled(self, row: Row, pair: Pair) -> None:
        ids = {"erp_id": pair.erp.id if pair.erp else "", "crm_id": pair.crm.id if pair.crm else ""}
        gone = [str(system) for system in System if (side := side_of(pair, system)) is None or side.deleted]
        if not gone:
            fate, told = Fate.COUPLED, self._told(pair)
            self._add(fate, row.id, **ids, why=told.why, writes=told.writes, clashes=told.clashes)
        elif len(gone) < len(System):
            decision = decide(pair, self.mapping, self.view, self.context).decisions[0]
            then = decision.how if isinstance(decision, Settle) else ""
            then = "propagate" if isinstance(decision, Issue) else then or "a person has to say"
            self._add(Fate.ORPHAN, row.id, **ids, why=f"{gone[0]} record is gone: {then}")

    def _claiming(self, row: Row, pair: Pair, erp: Side) -> None:
        """It asked for its match, whose last state may be on its way here; or for a new id."""
        if pair.matched is not None and pair.claiming in pair.matched.candidates:
            self.singles.pop((System.CRM, pair.claiming), None)
            self._add(Fate.MATCH, row.id, erp_id=erp.id, crm_id=pair.claiming, why="under way")
        else:
            self._add(Fate.CREATE, row.id, erp_id=erp.id, direction="to_crm", why="under way")

    def _add(self, fate: Fate, home: str, **values: object) -> None:
        self.planned.append(Planned(mapping=self.mapping.name, fate=fate, home=home, **values))  # type: ignore[arg-type]

    # --- matches and creates --------------------------------------------------------------------------------------

    def _until_nothing_moves(self, step: Callable[[_Key], bool]) -> None:
        """What one record comes to changes what others come to."""
        while True:
            moved = False
            for key in sorted(self.singles, key=lambda key: (key[0] is System.CRM, key[1])):
                if key in self.singles:
                    moved = step(key) or moved
            if not moved:
                return

    def _match(self, key: _Key) -> bool:
        if not self._found(key).hits:
            return False
        found = self._look(key)
        if not isinstance(found, _Match):
            return False
        erp, crm = self.singles.pop((System.ERP, found.erp_id)).erp, self.singles.pop((System.CRM, found.crm_id)).crm
        assert erp is not None
        assert crm is not None
        key_id = self.context.prints.key_id
        joined = Pair(state=PairState.COUPLED, erp=erp, crm=crm, key_id=key_id, first_use=self.use)
        joined = forget_agreement(joined)
        self._know(joined, erp.id, crm.id)
        told = self._told(joined)
        self._add(
            Fate.MATCH,
            erp.id,
            erp_id=erp.id,
            crm_id=crm.id,
            why=self._criterion(found.test, found.direction),
            writes=told.writes,
            clashes=told.clashes,
            waits=told.why,
        )
        return True

    def _make(self, key: _Key) -> bool:
        system, record_id = key
        pair = self.singles[key]
        decided = self._look(key)
        issue = decided.decisions[0] if isinstance(decided, Decided) else None
        if not isinstance(issue, Issue) or issue.kind is not CommandKind.CREATE:
            return False
        looks = len(self._found(key).tests)
        self.singles.pop(key)
        source = side_of(pair, system)
        assert source is not None
        made = Side(id=record_id, version="", order=0, modified_at=source.modified_at, state=issue.values)
        coupled = with_side(replace(pair, state=PairState.COUPLED), system.other, made)
        self._know(coupled, record_id, record_id)
        erp_id, crm_id = _ids(system, record_id)
        self._add(
            Fate.CREATE,
            record_id,
            erp_id=erp_id,
            crm_id=crm_id,
            direction=issue.direction,
            writes=self._stamp(source) if system is System.CRM else (),
            looks=looks,
        )
        return True

    def _rest(self, key: _Key) -> Planned:
        """What becomes of a record that is neither coupled nor has its counterpart made."""
        system, record_id = key
        decided = self._look(key)
        assert isinstance(decided, Decided)
        decision = decided.decisions[0]
        candidates: tuple[str, ...] = ()
        match decision:
            case Reject(error=error, missing=missing) if error is AmbiguousMatch:
                fate, why, candidates = Fate.AMBIGUOUS, "", missing
            case Reject(error=error, fields=names):
                fate, why = Fate.REFUSED, f"{error.slug} {', '.join(names)}".strip()
            case Wait(error=error, missing=missing):
                fate, why = Fate.WAITING, f"{error.slug} {missing[0]}"
            case Skip(reason="company-unknown"):
                fate, why = Fate.WAITING, f"the CRM row of company {self.context.company_id}"
            case Skip(reason="outside-filter"):
                fate, why = Fate.OUTSIDE, ""
            case Skip(reason="held"):
                hold = next(iter(self.singles[key].holds.values()), None)
                fate, why = Fate.HELD, f"{hold.code} {hold.slug}" if hold is not None else ""
            case _:
                fate, why = Fate.ALONE, ""
        erp_id, crm_id = _ids(system, record_id)
        return Planned(
            mapping=self.mapping.name,
            fate=fate,
            home=record_id,
            erp_id=erp_id,
            crm_id=crm_id,
            direction="to_crm" if system is System.ERP else "to_erp",
            why=why,
            candidates=candidates,
        )

    # --- as the homes decide --------------------------------------------------------------------------------------

    def _look(self, key: _Key) -> Decided | _Match:
        """What `decide` makes of the record, once what it claims is verified from the other side (`homes._verify`)."""
        system, record_id = key
        direction: Direction = "to_crm" if system is System.ERP else "to_erp"
        found = self._found(key)
        matched = Matched(test=test_print(found.tests, self.context.prints), candidates=found.hits)
        while True:
            matched = replace(matched, ruled_out=self.ruled_out[key])
            pair = replace(self.singles[key], matched=matched)
            pair = replace(pair, to_be_made=pair.to_be_made or self.create in (direction, "both"))
            decided = decide(pair, self.mapping, self.view, self.context)
            claim = decided.decisions[0]
            if not isinstance(claim, Claim):
                return decided
            verdict = self._verified((system.other, claim.candidate), record_id)
            if verdict == "yes":
                assert found.test is not None
                erp_id, crm_id = (record_id, claim.candidate) if system is System.ERP else (claim.candidate, record_id)
                return _Match(erp_id, crm_id, found.test, direction)
            if verdict == "ambiguous":
                matched = replace(matched, ambiguous=True)
            else:
                self.ruled_out[key] = (*self.ruled_out[key], claim.candidate)

    def _found(self, key: _Key) -> _Found:
        """What a look-up for the record finds. Records are there or not, coupled or not: it is always the same."""
        if key not in self.found:
            system, _ = key
            source = side_of(self.singles[key], system)
            assert source is not None
            tests = match_tests(source, self.mapping, "to_crm" if system is System.ERP else "to_erp", self.view)
            test, hits = self.lookups[system.other].find(tests)
            self.found[key] = _Found(tests, test, tuple(sorted(hits)))
        return self.found[key]

    def _verified(self, other: _Key, wanted: str) -> str:
        system, _ = other
        if other not in self.singles:
            return "taken"
        direction: Direction = "to_crm" if system is System.ERP else "to_erp"
        hits = self._found(other).hits
        free = free_of(Matched(test="", candidates=hits), self.mapping, direction, self.view)
        if wanted in free and len(hits) > 1:
            return "ambiguous"
        return "yes" if wanted in hits else "no-match"

    def _know(self, pair: Pair, erp_id: str, crm_id: str) -> None:
        """From here on the two count as coupled."""
        self.view.apply(Row(mapping=self.mapping.name, id=crm_id))
        self.view.apply(Row(mapping=self.mapping.name, id=erp_id, pair=pair))

    def _told(self, pair: Pair) -> _Told:
        """What is written once the two are coupled, and who wins where both have a value."""
        decided = decide(pair, self.mapping, self.view, self.context)
        clashes = [
            Clash(winner="erp" if choice.direction == "to_crm" else "crm", reason=choice.reason, fields=choice.fields)
            for choice in decided.choices
        ]
        why = ""
        for decision in decided.decisions:
            if isinstance(decision, Reject) and decision.direction == "conflict":
                clashes.append(Clash(winner="", reason="a person has to say", fields=decision.fields))
            elif isinstance(decision, (Wait, Reject)):
                why = why or " ".join((decision.error.slug, *decision.missing[:1]))
        writes = tuple(decision.direction for decision in decided.decisions if isinstance(decision, Issue))
        return _Told(writes, tuple(clashes), why)

    def _stamp(self, crm: Side) -> tuple[str, ...]:
        """R55: a CRM record that makes an ERP record is stamped with the company."""
        stamps = (str(line.crm) for line in self.mapping.fields if line.company and line.enabled)
        ours = self.view.company_crm_id
        flows = self.mapping.flows("to_crm") and ours is not None
        return ("to_crm",) if flows and any(crm.state.get(name) != ours for name in stamps) else ()

    def _criterion(self, test: MatchTest, direction: str) -> str:
        """The group of criteria in words: `displayName = name`, and where letter case counts."""
        asked = set(test.equals), set(test.exact)
        for group in self.mapping.match:
            named = {(pair.crm if direction == "to_crm" else pair.erp): pair.case_sensitive for pair in group}
            if asked == (set(named), {name for name, counts in named.items() if counts}):
                return " and ".join(
                    f"{pair.erp} = {pair.crm}{', letter case too' if pair.case_sensitive else ''}" for pair in group
                )
        return ""


@dataclass(frozen=True, slots=True)
class _Found:
    tests: tuple[MatchTest, ...]
    test: MatchTest | None  # the one that found something
    hits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Match:
    erp_id: str
    crm_id: str
    test: MatchTest
    direction: str


@dataclass(frozen=True, slots=True)
class _Told:
    writes: tuple[str, ...]
    clashes: tuple[Clash, ...]
    why: str


def _ids(system: System, record_id: str) -> tuple[str, str]:
    """The ids of both sides, one of them blank."""
    return (record_id, "") if system is System.ERP else ("", record_id)


# --- ambiguous ones, with everything they could be ------------------------------------------------------------------


def ambiguous_groups(plan: Plan, mapping: EntityMapping) -> list[tuple[str, ...]]:
    """The records that can only be told apart by a person, as refs, ERP records first: each group on its own."""
    group_of: dict[str, set[str]] = {}
    for one in plan.of(mapping.name, Fate.AMBIGUOUS):
        system = System.ERP if one.erp_id else System.CRM
        ref = str(RecordRef(system, str(mapping.entity_in(system)), one.erp_id or one.crm_id))
        joined = {ref, *one.candidates}
        for name in tuple(joined):
            joined |= group_of.get(name, set())
        for name in joined:
            group_of[name] = joined
    groups = {
        min(group): tuple(sorted(group, key=lambda ref: (ref.startswith("crm"), ref))) for group in group_of.values()
    }
    return [groups[first] for first in sorted(groups)]


# --- plan and outcome -----------------------------------------------------------------------------------------------


class How(str, Enum):
    """How a planned record ended."""

    AS_PLANNED = "as planned"
    LETTER = "dead letter"
    OTHERWISE = "otherwise"
    OPEN = "not ended"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    how: How
    why: str = ""  # the letter's code and cause, or what happened instead


_LETTER_IS_THE_PLAN = frozenset({Fate.AMBIGUOUS, Fate.WAITING, Fate.REFUSED, Fate.HELD, Fate.ORPHAN})
AS_PLANNED = End(how=How.AS_PLANNED)
NOT_ENDED = End(how=How.OPEN)


def end_of(one: Planned, row: Row | None, *, answer: str = "") -> End:
    """What has become of a planned record by now, by the row of its home. `answer`: why its order was not followed."""
    pair = row.pair if row is not None else None
    if row is not None and (row.deferred or (pair is not None and _is_under_way(pair))):
        return NOT_ENDED
    coupled = pair is not None and pair.state is PairState.COUPLED
    partner = pair.crm.id if pair is not None and pair.crm is not None else ""
    if one.fate is Fate.MATCH and coupled and partner != one.crm_id:
        return End(how=How.OTHERWISE, why=f"coupled with {partner}")
    if pair is not None and pair.holds and one.fate not in _LETTER_IS_THE_PLAN:
        hold = next(iter(pair.holds.values()))
        if one.waits == " ".join((hold.slug, *hold.missing[:1])):
            return AS_PLANNED
        return End(how=How.LETTER, why=" ".join((hold.code, hold.slug, *hold.missing[:1])))
    if coupled or one.fate not in (Fate.MATCH, Fate.CREATE):
        return AS_PLANNED
    if row is not None and row.home is not None and one.fate is Fate.CREATE and row.home.belongs_to not in ("", row.id):
        return AS_PLANNED  # a counterpart came meanwhile
    if answer:
        return End(how=How.OTHERWISE, why=answer)
    return NOT_ENDED if pair is not None else End(how=How.OTHERWISE, why="the record is gone")


def _is_under_way(pair: Pair) -> bool:
    return pair.in_flight is not None or pair.state is PairState.CLAIMING


# --- how long it takes ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What is asked of one system, by kind. `requests`: how many that takes, where nobody has measured it."""

    system: System
    kind: str  # look-up, create, update
    count: int
    requests: int


def costs(plan: Plan) -> tuple[Cost, ...]:
    """The look-ups and writes of a plan."""
    counts: dict[tuple[System, str], int] = defaultdict(int)
    requests: dict[tuple[System, str], int] = defaultdict(int)

    def add(system: System, kind: str, of: int = 1) -> None:
        counts[system, kind] += 1
        requests[system, kind] += of

    for one in plan.records:
        if one.fate is Fate.CREATE:
            target = target_of(one.direction)
            add(target, "create")
            if one.looks:  # the CRM answers for all criteria at once, the ERP for one at a time
                add(target, "look-up", 1 if target is System.CRM else one.looks)
        for direction in one.writes:
            add(target_of(direction), "update")
    return tuple(
        Cost(system=system, kind=kind, count=count, requests=requests[system, kind])
        for (system, kind), count in sorted(counts.items())
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """What one system takes of us."""

    per_5_min: int
    max_parallel: int
    request_s: float  # how long one request takes


def seconds_for(requests: float, lane: Lane, *, burst_share: float) -> float:
    """How long so many requests take: as fast as the lane is wide, and as the allowance lasts."""
    rate = lane.per_5_min / 300
    over = max(0.0, requests - lane.per_5_min * burst_share)
    return max(over / rate, requests * lane.request_s / lane.max_parallel)


def refs_of(one: Planned, mapping: EntityMapping) -> Iterator[str]:
    for system, record_id in ((System.ERP, one.erp_id), (System.CRM, one.crm_id)):
        if record_id:
            yield str(RecordRef(system, str(mapping.entity_in(system)), record_id))
