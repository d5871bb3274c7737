"""What two coupled records mean for each other: each line, each policy, each reason not to write."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from processors.coupling import Fingerprints
from processors.decide import Decision, Issue, Park, Reject, Skip, Wait
from processors.mapping import EntityMapping
from schemas.coupling import Hold, PairState
from schemas.errors import (
    OptionNotCoupled,
    OwnerNotCoupled,
    ReferenceNotCoupled,
    RequiredFieldBlank,
    UpdateConflict,
    ValueNotMappable,
)
from schemas.records import CommandKind, System, Value
from tests.builders import (
    COMPANY,
    CUSTOMER,
    DOLLAR,
    EURO,
    JANES_USER,
    KIM,
    KIMS_USER,
    MICROSOFT,
    NOON,
    OTHER_COMPANY,
    POUND_CRM,
    SALESPEOPLE,
    TEAM_OWNED,
    a_coupling,
    a_first_pair,
    a_flight,
    a_pair,
    a_salesperson,
    a_side,
    a_user,
    a_view,
    an_agreed_pair,
    couple_kim,
    customer,
    decided,
    moved,
    with_line,
)


def decision(found: Any, direction: str) -> Decision | None:
    return next((item for item in found.decisions if getattr(item, "direction", None) == direction), None)


def to_crm(pair: Any, mapping: EntityMapping = CUSTOMER, **more: Any) -> Decision | None:
    return decision(decided(pair, mapping, **more), "to_crm")


def to_erp(pair: Any, mapping: EntityMapping = CUSTOMER, **more: Any) -> Decision | None:
    return decision(decided(pair, mapping, **more), "to_erp")


def update(direction: str, **values: Value) -> Issue:
    return Issue(direction=direction, kind=CommandKind.UPDATE, values=values)


def unchanged(direction: str, *fields: str) -> Skip:
    return Skip(direction=direction, reason="unchanged", fields=fields)


def a_hold(code: str = "DRW-4001", *, order: int = 11, **changed: Any) -> Hold:
    return replace(Hold(code=code, slug="rejected", order=order, since=NOON, letter_id="letter"), **changed)


class TestFlow:
    def test_of_two_records_that_agree_is_nothing(self):
        """TBL-008, REC-005: no write, in neither direction."""
        assert (unchanged("to_crm"), unchanged("to_erp")) == decided(a_pair()).decisions

    @pytest.mark.parametrize(
        ("erp", "crm"),
        [
            ({"displayName": "Contoso"}, {"name": "Contoso"}),
            ({"phoneNumber": None}, {"telephone1": None}),
            ({"state": "Bavaria"}, {"address1_stateorprovince": "Bavaria"}),
            ({"country": "AT"}, {"address1_country": "AT"}),
            ({"paymentTermsId": None}, {"paymenttermscode": None}),
        ],
    )
    def test_of_an_edit_is_that_field_and_no_other(self, erp: dict[str, Value], crm: dict[str, Value]):
        """REC-003, FLD-002, FLD-008, R163: either way; R207: a blank is transferred like any value."""
        assert update("to_crm", **crm) == to_crm(a_pair(erp=erp))
        assert unchanged("to_erp") == to_erp(a_pair(erp=erp))
        assert update("to_erp", **erp) == to_erp(a_pair(crm=crm))
        assert unchanged("to_crm") == to_crm(a_pair(crm=crm))

    def test_of_an_edit_of_a_field_that_is_not_mapped_is_nothing(self):
        """REC-009, CNF-001."""
        pair = a_pair(erp={"number": "C-11"}, crm={"accountnumber": "x"})

        assert (unchanged("to_crm"), unchanged("to_erp")) == decided(pair).decisions

    @pytest.mark.parametrize(
        ("erp", "agreed_crm"),
        [
            ({"country": "de"}, {}),  # R199
            ({"phoneNumber": "+49 30 555 0100 "}, {}),
            ({"city": "Berlin" + " " * 40}, {}),
            ({"creditLimit": None}, {"creditlimit": 0}),
            ({"creditLimit": Decimal("25000.00")}, {}),
            ({"currencyCode": None}, {}),  # R226: blank is the local currency
        ],
    )
    def test_of_a_value_that_the_target_holds_already_is_nothing(self, erp: Mapping[str, Value], agreed_crm: Any):
        """Rule 1, R164: compared as the field transfer compares, and from then on agreed."""
        agreed_erp = {"creditLimit": Decimal(0)} if "creditlimit" in agreed_crm else {}
        pair = a_pair(erp=erp, agreed_erp=agreed_erp, agreed_crm=agreed_crm)
        found = decided(pair)

        assert unchanged("to_crm") == decision(found, "to_crm")
        assert {} == found.pair.erp.touched

    def test_of_the_same_edit_on_both_sides_is_nothing(self):
        pair = a_pair(erp={"displayName": "Contoso"}, crm={"name": "Contoso"})
        found = decided(pair, customer(conflict="dead_letter"))

        assert (unchanged("to_crm"), unchanged("to_erp")) == found.decisions
        assert ({}, {}) == (found.pair.erp.touched, found.pair.crm.touched)

    def test_of_a_field_that_was_not_captured_is_nothing(self):
        """Absent is not blank, on either side."""
        pair = a_pair(erp={"displayName": "Contoso"})
        erp_state, crm_state = dict(pair.erp.state), dict(pair.crm.state)
        del erp_state["phoneNumber"], crm_state["address1_city"]
        pair = replace(pair, erp=replace(pair.erp, state=erp_state), crm=replace(pair.crm, state=crm_state))

        assert update("to_crm", name="Contoso") == to_crm(pair)
        assert unchanged("to_erp") == to_erp(pair)

    def test_merges_fields_that_only_one_side_touched(self):
        """R181 and more: edits of different fields cross."""
        pair = a_pair(erp={"phoneNumber": "1"}, crm={"address1_city": "Rome"})

        assert (update("to_crm", telephone1="1"), update("to_erp", city="Rome")) == decided(pair).decisions

    def test_long_text_is_cut(self):
        """R203."""
        assert update("to_erp", city="x" * 30) == to_erp(a_pair(crm={"address1_city": "x" * 80}))

    def test_of_a_change_beyond_the_shorter_length_is_nothing(self):
        """R200."""
        pair = a_pair(agreed_erp={"city": "x" * 30}, agreed_crm={"address1_city": "x" * 30 + "a"})
        crm = moved(pair.crm, address1_city="x" * 30 + "b")

        assert unchanged("to_erp") == to_erp(replace(pair, crm=crm))

    def test_a_form_that_the_target_makes_of_our_value_is_not_written_again(self):
        """Two systems that each rewrite the other's value fall quiet."""
        pair = a_pair(erp={"phoneNumber": "030 1"})
        forms = {"telephone1": f"{PRINTS_OF('030 1')}>{PRINTS_OF('+49 30 555 0100')}"}

        assert unchanged("to_crm") == to_crm(replace(pair, crm=replace(pair.crm, forms=forms)))


