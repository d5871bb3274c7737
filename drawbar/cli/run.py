"""Commands that run something: the whole system, one stage, the bus alone, the sandbox alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, cast

import typer

from drawbar.cli.shared import ConnectionFile, new_app, open_running, open_settings, say
from schemas.errors import SettingsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from consumers.worker import DeadLetter
    from drawbar.cli.in_force import InForce
    from drawbar.sandbox.seeds.planting import Kind
    from drawbar.settings import Settings
    from processors.mapping import EntityMapping
    from schemas.records import System

OWN_BUSES = ("kafka", "embedded", "docker")  # what `--bus` starts on this machine; anything else is an address

capture_app = new_app("Find changes in both systems; confirm deletes that stopped an entity.")

Kept = Annotated[
    Optional[Path],
    typer.Option("--db", help="SQLite file that keeps the sandbox's data.", show_default="in the state folder"),
]

SeedKind = Annotated[str, typer.Option("--seed", help="What a new sandbox holds: demo, empty or large.")]
Scale = Annotated[int, typer.Option("--scale", min=1, help="Of the seed large: thousands of customers.")]
DataFolder = Annotated[
    Optional[Path], typer.Option("--data", help="Folder of CSV or JSON files with more data for a new sandbox.")
]


def up(
    sandbox: Annotated[bool, typer.Option("--sandbox", help="Start a Business Central and a Dataverse, too.")] = False,
    seed: SeedKind = "demo",
    scale: Scale = 1,
    data: DataFolder = None,
    bus: Annotated[
        Optional[str],
        typer.Option(
            "--bus",
            metavar="kafka|embedded|docker|HOST:PORT",
            help="An Apache Kafka here, Tansu in memory, a container, or your brokers.",
            show_default="the brokers in the settings, else kafka",
        ),
    ] = None,
    connection_file: Annotated[
        Optional[Path],
        typer.Option("--connection-file", help="Write how to reach the system there, once every stage consumes."),
    ] = None,
    observe: Annotated[bool, typer.Option("--observe", help="Decide and journal, write nothing.")] = False,
    state_dir: Annotated[
        Optional[Path],
        typer.Option("--state-dir", help="Folder for local state and logs.", show_default=".drawbar"),
    ] = None,
    capture: Annotated[int, typer.Option("--capture", min=1, max=16, help="Capture processes.")] = 1,
    process: Annotated[int, typer.Option("--process", min=1, max=16, help="Processes that route and decide.")] = 1,
    sinks: Annotated[int, typer.Option("--sinks", min=1, max=16, help="Sink processes per system.")] = 1,
    partitions: Annotated[
        Optional[int],
        typer.Option(
            "--partitions",
            min=1,
            help="Partitions of the pair topics, fixed when they are made.",
            show_default="24, with --sandbox 4",
        ),
    ] = None,
    db: Kept = None,
    plain_http: Annotated[bool, typer.Option("--plain-http", help="Serve the sandbox without TLS.")] = False,
) -> None:
    """Start bus and every stage, start again what dies, and drain all of it on Ctrl-C or SIGTERM.

    Started again on the same state folder, it goes on where it was.

    Example: drawbar up --sandbox --connection-file connection.json
    """
    from drawbar.cli.in_force import captured_names
    from drawbar.cli.installation import Installation, Plan, Sandbox
    from drawbar.log import set_up_log
    from drawbar.settings import LogSettings

    _check_seed(seed, scale)
    if not sandbox and (db is not None or plain_http or seed != "demo" or data is not None):
        raise UsageError("--seed, --data, --db and --plain-http are about the sandbox", next_step="add --sandbox")
    own: Any = bus if bus in OWN_BUSES else None
    if own == "embedded" and not sandbox:
        raise UsageError(
            "the embedded bus keeps nothing, couplings neither: it is for the sandbox",
            next_step="add --sandbox, or use --bus kafka or your brokers",
        )
    overrides: dict[str, Any] = {"observe": True} if observe else {}
    if state_dir is not None:
        overrides["state_dir"] = state_dir
    settings = _settings_of_a_new_system(overrides, bus)
    set_up_log(LogSettings(level="error", format=settings.log.format))  # what happens is told in lines of its own
    _check_folder(settings)
    if not sandbox:
        _check_systems(settings)
    plan = Plan(
        settings=settings,
        bus=own,
        entities=captured_names,
        sandbox=Sandbox(seed=seed, scale=scale, data=data, db=db, plain_http=plain_http) if sandbox else None,
        connection_file=connection_file,
        processes={"capture": capture, "process": process, "sink-erp": sinks, "sink-crm": sinks},
        partitions=partitions,
    )
    code = Installation(plan, _line).run()
    if code:
        raise typer.Exit(code)


@capture_app.command("run")
def run_capture_stage(connection_file: ConnectionFile = None) -> None:
    """Poll both systems and publish what changed, until SIGTERM. Several may run: each entity has one owner.

    Example: drawbar capture run --connection-file connection.json
    """
    settings = _stage(connection_file, "capture")
    with _at_work(settings, "capture") as files:
        from processors.mapping_files import looked_up_only
        from producers.worker import run_capture

        mappings = files.mappings
        run_capture(
            settings,
            entities=_entities(mappings),
            reference=looked_up_only(mappings.values()),
            mappings_version=files.version,
        )


@capture_app.command("confirm-deletes")
def confirm_deletes(
    entity: Annotated[str, typer.Argument(metavar="ENTITY", help="Such as erp.customer or account.")],
    connection_file: ConnectionFile = None,
) -> None:
    """Let capture publish the deletes for which it stopped an entity, however many they are.

    Example: drawbar capture confirm-deletes erp.customer
    """
    meant = _captured(entity)
    settings = open_running(connection_file)
    from drawbar.hints import send_hints

    send_hints(settings.bus, meant, kind="confirm-deletes")
    say(f"{'.'.join(meant[0])}: confirmed; the deletes are published with the next look")


@capture_app.command("anew")
def capture_anew(
    entities: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="ENTITY", help="Such as erp.customer; none: every entity.", show_default=False),
    ] = None,
    connection_file: ConnectionFile = None,
) -> None:
    """Have capture read an entity from its beginning and publish every record, changed or not.

    Nothing is written twice by it: what a home knows already is an echo. For a lost topic, or a restored system.

    Example: drawbar capture anew erp.customer crm.account
    """
    from schemas.topics import CAPTURED

    meant = [found for name in entities for found in _captured(name)] if entities else list(CAPTURED)
    settings = open_running(connection_file)
    from drawbar.hints import send_hints

    send_hints(settings.bus, meant, kind="anew")
    say(f"{len(meant)} of {len(CAPTURED)} entities are read anew")


def _captured(name: str) -> list[tuple[str, str]]:
    """The entities that a name means. Raises UsageError when there is none."""
    from schemas.topics import CAPTURED

    wanted = name.replace(":", ".")
    meant = [(system, known) for system, known in CAPTURED if wanted in (known, f"{system}.{known}")]
    if not meant:
        known = ", ".join(f"{system}.{known}" for system, known in CAPTURED)
        raise UsageError(f"no entity that is captured is called {name!r}", next_step=f"one of {known}")
    return meant


def process(connection_file: ConnectionFile = None) -> None:
    """Route changes and decide what they mean, until SIGTERM. Several may run: they share the partitions.

    Example: drawbar process --connection-file connection.json
    """
    settings = _stage(connection_file, "process")
    with _at_work(settings, "process") as files:
        from processors.worker import run_process

        run_process(settings, files.mappings, mappings_version=files.version)


def sink(
    system: Annotated[str, typer.Option("--system", metavar="erp|crm", help="The system that is written.")],
    connection_file: ConnectionFile = None,
) -> None:
    """Carry out the commands for one system, until SIGTERM. Several may run: they share the partitions.

    Example: drawbar sink --system crm --connection-file connection.json
    """
    if system not in ("erp", "crm"):
        raise UsageError(f"--system is erp or crm, not {system!r}")
    stage = f"sink-{system}"
    settings = _stage(connection_file, stage)
    with _at_work(settings, stage) as files:
        from consumers.worker import run_sink
        from schemas.records import System

        target = System(system)
        fields = {name: fields for (of, name), fields in _entities(files.mappings).items() if of is target}
        run_sink(settings, target, fields=fields, dead_letter=_dead_letter(stage), mappings_version=files.version)


def metrics(
    port: Annotated[
        Optional[int],
        typer.Option("--port", min=1, max=65535, help="Port.", show_default="DRAWBAR_LOG__METRICS_PORT"),
    ] = None,
    connection_file: ConnectionFile = None,
) -> None:
    """Serve the figures and the health of all stages together, until SIGTERM: /metrics for Prometheus, and /health.

    For stages that run apart, one process each; `drawbar up` serves the same by itself.

    Example: drawbar metrics --port 9464
    """
    import signal

    from drawbar.cli.in_force import captured_names
    from drawbar.log import set_up_log
    from drawbar.metrics import serve_installation

    settings = open_running(connection_file)
    set_up_log(settings.log, stage="metrics")
    if port is not None:
        settings = settings.model_copy(update={"log": settings.log.model_copy(update={"metrics_port": port})})
    if not settings.log.metrics_port:
        raise UsageError("no port to serve on", next_step="say --port, or set DRAWBAR_LOG__METRICS_PORT")
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before there are threads: they inherit it
    serve_installation(settings, lambda: captured_names(settings))
    signal.sigwait(ends)


def bus(
    bus: Annotated[str, typer.Option("--bus", metavar="kafka|embedded|docker", help="What to run.")] = "kafka",
    data_dir: Annotated[
        Optional[Path],
        typer.Option("--data-dir", help="Folder for all Kafka keeps.", show_default="kafka in the state folder"),
    ] = None,
    port: Annotated[
        Optional[int],
        typer.Option("--port", min=1, max=65535, help="Port on 127.0.0.1.", show_default="the last one, or a free one"),
    ] = None,
    heap_mb: Annotated[int, typer.Option("--heap-mb", min=64, help="Largest Java heap of Kafka, in MB.")] = 384,
) -> None:
    """Run an Apache Kafka on this machine until Ctrl-C; Java and Kafka are fetched when they are missing.

    --bus embedded runs Tansu instead, which keeps everything in memory; --bus docker Apache Kafka in a container.

    Example: drawbar bus --data-dir ./kafka --port 9092
    """
    import signal

    from drawbar.bus.apache import ApacheKafka
    from drawbar.log import set_up_log
    from drawbar.settings import LogSettings

    set_up_log(LogSettings(level="error"))

    def end(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        if bus == "kafka":
            folder = data_dir or open_settings().state_dir / "kafka"
            with ApacheKafka.start(folder, port=port, heap_mb=heap_mb) as kafka:
                _line("bus", f"Apache Kafka answers at {kafka.bootstrap_servers}")
                _line("bus", f"log {kafka.log_path}")
                code = kafka.wait()
        elif bus in OWN_BUSES:
            if data_dir is not None:
                raise UsageError(f"--data-dir is for --bus kafka: {bus} keeps nothing on this machine")
            code = _run_bus(bus, port)
        else:
            raise UsageError(f"--bus is {', '.join(OWN_BUSES)}, not {bus!r}")
        if code:
            raise typer.Exit(code if code > 0 else 1)
    except KeyboardInterrupt:
        _line("bus", "ended")


def _run_bus(kind: str, port: int | None) -> int:
    """Run an embedded broker or a container until it ends; its exit code."""
    import subprocess

    from drawbar.bus import docker, embedded
    from drawbar.bus.clients import wait_for_broker
    from drawbar.bus.tether import tethered
    from schemas.errors import BusStartFailed

    prepared = embedded.prepare(port=port) if kind == "embedded" else docker.prepare(port=port)
    process = subprocess.Popen(
        tethered(prepared.argv), env=dict(prepared.env), stdin=subprocess.DEVNULL, start_new_session=True
    )

    def waiting(_waited_s: float) -> None:
        if process.poll() is not None:
            raise BusStartFailed(f"the {kind} bus ended with {process.returncode}", next_step="see what it said above")

    try:
        wait_for_broker(prepared.bootstrap_servers, {}, on_wait=waiting)
        note = f", {embedded.LIMITS}" if kind == "embedded" else ""
        _line("bus", f"{kind} bus answers at {prepared.bootstrap_servers}{note}")
        return process.wait()
    finally:
        process.terminate()
        process.wait()


def _check_seed(seed: str, scale: int) -> Kind:
    """Raises UsageError."""
    if seed not in ("demo", "empty", "large"):
        raise UsageError(f"--seed is demo, empty or large, not {seed!r}")
    if scale != 1 and seed != "large":
        raise UsageError("--scale is about the seed large", next_step="add --seed large")
    return cast("Kind", seed)


def sandbox(
    state_dir: Annotated[
        Optional[Path],
        typer.Option("--state-dir", help="Folder for certificates and secrets.", show_default="in the state folder"),
    ] = None,
    db: Annotated[
        Optional[Path], typer.Option("--db", help="SQLite file that keeps the data.", show_default="memory")
    ] = None,
    seed: SeedKind = "demo",
    scale: Scale = 1,
    data: DataFolder = None,
    random_seed: Annotated[int, typer.Option("--random-seed", help="Ids and data follow from it.")] = 1,
    connection_file: Annotated[
        Optional[Path], typer.Option("--connection-file", help="Write how to reach it there instead of printing it.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    sign_in_port: Annotated[
        int, typer.Option("--sign-in-port", min=0, max=65535, help="0: the last one, or a free one.")
    ] = 0,
    erp_port: Annotated[int, typer.Option("--erp-port", min=0, max=65535, help="As above.")] = 0,
    crm_port: Annotated[int, typer.Option("--crm-port", min=0, max=65535, help="As above.")] = 0,
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="Without TLS, for clients that can be given no certificate authority.")
    ] = False,
    environment: Annotated[
        Optional[list[str]],
        typer.Option(
            "--environment", metavar="NAME", help="Another environment of the ERP; may be given several times."
        ),
    ] = None,
    clock: Annotated[
        Optional[str],
        typer.Option(
            "--clock",
            metavar="WHEN",
            help="What time it is there at the start: 2026-03-02T09:00, or so long ago, as 3d.",
            show_default="as here",
        ),
    ] = None,
    switch: Annotated[
        Optional[list[str]],
        typer.Option(
            "--switch",
            metavar="NAME=VALUE",
            help="An answer to what the references leave open, see docs/sandbox.md; may be given several times.",
        ),
    ] = None,
    limits: Annotated[bool, typer.Option("--limits/--no-limits", help="Throttle as the services do.")] = True,
    servers: Annotated[
        int, typer.Option("--servers", min=1, help="Web servers of the CRM; each throttles for itself.")
    ] = 1,
    latency_ms: Annotated[float, typer.Option("--latency-ms", min=0, help="Added to every request.")] = 0.0,
    control: Annotated[bool, typer.Option("--control/--no-control", help="Offer the control endpoint.")] = True,
    erp_webhook_delay_s: Annotated[
        float, typer.Option("--erp-webhook-delay-s", min=0, help="From a change in the ERP to its notification.")
    ] = 30.0,
    crm_webhook_delay_s: Annotated[
        Optional[float],
        typer.Option(
            "--crm-webhook-delay-s",
            min=0,
            help="From a change in the CRM to its notification.",
            show_default="as the service",
        ),
    ] = None,
) -> None:
    """Serve a Business Central and a Dataverse on this machine until Ctrl-C, and say how to reach them.

    Prints one JSON object: addresses, sign-in, secrets of two applications each, control endpoint.

    Example: drawbar sandbox --seed empty --db sandbox.sqlite --connection-file sandbox.json
    """
    from drawbar.cli.connection import write_connection
    from drawbar.cli.running import parse_when
    from drawbar.cli.shared import print_json_line, utc_now
    from drawbar.log import set_up_log
    from drawbar.sandbox.crm.webhooks import DELAY_S
    from drawbar.sandbox.seeds.folder import FolderError
    from drawbar.sandbox.server import SandboxError, SandboxOptions, run
    from drawbar.sandbox.switch import SwitchError
    from drawbar.sandbox.switches import checked, parsed

    try:
        switches = checked(dict(parsed(text) for text in switch or ()))
    except SwitchError as fault:
        raise UsageError(f"--switch: {fault}") from fault
    kind = _check_seed(seed, scale)
    settings = open_settings()
    set_up_log(settings.log, stage="sandbox")
    folder = state_dir or settings.state_dir / "sandbox"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as fault:
        raise UsageError(
            f"--state-dir: {folder} cannot be made: {fault.strerror}", next_step="name a folder that can be written"
        ) from fault
    options = SandboxOptions(
        state_dir=folder,
        host=host,
        sign_in_port=sign_in_port,
        erp_port=erp_port,
        crm_port=crm_port,
        db=db,
        seed=kind,
        scale=scale,
        data=data,
        random_seed=random_seed,
        plain_http=plain_http,
        environments=tuple(environment or ()),
        clock=parse_when(clock, now=utc_now()) if clock is not None else None,
        switches=switches,
        limits=limits,
        servers=servers,
        latency_ms=latency_ms,
        control=control,
        erp_webhook_delay_s=erp_webhook_delay_s,
        crm_webhook_delay_s=DELAY_S if crm_webhook_delay_s is None else crm_webhook_delay_s,
    )

    def ready(info: dict[str, Any]) -> None:
        if connection_file is None:
            print_json_line(info)
        else:
            write_connection(connection_file, info)

    try:
        run(options, ready=ready)
    except SandboxError as fault:
        raise UsageError(str(fault), next_step=fault.next_step) from fault
    except FolderError as fault:
        raise UsageError(str(fault), next_step="mend the file; docs/sandbox.md says how it is read") from fault


def _line(who: str, what: str) -> None:
    """One line of what happens: when, who, what."""
    at = time.strftime("%H:%M:%S")
    indent = "\n" + " " * 20
    typer.echo(f"{at}  {who:<9} {indent.join(what.splitlines())}")


def _settings_of_a_new_system(overrides: Mapping[str, Any], bus: str | None) -> Settings:
    """The settings without any running system's connection file, and with the bus that was asked for."""
    import os

    values = dict(overrides)
    if bus in OWN_BUSES:
        values["bus"] = {"bootstrap_servers": ""}
    elif bus is not None:
        if ":" not in bus:
            raise UsageError(f"--bus is {', '.join(OWN_BUSES)} or HOST:PORT, not {bus!r}")
        values["bus"] = {"bootstrap_servers": bus}
    os.environ.pop("DRAWBAR_CONNECTION_FILE", None)  # of another system; this one writes its own
    settings = open_settings(None, **values)
    if not settings.bus.bootstrap_servers and settings.bus.security_protocol != "plaintext":
        raise SettingsError(
            "bus.security_protocol is about brokers of yours, and none is named",
            where="DRAWBAR_BUS__SECURITY_PROTOCOL",
            next_step="name them (DRAWBAR_BUS__BOOTSTRAP_SERVERS or --bus HOST:PORT), or take the setting away",
        )
    return settings


