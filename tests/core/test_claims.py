"""Two homes settle to whom a CRM record belongs: played message by message."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from schemas.brakes import ALL, Brake
from schemas.coupling import PairState
from schemas.records import CommandKind, Observed, OrderKind, OutcomeStatus
from tests.builders import (
    COMPANY,
    MICROSOFT,
    NOON,
    a_change,
    a_customer,
    a_home,
    a_row,
    a_small_account,
    a_small_customer,
    an_account,
    an_observed,
    an_order,
    small,
    work_of,
)
from tests.core.played import BY_HAND, Played


def account_found(record_id: str = "A", **changed: object) -> Observed:
    return an_observed(record_id, order=10, state=a_small_account(**changed))  # type: ignore[arg-type]


def customer_found(record_id: str = "C", **changed: object) -> Observed:
    return an_observed(record_id, order=10, state=a_small_customer(**changed))  # type: ignore[arg-type]


class TestCoupleByHand:
    def test_claims_the_account_and_couples(self):
        """CPL-003, R92: one coupling; the account's home says to whom it belongs."""
        played = Played(BY_HAND).coupled()

        assert {("C", "A")} == played.pairs()
        assert played.claim_is_whole()
        assert None is played.rows["A"].pair
        assert (PairState.COUPLED, "A") == (played.pair().state, played.pair().crm.id)

    def test_writes_nothing_when_both_agree(self):
        assert [] == Played(BY_HAND).coupled().commands

    @pytest.mark.parametrize(
        ("use", "expected"), [("", {"name": "ERP"}), ("erp", {"name": "ERP"}), ("crm", {"displayName": "CRM"})]
    )
    def test_lets_the_chosen_side_s_values_stand(self, use: str, expected: dict[str, str]):
        """CPL-010, REC-007: without a choice the mapping's authority."""
        played = Played(BY_HAND).customer(displayName="ERP").account(name="CRM").couple(use=use)

        assert expected == dict(played.command.values)

    def test_refuses_an_account_that_belongs_to_another_and_names_the_holder(self):
        """CPL-005, R80: granted once."""
        played = Played(BY_HAND).coupled().customer("D").couple("D", "A")

        assert {("C", "A")} == played.pairs()
        assert ("claim-refused", "taken") in played.events("claim-refused")
        (refused,) = (work.order for work in played.log["D"] if work.order and work.order.kind is OrderKind.REFUSED)
        assert ("C", "taken") == (refused.holder, refused.reason)

    def test_refuses_a_second_account_for_a_coupled_customer(self):
        """CPL-004: what was granted is given back; the second account is on its own again."""
        played = Played(BY_HAND).coupled().account("B").couple("C", "B")

        assert {("C", "A")} == played.pairs()
        assert ("given-back", "taken") in played.events("given-back")
        assert None is played.rows["B"].home
        assert "B" == played.pair("B").crm.id

    def test_of_the_same_two_again_changes_nothing(self):
        played = Played(BY_HAND).coupled()
        before = played.pair()

        assert before == played.couple().pair()
        assert {("C", "A")} == played.pairs()

    def test_refuses_an_account_nobody_knows(self):
        played = Played(BY_HAND).customer().couple("C", "X")

        assert ("claim-refused", "unknown") in played.events("claim-refused")

    def test_gives_back_an_account_asked_for_a_customer_nobody_knows(self):
        played = Played(BY_HAND).account().couple("X", "A")

        assert set() == played.pairs()
        assert "A" == played.pair("A").crm.id

    def test_of_two_orders_for_one_account_exactly_one_succeeds(self):
        """Two orders for one record cannot both succeed, whatever comes first at the homes."""
        played = Played(BY_HAND).customer("C").customer("D").account()
        for number, erp_id in enumerate(("C", "D")):
            order = work_of(an_order(OrderKind.COUPLE, f"couple-{number}", erp_id=erp_id, crm_id="A"), home="A")
            played.post(order)
        played.run()

        assert {("C", "A")} == played.pairs()
        assert played.claim_is_whole()

    def test_waits_for_a_command_of_the_account_that_is_under_way(self):
        """The account is just becoming a customer of its own: first the answer, then the claim."""
        played = Played(small(match=())).account()
        assert CommandKind.CREATE is played.command.kind
        played.customer("C")
        made = next(command for command in played.commands if command.home == "A")
        played.couple()

        assert (OrderKind.COUPLE,) == tuple(order.kind for order in played.rows["A"].deferred)
        played.answer(OutcomeStatus.WRITTEN, made, observed=Played.observed(made, order=50, state=a_small_customer()))
        assert ("claim-refused", "taken") in played.events("claim-refused")

    def test_hands_over_the_last_state_of_the_account(self):
        played = Played(BY_HAND).account().account(order=20, telephone1="777").customer().couple()

        assert (20, "777") == (played.pair().crm.order, played.pair().crm.state["telephone1"])

    def test_closes_the_letters_of_both(self):
        """A record that waited for a person is settled by the coupling."""
        played = Played()
        played.customer().found(account_found("A"), account_found("B"))
        assert ["ambiguous-match"] == [letter.slug for letter in played.open_letters()]
        played.account().found(customer_found())
        played.commands.clear()
        played.couple()

        assert [] == played.open_letters()

    def test_ends_what_was_uncoupled_by_hand(self):
        """R126: until an order says otherwise."""
        played = Played(BY_HAND).coupled().uncouple().couple()

        assert {("C", "A")} == played.pairs()
        assert played.claim_is_whole()

    def test_of_an_evicted_account_leaves_the_other_pair_alone(self):
        """Customer X has another partner; account X, on its own since, is coupled with customer D."""
        played = Played(BY_HAND).customer("X").account("X").uncouple("X").account("B").couple("X", "B")
        played.customer("D").couple("D", "X")

        assert {("X", "B"), ("D", "X")} == played.pairs()
        assert played.claim_is_whole()


