from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import pytest
import requests
import uvicorn

from drawbar.bus.apache import free_port
from drawbar.clock import SystemClock
from drawbar.hints import Hint, HintKind
from drawbar.odata import open_http
from drawbar.settings import Settings
from producers.registrations import SECRET_HEADER
from producers.webhooks import ENTITY_HEADER, MAX_BODY_BYTES, MAX_READ_BYTES, Receiver, WebhookReceiver, checked_url
from schemas.errors import SettingsError
from schemas.records import System
from tests.kafka_fixture import until
from tests.producers.sandboxes import Hands, sandbox
from tests.sandbox.rounds import ROUNDS

SECRET = "s3cret <&\" '>"
ENTITIES = {(System.ERP, "customer"), (System.CRM, "account")}
CUSTOMER = Hint(kind=HintKind.LOOK, system=System.ERP, entity="customer")
DELETED_CUSTOMER = Hint(kind=HintKind.LOOK, system=System.ERP, entity="customer", sweep=True)
ACCOUNT = Hint(kind=HintKind.LOOK, system=System.CRM, entity="account")
FROM_CRM = {SECRET_HEADER: SECRET, ENTITY_HEADER: "account"}


@dataclass(slots=True)
class Caller:
    """A system that calls the receiver, over HTTP."""

    url: str
    receiver: Receiver
    sent: list[Hint]  # what the receiver made of the calls

    def call(self, method: str, path: str, **how: Any) -> requests.Response:
        return requests.request(method, self.url + path, timeout=10, allow_redirects=False, **how)

    def post(self, path: str, **how: Any) -> requests.Response:
        return self.call("POST", path, **how)


@pytest.fixture
def client() -> Iterator[Caller]:
    sent = list[Hint]()
    receiver = Receiver(SECRET, ENTITIES, send=sent.append, clock=SystemClock())
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(receiver.app, port=port, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started, "the receiver listens", timeout_s=10)
    yield Caller(f"http://127.0.0.1:{port}", receiver, sent)
    server.should_exit = True
    thread.join(10)


