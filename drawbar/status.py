"""What a running system says of itself, and whether it is quiet.

The judging is pure: a `Picture` goes in, texts come out. `BeatReader`, `TrafficReader` and `read_letters` take the
picture from the bus; each keeps its clients, so that looking again costs milliseconds.

Quiet means: whatever was edited in either system before has been seen, decided, written and seen back. Each entity's
capture has finished a poll that found nothing and began after the last message between the stages; every message was
acknowledged, which the stages do only after all that it caused is with the broker; and nothing waits in a process.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TimeoutException
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # public all the same
from typing_extensions import Self

from drawbar.bus.clients import latest_by_key, make_admin, make_consumer, patiently
from drawbar.settings import BusSettings
from schemas.codec import decode
from schemas.errors import BusUnavailable, TopicMismatch, Undecodable
from schemas.records import DeadLetter, LetterState
from schemas.topics import (
    CAPTURED,
    COUPLINGS,
    DEAD_LETTERS_INDEX,
    PAIRS_WORK,
    STATUS,
    changes_topic,
    commands_topic,
)

STAGES = ("capture", "process", "sink-erp", "sink-crm")
ENTITIES = tuple(f"{system}.{entity}" for system, entity in CAPTURED)
BEAT_MAX_AGE_S = 10.0  # a process says every second that it is there; ten times that is not a hiccup
TIMEOUT_S = 10.0
NEAR_END = 100  # from this many offsets to the end on, look whether they hold messages or markers of transactions
TICK = timedelta(milliseconds=1)  # Kafka's timestamps are cut to it
SETTLE = timedelta(milliseconds=500)  # from the last row until the reference view has it and releases who waited for it

# The topics through which a change goes on its way; what comes after them has no reader among the stages.
BETWEEN_STAGES = (PAIRS_WORK, commands_topic("erp"), commands_topic("crm"))
CONSUMED = (*(changes_topic(system, entity) for system, entity in CAPTURED), *BETWEEN_STAGES)

# What a process says of work that is not done: the name in its heartbeat, and in words.
UNFINISHED = {
    "in_flight": "under way",
    "waiting_for_retry": "to be tried again",
    "claiming": "claims not settled",
    "deferred": "orders deferred",
    "releases_due": "to be released",
    "view_lag": "rows not in the reference view",
}

Place = tuple[str, int]
T = TypeVar("T")
_LATE_REPORT = "has not reported since the last message"


# --- heartbeats -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What one process last said of itself. `details`: all it said, as JSON has it."""

    stage: str
    pid: int
    host: str
    at: datetime
    state: str
    details: Mapping[str, Any]

    def number(self, name: str) -> int:
        value = self.details.get(name)
        return int(value) if isinstance(value, (int, float)) else 0

    def time(self, name: str) -> datetime | None:
        return parse_time(self.details.get(name))

    @property
    def entities(self) -> Mapping[str, Mapping[str, Any]]:
        """Capture only: `erp.customer` -> what is said of it."""
        found = self.details.get("entities")
        return found if isinstance(found, Mapping) else {}

    @property
    def name(self) -> str:
        return f"{self.stage} ({self.pid})"


def read_beat(value: bytes | None) -> Beat | None:
    """The heartbeat in a message; None for what is none."""
    try:
        said = json.loads(value or b"")
        at = parse_time(said["at"])
        if at is None:
            return None
        return Beat(
            stage=str(said["stage"]),
            pid=int(said["pid"]),
            host=str(said["host"]),
            at=at,
            state=str(said["state"]),
            details=said,
        )
    except (ValueError, KeyError, TypeError):
        return None


def live(
    beats: Iterable[Beat], *, now: datetime, host: str = "", is_running: Callable[[int], bool] = lambda _pid: True
) -> list[Beat]:
    """The beats of processes that are there: not too old, and on this host really running."""
    return sorted(
        (
            beat
            for beat in beats
            if (now - beat.at).total_seconds() <= BEAT_MAX_AGE_S and (beat.host != host or is_running(beat.pid))
        ),
        key=lambda beat: (beat.stage, beat.host, beat.pid),
    )


