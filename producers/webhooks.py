"""Receive the webhooks of both systems as hints to look now, and keep the ERP's subscriptions alive.

Nothing depends on them: each only makes a poll come sooner. An answer is given before anything is done; what a call
means is said in `notifications`, what is registered in `registrations`.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from drawbar.business_central import BusinessCentral
from drawbar.hints import Hint, HintKind
from drawbar.odata import adapter_for
from drawbar.ports import Clock, Http
from drawbar.settings import CaptureSettings, Settings
from producers.notifications import Result, SecretSearch, Seen, Verdict, is_secret, judge_crm, judge_erp
from producers.registrations import CRM_PATH, ERP_PATH, SECRET_HEADER, ErpSubscriptions
from schemas.errors import SettingsError
from schemas.records import System

Key = tuple[System, str]

ENTITY_HEADER = "x-ms-dynamics-entity-name"
MAX_BODY_BYTES = 1_000_000  # a thousand notifications of 700 bytes are the most that the ERP sends at once
MAX_READ_BYTES = 8_000_000  # what is read and thrown away before an answer, so that the caller gets it
MAX_TOKEN_CHARS = 4096
BODY_TIMEOUT_S = 10.0  # the ERP waits 30 s for the answer
GAP_S = 0.25  # calls that come in between are one hint, at its end
SWEEP_GAP_S = 15.0  # a sweep lists every id of an entity
MAX_CALLS = 500  # at once; beyond, the answer is 503, which makes both systems call again
BIND_AGAIN_S = 5.0  # while another process of this machine has the port
FAILED_AGAIN_S = 60.0  # after a check that failed
SAY_REFUSED_EVERY_S = 60.0
MAX_SECRET_CHARS = 256

log = structlog.get_logger("drawbar.capture")


class Receiver:
    """`/hooks/erp/{entity}` and `/hooks/crm`. All methods but `counts` belong to the loop that serves `app`."""

    def __init__(self, secret: str, entities: Collection[Key], *, send: Callable[[Hint], None], clock: Clock) -> None:
        self._secret = secret
        self._entities = entities
        self._gate = _Gate(send)
        self._clock = clock
        self._seen = Seen()
        self._counts: Counter[tuple[System, Result]] = Counter()
        self._said_refused_at = -SAY_REFUSED_EVERY_S

    @property
    def app(self) -> Starlette:
        routes = [
            Route(f"{ERP_PATH}/{{entity}}", self._erp, methods=["GET", "POST"]),
            Route(CRM_PATH, self._crm, methods=["POST"]),
        ]
        app = Starlette(routes=routes)
        app.router.redirect_slashes = False  # the ERP drops a subscription whose address redirects
        return app

    def counts(self) -> dict[str, int]:
        """Notifications by system and result, such as `erp.taken`."""
        counts = self._counts.copy()
        return {f"{system}.{result.value}": counts[system, result] for system in System for result in Result}

    async def _erp(self, request: Request) -> Response:
        token = request.query_params.get("validationToken")
        if token is not None and len(token) <= MAX_TOKEN_CHARS:
            return PlainTextResponse(token, headers={"X-Content-Type-Options": "nosniff"})
        search = SecretSearch(self._secret)
        body, is_whole = await _read(request, search.feed)
        verdict = judge_erp(
            body, self._secret, self._seen, self._clock.now(), is_whole=is_whole, shows_secret=search.found
        )
        return self._answer((System.ERP, request.path_params["entity"]), verdict)

    async def _crm(self, request: Request) -> Response:
        key = (System.CRM, request.headers.get(ENTITY_HEADER, ""))
        if not is_secret(request.headers.get(SECRET_HEADER), self._secret):
            return self._answer(key, Verdict(is_known=False, results={Result.REFUSED: 1}))
        body, is_whole = await _read(request)
        return self._answer(key, judge_crm(body, self._seen, self._clock.now(), is_whole=is_whole))

    def _answer(self, key: Key, verdict: Verdict) -> Response:
        system, entity = key
        if verdict.is_known and key not in self._entities:
            self._counts[system, Result.UNKNOWN] += sum(verdict.results.values())
            return Response(status_code=202)
        for result, count in verdict.results.items():
            self._counts[system, result] += count
        if not verdict.is_known:
            self._say_refused(system)
            return Response(status_code=401)
        if verdict.look:
            self._gate.look(system, entity, sweep=verdict.sweep)
        return Response(status_code=202)

    def _say_refused(self, system: System) -> None:
        if time.monotonic() >= self._said_refused_at + SAY_REFUSED_EVERY_S:
            self._said_refused_at = time.monotonic()
            log.warning("capture.webhook_refused", system=system.value, refused=self._counts[system, Result.REFUSED])


class _Gate:
    """Sends a hint at once, and those that follow within a moment as one at its end: a thousand calls are few polls."""

    def __init__(self, send: Callable[[Hint], None]) -> None:
        self._send = send
        self._waiting: dict[tuple[System, str, bool], bool] = {}  # whether another came since the last was sent

    def look(self, system: System, entity: str, *, sweep: bool) -> None:
        key = (system, entity, sweep)
        if key in self._waiting:
            self._waiting[key] = True
            return
        self._waiting[key] = False
        self._send(Hint(kind=HintKind.LOOK, system=system, entity=entity, sweep=sweep))
        asyncio.get_running_loop().call_later(SWEEP_GAP_S if sweep else GAP_S, self._again, key)

    def _again(self, key: tuple[System, str, bool]) -> None:
        system, entity, sweep = key
        if self._waiting.pop(key):
            self.look(system, entity, sweep=sweep)


async def _read(request: Request, see: Callable[[bytes], None] = lambda _part: None) -> tuple[bytes, bool]:
    """The body, at most MAX_BODY_BYTES of it, and whether that is the whole. `see` is shown all of it that is read."""
    kept, read = bytearray(), 0

    async def take() -> None:
        nonlocal read
        async for part in request.stream():
            read += len(part)
            see(part)
            kept.extend(part[: MAX_BODY_BYTES - len(kept)])
            if read > MAX_READ_BYTES:
                return

    try:
        await asyncio.wait_for(take(), BODY_TIMEOUT_S)
    except (asyncio.TimeoutError, ClientDisconnect):
        return bytes(kept), False
    return bytes(kept), read == len(kept)


class WebhookReceiver:
    """The receiver's server and the upkeep of the ERP's subscriptions, each in a thread of its own."""

    def __init__(
        self,
        settings: Settings,
        *,
        entities: Collection[Key],
        owned: Callable[[], Collection[Key]],
        http: Mapping[System, Http],
        clock: Clock,
        send: Callable[[Hint], None],
    ) -> None:
        """`owned`: those of the entities that this process captures; only their subscriptions are kept by it.

        Raises SettingsError when address or secret are not set, or cannot work.
        """
        self._address = listen_address(settings.capture)
        secret, url = secret_of(settings.capture), public_url(settings.capture)
        self._check_s = settings.capture.webhook_check_s
        self._owned = owned
        self._subscriptions: ErpSubscriptions | None = None
        if any(system is System.ERP for system, _ in entities):
            adapter_for(settings, System.ERP)  # raises when the company is not set
            adapter = BusinessCentral(company_id=settings.erp.company_id)
            self._subscriptions = ErpSubscriptions(http[System.ERP], adapter, clock, url=url, secret=secret)
        self._receiver = Receiver(secret, entities, send=send, clock=clock)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._receiver.app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                limit_concurrency=MAX_CALLS,
                timeout_graceful_shutdown=1,
            )
        )
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._is_taken = False  # another process of this machine listens there
        self._failures: dict[str, str] = {}  # what was said last of each entity
        self._threads = [
            threading.Thread(target=self._serve, name="capture.webhooks", daemon=True),
            threading.Thread(target=self._keep, name="capture.subscriptions", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, within_s: float = 3.0) -> None:
        """Subscriptions are left: the ERP keeps what it could not deliver, and sends it when we are back."""
        self._stop.set()
        self._wake.set()
        self._server.should_exit = True
        for thread in self._threads:
            thread.join(within_s)

    def wake(self) -> None:
        """Look after the subscriptions now: there are others to be kept."""
        self._wake.set()

    def status(self) -> dict[str, Any]:
        return {"listening": self._server.started, **self._receiver.counts()}

    # --- listening ------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                listener = _listen(self._address)
            except OSError as fault:
                if not self._is_taken:
                    self._is_taken = True
                    detail = f"{':'.join(map(str, self._address))}: {fault.strerror}"
                    log.warning("capture.webhooks_failed", system="", detail=detail)
                self._stop.wait(BIND_AGAIN_S)
                continue
            with listener:
                self._server.run(sockets=[listener])
            return

    # --- subscriptions --------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        """The ERP calls back before it accepts a subscription, here or at another process behind the same address."""
        while not (self._server.started or self._is_taken):
            if self._stop.wait(0.05):
                return
        while not self._stop.is_set():
            self._wake.clear()
            is_well = self._look_after()
            self._wake.wait(self._check_s if is_well else min(self._check_s, FAILED_AGAIN_S))

    def _look_after(self) -> bool:
        mine = sorted(entity for system, entity in self._owned() if system is System.ERP)
        if self._subscriptions is None or not mine:
            return True
        faults = [found for found in self._subscriptions.keep(mine) if found.fault is not None]
        failures = {found.entity: str(found.fault) for found in faults}
        for found in faults:
            if found.fault is not None and self._failures.get(found.entity) != failures[found.entity]:
                log.warning(
                    "capture.webhooks_failed",
                    system="erp",
                    entity=found.entity,
                    code=found.fault.code,
                    detail=found.fault.message,
                )
        self._failures = failures
        return not faults


def _listen(address: tuple[str, int]) -> socket.socket:
    """Raises OSError when the port is taken."""
    host, port = address
    family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


def listen_address(capture: CaptureSettings) -> tuple[str, int]:
    """Raises SettingsError."""
    host, _, port = capture.webhook_listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise SettingsError("capture.webhook_listen is not host:port", where="DRAWBAR_CAPTURE__WEBHOOK_LISTEN")
    return host.strip("[]"), int(port)


def public_url(capture: CaptureSettings) -> str:
    """Without a slash at its end. Raises SettingsError."""
    return checked_url(capture.webhook_public_url, where="DRAWBAR_CAPTURE__WEBHOOK_PUBLIC_URL")


def checked_url(url: str, *, where: str) -> str:
    """Raises SettingsError for what cannot be the address of a receiver."""
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise SettingsError(
            "the address of the webhook receiver is not a web address without query",
            where=where,
            next_step="name it as the two systems reach it, such as https://hub.example.com; docs/webhooks.md",
        )
    return url.strip().rstrip("/")


def secret_of(capture: CaptureSettings) -> str:
    """Raises SettingsError when it is missing, or would not survive in a header."""
    where = "DRAWBAR_CAPTURE__WEBHOOK_SECRET"
    if capture.webhook_secret is None or not capture.webhook_secret.get_secret_value():
        raise SettingsError("webhooks need capture.webhook_secret", where=where)
    secret = capture.webhook_secret.get_secret_value()
    if not secret.isascii() or not secret.isprintable() or secret != secret.strip() or len(secret) > MAX_SECRET_CHARS:
        raise SettingsError(
            f"capture.webhook_secret is not up to {MAX_SECRET_CHARS} printable ASCII characters",
            where=where,
            next_step="make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return secret
