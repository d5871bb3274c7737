"""When a system counts as quiet, what is said when it does not, and how it is told from outside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from drawbar.status import (
    BEAT_MAX_AGE_S,
    ENTITIES,
    SETTLE,
    STAGES,
    Beat,
    Picture,
    Traffic,
    count_letters,
    is_late_report,
    live,
    notes,
    read_beat,
    to_json,
    unhurried_entities,
    why_not_quiet,
)
from schemas.records import DeadLetter, LetterState

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=timezone.utc)
LAST_MESSAGE = NOW - timedelta(seconds=30)
LAST_POLL = NOW - timedelta(seconds=2)


A_STOP = {
    "mapping": "customer-account",
    "direction": "to_crm",
    "state": "stopped",
    "by": "process 7 on here",
    "at": "2026-05-01T11:59:00+00:00",
    "reason": "too many records at once",
    "code": "DRW-8001",
}


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def a_look(**values: Any) -> dict[str, Any]:
    """What capture says of an entity that was just looked at and brought nothing."""
    said = {"last_empty_poll_began_at": LAST_POLL.isoformat(), "last_empty_sweep_began_at": LAST_POLL.isoformat()}
    return {"state": "polling", "reason": "", "known": 10, **said, **values}


def a_beat(stage: str, **values: Any) -> Beat:
    """An idle process of a stage, a second ago."""
    details: dict[str, Any] = {"entities": {name: a_look() for name in ENTITIES}} if stage == "capture" else {}
    details |= {} if stage == "capture" else {"in_flight": 0, "last_outcome_at": LAST_MESSAGE.isoformat()}
    beat = Beat(stage=stage, pid=STAGES.index(stage) + 1, host="here", at=ago(1), state="running", details=details)
    ours = {name: values.pop(name) for name in ("at", "state", "pid", "host") if name in values}
    return replace(beat, details={**details, **values}, **ours)


def a_picture(*beats: Beat, **values: Any) -> Picture:
    """A quiet system; each of `beats` stands for the idle process of its stage."""
    named = {beat.stage for beat in beats}
    idle = [a_beat(stage) for stage in STAGES if stage not in named]
    quiet: dict[str, Any] = {"traffic": Traffic(lag={"pairs.work": 0}, last_message_at=LAST_MESSAGE)}
    return Picture(beats=[*idle, *beats], **{**quiet, **values})


def capture_with(entity: str, **look: Any) -> Beat:
    return a_beat("capture", entities={**{name: a_look() for name in ENTITIES}, entity: a_look(**look)})


def without(picture: Picture, stage: str) -> Picture:
    return replace(picture, beats=[beat for beat in picture.beats if beat.stage != stage])


class TestNotes:
    def test_say_nothing_of_a_system_that_writes(self):
        assert [] == notes(a_picture(a_beat("process", observing=False, company_known=True)))

    def test_say_that_nothing_is_written(self):
        (note,) = notes(a_picture(a_beat("process", observing=True)))
        assert note.startswith("only observing")

    def test_say_that_a_brake_is_on(self):
        """And that quiet then does not mean in step."""
        picture = a_picture(a_beat("process", brakes=[A_STOP], kept_back=173))

        stopped, held = notes(picture)
        assert "customer-account to_crm is stopped" in stopped
        assert "DRW-8001" in stopped
        assert held.startswith("records held: 173; quiet does not mean in step")
        assert ([A_STOP], True) == (to_json(picture)["brakes"], to_json(picture)["quiet"])

    def test_say_once_what_several_processes_keep_to(self):
        beats = [
            a_beat("process", brakes=[A_STOP], kept_back=1),
            a_beat("process", pid=9, brakes=[A_STOP], kept_back=2),
        ]

        assert ["customer-account to_crm", "records held: 3"] == [
            note.split(" is ")[0].split(";")[0] for note in notes(a_picture(*beats))
        ]

    def test_say_that_records_wait_for_the_company(self):
        """Every account bears its stamp, so nothing can be written without it."""
        (note,) = notes(a_picture(a_beat("process", company_known=False, waiting=2)))
        assert "no row for this company" in note

    def test_say_that_an_application_of_mapping_files_was_cut_off(self):
        """Capture works by the next files, decide by those before."""
        beats = [a_beat("capture", mappings="b2"), a_beat("process", mappings="a1")]

        (note,) = notes(a_picture(*beats))
        assert "drawbar mappings apply" in note
        assert [] == notes(a_picture(a_beat("capture", mappings="a1"), a_beat("process", mappings="a1")))

    def test_do_not_mind_an_unknown_company_while_nobody_waits_for_it(self):
        """At the start it is not captured yet."""
        assert [] == notes(a_picture(a_beat("process", company_known=False, waiting=0)))


class TestWhyNotQuiet:
    def test_finds_nothing_in_an_idle_system(self):
        """Every stage runs, all is worked off, and each entity was looked at after the last message."""
        assert [] == why_not_quiet(a_picture())

    @pytest.mark.parametrize("stage", STAGES)
    def test_names_a_stage_that_does_not_run(self, stage: str):
        """What nobody does cannot be done."""
        assert f"{stage}: no process runs" in why_not_quiet(without(a_picture(), stage))

    @pytest.mark.parametrize("state", ["starting", "recovering", "draining"])
    def test_names_a_process_that_is_not_at_work(self, state: str):
        assert [f"process (2): {state}"] == why_not_quiet(a_picture(a_beat("process", state=state)))

    def test_names_the_reason_of_a_pause(self):
        beat = a_beat("sink-crm", state="paused", paused_reason="throttled")

        assert ["sink-crm (4): paused, throttled"] == why_not_quiet(a_picture(beat))

    @pytest.mark.parametrize("name", ["in_flight", "claiming", "deferred", "releases_due", "view_lag"])
    def test_names_what_waits_in_decide(self, name: str):
        (reason,) = why_not_quiet(a_picture(a_beat("process", **{name: 3})))

        assert reason.startswith("process (2): 3 ")

    @pytest.mark.parametrize("name", ["in_flight", "waiting_for_retry"])
    def test_names_what_waits_in_a_sink(self, name: str):
        (reason,) = why_not_quiet(a_picture(a_beat("sink-erp", **{name: 1})))

        assert reason.startswith("sink-erp (3): 1 ")

    def test_does_not_mind_records_that_wait_for_others(self):
        """They have an open dead letter, and go on when the other record is coupled: that may be never."""
        assert [] == why_not_quiet(a_picture(a_beat("process", waiting=19)))

    def test_names_topics_that_are_not_worked_off(self):
        traffic = Traffic(lag={"pairs.work": 0, "crm.commands": 7}, last_message_at=LAST_MESSAGE)

        assert ["crm.commands: 7 messages not worked off"] == why_not_quiet(a_picture(traffic=traffic))

    def test_does_not_trust_counts_while_messages_arrive(self):
        """A message that moves from one topic to the next while they are counted is in neither count."""
        traffic = Traffic(lag={}, is_steady=False, last_message_at=LAST_MESSAGE)

        assert ["messages are arriving"] == why_not_quiet(a_picture(traffic=traffic))

    @pytest.mark.parametrize("stage", ["process", "sink-erp", "sink-crm"])
    def test_does_not_trust_a_report_from_before_the_last_message(self, stage: str):
        """A process may have taken work on since; and the view needs a moment for the last row."""
        traffic = Traffic(lag={}, last_message_at=LAST_MESSAGE)
        late = a_beat(stage, at=LAST_MESSAGE + SETTLE - timedelta(milliseconds=1))

        (reason,) = why_not_quiet(a_picture(late, traffic=traffic))
        assert is_late_report(reason)

    def test_trusts_a_report_from_after_it(self):
        beat = a_beat("process", at=LAST_MESSAGE + SETTLE)

        assert [] == why_not_quiet(a_picture(beat))

    def test_needs_a_poll_without_news_after_the_last_outcome(self):
        """What our own write left behind has been seen; it may be more than what we wrote."""
        sink = a_beat("sink-crm", last_outcome_at=(LAST_POLL + timedelta(milliseconds=1)).isoformat())

        reasons = why_not_quiet(a_picture(sink))
        assert len(ENTITIES) == len(reasons)
        assert "crm.account: no poll without news since the last outcome" in reasons

    def test_needs_a_poll_after_the_last_message_though_its_sink_is_gone(self):
        """A killed sink cannot tell any more when its last outcome was; the message that carried it can."""
        traffic = Traffic(lag={}, last_message_at=LAST_POLL)
        sinks = [a_beat(stage, at=NOW, last_outcome_at=None) for stage in ("process", "sink-erp", "sink-crm")]

        assert "erp.customer: no poll without news since the last outcome" in why_not_quiet(
            a_picture(*sinks, traffic=traffic)
        )

    def test_needs_a_first_poll(self):
        beat = capture_with("crm.account", last_empty_poll_began_at=None, state="snapshot")

        assert ["crm.account: no poll without news yet"] == why_not_quiet(a_picture(beat))

    def test_names_an_entity_that_nobody_captures(self):
        beat = a_beat("capture", entities={name: a_look() for name in ENTITIES if name != "erp.customer"})

        assert ["erp.customer: nobody captures it"] == why_not_quiet(a_picture(beat))

    def test_names_an_entity_whose_capture_was_stopped(self):
        """Too many deletes at once: until somebody confirms them, what is edited there is not seen."""
        beat = capture_with("erp.customer", state="stopped", reason="DRW-6001")

        assert ["erp.customer: capture is stopped, DRW-6001"] == why_not_quiet(a_picture(beat))

    def test_says_why_an_entity_is_late(self):
        beat = capture_with("erp.customer", state="waiting", reason="DRW-6003", last_empty_poll_began_at=None)

        assert ["erp.customer: no poll without news yet (waiting, DRW-6003)"] == why_not_quiet(a_picture(beat))

    def test_takes_the_entities_of_all_capture_processes_together(self):
        """Each entity has one owner; several processes share them."""
        half = len(ENTITIES) // 2
        one = a_beat("capture", pid=11, entities={name: a_look() for name in ENTITIES[:half]})
        other = a_beat("capture", pid=12, entities={name: a_look() for name in ENTITIES[half:]})

        assert [] == why_not_quiet(a_picture(one, other))

    def test_minds_only_entities_of_the_mappings(self):
        beat = a_beat("capture", entities={"erp.customer": a_look()})

        assert [] == why_not_quiet(a_picture(beat, entities=["erp.customer"]))

    def test_holds_for_a_system_in_which_nothing_ever_happened(self):
        traffic = Traffic(lag={})
        beats = [a_beat(stage, last_outcome_at=None) for stage in ("process", "sink-erp", "sink-crm")]

        assert [] == why_not_quiet(a_picture(*beats, traffic=traffic))


class TestWhyNotQuietSince:
    def test_finds_nothing_when_all_was_looked_at_since(self):
        assert [] == why_not_quiet(a_picture(), since=LAST_POLL)

    def test_needs_a_poll_that_began_since(self):
        """A poll that began before an edit need not have seen it."""
        since = LAST_POLL + timedelta(microseconds=1)

        assert "crm.account: no poll without news since the wait began" in why_not_quiet(a_picture(), since=since)

    def test_needs_a_sweep_of_ids_in_the_erp(self):
        """Polls by time of modification do not see that a record is gone."""
        beat = capture_with("erp.customer", last_empty_sweep_began_at=ago(60).isoformat())

        assert ["erp.customer: ids not listed since the wait began"] == why_not_quiet(a_picture(beat), since=LAST_POLL)

    def test_needs_none_in_the_crm(self):
        """Its polls name what was deleted."""
        beat = capture_with("crm.account", last_empty_sweep_began_at=None)

        assert [] == why_not_quiet(a_picture(beat), since=LAST_POLL)


class TestUnhurriedEntities:
    def test_are_those_that_a_hint_would_help(self):
        """Who was looked at needs none, and who was stopped does not look."""
        looks = {
            "erp.customer": a_look(last_empty_sweep_began_at=None),
            "erp.salesperson": a_look(),
            "crm.account": a_look(state="stopped", reason="DRW-6001", last_empty_poll_began_at=None),
            "crm.systemuser": a_look(last_empty_poll_began_at=None),
        }
        picture = a_picture(a_beat("capture", entities=looks), entities=[*looks, "crm.bcbi_company"])

        assert ["erp.customer", "crm.systemuser"] == unhurried_entities(picture, since=LAST_POLL)


class TestLive:
    def test_leaves_out_who_has_been_silent(self):
        """A process on another machine that died says nothing any more."""
        fresh, old = a_beat("process", at=ago(BEAT_MAX_AGE_S)), a_beat("sink-erp", at=ago(BEAT_MAX_AGE_S + 0.1))

        assert [fresh] == live([old, fresh], now=NOW)

    def test_leaves_out_who_is_gone_from_this_host(self):
        """A process that was killed cannot take back what it said last."""
        here, there = a_beat("process", pid=7), a_beat("process", pid=7, host="there")

        assert [there] == live([here, there], now=NOW, host="here", is_running=lambda _pid: False)


class TestReadBeat:
    def test_takes_all_that_was_said(self):
        said = {"stage": "process", "pid": 5, "host": "h", "at": NOW.isoformat(), "state": "running", "in_flight": 2}

        beat = read_beat(json.dumps(said).encode())
        assert beat is not None
        assert 2 == beat.number("in_flight")
        assert NOW == beat.at

    @pytest.mark.parametrize(
        "value",
        [
            None,
            b"",
            b"no json",
            b"[]",
            b"{}",
            b'{"stage": "process", "pid": 1, "host": "h", "state": "running", "at": "yesterday"}',
            b'{"stage": "process", "pid": 1, "host": "h", "state": "running", "at": "2026-05-01T12:00:00"}',
        ],
    )
    def test_passes_over_what_is_none(self, value: bytes | None):
        """Anything may lie in a topic; a time without a zone is no time."""
        assert read_beat(value) is None


class TestToJson:
    def test_has_the_shape_that_others_rely_on(self):
        letters = count_letters([a_letter("1"), a_letter("2", code="DRW-3007", cause="ambiguous-match a")])

        told = to_json(a_picture(letters=letters))
        assert {"stages", "lag", "dead_letters", "brakes", "notes", "quiet", "why_not_quiet"} == set(told)
        assert set(STAGES) == set(told["stages"])
        assert {"pid": 2, "state": "running"}.items() <= told["stages"]["process"][0].items()
        assert {"pairs.work": 0} == told["lag"]
        assert True is told["quiet"]
        assert [] == told["why_not_quiet"]
        assert {
            "open": 2,
            "by_code": {"DRW-3001": 1, "DRW-3007": 1},
            "by_cause": {"owner-not-coupled x": 1, "ambiguous-match a": 1},
        } == told["dead_letters"]
        json.dumps(told)

    def test_lists_a_stage_that_does_not_run(self):
        told = to_json(without(a_picture(), "sink-crm"))

        assert [] == told["stages"]["sink-crm"]
        assert False is told["quiet"]


class TestCountLetters:
    def test_counts_open_ones_by_cause(self):
        """One missing owner with many dependants is one cause."""
        letters = [a_letter(str(number)) for number in range(3)]
        closed = [a_letter("4", state=LetterState.CLOSED), a_letter("5", state=LetterState.DISCARDED)]

        counts = count_letters([*letters, *closed])
        assert (3, {"owner-not-coupled x": 3}) == (counts.open, counts.by_cause)

    def test_names_the_kind_where_there_is_no_cause(self):
        assert {"owner-not-coupled": 1} == count_letters([a_letter("1", cause="")]).by_cause


def a_letter(letter_id: str, **values: Any) -> DeadLetter:
    full: Mapping[str, Any] = {
        "letter_id": letter_id,
        "code": "DRW-3001",
        "slug": "owner-not-coupled",
        "mapping": "customer-account",
        "home": "h",
        "ref": "erp:customer:h",
        "direction": "to_crm",
        "cause": "owner-not-coupled x",
        "opened_at": NOW,
        "changed_at": NOW,
    }
    return DeadLetter(**{**full, **values})
