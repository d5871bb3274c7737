"""When two values count as equal (R199-R202), and when a record is inside a filter."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.mapping import Condition, FieldMapping
from processors.transfer import equal, passes
from schemas.records import System, Value
from tests.builders import (
    COMPANY,
    CUSTOMER,
    OTHER_COMPANY,
    SALESPEOPLE,
    a_customer,
    a_view,
    an_account,
)
from tests.contract.strategies import VALUES

TEXT = FieldMapping(erp="city", crm="address1_city")
CUT = FieldMapping(erp="city", crm="address1_city", erp_length=5, crm_length=8)
CODE = FieldMapping(erp="country", crm="address1_country", type="code")
AMOUNT = FieldMapping(erp="creditLimit", crm="creditlimit", type="decimal")
LINK = FieldMapping(erp="shipTo", crm="shipto", type="id")
OWNER = FieldMapping(erp="salespersonCode", crm="ownerid", owner="salesperson-systemuser", direction="to_crm")
LINES = st.sampled_from([None, TEXT, CUT, CODE, AMOUNT, LINK, OWNER])


class TestEqual:
    @pytest.mark.parametrize(
        ("line", "left", "right"),
        [
            (TEXT, "Bonn", "Bonn "),
            (TEXT, "", None),
            (TEXT, "  ", None),
            (CUT, "Wuppertal", "Wuppe"),  # R200: they differ beyond the shorter length only
            (CUT, "Bad  Aibling", "Bad"),  # the cut left a blank at the end
            (CODE, "de", "DE"),  # R199
            (CODE, " de", "DE "),
            (LINK, "ABC-1", "abc-1"),  # ids are written in either case
            (OWNER, "systemuser:ABC", "systemuser:abc"),
            (AMOUNT, None, 0),  # the ERP has no blank number
            (AMOUNT, Decimal("5.00"), 5),
            (AMOUNT, "5.10", Decimal("5.1")),
            (AMOUNT, Decimal(0), Decimal("0.00")),
            (None, Decimal("5.0"), 5),
            (None, "a ", "a"),
        ],
    )
    def test_where_the_transfer_would_change_nothing(self, line: FieldMapping | None, left: Value, right: Value):
        assert equal(line, left, right)
        assert equal(line, right, left)

    @pytest.mark.parametrize(
        ("line", "left", "right"),
        [
            (TEXT, "Bonn", "bonn"),  # a text keeps its letter case
            (TEXT, "Bonn", None),
            (TEXT, "0", None),
            (TEXT, "5", 5),
            (CUT, "Wuppertal", "Wuppa"),
            (CODE, "DE", "AT"),
            (AMOUNT, None, Decimal("0.01")),
            (AMOUNT, 5, 6),
            (None, 0, None),  # only an amount is blank at zero
            (None, False, None),
            (None, "a", "A"),
        ],
    )
    def test_is_false_where_it_would(self, line: FieldMapping | None, left: Value, right: Value):
        assert not equal(line, left, right)
        assert not equal(line, right, left)

    @given(LINES, VALUES)
    def test_is_reflexive(self, line: FieldMapping | None, value: Value):
        assert equal(line, value, value)

    @given(LINES, VALUES, VALUES)
    def test_is_symmetric(self, line: FieldMapping | None, left: Value, right: Value):
        assert equal(line, left, right) == equal(line, right, left)

    @given(LINES, st.sampled_from(["NaN", "sNaN", "Infinity", "x"]), VALUES)
    def test_never_raises(self, line: FieldMapping | None, text: str, value: Value):
        """A value of a record must not be able to stop the worker."""
        assert equal(line, text, value) in (True, False)
        try:
            number = Decimal(text)
        except ArithmeticError:
            return
        assert equal(line, number, value) in (True, False)


def inside(state: dict[str, Value], *conditions: Condition) -> bool:
    return passes(state, conditions, a_view())


class TestPasses:
    def test_all_conditions_must_hold(self):
        one, two = Condition(field="a", equals=1), Condition(field="b", equals="x")

        assert inside({"a": 1, "b": "x"}, one, two)
        assert not inside({"a": 1, "b": "y"}, one, two)
        assert inside({"a": 1})

    def test_null_means_blank(self):
        """FIL-004: a blocked customer has some text there; an empty text is blank too."""
        condition = Condition(field="blocked", equals=None)

        assert inside({"blocked": None}, condition)
        assert inside({"blocked": " "}, condition)
        assert not inside({"blocked": "All"}, condition)

    def test_a_field_that_was_not_captured_does_not_pass(self):
        """Absent is not blank."""
        assert not inside({}, Condition(field="blocked", equals=None))

    @pytest.mark.parametrize(("company", "expected"), [(COMPANY, True), (None, True), (OTHER_COMPANY, False)])
    def test_rows_of_this_company_or_of_none_are_seen(self, company: str | None, expected: bool):
        """MCO-003, R56."""
        assert expected == inside({"bcbi_companyid": company}, Condition(field="bcbi_companyid", company=True))

    def test_without_a_company_row_only_unstamped_rows_pass(self):
        condition = Condition(field="bcbi_companyid", company=True)

        assert not passes({"bcbi_companyid": COMPANY}, (condition,), a_view(without=(COMPANY,)))

    @pytest.mark.parametrize("blocked", ["Ship", "Invoice", "All"])
    def test_the_shipped_filter_lets_no_blocked_customer_pass(self, blocked: str):
        """FIL-001, FIL-004."""
        conditions = CUSTOMER.conditions(System.ERP)

        assert inside(a_customer(), *conditions)
        assert not inside(a_customer(blocked=blocked), *conditions)

    @pytest.mark.parametrize(
        "changed", [{"statecode": 1}, {"customertypecode": 11}, {"customertypecode": None}, {"bcbi_companyid": "x"}]
    )
    def test_the_shipped_filter_lets_only_active_customers_of_this_company_pass(self, changed: dict[str, Value]):
        """FIL-002, FIL-004."""
        conditions = CUSTOMER.conditions(System.CRM)

        assert inside(an_account(), *conditions)
        assert not inside(an_account(**changed), *conditions)

    @pytest.mark.parametrize("changed", [{"isdisabled": True}, {"islicensed": False}, {"isintegrationuser": True}])
    def test_the_shipped_filter_lets_only_people_pass(self, changed: dict[str, Value]):
        """FIL-006."""
        user = {"isdisabled": False, "islicensed": True, "isintegrationuser": False}

        assert inside(user, *SALESPEOPLE.conditions(System.CRM))
        assert not inside({**user, **changed}, *SALESPEOPLE.conditions(System.CRM))