def _stage(connection_file: Path | None, stage: str) -> Settings:
    """The settings of one stage, its log and its metrics."""
    from drawbar.log import set_up_log

    settings = open_running(connection_file)
    set_up_log(settings.log, stage=stage)
    if settings.log.metrics_port:
        from drawbar.metrics import serve_stage

        serve_stage(settings, stage)
    return settings


@contextmanager
def _at_work(settings: Settings, stage: str) -> Iterator[InForce]:
    """The mapping files of a stage; it is started anew when others take their place. Waits for the broker first."""
    import structlog

    from drawbar.bus.clients import wait_for_broker
    from drawbar.cli.in_force import speak_by_registry, take_up
    from drawbar.mapping_sets import started_anew_for_others

    def waiting(waited_s: float) -> None:
        structlog.get_logger("drawbar.stage").warning("stage.waits_for_broker", waited_s=round(waited_s))

    wait_for_broker(settings.bus.bootstrap_servers, settings.bus.extra, on_wait=waiting)
    files = take_up(settings, stage)
    speak_by_registry(settings, files.mappings)
    with started_anew_for_others(settings.bus, stage=stage, version=files.version):
        yield files


def _check_folder(settings: Settings) -> None:
    """Raises MappingFileError when the first start of a system could not go on with these files."""
    from processors.mapping_files import load_mappings

    load_mappings(settings.mappings_dir, compat=settings.compat, ownership=settings.ownership)


