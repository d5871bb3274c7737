"""Keep a group of processes running: start them, start again what dies, end them in order.

The rules of when to start what are the pure part, `Life` and the functions on it; `Supervisor` has the processes. Each
child leads a process group of its own, so that a Ctrl-C in the terminal reaches only us, and is killed when we end
without saying goodbye (`tether.py`; create and run a Supervisor in a thread that lives as long as the children).
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from drawbar.bus.tether import tethered

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 5.0
CALM_AFTER_S = 30.0  # a child that lived this long has got over what it died of before
FINAL_EXIT_CODES = frozenset({2})  # settings or mapping wrong: starting again cannot help
LOOK_EVERY_S = 0.05
DRAIN_S = 15.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The child runs. `delay_s` is how long it stays down if it dies now."""

    since: float
    delay_s: float = FIRST_DELAY_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """The child died and is to be started at `at`."""

    at: float
    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GaveUp:
    """The child ended with an exit code that says: do not start me again."""

    exit_code: int


Life = Running | Due | GaveUp


def after_exit(life: Running, exit_code: int, now: float) -> Due | GaveUp:
    """What follows when a running child ends, with whatever exit code (negative: a signal).

    It is down for 0.2 s, doubling with each death up to 5 s; 30 s alive begin anew.
    """
    if exit_code in FINAL_EXIT_CODES:
        return GaveUp(exit_code=exit_code)
    delay_s = FIRST_DELAY_S if now - life.since >= CALM_AFTER_S else life.delay_s
    return Due(at=now + delay_s, delay_s=delay_s)


def after_start(life: Due, now: float) -> Running:
    """What follows when a child that was due has been started."""
    return Running(since=now, delay_s=min(life.delay_s * 2, LONGEST_DELAY_S))


def to_start(lives: Iterable[Life], now: float) -> list[int]:
    """The places in `lives` of those that are to be started now."""
    return [place for place, life in enumerate(lives) if isinstance(life, Due) and life.at <= now]


def in_stop_order(stages: Iterable[str], order: Sequence[str]) -> list[str]:
    """Each stage once: those in `order` first, then the others, the one added last first."""
    added = list(dict.fromkeys(stages))
    named = [stage for stage in order if stage in added]
    return named + [stage for stage in reversed(added) if stage not in named]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """One process to keep. Several may have the same stage.

    `ready_file` is made by the child once it does its work; it is removed before each start.
    """

    stage: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log_path: Path
    ready_file: Path | None = None


@dataclass(slots=True, kw_only=True)
class _Child:
    spec: ChildSpec
    life: Life
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def running(self) -> bool:
        return isinstance(self.life, Running)

    @property
    def ready(self) -> bool:
        return self.running and (self.spec.ready_file is None or self.spec.ready_file.exists())


