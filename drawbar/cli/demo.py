"""`drawbar demo`: start everything on this machine, let changes cross, and compare both systems at the end.

The demo is a user like any other: it edits through the two APIs as a second application, gives orders with the
`drawbar` command, and judges by what the sandbox says its tables hold. Nothing here uses the mapping code that it
judges.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msal
import requests
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from drawbar.settings import interpreter
from processors.mapping_files import shipped_folder
from schemas.errors import DemoFailed

Row = Mapping[str, Any]

# What an account must hold for its customer to count as agreeing: written down here once more, on purpose.
PLAIN = {
    "displayName": "name",
    "addressLine1": "address1_line1",
    "addressLine2": "address1_line2",
    "city": "address1_city",
    "state": "address1_stateorprovince",
    "email": "emailaddress1",
    "website": "websiteurl",
    "phoneNumber": "telephone1",
}
CODES = {"country": "address1_country", "postalCode": "address1_postalcode"}
LENGTHS = {
    "displayName": 100,
    "addressLine1": 100,
    "addressLine2": 50,
    "city": 30,
    "state": 30,
    "phoneNumber": 30,
    "website": 200,
}
TERMS = {"NET 30": 1, "2% 10": 2, "NET 45": 3, "NET 60": 4}
METHODS = {"FOB": 1, "NO CHARGE": 2}
NOBODY = "00000000-0000-0000-0000-000000000000"
BURST = 200
ANY_VERSION = {"If-Match": "*"}
DEADLINE_S = 60.0


class Api:
    """One system's API, as the second application of the sandbox: a person, not the integration."""

    def __init__(self, connection: Mapping[str, Any], system: str) -> None:
        part = connection[system]
        self._root = part["base_url"]
        self._system = system
        if system == "erp":
            self._root += f"/companies({part['company_id']})"
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = connection["ca_file"] or True
        application = msal.ConfidentialClientApplication(
            part["other_app"]["client_id"],
            client_credential=part["other_app"]["client_secret"],
            authority=connection["sign_in"]["authority"],
            instance_discovery=False,
            http_client=self._session,
        )
        token = application.acquire_token_for_client([part["scope"]])
        if "access_token" not in token:
            raise DemoFailed(f"the second application cannot sign in to the {system}")
        self._session.headers["Authorization"] = f"Bearer {token['access_token']}"
        self._set = "customers" if system == "erp" else "accounts"

    def call(self, method: str, path: str, body: Row | None = None, headers: Mapping[str, str] | None = None) -> Any:
        reply = self._session.request(method, f"{self._root}/{path}", json=body, headers=headers, timeout=30)
        if not reply.ok:
            raise DemoFailed(f"{self._system}: {method} {path.split('(', maxsplit=1)[0]} answers {reply.status_code}")
        return reply.json() if reply.content else None

    def get(self, record_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"{self._set}({record_id})")
        return found

    def edit(self, record_id: str, values: Row) -> float:
        """Change a record, whatever its version; the time when the system had it, by our clock."""
        self.call("PATCH", f"{self._set}({record_id})", values, ANY_VERSION)
        return time.time()

    def create(self, values: Row) -> str:
        if self._system == "erp":
            return str(self.call("POST", self._set, values)["id"])
        found = self.call("POST", self._set, values, {"Prefer": "return=representation"})
        return str(found["accountid"])

    def delete(self, record_id: str) -> float:
        self.call("DELETE", f"{self._set}({record_id})", headers=ANY_VERSION)
        return time.time()


