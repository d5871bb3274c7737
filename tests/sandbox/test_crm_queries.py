"""What a query of Dataverse may ask beyond a table's own rows, fact by fact."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest

from tests.sandbox.catalogue import a_name, key, made
from tests.sandbox.client import Client, Control, error_code
from tests.sandbox.test_crm_batch import PATH, operation, replies, send

FORMATTED = "OData.Community.Display.V1.FormattedValue"


class Family:
    """Accounts of a city of their own, and the contacts of the first."""

    def __init__(self, crm: Client) -> None:
        self.city = f"City {uuid.uuid4().hex[:8]}"
        self.account = made(crm, "accounts", {"name": a_name("A"), "address1_city": self.city, "revenue": 100})
        self.other = made(crm, "accounts", {"name": a_name("B"), "address1_city": self.city, "revenue": 20.5})
        self.contacts = [
            made(
                crm,
                "contacts",
                {"lastname": f"Last {at}", "jobtitle": job, "parentcustomerid_account@odata.bind": f"/{self.account}"},
            )
            for at, job in enumerate(("Buyer", "Buyer", "Clerk"))
        ]
        crm.patch(self.account, {"primarycontactid@odata.bind": f"/{self.contacts[0]}"})
        self.here = f"address1_city eq '{self.city}'"


@pytest.fixture
def family(crm: Client) -> Family:
    return Family(crm)


def found(crm: Client, path: str) -> set[str]:
    return {row["accountid"] for row in crm.rows(path)}


class TestApply:
    """learn.microsoft.com/power-apps/developer/data-platform/webapi/query/aggregate-data"""

    def test_groups_rows_and_adds_them_up(self, crm: Client, family: Family):
        """Sum of revenue based on status"""
        steps = f"filter({family.here})/groupby((statuscode),aggregate(revenue with sum as total,$count as n))"
        reply = crm.get(f"accounts?$apply={steps}", prefer=f'odata.include-annotations="{FORMATTED}"')

        assert {
            "statuscode": 1,
            f"statuscode@{FORMATTED}": "Active",
            "total": 120.5,
            f"total@{FORMATTED}": "$120.50",
            "n": 2,
            f"n@{FORMATTED}": "2",
        } == reply.json()["value"][0]

    @pytest.mark.parametrize(
        ("expression", "value"),
        [
            ("revenue with average as x", 60.25),
            ("revenue with min as x", 20.5),
            ("revenue with max as x", 100),
            ("$count as x", 2),
        ],
    )
    def test_aggregates_all_rows_to_one(self, crm: Client, family: Family, expression, value):
        """Aggregate sum of revenue"""
        rows = crm.rows(f"accounts?$apply=filter({family.here})/aggregate({expression})")

        assert [{"x": value}] == rows

    def test_groups_by_a_column_behind_a_lookup_and_names_it_after_its_table(self, crm: Client, family: Family):
        """Total account revenue by primary contact name"""
        steps = f"filter({family.here})/groupby((primarycontactid/fullname),aggregate(revenue with sum as total))"
        rows = crm.rows(f"accounts?$apply={steps}")

        assert [{"total": 20.5}, {"contact_fullname": "Last 0", "total": 100}] == rows

    def test_gives_distinct_values_in_the_order_of_a_group(self, crm: Client, family: Family):
        """Distinct column values"""
        steps = f"filter(_parentcustomerid_value eq {key(family.account)})/groupby((jobtitle))"
        rows = crm.rows(f"contacts?$apply={steps}&$orderby=jobtitle desc&$top=1")

        assert [{"jobtitle": "Clerk"}] == rows

    def test_money_of_several_currencies_is_added_up_in_the_base_currency(self, crm: Client, family: Family):
        euro = crm.rows("transactioncurrencies?$filter=isocurrencycode eq 'EUR'")[0]
        bind = {"transactioncurrencyid@odata.bind": f"/transactioncurrencies({euro['transactioncurrencyid']})"}
        made(crm, "accounts", {"name": "C", "address1_city": family.city, "revenue": 50, **bind})
        rows = crm.rows(f"accounts?$apply=filter({family.here})/aggregate(revenue with sum as x)")

        assert round(120.5 + 50 / euro["exchangerate"], 2) == rows[0]["x"]

    @pytest.mark.parametrize(
        "query",
        [
            "$apply=groupby((createdon))",
            "$apply=aggregate(accountid with countdistinct as n)",
            "$apply=groupby((statuscode),aggregate($count as n))&$orderby=n",
            "$apply=groupby((statuscode))/filter(statuscode eq 1)",
            "$apply=groupby((nothing))",
            "$apply=aggregate(name with sum as n)",
            "$apply=filter(statuscode eq 1)",
            "$apply=groupby((statuscode))&$filter=statuscode eq 1",
            "$apply=concat(aggregate($count as n))",
        ],
    )
    def test_refuses_what_it_does_not_know(self, crm: Client, query):
        """OData aggregation limitations"""
        assert (400, "0x80060888") == error_code(crm.get(f"accounts?{query}"))

    def test_needs_the_right_to_read_the_table_behind_a_lookup(self, crm: Client, control: Control, info):
        """A row is read by who has the privilege for its table.

        learn.microsoft.com/power-apps/developer/data-platform/security-model
        """
        rule = {"system": "crm", "app": info["crm"]["client_id"], "entity": "contact", "operation": "read"}
        control("POST", "grants", {**rule, "allowed": False})
        replies = [
            crm.get(f"accounts?{query}")
            for query in ("$apply=groupby((primarycontactid/fullname))", "$expand=primarycontactid", "$top=1")
        ]
        control("POST", "grants", {**rule, "allowed": True})

        assert [403, 403, 200] == [reply.status_code for reply in replies]


class TestLambda:
    """learn.microsoft.com/power-apps/developer/data-platform/webapi/query/filter-rows"""

    @pytest.mark.parametrize(
        ("condition", "first", "second"),
        [
            ("contact_customer_accounts/any(c:c/jobtitle eq 'clerk')", True, False),
            ("contact_customer_accounts/any(c:c/jobtitle eq 'Cook')", False, False),
            ("contact_customer_accounts/any()", True, False),
            ("not contact_customer_accounts/any()", False, True),
            ("contact_customer_accounts/all(c:c/statecode eq 0)", True, True),
            ("contact_customer_accounts/all(c:c/jobtitle eq 'Buyer')", False, True),
            ("contact_customer_accounts/any(c:startswith(c/lastname,'Last') and c/jobtitle eq 'Clerk')", True, False),
            (
                "contact_customer_accounts/any(c:c/account_primary_contact/any(a:startswith(a/name,'A')))",
                True,
                False,
            ),
            ("contact_customer_accounts/any(c:c/parentcustomerid_account/statecode eq 0)", True, False),
        ],
    )
    def test_asks_of_the_rows_of_a_collection(self, crm: Client, family: Family, condition, first, second):
        """Filter using values of related collections"""
        rows = found(crm, f"accounts?$filter={family.here} and {condition}")

        assert (first, second) == (key(family.account) in rows, key(family.other) in rows)

    @pytest.mark.parametrize(
        "condition",
        [
            "primarycontactid/contact_customer_contacts/any()",
            "nothing/any()",
            "contact_customer_accounts/any(c:name eq 'x')",
            "contact_customer_accounts/all()",
            "contact_customer_accounts/any(c:c)",
        ],
    )
    def test_refuses_what_it_does_not_know(self, crm: Client, condition):
        """Conditions on collections that are nested in a lookup are not supported."""
        assert (400, "0x80060888") == error_code(crm.get(f"accounts?$filter={condition}"))


class TestQueryFunction:
    """learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/queryfunctions"""

    @pytest.fixture
    def crm(self, info, control: Control) -> Iterator[Client]:
        """On a Wednesday at noon."""
        control("POST", "clock", {"set": "2027-03-31T12:00:00Z", "rate": 0})
        client = Client(info, "crm")
        yield client
        client.close()
        control("POST", "clock", {"reset": True})

    @pytest.mark.parametrize(
        ("function", "days"),
        [
            ("Today(PropertyName='lastonholdtime')", [0]),
            ("Yesterday(PropertyName='lastonholdtime')", [-1]),
            ("Tomorrow(PropertyName='lastonholdtime')", [1]),
            ("Last7Days(PropertyName='lastonholdtime')", [-7, -3, -1]),
            ("ThisWeek(PropertyName='lastonholdtime')", [-3, -1, 0, 1]),
            ("LastWeek(PropertyName='lastonholdtime')", [-7]),
            ("NextWeek(PropertyName='lastonholdtime')", []),
            ("LastMonth(PropertyName='lastonholdtime')", [-31]),
            ("ThisMonth(PropertyName='lastonholdtime')", [-7, -3, -1, 0]),
            ("NextMonth(PropertyName='lastonholdtime')", [1]),
            ("LastYear(PropertyName='lastonholdtime')", [-365]),
            ("LastXDays(PropertyName='lastonholdtime',PropertyValue=3)", [-3, -1]),
            ("LastXMonths(PropertyName='lastonholdtime',PropertyValue='1')", [-31, -7, -3, -1]),
            ("LastXHours(PropertyName='lastonholdtime',PropertyValue=24)", [-1]),
            ("NextXDays(PropertyName='lastonholdtime',PropertyValue=1)", [0, 1]),
            ("OlderThanXWeeks(PropertyName='lastonholdtime',PropertyValue=4)", [-365, -31]),
            ("On(PropertyName='lastonholdtime',PropertyValue='2027-03-30')", [-1]),
            ("OnOrAfter(PropertyName='lastonholdtime',PropertyValue='2027-03-31')", [0, 1]),
            ("OnOrBefore(PropertyName='lastonholdtime',PropertyValue='2026-12-31')", [-365]),
            ("Between(PropertyName='lastonholdtime',PropertyValues=['2027-03-28','2027-03-31'])", [-3, -1]),
        ],
    )
    def test_finds_days(self, crm: Client, function, days):
        name = uuid.uuid4().hex
        for day in (-365, -31, -7, -3, -1, 0, 1):
            at = _day(day)
            made(crm, "accounts", {"name": name, "numberofemployees": day + 365, "lastonholdtime": at})
        query = f"accounts?$filter=name eq '{name}' and Microsoft.Dynamics.CRM.{function}&$select=numberofemployees"

        assert days == sorted(row["numberofemployees"] - 365 for row in crm.rows(query))

    def test_takes_numbers_as_text_in_double_quotes(self, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/query/filter-rows: the example of Between"""
        name = uuid.uuid4().hex
        for number in (4, 5, 2000, 2001):
            made(crm, "accounts", {"name": name, "numberofemployees": number})
        inside, outside = (
            crm.rows(
                f"accounts?$filter=name eq '{name}' and Microsoft.Dynamics.CRM.{function}"
                '(PropertyName=\'numberofemployees\',PropertyValues=["5","2000"])&$orderby=numberofemployees'
            )
            for function in ("Between", "NotBetween")
        )

        assert [5, 2000] == [row["numberofemployees"] for row in inside]
        assert [4, 2001] == [row["numberofemployees"] for row in outside]

    def test_takes_its_values_from_parameter_aliases(self, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/query/filter-rows: Manage single quotes"""
        name = f"O'Bryan {uuid.uuid4().hex}"
        made(crm, "contacts", {"lastname": name})
        query = "$filter=Microsoft.Dynamics.CRM.In(PropertyName=@p1,PropertyValues=@p10)&@p1='lastname'"
        rows = crm.rows(f'contacts?{query}&@p10=["x","{name}"]')

        assert [name] == [row["lastname"] for row in rows]

    def test_knows_the_caller(self, info, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/equaluserid
        learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/equalbusinessid
        """
        name = uuid.uuid4().hex
        made(crm, "accounts", {"name": name})
        other = Client(info, "crm", other=True)
        counts = [
            [
                len(who.rows(f"accounts?$filter=name eq '{name}' and Microsoft.Dynamics.CRM.{function}"))
                for function in (
                    "EqualUserId(PropertyName='_ownerid_value')",
                    "NotEqualUserId(PropertyName='_ownerid_value')",
                    "EqualBusinessId(PropertyName='_owningbusinessunit_value')",
                )
            ]
            for who in (crm, other)
        ]
        other.close()

        assert [[1, 0, 1], [0, 1, 1]] == counts

    @pytest.mark.parametrize(
        "function",
        [
            "Under(PropertyName='accountid',PropertyValue='x')",
            "ThisFiscalYear(PropertyName='createdon')",
            "Today(PropertyName='name')",
            "LastXDays(PropertyName='createdon',PropertyValue=0)",
            "LastXYears(PropertyName='createdon',PropertyValue=99999)",
            "Between(PropertyName='numberofemployees',PropertyValues=[1])",
            "In(PropertyName='name',PropertyValue='x')",
        ],
    )
    def test_refuses_what_it_does_not_know(self, crm: Client, function):
        reply = crm.get(f"accounts?$filter=Microsoft.Dynamics.CRM.{function}")

        assert (400, "0x80060888") == error_code(reply)


def _day(days: int) -> str:
    """In the evening, so many days from the last of March 2027."""
    return {
        -365: "2026-03-31T18:00:00Z",
        -31: "2027-02-28T18:00:00Z",
        -7: "2027-03-24T18:00:00Z",
        -3: "2027-03-28T18:00:00Z",
        -1: "2027-03-30T18:00:00Z",
        0: "2027-03-31T18:00:00Z",
        1: "2027-04-01T18:00:00Z",
    }[days]


class TestWildcards:
    @pytest.mark.parametrize(
        ("condition", "found_names"),
        [
            ("contains(name,'a%c')", {"abc", "a_c", "axxc"}),
            ("contains(name,'a_c')", {"abc", "a_c"}),
            ("contains(name,'a[_]c')", {"a_c"}),
            ("contains(name,'a[^_]c')", {"abc"}),
            ("startswith(name,'%xc')", {"axxc"}),
            ("endswith(name,'A.C')", set()),
            ("contains(name,'ax')", {"axxc"}),
        ],
    )
    def test_stand_for_other_text_in_text_functions(self, crm: Client, condition, found_names):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/query/filter-rows: Use wildcard characters"""
        city = uuid.uuid4().hex
        for name in ("abc", "a_c", "axxc", "other"):
            made(crm, "accounts", {"name": name, "address1_city": city})
        rows = crm.rows(f"accounts?$filter=address1_city eq '{city}' and {condition}".replace("%", "%25"))

        assert found_names == {row["name"] for row in rows}


class TestExpand:
    """learn.microsoft.com/power-apps/developer/data-platform/webapi/query/join-tables"""

    def test_goes_on_from_row_to_row(self, crm: Client, family: Family):
        """Nested expand of single-valued navigation properties"""
        inner = "primarycontactid($select=fullname;$expand=parentcustomerid_account($select=name))"
        body = crm.get(f"{family.account}?$select=name&$expand={inner}").json()

        assert body["name"] == body["primarycontactid"]["parentcustomerid_account"]["name"]
        assert body["@odata.context"].endswith(
            "#accounts(name,primarycontactid(fullname,parentcustomerid_account(name)))/$entity"
        )

    def test_a_collection_has_a_link_to_itself(self, crm: Client, family: Family):
        """Single $expand on collection-valued navigation properties"""
        inner = "contact_customer_accounts($select=lastname;$filter=jobtitle eq 'Buyer';$orderby=lastname desc)"
        body = crm.get(f"{family.account}?$select=name&$expand={inner}").json()
        expanded = [row["lastname"] for row in body["contact_customer_accounts"]]

        assert ["Last 1", "Last 0"] == expanded
        assert expanded == [row["lastname"] for row in crm.rows(body["contact_customer_accounts@odata.nextLink"])]

    def test_nested_collections_are_paged(self, crm: Client, family: Family):
        """Nested $expand on collection-valued navigation properties"""
        inner = "contact_customer_accounts($select=lastname;$expand=owninguser($select=fullname))"
        query = f"accounts?$select=name&$filter={family.here} and statecode eq 0&$expand={inner}&$orderby=name"
        row = crm.get(query, prefer="odata.maxpagesize=2").json()["value"][0]
        more = crm.rows(row["contact_customer_accounts@odata.nextLink"], prefer="odata.maxpagesize=2")

        assert (2, 1) == (len(row["contact_customer_accounts"]), len(more))
        assert {"Last 0", "Last 1", "Last 2"} == {
            child["lastname"] for child in (*row["contact_customer_accounts"], *more)
        }
        assert "owninguser" in more[0]

    def test_shows_the_address_alone_of_a_lookup(self, crm: Client, family: Family):
        """Return references"""
        body = crm.get(f"{family.account}?$select=name&$expand=primarycontactid/$ref").json()

        assert {"@odata.id": f"{crm.root}/{family.contacts[0]}"} == body["primarycontactid"]
        assert key(family.contacts[0]) == body["_primarycontactid_value"]

    @pytest.mark.parametrize(
        ("expand", "text"),
        [
            ("contact_customer_accounts/$ref", "only supported on lookup type"),
            ("primarycontactid($top=1)", "Only $select and $filter clause"),
            ("contact_customer_accounts($top=1;$expand=owninguser)", "Only $select and $filter clause"),
            ("contact_customer_accounts($skip=1)", "not supported"),
            ("nothing", "Could not find a property"),
            ("ownerid($select=fullname)", "Microsoft.Dynamics.CRM.principal"),
            (",".join(["primarycontactid"] * 16), "up to 15"),
        ],
    )
    def test_has_limits(self, crm: Client, expand, text):
        reply = crm.get(f"accounts?$expand={expand}")

        assert (400, "0x80060888") == error_code(reply)
        assert text in reply.json()["error"]["message"]


class TestParts:
    """Of a row, by address."""

    def test_a_reference_is_read_by_itself(self, crm: Client, family: Family):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/query/join-tables: Return references"""
        single = crm.get(f"{family.account}/primarycontactid/$ref").json()
        several = crm.get(f"{family.account}/contact_customer_accounts/$ref").json()

        assert f"{crm.root}/{family.contacts[0]}" == single["@odata.id"]
        assert {f"{crm.root}/{contact}" for contact in family.contacts} == {
            row["@odata.id"] for row in several["value"]
        }
        assert 204 == crm.get(f"{family.other}/primarycontactid/$ref").status_code

    def test_references_come_in_pages(self, crm: Client, family: Family):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/query/page-results"""
        path = f"{family.account}/contact_customer_accounts/$ref"
        first = crm.get(path, prefer="odata.maxpagesize=2").json()
        second = crm.get(first["@odata.nextLink"], prefer="odata.maxpagesize=2").json()

        assert (2, 1) == (len(first["value"]), len(second["value"]))
        assert 3 == len({row["@odata.id"] for row in (*first["value"], *second["value"])})
        assert 1 == len(crm.get(f"{path}?$top=1").json()["value"])

    @pytest.mark.parametrize("rest", ["", "/$count"])
    def test_what_is_asked_of_a_whole_table_is_refused(self, crm: Client, family: Family, rest: str):
        """learn.microsoft.com/power-apps/developer/data-platform/use-change-tracking-synchronize-data-external-systems"""
        delta = crm.get("contacts?$select=lastname", prefer="odata.track-changes").json()["@odata.deltaLink"]
        path, options = f"{family.account}/contact_customer_accounts{rest}", delta.partition("?")[2]
        fetch = "<fetch><entity name='contact'><attribute name='lastname'/></entity></fetch>"

        assert (400, "0x80060888") == error_code(crm.get(f"{path}?{options}"))
        assert (400, "0x80060888") == error_code(crm.get(path, params={"fetchXml": fetch}))

    def test_columns_of_a_row_behind_a_lookup(self, crm: Client, family: Family):
        """Retrieve a single property value.

        learn.microsoft.com/power-apps/developer/data-platform/webapi/retrieve-entity-using-web-api
        """
        path = f"{family.contacts[1]}/parentcustomerid_account"

        assert crm.get(family.account).json()["name"] == crm.get(f"{path}/name").json()["value"]
        assert "Last 0" == crm.get(f"{path}/primarycontactid/fullname/$value").text

    def test_one_row_of_a_collection(self, crm: Client, family: Family):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/query/overview: Filtered collections"""
        child = key(family.contacts[2])

        assert child == crm.get(f"{family.account}/contact_customer_accounts({child})").json()["contactid"]
        assert 404 == crm.get(f"{family.other}/contact_customer_accounts({child})").status_code

    @pytest.mark.parametrize(
        ("column", "value"), [("donotfax", "false"), ("revenue", "100"), ("address1_city", None), ("statecode", "0")]
    )
    def test_raw_values(self, crm: Client, family: Family, column, value):
        """Retrieve the raw value of a property.

        learn.microsoft.com/power-apps/developer/data-platform/webapi/retrieve-entity-using-web-api
        """
        reply = crm.get(f"{family.account}/{column}/$value")

        assert (value or family.city) == reply.text
        assert reply.headers["Content-Type"].startswith("text/plain")

    @pytest.mark.parametrize(
        ("method", "path"), [("POST", "primarycontactid"), ("POST", "name"), ("GET", "name/other"), ("GET", "nothing")]
    )
    def test_refuses_what_is_not_there(self, crm: Client, family: Family, method, path):
        """Not found is 404, not allowed 405.

        learn.microsoft.com/power-apps/developer/data-platform/webapi/compose-http-requests-handle-errors
        """
        body: dict[str, Any] = {"json": {}} if method == "POST" else {}

        assert crm.send(method, f"{family.account}/{path}", **body).status_code in (404, 405)

    def test_one_column_is_emptied(self, crm: Client, family: Family):
        """Delete a single property value.

        learn.microsoft.com/power-apps/developer/data-platform/webapi/update-delete-entities-using-web-api
        """
        reply = crm.delete(f"{family.account}/address1_city")

        assert (204, 204) == (reply.status_code, crm.get(f"{family.account}/address1_city").status_code)


class TestCounts:
    def test_of_whole_tables_come_by_a_function(self, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/retrievetotalrecordcount"""
        counted = [int(crm.get(f"{name}/$count").text) for name in ("accounts", "contacts")]
        direct = crm.get("RetrieveTotalRecordCount(EntityNames=['account','contact'])").json()
        aliased = crm.get('RetrieveTotalRecordCount(EntityNames=@p)?@p=["account","contact"]').json()

        assert direct == aliased
        assert {"Count": 2, "IsReadOnly": False, "Keys": ["account", "contact"], "Values": counted} == (
            direct["EntityRecordCountCollection"]
        )
        assert 404 == crm.get("RetrieveTotalRecordCount(EntityNames=['nothing'])").status_code
        assert 400 == crm.get("RetrieveTotalRecordCount(EntityNames=[['account']])").status_code


class TestConditionalRead:
    def test_is_never_unmodified_with_an_expand(self, crm: Client, family: Family):
        """Query must not include $expand.

        learn.microsoft.com/power-apps/developer/data-platform/webapi/perform-conditional-operations-using-web-api
        """
        tag = crm.get(family.account).json()["@odata.etag"]
        statuses = [
            crm.get(f"{family.account}{query}", headers={"If-None-Match": value}).status_code
            for query, value in (("", tag), ("?$expand=primarycontactid", tag), ("", "null"), ("", 'W/"1"'))
        ]

        assert [304, 200, 200, 200] == statuses


def test_a_page_of_an_expanded_collection_names_its_table(crm: Client, family: Family):
    """webapi/query/page-results"""
    inner = "contact_customer_accounts($expand=owninguser)"
    body = crm.get(f"accounts?$filter={family.here}&$expand={inner}&$orderby=name", prefer="odata.maxpagesize=1").json()
    link = body["value"][0]["contact_customer_accounts@odata.nextLink"]

    assert link.startswith(f"{crm.root}/{family.account}/contact_customer_accounts?")
    assert "<contactid last=" in unquote(unquote(unquote(link)))


def test_an_address_has_an_end(crm: Client):
    """webapi/compose-http-requests-handle-errors: 32 KB of an address, 64 KB in a batch"""
    query = f"{PATH}/accounts?$select=name&$filter=name+eq+'{'x' * 40_000}'"
    in_batch = send(crm, operation("GET", query))

    assert 414 == crm.get(f"accounts?{query.partition('?')[2]}").status_code
    assert [[200]] == [[status for status, _, _ in part] for part in replies(in_batch)]
    assert 414 == send(crm, operation("GET", query + "x" * 40_000)).status_code


@pytest.mark.parametrize(
    ("condition", "refusal"),
    [
        (" or ".join(["name eq 'x'"] * 500), None),
        (" or ".join(["name eq 'x'"] * 501), (400, "0x8004430C")),
        ("(" * 2000 + "name eq 'x'" + ")" * 2000, (400, "0x80060888")),
    ],
)
def test_a_filter_has_limits(crm: Client, condition, refusal):
    """learn.microsoft.com/power-apps/developer/data-platform/fetchxml/filter-rows: Condition limits"""
    reply = crm.get("accounts", params={"$filter": condition, "$top": "1"})

    assert refusal == (None if reply.status_code == 200 else error_code(reply))
