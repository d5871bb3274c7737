"""The capture process on a real Apache Kafka, against the sandbox."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from drawbar.bus import topics
from drawbar.bus.apache import ApacheKafka
from drawbar.bus.clients import latest_by_key, make_producer, read_to_end
from drawbar.hints import Hint, HintKind
from drawbar.settings import Settings
from producers.entity import Fenced
from producers.ledger import KafkaLedger
from producers.worker import CaptureProcess
from schemas.codec import decode
from schemas.errors import MassDelete
from schemas.records import ChangeEvent, Operation, System, Watermark
from schemas.topics import HINTS, STATUS, TOPICS, WATERMARKS
from tests.kafka_fixture import TestKafka, until
from tests.producers.sandboxes import CLOCK, NAMES, Hands, sandbox

pytestmark = pytest.mark.kafka

CAPTURED = {
    (System.ERP, "customer"): ("displayName", "number"),
    (System.ERP, "companyInformation"): ("displayName", "currencyCode"),
    (System.CRM, "account"): ("name", "accountnumber", "ownerid"),
}
REFERENCE = frozenset({(System.ERP, "companyInformation")})
TOPIC = {System.ERP: "erp.customer.changes", System.CRM: "crm.account.changes"}


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hands]:
    with sandbox(tmp_path_factory.mktemp("sandbox")) as hands:
        yield hands


class Capture:
    """Capture processes, each in a thread, and what they publish."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.running: list[tuple[CaptureProcess, threading.Thread]] = []

    def start(self) -> CaptureProcess:
        process = CaptureProcess(self.settings, entities=CAPTURED, reference=REFERENCE)
        process._name += f"-{len(self.running)}"  # two processes in one
        thread = threading.Thread(target=process.run, daemon=True)
        thread.start()
        self.running.append((process, thread))
        return process

    def stop(self) -> None:
        for process, _ in self.running:
            process.stop()
        for _, thread in self.running:
            thread.join(20)
            assert not thread.is_alive()
        self.running.clear()

    def owners(self, key: str) -> list[CaptureProcess]:
        return [process for process, _ in self.running if key in process.status()["entities"]]

    def status(self, key: str) -> dict[str, Any]:
        for process in self.owners(key):
            status: dict[str, Any] = process.status()["entities"][key]
            return status
        return {"snapshot_done": False}

    def said(self) -> list[tuple[str, str]]:
        """Stage and state of every process that says anything of itself."""
        beats = latest_by_key(self.settings.bus.bootstrap_servers, STATUS, extra={})
        said = [json.loads(message.value()) for message in beats.values()]
        return [(each["stage"], each["state"]) for each in said]

    def events(self, system: System) -> list[ChangeEvent]:
        messages = read_to_end(self.settings.bus.bootstrap_servers, TOPIC[system], extra={})
        return [decode(ChangeEvent, message.value()) for message in messages if message.value() is not None]

    def last(self, system: System) -> dict[str, ChangeEvent]:
        return {event.ref.id: event for event in self.events(system)}

    def send(self, hint: Hint) -> None:
        producer = make_producer(self.settings.bus.bootstrap_servers, client_id="test", extra={})
        producer.produce(HINTS, key=hint.key, value=hint.to_json(CLOCK.now()), partition=hint.partition)
        producer.flush(10)


@pytest.fixture
def capture(hands: Hands, own_kafka: ApacheKafka) -> Iterator[Capture]:
    """On a broker of its own: it counts every event there is."""
    bootstrap = own_kafka.bootstrap_servers
    topics.apply(TestKafka(bootstrap_servers=bootstrap).admin(), TOPICS, partitions=4)
    settings = hands.settings(
        bootstrap_servers=bootstrap,
        capture={"poll_min_s": 0.05, "poll_max_s": 0.2, "reference_poll_s": 0.5, "sweep_interval_s": 600.0},
    )
    capture = Capture(settings)
    yield capture
    capture.stop()


