"""Figures for Prometheus and the health of the stages: of one process, and of the whole installation.

The mapping from heartbeats and the picture to figures is pure; whether something stands still is judged in
`drawbar/health.py`. `METRICS` is the list of all figures; a test holds it against what is served, and another one
dashboard and alarms against it. Labels are names of ours (stages, entities, topics, codes), never of records.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import accumulate
from socketserver import ThreadingMixIn
from typing import Any, Generic, Literal, Protocol, TypeVar
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from drawbar import health
from drawbar.bus.clients import wait_for_broker
from drawbar.health import Memory, Sight, Verdict
from drawbar.histogram import BOUNDS_S
from drawbar.settings import BusSettings, Settings
from drawbar.status import (
    STAGES,
    Beat,
    BeatReader,
    LetterCounts,
    LetterReader,
    Picture,
    Traffic,
    TrafficReader,
    brakes_on,
    count_letters,
    parse_time,
    why_not_quiet,
)
from schemas.errors import DrawbarError, SettingsError, by_code

TIMEOUT_S = 3.0  # for the broker to answer a look: who asks for our health waits no longer than ten
REACH_S = 2.0
FRESH_S = 1.0  # who asked while another look was under way is given that one
LOOKS = 4  # within the time after which something counts as standing still


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric: what it counts, in which unit (blank: 0 or 1), by which labels."""

    kind: Literal["gauge", "counter", "histogram"]
    meaning: str
    unit: str = ""
    labels: tuple[str, ...] = ()


_STAGE, _SYSTEM, _ENTITY = ("stage",), ("stage", "system"), ("entity",)

METRICS: Mapping[str, Figure] = {
    "drawbar_allowance_used_ratio": Figure(
        "gauge", "requests of this process in the last 5 minutes, as a share of its own budget", "1", _SYSTEM
    ),
    "drawbar_brake_on": Figure(
        "gauge",
        "1 while a brake keeps back what goes in a direction of a mapping",
        "",
        ("mapping", "direction", "code"),
    ),
    "drawbar_bus_reachable": Figure("gauge", "1 when the broker answered this scrape"),
    "drawbar_capture_events_total": Figure("counter", "change events published", "events", _ENTITY),
    "drawbar_capture_last_poll_age_seconds": Figure("gauge", "since the last poll of an entity ended", "s", _ENTITY),
    "drawbar_capture_records": Figure("gauge", "records known", "records", _ENTITY),
    "drawbar_capture_requests_total": Figure("counter", "requests to the source", "requests", _ENTITY),
    "drawbar_capture_stopped": Figure("gauge", "1 when an entity is not captured until somebody acts", "", _ENTITY),
    "drawbar_change_to_visible_seconds": Figure(
        "histogram", "from a change in the source to its being written in the target", "s", ("direction",)
    ),
    "drawbar_dead_letter_oldest_age_seconds": Figure(
        "gauge", "since the oldest open dead letter of a cause was opened", "s", ("code", "cause")
    ),
    "drawbar_dead_letters_open": Figure("gauge", "open dead letters", "letters", ("code", "cause")),
    "drawbar_healthy": Figure("gauge", "0 when a stage does not move although it has something to do", "", _STAGE),
    "drawbar_heartbeat_age_seconds": Figure("gauge", "since the process last said that it is there", "s", _STAGE),
    "drawbar_kept_back_records": Figure("gauge", "records whose writes a brake holds", "records", _STAGE),
    "drawbar_lag_messages": Figure("gauge", "messages not worked off", "messages", ("stage", "topic")),
    "drawbar_messages_total": Figure("counter", "messages that decide took", "messages", _STAGE),
    "drawbar_outcomes_total": Figure("counter", "outcomes of commands", "outcomes", ("stage", "status")),
    "drawbar_paused": Figure("gauge", "1 when a sink writes nothing for now", "", _STAGE),
    "drawbar_processes": Figure("gauge", "processes that are there", "processes", _STAGE),
    "drawbar_quiet": Figure("gauge", "1 when everything is in step and nothing is under way"),
    "drawbar_releases_due": Figure("gauge", "waiting records that are to be decided again", "records", _STAGE),
    "drawbar_releases_total": Figure("counter", "records that were told to decide again", "records", _STAGE),
    "drawbar_requests_total": Figure("counter", "requests to a system", "requests", _SYSTEM),
    "drawbar_running": Figure("gauge", "1 when the process does its work", "", _STAGE),
    "drawbar_throttled_total": Figure("counter", "requests refused because there were too many", "requests", _SYSTEM),
    "drawbar_unanswered_commands": Figure("gauge", "commands sent again and not answered yet", "commands", _STAGE),
    "drawbar_under_way": Figure("gauge", "commands under way", "commands", _STAGE),
    "drawbar_waiting_records": Figure("gauge", "records that wait for others", "records", _STAGE),
    "drawbar_webhooks_total": Figure(
        "counter", "notifications of the two systems, by what became of them", "calls", ("system", "result")
    ),
}

