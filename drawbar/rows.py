"""What Kafka holds of the records: rows, dead letters, journal; how a person names a record, and which one is meant.

Reads join no group and commit nothing. The second half is pure: it works on rows that were read. What cannot be decoded
is left out and counted, so that one broken message hides no other.
"""

from __future__ import annotations

import difflib
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Protocol, TypeVar, Union

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from msgspec.structs import replace

from drawbar.bus.clients import latest_by_key, make_consumer, make_producer, partition_for, read_to_end
from drawbar.kafka_bus import KafkaBus
from drawbar.letters import PREFIX
from drawbar.ports import InMessage, OutMessage
from drawbar.settings import BusSettings
from schemas.codec import decode, encode, from_json
from schemas.coupling import PairState, Row, Side
from schemas.errors import BusUnavailable, MappingUnknown, TopicMismatch, Undecodable, UsageError
from schemas.records import DeadLetter, JournalLine, LetterState, RecordRef, System, home_key
from schemas.topics import COUPLINGS, DEAD_LETTERS, DEAD_LETTERS_INDEX, JOURNAL

TIMEOUT_S = 30.0
JOURNAL_WINDOW = 20_000  # messages of a partition that are read first; more only when they do not suffice

T = TypeVar("T")

# Letters about bytes that no home ever saw: what is sent again are the bytes, to the topic they came from.
BYTES_CODES = frozenset({Undecodable.code, MappingUnknown.code})


@dataclass(frozen=True, slots=True)
class Gone:
    """The row under this key was taken away."""

    key: str


News = Union[Row, Gone, JournalLine, DeadLetter]


class Watch(Protocol):
    """What became of some homes since the watch began."""

    def take(self, timeout_s: float) -> Sequence[News]:
        """What arrived, waiting up to `timeout_s` for the first."""
        ...


class Rows(Protocol):
    """What the command line reads of a running system, and how it asks something of it."""

    def rows(self, keys: Iterable[str] | None = None) -> dict[str, Row]:
        """The rows of all homes, or of those named, by home key."""
        ...

    def letters(self) -> dict[str, DeadLetter]:
        """Every dead letter that is remembered, by id, whatever its state."""
        ...

    def originals(self, letters: Iterable[DeadLetter]) -> dict[str, InMessage]:
        """The messages that were set aside, by letter id, their headers with the cause included."""
        ...

    def lines(self, keys: Iterable[str], *, last: int) -> list[JournalLine]:
        """The last lines that the journal has of these homes, oldest first."""
        ...

    def changes(self, topic: str, *, last: int | None, follow: bool) -> Iterator[InMessage]:
        """The last messages of a changes topic, or (None) all of them. `follow`: then those that come, without end."""
        ...

    def watch(self, keys: Iterable[str]) -> AbstractContextManager[Watch]:
        """News of these homes, and of all letters, from now on."""
        ...

    def send(self, messages: Sequence[OutMessage]) -> None:
        """Returns once the broker has every message. Raises BusUnavailable."""
        ...

    def send_again(self, letter: DeadLetter, messages: Sequence[OutMessage]) -> None:
        """Send what a letter comes to and close it: all or nothing. Raises BusUnavailable."""
        ...

    @property
    def unreadable(self) -> int:
        """How many messages could not be decoded so far."""
        ...


