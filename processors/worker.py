"""One process of route and decide: started, watched, drained and ended.

The process ends with an exception, and so with an exit code other than 0, when anything in it failed: nothing of what
was under way is acknowledged then, and the next process begins with it again.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import structlog
from faust.types import TP

from drawbar.bus.clients import wait_for_broker
from drawbar.ports import OutMessage
from drawbar.settings import Settings
from drawbar.tracing import open_traces
from processors.agents import Decide, Intake, Position, Pulse, Route, to_in_message
from processors.app import Processors, end_stuck_recovery, make_app
from processors.brakes import Brakes, Limits
from processors.coupling import Fingerprints
from processors.feed import Seen, ViewFeed
from processors.mapping import EntityMapping
from processors.react import World
from processors.release import Releaser, Waiting, may_wait, standing_of
from processors.route import changes_topics, routes_of
from processors.tables import LetterPositions, Outbox
from processors.view import ReferenceView
from schemas.brakes import told
from schemas.codec import from_json
from schemas.coupling import Row
from schemas.errors import MassUpdate
from schemas.topics import COUPLINGS, STATUS

STOP_TIMEOUT_S = 15.0  # how long the end may take before the process ends without leaving its group
TICK_S = 1.0
RECOVERY_STANDS_STILL_S = 20.0  # a recovery that makes no progress for so long will make none
# The loop, Faust's consumer, the producer and the view take turns: at Python's 5 ms each answer of a broker would wait
# that long for a loop that is deciding.
SWITCH_INTERVAL_S = 0.0005
# Rows and messages are many, live long and hold no cycles: at Python's (700, 10, 10) the search for cycles among them
# takes a tenth to a third of the processor time.
GC_THRESHOLDS = (50_000, 20, 20)

log = structlog.get_logger(__name__)


def run_process(settings: Settings, mappings: Mapping[str, EntityMapping], *, mappings_version: str = "") -> None:
    """Route and decide until SIGTERM or SIGINT. Returns after a drained stop.

    Raises what ended it otherwise: BusUnavailable, TopicMismatch, or whatever a fault in the code raises.
    """
    for noisy in ("faust", "mode", "aiokafka", "kafka"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    wait_for_broker(
        settings.bus.bootstrap_servers,
        settings.bus.extra,
        on_wait=lambda waited_s: log.warning("process.waits_for_broker", waited_s=round(waited_s)),
    )
    worker: list[_Worker] = []

    async def main() -> None:
        worker.append(_Worker(settings, mappings, mappings_version))
        await worker[0].run()

    try:
        asyncio.run(main())
    finally:
        if worker and worker[0].hangs:
            # Faust's threads are no daemons: they would keep the interpreter from ending.
            log.error("process.ended_hard", after_s=STOP_TIMEOUT_S)
            logging.shutdown()
            os._exit(1)


def _now() -> datetime:
    return datetime.now(timezone.utc)


class StandsStill:
    """Whether something that should move has not moved for a while. Pure: the time is an argument."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._last: object = None
        self._since = 0.0

    def sees(self, progress: object, now: float) -> bool:
        """Take note of how far it has come; True when that is where it was `limit_s` ago."""
        if progress != self._last:
            self._last, self._since = progress, now
        return now - self._since >= self._limit_s


class Holding:
    """By which assignment this process has its partitions. Pure.

    Faust ends a recovery that was begun for partitions that have been given back since, and says so as for any other.
    """

    def __init__(self) -> None:
        self._revoked = 0
        self._assigned = -1

    def revoked(self) -> None:
        self._revoked += 1

    def assigned(self) -> None:
        self._assigned = self._revoked

    def current(self) -> int | None:
        """The number of the assignment in force; None: the partitions were given back since the last one."""
        return self._assigned if self._assigned == self._revoked else None


