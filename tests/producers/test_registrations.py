"""What is registered in the two systems: against a sandbox, and against answers that it never gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from drawbar.business_central import BusinessCentral
from drawbar.odata import ODataHttp, open_http
from drawbar.ports import NoReply, Reply
from producers.registrations import (
    RENEW_BEFORE,
    CrmSteps,
    Deed,
    ErpSubscriptions,
    Found,
    Subscription,
    WantedStep,
    difference,
    fault_of,
    secret_mark,
    shown_url,
    subject_of,
)
from schemas.errors import PrivilegeMissing
from schemas.records import System
from tests.kafka_fixture import until
from tests.producers.sandboxes import CLOCK, Hands, sandbox
from tests.producers.worlds import START
from tests.sandbox.conftest import Receiver
from tests.sandbox.rounds import ROUNDS

COMPANY = "11111111-0000-4000-8000-000000000001"
RESOURCE = f"/api/v2.0/companies({COMPANY})/customers"
SECRET = "s3cret <&\" '>"
ACCOUNT = {"account": ("telephone1", "name")}


@pytest.fixture(scope="module", params=ROUNDS)
def hands(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hands]:
    """A sandbox for every way in which the services may answer."""
    with sandbox(tmp_path_factory.mktemp("sandbox"), ROUNDS[request.param]) as hands:
        yield hands


@pytest.fixture
def hub() -> Iterator[Receiver]:
    """Answers the handshake at whatever path."""
    made = Receiver()
    yield made
    made.close()


@contextmanager
def without(hands: Hands, system: System, entity: str, operation: str) -> Iterator[None]:
    """Our application without one right."""
    app = hands.info[system.value]["client_id"]
    rule = {"system": system.value, "app": app, "entity": entity, "operation": operation}
    hands.control("POST", "grants", {**rule, "allowed": False})
    yield
    hands.control("POST", "grants", {**rule, "allowed": True})


def deeds(found: list[Found]) -> list[Deed]:
    return [one.deed for one in found]


def a_subscription(**changed: Any) -> Subscription:
    values = {"id": "1", "etag": "e", "url": "http://hub", "resource": RESOURCE, "secret": SECRET}
    return Subscription(**{**values, "expires": START + timedelta(days=3), **changed})


class TestFaultOf:
    @pytest.mark.parametrize(
        ("changed", "has_fault"),
        [
            ({}, False),
            ({"expires": START + RENEW_BEFORE}, False),
            ({"expires": START + RENEW_BEFORE - timedelta(seconds=1)}, True),
            ({"expires": None}, True),
            ({"secret": None}, False),
            ({"secret": "another"}, True),
            ({"resource": f"https://erp.example.com/v2.0/t/e/api/v2.0/companies({COMPANY})/customers"}, False),
            ({"resource": "api/v2.0/companies(22222222-0000-4000-8000-000000000002)/customers"}, True),
        ],
    )
    def test_is_an_end_that_is_near_another_secret_or_another_company(self, changed: dict[str, Any], has_fault: bool):
        """A secret that is not shown is taken for right: renewing it all the time would tell nothing."""
        why = fault_of(a_subscription(**changed), resource=RESOURCE, secret=SECRET, now=START)

        assert has_fault is bool(why)
        assert SECRET not in why


class TestSubjectOf:
    def test_is_the_same_however_a_resource_is_written(self):
        written = [RESOURCE, RESOURCE[1:], f"https://h/x/api/v2.0/{RESOURCE[10:]}", RESOURCE.upper()]

        assert {f"companies({COMPANY})/customers"} == {subject_of(resource) for resource in written}


class TestShownUrl:
    def test_leaves_out_where_secrets_stand(self):
        assert "https://hub:8443/a" == shown_url("https://user:pass@hub:8443/a?code=secret#x")


class TestDifference:
    STEP = WantedStep(entity="account", message="Update", message_id="m", scope_id="s", columns=("name", "telephone1"))
    THERE: Mapping[str, Any] = {"mode": 1, "stage": 40, "statecode": 0, "filteringattributes": "telephone1, name"}

    @pytest.mark.parametrize(
        ("there", "changed"),
        [
            ({}, {}),
            ({"mode": 0}, {"mode": 1}),
            ({"statecode": 1}, {"statecode": 0, "statuscode": 1}),
            ({"filteringattributes": "name"}, {"filteringattributes": "name,telephone1"}),
            ({"filteringattributes": None}, {"filteringattributes": "name,telephone1"}),
        ],
    )
    def test_is_what_has_to_be_written(self, there: dict[str, Any], changed: dict[str, Any]):
        """The order of columns means nothing; a step that somebody switched off is switched on."""
        assert changed == difference({**self.THERE, **there}, self.STEP)


class TestErpSubscriptions:
    @pytest.fixture
    def http(self, hands: Hands) -> Iterator[ODataHttp]:
        http = open_http(hands.settings(), System.ERP)
        yield http
        for row in http.call("GET", "subscriptions").body["value"]:
            self.drop(http, row)
        http.close()

    @staticmethod
    def drop(http: ODataHttp, row: Mapping[str, Any]) -> None:
        http.call("DELETE", f"subscriptions('{row['subscriptionId']}')", headers={"If-Match": row["@odata.etag"]})

    @staticmethod
    def at(hands: Hands, http: ODataHttp, url: str, secret: str = SECRET) -> ErpSubscriptions:
        adapter = BusinessCentral(company_id=hands.info["erp"]["company_id"])
        return ErpSubscriptions(http, adapter, CLOCK, url=url, secret=secret)

    def test_keep_one_for_each_entity_and_do_nothing_the_second_time(
        self, hands: Hands, http: ODataHttp, hub: Receiver
    ):
        subscriptions = self.at(hands, http, hub.url)

        assert [Deed.MISSING, Deed.MISSING] == deeds(subscriptions.look(["customer", "paymentTerm"]))
        assert [Deed.MADE, Deed.MADE] == deeds(subscriptions.keep(["customer", "paymentTerm"]))
        before = http.call("GET", "subscriptions").body["value"]
        assert [Deed.KEPT, Deed.KEPT] == deeds(subscriptions.keep(["customer", "paymentTerm"]))
        assert before == http.call("GET", "subscriptions").body["value"]
        assert {f"{hub.url}/hooks/erp/{name}" for name in ("customer", "paymentTerm")} == {
            row["notificationUrl"] for row in before
        }

    def test_renew_what_ends_soon_and_make_again_what_the_erp_dropped(
        self, hands: Hands, http: ODataHttp, hub: Receiver
    ):
        subscriptions = self.at(hands, http, hub.url)
        hands.control("POST", "webhooks", {"system": "erp", "lease_s": 86_400})
        subscriptions.keep(["customer"])
        hands.control("POST", "webhooks", {"system": "erp", "lease_s": 259_200})

        assert [Deed.DIFFERS] == deeds(subscriptions.look(["customer"]))
        assert [Deed.RENEWED] == deeds(subscriptions.keep(["customer"]))
        assert [Deed.KEPT] == deeds(subscriptions.keep(["customer"]))
        self.drop(http, http.call("GET", "subscriptions").body["value"][0])
        assert [Deed.MADE] == deeds(subscriptions.keep(["customer"]))

    def test_take_a_new_secret_along(self, hands: Hands, http: ODataHttp, hub: Receiver):
        self.at(hands, http, hub.url).keep(["customer"])

        assert [Deed.RENEWED] == deeds(self.at(hands, http, hub.url, "new").keep(["customer"]))
        assert "new" == http.call("GET", "subscriptions").body["value"][0]["clientState"]

    def test_leave_those_of_other_addresses_alone_and_tell_of_them(self, hands: Hands, http: ODataHttp, hub: Receiver):
        """The ERP tells both; ours from before a move ends by itself."""
        self.at(hands, http, f"{hub.url}/old").keep(["customer"])

        found = self.at(hands, http, hub.url).keep(["customer"])
        assert [Deed.MADE, Deed.FOREIGN] == deeds(found)
        assert found[1].detail.startswith(f"{hub.url}/old/hooks/erp/customer, ends ")
        assert 2 == len(http.call("GET", "subscriptions").body["value"])

    def test_remove_all_that_lead_to_us_and_no_other(self, hands: Hands, http: ODataHttp, hub: Receiver):
        self.at(hands, http, f"{hub.url}/other").keep(["customer"])
        subscriptions = self.at(hands, http, hub.url)
        subscriptions.keep(["customer", "paymentTerm"])

        assert [Deed.REMOVED, Deed.REMOVED] == deeds(subscriptions.remove())
        assert [] == subscriptions.remove()
        assert [Deed.MISSING, Deed.FOREIGN] == deeds(subscriptions.look(["customer"]))

    def test_say_when_the_erp_does_not_reach_us(self, hands: Hands, http: ODataHttp):
        (found,) = self.at(hands, http, "http://127.0.0.1:9").keep(["customer"])

        assert (Deed.FAILED, "DRW-2005") == (found.deed, found.fault.code if found.fault else "")

    @pytest.mark.parametrize(("which", "deed"), [("by_rule", Deed.MADE), ("documented", Deed.NOT_OFFERED)])
    def test_tell_what_the_erp_does_not_tell_of(
        self, hands: Hands, http: ODataHttp, hub: Receiver, which: str, deed: Deed
    ):
        """Its list of entities leaves out salespeople, which fit its rule: the catalogue says what is so."""
        before = hands.control("GET", "switches")["erp_webhook_sets"]
        hands.control("POST", "switches", {"erp_webhook_sets": which})
        subscriptions = self.at(hands, http, hub.url)

        looked, kept = subscriptions.look(["salesperson"]), subscriptions.keep(["salesperson"])
        hands.control("POST", "switches", {"erp_webhook_sets": before})
        assert [deed if deed is Deed.NOT_OFFERED else Deed.MISSING, deed] == deeds(looked + kept)
        assert kept[0].is_well

    def test_say_which_right_is_missing(self, hands: Hands, http: ODataHttp, hub: Receiver):
        with without(hands, System.ERP, "subscriptions", "create"):
            (found,) = self.at(hands, http, hub.url).keep(["customer"])

        assert isinstance(found.fault, PrivilegeMissing)
        assert "missing TableData API Webhook Subscription Insert" in found.fault.message

    def test_are_not_made_twice_by_two_at_once(self):
        """The ERP refuses the second of two that make the same one; that it is there is what counts."""
        ours = {"subscriptionId": "1", "notificationUrl": "http://hub/hooks/erp/customer", "resource": RESOURCE}
        world = Played([{"value": []}, 400, {"value": [ours]}])

        assert [Deed.MADE] == deeds(world.subscriptions().keep(["customer"]))

    @pytest.mark.parametrize(
        ("answers", "deed"),
        [
            ([409, "again", 200], Deed.RENEWED),
            ([412, "again", 409, "again", 200], Deed.RENEWED),
            ([404, "gone", 201], Deed.MADE),
            ([409, "renewed"], Deed.KEPT),
            ([409, "again", 409, "again", 409, "again"], Deed.FAILED),
        ],
    )
    def test_are_renewed_under_the_version_that_was_read(self, answers: list[Any], deed: Deed):
        """Another process may renew or remove it in between: then it is looked at again."""
        ours = {"subscriptionId": "1", "notificationUrl": "http://hub/hooks/erp/customer", "resource": RESOURCE}
        shown = {
            "again": {"value": [{**ours, "@odata.etag": "2"}]},
            "gone": {"value": []},
            "renewed": {"value": [{**ours, "expirationDateTime": "2026-03-05T09:00:00Z"}]},
        }
        world = Played([{"value": [{**ours, "@odata.etag": "1"}]}, *(shown.get(each, each) for each in answers)])

        assert [deed] == deeds(world.subscriptions().keep(["customer"]))
        patched = [headers["If-Match"] for method, _, headers in world.asked if method == "PATCH"]
        assert ["1", *["2"] * (len(patched) - 1)] == patched

    def test_are_read_over_all_pages(self):
        ours = {"subscriptionId": "1", "notificationUrl": "http://hub/hooks/erp/customer", "resource": RESOURCE}
        there = {**ours, "expirationDateTime": "2026-03-05T09:00:00Z"}
        world = Played([{"value": [], "@odata.nextLink": "subscriptions?$skiptoken=2"}, {"value": [there]}])

        assert [Deed.KEPT] == deeds(world.subscriptions().keep(["customer"]))

    def test_fail_one_by_one_when_nobody_answers(self):
        found = Played([NoReply("ConnectTimeout", sent=False)]).subscriptions().keep(["customer", "paymentTerm"])

        assert [Deed.FAILED, Deed.FAILED] == deeds(found)
        assert {"DRW-2004"} == {one.fault.code for one in found if one.fault}


class Played:
    """Implements `drawbar.ports.Http` with answers that are given one after the other."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str, Mapping[str, str]]] = []

    def call(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **_: Any) -> Reply:
        self.asked.append((method, path, headers or {}))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Reply(status=answer) if isinstance(answer, int) else Reply(status=200, body=answer)

    def now(self) -> Any:
        return START

    def subscriptions(self) -> ErpSubscriptions:
        adapter = BusinessCentral(company_id=COMPANY)
        return ErpSubscriptions(self, adapter, self, url="http://hub", secret=SECRET)  # type: ignore[arg-type]


