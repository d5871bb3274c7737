"""Clients put messages where Faust does, read transactions as they ended, and wait for a broker."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner
from confluent_kafka import KafkaError, KafkaException, Producer
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from drawbar.bus.apache import HOST, free_port
from drawbar.bus.clients import (
    OURS,
    latest_by_key,
    make_admin,
    make_consumer,
    make_producer,
    murmur2,
    partition_for,
    patiently,
    read_to_end,
    wait_for_broker,
)
from schemas.errors import BusUnavailable, SettingsError, TopicMismatch
from tests.kafka_fixture import until


class TestMurmur2:
    # Source: org.apache.kafka.common.utils.UtilsTest.testMurmur2, as signed 32-bit numbers there
    @pytest.mark.parametrize(
        ("text", "signed"),
        [
            ("21", -973932308),
            ("foobar", -790332482),
            ("a-little-bit-long-string", -985981536),
            ("a-little-bit-longer-string", -1486304829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
            ("abc", 479470107),
        ],
    )
    def test_hashes_as_java_does(self, text, signed):
        """The numbers of Kafka's own tests."""
        assert signed & 0xFFFFFFFF == murmur2(text.encode())


class TestPartitionFor:
    @given(st.binary(max_size=200), st.integers(1, 100))
    def test_is_the_partition_of_aiokafka(self, key, partitions):
        """Faust sends a row where we send its message."""
        everywhere = list(range(partitions))

        assert DefaultPartitioner()(key, everywhere, everywhere) == partition_for(key, partitions)


def send(producer: Producer, topic: str, *messages: tuple[str | bytes, str | bytes | None]) -> None:
    for key, value in messages:
        producer.produce(topic, value, key)
    assert producer.flush(30) == 0


def a_transaction(bootstrap: str, transactional_id: str) -> Producer:
    producer = make_producer(bootstrap, client_id="test", extra={}, transactional_id=transactional_id)
    producer.init_transactions(30)
    producer.begin_transaction()
    return producer


def values(bootstrap: str, topic: str, **how: object) -> list[bytes | None]:
    return [message.value() for message in read_to_end(bootstrap, topic, extra={}, **how)]


@pytest.mark.kafka
class TestMakeProducer:
    def test_agrees_with_fausts_client_on_a_thousand_keys(self, kafka, bootstrap, names):
        """Seen on a broker: aiokafka reads what we write, and sends each key to the partition where we send it."""
        topic = kafka.create_topic(names(), partitions=7)
        keys = [f"customer-account:{n:04}-{'é' * (n % 5)}".encode() for n in range(1000)]

        async def send_with_aiokafka() -> None:
            async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
                await asyncio.gather(*[await producer.send(topic, b"theirs", key) for key in keys])

        async def read_with_aiokafka() -> list[tuple[bytes, bytes, int]]:
            async with AIOKafkaConsumer(
                topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=50
            ) as consumer:
                read = []
                while len(read) < 2 * len(keys):
                    read.append(await asyncio.wait_for(consumer.getone(), 30))
                return [(message.key, message.value, message.partition) for message in read]

        send(make_producer(bootstrap, client_id="test", extra={}), topic, *((key, b"ours") for key in keys))
        asyncio.run(send_with_aiokafka())
        read = asyncio.run(read_with_aiokafka())

        ours = {key: partition for key, value, partition in read if value == b"ours"}
        theirs = {key: partition for key, value, partition in read if value == b"theirs"}
        assert {key: partition_for(key, 7) for key in keys} == ours
        assert ours == theirs

    def test_shuts_out_an_earlier_holder_of_its_transactional_id(self, kafka, bootstrap, names):
        """A capture that was paused cannot write once another owns its entity."""
        topic = kafka.create_topic(names())
        paused = a_transaction(bootstrap, names("tx"))
        paused.produce(topic, "of the paused one")
        paused.flush(30)

        owner = a_transaction(bootstrap, names("tx"))
        send(owner, topic, ("k", "of the owner"))
        owner.commit_transaction(30)

        with pytest.raises(KafkaException) as refused:
            paused.commit_transaction(30)
        assert refused.value.args[0].fatal()
        assert [b"of the owner"] == values(bootstrap, topic)


