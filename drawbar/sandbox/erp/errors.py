"""How Business Central says that it refuses, or failed: errors to answers."""

from __future__ import annotations

import uuid

from drawbar.sandbox.erp.model import ErpError
from drawbar.sandbox.limits import Refusal
from drawbar.sandbox.odata import QueryError
from drawbar.sandbox.odata_reply import JSON
from drawbar.sandbox.switches import Switches
from drawbar.sandbox.wire import Reply, to_json


def error_reply(error: ErpError | QueryError, switches: Switches) -> Reply:
    """Each has a number of its own, by which the service would find it in its log."""
    known = error if isinstance(error, ErpError) else ErpError(400, "BadRequest", str(error))
    correlation = str(uuid.uuid4())
    text = f"{known.message}  CorrelationId:  {correlation}."
    return Reply(
        switches.status(known.code, known.status),
        to_json({"error": {"code": known.code, "message": text}}),
        {"Content-Type": JSON, "OData-Version": "4.0", "request-id": correlation, **known.headers},
    )


def unauthenticated(status: int, switches: Switches) -> ErpError:
    headers = {"WWW-Authenticate": "Bearer"} if switches["erp_challenge_header"] else {}
    text = "The server has rejected the client credentials."
    return ErpError(status, "Authentication_InvalidCredentials", text, headers=headers)


def throttled(refusal: Refusal, switches: Switches) -> ErpError:
    after = {"Retry-After": str(refusal.retry_after_s)}
    if refusal.facet == "time":
        text = "The request waited too long for its turn."
        return ErpError(503, "Application_ServiceUnavailable", text, headers=after)
    text = f"Too many requests reached. Actual ({refusal.limit + 1}). Maximum ({refusal.limit})."
    is_told = switches["erp_retry_after_on_429"] == "seconds"
    return ErpError(429, switches["erp_429_code"], text, headers=after if is_told else {})
