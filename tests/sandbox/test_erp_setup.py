"""What Business Central's master data and documents refer to: taxes, posting groups, locations, accounts, dimensions."""

from __future__ import annotations

import uuid

import pytest

from tests.sandbox.client import Client, Control, Info, error_code

EMPTY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def customer(erp: Client) -> dict:
    return erp.post("customers", {"displayName": "Ardent & Lowe"}).json()


@pytest.fixture
def order(erp: Client, customer) -> dict:
    return erp.post("salesOrders", {"customerId": customer["id"]}).json()


def one(erp: Client, set_name: str, code: str, key: str = "code") -> dict:
    return erp.rows(f"{set_name}?$filter={key} eq '{code}'")[0]


class TestSetUp:
    @pytest.mark.parametrize(
        ("set_name", "count"),
        [
            ("locations", 14),
            ("taxAreas", 5),
            ("taxGroups", 5),
            ("generalProductPostingGroups", 5),
            ("inventoryPostingGroups", 3),
            ("accounts", 10),
            ("dimensions", 5),
            ("dimensionValues", 6),
        ],
    )
    def test_sets_have_every_property_of_their_pages(self, erp: Client, set_name: str, count: int):
        """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_location"""
        row = erp.rows(set_name)[0]

        assert count == len([name for name in row if not name.startswith("@")])

    @pytest.mark.parametrize(
        "set_name",
        ["generalProductPostingGroups", "inventoryPostingGroups", "accounts", "dimensions", "dimensionValues"],
    )
    def test_what_the_pages_do_not_edit_is_refused(self, erp: Client, set_name: str):
        """GET alone.

        learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_account
        """
        row = erp.rows(set_name)[0]

        assert (405, "BadRequest_MethodNotAllowed") == error_code(erp.post(set_name, {"code": "X"}))
        assert 405 == erp.patch(f"{set_name}({row['id']})", {"displayName": "X"}, tag="*").status_code
        assert 405 == erp.delete(f"{set_name}({row['id']})").status_code

    def test_a_new_company_has_it_too(self, info: Info, erp: Client, control: Control):
        """Source: the sandbox itself."""
        made = control("POST", "companies", {"name": f"Annex {uuid.uuid4().hex[:6]}"})
        there = f"{erp.root}/companies({made['id']})"
        dimensions = {row["id"] for row in erp.rows(f"{there}/dimensions")}

        assert len(erp.rows("accounts")) == len(erp.rows(f"{there}/accounts"))
        assert dimensions == {row["dimensionId"] for row in erp.rows(f"{there}/dimensionValues")}
        assert not dimensions & {row["id"] for row in erp.rows("dimensions")}

    def test_values_are_reached_by_their_dimension(self, erp: Client):
        """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_dimension"""
        dimension = erp.get("dimensions?$filter=code eq 'AREA'&$expand=dimensionValues").json()["value"][0]

        assert ["AMERICA", "ASIA", "EUROPE"] == [value["code"] for value in dimension["dimensionValues"]]
        assert 3 == len(erp.rows(f"dimensions({dimension['id']})/dimensionValues"))

    def test_buffers_and_parts_are_not_in_the_catalogue_of_webhooks(self, erp: Client):
        """No webhook on a temporary table.

        learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/dynamics-subscriptions
        """
        catalogue = erp.base.replace("/api/v2.0", "/api/microsoft/runtime/beta") + "/webhookSupportedResources"
        known = {row["resource"] for row in erp.rows(catalogue)}

        assert {"v2.0/accounts", "v2.0/dimensions", "v2.0/locations"} <= known
        assert not known & {"v2.0/taxAreas", "v2.0/taxGroups"}


