"""How Dataverse says that it refuses, or failed: errors to answers. Pure.

Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/compose-http-requests-handle-errors
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from drawbar.sandbox.crm.model import CrmError
from drawbar.sandbox.crm.reading import wanted_annotations
from drawbar.sandbox.limits import Refusal
from drawbar.sandbox.odata import QueryError
from drawbar.sandbox.odata_reply import JSON
from drawbar.sandbox.switches import Switches
from drawbar.sandbox.wire import Reply, Request, to_json

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


def throttled(refusal: Refusal) -> CrmError:
    code, text = _THROTTLED[refusal.facet]
    return CrmError(429, code, text.format(refusal.limit), headers={"Retry-After": str(refusal.retry_after_s)})


def error_reply(error: CrmError, switches: Switches, details: Mapping[str, str] | None = None) -> Reply:
    status = switches.status(error.code, error.status)
    code = _shown_code(error.code, status, switches)
    return Reply(
        status,
        to_json({"error": {"code": code, "message": error.message, **(details or {})}}),
        {"Content-Type": JSON, "OData-Version": "4.0", **error.headers},
    )


def refusal(error: CrmError | QueryError | ValueError, switches: Switches, request: Request) -> Reply:
    """What came of a request that was read and not carried out, with the annotations that it asked for."""
    known = error if isinstance(error, CrmError) else CrmError(400, "0x80060888", str(error))
    return error_reply(known, switches, _details(known, wanted_annotations(request.preferences())))


def _shown_code(code: str, status: int, switches: Switches) -> str:
    empty = switches["crm_error_code_empty"]
    if empty == "always" or (empty == "conditional" and status == 412):
        return ""
    is_unknown = (status, code) == (404, "0x80060888")
    return str(switches["crm_unknown_resource_code"]) if is_unknown else code


def _details(error: CrmError, included: Callable[[str], bool]) -> dict[str, str]:
    """What an error says besides code and message when annotations are asked for."""
    details = {
        "ErrorDetails.OperationStatus": "0",
        "ErrorDetails.SubErrorCode": "2146233088",  # of any exception that says nothing else
        "HelpLink": "http://go.microsoft.com/fwlink/?LinkID=398563&error=Microsoft.Crm.CrmException%3a"
        f"{error.code.removeprefix('0x')}&client=platform",
        "TraceText": "",  # no plug-in has written any
        "InnerError.Message": error.message,
    }
    prefix = "Microsoft.PowerApps.CDS."
    return {f"@{prefix}{name}": text for name, text in details.items() if included(prefix + name)}
