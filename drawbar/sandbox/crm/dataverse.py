"""A Dataverse: Web API 9.2 over the rows of a store. The way of a request, from the server to what answers it.

A request is one transaction. `handle` finds out who asks (`security`) and what (`call`), and its address leads
to what the service tells of itself (`about`), a message (`asking`), lists (`lists`, `changes`), a row
(`rows`, `writing`), what is behind it (`parts`) or many rows at once (`bulk`, `batch_run`).
Tables are data (`model`); what the platform does to every row is written once, in `records`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import replace

from drawbar.sandbox.crm.about import About
from drawbar.sandbox.crm.actions import CrmActions
from drawbar.sandbox.crm.addresses import LONGEST, at_present_version, check_length, in_version
from drawbar.sandbox.crm.asking import Asking
from drawbar.sandbox.crm.batch_run import BatchRun
from drawbar.sandbox.crm.bulk import write_many
from drawbar.sandbox.crm.bulk_delete import BulkDelete
from drawbar.sandbox.crm.call import Call
from drawbar.sandbox.crm.catalog import CATALOG_RULES
from drawbar.sandbox.crm.changes import Changes
from drawbar.sandbox.crm.conditions import NAMESPACE, with_caller
from drawbar.sandbox.crm.discounts import DISCOUNT_RULES
from drawbar.sandbox.crm.duplicates import DUPLICATE_RULES, Duplicates, duplicate_check
from drawbar.sandbox.crm.errors import error_reply, refusal, throttled
from drawbar.sandbox.crm.functions import OF_THE_SERVICE
from drawbar.sandbox.crm.job_rules import JobRules
from drawbar.sandbox.crm.keys import missing
from drawbar.sandbox.crm.lists import Lists
from drawbar.sandbox.crm.messages import Message
from drawbar.sandbox.crm.model import CrmError, Entity, no_method, no_resource
from drawbar.sandbox.crm.organization import ORGANIZATION_RULES
from drawbar.sandbox.crm.parts import Parts
from drawbar.sandbox.crm.reading import CrmReader
from drawbar.sandbox.crm.records import PATH, VERSIONED, CrmRecords, Terms
from drawbar.sandbox.crm.reply import applied, numbered
from drawbar.sandbox.crm.roles import ROLE_RULES, RoleMessages
from drawbar.sandbox.crm.rows import Rows
from drawbar.sandbox.crm.sales import SALES_RULES
from drawbar.sandbox.crm.security import Security
from drawbar.sandbox.crm.sharing import Sharing
from drawbar.sandbox.crm.steps import STEP_RULES
from drawbar.sandbox.crm.webhooks import CrmWebhooks
from drawbar.sandbox.crm.writing import Writer
from drawbar.sandbox.grants import Grants
from drawbar.sandbox.limits import Refusal
from drawbar.sandbox.odata import GUID, QueryError, Segment, parse_options, parse_path
from drawbar.sandbox.sign_in import SignIn
from drawbar.sandbox.store import Store, Values
from drawbar.sandbox.switches import Switches
from drawbar.sandbox.wire import Reply, Request

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
        self._security = Security(self.records, grants)
        messages: Mapping[str, Message] = {
            **RoleMessages(self.records, self._security).messages,
            **BulkDelete(self.records, webhooks.jobs).messages,
            **Duplicates(self.records, webhooks.jobs).messages,
            **Sharing(self.records).messages,
            **OF_THE_SERVICE,
        }
        self._about = About(self.records, self.base_url)
        self._asking = Asking(self.records, self.base_url, CrmActions(self.records), messages)
        self._changes = Changes(self.records, self.base_url)
        self._lists = Lists(self.records, self.base_url, self._changes)
        self._rows = Rows(self.records, self.base_url)
        self._writer = Writer(self.records, self.base_url, self._rows)
        self._parts = Parts(self.records, self.base_url, self._rows, self._lists, self._writer)

    # ------------------------------------------------------------ as a service

    def caller(self, request: Request) -> str | None:
        return self._sign_in.admitted(request, self.origin)

    def target(self, request: Request) -> str:
        return VERSIONED.sub("", request.path).strip("/").partition("/")[0].partition("(")[0]

    def weight(self, request: Request) -> int:  # noqa: ARG002
        return 1

    def refused(self, request: Request, refusal: Refusal) -> Reply:  # noqa: ARG002
        return numbered(error_reply(throttled(refusal), self._switches))

    def failed(self, request: Request) -> Reply:  # noqa: ARG002
        return numbered(error_reply(CrmError(500, "0x80040216", "An unexpected error occurred."), self._switches))

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

    def _refusal(self, error: CrmError | QueryError | ValueError, request: Request) -> Reply:
        return refusal(error, self._switches, request)

    # ------------------------------------------------------------ who asks, and on what terms

    def _dispatch(self, request: Request, app: str) -> Reply:
        if request.method == "GET":
            check_length(len(request.path) + len(request.query), LONGEST)
        if not request.path.startswith(PATH):
            raise CrmError(404, "0x80060888", "Resource not found for the given address.")
        user_id = self.store.table("systemuser").index("applicationid").get(app)
        if user_id is None or not self._grants.is_member("crm", app):
            raise CrmError(403, "0x80072560", "The user is not a member of the organization.")
        call = self._call(request, user_id)
        segments = parse_path(request.path[len(PATH) :])
        if segments == [Segment("$batch", None)]:
            return self._batch(request, user_id)
        return self._carry_out(call, segments)

    def _batch(self, request: Request, user_id: str) -> Reply:
        def carry_out(one: Request) -> Reply:
            return self._carry_out(self._call(one, user_id), parse_path(one.path[len(PATH) :]))

        return BatchRun(request, self.store, self.base_url, carry_out=carry_out, refusal=self._refusal).answer()

    def _call(self, request: Request, user_id: str) -> Call:
        caller = self._security.caller(user_id, request.headers)
        reader = self._reader if caller.unrestricted else CrmReader(self.records, self.base_url, caller.sees)
        options = with_caller(parse_options(request.query), caller.user)
        return Call(request, caller, self.store, reader, options, request.preferences())

    def _carry_out(self, call: Call, segments: list[Segment]) -> Reply:
        """One operation, by itself or in a batch."""
        if call.request.method == "GET":
            return applied(call.preferences, self._route(call, segments))
        terms = self._security.terms(call.caller, call.request.headers, call.options)
        if call.request.headers.get("mscrm.suppressduplicatedetection", "").lower() == "false":
            terms = replace(terms, checks=(*terms.checks, duplicate_check(self.records)), detects_duplicates=True)
        with self.records.on(terms):
            return applied(call.preferences, self._route(call, segments))

    # ------------------------------------------------------------ where an address leads

    def _route(self, call: Call, segments: list[Segment]) -> Reply:
        told = self._about.answer(call, segments)
        if told is not None:
            return told
        first = segments[0]
        if len(segments) == 1 and self._asking.knows(first):
            return self._asking.of_service(call, first)
        entity = self.records.by_set.get(first.name)
        if entity is None:
            raise no_resource(first.name)
        if first.key is None:
            return self._on_table(call, entity, segments[1:])
        return self._on_row(call, entity, first.key, segments[1:])

    def _on_table(self, call: Call, entity: Entity, rest: list[Segment]) -> Reply:
        method = call.request.method
        if len(rest) == 1 and rest[0].name == "$count":
            return self._lists.count(call, entity)
        if len(rest) == 1 and rest[0].name.startswith(NAMESPACE) and method == "POST":
            return write_many(call, self.records, self.base_url, entity, rest[0].name.removeprefix(NAMESPACE))
        if rest:
            raise no_resource(rest[0].name)
        match method:
            case "GET":
                return self._lists.rows(call, entity)
            case "POST":
                return self._writer.create(call, entity, call.body(entity))
            case _:
                raise no_method(method, "on a set")

    def _on_row(self, call: Call, entity: Entity, key: str, rest: list[Segment]) -> Reply:
        method = call.request.method
        located = self.records.locate(entity, key)
        if method == "PATCH" and not rest:
            return self._writer.patch(call, entity, located)
        row_id = located.row_id
        if row_id is None:
            raise missing(entity)
        if len(rest) == 1 and rest[0].name.startswith(NAMESPACE):
            return self._asking.of_row(call, entity, row_id, rest[0])
        if rest:
            return self._parts.answer(call, entity, row_id, rest)
        match method:
            case "GET":
                return self._rows.read(call, entity, row_id)
            case "DELETE":
                return self._writer.delete(call, entity, row_id)
            case _:
                raise no_method(method, "on a record")

    # ------------------------------------------------------------ the control endpoint's way in

    def expire_delta_links(self) -> None:
        self._changes.expire_links()

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
