"""Roles, users and business units of a Dataverse as tests need them."""

from __future__ import annotations

from typing import Any

from tests.sandbox.catalogue import a_name, key, made
from tests.sandbox.client import Client

Privilege = tuple[str, str]  # its name without `prv`, its depth


def who(client: Client) -> str:
    return client.get("WhoAmI").json()["UserId"]


def role_named(crm: Client, name: str, unit: str | None = None) -> str:
    """The id of a role: that of the topmost business unit, or of the one that is named."""
    where = f"_businessunitid_value eq {unit}" if unit else "_parentroleid_value eq null"
    return crm.rows("roles", params={"$filter": f"name eq '{name}' and {where}"})[0]["roleid"]


def privilege_id(crm: Client, name: str) -> str:
    return crm.rows("privileges", params={"$filter": f"name eq 'prv{name}'"})[0]["privilegeid"]


def give(crm: Client, role: str, *privileges: Privilege) -> None:
    body = {"Privileges": [{"PrivilegeId": privilege_id(crm, name), "Depth": depth} for name, depth in privileges]}
    reply = crm.post(f"roles({role})/Microsoft.Dynamics.CRM.AddPrivilegesRole", body)
    assert 204 == reply.status_code, reply.text


def a_role(crm: Client, *privileges: Privilege, unit: str | None = None, **more: Any) -> str:
    unit = unit or crm.get("WhoAmI").json()["BusinessUnitId"]
    body = {"name": a_name("Role"), "businessunitid@odata.bind": f"/businessunits({unit})", **more}
    role = key(f"/{made(crm, 'roles', body)}")
    give(crm, role, *privileges)
    return role


def assign(crm: Client, who_gets_it: str, role: str) -> None:
    """`who_gets_it` is the path of a user or a team."""
    kind = "systemuserroles" if who_gets_it.startswith("systemusers") else "teamroles"
    reply = crm.post(f"{who_gets_it}/{kind}_association/$ref", {"@odata.id": f"{crm.root}/roles({role})"})
    assert 204 == reply.status_code, reply.text


def take(crm: Client, user: str, role: str) -> None:
    reply = crm.delete(f"{crm.root}/systemusers({user})/systemuserroles_association/$ref?$id={crm.root}/roles({role})")
    assert 204 == reply.status_code, reply.text


def a_unit(crm: Client, parent: str | None = None) -> str:
    parent = parent or crm.get("WhoAmI").json()["BusinessUnitId"]
    body = {"name": a_name("Unit"), "parentbusinessunitid@odata.bind": f"/businessunits({parent})"}
    return key(f"/{made(crm, 'businessunits', body)}")


def a_user(crm: Client, unit: str | None = None) -> str:
    unit = unit or crm.get("WhoAmI").json()["BusinessUnitId"]
    name = a_name("user")
    body = {
        "firstname": "Ada",
        "lastname": name,
        "domainname": f"{name.replace(' ', '.')}@harborvale.example",
        "internalemailaddress": f"{name.replace(' ', '.')}@harborvale.example",
        "businessunitid@odata.bind": f"/businessunits({unit})",
    }
    return key(f"/{made(crm, 'systemusers', body)}")


def a_team(crm: Client, *members: str, unit: str | None = None) -> str:
    unit = unit or crm.get("WhoAmI").json()["BusinessUnitId"]
    body = {"name": a_name("Team"), "teamtype": 0, "businessunitid@odata.bind": f"/businessunits({unit})"}
    team = key(f"/{made(crm, 'teams', body)}")
    for member in members:
        reply = crm.post(f"teams({team})/teammembership_association/$ref", {"@odata.id": f"/systemusers({member})"})
        assert 204 == reply.status_code, reply.text
    return team


def owned_by(owner: str, **more: Any) -> dict[str, Any]:
    """The body of an account; `owner` is the path of a user or a team."""
    return {"name": a_name("Account"), "ownerid@odata.bind": f"/{owner}", **more}
