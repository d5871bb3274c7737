"""What a mapping may say, and what follows from it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from processors.mapping import AlsoCapture, Condition, EntityMapping, FieldMapping, Filters, MatchField, with_compat
from schemas.records import System
from tests.builders import CUSTOMER, MAPPINGS, MICROSOFT, SALESPEOPLE, SMALL, TEAM_OWNED, small

LINE = FieldMapping(erp="a", crm="b")


def mapping(**changed: Any) -> EntityMapping:
    return EntityMapping(**{"name": "m", "erp": "customer", "crm": "account", "fields": (LINE,), **changed})


class TestFieldMapping:
    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ({"erp": "a"}, "both erp and crm"),
            ({"crm": "b"}, "both erp and crm"),
            ({"erp": "a", "crm": "b", "owner": "s", "reference": "r"}, "exclude each other"),
            ({"erp": "a", "crm": "b", "currency": True, "reference": "r"}, "exclude each other"),
            ({"erp": "a", "crm": "b", "options": {"X": 1}}, "options need `reference`"),
            ({"erp": "a", "crm": "b", "reference": "r", "options": {"X": 1, "Y": 1}}, "share one option value"),
            ({"erp": "a", "crm": "b", "owner": "s"}, "go to_crm"),  # R44: the CRM owner never overwrites the ERP
            ({"crm": "b", "company": True}, "go to_crm"),
            ({"crm": "b", "first": "contact"}, "go to_crm"),
            ({"erp": "a", "crm": "b", "transform": "rot13"}, "no transform is called 'rot13'; there are: "),
            ({"erp": "a", "crm": "b", "rate": True}, "rate and once lines go to_crm"),
            ({"erp": "a", "crm": "b", "once": True}, "rate and once lines go to_crm"),
            ({"erp": "a", "crm": "b", "rate": True, "currency": True}, "rate, company and team exclude each other"),
            ({"erp": "a", "crm": "b", "names_entity": True}, "names_entity needs `reference`"),
            ({"erp": "a", "crm": "b", "reference": "c", "reference_by": "d", "options": {"X": 1}}, "key or id"),
            ({"erp": "a", "crm": "b", "direction": "sideways"}, "'both', 'to_crm' or 'to_erp'"),
            ({"erp": "a", "crm": "b", "type": "date"}, "'text', 'code'"),
            ({"erp": "a", "crm": "b", "erp_length": 0}, "greater than or equal to 1"),
            ({"erp": "a", "crm": "b", "lenght": 5}, "Extra inputs are not permitted"),
        ],
    )
    def test_refuses_what_no_line_can_mean(self, line: dict[str, Any], said: str):
        with pytest.raises(ValidationError) as refused:
            FieldMapping.model_validate(line)
        assert said in str(refused.value)

    def test_of_a_company_stamp_has_no_erp_field(self):
        line = FieldMapping(crm="bcbi_companyid", company=True, direction="to_crm")

        assert ("=bcbi_companyid", "bcbi_companyid") == (line.name_in(System.ERP), line.name_in(System.CRM))

    def test_is_frozen(self):
        with pytest.raises(ValidationError):
            LINE.erp = "c"  # type: ignore[misc]


class TestCondition:
    def test_says_one_thing(self):
        with pytest.raises(ValidationError, match="exclude each other"):
            Condition(field="a", company=True, blank=False)

    def test_of_one_value_can_be_asked_for(self):
        plain = [Condition(field="a"), Condition(field="a", equals=1)]
        others = [
            Condition(field="a", company=True),
            Condition(field="a", blank=False),
            Condition(field="a", entity="account"),
        ]

        assert [True, True, False, False, False] == [condition.is_exact for condition in (*plain, *others)]


class TestEntityMapping:
    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"erp": None, "crm": None, "role": "reference"}, "an ERP entity, a CRM entity or both"),
            ({"crm": None}, "needs both entities"),
            ({"fields": ()}, "no field line is enabled"),
            ({"fields": (LINE.model_copy(update={"enabled": False}),)}, "no field line is enabled"),
            ({"fields": (LINE, FieldMapping(erp="c", crm="b"))}, "two lines write the same column: b"),
            ({"name": "Customer Account"}, "String should match pattern"),
            ({"conflict": "newest"}, "'erp', 'crm', 'latest'"),
            ({"deletes": "ignore"}, "'dead_letter', 'restore'"),
            ({"authority": "both"}, "'erp' or 'crm'"),
        ],
    )
    def test_refuses_what_no_mapping_can_mean(self, changed: dict[str, Any], said: str):
        """FLD-005, FLD-007, R71: a mapping that would move nothing stops the start, it does not report success."""
        with pytest.raises(ValidationError) as refused:
            mapping(**changed)
        assert said in str(refused.value)

    def test_lets_one_erp_field_feed_several_columns(self):
        """R216."""
        line = FieldMapping(erp="a", crm="c", direction="to_crm")

        assert 2 == len(mapping(fields=(LINE, line)).fields)

    def test_refuses_two_lines_that_write_the_same_erp_field(self):
        """Which of two columns would stand in the ERP would be a matter of luck."""
        with pytest.raises(ValidationError):
            mapping(fields=(LINE, FieldMapping(erp="a", crm="c")))

    @pytest.mark.parametrize(
        ("entity", "line", "goes"),
        [
            ("both", "both", {"to_crm", "to_erp"}),
            ("to_erp", "to_erp", {"to_erp"}),
            ("to_crm", "to_crm", {"to_crm"}),
            ("to_crm", "both", {"to_crm"}),
            ("to_crm", "to_erp", set()),
            ("both", "to_erp", {"to_erp"}),
        ],
    )
    def test_direction_is_what_both_mapping_and_line_allow(self, entity: str, line: str, goes: set[str]):
        """FLD-006."""
        both = mapping(direction=entity, fields=(LINE.model_copy(update={"direction": line}),))

        assert goes == {way for way in ("to_crm", "to_erp") if list(both.lines(way))}

    def test_a_line_that_is_switched_off_goes_nowhere_and_is_not_captured(self):
        """FLD-007."""
        two = mapping(fields=(LINE, FieldMapping(erp="c", crm="d", enabled=False)))

        assert [LINE] == list(two.lines("to_crm"))
        assert ("a",) == two.captured_fields(System.ERP)
        assert ("b",) == two.targets(System.CRM)

    def test_creates_only_where_values_flow(self):
        assert not small(direction="to_erp", create="both").creates("to_crm")
        assert small(direction="to_erp", create="both").creates("to_erp")
        assert not small(create="to_crm").creates("to_erp")
        assert not small(create="none").creates("to_crm")

    def test_captures_every_field_that_a_decision_needs(self):
        """Lines, filters, keys, match criteria, and what is asked for besides."""
        asked = mapping(
            match=((MatchField(erp="m", crm="n"),),),
            filter=Filters(erp=(Condition(field="f"),), crm=(Condition(field="g"),)),
            key={"erp": "k", "crm": "l"},
            also_capture=AlsoCapture(erp=("z",)),
        )

        assert ("a", "f", "k", "m", "z") == asked.captured_fields(System.ERP)
        assert ("b", "g", "l", "n") == asked.captured_fields(System.CRM)

    def test_of_a_table_of_codes_lets_nothing_flow(self):
        assert not MAPPINGS["payment-term"].flows("to_crm")
        assert [] == list(MAPPINGS["payment-term"].lines("to_crm"))


class TestCompat:
    def test_microsoft_is_coupled_records_only_matched_by_order_and_whole_records_fail(self):
        """TBL-003, R67, R100, R174, R186: the built-in integration's defaults."""
        assert ("none", "by_order", "record", "dead_letter") == (
            MICROSOFT.create,
            MICROSOFT.matching,
            MICROSOFT.conflict,
            MICROSOFT.deletes,
        )
        assert CUSTOMER.fields == MICROSOFT.fields

    def test_drawbar_changes_nothing(self):
        assert CUSTOMER is with_compat(CUSTOMER, compat="drawbar", ownership="person")

    def test_microsoft_leaves_tables_of_codes_alone(self):
        terms = MAPPINGS["payment-term"]

        assert terms is with_compat(terms, compat="microsoft", ownership="person")

    def test_under_team_ownership_the_salesperson_does_not_move_the_owner(self):
        """R43, R46."""
        assert [] == [line for line in TEAM_OWNED.fields if line.owner is not None and line.enabled]
        assert CUSTOMER.conflict == TEAM_OWNED.conflict


