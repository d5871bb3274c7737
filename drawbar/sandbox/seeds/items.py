"""Items of the demo data. They have a generator of their own, like contacts.

There are no orders: a customer who has one cannot be deleted.
"""

from __future__ import annotations

from drawbar.sandbox.seeds.ground import Bed, Ground

ITEMS = 36
_UNITS = (("PCS", "Piece", "EA"), ("BOX", "Box", "BX"), ("KG", "Kilogram", "KGM"), ("HOUR", "Hour", "HUR"))
_CATEGORIES = (("HARDWARE", "Hardware"), ("LIGHTING", "Lighting"), ("TIMBER", "Timber"), ("SERVICE", "Services"))
_GOODS = {
    "HARDWARE": ("Hinge", "Cleat", "Bolt set", "Bracket"),
    "LIGHTING": ("Lantern", "Lamp shade", "Wall light", "Bulb"),
    "TIMBER": ("Oak board", "Larch plank", "Birch ply", "Beech dowel"),
    "SERVICE": ("Fitting", "Sharpening", "Delivery", "Inspection"),
}
_MAKES = ("small", "large", "brass", "galvanised", "Größe L", "n° 7", "weiß lackiert", "marine grade")


def plant_items(ground: Ground) -> None:
    _Planter(ground, "items").plant()


class _Planter(Bed):
    def plant(self) -> None:
        for code, name, standard in _UNITS:
            self._in_erp("unitsOfMeasure", code=code, displayName=name, internationalStandardCode=standard)
        for code, name in _CATEGORIES:
            self._in_erp("itemCategories", code=code, displayName=name)
        for at in range(ITEMS):
            category = _CATEGORIES[at % len(_CATEGORIES)][0]
            goods = _GOODS[category][at // len(_CATEGORIES) % 4]
            service = category == "SERVICE"
            item = self._in_erp(
                "items",
                displayName=f"{goods}, {_MAKES[at % len(_MAKES)]}",
                type="Service" if service else "Inventory",
                itemCategoryCode=category,
                baseUnitOfMeasureCode="HOUR" if service else ("PCS", "BOX", "KG")[at % 3],
                unitPrice=round(self._random.uniform(2, 400), 2),
                unitCost=round(self._random.uniform(1, 150), 2),
                gtin="" if service or at % 3 else f"40063813{at:05d}",
                blocked=at % 17 == 16,
            )
            for variant in ("OAK", "ASH")[: at % 3] if category == "TIMBER" else ():
                self._in_erp("itemVariants", itemId=item["id"], code=variant, description=f"{goods}, {variant.lower()}")
