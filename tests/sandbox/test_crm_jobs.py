"""Dataverse's system jobs: what became of a notification, and deleting in the background."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.catalogue import a_name, key, made
from tests.sandbox.client import Client, Control, Info, error_code, eventually
from tests.sandbox.conftest import Receiver
from tests.sandbox.people import a_role, a_user, assign, owned_by, who

WAITING, SUCCEEDED, FAILED, CANCELED = 0, 30, 31, 32


@pytest.fixture(scope="module")
def info(start: Callable[..., Info], tmp_path_factory: pytest.TempPathFactory) -> Info:
    return start(seed="empty", limits=False, db=tmp_path_factory.mktemp("db") / "sandbox.sqlite")


def query(table: str, *conditions: tuple[str, str, Any], **more: Any) -> dict[str, Any]:
    listed = [
        {"AttributeName": name, "Operator": operator, "Values": [{"Type": "System.String", "Value": value}]}
        for name, operator, value in conditions
    ]
    return {"EntityName": table, "Criteria": {"FilterOperator": "And", "Conditions": listed}, **more}


def order(*queries: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "QuerySet": list(queries),
        "JobName": "Tidy up",
        "SendEmailNotification": False,
        "ToRecipients": [],
        "CCRecipients": [],
        "RecurrencePattern": "",
        "StartDateTime": "2020-01-01T00:00:00Z",
        **more,
    }


def done(crm: Client, job: str) -> dict[str, Any]:
    """The job, once it has ended."""
    path = f"asyncoperations({job})"
    assert eventually(lambda: crm.get(path).json()["statecode"] == 3)
    return crm.get(path).json()


class TestNotifications:
    """learn.microsoft.com/power-apps/developer/data-platform/use-webhooks"""

    @pytest.fixture
    def step(self, crm: Client, receiver: Receiver) -> Iterator[Callable[..., str]]:
        endpoint = made(crm, "serviceendpoints", {"name": "hub", "contract": 8, "url": receiver.url, "authtype": 4})
        message = crm.rows("sdkmessages?$filter=name eq 'Update'")[0]["sdkmessageid"]
        paths: list[str] = []

        def registered(**more: Any) -> str:
            body = {
                "name": a_name("hub: Update"),
                "mode": 1,
                "stage": 40,
                "rank": 1,
                "asyncautodelete": True,
                "sdkmessageid@odata.bind": f"/sdkmessages({message})",
                "eventhandler_serviceendpoint@odata.bind": f"/{endpoint}",
                **more,
            }
            paths.append(made(crm, "sdkmessageprocessingsteps", body))
            return key(f"/{paths[-1]}")

        yield registered
        for path in paths:
            crm.delete(path)

    def test_that_failed_are_listed_by_step(self, crm: Client, receiver: Receiver, step):
        receiver.status = 500
        step_id, account = step(), made(crm, "accounts", {"name": "N"})
        crm.patch(account, {"fax": "1"})
        failed = f"asyncoperations?$filter=statuscode eq 31 and _owningextensionid_value eq {step_id}"
        assert eventually(lambda: crm.rows(failed) != [])
        job = crm.rows(failed, prefer='odata.include-annotations="*"')[0]

        assert receiver.got[0][1]["OperationId"] == job["asyncoperationid"]
        assert receiver.got[0][1]["CorrelationId"] == job["correlationid"]
        assert (3, FAILED, 1) == (job["statecode"], job["statuscode"], job["operationtype"])
        assert ("Update", "account") == (job["messagename"], job["primaryentitytype"])
        assert key(f"/{account}") == job["_regardingobjectid_value"]
        assert "account" == job["_regardingobjectid_value@Microsoft.Dynamics.CRM.lookuplogicalname"]
        assert "500" in job["message"]
        assert who(crm) == job["_ownerid_value"]

    def test_a_second_attempt_is_counted(self, crm: Client, receiver: Receiver, step):
        receiver.status = 503
        step_id = step()
        crm.patch(made(crm, "accounts", {"name": "N"}), {"fax": "1"})
        failed = f"asyncoperations?$filter=_owningextensionid_value eq {step_id}"

        assert eventually(lambda: crm.rows(failed) != [])
        assert ([1], 2) == ([job["retrycount"] for job in crm.rows(failed)], len(receiver.got))

    def test_that_arrived_leave_a_job_where_the_step_keeps_it(self, crm: Client, receiver: Receiver, step):
        kept, left = step(asyncautodelete=False), step()
        crm.patch(made(crm, "accounts", {"name": "N"}), {"fax": "1"})

        assert eventually(lambda: len(receiver.got) == 2)
        listed = "asyncoperations?$filter=_owningextensionid_value eq "
        assert eventually(lambda: [SUCCEEDED] == [job["statuscode"] for job in crm.rows(listed + kept)])
        assert [] == crm.rows(listed + left)

    def test_nobody_is_told_of_a_job(self, crm: Client, receiver: Receiver, step):
        """Else a failure would make another one, for ever."""
        receiver.status = 500
        message = crm.rows("sdkmessages?$filter=name eq 'Create'")[0]["sdkmessageid"]
        step_id = step(**{"sdkmessageid@odata.bind": f"/sdkmessages({message})"})
        made(crm, "accounts", {"name": "N"})
        assert eventually(lambda: crm.rows(f"asyncoperations?$filter=_owningextensionid_value eq {step_id}") != [])
        made(crm, "accounts", {"name": "N"})

        assert eventually(lambda: 2 == [c["PrimaryEntityName"] for _, c in receiver.got].count("account"))
        assert "asyncoperation" not in {context["PrimaryEntityName"] for _, context in receiver.got}


class TestBulkDelete:
    """learn.microsoft.com/power-apps/developer/data-platform/delete-data-bulk"""

    def test_deletes_what_a_query_finds_and_counts(self, crm: Client):
        name = a_name("Stale")
        for number in range(120):
            made(crm, "accounts", {"name": f"{name} {number}"})
        kept = made(crm, "accounts", {"name": a_name("Fresh")})
        answer = crm.post("BulkDelete", order(query("account", ("name", "BeginsWith", name)))).json()
        job = done(crm, answer["JobId"])
        operation = crm.rows(f"bulkdeleteoperations?$filter=_asyncoperationid_value eq {answer['JobId']}")[0]

        assert answer["@odata.context"].endswith("#Microsoft.Dynamics.CRM.BulkDeleteResponse")
        assert (SUCCEEDED, 13, "Tidy up") == (job["statuscode"], job["operationtype"], job["name"])
        assert operation["bulkdeleteoperationid"] == job["_regardingobjectid_value"]
        assert (120, 0, SUCCEEDED) == (operation["successcount"], operation["failurecount"], operation["statuscode"])
        assert [] == crm.rows("accounts", params={"$filter": f"startswith(name,'{name}')"})
        assert 200 == crm.get(kept).status_code

    def test_what_cannot_be_deleted_is_told_one_by_one(self, crm: Client):
        name = a_name("Bought")
        free, buyer = (made(crm, "accounts", {"name": name}) for _ in range(2))
        prices = made(crm, "pricelevels", {"name": a_name("List")})
        made(
            crm,
            "salesorders",
            {
                "name": "O",
                "customerid_account@odata.bind": f"/{buyer}",
                "pricelevelid@odata.bind": f"/{prices}",
            },
        )
        answer = crm.post("BulkDelete", order(query("account", ("name", "Equal", name)))).json()
        done(crm, answer["JobId"])
        operation = crm.rows(f"bulkdeleteoperations?$filter=_asyncoperationid_value eq {answer['JobId']}")[0]
        below = f"bulkdeleteoperations({operation['bulkdeleteoperationid']})/BulkDeleteOperation_BulkDeleteFailures"
        failures = crm.rows(below)

        assert (1, 1) == (operation["successcount"], operation["failurecount"])
        assert [key(f"/{buyer}")] == [failure["_regardingobjectid_value"] for failure in failures]
        assert [-2147220953] == [failure["errornumber"] for failure in failures]
        assert 404 == crm.get(free).status_code

    def test_a_query_may_link_and_nest(self, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/queryexpression"""
        name = a_name("Parent")
        account = made(crm, "accounts", {"name": name})
        bind = {"parentcustomerid_account@odata.bind": f"/{account}"}
        gone, kept = (made(crm, "contacts", {"lastname": each, **bind}) for each in ("Gone", "Kept"))
        made(crm, "contacts", {"lastname": "Gone"})
        link = {
            "LinkFromEntityName": "contact",
            "LinkFromAttributeName": "parentcustomerid",
            "LinkToEntityName": "account",
            "LinkToAttributeName": "accountid",
            "JoinOperator": "Inner",
            "LinkCriteria": query("account", ("name", "Equal", name))["Criteria"],
        }
        either = {
            "FilterOperator": "Or",
            "Conditions": query("contact", ("lastname", "Equal", "Gone"), ("lastname", "Equal", "X"))["Criteria"][
                "Conditions"
            ],
        }
        wanted = {
            "EntityName": "contact",
            "Criteria": {"FilterOperator": "And", "Filters": [either]},
            "LinkEntities": [link],
        }
        done(crm, crm.post("BulkDelete", order(wanted)).json()["JobId"])

        assert (404, 200) == (crm.get(gone).status_code, crm.get(kept).status_code)

    def test_begins_when_it_is_told_to_and_can_be_ended_before(self, crm: Client, control: Control):
        account = made(crm, "accounts", {"name": a_name("Later")})
        wanted = query("account", ("accountid", "Equal", key(f"/{account}")))
        now = dt.datetime.fromisoformat(control("GET", "clock")["now"].replace("Z", "+00:00"))
        begin = (now + dt.timedelta(minutes=10)).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = order(wanted, StartDateTime=begin)
        first, second = (crm.post("BulkDelete", body).json()["JobId"] for _ in range(2))
        ended = crm.patch(f"asyncoperations({first})", {"statecode": 3, "statuscode": 32})
        waits = crm.get(f"asyncoperations({second})").json()
        control("POST", "clock", {"advance_s": 700})
        job = done(crm, second)
        control("POST", "clock", {"reset": True})
        operation = crm.rows(f"bulkdeleteoperations?$filter=_asyncoperationid_value eq {first}")[0]

        assert 204 == ended.status_code
        assert (WAITING, begin) == (waits["statuscode"], waits["postponeuntil"])
        assert SUCCEEDED == job["statuscode"]
        assert (CANCELED, 0) == (operation["statuscode"], operation["successcount"])
        assert (400, "0x80048408") == error_code(
            crm.patch(f"asyncoperations({second})", {"statecode": 3, "statuscode": 32})
        )

    def test_ends_with_its_job_or_never_begins_where_its_change_set_failed(self, crm: Client):
        body = order(query("account", ("name", "Equal", "x")), StartDateTime="2100-01-01T00:00:00Z")
        job = crm.post("BulkDelete", body).json()["JobId"]
        crm.delete(f"asyncoperations({job})")
        operation = crm.rows(f"bulkdeleteoperations?$filter=_asyncoperationid_value eq {job}")[0]
        before = crm.get("asyncoperations/$count").text
        parts = [("BulkDelete", body), ("accounts", {"nickname": "x"})]
        lines = ["--b", "Content-Type: multipart/mixed; boundary=c", ""]
        for number, (path, content) in enumerate(parts):
            lines += ["--c", "Content-Type: application/http", f"Content-ID: {number}", ""]
            lines += [f"POST {path} HTTP/1.1", "Content-Type: application/json", "", json.dumps(content)]
        lines += ["--c--", "--b--", ""]
        headers = {"Content-Type": "multipart/mixed; boundary=b"}
        reply = crm.send("POST", "$batch", data="\r\n".join(lines), headers=headers)

        assert CANCELED == operation["statuscode"]
        assert 400 == reply.status_code
        assert before == crm.get("asyncoperations/$count").text

    def test_deletes_what_its_orderer_may(self, crm: Client):
        user, name = a_user(crm), a_name("Shared")
        role = a_role(crm, ("ReadAccount", "Global"), ("DeleteAccount", "Basic"))
        assign(crm, f"systemusers({user})", role)
        own = made(crm, "accounts", owned_by(f"systemusers({user})", name=name))
        foreign = made(crm, "accounts", {"name": name})
        body, headers = order(query("account", ("name", "Equal", name))), {"MSCRMCallerID": user}
        refused = crm.post("BulkDelete", body, headers=headers)
        assign(crm, f"systemusers({user})", a_role(crm, ("BulkDelete", "Global")))
        done(crm, crm.post("BulkDelete", body, headers=headers).json()["JobId"])

        assert "prvBulkDelete" in refused.json()["error"]["message"]
        assert (404, 200) == (crm.get(own).status_code, crm.get(foreign).status_code)

    @pytest.mark.parametrize(
        "changed",
        [
            {"JobName": None},
            {"QuerySet": []},
            {"QuerySet": [{"EntityName": "lead"}]},
            {"QuerySet": [{"EntityName": "account", "Criteria": ["name"]}]},
            {"QuerySet": [{"EntityName": "account", "LinkEntities": [{"JoinOperator": "Any"}]}]},
            {"QuerySet": [query("account", ("name", "ContainValues", "x"))]},
            {"QuerySet": [query("account", ("nickname", "Equal", "x"))]},
            {"SendEmailNotification": True},
            {"RecurrencePattern": "FREQ=DAILY;INTERVAL=1;"},
            {"StartDateTime": "soon"},
        ],
        ids=str,
    )
    def test_what_it_cannot_carry_out_is_refused(self, crm: Client, changed: dict[str, Any]):
        assert 400 == crm.post("BulkDelete", order(query("account"), **changed) | changed).status_code

    def test_is_nobodys_to_make(self, crm: Client):
        assert (400, "0x80040800") == error_code(crm.post("asyncoperations", {}))
        assert (400, "0x80040800") == error_code(crm.post("bulkdeleteoperations", {}))

    def test_nor_by_an_address_that_leads_there(self, crm: Client):
        job = crm.post("BulkDelete", order(query("account"), StartDateTime="2100-01-01T00:00:00Z")).json()["JobId"]
        [operation] = crm.rows(f"asyncoperations({job})/AsyncOperation_BulkDeleteOperation")
        below = f"asyncoperations({job})/AsyncOperation_BulkDeleteOperation"
        column = f"bulkdeleteoperations({operation['bulkdeleteoperationid']})/name"

        assert (400, "0x80040800") == error_code(crm.post(below, {"name": "Mine"}))
        assert (400, "0x80040800") == error_code(crm.send("PUT", column, json={"value": "Mine"}))
        assert (400, "0x80040800") == error_code(crm.delete(column))


class TestRestart:
    """Source: the sandbox itself."""

    def test_a_job_does_not_survive_its_sandbox(self, running: Callable[..., Any], tmp_path: Path):
        options = {"seed": "empty", "limits": False, "db": tmp_path / "sandbox.sqlite"}
        with running(**options) as first:
            crm = Client(first, "crm")
            job = crm.post("BulkDelete", order(query("account"), StartDateTime="2100-01-01T00:00:00Z")).json()["JobId"]
            crm.close()
        with running(**options) as again:
            second = Client(again, "crm")
            ended = second.get(f"asyncoperations({job})").json()
            second.close()

        assert FAILED == ended["statuscode"]
