"""Dataverse's webhooks: asynchronous steps on Create, Update and Delete, posted soon after the commit.

One attempt, and one more on 502, 503 and 504; nothing beyond that, no order, no memory across a restart. What became
of it is a system job: of a failure always, of a success where the step keeps its jobs.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree as ET

from drawbar.sandbox.crm.jobs import FAILED, SUCCEEDED, SYSTEM_EVENT, CrmJobs, regarding
from drawbar.sandbox.crm.model import CHOICES, LOOKUPS, Entity, entities, label
from drawbar.sandbox.crm.origin import Origin
from drawbar.sandbox.notify import Answer, Notifier
from drawbar.sandbox.store import Change, Store, Values
from drawbar.sandbox.switches import Switches
from drawbar.sandbox.wire import to_json

DELAY_S = 0.05
TIMEOUT_S = 60.0
MAX_BODY_BYTES = 256 * 1024
AUTOMATIC_IMAGE = "AsynchronousStepPrimaryName"
_CONTRACTS = "http://schemas.microsoft.com/xrm/2011/Contracts"
_TRIMMED = ("ParentContext", "InputParameters", "PreEntityImages", "PostEntityImages")


@dataclass(frozen=True, slots=True)
class CrmNote:
    """What a webhook must know of a write besides the row: `columns` are those the request named."""

    message: str
    user: Values
    columns: tuple[str, ...]
    origin: Origin
    by_client: bool = True  # False: the platform's own doing, in consequence of a request
    initiating: Values | None = None  # who wrote in the user's name, if it was another
    detects_duplicates: bool = False


@dataclass(frozen=True, slots=True)
class _Event:
    """What a step may be registered for: one row's change, or those of one table that a request made together."""

    message: str
    table: str
    changes: tuple[Change, ...]

    @property
    def note(self) -> CrmNote:
        note: CrmNote = self.changes[0].note
        return note

    @property
    def is_multiple(self) -> bool:
        return self.message.endswith("Multiple")


def _events(changes: list[Change]) -> Iterator[_Event]:
    """A row that is written alone is a request of one as well, for steps of the message for many."""
    together: dict[tuple[str, str, int], list[Change]] = {}
    for change in changes:
        note = change.note
        if not isinstance(note, CrmNote):
            continue
        yield _Event(note.message, change.table, (change,))
        if note.message != "Delete":
            together.setdefault((f"{note.message}Multiple", change.table, id(note.origin)), []).append(change)
    for (message, table, _), several in together.items():
        yield _Event(message, table, tuple(several))


def _outputs(event: _Event) -> list[dict[str, Any]]:
    match event.message:
        case "Create":
            return [{"key": "id", "value": event.changes[0].id}]
        case "CreateMultiple":
            return [{"key": "Ids", "value": [change.id for change in event.changes]}]
        case _:
            return []


@dataclass(slots=True)
class CrmWebhookSettings:
    delay_s: float = DELAY_S
    drop: bool = False  # notifications are made and thrown away
    max_body_bytes: int = MAX_BODY_BYTES  # a larger one goes out without its parameters