class TestShipped:
    def test_customer_account_has_the_built_in_lines_that_the_api_exposes(self):
        """FLD-008, FLD-015, FLD-016, SET-009: direction by direction; what the standard API lacks is not here."""
        ways = {(line.erp, line.crm): line.direction for line in CUSTOMER.fields if line.enabled}

        assert {
            ("displayName", "name"): "both",
            ("addressLine1", "address1_line1"): "both",
            ("addressLine2", "address1_line2"): "both",
            ("postalCode", "address1_postalcode"): "both",
            ("city", "address1_city"): "both",
            ("country", "address1_country"): "both",
            ("state", "address1_stateorprovince"): "both",
            ("currencyCode", "transactioncurrencyid"): "both",
            ("email", "emailaddress1"): "both",
            ("website", "websiteurl"): "both",
            ("phoneNumber", "telephone1"): "both",
            ("shipmentMethodId", "address1_freighttermscode"): "both",
            ("paymentTermsId", "paymenttermscode"): "both",
            ("salespersonCode", "ownerid"): "to_crm",
            ("creditLimit", "creditlimit"): "to_crm",
            (None, "bcbi_companyid"): "to_crm",
            (None, "primarycontactid"): "to_crm",
        } == ways
        assert [("number", "accountnumber")] == [(line.erp, line.crm) for line in CUSTOMER.fields if not line.enabled]

    def test_customer_account_is_shipped_as_decided(self):
        """Ownership person; creates both ways, match first; conflicts by field, latest; deletes are dead letters."""
        assert ("both", "both", "latest", "dead_letter", System.ERP) == (
            CUSTOMER.direction,
            CUSTOMER.create,
            CUSTOMER.conflict,
            CUSTOMER.deletes,
            CUSTOMER.authority,
        )
        assert [("number",), ("displayName",)] == [tuple(pair.erp for pair in group) for group in CUSTOMER.match]
        assert {"customertypecode": 3} == CUSTOMER.defaults.crm

    def test_option_tables_go_to_the_choices_of_the_account(self):
        """OPT-003, R325: two of the three; the standard API has no shipping agent on a customer."""
        tables = {line.reference: line.crm for line in CUSTOMER.fields if line.options}

        assert {"shipment-method": "address1_freighttermscode", "payment-term": "paymenttermscode"} == tables

    def test_salespeople_take_three_fields_from_their_users(self):
        """SET-009, OWN-001: from the CRM only; nobody is created."""
        ways = {(line.erp, line.crm): line.direction for line in SALESPEOPLE.fields if line.enabled}

        assert {
            ("email", "internalemailaddress"): "to_erp",
            ("displayName", "fullname"): "to_erp",
            ("phoneNo", "mobilephone"): "to_erp",
        } == ways
        assert ("to_erp", "none", System.CRM) == (SALESPEOPLE.direction, SALESPEOPLE.create, SALESPEOPLE.authority)

    def test_every_pair_has_an_example_in_each_direction_it_flows(self):
        for shipped in MAPPINGS.values():
            for way in ("to_crm", "to_erp"):
                ways = {example.direction for example in shipped.examples}
                assert not shipped.flows(way) or ways & {way, "both"}, (shipped.name, way)

    def test_every_name_that_a_line_refers_to_exists(self):
        named = {
            name for shipped in MAPPINGS.values() for line in shipped.fields for name in (line.owner, line.reference)
        }

        assert named - {None} <= set(MAPPINGS)

    def test_small_mapping_of_the_builders_is_a_cut_of_the_shipped_one(self):
        assert {(line.erp, line.crm, line.direction) for line in SMALL.fields} <= {
            (line.erp, line.crm, line.direction) for line in CUSTOMER.fields
        }
