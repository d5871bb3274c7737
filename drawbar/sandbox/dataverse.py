"""A Dataverse: Web API 9.2 over the rows of a store.

A request is one transaction. Tables are data (`crm_model`); what the platform does to every row (owner, money,
state, composites, version) is written once.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Awaitable
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from drawbar.sandbox.crm_actions import BOUND, UNBOUND, CrmActions
from drawbar.sandbox.crm_batch import (
    BatchOperation,
    ChangeSet,
    format_batch,
    parse_batch,
    resolve_body,
    resolve_target,
)
from drawbar.sandbox.crm_catalog import CATALOG_RULES
from drawbar.sandbox.crm_fetch import read_fetch, run_fetch
from drawbar.sandbox.crm_keys import missing
from drawbar.sandbox.crm_metadata import EntityDefinitions, csdl, key_name
from drawbar.sandbox.crm_model import (
    CrmError,
    Entity,
    etag,
    key_taken,
    payload_error,
)
from drawbar.sandbox.crm_paging import read_cookie, write_cookie
from drawbar.sandbox.crm_reading import CrmReader, Within, itself, top_of, wanted_annotations
from drawbar.sandbox.crm_records import PATH, CrmRecords, Located, no_row
from drawbar.sandbox.crm_sales import SALES_RULES
from drawbar.sandbox.crm_webhooks import CrmWebhooks
from drawbar.sandbox.grants import Grants, Operation
from drawbar.sandbox.limits import Refusal
from drawbar.sandbox.listings import Listings
from drawbar.sandbox.odata import (
    GUID,
    QueryError,
    Segment,
    first_after,
    parse_options,
    parse_path,
    sort_rows,
    sort_values,
    whole_number,
)
from drawbar.sandbox.sign_in import SignIn
from drawbar.sandbox.store import Store, Stored, Values
from drawbar.sandbox.wire import Reply, Request, from_json, to_json

PAGE = 5000
COUNT_CAP = 5000
DELTA_LIFE_S = 7 * 86_400
_JSON = "application/json; odata.metadata=minimal"
_NAMESPACE = "Microsoft.Dynamics.CRM."
_UNTRACKED = ("$filter", "$orderby", "$expand", "$top")
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
        self.records = CrmRecords(store, {**CATALOG_RULES, **SALES_RULES})
        self.sets = {entity.logical: entity.set for entity in self.records.entities.values()}
        self._reader = CrmReader(self.records)
        self._listings: Listings[Values] = Listings(store)
        self._actions = CrmActions(self.records)
        self._definitions = EntityDefinitions(self.records.entities, self.base_url, self.records.keys.of)

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
        except (CrmError, QueryError) as error:
            return self._refusal(error)

    def _dispatch(self, request: Request, app: str) -> Reply:
        if not request.path.startswith(PATH):
            raise CrmError(404, "0x80060888", "Resource not found for the given address.")
        _refuse_impersonation(request)
        user_id = self.store.table("systemuser").index("applicationid").get(app)
        if user_id is None or not self._grants.is_member("crm", app):
            raise CrmError(403, "0x80072560", "The user is not a member of the organization.")
        user = self.store.table("systemuser").rows[user_id].values
        call = _Call(request, user, parse_options(request.query), request.preferences())
        segments = parse_path(request.path[len(PATH) :])
        if segments == [Segment("$batch", None)]:
            return self._batch(call)
        return self._route(call, segments)

    def _route(self, call: _Call, segments: list[Segment]) -> Reply:
        if not segments or segments[0].name in ("$metadata", "WhoAmI"):
            _refuse_all_but_get(call.request.method)
        if not segments:
            return self._service_document()
        first = segments[0]
        match first.name:
            case "$metadata":
                headers = {"Content-Type": "application/xml", "OData-Version": "4.0"}
                return Reply(200, csdl(self.records.entities), headers)
            case "WhoAmI":
                return self._who_am_i(call)
            case "EntityDefinitions":
                return self._definition(call, segments)
        if first.name in UNBOUND and len(segments) == 1 and first.key is None:
            return self._act(call, first.name)
        entity = self.records.by_set.get(first.name)
        if entity is None:
            raise CrmError(404, "0x80060888", f"Resource not found for the segment '{first.name}'.")
        return self._in_set(call, entity, segments)

    def _definition(self, call: _Call, segments: list[Segment]) -> Reply:
        """Metadata, of which alternate keys may be written."""
        method, key = call.request.method, segments[0].key
        if method == "GET":
            return self._ok(self._definitions.answer(segments, call.options))
        if key is not None and len(segments) == 2 and segments[1].name == "Keys":
            entity = self._definitions.named(key)
            if method == "POST" and segments[1].key is None:
                body = self._body(call, entity)
                columns = body.get("KeyAttributes")
                made = self.records.keys.add(
                    entity, str(body.get("SchemaName") or ""), columns if isinstance(columns, list) else []
                )
                where = f"{self.base_url}/EntityDefinitions(LogicalName='{entity.logical}')/Keys({made.metadata_id})"
                return Reply(204, b"", {"OData-Version": "4.0", "OData-EntityId": where})
            if method == "DELETE" and segments[1].key is not None:
                self.records.keys.drop(entity, key_name(segments[1].key))
                return Reply(204, b"", {"OData-Version": "4.0"})
        raise CrmError(405, "0x80060888", f"The HTTP method '{method}' is not allowed on metadata.")

    def _service_document(self) -> Reply:
        return self._ok(
            {
                "@odata.context": f"{self.base_url}/$metadata",
                "value": [{"name": e.set, "kind": "EntitySet", "url": e.set} for e in self.records.entities.values()],
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

    def _act(self, call: _Call, name: str) -> Reply:
        """An action that is bound to nothing; it answers with the row it makes, if it makes one."""
        if call.request.method != "POST":
            raise CrmError(405, "0x80060888", f"The HTTP method '{call.request.method}' is not allowed on an action.")
        try:
            body = from_json(call.request.body or b"{}")
        except ValueError as error:
            raise CrmError(400, "0x80048d19", "The payload is not valid JSON.") from error
        if not isinstance(body, dict):
            raise CrmError(400, "0x80048d19", "The payload is not a JSON object.")
        made = self._actions.run(
            name, body, user=call.user, allow=lambda entity, right: self._allow(call, entity, right)
        )
        if made is None:
            return Reply(204, b"", {"OData-Version": "4.0"})
        shown = self._reader.shown(made.entity, made.row_id, self.records.find(made.entity, made.row_id))
        options = {} if made.columns is None else {"$select": ",".join(_wire_names(made.entity, made.columns))}
        row = self._reader.shape(made.entity, options, wanted_annotations(call.preferences))(shown)
        return self._ok({"@odata.context": f"{self.base_url}/$metadata#{made.entity.set}/$entity", **row})

    def _act_on(self, call: _Call, entity: Entity, row_id: str, name: str) -> Reply:
        """An action that is bound to a row."""
        if BOUND.get(name) != entity.logical:
            raise CrmError(404, "0x80060888", f"Resource not found for the segment '{_NAMESPACE}{name}'.")
        self._actions.run_on(
            name, entity, row_id, user=call.user, allow=lambda table, right: self._allow(call, table, right)
        )
        return Reply(204, b"", {"OData-Version": "4.0"})

    # ------------------------------------------------------------ addresses

    def _in_set(self, call: _Call, entity: Entity, segments: list[Segment]) -> Reply:
        method, key = call.request.method, segments[0].key
        if key is None:
            if len(segments) == 2 and segments[1].name == "$count":
                return self._count(call, entity)
            if len(segments) == 2 and segments[1].name.startswith(_NAMESPACE) and method == "POST":
                return self._bulk(call, entity, segments[1].name.removeprefix(_NAMESPACE))
            if len(segments) > 1:
                raise CrmError(404, "0x80060888", f"Resource not found for the segment '{segments[1].name}'.")
            match method:
                case "GET":
                    return self._list(call, entity)
                case "POST":
                    return self._create(call, entity, self._body(call, entity))
                case _:
                    raise CrmError(405, "0x80060888", f"The HTTP method '{method}' is not allowed on a set.")
        located = self.records.locate(entity, key)
        if method == "PATCH" and len(segments) == 1:
            return self._patch(call, entity, located)
        row_id = located.row_id
        if row_id is None:
            raise missing(entity)
        if len(segments) == 2 and segments[1].name.startswith(_NAMESPACE) and method == "POST":
            return self._act_on(call, entity, row_id, segments[1].name.removeprefix(_NAMESPACE))
        if len(segments) > 1:
            return self._part(call, entity, row_id, segments[1:])
        match method:
            case "GET":
                return self._read(call, entity, row_id)
            case "DELETE":
                return self._delete(call, entity, row_id)
            case _:
                raise CrmError(405, "0x80060888", f"The HTTP method '{method}' is not allowed on a record.")

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

    # ------------------------------------------------------------ reading

    def _count(self, call: _Call, entity: Entity, within: Within | None = None) -> Reply:
        self._allow(call, entity, "read")
        if "$deltatoken" in call.options:
            since = self._delta_version(call.options["$deltatoken"])
            changed, gone = self.store.table(entity.logical).changed_since(since, up_to=self.store.version)
            count = len(changed) + len(gone)
        else:
            count = len(self._reader.matching(entity, call.options, within))
        return Reply(200, str(min(count, COUNT_CAP)).encode(), {"Content-Type": "text/plain", "OData-Version": "4.0"})

    def _page_size(self, call: _Call) -> int:
        text = call.preferences.get("odata.maxpagesize")
        if text is None:
            return PAGE
        size = whole_number(text)
        if size is None or not 1 <= size <= PAGE:
            raise CrmError(400, "0x80060888", f"The page size must be between 1 and {PAGE}.")
        return size

    def _list(self, call: _Call, entity: Entity, within: Within | None = None) -> Reply:
        self._allow(call, entity, "read")
        if "$deltatoken" in call.options:
            return self._delta(call, entity)
        if "fetchXml" in call.options:
            return self._fetch(call, entity)
        tracking = "odata.track-changes" in call.preferences and within is None
        if tracking:
            self._must_be_trackable(entity, call)
        orders = self._reader.orders(entity, call.options)

        def select() -> list[Values]:
            rows = self._reader.matching(entity, call.options, within)
            sort_rows(rows, orders, row_of=itself)
            return rows

        asked = frozenset((name, value) for name, value in call.options.items() if name != "$skiptoken")
        rows = self._listings.rows((entity.set, within, asked), select, goes_on="$skiptoken" in call.options)
        total, start = len(rows), 0
        version, number = self.store.version, 1
        if "$skiptoken" in call.options:
            (last, version), number = read_cookie(call.options["$skiptoken"])
            start = first_after(rows, last, orders, row_of=itself)
        size, left = self._page_size(call), len(rows) - start
        if "$top" in call.options:
            size = left = min(left, top_of(call.options), PAGE)
        page = rows[start : start + size]
        body = self._collection(call, entity, total)
        shape = self._reader.shape(entity, call.options, wanted_annotations(call.preferences))
        body["value"] = [shape(row) for row in page]
        kept = _without(call.request.query, "$skiptoken")
        if len(page) < left:
            cookie = write_cookie(entity, page, number + 1, [sort_values(page[-1], orders), version], tracking=tracking)
            address = within.address if within else entity.set
            body["@odata.nextLink"] = f"{self.base_url}/{address}?{kept}$skiptoken={cookie}"
        elif tracking:
            body["@odata.deltaLink"] = self._delta_link(entity, kept, version)
        reply = self._ok(body)
        if tracking:
            reply.headers["Preference-Applied"] = "odata.track-changes"
        return reply

    def _fetch(self, call: _Call, entity: Entity) -> Reply:
        """A query in FetchXML. Every table that it links to must be readable."""
        user_id = str(call.user.get("systemuserid", ""))
        text, now = call.options["fetchXml"], self.store.clock.now()
        fetch = read_fetch(text, self.records.entities, now=now, user_id=user_id, entity=entity)
        for join in fetch.joins:
            self._allow(call, join.entity, "read")
        found = run_fetch(fetch, lambda table: self._reader.matching(table, {}))
        included = wanted_annotations(call.preferences)
        body: Values = {"@odata.context": f"{self.base_url}/$metadata#{entity.set}"}
        if fetch.total:
            body["@Microsoft.Dynamics.CRM.totalrecordcount"] = min(found.total, COUNT_CAP)
            body["@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded"] = found.total > COUNT_CAP
        if found.cookie and included("Microsoft.Dynamics.CRM.fetchxmlpagingcookie"):
            body["@Microsoft.Dynamics.CRM.fetchxmlpagingcookie"] = found.cookie
        if included("Microsoft.Dynamics.CRM.morerecords"):
            body["@Microsoft.Dynamics.CRM.morerecords"] = found.more
        body["value"] = (
            found.rows if fetch.aggregate else [self._reader.annotated(entity, row, included) for row in found.rows]
        )
        return self._ok(body)

    def _collection(self, call: _Call, entity: Entity, total: int | None) -> Values:
        context = f"{self.base_url}/$metadata#{entity.set}"
        if "$select" in call.options:
            context += f"({call.options['$select']})"
        body: Values = {"@odata.context": context}
        if total is not None and call.options.get("$count") == "true":
            body["@odata.count"] = min(total, COUNT_CAP)
        if total is not None and wanted_annotations(call.preferences)("Microsoft.Dynamics.CRM.totalrecordcount"):
            counted = call.options.get("$count") == "true"
            body["@Microsoft.Dynamics.CRM.totalrecordcount"] = min(total, COUNT_CAP) if counted else -1
            body["@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded"] = counted and total > COUNT_CAP
        return body

    def _read(self, call: _Call, entity: Entity, row_id: str) -> Reply:
        self._allow(call, entity, "read")
        stored = self.records.find(entity, row_id)
        tag = call.request.headers.get("if-none-match")
        if tag == etag(stored.version) and "odata.include-annotations" not in call.preferences:
            return Reply(304, b"", {"ETag": etag(stored.version)})
        return self._record(call, entity, row_id, stored, 200)

    def _record(self, call: _Call, entity: Entity, row_id: str, stored: Stored, status: int) -> Reply:
        context = f"{self.base_url}/$metadata#{entity.set}"
        if "$select" in call.options:
            context += f"({call.options['$select']})"
        shown = self._reader.shape(entity, call.options, wanted_annotations(call.preferences))(
            self._reader.shown(entity, row_id, stored)
        )
        reply = self._ok({"@odata.context": f"{context}/$entity", **shown}, status)
        reply.headers["ETag"] = etag(stored.version)
        return reply

    def _part(self, call: _Call, entity: Entity, row_id: str, rest: list[Segment]) -> Reply:
        """A column, a lookup, or the reference of a lookup."""
        name, method = rest[0].name, call.request.method
        stored = self.records.find(entity, row_id)
        if name in entity.navigations:
            if len(rest) == 2 and rest[1].name == "$ref" and method in ("PUT", "DELETE"):
                self._allow(call, entity, "write")
                reference = None if method == "DELETE" else self._body(call, entity).get("@odata.id")
                self.records.update(entity, row_id, {f"{name}@odata.bind": reference}, user=call.user)
                return Reply(204, b"", {"OData-Version": "4.0"})
            _refuse_all_but_get(method)
            self._allow(call, entity, "read")
            found = self._reader.behind(entity, self._reader.shown(entity, row_id, stored), name)
            if found is None:
                return Reply(204, b"", {"OData-Version": "4.0"})
            return self._record(call, *found, 200)
        if name in entity.collections:
            return self._below(call, entity, row_id, rest)
        attribute_or_none = entity.by_wire_name.get(name)
        if attribute_or_none is None or attribute_or_none.secret:
            raise CrmError(404, "0x80060888", f"Resource not found for the segment '{name}'.")
        if method in ("PUT", "DELETE") and len(rest) == 1:
            self._allow(call, entity, "write")
            value = None if method == "DELETE" else self._body(call, entity).get("value")
            self.records.update(entity, row_id, {name: value}, user=call.user)
            return Reply(204, b"", {"OData-Version": "4.0"})
        _refuse_all_but_get(method)
        self._allow(call, entity, "read")
        value = self._reader.shown(entity, row_id, stored)[name]
        if value is None:
            return Reply(204, b"", {"OData-Version": "4.0"})
        if len(rest) == 2 and rest[1].name == "$value":
            return Reply(200, str(value).encode(), {"Content-Type": "text/plain", "OData-Version": "4.0"})
        return self._ok({"@odata.context": f"{self.base_url}/$metadata#{entity.set}({row_id})/{name}", "value": value})

    def _below(self, call: _Call, entity: Entity, row_id: str, rest: list[Segment]) -> Reply:
        """The rows that point to this one: listed, counted, made, associated, disassociated."""
        table, lookup = entity.collections[rest[0].name]
        children = self.records.entities[table]
        attribute = children.attributes[lookup]
        bind = f"{children.navigation_of(attribute, entity.logical)}@odata.bind"
        within = Within(lookup, row_id, f"{entity.set}({row_id})/{rest[0].name}")
        below = rest[1].name if len(rest) > 1 else ""
        match call.request.method, below, rest[0].key:
            case "GET", "", None:
                return self._list(call, children, within)
            case "GET", "$count", None:
                return self._count(call, children, within)
            case "POST", "", None:
                body = {**self._body(call, children), bind: f"/{entity.set}({row_id})"}
                return self._create(call, children, body)
            case "POST", "$ref", None:
                child = self.records.located(children, self._body(call, children).get("@odata.id"))
                return self._point(call, children, child, {bind: f"/{entity.set}({row_id})"})
            case "DELETE", "$ref", key:
                named = self.records.locate(children, key) if key else None
                child = named or self.records.located(children, call.options.get("$id"))
                return self._point(call, children, child, {bind: None})
        raise CrmError(405, "0x80060888", f"The HTTP method '{call.request.method}' is not allowed here.")

    def _point(self, call: _Call, entity: Entity, located: Located, body: Values) -> Reply:
        self._allow(call, entity, "write")
        if located.row_id is None:
            raise missing(entity)
        self.records.update(entity, located.row_id, body, user=call.user)
        return Reply(204, b"", {"OData-Version": "4.0"})

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
        stamp = self.store.clock.now().strftime("%m/%d/%Y %H:%M:%S")
        token = quote(f"{version}!{stamp}", safe="")
        return f"{self.base_url}/{entity.set}?{_without(kept, '$deltatoken')}$deltatoken={token}"

    def _delta_version(self, token: str) -> int:
        version, _, stamp = token.partition("!")
        try:
            issued = dt.datetime.strptime(stamp, "%m/%d/%Y %H:%M:%S").replace(tzinfo=dt.timezone.utc)
            since = int(version)
        except ValueError as error:
            raise CrmError(400, "0x80060888", "The delta token is not valid.") from error
        if since <= self.store.fact("delta_floor", -1) or issued.timestamp() < self.store.clock.now_s() - DELTA_LIFE_S:
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
            (done, up_to), number = read_cookie(call.options["$skiptoken"])
            if type(done) is not int:
                raise CrmError(400, "0x80060888", "The paging cookie is not valid.")
        changed, gone = self.store.table(entity.logical).changed_since(since, up_to=up_to)
        # A row that changes while its delta is paged leaves the range and is in the next one. Positions count the
        # rows of the range by version, so that leaving does not shift the others: deleted ones stand after them.
        entries: list[tuple[int, Values]] = []
        shape = self._reader.shape(entity, call.options, wanted_annotations(call.preferences))
        for row_id, stored in changed:
            entries.append((stored.version, shape(self._reader.shown(entity, row_id, stored))))
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
            cookie = write_cookie(entity, [], number + 1, [page[-1][0], up_to], tracking=True)
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
            body = from_json(call.request.body or b"{}")
        except ValueError as error:
            raise payload_error(entity, "The payload is not valid JSON.") from error
        if not isinstance(body, dict):
            raise payload_error(entity, "The payload is not a JSON object.")
        return body

    def _create(self, call: _Call, entity: Entity, body: Values, row_id: str | None = None) -> Reply:
        self._allow(call, entity, "create")
        created, stored = self.records.insert(entity, body, user=call.user, row_id=row_id, tag=call.options.get("tag"))
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

    def _patch(self, call: _Call, entity: Entity, located: Located) -> Reply:
        stored = self.store.table(entity.logical).rows.get(located.row_id or "")
        match_tag = call.request.headers.get("if-match", "").strip()
        none_tag = call.request.headers.get("if-none-match", "").strip()
        body = self._body(call, entity)
        if stored is None:
            if match_tag:
                raise missing(entity) if located.key else no_row(entity, located.row_id or "")
            return self._create(call, entity, self.records.with_key(entity, body, located.key), located.row_id)
        row_id = str(located.row_id)
        self.records.with_key(entity, body, located.key)
        if none_tag == "*":
            raise key_taken()
        self._allow(call, entity, "write")
        _match(match_tag, stored)
        stored = self.records.update(entity, row_id, body, user=call.user, tag=call.options.get("tag"))
        return self._written(call, entity, row_id, stored, created=False)

    def _delete(self, call: _Call, entity: Entity, row_id: str) -> Reply:
        self._allow(call, entity, "delete")
        stored = self.records.find(entity, row_id)
        _match(call.request.headers.get("if-match", "").strip(), stored)
        self.records.remove(entity, row_id, user=call.user)
        return Reply(204, b"", {"OData-Version": "4.0"})

    # ------------------------------------------------------------ many rows at once

    def _bulk(self, call: _Call, entity: Entity, message: str) -> Reply:
        """CreateMultiple, UpdateMultiple, UpsertMultiple: all targets or none."""
        if message not in ("CreateMultiple", "UpdateMultiple", "UpsertMultiple"):
            raise CrmError(404, "0x80060888", f"Resource not found for the segment '{_NAMESPACE}{message}'.")
        if not entity.bulk:
            raise CrmError(
                400,
                "0x80040800",
                f"The '{message}' method does not support entities of type '{entity.logical}'."
                " MessageProcessorCache returned MessageProcessor.Empty.",
            )
        targets = self._body(call, entity).get("Targets")
        if not isinstance(targets, list) or not targets:
            raise payload_error(entity, "The parameter 'Targets' is a list of records.")
        written: list[str] = []
        for target in targets:
            kind = str(target.get("@odata.type", "")).removeprefix("#") if isinstance(target, dict) else ""
            if kind != _NAMESPACE + entity.logical:
                raise payload_error(entity, f"A target does not say '@odata.type': '{_NAMESPACE}{entity.logical}'.")
            row_id = self._bulk_one(call, entity, message, {n: v for n, v in target.items() if n != "@odata.type"})
            if message == "UpsertMultiple" and row_id in written:
                raise key_taken()
            written.append(row_id)
        if message != "CreateMultiple":
            return Reply(204, b"", {"OData-Version": "4.0"})
        return self._ok(
            {"@odata.context": f"{self.base_url}/$metadata#{_NAMESPACE}CreateMultipleResponse", "Ids": written}
        )

    def _bulk_one(self, call: _Call, entity: Entity, message: str, body: Values) -> str:
        tag = call.options.get("tag")
        if message == "CreateMultiple":
            self._allow(call, entity, "create")
            return self.records.insert(entity, body, user=call.user, tag=tag)[0]
        address = body.pop("@odata.id", None)
        if address is not None:
            located = self.records.located(entity, address)
        elif body.get(entity.id) is not None:
            located = self.records.locate(entity, str(body.pop(entity.id)))
        else:
            raise payload_error(entity, f"A target names neither '{entity.id}' nor '@odata.id'.")
        if located.row_id is not None and located.row_id in self.store.table(entity.logical).rows:
            self._allow(call, entity, "write")
            self.records.update(entity, located.row_id, body, user=call.user, tag=tag)
            return located.row_id
        if message == "UpdateMultiple":
            raise missing(entity) if located.key else no_row(entity, located.row_id or "")
        self._allow(call, entity, "create")
        if set(located.key) & set(body):
            raise CrmError(400, "0x80040203", "The columns of the key stand in '@odata.id' and in the target.")
        body = self.records.with_key(entity, body, located.key)
        return self.records.insert(entity, body, user=call.user, row_id=located.row_id, tag=tag)[0]

    # ------------------------------------------------------------ batches

    def _batch(self, call: _Call) -> Reply:
        """Operations in order; without `odata.continue-on-error` the first failure ends it and gives the status."""
        if call.request.method != "POST":
            raise CrmError(405, "0x80060888", f"The HTTP method '{call.request.method}' is not allowed on a batch.")
        items = parse_batch(call.request.headers.get("content-type", ""), call.request.body)
        go_on = call.preferences.get("odata.continue-on-error", "false") != "false"
        addresses: dict[str, str] = {}
        parts: list[list[tuple[str | None, Reply]]] = []
        for item in items:
            if isinstance(item, ChangeSet):
                part = self._change_set(call, item, addresses)
            else:
                part = [(None, self._one_of_batch(call, item, addresses))]
            parts.append(part)
            failed = [reply.status for _, reply in part if reply.status >= 400]
            if failed and not go_on:
                return format_batch(parts, status=failed[0])
        return format_batch(parts, status=200)

    def _change_set(
        self, call: _Call, change_set: ChangeSet, addresses: dict[str, str]
    ) -> list[tuple[str | None, Reply]]:
        """One failure takes everything back and is the only reply."""
        undo = self.store.savepoint()
        replies: list[tuple[str | None, Reply]] = []
        for operation in change_set.operations:
            reply = self._one_of_batch(call, operation, addresses)
            if reply.status >= 400:
                undo()
                return [(None, reply)]
            replies.append((operation.content_id, reply))
        return replies

    def _one_of_batch(self, outer: _Call, operation: BatchOperation, addresses: dict[str, str]) -> Reply:
        undo = self.store.savepoint()
        try:
            target = resolve_target(operation.target, addresses, self.base_url)
            parts = urlsplit(target)
            path = parts.path if parts.path.startswith(PATH) else f"{PATH}/{parts.path.lstrip('/')}"
            body = operation.body
            if addresses and b"$" in body:
                body = to_json(resolve_body(from_json(body), addresses))
            request = Request(
                method=operation.method,
                path=unquote(path),
                query=parts.query,
                headers=operation.headers,
                body=body,
                app=outer.request.app,
            )
            _refuse_impersonation(request)
            call = _Call(request, outer.user, parse_options(request.query), request.preferences())
            reply = self._route(call, parse_path(request.path[len(PATH) :]))
        except (CrmError, QueryError, ValueError) as error:
            undo()
            return self._refusal(error)
        if operation.content_id is not None and "OData-EntityId" in reply.headers:
            addresses[operation.content_id] = reply.headers["OData-EntityId"]
        return reply

    def _refusal(self, error: CrmError | QueryError | ValueError) -> Reply:
        if isinstance(error, CrmError):
            return self._error(error)
        return self._error(CrmError(400, "0x80060888", str(error)))

    # ------------------------------------------------------------ the control endpoint's way in

    def edit(self, change: Values, *, user: Values) -> Values:
        """One edit outside the API: `set`, `id`, and `values` (as a body) or `delete`."""
        entity = self.records.entity_of(str(change["set"]))
        with self.store.transaction():
            rows = self.store.table(entity.logical).rows
            row_id = change.get("id")
            if change.get("delete"):
                self.records.find(entity, str(row_id))
                self.records.remove(entity, str(row_id), user=user)
                return {"id": row_id}
            values = change.get("values", {})
            if row_id is not None and not GUID.match(row_id):
                raise CrmError(400, "0x80060888", f"'{row_id}' is no id.")
            if row_id in rows:
                stored = self.records.update(entity, str(row_id), values, user=user)
            else:
                row_id, stored = self.records.insert(entity, values, user=user, row_id=row_id)
            return self._reader.shown(entity, str(row_id), stored)

    def truth(self, set_name: str) -> list[Values]:
        entity = self.records.entity_of(set_name)
        return [
            self._reader.shown(entity, row_id, stored)
            for row_id, stored in self.store.table(entity.logical).rows.items()
        ]

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


def _wire_names(entity: Entity, columns: tuple[str, ...]) -> list[str]:
    return [entity.attributes[name].wire_name for name in columns] or [entity.id]


def _refuse_impersonation(request: Request) -> None:
    if "callerobjectid" in request.headers or "mscrmcallerid" in request.headers:
        raise CrmError(403, "0x8004a110", "The caller cannot act on behalf of another user.")


def _refuse_all_but_get(method: str) -> None:
    if method != "GET":
        raise CrmError(405, "0x80060888", f"The HTTP method '{method}' is not allowed here.")


def _match(tag: str, stored: Stored) -> None:
    if tag and tag != "*" and tag != etag(stored.version):
        raise CrmError(
            412, "0x80060882", "The version of the existing record doesn't match the RowVersion property provided."
        )


def _without(query: str, option: str) -> str:
    """The query with its other options, ready for one more to follow."""
    encoded = "%24" + option[1:]
    parts = [part for part in query.split("&") if part and not part.startswith((f"{option}=", f"{encoded}="))]
    return "".join(f"{part}&" for part in parts)