class TestMatchedCoupling:
    def test_is_looked_at_from_both_sides_then_coupled(self):
        """MAT-001: unambiguous in both directions."""
        played = Played().account()
        played.commands.clear()
        played.rows["A"] = replace(played.rows["A"], pair=replace(played.pair("A"), in_flight=None))
        played.customer().found(account_found())
        verify = played.command

        assert ("A", CommandKind.MATCH) == (verify.home, verify.kind)
        played.found(customer_found())
        assert {("C", "A")} == played.pairs()
        assert played.claim_is_whole()

    def test_that_is_ambiguous_from_the_other_side_couples_nobody(self):
        """MAT-005: two customers of one name, one account."""
        played = Played().account()
        played.commands.clear()
        played.rows["A"] = replace(played.rows["A"], pair=replace(played.pair("A"), in_flight=None))
        played.customer().found(account_found())
        played.found(customer_found("C"), customer_found("D"))

        assert set() == played.pairs()
        assert {"ambiguous-match"} == {letter.slug for letter in played.open_letters()}

    def test_of_many_couples_each_with_its_own(self):
        """MAT-002."""
        played = Played(small(create="none"))
        for number in range(3):
            account = account_found(f"A{number}", name=f"Name {number}")
            played.account(f"A{number}", name=f"Name {number}").found()
            played.customer(f"C{number}", displayName=f"Name {number}").found(account)
            played.order(OrderKind.RETRY, home=f"A{number}")
            played.found(customer_found(f"C{number}", displayName=f"Name {number}"))

        assert {(f"C{number}", f"A{number}") for number in range(3)} == played.pairs()
        assert played.claim_is_whole()

    def test_is_looked_at_again_where_the_last_look_was_before_the_customer_was_made(self):
        """An account that is not made into a customer was looked up long ago, and found nobody."""
        played = Played(small(create="none"))
        played.account().found()
        played.customer().found(account_found())
        again = played.command

        assert ("A", CommandKind.MATCH) == (again.home, again.kind)
        played.found(customer_found())
        assert {("C", "A")} == played.pairs()

    def test_that_is_none_from_the_other_side_is_not_looked_at_for_ever(self):
        played = Played(small(create="none"))
        played.account().found()
        played.customer().found(account_found()).found()

        assert ([], set()) == (played.commands, played.pairs())

    def test_of_an_account_that_is_taken_leads_to_a_create(self):
        """R107: found, but coupled."""
        mapping = small(match=small().match)
        played = Played(BY_HAND).coupled()
        played.world = replace(played.world, mappings={**played.world.mappings, mapping.name: mapping})
        played.customer("D").found(account_found("A"))

        assert (CommandKind.CREATE, "D") == (played.command.kind, played.command.target.id)

    def test_never_takes_a_record_that_was_uncoupled_by_hand(self):
        """A pair uncoupled by hand stays uncoupled until an order says otherwise."""
        mapping = small()
        played = Played(BY_HAND).coupled().uncouple()
        played.world = replace(played.world, mappings={**played.world.mappings, mapping.name: mapping})
        played.customer("D").found(account_found("A"))

        assert set() == played.pairs()
        assert PairState.UNCOUPLED is played.pair("A").state

    def test_never_takes_a_record_that_was_uncoupled_by_hand_and_evicted(self):
        """The same when the customer of the account's id has another partner since."""
        mapping = small()
        played = Played(BY_HAND).customer("X").account("X")
        assert {("X", "X")} == played.pairs()  # one id: Drawbar made one from the other
        played.uncouple("X").account("B").couple("X", "B")
        assert None is not played.rows["X"].home.evicted
        played.world = replace(played.world, mappings={**played.world.mappings, mapping.name: mapping})
        played.customer("D", displayName="Other").found(account_found("X", name="Other"))

        assert {("X", "B")} == played.pairs()
        assert None is not played.rows["X"].home.evicted

    def test_whose_look_up_is_refused_does_not_look_again_at_once(self):
        """A missing right must not become an endless loop of requests."""
        played = Played().account()
        played.commands.clear()
        played.rows["A"] = replace(played.rows["A"], pair=replace(played.pair("A"), in_flight=None))
        played.customer().found(account_found())
        played.rejected("DRW-4004", "403")

        assert [] == played.commands
        assert ["write-forbidden"] == [letter.slug for letter in played.open_letters()]


