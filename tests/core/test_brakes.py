"""Brakes: what is kept back and how it goes on, and how many changed records are too many."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from processors.brakes import Brakes, Limits, let_through, paused, resumed
from processors.turn import World
from schemas.brakes import ALL, Brake, brake_key, read_brake
from schemas.coupling import Pair, Row
from schemas.records import CommandKind, OrderKind, OutcomeStatus
from tests.builders import NOON, a_small_account, a_world, small
from tests.core.played import BY_HAND, Played

M = BY_HAND.name
TO_CRM, TO_ERP = brake_key(M, "to_crm"), brake_key(M, "to_erp")
EVERY = (TO_CRM, TO_ERP, "other:to_crm")


def after(seconds: float):
    return NOON + timedelta(seconds=seconds)


def a_brake(*, on: bool = True, **changed: object) -> Brake:
    return replace(Brake(on=on, by="ann", at=NOON), **changed)  # type: ignore[arg-type]


def a_stop() -> Brake:
    return a_brake(by="process 1", code="DRW-8001")


def a_changed_row(home: str, at_s: float = 0, *, direction: str = "to_crm") -> Row:
    return Row(mapping=M, id=home, pair=Pair(in_step=True, updated={direction: after(at_s)}))


def brakes_with(count: int, *, at_s: float = 0, limits: Limits | None = None) -> Brakes:
    """So many records were changed towards the CRM."""
    brakes = Brakes(limits=limits)
    for number in range(count):
        brakes.note(a_changed_row(str(number), at_s), now=after(at_s))
    return brakes


def too_much(brakes: Brakes, home: str = "new", *, coupled: int = 100, at_s: float = 1) -> bool:
    return brakes.is_too_much(M, "to_crm", home, coupled=coupled, now=after(at_s))


class TestTooMuch:
    @pytest.mark.parametrize(
        ("changed", "coupled", "expected"),
        [
            (49, 10, False),  # the fiftieth may go
            (50, 10, True),  # the next one not, be the mapping ever so small
            (50, 250, True),  # a fifth of it
            (50, 254, True),  # parts of a record do not count
            (50, 255, False),  # 51 of them are a fifth
            (51, 255, True),
            (199, 1000, False),
            (200, 1000, True),
        ],
    )
    def test_is_more_than_fifty_records_and_more_than_a_fifth(self, changed: int, coupled: int, expected: bool):
        assert expected is too_much(brakes_with(changed), coupled=coupled)

    def test_is_never_a_record_that_counts_already(self):
        """Records are counted, not writes."""
        assert not too_much(brakes_with(50), "7")

    def test_forgets_what_is_older_than_the_window(self):
        brakes = brakes_with(50)

        assert too_much(brakes, at_s=3599)
        assert not too_much(brakes, at_s=3600)

    def test_counts_a_record_from_its_last_write_on(self):
        brakes = brakes_with(50)
        brakes.note(a_changed_row("0", 1800), now=after(1800))

        assert {TO_CRM: {"changed": 1, "allowed": 50}} == brakes.figures({M: 10}, now=after(3700))

    def test_does_not_mind_in_which_order_rows_are_read(self):
        """At a start they come partition by partition."""
        brakes = Brakes(limits=Limits(at_least=1))
        for home, at_s in (("a", 500), ("b", 100), ("a", 200), ("c", 900)):
            brakes.note(a_changed_row(home, at_s), now=after(900))

        assert 2 == brakes.figures({M: 0}, now=after(3600 + 100))[TO_CRM]["changed"]
        assert 1 == brakes.figures({M: 0}, now=after(3600 + 500))[TO_CRM]["changed"]

    def test_is_asked_for_each_direction(self):
        brakes = brakes_with(50)

        assert not brakes.is_too_much(M, "to_erp", "new", coupled=10, now=after(1))

    def test_is_nothing_at_a_share_of_one(self):
        assert not too_much(brakes_with(500, limits=Limits(share=1)))

    def test_begins_anew_when_somebody_let_it_happen(self):
        brakes = brakes_with(50)
        brakes.take(TO_CRM, let_through(a_stop(), by="ann", at=after(10), free_for=None))
        brakes.note(a_changed_row("0", 5), now=after(20))  # a row that comes late still counts for then

        assert not too_much(brakes, at_s=20)
        assert {TO_CRM: {"changed": 0, "allowed": 50}} == brakes.figures({M: 10}, now=after(20))

    def test_is_nothing_for_as_long_as_somebody_said(self):
        brakes = Brakes(limits=Limits(at_least=1))
        brakes.take(TO_CRM, let_through(a_stop(), by="ann", at=NOON, free_for=timedelta(seconds=60)))
        brakes.note(a_changed_row("a", 30), now=after(30))
        assert not too_much(brakes, at_s=60)

        brakes.note(a_changed_row("b", 61), now=after(61))
        assert too_much(brakes, at_s=62, coupled=1)
        assert 1 == brakes.figures({M: 1}, now=after(62))[TO_CRM]["changed"]


class TestBrakes:
    def test_keep_back_one_direction_of_one_mapping(self):
        brakes = Brakes()
        brakes.take(TO_CRM, a_brake())

        assert (True, False, False) == (
            brakes.keeps_back(M, "to_crm"),
            brakes.keeps_back(M, "to_erp"),
            brakes.keeps_back("other", "to_crm"),
        )

    def test_keep_back_everything(self):
        brakes = Brakes()
        brakes.take(ALL, a_brake())

        assert brakes.keeps_back("a mapping of tomorrow", "to_erp")

    def test_are_off_when_the_topic_says_so(self):
        brakes = Brakes()
        brakes.take(TO_CRM, a_brake())
        brakes.take(TO_CRM, a_brake(on=False))

        assert not brakes.keeps_back(M, "to_crm")

    def test_that_went_on_here_hold_before_the_topic_says_so(self):
        brakes = Brakes()
        key, brake = brakes.stop(M, "to_crm", by="process 1", now=NOON)

        assert (TO_CRM, "DRW-8001", True) == (key, brake.code, brakes.keeps_back(M, "to_crm"))

    def test_tell_which_message_put_one_on(self):
        """So that of several processes that stop at once, one gives the alarm."""
        brakes = Brakes()

        assert [True, False] == [brakes.take(TO_CRM, a_stop()), brakes.take(TO_CRM, a_stop())]
        assert not brakes.take(TO_CRM, a_brake(on=False))

    def test_travel_as_text(self):
        brake = let_through(a_stop(), by="ann", at=after(10), free_for=timedelta(minutes=1))

        assert brake == read_brake(brake.to_text())

    @pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"state": "maybe", "by": "a", "at": "2026-01-01"}'])
    def test_that_cannot_be_read_are_on(self, text: bytes):
        """Somebody wanted something held; a person can take it off."""
        assert (True, False) == (read_brake(text).on, read_brake(text).is_automatic)


class TestSetting:
    """What a command has to set."""

    def test_leaves_alone_what_is_on(self):
        """Who paused it first, and why, stays known."""
        before = {TO_CRM: a_stop()}

        assert {TO_ERP} == set(paused((TO_CRM, TO_ERP), before, by="bob", at=NOON, reason=""))

    def test_resumes_what_a_person_paused(self):
        before = {TO_CRM: a_stop(), TO_ERP: a_brake()}
        wanted = resumed((ALL,), before, EVERY, by="bob", at=NOON)

        assert {TO_ERP: False} == {key: brake.on for key, brake in wanted.items()}

    def test_resumes_a_part_of_everything(self):
        """The others are held before the brake of everything comes off."""
        wanted = resumed((TO_CRM,), {ALL: a_brake(reason="stocktaking")}, EVERY, by="bob", at=after(1))

        assert [(TO_ERP, True), ("other:to_crm", True), (ALL, False)] == [(key, one.on) for key, one in wanted.items()]
        assert ("ann", "stocktaking") == (wanted[TO_ERP].by, wanted[TO_ERP].reason)

    def test_keeps_what_was_let_through(self):
        """A pause afterwards does not make it count again."""
        released = let_through(a_stop(), by="ann", at=after(5), free_for=None)
        again = paused((TO_CRM,), {TO_CRM: released}, by="bob", at=after(9), reason="")[TO_CRM]

        assert (True, "", after(5)) == (again.on, again.code, again.let_through_at)


def played_under(*keys: str, **changed: object) -> Played:
    """Customer and account, coupled and in step, then these brakes."""
    world: World = a_world(BY_HAND, brakes=Brakes(**changed))  # type: ignore[arg-type]
    played = Played(BY_HAND, world=world).coupled()
    assert played.pair().in_step
    for key in keys:
        world.brakes.take(key, a_brake())
    return played


def retried(played: Played) -> Played:
    return played.order(OrderKind.RETRY, home="C", by="release")


class TestAPausedDirection:
    def test_holds_its_writes_and_lets_the_other_go_on(self):
        played = played_under(TO_CRM).customer(order=20, phoneNumber="1")
        assert [] == played.commands
        assert ("would-write", "update, paused") in played.events("would-write")

        played.account(order=20, name="New")
        assert {"displayName": "New"} == dict(played.command.values)
        assert {"to_crm": ("telephone1",)} == {way: kept.fields for way, kept in played.pair().kept_back.items()}

    def test_writes_once_what_changed_ten_times(self):
        """And since the first of them it is held."""
        played = played_under(TO_CRM)
        since = played.now
        for number in range(10):
            played.customer(order=20 + number, phoneNumber=str(number))
            played.now += timedelta(seconds=1)
        assert since == played.pair().kept_back["to_crm"].since

        played.world.brakes.take(TO_CRM, a_brake(on=False))
        assert {"telephone1": "9"} == dict(retried(played).command.values)
        played.written(order=50)
        assert ([], {}) == (played.commands, played.pair().kept_back)

    def test_forgets_what_was_taken_back_meanwhile(self):
        """The phone number is again what both had: nothing is due."""
        played = played_under(TO_CRM)
        before = played.pair().erp.state["phoneNumber"]
        played.customer(order=20, phoneNumber="1").customer(order=21, phoneNumber=before)

        assert {} == played.pair().kept_back

    def test_lets_a_command_under_way_finish_and_no_other_leave(self):
        played = played_under().customer(order=20, phoneNumber="1")
        played.world.brakes.take(TO_CRM, a_brake())
        played.customer(order=21, phoneNumber="2").written(order=50)

        assert [] == played.commands
        assert "1" == played.pair().crm.state["telephone1"]
        assert ("telephone1",) == played.pair().kept_back["to_crm"].fields

    def test_sends_an_unanswered_command_again(self):
        """It left before the brake went on."""
        played = played_under().customer(order=20, phoneNumber="1")
        played.world.brakes.take(ALL, a_brake())
        played.commands.clear()

        assert CommandKind.UPDATE is played.order(OrderKind.RESEND, home="C", by="timeout").command.kind

    def test_holds_new_records(self):
        creating = small()
        played = Played(creating, world=a_world(creating))
        played.world.brakes.take(ALL, a_brake())
        played.customer("X").found()
        assert CommandKind.CREATE is played.pair("X").kept_back["to_crm"].kind

        played.world.brakes.take(ALL, a_brake(on=False))
        played.order(OrderKind.RETRY, home="X", by="release")
        assert CommandKind.CREATE is played.command.kind

    def test_lets_a_message_that_comes_again_say_the_same(self):
        """G1: a kill between the row and what it sends loses nothing."""
        played = played_under(TO_CRM).customer(order=20, phoneNumber="1")
        said, kept = played.lines[-2:], played.pair().kept_back
        played.again("C", last=1)

        assert (said, kept, []) == (played.lines[-2:], played.pair().kept_back, played.commands)


class TestTooManyChanges:
    def test_stop_the_direction(self):
        """The write that would be one too many is held, and the step says so."""
        played = played_under(limits=Limits(at_least=1))
        played.world.brakes.note(a_changed_row("another", 3600), now=played.now)
        played.customer(order=20, phoneNumber="1")

        assert ([], "to_crm") == (played.commands, played.steps[-1].stopped)
        assert ("would-write", "update, stopped") in played.events("would-write")
        assert {"DRW-8001"} == {line.code for line in played.lines if line.event == "would-write"}

    def test_are_told_by_the_rows(self):
        played = played_under().customer(order=20, phoneNumber="1")

        assert {"to_crm": played.now} == played.pair().updated

    def test_do_not_begin_with_the_first_agreement(self):
        """Customer and account differ when they are coupled: the first synchronisation makes them agree."""
        played = Played(BY_HAND, world=a_world(BY_HAND, brakes=Brakes(limits=Limits(at_least=1))))
        played.world.brakes.note(a_changed_row("another", 3600), now=played.now)
        played.customer(phoneNumber="1").account(telephone1="2").couple()

        assert CommandKind.UPDATE is played.command.kind
        assert ({}, False) == (played.pair().updated, played.pair().in_step)
        played.written(order=50)
        assert ({}, True) == (played.pair().updated, played.pair().in_step)

    def test_do_not_begin_with_a_record_that_is_made(self):
        """Nor with what the target makes of its values, which travels back."""
        creating = small()
        played = Played(creating, world=a_world(creating)).customer("X", phoneNumber="1").found()
        state = a_small_account(**played.command.values)
        played.answer(
            OutcomeStatus.WRITTEN,
            observed=played.observed(played.command, order=50, state={**state, "telephone1": "+1"}),
        )

        assert {"phoneNumber": "+1"} == dict(played.command.values)
        assert {} == played.pair("X").updated

    def test_are_deletes_as_well(self):
        """Where the mapping carries deletes across."""
        mapping = small(create="none", match=(), deletes="propagate")
        played = Played(mapping, world=a_world(mapping, brakes=Brakes(limits=Limits(at_least=1)))).coupled()
        played.world.brakes.note(a_changed_row("another", 3600), now=played.now)
        played.deleted("erp:customer:C")

        assert ([], "to_crm") == (played.commands, played.steps[-1].stopped)
        assert CommandKind.DELETE is played.pair().kept_back["to_crm"].kind

    def test_count_no_more_after_uncoupling(self):
        """The next coupling begins with a first agreement."""
        played = played_under().uncouple()

        assert not played.rows["C"].pair.in_step

    def test_go_on_uncounted_once_somebody_let_them(self):
        """Otherwise the same records would stop it again at once."""
        played = played_under(limits=Limits(at_least=1))
        brakes = played.world.brakes
        brakes.note(a_changed_row("another", 3600), now=played.now)
        played.customer(order=20, phoneNumber="1")
        _, stop = brakes.stop(M, "to_crm", by="process 1", now=played.now)
        brakes.take(TO_CRM, let_through(stop, by="ann", at=played.now, free_for=None))
        brakes.note(a_changed_row("a third", 3601), now=after(3601))
        played.now += timedelta(seconds=5)

        assert {"telephone1": "1"} == dict(retried(played).command.values)
        assert {} == played.pair().updated

    def test_count_when_a_person_only_resumed(self):
        """A pause says nothing of what came meanwhile."""
        played = played_under(TO_CRM, limits=Limits(at_least=1)).customer(order=20, phoneNumber="1")
        played.world.brakes.note(a_changed_row("another", 3600), now=played.now)
        played.world.brakes.take(TO_CRM, a_brake(on=False))

        assert "to_crm" == retried(played).steps[-1].stopped
