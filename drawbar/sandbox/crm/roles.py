"""Dataverse's security roles: made once, there again in each business unit below, given privileges by actions.

Sources: https://learn.microsoft.com/power-apps/developer/data-platform/security-roles,
https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/addprivilegesrole
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from drawbar.sandbox.crm.access import RIGHTS, Depth, privileges_of
from drawbar.sandbox.crm.associations import join, pair_id, part_from_all, partners
from drawbar.sandbox.crm.messages import Asked, Message, an_id
from drawbar.sandbox.crm.model import CrmError, Entity
from drawbar.sandbox.crm.records import CrmRecords, TableRules, no_row
from drawbar.sandbox.crm.security import ADMINISTRATOR, Security
from drawbar.sandbox.store import Values

_COPIED = ("name", "description", "isinherited")
_NOBODY = "00000000-0000-0000-0000-000000000000"


class _Joined(TableRules):
    """A row that goes leaves whom it was joined with."""

    table = ""

    def after(
        self,
        records: CrmRecords,
        row_id: str,
        before: Values | None,  # noqa: ARG002
        after: Values | None,
        *,
        user: Values,  # noqa: ARG002
    ) -> None:
        if after is None:
            for association in records.entities[self.table].associations.values():
                part_from_all(records, association, row_id)


class UserRules(_Joined):
    table = "systemuser"


class TeamRules(_Joined):
    table = "team"


class RoleRules(_Joined):
    table = "role"

    def admit(self, records: CrmRecords, row: Values, before: Values | None, written: set[str]) -> None:  # noqa: ARG002
        if before is not None:
            check_own(before)

    def admit_delete(self, records: CrmRecords, row: Values) -> None:  # noqa: ARG002
        if row.get("roletemplateid") == ADMINISTRATOR:
            raise CrmError(400, "0x80041d2e", "The System Administrator Role cannot be deleted.")
        check_own(row)

    def settle(
        self,
        records: CrmRecords,  # noqa: ARG002
        row_id: str,
        row: Values,
        before: Values | None,  # noqa: ARG002
        *,
        user: Values,  # noqa: ARG002
    ) -> None:
        row.setdefault("parentrootroleid", row_id)

    def after(
        self, records: CrmRecords, row_id: str, before: Values | None, after: Values | None, *, user: Values
    ) -> None:
        """What becomes of a role becomes of its copies."""
        super().after(records, row_id, before, after, user=user)
        entity = records.entities["role"]
        if after is not None and after["parentrootroleid"] != row_id:
            return
        if before is None and after is not None:
            copy_down(records, row_id, after, user=user)
            return
        for copy_id in records.store.table("role").having("parentrootroleid", row_id):
            if after is None:
                records.remove(entity, copy_id, user=user, with_another=True)
            elif copy_id != row_id:
                records.alter(entity, copy_id, {name: after.get(name) for name in _COPIED}, user=user)


class BusinessUnitRules(TableRules):
    def admit(self, records: CrmRecords, row: Values, before: Values | None, written: set[str]) -> None:  # noqa: ARG002
        units, parent, seen = records.store.table("businessunit").rows, row.get("parentbusinessunitid"), set()
        while before is not None and parent in units and parent not in seen:
            seen.add(parent)
            if parent == before["businessunitid"]:
                raise CrmError(400, "0x80040203", "A business unit cannot be below itself.")
            parent = units[parent].values.get("parentbusinessunitid")

    def after(
        self, records: CrmRecords, row_id: str, before: Values | None, after: Values | None, *, user: Values
    ) -> None:
        """A new business unit has the roles of that above it."""
        roles = records.store.table("role")
        if after is None:
            for role_id in roles.having("businessunitid", row_id):
                records.remove(records.entities["role"], role_id, user=user, with_another=True)
        elif before is None and after.get("parentbusinessunitid"):
            for role_id in roles.having("businessunitid", after["parentbusinessunitid"]):
                _copy(records, role_id, roles.rows[role_id].values, row_id, user=user)


ROLE_RULES: Mapping[str, TableRules] = {
    "role": RoleRules(),
    "systemuser": UserRules(),
    "team": TeamRules(),
    "businessunit": BusinessUnitRules(),
}


def check_own(role: Values) -> None:
    """Raises CrmError for a role that nobody changes where it stands."""
    if role.get("roletemplateid") == ADMINISTRATOR:
        raise CrmError(400, "0x80041d31", "The System Administrator Role cannot be modified.")
    if role.get("parentroleid") is not None:
        raise CrmError(400, "0x80040203", "A role that a business unit has from that above it is changed there.")


def copy_down(records: CrmRecords, role_id: str, role: Values, *, user: Values) -> None:
    """A role is there again in every business unit below its own."""
    for unit_id in records.store.table("businessunit").having("parentbusinessunitid", role["businessunitid"]):
        copy_id, copied = _copy(records, role_id, role, unit_id, user=user)
        copy_down(records, copy_id, copied, user=user)


def _copy(records: CrmRecords, role_id: str, role: Values, unit_id: str, *, user: Values) -> tuple[str, Values]:
    root = role["parentrootroleid"]
    values = {name: role.get(name) for name in (*_COPIED, "roletemplateid")} | {
        "roleid": str(uuid.uuid5(uuid.UUID(root), unit_id)),
        "businessunitid": unit_id,
        "parentroleid": role_id,
        "parentrootroleid": root,
    }
    made, stored = records.make(records.entities["role"], values, user=user)
    return made, stored.values


class RoleMessages:
    """What is asked of roles, and what they give a user or a team."""

    def __init__(self, records: CrmRecords, security: Security) -> None:
        self._records = records
        self._security = security
        self._privileges = privileges_of(records.entities.values())
        role, user, team = ("role",), ("systemuser",), ("team",)
        self.messages: dict[str, Message] = {
            "AddPrivilegesRole": Message(run=self._add, bound_to=role),
            "ReplacePrivilegesRole": Message(run=self._replace, bound_to=role),
            "RemovePrivilegeRole": Message(run=self._remove, bound_to=role),
            "RetrieveRolePrivilegesRole": Message(run=self._of_role, is_function=True),
            "RetrieveUserPrivileges": Message(run=self._of_user, bound_to=user, is_function=True),
            "RetrieveUserPrivilegeByPrivilegeName": Message(run=self._one_of_user, bound_to=user, is_function=True),
            "RetrieveTeamPrivileges": Message(run=self._of_team, bound_to=team, is_function=True),
            "RetrievePrincipalAccess": Message(run=self._access, bound_to=user, is_function=True),
        }

    # ------------------------------------------------------------ giving and taking

    def _add(self, asked: Asked) -> None:
        role_id = self._role_to_change(asked)
        for privilege_id, depth in self._given(asked.parameters):
            self._set(role_id, privilege_id, depth)

    def _replace(self, asked: Asked) -> None:
        role_id = self._role_to_change(asked)
        given = self._given(asked.parameters)
        part_from_all(self._records, self._association, role_id)
        for privilege_id, depth in given:
            self._set(role_id, privilege_id, depth)

    def _remove(self, asked: Asked) -> None:
        role_id, privilege_id = self._role_to_change(asked), an_id(asked.parameters, "PrivilegeId")
        pair = pair_id(self._association, role_id, privilege_id)
        if pair in self._records.store.table("roleprivileges").rows:
            self._records.store.remove("roleprivileges", pair)

    @property
    def _association(self) -> Any:
        return self._records.entities["role"].associations["roleprivileges_association"]

    def _role_to_change(self, asked: Asked) -> str:
        entity = self._records.entities["role"]
        role = self._records.find(entity, asked.row_id).values
        asked.caller.demand(entity, "write", asked.row_id, role)
        check_own(role)
        return asked.row_id

    def _given(self, parameters: Values) -> list[tuple[str, Depth]]:
        """The parameter `Privileges`: which, and how deep."""
        entity = self._records.entities["privilege"]
        given = parameters.get("Privileges")
        if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
            raise CrmError(400, "0x80040203", "The parameter 'Privileges' is a list of privileges with their depth.")
        found: list[tuple[str, Depth]] = []
        for each in given:
            privilege_id = an_id(each, "PrivilegeId")
            stored = self._records.store.table("privilege").rows.get(privilege_id)
            if stored is None:
                raise no_row(entity, privilege_id)
            name, depth = stored.values["name"], _depth(each.get("Depth"))
            if depth not in self._privileges[name][1]:
                raise CrmError(
                    400, "0x80040203", f"The privilege {name} cannot be given at depth {depth.name.title()}."
                )
            found.append((privilege_id, depth))
        return found

    def _set(self, role_id: str, privilege_id: str, depth: Depth) -> None:
        give(self._records, role_id, privilege_id, depth)

    # ------------------------------------------------------------ asking

    def _of_role(self, asked: Asked) -> Values:
        entity, role_id = self._records.entities["role"], an_id(asked.parameters, "RoleId")
        role = self._records.find(entity, role_id).values
        asked.caller.demand(entity, "read", role_id, role)
        return self._shown((role, name, depth) for name, depth in self._held(role).items())

    def _of_user(self, asked: Asked) -> Values:
        """Those of the user's teams at the least depth, whatever the teams have them at."""
        user = self._principal(asked)
        found = dict(self._deepest("systemuser", asked.row_id))
        teams = partners(self._records, user.associations["teammembership_association"], asked.row_id)
        for team_id in teams:
            for name, (role, _) in self._deepest("team", team_id).items():
                found.setdefault(name, (role, Depth.BASIC))
        return self._shown((role, name, depth) for name, (role, depth) in found.items())

    def _one_of_user(self, asked: Asked) -> Values:
        """A single one, as deep as his roles and those of his teams have it."""
        user, name = self._principal(asked), str(asked.parameters.get("PrivilegeName"))
        teams = partners(self._records, user.associations["teammembership_association"], asked.row_id)
        holders = [("systemuser", asked.row_id), *(("team", team_id) for team_id in teams)]
        held = [found[name] for found in (self._deepest(*holder) for holder in holders) if name in found]
        return self._shown((role, name, depth) for role, depth in sorted(held, key=lambda each: -each[1])[:1])

    def _of_team(self, asked: Asked) -> Values:
        self._principal(asked)
        found = self._deepest("team", asked.row_id)
        return self._shown((role, name, depth) for name, (role, depth) in found.items())

    def _access(self, asked: Asked) -> Values:
        """What a user may do to one row."""
        self._principal(asked)
        target = asked.parameters.get("Target")
        if not isinstance(target, dict) or "@odata.id" not in target:
            raise CrmError(400, "0x80040203", "The parameter 'Target' names a row by '@odata.id'.")
        entity, row_id = self._records.reference(self._records.entities["systemuser"], target["@odata.id"])
        row = self._records.find(entity, row_id).values
        asked.caller.demand(entity, "read", row_id, row)
        access = self._security.access(asked.row_id)
        words = [
            f"{named.word}Access"
            for right, named in RIGHTS.items()
            if access.permits(entity, right) and access.reaches(entity, right, row_id, row)
        ]
        return {"AccessRights": ", ".join(words) or "None"}

    def _principal(self, asked: Asked) -> Entity:
        entity = asked.entity or self._records.entities["systemuser"]
        row = self._records.find(entity, asked.row_id).values
        asked.caller.demand(entity, "read", asked.row_id, row)
        return entity

    def _held(self, role: Values) -> Mapping[str, Depth]:
        return self._security.privileges(role["parentrootroleid"])

    def _deepest(self, table: str, row_id: str) -> dict[str, tuple[Values, Depth]]:
        """By privilege: the role that gives most of it, and how deep."""
        entity = self._records.entities[table]
        association = entity.associations[f"{table}roles_association"]
        found: dict[str, tuple[Values, Depth]] = {}
        for role_id in partners(self._records, association, row_id):
            role = self._records.find(self._records.entities["role"], role_id).values
            for name, depth in self._held(role).items():
                if name not in found or found[name][1] < depth:
                    found[name] = (role, depth)
        return found

    def _shown(self, held: Iterable[tuple[Values, str, Depth]]) -> Values:
        ids = {stored.values["name"]: row_id for row_id, stored in self._records.store.table("privilege").rows.items()}
        return {
            "RolePrivileges": [
                {
                    "Depth": depth.name.title(),
                    "PrivilegeId": ids[name],
                    "BusinessUnitId": role["businessunitid"],
                    "PrivilegeName": name,
                    "RecordFilterId": _NOBODY,
                    "RecordFilterUniqueName": "",
                }
                for role, name, depth in held
            ]
        }


def give(records: CrmRecords, role_id: str, privilege_id: str, depth: Depth) -> None:
    """A role has a privilege at one depth; giving it again is another depth."""
    association = records.entities["role"].associations["roleprivileges_association"]
    pair = pair_id(association, role_id, privilege_id)
    stored = records.store.table("roleprivileges").rows.get(pair)
    if stored is None:
        join(records, association, role_id, privilege_id, privilegedepthmask=depth.mask)
    elif stored.values["privilegedepthmask"] != depth.mask:
        records.store.put("roleprivileges", pair, {**stored.values, "privilegedepthmask": depth.mask})


def _depth(value: Any) -> Depth:
    """By its name, its number, or its number as text."""
    text = str(value).strip()
    if text.isdigit() and int(text) in list(Depth):
        return Depth(int(text))
    if text.upper() in Depth.__members__:
        return Depth[text.upper()]
    raise CrmError(400, "0x80040203", f"'{value}' is no depth: Basic, Local, Deep or Global.")
