"""Dataverse's sales actions: what becomes of a row by order of a client.

Source: https://learn.microsoft.com/dynamics365/sales/publish-product-bundle-make-available-selling
"""

from __future__ import annotations

from collections.abc import Callable

from drawbar.sandbox.crm_catalog import publish
from drawbar.sandbox.crm_model import Entity
from drawbar.sandbox.crm_records import CrmRecords
from drawbar.sandbox.grants import Operation
from drawbar.sandbox.store import Values

Allow = Callable[[Entity, Operation], None]
BOUND = {"PublishProductHierarchy": "product"}


class CrmActions:
    def __init__(self, records: CrmRecords) -> None:
        self._records = records

    def run_on(self, entity: Entity, row_id: str, *, user: Values, allow: Allow) -> None:
        """The action that is bound to a row of this table. Raises CrmError when it may not be carried out."""
        self._records.find(entity, row_id)
        allow(entity, "write")
        publish(self._records, row_id, user=user)
