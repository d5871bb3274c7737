"""Tell capture to look now, or that deletes are meant: messages on `capture.hints`.

Partition i of that topic belongs to the i-th captured entity, whose owner is thereby the one that reads the hint.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Literal

from confluent_kafka import KafkaException, Producer

from drawbar.bus.clients import make_producer
from drawbar.settings import BusSettings
from schemas.errors import BusUnavailable
from schemas.topics import CAPTURED, HINTS

FLUSH_S = 10.0

Entity = tuple[str, str]  # system and entity, as in the table of captured ones
Kind = Literal["look", "confirm-deletes"]


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
            hint = {
                "kind": kind,
                "system": system,
                "entity": entity,
                "sweep": sweep,
                "at": datetime.now(timezone.utc).isoformat(),
            }
            try:
                self._producer.produce(
                    HINTS,
                    key=f"{system}.{entity}".encode(),
                    value=json.dumps(hint).encode(),
                    partition=CAPTURED.index((system, entity)),
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
