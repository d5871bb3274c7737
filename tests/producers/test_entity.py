from __future__ import annotations

import pytest

from drawbar.ports import NoReply, Reply
from producers.entity import DELETES_UNSURE, Fenced
from schemas.codec import decode
from schemas.errors import MassDelete, PrivilegeMissing, Throttled, Undecodable, Unreachable
from schemas.records import DeadLetter, LetterState, Operation, Watermark
from schemas.topics import DEAD_LETTERS, DEAD_LETTERS_INDEX
from tests.producers.worlds import BROKEN_NAME, Rig, SimBusinessCentral, SimDataverse, World

BOTH = pytest.mark.parametrize("kind", [SimBusinessCentral, SimDataverse])


def a_rig(kind: type[World] = SimBusinessCentral, *, records: int = 5, **settings: object) -> tuple[Rig, list[str]]:
    """A world of some records whose snapshot is taken."""
    rig = Rig(kind, **settings)
    ids = [rig.world.create() for _ in range(records)]
    rig.step()
    rig.look()
    return rig, ids


@BOTH
class TestSnapshot:
    def test_reads_every_record_once(self, kind: type[World]):
        """All records, changed or not, are published as read in a snapshot."""
        rig, ids = a_rig(kind)

        assert [(record_id, Operation.SNAPSHOT) for record_id in ids] == [
            (event.ref.id, event.operation) for event in rig.store.events()
        ]

    def test_marks_its_end_in_the_watermark(self, kind: type[World]):
        """A successor polls from where the snapshot ended and publishes nothing twice."""
        rig, ids = a_rig(kind)
        rig.start()
        rig.step(after_s=1)

        watermark = decode(Watermark, rig.watermarks()[-1].value)
        assert watermark.snapshot_done
        assert len(ids) == len(rig.store.events())

    def test_is_taken_anew_for_another_set_of_fields(self, kind: type[World]):
        """A field that is captured from now on is published of every record, under the same version."""
        rig, ids = a_rig(kind)
        before = rig.truth()
        rig.fields = (*rig.fields, "number" if kind is SimBusinessCentral else "accountnumber")
        rig.start()
        rig.step(after_s=1)

        again = rig.store.events()[len(ids) :]
        assert before == {event.ref.id: event.version for event in again}
        assert {Operation.SNAPSHOT} == {event.operation for event in again}
        assert {2} == {len(event.after or {}) for event in again}

    def test_waits_for_its_turn_but_not_for_ever(self, kind: type[World]):
        """An entity whose references are not read yet lets them go first, for half a minute."""
        rig = Rig(kind)
        rig.world.create()
        rig.machine._may_begin = lambda: False
        rig.step()
        waiting = rig.machine.status()
        rig.step(after_s=31)

        assert ("waiting", False) == (waiting["state"], waiting["snapshot_done"])
        assert rig.machine.snapshot_done


@BOTH
class TestPolling:
    def test_publishes_a_change_once(self, kind: type[World]):
        """However often a row is read, one state of it is one event."""
        rig, ids = a_rig(kind)
        rig.world.edit(ids[1])
        for _ in range(5):
            rig.step(after_s=1)

        assert [Operation.SNAPSHOT, Operation.CHANGE] == [event.operation for event in rig.published(ids[1])]

    def test_publishes_two_changes_of_one_moment_in_their_order(self, kind: type[World]):
        """The order of events of a record grows even where the source's time does not."""
        rig, ids = a_rig(kind)
        rig.world.edit(ids[0])
        rig.look()
        rig.world.edit(ids[0])
        rig.look()

        orders = [event.order for event in rig.published(ids[0])]
        assert 3 == len(set(orders))
        assert sorted(orders) == orders

    def test_slows_down_when_quiet_and_speeds_up_on_a_change(self, kind: type[World]):
        """The pause between polls grows to its greatest while nothing changes."""
        rig, ids = a_rig(kind, poll_min_s=0.25, poll_max_s=1.0)
        for _ in range(10):
            rig.step(after_s=1)
        quiet = rig.machine.status()["next_poll_in_s"]
        rig.world.edit(ids[0])
        rig.step(after_s=1)

        assert (1.0, 0.25) == (quiet, rig.machine.status()["next_poll_in_s"])

    def test_looks_at_once_on_a_hint(self, kind: type[World]):
        """A hint makes a poll due, whatever the pause."""
        rig, ids = a_rig(kind)
        rig.world.edit(ids[0])
        rig.machine.look()

        assert 0 == rig.machine.due_in_s()
        rig.step()
        assert 2 == len(rig.published(ids[0]))

    def test_says_when_the_last_poll_that_found_nothing_began(self, kind: type[World]):
        """Who waits for quiet needs a completed poll that began after something."""
        rig, ids = a_rig(kind)
        rig.world.edit(ids[0])
        rig.look()
        found = rig.machine.status()
        rig.clock.seconds += 5
        began_at = rig.clock.now().isoformat()
        rig.look()
        nothing = rig.machine.status()

        assert (1, began_at, began_at) == (
            found["last_poll_events"],
            nothing["last_empty_poll_began_at"],
            nothing["last_empty_sweep_began_at"],
        )
        assert found["last_empty_poll_began_at"] < began_at

    def test_lets_go_when_another_process_took_over(self, kind: type[World]):
        """A paused process that comes back publishes nothing over its successor."""
        rig, ids = a_rig(kind)
        paused = rig.machine
        rig.start()
        rig.step(after_s=1)
        rig.world.edit(ids[0])
        paused.look()

        with pytest.raises(Fenced):
            paused.step()
        assert 1 == len(rig.published(ids[0]))


