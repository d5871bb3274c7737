"""A Dataverse: Web API 9.2 over the rows of a store.

A request is one transaction. Tables are data (`crm_model`); what the platform does to every row (owner, money,
state, composites, version) is written once.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import quote, urlsplit

from drawbar.sandbox.crm_metadata import EntityDefinitions, csdl
from drawbar.sandbox.crm_model import (
    LOOKUPS,
    Attribute,
    CrmError,
    CrmSchema,
    Entity,
    entities,
    etag,
    label,
    payload_error,
    to_stored,
)
from drawbar.sandbox.crm_rules import ON_DELETE, NameOrder, check_currency, check_delete, full_name, mirror_parent
from drawbar.sandbox.crm_webhooks import CrmNote, CrmWebhooks
from drawbar.sandbox.grants import Grants, Operation
from drawbar.sandbox.limits import Refusal
from drawbar.sandbox.odata import (
    GUID,
    Order,
    Predicate,
    QueryError,
    Segment,
    comes_after,
    compile_filter,
    parse_expand,
    parse_filter,
    parse_options,
    parse_order,
    parse_path,
    sort_rows,
    sort_values,
    split_list,
    unquote_key,
)
from drawbar.sandbox.sign_in import SignIn
from drawbar.sandbox.store import Store, Stored, Values
from drawbar.sandbox.wire import Reply, Request, to_json

PATH = "/api/data/v9.2"
PAGE = 5000
COUNT_CAP = 5000
DELTA_LIFE_S = 7 * 86_400
_JSON = "application/json; odata.metadata=minimal"
_FORMATTED = "OData.Community.Display.V1.FormattedValue"
_LOGICAL = "Microsoft.Dynamics.CRM.lookuplogicalname"
_NAVIGATION = "Microsoft.Dynamics.CRM.associatednavigationproperty"
_OPTIONS = frozenset(
    ("$filter", "$select", "$orderby", "$top", "$count", "$expand", "$skiptoken", "$deltatoken", "annotations")
)
_UNTRACKED = ("$filter", "$orderby", "$expand", "$top")
_REFERENCE = re.compile(r"/?(\w+)\(([^()]*)\)\Z")
_THROTTLED = {
    "requests": ("0x80072322", "Number of requests exceeded the limit of {} over time window of 300 seconds."),
    "execution": (
        "0x80072321",
        (
            "Combined execution time of incoming requests exceeded limit of {} milliseconds over time window of"
            " 300 seconds. Decrease number of concurrent requests or reduce the duration of requests and try again"
            " later."
        ),
    ),
    "concurrency": ("0x80072326", "Number of concurrent requests exceeded the limit of {}."),
}


@dataclass(slots=True)
class CrmSwitches:
    """How an organization is set up."""

    full_name: NameOrder = "first_middle_last"


@dataclass(slots=True)
class _Call:
    request: Request
    user: Values  # the application user's row
    options: dict[str, str]
    preferences: dict[str, str]


class Dataverse:
    system = "crm"

    def __init__(self, store: Store, *, sign_in: SignIn, grants: Grants, origin: str, webhooks: CrmWebhooks) -> None:
        self.store = store
        self.webhooks = webhooks
        self.origin = origin
        self.base_url = origin + PATH
        self._sign_in = sign_in
        self._grants = grants
        self._entities = entities()
        self.sets = {entity.logical: entity.set for entity in self._entities.values()}
        self._by_set = {entity.set: entity for entity in self._entities.values()}
        self.switches = CrmSwitches()
        self._predicates: dict[tuple[str, str], Predicate] = {}
        self._schemas = {entity.logical: CrmSchema(entity, self._follow) for entity in self._entities.values()}
        self._definitions = EntityDefinitions(self._entities, self.base_url)
        store.table("systemuser").index("applicationid")

    # ------------------------------------------------------------ as a service

    def caller(self, request: Request) -> str | None:
        return self._sign_in.admitted(request, self.origin)

    def target(self, request: Request) -> str:
        return request.path.removeprefix(PATH).strip("/").partition("/")[0].partition("(")[0]

    def refused(self, request: Request, refusal: Refusal) -> Reply:  # noqa: ARG002
        code, text = _THROTTLED[refusal.facet]
        headers = {"Retry-After": str(refusal.retry_after_s)}
        return self._error(CrmError(429, code, text.format(refusal.limit), headers=headers))

    def failed(self, request: Request) -> Reply:  # noqa: ARG002
        return self._error(CrmError(500, "0x80040216", "An unexpected error occurred."))

    def handle(self, request: Request) -> Reply | Awaitable[Reply]:
        if request.app is None:
            where = f"{self._sign_in.authority}/oauth2/authorize"
            challenge = f"Bearer authorization_uri={where}, resource_id={self.origin}/"
            return Reply(401, b"", {"WWW-Authenticate": challenge})
        try:
            with self.store.transaction():
                return self._dispatch(request, request.app)
        except CrmError as error:
            return self._error(error)
        except QueryError as error:
            return self._error(CrmError(400, "0x80060888", str(error)))

    def _dispatch(self, request: Request, app: str) -> Reply:
        if not request.path.startswith(PATH):
            raise CrmError(404, "0x80060888", "Resource not found for the given address.")
        for header in ("callerobjectid", "mscrmcallerid"):
            if header in request.headers:
                raise CrmError(403, "0x8004a110", "The caller cannot act on behalf of another user.")
        user_id = self.store.table("systemuser").index("applicationid").get(app)
        if user_id is None or not self._grants.is_member("crm", app):
            raise CrmError(403, "0x80072560", "The user is not a member of the organization.")
        user = self.store.table("systemuser").rows[user_id].values
        call = _Call(request, user, parse_options(request.query), request.preferences())
        segments = parse_path(request.path[len(PATH) :])
        if not segments:
            return self._service_document()
        first = segments[0]
        match first.name:
            case "$metadata":
                headers = {"Content-Type": "application/xml", "OData-Version": "4.0"}
                return Reply(200, csdl(self._entities), headers)
            case "WhoAmI":
                return self._who_am_i(call)
            case "EntityDefinitions":
                return self._ok(self._definitions.answer(segments, call.options))
        entity = self._by_set.get(first.name)
        if entity is None:
            raise CrmError(404, "0x80060888", f"Resource not found for the segment '{first.name}'.")
        return self._in_set(call, entity, segments)

    def _service_document(self) -> Reply:
        return self._ok(
            {
                "@odata.context": f"{self.base_url}/$metadata",
                "value": [{"name": e.set, "kind": "EntitySet", "url": e.set} for e in self._entities.values()],
            }
        )

    def _who_am_i(self, call: _Call) -> Reply:
        return self._ok(
            {
                "@odata.context": f"{self.base_url}/$metadata#Microsoft.Dynamics.CRM.WhoAmIResponse",
                "BusinessUnitId": call.user.get("businessunitid"),
                "UserId": call.user["systemuserid"],
                "OrganizationId": self.store.fact("organization_id"),
            }
        )

    # ------------------------------------------------------------ addresses

    def _in_set(self, call: _Call, entity: Entity, segments: list[Segment]) -> Reply:
        method, key = call.request.method, segments[0].key
        if key is None:
            if len(segments) == 2 and segments[1].name == "$count":
                return self._count(call, entity)
            if len(segments) > 1:
                raise CrmError(404, "0x80060888", f"Resource not found for the segment '{segments[1].name}'.")
            match method:
                case "GET":
                    return self._list(call, entity)
                case "POST":
                    return self._create(call, entity, self._body(call, entity))
                case _:
                    raise CrmError(405, "0x80060888", f"The HTTP method '{method}' is not allowed on a set.")
        row_id = self._row_id(entity, key)
        if len(segments) > 1:
            return self._part(call, entity, row_id, segments[1:])
        match method:
            case "GET":
                return self._read(call, entity, row_id)
            case "PATCH":
                return self._patch(call, entity, row_id)
            case "DELETE":
                return self._delete(call, entity, row_id)
            case _:
                raise CrmError(405, "0x80060888", f"The HTTP method '{method}' is not allowed on a record.")

    @staticmethod
    def _row_id(entity: Entity, key: str) -> str:
        text = key.strip().removeprefix(f"{entity.id}=")
        if GUID.match(text):
            return text.lower()
        if "=" in text:
            raise CrmError(
                400,
                "0x80060890",
                f"The specified key attributes are not a defined key for the {entity.logical} entity",
            )
        raise CrmError(400, "0x80060888", f"Error in query syntax: the key '{text}' is not valid.")

    def _allow(self, call: _Call, entity: Entity, operation: Operation) -> None:
        if self._grants.allows("crm", str(call.user.get("applicationid")), entity.logical, operation):
            return
        verb = {"read": "Read", "create": "Create", "write": "Write", "delete": "Delete"}[operation]
        user = call.user["systemuserid"]
        raise CrmError(
            403,
            "0x80040220",
            f"Principal user (Id={user}, type=8) is missing prv{verb}{entity.privilege} privilege"
            f" on OTC={entity.type_code} for entity '{entity.logical}'.",
        )

    def _find(self, entity: Entity, row_id: str) -> Stored:
        stored = self.store.table(entity.logical).rows.get(row_id)
        if stored is None:
            raise CrmError(404, "0x80040217", f"Entity '{entity.logical}' With Id = {row_id} Does Not Exist")
        return stored

    # ------------------------------------------------------------ reading

    def shown(self, entity: Entity, row_id: str, stored: Stored) -> Values:
        """The whole row as it goes out, without annotations, kept with the row until it is written again."""
        if stored.wire is None:
            values = stored.values
            shown: Values = {"@odata.etag": etag(stored.version), entity.id: row_id}
            for attribute in entity.attributes.values():
                if not attribute.secret and not attribute.name.endswith("@type"):
                    shown[attribute.wire_name] = values.get(attribute.name)
            if "versionnumber" in entity.attributes:
                shown["versionnumber"] = stored.version
            stored.wire = shown
        return stored.wire

    def _follow(self, entity: Entity, row: Mapping[str, Any], navigation: str) -> Mapping[str, Any] | None:
        found = self._behind(entity, row, navigation)
        return None if found is None else self.shown(*found)

    def _behind(self, entity: Entity, row: Mapping[str, Any], navigation: str) -> tuple[Entity, str, Stored] | None:
        attribute, targets = entity.navigations[navigation]
        row_id = row.get(attribute.wire_name)
        for target in targets:
            other = self._entities.get(target)
            stored = self.store.table(target).rows.get(row_id) if other and row_id else None
            if other and row_id and stored:
                return other, row_id, stored
        return None

    def _predicate(self, entity: Entity, text: str) -> Predicate:
        key = (entity.logical, text)
        known = self._predicates.get(key)
        if known is None:
            known = compile_filter(parse_filter(text), self._schemas[entity.logical])
            if len(self._predicates) > 1000:
                self._predicates.clear()
            self._predicates[key] = known
        return known

    def _matching(self, call: _Call, entity: Entity) -> list[Values]:
        for option in call.options:
            if option not in _OPTIONS and not option.startswith("@") and option != "tag":
                raise CrmError(400, "0x80060888", f"The query parameter {option} is not supported.")
        rows = [self.shown(entity, row_id, stored) for row_id, stored in self.store.table(entity.logical).rows.items()]
        text = call.options.get("$filter")
        if text is None:
            return rows
        for name, value in call.options.items():
            if name.startswith("@"):
                text = text.replace(name, value)
        predicate = self._predicate(entity, text)
        return [row for row in rows if predicate(row)]

    def _count(self, call: _Call, entity: Entity) -> Reply:
        self._allow(call, entity, "read")
        if "$deltatoken" in call.options:
            since = self._delta_version(call.options["$deltatoken"])
            changed, gone = self.store.table(entity.logical).changed_since(since, up_to=self.store.version)
            count = len(changed) + len(gone)
        else:
            count = len(self._matching(call, entity))
        return Reply(200, str(min(count, COUNT_CAP)).encode(), {"Content-Type": "text/plain", "OData-Version": "4.0"})

    def _page_size(self, call: _Call) -> int:
        text = call.preferences.get("odata.maxpagesize")
        if text is None:
            return PAGE
        if not text.isdigit() or not 1 <= int(text) <= PAGE:
            raise CrmError(400, "0x80060888", f"The page size must be between 1 and {PAGE}.")
        return int(text)

    def _list(self, call: _Call, entity: Entity) -> Reply:
        self._allow(call, entity, "read")
        if "$deltatoken" in call.options:
            return self._delta(call, entity)
        tracking = "odata.track-changes" in call.preferences
        if tracking:
            self._must_be_trackable(entity, call)
        schema = self._schemas[entity.logical]
        orders = parse_order(call.options["$orderby"], schema) if "$orderby" in call.options else []
        orders.append(Order(schema.property((entity.id,))[0], False))
        rows = self._matching(call, entity)
        total = len(rows)
        sort_rows(rows, orders, row_of=_itself)
        version, number = self.store.version, 1
        if "$skiptoken" in call.options:
            bookmark, number = _read_cookie(call.options["$skiptoken"])
            last, version = bookmark
            rows = [row for row in rows if comes_after(sort_values(row, orders), last, orders)]
        size = self._page_size(call)
        if "$top" in call.options:
            if not call.options["$top"].isdigit():
                raise CrmError(400, "0x80060888", "The value of $top is not a whole number.")
            rows = rows[: min(int(call.options["$top"]), PAGE)]
            size = PAGE
        page = rows[:size]
        body = self._collection(call, entity, total)
        shape = self._shape(call, entity)
        body["value"] = [shape(row) for row in page]
        kept = _without(call.request.query, "$skiptoken")
        if len(page) < len(rows):
            cookie = _write_cookie(
                entity, page, number + 1, [sort_values(page[-1], orders), version], tracking=tracking
            )
            body["@odata.nextLink"] = f"{self.base_url}/{entity.set}?{kept}$skiptoken={cookie}"
        elif tracking:
            body["@odata.deltaLink"] = self._delta_link(entity, kept, version)
        reply = self._ok(body)
        if tracking:
            reply.headers["Preference-Applied"] = "odata.track-changes"
        return reply

    def _collection(self, call: _Call, entity: Entity, total: int | None) -> Values:
        context = f"{self.base_url}/$metadata#{entity.set}"
        if "$select" in call.options:
            context += f"({call.options['$select']})"
        body: Values = {"@odata.context": context}
        if total is not None and call.options.get("$count") == "true":
            body["@odata.count"] = min(total, COUNT_CAP)
        if total is not None and self._annotations(call)("Microsoft.Dynamics.CRM.totalrecordcount"):
            counted = call.options.get("$count") == "true"
            body["@Microsoft.Dynamics.CRM.totalrecordcount"] = min(total, COUNT_CAP) if counted else -1
            body["@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded"] = counted and total > COUNT_CAP
        return body

    @staticmethod
    def _annotations(call: _Call) -> Callable[[str], bool]:
        """Whether an annotation was asked for."""
        wanted = [part.strip() for part in call.preferences.get("odata.include-annotations", "").split(",")]
        names = [part for part in wanted if part]

        def included(name: str) -> bool:
            return any(part in ("*", name) or (part.endswith(".*") and name.startswith(part[:-1])) for part in names)

        return included

    def _shape(
        self, call: _Call, entity: Entity, options: Mapping[str, str] | None = None
    ) -> Callable[[Values], Values]:
        """From a whole row to what the request asked of it: columns, expanded lookups, annotations."""
        options = call.options if options is None else options
        schema = self._schemas[entity.logical]
        names = split_list(options.get("$select", ""))
        for name in names:
            if name != "*" and name not in entity.navigations:
                schema.property((name,))
        expands = parse_expand(options["$expand"]) if "$expand" in options else []
        for name, _ in expands:
            if name not in entity.navigations:
                raise QueryError(
                    f"Could not find a property named '{name}' on type 'Microsoft.Dynamics.CRM.{entity.logical}'."
                )
        included = self._annotations(call)
        annotate = included(_FORMATTED) or included(_LOGICAL) or included(_NAVIGATION)
        columns = None
        if names and "*" not in names:
            lookups = {entity.navigations[name][0].wire_name for name in names if name in entity.navigations}
            columns = {"@odata.etag", entity.id, *names, *lookups}
        if columns is None and not expands and not annotate:
            return _itself

        def shaped(row: Values) -> Values:
            chosen = {name: value for name, value in row.items() if columns is None or name in columns}
            if annotate:
                chosen = self._annotated(entity, row, chosen, included)
            for name, inner in expands:
                found = self._behind(entity, row, name)
                chosen[name] = None if found is None else self._shape(call, found[0], inner)(self.shown(*found))
            return chosen

        return shaped

    def _annotated(self, entity: Entity, row: Values, chosen: Values, included: Callable[[str], bool]) -> Values:
        symbol = self._symbol(row.get("_transactioncurrencyid_value"))
        annotated: Values = {}
        for name, value in chosen.items():
            attribute = entity.by_wire_name.get(name)
            if attribute is not None and value is not None:
                if attribute.type in LOOKUPS:
                    self._annotate_lookup(entity, attribute, value, annotated, included)
                elif included(_FORMATTED):
                    text = label(attribute, value, symbol)
                    if text is not None:
                        annotated[f"{name}@{_FORMATTED}"] = text
            annotated[name] = value
        return annotated

    def _annotate_lookup(
        self,
        entity: Entity,
        attribute: Attribute,
        row_id: str,
        annotated: Values,
        included: Callable[[str], bool],
    ) -> None:
        for target in attribute.targets:
            stored = self.store.table(target).rows.get(row_id) if target in self._entities else None
            if stored is None:
                continue
            name = attribute.wire_name
            if included(_FORMATTED):
                annotated[f"{name}@{_FORMATTED}"] = stored.values.get(self._entities[target].name, "")
            if included(_NAVIGATION) and attribute.write:
                annotated[f"{name}@{_NAVIGATION}"] = entity.navigation_of(attribute, target)
            if included(_LOGICAL):
                annotated[f"{name}@{_LOGICAL}"] = target
            return

    def _symbol(self, currency_id: str | None) -> str:
        stored = self.store.table("transactioncurrency").rows.get(currency_id or "")
        return str(stored.values.get("currencysymbol", "")) if stored else ""

    def _read(self, call: _Call, entity: Entity, row_id: str) -> Reply:
        self._allow(call, entity, "read")
        stored = self._find(entity, row_id)
        tag = call.request.headers.get("if-none-match")
        if tag == etag(stored.version) and "odata.include-annotations" not in call.preferences:
            return Reply(304, b"", {"ETag": etag(stored.version)})
        return self._record(call, entity, row_id, stored, 200)

    def _record(self, call: _Call, entity: Entity, row_id: str, stored: Stored, status: int) -> Reply:
        context = f"{self.base_url}/$metadata#{entity.set}"
        if "$select" in call.options:
            context += f"({call.options['$select']})"
        shown = self._shape(call, entity)(self.shown(entity, row_id, stored))
        reply = self._ok({"@odata.context": f"{context}/$entity", **shown}, status)
        reply.headers["ETag"] = etag(stored.version)
        return reply

    def _part(self, call: _Call, entity: Entity, row_id: str, rest: list[Segment]) -> Reply:
        """A column, a lookup, or the reference of a lookup."""
        name, method = rest[0].name, call.request.method
        stored = self._find(entity, row_id)
        if name in entity.navigations:
            if len(rest) == 2 and rest[1].name == "$ref" and method in ("PUT", "DELETE"):
                self._allow(call, entity, "write")
                reference = None if method == "DELETE" else self._body(call, entity).get("@odata.id")
                self.update(entity, row_id, {f"{name}@odata.bind": reference}, user=call.user)
                return Reply(204, b"", {"OData-Version": "4.0"})
            self._allow(call, entity, "read")
            found = self._behind(entity, self.shown(entity, row_id, stored), name)
            if found is None:
                return Reply(204, b"", {"OData-Version": "4.0"})
            return self._record(call, *found, 200)
        attribute_or_none = entity.by_wire_name.get(name)
        if attribute_or_none is None or attribute_or_none.secret:
            raise CrmError(404, "0x80060888", f"Resource not found for the segment '{name}'.")
        if method in ("PUT", "DELETE"):
            self._allow(call, entity, "write")
            value = None if method == "DELETE" else self._body(call, entity).get("value")
            self.update(entity, row_id, {name: value}, user=call.user)
            return Reply(204, b"", {"OData-Version": "4.0"})
        self._allow(call, entity, "read")
        value = self.shown(entity, row_id, stored)[name]
        if value is None:
            return Reply(204, b"", {"OData-Version": "4.0"})
        if len(rest) == 2 and rest[1].name == "$value":
            return Reply(200, str(value).encode(), {"Content-Type": "text/plain", "OData-Version": "4.0"})
        return self._ok({"@odata.context": f"{self.base_url}/$metadata#{entity.set}({row_id})/{name}", "value": value})

    # ------------------------------------------------------------ change tracking

    @staticmethod
    def _must_be_trackable(entity: Entity, call: _Call) -> None:
        if "versionnumber" not in entity.attributes:
            raise CrmError(400, "0x80072491", f"Change tracking is not enabled for the entity '{entity.logical}'.")
        for option in _UNTRACKED:
            if option in call.options:
                raise CrmError(
                    400, "0x80060888", f"The {option} parameter is not supported when Change Tracking is enabled."
                )

    def _delta_link(self, entity: Entity, kept: str, version: int) -> str:
        stamp = dt.datetime.now(dt.timezone.utc).strftime("%m/%d/%Y %H:%M:%S")
        token = quote(f"{version}!{stamp}", safe="")
        return f"{self.base_url}/{entity.set}?{_without(kept, '$deltatoken')}$deltatoken={token}"

    def _delta_version(self, token: str) -> int:
        version, _, stamp = token.partition("!")
        try:
            issued = dt.datetime.strptime(stamp, "%m/%d/%Y %H:%M:%S").replace(tzinfo=dt.timezone.utc)
            since = int(version)
        except ValueError as error:
            raise CrmError(400, "0x80060888", "The delta token is not valid.") from error
        if since <= self.store.fact("delta_floor", -1) or issued.timestamp() < time.time() - DELTA_LIFE_S:
            raise CrmError(
                400,
                "0x80044352",
                "Version stamp associated with the client has expired. Please perform a full sync.",
            )
        return since

    def expire_delta_links(self) -> None:
        """Every delta link given out so far is refused from now on."""
        with self.store.transaction():
            self.store.set_fact("delta_floor", self.store.version)
            self.store.skip_version()

    def _delta(self, call: _Call, entity: Entity) -> Reply:
        self._must_be_trackable(entity, call)
        since = self._delta_version(call.options["$deltatoken"])
        up_to, done, number = self.store.version, 0, 1
        if "$skiptoken" in call.options:
            (done, up_to), number = _read_cookie(call.options["$skiptoken"])
        changed, gone = self.store.table(entity.logical).changed_since(since, up_to=up_to)
        # A row that changes while its delta is paged leaves the range and is in the next one. Positions count the
        # rows of the range by version, so that leaving does not shift the others: deleted ones stand after them.
        entries: list[tuple[int, Values]] = []
        shape = self._shape(call, entity)
        for row_id, stored in changed:
            entries.append((stored.version, shape(self.shown(entity, row_id, stored))))
        beyond = up_to + 1
        for version, row_id in gone:
            deleted = {
                "@odata.context": f"{self.base_url}/$metadata#{entity.set}/$deletedEntity",
                "id": row_id,
                "reason": "deleted",
            }
            entries.append((beyond + version, deleted))
        left = [entry for entry in entries if entry[0] > done]
        size = self._page_size(call)
        page = left[:size]
        body: Values = {"@odata.context": f"{self._collection(call, entity, None)['@odata.context']}/$delta"}
        kept = _without(call.request.query, "$skiptoken")
        if len(page) < len(left):
            cookie = _write_cookie(entity, [], number + 1, [page[-1][0], up_to], tracking=True)
            body["@odata.nextLink"] = f"{self.base_url}/{entity.set}?{kept}$skiptoken={cookie}"
        else:
            body["@odata.deltaLink"] = self._delta_link(entity, kept, up_to)
        body["value"] = [row for _, row in page]
        reply = self._ok(body)
        reply.headers["Preference-Applied"] = "odata.track-changes"
        return reply

    # ------------------------------------------------------------ writing

    @staticmethod
    def _body(call: _Call, entity: Entity) -> Values:
        try:
            body = json.loads(call.request.body or b"{}")
        except ValueError as error:
            raise payload_error(entity, "The payload is not valid JSON.") from error
        if not isinstance(body, dict):
            raise payload_error(entity, "The payload is not a JSON object.")
        return body

    def _create(self, call: _Call, entity: Entity, body: Values, row_id: str | None = None) -> Reply:
        self._allow(call, entity, "create")
        created, stored = self.insert(entity, body, user=call.user, row_id=row_id, tag=call.options.get("tag"))
        return self._written(call, entity, created, stored, created=True)

    def _written(self, call: _Call, entity: Entity, row_id: str, stored: Stored, *, created: bool) -> Reply:
        address = f"{self.base_url}/{entity.set}({row_id})"
        if call.preferences.get("return") == "representation":
            reply = self._record(call, entity, row_id, stored, 201 if created else 200)
            reply.headers["Preference-Applied"] = "return=representation"
        else:
            reply = Reply(204, b"", {"OData-Version": "4.0"})
        reply.headers["OData-EntityId"] = address
        if created and call.request.method == "POST":
            reply.headers["Location"] = address
        return reply

    def _patch(self, call: _Call, entity: Entity, row_id: str) -> Reply:
        stored = self.store.table(entity.logical).rows.get(row_id)
        match_tag = call.request.headers.get("if-match", "").strip()
        none_tag = call.request.headers.get("if-none-match", "").strip()
        body = self._body(call, entity)
        if stored is None:
            if match_tag:
                self._find(entity, row_id)
            return self._create(call, entity, body, row_id)
        if none_tag == "*":
            raise CrmError(412, "0x80040237", "A record with matching key values already exists.")
        self._allow(call, entity, "write")
        _match(match_tag, stored)
        stored = self.update(entity, row_id, body, user=call.user, tag=call.options.get("tag"))
        return self._written(call, entity, row_id, stored, created=False)

    def _delete(self, call: _Call, entity: Entity, row_id: str) -> Reply:
        self._allow(call, entity, "delete")
        stored = self._find(entity, row_id)
        _match(call.request.headers.get("if-match", "").strip(), stored)
        self.remove(entity, row_id, user=call.user)
        return Reply(204, b"", {"OData-Version": "4.0"})

    def remove(self, entity: Entity, row_id: str, *, user: Values) -> None:
        """Delete a row; rows that point to it go with it, forbid it, or lose the lookup."""
        check_delete(entity.logical, row_id, base=self.store.fact("base_currency"))
        pointing = list(self._pointing_to(entity, row_id))
        for other, attribute, _ in pointing:
            if ON_DELETE.get((other.logical, attribute.name)) == "refuse":
                raise CrmError(
                    405,
                    "0x80040227",
                    "The object you tried to delete is associated with another object and cannot be deleted.",
                )
        self.store.remove(entity.logical, row_id, note=CrmNote("Delete", user, (), None))
        for other, attribute, other_id in pointing:
            if other_id not in self.store.table(other.logical).rows:
                continue
            if ON_DELETE.get((other.logical, attribute.name)) == "delete":
                self.remove(other, other_id, user=user)
            else:
                name = other.navigation_of(attribute, entity.logical)
                self.update(other, other_id, {f"{name}@odata.bind": None}, user=user)

    def _pointing_to(self, entity: Entity, row_id: str) -> Iterator[tuple[Entity, Attribute, str]]:
        for other in self._entities.values():
            lookups = [
                attribute
                for attribute in other.attributes.values()
                if attribute.type in LOOKUPS and attribute.write and entity.logical in attribute.targets
            ]
            if not lookups:
                continue
            for other_id, stored in self.store.table(other.logical).rows.items():
                for attribute in lookups:
                    if stored.values.get(attribute.name) == row_id:
                        yield other, attribute, other_id

    def insert(
        self, entity: Entity, body: Values, *, user: Values, row_id: str | None = None, tag: str | None = None
    ) -> tuple[str, Stored]:
        """One new row, within a running transaction."""
        row: Values = {
            attribute.name: attribute.default
            for attribute in entity.attributes.values()
            if attribute.default is not None
        }
        written = self._assign(entity, row, body, creating=True)
        given = row.pop(entity.id, None)
        if row_id is not None and given is not None and given != row_id:
            raise CrmError(400, "0x80040203", "The key of the address and the key of the payload differ.")
        new_id: str = row_id or given or str(uuid.uuid4())
        if new_id in self.store.table(entity.logical).rows:
            raise CrmError(412, "0x80040237", "A record with matching key values already exists.")
        self._complete(entity, new_id, row, written, user, before=None)
        now = _now()
        row["createdon"], row["createdby"] = now, user["systemuserid"]
        row["modifiedon"], row["modifiedby"] = now, user["systemuserid"]
        row = {name: value for name, value in row.items() if value is not None}
        row[entity.id] = new_id
        note = CrmNote("Create", user, tuple(sorted(row)), tag)
        return new_id, self.store.put(entity.logical, new_id, row, note=note)

    def update(self, entity: Entity, row_id: str, body: Values, *, user: Values, tag: str | None = None) -> Stored:
        """Every write counts as a change, whether or not a value differs."""
        before = self._find(entity, row_id)
        row = dict(before.values)
        written = self._assign(entity, row, body, creating=False)
        if row.get(entity.id) != row_id:
            raise CrmError(400, "0x80040203", "The key of the address and the key of the payload differ.")
        if not written:
            return before
        self._complete(entity, row_id, row, written, user, before=before.values)
        row["modifiedon"], row["modifiedby"] = _now(), user["systemuserid"]
        row = {name: value for name, value in row.items() if value is not None}
        note = CrmNote("Update", user, tuple(sorted(written)), tag)
        return self.store.put(entity.logical, row_id, row, note=note)

    def _assign(self, entity: Entity, row: Values, body: Values, *, creating: bool) -> set[str]:
        """Put the members of a body into `row`; returns the columns that were written."""
        written: set[str] = set()
        right = "C" if creating else "U"
        for name, value in body.items():
            if name.endswith("@odata.bind"):
                written |= self._bind(entity, row, name.removesuffix("@odata.bind"), value, right)
            elif "@" in name:
                continue
            elif name in entity.by_wire_name and entity.by_wire_name[name].type in LOOKUPS:
                raise payload_error(
                    entity,
                    "CRM do not support direct update of Entity Reference properties, Use Navigation properties"
                    " instead.",
                )
            elif name in entity.attributes and entity.attributes[name].type not in LOOKUPS:
                attribute = entity.attributes[name]
                stored = to_stored(entity, attribute, value)
                if name == entity.id or right in attribute.write:
                    row[name] = stored
                    written.add(name)
            elif name in entity.navigations and value is None:
                written |= self._bind(entity, row, name, None, right)
            else:
                raise payload_error(
                    entity,
                    f"InnerException : Microsoft.OData.ODataException: An undeclared property '{name}' which only has"
                    " property annotations in the payload but no property value was found in the payload.",
                )
        written.discard(entity.id)
        return written

    def _bind(self, entity: Entity, row: Values, name: str, value: Any, right: str) -> set[str]:
        navigation = name
        if name not in entity.navigations and name in entity.attributes:
            attribute = entity.attributes[name]
            if attribute.type == "Lookup":  # by its logical name, which the service takes as well
                navigation = attribute.navigation or name
        if navigation not in entity.navigations:
            raise payload_error(entity, f"An undeclared property '{name}' was found in the payload.")
        attribute, targets = entity.navigations[navigation]
        if right not in attribute.write:
            return set()
        if value is None:
            row[attribute.name] = None
            row.pop(f"{attribute.name}@type", None)
            return {attribute.name}
        other, row_id = self._reference(entity, value)
        if other.logical not in targets:
            raise payload_error(entity, f"'{name}' cannot point to '{other.set}'.")
        target = self._find(other, row_id)
        if attribute.type == "Owner" and target.values.get("isdisabled"):
            raise CrmError(403, "0x80040225", f"The specified user(Id = {row_id}) is disabled.")
        row[attribute.name] = row_id
        if len(attribute.targets) > 1:
            row[f"{attribute.name}@type"] = other.logical
        return {attribute.name}

    def _reference(self, entity: Entity, value: Any) -> tuple[Entity, str]:
        text = str(value)
        if "://" in text:
            text = urlsplit(text).path
        text = text.removeprefix(PATH)
        match = _REFERENCE.match(text)
        other = self._by_set.get(match.group(1)) if match else None
        if match is None or other is None:
            raise payload_error(entity, f"Resource not found for the reference '{value}'.")
        return other, self._row_id(other, unquote_key(match.group(2)))

    def _complete(
        self, entity: Entity, row_id: str, row: Values, written: set[str], user: Values, *, before: Values | None
    ) -> None:
        """What the platform makes of a row before it is kept."""
        self._settle_state(entity, row, written)
        if entity.ownership == "user":
            self._settle_owner(row, user)
        if "businessunitid" in entity.attributes and entity.id != "businessunitid":
            row.setdefault("businessunitid", user.get("businessunitid"))
        if "administratorid" in entity.attributes:
            row.setdefault("administratorid", user["systemuserid"])
        if "organizationid" in entity.attributes:
            row["organizationid"] = self.store.fact("organization_id")
        if "exchangerate" in entity.attributes and entity.logical != "transactioncurrency":
            self._settle_money(entity, row, written, before)
        for number in ("1", "2"):
            if f"address{number}_composite" in entity.attributes:
                row[f"address{number}_composite"] = _composite(row, f"address{number}_")
        if "fullname" in entity.attributes:
            row["fullname"] = full_name(row, self.switches.full_name)
        if entity.logical == "contact":
            mirror_parent(row)
        for attribute in entity.attributes.values():
            enforced = attribute.required == "S" and attribute.write == "CU" and attribute.type != "Owner"
            if enforced and row.get(attribute.name) is None:
                raise CrmError(
                    400, "0x80040200", f"The required field '{attribute.name}' of '{entity.logical}' is missing."
                )
        if entity.logical == "transactioncurrency":
            others = {other: stored.values for other, stored in self.store.table(entity.logical).rows.items()}
            check_currency(row_id, row, before, base=self.store.fact("base_currency"), others=others)

    @staticmethod
    def _settle_state(entity: Entity, row: Values, written: set[str]) -> None:
        status = entity.attributes.get("statuscode")
        if status is None or not {"statecode", "statuscode"} & written:
            return
        if row.get("statecode") is None:
            raise CrmError(400, "0x80048408", f"A state code of {entity.logical} cannot be null.")
        if "statuscode" not in written or row.get("statuscode") is None:
            row["statuscode"] = next(value for value, state in status.states.items() if state == row["statecode"])
        elif "statecode" not in written:
            row["statecode"] = status.states[row["statuscode"]]
        elif status.states[row["statuscode"]] != row["statecode"]:
            raise CrmError(
                400,
                "0x80048408",
                f"{row['statuscode']} is not a valid status code for state code {row['statecode']}"
                f" on {entity.logical}.",
            )

    def _settle_owner(self, row: Values, user: Values) -> None:
        if row.get("ownerid") is None:
            row["ownerid"], row["ownerid@type"] = user["systemuserid"], "systemuser"
        is_user = row["ownerid@type"] == "systemuser"
        owner = self.store.table(row["ownerid@type"]).rows[row["ownerid"]].values
        row["owninguser"] = row["ownerid"] if is_user else None
        row["owningteam"] = None if is_user else row["ownerid"]
        row["owningbusinessunit"] = owner.get("businessunitid")

    def _settle_money(self, entity: Entity, row: Values, written: set[str], before: Values | None) -> None:
        """The rate is copied to the row when money or currency is written; base amounts follow from it."""
        row.setdefault("transactioncurrencyid", self.store.fact("base_currency"))
        if row["transactioncurrencyid"] is None:
            row["transactioncurrencyid"] = self.store.fact("base_currency")
        money = [attribute.name for attribute in entity.attributes.values() if attribute.type == "Money"]
        if before is not None and not written & {"transactioncurrencyid", *money}:
            return
        currency = self.store.table("transactioncurrency").rows.get(row["transactioncurrencyid"] or "")
        rate = currency.values.get("exchangerate", 1.0) if currency else 1.0
        row["exchangerate"] = rate
        for name in money:
            if not name.endswith("_base"):
                amount = row.get(name)
                row[f"{name}_base"] = None if amount is None else round(amount / rate, 2)

    # ------------------------------------------------------------ the control endpoint's way in

    def application_user(self, app: str) -> Values:
        user_id = self.store.table("systemuser").index("applicationid").get(app)
        if user_id is None:
            raise CrmError(404, "0x80072560", "The application has no user.")
        return self.store.table("systemuser").rows[user_id].values

    def entity_of(self, set_name: str) -> Entity:
        entity = self._by_set.get(set_name)
        if entity is None:
            raise CrmError(404, "0x80060888", f"There is no set '{set_name}'.")
        return entity

    def edit(self, change: Values, *, user: Values) -> Values:
        """One edit outside the API: `set`, `id`, and `values` (as a body) or `delete`."""
        entity = self.entity_of(str(change["set"]))
        with self.store.transaction():
            rows = self.store.table(entity.logical).rows
            row_id = change.get("id")
            if change.get("delete"):
                self._find(entity, str(row_id))
                self.remove(entity, str(row_id), user=user)
                return {"id": row_id}
            values = change.get("values", {})
            if row_id in rows:
                stored = self.update(entity, str(row_id), values, user=user)
            else:
                row_id, stored = self.insert(entity, values, user=user, row_id=row_id)
            return self.shown(entity, str(row_id), stored)

    def truth(self, set_name: str) -> list[Values]:
        entity = self.entity_of(set_name)
        return [self.shown(entity, row_id, stored) for row_id, stored in self.store.table(entity.logical).rows.items()]

    # ------------------------------------------------------------ shapes

    @staticmethod
    def _ok(body: Values, status: int = 200) -> Reply:
        return Reply(status, to_json(body), {"Content-Type": _JSON, "OData-Version": "4.0"})

    @staticmethod
    def _error(error: CrmError) -> Reply:
        return Reply(
            error.status,
            to_json({"error": {"code": error.code, "message": error.message}}),
            {
                "Content-Type": _JSON,
                "OData-Version": "4.0",
                "x-ms-service-request-id": str(uuid.uuid4()),
                **error.headers,
            },
        )


def _itself(row: Values) -> Values:
    return row


def _match(tag: str, stored: Stored) -> None:
    if tag and tag != "*" and tag != etag(stored.version):
        raise CrmError(
            412, "0x80060882", "The version of the existing record doesn't match the RowVersion property provided."
        )


def _now() -> str:
    return dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _composite(row: Values, prefix: str) -> str | None:
    def part(name: str) -> str:
        return row.get(prefix + name) or ""

    region = " ".join(text for text in (part("stateorprovince"), part("postalcode")) if text)
    place = ", ".join(text for text in (part("city"), region) if text)
    lines = [part("line1"), part("line2"), part("line3"), place, part("country")]
    return "\r\n".join(line for line in lines if line)[:1000] or None


def _without(query: str, option: str) -> str:
    """The query with its other options, ready for one more to follow."""
    encoded = "%24" + option[1:]
    parts = [part for part in query.split("&") if part and not part.startswith((f"{option}=", f"{encoded}="))]
    return "".join(f"{part}&" for part in parts)


def _write_cookie(entity: Entity, page: list[Values], number: int, bookmark: list[Any], *, tracking: bool) -> str:
    """The paging cookie in its published shape; where to go on stands in `bookmark`."""
    inner = f'<cookie page="{number - 1}">'
    if page:
        last, first = page[-1][entity.id].upper(), page[0][entity.id].upper()
        inner += f'<{entity.id} last="{{{last}}}" first="{{{first}}}" />'
    inner += "</cookie>"
    place = base64.urlsafe_b64encode(to_json(bookmark)).decode()
    cookie = (
        f'<cookie pagenumber="{number}" pagingcookie="{escape(quote(quote(inner, safe=""), safe=""))}"'
        f' istracking="{tracking}" bookmark="{place}" />'
    )
    return quote(cookie, safe="")


def _read_cookie(cookie: str) -> tuple[list[Any], int]:
    number = re.search(r'pagenumber="(\d+)"', cookie)
    place = re.search(r'bookmark="([^"]*)"', cookie)
    if number is None or place is None:
        raise CrmError(400, "0x80060888", "The paging cookie is not valid.")
    try:
        bookmark = json.loads(base64.urlsafe_b64decode(place.group(1)))
    except ValueError as error:
        raise CrmError(400, "0x80060888", "The paging cookie is not valid.") from error
    return list(bookmark), int(number.group(1))
