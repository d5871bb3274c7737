"""`drawbar sync`: the first load of two systems that both hold data, planned before it is run.

The plan is made of the rows and the mappings alone (`processors/planning.py`); making it writes nothing anywhere. The
run gives orders to the homes: matches first, then creates, mapping after mapping in dependency order.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from drawbar.cli.carrying_out import Task, carry_out, progress_bar
from drawbar.cli.plans import TITLES, couple_task, describe_plan, first_of, new_batch, plan_of, task_of
from drawbar.cli.running import Running, running, say_unreadable
from drawbar.cli.shared import AsJson, ConnectionFile, MappingName, new_app, print_json_line, print_table, say, utc_now

if TYPE_CHECKING:
    from drawbar.rows import Rows
    from processors.mapping import EntityMapping
    from processors.planning import End, Plan, Planned
    from schemas.records import System

app = new_app("Plan and run the first load of two systems that both hold data; take a new base after a restore.")

REQUEST_S = 0.2  # how long one request is taken to last
MEASURED = 2000  # messages between the stages that are looked at for what a look-up and a write cost
ENOUGH = 20  # outcomes of a kind that make a measurement

Ways = Literal["to_crm", "to_erp", "both"]
Create = Annotated[
    Optional[Ways],
    typer.Option("--create", help="Make counterparts in these directions, even if the mapping makes none."),
]

Use = Annotated[
    Optional[Literal["erp", "crm"]],
    typer.Option("--use", help="Whose values stand in pairs that are coupled; default: as the mapping says."),
]


@app.command()
def plan(
    ctx: typer.Context,
    mapping: MappingName = None,
    create: Create = None,
    use: Use = None,
    every: Annotated[bool, typer.Option("--all", help="Name every record, not only the first few.")] = False,
    save: Annotated[Optional[Path], typer.Option("--save", help="Write the plan to this file, for `sync run`.")] = None,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Show what a first load would couple, make and leave, and how long it would take. Writes nothing to any system.

    Example: drawbar sync plan --mapping customer-account --save plan.json
    """
    system = running(ctx, connection_file)
    made = _planned(system, mapping, create, use)
    if save is not None:
        _save(save, made)
        say(f"written: {save}; run it with drawbar sync run --plan {save}")
    if as_json:
        print_json_line(_plan_json(system, made, every=every))
    else:
        _show_plan(system, made, every=every)
    say_unreadable(system.rows)


