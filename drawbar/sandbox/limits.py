"""How much one application may ask of a system: the service protection of Dataverse, the quotas of Business Central.

Sources: "Service protection API limits" (Dataverse), "Operational limits" (Business Central online).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from drawbar.sandbox.servers import Servers

WINDOW_S = 300.0  # both services count over five minutes
REQUESTS = 6000  # per window and user, both services
ERP_RUNNING = 5
ERP_QUEUE = 95
ERP_QUEUE_S = 480.0
CRM_EXECUTION_S = 1200.0  # per window
CRM_CONCURRENT = 52
CRM_DOP_HINT = 4  # requests side by side, of each server


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which limit was reached, what it is now, and how long until it would not be."""

    facet: str  # requests, execution, concurrency, queue, time (in the queue)
    limit: int
    retry_after_s: int


@dataclass(slots=True)
class LimitSettings:
    on: bool = True
    scale: float = 1.0  # on every count; 0.01 makes 6,000 requests 60
    window_s: float = WINDOW_S
    queue_s: float = ERP_QUEUE_S  # in which a request that waits gets its turn; Business Central

    def scaled(self, limit: float) -> int:
        return max(1, int(limit * self.scale))


class Limits(Protocol):
    """Requests are counted by `who`: an application, where there are several servers on one of them."""

    @property
    def on(self) -> bool: ...

    def who(self, app: str, headers: Mapping[str, str]) -> tuple[str, str | None]:
        """On whose count a request goes, and the cookie its answer is to bring."""

    async def admit(self, who: str, *, weight: int = 1) -> Refusal | None: ...

    def release(self, who: str, seconds: float) -> None: ...

    def headers(self, who: str) -> dict[str, str]: ...


@dataclass(slots=True)
class _Load:
    requests: deque[float] = field(default_factory=deque)
    executions: deque[tuple[float, float]] = field(default_factory=deque)
    executed_s: float = 0.0
    running: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class _Counted:
    def __init__(self, settings: LimitSettings) -> None:
        self.settings = settings
        self._loads: dict[str, _Load] = {}

    @property
    def on(self) -> bool:
        return self.settings.on

    def forget(self) -> None:
        """Start counting anew; what runs or waits now is still known."""
        for load in self._loads.values():
            load.requests.clear()
            load.executions.clear()
            load.executed_s = 0.0

    def _load(self, who: str, now: float) -> _Load:
        load = self._loads.get(who)
        if load is None:
            load = self._loads[who] = _Load()
        edge = now - self.settings.window_s
        while load.requests and load.requests[0] <= edge:
            load.requests.popleft()
        while load.executions and load.executions[0][0] <= edge:
            load.executed_s -= load.executions.popleft()[1]
        return load

    def _until_free(self, load: _Load, now: float) -> int:
        return max(1, math.ceil(load.requests[0] + self.settings.window_s - now)) if load.requests else 1


class BusinessCentralLimits(_Counted):
    """6,000 requests in five minutes; five run, 95 wait, the next is refused."""

    def who(self, app: str, headers: Mapping[str, str]) -> tuple[str, None]:  # noqa: ARG002 - there is one server
        return app, None

    async def admit(self, who: str, *, weight: int = 1) -> Refusal | None:
        now = time.monotonic()
        load = self._load(who, now)
        limit = self.settings.scaled(REQUESTS)
        if len(load.requests) >= limit:
            return Refusal("requests", limit, self._until_free(load, now))
        queue = self.settings.scaled(ERP_QUEUE)
        if load.running >= ERP_RUNNING:
            if len(load.waiting) >= queue:
                return Refusal("queue", queue + ERP_RUNNING, 1)
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            load.waiting.append(turn)
            await asyncio.wait((turn,), timeout=self.settings.queue_s)
            if not turn.done():  # it may have come at the last moment
                load.waiting.remove(turn)
                return Refusal("time", queue, 1)
        else:
            load.running += 1
        load.requests.extend([now] * weight)
        return None

    def release(self, who: str, seconds: float) -> None:  # noqa: ARG002 - Business Central does not count time
        load = self._loads[who]
        if load.waiting:
            load.waiting.popleft().set_result(None)  # the place passes on, `running` stays
        else:
            load.running -= 1

    def headers(self, who: str) -> dict[str, str]:  # noqa: ARG002 - it tells nothing either
        return {}


class DataverseLimits(_Counted):
    """6,000 requests and 20 minutes of execution in five minutes, 52 at once: each server for itself."""

    def __init__(self, settings: LimitSettings, servers: Servers | None = None) -> None:
        super().__init__(settings)
        self.servers = servers or Servers()

    def who(self, app: str, headers: Mapping[str, str]) -> tuple[str, str | None]:
        server, cookie = self.servers.reached(headers)
        return f"{app} {server}", cookie

    async def admit(self, who: str, *, weight: int = 1) -> Refusal | None:
        now = time.monotonic()
        load = self._load(who, now)
        at_once = self.settings.scaled(CRM_CONCURRENT)
        if load.running >= at_once:
            return Refusal("concurrency", at_once, 1)
        limit = self.settings.scaled(REQUESTS)
        if len(load.requests) >= limit:
            return Refusal("requests", limit, self._until_free(load, now))
        execution_s = self.settings.scaled(CRM_EXECUTION_S)
        if load.executed_s >= execution_s:
            return Refusal("execution", execution_s * 1000, self._until_free(load, now))
        load.running += 1
        load.requests.extend([now] * weight)
        return None

    def release(self, who: str, seconds: float) -> None:
        load = self._loads[who]
        load.running -= 1
        load.executed_s += seconds
        load.executions.append((time.monotonic(), seconds))

    def headers(self, who: str) -> dict[str, str]:
        load = self._loads[who]
        requests = max(0, self.settings.scaled(REQUESTS) - len(load.requests))
        seconds = max(0.0, self.settings.scaled(CRM_EXECUTION_S) - load.executed_s)
        return {
            "x-ms-ratelimit-burst-remaining-xrm-requests": str(requests),
            "x-ms-ratelimit-time-remaining-xrm-requests": f"{seconds:.2f}",
            "x-ms-dop-hint": str(CRM_DOP_HINT * self.servers.count),
        }