class _Worker:
    """Everything one process consists of. Made inside the running event loop."""

    def __init__(self, settings: Settings, mappings: Mapping[str, EntityMapping], mappings_version: str) -> None:
        self._settings = settings
        self._mappings_version = mappings_version
        self._mappings = mappings
        self._host = socket.gethostname()
        self._name = f"process {os.getpid()} on {self._host}"
        self._client_id = f"{settings.bus.group_prefix}-process-{self._host}-{os.getpid()}"
        limits = Limits(
            share=settings.brakes.share,
            at_least=settings.brakes.at_least,
            window=timedelta(seconds=settings.brakes.window_s),
        )
        self._brakes = Brakes(observing=settings.observe, limits=limits)
        view = ReferenceView(mappings.values(), company_id=settings.erp.company_id)
        self._view = view
        world = World(
            mappings=mappings,
            view=view,
            prints=Fingerprints.of_key(settings.fingerprint_key.get_secret_value()),
            company_id=settings.erp.company_id,
            brakes=self._brakes,
        )
        routes = routes_of(mappings.values())
        self._processors: Processors = make_app(settings, changes_topics(routes))
        self._app = self._processors.app
        self._table = self._processors.table
        self._outbox = Outbox(settings.bus, client_id=self._client_id)
        self._table.outbox = self._outbox
        self._letters = LetterPositions()
        self._traces = open_traces(settings.traces, "process")
        self._waiting = Waiting(command_timeout_s=settings.decide.command_timeout_s)
        self._releaser = Releaser(
            self._waiting,
            self._outbox,
            view,
            mappings,
            per_s=settings.decide.release_per_s,
            brakes=self._brakes,
            clock=_now,
        )
        self._pulse = Pulse(limit_s=settings.decide.session_timeout_s * 0.8)
        self._feed = ViewFeed(settings.bus, client_id=f"{self._client_id}-view", on_seen=self._see)
        self._route = Route(routes, self._outbox, self._acknowledge, _now, self._traces)
        self._decide = Decide(
            world,
            self._table,
            self._outbox,
            self._waiting,
            self._releaser,
            self._letters,
            self._feed,
            self._acknowledge,
            self._pulse,
            _now,
            name=self._name,
            traces=self._traces,
        )
        batch = settings.decide.batch_size
        self._intakes = {
            "changes": Intake(self._route, batch_size=batch),
            "work": Intake(self._decide, batch_size=batch),
        }
        self._state = "starting"
        self._partitions: Sequence[int] = ()
        self._holding = Holding()
        self._owned = False  # the rows of our partitions are here, and the index of what they wait for
        self._stop = asyncio.Event()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []
        self.hangs = False

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._connect()
        log.info("process.started", pid=os.getpid(), group=self._app.conf.id)
        try:
            await self._watch_until_stopped()
        finally:
            await self._end()
        log.info("process.stopped", pid=os.getpid(), messages=self._messages)

    # --- the course of a process ------------------------------------------------------------------------------

    async def _watch_until_stopped(self) -> None:
        self._spawn(self._pulse.run())
        self._spawn(self._beat())
        self._feed.start()
        self._spawn(self._feed.failed())
        for intake in self._intakes.values():
            self._spawn(intake.run())
        self._spawn(self._releaser.run())
        self._spawn(self._tick())
        self._spawn(self._app.start())  # returns when the first recovery is done
        self._spawn(end_stuck_recovery(self._app, self._feed))
        self._spawn(self._watch_recovery())
        self._spawn(self._watch_faust())
        stopping: asyncio.Future[Any] = asyncio.ensure_future(self._stop.wait())
        failed: asyncio.Future[Any] = self._failed
        try:
            await asyncio.wait({stopping, failed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if failed.done():
            failed.result()
        self._state = "draining"
        await asyncio.wait_for(self._shut(), STOP_TIMEOUT_S)

    async def _end(self) -> None:
        """Leave the group and stop every thread. What is under way and not acknowledged is begun again elsewhere."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            if self._app.started:
                await asyncio.wait_for(self._app.stop(), STOP_TIMEOUT_S)
            await self._feed.stop()
        except Exception as fault:  # noqa: BLE001 - it ends in any case; what ended it first is already on its way
            log.warning("process.stop_failed", error=type(fault).__name__)
            self.hangs = True
        if not self._failed.done():
            self._failed.cancel()
        await asyncio.to_thread(self._outbox.close)
        await asyncio.to_thread(self._traces.close)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.append(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            self._fail(fault)

    def _fail(self, fault: BaseException) -> None:
        if not self._failed.done():
            log.error("process.failed", error=type(fault).__name__, reason=str(fault))
            self._failed.set_exception(fault)

    # --- what Faust tells us ----------------------------------------------------------------------------------

    def _connect(self) -> None:
        app = self._app
        app.on_partitions_revoked.connect(self._revoked)
        app.on_partitions_assigned.connect(self._assigned)
        self._table.on_recover(self._recovered)
        app.agent(self._processors.work, name="decide")(self._taker("work"))
        if self._processors.changes is not None:
            app.agent(self._processors.changes, name="route")(self._taker("changes"))

    def _taker(self, name: str) -> Any:
        intake = self._intakes[name]

        async def take(stream: Any) -> None:
            async for event in stream.noack().events():
                await intake.offer(to_in_message(event.message))

        return take

    async def _revoked(self, _app: Any, _revoked: Any, **_: Any) -> None:
        """Finish what is under way, while the partitions are still ours to acknowledge."""
        self._holding.revoked()
        await self._shut()

    async def _shut(self) -> None:
        self._owned = False
        self._releaser.clear()
        await asyncio.gather(*(intake.shut() for intake in self._intakes.values()))
        self._feed.follow()

    async def _assigned(self, _app: Any, assigned: Any, **_: Any) -> None:
        self._partitions = sorted(tp.partition for tp in assigned if tp.topic == self._processors.work.get_topic_name())
        self._holding.assigned()
        self._state = "recovering"
        log.info("process.assigned", partitions=list(self._partitions))

    async def _watch_recovery(self) -> None:
        """Faust's recovery can be forgotten when the group is shared out anew while it runs. Nothing is lost by ending
        the process: what it has not acknowledged begins anew with the next one.
        """
        still = StandsStill(RECOVERY_STANDS_STILL_S)
        while True:
            await asyncio.sleep(TICK_S)
            offsets = self._app.tables.recovery.active_offsets
            progress = (self._state, sum(offset for offset in offsets.values() if offset is not None), self._feed.lag)
            if still.sees(progress, time.monotonic()) and self._state == "recovering":
                raise RuntimeError(f"the recovery of the rows stood still for {RECOVERY_STANDS_STILL_S:g} s")

    async def _recovered(self) -> None:
        """The rows of our partitions are here: from now on messages may come."""
        try:
            await self._take_over()
        except Exception as fault:  # noqa: BLE001 - Faust would drop it: the process ends with it
            self._fail(fault)

    async def _take_over(self) -> None:
        holding = self._holding.current()

        def is_over() -> bool:
            """Whether the partitions are given back already; the feed reads them again then."""
            return self._stop.is_set() or holding is None or holding != self._holding.current()

        if is_over():
            return

        # The view has these rows by another way, from the topic or from this process when it wrote them: should the
        # recovery have missed one, this process ends rather than decide on an old one.
        ends = {tp.partition: high + 1 for tp, high in self._app.tables.recovery.active_highwaters.items()}
        await self._feed.caught_up()
        await self._feed.reached(ends)
        differing = self._feed.differing(self._table.texts(), ends)
        if is_over():
            return
        if differing:
            raise RuntimeError(f"{differing} recovered rows are not those of topic {COUPLINGS}")
        await self._feed.leave(ends)
        if is_over():
            return
        self._waiting.clear()
        now = _now()
        for number, (key, text) in enumerate(self._table.texts()):
            if number % 1000 == 0:
                await asyncio.sleep(0)
                if is_over():
                    return
            if may_wait(text):
                self._waiting.put(key, standing_of(from_json(Row, text), self._table.partition_of(key)), now=now)
        self._owned = True
        self._releaser.look_around()
        for intake in self._intakes.values():
            intake.open()
        self._state = "running"

    async def _acknowledge(self, positions: Mapping[Position, int]) -> bool:
        """False: they have another owner. Raises nothing by itself: a commit that fails for another reason ends Faust's
        consumer. Faust leaves out what is not assigned any more, and calls that a success.
        """
        assigned = self._app.consumer.assignment()
        if any(TP(topic, partition) not in assigned for topic, partition in positions):
            return False
        offsets = {TP(topic, partition): offset for (topic, partition), offset in positions.items()}
        return bool(await self._app.consumer._commit(offsets))  # noqa: SLF001 - its public one knows Faust's acks only

    async def _watch_faust(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            if self._app.crashed:
                reason = self._app.crash_reason
                raise reason if isinstance(reason, Exception) else RuntimeError("Faust ended")

    # --- view, timers, heartbeat ------------------------------------------------------------------------------

    def _see(self, seen: Seen) -> None:
        now = _now()
        for row in seen.rows:
            self._brakes.note(row, now=now)
            self._releaser.take_row(row, owned=self._owned)
        for key, brake in seen.brakes:
            if self._brakes.take(key, brake) and brake.is_automatic and brake.by == self._name:
                log.error("process.stopped_writing", brake=key, code=brake.code, next_step=MassUpdate.next_step)
        if seen.brakes_position >= 0:
            self._decide.read_brakes_to(seen.brakes_position)
        for letter, headers in seen.letters:
            if letter.offset >= 0:
                self._letters.note(letter, letter.partition, letter.offset, headers=headers)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if self._owned:
                self._releaser.look_at_the_clock()

    def _coupled(self) -> Mapping[str, int]:
        """The coupled records of each mapping."""
        return {name: self._view.coupled_count(name) for name in self._mappings}

    @property
    def _messages(self) -> int:
        return self._decide.messages

    async def _beat(self) -> None:
        key = f"process:{self._host}:{os.getpid()}".encode()
        before, before_at = 0, time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now, at = _now(), time.monotonic()
            figures = self._waiting.figures(now)
            last = self._decide.last_outcome_at
            beat = {
                "stage": "process",
                "pid": os.getpid(),
                "host": self._host,
                "at": now.isoformat(),
                "state": self._state,
                "mappings": self._mappings_version,
                "partitions": list(self._partitions),
                "in_flight": figures.in_flight,
                "claiming": figures.claiming,
                "deferred": figures.deferred,
                "waiting": figures.waiting,
                "releases_due": self._releaser.due_count,
                "released": self._releaser.released,
                "unanswered": figures.unanswered,
                "unanswered_since": figures.unanswered_since.isoformat() if figures.unanswered_since else None,
                "oldest_in_flight_s": round(figures.oldest_in_flight_s, 1),
                "view_rows": self._feed.rows,
                "view_lag": self._feed.lag,
                "company_known": self._view.company_crm_id is not None,
                "observing": self._settings.observe,
                "brakes": [told(key, brake) for key, brake in self._brakes.all_on()],
                "brakes_position": self._decide.brakes_position,
                "kept_back": figures.kept_back,
                "changed_lately": self._brakes.figures(self._coupled(), now=now),
                "messages": self._messages,
                "routed": self._route.messages,
                "decided_per_s": round((self._messages - before) / (at - before_at), 1),
                "last_outcome_at": last.isoformat() if last is not None else None,
            }
            before, before_at = self._messages, at
            await self._outbox.send([OutMessage(topic=STATUS, key=key, value=json.dumps(beat).encode())])
