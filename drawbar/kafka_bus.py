"""The real bus port: Kafka by confluent_kafka.

`publish` returns when the broker has every message, `poll` delivers from the subscribed topics, `commit` acknowledges
only what it is told. Partitions come and go one by one (cooperative rebalances); the worker is told inside `poll`, in
its own thread, and may still publish and commit there what it has finished.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from drawbar.bus.clients import make_consumer, make_producer
from drawbar.bus.topics import FORBIDDEN
from drawbar.ports import InMessage, OutMessage
from drawbar.settings import BusSettings
from schemas.errors import BusRightMissing, BusUnavailable

PUBLISH_TIMEOUT_S = 30
BATCH = 500  # messages taken in one poll
Partitions = Sequence[tuple[str, int]]

# A commit that comes too late: the partition has another owner by now, who does the work again; or the group is being
# shared out anew, and the partition stays ours: then it is sent again.
_TOO_LATE = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError._ASSIGNMENT_LOST,  # noqa: SLF001 - its public name
        KafkaError._NO_OFFSET,  # noqa: SLF001
    }
)


def _nothing(_partitions: Partitions) -> None:
    return None


class KafkaBus:
    """Implements `drawbar.ports.Bus`. All calls belong to one thread."""

    def __init__(
        self,
        settings: BusSettings,
        *,
        client_id: str,
        group: str = "",
        topics: Sequence[str] = (),
        on_assigned: Callable[[Partitions], None] = _nothing,
        on_revoked: Callable[[Partitions], None] = _nothing,
        on_lost: Callable[[Partitions], None] = _nothing,
        publish_timeout_s: float = PUBLISH_TIMEOUT_S,
    ) -> None:
        """`group` without the installation's prefix. Revoked partitions may still be committed, lost ones not."""
        self._settings = settings
        self._client_id = client_id
        self._publish_timeout_s = publish_timeout_s
        self._producer = self._make_producer()
        self._consumer: Consumer | None = None
        self._held = False
        self._acknowledged: dict[tuple[str, int], int] = {}  # of the partitions we have: how far, as we were last told
        self._must_repeat = False
        self._on_assigned, self._on_revoked, self._on_lost = on_assigned, on_revoked, on_lost
        if topics:
            self._consumer = make_consumer(
                settings.bootstrap_servers,
                client_id=client_id,
                group_id=f"{settings.group_prefix}.{group}",
                extra=settings.extra,
                on_commit=self._answered,
            )
            self._consumer.subscribe(
                list(topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
            )

    def publish(self, messages: Sequence[OutMessage]) -> None:
        """Send and return once the broker has every message.

        Raises BusUnavailable when it does not have all of them within `publish_timeout_s`; some may have arrived.
        """
        faults: list[KafkaError] = []
        waiting = len(messages)

        def delivered(error: KafkaError | None, _message: Message) -> None:
            nonlocal waiting
            waiting -= 1
            if error is not None:
                faults.append(error)

        for message in messages:
            self._produce(message, delivered)
        if messages:
            self._producer.flush(self._publish_timeout_s)
        if faults or waiting:
            if any(fault.fatal() for fault in faults):
                self._producer = self._make_producer()  # a fatal error ends a client; the messages are sent anew
            name = faults[0].name() if faults else "no answer"
            raise BusUnavailable(f"{max(waiting, len(faults))} of {len(messages)} messages did not arrive: {name}")

    def poll(self, timeout_s: float) -> Sequence[InMessage]:
        """What arrived, waiting up to `timeout_s` for the first.

        Raises BusUnavailable when the client has ended, BusRightMissing when we may not read.
        """
        assert self._consumer is not None, "this bus only publishes"
        self._acknowledge(self._acknowledged if self._must_repeat else {}, wait=False)
        found: list[InMessage] = []
        message = self._consumer.poll(timeout_s)
        while message is not None:
            error = message.error()
            if error is None:
                found.append(_to_in_message(message))
            elif error.fatal():
                raise BusUnavailable(f"the consumer ended: {error.name()}")
            elif error.code() in FORBIDDEN:
                raise BusRightMissing(f"the consumer may not read: {error.name()}: {error.str()}")
            if len(found) >= BATCH:
                break
            message = self._consumer.poll(0)
        return found

    def commit(self, positions: Mapping[tuple[str, int], int], *, wait: bool = False) -> None:
        """Acknowledge everything before the offsets given; with `wait` return when the broker has it.

        An acknowledgement that comes too late is no fault: the work is done again, which does no harm. One that is
        refused while the partition stays ours is sent again in `poll`.
        """
        self._acknowledged |= positions
        self._acknowledge(positions, wait=wait)

    def _acknowledge(self, positions: Mapping[tuple[str, int], int], *, wait: bool) -> None:
        assert self._consumer is not None, "this bus only publishes"
        if not positions:
            return
        if self._must_repeat:
            positions = dict(self._acknowledged)
            self._must_repeat = False
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in positions.items()]
        try:
            if wait:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            else:
                self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as fault:
            if fault.args[0].code() not in _TOO_LATE and not fault.args[0].retriable():
                raise BusUnavailable(f"the acknowledgement was refused: {fault.args[0].name()}") from fault
            self._must_repeat = True

    def _answered(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """A commit that was not waited for has been answered."""
        if error is not None or any(partition.error is not None for partition in partitions):
            self._must_repeat = True

    def hold(self, on: bool) -> None:
        """Stop or go on taking messages; the membership in the group stays alive by `poll` either way."""
        if self._consumer is None or on == self._held:
            return
        self._held = on
        assigned = self._consumer.assignment()
        if on:
            self._consumer.pause(assigned)
        else:
            self._consumer.resume(assigned)

    def close(self) -> None:
        """Leave the group and let the others take over at once."""
        if self._consumer is not None:
            self._consumer.close()

    def _produce(self, message: OutMessage, delivered: Callable[[KafkaError | None, Message], None]) -> None:
        while not self._accepts(message, delivered):
            self._producer.poll(0.1)  # the client's own queue is full: make room

    def _accepts(self, message: OutMessage, delivered: Callable[[KafkaError | None, Message], None]) -> bool:
        try:
            self._producer.produce(
                message.topic,
                value=message.value,
                key=message.key,
                headers=list(message.headers),
                on_delivery=delivered,
            )
        except BufferError:
            return False
        except KafkaException as fault:
            raise BusUnavailable(f"{message.topic} cannot be written: {fault.args[0].name()}") from fault
        return True

    def _make_producer(self) -> Producer:
        # librdkafka itself would hold a message for five minutes before it says that it did not arrive
        extra = {"message.timeout.ms": str(round(self._publish_timeout_s * 900)), **self._settings.extra}
        return make_producer(self._settings.bootstrap_servers, client_id=self._client_id, extra=extra)

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign(partitions)
        if self._held:
            consumer.pause(partitions)
        self._on_assigned(_names(partitions))

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._on_revoked(_names(partitions))
        self._give_up(partitions)
        consumer.incremental_unassign(partitions)

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._on_lost(_names(partitions))
        self._give_up(partitions)
        consumer.incremental_unassign(partitions)

    def _give_up(self, partitions: Sequence[TopicPartition]) -> None:
        for place in _names(partitions):
            self._acknowledged.pop(place, None)


def _names(partitions: Sequence[TopicPartition]) -> list[tuple[str, int]]:
    return [(partition.topic, partition.partition) for partition in partitions]


def _to_in_message(message: Message) -> InMessage:
    headers: Any = message.headers() or ()
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None, "a message without an error has a place"
    assert partition is not None, "a message without an error has a place"
    assert offset is not None, "a message without an error has a place"
    return InMessage(
        topic=topic,
        partition=partition,
        offset=offset,
        key=_bytes(message.key()) or b"",
        value=_bytes(message.value()),
        headers=tuple((name, value) for name, value in headers if value is not None),
        timestamp_ms=message.timestamp()[1],
    )


def _bytes(data: str | bytes | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data
