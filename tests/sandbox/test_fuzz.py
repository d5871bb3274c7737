"""Whatever a client sends is answered as the services answer: taken, or refused with a reason, and nothing half done.

In `make test` each test draws the same few examples every time. To search on, give a factor for their number:
`FUZZ=100 .venv/bin/pytest tests/sandbox/test_fuzz.py` draws a hundred times as many, others each time. What was found
so is pinned in `test_malformed.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sandbox import odd
from tests.sandbox.catalogue import Shop, made
from tests.sandbox.in_process import Answer, World

DOCUMENTED = b"The batch exceeds the maximum of 100 operations"  # Business Central's own 500
FACTOR = int(os.environ.get("FUZZ", "1"))
SUPPRESSED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


def examples(number: int) -> Any:
    return settings(
        max_examples=number * FACTOR,
        derandomize=FACTOR == 1,
        database=None,
        suppress_health_check=[*SUPPRESSED, HealthCheck.filter_too_much, HealthCheck.large_base_example],
    )


@pytest.fixture(scope="module")
def world(certificates: Path) -> Iterator[World]:
    made = World(certificates, seed="empty")
    made.bases = furnish(made)
    made.shapes = {"erp": odd.erp_shapes(made), "crm": odd.crm_shapes(made)}
    made.crm_sets = sorted(made.shapes["crm"])
    made.crm_tables = sorted(made.crm.records.entities)
    yield made
    made.close()


def furnish(world: World) -> dict[str, dict[str, dict[str, Any]]]:
    """A few rows of most sets, documents in several states. Returns bodies that make one more, by system and set."""
    erp, crm = world.client("erp"), world.client("crm")
    customers = [erp.post("customers", {"displayName": name}).json()["id"] for name in ("Alpha", "Ärger & Söhne", "Γ")]
    person = erp.post("contacts", {"displayName": "Pia Person", "type": "Person", "companyName": "Alpha"}).json()
    erp.post("opportunities", {"description": "Chance", "contactNumber": person["number"]})
    items = [erp.post("items", {"displayName": name, "unitPrice": 10}).json()["id"] for name in ("Bolt", "Nut")]
    erp.post("itemVariants", {"itemId": items[0], "code": "RED"})
    for set_name, lines in (
        ("salesQuotes", "salesQuoteLines"),
        ("salesOrders", "salesOrderLines"),
        ("salesInvoices", "salesInvoiceLines"),
    ):
        for customer in customers:
            line = {
                "lineType": "Item",
                "lineObjectNumber": erp.get(f"items({items[0]})").json()["number"],
                "quantity": 2,
            }
            assert 201 == erp.post(set_name, {"customerId": customer, lines: [line]}).status_code
    invoice = erp.get("salesInvoices").json()["value"][0]["id"]
    assert 204 == erp.post(f"salesInvoices({invoice})/Microsoft.NAV.post", None).status_code
    order = erp.get("salesOrders").json()["value"][0]["id"]
    assert 204 == erp.post(f"salesOrders({order})/Microsoft.NAV.shipAndInvoice", None).status_code
    for table, columns in (("account", ["accountnumber"]), ("contact", ["lastname", "parentcustomerid"])):
        key = {"SchemaName": f"key_{table}", "KeyAttributes": columns}
        assert 204 == crm.post(f"EntityDefinitions(LogicalName='{table}')/Keys", key).status_code
    assert (
        204
        == crm.post(
            "EntityDefinitions(LogicalName='product')/Keys", {"SchemaName": "n", "KeyAttributes": ["quantitydecimal"]}
        ).status_code
    )
    shop = Shop(crm)
    contact = made(crm, "contacts", {"lastname": "Nell", "parentcustomerid_account@odata.bind": f"/{shop.account}"})
    made(crm, "annotations", {"subject": "Note", "objectid_account@odata.bind": f"/{shop.account}"})
    made(crm, "opportunities", {"name": "O", "parentcontactid@odata.bind": f"/{contact}"})
    for set_name in ("quotes", "salesorders", "invoices"):
        shop.line(shop.document(set_name))
        shop.line(shop.document(set_name))
    quote = shop.document("quotes")
    assert 204 == crm.patch(quote, {"statecode": 1, "statuscode": 3}).status_code
    number = erp.get(f"items({items[0]})").json()["number"]
    of_erp: dict[str, dict[str, Any]] = {
        "opportunities": {"description": "N", "contactNumber": person["number"]},
        "itemVariants": {"itemId": items[0], "code": "NEW"},
        "customerContacts": {"displayName": "N", "customerId": customers[0]},
        "priceLists": {},
        "resources": {},
        "itemUnitsOfMeasure": {"itemNumber": number, "code": "KG"},
        "resourceUnitsOfMeasure": {"code": "KG"},
        "customers": {"displayName": "N"},
        "contacts": {"displayName": "N"},
        "items": {"displayName": "N"},
    }
    for set_name, line, parent in (
        ("salesQuotes", "salesQuoteLines", "documentId"),
        ("salesOrders", "salesOrderLines", "documentId"),
        ("salesInvoices", "salesInvoiceLines", "documentId"),
    ):
        document = erp.post(set_name, {"customerId": customers[0]}).json()["id"]
        of_erp[set_name] = {"customerId": customers[0]}
        of_erp[line] = {parent: document, "lineType": "Item", "lineObjectNumber": number, "quantity": 1}
    of_crm: dict[str, dict[str, Any]] = {
        "contacts": {"lastname": "N"},
        "uomschedules": {"name": "N", "baseuomname": "P"},
        "uoms": {
            "name": "N",
            "quantity": 2,
            "uomscheduleid@odata.bind": f"/{shop.units[0]}",
            "baseuom@odata.bind": f"/{shop.unit}",
        },
        "products": {
            "name": "N",
            "productnumber": "N",
            "defaultuomscheduleid@odata.bind": f"/{shop.units[0]}",
            "defaultuomid@odata.bind": f"/{shop.unit}",
            "quantitydecimal": 2,
        },
        "annotations": {"subject": "N", "objectid_account@odata.bind": f"/{shop.account}"},
    }
    for set_name in ("quotes", "salesorders", "invoices"):
        of_crm[set_name] = {
            "name": "N",
            "customerid_account@odata.bind": f"/{shop.account}",
            "pricelevelid@odata.bind": f"/{shop.price_list}",
        }
        of_crm[f"{set_name[:-1]}details"] = shop.line_body(shop.document(set_name))
    return {"erp": of_erp, "crm": of_crm}


@pytest.fixture(autouse=True)
def as_it_was(world: World) -> Iterator[None]:
    kept = world.keep()
    yield
    world.restore(kept)


def check_error(system: str, answer: Answer, method: str) -> None:
    """A refusal in the service's own words."""
    if method == "HEAD" or (system == "crm" and answer.status == 401):
        return
    error = answer.json()["error"]
    assert answer.headers["content-type"].startswith("application/json")
    assert isinstance(error["code"], str)
    assert error["code"]
    assert isinstance(error["message"], str)


