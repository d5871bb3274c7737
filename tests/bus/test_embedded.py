"""Tansu as the bus: what the stages need of a broker is there; what is not there is known."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition

from drawbar.bus import embedded
from drawbar.bus.clients import make_admin, make_consumer, make_producer, read_to_end, wait_for_broker
from drawbar.bus.tether import tethered
from drawbar.bus.topics import apply, plan
from drawbar.cli.installation import Installation, Plan, Sandbox
from drawbar.settings import Settings
from schemas.errors import BusUnavailable
from schemas.topics import TOPICS
from tests.kafka_fixture import until


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """Its address, every topic of the table made."""
    prepared = embedded.prepare()
    process = subprocess.Popen(
        tethered(prepared.argv),
        env=dict(prepared.env),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for_broker(prepared.bootstrap_servers, {}, give_up_after_s=20)
        apply(make_admin(prepared.bootstrap_servers, client_id="test", extra={}), TOPICS, partitions=4)
        yield prepared.bootstrap_servers
    finally:
        process.kill()
        process.wait()


def read(broker: str, topic: str) -> list[bytes | None]:
    return [message.value() for message in read_to_end(broker, topic, extra={})]


class TestPrepare:
    def test_listens_on_this_machine_only(self):
        """Nobody outside reaches a broker without sign-in; nothing is kept on disk."""
        argv = embedded.prepare(port=1234).argv

        assert ("--listener-url", "tcp://127.0.0.1:1234") == argv[1:3]
        assert ("--storage-engine", "memory://drawbar/") == argv[-2:]

    def test_is_not_led_astray_by_variables_of_others(self, monkeypatch):
        """`STORAGE_ENGINE` and the like are names that another program's set-up may use."""
        monkeypatch.setenv("STORAGE_ENGINE", "s3://elsewhere/")

        assert "STORAGE_ENGINE" not in embedded.prepare().env


class TestBroker:
    def test_has_the_topics_of_the_table(self, broker):
        """Made as the table says, and found so afterwards."""
        admin = make_admin(broker, client_id="test", extra={})

        assert plan(admin, TOPICS, partitions=4).empty

    def test_keeps_an_acknowledgement_of_a_group(self, broker):
        """The next member goes on where the last one stopped."""
        producer = make_producer(broker, client_id="test", extra={})
        for value in (b"1", b"2"):
            producer.produce("pairs.work", value, b"key")
        assert 0 == producer.flush(10)

        def take(count: int) -> list[Any]:
            consumer = make_consumer(broker, client_id="test", group_id="readers", extra={})
            consumer.subscribe(["pairs.work"])
            found: list[Any] = []
            until(
                lambda: found.extend(consumer.consume(count - len(found), 0.2)) or len(found) == count,
                "the messages are there",
            )
            consumer.commit(message=found[-1], asynchronous=False)
            consumer.close()
            return [message.value() for message in found]

        assert [[b"1"], [b"2"]] == [take(1), take(1)]

    def test_commits_a_transaction_and_shuts_out_a_predecessor(self, broker):
        """What capture rests on."""
        first = transactional(broker)
        first.begin_transaction()
        first.produce("capture.watermarks", b"1", b"key")
        first.commit_transaction(10)
        transactional(broker)
        first.begin_transaction()
        first.produce("capture.watermarks", b"2", b"key")
        with pytest.raises(KafkaException):
            first.commit_transaction(10)

        assert [b"1"] == read(broker, "capture.watermarks")

    def test_ends_a_topic_where_its_options_make_it_end(self, broker):
        """A process has all of its rows back when it has those up to the end of their topic."""

        def end_after(count: int, *, partition: int, **extra: str) -> int:
            producer = make_producer(broker, client_id="test", extra={"linger.ms": "50", **extra})
            for number in range(count):
                producer.produce("couplings", b"row", f"m:{number}".encode(), partition=partition)
            assert 0 == producer.flush(10)
            consumer = make_consumer(broker, client_id="test", group_id="ends", extra={})
            return consumer.get_watermark_offsets(TopicPartition("couplings", partition), timeout=10)[1]

        assert 20 == end_after(20, partition=1, **embedded.CLIENT_OPTIONS)
        assert 20 > end_after(20, partition=2)  # else the options can go

    def test_shows_what_an_aborted_transaction_wrote(self, broker):
        """The limit that counts: on Apache Kafka nobody who reads committed messages sees it. If this fails, tell it
        in docs/operations.md and in `embedded.py`: the limit is gone.
        """
        producer = transactional(broker, "aborting")
        producer.begin_transaction()
        producer.produce("dead-letters", b"taken back", b"key")
        assert 0 == producer.flush(10)
        producer.abort_transaction(10)

        assert [b"taken back"] == read(broker, "dead-letters")


def transactional(broker: str, name: str = "capture.erp.customer") -> Producer:
    producer = make_producer(broker, client_id="test", extra={}, transactional_id=name)
    producer.init_transactions(10)
    return producer


class TestInstallation:
    """Where Apache Kafka cannot be had: which bus a start takes."""

    @pytest.fixture
    def cannot_download(self, monkeypatch):
        def prepare(*_args: Any, **_options: Any) -> None:
            raise BusUnavailable("Apache Kafka is not on this machine yet and cannot be downloaded")

        monkeypatch.setattr("drawbar.cli.installation.prepare", prepare)

    def started(self, tmp_path, **plan: Any) -> tuple[Installation, list[str]]:
        said: list[str] = []
        settings = Settings(state_dir=tmp_path)
        plan = Plan(settings=settings, entities=lambda _settings: frozenset(), **{"sandbox": Sandbox(), **plan})
        installation = Installation(plan, lambda _who, what: said.append(what))
        try:
            installation._start_bus()
        finally:
            installation._supervisor.stop()
        return installation, said

    def test_a_sandbox_goes_on_with_the_embedded_one(self, cannot_download, tmp_path):
        """One line says so, another what it does not keep."""
        installation, said = self.started(tmp_path)

        assert said[0].endswith("cannot be downloaded: going on with the embedded bus")
        assert embedded.LIMITS in said[1]
        assert "of-one-start.sqlite" == installation._sandbox_db().name
        assert embedded.CLIENT_OPTIONS == installation._client_options

    @pytest.mark.parametrize("left", ["kafka/data", "sandbox/sandbox.sqlite"])
    def test_nothing_that_was_kept_is_left_behind(self, cannot_download, tmp_path, left):
        """A second start on what an earlier one kept would forget it."""
        (tmp_path / left).mkdir(parents=True)

        with pytest.raises(BusUnavailable):
            self.started(tmp_path)

    @pytest.mark.parametrize("plan", [{"sandbox": None}, {"bus": "kafka"}])
    def test_what_was_asked_for_is_not_replaced(self, cannot_download, tmp_path, plan):
        """Real systems, or `--bus kafka`."""
        with pytest.raises(BusUnavailable):
            self.started(tmp_path, **plan)