# --- judging ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Behind:
    """Messages of one partition that the slowest of its readers has not acknowledged."""

    acknowledged: int  # the offset that comes next; -1: none so far
    messages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """How far the stages have read, at one moment."""

    lag: Mapping[str, int]  # topic -> messages that are not acknowledged
    behind: Mapping[Place, Behind] = field(default_factory=dict)  # by partition, where there are any
    is_steady: bool = True  # False: messages arrived while we counted, so the counts do not belong together
    last_message_at: datetime | None = None  # between the stages, or a row; by the writer's clock


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterCounts:
    """Open dead letters."""

    open: int = 0
    by_code: Mapping[str, int] = field(default_factory=dict)
    by_cause: Mapping[str, int] = field(default_factory=dict)
    oldest: Mapping[str, datetime] = field(default_factory=dict)  # code -> when the oldest of it was opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """All that judging needs. `entities`: those that must be captured, `erp.customer`."""

    beats: Sequence[Beat]
    traffic: Traffic
    entities: Collection[str] = ENTITIES
    letters: LetterCounts = field(default_factory=LetterCounts)

    def of_stage(self, stage: str) -> list[Beat]:
        return [beat for beat in self.beats if beat.stage == stage]


def count_letters(letters: Iterable[DeadLetter]) -> LetterCounts:
    """The open ones, by code and by cause; most frequent first."""
    still_open = [letter for letter in letters if letter.state is LetterState.OPEN]
    oldest: dict[str, datetime] = {}
    for letter in still_open:
        oldest[letter.code] = min(letter.opened_at, oldest.get(letter.code, letter.opened_at))
    return LetterCounts(
        open=len(still_open),
        oldest=oldest,
        by_code=dict(Counter(letter.code for letter in still_open).most_common()),
        by_cause=dict(Counter(letter.cause or letter.slug for letter in still_open).most_common()),
    )


def why_not_quiet(picture: Picture, *, since: datetime | None = None) -> list[str]:
    """What is not quiet, in words; an empty list means quiet.

    With `since`, each entity must have been looked at anew from then on, and in the ERP all its ids listed: an edit or
    a delete that was made before is then surely in.
    """
    return [
        *_stages_amiss(picture),
        *_unfinished(picture),
        *_not_read(picture),
        *_not_looked_at(picture, since),
    ]


def notes(picture: Picture) -> list[str]:
    """What a person has to know besides, though nothing is amiss with it: why writes do not happen."""
    processes = picture.of_stage("process")
    found = []
    if any(beat.details.get("observing") for beat in processes):
        found.append("only observing: what would be written is in the journal; nothing is written")
    held, on = sum(beat.number("kept_back") for beat in processes), brakes_on(processes)
    found += [brake_text(brake) for brake in on]
    if on or held:
        found.append(f"records held: {held}; quiet does not mean in step, drawbar brakes show tells more")
    if len({beat.details["mappings"] for beat in picture.beats if beat.details.get("mappings")}) > 1:
        found.append("not all stages work by the same mapping files: give `drawbar mappings apply` again, it goes on")
    if any(beat.number("waiting") and beat.details.get("company_known") is False for beat in processes):
        found.append("the CRM has no row for this company (bcbi_externalid is its id): records wait for it")
    return found


