"""The procedures of docs/operations.md for lost state, followed word by word on a running system.

A test makes the loss, then types what the document shows, in its order; nothing else. `drawbar up` in the document is
that of a company: here it gets a sandbox and a state folder as well.
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined]

from schemas.topics import COUPLINGS, WATERMARKS
from tests.kafka_fixture import until
from tests.pipeline import installation
from tests.pipeline.comparison import disagreements
from tests.pipeline.installation import Installation
from tests.repo.tree import sections, text

pytestmark = [pytest.mark.kafka, pytest.mark.pipeline]

SECTION = "When state is lost, or a system was restored"


def commands_of(heading: str) -> list[str]:
    """The commands of one procedure, in the order in which they are to be typed."""
    _, _, rest = text("docs/operations.md").partition(f"### {heading}\n")
    assert rest, heading
    procedure = re.split(r"^##", rest, flags=re.MULTILINE)[0]
    return re.findall(r"^\$ drawbar (.*)$", procedure, flags=re.MULTILINE)


class Follower:
    """Types the commands of a procedure."""

    def __init__(self, system: Installation, folder: Path) -> None:
        self._system, self._folder = system, folder
        self.is_up = True

    def stop(self) -> None:
        if self.is_up:
            self._system.stop()
        self.is_up = False

    def follow(self, commands: list[str]) -> None:
        for command in commands:
            words = [str(self._folder / word) if word.endswith(".jsonl") else word for word in command.split()]
            if words[0] == "up":
                self.stop()
                self._system.start(*(["--observe"] if "--observe" in words else []))
                self.is_up = True
            else:
                self._system.drawbar(*words)


@pytest.fixture(scope="module", autouse=True)
def pairs(system: Installation) -> list[str]:
    return system.make_pairs(8)


@pytest.fixture
def follower(system: Installation, tmp_path: Path) -> Follower:
    return Follower(system, tmp_path)


def writes(system: Installation) -> dict[str, object]:
    """Every record as it is: what a procedure may not touch."""
    return {"erp": system.rows("erp"), "crm": system.rows("crm")}


class TestProcedures:
    def test_a_restored_system(self, system: Installation, follower: Follower):
        """Nothing is written before somebody decides; then both agree again."""
        record = next(iter(system.pairs))
        store = system.state_dir / "sandbox" / "sandbox.sqlite"
        with sqlite3.connect(store) as live, sqlite3.connect(follower._folder / "backup.sqlite") as backup:
            live.backup(backup)
        system.erp.edit(record, city="Newtown")
        system.wait_quiet()
        before = commands_of("A system was restored from a backup")
        follower.stop()
        with sqlite3.connect(store) as live:
            live.execute("ATTACH ? AS backup", (str(follower._folder / "backup.sqlite"),))
            for table in ("rows", "facts"):
                live.execute(f"DELETE FROM {table} WHERE system = 'crm'")
                live.execute(f"INSERT INTO {table} SELECT * FROM backup.{table} WHERE system = 'crm'")
        follower.follow(before[:5])
        system.wait_quiet()

        assert "Newtown" == system.rows("erp")[record]["city"]
        assert "Newtown" != system.rows("crm")[system.pairs[record]]["address1_city"]
        follower.follow(before[5:])
        assert "Newtown" == system.rows("crm")[system.pairs[record]]["address1_city"]
        assert [] == disagreements(system)

    def test_lost_couplings(self, system: Installation, follower: Follower):
        """With an export: every pair is there again, and no record was touched."""
        follower.follow(["couplings export couplings.jsonl"])
        before = writes(system)
        servers = system.connection["bootstrap_servers"]
        lose_rows(servers)
        follower.follow(commands_of("The topic `couplings` is lost"))

        assert before == writes(system)
        assert [] == disagreements(system)

    def test_a_lost_watermark(self, system: Installation, follower: Follower):
        before = writes(system)
        producer = Producer({"bootstrap.servers": system.connection["bootstrap_servers"]})
        producer.produce(WATERMARKS, key=b"erp.customer", value=None)
        producer.flush(10)
        follower.follow(commands_of("A watermark is lost"))

        assert before == writes(system)
        assert [] == disagreements(system)

    def test_another_fingerprint_key(self, system: Installation, follower: Follower, monkeypatch: pytest.MonkeyPatch):
        before, record = writes(system), next(iter(system.pairs))
        environment = {**installation._environment(), "DRAWBAR_FINGERPRINT_KEY": "another"}
        monkeypatch.setattr(installation, "_environment", lambda: environment)
        follower.follow(commands_of("The fingerprint key is changed"))

        assert before == writes(system)
        system.erp.edit(record, city="Oldtown")
        system.await_value("crm", system.pairs[record], "address1_city", "Oldtown")
        assert [] == disagreements(system)


def lose_rows(servers: str) -> None:
    """All rows of the topic go, while every process is there: each key gets a tombstone nobody decided on."""
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    admin.delete_topics([COUPLINGS])[COUPLINGS].result(30)
    until(lambda: COUPLINGS not in admin.list_topics(timeout=10).topics, "the topic is gone")


class TestDocument:
    def test_has_the_procedures_that_are_followed(self):
        """A procedure that is added is followed by a test, too."""
        body = sections(text("docs/operations.md"))[SECTION]

        assert 4 == len(re.findall(r"^### ", body, flags=re.MULTILINE))
