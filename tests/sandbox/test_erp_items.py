"""Business Central's items, their units, categories and variants, fact by fact."""

from __future__ import annotations

import pytest

from tests.sandbox.client import Client, error_code

EMPTY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def item(erp: Client) -> dict:
    return erp.post("items", {"displayName": "Hinge", "baseUnitOfMeasureCode": "PCS", "unitPrice": 12.5}).json()


def address(row) -> str:
    return f"items({row['id']})"


class TestItem:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_item"""

    def test_has_every_property_of_its_page(self, item):
        assert 22 == len([name for name in item if not name.startswith("@")])
        assert ("Inventory", False, 0, EMPTY) == tuple(
            item[name] for name in ("type", "blocked", "inventory", "itemCategoryId")
        )

    def test_draws_its_number_from_a_series(self, item):
        assert item["number"].startswith("I-")

    def test_names_a_unit_by_id_and_by_code(self, erp: Client, item):
        box = erp.rows("unitsOfMeasure?$filter=code eq 'BOX'")[0]
        by_id = erp.patch(address(item), {"baseUnitOfMeasureId": box["id"]}, tag="*").json()
        by_code = erp.patch(address(item), {"baseUnitOfMeasureCode": "pcs"}, tag="*").json()
        none = erp.patch(address(item), {"baseUnitOfMeasureCode": ""}, tag="*").json()

        assert "BOX" == by_id["baseUnitOfMeasureCode"]
        assert (item["baseUnitOfMeasureId"], "PCS") == (
            by_code["baseUnitOfMeasureId"],
            by_code["baseUnitOfMeasureCode"],
        )
        assert EMPTY == none["baseUnitOfMeasureId"]

    def test_refuses_id_and_code_that_disagree(self, erp: Client, item):
        box = erp.rows("unitsOfMeasure?$filter=code eq 'BOX'")[0]["id"]
        body = {"baseUnitOfMeasureId": box, "baseUnitOfMeasureCode": "PCS"}

        assert (400, "Application_DialogException") == error_code(erp.patch(address(item), body, tag="*"))

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({"itemCategoryCode": "NONE"}, "Internal_InvalidTableRelation"),
            ({"itemCategoryId": "11111111-1111-4111-8111-111111111111"}, "Application_DialogException"),
            ({"displayName": ""}, "Application_DialogException"),
            ({"gtin": "1" * 15}, "Application_StringExceededLength"),
            ({"type": "Bundle"}, "Unknown"),
        ],
    )
    def test_refuses_what_does_not_fit(self, erp: Client, item, body, code):
        assert (400, code) == error_code(erp.patch(address(item), body, tag="*"))

    def test_spells_its_types_with_escapes(self, erp: Client, item):
        changed = erp.patch(address(item), {"type": "Non-Inventory"}, tag="*").json()

        assert "Non_x002D_Inventory" == changed["type"]
        assert [item["id"]] == [
            row["id"] for row in erp.rows(f"items?$filter=type eq 'Non_x002D_Inventory' and id eq {item['id']}")
        ]

    def test_expands_its_unit_category_and_variants(self, erp: Client):
        query = "items?$filter=itemCategoryCode eq 'TIMBER'&$expand=unitOfMeasure,itemCategory,itemVariants"
        rows = erp.rows(query)

        assert {"Timber"} == {row["itemCategory"]["displayName"] for row in rows}
        assert all(row["unitOfMeasure"]["code"] == row["baseUnitOfMeasureCode"] for row in rows)
        assert {0, 1, 2} == {len(row["itemVariants"]) for row in rows}


class TestInventory:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_item"""

    def test_is_refused_with_a_new_item(self, erp: Client):
        reply = erp.post("items", {"displayName": "N", "inventory": 5})

        assert (400, "Application_DialogException") == error_code(reply)
        assert "Inventory cannot be changed during on insert." in reply.json()["error"]["message"]

    def test_is_adjusted_without_moving_the_item(self, erp: Client, item):
        changed = erp.patch(address(item), {"inventory": 5}, tag="*").json()

        assert (5, item["lastModifiedDateTime"]) == (changed["inventory"], changed["lastModifiedDateTime"])
        assert item["@odata.etag"] == changed["@odata.etag"]

    def test_holds_the_base_unit_of_measure(self, erp: Client, item):
        erp.patch(address(item), {"inventory": 5}, tag="*")

        reply = erp.patch(address(item), {"baseUnitOfMeasureCode": "BOX"}, tag="*")

        assert (400, "Application_DialogException") == error_code(reply)


class TestVariant:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_itemVariant"""

    def test_has_a_code_unique_for_its_item(self, erp: Client, item):
        other = erp.post("items", {"displayName": "Other"}).json()
        first = erp.post("itemVariants", {"itemId": item["id"], "code": "red"})
        same = erp.post("itemVariants", {"itemNumber": item["number"], "code": "RED"})
        elsewhere = erp.post("itemVariants", {"itemId": other["id"], "code": "RED"})

        assert (201, "RED", item["number"]) == (first.status_code, first.json()["code"], first.json()["itemNumber"])
        assert (400, "Internal_EntityWithSameKeyExists") == error_code(same)
        assert 201 == elsewhere.status_code

    def test_needs_an_item(self, erp: Client):
        assert (400, "Application_DialogException") == error_code(erp.post("itemVariants", {"code": "RED"}))

    def test_is_made_below_its_item_and_goes_with_it(self, erp: Client, item):
        made = erp.post(f"{address(item)}/itemVariants", {"code": "BLUE"}).json()
        listed = erp.rows(f"{address(item)}/itemVariants")
        erp.delete(address(item), tag="*")

        assert (item["id"], [made["id"]]) == (made["itemId"], [row["id"] for row in listed])
        assert (404, "BadRequest_ResourceNotFound") == error_code(erp.get(f"itemVariants({made['id']})"))

    def test_follows_a_renamed_item(self, erp: Client, item):
        made = erp.post(f"{address(item)}/itemVariants", {"code": "BLUE"}).json()
        erp.patch(address(item), {"number": f"X{item['number']}"}, tag="*")

        assert f"X{item['number']}" == erp.get(f"itemVariants({made['id']})").json()["itemNumber"]


class TestUnit:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_unitOfMeasure"""

    def test_has_every_property_of_its_page(self, erp: Client):
        unit = erp.rows("unitsOfMeasure?$filter=code eq 'KG'")[0]

        assert ("Kilogram", "KGM", "") == (unit["displayName"], unit["internationalStandardCode"], unit["symbol"])
        assert 6 == len([name for name in unit if not name.startswith("@")])
