"""A Dataverse: Web API 9.2 over the rows of a store.

A request is one transaction. Tables are data (`crm_model`); what the platform does to every row (owner, money,
state, composites, version) is written once.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote, urlsplit

from drawbar.sandbox.crm_access import CUSTOMIZE, Caller
from drawbar.sandbox.crm_actions import Allow, CrmActions, Made
from drawbar.sandbox.crm_associations import join, part, to_join
from drawbar.sandbox.crm_batch import (
    BatchOperation,
    ChangeSet,
    format_batch,
    parse_batch,
    resolve_body,
    resolve_target,
)
from drawbar.sandbox.crm_bulk_delete import BulkDelete
from drawbar.sandbox.crm_catalog import CATALOG_RULES
from drawbar.sandbox.crm_conditions import with_caller
from drawbar.sandbox.crm_csdl import csdl
from drawbar.sandbox.crm_deep import insert_graph
from drawbar.sandbox.crm_discounts import DISCOUNT_RULES
from drawbar.sandbox.crm_duplicates import DUPLICATE_RULES, Duplicates, duplicate_check
from drawbar.sandbox.crm_expand import in_context
from drawbar.sandbox.crm_fetch import read_fetch, run_fetch
from drawbar.sandbox.crm_functions import OF_THE_SERVICE, counted_tables, record_counts
from drawbar.sandbox.crm_job_rules import JobRules
from drawbar.sandbox.crm_keys import missing
from drawbar.sandbox.crm_messages import Asked, Found, Message, function_parameters, message_named
from drawbar.sandbox.crm_metadata import EntityDefinitions, key_name
from drawbar.sandbox.crm_model import (
    CrmError,
    Entity,
    Right,
    etag,
    key_taken,
    not_supported,
    payload_error,
)
from drawbar.sandbox.crm_operations import BOUND, BULK
from drawbar.sandbox.crm_organization import ORGANIZATION_RULES, setting
from drawbar.sandbox.crm_paging import PAGE, read_cookie, write_cookie
from drawbar.sandbox.crm_reading import CrmReader, Within, itself, top_of, wanted_annotations
from drawbar.sandbox.crm_records import PATH, VERSIONED, CrmRecords, Located, Terms, no_row
from drawbar.sandbox.crm_reply import (
    applied,
    at_present_version,
    error_details,
    in_version,
    must_be_json,
    numbered,
    prefer,
)
from drawbar.sandbox.crm_roles import ROLE_RULES, RoleMessages
from drawbar.sandbox.crm_sales import SALES_RULES
from drawbar.sandbox.crm_security import Security, with_batch_headers
from drawbar.sandbox.crm_sharing import Sharing
from drawbar.sandbox.crm_steps import STEP_RULES
from drawbar.sandbox.crm_webhooks import CrmWebhooks
from drawbar.sandbox.grants import Grants
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
from drawbar.sandbox.switches import Switches
from drawbar.sandbox.wire import Reply, Request, from_json, to_json

COUNT_CAP = 5000
MAX_URL, MAX_URL_IN_BATCH = 32_768, 65_536
RULES = {
    **CATALOG_RULES,
    **DISCOUNT_RULES,
    **SALES_RULES,
    **ORGANIZATION_RULES,
    **STEP_RULES,
    **ROLE_RULES,
    **DUPLICATE_RULES,
    "asyncoperation": JobRules(),
}
DAY_S = 86_400
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
    caller: Caller
    reader: CrmReader  # of what the caller may read
    options: dict[str, str]
    preferences: dict[str, str]

    @property
    def user(self) -> Values:
        """In whose name."""
        return self.caller.user


class Dataverse:
    system = "crm"

    def __init__(
        self,
        store: Store,
        *,
        sign_in: SignIn,
        grants: Grants,
        origin: str,
        webhooks: CrmWebhooks,
        switches: Switches,
    ) -> None:
        self.store = store
        self._switches = switches
        switches.listeners.append(store.forget_shown)
        self.webhooks = webhooks
        self.origin = origin
        self.base_url = origin + PATH
        self._sign_in = sign_in
        self._grants = grants
        self.records = CrmRecords(store, RULES, switches)
        self.sets = {entity.logical: entity.set for entity in self.records.entities.values()}
        self._reader = CrmReader(self.records, self.base_url)
        self._listings: Listings[Values] = Listings(store)
        self._actions = CrmActions(self.records)
        self._security = Security(self.records, grants)
        self._messages: Mapping[str, Message] = {
            **RoleMessages(self.records, self._security).messages,
            **BulkDelete(self.records, webhooks.jobs).messages,
            **Duplicates(self.records, webhooks.jobs).messages,
            **Sharing(self.records).messages,
            **OF_THE_SERVICE,
        }
        self._definitions = EntityDefinitions(self.records.entities, self.base_url, self.records.keys.of, switches)

    # ------------------------------------------------------------ as a service

    def caller(self, request: Request) -> str | None:
        return self._sign_in.admitted(request, self.origin)

    def target(self, request: Request) -> str:
        return VERSIONED.sub("", request.path).strip("/").partition("/")[0].partition("(")[0]

    def weight(self, request: Request) -> int:  # noqa: ARG002
        return 1

    def refused(self, request: Request, refusal: Refusal) -> Reply:  # noqa: ARG002
        code, text = _THROTTLED[refusal.facet]
        headers = {"Retry-After": str(refusal.retry_after_s)}
        return numbered(self._error(CrmError(429, code, text.format(refusal.limit), headers=headers)))

    def failed(self, request: Request) -> Reply:  # noqa: ARG002
        return numbered(self._error(CrmError(500, "0x80040216", "An unexpected error occurred.")))

    def handle(self, request: Request) -> Reply | Awaitable[Reply]:
        if request.app is None:
            where = f"{self._sign_in.authority}/oauth2/authorize"
            challenge = f"Bearer authorization_uri={where}, resource_id={self.origin}/"
            return Reply(401, b"", {"WWW-Authenticate": challenge})
        asked, request = request, at_present_version(request)
        try:
            with self.store.transaction():
                reply = self._dispatch(request, asked.app or "")
        except (CrmError, QueryError) as error:
            reply = self._refusal(error, request)
        return numbered(in_version(reply, asked, self.origin))

    def _dispatch(self, request: Request, app: str) -> Reply:
        if request.method == "GET":
            _check_length(len(request.path) + len(request.query), MAX_URL)
        if not request.path.startswith(PATH):
            raise CrmError(404, "0x80060888", "Resource not found for the given address.")
        user_id = self.store.table("systemuser").index("applicationid").get(app)
        if user_id is None or not self._grants.is_member("crm", app):
            raise CrmError(403, "0x80072560", "The user is not a member of the organization.")
        call = self._call(request, user_id)
        segments = parse_path(request.path[len(PATH) :])
        if segments == [Segment("$batch", None)]:
            return self._batch(call, user_id)
        return self._carry_out(call, segments)

    def _call(self, request: Request, user_id: str) -> _Call:
        caller = self._security.caller(user_id, request.headers)
        reader = self._reader if caller.unrestricted else CrmReader(self.records, self.base_url, caller.sees)
        options = with_caller(parse_options(request.query), caller.user)
        return _Call(request, caller, reader, options, request.preferences())

    def _carry_out(self, call: _Call, segments: list[Segment]) -> Reply:
        """One operation, by itself or in a batch."""
        if call.request.method == "GET":
            return applied(call.preferences, self._route(call, segments))
        terms = self._security.terms(call.caller, call.request.headers, call.options)
        if call.request.headers.get("mscrm.suppressduplicatedetection", "").lower() == "false":
            terms = replace(terms, checks=(*terms.checks, duplicate_check(self.records)), detects_duplicates=True)
        with self.records.on(terms):
            return applied(call.preferences, self._route(call, segments))

    def _route(self, call: _Call, segments: list[Segment]) -> Reply:
        if not segments or segments[0].name in ("$metadata", "WhoAmI"):
            _refuse_all_but_get(call.request.method)
        if not segments:
            return self._service_document()
        first = segments[0]
        match first.name:
            case "$metadata":
                headers = {"Content-Type": "application/xml", "OData-Version": "4.0"}
                return Reply(200, csdl(self.records.entities, self._switches), headers)
            case "WhoAmI":
                return self._who_am_i(call)
            case "RetrieveTotalRecordCount":
                return self._record_counts(call, first)
            case "EntityDefinitions":
                return self._definition(call, segments)
        if self._actions.is_unbound(first.name) and len(segments) == 1 and first.key is None:
            return self._act(call, first.name)
        if first.name in self._messages and len(segments) == 1:
            return self._ask(call, first)
        entity = self.records.by_set.get(first.name)
        if entity is None:
            raise CrmError(404, "0x80060888", f"Resource not found for the segment '{first.name}'.")
        return self._in_set(call, entity, segments)

    def _definition(self, call: _Call, segments: list[Segment]) -> Reply:
        """Metadata, of which alternate keys may be written."""
        method, key = call.request.method, segments[0].key
        if method == "GET" and segments[-1].name == "$value":
            text = str(self._definitions.answer(segments[:-1], call.options).get("value", ""))
            return Reply(200, text.encode(), {"Content-Type": "text/plain", "OData-Version": "4.0"})
        if method == "GET":
            return self._ok(self._definitions.answer(segments, call.options))
        if key is not None and len(segments) == 2 and segments[1].name == "Keys":
            entity = self._definitions.named(key)
            call.caller.demand_named(CUSTOMIZE)
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

    def _record_counts(self, call: _Call, segment: Segment) -> Reply:
        tables = counted_tables(segment.key, call.options, self.records.entities)
        for entity in tables:
            self._allow(call, entity, "read")
        counts = record_counts(tables, lambda entity: len(self.store.table(entity.logical).rows))
        context = f"{self.base_url}/$metadata#Microsoft.Dynamics.CRM.RetrieveTotalRecordCountResponse"
        return self._ok({"@odata.context": context, **counts})

    def _act(self, call: _Call, name: str) -> Reply:
        """An action that is bound to nothing; it answers with the row it makes, if it makes one."""
        if call.request.method != "POST":
            raise CrmError(405, "0x80060888", f"The HTTP method '{call.request.method}' is not allowed on an action.")
        must_be_json(call.request)
        try:
            body = from_json(call.request.body or b"{}")
        except ValueError as error:
            raise CrmError(400, "0x80048d19", "The payload is not valid JSON.") from error
        if not isinstance(body, dict):
            raise CrmError(400, "0x80048d19", "The payload is not a JSON object.")
        made = self._actions.run(name, body, user=call.user, allow=self._allowing(call))
        return Reply(204, b"", {"OData-Version": "4.0"}) if made is None else self._made(call, made)

    def _made(self, call: _Call, made: Made) -> Reply:
        """The row that a message answers with."""
        shown = call.reader.shown(made.entity, made.row_id, self.records.find(made.entity, made.row_id))
        options = {} if made.columns is None else {"$select": ",".join(_wire_names(made.entity, made.columns))}
        row = call.reader.shape(made.entity, options, wanted_annotations(call.preferences))(shown)
        return self._ok({"@odata.context": f"{self.base_url}/$metadata#{made.entity.set}/$entity", **row})

    def _found(self, call: _Call, found: Found) -> Values:
        """The rows that a message answers with."""
        entity, rows = found.entity, self.store.table(found.entity.logical).rows
        shape = call.reader.shape(entity, {}, wanted_annotations(call.preferences))
        listed = [shape(call.reader.shown(entity, row_id, rows[row_id])) for row_id in found.ids]
        return {"@odata.context": f"{self.base_url}/$metadata#{entity.set}", "value": listed}

    def _ask(self, call: _Call, segment: Segment, entity: Entity | None = None, row_id: str = "") -> Reply:
        """A message of `crm_messages`, of the service or of one row."""
        name = segment.name.removeprefix(_NAMESPACE)
        message = message_named(self._messages, name, entity, call.request.method, segment.key)
        if message.is_function:
            parameters = function_parameters(segment.key, call.options)
        else:
            parameters = self._body(call, entity or self.records.entities["systemuser"])
        answer = message.run(Asked(caller=call.caller, parameters=parameters, entity=entity, row_id=row_id))
        match answer:
            case None:
                return Reply(204, b"", {"OData-Version": "4.0"})
            case Made():
                return self._made(call, answer)
            case Found():
                return self._ok(self._found(call, answer))
        return self._ok({"@odata.context": f"{self.base_url}/$metadata#{_NAMESPACE}{name}Response", **answer})

    def _act_on(self, call: _Call, entity: Entity, row_id: str, name: str) -> Reply:
        """An action that is bound to a row."""
        if not self._actions.is_bound_to(name, entity):
            raise CrmError(404, "0x80060888", f"Resource not found for the segment '{_NAMESPACE}{name}'.")
        self._actions.run_on(name, entity, row_id, user=call.user, allow=self._allowing(call))
        return Reply(204, b"", {"OData-Version": "4.0"})

    # ------------------------------------------------------------ addresses

    def _in_set(self, call: _Call, entity: Entity, segments: list[Segment]) -> Reply:
        method, key = call.request.method, segments[0].key
        if entity.read_only and method != "GET":
            verb = {"POST": "Create", "PATCH": "Update", "PUT": "Update"}.get(method, "Delete")
            raise not_supported(entity, verb)
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
        if len(segments) == 2 and segments[1].name.startswith(_NAMESPACE):
            name = segments[1].name.removeprefix(_NAMESPACE)
            if name in BOUND and method == "POST":
                return self._act_on(call, entity, row_id, name)
            return self._ask(call, segments[1], entity, row_id)
        if len(segments) > 1:
            return self._part(call, entity, row_id, segments[1:])
        match method:
            case "GET":
                return self._read(call, entity, row_id)
            case "DELETE":
                return self._delete(call, entity, row_id)
            case _:
                raise CrmError(405, "0x80060888", f"The HTTP method '{method}' is not allowed on a record.")

    def _allow(self, call: _Call, entity: Entity, right: Right, row_id: str | None = None) -> None:
        """Raises CrmError when the caller has not the right, to that row if one is named and is there."""
        if call.caller.unrestricted:
            return
        stored = self.store.table(entity.logical).rows.get(row_id) if row_id is not None else None
        call.caller.demand(entity, right, row_id, stored.values if stored else None)

    def _allowing(self, call: _Call) -> Allow:
        return lambda entity, right, row_id=None: self._allow(call, entity, right, row_id)

    # ------------------------------------------------------------ reading

    def _count(self, call: _Call, entity: Entity, within: Within | None = None) -> Reply:
        self._allow(call, entity, "read")
        if "$deltatoken" in call.options:
            since = self._delta_version(call.options["$deltatoken"])
            changed, gone = self._changed_since(call, entity, since, self.store.version)
            count = len(changed) + len(gone)
        else:
            count = len(call.reader.matching(entity, call.options, within))
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
        if "$apply" in call.options:
            return self._aggregate(call, entity, within)
        self._allow_expanded(call, entity)
        tracking = "odata.track-changes" in call.preferences and within is None
        if tracking:
            self._must_be_trackable(entity, call)
        orders = call.reader.orders(entity, call.options)

        def select() -> list[Values]:
            rows = call.reader.matching(entity, call.options, within)
            sort_rows(rows, orders, row_of=itself)
            return rows

        asked = frozenset((name, value) for name, value in call.options.items() if name != "$skiptoken")
        whose = None if call.caller.unrestricted else call.caller.number
        rows = self._listings.rows((entity.set, within, asked, whose), select, goes_on="$skiptoken" in call.options)
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
        paged = size if "odata.maxpagesize" in call.preferences else None
        shape = call.reader.shape(entity, call.options, wanted_annotations(call.preferences), page=paged)
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
            prefer(reply, "odata.track-changes")
        if "odata.maxpagesize" in call.preferences:
            prefer(reply, f"odata.maxpagesize={self._page_size(call)}")
        return reply

    def _allow_expanded(self, call: _Call, entity: Entity) -> None:
        """Whoever asks for rows of other tables as well must have the right to read these."""
        for table in call.reader.tables_of(entity, call.options):
            self._allow(call, table, "read")

    def _aggregate(self, call: _Call, entity: Entity, within: Within | None) -> Reply:
        """Rows grouped and added up."""
        applied = call.reader.apply(entity, call.options)
        for table in applied.tables:
            self._allow(call, table, "read")
        included = wanted_annotations(call.preferences)
        rows = call.reader.applied(entity, applied, call.options, included, within)
        body: Values = {"@odata.context": f"{self.base_url}/$metadata#{entity.set}"}
        if call.options.get("$count") == "true":
            body["@odata.count"] = min(len(rows), COUNT_CAP)
        return self._ok({**body, "value": rows})

    def _fetch(self, call: _Call, entity: Entity) -> Reply:
        """A query in FetchXML. Every table that it links to must be readable."""
        user_id = str(call.user.get("systemuserid", ""))
        text, now = call.options["fetchXml"], self.store.clock.now()
        fetch = read_fetch(text, self.records.entities, now=now, user_id=user_id, entity=entity)
        for linked in fetch.joins:
            self._allow(call, linked.entity, "read")
        found = run_fetch(fetch, lambda table: call.reader.matching(table, {}))
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
            found.rows if fetch.aggregate else [call.reader.annotated(entity, row, included) for row in found.rows]
        )
        return self._ok(body)

    def _context(self, call: _Call, entity: Entity) -> str:
        chosen = in_context(call.options, call.reader.expands(entity, call.options))
        return f"{self.base_url}/$metadata#{entity.set}{chosen}"

    def _collection(self, call: _Call, entity: Entity, total: int | None) -> Values:
        body: Values = {"@odata.context": self._context(call, entity)}
        if total is not None and call.options.get("$count") == "true":
            body["@odata.count"] = min(total, COUNT_CAP)
        if total is not None and wanted_annotations(call.preferences)("Microsoft.Dynamics.CRM.totalrecordcount"):
            counted = call.options.get("$count") == "true"
            body["@Microsoft.Dynamics.CRM.totalrecordcount"] = min(total, COUNT_CAP) if counted else -1
            body["@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded"] = counted and total > COUNT_CAP
        return body

    def _read(self, call: _Call, entity: Entity, row_id: str) -> Reply:
        self._allow(call, entity, "read", row_id)
        stored = self.records.find(entity, row_id)
        tag = call.request.headers.get("if-none-match")
        always = "odata.include-annotations" in call.preferences or "$expand" in call.options
        if tag == etag(stored.version) and not always:
            return Reply(304, b"", {"ETag": etag(stored.version)})
        return self._record(call, entity, row_id, stored, 200)

    def _record(self, call: _Call, entity: Entity, row_id: str, stored: Stored, status: int) -> Reply:
        self._allow_expanded(call, entity)
        shown = call.reader.shape(entity, call.options, wanted_annotations(call.preferences))(
            call.reader.shown(entity, row_id, stored)
        )
        reply = self._ok({"@odata.context": f"{self._context(call, entity)}/$entity", **shown}, status)
        if self._switches["crm_etag_header"]:
            reply.headers["ETag"] = etag(stored.version)
        return reply

    def _part(self, call: _Call, entity: Entity, row_id: str, rest: list[Segment]) -> Reply:
        """A column, a lookup, or the reference of a lookup."""
        name, method = rest[0].name, call.request.method
        stored = self.records.find(entity, row_id)
        if name in entity.navigations:
            if len(rest) == 2 and rest[1].name == "$ref" and method in ("PUT", "DELETE"):
                self._allow(call, entity, "write", row_id)
                reference = None if method == "DELETE" else self._body(call, entity).get("@odata.id")
                self.records.update(entity, row_id, {f"{name}@odata.bind": reference}, user=call.user)
                return Reply(204, b"", {"OData-Version": "4.0"})
            return self._behind(call, entity, row_id, rest)
        if name in entity.associations:
            return self._joined(call, entity, row_id, rest)
        if name in entity.collections:
            return self._below(call, entity, row_id, rest)
        attribute_or_none = entity.by_wire_name.get(name)
        if attribute_or_none is None or attribute_or_none.secret:
            raise CrmError(404, "0x80060888", f"Resource not found for the segment '{name}'.")
        if method in ("PUT", "DELETE") and len(rest) == 1:
            self._allow(call, entity, "write", row_id)
            value = None if method == "DELETE" else self._body(call, entity).get("value")
            self.records.update(entity, row_id, {name: value}, user=call.user)
            return Reply(204, b"", {"OData-Version": "4.0"})
        _refuse_all_but_get(method)
        self._allow(call, entity, "read", row_id)
        value = call.reader.shown(entity, row_id, stored)[name]
        if value is None:
            return Reply(204, b"", {"OData-Version": "4.0"})
        if len(rest) == 2 and rest[1].name == "$value":
            text = str(value).lower() if isinstance(value, bool) else str(value)
            return Reply(200, text.encode(), {"Content-Type": "text/plain", "OData-Version": "4.0"})
        if len(rest) > 1 or method != "GET":
            raise CrmError(405, "0x80060888", f"The HTTP method '{method}' is not allowed on this part of a record.")
        return self._ok({"@odata.context": f"{self.base_url}/$metadata#{entity.set}({row_id})/{name}", "value": value})

    def _behind(self, call: _Call, entity: Entity, row_id: str, rest: list[Segment]) -> Reply:
        """The row that a lookup leads to: itself, its address, or a part of it."""
        self._allow(call, entity, "read", row_id)
        shown = call.reader.shown(entity, row_id, self.records.find(entity, row_id))
        found = call.reader.behind(entity, shown, rest[0].name)
        if found is None:
            return Reply(204, b"", {"OData-Version": "4.0"})
        other, other_id, stored = found
        if [part.name for part in rest[1:]] == ["$ref"] and call.request.method == "GET":
            address = f"{self.base_url}/{other.set}({other_id})"
            return self._ok({"@odata.context": f"{self.base_url}/$metadata#$ref", "@odata.id": address})
        if len(rest) > 1:
            return self._part(call, other, other_id, rest[1:])
        if call.request.method != "GET":
            raise CrmError(405, "0x80060888", f"The HTTP method '{call.request.method}' is not allowed on a lookup.")
        self._allow(call, other, "read")
        return self._record(call, other, other_id, stored, 200)

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
            case "GET", "$ref", None:
                return self._references(call, children, within)
            case "GET", "", key if key is not None:
                child = self.records.locate(children, key)
                if child.row_id is None or child.row_id not in call.reader.ids(children, within):
                    raise missing(children) if child.key else no_row(children, child.row_id or "")
                if len(rest) > 1:
                    raise CrmError(404, "0x80060888", f"Resource not found for the segment '{rest[1].name}'.")
                return self._read(call, children, child.row_id)
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

    def _joined(self, call: _Call, entity: Entity, row_id: str, rest: list[Segment]) -> Reply:
        """The rows that belong together with this one: listed, counted, joined, parted."""
        association = entity.associations[rest[0].name]
        other = self.records.entities[association.other]
        within = Within("", row_id, f"{entity.set}({row_id})/{rest[0].name}", association)
        below = rest[1].name if len(rest) > 1 else ""
        match call.request.method, below, rest[0].key:
            case "GET", "", None:
                return self._list(call, other, within)
            case "GET", "$count", None:
                return self._count(call, other, within)
            case "GET", "$ref", None:
                return self._references(call, other, within)
            case "POST", "$ref", None:
                located = self.records.located(other, self._body(call, other).get("@odata.id"))
                other_id = to_join(self.records, call.caller, association, row_id, located)
                join(self.records, association, row_id, other_id)
                return Reply(204, b"", {"OData-Version": "4.0"})
            case "DELETE", "$ref", key:
                named = self.records.locate(other, key) if key else None
                located = named or self.records.located(other, call.options.get("$id"))
                other_id = to_join(self.records, call.caller, association, row_id, located)
                part(self.records, association, row_id, other_id)
                return Reply(204, b"", {"OData-Version": "4.0"})
        raise CrmError(405, "0x80060888", f"The HTTP method '{call.request.method}' is not allowed here.")

    def _references(self, call: _Call, entity: Entity, within: Within) -> Reply:
        """The addresses of the rows below one."""
        self._allow(call, entity, "read")
        rows = call.reader.matching(entity, call.options, within)
        sort_rows(rows, call.reader.orders(entity, call.options), row_of=itself)
        return self._ok(
            {
                "@odata.context": f"{self.base_url}/$metadata#Collection($ref)",
                "value": [{"@odata.id": f"{self.base_url}/{entity.set}({row[entity.id]})"} for row in rows[:PAGE]],
            }
        )

    def _point(self, call: _Call, entity: Entity, located: Located, body: Values) -> Reply:
        self._allow(call, entity, "write", located.row_id)
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
        oldest = self.store.clock.now_s() - DAY_S * int(str(setting(self.records, "expirechangetrackingindays")))
        if since <= self.store.fact("delta_floor", -1) or issued.timestamp() < oldest:
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
        changed, gone = self._changed_since(call, entity, since, up_to)
        # A row that changes while its delta is paged leaves the range and is in the next one. Positions count the
        # rows of the range by version, so that leaving does not shift the others: deleted ones stand after them.
        entries: list[tuple[int, Values]] = []
        shape = call.reader.shape(entity, call.options, wanted_annotations(call.preferences))
        for row_id, stored in changed:
            entries.append((stored.version, shape(call.reader.shown(entity, row_id, stored))))
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
        prefer(reply, "odata.track-changes")
        if "odata.maxpagesize" in call.preferences:
            prefer(reply, f"odata.maxpagesize={size}")
        return reply

    def _changed_since(
        self, call: _Call, entity: Entity, since: int, up_to: int
    ) -> tuple[list[tuple[str, Stored]], list[tuple[int, str]]]:
        """What changed and may be read; whose a deleted row was, nobody knows any more."""
        changed, gone = self.store.table(entity.logical).changed_since(since, up_to=up_to)
        if not call.caller.unrestricted:
            seen = call.caller.sees(entity)
            changed = [(row_id, stored) for row_id, stored in changed if seen(row_id, stored.values)]
        return changed, gone

    # ------------------------------------------------------------ writing

    @staticmethod
    def _body(call: _Call, entity: Entity) -> Values:
        must_be_json(call.request)
        try:
            body = from_json(call.request.body or b"{}")
        except ValueError as error:
            raise payload_error(entity, "The payload is not valid JSON.") from error
        if not isinstance(body, dict):
            raise payload_error(entity, "The payload is not a JSON object.")
        return body

    def _create(self, call: _Call, entity: Entity, body: Values, row_id: str | None = None) -> Reply:
        created, stored = insert_graph(
            self.records,
            entity,
            body,
            user=call.user,
            allow=self._allowing(call),
            row_id=row_id,
        )
        return self._written(call, entity, created, stored, created=True)

    def _written(self, call: _Call, entity: Entity, row_id: str, stored: Stored, *, created: bool) -> Reply:
        address = f"{self.base_url}/{entity.set}({row_id})"
        if call.preferences.get("return") == "representation":
            self._allow(call, entity, "read", row_id)
            reply = self._record(call, entity, row_id, stored, 201 if created else 200)
            prefer(reply, "return=representation")
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
            raise key_taken(f"412 {self._switches['crm_create_only_code']}")
        self._allow(call, entity, "write", row_id)
        _match(match_tag, stored)
        stored = self.records.update(entity, row_id, body, user=call.user)
        return self._written(call, entity, row_id, stored, created=False)

    def _delete(self, call: _Call, entity: Entity, row_id: str) -> Reply:
        self._allow(call, entity, "delete", row_id)
        stored = self.records.find(entity, row_id)
        _match(call.request.headers.get("if-match", "").strip(), stored)
        self.records.remove(entity, row_id, user=call.user)
        return Reply(204, b"", {"OData-Version": "4.0"})

    # ------------------------------------------------------------ many rows at once

    def _bulk(self, call: _Call, entity: Entity, message: str) -> Reply:
        """CreateMultiple, UpdateMultiple, UpsertMultiple: all targets or none."""
        if message == "DeleteMultiple":
            raise CrmError(501, "0x80040800", "DeleteMultiple has not yet been implemented.")
        if message not in BULK:
            raise CrmError(404, "0x80060888", f"Resource not found for the segment '{_NAMESPACE}{message}'.")
        if not entity.bulk:
            raise not_supported(entity, message)
        targets = self._body(call, entity).get("Targets")
        if not isinstance(targets, list) or not targets:
            raise payload_error(entity, "The parameter 'Targets' is a list of records.")
        written: list[str] = []
        for target in targets:
            kind = str(target.get("@odata.type", "")).removeprefix("#") if isinstance(target, dict) else ""
            if kind != _NAMESPACE + entity.logical:
                raise payload_error(entity, f"A target does not say '@odata.type': '{_NAMESPACE}{entity.logical}'.")
            row_id = self._bulk_one(call, entity, message, {n: v for n, v in target.items() if n != "@odata.type"})
            in_order = message == "UpdateMultiple" and self._switches["crm_repeated_targets"] == "in_order"
            if row_id in written and not in_order:
                raise key_taken(self._switches["crm_taken_answer"])
            written.append(row_id)
        if message != "CreateMultiple":
            return Reply(204, b"", {"OData-Version": "4.0"})
        return self._ok(
            {"@odata.context": f"{self.base_url}/$metadata#{_NAMESPACE}CreateMultipleResponse", "Ids": written}
        )

    def _bulk_one(self, call: _Call, entity: Entity, message: str, body: Values) -> str:
        if message == "CreateMultiple":
            self._allow(call, entity, "create")
            return self.records.insert(entity, body, user=call.user)[0]
        address = body.pop("@odata.id", None)
        if address is not None:
            located = self.records.located(entity, address)
        elif body.get(entity.id) is not None:
            located = self.records.locate(entity, str(body.pop(entity.id)))
        else:
            raise payload_error(entity, f"A target names neither '{entity.id}' nor '@odata.id'.")
        if located.row_id is not None and located.row_id in self.store.table(entity.logical).rows:
            self._allow(call, entity, "write", located.row_id)
            self.records.update(entity, located.row_id, body, user=call.user)
            return located.row_id
        if message == "UpdateMultiple":
            raise missing(entity) if located.key else no_row(entity, located.row_id or "")
        self._allow(call, entity, "create")
        if set(located.key) & set(body):
            raise CrmError(400, "0x80040203", "The columns of the key stand in '@odata.id' and in the target.")
        body = self.records.with_key(entity, body, located.key)
        return self.records.insert(entity, body, user=call.user, row_id=located.row_id)[0]

    # ------------------------------------------------------------ batches

    def _batch(self, call: _Call, user_id: str) -> Reply:
        """Operations in order; without `odata.continue-on-error` the first failure ends it and gives the status."""
        if call.request.method != "POST":
            raise CrmError(405, "0x80060888", f"The HTTP method '{call.request.method}' is not allowed on a batch.")
        items = parse_batch(call.request.headers.get("content-type", ""), call.request.body)
        go_on = call.preferences.get("odata.continue-on-error", "false") != "false"
        addresses: dict[str, str] = {}
        parts: list[list[tuple[str | None, Reply]]] = []
        for item in items:
            if isinstance(item, ChangeSet):
                done = self._change_set(call, item, addresses, user_id)
            else:
                done = [(None, self._one_of_batch(call, item, addresses, user_id))]
            parts.append(done)
            failed = [reply.status for _, reply in done if reply.status >= 400]
            if failed and not go_on:
                return format_batch(parts, status=failed[0])
        return format_batch(parts, status=200)

    def _change_set(
        self, call: _Call, change_set: ChangeSet, addresses: dict[str, str], user_id: str
    ) -> list[tuple[str | None, Reply]]:
        """One failure takes everything back and is the only reply."""
        undo = self.store.savepoint()
        replies: list[tuple[str | None, Reply]] = []
        for operation in change_set.operations:
            reply = self._one_of_batch(call, operation, addresses, user_id)
            if reply.status >= 400:
                undo()
                return [(None, reply)]
            replies.append((operation.content_id, reply))
        return replies

    def _one_of_batch(self, outer: _Call, operation: BatchOperation, addresses: dict[str, str], user_id: str) -> Reply:
        undo = self.store.savepoint()
        request = Request(
            method=operation.method,
            path=operation.target,
            query="",
            headers=with_batch_headers(outer.request.headers, operation.headers),
            body=operation.body,
            app=outer.request.app,
        )
        try:
            _check_length(len(operation.target), MAX_URL_IN_BATCH)
            target = resolve_target(operation.target, addresses, self.base_url)
            parts = urlsplit(target)
            path = f"{PATH}/{VERSIONED.sub('', parts.path).lstrip('/')}"
            body = operation.body
            if addresses and b"$" in body:
                body = to_json(resolve_body(from_json(body), addresses))
            request = replace(request, path=unquote(path), query=parts.query, body=body)
            reply = self._carry_out(self._call(request, user_id), parse_path(request.path[len(PATH) :]))
        except (CrmError, QueryError, ValueError) as error:
            undo()
            return numbered(self._refusal(error, request))
        if operation.content_id is not None and "OData-EntityId" in reply.headers:
            addresses[operation.content_id] = reply.headers["OData-EntityId"]
        return numbered(reply)

    def _refusal(self, error: CrmError | QueryError | ValueError, request: Request) -> Reply:
        refusal = error if isinstance(error, CrmError) else CrmError(400, "0x80060888", str(error))
        return self._error(refusal, error_details(refusal, wanted_annotations(request.preferences())))

    # ------------------------------------------------------------ the control endpoint's way in

    def edit(self, change: Values, *, user: Values) -> Values:
        """One edit outside the API: `set`, `id`, and `values` (as a body) or `delete`."""
        entity = self.records.entity_of(str(change["set"]))
        with self.records.on(Terms()), self.store.transaction():
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

    def _shown_code(self, code: str, status: int) -> str:
        empty = self._switches["crm_error_code_empty"]
        if empty == "always" or (empty == "conditional" and status == 412):
            return ""
        is_unknown = (status, code) == (404, "0x80060888")
        return str(self._switches["crm_unknown_resource_code"]) if is_unknown else code

    def _error(self, error: CrmError, details: Mapping[str, str] | None = None) -> Reply:
        status = self._switches.status(error.code, error.status)
        return Reply(
            status,
            to_json(
                {"error": {"code": self._shown_code(error.code, status), "message": error.message, **(details or {})}}
            ),
            {
                "Content-Type": _JSON,
                "OData-Version": "4.0",
                **error.headers,
            },
        )


def _wire_names(entity: Entity, columns: tuple[str, ...]) -> list[str]:
    return [entity.attributes[name].wire_name for name in columns] or [entity.id]


def _check_length(length: int, limit: int) -> None:
    if length > limit:
        raise CrmError(414, "0x80060888", f"The address has {length} characters; here it has up to {limit}.")


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
