"""Business Central's `$batch`, fact by fact."""

from __future__ import annotations

import uuid

import pytest

from tests.sandbox.client import Client, Info, error_code


@pytest.fixture
def name() -> str:
    return f"Batch {uuid.uuid4()}"


@pytest.fixture
def base(info: Info) -> str:
    return f"companies({info['erp']['company_id']})"


def create(base: str, name: str, **more) -> dict:
    headers = {"Content-Type": "application/json"}
    return {"method": "POST", "url": f"{base}/customers", "headers": headers, "body": {"displayName": name}, **more}


def send(erp: Client, *requests: dict, **given):
    return erp.post(f"{erp.root}/$batch", {"requests": list(requests)}, **given)


def named(erp: Client, name: str) -> list[dict]:
    return erp.rows(f"customers?$filter=displayName eq '{name}'")


class TestResponses:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/webservices/use-odata-batch"""

    def test_are_those_of_single_requests_under_a_status_of_success(self, erp: Client, base, name):
        reply = send(erp, create(base, name, id="c1"), {"method": "GET", "url": f"{base}/customers/$count", "id": "n"})

        made, count = reply.json()["responses"]
        assert (200, 201, 200) == (reply.status_code, made["status"], count["status"])
        assert ("c1", name) == (made["id"], made["body"]["displayName"])
        assert ("application/json; odata.metadata=minimal", "4.0") == tuple(
            made["headers"][header] for header in ("content-type", "odata-version")
        )
        assert count["body"].isdigit()

    def test_echo_the_id_as_given(self, erp: Client, base):
        read = {"method": "GET", "url": f"{base}/currencies?$top=1"}
        responses = send(erp, read, {**read, "id": "x"}, {**read, "id": "x"}).json()["responses"]

        assert [None, "x", "x"] == [response["id"] for response in responses]

    def test_come_in_order_and_see_what_was_done_before(self, erp: Client, base, name):
        wanted = str(uuid.uuid4())
        patch = {
            "method": "PATCH",
            "url": f"{base}/customers({wanted})",
            "headers": {"Content-Type": "application/json", "If-Match": "*"},
            "body": {"phoneNumber": "7"},
        }
        made = create(base, name, body={"displayName": name, "id": wanted})

        responses = send(erp, made, patch).json()["responses"]

        assert [201, 200] == [response["status"] for response in responses]
        assert "7" == responses[1]["body"]["phoneNumber"]

    def test_need_an_if_match_of_their_own(self, erp: Client, base):
        customer = erp.rows("customers?$top=1")[0]["id"]
        patch = {"method": "PATCH", "url": f"{base}/customers({customer})", "body": {"phoneNumber": "7"}}
        patch["headers"] = {"Content-Type": "application/json"}

        (response,) = send(erp, patch, headers={"If-Match": "*"}).json()["responses"]

        assert (400, "BadRequest_InvalidToken") == (response["status"], response["body"]["error"]["code"])

    def test_need_a_content_type_of_their_own_where_there_is_a_body(self, erp: Client, base, name):
        """Headers of each request of a batch.

        learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-connect-apps-tips
        """
        made = {key: value for key, value in create(base, name).items() if key != "headers"}
        (response,) = send(erp, made).json()["responses"]

        assert (400, "BadRequest") == (response["status"], response["body"]["error"]["code"])
        assert [] == named(erp, name)

    def test_are_the_same_by_whatever_address_the_service_has(self, info: Info, erp: Client, base):
        """With and without the tenant, whole or not, percent-encoded or not.

        learn.microsoft.com/dynamics365/business-central/dev-itpro/webservices/api-endpoint-structure
        """
        short = erp.root.replace(f"/{info['sign_in']['tenant_id']}", "")
        encoded = base.replace("(", "%28").replace(")", "%29")
        roots = ("", "/", f"{erp.root}/", f"{short}/", "/v2.0" + short.partition("/v2.0")[2] + "/")
        reads = [{"method": "GET", "url": f"{root}{at}/currencies/$count"} for root in roots for at in (base, encoded)]
        responses = send(erp, *reads).json()["responses"]

        assert [(200, erp.get("currencies/$count").text)] * 10 == [(each["status"], each["body"]) for each in responses]

    def test_are_of_requests_that_say_what_is_asked_and_where(self, erp: Client, base, name):
        """docs.oasis-open.org/odata/odata-json-format/v4.01/odata-json-format-v4.01.html"""
        read = {"method": "GET", "url": f"{base}/currencies/$count"}
        for wrong in (3, {"method": "GET"}, {"url": read["url"]}, {**read, "method": None}):
            reply = erp.post(f"{erp.root}/$batch", {"requests": [create(base, name), wrong]})
            assert (400, "BadRequest") == error_code(reply)

        assert [] == named(erp, name)

    def test_of_what_is_said_to_read_only_are_no_writes(self, erp: Client, base, name):
        """learn.microsoft.com/dynamics365/business-central/dev-itpro/webservices/data-access-intent"""
        headers = {"Content-Type": "application/json", "Data-Access-Intent": "ReadOnly"}
        (response,) = send(erp, create(base, name, headers=headers)).json()["responses"]

        assert (400, []) == (response["status"], named(erp, name))


class TestMultipart:
    """The multipart format, which the product takes beside JSON.

    docs.oasis-open.org/odata/odata/v4.0/os/part1-protocol/odata-v4.0-os-part1-protocol.html
    """

    @staticmethod
    def sent(erp: Client, *lines: str, **given):
        headers = {"Content-Type": "multipart/mixed; boundary=b", **given.pop("headers", {})}
        return erp.send("POST", f"{erp.root}/$batch", data="\r\n".join(lines).encode(), headers=headers, **given)

    @staticmethod
    def operation(method: str, url: str, body: str = "") -> list[str]:
        head = ["Content-Type: application/http", "Content-Transfer-Encoding: binary", ""]
        return [*head, f"{method} {url} HTTP/1.1", *(["Content-Type: application/json"] if body else []), "", body]

    def test_is_answered_in_its_own_format(self, erp: Client, base, name):
        made = self.operation("POST", f"{base}/customers", f'{{"displayName": "{name}"}}')
        read = self.operation("GET", f"{base}/customers?$top=1")
        reply = self.sent(erp, "--b", *made, "--b", *read, "--b--", "")

        assert (200, True) == (reply.status_code, reply.headers["Content-Type"].startswith("multipart/mixed"))
        assert [True, True] == ["HTTP/1.1 201 Created" in reply.text, "HTTP/1.1 200 OK" in reply.text]
        assert 1 == len(named(erp, name))

    def test_operation_by_itself_is_answered_by_itself_whatever_it_is_called(self, erp: Client, base):
        """A Content-ID makes no change set of it."""
        read = ["Content-ID: 1", *self.operation("GET", f"{base}/customers?$top=1")]
        reply = self.sent(erp, "--b", *read, "--b--", "")

        assert "Content-ID: 1" in reply.text
        assert "changesetresponse" not in reply.text

    def test_change_set_happens_whole_or_not_at_all(self, erp: Client, base, name):
        first, second = (
            ["--c", f"Content-ID: {at}", *self.operation("POST", f"{base}/customers", body)]
            for at, body in ((1, f'{{"displayName": "{name}"}}'), (2, '{"displayName": ""}'))
        )
        head = ["--b", "Content-Type: multipart/mixed; boundary=c", ""]
        reply = self.sent(erp, *head, *first, *second, "--c--", "--b--", "")

        assert (200, 1) == (reply.status_code, reply.text.count("HTTP/1.1 "))
        assert "HTTP/1.1 400 Bad Request" in reply.text
        assert [] == named(erp, name)

    def test_that_is_none_is_refused(self, erp: Client):
        assert (400, "BadRequest") == error_code(self.sent(erp, "--b", "nothing"))
        assert 405 == erp.get(f"{erp.root}/$batch").status_code


class TestCompany:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/webservices/use-odata-batch"""

    def test_may_stand_in_the_header_of_the_batch_or_of_the_part(self, erp: Client):
        company = erp.get(f"{erp.root}/companies").json()["value"][0]["name"]
        read = {"method": "GET", "url": "customers?$top=1"}
        outer = send(erp, read, headers={"Company": company}).json()["responses"]
        inner = send(erp, {**read, "headers": {"Company": company}}).json()["responses"]
        wrong = send(erp, {**read, "headers": {"Company": "Nobody"}}).json()["responses"]

        assert [200, 200, 404] == [responses[0]["status"] for responses in (outer, inner, wrong)]


