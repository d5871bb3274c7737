"""Other mapping files come into force while people work: nothing is lost, doubled or blanked, whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from processors.mapping_files import shipped_folder
from tests.kafka_fixture import until
from tests.pipeline.comparison import disagreements, lost
from tests.pipeline.installation import Installation, until_within
from tests.pipeline.load import Load

pytestmark = [pytest.mark.kafka, pytest.mark.pipeline]

NUMBER = "crm: accountnumber, type: code, direction: to_crm, erp_length: 20, crm_length: 20, enabled: false }"
FIRST_CONTACT = "  - { crm: primarycontactid, first: contact, type: id, direction: to_crm }     # R311\n"
NEW_FIELD = "  - { erp: taxRegistrationNumber, crm: description, erp_length: 20, crm_length: 2000 }"


@pytest.fixture(scope="module")
def records(system: Installation) -> list[str]:
    return system.make_pairs(24)


def folder_with(folder: Path, *changes: tuple[str, str]) -> str:
    """The shipped files with these changes to the customer's."""
    folder.mkdir()
    for path in shipped_folder().glob("*.yaml"):
        text = path.read_text("utf-8")
        if path.name == "customer-account.yaml":
            for before, after in changes:
                assert before in text
                text = text.replace(before, after)
        (folder / path.name).write_text(text, "utf-8")
    return str(folder)


def not_filled(system: Installation, records: list[str], erp_field: str, crm_field: str) -> list[str]:
    """Customers whose account does not hold in one column what they hold."""
    customers, accounts = system.rows("erp"), system.rows("crm")
    return [
        record
        for record in records
        if (customers[record][erp_field] or None) != accounts[system.pairs[record]][crm_field]
    ]


class TestApply:
    def test_fills_a_column_from_a_field_that_was_captured_already(
        self, system: Installation, records: list[str], tmp_path: Path
    ):
        """Under load, and each record once; a second application of the same files does nothing."""
        folder = folder_with(tmp_path / "numbered", (NUMBER, NUMBER.replace(", enabled: false", "")))
        with Load(system, records) as load:
            until_within(lambda: load.count >= 20, "people are at work")
            told = system.drawbar("mappings", "apply", folder, "--yes")
        system.wait_quiet()

        assert "in force" in told
        assert [] == not_filled(system, records, "number", "accountnumber")
        assert [] == lost(system, load.last)
        assert [] == disagreements(system)
        assert "nothing to do" in system.drawbar("mappings", "apply", folder, "--yes")

    def test_goes_on_where_it_was_cut_off(self, system: Installation, records: list[str], tmp_path: Path):
        """A field that nobody captured; the command and a deciding process are killed on the way."""
        for number, record in enumerate(records):
            system.erp.edit(record, taxRegistrationNumber=f"TAX {number}" if number % 3 else "")
        folder = folder_with(
            tmp_path / "taxed",
            (NUMBER, f"{NUMBER.replace(', enabled: false', '')}\n{NEW_FIELD}"),
        )
        with Load(system, records) as load:
            until_within(lambda: load.count >= 20, "people are at work")
            command = system.begin("mappings", "apply", folder, "--yes")
            until(lambda: "taken by" in said(system), "the first stages have taken the files", timeout_s=90)
            os.kill(command.pid, signal.SIGKILL)
            command.wait()
            system.await_successor(system.kill("process"))
            system.drawbar("mappings", "apply", folder, "--yes")
        system.wait_quiet()

        assert [] == not_filled(system, records, "taxRegistrationNumber", "description")
        assert [] == lost(system, load.last)
        assert [] == disagreements(system)
        assert [] == system.untrue_pids()

    def test_is_how_files_come_into_force(self, system: Installation, records: list[str], tmp_path: Path):
        """A restart with another folder changes nothing; what was applied outlives it."""
        system.stop()
        system.environment["DRAWBAR_MAPPINGS_DIR"] = folder_with(tmp_path / "plain")
        system.start()
        record = records[0]
        system.erp.edit(record, taxRegistrationNumber="TAX after the restart")
        system.wait_quiet()

        assert [] == not_filled(system, records, "taxRegistrationNumber", "description")
        assert "description" in system.drawbar("mappings", "show", "customer-account")

    def test_refuses_files_that_the_systems_do_not_take(self, system: Installation, records: list[str], tmp_path: Path):
        """Before anything is switched."""
        wrong = folder_with(tmp_path / "wrong", ("crm: telephone1", "crm: telephon1"))
        system.drawbar("mappings", "apply", wrong, "--yes", code=2)

        assert [] == not_filled(system, records, "taxRegistrationNumber", "description")

    def test_takes_up_an_entity_that_nobody_captured(self, system: Installation, records: list[str], tmp_path: Path):
        """Persons are left out, and come in again with the file that is about them, one that was made meanwhile, too."""
        folder = folder_with(tmp_path / "without", (FIRST_CONTACT, ""))
        (Path(folder) / "contact.yaml").unlink()
        system.drawbar("mappings", "apply", folder, "--yes")
        company = next(row["number"] for row in system.truth("erp", "contacts") if row["type"] == "Company")
        person = {"type": "Person", "displayName": "Made Meanwhile", "companyNumber": company}
        system.control(
            "POST", "edit", {"system": "erp", "set": "contacts", "app": system.erp.client_id, "values": person}
        )
        system.wait_quiet()
        assert not has_crossed(system, "Made Meanwhile")

        system.drawbar("mappings", "apply", folder_with(tmp_path / "with"), "--yes")
        system.wait_quiet()

        assert has_crossed(system, "Made Meanwhile")


def has_crossed(system: Installation, person: str) -> bool:
    return person in {row["fullname"] for row in system.truth("crm", "contacts")}


def said(system: Installation) -> str:
    log = system.state_dir / "begun.log"
    return log.read_text("utf-8") if log.exists() else ""
