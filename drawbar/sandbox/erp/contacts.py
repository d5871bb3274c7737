"""How Business Central's contacts hang together with customers and vendors: what one says of the other.

A customer or a vendor has a contact of its own, made with it. Both say the same in the fields they share, whichever of
them is written. Persons belong to the contact of a company and bear its name.
"""

from __future__ import annotations

import uuid

from drawbar.sandbox.erp.model import EMPTY_GUID, ErpError, refusal
from drawbar.sandbox.erp.opportunities import refuse_with_opportunities, tell_opportunities
from drawbar.sandbox.erp.records import ErpRecords, SetRules
from drawbar.sandbox.store import Stored, Values

_PARTNERS = {"customers": "Customer", "vendors": "Vendor"}  # sets with contacts, and what a relation to them is called
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
    """What a customer or a vendor and its contact both say."""
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


def _contact_information(contact: Values, set_name: str, partner: Values) -> Values:
    return {
        "contactId": contact["id"],
        "contactNumber": contact["number"],
        "contactName": contact["displayName"],
        "contactType": contact["type"],
        "relatedId": partner["id"],
        "relatedType": _PARTNERS[set_name],
    }


class PartnerRules(SetRules):
    """Customers and vendors."""

    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:  # noqa: ARG002
        if before is None:  # the business relation: which contact stands for the partner
            row["contactId"] = str(uuid.uuid5(uuid.UUID(row["id"]), "contact"))

    def after(self, records: ErpRecords, company: str, before: Values | None, after: Values | None, app: str) -> None:
        """The partner's contact says what the partner says."""
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
        partner = _partner_of(records, company, row)
        row["contactBusinessRelation"] = "None" if partner is None else _PARTNERS[partner[0]]
        if row["type"] == "Person" and row["companyNumber"]:
            found = contacts.rows[contacts.index("number")[row["companyNumber"]]]
            row["companyName"] = found.values["displayName"]

    def after(self, records: ErpRecords, company: str, before: Values | None, after: Values | None, app: str) -> None:
        """The customer or vendor says what its contact says, and persons know their company's name."""
        if before is None:
            return
        if after is None:
            refuse_with_opportunities(records, company, before)
        partner = _stood_for(records, company, before["id"])
        if after is None:
            if partner is not None:
                row = {name: value for name, value in partner[1].values.items() if name != "contactId"}
                records.store.put(f"{company}/{partner[0]}", row["id"], row, note=app, silent=True)
            for person in _persons(records, company, before):
                _put_contact(records, company, {**person, "companyNumber": "", "companyName": ""}, app)
            return
        _tell(records, company, before, after, app)
        if partner is not None and _shared(partner[1].values) != _shared(after):
            row = {**partner[1].values, **_shared(after), "lastModifiedDateTime": records.now}
            records.store.put(f"{company}/{partner[0]}", row["id"], row, note=app)


class ContactInformationRules(SetRules):
    def view(self, records: ErpRecords, company: str, stored: Stored) -> Stored | None:
        """A contact as one of the customer or vendor it belongs to, by itself or by its company."""
        partner = _partner_of(records, company, stored.values)
        if partner is None:
            return None
        return Stored(_contact_information(stored.values, partner[0], partner[1].values), stored.version)

    def below(self, records: ErpRecords, company: str, column: str, parent_id: str) -> list[Stored]:
        """Of one customer or vendor: its contact and the persons there."""
        rows = records.rows(company, "contacts")
        found_in = (records.rows(company, set_name).get(parent_id) for set_name in _PARTNERS)
        partner = next((each for each in found_in if each is not None), None)
        contact = rows.get(partner.values.get("contactId", "")) if partner and column == "relatedId" else None
        if contact is None:
            return []
        found = (contact.values, *_persons(records, company, contact.values))
        return [view for row in found if (view := self.view(records, company, rows[row["id"]])) is not None]


