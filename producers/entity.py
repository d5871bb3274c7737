"""Capture one entity of one system: a small state machine over a source, a ledger and a clock.

`step` does what is due and returns; it never sleeps, and `due_in_s` says when to call it again. A step may be cut off
at any call it makes outside: what is not published is read again, and what is published is in the ledger, from which
the next owner starts. After any doubt about a publication the memory is thrown away and read back from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Protocol

import structlog
from msgspec import Struct
from msgspec.structs import replace

from drawbar.letters import index_message, letter_message
from drawbar.ports import Clock, InMessage, OutMessage
from drawbar.settings import CaptureSettings
from drawbar.throttle import retry_delay
from drawbar.traces import NO_TRACES, Span, Traces, end_all
from producers import capture
from producers.capture import Known, Subject
from producers.sources import Next, Page, Source, SourceFault, Unreadable
from schemas.errors import BusError, MassDelete, PositionExpired
from schemas.records import ChangeEvent, DeadLetter, LetterState, Observed, Watermark
from schemas.topics import DEAD_LETTERS_INDEX, WATERMARKS

RETRY_BASE_S = 0.5
RETRY_CAP_S = 60.0
STOPPED_RETRY_S = 60.0  # somebody must act, and need not tell us that they did
WATERMARK_EVERY_S = 60.0  # a delta link changes with every poll; one that brought nothing is not worth a message
DELETES_UNSURE = "deletes-unsure"  # shown as reason: records are missing, but nothing proves that we may see any
DELETES_NAMED = 20  # of those for which an entity stopped, so many are named
DELTA_SWEEP_S = 3600.0  # a source that reports deletes is listed too, though nothing should come of it
TURN_CHECK_S = 0.2
TURN_PATIENCE_S = 30.0  # how long the first snapshot lets the entities it refers to go first

log = structlog.get_logger("drawbar.capture")


class Fenced(Exception):
    """Another process publishes for this entity now. This one has to let go of it."""


class Ledger(Protocol):
    """What has been published of one entity, and the way to publish more. One owner at a time."""

    def take_over(self) -> None:
        """Become the owner: whoever published before cannot any more. Raises BusError."""
        ...

    def read(self, topic: str) -> Iterable[InMessage]:
        """All that is published on `topic`, from its beginning to its present end. Raises BusError."""
        ...

    def publish(self, messages: Sequence[OutMessage]) -> None:
        """All of `messages` or none. Raises Fenced; raises BusError when it may be either."""
        ...

    def place(self, message: OutMessage) -> tuple[int, int]:
        """Publish one message and say to which partition and offset. Errors as `publish`."""
        ...


class State(str, Enum):
    """SNAPSHOT: reading all records. POLLING: reading changes. WAITING: for its turn, or to try again after a failure.
    STOPPED: somebody must act.
    """

    SNAPSHOT = "snapshot"
    POLLING = "polling"
    WAITING = "waiting"
    STOPPED = "stopped"


@dataclass(slots=True)
class _Memory:
    """What the ledger holds, and where the source was left."""

    known: dict[str, Known]
    alive: int  # of those known
    position: str
    snapshot_done: bool
    published: Watermark | None  # the last one in the ledger
    reached_at: float  # monotonic, when `position` was last moved
    letters: dict[str, DeadLetter]  # the last one of each record that could not be read, open or not


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What became of suspected deletes: events to publish, and whether all suspects are settled."""

    events: tuple[ChangeEvent, ...] = ()
    is_settled: bool = True


class _Look(Struct, frozen=True, kw_only=True):
    """What a look at the source came to."""

    events: int
    is_complete: bool = True  # False: told to stop in the middle
    is_settled: bool = True  # False: there are deletes that are not sure yet
    saw_deletes: bool = True  # whether deletes would have been seen

    def __add__(self, other: _Look) -> _Look:
        return _Look(
            events=self.events + other.events,
            is_complete=self.is_complete and other.is_complete,
            is_settled=self.is_settled and other.is_settled,
            saw_deletes=other.saw_deletes,
        )