class TestForwarding:
    def test_changes_of_a_claimed_account_are_decided_by_its_pair(self):
        played = Played(BY_HAND).coupled().account(order=20, telephone1="777")

        assert {"phoneNumber": "777"} == dict(played.command.values)
        assert (1, "C") == (played.log["C"][-1].hops, played.log["C"][-1].home)

    def test_a_change_that_was_on_its_way_while_the_claim_was_given_back_finds_its_home(self):
        """It goes back to where the record is at home, and nothing is lost."""
        played = Played(BY_HAND).coupled()
        late = work_of(a_change("crm:account:A", order=30, state=a_small_account(telephone1="late")), home="C", hops=1)
        played.uncouple()
        played.post(late)
        played.run()

        assert "late" == played.pair("A").crm.state["telephone1"]

    def test_two_homes_that_name_each_other_give_up_with_a_letter(self):
        played = Played(BY_HAND)
        played.rows["C"] = a_row(row_id="C", home=a_home("A"))
        played.rows["A"] = a_row(row_id="A", home=a_home("C"))
        played.account()

        assert ["already-coupled"] == [letter.slug for letter in played.open_letters()]

    def test_a_record_that_comes_back_under_the_home_s_own_id_is_not_taken_for_its_partner(self):
        """Account X was deleted and X coupled with B; when X is restored in the CRM, the pair keeps B."""
        played = Played(small(create="none", match=(), deletes="uncouple")).customer("X").account("X")
        played.deleted("crm:account:X")
        played.account("B").couple("X", "B")
        assert {("X", "B")} == played.pairs()
        played.account("X", order=200, name="Back")

        assert {("X", "B")} == played.pairs()
        assert "Fabrikam" == played.pair("X").crm.state["name"]
        assert played.claim_is_whole()


class TestUncouple:
    def test_gives_the_account_back(self):
        """CPL-006, UNC-003, UNC-004: both records stay, unwritten, on their own until told otherwise."""
        played = Played(BY_HAND).coupled().uncouple()

        assert set() == played.pairs()
        assert (PairState.UNCOUPLED, PairState.UNCOUPLED) == (played.pair("C").state, played.pair("A").state)
        assert [] == played.commands
        assert None is played.rows["A"].home

    def test_of_a_pair_that_is_not_coupled_is_no_error(self):
        """CPL-006, UNC-002: twice is once."""
        played = Played(BY_HAND).coupled().uncouple().uncouple()

        assert ("uncoupled", "was-not-coupled") in played.events("uncoupled")
        assert set() == played.pairs()

    def test_is_not_undone_by_a_change_of_either(self):
        """R126."""
        played = Played(BY_HAND).coupled().uncouple()
        played.customer(order=60, phoneNumber="1").account(order=60, telephone1="2")

        assert (set(), []) == (played.pairs(), played.commands)

    def test_of_one_leaves_the_others(self):
        """UNC-002."""
        played = Played(BY_HAND).coupled().coupled("D", "B").uncouple("C")

        assert {("D", "B")} == played.pairs()

    def test_of_two_records_of_one_id_keeps_both(self):
        played = Played(BY_HAND).customer("X").account("X").uncouple("X")

        assert set() == played.pairs()
        assert ("X", "X") == (played.pair("X").erp.id, played.pair("X").crm.id)

    def test_waits_for_the_command_under_way(self):
        played = Played(BY_HAND).coupled().customer(order=20, phoneNumber="1")
        played.uncouple()
        assert {("C", "A")} == played.pairs()
        played.written()

        assert set() == played.pairs()

    def test_closes_the_letters_of_the_pair(self):
        """SKP-008."""
        played = Played(BY_HAND).coupled().customer(order=20, phoneNumber="1").rejected()
        assert 1 == len(played.open_letters())

        assert [] == played.uncouple().open_letters()

    def test_of_a_pair_with_a_deleted_record_removes_the_coupling(self):
        """SKP-008, R124."""
        played = Played(BY_HAND).coupled().deleted("erp:customer:C").uncouple()

        assert set() == played.pairs()
        assert [] == played.open_letters()
        assert "A" == played.pair("A").crm.id

    def test_forgets_what_was_agreed(self):
        """Coupled again, the sides have never agreed."""
        played = Played(BY_HAND).coupled().uncouple()

        assert ({}, {}) == (played.pair("C").erp.base, played.pair("A").crm.base)