class TestExtra:
    def test_cannot_change_what_promises_rest_on(self):
        """An installation sets how to reach its brokers, not what is acknowledged."""
        for name in OURS:
            with pytest.raises(SettingsError, match=name):
                make_producer("localhost:1", client_id="test", extra={name: "x"})

    @pytest.mark.parametrize("extra", [{"no.such": "hunter2"}, {"security.protocol": "hunter2"}])
    def test_is_refused_with_its_name_when_it_is_no_setting(self, extra):
        """A wrong name or value stops the start; it says which."""
        with pytest.raises(SettingsError, match=next(iter(extra))):
            make_consumer("localhost:1", client_id="test", group_id="g", extra=extra)

    def test_never_shows_a_secret(self, capsys):
        """Not in errors, not in the log."""
        extra = {"sasl.password": "hunter2", "ssl.key.pem": "hunter2", "security.protocol": "hunter2"}

        with pytest.raises(SettingsError) as refused:
            make_admin("localhost:1", client_id="test", extra=extra)

        assert "hunter2" not in refused.value.for_people()
        assert "hunter2" not in str(refused.value.__context__ if not refused.value.__suppress_context__ else "")
        assert "hunter2" not in "".join(capsys.readouterr())


class Hesitant:
    """A broker that refuses a question so many times."""

    def __init__(self, refusals: float) -> None:
        self.refusals = refusals

    def __call__(self) -> str:
        if self.refusals > 0:
            self.refusals -= 1
            raise KafkaException(KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION))
        return "answer"


class TestPatiently:
    def test_asks_again_until_there_is_an_answer(self):
        """A broker that does not lead a new topic yet is no error."""
        assert "answer" == patiently(Hesitant(2), what="a question", timeout_s=10)

    def test_gives_up_with_the_last_error(self):
        """What was asked and what was said."""
        with pytest.raises(BusUnavailable, match="a question: NOT_LEADER_FOR_PARTITION"):
            patiently(Hesitant(float("inf")), what="a question", timeout_s=0.2)


@pytest.mark.kafka
class TestReadToEnd:
    def test_reads_all_partitions_and_ends(self, kafka, bootstrap, names):
        """Every message there was, and no wait for more."""
        topic = kafka.create_topic(names(), partitions=3)
        send(make_producer(bootstrap, client_id="test", extra={}), topic, *((str(n), str(n)) for n in range(200)))

        assert {str(n).encode() for n in range(200)} == set(values(bootstrap, topic))
        assert 200 == len(values(bootstrap, topic))

    def test_reads_some_partitions_from_some_offsets(self, kafka, bootstrap, names):
        """A dead letter is found by its position."""
        topic = kafka.create_topic(names(), partitions=2)
        producer = make_producer(bootstrap, client_id="test", extra={})
        for partition in (0, 1):
            for n in range(5):
                producer.produce(topic, f"{partition}{n}", partition=partition)
        producer.flush(30)

        assert [b"13", b"14"] == values(bootstrap, topic, partitions=[1], start={1: 3})
        assert [] == values(bootstrap, topic, partitions=[1], start={1: 5})

    def test_ends_at_once_on_an_empty_topic(self, kafka, bootstrap, names):
        """Nothing to read is no reason to wait."""
        assert [] == values(bootstrap, kafka.create_topic(names(), partitions=2))

    def test_leaves_out_what_was_taken_back(self, kafka, bootstrap, names):
        """Of transactions only committed messages are seen, and the markers at the end do not hold it up."""
        topic = kafka.create_topic(names())
        committed = a_transaction(bootstrap, names("a"))
        send(committed, topic, ("a", "1"), ("b", "2"))
        committed.commit_transaction(30)
        aborted = a_transaction(bootstrap, names("b"))
        send(aborted, topic, ("c", "3"))
        aborted.abort_transaction(30)

        assert [b"1", b"2"] == values(bootstrap, topic)

    def test_ends_on_a_topic_where_all_was_taken_back(self, kafka, bootstrap, names):
        """A topic of markers alone has an end as well."""
        topic = kafka.create_topic(names())
        aborted = a_transaction(bootstrap, names("a"))
        send(aborted, topic, ("c", "3"))
        aborted.abort_transaction(30)

        assert [] == values(bootstrap, topic)

    def test_waits_for_a_transaction_that_is_open(self, kafka, bootstrap, names):
        """Committed messages behind somebody else's open transaction are not missed."""
        topic = kafka.create_topic(names())
        still_open = a_transaction(bootstrap, names("a"))
        send(still_open, topic, ("a", "open"))
        send(make_producer(bootstrap, client_id="test", extra={}), topic, ("b", "behind"))
        read: list[bytes | None] = []
        reader = threading.Thread(target=lambda: read.extend(values(bootstrap, topic)))
        reader.start()
        reader.join(0.5)
        assert reader.is_alive()

        still_open.commit_transaction(30)
        reader.join(30)

        assert [b"open", b"behind"] == read

    def test_gives_up_without_progress(self, kafka, bootstrap, names):
        """A read that cannot end says what holds it."""
        topic = kafka.create_topic(names())
        still_open = a_transaction(bootstrap, names("a"))
        send(still_open, topic, ("a", "open"))

        with pytest.raises(BusUnavailable, match=r"partitions \[0\]"):
            values(bootstrap, topic, timeout_s=1)

        still_open.abort_transaction(30)

    def test_names_a_topic_that_is_not_there(self, bootstrap, names):
        """It is not made, and what to do is said."""
        with pytest.raises(TopicMismatch) as missing:
            values(bootstrap, names("missing"))

        assert "drawbar topics apply" in missing.value.for_people()


