"""The rows of this process, and the view of all rows.

`CouplingTable` is Faust's table of the rows whose partitions this process owns. Faust throws the future of a changelog
write away; here every write is kept and awaited before anything that follows from it is sent. `ViewFeed` reads *all*
partitions of the same topic with a plain consumer in a thread, for the reference view, and with them the index of dead
letters, so that a letter that is closed keeps the position of its bytes, and the brakes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_futures
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import faust
import orjson
import structlog
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message, Producer, TopicPartition

from drawbar.bus.clients import make_admin, make_consumer, make_producer
from drawbar.ports import OutMessage
from drawbar.settings import BusSettings
from drawbar.traces import Headers, trace_headers
from schemas.brakes import Brake, read_brake
from schemas.codec import decode, from_datum, from_json, to_json
from schemas.coupling import Row
from schemas.errors import BusError, BusUnavailable, TopicMismatch, Undecodable
from schemas.records import DeadLetter, LetterState, home_key
from schemas.topics import BRAKES, COUPLINGS, DEAD_LETTERS_INDEX

DELIVERY_TIMEOUT_MS = 60_000  # an outage of the brokers is sat out this long; then the process ends and starts again
PARSED_ROWS = 20_000  # rows kept parsed besides their text; some 10 kB each
CLOSED_LETTERS = 10_000  # closed letters whose position is remembered, for messages that come again

log = structlog.get_logger(__name__)


class Receipt:
    """What became of one message; called by the producer when the brokers have it, or refuse it."""

    __slots__ = ("done", "error", "offset", "partition")

    def __init__(self) -> None:
        self.done = False
        self.error: KafkaError | None = None
        self.partition = -1
        self.offset = -1

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.error = error
        else:
            partition, offset = message.partition(), message.offset()
            assert partition is not None, "a delivered message has a place"
            assert offset is not None, "a delivered message has a place"
            self.partition, self.offset = partition, offset
        self.done = True


class Outbox:
    """The one producer of this process. Messages with one key arrive in the order in which they were posted."""

    def __init__(self, settings: BusSettings, *, client_id: str) -> None:
        # Posting a batch takes about a millisecond: lingering longer would only add latency.
        extra = {"message.timeout.ms": str(DELIVERY_TIMEOUT_MS), "linger.ms": "1", **settings.extra}
        self._producer: Producer = make_producer(settings.bootstrap_servers, client_id=client_id, extra=extra)
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="outbox")

    def post(self, message: OutMessage, *, partition: int = -1) -> Receipt:
        """Hand a message to the producer. `partition` -1: the one that belongs to its key."""
        receipt = Receipt()
        while not self._posted(message, partition, receipt):
            self._producer.poll(0.05)  # the client's own queue is full: make room
        return receipt

    async def confirmed(self, receipts: Sequence[Receipt]) -> None:
        """Return when the brokers have all of these messages.

        Raises BusUnavailable when they do not have one of them in time, BusError when they refuse one.
        """
        if receipts:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._wait, receipts)
        for receipt in receipts:
            if receipt.error is not None:
                kind = BusUnavailable if receipt.error.code() < 0 or receipt.error.retriable() else BusError
                raise kind(f"a message was not taken: {receipt.error.name()}")

    async def send(self, messages: Iterable[OutMessage]) -> Sequence[Receipt]:
        """Post and await all of them. Raises as `confirmed`."""
        receipts = [self.post(message) for message in messages]
        await self.confirmed(receipts)
        return receipts

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._producer.flush(1)

    def _posted(self, message: OutMessage, partition: int, receipt: Receipt) -> bool:
        try:
            self._producer.produce(
                message.topic,
                value=message.value,
                key=message.key,
                headers=list(message.headers),
                partition=partition,
                on_delivery=receipt,
            )
        except BufferError:
            return False
        except KafkaException as refused:
            receipt.error, receipt.done = refused.args[0], True
        return True

    def _wait(self, receipts: Sequence[Receipt]) -> None:
        # Every receipt comes back, at the latest after DELIVERY_TIMEOUT_MS.
        while not all(receipt.done for receipt in receipts):
            self._producer.flush(0.5)


class CouplingTable(faust.Table[bytes, bytes]):
    """Home key -> row, as JSON text. Each row lies on the partition of the messages about its home."""

    outbox: Outbox

    def __post_init__(self) -> None:
        self._parsed: dict[bytes, Row] = {}
        self._partition_of: dict[bytes, int] = {}
        self._writes: list[Receipt] = []
        self._writing_to = -1

    def row(self, key: bytes) -> Row | None:
        """Raises Undecodable when the row's text is not one this version can read."""
        row = self._parsed.get(key)
        if row is None:
            text = self.data.get(key)
            if text is None:
                return None
            row = from_json(Row, text)
            self._keep_parsed(key, row)
        return row

    def same_row(self, key: bytes, text: bytes) -> Row | None:
        """The parsed row when `text` is just what this process keeps under the key. May be asked by another thread."""
        row = self._parsed.get(key)
        return row if row is not None and self.data.get(key) == text else None

    def store(self, key: bytes, row: Row | None, *, partition: int) -> None:
        """Keep the row and begin its changelog write, which `stored` awaits."""
        self._writing_to = partition
        if row is None:
            self._parsed.pop(key, None)
            if key in self.data:
                del self[key]
            self._partition_of.pop(key, None)
            return
        self[key] = to_json(row)
        self._partition_of[key] = partition
        self._keep_parsed(key, row)

    async def stored(self) -> None:
        """Return when the brokers have every row begun so far. Raises as `Outbox.confirmed`."""
        writes, self._writes = self._writes, []
        await self.outbox.confirmed(writes)

    def on_key_set(self, key: bytes, value: bytes) -> None:
        message = OutMessage(topic=COUPLINGS, key=key, value=value)
        self._writes.append(self.outbox.post(message, partition=self._writing_to))

    def on_key_del(self, key: bytes) -> None:
        message = OutMessage(topic=COUPLINGS, key=key, value=None)
        self._writes.append(self.outbox.post(message, partition=self._writing_to))

    def partition_of(self, key: bytes) -> int:
        return self._partition_of[key]

    def texts(self) -> Iterator[tuple[bytes, bytes]]:
        """Every row as its text."""
        return iter(list(self.data.items()))

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        """Take rows from the changelog in, during recovery: bytes as they are, a tombstone removes its row."""
        for event in batch:
            message = event.message
            self._parsed.pop(message.key, None)
            if message.value is None:
                self.data.pop(message.key, None)
                self._partition_of.pop(message.key, None)
            else:
                self.data[message.key] = message.value
                self._partition_of[message.key] = message.partition

    async def on_rebalance(
        self, assigned: set[Any], revoked: set[Any], newly_assigned: set[Any], generation_id: int = 0
    ) -> None:
        """Forget the rows of every partition that came or went: what came is read anew from its beginning.

        Faust's own store keeps what it wrote itself, so that a row deleted by another process would come back.
        """
        moved = {tp.partition for tp in revoked | newly_assigned if tp.topic == COUPLINGS}
        for key in [key for key, partition in self._partition_of.items() if partition in moved]:
            self._parsed.pop(key, None)
            self.data.pop(key, None)
            del self._partition_of[key]
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)

    def _keep_parsed(self, key: bytes, row: Row) -> None:
        self._parsed.pop(key, None)
        self._parsed[key] = row
        if len(self._parsed) > PARSED_ROWS:
            del self._parsed[next(iter(self._parsed))]


