"""Dataverse's actions and functions as addresses ask for them: what a request says to a message, and the answer to it.

What each message does is in `actions` (sales) and in the modules whose messages are put together in `dataverse`.
"""

from __future__ import annotations

from collections.abc import Mapping

from drawbar.sandbox.crm.actions import CrmActions, Made
from drawbar.sandbox.crm.call import Call
from drawbar.sandbox.crm.conditions import NAMESPACE
from drawbar.sandbox.crm.messages import Asked, Found, Message, function_parameters, message_named
from drawbar.sandbox.crm.model import Entity, no_method, no_resource
from drawbar.sandbox.crm.operations import BOUND
from drawbar.sandbox.crm.records import CrmRecords
from drawbar.sandbox.odata import Segment
from drawbar.sandbox.odata_reply import nothing, ok
from drawbar.sandbox.store import Values
from drawbar.sandbox.wire import Reply


class Asking:
    def __init__(
        self, records: CrmRecords, base_url: str, actions: CrmActions, messages: Mapping[str, Message]
    ) -> None:
        self._records = records
        self._base_url = base_url
        self._actions = actions
        self._messages = messages

    def knows(self, segment: Segment) -> bool:
        """Whether an address is that of an action or a function which is bound to nothing."""
        return self._is_action(segment) or segment.name in self._messages

    def of_service(self, call: Call, segment: Segment) -> Reply:
        return self._act(call, segment.name) if self._is_action(segment) else self._ask(call, segment)

    def of_row(self, call: Call, entity: Entity, row_id: str, segment: Segment) -> Reply:
        """What is bound to a row."""
        name = segment.name.removeprefix(NAMESPACE)
        if name not in BOUND or call.request.method != "POST":
            return self._ask(call, segment, entity, row_id)
        if not self._actions.is_bound_to(name, entity):
            raise no_resource(NAMESPACE + name)
        self._actions.run_on(name, entity, row_id, user=call.user, allow=call.allow)
        return nothing()

    def _is_action(self, segment: Segment) -> bool:
        return segment.key is None and self._actions.is_unbound(segment.name)

    def _act(self, call: Call, name: str) -> Reply:
        """An action that is bound to nothing; it answers with the row it makes, if it makes one."""
        if call.request.method != "POST":
            raise no_method(call.request.method, "on an action")
        made = self._actions.run(name, call.parameters(), user=call.user, allow=call.allow)
        return nothing() if made is None else self._made(call, made)

    def _ask(self, call: Call, segment: Segment, entity: Entity | None = None, row_id: str = "") -> Reply:
        """A message of `messages`, of the service or of one row."""
        name = segment.name.removeprefix(NAMESPACE)
        message = message_named(self._messages, name, entity, call.request.method, segment.key)
        parameters = function_parameters(segment.key, call.options) if message.is_function else call.parameters()
        answer = message.run(Asked(caller=call.caller, parameters=parameters, entity=entity, row_id=row_id))
        match answer:
            case None:
                return nothing()
            case Made():
                return self._made(call, answer)
            case Found():
                return ok(self._found(call, answer))
        return ok({"@odata.context": f"{self._base_url}/$metadata#{NAMESPACE}{name}Response", **answer})

    def _made(self, call: Call, made: Made) -> Reply:
        """The row that a message answers with."""
        shown = call.reader.shown(made.entity, made.row_id, self._records.find(made.entity, made.row_id))
        options = {} if made.columns is None else {"$select": ",".join(_wire_names(made.entity, made.columns))}
        row = call.reader.shape(made.entity, options, call.included)(shown)
        return ok({"@odata.context": f"{self._base_url}/$metadata#{made.entity.set}/$entity", **row})

    def _found(self, call: Call, found: Found) -> Values:
        """The rows that a message answers with."""
        entity, rows = found.entity, self._records.store.table(found.entity.logical).rows
        shape = call.reader.shape(entity, {}, call.included)
        listed = [shape(call.reader.shown(entity, row_id, rows[row_id])) for row_id in found.ids]
        return {"@odata.context": f"{self._base_url}/$metadata#{entity.set}", "value": listed}


def _wire_names(entity: Entity, columns: tuple[str, ...]) -> list[str]:
    return [entity.attributes[name].wire_name for name in columns] or [entity.id]
