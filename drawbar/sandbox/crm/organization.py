"""The row of Dataverse's own organization, and what its settings mean to others.

It is read and changed; none is made or taken away. Only the columns that change something here are served.
Sources: https://learn.microsoft.com/power-apps/developer/data-platform/reference/entities/organization,
https://learn.microsoft.com/dynamics365/sales/developer/product-discounting-methods
"""

from __future__ import annotations

from collections.abc import Mapping

from drawbar.sandbox.crm.model import CrmError
from drawbar.sandbox.crm.records import CrmRecords, TableRules
from drawbar.sandbox.store import Values

DEFAULTS: Values = {
    "createproductswithoutparentinactivestate": False,
    "discountcalculationmethod": 0,
    "expirechangetrackingindays": 7,
    "invoiceprefix": "INV",
    "ispricelistmandatory": True,
    "oobpricecalculationenabled": True,
    "orderprefix": "ORD",
    "quoteprefix": "QUO",
}
PER_UNIT = 1  # of `discountcalculationmethod`; the other one is of a whole line


def setting(records: CrmRecords, name: str) -> object:
    """A setting as it is now; what nobody has set is as a new organization has it."""
    stored = records.store.table("organization").rows.get(str(records.store.fact("organization_id")))
    value = stored.values.get(name) if stored else None
    return DEFAULTS[name] if value is None else value


class OrganizationRules(TableRules):
    def admit(self, records: CrmRecords, row: Values, before: Values | None, written: set[str]) -> None:  # noqa: ARG002
        if before is None:
            raise _refused("Create")

    def admit_delete(self, records: CrmRecords, row: Values) -> None:  # noqa: ARG002
        raise _refused("Delete")


def _refused(message: str) -> CrmError:
    return CrmError(400, "0x80040800", f"The '{message}' method does not support entities of type 'organization'.")


def make_organization(records: CrmRecords, *, name: str, user: Values) -> None:
    base = records.store.fact("base_currency")
    currency = records.store.table("transactioncurrency").rows[base].values
    values: Values = {
        **DEFAULTS,
        "organizationid": records.store.fact("organization_id"),
        "name": name,
        "basecurrencyid": base,
        "basecurrencysymbol": currency.get("currencysymbol"),
        "basecurrencyprecision": currency.get("currencyprecision"),
    }
    records.make(records.entities["organization"], values, user=user)


ORGANIZATION_RULES: Mapping[str, TableRules] = {"organization": OrganizationRules()}
