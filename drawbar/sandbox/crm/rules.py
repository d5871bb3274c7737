"""What Dataverse makes of a row before it is kept: rules of single tables. Pure.

What every table has in common (owner, money, state) is in `dataverse`.
"""

from __future__ import annotations

from typing import Literal

from drawbar.sandbox.crm.model import CrmError
from drawbar.sandbox.store import Values

NameOrder = Literal["first_middle_last", "first_last", "last_first"]  # an organization's setting
NAME_ORDERS: dict[str, tuple[str, ...]] = {
    "first_middle_last": ("firstname", "middlename", "lastname"),
    "first_last": ("firstname", "lastname"),
    "last_first": ("lastname", "firstname"),
}
_FULL_NAME = 160

OnDelete = Literal["delete", "refuse", "empty"]
# What becomes of the rows that point to a deleted one, by table and lookup; any other lookup is emptied.
ON_DELETE: dict[tuple[str, str], OnDelete] = {
    ("contact", "parentcustomerid"): "delete",
    ("sdkmessageprocessingstep", "eventhandler"): "refuse",
    ("sdkmessageprocessingstepimage", "sdkmessageprocessingstepid"): "delete",
    ("annotation", "objectid"): "delete",
    ("duplicaterulecondition", "regardingobjectid"): "delete",
    ("uom", "uomscheduleid"): "delete",
    ("uom", "baseuom"): "refuse",
    ("product", "defaultuomid"): "refuse",
    ("product", "defaultuomscheduleid"): "refuse",
    ("product", "parentproductid"): "refuse",
    ("productpricelevel", "pricelevelid"): "delete",
    ("productpricelevel", "productid"): "delete",
    ("productpricelevel", "uomid"): "refuse",
    ("quote", "customerid"): "delete",
    ("quote", "opportunityid"): "delete",
    ("quote", "pricelevelid"): "refuse",
    ("salesorder", "customerid"): "refuse",
    ("salesorder", "opportunityid"): "refuse",
    ("salesorder", "pricelevelid"): "refuse",
    ("invoice", "customerid"): "refuse",
    ("invoice", "opportunityid"): "refuse",
    ("invoice", "pricelevelid"): "refuse",
    ("opportunity", "customerid"): "delete",
    ("quotedetail", "quoteid"): "delete",
    ("salesorderdetail", "salesorderid"): "delete",
    ("invoicedetail", "invoiceid"): "delete",
    ("opportunityclose", "opportunityid"): "delete",
    ("quoteclose", "quoteid"): "delete",
    ("orderclose", "salesorderid"): "delete",
    ("opportunityproduct", "opportunityid"): "delete",
    ("discount", "discounttypeid"): "delete",
    ("productpricelevel", "discounttypeid"): "refuse",
    **{
        (table, name): "refuse"
        for table in ("opportunityproduct", "quotedetail", "salesorderdetail", "invoicedetail")
        for name in ("productid", "uomid")
    },
}


# What is priced in a currency, owned by somebody or in a business unit is never without, so those stay.
_NEVER_EMPTY = frozenset(("transactioncurrencyid", "ownerid", "businessunitid"))


def on_delete(table: str, lookup: str) -> OnDelete:
    return "refuse" if lookup in _NEVER_EMPTY else ON_DELETE.get((table, lookup), "empty")


def full_name(row: Values, order: str) -> str | None:
    parts = [row.get(name) for name in NAME_ORDERS[order]]
    return (", " if order == "last_first" else " ").join(part for part in parts if part)[:_FULL_NAME] or None


def mirror_customer(row: Values, customer: str, contact: str) -> None:
    """A customer once more, under the name of its kind: `accountid`, or the column that `contact` names."""
    row_id, kind = row.get(customer), row.get(f"{customer}@type")
    row["accountid"] = row_id if kind == "account" else None
    row[contact] = row_id if kind == "contact" else None


def backdate(row: Values) -> None:
    """A row that was made elsewhere before keeps that day; when it came here is kept beside it."""
    day = row.get("overriddencreatedon")
    if day is not None:
        row["createdon"], row["overriddencreatedon"] = f"{day[:10]}T00:00:00Z", str(row["createdon"])[:10]


def check_currency(
    row_id: str, row: Values, before: Values | None, *, base: str | None, others: dict[str, Values]
) -> None:
    """A code stands for one currency; the base currency stays what it is."""
    code = str(row.get("isocurrencycode") or "")
    if before is None:
        if not code.isalpha() or len(code) != 3:
            raise CrmError(400, "0x80048cf2", "Invalid ISO currency code.")
        row["isocurrencycode"] = code = code.upper()
        if any(other.get("isocurrencycode") == code for other in others.values()):
            raise CrmError(
                400,
                "0x80048cf3",
                "Cannot insert duplicate currency record. Currency with the same currency code already exist in the"
                " system.",
            )
    rate = row.get("exchangerate")
    if rate is None or rate <= 0:
        raise CrmError(400, "0x80048cfd", "The exchange rate is invalid.")
    if before is not None and row_id == base:
        if rate != before.get("exchangerate"):
            raise CrmError(400, "0x80048cf5", "The exchange rate of the base currency cannot be modified.")
        if row.get("statecode") != 0:
            raise CrmError(400, "0x80048cf4", "The base currency cannot be deactivated.")


def check_delete(logical: str, row_id: str, *, base: str | None) -> None:
    if logical == "transactioncurrency" and row_id == base:
        raise CrmError(400, "0x80048cff", "The base currency of an organization cannot be deleted.")
