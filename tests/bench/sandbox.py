"""The sandbox alone, without limits: single writes, and rows read page by page, per second of its processor time; first
with few records, then with many, since neither may depend on their number. And its start with data that it kept.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from tests.bench.figures import Measurement, at_least, at_most, run_alone
from tests.bench.processes import await_that, cpu_s, program
from tests.pipeline.installation import Api

FEW, MANY = 1_000, 200_000  # records
KEPT = 10_000  # records, half of them in each system
AT_ONCE = 2_000  # of them made with one call
WRITES = 1_500
PAGE = 1_000
FIELD = {"erp": "phoneNumber", "crm": "telephone1"}
NAME = {"erp": "displayName", "crm": "name"}
SINGLE_WRITES = "single writes"
ROWS_READ = f"rows read by pages of {PAGE}"
GOAL = {SINGLE_WRITES: 2_000, ROWS_READ: 20_000}
START_GOAL_S = 2
KEY = {"erp": "id", "crm": "accountid"}


def measure() -> Measurement:
    with tempfile.TemporaryDirectory(prefix="drawbar-bench-") as name:
        folder = Path(name)
        with running(folder / "in-memory") as (connection, pid):
            found: dict[str, Any] = {system: of_system(connection, system, pid) for system in ("erp", "crm")}
        found["start_s"] = start_s(folder / "kept")
    figures = []
    for system in ("erp", "crm"):
        for what, few in found[system][FEW].items():
            many = found[system][MANY][what]
            figures += [
                at_least(f"{system}: {what} per second and core", few["per_cpu_s"], "1/s", GOAL[what]),
                at_least(f"{system}: the same, {MANY // FEW} x as many records", many["per_cpu_s"], "1/s", GOAL[what]),
            ]
    figures.append(at_most(f"start with {KEPT:,} kept records", found["start_s"], "s", START_GOAL_S))
    return Measurement(name="sandbox", figures=figures, raw=found)


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[tuple[dict[str, Any], int]]:
    """A sandbox of its own while the block lasts: how to reach it, and its pid. What it keeps stays in `folder`."""
    folder.mkdir(exist_ok=True)
    info = folder / "info.json"
    info.unlink(missing_ok=True)
    always = ("--no-limits", "--seed", "empty", "--state-dir", str(folder), "--connection-file", str(info))
    with program("drawbar", "sandbox", *always, *arguments, log=folder / "sandbox.log") as pid:
        await_that(info.exists, "the sandbox answers", every_s=0.01)
        yield json.loads(info.read_text("utf-8")), pid


def start_s(folder: Path) -> float:
    """From the command to the file that says every port answers, with data of a sandbox that was killed."""
    kept = ("--db", str(folder / "kept.db"))
    with running(folder, *kept) as (connection, _):
        for system in ("erp", "crm"):
            api = Api(connection, system)
            make_records(connection, api, system, range(KEPT // 2))
            api.close()
    began = time.monotonic()
    with running(folder, *kept) as (connection, _):
        took_s = time.monotonic() - began
        api = Api(connection, "erp")
        assert len(read_all(api)) == KEPT // 2
        api.close()
    sys.stderr.write(f"  start with {KEPT:,} records: {took_s:.2f} s\n")
    return round(took_s, 2)


def of_system(connection: dict[str, Any], system: str, pid: int) -> dict[int, dict[str, dict[str, float]]]:
    api = Api(connection, system)
    found = {}
    there = 0
    for size in (FEW, MANY):
        make_records(connection, api, system, range(there, size))
        there = size
        found[size] = {SINGLE_WRITES: writes_of(api, system, pid), ROWS_READ: reads_of(api, pid, times=MANY // size)}
        sys.stderr.write(f"  {system}, {size:,} records: {found[size]}\n")
    api.close()
    return found


def writes_of(api: Api, system: str, pid: int) -> dict[str, float]:
    ids = [row[KEY[system]] for row in read_all(api)]
    spread = ids[:: max(1, len(ids) // WRITES)]
    began, began_at = cpu_s(pid), time.monotonic()
    for number in range(WRITES):
        api.edit(spread[number % len(spread)], **{FIELD[system]: f"{len(ids)} {number}"})
    return pace(WRITES, cpu_s(pid) - began, time.monotonic() - began_at)


def reads_of(api: Api, pid: int, *, times: int) -> dict[str, float]:
    began, began_at = cpu_s(pid), time.monotonic()
    rows = sum(len(read_all(api)) for _ in range(times))
    return pace(rows, cpu_s(pid) - began, time.monotonic() - began_at)


def pace(count: int, spent_s: float, took_s: float) -> dict[str, float]:
    """`per_s` is what one client, which waits for each answer, got of it."""
    return {"count": count, "per_cpu_s": round(count / spent_s, 1), "per_s": round(count / took_s, 1)}


def make_records(connection: dict[str, Any], api: Api, system: str, numbers: range) -> None:
    headers = {"Authorization": f"Bearer {connection['control_token']}"}
    with requests.Session() as control:
        control.trust_env = False
        control.verify = connection["ca_file"]
        for first in range(numbers.start, numbers.stop, AT_ONCE):
            edits = [
                {"system": system, "set": api.set, "app": api.client_id, "values": {NAME[system]: f"Fabrikam {number}"}}
                for number in range(first, min(first + AT_ONCE, numbers.stop))
            ]
            reply = control.post(f"{connection['control_url']}/edit", json=edits, headers=headers, timeout=120)
            reply.raise_for_status()


def read_all(api: Api) -> list[dict[str, Any]]:
    """Every record, with all its fields, by the pages that the system offers."""
    rows: list[dict[str, Any]] = []
    path = api.set
    while path:
        page = api.call("GET", path, Prefer=f"odata.maxpagesize={PAGE}")
        rows += page["value"]
        link = page.get("@odata.nextLink", "")
        path = f"{api.set}{link.partition(api.set)[2]}" if link else ""
    return rows


if __name__ == "__main__":
    run_alone(measure)
