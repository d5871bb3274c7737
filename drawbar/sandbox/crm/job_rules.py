"""What a client may do with Dataverse's system jobs, and what ends with them.

Source: https://learn.microsoft.com/power-apps/developer/data-platform/asynchronous-service
"""

from __future__ import annotations

from drawbar.sandbox.crm.bulk_delete import mark_operation
from drawbar.sandbox.crm.duplicates import PUBLISHING, UNPUBLISHED, set_status
from drawbar.sandbox.crm.jobs import CANCELED, STATES, SUCCEEDED
from drawbar.sandbox.crm.model import CrmError, not_supported
from drawbar.sandbox.crm.records import CrmRecords, TableRules
from drawbar.sandbox.store import Values


class JobRules(TableRules):
    """A job is the service's; a client may only end one that goes on, or put it off."""

    def admit(self, records: CrmRecords, row: Values, before: Values | None, written: set[str]) -> None:
        if before is None:
            raise not_supported(records.entities["asyncoperation"], "Create")
        state = before["statecode"]
        if written & {"statecode", "statuscode"} and (state == STATES[SUCCEEDED] or row["statuscode"] != CANCELED):
            raise CrmError(
                400, "0x80048408", f"{row['statuscode']} is not a valid status code for a job in state code {state}."
            )

    def after(
        self,
        records: CrmRecords,
        row_id: str,  # noqa: ARG002
        before: Values | None,
        after: Values | None,
        *,
        user: Values,
    ) -> None:
        """What a job was about ends with it, where somebody ends it or takes its row away."""
        if before is None or before["statecode"] == STATES[SUCCEEDED]:
            return
        if after is not None and after["statuscode"] != CANCELED:
            return
        about = before.get("regardingobjectid", "")
        match before.get("regardingobjectid@type"):
            case "bulkdeleteoperation":
                mark_operation(records.store, about, CANCELED)
            case "duplicaterule":
                rule = records.store.table("duplicaterule").rows.get(about)
                if rule is not None and rule.values["statuscode"] == PUBLISHING:
                    set_status(records, about, UNPUBLISHED, user=user)