@BOTH
class TestDeletes:
    def test_are_published_with_a_tombstone_after_them(self, kind: type[World]):
        """A deleted record ends as a delete event of the next order, then a tombstone."""
        rig, ids = a_rig(kind)
        rig.world.delete(ids[2])
        rig.look()

        before, delete = rig.published(ids[2])
        assert (Operation.DELETE, before.order + 1, f"deleted:{before.order + 1}", None) == (
            delete.operation,
            delete.order,
            delete.version,
            delete.after,
        )
        topic = rig.store.topics[f"{kind.system.value}.{kind.entity}.changes"]
        assert [True, False] == [message.value is not None for message in topic[-2:]]

    def test_are_not_believed_while_nothing_can_be_read(self, kind: type[World]):
        """A lost right looks like a mass delete; no record can be seen, so none is deleted."""
        rig, ids = a_rig(kind)
        rig.world.hidden = True
        if isinstance(rig.world, SimDataverse):
            rig.world.expire()
        for _ in range(5):
            rig.step(after_s=20)
        doubt = rig.machine.status()
        rig.world.hidden = False
        rig.settle()

        assert (PrivilegeMissing.code if kind is SimDataverse else DELETES_UNSURE) == doubt["reason"]
        assert rig.truth() == rig.last()
        assert len(ids) == len(rig.store.events())

    def test_stay_pending_until_they_are_sure(self, kind: type[World]):
        """A delete in doubt is not forgotten: it is published once another record can be seen."""
        rig, (only,) = a_rig(kind, records=1)
        rig.world.delete(only)
        for _ in range(3):
            rig.step(after_s=20)
        in_doubt = len(rig.published(only))
        rig.start()
        rig.step(after_s=20)
        rig.world.create()
        rig.settle()

        assert 1 == in_doubt
        assert Operation.DELETE is rig.published(only)[-1].operation

    def test_stop_the_entity_when_there_are_too_many(self, kind: type[World]):
        """More deletes at once than allowed are published only when somebody confirms them."""
        rig, ids = a_rig(kind, records=8, max_deletes=2)
        for record_id in ids[:3]:
            rig.world.delete(record_id)
        rig.look()
        rig.world.edit(ids[7])
        rig.step(after_s=600)
        stopped = rig.machine.status()
        deletes = [event for event in rig.store.events() if event.operation is Operation.DELETE]
        rig.machine.confirm_deletes()
        rig.step()
        rig.settle()

        assert ("stopped", MassDelete.code, None, []) == (
            stopped["state"],
            stopped["reason"],
            stopped["next_poll_in_s"],
            deletes,
        )
        assert (3, sorted(ids[:3])) == (stopped["deletes"]["missing"], sorted(stopped["deletes"]["first"]))
        assert None is rig.machine.status()["deletes"]
        assert rig.truth() == rig.last()

    def test_stop_the_entity_again_in_the_next_process(self, kind: type[World]):
        """Starting again is no confirmation."""
        rig, ids = a_rig(kind, records=8, max_deletes=2)
        for record_id in ids[:3]:
            rig.world.delete(record_id)
        rig.look()
        rig.start()
        rig.step(after_s=1)

        assert ("stopped", MassDelete.code) == (rig.machine.status()["state"], rig.machine.status()["reason"])

    def test_are_read_anew_when_somebody_asks(self, kind: type[World]):
        """Every record is published once more, under the version it has."""
        rig, ids = a_rig(kind, records=3)
        before = [(event.ref, event.version) for event in rig.store.events()]
        rig.machine.capture_anew()
        rig.step()
        rig.settle()
        after = [(event.ref, event.version) for event in rig.store.events()][len(before) :]

        assert (len(ids), sorted(map(str, before))) == (len(after), sorted(map(str, after)))

    def test_need_a_confirmation_each_time(self, kind: type[World]):
        """A confirmation before there is anything to confirm, or for an earlier stop, means nothing."""
        rig, ids = a_rig(kind, records=9, max_deletes=1)
        rig.machine.confirm_deletes()
        for record_id in ids[:2]:
            rig.world.delete(record_id)
        rig.look()
        first = rig.machine.status()["state"]
        rig.machine.confirm_deletes()
        rig.step()
        for record_id in ids[2:4]:
            rig.world.delete(record_id)
        rig.look()

        assert ("stopped", "stopped") == (first, rig.machine.status()["state"])
        assert 7 == len(rig.last())

    def test_of_records_nobody_heard_of_are_no_news(self, kind: type[World]):
        """A record made and deleted between two polls leaves no event."""
        rig, _ = a_rig(kind)
        rig.world.delete(rig.world.create())
        rig.look()

        assert 5 == len(rig.store.events())