def PRINTS_OF(value: Value) -> str:
    from tests.builders import PRINTS

    return PRINTS.of(value)


class TestOneWayLines:
    def test_the_source_wins_without_conflict(self):
        """CNF-002, FLD-004: a one-way line can never be a conflict."""
        pair = a_pair(erp={"creditLimit": 5}, crm={"creditlimit": 7})

        assert (update("to_crm", creditlimit=Decimal(5)), unchanged("to_erp")) == decided(pair).decisions

    def test_the_target_s_own_edit_stands_until_the_source_changes(self):
        """R182, OWN-004: a difference on such a line alone moves nothing, and the journal names what stands."""
        pair = a_pair(crm={"creditlimit": 7, "ownerid": f"systemuser:{KIMS_USER}"})
        stands = unchanged("to_crm", "creditlimit:edit-of-the-target-stands")

        assert (stands, unchanged("to_erp")) == decided(pair).decisions

    def test_the_target_s_own_edit_stands_while_another_field_of_the_source_changes(self):
        """An edit of a phone number erases no credit limit."""
        pair = a_pair(erp={"phoneNumber": "1"}, crm={"creditlimit": 7})

        assert update("to_crm", telephone1="1") == to_crm(pair)

    def test_an_owner_goes_with_every_change_of_the_source(self):
        """R39: the owner is looked up whenever the record is transferred."""
        pair = a_pair(erp={"phoneNumber": "1"}, crm={"ownerid": f"systemuser:{KIMS_USER}"})

        assert update("to_crm", telephone1="1", ownerid=f"systemuser:{JANES_USER}") == to_crm(pair)

    @pytest.mark.parametrize(("direction", "expected"), [("to_crm", "ERP"), ("to_erp", "CRM")])
    def test_of_a_one_way_mapping_overwrite_a_newer_edit(self, direction: str, expected: str):
        """CNF-007, FLD-006."""
        pair = a_pair(erp={"displayName": "ERP"}, crm={"name": "CRM"})
        found = decided(pair, customer(direction=direction))
        field = "name" if direction == "to_crm" else "displayName"

        assert (update(direction, **{field: expected}),) == found.decisions

    def test_a_users_data_go_to_the_salesperson_and_never_back(self):
        """OWN-001, REC-008: users are never written."""
        pair = an_agreed_pair(a_salesperson("E", "JR"), a_user("U", "jr@contoso.example"), SALESPEOPLE)
        both = replace(
            pair, erp=moved(pair.erp, displayName="Janet"), crm=moved(pair.crm, seconds=1, fullname="Jane Roe")
        )

        assert (update("to_erp", displayName="Jane Roe"),) == decided(both, SALESPEOPLE).decisions
        stands = unchanged("to_erp", "displayName:edit-of-the-target-stands")
        assert (stands,) == decided(replace(both, crm=pair.crm), SALESPEOPLE).decisions


