"""The sink as a process on a real Kafka: killed under load, without a broker, drained."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from drawbar.bus.apache import ApacheKafka
from drawbar.bus.clients import make_consumer
from drawbar.kafka_bus import KafkaBus
from drawbar.odata import open_http
from drawbar.ports import InMessage, OutMessage
from drawbar.sandbox.server import SandboxOptions, start_in_thread
from drawbar.settings import Settings, load_settings
from schemas.codec import decode, encode
from schemas.errors import BusUnavailable
from schemas.records import Command, OutcomeStatus, System, Work, home_key
from schemas.topics import DEAD_LETTERS, JOURNAL, PAIRS_WORK, STATUS, commands_topic
from tests.consumers.worlds import World, create, update, world_of
from tests.kafka_fixture import until

pytestmark = pytest.mark.kafka

COMMANDS = commands_topic("crm")
PARTITIONS = 4


class Installation:
    """A broker, a sandbox, and what comes out of the sinks."""

    def __init__(self, kafka: ApacheKafka, connection: Path) -> None:
        self.kafka = kafka
        self.connection = connection
        self.settings: Settings = load_settings(connection)
        self.world: World = world_of(System.CRM, open_http(self.settings, System.CRM))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._bus = KafkaBus(self.settings.bus, client_id="test")
        self._reader = self._read_all()
        self.outcomes: list[Work] = []
        self.beats: list[dict[str, Any]] = []
        self.letters = 0

    def start_sink(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.consumers.sink_process", str(self.connection), "crm"]
        self._processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        return self._processes[-1]

    def send(self, *commands: Command) -> None:
        self._bus.publish(
            [
                OutMessage(topic=COMMANDS, key=home_key(one.mapping, one.home).encode(), value=encode(one))
                for one in commands
            ]
        )

    def send_bytes(self, value: bytes) -> None:
        self._bus.publish([OutMessage(topic=COMMANDS, key=b"?", value=value)])

    def read(self) -> None:
        while (message := self._reader.poll(0.01)) is not None:
            if message.error() is not None:
                continue
            if message.topic() == PAIRS_WORK:
                self.outcomes.append(decode(Work, message.value()))  # type: ignore[arg-type]
            elif message.topic() == STATUS:
                self.beats.append(json.loads(message.value() or b""))
            else:
                self.letters += 1

    def answered(self) -> set[str]:
        self.read()
        return {work.outcome.command_id for work in self.outcomes if work.outcome}

    def lag(self) -> int:
        consumer = make_consumer(
            self.settings.bus.bootstrap_servers, client_id="lag", group_id="drawbar.sink-crm", extra={}
        )
        places = [TopicPartition(COMMANDS, partition) for partition in range(PARTITIONS)]
        lag = sum(
            consumer.get_watermark_offsets(place, timeout=10)[1] - max(0, place.offset)
            for place in consumer.committed(places, timeout=10)
        )
        consumer.close()
        return lag

    def make_topic(self, name: str, partitions: int) -> str:
        admin = AdminClient({"bootstrap.servers": self.settings.bus.bootstrap_servers, "log_level": 0})
        admin.create_topics([NewTopic(name, partitions, 1)])[name].result(30)
        return name

    def stop_sinks(self) -> None:
        """Drain, so that the group is empty when the next test begins."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(30)
        self._processes.clear()
        self.outcomes.clear()

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self._reader.close()

    def _read_all(self) -> Consumer:
        consumer = make_consumer(
            self.settings.bus.bootstrap_servers, client_id="test-reader", group_id="test-reader", extra={}
        )
        topics = {PAIRS_WORK: PARTITIONS, STATUS: 1, DEAD_LETTERS: 1}
        consumer.assign([TopicPartition(name, part, 0) for name, parts in topics.items() for part in range(parts)])
        return consumer


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A broker of this module's own, since a test kills it, and a sandbox that is slow enough to be killed in."""
    folder = tmp_path_factory.mktemp("installation")
    with ApacheKafka.start(folder / "kafka", heap_mb=256) as kafka:
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
        topics = {COMMANDS: PARTITIONS, PAIRS_WORK: PARTITIONS, JOURNAL: PARTITIONS, STATUS: 1, DEAD_LETTERS: 1}
        for made in admin.create_topics([NewTopic(name, parts, 1) for name, parts in topics.items()]).values():
            made.result(30)
        info, stop = start_in_thread(SandboxOptions(state_dir=folder / "sandbox", limits=False, latency_ms=20))
        connection = folder / "connection.json"
        connection.write_text(json.dumps({**info, "bootstrap_servers": kafka.bootstrap_servers}))
        running = Installation(kafka, connection)
        yield running
        running.close()
        stop()


@pytest.fixture
def installation(everything: Installation) -> Iterator[Installation]:
    yield everything
    everything.stop_sinks()


