"""What a row learns: events and outcomes taken in, and what both sides agree on kept as fingerprints.

Pure. Nothing here decides; `processors/decide.py` does, on what these functions leave in the row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache

from msgspec.structs import replace

from processors.lines import lines_of
from processors.mapping import EntityMapping, FieldMapping, source_of, target_of
from processors.transfer import equal
from schemas.coupling import InFlight, Pair, Side
from schemas.records import (
    ChangeEvent,
    CommandKind,
    Observed,
    Operation,
    Outcome,
    OutcomeStatus,
    System,
    Value,
)


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Keyed hashes of single values: they say equal or not, nothing more."""

    key: bytes
    key_id: str

    @classmethod
    def of_key(cls, secret: str) -> Fingerprints:
        key = hashlib.blake2b(secret.encode(), digest_size=32).digest()
        return cls(key, hashlib.blake2b(b"key id", key=key, digest_size=4).hexdigest())

    def of(self, value: Value) -> str:
        """16 hexadecimal digits; equal numbers are equal whatever their type."""
        return _fingerprint(self.key, value)

    def of_values(self, values: Iterable[tuple[str, Value]]) -> str:
        text = b"\x00".join(name.encode() + b"\x01" + _canonical(value) for name, value in values)
        return hashlib.blake2b(text, key=self.key, digest_size=8).hexdigest()


@lru_cache(maxsize=16_384, typed=True)  # a decision asks some seventy times, mostly for values it has just asked for
def _fingerprint(key: bytes, value: Value) -> str:
    return hashlib.blake2b(_canonical(value), key=key, digest_size=8).hexdigest()


def _canonical(value: Value) -> bytes:
    if value is None:
        return b"-"
    if isinstance(value, bool):
        return b"b1" if value else b"b0"
    if isinstance(value, (int, Decimal)):
        number = Decimal(value)
        return b"n0" if not number else f"n{number.normalize()}".encode()
    return b"t" + value.encode()


class Absorbed(str, Enum):
    """What an event was to the row."""

    STALE = "stale"  # older than what the row knows
    ECHO = "echo"  # the very version that our own sink got back, or a repeated event
    NEWS = "news"
    DELETED = "deleted"


def side_of(pair: Pair, system: System) -> Side | None:
    return pair.erp if system is System.ERP else pair.crm


def with_side(pair: Pair, system: System, side: Side | None) -> Pair:
    return replace(pair, erp=side) if system is System.ERP else replace(pair, crm=side)


def side_from(observed: Observed) -> Side:
    return Side(
        id=observed.id,
        version=observed.version,
        order=observed.order,
        modified_at=observed.modified_at,
        state=observed.state,
    )


def observed_from(side: Side) -> Observed:
    return Observed(id=side.id, version=side.version, order=side.order, modified_at=side.modified_at, state=side.state)


def absorb_event(side: Side | None, event: ChangeEvent, prints: Fingerprints) -> tuple[Side, Absorbed]:
    """The side after a change event.

    An equal `order` under another version is newer (ties go by offset in the changes topic); an equal version with the
    values that the row knows is an echo. What is derived changes without the version of its record.
    """
    if event.operation is Operation.DELETE or event.after is None:
        # Its order is derived from what capture saw last, which our own write may have passed: it does not count.
        if side is not None and side.deleted:
            return side, Absorbed.ECHO
        gone = side or Side(
            id=event.ref.id, version=event.version, order=event.order, modified_at=event.modified_at, state={}
        )
        order = max(gone.order, event.order)
        return replace(gone, version=event.version, order=order, deleted=True), Absorbed.DELETED
    if side is not None and event.order < side.order:
        return side, Absorbed.STALE
    if side is not None and event.version == side.version and event.after.items() <= side.state.items():
        return side, Absorbed.ECHO  # with a field that was not captured before, the same version is news
    fresh = Side(
        id=event.ref.id,
        version=event.version,
        order=event.order,
        modified_at=event.modified_at,
        state=event.after,
        captured_at=event.captured_at,
        base=side.base if side else {},
        forms=side.forms if side else {},
    )
    if side is not None and event.version == side.version:
        at = event.captured_at  # the record was not changed: what is derived was, and nobody said when
    else:
        at = event.modified_at - timedelta(milliseconds=event.skew_ms)
    return _touch(fresh, side, at, prints), Absorbed.NEWS


def _touch(fresh: Side, before: Side | None, at: datetime, prints: Fingerprints) -> Side:
    """Remember when each field left what both had agreed on; a field that did not move keeps its time. Fields on which
    nothing was agreed have no such time.
    """
    touched: dict[str, datetime] = {}
    known, before_touched = (before.state, before.touched) if before is not None else ({}, {})
    for name, value in fresh.state.items():
        if name not in fresh.base or fresh.base[name] == prints.of(value):
            continue
        unmoved = name in before_touched and known.get(name) == value
        touched[name] = before_touched[name] if unmoved else at
    return replace(fresh, touched=touched)


