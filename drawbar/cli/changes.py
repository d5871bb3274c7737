"""`drawbar changes`: the change stream of one entity, for analysts."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from drawbar.cli.running import running, say_unreadable, stamp
from drawbar.cli.shared import AsJson, ConnectionFile, print_json_line, say

if TYPE_CHECKING:
    from drawbar.ports import InMessage

TAIL = 20  # changes that are shown when nothing else is said


def changes(
    ctx: typer.Context,
    system: Annotated[Literal["erp", "crm"], typer.Argument(help="System the changes come from.")],
    entity: Annotated[str, typer.Argument(help="Entity by its own name there, such as customer or account.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="New changes from now on, until interrupted.")] = False,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="All that the topic keeps.")] = False,
    limit: Annotated[
        Optional[int],
        typer.Option("--limit", min=1, help=f"At most this many.  [default: the last {TAIL}]", show_default=False),
    ] = None,
    values: Annotated[bool, typer.Option("--values", help="Print the values of fields, too.")] = False,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Print what capture saw of one entity, oldest first: record, time, version, which fields; values when asked for.

    Example: drawbar changes erp customer --follow
    """
    from drawbar.rows import suggestion
    from schemas.errors import UsageError
    from schemas.records import System
    from schemas.topics import changes_topic

    open_system = running(ctx, connection_file)
    known = sorted({name for item in open_system.mappings.values() if (name := item.entity_in(System(system)))})
    if entity not in known:
        raise UsageError(f"{system}:{entity} is not captured", next_step=suggestion(entity, known))
    last = None if from_beginning else 0 if follow else limit or TAIL
    stream = open_system.rows.changes(changes_topic(system, entity), last=last, follow=follow)
    shown, unreadable = 0, 0
    try:
        for message in islice(stream, limit):
            line = describe_change(message, f"{system}:{entity}", values=values)
            unreadable += "unreadable" in line
            shown += 1
            if as_json:
                print_json_line(line)
            else:
                _print(line)
    except KeyboardInterrupt:
        pass  # the way to end --follow
    if not shown and not follow:
        say(f"no change of {system}:{entity} is kept")
    if unreadable:
        say(f"{unreadable} of these cannot be decoded")
    say_unreadable(open_system.rows)


def describe_change(message: InMessage, entity: str, *, values: bool) -> dict[str, Any]:
    """One message of a changes topic as plain data. Values of fields only when asked for."""
    from schemas.codec import decode, to_datum
    from schemas.errors import Undecodable
    from schemas.records import ChangeEvent

    place = {"topic": message.topic, "partition": message.partition, "offset": message.offset}
    key = message.key.decode(errors="backslashreplace")
    at = datetime.fromtimestamp(message.timestamp_ms / 1000, tz=timezone.utc).isoformat()
    if message.value is None:
        return {**place, "ref": f"{entity}:{key}", "operation": "tombstone", "published_at": at}
    try:
        event = decode(ChangeEvent, message.value)
    except Undecodable as fault:
        return {**place, "ref": f"{entity}:{key}", "unreadable": fault.message, "published_at": at}
    described: dict[str, Any] = {
        **place,
        "event_id": event.event_id,
        "ref": str(event.ref),
        "operation": event.operation.value,
        "version": event.version,
        "order": event.order,
        "modified_at": event.modified_at.isoformat(),
        "captured_at": event.captured_at.isoformat(),
        "published_at": at,
        "skew_ms": event.skew_ms,
        "field_set": event.field_set,
        "fields": sorted(event.after or {}),
    }
    if values:
        raw = to_datum(event)["after"]
        described["after"] = None if raw is None else {name: _number(value) for name, value in raw.items()}
    return described


def _number(value: Any) -> Any:
    """An amount as its digits; JSON's own numbers would round it."""
    return str(value) if isinstance(value, Decimal) else value


def _print(line: dict[str, Any]) -> None:
    if "modified_at" not in line:
        typer.echo(f"{'':19}  {line.get('operation', 'unreadable'):<9} {line['ref']}")
        return
    modified, captured = datetime.fromisoformat(line["modified_at"]), datetime.fromisoformat(line["captured_at"])
    took = max(0, round((captured - modified).total_seconds() * 1000) + line["skew_ms"])
    late = f"  seen after {took / 1000:.1f} s" if line["operation"] != "snapshot" else ""
    typer.echo(f"{stamp(modified)}  {line['operation']:<9} {line['ref']}{late}")
    for name, value in (line.get("after") or {}).items():
        typer.echo(f"  {name} = {'' if value is None else value}")
