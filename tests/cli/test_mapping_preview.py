"""`drawbar mappings test | preview`: how examples come out; what would be sent for a record, and why."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from drawbar.cli.mappings import app
from processors.mapping_files import shipped_folder
from schemas.coupling import InFlight, Pair, PairState, Row
from schemas.records import Command, CommandKind, RecordRef, System
from tests.cli.rows_fake import (
    CONTOSO,
    CUSTOMERS,
    JANE,
    JR,
    NOW,
    PEOPLE,
    FakeRows,
    a_row,
    a_salesperson,
    a_side,
    a_user,
    run,
)

COMPANY_ROW = "c0c0c000-0000-4000-8000-000000000001"
COMPANY = Row(
    mapping="company",
    id=COMPANY_ROW,
    pair=Pair(crm=a_side(COMPANY_ROW, bcbi_externalid="c", bcbi_name="Cronus", bcbi_defaultowningteamid="7ea")),
)
OWNER = a_row(PEOPLE, erp=a_salesperson(), crm=a_user(), state=PairState.COUPLED)
USED = {"number": "C-10", "displayName": "Contoso Ltd", "salespersonCode": "JR", "blocked": None, "city": "Oslo"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped_folder(), tmp_path / "mappings"))


def spoil(folder: Path, old: str, new: str) -> None:
    path = folder / f"{CUSTOMERS}.yaml"
    text = path.read_text()
    assert old in text, "the test spoils what is there"
    path.write_text(text.replace(old, new, 1))


def previewed(rows: list[Row], *options: str) -> list[dict[str, Any]]:
    known = [COMPANY, OWNER, *rows]
    result = run(app, "preview", f"erp:customer:{CONTOSO}", "--json", *options, rows=FakeRows(known=known))
    assert 0 == result.exit_code, result.err
    return result.json


def line_to(preview: dict[str, Any], target: str) -> tuple[str, str, str]:
    (line,) = [line for line in preview["lines"] if line["target"] == target]
    return line["after"], line["why"], line["then"]


@pytest.fixture(autouse=True)
def company(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAWBAR_ERP__COMPANY_ID", "c")


def a_customer(**state: Any) -> Row:
    return a_row(CUSTOMERS, erp=a_side(CONTOSO, **{**USED, **state}))


def a_coupled(crm: dict[str, Any], **state: Any) -> Row:
    account = {"name": "Contoso", "statecode": 0, "customertypecode": 3, "bcbi_companyid": COMPANY_ROW, **crm}
    sides = {"erp": a_side(CONTOSO, **{**USED, **state}), "crm": a_side(CONTOSO, **account)}
    return a_row(CUSTOMERS, **sides, state=PairState.COUPLED)


class TestTest:
    def test_tells_of_every_example_and_direction(self):
        """With how many fields it compared."""
        result = run(app, "test", "--mapping", "contact")

        assert 0 == result.exit_code
        assert "ok     contact  -->  a name of two words (2 fields)" in result.out
        assert "ok     contact  <--  a name of two words (2 fields)" in result.out
        assert "13 runs of examples, 0 faults" in result.out

    def test_goes_on_after_one_that_does_not_come_out(self, folder: Path):
        """Exit code 2; what came out instead, and where the example stands."""
        spoil(folder, "crm: { name: Fabrikam GmbH,", "crm: { name: Fabrikam AG,")
        result = run(app, "test", str(folder))

        assert 2 == result.exit_code
        assert "FAULT  customer-account  -->  a customer becomes an account" in result.out
        assert "comes out as 'Fabrikam GmbH', not 'Fabrikam AG'" in result.out
        assert "customer-account.yaml:" in result.out
        assert "ok     salesperson-systemuser" in result.out

    def test_says_each_as_json(self):
        lines = run(app, "test", "--mapping", CUSTOMERS, "--json").json

        assert {("to_crm", True), ("to_erp", True)} == {(line["direction"], line["ok"]) for line in lines}

    def test_a_name_that_is_none_gets_a_suggestion(self):
        assert "did you mean 'contact'?" in run(app, "test", "--mapping", "contakt").err


class TestPreview:
    def test_of_a_new_record_shows_the_look_up_and_the_create(self):
        """A look-up comes first; the create is what follows when it finds nothing."""
        (to_crm,) = previewed([a_customer()])

        look, create = to_crm["requests"]
        assert ("first", "GET") == (look["when"], look["method"])
        assert look["path"].startswith("accounts?$select=accountid,")
        assert "$filter=…" in look["path"]
        assert ("if nothing is found", "PATCH", "*") == (
            create["when"],
            create["method"],
            create["headers"]["If-None-Match"],
        )
        assert f"/systemusers({JANE})" == create["body"]["ownerid@odata.bind"]
        assert "create in the CRM" == to_crm["verdict"]

    def test_tells_nothing_of_a_customer_unless_asked(self):
        """Type and length instead of a value."""
        silent, loud = str(previewed([a_customer()])), str(previewed([a_customer()], "--values"))

        assert "Contoso Ltd" not in silent
        assert "Oslo" not in silent
        assert "<text, 11>" in silent
        assert "Contoso Ltd" in loud
        assert "$filter=" in loud

    def test_says_of_each_line_where_its_value_is_from(self):
        (to_crm,) = previewed([a_customer(shipmentMethodId=None)])

        assert (f"systemuser:{JANE}", "owner, coupled by salesperson-systemuser", "written") == line_to(
            to_crm, "ownerid"
        )
        assert (COMPANY_ROW, "the CRM row of this company", "written") == line_to(to_crm, "bcbi_companyid")
        assert ("<text, 11>", "as it is", "written") == line_to(to_crm, "name")
        assert ("blank", "blank", "left to the target's default") == line_to(to_crm, "address1_freighttermscode")
        assert ("", "not captured yet", "left alone") == line_to(to_crm, "websiteurl")

    def test_of_a_pair_shows_only_what_changes(self):
        """Under the version that was last seen, with what the target holds left out."""
        to_crm, _ = previewed([a_coupled({"address1_city": "Oslo"})])

        (update,) = to_crm["requests"]
        assert ("PATCH", 'W/"1"') == (update["method"], update["headers"]["If-Match"])
        assert ["name"] == list(update["body"])
        assert ("<text, 4>", "as it is", "held already") == line_to(to_crm, "address1_city")

    def test_of_a_pair_at_rest_shows_what_a_change_of_all_would_send(self):
        """There is always a request to look at."""
        to_crm, to_erp = previewed([a_coupled({"name": "Contoso Ltd"})])

        assert "nothing is sent: the target holds it already" == to_crm["verdict"]
        assert ["if every field had changed"] == [request["when"] for request in to_crm["requests"]]
        assert f"companies(c)/customers({CONTOSO})" == to_erp["requests"][0]["path"]

    def test_names_what_a_record_waits_for(self):
        """The missing record, and that no request is due."""
        other = a_row(PEOPLE, erp=a_salesperson("5a1e5000-0000-4000-8000-000000000009", code="ZZ"))
        (to_crm,) = previewed([other, a_customer(salespersonCode="ZZ")])

        missing = "erp:salesperson:5a1e5000-0000-4000-8000-000000000009"
        assert f"waits: owner-not-coupled {missing}" == to_crm["verdict"]
        assert ("", f"owner-not-coupled: {missing}", "waits") == line_to(to_crm, "ownerid")
        assert ["first"] == [request["when"] for request in to_crm["requests"]]

    def test_says_that_a_command_is_under_way(self):
        row = a_coupled({})
        assert row.pair is not None
        command = Command(
            command_id="c",
            mapping=CUSTOMERS,
            home=CONTOSO,
            kind=CommandKind.UPDATE,
            target=RecordRef(System.CRM, "account", CONTOSO),
            issued_at=NOW,
        )
        flight = InFlight(command=command, direction="to_crm", sent_at=NOW)
        to_crm, _ = previewed([replace(row, pair=replace(row.pair, in_flight=flight))])

        assert to_crm["verdict"].startswith("a command is under way (update)")

    def test_takes_the_files_of_another_folder(self, folder: Path):
        """What they would make of the record."""
        spoil(folder, "erp_length: 50, crm_length: 250", "erp_length: 50, crm_length: 7, transform: upper")
        (to_crm,) = previewed([a_customer(addressLine2="left of the gate")], "--folder", str(folder))

        assert ("<text, 7>", "transform upper, cut to 7 characters", "written") == line_to(to_crm, "address1_line2")

    def test_shows_one_direction_when_asked(self):
        (to_erp,) = previewed([a_coupled({})], "--direction", "to_erp")

        assert "to_erp" == to_erp["direction"]

    def test_of_a_record_that_is_only_looked_up_is_none(self):
        """Nothing flows from it."""
        rows = FakeRows(known=[COMPANY])
        result = run(app, "preview", f"crm:bcbi_company:{COMPANY_ROW}", rows=rows)

        assert 2 == result.exit_code
        assert "nothing would flow" in result.err

    def test_people_get_a_table_and_the_request(self):
        rows = FakeRows(known=[COMPANY, OWNER, a_coupled({})])
        out = run(app, "preview", "erp:customer:number=C-10", "--direction", "to_crm", rows=rows).out

        assert f"now: PATCH accounts({CONTOSO})?$select=" in out
        assert "  name = <text, 11>" in out
        assert JR not in out
