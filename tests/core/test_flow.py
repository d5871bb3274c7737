"""What one home does with changes, outcomes and orders: commands, letters, journal."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from processors.brakes import Brakes
from processors.mapping import FieldMapping
from processors.react import react
from schemas.codec import decode, encode, from_json, to_json
from schemas.coupling import PairState, Row
from schemas.records import CommandKind, LetterState, OrderKind, OutcomeStatus, Work
from tests.builders import (
    COMPANY,
    CUSTOMER,
    KIM,
    KIMS_USER,
    MICROSOFT,
    NOON,
    POUND_CRM,
    SALESPEOPLE,
    SMALL,
    TEAM,
    a_change,
    a_customer,
    a_small_account,
    a_view,
    a_world,
    an_account,
    an_observed,
    couple_kim,
    customer,
    small,
    work_of,
)
from tests.core.played import BY_HAND, Played

CREATING = small(match=())


def full(*, salesperson: str = "JR", **mapping: object) -> Played:
    """Customer and account under the shipped lines, coupled by hand; nobody is coupled otherwise."""
    played = Played(MICROSOFT.model_copy(update={"conflict": "latest", **mapping}))
    played.change(a_change("erp:customer:C", order=10, state=a_customer(salespersonCode=salesperson)))
    played.change(a_change("crm:account:A", order=10, state=an_account()))
    return played.couple()


class TestUpdate:
    def test_carries_version_and_what_the_decision_saw(self):
        """Rule 4, G4: conditional on what was seen; minimal."""
        played = Played(BY_HAND).coupled().customer(order=20, phoneNumber="1")
        command = played.command

        assert (CommandKind.UPDATE, {"telephone1": "1"}, 'W/"10"', "crm:account:A") == (
            command.kind,
            dict(command.values),
            command.expected_version,
            str(command.target),
        )
        assert a_small_account() == dict(command.seen)
        assert ("customer-account", "C", "customer-account:C") == (command.mapping, command.home, command_key(command))

    def test_tells_when_the_source_was_changed(self):
        """For the latency that people see."""
        assert (
            NOON + timedelta(seconds=20)
            == Played(BY_HAND).coupled().customer(order=20, phoneNumber="1").command.changed_at
        )

    def test_of_our_own_making_comes_back_as_an_echo(self):
        """REC-006, CPL-009, TBL-010: rule 2."""
        played = Played(BY_HAND).coupled().customer(order=20, phoneNumber="1").written(order=50)
        played.account(order=50, telephone1="1")

        assert [] == played.commands
        assert ("skipped", "echo") == played.events("skipped")[-1]

    def test_that_each_system_rewrites_falls_quiet(self):
        """G5: each keeps its own form of one number; every form travels once."""
        played = Played(BY_HAND).coupled().customer(order=20, phoneNumber="1").written(telephone1="+1")
        assert {"phoneNumber": "+1"} == dict(played.command.values)
        played.written(order=60, phoneNumber="01")
        assert {"telephone1": "01"} == dict(played.command.values)
        played.written(order=70, telephone1="+1")

        assert [] == played.commands

    def test_meets_somebodys_edit_of_another_field(self):
        """A conflict is an outcome: decided again on the fresh state, both edits survive."""
        played = Played(BY_HAND).coupled().customer(order=20, phoneNumber="1").conflict(name="Edited")
        command = played.command

        assert ({"telephone1": "1"}, 'W/"50"') == (dict(command.values), command.expected_version)
        played.written(order=60)
        assert {"displayName": "Edited"} == dict(played.command.values)

    def test_meets_somebodys_edit_of_the_same_field(self):
        """The later one stands: theirs."""
        played = Played(BY_HAND).coupled().customer(order=20, phoneNumber="1").conflict(order=500, telephone1="777")

        assert ("crm:account", {"phoneNumber": "777"}) == (
            "crm:account" if played.command.target.system == "erp" else "",
            dict(played.command.values),
        )

    def test_is_the_only_one_under_way(self):
        """Rule 3: later changes are parked, the latest per side; then one command for all of them."""
        played = Played(BY_HAND).coupled().customer(order=20, phoneNumber="1")
        played.customer(order=21, phoneNumber="2").customer(order=22, phoneNumber="3").account(order=20, name="New")
        assert 1 == len(played.commands)
        played.written(a_small_account(name="New"))

        assert {"telephone1": "3"} == dict(played.command.values)

    def test_of_both_directions_goes_to_the_crm_first(self):
        """R127."""
        played = Played(BY_HAND).coupled().customer(order=20, phoneNumber="1")
        played.commands.clear()
        played.rows["C"] = replace(played.rows["C"], pair=replace(played.pair(), in_flight=None))
        played.account(order=20, name="New")

        assert {"telephone1": "1"} == dict(played.command.values)
        assert ("parked", "other-direction-first") in played.events("parked")
        played.written(order=50)
        assert {"displayName": "New"} == dict(played.command.values)

    @pytest.mark.parametrize("order", [9, 10])
    def test_is_never_made_of_an_older_change(self, order: int):
        """G4."""
        played = Played(BY_HAND).coupled().customer(order=20, phoneNumber="1").written()
        played.customer(order=order, phoneNumber="old")

        assert [] == played.commands

    def test_is_not_made_while_drawbar_only_observes(self):
        played = (
            Played(BY_HAND, world=a_world(BY_HAND, brakes=Brakes(observing=True)))
            .coupled()
            .customer(order=20, phoneNumber="1")
        )

        assert [] == played.commands
        assert ("would-write", "update") in played.events("would-write")
        assert (CommandKind.UPDATE, ("telephone1",)) == (
            played.pair().kept_back["to_crm"].kind,
            played.pair().kept_back["to_crm"].fields,
        )

    def test_is_looked_up_while_drawbar_only_observes(self):
        """A look-up writes nothing, and tells what would be written: here, a new account."""
        played = Played(small(), world=a_world(small(), brakes=Brakes(observing=True))).customer()

        assert CommandKind.MATCH is played.command.kind
        played.found()
        assert [] == played.commands
        assert ("would-write", "create") in played.events("would-write")

    def test_that_was_due_while_observing_is_made_afterwards(self):
        played = (
            Played(BY_HAND, world=a_world(BY_HAND, brakes=Brakes(observing=True)))
            .coupled()
            .customer(order=20, phoneNumber="1")
        )
        played.world = replace(played.world, brakes=Brakes())
        played.order(OrderKind.RETRY, home="C", by="release")

        assert {"telephone1": "1"} == dict(played.command.values)
        assert {} == played.pair().kept_back


def command_key(command: object) -> str:
    from schemas.records import home_key

    return home_key(command.mapping, command.home)  # type: ignore[attr-defined]


class TestCreate:
    def test_takes_the_id_of_the_source_and_couples(self):
        """CPL-013, REC-001, REC-002, TBL-002, G3: the same GUID on both sides, so a create can be repeated."""
        played = Played(CREATING).customer("X")
        assert (CommandKind.CREATE, "X", None) == (
            played.command.kind,
            played.command.target.id,
            played.command.expected_version,
        )
        played.written({})

        assert ({("X", "X")}, []) == (played.pairs(), played.commands)
        assert None is not played.pair("X").coupled_at

    def test_is_not_made_twice(self):
        """CPL-013, TBL-002, REC-006: neither again, nor by the new record's own change."""
        played = Played(CREATING).customer("X").written({})
        played.account("X", order=50).account("X", order=51, telephone1="555").customer("X", order=12)

        assert [] == [command for command in played.commands if command.kind is CommandKind.CREATE]

    def test_whose_reply_was_lost_is_observed_and_coupled(self):
        """G3: found by the id we sent; what was filled in meanwhile travels back."""
        played = Played(CREATING).customer("X").conflict(name="Fabrikam", telephone1="555", creditlimit=100)

        assert {("X", "X")} == played.pairs()

    def test_then_updates_only_that_record(self):
        """REC-003, TBL-004."""
        played = Played(CREATING).customer("X").written({}).customer("X", order=60, phoneNumber="1")

        assert (CommandKind.UPDATE, "crm:account:X") == (played.command.kind, str(played.command.target))

    def test_under_another_id_is_a_dead_letter(self):
        """A server that ignores the id we send would make a twin."""
        played = Played(CREATING).customer("X")
        observed = an_observed("Y", order=50, state=a_small_account())
        played.answer(OutcomeStatus.WRITTEN, observed=observed)

        assert (set(), ["rejected"]) == (played.pairs(), [letter.slug for letter in played.open_letters()])

    def test_of_a_customer_does_not_erase_what_only_the_account_holds(self):
        """Nobody typed the default of a record that was just made: a one-way line does not carry it back."""
        played = Played(CREATING).account("X", creditlimit=5000).written({"creditLimit": 0})

        assert {("X", "X")} == played.pairs()
        assert [] == [command for command in played.commands if "creditlimit" in command.values]

    def test_of_a_customer_gives_the_account_the_number_that_the_erp_gave_it(self):
        """A one-way line fills what is blank in the record that the new one was made from."""
        number = FieldMapping(erp="number", crm="accountnumber", type="code", direction="to_crm")
        played = Played(small(match=(), fields=(*SMALL.fields, number))).account("X", accountnumber=None)

        played.written({"number": "C00001"})

        assert {"accountnumber": "C00001"} == played.command.values

    def test_of_many_is_one_each(self):
        """CPL-014, REC-004."""
        played = Played(CREATING)
        for number in range(5):
            played.customer(f"X{number}")

        assert {f"X{number}" for number in range(5)} == {command.target.id for command in played.commands}

    def test_of_a_customer_in_a_foreign_currency_names_it(self):
        """R221."""
        played = Played(customer(match=()))
        played.change(a_change("erp:customer:X", order=10, state=a_customer(currencyCode="GBP")))

        assert POUND_CRM == played.command.values["transactioncurrencyid"]

    def test_that_lost_its_reference_waits_with_a_letter(self):
        """OWN-003, LOG-001: nothing is made; one letter names the salesperson."""
        played = Played(customer(match=()))
        played.change(a_change("erp:customer:X", order=10, state=a_customer(salespersonCode="KL")))
        (letter,) = played.open_letters()

        assert [] == played.commands
        assert ("DRW-3001", f"erp:salesperson:{KIM}", "erp:customer:X", "to_crm", ("ownerid",)) == (
            letter.code,
            letter.missing,
            letter.ref,
            letter.direction,
            letter.fields,
        )
        assert letter.cause == f"owner-not-coupled erp:salesperson:{KIM}"
        assert letter.next_step


