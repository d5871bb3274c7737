"""The agents: they take messages in, in order, and acknowledge each after all that it caused is confirmed.

An agent's body only hands its messages to an `Intake`, which never raises. Whatever has piled up while the last batch
was under way becomes the next one, so that an idle process answers at once and a busy one works in large batches.

The order of things in `Decide` is what every promise rests on: rows durable, then commands, works, letters and lines
confirmed, then the acknowledgement, and only after that another row of the same home. A row remembers what its *last*
message made it send. If it were overwritten before that is confirmed and acknowledged, a message that comes again
could not send it again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from drawbar.letters import bytes_letter, index_message, letter_message
from drawbar.ports import InMessage, OutMessage
from drawbar.traces import NO_TRACES, Span, Traces, end_all, trace_headers
from processors.homes import RELEASE
from processors.react import Step, World, react
from processors.release import Releaser, Waiting, standing_of
from processors.route import Routes, to_works
from processors.tables import CouplingTable, Kept, LetterPositions, Outbox
from schemas.codec import decode, encode
from schemas.coupling import Row
from schemas.errors import MappingUnknown, RecordError, Undecodable
from schemas.records import DeadLetter, LetterState, OrderKind, Work
from schemas.topics import BRAKES, JOURNAL, PAIRS_WORK, commands_topic

DECIDED_AT_ONCE = 100  # then others have their turn: a large batch takes as long as half a second

Position = tuple[str, int]  # topic and partition
Acknowledge = Callable[[Mapping[Position, int]], Awaitable[bool]]


class Handler(Protocol):
    async def __call__(self, batch: Sequence[InMessage]) -> None: ...


class ViewOfOurs(Protocol):
    """The view of all rows takes those that this process writes from itself."""

    def wrote(self, rows: Sequence[Kept]) -> None:
        """They are durable."""
        ...

    def passed(self, rows: Sequence[Kept]) -> None:
        """What led to them was acknowledged, so these partitions were still ours when they were written."""
        ...


class Revoked(Exception):
    """An acknowledgement was not taken: the partitions have another owner, who does the work again."""


class Intake:
    """What one agent took in and nobody has handled yet."""

    def __init__(self, handle: Handler, *, batch_size: int) -> None:
        self._handle = handle
        self._batch_size = batch_size
        self._waiting: deque[InMessage] = deque()
        self._some = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._open = asyncio.Event()
        self._next: dict[Position, int] = {}

    async def offer(self, message: InMessage) -> None:
        """Take a message in; waits when much is waiting. What comes while the intake is shut is dropped: it was not
        acknowledged, and comes again.
        """
        if len(self._waiting) >= 4 * self._batch_size:
            self._room.clear()
            await self._room.wait()
        if self._open.is_set():
            self._waiting.append(message)
            self._some.set()

    def open(self) -> None:
        self._open.set()

    async def shut(self) -> None:
        """Drop what is waiting and return when the batch under way is done."""
        self._open.clear()
        self._waiting.clear()
        self._room.set()
        await self._idle.wait()
        self._next.clear()

    async def run(self) -> None:
        """Handle batches for ever. Raises whatever the handler raises: the worker ends."""
        while True:
            await self._some.wait()
            batch = self._take()
            if not batch:
                continue
            self._idle.clear()
            try:
                await self._handle(batch)
            except Revoked:
                self._waiting.clear()
            finally:
                self._idle.set()

    def _take(self) -> list[InMessage]:
        """The next batch, without what was handled already: Faust goes back to what is acknowledged now and then."""
        batch: list[InMessage] = []
        while self._waiting and len(batch) < self._batch_size:
            message = self._waiting.popleft()
            place = (message.topic, message.partition)
            if message.offset >= self._next.get(place, 0):
                self._next[place] = message.offset + 1
                batch.append(message)
        if not self._waiting:
            self._some.clear()
        if len(self._waiting) < 2 * self._batch_size:
            self._room.set()
        return batch


class Pulse:
    """Says whether this process was stopped (suspended, or without processor time) for so long that the group went on.

    A process that sleeps through its session must not write rows when it wakes up: they have another owner by then,
    and Kafka takes a late row from anybody. It ends instead, and starts again.
    """

    def __init__(self, *, limit_s: float) -> None:
        self._limit_s = limit_s
        self._last = time.monotonic()

    async def run(self) -> None:
        while True:
            self.check()
            await asyncio.sleep(0.5)

    def check(self) -> None:
        """Raises RuntimeError after a pause that was too long."""
        now = time.monotonic()
        if now - self._last > self._limit_s:
            raise RuntimeError(f"this process stood still for {now - self._last:.1f} s and lost its partitions")
        self._last = now


class Route:
    """Changes go to the homes of their records; keeps nothing."""

    def __init__(
        self,
        routes: Routes,
        outbox: Outbox,
        acknowledge: Acknowledge,
        clock: Callable[[], datetime],
        traces: Traces = NO_TRACES,
    ) -> None:
        self._routes = routes
        self._outbox = outbox
        self._acknowledge = acknowledge
        self._clock = clock
        self._traces = traces
        self.messages = 0

    async def __call__(self, batch: Sequence[InMessage]) -> None:
        spans: list[Span] = []
        out: list[OutMessage] = []
        letters: list[tuple[DeadLetter, InMessage]] = []
        for message in batch:
            span = self._traces.begin("route", message.headers, place=message.topic)
            works = self._works(message, letters)
            out += [_work_message(work, span) for work in works]
            spans.append(span)
        await self._outbox.send(out)
        await send_letters(letters, self._outbox, LetterPositions(), stage="route")
        if not await self._acknowledge(_positions(batch)):
            raise Revoked
        end_all(spans)
        self.messages += len(batch)

    def _works(self, message: InMessage, letters: list[tuple[DeadLetter, InMessage]]) -> Sequence[Work]:
        try:
            return to_works(message.value, self._routes)
        except Undecodable as fault:
            letters.append((bytes_letter(message, Undecodable, now=self._clock(), detail=fault.message), message))
            return ()


@dataclass(slots=True)
class _Turn:
    """What one or more messages lead to, until it is written and sent."""

    rows: dict[bytes, tuple[Row | None, int]] = field(default_factory=dict)
    steps: list[tuple[Step, InMessage, bytes, Span]] = field(default_factory=list)
    letters: list[tuple[DeadLetter, InMessage]] = field(default_factory=list)
    sending: set[bytes] = field(default_factory=set)  # homes that have more than journal lines to send
    seen: list[InMessage] = field(default_factory=list)
    brakes: list[OutMessage] = field(default_factory=list)
    released: set[bytes] = field(
        default_factory=set
    )  # homes whose last message was a release: they were just looked at


class Decide:
    """Decides the messages of `pairs.work`, one home after the other."""

    def __init__(
        self,
        world: World,
        table: CouplingTable,
        outbox: Outbox,
        waiting: Waiting,
        releaser: Releaser,
        letters: LetterPositions,
        view: ViewOfOurs,
        acknowledge: Acknowledge,
        pulse: Pulse,
        clock: Callable[[], datetime],
        *,
        name: str,
        traces: Traces = NO_TRACES,
    ) -> None:
        """`name`: of this process, for those who ask who put a brake on."""
        self._world = world
        self._name = name
        self._table = table
        self._outbox = outbox
        self._waiting = waiting
        self._releaser = releaser
        self._letters = letters
        self._view = view
        self._acknowledge = acknowledge
        self._pulse = pulse
        self._clock = clock
        self._traces = traces
        self.messages = 0
        self.last_outcome_at: datetime | None = None
        self._brakes_position = 0  # how far the brakes were read
        self._decides_under: int | None = None  # and how far they were when the batch under way began

    @property
    def brakes_position(self) -> int:
        """The offset of `brakes` up to which every message acts on all that this process still sends."""
        return self._brakes_position if self._decides_under is None else self._decides_under

    def read_brakes_to(self, position: int) -> None:
        self._brakes_position = position

    async def __call__(self, batch: Sequence[InMessage]) -> None:
        self._decides_under = self._brakes_position
        try:
            await self._take(batch)
        finally:
            self._decides_under = None

    async def _take(self, batch: Sequence[InMessage]) -> None:
        turn = _Turn()
        for number, message in enumerate(batch, start=1):
            if number % DECIDED_AT_ONCE == 0:
                await asyncio.sleep(0)
            work = self._read(turn, message)
            if work is None:
                continue
            if work.mapping not in self._world.mappings:
                self._set_aside(turn, message, MappingUnknown, work=work)
                continue
            key = message.key
            span = self._begin(work, message)
            row, step = self._step(work, key, message, turn)
            if step.row is not None:
                self._world.brakes.note(step.row, now=self._clock())
            if step.stopped:
                turn.brakes.append(self._stop(work.mapping, step.stopped))
            sends = step.command is not None or bool(step.works) or bool(step.letters)
            if sends or not _same(row, step.row):
                if key in turn.rows and (sends or key in turn.sending):
                    await self._finish(turn)
                    turn = _Turn()
                turn.rows[key] = (step.row, message.partition)
            if sends:
                turn.sending.add(key)
            if work.order is not None and work.order.by == RELEASE:
                turn.released.add(key)
            else:
                turn.released.discard(key)
            _note(span, step)
            turn.steps.append((step, message, key, span))
            turn.seen.append(message)
            if work.outcome is not None:
                self.last_outcome_at = self._clock()
        await self._finish(turn)

    def _read(self, turn: _Turn, message: InMessage) -> Work | None:
        """None: the bytes are set aside."""
        try:
            work = decode(Work, message.value)
        except Undecodable as fault:
            self._set_aside(turn, message, Undecodable, detail=fault.message)
            return None
        if work.key.encode() != message.key:
            self._set_aside(turn, message, Undecodable, detail="the key is not that of the home named inside")
            return None
        return work

    def _begin(self, work: Work, message: InMessage) -> Span:
        """What is decided again is linked to the trace of what was held."""
        again = work.order is not None and work.order.kind is OrderKind.RETRY
        links = self._letters.trace_of(work.key) if again else ()
        span = self._traces.begin("decide", message.headers, links=links, place=message.topic)
        span.note(mapping=work.mapping, home=work.home, message_id=work.message_id)
        return span

    def _step(self, work: Work, key: bytes, message: InMessage, turn: _Turn) -> tuple[Row | None, Step]:
        """The row that the message meets, and the step it makes of it."""
        try:
            row = turn.rows[key][0] if key in turn.rows else self._table.row(key)
            return row, react(work, row, self._world, now=self._clock())
        except Exception as bug:
            place = f"{message.topic}[{message.partition}]@{message.offset}"
            raise RuntimeError(f"deciding {place} for {work.key} failed: {type(bug).__name__}") from bug

    def _stop(self, mapping: str, direction: str) -> OutMessage:
        """Nothing more is written in this direction from here on; the message tells the other processes."""
        key, brake = self._world.brakes.stop(mapping, direction, by=self._name, now=self._clock())
        return OutMessage(topic=BRAKES, key=key.encode(), value=brake.to_text())

    def _set_aside(
        self, turn: _Turn, message: InMessage, error: type[RecordError], *, work: Work | None = None, detail: str = ""
    ) -> None:
        letter = bytes_letter(
            message,
            error,
            now=self._clock(),
            mapping=work.mapping if work is not None else "",
            home=work.home if work is not None else "",
            detail=detail,
        )
        turn.letters.append((letter, message))
        turn.seen.append(message)

    async def _finish(self, turn: _Turn) -> None:
        """Rows durable, then everything sent, then acknowledged."""
        if not turn.seen:
            return
        self._pulse.check()
        if turn.brakes:
            await self._outbox.send(turn.brakes)
        for key, (row, partition) in turn.rows.items():
            if row is None or row is not self._table.row(key):  # the same row: its message came again
                self._table.store(key, row, partition=partition)
        stored = await self._table.stored()
        self._view.wrote(stored)
        out = [message for step, _, key, span in turn.steps for message in _sent_by(step, key, span)]
        letters = turn.letters + [(letter, message) for step, message, _, _ in turn.steps for letter in step.letters]
        await self._outbox.send(out)
        await send_letters(letters, self._outbox, self._letters, stage="decide")
        now = self._clock()
        for key, (row, partition) in turn.rows.items():
            standing = standing_of(row, partition)
            self._waiting.put(key, standing, now=now)
            self._releaser.moved(key)
            if key not in turn.released:
                self._releaser.look_at(key, standing)
        if not await self._acknowledge(_positions(turn.seen)):
            raise Revoked
        self._view.passed(stored)
        end_all(span for _, _, _, span in turn.steps)
        self.messages += len(turn.seen)


async def send_letters(
    letters: Sequence[tuple[DeadLetter, InMessage]], outbox: Outbox, positions: LetterPositions, *, stage: str
) -> None:
    """Write open letters with the bytes of their message, and then the index line of every letter, in order.

    A letter that is closed keeps the position that its bytes were given when it was opened.
    """
    if not letters:
        return
    placed = {}
    for number, (letter, message) in enumerate(letters):
        if letter.state is LetterState.OPEN:
            placed[number] = outbox.post(
                letter_message(
                    letter,
                    key=message.key,
                    value=message.value,
                    headers=message.headers,
                    stage=stage,
                    partition=message.partition,
                    offset=message.offset,
                )
            )
    await outbox.confirmed(list(placed.values()))
    lines = []
    for number, (letter, message) in enumerate(letters):
        receipt = placed.get(number)
        partition, offset = (receipt.partition, receipt.offset) if receipt else positions.of(letter.letter_id)
        traced = trace_headers(message.headers)
        positions.note(letter, partition, offset, headers=traced)
        lines.append(index_message(letter, partition=partition, offset=offset, headers=traced))
    await outbox.send(lines)


def to_in_message(message: Any) -> InMessage:
    """A message as Faust delivers it."""
    return InMessage(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        key=message.key or b"",
        value=message.value,
        headers=tuple((name, value) for name, value in message.headers or () if value is not None),
        timestamp_ms=int((message.timestamp or 0) * 1000),
    )


def _same(before: Row | None, after: Row | None) -> bool:
    """Whether a message taught the row nothing but that it came. Such a row need not be written: should the message
    come again, it leads to the same lines again.
    """
    if before is None or after is None:
        return before is after
    return before.pair is after.pair and before.home is after.home and before.deferred is after.deferred


def _note(span: Span, step: Step) -> None:
    if step.command is not None:
        span.note(command_id=step.command.command_id)
    for letter in step.letters:
        if letter.state is LetterState.OPEN:
            span.note(code=letter.code)


def _sent_by(step: Step, key: bytes, span: Span) -> list[OutMessage]:
    out = []
    if step.command is not None:
        topic = commands_topic(step.command.target.system.value)
        out.append(OutMessage(topic=topic, key=key, value=encode(step.command), headers=span.headers))
    out += [_work_message(work, span) for work in step.works]
    out += [OutMessage(topic=JOURNAL, key=key, value=encode(line), headers=span.headers) for line in step.lines]
    return out


def _work_message(work: Work, span: Span) -> OutMessage:
    return OutMessage(topic=PAIRS_WORK, key=work.key.encode(), value=encode(work), headers=span.headers)


def _positions(messages: Sequence[InMessage]) -> dict[Position, int]:
    """What to acknowledge: per partition the offset after the last message."""
    return {(message.topic, message.partition): message.offset + 1 for message in messages}
