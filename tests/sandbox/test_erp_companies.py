"""Several companies in one Business Central, fact by fact.

https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_company
"""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from drawbar.sandbox.server import SandboxOptions, start_in_thread
from tests.sandbox.client import Client, Control, Info, error_code, eventually
from tests.sandbox.conftest import Receiver

NAME = "Quay & Loom"
EDM = "{http://docs.oasis-open.org/odata/ns/edm}"


@pytest.fixture(scope="module")
def second(info: Info, control: Control) -> dict:
    """A company beside that of the connection file."""
    return control("POST", "companies", {"name": NAME, "display_name": "Quay & Loom GmbH", "currency": "EUR"})


@pytest.fixture(scope="module")
def there(info: Info, second):
    client = Client(info, "erp")
    client.base = f"{client.root}/companies({second['id']})"
    yield client
    client.close()


def at_root(erp: Client, path: str, **given):
    return erp.get(f"{erp.root}/{path}", **given)


class TestCompanies:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_company"""

    def test_have_every_property_of_their_page(self, erp: Client, second):
        first, other = at_root(erp, "companies").json()["value"][:2]

        assert [
            "id",
            "systemVersion",
            "timestamp",
            "name",
            "displayName",
            "businessProfileId",
            "systemCreatedAt",
            "systemCreatedBy",
            "systemModifiedAt",
            "systemModifiedBy",
        ] == list(first)
        assert (second["id"], NAME, "Quay & Loom GmbH") == (other["id"], other["name"], other["displayName"])

    def test_list_that_of_the_connection_file_first(self, info: Info, erp: Client, second):
        """Source: the sandbox itself."""
        assert info["erp"]["company_id"] == at_root(erp, "companies").json()["value"][0]["id"]

    def test_are_found_ordered_counted_and_cut(self, erp: Client, second):
        named = at_root(erp, "companies", params={"$filter": f"name eq '{NAME}'", "$select": "id,name"}).json()
        ordered = at_root(erp, "companies?$orderby=name desc&$top=1&$count=true").json()
        later = at_root(erp, "companies?$filter=systemCreatedAt gt 2023-02-14T08:30:00Z").json()["value"]
        all_of_them = at_root(erp, "companies").json()["value"]

        assert [{"id": second["id"], "name": NAME}] == named["value"]
        assert (len(all_of_them), [NAME]) == (ordered["@odata.count"], [row["name"] for row in ordered["value"]])
        assert all_of_them[1:] == later
        assert all_of_them[1:] == at_root(erp, "companies?$skip=1").json()["value"]
        assert str(len(all_of_them)) == at_root(erp, "companies/$count").text
        assert (400, "BadRequest") == error_code(at_root(erp, "companies?$filter=nope eq 1"))

    @pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
    def test_are_read_only(self, erp: Client, second, method):
        """They are made through the automation API."""
        path = f"{erp.root}/companies" + ("" if method == "POST" else f"({second['id']})")

        assert (405, "BadRequest_MethodNotAllowed") == error_code(erp.send(method, path, json={}, tag="*"))

    def test_are_in_the_metadata_with_their_sets_below(self, erp: Client):
        root = ET.fromstring(at_root(erp, "$metadata").content)
        (company,) = (entry for entry in root.iter(f"{EDM}EntityType") if entry.get("Name") == "company")
        below = {part.get("Name"): part.get("Type") for part in company.iter(f"{EDM}NavigationProperty")}

        assert "Collection(Microsoft.NAV.customer)" == below["customers"]
        assert {entry.get("Name") for entry in root.iter(f"{EDM}EntitySet")} == {
            "companies",
            "entityDefinitions",
            *below,
        }

    @pytest.mark.parametrize("name", ["", "x" * 31, NAME.upper()])
    def test_have_a_name_of_thirty_characters_that_is_their_own(self, info: Info, control: Control, second, name):
        url, http = f"{info['control_url']}/companies", control.http

        assert 400 == http.post(url, json={"name": name}, timeout=10).status_code


class TestAddress:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/endpoints-apis-for-dynamics"""

    def test_names_a_company_in_three_ways_that_are_the_same(self, erp: Client, there: Client, second):
        made = there.post("customers", {"displayName": "Addressed"}).json()
        path = f"customers({made['id']})"
        ways = [
            there.get(path),
            at_root(erp, f"{path}?company={second['id']}"),
            at_root(erp, path, params={"company": NAME}),
            at_root(erp, path, headers={"Company": NAME}),
        ]

        assert [made["@odata.etag"]] * 4 == [reply.json()["@odata.etag"] for reply in ways]
        assert 1 == len({reply.json()["@odata.context"] for reply in ways})

    def test_without_a_company_is_refused_where_there_are_several(self, erp: Client, second):
        assert (404, "Internal_CompanyNotFound") == error_code(at_root(erp, "customers"))

    def test_with_an_unknown_company_is_refused(self, erp: Client, second):
        for given in ({"params": {"company": "Nobody"}}, {"headers": {"Company": "Nobody"}}):
            assert (404, "Internal_CompanyNotFound") == error_code(at_root(erp, "customers", **given))

    def test_writes_in_each_of_the_ways(self, erp: Client, there: Client, second):
        by_query = erp.post(f"{erp.root}/customers?company={second['id']}", {"displayName": "By query"})
        by_header = erp.post(f"{erp.root}/customers", {"displayName": "By header"}, headers={"Company": NAME})
        names = {row["displayName"] for row in there.rows("customers")}

        assert [201, 201] == [by_query.status_code, by_header.status_code]
        assert {"By query", "By header"} <= names
        assert by_query.headers["Location"].startswith(f"{there.base}/customers(")

    def test_in_a_batch_is_by_each_request_or_by_the_header_of_all(self, erp: Client, there: Client, second):
        made = there.post("customers", {"displayName": "Batched"}).json()
        parts = [
            {"id": "path", "method": "GET", "url": f"companies({second['id']})/customers({made['id']})"},
            {"id": "query", "method": "GET", "url": f"customers({made['id']})?company={second['id']}"},
            {"id": "header", "method": "GET", "url": f"customers({made['id']})", "headers": {"Company": NAME}},
        ]
        send = {"prefer": "odata.continue-on-error"}
        own = erp.post(f"{erp.root}/$batch", {"requests": parts}, **send).json()["responses"]
        bare = {"requests": [{"id": "none", "method": "GET", "url": f"customers({made['id']})"}]}
        (without,) = erp.post(f"{erp.root}/$batch", bare).json()["responses"]
        (outer,) = erp.post(f"{erp.root}/$batch", bare, headers={"Company": NAME}).json()["responses"]

        assert [200, 200, 200] == [reply["status"] for reply in own]
        assert (404, 200) == (without["status"], outer["status"])

    def test_goes_on_with_the_company_on_the_next_page(self, erp: Client, there: Client, second):
        for name in "ABC":
            there.post("salespeoplePurchasers", {"code": f"PAGE{name}"})
        query = f"salespeoplePurchasers?company={second['id']}"
        page = at_root(erp, query, prefer="odata.maxpagesize=2").json()
        rest = erp.get(page["@odata.nextLink"], prefer="odata.maxpagesize=2").json()

        assert ["PAGEA", "PAGEB", "PAGEC"] == [row["code"] for row in page["value"] + rest["value"]]


