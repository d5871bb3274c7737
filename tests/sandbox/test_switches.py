"""Every open question of the references is a switch, and every value of it can be seen on the wire.

The page that leaves a question open stands with the switch, in `drawbar/sandbox/switch_list.py`.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from drawbar.sandbox.server import SandboxError, SandboxOptions, start_in_thread
from drawbar.sandbox.switch import Answer
from drawbar.sandbox.switch import SwitchError as NoSuchSwitch
from drawbar.sandbox.switch_list import SWITCHES, UNDOCUMENTED
from drawbar.sandbox.switches import parsed, turned_over
from tests.sandbox.catalogue import Shop, key, made
from tests.sandbox.client import Client, Control, Info, error_code, eventually
from tests.sandbox.conftest import Receiver
from tests.sandbox.rounds import ROUNDS

NOBODY = "00000000-0000-4000-8000-00000000dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """The two systems as one application sees them, and the hands behind."""

    info: Info
    erp: Client
    crm: Client
    control: Control
    receiver: Receiver

    def batch(self, *requests: dict[str, Any], **given: Any) -> Any:
        return self.erp.post(f"{self.erp.root}/$batch", {"requests": list(requests)}, **given)

    def customer(self, **values: Any) -> dict[str, Any]:
        return dict(self.erp.post("customers", {"displayName": "Fabrikam", **values}).json())

    def account(self, **values: Any) -> dict[str, Any]:
        made = self.crm.post("accounts", {"name": "Fabrikam", **values}, prefer="return=representation")
        return dict(made.json())

    def grant(self, system: str, *, allowed: bool, **what: str) -> None:
        app = self.info[system]["client_id"]
        self.control("POST", "grants", {"system": system, "app": app, "allowed": allowed, **what})

    def subscribe(self, set_name: str, company: str = "") -> Any:
        resource = f"api/v2.0/companies({self.info['erp']['company_id']})/{set_name}"
        body = {"notificationUrl": self.receiver.url, "resource": resource}
        return self.erp.post(f"{self.erp.root}/subscriptions", body)

    def throttled(self) -> Any:
        """The ERP's answer to one request too many."""
        self.control("POST", "limits", {"system": "erp", "on": True, "scale": 1 / 6000})
        try:
            self.erp.get("currencies?$top=1")
            return self.erp.get("currencies?$top=1")
        finally:
            self.control("POST", "limits", {"system": "erp", "on": False, "scale": 1})

    def told(self, **headers: str) -> dict[str, Any]:
        """What a step with an image tells of a write to an account that bears these headers; then of a plain one."""
        endpoint = {"name": "hub", "contract": 8, "url": self.receiver.url, "authtype": 5, "authvalue": "<settings/>"}
        message = self.crm.rows("sdkmessages?$filter=name eq 'Update'")[0]["sdkmessageid"]
        of_account = "sdkmessageid/name eq 'Update' and primaryobjecttypecode eq 'account'"
        scope = self.crm.rows(f"sdkmessagefilters?$filter={of_account}")[0]["sdkmessagefilterid"]
        step = self.crm.post(
            "sdkmessageprocessingsteps",
            {
                "name": "hub",
                "mode": 1,
                "stage": 40,
                "rank": 1,
                "sdkmessageid@odata.bind": f"/sdkmessages({message})",
                "sdkmessagefilterid@odata.bind": f"/sdkmessagefilters({scope})",
                "eventhandler_serviceendpoint@odata.bind": self.crm.post("serviceendpoints", endpoint).headers[
                    "OData-EntityId"
                ],
            },
        ).headers["OData-EntityId"]
        image = {
            "name": "after",
            "entityalias": "after",
            "imagetype": 1,
            "messagepropertyname": "Target",
            "attributes": "name",
            "sdkmessageprocessingstepid@odata.bind": step,
        }
        assert 204 == self.crm.post("sdkmessageprocessingstepimages", image).status_code
        account = f"accounts({self.account()['accountid']})"
        for name, given in (("First", headers), ("Second", {})):
            assert 204 == self.crm.patch(account, {"name": name}, headers=given).status_code
        assert eventually(lambda: any(_said(context) == "Second" for _, context in self.receiver.got))
        self.crm.delete(step)
        return {_said(context): context for _, context in self.receiver.got}


def _said(context: dict[str, Any]) -> str:
    attributes = context["InputParameters"][0]["value"]["Attributes"]
    return str(next(pair["value"] for pair in attributes if pair["key"] == "name"))


Probe = Callable[[Both], Any]
PROBES: dict[str, tuple[Probe, dict[Answer, Any]]] = {}


def shows(name: str, *expected: Any) -> Callable[[Probe], Probe]:
    """What can be seen under each value of a switch, in the order in which the switch lists them."""

    def register(probe: Probe) -> Probe:
        PROBES[name] = (probe, dict(zip(SWITCHES[name].does, expected, strict=True)))
        return probe

    return register


