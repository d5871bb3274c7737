"""Figures for Prometheus: of one process, from what it says of itself, and of the whole installation.

The mapping from heartbeats and the picture to figures is pure. `METRICS` is the list of all of them; a test holds it
against what is served. Labels are names of ours (stages, entities, topics, codes), never of records.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from drawbar.settings import Settings
from drawbar.status import (
    Beat,
    BeatReader,
    Picture,
    TrafficReader,
    brakes_on,
    count_letters,
    parse_time,
    read_letters,
    why_not_quiet,
)
from schemas.errors import BusError, SettingsError

T = TypeVar("T")

METRICS: Mapping[str, str] = {
    "drawbar_brake_on": "1 while nothing is written in a direction of a mapping, by mapping, direction and code",
    "drawbar_bus_reachable": "1 when the broker answered this scrape",
    "drawbar_capture_events_total": "change events published, by entity",
    "drawbar_capture_last_poll_age_seconds": "since the last poll of an entity ended",
    "drawbar_capture_records": "records known, by entity",
    "drawbar_capture_requests_total": "requests to the source, by entity",
    "drawbar_capture_stopped": "1 when an entity is not captured until somebody acts",
    "drawbar_dead_letters_open": "open dead letters, by code",
    "drawbar_heartbeat_age_seconds": "since the process last said that it is there",
    "drawbar_kept_back_records": "records whose writes a brake holds",
    "drawbar_lag_messages": "messages not worked off, by topic",
    "drawbar_messages_total": "messages that decide took",
    "drawbar_outcomes_total": "outcomes of commands, by status",
    "drawbar_paused": "1 when a sink writes nothing for now",
    "drawbar_processes": "processes that are there, by stage",
    "drawbar_quiet": "1 when everything is in step and nothing is under way",
    "drawbar_releases_due": "waiting records that are to be decided again",
    "drawbar_requests_total": "requests to the target",
    "drawbar_running": "1 when the process does its work",
    "drawbar_throttled_total": "refusals by the target because of too many requests",
    "drawbar_under_way": "commands under way",
    "drawbar_waiting_records": "records that wait for others",
    "drawbar_webhooks_total": "notifications of the two systems, by what became of them",
}


def stage_metrics(beat: Beat, *, now: datetime) -> Iterator[Metric]:
    """What one process is and does."""
    yield _gauge("drawbar_heartbeat_age_seconds", (now - beat.at).total_seconds(), stage=beat.stage)
    yield _gauge("drawbar_running", float(beat.state == "running"), stage=beat.stage)
    if beat.stage == "capture":
        yield from _capture_metrics(beat, now)
        return
    yield _gauge("drawbar_under_way", beat.number("in_flight"), stage=beat.stage)
    if beat.stage == "process":
        yield _counter("drawbar_messages_total", beat.number("messages"), stage=beat.stage)
        yield _gauge("drawbar_waiting_records", beat.number("waiting"), stage=beat.stage)
        yield _gauge("drawbar_kept_back_records", beat.number("kept_back"), stage=beat.stage)
        yield _gauge("drawbar_releases_due", beat.number("releases_due"), stage=beat.stage)
        return
    counts = beat.details.get("counts")
    outcomes = CounterMetricFamily("drawbar_outcomes", METRICS["drawbar_outcomes_total"], labels=("stage", "status"))
    for status, count in sorted(counts.items()) if isinstance(counts, Mapping) else ():
        outcomes.add_metric((beat.stage, str(status)), float(count))
    yield outcomes
    yield _gauge("drawbar_paused", float(bool(beat.details.get("paused_reason"))), stage=beat.stage)
    yield _counter("drawbar_requests_total", beat.number("requests"), stage=beat.stage)
    yield _counter("drawbar_throttled_total", beat.number("throttled"), stage=beat.stage)


def installation_metrics(picture: Picture) -> Iterator[Metric]:
    """What holds for all processes together."""
    processes = GaugeMetricFamily("drawbar_processes", METRICS["drawbar_processes"], labels=("stage",))
    stages: dict[str, int] = {}
    for beat in picture.beats:
        stages[beat.stage] = stages.get(beat.stage, 0) + 1
    for stage, count in sorted(stages.items()):
        processes.add_metric((stage,), count)
    yield processes
    lag = GaugeMetricFamily("drawbar_lag_messages", METRICS["drawbar_lag_messages"], labels=("topic",))
    for topic, count in picture.traffic.lag.items():
        lag.add_metric((topic,), count)
    yield lag
    letters = GaugeMetricFamily("drawbar_dead_letters_open", METRICS["drawbar_dead_letters_open"], labels=("code",))
    for code, count in picture.letters.by_code.items():
        letters.add_metric((code,), count)
    yield letters
    on = GaugeMetricFamily("drawbar_brake_on", METRICS["drawbar_brake_on"], labels=("mapping", "direction", "code"))
    for brake in brakes_on(picture.beats):
        on.add_metric((brake["mapping"], brake["direction"], brake["code"]), 1)
    yield on
    yield _gauge("drawbar_quiet", float(not why_not_quiet(picture)))


def serve_stage(settings: Settings, stage: str) -> None:
    """Serve the figures of this process on the port of the settings, in threads of its own.

    Raises SettingsError when the port is taken.
    """
    reader = _Lazy(lambda: BeatReader(settings.bus))

    def look() -> Iterator[Metric]:
        beats = reader.get()
        beats.poll(0.05)
        for beat in beats.beats():
            if beat.pid == os.getpid() and beat.stage == stage:
                yield from stage_metrics(beat, now=datetime.now(timezone.utc))

    _serve(settings.log.metrics_port, look)


def serve_installation(settings: Settings, entities: Collection[str]) -> None:
    """Serve the figures of the whole installation on the port of the settings. Errors as `serve_stage`."""
    beats = _Lazy(lambda: BeatReader(settings.bus))
    traffic = _Lazy(lambda: TrafficReader(settings.bus))

    def look() -> Iterator[Metric]:
        counted = traffic.get().read()
        beats.get().poll(0.05)
        yield from installation_metrics(
            Picture(
                beats=beats.get().beats(),
                traffic=counted,
                entities=entities,
                letters=count_letters(read_letters(settings.bus)),
            )
        )

    _serve(settings.log.metrics_port, look)


class _Lazy(Generic[T]):
    """Made when it is first needed, and kept."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: T | None = None

    def get(self) -> T:
        if self._made is None:
            self._made = self._make()
        return self._made


