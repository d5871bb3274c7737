"""A broker with fresh topics, workers as processes of their own on it, and a sink that answers their commands."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from confluent_kafka import Message, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from typing_extensions import Self

from drawbar.bus.clients import latest_by_key, make_admin, make_consumer, make_producer, read_to_end
from drawbar.bus.topics import apply
from drawbar.settings import Settings
from schemas.codec import decode, encode, from_json
from schemas.coupling import Row
from schemas.records import (
    ChangeEvent,
    Command,
    CommandKind,
    DeadLetter,
    JournalLine,
    Observed,
    Outcome,
    OutcomeStatus,
    Work,
    derived_id,
)
from schemas.topics import COUPLINGS, DEAD_LETTERS_INDEX, JOURNAL, PAIRS_WORK, STATUS, TOPICS, changes_topic
from tests.kafka_fixture import until
from tests.processors_shell.given import settings_for

PARTITIONS = 4


@dataclass
class Running:
    """One test's installation."""

    bootstrap: str
    folder: Path
    settings: Settings = field(init=False)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.settings = settings_for(self.bootstrap, self.folder, group_prefix=f"t{uuid.uuid4().hex[:8]}")
        self.admin = make_admin(self.bootstrap, client_id="test", extra={})
        self.producer = make_producer(self.bootstrap, client_id="test", extra={})

    def fresh_topics(self) -> None:
        old = [name for name in self.admin.list_topics(timeout=10).topics if not name.startswith("__")]
        for name, gone in (self.admin.delete_topics(old) if old else {}).items():
            gone.result(30)
            until(lambda name=name: name not in self.admin.list_topics(timeout=10).topics, f"{name} is gone")
        apply(self.admin, TOPICS, partitions=PARTITIONS)

    # --- workers ----------------------------------------------------------------------------------------------

    def with_brakes(self, **brakes: float) -> None:
        self.settings = settings_for(
            self.bootstrap, self.folder, group_prefix=self.settings.bus.group_prefix, brakes=brakes
        )

    def with_decide(self, **decide: float) -> None:
        self.settings = settings_for(self.bootstrap, self.folder, group_prefix=self.settings.bus.group_prefix, **decide)

    def start(self) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "tests.processors_shell.given", self.settings.model_dump_json()]
        with (self.folder / f"worker-{len(self.workers)}.log").open("wb") as log:
            worker = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)
        self.workers.append(worker)
        return worker

    def end(self, worker: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
        worker.send_signal(number)
        return worker.wait(40)

    def end_all(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait(10)

    def beats(self) -> dict[int, dict[str, Any]]:
        """The last heartbeat of each process, by its pid."""
        found = latest_by_key(self.bootstrap, STATUS, extra={})
        texts = [json.loads(message.value() or b"{}") for message in found.values()]
        return {beat["pid"]: beat for beat in texts}

    def await_running(self, *workers: subprocess.Popen[bytes], share: int | None = None) -> None:
        """Return once these workers have recovered; `share`: and each has so many partitions."""

        def all_running() -> bool:
            for worker in workers:
                assert worker.poll() is None, (self.folder / f"worker-{self.workers.index(worker)}.log").read_text()
            beats = self.beats()
            mine = [beats.get(worker.pid, {}) for worker in workers]
            return all(
                beat.get("state") == "running" and (share is None or len(beat["partitions"]) == share) for beat in mine
            )

        eventually(all_running, "the workers run", timeout_s=40)

    # --- messages ---------------------------------------------------------------------------------------------

    def put(self, topic: str, key: bytes, value: bytes | None, **options: Any) -> None:
        self.producer.produce(topic, value=value, key=key, **options)

    def work(self, works: Iterable[Work]) -> None:
        for work in works:
            self.put(PAIRS_WORK, work.key.encode(), encode(work))
            self.producer.poll(0)
        self.producer.flush(30)

    def changes(self, events: Iterable[ChangeEvent]) -> None:
        for event in events:
            topic = changes_topic(event.ref.system.value, event.ref.entity)
            self.put(topic, event.ref.id.encode(), encode(event))
        self.producer.flush(30)

    def read(self, topic: str) -> list[Message]:
        return list(read_to_end(self.bootstrap, topic, extra={}))

    def rows(self) -> dict[str, tuple[Row, int]]:
        """Home key -> row and the partition it lies on."""
        found = latest_by_key(self.bootstrap, COUPLINGS, extra={})
        return {
            key.decode(): (from_json(Row, message.value() or b""), message.partition() or 0)
            for key, message in found.items()
        }

    def commands(self, system: str = "crm") -> list[Command]:
        return [decode(Command, message.value()) for message in self.read(f"{system}.commands")]

    def lines(self) -> list[JournalLine]:
        return [decode(JournalLine, message.value()) for message in self.read(JOURNAL)]

    def index(self) -> dict[str, DeadLetter]:
        found = latest_by_key(self.bootstrap, DEAD_LETTERS_INDEX, extra={})
        return {key.decode(): decode(DeadLetter, message.value()) for key, message in found.items()}

    def limit_rows(self, max_bytes: int) -> None:
        """Have the broker refuse rows that are longer."""
        entry = ConfigEntry("max.message.bytes", str(max_bytes), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, COUPLINGS, incremental_configs=[entry])
        for answer in self.admin.incremental_alter_configs([resource]).values():
            answer.result(10)

    def sink(self, system: str = "crm", *, swallow: Callable[[Command], bool] = lambda _command: False) -> Sink:
        return Sink(self, system, swallow)


class Sink:
    """Answers every command as a target would that takes everything; `swallow` says which it loses."""

    def __init__(self, running: Running, system: str, swallow: Callable[[Command], bool]) -> None:
        self._running = running
        self._system = system
        self._swallow = swallow
        self._stop = threading.Event()
        self._order = 0
        self.taken: list[Command] = []
        self.held: dict[str, dict[str, Any]] = {}  # id -> fields
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        topic = f"{self._system}.commands"
        consumer = make_consumer(
            self._running.bootstrap, client_id="sink", group_id=f"sink-{uuid.uuid4().hex}", extra={}
        )
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        while not self._stop.is_set():
            answers = [self._answer(decode(Command, m.value())) for m in consumer.consume(500, 0.05) if not m.error()]
            self._running.work(
                Work(message_id=derived_id("answer", one.command_id), mapping=one.mapping, home=one.home, outcome=one)
                for one in answers
                if one is not None
            )
        consumer.close()

    def _answer(self, command: Command) -> Outcome | None:
        self.taken.append(command)
        if self._swallow(command):
            return None
        self._order += 1
        if command.kind is CommandKind.CREATE:
            self.held.setdefault(command.target.id, {})
        state = {**self.held.get(command.target.id, {}), **command.values}
        self.held[command.target.id] = state
        now = datetime.now(timezone.utc)
        return Outcome(
            command_id=command.command_id,
            mapping=command.mapping,
            home=command.home,
            status=OutcomeStatus.WRITTEN,
            target=command.target,
            observed=Observed(
                id=command.target.id, version=f'W/"{self._order}"', order=self._order, modified_at=now, state=state
            ),
            at=now,
        )


def eventually(condition: Callable[[], bool], what: str, *, timeout_s: float = 30) -> None:
    """`until`, for conditions that read topics: looking at them all the time would be most of the work done here."""
    until(condition, what, timeout_s=timeout_s, every_s=0.25)


def by_id(commands: Sequence[Command]) -> dict[str, set[str]]:
    """Record id -> ids of the commands for it."""
    found: dict[str, set[str]] = {}
    for command in commands:
        found.setdefault(command.target.id, set()).add(command.command_id)
    return found