Samples = Iterable[tuple[tuple[str, ...], float]]


# --- figures ----------------------------------------------------------------------------------------------------------


def stage_metrics(beat: Beat, *, now: datetime) -> Iterator[Metric]:
    """What one process is and does."""
    yield _of_stage(beat, "drawbar_heartbeat_age_seconds", (now - beat.at).total_seconds())
    yield _of_stage(beat, "drawbar_running", float(beat.state == "running"))
    yield from _lane_metrics(beat)
    if beat.stage == "capture":
        yield from _capture_metrics(beat, now)
        return
    yield _of_stage(beat, "drawbar_under_way", beat.number("in_flight"))
    if beat.stage == "process":
        yield _of_stage(beat, "drawbar_messages_total", beat.number("messages"))
        yield _of_stage(beat, "drawbar_waiting_records", beat.number("waiting"))
        yield _of_stage(beat, "drawbar_kept_back_records", beat.number("kept_back"))
        yield _of_stage(beat, "drawbar_releases_due", beat.number("releases_due"))
        yield _of_stage(beat, "drawbar_releases_total", beat.number("released"))
        yield _of_stage(beat, "drawbar_unanswered_commands", beat.number("unanswered"))
        return
    counts = _mapping(beat.details.get("counts"))
    yield _family(
        "drawbar_outcomes_total", (((beat.stage, status), float(count)) for status, count in sorted(counts.items()))
    )
    yield _of_stage(beat, "drawbar_paused", float(bool(beat.details.get("paused_reason"))))
    yield _latency(beat)


def installation_metrics(picture: Picture, *, now: datetime) -> Iterator[Metric]:
    """What holds for all processes together."""
    stages: dict[str, int] = {}
    for beat in picture.beats:
        stages[beat.stage] = stages.get(beat.stage, 0) + 1
    yield _family("drawbar_processes", (((stage,), count) for stage, count in sorted(stages.items())))
    yield lag_metric(picture.traffic)
    letters = picture.letters
    yield _family(
        "drawbar_dead_letters_open", (((code, _cause(code)), count) for code, count in letters.by_code.items())
    )
    yield _family(
        "drawbar_dead_letter_oldest_age_seconds",
        (((code, _cause(code)), (now - opened).total_seconds()) for code, opened in letters.oldest.items()),
    )
    brakes = ((brake["mapping"], brake["direction"], brake["code"]) for brake in brakes_on(picture.beats))
    yield _family("drawbar_brake_on", ((labels, 1.0) for labels in brakes))
    yield _family("drawbar_quiet", [((), float(not why_not_quiet(picture)))])


def lag_metric(traffic: Traffic) -> Metric:
    lag = (((health.stage_of(topic), topic), float(count)) for topic, count in traffic.lag.items())
    return _family("drawbar_lag_messages", lag)


def health_metric(verdict: Verdict, stages: Collection[str]) -> Metric:
    return _family("drawbar_healthy", (((stage,), float(verdict.is_healthy(stage))) for stage in stages))


def _lane_metrics(beat: Beat) -> Iterator[Metric]:
    """What each system was asked. A sink says it of its one system, capture of both, decide asks nobody."""
    lanes = _mapping(beat.details.get("systems"))
    if beat.stage.startswith("sink-"):
        lanes = {beat.stage.removeprefix("sink-"): beat.details}
    for name, key in (
        ("drawbar_requests_total", "requests"),
        ("drawbar_throttled_total", "throttled"),
        ("drawbar_allowance_used_ratio", "allowance_used"),
    ):
        if lanes:
            yield _family(
                name, (((beat.stage, system), float(lane.get(key) or 0)) for system, lane in sorted(lanes.items()))
            )


