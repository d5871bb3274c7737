"""The status table: what each refusal of the two services means for the command."""

from __future__ import annotations

import pytest

from consumers.requests import Meaning, Verb, create_request, error_detail, meaning_of
from drawbar.ports import Reply
from schemas.records import System
from tests.consumers.worlds import create, twin_world

ERP, CRM = System.ERP, System.CRM


def refusal(status: int, code: str = "", message: str = "") -> Reply:
    return Reply(status=status, body={"error": {"code": code, "message": message}})


HTML = object()


class TestMeaning:
    @pytest.mark.parametrize(
        ("system", "verb", "status", "code", "expected"),
        [
            (ERP, Verb.UPDATE, 409, "Request_EntityChanged", Meaning.CHANGED),
            (ERP, Verb.UPDATE, 412, "", Meaning.CHANGED),
            (CRM, Verb.UPDATE, 412, "0x80060882", Meaning.CHANGED),
            (CRM, Verb.UPDATE, 412, "", Meaning.CHANGED),
            (CRM, Verb.UPDATE, 412, "0x80060892", Meaning.TAKEN),  # an update into a key of another record
            (CRM, Verb.CREATE, 412, "", Meaning.TAKEN),
            (CRM, Verb.CREATE, 412, "0x80040237", Meaning.TAKEN),
            (ERP, Verb.CREATE, 400, "Internal_EntityWithSameKeyExists", Meaning.TAKEN),
            (ERP, Verb.CREATE, 409, "Internal_EntityWithSameKeyExists", Meaning.TAKEN),
            (ERP, Verb.READ, 404, "BadRequest_ResourceNotFound", Meaning.MISSING),
            (ERP, Verb.DELETE, 404, "Internal_RecordNotFound", Meaning.MISSING),
            (ERP, Verb.READ, 404, "Internal_CompanyNotFound", Meaning.SHUT),
            (ERP, Verb.CREATE, 404, "BadRequest_ResourceNotFound", Meaning.SHUT),
            (ERP, Verb.CREATE, 404, "Internal_RecordNotFound", Meaning.REJECTED),
            (CRM, Verb.READ, 404, "0x80040217", Meaning.MISSING),
            (CRM, Verb.CREATE, 404, "0x80040217", Meaning.REJECTED),
            (CRM, Verb.FIND, 404, "0x80060888", Meaning.SHUT),
            (CRM, Verb.READ, 404, HTML, Meaning.SHUT),  # a gateway's page says nothing of the record
            (ERP, Verb.UPDATE, 200, HTML, Meaning.UNSURE),
            (CRM, Verb.UPDATE, 200, "", Meaning.DONE),
            (CRM, Verb.UPDATE, 302, "", Meaning.SHUT),
            (CRM, Verb.UPDATE, 401, "", Meaning.SHUT),
            (CRM, Verb.UPDATE, 403, "0x80040220", Meaning.FORBIDDEN),
            (ERP, Verb.UPDATE, 400, "Authorization_RequestDenied", Meaning.FORBIDDEN),
            (ERP, Verb.UPDATE, 401, "Authorization_RequestDenied", Meaning.FORBIDDEN),  # signed in, without the right
            (ERP, Verb.UPDATE, 401, "Authentication_InvalidCredentials", Meaning.SHUT),
            (ERP, Verb.READ, 400, "Internal_CompanyNotFound", Meaning.SHUT),
            (CRM, Verb.CREATE, 412, "0x80073002", Meaning.TAKEN),
            (CRM, Verb.UPDATE, 400, "0x80073002", Meaning.TAKEN),
            (CRM, Verb.READ, 404, "", Meaning.REJECTED),
            (CRM, Verb.UPDATE, 429, "0x80072322", Meaning.THROTTLED),
            (ERP, Verb.UPDATE, 429, HTML, Meaning.THROTTLED),
            (ERP, Verb.UPDATE, 408, "", Meaning.UNSURE),
            (ERP, Verb.UPDATE, 503, "Internal_TenantUnavailable", Meaning.UNSURE),
            (CRM, Verb.UPDATE, 502, HTML, Meaning.UNSURE),
            (CRM, Verb.UPDATE, 500, "0x80044151", Meaning.FAULT),
            (ERP, Verb.FIND, 400, "Application_FilterErrorException", Meaning.MISSING),
            (ERP, Verb.UPDATE, 400, "Application_DialogException", Meaning.REJECTED),
            (ERP, Verb.UPDATE, 400, "Application_StringExceededLength", Meaning.REJECTED),
            (CRM, Verb.UPDATE, 400, "0x80040265", Meaning.REJECTED),
            (CRM, Verb.DELETE, 405, "0x80040227", Meaning.REJECTED),
            (CRM, Verb.UPDATE, 501, "", Meaning.REJECTED),
            (CRM, Verb.UPDATE, 418, "", Meaning.REJECTED),
        ],
    )
    def test_is_read_from_the_table(self, system, verb, status, code, expected):
        """A code that is not in the table is rejected, and never retried for ever."""
        reply = Reply(status=status, is_json=False) if code is HTML else refusal(status, code)

        assert expected is meaning_of(system, verb, reply)

    @pytest.mark.parametrize(
        ("status", "message", "expected"),
        [
            (404, "Entity 'account' With Id = 1 Does Not Exist", Meaning.MISSING),
            (412, "The version of the existing record doesn't match the RowVersion property.", Meaning.CHANGED),
            (412, "A record with matching key values already exists.", Meaning.TAKEN),
        ],
    )
    def test_without_a_code_is_in_the_text(self, status, message, expected):
        """Older builds of the CRM leave the code empty."""
        assert expected is meaning_of(CRM, Verb.UPDATE, refusal(status, "", message))

    def test_of_a_deadlock_is_a_passing_fault(self):
        """The ERP reports a deadlock as a business error; only its text tells it from a refusal."""
        reply = refusal(400, "Application_DialogException", "The operation was chosen as deadlock victim.")

        assert Meaning.FAULT is meaning_of(ERP, Verb.UPDATE, reply)


class TestErrorDetail:
    def test_holds_codes_and_field_names_only(self):
        """The ERP quotes the record's values in its messages: they go no further."""
        message = "The Customer C00010 of Jane Doe is wrong: displayName, city. CorrelationId:  1."
        reply = refusal(400, "Application_DialogException", message)

        assert error_detail(reply, {"city": "x", "state": "y"}) == "400 Application_DialogException city"

    def test_refuses_a_code_that_is_none(self):
        """What stands in the place of a code and is no word may be anything."""
        assert error_detail(refusal(400, "Jane Doe, 555 0100"), {}) == "400"


class TestCreateRequest:
    def test_gives_the_erp_its_id_in_the_body(self):
        """The ERP keeps an id that is supplied in a POST."""
        world = twin_world(ERP)
        command = create(world, {"displayName": "Fabrikam", "blocked": None})

        request = create_request(world.adapter, command, ())

        assert request.body == {"id": command.target.id, "displayName": "Fabrikam", "blocked": "_x0020_"}

    def test_gives_the_crm_its_id_in_the_address(self):
        """An upsert that may only create: the id is honoured or the request fails."""
        world = twin_world(CRM)
        command = create(world, {"name": "Fabrikam"})

        request = create_request(world.adapter, command, ("name",))

        assert (request.method, request.headers["If-None-Match"]) == ("PATCH", "*")
        assert request.path.startswith(f"accounts({command.target.id})?$select=accountid,name,")
