"""Business Central's contacts, and what they and customers say of each other, fact by fact."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sandbox.client import Client, Control, Info, error_code, eventually
from tests.sandbox.conftest import Receiver

EMPTY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def customer(erp: Client) -> dict:
    return erp.post("customers", {"displayName": "Corliss & Pike", "email": "office@corliss.example"}).json()


@pytest.fixture
def company(erp: Client, customer) -> dict:
    """The contact that stands for the customer."""
    return own_contact(erp, customer)


@pytest.fixture
def person(erp: Client, company) -> dict:
    body = {"type": "Person", "displayName": "Nia Corliss", "companyNumber": company["number"]}
    return erp.post("contacts", body).json()


def links(erp: Client, customer, query: str = "") -> list[dict]:
    return erp.rows(f"customers({customer['id']})/contactsInformation{query}")


def own_contact(erp: Client, customer) -> dict:
    (link,) = links(erp, customer)
    return again(erp, link["contactId"])


def again(erp: Client, contact_id: str) -> dict:
    return erp.get(f"contacts({contact_id})").json()


class TestContact:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_contact"""

    def test_has_every_property_of_its_page(self, company):
        assert 23 == len([name for name in company if not name.startswith("@")])
        assert None not in company.values()

    def test_is_a_company_unless_said_otherwise(self, erp: Client):
        contact = erp.post("contacts", {"displayName": "Pallas Goods"}).json()

        assert ("Company", contact["number"], "Pallas Goods") == (
            contact["type"],
            contact["companyNumber"],
            contact["companyName"],
        )

    def test_draws_its_number_from_a_series_of_its_own(self, erp: Client):
        first, second = (erp.post("contacts", {"displayName": "Numbered"}).json()["number"] for _ in range(2))

        assert first.startswith("CT")
        assert int(first[2:]) + 1 == int(second[2:])

    @pytest.mark.parametrize("body", [{}, {"displayName": ""}])
    def test_needs_a_name(self, erp: Client, body):
        assert (400, "Application_DialogException") == error_code(erp.post("contacts", body))

    @pytest.mark.parametrize(
        ("name", "length"),
        [("displayName", 100), ("jobTitle", 30), ("mobilePhoneNumber", 30), ("email", 80), ("searchName", 100)],
    )
    def test_refuses_what_is_longer_than_the_field(self, erp: Client, company, name, length):
        path = f"contacts({company['id']})"

        assert 200 == erp.patch(path, {name: "x" * length}, tag="*").status_code
        assert (400, "Application_StringExceededLength") == error_code(
            erp.patch(path, {name: "x" * (length + 1)}, tag="*")
        )

    def test_has_a_search_name_that_follows_the_name_until_it_is_given_one(self, erp: Client, person):
        path = f"contacts({person['id']})"
        follows = erp.patch(path, {"displayName": "Nia Pike"}, tag="*").json()["searchName"]
        given = erp.patch(path, {"searchName": "the boss"}, tag="*").json()["searchName"]
        stays = erp.patch(path, {"displayName": "Nia Corliss"}, tag="*").json()["searchName"]

        assert ("NIA CORLISS", "NIA PIKE", "THE BOSS", "THE BOSS") == (person["searchName"], follows, given, stays)

    def test_says_no_relation_of_its_own(self, erp: Client, person):
        """The field follows from business relations, whatever is sent."""
        changed = erp.patch(f"contacts({person['id']})", {"contactBusinessRelation": "Vendor"}, tag="*").json()

        assert "Customer" == changed["contactBusinessRelation"]
        assert person["@odata.etag"] == changed["@odata.etag"]

    def test_is_told_of_by_webhooks(self, info: Info, erp: Client, receiver: Receiver):
        company_id = info["erp"]["company_id"]
        body = {"notificationUrl": receiver.url, "resource": f"api/v2.0/companies({company_id})/contacts"}
        key = erp.post(f"{erp.root}/subscriptions", body).json()["subscriptionId"]

        contact = erp.post("contacts", {"displayName": "Hooked"}).json()

        assert eventually(lambda: len(receiver.got) > 0)
        erp.delete(f"{erp.root}/subscriptions('{key}')")
        assert [f"{body['resource']}({contact['id']})"] == [e["resource"] for e in receiver.got[0][1]["value"]]


