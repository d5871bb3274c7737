"""Mapping files: every fault names file, line and what to write instead; every example runs."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from processors.mapping_files import captured_entities, load_mappings, looked_up_only, read_mapping, shipped_folder
from schemas.errors import MappingExampleFailed, MappingFileError
from schemas.records import System
from tests.builders import CUSTOMER, MAPPINGS

GOOD = """\
    name: customer-account
    erp: customer
    crm: account
    filter:
      crm:
        - { field: statecode, equals: 0 }
    fields:
      - { erp: displayName, crm: name, required: true, erp_length: 10 }
      - { erp: salespersonCode, crm: ownerid, owner: salesperson-systemuser, direction: to_crm }
      - { erp: paymentTermsId, crm: paymenttermscode, reference: payment-term, options: { NET 30: 1 } }
    examples:
      - name: a name goes both ways
        erp: { displayName: Fabrikam }
        crm: { name: Fabrikam }
"""
OTHERS = {
    "salesperson-systemuser.yaml": """\
    name: salesperson-systemuser
    erp: salesperson
    crm: systemuser
    fields: [{ erp: email, crm: internalemailaddress }]
""",
    "payment-term.yaml": """\
    name: payment-term
    erp: paymentTerm
    role: reference
    key: { erp: code }
""",
}


def folder_with(path: Path, text: str = GOOD, *, file: str = "customer-account.yaml") -> Path:
    for name, other in {**OTHERS, file: text}.items():
        (path / name).write_text(textwrap.dedent(other), encoding="utf-8")
    return path


def refused(path: Path, text: str, *, file: str = "customer-account.yaml") -> MappingFileError:
    with pytest.raises(MappingFileError) as caught:
        load_mappings(folder_with(path, text, file=file))
    return caught.value


class TestLoadMappings:
    def test_reads_every_file_of_a_folder(self, tmp_path: Path):
        found = load_mappings(folder_with(tmp_path))

        assert {"customer-account", "salesperson-systemuser", "payment-term"} == set(found)
        assert 10 == found["customer-account"].fields[0].erp_length

    def test_of_no_folder_reads_the_shipped_ones(self):
        assert MAPPINGS == load_mappings(None)
        assert {path.stem for path in shipped_folder().glob("*.yaml")} == set(MAPPINGS)

    def test_applies_compat_and_ownership(self, tmp_path: Path):
        found = load_mappings(folder_with(tmp_path), compat="microsoft", ownership="team")

        assert "none" == found["customer-account"].create
        assert [] == [line for line in found["customer-account"].fields if line.owner and line.enabled]

    def test_refuses_a_folder_without_files(self, tmp_path: Path):
        for folder in (tmp_path, tmp_path / "missing"):
            with pytest.raises(MappingFileError) as caught:
                load_mappings(folder)
            assert str(folder) == caught.value.where

    def test_refuses_two_mappings_of_one_name(self, tmp_path: Path):
        (tmp_path / "zz.yaml").write_text(textwrap.dedent(GOOD), encoding="utf-8")

        fault = refused(tmp_path, GOOD)

        assert "a second mapping is called 'customer-account'" == fault.message
        assert fault.where.endswith("zz.yaml")


class TestFaults:
    """FIL-003, TRF-008: what cannot be understood stops the start; nothing is passed over."""

    @pytest.mark.parametrize(
        ("good", "bad", "line", "said", "todo"),
        [
            ("crm: account", "crmm: account", 3, "unknown key 'crmm'", "did you mean 'crm'?"),
            ("required: true", "requird: true", 8, "unknown key 'requird'", "did you mean 'required'?"),
            ("equals: 0", "equal: 0", 6, "unknown key 'equal'", "did you mean 'equals'?"),
            ("required: true", "transform: uper", 8, "no transform is called 'uper'", ""),
            ("direction: to_crm", "direction: to_erm", 9, "Input should be 'both', 'to_crm' or 'to_erp'", ""),
            ("erp_length: 10", "erp_length: ten", 8, "valid integer", ""),
            ("required: true", "options: { X: 1 }", 8, "options need `reference`", ""),
            ("NET 30: 1", "NET 30: one", 10, "valid integer", ""),
            ("erp: displayName, crm: name", "crm: name", 8, "a field line needs both erp and crm", ""),
            ("name: customer-account", "name: Customer", 1, "match pattern", ""),
            ("name: a name goes", "nam: a name goes", 12, "", ""),
        ],
    )
    def test_name_file_line_and_remedy(self, tmp_path: Path, good: str, bad: str, line: int, said: str, todo: str):
        fault = refused(tmp_path, GOOD.replace(good, bad, 1))

        assert f"{tmp_path / 'customer-account.yaml'}:{line}" == fault.where
        assert said in fault.message
        assert fault.todo.startswith(todo)

    @pytest.mark.parametrize(
        ("good", "bad", "line", "todo"),
        [
            (
                "owner: salesperson-systemuser",
                "owner: salespeople-systemuser",
                9,
                "did you mean 'salesperson-systemuser'?",
            ),
            ("reference: payment-term", "reference: zzz", 10, "known mappings: customer-account, payment-term, "),
        ],
    )
    def test_a_reference_to_no_mapping_names_file_and_line(
        self, tmp_path: Path, good: str, bad: str, line: int, todo: str
    ):
        """R220. The file, as it is called, and the line in it, not the number of the field."""
        fault = refused(tmp_path, GOOD.replace(good, bad), file="10-customers.yaml")

        assert "no mapping is called " in fault.message
        assert fault.todo.startswith(todo)
        assert f"{tmp_path / '10-customers.yaml'}:{line}" == fault.where

    def test_a_reference_by_a_field_that_is_not_captured_is_refused(self, tmp_path: Path):
        """It would never be found."""
        options = ", options: { NET 30: 1 } }"
        fault = refused(tmp_path, GOOD.replace(options, ", reference_by: dueDate }"))

        assert "mapping 'payment-term' does not capture 'dueDate'" == fault.message
        assert "also_capture.erp of payment-term" in fault.todo

    def test_text_that_is_no_yaml_names_the_line(self, tmp_path: Path):
        fault = refused(tmp_path, GOOD + "    broken: { a: 1\n")

        assert fault.message.startswith("not YAML")
        assert fault.where.rsplit(":", 1)[1].isdigit()

    @pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text"])
    def test_text_that_is_no_table_is_refused(self, tmp_path: Path, text: str):
        assert "a mapping file is a table of keys" == refused(tmp_path, text).message

    def test_bytes_that_are_no_text_are_refused(self, tmp_path: Path):
        """A file saved in another encoding is the administrator's fault to mend, not a traceback."""
        path = tmp_path / "m.yaml"
        path.write_bytes("name: größe\n".encode("latin-1"))

        with pytest.raises(MappingFileError) as caught:
            read_mapping(path)
        assert caught.value.where.startswith(str(path))

    @pytest.mark.parametrize("value", ["2026-01-01", "[1, 2]", "{ a: 1 }"])
    def test_a_default_that_no_field_can_hold_is_refused(self, tmp_path: Path, value: str):
        """Found at the start, not when the first record is made."""
        fault = refused(tmp_path, f"{GOOD}    defaults: {{ crm: {{ birthdate: {value} }} }}\n")

        assert fault.where.endswith(":15")


