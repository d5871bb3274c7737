"""Dataverse's lists of volume discounts: what is taken off the price of a unit when many are bought.

Sources: https://learn.microsoft.com/dynamics365/sales/set-up-discount-list,
https://learn.microsoft.com/dynamics365/sales/price-calculation-opportunity-quote-order-invoice-records
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from drawbar.sandbox.crm.catalog import refused, row_of
from drawbar.sandbox.crm.pricing import ZERO, cents, decimal
from drawbar.sandbox.crm.records import CrmRecords, TableRules
from drawbar.sandbox.store import Values

_HUNDRED = Decimal(100)


class DiscountListRules(TableRules):
    def admit(self, records: CrmRecords, row: Values, before: Values | None, written: set[str]) -> None:  # noqa: ARG002
        if row.get("isamounttype") and row.get("transactioncurrencyid") is None:
            raise refused("0x80048cf7", "The currency cannot be null for discount type amount.")
        if not row.get("isamounttype") and row.get("transactioncurrencyid") is not None:
            raise refused("0x80048cf1", "The currency must be null for discount type percentage.")


class DiscountRules(TableRules):
    def admit(self, records: CrmRecords, row: Values, before: Values | None, written: set[str]) -> None:  # noqa: ARG002
        of_amounts = bool((row_of(records, "discounttype", row.get("discounttypeid")) or {}).get("isamounttype"))
        has_amount, has_percentage = row.get("amount") is not None, row.get("percentage") is not None
        if has_amount and has_percentage:
            raise refused("0x80043b1f", "The 'amount' and 'percentage' of a discount cannot both be given.")
        if has_amount and not of_amounts:
            raise refused("0x80043b20", "The discount type does not support 'amount' discounts.")
        if has_percentage and of_amounts:
            raise refused("0x80043b21", "The discount type does not support 'percentage' discounts.")
        if not has_amount and not has_percentage:
            name = "amount" if of_amounts else "percentage"
            raise refused("0x80040200", f"The required field '{name}' of 'discount' is missing.")
        low, high = row.get("lowquantity"), row.get("highquantity")
        if low is None or high is None:
            return
        if low <= 0:
            raise refused("0x80043b00", "Low quantity should be greater than zero.")
        if low > high:
            raise refused("0x80043b01", "Low quantity should be less than high quantity.")

    def settle(
        self,
        records: CrmRecords,
        row_id: str,
        row: Values,
        before: Values | None,  # noqa: ARG002
        *,
        user: Values,  # noqa: ARG002
    ) -> None:
        """Type and currency are those of its list, in which every quantity has one discount at most."""
        of = row_of(records, "discounttype", row.get("discounttypeid"))
        if of is None or row.get("lowquantity") is None or row.get("highquantity") is None:
            return  # required columns, of which the platform tells
        row["isamounttype"], row["transactioncurrencyid"] = of.get("isamounttype"), of.get("transactioncurrencyid")
        table = records.store.table("discount")
        for other_id in table.having("discounttypeid", row["discounttypeid"]):
            other = table.rows[other_id].values
            if (
                other_id != row_id
                and row["lowquantity"] <= other["highquantity"]
                and (other["lowquantity"] <= row["highquantity"])
            ):
                raise refused("0x80043b02", "The new quantities overlap the range covered by existing quantities.")


def volume_discount(records: CrmRecords, list_id: str | None, quantity: Decimal, price: Decimal) -> Decimal:
    """What a list takes off one unit when so many are bought; whether the list is active does not matter."""
    table = records.store.table("discount")
    for row_id in table.having("discounttypeid", list_id) if list_id else ():
        row = table.rows[row_id].values
        if decimal(row["lowquantity"]) <= quantity <= decimal(row["highquantity"]):
            if row.get("isamounttype"):
                return decimal(row.get("amount"))
            return cents(price * decimal(row.get("percentage")) / _HUNDRED)
    return ZERO


DISCOUNT_RULES: Mapping[str, TableRules] = {"discounttype": DiscountListRules(), "discount": DiscountRules()}
