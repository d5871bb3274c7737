"""What survives: data, versions, links and secrets, a killed process included."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from drawbar.sandbox.clock import Clock
from drawbar.sandbox.store import Database, DatabaseError, Store
from tests.sandbox.client import Client, Info, eventually


class TestStore:
    def test_a_transaction_that_fails_leaves_nothing(self):
        store = Store("erp", Database(None), Clock(), random_seed=1)
        with store.transaction():
            store.put("t", "a", {"n": 1, "code": "A"})
            store.set_fact("known", 1)
        store.table("t").index("code")

        def fails() -> None:
            with store.transaction():
                store.put("t", "a", {"n": 2, "code": "B"})
                store.remove("t", "a")
                store.put("t", "b", {"n": 3, "code": "C"})
                store.set_fact("known", 2)
                store.set_fact("new", 2)
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fails()

        assert {"a": {"n": 1, "code": "A"}} == {key: row.values for key, row in store.table("t").rows.items()}
        assert {"A": "a"} == store.table("t").index("code")
        assert (1, None) == (store.fact("known"), store.fact("new"))

    def test_a_version_that_was_taken_back_is_not_given_out_again(self, tmp_path: Path):
        """Not after a restart either: a delta link that bears it would miss what is written under it."""
        database = Database(tmp_path / "data.db")
        store = Store("crm", database, Clock(), random_seed=1)
        with store.transaction():
            store.put("t", "a", {"n": 0})

        def fails() -> None:
            with store.transaction():
                store.put("t", "a", {"n": 1})
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fails()
        after_a_failure = store.version
        assert after_a_failure == Store("crm", database, Clock(), random_seed=1).version
        with store.transaction():
            store.put("t", "a", {"n": 1})
            undo = store.savepoint()
            store.put("t", "a", {"n": 2})
            undo()
        database.close()
        database = Database(tmp_path / "data.db")
        again = Store("crm", database, Clock(), random_seed=1)
        database.close()

        assert after_a_failure + 2 == store.version == again.version
        assert {"n": 1} == again.table("t").rows["a"].values

    def test_rows_are_found_by_a_value_whatever_becomes_of_them(self):
        store = Store("erp", Database(None), Clock(), random_seed=1)
        table = store.table("t")
        with store.transaction():
            store.put("t", "a", {"of": 1})
            assert ["a"] == table.having("of", 1)
            store.put("t", "b", {"of": 1})
            store.put("t", "c", {"of": 2})
            undo = store.savepoint()
            store.put("t", "a", {"of": 2})
            store.remove("t", "b")
            assert ([], ["c", "a"]) == (table.having("of", 1), table.having("of", 2))
            undo()

        assert ({"a", "b"}, ["c"], []) == (set(table.having("of", 1)), table.having("of", 2), table.having("of", 3))

    def test_changes_are_found_by_version_after_the_log_is_cut(self):
        store = Store("erp", Database(None), Clock(), random_seed=1)
        for number in range(3000):
            with store.transaction():
                store.put("t", str(number % 7), {"n": number})
        since = store.version
        with store.transaction():
            store.put("t", "3", {"n": -1})
            store.remove("t", "5")

        changed, gone = store.table("t").changed_since(since, up_to=store.version)

        assert (["3"], ["5"]) == ([key for key, _ in changed], [key for _, key in gone])
        assert len(store.table("t").log) < 1100


class TestFile:
    """Source: the sandbox itself."""

    def test_is_one_sandboxs_at_a_time(self, tmp_path: Path):
        path = tmp_path / "data.db"
        first = Database(path)

        with pytest.raises(DatabaseError, match="another sandbox has it"):
            Database(path)
        first.close()
        Database(path).close()

    def test_can_be_copied_while_a_sandbox_has_it(self, tmp_path: Path):
        """By SQLite's own backup, as anybody would take it."""
        database = Database(tmp_path / "sandbox.sqlite")
        store = Store("crm", database, Clock(), random_seed=1)
        with store.transaction():
            store.put("account", "1", {"name": "N"})
        with (
            closing(sqlite3.connect(tmp_path / "sandbox.sqlite")) as live,
            closing(sqlite3.connect(tmp_path / "copy.sqlite")) as copy,
        ):
            live.backup(copy)
        database.close()
        copied = Database(tmp_path / "copy.sqlite")
        rows, _ = copied.load("crm")
        copied.close()

        assert [("account", "1")] == [row[:2] for row in rows]

    def test_that_is_no_database_is_refused(self, tmp_path: Path):
        text, other = tmp_path / "notes.txt", tmp_path / "other.db"
        text.write_text("This is a text of some length. " * 100)
        with sqlite3.connect(other) as database:
            database.execute("CREATE TABLE rows (name TEXT)")
        database.close()

        for path in (text, other, tmp_path):
            with pytest.raises(DatabaseError, match=str(path)):
                Database(path)

    def test_of_an_earlier_build_is_completed(self, running: Callable[..., Any], tmp_path: Path):
        """With what every organization and company has; nothing is added to a whole one."""
        path = tmp_path / "data.db"

        def read() -> tuple[list[list[str]], int]:
            with running(seed="empty", limits=False, db=path, environments=("test",)) as info:
                crm, erp = Client(info, "crm"), Client(info, "erp")
                test = info["erp"]["environments"]["test"]
                found = (
                    [row["name"] for row in crm.rows("organizations?$select=name")],
                    sorted(row["name"] for row in crm.rows("sdkmessagefilters?$select=name")),
                    [row["id"] for row in erp.rows("journals?$select=id")],
                    [row["@odata.etag"] for row in erp.rows("accounts?$select=id")],
                    [row["id"] for row in erp.rows(f"{test['base_url']}/journals?$select=id")],
                )
                crm.close()
                erp.close()
            with sqlite3.connect(path) as database:
                count = database.execute("SELECT count(*) FROM rows").fetchone()[0]
            database.close()
            return found, count

        whole = read()
        assert whole == read()
        with sqlite3.connect(path) as database:
            database.execute("DELETE FROM rows WHERE system = 'crm' AND name = 'organization'")
            database.execute("DELETE FROM rows WHERE system LIKE 'erp%' AND name LIKE '%/journals'")
            database.execute("DELETE FROM rows WHERE name = 'sdkmessagefilter' AND body LIKE '%of invoice%'")
        database.close()

        assert whole == read()

    def test_does_not_bring_back_what_was_deleted(self, running: Callable[..., Any], tmp_path: Path):
        path = tmp_path / "data.db"
        with running(seed="empty", limits=False, db=path) as info:
            crm, erp = Client(info, "crm"), Client(info, "erp")
            some = crm.rows("sdkmessagefilters?$top=1")[0]["sdkmessagefilterid"]
            gone = [erp.delete(f"taxAreas({row['id']})", tag="*").status_code for row in erp.rows("taxAreas")]
            gone.append(crm.delete(f"sdkmessagefilters({some})").status_code)
            crm.close()
            erp.close()
        with running(seed="empty", limits=False, db=path) as info:
            crm, erp = Client(info, "crm"), Client(info, "erp")
            left = erp.rows("taxAreas"), crm.get(f"sdkmessagefilters({some})").status_code
            crm.close()
            erp.close()

        assert {204} == set(gone)
        assert ([], 404) == left