class TestExamples:
    def with_example(self, path: Path, erp: str, crm: str, direction: str = "both") -> None:
        text = f"{GOOD}      - name: mine\n        direction: {direction}\n        erp: {erp}\n        crm: {crm}\n"
        load_mappings(folder_with(path, text))

    def test_that_come_out_as_written_pass(self, tmp_path: Path):
        self.with_example(tmp_path, "{ displayName: Contoso }", "{ name: Contoso }")

    def test_run_in_each_direction_they_allow(self, tmp_path: Path):
        """Cut on the way to the ERP: true that way, and not the other."""
        erp, crm = "{ displayName: Wintersmit }", "{ name: Wintersmith & Sons }"

        self.with_example(tmp_path, erp, crm, "to_erp")
        with pytest.raises(MappingExampleFailed):
            self.with_example(tmp_path, "{ displayName: Contoso Ltd }", "{ name: Fabrikam }", "to_crm")

    def test_that_come_out_otherwise_stop_the_start(self, tmp_path: Path):
        with pytest.raises(MappingExampleFailed) as failed:
            self.with_example(tmp_path, "{ displayName: Fabrikam }", "{ name: Contoso }")
        assert "example 'mine'" in failed.value.message
        assert "displayName -> name" in failed.value.message
        assert 2 == failed.value.exit_code

    def test_name_file_and_line(self, tmp_path: Path):
        with pytest.raises(MappingExampleFailed) as failed:
            self.with_example(tmp_path, "{ displayName: Fabrikam }", "{ name: Contoso }")
        assert failed.value.where.startswith(f"{tmp_path / 'customer-account.yaml'}:")

    @pytest.mark.parametrize(
        ("erp", "crm"), [("{ displayNam: A }", "{ name: B }"), ("{ displayName: A }", "{ nme: B }")]
    )
    def test_with_a_misspelt_field_fail(self, tmp_path: Path, erp: str, crm: str):
        """An example that tests nothing must not pass."""
        with pytest.raises(MappingExampleFailed):
            self.with_example(tmp_path, erp, crm, "to_crm")

    @pytest.mark.parametrize(
        ("erp", "crm"),
        [
            ("{ salespersonCode: JR }", "{ ownerid: 'systemuser:x' }"),
            ("{ salespersonCode: null }", "{ ownerid: null }"),
            ("{ paymentTermsId: x }", "{ paymenttermscode: 1 }"),
        ],
    )
    def test_about_other_records_are_refused_with_the_reason(self, tmp_path: Path, erp: str, crm: str):
        with pytest.raises(MappingExampleFailed) as failed:
            self.with_example(tmp_path, erp, crm, "to_crm")
        assert "needs other records" in failed.value.message


class TestCapturedEntities:
    def test_are_read_once_with_the_fields_of_all_their_mappings(self):
        vendor = CUSTOMER.model_copy(update={"name": "vendor-account", "erp": "vendor"})
        fields = captured_entities([CUSTOMER, vendor])

        assert {(System.ERP, "customer"), (System.ERP, "vendor"), (System.CRM, "account")} == set(fields)
        assert CUSTOMER.captured_fields(System.CRM) == fields[System.CRM, "account"]

    def test_that_are_only_looked_up_are_told_apart(self):
        """They may be read at a slower pace; salespeople, to which values flow, may not."""
        slow = looked_up_only(MAPPINGS.values())

        assert (System.ERP, "paymentTerm") in slow
        assert (System.CRM, "bcbi_company") in slow
        assert {(System.ERP, "customer"), (System.CRM, "systemuser"), (System.ERP, "salesperson")} & slow == set()
