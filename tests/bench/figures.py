"""What a measurement says: figures for people, and the raw numbers they were made of."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from drawbar.log import set_up_log
from drawbar.settings import LogSettings

OUT = Path(".drawbar/bench")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table. `goal`: what it should be, in words; `met`: whether it is, None where there is no goal."""

    what: str
    value: float
    unit: str
    goal: str = ""
    met: bool | None = None

    @property
    def text(self) -> str:
        digits = 0 if abs(self.value) >= 100 else 2
        return f"{self.value:,.{digits}f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One module's result. `raw` is JSON."""

    name: str
    figures: Sequence[Figure]
    raw: Any
    took_s: float = 0.0
    at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))


def at_least(what: str, value: float, unit: str, goal: float) -> Figure:
    return Figure(what=what, value=value, unit=unit, goal=f"at least {goal:g}", met=value >= goal)


def at_most(what: str, value: float, unit: str, goal: float) -> Figure:
    return Figure(what=what, value=value, unit=unit, goal=f"at most {goal:g}", met=value <= goal)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def save(done: Measurement, out: Path = OUT) -> Path:
    """Write the measurement, with the machine it was made on, to `<out>/<name>.json`."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{done.name}.json"
    machine = {
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    text = json.dumps({**asdict(done), "at": done.at.isoformat(timespec="seconds"), "machine": machine}, indent=1)
    lists_in_one_line = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    path.write_text(lists_in_one_line + "\n", "utf-8")
    return path


def show(*all_done: Measurement) -> None:
    table = Table("measurement", "figure", "value", "unit", "goal")
    for done in all_done:
        for figure in done.figures:
            mark = {None: "", True: " (met)", False: " (missed)"}[figure.met]
            table.add_row(done.name, figure.what, figure.text, figure.unit, f"{figure.goal}{mark}")
        table.add_section()
    Console(width=130).print(table)


def be_quiet() -> None:
    """What starts and stops here is no news: the table is."""
    set_up_log(LogSettings(level="error", format="auto"))


def run_alone(measure: Callable[[], Measurement]) -> None:
    """What each module does when it is started as a program."""
    be_quiet()
    done = measure()
    sys.stderr.write(f"{save(done)}\n")
    show(done)
