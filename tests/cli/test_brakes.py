"""`drawbar pause | resume | brakes`: what they say is held, and what they set on a real Apache Kafka."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from drawbar import brakes as brakes_of_the_bus
from drawbar.brakes import await_confirmed, read_brakes, set_brakes, unconfirmed
from drawbar.bus.apache import ApacheKafka
from drawbar.bus.clients import make_admin, make_producer, read_to_end
from drawbar.bus.topics import apply
from drawbar.cli import main
from drawbar.cli.brakes import held_by_brakes, held_by_capture
from drawbar.settings import BusSettings
from schemas.brakes import ALL, Brake
from schemas.codec import to_json
from schemas.coupling import KeptBack, PairState, Row
from schemas.errors import BrakeNotConfirmed
from schemas.records import CommandKind
from schemas.topics import BRAKES, COUPLINGS, HINTS, STATUS, TOPICS
from tests.cli.rows_fake import CUSTOMERS, PEOPLE, a_row, a_side, shipped
from tests.cli.test_status import a_beat

NOW = datetime.now(timezone.utc)
TO_CRM, TO_ERP = f"{CUSTOMERS}:to_crm", f"{CUSTOMERS}:to_erp"
PAUSED = Brake(on=True, by="ann", at=NOW, reason="stocktaking")
STOPPED = Brake(on=True, by="process 7", at=NOW, reason="too many records at once", code="DRW-8001")


def a_held_row(number: int, *, direction: str = "to_crm", age_s: float = 10, **kept: Any) -> Row:
    """A pair of which a brake keeps something back."""
    one = {"kind": CommandKind.UPDATE, "fields": ("telephone1",), **kept}
    return a_row(
        CUSTOMERS,
        erp=a_side(f"e{number}"),
        crm=a_side(f"c{number}"),
        state=PairState.COUPLED,
        kept_back={direction: KeptBack(since=NOW - timedelta(seconds=age_s), **one)},
    )


class TestHeld:
    def test_is_what_the_rows_keep_back_under_each_brake(self):
        rows = [
            a_held_row(1),
            a_held_row(2, age_s=60, fields=("name", "telephone1")),
            a_held_row(3, direction="to_erp"),
        ]
        crm, erp = held_by_brakes(rows, {TO_CRM: STOPPED, TO_ERP: PAUSED}, shipped())

        assert (TO_CRM, "stopped", "DRW-8001", 2, {"update": 2}) == (
            crm.what,
            crm.state,
            crm.code,
            crm.records,
            crm.kinds,
        )
        assert {"telephone1": 2, "name": 1} == crm.fields
        assert ("erp:customer:e2", "erp:customer:e1") == crm.refs
        assert (TO_ERP, "paused", "stocktaking", ("crm:account:c3",)) == (erp.what, erp.state, erp.reason, erp.refs)

    def test_is_shown_though_it_holds_nothing(self):
        (one,) = held_by_brakes([], {TO_CRM: PAUSED, TO_ERP: replace(PAUSED, on=False)}, shipped())

        assert (TO_CRM, 0) == (one.what, one.records)

    def test_by_the_brake_of_everything_is_one_line(self):
        rows = [a_held_row(1), a_held_row(2, direction="to_erp"), a_held_row(3)]
        everything, crm = held_by_brakes(rows, {ALL: PAUSED, TO_CRM: STOPPED}, shipped())

        assert [(ALL, 1), (TO_CRM, 2)] == [(everything.what, everything.records), (crm.what, crm.records)]

    @pytest.mark.parametrize(("observing", "state"), [(True, "only observed"), (False, "going on")])
    def test_under_no_brake_is_going_on(self, observing: bool, state: str):
        """It was let go, and goes at a bounded rate; or the system only observes."""
        (one,) = held_by_brakes([a_held_row(1)], {}, shipped(), observing=observing)

        assert (state, None) == (one.state, one.since)

    def test_names_only_so_many_records_in_json(self):
        (one,) = held_by_brakes([a_held_row(number) for number in range(5)], {TO_CRM: STOPPED}, shipped())
        said = one.to_json(2)

        assert (5, 2, CUSTOMERS, "to_crm") == (said["records"], len(said["first"]), said["mapping"], said["direction"])

    def test_by_capture_is_the_entity_and_its_deletes(self):
        deletes = {"missing": 40, "first": ["a", "b"], "since": NOW.isoformat()}
        looks = {
            "erp.customer": {"state": "stopped", "reason": "DRW-6001", "deletes": deletes},
            "crm.account": {"state": "stopped", "reason": "DRW-2003"},
        }
        (one,) = held_by_capture([a_beat("capture", entities=looks)])

        assert ("erp.customer", "DRW-6001", 40, NOW) == (one.what, one.code, one.records, one.since)
        assert ("erp:customer:a", "erp:customer:b") == one.refs


class TestUnconfirmed:
    def test_are_processes_that_have_not_read_so_far(self):
        beats = [a_beat("process", brakes_position=8), a_beat("process", pid=9, brakes_position=7), a_beat("capture")]

        assert [9] == [beat.pid for beat in unconfirmed(beats, 7)]

    def test_are_those_that_say_nothing_of_brakes(self):
        assert 1 == len(unconfirmed([a_beat("process")], 0))


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BusSettings]:
    """A broker with the topic table and nobody else's processes on it."""
    with ApacheKafka.start(tmp_path_factory.mktemp("kafka"), heap_mb=256) as apache:
        servers = apache.bootstrap_servers
        apply(make_admin(servers, client_id="test", extra={}), TOPICS, partitions=2)
        yield BusSettings(bootstrap_servers=servers, group_prefix="braketest", partitions=2)