class TestLateCommits:
    def test_within_the_overlap_are_seen_by_the_next_poll(self):
        """A transaction may commit after a later time was read; the overlap reads back for it."""
        rig, ids = a_rig(overlap_s=5, sweep_interval_s=1000)
        rig.world.begin_edit(ids[0])
        rig.clock.seconds += 2
        rig.world.edit(ids[1])
        rig.look(sweep=False)
        rig.world.commit_late()
        rig.step(after_s=1)

        assert 2 == len(rig.published(ids[0]))

    def test_after_the_overlap_are_found_by_the_sweep(self):
        """They cost latency, not data."""
        rig, ids = a_rig(overlap_s=5, sweep_interval_s=1000)
        rig.world.begin_edit(ids[0])
        rig.clock.seconds += 60
        rig.world.edit(ids[1])
        rig.look(sweep=False)
        rig.step(after_s=60)
        rig.world.commit_late()
        rig.look(sweep=False)
        polled = len(rig.published(ids[0]))
        rig.look(sweep=True)

        assert (1, 2) == (polled, len(rig.published(ids[0])))

    def test_the_overlap_is_not_read_again_once_it_is_over(self):
        """A quiet entity is polled without reading its last burst each time."""
        rig, _ = a_rig(records=3, sweep_interval_s=1000)
        rig.clock.seconds += 60
        rig.world.create()
        rig.look(sweep=False)
        rig.step(after_s=10)
        seen: list[str] = []
        rig.world.page = lambda path, query, size: (
            seen.append(query["$filter"]) or Reply(status=200, body={"value": []})
        )
        rig.step(after_s=10)

        assert ["lastModifiedDateTime gt 2026-03-02T09:00:59.950Z"] == seen


class TestPages:
    def test_that_shift_hide_no_change(self):
        """A row that moves to the end while pages are read pushes another out of sight: a sweep follows at once."""
        rig, ids = a_rig(records=9, sweep_interval_s=1000)
        rig.world.page_limit = 3
        rig.clock.seconds += 60
        for record_id in ids:
            rig.world.edit(record_id)
            rig.clock.seconds += 6
        rig.fate.meanwhile.append((rig.fate.calls + 2, lambda: rig.world.edit(ids[0])))
        rig.look(sweep=False)

        assert {2} == {len(rig.published(record_id)) for record_id in ids[1:]}

    def test_that_shift_delete_nothing(self):
        """A record that a listing missed is asked for by its id before it is called deleted."""
        rig, ids = a_rig(records=9)
        rig.clock.seconds += 60
        rig.world.create()
        rig.look()
        rig.clock.seconds += 60
        rig.world.page_limit = 3
        rig.machine.look(sweep=True)
        before_the_second_page_of_ids = rig.fate.calls + 3
        rig.fate.meanwhile.append((before_the_second_page_of_ids, lambda: rig.world.delete(ids[0])))
        rig.step()

        assert ids[3] not in {event.ref.id for event in rig.store.events() if event.operation is Operation.DELETE}
        rig.look()
        assert [ids[0]] == [event.ref.id for event in rig.store.events() if event.operation is Operation.DELETE]

    def test_are_published_one_by_one_with_their_position(self):
        """Cut off in the middle of a large snapshot, the next process reads on, not anew."""
        rig = Rig(overlap_s=0, sweep_interval_s=1000)
        rig.world.page_limit = 2
        for _ in range(10):
            rig.world.create()
            rig.clock.seconds += 1
        rig.fate.kill_at = 14
        rig.step()
        before = len(rig.store.events())
        rig.step()

        assert 4 <= before < 10
        assert 10 == len(rig.store.events())
        assert rig.machine.status()["requests"] < 5 + 5  # pages of a snapshot of its own, and of the sweep after it


