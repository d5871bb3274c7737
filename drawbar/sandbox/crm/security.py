"""What the users of a Dataverse may do, worked out of roles, teams and business units, and kept until those change.

It also finds in whose name a request is made: an application's own user, or another on whose behalf it acts.
Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/impersonate-another-user-web-api
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

from drawbar.sandbox.crm.access import ACT_FOR_OTHERS, BACKDATE, Access, Caller, Depth, Grant
from drawbar.sandbox.crm.model import LOOKUPS, CrmError, Entity, Right
from drawbar.sandbox.crm.origin import read_origin
from drawbar.sandbox.crm.records import CrmRecords, Terms
from drawbar.sandbox.crm.sharing import shared
from drawbar.sandbox.grants import OPERATIONS, Grants
from drawbar.sandbox.odata import GUID
from drawbar.sandbox.store import Store, Values

ADMINISTRATOR = "627090ff-40a3-4053-8790-584edc5be201"  # template of the role that may do everything, as published
_IMPERSONATION = ("callerobjectid", "mscrmcallerid")
_DECISIVE = (
    "systemuser",
    "team",
    "businessunit",
    "role",
    "systemuserroles",
    "teamroles",
    "roleprivileges",
    "teammembership",
)


class Security:
    def __init__(self, records: CrmRecords, grants: Grants) -> None:
        self._records = records
        self._store: Store = records.store
        self._grants = grants
        self._tables = [records.store.table(name) for name in _DECISIVE]
        self._state = (-1, -1)
        self._numbers = itertools.count(1)
        self._callers: dict[tuple[str, str | None], Caller] = {}
        self._accesses: dict[str, Access] = {}
        self._below: dict[str, frozenset[str]] = {}

    def caller(self, user_id: str, headers: Mapping[str, str]) -> Caller:
        """Raises CrmError for a user who may not act, or not for another."""
        self._forget_what_is_old()
        other_id = self._named(headers) if any(headers.get(name) for name in _IMPERSONATION) else None
        if other_id == user_id:
            other_id = None
        known = self._callers.get((user_id, other_id))
        if known is None:
            known = self._callers[(user_id, other_id)] = self._caller(user_id, other_id)
        return known

    def access(self, user_id: str) -> Access:
        """What the roles of a user let him do."""
        self._forget_what_is_old()
        known = self._accesses.get(user_id)
        if known is None:
            known = self._accesses[user_id] = self._worked_out(user_id)
        return known

    def _forget_what_is_old(self) -> None:
        state = (sum(table.writes for table in self._tables), self._grants.changes)
        if state != self._state:
            self._state = state
            self._callers.clear()
            self._accesses.clear()
            self._below.clear()

    # ------------------------------------------------------------ in whose name

    def _named(self, headers: Mapping[str, str]) -> str:
        """The user that a header names: by his id in the directory, or by that of his row."""
        object_id, row_id = headers.get("callerobjectid"), headers.get("mscrmcallerid")
        given = (object_id or row_id or "").strip().strip("{}").lower()
        if not GUID.match(given):
            raise CrmError(400, "0x80040203", f"'{given}' is not the id of a user.")
        users = self._store.table("systemuser")
        found = users.having("azureactivedirectoryobjectid", given) if object_id else [given]
        if not found or found[0] not in users.rows:
            raise CrmError(403, "0x80072560", "The user is not a member of the organization.")
        return found[0]

    def _caller(self, user_id: str, other_id: str | None) -> Caller:
        users = self._store.table("systemuser").rows
        user = users[user_id].values
        _check_enabled(user)
        own = self._of_application(user, self.access(user_id))
        if other_id is None:
            return self._made(user, None, (own,))
        if not own.has(ACT_FOR_OTHERS):
            raise CrmError(403, "0x8004a110", "User does not have the privilege to act on behalf another user.")
        other = users[other_id].values
        _check_enabled(other)
        return self._made(other, user, (self.access(other_id), own))

    def _made(self, user: Values, initiating: Values | None, parties: tuple[Access, ...]) -> Caller:
        free = all(party.everything and party.switched_off is None for party in parties)
        number = next(self._numbers)
        return Caller(number=number, user=user, initiating=initiating, parties=parties, unrestricted=free)

    def _of_application(self, user: Values, access: Access) -> Access:
        """Less what the control endpoint took away."""
        app = str(user.get("applicationid"))
        if not self._grants.restricts("crm", app):
            return access

        def switched_off(what: str, right: Right | None) -> bool:
            if right is None:
                return not self._grants.allows_whole("crm", app, what)
            return right in OPERATIONS and not self._grants.allows("crm", app, what, right)

        return replace(access, switched_off=switched_off)

    # ------------------------------------------------------------ on what terms

    def terms(self, caller: Caller, headers: Mapping[str, str], options: Mapping[str, str]) -> Terms:
        """On what terms a request writes. Raises CrmError for a header that is wrong or takes a privilege."""
        origin = read_origin(headers, options, require=caller.demand_named)
        checks = () if caller.unrestricted else (lambda *written: self._check_rights(caller, *written),)
        return Terms(origin, caller.initiating, checks)

    def _check_rights(
        self, caller: Caller, entity: Entity, row_id: str, row: Values, before: Values | None, written: set[str]
    ) -> None:
        """What writing a row takes besides the right to write it: to make it there, to give it away, to point."""
        if before is None:
            caller.demand(entity, "create", row_id, row)
            if "overriddencreatedon" in written:
                caller.demand_named(BACKDATE)
        elif row.get("ownerid") != before.get("ownerid"):
            caller.demand(entity, "assign", row_id, before)
        for name in written:
            attribute = entity.attributes[name]
            if attribute.type not in LOOKUPS or attribute.type == "Owner" or row.get(name) is None:
                continue
            target = self._records.entities.get(row.get(f"{name}@type") or attribute.targets[0])
            stored = self._store.table(target.logical).rows.get(row[name]) if target else None
            if target is not None and stored is not None:
                caller.demand(entity, "append", row_id, row)
                caller.demand(target, "appendto", row[name], stored.values)

    # ------------------------------------------------------------ by which roles

    def _worked_out(self, user_id: str) -> Access:
        user = self._store.table("systemuser").rows[user_id].values
        teams = self._column("teammembership", "systemuserid", user_id, "teamid")
        own = frozenset((user_id, *teams))
        held = [(role_id, own) for role_id in self._column("systemuserroles", "systemuserid", user_id, "roleid")]
        for team_id in teams:
            for role_id in self._column("teamroles", "teamid", team_id, "roleid"):
                to_members = self._role(role_id).get("isinherited") == 1
                held.append((role_id, frozenset((team_id, user_id) if to_members else (team_id,))))
        grants: dict[str, list[Grant]] = {}
        everything = False
        for role_id, whose in held:
            role = self._role(role_id)
            root = str(role.get("parentrootroleid", role_id))
            everything = everything or self._role(root).get("roletemplateid") == ADMINISTRATOR
            for privilege, depth in self.privileges(root).items():
                grants.setdefault(privilege, []).append(Grant(depth, role["businessunitid"], whose))
        return Access(
            user=user,
            roles=len({role_id for role_id, _ in held}),
            everything=everything,
            grants={name: tuple(found) for name, found in grants.items()},
            below=self.below,
            shared=lambda row_id: shared(self._store, own, row_id),
        )

    def privileges(self, role_id: str) -> dict[str, Depth]:
        """What a role that is nobody's copy gives, by the names of privileges."""
        names = self._store.table("privilege").rows
        pairs = self._store.table("roleprivileges")
        return {
            names[pair["privilegeid"]].values["name"]: Depth(pair["privilegedepthmask"].bit_length() - 1)
            for pair in (pairs.rows[pair_id].values for pair_id in pairs.having("roleid", role_id))
        }

    def below(self, unit_id: str) -> frozenset[str]:
        """A business unit and all below it."""
        known = self._below.get(unit_id)
        if known is None:
            units = self._store.table("businessunit")
            known = frozenset((unit_id,)).union(
                *(self.below(child) for child in units.having("parentbusinessunitid", unit_id))
            )
            self._below[unit_id] = known
        return known

    def _role(self, role_id: str) -> Values:
        return self._store.table("role").rows[role_id].values

    def _column(self, table: str, column: str, value: str, wanted: str) -> list[str]:
        rows = self._store.table(table)
        return [rows.rows[row_id].values[wanted] for row_id in rows.having(column, value)]


def with_batch_headers(outer: Mapping[str, str], own: Mapping[str, str]) -> Mapping[str, str]:
    """Those of an operation in a batch; in whose name it is made says the batch, unless it says so itself."""
    if any(own.get(name) for name in _IMPERSONATION):
        return own
    return {**own, **{name: outer[name] for name in _IMPERSONATION if name in outer}}


def _check_enabled(user: Values) -> None:
    if user.get("isdisabled"):
        raise CrmError(403, "0x80040225", f"The specified user(Id = {user['systemuserid']}) is disabled.")
