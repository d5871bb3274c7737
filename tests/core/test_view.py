"""The reference view: what is coupled with what, whatever the order in which rows are read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from processors.view import ReferenceView
from schemas.coupling import Home, Pair, PairState, Row
from schemas.records import System
from tests.builders import (
    COMPANY,
    COMPANY_ID,
    DOLLAR,
    EURO,
    JANE,
    JANES_USER,
    KIM,
    KIMS_USER,
    MAPPINGS,
    TEAM,
    a_coupling,
    a_salesperson,
    a_side,
    a_user,
    a_view,
    couple_kim,
    reference_rows,
)

PEOPLE = "salesperson-systemuser"
E, U = "salesperson-e", "user-u"


def empty_view() -> ReferenceView:
    return ReferenceView(MAPPINGS.values(), company_id=COMPANY_ID)


def alone(record_id: str = E, code: str = "EE") -> Row:
    return Row(mapping=PEOPLE, id=record_id, pair=Pair(erp=a_salesperson(record_id, code)))


def user_alone(record_id: str = U, email: str = "u@contoso.example") -> Row:
    return Row(mapping=PEOPLE, id=record_id, pair=Pair(crm=a_user(record_id, email)))


def coupled(erp: str = E, crm: str = U, code: str = "EE") -> Row:
    return a_coupling(PEOPLE, a_salesperson(erp, code), a_user(crm, "u@contoso.example"))


def handed_over(crm: str = U, to: str = E) -> Row:
    return Row(mapping=PEOPLE, id=crm, home=Home(belongs_to=to, claim="c"))


class TestLookUps:
    def test_find_a_coupling_from_either_side(self):
        """CPL-001."""
        view = a_view()

        assert JANES_USER == view.coupled_to(PEOPLE, System.ERP, JANE)
        assert JANE == view.coupled_to(PEOPLE, System.CRM, JANES_USER)

    def test_of_what_is_not_known_find_nothing(self):
        """CPL-002: "not coupled" is an answer, not an error."""
        view = a_view()

        assert None is view.coupled_to(PEOPLE, System.ERP, "nobody")
        assert None is view.coupled_to(PEOPLE, System.ERP, KIM)
        assert None is view.erp_id_by_key(PEOPLE, "ZZ")
        assert None is view.key_by_id(PEOPLE, System.ERP, "nobody")
        assert None is view.currency_id("CHF")
        assert not view.is_known(PEOPLE, System.ERP, "nobody")

    @pytest.mark.parametrize("key", ["JR", "jr", " JR "])
    def test_by_business_key_ignore_case_and_blanks_at_the_ends(self, key: str):
        assert JANE == a_view().erp_id_by_key(PEOPLE, key)
        assert JANES_USER == a_view().id_by_key(PEOPLE, System.CRM, "JR@contoso.EXAMPLE")

    def test_tell_known_from_coupled(self):
        """R38, R39: an uncoupled salesperson is known, an unknown code is not."""
        view = a_view()

        assert (True, KIM, "KL") == (
            view.is_known(PEOPLE, System.ERP, KIM),
            view.erp_id_by_key(PEOPLE, "KL"),
            view.key_by_id(PEOPLE, System.ERP, KIM),
        )

    def test_a_pair_uncoupled_by_hand_is_not_coupled_though_both_records_stand_in_one_row(self):
        row = coupled(E, E)
        view = a_view(replace(row, pair=replace(row.pair, state=PairState.UNCOUPLED)))

        assert None is view.coupled_to(PEOPLE, System.ERP, E)

    def test_a_deleted_record_is_not_there(self):
        """R51: the coupling of a deleted salesperson counts no more."""
        row = coupled()
        gone = replace(row.pair.erp, deleted=True)
        view = a_view(row)
        view.apply(replace(row, pair=replace(row.pair, erp=gone)))

        assert None is view.coupled_to(PEOPLE, System.CRM, U)
        assert None is view.erp_id_by_key(PEOPLE, "EE")

    def test_rows_of_mappings_that_are_gone_are_passed_over(self):
        assert () == a_view().apply(Row(mapping="vendor-account", id="V", pair=Pair(erp=a_side("V"))))


class TestNews:
    def test_of_a_coupling_names_both_records_once(self):
        view = a_view()

        assert (f"erp:salesperson:{KIM}", f"crm:systemuser:{KIMS_USER}") == couple_kim(view)
        assert () == couple_kim(view)

    def test_of_a_business_key_is_told_when_it_appears_or_changes(self):
        view = a_view()

        assert (f"{PEOPLE}:EE",) == view.apply(alone())
        assert () == view.apply(alone())
        assert (f"{PEOPLE}:FF",) == view.apply(alone(code="FF"))
        assert None is view.erp_id_by_key(PEOPLE, "EE")

    def test_of_a_coupling_come_again_after_uncoupling(self):
        view = a_view()
        view.apply(coupled())
        view.apply(alone())

        assert (f"erp:salesperson:{E}", f"crm:systemuser:{U}") == view.apply(coupled())

    def test_of_another_partner_are_news(self):
        view = a_view()
        view.apply(coupled())

        assert f"crm:systemuser:{KIMS_USER}" in view.apply(coupled(crm=KIMS_USER))
        assert KIMS_USER == view.coupled_to(PEOPLE, System.ERP, E)
        assert None is view.coupled_to(PEOPLE, System.CRM, U)

    def test_of_company_currency_and_its_row(self):
        news = [name for row in reference_rows() for name in empty_view().apply(row)]

        assert {"company", "local-currency", "currency:EUR", "currency:USD"} <= set(news)

    def test_of_the_company_are_told_once_until_its_team_changes(self):
        view = a_view()
        (row,) = (row for row in reference_rows() if row.id == COMPANY)
        other_team = replace(row.pair.crm, state={**row.pair.crm.state, "bcbi_defaultowningteamid": "team-2"})

        assert () == view.apply(row)
        assert ("company",) == view.apply(replace(row, pair=Pair(crm=other_team)))
        assert ("team-2", COMPANY) == (view.default_team, view.company_crm_id)

    def test_nothing_is_new_about_another_company(self):
        """R36, R53: by id only, never by name."""
        other = a_side("row-2", state={"bcbi_externalid": "another", "bcbi_name": "CRONUS"})
        view = a_view()

        assert () == view.apply(Row(mapping="company", id="row-2", pair=Pair(crm=other)))
        assert COMPANY == view.company_crm_id

    def test_company_is_found_whatever_the_case_of_its_id(self):
        view = ReferenceView(MAPPINGS.values(), company_id=COMPANY_ID.upper())
        for row in reference_rows():
            view.apply(row)

        assert (COMPANY, TEAM, "EUR", EURO, DOLLAR) == (
            view.company_crm_id,
            view.default_team,
            view.local_currency,
            view.currency_id("eur"),
            view.currency_id("USD"),
        )


class TestCouplings:
    """Rows are read partition by partition: an old row of one partition may come after a new one of another."""

    def test_stays_when_the_crm_record_s_old_home_is_read_last(self):
        """The ordinary way of a coupling: the user's own row, the salesperson's row, then the user's row again."""
        view = empty_view()
        for row in (user_alone(), coupled(), handed_over()):
            view.apply(row)

        assert U == view.coupled_to(PEOPLE, System.ERP, E)
        assert E == view.coupled_to(PEOPLE, System.CRM, U)

    def test_moves_whichever_row_is_read_first(self):
        """A user given to another salesperson, whose row is read before the first one's."""
        view = empty_view()
        for row in (coupled(), coupled(KIM, U, "KL"), alone()):
            view.apply(row)

        assert KIM == view.coupled_to(PEOPLE, System.CRM, U)
        assert U == view.coupled_to(PEOPLE, System.ERP, KIM)
        assert None is view.coupled_to(PEOPLE, System.ERP, E)

    def test_a_record_keeps_its_key_when_its_old_home_is_read_last(self):
        view = empty_view()
        for row in (user_alone(), coupled(), handed_over()):
            view.apply(row)

        assert U == view.id_by_key(PEOPLE, System.CRM, "u@contoso.example")
        assert view.is_known(PEOPLE, System.CRM, U)

    @settings(max_examples=200)
    @given(st.data())
    def test_order_of_rows_does_not_matter(self, data: st.DataObject):
        """Each row is read in its own order, the rows among each other in any: the end is the same."""
        queues = [
            [alone(), coupled(), alone(), coupled(crm=KIMS_USER)],
            [alone(KIM, "KL"), coupled(KIM, U, "KL")],
            [user_alone(), handed_over(), user_alone(), handed_over(to=KIM)],
            [user_alone(KIMS_USER, "k@contoso.example"), handed_over(KIMS_USER)],
        ]
        view = empty_view()
        while any(queues):
            queue = data.draw(st.sampled_from([queue for queue in queues if queue]))
            view.apply(queue.pop(0))

        assert (KIMS_USER, U) == (view.coupled_to(PEOPLE, System.ERP, E), view.coupled_to(PEOPLE, System.ERP, KIM))
        assert (E, KIM) == (view.coupled_to(PEOPLE, System.CRM, KIMS_USER), view.coupled_to(PEOPLE, System.CRM, U))
        assert (E, KIM) == (view.erp_id_by_key(PEOPLE, "EE"), view.erp_id_by_key(PEOPLE, "KL"))
        assert view.is_known(PEOPLE, System.CRM, U)

    @given(st.permutations([alone(E, "OLD"), alone(KIM, "OLD")]), st.permutations([alone(E, "EE"), alone(KIM, "OLD")]))
    def test_a_key_that_two_rows_had_belongs_to_the_one_that_has_it(self, first: list[Row], then: list[Row]):
        """A code was given to another salesperson; the rows are read in any order."""
        view = empty_view()
        for row in (*first, *then):
            view.apply(row)

        assert (KIM, E) == (view.erp_id_by_key(PEOPLE, "OLD"), view.erp_id_by_key(PEOPLE, "EE"))
