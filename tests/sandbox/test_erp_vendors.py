"""Business Central's vendors, what they have in common with customers, and employees."""

from __future__ import annotations

import uuid

import pytest

from tests.sandbox.client import Client, Control, Info, error_code

EMPTY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def vendor(erp: Client) -> dict:
    body = {"displayName": "Tarn Forge", "city": "Nowhere", "email": "sales@tarn.example"}
    reply = erp.post("vendors", body)
    assert 201 == reply.status_code, reply.text
    return reply.json()


def contact_of(erp: Client, vendor: dict) -> dict:
    (row,) = erp.rows(f"vendors({vendor['id']})/contactsInformation?$filter=contactType eq 'Company'")
    return erp.get(f"contacts({row['contactId']})").json()


class TestVendor:
    """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_vendor"""

    def test_has_every_property_of_its_page(self, vendor):
        assert 22 == len([name for name in vendor if not name.startswith("@")])
        assert ("_x0020_", 0, EMPTY, "USD", "") == tuple(
            vendor[name] for name in ("blocked", "balance", "paymentTermsId", "currencyCode", "irs1099Code")
        )
        assert vendor["number"].startswith("V0000")

    def test_is_changed_renamed_and_taken_away(self, erp: Client, vendor):
        address, number = f"vendors({vendor['id']})", f"F{uuid.uuid4().hex[:8]}".upper()
        changed = erp.patch(address, {"number": number, "blocked": "Payment"}, tag=vendor["@odata.etag"]).json()

        assert (number, "Payment") == (changed["number"], changed["blocked"])
        assert 400 == erp.patch(address, {"blocked": "Ship"}, tag="*").status_code
        assert (400, "BadRequest_InvalidOperation") == error_code(erp.patch(address, {"balance": 1}, tag="*"))
        assert (204, 404) == (erp.delete(address).status_code, erp.get(address).status_code)

    def test_a_number_is_taken_once(self, erp: Client, vendor):
        reply = erp.post("vendors", {"number": vendor["number"], "displayName": "Other"})

        assert (400, "Internal_EntityWithSameKeyExists") == error_code(reply)

    def test_refers_to_terms_methods_and_currencies(self, erp: Client, vendor):
        terms = erp.rows("paymentTerms?$top=1")[0]
        body = {"paymentTermsId": terms["id"], "currencyCode": "EUR"}
        erp.patch(f"vendors({vendor['id']})", body, tag="*")
        shown = erp.get(f"vendors({vendor['id']})?$expand=paymentTerm,currency,paymentMethod").json()

        assert (terms["code"], "EUR", None) == (
            shown["paymentTerm"]["code"],
            shown["currency"]["code"],
            shown["paymentMethod"],
        )

    def test_has_a_picture_dimensions_and_attachments(self, erp: Client, vendor):
        address = f"vendors({vendor['id']})"
        value = erp.rows("dimensionValues?$top=1")[0]
        body = {"dimensionId": value["dimensionId"], "dimensionValueId": value["id"]}

        assert "Vendor" == erp.get(f"{address}/picture").json()["parentType"]
        assert "Vendor" == erp.post(f"{address}/defaultDimensions", body).json()["parentType"]
        assert "Vendor" == erp.post(f"{address}/documentAttachments", {"fileName": "a.txt"}).json()["parentType"]

    def test_is_owed_what_its_balance_says(self, info: Info, erp: Client, control: Control, vendor):
        """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_agedaccountspayable"""
        app = info["erp"]["client_id"]
        edit = {"system": "erp", "app": app, "set": "vendors", "id": vendor["id"], "silent": True}
        control("POST", "edit", {**edit, "values": {"balance": 70}})
        aged = erp.get(f"vendors({vendor['id']})/agedAccountsPayable").json()

        assert (70, 70, vendor["number"]) == tuple(
            aged[name] for name in ("balanceDue", "currentAmount", "vendorNumber")
        )
        assert "Total" in {row["name"] for row in erp.rows("agedAccountsPayables")}


class TestContact:
    """contactBusinessRelation

    learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_contact
    learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_contactinformation
    """

    def test_is_made_with_a_vendor_and_says_what_it_says(self, erp: Client, vendor):
        contact = contact_of(erp, vendor)
        erp.patch(f"vendors({vendor['id']})", {"phoneNumber": "+1 5"}, tag="*")
        erp.patch(f"contacts({contact['id']})", {"website": "https://tarn.example"}, tag="*")

        assert ("Company", "Vendor", "Tarn Forge", "sales@tarn.example") == tuple(
            contact[name] for name in ("type", "contactBusinessRelation", "displayName", "email")
        )
        assert "+1 5" == contact_of(erp, vendor)["phoneNumber"]
        assert "https://tarn.example" == erp.get(f"vendors({vendor['id']})").json()["website"]

    def test_information_leads_to_the_vendor(self, erp: Client, vendor):
        contact = contact_of(erp, vendor)
        body = {"displayName": "Ada Tarn", "type": "Person", "companyNumber": contact["number"]}
        person = erp.post("contacts", body).json()
        rows = erp.rows(f"contactsInformation?$filter=relatedId eq {vendor['id']}&$expand=vendor,customer")

        assert {contact["id"], person["id"]} == {row["contactId"] for row in rows}
        assert {("Vendor", vendor["number"], None)} == {
            (row["relatedType"], row["vendor"]["number"], row["customer"]) for row in rows
        }
        assert "Vendor" == person["contactBusinessRelation"]
        assert person["id"] not in {row["id"] for row in erp.rows("customerContacts")}

    def test_is_left_without_relation_when_the_vendor_goes(self, erp: Client, vendor):
        contact = contact_of(erp, vendor)
        erp.delete(f"vendors({vendor['id']})")

        assert "None" == erp.get(f"contacts({contact['id']})").json()["contactBusinessRelation"]


class TestEmployee:
    """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_employee"""

    @pytest.fixture
    def employee(self, erp: Client) -> dict:
        return erp.post("employees", {"givenName": "Ida", "middleName": "M.", "surname": "Lund"}).json()

    def test_has_every_property_of_its_page_and_is_named_by_two_of_them(self, erp: Client, employee):
        changed = erp.patch(f"employees({employee['id']})", {"surname": "Lund-Bark"}, tag="*").json()

        assert 23 == len([name for name in employee if not name.startswith("@")])
        assert ("Ida Lund", "Active", "0001-01-01") == tuple(
            employee[name] for name in ("displayName", "status", "birthDate")
        )
        assert "Ida Lund-Bark" == changed["displayName"]

    def test_shows_a_name_that_is_not_written(self, erp: Client, employee):
        reply = erp.patch(f"employees({employee['id']})", {"displayName": "X"}, tag="*")

        assert (400, "BadRequest_InvalidOperation") == error_code(reply)

    def test_is_of_no_statistics_group(self, erp: Client, employee):
        reply = erp.patch(f"employees({employee['id']})", {"statisticsGroupCode": "MONTH"}, tag="*")

        assert (400, "Internal_InvalidTableRelation") == error_code(reply)

    def test_has_a_picture_dimensions_and_attachments(self, erp: Client, employee):
        address = f"employees({employee['id']})"
        value = erp.rows("dimensionValues?$top=1")[0]
        body = {"dimensionId": value["dimensionId"], "dimensionValueId": value["id"]}

        assert "Employee" == erp.get(f"{address}/picture").json()["parentType"]
        assert "Employee" == erp.post(f"{address}/defaultDimensions", body).json()["parentType"]
        assert "Employee" == erp.post(f"{address}/documentAttachments", {"fileName": "a.txt"}).json()["parentType"]
