"""What time it is in the sandbox: as on this machine, until somebody says otherwise. Reads the machine's clock."""

from __future__ import annotations

import datetime as dt
import time
from email.utils import formatdate


class Clock:
    """Set, moved and run faster or slower by the control endpoint. Never stands still unless told to (rate 0)."""

    def __init__(self) -> None:
        self._shown_s = self._real_s = 0.0
        self.rate = 1.0

    def now_s(self) -> float:
        """Seconds since 1970."""
        return self._shown_s + (time.time() - self._real_s) * self.rate

    def now_ms(self) -> int:
        return int(self.now_s() * 1000)

    def now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.now_s(), dt.timezone.utc)

    def whole_seconds(self) -> str:
        """As the Web API shows a time."""
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")

    def http_date(self) -> str:
        """As a `Date` header says it: in whole seconds, cut off."""
        return formatdate(int(self.now_s()), usegmt=True)

    def set(self, moment_s: float, *, rate: float | None = None) -> None:
        self._shown_s, self._real_s = moment_s, time.time()
        self.rate = self.rate if rate is None else rate

    def reset(self) -> None:
        """As on this machine again."""
        self._shown_s = self._real_s = 0.0
        self.rate = 1.0
