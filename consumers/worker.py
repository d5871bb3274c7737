"""The sink of one system: takes commands, has them carried out, answers with outcomes.

One thread decides, a bounded pool of threads calls. Commands of one key go one after the other, those of different
keys side by side. An outcome and its journal line are with the broker before the command is acknowledged; per
partition everything below the oldest unfinished command is. What dies in between is done again by whoever comes next,
which does no harm (`consumers/execution.py` says why).

An outage or a throttled lane makes commands wait, never dead letters.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from types import FrameType
from typing import Protocol, Union
from zlib import crc32

import structlog

from consumers.execution import Ask, Machine, Result, Step, Wait, carry_out, to_outcome
from consumers.requests import Meaning, Request, Verb, meaning_of
from drawbar.clock import SystemClock
from drawbar.entities import SystemAdapter
from drawbar.histogram import Histogram
from drawbar.kafka_bus import KafkaBus
from drawbar.odata import adapter_for, open_http, retry_after_s
from drawbar.ports import Bus, Clock, Http, InMessage, NoReply, OutMessage, Reply
from drawbar.settings import Settings, SinkSettings
from drawbar.signin import system_settings
from drawbar.throttle import Throttle, retry_delay
from drawbar.traces import NO_TRACES, Span, Traces
from drawbar.tracing import open_traces
from schemas.codec import decode, encode
from schemas.errors import BusUnavailable, DrawbarError, Undecodable
from schemas.records import Command, JournalLine, Outcome, OutcomeStatus, System, Work, derived_id
from schemas.topics import JOURNAL, PAIRS_WORK, STATUS, commands_topic

BACKLOG = 1000  # commands held at once; above it the partitions are held, so that memory has a bound
BEAT_S = 1.0
DRAIN_S = 10.0  # on SIGTERM, and half of it when partitions are taken away: a call that was made is answered by then
FORBIDDEN_IN_ROW = 10  # so many records cannot be at fault: a right was taken away, and the lane waits for it
GIVE_UP_FACTOR = 2  # a record whose write alone fails is given up after so many times `attempts`

log = structlog.get_logger(__name__)

Place = tuple[str, int]
Answered = tuple[int, Union[Reply, NoReply]]
DeadLetter = Callable[[InMessage, DrawbarError], Sequence[OutMessage]]


class SinkBus(Bus, Protocol):
    """The bus port, and what a group member needs besides."""

    def commit(self, positions: Mapping[Place, int], *, wait: bool = False) -> None: ...

    def hold(self, on: bool) -> None: ...


class Calls(Protocol):
    """Requests under way."""

    def start(self, token: int, request: Request) -> None: ...

    def finished(self, timeout_s: float) -> Sequence[Answered]:
        """What was answered, waiting up to `timeout_s` for the first."""
        ...


class ThreadedCalls:
    """Calls in a fixed number of threads. A call that hangs does not keep the process from ending."""

    def __init__(self, http: Http, size: int) -> None:
        self._http = http
        self._size = size
        self._todo: queue.SimpleQueue[tuple[int, Request] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[int, Reply | NoReply | Exception]] = queue.SimpleQueue()
        for number in range(size):
            threading.Thread(target=self._serve, name=f"sink-{number}", daemon=True).start()

    def start(self, token: int, request: Request) -> None:
        self._todo.put((token, request))

    def finished(self, timeout_s: float) -> Sequence[Answered]:
        found: list[Answered] = []
        wait = timeout_s
        while True:
            try:
                token, answer = self._done.get(timeout=wait) if wait > 0 else self._done.get_nowait()
            except queue.Empty:
                return found
            if isinstance(answer, Exception) and not isinstance(answer, NoReply):
                raise answer  # a bug: it ends the worker, and the command is not acknowledged
            found.append((token, answer))
            wait = 0

    def close(self) -> None:
        for _ in range(self._size):
            self._todo.put(None)

    def _serve(self) -> None:
        while (item := self._todo.get()) is not None:
            token, request = item
            try:
                self._done.put((token, call(self._http, request)))
            except Exception as bug:  # noqa: BLE001 - carried to the worker's own thread and raised there
                self._done.put((token, bug))


class InlineCalls:
    """Calls in the worker's own thread, for a whole run inside one process."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self._done: list[Answered] = []

    def start(self, token: int, request: Request) -> None:
        self._done.append((token, call(self._http, request)))

    def finished(self, timeout_s: float) -> Sequence[Answered]:  # noqa: ARG002 - nothing to wait for
        done, self._done = self._done, []
        return done