def brakes_on(beats: Iterable[Beat]) -> list[dict[str, str]]:
    """The brakes that any process keeps to."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for beat in beats:
        for brake in beat.details.get("brakes") or ():
            found[brake["mapping"], brake["direction"]] = brake
    return [found[key] for key in sorted(found)]


def brake_text(brake: Mapping[str, str]) -> str:
    """A brake that is on, in a sentence."""
    what = "everything" if brake["mapping"] == "*" else f"{brake['mapping']} {brake['direction']}"
    why = f"{brake['code']} {brake['reason']}".strip()
    return f"{what} is {brake['state']} since {brake['at'][:19]} by {brake['by']}" + (why and f": {why}")


def is_late_report(reason: str) -> bool:
    """Whether a reason goes by itself with the next heartbeat of a process."""
    return reason.endswith(_LATE_REPORT)


def unhurried_entities(picture: Picture, *, since: datetime) -> list[str]:
    """The entities at which capture has to look again before the system can be found quiet."""
    looks = _looks(picture)
    return [
        entity
        for entity in picture.entities
        if entity in looks and looks[entity].get("state") != "stopped" and _look_missing(picture, entity, since)
    ]


def _stages_amiss(picture: Picture) -> list[str]:
    found = []
    for stage in STAGES:
        beats = picture.of_stage(stage)
        if not beats:
            found.append(f"{stage}: no process runs")
        for beat in beats:
            if beat.state != "running":
                reason = beat.details.get("paused_reason") or beat.details.get("reason")
                found.append(f"{beat.name}: {beat.state}" + (f", {reason}" if reason else ""))
    return found


def _unfinished(picture: Picture) -> list[str]:
    return [
        f"{beat.name}: {beat.number(name)} {words}"
        for beat in picture.beats
        for name, words in UNFINISHED.items()
        if beat.number(name)
    ]


def _not_read(picture: Picture) -> list[str]:
    traffic = picture.traffic
    found = [f"{topic}: {lag} messages not worked off" for topic, lag in traffic.lag.items() if lag]
    if not traffic.is_steady:
        found.append("messages are arriving")
    if traffic.last_message_at is not None:
        found += [
            f"{beat.name}: {_LATE_REPORT}"
            for beat in picture.beats
            if beat.stage != "capture" and beat.at < traffic.last_message_at + SETTLE
        ]
    return found


def _not_looked_at(picture: Picture, since: datetime | None) -> list[str]:
    if not picture.of_stage("capture"):
        return []
    looks = _looks(picture)
    found = []
    for entity in picture.entities:
        look = looks.get(entity)
        if look is None:
            found.append(f"{entity}: nobody captures it")
        elif look.get("state") not in ("polling", "waiting", "snapshot"):
            found.append(f"{entity}: capture is {look.get('state')}, {look.get('reason') or 'no reason given'}")
        elif missing := _look_missing(picture, entity, since):
            reason = f" ({look['state']}, {look['reason']})" if look.get("reason") else ""
            found.append(f"{entity}: {missing}{reason}")
    return found


def _look_missing(picture: Picture, entity: str, since: datetime | None) -> str:
    look = _looks(picture)[entity]
    poll, sweep = parse_time(look.get("last_empty_poll_began_at")), parse_time(look.get("last_empty_sweep_began_at"))
    last = _last_activity(picture)
    if poll is None:
        return "no poll without news yet"
    if last is not None and poll < last:
        return "no poll without news since the last outcome"
    if since is not None and poll < since:
        return "no poll without news since the wait began"
    if since is not None and entity.startswith("erp.") and (sweep is None or sweep < since):
        return "ids not listed since the wait began"
    return ""


def _looks(picture: Picture) -> dict[str, Mapping[str, Any]]:
    return {entity: look for beat in picture.of_stage("capture") for entity, look in beat.entities.items()}


def _last_activity(picture: Picture) -> datetime | None:
    """When the last outcome was there at the latest.

    The last message between the stages stands for an outcome whose process is gone and cannot name it any more.
    """
    times = [at for beat in picture.beats if (at := beat.time("last_outcome_at")) is not None]
    if picture.traffic.last_message_at is not None:
        times.append(picture.traffic.last_message_at + TICK)
    return max(times, default=None)


def to_json(picture: Picture) -> dict[str, Any]:
    """The object that `drawbar status --json` prints."""
    reasons = why_not_quiet(picture)
    stages: dict[str, list[dict[str, Any]]] = {stage: [] for stage in STAGES}
    for beat in picture.beats:
        details = {name: value for name, value in beat.details.items() if name not in ("stage", "pid", "state")}
        stages.setdefault(beat.stage, []).append({"pid": beat.pid, "state": beat.state, **details})
    return {
        "stages": stages,
        "lag": dict(picture.traffic.lag),
        "dead_letters": {
            "open": picture.letters.open,
            "by_code": dict(picture.letters.by_code),
            "by_cause": dict(picture.letters.by_cause),
        },
        "brakes": brakes_on(picture.beats),
        "notes": notes(picture),
        "quiet": not reasons,
        "why_not_quiet": reasons,
    }


# --- reading ----------------------------------------------------------------------------------------------------------


class BeatReader:
    """Follows `stages.status`, from a little in the past on. Belongs to one thread."""

    def __init__(self, bus: BusSettings, *, history_s: float = BEAT_MAX_AGE_S, timeout_s: float = TIMEOUT_S) -> None:
        """Returns with what was said until now. Raises BusUnavailable, or TopicMismatch when the topic is missing."""
        self._beats: dict[bytes, Beat] = {}
        self._first: dict[bytes, Beat] = {}
        self._host = socket.gethostname()
        self._partition = TopicPartition(STATUS, 0)
        start, end = self._range(bus, history_s, timeout_s)
        self._consumer = make_consumer(
            bus.bootstrap_servers, client_id="drawbar-status", group_id="drawbar-status", extra=bus.extra
        )
        self._consumer.assign([TopicPartition(STATUS, 0, start)])
        self._next = start
        deadline = time.monotonic() + timeout_s
        while self._next < end:
            self.poll(0.1)
            if time.monotonic() > deadline:
                self.close()
                raise BusUnavailable(f"topic {STATUS} was not read in {timeout_s:g} s")

    def poll(self, timeout_s: float) -> bool:
        """Take in what was said, waiting up to `timeout_s` for the first; whether there was anything."""
        messages = self._consumer.consume(500, timeout_s) if timeout_s else []
        for message in messages:
            key = message.key()
            if message.error() is not None or key is None:
                continue
            self._next = max(self._next, (message.offset() or 0) + 1)
            raw, value = _bytes(key), message.value()
            beat = None if value is None else read_beat(_bytes(value))
            if beat is None:
                self._beats.pop(raw, None)
                self._first.pop(raw, None)
            else:
                self._beats[raw] = beat
                self._first.setdefault(raw, beat)
        return bool(messages)

    def beats(self) -> list[Beat]:
        """What each process that is there said last."""
        now = datetime.now(timezone.utc)
        return live(self._beats.values(), now=now, host=self._host, is_running=is_running)

    def first_of(self, beat: Beat) -> Beat:
        """The oldest heartbeat of the same process that was read; with `beat` it gives rates."""
        for first in self._first.values():
            if (first.stage, first.host, first.pid) == (beat.stage, beat.host, beat.pid):
                return first
        return beat

    def close(self) -> None:
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _range(self, bus: BusSettings, history_s: float, timeout_s: float) -> tuple[int, int]:
        admin = make_admin(bus.bootstrap_servers, client_id="drawbar-status", extra=bus.extra)
        since_ms = int((time.time() - history_s) * 1000)
        end = _offsets(admin, {STATUS: 1}, OffsetSpec.latest(), timeout_s)[STATUS, 0]  # type: ignore[no-untyped-call]
        start = _offsets(admin, {STATUS: 1}, OffsetSpec.for_timestamp(since_ms), timeout_s)[STATUS, 0]
        return (end if start < 0 else start), end


class TrafficReader:
    """Counts what the stages have not acknowledged. Belongs to one thread."""

    def __init__(self, bus: BusSettings, *, topics: Collection[str] = CONSUMED, timeout_s: float = TIMEOUT_S) -> None:
        """Raises BusUnavailable, or TopicMismatch when a topic is missing."""
        self._bus = bus
        self._timeout_s = timeout_s
        self._admin = make_admin(bus.bootstrap_servers, client_id="drawbar-status", extra=bus.extra)
        counts = self._partition_counts({*topics, *BETWEEN_STAGES, COUPLINGS})
        self._topics = {name: counts[name] for name in topics}
        self._active = {name: counts[name] for name in (*BETWEEN_STAGES, COUPLINGS)}
        self._peek = _Peek(bus, timeout_s)

    def read(self) -> Traffic:
        """The ends are read before and after the positions: when they are the same, the counts belong together."""
        ends = self._ends()
        committed = self._committed()
        behind = self._behind(ends, committed)
        lag = dict.fromkeys(self._topics, 0)
        for (topic, _), found in behind.items():
            lag[topic] += found.messages
        last = _last_timestamp(self._admin, self._active, self._timeout_s)
        return Traffic(lag=lag, behind=behind, is_steady=self._ends() == ends, last_message_at=last)

    def ends(self, topics: Collection[str]) -> dict[Place, int]:
        """The end of each partition of these topics, as of now."""
        return {place: end for place, end in self._ends().items() if place[0] in topics}

    def not_read(self, ends: Mapping[Place, int]) -> int:
        """How many messages up to these ends a stage has not acknowledged."""
        behind = self._behind(ends, self._committed())
        return sum(found.messages for place, found in behind.items() if found.acknowledged < ends[place])

    def close(self) -> None:
        self._peek.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _behind(self, ends: Mapping[Place, int], committed: Sequence[Mapping[Place, int]]) -> dict[Place, Behind]:
        """Behind the slowest of the groups that read it. Markers of transactions are no messages."""
        spans: dict[Place, tuple[int, int]] = {}
        for place, end in ends.items():
            readers = [group for group in committed if any(read[0] == place[0] for read in group)]
            start = min((group.get(place, OFFSET_BEGINNING) for group in readers), default=OFFSET_BEGINNING)
            if end > max(0, start):
                spans[place] = start, end
        near = {place: (start, end) for place, (start, end) in spans.items() if start < 0 or end - start <= NEAR_END}
        counted = self._peek.count(near)
        found = {
            place: Behind(max(-1, start), counted.get(place, end - start)) for place, (start, end) in spans.items()
        }
        return {place: behind for place, behind in found.items() if behind.messages}

    def _ends(self) -> dict[Place, int]:
        return _offsets(self._admin, self._topics, OffsetSpec.latest(), self._timeout_s)  # type: ignore[no-untyped-call]

    def _committed(self) -> list[dict[Place, int]]:
        try:
            listed = _answer(self._admin.list_consumer_groups(request_timeout=self._timeout_s), self._timeout_s)
            prefix = self._bus.group_prefix
            found = []
            for group in listed.valid:
                if not group.group_id.startswith(f"{prefix}."):
                    continue
                asked = [ConsumerGroupTopicPartitions(group.group_id)]
                answers = self._admin.list_consumer_group_offsets(asked, request_timeout=self._timeout_s)
                positions = _answer(answers[group.group_id], self._timeout_s).topic_partitions
                found.append({(at.topic, at.partition): at.offset for at in positions if at.offset >= 0})
        except KafkaException as failed:
            raise _unavailable("the positions of the stages cannot be read", failed) from failed
        return found

    def _partition_counts(self, topics: Collection[str]) -> dict[str, int]:
        try:
            there = self._admin.list_topics(timeout=self._timeout_s).topics
        except KafkaException as failed:
            raise _unavailable("the topics cannot be listed", failed) from failed
        missing = sorted(set(topics) - set(there))
        if missing:
            raise TopicMismatch(
                f"topics are missing: {', '.join(missing)}", next_step="make the topics: drawbar topics apply"
            )
        return {name: len(there[name].partitions) for name in topics}


class _Peek:
    """Counts the messages between a position and an end, where only some of the offsets may hold one."""

    def __init__(self, bus: BusSettings, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._consumer: Consumer = make_consumer(
            bus.bootstrap_servers,
            client_id="drawbar-status-peek",
            group_id="drawbar-status-peek",
            extra={"fetch.wait.max.ms": "20", **bus.extra},
            partition_eof=True,
        )
        self._nothing: dict[Place, tuple[int, int]] = {}  # spans that were found to hold no message

    def count(self, spans: Mapping[Place, tuple[int, int]]) -> dict[Place, int]:
        """Messages from `start` to `end`, at most as many as there are offsets from the first one on."""
        found = {place: 0 for place, span in spans.items() if self._nothing.get(place) == span}
        open_ = {place: span for place, span in spans.items() if place not in found}
        if not open_:
            return found
        self._consumer.assign([TopicPartition(topic, p, start) for (topic, p), (start, _) in open_.items()])
        deadline = time.monotonic() + self._timeout_s
        while open_ and time.monotonic() < deadline:
            for message in self._consumer.consume(100, 0.2):
                place = (message.topic() or "", message.partition() or 0)
                span, error = open_.get(place), message.error()
                if span is None:
                    continue
                offset = message.offset() or 0
                if error is None and offset < span[1]:
                    found[place] = span[1] - offset
                elif error is None or error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                    found[place] = 0
                    self._nothing[place] = span
                else:
                    continue
                del open_[place]
        self._consumer.unassign()
        return found | {place: end - max(0, start) for place, (start, end) in open_.items()}

    def close(self) -> None:
        self._consumer.close()


class LetterReader:
    """Follows `dead-letters.index` and keeps the letters that are open. Belongs to one thread."""

    def __init__(self, bus: BusSettings, *, timeout_s: float = TIMEOUT_S) -> None:
        """Raises BusUnavailable, or TopicMismatch when the topic is missing."""
        self._timeout_s = timeout_s
        self._open: dict[bytes, DeadLetter] = {}
        topics = make_admin(bus.bootstrap_servers, client_id="drawbar-status", extra=bus.extra)
        try:
            there = topics.list_topics(timeout=timeout_s).topics
        except KafkaException as failed:
            raise _unavailable("the topics cannot be listed", failed) from failed
        if DEAD_LETTERS_INDEX not in there:
            raise TopicMismatch(
                f"topic {DEAD_LETTERS_INDEX} does not exist", next_step="make the topics: drawbar topics apply"
            )
        self._partitions = sorted(there[DEAD_LETTERS_INDEX].partitions)
        self._consumer = make_consumer(
            bus.bootstrap_servers,
            client_id="drawbar-status",
            group_id="drawbar-status",
            extra=bus.extra,
            partition_eof=True,
        )
        self._consumer.assign([TopicPartition(DEAD_LETTERS_INDEX, p, OFFSET_BEGINNING) for p in self._partitions])
        self._unread = set(self._partitions)

    def read(self) -> list[DeadLetter]:
        """The open letters now. Raises BusUnavailable when the index cannot be read to its end in time."""
        deadline = time.monotonic() + self._timeout_s
        while (messages := self._consumer.consume(500, 0.2 if self._unread else 0.02)) or self._unread:
            for message in messages:
                self._take(message)
            if time.monotonic() > deadline:
                raise BusUnavailable(f"topic {DEAD_LETTERS_INDEX} was not read in {self._timeout_s:g} s")
        return list(self._open.values())

    def _take(self, message: Message) -> None:
        error, key, value = message.error(), message.key(), message.value()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                self._unread.discard(message.partition() or 0)
            return
        try:
            letter = decode(DeadLetter, _bytes(value or b""))
        except Undecodable:
            return  # nobody's letter
        if letter.state is LetterState.OPEN:
            self._open[_bytes(key or b"")] = letter
        else:
            self._open.pop(_bytes(key or b""), None)

    def close(self) -> None:
        self._consumer.close()


def read_letters(bus: BusSettings, *, timeout_s: float = TIMEOUT_S) -> list[DeadLetter]:
    """Every dead letter as it stands. What cannot be read is left out: it is nobody's letter."""
    found = []
    for message in latest_by_key(
        bus.bootstrap_servers, DEAD_LETTERS_INDEX, extra=bus.extra, timeout_s=timeout_s
    ).values():
        value = message.value()
        try:
            found.append(decode(DeadLetter, _bytes(value or b"")))
        except Undecodable:
            continue
    return found


