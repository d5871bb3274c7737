"""What capture has published of one entity, kept in Kafka: events and watermark in one transaction.

The `transactional.id` is the entity's, so a new owner shuts out the one before it, whatever that one believes: a
paused process that comes back cannot publish over its successor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from drawbar.bus.clients import make_producer, read_to_end
from drawbar.ports import InMessage, OutMessage
from drawbar.settings import BusSettings
from producers.entity import Fenced
from schemas.errors import BusUnavailable

TIMEOUT_S = 15.0  # per step of a transaction; above the broker's own 10 s, so that it decides before we give up

_FENCED = frozenset(
    {
        KafkaError._FENCED,  # noqa: SLF001 - its public name
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.PRODUCER_FENCED,
    }
)


class KafkaLedger:
    """Implements `producers.entity.Ledger`. Belongs to one thread."""

    def __init__(self, bus: BusSettings, key: str) -> None:
        self._bus = bus
        self._name = f"{bus.group_prefix}.capture.{key}"
        self._producer: Producer | None = None

    def take_over(self) -> None:
        self.close()
        producer = make_producer(
            self._bus.bootstrap_servers,
            client_id=self._name,
            extra=self._bus.extra,
            transactional_id=self._name,
        )
        try:
            producer.init_transactions(TIMEOUT_S)
        except KafkaException as fault:
            raise BusUnavailable(f"{self._name} cannot begin: {_name_of(fault)}") from fault
        self._producer = producer

    def read(self, topic: str) -> Iterator[InMessage]:
        for message in read_to_end(
            self._bus.bootstrap_servers, topic, extra=self._bus.extra, client_id=f"{self._name}.read"
        ):
            key = message.key()
            if key is not None:
                yield InMessage(
                    topic=topic,
                    partition=message.partition() or 0,
                    offset=message.offset() or 0,
                    key=key if isinstance(key, bytes) else key.encode(),
                    value=_bytes(message.value()),
                )

    def publish(self, messages: Sequence[OutMessage]) -> None:
        self._publish(messages, None)

    def place(self, message: OutMessage) -> tuple[int, int]:
        places: list[tuple[int, int]] = []
        self._publish([message], lambda _, sent: places.append((sent.partition() or 0, sent.offset() or 0)))
        return places[0]

    def _publish(
        self, messages: Sequence[OutMessage], delivered: Callable[[KafkaError | None, Message], None] | None
    ) -> None:
        producer = self._producer
        if producer is None:
            raise BusUnavailable(f"{self._name} has not begun")
        try:
            producer.begin_transaction()
            for message in messages:
                _produce(producer, message, delivered)
            if delivered is not None:
                producer.flush(TIMEOUT_S)  # has it called
            producer.commit_transaction(TIMEOUT_S)  # waits for every message, and fails if one failed
        except KafkaException as fault:
            # Whether it was committed is for the next owner to find out, be it ourselves: we begin anew.
            self.close()
            if _error_of(fault).code() in _FENCED:
                raise Fenced(self._name) from fault
            raise BusUnavailable(f"{self._name} cannot publish: {_name_of(fault)}") from fault

    def close(self) -> None:
        """Let go, whatever is under way: the next owner's beginning ends a transaction that is still open."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge(in_queue=True, in_flight=True)
            producer.flush(1.0)  # has the purged messages handed back; `close` would wait for a broker that is away


def _produce(
    producer: Producer, message: OutMessage, delivered: Callable[[KafkaError | None, Message], None] | None
) -> None:
    while True:
        try:
            producer.produce(
                message.topic,
                key=message.key,
                value=message.value,
                headers=list(message.headers),
                on_delivery=delivered,
            )
        except BufferError:  # noqa: PERF203 - the queue is full: the client needs time to send
            producer.poll(0.1)
        else:
            return


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _error_of(fault: KafkaException) -> KafkaError:
    error: KafkaError = fault.args[0]
    return error


def _name_of(fault: KafkaException) -> str:
    return _error_of(fault).name()