def _entities(mappings: Mapping[str, EntityMapping]) -> Mapping[tuple[System, str], Sequence[str]]:
    from processors.mapping_files import captured_entities

    return captured_entities(mappings.values())


def _check_systems(settings: Settings) -> None:
    """Stop before anything is started when a setting is missing. Raises SettingsError."""
    from drawbar.odata import adapter_for, open_http
    from schemas.records import System

    for system in System:
        open_http(settings, system).close()
        adapter_for(settings, system)


def _dead_letter(stage: str) -> DeadLetter:
    """What a sink sends for a command that nobody can read: its bytes, and its line in the index."""
    from drawbar.clock import SystemClock
    from drawbar.letters import bytes_letter, index_message, letter_message
    from drawbar.ports import InMessage, OutMessage
    from schemas.errors import DrawbarError, Undecodable

    def messages(message: InMessage, error: DrawbarError) -> tuple[OutMessage, OutMessage]:
        letter = bytes_letter(message, Undecodable, now=SystemClock().now(), detail=error.message)
        return (
            letter_message(
                letter,
                key=message.key,
                value=message.value,
                headers=message.headers,
                stage=stage,
                partition=message.partition,
                offset=message.offset,
            ),
            index_message(letter, partition=-1, offset=-1),  # its place is not known yet; the header names the letter
        )

    return messages
