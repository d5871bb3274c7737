"""`drawbar mappings`: what is in force, and whether the files are right."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from drawbar.cli.mappings import app, effect_lines, how
from processors.mapping import FieldMapping
from processors.mapping_diff import Effect
from processors.mapping_files import shipped_folder
from schemas.coupling import PairState
from tests.cli.rows_fake import CONTOSO, CUSTOMERS, FakeRows, a_row, a_side, run, shipped


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shipped files, to be spoiled."""
    return Path(shutil.copytree(shipped_folder(), tmp_path / "mappings"))


def spoil(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / f"{name}.yaml"
    text = path.read_text()
    assert old in text, "the test spoils what is there"
    path.write_text(text.replace(old, new, 1))


class TestList:
    def test_json_is_one_object_a_line(self):
        """One for each mapping."""
        lines = run(app, "list", "--json").json

        assert set(shipped()) == {line["name"] for line in lines}
        (customers,) = [line for line in lines if line["name"] == CUSTOMERS]
        assert ("pair", "customer", "account", "both", "latest") == tuple(
            customers[name] for name in ("role", "erp", "crm", "direction", "conflict")
        )

    def test_the_table_tells_pairs_from_what_is_looked_up(self):
        """A mapping of another role carries no values."""
        out = run(app, "list").out

        assert "<->" in next(line for line in out.splitlines() if CUSTOMERS in line)
        assert "looked up" in next(line for line in out.splitlines() if "payment-term" in line)


class TestShow:
    def test_shows_every_line(self):
        """Both names, the way it goes, and how."""
        out = run(app, "show", CUSTOMERS).out

        for line in shipped()[CUSTOMERS].fields:
            assert str(line.crm) in out
        assert "owner by salesperson-systemuser" in out
        assert "customertypecode is 3" in out

    def test_a_name_that_is_none_gets_a_suggestion(self):
        """Exit code 2."""
        result = run(app, "show", "customer-acount")

        assert 2 == result.exit_code
        assert "did you mean 'customer-account'?" in result.err


class TestHow:
    @pytest.mark.parametrize(
        ("line", "said"),
        [
            (FieldMapping(erp="a", crm="b"), ""),
            (FieldMapping(erp="a", crm="b", required=True, erp_length=20), "required, length erp 20"),
            (FieldMapping(erp="a", crm="b", enabled=False), "switched off"),
            (
                FieldMapping(erp="a", crm="b", type="id", reference="payment-term", options={"X": 1}),
                "id, option by payment-term",
            ),
        ],
    )
    def test_says_what_happens_to_a_value(self, line, said):
        """In a few words."""
        assert said == how(line)


class TestCheck:
    def test_right_files_are_counted(self, folder):
        """Mappings and examples; exit code 0."""
        result = run(app, "check", str(folder))

        assert (0, "8 mappings and") == (result.exit_code, " ".join(result.out.split()[:3]))

    def test_a_wrong_key_is_told_by_file_line_and_suggestion(self, folder):
        """Exit code 2."""
        spoil(folder, CUSTOMERS, "authority: erp", "autority: erp")

        result = run(app, "check", str(folder))

        assert 2 == result.exit_code
        assert "DRW-1002 unknown key 'autority'" in result.err
        assert "customer-account.yaml:" in result.err
        assert "did you mean 'authority'?" in result.err

    def test_each_file_tells_its_own_fault(self, folder):
        """Not only the first."""
        spoil(folder, CUSTOMERS, "authority: erp", "autority: erp")
        spoil(folder, "payment-term", "role: reference", "role: refference")

        assert ["DRW-1002", "DRW-1002"] == [line["code"] for line in run(app, "check", str(folder), "--json").json]

    def test_an_example_that_does_not_come_out_is_a_fault(self, folder):
        """Examples are part of a mapping file."""
        spoil(folder, CUSTOMERS, "crm: { name: Fabrikam GmbH,", "crm: { name: Fabrikam AG,")

        assert "DRW-1003" in run(app, "check", str(folder)).err

    def test_an_empty_folder_is_a_fault(self, tmp_path):
        """Nothing would ever be synchronised."""
        assert 2 == run(app, "check", str(tmp_path)).exit_code


class TestDiff:
    def test_the_files_in_force_do_not_differ(self, folder):
        """Neither shown nor counted."""
        assert "the files say what is in force" in run(app, "diff", str(folder), rows=FakeRows()).out

    def test_shows_lines_uncaptured_fields_and_records(self, folder):
        """What is added, what capture has to read for it, and what a row cannot tell before."""
        line = "  - { erp: phoneNumber, crm: telephone1"
        spoil(folder, CUSTOMERS, line, f"  - {{ erp: taxRegistrationNumber, crm: fax, crm_length: 50 }}\n{line}")
        spoil(folder, CUSTOMERS, "conflict: latest", "conflict: erp")
        pair = a_row(
            CUSTOMERS,
            erp=a_side(CONTOSO, displayName="Contoso"),
            crm=a_side(CONTOSO, name="Contoso"),
            state=PairState.COUPLED,
        )
        known = FakeRows(known=[pair])
        out = run(app, "diff", str(folder), rows=known).out

        assert "~ customer-account" in out
        assert 'conflict: "latest" -> "erp"' in out
        assert "+ taxRegistrationNumber fax" in out
        assert "not captured yet: erp:customer taxRegistrationNumber; the entity is captured anew" in out
        assert "not captured yet: crm:account fax; the entity is captured anew" in out
        assert [] == known.sent

    def test_refuses_files_that_are_wrong(self, folder):
        """Exit code 2, as the check says it."""
        spoil(folder, CUSTOMERS, "authority: erp", "autority: erp")

        assert 2 == run(app, "diff", str(folder), rows=FakeRows()).exit_code

    def test_json_has_all_of_it(self, folder):
        spoil(folder, CUSTOMERS, "conflict: latest", "conflict: erp")
        (found,) = run(app, "diff", str(folder), "--json", rows=FakeRows()).json

        assert ("conflict", "latest", "erp") == tuple(found["changes"][0]["keys"][0].values())


class TestEffectLines:
    def test_say_records_and_fields(self):
        """The most frequent field first."""
        effect = Effect(
            mapping=CUSTOMERS,
            writes=Counter(to_crm=3),
            fields={"to_crm": Counter(name=1, fax=3)},
            made=Counter(to_erp=1),
            dropped=4,
            matched=2,
            deleted=Counter(to_crm=1),
            settled=Counter(restore=2),
            differ=Counter(telephone1=5),
        )

        assert [
            "3 records of the CRM would be written (fax 3, name 1)",
            "1 record would be made in the ERP",
            "1 record of the CRM would be DELETED, after their lost counterparts",
            "2 pairs would be restored in the system that lost them",
            "4 pairs would not be kept in step any more",
            "2 pairs would be coupled",
            "left as it stands for now, though it would come to another value: telephone1 5",
        ] == list(effect_lines(effect))
