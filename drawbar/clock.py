"""The real clock; the only place where a worker learns the time."""

from __future__ import annotations

import time
from datetime import datetime, timezone


class SystemClock:
    """Implements `drawbar.ports.Clock`."""

    def now(self) -> datetime:
        return datetime.now(timezone.utc)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