class TestFailure:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/webservices/use-odata-batch"""

    def test_ends_the_batch_and_takes_nothing_back(self, erp: Client, base, name):
        responses = send(erp, create(base, name), create(base, ""), create(base, name)).json()["responses"]

        assert [201, 400] == [response["status"] for response in responses]
        assert 1 == len(named(erp, name))

    def test_is_passed_over_when_asked(self, erp: Client, base, name):
        prefer = "odata.continue-on-error"
        responses = send(erp, create(base, name), create(base, ""), create(base, name), prefer=prefer)

        assert [201, 400, 201] == [response["status"] for response in responses.json()["responses"]]
        assert 2 == len(named(erp, name))


class TestSnapshot:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/webservices/use-odata-batch"""

    def test_happens_as_a_whole(self, erp: Client, base, name):
        send(erp, create(base, name), create(base, name), headers={"Isolation": "snapshot"})

        rows = named(erp, name)
        assert 2 == len(rows)
        assert 1 == len({row["lastModifiedDateTime"] for row in rows})

    def test_that_fails_is_taken_back_and_says_otherwise(self, erp: Client, base, name):
        reply = send(erp, create(base, name), create(base, ""), create(base, name), headers={"Isolation": "snapshot"})

        assert [201, 400, 201] == [response["status"] for response in reply.json()["responses"]]
        assert [] == named(erp, name)

    def test_that_fails_at_once_answers_once(self, erp: Client, base, name):
        reply = send(erp, create(base, ""), create(base, name), headers={"Isolation": "snapshot"})

        assert [400] == [response["status"] for response in reply.json()["responses"]]

    def test_takes_back_the_numbers_that_it_drew(self, erp: Client, base, name):
        """A series has no gaps unless it is said to.

        learn.microsoft.com/dynamics365/business-central/ui-create-number-series
        """
        before = erp.post("customers", {"displayName": name}).json()["number"]
        send(erp, create(base, name), create(base, ""), headers={"Isolation": "snapshot"})
        after = erp.post("customers", {"displayName": name}).json()["number"]

        assert int(before.lstrip("C")) + 1 == int(after.lstrip("C"))

    def test_takes_back_a_company_that_it_made(self, info: Info, erp: Client, name):
        """learn.microsoft.com/dynamics365/business-central/dev-itpro/webservices/use-odata-batch"""
        automation = erp.root.replace("/api/v2.0", "/api/microsoft/automation/v2.0")
        path = f"companies({info['erp']['company_id']})/automationCompanies"
        headers = {"Content-Type": "application/json"}
        made, refused = (
            {"method": "POST", "url": path, "headers": headers, "body": {"displayName": text}}
            for text in ("Taken back", "")
        )
        body = {"requests": [made, refused]}
        reply = erp.post(f"{automation}/$batch", body, headers={"Isolation": "snapshot"})

        assert [201, 400] == [response["status"] for response in reply.json()["responses"]]
        assert "Taken back" not in [row["name"] for row in erp.get(f"{erp.root}/companies").json()["value"]]


class TestLimit:
    """Source: https://learn.microsoft.com/training/modules/work-with-api/4-limits"""

    def test_is_a_hundred(self, erp: Client, base):
        read = {"method": "GET", "url": f"{base}/currencies/$count"}

        assert 100 == len(send(erp, *[read] * 100).json()["responses"])
        assert (500, "Internal_ServerError") == error_code(send(erp, *[read] * 101))
