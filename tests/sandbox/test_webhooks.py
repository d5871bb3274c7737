"""Webhooks of both services: who is told what, and what becomes of those who answer badly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.sandbox.client import Client, Control, Info, error_code, eventually
from tests.sandbox.conftest import Receiver


class TestBusinessCentral:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/dynamics-subscriptions"""

    @pytest.fixture
    def subscription(self, info: Info, erp: Client, receiver: Receiver) -> Iterator[dict]:
        resource = f"/api/v2.0/companies({info['erp']['company_id']})/customers"
        body = {"notificationUrl": receiver.url, "resource": resource, "clientState": "secret"}
        reply = erp.post(f"{erp.root}/subscriptions", body)
        assert 201 == reply.status_code, reply.text
        yield reply.json()
        erp.delete(f"{erp.root}/subscriptions('{reply.json()['subscriptionId']}')")

    def test_a_receiver_must_return_the_token(self, info: Info, erp: Client, receiver: Receiver):
        resource = f"api/v2.0/companies({info['erp']['company_id']})/customers"
        body = {"notificationUrl": "http://127.0.0.1:9/nobody", "resource": resource}

        assert (400, "BadRequest") == error_code(erp.post(f"{erp.root}/subscriptions", body))
        assert [] == erp.get(f"{erp.root}/subscriptions").json()["value"]

    def test_what_can_be_subscribed_is_in_a_catalogue(self, info: Info, erp: Client, receiver: Receiver):
        """https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/dynamics-subscriptions"""
        company = info["erp"]["company_id"]
        catalogue = erp.base.replace("/api/v2.0", "/api/microsoft/runtime/beta") + "/webhookSupportedResources"
        standard = {row["resource"] for row in erp.rows(f"{catalogue}?$filter=resource eq 'v2.0*'")}
        custom = {row["resource"] for row in erp.rows(catalogue)} - standard

        assert {"v2.0/customers", "v2.0/items", "v2.0/salesOrders", "v2.0/companyInformation"} < standard
        assert {"v2.0/salesOrderLines", "v2.0/contactsInformation"}.isdisjoint(standard)
        assert {"drawbar/integration/v1.0/priceLists"} < custom
        for resource in sorted(standard):
            path = f"api/v2.0/companies({company})/{resource.removeprefix('v2.0/')}"
            reply = erp.post(f"{erp.root}/subscriptions", {"notificationUrl": receiver.url, "resource": path})
            assert 201 == reply.status_code, resource
            erp.delete(f"{erp.root}/subscriptions('{reply.json()['subscriptionId']}')")

    def test_is_renewed_by_a_patch_after_another_handshake(self, erp: Client, receiver: Receiver, subscription):
        path = f"{erp.root}/subscriptions('{subscription['subscriptionId']}')"

        reply = erp.patch(path, {}, tag=subscription["@odata.etag"])

        assert (200, 2) == (reply.status_code, receiver.handshakes)
        assert (400, "BadRequest_InvalidToken") == error_code(erp.patch(path, {}))

    def test_is_changed_under_its_own_version_alone(self, erp: Client, receiver: Receiver, subscription):
        path, stale = f"{erp.root}/subscriptions('{subscription['subscriptionId']}')", subscription["@odata.etag"]
        erp.patch(path, {}, tag=stale)

        for change in (lambda tag: erp.patch(path, {}, tag=tag), lambda tag: erp.delete(path, tag=tag)):
            assert (409, "Request_EntityChanged") == error_code(change(stale))
            assert (400, "BadRequest_InvalidToken") == error_code(change('"no tag"'))

    def test_is_renewed_once_by_those_who_renew_one_version_at_a_time(self, erp: Client, receiver, subscription):
        path, tag = f"{erp.root}/subscriptions('{subscription['subscriptionId']}')", subscription["@odata.etag"]
        receiver.together = threading.Barrier(2)

        with ThreadPoolExecutor() as pool:
            replies = list(pool.map(lambda _: erp.patch(path, {}, tag=tag).status_code, range(2)))
        receiver.together = threading.Barrier(1)

        assert [200, 409] == sorted(replies)

    def test_is_made_once_by_those_who_ask_at_the_same_time(self, info: Info, erp: Client, receiver: Receiver):
        resource = f"api/v2.0/companies({info['erp']['company_id']})/items"
        body = {"notificationUrl": receiver.url, "resource": resource}
        receiver.together = threading.Barrier(2)

        with ThreadPoolExecutor() as pool:
            replies = list(pool.map(lambda _: erp.post(f"{erp.root}/subscriptions", body), range(2)))

        made, refused = sorted(replies, key=lambda reply: reply.status_code)
        erp.delete(f"{erp.root}/subscriptions('{made.json()['subscriptionId']}')")
        assert [201, (400, "BadRequest")] == [made.status_code, error_code(refused)]

    def test_has_nothing_below_it(self, erp: Client):
        for path in ("subscriptions/$count", "subscriptions('1')/resource"):
            assert (404, "BadRequest_ResourceNotFound") == error_code(erp.get(f"{erp.root}/{path}"))

    def test_is_listed_whole_and_not_as_if_an_option_were_followed(self, erp: Client, subscription):
        assert 1 == len(erp.get(f"{erp.root}/subscriptions").json()["value"])
        for option in ("$filter=clientState eq 'x'", "$top=0", "$select=resource"):
            assert (400, "BadRequest") == error_code(erp.get(f"{erp.root}/subscriptions?{option}"))

    def test_hands_over_its_token_by_either_verb(self, erp: Client, control: Control, receiver: Receiver, subscription):
        """The documents do not say which: a receiver has to answer both."""
        control("POST", "switches", {"erp_handshake_verb": "GET"})
        path = f"{erp.root}/subscriptions('{subscription['subscriptionId']}')"

        assert 200 == erp.patch(path, {}, tag=subscription["@odata.etag"]).status_code
        assert ["POST", "GET"] == receiver.verbs
        control("POST", "switches", {"erp_handshake_verb": "POST"})

    def test_ends_with_its_lease_and_nobody_is_told(
        self, erp: Client, control: Control, receiver: Receiver, subscription
    ):
        control("POST", "webhooks", {"system": "erp", "lease_s": -5})
        path = f"{erp.root}/subscriptions('{subscription['subscriptionId']}')"
        assert 200 == erp.patch(path, {}, tag=subscription["@odata.etag"]).status_code
        control("POST", "webhooks", {"system": "erp", "lease_s": 259_200})
        erp.post("customers", {"displayName": "Unheard"})

        assert 404 == erp.get(path).status_code
        assert [] == receiver.got

    def test_needs_a_right_of_its_own(self, info: Info, erp: Client, control: Control, receiver: Receiver):
        app = {"system": "erp", "app": info["erp"]["client_id"], "entity": "subscriptions"}
        control("POST", "grants", {**app, "allowed": False})
        reply = erp.get(f"{erp.root}/subscriptions")
        control("POST", "grants", {**app, "allowed": True})

        assert (403, "Authorization_RequestDenied") == error_code(reply)

    def test_a_change_during_the_wait_is_sent_at_once_and_its_failure_is_not_counted(
        self, erp: Client, control: Control, receiver: Receiver, subscription
    ):
        """However many edits fall into the wait after a failure, they do not bring the end nearer."""
        control("POST", "webhooks", {"system": "erp", "retry_scale": 10.0})
        receiver.status = 503
        for number in range(1, 9):  # the sixth counted failure would be the last
            erp.post("customers", {"displayName": f"Early {number}"})
            assert eventually(lambda number=number: len(receiver.got) == number)
        assert 8 == len(receiver.got[-1][1]["value"])
        receiver.status = 200
        erp.post("customers", {"displayName": "Heard"})

        assert eventually(lambda: len(receiver.got) == 9)
        assert 9 == len(receiver.got[-1][1]["value"])
        assert 1 == len(erp.get(f"{erp.root}/subscriptions").json()["value"])
        control("POST", "webhooks", {"system": "erp", "retry_scale": 1})

    def test_the_sixth_failure_ends_it(self, erp: Client, control: Control, receiver: Receiver, subscription):
        control("POST", "webhooks", {"system": "erp", "retry_scale": 0.000_001})
        receiver.status = 503
        erp.post("customers", {"displayName": "In vain"})

        assert eventually(lambda: erp.get(f"{erp.root}/subscriptions").json()["value"] == [])
        assert 6 == len(receiver.got)
        control("POST", "webhooks", {"system": "erp", "retry_scale": 1})

    @pytest.fixture
    def slow(self, control: Control) -> Iterator[None]:
        """Time enough for all edits of a test to fall into one run."""
        control("POST", "webhooks", {"system": "erp", "delay_s": 1.5})
        yield
        control("POST", "webhooks", {"system": "erp", "delay_s": 0.2})

    def test_updates_of_a_record_collapse_and_creates_and_deletes_stand_alone(
        self, erp: Client, receiver: Receiver, slow: None, subscription
    ):
        made = erp.post("customers", {"displayName": "Hooked"}).json()
        for number in "123":
            erp.patch(f"customers({made['id']})", {"phoneNumber": number}, tag="*")
        erp.patch(f"customers({made['id']})", {"phoneNumber": "3"}, tag="*")  # nothing changes: nobody is told
        erp.delete(f"customers({made['id']})")

        assert eventually(lambda: len(receiver.got) > 0)
        headers, body = receiver.got[0]
        resource = f"{subscription['resource']}({made['id']})"
        assert [("created", resource), ("updated", resource), ("deleted", resource)] == [
            (entry["changeType"], entry["resource"]) for entry in body["value"]
        ]
        assert {"secret"} == {entry["clientState"] for entry in body["value"]}
        assert headers["clientrequestid"] == headers["x-ms-correlation-id"]

    def test_too_many_become_one_entry_for_the_collection(
        self, erp: Client, control: Control, receiver: Receiver, slow: None, subscription
    ):
        control("POST", "webhooks", {"system": "erp", "max_notifications": 2})
        for number in range(3):
            erp.post("customers", {"displayName": f"Many {number}"})

        assert eventually(lambda: len(receiver.got) > 0)
        control("POST", "webhooks", {"system": "erp", "max_notifications": 1000})
        entry = receiver.got[0][1]["value"][0]
        assert "collection" == entry["changeType"]
        assert "?$filter=lastModifiedDateTime%20gt%20" in entry["resource"]

    def test_a_failure_is_tried_again_and_a_refusal_ends_the_subscription(
        self, erp: Client, control: Control, receiver: Receiver, subscription
    ):
        control("POST", "webhooks", {"system": "erp", "retry_scale": 0.001})
        receiver.status = 503
        erp.post("customers", {"displayName": "Again"})
        assert eventually(lambda: len(receiver.got) > 1)
        assert receiver.got[0][1]["value"] == receiver.got[1][1]["value"]

        receiver.status = 410
        assert eventually(lambda: erp.get(f"{erp.root}/subscriptions").json()["value"] == [])
        control("POST", "webhooks", {"system": "erp", "retry_scale": 1})


