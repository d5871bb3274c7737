"""`drawbar mappings`: what is in force, and whether the files are right."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from drawbar.cli.applying import to_be_seen
from drawbar.cli.mappings import app, effect_lines, how
from processors.mapping import FieldMapping
from processors.mapping_diff import Effect, LineChange, MappingChange
from processors.mapping_files import shipped_folder
from schemas.coupling import PairState
from schemas.mapping_set import MappingSet
from tests.builders import NOON
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


class TestApply:
    """Which records are looked at when other files come into force, also when an earlier command was cut off."""

    def to_be_seen(self, before: MappingSet, *changes: MappingChange) -> tuple[dict[str, tuple[str, ...]], set[str]]:
        meant = to_be_seen(MappingSet(files={}, by="jane", at=NOON), before, changes)
        return dict(meant.unseen), set(meant.added)

    def test_looks_at_mappings_that_changed_and_has_those_captured_that_there_were_not(self):
        before = MappingSet(files={}, by="jane", at=NOON)
        line = LineChange(kind="added", erp="", crm="fax")

        assert ({CUSTOMERS: ("fax",)}, {"contact-contact"}) == self.to_be_seen(
            before,
            MappingChange(kind="changed", name=CUSTOMERS, lines=(line,)),
            MappingChange(kind="added", name="contact-contact"),
        )

    def test_does_not_forget_what_a_command_that_was_cut_off_left(self):
        before = MappingSet(
            files={}, by="jane", at=NOON, unseen={CUSTOMERS: ("telephone1",)}, added=("contact-contact",)
        )

        assert ({CUSTOMERS: ("telephone1",)}, {"contact-contact"}) == self.to_be_seen(before)

    def test_has_nothing_to_look_at_in_a_mapping_that_is_gone(self):
        before = MappingSet(
            files={}, by="jane", at=NOON, unseen={CUSTOMERS: ("telephone1",)}, added=("contact-contact",)
        )

        assert ({}, set()) == self.to_be_seen(
            before,
            MappingChange(kind="removed", name=CUSTOMERS),
            MappingChange(kind="removed", name="contact-contact"),
        )
