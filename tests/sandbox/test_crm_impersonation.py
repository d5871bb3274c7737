"""Dataverse's impersonation: who acts in whose name, by which header, with which rights."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.sandbox.catalogue import a_name, made
from tests.sandbox.client import Client, Control, Info, error_code, eventually
from tests.sandbox.conftest import Receiver
from tests.sandbox.people import a_role, a_user, assign, owned_by, role_named, take, who


@pytest.fixture(scope="module")
def info(start: Callable[..., Info]) -> Info:
    return start(seed="demo", limits=False)


@pytest.fixture(scope="module")
def seller(crm: Client) -> dict:
    """Somebody with the role Salesperson."""
    query = "systemusers?$filter=islicensed eq true and isdisabled eq false&$top=1"
    return crm.get(query).json()["value"][0]


@pytest.fixture(scope="module")
def as_seller(seller: dict) -> dict[str, str]:
    return {"MSCRMCallerID": seller["systemuserid"]}


class TestInWhoseName:
    """learn.microsoft.com/power-apps/developer/data-platform/webapi/impersonate-another-user-web-api"""

    @pytest.mark.parametrize(
        ("header", "column"),
        [("CallerObjectId", "azureactivedirectoryobjectid"), ("MSCRMCallerID", "systemuserid")],
    )
    def test_a_row_is_made_by_one_on_behalf_of_another(self, crm: Client, seller: dict, header: str, column: str):
        headers = {header: seller[column]}
        row = crm.post("accounts", {"name": "N"}, prefer="return=representation", headers=headers).json()

        assert (seller["systemuserid"], who(crm)) == (row["_createdby_value"], row["_createdonbehalfby_value"])
        assert (seller["systemuserid"], who(crm)) == (row["_modifiedby_value"], row["_modifiedonbehalfby_value"])
        assert seller["systemuserid"] == row["_ownerid_value"]

    def test_the_next_change_says_anew_who_made_it(self, crm: Client, seller: dict, as_seller):
        account = made(crm, "accounts", owned_by(f"systemusers({seller['systemuserid']})"))
        crm.patch(account, {"fax": "1"}, headers=as_seller)
        first = crm.get(account).json()
        crm.patch(account, {"fax": "2"})
        second = crm.get(account).json()

        assert (seller["systemuserid"], who(crm)) == (first["_modifiedby_value"], first["_modifiedonbehalfby_value"])
        assert (who(crm), None) == (second["_modifiedby_value"], second["_modifiedonbehalfby_value"])
        assert (who(crm), None) == (second["_createdby_value"], second["_createdonbehalfby_value"])

    def test_who_am_i_is_the_other(self, crm: Client, seller: dict, as_seller):
        assert seller["systemuserid"] == crm.get("WhoAmI", headers=as_seller).json()["UserId"]

    def test_oneself_is_nobody_else(self, crm: Client):
        headers = {"MSCRMCallerID": who(crm)}
        row = crm.post("accounts", {"name": "N"}, prefer="return=representation", headers=headers).json()

        assert (who(crm), None) == (row["_createdby_value"], row["_createdonbehalfby_value"])

    def test_a_part_of_a_batch_says_for_itself_or_the_batch_says(self, crm: Client, seller: dict, as_seller):
        def batch(inner: str, outer: dict[str, str]) -> str:
            lines = [
                "--b",
                "Content-Type: application/http",
                "",
                "POST accounts HTTP/1.1",
                "Content-Type: application/json",
                "Prefer: return=representation",
                *([inner] if inner else []),
                "",
                '{"name": "Of a batch"}',
                "--b--",
                "",
            ]
            headers = {"Content-Type": "multipart/mixed; boundary=b", **outer}
            return crm.send("POST", "$batch", data="\r\n".join(lines), headers=headers).text

        by_seller = f'"_createdby_value":"{seller["systemuserid"]}"'
        assert by_seller in batch(f"MSCRMCallerID: {seller['systemuserid']}", {})
        assert by_seller in batch("", as_seller)
        assert by_seller not in batch("", {})
        assert "0x80072560" in batch("MSCRMCallerID: 00000000-0000-4000-8000-00000000ffff", {})


class TestRights:
    """learn.microsoft.com/power-apps/developer/data-platform/impersonate-another-user"""

    def test_are_those_that_both_have(self, crm: Client, seller: dict, as_seller):
        foreign = made(crm, "accounts", {"name": a_name("Foreign")})

        assert 200 == crm.get(foreign, headers=as_seller).status_code
        assert (403, "0x80048306") == error_code(crm.patch(foreign, {"fax": "1"}, headers=as_seller))
        assert (403, "0x80040220") == error_code(crm.post("products", {"name": "N"}, headers=as_seller))

    def test_a_user_without_roles_may_do_nothing_through_another(self, crm: Client):
        headers = {"MSCRMCallerID": a_user(crm)}

        assert (403, "0x80042f09") == error_code(crm.get("accounts", headers=headers))

    @pytest.fixture
    def other(self, info: Info) -> Iterator[Client]:
        client = Client(info, "crm", other=True)
        yield client
        client.close()

    def test_acting_for_another_takes_a_privilege(self, crm: Client, other: Client, as_seller, seller: dict):
        me, administrator, delegate = who(other), role_named(crm, "System Administrator"), role_named(crm, "Delegate")
        role = a_role(crm, ("ReadAccount", "Global"), ("CreateAccount", "Global"))
        assign(crm, f"systemusers({me})", role)
        take(crm, me, administrator)
        refused = other.get("accounts", headers=as_seller)
        assign(crm, f"systemusers({me})", delegate)
        read = other.get("accounts?$top=1", headers=as_seller)
        written = other.post("accounts", {"name": "N"}, headers=as_seller)
        own = made(crm, "accounts", owned_by(f"systemusers({seller['systemuserid']})"))
        patched = other.patch(own, {"fax": "1"}, headers=as_seller)
        assign(crm, f"systemusers({me})", administrator)

        assert (403, "0x8004a110") == error_code(refused)
        assert "User does not have the privilege to act on behalf another user." in refused.text
        assert (200, 204) == (read.status_code, written.status_code)
        assert (403, "0x80040220") == error_code(patched)
        assert f"Principal user (Id={me}" in patched.text

    def test_a_list_has_what_both_may_read(self, crm: Client, as_seller):
        made(crm, "accounts", {"name": a_name("Any")})
        everything = crm.get("accounts/$count").text

        assert everything == crm.get("accounts/$count", headers=as_seller).text


class TestRefusals:
    """learn.microsoft.com/power-apps/developer/data-platform/webapi/impersonate-another-user-web-api
    learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes
    """

    @pytest.mark.parametrize("header", ["CallerObjectId", "MSCRMCallerID"])
    def test_nobody_acts_for_one_who_is_not_there(self, crm: Client, header: str):
        headers = {header: "00000000-0000-4000-8000-00000000ffff"}

        assert (403, "0x80072560") == error_code(crm.get("accounts", headers=headers))

    def test_nobody_acts_for_one_who_is_disabled(self, crm: Client):
        disabled = crm.rows("systemusers?$filter=isdisabled eq true")[0]["systemuserid"]

        assert (403, "0x80040225") == error_code(crm.get("accounts", headers={"MSCRMCallerID": disabled}))

    def test_what_is_no_id_is_refused(self, crm: Client):
        assert 400 == crm.get("accounts", headers={"CallerObjectId": "me"}).status_code


class TestOfOthers:
    """learn.microsoft.com/power-apps/developer/data-platform/understand-the-data-context"""

    def test_a_webhook_tells_both(self, crm: Client, receiver: Receiver, seller: dict, as_seller):
        endpoint = made(crm, "serviceendpoints", {"name": "hub", "contract": 8, "url": receiver.url, "authtype": 4})
        message = crm.rows("sdkmessages?$filter=name eq 'Update'")[0]["sdkmessageid"]
        body = {
            "name": "hub: Update",
            "mode": 1,
            "stage": 40,
            "rank": 1,
            "sdkmessageid@odata.bind": f"/sdkmessages({message})",
            "eventhandler_serviceendpoint@odata.bind": f"/{endpoint}",
        }
        step = made(crm, "sdkmessageprocessingsteps", body)
        account = made(crm, "accounts", owned_by(f"systemusers({seller['systemuserid']})"))
        crm.patch(account, {"fax": "1"}, headers=as_seller)

        assert eventually(lambda: len(receiver.got) > 0)
        crm.delete(step)
        context = receiver.got[0][1]
        attributes = {pair["key"]: pair["value"] for pair in context["InputParameters"][0]["value"]["Attributes"]}
        assert (seller["systemuserid"], who(crm)) == (context["UserId"], context["InitiatingUserId"])
        assert seller["azureactivedirectoryobjectid"] == context["UserAzureActiveDirectoryObjectId"]
        assert who(crm) == attributes["modifiedonbehalfby"]["Id"]

    def test_an_automation_answers_the_application_that_acts(
        self, info: Info, crm: Client, control: Control, as_seller, seller: dict
    ):
        """Source: the sandbox itself."""
        mine, others = info["crm"]["client_id"], info["crm"]["other_app"]["client_id"]
        rule = {"system": "crm", "set": "accounts", "field": "fax", "after_app": mine, "by_app": others}
        control("POST", "automations", [{**rule, "values": {"telephone2": "answered"}}])
        account = made(crm, "accounts", owned_by(f"systemusers({seller['systemuserid']})"))
        crm.patch(account, {"fax": "1"}, headers=as_seller)
        answered = eventually(lambda: crm.get(account).json()["telephone2"] == "answered")
        control("DELETE", "automations")

        assert answered
