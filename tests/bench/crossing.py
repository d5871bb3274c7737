"""A whole system: how long a change takes to the other side and where it spends that time, a burst, and its requests.

Every stage as a process of its own on an Apache Kafka, against the sandbox over TLS; changes are found by polling
alone. An edit's way is put together from what the system itself wrote: the change event (captured), the journal lines
`issued` (decided) and `written` (the target answered). It begins when the editor sends its request.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Message

from drawbar.bus.clients import read_to_end
from schemas.codec import decode
from schemas.records import ChangeEvent, JournalLine
from schemas.topics import JOURNAL, changes_topic
from tests.bench.figures import Figure, Measurement, at_most, percentile, run_alone
from tests.bench.processes import await_that
from tests.pipeline.installation import Api, Installation

RECORDS = 400
BURST = 2_000  # edits, half of them on each side, each of another record
LOADS = {"8 a second, limits on": (8.0, 30.0), "50 a second, limits off": (50.0, 20.0)}  # changes a second, seconds
FIELD = {"erp": "phoneNumber", "crm": "websiteurl"}  # each side edits a field that the other one does not
THERE = {"erp": "telephone1", "crm": "website"}
ENTITY = {"erp": "customer", "crm": "account"}
STAGES = ("captured", "decided", "written")
NO_BUDGET = {f"DRAWBAR_{system}__REQUESTS_PER_5_MIN": "1000000" for system in ("ERP", "CRM")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Sent by somebody at `at` seconds; `value` is given to no other edit."""

    system: str
    record: str
    value: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Seconds from the edit until it was captured, decided, written."""

    system: str
    captured: float
    decided: float
    written: float


def measure() -> Measurement:
    figures: list[Figure] = []
    raw: dict[str, Any] = {}
    for what, (per_s, for_s) in LOADS.items():
        limited = "limits on" in what
        with tempfile.TemporaryDirectory(prefix="drawbar-bench-") as name:
            system = Installation(Path(name), settings=None if limited else NO_BUDGET)
            try:
                system.start()
                system.control("POST", "limits", {"on": False})
                records = make_pairs(system, RECORDS if limited else BURST)
                system.control("POST", "limits", {"on": limited})
                found = under_load(system, records, per_s=per_s, for_s=for_s)
                raw[what] = found
                figures += figures_of_load(what, found, with_goals=limited)
                if not limited:
                    raw["burst"] = burst(system, records)
                    figures += figures_of_burst(raw["burst"])
            finally:
                system.end()
    return Measurement(name="crossing", figures=figures, raw=raw)


def make_pairs(system: Installation, count: int) -> list[str]:
    """Customers whose accounts Drawbar made: one id on both sides. Returns when both sides agree."""
    values = [{"displayName": f"Fabrikam {number:05}"} for number in range(count)]
    edits = [{"system": "erp", "set": "customers", "app": system.erp.client_id, "values": each} for each in values]
    system.control("POST", "edit", edits)
    await_that(lambda: len(system.truth("crm", "accounts")) >= count, f"{count} accounts", every_s=0.5)
    system.wait_quiet()
    return sorted(system.rows("erp"))


def under_load(system: Installation, records: Sequence[str], *, per_s: float, for_s: float) -> dict[str, Any]:
    """Edits at a steady pace, by turns on each side; then every edit's way, and the requests of all of them."""
    before = requests_made(system)
    apis = {name: Api(system.connection, name) for name in ("erp", "crm")}
    edits: list[Edit] = []
    lanes = [
        threading.Thread(target=edit_steadily, args=(apis[name], name, records, per_s / 2, for_s, edits))
        for name in ("erp", "crm")
    ]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    system.wait_quiet()
    for api in apis.values():
        api.close()
    ways = ways_of(system, edits)
    made = {name: requests_made(system)[name] - before[name] for name in before}
    sys.stderr.write(f"  {per_s:g}/s: {len(edits)} edits, {len(ways)} ways, requests {made}\n")
    return {
        "edits": len(edits),
        "followed": len(ways),
        "requests": made,
        "per_change": round(made["sinks"] / len(edits), 4),
        "ways": {
            name: {stage: [round(getattr(way, stage), 4) for way in ways if way.system == name] for stage in STAGES}
            for name in ("erp", "crm")
        },
    }


def edit_steadily(api: Api, name: str, records: Sequence[str], per_s: float, for_s: float, edits: list[Edit]) -> None:
    """`per_s` edits a second, whatever each takes, each of the record that was left alone for longest."""
    began = time.monotonic()
    shift = 0 if name == "erp" else len(records) // 2  # both sides are never at one record at once
    for number in range(int(per_s * for_s)):
        time.sleep(max(0.0, began + number / per_s - time.monotonic()))
        record = records[(number + shift) % len(records)]
        value = f"+49 30 {number:06}" if name == "erp" else f"https://fabrikam.example/{number}"
        edit = Edit(system=name, record=record, value=value, at=time.time())
        api.edit(record, **{FIELD[name]: value})
        edits.append(edit)


