"""Business Central's opportunities, fact by fact.

Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_opportunity
"""

from __future__ import annotations

import datetime as dt

import pytest

from tests.sandbox.client import Client, Control, Info, error_code, eventually
from tests.sandbox.conftest import Receiver

PROPERTIES = {
    "id": str,
    "number": str,
    "contactNumber": str,
    "contactName": str,
    "contactCompanyName": str,
    "salespersonCode": str,
    "description": str,
    "status": str,
    "closed": bool,
    "creationDate": str,
    "dateClosed": str,
    "calculatedCurrentValue": int,
    "chancesOfSuccessPrc": int,
    "completedPrc": int,
    "estimatedClosingDate": str,
    "estimatedValue": int,
    "systemCreatedAt": str,
    "lastModifiedDateTime": str,
}
READ_ONLY = [name for name in PROPERTIES if name not in ("number", "contactNumber", "salespersonCode", "description")]


@pytest.fixture
def company(erp: Client) -> dict:
    return erp.post("contacts", {"displayName": "Lumen Yard"}).json()


@pytest.fixture
def person(erp: Client, company) -> dict:
    body = {"type": "Person", "displayName": "Ona Veld", "companyNumber": company["number"]}
    return erp.post("contacts", body).json()


@pytest.fixture
def opportunity(erp: Client, person) -> dict:
    body = {"contactNumber": person["number"], "salespersonCode": "JR", "description": "Forty lanterns"}
    reply = erp.post("opportunities", body)
    assert 201 == reply.status_code, reply.text
    return reply.json()


def address(row) -> str:
    return f"opportunities({row['id']})"


def again(erp: Client, row) -> dict:
    return erp.get(address(row)).json()


def set_status(control: Control, info: Info, row, status: str) -> None:
    """As the steps of a sales cycle do, which the API does not expose."""
    edit = {"system": "erp", "app": info["erp"]["other_app"]["client_id"], "set": "opportunities", "id": row["id"]}
    control("POST", "edit", {**edit, "values": {"status": status}})


