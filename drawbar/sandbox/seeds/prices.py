"""Prices of a large company, in the pages of a partner: what everybody pays, groups of customers, single customers.

They have a generator of their own, like contacts and items.
"""

from __future__ import annotations

from collections.abc import Iterable

from drawbar.sandbox.seeds.ground import Bed, Ground
from drawbar.sandbox.store import Values

BOX = 12  # pieces
GROUPS = (("WHOLESALE", "Wholesale", 0.8), ("RETAIL", "Retail chains", 0.9), ("KEY", "Key accounts", 0.75))
OF_ONE_CUSTOMER = 20  # price lists for each 1,000 customers
RESOURCES = 5  # for each 1,000 customers
_AGENTS = (("DHL", "DHL Systems, Inc.", "www.dhl.example"), ("OWNLOG", "Own Logistics", ""))
_SERVICES = ("Fitting", "Delivery", "Consulting", "Repair", "Training")


def plant_prices(ground: Ground, customers: list[Values], items: list[Values], *, scale: int) -> None:
    _Prices(ground, f"prices {scale}").plant(customers, items, scale)


class _Prices(Bed):
    def plant(self, customers: list[Values], items: list[Values], scale: int) -> None:
        for code, name, address in _AGENTS:
            self._in_erp("shippingAgents", code=code, displayName=name, internetAddress=address)
        self._in_erp("unitsOfMeasure", code="BOX", displayName="Box", internationalStandardCode="BX")
        self._in_erp("unitsOfMeasure", code="HOUR", displayName="Hour", internationalStandardCode="HUR")
        for item in items[::3]:
            self._in_erp("itemUnitsOfMeasure", itemId=item["id"], code="BOX", quantityPerUnitOfMeasure=BOX)
        for number in range(RESOURCES * scale):
            name = f"{_SERVICES[number % len(_SERVICES)]} {number // len(_SERVICES) + 1}"
            self._in_erp(
                "resources",
                number=f"R{number + 1:04d}",
                displayName=name,
                baseUnitOfMeasureCode="HOUR",
                unitPrice=self._random.randrange(40, 160, 5),
            )
        self._list("ALL", "All customers", ((item, item["unitPrice"]) for item in items), boxes=True)
        for code, name, share in GROUPS:
            self._in_erp("customerPriceGroups", code=code, displayName=name)
            lines = ((item, round(item["unitPrice"] * share, 2)) for item in items if self._random.random() < 0.7)
            self._list(code, name, lines, sourceType="Customer_x0020_Price_x0020_Group", sourceNumber=code)
        for at, customer in enumerate(self._random.sample(customers, OF_ONE_CUSTOMER * scale)):
            chosen = self._random.sample(items, 5)
            lines = ((item, round(item["unitPrice"] * self._random.uniform(0.6, 0.95), 2)) for item in chosen)
            name = f"Agreed with {customer['displayName']}"
            self._list(f"C{at + 1:05d}", name, lines, sourceType="Customer", sourceNumber=customer["number"])

    def _list(
        self, code: str, name: str, lines: Iterable[tuple[Values, float]], *, boxes: bool = False, **source: str
    ) -> None:
        """One that is in force. `boxes`: those who buy twelve pay ten."""
        made = self._in_erp("priceLists", code=code, description=name, amountType="Price", **source)
        for item, price in lines:
            line = {"priceListId": made["id"], "assetType": "Item", "assetNumber": item["number"]}
            self._in_erp("priceListLines", **line, unitPrice=price)
            if boxes:
                self._in_erp("priceListLines", **line, minimumQuantity=BOX, unitPrice=round(price * 10 / BOX, 2))
        change = {"set": "priceLists", "id": made["id"], "values": {"status": "Active"}}
        self._ground.erp.edit(change, app="setup")
