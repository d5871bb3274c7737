"""Where a seed is planted, and parts of it with generators of their own: none changes what another makes."""

from __future__ import annotations

import random
import uuid
from typing import Any, Protocol

from drawbar.sandbox.crm.dataverse import Dataverse
from drawbar.sandbox.erp.business_central import BusinessCentral
from drawbar.sandbox.store import Values


class Guids:
    def __init__(self, generator: random.Random) -> None:
        self._generator = generator

    def next(self) -> str:
        return str(uuid.UUID(int=self._generator.getrandbits(128), version=4))


class Ground(Protocol):
    """Two services that are set up, and what of the set-up others refer to."""

    @property
    def erp(self) -> BusinessCentral: ...
    @property
    def crm(self) -> Dataverse: ...
    @property
    def user(self) -> Values: ...
    @property
    def tenant_id(self) -> str: ...
    @property
    def company_id(self) -> str: ...
    @property
    def owning_team(self) -> str: ...
    @property
    def other_company_row(self) -> str: ...
    @property
    def terms(self) -> dict[str, str]: ...
    @property
    def methods(self) -> dict[str, str]: ...
    def in_erp(self, set_name: str, **values: Any) -> Values: ...


class Bed:
    """A part of the ground that is planted from one word: ids and choices follow from it."""

    def __init__(self, ground: Ground, word: str) -> None:
        self._ground = ground
        self._random = random.Random(f"{word} {ground.tenant_id}")  # noqa: S311 - reproducible, not secret
        self._guids = Guids(self._random)

    def _in_erp(self, set_name: str, **values: Any) -> Values:
        return self._ground.in_erp(set_name, id=self._guids.next(), **values)

    def _in_crm(self, set_name: str, body: Values) -> str:
        records = self._ground.crm.records
        row_id = self._guids.next()
        return records.insert(records.entity_of(set_name), body, user=self._ground.user, row_id=row_id)[0]
