"""To which pair does a record belong: homes, claims, couplings made and undone.

Pure. Coupling two records that existed before is a claim: it goes to the CRM record's home, which grants it once or
refuses it, and hands over the last state it saw; only then does the ERP record's home couple. Uncoupling gives the
claim back the same way. An order handler answers False for "not now": the order then waits for the command in flight.
"""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from processors.coupling import (
    Absorbed,
    absorb_event,
    forget_agreement,
    observed_from,
    side_from,
    side_of,
    with_side,
)
from processors.decide import (
    Issue,
    free_candidates,
    match_tests,
    still_held,
    take_as_base,
    test_print,
)
from processors.lines import lines_of
from processors.mapping import Direction, source_of
from processors.rebase import rebase, settle_differences
from processors.remap import remap
from processors.turn import Turn
from schemas.coupling import Hold, Home, Matched, Pair, PairState, Side
from schemas.errors import AlreadyCoupled
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
    OutcomeStatus,
    RecordRef,
    System,
    Value,
    Work,
    derived_id,
)

SPENT_CLAIMS = 8  # a claim comes again only with the last few messages of its home
UNCOUPLE = "uncouple"  # the hold of an uncoupling that the CRM refused
RELEASE = "release"  # who asks when a record that was missed is coupled
LOOKED_UP_LATELY = timedelta(seconds=20)
MAX_HOPS = 6  # two homes that settle a claim hand a change on once or twice


def take_change(turn: Turn, event: ChangeEvent) -> None:
    if event.ref.system is System.CRM and not _own_record(turn, event):
        return
    pair = turn.row.pair or Pair()
    before = side_of(pair, event.ref.system)
    side, absorbed = absorb_event(before, event, turn.world.prints)
    if absorbed in (Absorbed.STALE, Absorbed.ECHO):
        turn.line("skipped", str(event.ref), reason=absorbed.value)
        turn.quiet = True
        return
    if absorbed is Absorbed.DELETED:
        turn.line("deleted", str(event.ref))
        if before is None:
            turn.quiet = True  # deleted before we ever saw it
            return
    turn.row = replace(turn.row, pair=with_side(pair, event.ref.system, side))


def _own_record(turn: Turn, event: ChangeEvent) -> bool:
    """Whether the CRM record is this home's own to decide on; otherwise it is handed to the pair it belongs to."""
    home, pair, record = turn.row.home, turn.row.pair, event.ref.id
    if record != turn.row.id:
        if pair is not None and pair.crm is not None and pair.crm.id == record:
            return True
        turn.quiet = True
        if not _keep_for_claim(turn, event):
            _forward(turn, event, record)  # it was given back while this change was on its way here
        return False
    if (home is None or home.belongs_to == turn.row.id) and (pair is None or pair.crm is None or pair.crm.id == record):
        return True
    turn.quiet = True
    if home is None or home.belongs_to == turn.row.id:
        _evict_the_returned(turn, event)
        return False
    if home.belongs_to:
        _forward(turn, event, home.belongs_to)
        return False
    side, absorbed = absorb_event(home.evicted, event, turn.world.prints)
    turn.row = replace(turn.row, home=replace(home, evicted=side))
    reason = "uncoupled-by-hand" if absorbed is Absorbed.NEWS else absorbed.value
    turn.line("skipped", str(event.ref), reason=reason)
    return False


def _evict_the_returned(turn: Turn, event: ChangeEvent) -> None:
    """A CRM record came back under the id of a home whose pair has another partner by now: a person must say what it
    is to be.
    """
    side, absorbed = absorb_event(None, event, turn.world.prints)
    if absorbed is Absorbed.DELETED:
        return
    turn.row = replace(turn.row, home=Home(belongs_to="", evicted=side))
    turn.letters.append(_without_a_home(turn, event, "the record came back, and its pair has another partner by now"))
    turn.line("dead-letter", str(event.ref), "to_erp", reason=AlreadyCoupled.slug, code=AlreadyCoupled.code)


