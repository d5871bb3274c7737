"""Business Central's opportunities: chances of a sale at a contact.

What they are worth and how likely they are comes from the stages of a sales cycle, which the API does not expose: the
control endpoint sets these figures and the status.
"""

from __future__ import annotations

from typing import Any

from drawbar.sandbox.erp.model import EMPTY_DATE, ErpError, no_value, refusal
from drawbar.sandbox.erp.records import ErpRecords, SetRules
from drawbar.sandbox.store import Values

_IN_PROGRESS = "In_x0020_Progress"
_CLOSED = ("Won", "Lost")
_FIXED = {  # what is said when one of them changes on an opportunity that is closed
    "contactNumber": 'The "contactNumber of a Won or Lost Opportunity cannot be changed',
    "salespersonCode": 'The "salespersonCode" of a Won or Lost Opportunity cannot be changed',
}


class OpportunityRules(SetRules):
    def assign(self, records: ErpRecords, company: str, row: Values, name: str, value: Any) -> None:
        if name in _FIXED and row["status"] in _CLOSED:
            raise refusal(_FIXED[name])
        if name == "contactNumber":
            _take_contact(records, company, row, value)
        if name == "salespersonCode" and not value and row[name]:
            raise _must_have_value("Salesperson Code", row)
        row[name] = value

    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:  # noqa: ARG002
        if before is None:
            row["systemCreatedAt"] = records.now
            if row["creationDate"] == EMPTY_DATE:
                row["creationDate"] = records.now[:10]
        row["closed"] = row["status"] in _CLOSED
        if not row["closed"]:
            row["dateClosed"] = EMPTY_DATE
        elif row["dateClosed"] == EMPTY_DATE:
            row["dateClosed"] = records.now[:10]

    def after(self, records: ErpRecords, company: str, before: Values | None, after: Values | None, app: str) -> None:  # noqa: ARG002
        """One that is being worked on stays."""
        if before is None or after is not None:
            return
        must_be_closed = records.switches["erp_opportunity_delete"] == "closed"
        if before["status"] == _IN_PROGRESS or (must_be_closed and not before["closed"]):
            raise refusal("You cannot delete this opportunity while it is active.")


def _take_contact(records: ErpRecords, company: str, row: Values, number: str) -> None:
    """Names of the contact and of its company. Once work has begun, only a contact of the same company can follow."""
    if not number:
        raise _must_have_value("Contact No.", row)
    contacts = records.store.table(f"{company}/contacts")
    contact = contacts.rows[contacts.index("number")[number]].values
    of_company = row.get("contactCompanyNumber", "")
    if row["contactNumber"] and row["status"] == _IN_PROGRESS and contact["companyNumber"] != of_company:
        raise refusal(f"Contact {number} {contact['displayName']} is related to another company.")
    row["contactName"], row["contactCompanyName"] = contact["displayName"], contact["companyName"]
    row["contactCompanyNumber"] = contact["companyNumber"]


def tell_opportunities(records: ErpRecords, company: str, contact: Values, after: Values, app: str) -> None:
    """A contact changed: the names that opportunities show are looked up, so nothing of theirs moves but these."""
    table = records.store.table(f"{company}/opportunities")
    if not table.rows or (contact["displayName"], contact["number"]) == (after["displayName"], after["number"]):
        return
    for row_id in table.having("contactNumber", after["number"]):
        row = {**table.rows[row_id].values, "contactName": after["displayName"]}
        records.store.put(f"{company}/opportunities", row_id, row, note=app, silent=True)
    for row_id in table.having("contactCompanyNumber", contact["number"]):
        row = {
            **table.rows[row_id].values,
            "contactCompanyNumber": after["number"],
            "contactCompanyName": after["displayName"],
        }
        records.store.put(f"{company}/opportunities", row_id, row, note=app, silent=True)


def refuse_with_opportunities(records: ErpRecords, company: str, contact: Values) -> None:
    """Raises ErpError for a contact with an opportunity that is not closed."""
    table = records.store.table(f"{company}/opportunities")
    if any(not table.rows[row_id].values["closed"] for row_id in table.having("contactNumber", contact["number"])):
        raise refusal(
            f"You cannot delete the Contact record of the {contact['number']} because one or more opportunities are in"
            " not started or progress."
        )


def _must_have_value(caption: str, row: Values) -> ErpError:
    return no_value(caption, f"Opportunity: No.={row['number']}")