class TestTaxes:
    """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_taxarea
    learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_taxgroup
    """

    def test_a_customer_shows_the_name_of_its_area(self, erp: Client, customer):
        """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_customer"""
        area = erp.post("taxAreas", {"code": f"A{uuid.uuid4().hex[:6]}", "displayName": "Salem"}).json()
        taxed = erp.patch(f"customers({customer['id']})", {"taxAreaId": area["id"]}, tag="*").json()
        erp.patch(f"taxAreas({area['id']})", {"displayName": "Salem, Massachusetts"}, tag="*")
        shown = erp.get(f"customers({customer['id']})").json()

        assert ("Salem", "Sales_x0020_Tax") == (taxed["taxAreaDisplayName"], area["taxType"])
        assert ("Salem, Massachusetts", taxed["lastModifiedDateTime"]) == (
            shown["taxAreaDisplayName"],
            shown["lastModifiedDateTime"],
        )

    def test_an_unknown_area_or_group_is_refused_by_name(self, erp: Client, customer):
        """Texts of the public source of the pages (APIV2 - Items)."""
        area = erp.patch(f"customers({customer['id']})", {"taxAreaId": str(uuid.uuid4())}, tag="*")
        group = erp.post("items", {"displayName": "Peg", "taxGroupCode": "NOWHERE"})
        by_id = erp.post("items", {"displayName": "Peg", "taxGroupId": str(uuid.uuid4())})

        assert (400, "Application_DialogException") == error_code(area) == error_code(group) == error_code(by_id)
        assert 'The "taxGroupCode" does not match to a Tax Group.' in group.json()["error"]["message"]
        assert 'The "taxGroupId" does not match to a Tax Group.' in by_id.json()["error"]["message"]

    def test_code_and_id_of_an_item_s_groups_follow_from_each_other(self, erp: Client):
        """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_item"""
        group = one(erp, "inventoryPostingGroups", "RESALE")
        product = one(erp, "generalProductPostingGroups", "RETAIL")
        body = {"displayName": "Peg", "taxGroupCode": "TAXABLE", "inventoryPostingGroupId": group["id"]}
        item = erp.post("items", {**body, "generalProductPostingGroupCode": "RETAIL"}).json()
        expanded = erp.get(f"items({item['id']})?$expand=inventoryPostingGroup,generalProductPostingGroup").json()

        assert (one(erp, "taxGroups", "TAXABLE")["id"], "RESALE", product["id"]) == (
            item["taxGroupId"],
            item["inventoryPostingGroupCode"],
            item["generalProductPostingGroupId"],
        )
        assert ("RESALE", "RETAIL") == (
            expanded["inventoryPostingGroup"]["code"],
            expanded["generalProductPostingGroup"]["code"],
        )


class TestPairs:
    """Texts of the public source of the pages, where id and code are not of the same record.

    learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_salesorder
    """

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            ({"customerNumber": "C00020"}, "The sell-to customer values do not match to a specific Customer."),
            (
                {"billToCustomerNumber": "C00020"},
                "The bill-to customer values do not match to a specific Customer.",
            ),
            ({"currencyCode": "GBP"}, "The currency values do not match to a specific Currency."),
        ],
    )
    def test_that_disagree_are_refused(self, erp: Client, body: dict, text: str):
        first = erp.rows("customers?$filter=number eq 'C00010'")[0]["id"]
        euro = one(erp, "currencies", "EUR")["id"]
        given = {"customerId": first, "billToCustomerId": first, "currencyId": euro, **body}
        reply = erp.post("salesOrders", given)

        assert (400, True) == (reply.status_code, text in reply.json()["error"]["message"])

    def test_of_a_customer_to_bill_that_is_not_there_are_refused(self, erp: Client, customer):
        body = {"customerId": customer["id"], "billToCustomerNumber": "NOBODY"}

        assert "The bill-to customer cannot be found." in erp.post("salesOrders", body).json()["error"]["message"]


