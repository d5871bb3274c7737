"""What `drawbar up` does: bus, sandbox and stages as one supervised group of processes.

The order of a start: bus and sandbox side by side, then topics, then the stages. Once every stage consumes, the
connection file is written, and kept true from then on. The end takes the other way: stages, sandbox, bus.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from confluent_kafka import KafkaException

from drawbar.bus import docker, embedded
from drawbar.bus.apache import free_port, prepare
from drawbar.bus.clients import make_admin, wait_for_broker
from drawbar.bus.supervisor import ChildSpec, Supervisor
from drawbar.bus.topics import apply
from drawbar.cli.connection import remove_connection, write_connection
from drawbar.metrics import serve_installation
from drawbar.settings import RegistrySettings, Settings, interpreter, secret_of
from drawbar.status import Beat, BeatReader, brake_text, brakes_on
from schemas.errors import BusError, BusStartFailed, BusUnavailable, DrawbarError, SettingsError, UsageError
from schemas.topics import PAIRS_WORK, TOPICS

STOP_ORDER = ("capture", "sink-erp", "sink-crm", "process", "sandbox", "kafka", "embedded", "docker")
STARTS_TO_GIVE_UP = 3  # of the bus or the sandbox without an answer: it is not the machine that is slow
LOG_MAX_BYTES = 20_000_000  # a log that is longer at a start is put aside, one generation
SILENT_AFTER_S = 5.0  # no process said anything for so long: the bus may be away
SAY_PROGRESS_EVERY_S = 5.0
SANDBOX_PARTITIONS = 4

T = TypeVar("T")
Say = Callable[[str, str], None]  # who, what


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """How the sandbox is to be started. `db` None: a file in the state folder."""

    seed: str = "demo"
    scale: int = 1
    data: Path | None = None
    db: Path | None = None
    plain_http: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to run. `settings.bus.bootstrap_servers` blank: a bus of our own, as `bus` says.

    `bus` None: an Apache Kafka, or where it cannot be had and nothing was kept yet, the embedded bus.
    """

    settings: Settings
    entities: Callable[[Settings], Collection[str]]  # what capture reads, `erp.customer`, once the broker answers
    sandbox: Sandbox | None = None
    connection_file: Path | None = None
    processes: Mapping[str, int] = field(default_factory=dict)  # stage -> how many; 1 where it is not named
    partitions: int | None = None  # None: those of the topics that are there, else the setting
    bus: Literal["kafka", "embedded", "docker"] | None = None

    @property
    def state_dir(self) -> Path:
        return self.settings.state_dir.resolve()


