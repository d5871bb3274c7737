from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
import uvicorn

from drawbar.bus.apache import free_port
from drawbar.clock import SystemClock
from drawbar.hints import Hint, HintKind
from drawbar.odata import open_http
from drawbar.settings import Settings
from producers.webhooks import ENTITY_HEADER, SECRET_HEADER, WebhookReceiver, expires_soon, to_app
from schemas.errors import SettingsError
from schemas.records import System
from tests.kafka_fixture import until
from tests.producers.sandboxes import Hands, sandbox
from tests.producers.worlds import START

SECRET = "s3cret <&\" '>"
ENTITIES = {(System.ERP, "customer"), (System.CRM, "account")}
CUSTOMER = Hint(kind=HintKind.LOOK, system=System.ERP, entity="customer")
ACCOUNT = Hint(kind=HintKind.LOOK, system=System.CRM, entity="account")


@dataclass(slots=True)
class Caller:
    """A system that calls the receiver, over HTTP."""

    url: str
    sent: list[Hint] = field(default_factory=list)  # what the receiver made of the calls

    def call(self, method: str, path: str, **how: Any) -> requests.Response:
        return requests.request(method, self.url + path, timeout=10, **how)

    def post(self, path: str, **how: Any) -> requests.Response:
        return self.call("POST", path, **how)


@pytest.fixture(scope="module")
def server() -> Iterator[Caller]:
    port = free_port()
    caller = Caller(f"http://127.0.0.1:{port}")
    app = to_app(SECRET, ENTITIES, caller.sent.append)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started, "the receiver listens", timeout_s=10)
    yield caller
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def client(server: Caller) -> Caller:
    server.sent.clear()
    return server


def a_notification(secret: str = SECRET) -> dict[str, object]:
    return {"value": [{"subscriptionId": "1", "clientState": secret, "changeType": "updated", "resource": "x"}]}


class TestReceiver:
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_answers_the_handshake_of_the_erp_with_its_token(self, client: Caller, method: str):
        reply = client.call(method, "/hooks/erp/customer?validationToken=a%20token")

        assert (200, "a token") == (reply.status_code, reply.text)
        assert reply.headers["content-type"].startswith("text/plain")

    def test_makes_a_hint_of_a_notification(self, client: Caller):
        reply = client.post("/hooks/erp/customer", json=a_notification())

        assert (True, [CUSTOMER]) == (reply.ok, client.sent)

    @pytest.mark.parametrize("body", [b"", b"[]", b'{"value": [7]}', b'{"value": []}'])
    def test_refuses_what_shows_no_secret(self, client: Caller, body: bytes):
        assert 401 == client.post("/hooks/erp/customer", data=body).status_code
        assert 401 == client.post("/hooks/erp/customer", json=a_notification("wrong")).status_code
        assert 401 == client.post("/hooks/crm", headers={SECRET_HEADER: "wrong"}).status_code
        assert not client.sent

    def test_welcomes_whoever_knows_the_secret_even_about_what_we_do_not_capture(self, client: Caller):
        """Any other answer would make the ERP drop its subscriptions."""
        assert client.post("/hooks/erp/vendor", json=a_notification()).ok
        assert client.post("/hooks/crm", headers={SECRET_HEADER: SECRET, ENTITY_HEADER: "lead"}).ok
        assert not client.sent

    def test_makes_a_hint_of_what_the_crm_posts(self, client: Caller):
        """The entity is in a header, so a body that was cut for its size does as well."""
        headers = {SECRET_HEADER: SECRET, ENTITY_HEADER: "account", "x-ms-dynamics-msg-size-exceeded": "true"}

        assert client.post("/hooks/crm", headers=headers, data=b"cut off {").ok
        assert [ACCOUNT] == client.sent


class TestExpiresSoon:
    @pytest.mark.parametrize(
        ("expires", "soon"),
        [("2026-03-05T08:00:00Z", False), ("2026-03-03T09:00:00Z", True), (None, True)],
    )
    def test_is_said_two_days_before(self, expires: str | None, soon: bool):
        assert soon is expires_soon({"expirationDateTime": expires}, START)


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hands]:
    with sandbox(tmp_path_factory.mktemp("sandbox")) as hands:
        yield hands


def a_receiver(settings: Settings, sent: list[Hint]) -> WebhookReceiver:
    http = {system: open_http(settings, system) for system in System}
    return WebhookReceiver(settings, entities=ENTITIES, http=http, clock=SystemClock(), send=sent.append)


class TestWebhookReceiver:
    def test_registers_with_both_systems_and_turns_their_calls_into_hints(self, hands: Hands):
        """Registered again, nothing is there twice; a subscription that was lost is made again."""
        address, sent = f"127.0.0.1:{free_port()}", list[Hint]()
        capture = {"webhook_listen": address, "webhook_public_url": f"http://{address}", "webhook_secret": SECRET}
        settings = hands.settings(capture=capture)
        crm, erp = open_http(settings, System.CRM), open_http(settings, System.ERP)

        def registered() -> tuple[int, int, int]:
            sets = ((erp, "subscriptions"), (crm, "serviceendpoints"), (crm, "sdkmessageprocessingsteps"))
            erp_count, endpoints, steps = (len(http.call("GET", name).body["value"]) for http, name in sets)
            return erp_count, endpoints, steps

        receiver = a_receiver(settings, sent)
        receiver.start()
        try:
            until(lambda: registered() == (1, 1, 3), "both systems know us", timeout_s=10)
            hands.create(System.ERP)
            hands.create(System.CRM)
            until(lambda: {CUSTOMER, ACCOUNT} <= set(sent), "hints of both", timeout_s=10)

            assert [True, True] == [keep() for keep in receiver._upkeep]
            assert (1, 1, 3) == registered()
            lost = erp.call("GET", "subscriptions").body["value"][0]
            erp.call(
                "DELETE",
                f"subscriptions('{lost['subscriptionId']}')",
                headers={"If-Match": lost["@odata.etag"]},
            )
            assert 0 == registered()[0]
            assert [True, True] == [keep() for keep in receiver._upkeep]
            assert (1, 1, 3) == registered()
        finally:
            receiver.stop()

    @pytest.mark.parametrize(
        "wrong", [{"webhook_listen": "nowhere"}, {"webhook_secret": None}, {"webhook_public_url": ""}]
    )
    def test_refuses_settings_that_cannot_work(self, hands: Hands, wrong: dict[str, object]):
        right = {"webhook_listen": "127.0.0.1:1", "webhook_public_url": "http://x", "webhook_secret": SECRET}

        with pytest.raises(SettingsError):
            a_receiver(hands.settings(capture={**right, **wrong}), [])
