"""The pages that a partner publishes for what Business Central's API lacks, fact by fact.

How such pages behave: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-develop-custom-api
and https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-api-pagetype. What they show is in docs/custom-api.md.
"""

from __future__ import annotations

import re
import uuid
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from drawbar.sandbox.erp.model import CUSTOM, entity_sets
from tests.sandbox.client import Client, Control, Info, error_code, eventually
from tests.sandbox.conftest import Receiver

EMPTY = "00000000-0000-0000-0000-000000000000"
EDM = "{http://docs.oasis-open.org/odata/ns/edm}"
PAGES = [
    "customerPriceGroups",
    "itemUnitsOfMeasure",
    "priceListLines",
    "priceLists",
    "resources",
    "resourceUnitsOfMeasure",
    "shippingAgents",
    "unitGroups",
]
DOCUMENT = Path(__file__).parents[2] / "docs" / "custom-api.md"


@pytest.fixture(scope="module")
def custom(info: Info):
    """A client whose paths begin at the company of the custom route."""
    client = Client(info, "erp")
    client.root = client.root.replace("/api/v2.0", f"/api/{CUSTOM}")
    client.base = client.base.replace("/api/v2.0", f"/api/{CUSTOM}")
    yield client
    client.close()


@pytest.fixture
def item(erp: Client) -> dict:
    return erp.post("items", {"displayName": "Shackle", "baseUnitOfMeasureCode": "PCS", "unitPrice": 4}).json()


@pytest.fixture
def resource(custom: Client) -> dict:
    return custom.post("resources", {"displayName": "Fitter", "baseUnitOfMeasureCode": "HOUR", "unitPrice": 80}).json()


@pytest.fixture
def price_list(custom: Client) -> dict:
    reply = custom.post("priceLists", {"description": "Retail"})
    assert 201 == reply.status_code, reply.text
    return reply.json()


@pytest.fixture
def line(custom: Client, price_list, item) -> dict:
    body = {"priceListCode": price_list["code"], "assetNumber": item["number"], "unitPrice": 3.5}
    reply = custom.post("priceListLines", body)
    assert 201 == reply.status_code, reply.text
    return reply.json()


def at(set_name: str, row) -> str:
    return f"{set_name}({row['id']})"


def units(custom: Client, kind: str, owner) -> list[dict]:
    return custom.rows(f"{kind}UnitsOfMeasure?$filter={kind}Number eq '{owner['number']}'")


