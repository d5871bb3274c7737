"""Structured logs: one line per event, named `stage.what_happened`, to standard error.

On a terminal they are for people, elsewhere JSON. What libraries say through `logging` takes the same way. Values whose
name says that they are secret are struck out; values of records are never passed to a logger in the first place.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from drawbar.settings import LogSettings

# Every event there is; a test holds it against the code. One more per outcome of a command: `sink.written`,
# `sink.observed`, `sink.missing`, `sink.matched`, `sink.deleted`, `sink.rejected`.
EVENTS: Mapping[str, str] = {
    "bus.broker_started": "the Apache Kafka of this machine answers",
    "bus.client_error": "a Kafka client has trouble, and goes on trying",
    "bus.client_failed": "a Kafka client has ended; its process ends too",
    "bus.client_log": "what librdkafka says (debug)",
    "bus.jar_failed": "a jar could not be fetched and is tried again (debug)",
    "bus.topic_changed": "a setting of a topic was set",
    "bus.topic_made": "a topic was made",
    "capture.anew": "an entity is read from its beginning, because somebody asked for it",
    "capture.beat_lost": "what capture said of itself did not arrive (debug)",
    "capture.crashed": "an entity's thread ended by a fault nobody foresaw; the process ends and is started again",
    "capture.fenced": "another process captures this entity now",
    "capture.hint_dropped": "a webhook came while the client's queue was full; the next poll sees the change",
    "capture.position_lost": "the source forgot our position: a snapshot follows",
    "capture.published": "changes are with the broker",
    "capture.set_aside": "a row that cannot be read is a dead letter",
    "capture.snapshot_done": "all records of an entity were read",
    "capture.stopped": "an entity is not captured until somebody acts; the code says why",
    "capture.taken_over": "this process captures the entity from now on",
    "capture.waiting": "a source or the bus does not answer as it should; tried again",
    "capture.waiting_for_broker": "no broker answers yet",
    "capture.webhook_refused": "calls of the webhook receiver without the right secret were refused (once a minute)",
    "capture.webhooks_failed": "notifications cannot be had: changes are found by polling alone",
    "mappings.folder_differs": "the folder in the settings is not what is in force; it changes nothing by itself",
    "mappings.others": "other mapping files are to be worked by: the stage drains",
    "mappings.started_anew": "the stage has drained and starts with other mapping files",
    "mappings.unreadable": "mapping files on the topic cannot be read; those before them stay in force",
    "process.assigned": "the process has these partitions",
    "process.ended_hard": "the process did not end in time and was cut off; nothing was acknowledged",
    "process.failed": "the process ends by a fault and is started again",
    "process.letter_unreadable": "a line of the index of dead letters cannot be read",
    "process.row_unreadable": "a row cannot be read; it is left as it is",
    "process.started": "the process begins",
    "process.stop_failed": "the end did not go as it should",
    "process.stopped": "the process has drained and ends",
    "process.stopped_writing": "too many records are about to be changed: a brake went on by itself",
    "process.waits_for_broker": "no broker answers yet",
    "registry.waiting": "the schema registry does not answer yet",
    "sink.assigned": "the sink has more partitions",
    "sink.bus_unavailable": "outcomes cannot be sent; they are kept and sent again",
    "sink.paused": "nothing is written for now: outage, throttling, a right that is missing, or the bus",
    "sink.resumed": "writing goes on",
    "sink.revoked": "the sink has fewer partitions",
    "sink.started": "the sink begins",
    "sink.stopped": "the sink has drained and ends",
    "sink.undecodable": "a command that nobody can read is a dead letter",
    "stage.waits_for_broker": "no broker answers yet",
    "supervisor.child_died": "a process ended and is started again",
    "supervisor.child_gave_up": "a process says that it cannot work with these settings",
    "supervisor.child_killed": "a process did not end in time when asked to",
    "supervisor.child_started": "a process was started",
}

NOISY = ("urllib3", "msal", "asyncio", "aiokafka", "faust", "mode")  # their info lines are about their own inside
_SECRET = ("secret", "password", "token", "authorization", "assertion")


def set_up_log(settings: LogSettings, **always: str) -> None:
    """Send everything that this process logs to standard error; `always` is on every line (`stage="capture"`)."""
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    level: int = getattr(logging, settings.level.upper())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
        without_secrets,
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=28)
        if console
        else structlog.processors.JSONRenderer(default=str)
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            renderer,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in NOISY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(**always)


def without_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Strike out what is named like a secret, should anybody ever pass one."""
    for name in event:
        if any(part in name.lower() for part in _SECRET):
            event[name] = "***"
    return event
