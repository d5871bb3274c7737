"""`drawbar couplings`: which records are coupled; couple and uncouple them by hand, or many by their criteria.

Couple and uncouple are orders to a home. They are checked against the rows first, because a person wants to know at
once what is wrong, and then followed until the home has carried them out or refused.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from drawbar.cli.carrying_out import Task, carry_out, progress_bar
from drawbar.cli.orders import Verdict, await_verdict, order_message
from drawbar.cli.pair_description import describe_row, print_described
from drawbar.cli.plans import couple_task, describe_plan, new_batch, plan_of
from drawbar.cli.running import Running, age, plural, running, say_unreadable
from drawbar.cli.shared import (
    AsJson,
    ConnectionFile,
    MappingName,
    WaitS,
    columns,
    new_app,
    print_json_line,
    print_table,
    say,
    utc_now,
)

if TYPE_CHECKING:
    from drawbar.rows import Known, Named, News, Watch
    from processors.mapping import EntityMapping
    from processors.planning import Plan
    from schemas.coupling import Row
    from schemas.records import Order, System

app = new_app("Which records are coupled; couple and uncouple them by hand.")

State = Literal["coupled", "uncoupled", "single", "claiming", "all"]
Side = Literal["erp", "crm"]
IdleS = Annotated[float, typer.Option("--idle-s", min=0, help="Seconds without progress until it gives up.")]
UNCOUPLE = "uncouple"  # the hold of an uncoupling that the CRM refused

SIDE_BY_SIDE = (
    94  # columns that two ids, a state and an age take; in a narrower terminal the ids stand one below the other
)

NOT_COUPLED = "was not coupled"
WHY_REFUSED = {
    "taken": "it belongs to another pair",
    "unknown": "one of the two is not known there, or deleted",
    "no-match": "the pair is about to be coupled with another record",
    "ambiguous": "several records match",
}


@app.command("list")
def list_couplings(
    ctx: typer.Context,
    mapping: MappingName = None,
    state: Annotated[State, typer.Option("--state", help="Only pairs in this state.")] = "coupled",
    every: Annotated[bool, typer.Option("--all", help="Pairs in every state.")] = False,
    keys: Annotated[bool, typer.Option("--keys", help="Print the business key of each record, too.")] = False,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """List the pairs of each mapping, coupled ones unless told otherwise.

    Example: drawbar couplings list --mapping salesperson-systemuser --state single --keys
    """
    system = running(ctx, connection_file)
    wanted = "all" if every else state
    rows = system.rows.rows()
    known = pair_mappings(system.mappings, mapping)
    pairs = [line for row in rows.values() if row.mapping in known for line in pair_lines(row)]
    pairs = sorted((line for line in pairs if wanted in ("all", line.state)), key=lambda line: line.order)
    if as_json:
        for line in pairs:
            print_json_line(line.to_json())
    else:
        for name, entity_mapping in known.items():
            _print_pairs(entity_mapping, [line for line in pairs if line.mapping == name], keys=keys)
        if not pairs:
            say(f"no {'' if wanted == 'all' else wanted + ' '}pair{'' if mapping is None else f' of {mapping}'}")
    say_unreadable(system.rows)


@app.command()
def show(
    ctx: typer.Context,
    record: Annotated[str, typer.Argument(metavar="REF|KEY", help="Record, by id or business key.")],
    mapping: MappingName = None,
    values: Annotated[bool, typer.Option("--values", help="Print the values of fields, too.")] = False,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Show the pair of one record: both sides, what is under way, what holds it.

    Example: drawbar couplings show erp:salesperson:code=JR
    """
    from drawbar.rows import find_one, parse_named

    system = running(ctx, connection_file)
    found = find_one(parse_named(record), system.rows.rows(), system.mappings.values(), mapping=mapping)
    for known in found:
        described = describe_row(known.row, system.mappings[known.mapping], values=values)
        if as_json:
            line = next(line for line in pair_lines(known.row) if known.ref.id in (line.erp_id, line.crm_id))
            print_json_line({**line.to_json(), **described})
        else:
            print_described(str(known.ref), described, utc_now())