class TestRoute:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-develop-custom-api
    https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-api-pagetype
    """

    def test_has_publisher_group_and_version(self, custom: Client):
        assert re.search(r"/api/drawbar/integration/v1\.0\Z", custom.root)

    def test_serves_the_pages_and_the_companies(self, custom: Client):
        listed = [entry["name"] for entry in custom.get(custom.root).json()["value"]]

        assert sorted([*PAGES, "companies", "entityDefinitions", "subscriptions"]) == sorted(listed)
        assert 1 == len(custom.get(f"{custom.root}/companies").json()["value"])

    def test_is_apart_from_the_standard_one(self, erp: Client, custom: Client):
        assert (404, "BadRequest_ResourceNotFound") == error_code(erp.get("priceLists"))
        assert (404, "BadRequest_ResourceNotFound") == error_code(custom.get("customers"))

    @pytest.mark.parametrize("route", ["contoso/integration/v1.0", "drawbar/integration/v2.0", "drawbar/integration"])
    def test_of_another_publisher_group_or_version_is_not_found(self, erp: Client, route):
        url = re.sub(r"/api/v2\.0\Z", f"/api/{route}/companies", erp.root)

        assert (404, "BadRequest_ResourceNotFound") == error_code(erp.get(url))

    def test_has_metadata_of_its_own(self, erp: Client, custom: Client):
        of_custom = ET.fromstring(custom.get(f"{custom.root}/$metadata").content)
        of_standard = ET.fromstring(erp.get(f"{erp.root}/$metadata").content)
        names = {entry.get("Name") for entry in of_custom.iter(f"{EDM}EntitySet")}

        assert {*PAGES, "companies", "entityDefinitions"} == names
        assert {"companies", "entityDefinitions"} == names & {
            entry.get("Name") for entry in of_standard.iter(f"{EDM}EntitySet")
        }
        assert [] == list(of_custom.iter(f"{EDM}Action"))
        types = {entry.get("Name"): entry for entry in of_custom.iter(f"{EDM}EntityType")}
        lengths = {part.get("Name"): part.get("MaxLength") for part in types["shippingAgent"].iter(f"{EDM}Property")}
        assert {"code": "10", "displayName": "50", "internetAddress": "250", "accountNumber": "30"} == {
            name: length for name, length in lengths.items() if length
        }

    def test_stands_in_every_address_of_its_answers(self, custom: Client):
        for number in range(3):
            custom.post("shippingAgents", {"code": f"PAGE{number}"})
        made = custom.post("shippingAgents", {"code": "PAGE9"})
        page = custom.get("shippingAgents", prefer="odata.maxpagesize=2").json()

        assert made.headers["Location"].startswith(f"{custom.base}/shippingAgents(")
        assert page["@odata.context"].startswith(f"{custom.root}/$metadata#companies(")
        assert page["@odata.nextLink"].startswith(f"{custom.base}/shippingAgents?")
        assert [] != custom.get(page["@odata.nextLink"]).json()["value"]

    @pytest.mark.parametrize("page", [name for name in PAGES if name != "unitGroups"])
    def test_takes_the_query_options_of_the_standard_one(self, custom: Client, item, resource, line, page):
        counted = custom.get(f"{page}/$count").text
        query = f"{page}?$select=systemRowVersion&$count=true&$orderby=systemRowVersion desc&$filter=id ne {EMPTY}"
        shown = custom.get(query).json()
        versions = [row["systemRowVersion"] for row in shown["value"]]

        assert int(counted) == shown["@odata.count"] == len(versions)
        assert sorted(versions, reverse=True) == versions
        assert all({"@odata.etag", "systemRowVersion"} == set(row) for row in shown["value"])
        assert (400, "BadRequest") == error_code(custom.get(f"{page}?$filter=nope eq 1"))

    def test_minds_tags(self, custom: Client):
        agent = custom.post("shippingAgents", {"code": "TAGGED"}).json()
        path = at("shippingAgents", agent)
        changed = custom.patch(path, {"displayName": "Tagged"}, tag=agent["@odata.etag"])

        assert 200 == changed.status_code
        assert (400, "BadRequest_InvalidToken") == error_code(custom.patch(path, {"displayName": "T"}))
        assert (409, "Request_EntityChanged") == error_code(
            custom.patch(path, {"displayName": "T"}, tag=agent["@odata.etag"])
        )
        assert 204 == custom.delete(path, tag=changed.json()["@odata.etag"]).status_code

    def test_takes_batches(self, info: Info, custom: Client):
        company = f"companies({info['erp']['company_id']})"
        row_id = str(uuid.uuid4())
        body, json = {"id": row_id, "code": "BATCHED"}, {"Content-Type": "application/json"}
        parts = [
            {"id": "1", "method": "POST", "url": f"{company}/shippingAgents", "headers": json, "body": body},
            {"id": "2", "method": "GET", "url": f"{company}/shippingAgents({row_id})"},
            {"id": "3", "method": "GET", "url": f"{company}/customers"},
        ]
        replies = custom.post(f"{custom.root}/$batch", {"requests": parts}).json()["responses"]

        assert [("1", 201), ("2", 200), ("3", 404)] == [(reply["id"], reply["status"]) for reply in replies]

    def test_has_rights_of_its_own(self, info: Info, custom: Client, control: Control):
        app = {"system": "erp", "app": info["erp"]["client_id"], "entity": "shippingAgents"}
        control("POST", "grants", {**app, "allowed": False})
        refused = custom.get("shippingAgents")
        control("POST", "grants", {**app, "allowed": True})

        assert (403, "Authorization_RequestDenied") == error_code(refused)

    def test_tells_by_webhooks_what_is_subscribed_there(
        self, info: Info, erp: Client, custom: Client, receiver: Receiver
    ):
        """The address posted to and the resource both carry the route.

        https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/dynamics-subscriptions
        """
        resource = f"api/{CUSTOM}/companies({info['erp']['company_id']})/shippingAgents"
        body = {"notificationUrl": receiver.url, "resource": resource}
        elsewhere = erp.post(f"{erp.root}/subscriptions", body)
        key = custom.post(f"{custom.root}/subscriptions", body).json()["subscriptionId"]

        agent = custom.post("shippingAgents", {"code": "TOLD"}).json()

        assert eventually(lambda: len(receiver.got) > 0)
        custom.delete(f"{custom.root}/subscriptions('{key}')")
        assert (400, "BadRequest") == error_code(elsewhere)
        assert [f"{resource}({agent['id']})"] == [entry["resource"] for entry in receiver.got[0][1]["value"]]

    def test_shows_a_row_version_that_grows_with_every_write(self, custom: Client):
        """SystemRowVersion, which the standard pages do not show.

        https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-table-system-fields
        """
        first = custom.post("shippingAgents", {"code": "FIRST"}).json()
        second = custom.post("shippingAgents", {"code": "SECOND"}).json()
        changed = custom.patch(at("shippingAgents", first), {"displayName": "F"}, tag="*").json()

        assert first["systemRowVersion"] < second["systemRowVersion"] < changed["systemRowVersion"]
        since = f"shippingAgents?$filter=systemRowVersion gt {second['systemRowVersion']}"
        assert [first["id"]] == [row["id"] for row in custom.rows(since)]


class TestDocument:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-develop-custom-api
    https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-api-pagetype
    """

    @pytest.mark.parametrize("page", PAGES)
    def test_lists_every_property_of_a_page_with_its_field(self, page):
        """A partner writes the page from the document: it says what the sandbox serves."""
        described = entity_sets()[page]
        part = DOCUMENT.read_text("utf-8").split(f"\n## `{page}`\n")[1].split("\n## ")[0]
        rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|", part, re.MULTILINE)

        assert [(name, column.caption) for name, column in described.columns.items()] == [row[:2] for row in rows]
        assert f"table {described.source}" in part.replace('"', "")
        for name, _, written in rows:
            column = described.columns[name]
            assert (f"{column.type}({column.max})" if column.max else column.type) == written.split(",")[0], name
            assert (column.access in ("read", "server", "key")) == ("read-only" in written), name

    def test_has_a_section_for_each_page_and_for_no_other(self):
        described = [name for name, entity_set in entity_sets().items() if entity_set.route == CUSTOM]

        assert described == re.findall(r"^## `(\w+)`$", DOCUMENT.read_text("utf-8"), re.MULTILINE)
        assert sorted(PAGES) == sorted(described)