class TestLetters:
    def test_are_opened_once_however_often_it_fails(self):
        """SKP-001, SKP-003, SKP-004, LOG-001: one open letter per pair and direction; never skipped for it."""
        played = full(salesperson="KL")
        for order in (20, 21, 22):
            played.change(
                a_change("erp:customer:C", order=order, state=a_customer(salespersonCode="KL", city=str(order)))
            )

        assert 1 == len(played.letters)
        assert [] == played.commands

    def test_are_closed_by_themselves_when_the_salesperson_is_coupled(self):
        """SKP-001, SKP-007, LOG-005: the latest state goes, once; after the success nothing is to be shown."""
        played = full(salesperson="KL")
        played.change(a_change("erp:customer:C", order=20, state=a_customer(salespersonCode="KL", city="Rome")))
        couple_kim(played.world.view)
        played.order(OrderKind.RETRY, home="C", by="release")
        assert {"ownerid": f"systemuser:{KIMS_USER}", "address1_city": "Rome"} == dict(played.command.values)
        played.written()

        assert [] == played.open_letters()
        (letter,) = played.letters.values()
        assert (LetterState.CLOSED, "succeeded") == (letter.state, letter.changed_by)

    def test_are_closed_when_the_source_is_corrected(self):
        """SKP-007, E01: the field was blanked."""
        played = full(salesperson="KL")
        played.change(a_change("erp:customer:C", order=20, state=a_customer(salespersonCode=None)))

        assert [] == played.open_letters()

    def test_tell_another_reason_in_the_same_letter(self):
        """SKP-002, LOG-004: the newest cause counts; it is not a repeated failure, and not a second letter."""
        played = full(salesperson="KL")
        played.change(a_change("erp:customer:C", order=20, state=a_customer(displayName=None)))

        (letter,) = played.open_letters()
        assert ("required-field-blank", ("name",), "") == (letter.slug, letter.fields, letter.missing)
        assert 1 == len(played.letters)

    def test_keep_the_age_of_the_first_failure(self):
        played = full(salesperson="KL")
        opened = played.now
        played.now += timedelta(hours=5)
        played.change(a_change("erp:customer:C", order=20, state=a_customer(displayName=None)))

        (letter,) = played.open_letters()
        assert (opened, played.now) == (letter.opened_at, letter.changed_at)

    def test_of_the_two_directions_are_two(self):
        """LOG-002, LOG-003: a failure one way says nothing about the other."""
        played = full(salesperson="KL")
        played.change(a_change("crm:account:A", order=20, state=an_account(paymenttermscode=9)))

        assert {"to_crm": "owner-not-coupled", "to_erp": "option-not-coupled"} == {
            letter.direction: letter.slug for letter in played.open_letters()
        }

    def test_of_a_refused_write_carry_the_target_s_own_code(self):
        """LOG-001: never values."""
        played = Played(BY_HAND).coupled().customer(order=20, phoneNumber="1").rejected(detail="0x80040265 telephone1")
        (letter,) = played.open_letters()

        assert ("DRW-4001", "0x80040265 telephone1", "erp:customer:C") == (letter.code, letter.detail, letter.ref)

    def test_of_a_refused_write_stay_until_the_next_change_succeeds(self):
        played = Played(BY_HAND).coupled().customer(order=20, phoneNumber="1").rejected()
        played.order(OrderKind.RESEND, home="C", by="timeout")
        assert [] == played.commands
        played.customer(order=21, phoneNumber="2")
        assert 1 == len(played.open_letters())
        played.written()

        assert [] == played.open_letters()

    def test_of_a_refused_write_stay_open_while_the_next_attempt_meets_a_conflict(self):
        """Only a success closes a letter: a write that did not come about is none."""
        played = Played(BY_HAND).coupled().customer(order=20, phoneNumber="1").rejected()
        played.customer(order=21, phoneNumber="2").conflict(name="Edited")

        assert ["rejected"] == [letter.slug for letter in played.open_letters()]

    def test_are_closed_when_the_record_leaves_its_filter(self):
        """What is not to be sent does not wait either."""
        played = full(salesperson="KL")
        played.change(a_change("erp:customer:C", order=20, state=a_customer(salespersonCode="KL", blocked="All")))

        assert [] == played.open_letters()

    def test_are_closed_when_the_record_is_deleted(self):
        played = Played(customer(match=()))
        played.change(a_change("erp:customer:X", order=10, state=a_customer(salespersonCode="KL")))
        played.deleted("erp:customer:X")

        assert [] == played.open_letters()

    def test_about_an_ambiguous_match_are_closed_when_it_matches_nobody_any_more(self):
        """A mapping that makes nobody: the letter's cause is gone, so the letter is."""
        two = [an_observed(f"U{number}", state={"internalemailaddress": "ee@x.example"}) for number in (1, 2)]
        played = Played(SALESPEOPLE).change(
            a_change("erp:salesperson:E", order=10, state={"code": "EE", "email": "ee@x.example", "displayName": "E"})
        )
        played.found(*two)
        assert ["ambiguous-match"] == [letter.slug for letter in played.open_letters()]
        played.change(
            a_change("erp:salesperson:E", order=11, state={"code": "EE", "email": "new@x.example", "displayName": "E"})
        ).found()

        assert [] == played.open_letters()

    def test_about_an_unknown_company_are_closed_when_it_is_known(self):
        """Whatever becomes of the record then."""
        world = a_world(CUSTOMER, view=a_view(without=(COMPANY,)))
        played = Played(CUSTOMER, world=world).change(
            a_change("crm:account:A", order=10, state=an_account(statecode=1))
        )
        played.order(OrderKind.RETRY, home="A", by="company-unknown")
        played.world = replace(played.world, view=a_view())
        played.order(OrderKind.RETRY, home="A", by="release")

        assert [] == played.open_letters()