class KafkaRows:
    """Implements `Rows` on a broker."""

    def __init__(self, bus: BusSettings, *, client_id: str = "drawbar-cli") -> None:
        self._bus, self._client_id = bus, client_id
        self._unreadable = 0

    @property
    def unreadable(self) -> int:
        return self._unreadable

    def rows(self, keys: Iterable[str] | None = None) -> dict[str, Row]:
        wanted = None if keys is None else frozenset(keys)
        partitions = None if wanted is None else self._partitions_of(COUPLINGS, wanted)
        found: dict[str, Row] = {}
        for key, message in self._latest(COUPLINGS, partitions).items():
            name = key.decode(errors="replace")
            row = self._read(_row, message) if wanted is None or name in wanted else None
            if row is not None:
                found[name] = row
        return found

    def letters(self) -> dict[str, DeadLetter]:
        letters = (self._read(_letter, message) for message in self._latest(DEAD_LETTERS_INDEX, None).values())
        return {letter.letter_id: letter for letter in letters if letter is not None}

    def originals(self, letters: Iterable[DeadLetter]) -> dict[str, InMessage]:
        wanted = {letter.letter_id: letter for letter in letters}
        places = {(letter.partition, letter.offset): letter_id for letter_id, letter in wanted.items()}
        start: dict[int, int] = {}
        if all(offset >= 0 for _, offset in places):
            for partition, offset in places:
                start[partition] = min(offset, start.get(partition, offset))
        found: dict[str, InMessage] = {}
        if not wanted:
            return found
        for raw in self._read_to_end(DEAD_LETTERS, partitions=sorted(start) or None, start=start):
            message = to_in_message(raw)
            letter_id = header_of(message, "letter-id") or places.get((message.partition, message.offset), "")
            if letter_id in wanted:
                found[letter_id] = message
            if len(found) == len(wanted) and start:
                break
        return found

    def lines(self, keys: Iterable[str], *, last: int) -> list[JournalLine]:
        wanted = frozenset(keys)
        ends = self._ends(JOURNAL, self._partitions_of(JOURNAL, wanted))
        window = JOURNAL_WINDOW
        while True:
            start = {partition: max(low, high - window) for partition, (low, high) in ends.items()}
            found: dict[str, JournalLine] = {}
            for message in self._read_to_end(JOURNAL, partitions=sorted(ends), start=start):
                line = self._read(_line, message)
                if line is not None and home_key(line.mapping, line.home) in wanted:
                    found[line.line_id] = line  # a line that was sent twice is one line
            if len(found) >= last or all(start[partition] <= low for partition, (low, _) in ends.items()):
                return sorted(found.values(), key=lambda line: line.at)[-last:]
            window *= 10

    def changes(self, topic: str, *, last: int | None, follow: bool) -> Iterator[InMessage]:
        ends = self._ends(topic, None)
        start = {partition: low if last is None else max(low, high - last) for partition, (low, high) in ends.items()}
        read = (to_in_message(raw) for raw in self._read_to_end(topic, partitions=None, start=start))
        before = (message for message in read if message.offset < ends[message.partition][1])
        if last is None:
            yield from before
        else:
            yield from sorted(before, key=lambda message: message.timestamp_ms)[-last:]
        if follow:
            with self._reading({(topic, partition): high for partition, (_, high) in ends.items()}) as consumer:
                while True:
                    yield from (to_in_message(raw) for raw in consumer.consume(500, 0.5) if raw.error() is None)

    @contextmanager
    def watch(self, keys: Iterable[str]) -> Iterator[Watch]:
        wanted = frozenset(keys)
        begin: dict[tuple[str, int], int] = {}
        for topic in (COUPLINGS, JOURNAL, DEAD_LETTERS_INDEX):
            partitions = None if topic == DEAD_LETTERS_INDEX else self._partitions_of(topic, wanted)
            begin |= {(topic, partition): high for partition, (_, high) in self._ends(topic, partitions).items()}
        with self._reading(begin) as consumer:
            yield _KafkaWatch(consumer, lambda message: self._news(message, wanted))

    def _news(self, message: Message, wanted: frozenset[str]) -> News | None:
        """What one message of the topics that are watched says about the homes wanted."""
        topic, key = message.topic(), (_bytes(message.key()) or b"").decode(errors="replace")
        if topic == COUPLINGS:
            if key not in wanted:
                return None
            return Gone(key) if message.value() is None else self._read(_row, message)
        if topic == JOURNAL:
            line = self._read(_line, message)
            return line if line is not None and home_key(line.mapping, line.home) in wanted else None
        return None if message.value() is None else self._read(_letter, message)

    def send(self, messages: Sequence[OutMessage]) -> None:
        KafkaBus(self._bus, client_id=self._client_id).publish(messages)

    def send_again(self, letter: DeadLetter, messages: Sequence[OutMessage]) -> None:
        """In one transaction, the closing first: a reader that fails once more opens the letter after that."""
        closed = replace(
            letter, state=LetterState.CLOSED, changed_at=datetime.now(timezone.utc), changed_by="replayed by operator"
        )
        producer = make_producer(
            self._bus.bootstrap_servers,
            client_id=self._client_id,
            extra=self._bus.extra,
            transactional_id=f"{self._bus.group_prefix}.replay.{uuid.uuid4()}",
        )
        try:
            producer.init_transactions(TIMEOUT_S)
            producer.begin_transaction()
            producer.produce(DEAD_LETTERS_INDEX, encode(closed), letter.letter_id.encode())
            producer.flush(TIMEOUT_S)
            for message in messages:
                producer.produce(message.topic, message.value, message.key, headers=list(message.headers))
            producer.commit_transaction(TIMEOUT_S)
        except KafkaException as fault:
            raise BusUnavailable(
                f"letter {letter.letter_id} was not sent again: {fault.args[0].name()}",
                next_step="repeat the command: what was begun is taken back",
            ) from fault

    # --- reading ------------------------------------------------------------------------------------------------

    def _read(self, reader: Callable[[bytes | None], T], message: Message) -> T | None:
        try:
            return reader(_bytes(message.value()))
        except Undecodable:
            self._unreadable += 1
            return None

    def _latest(self, topic: str, partitions: Sequence[int] | None) -> dict[bytes, Message]:
        bus = self._bus
        return latest_by_key(
            bus.bootstrap_servers, topic, extra=bus.extra, partitions=partitions, client_id=self._client_id
        )

    def _read_to_end(
        self, topic: str, *, partitions: Sequence[int] | None, start: Mapping[int, int]
    ) -> Iterator[Message]:
        bus = self._bus
        return read_to_end(
            bus.bootstrap_servers,
            topic,
            extra=bus.extra,
            partitions=partitions,
            start=start,
            client_id=self._client_id,
        )

    @contextmanager
    def _reading(self, begin: Mapping[tuple[str, int], int]) -> Iterator[Consumer]:
        """A consumer of these partitions, from these offsets on."""
        consumer = make_consumer(
            self._bus.bootstrap_servers,
            client_id=self._client_id,
            group_id=self._client_id,
            extra=self._bus.extra,
        )
        try:
            if begin:
                consumer.assign([TopicPartition(topic, partition, at) for (topic, partition), at in begin.items()])
            yield consumer
        except KafkaException as fault:
            raise BusUnavailable(f"no broker answers: {fault.args[0].name()}") from fault
        finally:
            consumer.close()

    def _partitions_of(self, topic: str, keys: Iterable[str]) -> list[int]:
        """Where the messages of these keys are."""
        with self._reading({}) as consumer:
            count = _count(consumer, topic)
        return sorted({partition_for(key.encode(), count) for key in keys})

    def _ends(self, topic: str, partitions: Sequence[int] | None) -> dict[int, tuple[int, int]]:
        """First offset and the one after the last, per partition."""
        with self._reading({}) as consumer:
            return {
                partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=TIMEOUT_S)
                for partition in (range(_count(consumer, topic)) if partitions is None else partitions)
            }


