"""Dataverse's duplicate detection: what a rule takes for the same, and who is refused for it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.sandbox.catalogue import a_name, key, made
from tests.sandbox.client import Client, Info, error_code, eventually

DETECT = {"MSCRM.SuppressDuplicateDetection": "false"}
FOUND = (412, "0x80040333")


@pytest.fixture(scope="module")
def info(start: Callable[..., Info]) -> Info:
    return start(seed="empty", limits=False)


def mail() -> str:
    return f"{uuid.uuid4().hex}@harborvale.example"


def publish(crm: Client, rule: str) -> dict[str, Any]:
    """The job, once the rule is in force."""
    job = crm.post(f"{rule}/Microsoft.Dynamics.CRM.PublishDuplicateRule", {})
    assert 200 == job.status_code, job.text
    assert eventually(lambda: crm.get(rule).json()["statuscode"] == 2)
    return job.json()


@pytest.fixture
def rule(crm: Client) -> Iterator[Callable[..., str]]:
    """Makes a published rule of these conditions: base column, matching column, and more."""
    paths: list[str] = []

    def ruled(*conditions: dict[str, Any], base: str = "account", matching: str | None = None, **more: Any) -> str:
        body = {"name": a_name("Rule"), "baseentityname": base, "matchingentityname": matching or base, **more}
        path = made(crm, "duplicaterules", body)
        paths.append(path)
        for condition in conditions:
            made(crm, "duplicateruleconditions", {"regardingobjectid@odata.bind": f"/{path}", **condition})
        publish(crm, path)
        return path

    yield ruled
    for path in paths:
        crm.delete(path)


def about(column: str, matching: str | None = None, **more: Any) -> dict[str, Any]:
    return {"baseattributename": column, "matchingattributename": matching or column, **more}


class TestDetection:
    """learn.microsoft.com/power-apps/developer/data-platform/webapi/manage-duplicate-detection-create-update"""

    def test_is_off_unless_the_request_asks(self, crm: Client):
        body = {"name": a_name("Account"), "emailaddress1": mail()}
        plain = [crm.post("accounts", body).status_code for _ in range(2)]
        suppressed = crm.post("accounts", body, headers={"MSCRM.SuppressDuplicateDetection": "true"})

        assert [204, 204, 204] == [*plain, suppressed.status_code]

    def test_refuses_a_new_row_that_is_there_already(self, crm: Client):
        """A new organization has rules for the e-mail address of accounts and contacts."""
        body = {"name": a_name("Account"), "emailaddress1": mail()}
        first = crm.post("accounts", body, headers=DETECT)
        second = crm.post("accounts", {"name": "Other", "emailaddress1": body["emailaddress1"].upper()}, headers=DETECT)

        assert 204 == first.status_code
        assert FOUND == error_code(second)
        assert (
            "A record was not created or updated because a duplicate of the current record already exists."
            == second.json()["error"]["message"]
        )

    def test_refuses_a_change_to_what_is_there_already(self, crm: Client):
        address = mail()
        made(crm, "contacts", {"lastname": "First", "emailaddress1": address})
        second = made(crm, "contacts", {"lastname": "Second"})

        assert FOUND == error_code(crm.patch(second, {"emailaddress1": address}, headers=DETECT))
        assert 204 == crm.patch(second, {"emailaddress1": address}).status_code
        assert 204 == crm.patch(second, {"lastname": "Third"}, headers=DETECT).status_code

    def test_does_not_take_a_row_for_its_own_duplicate(self, crm: Client):
        address = mail()
        contact = made(crm, "contacts", {"lastname": "First", "emailaddress1": address})

        assert 204 == crm.patch(contact, {"emailaddress1": address}, headers=DETECT).status_code

    def test_nothing_in_a_column_is_no_duplicate_of_nothing(self, crm: Client):
        assert [204, 204] == [crm.post("accounts", {"name": "N"}, headers=DETECT).status_code for _ in range(2)]


class TestRules:
    """learn.microsoft.com/power-apps/developer/data-platform/duplicaterule-entities"""

    def test_are_published_by_a_job(self, crm: Client):
        body = {"name": a_name("Rule"), "baseentityname": "account", "matchingentityname": "account"}
        path = made(crm, "duplicaterules", body)
        empty = crm.post(f"{path}/Microsoft.Dynamics.CRM.PublishDuplicateRule", {})
        made(crm, "duplicateruleconditions", {"regardingobjectid@odata.bind": f"/{path}", **about("fax")})
        job = publish(crm, path)

        assert (400, "0x80048414") == error_code(empty)
        assert (7, key(f"/{path}")) == (job["operationtype"], job["_regardingobjectid_value"])
        assert eventually(lambda: crm.get(f"asyncoperations({job['asyncoperationid']})").json()["statuscode"] == 30)
        assert 1 == crm.get(path).json()["statecode"]
        assert 204 == crm.post("UnpublishDuplicateRule", {"DuplicateRuleId": key(f"/{path}")}).status_code
        assert 0 == crm.get(path).json()["statuscode"]
        crm.delete(path)

    def test_all_conditions_of_one_must_agree(self, crm: Client, rule):
        rule(about("telephone1"), about("address1_city"))
        made(crm, "accounts", {"name": "N", "telephone1": "7", "address1_city": "Boston"})

        def refused(**body: str) -> bool:
            return crm.post("accounts", {"name": "N", **body}, headers=DETECT).status_code == 412

        assert refused(telephone1="7", address1_city="boston")
        assert not refused(telephone1="7", address1_city="Salem")

    @pytest.mark.parametrize(
        ("condition", "there", "same", "other"),
        [
            (about("fax", operatorcode=1, operatorparam=3), "abcdef", "ABCxyz", "abxdef"),
            (about("fax", operatorcode=2, operatorparam=3), "abcdef", "xyzDEF", "abcdex"),
            (
                about("lastonholdtime", operatorcode=3),
                "2026-03-02T08:00:00Z",
                "2026-03-02T19:00:00Z",
                "2026-03-03T08:00:00Z",
            ),
            (
                about("lastonholdtime", operatorcode=4),
                "2026-04-02T08:00:00Z",
                "2026-04-02T08:00:00Z",
                "2026-04-02T08:00:01Z",
            ),
            (about("accountcategorycode", operatorcode=6), 1, 1, 2),
        ],
        ids=["first characters", "last characters", "day", "moment", "choice"],
    )
    def test_compare_as_the_operator_says(self, crm: Client, rule, condition, there, same, other):
        rule(condition)
        column = condition["baseattributename"]
        account = made(crm, "accounts", {"name": "N", column: there})
        statuses = [
            crm.post("accounts", {"name": "N", column: value}, headers=DETECT).status_code for value in (same, other)
        ]
        crm.delete(account)

        assert [412, 204] == statuses

    def test_heed_letter_case_if_told_to(self, crm: Client, rule):
        rule(about("fax"), iscasesensitive=True)
        made(crm, "accounts", {"name": "N", "fax": "Abc"})

        assert 204 == crm.post("accounts", {"name": "N", "fax": "abc"}, headers=DETECT).status_code
        assert 412 == crm.post("accounts", {"name": "N", "fax": "Abc"}, headers=DETECT).status_code

    def test_leave_inactive_rows_out_if_told_to(self, crm: Client, rule):
        rule(about("fax"), excludeinactiverecords=True)
        account = made(crm, "accounts", {"name": "N", "fax": "inactive"})
        crm.patch(account, {"statecode": 1, "statuscode": 2})

        assert 204 == crm.post("accounts", {"name": "N", "fax": "inactive"}, headers=DETECT).status_code

    def test_compare_with_another_table(self, crm: Client, rule):
        rule(about("name", "lastname"), matching="contact")
        name = a_name("Family")
        made(crm, "contacts", {"lastname": name})

        assert FOUND == error_code(crm.post("accounts", {"name": name}, headers=DETECT))

    def test_are_out_of_force_once_they_are_changed(self, crm: Client, rule):
        first, second = rule(about("fax")), rule(about("telephone2"))
        crm.patch(first, {"iscasesensitive": True})
        made(crm, "duplicateruleconditions", {"regardingobjectid@odata.bind": f"/{second}", **about("fax")})

        assert [0, 0] == [crm.get(path).json()["statuscode"] for path in (first, second)]

    @pytest.mark.parametrize(
        "condition",
        [about("nickname"), about("fax", operatorcode=1), about("fax", operatorcode=0, operatorparam=3)],
        ids=str,
    )
    def test_of_a_condition_that_cannot_be_are_refused(self, crm: Client, rule, condition):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/entities/duplicaterulecondition"""
        path = rule(about("fax"))
        body = {"regardingobjectid@odata.bind": f"/{path}", **condition}

        assert 400 == crm.post("duplicateruleconditions", body).status_code

    def test_are_not_published_by_writing_it(self, crm: Client, rule):
        path = rule(about("fax"))

        assert (400, "0x80048408") == error_code(crm.patch(path, {"statuscode": 0}))

    def test_of_a_table_are_five_at_most(self, crm: Client, rule):
        columns = ("address1_line1", "address1_line2", "address1_line3", "address1_city", "address1_county")
        for column in columns:
            rule(about("name", column), base="opportunity", matching="account")
        sixth = {"name": "Sixth", "baseentityname": "opportunity", "matchingentityname": "opportunity"}
        path = made(crm, "duplicaterules", sixth)
        made(crm, "duplicateruleconditions", {"regardingobjectid@odata.bind": f"/{path}", **about("name")})
        reply = crm.post(f"{path}/Microsoft.Dynamics.CRM.PublishDuplicateRule", {})
        crm.delete(path)

        assert 400 == reply.status_code