# ------------------------------------------------------------ how a company is set up


@shows("post_codes", ("97205", "Portland", "US"), ("97205", "", ""))
def a_post_code(both: Both) -> Any:
    row = both.customer(postalCode="97205")
    return row["postalCode"], row["city"], row["country"]


@shows("full_name", "Ana Maria Trujillo", "Ana Trujillo", "Trujillo, Ana")
def a_name_of_three_parts(both: Both) -> Any:
    body = {"firstname": "Ana", "middlename": "Maria", "lastname": "Trujillo"}
    return both.crm.post("contacts", body, prefer="return=representation").json()["fullname"]


# ------------------------------------------------------------ statuses and codes


@shows(
    "erp_duplicate_key_status",
    (400, "Internal_EntityWithSameKeyExists"),
    (409, "Internal_EntityWithSameKeyExists"),
)
def a_number_that_is_taken(both: Both) -> Any:
    return error_code(both.erp.post("customers", {"displayName": "Again", "number": both.customer()["number"]}))


@shows("erp_stale_etag_status", (409, "Request_EntityChanged"), (412, "Request_EntityChanged"))
def an_etag_that_is_stale(both: Both) -> Any:
    row = both.customer()
    both.erp.patch(f"customers({row['id']})", {"phoneNumber": "1"}, tag="*")
    replies = [
        both.erp.patch(f"customers({row['id']})", {"phoneNumber": "2"}, tag=row["@odata.etag"]),
        both.erp.delete(f"customers({row['id']})", tag=row["@odata.etag"]),
    ]
    assert error_code(replies[0]) == error_code(replies[1])
    return error_code(replies[0])


@shows("erp_missing_record_code", (404, "BadRequest_ResourceNotFound"), (404, "Internal_RecordNotFound"))
def an_id_of_nobody(both: Both) -> Any:
    assert (404, "BadRequest_ResourceNotFound") == error_code(both.erp.get("nothings"))
    return error_code(both.erp.get(f"customers({NOBODY})"))


@shows("erp_bad_key_status", (400, "BadRequest_NotFound"), (404, "BadRequest_NotFound"))
def a_key_that_is_no_id(both: Both) -> Any:
    return error_code(both.erp.get("customers(10000)"))


@shows("erp_unknown_company_status", (404, "Internal_CompanyNotFound"), (400, "Internal_CompanyNotFound"))
def a_company_that_there_is_not(both: Both) -> Any:
    return error_code(both.erp.get(f"{both.erp.root}/companies({NOBODY})/customers"))


@shows("erp_unknown_action", (404, "BadRequest_NotFound"), (501, "BadRequest_MethodNotImplemented"))
def an_action_that_there_is_not(both: Both) -> Any:
    return error_code(both.erp.post(f"customers({both.customer()['id']})/Microsoft.NAV.dance", {}))


@shows("erp_missing_right_status", (403, "Authorization_RequestDenied"), (401, "Authorization_RequestDenied"))
def a_right_that_is_missing(both: Both) -> Any:
    both.grant("erp", entity="customers", operation="read", allowed=False)
    reply = both.erp.get("customers")
    both.grant("erp", allowed=True)
    return error_code(reply)


@shows(
    "erp_unknown_application_status",
    (401, "Authentication_InvalidCredentials"),
    (403, "Authentication_InvalidCredentials"),
)
def an_application_that_is_not_set_up(both: Both) -> Any:
    both.grant("erp", allowed=False)
    reply = both.erp.get("customers")
    both.grant("erp", allowed=True)
    assert 401 == both.erp.get("customers", headers={"Authorization": "Bearer nothing"}).status_code
    return error_code(reply)


@shows("erp_429_code", (429, "Application_TooManyRequests"), (429, "Unknown"))
def one_request_too_many(both: Both) -> Any:
    return error_code(both.throttled())


@shows("erp_batch_too_long_status", 500, 400)
def a_batch_of_101(both: Both) -> Any:
    return both.batch(*[{"method": "GET", "url": "companies"}] * 101).status_code


@shows("crm_expired_delta_status", (400, "0x80044352"), (410, "0x80044352"))
def a_delta_link_that_is_expired(both: Both) -> Any:
    link = both.crm.get("uoms?$select=name", prefer="odata.track-changes").json()["@odata.deltaLink"]
    both.control("POST", "expire", {"what": "delta_links"})
    return error_code(both.crm.get(link))


@shows("crm_not_a_member_status", (403, "0x80072560"), (401, "0x80072560"))
def an_application_without_a_user(both: Both) -> Any:
    both.grant("crm", allowed=False)
    reply = both.crm.get("accounts")
    both.grant("crm", allowed=True)
    return error_code(reply)


@shows("crm_disabled_owner_status", (403, "0x80040225"), (400, "0x80040225"))
def an_owner_who_is_disabled(both: Both) -> Any:
    user = both.crm.rows("systemusers?$filter=isdisabled eq true")[0]["systemuserid"]
    return error_code(both.crm.post("accounts", {"name": "N", "ownerid@odata.bind": f"/systemusers({user})"}))


