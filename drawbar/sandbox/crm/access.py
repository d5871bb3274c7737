"""Who may do what to which row of Dataverse: privileges and their depth, owners, business units. Pure.

A user acts by the roles of his own and those of his teams. A privilege names a table and what is done to it; its depth
says to whose rows: the user's (and his teams'), those of a business unit, of that and all below it, or everybody's.
Sources: https://learn.microsoft.com/power-platform/admin/wp-security-cds,
https://learn.microsoft.com/power-apps/developer/data-platform/security-concepts
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from drawbar.sandbox.crm.model import CrmError, Entity, Right
from drawbar.sandbox.store import Values

_IDS = uuid.UUID("5b0d3c52-0c1e-4b7a-8a55-6f1c0e9f7d10")  # privileges have the same ids in every sandbox
_PUBLISHED_IDS = {  # those that the service's documentation gives
    "prvBypassCustomBusinessLogic": "0ea552b0-a491-4470-9a1b-82068deccf66",
    "prvBypassCustomPlugins": "148a9eaf-d0c4-4196-9852-c3a38e35f6a1",
}


@dataclass(frozen=True, slots=True)
class _Named:
    word: str  # as privileges are called
    mask: int  # in `accessright`


RIGHTS: Mapping[Right, _Named] = {
    "create": _Named("Create", 32),
    "read": _Named("Read", 1),
    "write": _Named("Write", 2),
    "delete": _Named("Delete", 65_536),
    "append": _Named("Append", 4),
    "appendto": _Named("AppendTo", 16),
    "assign": _Named("Assign", 524_288),
    "share": _Named("Share", 262_144),
}
ACT_FOR_OTHERS = "prvActOnBehalfOfAnotherUser"
BACKDATE = "prvOverrideCreatedOnCreatedBy"
CUSTOMIZE = "prvWriteEntity"
NAMED = (  # privileges that are about no table
    ACT_FOR_OTHERS,
    BACKDATE,
    CUSTOMIZE,
    "prvBulkDelete",
    "prvBypassCustomBusinessLogic",
    "prvBypassCustomPlugins",
    "prvPublishDuplicateRule",
)


class Depth(IntEnum):
    BASIC = 0
    LOCAL = 1
    DEEP = 2
    GLOBAL = 3

    @property
    def mask(self) -> int:
        """As `privilegedepthmask` keeps it."""
        return 1 << self


def privilege_name(entity: Entity, right: Right) -> str:
    return f"prv{RIGHTS[right].word}{entity.privilege}"


def privilege_id(name: str) -> str:
    return _PUBLISHED_IDS.get(name) or str(uuid.uuid5(_IDS, name))


def rights_of(entity: Entity) -> tuple[Right, ...]:
    """What there are privileges for. Only what has an owner can be given away and shared."""
    if entity.ownership == "user":
        return tuple(RIGHTS)
    ownerless: tuple[Right, ...] = ("create", "read", "write", "delete", "append", "appendto")
    return (*ownerless, "assign") if entity.logical == "role" else ownerless


def depths_of(entity: Entity) -> tuple[Depth, ...]:
    """How deep its privileges can be given. What belongs to the organization is everybody's or nobody's."""
    return tuple(Depth) if entity.ownership in ("user", "businessunit") or _is_unit(entity) else (Depth.GLOBAL,)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands: whose it is."""

    owner: str | None
    business_unit: str | None


def place_of(entity: Entity, row_id: str, row: Values) -> Place | None:
    """None: it is the organization's."""
    if entity.ownership == "user":
        return Place(row.get("ownerid"), row.get("owningbusinessunit"))
    if entity.ownership == "businessunit":
        return Place(row_id, row.get("businessunitid"))
    return Place(None, row_id) if _is_unit(entity) else None


def _is_unit(entity: Entity) -> bool:
    return entity.logical == "businessunit"