class TestDataverse:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/use-webhooks"""

    @pytest.fixture
    def step(self, crm: Client, receiver: Receiver) -> Iterator[str]:
        settings = '<settings><setting name="x-hook-key" value="s3cret" /></settings>'
        endpoint = crm.post(
            "serviceendpoints",
            {"name": "hub", "contract": 8, "url": receiver.url, "authtype": 5, "authvalue": settings},
        ).headers["OData-EntityId"]
        message = crm.rows("sdkmessages?$filter=name eq 'Update'")[0]["sdkmessageid"]
        scope = crm.rows(
            "sdkmessagefilters?$filter=sdkmessageid/name eq 'Update' and primaryobjecttypecode eq 'account'"
        )[0]["sdkmessagefilterid"]
        reply = crm.post(
            "sdkmessageprocessingsteps",
            {
                "name": "hub: Update of account",
                "mode": 1,
                "stage": 40,
                "rank": 1,
                "supporteddeployment": 0,
                "asyncautodelete": True,
                "filteringattributes": "name,telephone1",
                "sdkmessageid@odata.bind": f"/sdkmessages({message})",
                "sdkmessagefilterid@odata.bind": f"/sdkmessagefilters({scope})",
                "eventhandler_serviceendpoint@odata.bind": endpoint,
            },
        )
        assert 204 == reply.status_code, reply.text
        yield reply.headers["OData-EntityId"]
        crm.delete(reply.headers["OData-EntityId"])

    @pytest.fixture
    def account(self, crm: Client) -> dict:
        return crm.post("accounts", {"name": "Hooked"}, prefer="return=representation").json()

    def test_an_update_of_a_watched_column_is_posted(self, crm: Client, receiver: Receiver, step: str, account):
        crm.patch(f"accounts({account['accountid']})?tag=mine", {"telephone1": "5", "customertypecode": 3})

        assert eventually(lambda: len(receiver.got) > 0)
        headers, context = receiver.got[0]
        attributes = {pair["key"]: pair["value"] for pair in context["InputParameters"][0]["value"]["Attributes"]}
        assert ("account", "Update") == (headers["x-ms-dynamics-entity-name"], headers["x-ms-dynamics-request-name"])
        assert "s3cret" == headers["x-hook-key"]
        assert ("5", 3) == (attributes["telephone1"], attributes["customertypecode"]["Value"])
        assert crm.get("WhoAmI").json()["UserId"] == context["InitiatingUserId"]
        assert [{"key": "tag", "value": "mine"}] == context["SharedVariables"]
        assert list(context) == sorted(context)

    def test_other_columns_and_creates_are_not(self, crm: Client, receiver: Receiver, step: str, account):
        crm.patch(f"accounts({account['accountid']})", {"fax": "5"})
        crm.patch(f"accounts({account['accountid']})", {"name": "Told"})

        assert eventually(lambda: len(receiver.got) > 0)
        assert ["Update"] == [context["MessageName"] for _, context in receiver.got]

    def test_a_gateway_failure_is_tried_once_more_and_any_other_not(
        self, crm: Client, receiver: Receiver, step: str, account
    ):
        receiver.status = 503
        crm.patch(f"accounts({account['accountid']})", {"name": "A"})
        assert eventually(lambda: len(receiver.got) == 2)

        receiver.status = 500
        crm.patch(f"accounts({account['accountid']})", {"name": "B"})
        assert eventually(lambda: len(receiver.got) == 3)
        receiver.status = 200
        crm.patch(f"accounts({account['accountid']})", {"name": "C"})
        assert eventually(lambda: len(receiver.got) >= 4)
        assert 4 == len(receiver.got)

    def test_what_is_too_large_is_posted_without_its_parameters(
        self, crm: Client, control: Control, receiver: Receiver, step: str, account
    ):
        control("POST", "webhooks", {"system": "crm", "max_body_bytes": 2000})
        crm.patch(f"accounts({account['accountid']})", {"name": "Large", "description": "x" * 2000})

        assert eventually(lambda: len(receiver.got) > 0)
        headers, context = receiver.got[0]
        assert "true" == headers["x-ms-dynamics-msg-size-exceeded"]
        assert account["accountid"] == context["PrimaryEntityId"]
        assert not {"InputParameters", "ParentContext", "PreEntityImages", "PostEntityImages"} & set(context)
        control("POST", "webhooks", {"system": "crm", "max_body_bytes": 262_144})

    @pytest.mark.parametrize(
        ("message", "more", "status"),
        [
            ("Update", {"mode": 1, "stage": 20}, 400),
            ("Update", {"mode": 0, "stage": 20}, 204),
            ("Create", {"mode": 1, "stage": 40}, 400),  # the filter is one of Update
        ],
    )
    def test_a_step_is_of_a_stage_and_a_filter_that_fit(self, crm: Client, step: str, message, more, status):
        """learn.microsoft.com/power-apps/developer/data-platform/register-plug-in: set execution mode"""
        known = crm.get(step).json()
        found = crm.rows(f"sdkmessages?$filter=name eq '{message}'")[0]["sdkmessageid"]
        body = {
            "name": "another",
            "sdkmessageid@odata.bind": f"/sdkmessages({found})",
            "sdkmessagefilterid@odata.bind": f"/sdkmessagefilters({known['_sdkmessagefilterid_value']})",
            "eventhandler_serviceendpoint@odata.bind": f"/serviceendpoints({known['_eventhandler_value']})",
            **more,
        }
        reply = crm.post("sdkmessageprocessingsteps", body)
        crm.delete(reply.headers.get("OData-EntityId", "sdkmessageprocessingsteps(nothing)"))

        assert status == reply.status_code

    @pytest.mark.parametrize(
        ("message", "kind", "status"),
        [("Create", 0, 400), ("Create", 1, 204), ("Create", 2, 400), ("Delete", 1, 400), ("Delete", 0, 204)],
    )
    def test_an_image_is_of_a_row_that_is_there(self, crm: Client, step: str, message, kind, status):
        """learn.microsoft.com/power-apps/developer/data-platform/register-plug-in: images by message"""
        endpoint = crm.get(step).json()["_eventhandler_value"]
        found = crm.rows(f"sdkmessages?$filter=name eq '{message}'")[0]["sdkmessageid"]
        other = crm.post(
            "sdkmessageprocessingsteps",
            {
                "name": "another",
                "mode": 1,
                "stage": 40,
                "sdkmessageid@odata.bind": f"/sdkmessages({found})",
                "eventhandler_serviceendpoint@odata.bind": f"/serviceendpoints({endpoint})",
            },
        ).headers["OData-EntityId"]
        image = {"name": "i", "entityalias": "i", "imagetype": kind, "messagepropertyname": "Target"}
        reply = crm.post("sdkmessageprocessingstepimages", {**image, "sdkmessageprocessingstepid@odata.bind": other})
        crm.delete(other)

        assert status == reply.status_code

    def test_steps_are_found_from_their_filter(self, crm: Client, step: str):
        """learn.microsoft.com/power-apps/developer/data-platform/bypass-custom-business-logic: Query your environment"""
        query = "sdkmessagefilters?$select=sdkmessagefilterid&$filter=primaryobjecttypecode eq 'account'"
        query += " and sdkmessageid/name eq 'Update'"
        rows = crm.rows(f"{query}&$expand=sdkmessagefilterid_sdkmessageprocessingstep($filter=statecode eq 0)")

        assert crm.get(step).json()["sdkmessageprocessingstepid"] in {
            one["sdkmessageprocessingstepid"] for one in rows[0]["sdkmessagefilterid_sdkmessageprocessingstep"]
        }

    def test_secrets_are_not_read_back(self, crm: Client, step: str):
        assert "authvalue" not in crm.rows("serviceendpoints")[0]

    def test_can_be_dropped(self, crm: Client, control: Control, receiver: Receiver, step: str, account):
        control("POST", "webhooks", {"system": "crm", "drop": True})
        crm.patch(f"accounts({account['accountid']})", {"name": "Lost"})
        control("POST", "webhooks", {"system": "crm", "drop": False})
        crm.patch(f"accounts({account['accountid']})", {"name": "Kept"})

        assert eventually(lambda: len(receiver.got) > 0)
        name = receiver.got[0][1]["InputParameters"][0]["value"]["Attributes"][0]["value"]
        assert "Kept" == name
