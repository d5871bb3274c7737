"""The topic table against a broker: made, mended, refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from confluent_kafka.admin import ConfigResource, ResourceType
from hypothesis import given
from hypothesis import strategies as st

from drawbar.bus.clients import make_admin
from drawbar.bus.topics import ExistingTopic, apply, compare, plan, wanted_config
from schemas.errors import BusError, BusUnavailable, TopicMismatch
from schemas.topics import TOPICS, TopicSpec
from tests.bus.test_clients import HOST, free_port


def a_spec(name: str = "t", **over: object) -> TopicSpec:
    spec = TopicSpec(
        name=name,
        partitions=None,
        cleanup="delete",
        retention_ms=60_000,
        key="record id",
        schema="change_event",
        writer="capture",
        doc="A topic.",
    )
    return replace(spec, **over)


def as_made(specs: tuple[TopicSpec, ...], partitions: int) -> dict[str, ExistingTopic]:
    return {
        spec.name: ExistingTopic(partitions=spec.partitions or partitions, config=wanted_config(spec)) for spec in specs
    }


class TestCompare:
    def test_makes_what_is_missing(self):
        """Where the table leaves the count open, it is the installation's."""
        todo = compare([a_spec("a"), a_spec("b", partitions=1)], {}, partitions=24)

        assert [("a", 24), ("b", 1)] == [(topic.name, topic.partitions) for topic in todo.missing]
        assert {"cleanup.policy": "delete", "retention.ms": "60000"} == todo.missing[0].config

    def test_names_the_settings_that_differ(self):
        """One line per setting, with what is and what shall be."""
        existing = {"t": ExistingTopic(partitions=4, config={"cleanup.policy": "delete", "retention.ms": "1"})}

        (change,) = compare([a_spec(retention_ms=None)], existing, partitions=4).changes

        assert ("t", "retention.ms", "1", "-1") == (change.topic, change.setting, change.now, change.wanted)

    def test_refuses_another_partition_count(self):
        """Keys would move away from their rows."""
        (wrong,) = compare([a_spec()], as_made((a_spec(),), 4), partitions=24).refused

        assert (4, 24) == (wrong.now, wrong.wanted)

    def test_does_not_care_for_the_order_of_policies(self):
        """`compact,delete` and `delete,compact` are the same."""
        existing = {
            "t": ExistingTopic(partitions=4, config={"cleanup.policy": "delete,compact", "retention.ms": "60000"})
        }

        assert compare([a_spec(cleanup="compact,delete")], existing, partitions=4).empty

    @given(st.integers(1, 50))
    def test_finds_nothing_to_do_on_what_it_would_make(self, partitions):
        """Applying twice is applying once, for the whole table."""
        todo = compare(TOPICS, as_made(TOPICS, partitions), partitions=partitions)

        assert todo.empty
        assert tuple(spec.name for spec in TOPICS) == todo.unchanged


@pytest.fixture
def admin(bootstrap):
    return make_admin(bootstrap, client_id="test", extra={})


def settings_of(admin, topic: str) -> dict[str, str]:
    (answer,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
    return {name: entry.value for name, entry in answer.result(30).items()}


@pytest.mark.kafka
class TestApply:
    def test_makes_the_whole_table_and_then_nothing(self, admin, names):
        """The shipped table is one that Kafka takes, and the second time there is nothing to do."""
        table = tuple(replace(spec, name=names(spec.name)) for spec in TOPICS)

        made = apply(admin, table, partitions=2)

        assert len(table) == len(made.missing)
        assert plan(admin, table, partitions=2).empty
        assert apply(admin, table, partitions=2).empty

    def test_sets_what_differs_and_leaves_the_rest(self, admin, kafka, names):
        """A setting that is not in the table belongs to the administrators."""
        topic = kafka.create_topic(names(), retention_ms="5", max_message_bytes="2000000")

        apply(admin, [a_spec(topic, cleanup="compact")], partitions=1)

        settings = settings_of(admin, topic)
        assert ("compact", "60000", "2000000") == (
            settings["cleanup.policy"],
            settings["retention.ms"],
            settings["max.message.bytes"],
        )

    def test_refuses_another_partition_count_and_changes_nothing(self, admin, kafka, names):
        """A refusal names the topic, both counts and what to do; no other topic is touched."""
        topic = kafka.create_topic(names("old"), partitions=2, retention_ms="5")

        with pytest.raises(TopicMismatch, match=f"{topic} has 2, not 3") as refused:
            apply(admin, [a_spec(names("new")), a_spec(topic)], partitions=3)

        assert "DRAWBAR_BUS__PARTITIONS" in refused.value.for_people()
        assert "5" == settings_of(admin, topic)["retention.ms"]
        assert names("new") not in admin.list_topics(timeout=10).topics

    def test_can_run_in_several_processes_at_once(self, bootstrap, names):
        """Whoever comes second finds the topics there; nobody fails."""
        table = [a_spec(names(str(n))) for n in range(5)]

        def one(_: int) -> bool:
            return apply(make_admin(bootstrap, client_id="test", extra={}), table, partitions=3).refused == ()

        with ThreadPoolExecutor(4) as pool:
            assert [True] * 4 == list(pool.map(one, range(4)))

        assert plan(make_admin(bootstrap, client_id="test", extra={}), table, partitions=3).empty

    def test_says_what_the_broker_refuses(self, admin, names):
        """More replicas than brokers is an error of the installation, with its topic."""
        with pytest.raises(BusError, match=names("t")):
            apply(admin, [a_spec(names("t"))], partitions=1, replication_factor=3)


class TestPlan:
    def test_says_that_no_broker_answers(self, monkeypatch):
        """An outage is told as one."""
        monkeypatch.setattr("drawbar.bus.topics.TIMEOUT_S", 0.5)
        admin = make_admin(f"{HOST}:{free_port()}", client_id="test", extra={})

        with pytest.raises(BusUnavailable):
            plan(admin, [a_spec()], partitions=1)
