"""The laws of capture, held against random worlds in which anything may end a process between any two calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drawbar.ports import NoReply, Reply
from schemas.records import Operation
from tests.producers.worlds import Rig, SimBusinessCentral, SimDataverse, World

ANCHOR = 0  # the first record is never deleted, so that there is always one to see

HTML = Reply(status=503, is_json=False)
BROKEN = Reply(status=200, is_json=False)
LIMITED = Reply(status=429, headers={"retry-after": "3"})
BAD_DAYS = (HTML, BROKEN, LIMITED, Reply(status=500, body={}), NoReply("Timeout", sent=True))

index = st.integers(0, 7)
edits = st.one_of(
    st.just(("create",)),
    st.tuples(st.just("edit"), index),
    st.tuples(st.just("begin"), index),
    st.just(("commit",)),
    st.tuples(st.just("delete"), index),
)
steps = st.one_of(
    edits,
    edits,
    st.tuples(st.just("meanwhile"), st.integers(1, 8), edits),
    st.tuples(st.just("step"), st.sampled_from([0.0, 0.1, 1.0, 4.0, 20.0])),
    st.tuples(st.just("step"), st.sampled_from([0.3, 1.0])),
    st.tuples(st.just("kill"), st.integers(1, 12)),
    st.tuples(st.just("bad day"), st.integers(0, len(BAD_DAYS) - 1)),
    st.just(("answer lost",)),
    st.just(("expire",)),
    st.just(("look",)),
    st.tuples(st.just("look while"), st.integers(1, 6), edits),
    st.just(("hide",)),
)


def edit(world: World, what: tuple[Any, ...]) -> None:
    ids = list(dict.fromkeys(record_id for record_id, _ in world.history))
    match what:
        case ("create",):
            world.create()
        case ("edit", place):
            world.edit(ids[place % len(ids)])
        case ("begin", place):
            world.begin_edit(ids[place % len(ids)])
        case ("commit",):
            world.commit_late()
        case ("delete", place) if place % len(ids) != ANCHOR:
            world.delete(ids[place % len(ids)])


def run(rig: Rig, story: list[tuple[Any, ...]]) -> None:
    for what in story:
        match what:
            case ("meanwhile" | "look while", calls, inner):
                act: Callable[[], None] = lambda inner=inner: edit(rig.world, inner)  # noqa: E731
                rig.fate.meanwhile.append((rig.fate.calls + calls, act))
                if what[0] == "look while":
                    rig.look(sweep=True)
            case ("hide",):
                rig.world.hidden = not rig.world.hidden
            case ("step", seconds):
                rig.step(after_s=seconds)
            case ("kill", calls):
                rig.fate.kill_at = rig.fate.calls + calls
                rig.step(after_s=0.5)
            case ("bad day", kind):
                rig.fate.answers.append(BAD_DAYS[kind])
            case ("answer lost",):
                rig.fate.publish_fails += 1
            case ("expire",):
                if isinstance(rig.world, SimDataverse):
                    rig.world.expire()
            case ("look",):
                rig.look(sweep=True)
            case _:
                edit(rig.world, what)


def check(rig: Rig) -> None:
    events = rig.store.events()
    states = {version: place for place, version in enumerate(rig.world.history)}
    for record_id in {event.ref.id for event in events}:
        own = [event for event in events if event.ref.id == record_id]
        orders = [event.order for event in own]
        assert sorted(set(orders)) == orders, "order grows with each event of a record"
        seen = [states[record_id, event.version] for event in own if event.operation is not Operation.DELETE]
        assert sorted(seen) == seen, "nothing older after newer"
    assert rig.truth() == rig.last(), "the last state of every record, and the end of every deleted one"


@pytest.mark.parametrize("kind", [SimBusinessCentral, SimDataverse])
class TestCapture:
    @settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow])
    @given(story=st.lists(steps, max_size=40), page=st.integers(1, 4))
    def test_publishes_every_final_state_and_no_state_after_a_newer_one(
        self, kind: type[World], story: list[tuple[Any, ...]], page: int
    ):
        """Whatever edits, late commits, deletes, shifting pages, bad answers and kills there are, once the world is
        still every record's last state is published, deletes too, and no delete of a record that can be read."""
        rig = Rig(kind, max_deletes=1000)
        rig.world.page_limit = page
        rig.world.create()

        run(rig, story)
        rig.world.hidden = False
        rig.settle()

        check(rig)

    def test_survives_a_kill_at_every_single_call(self, kind: type[World]):
        """Wherever the process is cut off, the next one goes on from what is published."""
        kill_at, was_killed = 1, True
        while was_killed:
            rig = Rig(kind, max_deletes=1000)
            ids = [rig.world.create() for _ in range(7)]
            rig.fate.kill_at = kill_at
            rig.step(after_s=1.0)
            rig.world.edit(ids[2])
            rig.world.delete(ids[3])
            rig.step(after_s=1.0)
            rig.step(after_s=20.0)
            was_killed = rig.fate.calls >= kill_at
            rig.settle()

            check(rig)
            kill_at += 1
        assert kill_at > 15