class TestProcess:
    def start(self, folder: Path) -> tuple[subprocess.Popen[bytes], Info]:
        info = folder / "info.json"
        info.unlink(missing_ok=True)
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "drawbar",
                "sandbox",
                "--state-dir",
                str(folder),
                "--db",
                str(folder / "data.db"),
                "--connection-file",
                str(info),
            ]
        )
        assert eventually(lambda: info.exists() or process.poll() is not None, within_s=20)
        return process, json.loads(info.read_text())

    def test_a_killed_sandbox_comes_back_with_every_acknowledged_write(self, certificates: Path, tmp_path: Path):
        shutil.copytree(certificates, tmp_path, dirs_exist_ok=True)
        process, info = self.start(tmp_path)
        try:
            erp, crm = Client(info, "erp"), Client(info, "crm")
            link = crm.get("accounts?$select=name", prefer="odata.track-changes").json()["@odata.deltaLink"]
            made = [crm.post("accounts", {"name": f"Kept {n}"}).headers["OData-EntityId"] for n in range(5)]
            customer = erp.post("customers", {"displayName": "Kept"}).json()
            crm.delete(made[0])
            process.send_signal(signal.SIGKILL)
            process.wait()

            process, again = self.start(tmp_path)

            assert info == again
            assert 0o600 == (tmp_path / "sandbox.json").stat().st_mode & 0o777
            kept = erp.get(f"customers({customer['id']})").json()
            delta = crm.get(link).json()["value"]
            later = erp.post("customers", {"displayName": "Later"}).json()
            assert (customer["@odata.etag"], customer["lastModifiedDateTime"]) == (
                kept["@odata.etag"],
                kept["lastModifiedDateTime"],
            )
            assert [f"Kept {n}" for n in range(1, 5)] == [row["name"] for row in delta if "reason" not in row]
            assert made[0][-37:-1] == delta[-1]["id"]
            assert int(customer["number"][1:]) + 1 == int(later["number"][1:])
            erp.close()
            crm.close()
        finally:
            process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(timeout=10)
