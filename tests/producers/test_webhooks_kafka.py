"""Webhooks through the whole of capture: sandbox, receiver, a real Apache Kafka, published events."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from drawbar.bus import topics
from drawbar.bus.apache import free_port
from drawbar.bus.clients import read_to_end
from drawbar.odata import open_http
from drawbar.settings import Settings
from producers.registrations import CrmSteps
from producers.worker import CaptureProcess
from schemas.codec import decode
from schemas.records import ChangeEvent, Operation, System
from schemas.topics import TOPICS
from tests.kafka_fixture import TestKafka, until
from tests.producers.sandboxes import NAMES, Hands, sandbox

pytestmark = pytest.mark.kafka

CAPTURED = {
    (System.ERP, "customer"): ("displayName", "number"),
    (System.CRM, "account"): ("name", "accountnumber"),
}
TOPIC = {System.ERP: "erp.customer.changes", System.CRM: "crm.account.changes"}
NEVER_S = 3600.0  # between polls and sweeps: what is seen sooner was seen by a hint


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hands]:
    with sandbox(tmp_path_factory.mktemp("sandbox")) as hands:
        yield hands


@contextmanager
def running(settings: Settings) -> Iterator[CaptureProcess]:
    process = CaptureProcess(settings, entities=CAPTURED, reference=frozenset())
    thread = threading.Thread(target=process.run, daemon=True)
    thread.start()
    yield process
    process.stop()
    thread.join(20)
    assert not thread.is_alive()


def create_rename_delete(hands: Hands, bootstrap: str, system: System) -> None:
    """One after the other, each as soon as the one before is on the topic."""

    def last() -> ChangeEvent | None:
        messages = read_to_end(bootstrap, TOPIC[system], extra={})
        events = [decode(ChangeEvent, message.value()) for message in messages if message.value() is not None]
        return next((event for event in reversed(events) if event.ref.id == record_id), None)

    def is_seen(operation: Operation, name: str | None) -> bool:
        event = last()
        after = event.after if event else None
        return event is not None and (operation, name) == (event.operation, (after or {}).get(NAMES[system]))

    record_id = hands.create(system, "Made")
    until(lambda: is_seen(Operation.CHANGE, "Made"), f"the create in the {system}")
    hands.rename(system, record_id, "Renamed")
    until(lambda: is_seen(Operation.CHANGE, "Renamed"), f"the update in the {system}")
    hands.delete(system, record_id)
    until(lambda: is_seen(Operation.DELETE, None), f"the delete in the {system}")


class TestWebhooks:
    def test_bring_an_edit_long_before_the_next_poll(self, hands: Hands, bootstrap: str, kafka: TestKafka):
        """Creates, updates and deletes of both systems. With an hour between polls, nothing else can explain it."""
        topics.apply(kafka.admin(), TOPICS, partitions=4)
        address = f"127.0.0.1:{free_port()}"
        capture: dict[str, Any] = {
            **dict.fromkeys(("poll_min_s", "poll_max_s", "reference_poll_s", "sweep_interval_s"), NEVER_S),
            "webhook_listen": address,
            "webhook_public_url": f"http://{address}",
            "webhook_secret": "s3cret",
        }
        settings = hands.settings(bootstrap_servers=bootstrap, capture=capture)
        crm, erp = open_http(settings, System.CRM), open_http(settings, System.ERP)
        steps = CrmSteps(crm, url=f"http://{address}", secret="s3cret")
        steps.keep({"account": CAPTURED[System.CRM, "account"]})

        with running(settings) as process:
            until(
                lambda: (
                    all(each["last_poll_finished_at"] for each in process.status()["entities"].values())
                    and len(process.status()["entities"]) == len(CAPTURED)
                ),
                "the snapshots",
            )
            until(lambda: bool(erp.call("GET", "subscriptions").body["value"]), "the subscription")
            for system in System:
                create_rename_delete(hands, bootstrap, system)
            counts = process.status()["webhooks"]

        steps.remove()
        crm.close()
        erp.close()
        assert counts["listening"]
        assert (0, 0) == (counts["erp.refused"], counts["crm.refused"])
        assert min(counts["erp.taken"], counts["crm.taken"]) >= 3
