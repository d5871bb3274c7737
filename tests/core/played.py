"""Homes played message by message: what `react` sends is routed to the home it is meant for, in order.

Commands wait until the test answers them, as a sink would; rows feed the reference view, as the `couplings` topic does.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from processors.mapping import EntityMapping
from processors.react import Step, react
from processors.turn import World
from schemas.coupling import Pair, PairState, Row
from schemas.records import (
    ChangeEvent,
    Command,
    DeadLetter,
    JournalLine,
    LetterState,
    Observed,
    Order,
    OrderKind,
    Outcome,
    OutcomeStatus,
    Value,
    Work,
)
from tests.builders import (
    NOON,
    SMALL,
    a_change,
    a_delete,
    a_small_account,
    a_small_customer,
    a_world,
    an_outcome,
    small,
    work_of,
)

BY_HAND = small(create="none", match=())  # nothing is coupled or made but by an order


class Played:
    """`rows`: as stored; `commands`: sent and not answered; `letters`: by id, as the index holds them."""

    def __init__(self, mapping: EntityMapping = SMALL, *, world: World | None = None) -> None:
        self.mapping = mapping
        self.world = world or a_world(mapping)
        self.rows: dict[str, Row] = {}
        self.queues: dict[str, deque[Work]] = defaultdict(deque)
        self.log: dict[str, list[Work]] = defaultdict(list)  # what each home was sent, in order
        self.commands: list[Command] = []
        self.letters: dict[str, DeadLetter] = {}
        self.lines: list[JournalLine] = []
        self.steps: list[Step] = []
        self.now = NOON + timedelta(hours=1)
        self.counter = 100

    # --- messages in ------------------------------------------------------------------------------------------

    def post(self, work: Work) -> None:
        self.queues[work.home].append(work)
        self.log[work.home].append(work)

    def run(self) -> Played:
        """Until no home has a message left."""
        for _ in range(500):
            home = next((home for home, queue in self.queues.items() if queue), None)
            if home is None:
                return self
            self.take(self.queues[home].popleft())
        raise AssertionError("the homes never fall quiet")

    def take(self, work: Work) -> Step:
        step = react(work, self.rows.get(work.home), self.world, now=self.now)
        if step.row is None:
            self.rows.pop(work.home, None)
        else:
            self.rows[work.home] = step.row
        self.world.view.apply(step.row or Row(mapping=work.mapping, id=work.home))
        if step.command is not None:
            self.commands.append(step.command)
        for letter in step.letters:
            self.letters[letter.letter_id] = letter
        self.lines.extend(step.lines)
        self.steps.append(step)
        for sent in step.works:
            self.post(sent)
        return step

    def change(self, event: ChangeEvent) -> Played:
        self.post(work_of(event, mapping=self.mapping.name))
        return self.run()

    def order(self, kind: OrderKind, *, home: str, by: str = "operator", **values: Any) -> Played:
        self.counter += 1
        order = Order(order_id=f"order-{self.counter}", kind=kind, by=by, **values)
        self.post(work_of(order, home=home, mapping=self.mapping.name))
        return self.run()

    # --- the usual ones ---------------------------------------------------------------------------------------

    def customer(self, record_id: str = "C", *, order: int = 10, **changed: Value) -> Played:
        return self.change(a_change(f"erp:customer:{record_id}", order=order, state=a_small_customer(**changed)))

    def account(self, record_id: str = "A", *, order: int = 10, **changed: Value) -> Played:
        return self.change(a_change(f"crm:account:{record_id}", order=order, state=a_small_account(**changed)))

    def deleted(self, ref: str, *, order: int = 90) -> Played:
        return self.change(a_delete(ref, order=order))

    def couple(self, erp_id: str = "C", crm_id: str = "A", **values: Any) -> Played:
        return self.order(OrderKind.COUPLE, home=crm_id, erp_id=erp_id, crm_id=crm_id, **values)

    def uncouple(self, erp_id: str = "C") -> Played:
        return self.order(OrderKind.UNCOUPLE, home=erp_id, erp_id=erp_id)

    def coupled(self, erp_id: str = "C", crm_id: str = "A") -> Played:
        """Customer and account, captured and coupled by hand, in agreement. The mapping must be one `BY_HAND`."""
        return self.customer(erp_id).account(crm_id).couple(erp_id, crm_id)

    # --- answers ----------------------------------------------------------------------------------------------

    @property
    def command(self) -> Command:
        """The only command that waits for an answer."""
        (command,) = self.commands
        return command

    def answer(self, status: OutcomeStatus, command: Command | None = None, **values: Any) -> Played:
        command = command or self.command
        if command in self.commands:
            self.commands.remove(command)
        outcome: Outcome = an_outcome(command, status, **values)
        self.post(work_of(outcome, mapping=self.mapping.name))
        return self.run()

    def found(self, *candidates: Observed) -> Played:
        """Answer a look-up of matches; without candidates: none. A create that follows is left waiting."""
        return self.answer(OutcomeStatus.MATCHED, candidates=candidates)

    def written(self, state: Mapping[str, Value] | None = None, *, order: int = 50, **changed: Value) -> Played:
        """The sink wrote what it was told; the target holds `state` before, and `changed` after all."""
        command = self.command
        base = state if state is not None else command.seen
        return self.answer(
            OutcomeStatus.WRITTEN,
            observed=self.observed(command, order=order, state={**base, **command.values, **changed}),
        )

    def conflict(self, *, order: int = 50, **changed: Value) -> Played:
        """The sink wrote nothing: this is what the target holds by now."""
        command = self.command
        state = {**command.seen, **changed}
        return self.answer(OutcomeStatus.OBSERVED, observed=self.observed(command, order=order, state=state))

    def rejected(self, code: str = "DRW-4001", detail: str = "0x80040265 telephone1") -> Played:
        return self.answer(OutcomeStatus.REJECTED, code=code, detail=detail)

    @staticmethod
    def observed(command: Command, *, order: int, state: Mapping[str, Value]) -> Observed:
        return Observed(
            id=command.target.id,
            version=f'W/"{order}"',
            order=order,
            modified_at=NOON + timedelta(seconds=order),
            state=dict(state),
        )

    # --- what came of it --------------------------------------------------------------------------------------

    def pair(self, home: str = "C") -> Pair:
        pair = self.rows[home].pair
        assert pair is not None
        return pair

    def pairs(self) -> set[tuple[str, str]]:
        """Which records are coupled, by the rows."""
        return {
            (row.pair.erp.id, row.pair.crm.id)
            for row in self.rows.values()
            if row.pair is not None and row.pair.state is PairState.COUPLED and row.pair.erp and row.pair.crm
        }

    def open_letters(self) -> list[DeadLetter]:
        return [letter for letter in self.letters.values() if letter.state is LetterState.OPEN]

    def events(self, *names: str) -> list[tuple[str, str]]:
        """Journal lines of these events, with their reasons."""
        return [(line.event, line.reason) for line in self.lines if line.event in names]

    def claim_is_whole(self) -> bool:
        """Every coupled CRM record of another id has a home that names its pair, by the same claim."""
        for erp_id, crm_id in self.pairs():
            home = self.rows[crm_id].home if crm_id in self.rows else None
            if erp_id != crm_id and (
                home is None or home.belongs_to != erp_id or home.claim != self.pair(erp_id).claim
            ):
                return False
        return True

    def again(self, home: str, *, last: int) -> Played:
        """The broker delivers the last messages of a home once more, in their order."""
        for work in self.log[home][-last:]:
            self.take(replace(work))
        return self.run()