@shows("crm_delete_blocked_status", (405, "0x80040227"), (400, "0x80040227"))
def a_currency_that_is_in_use(both: Both) -> Any:
    currency = both.crm.rows("transactioncurrencies?$filter=isocurrencycode eq 'EUR'")[0]["transactioncurrencyid"]
    both.account(**{"transactioncurrencyid@odata.bind": f"/transactioncurrencies({currency})"})
    return error_code(both.crm.delete(f"transactioncurrencies({currency})"))


@shows("crm_currency_code_status", (400, "0x80048cf3"), (412, "0x80048cf3"))
def a_currency_code_that_is_taken(both: Both) -> Any:
    body = {"isocurrencycode": "EUR", "currencyname": "Euro", "currencysymbol": "e", "exchangerate": 2}
    return error_code(both.crm.post("transactioncurrencies", {**body, "currencyprecision": 2}))


@shows("crm_taken_answer", (412, "0x80040237"), (412, "0x80073002"), (400, "0x80073002"))
def a_number_and_an_id_that_are_taken(both: Both) -> Any:
    shop = Shop(both.crm)
    number = both.crm.get(shop.document("salesorders")).json()["ordernumber"]
    customer = f"/accounts({both.account()['accountid']})"
    order = {"name": "Again", "ordernumber": number, "customerid_account@odata.bind": customer}
    by_number = error_code(both.crm.post("salesorders", order))
    by_id = error_code(both.crm.post("accounts", {"name": "Again", "accountid": both.account()["accountid"]}))
    assert by_number == by_id
    return by_id


@shows("crm_create_only_code", (412, "0x80040237"), (412, "0x80060882"))
def a_row_that_is_there_already(both: Both) -> Any:
    account = f"accounts({both.account()['accountid']})"
    return error_code(both.crm.patch(account, {"name": "N"}, headers={"If-None-Match": "*"}))


@shows("crm_unknown_resource_code", (404, "0x80060888"), (404, "0x8006088a"))
def an_address_that_leads_nowhere(both: Both) -> Any:
    return error_code(both.crm.get("nothings"))


@shows(
    "crm_error_code_empty",
    ((412, "0x80060882"), (404, "0x80040217")),
    ((412, ""), (404, "0x80040217")),
    ((412, ""), (404, "")),
)
def a_stale_tag_and_a_missing_row(both: Both) -> Any:
    account = f"accounts({both.account()['accountid']})"
    return error_code(both.crm.patch(account, {}, tag='W/"1"')), error_code(both.crm.get(f"accounts({NOBODY})"))


# ------------------------------------------------------------ the shape of the ERP's answers


@shows("erp_challenge_header", "Bearer", None)
def a_challenge(both: Both) -> Any:
    return both.erp.get("customers", headers={"Authorization": "Bearer nothing"}).headers.get("WWW-Authenticate")


@shows("erp_retry_after_on_429", (429, False), (429, True))
def a_wait_that_is_told(both: Both) -> Any:
    reply = both.throttled()
    return reply.status_code, 1 <= int(reply.headers.get("Retry-After", 0)) <= 300


@shows("erp_location_header", True, False)
def a_new_entity(both: Both) -> Any:
    reply = both.erp.post("customers", {"displayName": "Located"})
    return reply.headers.get("Location", "").endswith(f"/customers({reply.json()['id']})")


@shows("erp_action_location_header", True, False)
def an_action_that_makes_a_document(both: Both) -> Any:
    quote = both.erp.post("salesQuotes", {"customerId": both.customer()["id"]}).json()
    reply = both.erp.post(f"salesQuotes({quote['id']})/Microsoft.NAV.makeOrder", {})
    assert 204 == reply.status_code, reply.text
    return "/salesOrders(" in reply.headers.get("Location", "")


@shows("erp_etag_header", True, False)
def one_entity(both: Both) -> Any:
    reply = both.erp.get(f"customers({both.customer()['id']})")
    return reply.headers.get("ETag") == reply.json()["@odata.etag"]


@shows("erp_etag_form", ("'20;", 28), ("'44;", 52))
def an_etag(both: Both) -> Any:
    row = both.customer()
    listed = both.erp.rows(f"customers?$filter=id eq {row['id']}")[0]
    assert row["@odata.etag"] == listed["@odata.etag"]
    changed = both.erp.patch(f"customers({row['id']})", {"phoneNumber": "1"}, tag=row["@odata.etag"]).json()
    assert changed["@odata.etag"] != row["@odata.etag"]
    inside = base64.b64decode(row["@odata.etag"][3:-1]).decode()
    assert inside.endswith("1;00;'")
    return inside[:4], len(inside.removesuffix("1;00;'")) + 4