def a_notification(secret: str = SECRET, number: int = 1, kind: str = "updated") -> dict[str, object]:
    entry = {
        "subscriptionId": "1",
        "clientState": secret,
        "changeType": kind,
        "resource": f"customers({number})",
        "lastModifiedDateTime": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return {"value": [entry]}


class TestReceiver:
    @pytest.mark.parametrize("method", ["GET", "POST"])
    @pytest.mark.parametrize("entity", ["customer", "vendor"])
    def test_answers_the_handshake_of_the_erp_with_its_token(self, client: Caller, method: str, entity: str):
        reply = client.call(method, f"/hooks/erp/{entity}?validationToken=a%20%3Cb%3E%2B")

        assert (200, "a <b>+") == (reply.status_code, reply.text)
        assert reply.headers["content-type"].startswith("text/plain")

    def test_makes_a_hint_of_a_notification(self, client: Caller):
        assert 202 == client.post("/hooks/erp/customer", json=a_notification()).status_code
        assert [CUSTOMER] == client.sent

    def test_asks_for_the_ids_after_a_delete(self, client: Caller):
        """Polling by time does not see what is gone."""
        assert 202 == client.post("/hooks/erp/customer", json=a_notification(kind="deleted")).status_code
        assert [DELETED_CUSTOMER] == client.sent

    def test_makes_a_hint_of_what_the_crm_posts(self, client: Caller):
        """The entity is in a header, so a body that was cut for its size does as well."""
        headers = {**FROM_CRM, "x-ms-dynamics-msg-size-exceeded": "true"}

        assert 202 == client.post("/hooks/crm", headers=headers, data=b"cut off {").status_code
        assert [ACCOUNT] == client.sent

    @pytest.mark.parametrize("body", [b"", b"[]", b'{"value": [7]}', b'{"value": []}', b"[" * 50_000])
    def test_refuses_what_shows_no_secret(self, client: Caller, body: bytes):
        assert 401 == client.post("/hooks/erp/customer", data=body).status_code
        assert 401 == client.post("/hooks/erp/customer", json=a_notification("wrong")).status_code
        assert 401 == client.post("/hooks/crm", headers={SECRET_HEADER: "wrong"}).status_code
        assert 401 == client.post("/hooks/crm", data=body).status_code
        assert [] == client.sent
        assert (2, 2) == (client.receiver.counts()["erp.refused"], client.receiver.counts()["crm.refused"])

    def test_welcomes_whoever_knows_the_secret_whatever_he_sends(self, client: Caller):
        """Any other answer would make the ERP drop its subscriptions: unknown, repeated, old, too large."""
        old = a_notification(number=2)
        old["value"][0]["lastModifiedDateTime"] = "2020-01-01T00:00:00Z"  # type: ignore[index]
        again = a_notification()
        client.post("/hooks/erp/customer", json=again)
        large = {"value": [*again["value"], {"x": "y" * MAX_BODY_BYTES}]}  # type: ignore[misc]

        replies = [
            client.post("/hooks/erp/vendor", json=a_notification()),
            client.post("/hooks/erp/customer", json=again),
            client.post("/hooks/erp/customer", json=old),
            client.post("/hooks/erp/customer", json=large),
            client.post("/hooks/erp/customer", json={"value": [{"x": "y" * MAX_BODY_BYTES}, *again["value"]]}),
            client.post("/hooks/crm", headers={**FROM_CRM, ENTITY_HEADER: "lead"}),
            client.post("/hooks/crm", headers=FROM_CRM, data=b"x" * (MAX_BODY_BYTES + 1)),
        ]
        assert [202] * 7 == [reply.status_code for reply in replies]
        counts = {name: count for name, count in client.receiver.counts().items() if count}
        assert counts == {
            "erp.taken": 1,
            "erp.unknown": 1,
            "erp.repeated": 1,
            "erp.old": 1,
            "erp.too_large": 2,
            "crm.unknown": 1,
            "crm.too_large": 1,
        }

    def test_answers_a_call_that_never_ends_before_it_has_read_it_all(self, client: Caller):
        """What nobody can have meant is not kept, and not read for ever."""
        host, port = client.url.removeprefix("http://").split(":")
        head = f"POST /hooks/erp/customer HTTP/1.1\r\nHost: {host}\r\nContent-Length: {10**12}\r\n\r\n"
        with socket.create_connection((host, int(port)), timeout=10) as line:
            line.sendall(head.encode() + json.dumps(a_notification()).encode()[:-2])
            line.sendall(b"," * (MAX_READ_BYTES + 1))

            assert b" 202 " in line.recv(100)
        assert [CUSTOMER] == client.sent

    def test_makes_few_hints_of_many_calls_and_forgets_none(self, client: Caller):
        """A thousand rows written at once are a thousand calls, and a poll or two: the last comes after the last."""
        for number in range(30):
            body = json.dumps({"OperationId": str(number)})
            client.post("/hooks/crm", headers=FROM_CRM, data=body)
        said = len(client.sent)
        until(lambda: len(client.sent) > said, "the hint after the last call", timeout_s=5)

        assert 30 == client.receiver.counts()["crm.taken"]
        assert len(client.sent) < 15
        assert {ACCOUNT} == set(client.sent)

    @pytest.mark.parametrize("path", ["/", "/hooks", "/hooks/crm/", "/hooks/erp/", "/hooks/erp/customer/"])
    def test_knows_no_other_address(self, client: Caller, path: str):
        """And redirects to none."""
        assert 404 == client.post(path).status_code

    def test_takes_no_other_verb(self, client: Caller):
        assert {405} == {client.call(verb, "/hooks/crm").status_code for verb in ("GET", "PUT", "DELETE")}


@pytest.fixture(scope="module", params=["default", "turned over"])
def hands(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hands]:
    with sandbox(tmp_path_factory.mktemp("sandbox"), ROUNDS[request.param]) as hands:
        yield hands


@dataclass(slots=True)
class Processes:
    """Receivers as capture processes of one machine have them."""

    hands: Hands
    address: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    sent: list[Hint] = field(default_factory=list)
    running: list[WebhookReceiver] = field(default_factory=list)

    def settings(self, **capture: Any) -> Settings:
        right = {
            "webhook_listen": self.address,
            "webhook_public_url": f"http://{self.address}/",
            "webhook_secret": SECRET,
            "webhook_check_s": 0.2,
        }
        return self.hands.settings(capture={**right, **capture})

    def make(self, owned: set[tuple[System, str]], **capture: Any) -> WebhookReceiver:
        settings = self.settings(**capture)
        http = {system: open_http(settings, system) for system in System}
        return WebhookReceiver(
            settings,
            entities=ENTITIES | owned,
            owned=lambda: owned,
            http=http,
            clock=SystemClock(),
            send=self.sent.append,
        )

    def start(self, owned: set[tuple[System, str]]) -> WebhookReceiver:
        receiver = self.make(owned)
        receiver.start()
        self.running.append(receiver)
        return receiver

    def subscriptions(self) -> list[dict[str, Any]]:
        http = open_http(self.settings(), System.ERP)
        rows: list[dict[str, Any]] = http.call("GET", "subscriptions").body["value"]
        http.close()
        return rows

    def entities(self) -> list[str]:
        return sorted(row["notificationUrl"].rpartition("/")[2] for row in self.subscriptions())

    def drop(self) -> None:
        http = open_http(self.settings(), System.ERP)
        for row in self.subscriptions():
            http.call("DELETE", f"subscriptions('{row['subscriptionId']}')", headers={"If-Match": "*"})
        http.close()


@pytest.fixture
def processes(hands: Hands) -> Iterator[Processes]:
    made = Processes(hands)
    yield made
    for receiver in made.running:
        receiver.stop()
    made.drop()


class TestWebhookReceiver:
    def test_subscribes_and_turns_the_calls_of_the_erp_into_hints(self, hands: Hands, processes: Processes):
        processes.start({(System.ERP, "customer")})
        until(lambda: processes.entities() == ["customer"], "the ERP knows us", timeout_s=10)
        hands.create(System.ERP)

        until(lambda: CUSTOMER in processes.sent, "the hint", timeout_s=10)

    def test_subscribes_again_when_the_erp_dropped_it(self, processes: Processes):
        """A bad answer of whatever stands between, or a lease that ended while we were away."""
        processes.start({(System.ERP, "customer")})
        until(lambda: processes.entities() == ["customer"], "the ERP knows us", timeout_s=10)
        (first,) = processes.subscriptions()
        processes.drop()

        until(lambda: processes.entities() == ["customer"], "the ERP knows us again", timeout_s=10)
        assert first["subscriptionId"] != processes.subscriptions()[0]["subscriptionId"]

    def test_keeps_the_subscriptions_of_what_its_process_owns(self, processes: Processes):
        """Two processes, two owners; of an entity that changes hands the new owner keeps the subscription there is."""
        mine = {(System.ERP, "customer")}
        first = processes.start(mine)
        until(lambda: processes.entities() == ["customer"], "the one that is owned", timeout_s=10)
        before = processes.subscriptions()
        mine.add((System.ERP, "paymentTerm"))
        first.wake()

        until(lambda: processes.entities() == ["customer", "paymentTerm"], "the other one, too", timeout_s=10)
        assert before[0] in processes.subscriptions()

    def test_shares_its_port_with_other_processes_of_the_machine(self, hands: Hands, processes: Processes):
        """One listens, and hints reach every owner over the bus; when it goes, the next one takes over."""
        first = processes.start({(System.ERP, "customer")})
        until(lambda: first.status()["listening"], "the first listens", timeout_s=10)
        second = processes.start({(System.ERP, "paymentTerm")})
        until(lambda: processes.entities() == ["customer", "paymentTerm"], "both keep theirs", timeout_s=10)
        assert not second.status()["listening"]

        first.stop()
        until(lambda: second.status()["listening"], "the second listens", timeout_s=20)
        hands.create(System.ERP)
        until(lambda: CUSTOMER in processes.sent, "the hint", timeout_s=10)

    def test_leaves_the_subscriptions_when_it_stops(self, processes: Processes):
        """The ERP keeps what it could not deliver for hours, and sends it when we are back."""
        receiver = processes.start({(System.ERP, "customer")})
        until(lambda: processes.entities() == ["customer"], "the ERP knows us", timeout_s=10)
        began = time.monotonic()
        receiver.stop()

        assert ["customer"] == processes.entities()
        assert time.monotonic() - began < 4

    @pytest.mark.parametrize(
        "wrong",
        [
            {"webhook_listen": "nowhere"},
            {"webhook_listen": "host:99999"},
            {"webhook_secret": None},
            {"webhook_secret": ""},
            {"webhook_secret": "ünicode"},
            {"webhook_secret": "two\nlines"},
            {"webhook_secret": "x" * 300},
            {"webhook_public_url": ""},
            {"webhook_public_url": "hub.example.com"},
            {"webhook_public_url": "https://hub.example.com/?code=x"},
        ],
    )
    def test_refuses_settings_that_cannot_work(self, processes: Processes, wrong: dict[str, object]):
        with pytest.raises(SettingsError) as refused:
            processes.make(set(), **wrong)

        assert "ünicode" not in refused.value.for_people()


class TestCheckedUrl:
    def test_is_without_a_slash_at_its_end(self):
        assert "https://hub.example.com/a" == checked_url(" https://hub.example.com/a/ ", where="")
