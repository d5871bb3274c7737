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

# Every event there is; a test holds it against the code.
EVENTS: Mapping[str, str] = {
    "bus.broker_started": "the Apache Kafka of this machine answers",
    "bus.client_error": "a Kafka client has trouble, and goes on trying",
    "bus.client_failed": "a Kafka client has ended; its process ends too",
    "bus.client_log": "what librdkafka says (debug)",
    "bus.topic_changed": "a setting of a topic was set",
    "bus.topic_made": "a topic was made",
    "supervisor.child_died": "a process ended and is started again",
    "supervisor.child_gave_up": "a process says that it cannot work with these settings",
    "supervisor.child_killed": "a process did not end in time when asked to",
    "supervisor.child_started": "a process was started",
}

NOISY = ("urllib3", "msal", "asyncio", "aiokafka", "httpx", "rdflib")  # their info lines are about their own inside
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
