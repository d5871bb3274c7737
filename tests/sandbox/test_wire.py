"""What the sandbox makes of a request that does not arrive whole."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest

from drawbar.sandbox.addresses import alias_of
from drawbar.sandbox.clock import Clock
from drawbar.sandbox.faults import Faults
from drawbar.sandbox.latency import Latencies
from drawbar.sandbox.limits import Refusal
from drawbar.sandbox.traffic import Traffic
from drawbar.sandbox.wire import Endpoint, Reply, Request, Surroundings
from tests.sandbox.client import Client, Info


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


class TestAddresses:
    """Source: the sandbox itself."""

    @pytest.mark.parametrize("host", ["127.0.0.1:{port}", "erp.example", "[::1]:{port}"])
    def test_in_answers_are_of_the_name_that_the_client_has_for_the_service(self, info: Info, erp: Client, host: str):
        """As behind a proxy, or for a client that knows no address but the real one."""
        named = host.format(port=urlsplit(info["erp"]["base_url"]).port)
        headers = {"Host": named, "Prefer": "odata.maxpagesize=1"}

        page = erp.get("customers", headers=headers).json()
        made = erp.post("customers", {"displayName": "By another name"}, headers=headers)

        assert page["@odata.nextLink"].startswith(f"https://{named}/")
        assert made.headers["Location"].startswith(f"https://{named}/")
        assert page["@odata.context"].startswith(f"https://{named}/")

    def test_of_that_name_are_understood_in_what_it_sends(self, crm: Client):
        headers = {"Host": "crm.example"}
        account = crm.post("accounts", {"name": "N"}, headers=headers).headers["OData-EntityId"]
        body = {"lastname": "L", "parentcustomerid_account@odata.bind": account}

        assert account.startswith("https://crm.example/")
        assert crm.post("contacts", body, headers=headers).status_code == 204

    @pytest.mark.parametrize("host", ["", "two words", "a/b", "evil.example/@x", "x:99999999"])
    def test_are_the_services_own_where_the_name_is_none(self, host: str):
        assert alias_of("https://localhost:8443", host) is None
