"""Business Central's webhooks: subscriptions, and what is sent when.

Pending notifications are kept in memory: a killed sandbox forgets them, as it may, since a notification is a
hint. Subscriptions are rows of the store. Source of the rules: the product's API webhook component.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from drawbar.sandbox.erp.model import (
    ErpError,
    entity_changed,
    entity_sets,
    etag,
    is_subscribable,
    shown_time,
    time_text,
)
from drawbar.sandbox.notify import Notifier
from drawbar.sandbox.store import Change, Store, Stored, Values
from drawbar.sandbox.switches import Switches
from drawbar.sandbox.wire import to_json

SOURCE = "API Webhook Subscription"  # the table's name in the product
DELAY_S = 30.0
LEASE_S = 3 * 86_400.0
HANDSHAKE_TIMEOUT_S = 5.0
RESPONSE_TIMEOUT_S = 30.0
MAX_SUBSCRIPTIONS = 200
MAX_NOTIFICATIONS = 1000  # of one subscription in one run; beyond, one `collection` entry stands for all
MAX_PENDING = 1_000_000  # beyond, changes are not noted any more
MARGIN_MS = 50  # the filter of a `collection` entry starts this much before the first change
RETRY_S = (60.0, 60.0, 600.0, 6000.0, 60_000.0)
_RESOURCE = re.compile(r"(?:\A|/)api/((?:[\w-]+/[\w-]+/)?[\w.]+)/companies\(([0-9a-fA-F-]{36})\)/(\w+)\Z")


@dataclass(slots=True)
class ErpWebhookSettings:
    delay_s: float = DELAY_S
    drop: bool = False  # notifications are made and thrown away
    retry_scale: float = 1.0  # on the waits after a failure
    max_notifications: int = MAX_NOTIFICATIONS
    lease_s: float = LEASE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    row_id: str
    kind: str  # created, updated, deleted
    at_ms: int


@dataclass(slots=True)
class _Queue:
    """What one notification address has to be told."""

    pending: dict[str, list[_Pending]] = field(default_factory=dict)  # by subscription
    failures: int = 0
    retry_at: float = 0.0  # of the loop's clock: an attempt before is not counted
    timer: asyncio.TimerHandle | None = None
    sending: bool = False


class ErpWebhooks:
    def __init__(
        self, store: Store, notifier: Notifier, switches: Switches, settings: ErpWebhookSettings | None = None
    ) -> None:
        self.settings = settings or ErpWebhookSettings()
        self._switches = switches
        self._store = store
        self._notifier = notifier
        self._queues: dict[str, _Queue] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        store.listeners.append(self._on_changes)

    # ------------------------------------------------------------ subscriptions

    def shown(self, stored: Stored) -> Values:
        return {"@odata.etag": etag(stored.version, self._switches["erp_etag_form"]), **stored.values}

    async def subscribe(self, body: Values, stored: Stored | None, *, user: str, route: str) -> Stored:
        """After a handshake; a new subscription, or a renewal of `stored`. The resource is one of the API asked."""
        for name in ("notificationUrl", "resource"):
            if not isinstance(body.get(name), str) or not body[name]:
                raise ErpError(400, "BadRequest_RequiredParamNotProvided", f"'{name}' must be provided.")
        url, resource = body["notificationUrl"], body["resource"]
        if urlsplit(url).scheme not in ("https", "http"):
            raise ErpError(400, "BadRequest", "The notification URL is not valid.")
        subject = _subject(resource)
        of_route, company, set_name = subject
        if company not in [row["id"] for row in self._store.fact("companies", [])]:
            raise ErpError(404, "Internal_CompanyNotFound", f"The company '{company}' does not exist.")
        entity_set = entity_sets().get(set_name)
        if entity_set is None or (entity_set.route, route) != (of_route, of_route):
            raise ErpError(400, "BadRequest", f"The resource '{set_name}' is not one of this API.")
        if not is_subscribable(entity_set, self._switches["erp_webhook_sets"]):
            raise ErpError(400, "BadRequest", f"The resource '{set_name}' does not support webhooks.")
        self._must_have_room(url, subject, stored)
        await self._handshake(url)
        self._must_have_room(url, subject, stored)  # others may have asked meanwhile
        now_ms = self._store.clock.now_ms()
        now = shown_time(time_text(now_ms))
        first = stored.values if stored else {}
        subscription_id = str(first.get("subscriptionId") or uuid.uuid4().hex)
        values = {
            "subscriptionId": subscription_id,
            "notificationUrl": url,
            "resource": resource,
            "timestamp": self._store.version + 1,
            "userId": user,
            "lastModifiedDateTime": now,
            "clientState": str(body.get("clientState") or ""),
            "expirationDateTime": _whole_seconds(now_ms / 1000 + self.settings.lease_s),
            "systemCreatedAt": first.get("systemCreatedAt", now),
            "systemCreatedBy": first.get("systemCreatedBy", user),
            "systemModifiedAt": now,
            "systemModifiedBy": user,
        }
        with self._store.transaction():
            return self._store.put("subscriptions", subscription_id, values)

    def _must_have_room(self, url: str, subject: tuple[str, str, str], stored: Stored | None) -> None:
        """Raises ErpError where the subscription to renew is gone or is another by now, or no new one is possible."""
        rows = self._store.table("subscriptions").rows
        if stored is not None:
            now = rows.get(str(stored.values["subscriptionId"]))
            if now is None:
                raise ErpError(404, "BadRequest_ResourceNotFound", "The subscription does not exist.")
            if now is not stored:
                raise entity_changed(SOURCE)
            return
        if len(rows) >= MAX_SUBSCRIPTIONS:
            raise ErpError(400, "BadRequest", f"The maximum of {MAX_SUBSCRIPTIONS} subscriptions is reached.")
        for other in rows.values() if self._switches["erp_subscribe_twice"] == "refused" else ():
            if (other.values["notificationUrl"], _subject(other.values["resource"])) == (url, subject):
                raise ErpError(400, "BadRequest", "The subscription already exists.")

    async def _handshake(self, url: str) -> None:
        token = uuid.uuid4().hex
        target = f"{url}{'&' if urlsplit(url).query else '?'}validationToken={token}"
        verb = self._switches["erp_handshake_verb"]
        answer = await self._notifier.send(verb, target, b"", {}, timeout_s=HANDSHAKE_TIMEOUT_S)
        if answer.status != 200 or answer.body.decode("utf-8", "replace").strip() != token:
            raise ErpError(400, "BadRequest", "The notification URL did not return the validation token.")

    def drop(self, subscription_ids: list[str]) -> None:
        with self._store.transaction():
            for subscription_id in subscription_ids:
                if subscription_id in self._store.table("subscriptions").rows:
                    self._store.remove("subscriptions", subscription_id)

    def _active(self, url: str | None = None) -> list[Values]:
        """Those not expired, after the expired ones are gone."""
        now = _whole_seconds(self._store.clock.now_s())
        rows = [stored.values for stored in self._store.table("subscriptions").rows.values()]
        expired = [row["subscriptionId"] for row in rows if row["expirationDateTime"] < now]
        if expired:
            self.drop(expired)
        return [
            row for row in rows if row["expirationDateTime"] >= now and (url is None or row["notificationUrl"] == url)
        ]

    # ------------------------------------------------------------ changes

    def _on_changes(self, changes: list[Change]) -> None:
        noted = [change for change in changes if "/" in change.table and _is_real(change)]
        if not noted or not self._store.table("subscriptions").rows:
            return
        now_ms = self._store.clock.now_ms()
        for subscription in self._active():
            _, company, set_name = _subject(subscription["resource"])
            table = f"{company}/{set_name}"
            own = [change for change in noted if change.table == table]
            if not own:
                continue
            url = subscription["notificationUrl"]
            queue = self._queues.setdefault(url, _Queue())
            waiting = queue.pending.setdefault(subscription["subscriptionId"], [])
            for change in own[: max(0, MAX_PENDING - len(waiting))]:
                kind = "created" if change.before is None else "deleted" if change.after is None else "updated"
                waiting.append(_Pending(row_id=change.id, kind=kind, at_ms=now_ms))
            self._schedule(url, queue, self.settings.delay_s)

    def _schedule(self, url: str, queue: _Queue, delay_s: float) -> None:
        """A run that stands already is kept when it is due earlier."""
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_s
        if queue.timer is not None:
            if queue.timer.when() <= due:
                return
            queue.timer.cancel()
        queue.timer = loop.call_at(due, self._start, url, queue)

    def _start(self, url: str, queue: _Queue) -> None:
        queue.timer = None
        if queue.sending:
            self._schedule(url, queue, self.settings.delay_s)
            return
        task = asyncio.get_running_loop().create_task(self._send(url, queue))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, url: str, queue: _Queue) -> None:
        subscriptions = {row["subscriptionId"]: row for row in self._active(url)}
        batch = {key: list(waiting) for key, waiting in queue.pending.items() if key in subscriptions and waiting}
        queue.pending = {key: waiting for key, waiting in queue.pending.items() if key in subscriptions}
        entries = [entry for key, waiting in batch.items() for entry in self._entries(subscriptions[key], waiting)]
        if self.settings.drop or not entries:
            self._sent(queue, batch)
            return
        correlation = str(uuid.uuid4())
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "clientRequestId": correlation,
            "x-ms-correlation-id": correlation,
        }
        clock = asyncio.get_running_loop().time
        is_early = clock() < queue.retry_at
        queue.sending = True
        body = to_json({"value": entries})
        try:
            answer = await self._notifier.send("POST", url, body, headers, timeout_s=RESPONSE_TIMEOUT_S)
        finally:
            queue.sending = False
        if answer.accepted:
            queue.failures, queue.retry_at = 0, 0.0
            self._sent(queue, batch)
            return
        is_final = answer.status not in (0, 408, 429) and answer.status < 500
        queue.failures += not is_early
        if is_final or queue.failures > len(RETRY_S):
            self.drop(list(subscriptions))
            self._queues.pop(url, None)
            return
        if not is_early:
            queue.retry_at = clock() + RETRY_S[queue.failures - 1] * self.settings.retry_scale
        self._schedule(url, queue, max(0.0, queue.retry_at - clock()))

    @staticmethod
    def _sent(queue: _Queue, batch: Mapping[str, list[_Pending]]) -> None:
        for key, sent in batch.items():
            del queue.pending[key][: len(sent)]

    def _entries(self, subscription: Values, waiting: list[_Pending]) -> list[Values]:
        resource = subscription["resource"].rstrip("/")
        common = {
            "subscriptionId": subscription["subscriptionId"],
            "clientState": subscription["clientState"],
            "expirationDateTime": subscription["expirationDateTime"],
        }
        if len(waiting) > self.settings.max_notifications:
            scope = resource
            _, _, set_name = _subject(subscription["resource"])
            is_timed = "lastModifiedDateTime" in entity_sets()[set_name].columns
            if is_timed and not any(entry.kind == "deleted" for entry in waiting):
                first = shown_time(time_text(waiting[0].at_ms - MARGIN_MS))
                scope = f"{resource}?$filter=lastModifiedDateTime%20gt%20{first}"
            last = shown_time(time_text(waiting[-1].at_ms))
            return [{**common, "resource": scope, "changeType": "collection", "lastModifiedDateTime": last}]
        return [
            {
                **common,
                "resource": f"{resource}({entry.row_id})",
                "changeType": entry.kind,
                "lastModifiedDateTime": shown_time(time_text(entry.at_ms)),
            }
            for entry in _collapsed(waiting)
        ]

    def close(self) -> None:
        for queue in self._queues.values():
            if queue.timer is not None:
                queue.timer.cancel()
        for task in self._tasks:
            task.cancel()


def _collapsed(waiting: list[_Pending]) -> list[_Pending]:
    """Consecutive updates of one record become the latest of them; all in order of time."""
    kept: list[_Pending] = []
    last_of: dict[str, int] = {}
    for entry in waiting:
        at = last_of.get(entry.row_id)
        if at is not None and entry.kind == "updated" and kept[at].kind == "updated":
            kept[at] = entry
        else:
            last_of[entry.row_id] = len(kept)
            kept.append(entry)
    return sorted(kept, key=lambda entry: entry.at_ms)


def _is_real(change: Change) -> bool:
    """A value that is merely calculated does not move the time of the row, and nobody is told."""
    if change.before is None or change.after is None:
        return True
    return bool(change.before.get("lastModifiedDateTime") != change.after.get("lastModifiedDateTime"))


def _subject(resource: str) -> tuple[str, str, str]:
    """Route, company and set a resource names, given relative or as a whole URL."""
    path = urlsplit(resource).path if "://" in resource else resource
    match = _RESOURCE.search(path.rstrip("/"))
    if match is None:
        raise ErpError(400, "BadRequest", "The resource is not a collection of a company.")
    return match.group(1), match.group(2).lower(), match.group(3)


def _whole_seconds(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