class _KafkaWatch:
    """Implements `Watch`."""

    def __init__(self, consumer: Consumer, news: Callable[[Message], News | None]) -> None:
        self._consumer, self._news = consumer, news

    def take(self, timeout_s: float) -> Sequence[News]:
        batch = self._consumer.consume(1, timeout_s)
        batch += self._consumer.consume(500, 0) if batch else []
        found = (self._news(message) for message in batch if message.error() is None)
        return [news for news in found if news is not None]


def _count(consumer: Consumer, topic: str) -> int:
    found = consumer.list_topics(topic, timeout=TIMEOUT_S).topics.get(topic)
    if found is None or found.error is not None or not found.partitions:
        raise TopicMismatch(f"topic {topic} does not exist", next_step="make the topics: drawbar topics apply")
    return len(found.partitions)


def _row(data: bytes | None) -> Row:
    return from_json(Row, data or b"")


def _letter(data: bytes | None) -> DeadLetter:
    return decode(DeadLetter, data)


def _line(data: bytes | None) -> JournalLine:
    return decode(JournalLine, data)


def header_of(message: InMessage, name: str) -> str:
    """One of the headers that a stage adds to a message that it sets aside; blank when there is none."""
    return next((value.decode(errors="replace") for key, value in message.headers if key == PREFIX + name), "")


def to_in_message(raw: Message) -> InMessage:
    headers: Any = raw.headers() or ()
    partition, offset = raw.partition(), raw.offset()
    return InMessage(
        topic=raw.topic() or "",
        partition=-1 if partition is None else partition,
        offset=-1 if offset is None else offset,
        key=_bytes(raw.key()) or b"",
        value=_bytes(raw.value()),
        headers=tuple((name, value) for name, value in headers if value is not None),
        timestamp_ms=raw.timestamp()[1],
    )


