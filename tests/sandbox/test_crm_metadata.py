"""What Dataverse tells of its actions, functions and messages, fact by fact; each test names the page it models."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest

from tests.sandbox.client import Client, Info, error_code

EDM = "{http://docs.oasis-open.org/odata/ns/edm}"
BULK = {"account", "contact", "uomschedule", "product", "pricelevel", "salesorder", "salesorderdetail", "quote",
        "quotedetail", "invoice", "invoicedetail", "opportunity"}  # fmt: skip
NOT_BULK = {"transactioncurrency", "uom", "productpricelevel", "annotation"}


@pytest.fixture(scope="module")
def schema(crm: Client) -> ET.Element:
    reply = crm.get("$metadata")
    assert "application/xml" == reply.headers["Content-Type"]
    found = ET.fromstring(reply.content).find(f".//{EDM}Schema")
    assert found is not None
    return found


def of(schema: ET.Element, kind: str, name: str) -> list[ET.Element]:
    return [one for one in schema.iter(EDM + kind) if one.get("Name") == name]


def parameters(operation: ET.Element) -> dict[str, str]:
    return {str(one.get("Name")): str(one.get("Type")) for one in operation.iter(f"{EDM}Parameter")}


class TestOperations:
    @pytest.mark.parametrize(
        ("name", "takes", "returns"),
        [
            ("WinQuote", {"QuoteClose": "mscrm.quoteclose", "Status": "Edm.Int32"}, None),
            ("LockInvoicePricing", {"InvoiceId": "Edm.Guid"}, None),
            ("ReviseQuote", {"QuoteId": "Edm.Guid", "ColumnSet": "mscrm.ColumnSet"}, "mscrm.quote"),
            ("CalculatePrice", {"Target": "mscrm.crmbaseentity"}, None),
        ],
    )
    def test_an_action_says_what_it_takes_and_gives(self, schema, name, takes, returns):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/use-web-api-actions: $metadata"""
        action = next(one for one in of(schema, "Action", name) if one.get("IsBound") is None)
        made = action.find(f"{EDM}ReturnType")

        assert takes == parameters(action)
        assert returns == (None if made is None else made.get("Type"))
        assert f"mscrm.{name}" == of(schema, "ActionImport", name)[0].get("Action")

    def test_a_bound_action_takes_its_row_or_its_table_first(self, schema):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/use-web-api-actions: bound actions"""
        publish, *_ = of(schema, "Action", "PublishProductHierarchy")
        bulk = [parameters(one) for one in of(schema, "Action", "CreateMultiple")]

        assert ("true", {"entity": "mscrm.product"}) == (publish.get("IsBound"), parameters(publish))
        assert {"entityset": "Collection(mscrm.account)", "Targets": "Collection(mscrm.account)"} in bulk
        assert not of(schema, "ActionImport", "PublishProductHierarchy")

    def test_functions_are_told_with_their_results(self, schema):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/use-web-api-functions"""
        who, *_ = of(schema, "Function", "WhoAmI")
        response, *_ = of(schema, "ComplexType", "WhoAmIResponse")

        assert "mscrm.WhoAmIResponse" == who.find(f"{EDM}ReturnType").get("Type")
        assert ["BusinessUnitId", "UserId", "OrganizationId"] == [one.get("Name") for one in response]
        assert {"PropertyName": "Edm.String", "PropertyValues": "Collection(Edm.String)"} == parameters(
            of(schema, "Function", "In")[0]
        )

    @pytest.mark.parametrize("address", ["RetrieveVersion", "RetrieveVersion()"])
    def test_the_version_is_of_the_api_that_answers(self, crm: Client, schema, address: str):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/retrieveversion"""
        answer = crm.get(address).json()

        assert answer.pop("@odata.context").endswith("$metadata#Microsoft.Dynamics.CRM.RetrieveVersionResponse")
        assert (
            {"Version"}
            == set(answer)
            == {one.get("Name") for one in of(schema, "ComplexType", "RetrieveVersionResponse")[0]}
        )
        assert answer["Version"].startswith("9.2.")

    def test_whatever_type_is_named_is_described(self, schema):
        """docs.oasis-open.org/odata/odata-csdl-xml/v4.01: a type is in scope"""
        described = {
            f"mscrm.{one.get('Name')}" for kind in ("EntityType", "ComplexType") for one in schema.iter(EDM + kind)
        }
        named = {
            str(one.get("Type")).removeprefix("Collection(").removesuffix(")")
            for kind in ("Parameter", "ReturnType", "NavigationProperty", "Property")
            for one in schema.iter(EDM + kind)
        }

        assert set() == {name for name in named if not name.startswith("Edm.")} - described

    def test_every_set_is_in_the_service_document(self, crm: Client, schema):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/web-api-service-documents"""
        listed = crm.get("").json()

        assert {one.get("Name") for one in schema.iter(f"{EDM}EntitySet")} == {row["url"] for row in listed["value"]}
        assert {"EntitySet"} == {row["kind"] for row in listed["value"]}

    def test_a_parameter_that_an_action_does_not_have_is_refused(self, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/use-web-api-actions"""
        reply = crm.post("LockInvoicePricing", {"InvoiceId": "00000000-0000-0000-0000-000000000001", "Force": True})

        assert (400, "0x80048d19") == error_code(reply)


class TestMessages:
    @pytest.mark.parametrize("seed", ["demo", "empty"])
    def test_tell_which_tables_take_many_at_once(self, start: Callable[..., Info], seed):
        """learn.microsoft.com/power-apps/developer/data-platform/bulk-operations: availability with standard tables"""
        client = Client(start(seed=seed, limits=False), "crm")
        query = "sdkmessagefilters?$filter=sdkmessageid/name eq '{}'&$select=primaryobjecttypecode"
        create, update, upsert = (
            {row["primaryobjecttypecode"] for row in client.rows(query.format(f"{word}Multiple"))}
            for word in ("Create", "Update", "Upsert")
        )
        client.close()

        assert (set(), create) == (upsert, update)
        assert (BULK, set()) == (BULK & create, NOT_BULK & create)

    def test_are_those_that_are_taken(self, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/bulk-operations"""
        query = "sdkmessagefilters?$filter=sdkmessageid/name eq 'CreateMultiple'&$select=primaryobjecttypecode"
        offered = {row["primaryobjecttypecode"] for row in crm.rows(query)}
        tables = crm.get("EntityDefinitions?$select=LogicalName,EntitySetName").json()["value"]
        taken = {
            table["LogicalName"]
            for table in tables
            if error_code(crm.post(f"{table['EntitySetName']}/Microsoft.Dynamics.CRM.CreateMultiple", {}))[1]
            != "0x80040800"
        }

        assert taken == offered

    @pytest.mark.parametrize("table", ["salesorder", "product", "systemuser", "annotation"])
    def test_of_single_rows_are_those_of_every_table(self, crm: Client, table):
        """learn.microsoft.com/power-apps/developer/data-platform/register-web-hook"""
        rows = crm.rows(f"sdkmessagefilters?$filter=primaryobjecttypecode eq '{table}'&$expand=sdkmessageid")

        assert {"Create", "Update", "Delete"} <= {row["sdkmessageid"]["name"] for row in rows}


class TestDefinitions:
    BASE = "EntityDefinitions(LogicalName='account')"

    def test_are_expanded_with_what_a_table_consists_of(self, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/query-metadata-web-api: $expand"""
        expands = (
            "Attributes($select=LogicalName,AttributeType;$filter=AttributeType eq 'Owner'),Keys,"
            "ManyToOneRelationships($select=ReferencingEntityNavigationPropertyName)"
        )
        row = crm.get(f"{self.BASE}?$select=LogicalName&$expand={expands}").json()

        assert [("ownerid", "Owner")] == [(one["LogicalName"], one["AttributeType"]) for one in row["Attributes"]]
        assert "primarycontactid" in {
            one["ReferencingEntityNavigationPropertyName"] for one in row["ManyToOneRelationships"]
        }
        assert [] == row["Keys"]

    def test_of_lookups_are_those_of_owners_and_customers_too(self, crm: Client):
        """Derived for Lookup, Customer, Owner.

        learn.microsoft.com/previous-versions/dynamicscrm-2016/developers-guide/mt607661(v=crm.8)
        """
        cast = "Attributes/Microsoft.Dynamics.CRM.LookupAttributeMetadata?$select=LogicalName,AttributeType,Targets"
        rows = {
            row["LogicalName"]: row
            for row in crm.get(f"EntityDefinitions(LogicalName='contact')/{cast}").json()["value"]
        }

        assert ("Owner", ["systemuser", "team"]) == (rows["ownerid"]["AttributeType"], rows["ownerid"]["Targets"])
        assert ("Customer", "#Microsoft.Dynamics.CRM.LookupAttributeMetadata") == (
            rows["parentcustomerid"]["AttributeType"],
            rows["parentcustomerid"]["@odata.type"],
        )

    def test_have_choices_when_they_are_expanded(self, crm: Client):
        """OptionSet is a navigation property.

        learn.microsoft.com/power-apps/developer/data-platform/webapi/query-metadata-web-api
        """
        path = f"{self.BASE}/Attributes(LogicalName='statecode')/Microsoft.Dynamics.CRM.StateAttributeMetadata"
        plain = crm.get(path).json()
        expanded = crm.get(f"{path}?$select=LogicalName&$expand=OptionSet($select=Options)").json()

        assert "OptionSet" not in plain
        assert {"MetadataId", "Options"} == set(expanded["OptionSet"])
        assert [0, 1] == [option["Value"] for option in expanded["OptionSet"]["Options"]]

    @pytest.mark.parametrize("kind", ["Integer", "BigInt", "Money", "Decimal"])
    def test_of_numbers_tell_what_they_can_be(self, crm: Client, kind: str):
        """learn.microsoft.com/dotnet/api/microsoft.xrm.sdk.metadata.integerattributemetadata.maxsupportedvalue"""
        cast = f"Attributes/Microsoft.Dynamics.CRM.{kind}AttributeMetadata?$select=LogicalName,MinValue,MaxValue"
        rows = crm.get(f"{self.BASE}/{cast}").json()["value"]

        assert rows
        assert [] == [row["LogicalName"] for row in rows if not row["MinValue"] < row["MaxValue"]]

    @pytest.mark.parametrize(("path", "text"), [("ObjectTypeCode", "1"), ("EntitySetName", "accounts")])
    def test_are_read_one_by_one(self, crm: Client, path, text):
        """learn.microsoft.com/power-apps/developer/data-platform/bypass-custom-business-logic: ObjectTypeCode/$value"""
        assert text == crm.get(f"{self.BASE}/{path}/$value").text
        assert text == str(crm.get(f"{self.BASE}/{path}").json()["value"])

    @pytest.mark.parametrize(
        "query",
        ["?$top=1", "?$orderby=LogicalName", "?$select=Nothing", "?$expand=Nothing", "/Attributes?$expand=OptionSet"],
    )
    def test_refuse_what_they_do_not_know(self, crm: Client, query):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/query-metadata-web-api"""
        assert (400, "0x80060888") == error_code(crm.get(f"{self.BASE}{query}"))
        assert 404 == crm.get(f"{self.BASE}/Nothing").status_code