def _keep_for_claim(turn: Turn, event: ChangeEvent) -> bool:
    """A change of a CRM record whose claim waits here goes into the claim."""
    for number, order in enumerate(turn.row.deferred):
        if order.kind is OrderKind.CLAIMED and order.crm_id == event.ref.id and order.record is not None:
            side, _ = absorb_event(side_from(order.record), event, turn.world.prints)
            kept = replace(order, record=observed_from(side))
            deferred = (*turn.row.deferred[:number], kept, *turn.row.deferred[number + 1 :])
            turn.row = replace(turn.row, deferred=deferred)
            return True
    return False


def _forward(turn: Turn, event: ChangeEvent, home: str) -> None:
    if turn.work.hops >= MAX_HOPS:
        turn.letters.append(_without_a_home(turn, event, "two homes name each other as its owner"))
        return
    turn.works.append(
        Work(
            message_id=f"{event.event_id}:{turn.work.hops + 1}",
            mapping=turn.mapping.name,
            home=home,
            hops=turn.work.hops + 1,
            change=event,
        )
    )


def _without_a_home(turn: Turn, event: ChangeEvent, detail: str) -> DeadLetter:
    """A letter about a CRM record that no pair decides for."""
    hold = Hold(
        code=AlreadyCoupled.code,
        slug=AlreadyCoupled.slug,
        order=event.order,
        since=turn.now,
        letter_id=derived_id("letter", turn.work.key, "no home", event.ref),
        detail=detail,
    )
    return replace(turn.letter("to_erp", hold, state=LetterState.OPEN), ref=str(event.ref))


def handle(turn: Turn, order: Order) -> bool:
    handlers = {
        OrderKind.COUPLE: _couple,
        OrderKind.CLAIMED: _claimed,
        OrderKind.REFUSED: _refused,
        OrderKind.GIVE_BACK: _given_back,
        OrderKind.ADOPT: _adopt,
        OrderKind.UNCOUPLE: _uncouple,
        OrderKind.RETRY: _retry,
        OrderKind.CLOSE: _close,
        OrderKind.REBASE: rebase,
        OrderKind.SETTLE: settle_differences,
        OrderKind.REMAP: remap,
        OrderKind.FIRST: _take_first,
    }
    return handlers[order.kind](turn, order)


def tell_first(turn: Turn, command: Command) -> None:
    """A record was made in the CRM: the homes of those that it refers to are told, where they want to know (R311)."""
    view = turn.world.view
    for other in view.wanting_first(turn.mapping.name):
        for line in lines_of(turn.mapping).toward["to_crm"]:
            value = command.values.get(line.crm)
            if line.field.reference != other or not isinstance(value, str):
                continue
            home = view.coupled_to(other, System.CRM, value.rpartition(":")[2])
            if home is not None:
                order_id = derived_id("first", turn.work.key, turn.work.message_id, other, home)
                order = Order(order_id=order_id, kind=OrderKind.FIRST, by=turn.mapping.name, crm_id=command.target.id)
                turn.works.append(Work(message_id=derived_id("work", order_id), mapping=other, home=home, order=order))


def _take_first(turn: Turn, order: Order) -> bool:
    """The first that comes stays while it is there; whether it is wanted is decided by what the record holds."""
    pair, view = turn.pair, turn.world.view
    is_taken = bool(pair.first) and view.coupled_to(order.by, System.CRM, pair.first) is not None
    if pair.state is PairState.COUPLED and not is_taken:
        turn.row = replace(turn.row, pair=replace(pair, first=order.crm_id))
    else:
        turn.quiet = True
    return True