class TestPerson:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_contact"""

    def test_bears_the_name_of_its_company(self, erp: Client, company, person):
        assert ("Corliss & Pike", "Customer") == (person["companyName"], person["contactBusinessRelation"])

        erp.patch(f"contacts({company['id']})", {"displayName": "Corliss Brothers"}, tag="*")

        assert "Corliss Brothers" == again(erp, person["id"])["companyName"]

    def test_may_have_no_company(self, erp: Client):
        person = erp.post("contacts", {"type": "Person", "displayName": "Una Alone"}).json()

        assert ("", "", "None") == tuple(
            person[name] for name in ("companyNumber", "companyName", "contactBusinessRelation")
        )

    def test_finds_its_company_by_name_too(self, erp: Client):
        company = erp.post("contacts", {"displayName": "Only One Of It"}).json()
        body = {"type": "Person", "displayName": "Nia", "companyName": "only one of it"}

        assert company["number"] == erp.post("contacts", body).json()["companyNumber"]

    def test_cannot_belong_to_a_person_or_to_nobody(self, erp: Client, person):
        for number in (person["number"], "CT999999"):
            body = {"type": "Person", "displayName": "Lost", "companyNumber": number}
            assert (400, "Internal_InvalidTableRelation") == error_code(erp.post("contacts", body))

    def test_leaves_its_company(self, erp: Client, person):
        left = erp.patch(f"contacts({person['id']})", {"companyNumber": ""}, tag="*").json()

        assert ("", "None") == (left["companyName"], left["contactBusinessRelation"])

    def test_follows_when_its_company_is_renumbered(self, erp: Client, company, person):
        number = f"R{company['number']}"
        renamed = erp.patch(f"contacts({company['id']})", {"number": number}, tag="*").json()

        assert (company["id"], number, number) == (renamed["id"], renamed["number"], renamed["companyNumber"])
        assert number == again(erp, person["id"])["companyNumber"]

    def test_stands_alone_when_its_company_is_deleted(self, erp: Client, company, person):
        assert 204 == erp.delete(f"contacts({company['id']})", tag="*").status_code

        left = again(erp, person["id"])
        assert ("", "", "None") == tuple(
            left[name] for name in ("companyNumber", "companyName", "contactBusinessRelation")
        )


class TestCustomersContact:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_contact"""

    def test_is_made_with_the_customer(self, customer, company):
        assert ("Company", "Corliss & Pike", "office@corliss.example", "Customer") == tuple(
            company[name] for name in ("type", "displayName", "email", "contactBusinessRelation")
        )
        assert company["id"] != customer["id"]

    def test_is_a_person_for_a_customer_who_is_one(self, erp: Client):
        customer = erp.post("customers", {"displayName": "Ada Sole", "type": "Person"}).json()

        assert ("Person", "") == tuple(own_contact(erp, customer)[name] for name in ("type", "companyNumber"))

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("displayName", "Corliss Sons"),
            ("addressLine1", "4 Mill Lane"),
            ("addressLine2", "Rear"),
            ("city", "Nowhere"),
            ("state", "XY"),
            ("country", "DE"),
            ("postalCode", "00000"),
            ("phoneNumber", "+1 555"),
            ("email", "new@corliss.example"),
            ("website", "https://corliss.example"),
            ("taxRegistrationNumber", "DE 1"),
        ],
    )
    def test_is_rewritten_from_the_customer_and_the_other_way(self, erp: Client, customer, company, field, value):
        erp.patch(f"customers({customer['id']})", {field: value}, tag="*")
        told = again(erp, company["id"])

        assert value == told[field]
        assert company["lastModifiedDateTime"] != told["lastModifiedDateTime"]

        erp.patch(f"contacts({company['id']})", {field: ""} if field != "displayName" else {field: "Back"}, tag="*")
        assert ("Back" if field == "displayName" else "") == erp.get(f"customers({customer['id']})").json()[field]

    @pytest.mark.parametrize("body", [{"creditLimit": 5}, {"phoneNumber": ""}, {"blocked": "All"}])
    def test_does_not_move_when_nothing_they_share_does(self, erp: Client, customer, company, body):
        erp.patch(f"customers({customer['id']})", body, tag="*")

        told = again(erp, company["id"])
        assert company["@odata.etag"] == told["@odata.etag"]
        assert company["lastModifiedDateTime"] == told["lastModifiedDateTime"]

    def test_stays_without_relation_when_the_customer_is_deleted(self, erp: Client, customer, company, person):
        erp.delete(f"customers({customer['id']})", tag="*")

        assert ["None", "None"] == [again(erp, row["id"])["contactBusinessRelation"] for row in (company, person)]

    def test_may_be_deleted_and_leaves_the_customer_unmoved(self, erp: Client, customer, company):
        erp.delete(f"contacts({company['id']})", tag="*")

        assert [] == links(erp, customer)
        assert customer["@odata.etag"] == erp.get(f"customers({customer['id']})").json()["@odata.etag"]


