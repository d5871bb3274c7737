"""The real HTTP port: one system's API, signed in, over pooled connections.

Never retries by itself, with one exception: a 401 gets one fresh token and one repeat. A fault of the network becomes
`NoReply`, which says as precisely as can be known whether the request may have reached the server.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import datetime, timezone
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from drawbar import business_central, dataverse
from drawbar.business_central import BusinessCentral
from drawbar.dataverse import Dataverse
from drawbar.entities import SystemAdapter
from drawbar.ports import NoReply, Reply
from drawbar.settings import ErpSettings, Settings
from drawbar.signin import SignIn, session_for, sign_in_for, system_settings
from schemas.errors import AccessError, SettingsError
from schemas.records import System

CONNECT_TIMEOUT_S = 10
_UNAUTHORIZED = 401


class ODataHttp:
    """Implements `drawbar.ports.Http`. Safe to use from several threads."""

    def __init__(
        self,
        *,
        base_url: str,
        sign_in: SignIn,
        session: requests.Session,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._origin = urlsplit(base_url)[:2]
        self._sign_in = sign_in
        self._session = session
        self._headers = dict(headers)
        self._timeout_s = timeout_s
        self._skew = SkewEstimate()
        self._skew_lock = threading.Lock()

    @property
    def skew_ms(self) -> int:
        """The system's clock minus ours, from its Date headers."""
        with self._skew_lock:
            return self._skew.milliseconds

    def sign_in(self) -> None:
        """Fetch a token now, so that a wrong secret stops the start. Raises AccessError."""
        self._sign_in.token()

    def close(self) -> None:
        self._session.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Reply:
        """One request. Raises NoReply, also when no token can be had (its cause is the coded error)."""
        url = self._url(path)
        data = None if body is None else to_json(body).encode()
        reply = self._once(method, url, data, headers, timeout_s, fresh=False)
        if reply.status == _UNAUTHORIZED:
            reply = self._once(method, url, data, headers, timeout_s, fresh=True)
        return reply

    def _once(
        self,
        method: str,
        url: str,
        data: bytes | None,
        headers: Mapping[str, str] | None,
        timeout_s: float | None,
        *,
        fresh: bool,
    ) -> Reply:
        try:
            token = self._sign_in.token(fresh=fresh)
        except AccessError as fault:
            raise NoReply(f"sign-in: {fault.code} {fault.slug}", sent=False) from fault
        sent_headers = {**self._headers, "Authorization": f"Bearer {token}"}
        if data is not None:
            sent_headers["Content-Type"] = "application/json; charset=utf-8"
        sent_headers.update(headers or {})
        before = time.time()
        try:
            response = self._session.request(
                method,
                url,
                data=data,
                headers=sent_headers,
                timeout=(CONNECT_TIMEOUT_S, timeout_s or self._timeout_s),
                allow_redirects=False,  # a redirected PATCH would become a GET
            )
            content = response.content
        except requests.RequestException as fault:
            raise NoReply(type(fault).__name__, sent=may_have_arrived(fault)) from fault
        self._note_skew(response.headers.get("Date"), before, time.time())
        return to_reply(response.status_code, response.headers, content)

    def _url(self, path: str) -> str:
        if "://" not in path:
            return f"{self._base_url}/{path.lstrip('/')}"
        if urlsplit(path)[:2] != self._origin:
            raise NoReply("a link leads to another server, which gets no token of ours", sent=False)
        return path

    def _note_skew(self, date: str | None, before: float, after: float) -> None:
        if date is None:
            return
        try:
            server = parsedate_to_datetime(date).replace(tzinfo=timezone.utc).timestamp()
        except ValueError:
            return
        with self._skew_lock:
            self._skew.note(server, before=before, after=after)


class SkewEstimate:
    """A server's clock minus ours, in the bounds that its Date headers leave. Pure.

    A Date header has whole seconds and, as servers make it once a second, may be one second old: one reply bounds the
    difference to two seconds and its own duration, several replies narrow it. Nothing is claimed while no difference
    at all would explain them.
    """

    def __init__(self) -> None:
        self._bounds: deque[tuple[float, float]] = deque(maxlen=32)

    def note(self, server: float, *, before: float, after: float) -> None:
        """All in seconds since the epoch; `before` and `after` are our clock around the request."""
        self._bounds.append((server - after, server + 2 - before))
        if self._range() is None:
            self._bounds = deque([self._bounds[-1]], maxlen=self._bounds.maxlen)  # a clock was set: begin anew

    @property
    def milliseconds(self) -> int:
        found = self._range()
        if found is None or found[0] <= 0 <= found[1]:
            return 0
        return round((found[0] + found[1]) * 500)

    def _range(self) -> tuple[float, float] | None:
        if not self._bounds:
            return None
        low, high = max(low for low, _ in self._bounds), min(high for _, high in self._bounds)
        return (low, high) if low <= high else None


