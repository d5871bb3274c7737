"""The rows of this process, and how they and all messages reach the brokers.

`CouplingTable` is Faust's table of the rows whose partitions this process owns. Faust throws the future of a changelog
write away; here every write is kept and awaited before anything that follows from it is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import faust
import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from msgspec import Struct

from drawbar.bus.clients import make_producer
from drawbar.ports import OutMessage
from drawbar.settings import BusSettings
from drawbar.traces import Headers, trace_headers
from schemas.codec import from_json, to_json
from schemas.coupling import Row
from schemas.errors import BusError, BusUnavailable
from schemas.records import DeadLetter, LetterState, home_key
from schemas.topics import COUPLINGS

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


class Kept(Struct, gc=False):
    """A row of this process whose changelog write has begun, and its text; None: it is forgotten."""

    key: bytes
    row: Row | None
    text: bytes | None
    partition: int
    receipt: Receipt


class CouplingTable(faust.Table[bytes, bytes]):
    """Home key -> row, as JSON text. Each row lies on the partition of the messages about its home."""

    outbox: Outbox

    def __post_init__(self) -> None:
        self._parsed: dict[bytes, Row] = {}
        self._partition_of: dict[bytes, int] = {}
        self._writes: list[Kept] = []
        self._writing: tuple[Row | None, int] = None, -1

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

    def store(self, key: bytes, row: Row | None, *, partition: int) -> None:
        """Keep the row and begin its changelog write, which `stored` awaits."""
        self._writing = row, partition
        if row is None:
            self._parsed.pop(key, None)
            if key in self.data:
                del self[key]
            self._partition_of.pop(key, None)
            return
        self[key] = to_json(row)
        self._partition_of[key] = partition
        self._keep_parsed(key, row)

    async def stored(self) -> Sequence[Kept]:
        """Return when the brokers have every row begun so far: those rows. Raises as `Outbox.confirmed`."""
        writes, self._writes = self._writes, []
        await self.outbox.confirmed([kept.receipt for kept in writes])
        return writes

    def on_key_set(self, key: bytes, value: bytes) -> None:
        self._write(key, value)

    def on_key_del(self, key: bytes) -> None:
        self._write(key, None)

    def _write(self, key: bytes, text: bytes | None) -> None:
        row, partition = self._writing
        message = OutMessage(topic=COUPLINGS, key=key, value=text)
        self._writes.append(Kept(key, row, text, partition, self.outbox.post(message, partition=partition)))

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
