"""What is registered in the two systems so that they call us: ERP subscriptions, a CRM endpoint with steps.

A registration is ours when it leads to our address; no other is ever changed. Each of the two classes can look, keep
(make what is missing, change what differs) and remove; all three may be repeated at will.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any
from urllib.parse import urlsplit
from xml.sax.saxutils import quoteattr

from drawbar.asking import Asker
from drawbar.business_central import BusinessCentral
from drawbar.entities import entity_of, parse_time, with_query
from drawbar.ports import Clock, Http
from schemas.errors import (
    DrawbarError,
    WebhookRefused,
)
from schemas.records import System

ERP_PATH = "/hooks/erp"
CRM_PATH = "/hooks/crm"
SECRET_HEADER = "x-drawbar-secret"  # noqa: S105 - the name of the header
RENEW_BEFORE = timedelta(days=2)  # a subscription lives 3 days: renewed daily, two days of failures may follow
TRIES = 3  # of a renewal that meets another writer
MESSAGES = ("Create", "Update", "Delete")

_WEBHOOK, _BY_HEADER, _JSON, _NORMAL = 8, 5, 2, 1  # contract, authtype, messageformat, connectionmode
_STEP = {"mode": 1, "stage": 40, "statecode": 0}  # asynchronous, after the operation, enabled
_MARK = re.compile(r"\bsecret ([0-9a-f]{8})\b")


class Deed(str, Enum):
    """What was found or done."""

    KEPT = "as it should be"
    MADE = "made"
    RENEWED = "renewed"
    CHANGED = "changed"
    REMOVED = "removed"
    MISSING = "missing"
    DIFFERS = "differs"
    NOT_OFFERED = "not offered"  # the ERP does not tell of the entity, the CRM has no such message for it
    FOREIGN = "another address"  # somebody else is told of the same records, or we were once, elsewhere
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One registration and what became of it. `detail` names no secret."""

    system: System
    kind: str  # subscription, endpoint or step
    entity: str = ""
    message: str = ""
    deed: Deed
    detail: str = ""
    fault: DrawbarError | None = None

    @property
    def is_well(self) -> bool:
        return self.fault is None and self.deed not in (Deed.MISSING, Deed.DIFFERS)


# --- ERP ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """One subscription as the ERP shows it. `secret` None: it is not shown."""

    id: str
    etag: str
    url: str
    resource: str
    secret: str | None
    expires: datetime | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Subscription:
        try:
            expires = parse_time(str(row.get("expirationDateTime")))
        except ValueError:
            expires = None
        state = row.get("clientState")
        return cls(
            id=str(row.get("subscriptionId", "")),
            etag=str(row.get("@odata.etag", "*")),
            url=str(row.get("notificationUrl", "")),
            resource=str(row.get("resource", "")),
            secret=state if isinstance(state, str) and state else None,
            expires=expires,
        )


def fault_of(there: Subscription, *, resource: str, secret: str, now: datetime) -> str:
    """Why a subscription of our address has to be written again; blank when it has not."""
    if subject_of(there.resource) != subject_of(resource):
        return "it is about another company"
    if there.secret is not None and there.secret != secret:
        return "it has another secret"
    if there.expires is None or there.expires - now < RENEW_BEFORE:
        return f"it ends {_when(there.expires)}"
    return ""


def subject_of(resource: str) -> str:
    """What a resource is about, however it is written: absolute, relative, with or without a leading slash."""
    path = urlsplit(resource).path.lower()
    at = path.find("companies(")
    return path[max(at, 0) :].strip("/")


