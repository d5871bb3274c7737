"""`python -m tests.bench [ONLY]`: every measurement, or one; a table, and the raw numbers as JSON."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from dataclasses import replace
from pathlib import Path

from tests.bench.figures import OUT, Measurement, be_quiet, save, show

MEASUREMENTS = ("decide", "profile", "memory", "sink", "sandbox", "crossing")
MODULES = {"profile": "profile_decide"}  # a module may not be named like one of the standard library that it uses


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("only", nargs="?", choices=MEASUREMENTS, help="this one; default: all of them")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the JSON files")
    given = parser.parse_args()
    be_quiet()
    done: list[Measurement] = []
    try:
        for name in [given.only] if given.only else MEASUREMENTS:
            done.append(measured(name, given.out))  # noqa: PERF401 - one after the other, in case one fails
    finally:
        show(*done)  # what was measured before something failed is not lost
    return 0


def measured(name: str, out: Path) -> Measurement:
    sys.stderr.write(f"{name}\n")
    began = time.monotonic()
    module = importlib.import_module(f"tests.bench.{MODULES.get(name, name)}")
    done: Measurement = replace(module.measure(), took_s=round(time.monotonic() - began, 1))
    save(done, out)
    return done


if __name__ == "__main__":
    sys.exit(main())