class TestLostPosition:
    def test_is_met_with_a_snapshot_that_finds_the_deletes_of_the_gap(self):
        """A delta link that is forgotten costs a snapshot; only what differs is published."""
        rig, ids = a_rig(SimDataverse)
        rig.world.edit(ids[1])
        rig.world.delete(ids[3])
        rig.world.expire()
        rig.look(sweep=False)
        lost = rig.machine.status()
        rig.step(after_s=1)

        assert "DRW-6002" == lost["reason"]
        assert [(ids[1], Operation.CHANGE), (ids[3], Operation.DELETE)] == [
            (event.ref.id, event.operation) for event in rig.store.events()[5:]
        ]


@BOTH
class TestFailures:
    @pytest.mark.parametrize(
        ("answer", "state", "code", "retry_in_s"),
        [
            (NoReply("Timeout", sent=True), "waiting", Unreachable.code, 0.5),
            (Reply(status=503, is_json=False), "waiting", "DRW-4003", 0.5),
            (Reply(status=200, is_json=False), "waiting", "DRW-6003", 0.5),
            (Reply(status=429, headers={"retry-after": "17"}), "waiting", Throttled.code, 17.0),
            (Reply(status=403, body={"error": {"code": "x"}}), "stopped", PrivilegeMissing.code, 60.0),
        ],
    )
    def test_are_shown_and_tried_again(
        self, kind: type[World], answer: Reply | NoReply, state: str, code: str, retry_in_s: float
    ):
        """Whatever the system answers, the entity says what is wrong and goes on when it is over."""
        rig, ids = a_rig(kind)
        rig.world.edit(ids[0])
        rig.fate.answers.append(answer)
        rig.look()
        failed = rig.machine.status()
        rig.step(after_s=retry_in_s)

        assert (state, code, retry_in_s) == (failed["state"], failed["reason"], failed["next_poll_in_s"])
        assert ("polling", "") == (rig.machine.status()["state"], rig.machine.status()["reason"])
        assert 2 == len(rig.published(ids[0]))

    def test_in_a_row_are_tried_again_ever_more_slowly_up_to_a_minute(self, kind: type[World]):
        """An outage is met with patience, without an end."""
        rig, _ = a_rig(kind)
        pauses = []
        for _ in range(10):
            rig.fate.answers.append(Reply(status=500, body={}))
            rig.step(after_s=61)
            pauses.append(rig.machine.status()["next_poll_in_s"])

        assert [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60] == pauses

    def test_of_the_bus_make_it_read_back_what_was_published(self, kind: type[World]):
        """A commit whose answer was lost may have happened: the ledger says, and nothing comes twice."""
        rig, ids = a_rig(kind)
        rig.world.edit(ids[0])
        rig.fate.publish_fails = 1
        rig.look()
        failed = rig.machine.status()["reason"]
        rig.step(after_s=1)

        assert "DRW-5001" == failed
        assert 2 == len(rig.published(ids[0]))


@BOTH
class TestUnreadableRows:
    def test_are_set_aside_once_and_their_neighbours_go_on(self, kind: type[World]):
        """A row that is not what the API promises is a dead letter with its bytes; the next process knows it."""
        rig, ids = a_rig(kind)
        rig.world.edit(ids[0], BROKEN_NAME)
        rig.world.edit(ids[1], "fine")
        rig.look()
        rig.start()
        rig.look()

        (letter,) = rig.store.topics[DEAD_LETTERS]
        (line,) = rig.store.topics[DEAD_LETTERS_INDEX]
        index = decode(DeadLetter, line.value)
        assert BROKEN_NAME.encode() in (letter.value or b"")
        assert (Undecodable.code, LetterState.OPEN, 0) == (index.code, index.state, index.offset)
        assert (1, 2) == (len(rig.published(ids[0])), len(rig.published(ids[1])))

    def test_are_closed_by_the_first_state_that_can_be_read(self, kind: type[World]):
        """Nobody has to close what healed by itself, not even after a start."""
        rig, ids = a_rig(kind)
        rig.world.edit(ids[0], BROKEN_NAME)
        rig.look()
        rig.start()
        rig.world.edit(ids[0], "fine again")
        rig.look()

        last = decode(DeadLetter, rig.store.topics[DEAD_LETTERS_INDEX][-1].value)
        assert (LetterState.CLOSED, 0) == (last.state, last.offset)
        assert rig.truth() == rig.last()
