"""Turn what a source shows of its records into change events, deletes and the next watermark.

Pure: no clock, no network, no log. Three rules carry it. What differs from what was published of a record is news,
whatever its time says, since two reads of one record never go back in time. A record that is missing is only
*suspected*; it is deleted once a read by its id says so while another record can still be read. Nothing is remembered
that is not published: what is known of an entity is a fold over its changes topic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal

from msgspec import Struct

from drawbar.ports import InMessage, OutMessage
from schemas.codec import decode, encode
from schemas.errors import Undecodable
from schemas.records import (
    ChangeEvent,
    DeadLetter,
    Observed,
    Operation,
    RecordRef,
    System,
    Value,
    Values,
    Watermark,
    derived_id,
)
from schemas.topics import WATERMARKS, changes_topic

ROUNDING = timedelta(milliseconds=50)  # SQL rounds times; the ERP subtracts as much from its own filters
_NEVER = datetime(1900, 1, 1, tzinfo=timezone.utc)  # the ERP writes "never" as the year 1, which has no day before it
GROWTH = 1.5  # of the pause between polls, for each poll that finds nothing
EVENT_TYPE = "drawbar.change"  # CloudEvents `type`, the operation behind it


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is captured: one entity of one system, with one set of fields."""

    system: System
    entity: str
    field_set: str
    derived: tuple[str, ...] = ()  # fields that change without the version of their row

    @property
    def key(self) -> str:
        return entity_key(self.system, self.entity)

    @property
    def topic(self) -> str:
        return changes_topic(self.system.value, self.entity)

    def ref(self, record_id: str) -> RecordRef:
        return RecordRef(self.system, self.entity, record_id)


class Known(Struct, frozen=True, gc=False):
    """What was last published of one record. `version`: its stamp."""

    version: str
    order: int
    field_set: str
    deleted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A listing of all ids held against what is known."""

    differing: tuple[str, ...]  # to be read again: new, changed, or captured with other fields
    missing: tuple[str, ...]  # suspected deletes


def entity_key(system: System, entity: str) -> str:
    """`erp.customer`: the message key of watermarks and hints."""
    return f"{system.value}.{entity}"


def field_set_of(fields: Iterable[str]) -> str:
    """A name for a set of fields: the same fields, in any order, have the same name."""
    return hashlib.sha256("\n".join(sorted(set(fields))).encode()).hexdigest()[:16]


def stamp(version: str, state: Values, derived: Iterable[str]) -> str:
    """What names one state of a record: its version, and with it what changes without that."""
    values = [f"{name}={_canonical(state[name])}" for name in sorted(derived) if name in state]
    return f"{version}+{hashlib.sha256(chr(0).join(values).encode()).hexdigest()[:16]}" if values else version


def _canonical(value: Value) -> str:
    """Equal numbers are equal, whatever their type."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return repr(value)
    return f"{Decimal(value).normalize():f}"


# --- from rows to events ------------------------------------------------------------------------------------------


def to_events(
    rows: Iterable[Observed],
    known: Mapping[str, Known],
    subject: Subject,
    *,
    captured_at: datetime,
    in_snapshot: bool = False,
    skew_ms: int = 0,
) -> tuple[ChangeEvent, ...]:
    """One event for each state that is not published yet, in the order of `rows`.

    The order of an event is the source's; a new version of a record that the source dates no later than the last one
    (two changes within its resolution, clocks of two servers) comes right after the last one.
    """
    fresh: dict[str, Known] = {}
    events: list[ChangeEvent] = []
    for row in rows:
        last = fresh.get(row.id) or known.get(row.id)
        same_fields = last is not None and last.field_set == subject.field_set and not last.deleted
        stamped = stamp(row.version, row.state, subject.derived)
        if last is not None and same_fields and last.version == stamped:
            continue
        order = _next_order(row, stamped, last)
        # A state that comes back, after a delete or because what is derived did, is another event than before.
        again = last is not None and (last.deleted or stamped != row.version)
        state = f"{stamped}@{order}" if again else stamped
        is_first = in_snapshot and not same_fields
        event = ChangeEvent(
            event_id=derived_id("event", subject.ref(row.id), state, subject.field_set),
            ref=subject.ref(row.id),
            operation=Operation.SNAPSHOT if is_first else Operation.CHANGE,
            version=row.version,
            order=order,
            modified_at=row.modified_at,
            captured_at=captured_at,
            after=row.state,
            field_set=subject.field_set,
            skew_ms=skew_ms,
        )
        events.append(event)
        fresh[row.id] = _known(event, subject)
    return tuple(events)


