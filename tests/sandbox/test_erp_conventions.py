"""Conventions of Business Central's API that hold for every set: versions of the schema, actions, intents, captions."""

from __future__ import annotations

import http.client
import ssl
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from tests.sandbox.client import Client, Control, Info, error_code, session, sign_in

EDM = "{http://docs.oasis-open.org/odata/ns/edm}"


class TestSchemaVersion:
    """learn.microsoft.com/dynamics365/business-central/dev-itpro/webservices/use-filter-expressions-in-odata-uris"""

    @pytest.mark.parametrize(
        "condition", ["number in ('C00010','C00020')", "contains(tolower(displayName),'a')", "not (number in ('A'))"]
    )
    def test_two_one_knows_words_that_two_does_not(self, erp: Client, condition: str):
        old = erp.get("customers", params={"$filter": condition})
        new = erp.get("customers", params={"$filter": condition, "$schemaversion": "2.1"})

        assert (400, "BadRequest") == error_code(old)
        assert 200 == new.status_code
        assert new.json()["value"]

    def test_holds_inside_of_expands(self, erp: Client):
        query = "customers?$top=1&$expand=contactsInformation($filter=contactType in ('Company'))"

        assert 400 == erp.get(query).status_code
        assert 200 == erp.get(f"{query}&$schemaversion=2.1").status_code

    def test_that_is_none_is_refused(self, erp: Client):
        assert (400, "BadRequest") == error_code(erp.get("customers?$schemaversion=9"))

    def test_single_functions_are_of_every_version(self, erp: Client):
        assert 200 == erp.get("customers?$filter=tolower(displayName) eq 'a' and startswith(number,'C')").status_code


class TestIntent:
    """Data-Access-Intent: only ReadWrite for what writes.

    learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-connect-apps-tips
    """

    @pytest.mark.parametrize(("intent", "status"), [("ReadWrite", 200), ("ReadOnly", 400), ("Nonsense", 400)])
    def test_of_a_write_is_to_write(self, erp: Client, intent: str, status: int):
        customer = erp.rows("customers?$top=1")[0]["id"]
        reply = erp.patch(f"customers({customer})", {}, tag="*", headers={"Data-Access-Intent": intent})

        assert status == reply.status_code

    def test_of_a_read_may_be_either(self, erp: Client):
        for intent in ("ReadOnly", "ReadWrite"):
            assert 200 == erp.get("customers?$top=1", headers={"Data-Access-Intent": intent}).status_code


class TestAction:
    """learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-creating-and-interacting-with-odatav4-bound-action"""

    @pytest.fixture
    def order(self, erp: Client) -> dict:
        item = erp.post("items", {"displayName": "Cleat", "unitPrice": 5}).json()
        customer = erp.post("customers", {"displayName": "Pell & Son"}).json()
        lines = [{"itemId": item["id"], "quantity": 1}]
        return erp.post("salesOrders", {"customerId": customer["id"], "salesOrderLines": lines}).json()

    def test_is_named_in_any_case(self, erp: Client, order):
        """As tenants were seen to take it."""
        assert 204 == erp.post(f"salesOrders({order['id']})/Microsoft.NAV.ShipAndInvoice", None).status_code

    def test_under_a_tag_that_is_stale_is_refused(self, erp: Client, order):
        """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/dynamics-error-codes"""
        erp.patch(f"salesOrders({order['id']})", {"externalDocumentNumber": "7"}, tag="*")
        action = f"salesOrders({order['id']})/Microsoft.NAV.shipAndInvoice"

        assert (409, "Request_EntityChanged") == error_code(erp.post(action, None, tag=order["@odata.etag"]))
        assert 204 == erp.post(action, None, tag="*").status_code


