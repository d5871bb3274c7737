"""What was asked: how often, by whom, and the latest requests one by one. Pure."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any

KEPT = 10_000  # requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request, and what became of it."""

    at: str  # the sandbox's time when it was answered
    client_id: str  # empty where the token was none
    system: str
    method: str
    target: str  # path and query
    set: str
    status: int  # 0: no answer was sent
    took_ms: float  # with waiting; real time


class Traffic:
    """Counts of each application by system, method, set and status; and the last requests."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, str, str, int]] = Counter()
        self.last: deque[tuple[int, Asked]] = deque(maxlen=KEPT)
        self._number = 0

    def note(self, asked: Asked) -> None:
        self._number += 1
        self.counts[(asked.client_id, asked.system, asked.method, asked.set, asked.status)] += 1
        self.last.append((self._number, asked))

    def rows(self) -> list[dict[str, Any]]:
        names = ("client_id", "system", "method", "set", "status", "count")
        return [dict(zip(names, (*key, count), strict=True)) for key, count in sorted(self.counts.items())]

    def log(self, *, after: int = 0, client_id: str | None = None, system: str | None = None) -> list[dict[str, Any]]:
        """Oldest first, each with its `number` among all requests since the start."""
        return [
            {"number": number, **asdict(asked)}
            for number, asked in self.last
            if number > after and client_id in (None, asked.client_id) and system in (None, asked.system)
        ]

    def clear(self) -> None:
        """The numbers go on, so that who asks for what came after one misses nothing."""
        self.counts.clear()
        self.last.clear()