def _capture_metrics(beat: Beat, now: datetime) -> Iterator[Metric]:
    looks = beat.entities.items()
    for name, key in (
        ("drawbar_capture_events_total", "events"),
        ("drawbar_capture_requests_total", "requests"),
        ("drawbar_capture_records", "known"),
    ):
        yield _family(name, (((entity,), float(look.get(key) or 0)) for entity, look in looks))
    yield _family(
        "drawbar_capture_stopped", (((entity,), float(look.get("state") == "stopped")) for entity, look in looks)
    )
    webhooks = ((tuple(name.split(".", 1)), count) for name, count in _mapping(beat.details.get("webhooks")).items())
    yield _family("drawbar_webhooks_total", ((labels, float(count)) for labels, count in webhooks if len(labels) > 1))
    ends = ((entity, parse_time(look.get("last_poll_finished_at"))) for entity, look in looks)
    yield _family(
        "drawbar_capture_last_poll_age_seconds",
        (((entity,), (now - ended).total_seconds()) for entity, ended in ends if ended is not None),
    )


def _latency(beat: Beat) -> Metric:
    name = "drawbar_change_to_visible_seconds"
    family = HistogramMetricFamily(name, METRICS[name].meaning, labels=METRICS[name].labels)
    said = _mapping(beat.details.get("change_to_visible_s"))
    counts = said.get("counts")
    if isinstance(counts, list) and len(counts) == len(BOUNDS_S) + 1:
        bounds = [*(str(bound) for bound in BOUNDS_S), "+Inf"]
        buckets = list(zip(bounds, map(float, accumulate(counts)), strict=True))
        family.add_metric(
            (f"to_{beat.stage.removeprefix('sink-')}",), buckets, sum_value=float(said.get("sum_s") or 0.0)
        )
    return family


