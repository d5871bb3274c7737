"""People at work in both systems while something happens to Drawbar."""

from __future__ import annotations

import random
import threading
import time
from types import TracebackType
from typing import Any

from typing_extensions import Self

from tests.pipeline.installation import DEADLINE_S, Api, Installation

EDITS = 150
PER_S = 25.0
MAKE_EVERY = 25  # edits
# Customer field -> account field. Fields of one editor: the last edit must be on both sides at the end. Fields of
# both: one of them has to stand, on both sides.
OF_THE_ERP = {"phoneNumber": "telephone1", "addressLine2": "address1_line2"}
OF_THE_CRM = {"website": "websiteurl", "addressLine1": "address1_line1"}
OF_BOTH = {"state": "address1_stateorprovince"}


class Load:
    """Edits on both sides, and now and then a new record, from `with` on until its end, and at least EDITS of them.

    `last` is what must stand on both sides at the end: (customer, its field) -> value.
    """

    def __init__(self, system: Installation, records: list[str], *, edits: int = EDITS) -> None:
        self.last: dict[tuple[str, str], str] = {}
        self._system = system
        self._records = records
        self._edits = edits
        self._done = {"erp": 0, "crm": 0}
        self._faults: list[BaseException] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(name,), daemon=True) for name in ("erp", "crm")]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)
        if self._faults:  # nothing that was waited for could happen after it
            raise self._faults[0] from error

    @property
    def count(self) -> int:
        return sum(self._done.values())

    def _work(self, name: str) -> None:
        api = Api(self._system.connection, name)
        chance = random.Random(f"{name} {len(self._system.pairs)}")  # another course each time, the same for each run
        try:
            while not self._over.is_set() or (self._done[name] < self._edits // 2 and not self._faults):
                began = time.monotonic()
                self._edit(api, name, chance)
                self._done[name] += 1
                if self._done[name] % MAKE_EVERY == 0:
                    self._make(api, name)
                self._over.wait(max(0.0, 2 / PER_S - (time.monotonic() - began)))
        except BaseException as fault:  # noqa: BLE001 - it is raised where the test can see it
            self._faults.append(fault)
        finally:
            api.close()

    def _edit(self, api: Api, name: str, chance: random.Random) -> None:
        customer = chance.choice(self._records)
        own = OF_THE_ERP if name == "erp" else OF_THE_CRM
        field, other = chance.choice(list({**own, **OF_BOTH}.items()))
        value = f"{name} {self._done[name]} {chance.randrange(10**6)}"
        if name == "erp":
            api.edit(customer, **{field: value})
        else:
            api.edit(self._system.pairs[customer], **{other: value})
        if field in own:
            self.last[customer, field] = value

    def _make(self, api: Api, name: str) -> None:
        values: dict[str, Any] = {"displayName": self._system.name()} if name == "erp" else {}
        if name == "crm":
            values = {"name": self._system.name(), "customertypecode": 3}
        record = api.create(**values)
        self._system.pairs[record] = record
