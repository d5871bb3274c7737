"""Dataverse's alternate keys, fact by fact."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.sandbox.client import Client, error_code

KEYS = "EntityDefinitions(LogicalName='account')/Keys"


def add_key(crm: Client, schema: str, *columns: str):
    return crm.post(KEYS, {"SchemaName": schema, "DisplayName": {}, "KeyAttributes": list(columns)})


@pytest.fixture
def key(crm: Client) -> Iterator[str]:
    made = add_key(crm, "test_Number", "accountnumber")
    assert 204 == made.status_code, made.text
    yield made.headers["OData-EntityId"]
    crm.delete(made.headers["OData-EntityId"])


@pytest.fixture
def number() -> str:
    return f"N'{uuid.uuid4().hex[:10]}"


def address(number: str) -> str:
    return f"accounts(accountnumber='{number.replace(chr(39), chr(39) * 2)}')"


class TestDefinition:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/define-alternate-keys-entity"""

    def test_is_listed_with_its_columns_and_the_state_of_its_index(self, crm: Client, key):
        query = f"{KEYS}?$select=SchemaName,KeyAttributes,EntityKeyIndexStatus"
        rows = [row for row in crm.rows(query) if row["SchemaName"] == "test_Number"]

        assert [(["accountnumber"], "Active")] == [(r["KeyAttributes"], r["EntityKeyIndexStatus"]) for r in rows]
        assert "test_Number" == crm.get(key).json()["SchemaName"]

    def test_fails_where_rows_break_it_already(self, crm: Client):
        for _ in range(2):
            crm.post("accounts", {"name": "Twin", "fax": "55"})
        made = add_key(crm, "test_Fax", "fax").headers["OData-EntityId"]
        status = crm.get(made).json()["EntityKeyIndexStatus"]
        used = crm.get("accounts(fax='55')")
        crm.delete(made)

        assert "Failed" == status
        assert (400, "0x80060890") == error_code(used)

    @pytest.mark.parametrize(
        ("schema", "columns"),
        [("", ["name"]), ([1], ["name"]), ("k", []), ("k", ["nosuch"]), ("k", ["creditlimit"]), ("k", ["merged"])],
    )
    def test_is_of_columns_that_can_be_keys(self, crm: Client, schema, columns):
        assert (400, "0x80040203") == error_code(add_key(crm, schema, *columns))

    def test_is_gone_when_deleted(self, crm: Client, number):
        made = add_key(crm, "test_Gone", "accountnumber").headers["OData-EntityId"]
        crm.delete(made)

        assert (404, "0x80060888") == error_code(crm.get(made))
        assert (400, "0x80060890") == error_code(crm.get(address(number)))


class TestAddress:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/use-alternate-key-reference-record"""

    def test_reads_writes_and_deletes(self, crm: Client, key, number):
        crm.post("accounts", {"name": "N", "accountnumber": number})

        assert number == crm.get(address(number)).json()["accountnumber"]
        assert 204 == crm.patch(address(number), {"name": "M"}, tag="*").status_code
        assert "M" == crm.get(f"{address(number)}/name").json()["value"]
        assert 204 == crm.delete(address(number)).status_code
        assert (404, "0x80060891") == error_code(crm.get(address(number)))

    def test_disregards_letter_case(self, crm: Client, key):
        crm.post("accounts", {"name": "N", "accountnumber": "AbC-1"})

        assert 200 == crm.get("accounts(accountnumber='aBc-1')").status_code

    def test_needs_a_key_that_is_defined(self, crm: Client, key):
        assert (400, "0x80060890") == error_code(crm.get("accounts(fax='1')"))
        assert (400, "0x80060890") == error_code(crm.get("accounts(accountnumber='1',fax='1')"))

    def test_may_have_several_parts_one_of_them_a_lookup(self, crm: Client, number):
        made = add_key(crm, "test_Both", "accountnumber", "primarycontactid").headers["OData-EntityId"]
        contact = crm.post("contacts", {"lastname": "Lee"}).headers["OData-EntityId"]
        contact_id = contact[contact.index("(") + 1 : -1]
        path = f"{address(number)[:-1]},_primarycontactid_value={contact_id})"
        created = crm.patch(path, {"name": "N"})
        row = crm.get(path).json()
        crm.delete(made)

        assert (204, number, contact_id) == (created.status_code, row["accountnumber"], row["_primarycontactid_value"])

    def test_serves_in_a_reference_too(self, crm: Client, key, number):
        account = crm.post("accounts", {"name": "N", "accountnumber": number}, prefer="return=representation").json()
        body = {"lastname": "Lee", "parentcustomerid_account@odata.bind": f"/{address(number)}"}
        contact = crm.post("contacts", body, prefer="return=representation").json()
        lost = {"lastname": "Lee", "parentcustomerid_account@odata.bind": "/accounts(accountnumber='none')"}

        assert account["accountid"] == contact["_parentcustomerid_value"]
        assert (404, "0x80060891") == error_code(crm.post("contacts", lost))


class TestUniqueness:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/define-alternate-keys-entity"""

    def test_is_kept_on_create_and_update(self, crm: Client, key, number):
        crm.post("accounts", {"name": "N", "accountnumber": number})
        other = crm.post("accounts", {"name": "M"}).headers["OData-EntityId"]

        for reply in (
            crm.post("accounts", {"name": "O", "accountnumber": number.upper()}),
            crm.patch(other, {"accountnumber": number}),
        ):
            assert (412, "0x80060892") == error_code(reply)
            assert "Entity Key test_Number violated" in reply.json()["error"]["message"]

    def test_does_not_count_empty_columns(self, crm: Client, key):
        assert [204, 204] == [crm.post("accounts", {"name": "N"}).status_code for _ in range(2)]

    def test_follows_the_rows(self, crm: Client, key, number):
        first = crm.post("accounts", {"name": "N", "accountnumber": number}).headers["OData-EntityId"]
        crm.patch(first, {"accountnumber": None})

        assert 204 == crm.post("accounts", {"name": "M", "accountnumber": number}).status_code


class TestUpsert:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/update-delete-entities-using-web-api"""

    def test_creates_with_the_key_then_updates(self, crm: Client, key, number):
        first = crm.patch(address(number), {"name": "N"}, prefer="return=representation")
        second = crm.patch(address(number), {"name": "M"}, prefer="return=representation")

        assert (201, 200) == (first.status_code, second.status_code)
        assert number == first.json()["accountnumber"]
        assert first.json()["accountid"] == second.json()["accountid"]

    def test_says_nothing_of_which_without_representation(self, crm: Client, key, number):
        replies = [crm.patch(address(number), {"name": "N"}) for _ in range(2)]

        assert [204, 204] == [reply.status_code for reply in replies]
        assert 1 == len({reply.headers["OData-EntityId"] for reply in replies})

    def test_only_updates_with_if_match(self, crm: Client, key, number):
        assert (404, "0x80060891") == error_code(crm.patch(address(number), {"name": "N"}, tag="*"))

    def test_only_creates_with_if_none_match(self, crm: Client, key, number):
        header = {"If-None-Match": "*"}

        assert 204 == crm.patch(address(number), {"name": "N"}, headers=header).status_code
        assert (412, "0x80040237") == error_code(crm.patch(address(number), {"name": "N"}, headers=header))

    def test_refuses_another_value_of_the_key_in_the_body(self, crm: Client, key, number):
        assert 204 == crm.patch(address(number), {"name": "N", "accountnumber": number}).status_code
        assert (400, "0x80040203") == error_code(crm.patch(address(number), {"accountnumber": "other"}))
