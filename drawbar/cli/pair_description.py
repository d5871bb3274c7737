"""A pair in words: what the row of a home says of its two sides, of what is under way and of what holds it.

`describe_row` gives plain data, fit for JSON; `print_described` prints it for people. Values of fields only when asked
for.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from drawbar.cli.running import age, plural, stamp
from drawbar.cli.shared import folded

if TYPE_CHECKING:
    from processors.mapping import Condition, EntityMapping
    from schemas.coupling import Pair, Row, Side
    from schemas.records import Order, System

LABEL = 10


def describe_row(
    row: Row, mapping: EntityMapping, *, values: bool, skipped_by_filter: Collection[str] = ()
) -> dict[str, Any]:
    """A home as plain data, fit for JSON. Values of fields only when asked for.

    `skipped_by_filter`: the directions of which the last decision was that a filter stops them.
    """
    from schemas.records import System

    pair = row.pair
    described: dict[str, Any] = {
        "mapping": row.mapping,
        "home": row.id,
        "role": mapping.role,
        "state": pair.state.value if pair is not None else "",
        "coupled_at": iso(pair.coupled_at) if pair is not None else None,
        "erp": _side(pair.erp if pair is not None else None, System.ERP, mapping, values=values),
        "crm": _side(pair.crm if pair is not None else None, System.CRM, mapping, values=values),
        "in_flight": _in_flight(pair, values=values),
        "holds": _holds(pair),
        "outside_filter": _outside_filter(pair, mapping, skipped_by_filter),
        "kept_back": _kept_back(pair),
        "claiming": _ref(System.CRM, mapping, pair.claiming) if pair is not None else "",
        "candidates": _candidates(pair, mapping),
        "went_on_without": [name for name in pair.soft_missing if not name.startswith("~")] if pair is not None else [],
        "differs": list(pair.differs) if pair is not None else [],
        "deferred": [_order(order) for order in row.deferred],
        "belongs_to": "",
        "evicted": None,
    }
    if row.home is not None:
        described["belongs_to"] = _ref(System.ERP, mapping, row.home.belongs_to)
        described["evicted"] = _side(row.home.evicted, System.CRM, mapping, values=values)
    return described


def _side(side: Side | None, system: System, mapping: EntityMapping, *, values: bool) -> dict[str, Any] | None:
    if side is None:
        return None
    described: dict[str, Any] = {
        "ref": _ref(system, mapping, side.id),
        "version": side.version,
        "order": side.order,
        "modified_at": iso(side.modified_at),
        "captured_at": iso(side.captured_at),
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
        "sent_at": iso(flight.sent_at),
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
            "since": iso(hold.since),
            "letter_id": hold.letter_id,
        }
        for direction, hold in (pair.holds if pair is not None else {}).items()
    ]


def _outside_filter(pair: Pair | None, mapping: EntityMapping, skipped: Collection[str]) -> list[dict[str, str]]:
    """The conditions that stop a direction. Which row is this company's is not known here: that a record bears the
    stamp of another follows when a filter stopped it and all its other conditions hold.
    """
    from processors.mapping import DIRECTIONS, source_of
    from processors.transfer import failing

    if pair is None:
        return []
    found: list[dict[str, str]] = []
    for direction in DIRECTIONS:
        system = source_of(direction)
        side = pair.erp if system.value == "erp" else pair.crm
        if side is None or side.deleted or not mapping.flows(direction):
            continue
        failed = failing(side.state, mapping.conditions(system), company_crm_id=None)
        plain = [condition for condition in failed if not condition.company]
        for condition in plain or (failed if direction in skipped else ()):
            must = "is not captured yet" if condition.field not in side.state else _must(condition)
            found.append({"direction": direction, "field": f"{system}:{condition.field}", "must": must})
    return found


def _must(condition: Condition) -> str:
    if condition.company:
        return "must be blank or this company's row"
    if condition.blank is False:
        return "must not be blank"
    if condition.entity is not None:
        return f"must be a reference to {condition.entity}"
    return "must be blank" if condition.equals is None else f"must equal {json.dumps(condition.equals)}"


def _kept_back(pair: Pair | None) -> list[dict[str, Any]]:
    """What brakes hold."""
    return [
        {"direction": direction, "kind": kept.kind.value, "fields": list(kept.fields), "since": iso(kept.since)}
        for direction, kept in (pair.kept_back if pair is not None else {}).items()
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


def iso(when: datetime | None) -> str | None:
    return when.isoformat() if when is not None else None


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def print_described(ref: str, described: Mapping[str, Any], now: datetime) -> None:
    """One home, on lines that fit the terminal."""
    typer.echo(ref)
    _say("mapping", described["mapping"])
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
        _say("", f"{missing_label(hold['slug'])} {', '.join(hold['missing'])}" if hold["missing"] else hold["detail"])
        _say("", f"fields {', '.join(hold['fields'])}" if hold["fields"] else "")
    for stop in described["outside_filter"]:
        _say("filter", f"{stop['direction']} is stopped: {stop['field']} {stop['must']}")
    for kept in described["kept_back"]:
        _say("kept back", f"{kept['direction']}: {kept['kind']}, {_age(kept['since'], now)}; see drawbar brakes show")
        _say("", f"fields {', '.join(kept['fields'])}" if kept["fields"] else "")
    _say("claims", described["claiming"])
    _say("matches", ", ".join(described["candidates"]))
    _say("without", ", ".join(described["went_on_without"]))
    if described["differs"]:
        _say("differs", f"{', '.join(described['differs'])}: since a new base was taken; drawbar sync settle decides")
    for order in described["deferred"]:
        _say("deferred", f"{order['kind']} by {order['by'] or 'a home'}: waits for the command in flight")
    letters = described.get("letters", [])
    for letter in letters:
        if letter["state"] == "open":
            _say("letter", f"{letter['id'][:8]} open: {letter['code']} {letter['slug']}")
    past = sum(1 for letter in letters if letter["state"] != "open")
    _say("" if past < len(letters) else "letters", f"{plural(past, 'letter')} closed or discarded" if past else "")


def missing_label(slug: str) -> str:
    """What the `missing` of a hold or letter is: something that is not there yet, or several that might be meant."""
    from schemas.errors import AmbiguousMatch

    return "matches" if slug == AmbiguousMatch.slug else "missing"


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
        for number, line in enumerate(folded(text, indent=LABEL + 3)):
            typer.echo(f"  {label if number == 0 else '':<{LABEL}} {line}".rstrip())


def _age(iso: str, now: datetime) -> str:
    return age(datetime.fromisoformat(iso), now)


def _moment(iso: str, now: datetime) -> str:
    return f"{stamp(datetime.fromisoformat(iso))} ({_age(iso, now)} ago)"