def _bytes(data: str | bytes | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data


# --- naming a record ----------------------------------------------------------------------------------------------


class MappedEntities(Protocol):
    """What is asked of a mapping here."""

    @property
    def name(self) -> str: ...

    @property
    def role(self) -> str: ...

    def entity_in(self, system: System) -> str | None: ...

    def captured_fields(self, system: System) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Named:
    """A record as a person names it: by id, or by a field and its value."""

    system: System
    entity: str
    id: str = ""
    field: str = ""
    value: str = ""

    def __str__(self) -> str:
        """Fit for messages: the value of a field is not repeated."""
        return f"{self.system}:{self.entity}:{self.id or f'{self.field}=…'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A record that a row knows."""

    mapping: str
    ref: RecordRef
    row: Row
    side: Side


def parse_named(text: str) -> Named:
    """Raises UsageError when `text` is neither `system:entity:id` nor `system:entity:field=value`."""
    system, _, rest = text.partition(":")
    entity, _, name = rest.partition(":")
    if system not in {member.value for member in System} or not entity or not name:
        raise UsageError(
            "a record is named system:entity:id or system:entity:field=value",
            next_step="write for example erp:salesperson:code=JR or crm:systemuser:<id>",
        )
    field, equals, value = name.partition("=")
    if not equals:
        return Named(System(system), entity, id=name.strip().lower())
    if not field or not value.strip():
        raise UsageError(
            "a business key has a field and a value", next_step="write for example erp:salesperson:code=JR"
        )
    return Named(System(system), entity, field=field.strip(), value=value.strip())


def mappings_of(
    named: Named, mappings: Iterable[MappedEntities], *, mapping: str | None = None
) -> tuple[MappedEntities, ...]:
    """The mappings that a record of this entity may have a row in. Raises UsageError when there is none."""
    known = tuple(mappings)
    if mapping is not None and mapping not in {item.name for item in known}:
        raise UsageError(
            f"no mapping is called {mapping!r}", next_step=suggestion(mapping, [item.name for item in known])
        )
    found = tuple(item for item in known if item.entity_in(named.system) == named.entity)
    if not found:
        entities = sorted({entity for item in known if (entity := item.entity_in(named.system)) is not None})
        raise UsageError(
            f"no mapping has the {named.system} entity {named.entity!r}", next_step=suggestion(named.entity, entities)
        )
    chosen = tuple(item for item in found if mapping in (None, item.name))
    if not chosen:
        raise UsageError(
            f"mapping {mapping} has no {named.system} entity {named.entity!r}",
            next_step=f"mappings that have it: {', '.join(item.name for item in found)}",
        )
    return chosen


def sides(row: Row) -> Iterator[tuple[System, Side]]:
    """Every record whose state the row holds."""
    if row.pair is not None and row.pair.erp is not None:
        yield System.ERP, row.pair.erp
    if row.pair is not None and row.pair.crm is not None:
        yield System.CRM, row.pair.crm
    if row.home is not None and row.home.evicted is not None:
        yield System.CRM, row.home.evicted


def find(
    named: Named, rows: Mapping[str, Row], mappings: Iterable[MappedEntities], *, mapping: str | None = None
) -> tuple[Known, ...]:
    """Every record that is meant, once per mapping that knows it.

    Raises UsageError for an entity that no mapping has and for a field that is not captured.
    """
    of = {item.name: item for item in mappings_of(named, mappings, mapping=mapping)}
    if named.field:
        captured = sorted({name for item in of.values() for name in item.captured_fields(named.system)})
        if named.field not in captured:
            raise UsageError(
                f"field {named.field!r} of {named.system}:{named.entity} is not captured",
                next_step=suggestion(named.field, captured),
            )
    found: dict[tuple[str, str], Known] = {}
    for row in rows.values():
        if row.mapping not in of:
            continue
        for system, side in sides(row):
            if system is named.system and _is_meant(named, side):
                ref = RecordRef(system, named.entity, side.id)
                found[row.mapping, side.id] = Known(mapping=row.mapping, ref=ref, row=row, side=side)
    return tuple(found.values())


def find_one(
    named: Named, rows: Mapping[str, Row], mappings: Iterable[MappedEntities], *, mapping: str | None = None
) -> tuple[Known, ...]:
    """As `find`, for one record. Raises UsageError when nobody knows it, or when several are meant."""
    found = find(named, rows, mappings, mapping=mapping)
    refs = sorted({str(known.ref) for known in found})
    if not refs:
        raise UsageError(
            f"no record is known as {named}",
            next_step="check the name; a record that was just made is known once capture has read it",
        )
    if len(refs) > 1:
        listed = ", ".join(refs[:5]) + (f" and {len(refs) - 5} more" if len(refs) > 5 else "")
        raise UsageError(f"{len(refs)} records are known as {named}", next_step=f"name one by its id: {listed}")
    return found


def _is_meant(named: Named, side: Side) -> bool:
    if named.id:
        return side.id.lower() == named.id
    value = side.state.get(named.field)
    return value is not None and not side.deleted and str(value).strip().casefold() == named.value.casefold()


def suggestion(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(sorted(known))}"


def holder_of(rows: Mapping[str, Row], mapping: str, crm_id: str) -> Row | None:
    """The row whose pair holds this CRM record, if it is coupled."""
    for row in rows.values():
        pair = row.pair
        if pair is None or pair.crm is None or pair.state is not PairState.COUPLED:
            continue
        if row.mapping == mapping and pair.crm.id == crm_id:
            return row
    return None


def holds_letter(row: Row | None, letter_id: str) -> bool:
    """Whether a home still holds what a letter is about."""
    pair = row.pair if row is not None else None
    return pair is not None and any(hold.letter_id == letter_id for hold in pair.holds.values())
