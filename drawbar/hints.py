"""Messages on `capture.hints`: look now, or publish the deletes that stopped an entity; and how a command sends them.

Partition i of the topic belongs to the i-th captured entity, so that its assignment in the consumer group names
one owner per entity, and so that a hint reaches that owner. A hint is JSON text; losing it costs latency, never data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import Literal

from confluent_kafka import KafkaException, Producer

from drawbar.bus.clients import make_producer
from drawbar.settings import BusSettings
from schemas.errors import BusUnavailable
from schemas.records import System
from schemas.topics import CAPTURED, HINTS

FLUSH_S = 10.0

Entity = tuple[str, str]  # system and entity, as in the table of captured ones
Kind = Literal["look", "confirm-deletes", "anew"]


class HintKind(str, Enum):
    LOOK = "look"
    CONFIRM_DELETES = "confirm-deletes"
    ANEW = "anew"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """`sweep`: list all ids as well, so that deletes in the ERP are seen at once."""

    kind: HintKind
    system: System
    entity: str
    sweep: bool = False

    @property
    def key(self) -> bytes:
        return f"{self.system.value}.{self.entity}".encode()

    @property
    def partition(self) -> int:
        """Where it must be produced to. Raises KeyError for an entity that is not captured."""
        return partition_of(self.system, self.entity)

    def to_json(self, at: datetime) -> bytes:
        said = {"kind": self.kind.value, "system": self.system.value, "entity": self.entity, "at": at.isoformat()}
        return json.dumps({**said, "sweep": True} if self.sweep else said).encode()


def read_hint(value: bytes | None) -> Hint | None:
    """The hint in a message; None for what is none, which is passed over."""
    try:
        said = json.loads(value or b"")
        return Hint(
            kind=HintKind(said["kind"]),
            system=System(said["system"]),
            entity=str(said["entity"]),
            sweep=said.get("sweep") is True,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def partition_of(system: System, entity: str) -> int:
    """Raises KeyError for an entity that is not captured."""
    try:
        return CAPTURED.index((system.value, entity))
    except ValueError:
        raise KeyError(f"{system.value}.{entity}") from None


def entity_at(partition: int) -> tuple[System, str] | None:
    """Whose partition it is; None for a partition that the topic table does not know."""
    if not 0 <= partition < len(CAPTURED):
        return None
    system, entity = CAPTURED[partition]
    return System(system), entity


class Hints:
    """Sends hints over one client. Belongs to one thread."""

    def __init__(self, bus: BusSettings) -> None:
        self._producer: Producer = make_producer(
            bus.bootstrap_servers,
            client_id="drawbar-hints",
            extra={"message.timeout.ms": str(int(FLUSH_S * 1000)), "linger.ms": "0", **bus.extra},
        )

    def send(self, entities: Iterable[Entity], *, kind: Kind, sweep: bool = False) -> None:
        """Return once the broker has them. Raises BusUnavailable when it does not take them."""
        failed: list[str] = []

        def delivered(error: object, _message: object) -> None:
            if error is not None:
                failed.append(str(getattr(error, "name", lambda: "unknown")()))

        for system, entity in entities:
            hint = Hint(kind=HintKind(kind), system=System(system), entity=entity, sweep=sweep)
            try:
                self._producer.produce(
                    HINTS,
                    key=hint.key,
                    value=hint.to_json(datetime.now(timezone.utc)),
                    partition=hint.partition,
                    on_delivery=delivered,
                )
            except (BufferError, KafkaException) as fault:
                raise BusUnavailable("capture cannot be told to look") from fault
        left = self._producer.flush(FLUSH_S)
        if left or failed:
            raise BusUnavailable(f"capture cannot be told to look: {failed[0] if failed else 'no answer'}")


def send_hints(bus: BusSettings, entities: Iterable[Entity], *, kind: Kind, sweep: bool = False) -> None:
    """Send a few hints and be done. Raises BusUnavailable."""
    Hints(bus).send(entities, kind=kind, sweep=sweep)