class TestData:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_company"""

    def test_is_each_companys_own(self, erp: Client, there: Client):
        made = there.post("customers", {"displayName": "Only there", "number": "ONLY"}).json()

        assert (404, "BadRequest_ResourceNotFound") == error_code(erp.get(f"customers({made['id']})"))
        assert 201 == erp.post("customers", {"displayName": "And here", "number": "ONLY"}).status_code
        assert [] == erp.rows("customers?$filter=displayName eq 'Only there'")

    def test_begins_with_the_set_up_of_the_first_and_no_business(self, erp: Client, control: Control):
        """Source: the sandbox itself."""
        company = control("POST", "companies", {"name": "Fresh"})
        fresh = f"{erp.root}/companies({company['id']})"
        for set_name in ("countriesRegions", "paymentTerms", "shipmentMethods", "paymentMethods", "currencies"):
            here, copied = erp.rows(set_name), erp.rows(f"{fresh}/{set_name}")
            assert [row["code"] for row in here] == [row["code"] for row in copied]
            assert not {row["id"] for row in here} & {row["id"] for row in copied}
        for set_name in ("customers", "contacts", "items", "salespeoplePurchasers", "salesOrders"):
            assert [] == erp.rows(f"{fresh}/{set_name}")

    def test_has_a_local_currency_of_its_own(self, erp: Client, there: Client):
        here = erp.post("customers", {"displayName": "Local"}).json()
        made = there.post("customers", {"displayName": "Local"}).json()

        assert ("USD", "EUR") == (here["currencyCode"], made["currencyCode"])
        assert [("Quay & Loom GmbH", "EUR")] == [
            (row["displayName"], row["currencyCode"]) for row in there.rows("companyInformation")
        ]
        assert [] == there.rows("currencies")

    def test_has_number_series_of_its_own(self, erp: Client, control: Control):
        company = control("POST", "companies", {"name": "Numbers"})
        erp.post("items", {"displayName": "Here"})
        first = erp.post(f"{erp.root}/companies({company['id']})/items", {"displayName": "First"}).json()

        assert "I-1001" == first["number"]

    def test_of_a_company_refers_to_rows_of_that_company(self, erp: Client, there: Client):
        terms = erp.rows("paymentTerms")[0]["id"]

        assert (400, "Application_DialogException") == error_code(
            there.post("customers", {"displayName": "N", "paymentTermsId": terms})
        )

    def test_is_told_of_by_the_webhooks_of_its_company(
        self, info: Info, erp: Client, there: Client, receiver: Receiver, second
    ):
        resource = f"api/v2.0/companies({second['id']})/customers"
        body = {"notificationUrl": receiver.url, "resource": resource}
        key = erp.post(f"{erp.root}/subscriptions", body).json()["subscriptionId"]
        erp.post("customers", {"displayName": "Not told"})
        made = there.post("customers", {"displayName": "Told"}).json()

        assert eventually(lambda: len(receiver.got) > 0)
        erp.delete(f"{erp.root}/subscriptions('{key}')")
        assert [f"{resource}({made['id']})"] == [entry["resource"] for entry in receiver.got[0][1]["value"]]

    def test_of_an_unknown_company_cannot_be_subscribed(self, erp: Client, receiver: Receiver):
        resource = "api/v2.0/companies(11111111-1111-4111-8111-111111111111)/customers"
        reply = erp.post(f"{erp.root}/subscriptions", {"notificationUrl": receiver.url, "resource": resource})

        assert (404, "Internal_CompanyNotFound") == error_code(reply)

    def test_is_edited_and_told_the_truth_of_by_company(self, info: Info, control: Control, second):
        """Source: the sandbox itself."""
        edit = {"system": "erp", "app": info["erp"]["client_id"], "set": "items", "company": second["id"]}
        made = control("POST", "edit", {**edit, "values": {"displayName": "Edited"}})[0]

        assert made["id"] in [row["id"] for row in control("GET", f"truth/erp/items?company={second['id']}")]
        first = info["erp"]["company_id"]
        assert made["id"] not in [row["id"] for row in control("GET", f"truth/erp/items?company={first}")]
        assert made["id"] in [row["id"] for row in control("GET", "truth/erp/items")]


class TestRestart:
    """Source: the sandbox itself."""

    def test_keeps_companies_and_their_data(self, certificates: Path, tmp_path: Path):
        shutil.copytree(certificates, tmp_path, dirs_exist_ok=True)
        options = SandboxOptions(state_dir=tmp_path, seed="empty", limits=False, db=tmp_path / "data.db")
        info, stop = start_in_thread(options)
        control = Control(info)
        second = control("POST", "companies", {"name": "Kept"})
        edit = {"system": "erp", "app": info["erp"]["client_id"], "set": "customers", "company": second["id"]}
        control("POST", "edit", {**edit, "values": {"displayName": "Kept customer"}})
        control.close()
        stop()

        info, stop = start_in_thread(options)
        control = Control(info)
        kept = control("GET", f"truth/erp/customers?company={second['id']}")
        control.close()
        stop()

        assert ["Kept customer"] == [row["displayName"] for row in kept]
