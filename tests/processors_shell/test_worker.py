"""The rules under which Faust loses nothing, each seen on a real Apache Kafka with workers as processes."""

from __future__ import annotations

import signal

import pytest

from drawbar.bus.clients import make_producer, partition_for
from schemas.records import LetterState, Order, OrderKind, System, Work
from schemas.topics import COUPLINGS, DEAD_LETTERS, PAIRS_WORK
from tests.processors_shell.given import a_change, a_work, an_id
from tests.processors_shell.running import PARTITIONS, Running, by_id, eventually

pytestmark = pytest.mark.kafka


def salesperson(running: Running) -> None:
    """A salesperson JR and a CRM user that are not coupled."""
    user, seller = an_id(1, "systemuser"), an_id(1, "salesperson")
    running.changes(
        [
            a_change(seller, entity="salesperson", code="JR", email="jr@example.com"),
            a_change(user, entity="systemuser", system=System.CRM, internalemailaddress="jr@example.com"),
        ]
    )


def couple_salesperson(running: Running) -> None:
    user, seller = an_id(1, "systemuser"), an_id(1, "salesperson")
    order = Order(order_id="couple-1", kind=OrderKind.COUPLE, by="operator", erp_id=seller, crm_id=user)
    running.work([Work(message_id="couple-1", mapping="salesperson-systemuser", home=user, order=order)])


def settled(running: Running, count: int) -> bool:
    """All these customers are coupled, and nothing is under way."""
    pairs = [row.pair for key, (row, _) in running.rows().items() if key.startswith("customer-account:")]
    return sum(pair is not None and pair.state.value == "coupled" and pair.in_flight is None for pair in pairs) == count


