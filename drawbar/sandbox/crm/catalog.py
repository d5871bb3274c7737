"""Dataverse's product catalogue: units in their groups, products, price lists and what stands on them.

Sources: https://learn.microsoft.com/dynamics365/sales/set-up-product-catalog-walkthrough,
https://learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes
"""

from __future__ import annotations

from collections.abc import Mapping

from drawbar.sandbox.crm.model import CrmError
from drawbar.sandbox.crm.organization import setting
from drawbar.sandbox.crm.pricing import Method
from drawbar.sandbox.crm.records import CrmRecords, TableRules
from drawbar.sandbox.crm.states import check_write, no_move
from drawbar.sandbox.store import Values

ACTIVE, RETIRED, DRAFT, REVISED = range(4)  # states of a product
FAMILY = 2  # of `productstructure`
PERCENT_LIMIT = 100_000


def refused(code: str, message: str) -> CrmError:
    return CrmError(400, code, message)


def missing_unit() -> CrmError:
    return refused("0x80043b0d", "The unit id is missing.")


def row_of(records: CrmRecords, table: str, row_id: str | None) -> Values | None:
    stored = records.store.table(table).rows.get(row_id or "")
    return stored.values if stored else None


def stands_elsewhere(records: CrmRecords, table: str, column: str, row_id: str, row: Values) -> bool:
    """Whether another row has what this one has in a column. Nothing stands nowhere."""
    value = row.get(column)
    return bool(value) and any(other != row_id for other in records.store.table(table).having(column, value))


def check_unit(records: CrmRecords, product: Values, unit_id: str) -> None:
    """A product is sold in the units of its group."""
    unit = row_of(records, "uom", unit_id) or {}
    if unit.get("uomscheduleid") != product.get("defaultuomscheduleid"):
        raise refused("0x80043b14", "The specified unit is not valid for this product.")


class UnitGroupRules(TableRules):
    def admit(self, records: CrmRecords, row: Values, before: Values | None, written: set[str]) -> None:  # noqa: ARG002
        if before is None and row.get("baseuomname") is None:
            raise refused("0x80043810", "baseuomname not specified")

    def after(
        self, records: CrmRecords, row_id: str, before: Values | None, after: Values | None, *, user: Values
    ) -> None:
        """A group is made with its primary unit."""
        if before is None and after is not None:
            unit = {
                "name": after["baseuomname"],
                "uomscheduleid": row_id,
                "isschedulebaseuom": True,
                "quantity": 1,
            }
            records.make(records.entities["uom"], unit, user=user)


class UnitRules(TableRules):
    def admit(self, records: CrmRecords, row: Values, before: Values | None, written: set[str]) -> None:
        if row.get("uomscheduleid") is None:
            raise refused("0x80043b0a", "The unit schedule id is missing.")
        if row.get("isschedulebaseuom"):
            if "quantity" in written:
                raise refused("0x80043b18", "Do not modify the Quantity field when you update the primary unit.")
            if row.get("baseuom") is not None:
                raise refused(
                    "0x80043b17",
                    "Do not use a base unit as the value for a primary unit. This value should always be null.",
                )
        elif row.get("baseuom") is not None:
            self._check_base(records, row, before)

    @staticmethod
    def _check_base(records: CrmRecords, row: Values, before: Values | None) -> None:
        base = row_of(records, "uom", row["baseuom"])
        if base is None or base.get("uomscheduleid") != row["uomscheduleid"]:
            raise refused("0x80043b0b", "The base unit does not belong to the schedule.")
        while base is not None:
            if before is not None and base["uomid"] == before["uomid"]:
                raise refused("0x80043b1a", "Using this base unit would create a loop in the unit hierarchy.")
            base = row_of(records, "uom", base.get("baseuom"))

    def settle(
        self,
        records: CrmRecords,
        row_id: str,  # noqa: ARG002
        row: Values,
        before: Values | None,  # noqa: ARG002
        *,
        user: Values,  # noqa: ARG002
    ) -> None:
        """A unit that names no other is made of the primary one."""
        if not row.get("isschedulebaseuom") and row.get("baseuom") is None:
            units = records.store.table("uom")
            row["baseuom"] = next(
                (
                    unit_id
                    for unit_id in units.having("uomscheduleid", row["uomscheduleid"])
                    if units.rows[unit_id].values.get("isschedulebaseuom")
                ),
                None,
            )

    def admit_delete(self, records: CrmRecords, row: Values) -> None:  # noqa: ARG002
        if row.get("isschedulebaseuom"):
            raise refused("0x80043b03", "The base unit of a schedule cannot be deleted.")


