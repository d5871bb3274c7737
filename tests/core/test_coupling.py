"""What a row learns from an event and from an outcome, and how values are told apart without being kept."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from processors.coupling import Absorbed, Fingerprints, absorb_event, absorb_outcome, agree, forget_agreement, form
from schemas.coupling import InFlight, Pair, Side
from schemas.records import CommandKind, OutcomeStatus, Value
from tests.builders import (
    COMPANY,
    NOON,
    PRINTS,
    SMALL,
    a_change,
    a_command,
    a_delete,
    a_side,
    a_small_account,
    a_small_customer,
    an_agreed_pair,
    an_observed,
    an_outcome,
    small,
)
from tests.contract.strategies import VALUES


class TestFingerprints:
    @given(VALUES, VALUES)
    def test_are_equal_for_equal_values_only(self, left: Value, right: Value):
        """Numbers by their worth, whatever their type; a blank, a zero, false and an empty text are four things."""
        same = left == right and isinstance(left, bool) == isinstance(right, bool)

        assert same == (PRINTS.of(left) == PRINTS.of(right))

    def test_say_nothing_without_the_key(self):
        other = Fingerprints.of_key("another")

        assert PRINTS.of("Jane") != other.of("Jane")
        assert PRINTS.key_id != other.key_id
        assert PRINTS == Fingerprints.of_key("test")

    def test_are_short_and_hold_nothing_of_the_value(self):
        assert 16 == len(PRINTS.of("Jane Roe " * 50))
        assert 16 == len(PRINTS.of_values([("name", "Jane")]))

    @pytest.mark.parametrize(("one", "two"), [(5, Decimal("5.00")), (0, Decimal("-0")), (1000, Decimal("1E+3"))])
    def test_of_equal_numbers_are_equal(self, one: int, two: Decimal):
        assert PRINTS.of(one) == PRINTS.of(two)

    def test_of_values_depend_on_names_and_order(self):
        pairs = [("a", "1"), ("b", "2")]

        assert PRINTS.of_values(pairs) != PRINTS.of_values([("a", "2"), ("b", "1")])
        assert PRINTS.of_values(pairs) == PRINTS.of_values(list(pairs))


def agreed(**changed: object) -> Pair:
    pair = an_agreed_pair(a_side("C", state=a_small_customer()), a_side("A", state=a_small_account()), SMALL)
    return replace(pair, **changed)  # type: ignore[arg-type]


CUSTOMER_SIDE = agreed().erp
assert CUSTOMER_SIDE is not None


def absorbed(order: int, *, side: Side | None = CUSTOMER_SIDE, **changed: object) -> tuple[Side, Absorbed]:
    state = a_small_customer(**changed)  # type: ignore[arg-type]
    return absorb_event(side, a_change(order=order, state=state), PRINTS)


class TestAbsorbEvent:
    def test_of_a_record_never_seen_is_news(self):
        side, what = absorbed(5, side=None)

        assert (Absorbed.NEWS, 5, a_small_customer(), {}) == (what, side.order, side.state, side.base)

    def test_that_is_older_is_stale(self):
        """G4: by the source's order, never by a clock."""
        assert (CUSTOMER_SIDE, Absorbed.STALE) == absorbed(9, phoneNumber="1")

    def test_that_is_known_is_an_echo(self):
        """The version names the state: our own write's, or a repeated event."""
        assert (CUSTOMER_SIDE, Absorbed.ECHO) == absorbed(10)

    def test_with_a_higher_order_but_the_known_version_is_an_echo(self):
        event = replace(a_change(order=15, state=a_small_customer()), version=CUSTOMER_SIDE.version)

        assert Absorbed.ECHO is absorb_event(CUSTOMER_SIDE, event, PRINTS)[1]

    def test_with_the_same_order_and_another_version_is_newer(self):
        """Ties go by offset in the changes topic: two commits in one millisecond."""
        event = replace(a_change(order=10, state=a_small_customer(phoneNumber="1")), version="other")
        side, what = absorb_event(CUSTOMER_SIDE, event, PRINTS)

        assert (Absorbed.NEWS, "1", "other") == (what, side.state["phoneNumber"], side.version)

    def test_of_a_version_with_more_fields_is_news(self):
        """Adding a field captures the entity anew, under the version the row knows."""
        event = replace(a_change(order=10, state=a_small_customer(city="Bonn")), version=CUSTOMER_SIDE.version)

        assert Absorbed.NEWS is absorb_event(CUSTOMER_SIDE, event, PRINTS)[1]

    def test_keeps_what_both_sides_agreed_on(self):
        side, _ = absorbed(11, phoneNumber="1")

        assert CUSTOMER_SIDE.base == side.base

    def test_remembers_when_each_field_left_the_agreement(self):
        """A later edit of another field does not make the first one younger: conflicts are decided by field."""
        first, _ = absorbed(11, phoneNumber="1")
        second, _ = absorbed(50, side=first, phoneNumber="1", displayName="Contoso")
        back, _ = absorbed(60, side=second, displayName="Contoso")

        assert {"phoneNumber": NOON + timedelta(seconds=11)} == first.touched
        assert {
            "phoneNumber": NOON + timedelta(seconds=11),
            "displayName": NOON + timedelta(seconds=50),
        } == second.touched
        assert {"displayName": NOON + timedelta(seconds=50)} == back.touched

    def test_sets_the_source_s_clock_right(self):
        """TBL-009, TBL-010: `latest` compares times, so each clock's skew, measured by Date headers, is taken off."""
        event = replace(a_change(order=11, state=a_small_customer(phoneNumber="1")), skew_ms=5000)
        side, _ = absorb_event(CUSTOMER_SIDE, event, PRINTS)

        assert {"phoneNumber": NOON + timedelta(seconds=6)} == side.touched

    def test_of_what_is_derived_are_as_old_as_their_capture(self):
        """A rate of today reaches a currency that was edited last year: the change did not take a year to cross."""
        event = a_change(order=CUSTOMER_SIDE.order, state=a_small_customer(phoneNumber="1"))
        event = replace(event, version=CUSTOMER_SIDE.version, captured_at=NOON + timedelta(days=365))
        side, _ = absorb_event(CUSTOMER_SIDE, event, PRINTS)

        assert {"phoneNumber": NOON + timedelta(days=365)} == side.touched

    def test_of_a_delete_keeps_the_last_state(self):
        """DEL-004: the coupling stays; what to do about it is decided."""
        side, what = absorb_event(CUSTOMER_SIDE, a_delete(), PRINTS)

        assert (Absorbed.DELETED, True, CUSTOMER_SIDE.state) == (what, side.deleted, side.state)

    def test_of_a_delete_come_again_is_an_echo(self):
        gone, _ = absorb_event(CUSTOMER_SIDE, a_delete(), PRINTS)

        assert (gone, Absorbed.ECHO) == absorb_event(gone, a_delete(order=30), PRINTS)

    def test_of_a_delete_counts_whatever_its_order(self):
        """Capture derives it from what it saw last; our own write may have passed that."""
        side, what = absorb_event(CUSTOMER_SIDE, a_delete(order=3), PRINTS)

        assert (Absorbed.DELETED, CUSTOMER_SIDE.order) == (what, side.order)

    def test_after_a_delete_brings_the_record_back(self):
        gone, _ = absorb_event(CUSTOMER_SIDE, a_delete(), PRINTS)
        side, what = absorbed(40, side=gone)

        assert (Absorbed.NEWS, False) == (what, side.deleted)

    def test_from_before_a_delete_does_not_bring_it_back(self):
        gone, _ = absorb_event(CUSTOMER_SIDE, a_delete(order=12), PRINTS)

        assert (gone, Absorbed.STALE) == absorbed(11, side=gone)

    @given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=8))
    def test_twice_is_once(self, events: list[tuple[int, bool]]):
        """Redelivery of any event at any time after it changes nothing."""
        side: Side | None = None
        for order, delete in events:
            event = a_delete(order=order) if delete else a_change(order=order, state={"phoneNumber": str(order)})
            side, _ = absorb_event(side, event, PRINTS)

            assert side == absorb_event(side, event, PRINTS)[0]


