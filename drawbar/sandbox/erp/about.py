"""What a Business Central tells of itself: its sets, its metadata, what things are called, and its companies."""

from __future__ import annotations

from drawbar.sandbox.erp.addresses import company_by_key
from drawbar.sandbox.erp.call import Api, Call
from drawbar.sandbox.erp.companies import COMPANIES, listed
from drawbar.sandbox.erp.definitions import asked, definitions
from drawbar.sandbox.erp.metadata import csdl
from drawbar.sandbox.erp.model import no_method, not_allowed
from drawbar.sandbox.erp.posting import ACTIONS
from drawbar.sandbox.erp.records import ErpRecords
from drawbar.sandbox.odata import Segment
from drawbar.sandbox.odata_reply import ok, plain, xml
from drawbar.sandbox.wire import Reply

_COUNT = [Segment("$count", None)]


def tell(records: ErpRecords, call: Call, segments: list[Segment]) -> Reply | None:
    """None where an address is about something else."""
    is_read = call.request.method == "GET"
    if not segments:
        if not is_read:
            raise no_method(call.request.method, "here")
        return _service_document(call.api)
    first, rest = segments[0], segments[1:]
    if first == Segment("entityDefinitions", None) and not rest:
        if not is_read:
            raise not_allowed(call.request.method)
        defined = definitions((COMPANIES, *call.api.sets.values()), _actions(call.api))
        return ok(
            {"@odata.context": f"{call.api.url}/$metadata#entityDefinitions", "value": asked(defined, call.options)}
        )
    if first == Segment("$metadata", None) and not rest:
        if not is_read:
            raise no_method(call.request.method, "here")
        return xml(csdl(COMPANIES, call.api.sets, _actions(call.api)))
    if first.name == "companies" and rest in ([], _COUNT):
        return _companies(records, call, first.key, counted=bool(rest))
    return None


def _actions(api: Api) -> list[tuple[str, str]]:
    """Set and name of each bound action."""
    return [(set_name, action) for set_name, action in ACTIONS if set_name in api.sets]


def _service_document(api: Api) -> Reply:
    names = ["entityDefinitions", "companies", "subscriptions", *api.sets]
    return ok(
        {
            "@odata.context": f"{api.url}/$metadata",
            "value": [{"name": name, "kind": "EntitySet", "url": name} for name in names],
        }
    )


def _companies(records: ErpRecords, call: Call, key: str | None, *, counted: bool) -> Reply:
    if call.request.method != "GET":
        raise not_allowed(call.request.method)
    context = f"{call.api.url}/$metadata#companies"
    if key is not None:
        (company,), _ = listed([company_by_key(records, key)], {"$select": call.options.get("$select", "")})
        return ok({"@odata.context": f"{context}/$entity", **company})
    rows, total = listed(records.companies(), call.options)
    if counted:
        return plain(str(total))
    count = {"@odata.count": total} if call.options.get("$count") == "true" else {}
    return ok({"@odata.context": context, **count, "value": rows})
