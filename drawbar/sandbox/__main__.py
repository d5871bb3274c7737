"""`python -m drawbar.sandbox`: serve until stopped, and say on standard output how to reach it."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
from pathlib import Path
from typing import Any

from drawbar.sandbox.erp_model import milliseconds, parse_time
from drawbar.sandbox.odata import QueryError
from drawbar.sandbox.seed_folder import FolderError
from drawbar.sandbox.server import SandboxError, SandboxOptions, run


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m drawbar.sandbox",
        description="Serve a Business Central and a Dataverse on this machine.",
        epilog="Example: python -m drawbar.sandbox --state-dir .sandbox --info .sandbox/info.json",
    )
    parser.add_argument("--state-dir", type=Path, required=True, help="certificates, ports, secrets")
    parser.add_argument("--seed", choices=("demo", "empty", "large"), default="demo", help="what a new sandbox holds")
    parser.add_argument("--scale", type=int, default=1, help="thousands of customers of the seed large")
    parser.add_argument("--data", type=Path, help="folder of CSV or JSON files with more data for a new sandbox")
    parser.add_argument(
        "--environment", action="append", default=[], help="another environment of the ERP; may be given several times"
    )
    parser.add_argument("--random-seed", type=int, default=1, help="ids and generated data follow from it")
    parser.add_argument("--clock", type=_moment, help="what time it is there at the start, as 2026-03-02T09:00:00Z")
    parser.add_argument("--db", type=Path, help="SQLite file that keeps the data; without it: memory")
    parser.add_argument("--info", type=Path, help="write the JSON there (mode 0600) instead of printing it")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--sign-in-port", type=int, default=0)
    parser.add_argument("--erp-port", type=int, default=0)
    parser.add_argument("--crm-port", type=int, default=0)
    parser.add_argument("--plain-http", action="store_true", help="no TLS")
    parser.add_argument("--no-limits", action="store_true", help="no service protection")
    parser.add_argument("--no-control", action="store_true", help="no control endpoint")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="added to every request")
    parser.add_argument("--erp-webhook-delay-s", type=float, default=30.0)
    given = parser.parse_args()
    options = SandboxOptions(
        state_dir=given.state_dir,
        host=given.host,
        sign_in_port=given.sign_in_port,
        erp_port=given.erp_port,
        crm_port=given.crm_port,
        db=given.db,
        seed=given.seed,
        scale=given.scale,
        data=given.data,
        environments=tuple(given.environment),
        random_seed=given.random_seed,
        clock=given.clock,
        plain_http=given.plain_http,
        limits=not given.no_limits,
        latency_ms=given.latency_ms,
        control=not given.no_control,
        erp_webhook_delay_s=given.erp_webhook_delay_s,
    )

    def ready(info: dict[str, Any]) -> None:
        text = json.dumps(info, indent=2)
        if given.info is None:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
            return
        part = given.info.with_name(given.info.name + ".part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text + "\n")
        part.replace(given.info)

    try:
        run(options, ready=ready)
    except (SandboxError, FolderError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _moment(text: str) -> dt.datetime:
    try:
        return dt.datetime.fromtimestamp(milliseconds(parse_time(text)) / 1000, dt.timezone.utc)
    except QueryError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