def _couple(turn: Turn, order: Order) -> bool:
    """At the CRM record's home: the claim of `erp_id` is granted once, or refused with its holder."""
    home = turn.row.home or Home(belongs_to=turn.row.id)
    if home.evicted is not None:
        if order.by == "match":
            _refuse(turn, order, "no-match")  # a person uncoupled it: only a person couples it again
        else:
            _grant_evicted(turn, order, home.evicted)
        return True
    if home.belongs_to != turn.row.id:
        if home.belongs_to == order.erp_id:
            turn.send(order.erp_id, replace(turn.answer(order, OrderKind.CLAIMED), claim=home.claim))
        else:
            _refuse(turn, order, "taken", holder=home.belongs_to)
        return True
    pair = turn.pair
    if pair.in_flight is not None:
        return False
    if order.erp_id == turn.row.id:
        return _couple_same_id(turn, order, pair)
    if order.by == "restore":
        _reserve(turn, order)
        return True
    side = pair.crm or (side_from(order.record) if order.record is not None else None)
    if side is None and order.by == "match" and not turn.retry:
        return False  # a sink saw the record: capture is about to bring it
    if side is None or side.deleted:
        _refuse(turn, order, "unknown")
        return True
    if pair.state is PairState.COUPLED and pair.crm is not None:
        _refuse(turn, order, "taken", holder=turn.row.id)
        return True
    if order.by == "match" and pair.state is PairState.UNCOUPLED:
        _refuse(turn, order, "no-match")
        return True
    if order.by != "match":
        grant(turn, order, side)
        return True
    if pair.crm is None:
        # Capture has not brought it yet; what the match saw will do.
        pair = replace(pair, crm=side) if pair.erp is None else pair
        turn.row = replace(turn.row, pair=pair)
        if pair.crm is None:
            grant(turn, order, side)
            return True
    verdict = _verify(turn, pair, "to_erp", order.erp_id)
    if verdict == "look":
        return False
    if verdict == "yes":
        grant(turn, order, side)
    else:
        _refuse(turn, order, verdict)
    return True


def _couple_same_id(turn: Turn, order: Order, pair: Pair) -> bool:
    """Both records have one id, and so one home: no claim is needed."""
    if pair.crm is None and order.record is not None:
        pair = replace(pair, crm=side_from(order.record))
    if pair.state is PairState.COUPLED:
        if pair.crm is None or pair.crm.id != turn.row.id:
            _refuse(turn, order, "taken", holder=turn.row.id)
        return True
    if pair.erp is None or pair.crm is None:
        _refuse(turn, order, "unknown")
        return True
    join(turn, pair, pair.crm, order)
    return True


def _grant_evicted(turn: Turn, order: Order, side: Side) -> None:
    """The record of our own id, which is not our pair's."""
    turn.row = replace(turn.row, home=Home(belongs_to=order.erp_id, claim=order.order_id))
    _send_claimed(turn, order, side)


def grant(turn: Turn, order: Order, side: Side) -> None:
    pair = turn.row.pair
    home = Home(belongs_to=order.erp_id, claim=order.order_id)
    if pair is not None:
        home = replace(home, to_be_made=pair.to_be_made and pair.erp is None)
        pair = turn.release_all(pair, reason="coupled-elsewhere")
        pair = replace(pair, crm=None, matched=None) if pair.erp is not None else None
    turn.row = replace(turn.row, pair=pair, home=home)
    _send_claimed(turn, order, side)


def _send_claimed(turn: Turn, order: Order, side: Side) -> None:
    answer = replace(turn.answer(order, OrderKind.CLAIMED), record=observed_from(side), claim=order.order_id)
    turn.send(order.erp_id, answer)
    turn.line("claim-granted", turn.ref(System.CRM, order.crm_id), reason=f"to {order.erp_id}")


def _reserve(turn: Turn, order: Order) -> None:
    """A CRM record that does not exist yet belongs to this pair from now on."""
    turn.row = replace(turn.row, home=Home(belongs_to=order.erp_id, claim=order.order_id))
    turn.send(order.erp_id, replace(turn.answer(order, OrderKind.CLAIMED), claim=order.order_id))


def _refuse(turn: Turn, order: Order, reason: str, *, holder: str = "") -> None:
    answer = replace(turn.answer(order, OrderKind.REFUSED), reason=reason, holder=holder)
    turn.send(order.erp_id, answer)
    turn.line(
        "claim-refused",
        turn.ref(System.CRM, order.crm_id),
        reason=reason,
        cause_id=order.root_id or order.order_id,
    )


