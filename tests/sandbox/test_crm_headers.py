"""What headers of a request to Dataverse do, and what its answers say in theirs, fact by fact."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.sandbox.catalogue import a_name, key, made
from tests.sandbox.client import Client, error_code, eventually
from tests.sandbox.conftest import Receiver
from tests.sandbox.test_crm_batch import operation, replies, send

BYPASS = "MSCRM.BypassBusinessLogicExecution"
A_STEP = "00000000-0000-4000-8000-000000000001"  # that is not there
Context = dict[str, Any]


@pytest.fixture
def account(crm: Client) -> str:
    return made(crm, "accounts", {"name": a_name("Headed")})


@pytest.fixture
def watch(crm: Client, receiver: Receiver):
    """Registers a step for a message of a table; returns its id."""
    endpoint = crm.post("serviceendpoints", {"name": "hub", "contract": 8, "url": receiver.url, "authtype": 4})
    steps: list[str] = []

    def registered(message: str, table: str = "account", mode: int = 1) -> str:
        scope = crm.rows(
            f"sdkmessagefilters?$filter=sdkmessageid/name eq '{message}' and primaryobjecttypecode eq '{table}'"
        )[0]
        body = {
            "name": f"hub: {message} of {table}",
            "mode": mode,
            "stage": 40,
            "sdkmessageid@odata.bind": f"/sdkmessages({scope['_sdkmessageid_value']})",
            "sdkmessagefilterid@odata.bind": f"/sdkmessagefilters({scope['sdkmessagefilterid']})",
            "eventhandler_serviceendpoint@odata.bind": endpoint.headers["OData-EntityId"],
        }
        steps.append(made(crm, "sdkmessageprocessingsteps", body))
        return key(steps[-1])

    yield registered
    for step in steps:
        crm.delete(step)


def contexts(receiver: Receiver, count: int) -> list[Context]:
    assert eventually(lambda: len(receiver.got) >= count)
    return [context for _, context in receiver.got]


class TestPreferenceApplied:
    @pytest.mark.parametrize(
        ("query", "prefer", "said"),
        [
            ("accounts?$select=name", "odata.maxpagesize=2", "odata.maxpagesize=2"),
            ("accounts?$top=1", 'odata.include-annotations="*"', 'odata.include-annotations="*"'),
            (
                "accounts?$select=name",
                'odata.maxpagesize=2,odata.include-annotations="OData.Community.Display.V1.FormattedValue"',
                'odata.maxpagesize=2,odata.include-annotations="OData.Community.Display.V1.FormattedValue"',
            ),
            ("accounts?$select=name", "odata.track-changes", "odata.track-changes"),
            ("accounts?$top=1", "return=representation", None),
            ("accounts?$top=1", None, None),
        ],
    )
    def test_names_what_was_followed(self, crm: Client, query, prefer, said):
        """Responses with Preference-Applied

        learn.microsoft.com/power-apps/developer/data-platform/webapi/query/join-tables
        learn.microsoft.com/power-apps/developer/data-platform/webapi/query/select-columns
        """
        assert said == crm.get(query, prefer=prefer).headers.get("Preference-Applied")

    def test_of_a_write_names_the_representation(self, crm: Client, account):
        """Create with data returned

        learn.microsoft.com/power-apps/developer/data-platform/webapi/create-entity-web-api
        """
        prefer = 'return=representation,odata.include-annotations="*"'

        assert prefer == crm.patch(account, {"fax": "1"}, prefer=prefer).headers["Preference-Applied"]
        assert "Preference-Applied" not in crm.patch(account, {"fax": "1"}).headers


class TestRequestNumber:
    """learn.microsoft.com/power-apps/developer/data-platform/webapi/execute-batch-operations-using-web-api: REQ_ID"""

    @pytest.mark.parametrize(("path", "status"), [("WhoAmI", 200), ("nothing", 404), ("accounts?$top=x", 400)])
    def test_is_in_every_answer_and_its_own(self, crm: Client, path, status):
        first, second = crm.get(path), crm.get(path)

        assert status == first.status_code
        assert uuid.UUID(first.headers["REQ_ID"])
        assert first.headers["REQ_ID"] == first.headers["x-ms-service-request-id"] != second.headers["REQ_ID"]

    def test_is_in_every_part_of_a_batch(self, crm: Client):
        reply = send(crm, operation("GET", "WhoAmI"), operation("GET", "nothing"), prefer="odata.continue-on-error")
        numbers = [headers["REQ_ID"] for part in replies(reply) for _, headers, _ in part]

        assert 2 == len({*numbers})


class TestErrorDetails:
    """learn.microsoft.com/power-apps/developer/data-platform/webapi/compose-http-requests-handle-errors"""

    @pytest.mark.parametrize(
        ("prefer", "names"),
        [
            (None, set()),
            ('odata.include-annotations="OData.Community.Display.V1.FormattedValue"', set()),
            ('odata.include-annotations="Microsoft.PowerApps.CDS.HelpLink"', {"HelpLink"}),
            (
                'odata.include-annotations="Microsoft.PowerApps.CDS.ErrorDetails*"',
                {"ErrorDetails.OperationStatus", "ErrorDetails.SubErrorCode"},
            ),
            (
                'odata.include-annotations="*"',
                {
                    "ErrorDetails.OperationStatus",
                    "ErrorDetails.SubErrorCode",
                    "HelpLink",
                    "TraceText",
                    "InnerError.Message",
                },
            ),
        ],
    )
    def test_come_on_request(self, crm: Client, prefer, names):
        """Include more details with errors"""
        error = crm.get(f"accounts({uuid.uuid4()})", prefer=prefer).json()["error"]

        assert {"code", "message", *(f"@Microsoft.PowerApps.CDS.{name}" for name in names)} == set(error)
        assert "80040217" in error.get("@Microsoft.PowerApps.CDS.HelpLink", "80040217")


class TestVersion:
    """learn.microsoft.com/power-apps/developer/data-platform/webapi/compose-http-requests-handle-errors"""

    @pytest.mark.parametrize("version", ["v9.0", "v9.1", "v9.2"])
    def test_earlier_ones_are_answered_under_their_own_address(self, crm: Client, account, version):
        """Version compatibility"""
        root = crm.root.replace("v9.2", version)
        read = crm.get(f"{root}/accounts?$select=name", prefer="odata.maxpagesize=1").json()
        bound = crm.post(
            f"{root}/contacts", {"lastname": "L", "parentcustomerid_account@odata.bind": f"{root}/{account}"}
        )

        assert read["@odata.context"].startswith(f"{root}/$metadata")
        assert 200 == crm.get(read["@odata.nextLink"]).status_code
        assert read["@odata.nextLink"].startswith(root)
        assert bound.headers["OData-EntityId"].startswith(root)

    def test_others_are_not_known(self, crm: Client):
        """Web API URL and versions"""
        assert 404 == crm.get(crm.root.replace("v9.2", "v8.2") + "/WhoAmI").status_code


class TestContentType:
    """learn.microsoft.com/power-apps/developer/data-platform/webapi/compose-http-requests-handle-errors: HTTP headers"""

    @pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8; odata.metadata=minimal"])
    def test_of_a_body_is_json(self, crm: Client, kind: str):
        assert 204 == crm.send("POST", "accounts", data=b'{"name": "A"}', headers={"Content-Type": kind}).status_code

    @pytest.mark.parametrize("kind", [None, "", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
    def test_of_another_kind_is_refused(self, crm: Client, account, kind: str | None):
        """Status and code are chosen here."""
        headers, body = {"Content-Type": kind}, b'{"name": "Of another kind"}'

        assert (415, "0x80060888") == error_code(crm.send("POST", "accounts", data=body, headers=headers))
        assert (415, "0x80060888") == error_code(crm.send("PATCH", account, data=body, headers=headers))
        assert (415, "0x80060888") == error_code(crm.send("POST", "WinQuote", data=body, headers=headers))
        assert [] == crm.rows("accounts?$select=name&$filter=name eq 'Of another kind'")

    def test_does_not_matter_without_a_body(self, crm: Client, account):
        assert 200 == crm.send("GET", account, headers={"Content-Type": "text/plain"}).status_code
        assert 204 == crm.send("DELETE", account, headers={"Content-Type": "text/plain"}).status_code


class TestBypass:
    """Of business logic.

    learn.microsoft.com/power-apps/developer/data-platform/bypass-custom-business-logic
    """

    @pytest.mark.parametrize(
        ("headers", "told"),
        [
            ({}, {0, 1}),
            ({BYPASS: "CustomSync"}, {1}),
            ({BYPASS: "CustomAsync"}, {0}),
            ({BYPASS: "CustomSync,CustomAsync"}, set()),
            ({"MSCRM.BypassCustomPluginExecution": "true"}, {1}),
            ({"MSCRM.BypassCustomPluginExecution": "false"}, {0, 1}),
            ({"MSCRM.SuppressCallbackRegistrationExpanderJob": "true"}, {0, 1}),
        ],
    )
    def test_leaves_steps_of_a_mode_alone(
        self, crm: Client, receiver: Receiver, watch: Callable[..., str], account, headers, told
    ):
        """BypassBusinessLogicExecution, BypassCustomPluginExecution"""
        modes = {watch("Update", mode=mode): mode for mode in (0, 1)}
        crm.patch(account, {"fax": "first"}, headers=headers)
        crm.patch(account, {"fax": "last"})
        heard = contexts(receiver, len(told) + 2)

        assert told == {modes[one["OwningExtension"]["Id"]] for one in heard if _fax(one) == "first"}
        assert len(told) + 2 == len(heard)

    def test_leaves_single_steps_alone(self, crm: Client, receiver: Receiver, watch: Callable[..., str], account):
        """BypassBusinessLogicExecutionStepIds"""
        first, second = watch("Update"), watch("Update")
        headers = {"MSCRM.BypassBusinessLogicExecutionStepIds": f'"{first}, {uuid.uuid4()}"'}
        crm.patch(account, {"fax": "1"}, headers=headers)
        crm.patch(account, {"fax": "2"})
        heard = contexts(receiver, 3)

        assert [second] == [one["OwningExtension"]["Id"] for one in heard if _fax(one) == "1"]

    @pytest.mark.parametrize(
        "headers",
        [
            {BYPASS: "Everything"},
            {"MSCRM.BypassBusinessLogicExecutionStepIds": "first"},
            {"MSCRM.BypassBusinessLogicExecutionStepIds": ",".join([A_STEP] * 4)},
        ],
    )
    def test_refuses_what_it_does_not_know(self, crm: Client, account, headers):
        """Limit to the number of steps"""
        assert (400, "0x80040203") == error_code(crm.patch(account, {"fax": "1"}, headers=headers))


def _fax(context: Context) -> str:
    pairs = context["InputParameters"][0]["value"]["Attributes"]
    return next(pair["value"] for pair in pairs if pair["key"] == "fax")


class TestContext:
    """What a step is told of the request."""

    def test_has_the_ids_that_the_client_gave(
        self, crm: Client, receiver: Receiver, watch: Callable[..., str], account
    ):
        """learn.microsoft.com/dotnet/api/microsoft.xrm.sdk.iexecutioncontext: RequestId, CorrelationId"""
        watch("Update")
        ours, whole = str(uuid.uuid4()), str(uuid.uuid4())
        crm.patch(account, {"fax": "1"}, headers={"x-ms-client-request-id": ours, "x-ms-correlation-id": whole})
        crm.patch(account, {"fax": "2"}, headers={"x-ms-client-request-id": "no id"})
        heard = {_fax(one): (one["RequestId"], one["CorrelationId"]) for one in contexts(receiver, 2)}

        assert (ours, whole) == heard["1"]
        assert uuid.UUID(heard["2"][0])

    @pytest.mark.parametrize(
        ("method", "path", "body", "message"),
        [
            ("PATCH", "{}", {"fax": "1"}, "Update"),
            ("PUT", "{}/fax", {"value": "1"}, "Update"),
            ("DELETE", "{}/primarycontactid/$ref", None, "Update"),
            ("DELETE", "{}", None, "Delete"),
            ("POST", "accounts", {"name": "N"}, "Create"),
        ],
    )
    def test_has_the_tag(
        self, crm: Client, receiver: Receiver, watch: Callable[..., str], account, method, path, body, message
    ):
        """learn.microsoft.com/power-apps/developer/data-platform/optional-parameters: tag"""
        watch(message)
        crm.send(method, f"{path.format(account)}?tag=erp-sync", **({} if body is None else {"json": body}))

        assert [{"key": "tag", "value": "erp-sync"}] == contexts(receiver, 1)[0]["SharedVariables"]

    def test_of_a_delete_has_a_reference(self, crm: Client, receiver: Receiver, watch: Callable[..., str], account):
        """learn.microsoft.com/dotnet/api/microsoft.xrm.sdk.messages.deleterequest: Target"""
        watch("Delete")
        crm.delete(account)
        target = contexts(receiver, 1)[0]["InputParameters"]

        assert [("Target", "account", key(account))] == [
            (one["key"], one["value"]["LogicalName"], one["value"]["Id"]) for one in target
        ]
        assert target[0]["value"]["__type"].startswith("EntityReference:")

    @pytest.mark.parametrize("count", [1, 3])
    def test_of_many_at_once_is_one(self, crm: Client, receiver: Receiver, watch: Callable[..., str], count):
        """CreateMultiple and its steps, one call with all targets; of single rows too.

        learn.microsoft.com/power-apps/developer/data-platform/bulk-operations
        """
        step = watch("CreateMultiple")
        kind = {"@odata.type": "Microsoft.Dynamics.CRM.account"}
        names = [a_name("Many") for _ in range(count)]
        if count == 1:
            ids = [key(made(crm, "accounts", {"name": names[0]}))]
        else:
            targets = [{**kind, "name": name} for name in names]
            ids = crm.post("accounts/Microsoft.Dynamics.CRM.CreateMultiple", {"Targets": targets}).json()["Ids"]
        context = contexts(receiver, 1)[0]
        parameter = context["InputParameters"][0]

        assert (step, "CreateMultiple", "account") == (
            context["OwningExtension"]["Id"],
            context["MessageName"],
            context["PrimaryEntityName"],
        )
        assert ("Targets", ids) == (parameter["key"], [row["Id"] for row in parameter["value"]["Entities"]])
        assert [{"key": "Ids", "value": ids}] == context["OutputParameters"]
        assert 1 == len(receiver.got)