def open_http(settings: Settings, system: System) -> ODataHttp:
    """The API of one system as the settings name it. Raises SettingsError; does not call yet."""
    part = system_settings(settings, system)
    if not part.base_url:
        raise SettingsError(f"{system.value}.base_url is not set", where=f"DRAWBAR_{system.value.upper()}__BASE_URL")
    if urlsplit(part.base_url).scheme not in ("http", "https") or not urlsplit(part.base_url).netloc:
        raise SettingsError(
            f"{system.value}.base_url is not a web address", where=f"DRAWBAR_{system.value.upper()}__BASE_URL"
        )
    standard = business_central.STANDARD_HEADERS if system is System.ERP else dataverse.STANDARD_HEADERS
    return ODataHttp(
        base_url=part.base_url,
        sign_in=sign_in_for(settings, system),
        session=session_for(
            part.base_url, settings.ca_file, pool_size=part.max_parallel, timeout_s=CONNECT_TIMEOUT_S + part.timeout_s
        ),
        headers=standard,
        timeout_s=part.timeout_s,
    )


def adapter_for(settings: Settings, system: System) -> SystemAdapter:
    """The adapter of one system. Raises SettingsError when the ERP's company is not set."""
    if system is System.CRM:
        return Dataverse()
    erp: ErpSettings = settings.erp
    if not erp.company_id:
        raise SettingsError("erp.company_id is not set", where="DRAWBAR_ERP__COMPANY_ID")
    return BusinessCentral(company_id=erp.company_id)


def to_reply(status: int, headers: Mapping[str, str], content: bytes) -> Reply:
    """Status, lower-case headers and JSON body; numbers with a fraction become Decimal, so that none is rounded.

    JSON can say half a UTF-16 pair, which is no character and which no message can hold: it is read as U+FFFD.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    if not content.strip():
        return Reply(status=status, headers=lower)
    try:
        body = json.loads(content, parse_float=Decimal)
        return Reply(status=status, headers=lower, body=_whole(body) if _HALF.search(content) else body)
    except (ValueError, RecursionError):
        xml = content if lower.get("content-type", "").startswith("application/xml") else b""
        return Reply(status=status, headers=lower, is_json=False, xml=xml)


_HALF = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")  # may be half a pair: escaped, or as bytes


def _whole(value: Any) -> Any:
    """The value with every half of a UTF-16 pair replaced."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return {_whole(name): _whole(item) for name, item in value.items()} if isinstance(value, dict) else value


def to_json(value: Any) -> str:
    """JSON text in which a Decimal is a number with exactly its digits; `json` would round it or refuse."""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(str(name))}:{to_json(item)}" for name, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(to_json(item) for item in value) + "]"
    return json.dumps(value)


def retry_after_s(reply: Reply, now: datetime) -> float | None:
    """What `Retry-After` asks for: seconds, or a date; None when it is absent or unreadable (RFC 9110, 10.2.3)."""
    text = reply.headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or timezone.utc) - now).total_seconds())


def may_have_arrived(fault: requests.RequestException) -> bool:
    """Whether the request that ended in `fault` may have reached the server, and a write may have been done."""
    if isinstance(fault, (requests.ConnectTimeout, requests.exceptions.InvalidURL, requests.exceptions.ProxyError)):
        return False
    reasons = _reasons(fault)
    not_connected = (
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ConnectTimeoutError,
        ssl.SSLCertVerificationError,
    )
    return not any(isinstance(reason, not_connected) for reason in reasons)


def _reasons(fault: BaseException) -> list[BaseException]:
    """The fault and all that it wraps, by argument, `reason` or cause."""
    found: list[BaseException] = []
    todo: list[Any] = [fault]
    while todo:
        item = todo.pop()
        if isinstance(item, BaseException) and item not in found:
            found.append(item)
            todo += [*item.args, getattr(item, "reason", None), item.__cause__, item.__context__]
    return found
