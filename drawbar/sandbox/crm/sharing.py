"""Dataverse's sharing: single rows that users and teams may reach besides those that their roles reach.

What a user has no privilege for at all is not shared with him either. Shares are given row by row; those that the
service passes on from a row to the rows below it are not made here.
Source: https://learn.microsoft.com/power-apps/developer/data-platform/security-sharing-assigning
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from drawbar.sandbox.crm.access import RIGHTS
from drawbar.sandbox.crm.messages import Asked, Message, an_id
from drawbar.sandbox.crm.model import CrmError, Entity, Right
from drawbar.sandbox.crm.records import SHARES, CrmRecords
from drawbar.sandbox.store import Store, Values

_IDS = uuid.UUID("0d7c1a56-51f5-4a9b-b3ce-4d7d7c9be2a1")
_BY_WORD: dict[str, Right] = {f"{named.word}Access": right for right, named in RIGHTS.items()}


def shared(store: Store, principals: Iterable[str], row_id: str) -> int:
    """What was given of a row to any of these users and teams, as `accessright` counts it."""
    shares, mask = store.table(SHARES), 0
    of_row = shares.having("objectid", row_id)
    if of_row:
        wanted = set(principals)
        for share in (shares.rows[share_id].values for share_id in of_row):
            if share["principalid"] in wanted:
                mask |= share["accessrightsmask"]
    return mask


class Sharing:
    def __init__(self, records: CrmRecords) -> None:
        self._records = records
        self._store = records.store
        self.messages = {
            "GrantAccess": Message(run=self._grant),
            "ModifyAccess": Message(run=self._modify),
            "RevokeAccess": Message(run=self._revoke),
            "RetrieveSharedPrincipalsAndAccess": Message(run=self._shown, is_function=True),
        }

    def _grant(self, asked: Asked) -> None:
        self._give(asked, anew=False)

    def _modify(self, asked: Asked) -> None:
        self._give(asked, anew=True)

    def _give(self, asked: Asked, *, anew: bool) -> None:
        """Besides what was given before, or instead of it. Nobody gives what he has not."""
        entity, row_id = self._target(asked)
        given = asked.parameters.get("PrincipalAccess")
        if not isinstance(given, dict):
            raise _refused("The parameter 'PrincipalAccess' is a principal with an access mask.")
        principal, principal_id = self._principal(given.get("Principal"))
        rights = _rights(given.get("AccessMask"))
        row = self._records.find(entity, row_id).values
        for right in ("share", *rights):
            asked.caller.demand(entity, right, row_id, row)
        share_id = str(uuid.uuid5(_IDS, f"{row_id}/{principal_id}"))
        before = self._store.table(SHARES).rows.get(share_id)
        mask = sum(RIGHTS[right].mask for right in rights)
        if before is not None and not anew:
            mask |= before.values["accessrightsmask"]
        share: Values = {
            "principalobjectaccessid": share_id,
            "objectid": row_id,
            "principalid": principal_id,
            "principaltype": principal.logical,
            "accessrightsmask": mask,
        }
        self._store.put(SHARES, share_id, share)

    def _revoke(self, asked: Asked) -> None:
        entity, row_id = self._target(asked)
        _, principal_id = self._principal(asked.parameters.get("Revokee"))
        asked.caller.demand(entity, "share", row_id, self._records.find(entity, row_id).values)
        share_id = str(uuid.uuid5(_IDS, f"{row_id}/{principal_id}"))
        if share_id in self._store.table(SHARES).rows:
            self._store.remove(SHARES, share_id)

    def _shown(self, asked: Asked) -> Values:
        entity, row_id = self._target(asked)
        asked.caller.demand(entity, "read", row_id, self._records.find(entity, row_id).values)
        shares = self._store.table(SHARES)
        return {
            "PrincipalAccesses": [
                {
                    "AccessMask": words(share["accessrightsmask"]),
                    "Principal": {
                        "@odata.type": f"#Microsoft.Dynamics.CRM.{share['principaltype']}",
                        f"{share['principaltype']}id": share["principalid"],
                        "ownerid": share["principalid"],
                    },
                }
                for share in (shares.rows[share_id].values for share_id in shares.having("objectid", row_id))
            ]
        }

    # ------------------------------------------------------------ parameters

    def _target(self, asked: Asked) -> tuple[Entity, str]:
        """A row by its address, or by its type and id."""
        target = asked.parameters.get("Target")
        entity, row_id = self._row(target)
        self._records.find(entity, row_id)
        if entity.ownership != "user":
            raise _refused(f"Rows of '{entity.logical}' have no owner who could share them.")
        return entity, row_id

    def _principal(self, given: Any) -> tuple[Entity, str]:
        entity, row_id = self._row(given)
        self._records.find(entity, row_id)
        if entity.logical not in ("systemuser", "team"):
            raise _refused("A row is shared with a user or a team.")
        return entity, row_id

    def _row(self, given: Any) -> tuple[Entity, str]:
        if not isinstance(given, dict):
            raise _refused("A row is named by '@odata.id', or by '@odata.type' and its id.")
        if "@odata.id" in given:
            return self._records.reference(self._records.entities["systemuser"], given["@odata.id"])
        kind = str(given.get("@odata.type", "")).rpartition(".")[2]
        names = [entity for entity in self._records.entities.values() if entity.logical == kind or entity.id in given]
        entity = self._records.entities.get(kind) or next(iter(names), None)
        if entity is None:
            raise _refused("A row is named by '@odata.id', or by '@odata.type' and its id.")
        return entity, an_id(given, entity.id)


def words(mask: int) -> str:
    return ", ".join(word for word, right in _BY_WORD.items() if mask & RIGHTS[right].mask) or "None"


def _rights(mask: Any) -> tuple[Right, ...]:
    """`ReadAccess, WriteAccess`."""
    given = [word.strip() for word in str(mask).split(",")]
    unknown = [word for word in given if word not in _BY_WORD]
    if unknown:
        raise _refused(f"There is no access right '{unknown[0]}'.")
    return tuple(_BY_WORD[word] for word in given)


def _refused(text: str) -> CrmError:
    return CrmError(400, "0x80040203", text)
