"""Receive the webhooks of both systems as hints to look now, and keep them registered.

Nothing depends on them: each only makes a poll come sooner. A notification carries no values that we use. The ERP
deletes its subscriptions at any answer but 2xx, so whoever knows the secret is always answered with 2xx.
"""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import Any
from xml.sax.saxutils import quoteattr

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from drawbar.business_central import BusinessCentral
from drawbar.entities import entity_of, parse_time, with_query
from drawbar.hints import Hint, HintKind
from drawbar.odata import adapter_for
from drawbar.ports import Clock, Http, NoReply, Reply
from drawbar.settings import Settings
from schemas.errors import AccessError, SettingsError
from schemas.records import System

Key = tuple[System, str]

SECRET_HEADER = "x-drawbar-secret"  # noqa: S105 - the name of the header
ENTITY_HEADER = "x-ms-dynamics-entity-name"
RENEW_BEFORE = timedelta(days=2)  # a subscription lives 3 days: renewed daily, two renewals may fail
CHECK_EVERY_S = 24 * 3600.0
CHECK_AGAIN_S = 600.0  # after a check that failed
MAX_BODY_BYTES = 1_000_000  # a thousand notifications of 700 bytes, the most that the ERP sends at once

log = structlog.get_logger("drawbar.capture")


def to_app(secret: str, entities: Collection[Key], send: Callable[[Hint], None]) -> Starlette:
    """The receiver: `/hooks/erp/{entity}` and `/hooks/crm`."""

    def look(system: System, entity: str) -> None:
        if (system, entity) in entities:
            send(Hint(kind=HintKind.LOOK, system=system, entity=entity))

    async def erp(request: Request) -> Response:
        token = request.query_params.get("validationToken")
        if token is not None:
            return PlainTextResponse(token)
        notes = notifications(await _body(request))
        if not notes or not all(_is_secret(note.get("clientState"), secret) for note in notes):
            return Response(status_code=401)
        look(System.ERP, request.path_params["entity"])
        return Response(status_code=202)

    async def crm(request: Request) -> Response:
        if not _is_secret(request.headers.get(SECRET_HEADER), secret):
            return Response(status_code=401)
        look(System.CRM, request.headers.get(ENTITY_HEADER, ""))
        return Response(status_code=202)

    return Starlette(
        routes=[
            Route("/hooks/erp/{entity}", erp, methods=["GET", "POST"]),
            Route("/hooks/crm", crm, methods=["POST"]),
        ]
    )


def notifications(body: bytes) -> list[Mapping[str, Any]]:
    """The entries of an ERP notification; none when it is not one."""
    try:
        value = json.loads(body)["value"]
    except (ValueError, KeyError, TypeError):
        return []
    return value if isinstance(value, list) and all(isinstance(note, Mapping) for note in value) else []


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            return b""
    return body


def _is_secret(given: object, secret: str) -> bool:
    return isinstance(given, str) and hmac.compare_digest(given.encode(), secret.encode())


