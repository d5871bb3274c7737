"""FetchXML, fact by fact: https://learn.microsoft.com/power-apps/developer/data-platform/fetchxml/overview."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, unquote

import pytest

from tests.sandbox.client import Client, error_code

ANNOTATIONS = 'odata.include-annotations="*"'
NAMES = ("Aster", "Birch", "Cedar", "Daisy", "Elder")


@pytest.fixture(scope="module")
def accounts(crm: Client) -> dict[str, str]:
    """Five accounts of one city, with numbers 10 to 50, by name; two persons of Birch, one of Cedar."""
    found = {}
    for at, name in enumerate(NAMES, start=1):
        body: dict[str, Any] = {"name": name, "address1_city": "Fetchville", "numberofemployees": at * 10}
        if at % 2:
            body["telephone1"] = f"+1 555 010{at}"
        address = crm.post("accounts", body).headers["OData-EntityId"]
        found[name] = address[address.index("(") + 1 : -1]
    for first, parent in (("Ann", "Birch"), ("Bob", "Birch"), ("Cid", "Cedar")):
        body = {
            "firstname": first,
            "lastname": "Reader",
            "parentcustomerid_account@odata.bind": f"/accounts({found[parent]})",
        }
        crm.post("contacts", body)
    return found


HERE = '<condition attribute="address1_city" operator="eq" value="fetchville"/>'


def fetched(crm: Client, inner: str, *, table: str = "account", entity_set: str = "accounts", **options: str) -> Any:
    given = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in options.items())
    xml = f'<fetch{given}><entity name="{table}">{inner}</entity></fetch>'
    return crm.get(f"{entity_set}?fetchXml={quote(xml)}", prefer=ANNOTATIONS)


def names(crm: Client, inner: str, **options: str) -> list[str]:
    inner = f'<attribute name="name"/><order attribute="name"/>{inner}'
    return [row["name"] for row in fetched(crm, inner, **options).json()["value"]]


def where(condition: str) -> str:
    return f"<filter>{HERE}{condition}</filter>"


class TestColumns:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/fetchxml/reference/attribute"""

    def test_are_those_that_are_asked_for(self, crm: Client, accounts):
        """The id comes along."""
        row = fetched(crm, f'<attribute name="name"/>{where("")}').json()["value"][0]

        assert {"name", "accountid", "@odata.etag"} == {
            name for name in row if "@" not in name or name == "@odata.etag"
        }

    def test_are_all_of_them_when_it_says_so(self, crm: Client, accounts):
        row = fetched(crm, f"<all-attributes/>{where('')}").json()["value"][0]

        assert {"_ownerid_value", "numberofemployees", "versionnumber"} <= set(row)

    def test_of_a_lookup_have_the_name_of_the_web_api(self, crm: Client, accounts):
        """Asked for by the logical name."""
        row = fetched(crm, f'<attribute name="ownerid"/>{where("")}').json()["value"][0]

        assert "_ownerid_value" in row
        assert "_ownerid_value@OData.Community.Display.V1.FormattedValue" in row

    def test_that_do_not_exist_are_refused(self, crm: Client, accounts):
        assert (400, "0x80041103") == error_code(fetched(crm, '<attribute name="nme"/>'))