@dataclass(frozen=True, slots=True)
class Grant:
    """One privilege by one role. `own`: whose rows are the holder's own, as far as this role goes."""

    depth: Depth
    business_unit: str
    own: frozenset[str]

    def reaches(self, place: Place, below: Callable[[str], frozenset[str]]) -> bool:
        if self.depth == Depth.GLOBAL or place.owner in self.own:
            return True
        if self.depth == Depth.DEEP:
            return place.business_unit in below(self.business_unit)
        return self.depth == Depth.LOCAL and place.business_unit == self.business_unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What one user may do."""

    user: Values
    roles: int  # how many, those of teams included
    everything: bool  # a system administrator
    grants: Mapping[str, tuple[Grant, ...]]  # by privilege
    below: Callable[[str], frozenset[str]]  # a business unit and all below it
    shared: Callable[[str], int]  # what of a row is shared with the user or his teams, as `accessright` counts it
    # Taken away from outside, whatever the roles say: what is done to a table, or a privilege that is about none.
    switched_off: Callable[[str, Right | None], bool] | None = None

    def permits(self, entity: Entity, right: Right) -> bool:
        """Whether there are rows at all to which this may be done."""
        if self.switched_off is not None and self.switched_off(entity.logical, right):
            return False
        return self.everything or privilege_name(entity, right) in self.grants

    def has(self, privilege: str) -> bool:
        """Whether a privilege that is about no table is among what may be done."""
        if self.switched_off is not None and self.switched_off(privilege, None):
            return False
        return self.everything or privilege in self.grants

    def reaches(self, entity: Entity, right: Right, row_id: str, row: Values) -> bool:
        """Whether it may be done to this row, where it may be done at all."""
        if self.everything:
            return True
        place = place_of(entity, row_id, row)
        grants = self.grants.get(privilege_name(entity, right), ())
        if place is None:
            return bool(grants)
        if any(grant.reaches(place, self.below) for grant in grants):
            return True
        return bool(grants) and bool(self.shared(row_id) & RIGHTS[right].mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """In whose name a request is carried out, and who really makes it. What is done, all parties must be allowed."""

    number: int  # of this combination and what it may do, for what is kept about it
    user: Values
    initiating: Values | None = None  # None: the user himself
    parties: tuple[Access, ...]
    unrestricted: bool

    def demand(self, entity: Entity, right: Right, row_id: str | None = None, row: Values | None = None) -> None:
        """Raises CrmError when it may not be done, to this row if one is given."""
        if self.unrestricted:
            return
        for party in self.parties:
            if not party.permits(entity, right):
                raise missing_privilege(party, privilege_name(entity, right), entity)
        if row_id is not None and row is not None:
            for party in self.parties:
                if not party.reaches(entity, right, row_id, row):
                    raise out_of_reach(party, entity, right, row_id, row)

    def demand_named(self, privilege: str) -> None:
        """Raises CrmError when a privilege that is about no table is missing."""
        for party in self.parties:
            if not party.has(privilege):
                raise missing_privilege(party, privilege, None)

    def sees(self, entity: Entity) -> Callable[[str, Values], bool]:
        """Tells which rows of a table may be read. Raises CrmError when none may."""
        self.demand(entity, "read")
        return lambda row_id, row: all(party.reaches(entity, "read", row_id, row) for party in self.parties)


_ACCESS_MODES = {0: "Read-Write", 1: "Administrative", 2: "Read", 3: "Support User", 4: "Non-interactive"}


def missing_privilege(party: Access, privilege: str, entity: Entity | None) -> CrmError:
    """The service's own refusal, to the letter as far as reports of it go."""
    user = party.user
    user_id, mode = user["systemuserid"], user.get("accessmode", 0)
    if not party.roles and not party.everything:
        return CrmError(
            403,
            "0x80042f09",
            f"The user with id {user_id} has not been assigned any roles. They need a role with the {privilege}"
            " privilege.",
        )
    about = "" if entity is None else f" on OTC={entity.type_code} for entity '{entity.logical}'"
    return CrmError(
        403,
        "0x80040220",
        f"Principal user (Id={user_id}, type=8, roleCount={party.roles}, privilegeCount={len(party.grants)},"
        f" accessMode='{mode} {_ACCESS_MODES.get(mode, '')}', AADObjectId='{user.get('azureactivedirectoryobjectid')}',"
        f" businessUnitId={user.get('businessunitid')}), is missing {privilege} privilege"
        f" (Id={privilege_id(privilege)}){about}. context.Caller={user_id}. Consider adding missed privilege to one of"
        " the principal (user/team) roles.",
    )


def out_of_reach(party: Access, entity: Entity, right: Right, row_id: str, row: Values) -> CrmError:
    user_id, access = party.user["systemuserid"], f"{RIGHTS[right].word}Access"
    place = place_of(entity, row_id, row) or Place(None, None)
    mode = party.user.get("accessmode", 0)
    data = f"roleCount={party.roles}, privilegeCount={len(party.grants)}, accessMode={mode}"
    details = {
        "CallerPrincipal": {"PrincipalId": user_id, "Type": 8, "IsUserPrincipal": True},
        "OwnerPrincipal": {
            "PrincipalId": place.owner,
            "Type": 9 if row.get("ownerid@type") == "team" else 8,
            "IsUserPrincipal": row.get("ownerid@type") != "team",
        },
        "ObjectId": row_id,
        "ObjectTypeCode": entity.type_code,
        "EntityName": entity.logical,
        "ObjectBusinessUnitId": place.business_unit,
        "RightsToCheck": access,
        "RoleAccessRights": "None",
        "PoaAccessRights": "None",
        "GrantedAccessRights": "None",
        "Messages": [f"SecLib::AccessCheckEx2 failed. Principal Data: {data}"],
    }
    return CrmError(
        403,
        "0x80048306",
        f"Principal with id {user_id} does not have {access} right(s) for record with id {row_id} of entity"
        f" {entity.logical}. Details: {json.dumps(details, separators=(',', ':'))}",
    )


def privileges_of(entities: Iterable[Entity]) -> dict[str, tuple[int, frozenset[Depth]]]:
    """Every privilege there is: what it gives, and how deep it can be given. Some tables share theirs."""
    found: dict[str, tuple[int, frozenset[Depth]]] = {name: (0, frozenset((Depth.GLOBAL,))) for name in NAMED}
    for entity in entities:
        for right in rights_of(entity):
            name = privilege_name(entity, right)
            _, depths = found.get(name, (0, frozenset()))
            found[name] = (RIGHTS[right].mask, depths | set(depths_of(entity)))
    return found
