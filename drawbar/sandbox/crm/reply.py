"""What Dataverse's answers say in their headers.

Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/compose-http-requests-handle-errors
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from drawbar.sandbox.wire import Reply


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


def numbered(reply: Reply) -> Reply:
    """The service's own number of a request, under the two names it has."""
    whole = os.urandom(16).hex()
    number = f"{whole[:8]}-{whole[8:12]}-4{whole[13:16]}-a{whole[17:20]}-{whole[20:]}"
    reply.headers["REQ_ID"] = reply.headers["x-ms-service-request-id"] = number
    return reply
