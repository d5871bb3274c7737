"""What one message means for one home: the row after it, and everything that is to be sent because of it.

Pure. `react` is the whole of what a decide process does with a message; its shell only loads the row, stores it and
sends. The same message may come again at any time: the row remembers what its last message made it send, and sends
just that again; an older message finds a row that knows better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from processors.coupling import (
    Absorbed,
    Fingerprints,
    absorb_event,
    absorb_outcome,
    forget_agreement,
    observed_from,
    side_from,
    side_of,
    with_side,
)
from processors.decide import (
    Claim,
    Context,
    Decision,
    Issue,
    Park,
    Reject,
    Settle,
    Skip,
    Wait,
    decide,
    free_candidates,
    match_tests,
    test_print,
)
from processors.mapping import Direction, EntityMapping, source_of, target_of
from processors.view import ReferenceView
from schemas.coupling import Emission, Hold, Home, InFlight, Matched, Pair, PairState, Row, Side
from schemas.errors import AlreadyCoupled, by_code
from schemas.records import (
    ChangeEvent,
    Command,
    CommandKind,
    DeadLetter,
    JournalLine,
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
from schemas.topics import PAIRS_WORK

MAX_HOPS = 6  # two homes that settle a claim hand a change on once or twice


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What all homes of a decide process share."""

    mappings: Mapping[str, EntityMapping]
    view: ReferenceView
    prints: Fingerprints
    company_id: str = ""
    observe: bool = False  # decide and journal, write nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What became of one message: the row to keep (None: forget it), then what to send, in this order."""

    row: Row | None
    command: Command | None = None
    works: tuple[Work, ...] = ()
    letters: tuple[DeadLetter, ...] = ()
    lines: tuple[JournalLine, ...] = ()


def react(work: Work, row: Row | None, world: World, *, now: datetime) -> Step:
    """The step that `work` makes of `row`.

    Raises KeyError when the mapping of the message is not known.
    """
    mapping = world.mappings[work.mapping]
    row = row or Row(mapping=work.mapping, id=work.home)
    if row.last.cause_id == work.message_id:
        return _again(row)
    turn = _Turn(work, row, mapping, world, now)
    if work.change is not None:
        turn.take_change(work.change)
    elif work.outcome is not None:
        turn.take_outcome(work.outcome)
    elif work.order is not None:
        turn.take_order(work.order)
    turn.settle()
    return turn.step()


def _again(row: Row) -> Step:
    """The message came again: send what it made the row send, and nothing else."""
    flight = row.pair.in_flight if row.pair is not None else None
    return Step(
        row=row,
        command=flight.command if flight is not None and row.last.with_command else None,
        works=row.last.works,
        letters=row.last.letters,
        lines=row.last.lines,
    )


