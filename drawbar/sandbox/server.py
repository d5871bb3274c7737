"""Start and stop the sandbox: three ports on one loop, one for sign-in and control, one for each system.

What a client needs to reach it comes out as one JSON object; what must stay the same over a restart (ports,
secrets, control token) is kept in `sandbox.json` in the state folder, readable by the owner alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import errno
import gc
import json
import os
import re
import secrets
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from drawbar.sandbox import control as control_endpoint
from drawbar.sandbox.certificates import Certificates, ensure_certificates
from drawbar.sandbox.clock import Clock
from drawbar.sandbox.control import Control
from drawbar.sandbox.crm.dataverse import Dataverse
from drawbar.sandbox.crm.duplicates import plant_rules
from drawbar.sandbox.crm.records import PATH as CRM_PATH
from drawbar.sandbox.crm.webhooks import DELAY_S as CRM_WEBHOOK_DELAY_S
from drawbar.sandbox.crm.webhooks import CrmWebhooks
from drawbar.sandbox.erp.business_central import AUDIENCE, BusinessCentral
from drawbar.sandbox.erp.business_central import LONGEST_BODY as ERP_BODY
from drawbar.sandbox.erp.environments import Environments
from drawbar.sandbox.erp.webhooks import DELAY_S as ERP_WEBHOOK_DELAY_S
from drawbar.sandbox.erp.webhooks import ErpWebhooks
from drawbar.sandbox.faults import Faults
from drawbar.sandbox.grants import Grants
from drawbar.sandbox.latency import Latencies
from drawbar.sandbox.limits import BusinessCentralLimits, DataverseLimits, LimitSettings
from drawbar.sandbox.notify import Notifier
from drawbar.sandbox.seeds.planting import Identities, Kind, complete, complete_environment, plant, plant_environment
from drawbar.sandbox.seeds.roles import plant_roles
from drawbar.sandbox.servers import Servers
from drawbar.sandbox.sign_in import Application, SignIn
from drawbar.sandbox.store import Database, DatabaseError, Store
from drawbar.sandbox.switch import SwitchError
from drawbar.sandbox.switches import Switches, checked
from drawbar.sandbox.traffic import Traffic
from drawbar.sandbox.wire import EXEMPT, BodyLimit, CuttableProtocol, Endpoint, Reply, Request, Surroundings

ENVIRONMENT = "sandbox"  # of the ERP, the one that is always there
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,29}")
KEEP_ALIVE_S = 120  # idle connections of a pool stay usable
# Records are many, stay, and hold no cycles: at Python's (700, 10, 10) writes get slower with their number.
GC_THRESHOLDS = (50_000, 20, 20)
_APPS = ("erp", "erp_other", "crm", "crm_other")


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """How a sandbox is started. Ports of 0 are free ones, or those of the last start while they are free."""

    state_dir: Path
    host: str = "127.0.0.1"
    sign_in_port: int = 0
    erp_port: int = 0
    crm_port: int = 0
    db: Path | None = None  # SQLite; None keeps everything in memory
    seed: Kind = "demo"
    scale: int = 1  # thousands of customers of the seed `large`
    data: Path | None = None  # folder of files with more data
    environments: tuple[str, ...] = ()  # of the ERP, besides the first: each set up, without business
    random_seed: int = 1
    clock: dt.datetime | None = None  # what time it is there at the start; None: as on this machine
    plain_http: bool = False  # no TLS, for clients that cannot be given a certificate authority
    limits: bool = True
    servers: int = 1  # of Dataverse, behind one address; each counts what may be asked of it
    latency_ms: float = 0.0
    control: bool = True
    erp_webhook_delay_s: float = ERP_WEBHOOK_DELAY_S
    crm_webhook_delay_s: float = CRM_WEBHOOK_DELAY_S
    switches: Mapping[str, Any] = field(default_factory=dict)  # by name; those left out have their defaults


class SandboxError(Exception):
    """The sandbox cannot start as asked; `next_step` says what to do about it."""

    def __init__(self, message: str, *, next_step: str = "see docs/sandbox.md") -> None:
        super().__init__(message)
        self.next_step = next_step


def run(options: SandboxOptions, *, ready: Callable[[dict[str, Any]], None]) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called once every port answers."""
    gc.set_threshold(*GC_THRESHOLDS)
    asyncio.run(_serve(options, ready, threading.Event(), signals=True))