class TestRowsAndAcknowledgement:
    def test_a_refused_row_ends_the_worker_unacknowledged(self, running):
        """A message whose row the broker refuses is not acknowledged; once rows are taken again nothing is missing."""
        running.limit_rows(600)
        worker = running.start()
        running.await_running(worker)
        running.work(a_work(a_change(an_id(number))) for number in range(20))

        assert worker.wait(30) != 0
        assert running.commands() == []

        running.limit_rows(1_000_000)
        again = running.start()
        running.await_running(again)
        eventually(lambda: len(by_id(running.commands())) == 20, "every customer led to a command")
        assert {an_id(number) for number in range(20)} == set(by_id(running.commands()))

    def test_each_row_lies_where_its_messages_are(self, running):
        """1,000 homes on two workers: row and message have one partition, and whoever starts next finds every row."""
        first, second = running.start(), running.start()
        running.await_running(first, second, share=PARTITIONS // 2)
        works = [a_work(a_change(an_id(number))) for number in range(1000)]
        running.work(works)
        eventually(lambda: len(by_id(running.commands())) == 1000, "every customer led to a command", timeout_s=60)

        assert {work.key: partition_for(work.key.encode(), PARTITIONS) for work in works} == {
            key: partition for key, (_, partition) in running.rows().items()
        }

        assert [running.end(first), running.end(second)] == [0, 0]
        third = running.start()
        running.await_running(third, share=PARTITIONS)
        assert running.beats()[third.pid]["in_flight"] == 1000

    def test_a_killed_worker_loses_and_doubles_nothing(self, running):
        """SIGKILL in the middle of batches, and again inside the recovery that follows: one command id per record."""
        with running.sink() as sink:
            worker = running.start()
            running.await_running(worker)
            running.changes(a_change(an_id(number)) for number in range(2000))
            eventually(lambda: len(sink.taken) > 200, "commands are leaving")
            running.end(worker, signal.SIGKILL)
            recovering = running.start()
            eventually(
                lambda: running.beats().get(recovering.pid, {}).get("state") in ("recovering", "running"),
                "the second worker recovers",
            )
            running.end(recovering, signal.SIGKILL)
            running.changes(a_change(an_id(number), order=2, displayName="New name") for number in range(0, 2000, 10))
            running.await_running(running.start(), running.start())
            eventually(lambda: settled(running, 2000), "all are coupled", timeout_s=90)
            eventually(
                lambda: sum(state.get("name") == "New name" for state in sink.held.values()) == 200,
                "every later change arrived",
                timeout_s=60,
            )

        creates = by_id([command for command in sink.taken if command.kind.value == "create"])
        assert {an_id(number) for number in range(2000)} == set(creates)
        assert {1} == {len(ids) for ids in creates.values()}

    def test_sigterm_drains_and_hands_over_at_once(self, running):
        """A worker that is asked to end finishes its batch, leaves the group, and the other goes on."""
        first, second = running.start(), running.start()
        running.await_running(first, second, share=PARTITIONS // 2)
        running.work(a_work(a_change(an_id(number))) for number in range(500))

        assert running.end(first) == 0
        running.await_running(second, share=PARTITIONS)
        eventually(lambda: len(by_id(running.commands())) == 500, "every customer led to a command")

    def test_a_worker_that_slept_through_its_session_writes_nothing(self, running):
        """A suspended worker has lost its partitions when it wakes up: it ends, and the other's rows stand."""
        sleeper, other = running.start(), running.start()
        running.await_running(sleeper, other, share=PARTITIONS // 2)
        sleeper.send_signal(signal.SIGSTOP)
        running.work(a_work(a_change(an_id(number))) for number in range(200))
        eventually(lambda: len(by_id(running.commands())) == 200, "the other took over", timeout_s=40)
        running.work(a_work(a_change(an_id(number), order=2)) for number in range(200))
        eventually(lambda: [line.event for line in running.lines()].count("parked") == 200, "both changes are decided")
        rows = running.rows()
        sleeper.send_signal(signal.SIGCONT)

        assert sleeper.wait(20) != 0
        assert rows == running.rows()

    def test_a_changelog_that_ends_in_no_row_is_recovered(self, running):
        """The last offset of a changelog partition may hold no row: a tombstone that compaction removed, or, as here,
        the end of a transaction.
        """
        worker = running.start()
        running.await_running(worker)
        running.work(a_work(a_change(an_id(number))) for number in range(50))
        eventually(lambda: len(running.rows()) == 50, "all rows are there")
        running.end(worker)
        writer = make_producer(running.bootstrap, client_id="test", extra={}, transactional_id="test")
        writer.init_transactions(30)
        writer.begin_transaction()
        for partition in range(PARTITIONS):
            writer.produce(COUPLINGS, key=b"customer-account:gone", value=None, partition=partition)
        writer.commit_transaction(30)

        again = running.start()
        running.await_running(again, share=PARTITIONS)
        assert running.beats()[again.pid]["in_flight"] == 50

    def test_nothing_is_lost_when_the_broker_goes_away(self, own_kafka, tmp_path):
        """A broker is killed and comes back: a worker that ended is started again, and every change arrives."""
        running = Running(own_kafka.bootstrap_servers, tmp_path)
        running.fresh_topics()
        try:
            with running.sink() as sink:
                running.await_running(running.start())
                running.changes(a_change(an_id(number)) for number in range(1000))
                eventually(lambda: len(sink.taken) > 100, "commands are leaving")
                own_kafka.kill()
                own_kafka.start_again()

                def arrived() -> bool:
                    if all(worker.poll() is not None for worker in running.workers):
                        running.start()
                    return settled(running, 1000)

                eventually(arrived, "all are coupled", timeout_s=90)
            assert {1} == {len(ids) for ids in by_id(sink.taken).values()}
        finally:
            running.end_all()


class TestDeadLetters:
    def test_undecodable_bytes_are_kept_and_their_neighbours_go_on(self, running):
        """Bytes that are no message become a dead letter, untouched, with their place; the next message is decided."""
        worker = running.start()
        running.await_running(worker)
        running.put(PAIRS_WORK, b"customer-account:x", b"\xff broken", headers=[("trace", b"1")])
        running.put("erp.customer.changes", b"y", b"\xff broken too")
        running.work([a_work(a_change(an_id(1))), a_work(a_change(an_id(2)), mapping="vendor-account")])
        eventually(lambda: len(running.index()) == 3, "three letters are open")
        eventually(lambda: len(running.commands()) == 1, "the neighbour is decided")

        letters = running.read(DEAD_LETTERS)
        assert {b"\xff broken", b"\xff broken too"} < {message.value() for message in letters}
        index = running.index().values()
        assert sorted(["DRW-3010", "DRW-3010", "DRW-3011"]) == sorted(letter.code for letter in index)
        by_offset = {message.offset(): dict(message.headers() or ()) for message in letters}
        assert all(by_offset[one.offset]["drawbar.letter-id"] == one.letter_id.encode() for one in index)
        (kept,) = [message for message in letters if message.value() == b"\xff broken"]
        headers = dict(kept.headers() or ())
        assert (b"customer-account:x", b"1", b"decide", PAIRS_WORK.encode()) == (
            kept.key(),
            headers["trace"],
            headers["drawbar.stage"],
            headers["drawbar.topic"],
        )

    def test_the_bytes_of_a_letter_are_found_after_it_is_closed(self, running):
        """An index line keeps the position of the bytes when another process closes the letter."""
        salesperson(running)
        worker = running.start()
        running.await_running(worker)
        eventually(lambda: running.beats()[worker.pid]["view_rows"] == 2, "both are known")
        running.changes([a_change(an_id(5), salespersonCode="JR")])
        eventually(lambda: len(running.index()) == 1, "a letter is open")
        (opened,) = running.index().values()
        running.end(worker)
        with running.sink():
            running.await_running(running.start())
            couple_salesperson(running)
            eventually(lambda: settled(running, 1), "the customer went on")

        (closed,) = running.index().values()
        assert (LetterState.CLOSED, opened.partition, opened.offset) == (closed.state, closed.partition, closed.offset)
        assert closed.offset >= 0


class TestView:
    def test_two_workers_see_all_references(self, running):
        """A salesperson whose row lies with one worker is found by the customers of both."""
        salesperson(running)
        first, second = running.start(), running.start()
        running.await_running(first, second, share=PARTITIONS // 2)
        eventually(lambda: all(beat["view_rows"] == 2 for beat in running.beats().values()), "both see both")
        couple_salesperson(running)
        eventually(lambda: "coupled" in {line.event for line in running.lines()}, "the salesperson is coupled")
        running.changes(a_change(an_id(number), salespersonCode="JR") for number in range(40))
        eventually(lambda: len(by_id(running.commands())) == 40, "all are created")

        user = f"systemuser:{an_id(1, 'systemuser')}"
        assert {user} == {command.values["ownerid"] for command in running.commands()}


class TestRelease:
    @pytest.mark.parametrize("restarted", [False, True])
    def test_what_waits_goes_on_when_the_missing_record_is_coupled(self, running, restarted):
        """Customers of an uncoupled salesperson wait, with one letter each, and go on by themselves once it is coupled:
        also when it is coupled while no worker runs.
        """
        salesperson(running)
        worker = running.start()
        running.await_running(worker)
        eventually(lambda: running.beats()[worker.pid]["view_rows"] == 2, "both are known")
        running.changes(a_change(an_id(number), salespersonCode="JR") for number in range(30))
        eventually(lambda: len(running.index()) == 30, "each has its letter")
        assert {"DRW-3001"} == {letter.code for letter in running.index().values()}
        assert running.commands() == []
        eventually(lambda: running.beats()[worker.pid]["waiting"] == 30, "all wait")

        if restarted:
            running.end(worker, signal.SIGKILL)
        couple_salesperson(running)
        with running.sink():
            if restarted:
                running.start()
            eventually(lambda: settled(running, 30), "all went on", timeout_s=40)
        eventually(
            lambda: {letter.state for letter in running.index().values()} == {LetterState.CLOSED}, "all letters closed"
        )

    def test_an_unanswered_command_is_sent_again(self, running):
        """The same command, until it is answered."""
        running.with_decide(command_timeout_s=2)
        lost: set[str] = set()

        def swallow(command):
            first = command.target.id == an_id(7) and command.target.id not in lost
            lost.add(command.target.id)
            return first

        with running.sink(swallow=swallow) as sink:
            running.await_running(running.start())
            running.changes(a_change(an_id(number)) for number in range(10))
            eventually(lambda: settled(running, 10), "all are coupled", timeout_s=30)

        again = [command.command_id for command in sink.taken if command.target.id == an_id(7)]
        assert len(again) == 2
        assert len(set(again)) == 1
        assert len(sink.taken) == 11
