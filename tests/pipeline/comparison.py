"""Whether both systems agree: written down once more, from what the mapping is meant to do, on purpose.

Reads the sandbox's tables, the couplings and the dead letters; shares no code with what it judges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tests.pipeline.installation import Installation

Row = Mapping[str, Any]

TEXTS = {  # customer -> account, and the length that both can hold
    "displayName": ("name", 100),
    "addressLine1": ("address1_line1", 100),
    "addressLine2": ("address1_line2", 50),
    "city": ("address1_city", 30),
    "state": ("address1_stateorprovince", 30),
    "email": ("emailaddress1", 80),
    "website": ("websiteurl", 200),
    "phoneNumber": ("telephone1", 30),
}
CODES = {"country": "address1_country", "postalCode": "address1_postalcode"}
TERMS = {"NET 30": 1, "2% 10": 2, "NET 45": 3, "NET 60": 4}
METHODS = {"FOB": 1, "NO CHARGE": 2}


def disagreements(system: Installation, *, open_letters: Iterable[str] = ()) -> list[str]:
    """What is not as it must be once it is quiet, in words.

    Each pair that the tests know exists, once on each side, coupled, and its fields are equal; there is nothing else;
    and nothing waits in a dead letter but the records in `open_letters`.
    """
    customers, accounts = system.rows("erp"), system.rows("crm")
    coupled = [(line["mapping"], line["erp_id"], line["crm_id"]) for line in system.lines("couplings", "list")]
    people = {row["id"]: row["code"] for row in system.truth("erp", "salespeoplePurchasers")}
    pairs = Counter((erp, crm) for mapping, erp, crm in coupled if mapping == "customer-account")
    wanted = Counter(system.pairs.items())

    found = _is_there("customer", customers, set(system.pairs), system.apart)
    found += _is_there("account", accounts, set(system.pairs.values()), system.apart)
    found += [f"{erp} and {crm} are not coupled" for erp, crm in (wanted - pairs)]
    found += [f"{erp} and {crm} are coupled, {count} times too often" for (erp, crm), count in (pairs - wanted).items()]
    found += _twins("customers", (row["displayName"] for row in customers.values()))
    found += _twins("accounts", (row["name"] for row in accounts.values()))
    owners = {people[erp]: crm for mapping, erp, crm in coupled if mapping == "salesperson-systemuser"}
    compare = _Comparison(system, owners)
    for erp, crm in system.pairs.items():
        if erp in customers and crm in accounts:
            found += compare(customers[erp], accounts[crm])
    expected = set(open_letters)
    found += [
        f"a dead letter is open: {letter['ref']} {letter['slug']} {letter['detail']}"
        for letter in system.letters()
        if letter["ref"].rpartition(":")[2] not in expected
    ]
    return found


def lost(system: Installation, expected: Mapping[tuple[str, str], str]) -> list[str]:
    """Edits that are not on both sides. `expected`: (customer, its field) -> the last value written by anybody."""
    customers, accounts = system.rows("erp"), system.rows("crm")
    found = []
    for (erp, field), value in expected.items():
        here, there = customers[erp][field], accounts[system.pairs[erp]][TEXTS[field][0]]
        if not here == there == value:
            found.append(f"{erp} {field}: {value!r} was written, the ERP has {here!r}, the CRM {there!r}")
    return found


def _is_there(what: str, rows: Mapping[str, Row], wanted: set[str], allowed: set[str]) -> list[str]:
    found = [f"{what} {key} is not there" for key in wanted - rows.keys()]
    return found + [f"{what} {key} was made by nobody" for key in rows.keys() - wanted - allowed]


def _twins(what: str, names: Iterable[str]) -> list[str]:
    return [f"{count} {what} of one name: {name}" for name, count in Counter(names).items() if count > 1]


class _Comparison:
    """Compares a customer with an account."""

    def __init__(self, system: Installation, owners: Mapping[str, str]) -> None:
        self._terms = {row["id"]: TERMS.get(row["code"]) for row in system.truth("erp", "paymentTerms")}
        self._methods = {row["id"]: METHODS.get(row["code"]) for row in system.truth("erp", "shipmentMethods")}
        self._owners = owners
        company = system.connection["erp"]["company_id"]
        stamps = {row["bcbi_externalid"]: row["bcbi_companyid"] for row in system.truth("crm", "bcbi_companies")}
        self._stamp = stamps[company]

    def __call__(self, customer: Row, account: Row) -> list[str]:
        pairs = {
            field: (_text(customer[field])[:length].strip(), _text(account[other])[:length].strip())
            for field, (other, length) in TEXTS.items()
        }
        pairs |= {field: (_text(customer[field]), _text(account[other]).upper()) for field, other in CODES.items()}
        exact = {
            "creditLimit": (float(customer["creditLimit"] or 0), float(account["creditlimit"] or 0)),
            "paymentTermsId": (self._terms.get(customer["paymentTermsId"]), account["paymenttermscode"]),
            "shipmentMethodId": (self._methods.get(customer["shipmentMethodId"]), account["address1_freighttermscode"]),
            "company stamp": (self._stamp, account["_bcbi_companyid_value"]),
            "customertypecode": (3, account["customertypecode"]),
        }
        owner = self._owners.get(customer["salespersonCode"])
        if owner is not None:
            exact["salespersonCode"] = (owner, account["_ownerid_value"])
        return [
            f"{customer['id']} {field}: the ERP has {here!r}, the CRM {there!r}"
            for field, (here, there) in (pairs | exact).items()
            if here != there
        ]


def _text(value: Any) -> str:
    return "" if value is None else str(value)