def in_flight(kind: CommandKind = CommandKind.UPDATE, *, direction: str = "to_crm", **values: Value) -> InFlight:
    """A command that carries `values`, decided on the customer as it stands."""
    source = a_small_customer() if direction == "to_crm" else a_small_account()
    prints = {name: PRINTS.of(value) for name, value in {**source, "phoneNumber": "1"}.items()}
    command = a_command(kind=kind, values=values)
    return InFlight(command=command, direction=direction, source_fingerprints=prints, sent_at=NOON)


def answered(pair: Pair, status: OutcomeStatus, *, order: int = 20, **state: Value) -> Pair:
    assert pair.in_flight is not None
    observed = an_observed(order=order, state=a_small_account(**state))
    return absorb_outcome(pair, an_outcome(pair.in_flight.command, status, observed=observed), SMALL, PRINTS)


class TestAbsorbOutcome:
    """The customer's phone number became "1" and a command with it is under way."""

    def pair(self, flight: InFlight | None = None) -> Pair:
        side, _ = absorb_event(CUSTOMER_SIDE, a_change(order=11, state=a_small_customer(phoneNumber="1")), PRINTS)
        return agreed(erp=side, in_flight=flight or in_flight(telephone1="1"))

    def test_written_as_meant_is_what_both_agree_on(self):
        after = answered(self.pair(), OutcomeStatus.WRITTEN, telephone1="1")

        assert None is after.in_flight
        assert PRINTS.of("1") == after.crm.base["telephone1"] == after.erp.base["phoneNumber"]
        assert ({}, {}) == (after.erp.touched, after.crm.touched)
        assert ('W/"20"', 20) == (after.crm.version, after.crm.order)

    def test_observed_as_meant_counts_as_well(self):
        """A lost reply looked up, or somebody who made the same edit."""
        after = answered(self.pair(), OutcomeStatus.OBSERVED, telephone1="1")

        assert PRINTS.of("1") == after.erp.base["phoneNumber"]

    @pytest.mark.parametrize("held", ["1 ", " 1"])
    def test_written_with_blanks_taken_off_counts_as_meant(self, held: str):
        """Rule 2: compared as the field transfer compares."""
        after = answered(self.pair(), OutcomeStatus.WRITTEN, telephone1=held)

        assert {} == after.crm.forms
        assert PRINTS.of(held) == after.crm.base["telephone1"]

    def test_written_in_a_form_of_the_target_s_own_is_a_change_of_the_target(self):
        """The target made "+1" of our "1": it travels back once, and "1" is not written there again."""
        after = answered(self.pair(), OutcomeStatus.WRITTEN, telephone1="+1")

        assert PRINTS.of("1") == after.erp.base["phoneNumber"]
        assert PRINTS.of("+1") != after.crm.base["telephone1"]
        assert {"telephone1"} == set(after.crm.touched)
        assert {"telephone1": form(PRINTS, "1", "+1")} == after.crm.forms

    def test_observed_with_another_value_agrees_on_nothing(self):
        """A conflict: somebody's edit stands, ours is still to be decided."""
        after = answered(self.pair(), OutcomeStatus.OBSERVED, telephone1="777")

        assert CUSTOMER_SIDE.base["phoneNumber"] == after.erp.base["phoneNumber"]
        assert {"phoneNumber"} == set(after.erp.touched)
        assert {"telephone1"} == set(after.crm.touched)
        assert {} == after.crm.forms

    def test_a_field_that_validation_filled_in_is_a_change_of_the_target(self):
        """It was not part of the command, so it is not our echo."""
        after = answered(self.pair(), OutcomeStatus.WRITTEN, telephone1="1", name="Fabrikam GmbH")

        assert {"name"} == set(after.crm.touched)
        assert CUSTOMER_SIDE.base["displayName"] == after.erp.base["displayName"]

    def test_an_edit_of_the_source_in_the_meantime_stays_to_be_decided(self):
        """What was agreed is what the source held when the command was decided, not what it holds now."""
        pair = self.pair()
        newer, _ = absorb_event(pair.erp, a_change(order=12, state=a_small_customer(phoneNumber="2")), PRINTS)
        after = answered(replace(pair, erp=newer), OutcomeStatus.WRITTEN, telephone1="1")

        assert PRINTS.of("1") == after.erp.base["phoneNumber"]
        assert {"phoneNumber"} == set(after.erp.touched)

    def test_a_newer_state_of_the_target_that_capture_brought_stands(self):
        """The reply is older than the event that overtook it."""
        pair = self.pair()
        event = a_change("crm:account:A", order=30, state=a_small_account(telephone1="1", name="Newer"))
        newer, _ = absorb_event(pair.crm, event, PRINTS)
        after = answered(replace(pair, crm=newer), OutcomeStatus.WRITTEN, telephone1="1")

        assert (30, "Newer") == (after.crm.order, after.crm.state["name"])
        assert PRINTS.of("1") == after.crm.base["telephone1"]
        assert {"name"} == set(after.crm.touched)

    def test_a_field_that_the_reply_does_not_hold_is_not_agreed_on(self):
        pair = self.pair()
        observed = an_observed(state={"name": "Fabrikam"})
        outcome = an_outcome(pair.in_flight.command, observed=observed)
        after = absorb_outcome(pair, outcome, SMALL, PRINTS)

        assert CUSTOMER_SIDE.base["phoneNumber"] == after.erp.base["phoneNumber"]
        assert "telephone1" in after.crm.state

    def test_of_a_create_agrees_on_every_line_that_goes_this_way(self):
        """Blanks were not sent; what the target put there is its own."""
        flight = in_flight(CommandKind.CREATE, name="Fabrikam", telephone1="1")
        pair = Pair(erp=self.pair().erp, in_flight=flight)
        after = answered(pair, OutcomeStatus.WRITTEN, telephone1="1", creditlimit=None)

        assert {"name", "telephone1", "creditlimit"} == set(after.crm.base)
        assert {} == after.crm.touched

    @pytest.mark.parametrize("status", [OutcomeStatus.REJECTED, OutcomeStatus.MISSING, OutcomeStatus.DELETED])
    def test_without_an_observation_only_frees_the_pair(self, status: OutcomeStatus):
        pair = self.pair()
        after = absorb_outcome(pair, an_outcome(pair.in_flight.command, status), SMALL, PRINTS)

        assert replace(pair, in_flight=None) == after

    def test_of_a_one_way_line_agrees_on_it(self):
        after = answered(self.pair(in_flight(creditlimit=Decimal(100))), OutcomeStatus.WRITTEN, creditlimit=100)

        assert PRINTS.of(100) == after.crm.base["creditlimit"]


