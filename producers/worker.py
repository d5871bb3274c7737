"""The capture process: as many of the entities as its consumer group gives it, each in a thread of its own.

Any number of these processes may run. The assignment of the partitions of `capture.hints` names one owner per entity;
the transactional id of the entity's ledger makes it the only one that can publish. What this process does is said once
a second on `stages.status`.
"""

from __future__ import annotations

import contextvars
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from drawbar.bus.clients import make_consumer, make_producer, wait_for_broker
from drawbar.business_central import BusinessCentral
from drawbar.clock import SystemClock
from drawbar.dataverse import Dataverse
from drawbar.entities import entity_of
from drawbar.hints import Hint, HintKind, entity_at, partition_of, read_hint
from drawbar.odata import adapter_for, open_http
from drawbar.ports import Clock, Http
from drawbar.settings import Settings, SystemSettings
from drawbar.throttle import Throttle
from drawbar.tracing import open_traces
from producers.capture import Subject, entity_key, field_set_of
from producers.entity import EntityCapture, Fenced
from producers.lane import LaneHttp
from producers.ledger import KafkaLedger
from producers.sources import BusinessCentralSource, DataverseSource, Source
from producers.webhooks import WebhookReceiver
from schemas.errors import BusUnavailable, SettingsError
from schemas.records import System
from schemas.topics import HINTS, STATUS

Key = tuple[System, str]

GROUP = "capture"
BEAT_S = 1.0
LEAVE_S = 5.0  # how long a rebalance waits for polls under way; below the session time-out of 6 s
TAKE_AGAIN_S = 10.0  # after being shut out while the group still names us: it may have been a process that is gone now
# Referred to by customers and accounts; and what refers to those.
REFERRED_TO = frozenset({"salesperson", "systemuser", "currency", "transactioncurrency"})
REFERRING = frozenset({"contact"})

log = structlog.get_logger("drawbar.capture")


def run_capture(
    settings: Settings,
    *,
    entities: Mapping[tuple[System, str], Sequence[str]],
    reference: AbstractSet[Key],
    mappings_version: str = "",
) -> None:
    """Capture until SIGTERM or SIGINT, which let the polls under way finish.

    `entities`: the fields to capture of each entity. `reference`: those of them that are only looked up. Raises
    SettingsError for settings that cannot work; whatever else fails is waited for and shown.
    """
    process = CaptureProcess(settings, entities=entities, reference=reference, mappings_version=mappings_version)
    with _ended_by_signals(process.stop):
        process.run()