class TestDefinitions:
    """As in an answer that was recorded; captions are properties of the pages.

    learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/properties/devenv-entitycaption-property
    learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/properties/devenv-entitysetcaption-property
    """

    def test_name_every_entity_with_captions(self, erp: Client):
        body = erp.get(f"{erp.root}/entityDefinitions").json()
        entities = {entry["entitySetName"]: entry for entry in body["value"] if entry["entitySetName"]}
        sets = {entry["name"] for entry in erp.get(erp.root).json()["value"]}

        assert f"{erp.root}/$metadata#entityDefinitions" == body["@odata.context"]
        assert sets - {"entityDefinitions", "subscriptions"} == set(entities)
        assert [{"languageCode": 1033, "caption": "Customer"}] == entities["customers"]["entityCaptions"]
        assert [{"name": "shipAndInvoice"}] == [{"name": each["name"]} for each in entities["salesOrders"]["actions"]]

    def test_name_properties_and_what_hangs_on_an_entity(self, erp: Client):
        (customer,) = erp.get(f"{erp.root}/entityDefinitions?$filter=entityName eq 'customer'").json()["value"]
        captions = {entry["name"]: entry["captions"][0]["caption"] for entry in customer["properties"]}

        assert {
            "id": "Id",
            "number": "No.",
            "displayName": "Display Name",
            "addressLine1": "Address Line 1",
            "country": "Country/Region Code",
            "phoneNumber": "Phone No.",
            "taxRegistrationNumber": "Tax Registration No.",
            "lastModifiedDateTime": "Last Modified Date",
            "picture": "Picture",
            "defaultDimensions": "Default Dimensions",
            "documentAttachments": "Document Attachments",
        }.items() <= captions.items()
        assert ([], []) == (customer["actions"], customer["enumMembers"])

    def test_name_members_of_enumerations(self, erp: Client):
        query = f"{erp.root}/entityDefinitions?$filter=entityName eq 'customer_blocked'&$select=enumMembers"
        ((blocked,),) = ([entry["enumMembers"] for entry in erp.get(query).json()["value"]],)

        assert ["_x0020_", "Ship", "Invoice", "All"] == [member["name"] for member in blocked]

    @pytest.mark.parametrize(
        "query", ["$filter=entitySetName eq 'customers'", "$orderby=entityName", "$select=nothing"]
    )
    def test_are_filtered_by_entity_name_alone(self, erp: Client, query: str):
        assert (400, "BadRequest") == error_code(erp.get(f"{erp.root}/entityDefinitions?{query}"))

    def test_are_read_only_and_in_the_metadata(self, erp: Client):
        root = ET.fromstring(erp.get(f"{erp.root}/$metadata").content)
        types = {entry.get("Name") for entry in root.iter(f"{EDM}EntityType")}

        assert 405 == erp.post(f"{erp.root}/entityDefinitions", {}).status_code
        assert "entityMetadata" in types

    @pytest.mark.parametrize("language", ["en-US", "en-GB", "de-DE", "xx"])
    def test_are_english_whatever_is_asked(self, erp: Client, language: str):
        """Accept-Language names an installed language, else it is not looked at; texts of errors are the same.

        learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-connect-apps-tips: Accept-Language
        """
        headers = {"Accept-Language": language}
        query = f"{erp.root}/entityDefinitions?$filter=entityName eq 'item'"
        (item,) = erp.get(query, headers=headers).json()["value"]

        assert "Item" == item["entityCaptions"][0]["caption"]
        reply = erp.post("customers", {}, headers=headers)
        assert 'A "displayName" must be provided.' in reply.json()["error"]["message"]


class TestAutomation:
    """learn.microsoft.com/dynamics365/business-central/dev-itpro/administration/resources/dynamics_automationcompany"""

    @pytest.fixture
    def address(self, erp: Client) -> str:
        return erp.base.replace("/api/v2.0", "/api/microsoft/automation/v2.0") + "/automationCompanies"

    @pytest.fixture
    def made(self, erp: Client, address: str) -> dict:
        reply = erp.post(address, {"name": "CRONUS", "displayName": f"Branch {uuid.uuid4().hex[:8]}"})
        assert 201 == reply.status_code, reply.text
        return reply.json()

    def test_lists_the_companies(self, info: Info, erp: Client, address: str):
        rows = {row["id"]: row for row in erp.rows(address)}
        first = rows[info["erp"]["company_id"]]

        assert ["businessProfileId", "displayName", "evaluationCompany", "id", "name"] == sorted(
            name for name in first if not name.startswith("@")
        )
        assert {row["id"] for row in erp.rows(f"{erp.root}/companies")} == set(rows)

    def test_makes_a_company_named_as_it_is_shown(self, erp: Client, made: dict):
        there = f"{erp.root}/companies({made['id']})"

        assert (made["displayName"], False) == (made["name"], made["evaluationCompany"])
        assert made["name"] in {row["name"] for row in erp.rows(f"{erp.root}/companies")}
        assert 201 == erp.post(f"{there}/customers", {"displayName": "First"}).status_code

    def test_of_a_name_that_is_taken_or_none_is_refused(self, erp: Client, address: str, made: dict):
        taken = erp.post(address, {"displayName": made["displayName"].upper()})

        assert (400, "Internal_EntityWithSameKeyExists") == error_code(taken)
        assert 400 == erp.post(address, {"displayName": ""}).status_code
        assert 400 == erp.post(address, {"displayName": "X", "evaluationCompany": True}).status_code

    def test_changes_what_a_company_is_called(self, erp: Client, address: str, made: dict):
        row = f"{address}({made['id']})"
        changed = erp.patch(row, {"displayName": "Branch office"}, tag=made["@odata.etag"]).json()

        assert ("Branch office", made["name"]) == (changed["displayName"], changed["name"])
        assert 409 == erp.patch(row, {"displayName": "Another"}, tag=made["@odata.etag"]).status_code
        assert 400 == erp.patch(row, {"displayName": "Another"}).status_code
        companies = {each["id"]: each["displayName"] for each in erp.rows(f"{erp.root}/companies")}
        assert "Branch office" == companies[made["id"]]

    def test_lists_on_the_next_page_what_a_company_is_called_now(
        self, info: Info, erp: Client, address: str, made: dict
    ):
        """docs.oasis-open.org/odata/odata/v4.0/odata-v4.0-part1-protocol.html"""
        two = (info["erp"]["company_id"], made["id"])
        query = f"{address}?$filter=id eq {two[0]} or id eq {two[1]}"
        first = erp.get(query, prefer="odata.maxpagesize=1").json()
        for each in two:
            erp.patch(f"{address}({each})", {"displayName": f"Now {each}"}, tag="*")
        (row,) = erp.get(first["@odata.nextLink"], prefer="odata.maxpagesize=1").json()["value"]

        assert f"Now {row['id']}" == row["displayName"]

    def test_takes_a_company_as_it_was_read(self, erp: Client, address: str, made: dict):
        """Annotations are no properties, and an id that stays is none that changes.

        docs.oasis-open.org/odata/odata-json-format/v4.01/odata-json-format-v4.01.html
        """
        tag = {"@odata.etag": made["@odata.etag"]}
        body = {**tag, "id": made["id"], "displayName": "Branch as read"}
        reply = erp.patch(f"{address}({made['id']})", body, tag=made["@odata.etag"])

        assert (200, "Branch as read") == (reply.status_code, reply.json()["displayName"])
        assert 201 == erp.post(address, {**tag, "displayName": f"Twin {uuid.uuid4().hex[:8]}"}).status_code

    def test_takes_a_company_away_with_all_that_is_in_it(self, erp: Client, address: str, made: dict):
        assert 204 == erp.delete(f"{address}({made['id']})").status_code
        assert 404 == erp.get(f"{erp.root}/companies({made['id']})/customers").status_code
        assert 404 == erp.get(f"{address}({made['id']})").status_code

    def test_needs_the_right_to_it(self, info: Info, erp: Client, control: Control, address: str):
        """D365 AUTOMATION.

        learn.microsoft.com/dynamics365/business-central/dev-itpro/administration/itpro-introduction-to-automation-apis
        """
        rule = {"system": "erp", "app": info["erp"]["client_id"], "entity": "automationCompanies"}
        control("POST", "grants", {**rule, "allowed": False})
        refused = erp.post(address, {"displayName": "Nobody's"})
        control("POST", "grants", {**rule, "allowed": True})

        assert (403, "Authorization_RequestDenied") == error_code(refused)