@pytest.fixture
def named(bus: BusSettings, monkeypatch: pytest.MonkeyPatch) -> BusSettings:
    """Commands find this broker, on which no brake is on."""
    monkeypatch.setenv("DRAWBAR_BUS__BOOTSTRAP_SERVERS", bus.bootstrap_servers)
    monkeypatch.setenv("DRAWBAR_BUS__PARTITIONS", "2")
    monkeypatch.delenv("DRAWBAR_CONNECTION_FILE", raising=False)
    set_brakes(bus, {key: replace(brake, on=False, code="") for key, brake in read_brakes(bus).items()})
    put(bus, STATUS, b"us", None)
    return bus


def put(bus: BusSettings, topic: str, key: bytes, value: bytes | None) -> None:
    producer = make_producer(bus.bootstrap_servers, client_id="test", extra={})
    producer.produce(topic, key=key, value=value)
    producer.flush(30)


def beat(bus: BusSettings, *, stage: str = "process", **values: object) -> None:
    """This very process says that it is one of a stage."""
    said = {"stage": stage, "pid": os.getpid(), "host": socket.gethostname(), "state": "running", **values}
    put(bus, STATUS, b"us", json.dumps({**said, "at": datetime.now(timezone.utc).isoformat()}).encode())


def on(bus: BusSettings) -> dict[str, tuple[str, str]]:
    return {key: (brake.word, brake.reason) for key, brake in read_brakes(bus).items() if brake.on}


