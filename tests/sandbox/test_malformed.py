"""What no client should send is answered as a client's fault, never as the server's."""

from __future__ import annotations

import pytest

from drawbar.sandbox.erp_model import CUSTOM, entity_sets
from tests.sandbox.client import Client

FILTERS = [
    "(",
    "name",
    "nope eq 1",
    "'a' eq",
    "eq eq eq",
    "number lt taxLiable",
    "name lt donotfax",
    "contains(1,2)",
    "any(x:x eq 1)",
    "lastModifiedDateTime gt 2026-13-45T99:99:99Z",
    "createdon gt 0001-01-01T00:00:00+14:00",
    "Microsoft.Dynamics.CRM.In(PropertyName=",
    "Microsoft.Dynamics.CRM.Under(PropertyName='name')",
    "'" + "x" * 20_000,
]
VALUES = [5, True, {"a": 1}, "x" * 400, 1e300, "9999-12-31T23:59:59-14:00"]
# Python's own reader takes each of these.
NO_JSON = [
    b'{"displayName": "\\ud800", "name": "\\ud800"}',
    b'{"balance": NaN, "revenue": NaN}',
    b'{"revenue": -Infinity}',
]


class TestMalformed:
    @pytest.mark.parametrize("filter_", FILTERS)
    def test_a_filter_is_a_bad_request(self, erp: Client, crm: Client, filter_: str):
        for client, path in ((erp, "customers"), (crm, "accounts")):
            assert 400 == client.get(path, params={"$filter": filter_}).status_code

    @pytest.mark.parametrize("value", VALUES)
    def test_a_value_is_taken_or_refused(self, erp: Client, crm: Client, value):
        customer = erp.get("customers?$top=1").json()["value"][0]
        account = crm.get("accounts?$top=1").json()["value"][0]
        for name in customer:
            assert erp.patch(f"customers({customer['id']})", {name: value}, tag="*").status_code < 500, name
        for name in account:
            assert crm.patch(f"accounts({account['accountid']})", {name: value}).status_code < 500, name

    @pytest.mark.parametrize("body", [b"{", b"[]", b"null", b"\xff", b'"text"', *NO_JSON])
    def test_a_body_is_a_bad_request(self, erp: Client, crm: Client, body: bytes):
        assert 400 == erp.send("POST", "customers", data=body).status_code
        assert 400 == crm.send("POST", "accounts", data=body).status_code

    @pytest.mark.parametrize("value", [*VALUES, None, [], "", {"Targets": 1}, [[]]])
    def test_a_body_of_many_is_a_clients_fault(self, erp: Client, crm: Client, value):
        targets = {"Targets": [{"@odata.type": "Microsoft.Dynamics.CRM.account", "accountid": value, "name": value}]}
        for message in ("CreateMultiple", "UpdateMultiple", "UpsertMultiple"):
            path = f"accounts/Microsoft.Dynamics.CRM.{message}"
            assert crm.post(path, {"Targets": value}).status_code in (200, 204, 400, 404)
            assert crm.post(path, targets).status_code in (200, 204, 400, 404)
        keys = "EntityDefinitions(LogicalName='account')/Keys"
        assert 400 == crm.post(keys, {"SchemaName": "k", "KeyAttributes": value}).status_code
        for body in ({"requests": value}, {"requests": [value]}, {"requests": [{"method": value, "url": value}]}):
            assert erp.post(f"{erp.root}/$batch", body).status_code in (200, 400)
        for body in ({"requests": [{"url": "companies", "headers": value}]}, {"requests": [{"body": value}]}):
            assert erp.post(f"{erp.root}/$batch", body).status_code in (200, 400)
        for name in ("itemVariants", "nope"):
            assert 400 == erp.post("items", {"displayName": "N", name: value or 5}).status_code

    @pytest.mark.parametrize("value", VALUES)
    def test_a_value_of_a_document_is_taken_or_refused(self, erp: Client, value):
        body = {"customerId": erp.rows("customers?$top=1")[0]["id"]}
        order = erp.post("salesOrders", body).json()
        line = erp.post(f"salesOrders({order['id']})/salesOrderLines", {"quantity": 1}).json()
        for set_name, row in (("salesOrders", order), ("salesOrderLines", line)):
            for name in row:
                assert erp.patch(f"{set_name}({row['id']})", {name: value}, tag="*").status_code < 500, name
        for name in erp.rows("contacts?$top=1")[0]:
            assert erp.post("contacts", {"displayName": "N", name: value}).status_code < 500, name
        erp.delete(f"salesOrders({order['id']})", tag="*")

    @pytest.mark.parametrize("value", [*VALUES, None, -1, "", []])
    def test_a_value_of_a_contact_or_an_opportunity_is_taken_or_refused(self, erp: Client, value):
        person = erp.rows("customerContacts?$top=1")[0]
        opportunity = erp.post("opportunities", {"description": "N"}).json()
        for name in person:
            assert erp.patch(f"customerContacts({person['id']})", {name: value}, tag="*").status_code < 500, name
        for name in opportunity:
            assert erp.patch(f"opportunities({opportunity['id']})", {name: value}, tag="*").status_code < 500, name
            assert erp.post("opportunities", {name: value}).status_code < 500, name

    @pytest.mark.parametrize("value", [*VALUES, None, -1, "", [], "PCS", "Item", "2026-02-30"])
    def test_a_value_of_a_partners_page_is_taken_or_refused(self, erp: Client, value):
        base = erp.base.replace("/api/v2.0", f"/api/{CUSTOM}")
        item = erp.rows("items?$top=1")[0]["number"]
        of_list = erp.post(f"{base}/priceLists", {}).json()["code"]
        bodies = {
            "resources": {},
            "shippingAgents": {"code": "MAL"},
            "customerPriceGroups": {"code": "MAL"},
            "priceLists": {},
            "priceListLines": {"priceListCode": of_list, "assetNumber": item},
            "itemUnitsOfMeasure": {"itemNumber": item, "code": "KG"},
            "resourceUnitsOfMeasure": {"code": "KG"},
        }
        for set_name, body in bodies.items():
            for name in entity_sets()[set_name].columns:
                made = erp.post(f"{base}/{set_name}", {**body, name: value})
                assert made.status_code < 500, (set_name, name)
                if made.status_code == 201:
                    path = f"{base}/{set_name}({made.json()['id']})"
                    for other in bodies["priceListLines"], {"status": "Active"}, {name: value}:
                        assert erp.patch(path, other, tag="*").status_code < 500, (set_name, name)
                    assert erp.delete(path, tag="*").status_code < 500, (set_name, name)

    @pytest.mark.parametrize(
        "query", ["$filter=(", "$filter=name gt 5", "$orderby=nope", "$top=x", "$select=nope", "$apply=x"]
    )
    def test_a_query_of_the_companies_is_a_bad_request(self, erp: Client, query: str):
        assert 400 == erp.get(f"{erp.root}/companies?{query}").status_code

    @pytest.mark.parametrize("path", ["customers(1", "accounts(x)", "a/b/c", "customers()", "%00", "accounts('a/b')"])
    def test_an_address_is_a_clients_fault(self, erp: Client, crm: Client, path: str):
        assert 400 <= erp.get(path).status_code < 500
        assert 400 <= crm.get(path).status_code < 500
