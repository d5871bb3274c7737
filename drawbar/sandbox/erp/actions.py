"""Business Central's bound actions as addresses ask for them. What they do is in `posting`."""

from __future__ import annotations

from drawbar.sandbox.erp.addresses import row_of
from drawbar.sandbox.erp.call import Call
from drawbar.sandbox.erp.model import EntitySet, ErpError, no_method
from drawbar.sandbox.erp.posting import action_of
from drawbar.sandbox.erp.records import ErpRecords
from drawbar.sandbox.erp.writing import must_match
from drawbar.sandbox.odata_reply import nothing
from drawbar.sandbox.wire import Reply

NAMESPACE = "Microsoft.NAV."  # before the name of an action


def act(records: ErpRecords, call: Call, entity_set: EntitySet, row_id: str, name: str) -> Reply:
    """The reply tells where the document is that the action made."""
    switches = records.switches
    action = action_of(entity_set.name, name, any_case=switches["erp_action_names_any_case"])
    if action is None:
        status, code = switches["erp_unknown_action"].split()
        raise ErpError(int(status), code, f"No HTTP resource was found that matches '{name}'.")
    if call.request.method != "POST":
        raise no_method(call.request.method, "on an action")
    call.caller.demand(entity_set, "write")
    must_match(call.request, row_of(records, call.company, entity_set, row_id), entity_set.source, optional=True)
    made = action(records, call.company, row_id, call.caller.app)
    reply = nothing()
    if made is not None and switches["erp_action_location_header"]:
        reply.headers["Location"] = f"{call.api.url}/companies({call.company})/{made[0]}({made[1]})"
    return reply