class TestConditions:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/fetchxml/filter-rows"""

    @pytest.mark.parametrize(
        ("condition", "found"),
        [
            ('<condition attribute="name" operator="eq" value="aster"/>', ["Aster"]),
            ('<condition attribute="name" operator="ne" value="Aster"/>', ["Birch", "Cedar", "Daisy", "Elder"]),
            ('<condition attribute="name" operator="like" value="%e%er"/>', ["Elder"]),
            ('<condition attribute="name" operator="not-like" value="%e%"/>', ["Birch", "Daisy"]),
            ('<condition attribute="name" operator="begins-with" value="C"/>', ["Cedar"]),
            ('<condition attribute="name" operator="ends-with" value="er"/>', ["Aster", "Elder"]),
            ('<condition attribute="name" operator="like" value="[AB]%"/>', ["Aster", "Birch"]),
            ('<condition attribute="numberofemployees" operator="gt" value="30"/>', ["Daisy", "Elder"]),
            ('<condition attribute="numberofemployees" operator="le" value="20"/>', ["Aster", "Birch"]),
            (
                '<condition attribute="numberofemployees" operator="between"><value>20</value><value>30</value></condition>',
                ["Birch", "Cedar"],
            ),
            ('<condition attribute="telephone1" operator="null"/>', ["Birch", "Daisy"]),
            ('<condition attribute="telephone1" operator="not-null"/>', ["Aster", "Cedar", "Elder"]),
            (
                '<condition attribute="name" operator="in"><value>Aster</value><value>Elder</value></condition>',
                ["Aster", "Elder"],
            ),
            (
                '<condition attribute="name" operator="not-in"><value>Aster</value><value>Elder</value></condition>',
                ["Birch", "Cedar", "Daisy"],
            ),
            ('<condition attribute="createdon" operator="today"/>', list(NAMES)),
            ('<condition attribute="createdon" operator="yesterday"/>', []),
            ('<condition attribute="createdon" operator="last-x-hours" value="1"/>', list(NAMES)),
            ('<condition attribute="createdon" operator="on-or-after" value="2020-01-01"/>', list(NAMES)),
            ('<condition attribute="createdon" operator="lt" value="2020-01-01T00:00:00Z"/>', []),
            ('<condition attribute="statecode" operator="eq" value="0"/>', list(NAMES)),
            ('<condition attribute="donotemail" operator="eq" value="0"/>', list(NAMES)),
        ],
    )
    def test_find_what_they_say(self, crm: Client, accounts, condition, found):
        """Texts without regard to case; `%`, `_` and `[…]` in patterns."""
        assert found == names(crm, where(condition))

    def test_nest(self, crm: Client, accounts):
        either = (
            '<filter type="or"><condition attribute="name" operator="eq" value="Aster"/>'
            '<condition attribute="numberofemployees" operator="eq" value="50"/></filter>'
        )

        assert ["Aster", "Elder"] == names(crm, where(either))

    @pytest.mark.parametrize(
        "condition",
        [
            '<condition attribute="name" operator="resembles" value="x"/>',
            '<condition attribute="name" operator="eq"/>',
            '<condition attribute="numberofemployees" operator="eq" value="many"/>',
            '<condition attribute="createdon" operator="on" value="soon"/>',
        ],
    )
    def test_that_mean_nothing_are_refused(self, crm: Client, accounts, condition):
        assert 400 == fetched(crm, where(condition)).status_code


class TestLinks:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/fetchxml/join-tables"""

    LINK = '<link-entity name="contact" from="parentcustomerid" to="accountid" alias="person" link-type="{kind}">{inner}</link-entity>'

    def test_join_only_what_has_a_counterpart(self, crm: Client, accounts):
        """An inner link multiplies rows, as a join does."""
        link = self.LINK.format(kind="inner", inner='<attribute name="firstname"/>')
        rows = fetched(crm, f'<attribute name="name"/>{where("")}{link}').json()["value"]

        assert [("Birch", "Ann"), ("Birch", "Bob"), ("Cedar", "Cid")] == sorted(
            (row["name"], row["person.firstname"]) for row in rows
        )

    def test_keep_what_has_none_when_they_are_outer(self, crm: Client, accounts):
        link = self.LINK.format(kind="outer", inner='<attribute name="firstname"/>')
        rows = fetched(crm, f'<attribute name="name"/>{where("")}{link}').json()["value"]

        assert {"Aster", "Daisy", "Elder"} == {row["name"] for row in rows if "person.firstname" not in row}

    def test_have_filters_of_their_own(self, crm: Client, accounts):
        only = '<filter><condition attribute="firstname" operator="eq" value="Cid"/></filter>'

        assert ["Cedar"] == names(crm, where("") + self.LINK.format(kind="inner", inner=only))

    def test_tell_what_is_missing_with_a_condition_on_their_alias(self, crm: Client, accounts):
        """An outer link, and the filter of the table itself: accounts without persons."""
        link = self.LINK.format(kind="outer", inner="")
        nobody = f'{link}<filter>{HERE}<condition entityname="person" attribute="contactid" operator="null"/></filter>'

        assert ["Aster", "Daisy", "Elder"] == names(crm, nobody)

    def test_to_a_table_that_there_is_not_are_refused(self, crm: Client, accounts):
        link = '<link-entity name="ghost" from="a" to="accountid"/>'

        assert (400, "0x80041102") == error_code(fetched(crm, link))