class TestContactsInformation:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_contactinformation"""

    def test_links_a_customer_to_its_contact_and_the_persons_there(self, erp: Client, customer, company, person):
        found = links(erp, customer)

        assert {(company["id"], "Company"), (person["id"], "Person")} == {
            (link["contactId"], link["contactType"]) for link in found
        }
        assert {(customer["id"], "Customer")} == {(link["relatedId"], link["relatedType"]) for link in found}

    def test_is_refused_without_a_parent(self, erp: Client, customer, person):
        whole = erp.get("contactsInformation")
        of_one = erp.rows(f"contactsInformation?$filter=relatedId eq {customer['id']}")

        assert (400, "Application_DialogException") == error_code(whole)
        assert 2 == len(of_one)

    def test_is_counted_filtered_and_expanded_below_its_customer(self, erp: Client, customer, company, person):
        path = f"customers({customer['id']})"
        expanded = erp.get(f"{path}?$select=number&$expand=contactsInformation($select=contactName)").json()

        assert "2" == erp.get(f"{path}/contactsInformation/$count").text
        assert [person["id"]] == [
            link["contactId"] for link in links(erp, customer, "?$filter=contactType eq 'Person'")
        ]
        assert ["Corliss & Pike", "Nia Corliss"] == [link["contactName"] for link in expanded["contactsInformation"]]

    def test_leads_from_a_contact_to_its_customer(self, erp: Client, customer, person):
        link = erp.get(f"contacts({person['id']})?$expand=contactInformation($expand=customer)").json()
        alone = erp.post("contacts", {"type": "Person", "displayName": "Una Alone"}).json()

        assert customer["number"] == link["contactInformation"]["customer"]["number"]
        assert erp.get(f"contacts({alone['id']})?$expand=contactInformation").json()["contactInformation"] is None

    def test_pages_like_any_set(self, erp: Client, customer, company):
        for name in ("A", "B", "C"):
            erp.post("contacts", {"type": "Person", "displayName": name, "companyNumber": company["number"]})

        path = f"customers({customer['id']})/contactsInformation"
        assert 4 == len(erp.rows(path, prefer="odata.maxpagesize=2"))
        assert "@odata.nextLink" in erp.get(path, prefer="odata.maxpagesize=2").json()

    def test_cannot_be_written(self, erp: Client, person):
        assert (405, "BadRequest_MethodNotAllowed") == error_code(erp.post("contactsInformation", {}))

    def test_sends_no_notifications(self, info: Info, erp: Client, receiver: Receiver):
        resource = f"api/v2.0/companies({info['erp']['company_id']})/contactsInformation"
        body = {"notificationUrl": receiver.url, "resource": resource}

        assert (400, "BadRequest") == error_code(erp.post(f"{erp.root}/subscriptions", body))


class TestRights:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_contactinformation"""

    @pytest.fixture
    def without(self, info: Info, control: Control) -> Iterator[None]:
        grant = {"system": "erp", "app": info["erp"]["client_id"], "entity": "contacts", "operation": "read"}
        control("POST", "grants", {**grant, "allowed": False})
        yield
        control("POST", "grants", {**grant, "allowed": True})

    def test_are_those_of_the_table_wherever_it_shows(self, erp: Client, without):
        customer = erp.rows("customers?$top=1")[0]["id"]

        for path in (
            "contacts",
            f"customers({customer})/contactsInformation",
            f"customers({customer})?$expand=contactsInformation",
        ):
            reply = erp.get(path)
            assert (403, "Authorization_RequestDenied") == error_code(reply)
            assert "TableData Contact Read" in reply.json()["error"]["message"]

    def test_are_not_needed_for_what_the_application_does_itself(self, erp: Client, without):
        assert 201 == erp.post("customers", {"displayName": "Made all the same"}).status_code