def start_in_thread(options: SandboxOptions) -> tuple[dict[str, Any], Callable[[], None]]:
    """A sandbox beside the caller: what to reach it by, and what stops it and waits for its end."""
    started = threading.Event()
    stopping = threading.Event()
    box: dict[str, Any] = {}

    def serve() -> None:
        def ready(info: dict[str, Any]) -> None:
            box["info"] = info
            started.set()

        try:
            asyncio.run(_serve(options, ready, stopping, signals=False))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for the start
            box["error"] = error
        finally:
            started.set()

    thread = threading.Thread(target=serve, name="sandbox", daemon=True)
    thread.start()
    started.wait()
    if "info" not in box:
        raise SandboxError("the sandbox did not start") from box.get("error")

    def stop() -> None:
        stopping.set()
        thread.join()

    return box["info"], stop


async def _serve(
    options: SandboxOptions,
    ready: Callable[[dict[str, Any]], None],
    stopping: threading.Event,
    *,
    signals: bool,
) -> None:
    try:
        checked(options.switches)
    except SwitchError as error:
        raise SandboxError(str(error)) from error
    certificates = ensure_certificates(options.state_dir)
    kept = _read_kept(options.state_dir)
    sockets = _bind(options, kept)
    with contextlib.ExitStack() as until_the_end:
        for bound in sockets.values():
            until_the_end.enter_context(contextlib.closing(bound))
        scheme = "http" if options.plain_http else "https"
        origins = {name: f"{scheme}://localhost:{bound.getsockname()[1]}" for name, bound in sockets.items()}
        kept = {
            "ports": {name: bound.getsockname()[1] for name, bound in sockets.items()},
            "secrets": {app: kept.get("secrets", {}).get(app) or secrets.token_urlsafe(30) for app in _APPS},
            "control_token": kept.get("control_token") or secrets.token_urlsafe(30),
        }
        _write_kept(options.state_dir, kept)
        identities = Identities.from_seed(options.random_seed)
        applications = {
            app: Application(
                name=f"Sandbox {app}",
                client_id=identities.client_ids[app],
                client_secret=kept["secrets"][app],
                object_id=str(uuid.uuid5(uuid.UUID(identities.client_ids[app]), "object")),
            )
            for app in _APPS
        }
        try:
            database = Database(options.db)
        except DatabaseError as error:
            raise SandboxError(str(error), next_step="name a new file, or one that a sandbox made, in --db") from error
        until_the_end.callback(database.close)
        notifier = Notifier()
        until_the_end.callback(notifier.close)
        machine = _Machine(options, certificates, identities, applications, origins, database, notifier, kept)
        await _run_servers(options, machine, sockets, certificates, ready, stopping, signals=signals)