class ErpSubscriptions:
    """One subscription per entity, each with an address of its own, since the ERP drops all that share one."""

    def __init__(self, http: Http, adapter: BusinessCentral, clock: Clock, *, url: str, secret: str) -> None:
        self._asker = _asker(http, System.ERP)
        self._adapter = adapter
        self._clock = clock
        self._url = url
        self._secret = secret

    def look(self, entities: Collection[str]) -> list[Found]:
        """What is there, nothing changed."""

        def judge(entity: str, ours: Sequence[Subscription]) -> Found:
            if not ours:
                return self._found(entity, Deed.MISSING if self._is_offered(entity) else Deed.NOT_OFFERED)
            why = self._fault_of(entity, ours[0])
            return self._found(entity, Deed.DIFFERS if why else Deed.KEPT, why or f"ends {_when(ours[0].expires)}")

        return self._each(entities, judge)

    def keep(self, entities: Collection[str]) -> list[Found]:
        """Make what is missing, renew what ends within two days or differs."""

        def mend(entity: str, ours: Sequence[Subscription]) -> Found:
            if not ours:
                return self._make(entity)
            why = self._fault_of(entity, ours[0])
            if not why:
                return self._found(entity, Deed.KEPT, f"ends {_when(ours[0].expires)}")
            return self._renew(entity, ours[0], why)

        return self._each(entities, mend)

    def remove(self) -> list[Found]:
        """Every subscription that leads to us, of whatever entity."""
        removed: list[Found] = []
        try:
            for there in self._listed():
                if there.url.startswith(f"{self._url}{ERP_PATH}/"):
                    headers = {"If-Match": "*"}
                    self._asker.ask("DELETE", _address(there), headers=headers, accept=(404,))
                    removed.append(self._found(there.url.rpartition("/")[2], Deed.REMOVED))
        except DrawbarError as fault:
            removed.append(self._found("", Deed.FAILED, fault=fault))
        return removed

    def _each(self, entities: Collection[str], judge: Callable[[str, Sequence[Subscription]], Found]) -> list[Found]:
        try:
            listed = self._listed()
        except DrawbarError as fault:
            return [self._found(entity, Deed.FAILED, fault=fault) for entity in entities]
        found: list[Found] = []
        for entity in entities:
            try:
                found.append(judge(entity, [there for there in listed if there.url == self._address_of(entity)]))
            except DrawbarError as fault:
                found.append(self._found(entity, Deed.FAILED, fault=fault))
            found += self._foreign(entity, listed)
        return found

    def _foreign(self, entity: str, listed: Sequence[Subscription]) -> Iterator[Found]:
        """Those of the same records that lead elsewhere: another installation's, or ours from before a move."""
        for there in listed:
            is_same = subject_of(there.resource) == subject_of(self._resource(entity))
            if is_same and there.url != self._address_of(entity):
                detail = f"{shown_url(there.url)}, ends {_when(there.expires)}"
                yield self._found(entity, Deed.FOREIGN, detail)

    def _make(self, entity: str) -> Found:
        """Made by somebody else in the same moment is made as well: the ERP refuses the second one."""
        try:
            self._asker.ask("POST", "subscriptions", body=self._body(entity))
        except WebhookRefused:
            if any(there.url == self._address_of(entity) for there in self._listed()):
                return self._found(entity, Deed.MADE)
            if not self._is_offered(entity):
                return self._found(entity, Deed.NOT_OFFERED)
            raise
        return self._found(entity, Deed.MADE)

    def _is_offered(self, entity: str) -> bool:
        """Whether the ERP's catalogue names the entity, or cannot be read."""
        resource = f"v2.0/{entity_of(System.ERP, entity).entity_set}"
        query = {"$filter": f"resource eq '{resource}'"}
        try:
            return bool(self._asker.rows(with_query(self._adapter.webhook_catalogue_path(), query)))
        except DrawbarError:
            return True

    def _renew(self, entity: str, there: Subscription, why: str) -> Found:
        """Under the version that was read. A subscription that is gone meanwhile is made anew."""
        for _ in range(TRIES):
            headers = {"If-Match": there.etag}
            body = self._body(entity)
            reply = self._asker.ask("PATCH", _address(there), body=body, headers=headers, accept=(404, 409, 412))
            if 200 <= reply.status < 300:
                return self._found(entity, Deed.RENEWED, why)
            again = [now for now in self._listed() if now.url == there.url]
            if not again:
                return self._make(entity)
            there = again[0]
            if not self._fault_of(entity, there):
                return self._found(entity, Deed.KEPT, f"ends {_when(there.expires)}")
        raise WebhookRefused(
            "the subscription is changed by somebody else all the time", where=self._address_of(entity)
        )

    def _listed(self) -> list[Subscription]:
        return [Subscription.of(row) for row in self._asker.rows("subscriptions")]

    def _fault_of(self, entity: str, there: Subscription) -> str:
        return fault_of(there, resource=self._resource(entity), secret=self._secret, now=self._clock.now())

    def _body(self, entity: str) -> Mapping[str, Any]:
        return {
            "notificationUrl": self._address_of(entity),
            "resource": self._resource(entity),
            "clientState": self._secret,
        }

    def _resource(self, entity: str) -> str:
        return "/api/v2.0/" + self._adapter.collection_path(entity_of(System.ERP, entity))

    def _address_of(self, entity: str) -> str:
        return f"{self._url}{ERP_PATH}/{entity}"

    @staticmethod
    def _found(entity: str, deed: Deed, detail: str = "", *, fault: DrawbarError | None = None) -> Found:
        return Found(system=System.ERP, kind="subscription", entity=entity, deed=deed, detail=detail, fault=fault)