class TestRetrieving:
    """learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/retrieveduplicates"""

    QUERY = "RetrieveDuplicates(BusinessEntity=@p1,MatchingEntityName=@p2,PagingInfo=@p3)"

    def asked(self, crm: Client, entity: dict[str, Any], *, count: int = 50, page: int = 1) -> Any:
        params = {
            "@p1": json.dumps({"@odata.type": "Microsoft.Dynamics.CRM.account", **entity}),
            "@p2": "'account'",
            "@p3": json.dumps({"PageNumber": page, "Count": count}),
        }
        return crm.get(self.QUERY, params=params)

    def test_lists_the_duplicates_of_a_row_that_would_be(self, crm: Client):
        address = mail()
        there = {key("/" + made(crm, "accounts", {"name": "N", "emailaddress1": address})) for _ in range(3)}
        found = self.asked(crm, {"emailaddress1": address.upper()}).json()
        pages = [
            row["accountid"]
            for page in (1, 2)
            for row in self.asked(crm, {"emailaddress1": address}, count=2, page=page).json()["value"]
        ]

        assert found["@odata.context"].endswith("$metadata#accounts")
        assert there == {row["accountid"] for row in found["value"]}
        assert (3, there) == (len(pages), set(pages))

    def test_lists_those_of_a_row_that_is(self, crm: Client):
        address = mail()
        first, second = (key("/" + made(crm, "accounts", {"name": "N", "emailaddress1": address})) for _ in range(2))

        assert [second] == [row["accountid"] for row in self.asked(crm, {"accountid": first}).json()["value"]]

    def test_of_nothing_that_is_known_is_refused(self, crm: Client):
        assert 400 == self.asked(crm, {"nickname": "x"}).status_code
        assert 400 == crm.get("RetrieveDuplicates(BusinessEntity=@p1)").status_code