class TestConflictLetters:
    def conflicted(self, policy: str = "dead_letter") -> Played:
        played = Played(small(create="none", match=(), conflict=policy)).coupled()
        return played.customer(order=20, phoneNumber="1").conflict(telephone1="2")

    def test_name_the_field_and_write_nothing(self):
        """CNF-003."""
        played = self.conflicted()

        assert [] == played.commands
        assert [("update-conflict", ("telephone1",))] == [(item.slug, item.fields) for item in played.open_letters()]

    @pytest.mark.parametrize("policy", ["dead_letter", "record"])
    @pytest.mark.parametrize(("use", "expected"), [("erp", {"telephone1": "1"}), ("crm", {"phoneNumber": "2"})])
    def test_are_settled_by_a_persons_choice(self, policy: str, use: str, expected: dict[str, str]):
        """CNF-006: and closed once both agree."""
        played = self.conflicted(policy)
        (letter,) = played.open_letters()
        played.order(OrderKind.RETRY, home="C", use=use, letter_id=letter.letter_id)

        assert expected == dict(played.command.values)
        played.written(order=70)
        assert [] == played.open_letters()

    def test_stay_after_a_retry_without_a_choice(self):
        """R176: neither answer is given, so neither is written, and there is one letter."""
        played = self.conflicted()
        played.order(OrderKind.RETRY, home="C")

        assert (1, []) == (len(played.letters), played.commands)

    def test_are_closed_when_the_two_come_to_agree(self):
        played = self.conflicted().account(order=60, telephone1="1")

        assert [] == played.open_letters()

    def test_stay_open_while_the_company_is_not_known(self):
        """A worker that starts has no view yet: that settles nothing."""
        played = full(conflict="dead_letter")
        played.change(a_change("erp:customer:C", order=20, state=a_customer(phoneNumber="1")))
        played.conflict(telephone1="2")
        played.world = replace(played.world, view=a_view(without=(COMPANY,)))
        played.change(a_change("erp:customer:C", order=21, state=a_customer(phoneNumber="1", city="Rome")))

        assert ["update-conflict"] == [letter.slug for letter in played.open_letters()]

    def test_let_other_fields_go_on(self):
        played = self.conflicted().customer(order=30, phoneNumber="1", displayName="Contoso")

        assert {"name": "Contoso"} == dict(played.command.values)
        played.written(order=70)
        assert ["update-conflict"] == [letter.slug for letter in played.open_letters()]


