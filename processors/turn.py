"""One message at work on one row: what it leads to is collected here, then frozen into a step.

Pure. `processors/react.py` and `processors/homes.py` decide; this module knows how a command, an order, a dead letter
and a journal line are made, and that the same cause makes the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct, field
from msgspec.structs import replace

from processors.brakes import Brakes
from processors.coupling import (
    Fingerprints,
    side_of,
)
from processors.decide import (
    Issue,
)
from processors.lines import lines_of
from processors.mapping import EntityMapping, source_of, target_of
from processors.view import ReferenceView
from schemas.coupling import Emission, Hold, InFlight, KeptBack, Pair, Row, Side
from schemas.errors import MassUpdate, by_code
from schemas.records import (
    Command,
    CommandKind,
    DeadLetter,
    JournalLine,
    LetterState,
    Order,
    OrderKind,
    RecordRef,
    System,
    Value,
    Work,
    derived_id,
)
from schemas.topics import PAIRS_WORK


class World(Struct, frozen=True, kw_only=True):
    """What all homes of a decide process share."""

    mappings: Mapping[str, EntityMapping]
    view: ReferenceView
    prints: Fingerprints
    company_id: str = ""
    brakes: Brakes = field(default_factory=Brakes)


class Step(Struct, frozen=True, kw_only=True, gc=False):
    """What became of one message: the row to keep (None: forget it), then what to send, in this order."""

    row: Row | None
    command: Command | None = None
    works: tuple[Work, ...] = ()
    letters: tuple[DeadLetter, ...] = ()
    lines: tuple[JournalLine, ...] = ()
    stopped: str = ""  # the direction in which this would have been one write too many: its brake is to be put on


class Turn(Struct, gc=False):
    """One message at work on one row; what it leads to is collected and then frozen into a Step."""

    work: Work
    row: Row
    mapping: EntityMapping
    world: World
    now: datetime
    retry: bool = False
    use: str = ""
    is_let_through: bool = False  # a person saw how many records this writes
    command: Command | None = None
    works: list[Work] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    lines: list[JournalLine] = field(default_factory=list)
    quiet: bool = False  # nothing new: do not decide
    kept_back: dict[str, KeptBack] = field(default_factory=dict)  # direction -> what was due in this turn
    stopped: str = ""

    @property
    def pair(self) -> Pair:
        return self.row.pair or Pair()

    def line(
        self,
        event: str,
        ref: str,
        direction: str = "",
        *,
        reason: str = "",
        fields: tuple[str, ...] = (),
        command_id: str = "",
        cause_id: str = "",
        code: str = "",
    ) -> None:
        self.lines.append(
            JournalLine(
                line_id=derived_id("line", self.work.key, self.work.message_id, len(self.lines)),
                at=self.now,
                mapping=self.mapping.name,
                home=self.row.id,
                event=event,
                ref=ref,
                direction=direction,
                reason=reason,
                fields=fields,
                command_id=command_id,
                cause_id=cause_id or self.work.message_id,
                code=code,
            )
        )

    def ref(self, system: System, record_id: str) -> str:
        return str(RecordRef(system, str(self.mapping.entity_in(system)), record_id))

    def source_ref(self, direction: str) -> str:
        pair = self.pair
        system = source_of(direction) if direction in ("to_crm", "to_erp") else System.ERP
        side = side_of(pair, system) or side_of(pair, system.other)
        if side is None:
            return self.ref(System.ERP, self.row.id)
        return self.ref(system if side_of(pair, system) is not None else system.other, side.id)

    def send(self, home: str, order: Order) -> None:
        message_id = derived_id("work", self.work.key, self.work.message_id, order.order_id, order.kind.value, home)
        self.works.append(Work(message_id=message_id, mapping=self.mapping.name, home=home, order=order))

    @staticmethod
    def answer(order: Order, kind: OrderKind) -> Order:
        return Order(
            order_id=derived_id(order.order_id, kind.value),
            kind=kind,
            root_id=order.root_id or order.order_id,
            by=order.by,
            claim=order.claim,
            erp_id=order.erp_id,
            crm_id=order.crm_id,
            use=order.use,
            batch=order.batch,
            record=order.record,
        )

    def issue(self, pair: Pair, issue: Issue, *, purpose: str = "sync") -> None:
        """Put the command into the row, whole; it leaves once the row is durable.

        While a brake is on, or the system only observes, a look-up leaves and nothing else: it tells which write would
        follow.
        """
        direction = issue.direction
        counts = purpose == "sync" and self._counts(pair, issue)
        if issue.kind not in (CommandKind.MATCH, CommandKind.READ) and self._is_kept_back(pair, issue, counts=counts):
            return
        source, target = side_of(pair, source_of(direction)), side_of(pair, target_of(direction))
        names = tuple(sorted(issue.values))
        system = target_of(direction)
        known = target.state if target is not None else {}
        command = Command(
            command_id=derived_id("command", self.work.key, self.work.message_id, direction, issue.kind.value),
            mapping=self.mapping.name,
            home=self.row.id,
            kind=issue.kind,
            target=RecordRef(system, str(self.mapping.entity_in(system)), self.target_id(pair, issue)),
            values=issue.values,
            expected_version=target.version if target is not None and issue.kind is not CommandKind.MATCH else None,
            seen={name: known[name] for name in lines_of(self.mapping).fields[system] if name in known}
            if issue.kind is CommandKind.UPDATE
            else {},
            tests=issue.tests,
            within=lines_of(self.mapping).within[system],
            within_blank_or=self.within_company(system),
            cause_id=self.work.message_id,
            changed_at=self._changed_at(issue, source),
            issued_at=self.now,
        )
        flight = InFlight(
            command=command,
            direction=direction,
            source_fingerprints=self._source_prints(issue, source),
            purpose=purpose,
            sent_at=self.now,
        )
        updated = {**pair.updated, direction: self.now} if counts else pair.updated
        self.row = replace(self.row, pair=replace(pair, in_flight=flight, updated=updated))
        self.command = command
        self.line(
            "issued",
            str(command.target),
            direction,
            reason=issue.kind.value,
            fields=names,
            command_id=command.command_id,
        )

    def _counts(self, pair: Pair, issue: Issue) -> bool:
        """Whether the write changes a record that was in step, and nobody has let just this happen."""
        kept = pair.kept_back.get(issue.direction)
        first = lines_of(self.mapping).first
        if first is not None and set(issue.values) == {first.crm}:
            return False  # it goes with a record that was made, and overwrites nothing
        if pair.again and self._crm_names(issue) <= set(pair.again):
            return False  # other mapping files led to it; a person saw how many records they write
        return (
            pair.in_step
            and not self.is_let_through
            and issue.kind in (CommandKind.UPDATE, CommandKind.DELETE)
            and not self.world.brakes.was_let_through(
                self.mapping.name, issue.direction, kept.since if kept is not None else None
            )
        )

    def _crm_names(self, issue: Issue) -> set[str]:
        """The lines that are written, by their CRM names."""
        if issue.direction == "to_crm":
            return set(issue.values)
        return {crm for crm, erp in lines_of(self.mapping).names["to_erp"].items() if erp in issue.values}

    def _is_kept_back(self, pair: Pair, issue: Issue, *, counts: bool) -> bool:
        """Whether a brake keeps the write back; then it is noted, to be decided anew when the brake is off."""
        direction, brakes = issue.direction, self.world.brakes
        before = pair.kept_back.get(direction)
        brake = brakes.on(self.mapping.name, direction)
        reason, code = issue.kind.value, ""
        if brakes.observing:
            pass
        elif brake is not None:
            reason, code = f"{reason}, {brake.word}", brake.code
        elif counts and brakes.is_too_much(
            self.mapping.name,
            direction,
            self.row.id,
            coupled=self.world.view.coupled_count(self.mapping.name),
            now=self.now,
        ):
            self.stopped = direction
            reason, code = f"{reason}, stopped", MassUpdate.code
        else:
            return False
        names = tuple(sorted(issue.values))
        kept = KeptBack(since=before.since if before is not None else self.now, kind=issue.kind, fields=names)
        if self.kept_back.get(direction) != kept:  # an order that waits is looked at twice in a turn
            self.line("would-write", self.source_ref(direction), direction, reason=reason, fields=names, code=code)
        self.kept_back[direction] = kept
        return True

    def _changed_at(self, issue: Issue, source: Side | None) -> datetime | None:
        """When what is written was changed in the source; None where it was not changed just now (a replay)."""
        if source is None or issue.kind is CommandKind.CREATE:
            return source.modified_at if source is not None else None
        pairs = lines_of(self.mapping).names[issue.direction].items()
        touched = [source.touched[here] for here, there in pairs if there in issue.values and here in source.touched]
        return max(touched, default=None)

    def target_id(self, pair: Pair, issue: Issue) -> str:
        if issue.kind is CommandKind.MATCH:
            return ""
        target = side_of(pair, target_of(issue.direction))
        if target is not None:
            return target.id
        return (pair.create_as if issue.direction == "to_crm" else "") or self.row.id

    def within_company(self, system: System) -> dict[str, Value]:
        return dict.fromkeys(lines_of(self.mapping).stamps[system], self.world.view.company_crm_id)

    def _source_prints(self, issue: Issue, source: Side | None) -> dict[str, str]:
        """What the source holds in the lines that are written, for the agreement that follows from the reply."""
        prints: dict[str, str] = {}
        of, is_whole, to_crm = self.world.prints.of, issue.kind is CommandKind.CREATE, issue.direction == "to_crm"
        for line in lines_of(self.mapping).toward[issue.direction]:
            name, written = (line.erp, line.crm) if to_crm else (line.crm, line.erp)
            if not is_whole and written not in issue.values:
                continue
            if line.is_made:
                prints[name] = of(self.world.view.company_crm_id if line.field.company else None)
            elif source is not None and name in source.state:
                prints[name] = of(source.state[name])
        return prints

    def hold(
        self,
        pair: Pair,
        direction: str,
        code: str,
        *,
        missing: tuple[str, ...] = (),
        fields: tuple[str, ...] = (),
        detail: str = "",
    ) -> Pair:
        """The direction does not go on, and a dead letter says so: one per pair and direction, however often."""
        error = by_code(code)
        old = pair.holds.get(direction)
        orders = [side.order for side in (pair.erp, pair.crm) if side is not None]
        source = side_of(pair, source_of(direction)) if direction in ("to_crm", "to_erp") else None
        order = source.order if source is not None and not source.deleted else max(orders, default=0)
        hold = Hold(
            code=code,
            slug=error.slug,
            order=order,
            since=old.since if old is not None and old.letter_id else self.now,
            letter_id=(old.letter_id if old is not None else "")
            or derived_id("letter", self.work.key, direction, self.work.message_id),
            missing=missing,
            fields=fields,
            detail=detail,
        )
        same = old is not None and (old.slug, old.missing, old.fields, old.detail) == (
            error.slug,
            missing,
            fields,
            detail,
        )
        if old is not None and same and (old.letter_id or old.order == order):
            return replace(pair, holds={**pair.holds, direction: replace(old, order=order)})
        self.letters.append(self.letter(direction, hold, state=LetterState.OPEN))
        self.line(
            "dead-letter",
            self.source_ref(direction),
            direction,
            reason=f"{error.slug} {missing[0]}" if missing else error.slug,
            fields=fields,
            code=code,
        )
        return replace(pair, holds={**pair.holds, direction: hold})

    def release(self, pair: Pair, direction: str, *, reason: str) -> Pair:
        """What held the direction is over; its letter is closed."""
        hold = pair.holds.get(direction)
        if hold is None:
            return pair
        if hold.letter_id:
            self.letters.append(self.letter(direction, hold, state=LetterState.CLOSED, by=reason))
            self.line("letter-closed", self.source_ref(direction), direction, reason=reason, code=hold.code)
        return replace(pair, holds={name: kept for name, kept in pair.holds.items() if name != direction})

    def release_all(self, pair: Pair, *, reason: str) -> Pair:
        for direction in tuple(pair.holds):
            pair = self.release(pair, direction, reason=reason)
        return pair

    def letter(self, direction: str, hold: Hold, *, state: LetterState, by: str = "") -> DeadLetter:
        what = hold.missing[0] if hold.missing else hold.detail
        return DeadLetter(
            letter_id=hold.letter_id,
            code=hold.code,
            slug=hold.slug,
            mapping=self.mapping.name,
            home=self.row.id,
            ref=self.source_ref(direction),
            direction=direction,
            missing=hold.missing[0] if hold.missing else "",
            cause=f"{hold.slug} {what}".strip(),
            detail=hold.detail,
            fields=hold.fields,
            state=state,
            opened_at=hold.since,
            changed_at=self.now,
            changed_by=by,
            topic=PAIRS_WORK,
            next_step=by_code(hold.code).next_step,
        )

    def step(self) -> Step:
        """Freeze what was collected; the row remembers it, for the case that the message comes again."""
        works, letters, lines = tuple(self.works), tuple(self.letters), tuple(self.lines)
        if self.row.is_empty and not works and not letters:
            return Step(row=None, lines=lines)  # else it is kept until its next message: this one may come again
        last = Emission(
            cause_id=self.work.message_id,
            works=works,
            letters=letters,
            lines=lines,
            with_command=self.command is not None,
        )
        return Step(
            row=replace(self.row, last=last),
            command=self.command,
            works=works,
            letters=letters,
            lines=lines,
            stopped=self.stopped,
        )