class WebhookReceiver:
    """The receiver's server and the upkeep of the registrations, each in a thread of its own."""

    def __init__(
        self,
        settings: Settings,
        *,
        entities: Collection[Key],
        http: Mapping[System, Http],
        clock: Clock,
        send: Callable[[Hint], None],
    ) -> None:
        """Raises SettingsError when the address or the secret is not set."""
        capture = settings.capture
        host, _, port = capture.webhook_listen.rpartition(":")
        if not host or not port.isdecimal():
            raise SettingsError("capture.webhook_listen is not host:port", where="DRAWBAR_CAPTURE__WEBHOOK_LISTEN")
        if capture.webhook_secret is None or not capture.webhook_public_url:
            raise SettingsError(
                "webhooks need capture.webhook_secret and capture.webhook_public_url",
                where="DRAWBAR_CAPTURE__WEBHOOK_SECRET, DRAWBAR_CAPTURE__WEBHOOK_PUBLIC_URL",
            )
        secret = capture.webhook_secret.get_secret_value()
        url = capture.webhook_public_url.rstrip("/")
        self._upkeep: list[Callable[[], bool]] = []
        of_erp = sorted(entity for system, entity in entities if system is System.ERP)
        of_crm = sorted(entity for system, entity in entities if system is System.CRM)
        if of_erp:
            adapter_for(settings, System.ERP)  # raises when the company is not set
            adapter = BusinessCentral(company_id=settings.erp.company_id)
            erp = ErpSubscriptions(http[System.ERP], adapter, clock, url=url, secret=secret)
            self._upkeep.append(lambda: erp.keep(of_erp))
        if of_crm:
            crm = CrmSteps(http[System.CRM], url=url, secret=secret)
            self._upkeep.append(lambda: crm.keep(of_crm))
        config = uvicorn.Config(
            to_app(secret, entities, send), host=host, port=int(port), log_config=None, access_log=False, lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._server.run, name="capture.webhooks", daemon=True),
            threading.Thread(target=self._keep, name="capture.subscriptions", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, within_s: float = 3.0) -> None:
        self._stop.set()
        self._server.should_exit = True
        for thread in self._threads:
            thread.join(within_s)

    def _keep(self) -> None:
        while not self._server.started:  # the ERP calls back before it accepts a subscription
            if self._stop.wait(0.05) or not self._threads[0].is_alive():
                return
        while True:
            done = [keep() for keep in self._upkeep]
            if self._stop.wait(CHECK_EVERY_S if all(done) else CHECK_AGAIN_S):
                return


class ErpSubscriptions:
    """One subscription per entity, each with an address of its own, since the ERP drops all that share one."""

    def __init__(self, http: Http, adapter: BusinessCentral, clock: Clock, *, url: str, secret: str) -> None:
        self._http = http
        self._adapter = adapter
        self._clock = clock
        self._url = url
        self._secret = secret

    def keep(self, entities: Collection[str]) -> bool:
        """Make what is missing, renew what is old; may be repeated at will. Whether all is as it should be."""
        try:
            there = {
                str(found.get("notificationUrl")): found for found in _rows(_ask(self._http, "GET", "subscriptions"))
            }
            done = [self._keep_one(entity, there) for entity in entities]
            return all(done)
        except (NoReply, AccessError, _Refused) as fault:
            log.warning("capture.webhooks_failed", system="erp", detail=str(fault))
            return False

    def _keep_one(self, entity: str, there: Mapping[str, Mapping[str, Any]]) -> bool:
        url = f"{self._url}/hooks/erp/{entity}"
        found = there.get(url)
        try:
            if found is None:
                resource = "/api/v2.0/" + self._adapter.collection_path(entity_of(System.ERP, entity))
                body = {"notificationUrl": url, "resource": resource, "clientState": self._secret}
                _ask(self._http, "POST", "subscriptions", body=body)
            elif expires_soon(found, self._clock.now()):
                headers = {"If-Match": str(found.get("@odata.etag", "*"))}
                path = f"subscriptions('{found['subscriptionId']}')"
                _ask(self._http, "PATCH", path, body={"clientState": self._secret}, headers=headers)
            return True
        except _Refused as fault:
            log.warning("capture.webhooks_failed", system="erp", entity=entity, detail=str(fault))
            return False


def expires_soon(subscription: Mapping[str, Any], now: datetime) -> bool:
    """Whether a subscription should be renewed now; one that does not say when it expires should."""
    try:
        return parse_time(str(subscription.get("expirationDateTime"))) - now < RENEW_BEFORE
    except ValueError:
        return True