@shows("erp_next_link", "aid=FIN&$skiptoken=", "$skiptoken=")
def a_next_link(both: Both) -> Any:
    page = both.erp.get("customers?$select=number", prefer="odata.maxpagesize=150").json()
    link = page["@odata.nextLink"]
    rest = both.erp.get(link, prefer="odata.maxpagesize=500").json()["value"]
    assert {row["number"] for row in rest}.isdisjoint(row["number"] for row in page["value"])
    return link[link.index("number&") + len("number&") : link.index("token=") + len("token=")]


# ------------------------------------------------------------ what the ERP does


@shows("erp_null_resets", (200, ""), (200, "1"), (400, "1"))
def null_in_a_body(both: Both) -> Any:
    path = f"customers({both.customer(phoneNumber='1')['id']})"
    return both.erp.patch(path, {"phoneNumber": None}, tag="*").status_code, both.erp.get(path).json()["phoneNumber"]


@shows("erp_validation_order", "Elsewhere", "Portland")
def the_order_of_a_body(both: Both) -> Any:
    """A city that comes after the post code stands; the page has it before, and the post code overrules it."""
    return both.customer(postalCode="97205", city="Elsewhere")["city"]


@shows("erp_return_no_content", (204, b""), (201, None))
def a_client_that_wants_no_content(both: Both) -> Any:
    reply = both.erp.post("customers", {"displayName": "Quiet"}, prefer="return-no-content")
    return reply.status_code, None if reply.content else b""


@shows("erp_deep_insert_echoes", None, ["A remark"])
def entities_nested_in_a_post(both: Both) -> Any:
    lines = [{"lineType": "Comment", "description": "A remark"}]
    made = both.erp.post("salesOrders", {"customerId": both.customer()["id"], "salesOrderLines": lines}).json()
    echoed = made.get("salesOrderLines")
    return None if echoed is None else [line["description"] for line in echoed]


@shows("erp_expand_options", 200, 400)
def a_filter_inside_expand(both: Both) -> Any:
    path = f"customers({both.customer()['id']})"
    assert 200 == both.erp.get(f"{path}?$expand=currency($select=code)").status_code
    return both.erp.get(f"{path}?$expand=contactsInformation($filter=contactType eq 'Person')").status_code


@shows("erp_company_by_name_in_query", 200, 404)
def a_company_named_in_the_query(both: Both) -> Any:
    company = both.erp.get(f"{both.erp.root}/companies").json()["value"][0]
    assert 200 == both.erp.get(f"{both.erp.root}/customers?company={company['id']}").status_code
    assert 200 == both.erp.get(f"{both.erp.root}/customers", headers={"Company": company["name"]}).status_code
    return both.erp.get(f"{both.erp.root}/customers", params={"company": company["name"]}).status_code


@shows("erp_action_names_any_case", 204, 404)
def an_action_in_another_letter_case(both: Both) -> Any:
    quote = both.erp.post("salesQuotes", {"customerId": both.customer()["id"]}).json()
    return both.erp.post(f"salesQuotes({quote['id']})/Microsoft.NAV.MAKEorder", {}).status_code


@shows("erp_delete_without_if_match", 204, 400)
def a_delete_without_if_match(both: Both) -> Any:
    path = f"customers({both.customer()['id']})"
    reply = both.erp.delete(path)
    assert (404 if reply.status_code == 204 else 204) == both.erp.delete(path, tag="*").status_code
    subscription = f"{both.erp.root}/subscriptions('{both.subscribe('customers').json()['subscriptionId']}')"
    assert reply.status_code == both.erp.delete(subscription).status_code
    both.erp.delete(subscription, tag="*")
    return reply.status_code


@shows("erp_batch_counts", [200, 200], [200, 429])
def a_batch_of_four_where_five_are_allowed(both: Both) -> Any:
    part = {"method": "GET", "url": f"companies({both.info['erp']['company_id']})/currencies?$top=1"}
    lines = ["--b", "Content-Type: application/http", "", f"GET {part['url']} HTTP/1.1", "", ""] * 4
    multipart = {
        "data": "\r\n".join([*lines, "--b--", ""]),
        "headers": {"Content-Type": "multipart/mixed; boundary=b"},
    }

    def asked(**batch: Any) -> list[int]:
        """The batch, and what is asked after it and another one."""
        both.control("POST", "limits", {"system": "erp", "on": True, "scale": 5 / 6000})
        first = both.erp.send("POST", f"{both.erp.root}/$batch", **batch)
        both.batch(part)
        return [first.status_code, both.erp.get("currencies?$top=1").status_code]

    statuses = asked(json={"requests": [part] * 4})
    assert statuses == asked(**multipart)
    both.control("POST", "limits", {"system": "erp", "on": False, "scale": 1})
    return statuses


@shows("erp_batch_stops_at_failure", [404], [404, 200])
def a_batch_with_a_failure(both: Both) -> Any:
    base = f"companies({both.info['erp']['company_id']})"
    parts = [{"method": "GET", "url": f"{base}/{path}"} for path in (f"customers({NOBODY})", "currencies?$top=1")]
    return [response["status"] for response in both.batch(*parts).json()["responses"]]


