"""The sandbox alone, without limits: single writes, and rows read page by page, per second of its processor time."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import requests

from tests.bench.figures import Measurement, at_least, run_alone
from tests.bench.processes import await_that, cpu_s, program
from tests.pipeline.installation import Api

RECORDS = 2_000  # made for the pages
WRITES = 1_500
PAGES = 5  # times that all records are read
PAGE = 1_000
FIELD = {"erp": "phoneNumber", "crm": "telephone1"}
NAME = {"erp": "displayName", "crm": "name"}
SINGLE_WRITES = "single writes"
ROWS_READ = f"rows read by pages of {PAGE}"
GOAL = {SINGLE_WRITES: 2_000, ROWS_READ: 20_000}
KEY = {"erp": "id", "crm": "accountid"}


def measure() -> Measurement:
    with tempfile.TemporaryDirectory(prefix="drawbar-bench-") as name:
        folder = Path(name)
        info = folder / "info.json"
        arguments = ("--no-limits", "--seed", "empty", "--state-dir", str(folder / "sandbox"), "--info", str(info))
        with program("drawbar.sandbox", *arguments, log=folder / "sandbox.log") as pid:
            await_that(info.exists, "the sandbox answers")
            connection = json.loads(info.read_text("utf-8"))
            found = {system: of_system(connection, system, pid) for system in ("erp", "crm")}
    figures = [
        at_least(f"{system}: {what} per second and core", part["per_cpu_s"], "1/s", GOAL[what])
        for system, parts in found.items()
        for what, part in parts.items()
    ]
    return Measurement(name="sandbox", figures=figures, raw=found)


def of_system(connection: dict[str, Any], system: str, pid: int) -> dict[str, dict[str, float]]:
    api = Api(connection, system)
    make_records(connection, api, system)
    ids = [row[KEY[system]] for row in read_all(api)]
    began, began_at = cpu_s(pid), time.monotonic()
    for number in range(WRITES):
        api.edit(ids[number % len(ids)], **{FIELD[system]: str(number)})
    writes = pace(WRITES, cpu_s(pid) - began, time.monotonic() - began_at)
    began, began_at = cpu_s(pid), time.monotonic()
    rows = sum(len(read_all(api)) for _ in range(PAGES))
    reads = pace(rows, cpu_s(pid) - began, time.monotonic() - began_at)
    api.close()
    sys.stderr.write(f"  {system}: {writes} {reads}\n")
    return {SINGLE_WRITES: writes, ROWS_READ: reads}


def pace(count: int, spent_s: float, took_s: float) -> dict[str, float]:
    """`per_s` is what one client, which waits for each answer, got of it."""
    return {"count": count, "per_cpu_s": round(count / spent_s, 1), "per_s": round(count / took_s, 1)}


def make_records(connection: dict[str, Any], api: Api, system: str) -> None:
    edits = [
        {"system": system, "set": api.set, "app": api.client_id, "values": {NAME[system]: f"Fabrikam {number}"}}
        for number in range(RECORDS)
    ]
    headers = {"Authorization": f"Bearer {connection['control_token']}"}
    with requests.Session() as control:
        control.trust_env = False
        control.verify = connection["ca_file"]
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