class CrmWebhooks:
    def __init__(self, store: Store, notifier: Notifier, switches: Switches) -> None:
        self._switches = switches
        self.settings = CrmWebhookSettings()
        self.jobs = CrmJobs(store)
        self.host = ""
        self._store = store
        self._notifier = notifier
        self._entities = entities()
        self._tasks: set[asyncio.Task[None]] = set()
        store.listeners.append(self._on_changes)

    def _on_changes(self, changes: list[Change]) -> None:
        steps = self._store.table("sdkmessageprocessingstep").rows
        if not steps:
            return
        if self.settings.drop:
            return
        for several in _events(changes):
            for step_id, step in steps.items():
                if not self._is_bypassed(several, step_id, step.values) and self._fires(step.values, several):
                    task = asyncio.get_running_loop().create_task(self._post(step_id, step.values, several))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    def _is_bypassed(self, event: _Event, step_id: str, step: Values) -> bool:
        by_kind = event.note.origin.skips_kind(step["mode"]) and self._switches["crm_bypass_skips_webhooks"]
        return bool(by_kind) or event.note.origin.skips_step(step_id)

    def _fires(self, step: Values, event: _Event) -> bool:
        message = self._store.table("sdkmessage").rows.get(step.get("sdkmessageid", ""))
        if step.get("statecode") != 0 or message is None or message.values["name"] != event.message:
            return False
        scope = self._store.table("sdkmessagefilter").rows.get(step.get("sdkmessagefilterid", ""))
        if scope is not None and scope.values["primaryobjecttypecode"] != event.table:
            return False
        columns = {name.strip() for name in (step.get("filteringattributes") or "").split(",") if name.strip()}
        if not columns or not event.message.startswith("Update"):
            return True
        return any(columns & set(change.note.columns) for change in event.changes)

    async def _post(self, step_id: str, step: Values, event: _Event) -> None:
        endpoint = self._store.table("serviceendpoint").rows.get(step.get("eventhandler", ""))
        if endpoint is None:
            return
        context = self._context(step_id, step, event)
        started = self._store.clock.whole_seconds()
        await asyncio.sleep(self.settings.delay_s)
        body = to_json(context)
        headers = {
            "Content-Type": "application/json",
            "x-ms-dynamics-organization": self.host,
            "x-ms-dynamics-entity-name": event.table,
            "x-ms-dynamics-request-name": event.message,
            "x-ms-correlation-request-id": context["CorrelationId"],
        }
        if len(body) > self.settings.max_body_bytes:
            body = to_json({name: value for name, value in context.items() if name not in _TRIMMED})
            headers["x-ms-dynamics-msg-size-exceeded"] = "true"
        url, authorization = _authorized(endpoint.values)
        answer = await self._notifier.send("POST", url, body, {**headers, **authorization}, timeout_s=TIMEOUT_S)
        tries = 0
        if answer.status in (502, 503, 504):
            answer = await self._notifier.send("POST", url, body, {**headers, **authorization}, timeout_s=TIMEOUT_S)
            tries = 1
        if not answer.accepted or not step.get("asyncautodelete"):
            self._keep_job(step_id, step, event, context, answer, startedon=started, retrycount=tries)

    def _keep_job(
        self,
        step_id: str,
        step: Values,
        event: _Event,
        context: dict[str, Any],
        answer: Answer,
        **more: Any,
    ) -> None:
        """What became of a notification, under the id it was told."""
        if not answer.accepted:
            said = f"answered with status {answer.status}" if answer.status else "did not answer"
            more["message"] = more["friendlymessage"] = f"The webhook call failed: the endpoint {said}."
        with self._store.transaction():
            self.jobs.keep(
                context["OperationId"],
                SUCCEEDED if answer.accepted else FAILED,
                user=event.note.user,
                name=str(step.get("name") or ""),
                kind=SYSTEM_EVENT,
                messagename=event.message,
                primaryentitytype=event.table,
                owningextensionid=step_id,
                correlationid=context["CorrelationId"],
                requestid=context["RequestId"],
                completedon=self._store.clock.whole_seconds(),
                **regarding(event.table, event.changes[0].id),
                **more,
            )

    def _context(self, step_id: str, step: Values, event: _Event) -> dict[str, Any]:
        """The RemoteExecutionContext, members in alphabetical order."""
        entity, note = self._entities[event.table], event.note
        now_ms = self._store.clock.now_ms()
        user_id = note.user["systemuserid"]
        initiating = note.initiating or note.user
        pre, post = ([], []) if event.is_multiple else self._images(step_id, entity, event.changes[0])
        extension = step.get("name") if self._switches["crm_owning_extension_name"] else None
        shared = [{"key": "tag", "value": note.origin.tag}] if note.origin.tag and note.by_client else []
        context = {
            "BusinessUnitId": note.user.get("businessunitid"),
            "CorrelationId": note.origin.correlation_id,
            "Depth": 1,
            "InitiatingUserAzureActiveDirectoryObjectId": initiating.get("azureactivedirectoryobjectid") or _EMPTY,
            "InitiatingUserId": initiating["systemuserid"],
            "InputParameters": self._inputs(entity, event),
            "IsExecutingOffline": False,
            "IsInTransaction": False,
            "IsOfflinePlayback": False,
            "IsolationMode": 1,
            "MessageName": event.message,
            "Mode": 1,
            "OperationCreatedOn": f"/Date({now_ms}+0000)/",
            "OperationId": str(uuid.uuid4()),
            "OrganizationId": self._store.fact("organization_id"),
            "OrganizationName": "unq" + str(self._store.fact("organization_id", "")).replace("-", "")[:25],
            "OutputParameters": _outputs(event),
            "OwningExtension": _reference("sdkmessageprocessingstep", step_id, extension),
            "ParentContext": None,
            "PostEntityImages": post,
            "PreEntityImages": pre,
            "PrimaryEntityId": _EMPTY if event.is_multiple else event.changes[0].id,
            "PrimaryEntityName": event.table,
            "RequestId": note.origin.request_id,
            "SecondaryEntityName": "none",
            "SharedVariables": shared,
            "Stage": 40,
            "UserAzureActiveDirectoryObjectId": note.user.get("azureactivedirectoryobjectid") or _EMPTY,
            "UserId": user_id,
        }
        if self._switches["crm_object_ids"]:
            return context
        return {name: value for name, value in context.items() if "AzureActiveDirectory" not in name}

    def _inputs(self, entity: Entity, event: _Event) -> list[dict[str, Any]]:
        if event.message == "Delete":
            reference = _reference(event.table, event.changes[0].id)
            return [{"key": "Target", "value": {"__type": f"EntityReference:{_CONTRACTS}", **reference}}]
        targets = [self._target(entity, change) for change in event.changes]
        if event.is_multiple:
            rows = {
                "__type": f"EntityCollection:{_CONTRACTS}",
                "Entities": [{name: value for name, value in row.items() if name != "__type"} for row in targets],
                "EntityName": event.table,
                "MinActiveRowVersion": None,
                "MoreRecords": False,
                "PagingCookie": None,
                "TotalRecordCount": 0,
                "TotalRecordCountLimitExceeded": False,
            }
            return [{"key": "Targets", "value": rows}]
        return [
            {"key": "Target", "value": targets[0]},
            {"key": "SuppressDuplicateDetection", "value": not event.note.detects_duplicates},
        ]

    def _target(self, entity: Entity, change: Change) -> dict[str, Any]:
        names = (*change.note.columns, entity.id, "modifiedon", "modifiedby", "modifiedonbehalfby")
        return {"__type": f"Entity:{_CONTRACTS}", **self._image(entity, change.id, change.after or {}, names, None)}

    def _images(
        self, step_id: str, entity: Entity, change: Change
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        pre: list[dict[str, Any]] = []
        post: list[dict[str, Any]] = []
        for stored in self._store.table("sdkmessageprocessingstepimage").rows.values():
            image = stored.values
            if image.get("sdkmessageprocessingstepid") != step_id:
                continue
            columns = [name.strip() for name in (image.get("attributes") or "").split(",") if name.strip()]
            names = (entity.id, *(columns or sorted(entity.attributes)))
            alias = image.get("entityalias") or image.get("name")
            if image["imagetype"] in (0, 2) and change.before is not None:
                pre.append({"key": alias, "value": self._image(entity, change.id, change.before, names, None)})
            if image["imagetype"] in (1, 2) and change.after is not None:
                image = self._image(entity, change.id, change.after, names, change.version)
                post.append({"key": alias, "value": image})
        if change.after is not None and self._switches["crm_automatic_post_image"]:
            image = self._image(entity, change.id, change.after, (entity.id, entity.name), change.version)
            post.append({"key": AUTOMATIC_IMAGE, "value": image})
        return pre, post

    def _image(
        self, entity: Entity, row_id: str, row: Values, names: tuple[str, ...], version: int | None
    ) -> dict[str, Any]:
        """`version`: of the row in this state, where it is known."""
        is_told = version is not None and self._switches["crm_image_row_version"]
        attributes: list[dict[str, Any]] = []
        formatted: list[dict[str, Any]] = []
        for name in dict.fromkeys(names):
            attribute = entity.attributes.get(name)
            if attribute is None or attribute.secret:
                continue
            value = row.get(name)
            attributes.append({"key": name, "value": _typed(attribute.type, attribute.targets, row, name, value)})
            if value is not None and attribute.type in CHOICES:
                formatted.append({"key": name, "value": label(attribute, value, "")})
        return {
            "Attributes": attributes,
            "EntityState": None,
            "FormattedValues": formatted,
            "Id": row_id,
            "KeyAttributes": [],
            "LogicalName": entity.logical,
            "RelatedEntities": [],
            "RowVersion": str(version) if is_told else None,
        }

    def close(self) -> None:
        self.jobs.close()
        for task in self._tasks:
            task.cancel()


_EMPTY = "00000000-0000-0000-0000-000000000000"


def _typed(kind: str, targets: tuple[str, ...], row: Values, name: str, value: Any) -> Any:
    if value is None:
        return None
    if kind == "Money":
        return {"__type": f"Money:{_CONTRACTS}", "Value": float(value)}
    if kind in CHOICES:
        return {"__type": f"OptionSetValue:{_CONTRACTS}", "Value": value}
    if kind in LOOKUPS:
        target = row.get(f"{name}@type") or targets[0]
        return {"__type": f"EntityReference:{_CONTRACTS}", **_reference(target, value)}
    if kind == "DateTime":
        text = value if "T" in value else f"{value}T00:00:00Z"
        moment = dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.timezone.utc)
        return f"/Date({int(moment.timestamp() * 1000)})/"
    return value


def _reference(logical: str, row_id: str, name: str | None = None) -> dict[str, Any]:
    return {"Id": row_id, "KeyAttributes": [], "LogicalName": logical, "Name": name, "RowVersion": None}


def _authorized(endpoint: Values) -> tuple[str, dict[str, str]]:
    """Address and extra headers, with the material that `authtype` puts into one of them."""
    url, value = str(endpoint.get("url", "")), str(endpoint.get("authvalue") or "")
    match endpoint.get("authtype"):
        case 4:
            return _with_query(url, {"code": value}), {}
        case 5:
            return url, _settings(value)
        case 6:
            return _with_query(url, _settings(value)), {}
        case _:
            return url, {}


def _settings(value: str) -> dict[str, str]:
    try:
        tree = ET.fromstring(value)  # noqa: S314 - written by the developer whose machine this is
    except ET.ParseError:
        return {}
    return {setting.get("name", ""): setting.get("value", "") for setting in tree.iter("setting")}


def _with_query(url: str, values: dict[str, str]) -> str:
    query = "&".join(f"{quote(name)}={quote(value)}" for name, value in values.items())
    return f"{url}{'&' if urlsplit(url).query else '?'}{query}"
