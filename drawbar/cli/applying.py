"""`drawbar mappings apply`: other mapping files come into force while everything runs.

The order makes it safe. Capture and the sinks take the files first: they only come to know more fields, and what they
bring is there before anybody decides by it. Then decide takes them, and each record of a mapping that changed is looked
at once. A command that was killed is given again: it finds on the topic how far it came.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drawbar.cli.carrying_out import Carried, Task, carry_out, progress_bar
from drawbar.cli.mappings import difference, findings_of, named_systems, print_difference
from drawbar.cli.orders import order_message
from drawbar.cli.running import Running, plural, running, who
from drawbar.cli.shared import ConnectionFile, ask, print_error, say
from schemas.errors import MappingsNotTaken

if TYPE_CHECKING:
    from processors.mapping import EntityMapping
    from processors.mapping_diff import MappingChange, NewFields
    from schemas.coupling import Row
    from schemas.mapping_set import MappingSet
    from schemas.records import System

AHEAD = ("capture", "sink-erp", "sink-crm")  # stages that only need to know which fields there are
LOOK_EVERY_S = 0.3
TELL_EVERY_S = 5.0
LINES_EACH = 20  # of the journal, newest first, in which the writes are looked for
BEATS_S = 10.0  # after so long without a capture process, none is there


def apply(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the changed files.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    idle_s: Annotated[
        float, typer.Option("--idle-s", min=1, help="Seconds in which no record was looked at, after which to end.")
    ] = 60,
    connection_file: ConnectionFile = None,
) -> None:
    """Put the files in a folder in force while everything runs: what changes is shown first, and nothing is lost.

    Every stage takes them, new fields are captured, and each record of a mapping that changed is looked at once. Cut
    off, the command is given again. `drawbar mappings diff FOLDER` shows the same and changes nothing.

    Example: drawbar mappings apply ./mappings-of-tomorrow
    """
    from drawbar.cli.in_force import loaded, of_folder
    from drawbar.mapping_sets import read_sets

    system = running(ctx, connection_file)
    _stop_at_faults(folder, system)
    meant = of_folder(folder, by=who())
    sets = read_sets(system.settings.bus)
    before = sets.in_force or of_folder(system.settings.mappings_dir, by="")
    after = loaded(meant, system.settings)
    found = difference(system, after)
    if meant.version == before.version:
        if before.is_seen and sets.next is None:
            typer.echo("the files say what is in force: nothing to do")
            return
        typer.echo("the files are in force; what was not finished goes on")
    else:
        print_difference(found)
        if not yes:
            ask("Put these files in force?")
    change = _Change(
        system=system,
        before=before,
        meant=to_be_seen(meant, before, found.changes),
        after=after,
        new=found.new_fields,
    )
    change.switch()
    carried, written = change.look_at_records(idle_s=idle_s)
    change.finish(carried, written)


def to_be_seen(meant: MappingSet, before: MappingSet, changes: Iterable[MappingChange]) -> MappingSet:
    """With the records that are to be looked at: for these changes, and for earlier ones that were never finished."""
    from processors.mapping_diff import unseen_lines

    changes = tuple(changes)
    unseen = {**before.unseen}
    for name, lines in unseen_lines(changes).items():
        unseen[name] = tuple(dict.fromkeys((*unseen.get(name, ()), *lines)))
    gone = {change.name for change in changes if change.kind == "removed"}
    added = (*before.added, *(change.name for change in changes if change.kind == "added"))
    return replace(
        meant,
        unseen={name: lines for name, lines in unseen.items() if name not in gone},
        added=tuple(name for name in dict.fromkeys(added) if name not in gone),
    )


def _stop_at_faults(folder: Path, system: Running) -> None:
    """Faults are printed and end the command. Raises the coded error of a system that does not tell its metadata."""
    from drawbar.cli.mappings import check_folder

    settings = system.settings
    _, faults = check_folder(folder, compat=settings.compat, ownership=settings.ownership)
    if not faults:
        findings = findings_of(folder, settings, named_systems(settings))
        faults = [finding.error for finding in findings if finding.stops]
    for fault in faults:
        print_error(fault)
    if faults:
        raise typer.Exit(max(fault.exit_code for fault in faults))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """From the files in force to those that are meant, step by step."""

    system: Running
    before: MappingSet
    meant: MappingSet
    after: Mapping[str, EntityMapping]
    new: tuple[NewFields, ...]
    begun_at: float = field(default_factory=time.monotonic)

    def switch(self) -> None:
        """All stages to these files. Raises MappingsNotTaken, BusUnavailable."""
        from drawbar.mapping_sets import await_taken, put_set
        from schemas.mapping_set import IN_FORCE, NEXT

        bus, version = self.system.settings.bus, self.meant.version
        if version != self.before.version:
            self._register_schemas()
            put_set(bus, NEXT, self.meant)
            count = await_taken(bus, AHEAD, version, tell=say)
            self._say(f"taken by capture and sinks ({count})")
            self._await_captured()
            put_set(bus, IN_FORCE, self.meant)
        put_set(bus, NEXT, None)
        count = await_taken(bus, ("process",), version, tell=say)
        self._say(f"in force: taken by decide ({count})" if count else "in force; nothing decides just now")
        self._capture_added()

    def look_at_records(self, *, idle_s: float) -> tuple[Carried, int]:
        """Each record of a mapping that changed, once; what was looked at, and how many were written."""
        from schemas.records import home_key

        rows = self.system.rows.rows()
        todo = {
            home_key(row.mapping, row.id): row
            for row in rows.values()
            if row.mapping in self.meant.unseen and row.pair is not None and self._is_pair(row.mapping)
        }
        tasks = [self._task(key, row) for key, row in todo.items()]
        with progress_bar("records looked at") as progress:
            carried = carry_out(self.system.rows, tasks, idle_s=idle_s, progress=progress)
        if carried.ended < len(tasks):
            raise MappingsNotTaken(f"{len(tasks) - carried.ended} of {len(tasks)} records were not looked at")
        ours = {task.order_id for task in tasks}
        lines = self.system.rows.lines(todo, last=LINES_EACH * len(todo)) if todo else []
        return carried, sum(line.event == "issued" and line.cause_id in ours for line in lines)

    def finish(self, carried: Carried, written: int) -> None:
        from drawbar.mapping_sets import put_set
        from schemas.mapping_set import IN_FORCE

        put_set(self.system.settings.bus, IN_FORCE, replace(self.meant, unseen={}, added=()))
        pairs = [row.pair for row in carried.rows.values() if row.pair is not None]
        self._say(f"{plural(len(pairs), 'record')} looked at, {written} written")
        kept, held = sum(bool(pair.kept_back) for pair in pairs), sum(bool(pair.holds) for pair in pairs)
        if kept:
            typer.echo(f"  {plural(kept, 'record')} kept back by a brake: drawbar brakes show")
        if held:
            typer.echo(f"  {plural(held, 'record')} with an open dead letter: drawbar dead-letters list")

    # --- steps ------------------------------------------------------------------------------------------------------

    def _register_schemas(self) -> None:
        """Columns for the new fields. Raises SchemaIncompatible, RegistryUnavailable: then nothing is switched."""
        settings = self.system.settings
        if not settings.registry.url:
            return
        from drawbar.cli.schemas import schemas_for
        from drawbar.registry import Registry

        with Registry(settings.registry) as registry:
            done = registry.apply(schemas_for(settings, self.after))
        changed = [one.subject for one in done if one.what in ("new", "changed")]
        if changed:
            self._say(f"registered: {', '.join(changed)}")

    def _await_captured(self) -> None:
        """Return when capture has read all records with the new fields, and their rows hold them."""
        from drawbar.status import TrafficReader
        from schemas.topics import PAIRS_WORK

        if not self.new:
            return
        wanted = self._field_sets()
        names = ", ".join(f"{system}.{entity}" for system, entity in wanted)
        bus, told_at, seen_at = self.system.settings.bus, time.monotonic(), time.monotonic()
        from drawbar.status import BeatReader

        with BeatReader(bus) as beats:
            while left := self._not_captured(wanted):
                beats.poll(LOOK_EVERY_S)
                now = time.monotonic()
                if any(beat.stage == "capture" for beat in beats.beats()):
                    seen_at = now
                elif now - seen_at > BEATS_S:
                    raise MappingsNotTaken(
                        f"no capture process reads {', '.join(left)} with the new fields",
                        next_step="start capture, then give the command again",
                    )
                if now - told_at > TELL_EVERY_S:
                    told_at = now
                    say(f"capture reads {', '.join(left)} anew")
        routed = self._routed(wanted)
        with TrafficReader(bus, topics=[*routed, PAIRS_WORK]) as traffic:
            for part in (routed, [PAIRS_WORK]):
                ends = traffic.ends(part)
                while traffic.not_read(ends):
                    time.sleep(LOOK_EVERY_S)
        self._say(f"{names} read anew, with the new fields")

    def _routed(self, wanted: Iterable[tuple[str, str]]) -> list[str]:
        """The topics of these entities that decide reads by the files still in force; others it reads later, whole."""
        from processors.route import changes_topics, routes_of
        from schemas.topics import changes_topic

        read_now = changes_topics(routes_of(self.system.mappings.values()))
        return [topic for key in wanted if (topic := changes_topic(*key)) in read_now]

    def _field_sets(self) -> dict[tuple[str, str], str]:
        from processors.mapping_files import captured_entities
        from producers.capture import field_set_of

        fields = captured_entities(self.after.values())
        return {(new.system.value, new.entity): field_set_of(fields[new.system, new.entity]) for new in self.new}

    def _not_captured(self, wanted: Mapping[tuple[str, str], str]) -> list[str]:
        from drawbar.mapping_sets import captured_field_sets

        done = captured_field_sets(self.system.settings.bus)
        return [
            f"{system}.{entity}" for (system, entity), fields in wanted.items() if done.get((system, entity)) != fields
        ]

    def _capture_added(self) -> None:
        """Records that another mapping has captured already have not come to a mapping that there was not."""
        from drawbar.hints import send_hints

        sides: set[tuple[System, str]] = set()
        for name in self.meant.added:
            sides |= {(system, entity) for system, entity in _entities_of(self.after[name])}
        if sides:
            send_hints(
                self.system.settings.bus, sorted((system.value, entity) for system, entity in sides), kind="anew"
            )

    def _is_pair(self, name: str) -> bool:
        return name in self.after and self.after[name].role == "pair"

    def _task(self, key: str, row: Row) -> Task:
        from schemas.records import Order, OrderKind, derived_id

        order = Order(
            order_id=derived_id("remap", self.meant.version, key),
            kind=OrderKind.REMAP,
            by=f"mappings {self.meant.version}",
            fields=self.meant.unseen[row.mapping],
        )

        def is_ended(now: Row | None, answer: str) -> bool:
            is_idle = now is None or now.pair is None or now.pair.in_flight is None
            return bool(answer) and is_idle

        return Task(
            keys=(key,),
            message=order_message(order, mapping=row.mapping, home=row.id),
            order_id=order.order_id,
            is_done=lambda _row, _answer: False,
            is_ended=is_ended,
        )

    def _say(self, text: str) -> None:
        typer.echo(f"{time.monotonic() - self.begun_at:5.1f} s  {text}")


def _entities_of(mapping: EntityMapping) -> list[tuple[System, str]]:
    from schemas.records import System

    return [(system, entity) for system in System if (entity := mapping.entity_in(system)) is not None]
