"""Business Central's batches: bodies to operations, and replies to bodies. Pure.

JSON is what the product recommends; multipart, with change sets, is taken as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drawbar.sandbox.erp.model import ErpError
from drawbar.sandbox.multipart import BatchOperation, ChangeSet, NamedReply, format_batch, parse_batch
from drawbar.sandbox.odata import QueryError
from drawbar.sandbox.store import Values
from drawbar.sandbox.wire import NOT_JSON, Reply, Request, from_json, to_json

MOST = 100  # operations of a batch


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """One request of a batch. `id` is echoed as it was given."""

    id: Any
    method: str
    url: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    in_change_set: bool = False
    is_grouped: bool = False  # says that it belongs to others, or comes after them (OData 4.01)

    @property
    def lacks_content_type(self) -> bool:
        """A body says in its own part what it is."""
        return bool(self.body) and "content-type" not in self.headers


def is_multipart(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/mixed")


def operations(request: Request, *, too_long_status: int) -> list[list[BatchRequest]]:
    """Groups of operations: those of a change set happen together or not at all, others are alone."""
    groups = _of_parts(request) if is_multipart(request) else _of_json(request)
    if sum(map(len, groups)) > MOST:
        raise ErpError(too_long_status, "Internal_ServerError", f"The batch exceeds the maximum of {MOST} operations.")
    return groups


def _of_json(request: Request) -> list[list[BatchRequest]]:
    if request.body and not request.is_said_to_be_json():
        raise ErpError(415, "BadRequest", NOT_JSON)
    try:
        body = from_json(request.body or b"{}")
    except ValueError as error:
        raise ErpError(400, "BadRequest", "The payload is not valid JSON.") from error
    requests = body.get("requests") if isinstance(body, dict) else None
    if not isinstance(requests, list):
        raise ErpError(400, "BadRequest", "The batch has no list of requests.")
    return [[_operation(part)] for part in requests]


def _operation(given: Any) -> BatchRequest:
    """Raises ErpError for what says no method or no address."""
    if not isinstance(given, dict) or not all(isinstance(given.get(name), str) for name in ("method", "url")):
        raise ErpError(400, "BadRequest", "A request of the batch lacks 'method' or 'url'.")
    own = given.get("headers")
    return BatchRequest(
        id=given.get("id"),
        method=given["method"].upper(),
        url=given["url"],
        headers={str(name).lower(): str(value) for name, value in (own if isinstance(own, dict) else {}).items()},
        body=to_json(given["body"]) if "body" in given else b"",
        is_grouped=bool({"atomicityGroup", "dependsOn"} & set(given)),
    )


def _of_parts(request: Request) -> list[list[BatchRequest]]:
    try:
        items = parse_batch(request.headers["content-type"], request.body)
    except QueryError as error:
        raise ErpError(400, "BadRequest", str(error)) from error
    return [
        [_from_part(part, in_change_set=True) for part in item.operations]
        if isinstance(item, ChangeSet)
        else [_from_part(item, in_change_set=False)]
        for item in items
    ]


def _from_part(part: BatchOperation, *, in_change_set: bool) -> BatchRequest:
    return BatchRequest(
        id=part.content_id,
        method=part.method,
        url=part.target,
        headers=part.headers,
        body=part.body,
        in_change_set=in_change_set,
    )


def answer(request: Request, replies: list[list[tuple[BatchRequest, Reply]]]) -> Reply | Values:
    """The whole of a batch in the format it came in: a reply, or the body of one."""
    if is_multipart(request):
        return format_batch([_part(group) for group in replies], status=200)
    return {"responses": [_response(operation, reply) for group in replies for operation, reply in group]}


def _part(group: list[tuple[BatchRequest, Reply]]) -> NamedReply | list[NamedReply]:
    named: list[NamedReply] = [(operation.id, reply) for operation, reply in group]
    return named if group[0][0].in_change_set else named[0]


def _response(operation: BatchRequest, reply: Reply) -> Values:
    response: Values = {
        "id": operation.id,
        "status": reply.status,
        "headers": {name.lower(): value for name, value in reply.headers.items()},
    }
    if reply.body:
        is_json = reply.headers.get("Content-Type", "").startswith("application/json")
        response["body"] = json.loads(reply.body) if is_json else reply.body.decode("utf-8", "replace")
    return response
