"""How a batch of Dataverse is carried out: operations in order, change sets that happen together or not at all.

How a batch is written is in `multipart`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from urllib.parse import unquote, urlsplit

from drawbar.sandbox.crm.addresses import LONGEST_IN_BATCH, check_length
from drawbar.sandbox.crm.content_ids import resolve_body, resolve_target
from drawbar.sandbox.crm.model import CrmError, no_method
from drawbar.sandbox.crm.records import PATH, VERSIONED
from drawbar.sandbox.crm.reply import numbered
from drawbar.sandbox.crm.security import with_batch_headers
from drawbar.sandbox.multipart import BatchOperation, ChangeSet, NamedReply, format_batch, parse_batch
from drawbar.sandbox.odata import QueryError
from drawbar.sandbox.store import Store
from drawbar.sandbox.wire import Reply, Request, from_json, to_json


class BatchRun:
    """One batch. `carry_out` raises what `refusal` makes an answer of."""

    def __init__(
        self,
        request: Request,
        store: Store,
        base_url: str,
        *,
        carry_out: Callable[[Request], Reply],
        refusal: Callable[[CrmError | QueryError | ValueError, Request], Reply],
    ) -> None:
        self._request = request
        self._store = store
        self._base_url = base_url
        self._carry_out = carry_out
        self._refusal = refusal
        self._addresses: dict[str, str] = {}  # of the rows that operations made, by their Content-ID

    def answer(self) -> Reply:
        """Without `odata.continue-on-error` the first failure ends the batch and gives it its status."""
        if self._request.method != "POST":
            raise no_method(self._request.method, "on a batch")
        items = parse_batch(self._request.headers.get("content-type", ""), self._request.body)
        go_on = self._request.preferences().get("odata.continue-on-error", "false") != "false"
        parts: list[NamedReply | list[NamedReply]] = []
        for item in items:
            part = self._change_set(item) if isinstance(item, ChangeSet) else (None, self._operation(item))
            parts.append(part)
            if isinstance(part, tuple) and part[1].status >= 400 and not go_on:
                return format_batch(parts, status=part[1].status)
        return format_batch(parts, status=200)

    def _change_set(self, change_set: ChangeSet) -> NamedReply | list[NamedReply]:
        """One failure takes everything back and is the only reply, as if the change set were one operation."""
        undo, known = self._store.savepoint(), dict(self._addresses)
        replies: list[NamedReply] = []
        for operation in change_set.operations:
            reply = self._operation(operation)
            if reply.status >= 400:
                undo()
                self._addresses = known
                return None, reply
            replies.append((operation.content_id, reply))
        return replies

    def _operation(self, operation: BatchOperation) -> Reply:
        undo = self._store.savepoint()
        request = Request(
            method=operation.method,
            path=operation.target,
            query="",
            headers=with_batch_headers(self._request.headers, operation.headers),
            body=operation.body,
            app=self._request.app,
        )
        try:
            request = self._resolved(request, operation)
            reply = self._carry_out(request)
        except (CrmError, QueryError, ValueError) as error:
            undo()
            return numbered(self._refusal(error, request))
        if operation.content_id is not None and "OData-EntityId" in reply.headers:
            self._addresses[operation.content_id] = reply.headers["OData-EntityId"]
        return numbered(reply)

    def _resolved(self, request: Request, operation: BatchOperation) -> Request:
        """The request of an operation as it would come by itself."""
        check_length(len(operation.target), LONGEST_IN_BATCH)
        target = urlsplit(resolve_target(operation.target, self._addresses, self._base_url))
        path = f"{PATH}/{VERSIONED.sub('', target.path).lstrip('/')}"
        body = operation.body
        if self._addresses and b"$" in body:
            body = to_json(resolve_body(from_json(body), self._addresses))
        return replace(request, path=unquote(path), query=target.query, body=body)
