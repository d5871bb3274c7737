"""The mapping files of a running system: read from their topic, put there, and kept to by every stage.

A stage that finds other files there than it was started with drains, and becomes a new process under the same number
(`os.execv`): nothing that was fixed at the start can be half of the old and half of the new. What was under way and not
acknowledged begins again, as after any end of a process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message, TopicPartition

from drawbar.bus.clients import latest_by_key, make_consumer, make_producer
from drawbar.settings import BusSettings, interpreter
from drawbar.status import Beat, BeatReader
from schemas.codec import decode
from schemas.errors import BusUnavailable, MappingsNotTaken, Undecodable
from schemas.mapping_set import IN_FORCE, NEXT, MappingSet, read_mapping_set
from schemas.records import Watermark
from schemas.topics import MAPPINGS, WATERMARKS

SEND_TIMEOUT_S = 10.0
LOOK_EVERY_S = 0.1
TAKEN_TIMEOUT_S = 90.0  # a stage drains, starts, and a process of decide reads its rows again
TELL_EVERY_S = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sets:
    """What the topic says. None: nobody said anything yet."""

    in_force: MappingSet | None = None
    next: MappingSet | None = None

    def of_stage(self, stage: str) -> MappingSet | None:
        """What a stage works by: capture and sinks, which only need to know more fields, go ahead of decide."""
        return self.in_force if stage == "process" else self.next or self.in_force


def read_sets(bus: BusSettings) -> Sets:
    """Raises BusUnavailable, TopicMismatch, Undecodable."""
    latest = latest_by_key(bus.bootstrap_servers, MAPPINGS, extra=bus.extra)
    found = {key.decode(errors="replace"): read_mapping_set(_value(message)) for key, message in latest.items()}
    return Sets(in_force=found.get(IN_FORCE), next=found.get(NEXT))


def put_set(bus: BusSettings, key: str, mapping_set: MappingSet | None) -> None:
    """Say it to all; None: there is none of this kind any more. Raises BusUnavailable when nobody takes it."""
    faults: list[str] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            faults.append(error.name())

    extra = {"message.timeout.ms": str(int(SEND_TIMEOUT_S * 1000)), "linger.ms": "0", **bus.extra}
    producer = make_producer(bus.bootstrap_servers, client_id="drawbar-mappings", extra=extra)
    try:
        value = None if mapping_set is None else mapping_set.to_text()
        producer.produce(MAPPINGS, key=key.encode(), value=value, on_delivery=delivered)
    except (BufferError, KafkaException) as fault:
        raise BusUnavailable("the mapping files cannot be sent") from fault
    left = producer.flush(SEND_TIMEOUT_S)
    if left or faults:
        raise BusUnavailable(f"the mapping files were not taken: {faults[0] if faults else 'no answer'}")


# --- a stage that keeps to them ---------------------------------------------------------------------------------------


@contextmanager
def started_anew_for_others(bus: BusSettings, *, stage: str, version: str) -> Iterator[None]:
    """While this stage runs, watch for other files than those of `version`; then drain it, and start it with them.

    Does not return in that case: the process is replaced once the block has ended without an error.
    """
    watch = _Watch(bus, stage=stage, version=version)
    watch.start()
    try:
        yield
    finally:
        watch.stop()
    if watch.has_others:
        log.info("mappings.started_anew", stage=stage, version=version)
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(interpreter()[0], [*interpreter(), *sys.argv[1:]])  # noqa: S606 - ourselves


class _Watch:
    """A thread that ends this process in its own good order when the topic names other files."""

    def __init__(self, bus: BusSettings, *, stage: str, version: str) -> None:
        self._bus = bus
        self._stage = stage
        self._version = version
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mappings", daemon=True)
        self.has_others = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        bus, name = self._bus, f"drawbar-mappings-{os.getpid()}"
        consumer = make_consumer(
            bus.bootstrap_servers, client_id=name, group_id=name, extra=bus.extra, partition_eof=True
        )
        consumer.assign([TopicPartition(MAPPINGS, 0, OFFSET_BEGINNING)])
        found: dict[str, MappingSet] = {}
        try:
            while not self._stop.is_set():
                message = consumer.poll(0.2)
                if message is None:
                    continue
                error = message.error()
                if error is None:
                    _take(found, message)
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                    wanted = Sets(in_force=found.get(IN_FORCE), next=found.get(NEXT)).of_stage(self._stage)
                    if wanted is not None and wanted.version != self._version:
                        self.has_others = True
                        log.info("mappings.others", stage=self._stage, version=self._version, others=wanted.version)
                        os.kill(os.getpid(), signal.SIGTERM)  # every stage drains on it
                        return
        finally:
            consumer.close()


def _take(found: dict[str, MappingSet], message: Message) -> None:
    key = (_bytes(message.key()) or b"").decode(errors="replace")
    if message.value() is None:
        found.pop(key, None)
        return
    try:
        found[key] = read_mapping_set(_value(message))
    except Undecodable:
        log.warning("mappings.unreadable", key=key)


# --- waiting for all of them ------------------------------------------------------------------------------------------


def late(beats: Iterable[Beat], stages: Collection[str], version: str) -> list[Beat]:
    """The processes of these stages that do not work by these files yet."""
    return [
        beat
        for beat in beats
        if beat.stage in stages and (beat.details.get("mappings") != version or beat.state != "running")
    ]


def await_taken(
    bus: BusSettings,
    stages: Collection[str],
    version: str,
    *,
    timeout_s: float = TAKEN_TIMEOUT_S,
    tell: Callable[[str], None] = lambda _text: None,
) -> int:
    """Return once every process of these stages works by these files: how many there are.

    One that starts later reads the topic first. Raises MappingsNotTaken naming those that are missing.
    """
    deadline, told_at = time.monotonic() + timeout_s, time.monotonic()
    with BeatReader(bus) as reader:
        there = Counter(beat.stage for beat in reader.beats())
        while missing := _missing(reader.beats(), there, stages, version):
            names = ", ".join(missing)
            if time.monotonic() > deadline:
                raise MappingsNotTaken(f"not taken after {timeout_s:g} s by {names}")
            if time.monotonic() - told_at > TELL_EVERY_S:
                told_at = time.monotonic()
                tell(f"waiting for {names}")
            reader.poll(LOOK_EVERY_S)
        return sum(beat.stage in stages for beat in reader.beats())


def _missing(beats: Sequence[Beat], there: Mapping[str, int], stages: Collection[str], version: str) -> list[str]:
    """Those that work by other files, and stages of which a process that was there has not come back yet."""
    now = Counter(beat.stage for beat in beats)
    gone = [f"{stage} ({now[stage]} of {there.get(stage, 0)})" for stage in stages if now[stage] < there.get(stage, 0)]
    return [*(f"{beat.name} on {beat.host}" for beat in late(beats, stages, version)), *gone]


def captured_field_sets(bus: BusSettings) -> dict[tuple[str, str], str]:
    """System and entity -> the fields with which capture has read all its records. Raises BusUnavailable."""
    latest = latest_by_key(bus.bootstrap_servers, WATERMARKS, extra=bus.extra)
    marks = (decode(Watermark, _value(message)) for message in latest.values())
    return {(mark.system.value, mark.entity): mark.field_set for mark in marks if mark.snapshot_done}


def _value(message: Message) -> bytes:
    return _bytes(message.value()) or b""


def _bytes(data: str | bytes | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data
