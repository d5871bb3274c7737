"""What the target should hold for a value of the source: the rules of the field transfer, line by line."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.mapping import FieldMapping
from processors.transfer import Bad, Known, Leave, Missing, carry, equal, map_fields
from schemas.coupling import Pair, Row
from schemas.errors import OptionNotCoupled, OwnerNotCoupled, ReferenceNotCoupled, ValueNotMappable
from schemas.records import System, Value
from tests.builders import (
    COMPANY,
    CUSTOMER,
    DOLLAR,
    EURO,
    FOB,
    FOB_CRM,
    JANES_USER,
    KIM,
    KIMS_USER,
    MAPPINGS,
    NET_30,
    NET_30_CRM,
    POUND_CRM,
    TEAM,
    a_coupling,
    a_customer,
    a_row,
    a_side,
    a_view,
    an_account,
    couple_kim,
    line_of,
)

TEXT = FieldMapping(erp="city", crm="address1_city", erp_length=5, crm_length=8)
CODE = FieldMapping(erp="country", crm="address1_country", type="code", erp_length=3)
AMOUNT = FieldMapping(erp="creditLimit", crm="creditlimit", type="decimal")
OWNER = line_of(CUSTOMER, "ownerid")
CURRENCY = line_of(CUSTOMER, "transactioncurrencyid")
TERMS = line_of(CUSTOMER, "paymenttermscode")
STAMP = line_of(CUSTOMER, "bcbi_companyid")
PARENT = FieldMapping(erp="parentNumber", crm="parentaccountid", type="id", reference="customer-account")


def to_crm(line: FieldMapping, value: Value, *, creating: bool = False, **view: object):
    return carry(line, value, "to_crm", a_view(**view), creating=creating)  # type: ignore[arg-type]


def to_erp(line: FieldMapping, value: Value, **view: object):
    return carry(line, value, "to_erp", a_view(**view), creating=False)  # type: ignore[arg-type]


class TestPlainValues:
    def test_text_that_is_too_long_is_cut_for_each_side(self):
        """R203: cut to the length of the target, silently, no blank at the cut."""
        assert Known("Wuppe") == to_erp(TEXT, "Wuppertal")
        assert Known("Wupperta") == to_crm(TEXT, "Wuppertal")
        assert Known("Bad") == to_erp(TEXT, "Bad  Aibling")

    def test_text_of_just_the_length_is_not_cut(self):
        assert Known("Neuss") == to_erp(TEXT, "Neuss")

    def test_blank_texts_and_zero_numbers_are_transferred_like_any_value(self):
        """R207: there is no "ignore blanks"."""
        assert Known(None) == to_crm(TEXT, None)
        assert Known(None) == to_crm(TEXT, "")
        assert Known(Decimal(0)) == to_crm(AMOUNT, 0)

    def test_a_code_arrives_in_upper_case_without_blanks_at_its_ends(self):
        """R199, for the side that holds a code; the CRM keeps what the ERP says."""
        assert Known("DE") == to_erp(CODE, " de ")
        assert Known("DE") == to_crm(CODE, "DE")
        assert Known(None) == to_erp(CODE, "  ")

    @pytest.mark.parametrize("value", [1000, "1000", Decimal("1000.00")])
    def test_amounts_are_copied_exactly(self, value: Value):
        """R229: no conversion, no binary floating point."""
        assert Known(Decimal(1000)) == to_crm(AMOUNT, value)

    @pytest.mark.parametrize(
        ("kind", "value"),
        [("decimal", "a lot"), ("decimal", True), ("integer", "1.5"), ("boolean", "yes"), ("boolean", 1)],
    )
    def test_what_its_type_cannot_hold_stops_the_record(self, kind: str, value: Value):
        """R204 leaves the field alone and says nothing; here it is a dead letter that names the field."""
        assert Bad(ValueNotMappable) == to_crm(AMOUNT.model_copy(update={"type": kind}), value)

    @pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "sNaN", "1e999999"])
    def test_what_is_no_number_is_no_amount(self, value: str):
        """Decimal reads these words as numbers; neither system holds such a thing."""
        assert Bad(ValueNotMappable) == to_crm(AMOUNT, value)

    @pytest.mark.parametrize(("kind", "value"), [("integer", 7), ("boolean", False), ("text", "7")])
    def test_values_of_their_type_pass(self, kind: str, value: Value):
        """FLD-001, for the types that customers, accounts and people have."""
        assert Known(value) == to_crm(AMOUNT.model_copy(update={"type": kind}), value)

    def test_a_transform_works_before_the_cut(self):
        """R213: the rule comes first, then the length of the target."""
        line = FieldMapping(erp="website", crm="websiteurl", transform="web-address", crm_length=12)

        assert Known("https://fabr") == to_crm(line, "fabrikam.example")
        assert Known("fabrikam.example") == to_erp(line, "https://fabrikam.example")

    def test_what_a_transform_leaves_blank_is_blank(self):
        """So that a required field does not go out as blanks, which the target would refuse."""
        line = FieldMapping(erp="website", crm="websiteurl", transform="web-address")

        assert Known(None) == to_erp(line, "https:// ")

    @given(st.text(max_size=12), st.integers(1, 8), st.integers(1, 8))
    def test_there_and_back_is_equal_as_the_transfer_compares(self, text: str, erp_length: int, crm_length: int):
        """What was cut on the way counts as equal, so it is not written back: cutting is the loss that is declared."""
        line = FieldMapping(erp="city", crm="address1_city", erp_length=erp_length, crm_length=crm_length)
        there = carry(line, text, "to_crm", VIEW, creating=False)
        assert isinstance(there, Known)
        back = carry(line, there.value, "to_erp", VIEW, creating=False)

        assert isinstance(back, Known)
        assert equal(line, text, back.value)

    @given(st.text(max_size=12), st.sampled_from(["text", "code"]))
    def test_what_is_carried_twice_is_carried_once(self, text: str, kind: str):
        line = FieldMapping(erp="city", crm="address1_city", type=kind, erp_length=5, crm_length=8)
        once = carry(line, text, "to_erp", VIEW, creating=False)
        assert isinstance(once, Known)

        assert once == carry(line, once.value, "to_erp", VIEW, creating=False)


VIEW = a_view()


class TestOwner:
    def test_of_a_coupled_salesperson_is_the_user(self):
        """OWN-002, R38, R42: the user with its table, since an owner may be a user or a team."""
        assert Known(f"systemuser:{JANES_USER}") == to_crm(OWNER, "JR")

    @pytest.mark.parametrize("code", ["jr", " JR ", "Jr"])
    def test_is_found_whatever_the_case_of_the_code(self, code: str):
        assert Known(f"systemuser:{JANES_USER}") == to_crm(OWNER, code)

    @pytest.mark.parametrize("creating", [True, False])
    def test_of_a_salesperson_that_is_not_coupled_waits_and_names_it(self, creating: bool):
        """OWN-003, R39: on create and on update alike."""
        assert Missing(OwnerNotCoupled, f"erp:salesperson:{KIM}") == to_crm(OWNER, "KL", creating=creating)

    def test_goes_on_when_the_salesperson_is_coupled(self):
        view = a_view()
        couple_kim(view)

        assert Known(f"systemuser:{KIMS_USER}") == carry(OWNER, "KL", "to_crm", view, creating=False)

    @pytest.mark.parametrize("code", [None, "", "  "])
    def test_of_a_blank_code_is_the_team_of_the_company_on_create_and_stays_on_update(self, code: str | None):
        """R38, R41: blank is neither unknown nor uncoupled; it waits for nothing."""
        assert Known(f"team:{TEAM}") == to_crm(OWNER, code, creating=True)
        assert Leave("owner-blank") == to_crm(OWNER, code)

    def test_of_an_unknown_code_is_the_team_on_create_and_stays_on_update(self):
        """R38, R41: no such salesperson. Should one appear by that code, the record is decided again."""
        appears = ("salesperson-systemuser:XX",)

        assert Known(f"team:{TEAM}", appears) == to_crm(OWNER, "XX", creating=True)
        assert Leave("owner-unknown", appears) == to_crm(OWNER, "xx")

    def test_without_a_team_is_left_to_the_crm(self):
        assert Leave("owner-blank") == to_crm(OWNER, None, creating=True, without=(COMPANY,))


class TestCurrency:
    @pytest.mark.parametrize("code", [None, "", "EUR", "eur "])
    def test_the_company_s_own_becomes_its_row(self, code: str | None):
        """R226: a blank code means the local currency; the API shows its code instead."""
        assert Known(EURO) == to_crm(CURRENCY, code)

    def test_the_company_s_own_row_becomes_its_code(self):
        """R227: Business Central takes the local code and stores a blank."""
        assert Known(None) == to_erp(CURRENCY, EURO)

    def test_the_company_s_own_row_makes_a_foreign_code_blank(self):
        """R227."""
        assert Known(None) == carry(CURRENCY, EURO, "to_erp", a_view(), creating=False, held="GBP")
        assert Known("EUR") == carry(CURRENCY, EURO, "to_erp", a_view(), creating=False, held="EUR")

    def test_that_was_cleared_in_the_crm_is_the_company_s_own(self):
        """FLD-010, R222: a blank code; one that is there already, in either form, is left."""
        assert Known(None) == carry(CURRENCY, None, "to_erp", a_view(), creating=False, held="GBP")
        assert Known("EUR") == carry(CURRENCY, None, "to_erp", a_view(), creating=False, held="EUR")

    def test_a_foreign_one_goes_by_its_coupling(self):
        """FLD-009, R221, R222."""
        assert Known(POUND_CRM) == to_crm(CURRENCY, "gbp")
        assert Known("GBP") == to_erp(CURRENCY, POUND_CRM)

    def test_one_that_is_not_coupled_waits(self):
        """R223: named by its record where there is one, else by its code."""
        dollar = a_row(Pair(erp=a_side("usd", state={"code": "USD"})), mapping="currency", row_id="usd")

        assert Missing(ReferenceNotCoupled, "currency:USD") == to_crm(CURRENCY, "USD")
        assert Missing(ReferenceNotCoupled, "erp:currency:usd") == carry(
            CURRENCY, "USD", "to_crm", a_view(dollar), creating=False
        )
        assert Missing(ReferenceNotCoupled, f"crm:transactioncurrency:{DOLLAR}", ("currency:USD",)) == to_erp(
            CURRENCY, DOLLAR
        )

    def test_one_of_the_crm_whose_iso_code_is_a_code_of_the_erp_needs_no_coupling(self):
        """R227."""
        dollar = a_row(Pair(erp=a_side("usd", state={"code": "USD"})), mapping="currency", row_id="usd")

        assert Known("USD") == carry(CURRENCY, DOLLAR, "to_erp", a_view(dollar), creating=False)

    @pytest.mark.parametrize("row", [POUND_CRM, DOLLAR, None])
    def test_what_the_crm_fills_in_does_not_come_back_while_the_own_one_is_missing(self, row: str | None):
        """A CRM fills in its base currency where none was given."""
        view = a_view(without=(EURO,))

        assert Leave("local-currency-not-in-crm", ("currency:EUR",)) == carry(
            CURRENCY, row, "to_erp", view, creating=False
        )
        assert Known("GBP") == carry(CURRENCY, POUND_CRM, "to_erp", view, creating=True)

    def test_waits_softly_while_the_local_currency_is_not_known(self):
        """The record goes on and is decided again: the own currency is never an uncoupled reference."""
        assert Leave("local-currency-unknown", ("local-currency",)) == to_crm(CURRENCY, "EUR", without=("info",))
        assert Leave("local-currency-not-in-crm", ("currency:EUR",)) == to_crm(CURRENCY, None, without=(EURO,))


class TestOptions:
    def test_an_id_of_the_erp_becomes_the_choice_of_its_code(self):
        """OPT-001, R230."""
        assert Known(NET_30_CRM) == to_crm(TERMS, NET_30)
        assert Known(FOB_CRM) == to_crm(line_of(CUSTOMER, "address1_freighttermscode"), FOB)

    def test_a_choice_becomes_the_id_of_the_record_with_its_code(self):
        """OPT-002, R231."""
        assert Known(NET_30) == to_erp(TERMS, NET_30_CRM)

    def test_blank_is_blank_both_ways(self):
        """R230, R231."""
        assert Known(None) == to_crm(TERMS, None)
        assert Known(None) == to_erp(TERMS, None)

    def test_a_code_without_a_choice_names_the_option(self):
        """R230: a known code that no option is coupled with."""
        assert Missing(OptionNotCoupled, "option:payment-term:ODD") == to_crm(TERMS, "term-odd")

    def test_a_choice_without_a_code_names_the_option(self):
        """R231; a custom value that the table does not have."""
        assert Missing(OptionNotCoupled, "option:payment-term:1000") == to_erp(TERMS, 1000)

    def test_an_unknown_id_waits_for_its_record(self):
        assert Missing(ReferenceNotCoupled, "erp:paymentTerm:new") == to_crm(TERMS, "new")

    def test_a_choice_whose_code_the_erp_does_not_have_waits_for_the_code(self):
        assert Missing(ReferenceNotCoupled, "payment-term:NET 60") == to_erp(TERMS, 4)

    def test_by_code_needs_no_table(self):
        line = FieldMapping(erp="terms", crm="termscode", reference="payment-term", options={"NET 30": 1})

        assert Known(1) == to_crm(line, "net 30")
        assert Known("NET 30") == to_erp(line, 1)

    def test_table_is_written_as_people_write_codes(self):
        """Codes are compared without regard to case: a table with `Net 30` is the same table."""
        line = FieldMapping.model_validate({**TERMS.model_dump(), "options": {"Net 30": 1}})

        assert Known(1) == to_crm(line, NET_30)


class TestReferences:
    def rows(self):
        parent = a_coupling(
            "customer-account",
            a_side("P", state=a_customer(number="C-1")),
            a_side("PA", state=an_account()),
        )
        return a_view(parent)

    def test_a_coupled_record_becomes_its_counterpart(self):
        """FLD-009, FLD-013, R221, R222: by business key, or by id."""
        by_id = PARENT.model_copy(update={"reference_by": "id"})

        assert Known("PA") == carry(PARENT, "C-1", "to_crm", self.rows(), creating=False)
        assert Known("C-1") == carry(PARENT, "PA", "to_erp", self.rows(), creating=False)
        assert Known("PA") == carry(by_id, "P", "to_crm", self.rows(), creating=False)
        assert Known("P") == carry(by_id, "PA", "to_erp", self.rows(), creating=False)

    def test_blank_is_blank(self):
        """R221, R222."""
        assert Known(None) == to_crm(PARENT, None)
        assert Known(None) == to_erp(PARENT, None)

    def test_one_that_is_not_coupled_waits_and_is_named_as_well_as_it_is_known(self):
        """FLD-012, R223: by id where the record is known, by its key where only the key is."""
        alone = a_view(customer_row("P", number="C-1"))

        assert Missing(ReferenceNotCoupled, "erp:customer:P") == carry(PARENT, "C-1", "to_crm", alone, creating=False)
        assert Missing(ReferenceNotCoupled, "customer-account:C-9") == to_crm(PARENT, "C-9")
        assert Missing(ReferenceNotCoupled, "crm:account:PA") == to_erp(PARENT, "PA")

    def test_one_that_is_not_coupled_is_cleared_where_the_mapping_says_so(self):
        """FLD-011, R223, R224: the rest of the record goes on, and the line is decided again when it is coupled."""
        clearing = PARENT.model_copy(update={"clear_when_uncoupled": True})

        assert Known(None, ("customer-account:C-9",)) == to_crm(clearing, "C-9")
        assert Known(None, ("crm:account:PA",)) == to_erp(clearing, "PA")


def customer_row(record_id: str, **state: Value) -> Row:
    return a_row(Pair(erp=a_side(record_id, state=a_customer(**state))), row_id=record_id)


class TestCompanyStamp:
    def test_is_the_row_of_this_company(self):
        """MCO-001, R54, R55."""
        assert Known(COMPANY) == to_crm(STAMP, None)

    def test_is_left_while_the_row_is_not_known(self):
        assert Leave("company-unknown", ("company",)) == to_crm(STAMP, None, without=(COMPANY,))


class TestMapFields:
    def test_gives_the_lines_of_one_direction(self):
        """FLD-006: mapping and line must both allow it."""
        mapped = map_fields(a_customer(), CUSTOMER, "to_crm", VIEW)

        assert {line.name_in(System.CRM) for line in CUSTOMER.fields if line.enabled} == set(mapped)
        assert {"ownerid", "bcbi_companyid", "creditlimit"} & set(
            map_fields(an_account(), CUSTOMER, "to_erp", VIEW)
        ) == set()

    def test_gives_nothing_for_a_field_that_is_not_known(self):
        """Absent is not blank."""
        state = a_customer()
        del state["phoneNumber"]

        assert "telephone1" not in map_fields(state, CUSTOMER, "to_crm", VIEW)
        assert Known(None) == map_fields({**state, "phoneNumber": None}, CUSTOMER, "to_crm", VIEW)["telephone1"]

    @pytest.mark.parametrize("direction", ["to_crm", "to_erp"])
    def test_of_agreeing_records_gives_what_the_other_holds(self, direction: str):
        """The builders' customer and account say the same."""
        source, target = (a_customer(), an_account()) if direction == "to_crm" else (an_account(), a_customer())
        for name, carried in map_fields(source, CUSTOMER, direction, VIEW).items():  # type: ignore[arg-type]
            if name == "primarycontactid":
                assert Leave("for-the-first-to-come") == carried
                continue
            assert isinstance(carried, Known)
            if name != "currencyCode":  # a blank and the local code are the own currency both
                assert carried.value == target[name], name

    def test_of_every_shipped_mapping_covers_what_capture_reads(self):
        for mapping in MAPPINGS.values():
            for system in System:
                if mapping.role == "pair":
                    assert set(mapping.targets(system)) <= set(mapping.captured_fields(system))
