"""Between uvicorn and a service: requests in, replies out, and everything that may go wrong on the way.

A service answers a whole request without giving up control. Waiting (latency, faults, a full queue) happens
here, before and after. A fault may also close the connection, which a plain ASGI application cannot; the
protocol class below hands the transport through for that.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from drawbar.sandbox.addresses import alias_of
from drawbar.sandbox.clock import Clock
from drawbar.sandbox.faults import Fault, Faults
from drawbar.sandbox.latency import Latencies
from drawbar.sandbox.limits import Limits, Refusal
from drawbar.sandbox.traffic import Asked, Traffic

NOT_JSON = "A supported MIME type could not be found that matches the content type of the request."
EXEMPT = "control"  # what the sandbox itself is told is neither counted nor hit by faults

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(slots=True, kw_only=True)
class Request:
    method: str
    path: str  # percent-decoded
    query: str  # as sent
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    app: str | None = None  # client id of the caller, once known

    def is_said_to_be_json(self) -> bool:
        """By the header `Content-Type`, whatever the body is; parameters and letter case do not matter."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"

    def preferences(self) -> dict[str, str]:
        """The `Prefer` header as names and values, values without quotes."""
        preferences: dict[str, str] = {}
        for part in split_quoted(self.headers.get("prefer", "")):
            name, _, value = part.partition("=")
            preferences[name.strip().lower()] = value.strip().strip('"')
        return preferences


@dataclass(slots=True)
class Reply:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def split_quoted(text: str) -> list[str]:
    """Parts between commas that stand outside double quotes."""
    parts, quoted, start = [], False, 0
    for index, mark in enumerate(text):
        if mark == '"':
            quoted = not quoted
        elif mark == "," and not quoted:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return [part for part in parts if part.strip()]


def to_json(value: Any) -> bytes:
    return orjson.dumps(value)


MAX_NESTING = 100  # as OData's readers take it (ODataMessageQuotas.MaxNestingDepth)


def from_json(body: bytes) -> Any:
    """Raises ValueError for what is no JSON; so are `NaN`, `Infinity` and half a surrogate pair, which Python's own
    reader takes. So does what is nested too deep to be worked on.
    """
    value = orjson.loads(body)
    if body.count(b"{") + body.count(b"[") > MAX_NESTING and _is_deeper(value, MAX_NESTING):
        raise ValueError(f"nested deeper than {MAX_NESTING}")
    return value


def _is_deeper(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        inner = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list)))
        level = [child for each in inner for child in each]
    return any(isinstance(each, (dict, list)) for each in level)


class Service(Protocol):
    """One of the two systems, or the sign-in."""

    system: str

    def caller(self, request: Request) -> str | None:
        """Client id behind the request's token, None when there is none or it does not hold."""

    def target(self, request: Request) -> str:
        """The entity set (or `token`, `$batch` …) a request is about, for counting."""

    def handle(self, request: Request) -> Reply | Awaitable[Reply]:
        """Awaitable only where the service must itself ask somebody (a webhook's handshake)."""

    def weight(self, request: Request) -> int:
        """How many requests it counts for against the service's limits."""

    def refused(self, request: Request, refusal: Refusal) -> Reply:
        """The service's own way to say that a limit was reached."""

    def failed(self, request: Request) -> Reply:
        """The service's own 500."""


