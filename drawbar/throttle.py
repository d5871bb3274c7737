"""How many requests may be under way, how fast they may follow, and when all must stop.

Pure: time is an argument (seconds of a monotonic clock). One `Throttle` stands for the lane of one application to one
system. Both services count requests per user in a window of 300 s and answer 429 when it is full; going on while they
ask us to stop makes the pause longer, so the whole lane stops, not the one request.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

WINDOW_S = 300
BURST_SHARE = 0.1  # with it, a window holds at most 110 % of the budget: 5,940 of the services' 6,000 by default
REFUSAL_BASE_S, REFUSAL_CAP_S = 1.0, 60.0  # a 429 that names no pause: 1, 2, 4 … 60 s
JITTER_SHARE = 0.25
SLOT_S = 10  # requests are counted in slots of this length, for the share that is used


def retry_delay(
    attempt: int, *, base_s: float, cap_s: float, retry_after_s: float | None = None, jitter: float = 0.0
) -> float:
    """Seconds to wait before retry number `attempt` (1 is the first).

    Doubles from `base_s` up to `cap_s`. The server's `Retry-After` stands, even above the cap. `jitter`, from 0 to 1,
    adds up to a quarter, so that those who failed together do not come back together.

    Raises ValueError when `attempt` is below 1.
    Source: RFC 9110, section 10.2.3.
    """
    if attempt < 1:
        raise ValueError("the first retry is number 1")
    doublings = min(attempt - 1, 64)  # beyond it a float has long passed any cap
    delay = min(cap_s, base_s * 2.0**doublings) if retry_after_s is None else retry_after_s
    return delay * (1 + JITTER_SHARE * jitter)


@dataclass(slots=True, kw_only=True)
class Throttle:
    """The lane's state. `admit` before a request; exactly one of `succeeded`, `refused`, `failed` after it."""

    max_parallel: int
    requests_per_5_min: int
    attempts: int = 5  # failures in a row that make an outage
    backoff_base_s: float = 0.2
    backoff_cap_s: float = 60.0
    in_flight: int = 0
    stopped_until: float = 0.0
    paused_reason: str = ""  # why the lane stands still; blank while it moves
    throttled: int = 0  # refusals so far
    successes: int = 0
    _limit: float = field(init=False)
    _hint: int | None = None
    _tokens: float = field(init=False)
    _filled_at: float | None = None
    _refusals_in_row: int = 0
    _slots: deque[list[int]] = field(default_factory=deque)  # number of the slot, requests in it
    _failures_in_row: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})  # of writes, of reads

    def __post_init__(self) -> None:
        self._limit = float(self.max_parallel)
        self._tokens = self._capacity

    @property
    def limit(self) -> int:
        """Requests that may be under way at once, now."""
        if self.is_out:
            return 1  # one request finds out whether an outage is over
        return max(1, int(min(self._limit, self.ceiling)))

    @property
    def ceiling(self) -> int:
        return self.max_parallel if self._hint is None else max(1, min(self.max_parallel, self._hint))

    @property
    def is_out(self) -> bool:
        """An outage: so many failures in a row that no single record can be at fault."""
        return self._longest_row >= self.attempts

    def wait_s(self, now: float) -> float:
        """Seconds until the clock alone lets the next request go; 0 when it may go as soon as there is room."""
        self._fill(now)
        short = (1 - self._tokens) / self._rate if self._tokens < 1 else 0.0
        return max(0.0, self.stopped_until - now, short)

    def admit(self, now: float) -> bool:
        """Whether a request may start; counts it when it may."""
        if self.in_flight >= self.limit or self.wait_s(now) > 0:
            return False
        self._tokens -= 1
        self.in_flight += 1
        slot = int(now // SLOT_S)
        if not self._slots or self._slots[-1][0] != slot:
            self._slots.append([slot, 0])
        self._slots[-1][1] += 1
        self._forget_slots(slot)
        return True

    def used_share(self, now: float) -> float:
        """Requests of the last window, to `SLOT_S` exactly, as a share of the budget; may pass 1 by the burst."""
        self._forget_slots(int(now // SLOT_S))
        return sum(requests for _, requests in self._slots) / self.requests_per_5_min

    def succeeded(self, now: float, *, hint: int | None = None, write: bool = False) -> None:
        """The system answered, whatever it said of the record. `hint`: its own idea of how many at once.

        A read that succeeds says nothing of writes: a system can be read while it takes none.
        """
        self._end(hint)
        self.successes += 1
        if now < self.stopped_until:
            return  # sent before the stop, so says nothing of whether it is over
        was_out = self.is_out
        self._refusals_in_row = self._failures_in_row[False] = 0
        if write:
            self._failures_in_row[True] = 0
        if self.is_out:
            return
        self.paused_reason = ""
        if was_out:
            self._limit = 1.0
        self._limit = min(self._limit + 1 / max(1.0, self._limit), float(self.max_parallel))

    def refused(self, now: float, *, retry_after_s: float | None = None, jitter: float = 0.0) -> None:
        """A 429: the lane stops, then goes on at half its width. What was sent before the stop counts once."""
        self._end(None)
        self.throttled += 1
        first = now >= self.stopped_until
        if first:
            self._refusals_in_row += 1
            self._limit = max(1.0, min(self._limit, self.ceiling) / 2)
        delay = retry_delay(
            max(1, self._refusals_in_row),
            base_s=REFUSAL_BASE_S,
            cap_s=REFUSAL_CAP_S,
            retry_after_s=retry_after_s,
            jitter=jitter,
        )
        if first or retry_after_s is not None:
            self.stopped_until = max(self.stopped_until, now + delay)
        self.paused_reason = "throttled"

    def failed(
        self,
        now: float,
        *,
        reason: str = "unavailable",
        retry_after_s: float | None = None,
        jitter: float = 0.0,
        write: bool = False,
        again: bool = False,
    ) -> None:
        """No answer, or one that says the system cannot serve. From `attempts` in a row on the lane stops each time.

        `again`: it may be the fault of one record, which failed before; that says nothing new of the system.
        """
        self._end(None)
        first = now >= self.stopped_until
        if not again and (first or not self.is_out):
            self._failures_in_row[write] += 1
        if not (self.is_out or retry_after_s is not None):
            return
        beyond = max(1, self._longest_row - self.attempts + 1)
        delay = retry_delay(
            beyond,
            base_s=self.backoff_base_s,
            cap_s=self.backoff_cap_s,
            retry_after_s=retry_after_s,
            jitter=jitter,
        )
        self.stopped_until = max(self.stopped_until, now + delay)
        self.paused_reason = reason

    @property
    def _longest_row(self) -> int:
        return max(self._failures_in_row.values())

    def _end(self, hint: int | None) -> None:
        self.in_flight -= 1
        if hint is not None and hint > 0:
            self._hint = hint

    def _forget_slots(self, slot: int) -> None:
        while self._slots and self._slots[0][0] <= slot - WINDOW_S // SLOT_S:
            self._slots.popleft()

    @property
    def _rate(self) -> float:
        return self.requests_per_5_min / WINDOW_S

    @property
    def _capacity(self) -> float:
        return max(1.0, self.requests_per_5_min * BURST_SHARE)

    def _fill(self, now: float) -> None:
        if self._filled_at is not None:
            self._tokens = min(self._capacity, self._tokens + max(0.0, now - self._filled_at) * self._rate)
        self._filled_at = now
