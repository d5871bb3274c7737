"""Two processes of a stage share its work; an installation ends in order and goes on later."""

from __future__ import annotations

import shutil

import pytest

from tests.pipeline.comparison import disagreements, lost
from tests.pipeline.installation import Installation, until_within
from tests.pipeline.load import Load

pytestmark = [pytest.mark.kafka, pytest.mark.pipeline]

UP = ("--process", "2", "--sinks", "2")


@pytest.fixture(scope="module")
def records(system: Installation) -> list[str]:
    return system.make_pairs(40)


class TestTwoOfEach:
    def test_share_the_work(self, system: Installation, records: list[str]):
        """With two deciding and two writing for each system the result is the same, and all of them work."""
        with Load(system, records) as load:
            pass
        system.wait_quiet()

        stages = system.status()["stages"]
        assert [2, 2, 2] == [len(stages[stage]) for stage in ("process", "sink-erp", "sink-crm")]
        assert all(beat["messages"] for beat in stages["process"])
        assert all(beat["counts"] for stage in ("sink-erp", "sink-crm") for beat in stages[stage])
        assert [] == lost(system, load.last)
        assert [] == disagreements(system)

    def test_can_lose_one(self, system: Installation, records: list[str]):
        """The other takes over its partitions in the middle of the load, and gives them back when it returns."""
        with Load(system, records) as load:
            until_within(lambda: load.count >= 30, "people are at work")
            for stage in ("process", "sink-erp", "sink-crm"):
                system.await_successor(system.kill(stage, 1))
        system.wait_quiet()

        assert [] == lost(system, load.last)
        assert [] == disagreements(system)
        assert [] == system.untrue_pids()


class TestEnd:
    def test_comes_in_order_and_what_was_under_way_goes_on_later(self, system: Installation, records: list[str]):
        """SIGTERM under load leaves no process. The next `up` on the folder, with other numbers and none of the local
        state, catches up with all that was edited.
        """
        with Load(system, records, edits=60) as load:
            until_within(lambda: load.count >= 60, "people are at work")
        assert 0 == system.stop()
        assert not system.alive()
        assert not system.connection_file.exists()
        shutil.rmtree(system.state_dir / "process")

        system.start()
        system.wait_quiet()

        assert [] == lost(system, load.last)
        assert [] == disagreements(system)

    def test_is_needed_before_another_begins(self, system: Installation):
        """One state folder has one `up`: the second one says whose it is, and ends."""
        arguments = ("--sandbox", "--state-dir", str(system.state_dir))

        assert "" != system.drawbar("status")
        system.drawbar("up", *arguments, code=2)
        assert [] == system.untrue_pids()
