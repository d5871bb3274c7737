"""Dataverse's bulk delete: rows that queries find, deleted in the background, one after the other, with a count.

Sources: https://learn.microsoft.com/power-apps/developer/data-platform/delete-data-bulk,
https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/bulkdelete
"""

from __future__ import annotations

import asyncio
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

from drawbar.sandbox.crm.access import Caller
from drawbar.sandbox.crm.fetch import Fetch, read_fetch, run_fetch
from drawbar.sandbox.crm.jobs import (
    BULK_DELETE,
    CANCELED,
    IN_PROGRESS,
    STATES,
    SUCCEEDED,
    WAITING,
    CrmJobs,
    JobCanceled,
    number_of,
    owned_by,
    stamp,
)
from drawbar.sandbox.crm.messages import Asked, Message
from drawbar.sandbox.crm.model import CrmError, Entity, whole_seconds
from drawbar.sandbox.crm.reading import CrmReader
from drawbar.sandbox.crm.records import CrmRecords, Terms
from drawbar.sandbox.odata import QueryError
from drawbar.sandbox.store import Store, Values

AT_ONCE = 50  # rows between two looks at whether the job is to go on
_OPERATION, _FAILURE = "bulkdeleteoperation", "bulkdeletefailure"
_REQUIRED = (
    "QuerySet",
    "JobName",
    "SendEmailNotification",
    "ToRecipients",
    "CCRecipients",
    "RecurrencePattern",
    "StartDateTime",
)
_OPERATORS: Mapping[str, str] = {
    "Equal": "eq",
    "NotEqual": "ne",
    "GreaterThan": "gt",
    "GreaterEqual": "ge",
    "LessThan": "lt",
    "LessEqual": "le",
    "EqualUserId": "eq-userid",
    "NotEqualUserId": "ne-userid",
    "DoesNotBeginWith": "not-begin-with",
    "DoesNotEndWith": "not-end-with",
    "Last7Days": "last-seven-days",
}


def to_fetch(query: Any) -> str:
    """A QueryExpression as FetchXML. Raises CrmError for what is none."""
    if not isinstance(query, dict) or not isinstance(query.get("EntityName"), str):
        raise _refused("A query of 'QuerySet' is a QueryExpression with an 'EntityName'.")
    fetch = ET.Element("fetch", {"top": str(query["TopCount"])} if query.get("TopCount") else {})
    main = ET.SubElement(fetch, "entity", {"name": query["EntityName"]})
    try:
        _filter(main, query.get("Criteria"))
        _links(main, query.get("LinkEntities"))
    except (AttributeError, TypeError) as error:
        raise _refused("A query of 'QuerySet' is not made as a QueryExpression is.") from error
    return ET.tostring(fetch, "unicode")


def _links(parent: ET.Element, links: Any) -> None:
    for link in links or ():
        kind = {"Inner": "inner", "LeftOuter": "outer"}.get(link.get("JoinOperator", "Inner"))
        if kind is None:
            raise _refused(f"The sandbox does not know the join operator {link['JoinOperator']}.")
        attributes = {
            "name": str(link.get("LinkToEntityName")),
            "from": str(link.get("LinkToAttributeName")),
            "to": str(link.get("LinkFromAttributeName")),
            "link-type": kind,
        }
        if link.get("EntityAlias"):
            attributes["alias"] = str(link["EntityAlias"])
        element = ET.SubElement(parent, "link-entity", attributes)
        _filter(element, link.get("LinkCriteria"))
        _links(element, link.get("LinkEntities"))


def _filter(parent: ET.Element, criteria: Any) -> None:
    if not criteria:
        return
    element = ET.SubElement(parent, "filter", {"type": str(criteria.get("FilterOperator", "And")).lower()})
    for condition in criteria.get("Conditions") or ():
        _condition(element, condition)
    for inner in criteria.get("Filters") or ():
        _filter(element, inner)


def _condition(parent: ET.Element, condition: Values) -> None:
    operator = str(condition.get("Operator"))
    name = _OPERATORS.get(operator) or re.sub(r"(?<!\A)(?=[A-Z])", "-", operator).lower()
    attributes = {"attribute": str(condition.get("AttributeName")), "operator": name}
    if condition.get("EntityName"):
        attributes["entityname"] = str(condition["EntityName"])
    element = ET.SubElement(parent, "condition", attributes)
    for value in condition.get("Values") or ():
        given = value.get("Value") if isinstance(value, dict) else value
        text = str(given).lower() if isinstance(given, bool) else str(given)
        ET.SubElement(element, "value").text = text