class CustomerContactRules(SetRules):
    """Persons of customers, with the parts of their names. The row is the contact's."""

    def view(self, records: ErpRecords, company: str, stored: Stored) -> Stored | None:
        contact = stored.values
        customer = _customer_of(records, company, contact) if contact["type"] == "Person" else None
        if customer is None:
            return None
        first, _, last = _name_parts(contact)
        shown = {
            "id": contact["id"],
            "email": contact["email"],
            "firstName": first,
            "lastName": last,
            "professionalTitle": contact["jobTitle"],
            "customerId": customer.values["id"],
            "customerName": customer.values["displayName"],
            "primaryPhoneNumber": contact["phoneNumber"],
        }
        return Stored(shown, stored.version)

    def write_through(self, records: ErpRecords, company: str, before: Values, after: Values, app: str) -> None:
        contact = records.rows(company, "contacts")[before["id"]].values
        named = {"email": "email", "professionalTitle": "jobTitle", "primaryPhoneNumber": "phoneNumber"}
        body = {name: after[shown] for shown, name in named.items()}
        parts = [after["firstName"], _name_parts(contact)[1], after["lastName"]]
        if (before["firstName"], before["lastName"]) != (after["firstName"], after["lastName"]):
            body["displayName"] = _joined(parts)
        if after["customerId"] != before["customerId"]:
            _relate(records, company, before["customerId"], after["customerId"], app)
        stored = records.change(company, "contacts", before["id"], body, app=app)
        if "displayName" in body:  # the name alone does not tell where its parts end
            row = {**stored.values, "nameParts": parts}
            records.store.put(f"{company}/contacts", before["id"], row, note=app, silent=True)


def _name_parts(contact: Values) -> list[str]:
    """First, middle and last name: as they were given, or the name's words (a single one is a first name)."""
    given: list[str] = contact.get("nameParts", [])
    name = contact["displayName"]
    if given and _joined(given) == name:
        return given
    words = name.split()
    middle = words[-2][:30] if len(words) > 2 else ""
    first = " ".join(words[: -2 if middle else -1]) if len(words) > 1 else name.strip()
    return [first[:30], middle, words[-1][:30] if len(words) > 1 else ""]


def _joined(parts: list[str]) -> str:
    return " ".join(part for part in parts if part)


def _relate(records: ErpRecords, company: str, old_id: str, new_id: str, app: str) -> None:
    """The contact that stands for one customer stands for another from now on."""
    if new_id == EMPTY_GUID:
        raise refusal("Customer with provided id - does not exist")
    customers = records.rows(company, "customers")
    old, new = customers[old_id].values, customers[new_id].values
    contact_id = old["contactId"]
    given_up = {name: value for name, value in old.items() if name != "contactId"}
    records.store.put(f"{company}/customers", old_id, given_up, note=app, silent=True)
    left = records.rows(company, "contacts").get(new.get("contactId", ""))
    records.store.put(f"{company}/customers", new_id, {**new, "contactId": contact_id}, note=app, silent=True)
    for row in [records.rows(company, "contacts")[contact_id], *([left] if left else [])]:
        for each in (row.values, *_persons(records, company, row.values)):
            _put_contact(records, company, dict(each), app)


def _stood_for(records: ErpRecords, company: str, contact_id: str) -> tuple[str, Stored] | None:
    """The set and the row that a contact stands for."""
    for set_name in _PARTNERS:
        table = records.store.table(f"{company}/{set_name}")
        found = table.index("contactId").get(contact_id)
        if found is not None:
            return set_name, table.rows[found]
    return None


def _partner_of(records: ErpRecords, company: str, contact: Values) -> tuple[str, Stored] | None:
    """What a contact stands for, or its company does."""
    found = _stood_for(records, company, contact["id"])
    if found is None and contact["companyNumber"]:
        company_id = records.store.table(f"{company}/contacts").index("number").get(contact["companyNumber"])
        found = _stood_for(records, company, company_id) if company_id else None
    return found


def _customer_of(records: ErpRecords, company: str, contact: Values) -> Stored | None:
    partner = _partner_of(records, company, contact)
    return partner[1] if partner is not None and partner[0] == "customers" else None


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
        _tell(records, company, before, row, app)


def _add_contact(records: ErpRecords, company: str, partner: Values, app: str) -> None:
    entity_set, takes_type = records.sets["contacts"], records.switches["erp_customer_contact_type"] == "customer"
    row = {
        **entity_set.blank(),
        **_shared(partner),
        "id": partner["contactId"],
        "type": partner.get("type", "Company") if takes_type else "Company",
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


def _tell(records: ErpRecords, company: str, before: Values, after: Values, app: str) -> None:
    """Whoever shows a contact's name shows the one it has now."""
    tell_opportunities(records, company, before, after, app)
    if before["displayName"] != after["displayName"]:
        for person in _persons(records, company, after):
            _put_contact(records, company, dict(person), app)