def to_deletes(
    record_ids: Iterable[str], known: Mapping[str, Known], subject: Subject, *, captured_at: datetime
) -> tuple[ChangeEvent, ...]:
    """A delete for each record that was published and is not deleted yet."""
    events = []
    for record_id in dict.fromkeys(record_ids):
        last = known.get(record_id)
        if last is None or last.deleted:
            continue  # made and deleted between two polls: nobody ever heard of it
        order = last.order + 1
        version = f"deleted:{order}"
        events.append(
            ChangeEvent(
                event_id=derived_id("event", subject.ref(record_id), version, subject.field_set),
                ref=subject.ref(record_id),
                operation=Operation.DELETE,
                version=version,
                order=order,
                modified_at=captured_at,  # the source does not say when
                captured_at=captured_at,
                after=None,
                field_set=subject.field_set,
            )
        )
    return tuple(events)


def _next_order(row: Observed, stamped: str, last: Known | None) -> int:
    if last is None:
        return row.order
    if last.version == stamped and not last.deleted:
        return max(row.order, last.order)  # the same state, captured with other fields
    return max(row.order, last.order + 1)


def remembered(events: Iterable[ChangeEvent], subject: Subject) -> dict[str, Known]:
    """What is known once `events` are published."""
    return {event.ref.id: _known(event, subject) for event in events}


def recalled(messages: Iterable[InMessage], subject: Subject) -> dict[str, Known]:
    """What the messages of a changes topic, from its beginning on, say was published.

    Bytes that are no change event count as nothing published: the record is then captured again.
    """
    known: dict[str, Known] = {}
    for message in messages:
        record_id = message.key.decode()
        if message.value is None:
            if record_id in known and not known[record_id].deleted:
                del known[record_id]
            continue
        try:
            known[record_id] = _known(decode(ChangeEvent, message.value), subject)
        except Undecodable:
            known.pop(record_id, None)
    return known


def alive(known: Mapping[str, Known]) -> int:
    return sum(not last.deleted for last in known.values())


def _known(event: ChangeEvent, subject: Subject) -> Known:
    stamped = stamp(event.version, event.after or {}, subject.derived)
    return Known(stamped, event.order, event.field_set, event.operation is Operation.DELETE)


# --- from a listing to suspects -----------------------------------------------------------------------------------


def compare(listed: Mapping[str, str], known: Mapping[str, Known], subject: Subject) -> Comparison:
    """`listed` has the stamp of every record of the source by its id; a late commit shows as a difference."""

    def is_published(record_id: str, version: str) -> bool:
        last = known.get(record_id)
        return last is not None and (last.version, last.field_set, last.deleted) == (version, subject.field_set, False)

    return Comparison(
        differing=tuple(record_id for record_id, version in listed.items() if not is_published(record_id, version)),
        missing=missing(listed, known),
    )


def missing(listed: Iterable[str], known: Mapping[str, Known]) -> tuple[str, ...]:
    """Records that were published, are not deleted, and are not among `listed`."""
    seen = listed if isinstance(listed, (Mapping, set, frozenset)) else set(listed)
    return tuple(record_id for record_id, last in known.items() if not last.deleted and record_id not in seen)


def witnesses(
    suspects: Iterable[str], known: Mapping[str, Known], listed: Iterable[str] = (), *, limit: int = 3
) -> tuple[str, ...]:
    """Records that should be readable when the suspects are not: those just listed first, else published ones."""
    doubtful = set(suspects)
    found = dict.fromkeys(record_id for record_id in listed if record_id not in doubtful)
    for record_id, last in known.items():
        if len(found) >= limit:
            break
        if not last.deleted and record_id not in doubtful:
            found[record_id] = None
    return tuple(found)[:limit]


def max_deletes(known: Mapping[str, Known], *, at_least: int, share: float) -> int:
    """As many deletes as may be published at once without anybody confirming them."""
    return max(at_least, int(share * alive(known)))


# --- how far, and when next ---------------------------------------------------------------------------------------