@dataclass(slots=True)
class LetterPositions:
    """Letter id -> partition and offset in `dead-letters`, of all open letters and of those closed lately; and home ->
    the trace in which its letter was opened.
    """

    _open: dict[str, tuple[int, int]] = field(default_factory=dict)
    _closed: dict[str, tuple[int, int]] = field(default_factory=dict)
    _traces: dict[str, Headers] = field(default_factory=dict)

    def of(self, letter_id: str) -> tuple[int, int]:
        """(-1, -1) for a letter that nobody knows."""
        return self._open.get(letter_id) or self._closed.get(letter_id) or (-1, -1)

    def trace_of(self, home: str) -> Headers:
        """The trace headers of the message for which the home's last open letter was opened."""
        return self._traces.get(home, ())

    def note(self, letter: DeadLetter, partition: int, offset: int, *, headers: Headers = ()) -> None:
        home = home_key(letter.mapping, letter.home)
        if letter.state is LetterState.OPEN:
            if traced := trace_headers(headers):
                self._traces[home] = traced
            self._closed.pop(letter.letter_id, None)
            self._open[letter.letter_id] = (partition, offset)
            return
        self._traces.pop(home, None)
        self._open.pop(letter.letter_id, None)
        self._closed.pop(letter.letter_id, None)
        self._closed[letter.letter_id] = (partition, offset)
        if len(self._closed) > CLOSED_LETTERS:
            del self._closed[next(iter(self._closed))]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the feed read in one go."""

    rows: Sequence[Row]
    letters: Sequence[tuple[DeadLetter, Headers]]
    brakes: Sequence[tuple[str, Brake]]  # with the key of each
    brakes_position: int  # the offset of `brakes` that comes next; -1: nothing of it was read now


class ViewFeed:
    """Reads all of `couplings`, `dead-letters.index` and `brakes` in a thread; hands on, in the loop, what it read."""

    def __init__(
        self,
        settings: BusSettings,
        *,
        client_id: str,
        known: Callable[[bytes, bytes], Row | None],
        on_seen: Callable[[Seen], None],
    ) -> None:
        """`known` gives the row of a key and a text that this process has parsed already."""
        self._settings = settings
        self._client_id = client_id
        self._known = known
        self._on_seen = on_seen
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._caught_up: asyncio.Future[None] = self._loop.create_future()
        self._failed: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="view-feed", daemon=True)
        self.lag = 0  # messages of `couplings` that are not read yet
        self._homes: dict[bytes, tuple[int, int]] = {}  # home key -> partition, checksum of its row's text
        self._positions: dict[tuple[str, int], int] = {}
        self._last: dict[int, int] = {}

    @property
    def rows(self) -> int:
        """How many homes have a row, in all partitions."""
        return len(self._homes)

    def position(self, partition: int) -> int:
        """The offset of `couplings` that comes next."""
        return self._positions.get((COUPLINGS, partition), 0)

    def last(self, partition: int) -> int:
        """The offset of the last row or tombstone of a partition of `couplings`; -1: there was none."""
        return self._last.get(partition, -1)

    async def reached(self, ends: Mapping[int, int]) -> None:
        """Return when the view was read to these offsets of `couplings`, by partition."""
        while any(  # noqa: ASYNC110 - they are set by another thread
            self.position(partition) < end for partition, end in ends.items()
        ):
            await asyncio.sleep(0.02)

    def differing(self, texts: Iterable[tuple[bytes, bytes]], partitions: Container[int]) -> int:
        """How many homes of these partitions have another row in `texts` than in the view."""
        ours = {key: crc32(text) for key, text in texts}
        theirs = {key: check for key, (partition, check) in list(self._homes.items()) if partition in partitions}
        return sum(ours.get(key) != theirs.get(key) for key in ours.keys() | theirs.keys())

    def start(self) -> None:
        self._thread.start()

    async def caught_up(self) -> None:
        """Return when everything that was there at the start has been handed on."""
        await self._caught_up

    async def failed(self) -> None:
        """Raise what ended the thread; return when it was stopped."""
        await self._failed

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.to_thread(self._thread.join, 10)

    def _run(self) -> None:
        try:
            self._read()
        except Exception as fault:  # noqa: BLE001 - the edge of a thread: the process ends with it
            self._tell(self._failed, fault)
            self._tell(self._caught_up, fault)
        else:
            self._tell(self._failed, None)

    def _tell(self, future: asyncio.Future[None], fault: Exception | None) -> None:
        def settle() -> None:
            if future.done():
                return
            if fault is None:
                future.set_result(None)
            else:
                future.set_exception(fault)
                future.exception()  # whoever awaits it gets it; nobody may be left to

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(settle)

    def _read(self) -> None:
        bus = self._settings
        consumer = make_consumer(
            bus.bootstrap_servers,
            client_id=self._client_id,
            group_id=self._client_id,
            extra=bus.extra,
            partition_eof=True,
        )
        try:
            places = _places(bus, self._client_id)
            consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for topic, partition in places])
            unread = set(places)
            self._positions = dict.fromkeys((place for place in places if place[0] == COUPLINGS), 0)
            while not self._stop.is_set():
                first = consumer.poll(0.2)
                messages = [first, *consumer.consume(500, 0)] if first is not None else []
                seen, ended = self._parse(messages)
                if seen.rows or seen.letters or seen.brakes_position >= 0:
                    self._hand_on(seen)
                if unread:
                    unread -= ended
                    if not unread:
                        self._tell(self._caught_up, None)
                self.lag = _lag(consumer, self._positions)
        finally:
            consumer.close()

    def _parse(self, messages: Sequence[Message]) -> tuple[Seen, set[tuple[str, int]]]:
        rows: list[Row] = []
        letters: list[tuple[DeadLetter, Headers]] = []
        brakes: list[tuple[str, Brake]] = []
        brakes_position = -1
        ended: set[tuple[str, int]] = set()
        for message in messages:
            error = message.error()
            place = (str(message.topic()), _number(message.partition()))
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                    ended.add(place)
                    if place in self._positions:
                        self._positions[place] = _number(message.offset())
                elif error.fatal():
                    raise BusUnavailable(f"the view cannot be read: {error.name()}")
                continue
            key, value = _bytes(message.key()), message.value()
            if place[0] == COUPLINGS:
                rows += self._row(key, None if value is None else _bytes(value), place[1])
                self._last[place[1]] = _number(message.offset())
                self._positions[place] = _number(message.offset()) + 1
            elif place[0] == BRAKES:
                brakes_position = _number(message.offset()) + 1
                if value is not None:
                    brakes.append((key.decode(errors="replace"), read_brake(_bytes(value))))
            elif value is not None:
                letters += [(letter, _headers(message)) for letter in self._letter(_bytes(value))]
        return Seen(rows, letters, brakes, brakes_position), ended

    def _row(self, key: bytes, value: bytes | None, partition: int) -> Sequence[Row]:
        """Nothing for what cannot be read: what is missing in the view can only make a change wait."""
        try:
            if value is None:
                self._homes.pop(key, None)
                mapping, _, record_id = key.decode().partition(":")
                return (Row(mapping=mapping, id=record_id),)
            self._homes[key] = (partition, crc32(value))
            return (self._known(key, value) or viewed_row(value),)
        except (Undecodable, UnicodeDecodeError):
            log.warning("process.row_unreadable", partition=partition)
            return ()

    def _letter(self, value: bytes) -> Sequence[DeadLetter]:
        try:
            return (decode(DeadLetter, value),)
        except Undecodable:
            log.warning("process.letter_unreadable")
            return ()

    def _hand_on(self, seen: Seen) -> None:
        """Wait until the loop took it: what is read ahead is bounded."""

        async def take() -> None:
            self._on_seen(seen)

        taken = asyncio.run_coroutine_threadsafe(take(), self._loop)
        while not self._stop.is_set() and not wait_futures([taken], 0.5).done:
            pass
        if taken.done() and not taken.cancelled():
            taken.result()


def viewed_row(text: bytes) -> Row:
    """The part of a row that the reference view and the brakes look at: who it is, its two sides, whether they are
    coupled, and when they were written last.

    Reading that part alone takes a fraction of the time. Raises Undecodable.
    """
    try:
        datum = orjson.loads(text)
        pair = datum.get("pair")
        part = {"mapping": datum["mapping"], "id": datum["id"]}
        if pair is not None:
            part["pair"] = {name: pair[name] for name in ("state", "erp", "crm", "updated") if name in pair}
        return from_datum(Row, part)
    except Exception as fault:
        raise Undecodable(f"broken Row: {type(fault).__name__}") from fault


def _places(bus: BusSettings, client_id: str) -> list[tuple[str, int]]:
    """Every partition that the feed reads. Raises TopicMismatch when a topic is missing."""
    topics: Mapping[str, Any] = (
        make_admin(bus.bootstrap_servers, client_id=client_id, extra=bus.extra).list_topics(timeout=30).topics
    )
    places = []
    for name in (COUPLINGS, DEAD_LETTERS_INDEX, BRAKES):
        topic = topics.get(name)
        if topic is None or topic.error is not None:
            raise TopicMismatch(f"topic {name} does not exist", next_step="make the topics: drawbar topics apply")
        places += [(name, partition) for partition in topic.partitions]
    return places


def _lag(consumer: Any, positions: Mapping[tuple[str, int], int]) -> int:
    lag = 0
    for (topic, partition), position in positions.items():
        _low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
        lag += max(0, high - position) if high > 0 else 0
    return lag


def _bytes(data: str | bytes | None) -> bytes:
    return data.encode() if isinstance(data, str) else data or b""


def _headers(message: Message) -> Headers:
    found: Any = message.headers() or ()
    return tuple((name, value) for name, value in found if value is not None)


def _number(value: int | None) -> int:
    return -1 if value is None else value