class TestShippingAgent:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-develop-custom-api
    https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-api-pagetype
    """

    def test_has_a_code_that_is_unique_and_a_name(self, custom: Client):
        made = custom.post("shippingAgents", {"code": " ups ", "displayName": "Parcels"}).json()

        assert ("UPS", "Parcels", "", "") == tuple(
            made[name] for name in ("code", "displayName", "internetAddress", "accountNumber")
        )
        assert (400, "Internal_EntityWithSameKeyExists") == error_code(custom.post("shippingAgents", {"code": "UPS"}))
        assert (400, "Application_FieldValidationException") == error_code(custom.post("shippingAgents", {}))


class TestCustomerPriceGroup:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-develop-custom-api
    https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-api-pagetype
    """

    def test_allows_discounts_unless_said_otherwise(self, custom: Client):
        plain = custom.post("customerPriceGroups", {"code": "RETAIL"}).json()
        strict = custom.post("customerPriceGroups", {"code": "DEALER", "allowLineDiscount": False}).json()

        assert (True, True, False) == (
            plain["allowLineDiscount"],
            plain["allowInvoiceDiscount"],
            strict["allowLineDiscount"],
        )


class TestResource:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-develop-custom-api
    https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-api-pagetype
    """

    def test_has_a_number_from_a_series_and_its_base_unit(self, custom: Client, resource):
        assert resource["number"].startswith("R0")
        assert ("Person", False, 0) == (resource["type"], resource["blocked"], resource["capacity"])
        assert [("HOUR", 1)] == [
            (unit["code"], unit["quantityPerUnitOfMeasure"]) for unit in units(custom, "resource", resource)
        ]

    def test_has_a_capacity_that_is_calculated(self, info: Info, custom: Client, control: Control, resource):
        refused = custom.patch(at("resources", resource), {"capacity": 8}, tag="*")
        edit = {"system": "erp", "app": info["erp"]["client_id"], "set": "resources", "id": resource["id"]}
        control("POST", "edit", {**edit, "values": {"capacity": 8}, "silent": True})
        shown = custom.get(at("resources", resource)).json()

        assert (400, "BadRequest_InvalidOperation") == error_code(refused)
        assert (8, resource["@odata.etag"]) == (shown["capacity"], shown["@odata.etag"])

    def test_takes_its_units_with_it(self, custom: Client, resource):
        body = {"resourceNumber": resource["number"], "code": "BOX", "quantityPerUnitOfMeasure": 8}
        assert 201 == custom.post("resourceUnitsOfMeasure", body).status_code
        custom.delete(at("resources", resource), tag="*")

        assert [] == units(custom, "resource", resource)


class TestUnit:
    """Item Unit of Measure and Resource Unit of Measure, tables 5404 and 205.

    Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-develop-custom-api
    https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-api-pagetype
    """

    def test_is_there_for_every_item_with_a_base_unit(self, erp: Client, custom: Client, item):
        unit, *more = units(custom, "item", item)

        assert [] == more
        assert ("PCS", 1, item["number"]) == (unit["code"], unit["quantityPerUnitOfMeasure"], unit["itemNumber"])
        assert unit == {
            name: value
            for name, value in custom.get(at("itemUnitsOfMeasure", unit)).json().items()
            if name != "@odata.context"
        }
        of_items = {row["number"] for row in erp.rows("items") if row["baseUnitOfMeasureCode"]}
        assert of_items == {row["itemNumber"] for row in custom.rows("itemUnitsOfMeasure")}

    def test_says_how_many_base_units_it_is(self, custom: Client, item):
        body = {"itemNumber": item["number"], "code": "box", "quantityPerUnitOfMeasure": 12}
        made = custom.post("itemUnitsOfMeasure", body).json()
        again = custom.post("itemUnitsOfMeasure", {"itemId": item["id"], "code": "BOX"})

        assert (item["id"], "BOX", 12) == (made["itemId"], made["code"], made["quantityPerUnitOfMeasure"])
        assert (400, "Internal_EntityWithSameKeyExists") == error_code(again)
        assert ["BOX", "PCS"] == [unit["code"] for unit in units(custom, "item", item)]

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({"code": "BOX", "quantityPerUnitOfMeasure": 0}, "Application_FieldValidationException"),
            ({"code": "BOX", "quantityPerUnitOfMeasure": -1}, "Application_FieldValidationException"),
            ({"code": "NONE"}, "Internal_InvalidTableRelation"),
            ({"code": "PCS"}, "Internal_EntityWithSameKeyExists"),
            ({"code": ""}, "Application_FieldValidationException"),
            ({"code": "BOX", "unitGroupId": EMPTY}, "BadRequest_InvalidOperation"),
        ],
    )
    def test_refuses_what_does_not_fit(self, custom: Client, item, body, code):
        assert (400, code) == error_code(custom.post("itemUnitsOfMeasure", {"itemNumber": item["number"], **body}))

    @pytest.mark.parametrize("kind", ["item", "resource"])
    def test_of_nothing_is_refused(self, custom: Client, kind):
        reply = custom.post(f"{kind}UnitsOfMeasure", {"code": "BOX"})

        assert (400, "Application_FieldValidationException") == error_code(reply)

    def test_stays_one_and_stays_there_while_it_is_the_base_unit(self, custom: Client, item):
        (unit,) = units(custom, "item", item)
        path = at("itemUnitsOfMeasure", unit)

        changed = custom.patch(path, {"quantityPerUnitOfMeasure": 2}, tag=unit["@odata.etag"])
        deleted = custom.delete(path, tag="*")

        assert (400, "Application_FieldValidationException") == error_code(changed)
        assert (400, "Application_DialogException") == error_code(deleted)
        assert [unit] == units(custom, "item", item)

    def test_is_an_ordinary_one_once_another_is_the_base_unit(self, erp: Client, custom: Client, item):
        (first,) = units(custom, "item", item)
        erp.patch(f"items({item['id']})", {"baseUnitOfMeasureCode": "KG"}, tag="*")
        changed = custom.patch(at("itemUnitsOfMeasure", first), {"quantityPerUnitOfMeasure": 0.25}, tag="*")

        assert (200, 0.25) == (changed.status_code, changed.json()["quantityPerUnitOfMeasure"])
        assert {"KG": 1, "PCS": 0.25} == {
            unit["code"]: unit["quantityPerUnitOfMeasure"] for unit in units(custom, "item", item)
        }
        assert 204 == custom.delete(at("itemUnitsOfMeasure", first), tag="*").status_code

    def test_that_is_more_than_one_is_no_base_unit(self, erp: Client, custom: Client, item):
        body = {"itemNumber": item["number"], "code": "BOX", "quantityPerUnitOfMeasure": 12}
        custom.post("itemUnitsOfMeasure", body)

        reply = erp.patch(f"items({item['id']})", {"baseUnitOfMeasureCode": "BOX"}, tag="*")

        assert (400, "Application_DialogException") == error_code(reply)

    def test_follows_a_renamed_item_and_goes_with_it(self, erp: Client, custom: Client, item):
        body = {"itemNumber": item["number"], "code": "BOX", "quantityPerUnitOfMeasure": 12}
        made = custom.post("itemUnitsOfMeasure", body).json()
        erp.patch(f"items({item['id']})", {"number": f"Z{item['number']}"}, tag="*")
        again = {**item, "number": f"Z{item['number']}"}
        renamed = [unit["code"] for unit in units(custom, "item", again)]
        erp.delete(f"items({item['id']})", tag="*")

        assert ["BOX", "PCS"] == renamed
        assert (404, "BadRequest_ResourceNotFound") == error_code(custom.get(at("itemUnitsOfMeasure", made)))
        assert [] == units(custom, "item", again)

    def test_that_is_not_related_to_the_base_unit_is_one(self, custom: Client, resource):
        body = {"resourceId": resource["id"], "code": "BOX", "quantityPerUnitOfMeasure": 5}
        made = custom.post("resourceUnitsOfMeasure", {**body, "relatedToBaseUnitOfMeasure": False}).json()

        assert (False, 1) == (made["relatedToBaseUnitOfMeasure"], made["quantityPerUnitOfMeasure"])


class TestUnitGroup:
    """Unit Group, table 5400.

    Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-develop-custom-api
    https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-api-pagetype
    """

    def test_is_there_for_each_item_and_each_resource(self, custom: Client, item, resource):
        (of_item,) = custom.rows(f"unitGroups?$filter=sourceId eq {item['id']}")
        (of_resource,) = custom.rows(f"unitGroups?$filter=sourceId eq {resource['id']}")

        assert ("Item", item["number"], f"ITEM {item['number']} UOM GR", "Shackle") == tuple(
            of_item[name] for name in ("sourceType", "sourceNumber", "code", "sourceName")
        )
        assert ("Resource", f"RESOURCE {resource['number']} UOM GR") == (of_resource["sourceType"], of_resource["code"])
        assert of_item["id"] == custom.get(at("unitGroups", of_item)).json()["id"]

    def test_holds_the_units(self, custom: Client, item):
        body = {"itemNumber": item["number"], "code": "BOX", "quantityPerUnitOfMeasure": 12}
        custom.post("itemUnitsOfMeasure", body)
        (group,) = custom.rows(f"unitGroups?$filter=sourceId eq {item['id']}&$expand=itemUnitsOfMeasure")

        assert ["BOX", "PCS"] == [unit["code"] for unit in group["itemUnitsOfMeasure"]]
        below = custom.rows(f"{at('unitGroups', group)}/itemUnitsOfMeasure")
        assert ["BOX", "PCS"] == [unit["code"] for unit in below]

    def test_is_read_only_and_told_of_by_its_item(self, info: Info, custom: Client, receiver: Receiver):
        resource = f"api/{CUSTOM}/companies({info['erp']['company_id']})/unitGroups"
        body = {"notificationUrl": receiver.url, "resource": resource}

        assert (405, "BadRequest_MethodNotAllowed") == error_code(custom.post("unitGroups", {"code": "X"}))
        assert (400, "BadRequest") == error_code(custom.post(f"{custom.root}/subscriptions", body))


class TestPriceList:
    """Price List Header, table 7000.

    Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-develop-custom-api
    https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-api-pagetype
    """

    def test_is_a_draft_of_sales_prices_for_all_customers(self, price_list):
        assert ("Sale", "All_x0020_Customers", "Any", "Draft", "", False) == tuple(
            price_list[name]
            for name in ("priceType", "sourceType", "amountType", "status", "currencyCode", "allowUpdatingDefaults")
        )
        assert (True, True) == (price_list["allowLineDiscount"], price_list["allowInvoiceDiscount"])

    def test_has_a_code_from_a_series_or_a_given_one_and_is_not_renamed(self, custom: Client, price_list):
        given = custom.post("priceLists", {"code": "spring"}).json()
        renamed = custom.patch(at("priceLists", given), {"code": "AUTUMN"}, tag="*")

        assert price_list["code"].startswith("P0")
        assert "SPRING" == given["code"]
        assert (400, "Application_DialogException") == error_code(renamed)

    def test_is_for_a_group_of_customers_or_one(self, erp: Client, custom: Client):
        custom.post("customerPriceGroups", {"code": "GROUP1"})
        body = {"sourceType": "Customer Price Group", "sourceNumber": "GROUP1"}
        made = custom.post("priceLists", body).json()
        unknown = custom.post("priceLists", {**body, "sourceNumber": "NOBODY"})
        blank = custom.post("priceLists", {"sourceType": "Customer"})

        assert ("GROUP1", "Price") == (made["sourceNumber"], made["amountType"])
        assert (400, "Internal_RecordNotFound") == error_code(unknown)
        assert (400, "Application_FieldValidationException") == error_code(blank)

    def test_that_is_active_neither_changes_nor_goes(self, custom: Client, price_list):
        path = at("priceLists", price_list)
        assert "Active" == custom.patch(path, {"status": "Active"}, tag="*").json()["status"]

        assert (400, "Application_FieldValidationException") == error_code(
            custom.patch(path, {"description": "X"}, tag="*")
        )
        assert (400, "Application_DialogException") == error_code(custom.delete(path, tag="*"))
        assert 200 == custom.patch(path, {"status": "Inactive"}, tag="*").status_code
        assert 204 == custom.delete(path, tag="*").status_code

    def test_keeps_currency_and_source_while_it_has_lines(self, custom: Client, price_list, line):
        for body in ({"currencyCode": "EUR"}, {"sourceType": "All"}, {"priceIncludesTax": True}):
            refused = custom.patch(at("priceLists", price_list), body, tag="*")
            assert (400, "Application_DialogException") == error_code(refused)

    def test_hands_dates_and_status_on_to_its_lines(self, custom: Client, price_list, line):
        body = {"startingDate": "2026-04-01", "endingDate": "2026-06-30"}
        custom.patch(at("priceLists", price_list), body, tag="*")
        custom.patch(at("priceLists", price_list), {"status": "Active"}, tag="*")
        shown = custom.get(at("priceListLines", line)).json()

        assert {**body, "status": "Active"} == {name: shown[name] for name in (*body, "status")}
        assert line["systemRowVersion"] < shown["systemRowVersion"]

    def test_goes_with_its_lines(self, custom: Client, price_list, line):
        custom.delete(at("priceLists", price_list), tag="*")

        assert 404 == custom.get(at("priceListLines", line)).status_code

    def test_is_made_with_its_lines(self, custom: Client, item):
        lines = [
            {"assetNumber": item["number"], "unitPrice": 3},
            {"assetNumber": item["number"], "unitPrice": 2, "minimumQuantity": 10},
        ]
        made = custom.post("priceLists", {"description": "Deep", "priceListLines": lines}).json()
        shown = custom.get(f"{at('priceLists', made)}?$expand=priceListLines").json()

        assert [(10000, 3), (20000, 2)] == [(row["lineNumber"], row["unitPrice"]) for row in shown["priceListLines"]]


class TestPriceListLine:
    """Price List Line, table 7001.

    Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-develop-custom-api
    https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-api-pagetype
    """

    def test_takes_what_its_header_says_and_the_unit_of_its_asset(self, custom: Client, item, price_list, line):
        assert (price_list["id"], 10000, "Item", item["id"], "PCS") == tuple(
            line[name] for name in ("priceListId", "lineNumber", "assetType", "assetId", "unitOfMeasureCode")
        )
        assert ("Sale", "All_x0020_Customers", "Price", "Draft") == tuple(
            line[name] for name in ("priceType", "sourceType", "amountType", "status")
        )

    def test_is_of_a_resource_too(self, custom: Client, price_list, resource):
        body = {"priceListId": price_list["id"], "assetType": "Resource", "assetNumber": resource["number"]}
        made = custom.post("priceListLines", {**body, "unitPrice": 75}).json()

        assert ("Resource", resource["id"], "HOUR", 75) == tuple(
            made[name] for name in ("assetType", "assetId", "unitOfMeasureCode", "unitPrice")
        )

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({"assetNumber": "NOTHING"}, "Internal_RecordNotFound"),
            ({"assetNumber": ""}, "Application_FieldValidationException"),
            ({"unitOfMeasureCode": "KG"}, "Internal_InvalidTableRelation"),
            ({"unitPrice": -1}, "Application_FieldValidationException"),
            ({"priceListCode": "OTHER"}, "Application_DialogException"),
            ({"currencyCode": "EUR"}, "BadRequest_InvalidOperation"),
        ],
    )
    def test_refuses_what_does_not_fit(self, custom: Client, line, body, code):
        assert (400, code) == error_code(custom.patch(at("priceListLines", line), body, tag="*"))

    def test_without_a_list_is_refused(self, custom: Client, item):
        reply = custom.post("priceListLines", {"assetNumber": item["number"]})

        assert (400, "Application_FieldValidationException") == error_code(reply)

    def test_is_in_any_unit_of_its_item(self, custom: Client, item, line):
        body = {"itemNumber": item["number"], "code": "BOX", "quantityPerUnitOfMeasure": 12}
        custom.post("itemUnitsOfMeasure", body)
        changed = custom.patch(at("priceListLines", line), {"unitOfMeasureCode": "BOX"}, tag="*").json()

        assert "BOX" == changed["unitOfMeasureCode"]

    def test_has_a_number_of_its_own_in_its_list(self, custom: Client, price_list, item, line):
        body = {"priceListCode": price_list["code"], "assetNumber": item["number"]}
        given = custom.post("priceListLines", {**body, "lineNumber": 15000}).json()
        taken = custom.post("priceListLines", {**body, "lineNumber": 15000})

        assert 15000 == given["lineNumber"]
        assert (400, "Internal_EntityWithSameKeyExists") == error_code(taken)

    def test_of_an_active_list_neither_changes_nor_goes(self, custom: Client, price_list, line):
        custom.patch(at("priceLists", price_list), {"status": "Active"}, tag="*")
        path = at("priceListLines", line)

        assert (400, "Application_FieldValidationException") == error_code(
            custom.patch(path, {"unitPrice": 9}, tag="*")
        )
        assert (400, "Application_DialogException") == error_code(custom.delete(path, tag="*"))

    def test_is_a_price_or_a_discount(self, custom: Client, line):
        discount = {"amountType": "Discount", "lineDiscountPercent": 5}
        changed = custom.patch(at("priceListLines", line), discount, tag="*").json()

        assert (0, 5) == (changed["unitPrice"], changed["lineDiscountPercent"])