class Installation:
    """One `drawbar up`. `run` belongs to the main thread: the children end with it, whatever happens to it."""

    def __init__(self, plan: Plan, say: Say) -> None:
        self._plan = plan
        self._say = say
        self._supervisor = Supervisor(stop_order=STOP_ORDER, on_change=self._changed)
        self._settings = plan.settings
        self._connection: dict[str, Any] = {}
        self._is_written = False
        self._pids: dict[str, list[int]] = {}
        self._starts: dict[str, int] = {}
        self._logs: dict[str, list[tuple[Path, int]]] = {}
        self._entities: Collection[str] = ()
        self._beats: BeatReader | None = None
        self._keeps_nothing = False  # the bus forgets everything with its process
        self._client_options: Mapping[str, str] = {}  # what clients of this bus are to be told

    def run(self) -> int:
        """Start everything, keep it running until SIGTERM or SIGINT, end it. The exit code.

        Raises UsageError when another one runs on this state folder, SettingsError, AccessError or BusError when it
        cannot start.
        """
        state_dir = self._plan.state_dir
        _make_private(state_dir)
        with _alone_in(state_dir), self._supervisor.on_signals():
            if self._plan.connection_file is not None:
                remove_connection(self._plan.connection_file)
            try:
                self._bring_up()
                self._keep()
            except _Stopped:
                pass
            finally:
                self._say("up", "ending: stages, then " + ("sandbox and bus" if self._plan.sandbox else "bus"))
                self._supervisor.stop()
                if self._beats is not None:
                    self._beats.close()
                if self._plan.connection_file is not None:
                    remove_connection(self._plan.connection_file)
        if self._supervisor.gave_up:
            return next(iter(self._supervisor.gave_up.values()))
        self._say("up", "ended")
        return 0

    # --- start ----------------------------------------------------------------------------------------------------

    def _bring_up(self) -> None:
        plan = self._plan
        self._say("up", f"state and logs in {_short(plan.state_dir)}")
        bootstrap = self._settings.bus.bootstrap_servers or self._start_bus()
        bus: dict[str, Any] = {"bootstrap_servers": bootstrap}
        if self._client_options:
            bus["librdkafka"] = {**self._settings.bus.librdkafka, **self._client_options}
        info = self._start_sandbox(plan.sandbox) if plan.sandbox is not None else None
        self._await_broker(bootstrap)
        self._connection = {"bootstrap_servers": bootstrap}
        if info is not None:
            self._await(info.exists, "sandbox")
            self._connection |= _read_json(info)
            self._say("sandbox", f"ERP {self._connection['erp']['base_url']}")
            self._say("sandbox", f"CRM {self._connection['crm']['base_url']}")
        else:
            self._connection |= _systems(self._settings)
        bus["partitions"] = self._with_bus(lambda: self._partitions(bootstrap))
        if self._settings.registry.url:
            self._connection["registry"] = _registry(self._settings.registry)
        if self._client_options:
            self._connection["librdkafka"] = dict(self._client_options)
        self._connection |= {"state_dir": str(plan.state_dir), "partitions": bus["partitions"]}
        self._settings = _with(self._settings, bus, self._connection if info is not None else None)
        self._sign_in()
        self._with_bus(self._apply_topics)
        self._with_bus(self._tell_of_folder)
        self._entities = self._with_bus(lambda: plan.entities(self._settings))
        self._with_bus(self._apply_schemas)
        self._start_stages()

    def _start_bus(self) -> str:
        if self._plan.bus == "embedded":
            return self._start_embedded()
        if self._plan.bus == "docker":
            return self._start_docker()
        try:
            return self._start_kafka()
        except BusUnavailable as cannot:
            if self._plan.bus is not None or self._plan.sandbox is None or self._has_state():
                raise
            self._say("bus", f"{cannot.message}: going on with the embedded bus")
            return self._start_embedded()

    def _has_state(self) -> bool:
        """Whether an earlier start on this state folder left messages or records."""
        folder = self._plan.state_dir
        return (folder / "kafka" / "data").exists() or self._sandbox_db().exists()

    def _start_embedded(self) -> str:
        self._keeps_nothing = True
        self._client_options = embedded.CLIENT_OPTIONS
        prepared = embedded.prepare()
        self._say("bus", f"embedded (Tansu), {embedded.LIMITS}")
        self._add(
            ChildSpec(stage="embedded", argv=prepared.argv, env=prepared.env, log_path=self._log_path("embedded"))
        )
        return prepared.bootstrap_servers

    def _start_docker(self) -> str:
        prepared = docker.prepare()
        self._say("bus", f"Apache Kafka in a container ({docker.IMAGE}), kept with it until `drawbar up` ends")
        self._add(ChildSpec(stage="docker", argv=prepared.argv, env=prepared.env, log_path=self._log_path("docker")))
        return prepared.bootstrap_servers

    def _start_kafka(self) -> str:
        def progress(done: int, total: int) -> None:
            if total and (done == total or done * 4 // total != progress_quarter[0]):
                progress_quarter[0] = done * 4 // total
                self._say("kafka", f"fetching Apache Kafka: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

        progress_quarter = [-1]
        prepared = prepare(self._plan.state_dir / "kafka", on_progress=progress)
        self._add(
            ChildSpec(stage="kafka", argv=prepared.argv, env=prepared.env, log_path=prepared.output_path),
        )
        return prepared.bootstrap_servers

    def _start_sandbox(self, sandbox: Sandbox) -> Path:
        folder = self._plan.state_dir / "sandbox"
        _make_private(folder)
        info = folder / "reach.json"
        db = self._sandbox_db()
        if self._keeps_nothing and sandbox.db is None:
            for left in folder.glob(f"{db.name}*"):  # by an earlier system whose couplings are gone
                left.unlink()
        argv = [*interpreter(), "sandbox", "--state-dir", str(folder), "--db", str(db), "--seed", sandbox.seed]
        argv += ["--scale", str(sandbox.scale)] if sandbox.seed == "large" else []
        argv += ["--data", str(sandbox.data)] if sandbox.data is not None else []
        for name, port in _sandbox_ports(folder).items():
            argv += [f"--{name.replace('_', '-')}-port", str(port)]
        if sandbox.plain_http:
            argv.append("--plain-http")
        self._add(
            ChildSpec(
                stage="sandbox",
                argv=(*argv, "--connection-file", str(info)),
                env=_environment({}),
                log_path=self._log_path("sandbox"),
                ready_file=info,
            )
        )
        return info

    def _sandbox_db(self) -> Path:
        """Where the sandbox keeps its records; those beside a bus that keeps nothing are of that start alone."""
        given = self._plan.sandbox.db if self._plan.sandbox is not None else None
        name = "of-one-start.sqlite" if self._keeps_nothing else "sandbox.sqlite"
        return given.resolve() if given is not None else self._plan.state_dir / "sandbox" / name

    def _await_broker(self, bootstrap: str) -> None:
        said = False

        def waiting(waited_s: float) -> None:
            nonlocal said
            self._tick()
            if self._starts.get("kafka", 0) > STARTS_TO_GIVE_UP:
                raise BusStartFailed(
                    f"the broker ended {STARTS_TO_GIVE_UP} times before it answered",
                    where=str(self._plan.state_dir / "kafka" / "logs"),
                )
            if waited_s >= 2 and not said and not self._pids.keys() & {"kafka", "embedded", "docker"}:
                said = True
                self._say("bus", f"waiting for the broker at {bootstrap}")

        begun = time.monotonic()
        wait_for_broker(bootstrap, self._settings.bus.extra, on_wait=waiting)
        self._say("bus", f"answers at {bootstrap} after {time.monotonic() - begun:.1f} s")

    def _partitions(self, bootstrap: str) -> int:
        """The number asked for; where none is, that of the topics that are there, else the setting."""
        bus = self._settings.bus
        if self._plan.partitions is not None:
            return self._plan.partitions
        admin = make_admin(bootstrap, client_id="drawbar-up", extra=bus.extra)
        try:
            there = admin.list_topics(timeout=10).topics.get(PAIRS_WORK)
        except KafkaException as failed:
            raise BusUnavailable(f"the topics cannot be listed: {failed.args[0].name()}") from failed
        if there is not None and there.partitions:
            return len(there.partitions)
        is_set = "partitions" in bus.model_fields_set
        return SANDBOX_PARTITIONS if self._plan.sandbox is not None and not is_set else bus.partitions

    def _sign_in(self) -> None:
        """Stop here when a system does not let us in; later it would be an outage and waited for."""
        from drawbar.odata import adapter_for, open_http
        from schemas.records import System

        for system in System:
            adapter_for(self._settings, system)
            http = open_http(self._settings, system)
            try:
                http.sign_in()
            finally:
                http.close()

    def _apply_topics(self) -> None:
        bus = self._settings.bus
        admin = make_admin(bus.bootstrap_servers, client_id="drawbar-up", extra=bus.extra)
        done = apply(admin, TOPICS, partitions=bus.partitions, replication_factor=bus.replication_factor)
        if done.missing:
            self._say("bus", f"{len(done.missing)} topics made, {bus.partitions} partitions for pairs")

    def _apply_schemas(self) -> None:
        if not self._settings.registry.url:
            return
        from drawbar.cli.schemas import schemas_in_force
        from drawbar.registry import Registry

        with Registry(self._settings.registry) as registry:
            registry.await_there()
            done = registry.apply(schemas_in_force(self._settings))
        count = sum(one.what in ("new", "changed") for one in done)
        if count:
            self._say("registry", f"{count} schemas registered")

    def _start_stages(self) -> None:
        commands: dict[str, Sequence[str]] = {
            "process": ("process",),
            "sink-erp": ("sink", "--system", "erp"),
            "sink-crm": ("sink", "--system", "crm"),
            "capture": ("capture", "run"),
        }
        port = self._settings.log.metrics_port
        if port:
            serve_installation(self._settings, lambda: self._plan.entities(self._settings))
            self._say("up", f"metrics of all on port {port}")
        for stage, command in commands.items():
            for number in range(self._plan.processes.get(stage, 1)):
                values = _to_environment(self._settings, with_systems=self._plan.sandbox is not None)
                if port:
                    port += 1
                    values["DRAWBAR_LOG__METRICS_PORT"] = str(port)
                    self._say(stage, f"metrics on port {port}")
                self._add(
                    ChildSpec(
                        stage=stage,
                        argv=(*interpreter(), *command),
                        env=_environment(values),
                        log_path=self._log_path(stage, number),
                    )
                )

    # --- while it runs --------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        bus = self._settings.bus
        self._beats = self._with_bus(lambda: BeatReader(bus))
        watch = _BusWatch(bus.bootstrap_servers, lambda: _answers(self._settings), self._say)
        progress = _Progress(self._say)
        while True:
            self._tick()
            heard = self._beats.poll(0.05)
            beats = self._beats.beats()
            if not self._is_written and self._consumes(beats):
                self._ready()
            watch.look(heard=heard)
            if self._is_written:
                progress.look(beats)

    def _consumes(self, beats: Sequence[Beat]) -> bool:
        """Whether every process that we started does its work, and every entity is captured by one of them."""
        for stage in ("capture", "process", "sink-erp", "sink-crm"):
            ours = set(self._pids.get(stage, ()))
            if len(ours) != self._plan.processes.get(stage, 1):
                return False
            if ours - {beat.pid for beat in beats if beat.stage == stage and beat.state == "running"}:
                return False
        captured = {
            entity
            for beat in beats
            if beat.pid in self._pids["capture"]
            for entity, look in beat.entities.items()
            if look.get("state") != "waiting"
        }
        return captured.issuperset(self._entities)

    def _ready(self) -> None:
        self._is_written = True
        self._write()
        self._say(
            "up", "every stage consumes" + (": observing, nothing is written" if self._plan.settings.observe else "")
        )
        if self._plan.connection_file is not None:
            self._say("up", f"connection file {_short(self._plan.connection_file.resolve())}")
        self._say("up", "Ctrl-C ends it")

    def _write(self) -> None:
        if self._plan.connection_file is not None:
            write_connection(self._plan.connection_file, {**self._connection, "pids": self._pids})

    def _tick(self) -> None:
        """Start again what died. Raises _Stopped when it is to end, and what makes going on pointless."""
        self._supervisor.tick()
        if self._supervisor.stopping:
            raise _Stopped
        if self._keeps_nothing and not self._pids.get("embedded"):
            raise BusStartFailed(
                f"the embedded bus ended, and all that it held with it: {_last_words(self._logs['embedded'])}",
                where=str(self._logs["embedded"][0][0]),
                next_step="start the system again; on Apache Kafka (--bus kafka) it would have gone on",
            )
        for stage in self._supervisor.gave_up:
            self._say(stage, f"cannot start: {_last_words(self._logs[stage])}")
            raise _Stopped

    def _tell_of_folder(self) -> None:
        """The folder in the settings is read once, at the first start of a system: whoever edits it later is told."""
        from drawbar.cli.in_force import put_in_force_by
        from drawbar.mapping_sets import read_sets

        folder, found = self._settings.mappings_dir, read_sets(self._settings.bus).in_force
        if found is not None and (next_step := put_in_force_by(folder, found)) is not None:
            self._say("mappings", f"{folder} is not what is in force, and changes nothing by itself: {next_step}")

    def _with_bus(self, work: Callable[[], T]) -> T:
        """What `work` returns, once the bus answers it: a broker that is away just now is waited for."""
        while True:
            self._tick()
            try:
                return work()
            except BusUnavailable as away:
                self._say("bus", f"waiting: {away.message}")
                time.sleep(1)

    def _await(self, is_there: Callable[[], bool], stage: str) -> None:
        while not is_there():
            self._tick()
            if self._starts.get(stage, 0) > STARTS_TO_GIVE_UP:
                raise DrawbarError(
                    f"the {stage} does not start: {_last_words(self._logs[stage])}", where=str(self._logs[stage][0][0])
                )
            time.sleep(0.02)

    def _add(self, spec: ChildSpec) -> None:
        at = spec.log_path.stat().st_size if spec.log_path.exists() else 0
        self._logs.setdefault(spec.stage, []).append((spec.log_path, at))
        self._supervisor.add(spec)

    def _changed(self, pids: dict[str, list[int]]) -> None:
        """Say who came and who went, and keep the connection file true."""
        for stage, now in pids.items():
            before = self._pids.get(stage, [])
            for pid in before:
                if pid not in now and not self._supervisor.stopping:
                    again = "" if stage == "embedded" else "; it is started again"
                    self._say(stage, f"process {pid} ended{again}")
            for pid in now:
                if pid not in before:
                    self._starts[stage] = self._starts.get(stage, 0) + 1
                    self._say(stage, f"process {pid} started")
        self._pids = pids
        if self._is_written and not self._supervisor.stopping:
            self._write()

    def _log_path(self, stage: str, number: int = 0) -> Path:
        path = self._plan.state_dir / "logs" / f"{stage}{f'-{number + 1}' if number else ''}.log"
        if path.exists() and path.stat().st_size > LOG_MAX_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return path


class _Stopped(Exception):
    """Asked to end, or nothing to go on with."""


class _BusWatch:
    """Says when the bus is away and when it is back; the stages wait for it by themselves."""

    def __init__(self, bootstrap: str, answers: Callable[[], bool], say: Say) -> None:
        self._bootstrap = bootstrap
        self._answers = answers
        self._say = say
        self._heard_at = time.monotonic()
        self._is_away = False

    def look(self, *, heard: bool) -> None:
        now = time.monotonic()
        if heard:
            self._heard_at = now
        if heard and self._is_away:
            self._is_away = False
            self._say("bus", f"the broker at {self._bootstrap} is back")
        if now - self._heard_at > SILENT_AFTER_S and not self._is_away:
            self._heard_at = now
            if not self._answers():
                self._is_away = True
                self._say("bus", f"no answer from {self._bootstrap}: waiting; nothing is lost")


class _Progress:
    """Says how many records were written since it last said so, and which brakes went on or off."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._said_at = time.monotonic()
        self._said: dict[str, int] = {}
        self._brakes: tuple[str, ...] = ()

    def look(self, beats: Sequence[Beat]) -> None:
        if time.monotonic() - self._said_at < SAY_PROGRESS_EVERY_S:
            return
        self._said_at = time.monotonic()
        for stage, target in (("sink-crm", "CRM"), ("sink-erp", "ERP")):
            counts = [beat.details.get("counts") or {} for beat in beats if beat.stage == stage]
            written = sum(count.get("written", 0) + count.get("deleted", 0) for count in counts)
            more = written - self._said.get(stage, 0)
            if more > 0:
                self._say(stage, f"{more} written to the {target}, {written} in all")
            self._said[stage] = written
        brakes = tuple(brake_text(brake) for brake in brakes_on(beats))
        for text in (text for text in brakes if text not in self._brakes):
            self._say("process", text)
        if self._brakes and not brakes:
            self._say("process", "nothing is paused or stopped any more")
        self._brakes = brakes


@contextmanager
def _alone_in(state_dir: Path) -> Iterator[None]:
    """Hold the state folder. Raises UsageError when another process does."""
    with (state_dir / "up.lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as fault:
            file.seek(0)
            raise UsageError(
                f"another `drawbar up` runs on this state folder (process {file.read().strip() or 'unknown'})",
                where=str(state_dir),
                next_step="end that one, or give this one a folder of its own with --state-dir",
            ) from fault
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _make_private(folder: Path) -> None:
    """Raises SettingsError when it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as fault:
        raise SettingsError(f"the state folder cannot be made: {fault.strerror}", where=str(folder)) from fault


def _sandbox_ports(folder: Path) -> dict[str, int]:
    """The ports of the last time; else free ones, below those that outgoing connections are given."""
    kept = _read_json(folder / "sandbox.json").get("ports", {}) if (folder / "sandbox.json").exists() else {}
    ports: dict[str, int] = {}
    for name in ("sign_in", "erp", "crm"):
        port = kept.get(name)
        while not port or port in ports.values():
            port = free_port()
        ports[name] = port
    return ports


def _systems(settings: Settings) -> dict[str, Any]:
    """What the connection file says of systems that the settings name."""
    connection: dict[str, Any] = {
        "sign_in": {"authority": settings.sign_in.authority, "tenant_id": settings.sign_in.tenant_id}
    }
    for name, part in (("erp", settings.erp), ("crm", settings.crm)):
        secret = part.client_secret.get_secret_value() if part.client_secret else None
        connection[name] = {
            "base_url": part.base_url,
            "scope": part.scope,
            "client_id": part.client_id,
            "client_secret": secret,
        }
    connection["erp"]["company_id"] = settings.erp.company_id
    connection["ca_file"] = str(settings.ca_file) if settings.ca_file else None
    return connection


def _with(settings: Settings, bus: Mapping[str, Any], connection: Mapping[str, Any] | None) -> Settings:
    """The settings with this bus and, from a connection file's object, these systems."""
    from drawbar.settings import from_connection, load_settings

    values: dict[str, Any] = {} if connection is None else from_connection(connection)
    values["bus"] = dict(bus)
    values["state_dir"] = settings.state_dir.resolve()
    values["observe"] = settings.observe
    return load_settings(None, **values)


def _registry(registry: RegistrySettings) -> dict[str, str]:
    """Where the schemas are: without them nobody reads the topics. The file is for its owner alone."""
    said = {
        "url": registry.url,
        "user": registry.user,
        "password": secret_of(registry.password, registry.password_file, "registry.password"),
        "ca_file": str(registry.ca_file.resolve()) if registry.ca_file is not None else "",
    }
    return {name: value for name, value in said.items() if value}


def _to_environment(settings: Settings, *, with_systems: bool) -> dict[str, str]:
    """What a stage has to be told besides what it reads by itself: environment and drawbar.toml are the same for it."""
    values = {
        "DRAWBAR_BUS__BOOTSTRAP_SERVERS": settings.bus.bootstrap_servers,
        "DRAWBAR_BUS__PARTITIONS": str(settings.bus.partitions),
        "DRAWBAR_STATE_DIR": str(settings.state_dir),
        "DRAWBAR_OBSERVE": "true" if settings.observe else "false",
    }
    if settings.bus.librdkafka:
        values["DRAWBAR_BUS__LIBRDKAFKA"] = json.dumps(settings.bus.librdkafka)
    if not with_systems:
        return values
    values |= {
        "DRAWBAR_SIGN_IN__AUTHORITY": settings.sign_in.authority,
        "DRAWBAR_SIGN_IN__TENANT_ID": settings.sign_in.tenant_id,
        "DRAWBAR_SIGN_IN__INSTANCE_DISCOVERY": "true" if settings.sign_in.instance_discovery else "false",
        "DRAWBAR_ERP__COMPANY_ID": settings.erp.company_id,
    }
    if settings.ca_file is not None:
        values["DRAWBAR_CA_FILE"] = str(settings.ca_file)
    for name, part in (("ERP", settings.erp), ("CRM", settings.crm)):
        values |= {
            f"DRAWBAR_{name}__BASE_URL": part.base_url,
            f"DRAWBAR_{name}__SCOPE": part.scope,
            f"DRAWBAR_{name}__CLIENT_ID": part.client_id,
            f"DRAWBAR_{name}__CLIENT_SECRET": part.client_secret.get_secret_value() if part.client_secret else "",
        }
    return values


def _environment(values: Mapping[str, str]) -> dict[str, str]:
    """Ours, without the connection file, which is of the system that is only being made, and with `values`."""
    ours = {name: value for name, value in os.environ.items() if name != "DRAWBAR_CONNECTION_FILE"}
    return {**ours, "PYTHONUNBUFFERED": "1", **values}


def _answers(settings: Settings) -> bool:
    try:
        wait_for_broker(settings.bus.bootstrap_servers, settings.bus.extra, give_up_after_s=0)
    except BusError:
        return False
    return True


def _read_json(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return loaded


def _last_words(logs: Sequence[tuple[Path, int]]) -> str:
    """The coded error that a stage ended with, or the last line it wrote, and where the rest is."""
    for path, start in logs:
        with path.open("rb") as file:
            file.seek(start)
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
        coded = [number for number, line in enumerate(lines) if line.startswith("DRW-")]
        if coded:
            return "\n".join(lines[coded[-1] : coded[-1] + 3])
        if lines:
            return f"{lines[-1][:300]} (log: {_short(path)})"
    return f"it said nothing (log: {_short(logs[0][0])})"


def _short(path: Path) -> str:
    """As seen from the working folder, where that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)
