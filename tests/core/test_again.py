"""The same message again sends the same again; a whole stretch of messages again ends where it ended.

A broker delivers what was not acknowledged once more: the last message of a home (rule 6), or, after a worker was
killed, everything since the last commit, in order.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from processors.react import react
from schemas.coupling import Emission, Row
from schemas.records import OrderKind, OutcomeStatus
from tests.builders import a_change, a_customer, a_small_account, a_small_customer, an_account, an_observed, small
from tests.core.played import BY_HAND, Played
from tests.core.test_flow import full


def just_created() -> Played:
    return Played(small(match=())).customer("X").written({})


def updated() -> Played:
    return Played(BY_HAND).coupled().customer(order=20, phoneNumber="1").written()


def under_way() -> Played:
    return Played(BY_HAND).coupled().customer(order=20, phoneNumber="1")


def refused() -> Played:
    return under_way().rejected()


def conflicted() -> Played:
    played = Played(small(create="none", match=(), conflict="dead_letter")).coupled()
    return played.customer(order=20, phoneNumber="1").conflict(telephone1="2")


def waiting() -> Played:
    return full(salesperson="KL")


def corrected() -> Played:
    return waiting().change(a_change("erp:customer:C", order=20, state=a_customer(salespersonCode=None)))


def counterpart_deleted() -> Played:
    return Played(BY_HAND).coupled().deleted("crm:account:A")


def restored() -> Played:
    return Played(small(match=(), deletes="restore")).customer("X").written({}).deleted("crm:account:X")


def restored_in_erp() -> Played:
    return Played(small(match=(), deletes="restore")).customer("X").written({}).deleted("erp:customer:X")


def both_deleted() -> Played:
    return Played(BY_HAND).coupled().deleted("erp:customer:C").deleted("crm:account:A")


def uncoupled() -> Played:
    return Played(BY_HAND).coupled().uncouple()


def recoupled() -> Played:
    return Played(BY_HAND).coupled().uncouple().customer("D").couple("D", "A")


def unstamping() -> Played:
    return full().uncouple()


def unstamped() -> Played:
    return full().uncouple().written()


def refused_claim() -> Played:
    return Played(BY_HAND).coupled().customer("D").couple("D", "A")


def given_back() -> Played:
    return Played(BY_HAND).coupled().account("B").couple("C", "B")


def ambiguous() -> Played:
    return Played().customer().found(an_observed("A"), an_observed("B"))


def retried() -> Played:
    played = refused()
    return played.order(OrderKind.RETRY, home="C")


def discarded() -> Played:
    played = waiting()
    (letter,) = played.open_letters()
    return played.order(OrderKind.CLOSE, home="C", letter_id=letter.letter_id)


def resent() -> Played:
    return under_way().order(OrderKind.RESEND, home="C", by="timeout")


def forwarded() -> Played:
    return Played(BY_HAND).coupled().account(order=20, telephone1="9").written(a_small_customer())


STORIES: tuple[Callable[[], Played], ...] = (
    just_created,
    updated,
    under_way,
    refused,
    conflicted,
    waiting,
    corrected,
    counterpart_deleted,
    restored,
    restored_in_erp,
    both_deleted,
    uncoupled,
    recoupled,
    unstamping,
    unstamped,
    refused_claim,
    given_back,
    ambiguous,
    retried,
    discarded,
    resent,
    forwarded,
)


def essence(row: Row | None) -> Row | None:
    """What a row says, without what its last message sent, orders that wait, and how often it sent."""
    if row is None or row.is_empty:
        return None
    pair = row.pair
    if pair is not None and pair.in_flight is not None:
        pair = replace(pair, in_flight=replace(pair.in_flight, sends=0))
    return replace(row, last=Emission(), deferred=(), pair=pair)


class TestTheLastMessageAgain:
    @pytest.mark.parametrize("story", STORIES)
    def test_sends_the_same_and_changes_nothing(self, story: Callable[[], Played]):
        """Rule 6: commands, orders, letters and lines alike, with the same ids."""
        played = story()
        for home, works in played.log.items():
            row = played.rows.get(home)
            if row is None or row.last.cause_id != works[-1].message_id:
                continue
            again = react(works[-1], row, played.world, now=played.now)

            assert row == again.row
            assert (row.last.works, row.last.letters, row.last.lines) == (again.works, again.letters, again.lines)
            assert again.command is None or again.command == row.pair.in_flight.command

    def test_sends_a_command_only_while_it_is_not_answered(self):
        played = under_way()
        work = played.log["C"][-1]

        assert played.command == react(work, played.rows["C"], played.world, now=played.now).command
        played.written()
        assert None is react(work, played.rows["C"], played.world, now=played.now).command

    def test_makes_the_same_command_from_scratch(self):
        """A worker killed before the row was durable decides anew, and comes to the same id."""
        first, second = under_way(), under_way()

        assert first.command.command_id == second.command.command_id
        assert first.log["C"][-1] == second.log["C"][-1]


class TestAStretchOfMessagesAgain:
    @pytest.mark.parametrize("story", STORIES)
    @pytest.mark.parametrize("last", [2, 3, 4])
    def test_of_one_home_ends_where_it_ended(self, story: Callable[[], Played], last: int):
        """The worker of one partition was killed before its commit: its messages come again, in order."""
        for home in list(story().log):
            played = story()
            before = {name: essence(row) for name, row in played.rows.items()}
            coupled, answered = played.pairs(), list(played.commands)
            played.again(home, last=last)

            assert coupled == played.pairs(), home
            assert played.claim_is_whole(), home
            fresh = [command for command in played.commands if command not in answered]
            assert [] == fresh, home
            assert before == {name: essence(played.rows.get(name)) for name in before}, home

    def test_of_an_old_coupling_does_not_undo_a_later_uncoupling(self):
        """The order to couple comes again after the record was given back: its claim is spent."""
        played = uncoupled().again("A", last=2)

        assert set() == played.pairs()

    def test_of_a_claim_that_was_given_back_does_not_couple_later(self):
        """The account's home was killed after it granted, and granted again; meanwhile the first grant came to nothing
        and the customer is on its own: taken up now, account B would belong to two.
        """
        played = given_back()
        granted = [work for work in played.log["C"] if work.order and work.order.kind is OrderKind.CLAIMED][-1]
        played.uncouple()
        played.post(granted)
        played.run()

        assert set() == played.pairs()
        assert None is played.rows["B"].home

    def test_of_old_events_finds_rows_that_know_better(self):
        """G4."""
        played = updated()
        for order, number in ((10, None), (20, "1")):
            played.customer(order=order, phoneNumber=number).account(order=order, telephone1="555")

        assert [] == played.commands
        assert "1" == played.pair().erp.state["phoneNumber"]

    def test_of_an_answer_that_was_taken_is_ignored(self):
        played = under_way()
        command = played.command
        played.written(order=50)
        observed = Played.observed(command, order=50, state=a_small_account(telephone1="1"))
        played.answer(OutcomeStatus.WRITTEN, command, observed=observed)

        assert [] == played.commands
        assert {"1"} == {played.pair().erp.state["phoneNumber"], played.pair().crm.state["telephone1"]}

    def test_account_of_the_builders_is_inside_its_filter(self):
        assert {"statecode": 0, "customertypecode": 3}.items() <= an_account().items()
