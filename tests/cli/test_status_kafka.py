"""What is read from a real broker: heartbeats, and how far the stages have come."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from msgspec.structs import replace

from drawbar.bus.apache import ApacheKafka
from drawbar.bus.clients import make_admin, make_consumer, make_producer, read_to_end
from drawbar.bus.topics import apply
from drawbar.cli import main
from drawbar.letters import bytes_letter, index_message
from drawbar.ports import InMessage
from drawbar.settings import BusSettings
from drawbar.status import CONSUMED, BeatReader, LetterReader, Traffic, TrafficReader, count_letters
from schemas.errors import Undecodable
from schemas.records import LetterState
from schemas.topics import CAPTURED, DEAD_LETTERS_INDEX, HINTS, PAIRS_WORK, STATUS, TOPICS
from tests.kafka_fixture import until

pytestmark = pytest.mark.kafka

PARTITIONS = 2
CUSTOMERS = "erp.customer.changes"
OPENED = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)
SET_ASIDE = InMessage(topic=PAIRS_WORK, partition=0, offset=0, key=b"k", value=b"?")


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BusSettings]:
    """A broker with the topic table and nobody else's processes on it."""
    with ApacheKafka.start(tmp_path_factory.mktemp("kafka"), heap_mb=256) as apache:
        servers = apache.bootstrap_servers
        apply(make_admin(servers, client_id="test", extra={}), TOPICS, partitions=PARTITIONS)
        yield BusSettings(bootstrap_servers=servers, group_prefix="lagtest", partitions=PARTITIONS)