class TestCaptureProcess:
    def test_keeps_its_promises_through_a_whole_life(self, hands: Hands, capture: Capture):
        """Snapshot, changes of both systems, deletes, two processes, a start over: one story, since each part of it
        needs the one before."""
        capture.start()
        for system, key in ((System.ERP, "erp.customer"), (System.CRM, "crm.account")):
            until(lambda key=key: capture.status(key)["snapshot_done"], f"the snapshot of {key}")
            events = capture.events(system)
            assert len(hands.truth(system)) == len(events) == len({event.ref.id for event in events})
            assert {Operation.SNAPSHOT} == {event.operation for event in events}

        made = {system: hands.create(system, "Made") for system in System}
        for system in System:
            hands.rename(system, made[system], "Renamed")
            until(
                lambda system=system: (
                    made[system] in (last := capture.last(system))
                    and "Renamed" == (last[made[system]].after or {})[NAMES[system]]
                ),
                f"the change in the {system}",
            )

        capture.start()
        until(lambda: all(process.status()["entities"] for process, _ in capture.running), "each owns something")
        until(lambda: all(len(capture.owners(key)) == 1 for key in ("erp.customer", "crm.account")), "one owner each")
        for system in System:
            hands.delete(system, made[system])
        capture.send(Hint(kind=HintKind.LOOK, system=System.ERP, entity="customer", sweep=True))
        for system in System:
            until(
                lambda system=system: Operation.DELETE is capture.last(system)[made[system]].operation,
                f"the delete in the {system}",
            )

        before = {system: len(capture.events(system)) for system in System}
        capture.stop()
        late = {system: hands.create(system, "Made while nobody looked") for system in System}
        capture.start()
        for system in System:
            until(lambda system=system: late[system] in capture.last(system), f"what was missed in the {system}")
            assert before[system] + 1 == len(capture.events(system)), "nothing was published twice"

        watermarks = latest_by_key(capture.settings.bus.bootstrap_servers, WATERMARKS, extra={})
        assert decode(Watermark, watermarks[b"erp.customer"].value()).snapshot_done
        until(lambda: [("capture", "running")] == capture.said(), "the one process that is left says that it runs")

        gone = [row["id"] for row in hands.truth(System.ERP)[:25]]
        for record_id in gone:
            hands.delete(System.ERP, record_id)
        capture.send(Hint(kind=HintKind.LOOK, system=System.ERP, entity="customer", sweep=True))
        until(lambda: MassDelete.code == capture.status("erp.customer")["reason"], "the entity stops")
        assert not [event for event in capture.events(System.ERP) if event.ref.id in gone and event.after is None]
        capture.send(Hint(kind=HintKind.CONFIRM_DELETES, system=System.ERP, entity="customer"))
        until(
            lambda: all(capture.last(System.ERP)[each].operation is Operation.DELETE for each in gone),
            "the deletes once confirmed",
        )


class TestKafkaLedger:
    def test_publishes_all_or_nothing_and_only_for_its_last_owner(self, capture: Capture):
        """Two that hold the same entity: the one that took over last publishes, the other is shut out for good."""
        from drawbar.ports import OutMessage

        first, second = (KafkaLedger(capture.settings.bus, "erp.paymentTerm") for _ in range(2))
        topic = "erp.paymentTerm.changes"
        first.take_over()
        first.publish([OutMessage(topic=topic, key=b"a", value=b"1"), OutMessage(topic=topic, key=b"b", value=b"1")])
        second.take_over()
        second.publish([OutMessage(topic=topic, key=b"a", value=b"2")])

        with pytest.raises(Fenced):
            first.publish(
                [OutMessage(topic=topic, key=b"a", value=b"3"), OutMessage(topic=topic, key=b"b", value=b"3")]
            )
        found = [(message.key, message.value) for message in second.read(topic)]
        assert [(b"a", b"1"), (b"a", b"2"), (b"b", b"1")] == sorted(found)
        first.close()
        second.close()