@contextmanager
def a_process(bus: BusSettings) -> Iterator[None]:
    """One that keeps to every brake that it reads, and says so a little later."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.2):
            last = max((m.offset() or 0 for m in read_to_end(bus.bootstrap_servers, BRAKES, extra={})), default=-1)
            beat(bus, brakes_position=last + 1)

    beat(bus, brakes_position=0)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


@pytest.mark.kafka
class TestPause:
    def test_sets_what_is_meant_and_waits_for_every_process(
        self, named: BusSettings, capsys: pytest.CaptureFixture[str]
    ):
        with a_process(named):
            assert 0 == main(["pause", "--mapping", CUSTOMERS, "--direction", "to_crm", "--reason", "stocktaking"])

        assert {TO_CRM: ("paused", "stocktaking")} == on(named)
        assert f"{TO_CRM}: paused" in capsys.readouterr().err

    def test_says_that_nobody_decides_now(self, named: BusSettings, capsys: pytest.CaptureFixture[str]):
        """The brake is set all the same: who starts reads it first."""
        assert 0 == main(["pause"])
        assert [ALL] == list(on(named))
        assert "no process decides now" in capsys.readouterr().err

    def test_names_the_process_that_does_not_confirm(
        self, named: BusSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ):
        """The brake stays set; exit code 1."""
        beat(named, brakes_position=0)
        monkeypatch.setattr(
            brakes_of_the_bus, "await_confirmed", lambda bus, offset: await_confirmed(bus, offset, timeout_s=0.3)
        )

        assert 1 == main(["pause", "--mapping", CUSTOMERS])
        said = capsys.readouterr().err
        assert {TO_CRM, TO_ERP} == set(on(named))
        assert BrakeNotConfirmed.code in said
        assert f"process ({os.getpid()})" in said

    @pytest.mark.parametrize("words", [["--mapping", "customer"], ["--direction", "crm"], ["--mapping", "company"]])
    def test_refuses_what_there_is_not(self, named: BusSettings, words: list[str]):
        assert 2 == main(["pause", *words])
        assert {} == on(named)


@pytest.mark.kafka
class TestResume:
    def test_takes_off_a_part_of_everything(self, named: BusSettings, capsys: pytest.CaptureFixture[str]):
        set_brakes(named, {ALL: PAUSED})

        assert 0 == main(["resume", "--mapping", CUSTOMERS])
        left = on(named)
        assert (f"{PEOPLE}:to_erp" in left, TO_CRM in left, ALL in left) == (True, False, False)
        assert 0 == main(["resume"])
        assert {} == on(named)

    def test_leaves_what_stopped_by_itself(self, named: BusSettings, capsys: pytest.CaptureFixture[str]):
        """And says how that is let go; exit code 1, for nothing was done."""
        set_brakes(named, {TO_CRM: STOPPED})

        assert 1 == main(["resume"])
        assert f"drawbar brakes release {TO_CRM}" in capsys.readouterr().err
        assert [TO_CRM] == list(on(named))


@pytest.mark.kafka
class TestBrakes:
    def test_show_says_that_nothing_is_held(self, named: BusSettings, capsys: pytest.CaptureFixture[str]):
        assert 0 == main(["brakes", "show"])
        assert "nothing is paused" in capsys.readouterr().out

    def test_show_and_release_what_stopped_by_itself(self, named: BusSettings, capsys: pytest.CaptureFixture[str]):
        set_brakes(named, {TO_CRM: STOPPED})
        rows: Mapping[str, Row] = {f"{CUSTOMERS}:e{number}": a_held_row(number) for number in range(3)}
        for key, row in rows.items():
            put(named, COUPLINGS, key.encode(), to_json(row))

        assert 0 == main(["brakes", "show"])
        shown = capsys.readouterr().out
        assert all(part in shown for part in (TO_CRM, "stopped", "DRW-8001", "3 x telephone1", "erp:customer:e2"))
        assert 0 == main(["brakes", "show", "--json", "--records", "1"])
        told = json.loads(capsys.readouterr().out)
        assert (3, {"telephone1": 3}, 1) == (told["records"], told["fields"], len(told["first"]))

        assert 0 == main(["brakes", "release", TO_CRM, "--for", "30m", "--yes"])
        brake = read_brakes(named)[TO_CRM]
        assert (False, "") == (brake.on, brake.code)
        assert brake.let_through_at is not None
        assert brake.let_through_at + timedelta(minutes=30) == brake.free_until
        for key in rows:
            put(named, COUPLINGS, key.encode(), None)

    def test_release_asks_first(self, named: BusSettings, monkeypatch: pytest.MonkeyPatch):
        """Whoever says no lets nothing go."""
        set_brakes(named, {TO_CRM: STOPPED})
        monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))

        assert 0 != main(["brakes", "release", TO_CRM])
        assert [TO_CRM] == list(on(named))

    @pytest.mark.parametrize("what", [TO_CRM, TO_ERP, "erp.customer", "nonsense"])
    def test_release_refuses_what_has_not_stopped_by_itself(self, named: BusSettings, what: str):
        set_brakes(named, {TO_CRM: PAUSED})

        assert 2 == main(["brakes", "release", what, "--yes"])

    def test_show_and_release_deletes(self, named: BusSettings, capsys: pytest.CaptureFixture[str]):
        deletes = {"missing": 40, "first": ["a"], "since": NOW.isoformat()}
        looks = {"erp.customer": {"state": "stopped", "reason": "DRW-6001", "deletes": deletes}}
        beat(named, stage="capture", entities=looks)

        assert 0 == main(["brakes", "show"])
        assert "40 deletes" in capsys.readouterr().out
        assert 0 == main(["brakes", "release", "erp:customer", "--yes"])
        last = [json.loads(message.value() or b"") for message in read_to_end(named.bootstrap_servers, HINTS, extra={})]
        assert ("confirm-deletes", "customer") == (last[-1]["kind"], last[-1]["entity"])