def lower_bound(position: str, *, overlap_s: float, quiet_s: float) -> str:
    """Where the next ERP poll begins to read: `position` less the overlap, as the ERP writes times.

    A transaction may commit after a later time was already read. `quiet_s` have gone by since `position` was read, so
    what is dated before it has had as long to appear, and the overlap shrinks by as much; otherwise each poll of a
    quiet entity would read its last burst again. Blank (nothing read yet) stays blank.
    """
    if not position or from_position(position) < _NEVER:
        return ""
    back = max(ROUNDING, timedelta(seconds=overlap_s - quiet_s))
    return to_position(from_position(position) - back)


def next_position(position: str, rows: Sequence[Observed]) -> str:
    """The latest time of change among `position` and `rows`."""
    latest = max((to_position(row.modified_at) for row in rows), default="")
    return max(position, latest)  # of one length and zone, so text sorts as time does


def to_position(time: datetime) -> str:
    return time.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_position(position: str) -> datetime:
    return datetime.strptime(position, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)


def next_pause(pause_s: float, *, found: bool, min_s: float, max_s: float) -> float:
    """Seconds until the next poll: the least after activity, growing while there is none."""
    return min_s if found else min(max_s, max(min_s, pause_s) * GROWTH)


def sweep_pause(requests: int, *, interval_s: float, requests_per_5_min: int) -> float:
    """Seconds until the next sweep, so that sweeps that take `requests` each stay within their budget."""
    return max(interval_s, 300 * requests / requests_per_5_min)


# --- what is published --------------------------------------------------------------------------------------------


def to_messages(events: Iterable[ChangeEvent], *, headers: tuple[tuple[str, bytes], ...] = ()) -> list[OutMessage]:
    """The messages of the changes topic; a tombstone follows a delete. `headers` come after our own."""
    messages = []
    for event in events:
        topic = changes_topic(event.ref.system.value, event.ref.entity)
        key = event.ref.id.encode()
        messages.append(OutMessage(topic=topic, key=key, value=encode(event), headers=(*_cloud_event(event), *headers)))
        if event.operation is Operation.DELETE:
            messages.append(OutMessage(topic=topic, key=key, value=None))
    return messages


def to_watermark_message(watermark: Watermark) -> OutMessage:
    key = entity_key(watermark.system, watermark.entity)
    return OutMessage(topic=WATERMARKS, key=key.encode(), value=encode(watermark))


def unreadable_letter(subject: Subject, record_id: str, version: str, *, fault: str, now: datetime) -> DeadLetter:
    """The letter of a row that cannot be read. One state of a record is one letter, however often it is met."""
    ref = subject.ref(record_id)
    return DeadLetter(
        letter_id=derived_id("letter", ref, version),
        code=Undecodable.code,
        slug=Undecodable.slug,
        mapping="",
        home=record_id,
        ref=str(ref),
        direction="",
        cause=f"{Undecodable.slug} {subject.key}",
        detail=f"{fault} in {version}",
        opened_at=now,
        changed_at=now,
        next_step="correct the record in its system; capture closes the letter with the first state it can read",
    )


def letters_of(messages: Iterable[InMessage], subject: Subject) -> dict[str, DeadLetter]:
    """The last letter of each unreadable record of this entity, open or not, from the messages of the index."""
    found: dict[str, DeadLetter] = {}
    for message in messages:
        try:
            letter = decode(DeadLetter, message.value)
        except Undecodable:
            continue
        if letter.code == Undecodable.code and letter.ref == str(subject.ref(letter.home)):
            found[letter.home] = letter
    return found


def latest_watermark(messages: Iterable[InMessage], key: str) -> Watermark | None:
    """The last watermark under `key`. Undecodable bytes count as none: the entity is then captured anew."""
    found: Watermark | None = None
    for message in messages:
        if message.key.decode() == key:
            try:
                found = decode(Watermark, message.value) if message.value else None
            except Undecodable:
                found = None
    return found


def _cloud_event(event: ChangeEvent) -> tuple[tuple[str, bytes], ...]:
    """CloudEvents 1.0, Kafka protocol binding, binary content mode."""
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": event.event_id,
        "ce_source": f"drawbar/{event.ref.system.value}/{event.ref.entity}",
        "ce_type": f"{EVENT_TYPE}.{event.operation.value}",
        "ce_subject": event.ref.id,
        "ce_time": event.captured_at.isoformat(),
    }
    return tuple((name, value.encode()) for name, value in attributes.items())