class ProductRules(TableRules):
    def admit(self, records: CrmRecords, row: Values, before: Values | None, written: set[str]) -> None:
        check_write(records.entities["product"], row, before, written)
        if row.get("productstructure") != FAMILY:
            if row.get("defaultuomscheduleid") is None:
                raise refused("0x80043b0a", "The unit schedule id is missing.")
            if row.get("defaultuomid") is None:
                raise missing_unit()
            check_unit(records, row, row["defaultuomid"])
        parent = row_of(records, "product", row.get("parentproductid"))
        if parent is not None and parent.get("productstructure") != FAMILY:
            raise refused("0x8004f973", "Only Product Families can be parents to products.")

    def settle(
        self,
        records: CrmRecords,
        row_id: str,
        row: Values,
        before: Values | None,
        *,
        user: Values,  # noqa: ARG002
    ) -> None:
        if stands_elsewhere(records, "product", "productnumber", row_id, row):
            raise refused(
                "0x80043b06",
                "The specified product ID conflicts with the product ID of an existing record. Specify a different"
                " product ID and try again.",
            )
        is_alone = row.get("parentproductid") is None and row.get("productstructure") != FAMILY
        if before is None and is_alone and setting(records, "createproductswithoutparentinactivestate"):
            row["statecode"], row["statuscode"] = ACTIVE, 1

    def after(
        self, records: CrmRecords, row_id: str, before: Values | None, after: Values | None, *, user: Values
    ) -> None:
        """Its lines on price lists show the number of a product."""
        if before is None or after is None or before.get("productnumber") == after.get("productnumber"):
            return
        number = {"productnumber": after.get("productnumber")}
        for item_id in records.store.table("productpricelevel").having("productid", row_id):
            records.alter(records.entities["productpricelevel"], item_id, number, user=user)


class PriceListRules(TableRules):
    def settle(
        self,
        records: CrmRecords,
        row_id: str,
        row: Values,
        before: Values | None,  # noqa: ARG002
        *,
        user: Values,  # noqa: ARG002
    ) -> None:
        is_taken = stands_elsewhere(records, "pricelevel", "name", row_id, row)
        if is_taken and records.switches["crm_price_list_names"] == "unique":
            raise refused("0x80043b0f", "The name already exists.")


class PriceItemRules(TableRules):
    def admit(self, records: CrmRecords, row: Values, before: Values | None, written: set[str]) -> None:  # noqa: ARG002
        if row.get("pricelevelid") is None:
            raise refused("0x80043b12", "The price level id is missing.")
        if row.get("uomid") is None:
            raise missing_unit()
        product = row_of(records, "product", row.get("productid"))
        if product is None:
            return  # a required column, of which the platform tells
        if product.get("productstructure") == FAMILY:
            raise refused("0x8004f902", "You can't add a product family to a pricelist.")
        if before is None and product["statecode"] == RETIRED:
            raise refused("0x80061009", "Retired products can not be added to pricelists.")
        check_unit(records, product, row["uomid"])
        discounts = row_of(records, "discounttype", row.get("discounttypeid"))
        of_amounts = discounts is not None and discounts.get("isamounttype")
        if discounts and of_amounts and discounts.get("transactioncurrencyid") != self._currency(records, row):
            raise refused(
                "0x80048cf8",
                "The currency of the discount needs to match the currency of the price list for discount type amount.",
            )
        if row.get("pricingmethodcode") != Method.AMOUNT:
            if not 0 <= (row.get("percentage") or 0) < PERCENT_LIMIT:
                raise refused(
                    "0x80043b0c",
                    "The pricing percentage must be greater than or equal to zero and less than 100000.",
                )
            if product.get("transactioncurrencyid") != self._currency(records, row):
                raise refused(
                    "0x80048cf9",
                    "The currency of the price list needs to match the currency of the product for pricing method"
                    " percentage.",
                )

    @staticmethod
    def _currency(records: CrmRecords, row: Values) -> str | None:
        return (row_of(records, "pricelevel", row["pricelevelid"]) or {}).get("transactioncurrencyid")

    def settle(
        self,
        records: CrmRecords,
        row_id: str,
        row: Values,
        before: Values | None,  # noqa: ARG002
        *,
        user: Values,  # noqa: ARG002
    ) -> None:
        """Currency, number and unit group are those of its list, product and unit, and it stands there once."""
        row["transactioncurrencyid"] = self._currency(records, row)
        row["productnumber"] = (row_of(records, "product", row.get("productid")) or {}).get("productnumber")
        row["uomscheduleid"] = (row_of(records, "uom", row["uomid"]) or {}).get("uomscheduleid")
        if any(
            other != row_id for other in price_items(records, row["pricelevelid"], row.get("productid"), row["uomid"])
        ):
            raise refused("0x80043b08", "This product and unit combination has a price for this price list.")


def price_items(records: CrmRecords, list_id: str, product_id: str | None, unit_id: str | None) -> list[str]:
    """Ids of what stands on a price list for a product in a unit: one at most, but while another is made."""
    items = records.store.table("productpricelevel")
    return [
        item_id
        for item_id in items.having("productid", product_id)
        if items.rows[item_id].values["pricelevelid"] == list_id and items.rows[item_id].values["uomid"] == unit_id
    ]


def publish(records: CrmRecords, product_id: str, *, user: Values) -> None:
    """A product becomes active, and with a family what is below it and not retired."""
    entity = records.entities["product"]
    product = records.find(entity, product_id).values
    if product["statecode"] not in (DRAFT, REVISED):
        raise no_move(entity, product["statecode"], ACTIVE, 1)
    parent = row_of(records, "product", product.get("parentproductid"))
    if parent is not None and parent["statecode"] != ACTIVE:
        raise no_move(entity, DRAFT, ACTIVE, 1)
    records.alter(entity, product_id, {"statecode": ACTIVE, "statuscode": 1}, user=user)
    for child_id in records.store.table("product").having("parentproductid", product_id):
        if records.find(entity, child_id).values["statecode"] in (DRAFT, REVISED):
            publish(records, child_id, user=user)


CATALOG_RULES: Mapping[str, TableRules] = {
    "uomschedule": UnitGroupRules(),
    "uom": UnitRules(),
    "product": ProductRules(),
    "pricelevel": PriceListRules(),
    "productpricelevel": PriceItemRules(),
}