@app.command()
def run(
    ctx: typer.Context,
    mapping: MappingName = None,
    create: Create = None,
    use: Use = None,
    plan_file: Annotated[
        Optional[Path], typer.Option("--plan", help="Run the plan in this file, or go on with it.", show_default=False)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    idle_s: Annotated[float, typer.Option("--idle-s", min=0, help="Seconds without progress until it gives up.")] = 300,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Couple what matches, then make what has no match, mapping after mapping, and compare the outcome with the plan.

    It can be interrupted anywhere and given again: what is done is not repeated. Exit code 0 only if every record ended
    as planned or as an open dead letter.

    Example: drawbar sync run --plan plan.json --yes
    """
    system = running(ctx, connection_file)
    made = _load(plan_file, system) if plan_file is not None else _planned(system, mapping, create, use)
    _refuse_while_observing(system)
    _show_plan(system, made, every=False, to_stderr=True)
    if not yes:
        typer.confirm("Go on?", abort=True, err=True)
    ends = _run(system, made, idle_s=idle_s)
    if as_json:
        print_json_line(_outcome_json(made, ends))
    else:
        _show_outcome(made, ends)
    if any(end.how.value in ("otherwise", "not ended") for _, end in ends):
        raise typer.Exit(1)


# --- the plan -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Made:
    """A plan under the id by which its orders are known."""

    plan_id: str
    plan: Plan
    use: str = ""


def _planned(system: Running, mapping: str | None, create: str | None, use: str | None) -> Made:
    from schemas.errors import UsageError

    if create and mapping is None:
        raise UsageError("--create is for one mapping at a time", next_step="name it with --mapping")
    made = plan_of(system, mapping, create=create or "", use=use or "")
    return Made(new_batch(utc_now()), made, use or "")


def _save(path: Path, made: Made) -> None:
    from schemas.errors import UsageError

    value = {
        "plan_id": made.plan_id,
        "made_at": utc_now().isoformat(),
        "use": made.use,
        "order": made.plan.order,
        "records": [asdict(one) for one in made.plan.records],
    }
    try:
        path.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as fault:
        raise UsageError(f"the plan cannot be written: {fault.strerror}", where=str(path)) from fault


def _load(path: Path, system: Running) -> Made:
    from processors.planning import Clash, Fate, Plan, Planned
    from schemas.errors import UsageError

    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        records = tuple(
            Planned(
                **{
                    **one,
                    "fate": Fate(one["fate"]),
                    "candidates": tuple(one["candidates"]),
                    "writes": tuple(one["writes"]),
                    "clashes": tuple(Clash(**{**clash, "fields": tuple(clash["fields"])}) for clash in one["clashes"]),
                }
            )
            for one in value["records"]
        )
        made = Made(str(value["plan_id"]), Plan(order=tuple(value["order"]), records=records), str(value["use"]))
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise UsageError(
            "this is no plan", where=str(path), next_step="make one with drawbar sync plan --save"
        ) from fault
    unknown = sorted(set(made.plan.order) - set(system.mappings))
    if unknown:
        raise UsageError(f"the plan is about mappings that there are not: {', '.join(unknown)}", where=str(path))
    return made


def _refuse_while_observing(system: Running) -> None:
    """Raises UsageError when a decide process writes nothing."""
    from schemas.errors import UsageError

    if not system.settings.bus.bootstrap_servers:
        return
    from drawbar.status import BeatReader

    with BeatReader(system.settings.bus) as beats:
        if any(beat.details.get("observing") for beat in beats.beats()):
            raise UsageError(
                "the system only observes and writes nothing", next_step="start it without --observe, then run the plan"
            )


# --- what it costs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    requests: Mapping[System, int]
    seconds: float


def estimate(system: Running, made: Plan) -> Estimate:
    from drawbar.throttle import BURST_SHARE
    from processors.planning import Lane, costs, seconds_for
    from schemas.records import System

    per_kind = measured(system.rows)
    requests: dict[System, float] = dict.fromkeys(System, 0.0)
    for cost in costs(made):
        kind = "look-up" if cost.kind == "look-up" else "write"
        each = per_kind.get((cost.system, kind))
        requests[cost.system] += cost.requests if each is None else cost.count * each
    seconds = []
    for target, count in requests.items():
        part = system.settings.erp if target is System.ERP else system.settings.crm
        lane = Lane(per_5_min=part.requests_per_5_min, max_parallel=part.max_parallel, request_s=REQUEST_S)
        seconds.append(seconds_for(count, lane, burst_share=BURST_SHARE))
    return Estimate(requests={target: round(count) for target, count in requests.items()}, seconds=max(seconds))


def measured(rows: Rows) -> dict[tuple[System, str], float]:
    """Requests per look-up and per write, by the last outcomes of each system, where there are enough of them."""
    from schemas.codec import decode
    from schemas.errors import Undecodable
    from schemas.records import OutcomeStatus, Work
    from schemas.topics import PAIRS_WORK

    kinds = {OutcomeStatus.MATCHED: "look-up", OutcomeStatus.WRITTEN: "write"}
    seen: dict[tuple[System, str], list[int]] = defaultdict(list)
    for message in rows.changes(PAIRS_WORK, last=MEASURED, follow=False):
        try:
            outcome = decode(Work, message.value).outcome
        except Undecodable:
            continue
        if outcome is not None and outcome.status in kinds and outcome.requests:
            seen[outcome.target.system, kinds[outcome.status]].append(outcome.requests)
    return {kind: sum(counts) / len(counts) for kind, counts in seen.items() if len(counts) >= ENOUGH}


# --- running it ---------------------------------------------------------------------------------------------------


def _create_task(one: Planned, batch: str) -> Task:
    from schemas.records import Order, OrderKind, derived_id

    order_id = derived_id("batch", batch, one.mapping, one.home, one.direction)
    return task_of(one, Order(order_id=order_id, kind=OrderKind.RETRY, by=f"sync {batch}", use="create"), home=one.home)


def _run(system: Running, made: Made, *, idle_s: float) -> list[tuple[Planned, End]]:
    """Order and follow, in steps: what a step brings about is what the next relies on."""
    from processors.planning import Fate, How

    answers: dict[str, str] = {}
    all_ended = True
    for name in made.plan.order:
        steps: tuple[tuple[str, tuple[Fate, ...], Callable[[Planned], Task]], ...] = (
            (
                "couple",
                (Fate.MATCH,),
                lambda one: couple_task(one, made.plan_id, by=f"sync {made.plan_id}", use=made.use),
            ),
            ("make", (Fate.CREATE,), lambda one: _create_task(one, made.plan_id)),
            ("settle", (Fate.COUPLED,), lambda one: task_of(one, None, home=one.home)),
        )
        for verb, fates, to_task in steps:
            todo = [one for one in made.plan.of(name, *fates) if one.fate is not Fate.COUPLED or one.writes]
            if not todo:
                continue
            tasks = [to_task(one) for one in _by_turns(todo)]
            with progress_bar(f"{name}: {verb}") as progress:
                carried = carry_out(system.rows, tasks, idle_s=idle_s, progress=progress)
            answers |= {task.keys[0]: carried.answers.get(task.order_id, "") for task in tasks}
            all_ended &= carried.ended == len(tasks)
    found = _ends(system, made, answers)
    after = [task_of(one, None, home=one.home) for one, end in found if end.how is How.OPEN]
    if after and all_ended:  # it was made or coupled, and what the target made of it is on its way back
        with progress_bar("what came back") as progress:
            carry_out(system.rows, after, idle_s=idle_s, progress=progress)
        found = _ends(system, made, answers)
    return found


def _ends(system: Running, made: Made, answers: Mapping[str, str]) -> list[tuple[Planned, End]]:
    """What has become of each record by now."""
    from processors.planning import end_of
    from schemas.records import home_key

    keys = [home_key(one.mapping, one.home) for one in made.plan.records]
    rows = system.rows.rows(keys)
    return [
        (one, end_of(one, rows.get(key), answer=answers.get(key, "")))
        for one, key in zip(made.plan.records, keys, strict=True)
    ]


def _by_turns(todo: Sequence[Planned]) -> Iterator[Planned]:
    """Those of either direction in turns, so that both systems are at work."""
    to_erp = [one for one in todo if one.direction == "to_erp"]
    others = [one for one in todo if one.direction != "to_erp"]
    for pair in zip_longest(others, to_erp):
        yield from (one for one in pair if one is not None)


# --- showing it ---------------------------------------------------------------------------------------------------


def _counts(made: Plan, name: str) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for one in made.of(name):
        counts[one.fate.value + (f"_{one.direction}" if one.fate.value == "create" else "")] += 1
        for direction in one.writes:
            counts[f"writes_{direction}"] += 1
        counts["clashes"] += bool(one.clashes)
    return dict(counts)


def _record_json(one: Planned, mapping: EntityMapping) -> dict[str, Any]:
    from processors.planning import refs_of

    facts = asdict(one)
    return {
        "refs": list(refs_of(one, mapping)),
        **{name: value for name, value in facts.items() if value not in ("", (), 0)},
    }


def _plan_json(system: Running, made: Made, *, every: bool) -> dict[str, Any]:
    from processors.planning import Fate, ambiguous_groups

    cost = estimate(system, made.plan)
    mappings = {}
    for name in made.plan.order:
        mapping = system.mappings[name]
        shown = [one for fate in Fate for one in first_of(made.plan.of(name, fate), every=every)]
        mappings[name] = {
            "counts": _counts(made.plan, name),
            "ambiguous": [list(group) for group in ambiguous_groups(made.plan, mapping)],
            "records": [_record_json(one, mapping) for one in shown],
        }
    return {
        "plan_id": made.plan_id,
        "order": list(made.plan.order),
        "mappings": mappings,
        "requests": {target.value: count for target, count in cost.requests.items()},
        "seconds": round(cost.seconds, 1),
    }


def _show_plan(system: Running, made: Made, *, every: bool, to_stderr: bool = False) -> None:
    from schemas.records import System

    write: Callable[[str], None] = say if to_stderr else typer.echo
    for name in made.plan.order:
        all_by = "drawbar sync plan --all" if to_stderr else "--all"
        for line in describe_plan(made.plan, system.mappings[name], every=every, all_by=all_by):
            write(line)
    cost = estimate(system, made.plan)
    write(
        f"requests: {cost.requests[System.CRM]:,} to the CRM, {cost.requests[System.ERP]:,} to the ERP; "
        f"about {_span(cost.seconds)}"
    )


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _by_fate(ends: Iterable[tuple[Planned, End]]) -> dict[tuple[str, str], Counter[str]]:
    found: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for one, end in ends:
        found[one.mapping, one.fate.value][end.how.value] += 1
    return found


def _show_outcome(made: Made, ends: Sequence[tuple[Planned, End]]) -> None:
    hows = ("as planned", "dead letter", "otherwise", "not ended")
    table = _by_fate(ends)
    print_table(
        ("mapping", "plan", "records", *hows),
        [
            (name, TITLES[fate], sum(counts.values()), *(counts[how] or "" for how in hows))
            for (name, fate), counts in sorted(table.items(), key=lambda item: made.plan.order.index(item[0][0]))
        ],
        title=f"plan {made.plan_id} and outcome",
    )
    causes = Counter((end.how.value, end.why) for _, end in ends if end.why)
    for (how, why), count in causes.most_common(20):
        say(f"  {count:>6,}  {how}: {why}")
    if any(end.how.value == "not ended" for _, end in ends):
        say("not all have ended: see whether the stages run (drawbar status), then give the command again")


def _outcome_json(made: Made, ends: Sequence[tuple[Planned, End]]) -> dict[str, Any]:
    return {
        "plan_id": made.plan_id,
        "outcome": [
            {
                "mapping": name,
                "plan": fate,
                "records": sum(counts.values()),
                **{how.replace(" ", "_"): count for how, count in counts.items()},
            }
            for (name, fate), counts in _by_fate(ends).items()
        ],
        "causes": [
            {"how": how, "why": why, "records": count}
            for (how, why), count in Counter((end.how.value, end.why) for _, end in ends if end.why).items()
        ],
    }
