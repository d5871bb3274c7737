"""The running system as the operating commands see it: what Kafka holds of it, and its mappings; ages and times."""

from __future__ import annotations

import getpass
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from drawbar.cli.shared import open_running, say
from schemas.errors import BusUnavailable, UsageError

if TYPE_CHECKING:
    from drawbar.rows import Rows
    from drawbar.settings import Settings
    from processors.mapping import EntityMapping

BROKER_WAIT_S = 8.0  # a person waits for the answer; what runs waits for its broker without end

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    rows: Rows
    mappings: Mapping[str, EntityMapping]
    settings: Settings


def running(ctx: typer.Context, connection_file: Path | None) -> Running:
    """The system that is meant. One that stands in the context already is taken: tests put theirs there.

    Raises SettingsError, MappingFileError, and BusUnavailable when no broker answers.
    """
    if isinstance(ctx.obj, Running):
        return ctx.obj
    from drawbar.bus.clients import wait_for_broker
    from drawbar.cli.in_force import mappings_in_force
    from drawbar.lazy_log import set_up_log_when_needed
    from drawbar.rows import KafkaRows
    from drawbar.settings import LogSettings

    settings = open_running(connection_file)
    set_up_log_when_needed(LogSettings(level="warning", format=settings.log.format))
    try:
        wait_for_broker(settings.bus.bootstrap_servers, settings.bus.extra, give_up_after_s=BROKER_WAIT_S)
    except BusUnavailable as fault:
        raise BusUnavailable(
            fault.message, next_step="see whether the system runs, and whether this is its broker"
        ) from fault
    mappings = mappings_in_force(settings)
    return Running(rows=KafkaRows(settings.bus), mappings=mappings, settings=settings)


def say_unreadable(rows: Rows) -> None:
    """A line when messages were left out because nobody can read them."""
    if rows.unreadable:
        say(f"left out: {rows.unreadable} messages that cannot be decoded")


def who() -> str:
    """The login of who runs the command."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "operator"  # a container may have a user without a name


def parse_when(text: str, *, now: datetime) -> datetime:
    """A point in time: ISO 8601 (UTC unless it says otherwise), or how long ago: `90s`, `10m`, `2h`, `3d`.

    Raises UsageError.
    """
    span = _SPAN.fullmatch(text.strip())
    if span is not None:
        return now - timedelta(seconds=float(span[1]) * _SECONDS[span[2]])
    try:
        when = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError as fault:
        raise UsageError(
            "a time is ISO 8601 or how long ago", next_step="write for example 2026-03-02T09:15 or 10m, 2h, 3d"
        ) from fault
    return when if when.tzinfo is not None else when.replace(tzinfo=timezone.utc)


def age(since: datetime, now: datetime) -> str:
    """How long ago, in the largest unit that says it: `12 s`, `4 m`, `3 h`, `9 d`."""
    seconds = max(0.0, (now - since).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def stamp(when: datetime) -> str:
    """`2026-03-02 09:15:27`, in UTC."""
    return when.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def plural(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