class _Scrape(Collector):
    """One look per scrape, one scrape at a time."""

    def __init__(self, look: Callable[[], Iterable[Metric]]) -> None:
        self._look = look
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            try:
                found = list(self._look())
            except BusError:
                yield _gauge("drawbar_bus_reachable", 0)
                return
        yield _gauge("drawbar_bus_reachable", 1)
        yield from found


def _serve(port: int, look: Callable[[], Iterable[Metric]]) -> None:
    registry = CollectorRegistry()
    registry.register(_Scrape(look))
    ProcessCollector(registry=registry)
    try:
        start_http_server(port, registry=registry)
    except OSError as fault:
        raise SettingsError(
            f"metrics cannot be served on port {port}: {fault.strerror}", where="DRAWBAR_LOG__METRICS_PORT"
        ) from fault


def _capture_metrics(beat: Beat, now: datetime) -> Iterator[Metric]:
    events = CounterMetricFamily("drawbar_capture_events", METRICS["drawbar_capture_events_total"], labels=("entity",))
    requests = CounterMetricFamily(
        "drawbar_capture_requests", METRICS["drawbar_capture_requests_total"], labels=("entity",)
    )
    ages, records, stopped = (
        GaugeMetricFamily(name, METRICS[name], labels=("entity",))
        for name in ("drawbar_capture_last_poll_age_seconds", "drawbar_capture_records", "drawbar_capture_stopped")
    )
    for entity, look in beat.entities.items():
        events.add_metric((entity,), float(look.get("events") or 0))
        requests.add_metric((entity,), float(look.get("requests") or 0))
        records.add_metric((entity,), float(look.get("known") or 0))
        stopped.add_metric((entity,), float(look.get("state") == "stopped"))
        polled = parse_time(look.get("last_poll_finished_at"))
        if polled is not None:
            ages.add_metric((entity,), (now - polled).total_seconds())
    webhooks = CounterMetricFamily("drawbar_webhooks", METRICS["drawbar_webhooks_total"], labels=("system", "result"))
    said = beat.details.get("webhooks")
    for name, count in said.items() if isinstance(said, Mapping) else ():
        if "." in name:
            webhooks.add_metric(name.split(".", 1), float(count))
    yield from (events, requests, records, stopped, ages, webhooks)


def _gauge(name: str, value: float, **labels: str) -> Metric:
    family = GaugeMetricFamily(name, METRICS[name], labels=tuple(labels))
    family.add_metric(tuple(labels.values()), value)
    return family


def _counter(name: str, value: float, **labels: str) -> Metric:
    family = CounterMetricFamily(name.removesuffix("_total"), METRICS[name], labels=tuple(labels))
    family.add_metric(tuple(labels.values()), value)
    return family