def ways_of(system: Installation, edits: Sequence[Edit]) -> list[Way]:
    """The way of each edit that became a write of its own."""
    events = {
        (name, event.ref.id, str(event.after.get(FIELD[name]))): event
        for name in ("erp", "crm")
        for message in read(system, changes_topic(name, ENTITY[name]))
        if message.value() and (event := decode(ChangeEvent, message.value())).after
    }
    lines = [decode(JournalLine, message.value()) for message in read(system, JOURNAL)]
    issued = {line.cause_id: line for line in lines if line.event == "issued"}
    written = {line.command_id: line for line in lines if line.event == "written"}
    found = []
    for edit in edits:
        event = events.get((edit.system, edit.record, edit.value))
        decision = issued.get(f"{event.event_id}:customer-account") if event else None
        end = written.get(decision.command_id) if decision else None
        if event and decision and end:
            times = (event.captured_at, decision.at, end.at)
            captured, decided, done = (moment.timestamp() - edit.at for moment in times)
            found.append(Way(system=edit.system, captured=captured, decided=decided, written=done))
    return found


def read(system: Installation, topic: str) -> list[Message]:
    return list(read_to_end(system.connection["bootstrap_servers"], topic, extra={}))


def requests_made(system: Installation) -> dict[str, int]:
    """By the sinks, by their own word; and by the integration's two applications in all, by the sandbox's."""
    stages = system.status()["stages"]
    sinks = sum(int(beat["requests"]) for stage in ("sink-erp", "sink-crm") for beat in stages[stage])
    ours = {system.connection[name]["client_id"] for name in ("erp", "crm")}
    counted = system.control("GET", "requests")
    return {"sinks": sinks, "all": sum(int(row["count"]) for row in counted if row["client_id"] in ours)}


def burst(system: Installation, records: Sequence[str]) -> dict[str, Any]:
    """Every record is edited at once, half of them on each side; the time until both sides agree on all of them."""
    before = requests_made(system)
    halves = {"erp": records[: BURST // 2], "crm": records[BURST // 2 : BURST]}
    wanted = {
        (name, record): f"+49 40 {number:06}" if name == "erp" else f"https://burst.example/{number}"
        for name, half in halves.items()
        for number, record in enumerate(half)
    }
    bodies = [
        {
            "system": name,
            "set": "customers" if name == "erp" else "accounts",
            "app": getattr(system, name).client_id,
            "id": record,
            "values": {FIELD[name]: value},
        }
        for (name, record), value in wanted.items()
    ]
    began = time.monotonic()
    system.control("POST", "edit", bodies)
    edited = time.monotonic() - began
    await_that(lambda: not differing(system, wanted), "the burst is on both sides", every_s=1)
    agreed = time.monotonic() - began
    system.wait_quiet()
    made = {name: requests_made(system)[name] - before[name] for name in before}
    found = {
        "edits": len(wanted),
        "edited_s": round(edited, 2),
        "agreed_s": round(agreed, 2),
        "requests": made,
        "per_change": round(made["sinks"] / len(wanted), 4),
    }
    sys.stderr.write(f"  burst: {found}\n")
    return found


def differing(system: Installation, wanted: Mapping[tuple[str, str], str]) -> int:
    rows = {"erp": system.rows("crm"), "crm": system.rows("erp")}  # where each side's edits are to be seen
    return sum(rows[name][record][THERE[name]] != value for (name, record), value in wanted.items())


def figures_of_load(what: str, found: Mapping[str, Any], *, with_goals: bool) -> list[Figure]:
    figures = []
    for name, goal in (("erp", 2.0), ("crm", 1.0)):
        stages = found["ways"][name]
        way = "ERP to CRM" if name == "erp" else "CRM to ERP"
        half = percentile(stages["written"], 0.5)
        label = f"{what}: {way}"
        figures.append(
            at_most(f"{label}, p50", half, "s", goal)
            if with_goals
            else Figure(what=f"{label}, p50", value=half, unit="s")
        )
        figures.append(Figure(what=f"{label}, p99", value=percentile(stages["written"], 0.99), unit="s"))
        earlier: Sequence[float] = [0.0] * len(stages["written"])
        for stage in STAGES:
            spent = [now - before for now, before in zip(stages[stage], earlier, strict=True)]
            figures.append(Figure(what=f"{label}, until {stage} p50", value=percentile(spent, 0.5), unit="s"))
            earlier = stages[stage]
    figures.append(at_most(f"{what}: requests per change", found["per_change"], "", 1.15))
    figures.append(Figure(what=f"{what}: edits that were followed", value=found["followed"], unit="edits"))
    return figures


def figures_of_burst(found: Mapping[str, Any]) -> list[Figure]:
    return [
        Figure(
            what=f"burst of {found['edits']:,}: from the first edit to agreement", value=found["agreed_s"], unit="s"
        ),
        Figure(what=f"burst of {found['edits']:,}: of it editing", value=found["edited_s"], unit="s"),
        at_most(f"burst of {found['edits']:,}: requests per change", found["per_change"], "", 1.15),
    ]


if __name__ == "__main__":
    run_alone(measure)
