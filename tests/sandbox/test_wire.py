"""What the sandbox makes of a request that does not arrive whole."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from drawbar.sandbox.clock import Clock
from drawbar.sandbox.faults import Faults
from drawbar.sandbox.latency import Latencies
from drawbar.sandbox.limits import Refusal
from drawbar.sandbox.traffic import Traffic
from drawbar.sandbox.wire import Endpoint, Reply, Request, Surroundings


class Books:
    """A service that takes whatever it is sent, and remembers it."""

    system = "crm"

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def caller(self, request: Request) -> str | None:
        return "an app"

    def target(self, request: Request) -> str:
        return "accounts"

    def weight(self, request: Request) -> int:
        return 1

    def handle(self, request: Request) -> Reply:
        self.bodies.append(request.body)
        return Reply(204)

    def refused(self, request: Request, refusal: Refusal) -> Reply:
        return Reply(429)

    def failed(self, request: Request) -> Reply:
        return Reply(500)


def sent(
    service: Books, traffic: Traffic, *messages: Mapping[str, Any], clock: Clock | None = None
) -> list[dict[str, Any]]:
    """What the application answers when the server hands it these messages of one request."""
    surroundings = Surroundings(
        clock=clock or Clock(), faults=Faults(), latencies=Latencies(random_seed=1), traffic=traffic
    )
    endpoint = Endpoint(service, surroundings, limits=None)
    scope = {"type": "http", "method": "PATCH", "path": "/accounts(1)", "query_string": b"", "headers": []}
    rest = iter(messages)
    answers: list[dict[str, Any]] = []

    async def receive() -> Mapping[str, Any]:
        return next(rest)

    async def send(message: dict[str, Any]) -> None:
        answers.append(message)

    asyncio.run(endpoint(scope, receive, send))
    return answers


GONE = {"type": "http.disconnect"}
HALF = {"type": "http.request", "body": b'{"name": ', "more_body": True}
REST = {"type": "http.request", "body": b'"Half"}', "more_body": False}


class TestRequest:
    def test_in_parts_is_put_together(self):
        """RFC 9112, section 6: how long a body is does not depend on how it arrives."""
        service = Books()

        assert [204] == [message["status"] for message in sent(service, Traffic(), HALF, REST) if "status" in message]
        assert [b'{"name": "Half"}'] == service.bodies

    @pytest.mark.parametrize("messages", [(GONE,), (HALF, GONE)], ids=["before the body", "in the body"])
    def test_that_was_cut_off_is_not_carried_out(self, messages: tuple[Mapping[str, Any], ...]):
        """What is not whole is no request (RFC 9112, section 8): it must not pass for one with an empty body."""
        service, traffic = Books(), Traffic()

        assert [] == sent(service, traffic, *messages)
        assert [] == service.bodies
        assert [] == traffic.rows()


class TestReply:
    def test_is_dated_when_it_is_made(self):
        """A Date header says when the answer was made (RFC 9110, section 6.6.1), however busy the process is; by the
        clock of the services, which may be set.
        """
        clock = Clock()
        clock.set(1_793_534_400.9, rate=0)

        (start, _) = sent(Books(), Traffic(), REST, clock=clock)

        assert dict(start["headers"])[b"date"] == b"Sun, 01 Nov 2026 12:00:00 GMT"
