"""Roles and privileges of a sandbox, planted at every start: what is there already stays as it is.

They come after everything else and have ids that follow from their names, so that all other rows keep theirs; a
database from before there were roles gets them at its next start, and new tables their privileges.
"""

from __future__ import annotations

import uuid

from drawbar.sandbox.crm.access import (
    ACT_FOR_OTHERS,
    Depth,
    depths_of,
    privilege_id,
    privilege_name,
    privileges_of,
    rights_of,
)
from drawbar.sandbox.crm.associations import join, pair_id
from drawbar.sandbox.crm.model import Entity, Right
from drawbar.sandbox.crm.records import CrmRecords
from drawbar.sandbox.crm.roles import give
from drawbar.sandbox.crm.security import ADMINISTRATOR
from drawbar.sandbox.store import Values

_OWN: tuple[Right, ...] = ("create", "write", "delete", "append", "assign", "share")  # of a seller: his own rows alone


def plant_roles(records: CrmRecords) -> None:
    store = records.store
    units = store.table("businessunit").rows.items()
    root = next((unit_id for unit_id, unit in units if unit.values.get("parentbusinessunitid") is None), None)
    if root is None:
        return
    with store.transaction():
        _plant_privileges(records)
        organization = uuid.UUID(str(store.fact("organization_id")))
        administrator = str(uuid.uuid5(organization, "System Administrator"))
        is_first = administrator not in store.table("role").rows
        if is_first:
            _role(records, administrator, "System Administrator", root, roletemplateid=ADMINISTRATOR)
        for name, (_, depths) in privileges_of(records.entities.values()).items():
            give(records, administrator, privilege_id(name), max(depths))
        if is_first:
            delegate = str(uuid.uuid5(organization, "Delegate"))
            _role(records, delegate, "Delegate", root)
            give(records, delegate, privilege_id(ACT_FOR_OTHERS), Depth.GLOBAL)
            seller = str(uuid.uuid5(organization, "Salesperson"))
            _role(records, seller, "Salesperson", root)
            for entity in records.entities.values():
                for right in rights_of(entity):
                    _let_sell(records, seller, entity, right)
            _give_out(records, administrator, seller)


def _plant_privileges(records: CrmRecords) -> None:
    rows = records.store.table("privilege").rows
    for name, (mask, depths) in privileges_of(records.entities.values()).items():
        row_id = privilege_id(name)
        if row_id not in rows:
            row: Values = {"privilegeid": row_id, "name": name, "accessright": mask}
            row |= {f"canbe{depth.name.lower()}": depth in depths for depth in Depth}
            row |= {"canbeentityreference": False, "canbeparententityreference": False}
            records.store.put("privilege", row_id, row)


def _role(records: CrmRecords, role_id: str, name: str, unit_id: str, **more: str) -> None:
    system = next(iter(records.store.table("systemuser").rows.values())).values
    values: Values = {"roleid": role_id, "name": name, "businessunitid": unit_id, **more}
    records.make(records.entities["role"], values, user=system)


def _let_sell(records: CrmRecords, role_id: str, entity: Entity, right: Right) -> None:
    """Everything is read and pointed to; rows that have an owner are made and changed by him."""
    if right in ("read", "appendto"):
        depth = max(depths_of(entity))
    elif right in _OWN and entity.ownership == "user":
        depth = Depth.BASIC
    else:
        return
    pair = pair_id(
        records.entities["role"].associations["roleprivileges_association"],
        role_id,
        privilege_id(privilege_name(entity, right)),
    )
    if pair not in records.store.table("roleprivileges").rows:
        give(records, role_id, privilege_id(privilege_name(entity, right)), depth)


def _give_out(records: CrmRecords, administrator: str, seller: str) -> None:
    """Applications and the system may do everything; licensed people, and the teams that own rows, sell."""
    users = records.entities["systemuser"].associations["systemuserroles_association"]
    teams = records.entities["team"].associations["teamroles_association"]
    copies = {
        stored.values["businessunitid"]: role_id
        for role_id, stored in records.store.table("role").rows.items()
        if stored.values["parentrootroleid"] == seller
    }
    for user_id, stored in records.store.table("systemuser").rows.items():
        if stored.values.get("applicationid") or stored.values.get("accessmode") == 3:
            join(records, users, user_id, administrator)
        elif stored.values.get("islicensed"):
            join(records, users, user_id, copies.get(stored.values["businessunitid"], seller))
    for team_id, stored in records.store.table("team").rows.items():
        join(records, teams, team_id, copies.get(stored.values["businessunitid"], seller))
