"""`drawbar status`, `drawbar wait`: what runs, what waits, and whether everything is in step."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated

import typer

from drawbar.cli.shared import AsJson, ConnectionFile, open_running, print_json_line, print_table, say
from schemas.errors import BusUnavailable, UsageError

if TYPE_CHECKING:
    from drawbar.settings import Settings
    from drawbar.status import Beat, BeatReader, LetterCounts, Picture, TrafficReader

BROKER_WAIT_S = 8.0  # a person waits for the answer
FRESH_S = 2.5  # each process reports every second: so long is waited for a report that is newer than the last message
HURRY_EVERY_S = 0.5  # capture is told to look again at most this often
LOOK_EVERY_S = 0.05
CAUSES_SHOWN = 10


def status(connection_file: ConnectionFile = None, as_json: AsJson = False) -> None:
    """Show what runs, what is not worked off, and the open dead letters by cause.

    Example: drawbar status --connection-file connection.json
    """
    from drawbar.cli.in_force import captured_names
    from drawbar.status import BeatReader, TrafficReader, count_letters, read_letters, to_json

    settings = open_running(connection_file)
    reach(settings)
    entities = captured_names(settings)
    with BeatReader(settings.bus) as beats, TrafficReader(settings.bus) as traffic:
        picture = _fresh_picture(beats, traffic, entities, count_letters(read_letters(settings.bus)))
        if as_json:
            print_json_line(to_json(picture))
        else:
            _show(picture, beats)


def wait(
    quiet: Annotated[bool, typer.Option("--quiet", help="Until all edits made before have crossed.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout-s", min=0, help="Seconds until it gives up.")] = 60.0,
    connection_file: ConnectionFile = None,
) -> None:
    """Return once every edit and delete made before in either system is seen, decided, written and seen back.

    Ends with 1, and says what is missing, when that does not come about in time.

    Example: drawbar wait --quiet --timeout-s 60
    """
    began = datetime.now(timezone.utc)
    if not quiet:
        raise UsageError("what is to be waited for?", next_step="the one thing there is: drawbar wait --quiet")
    reasons = _wait_quiet(connection_file, began=began, deadline=time.monotonic() + timeout_s)
    if reasons:
        say(f"not quiet after {timeout_s:g} s:")
        for reason in reasons:
            say(f"  {reason}")
        raise typer.Exit(1)


def _wait_quiet(connection_file: ConnectionFile, *, began: datetime, deadline: float) -> list[str]:
    """Returns nothing once it is quiet, and the reasons why it is not when the time is over.

    A broker that is away is waited for as long. Raises BusUnavailable when it is away still.
    """
    from drawbar.cli.in_force import captured_names

    settings = open_running(connection_file)
    reach(settings, give_up_after_s=deadline - time.monotonic())
    while True:
        try:
            return _watch_until_quiet(settings, captured_names(settings), began=began, deadline=deadline)
        except BusUnavailable:  # noqa: PERF203 - it waits between tries
            if time.monotonic() > deadline:
                raise
            reach(settings, give_up_after_s=deadline - time.monotonic())


def _watch_until_quiet(settings: Settings, entities: list[str], *, began: datetime, deadline: float) -> list[str]:
    """What costs little is looked at first: positions are read only when all processes say that they are idle."""
    from drawbar.hints import Hints
    from drawbar.status import BeatReader, Picture, Traffic, TrafficReader, notes, unhurried_entities, why_not_quiet

    hints = Hints(settings.bus)
    hints.send(_pairs(entities), kind="look", sweep=True)
    hurried_at = time.monotonic()
    with BeatReader(settings.bus) as beats, TrafficReader(settings.bus) as traffic:
        heard = True
        while True:
            picture = Picture(beats=beats.beats(), traffic=Traffic(lag={}), entities=entities)
            reasons = why_not_quiet(picture, since=began)
            if not reasons and heard:
                picture = Picture(beats=picture.beats, traffic=traffic.read(), entities=entities)
                reasons = why_not_quiet(picture, since=began)
                if not reasons:
                    for note in notes(picture):
                        say(note)
                    return []
            now = time.monotonic()
            if now > deadline:
                return reasons or ["no process has reported lately"]
            late = unhurried_entities(picture, since=began)
            if late and now - hurried_at >= HURRY_EVERY_S:
                hints.send(_pairs(late), kind="look", sweep=True)
                hurried_at = now
            heard = beats.poll(LOOK_EVERY_S)


def reach(settings: Settings, *, give_up_after_s: float = BROKER_WAIT_S) -> None:
    """Return once the broker answers. Raises BusUnavailable."""
    from drawbar.bus.clients import wait_for_broker
    from drawbar.lazy_log import set_up_log_when_needed
    from drawbar.settings import LogSettings

    set_up_log_when_needed(LogSettings(level="error", format=settings.log.format))
    try:
        wait_for_broker(settings.bus.bootstrap_servers, settings.bus.extra, give_up_after_s=max(0.0, give_up_after_s))
    except BusUnavailable as fault:
        raise BusUnavailable(
            fault.message, next_step="see whether the system runs, and whether this is its broker"
        ) from fault


def _pairs(entities: list[str]) -> list[tuple[str, str]]:
    return [(system, entity) for system, _, entity in (name.partition(".") for name in entities)]


def _fresh_picture(beats: BeatReader, traffic: TrafficReader, entities: list[str], letters: LetterCounts) -> Picture:
    """The picture now. When nothing but fresh reports of the processes is missing, they are waited for."""
    from drawbar.status import Picture, is_late_report, why_not_quiet

    deadline = time.monotonic() + FRESH_S
    while True:
        counted = traffic.read()
        beats.poll(LOOK_EVERY_S)
        picture = Picture(beats=beats.beats(), traffic=counted, entities=entities, letters=letters)
        reasons = why_not_quiet(picture)
        if not reasons or not all(is_late_report(reason) for reason in reasons) or time.monotonic() > deadline:
            return picture
        beats.poll(0.5)


def _show(picture: Picture, beats: BeatReader) -> None:
    from drawbar.status import STAGES, notes, why_not_quiet

    rows: list[tuple[object, ...]] = []
    for stage in STAGES:
        found = picture.of_stage(stage)
        rows += [(stage, beat.pid, beat.state, _load(beat), _rate(beat, beats.first_of(beat))) for beat in found]
        if not found:
            rows.append((stage, "-", "does not run", "", ""))
    print_table(("stage", "process", "state", "at work", "rate"), rows)
    if lag := [(topic, count) for topic, count in picture.traffic.lag.items() if count]:
        print_table(("topic", "not worked off"), lag)
    letters = picture.letters
    if letters.open:
        shown = [(count, cause) for cause, count in letters.by_cause.items()]
        print_table(("open", "dead letters by cause"), shown[:CAUSES_SHOWN])
        if len(shown) > CAUSES_SHOWN:
            typer.echo(f"and {len(shown) - CAUSES_SHOWN} more causes; drawbar dead-letters list shows all")
    else:
        typer.echo("no open dead letters")
    for note in notes(picture):
        typer.echo(note)
    reasons = why_not_quiet(picture)
    typer.echo("not quiet:" if reasons else "quiet: all that was seen is worked off, as far as it can be")
    for reason in reasons:
        typer.echo(f"  {reason}")


def _load(beat: Beat) -> str:
    """What a process has in hand, in a few words."""
    if beat.stage == "capture":
        looks = beat.entities.values()
        known = sum(int(look.get("known") or 0) for look in looks)
        return f"{len(looks)} entities, {known} records"
    from drawbar.status import UNFINISHED

    words = [f"{beat.number(name)} {text}" for name, text in UNFINISHED.items() if beat.number(name)]
    if beat.number("waiting"):
        words.append(f"{beat.number('waiting')} waiting for others")
    return ", ".join(words) or "idle"


def _rate(beat: Beat, first: Beat) -> str:
    """Events, messages or outcomes per second, over the last ten seconds."""
    seconds = (beat.at - first.at).total_seconds()
    if seconds <= 0:
        return ""
    return f"{max(0, _done(beat) - _done(first)) / seconds:.1f}/s"


def _done(beat: Beat) -> int:
    if beat.stage == "capture":
        return sum(int(look.get("events") or 0) for look in beat.entities.values())
    if beat.stage == "process":
        return beat.number("messages")
    return sum(int(count) for count in (beat.details.get("counts") or {}).values())