CONFLICT: dict[str, Any] = {"erp": {"phoneNumber": "2"}, "crm": {"telephone1": "3"}}


class TestConflicts:
    @pytest.mark.parametrize(
        ("policy", "expected"),
        [("erp", update("to_crm", telephone1="2")), ("crm", update("to_erp", phoneNumber="3"))],
    )
    def test_one_side_always_wins_under_its_policy(self, policy: str, expected: Issue):
        """CNF-004, CNF-005, R177, R178."""
        pair = a_pair(**CONFLICT)

        assert expected == decision(decided(pair, customer(conflict=policy)), expected.direction)

    @pytest.mark.parametrize(
        ("erp_at", "crm_at", "expected"),
        [
            (60, 30, update("to_crm", telephone1="2")),
            (30, 60, update("to_erp", phoneNumber="3")),
            (30, 30, update("to_crm", telephone1="2")),
            (30, 30.9, update("to_crm", telephone1="2")),  # two clocks of whole seconds: a tie
            (30, 31, update("to_erp", phoneNumber="3")),
        ],
    )
    def test_the_later_edit_of_the_field_wins_and_a_tie_goes_to_the_authority(
        self, erp_at: float, crm_at: float, expected: Issue
    ):
        pair = a_pair(**CONFLICT, erp_at=erp_at, crm_at=crm_at)

        assert expected == decision(decided(pair), expected.direction)

    def test_a_tie_goes_to_the_crm_where_that_is_the_authority(self):
        mapping = customer(authority=System.CRM)

        assert update("to_erp", phoneNumber="3") == to_erp(a_pair(**CONFLICT), mapping)

    def test_latest_is_by_field_not_by_record(self):
        """A later edit of another field does not decide about this one."""
        pair = a_pair(**CONFLICT, erp_at=10, crm_at=20)
        later = replace(pair, erp=moved(pair.erp, seconds=300, city="Rome"))

        assert (update("to_crm", address1_city="Rome"), update("to_erp", phoneNumber="3")) == decided(later).decisions

    def test_a_person_decides_where_the_policy_says_so_and_other_fields_go_on(self):
        """CNF-003 by field."""
        pair = a_pair(erp={"phoneNumber": "2", "city": "Rome"}, crm={"telephone1": "3"})

        assert (
            Reject(direction="conflict", error=UpdateConflict, fields=("telephone1",)),
            update("to_crm", address1_city="Rome"),
            unchanged("to_erp"),
        ) == decided(pair, customer(conflict="dead_letter")).decisions

    def test_a_line_may_have_a_policy_of_its_own(self):
        mapping = with_line(CUSTOMER, "telephone1", conflict="crm")
        pair = a_pair(erp={"phoneNumber": "2", "city": "Rome"}, crm={"telephone1": "3", "address1_city": "Oslo"})

        assert (update("to_crm", address1_city="Rome"), update("to_erp", phoneNumber="3")) == decided(
            pair, mapping
        ).decisions

    @pytest.mark.parametrize(
        ("use", "expected"),
        [("erp", update("to_crm", telephone1="2")), ("crm", update("to_erp", phoneNumber="3"))],
    )
    @pytest.mark.parametrize("policy", ["dead_letter", "record"])
    def test_a_persons_choice_settles_it(self, policy: str, use: str, expected: Issue):
        """CNF-006: the chosen side's value is written."""
        found = decided(a_pair(**CONFLICT), customer(conflict=policy), retry=True, use=use)

        assert expected == decision(found, expected.direction)
        assert None is decision(found, "conflict")