class TestOpportunity:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_opportunity"""

    def test_has_every_property_of_its_page_in_its_type(self, opportunity):
        shown = {name: type(value) for name, value in opportunity.items() if not name.startswith("@")}

        assert shown == PROPERTIES

    def test_draws_its_number_from_a_series_or_takes_one(self, erp: Client, opportunity):
        given = erp.post("opportunities", {"number": "deal 7"}).json()

        assert opportunity["number"].startswith("OP")
        assert "DEAL 7" == given["number"]
        assert (400, "Internal_EntityWithSameKeyExists") == error_code(erp.post("opportunities", {"number": "DEAL 7"}))

    def test_begins_today_and_not_started(self, opportunity):
        today = dt.datetime.now(dt.timezone.utc).date().isoformat()

        assert ("Not_x0020_Started", False, today, "0001-01-01") == tuple(
            opportunity[name] for name in ("status", "closed", "creationDate", "dateClosed")
        )
        assert opportunity["systemCreatedAt"] == opportunity["lastModifiedDateTime"]

    def test_belongs_to_a_contact_and_shows_its_names(self, opportunity):
        assert ("Ona Veld", "Lumen Yard") == (opportunity["contactName"], opportunity["contactCompanyName"])

    @pytest.mark.parametrize("name", READ_ONLY[1:])
    def test_takes_no_value_of_a_property_that_is_read_only(self, erp: Client, opportunity, name):
        reply = erp.patch(address(opportunity), {name: opportunity[name]}, tag="*")

        assert (400, "BadRequest_InvalidOperation") == error_code(reply)

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({"contactNumber": "NOBODY"}, "Internal_InvalidTableRelation"),
            ({"contactNumber": ""}, "Application_FieldValidationException"),
            ({"salespersonCode": "NOBODY"}, "Internal_InvalidTableRelation"),
            ({"salespersonCode": ""}, "Application_FieldValidationException"),
            ({"description": "x" * 101}, "Application_StringExceededLength"),
        ],
    )
    def test_refuses_what_does_not_fit(self, erp: Client, opportunity, body, code):
        assert (400, code) == error_code(erp.patch(address(opportunity), body, tag="*"))

    def test_is_found_by_its_contact_and_by_its_status(self, erp: Client, opportunity):
        query = f"opportunities?$filter=contactNumber eq '{opportunity['contactNumber']}' and status eq 'Not Started'"

        assert [opportunity["id"]] == [row["id"] for row in erp.rows(query)]

    def test_shows_the_names_of_now_and_has_not_changed_by_them(self, erp: Client, company, person, opportunity):
        """The names are calculated."""
        erp.patch(f"contacts({person['id']})", {"displayName": "Ona Veld-Aks"}, tag="*")
        erp.patch(f"contacts({company['id']})", {"displayName": "Lumen Works"}, tag="*")

        shown = again(erp, opportunity)

        assert ("Ona Veld-Aks", "Lumen Works") == (shown["contactName"], shown["contactCompanyName"])
        assert opportunity["@odata.etag"] == shown["@odata.etag"]

    def test_follows_its_contact_and_salesperson_to_another_number(self, erp: Client, company, person, opportunity):
        erp.patch(f"contacts({person['id']})", {"number": f"N{person['number']}"}, tag="*")
        erp.patch(f"contacts({company['id']})", {"number": f"N{company['number']}"}, tag="*")
        erp.patch(f"contacts({company['id']})", {"displayName": "Renumbered"}, tag="*")

        shown = again(erp, opportunity)

        assert (f"N{person['number']}", "Renumbered") == (shown["contactNumber"], shown["contactCompanyName"])

    def test_is_told_of_by_webhooks(self, info: Info, erp: Client, receiver: Receiver, person):
        """A page with one key field over a table that is not temporary can be subscribed."""
        resource = f"api/v2.0/companies({info['erp']['company_id']})/opportunities"
        body = {"notificationUrl": receiver.url, "resource": resource}
        key = erp.post(f"{erp.root}/subscriptions", body).json()["subscriptionId"]

        made = erp.post("opportunities", {"contactNumber": person["number"]}).json()

        assert eventually(lambda: len(receiver.got) > 0)
        erp.delete(f"{erp.root}/subscriptions('{key}')")
        assert [f"{resource}({made['id']})"] == [entry["resource"] for entry in receiver.got[0][1]["value"]]


class TestProgress:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_opportunity"""

    def test_an_opportunity_in_progress_stays_with_the_company_and_is_not_deleted(
        self, info: Info, erp: Client, control: Control, company, opportunity
    ):
        elsewhere = erp.post("contacts", {"displayName": "Elsewhere"}).json()
        set_status(control, info, opportunity, "In Progress")

        moved = erp.patch(address(opportunity), {"contactNumber": elsewhere["number"]}, tag="*")
        within = erp.patch(address(opportunity), {"contactNumber": company["number"]}, tag="*")
        gone = erp.delete(address(opportunity), tag="*")

        assert (400, "Application_DialogException") == error_code(moved)
        assert (200, "Lumen Yard") == (within.status_code, within.json()["contactName"])
        assert (400, "Application_DialogException") == error_code(gone)
        assert "while it is active" in gone.json()["error"]["message"]

    @pytest.mark.parametrize("status", ["Won", "Lost"])
    def test_one_that_is_won_or_lost_is_closed_and_keeps_contact_and_salesperson(
        self, info: Info, erp: Client, control: Control, opportunity, status
    ):
        set_status(control, info, opportunity, status)
        closed = again(erp, opportunity)
        contact = erp.patch(address(opportunity), {"contactNumber": opportunity["contactNumber"]}, tag="*")
        other = erp.rows("salespeoplePurchasers?$filter=code ne 'JR'&$top=1")[0]["code"]
        salesperson = erp.patch(address(opportunity), {"salespersonCode": other}, tag="*")

        assert (status, True, closed["creationDate"]) == (closed["status"], closed["closed"], closed["dateClosed"])
        assert (400, "Application_DialogException") == error_code(contact)
        assert (400, "Application_DialogException") == error_code(salesperson)
        assert 200 == erp.patch(address(opportunity), {"description": "Done"}, tag="*").status_code
        assert 204 == erp.delete(address(opportunity), tag="*").status_code

    def test_figures_come_from_outside_the_api_and_are_no_change(
        self, info: Info, erp: Client, control: Control, opportunity
    ):
        edit = {"system": "erp", "app": info["erp"]["other_app"]["client_id"], "set": "opportunities"}
        values = {"estimatedValue": 1250.5, "estimatedClosingDate": "2026-09-30"}
        control("POST", "edit", {**edit, "id": opportunity["id"], "values": values, "silent": True})

        shown = again(erp, opportunity)

        assert values == {name: shown[name] for name in values}
        assert opportunity["@odata.etag"] == shown["@odata.etag"]

    def test_a_contact_with_one_that_is_open_is_not_deleted(
        self, info: Info, erp: Client, control: Control, person, opportunity
    ):
        refused = erp.delete(f"contacts({person['id']})", tag="*")
        set_status(control, info, opportunity, "Lost")
        deleted = erp.delete(f"contacts({person['id']})", tag="*")

        assert (400, "Application_DialogException") == error_code(refused)
        assert 204 == deleted.status_code