def _verify(turn: Turn, pair: Pair, direction: Direction, wanted: str) -> str:
    """Whether the match is one in this direction too: `yes`, `ambiguous`, `no-match`, or `look` (a look-up is
    under way now).
    """
    side = side_of(pair, source_of(direction))
    assert side is not None
    tests = match_tests(side, turn.mapping, direction, turn.world.view)
    test = test_print(tests, turn.world.prints)
    if not tests:
        return "no-match"
    # A look-up of before the other record was made did not find it.
    outcome = turn.work.outcome
    is_fresh = outcome is not None and outcome.status is OutcomeStatus.MATCHED
    if pair.matched is None or pair.matched.test != test or not (is_fresh or wanted in pair.matched.candidates):
        hold = pair.holds.get(direction)
        if hold is not None and still_held(hold, side, retry=turn.retry):
            return "look"  # the look-up was refused: the order waits until somebody asks again
        turn.issue(pair, Issue(direction=direction, kind=CommandKind.MATCH, tests=tests), purpose="verify")
        return "look"
    free = free_candidates(pair.matched, turn.mapping, direction, turn.world.view)
    if pair.matched.ambiguous or (wanted in free and len(pair.matched.candidates) > 1):
        return "ambiguous"
    return "yes" if wanted in pair.matched.candidates else "no-match"


def _claimed(turn: Turn, order: Order) -> bool:
    """At the ERP record's home: the CRM record is ours to couple with, if we still can and want to."""
    pair = turn.pair
    if pair.state is PairState.COUPLED:
        if pair.crm is None or pair.crm.id != order.crm_id:
            _give_back(turn, order, "taken")
        return True
    if pair.in_flight is not None:
        return False
    if order.claim and order.claim in pair.spent:
        _give_back(turn, order, "uncoupled" if pair.state is PairState.UNCOUPLED else "no-match")
        return True
    if order.by == "restore":
        if pair.claiming == order.crm_id:
            fresh = replace(pair, state=PairState.SINGLE, claiming="", create_as=order.crm_id, claim=order.claim)
            turn.row = replace(turn.row, pair=fresh)
        return True
    if order.record is None:
        _give_back(turn, order, "unknown")
        return True
    side = side_from(order.record)
    if pair.state is PairState.CLAIMING:
        if order.by != "match" and pair.claiming != order.crm_id:
            return False
        if pair.claiming != order.crm_id:
            _give_back(turn, order, "no-match")
        else:
            join(turn, pair, side, order)
        return True
    if pair.erp is None or pair.erp.deleted:
        if order.by == "match" and pair.erp is None and not turn.retry:
            return False  # the match saw a record that capture has not brought yet
        _give_back(turn, order, "unknown")
        return True
    if order.by != "match":
        join(turn, pair, side, order)
        return True
    if pair.state is PairState.UNCOUPLED:
        _give_back(turn, order, "no-match")
        return True
    verdict = _verify(turn, pair, "to_crm", order.crm_id)
    if verdict == "look":
        return False
    if verdict == "yes":
        join(turn, pair, side, order)
    else:
        if verdict == "ambiguous" and pair.matched is not None:
            turn.row = replace(turn.row, pair=replace(pair, matched=replace(pair.matched, ambiguous=True)))
        _give_back(turn, order, verdict)
    return True


