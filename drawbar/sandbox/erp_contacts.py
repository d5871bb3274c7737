"""How Business Central's contacts and customers hang together: what one says of the other.

A customer has a contact of its own, made with it. Both say the same in the fields they share, whichever of them is
written. Persons belong to the contact of a company and bear its name.
"""

from __future__ import annotations

import uuid

from drawbar.sandbox.erp_model import ErpError
from drawbar.sandbox.erp_records import ErpRecords, SetRules
from drawbar.sandbox.store import Stored, Values

_SHARED = (
    "displayName",
    "addressLine1",
    "addressLine2",
    "city",
    "state",
    "country",
    "postalCode",
    "phoneNumber",
    "email",
    "website",
    "taxRegistrationNumber",
)


def _shared(row: Values) -> Values:
    """What a customer and its contact both say."""
    return {name: row[name] for name in _SHARED}


def _settle(row: Values, before: Values | None) -> None:
    """A company is its own company; the search name follows the name until somebody gives it one of its own."""
    if row["type"] == "Company":
        row["companyNumber"], row["companyName"] = row["number"], row["displayName"]
    elif row["companyNumber"] in ("", row["number"]):
        row["companyNumber"], row["companyName"] = "", ""
    followed = before["displayName"].upper() if before else ""
    if row["searchName"] in ("", followed):
        row["searchName"] = row["displayName"].upper()


def _contact_information(contact: Values, customer: Values) -> Values:
    return {
        "contactId": contact["id"],
        "contactNumber": contact["number"],
        "contactName": contact["displayName"],
        "contactType": contact["type"],
        "relatedId": customer["id"],
        "relatedType": "Customer",
    }


class CustomerRules(SetRules):
    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:  # noqa: ARG002
        if before is None:  # the business relation: which contact stands for the customer
            row["contactId"] = str(uuid.uuid5(uuid.UUID(row["id"]), "contact"))

    def after(self, records: ErpRecords, company: str, before: Values | None, after: Values | None, app: str) -> None:
        """The customer's contact says what the customer says."""
        if before is None and after is not None:
            _add_contact(records, company, after, app)
            return
        contact = records.rows(company, "contacts").get((after or before or {}).get("contactId", ""))
        if contact is None:
            return
        if after is None:
            for row in (contact.values, *_persons(records, company, contact.values)):
                _put_contact(records, company, dict(row), app)
        elif before is not None and _shared(before) != _shared(after):
            _put_contact(records, company, {**contact.values, **_shared(after)}, app)


class ContactRules(SetRules):
    def assign(self, records: ErpRecords, company: str, row: Values, name: str, value: str) -> None:
        if name not in ("companyNumber", "companyName"):
            row[name] = value
            return
        contacts = records.store.table(f"{company}/contacts")
        if name == "companyName":
            if value.casefold() == row["companyName"].casefold():
                return
            value = _number_of_company(records, company, value)
        row["companyNumber"], row["companyName"] = value, ""
        if value:
            found = contacts.rows[contacts.index("number")[value]].values
            if found["type"] != "Company" and found["id"] != row["id"]:
                raise ErpError(
                    400,
                    "Internal_InvalidTableRelation",
                    f"The field Company No. of table Contact contains a value ({value})"
                    " that cannot be found in the related table (Contact).",
                )
            row["companyName"] = found["displayName"]

    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:
        contacts = records.store.table(f"{company}/contacts")
        _settle(row, before)
        row["contactBusinessRelation"] = "None" if _customer_of(records, company, row) is None else "Customer"
        if row["type"] == "Person" and row["companyNumber"]:
            found = contacts.rows[contacts.index("number")[row["companyNumber"]]]
            row["companyName"] = found.values["displayName"]

    def after(self, records: ErpRecords, company: str, before: Values | None, after: Values | None, app: str) -> None:
        """The customer says what its contact says, and persons know their company's name."""
        if before is None:
            return
        customers = records.store.table(f"{company}/customers")
        customer_id = customers.index("contactId").get(before["id"])
        customer = customers.rows[customer_id].values if customer_id else {}
        if after is None:
            if customer_id:
                row = {name: value for name, value in customer.items() if name != "contactId"}
                records.store.put(f"{company}/customers", customer_id, row, note=app, silent=True)
            for person in _persons(records, company, before):
                _put_contact(records, company, {**person, "companyNumber": "", "companyName": ""}, app)
            return
        _tell_persons(records, company, before, after, app)
        if customer_id and _shared(customer) != _shared(after):
            row = {**customer, **_shared(after), "lastModifiedDateTime": records.now}
            records.store.put(f"{company}/customers", customer_id, row, note=app)