@dataclass
class Run:
    """The running system under demonstration."""

    console: Console
    connection_file: Path
    connection: Mapping[str, Any] = field(default_factory=dict)
    latencies: dict[str, list[float]] = field(default_factory=lambda: {"ERP to CRM": [], "CRM to ERP": []})
    pairs: list[tuple[str, str]] = field(default_factory=list)  # customers and accounts on which the steps are shown
    deleted: set[str] = field(default_factory=set)
    is_numbered: bool = False  # the mapping by which accounts bear the number of their customer is in force
    requests_per_change: float = 0.0

    def open(self) -> None:
        self.connection = json.loads(self.connection_file.read_text(encoding="utf-8"))
        self.erp = Api(self.connection, "erp")
        self.crm = Api(self.connection, "crm")
        self._control = requests.Session()
        self._control.trust_env = False
        self._control.verify = self.connection["ca_file"] or True
        self._control.headers["Authorization"] = f"Bearer {self.connection['control_token']}"

    @property
    def client_id(self) -> str:
        """The application by which Drawbar signs in to the CRM."""
        return str(self.connection["crm"]["client_id"])

    def truth(self, system: str, entity_set: str) -> list[dict[str, Any]]:
        """All rows of a set as the sandbox stores them: a path that Drawbar does not use."""
        reply = self._control.get(f"{self.connection['control_url']}/truth/{system}/{entity_set}", timeout=30)
        rows: list[dict[str, Any]] = reply.json()
        return rows

    def requests_made(self) -> int:
        """Requests that the sinks have made so far, reads included."""
        stages = self.lines("status")[0]["stages"]
        return sum(int(worker["requests"]) for name in ("sink-erp", "sink-crm") for worker in stages[name])

    def drawbar(self, *arguments: str) -> str:
        """Run a `drawbar` command as a person would, and name it; what it prints. Raises DemoFailed for a fault."""
        self.say(f"  [bold]$ drawbar {' '.join(arguments)}[/]")
        done = subprocess.run(
            [*interpreter(), *arguments],
            env={
                **os.environ,
                "DRAWBAR_CONNECTION_FILE": str(self.connection_file),
                "COLUMNS": str(min(max(self.console.width, 100), 120)),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != 0:
            last = done.stderr.strip().splitlines()[-3:]
            raise DemoFailed(f"drawbar {' '.join(arguments)} ended with {done.returncode}: {' '.join(last)}")
        return done.stdout

    def show(self, *arguments: str) -> None:
        """Run a command and print what it prints."""
        self.say(self.drawbar(*arguments).rstrip(), markup=False)

    def ask(self, *arguments: str) -> str:
        """What a `drawbar` command prints, run in this process: a look behind the scenes, without its start."""
        from drawbar.cli import main

        printed = io.StringIO()
        with redirect_stdout(printed), redirect_stderr(io.StringIO()):
            code = main([*arguments, "--connection-file", str(self.connection_file)])
        if code != 0:
            raise DemoFailed(f"drawbar {' '.join(arguments)} ended with {code}")
        return printed.getvalue()

    def lines(self, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.ask(*arguments, "--json").splitlines()]

    def say(self, what: object, *, markup: bool = True) -> None:
        """Print; text that is wider than the terminal is left to the terminal, so that it can be copied."""
        self.console.print(what, highlight=False, markup=markup, soft_wrap=isinstance(what, str))

    def step(self, title: str) -> None:
        self.say(f"\n[bold cyan]{title}[/]")

    def until(self, what: str, condition: Callable[[], bool], since: float, direction: str = "") -> float:
        """Wait for a condition; print and keep how long it took since `since`. Raises DemoFailed."""
        while not condition():
            if time.time() - since > DEADLINE_S:
                raise DemoFailed(f"not seen within {DEADLINE_S:g} s: {what}")
            time.sleep(0.02)
        took = time.time() - since
        if direction:
            self.latencies[direction].append(took)
        self.say(f"  {what} [green]{took * 1000:,.0f} ms[/]")
        return took

    def wait_quiet(self, timeout_s: int = 60) -> None:
        self.ask("wait", "--quiet", "--timeout-s", str(timeout_s))


def demo(
    keep: bool = typer.Option(False, "--keep", help="Leave the system running at the end, until Ctrl-C."),
) -> None:
    """Show on this machine, with a sandbox of both systems, how changes cross and what happens to those that cannot.

    Takes about a minute and a half. Exit code 0 only if everything is as it must be at the end.

    Example: drawbar demo
    """
    console = Console(file=sys.stdout)  # that of now: commands that are asked in between have one of their own
    began = time.time()
    with tempfile.TemporaryDirectory(prefix="drawbar-demo-") as folder, _system(console, Path(folder)) as run:
        try:
            _salespeople(run)
            _first_synchronisation(run)
            run.pairs = _pairs(run)
            _live_edits(run)
            _both_sides(run)
            _automation(run)
            _burst(run)
            _contact(run)
            _dead_letters(run)
            _pause(run)
            _apply(run, Path(folder))
            _delete(run)
            good = _compare(run)
        except DemoFailed as failure:
            console.print(f"[bold red]{failure.for_people()}[/]")
            good = False
        console.print(
            f"\n{'[bold green]everything agrees' if good else '[bold red]NOT as it must be'}[/], "
            f"{time.time() - began:.0f} s in all"
        )
        if keep and good:
            console.print(f"still running; connection file: {run.connection_file} (Ctrl-C ends it)")
            signal.sigwait({signal.SIGINT, signal.SIGTERM})
    raise typer.Exit(0 if good else 1)


@contextmanager
def _system(console: Console, folder: Path) -> Iterator[Run]:
    """Kafka, sandbox and every stage, started by `drawbar up` and stopped at the end."""
    run = Run(console, folder / "connection.json")
    console.print("[bold]Drawbar[/]: a Business Central and a Dataverse, kept in step over Apache Kafka")
    run.step("Starting Kafka, the sandbox of both systems, and every stage")
    log = (folder / "up.log").open("wb")
    began = time.time()
    up = subprocess.Popen(
        [
            *interpreter(),
            "up",
            "--sandbox",
            "--state-dir",
            str(folder / "state"),
            "--connection-file",
            str(run.connection_file),
        ],
        stdout=log,
        stderr=subprocess.STDOUT,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("DRAWBAR_")},
            "DRAWBAR_BRAKES__SHARE": "1",  # the burst edits most records on purpose
        },
    )
    try:
        with console.status("starting …"):
            while not run.connection_file.exists():
                _must_run(up, folder / "up.log")
                time.sleep(0.1)
        run.open()
        console.print(f"  ready after {time.time() - began:.1f} s; broker {run.connection['bootstrap_servers']}")
        yield run
    except DemoFailed as failure:
        console.print(f"[bold red]{failure.for_people()}[/]")
        raise typer.Exit(1) from failure
    finally:
        if up.poll() is None:
            up.terminate()
            try:
                up.wait(30)
            except subprocess.TimeoutExpired:
                up.kill()
        log.close()