class TestQueue:
    def test_gives_up_on_who_waits_too_long(self, start: Callable[..., Info]):
        """Five run, others wait 8 minutes, then 503.

        learn.microsoft.com/dynamics365/business-central/dev-itpro/administration/operational-limits-online
        """
        info = start(seed="empty", latency_ms=600)
        control = Control(info)
        control("POST", "limits", {"system": "erp", "queue_s": 0.1})
        token = sign_in(info, "erp")["access_token"]

        def ask(_: int) -> tuple[int, str | None]:
            with session(info) as http_session:
                headers = {"Authorization": f"Bearer {token}"}
                reply = http_session.get(f"{info['erp']['base_url']}/companies", headers=headers, timeout=20)
                return reply.status_code, reply.headers.get("Retry-After")

        with ThreadPoolExecutor(7) as pool:
            answers = sorted(pool.map(ask, range(7)))
        control.close()

        assert [(200, None)] * 5 + [(503, "1")] * 2 == answers


class TestContentType:
    """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/api/dynamics_customer_create"""

    @pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
    def test_of_a_body_is_json(self, erp: Client, kind: str):
        body = b'{"displayName": "A"}'

        assert 201 == erp.send("POST", "customers", data=body, headers={"Content-Type": kind}).status_code

    @pytest.mark.parametrize("kind", [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/mixed"])
    def test_of_another_kind_is_refused(self, erp: Client, kind: str | None):
        """Status and code are chosen here."""
        headers = {"Content-Type": kind}
        reply = erp.send("POST", "customers", data=b'{"displayName": "Of another kind"}', headers=headers)

        assert (415, "BadRequest") == error_code(reply)
        assert [] == erp.rows("customers?$filter=displayName eq 'Of another kind'")

    def test_of_a_batch_is_json_or_multipart(self, erp: Client):
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        reply = erp.send("POST", f"{erp.root}/$batch", data=b'{"requests": []}', headers=headers)

        assert (415, "BadRequest") == error_code(reply)


class TestBodySize:
    def test_above_350_megabytes_is_refused_before_it_is_sent(self, info: Info, erp: Client):
        """learn.microsoft.com/dynamics365/business-central/dev-itpro/administration/operational-limits-online"""
        address = urlsplit(erp.root)
        token = sign_in(info, "erp")["access_token"]
        context = ssl.create_default_context(cafile=info["ca_file"])
        connection = http.client.HTTPSConnection(address.hostname or "", address.port, context=context, timeout=10)
        connection.putrequest("POST", f"{urlsplit(erp.base).path}/customers")
        connection.putheader("Authorization", f"Bearer {token}")
        connection.putheader("Content-Length", str(350 * 1024 * 1024 + 1))
        connection.endheaders()
        reply = connection.getresponse()

        assert 413 == reply.status
        connection.close()
