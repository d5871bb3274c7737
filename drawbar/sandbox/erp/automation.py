"""Business Central's companies as the automation API makes, changes and removes them."""

from __future__ import annotations

from collections.abc import Iterable

from drawbar.sandbox.erp.companies import add_company
from drawbar.sandbox.erp.model import EntitySet, no_property, read_only, refusal, shown_time, to_stored
from drawbar.sandbox.erp.records import ErpRecords, SetRules
from drawbar.sandbox.store import Stored, Values

_WRITTEN = ("displayName", "businessProfileId")


class AutomationCompanyRules(SetRules):
    def implied(self, records: ErpRecords, company: str) -> Iterable[Stored]:  # noqa: ARG002
        return [_stored(each) for each in records.companies()]

    def make(self, records: ErpRecords, entity_set: EntitySet, body: Values, app: str) -> Stored:
        """Its name is its display name, as far as a name goes; a name in the body is not looked at."""
        given = _checked(entity_set, body)
        display_name = given.get("displayName", "")
        if not display_name:
            raise refusal("Display Name must be filled in. Enter a value.")
        made = add_company(records, name=display_name[:30], display_name=display_name, currency=None, app=app)
        return _written(records, made, {"businessProfileId": given.get("businessProfileId", "")})

    def alter(self, records: ErpRecords, entity_set: EntitySet, row_id: str, body: Values) -> Stored:
        given = _checked(entity_set, body)
        company = next(each for each in records.companies() if each["id"] == row_id)
        if "name" in given and given["name"] != company["name"]:
            raise read_only("name")
        if not given.get("displayName", company["displayName"]):
            raise refusal("Display Name must be filled in. Enter a value.")
        return _written(records, company, {name: given[name] for name in _WRITTEN if name in given})

    def unmake(self, records: ErpRecords, row_id: str, app: str) -> None:
        """With all that is in it; the last one stays."""
        left = [each for each in records.companies() if each["id"] != row_id]
        if not left:
            raise refusal("You cannot delete the only company.")
        subscriptions = records.store.table("subscriptions")
        for key, stored in list(subscriptions.rows.items()):
            if f"companies({row_id})" in stored.values["resource"].lower():
                records.store.remove("subscriptions", key)
        for set_name in records.sets:
            for each in list(records.store.table(f"{row_id}/{set_name}").rows):
                records.store.remove(f"{row_id}/{set_name}", each, note=app)
        records.store.set_fact("companies", left)


def _stored(company: Values) -> Stored:
    values = {name: company[name] for name in ("id", "name", "displayName", "businessProfileId")}
    return Stored({**values, "evaluationCompany": False}, int(company["timestamp"]))


def _written(records: ErpRecords, company: Values, given: Values) -> Stored:
    changed = {**company, **given}
    if changed != company:
        changed |= {"timestamp": records.store.skip_version(), "systemModifiedAt": shown_time(records.now)}
        rows = [changed if each["id"] == company["id"] else each for each in records.companies()]
        records.store.set_fact("companies", rows)
    return _stored(changed)


def _checked(entity_set: EntitySet, body: Values) -> Values:
    given: Values = {}
    for name, value in body.items():
        if "@odata." in name:
            continue
        column = entity_set.columns.get(name)
        if column is None:
            raise no_property(name, entity_set)
        if column.access in ("read", "key"):
            raise read_only(name)
        given[name] = to_stored(column, value)
    return given