def stamped(**mapping: object) -> Played:
    """Customer and account under the shipped mapping, coupled by hand and stamped."""
    played = Played(MICROSOFT.model_copy(update=mapping))
    played.change(a_change("erp:customer:C", order=10, state=a_customer()))
    played.change(a_change("crm:account:A", order=10, state=an_account()))
    return played.couple()


class TestBatch:
    """An order of many: what it couples bears its id, and can be taken back by it."""

    def test_is_recorded_with_the_pair_and_in_the_journal(self):
        played = Played(BY_HAND).customer().account().couple(by="batch b-1", batch="b-1")

        assert "b-1" == played.pair().batch
        assert ("coupled", "with crm:account:A by batch b-1") in played.events("coupled")

    def test_is_undone_for_its_own_pairs(self):
        """As any uncoupling: both stay, on their own."""
        played = Played(BY_HAND).customer().account().couple(batch="b-1")
        played.order(OrderKind.UNCOUPLE, home="C", erp_id="C", batch="b-1")

        assert set() == played.pairs()
        assert (PairState.UNCOUPLED, "") == (played.pair().state, played.pair().batch)

    def test_leaves_a_pair_that_was_coupled_otherwise(self):
        """A person coupled it anew since then."""
        played = Played(BY_HAND).customer().account().couple(batch="b-1").uncouple().couple()
        played.order(OrderKind.UNCOUPLE, home="C", erp_id="C", batch="b-1")

        assert {("C", "A")} == played.pairs()
        assert ("skipped", "not-of-this-batch") in played.events("skipped")


class TestCreateByOrder:
    """`create` of a retry: the counterpart is made, whatever the mapping says of new records."""

    def test_makes_the_counterpart(self):
        played = Played(BY_HAND).customer()
        played.order(OrderKind.RETRY, home="C", use="create")

        assert CommandKind.CREATE is played.command.kind
        played.written()
        assert {("C", "C")} == played.pairs()

    def test_looks_for_a_match_first(self):
        """One that came since the plan was made is coupled, not doubled."""
        played = Played(small(create="none", matching="by_order")).customer()
        assert [] == played.commands
        played.order(OrderKind.RETRY, home="C", use="create")

        assert CommandKind.MATCH is played.command.kind
        played.account().found(account_found())
        played.found(customer_found())
        assert {("C", "A")} == played.pairs()

    def test_outlasts_a_claim_that_comes_back(self):
        """The only customer of that name belongs to another account: this one gets its own."""
        played = Played(small(create="none", matching="by_order")).customer().account("B").couple("C", "B")
        played.account("A")
        played.order(OrderKind.RETRY, home="A", use="create")
        played.found(customer_found())

        assert (CommandKind.CREATE, "A") == (played.command.kind, played.command.home)

    def test_does_not_touch_what_was_uncoupled_by_hand(self):
        played = Played(BY_HAND).coupled().uncouple()
        played.order(OrderKind.RETRY, home="C", use="create")

        assert [] == played.commands