class _Machine:
    """The services of one sandbox, put together."""

    def __init__(
        self,
        options: SandboxOptions,
        certificates: Certificates,
        identities: Identities,
        applications: dict[str, Application],
        origins: dict[str, str],
        database: Database,
        notifier: Notifier,
        kept: dict[str, Any],
    ) -> None:
        clock = Clock()
        if options.clock is not None:
            clock.set(options.clock.timestamp())
        erp_store, crm_store = (
            Store(name, database, clock, random_seed=options.random_seed) for name in ("erp", "crm")
        )
        is_new = erp_store.is_empty() and crm_store.is_empty()
        if options.servers < 1:
            raise SandboxError("there is at least one server")
        servers = Servers(options.servers, secure=not options.plain_http)
        switches = Switches()
        self.erp_webhooks = ErpWebhooks(erp_store, notifier, switches)
        self.erp_webhooks.settings.delay_s = options.erp_webhook_delay_s
        self.crm_webhooks = CrmWebhooks(crm_store, notifier, switches)
        self.crm_webhooks.settings.delay_s = options.crm_webhook_delay_s
        self.crm_webhooks.host = origins["crm"].partition("://")[2]
        sign_in = SignIn(
            tenant_id=identities.tenant_id,
            origin=origins["sign_in"],
            applications=list(applications.values()),
            audiences=[AUDIENCE, origins["crm"]],
            certificates=certificates,
            clock=clock,
        )
        grants = Grants()
        surroundings = Surroundings(
            clock=clock,
            faults=Faults(),
            latencies=Latencies(random_seed=options.random_seed),
            traffic=Traffic(),
        )
        erp = BusinessCentral(
            erp_store,
            sign_in=sign_in,
            grants=grants,
            origin=origins["erp"],
            environment=ENVIRONMENT,
            webhooks=self.erp_webhooks,
            switches=switches,
        )
        crm = Dataverse(
            crm_store,
            sign_in=sign_in,
            grants=grants,
            origin=origins["crm"],
            webhooks=self.crm_webhooks,
            switches=switches,
        )
        if is_new:
            plant(erp, crm, identities, options.seed, scale=options.scale, folder=options.data)
        else:
            complete(erp, crm, identities)
        plant_roles(crm.records)
        plant_rules(crm.records)
        self.crm_webhooks.jobs.end_those_of_the_last_run()
        environments = {ENVIRONMENT: erp}
        for name in options.environments:
            if not _ENVIRONMENT_NAME.fullmatch(name) or name in environments:
                raise SandboxError(
                    f"an environment cannot be called '{name}', or there is one already",
                    next_step="choose letters, digits, - and _, 30 at most",
                )
            store = Store(f"erp/{name}", database, clock, random_seed=options.random_seed)
            is_set_up = not store.is_empty()
            environments[name] = BusinessCentral(
                store,
                sign_in=sign_in,
                grants=grants,
                origin=origins["erp"],
                environment=name,
                webhooks=ErpWebhooks(store, notifier, switches, self.erp_webhooks.settings),
                switches=switches,
            )
            if is_set_up:
                complete_environment(environments[name])
            else:
                plant_environment(environments[name], crm, identities, name)
        switches.set(options.switches)  # after planting: what a seed holds does not depend on them
        self._environments = environments
        if options.latency_ms:
            surroundings.latencies.add([{"system": system, "ms": options.latency_ms} for system in ("erp", "crm")])
        limits: dict[str, BusinessCentralLimits | DataverseLimits] = {
            "erp": BusinessCentralLimits(LimitSettings(on=options.limits)),
            "crm": DataverseLimits(LimitSettings(on=options.limits), servers),
        }
        control = Control(
            token=kept["control_token"],
            sign_in=sign_in,
            erp=environments,
            crm=crm,
            surroundings=surroundings,
            limits=limits,
            servers=servers,
            grants=grants,
            switches=switches,
        )
        front = _Front(sign_in, control if options.control else None)
        self.endpoints = {
            "sign_in": Endpoint(front, surroundings, limits=None),
            "erp": Endpoint(
                Environments(environments, tenant_id=identities.tenant_id, origin=origins["erp"], grants=grants),
                surroundings,
                limits=limits["erp"],
                most=BodyLimit(ERP_BODY, erp.too_long),
                origin=origins["erp"],
            ),
            "crm": Endpoint(crm, surroundings, limits=limits["crm"], origin=origins["crm"]),
        }
        self.info = {
            "sign_in": {"authority": sign_in.authority, "tenant_id": identities.tenant_id},
            "erp": {
                "base_url": erp.base_url,
                "scope": f"{AUDIENCE}/.default",
                "client_id": applications["erp"].client_id,
                "client_secret": applications["erp"].client_secret,
                "company_id": identities.company_id,
                "other_app": _credentials(applications["erp_other"]),
                "environments": {
                    name: {"base_url": each.base_url, "company_id": each.records.companies()[0]["id"]}
                    for name, each in environments.items()
                },
            },
            "crm": {
                "base_url": f"{origins['crm']}{CRM_PATH}",
                "scope": f"{origins['crm']}/.default",
                "client_id": applications["crm"].client_id,
                "client_secret": applications["crm"].client_secret,
                "other_app": _credentials(applications["crm_other"]),
            },
            "ca_file": None if options.plain_http else str(certificates.ca_file.resolve()),
            "control_url": f"{origins['sign_in']}{control_endpoint.PATH}" if options.control else None,
            "control_token": kept["control_token"] if options.control else None,
        }

    def close(self) -> None:
        """Nobody is told anything from now on."""
        for environment in self._environments.values():
            environment.webhooks.close()
        self.crm_webhooks.close()