class CaptureProcess:
    """One process of the stage. `run` blocks until `stop`."""

    def __init__(
        self,
        settings: Settings,
        *,
        entities: Mapping[Key, Sequence[str]],
        reference: AbstractSet[Key],
        mappings_version: str = "",
    ) -> None:
        for system, entity in entities:
            _check_captured(system, entity)
        self._settings = settings
        self._mappings_version = mappings_version
        self._entities = entities
        self._reference = reference
        self._clock = SystemClock()
        self._traces = open_traces(settings.traces, "capture")
        systems = {system for system, _ in entities}
        for system in systems:
            adapter_for(settings, system)  # raises for what is not set
        self._opened = {system: open_http(settings, system) for system in systems}
        self._http = {system: _lane(opened, settings, system, self._clock) for system, opened in self._opened.items()}
        self._stop = threading.Event()
        self._runners: dict[Key, _Runner] = {}
        self._lock = threading.Lock()  # guards `_runners`
        self._is_assigned = False
        self._fault: BaseException | None = None
        self._producer: Producer | None = None
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._receiver: WebhookReceiver | None = None

    def stop(self) -> None:
        """Have `run` return once the polls under way are finished. Safe from any thread, and from a signal."""
        self._stop.set()

    def run(self) -> None:
        """Capture what the group gives us. Raises what ended a thread that should not have ended."""
        bus = self._settings.bus
        try:
            self._await_broker()
        except _Stopped:
            return
        self._producer = make_producer(bus.bootstrap_servers, client_id=f"capture.{self._name}", extra=bus.extra)
        consumer = make_consumer(
            bus.bootstrap_servers,
            client_id=f"capture.{self._name}",
            group_id=f"{bus.group_prefix}.{GROUP}",
            extra=bus.extra,
        )
        beat = threading.Thread(target=self._beat, name="capture.beat", daemon=True)
        beat.start()
        try:
            self._start_receiver()
            consumer.subscribe([HINTS], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke)
            while not self._stop.is_set():
                self._read_hints(consumer)
                self._take_again()
        finally:
            self._stop.set()
            if self._receiver is not None:
                self._receiver.stop()
            self._release(list(self._runners), LEAVE_S)
            consumer.close()
            beat.join(BEAT_S * 2)
            self._say(None)
            self._producer.flush(LEAVE_S)
            self._traces.close()
            for opened in self._opened.values():
                opened.close()
        if self._fault is not None:
            raise self._fault

    # --- who owns what --------------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign(partitions)
        self._is_assigned = True
        for key in _keys_of(partitions):
            if key in self._entities:
                self._take(key)
        if self._receiver is not None:
            self._receiver.wake()

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._release(_keys_of(partitions), LEAVE_S)

    def _take(self, key: Key) -> None:
        system, entity = key
        fields = self._entities[key]
        ledger = KafkaLedger(self._settings.bus, entity_key(system, entity))
        stop = threading.Event()
        machine = EntityCapture(
            self._source(key, fields),
            ledger,
            self._clock,
            subject=Subject(
                system=system,
                entity=entity,
                field_set=field_set_of(fields),
                derived=tuple(name for name in fields if name in entity_of(system, entity).changing),
            ),
            settings=self._settings.capture,
            is_reference=key in self._reference,
            may_begin=lambda: self._may_begin(key),
            should_stop=lambda: stop.is_set() or self._stop.is_set(),
            skew_ms=lambda: self._opened[system].skew_ms,
            traces=self._traces,
        )
        runner = _Runner(key, machine, ledger, stop, on_end=self._ended)
        with self._lock:
            self._runners[key] = runner
        runner.start()

    def _release(self, keys: Sequence[Key], within_s: float) -> None:
        with self._lock:
            runners = [self._runners.pop(key) for key in keys if key in self._runners]
        for runner in runners:
            runner.stop()
        deadline = time.monotonic() + within_s
        for runner in runners:
            runner.join(max(0.0, deadline - time.monotonic()))

    def _take_again(self) -> None:
        """Entities from which we were shut out although the group gives them to us."""
        now = self._clock.monotonic()
        with self._lock:
            due = [key for key, runner in self._runners.items() if runner.is_shut_out_before(now - TAKE_AGAIN_S)]
        for key in due:
            self._take(key)

    def _ended(self, key: Key, fault: BaseException) -> None:
        """A thread ended by a fault that nobody foresaw: the process ends too, and is started again."""
        log.error("capture.crashed", entity=entity_key(*key), fault=type(fault).__name__)
        self._fault = fault
        self._stop.set()

    def _owned(self) -> list[Key]:
        with self._lock:
            return list(self._runners)

    def _may_begin(self, key: Key) -> bool:
        """Whether every entity of this process that is to be read before `key` has its snapshot, or cannot get one."""
        rank = self._rank(key)
        with self._lock:
            before = [runner.machine for other, runner in self._runners.items() if self._rank(other) < rank]
        return all(machine.snapshot_done or machine.is_stopped for machine in before)

    def _rank(self, key: Key) -> int:
        if key in self._reference:
            return 0
        if key[1] in REFERRED_TO:
            return 1
        return 3 if key[1] in REFERRING else 2

    def _source(self, key: Key, fields: Sequence[str]) -> Source:
        system, entity = key
        page_size = self._settings.capture.page_size
        if system is System.CRM:
            return DataverseSource(
                Dataverse(), entity, fields, http=self._http[system], clock=self._clock, page_size=page_size
            )
        adapter = BusinessCentral(company_id=self._settings.erp.company_id)
        return BusinessCentralSource(
            adapter, entity, fields, http=self._http[system], clock=self._clock, page_size=page_size
        )

    # --- hints ----------------------------------------------------------------------------------------------------

    def _read_hints(self, consumer: Consumer) -> None:
        for message in consumer.consume(100, 0.1):
            error = message.error()
            if error is not None:
                if error.fatal():
                    raise BusUnavailable(f"the consumer of {HINTS} failed: {error.name()}")
                self._stop.wait(0.5)  # a topic that is not there yet, a broker that is away: the client tries again
                continue
            self._heed(message)
            try:
                consumer.commit(message=message, asynchronous=True)
            except KafkaException:
                continue  # a hint that is read again does no harm

    def _heed(self, message: Message) -> None:
        hint = read_hint(_bytes(message.value()))
        key = entity_at(message.partition() or 0)
        if hint is None or key != (hint.system, hint.entity):
            return
        with self._lock:
            runner = self._runners.get(key)
        if runner is not None:
            runner.heed(hint)

    def send(self, hint: Hint) -> None:
        """Publish a hint for whoever owns the entity; nothing waits for it to arrive."""
        if self._producer is None:
            return
        try:
            self._producer.produce(HINTS, key=hint.key, value=hint.to_json(self._clock.now()), partition=hint.partition)
        except (BufferError, KafkaException):
            log.warning("capture.hint_dropped", entity=entity_key(hint.system, hint.entity))

    def _start_receiver(self) -> None:
        if self._settings.capture.webhook_listen:
            self._receiver = WebhookReceiver(
                self._settings,
                entities=self._entities,
                owned=self._owned,
                http=self._http,
                clock=self._clock,
                send=self.send,
            )
            self._receiver.start()

    # --- what we say of ourselves ---------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What goes to `stages.status`."""
        with self._lock:
            runners = dict(self._runners)
        parts = {entity_key(*key): runner.status() for key, runner in sorted(runners.items())}
        running = "running" if self._is_assigned else "starting"
        webhooks = {} if self._receiver is None else {"webhooks": self._receiver.status()}
        return {
            "stage": "capture",
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "at": self._clock.now().isoformat(),
            "state": "draining" if self._stop.is_set() else running,
            "mappings": self._mappings_version,
            "entities": parts,
            **webhooks,
            "systems": {system.value: lane.status() for system, lane in self._http.items()},
        }

    def _beat(self) -> None:
        while True:
            self._say(self.status())
            if self._stop.wait(BEAT_S):
                self._say(self.status())
                return

    def _say(self, status: Mapping[str, Any] | None) -> None:
        """None: this process is gone, and says so itself."""
        assert self._producer is not None
        try:
            value = None if status is None else json.dumps(status).encode()
            self._producer.produce(STATUS, key=f"{GROUP}:{self._name}".encode(), value=value)
            self._producer.poll(0)
        except (BufferError, KafkaException) as fault:
            log.debug("capture.beat_lost", fault=type(fault).__name__)

    def _await_broker(self) -> None:
        said_at = 0.0

        def waiting(waited_s: float) -> None:
            nonlocal said_at
            if self._stop.is_set():
                raise _Stopped
            if waited_s - said_at >= 5 or not said_at:
                said_at = waited_s
                log.warning("capture.waiting_for_broker", waited_s=round(waited_s))

        wait_for_broker(self._settings.bus.bootstrap_servers, self._settings.bus.extra, on_wait=waiting)


