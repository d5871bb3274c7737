"""A sink process against a CRM that answers at once: what a write costs the sink itself."""

from __future__ import annotations

import json
from pathlib import Path

from drawbar.sandbox.server import SandboxOptions, start_in_thread
from schemas.codec import encode
from schemas.records import Command, CommandKind, RecordRef, System, derived_id, home_key
from schemas.topics import PAIRS_WORK, commands_topic
from tests.bench.figures import Figure, Measurement, run_alone
from tests.bench.given import PARTITIONS, broker, customer_id, put
from tests.bench.processes import Ends, await_that, pace_of, program
from tests.builders import NOON, an_account

COMMANDS = 4_000
NO_BUDGET = {"DRAWBAR_CRM__REQUESTS_PER_5_MIN": "1000000"}


def measure() -> Measurement:
    with broker() as (bootstrap, folder):
        put(bootstrap, (command_message(number) for number in range(COMMANDS)))
        # the sandbox signs the sink in and lends its certificate; the requests go to the stub
        info, stop = start_in_thread(SandboxOptions(state_dir=folder / "sandbox", seed="empty", control=False))
        served = folder / "stub"
        certificates = (str(folder / "sandbox/server.pem"), str(folder / "sandbox/server-key.pem"), str(served))
        try:
            with program("tests.bench.stub", *certificates, log=folder / "stub.log"):
                await_that(served.exists, "the stub listens")
                connection = connection_to(served.read_text("ascii"), info, bootstrap, folder)
                output = Ends(bootstrap, PAIRS_WORK, PARTITIONS)
                sink = ("tests.consumers.sink_process", str(connection), "crm")
                with program(*sink, log=folder / "sink.log", settings=NO_BUDGET) as pid:
                    pace = pace_of(pid, output.count, COMMANDS)
                output.close()
        finally:
            stop()
    figures = [
        Figure(what="writes per second and core", value=pace.per_cpu_s, unit="1/s"),
        Figure(what="processor time of a write", value=pace.cpu_us, unit="us"),
        Figure(what="writes, 4 at once, beside broker and stub", value=pace.per_s, unit="1/s"),
    ]
    raw = {"commands": COMMANDS, "per_s": round(pace.per_s, 1), "per_cpu_s": round(pace.per_cpu_s, 1)}
    return Measurement(name="sink", figures=figures, raw=raw)


def command_message(number: int) -> tuple[str, bytes, bytes]:
    record = customer_id(number)
    command = Command(
        command_id=derived_id("bench command", number),
        mapping="customer-account",
        home=record,
        kind=CommandKind.UPDATE,
        target=RecordRef(System.CRM, "account", record),
        values={"telephone1": f"+49 30 {number:06}"},
        expected_version='W/"10"',
        seen=an_account(),
        issued_at=NOON,
    )
    return commands_topic("crm"), home_key(command.mapping, command.home).encode(), encode(command)


def connection_to(port: str, info: dict[str, dict[str, str]], bootstrap: str, folder: Path) -> Path:
    """The sandbox's connection file, with the stub for the CRM."""
    crm = {**info["crm"], "base_url": f"https://localhost:{port}/api/data/v9.2"}
    path = folder / "connection.json"
    path.write_text(json.dumps({**info, "crm": crm, "bootstrap_servers": bootstrap}), "utf-8")
    return path


if __name__ == "__main__":
    run_alone(measure)