def join(turn: Turn, pair: Pair, side: Side, order: Order) -> None:
    """From here on the two are coupled; whose values stand is decided next."""
    home = turn.row.home
    if pair.crm is not None and pair.crm.id != side.id:
        home = Home(belongs_to="", evicted=replace(pair.crm, base={}, forms={}))
    pair = turn.release_all(pair, reason="coupled")
    pair = forget_agreement(replace(pair, crm=side))
    pair = replace(
        pair,
        state=PairState.COUPLED,
        coupled_at=turn.now,
        first_use=order.use if order.use in ("erp", "crm") else "",
        differs=(),
        rebasing=(),
        matched=None,
        claiming="",
        restoring=False,
        to_be_made=False,
        claim=order.claim,
        batch=order.batch,
        key_id=turn.world.prints.key_id,
    )
    if order.use == "agree":
        pair = take_as_base(pair, turn.mapping, turn.world.view, turn.world.prints)
    turn.row = replace(turn.row, pair=pair, home=home)
    turn.line(
        "coupled",
        turn.ref(System.ERP, turn.row.id),
        reason=f"with {turn.ref(System.CRM, side.id)} by {order.by or 'order'}",
        cause_id=order.root_id or order.order_id,
    )


def _refused(turn: Turn, order: Order) -> bool:
    pair = turn.pair
    if pair.state is PairState.CLAIMING and pair.claiming == order.crm_id:
        matched = pair.matched or Matched(test="", candidates=(order.crm_id,))
        if order.reason == "ambiguous":
            matched = replace(matched, ambiguous=True)
        else:
            matched = replace(matched, ruled_out=(*matched.ruled_out, order.crm_id))
        turn.row = replace(turn.row, pair=replace(pair, state=PairState.SINGLE, claiming="", matched=matched))
    return True


def _give_back(turn: Turn, order: Order, reason: str, *, record: Side | None = None) -> None:
    answer = replace(
        turn.answer(order, OrderKind.GIVE_BACK),
        reason=reason,
        record=observed_from(record) if record is not None else order.record,
    )
    turn.send(order.crm_id, answer)
    if turn.row.pair is not None:
        turn.row = replace(turn.row, pair=_spend(turn.row.pair, order.claim))
    turn.line("given-back", turn.ref(System.CRM, order.crm_id), reason=reason, cause_id=order.root_id or order.order_id)


def _spend(pair: Pair, claim: str) -> Pair:
    if not claim or claim in pair.spent:
        return pair
    return replace(pair, spent=(*pair.spent, claim)[-SPENT_CLAIMS:])


def _given_back(turn: Turn, order: Order) -> bool:
    """At the CRM record's home: it is on its own again, or goes to the home that restores its partner."""
    home = turn.row.home
    if home is None or home.belongs_to != order.erp_id or home.claim != order.claim:
        if order.record is not None:
            take_change(turn, _as_change(turn, order.crm_id, order.record))  # it may have seen more than we did
        return True
    if order.record is None:
        turn.row = replace(turn.row, home=None)
        return True
    if order.reason == "restore":
        turn.row = replace(turn.row, home=Home(belongs_to=order.holder))
        turn.send(order.holder, replace(turn.answer(order, OrderKind.ADOPT), erp_id=order.holder))
        return True
    side = side_from(order.record)
    if turn.row.pair is not None:
        turn.row = replace(turn.row, home=Home(belongs_to="", evicted=side))
        return True
    state = PairState.UNCOUPLED if order.reason == "uncoupled" else PairState.SINGLE
    to_be_made = home.to_be_made and state is PairState.SINGLE
    matched = Matched(
        test=_test_of(turn, side, "to_erp"),
        candidates=(order.erp_id,),
        ruled_out=() if order.reason == "ambiguous" else (order.erp_id,),
        ambiguous=order.reason == "ambiguous",
    )
    turn.row = replace(turn.row, home=None, pair=Pair(state=state, crm=side, matched=matched, to_be_made=to_be_made))
    return True


def _as_change(turn: Turn, record_id: str, record: Observed) -> ChangeEvent:
    ref = RecordRef(System.CRM, str(turn.mapping.crm), record_id)
    return ChangeEvent(
        event_id=derived_id("event", ref, record.version),
        ref=ref,
        operation=Operation.CHANGE,
        version=record.version,
        order=record.order,
        modified_at=record.modified_at,
        captured_at=turn.now,
        after=record.state,
    )


def _test_of(turn: Turn, side: Side, direction: Direction) -> str:
    """The look-up that these values would lead to, as `Matched.test` names it."""
    return test_print(match_tests(side, turn.mapping, direction, turn.world.view), turn.world.prints)