class CuttableProtocol(HttpToolsProtocol):
    """Hands its transport to the application, in `scope["state"]`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}

    def is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """How long a request's body may be, in bytes, and how the service refuses one that is announced to be longer."""

    size: int
    refuse: Callable[[], Reply]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all endpoints of a sandbox share."""

    clock: Clock
    faults: Faults
    latencies: Latencies
    traffic: Traffic


class Endpoint:
    """One service as an ASGI application."""

    def __init__(
        self,
        service: Service,
        surroundings: Surroundings,
        *,
        limits: Limits | None,
        most: BodyLimit | None = None,
        origin: str | None = None,
    ) -> None:
        """`origin`: the address that the service writes, where the client's name for it is to be written instead."""
        self._service = service
        self._origin = origin
        self._clock = surroundings.clock
        self._faults = surroundings.faults
        self._latencies = surroundings.latencies
        self._traffic = surroundings.traffic
        self._limits = limits
        self._most = most

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if self._most is not None and _announced(scope) > self._most.size:
            await self._send(self._most.refuse(), scope["method"], send)
            return
        body = await _read(receive)
        if body is None:
            return
        request = Request(
            method=scope["method"],
            path=scope["path"],
            query=scope["query_string"].decode("latin-1"),
            headers={name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
            body=body,
        )
        service = self._service
        if service.target(request) == EXEMPT:
            await self._send(await self._handle(request), request.method, send)
            return
        request.app = service.caller(request)
        began_s = time.monotonic()
        fault = self._faults.match(service.system, request.method, _target(request), request.app)
        reply = await self._answer(request, fault)
        if fault is not None:
            match fault.action:
                case "delay" if fault.when == "after":
                    await asyncio.sleep(fault.seconds)
                case "corrupt_json" if reply is not None:
                    reply.body = reply.body[: max(1, len(reply.body) * 2 // 3)]
                case "lose_reply":
                    reply = None
                case "duplicate":
                    self._note(request, reply, began_s)
                    reply = await self._answer(request, None)
        self._note(request, reply, began_s)
        if reply is None:
            await _cut(scope, receive)
        else:
            await self._send(reply, request.method, send)

    def _note(self, request: Request, reply: Reply | None, began_s: float) -> None:
        self._traffic.note(
            Asked(
                at=self._clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                client_id=request.app or "",
                system=self._service.system,
                method=request.method,
                target=_target(request),
                set=self._service.target(request),
                status=reply.status if reply else 0,
                took_ms=round((time.monotonic() - began_s) * 1000, 3),
            )
        )

    async def _answer(self, request: Request, fault: Fault | None) -> Reply | None:
        """None: the connection is to be closed without an answer."""
        if fault is not None:
            if fault.action == "cut":
                return None
            if fault.action == "status":
                body = fault.body if isinstance(fault.body, str) else json.dumps(fault.body)
                content_type = "application/json; charset=utf-8" if not isinstance(fault.body, str) else "text/html"
                return Reply(fault.status, body.encode(), {"Content-Type": content_type, **fault.headers})
            if fault.action == "delay" and fault.when == "before":
                await asyncio.sleep(fault.seconds)
        limits = self._limits
        if limits is None or request.app is None:
            return await self._handle_late(request)
        who, cookie = limits.who(request.app, request.headers)
        reply = await (self._handle_limited(request, limits, who) if limits.on else self._handle_late(request))
        if cookie is not None:
            reply.headers["Set-Cookie"] = cookie
        return reply

    async def _handle_late(self, request: Request) -> Reply:
        seconds = self._latencies.seconds(self._service.system, request.method, _target(request), request.app)
        if seconds:
            await asyncio.sleep(seconds)
        return await self._handle(request)

    async def _handle_limited(self, request: Request, limits: Limits, who: str) -> Reply:
        ticket = await limits.admit(who, weight=self._service.weight(request))
        if isinstance(ticket, Refusal):
            return self._service.refused(request, ticket)
        started = time.monotonic()
        try:
            reply = await self._handle_late(request)
        finally:
            limits.release(who, time.monotonic() - started)
        reply.headers.update(limits.headers(who))
        return reply

    async def _send(self, reply: Reply, method: str, send: Send) -> None:
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
        headers.append((b"date", self._clock.http_date().encode()))
        if reply.status not in (204, 304):
            headers.append((b"content-length", str(len(reply.body)).encode()))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else reply.body})

    async def _handle(self, request: Request) -> Reply:
        alias = alias_of(self._origin, request.headers.get("host", "")) if self._origin else None
        if alias is not None:
            request.body = alias.inward(request.body)
        try:
            found = self._service.handle(request)
            reply = found if isinstance(found, Reply) else await found
        except Exception:  # noqa: BLE001 - the edge: a bug of the sandbox must look like a 500 and be seen
            traceback.print_exc(file=sys.stderr)
            return self._service.failed(request)
        if alias is not None:
            reply.headers = {name: alias.outward_text(value) for name, value in reply.headers.items()}
            if not reply.headers.get("Content-Type", "").startswith("application/octet-stream"):
                reply.body = alias.outward(reply.body)
        return reply


def _target(request: Request) -> str:
    return f"{request.path}?{request.query}" if request.query else request.path


def _announced(scope: Mapping[str, Any]) -> int:
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return int(length) if length.isdigit() else 0


async def _read(receive: Receive) -> bytes | None:
    """None: the client was gone before all of it was here. A part of a request is none, whatever it would mean."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _cut(scope: Mapping[str, Any], receive: Receive) -> None:
    """Close the connection now; returns once uvicorn knows it is gone."""
    scope["state"]["transport"].abort()
    while (await receive())["type"] != "http.disconnect":
        pass
