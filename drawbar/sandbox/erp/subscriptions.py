"""Business Central's `subscriptions` as requests read and write them.

How they are told of changes is in `webhooks`.
Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/dynamics-subscriptions
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping

from drawbar.sandbox.erp.addresses import missing
from drawbar.sandbox.erp.call import Call
from drawbar.sandbox.erp.errors import error_reply
from drawbar.sandbox.erp.model import ErpError, no_method, no_resource
from drawbar.sandbox.erp.reading import must_be_known
from drawbar.sandbox.erp.webhooks import SOURCE, ErpWebhooks
from drawbar.sandbox.erp.writing import must_match
from drawbar.sandbox.grants import Operation
from drawbar.sandbox.odata import Segment, unquote_key
from drawbar.sandbox.odata_reply import nothing, ok
from drawbar.sandbox.store import Store, Stored, Values
from drawbar.sandbox.switches import Switches
from drawbar.sandbox.wire import Reply

_OPERATIONS: Mapping[str, Operation] = {"GET": "read", "POST": "create", "PATCH": "write", "DELETE": "delete"}


class Subscriptions:
    def __init__(self, store: Store, webhooks: ErpWebhooks, switches: Switches) -> None:
        self._table = store.table("subscriptions")
        self._webhooks = webhooks
        self._switches = switches

    def answer(self, call: Call, segments: list[Segment]) -> Reply | Awaitable[Reply]:
        """Awaitable where the address that is to be told must first be asked."""
        if len(segments) > 1:
            raise no_resource(segments[1].name)
        must_be_known(call.options, ())
        key = segments[0].key
        operation = _OPERATIONS.get(call.request.method)
        if operation is not None:
            call.caller.demand_table("subscriptions", operation, source=SOURCE)
        return self._on_set(call) if key is None else self._on_one(call, unquote_key(key))

    def _on_set(self, call: Call) -> Reply | Awaitable[Reply]:
        match call.request.method:
            case "GET":
                rows = [self._webhooks.shown(stored) for stored in self._table.rows.values()]
                return ok({"@odata.context": _context(call), "value": rows})
            case "POST":
                return self._subscribe(call, call.body(), None)
        raise no_method(call.request.method, "on a set")

    def _on_one(self, call: Call, subscription_id: str) -> Reply | Awaitable[Reply]:
        method = call.request.method
        stored = self._table.rows.get(subscription_id)
        if stored is None:
            raise missing(SOURCE, f"Subscription Id='{subscription_id}'", self._switches)
        if method == "GET":
            return ok({"@odata.context": f"{_context(call)}/$entity", **self._webhooks.shown(stored)})
        if method == "PATCH":
            must_match(call.request, stored, SOURCE, optional=False)
            return self._subscribe(call, {**stored.values, **call.body()}, stored)
        if method == "DELETE":
            must_match(call.request, stored, SOURCE, optional=self._switches["erp_delete_without_if_match"])
            self._webhooks.drop([subscription_id])
            return nothing()
        raise no_method(method, "on an entity")

    async def _subscribe(self, call: Call, body: Values, stored: Stored | None) -> Reply:
        try:
            kept = await self._webhooks.subscribe(body, stored, user=call.caller.app, route=call.api.route)
        except ErpError as error:
            return error_reply(error, self._switches)
        shown = {"@odata.context": f"{_context(call)}/$entity", **self._webhooks.shown(kept)}
        return ok(shown, 200 if stored else 201)


def _context(call: Call) -> str:
    return f"{call.api.url}/$metadata#subscriptions"
