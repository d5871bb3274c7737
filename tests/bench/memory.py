"""Memory of a decide process by the couplings it keeps, and how fast it takes them in at its start."""

from __future__ import annotations

import json
import sys
import time

from drawbar.bus.clients import latest_by_key
from schemas.codec import to_json
from schemas.topics import COUPLINGS, STATUS
from tests.bench.figures import Figure, Measurement, run_alone
from tests.bench.given import broker, coupled, customer_id, put, references, settings_for
from tests.bench.processes import await_that, cpu_s, program, resident_mb

SIZES = (0, 20_000, 50_000)
EACH = 100_000  # what the figure is given for


def measure() -> Measurement:
    """One process after the other on the same broker, each with more couplings than the one before."""
    template = to_json(coupled(0)).decode()
    points = []
    with broker() as (bootstrap, folder):
        put(bootstrap, references())
        there = 0
        for size in SIZES:
            put(bootstrap, ((COUPLINGS, *like(template, number)) for number in range(there, size)))
            there = size
            settings = settings_for(bootstrap, folder / f"state-{size}", group_prefix=f"bench-{size}")
            arguments = ("decide", settings.model_dump_json())
            began = time.monotonic()
            with program("tests.bench.contenders", *arguments, log=folder / f"{size}.log") as pid:
                await_running(bootstrap, pid, size)
                point = {
                    "couplings": size,
                    "resident_mb": round(resident_mb(pid), 1),
                    "cpu_s": cpu_s(pid),
                    "start_s": round(time.monotonic() - began, 1),
                }
            sys.stderr.write(f"  {point}\n")
            points.append(point)
    first, last = points[0], points[-1]
    more = last["couplings"] - first["couplings"]
    grown = (last["resident_mb"] - first["resident_mb"]) / more
    spent = (last["cpu_s"] - first["cpu_s"]) / more
    row_bytes = len(template.encode())
    figures = [
        Figure(what="memory per 100,000 couplings", value=grown * EACH, unit="MB"),
        Figure(what="of it the text of their rows", value=row_bytes * EACH / 2**20, unit="MB"),
        Figure(what="memory without any", value=first["resident_mb"], unit="MB"),
        Figure(what="couplings read at a start, per second and core", value=1 / spent, unit="1/s"),
    ]
    return Measurement(name="memory", figures=figures, raw={"points": points, "row_bytes": row_bytes})


def like(template: str, number: int) -> tuple[bytes, bytes]:
    """Key and text of another row like the first: of its own id, number and name."""
    record = customer_id(number)
    text = template.replace(customer_id(0), record).replace('"C-0"', f'"C-{number}"')
    return f"customer-account:{record}".encode(), text.replace("Fabrikam 0", f"Fabrikam {number}").encode()


def await_running(bootstrap: str, pid: int, couplings: int) -> None:
    def is_running() -> bool:
        found = latest_by_key(bootstrap, STATUS, extra={})
        beats = [json.loads(message.value() or b"{}") for message in found.values()]
        return any(
            beat.get("pid") == pid and beat["state"] == "running" and beat["view_rows"] >= couplings for beat in beats
        )

    await_that(is_running, f"process {pid} runs with {couplings} couplings", every_s=0.5)


if __name__ == "__main__":
    run_alone(measure)
