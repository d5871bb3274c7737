"""docs/acceptance.md says the truth about the tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "acceptance.md"
CASE = re.compile(r"\b[A-Z]{3}-\d{3}\b")
TEST = re.compile(r"`((?:core|contract)/test_\w+\.py) (\w+)(?:\.(test_\w+))?`")


def keepers() -> dict[tuple[str, str, str], set[str]]:
    """File, class and test (blank: the class itself) -> cases that the docstring names."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for path in (*(ROOT / "tests" / "core").glob("test_*.py"), *(ROOT / "tests" / "contract").glob("test_*.py")):
        file = f"{path.parent.name}/{path.name}"
        for unit in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(unit, ast.ClassDef):
                continue
            found[file, unit.name, ""] = set(CASE.findall(ast.get_docstring(unit) or ""))
            for test in unit.body:
                if isinstance(test, ast.FunctionDef):
                    found[file, unit.name, test.name] = set(CASE.findall(ast.get_docstring(test) or ""))
    return found


def rows() -> list[tuple[str, str]]:
    """Case and what the table says of it."""
    lines = [line.strip("| ").split(" | ", 1) for line in TABLE.read_text(encoding="utf-8").splitlines()]
    return [(line[0], line[1]) for line in lines if len(line) > 1 and CASE.fullmatch(line[0])]


class TestAcceptanceTable:
    def test_names_tests_that_exist_and_that_name_the_case(self):
        known = keepers()
        named = [(case, *hit) for case, said in rows() for hit in TEST.findall(said)]

        assert [] == [item for item in named if item[0] not in known.get(item[1:], set())]
        assert named

    def test_holds_every_case_that_a_test_names(self):
        table = {(case, *hit) for case, said in rows() for hit in TEST.findall(said)}
        claimed = {(case, *test) for test, cases in keepers().items() for case in cases}

        assert set() == claimed - table

    def test_gives_a_test_or_a_reason_for_every_case_once(self):
        cases = [case for case, _ in rows()]

        assert len(cases) == len(set(cases))
        assert [] == [case for case, said in rows() if not TEST.search(said) and not said.startswith("not here: ")]