def call(http: Http, request: Request) -> Reply | NoReply:
    """One request over the port, with NoReply as an answer."""
    try:
        return http.call(request.method, request.path, body=request.body, headers=request.headers)
    except NoReply as none:
        return none


@dataclass(slots=True, eq=False)
class _Task:
    """One command message on its way."""

    token: int
    message: InMessage
    command: Command
    machine: Machine
    span: Span
    request: Request | None = None  # the one that is asked or is to be asked next
    began: bool = False
    failed_at_writes: int | None = None  # how many writes had been done when its own first failed

    @property
    def place(self) -> Place:
        return self.message.topic, self.message.partition


@dataclass(slots=True)
class _Positions:
    """Of one partition: which offsets are unfinished, and how far it may be acknowledged."""

    unfinished: set[int] = field(default_factory=set)
    after_last: int = 0
    committed: int = 0

    @property
    def next(self) -> int:
        return min(self.unfinished, default=self.after_last)


class SinkWorker:
    """One pass of all that is due is a `step`; it never waits longer than its time-out."""

    def __init__(
        self,
        *,
        adapter: SystemAdapter,
        bus: SinkBus,
        calls: Calls,
        clock: Clock,
        throttle: Throttle,
        policy: SinkSettings,
        fields: Mapping[str, Sequence[str]],
        dead_letter: DeadLetter,
        skew_ms: Callable[[], int] = lambda: 0,
        host: str = "",
        pid: int = 0,
        mappings_version: str = "",
        traces: Traces = NO_TRACES,
    ) -> None:
        """`fields`: entity -> fields that replies shall hold. `dead_letter`: the messages that set one aside."""
        self._adapter, self._bus, self._calls, self._clock = adapter, bus, calls, clock
        self._throttle, self._policy, self._fields = throttle, policy, fields
        self._dead_letter, self._skew_ms = dead_letter, skew_ms
        self._system = adapter.system
        self._stage = f"sink-{self._system.value}"
        self._host, self._pid = host, pid
        self._mappings_version = mappings_version
        self._traces = traces
        self._tokens = 0
        self._tasks: dict[int, _Task] = {}
        self._by_key: dict[bytes, deque[_Task]] = {}
        self._asking: deque[_Task] = deque()  # have a request that waits for admission
        self._under_way: dict[int, Request] = {}  # also of commands that were forgotten meanwhile
        self._timers: dict[int, float] = {}
        self._positions: dict[Place, _Positions] = {}
        self._unsent: list[tuple[_Task | None, InMessage, tuple[OutMessage, ...]]] = []
        self._counts: Counter[str] = Counter()
        self._latency = Histogram()
        self._requests = 0
        self._writes = 0
        self._forbidden_in_row = 0
        self._assigned = False
        self._draining = False
        self._paused_reason = ""
        self._bus_is_down = False
        self._beat_at = float("-inf")
        self._last_outcome_at: datetime | None = None

    @property
    def in_flight(self) -> int:
        """Commands taken and not yet acknowledged."""
        return sum(len(positions.unfinished) for positions in self._positions.values())

    def step(self, timeout_s: float = 0.1) -> None:
        """Take, answer, ask, publish, acknowledge: whatever is due."""
        now = self._clock.monotonic()
        self._wake(now)
        self._ask()
        busy = bool(self._under_way or self._unsent)
        self._take(0.0 if busy else self._until_due(timeout_s))
        self._ask()
        for token, answer in self._calls.finished(min(timeout_s, 0.01) if self._under_way else 0.0):
            self._answered(token, answer)
        self._ask()
        self._publish()
        self._commit()
        self._beat()

    def drain(self, timeout_s: float = DRAIN_S) -> None:
        """Finish the commands that have begun, as far as the time allows; the others are left to the next worker."""
        self._draining = True
        self._bus.hold(True)
        self._finish(lambda task: task.began, timeout_s)
        self._commit(wait=True)
        self._beat(even_now=True)

    # --- partitions -----------------------------------------------------------------------------------------------

    def assigned(self, places: Iterable[Place]) -> None:
        self._assigned = True
        for place in places:
            self._positions[place] = _Positions()
        log.info("sink.assigned", system=self._system.value, partitions=len(self._positions))

    def revoked(self, places: Iterable[Place]) -> None:
        """Finish what has begun, acknowledge it, forget the rest: its next owner begins anew."""
        gone = set(places)
        self._finish(lambda task: task.began and task.place in gone, DRAIN_S / 2)
        self._commit(wait=True)
        self.lost(gone)

    def lost(self, places: Iterable[Place]) -> None:
        """Forget at once: somebody else has these partitions already."""
        gone = set(places)
        for task in [task for task in self._tasks.values() if task.place in gone]:
            self._forget(task)
        self._unsent = [entry for entry in self._unsent if _place(entry[1]) not in gone]
        for place in gone:
            self._positions.pop(place, None)
        log.info("sink.revoked", system=self._system.value, partitions=len(self._positions))

    def _finish(self, which: Callable[[_Task], bool], timeout_s: float) -> None:
        deadline = self._clock.monotonic() + timeout_s
        while self._clock.monotonic() < deadline:
            if not any(which(task) for task in self._tasks.values()) and not self._unsent:
                return
            self._wake(self._clock.monotonic())
            self._ask(which)
            answered = self._calls.finished(0.05)
            for token, answer in answered:
                self._answered(token, answer)
            self._publish()
            self._beat()
            if not answered and not self._under_way:
                self._clock.sleep(0.01)

    # --- commands in ----------------------------------------------------------------------------------------------

    def _take(self, timeout_s: float) -> None:
        self._bus.hold(self._draining or self.in_flight >= BACKLOG)
        for message in self._bus.poll(timeout_s):
            positions = self._positions.setdefault(_place(message), _Positions())
            positions.after_last = max(positions.after_last, message.offset + 1)
            positions.unfinished.add(message.offset)
            try:
                command = decode(Command, message.value)
                entity_fields = self._fields.get(command.target.entity, ())
                self._adapter.entity(command.target.entity)
            except Undecodable as fault:
                self._set_aside(message, fault)
            except KeyError as fault:
                error = Undecodable(f"a command for an entity that this sink does not know: {fault.args[0]}")
                self._set_aside(message, error)
            else:
                self._accept(message, command, entity_fields)

    def _accept(self, message: InMessage, command: Command, fields: Sequence[str]) -> None:
        line = self._by_key.setdefault(message.key, deque())
        if any(task.command.command_id == command.command_id for task in line):
            # Sent again while the first is under way. One answer answers both, and the first, being older, keeps
            # the partition from being acknowledged until then.
            self._positions[_place(message)].unfinished.discard(message.offset)
            self._counts["repeated"] += 1
            return
        self._tokens += 1
        machine = carry_out(command, self._adapter, fields=fields, busy_retries=self._policy.busy_retries)
        span = self._traces.begin("sink", message.headers, place=message.topic)
        span.note(mapping=command.mapping, home=command.home, command_id=command.command_id, kind=command.kind.value)
        task = _Task(self._tokens, message, command, machine, span)
        self._tasks[task.token] = task
        line.append(task)
        if len(line) == 1:
            self._begin(task)

    def _set_aside(self, message: InMessage, error: DrawbarError) -> None:
        self._counts["undecodable"] += 1
        log.error("sink.undecodable", system=self._system.value, partition=message.partition, offset=message.offset)
        self._unsent.append((None, message, tuple(self._dead_letter(message, error))))

    def _begin(self, task: _Task) -> None:
        self._advance(task, None)

    # --- requests out, answers in ---------------------------------------------------------------------------------

    def _ask(self, which: Callable[[_Task], bool] = lambda _task: True) -> None:
        """Start as many of the waiting requests as the lane admits, oldest first."""
        passed: list[_Task] = []
        while self._asking:
            task = self._asking.popleft()
            if task.token not in self._tasks:
                continue
            if not which(task):
                passed.append(task)
                continue
            if not self._throttle.admit(self._clock.monotonic()):
                self._asking.appendleft(task)
                break
            assert task.request is not None, "who waits for admission has a request"
            task.began = True
            self._requests += 1
            self._under_way[task.token] = task.request
            self._calls.start(task.token, task.request)
        self._asking.extendleft(reversed(passed))

    def _answered(self, token: int, answer: Reply | NoReply) -> None:
        self._note(token, self._under_way.pop(token), answer)
        task = self._tasks.get(token)
        if task is not None:
            self._advance(task, answer)

    def _note(self, token: int, request: Request, answer: Reply | NoReply) -> None:
        """Tell the lane how it went."""
        now, jitter = self._clock.monotonic(), self._jitter(self._requests)
        was_out, write = self._throttle.is_out, request.verb not in (Verb.READ, Verb.FIND)
        if isinstance(answer, NoReply):
            self._throttle.failed(now, reason=answer.reason, jitter=jitter, write=write)
        else:
            meaning = meaning_of(self._system, request.verb, answer)
            pause = retry_after_s(answer, self._clock.now())
            if meaning is Meaning.THROTTLED:
                self._throttle.refused(now, retry_after_s=pause, jitter=jitter)
            elif meaning in (Meaning.SHUT, Meaning.UNSURE, Meaning.FAULT):
                task = self._tasks.get(token)
                self._throttle.failed(
                    now,
                    reason=f"status {answer.status}",
                    retry_after_s=pause,
                    jitter=jitter,
                    write=write,
                    again=meaning is Meaning.FAULT and task is not None and task.failed_at_writes is not None,
                )
            else:
                self._throttle.succeeded(now, hint=_hint(answer), write=write)
        if was_out and not self._throttle.is_out:
            self._timers = dict.fromkeys(self._timers, now)  # it is over: nobody needs to wait any longer
        self._say_pause()

    def _advance(self, task: _Task, answer: Reply | NoReply | bool | None) -> None:
        """Send the machine its answer, and do what it wants next."""
        ended: Result | None = None
        step: Step | None = None
        try:
            step = task.machine.send(answer)
            if isinstance(step, Wait):
                if self._goes_on(task, step):
                    self._timers[task.token] = self._clock.monotonic() + self._pause_s(task, step)
                    return
                step = task.machine.send(False)
        except StopIteration as end:
            ended = end.value
        if ended is not None:
            # Not inside `except`: a fault in there would carry the result, and with it a record, into the log.
            self._ended(task, ended)
            return
        assert isinstance(step, Ask), "a wait is followed by a request or by the end"
        task.request = step.request
        self._asking.append(task)

    def _wake(self, now: float) -> None:
        for token in [token for token, at in self._timers.items() if at <= now]:
            del self._timers[token]
            if token in self._tasks:
                self._advance(self._tasks[token], True)

    def _goes_on(self, task: _Task, wait: Wait) -> bool:
        """Whether a command is tried again. Not, when it alone fails again and again while others are written."""
        if wait.meaning is Meaning.FORBIDDEN:
            self._forbidden_in_row += 1
            return self._forbidden_in_row >= FORBIDDEN_IN_ROW
        if wait.meaning is Meaning.FAULT:
            if task.failed_at_writes is None:
                task.failed_at_writes = self._writes
            others_are_written = self._writes > task.failed_at_writes
            return not (others_are_written and wait.failures >= GIVE_UP_FACTOR * self._policy.attempts)
        return True

    def _pause_s(self, task: _Task, wait: Wait) -> float:
        if wait.meaning is Meaning.THROTTLED:
            return 0.0  # the lane stands still as it is
        return retry_delay(
            max(1, wait.failures),
            base_s=self._policy.backoff_base_s,
            cap_s=self._policy.backoff_cap_s,
            retry_after_s=retry_after_s(wait.reply, self._clock.now()) if wait.reply else None,
            jitter=self._jitter(task.command.command_id, wait.failures),
        )

    def _until_due(self, timeout_s: float) -> float:
        """How long a step may wait for messages when nothing is under way."""
        now = self._clock.monotonic()
        due = [at - now for at in self._timers.values()]
        if self._asking:
            due.append(self._throttle.wait_s(now))
        return max(0.0, min([timeout_s, *due]))

    # --- outcomes out ---------------------------------------------------------------------------------------------

    def _ended(self, task: _Task, result: Result) -> None:
        command, at = task.command, self._clock.now()
        outcome = to_outcome(command, result, at=at, skew_ms=self._skew_ms())
        self._counts[outcome.status.value] += 1
        self._last_outcome_at = at
        if (latency_ms := latency_of(command, outcome)) >= 0:
            self._latency.add(latency_ms / 1000)
        if outcome.status in (OutcomeStatus.WRITTEN, OutcomeStatus.DELETED):
            self._writes += 1
            self._forbidden_in_row = 0
            self._say_pause()
        task.span.note(outcome=outcome.status.value, requests=outcome.requests, code=outcome.code)
        work, line = to_messages(command, outcome, self._system, headers=task.span.headers)
        self._unsent.append((task, task.message, (work, line)))
        say = log.warning if outcome.status is OutcomeStatus.REJECTED else log.info
        say(
            f"sink.{outcome.status.value}",
            system=self._system.value,
            pair_key=f"{command.mapping}:{command.home}",
            command_id=command.command_id,
            event_id=command.cause_id,
            kind=command.kind.value,
            requests=outcome.requests,
            code=outcome.code,
            detail=outcome.detail,
        )

    def _publish(self) -> None:
        if not self._unsent:
            return
        sending = self._unsent
        try:
            self._bus.publish([message for _, _, messages in sending for message in messages])
        except BusUnavailable as fault:
            self._bus_is_down = True
            self._say_pause()
            log.warning("sink.bus_unavailable", system=self._system.value, reason=fault.message)
            self._clock.sleep(0.2)  # the outcomes stay here and are sent anew in the next step
            return
        self._bus_is_down = False
        self._say_pause()
        self._unsent = self._unsent[len(sending) :]
        for task, message, _ in sending:
            positions = self._positions.get(_place(message))
            if positions is not None:
                positions.unfinished.discard(message.offset)
            if task is not None:
                task.span.end()
                self._forget(task)

    def _forget(self, task: _Task) -> None:
        """The command is done with; the next of its key may begin."""
        self._tasks.pop(task.token, None)
        self._timers.pop(task.token, None)
        line = self._by_key.get(task.message.key)
        if line is None or task not in line:
            return
        was_first = line[0] is task
        line.remove(task)
        if not line:
            del self._by_key[task.message.key]
        elif was_first and not self._draining:
            self._begin(line[0])

    def _commit(self, *, wait: bool = False) -> None:
        due = {place: at.next for place, at in self._positions.items() if at.next > at.committed}
        if not due:
            return
        self._bus.commit(due, wait=wait)
        for place, offset in due.items():
            self._positions[place].committed = offset

    # --- status ---------------------------------------------------------------------------------------------------

    def _reason(self) -> str:
        if self._bus_is_down:
            return "bus"
        if self._forbidden_in_row >= FORBIDDEN_IN_ROW:
            return "forbidden"
        return self._throttle.paused_reason

    def _say_pause(self) -> None:
        reason = self._reason()
        if reason and not self._paused_reason:
            log.warning("sink.paused", system=self._system.value, reason=reason, resume_in_s=self._resume_in_s())
        elif self._paused_reason and not reason:
            log.info("sink.resumed", system=self._system.value)
        self._paused_reason = reason

    def _resume_in_s(self) -> float:
        return round(max(0.0, self._throttle.stopped_until - self._clock.monotonic()), 1)

    def _beat(self, *, even_now: bool = False) -> None:
        now = self._clock.monotonic()
        if now - self._beat_at < BEAT_S and not even_now:
            return
        self._beat_at = now
        key = f"{self._stage}:{self._host}:{self._pid}".encode()
        message = OutMessage(topic=STATUS, key=key, value=json.dumps(self.status()).encode())
        try:
            self._bus.publish([message])
        except BusUnavailable:
            self._bus_is_down = True  # what cannot be said now is said with the next beat
        else:
            self._bus_is_down = self._bus_is_down and bool(self._unsent)

    def status(self) -> dict[str, object]:
        """What the worker says of itself every second."""
        reason = self._reason()
        if self._draining:
            state = "draining"
        elif not self._assigned:
            state = "starting"
        else:
            state = "paused" if reason else "running"
        return {
            "stage": self._stage,
            "pid": self._pid,
            "host": self._host,
            "at": self._clock.now().isoformat(),
            "state": state,
            "mappings": self._mappings_version,
            "paused_reason": reason,
            "resume_in_s": self._resume_in_s(),
            "in_flight": self.in_flight,
            "waiting_for_retry": len(self._timers),
            "last_outcome_at": self._last_outcome_at.isoformat() if self._last_outcome_at else None,
            "counts": dict(self._counts),
            "requests": self._requests,
            "throttled": self._throttle.throttled,
            "allowance_used": round(self._throttle.used_share(self._clock.monotonic()), 4),
            "change_to_visible_s": self._latency.to_json(),
            "limit": self._throttle.limit,
            "partitions": len(self._positions),
        }

    def _jitter(self, *of: object) -> float:
        """Between 0 and 1, the same for the same things."""
        return crc32(f"{self._host}:{self._pid}:{of}".encode()) / 2**32