class _Runner:
    """The thread of one entity: steps its machine when it is due, until told to stop."""

    def __init__(
        self,
        key: Key,
        machine: EntityCapture,
        ledger: KafkaLedger,
        stop: threading.Event,
        *,
        on_end: Callable[[Key, BaseException], None],
    ) -> None:
        self.machine = machine
        self._key = key
        self._ledger = ledger
        self._stop = stop
        self._on_end = on_end
        self._wake = threading.Event()
        self._shut_out_at: float | None = None
        context = contextvars.copy_context()  # what is bound to the log stays on its lines
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name=f"capture.{entity_key(*key)}", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def heed(self, hint: Hint) -> None:
        if hint.kind is HintKind.CONFIRM_DELETES:
            self.machine.confirm_deletes()
        elif hint.kind is HintKind.ANEW:
            self.machine.capture_anew()
        else:
            self.machine.look(sweep=hint.sweep)
        self._wake.set()

    def is_shut_out_before(self, monotonic: float) -> bool:
        return self._shut_out_at is not None and self._shut_out_at <= monotonic

    def status(self) -> dict[str, Any]:
        said = self.machine.status()
        return {**said, "state": "waiting", "reason": "fenced"} if self._shut_out_at is not None else said

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._wake.wait(min(self.machine.due_in_s(), 1.0))
                self._wake.clear()
                if not self._stop.is_set():
                    self.machine.step()
        except Fenced:
            log.warning("capture.fenced", entity=entity_key(*self._key))
            self._shut_out_at = time.monotonic()
        except Exception as fault:  # noqa: BLE001 - a worker's edge: it ends the worker
            self._on_end(self._key, fault)
        finally:
            self._ledger.close()


class _Stopped(Exception):
    """Told to stop while waiting for the broker."""


@contextmanager
def _ended_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _lane(http: Http, settings: Settings, system: System, clock: Clock) -> LaneHttp:
    part: SystemSettings = settings.erp if system is System.ERP else settings.crm
    throttle = Throttle(max_parallel=part.max_parallel, requests_per_5_min=part.requests_per_5_min)
    return LaneHttp(http, throttle, clock)


def _check_captured(system: System, entity: str) -> None:
    try:
        partition_of(system, entity)
    except KeyError as fault:
        raise SettingsError(f"{entity_key(system, entity)} is not in the table of captured entities") from fault


def _keys_of(partitions: Sequence[TopicPartition]) -> list[Key]:
    return [key for key in (entity_at(partition.partition) for partition in partitions) if key is not None]


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