def _adopt(turn: Turn, order: Order) -> bool:
    """At a home without a record: an ERP record is made here for this CRM record."""
    if turn.row.pair is None and order.record is not None:
        turn.row = replace(turn.row, pair=Pair(crm=side_from(order.record), restoring=True))
    return True


def _uncouple(turn: Turn, order: Order) -> bool:
    """R115-R119: the company stamp is taken off the CRM record, then the two are on their own."""
    pair = turn.pair
    if pair.in_flight is not None or pair.state is PairState.CLAIMING:
        return False
    if pair.state is not PairState.COUPLED:
        turn.line("uncoupled", turn.ref(System.ERP, turn.row.id), reason="was-not-coupled", cause_id=order.order_id)
        return True
    if order.batch and order.batch != pair.batch:
        turn.line("skipped", turn.ref(System.ERP, turn.row.id), reason="not-of-this-batch", cause_id=order.order_id)
        return True
    if _takes_off_the_stamp(turn, pair):
        return turn.world.brakes.observing  # a brake comes off: until then the order waits
    _part(turn, pair, order)
    return True


def _takes_off_the_stamp(turn: Turn, pair: Pair) -> bool:
    """R57, R118: whether the CRM record still bears this company's stamp; the command that takes it off is issued."""
    stamp = next((line for line in turn.mapping.fields if line.company and line.enabled), None)
    crm, ours = pair.crm, turn.world.view.company_crm_id
    if stamp is None or crm is None or crm.deleted or not ours or crm.state.get(str(stamp.crm)) != ours:
        return False
    blank: dict[str, Value] = {str(stamp.crm): None}
    turn.issue(pair, Issue(direction="to_crm", kind=CommandKind.UPDATE, values=blank), purpose="uncouple")
    return True


def _part(turn: Turn, pair: Pair, order: Order) -> None:
    pair = forget_agreement(turn.release_all(pair, reason="uncoupled"))
    crm = pair.crm
    pair = replace(pair, state=PairState.UNCOUPLED, coupled_at=None, first_use="", soft_missing=(), matched=None)
    pair = replace(pair, batch="", to_be_made=False, rebasing=(), differs=(), first="")
    pair = _spend(pair, pair.claim)
    if crm is not None and crm.id != turn.row.id:
        pair = replace(pair, crm=None)
        _give_back(
            turn,
            replace(order, crm_id=crm.id, erp_id=turn.row.id, claim=pair.claim),
            "uncoupled",
            record=None if crm.deleted else crm,
        )
    elif crm is not None and crm.deleted:
        pair = replace(pair, crm=None)
    if pair.erp is not None and pair.erp.deleted:
        pair = replace(pair, erp=None)
    turn.row = replace(turn.row, pair=pair if pair.erp or pair.crm else None)
    turn.line("uncoupled", turn.ref(System.ERP, turn.row.id), reason=order.by, cause_id=order.order_id)


def _retry(turn: Turn, order: Order) -> bool:
    pair = turn.pair
    if pair.in_flight is not None:
        return False
    turn.retry = True
    turn.use = order.use
    if UNCOUPLE in pair.holds:
        return _uncouple(turn, replace(order, kind=OrderKind.UNCOUPLE))
    if pair.state in (PairState.SINGLE, PairState.UNCOUPLED) and not _is_fresh(turn, pair, order):
        pair = replace(pair, matched=None)
    if pair.state is PairState.SINGLE and order.use == "create" and (pair.erp or pair.crm):
        pair = replace(pair, to_be_made=True)
    if turn.row.pair is not None:
        turn.row = replace(turn.row, pair=pair)
    return True


def _is_fresh(turn: Turn, pair: Pair, order: Order) -> bool:
    """Whether a look-up that found nothing still holds: a person who asks is given a new one, but a record that is
    released several times within seconds is not looked up each time. Other values to look for need a new one anyway.
    """
    found = pair.matched
    if order.by != RELEASE or found is None or found.candidates or found.at is None:
        return False
    return turn.now - found.at < LOOKED_UP_LATELY


