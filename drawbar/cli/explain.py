"""`drawbar explain`: what is known of one record, and why the last decisions about it came out as they did.

A CRM record that belongs to the pair of an ERP record of another id is followed there: the lines of both homes make
one timeline. Values of fields are printed only when asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drawbar.cli.pair_description import describe_row, iso, print_described
from drawbar.cli.running import Running, plural, running, say_unreadable
from drawbar.cli.shared import AsJson, ConnectionFile, MappingName, columns, folded, print_json_line, utc_now
from schemas.errors import UsageError

if TYPE_CHECKING:
    from schemas.coupling import Row
    from schemas.records import DeadLetter, JournalLine

BELOW = 16  # where a line of the timeline goes on: below its event


def explain(
    ctx: typer.Context,
    record: Annotated[str, typer.Argument(metavar="REF|KEY", help="Record, by id or business key.")],
    mapping: MappingName = None,
    last: Annotated[int, typer.Option("--last", min=0, help="Lines of the journal to show.")] = 20,
    values: Annotated[bool, typer.Option("--values", help="Print the values of fields, too.")] = False,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Tell what is known of a record: both sides, coupling, what is under way or holds it, last decisions and why.

    Example: drawbar explain erp:customer:number=C-10
    """
    system, now = running(ctx, connection_file), utc_now()
    ref, homes = homes_of(record, system, mapping)
    keys = sorted({key for row in homes for key in keys_of(row, ref)})
    lines = system.rows.lines(keys, last=max(last, 1))
    if not lines and all(row.is_empty for row in homes):
        raise UsageError(
            f"nothing is known of {ref}",
            next_step="check the id; a record that was just made is known once capture has read it",
        )
    letters = list(system.rows.letters().values())
    described = [
        {
            **describe_row(
                row, system.mappings[row.mapping], values=values, skipped_by_filter=skipped_by_filter(lines, row)
            ),
            "letters": letters_of(row, letters, now),
        }
        for row in homes
        if not row.is_empty
    ]
    lines = lines[-last:] if last else []
    if as_json:
        print_json_line({"ref": ref, "mappings": described, "timeline": [line_json(line) for line in lines]})
    else:
        for one in described:
            print_described(ref, one, now)
            typer.echo("")
        print_timeline(lines)
    say_unreadable(system.rows)


def homes_of(record: str, system: Running, mapping: str | None) -> tuple[str, list[Row]]:
    """The record that is meant and, per mapping, the row that decides for it; an empty one where nothing is known.

    Raises UsageError for a name that means nothing.
    """
    from drawbar.rows import find_one, mappings_of, parse_named
    from schemas.coupling import Row
    from schemas.records import RecordRef, System, home_key

    named = parse_named(record)
    if named.field:
        found = find_one(named, system.rows.rows(), system.mappings.values(), mapping=mapping)
        return str(found[0].ref), [known.row for known in found]
    names = [item.name for item in mappings_of(named, system.mappings.values(), mapping=mapping)]
    at_home = system.rows.rows({home_key(name, named.id) for name in names})
    elsewhere = {
        row.mapping: home_key(row.mapping, row.home.belongs_to)
        for row in at_home.values()
        if named.system is System.CRM and row.home is not None and row.home.belongs_to not in ("", row.id)
    }
    there = system.rows.rows(elsewhere.values()) if elsewhere else {}
    homes = [
        there.get(elsewhere.get(name, "")) or at_home.get(home_key(name, named.id)) or Row(mapping=name, id=named.id)
        for name in names
    ]
    return str(RecordRef(named.system, named.entity, named.id)), homes


def keys_of(row: Row, ref: str) -> Iterable[str]:
    """The homes whose journal tells about a pair: its own, that of its CRM record, and that of the record asked for."""
    from schemas.records import home_key

    yield home_key(row.mapping, row.id)
    yield home_key(row.mapping, ref.rpartition(":")[2])
    if row.pair is not None and row.pair.crm is not None:
        yield home_key(row.mapping, row.pair.crm.id)


# --- as data ------------------------------------------------------------------------------------------------------


def skipped_by_filter(lines: Iterable[JournalLine], row: Row) -> frozenset[str]:
    """The directions of a home in which the last decision was that the mapping's filter stops them."""
    events = ("skipped", "issued", "dead-letter")
    last = {line.direction: line for line in lines if line.home == row.id and line.event in events}
    return frozenset(direction for direction, line in last.items() if line.reason == "outside-filter")


def letters_of(row: Row, letters: Iterable[DeadLetter], now: datetime) -> list[dict[str, Any]]:
    """The letters of a home, open ones first, then the newest."""
    mine = [letter for letter in letters if letter.mapping == row.mapping and letter.home == row.id]
    mine.sort(key=lambda letter: (letter.state.value != "open", -letter.changed_at.timestamp()))
    return [
        {
            "id": letter.letter_id,
            "code": letter.code,
            "slug": letter.slug,
            "state": letter.state.value,
            "direction": letter.direction,
            "missing": letter.missing,
            "opened_at": iso(letter.opened_at),
            "age_s": round((now - letter.opened_at).total_seconds(), 1),
            "changed_by": letter.changed_by,
        }
        for letter in mine
    ]


def line_json(line: JournalLine) -> dict[str, Any]:
    return {
        "at": iso(line.at),
        "mapping": line.mapping,
        "event": line.event,
        "ref": line.ref,
        "direction": line.direction,
        "reason": line.reason,
        "fields": list(line.fields),
        "code": line.code,
        "command_id": line.command_id,
        "cause_id": line.cause_id,
        "latency_ms": line.latency_ms if line.latency_ms >= 0 else None,
    }


# --- for people ---------------------------------------------------------------------------------------------------


def _entry(begin: str, reason: str) -> list[str]:
    """A line of the timeline and what of its reason does not fit there."""
    first, *rest = folded(reason, indent=len(begin)) or [""]
    if len(begin) + len(first) > columns():
        return [begin.rstrip(), *(f"{'':{BELOW}}{text}" for text in folded(reason, indent=BELOW))]
    return [f"{begin}{first}".rstrip(), *(f"{'':{BELOW}}{text}" for text in folded(" ".join(rest), indent=BELOW))]


def print_timeline(lines: Sequence[JournalLine]) -> None:
    """The last decisions and outcomes, oldest first, a day's date where it changes."""
    if not lines:
        return
    typer.echo(f"last {plural(len(lines), 'line')} of the journal (UTC)")
    day = ""
    for line in lines:
        at = line.at.astimezone(timezone.utc)
        if at.strftime("%Y-%m-%d") != day:
            day = at.strftime("%Y-%m-%d")
            typer.echo(f"  {day}")
        clock = f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}"
        code = f" {line.code}" if line.code and line.code not in line.reason else ""
        took = f"  {line.latency_ms} ms after the change" if line.latency_ms >= 0 else ""
        begin = f"  {clock}  {line.event:<13} {line.direction:<7} "
        for text in _entry(begin, f"{line.reason}{code}{took}"):
            typer.echo(text)
        for text in folded(", ".join(line.fields), indent=BELOW):
            typer.echo(f"{'':{BELOW}}{text}")