class TestOrders:
    def test_retry_decides_again_on_the_latest_state(self):
        """SKP-005, G4: a replay never writes an older value."""
        played = Played(BY_HAND).coupled().customer(order=20, phoneNumber="1").rejected()
        played.order(OrderKind.RETRY, home="C")

        assert {"telephone1": "1"} == dict(played.command.values)

    def test_retry_touches_nobody_else(self):
        """SKP-005, SKP-006."""
        played = Played(BY_HAND).coupled().coupled("D", "B")
        for home in ("C", "D"):
            played.customer(home, order=20, phoneNumber="1").rejected()
        played.order(OrderKind.RETRY, home="C")

        assert ["C"] == [command.home for command in played.commands]

    def test_retry_of_what_agrees_writes_nothing(self):
        played = Played(BY_HAND).coupled()
        played.order(OrderKind.RETRY, home="C")

        assert [] == played.commands

    def test_retry_behind_a_command_waits_for_its_answer(self):
        played = Played(BY_HAND).coupled().customer(order=20, phoneNumber="1")
        played.order(OrderKind.RETRY, home="C")
        assert 1 == len(played.commands)
        played.rejected()

        assert {"telephone1": "1"} == dict(played.command.values)

    def test_retry_looks_for_matches_anew(self):
        """MAT-003: for the one record that is asked for."""
        played = Played().customer().found(an_observed("A"), an_observed("B"))
        played.order(OrderKind.RETRY, home="C")

        assert CommandKind.MATCH is played.command.kind

    def test_resend_sends_the_very_same_command(self):
        """Rule 6."""
        played = Played(BY_HAND).coupled().customer(order=20, phoneNumber="1")
        sent = played.command
        played.order(OrderKind.RESEND, home="C", by="timeout")

        assert [sent, sent] == played.commands
        assert 2 == played.pair().in_flight.sends

    def test_resend_without_a_command_does_nothing(self):
        played = Played(BY_HAND).coupled()
        before = replace(played.rows["C"], last=Row(mapping="", id="").last)
        played.order(OrderKind.RESEND, home="C", by="timeout").order(OrderKind.RESEND, home="nobody", by="timeout")

        assert before == replace(played.rows["C"], last=before.last)
        assert [] == played.commands

    def test_discard_gives_the_letter_up_until_the_record_changes(self):
        played = full(salesperson="KL")
        (letter,) = played.open_letters()
        played.order(OrderKind.CLOSE, home="C", letter_id=letter.letter_id)
        assert LetterState.DISCARDED is played.letters[letter.letter_id].state
        played.order(OrderKind.RETRY, home="C", by="release")
        assert [] == played.open_letters()
        played.change(a_change("erp:customer:C", order=20, state=a_customer(salespersonCode="KL", city="Rome")))

        (fresh,) = played.open_letters()
        assert fresh.letter_id != letter.letter_id

    def test_discard_does_not_stop_the_record(self):
        """Coupled, it goes on."""
        played = full(salesperson="KL")
        (letter,) = played.open_letters()
        played.order(OrderKind.CLOSE, home="C", letter_id=letter.letter_id)
        couple_kim(played.world.view)
        played.order(OrderKind.RETRY, home="C", by="release")

        assert f"systemuser:{KIMS_USER}" == played.command.values["ownerid"]

    @pytest.mark.parametrize("letter_id", ["", "another"])
    def test_discard_of_another_letter_changes_nothing(self, letter_id: str):
        played = full(salesperson="KL")
        (letter,) = played.open_letters()
        played.order(OrderKind.CLOSE, home="C", letter_id=letter.letter_id)
        played.order(OrderKind.CLOSE, home="C", letter_id=letter_id)

        assert {letter.letter_id} == set(played.letters)


