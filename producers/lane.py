"""One lane to one system, shared by the threads of all its entities: so many requests at once, so many in 5 minutes.

Stands before another `Http`. While the system has asked us to stop, a request is not sent at all: it is answered here
as the system would, with 429 and the seconds that are left, so that each entity shows that it waits.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from drawbar.odata import retry_after_s
from drawbar.ports import Clock, Http, NoReply, Reply
from drawbar.throttle import Throttle

PATIENCE_S = 1.0  # a pause up to this is waited for here


class LaneHttp:
    """Implements `drawbar.ports.Http`. Safe to use from several threads."""

    def __init__(self, http: Http, throttle: Throttle, clock: Clock) -> None:
        self._http = http
        self._throttle = throttle
        self._clock = clock
        self._moved = threading.Condition()
        self._requests = 0

    def status(self) -> dict[str, Any]:
        """How much the system was asked, how often it refused, and how much of the budget is used."""
        with self._moved:
            return {
                "requests": self._requests,
                "throttled": self._throttle.throttled,
                "allowance_used": round(self._throttle.used_share(self._clock.monotonic()), 4),
            }

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Reply:
        closed_for_s = self._enter()
        if closed_for_s > 0:
            return Reply(status=429, headers={"retry-after": f"{closed_for_s:.3f}"})
        try:
            reply = self._http.call(method, path, body=body, headers=headers, timeout_s=timeout_s)
        except NoReply as fault:
            self._leave(None, fault.reason)
            raise
        except BaseException:
            self._leave(None, "broken off")
            raise
        self._leave(reply, "")
        return reply

    def _enter(self) -> float:
        """Return 0 once a request may be sent, or the seconds for which the lane stays closed."""
        with self._moved:
            while not self._throttle.admit(now := self._clock.monotonic()):
                wait_s = self._throttle.wait_s(now)
                if wait_s > PATIENCE_S:
                    return wait_s
                self._moved.wait(wait_s or PATIENCE_S)
            self._requests += 1
        return 0.0

    def _leave(self, reply: Reply | None, reason: str) -> None:
        with self._moved:
            now = self._clock.monotonic()
            if reply is None:
                self._throttle.failed(now, reason=reason)
            elif reply.status == 429:
                self._throttle.refused(now, retry_after_s=retry_after_s(reply, self._clock.now()))
            elif reply.status >= 500:
                self._throttle.failed(now, retry_after_s=retry_after_s(reply, self._clock.now()))
            else:
                self._throttle.succeeded(now, hint=_parallel_hint(reply))
            self._moved.notify_all()


def _parallel_hint(reply: Reply) -> int | None:
    """How many requests at once Dataverse recommends."""
    text = reply.headers.get("x-ms-dop-hint", "")
    return int(text) if text.isdecimal() else None