class ContactInformationRules(SetRules):
    def view(self, records: ErpRecords, company: str, stored: Stored) -> Stored | None:
        """A contact as one of the customer it belongs to, by itself or by its company."""
        customer = _customer_of(records, company, stored.values)
        if customer is None:
            return None
        return Stored(_contact_information(stored.values, customer.values), stored.version)

    def below(self, records: ErpRecords, company: str, column: str, parent_id: str) -> list[Stored]:
        """Of one customer: its contact and the persons there."""
        rows = records.rows(company, "contacts")
        customer = records.rows(company, "customers").get(parent_id)
        contact = rows.get(customer.values.get("contactId", "")) if customer and column == "relatedId" else None
        if contact is None:
            return []
        found = (contact.values, *_persons(records, company, contact.values))
        return [view for row in found if (view := self.view(records, company, rows[row["id"]])) is not None]


def _customer_of(records: ErpRecords, company: str, contact: Values) -> Stored | None:
    """The customer a contact stands for, or its company does."""
    customers = records.store.table(f"{company}/customers")
    by_contact = customers.index("contactId")
    found = by_contact.get(contact["id"])
    if found is None and contact["companyNumber"]:
        company_id = records.store.table(f"{company}/contacts").index("number").get(contact["companyNumber"])
        found = by_contact.get(company_id)
    return customers.rows.get(found) if found else None


def _number_of_company(records: ErpRecords, company: str, name: str) -> str:
    """The lowest number where several companies bear the name; none where nobody does."""
    rows = (stored.values for stored in records.rows(company, "contacts").values())
    wanted = name.casefold()
    return min(
        (row["number"] for row in rows if row["type"] == "Company" and row["displayName"].casefold() == wanted),
        default="",
    )


def _put_contact(records: ErpRecords, company: str, row: Values, app: str) -> None:
    """A contact that another write changes; its own time moves only if something in it does."""
    before = records.rows(company, "contacts")[row["id"]].values
    records.rules_of("contacts").settle(records, company, row, before)
    if row != before:
        row["lastModifiedDateTime"] = records.now
        records.store.put(f"{company}/contacts", row["id"], row, note=app)
        _tell_persons(records, company, before, row, app)


def _add_contact(records: ErpRecords, company: str, customer: Values, app: str) -> None:
    entity_set = records.sets["contacts"]
    row = {
        **entity_set.blank(),
        **_shared(customer),
        "id": customer["contactId"],
        "type": customer["type"],
        "number": records.next_number(company, entity_set),
        "lastModifiedDateTime": records.now,
    }
    records.rules_of("contacts").settle(records, company, row, None)
    records.store.put(f"{company}/contacts", row["id"], row, note=app)


def _persons(records: ErpRecords, company: str, contact: Values) -> list[Values]:
    if contact["type"] != "Company":
        return []
    table = records.store.table(f"{company}/contacts")
    found = table.having("companyNumber", contact["number"])
    return [table.rows[row_id].values for row_id in found if row_id != contact["id"]]


def _tell_persons(records: ErpRecords, company: str, before: Values, after: Values, app: str) -> None:
    if before["displayName"] != after["displayName"]:
        for person in _persons(records, company, after):
            _put_contact(records, company, dict(person), app)
