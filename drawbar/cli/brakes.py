"""`drawbar pause | resume`, `drawbar brakes show | release`: what is held on purpose, and how it goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from drawbar.cli.running import age, parse_when, plural, who
from drawbar.cli.shared import AsJson, ConnectionFile, new_app, open_running, print_json_line, print_table, say, utc_now
from schemas.errors import UsageError

if TYPE_CHECKING:
    from drawbar.settings import Settings
    from drawbar.status import Beat
    from processors.mapping import EntityMapping
    from schemas.brakes import Brake
    from schemas.coupling import KeptBack, Row

app = new_app("What is held on purpose or stopped by itself: see it, let it happen.")

FIRST = 10  # records that are named

Mapping_ = Annotated[
    Optional[str], typer.Option("--mapping", metavar="MAPPING", help="Only this mapping.", show_default="all")
]
Direction_ = Annotated[
    Optional[str],
    typer.Option("--direction", metavar="to_crm|to_erp", help="Only what is written there.", show_default="both"),
]


# --- pause, resume ----------------------------------------------------------------------------------------------------


def pause(
    mapping: Mapping_ = None,
    direction: Direction_ = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, for those who find it paused.")] = "",
    connection_file: ConnectionFile = None,
) -> None:
    """Write nothing more in these directions, and lose nothing: what changes meanwhile is written after `resume`.

    Returns once every process keeps to it: what was under way then finishes, and nothing new leaves. It stays so across
    restarts, until `drawbar resume`.

    Example: drawbar pause --mapping customer-account --direction to_erp --reason "stocktaking"
    """
    from drawbar.brakes import read_brakes, set_brakes
    from processors.brakes import paused
    from schemas.brakes import ALL

    settings, mappings = _open(connection_file)
    keys = _keys(mappings, mapping, direction)
    before = read_brakes(settings.bus)
    for key in keys:
        if key in before and before[key].on:
            say(f"{_named(key)}: was {before[key].word} already, by {before[key].by}")
    if ALL in before and before[ALL].on and ALL not in keys:
        say(f"everything was paused already, by {before[ALL].by}")
    wanted = paused(keys, before, by=who(), at=utc_now(), reason=reason)
    offset = set_brakes(settings.bus, wanted)
    _confirm(settings, offset)
    for key in wanted:
        say(f"{_named(key)}: paused; what was under way finishes, nothing new is written")


def resume(mapping: Mapping_ = None, direction: Direction_ = None, connection_file: ConnectionFile = None) -> None:
    """Go on writing where `pause` stopped it; each record is written once, as it is by then.

    What stopped by itself stays stopped: see `drawbar brakes show`, and let it go by `drawbar brakes release`.

    Example: drawbar resume --mapping customer-account --direction to_erp
    """
    from drawbar.brakes import read_brakes, set_brakes
    from processors.brakes import resumed

    settings, mappings = _open(connection_file)
    keys = _keys(mappings, mapping, direction)
    before = read_brakes(settings.bus)
    every = _every(mappings, before)
    wanted = resumed(keys, before, every, by=who(), at=utc_now())
    _confirm(settings, set_brakes(settings.bus, wanted))
    for key, brake in wanted.items():
        say(f"{_named(key)}: " + ("stays paused" if brake.on else "goes on"))
    stopped = [key for key in every if key in before and before[key].on and before[key].is_automatic]
    for key in stopped:
        say(
            f"{key}: stopped by itself ({before[key].code}); see drawbar brakes show, then drawbar brakes release {key}"
        )
    if not wanted:
        say("nothing of this was paused")
        raise typer.Exit(1 if stopped else 0)


# --- show, release ----------------------------------------------------------------------------------------------------


@app.command("show")
def show(
    records: Annotated[int, typer.Option("--records", min=0, help="Name at most this many of each.")] = FIRST,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Show what is paused or stopped, why, since when, and what would be written or deleted if it were let go.

    Example: drawbar brakes show --records 20
    """
    settings, mappings = _open(connection_file)
    held = _held(settings, mappings)
    if as_json:
        for one in held:
            print_json_line(one.to_json(records))
        return
    if not held:
        typer.echo("nothing is paused, and nothing stopped by itself")
        return
    _print(held, records)


