"""Kafka with TLS, sign-in and rights: our clients, a Faust worker, and what `drawbar check` says of each fault."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AclOperation, ResourceType

from drawbar.bus.clients import make_producer, read_to_end, wait_for_broker
from drawbar.bus.topics import apply
from drawbar.cli.check import probe_bus
from drawbar.settings import BusSettings, Settings
from schemas.errors import BusRightMissing, BusSignInRefused, BusUnavailable, BusUntrusted
from schemas.topics import TOPICS
from tests.bus.secure_kafka import PASSWORDS, SecureKafka, secure_kafka
from tests.kafka_fixture import TestKafka
from tests.processors_shell.given import a_change, a_work, an_id
from tests.processors_shell.running import PARTITIONS, Running, by_id, eventually

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def kafka_behind_a_lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with secure_kafka(tmp_path_factory.mktemp("secure")) as kafka:
        apply(kafka.admin(), TOPICS, partitions=PARTITIONS)
        yield kafka


def bus_of(kafka: SecureKafka, **given: Any) -> BusSettings:
    """The settings of the user `drawbar`, with what a test is about."""
    return BusSettings.model_validate(
        {
            "bootstrap_servers": kafka.secure,
            "partitions": PARTITIONS,
            "security_protocol": "sasl_ssl",
            "ca_file": kafka.ca_file,
            "sasl_username": "drawbar",
            "sasl_password": PASSWORDS["drawbar"],
            **given,
        }
    )


def cross(kafka: SecureKafka, bus: BusSettings, name: str) -> list[bytes | None]:
    """Write one message and read the topic, as the stages do."""
    shared = TestKafka(bootstrap_servers=kafka.apache.bootstrap_servers)
    topic = shared.create_topic(name)
    producer = make_producer(bus.bootstrap_servers, client_id="test", extra=bus.extra)
    producer.produce(topic, b"over the lock", b"key")
    assert 0 == producer.flush(30)
    return [message.value() for message in read_to_end(bus.bootstrap_servers, topic, extra=bus.extra)]


class TestClients:
    @pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
    def test_write_and_read_after_a_sign_in_over_tls(self, kafka_behind_a_lock, names, mechanism):
        """`sasl_ssl` with each mechanism that Faust's client can do as well."""
        bus = bus_of(kafka_behind_a_lock, sasl_mechanism=mechanism)

        assert [b"over the lock"] == cross(kafka_behind_a_lock, bus, names())

    def test_take_the_password_from_a_file(self, kafka_behind_a_lock, names, tmp_path):
        """A line break at its end is not part of it."""
        file = tmp_path / "password"
        file.write_text(PASSWORDS["drawbar"] + "\n")
        bus = bus_of(kafka_behind_a_lock, sasl_password=None, sasl_password_file=file)

        assert [b"over the lock"] == cross(kafka_behind_a_lock, bus, names())

    def test_show_a_certificate_of_their_own(self, kafka_behind_a_lock, names):
        """`ssl` with certificates on both sides."""
        bus = BusSettings(
            bootstrap_servers=kafka_behind_a_lock.mutual,
            security_protocol="ssl",
            ca_file=kafka_behind_a_lock.ca_file,
            client_certificate_file=kafka_behind_a_lock.client_certificate_file,
            client_key_file=kafka_behind_a_lock.client_key_file,
        )

        assert [b"over the lock"] == cross(kafka_behind_a_lock, bus, names())


class TestWaitForBroker:
    def wait(self, bus: BusSettings) -> float:
        """How long it took, for ever being the default."""
        begun = time.monotonic()
        wait_for_broker(bus.bootstrap_servers, bus.extra)
        return time.monotonic() - begun

    def test_does_not_wait_for_a_wrong_password_to_become_right(self, kafka_behind_a_lock):
        """At once, and without the password."""
        with pytest.raises(BusSignInRefused) as refused:
            self.wait(bus_of(kafka_behind_a_lock, sasl_password="guessed-wrong"))

        assert "guessed-wrong" not in refused.value.for_people()

    def test_does_not_wait_for_an_authority_to_become_trusted(self, kafka_behind_a_lock):
        """Whose certificate is signed by somebody else, is somebody else."""
        with pytest.raises(BusUntrusted, match="not signed by an authority that is trusted"):
            self.wait(bus_of(kafka_behind_a_lock, ca_file=kafka_behind_a_lock.other_ca_file))

    def test_asks_whether_a_port_speaks_tls(self, kafka_behind_a_lock):
        """The plain port closes such a connection, as a broker that is starting does: that is waited for."""
        bus = bus_of(kafka_behind_a_lock, bootstrap_servers=kafka_behind_a_lock.apache.bootstrap_servers)

        with pytest.raises(BusUnavailable) as gave_up:
            wait_for_broker(bus.bootstrap_servers, bus.extra, give_up_after_s=2)

        assert "speaks TLS" in gave_up.value.todo