@shows("erp_batch_groups", 200, 400)
def a_batch_with_a_dependency(both: Both) -> Any:
    parts = [
        {"method": "GET", "url": "companies", "id": "1"},
        {"method": "GET", "url": "companies", "dependsOn": ["1"]},
    ]
    return both.batch(*parts).status_code


@shows("erp_snapshot_first_failure", [404], [404, 201])
def a_snapshot_batch_whose_first_request_fails(both: Both) -> Any:
    base, name = f"companies({both.info['erp']['company_id']})", f"Snapshot {uuid.uuid4()}"
    missing = {"method": "GET", "url": f"{base}/customers({NOBODY})"}
    typed = {"Content-Type": "application/json"}
    made = {"method": "POST", "url": f"{base}/customers", "headers": typed, "body": {"displayName": name}}
    responses = both.batch(missing, made, headers={"Isolation": "snapshot"}).json()["responses"]
    assert [] == both.erp.rows(f"customers?$filter=displayName eq '{name}'")
    return [response["status"] for response in responses]


@shows("erp_handshake_verb", ["POST"], ["GET"])
def a_handshake(both: Both) -> Any:
    assert 201 == both.subscribe("customers").status_code
    return both.receiver.verbs


@shows("erp_subscribe_twice", [201, 400], [201, 201])
def a_second_subscription(both: Both) -> Any:
    return [both.subscribe("customers").status_code for _ in range(2)]


@shows("erp_webhook_sets", (True, [201, 201]), (False, [201, 400]))
def what_can_be_subscribed(both: Both) -> Any:
    catalogue = both.erp.base.replace("/api/v2.0", "/api/microsoft/runtime/beta") + "/webhookSupportedResources"
    listed = {row["resource"] for row in both.erp.rows(catalogue)}
    assert "v2.0/customers" in listed
    statuses = [both.subscribe(set_name).status_code for set_name in ("customers", "contacts")]
    return "v2.0/contacts" in listed, statuses


@shows("erp_contact_type", ("Company", "Person"), ("Person", "Person"))
def a_contact_of_no_type(both: Both) -> Any:
    bodies = ({"displayName": "Untold"}, {"displayName": "Told", "type": "Person"})
    return tuple(both.erp.post("contacts", body).json()["type"] for body in bodies)


@shows("erp_customer_contact_type", "Person", "Company")
def the_contact_of_a_person_who_buys(both: Both) -> Any:
    customer = both.customer(type="Person")
    contacts = both.erp.rows(f"customers({customer['id']})/contactsInformation")
    return both.erp.get(f"contacts({contacts[0]['contactId']})").json()["type"]


@shows("erp_posted_due_date", (400, 400), (200, 400))
def an_invoice_that_is_posted(both: Both) -> Any:
    item = both.erp.rows("items?$filter=type eq 'Service'&$top=1")[0]["id"]
    lines = [{"lineType": "Item", "itemId": item, "quantity": 1, "unitPrice": 5}]
    body = {"customerId": both.customer()["id"], "salesInvoiceLines": lines}
    path = f"salesInvoices({both.erp.post('salesInvoices', body).json()['id']})"
    assert 204 == both.erp.post(f"{path}/Microsoft.NAV.post", {}).status_code
    changes = ({"dueDate": "2031-01-02"}, {"dueDate": "2031-01-03", "email": "a@example.com"})
    return tuple(both.erp.patch(path, change, tag="*").status_code for change in changes)


@shows("erp_opportunity_delete", 204, 400)
def an_opportunity_not_yet_begun(both: Both) -> Any:
    contact = both.erp.post("contacts", {"displayName": "Chance"}).json()
    made = both.erp.post("opportunities", {"contactNumber": contact["number"], "salespersonCode": "JR"}).json()
    return both.erp.delete(f"opportunities({made['id']})", tag="*").status_code


# ------------------------------------------------------------ what the CRM does


@shows("crm_etag_header", True, False)
def one_row(both: Both) -> Any:
    reply = both.crm.get(f"accounts({both.account()['accountid']})")
    return reply.headers.get("ETag") == reply.json()["@odata.etag"]