class TestBuiltInConflicts:
    """`conflict: record`, the built-in integration's way (R173-R175)."""

    def test_the_same_field_fails_the_record_as_a_whole(self):
        """CNF-003: nothing is written on either side, other fields neither."""
        pair = a_pair(erp={"phoneNumber": "2", "city": "Rome"}, crm={"telephone1": "3"})

        assert (Reject(direction="conflict", error=UpdateConflict, fields=("telephone1",)),) == decided(
            pair, MICROSOFT
        ).decisions

    def test_different_fields_fail_the_record_as_well(self):
        """R173: both records changed and a two-way field differs; who touched which field is not asked."""
        pair = a_pair(erp={"phoneNumber": "2"}, crm={"address1_city": "Rome"})
        found = decided(pair, MICROSOFT).decisions

        assert [UpdateConflict] == [item.error for item in found if isinstance(item, Reject)]
        assert [] == [item for item in found if isinstance(item, Issue)]

    def test_a_change_of_one_side_only_is_no_conflict(self):
        assert update("to_crm", telephone1="2") == to_crm(a_pair(erp={"phoneNumber": "2"}), MICROSOFT)

    def test_no_difference_in_a_mapped_field_is_no_conflict(self):
        """CNF-001."""
        pair = a_pair(erp={"number": "2"}, crm={"accountnumber": "3"})

        assert (unchanged("to_crm"), unchanged("to_erp")) == decided(pair, MICROSOFT).decisions

    def test_a_one_way_line_is_no_conflict(self):
        """CNF-002."""
        pair = a_pair(erp={"creditLimit": 5}, crm={"creditlimit": 7})

        assert update("to_crm", creditlimit=Decimal(5)) == to_crm(pair, MICROSOFT)


class TestFirstAgreement:
    def test_equal_records_write_nothing(self):
        found = decided(a_first_pair())

        assert (unchanged("to_crm"), unchanged("to_erp")) == found.decisions
        assert found.pair.erp.base
        assert found.pair.crm.base

    def test_a_blank_gives_way_to_a_value(self):
        """Nothing that somebody entered is emptied because two records were coupled."""
        pair = a_first_pair(erp={"phoneNumber": None}, crm={"emailaddress1": None, "telephone1": "1"})

        assert (update("to_crm", emailaddress1="info@fabrikam.example"), update("to_erp", phoneNumber="1")) == decided(
            pair
        ).decisions

    @pytest.mark.parametrize(
        ("authority", "expected"),
        [(System.ERP, update("to_crm", name="ERP")), (System.CRM, update("to_erp", displayName="CRM"))],
    )
    def test_of_two_values_the_authority_s_stands(self, authority: System, expected: Issue):
        """MAT-001: coupled by a match, the authority's value goes to the other."""
        pair = a_first_pair(erp={"displayName": "ERP"}, crm={"name": "CRM"})

        assert expected == decision(decided(pair, customer(authority=authority)), expected.direction)

    @pytest.mark.parametrize(
        ("use", "expected"),
        [("erp", update("to_crm", name="ERP")), ("crm", update("to_erp", displayName="CRM"))],
    )
    def test_who_couples_may_say_whose_values_stand(self, use: str, expected: Issue):
        """CPL-010, R93, R95: blank or not."""
        pair = a_first_pair(erp={"displayName": "ERP"}, crm={"name": "CRM"}, first_use=use)

        assert expected == decision(decided(pair), expected.direction)

    def test_a_chosen_side_s_blank_stands_too(self):
        pair = a_first_pair(erp={"phoneNumber": None}, first_use="erp")

        assert update("to_crm", telephone1=None) == to_crm(pair)

    def test_one_way_lines_go_their_way(self):
        assert update("to_crm", creditlimit=Decimal(1)) == to_crm(a_first_pair(erp={"creditLimit": 1}))