def _close(turn: Turn, order: Order) -> bool:
    """A person gives a letter up; what it was about stays held until its record changes."""
    turn.quiet = True
    pair = turn.row.pair
    for direction, hold in (pair.holds if pair is not None else {}).items():
        if order.letter_id and hold.letter_id == order.letter_id:
            assert pair is not None
            turn.letters.append(turn.letter(direction, hold, state=LetterState.DISCARDED, by=order.by))
            holds = {**pair.holds, direction: replace(hold, letter_id="")}
            turn.row = replace(turn.row, pair=replace(pair, holds=holds))
            break
    return True


def settle_deleted(turn: Turn, pair: Pair, how: str) -> None:
    order = Order(order_id=turn.work.message_id, kind=OrderKind.UNCOUPLE, by=f"deletes: {how}")
    if how == "dissolve":
        turn.release_all(pair, reason="both-deleted")
        if pair.crm is not None and pair.crm.id != turn.row.id:
            _give_back(turn, replace(order, crm_id=pair.crm.id, erp_id=turn.row.id, claim=pair.claim), "deleted")
        turn.row = replace(turn.row, pair=None)
        turn.line("uncoupled", turn.ref(System.ERP, turn.row.id), reason="both-deleted")
    elif how == "uncouple":
        refused = UNCOUPLE in pair.holds and not turn.retry
        if not refused and not _takes_off_the_stamp(turn, pair):
            _part(turn, pair, order)
    elif pair.crm is None or pair.crm.deleted:
        _restore_in_crm(turn, pair)
    else:
        _restore_in_erp(turn, pair)


def _restore_in_crm(turn: Turn, pair: Pair) -> None:
    """A restored record takes a new id."""
    pair = forget_agreement(replace(turn.release_all(pair, reason="restored"), crm=None))
    assert pair.erp is not None
    reserve_crm_id(turn, replace(pair, coupled_at=None, matched=None, restoring=True))
    turn.line("restores", turn.ref(System.CRM, turn.pair.claiming), "to_crm", reason="counterpart-deleted")


def crm_id_is_taken(turn: Turn, pair: Pair, direction: str) -> bool:
    """The CRM record of our own id belongs to another pair, or to none by hand."""
    home = turn.row.home
    return direction == "to_crm" and not pair.create_as and home is not None and home.belongs_to != turn.row.id


def reserve_crm_id(turn: Turn, pair: Pair) -> None:
    """Have a new id for a CRM record: its home must know its pair before the record is made."""
    fresh = derived_id("fresh", turn.work.key, turn.work.message_id)
    order = Order(
        order_id=derived_id("reserve", fresh), kind=OrderKind.COUPLE, by="restore", erp_id=turn.row.id, crm_id=fresh
    )
    turn.row = replace(turn.row, pair=replace(pair, state=PairState.CLAIMING, claiming=fresh))
    turn.send(fresh, order)


def _restore_in_erp(turn: Turn, pair: Pair) -> None:
    """The new ERP record gets a home of its own, which takes the CRM record over."""
    fresh = derived_id("restore", turn.work.key, turn.work.message_id)
    turn.release_all(pair, reason="restored")
    crm = pair.crm
    assert crm is not None
    record = observed_from(crm)
    order = Order(order_id=derived_id("adopt", fresh), kind=OrderKind.ADOPT, by="restore", crm_id=crm.id, record=record)
    turn.row = replace(turn.row, pair=None)
    if crm.id == turn.row.id:
        turn.row = replace(turn.row, home=Home(belongs_to=fresh))
        turn.send(fresh, replace(order, erp_id=fresh))
    else:
        back = replace(
            order, kind=OrderKind.GIVE_BACK, erp_id=turn.row.id, claim=pair.claim, reason="restore", holder=fresh
        )
        turn.send(crm.id, back)
    turn.line("restores", turn.ref(System.ERP, fresh), "to_erp", reason="counterpart-deleted")