def to_messages(
    command: Command, outcome: Outcome, system: System, *, headers: tuple[tuple[str, bytes], ...] = ()
) -> tuple[OutMessage, OutMessage]:
    """The outcome for the home of the pair, and its line in the journal."""
    version = outcome.observed.version if outcome.observed else ""
    message_id = derived_id("outcome", command.command_id, outcome.status.value, version)
    work = Work(message_id=message_id, mapping=command.mapping, home=command.home, outcome=outcome)
    line = JournalLine(
        line_id=derived_id("journal", message_id),
        at=outcome.at,
        mapping=command.mapping,
        home=command.home,
        event=outcome.status.value,
        ref=str(command.target),
        direction=f"to_{system.value}",
        reason=outcome.detail or command.kind.value,
        fields=tuple(command.values),
        command_id=command.command_id,
        cause_id=command.cause_id,
        code=outcome.code,
        latency_ms=latency_of(command, outcome),
    )
    key = work.key.encode()
    return (
        OutMessage(topic=PAIRS_WORK, key=key, value=encode(work), headers=headers),
        OutMessage(topic=JOURNAL, key=key, value=encode(line), headers=headers),
    )


def latency_of(command: Command, outcome: Outcome) -> int:
    """From the change in the source to its being visible in the target, in ms; -1 where nothing was written."""
    if outcome.status is not OutcomeStatus.WRITTEN or command.changed_at is None:
        return -1
    return max(0, round((outcome.at - command.changed_at).total_seconds() * 1000))


