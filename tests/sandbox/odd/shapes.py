"""What of each set and table a request can name, taken from the services and the rows that a world has."""

from __future__ import annotations

from typing import Any

from drawbar.sandbox.crm.actions import BOUND
from drawbar.sandbox.crm.model import LOOKUPS, Entity
from drawbar.sandbox.erp.model import Column, EntitySet, entity_sets
from drawbar.sandbox.erp.posting import ACTIONS
from tests.sandbox.in_process import World
from tests.sandbox.odd.queries import Shape


def erp_shapes(world: World) -> dict[str, Shape]:
    company = world.info["erp"]["company_id"]
    return {name: _erp_shape(world, company, entity_set) for name, entity_set in entity_sets().items()}


def _erp_shape(world: World, company: str, entity_set: EntitySet) -> Shape:
    rows = world.erp.records.candidates(company, entity_set)
    return Shape(
        name=entity_set.name,
        columns={column.name: column.type for column in entity_set.columns.values()},
        body=[*entity_set.columns, *entity_set.collections],
        navigations=list(entity_set.navigations),
        collections=list(entity_set.collections),
        actions=[action for set_name, action in ACTIONS if set_name == entity_set.name],
        ids=[stored.values[entity_set.id] for stored in rows][:8],
        writable=[column.name for column in entity_set.columns.values() if column.access in ("write", "create")],
        fitting={column.name: _fitting_erp(world, company, column) for column in entity_set.columns.values()},
        base=world.bases["erp"].get(entity_set.name, {"displayName": "New", "code": "NEW"}),
    )


def _fitting_erp(world: World, company: str, column: Column) -> list[Any]:
    if column.relation is None:
        return list(column.options)
    set_name, key = column.relation
    return [stored.values[key] for stored in world.erp.records.rows(company, set_name).values()][:4]


def _fitting_crm(world: World, entity: Entity, bind: str) -> list[str]:
    _, targets = entity.navigations[bind.removesuffix("@odata.bind")]
    found = [
        (world.crm.records.entities[target].set, target) for target in targets if target in world.crm.records.entities
    ]
    return [
        f"/{set_name}({row_id})"
        for set_name, target in found
        for row_id in list(world.crm.store.table(target).rows)[:3]
    ]


def crm_shapes(world: World) -> dict[str, Shape]:
    return {entity.set: _crm_shape(world, entity) for entity in world.crm.records.entities.values()}


def _crm_shape(world: World, entity: Entity) -> Shape:
    binds = [f"{name}@odata.bind" for name in entity.navigations]
    return Shape(
        name=entity.set,
        columns={attribute.wire_name: attribute.type for attribute in entity.attributes.values()},
        body=[*(a.name for a in entity.attributes.values() if "@" not in a.name), *binds, *binds],
        navigations=list(entity.navigations),
        collections=list(entity.collections),
        actions=[name for name, table in BOUND.items() if table == entity.logical],
        ids=list(world.crm.store.table(entity.logical).rows)[:8],
        writable=[*(a.name for a in entity.attributes.values() if a.write and a.type not in LOOKUPS), *binds],
        fitting={a.name: list(a.options) for a in entity.attributes.values() if a.options}
        | {bind: _fitting_crm(world, entity, bind) for bind in binds},
        base=world.bases["crm"].get(entity.set, {"name": "New"}),
        keys=[
            [entity.attributes[column].wire_name for column in key.columns]
            for key in world.crm.records.keys.of(entity)
            if key.active
        ],
    )
