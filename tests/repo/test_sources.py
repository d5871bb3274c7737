"""What the files of the repository must not hold, and what an import must not do."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drawbar.log import EVENTS
from tests.repo.tree import PACKAGES, ROOT, files, imports, module_name, sources, text, tree

# Written in two parts, so that this file does not hold what it looks for.
MACHINE_PATHS = ("/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/", "/tmp/br" + "ief", "../sh" + "ared", "/Us" + "ers/")
REGISTRIES = (
    "pypi" + ".org",
    "python" + "hosted",
    "repo1." + "maven",
    "maven" + ".org",
    "ghcr" + ".io",
    "docker" + ".io",
)

LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical"}


def is_text(path: Path) -> bool:
    return b"\0" not in (ROOT / path).read_bytes()[:4096]


TEXTS = tuple(path for path in files() if is_text(path))


def occurrences(parts: tuple[str, ...]) -> list[str]:
    return [
        f"{path}:{number}: {part}"
        for path in TEXTS
        for number, line in enumerate(text(path).splitlines(), 1)
        for part in parts
        if part in line
    ]


class TestFiles:
    def test_name_no_machine(self):
        """A path of one machine is of no use on another."""
        assert [] == occurrences(MACHINE_PATHS)

    def test_name_no_registry(self):
        """Packages, jars and images come from wherever a machine is set up to take them from."""
        assert [] == occurrences(REGISTRIES)

    def test_name_no_index_in_the_lock(self):
        assert [] == [line for line in text("requirements.lock").splitlines() if "://" in line or "index-url" in line]

    def test_hold_nothing_that_was_left_for_later(self):
        """What is not done is not in the code: no marks, no functions without a body."""
        marks = ("TO" + "DO", "FIX" + "ME", "XX" + "X:", "HA" + "CK")
        empty = [
            f"{path}:{node.lineno}"
            for path in sources(*PACKAGES)
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Raise) and node.exc is not None and "NotImplementedError" in ast.dump(node.exc)
        ]

        assert [] == occurrences(marks)
        assert [] == empty

    def test_end_with_one_line_end_and_have_no_blanks_before_it(self):
        ragged = [
            str(path)
            for path in TEXTS
            if (content := text(path))
            and (not content.endswith("\n") or content.endswith("\n\n") or re.search(r"[ \t]+$", content, re.MULTILINE))
        ]

        assert [] == ragged

    def test_are_named_for_what_they_answer(self):
        """`utils` and its kin take in everything and answer nothing."""
        vague = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}

        assert [] == [str(path) for path in files() if vague & {path.stem, *path.parent.parts}]


class TestModules:
    def test_of_the_library_print_nothing(self):
        """Results are the command line's business; everything else is a log event."""
        printing = [
            f"{path}:{node.lineno}"
            for path in sources(*PACKAGES)
            if path.parts[:2] != ("drawbar", "cli")
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        ]

        assert [] == printing

    def test_of_the_sandbox_know_nothing_of_drawbar(self):
        """The sandbox stands for the two services: what it shared with us, it could not disprove."""
        known = [
            f"{path} imports {name}"
            for path in sources("drawbar")
            if path.parts[:2] == ("drawbar", "sandbox")
            for name in imports(path)
            if name.split(".")[0] in PACKAGES and not name.startswith("drawbar.sandbox")
        ]

        assert [] == known

    def test_of_the_core_are_pure(self):
        """No clock, no network, no log, no file: what a decision needs comes in as arguments."""
        core = ("coupling", "decide", "homes", "mapping", "react", "route", "transforms", "turn", "view")
        impure = ("time", "os", "random", "socket", "requests", "structlog", "logging", "faust", "confluent_kafka")
        found = [
            f"{path} imports {name}"
            for path in (Path(f"processors/{stem}.py") for stem in core)
            for name in imports(path)
            if name.split(".")[0] in (*impure, "drawbar", "pathlib", "subprocess", "threading", "asyncio")
        ]
        clocks = [
            f"{path}:{node.lineno}"
            for path in (Path(f"processors/{stem}.py") for stem in core)
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Attribute)
            and node.attr in ("now", "utcnow", "today")
            and isinstance(node.ctx, ast.Load)
            if isinstance(node.value, ast.Name) and node.value.id in ("datetime", "date")
        ]

        assert [] == found
        assert [] == clocks

    def test_open_with_what_they_answer(self):
        """A module of the library says what it is for before it says anything else."""
        silent = [
            str(path)
            for path in sources(*PACKAGES)
            if tree(path).body and not (ast.get_docstring(tree(path)) or "").strip()
        ]

        assert [] == silent


@pytest.fixture(scope="class")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What importing every module did, on a machine without home, network and environment."""
    nowhere = tmp_path_factory.mktemp("nowhere")
    run = subprocess.run(
        [sys.executable, str(ROOT / "tests/repo/import_everything.py")],
        cwd=nowhere,
        env={"HOME": str(nowhere / "missing"), "PYTHONPATH": str(ROOT), "PATH": os.defpath, "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert [] == list(nowhere.iterdir())
    return json.loads(run.stdout)


class TestImport:
    def test_works_without_home_network_and_settings(self, imported: dict[str, list[str]]):
        """Every module of the packages can be imported anywhere, and leaves nothing behind."""
        expected = {module_name(path) for path in sources(*PACKAGES) if path.name != "__main__.py"}

        assert expected == set(imported["modules"])

    def test_reads_no_environment_no_clock_no_file(self, imported: dict[str, list[str]]):
        """What a module needs of the outside it is given when it is called: the command line puts things together."""
        assert [] == imported["seen"]

    def test_asks_no_date(self):
        """`datetime.now()` cannot be watched from outside, so it is looked for."""
        dated = [
            f"{path}:{node.lineno}"
            for path in sources(*PACKAGES)
            for node in run_on_import(tree(path))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("now", "utcnow", "today")
        ]

        assert [] == dated


def run_on_import(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a module that an import runs: all but the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in (*child.decorator_list, *child.args.defaults, *filter(None, child.args.kw_defaults)):
                yield part
                yield from run_on_import(part)
        elif not isinstance(child, ast.Lambda):
            yield child
            yield from run_on_import(child)


def logged(path: Path) -> Iterator[tuple[int, str | None]]:
    """Line and name of each event that a module logs; None for a name that is not written there as it stands."""
    for node in ast.walk(tree(path)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in LOG_METHODS
            and re.search(r"\blog(ger)?\b", ast.unparse(node.func.value).replace("_", " "))
            and node.args
        ):
            first = node.args[0]
            yield node.lineno, first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


class TestEvents:
    def test_are_all_listed(self):
        """Who watches a log finds every event explained in drawbar/log.py."""
        unknown = [
            f"{path}:{line} {event}"
            for path in sources(*PACKAGES)
            for line, event in logged(path)
            if event not in EVENTS
        ]

        assert [] == unknown

    def test_are_all_logged_somewhere(self):
        """The list names no event that cannot come."""
        code = "\n".join(text(path) for path in sources(*PACKAGES) if str(path) != "drawbar/log.py")

        assert [] == [event for event in EVENTS if f'"{event}"' not in code]

    def test_are_named_for_stage_and_happening(self):
        assert [] == [event for event in EVENTS if not re.fullmatch(r"[a-z]+\.[a-z]+(_[a-z]+)*", event)]

    def test_stand_in_order(self):
        assert sorted(EVENTS) == list(EVENTS)