def absorb_outcome(pair: Pair, outcome: Outcome, mapping: EntityMapping, prints: Fingerprints) -> Pair:
    """The pair after the outcome of its command in flight, which is then no longer in flight.

    What the target holds is compared with what the command was to leave behind. Where they agree, both sides agree from
    now on. Any other difference is a change of the target and will be decided as one: a value that the target made
    of ours (WRITTEN), one that validation filled in, or somebody's edit.
    """
    flight = pair.in_flight
    assert flight is not None
    pair = replace(pair, in_flight=None)
    observed = outcome.observed
    if observed is None or outcome.status not in (OutcomeStatus.WRITTEN, OutcomeStatus.OBSERVED):
        return pair
    target = target_of(flight.direction)
    before = side_of(pair, target)
    bases = _agreed(flight, outcome.status, observed, mapping, prints)
    after = replace(
        side_from(observed),
        base={**(before.base if before else {}), **bases.target},
        forms={**(before.forms if before else {}), **bases.forms},
        captured_at=before.captured_at if before else None,
    )
    if before is not None and before.order > observed.order:
        # A newer state was captured while the command was under way: it stands, seen against the new base.
        after = replace(before, base=after.base, forms=after.forms)
    else:
        state = {**(before.state if before else {}), **observed.state}
        after = replace(after, state=state)
    at = outcome.at if outcome.status is OutcomeStatus.WRITTEN else after.modified_at
    pair = with_side(pair, target, _touch(after, before, at - timedelta(milliseconds=outcome.skew_ms), prints))
    source = side_of(pair, source_of(flight.direction))
    if source is not None:
        agreed = replace(source, base={**source.base, **bases.source})
        pair = with_side(pair, source_of(flight.direction), _untouch(agreed, prints))
    return pair


@dataclass(frozen=True, slots=True)
class _Bases:
    source: Mapping[str, str]
    target: Mapping[str, str]
    forms: Mapping[str, str]


def _agreed(
    flight: InFlight, status: OutcomeStatus, observed: Observed, mapping: EntityMapping, prints: Fingerprints
) -> _Bases:
    command = flight.command
    of_source: dict[str, str] = {}
    of_target: dict[str, str] = {}
    forms: dict[str, str] = {}
    for line in lines_of(mapping).toward.get(flight.direction, ()):
        name, origin = (line.crm, line.erp) if flight.direction == "to_crm" else (line.erp, line.crm)
        written = name in command.values or command.kind is CommandKind.CREATE
        if not written or name not in observed.state or origin not in flight.source_fingerprints:
            continue
        meant, held = command.values.get(name), observed.state[name]
        if equal(line.field, meant, held):
            of_target[name] = prints.of(held)
            of_source[origin] = flight.source_fingerprints[origin]
        elif status is OutcomeStatus.WRITTEN:
            # The target keeps its own form of our value. It travels back once, as a change of the target; written
            # again, the same value would only become the same form again.
            of_target[name] = prints.of(meant)
            of_source[origin] = flight.source_fingerprints[origin]
            forms[name] = form(prints, meant, held)
    return _Bases(of_source, of_target, forms)


def form(prints: Fingerprints, written: Value, held: Value) -> str:
    return f"{prints.of(written)}>{prints.of(held)}"


def _untouch(side: Side, prints: Fingerprints) -> Side:
    touched = {
        name: at
        for name, at in side.touched.items()
        if name not in side.state or (name in side.base and side.base[name] != prints.of(side.state[name]))
    }
    return replace(side, touched=touched)


def agree(pair: Pair, lines: Iterable[FieldMapping], prints: Fingerprints, *, company: Value) -> Pair:
    """Both sides as they are now become what was agreed, for these lines."""
    erp, crm = pair.erp, pair.crm
    if erp is None or crm is None:
        return pair
    of_erp, of_crm = dict(erp.base), dict(crm.base)
    for line in lines:
        here, there = line.name_in(System.ERP), line.name_in(System.CRM)
        if there not in crm.state or (here not in erp.state and not line.is_made):
            continue  # absent is not blank
        of_erp[here] = prints.of((company if line.company else None) if line.is_made else erp.state[here])
        of_crm[there] = prints.of(crm.state[there])
    return replace(
        pair,
        erp=_untouch(replace(erp, base=of_erp), prints),
        crm=_untouch(replace(crm, base=of_crm), prints),
        key_id=prints.key_id,
    )


def forget_agreement(pair: Pair) -> Pair:
    """The pair as if its sides had never agreed on anything."""
    return replace(
        pair,
        erp=replace(pair.erp, base={}, forms={}) if pair.erp else None,
        crm=replace(pair.crm, base={}, forms={}) if pair.crm else None,
        in_step=False,
    )