@dataclass(slots=True)
class _Turn:
    """One message at work on one row; what it leads to is collected and then frozen into a Step."""

    work: Work
    row: Row
    mapping: EntityMapping
    world: World
    now: datetime
    retry: bool = False
    use: str = ""
    command: Command | None = None
    works: list[Work] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    lines: list[JournalLine] = field(default_factory=list)
    quiet: bool = False  # nothing new: do not decide

    # --- messages ---------------------------------------------------------------------------------------------

    def take_change(self, event: ChangeEvent) -> None:
        if event.ref.system is System.CRM and not self._own_record(event):
            return
        pair = self.row.pair or Pair()
        before = side_of(pair, event.ref.system)
        side, absorbed = absorb_event(before, event, self.world.prints)
        if absorbed in (Absorbed.STALE, Absorbed.ECHO):
            self._line("skipped", str(event.ref), reason=absorbed.value)
            self.quiet = True
            return
        if absorbed is Absorbed.DELETED:
            self._line("deleted", str(event.ref))
            if before is None:
                self.quiet = True  # deleted before we ever saw it
                return
        self.row = replace(self.row, pair=with_side(pair, event.ref.system, side))

    def _own_record(self, event: ChangeEvent) -> bool:
        """Whether the CRM record is this home's own to decide on; otherwise it is handed to the pair it belongs to."""
        home, pair, record = self.row.home, self.row.pair, event.ref.id
        if record != self.row.id:
            if pair is not None and pair.crm is not None and pair.crm.id == record:
                return True
            self.quiet = True
            if not self._keep_for_claim(event):
                self._forward(event, record)  # it was given back while this change was on its way here
            return False
        if home is None or home.belongs_to == self.row.id:
            return True
        self.quiet = True
        if home.belongs_to:
            self._forward(event, home.belongs_to)
            return False
        side, absorbed = absorb_event(home.evicted, event, self.world.prints)
        self.row = replace(self.row, home=replace(home, evicted=side))
        reason = "uncoupled-by-hand" if absorbed is Absorbed.NEWS else absorbed.value
        self._line("skipped", str(event.ref), reason=reason)
        return False

    def _keep_for_claim(self, event: ChangeEvent) -> bool:
        """A change of a CRM record whose claim waits here goes into the claim."""
        for number, order in enumerate(self.row.deferred):
            if order.kind is OrderKind.CLAIMED and order.crm_id == event.ref.id and order.record is not None:
                side, _ = absorb_event(side_from(order.record), event, self.world.prints)
                kept = replace(order, record=observed_from(side))
                deferred = (*self.row.deferred[:number], kept, *self.row.deferred[number + 1 :])
                self.row = replace(self.row, deferred=deferred)
                return True
        return False

    def _forward(self, event: ChangeEvent, home: str) -> None:
        if self.work.hops >= MAX_HOPS:
            self.letters.append(self._homes_disagree())
            return
        self.works.append(
            Work(
                message_id=f"{event.event_id}:{self.work.hops + 1}",
                mapping=self.mapping.name,
                home=home,
                hops=self.work.hops + 1,
                change=event,
            )
        )

    def _homes_disagree(self) -> DeadLetter:
        """Two rows that each name the other: nothing decides for the record, so a person must."""
        hold = Hold(
            code=AlreadyCoupled.code,
            slug=AlreadyCoupled.slug,
            order=0,
            since=self.now,
            letter_id=derived_id("letter", self.work.key, "homes", self.work.message_id),
            detail="two homes name each other as the owner of this record",
        )
        return self._letter("to_erp", hold, state=LetterState.OPEN)

    def take_outcome(self, outcome: Outcome) -> None:
        pair = self.row.pair
        flight = pair.in_flight if pair is not None else None
        if pair is None or flight is None or flight.command.command_id != outcome.command_id:
            self._line("ignored", str(outcome.target), reason="answers-no-command", command_id=outcome.command_id)
            self.quiet = True
            return
        pair = absorb_outcome(pair, outcome, self.mapping, self.world.prints)
        command, direction = flight.command, flight.direction
        target = target_of(direction)
        if outcome.status is OutcomeStatus.REJECTED:
            pair = self._hold(pair, direction, outcome.code, detail=outcome.detail)
            if flight.purpose == "uncouple":
                self.row = replace(self.row, deferred=())
        elif outcome.status is OutcomeStatus.MATCHED:
            found = tuple(candidate.id for candidate in outcome.candidates)
            pair = replace(pair, matched=Matched(test=test_print(command.tests, self.world.prints), candidates=found))
            self._line("matched", command.home, direction, reason=f"{len(found)} found", command_id=command.command_id)
        elif outcome.status in (OutcomeStatus.MISSING, OutcomeStatus.DELETED):
            side = side_of(pair, target)
            if side is not None:
                gone = replace(side, deleted=True, order=side.order + 1, version=f"deleted:{side.order + 1}")
                pair = with_side(pair, target, gone)
        elif command.kind is CommandKind.CREATE:
            pair = replace(pair, state=PairState.COUPLED, coupled_at=self.now, matched=None)
            self._line("coupled", str(outcome.target), direction, reason="created", command_id=command.command_id)
        if outcome.status in (OutcomeStatus.WRITTEN, OutcomeStatus.OBSERVED, OutcomeStatus.DELETED):
            pair = self._release(pair, direction, reason="succeeded")
        self.row = replace(self.row, pair=pair)

    def take_order(self, order: Order) -> None:
        if order.kind is OrderKind.RESEND:
            self._resend()
            return
        if not self._handle(order):
            self.row = replace(self.row, deferred=(*self.row.deferred, order))

    def _resend(self) -> None:
        pair = self.row.pair
        self.quiet = True
        if pair is None or pair.in_flight is None:
            return
        flight = replace(pair.in_flight, sends=pair.in_flight.sends + 1, sent_at=self.now)
        self.row = replace(self.row, pair=replace(pair, in_flight=flight))
        self.command = flight.command
        target = str(flight.command.target)
        self._line("resent", target, flight.direction, command_id=flight.command.command_id)

    # --- orders: False means "not now", the order waits for the command in flight ----------------------------------

    def _handle(self, order: Order) -> bool:
        handlers = {
            OrderKind.COUPLE: self._couple,
            OrderKind.CLAIMED: self._claimed,
            OrderKind.REFUSED: self._refused,
            OrderKind.GIVE_BACK: self._given_back,
            OrderKind.ADOPT: self._adopt,
            OrderKind.UNCOUPLE: self._uncouple,
            OrderKind.RETRY: self._retry,
            OrderKind.CLOSE: self._close,
        }
        return handlers[order.kind](order)

    @property
    def _pair(self) -> Pair:
        return self.row.pair or Pair()

    def _couple(self, order: Order) -> bool:
        """At the CRM record's home: the claim of `erp_id` is granted once, or refused with its holder."""
        home = self.row.home or Home(belongs_to=self.row.id)
        if home.evicted is not None:
            self._grant(order, home.evicted)
            return True
        if home.belongs_to != self.row.id:
            if home.belongs_to == order.erp_id:
                self._send(order.erp_id, replace(self._answer(order, OrderKind.CLAIMED), claim=home.claim))
            else:
                self._refuse(order, "taken", holder=home.belongs_to)
            return True
        pair = self._pair
        if pair.in_flight is not None:
            return False
        if order.erp_id == self.row.id:
            return self._couple_same_id(order, pair)
        if order.by == "restore":
            self._reserve(order)
            return True
        side = pair.crm or (side_from(order.record) if order.record is not None else None)
        if side is None or side.deleted:
            self._refuse(order, "unknown")
            return True
        if pair.state is PairState.COUPLED and pair.crm is not None:
            self._refuse(order, "taken", holder=self.row.id)
            return True
        if order.by == "match" and pair.state is PairState.UNCOUPLED:
            self._refuse(order, "no-match")
            return True
        if order.by != "match":
            self._grant(order, side)
            return True
        if pair.crm is None:
            # Capture has not brought it yet; what the match saw will do.
            pair = replace(pair, crm=side) if pair.erp is None else pair
            self.row = replace(self.row, pair=pair)
            if pair.crm is None:
                self._grant(order, side)
                return True
        verdict = self._verify(pair, "to_erp", order.erp_id)
        if verdict == "look":
            return False
        if verdict == "yes":
            self._grant(order, side)
        else:
            self._refuse(order, verdict)
        return True

    def _couple_same_id(self, order: Order, pair: Pair) -> bool:
        """Both records have one id, and so one home: no claim is needed."""
        if pair.crm is None and order.record is not None:
            pair = replace(pair, crm=side_from(order.record))
        if pair.state is PairState.COUPLED:
            if pair.crm is None or pair.crm.id != self.row.id:
                self._refuse(order, "taken", holder=self.row.id)
            return True
        if pair.erp is None or pair.crm is None:
            self._refuse(order, "unknown")
            return True
        self._join(pair, pair.crm, order)
        return True

    def _grant(self, order: Order, side: Side) -> None:
        pair = self.row.pair
        if pair is not None:
            pair = self._release_all(pair, reason="coupled-elsewhere")
            pair = replace(pair, crm=None, matched=None) if pair.erp is not None else None
        self.row = replace(self.row, pair=pair, home=Home(belongs_to=order.erp_id, claim=order.order_id))
        answer = replace(self._answer(order, OrderKind.CLAIMED), record=observed_from(side), claim=order.order_id)
        self._send(order.erp_id, answer)
        self._line("claim-granted", self._ref(System.CRM, order.crm_id), reason=f"to {order.erp_id}")

    def _reserve(self, order: Order) -> None:
        """A CRM record that does not exist yet belongs to this pair from now on."""
        self.row = replace(self.row, home=Home(belongs_to=order.erp_id, claim=order.order_id))
        self._send(order.erp_id, replace(self._answer(order, OrderKind.CLAIMED), claim=order.order_id))

    def _refuse(self, order: Order, reason: str, *, holder: str = "") -> None:
        answer = replace(self._answer(order, OrderKind.REFUSED), reason=reason, holder=holder)
        self._send(order.erp_id, answer)
        self._line(
            "claim-refused",
            self._ref(System.CRM, order.crm_id),
            reason=reason,
            cause_id=order.root_id or order.order_id,
        )

    def _verify(self, pair: Pair, direction: Direction, wanted: str) -> str:
        """Whether the match is one in this direction too: `yes`, `ambiguous`, `no-match`, or `look` (a look-up is
        under way now).
        """
        side = side_of(pair, source_of(direction))
        assert side is not None
        tests = match_tests(side, self.mapping, direction, self.world.view)
        test = test_print(tests, self.world.prints)
        if not tests:
            return "no-match"
        if pair.matched is None or pair.matched.test != test:
            self._issue(pair, Issue(direction=direction, kind=CommandKind.MATCH, tests=tests), purpose="verify")
            return "look"
        free = free_candidates(pair.matched, self.mapping, direction, self.world.view)
        if pair.matched.ambiguous or (wanted in free and len(pair.matched.candidates) > 1):
            return "ambiguous"
        return "yes" if wanted in pair.matched.candidates else "no-match"

    def _claimed(self, order: Order) -> bool:
        """At the ERP record's home: the CRM record is ours to couple with, if we still can and want to."""
        pair = self._pair
        if pair.state is PairState.COUPLED:
            if pair.crm is None or pair.crm.id != order.crm_id:
                self._give_back(order, "taken")
            return True
        if pair.in_flight is not None:
            return False
        if order.by == "restore":
            if pair.claiming == order.crm_id:
                fresh = replace(pair, state=PairState.SINGLE, claiming="", create_as=order.crm_id, claim=order.claim)
                self.row = replace(self.row, pair=fresh)
            return True
        if order.record is None:
            self._give_back(order, "unknown")
            return True
        side = side_from(order.record)
        if pair.state is PairState.CLAIMING:
            if order.by != "match" and pair.claiming != order.crm_id:
                return False
            if pair.claiming != order.crm_id:
                self._give_back(order, "no-match")
            else:
                self._join(pair, side, order)
            return True
        if pair.erp is None or pair.erp.deleted:
            if order.by == "match" and pair.erp is None and not self.retry:
                return False  # the match saw a record that capture has not brought yet
            self._give_back(order, "unknown")
            return True
        if order.by != "match":
            self._join(pair, side, order)
            return True
        if pair.state is PairState.UNCOUPLED:
            self._give_back(order, "no-match")
            return True
        verdict = self._verify(pair, "to_crm", order.crm_id)
        if verdict == "look":
            return False
        if verdict == "yes":
            self._join(pair, side, order)
        else:
            if verdict == "ambiguous" and pair.matched is not None:
                self.row = replace(self.row, pair=replace(pair, matched=replace(pair.matched, ambiguous=True)))
            self._give_back(order, verdict)
        return True

    def _join(self, pair: Pair, side: Side, order: Order) -> None:
        """From here on the two are coupled; whose values stand is decided next."""
        home = self.row.home
        if pair.crm is not None and pair.crm.id != side.id:
            home = Home(belongs_to="", evicted=replace(pair.crm, base={}, forms={}))
        pair = self._release_all(pair, reason="coupled")
        pair = forget_agreement(replace(pair, crm=side))
        pair = replace(
            pair,
            state=PairState.COUPLED,
            coupled_at=self.now,
            first_use=order.use,
            matched=None,
            claiming="",
            claim=order.claim,
            key_id=self.world.prints.key_id,
        )
        self.row = replace(self.row, pair=pair, home=home)
        self._line(
            "coupled",
            self._ref(System.ERP, self.row.id),
            reason=f"with {self._ref(System.CRM, side.id)} by {order.by or 'order'}",
            cause_id=order.root_id or order.order_id,
        )

    def _refused(self, order: Order) -> bool:
        pair = self._pair
        if pair.state is PairState.CLAIMING and pair.claiming == order.crm_id:
            matched = pair.matched or Matched(test="", candidates=(order.crm_id,))
            if order.reason == "ambiguous":
                matched = replace(matched, ambiguous=True)
            else:
                matched = replace(matched, ruled_out=(*matched.ruled_out, order.crm_id))
            self.row = replace(self.row, pair=replace(pair, state=PairState.SINGLE, claiming="", matched=matched))
        return True

    def _give_back(self, order: Order, reason: str, *, record: Side | None = None) -> None:
        answer = replace(
            self._answer(order, OrderKind.GIVE_BACK),
            reason=reason,
            record=observed_from(record) if record is not None else order.record,
        )
        self._send(order.crm_id, answer)
        self._line(
            "given-back", self._ref(System.CRM, order.crm_id), reason=reason, cause_id=order.root_id or order.order_id
        )

    def _given_back(self, order: Order) -> bool:
        """At the CRM record's home: it is on its own again, or goes to the home that restores its partner."""
        home = self.row.home
        if home is None or home.belongs_to != order.erp_id or home.claim != order.claim:
            if order.record is not None:
                self.take_change(self._as_change(order.crm_id, order.record))  # it may have seen more than we did
            return True
        if order.record is None:
            self.row = replace(self.row, home=None)
            return True
        if order.reason == "restore":
            self.row = replace(self.row, home=Home(belongs_to=order.holder))
            self._send(order.holder, replace(self._answer(order, OrderKind.ADOPT), erp_id=order.holder))
            return True
        side = side_from(order.record)
        if self.row.pair is not None:
            self.row = replace(self.row, home=Home(belongs_to="", evicted=side))
            return True
        state = PairState.UNCOUPLED if order.reason == "uncoupled" else PairState.SINGLE
        matched = Matched(
            test=self._test_of(side, "to_erp"),
            candidates=(order.erp_id,),
            ruled_out=() if order.reason == "ambiguous" else (order.erp_id,),
            ambiguous=order.reason == "ambiguous",
        )
        self.row = replace(self.row, home=None, pair=Pair(state=state, crm=side, matched=matched))
        return True

    def _as_change(self, record_id: str, record: Observed) -> ChangeEvent:
        ref = RecordRef(System.CRM, str(self.mapping.crm), record_id)
        return ChangeEvent(
            event_id=derived_id("event", ref, record.version),
            ref=ref,
            operation=Operation.CHANGE,
            version=record.version,
            order=record.order,
            modified_at=record.modified_at,
            captured_at=self.now,
            after=record.state,
        )

    def _test_of(self, side: Side, direction: Direction) -> str:
        """The look-up that these values would lead to, as `Matched.test` names it."""
        return test_print(match_tests(side, self.mapping, direction, self.world.view), self.world.prints)

    def _adopt(self, order: Order) -> bool:
        """At a home without a record: an ERP record is made here for this CRM record."""
        if self.row.pair is None and order.record is not None:
            side = side_from(order.record)
            self.row = replace(self.row, pair=Pair(crm=side, matched=Matched(test=self._test_of(side, "to_erp"))))
        return True

    def _uncouple(self, order: Order) -> bool:
        """R115-R119: the company stamp is taken off the CRM record, then the two are on their own."""
        pair = self._pair
        if pair.in_flight is not None or pair.state is PairState.CLAIMING:
            return False
        if pair.state is not PairState.COUPLED:
            self._line(
                "uncoupled", self._ref(System.ERP, self.row.id), reason="was-not-coupled", cause_id=order.order_id
            )
            return True
        stamp = next((line for line in self.mapping.fields if line.company and line.enabled), None)
        crm = pair.crm
        ours = self.world.view.company_crm_id
        if stamp is not None and crm is not None and not crm.deleted and ours and crm.state.get(str(stamp.crm)) == ours:
            blank: dict[str, Value] = {str(stamp.crm): None}
            self._issue(pair, Issue(direction="to_crm", kind=CommandKind.UPDATE, values=blank), purpose="uncouple")
            return self.world.observe
        self._part(pair, order)
        return True

    def _part(self, pair: Pair, order: Order) -> None:
        pair = forget_agreement(self._release_all(pair, reason="uncoupled"))
        crm = pair.crm
        pair = replace(pair, state=PairState.UNCOUPLED, coupled_at=None, first_use="", soft_missing=(), matched=None)
        if crm is not None and crm.id != self.row.id:
            pair = replace(pair, crm=None)
            self._give_back(
                replace(order, crm_id=crm.id, erp_id=self.row.id, claim=pair.claim),
                "uncoupled",
                record=None if crm.deleted else crm,
            )
        elif crm is not None and crm.deleted:
            pair = replace(pair, crm=None)
        if pair.erp is not None and pair.erp.deleted:
            pair = replace(pair, erp=None)
        self.row = replace(self.row, pair=pair if pair.erp or pair.crm else None)
        self._line("uncoupled", self._ref(System.ERP, self.row.id), reason=order.by, cause_id=order.order_id)

    def _retry(self, order: Order) -> bool:
        pair = self._pair
        if pair.in_flight is not None:
            return False
        self.retry = True
        self.use = order.use
        if pair.state is not PairState.COUPLED and pair.matched is not None and pair.state is not PairState.CLAIMING:
            self.row = replace(self.row, pair=replace(pair, matched=None)) if self.row.pair else self.row
        return True

    def _close(self, order: Order) -> bool:
        """A person gives a letter up; what it was about stays held until its record changes."""
        self.quiet = True
        pair = self.row.pair
        for direction, hold in (pair.holds if pair is not None else {}).items():
            if hold.letter_id == order.letter_id:
                assert pair is not None
                self.letters.append(self._letter(direction, hold, state=LetterState.DISCARDED, by=order.by))
                holds = {**pair.holds, direction: replace(hold, letter_id="")}
                self.row = replace(self.row, pair=replace(pair, holds=holds))
                break
        return True

    # --- after the message ----------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Take up what was waiting, then decide."""
        if self.quiet and not self.row.deferred:
            return
        waiting, self.row = self.row.deferred, replace(self.row, deferred=())
        for order in waiting:
            if not self._handle(order):
                self.row = replace(self.row, deferred=(*self.row.deferred, order))
        self._forget_the_deleted()
        pair = self.row.pair
        if pair is None:
            return
        if pair.state is PairState.SINGLE and pair.in_flight is None and self._same_id(pair):
            # Both bear one id: Drawbar made one of them from the other.
            assert pair.crm is not None
            self._join(pair, pair.crm, Order(order_id=self.work.message_id, kind=OrderKind.COUPLE, by="same id"))
            pair = self._pair
        context = Context(prints=self.world.prints, company_id=self.world.company_id, retry=self.retry, use=self.use)
        decided = decide(pair, self.mapping, self.world.view, context)
        self.row = replace(
            self.row, pair=replace(decided.pair, soft_missing=tuple(dict.fromkeys(decided.soft_missing)))
        )
        for decision in decided.decisions:
            self._act(decision)
        conflicted = any(
            isinstance(decision, Reject) and decision.direction == "conflict" for decision in decided.decisions
        )
        if self.row.pair is not None and not conflicted and not isinstance(decided.decisions[0], Park):
            self.row = replace(self.row, pair=self._release(self._pair, "conflict", reason="resolved"))

    def _forget_the_deleted(self) -> None:
        """A record that is on its own and deleted leaves nothing to decide."""
        pair = self.row.pair
        if pair is None or pair.in_flight is not None or pair.state not in (PairState.SINGLE, PairState.UNCOUPLED):
            return
        kept = replace(
            pair,
            erp=None if pair.erp is not None and pair.erp.deleted else pair.erp,
            crm=None if pair.crm is not None and pair.crm.deleted else pair.crm,
        )
        if kept != pair:
            kept = self._release_all(kept, reason="deleted")
        self.row = replace(self.row, pair=kept if kept.erp is not None or kept.crm is not None else None)

    @staticmethod
    def _same_id(pair: Pair) -> bool:
        erp, crm = pair.erp, pair.crm
        return erp is not None and crm is not None and not erp.deleted and not crm.deleted and erp.id == crm.id

    def _act(self, decision: Decision) -> None:
        pair = self._pair
        match decision:
            case Park():
                self._line("parked", self._ref(System.ERP, self.row.id), reason="command-under-way")
            case Skip(direction=direction, reason=reason, fields=names):
                if reason in ("unchanged", "outside-filter"):
                    pair = self._release(pair, direction, reason=reason)
                self.row = replace(self.row, pair=pair)
                self._line("skipped", self._source_ref(direction), direction, reason=reason, fields=names)
            case Wait(direction=direction, error=error, missing=missing, fields=names):
                self.row = replace(
                    self.row, pair=self._hold(pair, direction, error.code, missing=missing, fields=names)
                )
            case Reject(direction=direction, error=error, missing=missing, fields=names, detail=detail):
                held = self._hold(pair, direction, error.code, missing=missing, fields=names, detail=detail)
                self.row = replace(self.row, pair=held)
            case Claim(direction=direction, candidate=candidate):
                self._claim(pair, direction, candidate)
            case Settle(how=how):
                self._settle_deleted(pair, how)
            case Issue(direction=direction, kind=kind):
                if pair.in_flight is None and kind is CommandKind.CREATE and self._crm_id_is_taken(pair, direction):
                    self._reserve_crm_id(pair)
                elif pair.in_flight is None:
                    self._issue(pair, decision)
                else:
                    self._line("parked", self._source_ref(direction), direction, reason="other-direction-first")

    def _claim(self, pair: Pair, direction: str, candidate: str) -> None:
        order_id = derived_id("claim", self.work.key, self.work.message_id, candidate)
        if direction == "to_crm":
            order = Order(order_id=order_id, kind=OrderKind.COUPLE, by="match", erp_id=self.row.id, crm_id=candidate)
            self.row = replace(self.row, pair=replace(pair, state=PairState.CLAIMING, claiming=candidate))
            self._send(candidate, order)
            self._line("claims", self._ref(System.CRM, candidate), direction)
            return
        crm = pair.crm
        assert crm is not None
        order = Order(order_id=order_id, kind=OrderKind.COUPLE, by="match", erp_id=candidate, crm_id=crm.id)
        self._grant(order, crm)

    def _settle_deleted(self, pair: Pair, how: str) -> None:
        order = Order(order_id=self.work.message_id, kind=OrderKind.UNCOUPLE, by=f"deletes: {how}")
        if how == "dissolve":
            self._release_all(pair, reason="both-deleted")
            if pair.crm is not None and pair.crm.id != self.row.id:
                self._give_back(replace(order, crm_id=pair.crm.id, erp_id=self.row.id, claim=pair.claim), "deleted")
            self.row = replace(self.row, pair=None)
            self._line("uncoupled", self._ref(System.ERP, self.row.id), reason="both-deleted")
        elif how == "uncouple":
            self._part(pair, order)
        elif pair.crm is None or pair.crm.deleted:
            self._restore_in_crm(pair)
        else:
            self._restore_in_erp(pair)

    def _restore_in_crm(self, pair: Pair) -> None:
        """A restored record takes a new id."""
        pair = forget_agreement(replace(self._release_all(pair, reason="restored"), crm=None))
        assert pair.erp is not None
        matched = Matched(test=self._test_of(pair.erp, "to_crm"))
        self._reserve_crm_id(replace(pair, coupled_at=None, matched=matched))
        self._line("restores", self._ref(System.CRM, self._pair.claiming), "to_crm", reason="counterpart-deleted")

    def _crm_id_is_taken(self, pair: Pair, direction: str) -> bool:
        """The CRM record of our own id belongs to another pair, or to none by hand."""
        home = self.row.home
        return direction == "to_crm" and not pair.create_as and home is not None and home.belongs_to != self.row.id

    def _reserve_crm_id(self, pair: Pair) -> None:
        """Have a new id for a CRM record: its home must know its pair before the record is made."""
        fresh = derived_id("fresh", self.work.key, self.work.message_id)
        order = Order(
            order_id=derived_id("reserve", fresh), kind=OrderKind.COUPLE, by="restore", erp_id=self.row.id, crm_id=fresh
        )
        self.row = replace(self.row, pair=replace(pair, state=PairState.CLAIMING, claiming=fresh))
        self._send(fresh, order)

    def _restore_in_erp(self, pair: Pair) -> None:
        """The new ERP record gets a home of its own, which takes the CRM record over."""
        fresh = derived_id("restore", self.work.key, self.work.message_id)
        self._release_all(pair, reason="restored")
        crm = pair.crm
        assert crm is not None
        record = observed_from(crm)
        order = Order(
            order_id=derived_id("adopt", fresh), kind=OrderKind.ADOPT, by="restore", crm_id=crm.id, record=record
        )
        self.row = replace(self.row, pair=None)
        if crm.id == self.row.id:
            self.row = replace(self.row, home=Home(belongs_to=fresh))
            self._send(fresh, replace(order, erp_id=fresh))
        else:
            back = replace(
                order, kind=OrderKind.GIVE_BACK, erp_id=self.row.id, claim=pair.claim, reason="restore", holder=fresh
            )
            self._send(crm.id, back)
        self._line("restores", self._ref(System.ERP, fresh), "to_erp", reason="counterpart-deleted")

    # --- what is collected ----------------------------------------------------------------------------------------

    def _issue(self, pair: Pair, issue: Issue, *, purpose: str = "sync") -> None:
        """Put the command into the row, whole; it leaves once the row is durable."""
        direction = issue.direction
        source, target = side_of(pair, source_of(direction)), side_of(pair, target_of(direction))
        names = tuple(sorted(issue.values))
        if self.world.observe:
            self.row = replace(self.row, pair=replace(pair, observed_only=True))
            self._line("would-write", self._source_ref(direction), direction, reason=issue.kind.value, fields=names)
            return
        system = target_of(direction)
        known = target.state if target is not None else {}
        command = Command(
            command_id=derived_id("command", self.work.key, self.work.message_id, direction, issue.kind.value),
            mapping=self.mapping.name,
            home=self.row.id,
            kind=issue.kind,
            target=RecordRef(system, str(self.mapping.entity_in(system)), self._target_id(pair, issue)),
            values=issue.values,
            expected_version=target.version if target is not None and issue.kind is not CommandKind.MATCH else None,
            seen={name: known[name] for name in self.mapping.targets(system) if name in known}
            if issue.kind is CommandKind.UPDATE
            else {},
            tests=issue.tests,
            within=self._within(system),
            within_blank_or=self._within_company(system),
            cause_id=self.work.message_id,
            changed_at=source.modified_at if source is not None else None,
            issued_at=self.now,
        )
        flight = InFlight(
            command=command,
            direction=direction,
            source_fingerprints=self._source_prints(direction, source),
            purpose=purpose,
            sent_at=self.now,
        )
        self.row = replace(self.row, pair=replace(pair, in_flight=flight, observed_only=False))
        self.command = command
        self._line(
            "issued",
            str(command.target),
            direction,
            reason=issue.kind.value,
            fields=names,
            command_id=command.command_id,
        )

    def _target_id(self, pair: Pair, issue: Issue) -> str:
        if issue.kind is CommandKind.MATCH:
            return ""
        target = side_of(pair, target_of(issue.direction))
        if target is not None:
            return target.id
        return (pair.create_as if issue.direction == "to_crm" else "") or self.row.id

    def _within(self, system: System) -> dict[str, Value]:
        return {
            condition.field: condition.equals for condition in self.mapping.conditions(system) if not condition.company
        }

    def _within_company(self, system: System) -> dict[str, Value]:
        ours = self.world.view.company_crm_id
        return {condition.field: ours for condition in self.mapping.conditions(system) if condition.company}

    def _source_prints(self, direction: str, source: Side | None) -> dict[str, str]:
        prints: dict[str, str] = {}
        system = source_of(direction)
        for line in self.mapping.lines(direction):
            name = line.name_in(system)
            if line.company:
                prints[name] = self.world.prints.of(self.world.view.company_crm_id)
            elif source is not None and name in source.state:
                prints[name] = self.world.prints.of(source.state[name])
        return prints

    def _hold(
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
        self.letters.append(self._letter(direction, hold, state=LetterState.OPEN))
        self._line(
            "dead-letter",
            self._source_ref(direction),
            direction,
            reason=f"{error.slug} {missing[0]}" if missing else error.slug,
            fields=fields,
            code=code,
        )
        return replace(pair, holds={**pair.holds, direction: hold})

    def _release(self, pair: Pair, direction: str, *, reason: str) -> Pair:
        """What held the direction is over; its letter is closed."""
        hold = pair.holds.get(direction)
        if hold is None:
            return pair
        if hold.letter_id:
            self.letters.append(self._letter(direction, hold, state=LetterState.CLOSED, by=reason))
            self._line("letter-closed", self._source_ref(direction), direction, reason=reason, code=hold.code)
        return replace(pair, holds={name: kept for name, kept in pair.holds.items() if name != direction})

    def _release_all(self, pair: Pair, *, reason: str) -> Pair:
        for direction in tuple(pair.holds):
            pair = self._release(pair, direction, reason=reason)
        return pair

    def _letter(self, direction: str, hold: Hold, *, state: LetterState, by: str = "") -> DeadLetter:
        what = hold.missing[0] if hold.missing else hold.detail
        return DeadLetter(
            letter_id=hold.letter_id,
            code=hold.code,
            slug=hold.slug,
            mapping=self.mapping.name,
            home=self.row.id,
            ref=self._source_ref(direction),
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

    def _send(self, home: str, order: Order) -> None:
        message_id = derived_id("work", self.work.key, self.work.message_id, order.order_id, order.kind.value, home)
        self.works.append(Work(message_id=message_id, mapping=self.mapping.name, home=home, order=order))

    @staticmethod
    def _answer(order: Order, kind: OrderKind) -> Order:
        return Order(
            order_id=derived_id(order.order_id, kind.value),
            kind=kind,
            root_id=order.root_id or order.order_id,
            by=order.by,
            claim=order.claim,
            erp_id=order.erp_id,
            crm_id=order.crm_id,
            use=order.use,
            record=order.record,
        )

    def _ref(self, system: System, record_id: str) -> str:
        return str(RecordRef(system, str(self.mapping.entity_in(system)), record_id))

    def _source_ref(self, direction: str) -> str:
        pair = self._pair
        system = source_of(direction) if direction in ("to_crm", "to_erp") else System.ERP
        side = side_of(pair, system) or side_of(pair, system.other)
        if side is None:
            return self._ref(System.ERP, self.row.id)
        return self._ref(system if side_of(pair, system) is not None else system.other, side.id)

    def _line(
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
        return Step(row=replace(self.row, last=last), command=self.command, works=works, letters=letters, lines=lines)
