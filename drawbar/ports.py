"""The three ports through which every worker reaches the world: HTTP, bus and clock.

Each has a real implementation and a simulated one, so that a worker can be run inside one process under a seed, with
every loss, delay, repeat and crash that the seed says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP reply. `body` is the parsed JSON (numbers with a fraction as Decimal), None when there is none."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case
    body: Any = None
    is_json: bool = True  # False: the body was XML, HTML or broken JSON, and `body` is None
    xml: bytes = b""  # the body of a metadata document


class NoReply(Exception):
    """No usable answer came. `sent`: the request may have reached the server, so a write may have been done."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent


class Http(Protocol):
    """One system's API, signed in. Never retries a request by itself; a 401 gets one fresh token and one repeat."""

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Reply:
        """`path` is relative to the service root, or an absolute URL below it (a next link). Raises NoReply."""
        ...


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware UTC."""
        ...

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class OutMessage(Struct, frozen=True, kw_only=True, gc=False):
    topic: str
    key: bytes
    value: bytes | None  # None: a tombstone
    headers: tuple[tuple[str, bytes], ...] = ()


class InMessage(Struct, frozen=True, kw_only=True, gc=False):
    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int = 0


class Bus(Protocol):
    """What a worker does with Kafka."""

    def publish(self, messages: Sequence[OutMessage]) -> None:
        """Send and return once the broker has every message. Raises BusUnavailable."""
        ...

    def poll(self, timeout_s: float) -> Sequence[InMessage]:
        """What arrived on the subscribed topics, in order within each partition."""
        ...

    def commit(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Acknowledge, per topic and partition, everything before the offset given."""
        ...