class TestOwner:
    def test_follows_the_salesperson(self):
        """OWN-002."""
        view = a_view()
        couple_kim(view)

        assert update("to_crm", ownerid=f"systemuser:{KIMS_USER}") == to_crm(
            a_pair(erp={"salespersonCode": "KL"}), view=view
        )

    def test_takes_a_team_s_record_over(self):
        """OWN-002: owned by a team until now."""
        pair = a_pair(erp={"city": "Rome"}, agreed_crm={"ownerid": "team:t"})

        assert update("to_crm", address1_city="Rome", ownerid=f"systemuser:{JANES_USER}") == to_crm(pair)

    def test_that_is_not_coupled_stops_the_whole_direction(self):
        """OWN-003, FLD-012, R39: even when another field is the reason for the update; nothing else is written."""
        pair = a_pair(erp={"city": "Rome"}, agreed_erp={"salespersonCode": "KL"})
        waits = Wait(
            direction="to_crm", error=OwnerNotCoupled, missing=(f"erp:salesperson:{KIM}",), fields=("ownerid",)
        )

        assert (waits, unchanged("to_erp")) == decided(pair).decisions

    def test_that_is_not_coupled_does_not_stop_the_other_direction(self):
        """FLD-012: the other direction is not touched."""
        pair = a_pair(erp={"salespersonCode": "KL"}, crm={"telephone1": "1"})

        assert update("to_erp", phoneNumber="1") == to_erp(pair)
        assert isinstance(to_crm(pair), Wait)

    @pytest.mark.parametrize(("code", "reason"), [(None, "owner-blank"), ("ZZ", "owner-unknown")])
    def test_of_a_blank_or_unknown_salesperson_stays(self, code: str | None, reason: str):
        """R41."""
        found = decided(a_pair(erp={"salespersonCode": code}))

        assert unchanged("to_crm", f"ownerid:{reason}") == decision(found, "to_crm")

    def test_of_an_unknown_salesperson_is_decided_again_when_the_code_appears(self):
        assert ("salesperson-systemuser:ZZ",) == decided(a_pair(erp={"salespersonCode": "ZZ"})).soft_missing

    def test_of_the_crm_never_moves_the_salesperson(self):
        """OWN-004, R44."""
        pair = a_pair(agreed_erp={"salespersonCode": None}, crm={"ownerid": f"systemuser:{KIMS_USER}"})

        assert unchanged("to_erp") == to_erp(pair)

    def test_stays_under_team_ownership(self):
        """R43: changing the salesperson never changes the owner, and an uncoupled one stops nothing."""
        pair = a_pair(erp={"salespersonCode": "KL", "city": "Rome"}, mapping=TEAM_OWNED)

        assert update("to_crm", address1_city="Rome") == to_crm(pair, TEAM_OWNED)


class TestReferences:
    def test_an_option_without_coupling_waits_and_names_it(self):
        pair = a_pair(erp={"paymentTermsId": "term-odd", "city": "Rome"})
        missing = ("option:payment-term:ODD",)

        assert Wait(
            direction="to_crm", error=OptionNotCoupled, missing=missing, fields=("paymenttermscode",)
        ) == to_crm(pair)

    def test_several_reasons_are_all_named_once(self):
        pair = a_pair(erp={"paymentTermsId": "new", "salespersonCode": "KL"})

        assert Wait(
            direction="to_crm",
            error=OwnerNotCoupled,
            missing=(f"erp:salesperson:{KIM}", "erp:paymentTerm:new"),
            fields=("ownerid", "paymenttermscode"),
        ) == to_crm(pair)

    def test_what_waits_is_decided_again_as_soon_as_it_can(self):
        """SKP-001: not skipped, however often it failed."""
        pair = a_pair(erp={"salespersonCode": "KL"})
        held = replace(pair, holds={"to_crm": a_hold("DRW-3001", order=99)})
        view = a_view()
        couple_kim(view)

        assert isinstance(to_crm(held), Wait)
        assert update("to_crm", ownerid=f"systemuser:{KIMS_USER}") == to_crm(held, view=view)

    def test_the_own_currency_is_never_an_uncoupled_reference(self):
        assert update("to_crm", transactioncurrencyid=EURO) == to_crm(
            a_pair(
                erp={"currencyCode": None},
                agreed_erp={"currencyCode": "USD"},
                agreed_crm={"transactioncurrencyid": DOLLAR},
            )
        )

    def test_a_foreign_currency_crosses_by_its_coupling(self):
        """R221, R222."""
        assert update("to_crm", transactioncurrencyid=POUND_CRM) == to_crm(a_pair(erp={"currencyCode": "GBP"}))
        assert update("to_erp", currencyCode="GBP") == to_erp(a_pair(crm={"transactioncurrencyid": POUND_CRM}))

    def test_a_foreign_currency_that_is_not_coupled_waits(self):
        """R223."""
        waits = to_crm(a_pair(erp={"currencyCode": "USD"}))

        assert isinstance(waits, Wait)
        assert ("currency:USD",) == waits.missing

    def test_at_the_first_agreement_no_currency_is_the_own_one(self):
        """Of two currencies the authority's stands; a blank in the ERP is not an unknown value."""
        pair = a_first_pair(erp={"currencyCode": None}, crm={"transactioncurrencyid": POUND_CRM})

        assert update("to_crm", transactioncurrencyid=EURO) == to_crm(pair)

    def test_the_local_currency_s_code_is_no_change_of_a_blank(self):
        """R227: blank and the local code are one in the ERP."""
        pair = a_pair(
            agreed_erp={"currencyCode": None},
            crm={"transactioncurrencyid": EURO},
            agreed_crm={"transactioncurrencyid": DOLLAR},
        )

        assert unchanged("to_erp") == to_erp(pair)

    def test_a_line_that_went_on_without_its_reference_is_decided_when_that_appears(self):
        """FLD-011: the customer keeps the term it names; once its option can be translated, the account gets it."""
        mapping = with_line(CUSTOMER, "paymenttermscode", options=None, clear_when_uncoupled=True)
        pair = a_pair(
            erp={"paymentTermsId": "term-odd"},
            agreed_erp={"paymentTermsId": None},
            agreed_crm={"paymenttermscode": None},
        )
        pair = replace(pair, soft_missing=("erp:paymentTerm:term-odd",))
        found = decided(pair, mapping)
        view = a_view(
            a_coupling("payment-term", a_side("term-odd", state={"code": "ODD"}), a_side("crm-term", state={}))
        )

        assert unchanged("to_crm") == decision(found, "to_crm")
        assert update("to_crm", paymenttermscode="crm-term") == to_crm(found.pair, mapping, view=view, retry=True)

    def test_a_currency_that_was_left_for_want_of_the_local_code_is_decided_when_that_is_known(self):
        pair = a_pair(
            erp={"currencyCode": "EUR"}, agreed_erp={"currencyCode": "USD"}, agreed_crm={"transactioncurrencyid": None}
        )
        found = decided(pair, view=a_view(without=("info",)))

        assert ("local-currency",) == found.soft_missing
        assert update("to_crm", transactioncurrencyid=EURO) == to_crm(found.pair, retry=True)


