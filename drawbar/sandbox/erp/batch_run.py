"""How a batch of Business Central is carried out: operations in order, each by itself or all in one snapshot.

How a batch is written is in `batch`.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote

from drawbar.sandbox.erp.batch import BatchRequest, answer, operations
from drawbar.sandbox.erp.call import Api
from drawbar.sandbox.erp.errors import error_reply
from drawbar.sandbox.erp.model import ErpError, not_allowed
from drawbar.sandbox.erp.records import ErpRecords
from drawbar.sandbox.odata import QueryError
from drawbar.sandbox.odata_reply import ok
from drawbar.sandbox.wire import Reply, Request

Group = list[BatchRequest]  # what happens together or not at all


class BatchRun:
    """One batch. `carry_out` takes a request and the part of its path behind the API's address."""

    def __init__(
        self, request: Request, api: Api, records: ErpRecords, carry_out: Callable[[Request, str], Reply]
    ) -> None:
        self._request = request
        self._api = api
        self._records = records
        self._store = records.store
        self._switches = records.switches
        self._carry_out = carry_out
        self._replies: list[list[tuple[BatchRequest, Reply]]] = []

    def answer(self) -> Reply:
        if self._request.method != "POST":
            raise not_allowed(self._request.method)
        groups = operations(self._request, too_long_status=self._switches["erp_batch_too_long_status"])
        if self._switches["erp_batch_groups"] == "refused" and any(one.is_grouped for group in groups for one in group):
            raise ErpError(400, "BadRequest", "The members 'atomicityGroup' and 'dependsOn' are not supported.")
        if self._request.headers.get("isolation", "").lower() == "snapshot":
            self._run_in_snapshot(groups)
        else:
            self._run_one_by_one(groups)
        answered = answer(self._request, self._replies)
        return answered if isinstance(answered, Reply) else ok(answered)

    def _run_one_by_one(self, groups: list[Group]) -> None:
        go_on = self._request.preferences().get("odata.continue-on-error", "false") != "false"
        go_on = go_on or not self._switches["erp_batch_stops_at_failure"]
        for group in groups:
            self._records.begin()
            if not self._run(group) and not go_on:
                break

    def _run_in_snapshot(self, groups: list[Group]) -> None:
        """One transaction; the replies of what it takes back stand all the same."""
        with self._store.transaction():
            roll_back = self._store.savepoint()
            fine = [self._run(group) for group in groups[:1]]
            ends = fine == [False] and self._switches["erp_snapshot_first_failure"] == "alone"
            fine += [] if ends else [self._run(group) for group in groups[1:]]
            if not all(fine):
                roll_back()

    def _run(self, group: Group) -> bool:
        """Whether all of it went well; a failure takes it back, and is the only reply."""
        with self._store.transaction():
            undo = self._store.savepoint()
            done: list[tuple[BatchRequest, Reply]] = []
            for operation in group:
                reply = self._operation(operation)
                if reply.status >= 400:
                    undo()
                    self._replies.append([(operation, reply)])
                    return False
                done.append((operation, reply))
        self._replies.append(done)
        return True

    def _operation(self, operation: BatchRequest) -> Reply:
        address, _, query = operation.url.removeprefix(self._api.origin).partition("?")
        path = self._api.below(unquote(address))
        path = unquote(address) if path is None else path
        headers = dict(operation.headers)
        if "company" in self._request.headers:
            headers.setdefault("company", self._request.headers["company"])
        request = Request(
            method=operation.method,
            path=f"{self._api.path}/{path.lstrip('/')}",
            query=query,
            headers=headers,
            body=operation.body,
            app=self._request.app,
        )
        if operation.lacks_content_type:
            text = "An operation with a body needs a Content-Type header of its own."
            return error_reply(ErpError(400, "BadRequest", text), self._switches)
        undo = self._store.savepoint()
        try:
            return self._carry_out(request, path)
        except (ErpError, QueryError) as error:
            undo()
            return error_reply(error, self._switches)
