"""The decide stage beside a bare Faust agent and a plain loop, each on the same messages, in turns, in one run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

from drawbar.bus.clients import make_admin
from tests.bench.contenders import OUTPUT
from tests.bench.figures import Figure, Measurement, at_least, run_alone
from tests.bench.given import PARTITIONS, broker, coupled, phone_change, put, references, row_message, settings_for
from tests.bench.given import work_message as message_of
from tests.bench.processes import Ends, Pace, median, pace_of, program

EVENTS = 10_000  # seconds of work, of which the counts are looked at every 0.2
ROUNDS = 3  # the median of each is taken
CONTENDERS = ("loop", "faust", "faust-confirmed", "faust-work", "decide")  # the last one changes the rows


def measure() -> Measurement:
    rows = [*references(), *(row_message(coupled(number)) for number in range(EVENTS))]
    works = [message_of(phone_change(number)) for number in range(EVENTS)]
    paces: dict[str, list[Pace]] = {name: [] for name in CONTENDERS}
    for _ in range(ROUNDS):
        with broker() as (bootstrap, folder):
            make_outputs(bootstrap)
            put(bootstrap, rows)
            put(bootstrap, works)
            for name in CONTENDERS:
                settings = settings_for(bootstrap, folder / "state")
                output = Ends(bootstrap, output_of(name), PARTITIONS)
                arguments = (name, settings.model_dump_json())
                with program("tests.bench.contenders", *arguments, log=folder / f"{name}.log") as pid:
                    pace = pace_of(pid, output.count, EVENTS)
                output.close()
                paces[name].append(pace)
                sys.stderr.write(f"  {name}: {pace.per_s:,.0f}/s, {pace.cpu_us:,.0f} us of processor time each\n")
    raw = {
        name: [{"per_s": round(pace.per_s, 1), "cpu_us": round(pace.cpu_us, 1)} for pace in found]
        for name, found in paces.items()
    }
    return Measurement(name="decide", figures=figures_of(paces), raw={"events": EVENTS, "contenders": raw})


def figures_of(paces: Mapping[str, Sequence[Pace]]) -> list[Figure]:
    """Medians; a ratio is taken within each round, since the machine is another one a minute later."""

    def times(other: str, of: Callable[[Pace], float]) -> float:
        return median([of(ours) / of(theirs) for ours, theirs in zip(paces["decide"], paces[other], strict=True)])

    def per_s(pace: Pace) -> float:
        return pace.per_s

    def per_cpu_s(pace: Pace) -> float:
        return pace.per_cpu_s

    rates = {name: median([pace.per_s for pace in found]) for name, found in paces.items()}
    costs = {name: median([pace.cpu_us for pace in found]) for name, found in paces.items()}
    return [
        *(Figure(what=f"{name}: events", value=rates[name], unit="1/s") for name in CONTENDERS),
        *(Figure(what=f"{name}: processor time", value=costs[name], unit="us/event") for name in CONTENDERS),
        at_least("decide : the same work in a bare Faust agent", times("faust-work", per_s), "x", 2),
        Figure(what="decide : bare Faust without work, one awaited send", value=times("faust", per_s), unit="x"),
        Figure(what="decide : the same, each send confirmed", value=times("faust-confirmed", per_s), unit="x"),
        Figure(what="decide : same decisions in a plain loop", value=times("loop", per_s), unit="x"),
        Figure(what="by processor time, decide : bare Faust without work", value=times("faust", per_cpu_s), unit="x"),
        Figure(what="by processor time, decide : plain loop", value=times("loop", per_cpu_s), unit="x"),
    ]


def output_of(contender: str) -> str:
    return OUTPUT.get(contender, f"bench.{contender}")


def make_outputs(bootstrap: str) -> None:
    """The topics that only this measurement writes."""
    names = [output_of(name) for name in CONTENDERS if name != "decide"]
    names.append(f"{output_of('faust-work')}.journal")
    admin = make_admin(bootstrap, client_id="bench", extra={})
    for made in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
        made.result(30)


if __name__ == "__main__":
    run_alone(measure)