class TestCompanyStamp:
    def test_is_taken_off_before_the_two_part(self):
        """UNC-001, UNC-003, R57, R117-R119: that field and no other, then the coupling."""
        played = stamped().uncouple()

        assert {"bcbi_companyid": None} == dict(played.command.values)
        assert {("C", "A")} == played.pairs()
        played.written()
        assert set() == played.pairs()
        assert None is played.pair("A").crm.state["bcbi_companyid"]

    def test_is_taken_off_once_no_brake_holds_it(self):
        """The order waits: a brake holds and loses nothing."""
        played = stamped()
        played.world.brakes.take(ALL, Brake(on=True, by="ann", at=NOON))
        played.uncouple()
        assert ([], {("C", "A")}) == (played.commands, played.pairs())
        assert ["to_crm"] == list(played.pair().kept_back)

        played.world.brakes.take(ALL, Brake(on=False, by="ann", at=NOON))
        played.order(OrderKind.RETRY, home="C", by="release")
        assert {"bcbi_companyid": None} == dict(played.command.values)
        played.written()
        assert set() == played.pairs()

    def test_that_cannot_be_taken_off_keeps_the_coupling(self):
        """R117: the cause is in the letter."""
        played = stamped().uncouple().rejected()

        assert {("C", "A")} == played.pairs()
        assert ["rejected"] == [letter.slug for letter in played.open_letters()]
        assert () == played.rows["C"].deferred

    def test_of_another_company_is_left(self):
        """R118."""
        played = stamped()
        played.change(a_change("crm:account:A", order=20, state=an_account(bcbi_companyid="another")))

        assert [] == played.uncouple().commands
        assert set() == played.pairs()

    def test_that_somebody_edits_meanwhile_is_taken_off_on_the_fresh_state(self):
        played = stamped().uncouple().conflict(address1_city="Rome")

        assert ({"bcbi_companyid": None}, 'W/"50"') == (dict(played.command.values), played.command.expected_version)
        played.written(order=60)
        assert set() == played.pairs()

    def test_of_an_account_that_is_gone_needs_no_write(self):
        played = stamped().uncouple().answer(OutcomeStatus.MISSING)

        assert (set(), []) == (played.pairs(), played.commands)

    def test_is_taken_off_when_the_policy_for_deletes_uncouples(self):
        """DEL-002, R189: with the same steps as by hand, or another company could never take the account."""
        played = stamped(deletes="uncouple").deleted("erp:customer:C")

        assert {"bcbi_companyid": None} == dict(played.command.values)

    def test_is_put_on_an_account_that_becomes_a_customer(self):
        """R55: a write back to the CRM right after the create."""
        mapping = MICROSOFT.model_copy(update={"create": "both"})
        played = Played(mapping).change(a_change("crm:account:A", order=10, state=an_account(bcbi_companyid=None)))
        made = played.command
        played.written({"salespersonCode": None, "creditLimit": 0, "blocked": None, **a_blank_customer()})

        assert (CommandKind.CREATE, "A") == (made.kind, made.target.id)
        assert COMPANY == played.command.values["bcbi_companyid"]


def a_blank_customer() -> dict[str, None]:
    return dict.fromkeys(a_customer())