class TestLines:
    """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_salesorderline"""

    def test_may_be_of_an_account(self, erp: Client, order):
        account = one(erp, "accounts", "40250", "number")
        by_number = {"lineType": "Account", "lineObjectNumber": "40250", "quantity": 1, "unitPrice": 12.5}
        line = erp.post(f"salesOrders({order['id']})/salesOrderLines", by_number).json()
        other = erp.post(f"salesOrders({order['id']})/salesOrderLines", {"accountId": account["id"]}).json()

        assert (account["id"], "Freight charged", 12.5) == (line["accountId"], line["description"], line["netAmount"])
        assert ("Account", "40250") == (other["lineType"], other["lineObjectNumber"])
        assert "40250" == erp.get(f"salesOrderLines({line['id']})/account").json()["number"]

    @pytest.mark.parametrize(
        ("number", "text"),
        [("99999", "Account does not exist."), ("10400", "Direct Posting must be"), ("10000", "Account Type must be")],
    )
    def test_of_an_account_that_takes_no_lines_are_refused(self, erp: Client, order, number: str, text: str):
        """Texts of the public source of the pages (APIV2 - Sales Order Lines) and of the table of accounts."""
        body = {"lineType": "Account", "lineObjectNumber": number}
        reply = erp.post(f"salesOrders({order['id']})/salesOrderLines", body)

        assert (400, True) == (reply.status_code, text in reply.json()["error"]["message"])

    def test_are_of_an_item_or_an_account(self, erp: Client, order):
        item, account = erp.rows("items?$top=1")[0], one(erp, "accounts", "40250", "number")
        body = {"itemId": item["id"], "accountId": account["id"]}
        reply = erp.post(f"salesOrders({order['id']})/salesOrderLines", body)

        assert 'Both "itemId" and "accountId" are specified' in reply.json()["error"]["message"]

    @pytest.mark.parametrize(
        ("name", "value", "text"),
        [
            ("lineObjectNumber", "10100", 'The value for "lineObjectNumber" cannot be modified.'),
            ("sequence", 7, "The value for sequence cannot be modified. Delete and insert the line again."),
            ("documentId", "11111111-1111-4111-8111-111111111111", 'The value for "documentId" cannot be modified.'),
        ],
    )
    def test_keep_their_place_and_what_they_are_of(self, erp: Client, order, name: str, value: object, text: str):
        """Texts of the public source of the pages (APIV2 - Sales Order Lines)."""
        body = {"lineType": "Account", "lineObjectNumber": "40250"}
        line = erp.post(f"salesOrders({order['id']})/salesOrderLines", body).json()
        reply = erp.patch(f"salesOrderLines({line['id']})", {name: value}, tag="*")

        assert (400, True) == (reply.status_code, text in reply.json()["error"]["message"])
        assert 200 == erp.patch(f"salesOrderLines({line['id']})", {name: line[name]}, tag="*").status_code

    def test_may_be_of_a_resource(self, erp: Client, order):
        custom = erp.base.replace("/api/v2.0", "/api/drawbar/integration/v1.0")
        body = {"displayName": "Fitter", "baseUnitOfMeasureCode": "HOUR", "unitPrice": 80}
        resource = erp.post(f"{custom}/resources", body).json()
        line = {"lineType": "Resource", "lineObjectNumber": resource["number"], "quantity": 2}
        made = erp.post(f"salesOrders({order['id']})/salesOrderLines", line).json()

        assert ("Resource", "Fitter", "HOUR", 80, 160) == tuple(
            made[name] for name in ("lineType", "description", "unitOfMeasureCode", "unitPrice", "netAmount")
        )

    def test_are_at_a_location(self, erp: Client, order):
        """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_location"""
        item, east = erp.rows("items?$top=1")[0], one(erp, "locations", "EAST")
        address = f"salesOrders({order['id']})/salesOrderLines"
        line = erp.post(address, {"itemId": item["id"], "locationId": east["id"]}).json()
        nowhere = erp.post(address, {"itemId": item["id"], "locationId": str(uuid.uuid4())})
        expanded = erp.get(f"{address}?$expand=location($select=code)").json()["value"][0]

        assert ("EAST", "EAST") == (
            expanded["location"]["code"],
            erp.get(f"salesOrderLines({line['id']})/location").json()["code"],
        )
        assert (400, "Application_DialogException") == error_code(nowhere)