class BulkDelete:
    def __init__(self, records: CrmRecords, jobs: CrmJobs) -> None:
        self._records = records
        self._store = records.store
        self._jobs = jobs
        self.messages = {"BulkDelete": Message(run=self._submit)}

    def _submit(self, asked: Asked) -> Values:
        given, caller = asked.parameters, asked.caller
        queries = self._queries(given, caller)
        begins = self._begin(given)
        operation_id = self._store.new_id()

        async def work(job_id: str) -> str:
            return await self._delete(operation_id, job_id, queries, caller)

        job_id = self._jobs.submit(
            work,
            user=caller.user,
            name=given["JobName"],
            kind=BULK_DELETE,
            begins=begins,
            messagename="BulkDelete",
            regardingobjectid=operation_id,
            **{"regardingobjectid@type": _OPERATION},
        )
        now = self._store.clock.whole_seconds()
        row: Values = {
            "bulkdeleteoperationid": operation_id,
            "name": given["JobName"][:256],
            "asyncoperationid": job_id,
            "statecode": 0,
            "statuscode": WAITING,
            "successcount": 0,
            "failurecount": 0,
            "isrecurring": False,
            "orderedquerysetxml": "".join(text for _, text in queries),
            **owned_by(caller.user),
            **{f"{verb}{what}": value for verb in ("created", "modified") for what, value in stamp(caller.user, now)},
        }
        self._store.put(_OPERATION, operation_id, row)
        return {"JobId": job_id}

    # ------------------------------------------------------------ parameters

    def _queries(self, given: Values, caller: Caller) -> list[tuple[Entity, str]]:
        """The tables that are deleted from, each with its query as FetchXML, once everything was looked at."""
        for name in _REQUIRED:
            if given.get(name) is None:
                raise _refused(f"Required field '{name}' is missing.")
        if given["SendEmailNotification"] or given["RecurrencePattern"]:
            raise _refused("The sandbox sends no e-mail and repeats no job.")
        if not isinstance(given["JobName"], str) or not isinstance(given["QuerySet"], list) or not given["QuerySet"]:
            raise _refused("'QuerySet' is a list of queries, 'JobName' a text.")
        caller.demand_named("prvBulkDelete")
        queries: list[tuple[Entity, str]] = []
        for query in given["QuerySet"]:
            text = to_fetch(query)
            entity = self._records.entities.get(query["EntityName"])
            if entity is None or entity.read_only:
                raise _refused(f"There is no table '{query['EntityName']}' to delete from.", "0x80041102")
            caller.demand(entity, "read")
            caller.demand(entity, "delete")
            for join in self._fetch(entity, text, caller).joins:
                caller.demand(join.entity, "read")
            queries.append((entity, text))
        return queries

    def _begin(self, given: Values) -> str | None:
        try:
            begins = whole_seconds(str(given["StartDateTime"]))
        except QueryError as error:
            raise _refused(str(error)) from error
        return begins if begins > self._store.clock.whole_seconds() else None

    def _fetch(self, entity: Entity, text: str, caller: Caller) -> Fetch:
        now, user_id = self._store.clock.now(), str(caller.user["systemuserid"])
        return read_fetch(text, self._records.entities, now=now, user_id=user_id, entity=entity)

    # ------------------------------------------------------------ in the background

    async def _delete(self, operation_id: str, job_id: str, queries: list[tuple[Entity, str]], caller: Caller) -> str:
        done = {"successcount": 0, "failurecount": 0}
        mark_operation(self._store, operation_id, IN_PROGRESS, done)
        try:
            for index, (entity, text) in enumerate(queries):
                found = self._found(entity, text, caller)
                for start in range(0, len(found), AT_ONCE):
                    self._jobs.check_goes_on(job_id)
                    for row_id in found[start : start + AT_ONCE]:
                        failure = self._delete_one(entity, row_id, caller)
                        done["failurecount" if failure else "successcount"] += 1
                        if failure:
                            self._keep_failure(operation_id, job_id, index, entity, row_id, failure, caller)
                    mark_operation(self._store, operation_id, IN_PROGRESS, done)
                    await asyncio.sleep(0)
        except JobCanceled:
            mark_operation(self._store, operation_id, CANCELED, done)
            raise
        mark_operation(self._store, operation_id, SUCCEEDED, done)
        return f"{done['successcount']} records were deleted, {done['failurecount']} could not be."

    def _found(self, entity: Entity, text: str, caller: Caller) -> list[str]:
        fetch, found = self._fetch(entity, text, caller), list[str]()
        reader = CrmReader(self._records, "", None if caller.unrestricted else caller.sees)
        while True:
            page = run_fetch(fetch, lambda table: reader.matching(table, {}))
            found += [row[entity.id] for row in page.rows]
            if not page.more:
                return list(dict.fromkeys(found))
            fetch.page += 1

    def _delete_one(self, entity: Entity, row_id: str, caller: Caller) -> CrmError | None:
        """What spoke against it. A row that went with another one is deleted as well."""
        stored = self._store.table(entity.logical).rows.get(row_id)
        if stored is None:
            return None
        try:
            with self._store.transaction(), self._records.on(Terms(initiating=caller.initiating)):
                caller.demand(entity, "delete", row_id, stored.values)
                self._records.remove(entity, row_id, user=caller.user)
        except CrmError as error:
            return error
        return None

    def _keep_failure(
        self,
        operation_id: str,
        job_id: str,
        index: int,
        entity: Entity,
        row_id: str,
        error: CrmError,
        caller: Caller,
    ) -> None:
        failure_id = self._store.new_id()
        row: Values = {
            "bulkdeletefailureid": failure_id,
            "bulkdeleteoperationid": operation_id,
            "asyncoperationid": job_id,
            "errordescription": error.message[:512],
            "errornumber": number_of(error),
            "orderedqueryindex": index,
            "regardingobjectid": row_id,
            "regardingobjectid@type": entity.logical,
            **owned_by(caller.user),
        }
        with self._store.transaction():
            self._store.put(_FAILURE, failure_id, row)


def mark_operation(store: Store, operation_id: str, status: int, done: Mapping[str, int] | None = None) -> None:
    """How a bulk delete stands, and how many rows it has seen to."""
    stored = store.table(_OPERATION).rows.get(operation_id)
    if stored is not None:
        changed = {"statecode": STATES[status], "statuscode": status, "modifiedon": store.clock.whole_seconds()}
        with store.transaction():
            store.put(_OPERATION, operation_id, {**stored.values, **(done or {}), **changed})


def _refused(text: str, code: str = "0x80040203") -> CrmError:
    return CrmError(400, code, text)
