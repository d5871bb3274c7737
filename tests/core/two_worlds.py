"""Two systems, every stage between them, and a dice: a whole run of the pipeline inside one process under a seed.

The core is the real one (`processors.react`). Around it everything is simulated at the level of messages: capture that
comes late and in any order across records, a bus that delivers again, a decide process killed between storing a row and
sending, sinks whose replies are lost, targets that trim, rewrite or fill in what they are given, users and automations
that edit at any moment.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from msgspec import Struct
from msgspec.structs import replace

from processors.brakes import Brakes, Limits, let_through
from processors.coupling import Fingerprints
from processors.mapping import DIRECTIONS, EntityMapping, FieldMapping
from processors.react import Step, World, react
from processors.transfer import equal
from processors.view import ReferenceView
from schemas.brakes import Brake, brake_key
from schemas.coupling import PairState, Row
from schemas.records import (
    ChangeEvent,
    Command,
    CommandKind,
    DeadLetter,
    LetterState,
    Observed,
    Operation,
    Order,
    OrderKind,
    Outcome,
    OutcomeStatus,
    RecordRef,
    System,
    Value,
    Work,
    derived_id,
)
from tests.builders import SMALL, small

START = datetime(2026, 1, 1, tzinfo=timezone.utc)

MAPPING = small(
    fields=(
        *SMALL.fields[:2],  # name and phone number
        FieldMapping(erp="city", crm="address1_city"),
        FieldMapping(erp="creditLimit", crm="creditlimit", type="integer", direction="to_crm"),
    )
)
FIELDS = {
    System.ERP: ("displayName", "phoneNumber", "city", "creditLimit"),
    System.CRM: ("name", "telephone1", "address1_city", "creditlimit"),
}
ENTITY = {System.ERP: "customer", System.CRM: "account"}


@dataclass
class Record:
    id: str
    values: dict[str, Value]
    version: str
    order: int
    modified_at: datetime
    deleted: bool = False


class Odds(Struct, frozen=True, kw_only=True):
    """What can go wrong, and how often."""

    again: float = 0.15  # a message is delivered again
    killed: float = 0.1  # decide dies after the row is durable, before anything is sent
    lost_reply: float = 0.15
    sink_killed: float = 0.1  # the write was done, the outcome was not sent
    trims: bool = True
    rewrites: bool = True  # each system has its own form of a phone number
    fills_in: bool = True  # a city fills the phone number when that is blank
    automation: float = 0.2  # an edit right after our write
    deletes: float = 0.0
    orders: float = 0.0  # couple and uncouple by hand
    pauses: float = 0.0  # a brake put on or taken off by hand
    at_most: int | None = None  # more records than this changed in an hour stop a direction by themselves
    versions: bool = True  # the sinks honour the version a decision was based on
    reads_back: bool = True


@dataclass
class Side:
    """One system: its records, and its quirks."""

    system: System
    dice: random.Random
    odds: Odds
    records: dict[str, Record] = field(default_factory=dict)
    counter: int = 0
    changed: dict[str, None] = field(default_factory=dict)  # ids not captured since their last change
    writes: int = 0
    blind: int = 0  # writes onto a state the decision had not seen

    def write(self, record_id: str, values: dict[str, Value], at: datetime) -> Record:
        self.counter += 1
        old = self.records.get(record_id)
        merged = {**(old.values if old else dict.fromkeys(FIELDS[self.system])), **self._own_form(values)}
        _, phone, city, _ = FIELDS[self.system]
        if self.odds.fills_in and city in values and merged[city] and not merged[phone]:
            merged[phone] = "0555"
        if old is not None and not old.deleted and old.values == merged:
            return old
        record = Record(record_id, merged, f"{self.system.value}{self.counter}", self.counter, at)
        self.records[record_id] = record
        self.changed[record_id] = None
        return record

    def _own_form(self, values: dict[str, Value]) -> dict[str, Value]:
        name, phone, _, _ = FIELDS[self.system]
        own = dict(values)
        for key, value in values.items():
            if isinstance(value, str) and self.odds.trims:
                own[key] = value.strip() or None
            if key == phone and isinstance(value, str) and self.odds.rewrites:
                own[key] = ("+49" + value.lstrip("0")) if self.system is System.CRM and value.startswith("0") else value
                if self.system is System.ERP and value.startswith("+49"):
                    own[key] = "0" + value[3:]
        if name in own and own[name] is not None:
            own[name] = str(own[name])[: 20 if self.system is System.ERP else 30].strip()
        return own

    def delete(self, record_id: str) -> None:
        self.counter += 1
        record = self.records[record_id]
        record.deleted, record.order, record.version = True, self.counter, f"deleted:{self.counter}"
        self.changed[record_id] = None

    def alive(self) -> list[str]:
        return [record.id for record in self.records.values() if not record.deleted]

    def observed(self, record_id: str) -> Observed:
        record = self.records[record_id]
        return Observed(
            id=record.id,
            version=record.version,
            order=record.order,
            modified_at=record.modified_at,
            state=dict(record.values),
        )


class TwoWorlds:
    """One run. `run` plays it to its end and returns itself."""

    def __init__(
        self, seed: int, odds: Odds, *, mapping: EntityMapping = MAPPING, react: Callable[..., Step] = react
    ) -> None:
        self.dice = random.Random(seed)
        self.odds = odds
        self.mapping = mapping
        self.react = react
        self.sides = {system: Side(system, self.dice, odds) for system in System}
        self.view = ReferenceView((mapping,), company_id="")
        limits = Limits(share=1) if odds.at_most is None else Limits(share=0.01, at_least=odds.at_most)
        self.brakes = Brakes(limits=limits)
        self.world = World(
            mappings={mapping.name: mapping},
            view=self.view,
            prints=Fingerprints.of_key("test"),
            brakes=self.brakes,
        )
        self.stops = 0
        self.rows: dict[str, Row] = {}
        self.work: dict[str, deque[Work]] = defaultdict(deque)
        self.commands: dict[str, deque[Command]] = defaultdict(deque)
        self.letters: dict[str, DeadLetter] = {}
        self.now = START
        self.steps = 0
        self.edits = 0
        self.later: list[tuple[int, System, str]] = []  # automations: step, system, record
        self.made = 0

    # --- people ---------------------------------------------------------------------------------------------------

    def edit(self, system: System, record_id: str | None = None, **values: Value) -> str:
        self.edits += 1
        if record_id is None:
            self.made += 1
            record_id = derived_id("made", system.value, self.made)
            values.setdefault(FIELDS[system][0], f"Name {self.dice.randrange(4)}")
        self.sides[system].write(record_id, values, self.now)
        return record_id

    def _random_edit(self) -> None:
        system = self.dice.choice(list(System))
        side = self.sides[system]
        alive = side.alive()
        roll = self.dice.random()
        if not alive or roll < 0.15:
            self.edit(system)
        elif roll < 0.15 + self.odds.deletes:
            self.edits += 1
            side.delete(self.dice.choice(alive))
        elif roll < 0.15 + self.odds.deletes + self.odds.orders:
            self._random_order()
        else:
            names = self.dice.sample(
                FIELDS[system][:3] if system is System.CRM else FIELDS[system], k=self.dice.choice((1, 1, 2))
            )
            values = {name: self._random_value(name) for name in names}
            self.edit(system, self.dice.choice(alive), **values)

    def _random_value(self, name: str) -> Value:
        if name.lower() == "creditlimit":
            return self.dice.randrange(1000)
        if name in ("displayName", "name"):
            return f"Name {self.dice.randrange(30)}" + self.dice.choice(("", " ", " with a long tail to be cut"))
        if name in ("phoneNumber", "telephone1"):
            return self.dice.choice((None, "0123", "0456", "+4977", " 012 "))
        return self.dice.choice((None, "Bonn", "Rome", "Oslo ", "Lima"))

    def _random_order(self) -> None:
        erp, crm = self.sides[System.ERP].alive(), self.sides[System.CRM].alive()
        if not erp or not crm:
            return
        order_id = derived_id("order", self.steps)
        if self.dice.random() < 0.5:
            order = Order(order_id=order_id, kind=OrderKind.UNCOUPLE, by="operator", erp_id=self.dice.choice(erp))
            self.post(Work(message_id=order_id, mapping=self.mapping.name, home=order.erp_id, order=order))
        else:
            self.couple(self.dice.choice(erp), self.dice.choice(crm), order_id)

    def couple(self, erp_id: str, crm_id: str, order_id: str = "") -> None:
        order_id = order_id or derived_id("order", erp_id, crm_id)
        order = Order(order_id=order_id, kind=OrderKind.COUPLE, by="operator", erp_id=erp_id, crm_id=crm_id)
        self.post(Work(message_id=order_id, mapping=self.mapping.name, home=crm_id, order=order))

    def brake(self, direction: str, *, on: bool) -> None:
        self.brakes.take(brake_key(self.mapping.name, direction), Brake(on=on, by="operator", at=self.now))

    def let_all_through(self) -> None:
        """A person takes every brake off, and lets happen what they held."""
        for key, brake in list(self.brakes.all_on()):
            self.brakes.take(key, let_through(brake, by="operator", at=self.now, free_for=None))

    def replay_all(self, use: str = "") -> None:
        for letter in [letter for letter in self.letters.values() if letter.state is LetterState.OPEN]:
            self.edits += 1
            order_id = derived_id("replay", self.edits, letter.letter_id)
            order = Order(order_id=order_id, kind=OrderKind.RETRY, by="operator", use=use, letter_id=letter.letter_id)
            self.post(Work(message_id=order_id, mapping=letter.mapping, home=letter.home, order=order))

    # --- stages ---------------------------------------------------------------------------------------------------

    def post(self, work: Work) -> None:
        self.work[work.key].append(work)

    def capture(self, system: System, record_id: str) -> None:
        side = self.sides[system]
        side.changed.pop(record_id, None)
        record = side.records[record_id]
        ref = RecordRef(system, ENTITY[system], record_id)
        event_id = derived_id("event", ref, record.version)
        event = ChangeEvent(
            event_id=event_id,
            ref=ref,
            operation=Operation.DELETE if record.deleted else Operation.CHANGE,
            version=record.version,
            order=record.order,
            modified_at=record.modified_at,
            captured_at=self.now,
            after=None if record.deleted else dict(record.values),
        )
        self.post(Work(message_id=event_id, mapping=self.mapping.name, home=record_id, change=event))

    def decide(self, key: str) -> None:
        work = self.work[key][0]
        step = self.react(work, self.rows.get(key), self.world, now=self.now)
        if step.row is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = step.row
        self.view.apply(step.row or Row(mapping=work.mapping, id=work.home))
        if step.row is not None:
            self.brakes.note(step.row, now=self.now)
        if step.stopped:
            self.stops += 1
            self.brakes.take(*self.brakes.stop(work.mapping, step.stopped, by="test", now=self.now))
        if self.dice.random() < self.odds.killed:
            return  # not acknowledged: it comes again
        if step.command is not None:
            self.commands[key].append(step.command)
        for sent in step.works:
            self.post(sent)
        for letter in step.letters:
            self.letters[letter.letter_id] = letter
        if self.dice.random() >= self.odds.again:
            self.work[key].popleft()

    def sink(self, key: str) -> None:
        command = self.commands[key][0]
        outcome = self._execute(command, self.sides[command.target.system])
        if outcome is None or self.dice.random() < self.odds.sink_killed:
            return
        if self.dice.random() >= self.odds.again:
            self.commands[key].popleft()
        version = outcome.observed.version if outcome.observed else ""
        message_id = derived_id("outcome", command.command_id, outcome.status.value, version)
        self.post(Work(message_id=message_id, mapping=command.mapping, home=command.home, outcome=outcome))

    def _execute(self, command: Command, side: Side) -> Outcome:
        target = command.target
        record = side.records.get(target.id)
        if command.kind is CommandKind.MATCH:
            return self._outcome(command, OutcomeStatus.MATCHED, candidates=self._matches(command, side))
        if command.kind is CommandKind.CREATE:
            if record is not None and not record.deleted:
                return self._outcome(command, OutcomeStatus.OBSERVED, observed=side.observed(target.id))
            side.writes += 1
            side.write(target.id, dict(command.values), self.now)
            return self._after_write(command, side)
        if record is None or record.deleted:
            status = OutcomeStatus.DELETED if command.kind is CommandKind.DELETE else OutcomeStatus.MISSING
            return self._outcome(command, status)
        if command.kind is CommandKind.DELETE:
            if record.version != command.expected_version and self.odds.versions:
                return self._outcome(command, OutcomeStatus.OBSERVED, observed=side.observed(target.id))
            side.delete(target.id)
            return self._outcome(command, OutcomeStatus.DELETED)
        if record.version != command.expected_version:
            as_seen = all(equal(None, record.values.get(name), value) for name, value in command.seen.items())
            if not as_seen and self.odds.versions:
                return self._outcome(command, OutcomeStatus.OBSERVED, observed=side.observed(target.id))
            if not as_seen:
                side.blind += 1
        side.writes += 1
        side.write(target.id, dict(command.values), self.now)
        return self._after_write(command, side)

    def _after_write(self, command: Command, side: Side) -> Outcome:
        written = side.observed(command.target.id)
        if self.dice.random() < self.odds.automation:
            self.later.append((self.steps + self.dice.randrange(3), side.system, command.target.id))
        if self.dice.random() < self.odds.lost_reply:
            self._run_automations()
            if not side.records[command.target.id].deleted:
                written = side.observed(command.target.id)
            return self._outcome(command, OutcomeStatus.OBSERVED, observed=written)
        return self._outcome(command, OutcomeStatus.WRITTEN, observed=written)

    def _matches(self, command: Command, side: Side) -> tuple[Observed, ...]:
        for test in command.tests:
            hits = [
                side.observed(record.id)
                for record in side.records.values()
                if not record.deleted
                and all(
                    str(record.values.get(name) or "").upper() == str(value).strip().upper()
                    for name, value in test.equals.items()
                )
            ]
            if hits:
                return tuple(hits)
        return ()

    def _outcome(self, command: Command, status: OutcomeStatus, **more: object) -> Outcome:
        return Outcome(  # type: ignore[arg-type]
            command_id=command.command_id,
            mapping=command.mapping,
            home=command.home,
            status=status,
            target=command.target,
            at=self.now,
            **more,
        )

    def _run_automations(self) -> None:
        due = [item for item in self.later if item[0] <= self.steps]
        self.later = [item for item in self.later if item[0] > self.steps]
        for _, system, record_id in due:
            record = self.sides[system].records.get(record_id)
            if record is not None and not record.deleted:
                self.sides[system].write(record_id, {FIELDS[system][2]: self.dice.choice(("Kyiv", "Bern"))}, self.now)

    # --- the run --------------------------------------------------------------------------------------------------

    def run(self, edits: int = 8, *, limit: int = 4000) -> TwoWorlds:
        """Edit at random moments while everything runs, then let it fall quiet; then with every brake off."""
        for _ in range(edits):
            self._random_edit()
            if self.odds.pauses and self.dice.random() < self.odds.pauses:
                self.brake(self.dice.choice(DIRECTIONS), on=self.dice.random() < 0.7)
            for _ in range(self.dice.randrange(6)):
                self._one_step()
        self.settle(limit=limit)
        while any(self.brakes.all_on()):
            self.let_all_through()
            self.settle(limit=limit)
        return self

    def settle(self, *, limit: int = 4000) -> TwoWorlds:
        """Run until nothing is left to do. Raises AssertionError when that does not come."""
        for _ in range(limit):
            if not self._one_step() and not self._resend_unanswered():
                return self
        raise AssertionError("never falls quiet")

    def _resend_unanswered(self) -> bool:
        """What the timer of a decide process does."""
        found = False
        for key, row in list(self.rows.items()):
            order_id = derived_id("timer", self.steps, key)
            kept = [
                self.brakes.keeps_back(row.mapping, direction)
                for direction in (row.pair.kept_back if row.pair is not None else ())
            ]
            if row.pair is not None and row.pair.in_flight is not None:
                kind = OrderKind.RESEND
            elif kept and all(kept):
                continue
            elif kept or row.deferred:
                kind = OrderKind.RETRY
            else:
                continue
            found = True
            order = Order(order_id=order_id, kind=kind, by="timeout")
            self.post(Work(message_id=order_id, mapping=row.mapping, home=row.id, order=order))
        return found

    def _one_step(self) -> bool:
        self.steps += 1
        self.now += timedelta(seconds=self.dice.choice((0.01, 0.5, 3)))
        self._run_automations()
        todo: list[tuple[Callable[..., None], tuple[object, ...]]] = []
        for system, side in self.sides.items():
            todo += [(self.capture, (system, record_id)) for record_id in side.changed]
        todo += [(self.decide, (key,)) for key, queue in self.work.items() if queue]
        todo += [(self.sink, (key,)) for key, queue in self.commands.items() if queue]
        if not todo:
            if self.later:
                self.steps = max(step for step, _, _ in self.later)
                return True
            return False
        action, arguments = self.dice.choice(todo)
        action(*arguments)
        return True

    # --- what must hold -------------------------------------------------------------------------------------------

    def coupled(self) -> list[tuple[str, str]]:
        return [
            (row.pair.erp.id, row.pair.crm.id)
            for row in self.rows.values()
            if row.pair is not None and row.pair.state is PairState.COUPLED and row.pair.erp and row.pair.crm
        ]

    def disagreements(self) -> list[str]:
        """Coupled pairs whose records differ in a line that goes both ways, own forms of a system aside."""
        found = []
        erp_side, crm_side = self.sides[System.ERP], self.sides[System.CRM]
        for erp_id, crm_id in self.coupled():
            if erp_id not in erp_side.records or crm_id not in crm_side.records:
                found.append(f"{erp_id} is coupled with a record that does not exist")
                continue
            erp, crm = erp_side.records[erp_id], crm_side.records[crm_id]
            if erp.deleted or crm.deleted:
                continue
            for line in self.mapping.fields:
                left, right = erp.values[str(line.erp)], crm.values[str(line.crm)]
                if line.direction == "both" and not equal(line, self._plain(line, left), self._plain(line, right)):
                    found.append(f"{erp_id} {line.crm}: {left!r} != {right!r}")
        return found

    def _plain(self, line: FieldMapping, value: Value) -> Value:
        if line.crm == "telephone1" and isinstance(value, str) and self.odds.rewrites:
            return "+49" + value.lstrip("0") if value.startswith("0") else value
        return value

    def open_letters(self) -> list[DeadLetter]:
        return [letter for letter in self.letters.values() if letter.state is LetterState.OPEN]

    def orphans(self) -> list[str]:
        """Records that are alive, not coupled, not uncoupled by hand, and of which no open letter speaks."""
        spoken = {letter.ref for letter in self.open_letters()}
        accounted = {(System.ERP, erp) for erp, _ in self.coupled()} | {(System.CRM, crm) for _, crm in self.coupled()}
        for row in self.rows.values():
            if row.pair is not None and row.pair.state is PairState.UNCOUPLED:
                accounted |= {(System.ERP, row.pair.erp.id)} if row.pair.erp else set()
                accounted |= {(System.CRM, row.pair.crm.id)} if row.pair.crm else set()
            if row.home is not None and row.home.evicted is not None:
                accounted.add((System.CRM, row.home.evicted.id))
        return [
            f"{system}:{record_id}"
            for system, side in self.sides.items()
            for record_id in side.alive()
            if (system, record_id) not in accounted and str(RecordRef(system, ENTITY[system], record_id)) not in spoken
        ]

    def doubly_coupled(self) -> list[str]:
        pairs = self.coupled()
        crm = [crm_id for _, crm_id in pairs]
        return [crm_id for crm_id in crm if crm.count(crm_id) > 1]


def with_odds(odds: Odds, **changed: object) -> Odds:
    return replace(odds, **changed)  # type: ignore[arg-type]
