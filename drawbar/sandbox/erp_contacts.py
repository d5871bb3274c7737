"""How Business Central's contacts and customers hang together: what one says of the other. Pure.

A customer has a contact of its own, made with it. Both say the same in the fields they share, whichever of them is
written. Persons belong to the contact of a company and bear its name.
"""

from __future__ import annotations

from drawbar.sandbox.store import Values

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


def shared_with_contact(row: Values) -> Values:
    """What a customer and its contact both say."""
    return {name: row[name] for name in _SHARED}


def settle_contact(row: Values, before: Values | None) -> None:
    """A company is its own company; the search name follows the name until somebody gives it one of its own."""
    if row["type"] == "Company":
        row["companyNumber"], row["companyName"] = row["number"], row["displayName"]
    elif row["companyNumber"] in ("", row["number"]):
        row["companyNumber"], row["companyName"] = "", ""
    followed = before["displayName"].upper() if before else ""
    if row["searchName"] in ("", followed):
        row["searchName"] = row["displayName"].upper()


def contact_information(contact: Values, customer: Values) -> Values:
    return {
        "contactId": contact["id"],
        "contactNumber": contact["number"],
        "contactName": contact["displayName"],
        "contactType": contact["type"],
        "relatedId": customer["id"],
        "relatedType": "Customer",
    }
