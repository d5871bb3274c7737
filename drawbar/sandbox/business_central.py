"""A Business Central: API v2.0 over the rows of a store.

A request is one transaction. This module answers requests; how rows are written is in `erp_records`, what the
application does for single sets in `erp_rules`, what there is in `erp_model`.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from drawbar.sandbox.erp_batch import BatchRequest, answer, operations
from drawbar.sandbox.erp_companies import COMPANIES, add_company, listed
from drawbar.sandbox.erp_definitions import asked, definitions
from drawbar.sandbox.erp_metadata import csdl
from drawbar.sandbox.erp_model import (
    AUTOMATION,
    CUSTOM,
    RUNTIME,
    STANDARD,
    Column,
    EntitySet,
    ErpError,
    etag,
    is_etag,
    is_etag_of,
    to_stored,
)
from drawbar.sandbox.erp_parts import decoded, encoded, not_allowed, part_rules
from drawbar.sandbox.erp_posting import ACTIONS, action_of
from drawbar.sandbox.erp_reading import ErpReader, Within, read_token, values_of, whole, write_token
from drawbar.sandbox.erp_records import ErpRecords
from drawbar.sandbox.erp_rules import RULES
from drawbar.sandbox.erp_webhooks import ErpWebhooks
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
    unquote_key,
)
from drawbar.sandbox.sign_in import SignIn
from drawbar.sandbox.store import Store, Stored, Values
from drawbar.sandbox.switches import Switches
from drawbar.sandbox.wire import NOT_JSON, Reply, Request, from_json, to_json

AUDIENCE = "https://api.businesscentral.dynamics.com"
PAGE = 20_000
LONGEST_BODY = 350 * 1024 * 1024  # bytes
_JSON = "application/json; odata.metadata=minimal"
_OF_ONE_PAGE = ("$skiptoken", "$skip", "aid")  # options that do not say which rows, only where a page begins
_NAMESPACE = "Microsoft.NAV."  # before the name of a bound action
_OPERATIONS: Mapping[str, Operation] = {"GET": "read", "POST": "create", "PATCH": "write", "DELETE": "delete"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Api:
    """What stands behind one route: its address and its sets."""

    route: str
    path: str
    short_path: str  # without the tenant
    url: str
    sets: Mapping[str, EntitySet]

    def below(self, path: str) -> str | None:
        """What of a path comes after the address; None where it is another's."""
        for prefix in (self.path, self.short_path):
            if path == prefix or path.startswith(f"{prefix}/"):
                return path[len(prefix) :]
        return None

    def actions(self) -> list[tuple[str, str]]:
        """Set and name of each bound action."""
        return [(set_name, action) for set_name, action in ACTIONS if set_name in self.sets]


@dataclass(slots=True)
class _Call:
    """One request, or one part of a batch."""

    request: Request
    api: _Api
    app: str
    options: dict[str, str]
    company: str | None = None


