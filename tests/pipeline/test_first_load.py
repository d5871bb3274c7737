"""A first load of two systems that both hold data: planned, killed in the middle, and ended as planned."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.installation import Installation, until_within

pytestmark = [pytest.mark.kafka, pytest.mark.pipeline]

# Nothing is matched or made by itself.
SETTINGS = {"DRAWBAR_COMPAT": "microsoft"}
HALF = 30


@pytest.fixture(scope="module")
def loaded(system: Installation) -> Installation:
    """Customers and accounts, half of each the same by name; and one name that two customers bear."""
    names = [system.name() for _ in range(3 * HALF)]
    customers = [*names[: 2 * HALF], "Twin Works", "Twin Works"]
    accounts = [*(name.upper() for name in names[:HALF]), *names[2 * HALF :], "Twin Works"]
    edits: list[dict[str, Any]] = [
        {"system": "erp", "set": "customers", "app": system.erp.client_id, "values": {"displayName": name}}
        for name in customers
    ]
    edits += [
        {
            "system": "crm",
            "set": "accounts",
            "app": system.crm.client_id,
            "values": {"name": name, "customertypecode": 3},
        }
        for name in accounts
    ]
    system.control("POST", "edit", edits)
    system.wait_quiet()
    return system


def names_of(system: Installation, side: str, field: str) -> Counter[str]:
    return Counter(str(row[field]).lower() for row in system.rows(side).values())


class TestFirstLoad:
    def test_killed_twice_ends_as_planned(self, loaded: Installation, tmp_path: Path):
        """SIGKILL of the command and of deciding, then of the command and of both sinks: nothing is made twice."""
        system, path = loaded, tmp_path / "plan.json"
        line = ("--mapping", "customer-account", "--create", "both", "--use", "erp", "--save", str(path))
        (plan,) = system.lines("sync", "plan", *line)
        before = len(system.rows("erp")) + len(system.rows("crm"))

        for made, stages in ((10, ("process",)), (35, ("sink-erp", "sink-crm"))):
            command = system.begin("sync", "run", "--plan", str(path), "--yes")
            until_within(
                lambda made=made: len(system.rows("erp")) + len(system.rows("crm")) >= before + made,  # type: ignore[misc]
                f"{made} records are made",
            )
            command.kill()
            command.wait()
            for stage in stages:
                system.kill(stage)
        outcome = json.loads(system.drawbar("sync", "run", "--plan", str(path), "--yes", "--json"))

        counts = plan["mappings"]["customer-account"]["counts"]
        assert (HALF, HALF, HALF, 3) == tuple(
            counts[name] for name in ("match", "create_to_crm", "create_to_erp", "ambiguous")
        )
        assert {"match": HALF, "create": 2 * HALF, "ambiguous": 3} == {
            line["plan"]: line.get("as_planned") for line in outcome["outcome"]
        }
        system.wait_quiet()
        customers, accounts = names_of(system, "erp", "displayName"), names_of(system, "crm", "name")
        assert {"twin works"} == {name for name, count in (customers | accounts).items() if count > 1}
        assert set(customers) == set(accounts)