class TestAgree:
    def test_makes_what_both_hold_the_agreement(self):
        pair = Pair(erp=a_side("C", state=a_small_customer()), crm=a_side("A", state=a_small_account()))
        after = agree(pair, SMALL.fields, PRINTS, company=COMPANY)

        assert PRINTS.key_id == after.key_id
        assert {"displayName", "phoneNumber", "creditLimit"} == set(after.erp.base)
        assert PRINTS.of("555") == after.crm.base["telephone1"]

    def test_takes_the_touch_away(self):
        side, _ = absorb_event(CUSTOMER_SIDE, a_change(order=11, state=a_small_customer(phoneNumber="1")), PRINTS)

        assert {} == agree(agreed(erp=side), SMALL.fields, PRINTS, company=None).erp.touched

    def test_leaves_other_lines_alone(self):
        pair = forget_agreement(agreed())

        assert {"phoneNumber"} == set(agree(pair, [SMALL.fields[1]], PRINTS, company=None).erp.base)

    def test_of_a_field_that_is_not_known_agrees_on_nothing(self):
        """Absent is not blank: when the field is captured later, its value must not look like an edit of a blank."""
        mapping = small()
        erp, crm = a_small_customer(), a_small_account()
        del erp["phoneNumber"], crm["telephone1"]
        after = agree(
            Pair(erp=a_side("C", state=erp), crm=a_side("A", state=crm)), mapping.fields, PRINTS, company=None
        )

        assert ("phoneNumber" in after.erp.base, "telephone1" in after.crm.base) == (False, False)

    def test_of_one_record_does_nothing(self):
        assert Pair(erp=CUSTOMER_SIDE) == agree(Pair(erp=CUSTOMER_SIDE), SMALL.fields, PRINTS, company=None)


class TestForgetAgreement:
    def test_leaves_two_records_that_never_agreed(self):
        """CPL-003: a fresh coupling has no sync state."""
        after = forget_agreement(agreed())

        assert ({}, {}, {}) == (after.erp.base, after.crm.base, after.crm.forms)
        assert agreed().erp.state == after.erp.state
