"""Which steps and images of steps can be registered in Dataverse.

Source: https://learn.microsoft.com/power-apps/developer/data-platform/register-plug-in
"""

from __future__ import annotations

from collections.abc import Mapping

from drawbar.sandbox.crm.catalog import refused, row_of
from drawbar.sandbox.crm.records import CrmRecords, TableRules
from drawbar.sandbox.store import Values

ASYNCHRONOUS, AFTER = 1, 40  # of `mode`, of `stage`
BEFORE_IMAGE, AFTER_IMAGE, BOTH = 0, 1, 2  # of `imagetype`


class StepRules(TableRules):
    def admit(self, records: CrmRecords, row: Values, before: Values | None, written: set[str]) -> None:  # noqa: ARG002
        if row.get("mode") == ASYNCHRONOUS and row.get("stage") != AFTER:
            raise refused("0x80040203", "An asynchronous step is one of the stage after the operation (40).")
        scope = row_of(records, "sdkmessagefilter", row.get("sdkmessagefilterid"))
        if scope is not None and scope.get("sdkmessageid") != row.get("sdkmessageid"):
            raise refused("0x80040203", "The filter of a step is one of its message.")


class ImageRules(TableRules):
    def admit(self, records: CrmRecords, row: Values, before: Values | None, written: set[str]) -> None:  # noqa: ARG002
        step = row_of(records, "sdkmessageprocessingstep", row.get("sdkmessageprocessingstepid")) or {}
        message = (row_of(records, "sdkmessage", step.get("sdkmessageid")) or {}).get("name")
        absent = {"Create": (BEFORE_IMAGE, BOTH), "Delete": (AFTER_IMAGE, BOTH)}.get(str(message), ())
        if row.get("imagetype") in absent:
            raise refused("0x80040203", f"There is no such image of a row at the message {message}.")


STEP_RULES: Mapping[str, TableRules] = {
    "sdkmessageprocessingstep": StepRules(),
    "sdkmessageprocessingstepimage": ImageRules(),
}