@pytest.fixture(autouse=True)
def named_by_environment(bus: BusSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands find this broker."""
    monkeypatch.setenv("DRAWBAR_BUS__BOOTSTRAP_SERVERS", bus.bootstrap_servers)
    monkeypatch.setenv("DRAWBAR_BUS__PARTITIONS", str(bus.partitions))
    monkeypatch.delenv("DRAWBAR_CONNECTION_FILE", raising=False)


@pytest.fixture
def producer(bus: BusSettings) -> Producer:
    return make_producer(bus.bootstrap_servers, client_id="test", extra={})


def transaction(bus: BusSettings, count: int, *, commit: bool = True) -> None:
    """Publish `count` changes as capture does."""
    writer = make_producer(bus.bootstrap_servers, client_id="test", extra={}, transactional_id="lagtest.capture")
    writer.init_transactions(30)
    writer.begin_transaction()
    for number in range(count):
        writer.produce(CUSTOMERS, key=str(number).encode(), value=b"x")
    writer.flush(30)
    if commit:
        writer.commit_transaction(30)
    else:
        writer.abort_transaction(30)
    # the broker answers before its markers are written, and until then readers see none of it: the next owner waits
    make_producer(
        bus.bootstrap_servers, client_id="test", extra={}, transactional_id="lagtest.capture"
    ).init_transactions(30)


def take_all(bus: BusSettings, group: str, topic: str) -> None:
    """Read and acknowledge, by offset of the message, all there is."""
    consumer: Consumer = make_consumer(
        bus.bootstrap_servers, client_id="test", group_id=f"{bus.group_prefix}.{group}", extra={}, partition_eof=True
    )
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(bus.partitions)])
        after: dict[int, int] = {}
        ended: set[int] = set()
        while len(ended) < bus.partitions:
            for message in consumer.consume(100, 1):
                if message.error() is not None:
                    ended.add(message.partition() or 0)
                else:
                    after[message.partition() or 0] = (message.offset() or 0) + 1
        if after:
            consumer.commit(offsets=[TopicPartition(topic, p, at) for p, at in after.items()], asynchronous=False)
    finally:
        consumer.close()


def traffic(bus: BusSettings) -> Traffic:
    with TrafficReader(bus, topics=CONSUMED) as reader:
        return reader.read()


class TestLetterReader:
    def test_keeps_those_that_are_open_and_follows(self, bus: BusSettings, producer: Producer):
        """The index is read once; after that only what is new."""

        def say(letter_id: str, state: LetterState = LetterState.OPEN) -> None:
            letter = bytes_letter(SET_ASIDE, Undecodable, now=OPENED)
            message = index_message(replace(letter, letter_id=letter_id, state=state), partition=0, offset=1)
            producer.produce(message.topic, key=message.key, value=message.value)
            producer.flush(10)

        say("a")
        say("b")
        producer.produce(DEAD_LETTERS_INDEX, key=b"c", value=b"no letter")
        producer.flush(10)
        reader = LetterReader(bus)
        try:
            assert {"a", "b"} == {letter.letter_id for letter in reader.read()}
            assert {Undecodable.code: OPENED} == count_letters(reader.read()).oldest
            say("a", LetterState.CLOSED)
            until(lambda: {"b"} == {letter.letter_id for letter in reader.read()}, "the closed letter is left out")
        finally:
            reader.close()


class TestTrafficReader:
    def test_counts_what_is_not_acknowledged(self, bus: BusSettings):
        """Messages that nobody took are counted, and so is the time of the last one between the stages."""
        before = traffic(bus).lag[CUSTOMERS]
        transaction(bus, 5)

        assert before + 5 <= traffic(bus).lag[CUSTOMERS]

    def test_does_not_count_markers_of_transactions(self, bus: BusSettings):
        """A group that took every message stands before the marker that ended the transaction; that is no work."""
        transaction(bus, 3)
        take_all(bus, "decide", CUSTOMERS)

        assert 0 == traffic(bus).lag[CUSTOMERS]

    def test_says_where_a_partition_stands(self, bus: BusSettings):
        """Whoever watches sees by it whether anything moves; a partition without work is left out."""
        transaction(bus, 2)
        take_all(bus, "decide", CUSTOMERS)
        assert {} == {place: found for place, found in traffic(bus).behind.items() if place[0] == CUSTOMERS}

        transaction(bus, 20)
        counted = traffic(bus)
        behind = {place: found for place, found in counted.behind.items() if place[0] == CUSTOMERS}
        assert 0 < counted.lag[CUSTOMERS] == sum(found.messages for found in behind.values())
        assert [] == [place for place, found in behind.items() if found.acknowledged <= 0]

    def test_does_not_count_what_was_taken_back(self, bus: BusSettings):
        transaction(bus, 2, commit=False)
        take_all(bus, "decide", CUSTOMERS)
        transaction(bus, 2, commit=False)

        assert 0 == traffic(bus).lag[CUSTOMERS]

    def test_counts_behind_the_slowest_group(self, bus: BusSettings):
        transaction(bus, 2)
        take_all(bus, "decide", CUSTOMERS)
        transaction(bus, 1)
        take_all(bus, "fast", CUSTOMERS)

        assert 1 <= traffic(bus).lag[CUSTOMERS] <= 2

    def test_knows_when_the_last_message_came(self, bus: BusSettings, producer: Producer):
        began = datetime.now(timezone.utc).replace(microsecond=0)
        producer.produce(PAIRS_WORK, key=b"k", value=b"v")
        producer.flush(30)

        seen = traffic(bus)
        assert seen.last_message_at is not None
        assert seen.last_message_at >= began


def beat(pid: int, **values: object) -> bytes:
    now = datetime.now(timezone.utc).isoformat()
    said = {"stage": "process", "pid": pid, "host": socket.gethostname(), "at": now, "state": "running", **values}
    return json.dumps(said).encode()


class TestBeatReader:
    def test_knows_who_is_there(self, bus: BusSettings, producer: Producer):
        """A process that is gone from this host is not there, whatever it said last."""
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        producer.produce(STATUS, key=b"one", value=beat(os.getpid()))
        producer.produce(STATUS, key=b"two", value=beat(gone.pid))
        producer.flush(30)

        with BeatReader(bus) as reader:
            assert [os.getpid()] == [beat.pid for beat in reader.beats()]

    def test_hears_what_is_said_later_and_who_says_goodbye(self, bus: BusSettings, producer: Producer):
        with BeatReader(bus) as reader:
            producer.produce(STATUS, key=b"three", value=beat(os.getpid(), stage="sink-erp"))
            producer.flush(30)
            until(lambda: reader.poll(0.1) and "sink-erp" in {b.stage for b in reader.beats()}, "the beat is heard")

            producer.produce(STATUS, key=b"three", value=None)
            producer.flush(30)
            until(lambda: reader.poll(0.1) and "sink-erp" not in {b.stage for b in reader.beats()}, "the goodbye")


class TestStatus:
    def test_tells_of_a_system_in_which_nothing_runs(self, bus: BusSettings, capsys: pytest.CaptureFixture[str]):
        assert 0 == main(["status", "--json"])
        told = json.loads(capsys.readouterr().out)
        assert False is told["quiet"]
        assert "capture: no process runs" in told["why_not_quiet"]


class TestWait:
    def test_gives_up_with_its_reasons(self, bus: BusSettings, capsys: pytest.CaptureFixture[str]):
        """Exit code 1; what is missing goes to standard error."""
        assert 1 == main(["wait", "--quiet", "--timeout-s", "0.2"])
        said = capsys.readouterr()
        assert "" == said.out
        assert "capture: no process runs" in said.err

    def test_asks_capture_to_look_at_every_entity(self, bus: BusSettings):
        """Each hint is on the partition of its entity, whose owner reads it; deletes are looked for, too."""
        assert 1 == main(["wait", "--quiet", "--timeout-s", "0"])

        hints = [
            (message.partition(), json.loads(message.value() or b""))
            for message in read_to_end(bus.bootstrap_servers, HINTS, extra={})
        ]
        for partition, (system, entity) in enumerate(CAPTURED):
            hint = {"kind": "look", "system": system, "entity": entity, "sweep": True}
            assert any(place == partition and hint.items() <= said.items() for place, said in hints)


class TestConfirmDeletes:
    def test_reaches_the_owner_of_the_entity(self, bus: BusSettings, capsys: pytest.CaptureFixture[str]):
        assert 0 == main(["capture", "confirm-deletes", "erp.customer"])
        assert "erp.customer: confirmed" in capsys.readouterr().err
        partition = CAPTURED.index(("erp", "customer"))
        *_, last = read_to_end(bus.bootstrap_servers, HINTS, extra={}, partitions=[partition])
        assert "confirm-deletes" == json.loads(last.value() or b"")["kind"]


class TestTopics:
    def test_plan_and_apply_tell_what_there_is(self, bus: BusSettings, capsys: pytest.CaptureFixture[str]):
        for command in ("plan", "apply"):
            assert 0 == main(["topics", command, "--json"])
            lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            assert {(spec.name, "as it should be") for spec in TOPICS} == {
                (line["topic"], line["what"]) for line in lines
            }

    def test_refuse_another_number_of_partitions(
        self, bus: BusSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ):
        """`plan` shows it and ends with 1; `apply` does nothing and ends with the coded error."""
        monkeypatch.setenv("DRAWBAR_BUS__PARTITIONS", str(bus.partitions + 1))
        assert 1 == main(["topics", "plan"])
        assert "refused" in capsys.readouterr().out
        assert 3 == main(["topics", "apply"])
        assert "DRW-5003" in capsys.readouterr().err
