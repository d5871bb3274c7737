"""Items of the demo data. They have a generator of their own, like contacts.

There are no orders: a customer who has one cannot be deleted.
"""

from __future__ import annotations

import random
import uuid
from typing import Any, Protocol

from drawbar.sandbox.store import Values

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


class Ground(Protocol):
    @property
    def tenant_id(self) -> str: ...
    def in_erp(self, set_name: str, **values: Any) -> Values: ...


def plant_items(ground: Ground) -> None:
    generator = random.Random(f"items {ground.tenant_id}")  # noqa: S311 - reproducible, not secret

    def put(set_name: str, **values: Any) -> Values:
        return ground.in_erp(set_name, id=str(uuid.UUID(int=generator.getrandbits(128), version=4)), **values)

    for code, name, standard in _UNITS:
        put("unitsOfMeasure", code=code, displayName=name, internationalStandardCode=standard)
    for code, name in _CATEGORIES:
        put("itemCategories", code=code, displayName=name)
    for at in range(ITEMS):
        category = _CATEGORIES[at % len(_CATEGORIES)][0]
        goods = _GOODS[category][at // len(_CATEGORIES) % 4]
        service = category == "SERVICE"
        item = put(
            "items",
            displayName=f"{goods}, {_MAKES[at % len(_MAKES)]}",
            type="Service" if service else "Inventory",
            itemCategoryCode=category,
            baseUnitOfMeasureCode="HOUR" if service else ("PCS", "BOX", "KG")[at % 3],
            unitPrice=round(generator.uniform(2, 400), 2),
            unitCost=round(generator.uniform(1, 150), 2),
            gtin="" if service or at % 3 else f"40063813{at:05d}",
            blocked=at % 17 == 16,
        )
        for variant in ("OAK", "ASH")[: at % 3] if category == "TIMBER" else ():
            put("itemVariants", itemId=item["id"], code=variant, description=f"{goods}, {variant.lower()}")
