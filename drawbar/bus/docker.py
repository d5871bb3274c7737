"""Apache Kafka in a container, by testcontainers: for machines with a Docker engine; what it keeps goes with it.

The container is made by a process of its own, `python -m drawbar.bus.docker --port N`, which removes it when it ends,
whatever ends it: testcontainers' reaper watches that process. So a supervisor keeps it as it keeps any other broker.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from typing import Any

from drawbar.bus.apache import HOST, Prepared, broker_settings, free_port
from drawbar.bus.jars import KAFKA_VERSION
from schemas.errors import BusStartFailed, BusUnavailable, DrawbarError

IMAGE = f"apache/kafka:{KAFKA_VERSION}"
CONTROLLER_PORT = 9093  # inside the container, where nobody else is
START_TIMEOUT_S = 120


def prepare(*, port: int | None = None) -> Prepared:
    """Have an engine that answers; start nothing. Raises BusUnavailable when none does."""
    _ask_engine()
    chosen = port or free_port()
    argv = (sys.executable, "-m", "drawbar.bus.docker", "--port", str(chosen))
    return Prepared(argv=argv, env=dict(os.environ), port=chosen)


def container_environment(port: int, *, host: str = HOST) -> dict[str, str]:
    """The settings of the broker as the image takes them: those of `drawbar.bus.apache`, on one port in and out."""
    settings = broker_settings(port=port, controller_port=CONTROLLER_PORT, log_dirs="/tmp/kafka")  # noqa: S108 - its own
    settings["listeners"] = f"CLIENTS://0.0.0.0:{port},CONTROLLER://127.0.0.1:{CONTROLLER_PORT}"
    settings["advertised.listeners"] = f"CLIENTS://{host}:{port}"
    return {"KAFKA_" + name.upper().replace(".", "_"): value for name, value in settings.items()}


def make_container(port: int, *, host: str = HOST) -> Any:
    """A container of `IMAGE` that is not started yet; it answers at `host:port` once it is.

    Its port is the same inside and outside, so that the broker can name it before it runs; the library's own
    KafkaContainer is made for another image.
    """
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - asks the engine when it is imported
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy  # noqa: PLC0415

    container = DockerContainer(IMAGE).with_bind_ports(port, port)
    for name, value in container_environment(port, host=host).items():
        container.with_env(name, value)
    ready = LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(START_TIMEOUT_S)
    return container.waiting_for(ready)


def _ask_engine() -> None:
    try:
        import docker  # noqa: PLC0415 - only this kind of bus needs it, and it loads slowly
        import testcontainers  # noqa: F401, PLC0415
    except ImportError as missing:
        raise BusUnavailable(
            "containers need the package testcontainers",
            next_step="pip install 'drawbar[docker]', or use --bus kafka, which needs no Docker",
        ) from missing
    try:
        client = docker.from_env(timeout=10)
        client.ping()
        client.close()
    except docker.errors.DockerException as silent:
        raise BusUnavailable(
            "no Docker engine answers on this machine",
            where=os.environ.get("DOCKER_HOST", ""),
            next_step="start it or set DOCKER_HOST, or use --bus kafka, which needs no Docker",
        ) from silent


def main(arguments: list[str] | None = None) -> int:
    """Keep a container running until SIGTERM or Ctrl-C; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m drawbar.bus.docker",
        description="Run an Apache Kafka in a container until Ctrl-C.",
        epilog="Example: python -m drawbar.bus.docker --port 9092",
    )
    parser.add_argument("--port", type=int, required=True, help="Port on 127.0.0.1.")
    given = parser.parse_args(arguments)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        _ask_engine()
        from docker.errors import DockerException  # noqa: PLC0415 - see `_ask_engine`

        try:
            with make_container(given.port) as container:
                sys.stdout.write(f"Apache Kafka answers on {HOST}:{given.port} ({container.image})\n")
                sys.stdout.flush()
                while not ended.wait(1):
                    container.get_wrapped_container().reload()
                    if container.get_wrapped_container().status != "running":
                        raise BusStartFailed("the container ended", next_step=f"docker logs of {IMAGE} say more")
        except (DockerException, RuntimeError, TimeoutError, OSError) as failed:
            raise BusStartFailed(f"the container of {IMAGE} cannot be started: {type(failed).__name__}") from failed
    except DrawbarError as failed:
        sys.stderr.write(failed.for_people() + "\n")
        return failed.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