class TestOutcomes:
    def test_that_answer_no_command_are_ignored(self):
        """Rule 5."""
        played = Played(BY_HAND).coupled().customer(order=20, phoneNumber="1")
        first = played.command
        played.written(order=50).customer(order=60, phoneNumber="2")
        before = played.pair()
        played.answer(
            OutcomeStatus.WRITTEN, first, observed=Played.observed(first, order=70, state=a_small_account(name="Odd"))
        )

        assert before == played.pair()
        assert ("ignored", "answers-no-command") in played.events("ignored")

    def test_of_a_home_that_knows_nothing_are_ignored(self):
        played = Played(BY_HAND).coupled().customer(order=20, phoneNumber="1")
        command = replace(played.command, home="nobody")

        assert {"C", "A"} == set(played.answer(OutcomeStatus.MISSING, command).rows)

    def test_make_both_sides_agree(self):
        """REC-002: what was written is what both last agreed on."""
        pair = Played(BY_HAND).coupled().customer(order=20, phoneNumber="1").written().pair()

        assert ({}, {}) == (pair.erp.touched, pair.crm.touched)
        assert None is pair.in_flight


class TestJournal:
    def test_explains_every_decision(self):
        """G6: what was issued, skipped, coupled, and by which message."""
        played = Played(BY_HAND).coupled().customer(order=20, phoneNumber="1").written()
        events = {line.event for line in played.lines}

        assert {"skipped", "coupled", "issued", "claim-granted"} <= events
        assert all(line.cause_id and line.home and line.ref for line in played.lines)

    def test_never_holds_values(self):
        """Names of fields, codes and ids only."""
        played = full().change(
            a_change("erp:customer:C", order=20, state=a_customer(displayName="Jane Roe", city=None))
        )
        played.rejected(detail="0x80040265 name")
        said = " ".join(repr(line) for line in (*played.lines, *played.letters.values()))

        assert [] == [value for value in ("Jane Roe", "Fabrikam", "Unter den Linden", "0100") if value in said]

    def test_lines_have_ids_of_their_own(self):
        played = full(salesperson="KL")

        assert len(played.lines) == len({line.line_id for line in played.lines})


class TestSteps:
    def test_survive_being_stored(self):
        """A row is JSON in the changelog, a message is Avro: nothing that a step makes is lost on the way."""
        played = full(salesperson="KL").change(a_change("erp:customer:C", order=20, state=a_customer(city="Rome")))
        for step in played.steps:
            if step.row is not None:
                assert step.row == from_json(Row, to_json(step.row))
            for sent in step.works:
                assert sent == decode(Work, encode(sent))

    def test_of_an_unknown_mapping_are_an_error(self):
        """The shell makes a dead letter of it: DRW-3011."""
        work = work_of(a_change(), mapping="gone")

        with pytest.raises(KeyError):
            react(work, None, a_world(), now=NOON)

    def test_of_nothing_leave_no_row(self):
        played = Played(BY_HAND).deleted("erp:customer:C")

        assert {} == played.rows

    def test_uncoupled_pair_states_are_kept(self):
        assert PairState.UNCOUPLED is Played(BY_HAND).coupled().uncouple().pair().state

    def test_team_is_known_to_the_view(self):
        assert TEAM == a_view().default_team