class CrmSteps:
    """One service endpoint, and one asynchronous step per entity and message."""

    NAME = "drawbar"
    MESSAGES = ("Create", "Update", "Delete")

    def __init__(self, http: Http, *, url: str, secret: str) -> None:
        self._http = http
        self._url = f"{url}/hooks/crm"
        self._secret = secret

    def keep(self, entities: Collection[str]) -> bool:
        """Make what is missing; may be repeated at will. Whether all is as it should be."""
        try:
            endpoint_id = self._endpoint()
            names = {str(row["name"]) for row in self._find("sdkmessageprocessingsteps", "name", "startswith")}
            messages = {message: self._message(message) for message in self.MESSAGES}
            for entity in entities:
                for message, message_id in messages.items():
                    name = f"{self.NAME}: {message} of {entity}"
                    if name not in names:
                        self._add_step(name, entity, message_id, endpoint_id)
            return True
        except (NoReply, AccessError, _Refused) as fault:
            log.warning("capture.webhooks_failed", system="crm", detail=str(fault))
            return False

    def _endpoint(self) -> str:
        """The id of our endpoint. The secret can never be read back, so it is written each time."""
        secret = quoteattr(self._secret)
        body = {
            "name": self.NAME,
            "contract": 8,  # a webhook
            "url": self._url,
            "authtype": 5,  # by a header
            "authvalue": f'<settings><setting name="{SECRET_HEADER}" value={secret} /></settings>',
            "messageformat": 2,  # JSON
            "connectionmode": 1,
        }
        found = self._find("serviceendpoints", "name", "eq")
        if found:
            endpoint_id = str(found[0]["serviceendpointid"])
            _ask(self._http, "PATCH", f"serviceendpoints({endpoint_id})", body=body, headers={"If-Match": "*"})
            return endpoint_id
        _ask(self._http, "POST", "serviceendpoints", body=body)
        made = self._find("serviceendpoints", "name", "eq")
        if not made:
            raise _Refused("the service endpoint just made is not there")
        return str(made[0]["serviceendpointid"])

    def _message(self, message: str) -> str:
        rows = _rows(_ask(self._http, "GET", with_query("sdkmessages", {"$filter": f"name eq '{message}'"})))
        if not rows:
            raise _Refused(f"no message {message}")
        return str(rows[0]["sdkmessageid"])

    def _add_step(self, name: str, entity: str, message_id: str, endpoint_id: str) -> None:
        condition = f"primaryobjecttypecode eq '{entity}' and _sdkmessageid_value eq {message_id}"
        filters = _rows(_ask(self._http, "GET", with_query("sdkmessagefilters", {"$filter": condition})))
        if not filters:
            raise _Refused(f"no steps can be registered for {entity}")
        body = {
            "name": name,
            "mode": 1,  # asynchronous
            "stage": 40,  # after the operation
            "rank": 1,
            "supporteddeployment": 0,
            "asyncautodelete": True,
            "sdkmessageid@odata.bind": f"/sdkmessages({message_id})",
            "sdkmessagefilterid@odata.bind": f"/sdkmessagefilters({filters[0]['sdkmessagefilterid']})",
            "eventhandler_serviceendpoint@odata.bind": f"/serviceendpoints({endpoint_id})",
        }
        _ask(self._http, "POST", "sdkmessageprocessingsteps", body=body)

    def _find(self, entity_set: str, name: str, how: str) -> list[Mapping[str, Any]]:
        condition = f"{name} eq '{self.NAME}'" if how == "eq" else f"startswith({name},'{self.NAME}: ')"
        return _rows(_ask(self._http, "GET", with_query(entity_set, {"$filter": condition})))


class _Refused(Exception):
    """The system did not do what the upkeep asked."""


def _ask(
    http: Http,
    method: str,
    path: str,
    *,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    reply = http.call(method, path, body=body, headers=headers)
    if not 200 <= reply.status < 300:
        raise _Refused(f"{method} {path.partition('?')[0]}: status {reply.status}")
    return reply


def _rows(reply: Reply) -> list[Mapping[str, Any]]:
    rows = reply.body.get("value") if isinstance(reply.body, Mapping) else None
    if not isinstance(rows, list):
        raise _Refused("a list without `value`")
    return rows