class TestCompanyStamp:
    def test_goes_with_every_update(self):
        """R54: also when the row carries another company's id."""
        pair = a_pair(erp={"city": "Rome"}, agreed_crm={"bcbi_companyid": OTHER_COMPANY})

        assert update("to_crm", address1_city="Rome", bcbi_companyid=COMPANY) == to_crm(pair)

    def test_is_put_on_a_record_that_was_coupled_without_one(self):
        """MCO-001, R55."""
        assert update("to_crm", bcbi_companyid=COMPANY) == to_crm(a_first_pair(crm={"bcbi_companyid": None}))

    def test_alone_is_no_reason_for_an_update(self):
        assert unchanged("to_crm") == to_crm(a_pair(crm={"bcbi_companyid": None}))

    def test_that_cannot_be_made_yet_stops_every_write(self):
        """Without the company's row an account would be created or changed outside of every filter."""
        pair = a_pair(erp={"city": "Rome"})
        view = a_view(without=(COMPANY,))
        found = decided(pair, view=view)

        assert (Skip(direction="", reason="company-unknown"),) == found.decisions
        assert ("company",) == found.soft_missing

    def test_that_cannot_be_made_after_a_while_is_a_dead_letter(self):
        found = decided(a_pair(erp={"city": "Rome"}), view=a_view(without=(COMPANY,)), retry=True)

        assert [ReferenceNotCoupled] == [item.error for item in found.decisions if isinstance(item, Wait)]


class TestFilters:
    @pytest.mark.parametrize("blocked", ["Ship", "All"])
    def test_a_blocked_customer_is_not_sent(self, blocked: str):
        """FIL-001."""
        pair = a_pair(erp={"blocked": blocked, "city": "Rome"})

        assert Skip(direction="to_crm", reason="outside-filter") == to_crm(pair)

    @pytest.mark.parametrize("outside", [{"statecode": 1}, {"customertypecode": 11}, {"bcbi_companyid": OTHER_COMPANY}])
    def test_an_account_outside_its_filter_is_not_sent(self, outside: dict[str, Value]):
        """FIL-002, MCO-003: inactive, of another type, of another company."""
        pair = a_pair(crm={**outside, "address1_city": "Rome"})

        assert Skip(direction="to_erp", reason="outside-filter") == to_erp(pair)

    def test_the_other_direction_goes_on(self):
        """A filter is about the source: a customer may still be written to an account that left the filter."""
        pair = a_pair(erp={"city": "Rome"}, crm={"statecode": 1})

        assert update("to_crm", address1_city="Rome") == to_crm(pair)

    def test_what_changed_outside_goes_when_the_record_comes_back(self):
        """Filters are not pushed into capture: a record is seen leaving, and coming back."""
        outside = a_pair(erp={"blocked": "All", "city": "Rome"})
        left = decided(outside).pair
        back = replace(left, erp=moved(left.erp, blocked=None))

        assert update("to_crm", address1_city="Rome") == to_crm(back)

    def test_nothing_to_say_outside_is_unchanged(self):
        assert unchanged("to_crm") == to_crm(a_pair(erp={"blocked": "All"}))


