"""What may be made to go wrong, and what is told to those who test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.sandbox.client import Client, Control, Info, error_code, eventually, session


@pytest.fixture
def rules(control: Control) -> Iterator[Callable[..., None]]:
    """Sets fault rules and lifts them in the end."""
    yield lambda *given: control("POST", "faults", list(given))
    control("DELETE", "faults")


@pytest.fixture
def customer(erp: Client):
    return erp.post("customers", {"displayName": "Target", "phoneNumber": "1"}).json()


class TestFaults:
    def test_a_lost_reply_is_a_write_that_happened(self, erp: Client, customer, rules):
        path = f"customers({customer['id']})"
        rules({"system": "erp", "method": "PATCH", "path": r"customers\(", "action": "lose_reply"})

        with pytest.raises(requests.ConnectionError):
            erp.patch(path, {"phoneNumber": "2"}, tag="*")

        assert "2" == erp.get(path).json()["phoneNumber"]

    def test_a_cut_is_a_write_that_did_not_happen(self, crm: Client, rules):
        count = crm.get("accounts/$count").text
        rules({"system": "crm", "method": "POST", "action": "cut"})

        with pytest.raises(requests.ConnectionError):
            crm.post("accounts", {"name": "Never"})

        assert count == crm.get("accounts/$count").text

    def test_a_duplicate_is_a_request_carried_out_twice(self, erp: Client, control: Control, customer, rules):
        name = f"Twice {customer['number']}"
        rules({"system": "erp", "method": "POST", "path": "customers", "action": "duplicate"})
        made = erp.post("customers", {"displayName": name}).json()
        rules({"system": "erp", "method": "PATCH", "action": "duplicate"})
        second = erp.patch(f"customers({made['id']})", {"phoneNumber": "5"}, tag=made["@odata.etag"])

        assert 2 == len(erp.rows(f"customers?$filter=displayName eq '{name}'"))
        assert (409, "Request_EntityChanged") == error_code(second)

    def test_a_rule_waits_for_its_turn_and_ends(self, crm: Client, control: Control, rules):
        rules({"system": "crm", "path": "WhoAmI", "after": 1, "times": 2, "action": "status", "status": 503})

        assert [200, 503, 503, 200] == [crm.get("WhoAmI").status_code for _ in range(4)]
        assert [(4, 2)] == [(rule["seen"], rule["hits"]) for rule in control("GET", "faults")]

    def test_an_answer_may_be_any(self, erp: Client, rules):
        rules(
            {
                "system": "erp",
                "action": "status",
                "status": 429,
                "headers": {"Retry-After": "7"},
                "body": {"error": {}},
            },
            {"system": "erp", "action": "status", "status": 502, "body": "<html>Bad Gateway</html>"},
        )

        throttled, broken = erp.get("customers"), erp.get("customers")

        assert (429, "7", {"error": {}}) == (throttled.status_code, throttled.headers["Retry-After"], throttled.json())
        assert (502, "text/html") == (broken.status_code, broken.headers["Content-Type"])

    def test_json_may_be_broken(self, erp: Client, rules):
        rules({"system": "erp", "action": "corrupt_json"})

        reply = erp.get("customers")

        assert 200 == reply.status_code
        with pytest.raises(requests.JSONDecodeError):
            reply.json()

    def test_a_late_answer_follows_a_write_in_time(self, erp: Client, customer, rules):
        path = f"customers({customer['id']})"
        rules({"system": "erp", "method": "PATCH", "action": "delay", "when": "after", "seconds": 0.3})
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(erp.patch, path, {"phoneNumber": "3"}, tag="*")

            assert eventually(lambda: erp.get(path).json()["phoneNumber"] == "3", within_s=0.25)
            assert not late.done()
            assert 200 == late.result().status_code

    def test_a_rule_that_cannot_be_followed_is_refused(self, control: Control):
        reply = control.http.post(f"{control.url}/faults", json=[{"action": "explode"}], timeout=5)

        assert 400 == reply.status_code
        assert [] == control("GET", "faults")

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("faults", {"action": "status", "status": "500"}),
            ("faults", {"action": "status", "status": 99}),
            ("faults", {"action": "status", "headers": {"A b": "c"}}),
            ("faults", {"action": "delay", "seconds": -1}),
            ("faults", [{"action": "cut"}, {"action": "cut", "times": "x"}]),
            ("latency", {"ms": "soon"}),
            ("limits", {"on": False, "scale": 0}),
            ("limits", {"on": "no"}),
            ("webhooks", {"drop": True, "delay_s": "x"}),
            ("webhooks", {"handshake": "PUT"}),
            ("grants", {"app": "a", "operation": "admire", "allowed": False}),
            ("grants", {"app": 5, "allowed": False}),
            ("switches", {"post_codes": False, "tax_rates": []}),
            ("switches", {"tax_rates": {"TAXABLE": -1}}),
            (
                "automations",
                {"system": "erp", "set": "nope", "field": "a", "after_app": "a", "by_app": "b", "values": {}},
            ),
            (
                "automations",
                {"system": "erp", "set": "customers", "field": "a", "after_app": "a", "by_app": "b", "values": 5},
            ),
            ("edit", {"system": "crm", "app": "a", "set": "accounts", "values": []}),
            ("edit", 5),
            ("companies", {"name": ["x"]}),
            ("expire", {"what": ["tokens", "youth"]}),
        ],
    )
    def test_a_call_that_cannot_be_followed_changes_nothing(
        self, info: Info, control: Control, erp: Client, path: str, body: Any
    ):
        shown = [(call, control("GET", call)) for call in ("faults", "grants", "automations")]
        settings = [control("POST", call, {}) for call in ("switches", "webhooks", "limits")]

        reply = control.http.post(f"{info['control_url']}/{path}", json=body, timeout=10)

        assert 400 == reply.status_code
        assert reply.json()["error"]
        assert shown == [(call, control("GET", call)) for call in ("faults", "grants", "automations")]
        assert settings == [control("POST", call, {}) for call in ("switches", "webhooks", "limits")]
        assert 200 == erp.get("customers?$top=1").status_code

    def test_edits_of_one_call_are_made_together_or_not_at_all(self, info: Info, control: Control):
        app = info["crm"]["client_id"]
        edit = {"system": "crm", "app": app, "set": "accounts", "values": {"name": "Half of it"}}
        wrong = {**edit, "values": {"nope": 1}}
        reply = control.http.post(f"{info['control_url']}/edit", json=[edit, wrong], timeout=10)

        assert 400 == reply.status_code
        assert "Half of it" not in [row["name"] for row in control("GET", "truth/crm/accounts")]

    def test_control_needs_its_token(self, info: Info):
        with session(info) as http:
            assert 401 == http.get(f"{info['control_url']}/requests", timeout=5).status_code


class TestRights:
    def test_a_missing_privilege_is_refused_as_the_service_does(
        self, info: Info, control: Control, erp: Client, crm: Client
    ):
        for system, entity in (("crm", "account"), ("erp", "customers")):
            grant = {"system": system, "app": info[system]["client_id"], "entity": entity, "operation": "create"}
            control("POST", "grants", {**grant, "allowed": False})

        refused = (
            error_code(crm.post("accounts", {"name": "N"})),
            error_code(erp.post("customers", {"displayName": "N"})),
        )
        control("POST", "grants", {"app": info["crm"]["client_id"], "allowed": True})
        control("POST", "grants", {"app": info["erp"]["client_id"], "allowed": True})

        assert ((403, "0x80040220"), (403, "Authorization_RequestDenied")) == refused
        assert 204 == crm.post("accounts", {"name": "N"}).status_code

    @pytest.mark.parametrize("path", ["grants", "latency", "limits", "webhooks", "switches", "expire"])
    def test_a_body_that_is_no_object_is_refused(self, info: Info, control: Control, path):
        for body in ([{"allowed": False}], "text", 3):
            assert 400 == control.http.post(f"{info['control_url']}/{path}", json=body, timeout=10).status_code

    def test_an_application_may_be_unknown_in_a_system(self, info: Info, control: Control, crm: Client, erp: Client):
        for system in ("erp", "crm"):
            control("POST", "grants", {"system": system, "app": info[system]["client_id"], "allowed": False})
        replies = error_code(crm.get("accounts")), error_code(erp.get("customers"))
        for system in ("erp", "crm"):
            control("POST", "grants", {"system": system, "app": info[system]["client_id"], "allowed": True})

        assert ((403, "0x80072560"), (401, "Authentication_InvalidCredentials")) == replies


class TestClock:
    @pytest.fixture
    def clock(self, control: Control) -> Iterator[Callable[..., dict]]:
        yield lambda **given: control("POST", "clock", given)
        control("POST", "clock", {"reset": True})

    def test_is_set_and_stands_when_told_to(self, control: Control, clock):
        clock(set="2031-05-06T07:08:09.5Z", rate=0)

        assert [{"now": "2031-05-06T07:08:09.5Z", "rate": 0.0}] * 2 == [control("GET", "clock") for _ in range(2)]

    def test_is_moved_on(self, clock):
        clock(set="2031-05-06T07:08:09Z", rate=0)

        assert "2031-05-06T07:09:09Z" == clock(advance_s=60)["now"]

    def test_runs_faster(self, clock):
        before = clock(set="2031-05-06T07:08:09Z", rate=100_000)["now"]

        assert eventually(lambda: clock()["now"][:16] > before[:16])

    def test_ages_tokens(self, info: Info, crm: Client, clock):
        clock(advance_s=2 * 3600)
        late = Client(info, "crm")

        assert (401, 200) == (crm.get("WhoAmI").status_code, late.get("WhoAmI").status_code)
        late.close()

    def test_dates_what_both_systems_write(self, info: Info, clock):
        clock(set="2031-05-06T07:08:09Z")
        erp, crm = Client(info, "erp"), Client(info, "crm")
        customer = erp.post("customers", {"displayName": "Of the future"}).json()
        account = crm.post("accounts", {"name": "Of the future"}, prefer="return=representation").json()
        recent = crm.rows(
            "accounts?$filter=Microsoft.Dynamics.CRM.LastXHours(PropertyName='createdon',PropertyValue=1)"
        )

        assert "2031-05-06T07:0" == customer["lastModifiedDateTime"][:15] == account["modifiedon"][:15]
        assert [account["accountid"]] == [row["accountid"] for row in recent]
        erp.delete(f"customers({customer['id']})", tag="*")
        crm.delete(f"accounts({account['accountid']})")
        erp.close()
        crm.close()

    def test_ages_delta_links(self, info: Info, crm: Client, clock):
        link = crm.get("accounts?$select=name", prefer="odata.track-changes").json()["@odata.deltaLink"]
        clock(advance_s=8 * 86_400)
        late = Client(info, "crm")

        assert (400, "0x80044352") == error_code(late.get(link))
        late.close()

    @pytest.mark.parametrize(
        "body", [{"set": "noon"}, {"set": 5}, {"rate": -1}, {"advance_s": "x"}, {"advance_s": 1e300}, {"hour": 1}]
    )
    def test_refuses_what_is_no_time(self, info: Info, control: Control, body):
        assert 400 == control.http.post(f"{info['control_url']}/clock", json=body, timeout=10).status_code


class TestLimits:
    @pytest.fixture
    def limited(self, control: Control) -> Iterator[Callable[..., None]]:
        yield lambda **given: control("POST", "limits", {"on": True, **given})
        control("POST", "limits", {"on": False, "scale": 1, "window_s": 300})

    def test_dataverse_says_how_long_to_wait(self, crm: Client, limited):
        limited(system="crm", scale=0.0005)

        replies = [crm.get("WhoAmI") for _ in range(4)]

        assert [200, 200, 200, 429] == [reply.status_code for reply in replies]
        assert "0x80072322" == replies[-1].json()["error"]["code"]
        assert 290 < int(replies[-1].headers["Retry-After"]) <= 300

    def test_business_central_says_only_that_it_is_too_much(self, erp: Client, limited):
        limited(system="erp", scale=0.0005)

        replies = [erp.get("customers?$top=1") for _ in range(4)]

        assert [200, 200, 200, 429] == [reply.status_code for reply in replies]
        assert "Application_TooManyRequests" == replies[-1].json()["error"]["code"]
        assert "Retry-After" not in replies[-1].headers

    def test_a_window_slides(self, crm: Client, limited):
        limited(system="crm", scale=0.0002, window_s=0.2)

        assert 200 == crm.get("WhoAmI").status_code
        assert 429 == crm.get("WhoAmI").status_code
        assert eventually(lambda: crm.get("WhoAmI").status_code == 200, within_s=1)

    def test_business_central_runs_five_at_a_time_and_lets_others_wait(self, info: Info, control: Control, limited):
        limited(system="erp")
        control("POST", "latency", {"system": "erp", "ms": 100})
        client = Client(info, "erp")
        started = time.monotonic()
        with ThreadPoolExecutor(10) as pool:
            statuses = list(pool.map(lambda _: client.get("companyInformation").status_code, range(10)))
        took = time.monotonic() - started
        client.close()
        control("POST", "latency", {"ms": 0})

        assert [200] * 10 == statuses
        assert took > 0.2


class TestEditsAndTruth:
    def test_an_edit_is_made_as_the_application_named(self, info: Info, control: Control, crm: Client):
        row = crm.post("accounts", {"name": "E"}, prefer="return=representation").json()
        edit = {"system": "crm", "set": "accounts", "id": row["accountid"], "values": {"fax": "9"}}

        control("POST", "edit", {**edit, "app": info["crm"]["other_app"]["client_id"]})

        changed = crm.get(f"accounts({row['accountid']})").json()
        assert "9" == changed["fax"]
        assert row["_modifiedby_value"] != changed["_modifiedby_value"]

    def test_a_calculated_value_moves_without_a_trace(self, control: Control, erp: Client, customer):
        edit = {"system": "erp", "app": "x", "set": "customers", "id": customer["id"], "silent": True}

        control("POST", "edit", {**edit, "values": {"balanceDue": 12.5}})

        moved = erp.get(f"customers({customer['id']})").json()
        assert (12.5, customer["@odata.etag"]) == (moved["balanceDue"], moved["@odata.etag"])

    def test_a_late_commit_bears_an_earlier_time(self, control: Control, erp: Client, customer):
        edit = {"system": "erp", "app": "x", "set": "customers", "id": customer["id"], "late_ms": 60_000}

        row = control("POST", "edit", {**edit, "values": {"phoneNumber": "9"}})[0]

        assert row["lastModifiedDateTime"] < customer["lastModifiedDateTime"]
        assert row["@odata.etag"] != customer["@odata.etag"]

    def test_an_automation_answers_a_write(self, info: Info, control: Control, crm: Client):
        """As a workflow of another application does, milliseconds after ours."""
        apps = {"after_app": info["crm"]["client_id"], "by_app": info["crm"]["other_app"]["client_id"]}
        rule = {"system": "crm", "set": "accounts", "field": "telephone1", "values": {"telephone1": "+1"}, **apps}
        control("POST", "automations", [rule])
        row = crm.post("accounts", {"name": "A"}, prefer="return=representation").json()

        crm.patch(f"accounts({row['accountid']})", {"telephone1": "1"})

        path = f"accounts({row['accountid']})"
        assert eventually(lambda: crm.get(path).json()["telephone1"] == "+1")
        control("DELETE", "automations")

    def test_an_automation_answers_where_the_write_was(self, info: Info, control: Control, erp: Client):
        """In the company of the record, not in another that has none of its id."""
        second = control("POST", "companies", {"name": "Answered"})["id"]
        apps = {"after_app": info["erp"]["client_id"], "by_app": info["erp"]["other_app"]["client_id"]}
        values = {"displayName": "Answer", "phoneNumber": "1"}
        control(
            "POST", "automations", [{"system": "erp", "set": "customers", "field": "email", "values": values, **apps}]
        )
        there = f"{erp.root}/companies({second})/customers"
        made = erp.post(there, {"displayName": "Asked", "email": "a@answer.example"}).json()

        assert eventually(lambda: erp.get(f"{there}({made['id']})").json()["phoneNumber"] == "1")
        control("DELETE", "automations")
        assert 404 == erp.get(f"customers({made['id']})").status_code
        erp.delete(f"{there}({made['id']})")

    def test_an_automation_brings_no_record_back(self, info: Info, control: Control, erp: Client):
        apps = {"after_app": info["erp"]["client_id"], "by_app": info["erp"]["other_app"]["client_id"]}
        rule = {"system": "erp", "set": "customers", "field": "email", "values": {"displayName": "Back"}, **apps}
        control("POST", "automations", [{**rule, "delay_ms": 200}])
        gone = erp.post("customers", {"displayName": "Gone", "email": "a@gone.example"}).json()["id"]
        erp.delete(f"customers({gone})")
        stays = erp.post("customers", {"displayName": "Stays", "email": "a@stays.example"}).json()["id"]

        assert eventually(lambda: erp.get(f"customers({stays})").json()["displayName"] == "Back")
        control("DELETE", "automations")
        assert 404 == erp.get(f"customers({gone})").status_code

    def test_truth_is_every_row_as_stored(self, control: Control, erp: Client, crm: Client):
        assert len(control("GET", "truth/erp/customers")) == int(erp.get("customers/$count").text)
        assert len(control("GET", "truth/crm/accounts")) == int(crm.get("accounts/$count").text)


class TestLatency:
    def test_is_added_to_the_requests_that_a_rule_names(self, control: Control, crm: Client):
        control("POST", "latency", {"system": "crm", "method": "GET", "path": "WhoAmI", "ms": 80})
        try:
            crm.get("WhoAmI")
            crm.get("accounts?$top=1")
            log = {row["target"].rpartition("/")[2]: row["took_ms"] for row in control("GET", "requests/log")[-2:]}
        finally:
            control("DELETE", "latency")

        assert log["WhoAmI"] >= 80 > log["accounts?$top=1"]

    def test_shows_its_rules_the_latest_first(self, control: Control):
        control("POST", "latency", {"system": "erp", "ms": 5})
        try:
            shown = control("POST", "latency", {"method": "PATCH", "ms": {"median": 200, "p99": 900}})
        finally:
            control("DELETE", "latency")

        assert [(rule["method"], rule["ms"]) for rule in shown] == [("PATCH", {"median": 200, "p99": 900}), (None, 5)]
        assert control("GET", "latency") == []


class TestRequests:
    def test_are_counted_by_application_method_set_and_status(self, info: Info, control: Control, erp: Client):
        control("DELETE", "requests")
        for _ in range(3):
            erp.get("customers?$top=1")
        erp.post("customers", {})

        rows = control("GET", "requests")

        keys = ("client_id", "system", "method", "set", "status", "count")
        assert [
            dict(zip(keys, (info["erp"]["client_id"], "erp", "GET", "customers", 200, 3), strict=True)),
            dict(zip(keys, (info["erp"]["client_id"], "erp", "POST", "customers", 400, 1), strict=True)),
        ] == rows

    def test_are_logged_one_by_one(self, control: Control, crm: Client):
        """Each with a number, by which a reader goes on where it stopped."""
        last = control("GET", "requests/log")[-1]["number"] if control("GET", "requests/log") else 0
        crm.get("accounts?$top=1")
        crm.patch("accounts(nonsense)", {"name": "x"})

        asked = control("GET", f"requests/log?after={last}&system=crm")

        assert [(row["method"], row["set"], row["status"]) for row in asked] == [
            ("GET", "accounts", 200),
            ("PATCH", "accounts", 400),
        ]
        assert asked[0]["target"].endswith("/accounts?$top=1")
        assert {row["client_id"] for row in asked} == {asked[0]["client_id"]} != {""}
