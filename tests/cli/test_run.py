"""The connection file, what `drawbar up` refuses before it starts anything, and what it tells its children."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from drawbar.cli import installation, main
from drawbar.cli.connection import remove_connection, write_connection
from drawbar.cli.installation import Installation, Plan
from drawbar.settings import from_connection, load_settings
from drawbar.status import STAGES, Beat
from schemas.errors import SettingsError, UsageError
from tests.cli.test_status import a_beat

CONNECTION: Mapping[str, Any] = {
    "bootstrap_servers": "127.0.0.1:9092",
    "sign_in": {"authority": "https://localhost:1/t", "tenant_id": "t"},
    "erp": {"base_url": "https://localhost:2/v2.0", "scope": "s", "client_id": "c", "client_secret": "hidden-erp"},
    "crm": {"base_url": "https://localhost:3/api", "scope": "s", "client_id": "c", "client_secret": "hidden-crm"},
    "ca_file": "/ca.pem",
    "state_dir": "/state",
    "partitions": 4,
}


@pytest.fixture(autouse=True)
def nobody_elses_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable and no file of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("DRAWBAR_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


class TestWriteConnection:
    def test_lets_only_the_owner_read(self, tmp_path: Path):
        """It holds secrets."""
        write_connection(tmp_path / "c.json", CONNECTION)

        assert 0o600 == (tmp_path / "c.json").stat().st_mode & 0o777

    def test_takes_away_the_rights_of_a_file_that_was_there(self, tmp_path: Path):
        (tmp_path / "c.json").write_text("{}")
        (tmp_path / "c.json").chmod(0o644)
        write_connection(tmp_path / "c.json", CONNECTION)

        assert 0o600 == (tmp_path / "c.json").stat().st_mode & 0o777

    def test_is_one_object_and_leaves_nothing_beside_it(self, tmp_path: Path):
        write_connection(tmp_path / "c.json", CONNECTION)

        assert CONNECTION == json.loads((tmp_path / "c.json").read_text())
        assert ["c.json"] == [path.name for path in tmp_path.iterdir()]

    def test_is_never_seen_in_part(self, tmp_path: Path):
        """Whoever reads while it is written anew reads one whole object or the other."""
        path, done = tmp_path / "c.json", threading.Event()
        write_connection(path, {"number": 0, "fill": "x" * 50_000})

        def write() -> None:
            for number in range(200):
                write_connection(path, {"number": number, "fill": "x" * 50_000})
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        while not done.is_set():
            json.loads(path.read_text())
        writer.join()

    def test_says_when_the_folder_is_missing(self, tmp_path: Path):
        with pytest.raises(SettingsError) as refused:
            write_connection(tmp_path / "nowhere" / "c.json", CONNECTION)

        assert "hidden" not in refused.value.for_people()

    def test_is_what_the_settings_are_read_from(self, tmp_path: Path):
        """Every other command finds the system by it."""
        write_connection(tmp_path / "c.json", {**CONNECTION, "pids": {}})

        settings = load_settings(tmp_path / "c.json")
        assert ("127.0.0.1:9092", 4) == (settings.bus.bootstrap_servers, settings.bus.partitions)
        assert settings.crm.client_secret is not None
        assert "hidden-crm" == settings.crm.client_secret.get_secret_value()

    def test_can_be_removed_twice(self, tmp_path: Path):
        remove_connection(tmp_path / "c.json")
        remove_connection(tmp_path / "c.json")


class TestSandbox:
    @pytest.mark.parametrize(
        ("given", "fault"),
        [
            ("erp_etag_form", "a switch is given as NAME=VALUE"),
            ("erp_etag=older", "there is no switch erp_etag; there are"),
            ("erp_etag_form=old", "erp_etag_form is one of newer, older"),
        ],
    )
    def test_refuses_a_switch_that_there_is_not(self, given: str, fault: str, capsys: pytest.CaptureFixture[str]):
        assert 2 == main(["sandbox", "--switch", given])
        assert f"DRW-1004 --switch: {fault}" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("given", "fault", "advice"),
        [
            (["--db", "{folder}"], "cannot keep the data: unable to open", "a sandbox made, in --db"),
            (["--db", "{text}"], "cannot keep the data: file is not a database", "a sandbox made, in --db"),
            (["--state-dir", "{text}"], "cannot be made: File exists", "name a folder that can be written"),
            (["--host", "192.0.2.1"], "192.0.2.1 is no address of this machine", "name one in --host"),
            (["--environment", "a b"], "an environment cannot be called 'a b'", "choose letters, digits"),
        ],
    )
    def test_says_what_it_cannot_start_with_and_what_to_do(
        self, given: list[str], fault: str, advice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        text = tmp_path / "notes.txt"
        text.write_text("No database. " * 100)
        words = [word.format(folder=tmp_path, text=text) for word in given]

        assert 2 == main(["sandbox", "--state-dir", str(tmp_path / "state"), "--seed", "empty", *words])
        said = capsys.readouterr().err
        assert "DRW-1004" in said
        assert fault in said
        assert advice in said

    def test_says_that_a_port_is_taken(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]

            assert 2 == main(["sandbox", "--state-dir", str(tmp_path), "--erp-port", str(port)])
        said = capsys.readouterr().err
        assert f"DRW-1004 port {port} is taken" in said
        assert "choose another port" in said


class TestUp:
    @pytest.mark.parametrize(
        ("words", "fault"),
        [
            (["--bus", "rabbit"], "--bus is kafka, embedded, docker or HOST:PORT"),
            (["--sandbox", "--seed", "full"], "--seed is demo, empty or large"),
            (["--plain-http"], "--sandbox"),
            (["--db", "x.sqlite"], "--sandbox"),
            ([], "erp.base_url"),
        ],
    )
    def test_refuses_before_it_starts_anything(
        self, words: list[str], fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        """Exit code 2 and one coded error; no folder is made."""
        assert 2 == main(["up", "--state-dir", str(tmp_path / "state"), *words])
        said = capsys.readouterr()
        assert "" == said.out
        assert said.err.startswith("DRW-10")
        assert fault in said.err
        assert not (tmp_path / "state").exists()

    def test_names_the_mapping_file_that_is_wrong(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ):
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "broken.yaml").write_text("name: [")
        monkeypatch.setenv("DRAWBAR_MAPPINGS_DIR", str(tmp_path / "m"))

        assert 2 == main(["up", "--sandbox", "--state-dir", str(tmp_path / "state")])
        assert "broken.yaml:1" in capsys.readouterr().err


class TestStages:
    @pytest.mark.parametrize("words", [["process"], ["capture", "run"], ["sink", "--system", "erp"], ["status"]])
    def test_need_to_know_which_system_is_meant(self, words: list[str], capsys: pytest.CaptureFixture[str]):
        assert 2 == main(words)
        assert "DRW-1001" in capsys.readouterr().err

    @pytest.mark.parametrize("words", [["status"], ["wait", "--quiet"], ["topics", "plan"], ["process"]])
    def test_say_when_the_connection_file_is_missing(self, words: list[str], capsys: pytest.CaptureFixture[str]):
        assert 2 == main([*words, "--connection-file", "nowhere.json"])
        assert "nowhere.json" in capsys.readouterr().err

    def test_never_print_a_secret_of_a_connection_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        """Not even when something else in it is wrong."""
        write_connection(tmp_path / "c.json", {**CONNECTION, "partitions": "many"})

        assert 2 == main(["process", "--connection-file", str(tmp_path / "c.json")])
        assert "hidden" not in "".join(capsys.readouterr())

    def test_refuse_an_entity_that_is_not_captured(self, capsys: pytest.CaptureFixture[str]):
        assert 2 == main(["capture", "confirm-deletes", "erp.vendor"])
        assert "erp.customer" in capsys.readouterr().err


class TestWait:
    def test_must_be_told_for_what(self, capsys: pytest.CaptureFixture[str]):
        assert 2 == main(["wait"])
        assert "drawbar wait --quiet" in capsys.readouterr().err


class TestEnvironmentOfAStage:
    def test_carries_what_was_settled_here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """A stage that reads it gets the same systems, bus and folder, secrets included."""
        settings = load_settings(None, **from_connection(CONNECTION), observe=True)
        for name, value in installation._to_environment(settings, with_systems=True).items():
            monkeypatch.setenv(name, value)

        assert settings == load_settings()

    def test_finds_the_registry_in_the_connection_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """Without its schemas nobody reads the topics."""
        monkeypatch.setenv("DRAWBAR_REGISTRY__URL", "http://registry.test")
        monkeypatch.setenv("DRAWBAR_REGISTRY__USER", "drawbar")
        monkeypatch.setenv("DRAWBAR_REGISTRY__PASSWORD", "s3cret")
        settings = load_settings(None, **from_connection(CONNECTION))
        told = installation._registry(settings.registry)
        monkeypatch.delenv("DRAWBAR_REGISTRY__URL")

        assert settings.registry == load_settings(None, **from_connection({**CONNECTION, "registry": told})).registry

    def test_does_not_name_a_connection_file(self, monkeypatch: pytest.MonkeyPatch):
        """It is of the system that is only being made."""
        monkeypatch.setenv("DRAWBAR_CONNECTION_FILE", "/of/another/system.json")

        assert "DRAWBAR_CONNECTION_FILE" not in installation._environment({})

    def test_leaves_systems_of_the_settings_to_the_stage(self):
        """It reads them by itself, from environment and drawbar.toml: certificates, files of secrets, all of it."""
        settings = load_settings(None, **from_connection(CONNECTION))

        assert not [n for n in installation._to_environment(settings, with_systems=False) if "ERP" in n or "CRM" in n]


class TestAloneIn:
    def test_refuses_a_second_one(self, tmp_path: Path):
        """Two installations on one folder would start each other's broker."""
        whose = pytest.raises(UsageError, match=rf"process {os.getpid()}")
        with installation._alone_in(tmp_path), whose, installation._alone_in(tmp_path):
            pass

    def test_lets_the_next_one_in(self, tmp_path: Path):
        for _ in range(2):
            with installation._alone_in(tmp_path):
                pass


