"""When the stages count as healthy: they move, as long as there is something to move."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from drawbar.health import Memory, Sight, Trouble, judge, stage_of, to_json, topics_of
from drawbar.status import CONSUMED, STAGES, Beat, Behind
from tests.cli.test_status import NOW, a_beat, a_look, a_picture, ago

LIMIT_S = 60


def a_sight(*beats: Beat, **values) -> Sight:
    """An idle system that captures nothing; each of `beats` stands for the idle process of its stage."""
    if not any(beat.stage == "capture" for beat in beats):
        beats = (*beats, a_beat("capture", entities={}))
    return Sight(beats=a_picture(*beats).beats, **{"entities": (), **values})


def an_entity(**look) -> Beat:
    return a_beat("capture", entities={"erp.customer": a_look(**look)})


def troubles(sight: Sight, *, then: Sight | None = None, after_s: float = LIMIT_S) -> list[str]:
    """What is wrong `after_s` later, when `sight` is seen again, or `then`."""
    memory: Memory = judge(sight, {}, now=NOW, stands_still_s=LIMIT_S).memory
    now = NOW + timedelta(seconds=after_s)
    return [trouble.what for trouble in judge(then or sight, memory, now=now, stands_still_s=LIMIT_S).troubles]


class TestJudge:
    def test_finds_an_idle_system_healthy(self):
        """Nothing to do, nothing done: for as long as it likes."""
        assert [] == troubles(a_sight(), after_s=100_000)

    def test_finds_a_backlog_healthy_that_gets_shorter(self):
        """A first synchronisation has lag for hours, and works."""
        before = a_sight(behind={("pairs.work", 3): Behind(100, 9000)})
        after = a_sight(behind={("pairs.work", 3): Behind(101, 9500)})

        assert [] == troubles(before, then=after, after_s=30)

    @pytest.mark.parametrize("topic", CONSUMED)
    def test_is_red_when_messages_wait_and_none_is_worked_off(self, topic: str):
        """Whatever else moves: this partition does not."""
        sight = a_sight(behind={(topic, 3): Behind(100, 12)})

        assert f"{topic}[3]: 12 messages, and none worked off" in troubles(sight)
        assert [] == troubles(sight, after_s=LIMIT_S - 1)

    def test_says_of_which_stage_and_since_when(self):
        sight = a_sight(behind={("crm.commands", 0): Behind(-1, 2)})
        memory = judge(sight, {}, now=ago(90), stands_still_s=LIMIT_S).memory

        (trouble,) = judge(sight, memory, now=NOW, stands_still_s=LIMIT_S).troubles
        assert Trouble("sink-crm", "crm.commands[0]: 2 messages, and none worked off", ago(90)) == trouble

    def test_names_the_reason_of_a_pause(self):
        paused = a_beat("sink-crm", state="paused", paused_reason="unavailable")
        sight = a_sight(paused, behind={("crm.commands", 0): Behind(4, 2)})

        assert "crm.commands[0]: 2 messages, and none worked off (paused: unavailable)" in troubles(sight)

    def test_does_not_mind_a_pause_without_work(self):
        sight = a_sight(a_beat("sink-crm", state="paused", paused_reason="throttled"))

        assert [] == troubles(sight, after_s=0)

    def test_forgets_what_has_moved(self):
        """A position behind which messages wait again is another one: its time begins anew."""
        stuck = a_sight(behind={("pairs.work", 0): Behind(5, 1)})
        memory = judge(stuck, {}, now=ago(300), stands_still_s=LIMIT_S).memory
        memory = judge(a_sight(), memory, now=ago(2), stands_still_s=LIMIT_S).memory

        assert () == judge(stuck, memory, now=NOW, stands_still_s=LIMIT_S).troubles

    @pytest.mark.parametrize("stage", STAGES)
    def test_is_red_when_a_stage_does_not_report(self, stage: str):
        sight = a_sight()
        without = replace(sight, beats=[beat for beat in sight.beats if beat.stage != stage])

        assert "no process reports" in troubles(without)
        assert [] == troubles(without, after_s=1)

    def test_is_red_when_a_process_does_not_come_to_work(self):
        """A recovery is given its time as long as it reads rows."""
        begun = a_beat("process", state="recovering", view_rows=10)
        further = a_beat("process", state="recovering", view_rows=5000)

        assert "process (2): recovering" in troubles(a_sight(begun))
        assert [] == troubles(a_sight(begun), then=a_sight(further), after_s=30)

    def test_is_red_while_a_command_is_not_answered(self):
        """It was sent again, so its time was up; a command that waits its turn behind others is not sent again."""
        told = {"unanswered": 2, "unanswered_since": ago(130).isoformat()}

        assert ["2 commands were sent again and are not answered"] == troubles(
            a_sight(a_beat("process", **told)), after_s=0
        )
        assert [] == troubles(a_sight(a_beat("process", in_flight=900, oldest_in_flight_s=400)), after_s=0)

    def test_is_red_for_all_stages_when_the_broker_is_away(self):
        """Nothing moves then; what the stages said last is old and judged no more."""
        away = Sight(beats=(), is_bus_there=False)

        assert ["the broker does not answer"] * len(STAGES) == troubles(away)
        assert [] == troubles(away, after_s=5)


class TestJudgeOfCapture:
    def test_is_red_at_once_when_somebody_must_act(self):
        beat = an_entity(state="stopped", reason="DRW-6001", last_poll_finished_at=ago(1).isoformat())

        assert ["erp.customer: not captured until somebody acts, DRW-6001"] == troubles(a_sight(beat), after_s=0)

    def test_is_red_when_the_last_poll_is_too_old(self):
        """Also at the first look: the poll itself says how old it is."""
        beat = an_entity(state="waiting", reason="DRW-7001", last_poll_finished_at=ago(61).isoformat())

        assert ["erp.customer: no poll was finished, DRW-7001"] == troubles(a_sight(beat), after_s=0)

    def test_counts_in_intervals_when_they_are_long(self):
        """Who polls every minute has not failed after one."""
        beat = an_entity(last_poll_finished_at=ago(120).isoformat(), poll_interval_s=60)

        assert [] == troubles(a_sight(beat), after_s=0)

    def test_finds_a_long_snapshot_healthy_while_it_asks_for_pages(self):
        def reading(requests: int) -> Sight:
            beat = an_entity(state="snapshot", last_poll_began_at=ago(900).isoformat(), requests=requests)
            return a_sight(beat)

        assert [] == troubles(reading(3), then=reading(4))
        assert ["erp.customer: a poll is under way and asks for nothing"] == troubles(reading(3))

    def test_is_red_when_nobody_captures_an_entity(self):
        sight = a_sight(a_beat("capture", entities={}), entities=("crm.account",))

        assert ["crm.account: nobody captures it"] == troubles(sight)


class TestStages:
    def test_share_every_topic_that_is_consumed(self):
        """No topic's lag is nobody's business."""
        assert sorted(CONSUMED) == sorted(topic for stage in STAGES for topic in topics_of(stage))
        assert {topic: stage for stage in STAGES for topic in topics_of(stage)} == {
            topic: stage_of(topic) for topic in CONSUMED
        }


class TestToJson:
    def test_lists_every_stage(self):
        sight = a_sight(behind={("erp.commands", 0): Behind(0, 1)})
        memory = judge(sight, {}, now=ago(61), stands_still_s=LIMIT_S).memory

        said = to_json(judge(sight, memory, now=NOW, stands_still_s=LIMIT_S), stages=STAGES, now=NOW)
        assert "red" == said["status"]
        assert [(stage, []) for stage in STAGES if stage != "sink-erp"] == [
            item for item in said["stages"].items() if item[0] != "sink-erp"
        ]
        assert [61.0] == [trouble["for_s"] for trouble in said["stages"]["sink-erp"]]
