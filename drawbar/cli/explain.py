"""`drawbar explain`: what is known of one record, and why the last decisions about it came out as they did.

A CRM record that belongs to the pair of an ERP record of another id is followed there: the lines of both homes make
one timeline. Values of fields are printed only when asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drawbar.cli.couplings import MappingName
from drawbar.cli.running import Running, age, plural, running, say_unreadable, stamp, utc_now
from drawbar.cli.shared import AsJson, ConnectionFile, print_json_line
from schemas.errors import UsageError

if TYPE_CHECKING:
    from processors.mapping import EntityMapping
    from schemas.coupling import Pair, Row, Side
    from schemas.records import DeadLetter, JournalLine, Order, System

WIDTH = 100  # columns of a line
LABEL = 10
FIELDS_AT = 38  # below the reason in a line of the timeline


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
        {**describe_row(row, system.mappings[row.mapping], values=values), "letters": letters_of(row, letters, now)}
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


def describe_row(row: Row, mapping: EntityMapping, *, values: bool) -> dict[str, Any]:
    """A home as plain data, fit for JSON. Values of fields only when asked for."""
    from schemas.records import System

    pair = row.pair
    described: dict[str, Any] = {
        "mapping": row.mapping,
        "home": row.id,
        "role": mapping.role,
        "state": pair.state.value if pair is not None else "",
        "coupled_at": _iso(pair.coupled_at) if pair is not None else None,
        "erp": _side(pair.erp if pair is not None else None, System.ERP, mapping, values=values),
        "crm": _side(pair.crm if pair is not None else None, System.CRM, mapping, values=values),
        "in_flight": _in_flight(pair, values=values),
        "holds": _holds(pair),
        "claiming": _ref(System.CRM, mapping, pair.claiming) if pair is not None else "",
        "candidates": _candidates(pair, mapping),
        "went_on_without": list(pair.soft_missing) if pair is not None else [],
        "deferred": [_order(order) for order in row.deferred],
        "belongs_to": "",
        "evicted": None,
    }
    if row.home is not None:
        described["belongs_to"] = _ref(System.ERP, mapping, row.home.belongs_to)
        described["evicted"] = _side(row.home.evicted, System.CRM, mapping, values=values)
    return described


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
            "opened_at": _iso(letter.opened_at),
            "age_s": round((now - letter.opened_at).total_seconds(), 1),
            "changed_by": letter.changed_by,
        }
        for letter in mine
    ]


def line_json(line: JournalLine) -> dict[str, Any]:
    return {
        "at": _iso(line.at),
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


def _side(side: Side | None, system: System, mapping: EntityMapping, *, values: bool) -> dict[str, Any] | None:
    if side is None:
        return None
    described: dict[str, Any] = {
        "ref": _ref(system, mapping, side.id),
        "version": side.version,
        "order": side.order,
        "modified_at": _iso(side.modified_at),
        "captured_at": _iso(side.captured_at),
        "deleted": side.deleted,
        "fields": sorted(side.state),
        "changed_since_agreement": sorted(set(side.touched) & set(mapping.targets(system))) if side.base else [],
        "rewritten_by_system": sorted(side.forms),
    }
    if values:
        described["values"] = {name: _plain(side.state[name]) for name in sorted(side.state)}
    return described


def _in_flight(pair: Pair | None, *, values: bool) -> dict[str, Any] | None:
    flight = pair.in_flight if pair is not None else None
    if flight is None:
        return None
    command = flight.command
    described: dict[str, Any] = {
        "command_id": command.command_id,
        "kind": command.kind.value,
        "target": str(command.target),
        "direction": flight.direction,
        "purpose": flight.purpose,
        "fields": sorted(command.values),
        "sent_at": _iso(flight.sent_at),
        "sends": flight.sends,
    }
    if values:
        described["values"] = {name: _plain(value) for name, value in command.values.items()}
    return described


def _holds(pair: Pair | None) -> list[dict[str, Any]]:
    return [
        {
            "direction": direction,
            "code": hold.code,
            "slug": hold.slug,
            "missing": list(hold.missing),
            "fields": list(hold.fields),
            "detail": hold.detail,
            "since": _iso(hold.since),
            "letter_id": hold.letter_id,
        }
        for direction, hold in (pair.holds if pair is not None else {}).items()
    ]


def _candidates(pair: Pair | None, mapping: EntityMapping) -> list[str]:
    """What a look-up of matches found."""
    from schemas.records import System

    if pair is None or pair.matched is None:
        return []
    system = System.CRM if pair.erp is not None else System.ERP
    return [_ref(system, mapping, found) for found in pair.matched.candidates]


def _order(order: Order) -> dict[str, Any]:
    return {
        "order_id": order.order_id,
        "kind": order.kind.value,
        "by": order.by,
        "erp_id": order.erp_id,
        "crm_id": order.crm_id,
    }


def _ref(system: System, mapping: EntityMapping, record_id: str) -> str:
    return f"{system}:{mapping.entity_in(system)}:{record_id}" if record_id else ""


def _iso(when: datetime | None) -> str | None:
    return when.isoformat() if when is not None else None


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


# --- for people ---------------------------------------------------------------------------------------------------


def print_described(ref: str, described: Mapping[str, Any], now: datetime) -> None:
    """One home on lines of at most 100 columns."""
    typer.echo(f"{ref}   mapping {described['mapping']}")
    _say("state", _state_text(described, now))
    for name in ("erp", "crm", "evicted"):
        if described[name] is not None:
            _print_side("crm" if name == "evicted" else name, described[name], now)
    flight = described["in_flight"]
    if flight is not None:
        again = f", sent {flight['sends']} times" if flight["sends"] > 1 else ""
        _say("in flight", f"{flight['kind']} of {flight['target']}, {_age(flight['sent_at'], now)} ago{again}")
        _say("", ", ".join(flight["fields"]))
    for hold in described["holds"]:
        gave_up = "" if hold["letter_id"] else ", given up"
        _say("held", f"{hold['direction']}: {hold['code']} {hold['slug']}, {_age(hold['since'], now)}{gave_up}")
        _say("", ", ".join(hold["missing"]) or hold["detail"])
        _say("", f"fields {', '.join(hold['fields'])}" if hold["fields"] else "")
    _say("claims", described["claiming"])
    _say("matches", ", ".join(described["candidates"]))
    _say("without", ", ".join(described["went_on_without"]))
    for order in described["deferred"]:
        _say("deferred", f"{order['kind']} by {order['by'] or 'a home'}: waits for the command in flight")
    letters = described.get("letters", [])
    for letter in letters:
        if letter["state"] == "open":
            _say("letter", f"{letter['id'][:8]} open: {letter['code']} {letter['slug']}")
    past = sum(1 for letter in letters if letter["state"] != "open")
    _say("" if past < len(letters) else "letters", f"{plural(past, 'letter')} closed or discarded" if past else "")


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
        reason = _wrapped(f"{line.reason}{code}{took}", indent=FIELDS_AT)
        typer.echo(f"  {clock}  {line.event:<13} {line.direction:<7} {reason[0] if reason else ''}".rstrip())
        for text in reason[1:]:
            typer.echo(f"{'':{FIELDS_AT}}{text}")
        for text in _wrapped(", ".join(line.fields), indent=FIELDS_AT):
            typer.echo(f"{'':{FIELDS_AT}}{text}")


def _state_text(described: Mapping[str, Any], now: datetime) -> str:
    state = str(described["state"])
    if state == "coupled":
        return f"coupled since {_moment(described['coupled_at'], now)}"
    if state:
        return {"single": "single: no counterpart", "uncoupled": "uncoupled by hand"}.get(state, state)
    if described["evicted"] is not None:
        return "uncoupled by hand"
    return f"belongs to {described['belongs_to']}" if described["belongs_to"] else "nothing is known"


def _print_side(name: str, side: Mapping[str, Any], now: datetime) -> None:
    deleted = ", deleted" if side["deleted"] else ""
    _say(name, f"{side['ref']}{deleted}")
    _say("", f"changed {_moment(side['modified_at'], now)}, version {side['version']}")
    if "values" in side:
        for field, value in side["values"].items():
            _say("", f"{field} = {'' if value is None else value}")
    else:
        _say("", f"{plural(len(side['fields']), 'field')}: {', '.join(side['fields'])}")
    if side["changed_since_agreement"]:
        _say("", f"changed since both agreed: {', '.join(side['changed_since_agreement'])}")


def _say(label: str, text: str) -> None:
    if text:
        for number, line in enumerate(_wrapped(text)):
            typer.echo(f"  {label if number == 0 else '':<{LABEL}} {line}".rstrip())


def _wrapped(text: str, *, indent: int = LABEL + 3) -> list[str]:
    import textwrap

    return textwrap.wrap(text, WIDTH - indent, break_long_words=False, break_on_hyphens=False) if text else []


def _age(iso: str, now: datetime) -> str:
    return age(datetime.fromisoformat(iso), now)


def _moment(iso: str, now: datetime) -> str:
    return f"{stamp(datetime.fromisoformat(iso))} ({_age(iso, now)} ago)"