class BusinessCentral:
    system = "erp"

    def __init__(
        self,
        store: Store,
        *,
        sign_in: SignIn,
        grants: Grants,
        origin: str,
        environment: str,
        webhooks: ErpWebhooks,
        switches: Switches,
    ) -> None:
        self.store = store
        self._switches = switches
        switches.listeners.append(store.forget_shown)
        self.webhooks = webhooks
        self._sign_in = sign_in
        self._grants = grants
        self.records = ErpRecords(store, RULES, switches)
        self._sets = self.records.sets
        self._apis = [
            _Api(
                route=route,
                path=f"/v2.0/{sign_in.tenant_id}/{environment}/api/{route}",
                short_path=f"/v2.0/{environment}/api/{route}",
                url=f"{origin}/v2.0/{sign_in.tenant_id}/{environment}/api/{route}",
                sets={name: entity_set for name, entity_set in self._sets.items() if entity_set.route == route},
            )
            for route in (STANDARD, CUSTOM, RUNTIME, AUTOMATION)
        ]
        self.base_url = self._apis[0].url
        self._reader = ErpReader(self.records, self.base_url)
        self._listings: Listings[Stored] = Listings(store)

    # ------------------------------------------------------------ as a service

    def caller(self, request: Request) -> str | None:
        return self._sign_in.admitted(request, AUDIENCE)

    def target(self, request: Request) -> str:
        _, below = self._found(request.path)
        segments = [part.partition("(")[0] for part in below.split("/") if part]
        if segments and segments[0] == "companies" and len(segments) > 1:
            segments = segments[1:]
        return segments[0] if segments else ""

    def refused(self, request: Request, refusal: Refusal) -> Reply:  # noqa: ARG002
        if refusal.facet == "time":
            text = "The request waited too long for its turn."
            headers = {"Retry-After": str(refusal.retry_after_s)}
            return self._error(ErpError(503, "Application_ServiceUnavailable", text, headers=headers))
        text = f"Too many requests reached. Actual ({refusal.limit + 1}). Maximum ({refusal.limit})."
        is_told = self._switches["erp_retry_after_on_429"] == "seconds"
        headers = {"Retry-After": str(refusal.retry_after_s)} if is_told else {}
        return self._error(ErpError(429, self._switches["erp_429_code"], text, headers=headers))

    def too_long(self) -> Reply:
        return self._error(ErpError(413, "BadRequest", "The request body is too large."))

    def failed(self, request: Request) -> Reply:  # noqa: ARG002
        return self._error(ErpError(500, "Internal_ServerError", "An unexpected error occurred."))

    def handle(self, request: Request) -> Reply | Awaitable[Reply]:
        return self.answered(request, self._dispatch)

    def answered(
        self, request: Request, answer_to: Callable[[Request, str], Reply | Awaitable[Reply]]
    ) -> Reply | Awaitable[Reply]:
        """What is answered to a caller who is known here, or the error that came of it."""
        if request.app is None:
            return self._unauthenticated(401)
        if not self._grants.is_member("erp", request.app):
            return self._unauthenticated(self._switches["erp_unknown_application_status"])
        try:
            return answer_to(request, request.app)
        except ErpError as error:
            return self._error(error)
        except QueryError as error:
            return self._error(ErpError(400, "BadRequest", str(error)))

    def weight(self, request: Request) -> int:
        """How many requests this one counts for against the rate limit."""
        if self._switches["erp_batch_counts"] == "once" or self.target(request) != "$batch":
            return 1
        try:
            return max(1, len(from_json(request.body)["requests"]))
        except (ValueError, TypeError, KeyError):
            return 1

    def serves(self, path: str) -> bool:
        """Whether a path leads into this environment."""
        return self._found(path)[0] is not None

    def _found(self, path: str) -> tuple[_Api | None, str]:
        """The API that a path leads to, and what of the path is left for it."""
        for api in self._apis:
            below = api.below(path)
            if below is not None:
                return api, below
        return None, ""

    def _dispatch(self, request: Request, app: str) -> Reply | Awaitable[Reply]:
        api, below = self._found(request.path)
        if api is None:
            raise ErpError(404, "BadRequest_ResourceNotFound", "Resource not found for the given address.")
        if request.method == "PUT":
            raise ErpError(405, "BadRequest_MethodNotAllowed", "Method not allowed.")
        intent = request.headers.get("data-access-intent", "ReadWrite")
        if request.method != "GET" and intent.lower() != "readwrite":
            raise ErpError(400, "BadRequest", f"The data access intent '{intent}' is not valid for this method.")
        segments = parse_path(below)
        call = _Call(request, api, app, parse_options(request.query))
        if segments and segments[0].name == "subscriptions":
            return self._subscriptions(call, segments)
        self.records.begin()
        if segments == [Segment("$batch", None)]:
            return self._batch(call)
        with self.store.transaction():
            return self._answer(call, segments)

    # ------------------------------------------------------------ addresses

    def _answer(self, call: _Call, segments: list[Segment]) -> Reply:
        if not segments:
            return self._service_document(call.api)
        first = segments[0]
        if first == Segment("entityDefinitions", None) and len(segments) == 1:
            if call.request.method != "GET":
                raise not_allowed(call.request.method)
            defined = definitions((COMPANIES, *call.api.sets.values()), call.api.actions())
            context = f"{call.api.url}/$metadata#entityDefinitions"
            return self._ok({"@odata.context": context, "value": asked(defined, call.options)})
        if first.name == "$metadata":
            return Reply(
                200,
                csdl(COMPANIES, call.api.sets, call.api.actions()),
                {"Content-Type": "application/xml", "OData-Version": "4.0"},
            )
        if first.name == "companies":
            if len(segments) == 1 or segments[1:] == [Segment("$count", None)]:
                return self._companies(call, first.key, counted=len(segments) > 1)
            if first.key is None:
                raise ErpError(404, "BadRequest_ResourceNotFound", "Resource not found for the segment 'companies'.")
            call.company = self._company_by_id(first.key)["id"]
            segments = segments[1:]
        else:
            call.company = self._named_company(call)
        entity_set = call.api.sets.get(segments[0].name)
        if entity_set is None:
            raise ErpError(
                404, "BadRequest_ResourceNotFound", f"Resource not found for the segment '{segments[0].name}'."
            )
        return self._in_set(call, entity_set, segments)

    def _in_set(self, call: _Call, entity_set: EntitySet, segments: list[Segment]) -> Reply:
        method, key = call.request.method, segments[0].key
        if entity_set.part:
            raise ErpError(400, "Application_DialogException", entity_set.unfiltered)
        if key is None:
            if len(segments) == 2 and segments[1].name == "$count":
                return self._count(call, entity_set)
            if len(segments) > 1:
                raise ErpError(404, "BadRequest_ResourceNotFound", "Resource not found for the address.")
            match method:
                case "GET":
                    return self._list(call, entity_set)
                case "POST":
                    return self._create(call, entity_set)
                case _:
                    raise ErpError(405, "BadRequest_MethodNotAllowed", f"'{method}' is not allowed on a set.")
        row_id = self._row_id(key)
        if len(segments) > 1:
            return self._below(call, entity_set, row_id, segments[1:])
        match method:
            case "GET":
                return self._read(call, entity_set, row_id)
            case "PATCH":
                return self._update(call, entity_set, row_id)
            case "DELETE":
                return self._delete(call, entity_set, row_id)
            case _:
                raise ErpError(405, "BadRequest_MethodNotAllowed", f"'{method}' is not allowed on an entity.")

    def _row_id(self, key: str) -> str:
        text = key.strip().removeprefix("id=")
        if not GUID.match(text):
            status = self._switches["erp_bad_key_status"]
            raise ErpError(status, "BadRequest_NotFound", f"Bad Request - Error in query syntax: '{key}'.")
        return text.lower()

    def _company_by_id(self, key: str) -> dict[str, Any]:
        wanted = unquote_key(key).lower()
        for company in self.records.companies():
            if wanted in (company["id"], company["name"].lower()):
                return company
        raise ErpError(404, "Internal_CompanyNotFound", f"The company '{unquote_key(key)}' does not exist.")

    def _named_company(self, call: _Call) -> str:
        """The company of a path without one: by query, by header, or the only one there is."""
        given = call.options.get("company")
        if given and not GUID.match(given) and not self._switches["erp_company_by_name_in_query"]:
            raise ErpError(404, "Internal_CompanyNotFound", f"The company '{given}' does not exist.")
        given = given or call.request.headers.get("company")
        if given:
            return str(self._company_by_id(given)["id"])
        companies = self.records.companies()
        if len(companies) != 1:
            raise ErpError(404, "Internal_CompanyNotFound", "Cannot find the company. No company was given.")
        return str(companies[0]["id"])

    # ------------------------------------------------------------ reading

    def _service_document(self, api: _Api) -> Reply:
        names = ["entityDefinitions", "companies", "subscriptions", *api.sets]
        return self._ok(
            {
                "@odata.context": f"{api.url}/$metadata",
                "value": [{"name": name, "kind": "EntitySet", "url": name} for name in names],
            }
        )

    def _companies(self, call: _Call, key: str | None, *, counted: bool) -> Reply:
        if call.request.method != "GET":
            raise ErpError(405, "BadRequest_MethodNotAllowed", "Entity does not support this method.")
        context = f"{call.api.url}/$metadata#companies"
        if key is not None:
            (company,), _ = listed([self._company_by_id(key)], {"$select": call.options.get("$select", "")})
            return self._ok({"@odata.context": f"{context}/$entity", **company})
        rows, total = listed(self.records.companies(), call.options)
        if counted:
            return Reply(200, str(total).encode(), {"Content-Type": "text/plain", "OData-Version": "4.0"})
        count = {"@odata.count": total} if call.options.get("$count") == "true" else {}
        return self._ok({"@odata.context": context, **count, "value": rows})

    def _allow(self, call: _Call, entity_set: EntitySet, operation: Operation) -> None:
        verb = {"read": "GET", "create": "POST", "write": "PATCH", "delete": "DELETE"}[operation]
        if verb not in entity_set.verbs:
            raise ErpError(405, "BadRequest_MethodNotAllowed", f"Entity does not support {verb}.")
        for table in entity_set.rights:
            self._must_allow(call, table, operation, source=self._sets[table].source)
        for table in entity_set.reads:
            self._must_allow(call, table, "read", source=self._sets[table].source)

    def _must_allow(self, call: _Call, set_name: str, operation: Operation, *, source: str) -> None:
        if not self._grants.allows("erp", call.app, set_name, operation):
            right = {"read": "Read", "create": "Insert", "write": "Modify", "delete": "Delete"}[operation]
            raise ErpError(
                403,
                "Authorization_RequestDenied",
                f"Sorry, the current permissions prevented the action. (TableData {source} {right}: Base Application)",
            )

    def _must_find(self, company: str, entity_set: EntitySet, row_id: str) -> Stored:
        stored = self.records.find(company, entity_set, row_id)
        if stored is None:
            raise self._missing(entity_set.source, f"SystemId='{row_id}'")
        return stored

    def _missing(self, source: str, key: str) -> ErpError:
        text = f"The {source} does not exist. Identification fields and values: {key}"
        return ErpError(404, self._switches["erp_missing_record_code"], text)

    def _count(self, call: _Call, entity_set: EntitySet, within: Within | None = None) -> Reply:
        self._allow(call, entity_set, "read")
        return Reply(
            200,
            str(len(self._reader.selected(_given(call.company), entity_set, call.options, within))).encode(),
            {"Content-Type": "text/plain", "OData-Version": "4.0"},
        )

    def _list(self, call: _Call, entity_set: EntitySet, within: Within | None = None) -> Reply:
        self._allow(call, entity_set, "read")
        company = _given(call.company)
        options = call.options
        address = within.address if within else entity_set.name
        size = whole(call.request.preferences().get("odata.maxpagesize", str(PAGE)), "odata.maxpagesize")
        if size > PAGE:
            raise ErpError(413, "BadRequest", f"The page size must not exceed {PAGE}.")
        schema = self._reader.schema(company, entity_set)
        orders = self._reader.orders(entity_set, schema, options)
        token = options.get("$skiptoken")

        def select() -> list[Stored]:
            rows = self._reader.selected(company, entity_set, options, within)
            sort_rows(rows, orders, row_of=values_of)
            return rows

        query = frozenset((name, value) for name, value in options.items() if name not in _OF_ONE_PAGE)
        rows = self._listings.rows(
            (call.api.route, company, entity_set.name, within, query), select, goes_on=token is not None
        )
        total, start = len(rows), 0
        left: int | None = whole(options["$top"], "$top") if "$top" in options else None
        if token is not None:
            last, left = read_token(token)
            start = first_after(rows, last, orders, row_of=values_of)
        elif "$skip" in options:
            start = whole(options["$skip"], "$skip")
        there = max(0, total - start)
        there = there if left is None else min(there, left)
        page = rows[start : start + min(there, max(1, size))]
        shape = self._reader.shape(company, entity_set, options, partial(self._allow, call, operation="read"))
        context = f"{call.api.url}/$metadata#companies({company})/{address}"
        if "$select" in options:
            context += f"({options['$select']})"
        body: dict[str, Any] = {"@odata.context": context}
        if options.get("$count") == "true":
            body["@odata.count"] = total
        body["value"] = [shape(stored) for stored in page]
        if len(page) < there:
            rest = None if left is None else left - len(page)
            token = write_token(sort_values(page[-1].values, orders), rest)
            kept = "&".join(
                part
                for part in call.request.query.split("&")
                if part and not part.startswith(("$skiptoken=", "%24skiptoken=", "aid=", "$skip=", "%24skip="))
            )
            body["@odata.nextLink"] = (
                f"{call.api.url}/companies({company})/{address}?{kept + '&' if kept else ''}"
                f"{'aid=FIN&' if self._switches['erp_next_link'] == 'aid_and_skiptoken' else ''}$skiptoken={token}"
            )
        return self._ok(body)

    def _read(self, call: _Call, entity_set: EntitySet, row_id: str) -> Reply:
        self._allow(call, entity_set, "read")
        company = _given(call.company)
        stored = self._must_find(company, entity_set, row_id)
        return self._entity(call, entity_set, stored, 200)

    def _entity(self, call: _Call, entity_set: EntitySet, stored: Stored, status: int) -> Reply:
        company = _given(call.company)
        shown = self._reader.shape(company, entity_set, call.options, partial(self._allow, call, operation="read"))(
            stored
        )
        address = stored.values.get("address", entity_set.name) if entity_set.part else entity_set.name
        context = f"{call.api.url}/$metadata#companies({company})/{address}/$entity"
        reply = self._ok({"@odata.context": context, **shown}, status)
        if self._switches["erp_etag_header"]:
            reply.headers["ETag"] = etag(stored.version, self._switches["erp_etag_form"])
        if status == 201 and self._switches["erp_location_header"]:
            reply.headers["Location"] = f"{call.api.url}/companies({company})/{address}({stored.values['id']})"
        return reply

    def _below(self, call: _Call, entity_set: EntitySet, row_id: str, rest: list[Segment]) -> Reply:
        """What the address of an entity leads on to: a collection, or one entity or property."""
        method, name = call.request.method, rest[0].name
        if name in entity_set.collections:
            set_name, column = entity_set.collections[name]
            return self._in_collection(
                call, self._sets[set_name], Within(column, row_id, f"{entity_set.name}({row_id})/{name}"), rest
            )
        if name.startswith(_NAMESPACE) and len(rest) == 1:
            return self._act(call, entity_set, row_id, name.removeprefix(_NAMESPACE))
        if name in entity_set.parts:
            return self._in_parts(call, entity_set, row_id, self._sets[entity_set.parts[name]], rest)
        own = entity_set.columns.get(name)
        if own is not None and own.type == "Stream" and len(rest) == 1:
            return self._stream(call, entity_set, row_id, own)
        if method != "GET" or len(rest) > 1:
            raise ErpError(405, "BadRequest_MethodNotAllowed", f"'{method}' is not allowed here.")
        return self._part(call, entity_set, row_id, name)

    def _in_collection(self, call: _Call, children: EntitySet, within: Within, rest: list[Segment]) -> Reply:
        """The part of a set that belongs to one entity, and its entities."""
        company, method, key = _given(call.company), call.request.method, rest[0].key
        parent_set = self._sets[within.address.partition("(")[0]]
        self._allow(call, parent_set, "read")
        self._must_find(company, parent_set, within.parent_id)
        if children.part and (method != "GET" or key is not None):
            return self._in_parts(call, parent_set, within.parent_id, children, rest)
        if key is not None:
            found = self._must_find(company, children, self._row_id(key))
            if found.values[within.column] != within.parent_id:
                raise ErpError(404, "BadRequest_ResourceNotFound", "The entity does not belong to this one.")
            return self._in_set(call, children, [Segment(children.name, key), *rest[1:]])
        if method == "POST" and len(rest) == 1:
            return self._create(call, children, {within.column: within.parent_id})
        if method == "GET" and len(rest) == 1:
            return self._list(call, children, within)
        if method == "GET" and rest[1].name == "$count":
            return self._count(call, children, within)
        raise ErpError(405, "BadRequest_MethodNotAllowed", f"'{method}' is not allowed here.")

    def _part(self, call: _Call, entity_set: EntitySet, row_id: str, name: str) -> Reply:
        """A navigation or a single property of an entity."""
        self._allow(call, entity_set, "read")
        company = _given(call.company)
        stored = self._must_find(company, entity_set, row_id)
        if name in entity_set.navigations:
            set_name, column = entity_set.navigations[name]
            other = self._sets[set_name]
            self._allow(call, other, "read")
            found = self.records.find(company, other, stored.values.get(column, ""))
            if found is None:
                return Reply(204, b"", {"OData-Version": "4.0"})
            return self._entity(call, other, found, 200)
        column_of = entity_set.columns.get(name)
        if column_of is None:
            raise ErpError(404, "BadRequest_ResourceNotFound", f"Resource not found for the segment '{name}'.")
        context = f"{call.api.url}/$metadata#companies({company})/{entity_set.name}({row_id})/{name}"
        return self._ok({"@odata.context": context, "value": self._reader.shown(company, entity_set, stored)[name]})

    # ------------------------------------------------------------ parts and streams

    def _in_parts(self, call: _Call, owner: EntitySet, row_id: str, part_set: EntitySet, rest: list[Segment]) -> Reply:
        """Entities that are made of another: read from it, written into it."""
        company, method, key = _given(call.company), call.request.method, rest[0].key
        self._allow(call, owner, "read" if method == "GET" else "write")
        if method not in part_set.verbs:
            raise not_allowed(method)
        rules, stored = part_rules(self.records, part_set), self._must_find(company, owner, row_id)
        if method == "POST":
            if key is not None or len(rest) > 1:
                raise not_allowed(method)
            known = {part.values["id"] for part in rules.of(self.records, company, owner, stored)}
            stored = self._keep(call, owner, rules.with_new(self.records, company, stored.values, self._body(call)))
            made = (part for part in rules.of(self.records, company, owner, stored) if part.values["id"] not in known)
            return self._entity(call, part_set, next(made), 201)
        wanted = None if key is None else self._row_id(key)
        parts = rules.of(self.records, company, owner, stored)
        part = next((each for each in parts if wanted in (None, each.values["id"])), None)
        if part is None or (wanted is None and part_set.part == "many"):
            raise ErpError(404, "BadRequest_ResourceNotFound", f"The {part_set.source} does not exist.")
        if method != "GET":
            self._must_match(
                call, part, part_set, optional=method == "DELETE" and self._switches["erp_delete_without_if_match"]
            )
        match len(rest), method:
            case 1, "GET":
                return self._entity(call, part_set, part, 200)
            case 1, "DELETE":
                self._keep(call, owner, rules.without(self.records, company, stored.values, part.values))
                return Reply(204, b"", {"OData-Version": "4.0"})
            case 1, _:
                row = rules.with_changed(self.records, company, stored.values, part.values, self._body(call))
                parts = rules.of(self.records, company, owner, self._keep(call, owner, row))
                changed = next(each for each in parts if each.values["id"] == part.values["id"])
                return self._entity(call, part_set, changed, 200)
        column = part_set.columns.get(rest[1].name)
        if len(rest) > 2 or column is None or column.type != "Stream":
            raise ErpError(404, "BadRequest_ResourceNotFound", f"Resource not found for the segment '{rest[1].name}'.")
        if method == "GET":
            return _bytes(rules.content(self.records, company, owner, stored.values))
        _must_be_binary(call.request)
        self._keep(call, owner, rules.with_content(stored.values, call.request.body))
        return Reply(204, b"", {"OData-Version": "4.0"})

    def _keep(self, call: _Call, owner: EntitySet, row: Values) -> Stored:
        return self.records.keep(_given(call.company), owner.name, row, app=call.app)

    def _stream(self, call: _Call, entity_set: EntitySet, row_id: str, column: Column) -> Reply:
        """A property that is bytes."""
        company, method = _given(call.company), call.request.method
        if method not in ("GET", "PATCH") or (method == "PATCH" and column.access == "read"):
            raise not_allowed(method)
        self._allow(call, entity_set, "read" if method == "GET" else "write")
        stored = self._must_find(company, entity_set, row_id)
        if method == "GET":
            return _bytes(decoded(stored.values, column.name))
        self._must_match(call, stored, entity_set, optional=False)
        _must_be_binary(call.request)
        content = encoded(call.request.body)
        self.records.fill(company, entity_set.name, row_id, column.name, content, app=call.app)
        return Reply(204, b"", {"OData-Version": "4.0"})

    # ------------------------------------------------------------ writing

    def _body(self, call: _Call) -> dict[str, Any]:
        if call.request.body and not call.request.is_said_to_be_json():
            raise ErpError(415, "BadRequest", NOT_JSON)
        try:
            body = from_json(call.request.body or b"{}")
        except ValueError as error:
            raise ErpError(400, "BadRequest", "The payload is not valid JSON.") from error
        if not isinstance(body, dict):
            raise ErpError(400, "BadRequest", "The payload is not a JSON object.")
        return body

    def _create(self, call: _Call, entity_set: EntitySet, given: Values | None = None) -> Reply:
        self._allow(call, entity_set, "create")
        body = {**(given or {}), **self._body(call), **(given or {})}
        stored = self.records.insert(_given(call.company), entity_set.name, body, app=call.app)
        if "return-no-content" in call.request.preferences() and self._switches["erp_return_no_content"]:
            made = self._entity(call, entity_set, stored, 201).headers
            headers = {"OData-Version": "4.0", "Preference-Applied": "return-no-content"}
            return Reply(204, b"", headers | {name: made[name] for name in ("Location",) if name in made})
        nested = [name for name in entity_set.collections if name in body]
        if nested and self._switches["erp_deep_insert_echoes"]:
            call.options.setdefault("$expand", ",".join(nested))
        return self._entity(call, entity_set, stored, 201)

    def _update(self, call: _Call, entity_set: EntitySet, row_id: str) -> Reply:
        self._allow(call, entity_set, "write")
        company = _given(call.company)
        self._must_match(call, self._must_find(company, entity_set, row_id), entity_set, optional=False)
        stored = self.records.change(company, entity_set.name, row_id, self._body(call), app=call.app)
        return self._entity(call, entity_set, stored, 200)

    @staticmethod
    def _must_match(call: _Call, stored: Stored, entity_set: EntitySet, *, optional: bool) -> None:
        tag = call.request.headers.get("if-match")
        if not tag and not optional:
            raise ErpError(400, "BadRequest_InvalidToken", "The If-Match header is required for this request.")
        if not tag or tag.strip() == "*":
            return
        if not is_etag(tag.strip()):
            raise ErpError(400, "BadRequest_InvalidToken", "The If-Match header is not a valid entity tag.")
        if not is_etag_of(tag.strip(), stored.version):
            raise ErpError(
                409,
                "Request_EntityChanged",
                "Another user has already changed the record."
                f" The changes to the {entity_set.source} record cannot be saved.",
            )

    def _delete(self, call: _Call, entity_set: EntitySet, row_id: str) -> Reply:
        self._allow(call, entity_set, "delete")
        company = _given(call.company)
        stored = self._must_find(company, entity_set, row_id)
        self._must_match(call, stored, entity_set, optional=self._switches["erp_delete_without_if_match"])
        self.records.remove(company, entity_set.name, row_id, app=call.app)
        return Reply(204, b"", {"OData-Version": "4.0"})

    def _act(self, call: _Call, entity_set: EntitySet, row_id: str, name: str) -> Reply:
        """A bound action. The reply tells where the document is that it made."""
        action = action_of(entity_set.name, name, any_case=self._switches["erp_action_names_any_case"])
        if action is None:
            status, code = self._switches["erp_unknown_action"].split()
            raise ErpError(int(status), code, f"No HTTP resource was found that matches '{name}'.")
        if call.request.method != "POST":
            raise ErpError(405, "BadRequest_MethodNotAllowed", f"'{call.request.method}' is not allowed on an action.")
        self._allow(call, entity_set, "write")
        company = _given(call.company)
        self._must_match(call, self._must_find(company, entity_set, row_id), entity_set, optional=True)
        made = action(self.records, company, row_id, call.app)
        headers = {"OData-Version": "4.0"}
        if made is not None and self._switches["erp_action_location_header"]:
            headers["Location"] = f"{call.api.url}/companies({company})/{made[0]}({made[1]})"
        return Reply(204, b"", headers)

    # ------------------------------------------------------------ subscriptions

    def _subscriptions(self, call: _Call, segments: list[Segment]) -> Reply | Awaitable[Reply]:
        method, key = call.request.method, segments[0].key
        operation = _OPERATIONS.get(method)
        if operation is not None:
            self._must_allow(call, "subscriptions", operation, source="API Webhook Subscription")
        table = self.store.table("subscriptions")
        context = f"{call.api.url}/$metadata#subscriptions"
        if key is None:
            if method == "GET":
                rows = [self.webhooks.shown(stored) for stored in table.rows.values()]
                return self._ok({"@odata.context": context, "value": rows})
            if method == "POST":
                return self._subscribe(call, self._body(call), None)
            raise ErpError(405, "BadRequest_MethodNotAllowed", f"'{method}' is not allowed on a set.")
        stored = table.rows.get(unquote_key(key))
        if stored is None:
            raise self._missing("API Webhook Subscription", f"Subscription Id='{unquote_key(key)}'")
        if method == "GET":
            return self._ok({"@odata.context": f"{context}/$entity", **self.webhooks.shown(stored)})
        tag = call.request.headers.get("if-match")
        needs_tag = method == "PATCH" or (method == "DELETE" and not self._switches["erp_delete_without_if_match"])
        if not tag and needs_tag:
            raise ErpError(400, "BadRequest_InvalidToken", "The If-Match header is required for this request.")
        if tag and tag.strip() != "*" and not is_etag_of(tag.strip(), stored.version):
            raise ErpError(409, "Request_EntityChanged", "Another user has already changed the record.")
        if method == "PATCH":
            return self._subscribe(call, {**stored.values, **self._body(call)}, stored)
        if method == "DELETE":
            self.webhooks.drop([unquote_key(key)])
            return Reply(204, b"", {"OData-Version": "4.0"})
        raise ErpError(405, "BadRequest_MethodNotAllowed", f"'{method}' is not allowed on an entity.")

    async def _subscribe(self, call: _Call, body: Values, stored: Stored | None) -> Reply:
        try:
            kept = await self.webhooks.subscribe(body, stored, user=call.app, route=call.api.route)
        except ErpError as error:
            return self._error(error)
        context = f"{call.api.url}/$metadata#subscriptions/$entity"
        return self._ok({"@odata.context": context, **self.webhooks.shown(kept)}, 200 if stored else 201)

    # ------------------------------------------------------------ batches

    def _batch(self, call: _Call) -> Reply:
        """Operations in order. A snapshot is one transaction; the replies of what it takes back stand all the same."""
        if call.request.method != "POST":
            raise not_allowed(call.request.method)
        groups = operations(call.request, too_long_status=self._switches["erp_batch_too_long_status"])
        if self._switches["erp_batch_groups"] == "refused" and any(one.is_grouped for group in groups for one in group):
            raise ErpError(400, "BadRequest", "The members 'atomicityGroup' and 'dependsOn' are not supported.")
        snapshot = call.request.headers.get("isolation", "").lower() == "snapshot"
        go_on = call.request.preferences().get("odata.continue-on-error", "false") != "false"
        go_on = go_on or not self._switches["erp_batch_stops_at_failure"]
        replies: list[list[tuple[BatchRequest, Reply]]] = []

        def run(group: list[BatchRequest]) -> bool:
            if not snapshot:
                self.records.begin()
            with self.store.transaction():
                undo = self.store.savepoint()
                done: list[tuple[BatchRequest, Reply]] = []
                for operation in group:
                    reply = self._one_of_batch(call, operation)
                    if reply.status >= 400:  # takes a change set back, and is the only reply
                        undo()
                        replies.append([(operation, reply)])
                        return False
                    done.append((operation, reply))
            replies.append(done)
            return True

        if snapshot:
            with self.store.transaction():
                roll_back = self.store.savepoint()
                fine = [run(group) for group in groups[:1]]
                ends = fine == [False] and self._switches["erp_snapshot_first_failure"] == "alone"
                fine += [] if ends else [run(group) for group in groups[1:]]
                if not all(fine):
                    roll_back()
        else:
            for group in groups:
                if not run(group) and not go_on:
                    break
        answered = answer(call.request, replies)
        return answered if isinstance(answered, Reply) else self._ok(answered)

    def _one_of_batch(self, outer: _Call, operation: BatchRequest) -> Reply:
        api = outer.api
        path, _, query = operation.url.removeprefix(api.url).removeprefix(api.path).partition("?")
        headers = dict(operation.headers)
        if "company" in outer.request.headers:
            headers.setdefault("company", outer.request.headers["company"])
        request = Request(
            method=operation.method,
            path=f"{api.path}/{path.lstrip('/')}",
            query=query,
            headers=headers,
            body=operation.body,
            app=outer.app,
        )
        if operation.lacks_content_type:
            text = "An operation with a body needs a Content-Type header of its own."
            return self._error(ErpError(400, "BadRequest", text))
        undo = self.store.savepoint()
        try:
            return self._answer(_Call(request, api, outer.app, parse_options(query)), parse_path(path))
        except ErpError as error:
            undo()
            return self._error(error)
        except QueryError as error:
            undo()
            return self._error(ErpError(400, "BadRequest", str(error)))

    # ------------------------------------------------------------ the control endpoint's way in

    def edit(self, change: Values, *, app: str) -> Values:
        """One edit by an application outside the API: `set`, and `id` or `key`, and `values` or `delete`."""
        self.records.begin()
        given = change.get("company")
        company = str((self._company_by_id(str(given)) if given else self.records.companies()[0])["id"])
        set_name = str(change["set"])
        entity_set = self._sets.get(set_name)
        if entity_set is None:
            raise ErpError(404, "BadRequest_ResourceNotFound", f"There is no set '{set_name}'.")
        with self.store.transaction():
            table = self.store.table(f"{company}/{set_name}")
            row_id = change.get("id") or table.index(entity_set.key).get(change.get("key"))
            if change.get("delete"):
                self.records.remove(company, set_name, self._existing(table.rows, row_id), app=app)
                return {"id": row_id}
            values = change.get("values", {})
            if row_id is None or row_id not in table.rows:
                body = {**values, "id": row_id} if row_id else values
                stored = self.records.insert(company, set_name, body, app=app, by_api=False)
            elif change.get("silent"):
                checked = {name: to_stored(_column(entity_set, name), value) for name, value in values.items()}
                row = {**table.rows[row_id].values, **checked}
                stored = self.store.put(f"{company}/{set_name}", row_id, row, note=app, silent=True)
            else:
                late_ms = int(change.get("late_ms", 0))
                stored = self.records.change(company, set_name, row_id, values, app=app, late_ms=late_ms, by_api=False)
            return self._reader.shown(company, entity_set, stored)

    @staticmethod
    def _existing(rows: dict[str, Stored], row_id: Any) -> str:
        if row_id not in rows:
            raise ErpError(404, "BadRequest_ResourceNotFound", "The record does not exist.")
        return str(row_id)

    def add_company(self, name: str, *, display_name: str | None, currency: str | None, app: str) -> Values:
        """A company beside the others, set up like the first."""
        self.records.begin()
        with self.store.transaction():
            return add_company(self.records, name=name, display_name=display_name or name, currency=currency, app=app)

    def truth(self, set_name: str, *, company: str | None = None) -> list[Values]:
        """Every row of a set, of one company or of every one, as the API would show it."""
        if set_name not in self._sets:
            raise ErpError(404, "BadRequest_ResourceNotFound", f"There is no set '{set_name}'.")
        self.records.begin()
        entity_set = self._sets[set_name]
        companies = [self._company_by_id(company)] if company else self.records.companies()
        rows: list[Values] = []
        for company_id in (each["id"] for each in companies):
            stored_rows = self.records.candidates(company_id, entity_set)
            rows.extend(self._reader.shown(company_id, entity_set, stored) for stored in stored_rows)
        return rows

    # ------------------------------------------------------------ shapes

    @staticmethod
    def _ok(body: Values, status: int = 200) -> Reply:
        return Reply(status, to_json(body), {"Content-Type": _JSON, "OData-Version": "4.0"})

    def _unauthenticated(self, status: int) -> Reply:
        headers = {"WWW-Authenticate": "Bearer"} if self._switches["erp_challenge_header"] else {}
        text = "The server has rejected the client credentials."
        return self._error(ErpError(status, "Authentication_InvalidCredentials", text, headers=headers))

    def _error(self, error: ErpError) -> Reply:
        correlation = str(uuid.uuid4())
        text = f"{error.message}  CorrelationId:  {correlation}."
        return Reply(
            self._switches.status(error.code, error.status),
            to_json({"error": {"code": error.code, "message": text}}),
            {"Content-Type": _JSON, "OData-Version": "4.0", "request-id": correlation, **error.headers},
        )


def _bytes(content: bytes) -> Reply:
    headers = {"Content-Type": "application/octet-stream", "OData-Version": "4.0"}
    return Reply(200, content, headers) if content else Reply(204, b"", {"OData-Version": "4.0"})


def _must_be_binary(request: Request) -> None:
    given = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    if given == "application/json":
        raise ErpError(400, "BadRequest", "A stream is written with the content type 'application/octet-stream'.")


def _column(entity_set: EntitySet, name: str) -> Column:
    column = entity_set.columns.get(name)
    if column is None:
        raise ErpError(400, "BadRequest", f"The property '{name}' does not exist.")
    return column


def _given(company: str | None) -> str:
    if company is None:
        raise ErpError(404, "Internal_CompanyNotFound", "Cannot find the company.")
    return company