def check_read_back(world: World, system: str, sent: odd.Sent, answer: Answer) -> None:
    """What a write answered with is what a read finds."""
    if sent.method not in ("POST", "PATCH"):
        return
    wrote = answer.json() if answer.headers.get("content-type", "").startswith("application/json") else {}
    address = answer.headers.get("location") or answer.headers.get("odata-entityid")
    if address is None and wrote.get("@odata.etag") and system == "erp" and sent.method == "PATCH":
        address = sent.target.partition("?")[0]
    if address is None:
        return
    path = urlsplit(address).path
    headers = {"authorization": f"Bearer {world.tokens[system]}"}
    found = world.send(system, "GET", path, headers)
    if found.status in (404, 405) and "salesShipment" in path:
        return
    assert 200 == found.status, (path, found.body)
    read = found.json()
    for name, value in wrote.items():
        if name in read and not isinstance(value, (dict, list)) and not name.startswith("@odata.context"):
            assert value == read[name], name


def carry_out(world: World, system: str, sent: odd.Sent, *, batch: bool = False) -> Answer:
    before = world.whole(system)
    headers = {"authorization": f"Bearer {world.tokens[system]}", "content-type": "application/json", **sent.headers}
    answer = world.send(system, sent.method, sent.target, headers, sent.body)
    assert answer.status < 500 or DOCUMENTED in answer.body, answer.body
    if answer.status >= 400 and not (batch and "multipart" in answer.headers.get("content-type", "")):
        check_error(system, answer, sent.method)
        assert before == world.whole(system), "a refused write changed something"
    elif sent.method in ("GET", "HEAD", "OPTIONS", "TRACE"):
        assert before == world.whole(system), "reading changed something"
    if answer.status < 300 and not batch:
        check_read_back(world, system, sent, answer)
    return answer


