"""A record without counterpart: look for one, make one, or leave it alone; and a record that lost its counterpart."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from processors.decide import Claim, Issue, Reject, Settle, Skip, Wait, match_tests
from processors.decide import test_print as print_of
from processors.mapping import EntityMapping, MatchField
from schemas.coupling import Hold, Matched, Pair
from schemas.errors import (
    AmbiguousMatch,
    CounterpartDeleted,
    OwnerNotCoupled,
    ReferenceNotCoupled,
    RequiredFieldBlank,
)
from schemas.records import CommandKind, MatchTest, System, Value
from tests.builders import (
    COMPANY,
    CUSTOMER,
    EURO,
    FOB_CRM,
    JANES_USER,
    KIM,
    MICROSOFT,
    NET_30_CRM,
    NOON,
    OTHER_COMPANY,
    PRINTS,
    SALESPEOPLE,
    TEAM,
    TEAM_OWNED,
    a_coupling,
    a_customer,
    a_pair,
    a_salesperson,
    a_side,
    a_single,
    a_user,
    a_view,
    an_account,
    customer,
    decided,
)

NO_MATCH = customer(match=())


def looked_up(pair: Pair, *candidates: str, mapping: EntityMapping = CUSTOMER, **changed: Any) -> Pair:
    """The pair after a look-up that found these."""
    side = pair.erp or pair.crm
    assert side is not None
    tests = match_tests(side, mapping, "to_crm" if pair.erp else "to_erp", a_view())
    return replace(pair, matched=Matched(test=print_of(tests, PRINTS), candidates=candidates, **changed))


def reasons(pair: Pair, mapping: EntityMapping) -> list[str]:
    return [item.reason for item in decided(pair, mapping).decisions if isinstance(item, Skip)]


class TestMatch:
    def test_is_looked_for_before_anything_is_made(self):
        """Groups in order of priority (R104); each with the values that the other side would hold."""
        by_name = {"name": "Fabrikam"}
        look = Issue(
            direction="to_crm",
            kind=CommandKind.MATCH,
            tests=(MatchTest(equals={"accountnumber": "C-10"}), MatchTest(equals=by_name)),
        )

        assert (look,) == decided(a_single()).decisions

    def test_a_blank_criterion_takes_no_part(self):
        """R106: nothing matches a blank."""
        (look,) = decided(a_single(System.CRM)).decisions

        assert (MatchTest(equals={"displayName": "Fabrikam"}),) == look.tests

    def test_all_criteria_of_a_group_must_have_a_value(self):
        mapping = customer(match=((MatchField(erp="displayName", crm="name"), MatchField(erp="state", crm="x")),))

        assert () == match_tests(a_side(state=a_customer()), mapping, "to_crm", a_view())

    def test_is_not_looked_for_without_criteria(self):
        """MAT-007: a mapping without them matches nothing, and makes."""
        (issue,) = decided(a_single(), NO_MATCH).decisions

        assert CommandKind.CREATE is issue.kind

    def test_one_that_may_be_free_is_claimed(self):
        """MAT-001, R107."""
        assert (Claim(direction="to_crm", candidate="A"),) == decided(looked_up(a_single(), "A")).decisions
        assert (Claim(direction="to_erp", candidate="C"),) == decided(looked_up(a_single(System.CRM), "C")).decisions

    def test_several_are_left_to_a_person(self):
        """MAT-005, R107: no first-come-first-served."""
        rejects = Reject(direction="to_crm", error=AmbiguousMatch, missing=("crm:account:A", "crm:account:B"))

        assert (rejects,) == decided(looked_up(a_single(), "A", "B")).decisions

    def test_several_of_which_one_is_taken_are_left_to_a_person(self):
        """R107: coupled rows count too; only the free ones are proposed."""
        taken = a_coupling("customer-account", a_side("X", state=a_customer()), a_side("A", state=an_account()))
        (rejects,) = decided(looked_up(a_single(), "A", "B"), view=a_view(taken)).decisions

        assert (AmbiguousMatch, ("crm:account:B",)) == (rejects.error, rejects.missing)

    def test_none_leads_to_a_create(self):
        """MAT-004, R108."""
        (issue,) = decided(looked_up(a_single())).decisions

        assert CommandKind.CREATE is issue.kind

    def test_one_that_belongs_to_somebody_else_leads_to_a_create(self):
        (issue,) = decided(looked_up(a_single(), "A", ruled_out=("A",))).decisions

        assert CommandKind.CREATE is issue.kind

    def test_several_that_all_belong_to_others_lead_to_a_create(self):
        taken = [
            a_coupling("customer-account", a_side(erp, state=a_customer()), a_side(crm, state=an_account()))
            for erp, crm in (("X", "A"), ("Y", "B"))
        ]
        (issue,) = decided(looked_up(a_single(), "A", "B"), view=a_view(*taken)).decisions

        assert CommandKind.CREATE is issue.kind

    def test_one_that_was_found_ambiguous_from_the_other_side_is_left_to_a_person(self):
        (rejects,) = decided(looked_up(a_single(), "A", ambiguous=True)).decisions

        assert AmbiguousMatch is rejects.error

    def test_is_looked_for_again_when_the_record_changes_in_a_criterion(self):
        (issue,) = decided(looked_up(a_single(), "A", "B")).decisions
        changed = replace(looked_up(a_single(), "A", "B"), erp=a_side(state=a_customer(displayName="Contoso")))

        assert isinstance(issue, Reject)
        assert CommandKind.MATCH is decided(changed).decisions[0].kind

    def test_is_not_looked_for_again_when_it_changes_elsewhere_or_in_letter_case(self):
        """R106: case does not count."""
        moved = replace(
            looked_up(a_single(), "A", "B"), erp=a_side(state=a_customer(city="Rome", displayName="FABRIKAM"))
        )

        assert isinstance(decided(moved).decisions[0], Reject)

    def test_alone_is_what_salespeople_do(self):
        """R109: a user and a salesperson of one e-mail address are coupled; nobody is ever made."""
        person = Pair(erp=a_salesperson("E", "EE"))
        user = Pair(crm=a_user("U", "ee@contoso.example"))
        (look,) = decided(person, SALESPEOPLE).decisions
        (look_back,) = decided(user, SALESPEOPLE).decisions

        assert (CommandKind.MATCH, (MatchTest(equals={"internalemailaddress": "ee@contoso.example"}),)) == (
            look.kind,
            look.tests,
        )
        assert ("to_erp", (MatchTest(equals={"email": "ee@contoso.example"}),)) == (
            look_back.direction,
            look_back.tests,
        )
        assert (Skip(direction="to_crm", reason="not-coupled"),) == decided(
            looked_up(person, mapping=SALESPEOPLE), SALESPEOPLE
        ).decisions


class TestCreate:
    def test_of_an_account_carries_mapped_values_defaults_and_stamp(self):
        """REC-002, R54, R240, R244: without the type the new account would fall outside its own filter."""
        expected = {
            "name": "Fabrikam",
            "address1_line1": "Unter den Linden 1",
            "address1_postalcode": "10117",
            "address1_city": "Berlin",
            "address1_country": "DE",
            "transactioncurrencyid": EURO,
            "emailaddress1": "info@fabrikam.example",
            "telephone1": "+49 30 555 0100",
            "ownerid": f"systemuser:{JANES_USER}",
            "address1_freighttermscode": FOB_CRM,
            "paymenttermscode": NET_30_CRM,
            "creditlimit": 25000,
            "bcbi_companyid": COMPANY,
            "customertypecode": 3,
        }
        (issue,) = decided(a_single(), NO_MATCH).decisions

        assert ("to_crm", CommandKind.CREATE, expected) == (issue.direction, issue.kind, dict(issue.values))

    def test_of_a_customer_carries_what_the_account_says(self):
        """REC-001, CPL-012: no owner, no credit limit, no number: those do not go this way; blank: own currency."""
        (issue,) = decided(a_single(System.CRM), NO_MATCH).decisions
        names = {line.erp for line in CUSTOMER.lines("to_erp") if not line.currency}

        assert ("to_erp", CommandKind.CREATE) == (issue.direction, issue.kind)
        assert {name: value for name, value in a_customer().items() if name in names and value is not None} == dict(
            issue.values
        )

    def test_sends_no_blanks(self):
        """R239, R240, FLD-014: defaults and templates of the target fill what nobody said."""
        (issue,) = decided(a_single(phoneNumber=None), NO_MATCH).decisions

        assert "telephone1" not in issue.values
        assert None not in issue.values.values()

    def test_applies_the_defaults_of_the_mapping(self):
        """FLD-014, R239."""
        mapping = NO_MATCH.model_copy(
            update={"defaults": NO_MATCH.defaults.model_copy(update={"erp": {"taxLiable": True}})}
        )
        (issue,) = decided(a_single(System.CRM), mapping).decisions

        assert True is issue.values["taxLiable"]

    @pytest.mark.parametrize("code", [None, "ZZ"])
    def test_without_salesperson_belongs_to_the_team(self, code: str | None):
        """R38."""
        (issue,) = decided(a_single(salespersonCode=code), NO_MATCH).decisions

        assert f"team:{TEAM}" == issue.values["ownerid"]

    def test_under_team_ownership_belongs_to_the_team(self):
        """OWN-005, R37."""
        mapping = TEAM_OWNED.model_copy(update={"match": ()})
        (issue,) = decided(a_single(salespersonCode="JR"), mapping).decisions

        assert f"team:{TEAM}" == issue.values.get("ownerid")

    def test_waits_for_its_owner(self):
        """OWN-003, FUL-006: nothing is made half."""
        waits = Wait(
            direction="to_crm", error=OwnerNotCoupled, missing=(f"erp:salesperson:{KIM}",), fields=("ownerid",)
        )

        assert (waits,) == decided(a_single(salespersonCode="KL"), NO_MATCH).decisions

    @pytest.mark.parametrize("blank", [None, "", "   ", "\t", "\u00a0\u2003"])
    def test_needs_its_required_fields(self, blank: str | None):
        """Blanks alone are blank: the target would refuse them for ever."""
        (rejects,) = decided(a_single(displayName=blank), NO_MATCH).decisions

        assert (RequiredFieldBlank, ("name",)) == (rejects.error, rejects.fields)

    def test_waits_for_the_company_s_row(self):
        view = a_view(without=(COMPANY,))

        assert (Skip(direction="", reason="company-unknown"),) == decided(a_single(), view=view).decisions
        (waits,) = decided(a_single(), view=view, retry=True).decisions
        assert ReferenceNotCoupled is waits.error

    @pytest.mark.parametrize(
        ("system", "outside"),
        [
            (System.ERP, {"blocked": "All"}),
            (System.CRM, {"statecode": 1}),
            (System.CRM, {"customertypecode": None}),
            (System.CRM, {"bcbi_companyid": OTHER_COMPANY}),
        ],
    )
    def test_is_for_records_inside_their_filter(self, system: System, outside: dict[str, Value]):
        """FIL-001, FIL-002, MCO-003."""
        (skip,) = decided(a_single(system, **outside)).decisions

        assert "outside-filter" == skip.reason

    @pytest.mark.parametrize("system", System)
    def test_is_only_by_order_under_the_built_in_defaults(self, system: System):
        """TBL-003, R138."""
        (skip,) = decided(a_single(system), MICROSOFT).decisions

        assert "not-coupled" == skip.reason

    def test_goes_the_way_that_the_mapping_allows(self):
        """TBL-004, TBL-005, R109."""
        only = customer(create="to_crm", match=())

        assert CommandKind.CREATE is decided(a_single(), only).decisions[0].kind
        assert (Skip(direction="to_erp", reason="not-coupled"),) == decided(a_single(System.CRM), only).decisions

    def test_that_the_target_refused_is_held_until_the_record_changes(self):
        hold = Hold(code="DRW-4001", slug="rejected", order=10, since=NOON, letter_id="l", fields=("telephone1",))
        held = replace(a_single(), holds={"to_crm": hold})
        changed = replace(held, erp=a_side("C", order=11, state=a_customer()))

        assert (Skip(direction="to_crm", reason="held", fields=("telephone1",)),) == decided(held, NO_MATCH).decisions
        assert CommandKind.CREATE is decided(changed, NO_MATCH).decisions[0].kind
        assert CommandKind.CREATE is decided(held, NO_MATCH, retry=True).decisions[0].kind

    def test_is_not_for_a_record_that_is_gone(self):
        assert (Skip(direction="", reason="deleted-before-coupling"),) == decided(
            Pair(erp=a_side(deleted=True))
        ).decisions
        assert (Skip(direction="", reason="deleted-before-coupling"),) == decided(Pair()).decisions


def broken(gone: System, **changed: Any) -> Pair:
    """The pair whose customer or account was deleted."""
    pair = a_pair(**changed)
    assert pair.erp is not None
    assert pair.crm is not None
    if gone is System.ERP:
        return replace(pair, erp=replace(pair.erp, deleted=True))
    return replace(pair, crm=replace(pair.crm, deleted=True))


class TestDeleted:
    @pytest.mark.parametrize(
        ("gone", "toward", "ref"),
        [(System.ERP, "to_erp", "erp:customer:C"), (System.CRM, "to_crm", "crm:account:A")],
    )
    def test_counterpart_is_a_dead_letter_that_names_it(self, gone: System, toward: str, ref: str):
        """DEL-001, R187: the shipped policy; the survivor is left as it is and nothing is made."""
        rejects = Reject(direction=toward, error=CounterpartDeleted, detail=f"{ref} was deleted")

        assert (rejects,) == decided(broken(gone)).decisions
        assert (rejects,) == decided(broken(gone), MICROSOFT).decisions

    @pytest.mark.parametrize("gone", System)
    @pytest.mark.parametrize("policy", ["restore", "uncouple"])
    def test_counterpart_is_restored_or_forgotten_by_policy_or_choice(self, gone: System, policy: str):
        """DEL-002, DEL-003, DEL-007, R188, R189."""
        toward = "to_erp" if gone is System.ERP else "to_crm"
        settle = (Settle(direction=toward, how=policy),)

        assert settle == decided(broken(gone), customer(deletes=policy)).decisions
        assert settle == decided(broken(gone), retry=True, use=policy).decisions

    @pytest.mark.parametrize(("gone", "away"), [(System.ERP, "to_crm"), (System.CRM, "to_erp")])
    def test_counterpart_takes_the_survivor_along_by_policy_or_choice(self, gone: System, away: str):
        """DEL-006, R192."""
        delete = (Issue(direction=away, kind=CommandKind.DELETE),)

        assert delete == decided(broken(gone), customer(deletes="propagate")).decisions
        assert delete == decided(broken(gone), retry=True, use="propagate").decisions

    def test_counterpart_whose_survivor_may_not_be_deleted_is_not_tried_again_at_once(self):
        pair = broken(System.ERP)
        hold = Hold(code="DRW-4004", slug="write-forbidden", order=10, since=NOON, letter_id="l")
        held = replace(pair, holds={"to_crm": hold})

        assert (Skip(direction="to_crm", reason="held"),) == decided(held, customer(deletes="propagate")).decisions

    def test_both_leave_nothing(self):
        """DEL-008, R124."""
        pair = broken(System.ERP)
        both = replace(pair, crm=replace(pair.crm, deleted=True))

        assert ["dissolve"] == [item.how for item in decided(both).decisions]

    def test_a_choice_about_conflicts_is_no_choice_about_deletes(self):
        (rejects,) = decided(broken(System.ERP), retry=True, use="erp").decisions

        assert CounterpartDeleted is rejects.error

    def test_counterpart_that_is_back_is_decided_as_ever(self):
        assert [Skip, Skip] == [type(item) for item in decided(a_pair()).decisions]
