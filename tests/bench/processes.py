"""Processes that are measured from outside: processor time, memory, and how much came out of them. Needs Linux."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from drawbar.bus.clients import make_consumer
from drawbar.bus.tether import tethered

DEADLINE_S = 120.0  # others may use the machine, too


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, all threads, its own and the kernel's for it.

    By the process's clock (clock_getcpuclockid(3), whose number Python works out for threads only): `/proc/PID/stat`
    counts in hundredths of a second, which is a tenth of what reading 40,000 rows takes.
    """
    return time.clock_gettime((~pid << 3) | 2)


def has_ended(pid: int) -> bool:
    """Whether a process of ours is dead and not yet waited for."""
    return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] == "Z"


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise LookupError(f"process {pid} has ended")


@contextmanager
def program(module: str, *arguments: str, log: Path, settings: Mapping[str, str] | None = None) -> Iterator[int]:
    """`python -m MODULE` while the block lasts; gives its pid, which is that of the measured process itself.

    `settings`: by their names in the environment; those of somebody who has another system are left out.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DRAWBAR_")}
    with log.open("ab") as output:
        process = subprocess.Popen(
            tethered([sys.executable, "-m", module, *arguments]),
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**ours, **(settings or {})},
        )
    try:
        yield process.pid
    except Exception:
        sys.stderr.write(log.read_text("utf-8", "replace")[-3000:])
        raise
    finally:
        process.kill()
        process.wait()


def await_that(condition: Callable[[], bool], what: str, *, every_s: float = 0.2) -> None:
    """Raises TimeoutError, naming `what`, when it does not come about."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(every_s)


class Ends:
    """How many messages lie on one topic."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self._consumer: Consumer = make_consumer(bootstrap, client_id="bench", group_id="bench-ends", extra={})
        self._places = [TopicPartition(topic, partition) for partition in range(partitions)]

    def count(self) -> int:
        return sum(self._consumer.get_watermark_offsets(place, timeout=10)[1] for place in self._places)

    def close(self) -> None:
        self._consumer.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a process turned its input into output, between the first and the last tenth of it."""

    per_s: float
    per_cpu_s: float

    @property
    def cpu_us(self) -> float:
        return 1e6 / self.per_cpu_s


def pace_of(pid: int, count: Callable[[], int], wanted: int) -> Pace:
    """Watch until `wanted` messages came out. The first and last tenth are left out: start, recovery, and the end."""
    samples: list[tuple[float, float, int]] = []

    def is_done() -> bool:
        if has_ended(pid):
            raise RuntimeError(f"process {pid} has ended")
        samples.append((time.monotonic(), cpu_s(pid), count()))
        return samples[-1][2] >= wanted

    await_that(is_done, f"{wanted} messages out of process {pid}")
    begin = next(sample for sample in samples if sample[2] >= wanted * 0.1)
    end = next(sample for sample in samples if sample[2] >= wanted * 0.9)
    many = end[2] - begin[2]
    return Pace(per_s=many / (end[0] - begin[0]), per_cpu_s=many / (end[1] - begin[1]))


def median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