@app.command("release")
def release(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="As `brakes show` names it: MAPPING:DIRECTION or ENTITY.")
    ],
    free_for: Annotated[
        Optional[str],
        typer.Option("--for", metavar="TIME", help="For so long nothing counts as too much, such as 30m or 2h."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Let happen what stopped by itself: records that would be changed, or deleted. Shows it and asks first.

    What is held now does not count again, so that it does not stop at once on the same records; what comes later does,
    unless `--for` says for how long it does not.

    Example: drawbar brakes release customer-account:to_crm --for 30m
    """
    from schemas.brakes import ALL

    settings, mappings = _open(connection_file)
    held = {one.what: one for one in _held(settings, mappings)}
    meant = held.get(what.replace("erp:", "erp.").replace("crm:", "crm."), held.get(what))
    if meant is None or not meant.code:
        stopped = ", ".join(name for name, one in held.items() if one.code) or "nothing"
        paused = meant is not None and not meant.code
        raise UsageError(
            f"{what} was paused by a person" if paused else f"{what!r} has not stopped by itself",
            next_step=(f"drawbar resume, without --mapping for {ALL}" if paused else f"stopped now: {stopped}"),
        )
    now = utc_now()
    span = now - parse_when(free_for, now=now) if free_for else None
    if not yes:
        _print([meant], FIRST, to_stderr=True)
        typer.confirm("Let it happen?", abort=True, err=True)
    if meant.entity is not None:
        from drawbar.hints import send_hints

        if span is not None:
            raise UsageError("--for is about changes; deletes are released once", next_step="leave --for out")
        send_hints(settings.bus, [meant.entity], kind="confirm-deletes")
        say(f"{meant.what}: the deletes are published with the next look")
        return
    from drawbar.brakes import read_brakes, set_brakes
    from processors.brakes import let_through

    brake = let_through(read_brakes(settings.bus)[meant.what], by=who(), at=utc_now(), free_for=span)
    _confirm(settings, set_brakes(settings.bus, {meant.what: brake}))
    say(f"{meant.what}: {plural(meant.records, 'record')} go on")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One thing that does not go on, and what it holds."""

    what: str  # mapping:direction, `*`, or the entity whose deletes are held
    state: str  # paused, stopped, only observed; going on: let go, and not all through yet
    since: datetime | None
    by: str = ""
    reason: str = ""
    code: str = ""
    records: int = 0
    kinds: Mapping[str, int] = field(default_factory=dict)
    fields: Mapping[str, int] = field(default_factory=dict)  # of the target -> records
    refs: Sequence[str] = ()  # longest held first
    entity: tuple[str, str] | None = None

    def to_json(self, records: int) -> dict[str, Any]:
        mapping, _, direction = self.what.rpartition(":")
        return {
            "what": self.what,
            "mapping": mapping,
            "direction": direction if mapping else "",
            "state": self.state,
            "since": self.since,
            "by": self.by,
            "reason": self.reason,
            "code": self.code,
            "records": self.records,
            "kinds": dict(self.kinds),
            "fields": dict(self.fields),
            "first": list(self.refs[:records]),
        }


def held_by_brakes(
    rows: Iterable[Row], brakes: Mapping[str, Brake], mappings: Mapping[str, EntityMapping], *, observing: bool = False
) -> list[Held]:
    """Each brake that is on with what it holds; and what is held under none: while the system only observes, or
    because it was just let go.
    """
    from schemas.brakes import ALL, brake_key

    on = {key: brake for key, brake in brakes.items() if brake.on}
    kept: dict[str, list[tuple[KeptBack, str]]] = {key: [] for key in on}
    for row in rows:
        for direction, one in (row.pair.kept_back if row.pair is not None else {}).items():
            key = brake_key(row.mapping, direction)
            under = key if key in on or ALL not in on else ALL
            if row.mapping in mappings:
                kept.setdefault(under, []).append((one, _source(row, mappings[row.mapping], direction)))
    found = []
    for key, all_kept in sorted(kept.items()):
        all_kept.sort(key=lambda item: (item[0].since, item[1]))
        brake = on.get(key)
        found.append(
            Held(
                what=key,
                state=brake.word if brake is not None else "only observed" if observing else "going on",
                since=brake.at if brake is not None else None,
                by=brake.by if brake is not None else "",
                reason=brake.reason if brake is not None else "",
                code=brake.code if brake is not None else "",
                records=len(all_kept),
                kinds=dict(Counter(one.kind.value for one, _ in all_kept)),
                fields=dict(Counter(name for one, _ in all_kept for name in one.fields).most_common()),
                refs=tuple(ref for _, ref in all_kept),
            )
        )
    return found


def held_by_capture(beats: Iterable[Beat]) -> list[Held]:
    """Each entity that stopped because of its deletes."""
    from drawbar.status import parse_time
    from schemas.errors import MassDelete

    found = []
    for beat in beats:
        for entity, look in beat.entities.items():
            deletes = look.get("deletes")
            if look.get("state") != "stopped" or look.get("reason") != MassDelete.code:
                continue
            said = deletes if isinstance(deletes, Mapping) else {}
            system, _, name = entity.partition(".")
            missing = int(said.get("missing") or 0)
            found.append(
                Held(
                    what=entity,
                    state="stopped",
                    since=parse_time(said.get("since")),
                    by=beat.name,
                    reason="too many deletes at once",
                    code=MassDelete.code,
                    records=missing,
                    kinds={"delete": missing},
                    refs=tuple(f"{system}:{name}:{record}" for record in said.get("first") or ()),
                    entity=(system, name),
                )
            )
    return sorted(found, key=lambda one: one.what)


def _source(row: Row, mapping: EntityMapping, direction: str) -> str:
    """The record whose change is held."""
    from schemas.records import System

    pair = row.pair
    sides = {System.ERP: pair.erp if pair else None, System.CRM: pair.crm if pair else None}
    first = System.ERP if direction == "to_crm" else System.CRM
    system = first if sides[first] is not None else first.other
    side = sides[system]
    return f"{system}:{mapping.entity_in(system)}:{side.id if side is not None else row.id}"


def _held(settings: Settings, mappings: Mapping[str, EntityMapping]) -> list[Held]:
    from drawbar.brakes import read_brakes
    from drawbar.rows import KafkaRows
    from drawbar.status import BeatReader

    rows = KafkaRows(settings.bus).rows().values()
    with BeatReader(settings.bus) as reader:
        beats = reader.beats()
    observing = any(beat.details.get("observing") for beat in beats)
    return [
        *held_by_brakes(rows, read_brakes(settings.bus), mappings, observing=observing),
        *held_by_capture(beats),
    ]


def _print(held: Sequence[Held], records: int, *, to_stderr: bool = False) -> None:
    now = utc_now()
    echo = say if to_stderr else typer.echo
    if not to_stderr:
        print_table(
            ("what", "state", "since", "by", "records", "why"),
            [
                (
                    _named(one.what),
                    one.state,
                    f"{age(one.since, now)} ago" if one.since is not None else "",
                    one.by,
                    one.records,
                    f"{one.code} {one.reason}".strip(),
                )
                for one in held
            ],
        )
    for one in held:
        if not one.records:
            continue
        kinds = ", ".join(plural(count, kind) for kind, count in one.kinds.items())
        echo(f"{_named(one.what)}: would be {'published' if one.entity else 'written'}: {kinds}")
        for name, count in one.fields.items():
            echo(f"  {count:>6} x {name}")
        for ref in one.refs[:records]:
            echo(f"  {ref}")
        if one.records > len(one.refs[:records]):
            echo(f"  and {one.records - len(one.refs[:records])} more")
    for one in held:
        if one.code and not to_stderr:
            echo(f"to let it happen: drawbar brakes release {one.what}")


# --- what is meant ----------------------------------------------------------------------------------------------------


def _open(connection_file: Path | None) -> tuple[Settings, Mapping[str, EntityMapping]]:
    from drawbar.cli.in_force import mappings_in_force
    from drawbar.cli.status import reach

    settings = open_running(connection_file)
    reach(settings)
    return settings, mappings_in_force(settings)


def _keys(mappings: Mapping[str, EntityMapping], mapping: str | None, direction: str | None) -> tuple[str, ...]:
    """The brakes that are meant. Raises UsageError."""
    from drawbar.rows import suggestion
    from processors.mapping import DIRECTIONS
    from schemas.brakes import ALL, brake_key

    known = [name for name, item in mappings.items() if item.role == "pair"]
    if mapping is not None and mapping not in known:
        raise UsageError(f"no mapping that writes is called {mapping!r}", next_step=suggestion(mapping, known))
    if direction is not None and direction not in DIRECTIONS:
        raise UsageError(f"--direction is to_crm or to_erp, not {direction!r}")
    if mapping is None and direction is None:
        return (ALL,)
    names = known if mapping is None else [mapping]
    return tuple(brake_key(name, way) for name in names for way in DIRECTIONS if direction in (None, way))


def _every(mappings: Mapping[str, EntityMapping], before: Mapping[str, Brake]) -> tuple[str, ...]:
    """Every brake there is but that of everything; those of mappings that are gone included."""
    from processors.mapping import DIRECTIONS
    from schemas.brakes import ALL, brake_key

    known = [brake_key(name, way) for name, item in mappings.items() if item.role == "pair" for way in DIRECTIONS]
    return tuple(dict.fromkeys((*known, *(key for key in before if key != ALL))))


def _confirm(settings: Settings, offset: int) -> None:
    from drawbar.brakes import await_confirmed

    if offset < 0:
        return
    count = await_confirmed(settings.bus, offset)
    if not count:
        say("no process decides now; those that start will keep to it")


def _named(key: str) -> str:
    return "everything" if key == "*" else key
