"""Several environments of one Business Central, fact by fact.

https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/endpoints-apis-for-dynamics
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drawbar.sandbox.erp.model import CUSTOM
from drawbar.sandbox.server import SandboxError, SandboxOptions, start_in_thread
from tests.sandbox.client import Client, Control, Info, error_code, eventually, session
from tests.sandbox.conftest import Receiver


@pytest.fixture(scope="module")
def info(start: Callable[..., Info]) -> Info:
    return start(seed="empty", environments=("production",), limits=False, erp_webhook_delay_s=0.2)


@pytest.fixture(scope="module")
def production(info: Info) -> Iterator[Client]:
    client = Client(info, "erp")
    other = info["erp"]["environments"]["production"]
    client.root = other["base_url"]
    client.base = f"{client.root}/companies({other['company_id']})"
    yield client
    client.close()


class TestEnvironments:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/endpoints-apis-for-dynamics"""

    def test_stand_in_the_path_after_the_tenant_or_without_it(self, info: Info, production: Client):
        tenant = info["sign_in"]["tenant_id"]
        without = production.root.replace(f"/{tenant}", "")

        assert production.root.endswith(f"/v2.0/{tenant}/production/api/v2.0")
        assert 200 == production.get(f"{production.root}/companies").status_code
        assert (
            production.get(f"{without}/companies").json()["value"]
            == production.get(f"{production.root}/companies").json()["value"]
        )

    def test_leave_the_first_to_the_connection_file(self, info: Info):
        first = info["erp"]["environments"]["sandbox"]

        assert (info["erp"]["base_url"], info["erp"]["company_id"]) == (first["base_url"], first["company_id"])

    def test_have_companies_and_data_of_their_own(self, info: Info, erp: Client, production: Client):
        made = production.post("customers", {"displayName": "Productive", "number": "P1"}).json()

        (company,) = production.get(f"{production.root}/companies").json()["value"]
        assert company["id"] != info["erp"]["company_id"]
        assert ["P1"] == [row["number"] for row in production.rows("customers")]
        assert [] == erp.rows("customers")
        assert made["@odata.context"].startswith(f"{production.root}/$metadata#")
        elsewhere = f"{erp.root}/companies({company['id']})/customers"
        assert (404, "Internal_CompanyNotFound") == error_code(erp.get(elsewhere))

    def test_begin_set_up_and_without_business(self, erp: Client, production: Client):
        for set_name in ("paymentTerms", "countriesRegions", "currencies", "companyInformation"):
            assert len(erp.rows(set_name)) == len(production.rows(set_name)) > 0

    def test_serve_the_same_routes(self, production: Client):
        url = f"{production.base.replace('/api/v2.0', f'/api/{CUSTOM}')}/shippingAgents"
        made = production.post(url, {"code": "DHL"})

        assert (201, ["DHL"]) == (made.status_code, [row["code"] for row in production.rows(url)])

    def test_take_one_token_and_one_set_of_rights(self, info: Info, production: Client, control: Control):
        app = {"system": "erp", "app": info["erp"]["client_id"], "entity": "items", "operation": "create"}
        control("POST", "grants", {**app, "allowed": False})
        refused = production.post("items", {"displayName": "N"})
        control("POST", "grants", {**app, "allowed": True})

        assert (403, "Authorization_RequestDenied") == error_code(refused)

    def test_have_subscriptions_of_their_own(self, info: Info, erp: Client, production: Client, receiver: Receiver):
        company = info["erp"]["environments"]["production"]["company_id"]
        resource = f"api/v2.0/companies({company})/contacts"
        body = {"notificationUrl": receiver.url, "resource": resource}
        key = production.post(f"{production.root}/subscriptions", body).json()["subscriptionId"]
        made = production.post("contacts", {"displayName": "Told"}).json()

        assert [] == erp.get(f"{erp.root}/subscriptions").json()["value"]
        assert eventually(lambda: len(receiver.got) > 0)
        production.delete(f"{production.root}/subscriptions('{key}')")
        assert [f"{resource}({made['id']})"] == [entry["resource"] for entry in receiver.got[0][1]["value"]]

    def test_that_are_not_there_are_not_found(self, erp: Client):
        """From the gateway, as it was recorded: XML, or JSON where that is asked for."""
        url = erp.root.replace("/sandbox/api", "/nowhere/api") + "/companies"
        reply = erp.get(url)

        assert (404, True) == (reply.status_code, "<code>NoEnvironment</code>" in reply.text)
        assert (404, "NoEnvironment") == error_code(erp.get(url, headers={"Accept": "application/json"}))

    def test_are_listed_for_administrators(self, info: Info, erp: Client, control: Control):
        """learn.microsoft.com/dynamics365/business-central/dev-itpro/webservices/api-get-environments"""
        origin = erp.root.partition("/v2.0/")[0]
        rule = {"system": "erp", "app": info["erp"]["client_id"], "entity": "environments"}
        rows = erp.get(f"{origin}/environments/v1.2").json()["value"]
        control("POST", "grants", {**rule, "allowed": False})
        refused = erp.get(f"{origin}/environments/v1.2")
        control("POST", "grants", {**rule, "allowed": True})

        assert [("sandbox", "Sandbox"), ("production", "Production")] == [(row["name"], row["type"]) for row in rows]
        assert {info["sign_in"]["tenant_id"]} == {row["aadTenantId"] for row in rows}
        assert (403, "Authorization_RequestDenied") == error_code(refused)
        assert 401 == session(info).get(f"{origin}/environments/v1.2").status_code

    def test_are_named_to_the_control_endpoint(self, info: Info, control: Control, production: Client):
        other = control("POST", "companies", {"name": "Second there", "environment": "production"})
        edit = {"system": "erp", "app": info["erp"]["client_id"], "set": "items", "environment": "production"}
        made = control("POST", "edit", {**edit, "company": other["id"], "values": {"displayName": "Edited"}})[0]

        assert [made["id"]] == [row["id"] for row in control("GET", "truth/erp/items?environment=production")]
        assert [] == control("GET", "truth/erp/items")
        assert 2 == len(production.get(f"{production.root}/companies").json()["value"])
        url = f"{info['control_url']}/truth/erp/items?environment=nowhere"
        assert 400 == control.http.get(url, timeout=10).status_code

    @pytest.mark.parametrize("name", ["sandbox", "", "a/b"])
    def test_have_names_that_can_stand_in_a_path_once(self, start: Callable[..., Info], name):
        with pytest.raises(SandboxError) as refused:
            start(seed="empty", environments=(name,))

        assert isinstance(refused.value.__cause__, SandboxError)

    def test_are_kept_in_the_database_with_their_data(self, certificates: Path, tmp_path: Path):
        shutil.copytree(certificates, tmp_path, dirs_exist_ok=True)
        options = SandboxOptions(
            state_dir=tmp_path, seed="empty", environments=("uat",), limits=False, db=tmp_path / "data.db"
        )
        kept = []
        for _ in range(2):
            info, stop = start_in_thread(options)
            control = Control(info)
            edit = {"system": "erp", "app": info["erp"]["client_id"], "set": "items", "environment": "uat"}
            control("POST", "edit", {**edit, "values": {"displayName": "Kept"}})
            items = control("GET", "truth/erp/items?environment=uat")
            kept.append((info["erp"]["environments"]["uat"]["company_id"], len(items)))
            control.close()
            stop()

        assert [(kept[0][0], 1), (kept[0][0], 2)] == kept