class TestPages:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/fetchxml/page-results"""

    def test_go_on_with_the_number_of_the_page(self, crm: Client, accounts):
        """`morerecords` and the cookie come as annotations."""
        inner = f'<attribute name="name"/><order attribute="name"/>{where("")}'
        seen, page, more = [], "1", True
        while more:
            reply = fetched(crm, inner, count="2", page=page).json()
            seen.append([row["name"] for row in reply["value"]])
            more = reply["@Microsoft.Dynamics.CRM.morerecords"]
            page = str(int(page) + 1)
            if more:
                cookie = reply["@Microsoft.Dynamics.CRM.fetchxmlpagingcookie"]
                assert page == re.findall(r'pagenumber="(\d+)"', cookie)[0]
                inner_cookie = re.findall(r'pagingcookie="([^"]*)"', cookie)[0]
                assert unquote(unquote(inner_cookie)).startswith("<cookie page=")

        assert [["Aster", "Birch"], ["Cedar", "Daisy"], ["Elder"]] == seen

    def test_end_with_top(self, crm: Client, accounts):
        assert ["Aster", "Birch"] == names(crm, where(""), top="2")

    def test_and_top_exclude_each_other(self, crm: Client, accounts):
        assert 400 == fetched(crm, where(""), top="2", count="2").status_code

    def test_count_all_rows_when_they_are_to(self, crm: Client, accounts):
        reply = fetched(crm, where(""), count="2", returntotalrecordcount="true").json()

        assert 5 == reply["@Microsoft.Dynamics.CRM.totalrecordcount"]


class TestOrders:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/fetchxml/order-rows"""

    def test_are_followed_in_turn(self, crm: Client, accounts):
        inner = '<attribute name="name"/><order attribute="telephone1"/><order attribute="name" descending="true"/>'
        rows = fetched(crm, inner + where("")).json()["value"]

        assert ["Daisy", "Birch", "Aster", "Cedar", "Elder"] == [row["name"] for row in rows]


class TestAggregates:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/fetchxml/aggregate-data"""

    def test_count_and_sum(self, crm: Client, accounts):
        inner = (
            '<attribute name="accountid" alias="number" aggregate="count"/>'
            '<attribute name="numberofemployees" alias="people" aggregate="sum"/>'
            '<attribute name="numberofemployees" alias="most" aggregate="max"/>'
            '<attribute name="numberofemployees" alias="average" aggregate="avg"/>'
        )
        (row,) = fetched(crm, inner + where(""), aggregate="true").json()["value"]

        assert (5, 150, 50, 30) == tuple(row[name] for name in ("number", "people", "most", "average"))

    def test_go_by_group(self, crm: Client, accounts):
        inner = (
            '<attribute name="name" alias="company" groupby="true"/>'
            + TestLinks.LINK.format(
                kind="inner", inner='<attribute name="contactid" alias="persons" aggregate="count"/>'
            )
            + '<order alias="persons" descending="true"/>'
        )
        rows = fetched(crm, inner + where(""), aggregate="true").json()["value"]

        assert [("Birch", 2), ("Cedar", 1)] == [(row["company"], row["persons"]) for row in rows]

    def test_need_an_alias(self, crm: Client, accounts):
        inner = '<attribute name="accountid" aggregate="count"/>'

        assert 400 == fetched(crm, inner, aggregate="true").status_code


class TestFetch:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/fetchxml/reference/fetch"""

    @pytest.mark.parametrize(
        "xml",
        [
            "<fetch>",
            "<fetch/>",
            "<query/>",
            '<fetch><entity name="contact"/></fetch>',
            "not xml",
            "<fetch top='0'><entity name='account'/></fetch>",
        ],
    )
    def test_that_is_none_is_refused(self, crm: Client, xml):
        """Among them one about another table than that of the address."""
        assert 400 == crm.get(f"accounts?fetchXml={quote(xml)}").status_code

    def test_names_what_the_sandbox_does_not_know(self, crm: Client):
        link = '<link-entity name="contact" from="parentcustomerid" to="accountid" link-type="exists"/>'

        assert "exists" in fetched(crm, link).json()["error"]["message"]

    def test_leaves_out_what_is_the_same_when_it_is_distinct(self, crm: Client, accounts):
        link = TestLinks.LINK.format(kind="inner", inner="")

        assert ["Birch", "Cedar"] == names(crm, where("") + link, distinct="true")
