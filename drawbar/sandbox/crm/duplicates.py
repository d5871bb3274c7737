"""Dataverse's duplicate detection: rules as rows, published by a job, held against what a client writes if it asks.

Sources: https://learn.microsoft.com/power-apps/developer/data-platform/duplicaterule-entities,
https://learn.microsoft.com/power-apps/developer/data-platform/webapi/manage-duplicate-detection-create-update
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from drawbar.sandbox.crm.actions import Made
from drawbar.sandbox.crm.jobs import PUBLISH_RULE, TABLE, CrmJobs
from drawbar.sandbox.crm.messages import Asked, Found, Message, an_id
from drawbar.sandbox.crm.model import LOOKUPS, Attribute, CrmError, Entity, label, payload_error, to_stored
from drawbar.sandbox.crm.records import CrmRecords, TableRules
from drawbar.sandbox.store import Values

PUBLISHED_AT_MOST = 5  # rules of one table
UNPUBLISHED, PUBLISHING, PUBLISHED = 0, 1, 2  # statuses of a rule
EXACT, FIRST, LAST, DAY, MOMENT, BY_LABEL, BY_VALUE = range(7)  # operators of a condition
_PARAMETRIC = (FIRST, LAST)
_RULE, _CONDITION = "duplicaterule", "duplicaterulecondition"
_DEFAULTS = (("Accounts", "account", "emailaddress1"), ("Contacts", "contact", "emailaddress1"))


class DuplicateRuleRules(TableRules):
    def admit(self, records: CrmRecords, row: Values, before: Values | None, written: set[str]) -> None:
        for name in ("baseentityname", "matchingentityname"):
            if row.get(name) not in records.entities:
                raise CrmError(400, "0x80040203", f"'{name}' names no table: {row.get(name)}.")
        if "statuscode" in written and row.get("statuscode") != (before or {}).get("statuscode", UNPUBLISHED):
            raise CrmError(400, "0x80048408", "A rule is published and unpublished by its actions.")
        if before is not None and written - {"statuscode", "statecode"}:
            check_at_rest(before)
            row["statecode"], row["statuscode"] = 0, UNPUBLISHED


class ConditionRules(TableRules):
    def admit(self, records: CrmRecords, row: Values, before: Values | None, written: set[str]) -> None:  # noqa: ARG002
        rule = records.store.table(_RULE).rows.get(row.get("regardingobjectid") or "")
        if rule is None:
            return  # a required column, of which the platform tells
        check_at_rest(rule.values)
        for name, table in (("baseattributename", "baseentityname"), ("matchingattributename", "matchingentityname")):
            entity = records.entities[rule.values[table]]
            if row.get(name) not in entity.attributes or entity.attributes[row[name]].secret:
                raise CrmError(400, "0x80040203", f"'{entity.logical}' has no column '{row.get(name)}'.")
        needs = row.get("operatorcode") in _PARAMETRIC
        if needs != bool(row.get("operatorparam")):
            raise CrmError(400, "0x80040203", "The operator is not valid or it is not supported.")

    def admit_delete(self, records: CrmRecords, row: Values) -> None:
        check_at_rest(records.store.table(_RULE).rows[row["regardingobjectid"]].values)

    def after(
        self,
        records: CrmRecords,
        row_id: str,  # noqa: ARG002
        before: Values | None,
        after: Values | None,
        *,
        user: Values,
    ) -> None:
        """A rule that is another than it was is no longer in force."""
        rule_id = (after or before or {})["regardingobjectid"]
        rule = records.store.table(_RULE).rows.get(rule_id)
        if rule is not None and rule.values["statuscode"] != UNPUBLISHED:
            set_status(records, rule_id, UNPUBLISHED, user=user)


DUPLICATE_RULES: Mapping[str, TableRules] = {_RULE: DuplicateRuleRules(), _CONDITION: ConditionRules()}


def check_at_rest(rule: Values) -> None:
    if rule.get("statuscode") == PUBLISHING:
        raise CrmError(
            400,
            "0x80048428",
            "The duplicate detection rule is currently in use and cannot be updated or deleted. Please try again"
            " later.",
        )


def set_status(records: CrmRecords, rule_id: str, status: int, *, user: Values) -> None:
    state = {"statecode": int(status == PUBLISHED), "statuscode": status}
    records.alter(records.entities[_RULE], rule_id, state, user=user)


# ---------------------------------------------------------------- comparing


def agrees(condition: Values, mine: Any, theirs: Any, *, is_case_sensitive: bool) -> bool:
    """Whether two values are one to a condition. Two blank ones are, unless it ignores them."""
    if mine is None or theirs is None:
        return mine is theirs and not condition.get("ignoreblankvalues")
    operator, length = condition.get("operatorcode", EXACT), condition.get("operatorparam") or 0
    if operator in (DAY, MOMENT):
        return str(mine)[:10] == str(theirs)[:10] if operator == DAY else bool(mine == theirs)
    if isinstance(mine, str) and isinstance(theirs, str):
        if not is_case_sensitive:
            mine, theirs = mine.casefold(), theirs.casefold()
        if operator == FIRST:
            return bool(mine[:length] == theirs[:length])
        if operator == LAST:
            return bool(mine[-length:] == theirs[-length:])
    return bool(mine == theirs)


def _compared(attribute: Attribute, condition: Values, value: Any) -> Any:
    """A choice counts by its name where a condition says so."""
    return label(attribute, value, "") if condition.get("operatorcode") == BY_LABEL and value is not None else value


def duplicates(
    records: CrmRecords,
    entity: Entity,
    row_id: str,
    row: Values,
    *,
    matching: str | None = None,
    written: set[str] | None = None,
) -> Iterator[tuple[Entity, str]]:
    """Rows that a published rule takes for the same as this one; `written`: by the rules about these columns alone."""
    for rule_id in records.store.table(_RULE).having("baseentityname", entity.logical):
        rule = records.store.table(_RULE).rows[rule_id].values
        conditions = conditions_of(records, rule_id)
        about = {condition["baseattributename"] for condition in conditions}
        if rule["statuscode"] != PUBLISHED or (written is not None and not about & written):
            continue
        other = records.entities[rule["matchingentityname"]]
        if matching not in (None, other.logical):
            continue
        for other_id, stored in records.store.table(other.logical).rows.items():
            theirs = stored.values
            if (other is entity and other_id == row_id) or (
                rule.get("excludeinactiverecords") and theirs.get("statecode")
            ):
                continue
            if all(_agree(entity, other, condition, row, theirs, rule) for condition in conditions):
                yield other, other_id


def _agree(entity: Entity, other: Entity, condition: Values, row: Values, theirs: Values, rule: Values) -> bool:
    mine, matching = condition["baseattributename"], condition["matchingattributename"]
    return agrees(
        condition,
        _compared(entity.attributes[mine], condition, row.get(mine)),
        _compared(other.attributes[matching], condition, theirs.get(matching)),
        is_case_sensitive=bool(rule.get("iscasesensitive")),
    )


def conditions_of(records: CrmRecords, rule_id: str) -> list[Values]:
    table = records.store.table(_CONDITION)
    return [table.rows[row_id].values for row_id in table.having("regardingobjectid", rule_id)]


def duplicate_check(records: CrmRecords) -> Callable[[Entity, str, Values, Values | None, set[str]], None]:
    """Refuses a row that a rule takes for the same as another."""

    def check(entity: Entity, row_id: str, row: Values, before: Values | None, written: set[str]) -> None:
        found = duplicates(records, entity, row_id, row, written=None if before is None else written)
        if next(found, None) is not None:
            raise CrmError(
                412,
                "0x80040333",
                "A record was not created or updated because a duplicate of the current record already exists.",
            )

    return check


# ---------------------------------------------------------------- what is asked


class Duplicates:
    def __init__(self, records: CrmRecords, jobs: CrmJobs) -> None:
        self._records = records
        self._jobs = jobs
        self.messages = {
            "PublishDuplicateRule": Message(run=self._publish, bound_to=(_RULE,)),
            "UnpublishDuplicateRule": Message(run=self._unpublish),
            "RetrieveDuplicates": Message(run=self._retrieve, is_function=True),
        }

    def _rule(self, asked: Asked, rule_id: str) -> Values:
        entity = self._records.entities[_RULE]
        rule = self._records.find(entity, rule_id).values
        asked.caller.demand(entity, "read", rule_id, rule)
        asked.caller.demand_named("prvPublishDuplicateRule")
        check_at_rest(rule)
        return rule

    def _publish(self, asked: Asked) -> Made:
        """By a job: until it is done the rule is being published."""
        rule_id, user = asked.row_id, asked.caller.user
        rule = self._rule(asked, rule_id)
        if not conditions_of(self._records, rule_id):
            raise CrmError(
                400,
                "0x80048414",
                "No criteria have been specified. Add criteria, and then publish the duplicate detection rule.",
            )
        table = self._records.store.table(_RULE)
        same = [table.rows[other].values for other in table.having("baseentityname", rule["baseentityname"])]
        in_force = [other for other in same if other["statuscode"] != UNPUBLISHED and other is not rule]
        if len(in_force) >= PUBLISHED_AT_MOST:
            raise CrmError(400, "0x80040203", f"A table has at most {PUBLISHED_AT_MOST} published rules.")
        set_status(self._records, rule_id, PUBLISHING, user=user)

        async def work(job_id: str) -> str:
            self._jobs.check_goes_on(job_id)
            stored = self._records.store.table(_RULE).rows.get(rule_id)
            if stored is not None and stored.values["statuscode"] == PUBLISHING:
                with self._records.store.transaction():
                    set_status(self._records, rule_id, PUBLISHED, user=user)
            return f"The rule '{rule['name']}' is published."

        job_id = self._jobs.submit(
            work,
            user=user,
            name=f"Publish duplicate detection rule: {rule['name']}",
            kind=PUBLISH_RULE,
            messagename="PublishDuplicateRule",
            primaryentitytype=_RULE,
            regardingobjectid=rule_id,
            **{"regardingobjectid@type": _RULE},
        )
        return Made(self._records.entities[TABLE], job_id, None)

    def _unpublish(self, asked: Asked) -> None:
        rule_id = an_id(asked.parameters, "DuplicateRuleId")
        self._rule(asked, rule_id)
        set_status(self._records, rule_id, UNPUBLISHED, user=asked.caller.user)

    def _retrieve(self, asked: Asked) -> Found:
        """Of a row that is there (by its id), or would be."""
        entity, row_id, row = self._given(asked)
        name = asked.parameters.get("MatchingEntityName")
        matching = self._records.entities.get(str(name))
        if matching is None:
            raise CrmError(400, "0x80040203", f"'MatchingEntityName' names no table: {name}.")
        sees = asked.caller.sees(matching)
        rows = self._records.store.table(matching.logical).rows
        found = duplicates(self._records, entity, row_id, row, matching=matching.logical)
        ids = [each for each in dict.fromkeys(each for _, each in found) if sees(each, rows[each].values)]
        paging = asked.parameters.get("PagingInfo") or {}
        size, number = _count(paging, "Count", 5000), _count(paging, "PageNumber", 1)
        return Found(matching, tuple(ids[(number - 1) * size : number * size]))

    def _given(self, asked: Asked) -> tuple[Entity, str, Values]:
        given = asked.parameters.get("BusinessEntity")
        kind = str(given.get("@odata.type", "")).rpartition(".")[2] if isinstance(given, dict) else ""
        entity = self._records.entities.get(kind)
        if entity is None or not isinstance(given, dict):
            raise CrmError(400, "0x80040203", "'BusinessEntity' is a row with its type.")
        row_id = str(given.get(entity.id) or "").lower()
        row: Values = {}
        if row_id:
            row = dict(self._records.find(entity, row_id).values)
            asked.caller.demand(entity, "read", row_id, row)
        for name, value in given.items():
            if "@" in name or name == entity.id:
                continue
            attribute = entity.attributes.get(name)
            if attribute is None or attribute.type in LOOKUPS:
                raise payload_error(entity, f"An undeclared property '{name}' was found in the payload.")
            row[name] = to_stored(entity, attribute, value)
        return entity, row_id, row


def _count(paging: Any, name: str, otherwise: int) -> int:
    value = paging.get(name, otherwise) if isinstance(paging, dict) else None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CrmError(400, "0x80040203", f"'{name}' of 'PagingInfo' is a whole number from 1 on.")
    return value


def plant_rules(records: CrmRecords) -> None:
    """The rules a new organization has, published; once, so that a client may take them away.

    A rule whose job did not survive the last run is not published.
    """
    store = records.store
    organization = store.fact("organization_id")
    if organization is None:
        return
    system = next(iter(store.table("systemuser").rows.values())).values
    for rule_id, stored in list(store.table(_RULE).rows.items()):
        if stored.values["statuscode"] == PUBLISHING:
            with store.transaction():
                set_status(records, rule_id, UNPUBLISHED, user=system)
    if store.fact("duplicate_rules_planted"):
        return
    with store.transaction():
        store.set_fact("duplicate_rules_planted", value=True)
        for title, table, column in _DEFAULTS:
            name = f"{title} with the same e-mail address"
            rule_id = str(uuid.uuid5(uuid.UUID(str(organization)), name))
            rule: Values = {
                "duplicateruleid": rule_id,
                "name": name,
                "baseentityname": table,
                "matchingentityname": table,
                "statecode": 1,
                "statuscode": PUBLISHED,
            }
            condition: Values = {
                "duplicateruleconditionid": str(uuid.uuid5(uuid.UUID(rule_id), column)),
                "regardingobjectid": rule_id,
                "baseattributename": column,
                "matchingattributename": column,
                "ignoreblankvalues": True,
            }
            # The condition first: one that comes later would take its rule out of force.
            records.make(records.entities[_CONDITION], condition, user=system)
            records.make(records.entities[_RULE], rule, user=system)