@shows(
    "crm_date_columns",
    ("2026-03-16", "Edm.Date", "DateOnly"),
    ("2026-03-16T00:00:00Z", "Edm.DateTimeOffset", "UserLocal"),
)
def a_column_of_a_date(both: Both) -> Any:
    """Written, compared and described as it is shown."""
    contact = {"lastname": "Dated", "birthdate": "2026-03-16"}
    row = both.crm.post("contacts", contact, prefer="return=representation").json()
    path, shown = f"contacts({row['contactid']})", row["birthdate"]
    assert 204 == both.crm.patch(path, {"birthdate": shown}).status_code
    query = f"contactid eq {row['contactid']} and birthdate eq {shown}"
    assert [shown] == [found["birthdate"] for found in both.crm.rows(f"contacts?$filter={query}")]
    fetch = (
        '<fetch><entity name="contact"><attribute name="birthdate"/><filter>'
        f'<condition attribute="contactid" operator="eq" value="{row["contactid"]}"/>'
        '<condition attribute="birthdate" operator="on" value="2026-03-16"/></filter></entity></fetch>'
    )
    assert [shown] == [found["birthdate"] for found in both.crm.rows("contacts", params={"fetchXml": fetch})]
    described = both.crm.get("EntityDefinitions(LogicalName='contact')/Attributes(LogicalName='birthdate')").json()
    of_csdl = both.crm.get("$metadata").text.partition('Name="birthdate" Type="')[2].partition('"')[0]
    return shown, of_csdl, described["DateTimeBehavior"]["Value"]


@shows("crm_repeated_targets", (204, "2"), (412, None))
def a_row_twice_in_update_multiple(both: Both) -> Any:
    row_id = both.account()["accountid"]
    kind = {"@odata.type": "Microsoft.Dynamics.CRM.account", "accountid": row_id}
    targets = [{**kind, "telephone1": "1"}, {**kind, "telephone1": "2"}]
    reply = both.crm.post("accounts/Microsoft.Dynamics.CRM.UpdateMultiple", {"Targets": targets})
    return reply.status_code, both.crm.get(f"accounts({row_id})").json()["telephone1"]


@shows("crm_read_only_columns", (204, None), (400, "0x80048d19"))
def a_read_only_column_in_a_body(both: Both) -> Any:
    reply = both.crm.patch(f"accounts({both.account()['accountid']})", {"modifiedon": "2020-01-01T00:00:00Z"})
    return (204, None) if reply.status_code == 204 else error_code(reply)


@shows("crm_equal_values_move", False, True)
def a_patch_with_equal_values(both: Both) -> Any:
    account = both.account(telephone1="1")
    path = f"accounts({account['accountid']})"
    assert 204 == both.crm.patch(path, {"telephone1": "1"}).status_code
    same = both.crm.get(path).json()["@odata.etag"] == account["@odata.etag"]
    both.crm.patch(path, {"telephone1": "2"})
    assert both.crm.get(path).json()["@odata.etag"] != account["@odata.etag"]
    return same


@shows("crm_keys_per_table", 10, 5)
def many_alternate_keys(both: Both) -> Any:
    keys = "EntityDefinitions(LogicalName='pricelevel')/Keys"
    bodies = [{"SchemaName": f"s_{number}", "KeyAttributes": ["name"]} for number in range(11)]
    made = [reply for reply in (both.crm.post(keys, body) for body in bodies) if reply.status_code == 204]
    for reply in made:
        both.crm.delete(reply.headers["OData-EntityId"])
    return len(made)


@shows("crm_key_index", ["Active", "Active", "Failed"], ["Pending", "Active", "Failed"])
def the_index_of_a_new_key(both: Both) -> Any:
    """A key identifies nothing, and forbids nothing, while it is built."""
    kind, numbers = "EntityDefinitions(LogicalName='account')/Keys", {"SchemaName": "s_number", "KeyAttributes": []}
    for number in ("one", "two", "two"):
        both.account(telephone3=number, fax=None if number == "two" else number)
    made = [
        both.crm.post(kind, {**numbers, "SchemaName": f"s_{name}", "KeyAttributes": [name]}).headers["OData-EntityId"]
        for name in ("fax", "telephone3")
    ]
    first = both.crm.get(made[0]).json()["EntityKeyIndexStatus"]
    used = both.crm.get("accounts(fax='one')").status_code
    assert (200 if first == "Active" else 400) == used
    both.control("POST", "clock", {"advance_s": 2})
    later = [both.crm.get(path).json()["EntityKeyIndexStatus"] for path in made]
    assert 200 == both.crm.get("accounts(fax='one')").status_code
    for path in made:
        both.crm.delete(path)
    both.control("POST", "clock", {"reset": True})
    for row in both.crm.rows("accounts?$filter=telephone3 ne null"):
        both.crm.delete(f"accounts({row['accountid']})")
    return [first, *later]


@shows("crm_key_characters", 200, 400)
def a_key_with_a_slash(both: Both) -> Any:
    body = {"SchemaName": "s_number", "KeyAttributes": ["accountnumber"]}
    key = both.crm.post("EntityDefinitions(LogicalName='account')/Keys", body).headers["OData-EntityId"]
    number = uuid.uuid4().hex[:8]
    for accountnumber in (number, f"{number}/1"):
        both.account(accountnumber=accountnumber)
    assert 200 == both.crm.get(f"accounts(accountnumber='{number}')").status_code
    status = both.crm.get(f"accounts(accountnumber='{number}%2F1')").status_code
    both.crm.delete(key)
    return status


