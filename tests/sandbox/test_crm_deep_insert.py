"""Rows of Dataverse that one request creates together, fact by fact."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.sandbox.catalogue import Shop, a_name, key, made
from tests.sandbox.client import Client, Control, Info, error_code


def a_body(**more: Any) -> dict[str, Any]:
    return {
        "name": a_name("Deep"),
        "primarycontactid": {"firstname": "John", "lastname": uuid.uuid4().hex},
        "opportunity_customer_accounts": [
            {"name": "First", "Opportunity_Annotation": [{"subject": "Note"}]},
            {"name": "Second"},
        ],
        **more,
    }


class TestDeepInsert:
    """learn.microsoft.com/power-apps/developer/data-platform/webapi/create-entity-web-api"""

    def test_makes_what_is_nested_in_lookups_and_collections(self, crm: Client):
        """Create related table rows in one operation"""
        account = made(crm, "accounts", a_body())
        row = crm.get(f"{account}?$select=name&$expand=primarycontactid($select=fullname)").json()
        below = crm.rows(f"{account}/opportunity_customer_accounts?$orderby=name")
        notes = crm.rows(f"opportunities({below[0]['opportunityid']})/Opportunity_Annotation")

        assert row["primarycontactid"]["fullname"].startswith("John ")
        assert ["First", "Second"] == [opportunity["name"] for opportunity in below]
        assert ["Note"] == [note["subject"] for note in notes]

    def test_answers_with_the_row_and_what_was_expanded(self, crm: Client):
        """Create with data returned"""
        query = "accounts?$select=name&$expand=primarycontactid($select=lastname),opportunity_customer_accounts"
        body = a_body()
        reply = crm.post(query, body, prefer="return=representation")

        assert 201 == reply.status_code
        assert body["primarycontactid"]["lastname"] == reply.json()["primarycontactid"]["lastname"]
        assert {"First", "Second"} == {row["name"] for row in reply.json()["opportunity_customer_accounts"]}

    @pytest.mark.parametrize(
        "wrong",
        [
            {"opportunity_customer_accounts": [{"name": "Good"}, {"name": "n" * 301}]},
            {"primarycontactid": {"nothing": 1}},
            {"name": "n" * 161},
        ],
    )
    def test_is_all_or_nothing(self, crm: Client, wrong):
        """Create related table rows in one operation"""
        tables = ("accounts", "contacts", "opportunities")
        before = [crm.get(f"{table}/$count").text for table in tables]

        assert 400 == crm.post("accounts", a_body(**wrong)).status_code
        assert before == [crm.get(f"{table}/$count").text for table in tables]

    @pytest.mark.parametrize(
        "wrong",
        [
            {"opportunity_customer_accounts": {"name": "no list"}},
            {"opportunity_customer_accounts": ["no row"]},
            {"contact_customer_accounts@odata.bind": "no list"},
            {"ownerid": {"fullname": "of which table"}},
            {"createdby": {"fullname": "read-only"}},
            {"primarycontactid@odata.bind": "/contacts(00000000-0000-0000-0000-000000000001)"},
        ],
    )
    def test_refuses_other_shapes(self, crm: Client, wrong):
        """Create related table rows in one operation"""
        assert (400, "0x80048d19") == error_code(crm.post("accounts", a_body(**wrong)))

    def test_is_not_part_of_an_update(self, crm: Client):
        """Basic update

        learn.microsoft.com/power-apps/developer/data-platform/webapi/update-delete-entities-using-web-api
        """
        account = made(crm, "accounts", {"name": "A"})

        assert (400, "0x80048d19") == error_code(crm.patch(account, {"primarycontactid": {"lastname": "L"}}))

    def test_needs_the_right_to_create_each(self, info: Info, crm: Client, control: Control):
        """learn.microsoft.com/power-platform/admin/security-roles-privileges: Create"""
        rule = {"system": "crm", "app": info["crm"]["client_id"], "entity": "contact", "operation": "create"}
        control("POST", "grants", {**rule, "allowed": False})
        reply = crm.post("accounts", a_body())
        control("POST", "grants", {**rule, "allowed": True})

        assert (403, "0x80040220") == error_code(reply)

    def test_makes_an_order_with_its_lines_and_prices(self, crm: Client):
        """learn.microsoft.com/dynamics365/sales/developer/quote-order-invoice-entities"""
        shop = Shop(crm, amount=25)
        order = shop.document("salesorders")
        line = {n: v for n, v in shop.line_body(order).items() if not n.startswith("salesorderid")}
        order = shop.document("salesorders", order_details=[line, {**line, "quantity": 3}])

        assert (2, 125) == (len(crm.rows(f"{order}/order_details")), crm.get(order).json()["totalamount"])


class TestAssociateOnCreate:
    """Associate table rows on create

    learn.microsoft.com/power-apps/developer/data-platform/webapi/create-entity-web-api
    """

    def test_binds_rows_that_are_there_to_the_new_one(self, crm: Client):
        contacts = [made(crm, "contacts", {"lastname": f"L{at}"}) for at in range(2)]
        body = {"name": "A", "contact_customer_accounts@odata.bind": [f"/{contact}" for contact in contacts]}
        reply = crm.post("accounts?$expand=contact_customer_accounts", body, prefer="return=representation")

        assert {key(contact) for contact in contacts} == {
            row["contactid"] for row in reply.json()["contact_customer_accounts"]
        }

    def test_refuses_one_that_is_not_there(self, crm: Client):
        body = {"name": "A", "contact_customer_accounts@odata.bind": [f"/contacts({uuid.uuid4()})"]}

        assert (404, "0x80040217") == error_code(crm.post("accounts", body))
