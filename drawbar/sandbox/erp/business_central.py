"""A Business Central: API v2.0 over the rows of a store. The way of a request, from the server to what answers it.

A request is one transaction. Who asks and what is a `call`, by what address in `addresses`; it leads to what
the service tells of itself (`about`), lists (`lists`), an entity (`entities`, `writing`), its actions
(`actions`), what hangs on it (`part_requests`), `subscriptions` or a batch (`batch_run`). How rows are
written is in `records`, what the application does for single sets in `rules`, what there is in `model`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from drawbar.sandbox.erp.about import tell
from drawbar.sandbox.erp.access import Caller
from drawbar.sandbox.erp.actions import NAMESPACE, act
from drawbar.sandbox.erp.addresses import company_asked, company_by_key, row_id_of, row_of
from drawbar.sandbox.erp.batch import operations
from drawbar.sandbox.erp.batch_run import BatchRun
from drawbar.sandbox.erp.call import Api, Call
from drawbar.sandbox.erp.companies import add_company
from drawbar.sandbox.erp.entities import Entities
from drawbar.sandbox.erp.errors import error_reply, throttled, unauthenticated
from drawbar.sandbox.erp.lists import Lists
from drawbar.sandbox.erp.model import (
    AUTOMATION,
    CUSTOM,
    RUNTIME,
    STANDARD,
    Column,
    EntitySet,
    ErpError,
    no_method,
    no_resource,
    refusal,
    to_stored,
)
from drawbar.sandbox.erp.part_requests import PartRequests
from drawbar.sandbox.erp.reading import ErpReader, Within
from drawbar.sandbox.erp.records import ErpRecords
from drawbar.sandbox.erp.rules import RULES
from drawbar.sandbox.erp.subscriptions import Subscriptions
from drawbar.sandbox.erp.webhooks import ErpWebhooks
from drawbar.sandbox.erp.writing import Writer
from drawbar.sandbox.grants import Grants
from drawbar.sandbox.limits import Refusal
from drawbar.sandbox.odata import QueryError, Segment, parse_options, parse_path
from drawbar.sandbox.sign_in import SignIn
from drawbar.sandbox.store import Store, Stored, Values
from drawbar.sandbox.switches import Switches
from drawbar.sandbox.wire import Reply, Request

AUDIENCE = "https://api.businesscentral.dynamics.com"
LONGEST_BODY = 350 * 1024 * 1024  # bytes


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
            Api(
                route=route,
                path=f"/v2.0/{sign_in.tenant_id}/{environment}/api/{route}",
                short_path=f"/v2.0/{environment}/api/{route}",
                origin=origin,
                sets={name: entity_set for name, entity_set in self._sets.items() if entity_set.route == route},
            )
            for route in (STANDARD, CUSTOM, RUNTIME, AUTOMATION)
        ]
        self.base_url = self._apis[0].url
        self._reader = ErpReader(self.records, self.base_url)
        self._lists = Lists(store, self._reader, switches)
        self._entities = Entities(self.records, self._reader)
        self._writer = Writer(self.records, self._entities)
        self._part_requests = PartRequests(self.records, self._entities)
        self._subscriptions = Subscriptions(store, webhooks, switches)

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
        return error_reply(throttled(refusal, self._switches), self._switches)

    def too_long(self) -> Reply:
        return error_reply(ErpError(413, "BadRequest", "The request body is too large."), self._switches)

    def failed(self, request: Request) -> Reply:  # noqa: ARG002
        error = ErpError(500, "Internal_ServerError", "An unexpected error occurred.")
        return error_reply(error, self._switches)

    def handle(self, request: Request) -> Reply | Awaitable[Reply]:
        return self.answered(request, self._dispatch)

    def answered(
        self, request: Request, answer_to: Callable[[Request, str], Reply | Awaitable[Reply]]
    ) -> Reply | Awaitable[Reply]:
        """What is answered to a caller who is known here, or the error that came of it."""
        try:
            if request.app is None:
                raise unauthenticated(401, self._switches)
            if not self._grants.is_member("erp", request.app):
                raise unauthenticated(self._switches["erp_unknown_application_status"], self._switches)
            return answer_to(request, request.app)
        except (ErpError, QueryError) as error:
            return error_reply(error, self._switches)

    def weight(self, request: Request) -> int:
        """How many requests this one counts for against the rate limit."""
        if self._switches["erp_batch_counts"] == "once" or self.target(request) != "$batch":
            return 1
        try:
            return max(1, sum(map(len, operations(request, too_long_status=500))))
        except ErpError:
            return 1

    def serves(self, path: str) -> bool:
        """Whether a path leads into this environment."""
        return self._found(path)[0] is not None

    def _found(self, path: str) -> tuple[Api | None, str]:
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
        _must_be_taken(request)
        segments = parse_path(below)
        call = Call(request, api, Caller(app, self._grants, self._sets), parse_options(request.query))
        if segments and segments[0].name == "subscriptions":
            return self._subscriptions.answer(call, segments)
        self.records.begin()
        if segments == [Segment("$batch", None)]:
            return self._batch(call)
        with self.store.transaction():
            return self._route(call, segments)

    def _batch(self, outer: Call) -> Reply:
        def carry_out(request: Request, path: str) -> Reply:
            _must_be_taken(request)
            call = Call(request, outer.api, outer.caller, parse_options(request.query))
            return self._route(call, parse_path(path))

        return BatchRun(outer.request, outer.api, self.records, carry_out).answer()

    # ------------------------------------------------------------ where an address leads

    def _route(self, call: Call, segments: list[Segment]) -> Reply:
        """One operation, by itself or in a batch."""
        told = tell(self.records, call, segments)
        if told is not None:
            return told
        first = segments[0]
        if first.name == "companies":
            if first.key is None:
                raise no_resource("companies")
            call.company = company_by_key(self.records, first.key)["id"]
            segments = segments[1:]
        else:
            call.company = company_asked(self.records, call)
        entity_set = call.api.sets.get(segments[0].name)
        if entity_set is None:
            raise no_resource(segments[0].name)
        return self._in_set(call, entity_set, segments[0].key, segments[1:])

    def _in_set(self, call: Call, entity_set: EntitySet, key: str | None, rest: list[Segment]) -> Reply:
        if entity_set.part:
            raise refusal(entity_set.unfiltered)
        if key is None:
            return self._on_set(call, entity_set, rest)
        row_id = row_id_of(key, self._switches)
        if rest:
            return self._below(call, entity_set, row_id, rest)
        match call.request.method:
            case "GET":
                return self._entities.read(call, entity_set, row_id)
            case "PATCH":
                return self._writer.update(call, entity_set, row_id)
            case "DELETE":
                return self._writer.delete(call, entity_set, row_id)
            case method:
                raise no_method(method, "on an entity")

    def _on_set(self, call: Call, entity_set: EntitySet, rest: list[Segment]) -> Reply:
        if len(rest) == 1 and rest[0].name == "$count":
            return self._lists.count(call, entity_set)
        if rest:
            raise ErpError(404, "BadRequest_ResourceNotFound", "Resource not found for the address.")
        match call.request.method:
            case "GET":
                return self._lists.rows(call, entity_set)
            case "POST":
                return self._writer.create(call, entity_set)
            case method:
                raise no_method(method, "on a set")

    def _below(self, call: Call, entity_set: EntitySet, row_id: str, rest: list[Segment]) -> Reply:
        """What the address of an entity leads on to: a collection, or one entity or property."""
        name = rest[0].name
        if name in entity_set.collections:
            return self._in_collection(call, entity_set, row_id, rest)
        if name.startswith(NAMESPACE) and len(rest) == 1:
            return act(self.records, call, entity_set, row_id, name.removeprefix(NAMESPACE))
        if name in entity_set.parts:
            part_set = self._sets[entity_set.parts[name]]
            return self._part_requests.answer(call, entity_set, row_id, part_set, rest)
        column = entity_set.columns.get(name)
        if column is not None and column.type == "Stream" and len(rest) == 1:
            return self._part_requests.stream(call, entity_set, row_id, column)
        if call.request.method != "GET" or len(rest) > 1:
            raise no_method(call.request.method, "here")
        return self._entities.property(call, entity_set, row_id, name)

    def _in_collection(self, call: Call, parent_set: EntitySet, parent_id: str, rest: list[Segment]) -> Reply:
        """The part of a set that belongs to one entity, and its entities."""
        method, name, key = call.request.method, rest[0].name, rest[0].key
        set_name, column = parent_set.collections[name]
        children = self._sets[set_name]
        call.caller.demand(parent_set, "read")
        row_of(self.records, call.company, parent_set, parent_id)
        if children.part and (method != "GET" or key is not None):
            return self._part_requests.answer(call, parent_set, parent_id, children, rest)
        if key is not None:
            found = row_of(self.records, call.company, children, row_id_of(key, self._switches))
            if found.values[column] != parent_id:
                raise ErpError(404, "BadRequest_ResourceNotFound", "The entity does not belong to this one.")
            return self._in_set(call, children, key, rest[1:])
        within = Within(column, parent_id, f"{parent_set.name}({parent_id})/{name}")
        if method == "POST" and len(rest) == 1:
            return self._writer.create(call, children, {column: parent_id})
        if method == "GET" and len(rest) == 1:
            return self._lists.rows(call, children, within)
        if method == "GET" and rest[1].name == "$count":
            return self._lists.count(call, children, within)
        raise no_method(method, "here")

    # ------------------------------------------------------------ the control endpoint's way in

    def edit(self, change: Values, *, app: str) -> Values:
        """One edit by an application outside the API: `set`, and `id` or `key`, and `values` or `delete`."""
        self.records.begin()
        given = change.get("company")
        company = str((company_by_key(self.records, str(given)) if given else self.records.companies()[0])["id"])
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
        companies = [company_by_key(self.records, company)] if company else self.records.companies()
        rows: list[Values] = []
        for company_id in (each["id"] for each in companies):
            stored_rows = self.records.candidates(company_id, entity_set)
            rows.extend(self._reader.shown(company_id, entity_set, stored) for stored in stored_rows)
        return rows


def _must_be_taken(request: Request) -> None:
    """Raises ErpError for a verb that no address takes, or that writes though it is said to read."""
    if request.method == "PUT":
        raise ErpError(405, "BadRequest_MethodNotAllowed", "Method not allowed.")
    intent = request.headers.get("data-access-intent", "ReadWrite")
    if request.method != "GET" and intent.lower() != "readwrite":
        raise ErpError(400, "BadRequest", f"The data access intent '{intent}' is not valid for this method.")


def _column(entity_set: EntitySet, name: str) -> Column:
    column = entity_set.columns.get(name)
    if column is None:
        raise ErpError(400, "BadRequest", f"The property '{name}' does not exist.")
    return column
