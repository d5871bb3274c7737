"""Answers in the form that both services give them: a body or none. Pure."""

from __future__ import annotations

from drawbar.sandbox.store import Values
from drawbar.sandbox.wire import Reply, to_json

JSON = "application/json; odata.metadata=minimal"


def ok(body: Values, status: int = 200) -> Reply:
    return Reply(status, to_json(body), {"Content-Type": JSON, "OData-Version": "4.0"})


def nothing() -> Reply:
    """It is done, and there is nothing to tell."""
    return Reply(204, b"", {"OData-Version": "4.0"})


def plain(text: str) -> Reply:
    return Reply(200, text.encode(), {"Content-Type": "text/plain", "OData-Version": "4.0"})


def xml(content: bytes) -> Reply:
    """What `$metadata` is answered with."""
    return Reply(200, content, {"Content-Type": "application/xml", "OData-Version": "4.0"})


def octets(content: bytes) -> Reply:
    """What a stream has; 204 where that is nothing."""
    headers = {"Content-Type": "application/octet-stream", "OData-Version": "4.0"}
    return Reply(200, content, headers) if content else nothing()
