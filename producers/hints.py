"""Messages on `capture.hints`: look now, or publish the deletes that stopped an entity.

Pure. Partition i of the topic belongs to the i-th captured entity, so that its assignment in the consumer group names
one owner per entity, and so that a hint reaches that owner. A hint is JSON text; losing it costs latency, never data.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from producers.capture import entity_key
from schemas.records import System
from schemas.topics import CAPTURED


class HintKind(str, Enum):
    LOOK = "look"
    CONFIRM_DELETES = "confirm-deletes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """`sweep`: list all ids as well, so that deletes in the ERP are seen at once."""

    kind: HintKind
    system: System
    entity: str
    sweep: bool = False

    @property
    def key(self) -> bytes:
        return entity_key(self.system, self.entity).encode()

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
        raise KeyError(entity_key(system, entity)) from None


def entity_at(partition: int) -> tuple[System, str] | None:
    """Whose partition it is; None for a partition that the topic table does not know."""
    if not 0 <= partition < len(CAPTURED):
        return None
    system, entity = CAPTURED[partition]
    return System(system), entity
