"""The brakes of a running system: read and set on their topic, and kept to by every process that decides.

A process says in its heartbeat how far it has read the topic, and only once nothing more leaves that it decided before.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from confluent_kafka import KafkaError, KafkaException, Message

from drawbar.bus.clients import latest_by_key, make_producer
from drawbar.settings import BusSettings
from drawbar.status import Beat, BeatReader
from schemas.brakes import Brake, read_brake
from schemas.errors import BrakeNotConfirmed, BusUnavailable
from schemas.topics import BRAKES

SEND_TIMEOUT_S = 10.0
CONFIRM_TIMEOUT_S = 30.0  # a process reports every second; one that is not there any more is forgotten after ten
LOOK_EVERY_S = 0.1


def read_brakes(bus: BusSettings) -> dict[str, Brake]:
    """Every brake that was ever set, by its key. Raises BusUnavailable, TopicMismatch."""
    latest = latest_by_key(bus.bootstrap_servers, BRAKES, extra=bus.extra)
    return {key.decode(): read_brake(_bytes(message.value())) for key, message in latest.items()}


def set_brakes(bus: BusSettings, brakes: Mapping[str, Brake]) -> int:
    """Set them, in this order. Returns the offset of the last once the broker has them all.

    Raises BusUnavailable when it does not take one; those before it may be set.
    """
    offsets: list[int] = []
    faults: list[str] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            faults.append(error.name())
        else:
            offsets.append(message.offset() or 0)

    extra = {"message.timeout.ms": str(int(SEND_TIMEOUT_S * 1000)), "linger.ms": "0", **bus.extra}
    producer = make_producer(bus.bootstrap_servers, client_id="drawbar-brakes", extra=extra)
    try:
        for key, brake in brakes.items():
            producer.produce(BRAKES, key=key.encode(), value=brake.to_text(), on_delivery=delivered)
    except (BufferError, KafkaException) as fault:
        raise BusUnavailable("a brake cannot be set") from fault
    left = producer.flush(SEND_TIMEOUT_S)
    if left or faults:
        raise BusUnavailable(
            f"a brake was not set: {faults[0] if faults else 'no answer'}",
            next_step="see what is set: drawbar brakes show; then repeat the command",
        )
    return max(offsets, default=-1)


def unconfirmed(beats: Iterable[Beat], offset: int) -> list[Beat]:
    """The processes that may still send what they decided before they read the brake at this offset."""
    return [beat for beat in beats if beat.stage == "process" and beat.number("brakes_position") <= offset]


def await_confirmed(bus: BusSettings, offset: int, *, timeout_s: float = CONFIRM_TIMEOUT_S) -> int:
    """Return once every process that decides keeps to the brake at this offset: how many there are.

    One that starts later reads all brakes before it decides. Raises BrakeNotConfirmed naming those that are missing.
    """
    deadline = time.monotonic() + timeout_s
    with BeatReader(bus) as reader:
        while late := unconfirmed(reader.beats(), offset):
            if time.monotonic() > deadline:
                names = ", ".join(f"{beat.name} on {beat.host}" for beat in late)
                raise BrakeNotConfirmed(f"not confirmed after {timeout_s:g} s by {names}")
            reader.poll(LOOK_EVERY_S)
        return sum(beat.stage == "process" for beat in reader.beats())


def _bytes(data: str | bytes | None) -> bytes:
    return data.encode() if isinstance(data, str) else data or b""