class TestSandboxPorts:
    def test_are_those_of_the_last_time(self, tmp_path: Path):
        """Clients that know the sandbox find it again."""
        (tmp_path / "sandbox.json").write_text(json.dumps({"ports": {"sign_in": 21001, "erp": 21002, "crm": 21003}}))

        assert {"sign_in": 21001, "erp": 21002, "crm": 21003} == installation._sandbox_ports(tmp_path)

    def test_differ_from_each_other(self, tmp_path: Path):
        assert 3 == len(set(installation._sandbox_ports(tmp_path).values()))


class TestLastWords:
    def test_are_the_coded_error(self, tmp_path: Path):
        """Of this start, not of an earlier one."""
        log = tmp_path / "process.log"
        log.write_text("DRW-1002 an old one\n")
        start = log.stat().st_size
        log.write_text(log.read_text() + "{}\nDRW-1001 settings are wrong\n  where: here\n  do:    this\n")

        assert "DRW-1001 settings are wrong\n  where: here\n  do:    this" == installation._last_words([(log, start)])

    def test_are_the_last_line_and_the_log_where_there_is_none(self, tmp_path: Path):
        (tmp_path / "x.log").write_text("one\ntwo\n")

        assert installation._last_words([(tmp_path / "x.log", 0)]).startswith("two (log: ")

    def test_may_be_none(self, tmp_path: Path):
        (tmp_path / "x.log").write_text("")

        assert installation._last_words([(tmp_path / "x.log", 0)]).startswith("it said nothing")