@shows("crm_price_list_names", [204, 400], [204, 204])
def a_price_list_of_a_name_that_there_is(both: Both) -> Any:
    name = f"List {uuid.uuid4().hex[:8]}"
    return [both.crm.post("pricelevels", {"name": name}).status_code for _ in range(2)]


@shows("crm_actual_value", 70, 0)
def a_won_opportunity(both: Both) -> Any:
    customer = f"/accounts({both.account()['accountid']})"
    body = {"name": "Chance", "estimatedvalue": 70, "isrevenuesystemcalculated": False}
    path = made(both.crm, "opportunities", {**body, "customerid_account@odata.bind": customer})
    closing = {"subject": "Won", "opportunityid@odata.bind": f"/{path}"}
    assert 204 == both.crm.post("WinOpportunity", {"OpportunityClose": closing, "Status": 3}).status_code
    return both.crm.get(path).json()["actualvalue"]


@shows("crm_invoiced_order", 0, 4)
def an_order_that_became_an_invoice(both: Both) -> Any:
    order = Shop(both.crm).document("salesorders")
    body = {"SalesOrderId": key(order), "ColumnSet": {"AllColumns": True}}
    assert 200 == both.crm.post("ConvertSalesOrderToInvoice", body).status_code
    return both.crm.get(order).json()["statecode"]


@shows("crm_lock_pricing", (204, 204), (404, 204), (204, 404))
def prices_that_are_locked(both: Both) -> Any:
    """By the action of a row, and by that of none."""
    bound, unbound = (Shop(both.crm).document("salesorders") for _ in range(2))
    replies = (
        both.crm.post(f"{bound}/Microsoft.Dynamics.CRM.LockSalesOrderPricing", {}),
        both.crm.post("LockSalesOrderPricing", {"SalesOrderId": key(unbound)}),
    )
    return tuple(reply.status_code for reply in replies)


@shows("crm_document_numbers", 412, 204)
def an_order_of_a_number_that_there_is(both: Both) -> Any:
    number = both.crm.get(Shop(both.crm).document("salesorders")).json()["ordernumber"]
    customer = f"/accounts({both.account()['accountid']})"
    order = {"name": "Again", "ordernumber": number, "customerid_account@odata.bind": customer}
    return both.crm.post("salesorders", order).status_code


@shows("crm_metadata_options", None, ["uomschedule", "uom"])
def a_part_of_the_metadata(both: Both) -> Any:
    uoms = "LogicalName eq 'uomschedule' or LogicalName eq 'uom' or LogicalName eq 'team'"
    path = f"EntityDefinitions?$select=LogicalName&$filter={uoms}&$orderby=LogicalName desc"
    replies = [both.crm.get(f"{path}&$top=2"), both.crm.get(f"{path}&$top=many")]
    assert (400, "0x80060888") == error_code(replies[1])
    return [row["LogicalName"] for row in replies[0].json()["value"]] if replies[0].status_code == 200 else None


@shows("crm_bypass_skips_webhooks", ["Second"], ["First", "Second"])
def a_write_that_bypasses_asynchronous_logic(both: Both) -> Any:
    return sorted(both.told(**{"MSCRM.BypassBusinessLogicExecution": "CustomAsync"}))


@shows("crm_automatic_post_image", ["after"], ["AsynchronousStepPrimaryName", "after"])
def the_images_of_a_step(both: Both) -> Any:
    return sorted(image["key"] for image in both.told()["Second"]["PostEntityImages"])


@shows("crm_image_row_version", False, True)
def the_row_version_of_an_image(both: Both) -> Any:
    context = both.told()["Second"]
    version = both.crm.get(f"accounts({context['PrimaryEntityId']})").json()["versionnumber"]
    told = context["PostEntityImages"][0]["value"]["RowVersion"]
    assert told in (None, str(version))
    return told is not None


@shows("crm_object_ids", 2, 0)
def the_object_ids_of_a_context(both: Both) -> Any:
    return len([name for name in both.told()["Second"] if name.endswith("AzureActiveDirectoryObjectId")])


@shows("crm_owning_extension_name", "hub", None)
def the_owning_extension_of_a_context(both: Both) -> Any:
    return both.told()["Second"]["OwningExtension"]["Name"]


# ------------------------------------------------------------ the tests


@pytest.fixture
def both(info: Info, erp: Client, crm: Client, control: Control, receiver: Receiver) -> Iterator[Both]:
    yield Both(info=info, erp=erp, crm=crm, control=control, receiver=receiver)
    control("DELETE", "switches")
    for row in erp.get(f"{erp.root}/subscriptions").json()["value"]:
        erp.delete(f"{erp.root}/subscriptions('{row['subscriptionId']}')", tag="*")


