"""The rules of the supervisor without processes, then the supervisor with small ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drawbar.bus.supervisor import (
    CALM_AFTER_S,
    FIRST_DELAY_S,
    LONGEST_DELAY_S,
    ChildSpec,
    Due,
    GaveUp,
    Running,
    Supervisor,
    after_exit,
    after_start,
    in_stop_order,
    to_start,
)
from tests.kafka_fixture import until


class TestAfterExit:
    def test_starts_again_after_a_first_short_wait(self):
        """A child that dies once is back at once, as far as people can tell."""
        assert Due(at=10.2, delay_s=0.2) == after_exit(Running(since=9.0), -signal.SIGKILL, 10.0)

    def test_waits_twice_as_long_each_time_up_to_a_cap(self):
        """What dies at each start does not keep the machine busy."""
        life, waits = Running(since=0.0), []
        for _ in range(8):
            due = after_exit(life, 1, life.since + 1)
            waits.append(due.delay_s)
            life = after_start(due, due.at)

        assert [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0] == waits

    def test_forgets_earlier_deaths_after_a_calm_time(self):
        """A child that ran well is not punished for how it began."""
        life = Running(since=0.0, delay_s=LONGEST_DELAY_S)

        assert Due(at=CALM_AFTER_S + FIRST_DELAY_S, delay_s=FIRST_DELAY_S) == after_exit(life, 1, CALM_AFTER_S)

    def test_gives_up_on_wrong_settings(self):
        """Exit code 2 says that settings or mapping are wrong: no start will mend that."""
        assert GaveUp(exit_code=2) == after_exit(Running(since=0.0), 2, 1.0)

    @given(st.lists(st.tuples(st.floats(0, 100), st.sampled_from([0, 1, -9, -15, 137])), max_size=30))
    def test_never_waits_longer_than_the_cap(self, history):
        """Whatever the history, the next start is within 5 s."""
        life, now = Running(since=0.0), 0.0
        for ran_s, exit_code in history:
            now += ran_s
            due = after_exit(life, exit_code, now)

            assert FIRST_DELAY_S <= due.delay_s <= LONGEST_DELAY_S
            assert now + due.delay_s == due.at

            now = due.at
            life = after_start(due, now)


class TestToStart:
    def test_names_those_whose_time_has_come(self):
        """Running ones, later ones and those that gave up are left alone."""
        lives = [Running(since=0), Due(at=5, delay_s=1), Due(at=6, delay_s=1), GaveUp(exit_code=2)]

        assert [1] == to_start(lives, 5.5)


class TestInStopOrder:
    def test_follows_the_order_given_and_then_ends_the_oldest_last(self):
        """What others stand on, and so was started first, is ended last."""
        assert ["capture", "sink", "process", "bus"] == in_stop_order(
            ["bus", "process", "sink", "sink", "capture"], ["capture", "nobody", "sink"]
        )


OBEDIENT = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + OBEDIENT
TIDY = (
    "import pathlib, signal, sys, time\n"
    "def end(*_):\n"
    "    with open(sys.argv[2], 'a') as file: file.write(sys.argv[3] + '\\n')\n"
    "    sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, end)\n"
    "pathlib.Path(sys.argv[1]).touch()\n"
    "time.sleep(60)\n"
)
PARENT = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid, flush=True); " + OBEDIENT


def a_child(tmp_path: Path, program: str, *arguments: str, stage: str = "sink") -> ChildSpec:
    ready = tmp_path / f"{stage}.ready"
    return ChildSpec(
        stage=stage,
        argv=(sys.executable, "-I", "-S", "-c", program, str(ready), *arguments),
        env=dict(os.environ),
        log_path=tmp_path / f"{stage}.log",
        ready_file=ready,
    )


@contextmanager
def running(supervisor: Supervisor) -> Iterator[Callable[[], int]]:
    """`supervisor.run` in a thread; yields a way to join it and have its exit code."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(supervisor.run()))
    thread.start()

    def join() -> int:
        thread.join(20)
        return codes[0]

    try:
        yield join
    finally:
        supervisor.ask_to_stop()
        supervisor.ask_to_stop()
        thread.join(20)


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()[0] != "Z"
    return False


