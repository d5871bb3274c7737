"""Dataverse's CreateMultiple, UpdateMultiple and UpsertMultiple, fact by fact."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.sandbox.client import Client, error_code

KIND = {"@odata.type": "Microsoft.Dynamics.CRM.account"}


def bulk(crm: Client, message: str, targets: list[dict], set_name: str = "accounts"):
    return crm.post(f"{set_name}/Microsoft.Dynamics.CRM.{message}", {"Targets": targets})


@pytest.fixture
def name() -> str:
    return f"Bulk {uuid.uuid4()}"


@pytest.fixture
def ids(crm: Client, name) -> list[str]:
    return bulk(crm, "CreateMultiple", [{**KIND, "name": name} for _ in range(2)]).json()["Ids"]


@pytest.fixture
def by_number(crm: Client) -> Iterator[None]:
    keys = "EntityDefinitions(LogicalName='account')/Keys"
    made = crm.post(keys, {"SchemaName": "bulk_Number", "KeyAttributes": ["accountnumber"]})
    yield
    crm.delete(made.headers["OData-EntityId"])


def named(crm: Client, name: str) -> list[dict]:
    return crm.rows(f"accounts?$filter=name eq '{name}'")


class TestCreateMultiple:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/bulk-operations"""

    def test_answers_with_ids_in_order(self, crm: Client, name):
        wanted = [str(uuid.uuid4()) for _ in range(3)]
        reply = bulk(crm, "CreateMultiple", [{**KIND, "accountid": key, "name": name} for key in wanted])

        assert (200, wanted) == (reply.status_code, reply.json()["Ids"])
        assert "Microsoft.Dynamics.CRM.CreateMultipleResponse" in reply.json()["@odata.context"]
        assert 3 == len(named(crm, name))

    def test_makes_none_when_one_is_wrong(self, crm: Client, name):
        reply = bulk(crm, "CreateMultiple", [{**KIND, "name": name}, {**KIND, "name": "x" * 161}])

        assert (400, "0x80044331") == error_code(reply)
        assert [] == named(crm, name)


class TestUpdateMultiple:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/bulk-operations"""

    def test_writes_each_by_its_id(self, crm: Client, ids):
        reply = bulk(crm, "UpdateMultiple", [{**KIND, "accountid": key, "telephone1": key[:4]} for key in ids])

        assert (204, b"") == (reply.status_code, reply.content)
        assert [key[:4] for key in ids] == [crm.get(f"accounts({key})").json()["telephone1"] for key in ids]

    def test_writes_none_when_one_is_missing(self, crm: Client, ids):
        missing = {**KIND, "accountid": str(uuid.uuid4()), "telephone1": "1"}
        reply = bulk(crm, "UpdateMultiple", [{**KIND, "accountid": ids[0], "telephone1": "1"}, missing])

        assert (404, "0x80040217") == error_code(reply)
        assert crm.get(f"accounts({ids[0]})").json()["telephone1"] is None

    def test_takes_one_row_twice(self, crm: Client, ids):
        twice = [{**KIND, "accountid": ids[0], "telephone1": number} for number in ("1", "2")]

        assert 204 == bulk(crm, "UpdateMultiple", twice).status_code
        assert "2" == crm.get(f"accounts({ids[0]})").json()["telephone1"]


class TestUpsertMultiple:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/bulk-operations"""

    def test_makes_what_is_missing_and_does_not_say_so(self, crm: Client, ids, name):
        new = str(uuid.uuid4())
        reply = bulk(
            crm,
            "UpsertMultiple",
            [{**KIND, "accountid": ids[0], "telephone1": "1"}, {**KIND, "accountid": new, "name": name}],
        )

        assert (204, b"") == (reply.status_code, reply.content)
        assert {*ids, new} == {row["accountid"] for row in named(crm, name)}

    def test_finds_by_alternate_key(self, crm: Client, by_number, name):
        number = uuid.uuid4().hex[:12]
        target = {**KIND, "@odata.id": f"accounts(accountnumber='{number}')", "name": name}

        made = bulk(crm, "UpsertMultiple", [target])
        again = bulk(crm, "UpsertMultiple", [{**target, "telephone1": "5"}])

        assert (204, 204) == (made.status_code, again.status_code)
        assert [(number, "5")] == [(row["accountnumber"], row["telephone1"]) for row in named(crm, name)]

    def test_refuses_the_key_in_the_target_too_where_it_makes_a_row(self, crm: Client, by_number):
        number = uuid.uuid4().hex[:12]
        target = {**KIND, "@odata.id": f"accounts(accountnumber='{number}')", "accountnumber": number, "name": "N"}

        assert (400, "0x80040203") == error_code(bulk(crm, "UpsertMultiple", [target]))

    def test_refuses_one_row_twice(self, crm: Client, ids):
        twice = [{**KIND, "accountid": ids[0], "telephone1": number} for number in ("1", "2")]

        assert (412, "0x80040237") == error_code(bulk(crm, "UpsertMultiple", twice))


class TestTargets:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/bulk-operations"""

    @pytest.mark.parametrize(
        "targets",
        [[], None, [{"name": "N"}], [{"@odata.type": "Microsoft.Dynamics.CRM.contact", "name": "N"}], ["N"]],
    )
    def test_say_of_which_table_they_are(self, crm: Client, targets):
        assert (400, "0x80048d19") == error_code(bulk(crm, "CreateMultiple", targets))

    @pytest.mark.parametrize("message", ["UpdateMultiple", "UpsertMultiple"])
    def test_say_which_row_they_are(self, crm: Client, message):
        assert (400, "0x80048d19") == error_code(bulk(crm, message, [{**KIND, "name": "N"}]))
        for unfit in ("", "accountnumber='1'", [1]):
            assert (400, "0x80048d19") == error_code(bulk(crm, message, [{**KIND, "accountid": unfit, "name": "N"}]))

    def test_are_of_a_table_that_takes_them(self, crm: Client):
        target = {"@odata.type": "Microsoft.Dynamics.CRM.transactioncurrency", "currencyname": "N"}

        assert (400, "0x80040800") == error_code(bulk(crm, "CreateMultiple", [target], "transactioncurrencies"))

    def test_which_tables_those_are_can_be_asked(self, crm: Client):
        query = "sdkmessagefilters?$select=sdkmessagefilterid&$filter=sdkmessageid/name eq @m and"
        query += " primaryobjecttypecode eq @t&@m='CreateMultiple'&@t='{}'"

        found = [len(crm.rows(query.format(table))) for table in ("account", "contact", "transactioncurrency")]

        assert [1, 1, 0] == found

    def test_no_other_message_is_known(self, crm: Client):
        assert (501, "0x80040800") == error_code(bulk(crm, "DeleteMultiple", [KIND]))


class TestVersions:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/bulk-operations"""

    def test_give_each_row_a_version_of_its_own(self, crm: Client, name):
        before = max(row["versionnumber"] for row in crm.rows("accounts"))
        ids = bulk(crm, "CreateMultiple", [{**KIND, "name": name} for _ in range(3)]).json()["Ids"]
        rows = named(crm, name)

        assert set(ids) == {row["accountid"] for row in rows}
        assert 3 == len({row["versionnumber"] for row in rows if row["versionnumber"] > before})