@pytest.mark.kafka
class TestLatestByKey:
    def test_keeps_the_last_and_drops_what_ended(self, kafka, bootstrap, names):
        """A tombstone ends its key; a later value begins it anew."""
        topic = kafka.create_topic(names(), cleanup_policy="compact")
        send(
            make_producer(bootstrap, client_id="test", extra={}),
            topic,
            ("a", "1"), ("b", "1"), ("c", "1"), ("a", "2"), ("b", None), ("c", None), ("c", "3"),
        )  # fmt: skip

        latest = latest_by_key(bootstrap, topic, extra={})

        assert {b"a": b"2", b"c": b"3"} == {key: message.value() for key, message in latest.items()}

    def test_reads_a_topic_whose_old_rows_are_gone(self, kafka, bootstrap, names):
        """After compaction offsets have holes; the read ends all the same, with the same answer."""
        topic = kafka.create_topic(
            names(),
            cleanup_policy="compact",
            segment_ms="100",
            min_cleanable_dirty_ratio="0.01",
            max_compaction_lag_ms="100",
            delete_retention_ms="0",
        )
        producer = make_producer(bootstrap, client_id="test", extra={})
        for n in range(20):
            send(producer, topic, ("a", str(n)), ("b", str(n)))
        send(producer, topic, ("b", None))

        def compacted() -> bool:
            # a segment is closed by a later message: without one the last is never compacted
            send(producer, topic, ("z", "z"))
            return len(values(bootstrap, topic)) < 20

        until(compacted, "the topic was compacted", timeout_s=60, every_s=0.5)

        latest = latest_by_key(bootstrap, topic, extra={})
        assert {b"a": b"19", b"z": b"z"} == {key: message.value() for key, message in latest.items()}


class TestWaitForBroker:
    @pytest.mark.kafka
    def test_returns_when_a_broker_answers(self, bootstrap):
        """Nobody is told to wait."""
        waits: list[float] = []

        wait_for_broker(bootstrap, {}, on_wait=waits.append)

        assert [] == waits

    def test_shows_its_wait_and_gives_up(self):
        """About once a second somebody is told; the end is an error with its address."""
        waits: list[float] = []
        address = f"{HOST}:{free_port()}"

        with pytest.raises(BusUnavailable, match=address):
            wait_for_broker(address, {}, on_wait=waits.append, give_up_after_s=1.5)

        assert 1 <= len(waits) <= 2
        assert sorted(waits) == waits

    def test_says_an_outage_once(self, capfd):
        """One warning, however often the client tries; librdkafka itself prints nothing."""
        with capture_logs() as said, pytest.raises(BusUnavailable):
            wait_for_broker(f"{HOST}:{free_port()}", {}, give_up_after_s=1.5)

        warned = [line["error"] for line in said if line["log_level"] == "warning"]
        assert "_ALL_BROKERS_DOWN" in warned
        assert sorted(set(warned)) == sorted(warned)
        assert ("", "") == capfd.readouterr()

    def test_does_not_hammer_what_answers_wrongly(self):
        """Something that is no broker is asked about once a second, not in a loop."""
        with socket.socket() as server:
            server.bind((HOST, free_port()))
            server.listen()
            waits: list[float] = []
            begun = time.monotonic()

            with pytest.raises(BusUnavailable):
                wait_for_broker(f"{HOST}:{server.getsockname()[1]}", {}, on_wait=waits.append, give_up_after_s=1.5)

            assert len(waits) <= time.monotonic() - begun + 1