def _must_run(up: subprocess.Popen[bytes], log: Path) -> None:
    if up.poll() is not None:
        raise DemoFailed(f"`drawbar up` ended with {up.returncode}\n{log.read_text(errors='replace')[-2000:]}")


# --- the steps --------------------------------------------------------------------------------------------------------


def _salespeople(run: Run) -> None:
    run.step("Salespeople and CRM users are coupled by e-mail")
    people = run.truth("erp", "salespeoplePurchasers")
    users = {
        str(user["internalemailaddress"]).lower() for user in run.truth("crm", "systemusers") if user["islicensed"]
    }
    expected = sum(str(person["email"]).lower() in users for person in people)
    began = time.time()
    pairs: list[dict[str, Any]] = []

    def coupled() -> bool:
        pairs[:] = run.lines("couplings", "list", "--mapping", "salesperson-systemuser")
        return len(pairs) >= expected

    run.until(f"{expected} of {len(people)} salespeople have a user; all of these are coupled", coupled, began)


def _first_synchronisation(run: Run) -> None:
    run.step("First synchronisation: what matches is coupled, what is new is made, on both sides")
    began = time.time()
    with Progress(
        TextColumn("  coupled"),
        BarColumn(),
        TextColumn("{task.completed} of about {task.total}"),
        TimeElapsedColumn(),
        console=run.console,
    ) as progress:
        task = progress.add_task("", total=_expected_pairs(run))
        waiting = subprocess.Popen(
            [*interpreter(), "wait", "--quiet", "--timeout-s", "120"],
            env={**os.environ, "DRAWBAR_CONNECTION_FILE": str(run.connection_file)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while waiting.poll() is None:
            progress.update(task, completed=_coupled_count(run))
            time.sleep(0.5)
        pairs = run.lines("couplings", "list", "--mapping", "customer-account")
        progress.update(task, completed=len(pairs), total=len(pairs))
    if waiting.returncode != 0:
        raise DemoFailed("the first synchronisation does not fall quiet")
    ours = {row["systemuserid"] for row in run.truth("crm", "systemusers") if row.get("applicationid") == run.client_id}
    made_by = {row["accountid"]: row["_createdby_value"] for row in run.truth("crm", "accounts")}
    same_id = [pair["crm_id"] for pair in pairs if pair["erp_id"] == pair["crm_id"]]
    accounts = sum(made_by.get(record) in ours for record in same_id)
    run.say(
        f"  {len(pairs)} pairs after {time.time() - began:.1f} s: {len(pairs) - len(same_id)} matched by name, "
        f"{accounts} accounts and {len(same_id) - accounts} customers made",
    )
    names = {row["id"]: row["displayName"] for row in run.truth("erp", "customers")}
    names |= {row["accountid"]: row["name"] for row in run.truth("crm", "accounts")}
    for letter in run.lines("dead-letters", "list", "--code", "ambiguous-match"):
        name = names.get(letter["ref"].rsplit(":", 1)[-1], "?")
        run.say(f"  ambiguous, left to a person: {letter['ref']} ({name})")


def _expected_pairs(run: Run) -> int:
    """Roughly how many pairs there will be: customers that are not blocked, and accounts of other names."""
    customers = [row for row in run.truth("erp", "customers") if row["blocked"] == "_x0020_"]
    names = {str(row["displayName"]).lower() for row in customers}
    judge = _Judge(run)
    return len(customers) + sum(
        judge.is_ours(row) and str(row["name"]).lower() not in names for row in run.truth("crm", "accounts")
    )


def _coupled_count(run: Run) -> int:
    """How many accounts carry the company's stamp: each coupled account does."""
    return sum(1 for row in run.truth("crm", "accounts") if row.get("_bcbi_companyid_value"))


def _pairs(run: Run) -> list[tuple[str, str]]:
    """Coupled pairs that are free of trouble: both sides inside the filters."""
    customers = {row["id"]: row for row in run.truth("erp", "customers")}
    accounts = {row["accountid"]: row for row in run.truth("crm", "accounts")}
    troubled = {letter["ref"].rsplit(":", 1)[-1] for letter in run.lines("dead-letters", "list")}
    return [
        (pair["erp_id"], pair["crm_id"])
        for pair in run.lines("couplings", "list", "--mapping", "customer-account")
        if pair["erp_id"] in customers
        and pair["crm_id"] in accounts
        and customers[pair["erp_id"]]["blocked"] == "_x0020_"
        and accounts[pair["crm_id"]]["statecode"] == 0
        and not troubled & {pair["erp_id"], pair["crm_id"]}
    ]


def _live_edits(run: Run) -> None:
    run.step("Edits cross in both directions")
    pairs = run.pairs
    for number in range(3):
        customer, account = pairs[number]
        phone = f"+1 555 01{number:02}"
        since = run.erp.edit(customer, {"phoneNumber": phone})
        run.until(
            "a customer's phone number is on its account after",
            lambda account=account, phone=phone: run.crm.get(account)["telephone1"] == phone,  # type: ignore[misc]
            since,
            "ERP to CRM",
        )
    for number in range(3, 6):
        customer, account = pairs[number]
        street = f"{number} Harbour Street"
        since = run.crm.edit(account, {"address1_line1": street})
        run.until(
            "an account's street is on its customer after",
            lambda customer=customer, street=street: run.erp.get(customer)["addressLine1"] == street,  # type: ignore[misc]
            since,
            "CRM to ERP",
        )
    since = time.time()
    made = run.erp.create({"displayName": "Demo Shipyard Ltd", "email": "yard@demo.example"})
    run.until(
        "a new customer is an account, under the same id, after",
        lambda: any(row["accountid"] == made for row in run.truth("crm", "accounts")),
        since,
    )


def _both_sides(run: Run) -> None:
    run.step("Both sides edit one record at once")
    customer, account = run.pairs[6]
    run.erp.edit(customer, {"email": "orders@both.example"})
    since = run.crm.edit(account, {"telephone1": "+1 555 0177"})

    def merged() -> bool:
        here, there = run.erp.get(customer), run.crm.get(account)
        return bool(here["phoneNumber"] == "+1 555 0177" and there["emailaddress1"] == "orders@both.example")

    run.until("different fields: both edits are on both sides after", merged, since)
    customer, account = run.pairs[7]
    run.erp.edit(customer, {"website": "erp.example"})
    since = run.crm.edit(account, {"websiteurl": "crm.example"})

    def agreed() -> bool:
        here, there = run.erp.get(customer)["website"], run.crm.get(account)["websiteurl"]
        return bool(here == there and here in ("erp.example", "crm.example"))

    run.until("the same field: one value stands on both sides after", agreed, since)
    standing = run.erp.get(customer)["website"]
    run.say(f"  it is {standing!r}: the later edit wins, the ERP within one second")


def _automation(run: Run) -> None:
    run.step("A second application edits the account right after our write")
    customer, account = run.pairs[8]
    run.erp.edit(customer, {"city": "Rotterdam"})
    deadline = time.time() + DEADLINE_S
    while run.crm.get(account)["address1_city"] != "Rotterdam":
        if time.time() > deadline:
            raise DemoFailed("our write is not seen")
    since = run.crm.edit(account, {"address1_line2": "set by an automation"})
    run.until(
        "its edit is not taken for our echo: on the customer after",
        lambda: bool(run.erp.get(customer)["addressLine2"] == "set by an automation"),
        since,
        "CRM to ERP",
    )


def _burst(run: Run) -> None:
    run.step(f"A burst of {BURST} edits, half on each side")
    pairs = run.pairs
    half = min(BURST // 2, len(pairs) // 2)
    before = run.requests_made()
    began = time.time()
    wanted: dict[tuple[str, str], tuple[str, float]] = {}
    for number in range(half):
        customer, account = pairs[number]
        wanted["crm", account] = (f"burst {number}", run.erp.edit(customer, {"addressLine2": f"burst {number}"}))
        customer, account = pairs[half + number]
        wanted["erp", customer] = (f"burst {number}", run.crm.edit(account, {"address1_line2": f"burst {number}"}))
    sent = time.time()
    run.say(f"  {2 * half} edits made in {sent - began:.1f} s")
    while wanted:
        if time.time() - sent > DEADLINE_S:
            raise DemoFailed(f"{len(wanted)} edits of the burst have not arrived")
        now = time.time()
        here = {row["id"]: row["addressLine2"] for row in run.truth("erp", "customers")}
        there = {row["accountid"]: row["address1_line2"] for row in run.truth("crm", "accounts")}
        for (system, record), (text, since) in list(wanted.items()):
            if (here if system == "erp" else there).get(record) == text:
                run.latencies["ERP to CRM" if system == "crm" else "CRM to ERP"].append(max(now - since, 0.0))
                del wanted[system, record]
    run.say(f"  all of them are on the other side {time.time() - sent:.1f} s after the last one")
    run.wait_quiet()
    run.requests_per_change = (run.requests_made() - before) / (2 * half)
    run.say(f"  {run.requests_per_change:.2f} requests per change")


def _contact(run: Run) -> None:
    run.step("A company and a person who works there, made in one go")
    since = time.time()
    customer = run.erp.create({"displayName": "Kestrel Glass Ltd", "email": "office@kestrel.example"})
    (company,) = run.erp.call("GET", f"customers({customer})/contactsInformation")["value"]
    person = {"type": "Person", "displayName": "Ines van der Meer", "companyNumber": company["contactNumber"]}
    made = run.erp.call("POST", "contacts", person)["id"]
    found: dict[str, Any] = {}

    def is_there() -> bool:
        found.update(next((row for row in run.truth("crm", "contacts") if row["contactid"] == made), {}))
        return bool(found) and found["_parentcustomerid_value"] == customer

    run.until("the person is a contact of the new account, for which it waited, after", is_there, since)
    names = [found[part] or "" for part in ("firstname", "middlename", "lastname")]
    run.say(f"  {person['displayName']!r} is first name {names[0]!r}, middle {names[1]!r}, last {names[2]!r}")


def _dead_letters(run: Run) -> None:
    run.step("Customers whose salesperson has no CRM user wait, visibly")
    run.show("dead-letters", "list", "--code", "owner-not-coupled")
    letters = run.lines("dead-letters", "list", "--code", "owner-not-coupled")
    if not letters:
        raise DemoFailed("no customer waits for its owner, though some salespeople have no user")
    missing, _ = Counter(letter["missing"] for letter in letters).most_common(1)[0]
    waiting = [letter for letter in letters if letter["missing"] == missing]
    taken = {pair["crm_id"] for pair in run.lines("couplings", "list", "--mapping", "salesperson-systemuser")}
    free = next(
        user
        for user in run.truth("crm", "systemusers")
        if user["islicensed"] and not user["isdisabled"] and user["systemuserid"] not in taken
    )
    run.say(f"  {len(waiting)} wait for {missing}; {free['fullname']} becomes its user:")
    since = time.time()
    said = run.drawbar("couplings", "couple", missing, f"crm:systemuser:{free['systemuserid']}")
    run.say("  " + said.strip(), markup=False)

    def released() -> bool:
        still = run.lines("dead-letters", "list", "--code", "owner-not-coupled")
        return not any(letter["missing"] == missing for letter in still)

    run.until(f"{len(waiting)} customers went on by themselves, their letters closed, after", released, since)


def _pause(run: Run) -> None:
    run.step("Stocktaking: nothing is to be written to the ERP for a while")
    direction = ("--mapping", "customer-account", "--direction", "to_erp")
    customer, account = run.pairs[10]
    run.drawbar("pause", *direction, "--reason", "stocktaking")
    run.crm.edit(account, {"address1_line1": "1 Paused Street"})
    run.erp.edit(customer, {"addressLine2": "not paused"})
    run.until(
        "the other direction goes on",
        lambda: bool(run.crm.get(account)["address1_line2"] == "not paused"),
        time.time(),
    )
    run.show("brakes", "show")
    if run.erp.get(customer)["addressLine1"] == "1 Paused Street":
        raise DemoFailed("a paused direction was written")
    since = time.time()
    run.drawbar("resume", *direction)
    run.until(
        "what was held is written, as it is by now, after",
        lambda: bool(run.erp.get(customer)["addressLine1"] == "1 Paused Street"),
        since,
    )


def _apply(run: Run, folder: Path) -> None:
    run.step("A mapping changes while everything runs: accounts are to bear the number of their customer")
    new = folder / "mappings-new"
    shutil.copytree(shipped_folder(), new)
    file = new / "customer-account.yaml"
    before = file.read_text("utf-8")
    line = next(line for line in before.splitlines() if "crm: accountnumber," in line)
    file.write_text(before.replace(line, line.replace(", enabled: false", "")), "utf-8")
    run.say(f"  in {file.name}:{line.replace(', enabled: false', '')}")
    since = time.time()
    run.show("mappings", "apply", str(new), "--yes")
    run.is_numbered = True
    customer, account = run.pairs[0]
    number = run.erp.get(customer)["number"]
    run.until(
        f"customer {number} has the account with that number after",
        lambda: bool(run.crm.get(account)["accountnumber"] == number),
        since,
    )


def _delete(run: Run) -> None:
    run.step("A deleted account does not vanish silently")
    customer, account = run.pairs[9]
    since = run.crm.delete(account)
    run.deleted.add(customer)

    def told() -> bool:
        letters = run.lines("dead-letters", "list", "--code", "counterpart-deleted")
        return any(letter["ref"].endswith(customer) for letter in letters)

    run.until("a dead letter tells of it after", told, since)
    run.show("explain", f"erp:customer:{customer}")


# --- the judgement ----------------------------------------------------------------------------------------------------


def _compare(run: Run) -> bool:
    run.step("Reading both systems back, and comparing")
    run.wait_quiet()
    customers = {row["id"]: row for row in run.truth("erp", "customers")}
    accounts = {row["accountid"]: row for row in run.truth("crm", "accounts")}
    pairs = {pair["erp_id"]: pair["crm_id"] for pair in run.lines("couplings", "list", "--mapping", "customer-account")}
    letters = run.lines("dead-letters", "list")
    spoken = {letter["ref"].rsplit(":", 1)[-1] for letter in letters}
    judge = _Judge(run)
    faults: list[str] = []
    agreeing = 0
    for erp_id, crm_id in pairs.items():
        if erp_id not in customers or crm_id not in accounts:
            if not spoken & {erp_id, crm_id}:
                faults.append(f"{erp_id}: one side is gone and no letter says so")
            continue
        differences = judge.differences(customers[erp_id], accounts[crm_id])
        if not differences:
            agreeing += 1
        elif not spoken & {erp_id, crm_id} and customers[erp_id]["blocked"] == "_x0020_":
            faults.append(f"{erp_id}: {', '.join(differences)} differ")
    single = [key for key, row in customers.items() if key not in pairs and row["blocked"] == "_x0020_"]
    single += [key for key, row in accounts.items() if key not in pairs.values() and judge.is_ours(row)]
    faults += [f"{key}: neither coupled nor in a dead letter" for key in single if key not in spoken]
    duplicates = len(pairs) - len(set(pairs.values())) + judge.twins(customers, accounts, pairs)
    if duplicates:
        faults.append(f"{duplicates} records exist twice")
    if run.deleted - spoken:
        faults.append("the deleted record is in no dead letter")
    _table(run, len(customers), len(accounts), len(pairs), agreeing, duplicates, letters)
    for fault in faults[:20]:
        run.say(f"  [red]{fault}[/]")
    return not faults


class _Judge:
    """Compares a customer with an account by rules of its own."""

    def __init__(self, run: Run) -> None:
        self._is_numbered = run.is_numbered
        self._terms = {row["id"]: TERMS.get(row["code"]) for row in run.truth("erp", "paymentTerms")}
        self._methods = {row["id"]: METHODS.get(row["code"]) for row in run.truth("erp", "shipmentMethods")}
        company = run.connection["erp"]["company_id"].lower()
        self._company = next(
            row["bcbi_companyid"] for row in run.truth("crm", "bcbi_companies") if row["bcbi_externalid"] == company
        )
        people = {row["id"]: row["code"] for row in run.truth("erp", "salespeoplePurchasers")}
        self._owners = {
            people[pair["erp_id"]]: pair["crm_id"]
            for pair in run.lines("couplings", "list", "--mapping", "salesperson-systemuser")
        }

    def differences(self, customer: Row, account: Row) -> list[str]:
        found = []
        for here, there in (*PLAIN.items(), *CODES.items()):
            left, right = _text(customer[here]), _text(account.get(there))
            if here in CODES:
                left, right = left.upper(), right.upper()
            length = LENGTHS.get(here, 400)
            if left[:length].strip() != right[:length].strip():
                found.append(here)
        if float(customer["creditLimit"] or 0) != float(account.get("creditlimit") or 0):
            found.append("creditLimit")
        if self._terms.get(customer["paymentTermsId"]) != account.get("paymenttermscode"):
            found.append("paymentTermsId")
        if self._methods.get(customer["shipmentMethodId"]) != account.get("address1_freighttermscode"):
            found.append("shipmentMethodId")
        if self._is_numbered and customer["number"] != account.get("accountnumber"):
            found.append("number")
        owner = self._owners.get(customer["salespersonCode"])
        if owner is not None and account.get("_ownerid_value") != owner:
            found.append("salespersonCode")
        if account.get("_bcbi_companyid_value") != self._company:
            found.append("company stamp")
        return found

    def is_ours(self, account: Row) -> bool:
        """Whether the account is one that flows: an active customer of this company or of none."""
        stamp = account.get("_bcbi_companyid_value")
        return bool(account["statecode"] == 0 and account["customertypecode"] == 3 and stamp in (None, self._company))

    @staticmethod
    def twins(customers: Mapping[str, Row], accounts: Mapping[str, Row], pairs: Mapping[str, str]) -> int:
        """Records of one name beyond those that the other system has: made twice."""
        by_name: dict[str, list[int]] = {}
        for key, row in customers.items():
            by_name.setdefault(_text(row["displayName"]).lower(), [0, 0])[0] += key in pairs
        coupled = set(pairs.values())
        for key, row in accounts.items():
            by_name.setdefault(_text(row["name"]).lower(), [0, 0])[1] += key in coupled
        return sum(abs(here - there) for here, there in by_name.values() if here and there)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _table(
    run: Run, customers: int, accounts: int, pairs: int, agreeing: int, duplicates: int, letters: list[dict[str, Any]]
) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_row("records", f"{customers} customers, {accounts} accounts")
    table.add_row("coupled", str(pairs))
    table.add_row("agreeing", str(agreeing))
    table.add_row("not agreeing yet", f"{pairs - agreeing}: an open dead letter says of each what it waits for")
    table.add_row("duplicates", str(duplicates))
    for slug, count in Counter(letter["slug"] for letter in letters).most_common():
        causes = Counter(letter["missing"] for letter in letters if letter["slug"] == slug)
        table.add_row("open dead letters", f"{count} {slug}" + (f", {len(causes)} causes" if len(causes) > 1 else ""))
    for direction, values in run.latencies.items():
        if values:
            ordered = sorted(values)
            p99 = ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
            middle = statistics.median(ordered)
            table.add_row(
                f"latency {direction}", f"p50 {middle * 1000:,.0f} ms, p99 {p99 * 1000:,.0f} ms ({len(values)})"
            )
    table.add_row("requests per change", f"{run.requests_per_change:.2f}")
    run.say(table)
