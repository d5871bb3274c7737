"""Where the decide stage's time goes: its work on each message, without Kafka, under cProfile.

`python -m tests.bench.profile_decide` prints the functions by their own time, and the parts by the time below them.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone

from processors.react import react
from schemas.codec import decode, encode, from_json, to_json
from schemas.coupling import Row
from schemas.records import Work
from tests.bench.figures import Figure, Measurement, run_alone
from tests.bench.given import coupled, phone_change
from tests.builders import a_world

EVENTS = 3_000


def measure() -> Measurement:
    texts = [to_json(coupled(number)) for number in range(EVENTS)]
    values = [encode(phone_change(number)) for number in range(EVENTS)]
    parts = timed(texts, values)
    figures = [Figure(what=what, value=1e6 * spent / EVENTS, unit="us/event") for what, spent in parts.items()]
    return Measurement(name="profile", figures=figures, raw={what: round(spent, 4) for what, spent in parts.items()})


def timed(texts: list[str], values: list[bytes]) -> dict[str, float]:
    """Processor time of each part, in the order in which a message goes through them."""
    world, now = a_world(), datetime.now(timezone.utc)
    spent: dict[str, float] = {}

    def part(what: str, work: Callable[[], list]) -> list:
        began = time.process_time()
        done = work()
        spent[what] = time.process_time() - began
        return done

    works = part("read the message", lambda: [decode(Work, value) for value in values])
    rows = part("read the row", lambda: [from_json(Row, text) for text in texts])
    pairs = list(zip(works, rows, strict=True))
    steps = part("decide", lambda: [react(work, row, world, now=now) for work, row in pairs])
    part("write the row", lambda: [to_json(step.row) for step in steps])
    part("write the command", lambda: [encode(step.command) for step in steps])
    part("write the journal", lambda: [encode(line) for step in steps for line in step.lines])
    return spent


def profiled() -> None:
    texts = [to_json(coupled(number)) for number in range(EVENTS)]
    values = [encode(phone_change(number)) for number in range(EVENTS)]
    profile = cProfile.Profile()
    profile.runcall(timed, texts, values)
    pstats.Stats(profile, stream=sys.stderr).strip_dirs().sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    run_alone(measure)
    profiled()