class Supervisor:
    """The processes. `add` starts one, `run` keeps them until asked to stop, then ends them.

    `on_change` is called with the pids of all running children, by stage, each time one was started or has died.
    """

    def __init__(
        self,
        *,
        stop_order: Sequence[str] = (),
        drain_s: float = DRAIN_S,
        on_change: Callable[[dict[str, list[int]]], None] = lambda _pids: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stop_order = tuple(stop_order)
        self._drain_s = drain_s
        self._on_change = on_change
        self._clock = clock
        self._children: list[_Child] = []
        self._stop_asked = threading.Event()
        self._kill_asked = threading.Event()

    @property
    def pids(self) -> dict[str, list[int]]:
        """The running children; a stage none of which runs has an empty list."""
        by_stage: dict[str, list[int]] = {}
        for child in self._children:
            running = by_stage.setdefault(child.spec.stage, [])
            if child.running and child.process is not None:
                running.append(child.process.pid)
        return by_stage

    @property
    def ready(self) -> bool:
        """Whether every child runs and has made its ready file."""
        return all(child.ready for child in self._children)

    @property
    def gave_up(self) -> dict[str, int]:
        """The stages of which a child ended with an exit code that says not to start it again, with that code."""
        return {child.spec.stage: child.life.exit_code for child in self._children if isinstance(child.life, GaveUp)}

    @property
    def stopping(self) -> bool:
        return self._stop_asked.is_set()

    def add(self, *specs: ChildSpec) -> None:
        """Start children and keep them from now on."""
        for spec in specs:
            child = _Child(spec=spec, life=Running(since=self._clock()))
            child.process = _start(spec)
            self._children.append(child)
        self._on_change(self.pids)

    def tick(self) -> None:
        """See who died and start who is due. For a caller with a loop of its own; `run` does it by itself."""
        now = self._clock()
        changed = self._bury(now)
        for place in to_start([child.life for child in self._children], now):
            child = self._children[place]
            if isinstance(child.life, Due):
                child.process = _start(child.spec)
                child.life = after_start(child.life, now)
                changed = True
        if changed:
            self._on_change(self.pids)

    def run(self, *, on_ready: Callable[[], None] = lambda: None) -> int:
        """Keep the children until `ask_to_stop`, or until one gives up; then end all. The exit code: 0, or that one's.

        `on_ready` is called once, when every child has become ready.
        """
        told = False
        try:
            while not self._stop_asked.wait(LOOK_EVERY_S):
                self.tick()
                if gave_up := self.gave_up:
                    return next(iter(gave_up.values()))
                if not told and self.ready:
                    told = True
                    on_ready()
            return 0
        finally:
            self.stop()

    def ask_to_stop(self) -> None:
        """Have `run` end the children and return; asked twice, they are killed at once. Safe in a signal handler."""
        if self._stop_asked.is_set():
            self._kill_asked.set()
        self._stop_asked.set()

    def stop(self) -> None:
        """End all children, stage by stage: SIGTERM, `drain_s` to finish, then SIGKILL. Nothing is started again."""
        self._stop_asked.set()
        for stage in in_stop_order((child.spec.stage for child in self._children), self._stop_order):
            children = [child for child in self._children if child.spec.stage == stage]
            for child in children:
                if child.process is not None and child.process.poll() is None:
                    child.process.terminate()
            deadline = self._clock() + self._drain_s
            for child in children:
                self._end(child, deadline)
        self._on_change(self.pids)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Within it SIGTERM and SIGINT ask to stop. Main thread only, as Python has it."""

        def heard(_signal: int, _frame: object) -> None:
            self.ask_to_stop()

        before = {number: signal.signal(number, heard) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _bury(self, now: float) -> bool:
        """Note who died since the last look; whether anybody did."""
        changed = False
        for child in self._children:
            if not isinstance(child.life, Running) or child.process is None:
                continue
            exit_code = child.process.poll()
            if exit_code is None:
                continue
            _kill_group(child.process)  # what it had started itself
            ran_s = now - child.life.since
            child.life = after_exit(child.life, exit_code, now)
            say = log.error if isinstance(child.life, GaveUp) else log.warning
            say(
                "supervisor.child_gave_up" if isinstance(child.life, GaveUp) else "supervisor.child_died",
                child=child.spec.stage,
                pid=child.process.pid,
                exit_code=exit_code,
                ran_s=round(ran_s, 1),
                log=str(child.spec.log_path),
            )
            changed = True
        return changed

    def _end(self, child: _Child, deadline: float) -> None:
        process = child.process
        if process is None:
            return
        while process.poll() is None:
            if self._clock() >= deadline or self._kill_asked.is_set():
                log.warning("supervisor.child_killed", child=child.spec.stage, pid=process.pid)
                break
            self._kill_asked.wait(LOOK_EVERY_S)
        _kill_group(process)
        process.wait()
        if isinstance(child.life, Running):
            child.life = Due(at=float("inf"), delay_s=FIRST_DELAY_S)  # down for good


def _start(spec: ChildSpec) -> subprocess.Popen[bytes]:
    if spec.ready_file is not None:
        spec.ready_file.unlink(missing_ok=True)
    spec.log_path.parent.mkdir(parents=True, exist_ok=True)
    with spec.log_path.open("ab") as output:
        process = subprocess.Popen(
            tethered(spec.argv),
            env=dict(spec.env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    log.info("supervisor.child_started", child=spec.stage, pid=process.pid)
    return process


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):  # PermissionError: how macOS says that only a zombie is left
        os.killpg(process.pid, signal.SIGKILL)
