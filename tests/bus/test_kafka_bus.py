"""The bus port over a client that refuses acknowledgements; the client itself is tested on a real broker elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from drawbar.kafka_bus import KafkaBus
from drawbar.settings import BusSettings
from schemas.errors import BusUnavailable

HERE, THERE = ("crm.commands", 0), ("crm.commands", 1)


class Refusing:
    """The client of a group member. `refusals`: the codes of the next commits, None for one that is taken."""

    def __init__(self) -> None:
        self.sent: list[dict[tuple[str, int], int]] = []
        self.refusals: list[int | None] = []

    def commit(self, *, offsets: Sequence[TopicPartition], asynchronous: bool) -> None:
        self.sent.append({(at.topic, at.partition): at.offset for at in offsets})
        code = self.refusals.pop(0) if self.refusals else None
        if code is not None:
            raise KafkaException(KafkaError(code))

    def poll(self, _timeout_s: float) -> None:
        return None

    def incremental_unassign(self, _partitions: Sequence[TopicPartition]) -> None:
        return None


@pytest.fixture
def client() -> Refusing:
    return Refusing()


@pytest.fixture
def bus(client: Refusing) -> KafkaBus:
    made = KafkaBus(BusSettings(bootstrap_servers="127.0.0.1:1"), client_id="t")
    made._consumer = client  # type: ignore[assignment]
    return made


def refused(bus: KafkaBus) -> None:
    """The broker answers a commit that was not waited for: no."""
    bus._answered(KafkaError(KafkaError.REBALANCE_IN_PROGRESS), [])


class TestCommit:
    def test_is_sent_once_when_it_is_taken(self, bus: KafkaBus, client: Refusing):
        bus.commit({HERE: 5})
        bus.poll(0)

        assert [{HERE: 5}] == client.sent

    @pytest.mark.parametrize("code", [KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION])
    @pytest.mark.parametrize("wait", [True, False])
    def test_that_is_refused_at_once_is_sent_again_with_the_next_poll(
        self, bus: KafkaBus, client: Refusing, code: int, wait: bool
    ):
        """The partition may have stayed ours: without it, work that is done would be done again after a restart."""
        client.refusals = [code]
        bus.commit({HERE: 5}, wait=wait)
        bus.poll(0)
        bus.poll(0)

        assert [{HERE: 5}, {HERE: 5}] == client.sent

    def test_that_is_refused_later_is_sent_again_with_all_that_came_since(self, bus: KafkaBus, client: Refusing):
        bus.commit({HERE: 5})
        bus.commit({THERE: 9})
        refused(bus)
        bus.commit({HERE: 7})
        bus.poll(0)

        assert [{HERE: 5}, {THERE: 9}, {HERE: 7, THERE: 9}] == client.sent

    def test_is_sent_again_until_it_is_taken(self, bus: KafkaBus, client: Refusing):
        client.refusals = [KafkaError.REBALANCE_IN_PROGRESS] * 3
        bus.commit({HERE: 5})
        for _ in range(5):
            bus.poll(0)

        assert [{HERE: 5}] * 4 == client.sent

    def test_is_not_sent_again_for_a_partition_that_went_away(self, bus: KafkaBus, client: Refusing):
        """Its new owner may be further; an old acknowledgement would set it back."""
        bus.commit({HERE: 5})
        bus.commit({THERE: 9})
        refused(bus)
        bus._revoked(client, [TopicPartition(*HERE)])  # type: ignore[arg-type]
        bus.poll(0)

        assert {THERE: 9} == client.sent[-1]

    def test_that_no_repeat_can_mend_ends_the_process(self, bus: KafkaBus, client: Refusing):
        client.refusals = [KafkaError.GROUP_AUTHORIZATION_FAILED]

        with pytest.raises(BusUnavailable, match="GROUP_AUTHORIZATION_FAILED"):
            bus.commit({HERE: 5})
