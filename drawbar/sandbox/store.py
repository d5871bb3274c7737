"""Rows of one system, in memory, written through to SQLite when a path is given.

Everything runs on one thread, and a request is handled without giving up control, so a transaction needs no
lock: it is the time between two `await`s. What a transaction did is undone when it raises, and is in SQLite
before it ends otherwise. SQLite runs with a write-ahead log and without `fsync` per commit: a killed process
loses nothing, a machine that loses power may lose the last moments.
"""

from __future__ import annotations

import fcntl
import json
import random
import sqlite3
import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from drawbar.sandbox.clock import Clock

Values = dict[str, Any]
Columns = str | tuple[str, ...]
_NOTHING = object()  # what stands for no value
Reader = Callable[[Values, Any], Any]  # what an index keeps of a row; None: nothing


@dataclass(slots=True)
class Stored:
    """One row. `values` is never changed in place: a write puts another row in its stead."""

    values: Values
    version: int  # of the whole system, grows with every write anywhere
    wire: Values | None = None  # the row as the API shows it, kept until the next write


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one write of a transaction did; `note` is whatever the writer wants its listeners to know."""

    table: str
    id: str
    before: Values | None
    after: Values | None
    version: int
    note: Any = None


@dataclass(slots=True)
class Table:
    """The rows of one table. `log` names every write in order, so that what changed since is found by search."""

    rows: dict[str, Stored] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)
    log: list[tuple[int, str]] = field(default_factory=list)
    indexes: dict[Columns, dict[Any, str]] = field(default_factory=dict)  # of columns whose values are unique
    writes: int = 0  # grows with every write, silent ones and those taken back included
    _readers: dict[Columns, Reader] = field(default_factory=dict)
    _groups: dict[str, dict[Any, dict[str, None]]] = field(default_factory=dict)

    def set(self, row_id: str, stored: Stored | None) -> None:
        """Put, replace or take away a row, and keep the indexes true."""
        self.writes += 1
        before = self.rows.get(row_id)
        if stored is None:
            self.rows.pop(row_id, None)
        else:
            self.rows[row_id] = stored
        for columns, index in self.indexes.items():
            read = self._readers[columns]
            old = read(before.values, columns) if before else None
            new = read(stored.values, columns) if stored else None
            if old != new and index.get(old) == row_id:
                del index[old]
            if new is not None:
                index[new] = row_id
        for column, group in self._groups.items():
            old = before.values.get(column) if before else None
            new = stored.values.get(column) if stored else None
            if old != new or stored is None:
                group.get(old, {}).pop(row_id, None)
            if new is not None:
                group.setdefault(new, {})[row_id] = None

    def having(self, column: str, value: Any) -> list[str]:
        """Ids of the rows with a value in a column; found without looking at the others, but for the first time."""
        group = self._groups.get(column)
        if group is None:
            group = self._groups[column] = {}
            for row_id, stored in self.rows.items():
                group.setdefault(stored.values.get(column), {})[row_id] = None
            group.pop(None, None)
        return list(group.get(value, ()))

    def index(self, columns: Columns, read: Reader | None = None) -> dict[Any, str]:
        """Value of a column to row id, or of several as `read` makes one of them; made at the first call."""
        index = self.indexes.get(columns)
        if index is None:
            read = self._readers[columns] = read or _value
            index = self.indexes[columns] = {}
            for row_id, stored in self.rows.items():
                value = read(stored.values, columns)
                if value is not None:
                    index[value] = row_id
        return index

    def note(self, version: int, row_id: str) -> None:
        self.log.append((version, row_id))
        if len(self.log) > 2 * (len(self.rows) + len(self.deleted)) + 1000:
            self.log = [entry for entry in self.log if self.version_of(entry[1]) == entry[0]]

    def version_of(self, row_id: str) -> int | None:
        stored = self.rows.get(row_id)
        return stored.version if stored else self.deleted.get(row_id)

    def changed_since(self, version: int, *, up_to: int) -> tuple[list[tuple[str, Stored]], list[tuple[int, str]]]:
        """Rows now standing that were written in (version, up_to], and deletes in it, each in order of version."""
        changed: list[tuple[str, Stored]] = []
        gone: list[tuple[int, str]] = []
        for written, row_id in self.log[bisect_right(self.log, (version, "\U0010ffff")) :]:
            if written > up_to:
                break
            stored = self.rows.get(row_id)
            if stored is not None and stored.version == written:
                changed.append((row_id, stored))
            elif stored is None and self.deleted.get(row_id) == written:
                gone.append((written, row_id))
        return changed, gone


def _value(values: Values, column: Any) -> Any:
    return values.get(column)


def _put_back(facts: dict[str, Any], name: str, before: Any) -> None:
    if before is _NOTHING:
        facts.pop(name, None)
    else:
        facts[name] = before


class DatabaseError(Exception):
    """The file cannot keep the rows of a sandbox."""


class Database:
    """The SQLite file both systems share, or nothing at all. One sandbox at a time has it; a copy can be made of it
    meanwhile (SQLite's backup). Which one has it says a lock on a file beside it, which ends with the process.

    Raises DatabaseError when it cannot be opened, is another's or is in use.
    """

    def __init__(self, path: Path | None) -> None:
        self._connection: sqlite3.Connection | None = None
        self._lock: IO[bytes] | None = None
        if path is not None:
            try:
                self._open(path)
            except (OSError, sqlite3.Error) as error:
                self.close()
                reason = "another sandbox has it" if isinstance(error, BlockingIOError) else str(error)
                raise DatabaseError(f"{path} cannot keep the data: {reason}") from error

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # What is in memory must stay what is in the file. SQLite's own lock would keep those out who only copy it.
        self._lock = path.with_name(f"{path.name}.lock").open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._connection = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS rows (system TEXT, name TEXT, id TEXT, version INTEGER, body TEXT,"
            " PRIMARY KEY (system, name, id)) WITHOUT ROWID"
        )
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS facts (system TEXT, name TEXT, value TEXT, PRIMARY KEY (system, name))"
        )
        self._connection.execute("SELECT system, name, id, version, body FROM rows LIMIT 1")
        self._connection.execute("SELECT system, name, value FROM facts LIMIT 1")
        self._connection.execute("COMMIT")

    def load(self, system: str) -> tuple[list[tuple[str, str, int, str | None]], dict[str, Any]]:
        if self._connection is None:
            return [], {}
        rows = self._connection.execute(
            "SELECT name, id, version, body FROM rows WHERE system = ? ORDER BY version", (system,)
        ).fetchall()
        facts = self._connection.execute("SELECT name, value FROM facts WHERE system = ?", (system,)).fetchall()
        return rows, {name: json.loads(value) for name, value in facts}

    def save(self, system: str, rows: list[tuple[str, str, int, Values | None]], facts: dict[str, Any]) -> None:
        """Writes rows (no body: deleted) and facts in one transaction of SQLite."""
        if self._connection is None:
            return
        self._connection.execute("BEGIN")
        self._connection.executemany(
            "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?)",
            [
                (system, name, row_id, version, None if body is None else json.dumps(body, ensure_ascii=False))
                for name, row_id, version, body in rows
            ],
        )
        self._connection.executemany(
            "INSERT OR REPLACE INTO facts VALUES (?, ?, ?)",
            [(system, name, json.dumps(value)) for name, value in facts.items()],
        )
        self._connection.execute("COMMIT")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None


class Store:
    """All tables of one system, its version counter and its facts (counters, switches that must survive)."""

    def __init__(self, system: str, database: Database, clock: Clock, *, random_seed: int) -> None:
        self.clock = clock
        self._system = system
        self._database = database
        self._tables: dict[str, Table] = {}
        self._facts: dict[str, Any] = {}
        self.version = 0
        self.listeners: list[Callable[[list[Change]], None]] = []
        self._changes: list[Change] = []
        self._undo: list[Callable[[], None]] = []
        self._facts_touched: dict[str, Any] = {}
        self._fact_writes = 0
        self._depth = 0
        self._load()
        self._kept_version = self.version
        # What was made before a restart must not be made again, so the version is part of the seed.
        self._ids = random.Random(f"{random_seed} {system} {self.version}")  # noqa: S311 - to be repeated, not secret

    def new_id(self) -> str:
        """The next of a row of ids that is the same for the same seed and the same requests."""
        return str(uuid.UUID(int=self._ids.getrandbits(128), version=4))

    def _load(self) -> None:
        rows, self._facts = self._database.load(self._system)
        for name, row_id, version, body in rows:
            table = self.table(name)
            if body is None:
                table.deleted[row_id] = version
            else:
                table.rows[row_id] = Stored(json.loads(body), version)
            table.log.append((version, row_id))
            self.version = max(self.version, version)
        self.version = max(self.version, int(self._facts.get("version", 0)))

    def table(self, name: str) -> Table:
        table = self._tables.get(name)
        if table is None:
            table = self._tables[name] = Table()
        return table

    @property
    def writes(self) -> int:
        """Differs once any row of any table, or a fact, was written."""
        return self._fact_writes + sum(table.writes for table in self._tables.values())

    def forget_shown(self) -> None:
        """What the API shows of a row is to be made anew."""
        for table in self._tables.values():
            for stored in table.rows.values():
                stored.wire = None

    def is_empty(self) -> bool:
        return not self._tables and not self._facts

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. A transaction inside another is part of it."""
        self._depth += 1
        try:
            yield
        except BaseException:
            self._depth -= 1
            if self._depth == 0:
                for undo in reversed(self._undo):
                    undo()
                self._clear()
                self._keep_version()
            raise
        self._depth -= 1
        if self._depth == 0:
            changes = self._changes
            if changes or self._facts_touched:
                self._database.save(
                    self._system, [(c.table, c.id, c.version, c.after) for c in changes], self._facts_touched
                )
                self._kept_version = max([self._kept_version, *(change.version for change in changes)])
            self._clear()
            self._keep_version()
            if changes:
                for listener in self.listeners:
                    listener(changes)

    def _keep_version(self) -> None:
        """A version that was taken back is not given out again, not even after a restart: a delta link may bear it.

        Before anything is kept nobody was given one, and a file without a seed stays a new one.
        """
        if 0 < self._kept_version < self.version:
            self._database.save(self._system, [], {"version": self.version})
            self._kept_version = self.version

    def _clear(self) -> None:
        self._changes = []
        self._undo = []
        self._facts_touched = {}

    def savepoint(self) -> Callable[[], None]:
        """What takes the writes made since back, within the running transaction."""
        undone, changed = len(self._undo), len(self._changes)

        def roll_back() -> None:
            for undo in reversed(self._undo[undone:]):
                undo()
            del self._undo[undone:]
            del self._changes[changed:]

        return roll_back

    def put(self, name: str, row_id: str, values: Values, *, note: Any = None, silent: bool = False) -> Stored:
        """Insert or replace. `silent` keeps the version: a calculated value moved, nobody is told."""
        table = self.table(name)
        before = table.rows.get(row_id)
        was_deleted = table.deleted.pop(row_id, None)
        if silent and before is not None:
            stored = Stored(values, before.version)
        else:
            self.version += 1
            stored = Stored(values, self.version)
        table.set(row_id, stored)
        if not silent:
            table.note(stored.version, row_id)

        def undo() -> None:
            table.set(row_id, before)
            if was_deleted is not None:
                table.deleted[row_id] = was_deleted

        self._undo.append(undo)
        self._changes.append(
            Change(
                table=name,
                id=row_id,
                before=before.values if before else None,
                after=values,
                version=stored.version,
                note=note,
            )
        )
        return stored

    def remove(self, name: str, row_id: str, *, note: Any = None) -> None:
        table = self.table(name)
        before = table.rows[row_id]
        table.set(row_id, None)
        self.version += 1
        table.deleted[row_id] = self.version
        table.note(self.version, row_id)

        def undo() -> None:
            table.set(row_id, before)
            table.deleted.pop(row_id, None)

        self._undo.append(undo)
        self._changes.append(
            Change(table=name, id=row_id, before=before.values, after=None, version=self.version, note=note)
        )

    def fact(self, name: str, default: Any = None) -> Any:
        return self._facts.get(name, default)

    def set_fact(self, name: str, value: Any) -> None:
        """Part of the running transaction: taken back with it, or with what came after a savepoint."""
        for facts in (self._facts, self._facts_touched):
            self._undo.append(partial(_put_back, facts, name, facts.get(name, _NOTHING)))
            facts[name] = value
        self._fact_writes += 1

    def skip_version(self) -> int:
        """Move the counter on without a write."""
        with self.transaction():
            self.version += 1
        return self.version