def is_running(pid: int) -> bool:
    """Whether a process of this host exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _offsets(admin: AdminClient, topics: Mapping[str, int], which: OffsetSpec, timeout_s: float) -> dict[Place, int]:
    """Per partition. Open transactions are not counted: what they hold is not captured yet.

    Right after a topic was made, and while a broker starts, partitions have no leader for a moment: asked again.
    """
    return patiently(
        lambda: _offsets_now(admin, topics, which, timeout_s), what="the offsets cannot be read", timeout_s=timeout_s
    )


def _offsets_now(
    admin: AdminClient, topics: Mapping[str, int], which: OffsetSpec, timeout_s: float
) -> dict[Place, int]:
    asked = {TopicPartition(topic, p): which for topic, count in topics.items() for p in range(count)}
    answers = admin.list_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=timeout_s)
    found: dict[Place, int] = {}
    for at, answer in answers.items():
        try:
            found[at.topic, at.partition] = _answer(answer, timeout_s).offset
        except KafkaException as failed:  # noqa: PERF203 - each partition has its own answer
            if failed.args[0].code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):  # noqa: SLF001
                raise TopicMismatch(
                    f"topic {at.topic} does not exist", next_step="make the topics: drawbar topics apply"
                ) from failed
            raise
    return found


def _last_timestamp(admin: AdminClient, topics: Mapping[str, int], timeout_s: float) -> datetime | None:
    asked = {
        TopicPartition(topic, p): OffsetSpec.max_timestamp()  # type: ignore[no-untyped-call]
        for topic, count in topics.items()
        for p in range(count)
    }
    try:
        answers = admin.list_offsets(asked, request_timeout=timeout_s)
        newest = max((_answer(answer, timeout_s).timestamp for answer in answers.values()), default=-1)
    except KafkaException as failed:
        raise _unavailable("the time of the last message cannot be read", failed) from failed
    return datetime.fromtimestamp(newest / 1000, timezone.utc) if newest >= 0 else None


def _answer(asked: Future[T], timeout_s: float) -> T:
    """What the broker says. Raises KafkaException, also when it says nothing: a frozen one does not even refuse."""
    try:
        return asked.result(timeout_s + 1)
    except TimeoutException as late:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from late  # noqa: SLF001 - its public name


def _unavailable(what: str, failed: KafkaException) -> BusUnavailable:
    return BusUnavailable(f"{what}: {failed.args[0].name()}", next_step="look at the broker; is `drawbar up` running?")


def parse_time(text: object) -> datetime | None:
    """A time with its zone, as JSON has it; None for what is none."""
    if not isinstance(text, str):
        return None
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return at if at.tzinfo is not None else None


def _bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data