class TestMetadata:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-connect-apps-tips"""

    def test_says_how_contacts_hang_together(self, erp: Client):
        text = erp.get(f"{erp.root}/$metadata").text

        assert '<Key><PropertyRef Name="contactId"/></Key>' in text
        assert 'Name="contactsInformation" Type="Collection(Microsoft.NAV.contactInformation)"' in text
        assert '<EntitySet Name="currencyExchangeRates" EntityType="Microsoft.NAV.currencyExchangeRate"/>' in text


@pytest.fixture
def customer_contact(erp: Client, person) -> dict:
    return erp.get(f"customerContacts({person['id']})").json()


class TestCustomerContact:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_customercontact"""

    def test_has_every_property_of_its_page(self, customer, person, customer_contact):
        expected = {
            "id": person["id"],
            "email": "",
            "firstName": "Nia",
            "lastName": "Corliss",
            "professionalTitle": "",
            "customerId": customer["id"],
            "customerName": "Corliss & Pike",
            "primaryPhoneNumber": "",
        }

        assert expected == {name: value for name, value in customer_contact.items() if not name.startswith("@")}
        assert person["@odata.etag"] == customer_contact["@odata.etag"]

    def test_is_a_person_of_a_customer(self, erp: Client, customer, person):
        """Neither the company's contact itself nor a person of a company that buys nothing is listed."""
        erp.post("contacts", {"type": "Person", "displayName": "Nobody's"})
        rows = erp.rows("customerContacts")

        assert [person["id"]] == [row["id"] for row in rows if row["customerId"] == customer["id"]]
        assert "Nobody's" not in [row["firstName"] for row in rows]

    def test_cannot_be_made_here(self, erp: Client):
        assert (405, "BadRequest_MethodNotAllowed") == error_code(erp.post("customerContacts", {"firstName": "N"}))

    @pytest.mark.parametrize(
        ("name", "parts"),
        [
            ("Cher", ("Cher", "")),
            ("Ann Lee", ("Ann", "Lee")),
            ("Ann Mae Lee", ("Ann", "Lee")),
            ("Ann Mae Sue Lee", ("Ann Mae", "Lee")),
        ],
    )
    def test_has_first_and_last_of_the_words_of_a_name(self, erp: Client, person, name, parts):
        """Of three words or more the last but one is the middle name, which is not shown."""
        erp.patch(f"contacts({person['id']})", {"displayName": name}, tag="*")
        shown = erp.get(f"customerContacts({person['id']})").json()

        assert parts == (shown["firstName"], shown["lastName"])

    def test_writes_the_contact(self, erp: Client, person, customer_contact):
        body = {
            "firstName": "Nia Rose",
            "email": "nia@corliss.example",
            "professionalTitle": "Buyer",
            "primaryPhoneNumber": "12",
        }
        changed = erp.patch(f"customerContacts({person['id']})", body, tag=customer_contact["@odata.etag"]).json()
        contact = again(erp, person["id"])

        assert body == {name: changed[name] for name in body}
        assert ("Nia Rose Corliss", "Corliss") == (contact["displayName"], changed["lastName"])
        assert ("nia@corliss.example", "Buyer", "12") == tuple(
            contact[name] for name in ("email", "jobTitle", "phoneNumber")
        )
        assert contact["@odata.etag"] == changed["@odata.etag"] != customer_contact["@odata.etag"]

    def test_keeps_its_version_when_nothing_changes(self, erp: Client, person, customer_contact):
        same = erp.patch(f"customerContacts({person['id']})", {"firstName": "Nia"}, tag="*").json()

        assert customer_contact["@odata.etag"] == same["@odata.etag"]

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({"firstName": "x" * 31}, "Application_StringExceededLength"),
            ({"customerName": "Other"}, "BadRequest_InvalidOperation"),
            ({"customerId": "11111111-1111-4111-8111-111111111111"}, "Application_DialogException"),
            ({"customerId": EMPTY}, "Application_DialogException"),
            ({"displayName": "N"}, "BadRequest"),
        ],
    )
    def test_refuses_what_does_not_fit(self, erp: Client, person, customer_contact, body, code):
        refused = erp.patch(f"customerContacts({person['id']})", body, tag="*")

        assert (400, code) == error_code(refused)
        assert (400, "BadRequest_InvalidToken") == error_code(erp.patch(f"customerContacts({person['id']})", {}))

    def test_goes_over_to_another_customer_with_its_company(self, erp: Client, customer, company, person):
        other = erp.post("customers", {"displayName": "Second Pike"}).json()
        before = own_contact(erp, other)

        moved = erp.patch(f"customerContacts({person['id']})", {"customerId": other["id"]}, tag="*").json()

        assert (other["id"], "Second Pike") == (moved["customerId"], moved["customerName"])
        assert [] == links(erp, customer)
        assert {company["id"], person["id"]} == {link["contactId"] for link in links(erp, other)}
        assert "None" == again(erp, before["id"])["contactBusinessRelation"]

    def test_is_deleted_with_the_contact(self, erp: Client, person, customer_contact):
        assert 204 == erp.delete(f"customerContacts({person['id']})", tag=customer_contact["@odata.etag"]).status_code
        assert 404 == erp.get(f"contacts({person['id']})").status_code

    def test_needs_the_rights_to_contacts_and_to_read_customers(
        self, info: Info, erp: Client, control: Control, person
    ):
        path = f"customerContacts({person['id']})"
        app = {"system": "erp", "app": info["erp"]["client_id"]}
        for entity, operation in (("contacts", "write"), ("customers", "read")):
            control("POST", "grants", {**app, "entity": entity, "operation": operation, "allowed": False})
            assert (403, "Authorization_RequestDenied") == error_code(erp.patch(path, {"email": "x"}, tag="*"))
            control("POST", "grants", {**app, "entity": entity, "operation": operation, "allowed": True})
        control("POST", "grants", {**app, "entity": "customers", "operation": "write", "allowed": False})
        assert 200 == erp.patch(path, {"email": "x"}, tag="*").status_code
        control("POST", "grants", {**app, "entity": "customers", "operation": "write", "allowed": True})
