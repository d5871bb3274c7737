"""How records are named and ids derived."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.records import RecordRef, System, derived_id, home_key
from tests.builders import a_change, work_of

NAMES = st.text(min_size=1, max_size=12).filter(lambda text: ":" not in text)


class TestRecordRef:
    @given(st.sampled_from(System), NAMES, st.text(min_size=1, max_size=12))
    def test_text_and_back_is_the_identity(self, system: System, entity: str, record_id: str):
        """A colon may stand in an id: `crm:account:systemuser:…` is one."""
        ref = RecordRef(system, entity, record_id)

        assert ref == RecordRef.parse(str(ref))

    def test_is_written_system_entity_id(self):
        assert "erp:customer:10" == str(RecordRef(System.ERP, "customer", "10"))

    @pytest.mark.parametrize(
        "text", ["", "erp", "erp:customer", "erp:customer:", "erp::10", "sap:customer:10", "ERP:c:1"]
    )
    def test_refuses_anything_else(self, text: str):
        with pytest.raises(ValueError):
            RecordRef.parse(text)


class TestSystem:
    def test_has_one_other(self):
        assert (System.CRM, System.ERP) == (System.ERP.other, System.CRM.other)

    def test_is_written_by_its_value(self):
        assert "erp crm" == f"{System.ERP} {System.CRM}"


class TestDerivedId:
    def test_is_the_same_on_every_machine(self):
        """A literal, so that a change of the rule, which would make creates repeat under new ids, is seen."""
        assert "8e1522de-bd38-5aa0-aa72-80a01ba9fa11" == derived_id("a")
        namespace = uuid.UUID("6f1dcb0e-4c3e-5a57-9d3c-0d1a3b5f7e21")
        assert all(derived_id("é", number) == str(uuid.uuid5(namespace, f"é|{number}")) for number in range(500))

    def test_differs_with_every_part(self):
        assert 4 == len({derived_id("a", "b"), derived_id("b", "a"), derived_id("a"), derived_id("a", "b", "")})


class TestHomeKey:
    def test_is_mapping_and_id_so_one_account_may_belong_to_a_customer_and_a_vendor(self):
        """CPL-001, R81: the mapping is part of the key."""
        assert "customer-account:A" == home_key("customer-account", "A")
        assert home_key("customer-account", "A") != home_key("vendor-account", "A")

    def test_is_the_key_of_a_message(self):
        assert "customer-account:C" == work_of(a_change("erp:customer:C")).key
