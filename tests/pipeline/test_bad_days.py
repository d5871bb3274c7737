"""Processes are killed, the broker is killed, the APIs fail: nothing is lost or doubled, and both systems agree."""

from __future__ import annotations

import shutil
import uuid
from typing import Any

import pytest

from tests.pipeline.comparison import disagreements, lost
from tests.pipeline.conftest import StartInstallation
from tests.pipeline.installation import STAGES, Installation, await_all, until_within
from tests.pipeline.load import Load

pytestmark = [pytest.mark.kafka, pytest.mark.pipeline]

# What a stage logs when it has taken over and has not yet got back to where its predecessor was.
RECOVERS = {
    "capture": "capture.taken_over",
    "process": "process.assigned",
    "sink-erp": "sink.assigned",
    "sink-crm": "sink.assigned",
}


@pytest.fixture(scope="module")
def records(system: Installation) -> list[str]:
    return system.make_pairs(40)


class TestKilledStage:
    @pytest.mark.parametrize("stage", STAGES)
    def test_costs_nothing(self, system: Installation, records: list[str], stage: str):
        """SIGKILL under load, and again inside its recovery."""
        with Load(system, records) as load:
            until_within(lambda: load.count >= 30, "people are at work")
            system.kill_again(stage, RECOVERS[stage])
        system.wait_quiet()

        assert [] == lost(system, load.last)
        assert [] == disagreements(system)
        assert [] == system.untrue_pids()

    def test_costs_nothing_when_all_die_and_local_state_is_lost(self, system: Installation, records: list[str]):
        """Couplings and watermarks are on the bus; what a process keeps on disk is only a convenience."""
        with Load(system, records) as load:
            until_within(lambda: load.count >= 30, "people are at work")
            killed = [system.kill(stage) for stage in STAGES]
            shutil.rmtree(system.state_dir / "process")
            for process in killed:
                system.await_successor(process)
        system.wait_quiet()

        assert [] == lost(system, load.last)
        assert [] == disagreements(system)
        assert [] == system.untrue_pids()


class TestKilledBroker:
    def test_costs_nothing(self, system: Installation, records: list[str], start_installation: StartInstallation):
        """SIGKILL under load; `drawbar up` starts it again on its data, and every stage waits for it."""
        if system.bus is not None:  # that broker is not ours to kill
            system = start_installation(local_kafka=True)
            records = system.make_pairs(20)
        with Load(system, records) as load:
            until_within(lambda: load.count >= 30, "people are at work")
            system.await_successor(system.kill("kafka"))
        system.wait_quiet()

        assert [] == lost(system, load.last)
        assert [] == disagreements(system)
        assert [] == system.untrue_pids()


class TestFailingSystems:
    def test_cost_nothing(self, system: Installation, records: list[str]):
        """Lost replies, throttling, outages, delays, cuts, broken JSON, expired tokens: no twin, and no dead letter."""
        rules = [rule for side in ("erp", "crm") for rule in _faults(system.connection, side)]
        new = [str(uuid.uuid4()) for _ in range(2)]
        system.control(
            "POST", "faults", _faults_of_creates(system.connection, new) + rules
        )  # the first that is due acts
        for record in new:
            system.make_customer(id=record)
        with Load(system, records) as load:
            until_within(lambda: load.count >= 60, "people are at work")
            system.control("POST", "expire", {"what": "tokens"})
            await_all(lambda: _missing(system), "did not happen")
        system.control("DELETE", "faults")
        system.wait_quiet()

        assert [] == lost(system, load.last)
        assert [] == disagreements(system)
        assert [] == [letter for letter in system.letters("--state", "all") if letter["ref"].endswith(tuple(records))]

    def test_that_take_no_writes_are_waited_for(self, system: Installation, records: list[str]):
        """503 to every write for a while: the sinks pause and say so, and no dead letter is made."""
        away = {"action": "status", "status": 503, "times": None, "method": "PATCH"}
        apps = [system.connection[side]["client_id"] for side in ("erp", "crm")]
        with Load(system, records) as load:
            until_within(lambda: load.count >= 30, "people are at work")
            system.control("POST", "faults", [{**away, "app": app} for app in apps])
            until_within(lambda: _paused(system) == {"sink-erp", "sink-crm"}, "the sinks pause", every_s=0.2)
        assert [] == system.letters()
        system.control("DELETE", "faults")
        system.wait_quiet()

        assert [] == lost(system, load.last)
        assert [] == disagreements(system)


def _paused(system: Installation) -> set[str]:
    return {stage for stage, beats in system.status()["stages"].items() for beat in beats if beat["state"] == "paused"}


def _faults(connection: dict[str, Any], side: str) -> list[dict[str, Any]]:
    """One fault at a time, hitting every few requests of Drawbar, and none of the people's."""
    common = {"system": side, "app": connection[side]["client_id"]}
    kinds: list[dict[str, Any]] = [
        {"action": "lose_reply", "method": "PATCH"},
        {"action": "status", "status": 429, "headers": {"Retry-After": "1"}},
        {"action": "status", "status": 503, "body": "<html>away</html>"},
        {"action": "cut"},
        {"action": "corrupt_json", "method": "GET"},
        {"action": "corrupt_json", "method": "PATCH"},
        {"action": "delay", "seconds": 1, "when": "before"},
        {"action": "delay", "seconds": 1, "when": "after", "method": "PATCH"},
        {"action": "status", "status": 504},
    ]
    often = [{**kind, "after": 2 * at + 20 * turn} for turn in range(3) for at, kind in enumerate(kinds)]
    return [{**common, **rule} for rule in often]


def _faults_of_creates(connection: dict[str, Any], new: list[str]) -> list[dict[str, Any]]:
    """The answer to a create is lost, or cut off. In the CRM a create is told from an update by its id alone."""
    found: list[dict[str, Any]] = []
    for number, action in enumerate(("lose_reply", "corrupt_json")):
        erp = {"system": "erp", "app": connection["erp"]["client_id"], "method": "POST", "path": "/customers$"}
        crm = {"system": "crm", "app": connection["crm"]["client_id"], "path": f"accounts.{new[number]}"}
        found += [{**erp, "action": action, "after": number}, {**crm, "action": action, "method": "PATCH"}]
    return found


def _missing(system: Installation) -> list[str]:
    return [str(rule) for rule in system.control("GET", "faults") if rule["times"] and rule["hits"] < rule["times"]]