class TestFaults:
    @pytest.mark.parametrize("blank", [None, "   ", "\u00a0"])
    def test_a_required_field_that_is_blank_stops_the_record(self, blank: str | None):
        """In either direction; blanks alone are blank."""
        to_the_crm = Reject(direction="to_crm", error=RequiredFieldBlank, fields=("name",))
        to_the_erp = Reject(direction="to_erp", error=RequiredFieldBlank, fields=("displayName",))

        assert to_the_crm == to_crm(a_pair(erp={"displayName": blank, "city": "Rome"}))
        assert to_the_erp == to_erp(a_pair(crm={"name": blank, "address1_city": "Rome"}))

    def test_a_value_that_does_not_fit_stops_the_record(self):
        rejects = Reject(direction="to_crm", error=ValueNotMappable, fields=("creditlimit",))

        assert rejects == to_crm(a_pair(erp={"creditLimit": "much", "city": "Rome"}))

    def test_what_the_target_refused_is_held_until_the_source_changes(self):
        """SKP-004 by another way: no second attempt with the same values, and no second letter."""
        held = replace(a_pair(erp={"city": "Rome"}), holds={"to_crm": a_hold(order=11, fields=("address1_city",))})
        changed = replace(held, erp=moved(held.erp, city="Oslo"))

        assert Skip(direction="to_crm", reason="held", fields=("address1_city",)) == to_crm(held)
        assert update("to_crm", address1_city="Oslo") == to_crm(changed)

    def test_what_the_target_refused_is_tried_again_on_request(self):
        """SKP-005, SKP-007."""
        held = replace(a_pair(erp={"city": "Rome"}), holds={"to_crm": a_hold(order=11)})

        assert update("to_crm", address1_city="Rome") == to_crm(held, retry=True)

    def test_a_hold_of_one_direction_does_not_hold_the_other(self):
        held = replace(a_pair(crm={"address1_city": "Rome"}), holds={"to_crm": a_hold()})

        assert update("to_erp", city="Rome") == to_erp(held)


class TestStates:
    def test_behind_a_command_everything_is_parked(self):
        """Rule 3."""
        assert (Park(),) == decided(a_pair(erp={"city": "Rome"}, in_flight=a_flight())).decisions

    def test_behind_a_claim_everything_is_parked(self):
        assert (Park(),) == decided(a_pair(state=PairState.CLAIMING)).decisions

    def test_uncoupled_by_hand_stays_so(self):
        """R126: until an order says otherwise."""
        pair = a_pair(erp={"city": "Rome"}, state=PairState.UNCOUPLED)

        assert (Skip(direction="", reason="uncoupled-by-hand"),) == decided(pair).decisions
        assert (Skip(direction="", reason="uncoupled-by-hand"),) == decided(pair, retry=True).decisions

    def test_a_table_of_codes_is_only_looked_up(self):
        from schemas.coupling import Pair
        from tests.builders import MAPPINGS

        pair = Pair(erp=a_side("t", state={"code": "X"}))

        assert (Skip(direction="", reason="only-looked-up"),) == decided(pair, MAPPINGS["payment-term"]).decisions


class TestKeyRotation:
    OTHER = Fingerprints.of_key("the next key")

    def test_takes_what_both_hold_as_the_new_agreement_and_writes_nothing(self):
        """What was agreed under the lost key cannot be read: it must not look like a change of every field."""
        pair = a_pair(erp={"city": "Rome"}, crm={"address1_city": "Oslo"})
        found = decided(pair, prints=self.OTHER)

        assert (Skip(direction="", reason="rebased-under-new-key"),) == found.decisions
        assert self.OTHER.key_id == found.pair.key_id

    def test_goes_on_under_the_new_key(self):
        rebased = decided(a_pair(), prints=self.OTHER).pair
        edited = replace(rebased, erp=replace(rebased.erp, state={**rebased.erp.state, "city": "Rome"}, order=12))

        assert update("to_crm", address1_city="Rome") == decision(decided(edited, prints=self.OTHER), "to_crm")

    def test_does_not_take_a_field_that_is_not_known_for_a_blank(self):
        """A field captured after the rotation is a first agreement, not a conflict of two edits."""
        pair = a_pair()
        erp, crm = dict(pair.erp.state), dict(pair.crm.state)
        del erp["city"], crm["address1_city"]
        known_less = replace(pair, erp=replace(pair.erp, state=erp, base={}), crm=replace(pair.crm, state=crm, base={}))
        rebased = decided(known_less, prints=self.OTHER).pair
        captured = replace(
            rebased,
            erp=replace(rebased.erp, state={**erp, "city": None}),
            crm=replace(rebased.crm, state={**crm, "address1_city": "Rome"}),
        )

        assert update("to_erp", city="Rome") == decision(decided(captured, prints=self.OTHER), "to_erp")