class TestSupervisor:
    def test_starts_again_what_was_killed(self, tmp_path):
        """A `kill -9` of a child costs less than a second and is told, with the new pid."""
        told: list[dict[str, list[int]]] = []
        supervisor = Supervisor(on_change=told.append)
        supervisor.add(a_child(tmp_path, OBEDIENT))
        with running(supervisor):
            until(lambda: supervisor.ready, "the child is ready")
            (first,) = supervisor.pids["sink"]

            os.kill(first, signal.SIGKILL)
            until(lambda: supervisor.ready and supervisor.pids["sink"] not in ([], [first]), "another child is ready")

            (second,) = supervisor.pids["sink"]
            assert [{"sink": [first]}, {"sink": []}, {"sink": [second]}] == told

    def test_leaves_nothing_behind_of_a_child_that_was_killed(self, tmp_path):
        """What a child had started itself ends with it."""
        supervisor = Supervisor()
        supervisor.add(a_child(tmp_path, PARENT))
        with running(supervisor):
            until(lambda: supervisor.ready, "the child is ready")
            grandchild = int((tmp_path / "sink.log").read_text().split()[0])
            assert alive(grandchild)

            os.kill(supervisor.pids["sink"][0], signal.SIGKILL)

            until(lambda: not alive(grandchild), "the grandchild is gone")

    def test_stops_in_order_and_lets_each_finish(self, tmp_path):
        """Capture ends before sinks do, so that what it caused can still be written."""
        diary = tmp_path / "diary"
        supervisor = Supervisor(stop_order=["capture", "sink"])
        supervisor.add(
            a_child(tmp_path, TIDY, str(diary), "bus", stage="bus"),
            a_child(tmp_path, TIDY, str(diary), "sink", stage="sink"),
            a_child(tmp_path, TIDY, str(diary), "capture", stage="capture"),
        )
        with running(supervisor) as join:
            until(lambda: supervisor.ready, "all are ready")

            supervisor.ask_to_stop()

            assert join() == 0
        assert ["capture", "sink", "bus"] == diary.read_text().split()
        assert {"bus": [], "sink": [], "capture": []} == supervisor.pids

    def test_kills_what_does_not_finish_in_time(self, tmp_path):
        """A child that hears no SIGTERM does not keep the others from ending."""
        supervisor = Supervisor(drain_s=0.2)
        supervisor.add(a_child(tmp_path, DEAF))
        with running(supervisor) as join:
            until(lambda: supervisor.ready, "the child is ready")
            (pid,) = supervisor.pids["sink"]

            supervisor.ask_to_stop()

            assert join() == 0
            assert not alive(pid)

    def test_kills_at_once_when_asked_twice(self, tmp_path):
        """A second Ctrl-C means now."""
        supervisor = Supervisor(drain_s=60)
        supervisor.add(a_child(tmp_path, DEAF))
        with running(supervisor) as join:
            until(lambda: supervisor.ready, "the child is ready")

            supervisor.ask_to_stop()
            supervisor.ask_to_stop()

            assert join() == 0

    def test_ends_all_when_one_gives_up(self, tmp_path):
        """Wrong settings end the whole group with their exit code."""
        supervisor = Supervisor()
        supervisor.add(
            a_child(tmp_path, OBEDIENT, stage="bus"), a_child(tmp_path, "import sys; sys.exit(2)", stage="sink")
        )
        with running(supervisor) as join:
            assert join() == 2
        assert {"bus": [], "sink": []} == supervisor.pids

    def test_keeps_a_program_that_cannot_be_started_waiting(self, tmp_path):
        """A command that is not there is tried again with growing waits, and says why in its log."""
        child = a_child(tmp_path, OBEDIENT)
        supervisor = Supervisor()
        supervisor.add(ChildSpec(stage="sink", argv=("/no/such/program",), env=child.env, log_path=child.log_path))
        with running(supervisor):
            until(lambda: child.log_path.read_text().count("FileNotFoundError") >= 2, "it was tried twice")

    @pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
    def test_its_children_end_with_it(self, tmp_path, ending):
        """However the supervising process ends, nothing is left running."""
        program = (
            "import os, sys\n"
            "from pathlib import Path\n"
            "from drawbar.bus.supervisor import ChildSpec, Supervisor\n"
            "supervisor = Supervisor(drain_s=5)\n"
            "with supervisor.on_signals():\n"
            "    supervisor.add(ChildSpec(stage='sink', argv=('sleep', '60'), env=dict(os.environ),\n"
            "                             log_path=Path(sys.argv[1])))\n"
            "    Path(sys.argv[2]).write_text(str(supervisor.pids['sink'][0]))\n"
            "    sys.exit(supervisor.run())\n"
        )
        pid_file = tmp_path / "pid"
        parent = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "log"), str(pid_file)], stdout=subprocess.DEVNULL
        )
        try:
            until(lambda: pid_file.exists() and pid_file.read_text() != "", "the child was started")
            pid = int(pid_file.read_text())
            until(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", "the child became the command")

            parent.send_signal(ending)

            assert (0 if ending == signal.SIGTERM else -9) == parent.wait(20)
            until(lambda: not alive(pid), "the child is gone")
        finally:
            parent.kill()
            parent.wait()
