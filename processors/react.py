"""What one message means for one home: the row after it, and everything that is to be sent because of it.

Pure. `react` is the whole of what a decide process does with a message; its shell only loads the row, stores it and
sends. The same message may come again at any time: the row remembers what its last message made it send, and sends
just that again; an older message finds a row that knows better.
"""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from processors.coupling import (
    absorb_outcome,
    agree,
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
    one_way_back,
    test_print,
)
from processors.homes import (
    UNCOUPLE,
    crm_id_is_taken,
    grant,
    handle,
    join,
    reserve_crm_id,
    settle_deleted,
    take_change,
    tell_first,
)
from processors.mapping import DIRECTIONS, target_of
from processors.rebase import REBASE, take_read
from processors.turn import Step, Turn, World
from schemas.coupling import Matched, Pair, PairState, Row
from schemas.errors import CounterpartDeleted, Rejected, SinkError, by_code
from schemas.records import (
    CommandKind,
    Order,
    OrderKind,
    Outcome,
    OutcomeStatus,
    System,
    Work,
    derived_id,
)

__all__ = ["Step", "World", "react"]


def react(work: Work, row: Row | None, world: World, *, now: datetime) -> Step:
    """The step that `work` makes of `row`.

    Raises KeyError when the mapping of the message is not known.
    """
    mapping = world.mappings[work.mapping]
    row = row or Row(mapping=work.mapping, id=work.home)
    if row.last.cause_id == work.message_id:
        return _again(row)
    turn = Turn(work, row, mapping, world, now)
    if work.change is not None:
        take_change(turn, work.change)
    elif work.outcome is not None:
        take_outcome(turn, work.outcome)
    elif work.order is not None:
        take_order(turn, work.order)
    settle(turn)
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


def take_outcome(turn: Turn, outcome: Outcome) -> None:
    pair = turn.row.pair
    flight = pair.in_flight if pair is not None else None
    if pair is None or flight is None or flight.command.command_id != outcome.command_id:
        turn.line("ignored", str(outcome.target), reason="answers-no-command", command_id=outcome.command_id)
        turn.quiet = True
        return
    if flight.purpose == REBASE:
        take_read(turn, flight, outcome)
        return
    outcome = _as_far_as_ours(outcome, flight.command.kind)
    pair = absorb_outcome(pair, outcome, turn.mapping, turn.world.prints)
    command, direction = flight.command, flight.direction
    target = target_of(direction)
    if outcome.status is OutcomeStatus.REJECTED:
        if flight.purpose == "uncouple":
            turn.row = replace(turn.row, deferred=())
            direction = UNCOUPLE
        pair = turn.hold(pair, direction, outcome.code, detail=outcome.detail)
    elif outcome.status is OutcomeStatus.MATCHED:
        found = tuple(candidate.id for candidate in outcome.candidates)
        test = test_print(command.tests, turn.world.prints)
        pair = replace(pair, matched=Matched(test=test, candidates=found, at=turn.now))
        turn.line("matched", command.home, direction, reason=f"{len(found)} found", command_id=command.command_id)
        hold = pair.holds.get(direction)
        if hold is not None and issubclass(by_code(hold.code), SinkError):
            pair = turn.release(pair, direction, reason="succeeded")
    elif outcome.status in (OutcomeStatus.MISSING, OutcomeStatus.DELETED):
        side = side_of(pair, target)
        if side is not None:
            gone = replace(side, deleted=True, order=side.order + 1, version=f"deleted:{side.order + 1}")
            pair = with_side(pair, target, gone)
    elif command.kind is CommandKind.CREATE:
        pair = replace(pair, state=PairState.COUPLED, coupled_at=turn.now, matched=None, restoring=False)
        pair = replace(pair, to_be_made=False, batch="")
        pair = agree(pair, one_way_back(pair, turn.mapping, direction), turn.world.prints, company=None)
        turn.line("coupled", str(outcome.target), direction, reason="created", command_id=command.command_id)
        if direction == "to_crm":
            tell_first(turn, command)
    made = command.kind is CommandKind.CREATE and outcome.status is OutcomeStatus.OBSERVED
    if made or outcome.status in (OutcomeStatus.WRITTEN, OutcomeStatus.DELETED):
        pair = turn.release(pair, direction, reason="succeeded")
    turn.row = replace(turn.row, pair=pair)


def _as_far_as_ours(outcome: Outcome, kind: CommandKind) -> Outcome:
    """A record made under another id than ours would have a home of its own and a twin here: a person must see it."""
    made = outcome.observed
    if kind is not CommandKind.CREATE or made is None or made.id == outcome.target.id:
        return outcome
    detail = f"the target made {made.id} instead of the id that was sent"
    return replace(outcome, status=OutcomeStatus.REJECTED, code=Rejected.code, detail=detail, observed=None)


def take_order(turn: Turn, order: Order) -> None:
    if order.kind is OrderKind.RESEND:
        _resend(turn)
        return
    if not handle(turn, order):
        turn.row = replace(turn.row, deferred=(*turn.row.deferred, order))


def _resend(turn: Turn) -> None:
    pair = turn.row.pair
    turn.quiet = True
    if pair is None or pair.in_flight is None:
        return
    flight = replace(pair.in_flight, sends=pair.in_flight.sends + 1, sent_at=turn.now)
    turn.row = replace(turn.row, pair=replace(pair, in_flight=flight))
    turn.command = flight.command
    target = str(flight.command.target)
    turn.line("resent", target, flight.direction, command_id=flight.command.command_id)