@app.command()
def couple(
    ctx: typer.Context,
    erp: Annotated[str, typer.Argument(metavar="ERP", help="ERP record, by id or business key.")],
    crm: Annotated[str, typer.Argument(metavar="CRM", help="CRM record, by id or business key.")],
    mapping: MappingName = None,
    use: Annotated[
        Optional[Side], typer.Option("--use", help="Whose values stand at first; default: as the mapping says.")
    ] = None,
    wait_s: WaitS = 15,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Couple two records that exist, and wait until it is done.

    Example: drawbar couplings couple erp:salesperson:code=JR crm:systemuser:internalemailaddress=jane@contoso.com
    """
    system = running(ctx, connection_file)
    rows = system.rows.rows()
    one, other = choose(erp, crm, rows, system.mappings, mapping)
    if is_pair(one, other):
        _report(as_json, _Answer(one.mapping, one.ref.id, other.ref.id, "coupled", "was coupled already"))
        return
    refuse_taken(one, other, rows)
    order = couple_order(one, other, use=use or "")
    answer = _ask(
        system,
        order,
        home=other.ref.id,
        mapping=one.mapping,
        judge=lambda news: judge_couple(news, order, one.mapping),
        wait_s=wait_s,
    )
    _report(as_json, answer)
    if answer.result in ("refused", "pending"):
        raise typer.Exit(1)


@app.command()
def uncouple(
    ctx: typer.Context,
    record: Annotated[str, typer.Argument(metavar="ERP_OR_CRM", help="Either record of the pair.")],
    mapping: MappingName = None,
    wait_s: WaitS = 15,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Uncouple the pair of a record, and wait until it is done. It stays uncoupled until it is coupled by hand.

    Example: drawbar couplings uncouple erp:customer:number=C-10
    """
    from drawbar.rows import find_one, parse_named
    from schemas.coupling import PairState
    from schemas.errors import UsageError
    from schemas.records import Order, OrderKind

    system = running(ctx, connection_file)
    found = find_one(parse_named(record), system.rows.rows(), system.mappings.values(), mapping=mapping)
    bound = [
        known
        for known in found
        if known.row.pair is not None and known.row.pair.state in (PairState.COUPLED, PairState.CLAIMING)
    ]
    if len(bound) > 1:
        raise UsageError(
            f"{bound[0].ref} is coupled by several mappings",
            next_step="name one with --mapping: " + ", ".join(known.mapping for known in bound),
        )
    if not bound:
        line = next(line for line in pair_lines(found[0].row) if found[0].ref.id in (line.erp_id, line.crm_id))
        _report(as_json, _Answer(line.mapping, line.erp_id, line.crm_id, "uncoupled", NOT_COUPLED))
        return
    row = bound[0].row
    crm_id = row.pair.crm.id if row.pair is not None and row.pair.crm is not None else ""
    order = Order(order_id=str(uuid.uuid4()), kind=OrderKind.UNCOUPLE, by="operator", erp_id=row.id, crm_id=crm_id)
    judge = UncoupleJudge(order, row.mapping)
    answer = _ask(system, order, home=row.id, mapping=row.mapping, judge=judge, wait_s=wait_s)
    if answer.result == "pending" and judge.parted:
        answer = replace(answer, result="uncoupled")
    _report(as_json, answer)
    if answer.result in ("refused", "pending"):
        raise typer.Exit(1)


# --- batches ------------------------------------------------------------------------------------------------------


@app.command()
def match(
    ctx: typer.Context,
    mapping: MappingName = None,
    preview: Annotated[bool, typer.Option("--preview", help="Only show what would be coupled.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    uncoupled_too: Annotated[
        bool, typer.Option("--uncoupled", help="Match also what was uncoupled by hand, or by an undo.")
    ] = False,
    use: Annotated[
        Optional[Side], typer.Option("--use", help="Whose values stand at first; default: as the mapping says.")
    ] = None,
    records: Annotated[
        Optional[list[str]],
        typer.Option("--record", metavar="REF|KEY", help="Only these records, by id or business key."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Name every record, not only the first few.")] = False,
    idle_s: IdleS = 60,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Couple records that match by the criteria of their mapping. Shows them first and asks; nothing is made.

    Those that are coupled bear the id of this batch, by which all of them can be uncoupled again.

    Example: drawbar couplings match --mapping customer-account --preview
    """
    from processors.planning import Fate, ambiguous_groups
    from schemas.errors import UsageError

    system = running(ctx, connection_file)
    plan = plan_of(system, mapping, use=use or "", uncoupled_too=uncoupled_too)
    without = [name for name in plan.order if not system.mappings[name].match]
    if mapping is not None and without:
        raise UsageError(  # R102
            f"mapping {mapping} has no criteria to match by", next_step="write them into its file under `match`"
        )
    plan = _of_records(plan, records, system) if records else plan
    found = [one for name in plan.order for one in plan.of(name, Fate.MATCH)]
    if not as_json:
        for name in plan.order:
            for line in describe_plan(plan, system.mappings[name], every=every, only=("match", "ambiguous")):
                (typer.echo if preview else say)(line)
    if preview or not found:
        if as_json:
            for one in found:
                print_json_line({"mapping": one.mapping, "erp_id": one.erp_id, "crm_id": one.crm_id, "by": one.why})
            for name in plan.order:
                for group in ambiguous_groups(plan, system.mappings[name]):
                    print_json_line({"mapping": name, "ambiguous": list(group)})
        elif not found:
            say("nothing matches that is not coupled already")
        return
    if not yes:
        typer.confirm(f"Couple {plural(len(found), 'pair')}?", abort=True, err=True)
    batch = new_batch(utc_now())
    say(f"batch {batch}; taken back by drawbar couplings undo {batch}")
    tasks = [couple_task(one, batch, by=f"batch {batch}", use=use or "") for one in found]
    _carry_out_batch(system, tasks, batch, verb="coupled", idle_s=idle_s, as_json=as_json)


def _of_records(plan: Plan, names: list[str], system: Running) -> Plan:
    """What the plan says of some records alone. Raises UsageError for one that nobody knows."""
    from drawbar.rows import find_one, parse_named

    rows = system.rows.rows()
    refs = [find_one(parse_named(name), rows, system.mappings.values())[0].ref for name in names]
    ids = {(ref.system.value, ref.id) for ref in refs}
    kept = [one for one in plan.records if {("erp", one.erp_id), ("crm", one.crm_id)} & ids]
    return replace(plan, records=tuple(kept))


@app.command()
def undo(
    ctx: typer.Context,
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="Id of the batch, as `couplings batches` lists it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    idle_s: IdleS = 60,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Uncouple the pairs that are coupled because of a batch. Their values stay; only the company's stamp is taken off.

    Example: drawbar couplings undo 20260302-091500-7f3a --yes
    """
    from schemas.errors import UsageError

    system = running(ctx, connection_file)
    rows = [row for row in system.rows.rows().values() if _batch_of(row) == batch]
    if not rows:
        raise UsageError(f"no pair is coupled because of batch {batch!r}", next_step="drawbar couplings batches")
    say(f"batch {batch}: {plural(len(rows), 'pair')} will be uncoupled")
    if not yes:
        typer.confirm("Go on?", abort=True, err=True)
    tasks = [_undo_task(row, batch) for row in rows]
    _carry_out_batch(system, tasks, batch, verb="uncoupled", idle_s=idle_s, as_json=as_json)


@app.command()
def batches(ctx: typer.Context, as_json: AsJson = False, connection_file: ConnectionFile = None) -> None:
    """List the batches that pairs are coupled because of, newest first.

    Example: drawbar couplings batches
    """
    system = running(ctx, connection_file)
    found: dict[tuple[str, str], list[Row]] = {}
    for row in system.rows.rows().values():
        if batch := _batch_of(row):
            found.setdefault((batch, row.mapping), []).append(row)
    for (batch, mapping), rows in sorted(found.items(), reverse=True) if as_json else ():
        print_json_line({"batch": batch, "mapping": mapping, "pairs": len(rows), "coupled_at": _first_at(rows)})
    if not as_json and found:
        print_table(
            ("batch", "mapping", "still coupled", "since"),
            [
                (batch, mapping, len(rows), age(_first_at(rows), utc_now()))
                for (batch, mapping), rows in sorted(found.items(), reverse=True)
            ],
        )
    if not found:
        say("no pair is coupled because of a batch")
    say_unreadable(system.rows)


def _first_at(rows: list[Row]) -> Any:
    return min(row.pair.coupled_at for row in rows if row.pair is not None and row.pair.coupled_at is not None)


def _batch_of(row: Row | None) -> str:
    """The batch that the row's pair is coupled because of; blank when it is not coupled, or not by a batch."""
    from schemas.coupling import PairState

    pair = row.pair if row is not None else None
    return pair.batch if pair is not None and pair.state is PairState.COUPLED else ""


def _undo_task(row: Row, batch: str) -> Task:
    from schemas.coupling import PairState
    from schemas.records import Order, OrderKind, derived_id, home_key

    key = home_key(row.mapping, row.id)
    order_id = derived_id("undo", batch, key)
    order = Order(order_id=order_id, kind=OrderKind.UNCOUPLE, by=f"undo of batch {batch}", erp_id=row.id, batch=batch)

    def is_done(row: Row | None, _answer: str) -> bool:
        return row is None or row.pair is None or row.pair.state is not PairState.COUPLED

    def is_ended(row: Row | None, answer: str) -> bool:
        pair = row.pair if row is not None else None
        refused = pair is not None and pair.in_flight is None and UNCOUPLE in pair.holds
        return is_done(row, answer) or refused or bool(answer)

    return Task(
        keys=(key,),
        message=order_message(order, mapping=row.mapping, home=row.id),
        order_id=order_id,
        is_done=is_done,
        is_ended=is_ended,
    )


def _carry_out_batch(
    system: Running, tasks: list[Task], batch: str, *, verb: str, idle_s: float, as_json: bool
) -> None:
    """Raises Exit(1) unless all came about."""
    with progress_bar(verb) as progress:
        carried = carry_out(system.rows, tasks, idle_s=idle_s, progress=progress)
    left: dict[str, int] = {}
    for task in tasks:
        row, answer = carried.rows.get(task.keys[0]), carried.answers.get(task.order_id, "")
        if not task.is_done(row, answer):
            why = answer or ("an open dead letter" if task.is_ended(row, answer) else "not answered")
            left[why] = left.get(why, 0) + 1
    done = len(tasks) - sum(left.values())
    if as_json:
        print_json_line({"batch": batch, verb: done, "left": left})
    else:
        typer.echo(f"{verb}: {plural(done, 'pair')} of batch {batch}")
    for why, count in left.items():
        say(f"not {verb}: {plural(count, 'pair')}, {WHY_REFUSED.get(why, why)}")
    if left:
        say("  do:    see whether the stages run (drawbar status), then drawbar dead-letters list")
        raise typer.Exit(1)


# --- lists --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PairLine:
    """One line of the list."""

    mapping: str
    erp_id: str
    crm_id: str
    state: str
    coupled_at: Any
    row: Row

    @property
    def order(self) -> tuple[str, str, str, str]:
        return self.mapping, self.state, self.erp_id, self.crm_id

    def to_json(self) -> dict[str, Any]:
        at = self.coupled_at.isoformat() if self.coupled_at is not None else None
        return {
            "mapping": self.mapping,
            "erp_id": self.erp_id,
            "crm_id": self.crm_id,
            "state": self.state,
            "coupled_at": at,
        }


def pair_mappings(mappings: Mapping[str, EntityMapping], mapping: str | None) -> dict[str, EntityMapping]:
    """The mappings whose records are coupled, or the one named. Raises UsageError for a name that is none."""
    from drawbar.rows import suggestion
    from schemas.errors import UsageError

    if mapping is None:
        return {name: item for name, item in mappings.items() if item.role == "pair"}
    if mapping not in mappings:
        raise UsageError(f"no mapping is called {mapping!r}", next_step=suggestion(mapping, list(mappings)))
    return {mapping: mappings[mapping]}


def pair_lines(row: Row) -> Iterable[PairLine]:
    """The pair of a home, and the CRM record that was uncoupled from it by hand."""
    pair = row.pair
    if pair is not None:
        yield PairLine(
            mapping=row.mapping,
            erp_id=pair.erp.id if pair.erp is not None else "",
            crm_id=pair.crm.id if pair.crm is not None else pair.claiming,
            state=pair.state.value,
            coupled_at=pair.coupled_at,
            row=row,
        )
    if row.home is not None and row.home.evicted is not None:
        yield PairLine(
            mapping=row.mapping, erp_id="", crm_id=row.home.evicted.id, state="uncoupled", coupled_at=None, row=row
        )


def _print_pairs(mapping: EntityMapping, pairs: list[PairLine], *, keys: bool) -> None:
    from schemas.records import System

    if not pairs:
        return
    now = utc_now()
    erp, crm = f"erp:{mapping.erp}", f"crm:{mapping.crm}"
    stacked = columns() < SIDE_BY_SIDE
    lines = []
    for line in pairs:
        ids = [_cell(line, system, mapping, keys=keys) for system in (System.ERP, System.CRM)]
        held = "*" if line.row.pair is not None and line.row.pair.holds else ""
        since = age(line.coupled_at, now) if line.coupled_at is not None else ""
        lines.append((*(["\n".join(ids)] if stacked else ids), f"{line.state}{held}", since))
    print_table(
        (*([f"{erp}\n{crm}"] if stacked else [erp, crm]), "state", "since"),
        lines,
        title=f"{mapping.name}: {plural(len(pairs), 'pair')}",
    )
    waiting = sum(1 for line in pairs if line.row.pair is not None and line.row.pair.holds)
    if waiting:
        say(f"* held: {waiting} of {mapping.name}; drawbar dead-letters list says why")


def _cell(line: PairLine, system: System, mapping: EntityMapping, *, keys: bool) -> str:
    from drawbar.rows import sides

    record_id = line.erp_id if system.value == "erp" else line.crm_id
    side = next((side for of, side in sides(line.row) if of is system and side.id == record_id), None)
    text = record_id + (" (deleted)" if side is not None and side.deleted else "")
    key = mapping.key_in(system)
    if keys and key is not None and side is not None and side.state.get(key) is not None:
        text += f"\n{key}={side.state[key]}"
    return text


# --- couple -------------------------------------------------------------------------------------------------------


def choose(
    first: str, second: str, rows: Mapping[str, Row], mappings: Mapping[str, EntityMapping], mapping: str | None
) -> tuple[Known, Known]:
    """The ERP and the CRM record that two names stand for, in whichever order they were given.

    Raises UsageError when they cannot be coupled with each other.
    """
    from drawbar.rows import find_one, parse_named
    from schemas.errors import UsageError
    from schemas.records import System

    names: list[Named] = [parse_named(first), parse_named(second)]
    if {named.system for named in names} != set(System):
        raise UsageError("a coupling joins one ERP and one CRM record", next_step="name one of each")
    erp_name, crm_name = sorted(names, key=lambda named: named.system is System.CRM)
    joining = {
        name: item
        for name, item in pair_mappings(mappings, mapping).items()
        if item.erp == erp_name.entity and item.crm == crm_name.entity and item.role == "pair"
    }
    # A name that means nothing is told first, then that the two do not belong together.
    erp = find_one(erp_name, rows, mappings.values(), mapping=mapping)
    crm = find_one(crm_name, rows, mappings.values(), mapping=mapping)
    if len(joining) != 1:
        raise UsageError(
            f"{len(joining) or 'no'} mappings join erp:{erp_name.entity} and crm:{crm_name.entity}",
            next_step=f"name one with --mapping: {', '.join(joining)}"
            if joining
            else "drawbar mappings list shows what can be coupled",
        )
    (name,) = joining
    chosen = [next((known for known in found if known.mapping == name), None) for found in (erp, crm)]
    for found, known in zip((erp, crm), chosen, strict=True):
        if known is None or known.side.deleted:
            what = "is deleted" if known is not None else f"is not known to mapping {name}"
            raise UsageError(f"{found[0].ref} {what}", next_step="couple a record that is there")
    one, other = chosen
    assert one is not None
    assert other is not None
    return one, other


def is_pair(one: Known, other: Known) -> bool:
    from schemas.coupling import PairState

    pair = one.row.pair
    return pair is not None and pair.state is PairState.COUPLED and one.row is other.row


def refuse_taken(one: Known, other: Known, rows: Mapping[str, Row]) -> None:
    """Raises AlreadyCoupled naming the holder when either record has a partner already."""
    from drawbar.rows import holder_of
    from schemas.coupling import PairState
    from schemas.errors import AlreadyCoupled

    pair = one.row.pair
    if pair is not None and pair.state is PairState.COUPLED and pair.crm is not None:
        partner = f"crm:{other.ref.entity}:{pair.crm.id}"
        raise AlreadyCoupled(
            f"{one.ref} is coupled with {partner}",
            next_step=f"first uncouple that pair: drawbar couplings uncouple {one.ref}",
        )
    holder = holder_of(rows, one.mapping, other.ref.id)
    if holder is not None:
        raise AlreadyCoupled(
            f"{other.ref} is coupled with erp:{one.ref.entity}:{holder.id}",
            next_step=f"first uncouple that pair: drawbar couplings uncouple {other.ref}",
        )


def couple_order(one: Known, other: Known, *, use: str) -> Order:
    from schemas.records import Order, OrderKind

    return Order(
        order_id=str(uuid.uuid4()),
        kind=OrderKind.COUPLE,
        by="operator",
        erp_id=one.ref.id,
        crm_id=other.ref.id,
        use=use,
    )


# --- orders and what becomes of them ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the command says in the end."""

    mapping: str
    erp_id: str
    crm_id: str
    result: str  # coupled, uncoupled, refused, pending, sent
    reason: str = ""
    order_id: str = ""
    seconds: float = 0.0


def judge_couple(news: News, order: Order, mapping: str) -> Verdict | None:
    from schemas.coupling import PairState, Row
    from schemas.records import JournalLine

    if isinstance(news, Row) and news.mapping == mapping and news.id == order.erp_id and news.pair is not None:
        pair = news.pair
        if pair.state is PairState.COUPLED and pair.crm is not None and pair.crm.id == order.crm_id:
            return Verdict("coupled")
    if isinstance(news, JournalLine) and news.cause_id == order.order_id:
        if news.event == "coupled":
            return Verdict("coupled")
        if news.event in ("claim-refused", "given-back"):
            return Verdict("refused", news.reason)
    return None


class UncoupleJudge:
    """Follows an uncouple order, which may first wait, and may have the company stamp taken off first.

    It is done when the CRM record has arrived at its own home: on its way there nobody could name it.
    """

    def __init__(self, order: Order, mapping: str) -> None:
        self._order, self._mapping = order, mapping
        self._waits = False
        self._home_again = order.crm_id in ("", order.erp_id)
        self.parted = False

    def __call__(self, news: News) -> Verdict | None:
        from drawbar.rows import Gone
        from schemas.coupling import Row
        from schemas.records import JournalLine, home_key

        if isinstance(news, JournalLine) and news.cause_id == self._order.order_id:
            if news.event == "uncoupled" and news.reason == "was-not-coupled":
                return Verdict("uncoupled", NOT_COUPLED)
            if news.event == "would-write" and ", " in news.reason:
                return Verdict("pending", "a brake holds it; it is carried out once that is off: drawbar brakes show")
            if news.event == "would-write":
                return Verdict("refused", "the system only observes and writes nothing")
        if not isinstance(news, (Row, Gone)):
            return None
        key = news.key if isinstance(news, Gone) else home_key(news.mapping, news.id)
        row = news if isinstance(news, Row) else None
        if key == home_key(self._mapping, self._order.erp_id):
            refused = self._of_pair(row)
            if refused is not None:
                return refused
        elif key == home_key(self._mapping, self._order.crm_id):
            belongs_to = row.home.belongs_to if row is not None and row.home is not None else ""
            self._home_again = belongs_to != self._order.erp_id
        return Verdict("uncoupled") if self.parted and self._home_again else None

    def _of_pair(self, row: Row | None) -> Verdict | None:
        from schemas.coupling import PairState

        pair = row.pair if row is not None else None
        if row is None or pair is None or pair.state in (PairState.UNCOUPLED, PairState.SINGLE):
            self.parted = True
            return None
        waits = any(order.order_id == self._order.order_id for order in row.deferred)
        if self._waits and not waits:
            hold = pair.holds.get("to_crm")
            return Verdict("refused", f"{hold.code} {hold.slug}" if hold is not None else "its write was refused")
        self._waits = waits
        return None


def _ask(
    system: Running,
    order: Order,
    *,
    home: str,
    mapping: str,
    judge: Callable[[News], Verdict | None],
    wait_s: float,
) -> _Answer:
    """Send an order to a home and follow it."""
    from schemas.records import home_key

    keys = {home_key(mapping, record_id) for record_id in (order.erp_id, order.crm_id, home) if record_id}
    began = time.monotonic()
    watching: AbstractContextManager[Watch] = system.rows.watch(keys)
    with watching as watch:
        system.rows.send([order_message(order, mapping=mapping, home=home)])
        verdict = await_verdict(watch, judge, wait_s)
    took = round(time.monotonic() - began, 1)
    unanswered = "pending" if wait_s else "sent"
    result, reason = (verdict.result, verdict.reason) if verdict else (unanswered, "")
    return _Answer(mapping, order.erp_id, order.crm_id, result, reason, order.order_id, took)


def _report(as_json: bool, answer: _Answer) -> None:
    if as_json:
        print_json_line(
            {
                "mapping": answer.mapping,
                "erp_id": answer.erp_id,
                "crm_id": answer.crm_id,
                "state": answer.result,
                "reason": answer.reason,
                "order_id": answer.order_id,
            }
        )
        return
    records = [("ERP", answer.erp_id), ("CRM", answer.crm_id), ("mapping", answer.mapping)]
    both = "\n".join(f"  {name:<8} {text}" for name, text in records if text)
    after = f" ({answer.seconds:g} s)" if answer.order_id else ""
    match answer.result:
        case "refused":
            why = WHY_REFUSED.get(answer.reason, answer.reason)
            say(f"refused: {why}\n{both}\n  do:      look at both with drawbar explain")
        case "pending" if answer.reason:
            say(f"{answer.reason}\n{both}")
        case "pending":
            say(
                f"sent, not answered in {answer.seconds:g} s: the order is carried out once the home can\n"
                f"{both}\n"
                "  do:      see whether the stages run (drawbar status) and what is under way (drawbar explain)"
            )
        case "uncoupled" if answer.reason == NOT_COUPLED:
            typer.echo(f"nothing to uncouple: this record is not coupled\n{both}")
        case _:
            said = f"{answer.result}: {answer.reason}" if answer.reason else answer.result
            typer.echo(f"{said}{after}\n{both}")