def some_commands(world: World, count: int) -> tuple[list[Command], Callable[[], None]]:
    """Creates and updates, and the check that each was carried out once."""
    batch = uuid.uuid4().hex[:8]
    creates = [create(world, world.record(name=f"Made {batch} {number}")) for number in range(count)]
    seen = [world.add(name=f"Known {batch} {number}", phone="1") for number in range(count // 2)]
    updates = [update(world, record, world.record(phone="2")) for record in seen]

    def check() -> None:
        for number, command in enumerate(creates):
            assert [row.id for row in world.named(f"Made {batch} {number}")] == [command.target.id]
        for record in seen:
            found = world.read(record.id)
            assert found is not None
            assert found.state[world.phone] == "2"

    return [*creates, *updates], check


class TestSinkProcess:
    def test_killed_under_load_loses_nothing_and_doubles_nothing(self, installation: Installation):
        """SIGKILL while it writes; the next one begins where the acknowledgement stands. SIGTERM then drains it."""
        commands, check = some_commands(installation.world, 60)
        ids = {command.command_id for command in commands}
        installation.send(*commands[:40])
        first = installation.start_sink()
        until(lambda: len(installation.answered()) > 8, "some outcomes", timeout_s=60)
        first.send_signal(signal.SIGKILL)
        first.wait()
        installation.send(*commands[40:])
        installation.send_bytes(b"what is this")

        second = installation.start_sink()
        until(lambda: installation.answered() == ids, "all outcomes", timeout_s=60)
        until(lambda: installation.lag() == 0, "everything is acknowledged")
        second.send_signal(signal.SIGTERM)

        assert second.wait(20) == 0
        installation.read()
        outcomes = [work.outcome for work in installation.outcomes if work.outcome]
        good = (OutcomeStatus.WRITTEN, OutcomeStatus.OBSERVED)
        assert [] == [(o.status, o.code, o.detail, o.target) for o in outcomes if o.status not in good]
        check()
        assert installation.letters == 1
        states = [beat["state"] for beat in installation.beats if beat["pid"] == second.pid]
        assert "running" in states
        assert states[-1] == "draining"

    def test_waits_for_a_broker_that_goes_away(self, installation: Installation):
        """Killed broker, started again: the sink goes on by itself, and nothing is lost."""
        commands, check = some_commands(installation.world, 30)
        sink = installation.start_sink()
        installation.send(*commands[:30])
        until(lambda: len(installation.answered()) > 3, "some outcomes", timeout_s=60)

        installation.kafka.kill()
        installation.kafka.start_again()
        installation.send(*commands[30:])
        until(
            lambda: installation.answered() == {command.command_id for command in commands},
            "all outcomes",
            timeout_s=60,
        )

        assert sink.poll() is None
        check()

    def test_shares_its_partitions(self, installation: Installation):
        """A second sink takes over a part, and each command is answered whoever has it."""
        commands, check = some_commands(installation.world, 60)
        installation.start_sink()
        installation.send(*commands[:30])
        until(lambda: len(installation.answered()) > 3, "some outcomes", timeout_s=60)
        second = installation.start_sink()
        installation.send(*commands[30:])

        def second_has_partitions() -> bool:
            installation.read()
            return any(beat["pid"] == second.pid and beat["partitions"] > 0 for beat in installation.beats)

        until(second_has_partitions, "the second sink has partitions", timeout_s=60)
        until(
            lambda: installation.answered() == {command.command_id for command in commands},
            "all outcomes",
            timeout_s=60,
        )
        check()


class TestKafkaBus:
    def test_holds_what_it_is_told_to(self, everything: Installation):
        """Held partitions deliver nothing, and go on where they stopped."""
        topic = everything.make_topic("held", PARTITIONS)
        given: list[tuple[str, int]] = []
        bus = KafkaBus(everything.settings.bus, client_id="t", group="held", topics=[topic], on_assigned=given.extend)
        until(lambda: bus.poll(0.05) == [] and len(given) == PARTITIONS, "partitions")
        bus.hold(True)
        bus.publish([OutMessage(topic=topic, key=b"k", value=b"1", headers=(("h", b"v"),))])
        assert [bus.poll(0.1) for _ in range(5)] == [[]] * 5

        bus.hold(False)
        (message,) = polled(bus, 1)
        assert (message.key, message.value, message.headers) == (b"k", b"1", (("h", b"v"),))
        bus.close()

    def test_goes_on_where_it_acknowledged(self, everything: Installation):
        """What was taken and not acknowledged comes again; what was, does not."""
        topic = everything.make_topic("acknowledged", 1)
        bus = KafkaBus(everything.settings.bus, client_id="t", group="acknowledged", topics=[topic])
        bus.publish([OutMessage(topic=topic, key=b"k", value=str(number).encode()) for number in range(5)])
        taken = polled(bus, 5)
        bus.commit({(topic, 0): taken[2].offset}, wait=True)
        bus.close()

        again = KafkaBus(everything.settings.bus, client_id="t", group="acknowledged", topics=[topic])
        assert [message.value for message in polled(again, 3)] == [b"2", b"3", b"4"]
        again.close()

    def test_says_when_a_message_did_not_arrive(self, everything: Installation):
        """`publish` returns only when the broker has everything."""
        bus = KafkaBus(everything.settings.bus, client_id="t", publish_timeout_s=1)

        with pytest.raises(BusUnavailable):
            bus.publish([OutMessage(topic="no-such-topic", key=b"k", value=b"v")])


def polled(bus: KafkaBus, count: int) -> list[InMessage]:
    """The next `count` messages."""
    found: list[InMessage] = []

    def all_there() -> bool:
        found.extend(bus.poll(0.05))
        return len(found) >= count

    until(all_there, f"{count} messages")
    return found
