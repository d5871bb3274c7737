"""Schemas in a real registry, and messages that others write and read by them over a real Apache Kafka."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from drawbar.cli import schemas as command
from drawbar.registry import Registry, RegistryFraming, schemas_of, subject_of
from drawbar.settings import RegistrySettings
from schemas.codec import decode, encode, install
from schemas.errors import RegistryUnavailable, SchemaIncompatible, SchemaNotRegistered
from schemas.records import ChangeEvent, System
from schemas.topics import changes_topic
from tests.builders import a_change
from tests.cli.rows_fake import run
from tests.kafka_fixture import Names, TestKafka, until

CUSTOMER = (System.ERP, "customer")
CHANGES = subject_of(changes_topic("erp", "customer"))
FIELDS = {CUSTOMER: ("displayName", "creditLimit")}


@pytest.fixture
def client(registry_url: str) -> Iterator[SchemaRegistryClient]:
    """Confluent's own."""
    with SchemaRegistryClient({"url": registry_url}) as made:
        yield made


@pytest.fixture
def registry(registry_url: str, client: SchemaRegistryClient) -> Iterator[Registry]:
    """Empty of our subjects: each test registers what it needs."""
    for subject in client.get_subjects():
        client.delete_subject(subject)
        client.delete_subject(subject, permanent=True)
    with Registry(RegistrySettings(url=registry_url)) as made:
        yield made
    install(None)


def typed(*fields: str) -> dict[str, dict[str, Any]]:
    return schemas_of({CUSTOMER: fields}, {})


class TestApply:
    def test_registers_once(self, registry: Registry):
        wanted = typed("displayName")

        assert {"new"} == {one.what for one in registry.apply(wanted)}
        assert {("as it is", 1)} == {(one.what, one.version) for one in registry.plan(wanted)}

    def test_adds_a_version_for_a_new_column(self, registry: Registry):
        """Readers of the version before go on: the column has a default."""
        registry.apply(typed("displayName"))
        (changed,) = (one for one in registry.apply(typed("displayName", "city")) if one.what != "as it is")

        assert (CHANGES, "changed", 1) == (changed.subject, changed.what, changed.version)
        assert {2} == {one.version for one in registry.plan(typed("displayName", "city")) if one.subject == CHANGES}

    def test_registers_nothing_when_a_part_would_be_refused(self, registry: Registry, client: SchemaRegistryClient):
        """A column of another type breaks whoever reads it."""
        registry.apply(typed("displayName"))
        client.set_compatibility(CHANGES, "BACKWARD")
        wanted = copy.deepcopy(typed("displayName", "city"))
        for field in wanted[CHANGES]["fields"]:
            if field["name"] == "after":
                field["type"][1]["fields"][1]["type"] = ["null", "boolean"]
        wanted["another-value"] = wanted[subject_of("journal")]
        with pytest.raises(SchemaIncompatible, match=CHANGES):
            registry.apply(wanted)

        assert "new" == next(one.what for one in registry.plan(wanted) if one.subject == "another-value")


class TestPrepare:
    def test_names_what_is_not_registered(self, registry: Registry):
        with pytest.raises(SchemaNotRegistered) as missing:
            RegistryFraming(registry).prepare(FIELDS)
        assert "drawbar schemas apply" in missing.value.todo

    def test_asks_nobody_afterwards(self, registry: Registry):
        """A registry that goes away stops nothing that runs."""
        registry.apply(schemas_of(FIELDS, {}))
        framing = RegistryFraming(registry)
        framing.prepare(FIELDS)
        event = a_change("erp:customer:C", state={"displayName": "x"})
        install(framing)
        decode(ChangeEvent, encode(event))
        framing._registry = None  # type: ignore[assignment]

        assert event == decode(ChangeEvent, encode(event))

    def test_says_that_the_registry_is_away(self):
        with Registry(RegistrySettings(url="http://127.0.0.1:9")) as away, pytest.raises(RegistryUnavailable):
            away.plan(typed("displayName"))


@pytest.mark.kafka
class TestOthers:
    def test_read_our_changes_by_their_columns(
        self, registry: Registry, client: SchemaRegistryClient, kafka: TestKafka, names: Names
    ):
        """Confluent's own deserializer, which knows nothing of us."""
        registry.apply(schemas_of(FIELDS, {}))
        install(RegistryFraming(registry))
        topic = kafka.create_topic(names("changes"))
        event = a_change("erp:customer:C", state={"displayName": "Fabrikam", "creditLimit": Decimal("12.5"), "x": 1})
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        producer.produce(topic, key=b"C", value=encode(event))
        producer.flush(10)
        read = AvroDeserializer(client)
        row = read(_only_value(kafka, topic), SerializationContext(topic, MessageField.VALUE))

        assert ("Fabrikam", "12.5", {"x": 1}) == tuple(
            row["after"][name] for name in ("displayName", "creditLimit", "drawbar_others")
        )

    def test_write_what_we_read(self, registry: Registry, client: SchemaRegistryClient, kafka: TestKafka, names: Names):
        """A change that another program publishes with the registered schema."""
        registry.apply(schemas_of(FIELDS, {}))
        framing = RegistryFraming(registry)
        _, schema = registry.latest(CHANGES)
        event = a_change("erp:customer:C", state={"displayName": "Fabrikam"})
        _, _, datum = framing.frame(event)
        write = AvroSerializer(
            client,
            json.dumps(schema),
            conf={"auto.register.schemas": False, "subject.name.strategy": lambda _context, _name: CHANGES},
        )
        topic = kafka.create_topic(names("changes"))
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        producer.produce(topic, key=b"C", value=write(datum, SerializationContext(topic, MessageField.VALUE)))
        producer.flush(10)
        install(framing)

        assert event == decode(ChangeEvent, _only_value(kafka, topic))


class TestCommand:
    def test_plans_and_registers(self, registry: Registry, registry_url: str, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("DRAWBAR_REGISTRY__URL", registry_url)
        planned = run(command.app, "plan", "--json").json
        applied = run(command.app, "apply", "--json").json

        assert {"new"} == {one["what"] for one in planned} == {one["what"] for one in applied}
        assert CHANGES in {one["subject"] for one in planned}
        assert {"as it is"} == {one["what"] for one in run(command.app, "plan", "--json").json}


def _only_value(kafka: TestKafka, topic: str) -> bytes:
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": topic, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    found: list[bytes] = []

    def arrived() -> bool:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            found.append(message.value())  # type: ignore[arg-type]
        return bool(found)

    until(arrived, "the message")
    consumer.close()
    return found[0]