class _Front:
    """Sign-in and control share a port; control calls are neither counted as a system's nor hit by its faults."""

    system = "sign_in"

    def __init__(self, sign_in: SignIn, control: Control | None) -> None:
        self._sign_in = sign_in
        self._control = control
        self.caller = sign_in.caller
        self.refused = sign_in.refused
        self.failed = sign_in.failed

    def weight(self, request: Request) -> int:  # noqa: ARG002 - the sign-in has no limits
        return 1

    def target(self, request: Request) -> str:
        return EXEMPT if self._is_control(request) else self._sign_in.target(request)

    def handle(self, request: Request) -> Reply:
        if self._control is not None and self._is_control(request):
            return self._control.handle(request)
        return self._sign_in.handle(request)

    @staticmethod
    def _is_control(request: Request) -> bool:
        return request.path.startswith(control_endpoint.PATH + "/")


class _QuietServer(uvicorn.Server):
    """Leaves signals to us: three servers share the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _run_servers(
    options: SandboxOptions,
    machine: _Machine,
    sockets: dict[str, socket.socket],
    certificates: Certificates,
    ready: Callable[[dict[str, Any]], None],
    stopping: threading.Event,
    *,
    signals: bool,
) -> None:
    servers: list[_QuietServer] = []
    for endpoint in machine.endpoints.values():
        config = uvicorn.Config(
            endpoint,
            http=CuttableProtocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="critical",
            server_header=False,
            date_header=False,  # uvicorn's is made once a second, and later where the process is busy
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
            ssl_certfile=None if options.plain_http else str(certificates.server_chain),
            ssl_keyfile=None if options.plain_http else str(certificates.server_key),
        )
        servers.append(_QuietServer(config))
    tasks = [
        asyncio.create_task(server.serve(sockets=[bound]))
        for server, bound in zip(servers, sockets.values(), strict=True)
    ]
    stop = asyncio.Event()
    if signals:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    while not all(server.started for server in servers):
        await asyncio.sleep(0.005)
        for task in tasks:
            if task.done():
                task.result()
                raise SandboxError("a server of the sandbox ended at its start")
    ready(machine.info)
    while not stop.is_set() and not stopping.is_set():
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), timeout=0.05)
    machine.close()
    for server in servers:
        server.should_exit = True
        for connection in list(server.server_state.connections):
            if isinstance(connection, CuttableProtocol) and connection.is_idle():
                connection.transport.abort()  # a polite end of TLS waits for the other side
    await asyncio.gather(*tasks)


def _credentials(application: Application) -> dict[str, str]:
    return {"client_id": application.client_id, "client_secret": application.client_secret}


def _bind(options: SandboxOptions, kept: dict[str, Any]) -> dict[str, socket.socket]:
    asked = {"sign_in": options.sign_in_port, "erp": options.erp_port, "crm": options.crm_port}
    sockets: dict[str, socket.socket] = {}
    for name, port in asked.items():
        last = kept.get("ports", {}).get(name, 0)
        try:
            sockets[name] = _listen(options.host, port) if port else _listen_again(options.host, last)
        except (OSError, OverflowError) as error:
            for bound in sockets.values():
                bound.close()
            raise _not_listening(options.host, port, error) from error
    return sockets


def _not_listening(host: str, port: int, error: OSError | OverflowError) -> SandboxError:
    if isinstance(error, socket.gaierror) or getattr(error, "errno", None) == errno.EADDRNOTAVAIL:
        return SandboxError(f"{host} is no address of this machine", next_step="name one in --host, as 127.0.0.1")
    reason = "is taken" if getattr(error, "errno", None) == errno.EADDRINUSE else f"cannot be had: {error}"
    return SandboxError(f"port {port} {reason}", next_step="choose another port, or 0 for a free one")


def _listen_again(host: str, last: int) -> socket.socket:
    """At the port of the last time, or at a free one if somebody has it by now."""
    try:
        return _listen(host, last)
    except OSError:
        return _listen(host, 0)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY only on these
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen()  # now: until it listens, Linux may give the port to another socket that may reuse it, too
    except (OSError, OverflowError):
        bound.close()
        raise
    return bound


def _read_kept(state_dir: Path) -> dict[str, Any]:
    try:
        kept = json.loads((state_dir / "sandbox.json").read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _write_kept(state_dir: Path, kept: dict[str, Any]) -> None:
    path = state_dir / "sandbox.json"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(kept, file, indent=1)