ERP_EDITS = st.fixed_dictionaries(
    {},
    optional={
        "displayName": st.sampled_from(["Contoso", "Contoso ", None]),
        "city": st.sampled_from(["Rome", None, "x" * 40]),
        "country": st.sampled_from(["de", "AT"]),
        "creditLimit": st.sampled_from([0, None, 5, "much"]),
        "salespersonCode": st.sampled_from([None, "JR", "KL", "ZZ"]),
        "paymentTermsId": st.sampled_from([None, "term-odd", "new"]),
        "currencyCode": st.sampled_from([None, "EUR", "USD"]),
        "blocked": st.sampled_from([None, "All"]),
    },
)
CRM_EDITS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["Contoso", "Fabrikam "]),
        "address1_city": st.sampled_from(["Rome", "Oslo", None]),
        "address1_country": st.sampled_from(["DE", "at"]),
        "paymenttermscode": st.sampled_from([None, 1, 4, 9]),
        "transactioncurrencyid": st.sampled_from([None, EURO, DOLLAR]),
        "bcbi_companyid": st.sampled_from([None, OTHER_COMPANY]),
        "statecode": st.sampled_from([0, 1]),
    },
)
POLICIES = st.sampled_from(["erp", "crm", "latest", "dead_letter", "record"])
PAIRS = st.builds(a_pair, erp=ERP_EDITS, crm=CRM_EDITS, erp_at=st.integers(0, 9), crm_at=st.integers(0, 9))
FIRST_PAIRS = st.builds(a_first_pair, erp=ERP_EDITS, crm=CRM_EDITS)
THE_VIEW = a_view()


class TestLaws:
    @settings(max_examples=150)
    @given(PAIRS | FIRST_PAIRS, POLICIES)
    def test_deciding_twice_is_deciding_once(self, pair: Any, policy: str):
        """A decision is taken on the row as it stands, so it does not matter how often it is taken."""
        mapping = customer(conflict=policy)
        first = decided(pair, mapping, view=THE_VIEW)
        second = decided(first.pair, mapping, view=THE_VIEW)

        assert first.decisions == second.decisions or settled_only(first.decisions, second.decisions)
        assert second == decided(second.pair, mapping, view=THE_VIEW)

    @settings(max_examples=150)
    @given(PAIRS | FIRST_PAIRS, POLICIES)
    def test_a_write_names_only_fields_that_differ(self, pair: Any, policy: str):
        """Minimal: what the target holds already is not sent."""
        from processors.transfer import equal

        for item in decided(pair, customer(conflict=policy), view=THE_VIEW).decisions:
            if isinstance(item, Issue):
                system = System.CRM if item.direction == "to_crm" else System.ERP
                held = pair.crm.state if system is System.CRM else pair.erp.state
                lines = {line.name_in(system): line for line in CUSTOMER.fields}
                assert item.values
                assert [] == [name for name, value in item.values.items() if equal(lines[name], value, held[name])]

    @settings(max_examples=150)
    @given(PAIRS | FIRST_PAIRS, POLICIES)
    def test_no_field_goes_both_ways_at_once(self, pair: Any, policy: str):
        found = decided(pair, customer(conflict=policy), view=THE_VIEW).decisions
        written = {item.direction: set(item.values) for item in found if isinstance(item, Issue)}
        to_the_crm = {line.crm for line in CUSTOMER.fields if line.erp in written.get("to_erp", set())}

        assert set() == written.get("to_crm", set()) & to_the_crm

    @settings(max_examples=100)
    @given(PAIRS | FIRST_PAIRS, POLICIES)
    def test_neither_side_s_state_is_changed_by_deciding(self, pair: Any, policy: str):
        after = decided(pair, customer(conflict=policy), view=THE_VIEW).pair

        assert (pair.erp.state, pair.crm.state, pair.erp.version, pair.crm.order) == (
            after.erp.state,
            after.crm.state,
            after.erp.version,
            after.crm.order,
        )


def settled_only(first: Any, second: Any) -> bool:
    """What was only left as it is may be told once: the names of fields that were left."""
    return [replace(item, fields=()) if isinstance(item, Skip) else item for item in first] == [
        replace(item, fields=()) if isinstance(item, Skip) else item for item in second
    ]