class TestCheck:
    def faults(self, bus: BusSettings) -> list[tuple[str, str, str]]:
        findings = list(probe_bus(Settings(bus=bus)))
        return [(found.what, found.fault.code, found.fault.message) for found in findings if found.fault is not None]

    def test_finds_no_fault_where_everything_is_allowed(self, kafka_behind_a_lock):
        assert [] == self.faults(bus_of(kafka_behind_a_lock))

    def test_says_that_the_password_is_wrong(self, kafka_behind_a_lock):
        ((what, code, _),) = self.faults(bus_of(kafka_behind_a_lock, sasl_password="guessed-wrong"))

        assert ("broker", BusSignInRefused.code) == (what, code)

    def test_says_that_the_authority_is_not_trusted(self, kafka_behind_a_lock):
        ((what, code, _),) = self.faults(bus_of(kafka_behind_a_lock, ca_file=kafka_behind_a_lock.other_ca_file))

        assert ("broker", BusUntrusted.code) == (what, code)

    def test_names_the_right_that_is_missing(self, kafka_behind_a_lock):
        """A user who may look at everything, write everything but the journal, and join every group but one."""
        guest = bus_of(kafka_behind_a_lock, sasl_username="guest", sasl_password=PASSWORDS["guest"])
        look = (AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS, AclOperation.READ)
        kafka_behind_a_lock.allow("guest", ResourceType.TOPIC, "*", *look)
        for spec in TOPICS:
            if spec.name != "journal":
                kafka_behind_a_lock.allow("guest", ResourceType.TOPIC, spec.name, AclOperation.WRITE)
        for group in ("capture", "decide", "sink-erp"):
            kafka_behind_a_lock.allow("guest", ResourceType.GROUP, f"drawbar.{group}", AclOperation.READ)

        ((what, code, message),) = self.faults(guest)
        assert ("rights", BusRightMissing.code) == (what, code)
        assert message.endswith("lacks: write on topic journal, describe on group drawbar.sink-crm")


class TestProcess:
    """Route and decide, whose client is not librdkafka, on the same listener."""

    @pytest.fixture
    def running(self, kafka_behind_a_lock: SecureKafka, tmp_path: Path) -> Iterator[Running]:
        password = tmp_path / "password"  # a file, because the worker is told its settings on its command line
        password.write_text(PASSWORDS["drawbar"])
        bus = bus_of(kafka_behind_a_lock, sasl_password=None, sasl_password_file=password)
        running = Running(kafka_behind_a_lock.apache.bootstrap_servers, tmp_path)
        bus = bus.model_copy(update={"group_prefix": running.settings.bus.group_prefix})
        running.settings = running.settings.model_copy(update={"bus": bus})
        running.fresh_topics()
        yield running
        running.end_all()

    def test_reads_writes_and_recovers_its_rows(self, running):
        """A second worker finds the row of the first: while its command is under way, an edit makes no other one."""
        first = running.start()
        running.await_running(first)
        running.work([a_work(a_change(an_id(1)))])
        eventually(lambda: len(running.commands()) == 1, "the command is there")
        assert 0 == running.end(first)

        second = running.start()
        running.await_running(second)
        running.work([a_work(a_change(an_id(1), order=2, city="Bonn")), a_work(a_change(an_id(2)))])
        eventually(lambda: "parked" in {line.event for line in running.lines()}, "the edit was decided")
        eventually(lambda: len(by_id(running.commands())) == 2, "the other record's command is there")

        assert {1} == {len(ids) for ids in by_id(running.commands()).values()}
        assert 0 == running.end(second)
