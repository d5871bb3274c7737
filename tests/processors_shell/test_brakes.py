"""Brakes on a real Apache Kafka with workers as processes: what is held, when it is sure, and what counts."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

import pytest

from drawbar.brakes import await_confirmed, read_brakes, set_brakes
from processors.brakes import let_through
from schemas.brakes import ALL, Brake
from tests.processors_shell.given import CUSTOMER, a_change, an_id
from tests.processors_shell.running import PARTITIONS, Running, Sink, eventually

pytestmark = pytest.mark.kafka

TO_CRM = f"{CUSTOMER.name}:to_crm"


def brake(running: Running, key: str, *, on: bool) -> None:
    """Set it and return once every process keeps to it."""
    now = datetime.now(timezone.utc)
    offset = set_brakes(running.settings.bus, {key: Brake(on=on, by="ann", at=now)})
    assert await_confirmed(running.settings.bus, offset) == 2


def two_workers(running: Running) -> None:
    workers = running.start(), running.start()
    running.await_running(*workers, share=PARTITIONS // 2)


def customers(running: Running, count: int, *, order: int = 1, first: int = 0, **after: str) -> None:
    running.changes(a_change(an_id(number), order=order, **after) for number in range(first, first + count))


def kept_back(running: Running) -> int:
    return sum(bool(row.pair and row.pair.kept_back) for row, _ in running.rows().values())


def in_step(running: Running) -> int:
    return sum(bool(row.pair and row.pair.in_step and not row.pair.in_flight) for row, _ in running.rows().values())


def said_brakes(running: Running) -> list[str]:
    """The codes of the brakes that are on, by the word of each process."""
    beats = running.beats()
    return [one["code"] for worker in running.workers for one in beats[worker.pid]["brakes"]]


def with_phone(sink: Sink, phone: str) -> int:
    return sum(state.get("telephone1") == phone for state in sink.held.values())


class TestAPause:
    def test_is_sure_once_it_is_confirmed(self, running: Running):
        """Set in the middle of a load: what has not left when every process confirmed does not leave at all."""
        two_workers(running)
        customers(running, made := 500)
        eventually(lambda: len(running.commands()) > 100, "commands are leaving")
        with ThreadPoolExecutor(1) as other:
            setting = other.submit(brake, running, TO_CRM, on=True)
            while not setting.done():
                customers(running, 100, first=made)
                made += 100
            setting.result()
        left = len(running.commands())
        customers(running, 100, first=made)
        made += 100

        eventually(lambda: left + kept_back(running) == made, "all are decided")
        assert left == len(running.commands())

    def test_holds_over_a_kill_of_all_and_loses_nothing(self, running: Running):
        """Ten changes of each record, workers killed in between; then each is written once, as it is by then."""
        with running.sink() as sink:
            two_workers(running)
            brake(running, ALL, on=True)
            customers(running, 40)
            eventually(lambda: kept_back(running) == 40, "all creates are held")
            for worker in running.workers:
                running.end(worker, signal.SIGKILL)
            two_workers_again = running.start(), running.start()
            for order in range(2, 11):
                customers(running, 40, order=order, phoneNumber=str(order))
            running.await_running(*two_workers_again, share=PARTITIONS // 2)
            newest = {an_id(number): 10 for number in range(40)}
            eventually(lambda: newest == {row.id: row.pair.erp.order for row, _ in running.rows().values()}, "all came")
            assert [] == running.commands()

            brake(running, ALL, on=False)
            eventually(lambda: in_step(running) == 40, "all are in step")
        assert 40 == len(sink.taken)
        assert 40 == with_phone(sink, "10")


class TestTooManyChanges:
    def test_stop_the_direction_over_all_processes(self, running: Running):
        """A first synchronisation does not. A bad import does: the total of both processes counts, one alarm is given,
        nothing is lost, and what a person lets happen does not stop it again.
        """
        running.with_brakes(share=0.1, at_least=10)
        with running.sink() as sink:
            two_workers(running)
            customers(running, 200)
            eventually(lambda: in_step(running) == 200, "the first synchronisation is through")
            assert {} == read_brakes(running.settings.bus)

            for batch in range(10):
                running.changes(
                    a_change(an_id(number), order=2, phoneNumber="666") for number in range(batch * 20, batch * 20 + 20)
                )
            eventually(lambda: with_phone(sink, "666") + kept_back(running) == 200, "all are decided")
            stop = read_brakes(running.settings.bus)[TO_CRM]
            assert (True, "DRW-8001") == (stop.on, stop.code)
            assert 20 <= with_phone(sink, "666") <= 40  # both may decide up to the limit in the same moment
            eventually(lambda: said_brakes(running) == ["DRW-8001", "DRW-8001"], "both processes keep to it")

            now = datetime.now(timezone.utc)
            released = let_through(stop, by="ann", at=now, free_for=None)
            await_confirmed(running.settings.bus, set_brakes(running.settings.bus, {TO_CRM: released}))
            eventually(lambda: with_phone(sink, "666") == 200, "all went on")
            customers(running, 5, order=3, phoneNumber="777")
            eventually(lambda: with_phone(sink, "777") == 5, "others go on as well")
        assert not read_brakes(running.settings.bus)[TO_CRM].on
        logs = "".join(path.read_text() for path in sorted(running.folder.glob("worker-*.log")))
        assert 1 == logs.count("process.stopped_writing")