# --- CRM ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedStep:
    """`columns`: an update is told of when it names one of them; empty: of any."""

    entity: str
    message: str
    message_id: str
    scope_id: str  # of the message filter: this message of this entity
    columns: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"drawbar: {self.message} of {self.entity}"


def difference(there: Mapping[str, Any], wanted: WantedStep) -> dict[str, Any]:
    """What has to be written for a step to be as wanted."""
    changed: dict[str, Any] = {name: value for name, value in _STEP.items() if there.get(name) != value}
    if "statecode" in changed:
        changed["statuscode"] = 1
    columns = {name.strip() for name in str(there.get("filteringattributes") or "").split(",") if name.strip()}
    if wanted.message == "Update" and columns != set(wanted.columns):
        changed["filteringattributes"] = ",".join(wanted.columns)
    return changed


def secret_mark(secret: str, url: str) -> str:
    """By which to know that an endpoint has this secret, which cannot be read back.

    Short and slow: of no use to whoever would guess.
    """
    return hashlib.pbkdf2_hmac("sha256", secret.encode(), url.encode(), 200_000).hex()[:8]


class CrmSteps:
    """One service endpoint, and one asynchronous step per entity and message."""

    def __init__(self, http: Http, *, url: str, secret: str) -> None:
        self._asker = _asker(http, System.CRM)
        self._url = f"{url}{CRM_PATH}"
        self._secret = secret

    def look(self, entities: Mapping[str, Sequence[str]]) -> list[Found]:
        """What is there, nothing changed. `entities`: the columns of interest of each."""
        return self._guarded(self._run, entities, may_write=False)

    def keep(self, entities: Mapping[str, Sequence[str]]) -> list[Found]:
        """Make what is missing, change what differs, remove steps of ours that are not wanted any more."""
        return self._guarded(self._run, entities, may_write=True)

    def remove(self) -> list[Found]:
        """The endpoint that leads to us and all its steps."""
        return self._guarded(self._remove)

    def _guarded(self, work: Callable[..., Iterator[Found]], *given: Any, **how: Any) -> list[Found]:
        done: list[Found] = []
        try:
            for found in work(*given, **how):
                done.append(found)  # noqa: PERF402 - what was done before a fault is told as well
        except DrawbarError as fault:
            done.append(Found(system=System.CRM, kind="registration", deed=Deed.FAILED, fault=fault))
        return done

    def _run(self, entities: Mapping[str, Sequence[str]], *, may_write: bool) -> Iterator[Found]:
        endpoints = self._endpoints()
        ours = [row for row in endpoints if row.get("url") == self._url]
        endpoint_id = str(ours[0]["serviceendpointid"]) if ours else ""
        yield self._endpoint(ours[0] if ours else None, may_write=may_write)
        if not endpoint_id and may_write:
            made = [row for row in self._endpoints() if row.get("url") == self._url]
            if not made:
                raise WebhookRefused("the service endpoint just made is not there", where=self._url)
            endpoint_id = str(made[0]["serviceendpointid"])
        for row in endpoints:
            if str(row.get("name", "")).startswith("drawbar") and row.get("url") != self._url:
                yield self._found("endpoint", Deed.FOREIGN, detail=shown_url(str(row.get("url", ""))))
        there = self._steps(endpoint_id) if endpoint_id else []
        wanted, absent = self._wanted(entities)
        for entity, message in absent:
            yield self._found("step", Deed.NOT_OFFERED, entity=entity, message=message)
        for step in wanted:
            same = [row for row in there if row.get("_sdkmessagefilterid_value") == step.scope_id]
            yield self._step(step, same[0] if same else None, endpoint_id, may_write=may_write)
            there = [row for row in there if row not in same[:1]]
        for row in there:
            yield self._surplus(row, may_write=may_write)

    def _endpoint(self, there: Mapping[str, Any] | None, *, may_write: bool) -> Found:
        mark = secret_mark(self._secret, self._url)
        body = {
            "contract": _WEBHOOK,
            "authtype": _BY_HEADER,
            "messageformat": _JSON,
            "connectionmode": _NORMAL,
            "description": f"Made by `drawbar setup webhooks`; secret {mark}",
        }
        value = f"<settings><setting name={quoteattr(SECRET_HEADER)} value={quoteattr(self._secret)} /></settings>"
        if there is None:
            if may_write:
                name = f"drawbar {self._url.partition('://')[2]}"[:100]
                made = {**body, "name": name, "url": self._url, "authvalue": value}
                self._asker.ask("POST", "serviceendpoints", body=made)
            return self._found("endpoint", Deed.MADE if may_write else Deed.MISSING, detail=self._url)
        marked = _MARK.search(str(there.get("description") or ""))
        why = [] if marked is not None and marked[1] == mark else ["secret"]
        why += [name for name in ("authtype", "messageformat") if there.get(name) != body[name]]
        if not why:
            return self._found("endpoint", Deed.KEPT, detail=self._url)
        if may_write:
            path = f"serviceendpoints({there['serviceendpointid']})"
            headers = {"If-Match": "*"}
            self._asker.ask("PATCH", path, body={**body, "authvalue": value}, headers=headers)
        return self._found("endpoint", Deed.CHANGED if may_write else Deed.DIFFERS, detail=", ".join(why))

    def _step(self, step: WantedStep, there: Mapping[str, Any] | None, endpoint_id: str, *, may_write: bool) -> Found:
        about = {"entity": step.entity, "message": step.message}
        if there is None:
            if may_write:
                body = {
                    "name": step.name,
                    "mode": _STEP["mode"],
                    "stage": _STEP["stage"],
                    "rank": 1,
                    "supporteddeployment": 0,
                    "asyncautodelete": True,
                    "sdkmessageid@odata.bind": f"/sdkmessages({step.message_id})",
                    "sdkmessagefilterid@odata.bind": f"/sdkmessagefilters({step.scope_id})",
                    "eventhandler_serviceendpoint@odata.bind": f"/serviceendpoints({endpoint_id})",
                }
                if step.columns:
                    body["filteringattributes"] = ",".join(step.columns)
                self._asker.ask("POST", "sdkmessageprocessingsteps", body=body)
            return self._found("step", Deed.MADE if may_write else Deed.MISSING, **about)
        changed = difference(there, step)
        if not changed:
            return self._found("step", Deed.KEPT, **about)
        if may_write:
            path = f"sdkmessageprocessingsteps({there['sdkmessageprocessingstepid']})"
            self._asker.ask("PATCH", path, body=changed, headers={"If-Match": "*"})
        detail = ", ".join(name for name in changed if name != "statuscode")
        return self._found("step", Deed.CHANGED if may_write else Deed.DIFFERS, detail=detail, **about)

    def _surplus(self, row: Mapping[str, Any], *, may_write: bool) -> Found:
        """A step of our endpoint that nobody wants: twice, or of an entity that is not captured any more."""
        if may_write:
            self._delete(f"sdkmessageprocessingsteps({row['sdkmessageprocessingstepid']})")
        deed, detail = (Deed.REMOVED, "") if may_write else (Deed.DIFFERS, "not wanted")
        return self._found("step", deed, entity=str(row.get("name", "")), detail=detail)

    def _remove(self) -> Iterator[Found]:
        for endpoint in self._endpoints():
            if endpoint.get("url") != self._url:
                continue
            endpoint_id = str(endpoint["serviceendpointid"])
            for row in self._steps(endpoint_id):  # an endpoint with steps cannot be removed
                self._delete(f"sdkmessageprocessingsteps({row['sdkmessageprocessingstepid']})")
                yield self._found("step", Deed.REMOVED, entity=str(row.get("name", "")))
            self._delete(f"serviceendpoints({endpoint_id})")
            yield self._found("endpoint", Deed.REMOVED, detail=self._url)

    def _delete(self, path: str) -> None:
        self._asker.ask("DELETE", path, accept=(404,))

    def _wanted(self, entities: Mapping[str, Sequence[str]]) -> tuple[list[WantedStep], list[tuple[str, str]]]:
        """The steps there should be, and what the CRM does not offer."""
        condition = " or ".join(f"name eq '{message}'" for message in MESSAGES)
        query = {"$select": "name,sdkmessageid", "$filter": condition}
        ids = {str(row["name"]): str(row["sdkmessageid"]) for row in self._asker.rows(with_query("sdkmessages", query))}
        of_entities = " or ".join(f"primaryobjecttypecode eq '{entity}'" for entity in entities)
        query = {"$select": "sdkmessagefilterid,primaryobjecttypecode,_sdkmessageid_value", "$filter": of_entities}
        scopes = {
            (row.get("primaryobjecttypecode"), row.get("_sdkmessageid_value")): str(row["sdkmessagefilterid"])
            for row in (self._asker.rows(with_query("sdkmessagefilters", query)) if entities else ())
        }
        wanted: list[WantedStep] = []
        absent: list[tuple[str, str]] = []
        for entity, columns in sorted(entities.items()):
            for message in MESSAGES:
                scope_id = scopes.get((entity, ids.get(message)))
                if scope_id is None:
                    absent.append((entity, message))
                    continue
                wanted.append(
                    WantedStep(
                        entity=entity,
                        message=message,
                        message_id=ids[message],
                        scope_id=scope_id,
                        columns=tuple(sorted(columns)) if message == "Update" else (),
                    )
                )
        return wanted, absent

    def _endpoints(self) -> list[dict[str, Any]]:
        select = "serviceendpointid,name,url,authtype,messageformat,description"
        query = {"$select": select, "$filter": f"contract eq {_WEBHOOK}"}
        return self._asker.rows(with_query("serviceendpoints", query))

    def _steps(self, endpoint_id: str) -> list[dict[str, Any]]:
        select = "sdkmessageprocessingstepid,name,mode,stage,statecode,filteringattributes,_sdkmessagefilterid_value"
        query = {"$select": select, "$filter": f"_eventhandler_value eq {endpoint_id}"}
        return self._asker.rows(with_query("sdkmessageprocessingsteps", query))

    @staticmethod
    def _found(kind: str, deed: Deed, *, entity: str = "", message: str = "", detail: str = "") -> Found:
        return Found(system=System.CRM, kind=kind, entity=entity, message=message, deed=deed, detail=detail)


def _asker(http: Http, system: System) -> Asker:
    may = "run the command as an application that has this right, or register by hand: docs/webhooks.md"
    return Asker(http=http, system=system, refused=WebhookRefused, when_forbidden=may)


def shown_url(url: str) -> str:
    """Without query and credentials, where secrets can stand."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _address(there: Subscription) -> str:
    return f"subscriptions('{there.id}')"


def _when(at: datetime | None) -> str:
    return "at a time that cannot be read" if at is None else f"{at:%Y-%m-%d %H:%M} UTC"
