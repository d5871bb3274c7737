"""Dataverse's security roles: what a role gives whom, how deep, and how a refusal looks."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.catalogue import Shop, a_name, key, made
from tests.sandbox.client import Client, Control, Info, error_code
from tests.sandbox.people import (
    a_role,
    a_team,
    a_unit,
    a_user,
    assign,
    give,
    owned_by,
    privilege_id,
    role_named,
    take,
    who,
)

DENIED, OUT_OF_REACH = (403, "0x80040220"), (403, "0x80048306")


@pytest.fixture(scope="module")
def info(start: Callable[..., Info]) -> Info:
    return start(seed="empty", limits=False)


@pytest.fixture(scope="module")
def other(info: Info) -> Iterator[Client]:
    """The application whose rights the tests change."""
    client = Client(info, "crm", other=True)
    yield client
    client.close()


@pytest.fixture(scope="module")
def me(other: Client) -> str:
    return who(other)


@pytest.fixture
def can(crm: Client, other: Client, me: str) -> Iterator[Callable[..., str]]:
    """Gives the other application a role with these privileges, and no other role; returns the role."""
    administrator = role_named(crm, "System Administrator")
    take(crm, me, administrator)
    given: list[str] = []

    def gives(*privileges: tuple[str, str], **more: str) -> str:
        role = a_role(crm, *privileges, **more)
        assign(crm, f"systemusers({me})", role)
        given.append(role)
        return role

    yield gives
    for role in given:
        crm.delete(f"roles({role})")
    assign(crm, f"systemusers({me})", administrator)


class TestRoles:
    """learn.microsoft.com/power-platform/admin/security-roles-privileges"""

    def test_an_application_is_a_system_administrator(self, crm: Client, me: str):
        names = [role["name"] for role in crm.rows(f"systemusers({me})/systemuserroles_association?$select=name")]

        assert ["System Administrator"] == names

    def test_are_shown_with_their_users_and_their_privileges(self, crm: Client, me: str):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/web-api-basic-operations-sample"""
        role = a_role(crm, ("ReadAccount", "Global"))
        user = crm.get(f"systemusers({me})?$select=fullname&$expand=systemuserroles_association($select=name)").json()
        shown = crm.get(f"roles({role})?$expand=roleprivileges_association($select=name)").json()

        assert ["System Administrator"] == [each["name"] for each in user["systemuserroles_association"]]
        assert ["prvReadAccount"] == [each["name"] for each in shown["roleprivileges_association"]]

    def test_are_there_again_in_each_business_unit_below(self, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/entities/role"""
        unit = a_unit(crm)
        below = a_unit(crm, unit)
        role = a_role(crm, ("ReadAccount", "Local"))
        rows = crm.rows("roles", params={"$filter": f"_parentrootroleid_value eq {role}"})
        units = {row["_businessunitid_value"]: row for row in rows}
        later = a_unit(crm, below)
        crm.patch(f"roles({role})", {"name": "Renamed"})
        copies = crm.rows("roles", params={"$filter": f"_parentrootroleid_value eq {role} and roleid ne {role}"})

        assert {unit, below} < set(units)
        assert units[unit]["roleid"] == units[below]["_parentroleid_value"]
        assert later in {row["_businessunitid_value"] for row in copies}
        assert {"Renamed"} == {row["name"] for row in copies}
        crm.delete(f"roles({role})")
        assert [] == crm.rows("roles", params={"$filter": f"_parentrootroleid_value eq {role}"})

    def test_the_administrators_role_stays_as_it_is(self, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes"""
        role = role_named(crm, "System Administrator")
        privilege = {"PrivilegeId": privilege_id(crm, "ReadAccount")}

        assert (400, "0x80041d31") == error_code(crm.patch(f"roles({role})", {"name": "Mine"}))
        assert (400, "0x80041d2e") == error_code(crm.delete(f"roles({role})"))
        assert (400, "0x80041d31") == error_code(
            crm.post(f"roles({role})/Microsoft.Dynamics.CRM.RemovePrivilegeRole", privilege)
        )

    def test_a_business_unit_is_not_below_itself(self, crm: Client):
        unit = a_unit(crm)
        below = a_unit(crm, unit)
        bind = {"parentbusinessunitid@odata.bind": f"/businessunits({below})"}

        assert (400, "0x80040203") == error_code(crm.patch(f"businessunits({unit})", bind))


class TestPrivileges:
    """learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/addprivilegesrole"""

    def test_there_is_one_for_each_thing_that_is_done_to_a_table(self, crm: Client):
        rows = {row["name"]: row for row in crm.rows("privileges")}
        of_accounts = {name: row["accessright"] for name, row in rows.items() if name.endswith("Account")}

        assert {
            "prvCreateAccount": 32,
            "prvReadAccount": 1,
            "prvWriteAccount": 2,
            "prvDeleteAccount": 65_536,
            "prvAppendAccount": 4,
            "prvAppendToAccount": 16,
            "prvAssignAccount": 524_288,
            "prvShareAccount": 262_144,
        } == of_accounts
        assert rows["prvReadAccount"]["canbebasic"]
        assert not rows["prvReadProduct"]["canbebasic"]
        assert "prvActOnBehalfOfAnotherUser" in rows

    @pytest.mark.parametrize("depth", ["Local", "1", 1])
    def test_are_given_with_a_depth_by_name_or_number(self, crm: Client, depth):
        """learn.microsoft.com/power-apps/developer/data-platform/bypass-custom-business-logic"""
        role = a_role(crm, ("ReadAccount", depth))
        held = crm.get(f"RetrieveRolePrivilegesRole(RoleId={role})").json()["RolePrivileges"]

        assert [("prvReadAccount", "Local")] == [(each["PrivilegeName"], each["Depth"]) for each in held]
        assert [2] == [
            row["privilegedepthmask"] for row in crm.rows(f"roleprivilegescollection?$filter=roleid eq {role}")
        ]

    def test_are_replaced_and_removed(self, crm: Client):
        role = a_role(crm, ("ReadAccount", "Basic"), ("WriteAccount", "Basic"))
        path = f"roles({role})/Microsoft.Dynamics.CRM."
        give(crm, role, ("ReadAccount", "Deep"))
        crm.post(f"{path}RemovePrivilegeRole", {"PrivilegeId": privilege_id(crm, "WriteAccount")})
        query = f"RetrieveRolePrivilegesRole(RoleId=@r)?@r={role}"
        first = [(each["PrivilegeName"], each["Depth"]) for each in crm.get(query).json()["RolePrivileges"]]
        new = {"PrivilegeId": privilege_id(crm, "ReadContact"), "Depth": "Global"}
        crm.post(f"{path}ReplacePrivilegesRole", {"Privileges": [new]})
        second = [(each["PrivilegeName"], each["Depth"]) for each in crm.get(query).json()["RolePrivileges"]]

        assert [("prvReadAccount", "Deep")] == first
        assert [("prvReadContact", "Global")] == second

    def test_what_belongs_to_the_organization_is_everybodys_or_nobodys(self, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/security-concepts"""
        role = a_role(crm)
        body = {"Privileges": [{"PrivilegeId": privilege_id(crm, "ReadProduct"), "Depth": "Local"}]}

        reply = crm.post(f"roles({role})/Microsoft.Dynamics.CRM.AddPrivilegesRole", body)

        assert (400, "0x80040203") == error_code(reply)

    def test_a_user_has_those_of_teams_at_the_least_depth_as_far_as_they_are_listed(self, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/retrieveuserprivileges"""
        user = a_user(crm)
        team = a_team(crm, user)
        assign(crm, f"systemusers({user})", a_role(crm, ("ReadAccount", "Local")))
        assign(crm, f"teams({team})", a_role(crm, ("ReadContact", "Global")))

        def listed(path: str) -> dict[str, str]:
            rows = crm.get(path).json()["RolePrivileges"]
            return {row["PrivilegeName"]: row["Depth"] for row in rows}

        assert {"prvReadAccount": "Local", "prvReadContact": "Basic"} == listed(
            f"systemusers({user})/Microsoft.Dynamics.CRM.RetrieveUserPrivileges"
        )
        assert {"prvReadContact": "Global"} == listed(f"teams({team})/Microsoft.Dynamics.CRM.RetrieveTeamPrivileges()")
        one = "RetrieveUserPrivilegeByPrivilegeName(PrivilegeName='prvReadContact')"
        assert {"prvReadContact": "Global"} == listed(f"systemusers({user})/Microsoft.Dynamics.CRM.{one}")

    def test_what_a_user_may_do_to_a_row_is_told(self, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/retrieveprincipalaccess"""
        user = a_user(crm)
        assign(crm, f"systemusers({user})", a_role(crm, ("ReadAccount", "Global"), ("WriteAccount", "Basic")))
        mine, theirs = (made(crm, "accounts", owned_by(f"systemusers({each})")) for each in (user, who(crm)))

        def access(account: str) -> str:
            query = f"RetrievePrincipalAccess(Target=@t)?@t={{'@odata.id':'{account}'}}"
            return crm.get(f"systemusers({user})/Microsoft.Dynamics.CRM.{query}").json()["AccessRights"]

        assert ("ReadAccess, WriteAccess", "ReadAccess") == (access(mine), access(theirs))

    def test_are_nobodys_to_write(self, crm: Client):
        assert (400, "0x80040800") == error_code(crm.post("privileges", {"name": "prvMine"}))
        assert (400, "0x80040800") == error_code(crm.post("systemuserrolescollection", {}))

    def test_those_of_a_table_are_in_its_metadata(self, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/securityprivilegemetadata"""
        told = crm.get("EntityDefinitions(LogicalName='account')?$select=Privileges").json()["Privileges"]

        assert {"Create", "Read", "Write", "Delete", "Append", "AppendTo", "Assign", "Share"} == {
            each["PrivilegeType"] for each in told
        }
        assert privilege_id(crm, "ShareAccount") in {each["PrivilegeId"] for each in told}

    def test_the_roles_of_a_user_are_found_through_the_pairs(self, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/fetchxml/join-tables#many-to-many-relationships"""
        query = """<fetch><entity name="role"><attribute name="name"/>
            <link-entity name="systemuserroles" from="roleid" to="roleid" intersect="true">
            <filter><condition attribute="systemuserid" operator="eq-userid"/></filter></link-entity></entity></fetch>"""

        assert ["System Administrator"] == [row["name"] for row in crm.rows("roles", params={"fetchXml": query})]


class TestRefusals:
    """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes"""

    def test_a_user_without_roles_may_do_nothing(self, other: Client, can):
        reply = other.get("accounts")

        assert (403, "0x80042f09") == error_code(reply)
        assert "prvReadAccount" in reply.json()["error"]["message"]
        assert 200 == other.get("WhoAmI").status_code

    def test_a_privilege_that_is_missing_is_named(self, other: Client, can, me: str):
        """learn.microsoft.com/troubleshoot/power-platform/dataverse/security/user-does-not-have-required-permissions"""
        can(("ReadAccount", "Global"))
        reply = other.post("accounts", {"name": "N"})
        message = reply.json()["error"]["message"]

        assert DENIED == error_code(reply)
        assert f"Principal user (Id={me}, type=8, roleCount=1, privilegeCount=1," in message
        assert "is missing prvCreateAccount privilege (Id=" in message
        assert " on OTC=1 for entity 'account'" in message

    def test_a_row_out_of_reach_is_named(self, crm: Client, other: Client, can, me: str):
        can(("ReadAccount", "Basic"))
        account = made(crm, "accounts", {"name": a_name("Account")})
        reply = other.get(account)
        message = reply.json()["error"]["message"]

        assert OUT_OF_REACH == error_code(reply)
        assert message.startswith(
            f"Principal with id {me} does not have ReadAccess right(s) for record with id {key('/' + account)}"
            " of entity account."
        )

    def test_one_part_of_a_batch_is_refused_like_a_request(self, other: Client, can):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/execute-batch-operations-using-web-api"""
        can(("ReadAccount", "Global"))
        lines = [
            "--b",
            "Content-Type: application/http",
            "",
            "GET contacts HTTP/1.1",
            "",
            "",
            "--b--",
            "",
        ]
        headers = {"Content-Type": "multipart/mixed; boundary=b"}

        assert 403 == other.send("POST", "$batch", data="\r\n".join(lines), headers=headers).status_code

    def test_an_order_that_becomes_invoiced_is_written(self, crm: Client, control: Control, other: Client, can):
        """learn.microsoft.com/dotnet/api/microsoft.crm.sdk.messages.convertsalesordertoinvoicerequest: privileges"""
        can(("ReadOrder", "Global"), ("WriteOrder", "Basic"), ("CreateInvoice", "Global"))
        order = Shop(crm).document("salesorders")
        control("POST", "switches", {"crm_invoiced_order": "invoiced"})
        body = {"SalesOrderId": key(order), "ColumnSet": {"AllColumns": True}}
        reply = other.post("ConvertSalesOrderToInvoice", body)
        control("POST", "switches", {"crm_invoiced_order": "as_before"})

        assert OUT_OF_REACH == error_code(reply)
        assert 0 == crm.get(order).json()["statecode"]

    def test_the_switch_of_the_control_endpoint_stands_above_the_roles(
        self, info: Info, control: Control, other: Client, can
    ):
        """Source: the sandbox itself."""
        can(("ReadAccount", "Global"))
        grant = {"system": "crm", "app": info["crm"]["other_app"]["client_id"], "entity": "account"}
        control("POST", "grants", {**grant, "operation": "read", "allowed": False})
        reply = other.get("accounts")
        control("POST", "grants", {**grant, "allowed": True})

        assert DENIED == error_code(reply)
        assert 200 == other.get("accounts").status_code

    def test_what_it_takes_may_be_about_no_table(self, info: Info, control: Control, crm: Client, other: Client):
        """Source: the sandbox itself."""
        account = made(crm, "accounts", {"name": a_name("Account")})
        privilege = "prvBypassCustomBusinessLogic"
        grant = {"system": "crm", "app": info["crm"]["other_app"]["client_id"], "entity": privilege}
        headers = {"MSCRM.BypassBusinessLogicExecution": "CustomAsync"}
        control("POST", "grants", {**grant, "allowed": False})
        reply, without = other.patch(account, {"fax": "1"}, headers=headers), other.patch(account, {"fax": "1"})
        control("POST", "grants", {**grant, "allowed": True})

        assert DENIED == error_code(reply)
        assert 204 == without.status_code
        assert 204 == other.patch(account, {"fax": "2"}, headers=headers).status_code


class TestDepth:
    """learn.microsoft.com/power-platform/admin/wp-security-cds"""

    @pytest.fixture
    def rows(self, crm: Client, me: str) -> dict[str, str]:
        """Accounts by where they stand: the user's own, in his unit, below it, beside it."""
        unit = a_unit(crm)
        below = a_unit(crm, unit)
        root = crm.get("WhoAmI").json()["BusinessUnitId"]
        crm.patch(f"systemusers({me})", {"businessunitid@odata.bind": f"/businessunits({unit})"})
        owners = {"own": me, "unit": a_user(crm, unit), "below": a_user(crm, below), "beside": a_user(crm, root)}
        yield {where: made(crm, "accounts", owned_by(f"systemusers({who})")) for where, who in owners.items()}
        crm.patch(f"systemusers({me})", {"businessunitid@odata.bind": f"/businessunits({root})"})

    @pytest.mark.parametrize(
        ("depth", "reached"),
        [
            ("Basic", {"own"}),
            ("Local", {"own", "unit"}),
            ("Deep", {"own", "unit", "below"}),
            ("Global", {"own", "unit", "below", "beside"}),
        ],
    )
    def test_says_whose_rows_are_read(self, crm: Client, other: Client, can, me: str, rows, depth, reached):
        unit = crm.get(f"systemusers({me})?$select=_businessunitid_value").json()["_businessunitid_value"]
        can(("ReadAccount", depth), unit=unit)
        found = {row["accountid"] for row in other.rows("accounts?$select=name")}
        by_id = {where for where, account in rows.items() if other.get(account).status_code == 200}
        fetched = other.rows("accounts", params={"fetchXml": '<fetch><entity name="account"/></fetch>'})

        assert reached == {where for where, account in rows.items() if key(f"/{account}") in found}
        assert reached == by_id
        assert found == {row["accountid"] for row in fetched}
        assert str(len(found)) == other.get("accounts/$count").text

    def test_what_is_written_is_held_to_its_own_privilege(self, crm: Client, other: Client, can, me: str, rows):
        unit = crm.get(f"systemusers({me})?$select=_businessunitid_value").json()["_businessunitid_value"]
        can(("ReadAccount", "Global"), ("WriteAccount", "Basic"), ("DeleteAccount", "Local"), unit=unit)

        assert 204 == other.patch(rows["own"], {"fax": "1"}).status_code
        assert OUT_OF_REACH == error_code(other.patch(rows["unit"], {"fax": "1"}))
        assert OUT_OF_REACH == error_code(other.delete(rows["below"]))
        assert 204 == other.delete(rows["unit"]).status_code

    def test_a_row_is_made_where_the_privilege_reaches(self, crm: Client, other: Client, can, me: str, rows):
        unit = crm.get(f"systemusers({me})?$select=_businessunitid_value").json()["_businessunitid_value"]
        can(("CreateAccount", "Basic"), unit=unit)
        colleague = crm.get(f"{rows['unit']}?$select=_ownerid_value").json()["_ownerid_value"]

        assert 204 == other.post("accounts", {"name": "Mine"}).status_code
        assert OUT_OF_REACH == error_code(other.post("accounts", owned_by(f"systemusers({colleague})")))

    def test_members_of_a_team_reach_its_rows(self, crm: Client, other: Client, can, me: str):
        team = a_team(crm, me)
        assign(crm, f"teams({team})", a_role(crm, ("ReadAccount", "Basic"), isinherited=0))
        of_team = made(crm, "accounts", owned_by(f"teams({team})"))
        own = made(crm, "accounts", owned_by(f"systemusers({me})"))

        assert 200 == other.get(of_team).status_code
        assert OUT_OF_REACH == error_code(other.get(own))
        crm.delete(f"teams({team})/teammembership_association({me})/$ref")
        assert (403, "0x80042f09") == error_code(other.get(of_team))


class TestPointing:
    """learn.microsoft.com/power-platform/admin/security-roles-privileges#table-privileges"""

    def test_a_lookup_takes_append_and_append_to(self, crm: Client, other: Client, can):
        account = made(crm, "accounts", {"name": a_name("Account")})
        role = can(("CreateContact", "Global"), ("ReadContact", "Global"))
        body = {"lastname": "L", "parentcustomerid_account@odata.bind": f"/{account}"}
        refusals = [other.post("contacts", body).json()["error"]["message"]]
        give(crm, role, ("AppendContact", "Global"))
        refusals.append(other.post("contacts", body).json()["error"]["message"])
        give(crm, role, ("AppendToAccount", "Global"))

        assert ["prvAppendContact" in refusals[0], "prvAppendToAccount" in refusals[1]] == [True, True]
        assert 204 == other.post("contacts", body).status_code

    def test_another_owner_takes_assign(self, crm: Client, other: Client, can, me: str):
        role = can(("WriteAccount", "Global"), ("ReadAccount", "Global"))
        account = made(crm, "accounts", owned_by(f"systemusers({who(crm)})"))
        body = {"ownerid@odata.bind": f"/systemusers({me})"}
        refusal = other.patch(account, body)
        give(crm, role, ("AssignAccount", "Global"))

        assert "prvAssignAccount" in refusal.json()["error"]["message"]
        assert 204 == other.patch(account, body).status_code

    def test_roles_are_given_by_those_who_may_assign_them(self, crm: Client, other: Client, can):
        role = can(("ReadRole", "Global"), ("ReadUser", "Global"))
        user, given = a_user(crm), a_role(crm)
        path, body = f"systemusers({user})/systemuserroles_association/$ref", {"@odata.id": f"/roles({given})"}
        refusal = other.post(path, body)
        give(crm, role, ("AssignRole", "Global"))

        assert "prvAssignRole" in refusal.json()["error"]["message"]
        assert 204 == other.post(path, body).status_code
        assert (412, "0x80040237") == error_code(other.post(path, body))


class TestWhatIsNotRead:
    """learn.microsoft.com/power-platform/admin/security-roles-privileges"""

    def test_is_not_shown_behind_a_lookup(self, crm: Client, other: Client, can, me: str):
        account = made(crm, "accounts", {"name": a_name("Hidden")})
        contact = made(crm, "contacts", {"lastname": "L", "parentcustomerid_account@odata.bind": f"/{account}"})
        can(("ReadContact", "Global"), ("ReadAccount", "Basic"))
        shown = other.get(f"{contact}?$select=lastname&$expand=parentcustomerid_account($select=name)").json()

        assert shown["parentcustomerid_account"] is None
        assert [] == other.rows(
            f"contacts?$filter=contactid eq {key('/' + contact)} and parentcustomerid_account/name ne null"
        )

    def test_has_no_collections_either(self, crm: Client, other: Client, can):
        account = made(crm, "accounts", {"name": a_name("Hidden")})
        made(crm, "contacts", {"lastname": "L", "parentcustomerid_account@odata.bind": f"/{account}"})
        can(("ReadContact", "Global"), ("ReadAccount", "Basic"))

        assert (403, "0x80048306") == error_code(other.get(f"{account}/contact_customer_accounts"))
        assert (403, "0x80048306") == error_code(other.get(f"{account}/contact_customer_accounts/$count"))

    def test_is_not_in_a_delta(self, crm: Client, other: Client, can, me: str):
        """learn.microsoft.com/power-apps/developer/data-platform/use-change-tracking-synchronize-data-external-systems"""
        can(("ReadAccount", "Basic"))
        link = other.get("accounts?$select=name", prefer="odata.track-changes").json()["@odata.deltaLink"]
        made(crm, "accounts", {"name": "Hidden"})
        mine = made(crm, "accounts", owned_by(f"systemusers({me})"))

        assert [key(f"/{mine}")] == [row["accountid"] for row in other.get(link).json()["value"]]

    def test_backdating_takes_a_privilege(self, crm: Client, other: Client, can):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/entities/account#BKMK_OverriddenCreatedOn"""
        can(("CreateAccount", "Global"))
        reply = other.post("accounts", {"name": "Old", "overriddencreatedon": "2020-02-03"})

        assert "prvOverrideCreatedOnCreatedBy" in reply.json()["error"]["message"]


class TestNamedPrivileges:
    """learn.microsoft.com/power-apps/developer/data-platform/bypass-custom-business-logic"""

    @pytest.mark.parametrize(
        ("header", "value", "privilege"),
        [
            ("MSCRM.BypassBusinessLogicExecution", "CustomSync", "BypassCustomBusinessLogic"),
            (
                "MSCRM.BypassBusinessLogicExecutionStepIds",
                "00000000-0000-4000-8000-000000000001",
                "BypassCustomBusinessLogic",
            ),
            ("MSCRM.BypassCustomPluginExecution", "true", "BypassCustomPlugins"),
        ],
    )
    def test_let_a_request_pass_by_custom_logic(self, crm: Client, other: Client, can, header, value, privilege):
        role = can(("CreateAccount", "Global"))
        refusal = other.post("accounts", {"name": "N"}, headers={header: value})
        give(crm, role, (privilege, "Global"))

        assert f"prv{privilege}" in refusal.json()["error"]["message"]
        assert 204 == other.post("accounts", {"name": "N"}, headers={header: value}).status_code

    def test_let_an_alternate_key_be_made(self, crm: Client, other: Client, can):
        role = can()
        path, body = "EntityDefinitions(LogicalName='account')/Keys", {"SchemaName": "k", "KeyAttributes": ["fax"]}
        refusal = other.post(path, body)
        give(crm, role, ("WriteEntity", "Global"))
        made_now = other.post(path, body)
        crm.delete(f"{path}(k)")

        assert DENIED == error_code(refusal)
        assert 204 == made_now.status_code

    def test_a_parameter_of_a_function_is_read_strictly(self, crm: Client, me: str):
        path = f"systemusers({me})/Microsoft.Dynamics.CRM.RetrieveUserPrivilegeByPrivilegeName"

        assert 400 == crm.get(f"{path}(PrivilegeName=prvReadAccount)").status_code
        assert 400 == crm.get(f"{path}(PrivilegeName=@p)").status_code
        assert 405 == crm.post(path, {}).status_code


class TestBackdating:
    """learn.microsoft.com/power-apps/developer/data-platform/reference/entities/account#BKMK_OverriddenCreatedOn"""

    def test_a_row_that_was_made_elsewhere_keeps_that_day(self, crm: Client):
        body = {"name": "Old", "overriddencreatedon": "2020-02-03"}
        row = crm.post("accounts", body, prefer="return=representation").json()

        assert "2020-02-03T00:00:00Z" == row["createdon"]
        assert row["modifiedon"][:10] == row["overriddencreatedon"]


class TestSharing:
    """learn.microsoft.com/power-apps/developer/data-platform/security-sharing-assigning"""

    def share(self, crm: Client, account: str, principal: str, mask: str, *, verb: str = "GrantAccess") -> int:
        table, row_id = principal.split("(")
        kind = table.removesuffix("s")
        body = {
            "Target": {"accountid": key(f"/{account}"), "@odata.type": "Microsoft.Dynamics.CRM.account"},
            "PrincipalAccess": {
                "Principal": {f"{kind}id": row_id[:-1], "@odata.type": f"Microsoft.Dynamics.CRM.{kind}"},
                "AccessMask": mask,
            },
        }
        return crm.post(verb, body).status_code

    def test_reaches_a_row_that_roles_do_not(self, crm: Client, other: Client, can, me: str):
        can(("ReadAccount", "Basic"), ("WriteAccount", "Basic"))
        account = made(crm, "accounts", {"name": a_name("Shared")})
        before = other.get(account)
        granted = self.share(crm, account, f"systemusers({me})", "ReadAccess")
        listed = [row["accountid"] for row in other.rows("accounts?$select=name")]

        assert (OUT_OF_REACH, 204) == (error_code(before), granted)
        assert [key(f"/{account}")] == [each for each in listed if each == key(f"/{account}")]
        assert OUT_OF_REACH == error_code(other.patch(account, {"fax": "1"}))
        self.share(crm, account, f"systemusers({me})", "WriteAccess")
        assert (200, 204) == (other.get(account).status_code, other.patch(account, {"fax": "1"}).status_code)

    def test_gives_nothing_that_no_role_gives(self, crm: Client, other: Client, can, me: str):
        can(("ReadAccount", "Basic"))
        account = made(crm, "accounts", {"name": a_name("Shared")})
        self.share(crm, account, f"systemusers({me})", "ReadAccess, WriteAccess")

        assert DENIED == error_code(other.patch(account, {"fax": "1"}))

    def test_with_a_team_reaches_its_members(self, crm: Client, other: Client, can, me: str):
        can(("ReadAccount", "Basic"))
        account = made(crm, "accounts", {"name": a_name("Shared")})
        self.share(crm, account, f"teams({a_team(crm, me)})", "ReadAccess")

        assert 200 == other.get(account).status_code

    def test_is_listed_changed_and_taken_back(self, crm: Client, me: str):
        account, user = made(crm, "accounts", {"name": a_name("Shared")}), f"systemusers({me})"
        query = f"RetrieveSharedPrincipalsAndAccess(Target=@t)?@t={{'@odata.id':'{account}'}}"

        def listed() -> list[tuple[str, str]]:
            found = crm.get(query).json()["PrincipalAccesses"]
            return [(each["Principal"]["systemuserid"], each["AccessMask"]) for each in found]

        self.share(crm, account, user, "ReadAccess")
        self.share(crm, account, user, "DeleteAccess")
        first = listed()
        self.share(crm, account, user, "WriteAccess", verb="ModifyAccess")
        second = listed()
        crm.post("RevokeAccess", {"Target": {"@odata.id": account}, "Revokee": {"@odata.id": user}})

        assert ([(me, "ReadAccess, DeleteAccess")], [(me, "WriteAccess")]) == (first, second)
        assert [] == listed()

    def test_ends_with_the_team(self, crm: Client, me: str):
        account, team = made(crm, "accounts", {"name": a_name("Shared")}), f"teams({a_team(crm, me)})"
        self.share(crm, account, team, "ReadAccess")
        deleted = crm.delete(team)
        query = f"RetrieveSharedPrincipalsAndAccess(Target=@t)?@t={{'@odata.id':'{account}'}}"

        assert 204 == deleted.status_code
        assert [] == crm.get(query).json()["PrincipalAccesses"]

    def test_takes_the_right_to_share_and_what_is_given(self, crm: Client, other: Client, can, me: str):
        role = can(("ReadAccount", "Basic"))
        account, user = made(crm, "accounts", owned_by(f"systemusers({me})")), f"systemusers({a_user(crm)})"
        first = self.share(other, account, user, "ReadAccess")
        give(crm, role, ("ShareAccount", "Basic"))

        assert (403, 204) == (first, self.share(other, account, user, "ReadAccess"))
        assert 403 == self.share(other, account, user, "WriteAccess")

    def test_of_what_nobody_owns_or_of_no_right_is_refused(self, crm: Client, me: str):
        account = made(crm, "accounts", {"name": a_name("Shared")})
        body = {
            "Target": {"@odata.id": f"businessunits({crm.get('WhoAmI').json()['BusinessUnitId']})"},
            "PrincipalAccess": {"Principal": {"@odata.id": f"systemusers({me})"}, "AccessMask": "ReadAccess"},
        }

        assert 400 == crm.post("GrantAccess", body).status_code
        assert 400 == self.share(crm, account, f"systemusers({me})", "EveryAccess")


class TestRestart:
    """Source: the sandbox itself."""

    def test_roles_are_kept_and_those_of_before_there_were_any_are_made(
        self, running: Callable[..., Any], tmp_path: Path
    ):
        path = tmp_path / "sandbox.sqlite"

        def read() -> tuple[int, int]:
            with running(seed="empty", limits=False, db=path) as info:
                client, other = Client(info, "crm"), Client(info, "crm", other=True)
                found = client.get("accounts").status_code, other.get("accounts").status_code
                client.close()
                other.close()
            return found

        with running(seed="empty", limits=False, db=path) as first:
            crm, other = Client(first, "crm"), Client(first, "crm", other=True)
            take(crm, who(other), role_named(crm, "System Administrator"))
            crm.close()
            other.close()
        second = read()
        with sqlite3.connect(path) as database:
            tables = ("role", "privilege", "systemuserroles", "teamroles", "roleprivileges")
            database.executemany("DELETE FROM rows WHERE system = 'crm' AND name = ?", [(name,) for name in tables])
        database.close()
        third = read()

        assert ((200, 403), (200, 200)) == (second, third)