def _family(name: str, samples: Samples) -> Metric:
    figure = METRICS[name]
    kind = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
    family = kind(name.removesuffix("_total"), figure.meaning, labels=figure.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _of_stage(beat: Beat, name: str, value: float) -> Metric:
    return _family(name, [((beat.stage,), value)])


def _mapping(found: object) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _cause(code: str) -> str:
    """The name of an error: how many causes there are does not grow with the records. Blank for a code of old."""
    try:
        return by_code(code).slug
    except KeyError:
        return ""


# --- serving ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look shows: the stages as health judges them, and figures besides."""

    sight: Sight
    figures: Iterable[Metric] = ()


def serve_stage(settings: Settings, stage: str) -> None:
    """Serve figures and health of this process on the port of the settings, in threads of its own.

    Raises SettingsError when the port is taken.
    """
    bus = settings.bus
    reader = _Lazy(lambda: BeatReader(bus, timeout_s=TIMEOUT_S))
    topics = health.topics_of(stage)
    traffic_reader = _Lazy(lambda: TrafficReader(bus, topics=topics, timeout_s=TIMEOUT_S))

    def look() -> Look:
        _reach(bus)
        traffic = traffic_reader.get().read() if topics else Traffic(lag={})
        reader.get().poll(0.05)
        beats = [beat for beat in reader.get().beats() if beat.pid == os.getpid() and beat.stage == stage]
        now = datetime.now(timezone.utc)
        figures = [figure for beat in beats for figure in stage_metrics(beat, now=now)]
        if topics:
            figures.append(lag_metric(traffic))
        return Look(
            sight=Sight(beats=beats, behind=traffic.behind, stages=(stage,), entities=()),
            figures=figures,
        )

    _serve(settings, _anew_after_faults(look, reader, traffic_reader), stages=(stage,))


class Captured:
    """What must be captured by the mapping files in force: read anew when a stage works by others than before."""

    def __init__(self, read: Callable[[], Collection[str]]) -> None:
        self._read = read
        self._versions: Collection[object] | None = None
        self._names: Collection[str] = ()

    def names(self, beats: Iterable[Beat]) -> Collection[str]:
        """`erp.customer`, …. Raises what reading raises."""
        versions = {beat.details["mappings"] for beat in beats if beat.details.get("mappings")}
        if versions != self._versions:
            self._names, self._versions = self._read(), versions
        return self._names


def serve_installation(settings: Settings, read_captured: Callable[[], Collection[str]]) -> None:
    """Serve figures and health of all processes together on the port of the settings. `read_captured` tells what must
    be captured by the mapping files in force. Errors as `serve_stage`.
    """
    bus = settings.bus
    captured = Captured(read_captured)
    reader = _Lazy(lambda: BeatReader(bus, timeout_s=TIMEOUT_S))
    traffic_reader = _Lazy(lambda: TrafficReader(bus, timeout_s=TIMEOUT_S))
    letter_reader = _Lazy(lambda: LetterReader(bus))

    def look() -> Look:
        _reach(bus)
        traffic = traffic_reader.get().read()
        reader.get().poll(0.05)
        beats = reader.get().beats()
        entities = captured.names(beats)
        letters: LetterCounts = count_letters(letter_reader.get().read())
        picture = Picture(beats=beats, traffic=traffic, entities=entities, letters=letters)
        return Look(
            sight=Sight(beats=beats, behind=traffic.behind, entities=entities),
            figures=list(installation_metrics(picture, now=datetime.now(timezone.utc))),
        )

    _serve(settings, _anew_after_faults(look, reader, traffic_reader, letter_reader), stages=STAGES)


def _reach(bus: BusSettings) -> None:
    """Raises BusUnavailable soon when no broker answers: what is asked of it next would try for longer."""
    wait_for_broker(bus.bootstrap_servers, bus.extra, give_up_after_s=REACH_S, client_id="drawbar-status")


class _Reader(Protocol):
    def close(self) -> None: ...


R = TypeVar("R", bound=_Reader)


class _Lazy(Generic[R]):
    """Made when it is first needed, and kept until it fails."""

    def __init__(self, make: Callable[[], R]) -> None:
        self._make = make
        self._made: R | None = None

    def get(self) -> R:
        if self._made is None:
            self._made = self._make()
        return self._made

    def drop(self) -> None:
        made, self._made = self._made, None
        if made is not None:
            made.close()


def _anew_after_faults(look: Callable[[], Look], *readers: _Lazy[Any]) -> Callable[[], Look]:
    """`look`, with new clients after a fault: some of those that asked a frozen broker never hear of it again. Seen."""

    def looked() -> Look:
        try:
            return look()
        except DrawbarError:
            for reader in readers:
                reader.drop()
            raise

    return looked


class _Watch(Collector):
    """Looks, one look at a time, and remembers what it needs to tell what stands still."""

    def __init__(self, look: Callable[[], Look], *, stages: Collection[str], stands_still_s: float) -> None:
        self._look = look
        self._stages = stages
        self._stands_still_s = stands_still_s
        self._lock = threading.Lock()
        self._memory: Memory = {}
        self._seen: tuple[Look, Verdict, datetime] | None = None
        self._seen_at = 0.0

    def collect(self) -> Iterator[Metric]:
        look, verdict, _ = self._see()
        yield _family("drawbar_bus_reachable", [((), float(look.sight.is_bus_there))])
        yield health_metric(verdict, self._stages)
        yield from look.figures

    def health(self) -> dict[str, Any]:
        _, verdict, now = self._see()
        return health.to_json(verdict, stages=self._stages, now=now)

    def run(self) -> None:
        """Look again and again, for ever: who asks for the first time hears since when something stands still."""
        while True:
            self._see()
            time.sleep(self._stands_still_s / LOOKS)

    def _see(self) -> tuple[Look, Verdict, datetime]:
        with self._lock:
            if self._seen is not None and time.monotonic() - self._seen_at < FRESH_S:
                return self._seen
            try:
                look = self._look()
            except DrawbarError:
                look = Look(sight=Sight(beats=(), stages=self._stages, is_bus_there=False))
            now = datetime.now(timezone.utc)
            verdict = health.judge(look.sight, self._memory, now=now, stands_still_s=self._stands_still_s)
            self._memory = verdict.memory
            self._seen, self._seen_at = (look, verdict, now), time.monotonic()
            return self._seen


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """No line for each scrape."""


def _serve(settings: Settings, look: Callable[[], Look], *, stages: Collection[str]) -> None:
    port = settings.log.metrics_port
    watch = _Watch(look, stages=stages, stands_still_s=settings.log.stands_still_s)
    registry = CollectorRegistry()
    registry.register(watch)
    ProcessCollector(registry=registry)
    figures: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != "/health":
            return figures(environ, start)
        said = watch.health()
        status = "200 OK" if said["status"] == "ok" else "503 Service Unavailable"
        start(status, [("Content-Type", "application/json"), ("Cache-Control", "no-store")])
        return [json.dumps(said, indent=2).encode() + b"\n"]

    try:
        server = make_server("", port, answer, server_class=_Server, handler_class=_Silent)
    except OSError as fault:
        raise SettingsError(
            f"metrics cannot be served on port {port}: {fault.strerror}", where="DRAWBAR_LOG__METRICS_PORT"
        ) from fault
    for name, work in (("metrics", server.serve_forever), ("health", watch.run)):
        threading.Thread(target=work, name=name, daemon=True).start()
