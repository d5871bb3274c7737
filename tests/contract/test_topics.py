"""The table of topics."""

from __future__ import annotations

import pytest

from processors.mapping_files import captured_entities
from processors.route import changes_topics, routes_of
from schemas.codec import FILES
from schemas.topics import CAPTURED, TOPICS, TopicSpec, changes_topic, commands_topic
from tests.builders import MAPPINGS

BY_NAME = {topic.name: topic for topic in TOPICS}


class TestTopics:
    def test_have_one_line_each(self):
        assert len(TOPICS) == len(BY_NAME)

    @pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
    def test_say_everything(self, topic: TopicSpec):
        assert all((topic.key, topic.schema, topic.writer, topic.doc))
        assert topic.doc.endswith(".")
        assert topic.partitions is None or topic.partitions > 0

    def test_name_schemas_that_exist(self):
        not_avro = {"JSON text", "the original bytes"}

        assert set() == {topic.schema for topic in TOPICS} - not_avro - set(FILES)
        assert set() == set(FILES) - {topic.schema for topic in TOPICS} - {"outcome"}  # an outcome travels inside work

    def test_capture_what_the_shipped_mappings_need(self):
        assert {(system.value, entity) for system, entity in captured_entities(MAPPINGS.values())} == set(CAPTURED)
        assert len(CAPTURED) == len(set(CAPTURED))

    def test_route_reads_a_topic_that_exists_for_every_entity(self):
        assert {changes_topic(*entity) for entity in CAPTURED} == set(changes_topics(routes_of(MAPPINGS.values())))
        assert set(changes_topics(routes_of(MAPPINGS.values()))) <= set(BY_NAME)

    def test_work_and_couplings_have_the_same_partitions(self):
        """The rows of decide's table stand on the partitions of the messages that change them."""
        assert BY_NAME["pairs.work"].partitions is BY_NAME["couplings"].partitions is None

    @pytest.mark.parametrize("name", ["couplings", "dead-letters", "dead-letters.index", "capture.watermarks"])
    def test_what_must_not_be_lost_is_kept_for_ever(self, name: str):
        assert None is BY_NAME[name].retention_ms

    @pytest.mark.parametrize("name", ["couplings", "dead-letters.index", "capture.watermarks", "erp.customer.changes"])
    def test_what_has_a_latest_state_is_compacted(self, name: str):
        assert "compact" in BY_NAME[name].cleanup

    def test_dead_letters_are_not_compacted(self):
        """Two letters of one key are two letters."""
        assert "delete" == BY_NAME["dead-letters"].cleanup

    def test_each_system_has_its_commands(self):
        assert {commands_topic("erp"), commands_topic("crm")} <= set(BY_NAME)