def settle(turn: Turn) -> None:
    """Take up what was waiting, then decide."""
    if turn.quiet and not turn.row.deferred:
        return
    waiting, turn.row = turn.row.deferred, replace(turn.row, deferred=())
    for order in waiting:
        if not handle(turn, order):
            turn.row = replace(turn.row, deferred=(*turn.row.deferred, order))
    _forget_the_deleted(turn)
    pair = turn.row.pair
    if pair is None:
        return
    if pair.state is PairState.SINGLE and pair.in_flight is None and _same_id(pair):
        # Both bear one id: Drawbar made one of them from the other.
        assert pair.crm is not None
        join(turn, pair, pair.crm, Order(order_id=turn.work.message_id, kind=OrderKind.COUPLE, by="same id"))
        pair = turn.pair
    if pair.state is PairState.COUPLED and not any(side is None or side.deleted for side in (pair.erp, pair.crm)):
        for way in [way for way, hold in pair.holds.items() if hold.slug == CounterpartDeleted.slug]:
            pair = turn.release(pair, way, reason="the record is back")
        turn.row = replace(turn.row, pair=pair)
    context = Context(prints=turn.world.prints, company_id=turn.world.company_id, retry=turn.retry, use=turn.use)
    decided = decide(pair, turn.mapping, turn.world.view, context)
    turn.row = replace(turn.row, pair=decided.pair)
    for choice in decided.choices:
        turn.line(
            "chose", turn.source_ref(choice.direction), choice.direction, reason=choice.reason, fields=choice.fields
        )
    for decision in decided.decisions:
        _act(turn, decision)
    conflicted = any(
        isinstance(decision, Reject) and decision.direction == "conflict" for decision in decided.decisions
    )
    looked = any(decision.direction in DIRECTIONS for decision in decided.decisions)
    if turn.row.pair is not None and not conflicted and looked:
        turn.row = replace(turn.row, pair=turn.release(turn.pair, "conflict", reason="resolved"))
    if turn.row.pair is not None and not isinstance(decided.decisions[0], Park):
        rests = looked and all(isinstance(found, Skip) and found.reason == "unchanged" for found in decided.decisions)
        in_step = turn.pair.in_step or (turn.pair.state is PairState.COUPLED and rests)
        turn.row = replace(turn.row, pair=replace(turn.pair, kept_back=turn.kept_back, in_step=in_step))


def _forget_the_deleted(turn: Turn) -> None:
    """A record that is on its own and deleted leaves nothing to decide."""
    pair = turn.row.pair
    if pair is None or pair.in_flight is not None or pair.state not in (PairState.SINGLE, PairState.UNCOUPLED):
        return
    kept = replace(
        pair,
        erp=None if pair.erp is not None and pair.erp.deleted else pair.erp,
        crm=None if pair.crm is not None and pair.crm.deleted else pair.crm,
    )
    if kept != pair:
        kept = turn.release_all(kept, reason="deleted")
    turn.row = replace(turn.row, pair=kept if kept.erp is not None or kept.crm is not None else None)


def _same_id(pair: Pair) -> bool:
    erp, crm = pair.erp, pair.crm
    return erp is not None and crm is not None and not erp.deleted and not crm.deleted and erp.id == crm.id


def _act(turn: Turn, decision: Decision) -> None:
    pair = turn.pair
    match decision:
        case Park():
            turn.line("parked", turn.ref(System.ERP, turn.row.id), reason="command-under-way")
        case Skip(direction=direction, reason=reason, fields=names):
            if reason in ("unchanged", "outside-filter", "not-coupled"):
                pair = turn.release(pair, direction, reason=reason)
            turn.row = replace(turn.row, pair=pair)
            turn.line("skipped", turn.source_ref(direction), direction, reason=reason, fields=names)
        case Wait(direction=direction, error=error, missing=missing, fields=names):
            turn.row = replace(turn.row, pair=turn.hold(pair, direction, error.code, missing=missing, fields=names))
        case Reject(direction=direction, error=error, missing=missing, fields=names, detail=detail):
            held = turn.hold(pair, direction, error.code, missing=missing, fields=names, detail=detail)
            turn.row = replace(turn.row, pair=held)
        case Claim(direction=direction, candidate=candidate):
            _claim(turn, pair, direction, candidate)
        case Settle(how=how):
            settle_deleted(turn, pair, how)
        case Issue(direction=direction, kind=kind):
            if pair.in_flight is None and kind is CommandKind.CREATE and crm_id_is_taken(turn, pair, direction):
                reserve_crm_id(turn, pair)
            elif pair.in_flight is None:
                turn.issue(pair, decision, purpose=REBASE if kind is CommandKind.READ else "sync")
            else:
                if direction in pair.kept_back:
                    turn.kept_back[direction] = pair.kept_back[direction]
                turn.line("parked", turn.source_ref(direction), direction, reason="other-direction-first")


def _claim(turn: Turn, pair: Pair, direction: str, candidate: str) -> None:
    order_id = derived_id("claim", turn.work.key, turn.work.message_id, candidate)
    if direction == "to_crm":
        order = Order(order_id=order_id, kind=OrderKind.COUPLE, by="match", erp_id=turn.row.id, crm_id=candidate)
        turn.row = replace(turn.row, pair=replace(pair, state=PairState.CLAIMING, claiming=candidate))
        turn.send(candidate, order)
        turn.line("claims", turn.ref(System.CRM, candidate), direction)
        return
    crm = pair.crm
    assert crm is not None
    order = Order(order_id=order_id, kind=OrderKind.COUPLE, by="match", erp_id=candidate, crm_id=crm.id)
    grant(turn, order, crm)