def _place(message: InMessage) -> Place:
    return message.topic, message.partition


def _hint(reply: Reply) -> int | None:
    """How many requests at once the CRM itself recommends."""
    text = reply.headers.get("x-ms-dop-hint", "")
    return int(text) if text.isdecimal() else None


def throttle_for(settings: Settings, system: System) -> Throttle:
    """The lane of one process to one system, as the settings have it."""
    part = system_settings(settings, system)
    return Throttle(
        max_parallel=part.max_parallel,
        requests_per_5_min=part.requests_per_5_min,
        attempts=settings.sink.attempts,
        backoff_base_s=settings.sink.backoff_base_s,
        backoff_cap_s=settings.sink.backoff_cap_s,
    )


def run_sink(
    settings: Settings,
    system: System,
    *,
    fields: Mapping[str, Sequence[str]],
    dead_letter: DeadLetter,
    mappings_version: str = "",
) -> None:
    """Run the sink of one system until SIGTERM or SIGINT; returns once it has drained.

    `fields`: entity -> the fields that replies shall hold. `dead_letter`: the messages that set a message aside.
    Raises SettingsError or AccessError when it cannot start.
    """
    http = open_http(settings, system)
    adapter = adapter_for(settings, system)
    http.sign_in()
    calls = ThreadedCalls(http, system_settings(settings, system).max_parallel)
    host, pid = socket.gethostname(), os.getpid()
    traces = open_traces(settings.traces, f"sink-{system.value}")
    handlers: dict[str, Callable[[Sequence[Place]], None]] = {}

    def on(event: str, places: Sequence[Place]) -> None:
        handlers[event](places)

    bus = KafkaBus(
        settings.bus,
        client_id=f"sink-{system.value}-{pid}",
        group=f"sink-{system.value}",
        topics=[commands_topic(system.value)],
        on_assigned=partial(on, "assigned"),
        on_revoked=partial(on, "revoked"),
        on_lost=partial(on, "lost"),
    )
    worker = SinkWorker(
        adapter=adapter,
        bus=bus,
        calls=calls,
        clock=SystemClock(),
        throttle=throttle_for(settings, system),
        policy=settings.sink,
        fields=fields,
        dead_letter=dead_letter,
        skew_ms=lambda: http.skew_ms,
        host=host,
        pid=pid,
        mappings_version=mappings_version,
        traces=traces,
    )
    handlers.update(assigned=worker.assigned, revoked=worker.revoked, lost=worker.lost)
    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop)
    log.info("sink.started", system=system.value, pid=pid)
    try:
        while not stopping:
            worker.step()
        worker.drain()
    finally:
        calls.close()
        bus.close()
        http.close()
        traces.close()
    log.info("sink.stopped", system=system.value, pid=pid)