class TestCrmSteps:
    @pytest.fixture
    def http(self, hands: Hands) -> Iterator[ODataHttp]:
        http = open_http(hands.settings(), System.CRM)
        yield http
        for url in ("http://hub", "http://other"):
            CrmSteps(http, url=url, secret=SECRET).remove()
        http.close()

    @staticmethod
    def rows(http: ODataHttp, name: str = "sdkmessageprocessingsteps") -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = http.call("GET", name).body["value"]
        return rows

    def test_keep_an_endpoint_and_three_steps_and_do_nothing_the_second_time(self, http: ODataHttp):
        steps = CrmSteps(http, url="http://hub", secret=SECRET)

        assert [Deed.MISSING] * 4 == deeds(steps.look(ACCOUNT))
        assert [Deed.MADE] * 4 == deeds(steps.keep(ACCOUNT))
        before = self.rows(http), self.rows(http, "serviceendpoints")
        assert [Deed.KEPT] * 4 == deeds(steps.keep(ACCOUNT))
        assert [Deed.KEPT] * 4 == deeds(steps.look(ACCOUNT))
        assert before == (self.rows(http), self.rows(http, "serviceendpoints"))
        assert {(1, 40, 0, True)} == {
            (row["mode"], row["stage"], row["statecode"], row["asyncautodelete"]) for row in before[0]
        }
        assert ["name,telephone1"] == [row["filteringattributes"] for row in before[0] if row["filteringattributes"]]
        ((contract, kind),) = [(row["contract"], row["authtype"]) for row in before[1]]
        assert (8, 5) == (contract, kind)

    def test_mend_what_somebody_changed(self, http: ODataHttp):
        """A step that is switched off, one that is gone, one for fewer columns than the mapping has now."""
        steps = CrmSteps(http, url="http://hub", secret=SECRET)
        steps.keep(ACCOUNT)
        made = {row["name"].split()[1]: f"sdkmessageprocessingsteps({self.id_of(row)})" for row in self.rows(http)}
        http.call("PATCH", made["Create"], body={"statecode": 1, "statuscode": 2})
        http.call("DELETE", made["Delete"])
        more = {"account": ("name", "telephone1", "fax")}

        assert [Deed.KEPT, Deed.DIFFERS, Deed.DIFFERS, Deed.MISSING] == deeds(steps.look(more))
        assert [Deed.KEPT, Deed.CHANGED, Deed.CHANGED, Deed.MADE] == deeds(steps.keep(more))
        assert [Deed.KEPT] * 4 == deeds(steps.look(more))

    @staticmethod
    def id_of(row: Mapping[str, Any]) -> str:
        return str(row["sdkmessageprocessingstepid"])

    def test_write_a_new_secret_though_none_can_be_read_back(self, http: ODataHttp):
        CrmSteps(http, url="http://hub", secret=SECRET).keep(ACCOUNT)
        again = CrmSteps(http, url="http://hub", secret="new")

        found = again.keep(ACCOUNT)
        assert ([Deed.CHANGED] + [Deed.KEPT] * 3, "secret") == (deeds(found), found[0].detail)
        assert [Deed.KEPT] * 4 == deeds(again.keep(ACCOUNT))

    def test_remove_steps_that_are_not_wanted_any_more(self, http: ODataHttp):
        steps = CrmSteps(http, url="http://hub", secret=SECRET)
        steps.keep({**ACCOUNT, "systemuser": ("fullname",)})

        assert [Deed.REMOVED] * 3 == deeds(steps.keep(ACCOUNT))[4:]
        assert 3 == len(self.rows(http))

    def test_leave_other_endpoints_alone(self, http: ODataHttp):
        CrmSteps(http, url="http://other", secret=SECRET).keep(ACCOUNT)
        ours = CrmSteps(http, url="http://hub", secret=SECRET)

        assert [Deed.MADE, Deed.FOREIGN, *[Deed.MADE] * 3] == deeds(ours.keep(ACCOUNT))
        assert [Deed.REMOVED] * 4 == deeds(ours.remove())
        assert [] == ours.remove()
        assert (3, 1) == (len(self.rows(http)), len(self.rows(http, "serviceendpoints")))

    def test_say_what_the_crm_does_not_offer(self, http: ODataHttp):
        """An entity without a message, or unknown to this CRM, is no failure: polling sees it."""
        found = CrmSteps(http, url="http://hub", secret=SECRET).keep({"lead": ("subject",)})

        assert [Deed.MADE, *[Deed.NOT_OFFERED] * 3] == deeds(found)
        assert all(one.is_well for one in found)

    @pytest.mark.parametrize(
        ("entity", "operation", "named"),
        [
            ("serviceendpoint", "read", "prvReadServiceEndpoint"),
            ("serviceendpoint", "create", "prvCreateServiceEndpoint"),
            ("sdkmessageprocessingstep", "create", "prvCreateSdkMessageProcessingStep"),
        ],
    )
    def test_say_which_right_is_missing(self, hands: Hands, http: ODataHttp, entity: str, operation: str, named: str):
        with without(hands, System.CRM, entity, operation):
            found = CrmSteps(http, url="http://hub", secret=SECRET).keep(ACCOUNT)

        assert isinstance(found[-1].fault, PrivilegeMissing)
        assert found[-1].fault.message.endswith(f"missing {named}")

    def test_are_called_with_the_secret(self, hands: Hands, http: ODataHttp, hub: Receiver):
        """Whatever characters it has: it goes through XML there and through a header here."""
        steps = CrmSteps(http, url=hub.url, secret=SECRET)
        steps.keep(ACCOUNT)
        hands.create(System.CRM)
        until(lambda: bool(hub.got), "the call of the CRM", timeout_s=10)
        steps.remove()

        assert SECRET == hub.got[0][0]["x-drawbar-secret"]


class TestSecretMark:
    def test_differs_with_secret_and_address(self):
        marks = {secret_mark("a", "u"), secret_mark("b", "u"), secret_mark("a", "v")}

        assert 3 == len(marks)
        assert secret_mark("a", "u") in marks
