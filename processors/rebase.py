"""A new base: what both systems hold becomes what a pair agrees on, and nothing is written.

Pure. A system that was restored from a backup shows old values under versions and orders that went backwards; to a row
they would be stale, or an edit. An order asks the home to read the restored record by its id and to take what it finds
for what it is. Where the sides then differ is remembered in the row, until a person settles it or an edit does.
"""

from __future__ import annotations

from msgspec.structs import replace

from processors.coupling import agree, side_from, side_of, with_side
from processors.decide import Issue, differing, take_as_base
from processors.mapping import Direction, target_of
from processors.turn import Turn
from schemas.coupling import RECORD, InFlight, Pair, PairState, Side
from schemas.records import CommandKind, Order, Outcome, OutcomeStatus, System

REBASE = "rebase"  # the purpose of a READ whose answer is a new base
FORGOTTEN = -1  # below every order of a source: whatever comes next is newer


def rebase(turn: Turn, order: Order) -> bool:
    """Take the present for agreed, then have the record of each system that is named read. A live edit of the other
    side, from here on, is an edit against this base and crosses when all is read.
    """
    pair = turn.row.pair
    systems = tuple(system for system in System if order.use in ("", system.value))
    home = turn.row.home
    if System.CRM in systems and home is not None and home.evicted is not None:
        turn.row = replace(turn.row, home=replace(home, evicted=_forgotten(home.evicted)))
    if pair is None:
        turn.quiet = True
        return True
    if pair.in_flight is not None or pair.state is PairState.CLAIMING:
        return False
    if pair.state is not PairState.COUPLED or turn.mapping.role != "pair":
        for system in systems:
            pair = with_side(pair, system, _forgotten(side_of(pair, system)))
        turn.row = replace(turn.row, pair=pair)
        turn.quiet = True  # nothing was agreed: what capture brings next is decided as ever
        return True
    pair = turn.release_all(pair, reason="rebased")
    pair = take_as_base(pair, turn.mapping, turn.world.view, turn.world.prints)
    for system in systems:
        pair = with_side(pair, system, _forgotten(side_of(pair, system)))
    rebasing = tuple(system.value for system in systems)
    turn.line("rebasing", turn.ref(System.ERP, turn.row.id), reason=order.use or "both", cause_id=order.order_id)
    turn.row = replace(turn.row, pair=replace(pair, rebasing=rebasing, kept_back={}, news=()))
    return True


def _forgotten(side: Side | None) -> Side | None:
    return replace(side, order=FORGOTTEN) if side is not None else None


def take_read(turn: Turn, flight: InFlight, outcome: Outcome) -> None:
    """The record as its system holds it now."""
    pair = replace(turn.pair, in_flight=None)
    system = target_of(flight.direction)
    before = side_of(pair, system)
    assert before is not None
    if outcome.status is OutcomeStatus.REJECTED:
        pair = turn.hold(pair, flight.direction, outcome.code, detail=outcome.detail)
        turn.row = replace(turn.row, pair=pair)
        return
    pair = turn.release(pair, flight.direction, reason="read")
    observed = outcome.observed
    if observed is None:
        order = max(before.order, 0) + 1
        pair = with_side(pair, system, replace(before, deleted=True, order=order, version=f"deleted:{order}"))
    else:
        fresh = replace(side_from(observed), state={**before.state, **observed.state}, forms=before.forms)
        pair = with_side(pair, system, fresh)
        world = turn.world
        lines = [line for line in turn.mapping.fields if line.enabled]
        agreed = agree(pair, lines, world.prints, company=world.view.company_crm_id)
        pair = replace(with_side(pair, system, side_of(agreed, system)), key_id=world.prints.key_id)
    pair = replace(pair, rebasing=tuple(name for name in pair.rebasing if name != system.value))
    if not pair.rebasing:
        pair = _compared(turn, pair)
    turn.row = replace(turn.row, pair=pair)
    if observed is not None and before.order != FORGOTTEN and before.version != observed.version:
        # Capture brought another state while we read, and nobody knows which came first: the next read does.
        turn.issue(pair, Issue(direction=flight.direction, kind=CommandKind.READ), purpose="look-again")


def _compared(turn: Turn, pair: Pair) -> Pair:
    pair = replace(pair, differs=differing(pair, turn.mapping, turn.world.view, turn.world.prints))
    turn.row = replace(turn.row, pair=pair)
    reason = "a record is gone" if RECORD in pair.differs else f"{len(pair.differs) or 'no'} fields differ"
    turn.line("rebased", turn.ref(System.ERP, turn.row.id), reason=reason, fields=pair.differs)
    return pair


def settle_differences(turn: Turn, order: Order) -> bool:
    """A person says whose values stand where a new base left the sides different; `keep`: they may differ."""
    pair = turn.pair
    if pair.in_flight is not None or pair.state is PairState.CLAIMING or pair.rebasing:
        return False
    names = {name for name in pair.differs if name != RECORD}
    if order.use in ("erp", "crm") and names and pair.erp is not None and pair.crm is not None:
        way: Direction = "to_crm" if order.use == "erp" else "to_erp"
        lines = [
            line
            for line in turn.mapping.fields
            if line.enabled and line.name_in(System.CRM) in names and line.goes(way) and turn.mapping.flows(way)
        ]
        of_erp, of_crm = ({line.name_in(system) for line in lines} for system in System)
        pair = replace(
            pair,
            erp=replace(pair.erp, base={name: was for name, was in pair.erp.base.items() if name not in of_erp}),
            crm=replace(pair.crm, base={name: was for name, was in pair.crm.base.items() if name not in of_crm}),
            first_use=order.use,
        )
    turn.retry = True
    pair = replace(pair, differs=tuple(name for name in pair.differs if name == RECORD))
    turn.row = replace(turn.row, pair=pair)
    turn.line("settled", turn.ref(System.ERP, turn.row.id), reason=order.use, fields=tuple(sorted(names)))
    return True
