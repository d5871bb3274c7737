"""Dataverse's webhooks: asynchronous steps on Create, Update and Delete, posted soon after the commit.

One attempt, and one more on 502, 503 and 504; nothing beyond that, no order, no memory across a restart.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree as ET

from drawbar.sandbox.crm_model import CHOICES, LOOKUPS, Entity, entities, label
from drawbar.sandbox.notify import Notifier
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
    tag: str | None
    bypasses: bool = False  # the request wants no asynchronous steps


@dataclass(slots=True)
class CrmWebhookSettings:
    delay_s: float = DELAY_S
    drop: bool = False  # notifications are made and thrown away
    max_body_bytes: int = MAX_BODY_BYTES  # a larger one goes out without its parameters


class CrmWebhooks:
    def __init__(self, store: Store, notifier: Notifier, switches: Switches) -> None:
        self._switches = switches
        self.settings = CrmWebhookSettings()
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
        for change in changes:
            note = change.note
            if not isinstance(note, CrmNote) or self.settings.drop:
                continue
            if note.bypasses and self._switches["crm_bypass_skips_webhooks"]:
                continue
            for step_id, step in steps.items():
                if self._fires(step.values, change.table, note):
                    post = self._post(step_id, step.values, change, note)
                    task = asyncio.get_running_loop().create_task(post)
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    def _fires(self, step: Values, table: str, note: CrmNote) -> bool:
        message = self._store.table("sdkmessage").rows.get(step.get("sdkmessageid", ""))
        if step.get("statecode") != 0 or message is None or message.values["name"] != note.message:
            return False
        scope = self._store.table("sdkmessagefilter").rows.get(step.get("sdkmessagefilterid", ""))
        if scope is not None and scope.values["primaryobjecttypecode"] != table:
            return False
        columns = [name.strip() for name in (step.get("filteringattributes") or "").split(",") if name.strip()]
        return note.message != "Update" or not columns or any(name in note.columns for name in columns)

    async def _post(self, step_id: str, step: Values, change: Change, note: CrmNote) -> None:
        endpoint = self._store.table("serviceendpoint").rows.get(step.get("eventhandler", ""))
        if endpoint is None:
            return
        context = self._context(step_id, step, change, note)
        await asyncio.sleep(self.settings.delay_s)
        body = to_json(context)
        headers = {
            "Content-Type": "application/json",
            "x-ms-dynamics-organization": self.host,
            "x-ms-dynamics-entity-name": change.table,
            "x-ms-dynamics-request-name": note.message,
            "x-ms-correlation-request-id": context["CorrelationId"],
        }
        if len(body) > self.settings.max_body_bytes:
            body = to_json({name: value for name, value in context.items() if name not in _TRIMMED})
            headers["x-ms-dynamics-msg-size-exceeded"] = "true"
        url, authorization = _authorized(endpoint.values)
        answer = await self._notifier.send("POST", url, body, {**headers, **authorization}, timeout_s=TIMEOUT_S)
        if answer.status in (502, 503, 504):
            await self._notifier.send("POST", url, body, {**headers, **authorization}, timeout_s=TIMEOUT_S)

    def _context(self, step_id: str, step: Values, change: Change, note: CrmNote) -> dict[str, Any]:
        """The RemoteExecutionContext, members in alphabetical order."""
        entity = self._entities[change.table]
        now_ms = self._store.clock.now_ms()
        user_id = note.user["systemuserid"]
        object_id = note.user.get("azureactivedirectoryobjectid") or _EMPTY
        if change.after is None:
            target: Any = _reference(change.table, change.id)
        else:
            names = (*note.columns, entity.id, "modifiedon", "modifiedby")
            target = {"__type": f"Entity:{_CONTRACTS}", **self._image(entity, change.id, change.after, names, None)}
        pre, post = self._images(step_id, entity, change)
        extension = step.get("name") if self._switches["crm_owning_extension_name"] else None
        shared = [{"key": "tag", "value": note.tag}] if note.tag else []
        context = {
            "BusinessUnitId": note.user.get("businessunitid"),
            "CorrelationId": str(uuid.uuid4()),
            "Depth": 1,
            "InitiatingUserAzureActiveDirectoryObjectId": object_id,
            "InitiatingUserId": user_id,
            "InputParameters": [
                {"key": "Target", "value": target},
                {"key": "SuppressDuplicateDetection", "value": True},
            ],
            "IsExecutingOffline": False,
            "IsInTransaction": False,
            "IsOfflinePlayback": False,
            "IsolationMode": 1,
            "MessageName": note.message,
            "Mode": 1,
            "OperationCreatedOn": f"/Date({now_ms}+0000)/",
            "OperationId": str(uuid.uuid4()),
            "OrganizationId": self._store.fact("organization_id"),
            "OrganizationName": "unq" + str(self._store.fact("organization_id", "")).replace("-", "")[:25],
            "OutputParameters": [{"key": "id", "value": change.id}] if note.message == "Create" else [],
            "OwningExtension": _reference("sdkmessageprocessingstep", step_id, extension),
            "ParentContext": None,
            "PostEntityImages": post,
            "PreEntityImages": pre,
            "PrimaryEntityId": change.id,
            "PrimaryEntityName": change.table,
            "RequestId": str(uuid.uuid4()),
            "SecondaryEntityName": "none",
            "SharedVariables": shared,
            "Stage": 40,
            "UserAzureActiveDirectoryObjectId": object_id,
            "UserId": user_id,
        }
        if self._switches["crm_object_ids"]:
            return context
        return {name: value for name, value in context.items() if "AzureActiveDirectory" not in name}

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