class TestBusinessCentral:
    @examples(600)
    @given(data=st.data())
    def test_answers_whatever_is_sent(self, world: World, data: st.DataObject):
        kept = world.keep()
        carry_out(
            world, "erp", data.draw(st.one_of(odd.erp_reads(world), odd.erp_writes(world), odd.erp_requests(world)))
        )
        world.restore(kept)
        assert 200 == world.ask("erp", "GET", "customers?$top=1").status

    @examples(150)
    @given(data=st.data())
    def test_answers_every_part_of_a_batch(self, world: World, data: st.DataObject):
        kept = world.keep()
        answer = carry_out(world, "erp", data.draw(odd.erp_batches(world)), batch=True)
        if answer.status == 200 and answer.body:
            for part in answer.json().get("responses", ()):
                assert part["status"] < 500
                assert part["status"] < 400 or part["body"]["error"]["code"]
        world.restore(kept)

    @examples(100)
    @given(data=st.data())
    def test_shows_the_door_to_whoever_is_not_signed_in(self, world: World, data: st.DataObject):
        header = data.draw(odd.authorizations(world))
        for system in ("erp", "crm"):
            answer = world.send(system, "GET", world.below(system, ""), {"authorization": header})
            assert answer.status in (401, 200 if header.split()[1:] == [world.tokens["erp"]] else 401)


class TestDataverse:
    @examples(700)
    @given(data=st.data())
    def test_answers_whatever_is_sent(self, world: World, data: st.DataObject):
        kept = world.keep()
        carry_out(
            world, "crm", data.draw(st.one_of(odd.crm_reads(world), odd.crm_writes(world), odd.crm_requests(world)))
        )
        world.restore(kept)
        assert 200 == world.ask("crm", "GET", "accounts?$top=1").status

    @examples(250)
    @given(data=st.data())
    def test_answers_every_part_of_a_batch(self, world: World, data: st.DataObject):
        kept = world.keep()
        answer = carry_out(world, "crm", data.draw(odd.crm_batches(world)), batch=True)
        assert b"HTTP/1.1 5" not in answer.body
        world.restore(kept)


PLAIN = {
    "erp": ("customers", ("addressLine1", "addressLine2", "website", "email", "phoneNumber", "state")),
    "crm": ("accounts", ("telephone1", "fax", "description", "websiteurl", "address1_line1", "tickersymbol")),
}


class TestBoth:
    @examples(200)
    @given(data=st.data())
    @pytest.mark.parametrize("system", ["erp", "crm"])
    def test_keep_what_is_written_to_the_letter(self, world: World, data: st.DataObject, system: str):
        kept = world.keep()
        set_name, columns = PLAIN[system]
        body = data.draw(st.dictionaries(st.sampled_from(columns), odd.texts, min_size=1))
        path = f"{set_name}({world.shapes[system][set_name].ids[0]})"
        before = world.ask(system, "GET", path).json()
        answer = world.ask(system, "PATCH", path, body=body, if_match="*")
        after = world.ask(system, "GET", path).json()

        taken = {name: value or (None if system == "crm" else "") for name, value in body.items()}
        wanted = {**before, **taken} if answer.status < 300 else before
        assert {name: wanted[name] for name in columns} == {name: after[name] for name in columns}
        assert (answer.status < 300) or (before == after)
        world.restore(kept)


class TestSignIn:
    @examples(150)
    @given(data=st.data())
    def test_answers_whatever_is_sent(self, world: World, data: st.DataObject):
        sent = data.draw(odd.sign_in_requests(world))
        answer = world.send("sign_in", sent.method, sent.target, sent.headers, sent.body)

        assert answer.status < 500, answer.body
        if answer.status >= 400:
            assert answer.json()["error"]


class TestControl:
    @examples(300)
    @given(data=st.data())
    def test_follows_a_call_or_says_why_not(self, world: World, data: st.DataObject):
        kept = world.keep()
        method, path, body = data.draw(odd.control_calls(world))
        answer = world.command(method, path, body)
        assert answer.status in (200, 400, 404, 405), answer.body
        if answer.status != 200:
            assert answer.json()["error"]
        for system in ("erp", "crm"):
            world.ask(system, "GET", "customers?$top=1" if system == "erp" else "accounts?$top=1")
        lift(world)
        world.restore(kept)
        assert 200 == world.ask("erp", "GET", "customers?$top=1").status
        assert 200 == world.ask("crm", "GET", "accounts?$top=1").status


def lift(world: World) -> None:
    """All that the control endpoint can set, as it was at the start, by its own calls; tokens may have expired."""
    for call in ("faults", "automations", "requests"):
        assert 200 == world.command("DELETE", call).status
    for app in ("erp", "crm"):
        for client in (world.info[app]["client_id"], world.info[app]["other_app"]["client_id"]):
            assert 200 == world.command("POST", "grants", json.dumps({"app": client, "allowed": True}).encode()).status
    for call, body in (
        ("clock", {"reset": True}),
        ("latency", {"ms": 0}),
        ("limits", {"on": False, "scale": 1, "window_s": 300}),
        (
            "switches",
            {
                "post_codes": True,
                "customer_template": {},
                "tax_rates": {"TAXABLE": 5},
                "full_name": "first_middle_last",
            },
        ),
    ):
        assert 200 == world.command("POST", call, json.dumps(body).encode()).status
    world.sign_in()