class TestConsumes:
    """When the connection file is written."""

    def test_once_every_process_works_and_every_entity_has_an_owner(self, tmp_path: Path):
        assert an_installation(tmp_path)._consumes([a_beat(stage) for stage in STAGES])

    @pytest.mark.parametrize("stage", STAGES)
    def test_not_before_each_stage_says_so(self, tmp_path: Path, stage: str):
        beats = [a_beat(name) for name in STAGES if name != stage]

        assert not an_installation(tmp_path)._consumes(beats)
        assert not an_installation(tmp_path)._consumes([*beats, a_beat(stage, state="starting")])

    def test_not_by_the_word_of_a_process_of_an_earlier_start(self, tmp_path: Path):
        beats = [a_beat(stage, pid=99) for stage in STAGES]

        assert not an_installation(tmp_path)._consumes(beats)

    def test_not_while_an_entity_waits_for_its_turn(self, tmp_path: Path):
        """Its source is not read yet."""
        looks: Mapping[str, Any] = {"erp.customer": {"state": "waiting"}}
        capture = a_beat("capture", entities=looks)

        assert not an_installation(tmp_path)._consumes([*(a_beat(s) for s in STAGES[1:]), capture])

    def test_needs_all_of_several_processes(self, tmp_path: Path):
        made = an_installation(tmp_path, processes={"process": 2})
        made._pids = {**made._pids, "process": [2, 22]}
        beats: list[Beat] = [a_beat(stage) for stage in STAGES]

        assert not made._consumes(beats)
        assert made._consumes([*beats, a_beat("process", pid=22)])


class TestChanged:
    def test_keeps_the_file_true(self, tmp_path: Path):
        """From when it was written on, every start of a process is in it."""
        made = an_installation(tmp_path, connection_file=tmp_path / "c.json")
        made._changed({"process": [5]})
        assert not (tmp_path / "c.json").exists()

        made._ready()
        made._changed({"process": []})
        made._changed({"process": [6]})

        assert {"process": [6]} == json.loads((tmp_path / "c.json").read_text())["pids"]

    def test_says_who_came_and_went(self, tmp_path: Path):
        said: list[tuple[str, str]] = []
        made = an_installation(tmp_path, said=said)
        made._pids = {}
        made._changed({"process": [5]})
        made._changed({"process": []})

        assert [("process", "process 5 started"), ("process", "process 5 ended; it is started again")] == said


def an_installation(tmp_path: Path, *, said: list[tuple[str, str]] | None = None, **values: Any) -> Installation:
    """One that has started the four idle processes of the status tests."""
    settings = load_settings(None, **from_connection(CONNECTION))
    plan = Plan(**{"settings": settings, "entities": lambda _settings: frozenset(), **values})
    made = Installation(plan, lambda who, what: said.append((who, what)) if said is not None else None)
    made._entities = frozenset({"erp.customer"})
    made._pids = {stage: [number + 1] for number, stage in enumerate(STAGES)}
    return made