class TestSwitch:
    @pytest.mark.parametrize(
        ("name", "value"), [(name, value) for name, (_, expected) in PROBES.items() for value in expected]
    )
    def test_decides_what_is_seen_on_the_wire(self, both: Both, name: str, value: Answer):
        """Each value shows, the default without being set."""
        if value != SWITCHES[name].default:
            both.control("POST", "switches", {name: value})
        probe, expected = PROBES[name]

        assert expected[value] == probe(both)

    def test_is_seen_for_every_value_of_every_one(self):
        assert {name for name, switch in SWITCHES.items() if switch.does} == set(PROBES)

    def test_has_each_of_its_values_in_one_of_the_rounds(self):
        """Which the clients are run under."""
        for switch in (switch for switch in SWITCHES.values() if switch.does):
            assert set(switch.does) <= {values.get(switch.name, switch.default) for values in ROUNDS.values()}

    def test_says_where_its_question_is_left_open(self):
        for switch in SWITCHES.values():
            assert switch.left_open == UNDOCUMENTED or switch.left_open.startswith("learn.microsoft.com/")
            assert switch.question.endswith("?")
            assert not switch.does or len(switch.does) > 1

    def test_customer_template_fills_in_what_a_post_leaves_out(self, both: Both):
        both.control("POST", "switches", {"customer_template": {"phoneNumber": "7", "city": "Rome"}})

        row = both.customer(city="Oslo")
        assert ("7", "Oslo") == (row["phoneNumber"], row["city"])

    def test_tax_rates_are_by_code(self, both: Both):
        both.control("POST", "switches", {"tax_rates": {"TAXABLE": 19}})
        customer = both.customer(taxLiable=True)
        order = both.erp.post("salesOrders", {"customerId": customer["id"]}).json()
        item = both.erp.rows("items?$top=1")[0]["id"]
        line = {"lineType": "Item", "itemId": item, "quantity": 1}

        assert 19 == both.erp.post(f"salesOrders({order['id']})/salesOrderLines", line).json()["taxPercent"]


class TestControl:
    def test_shows_every_switch(self, both: Both):
        assert {name: switch.default for name, switch in SWITCHES.items()} == both.control("GET", "switches")

    def test_puts_all_back(self, both: Both):
        both.control("POST", "switches", turned_over())
        both.control("DELETE", "switches")

        assert {name: switch.default for name, switch in SWITCHES.items()} == both.control("GET", "switches")

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            ({"erp_duplicate_status": 409}, "erp_duplicate_key_status"),
            ({"erp_duplicate_key_status": 418}, "400, 409"),
            ({"erp_duplicate_key_status": "409"}, "400, 409"),
            ({"erp_etag_header": 1}, "true, false"),
            ({"erp_etag_header": False, "full_name": "backwards"}, "first_middle_last, first_last, last_first"),
            ({"tax_rates": {"TAXABLE": "much"}}, "an object of codes and percentages"),
            ({"customer_template": []}, "an object of fields and values"),
        ],
    )
    def test_says_what_there_is_where_a_name_or_a_value_is_unknown(self, both: Both, body, text):
        """And changes nothing."""
        reply = both.control.http.post(f"{both.info['control_url']}/switches", json=body, timeout=10)

        assert 400 == reply.status_code
        assert text in reply.json()["error"]
        assert both.control("GET", "switches")["erp_etag_header"] is True


class TestStart:
    def test_takes_switches(self, start: Callable[..., Info]):
        """In every environment of the ERP, and for every one at once."""
        info = start(seed="demo", limits=False, environments=("production",), switches=turned_over())
        control, erp = Control(info), Client(info, "erp")
        there = info["erp"]["environments"]["production"]

        shown = control("GET", "switches")
        assert turned_over() == {name: shown[name] for name in turned_over()}
        for base in (erp.base, f"{there['base_url']}/companies({there['company_id']})"):
            assert "Location" not in erp.post(f"{base}/customers", {"displayName": "Unlocated"}).headers

    def test_plants_the_same_under_every_switch(self, start: Callable[..., Info], control: Control):
        turned = Control(start(seed="demo", limits=False, switches={"full_name": "last_first"}))

        assert control("GET", "truth/crm/contacts")[0]["fullname"] in [
            row["fullname"] for row in turned("GET", "truth/crm/contacts")
        ]

    def test_refuses_what_there_is_not(self, tmp_path: Path):
        with pytest.raises(SandboxError) as raised:
            start_in_thread(SandboxOptions(state_dir=tmp_path, switches={"erp_etag_form": "oldest"}))

        assert "newer, older" in str(raised.value.__cause__)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("erp_duplicate_key_status=409", ("erp_duplicate_key_status", 409)),
            ("erp_etag_header=false", ("erp_etag_header", False)),
            ("crm_taken_answer=412 0x80073002", ("crm_taken_answer", "412 0x80073002")),
            ('tax_rates={"TAXABLE": 19}', ("tax_rates", {"TAXABLE": 19})),
        ],
    )
    def test_reads_them_from_a_command_line(self, text, expected):
        assert expected == parsed(text)

    def test_reads_no_name_alone(self):
        with pytest.raises(NoSuchSwitch):
            parsed("erp_etag_header")
