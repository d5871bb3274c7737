"""Whether the stages move, as long as there is something to move.

Pure: a `Sight` of the stages and the memory of earlier looks go in, a `Verdict` and the memory for the next look come
out. What does not move is a suspicion; one that stands unchanged for long enough is a trouble. Without work there is
no suspicion, so an idle system is healthy, and so is one that works off a backlog of any length.

A position that is not acknowledged can only move forward: two looks that find the same one behind which messages wait
know that nothing moved between them, however far apart they are. So it does no harm when nobody looks for a while.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from drawbar.status import CONSUMED, ENTITIES, STAGES, Beat, Behind, Place, parse_time
from schemas.topics import commands_topic

POLLS_MISSED = 10  # so many intervals without a finished poll are not a hiccup of the source

_SINK_TOPICS = {f"sink-{system}": commands_topic(system) for system in ("erp", "crm")}
Memory = Mapping[tuple[str, str], tuple[object, datetime]]


def topics_of(stage: str) -> tuple[str, ...]:
    """The topics that a stage works off."""
    if stage in _SINK_TOPICS:
        return (_SINK_TOPICS[stage],)
    return tuple(topic for topic in CONSUMED if topic not in _SINK_TOPICS.values()) if stage == "process" else ()


def stage_of(topic: str) -> str:
    """The stage that works a topic off."""
    return next((stage for stage, commands in _SINK_TOPICS.items() if commands == topic), "process")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What is seen at one moment. `stages`: those that must run; `entities`: those that must be captured."""

    beats: Sequence[Beat]
    behind: Mapping[Place, Behind] = field(default_factory=dict)
    stages: Collection[str] = STAGES
    entities: Collection[str] = ENTITIES
    is_bus_there: bool = True


@dataclass(frozen=True, slots=True)
class Trouble:
    stage: str
    what: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    troubles: tuple[Trouble, ...]
    memory: Memory

    def is_healthy(self, stage: str) -> bool:
        return not any(trouble.stage == stage for trouble in self.troubles)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Suspicion:
    """Something that does not move. It is the same one as before while `marker` is the same under its name."""

    stage: str
    name: str
    what: str
    marker: object = None
    grace_s: float
    since: datetime | None = None  # None: since it was first seen


def judge(sight: Sight, memory: Memory, *, now: datetime, stands_still_s: float) -> Verdict:
    """`memory` is that of the verdict before; at first it is empty, and what is new is given its time."""
    kept: dict[tuple[str, str], tuple[object, datetime]] = {}
    troubles = []
    for found in _suspicions(sight, stands_still_s):
        key = found.stage, found.name
        before = memory.get(key)
        since = found.since or (before[1] if before is not None and before[0] == found.marker else now)
        kept[key] = found.marker, since
        if (now - since).total_seconds() >= found.grace_s:
            troubles.append(Trouble(found.stage, found.what, since))
    return Verdict(tuple(troubles), kept)


def to_json(verdict: Verdict, *, stages: Collection[str], now: datetime) -> dict[str, Any]:
    """The body of `/health`."""
    found: dict[str, list[dict[str, Any]]] = {stage: [] for stage in stages}
    for trouble in verdict.troubles:
        for_s = round((now - trouble.since).total_seconds(), 1)
        said = {"what": trouble.what, "since": trouble.since.isoformat(), "for_s": for_s}
        found.setdefault(trouble.stage, []).append(said)
    return {"status": "red" if verdict.troubles else "ok", "at": now.isoformat(), "stages": found}


def _suspicions(sight: Sight, stands_still_s: float) -> Iterator[_Suspicion]:
    if not sight.is_bus_there:
        for stage in sight.stages:
            yield _Suspicion(stage=stage, name="bus", what="the broker does not answer", grace_s=stands_still_s)
        return  # what is seen of the stages is old
    for stage in sight.stages:
        beats = [beat for beat in sight.beats if beat.stage == stage]
        if not beats:
            yield _Suspicion(stage=stage, name="runs", what="no process reports", grace_s=stands_still_s)
        for beat in beats:
            yield from _of_process(beat, stands_still_s)
        yield from _not_worked_off(stage, beats, sight.behind, stands_still_s)
    if "capture" in sight.stages:
        yield from _not_captured(sight, stands_still_s)


def _of_process(beat: Beat, stands_still_s: float) -> Iterator[_Suspicion]:
    if beat.state not in ("running", "paused"):  # a pause matters as soon as there is something to write
        yield _Suspicion(
            stage=beat.stage,
            name=f"state {beat.pid}",
            what=f"{beat.name}: {beat.state}",
            marker=(beat.state, beat.number("view_rows")),
            grace_s=stands_still_s,
        )
    if count := beat.number("unanswered"):
        yield _Suspicion(
            stage=beat.stage,
            name=f"unanswered {beat.pid}",
            what=f"{count} commands were sent again and are not answered",
            grace_s=stands_still_s,
            since=beat.time("unanswered_since"),
        )


def _not_worked_off(
    stage: str, beats: Sequence[Beat], behind: Mapping[Place, Behind], stands_still_s: float
) -> Iterator[_Suspicion]:
    reasons = sorted({str(reason) for beat in beats if (reason := beat.details.get("paused_reason"))})
    paused = f" (paused: {', '.join(reasons)})" if reasons else ""
    topics = topics_of(stage)
    for (topic, partition), found in sorted(behind.items()):
        if topic in topics:
            yield _Suspicion(
                stage=stage,
                name=f"{topic}[{partition}]",
                what=f"{topic}[{partition}]: {found.messages} messages, and none worked off{paused}",
                marker=found.acknowledged,
                grace_s=stands_still_s,
            )


def _not_captured(sight: Sight, stands_still_s: float) -> Iterator[_Suspicion]:
    looks = {entity: look for beat in sight.beats if beat.stage == "capture" for entity, look in beat.entities.items()}
    for entity in sight.entities:
        if entity not in looks:
            yield _Suspicion(stage="capture", name=entity, what=f"{entity}: nobody captures it", grace_s=stands_still_s)
    for entity, look in looks.items():
        yield _of_entity(entity, look, stands_still_s)


def _of_entity(entity: str, look: Mapping[str, Any], stands_still_s: float) -> _Suspicion:
    reason = f", {look['reason']}" if look.get("reason") else ""
    finished = parse_time(look.get("last_poll_finished_at"))
    if look.get("state") == "stopped":
        what = f"{entity}: not captured until somebody acts{reason}"
        return _Suspicion(stage="capture", name=entity, what=what, marker="stopped", grace_s=0)
    began = parse_time(look.get("last_poll_began_at"))
    grace_s = max(stands_still_s, POLLS_MISSED * float(look.get("poll_interval_s") or 0))
    if look.get("state") in ("snapshot", "polling") and began is not None and (finished is None or began > finished):
        # A snapshot takes its time: it moves as long as it asks for pages.
        what = f"{entity}: a poll is under way and asks for nothing"
        marker = ("under way", look.get("requests"))
        return _Suspicion(stage="capture", name=entity, what=what, marker=marker, grace_s=grace_s)
    what = f"{entity}: no poll was finished{reason}"
    return _Suspicion(stage="capture", name=entity, what=what, marker="never", grace_s=grace_s, since=finished)