class EntityCapture:
    """The state machine. All methods but `look`, `confirm_deletes` and `status` belong to one thread."""

    def __init__(
        self,
        source: Source,
        ledger: Ledger,
        clock: Clock,
        *,
        subject: Subject,
        settings: CaptureSettings,
        is_reference: bool = False,
        may_begin: Callable[[], bool] = lambda: True,
        should_stop: Callable[[], bool] = lambda: False,
        skew_ms: Callable[[], int] = lambda: 0,
        traces: Traces = NO_TRACES,
    ) -> None:
        self._source = source
        self._ledger = ledger
        self._clock = clock
        self._subject = subject
        self._settings = settings
        self._min_s = settings.reference_poll_s if is_reference else settings.poll_min_s
        self._max_s = settings.reference_poll_s if is_reference else settings.poll_max_s
        self._may_begin = may_begin
        self._should_stop = should_stop
        self._skew_ms = skew_ms
        self._traces = traces

        self._memory: _Memory | None = None
        self._state = State.WAITING
        self._reason = ""
        self._failures = 0  # in a row
        self._lost_positions = 0  # in a row
        self._unsure = 0  # looks in a row that left deletes unsettled
        self._wait_until = -math.inf  # monotonic: nothing is done before, hint or not
        self._poll_at = -math.inf
        self._sweep_at = -math.inf
        self._pause_s = self._min_s
        self._turn_until = clock.monotonic() + TURN_PATIENCE_S

        self._hinted = False
        self._sweep_hinted = False
        self._confirmed = False  # deletes, however many
        self._deletes: Mapping[str, Any] = {}  # those for which it stopped
        self._anew = False  # a snapshot was asked for
        self._events = 0
        self._times: dict[str, datetime] = {}
        self._last_poll_events = 0
        self._watermark_at = -math.inf

    # --- from other threads ---------------------------------------------------------------------------------------

    def look(self, *, sweep: bool = False) -> None:
        """Poll at once; with `sweep`, list all ids at once as well. A pause that a failure asked for is kept."""
        self._sweep_hinted = self._sweep_hinted or sweep
        self._hinted = True

    def confirm_deletes(self) -> None:
        """Publish the deletes for which this entity stopped. Means nothing unless it did."""
        if self._reason == MassDelete.code:
            self._confirmed = True

    def capture_anew(self) -> None:
        """Forget position and versions: read all records, and publish each of them, changed or not."""
        self._anew = True
        self._hinted = True

    @property
    def snapshot_done(self) -> bool:
        memory = self._memory
        return memory is not None and memory.snapshot_done

    @property
    def is_stopped(self) -> bool:
        return self._state is State.STOPPED

    def status(self) -> dict[str, Any]:
        memory, now = self._memory, self._clock.monotonic()
        times = {name: at.isoformat() for name, at in self._times.copy().items()}
        return {
            "state": self._state.value,
            "reason": self._reason,
            "known": memory.alive if memory else 0,
            "events": self._events,
            "last_poll_events": self._last_poll_events,
            "next_poll_in_s": _seconds(self.due_in_s()),
            "poll_interval_s": self._max_s,
            "next_sweep_in_s": _seconds(max(0.0, self._sweep_at - now)),
            "snapshot_done": self.snapshot_done,
            "requests": self._source.requests,
            "deletes": self._deletes if self._reason == MassDelete.code else None,
            **{name: times.get(name) for name in _TIMES},
        }

    # --- the machine ----------------------------------------------------------------------------------------------

    def due_in_s(self) -> float:
        """Seconds until `step` has something to do; infinite while only a message can change that."""
        if self._reason == MassDelete.code:
            return 0.0 if self._confirmed else math.inf
        now = self._clock.monotonic()
        wanted = min(self._poll_at, self._sweep_at)
        if self._hinted:
            wanted = -math.inf
        is_patient = self._state is not State.STOPPED or not self._hinted
        return max(0.0, (max(wanted, self._wait_until) if is_patient else wanted) - now)

    def step(self) -> None:
        """Do what is due. Raises Fenced; everything else that can fail is shown by `status` and tried again."""
        if self.due_in_s() > 0:
            return
        self._hinted = False
        try:
            if self._memory is None:
                self._memory = self._recall()
            if self._anew:
                self._anew = False
                self._begin_anew(self._memory)
            if not self._memory.snapshot_done and not self._is_our_turn():
                self._wait("", TURN_CHECK_S)
                return
            self._poll(self._memory)
        except SourceFault as fault:
            self._fail(fault)
        except MassDelete as fault:
            self._stop(fault)
        except BusError as fault:
            self._memory = None  # what is published is not known any more
            self._failures += 1
            pause_s = retry_delay(self._failures, base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
            log.warning(
                "capture.waiting", entity=self._subject.key, code=fault.code, detail=fault.message, retry_in_s=pause_s
            )
            self._wait(fault.code, pause_s)

    def _begin_anew(self, memory: _Memory) -> None:
        """Where it is cut off, the next owner reads all records again, but publishes only what differs."""
        memory.known = {record_id: replace(last, field_set="") for record_id, last in memory.known.items()}
        memory.position, memory.snapshot_done = "", False
        self._publish(memory, ())
        log.info("capture.anew", entity=self._subject.key, known=len(memory.known))

    def _is_our_turn(self) -> bool:
        return self._may_begin() or self._clock.monotonic() >= self._turn_until

    def _recall(self) -> _Memory:
        self._ledger.take_over()
        watermark = capture.latest_watermark(self._ledger.read(WATERMARKS), self._subject.key)
        known = capture.recalled(self._ledger.read(self._subject.topic), self._subject)
        letters = capture.letters_of(self._ledger.read(DEAD_LETTERS_INDEX), self._subject)
        self._sweep_at = -math.inf  # deletes while nobody looked
        self._watermark_at = self._clock.monotonic()
        is_ours = watermark is not None and watermark.field_set == self._subject.field_set
        log.info(
            "capture.taken_over",
            entity=self._subject.key,
            known=len(known),
            anew=not is_ours,
        )
        return _Memory(
            known=known,
            alive=capture.alive(known),
            position=watermark.position if watermark and is_ours else "",
            snapshot_done=bool(watermark and is_ours and watermark.snapshot_done),
            published=watermark,
            reached_at=self._clock.monotonic(),
            letters=letters,
        )

    def _poll(self, memory: _Memory) -> None:
        self._times["last_poll_began_at"] = began_at = self._clock.now()
        was_snapshot = not memory.snapshot_done
        self._state = State.SNAPSHOT if was_snapshot else State.POLLING
        look = self._read_changes(memory)
        is_wanted = self._sweep_hinted or self._clock.monotonic() >= self._sweep_at
        if look.is_complete and look.is_settled and is_wanted:
            self._sweep_hinted = False
            look += self._sweep(memory)
        else:
            look = replace(look, saw_deletes=self._source.reports_deletes)
        self._times["last_poll_finished_at"] = self._clock.now()
        self._last_poll_events = look.events
        if not look.is_complete:
            return  # told to stop
        self._state = State.POLLING
        self._failures = 0
        self._unsure = 0 if look.is_settled else self._unsure + 1
        self._reason = "" if look.is_settled else DELETES_UNSURE
        self._confirmed = False
        self._lost_positions = self._lost_positions if was_snapshot else 0
        if look.events == 0 and look.is_settled and not was_snapshot:
            self._times["last_empty_poll_began_at"] = began_at
            if look.saw_deletes:
                self._times["last_empty_sweep_began_at"] = began_at
        self._pause_s = capture.next_pause(self._pause_s, found=look.events > 0, min_s=self._min_s, max_s=self._max_s)
        if self._unsure and self._source.reports_deletes:  # each poll asks for the suspects again
            doubt_s = retry_delay(self._unsure, base_s=RETRY_BASE_S, cap_s=self._settings.sweep_interval_s)
            self._pause_s = max(self._pause_s, doubt_s)
        self._poll_at = self._clock.monotonic() + self._pause_s
        if self._unsure:
            self._sweep_at = max(self._sweep_at, self._poll_at)

    def _read_changes(self, memory: _Memory) -> _Look:
        in_snapshot = not memory.snapshot_done
        listed: set[str] = set()
        suspects: list[str] = []
        found = pages = 0
        for page in self._source.changes(self._start(memory)):
            pages += 1
            self._set_aside(memory, page.unreadable)
            if in_snapshot:
                listed.update(row.id for row in page.rows)
                listed.update(row.id for row in page.unreadable)
            suspects += page.deleted
            events = self._to_events(memory, page.rows, page.captured_at, in_snapshot=in_snapshot)
            if page.is_last and self._source.reports_deletes:
                self._publish(memory, events)
                if in_snapshot:
                    suspects += capture.missing(listed, memory.known)
                verdict = self._verify(memory, suspects, listed)
                found += len(events) + len(verdict.events)
                self._publish(memory, verdict.events, position=page.position if verdict.is_settled else "")
                if not verdict.is_settled:
                    return _Look(events=found, is_settled=False)
            else:
                self._publish(memory, events, position=page.position)
                found += len(events)
            if not page.is_last and self._should_stop():
                return _Look(events=found, is_complete=False)
        if in_snapshot:
            self._publish(memory, (), snapshot_done=True)
            log.info("capture.snapshot_done", entity=self._subject.key, known=len(memory.known), pages=pages)
        if not self._source.reports_deletes and (in_snapshot or pages > 1):
            self._sweep_at = -math.inf  # a row that moved to the end while pages were read may have hidden another
        return _Look(events=found)

    def _start(self, memory: _Memory) -> str:
        if self._source.reports_deletes:
            return memory.position if memory.snapshot_done else ""
        quiet_s = self._clock.monotonic() - memory.reached_at
        return capture.lower_bound(memory.position, overlap_s=self._settings.overlap_s, quiet_s=quiet_s)

    def _sweep(self, memory: _Memory) -> _Look:
        """List all ids; read again what differs, verify what is missing."""
        before, found = self._source.requests, 0
        listed: dict[str, str] = {}
        for ids in self._source.ids():
            listed.update(ids)
            if self._should_stop():
                return _Look(events=found, is_complete=False)
        result = capture.compare(listed, memory.known, self._subject)
        for page in self._source.records(result.differing):
            found += self._publish_page(memory, page)
        verdict = self._verify(memory, result.missing, listed)
        self._publish(memory, verdict.events)
        self._sweep_at = self._clock.monotonic() + capture.sweep_pause(
            self._source.requests - before,
            interval_s=DELTA_SWEEP_S if self._source.reports_deletes else self._settings.sweep_interval_s,
            requests_per_5_min=self._settings.sweep_requests_per_5_min,
        )
        return _Look(events=found + len(verdict.events), is_settled=verdict.is_settled)

    def _publish_page(self, memory: _Memory, page: Page) -> int:
        self._set_aside(memory, page.unreadable)
        events = self._to_events(memory, page.rows, page.captured_at)
        self._publish(memory, events)
        return len(events)

    def _to_events(
        self, memory: _Memory, rows: Iterable[Observed], captured_at: datetime, *, in_snapshot: bool = False
    ) -> tuple[ChangeEvent, ...]:
        return capture.to_events(
            rows,
            memory.known,
            self._subject,
            captured_at=captured_at,
            in_snapshot=in_snapshot,
            skew_ms=self._skew_ms(),
        )

    def _set_aside(self, memory: _Memory, rows: Iterable[Unreadable]) -> None:
        """Open a letter for each row that cannot be read; the rows beside it go on."""
        for row in rows:
            letter = capture.unreadable_letter(
                self._subject, row.id, row.version, fault=row.fault, now=self._clock.now()
            )
            last = memory.letters.get(row.id)
            if last is not None and last.letter_id == letter.letter_id:
                continue
            message = letter_message(
                letter, key=row.id.encode(), value=row.body, stage="capture", partition=-1, offset=-1
            )
            partition, offset = self._ledger.place(message)
            lines = [index_message(letter, partition=partition, offset=offset)]
            if last is not None and last.state is LetterState.OPEN:
                lines.append(self._closing(last))  # of an earlier state, which the new letter stands for
            self._ledger.publish(lines)
            memory.letters[row.id] = replace(letter, partition=partition, offset=offset)
            log.warning("capture.set_aside", entity=self._subject.key, ref=letter.ref, code=letter.code)

    def _closing(self, letter: DeadLetter) -> OutMessage:
        closed = replace(letter, state=LetterState.CLOSED, changed_at=self._clock.now(), changed_by="capture")
        return index_message(closed, partition=letter.partition, offset=letter.offset)

    def _verify(self, memory: _Memory, suspects: Iterable[str], listed: Iterable[str]) -> _Verdict:
        """Ask for each suspect by its id, then for a record that should be there. Raises MassDelete."""
        doubtful = [
            suspect
            for suspect in dict.fromkeys(suspects)
            if suspect in memory.known and not memory.known[suspect].deleted
        ]
        settings = self._settings
        limit = capture.max_deletes(memory.known, at_least=settings.max_deletes, share=settings.max_deletes_share)
        gone: list[str] = []
        back: list[ChangeEvent] = []
        for suspect in doubtful:
            row = self._source.record(suspect)
            if row is None:
                gone.append(suspect)
            elif isinstance(row, Unreadable):
                self._set_aside(memory, [row])
            else:
                back += self._to_events(memory, [row], self._clock.now())
            if len(gone) > limit and not self._confirmed:
                break
        if not gone:
            return _Verdict(tuple(back))
        if not self._has_witness(memory, doubtful, listed):
            return _Verdict(tuple(back), is_settled=False)
        if len(gone) > limit and not self._confirmed:
            self._deletes = {
                "missing": len(doubtful) - len(back),
                "first": gone[:DELETES_NAMED],
                "since": self._clock.now().isoformat(),
            }
            raise MassDelete(f"more than {limit} records of {self._subject.key} are gone at once")
        deletes = capture.to_deletes(gone, memory.known, self._subject, captured_at=self._clock.now())
        return _Verdict((*back, *deletes))

    def _has_witness(self, memory: _Memory, suspects: Sequence[str], listed: Iterable[str]) -> bool:
        found = capture.witnesses(suspects, memory.known, listed)
        return any(self._source.record(record_id) is not None for record_id in found)

    def _publish(
        self,
        memory: _Memory,
        events: Sequence[ChangeEvent],
        *,
        position: str = "",
        snapshot_done: bool | None = None,
    ) -> None:
        """Events and watermark in one transaction; then, and only then, they are remembered."""
        now = self._clock.monotonic()
        moved = position or memory.position
        done = memory.snapshot_done if snapshot_done is None else snapshot_done
        watermark = Watermark(
            system=self._subject.system,
            entity=self._subject.entity,
            position=moved,
            field_set=self._subject.field_set,
            snapshot_done=done,
            at=self._clock.now(),
        )
        messages, spans = self._traced(events)
        healed = {event.ref.id: memory.letters[event.ref.id] for event in events if event.ref.id in memory.letters}
        messages += [self._closing(letter) for letter in healed.values() if letter.state is LetterState.OPEN]
        if self._is_worth_publishing(memory.published, watermark, has_events=bool(events), now=now):
            messages.append(capture.to_watermark_message(watermark))
            memory.published = watermark
            self._watermark_at = now
        if messages:
            self._ledger.publish(messages)
        end_all(spans)
        if moved != memory.position:
            memory.reached_at = now
        memory.position, memory.snapshot_done = moved, done
        for record_id in healed:
            del memory.letters[record_id]
        for record_id, known in capture.remembered(events, self._subject).items():
            before = memory.known.get(record_id)
            memory.alive += (not known.deleted) - (before is not None and not before.deleted)
            memory.known[record_id] = known
        if events:
            self._events += len(events)
            self._times["last_event_at"] = self._clock.now()
            log.info("capture.published", entity=self._subject.key, events=len(events))

    def _traced(self, events: Sequence[ChangeEvent]) -> tuple[list[OutMessage], list[Span]]:
        """The messages of the events, each with the trace that begins with it."""
        messages: list[OutMessage] = []
        spans = []
        for event in events:
            span = self._traces.begin("capture", at=event.captured_at)
            span.note(entity=self._subject.key, ref=str(event.ref), event_id=event.event_id)
            spans.append(span)
            messages += capture.to_messages([event], headers=span.headers)
        return messages, spans

    def _is_worth_publishing(self, last: Watermark | None, new: Watermark, *, has_events: bool, now: float) -> bool:
        if last is None or (last.field_set, last.snapshot_done) != (new.field_set, new.snapshot_done):
            return True
        return last.position != new.position and (has_events or now - self._watermark_at >= WATERMARK_EVERY_S)

    # --- failures -------------------------------------------------------------------------------------------------

    def _fail(self, fault: SourceFault) -> None:
        memory = self._memory
        if fault.next is Next.SNAPSHOT and memory is not None:
            memory.position, memory.snapshot_done = "", False
            self._lost_positions += 1
            log.warning("capture.position_lost", entity=self._subject.key, code=fault.code, detail=str(fault))
            pause_s = retry_delay(self._lost_positions, base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
            self._wait(PositionExpired.code, pause_s)
            return
        if fault.next is Next.STOP:
            if self._reason != fault.code:
                log.error("capture.stopped", entity=self._subject.key, code=fault.code, detail=str(fault))
            self._state = State.STOPPED
            self._reason = fault.code
            self._wait_until = self._clock.monotonic() + STOPPED_RETRY_S
            return
        self._failures += 1
        pause_s = retry_delay(self._failures, base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S, retry_after_s=fault.retry_after_s)
        log.warning("capture.waiting", entity=self._subject.key, code=fault.code, detail=str(fault), retry_in_s=pause_s)
        self._wait(fault.code, pause_s)

    def _wait(self, code: str, pause_s: float) -> None:
        self._state = State.WAITING
        self._reason = code
        self._wait_until = self._clock.monotonic() + pause_s

    def _stop(self, fault: MassDelete) -> None:
        log.error("capture.stopped", entity=self._subject.key, code=fault.code, detail=fault.message)
        self._state = State.STOPPED
        self._reason = fault.code
        self._sweep_at = -math.inf  # once confirmed


_TIMES = (
    "last_poll_began_at",
    "last_poll_finished_at",
    "last_empty_poll_began_at",
    "last_empty_sweep_began_at",
    "last_event_at",
)


def _seconds(value: float) -> float | None:
    """For JSON, which has no infinity."""
    return None if value == math.inf else round(value, 3)
