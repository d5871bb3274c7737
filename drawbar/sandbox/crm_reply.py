"""What Dataverse's answers say in their headers, and the addresses of earlier versions of its Web API. Pure.

Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/compose-http-requests-handle-errors
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from drawbar.sandbox.crm_model import CrmError
from drawbar.sandbox.crm_records import PATH
from drawbar.sandbox.wire import NOT_JSON, Reply, Request

_EARLIER = re.compile(r"/api/data/v9\.[01](?=/|\Z)")


def prefer(reply: Reply, preference: str) -> None:
    """Say that a preference was followed."""
    said = reply.headers.get("Preference-Applied")
    reply.headers["Preference-Applied"] = f"{said},{preference}" if said else preference


def applied(preferences: Mapping[str, str], reply: Reply) -> Reply:
    """Annotations are in whatever has rows or columns."""
    wanted = preferences.get("odata.include-annotations")
    if wanted and reply.status in (200, 201) and reply.headers.get("Content-Type", "").startswith("application/json"):
        prefer(reply, f'odata.include-annotations="{wanted}"')
    return reply


def error_details(error: CrmError, included: Callable[[str], bool]) -> dict[str, str]:
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


def must_be_json(request: Request) -> None:
    """Raises CrmError for a body that is not said to be JSON."""
    if request.body and not request.is_said_to_be_json():
        raise CrmError(415, "0x80060888", NOT_JSON)


def numbered(reply: Reply) -> Reply:
    """The service's own number of a request, under the two names it has."""
    whole = os.urandom(16).hex()
    number = f"{whole[:8]}-{whole[8:12]}-4{whole[13:16]}-a{whole[17:20]}-{whole[20:]}"
    reply.headers["REQ_ID"] = reply.headers["x-ms-service-request-id"] = number
    return reply


def at_present_version(request: Request) -> Request:
    """The same request under the address of the present version; the service has but one."""
    if request.path.startswith(PATH):
        return request
    match = _EARLIER.match(request.path)
    return replace(request, path=PATH + request.path[match.end() :]) if match else request


def in_version(reply: Reply, asked: Request, origin: str) -> Reply:
    """An answer whose addresses are of the version that was asked."""
    match = None if asked.path.startswith(PATH) else _EARLIER.match(asked.path)
    if match is None:
        return reply
    here, there = origin + PATH, origin + match.group(0)
    reply.headers = {name: value.replace(here, there) for name, value in reply.headers.items()}
    reply.body = reply.body.replace(here.encode(), there.encode())
    return reply
