"""What this process sees of all rows, of all letters and of the brakes.

`ViewFeed` reads `couplings` with a plain consumer in a thread, for the reference view, without the partitions whose
rows this process writes itself; and the index of dead letters, so that a letter that is closed keeps the position of
its bytes, and the brakes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import wait as wait_futures
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import structlog
from confluent_kafka import OFFSET_BEGINNING, KafkaError, Message, TopicPartition

from drawbar.bus.clients import make_admin, make_consumer
from drawbar.settings import BusSettings
from drawbar.traces import Headers
from processors.tables import Kept
from schemas.brakes import Brake, read_brake
from schemas.codec import decode, from_json
from schemas.coupling import Row
from schemas.errors import BusUnavailable, TopicMismatch, Undecodable
from schemas.records import DeadLetter
from schemas.topics import BRAKES, COUPLINGS, DEAD_LETTERS_INDEX

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Seen:
    """What is handed on in one go."""

    rows: list[Row] = field(default_factory=list)
    letters: list[tuple[DeadLetter, Headers]] = field(default_factory=list)
    brakes: list[tuple[str, Brake]] = field(default_factory=list)  # with the key of each
    brakes_position: int = -1  # the offset of `brakes` that comes next; -1: nothing of it was read now


@dataclass(slots=True)
class _Found:
    """What was fetched in one go, and how far it goes."""

    seen: Seen = field(default_factory=Seen)
    ended: set[tuple[str, int]] = field(default_factory=set)  # places of which there is no more for now
    positions: dict[tuple[str, int], int] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)


class ViewFeed:
    """Reads `couplings`, `dead-letters.index` and `brakes` in a thread; hands on, in the loop, what it read.

    Partitions of `couplings` whose rows this process writes itself are left out (`leave`): those rows are handed on as
    soon as they are durable (`wrote`), and need not be fetched and read to be known. When the partitions go to another
    process, they are read again (`follow`), from behind the last row up to which surely nobody else wrote (`passed`).
    """

    def __init__(self, settings: BusSettings, *, client_id: str, on_seen: Callable[[Seen], None]) -> None:
        self._settings = settings
        self._client_id = client_id
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
        self._to_leave: frozenset[int] = frozenset()  # partitions of `couplings` that are not to be read here
        self.left: frozenset[int] = frozenset()  # those that are not fetched by now

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

    async def leave(self, partitions: Iterable[int]) -> None:
        """Read these partitions of `couplings` no more: this process owns them, and knows all of their rows. Returns
        when nothing of them is on its way any more (else an older row could come after one that `wrote` handed on), or
        when `follow` was called meanwhile.
        """
        wanted = frozenset(partitions)
        self._to_leave = wanted
        while self._to_leave == wanted and self.left != wanted:  # noqa: ASYNC110 - it is set by another thread
            await asyncio.sleep(0.01)

    def follow(self) -> None:
        """Read all partitions again."""
        self._to_leave = frozenset()

    def wrote(self, rows: Sequence[Kept]) -> None:
        """Hand on rows of partitions that were left; they are durable."""
        for kept in rows:
            self._keep(kept.key, kept.text, kept.partition)
        self._on_seen(Seen([kept.row or _forgotten(kept.key) for kept in rows]))

    def passed(self, rows: Sequence[Kept]) -> None:
        """The messages that led to these rows were acknowledged, so no later owner wrote before them. An earlier one
        may have: it was cut off with a row under way. Its row is a gap between ours, and is read when we follow again.
        """
        for kept in rows:
            place, offset = (COUPLINGS, kept.partition), kept.receipt.offset
            if offset == self._positions.get(place, 0):
                self._positions[place], self._last[kept.partition] = offset + 1, offset

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
                self._assign(consumer)
                first = consumer.poll(0.2)
                messages = [first, *consumer.consume(500, 0)] if first is not None else []
                found = self._parse(messages)
                if found.seen.rows or found.seen.letters or found.seen.brakes_position >= 0:
                    self._hand_on(found.seen)
                self._positions |= found.positions  # only now: whoever waits for a position may ask the view
                self._last |= found.last
                if unread:
                    unread -= found.ended
                    if not unread:
                        self._tell(self._caught_up, None)
                self.lag = self._lag(consumer)
        finally:
            consumer.close()

    def _assign(self, consumer: Any) -> None:
        """Read what is wanted by now."""
        before, left = self.left, self._to_leave
        if gone := left - before:
            consumer.incremental_unassign([TopicPartition(COUPLINGS, partition) for partition in gone])
        if back := before - left:
            places = [TopicPartition(COUPLINGS, partition, self.position(partition)) for partition in back]
            consumer.incremental_assign(places)
        self.left = left

    def _lag(self, consumer: Any) -> int:
        lag = 0
        for (topic, partition), position in self._positions.items():
            if partition not in self._to_leave:
                _low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
                lag += max(0, high - position) if high > 0 else 0
        return lag

    def _parse(self, messages: Sequence[Message]) -> _Found:
        found = _Found()
        for message in messages:
            error = message.error()
            place = (str(message.topic()), _number(message.partition()))
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                    found.ended.add(place)
                    if place[0] == COUPLINGS:
                        found.positions[place] = _number(message.offset())
                elif error.fatal():
                    raise BusUnavailable(f"the view cannot be read: {error.name()}")
                continue
            key, value = _bytes(message.key()), message.value()
            if place[0] == COUPLINGS:
                found.seen.rows += self._row(key, None if value is None else _bytes(value), place[1])
                found.last[place[1]] = _number(message.offset())
                found.positions[place] = _number(message.offset()) + 1
            elif place[0] == BRAKES:
                found.seen.brakes_position = _number(message.offset()) + 1
                if value is not None:
                    found.seen.brakes.append((key.decode(errors="replace"), read_brake(_bytes(value))))
            elif value is not None:
                found.seen.letters += [(letter, _headers(message)) for letter in self._letter(_bytes(value))]
        return found

    def _row(self, key: bytes, value: bytes | None, partition: int) -> Sequence[Row]:
        """Nothing for what cannot be read: what is missing in the view can only make a change wait."""
        try:
            self._keep(key, value, partition)
            return (_forgotten(key) if value is None else from_json(Row, value),)
        except (Undecodable, UnicodeDecodeError):
            log.warning("process.row_unreadable", partition=partition)
            return ()

    def _keep(self, key: bytes, text: bytes | None, partition: int) -> None:
        if text is None:
            self._homes.pop(key, None)
        else:
            self._homes[key] = (partition, crc32(text))

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


def _forgotten(key: bytes) -> Row:
    """What a row says that is no more. Raises UnicodeDecodeError."""
    mapping, _, record_id = key.decode().partition(":")
    return Row(mapping=mapping, id=record_id)


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


def _bytes(data: str | bytes | None) -> bytes:
    return data.encode() if isinstance(data, str) else data or b""


def _headers(message: Message) -> Headers:
    found: Any = message.headers() or ()
    return tuple((name, value) for name, value in found if value is not None)


def _number(value: int | None) -> int:
    return -1 if value is None else value