class TestDeletes:
    @pytest.mark.parametrize("ref", ["erp:customer:C", "crm:account:A"])
    def test_open_one_letter_and_keep_the_coupling(self, ref: str):
        """DEL-001, DEL-004: however often the survivor changes."""
        played = Played(BY_HAND).coupled().deleted(ref)
        survivor = played.account if ref.startswith("erp") else played.customer
        survivor(order=100).deleted(ref, order=120)

        assert ["counterpart-deleted"] == [letter.slug for letter in played.open_letters()]
        assert 1 == len(played.letters)
        assert {("C", "A")} == played.pairs()
        assert [] == played.commands

    @pytest.mark.parametrize("ref", ["erp:customer:C", "crm:account:A"])
    def test_that_were_a_mistake_close_their_letter(self, ref: str):
        """The record is back: as if nothing had been."""
        played = Played(BY_HAND).coupled().deleted(ref)
        back = played.customer if ref.startswith("erp") else played.account
        back(order=200)

        assert [] == played.open_letters()

    def test_that_were_a_mistake_close_their_letter_on_a_one_way_mapping(self):
        played = Played(small(create="none", match=(), direction="to_erp")).coupled().deleted("crm:account:A")
        played.account(order=200)

        assert [] == played.open_letters()

    def test_are_seen_by_a_write_before_capture_tells(self):
        """The target answers 404."""
        played = Played(BY_HAND).coupled().customer(order=20, phoneNumber="1").answer(OutcomeStatus.MISSING)
        played.deleted("crm:account:A")

        assert ["counterpart-deleted"] == [letter.slug for letter in played.open_letters()]

    def test_in_the_crm_restored_take_a_new_id_that_belongs_to_the_pair_first(self):
        """DEL-003, DEL-007, R188: the home of the new id knows its pair before the record is made."""
        played = Played(small(create="none", match=(), deletes="restore")).coupled().deleted("crm:account:A")
        made = played.command

        assert CommandKind.CREATE is made.kind
        assert made.target.id not in ("A", "C")
        assert "C" == played.rows[made.target.id].home.belongs_to
        played.written({})
        assert {("C", made.target.id)} == played.pairs()
        assert played.claim_is_whole()
        assert [] == played.open_letters()

    def test_in_the_erp_restored_take_a_new_id_and_keep_the_account(self):
        """DEL-003, CPL-016: a new record of another id, coupled with the survivor."""
        played = Played(small(create="none", match=(), deletes="restore")).coupled().deleted("erp:customer:C")
        made = played.command
        played.written({"creditLimit": 0})

        assert made.target.id not in ("A", "C")
        assert {(made.target.id, "A")} == played.pairs()
        assert [] == played.open_letters()

    def test_are_settled_by_a_persons_choice(self):
        """DEL-007: the letter's next step."""
        played = Played(BY_HAND).coupled().deleted("crm:account:A")
        (letter,) = played.open_letters()
        played.order(OrderKind.RETRY, home="C", use="restore", letter_id=letter.letter_id)

        assert CommandKind.CREATE is played.command.kind
        assert [] == played.open_letters()

    def test_uncouple_by_policy_and_leave_the_survivor_alone(self):
        """DEL-002: nothing is made for it afterwards, even where creates are allowed."""
        played = Played(small(match=(), deletes="uncouple")).customer("X").written({})
        played.deleted("erp:customer:X")
        played.account("X", order=100, telephone1="9")

        assert (set(), [], []) == (played.pairs(), played.commands, played.open_letters())

    def test_of_the_survivor_by_policy_end_both(self):
        """DEL-006."""
        played = Played(small(create="none", match=(), deletes="propagate")).coupled().deleted("erp:customer:C")
        assert (CommandKind.DELETE, 'W/"10"') == (played.command.kind, played.command.expected_version)
        played.answer(OutcomeStatus.DELETED)

        assert {} == {home: row for home, row in played.rows.items() if row.pair or row.home}

    def test_of_the_survivor_that_somebody_edited_meanwhile_are_decided_again(self):
        """A write is conditional, a delete too."""
        played = Played(small(create="none", match=(), deletes="propagate")).coupled().deleted("erp:customer:C")
        played.conflict(telephone1="777")

        assert (CommandKind.DELETE, 'W/"50"') == (played.command.kind, played.command.expected_version)

    def test_of_both_leave_nothing_and_no_letter(self):
        """DEL-008."""
        played = Played(BY_HAND).coupled().deleted("erp:customer:C").deleted("crm:account:A")

        assert {} == {home: row for home, row in played.rows.items() if row.pair or row.home}
        assert [] == played.open_letters()

    def test_before_coupling_leave_nothing(self):
        played = Played(BY_HAND).customer().deleted("erp:customer:C")

        assert {} == {home: row for home, row in played.rows.items() if row.pair}

    def test_a_restored_pair_keeps_its_partner_when_the_deleted_account_comes_back(self):
        """Restored under a new id; then somebody takes the old account out of the recycle bin."""
        played = Played(small(match=(), deletes="restore")).customer("X").written({})
        played.deleted("crm:account:X")
        made = played.command.target.id
        played.written({}, order=60)
        played.account("X", order=300, name="Back from the bin")

        assert ("X", made) in played.pairs()
        assert "Fabrikam" == played.pair("X").crm.state["name"]


class TestLookedUpLately:
    """A record that waits for several others is released several times within seconds."""

    @staticmethod
    def found_nothing() -> Played:
        return Played(small()).customer().found().rejected()

    def test_is_not_looked_up_again_when_it_is_released(self):
        played = self.found_nothing()
        played.now += timedelta(seconds=5)
        played.order(OrderKind.RETRY, home="C", by="release")

        assert [CommandKind.CREATE] == [command.kind for command in played.commands]

    @pytest.mark.parametrize(("by", "after_s"), [("operator", 5), ("release", 60)])
    def test_is_looked_up_anew_by_a_person_or_later(self, by: str, after_s: int):
        """Somebody may have made the counterpart since."""
        played = self.found_nothing()
        played.now += timedelta(seconds=after_s)
        played.order(OrderKind.RETRY, home="C", by=by)

        assert [CommandKind.MATCH] == [command.kind for command in played.commands]
