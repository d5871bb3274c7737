"""A running system under test: `drawbar up --sandbox` as a process, and a user's hands on it.

The tests edit through the two APIs as a second application, give orders with the `drawbar` command, and judge by what
the sandbox says its tables hold. Nothing here uses the code that is tested.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msal
import pytest
import requests

from drawbar.bus.tether import tethered
from tests.kafka_fixture import until
from tests.pipeline.prompt import Prompt

DEADLINE_S = 120.0  # others use the machine, too
STAGES = ("capture", "process", "sink-erp", "sink-crm")
ARGUMENTS = {"capture": "capture run", "process": "process", "sink-erp": "--system erp", "sink-crm": "--system crm"}

Row = Mapping[str, Any]


class Api:
    """One system's API, as the second application of the sandbox: a person, not the integration. One thread each."""

    def __init__(self, connection: Mapping[str, Any], system: str) -> None:
        part = connection[system]
        self.set = "customers" if system == "erp" else "accounts"
        self.client_id = str(part["other_app"]["client_id"])
        self._root = part["base_url"] + (f"/companies({part['company_id']})" if system == "erp" else "")
        self._http = _session(connection["ca_file"])
        self._application = msal.ConfidentialClientApplication(
            self.client_id,
            client_credential=part["other_app"]["client_secret"],
            authority=connection["sign_in"]["authority"],
            instance_discovery=False,
            http_client=self._http,
        )
        self._scope = part["scope"]
        self._sign_in()

    def call(self, method: str, path: str, body: Row | None = None, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        reply = self._http.request(method, f"{self._root}/{path}", json=body, headers=named, timeout=60)
        if reply.status_code == 401:  # the token is not good any more
            self._sign_in()
            reply = self._http.request(method, f"{self._root}/{path}", json=body, headers=named, timeout=60)
        assert reply.ok, f"{method} {path}: {reply.status_code} {reply.text[:300]}"
        return reply.json() if reply.content else None

    def _sign_in(self) -> None:
        self._application.remove_tokens_for_client()
        token = self._application.acquire_token_for_client([self._scope])
        self._http.headers["Authorization"] = f"Bearer {token['access_token']}"

    def get(self, record_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"{self.set}({record_id})")
        return found

    def edit(self, record_id: str, **values: Any) -> None:
        """Change a record, whatever its version."""
        self.call("PATCH", f"{self.set}({record_id})", values, If_Match="*")

    def create(self, **values: Any) -> str:
        made = self.call("POST", self.set, values, Prefer="return=representation")
        return str(made.get("id") or made.get("accountid"))

    def delete(self, record_id: str) -> None:
        self.call("DELETE", f"{self.set}({record_id})", If_Match="*")

    def close(self) -> None:
        self._http.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """A process that was killed, and the other ones of its stage."""

    stage: str
    pid: int
    others: frozenset[int]


class Installation:
    """One state folder, and the `drawbar up` that runs on it while it is started."""

    def __init__(self, folder: Path, *, bus: str | None = None, settings: Mapping[str, str] | None = None) -> None:
        """`bus`: brokers to use instead of an Apache Kafka of its own. `settings`: by their names in the environment."""
        self.environment = {**_environment(), **(settings or {})}
        self.state_dir = folder / "state"
        self.connection_file = folder / "connection.json"
        self.bus = bus
        self.pairs: dict[str, str] = {}  # customer -> account: what must be there, each once, coupled
        self.apart: set[str] = set()  # records whose counterpart was taken away on purpose
        self._seen: set[int] = set()
        self._log = folder / "up.log"
        self._up: subprocess.Popen[bytes] | None = None
        self._control: requests.Session | None = None
        self._prompt: Prompt | None = None
        self._names = 0

    # --- start and end --------------------------------------------------------------------------------------------

    def start(self, *arguments: str) -> None:
        """Return once every stage consumes, by the word of the connection file."""
        bus = () if self.bus is None else ("--bus", self.bus)
        folder, reach = str(self.state_dir), str(self.connection_file)
        line = ("--state-dir", folder, "--connection-file", reach, *bus, *arguments)
        self._up = _spawn(("up", "--sandbox", "--seed", "empty", *line), self._log, self.environment)
        until(lambda: self._written() or self._ended(), "the connection file is there", timeout_s=DEADLINE_S)
        assert not self._ended(), self.log()
        self._seen |= self.all_pids()
        self.erp, self.crm = (Api(self.connection, system) for system in ("erp", "crm"))
        self._control = _session(self.connection["ca_file"])
        self._control.headers["Authorization"] = f"Bearer {self.connection['control_token']}"

    def stop(self) -> int:
        """SIGTERM, as an operator ends it; the exit code. Fails when it does not end."""
        assert self._up is not None
        self._seen |= self.all_pids()
        self._up.terminate()
        code = self._up.wait(DEADLINE_S)
        self._close()
        return code

    def end(self) -> None:
        """For the end of a test module: whatever its state, nothing is left."""
        if self._up is not None and self._up.poll() is None:
            self._up.terminate()
            try:
                self._up.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self._up.kill()  # its children are tied to it
                self._up.wait()
        self._close()
        until(lambda: not self.alive(), "no process is left", timeout_s=30)

    def alive(self) -> set[int]:
        """Processes of this installation that are there, whether they should be or not."""
        return {pid for pid in self._seen if "drawbar" in _command(pid)}

    def log(self) -> str:
        """The end of what `up` printed."""
        return self._log.read_text("utf-8", "replace")[-4000:]

    def _written(self) -> bool:
        return self.connection_file.exists()

    def _ended(self) -> bool:
        return self._up is None or self._up.poll() is not None

    def _close(self) -> None:
        if self._control is not None:
            self._control.close()
            self.erp.close()
            self.crm.close()
        if self._prompt is not None:
            self._prompt.close()
        self._control = self._prompt = None

    # --- processes ------------------------------------------------------------------------------------------------

    @property
    def connection(self) -> dict[str, Any]:
        """What the connection file says now."""
        read: dict[str, Any] = json.loads(self.connection_file.read_text("utf-8"))
        return read

    def pids(self, stage: str) -> list[int]:
        found: list[int] = self.connection["pids"].get(stage, [])
        self._seen |= set(found)
        return found

    def all_pids(self) -> set[int]:
        if not self._written():
            return set()
        return {pid for pids in self.connection["pids"].values() for pid in pids}

    def kill(self, stage: str, place: int = 0) -> Killed:
        """SIGKILL one process of a stage."""
        pids = self.pids(stage)
        os.kill(pids[place], signal.SIGKILL)
        return Killed(stage=stage, pid=pids[place], others=frozenset(pids) - {pids[place]})

    def kill_again(self, stage: str, sign: str) -> None:
        """SIGKILL a process, and its successor in the moment its log says `sign`: inside its recovery."""
        log = self.state_dir / "logs" / f"{stage}.log"
        start = log.stat().st_size
        killed = self.kill(stage)
        until_within(lambda: sign in _from(log, start), f"{stage} started again, and said {sign}", every_s=0.01)
        self.await_successor(killed)
        self.await_successor(self.kill(stage))

    def await_successor(self, killed: Killed) -> None:
        """Return once the connection file names another process instead of the dead one."""

        def is_there() -> bool:
            pids = set(self.pids(killed.stage))
            return killed.pid not in pids and bool(pids - killed.others)

        until_within(is_there, f"{killed.stage} is started again")

    def untrue_pids(self) -> list[str]:
        """What the connection file says of processes that is not so."""
        found = []
        for stage, pids in self.connection["pids"].items():
            for pid in pids:
                command = _command(pid)
                if not command or (stage in ARGUMENTS and not command.endswith(ARGUMENTS[stage])):
                    found.append(f"{stage} {pid}: {command or 'is not there'}")
        found += [f"{stage}: nobody" for stage in STAGES if not self.pids(stage)]
        return found

    # --- the drawbar command --------------------------------------------------------------------------------------

    def drawbar(self, *arguments: str, code: int = 0) -> str:
        """Run a `drawbar` command as a person would; what it prints. Fails unless it ends with `code`."""
        if self._prompt is None:
            self._prompt = Prompt(self.connection_file.parent, self._with_connection())
        ended, printed, said = self._prompt.run(*arguments, timeout_s=2 * DEADLINE_S)
        assert code == ended, f"drawbar {' '.join(arguments)}\n{printed}\n{said}\n{self.log()}"
        return printed

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a `drawbar` command that is not waited for; what it prints is in `begun.log` of the state folder."""
        return _spawn(arguments, self.state_dir / "begun.log", self._with_connection())

    def _with_connection(self) -> dict[str, str]:
        return {**self.environment, "DRAWBAR_CONNECTION_FILE": str(self.connection_file)}

    def lines(self, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.drawbar(*arguments, "--json").splitlines()]

    def status(self) -> dict[str, Any]:
        (status,) = self.lines("status")
        return status

    def letters(self, *arguments: str) -> list[dict[str, Any]]:
        return self.lines("dead-letters", "list", *arguments)

    def wait_quiet(self) -> None:
        self.drawbar("wait", "--quiet", "--timeout-s", str(DEADLINE_S))

    # --- the sandbox ----------------------------------------------------------------------------------------------

    def control(self, method: str, path: str, body: Any = None) -> Any:
        assert self._control is not None
        reply = self._control.request(method, f"{self.connection['control_url']}/{path}", json=body, timeout=60)
        assert reply.ok, f"{method} {path}: {reply.status_code} {reply.text[:300]}"
        return reply.json()

    def truth(self, system: str, entity_set: str) -> list[dict[str, Any]]:
        """All rows of a set as the sandbox stores them: a path that Drawbar does not use."""
        rows: list[dict[str, Any]] = self.control("GET", f"truth/{system}/{entity_set}")
        return rows

    def rows(self, system: str) -> dict[str, dict[str, Any]]:
        """Customers or accounts by id."""
        if system == "erp":
            return {row["id"]: row for row in self.truth("erp", "customers")}
        return {row["accountid"]: row for row in self.truth("crm", "accounts")}

    # --- records --------------------------------------------------------------------------------------------------

    def name(self) -> str:
        """A name that no other record has: twins are found by it."""
        self._names += 1
        return f"Pipeline Works {self._names:04}"

    def person(self, code: str, *, first: str, last: str, is_user: bool = True, is_salesperson: bool = True) -> None:
        """A salesperson of the ERP, a user of the CRM, or both under one e-mail address."""
        email = f"{first}.{last}@people.example".lower()
        unit = next(row for row in self.truth("crm", "businessunits") if row["name"] == "harborvale")
        edits: list[dict[str, Any]] = []
        if is_salesperson:
            values: dict[str, Any] = {"code": code, "displayName": f"{first} {last}", "email": email}
            edits.append({"system": "erp", "set": "salespeoplePurchasers", "app": self.erp.client_id, "values": values})
        if is_user:
            values = {
                "firstname": first,
                "lastname": last,
                "internalemailaddress": email,
                "domainname": email,
                "businessunitid@odata.bind": f"/businessunits({unit['businessunitid']})",
            }
            edits.append({"system": "crm", "set": "systemusers", "app": self.crm.client_id, "values": values})
        self.control("POST", "edit", edits)

    def make_customer(self, **values: Any) -> str:
        """A customer, made through the API; its account is to come."""
        record = self.erp.create(**{"displayName": self.name(), **values})
        self.pairs[record] = record
        return record

    def make_account(self, **values: Any) -> str:
        """An account that flows, made through the API; its customer is to come."""
        record = self.crm.create(**{"name": self.name(), "customertypecode": 3, **values})
        self.pairs[record] = record
        return record

    def make_pairs(self, count: int) -> list[str]:
        """Records on both sides, half of them made on each."""
        half = [self.make_customer() for _ in range(count // 2)]
        other = [self.make_account() for _ in range(count - count // 2)]
        self.wait_quiet()
        return [record for both in zip(half, other, strict=False) for record in both]

    def set_apart(self, customer: str) -> None:
        """The pair of a customer is no pair any more, by somebody's will."""
        self.apart |= {customer, self.pairs.pop(customer)}

    def await_value(self, system: str, record: str, field: str, value: Any) -> None:
        """Return once a record, read by the API, holds the value; it may not be there yet."""
        until(
            lambda: self.rows(system).get(record, {}).get(field) == value,
            f"{system} {record} has {field} {value!r}",
            timeout_s=DEADLINE_S,
            every_s=0.05,
        )


def until_within(condition: Callable[[], bool], what: str, *, every_s: float = 0.05) -> None:
    until(condition, what, timeout_s=DEADLINE_S, every_s=every_s)


def await_all(missing: Callable[[], list[str]], what: str) -> None:
    """Return once nothing is missing; fail naming what is."""
    last: list[str] = []

    def is_complete() -> bool:
        last[:] = missing()
        return not last

    try:
        until_within(is_complete, what, every_s=0.2)
    except pytest.fail.Exception:
        pytest.fail(f"{what}: " + "\n".join(last))


def _spawn(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """`drawbar` that ends with the test session, whatever ends that."""
    with log.open("ab") as output:
        return subprocess.Popen(
            tethered([sys.executable, "-m", "drawbar", *arguments]),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,  # a Ctrl-C is for pytest, which then ends it in order
        )


def _environment() -> dict[str, str]:
    """Ours, without settings of some other system. Load edits most records on purpose: that is not to stop anything."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DRAWBAR_")}
    return {**ours, "DRAWBAR_BRAKES__SHARE": "1"}


def _session(ca_file: str | None) -> requests.Session:
    made = requests.Session()
    made.trust_env = False
    made.verify = ca_file or True
    return made


def _command(pid: int) -> str:
    """The command line of a process; blank when it is not there, or dead and not yet buried."""
    done = subprocess.run(
        ["ps", "-ww", "-o", "stat=,args=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, command = done.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else command.strip()


def _from(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        return file.read().decode("utf-8", "replace")
