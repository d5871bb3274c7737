"""Dataverse's addresses: how long they may be, and those of earlier versions of its Web API. Pure.

Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/compose-http-requests-handle-errors
"""

from __future__ import annotations

import re
from dataclasses import replace

from drawbar.sandbox.crm.model import CrmError
from drawbar.sandbox.crm.records import PATH
from drawbar.sandbox.wire import Reply, Request

LONGEST, LONGEST_IN_BATCH = 32_768, 65_536  # characters
_EARLIER = re.compile(r"/api/data/v9\.[01](?=/|\Z)")


def check_length(length: int, limit: int) -> None:
    if length > limit:
        raise CrmError(414, "0x80060888", f"The address has {length} characters; here it has up to {limit}.")


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
