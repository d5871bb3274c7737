"""What an application may do in Business Central: verbs that a set takes, and rights to the tables behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drawbar.sandbox.erp.model import EntitySet, ErpError, not_allowed
from drawbar.sandbox.grants import Grants, Operation

_VERBS: Mapping[Operation, str] = {"read": "GET", "create": "POST", "write": "PATCH", "delete": "DELETE"}
_RIGHTS: Mapping[Operation, str] = {"read": "Read", "create": "Insert", "write": "Modify", "delete": "Delete"}


@dataclass(frozen=True, slots=True)
class Caller:
    app: str
    grants: Grants
    sets: Mapping[str, EntitySet]

    def demand(self, entity_set: EntitySet, operation: Operation) -> None:
        """Raises ErpError when it may not be done, whoever asks or he who does."""
        if _VERBS[operation] not in entity_set.verbs:
            raise not_allowed(_VERBS[operation])
        for table in entity_set.rights:
            self.demand_table(table, operation, source=self.sets[table].source)
        for table in entity_set.reads:
            self.demand_table(table, "read", source=self.sets[table].source)

    def demand_read(self, entity_set: EntitySet) -> None:
        self.demand(entity_set, "read")

    def demand_table(self, set_name: str, operation: Operation, *, source: str) -> None:
        """`source`: the table's name in the product. Raises ErpError when the right to it is missing."""
        if not self.grants.allows("erp", self.app, set_name, operation):
            raise ErpError(
                403,
                "Authorization_RequestDenied",
                "Sorry, the current permissions prevented the action."
                f" (TableData {source} {_RIGHTS[operation]}: Base Application)",
            )
