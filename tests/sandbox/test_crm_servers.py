"""Dataverse's web servers: whom a request reaches, and that each throttles for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.sandbox.client import Client, Control, Info, error_code

PER_SERVER = 6  # requests, as the tests scale them
WITHOUT_COOKIE = {"Cookie": ""}


@pytest.fixture(scope="module")
def info(start: Callable[..., Info]) -> Info:
    return start(seed="empty", servers=3)


@pytest.fixture(autouse=True)
def few(control: Control, crm: Client) -> Iterator[None]:
    """A thousandth of what the service allows, nothing used of it, and a client that belongs nowhere yet."""
    crm.http.cookies.clear()
    control("POST", "limits", {"system": "crm", "scale": PER_SERVER / 6000, "servers": 3})
    yield
    control("POST", "limits", {"system": "crm", "scale": 1})


def asked(crm: Client, count: int, **given: dict[str, str]) -> list[int]:
    return [crm.get("WhoAmI", **given).status_code for _ in range(count)]


class TestAffinity:
    """learn.microsoft.com/power-apps/developer/data-platform/send-parallel-requests#server-affinity"""

    def test_a_client_that_sends_the_cookie_back_stays_on_its_server(self, crm: Client):
        first = crm.get("WhoAmI")
        second = crm.get("WhoAmI")

        assert 64 == len(first.cookies["ARRAffinity"])
        assert "ARRAffinity" not in second.cookies

    def test_a_client_without_it_reaches_them_all(self, crm: Client):
        reached = {crm.get("WhoAmI", headers=WITHOUT_COOKIE).cookies["ARRAffinity"] for _ in range(6)}

        assert 3 == len(reached)

    def test_a_server_that_is_gone_is_left(self, control: Control, crm: Client):
        cookies = {crm.get("WhoAmI", headers=WITHOUT_COOKIE).cookies["ARRAffinity"] for _ in range(3)}
        control("POST", "limits", {"system": "crm", "servers": 1})
        anew = [
            crm.get("WhoAmI", headers={"Cookie": f"ARRAffinity={cookie}"}).cookies.get("ARRAffinity")
            for cookie in cookies
        ]

        assert 2 == len([cookie for cookie in anew if cookie])


class TestLimits:
    """learn.microsoft.com/power-apps/developer/data-platform/api-limits"""

    def test_the_requests_of_a_server_are_used_up_by_one_client(self, crm: Client):
        assert [200] * PER_SERVER + [429] == asked(crm, PER_SERVER + 1)
        refused = crm.get("WhoAmI")
        assert (429, "0x80072322") == error_code(refused)
        assert refused.headers["REQ_ID"] == refused.headers["x-ms-service-request-id"]

    def test_the_limit_multiplies_without_the_cookie(self, crm: Client):
        statuses = asked(crm, 3 * PER_SERVER + 1, headers=WITHOUT_COOKIE)

        assert [200] * 3 * PER_SERVER + [429] == statuses

    def test_what_is_left_is_told_of_each(self, crm: Client):
        left = [
            int(crm.get("WhoAmI", headers=headers).headers["x-ms-ratelimit-burst-remaining-xrm-requests"])
            for headers in ({}, {}, WITHOUT_COOKIE)
        ]

        assert [PER_SERVER - 1, PER_SERVER - 2] == left[:2]
        assert PER_SERVER - 1 == left[2]

    @pytest.fixture
    def slow(self, control: Control, crm: Client) -> Iterator[dict[str, str]]:
        """A server gives one request at once and a second of time, and a request takes 0.35 s; the cookie of one."""
        cookie = crm.get("WhoAmI").cookies["ARRAffinity"]
        control("POST", "limits", {"system": "crm", "scale": 1 / 1200})
        control("POST", "latency", {"system": "crm", "ms": 350})
        yield {"Cookie": f"ARRAffinity={cookie}"}
        control("POST", "latency", {"system": "crm", "ms": 0})

    def test_what_runs_at_once_is_counted_by_server(self, crm: Client, slow: dict[str, str]):
        with ThreadPoolExecutor(2) as pool:
            apart = list(pool.map(lambda _: crm.get("WhoAmI", headers=WITHOUT_COOKIE), range(2)))
            together = list(pool.map(lambda _: crm.get("WhoAmI", headers=slow), range(2)))  # connections are open now

        assert [200, 429] == sorted(reply.status_code for reply in together)
        assert {(429, "0x80072326")} == {error_code(reply) for reply in together if reply.status_code == 429}
        assert [200, 200] == [reply.status_code for reply in apart]

    def test_the_time_it_takes_is_counted_by_server(self, crm: Client, slow: dict[str, str]):
        used_up = [crm.get("WhoAmI", headers=slow) for _ in range(4)]

        assert [200, 200, 200, 429] == [reply.status_code for reply in used_up]
        assert (429, "0x80072321") == error_code(used_up[3])
        assert "1000 milliseconds" in used_up[3].text
        assert 200 in asked(crm, 2, headers=WITHOUT_COOKIE)

    def test_the_hint_how_many_to_send_grows_with_the_servers(self, control: Control, crm: Client):
        several = int(crm.get("WhoAmI").headers["x-ms-dop-hint"])
        control("POST", "limits", {"system": "crm", "servers": 1})

        assert 3 * int(crm.get("WhoAmI").headers["x-ms-dop-hint"]) == several

    def test_there_is_at_least_one(self, info: Info, control: Control):
        """Source: the sandbox itself."""
        reply = control.http.post(f"{info['control_url']}/limits", json={"system": "crm", "servers": 0}, timeout=10)

        assert 400 == reply.status_code
